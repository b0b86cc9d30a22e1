"""Readers and writers: one module per format, file to Boxes and back, lidar clouds, and saved ledgers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detmetrics.boxes import Boxes
    from detmetrics.io import clouds, ledgers, nuscenes, parquet

__all__ = ["clouds", "ledgers", "load", "nuscenes", "parquet"]


def __getattr__(name: str) -> object:
    if name in ("clouds", "ledgers", "nuscenes", "parquet"):
        return import_module(f"detmetrics.io.{name}")
    raise AttributeError(f"module 'detmetrics.io' has no attribute {name!r}")


def load(path: str | Path, *, progress: Callable[[int, int], None] | None = None) -> Boxes:
    """Read predictions from our Parquet or from nuScenes result JSON, whichever the file is.

    Parameters
    ----------
    path : path
        The first bytes of the file decide, not its name.
    progress : callable, optional
        Called with the bytes done and the bytes in all.

    Raises
    ------
    InputError
        See :func:`detmetrics.io.nuscenes.load_results` and :func:`detmetrics.io.parquet.read`.
    """
    from detmetrics.files import open_file
    from detmetrics.io import nuscenes, parquet

    with open_file(path) as file:
        is_parquet = file.read(4) == b"PAR1"
    if is_parquet:
        return parquet.read(path, progress=progress)
    return nuscenes.load_results(path, progress=progress)
