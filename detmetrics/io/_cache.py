"""The user's cache of truth: arrays without pickle, under a key that any change of the tables changes.

An entry's time of change is when it was last used.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics.boxes import OPTIONAL, Boxes
from detmetrics.errors import InputError
from detmetrics.files import whole_file

if TYPE_CHECKING:
    from detmetrics.io._tables import Root

FORMAT = 2
UNUSED_DAYS = 90  # entries that nobody read for so long go when the next one is written
_COLUMNS = ("center_m", "size_lwh_m", "yaw_rad", "label", "frame", "ego_xy_m", "place", "frame_place", *OPTIONAL)
_TABLES = ("frames", "labels", "attributes", "partial", "source")


def folder() -> Path:
    """``$XDG_CACHE_HOME/detmetrics``, or ``~/.cache/detmetrics``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "detmetrics"


@dataclass(frozen=True)
class Entry:
    """The place of one truth in the cache."""

    path: Path

    @staticmethod
    def of(root: Root, options: dict[str, Any]) -> Entry | None:
        """Give the entry for these tables as they are now, or None where they cannot be looked at."""
        tables = sorted((root.dataroot / root.version).glob("*.json"))
        try:
            state = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in tables]
            base = folder()
        except (OSError, RuntimeError):
            return None
        key = json.dumps([FORMAT, state, options], sort_keys=True)
        return Entry(base / f"truth-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz")

    def read(self, notice: Callable[[str], None]) -> Boxes | None:
        """Give what is cached, or None."""
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                told = json.loads(str(file["header"]))
                columns = {name: file[name] for name in told["columns"]}  # one that the file lost is missed
                extra = {
                    kind: {name: file[f"{kind}/{name}"] for name in told[kind]}
                    for kind in ("box_columns", "frame_columns")
                }
            given: dict[str, Any] = {**columns, **extra, **{name: told[name] for name in _TABLES}}
            boxes = Boxes(**given)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            RuntimeError,
            struct.error,
            zipfile.BadZipFile,
        ) as error:
            notice(f"cache file {self.path} cannot be used ({type(error).__name__}): reading the tables")
            return None
        with suppress(OSError):
            self.path.touch()
        notice(f"truth from cache {self.path}")
        return boxes

    def write(self, boxes: Boxes, notice: Callable[[str], None]) -> None:
        """Keep the boxes and drop entries that are no longer used; a folder that cannot be written is no error."""
        arrays: dict[str, Any] = {name: getattr(boxes, name) for name in _COLUMNS if getattr(boxes, name) is not None}
        told: dict[str, Any] = {name: getattr(boxes, name) for name in _TABLES} | {"columns": list(arrays)}
        for kind in ("box_columns", "frame_columns"):
            content = getattr(boxes, kind)
            told[kind] = list(content)
            arrays |= {f"{kind}/{name}": column for name, column in content.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_unused(self.path.parent)
            with whole_file(self.path) as file:
                np.savez(file, header=np.array(json.dumps(told)), **arrays)
        except (OSError, InputError) as error:
            notice(f"truth is not cached: {error}")
            return
        notice(f"truth cached in {self.path}")


def _drop_unused(base: Path) -> None:
    """Delete entries, and what interrupted writing left, that were not used for :data:`UNUSED_DAYS`."""
    oldest = time.time() - UNUSED_DAYS * 86_400
    for path in (*base.glob("truth-*.npz"), *base.glob(".truth-*.partial")):
        with suppress(OSError):  # another process may be as tidy
            if path.stat().st_mtime < oldest:
                path.unlink()
