"""Readers and writers: one module per format, file to Boxes and back, lidar clouds, cameras, and saved ledgers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detmetrics.boxes import Boxes
    from detmetrics.io import argoverse2, cameras, clouds, kitti, ledgers, nuscenes, parquet, truckscenes

_MODULES = ("argoverse2", "cameras", "clouds", "kitti", "ledgers", "nuscenes", "parquet", "truckscenes")

__all__ = [
    "argoverse2",
    "cameras",
    "clouds",
    "kitti",
    "ledgers",
    "load",
    "load_truth",
    "nuscenes",
    "parquet",
    "truckscenes",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"detmetrics.io.{name}")
    raise AttributeError(f"module 'detmetrics.io' has no attribute {name!r}")


def load(path: str | Path, *, progress: Callable[[int, int], None] | None = None) -> Boxes:
    """Read predictions from our Parquet, Argoverse 2 feather or nuScenes result JSON, whichever the file is.

    Parameters
    ----------
    path : path
        The first bytes of the file decide, not its name.
    progress : callable, optional
        Called with the bytes done and the bytes in all.

    Raises
    ------
    InputError
        See :func:`detmetrics.io.nuscenes.load_results`, :func:`detmetrics.io.parquet.read` and
        :func:`detmetrics.io.argoverse2.load_results`.
    """
    from detmetrics.io import argoverse2, nuscenes, parquet

    kind = _kind(path)
    if kind == "parquet":
        return parquet.read(path, progress=progress)
    if kind == "feather":
        return argoverse2.load_results(path, progress=progress)
    return nuscenes.load_results(path, progress=progress)


def load_truth(
    path: str | Path,
    *,
    version: str | None = None,
    split: str | None = None,
    scenes: list[str] | None = None,
    cache: bool = True,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Boxes:
    """Read truth from a file (our Parquet, Argoverse 2 feather) or a data set, whichever it is.

    Parameters
    ----------
    path : path
        A file; a folder of logs of Argoverse 2 or of one log; or the folder above the tables of nuScenes or MAN
        TruckScenes, which are told apart by their sensors.
    version, split, scenes, cache, notice
        For tables; see :func:`detmetrics.io.nuscenes.load_truth`. ``scenes`` are the logs of Argoverse 2.
    progress : callable, optional
        Called with what is done and what is to do.

    Raises
    ------
    InputError
        See the readers; or an option that this kind of truth does not have.
    """
    from detmetrics.errors import InputError
    from detmetrics.files import check_path
    from detmetrics.io import argoverse2, nuscenes, parquet, truckscenes

    check_path(path, "truth")
    for name, value in (("version", version), ("split", split)):
        if not isinstance(value, str | None):
            raise InputError(name, expected="one name", got=value)
    if isinstance(scenes, str):
        raise InputError("scenes", expected="a list of names", got=scenes)
    path = Path(path)
    is_logs = path.is_dir() and any(any(path.glob(f"{place}annotations.feather")) for place in ("", "*/"))
    if (path.is_dir() or not (path.exists() or path.suffix)) and not is_logs:
        reader = truckscenes.load_truth if _has_truck_sensors(path, version) else nuscenes.load_truth
        return reader(path, version=version, split=split, scenes=scenes, cache=cache, progress=progress, notice=notice)
    if version or split:
        raise InputError(f"truth {path} has no {'version' if version else 'split'} to choose")
    kind = _kind(path) if path.is_file() else ""
    if is_logs or kind == "feather":
        return argoverse2.load_truth(path, logs=scenes, progress=progress)
    if scenes:
        raise InputError(f"truth {path} has no scenes to choose")
    if path.is_file() and not kind:
        hint = "truth is the folder of a data set, or a file in Parquet or feather; result files hold predictions"
        raise InputError(f"{path} is not a Parquet file", hint=hint)
    return parquet.read(path, progress=progress)


def _kind(path: str | Path) -> str:
    """What the first bytes of a file say that it is; what is neither truth nor predictions is refused."""
    from detmetrics.errors import InputError
    from detmetrics.files import open_file

    with open_file(path) as file:
        start = file.read(24)
    if start == b"version https://git-lfs.":
        raise InputError(f"{path} is a pointer of Git LFS, not the file itself", hint="git lfs pull fetches it")
    start = start[:4]
    if start.startswith(b"\x1f\x8b"):
        raise InputError(f"{path} is packed with gzip", hint="unpack it first: gunzip -k FILE")
    if start == b"PK\x03\x04":
        raise InputError(f"{path} is a saved ledger or a zip", hint="detmetrics.Ledger.load(path) reads ledgers")
    if start.startswith(b"\x80"):
        raise InputError(f"{path} is a pickle, which could run any code", hint="write it as result JSON or as Parquet")
    return {b"PAR1": "parquet", b"ARRO": "feather", b"FEA1": "feather"}.get(start, "")


def _has_truck_sensors(dataroot: Path, version: str | None) -> bool:
    """Whether the tables know the lidar by which MAN TruckScenes places ego, and not that of nuScenes."""
    for table in sorted(dataroot.glob(f"{version or 'v1.*-*'}/sensor.json")):
        text = table.read_bytes()
        return b'"LIDAR_LEFT"' in text and b'"LIDAR_TOP"' not in text
    return False
