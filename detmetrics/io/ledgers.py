"""Saved ledgers: everything that matching left, in one file that needs numpy alone.

A zip of ``.npy`` columns and a header in JSON; no pickle. Slices, intervals, comparison, diagnosis and export need
nothing else, so a nightly run can keep its ledger and be compared with months later.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from detmetrics.boxes import OPTIONAL, Boxes
from detmetrics.errors import InputError, listing
from detmetrics.files import open_file, whole_file
from detmetrics.io._json import text_of
from detmetrics.ledger import Fate, Ledger, check_ledger
from detmetrics.protocol import Protocol

FORMAT = 1
HEADER = "detmetrics"

#: What zipfile, zlib, numpy and json raise on files that are damaged or something else.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    MemoryError,
    TypeError,
    ValueError,
)

_EVENTS = ("event_pred", "event_frame", "event_score", "event_place")
_PAIRS = ("pair_event", "pair_truth", "pair_bits", "pair_errors")
_COLUMNS = ("truth_fate", "pred_fate", "truth_task", "event_offsets", *_EVENTS, *_PAIRS)


def save(ledger: Ledger, path: str | Path) -> None:
    """Write a ledger, whole or not at all.

    Parameters
    ----------
    ledger : Ledger
    path : path
        Any name; ``.ledger`` is customary.

    Raises
    ------
    InputError
        Where the file cannot be written.
    """
    check_ledger(ledger)
    arrays: dict[str, Any] = {name: getattr(ledger, name) for name in _COLUMNS}
    header: dict[str, Any] = {
        "format": FORMAT,
        "protocol": ledger.protocol.to_dict(),
        "n_extra_frames": ledger.n_extra_frames,
        "notes": list(ledger.notes),
        "version": ledger.version,
    }
    for side in ("truth", "pred"):
        header[side] = _take_apart(getattr(ledger, side), side, arrays)
    arrays[HEADER] = np.frombuffer(text_of(header, "meta of the boxes"), np.uint8)
    with whole_file(path) as file:
        np.savez(file, **arrays)


def load(path: str | Path) -> Ledger:
    """Read a ledger written by :func:`save`.

    Raises
    ------
    InputError
        Where the file is missing, is no ledger, was damaged, or was written by a newer version.
    """
    with open_file(path) as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            header = json.loads(arrays[HEADER].tobytes())
            if header["format"] > FORMAT:
                raise InputError(f"{path}: format of the ledger", expected=f"at most {FORMAT}", got=header["format"])
            sides = {side: _put_together(header[side], side, arrays, f"{path}: {side}") for side in ("truth", "pred")}
            ledger = Ledger(
                protocol=Protocol.from_dict(header["protocol"], source=str(path)),
                truth=sides["truth"],
                pred=sides["pred"],
                n_extra_frames=header["n_extra_frames"],
                notes=tuple(header["notes"]),
                version=header["version"],
                **{name: arrays[name] for name in _COLUMNS},
            )
            _check(ledger)
        except InputError:
            raise
        except DAMAGE as error:
            raise InputError(f"{path} is no ledger of detmetrics, or is damaged: {error}") from None
    return ledger


def is_ledger(path: str | Path) -> bool:
    """Whether a file is a saved ledger, or was one before it was damaged: nothing else that we read is a zip."""
    with open_file(path) as file:
        return file.read(4) == b"PK\x03\x04"


def _take_apart(boxes: Boxes, side: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Put the columns of boxes among the arrays and give the rest as plain values."""
    header: dict[str, Any] = {"columns": {}}
    for field in dataclasses.fields(boxes):
        name, value = field.name, getattr(boxes, field.name)
        if name == "offsets":
            continue
        if isinstance(value, np.ndarray):
            arrays[f"{side}.{name}"] = value
        elif name in ("box_columns", "frame_columns"):
            header["columns"][name] = list(value)
            for i, column in enumerate(value.values()):
                _take_column(column, f"{side}.{name}.{i}", arrays)
        else:
            header[name] = dict(value) if isinstance(value, Mapping) else value
    return header


def _take_column(column: np.ndarray[Any, Any], key: str, arrays: dict[str, Any]) -> None:
    if column.dtype.kind == "U":  # a table of the names and codes into it: names repeat
        names, codes = np.unique(column, return_inverse=True)
        arrays[f"{key}.names"] = names
        column = codes.reshape(column.shape).astype(np.int32)
    arrays[key] = column


def _put_together(header: dict[str, Any], side: str, arrays: dict[str, Any], source: str) -> Boxes:
    columns = header.pop("columns")
    is_complete = header.pop("is_complete")
    given = dict(header)
    for name in ("center_m", "size_lwh_m", "yaw_rad", "label", "frame", "ego_xy_m", "place", "frame_place"):
        given[name] = arrays[f"{side}.{name}"]
    for name in OPTIONAL:
        given[name] = arrays.get(f"{side}.{name}")
    for name, keys in columns.items():
        given[name] = {}
        for i, key in enumerate(keys):
            column, names = arrays[f"{side}.{name}.{i}"], arrays.get(f"{side}.{name}.{i}.names")
            given[name][key] = column if names is None else names[column]
    given["attributes"] = given["attributes"] or None
    boxes = Boxes(**given)
    object.__setattr__(boxes, "is_complete", is_complete)
    if not np.array_equal(boxes.frame, arrays[f"{side}.frame"]):
        raise InputError(f"{source} is damaged: rows are not grouped by frame")
    return boxes


def _check(ledger: Ledger) -> None:
    """Refuse indices that point outside, which kernels do not check, and columns that contradict each other."""
    n_tasks, n_errors = len(ledger.protocol.tasks), len(ledger.protocol.errors)
    n_thresholds = len(ledger.protocol.affinity.thresholds)
    n_events, n_pairs = len(ledger.event_pred), len(ledger.pair_event)
    shapes = {
        "truth_fate": (len(ledger.truth),),
        "pred_fate": (len(ledger.pred),),
        "truth_task": (len(ledger.truth),),
        "event_offsets": (n_tasks + 1,),
        **dict.fromkeys(_EVENTS, (n_events,)),
        **dict.fromkeys(_PAIRS, (n_pairs,)),
        "pair_errors": (n_pairs, n_errors),
    }
    ranges = {
        "truth_fate": (0, len(Fate)),
        "pred_fate": (0, len(Fate)),
        "truth_task": (-1, n_tasks),
        "event_offsets": (0, n_events + 1),
        "event_pred": (0, len(ledger.pred)),
        "event_frame": (0, ledger.n_frames),
        "pair_event": (0, n_events),
        "pair_truth": (0, len(ledger.truth)),
        "pair_bits": (0, 1 << n_thresholds),
    }
    kinds = {"event_score": np.float64, "pair_errors": np.float64, "event_frame": np.int32, "truth_task": np.int16}
    kinds |= {"truth_fate": np.uint8, "pred_fate": np.uint8}
    wrong = []
    for name, shape in shapes.items():
        column = getattr(ledger, name)
        low, high = ranges.get(name, (-np.inf, np.inf))
        is_right = column.shape == shape and column.dtype == kinds.get(name, np.int64)
        if not is_right or (column.size and name in ranges and not (column.min() >= low and column.max() < high)):
            wrong.append(name)
    ascending = not wrong and np.all(np.diff(ledger.event_offsets) >= 0) and np.all(np.diff(ledger.pair_event) >= 0)
    if wrong or not ascending or ledger.event_offsets[0] != 0 or ledger.event_offsets[-1] != n_events:
        raise InputError(f"the ledger is damaged: {listing(wrong) if wrong else 'its rows are out of order'}")
    wrong = [what for what, is_right in _agreements(ledger) if not is_right]
    if wrong:
        raise InputError(f"the ledger is damaged: {wrong[0]}")


def _agreements(ledger: Ledger) -> Iterator[tuple[str, bool]]:
    """What must hold between columns whose indices point inside: else scores would be wrong without a sign of it."""
    protocol, truth, pred = ledger.protocol, ledger.truth, ledger.pred
    event_pred, event_score, task = ledger.event_pred, ledger.event_score, ledger.event_task
    yield (
        "events are not the kept predictions",
        np.array_equal(np.flatnonzero(ledger.pred_fate == Fate.KEPT), np.sort(event_pred)),
    )
    yield (
        "scores of events are not those of the predictions",
        pred.score is not None and np.array_equal(event_score, pred.score[event_pred]),
    )
    frame = np.array([truth.frame_index.get(name, -1) for name in pred.frames] or [-1])
    yield (
        "frames of events are not those of the predictions",
        np.array_equal(frame[pred.frame[event_pred]], ledger.event_frame),
    )
    tasks = [
        np.array([-1 if one is None else one for one in map(protocol.task_of, boxes.labels or ())] or [-1])[boxes.label]
        for boxes in (truth, pred)
    ]
    yield "classes of truths are not those of the protocol", np.array_equal(tasks[0], ledger.truth_task)
    yield "classes of events are not those of the predictions", np.array_equal(tasks[1][event_pred], task)
    kept = ledger.truth_fate == Fate.KEPT
    yield "a truth without a class counts", not np.any(kept & (ledger.truth_task < 0))
    falls = event_score[:-1] > event_score[1:]
    is_tied = (event_score[:-1] == event_score[1:]) & (ledger.event_place[:-1] >= ledger.event_place[1:])
    yield "events are not in the order of their scores", bool(np.all(falls | is_tied | (task[:-1] != task[1:])))
    event, row, bits = ledger.pair_event, ledger.pair_truth, ledger.pair_bits
    is_pair = kept[row] & (ledger.truth_task[row] == task[event]) & (truth.frame[row] == ledger.event_frame[event])
    yield "pairs are not of one class and frame", bool(np.all(is_pair & (bits > 0)))
    for side, size in ((event, len(event_pred)), (row, len(truth))):
        at_most_once = all(
            np.bincount(side[bits >> t & 1 == 1], minlength=size).max(initial=0) <= 1
            for t in range(len(protocol.affinity.thresholds))
        )
        yield "a box matches twice at one threshold", at_most_once
