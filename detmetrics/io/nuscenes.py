"""The nuScenes formats: tables to truth, result JSON to predictions and back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.errors import InputError
from detmetrics.files import open_file, whole_file
from detmetrics.geometry import rotation_of_yaw
from detmetrics.io import _results, _results_worker, _tables
from detmetrics.io._json import text_of
from detmetrics.io._results import Columns, Progress
from detmetrics.io._tables import load_truth

__all__ = ["Recording", "load_recordings", "load_results", "load_truth", "write_results"]

#: Files larger than this are read by two processes.
LARGE = 32 << 20


class Recording(NamedTuple):
    """Where a scene comes from; texts are empty where the tables do not tell.

    Attributes
    ----------
    log : str
        The drive that the scene was cut from: its file, or the token of the log.
    vehicle, location, description : str
    """

    log: str
    vehicle: str
    location: str
    description: str


class _Log(_tables.Log, gc=False, frozen=True):
    logfile: str = ""
    vehicle: str = ""


def load_recordings(dataroot: str | Path, version: str | None = None) -> dict[str, Recording]:
    """Read where each scene of a data set comes from.

    Parameters
    ----------
    dataroot, version
        See :func:`load_truth`.

    Returns
    -------
    dict
        From the name of the scene.

    Raises
    ------
    InputError
        Missing folder or table; tables that are not JSON. A missing ``log.json`` is none.
    """
    root = _tables.find_root(Path(dataroot), version)
    logs = {row.token: row for row in _tables.all_rows(root, "log", _Log)} if root.table("log").exists() else {}
    recordings = {}
    for scene in _tables.all_rows(root, "scene", _tables.Scene):
        log = logs.get(scene.log_token, _Log(token=scene.log_token))
        recordings[scene.name] = Recording(log.logfile or log.token, log.vehicle, log.location, scene.description)
    return recordings


def load_results(path: str | Path, *, workers: int | None = None, progress: Progress | None = None) -> Boxes:
    """Read detections from an official nuScenes result file.

    Parameters
    ----------
    path : path
        JSON ``{"meta": {…}, "results": {sample_token: [box, …]}}``. Velocities may be bare ``NaN`` or ``null``.
    workers : int, optional
        Processes for files over 32 MB, at most 2; default 2 where there are two cores.
    progress : callable, optional
        Called with the bytes done and the bytes in all.

    Returns
    -------
    Boxes
        Centres (N, 3) and velocities (N, 2) in the global frame, sizes turned to length, width, height; frames are all
        samples in the order of the file, with or without boxes; ``meta`` as in the file.

    Raises
    ------
    InputError
        Naming file, sample, index of the box, expected and got, or the byte where the text is not JSON.

    Notes
    -----
    The format: https://www.nuscenes.org/object-detection, and semantics of nuscenes-devkit 1.2.0
    ``eval/common/loaders.py: load_prediction``.
    """
    name = str(path)
    with open_file(path) as file:
        start, meta = _results.find_body(file, name)
        size = file.seek(0, 2)
        many = min(os.cpu_count() or 1, 2) if workers is None else workers
        middle = _results.find_middle(file, start) if many > 1 and size > LARGE else None
    columns = _read_halves(name, start, middle, size, progress) if middle else None
    if columns is None:
        columns = [_results.read_range(path, start, None, progress)]
    meta = columns[-1].meta if columns[-1].meta is not None else meta
    if meta is None:
        raise InputError(f"{name} has no meta: it must be {{'meta': …, 'results': {{sample_token: [box, …]}}}}")
    return _boxes(columns, _meta(meta, name), name)


def _read_halves(name: str, start: int, middle: int, size: int, progress: Progress | None) -> list[Columns] | None:
    """Read with a second process, or give None where that does not work, so that all is read in one."""
    worker = _results_worker.start(name, middle, None)
    if worker is None:
        return None
    share = (middle - start) / size
    try:
        # the comma before the middle ends the first half
        with open_file(name) as file:
            file.seek(max(start, middle - 64))
            stop = max(start, middle - 64) + file.read(middle - max(start, middle - 64)).rindex(b",")
        first = _results.read_range(
            name, start, stop, progress and (lambda done, total: progress(int(done / max(share, 1e-9)), size))
        )
        second = _results_worker.finish(worker)
    except (InputError, ValueError):
        return None  # a wrong cut or a wrong file: one pass over the whole tells which
    finally:
        if worker.poll() is None:
            _results_worker.stop(worker)
    return None if second is None else [first, second]


def _meta(text: bytes, name: str) -> dict[str, Any]:
    try:
        meta = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InputError(f"{name}: meta is not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise InputError(f"{name}: meta", expected="an object", got=meta)
    return meta


def _boxes(columns: list[Columns], meta: dict[str, Any], name: str) -> Boxes:
    tokens = [token for part in columns for token in part.tokens]
    _results.check_samples(tokens, name)
    counts = [count for part in columns for count in part.counts]

    def column(key: str) -> NDArray[Any]:  # the parts are given up on the way, to keep the peak of memory low
        return np.concatenate([part.pop(key) for own in columns for part in own.parts])

    def codes(key: str, tables: list[dict[str, int]]) -> tuple[NDArray[np.int32], list[str]]:
        names = list(dict.fromkeys(entry for table in tables for entry in table))
        index = {entry: code for code, entry in enumerate(names)}
        for own, table in zip(columns, tables, strict=True):
            lookup = np.array([index[entry] for entry in table] or [0], np.int32)
            for part in own.parts:
                part[key] = lookup[part[key]]
        return column(key), names

    label, labels = codes("label", [part.labels for part in columns])
    attribute, attributes = codes("attribute", [part.attributes for part in columns])
    num_points = column("num_pts")
    unknown = np.isnan(num_points) | (num_points < 0)  # officially -1
    return Boxes(
        center_m=column("center_m"),
        size_lwh_m=column("size_lwh_m"),
        yaw_rad=column("yaw_rad"),
        label=label,
        labels=labels,
        frame=np.repeat(np.arange(len(tokens), dtype=np.int32), counts),
        frames=tokens,
        score=column("score"),
        velocity_mps=column("velocity_mps"),
        attribute=attribute,
        attributes=attributes,
        num_points=None if unknown.all() else np.where(unknown, np.nan, num_points),
        meta=meta,
        source=name,
    )


def write_results(boxes: Boxes, path: str | Path) -> None:
    """Write predictions as an official nuScenes result file, whole or not at all.

    Parameters
    ----------
    boxes : Boxes
        With scores. Frames become samples; rotations are upright, from ``yaw_rad``; without velocities NaN is written,
        without attributes ``""``.
    path : path

    Raises
    ------
    InputError
        Without scores, with ``meta`` that is not plain, or where the file cannot be written.
    """
    if not isinstance(boxes, Boxes):
        raise InputError("what to write", expected="Boxes", got=boxes)
    if boxes.score is None:
        raise InputError(f"{boxes.source} have no scores: only predictions can be written as a result file")
    labels = boxes.labels
    if labels is None:
        raise InputError(f"{boxes.source} have label codes without labels=: a result file needs class names")
    order = np.lexsort((boxes.place, boxes.frame))
    center, size = boxes.center_m.tolist(), boxes.size_lwh_m[:, [1, 0, 2]].tolist()
    rotation, score, label = rotation_of_yaw(boxes.yaw_rad).tolist(), boxes.score.tolist(), boxes.label.tolist()
    velocity = [[np.nan, np.nan]] * len(boxes) if boxes.velocity_mps is None else boxes.velocity_mps.tolist()
    attribute = boxes.attribute.tolist() if boxes.attribute is not None else None
    meta = text_of(dict(boxes.meta), f"meta of {boxes.source}")
    with whole_file(path) as file:
        file.write(b'{"meta": ' + meta + b', "results": {')
        for code, token in enumerate(boxes.frames):
            rows = order[boxes.offsets[code] : boxes.offsets[code + 1]].tolist()
            content = [
                {
                    "sample_token": token,
                    "translation": center[row],
                    "size": size[row],
                    "rotation": rotation[row],
                    "velocity": velocity[row],
                    "detection_name": labels[label[row]],
                    "detection_score": score[row],
                    "attribute_name": boxes.attributes[attribute[row]] if attribute else "",
                }
                for row in rows
            ]
            comma = ", " if code else ""
            file.write(f"{comma}{json.dumps(token)}: {json.dumps(content)}".encode())
        file.write(b"}}")
