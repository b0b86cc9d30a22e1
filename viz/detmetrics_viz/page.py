"""Page: scenes as one HTML file that turns in any browser and asks nobody for anything.

three.js, our script and the style are in the file, and its content security policy lets nothing else run and nothing
be fetched. Points are int16 (a step is a few millimetres), packed frame by frame; the script unpacks a frame when it is
looked at. Names come from strangers: they stand in the file as JSON that cannot end its element, and are only ever set
as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError
from detmetrics.files import check_output, whole_file
from detmetrics_viz.looks import VIEWS, Look
from detmetrics_viz.outcomes import Outcome
from detmetrics_viz.scene import EDGES, Scene
from detmetrics_viz.themes import THEMES, Theme, rgb

__all__ = ["Page", "write_html"]

ASSETS = Path(__file__).parent / "assets"
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how bright red, green and blue are
_KINDS = {"f4": "<f4", "i4": "<i4", "i2": "<i2", "u1": "u1"}
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False, repr=False)
class Page:
    """Scenes to look at in a browser; a notebook shows them in place.

    Attributes
    ----------
    scenes : Scene or sequence of Scene
        At least one; the slider goes through them.
    look : Look
        What the page begins with; everything can be changed in it.
    view : str
        Where one looks from at first, of :data:`~detmetrics_viz.looks.VIEWS`.
    title : str
        Of the page; default: that of the first scene.
    height_px : int
        In a notebook.

    Raises
    ------
    InputError
        Without scenes, or on a view that is none.
    """

    scenes: Scene | Sequence[Scene]
    look: Look = field(default_factory=Look)
    view: str = "behind"
    title: str = ""
    height_px: int = 560

    def __post_init__(self) -> None:
        """Refuse what cannot be shown."""
        _check(self.view)
        if not self._all:
            raise InputError("scenes", expected="at least one", got=0)

    @property
    def _all(self) -> Sequence[Scene]:
        return (self.scenes,) if isinstance(self.scenes, Scene) else self.scenes

    def html(self) -> str:
        """Give the whole file as text."""
        return _render([_packed(scene) for scene in self._all], self.look, self.view, self.title)

    def _repr_html_(self) -> str:
        """Show the page in a notebook, shut off from it."""
        return (
            f'<iframe srcdoc="{html.escape(self.html(), quote=True)}" sandbox="allow-scripts allow-downloads" '
            f'title="{html.escape(self.title or self._all[0].title, quote=True)}" loading="lazy" '
            f'style="width:100%;height:{int(self.height_px)}px;border:0;border-radius:8px"></iframe>'
        )


def write_html(
    scenes: Scene | Iterable[Scene],
    path: str | Path,
    *,
    look: Look | None = None,
    view: str = "behind",
    title: str = "",
    progress: Progress | None = None,
) -> None:
    """Write scenes as one HTML file, about 1 MB for the first frame of 35,000 points and half of that for each more.

    A link to ``file.html#frame=NAME`` opens it at a frame.

    Parameters
    ----------
    scenes : Scene or iterable of Scene
        Taken one after another, so a generator need not hold them all.
    path : path
    look, view, title
        See :class:`Page`.
    progress : callable, optional
        Called with the frames done and, where known, the frames in all (else the frames done).

    Raises
    ------
    InputError
        Without scenes, on a view that is none, or where the file cannot be written.
    """
    check_output(path)
    _check(view)
    wanted: Iterable[Scene] = (scenes,) if isinstance(scenes, Scene) else scenes
    total = len(wanted) if isinstance(wanted, Sequence) else 0
    packed: list[_Packed] = []
    for scene in wanted:
        packed.append(_packed(scene))
        if progress:
            progress(len(packed), total or len(packed))
    if not packed:
        raise InputError("scenes", expected="at least one", got=0)
    content = _render(packed, look or Look(), view, title)
    with whole_file(path) as file:
        file.write(content.encode(errors="replace"))


def _check(view: str) -> None:
    if view not in VIEWS:
        raise InputError("view", expected=f"one of {', '.join(VIEWS)}", got=view)


@dataclass(frozen=True)
class _Packed:
    """One frame: what goes into the JSON, and its arrays, compressed, as base64."""

    told: dict[str, Any]
    arrays: str


def _packed(scene: Scene) -> _Packed:
    """Pack a scene: large columns as bytes, the rest as plain values."""
    reach = float(np.abs(scene.points).max(initial=1e-3))
    step = reach / 32767
    arrays: list[tuple[str, str, NDArray[Any]]] = [("nodes", "f4", scene.nodes)]
    for name, lines in scene.lines.items():
        arrays += [(f"{name}_ends", "f4", lines.ends), (f"{name}_box", "i4", lines.box)]
    arrays.append(("points", "i2", np.round(scene.points / step)))
    arrays += [(f"shade_{mode}", "u1", shade) for mode, shade in scene.shades.items()]
    raw = b"".join(np.ascontiguousarray(array, dtype=_KINDS[kind]).tobytes() for _, kind, array in arrays)
    told: dict[str, Any] = {
        "frame": scene.frame,
        "title": scene.title,
        "source": Path(scene.source).name,
        "layout": [[name, kind, int(array.size)] for name, kind, array in arrays],
        "step": step,
        "ranges": {mode: _plain(scene.ranges[mode]) for mode in scene.shades},
        "ground": _plain(scene.ground_m),
        "labels": scene.labels,
        "cutoff": _plain(scene.cutoff),
        "matched": scene.matched,
        "threshold": _plain(scene.threshold_m),
        "errorNames": scene.error_names,
        "errorUnits": scene.error_units,
        "rings": scene.rings_m,
        "pointSize": _plain(Look().point_size(scene)),
        "texts": scene.texts,
        "pred": scene.is_pred.astype(int).tolist(),
        "counts": scene.counts.astype(int).tolist(),
    }
    for name in ("label", "score", "partner", "errors", "center", "size", "yaw_rad", "velocity", "n_points"):
        told[name] = _plain(getattr(scene, name))
    return _Packed(told, base64.b64encode(zlib.compress(raw, 6)).decode())


def _plain(values: Any) -> Any:
    """Numbers as JSON has them, of seven digits: what is not finite is null."""
    if isinstance(values, np.ndarray):
        return _plain(values.tolist())
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if isinstance(values, float):
        return float(f"{values:.7g}") if np.isfinite(values) else None
    return values


def _theme(theme: Theme) -> dict[str, Any]:
    """Colours as the script wants them, ramps as 256 colours each."""
    ramps = {name: base64.b64encode(colors.tobytes()).decode() for name, colors in theme.lookup.items()}
    one = {name: getattr(theme, name) for name in ("background", "text", "faint", "panel", "ego", "match", "classes")}
    return {**one, "outcomes": theme.outcomes, "ramps": ramps}


def _themes(look: Look) -> dict[str, Theme]:
    """The themes that a page can be seen in, the one that it begins with under a name that is safe in it."""
    return THEMES if look.theme in THEMES.values() else {**THEMES, "own": look.theme}


def _style(themes: dict[str, Theme]) -> str:
    """The style sheet, with the colours of the themes as variables."""
    rules = []
    for name, theme in themes.items():
        scheme = "dark" if np.dot(rgb(theme.background), _LUMA) < 128 else "light"
        colors = f"--background:{theme.background};--text:{theme.text};--panel:{theme.panel};"
        colors += (
            f"--accent:{theme.outcomes[Outcome.TRUTH]};--quiet:color-mix(in srgb, {theme.text} 64%, {theme.panel})"
        )
        rules.append(f':root[data-theme="{name}"]{{color-scheme:{scheme};{colors}}}')
    return "\n".join([*rules, _asset("page.css")])


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _render(packed: Sequence[_Packed], look: Look, view: str, title: str) -> str:
    """Put the file together: the template's places are filled once, and what is put in is not searched again."""
    themes = _themes(look)
    style, scripts = _style(themes), [_asset("three/three.min.js"), _asset("page.js")]
    told = {
        "frames": [one.told for one in packed],
        "themes": {name: _theme(theme) for name, theme in themes.items()},
        "outcomes": [one.says for one in Outcome],
        "edges": EDGES.ravel().tolist(),
        "look": {
            "points": look.points,
            "boxes": look.boxes,
            "score": look.min_score,
            "layers": sorted(look.layers),
            "labels": look.labels,
            "pointSize": look.point_px,
            "view": view,
        },
    }
    parts = {
        "theme": next(name for name, theme in themes.items() if theme == look.theme),
        "title": html.escape(title or packed[0].told["title"]),
        "style": style,
        "style_hash": _hash(style),
        "script_hashes": " ".join(map(_hash, scripts)),
        "scenes": _script_json(told),
        "blobs": "\n".join(
            f'<script type="text/plain" id="arrays{i}">{one.arrays}</script>' for i, one in enumerate(packed)
        ),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _hash(text: str) -> str:
    """A source of the content security policy: only this very text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _script_json(values: Any) -> str:
    """JSON in which nothing can end the element that it stands in."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
