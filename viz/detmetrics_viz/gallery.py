"""Gallery: pictures of frames that are drawn when they are asked for, and a page for each: what a report puts in."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

from detmetrics.errors import InputError
from detmetrics.extras import needs
from detmetrics_viz.looks import Look
from detmetrics_viz.pictures import Painter

if TYPE_CHECKING:
    from detmetrics_viz.footage import Footage

#: Width and height of a picture in a report, pixels.
SIZE = (960, 540)
#: What names of files are made of: the same everywhere, whether or not capitals count.
_LONGEST = 100
_PLAIN = re.compile(rf"[a-z0-9_-][a-z0-9_.-]{{0,{_LONGEST - 1}}}")
_STRANGE = re.compile(r"[^A-Za-z0-9_.-]")


class Gallery(Mapping[str, bytes]):
    """JPEG pictures by name of the frame; to be used in a ``with`` block.

    Parameters
    ----------
    footage : Footage
    pages : path, optional
        Folder, made where it is missing, in which a page is written for each frame that is drawn.
    look : Look, optional
    view : str
        One of :data:`~detmetrics_viz.looks.VIEWS`.
    name : str
        What the run is called, where there are several: it stands on the pictures, and sets its pages apart.

    Raises
    ------
    InputError
        Where nothing can be drawn, or the folder cannot be made.
    """

    def __init__(
        self,
        footage: Footage,
        pages: str | Path | None = None,
        look: Look | None = None,
        *,
        view: str = "behind",
        name: str = "",
    ) -> None:
        self._footage, self._look, self._view, self._name = footage, look or Look(), view, name
        self._pages = None if pages is None else Path(pages)
        if self._pages is not None:
            try:
                self._pages.mkdir(exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot make the folder {pages}: {error.strerror}") from None
        self._painter = Painter(SIZE, smooth=2)

    def __len__(self) -> int:
        """Count the frames."""
        return len(self._footage)

    def __iter__(self) -> Iterator[str]:
        """Give the names of the frames."""
        return iter(self._footage.frames)

    def __contains__(self, frame: object) -> bool:
        """Tell whether a frame can be drawn."""
        return frame in self._footage.frames

    def __getitem__(self, frame: str) -> bytes:
        """Draw a frame, and write its page."""
        with needs("viz", "a picture"):
            from PIL import Image

        scene = self._footage[self._footage.index(frame)]
        if self._name:
            scene = replace(scene, title=f"{self._name} · {scene.title}")
        if self._pages is not None:
            from detmetrics_viz.page import write_html

            write_html(scene, self._pages / self._page(frame), look=self._look, view=self._view)
        buffer = io.BytesIO()
        Image.fromarray(self._painter.draw(scene, self._look, self._view)).save(buffer, "JPEG", quality=88)
        return buffer.getvalue()

    def links(self) -> dict[str, str]:
        """Give the address of each frame's page, relative to the folder's own folder; none without pages."""
        if self._pages is None:
            return {}
        return {frame: quote(f"{self._pages.name}/{self._page(frame)}") for frame in self._footage.frames}

    def _page(self, frame: str) -> str:
        return page_name(f"{self._name}\n{frame}" if self._name else frame)

    def __enter__(self) -> Gallery:
        """Draw within a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the hidden window back."""
        self._painter.close()


def page_name(frame: str) -> str:
    """Give the file of a frame's page: its name, with what no file should have in its name left out.

    Where a file system might take it for another or not at all (it has capitals or strange characters, or is long), a
    part of its hash follows, so that no two frames share a file.
    """
    if _PLAIN.fullmatch(frame):
        return f"{frame}.html"
    digest = hashlib.sha256(frame.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{_STRANGE.sub('_', frame).lstrip('.')[:_LONGEST]}-{digest}.html"
