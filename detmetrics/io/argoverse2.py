"""The Argoverse 2 formats: ``annotations.feather`` and tables of labels to truth, tables of detections to predictions.

Boxes stay in the ego frame, so ego is at the origin. A frame is a sweep, called ``log_id:timestamp_ns``. One row a box:
``category``, ``tx_m``, ``ty_m``, ``tz_m``, ``length_m``, ``width_m``, ``height_m``, ``qw``, ``qx``, ``qy``, ``qz``,
``timestamp_ns``, ``log_id`` (which the ``annotations.feather`` of a log lacks: there the folder is called so), and
``num_interior_pts`` for truth, ``score`` for predictions. Feather is read by pyarrow (``detmetrics[parquet]``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.errors import InputError, Words, listing
from detmetrics.geometry import rotation_matrices, yaw_of_rotation
from detmetrics.io._arrow import codes_and_names, floats, import_pyarrow, read_feather

__all__ = ["load_results", "load_truth"]

Progress = Callable[[int, int], None]
_CENTER = ("tx_m", "ty_m", "tz_m")
_SIZE = ("length_m", "width_m", "height_m")
_QUATERNION = ("qw", "qx", "qy", "qz")
_GIMBAL_LOCK = 1e-7  # scipy Rotation.as_euler takes pitches nearer than this to ±90° for gimbal lock, radians


def load_truth(
    path: str | Path,
    *,
    logs: Iterable[str] | None = None,
    sweeps: Iterable[str] = (),
    progress: Progress | None = None,
) -> Boxes:
    """Read truth of the sensor data set, or a table of labels.

    Parameters
    ----------
    path : path
        A split (folder of logs), the folder of one log, or one feather file.
    logs : iterable of str, optional
        Only these of the logs.
    sweeps : iterable of str, optional
        Further frames without annotations, e.g. ``pred.frames``. The official package counts detections in sweeps
        without annotations as false positives; :func:`detmetrics.match` refuses detections in frames that truth does
        not list, since most often a name is wrong.
    progress : callable, optional
        Called with the logs done and the logs in all.

    Returns
    -------
    Boxes
        All annotations in the ego frame, under their categories, evaluated or not. Frames are the sweeps with
        annotations, those with a file in the log's ``sensors/lidar``, and ``sweeps``, in the order of log and time. Box
        column ``instance`` (the track), frame columns ``scene`` (the log) and ``timestamp_ns``.

    Raises
    ------
    InputError
        Nothing there to read, a file that is not feather, missing columns, wrong types or values.

    Notes
    -----
    av2 ``evaluation/detection/eval.py: evaluate``. Without ``num_interior_pts`` all boxes count.
    """
    files = _annotation_files(Path(path), None if logs is None else list(logs))
    parts: list[dict[str, Any]] = []
    listed: list[tuple[str, int]] = [_sweep_of(name) for name in sweeps]
    for i, file in enumerate(files):
        part = _read(file, needs_score=False)
        if logs is not None:
            part = _only(part, set(logs))
        parts.append(part)
        scans = sorted((file.parent / "sensors" / "lidar").glob("*.feather")) if file.name == _ANNOTATIONS else []
        listed += [(file.parent.name, int(scan.stem)) for scan in scans if is_time(scan.stem)]
        if progress:
            progress(i + 1, len(files))
    return _boxes(parts, listed, str(path))


def load_results(path: str | Path, *, progress: Progress | None = None) -> Boxes:
    """Read a table of detections.

    Parameters
    ----------
    path : path
        Feather with ``log_id`` and ``score``. Points in boxes are not read: they are a column of labels.
    progress : callable, optional
        Called with 1 and 1 when done.

    Returns
    -------
    Boxes
        In the ego frame, with scores; frames are the sweeps that occur, so truth may have others.

    Raises
    ------
    InputError
        A file that is not feather, missing columns, wrong types or values.
    """
    boxes = _boxes([_read(Path(path), needs_score=True)], [], str(path))
    object.__setattr__(boxes, "is_complete", False)  # sweeps without detections have no rows
    if progress:
        progress(1, 1)
    return boxes


def yaw_of_euler(rotation_wxyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heading as the official package has it: the z angle of extrinsic x, y, z Euler angles, radians; shape (N,).

    It is the heading of the box's x axis on the ground, but 0 where that axis points straight up or down (gimbal lock).
    """
    yaw = yaw_of_rotation(rotation_wxyz)
    ahead = rotation_matrices(rotation_wxyz)[:, :2, 0]
    yaw[np.hypot(ahead[:, 0], ahead[:, 1]) <= _GIMBAL_LOCK] = 0.0
    return yaw


def is_time(text: str) -> bool:
    """Whether a text, e.g. the name of a file, is a time in nanoseconds."""
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 1 << 63


_ANNOTATIONS = "annotations.feather"


def _annotation_files(path: Path, logs: list[str] | None) -> list[Path]:
    """Files to read: one, or those of the logs asked for."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(
            f"truth {path}", expected="a feather file, the folder of a log or a folder of logs", got=Words("nothing")
        )
    if (path / _ANNOTATIONS).is_file():
        there = {path.name: path / _ANNOTATIONS}
    else:
        there = {file.parent.name: file for file in sorted(path.glob(f"*/{_ANNOTATIONS}"))}
    if not there:
        raise InputError(f"{path} holds no {_ANNOTATIONS} and no folders that do: is it the folder above the logs?")
    missing = [log for log in logs or () if log not in there]
    if missing:
        raise InputError(f"{path} has no logs {listing(missing)}")
    return [there[log] for log in (there if logs is None else dict.fromkeys(logs))]


def _read(path: Path, *, needs_score: bool) -> dict[str, Any]:
    """Columns of one file."""
    pa, _ = import_pyarrow("Feather")
    table = read_feather(path)
    is_log = path.name == _ANNOTATIONS and "log_id" not in table.column_names
    needed = ["category", "timestamp_ns", *_CENTER, *_SIZE, *_QUATERNION]
    needed += [*([] if is_log else ["log_id"]), *(["score"] if needs_score else [])]
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise InputError(f"{path} lacks the columns {listing(missing, shown=len(missing))}")
    if not table.num_rows:  # columns without rows often have no type
        kinds = {name: pa.float64() for name in table.column_names} | {"timestamp_ns": pa.int64()}
        kinds |= dict.fromkeys({"category", "log_id", "track_uuid"} & set(kinds), pa.string())
        table = pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
    times = table["timestamp_ns"]
    if not pa.types.is_integer(times.type) or times.null_count:
        raise InputError(f"{path}: column timestamp_ns", expected="whole numbers, none missing", got=str(times.type))
    try:
        times_ns = times.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: column timestamp_ns", expected="of 64 bits with sign", hint=str(error)) from None

    def numbers(*names: str) -> NDArray[np.float64]:
        return np.stack([floats(pa, table[name], name, path) for name in names], axis=-1)

    result: dict[str, Any] = {
        "timestamp_ns": times_ns,
        "center_m": numbers(*_CENTER),
        "size_lwh_m": numbers(*_SIZE),
        "rotation_wxyz": numbers(*_QUATERNION),
    }
    for name, column in (("score", "score"), ("num_points", "num_interior_pts")):
        if (name == "score") == needs_score and column in table.column_names:
            result[name] = numbers(column)[:, 0]
    rotation, size, score = result["rotation_wxyz"], result["size_lwh_m"], result.get("score", np.zeros(0))
    for what, values, wrong, expected in (
        ("timestamp_ns", times_ns, times_ns < 0, "zero or more"),
        ("qw, qx, qy, qz", rotation, (rotation == 0).all(axis=1), "a quaternion of positive length"),
        ("length_m, width_m, height_m", size, (size <= 0).any(axis=1), "positive"),
        ("score", score, score < 0, "zero or more"),
    ):
        rows = np.flatnonzero(wrong)
        if rows.size:
            raise InputError(f"{path}: {what} of row {rows[0]}", expected=expected, got=values[rows[0]].tolist())
    for name, column in (("label", "category"), ("log", "log_id"), ("instance", "track_uuid")):
        if column in table.column_names:
            result[name] = codes_and_names(pa, table[column], column, None, path)
    if is_log:
        result["log"] = np.zeros(table.num_rows, np.int32), [path.parent.name]
    return result


def _only(part: dict[str, Any], logs: set[str]) -> dict[str, Any]:
    """Rows of some logs."""
    code, names = part["log"]
    rows = np.flatnonzero(np.isin(code, [i for i, name in enumerate(names) if name in logs]))
    return {
        name: (column[0][rows], column[1]) if isinstance(column, tuple) else column[rows]
        for name, column in part.items()
    }


def _sweep_of(name: str) -> tuple[str, int]:
    """Log and time of a frame name."""
    log, _, time = name.rpartition(":")
    if not log or not is_time(time):
        raise InputError(f"sweep {name!r}", expected="log_id:timestamp_ns")
    return log, int(time)


def _boxes(parts: list[dict[str, Any]], listed: list[tuple[str, int]], source: str) -> Boxes:
    """Join parts; frames in the order of log and time."""

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([part[name] for part in parts])

    def coded(name: str) -> tuple[NDArray[np.int32], list[str]]:
        table = list(dict.fromkeys(entry for part in parts for entry in part[name][1]))
        index = {entry: code for code, entry in enumerate(table)}
        return np.concatenate(
            [np.array([index[entry] for entry in part[name][1]] or [0], np.int32)[part[name][0]] for part in parts]
        ), table

    log, logs = coded("log")
    times = column("timestamp_ns")
    names = sorted({*logs, *(name for name, _ in listed)})
    rank = {name: i for i, name in enumerate(names)}
    log_rank = np.array([rank[name] for name in logs] or [0], np.int64)[log]
    # sweeps: distinct pairs of log and time
    all_logs = np.concatenate((log_rank, np.array([rank[name] for name, _ in listed], np.int64)))
    all_times = np.concatenate((times, np.array([time for _, time in listed], np.int64)))
    order = np.lexsort((all_times, all_logs))
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (np.diff(all_logs[order]) != 0) | (np.diff(all_times[order]) != 0)
    frame = np.empty(len(order), np.int32)
    frame[order] = np.cumsum(is_new) - 1
    first = order[is_new]
    place = np.empty(len(times), np.int64)  # among equal scores, earlier sweeps go first, then earlier rows
    place[np.argsort(frame[: len(times)], kind="stable")] = np.arange(len(times))
    scene = np.array([names[code] for code in all_logs[first]], dtype=str)
    has_instance = all("instance" in part for part in parts)
    instance, instances = coded("instance") if has_instance else (np.zeros(0, np.int32), [])
    rotation = column("rotation_wxyz")
    label, labels = coded("label")
    has_points = all("num_points" in part for part in parts)
    return Boxes(
        center_m=column("center_m"),
        size_lwh_m=column("size_lwh_m"),
        yaw_rad=yaw_of_euler(rotation),
        rotation_wxyz=rotation,
        label=label,
        labels=labels,
        frame=frame[: len(times)],
        place=place,
        frames=[f"{name}:{time}" for name, time in zip(scene.tolist(), all_times[first].tolist(), strict=True)],
        score=column("score") if "score" in parts[0] else None,
        num_points=column("num_points") if has_points else None,
        box_columns={"instance": np.array(instances or [""], dtype=str)[instance]} if has_instance else None,
        frame_columns={"scene": scene, "timestamp_ns": all_times[first]},
        source=source,
    )
