"""Matching: truth and predictions and a protocol in, a ledger out; done once."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from detmetrics import kernels
from detmetrics.boxes import Boxes
from detmetrics.curves import TIES, order_by_score
from detmetrics.errors import InputError, check_whole, listing, unknown_name
from detmetrics.firstaid import first_aid
from detmetrics.geometry import rotation_matrices, rotation_of_yaw
from detmetrics.kernels import Bytes, Codes, Floats, Ints
from detmetrics.ledger import Fate, Ledger
from detmetrics.protocol import Protocol

A = TypeVar("A")
B = TypeVar("B")

ErrorColumns = list[tuple[kernels.ErrorRule, tuple[NDArray[np.generic], NDArray[np.generic]] | None]]

JOBS_PER_THREAD = 16  # small enough that the working set of a job stays in the cache


def match(truth: Boxes, pred: Boxes, protocol: Protocol, *, threads: int | None = None) -> Ledger:
    """Filter and match predictions to truth under a protocol.

    Parameters
    ----------
    truth, pred : Boxes
        In one coordinate frame; ``pred`` with scores. Labels are classes of the protocol or raw categories that its
        mapping knows; truth of any other category is left out, a prediction of one is refused.
    protocol : Protocol
        The rules.
    threads : int, optional
        Worker threads, default one a core. The result has the same bits for any number.

    Raises
    ------
    InputError
        Missing or extra frames, no scores, an unknown class or attribute, too many boxes in a frame.
    """
    for name, value, expected in (
        ("truth", truth, "Boxes, as detmetrics.io.load_truth gives them"),
        ("predictions", pred, "Boxes, as detmetrics.io.load gives them"),
        ("protocol", protocol, "a Protocol, as detmetrics.protocols.by_name gives them"),
    ):
        if not isinstance(value, Protocol if name == "protocol" else Boxes):
            raise InputError(name, expected=expected, got=value)
    sides = _called(truth, pred)
    score = pred.score
    if score is None:
        is_swapped = truth.score is not None
        hint = (
            "truth comes first, and its boxes have scores: are the two swapped?"
            if is_swapped
            else "are they truth? predictions need score="
        )
        words = {"score", "scores", "conf", "confidence"}
        alike = [name for name in pred.box_columns if words & set(re.split(r"[\W_]+", name.lower()))]
        if alike and not is_swapped:
            hint = f"predictions need score=, and {listing(alike)} is a column like any other"
        raise InputError(f"{sides[1]}: these predictions have no scores", hint=hint)
    if threads is None:
        threads = os.cpu_count() or 1
    else:
        check_whole("threads", threads, 1)
    truth, pred = (_with_labels(*one, protocol) for one in zip((truth, pred), sides, strict=True))
    frame_map, n_extra = _align(truth, pred, sides)
    _check_predictions(pred, sides[1], frame_map, protocol)

    tasks = [protocol.task_of(label) for label in truth.labels or ()]
    truth_task = _lookup(tasks, truth.label)
    pred_task = _lookup([protocol.task_of(label) for label in pred.labels or ()], pred.label)
    truth_fate = _fates(truth, truth.ego_xy_m, truth_task, protocol, threads)
    ego = np.zeros((pred.n_frames, 2))
    ego[frame_map >= 0] = truth.ego_xy_m[frame_map[frame_map >= 0]]
    pred_fate = _fates(pred, ego, pred_task, protocol, threads)
    if n_extra:
        pred_fate[(frame_map < 0)[pred.frame]] = Fate.EXTRA_FRAME
    for category, labels in protocol.regions.items():
        regions = _Regions(truth, category)
        regions.apply(truth, truth.frame, truth_task, truth_fate, protocol, labels)
        regions.apply(pred, frame_map[pred.frame], pred_task, pred_fate, protocol, labels)

    # events in the order of the curves
    n_tasks, n_frames = len(protocol.tasks), truth.n_frames
    place = _places(truth, pred, frame_map) * TIES[protocol.ties]
    if protocol.cap_per_task is not None:
        _cap(frame_map[pred.frame] * np.int32(n_tasks) + pred_task, score, place, pred_fate, protocol.cap_per_task)
    event_offsets, event_pred = kernels.group(_kept(pred_task, pred_fate).astype(np.int32), n_tasks)

    n_events = len(event_pred)
    event_score, event_place = np.empty(n_events), np.empty(n_events, np.int64)
    event_frame, event_group = np.empty(n_events, np.int32), np.empty(n_events, np.int32)

    def sort(task: int) -> None:
        part = slice(event_offsets[task], event_offsets[task + 1])
        rows = event_pred[part]
        scores, places = score[rows], place[rows]
        order = order_by_score(scores, places)
        event_score[part], event_place[part] = scores[order], places[order]
        rows[:] = rows[order]
        event_frame[part] = frame_map[pred.frame[rows]]
        event_group[part] = event_frame[part] * np.int32(n_tasks) + np.int32(task)

    _run(sort, list(range(n_tasks)), threads)

    # groups: frame x task
    p_offsets, p_events = kernels.group(event_group, n_frames * n_tasks)
    key = truth.frame * np.int32(n_tasks) + truth_task
    t_offsets, t_rows = kernels.group(np.where(truth_fate == Fate.KEPT, key, np.int32(-1)), n_frames * n_tasks)

    affinity, (assign, sees_all) = kernels.AFFINITY[protocol.affinity.kind], kernels.ASSIGN[protocol.assignment]
    thresholds = np.array(protocol.affinity.thresholds, dtype=np.float64)
    reach = np.inf if sees_all else thresholds[-1]
    taken = np.zeros((len(truth), len(thresholds)), dtype=np.bool_)
    period = np.array([task.yaw_period_rad for task in protocol.tasks], dtype=np.float64)
    columns = _error_columns(truth, pred, protocol)

    def pairs(part: slice) -> tuple[Ints, Ints, Ints, Floats]:
        mine, theirs = p_offsets[part.start : part.stop + 1], t_offsets[part.start : part.stop + 1]
        events = p_events[mine[0] : mine[-1]]
        p_rows = event_pred[events]
        near = affinity(mine - mine[0], p_rows, pred.center_m, theirs, t_rows, truth.center_m, reach)
        index, truth_row, bits = assign(*near, thresholds, taken)
        rows = p_rows[index]
        errors = _measure(columns, rows, truth_row, period[truth_task[truth_row]])
        return events[index], truth_row, bits, errors

    edges = _even(p_offsets, threads * JOBS_PER_THREAD)
    parts = _run(pairs, [slice(a, b) for a, b in itertools.pairwise(edges)], threads)
    pair_event, pair_truth, pair_bits, pair_errors = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(pair_event * 64 + _lowest_bit(pair_bits))
    ledger = Ledger(
        protocol=protocol,
        truth=truth,
        pred=pred,
        truth_fate=truth_fate,
        pred_fate=pred_fate,
        truth_task=truth_task,
        event_offsets=event_offsets,
        event_pred=event_pred,
        event_frame=event_frame,
        event_score=event_score,
        event_place=event_place,
        pair_event=pair_event[order],
        pair_truth=pair_truth[order],
        pair_bits=pair_bits[order],
        pair_errors=pair_errors[order],
        n_extra_frames=n_extra,
    )
    object.__setattr__(ledger, "notes", first_aid(ledger))
    return ledger


def _run(task: Callable[[A], B], parts: Sequence[A], threads: int) -> list[B]:
    """Run the parts on a few threads of our own (kernels release the GIL); results in order."""
    if threads == 1 or len(parts) == 1:
        return [task(part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(task, parts))


def _called(truth: Boxes, pred: Boxes) -> tuple[str, str]:
    """What errors call the two sides: their sources, or where these say nothing or the same, truth and pred."""
    if truth.source == pred.source:
        return "truth", "pred"
    return truth.called("truth"), pred.called("pred")


def _with_labels(boxes: Boxes, called: str, protocol: Protocol) -> Boxes:
    """Give label codes without a table the protocol's class order."""
    if boxes.labels is not None:
        return boxes
    if len(boxes) and boxes.label.max() >= len(protocol.tasks):
        row = int(np.argmax(boxes.label))
        raise InputError(
            f"{called}.label[{int(boxes.place[row])}]",
            expected=f"a code into the {len(protocol.tasks)} classes of {protocol.name}",
            got=int(boxes.label[row]),
        )
    return boxes.with_labels(protocol.labels)


def _align(truth: Boxes, pred: Boxes, sides: tuple[str, str]) -> tuple[Codes, int]:
    """Frame of truth for each frame of the predictions, -1 for frames to ignore, and the number of those."""
    truth_name, pred_name = sides
    frame_map = np.fromiter((truth.frame_index.get(name, -1) for name in pred.frames), np.int32, pred.n_frames)
    extra = np.flatnonzero(frame_map < 0)
    if len(extra) and not truth.partial:
        raise InputError(
            f"{pred_name} has {len(extra)} frame{'' if len(extra) == 1 else 's'} that {truth_name} does not have: "
            + listing([pred.frames[i] for i in extra[:5]], total=len(extra)),
            hint="they have none in common: is it another split, or another version?"
            if len(extra) == pred.n_frames > 1
            else "",
        )
    if pred.is_complete:
        missing = [name for name in truth.frames if name not in pred.frame_index]
        if missing:
            raise InputError(
                f"{pred_name} lacks {len(missing)} of the {truth.n_frames} frames of {truth_name}: " + listing(missing),
                hint="every frame needs an entry, an empty list where nothing was found"
                if len(missing) < truth.n_frames
                else "they have none in common: is it another split, or another version?",
            )
    return frame_map, len(extra)


def _check_predictions(pred: Boxes, called: str, frame_map: Codes, protocol: Protocol) -> None:
    """Refuse unknown classes, unknown attributes, and too many boxes in a frame."""
    counted = np.ones(len(pred), dtype=np.bool_) if (frame_map >= 0).all() else (frame_map >= 0)[pred.frame]
    for kind, codes, names, known in (
        ("class", pred.label, pred.labels or (), protocol.labels),
        ("attribute", pred.attribute, pred.attributes, (*protocol.attributes, "") if protocol.attributes else ()),
    ):
        strange = [name for name in names if name not in known] if known else []
        for name in strange:
            if kind == "class" and name in protocol.mapping:
                continue
            rows = np.flatnonzero((codes == names.index(name)) & counted)
            if len(rows):
                row = int(rows[0])
                frame = int(pred.frame[row])
                error = unknown_name(kind, name, known)
                raise InputError(
                    f"{called}: unknown {kind} {name!r}",
                    where=f"box {row - int(pred.offsets[frame])} of frame {pred.frames[frame]!r}"
                    + (f" and {len(rows) - 1} more boxes" if len(rows) > 1 else ""),
                    hint=error.hint,
                )
    limit = protocol.max_boxes_per_frame
    if limit is not None:
        counts = np.where(frame_map >= 0, np.diff(pred.offsets), 0)
        if counts.size and counts.max() > limit:
            worst = int(counts.argmax())
            raise InputError(
                f"{called}: boxes in frame {pred.frames[worst]!r}",
                expected=f"at most {limit}",
                got=int(counts[worst]),
                hint=f"{int((counts > limit).sum())} frames have more",
            )


def _lookup(tasks: list[int | None], label: Codes) -> NDArray[np.int16]:
    """Task of each row, -1 where it is not evaluated."""
    table = np.array([-1 if task is None else task for task in tasks] or [-1], dtype=np.int16)
    return table[label]


def _fates(boxes: Boxes, ego: Floats, task: NDArray[np.int16], protocol: Protocol, threads: int) -> Bytes:
    fate = np.empty(len(boxes), dtype=np.uint8)
    limit = np.array([np.inf if t.range_m is None else t.range_m for t in protocol.tasks], dtype=np.float64)
    in_space = kernels.RANGE[protocol.range_kind]
    points = boxes.num_points if protocol.drop_empty and boxes.num_points is not None else np.zeros(0)
    points = points.view()
    points.flags.writeable = False  # one type for the kernel, given or not

    def part(frames: slice) -> None:
        kernels.filter_rows(
            boxes.offsets[frames.start : frames.stop + 1],
            ego[frames.start : frames.stop],
            boxes.center_m,
            task,
            limit,
            in_space,
            points,
            fate,
        )

    ego = np.array(ego)
    edges = _even(boxes.offsets, threads)
    _run(part, [slice(a, b) for a, b in itertools.pairwise(edges)], threads)
    return fate


class _Regions:
    """Ignore regions: the truth boxes of one category, with their full rotation."""

    def __init__(self, truth: Boxes, category: str) -> None:
        labels = truth.labels or ()
        code = labels.index(category) if category in labels else -1
        rows = np.flatnonzero(truth.label == code)
        rotation = rotation_of_yaw(truth.yaw_rad[rows]) if truth.rotation_wxyz is None else truth.rotation_wxyz[rows]
        axes = rotation_matrices(rotation) if len(rows) else np.zeros((0, 3, 3))
        size = truth.size_lwh_m[rows]
        # the corner at +, +, + and the three edges from it, as the devkit's points_in_box does
        self.origin = truth.center_m[rows] + np.einsum("nij,nj->ni", axes, size / 2)
        self.edges = np.ascontiguousarray(-np.swapaxes(axes, 1, 2) * size[:, :, None])
        self.offsets = np.searchsorted(truth.frame[rows], np.arange(truth.n_frames + 1)).astype(np.int64)

    def apply(
        self,
        boxes: Boxes,
        frame: Codes,
        task: NDArray[np.int16],
        fate: Bytes,
        protocol: Protocol,
        labels: Sequence[str],
    ) -> None:
        """Mark the kept boxes of these classes whose centre lies in a region."""
        if not len(self.origin):
            return
        affected = np.isin(task, [protocol.labels.index(label) for label in labels]) & (fate == Fate.KEPT)
        rows = np.flatnonzero(affected)
        inside = np.zeros(len(rows), dtype=np.bool_)
        kernels.inside_regions(rows, frame[rows], boxes.center_m, self.offsets, self.origin, self.edges, inside)
        fate[rows[inside]] = Fate.IN_REGION


def _cap(group: Codes, score: Floats, place: Ints, fate: Bytes, cap: int) -> None:
    """Mark the kept boxes beyond the best ``cap`` of their group; among equal scores the greater place is better."""
    rows = np.flatnonzero(fate == Fate.KEPT)
    rows = rows[np.bincount(group[rows])[group[rows]] > cap]  # most groups are small
    order = rows[np.lexsort((-place[rows], -score[rows], group[rows]))]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    fate[order[rank >= cap]] = Fate.OVER_CAP


def _kept(task: NDArray[np.int16], fate: Bytes) -> NDArray[np.int16]:
    return np.where(fate == Fate.KEPT, task, np.int16(-1))


def _places(truth: Boxes, pred: Boxes, frame_map: Codes) -> Ints:
    """Position of each prediction for ties: in the file, or where truth is partial in the order of its frames."""
    if not truth.partial:
        return pred.place
    rank = np.where(frame_map >= 0, truth.frame_place[frame_map] if truth.n_frames else 0, 0)
    position = np.arange(len(pred)) - pred.offsets[pred.frame]
    if np.any((pred.place[1:] < pred.place[:-1]) & (pred.frame[1:] == pred.frame[:-1])):  # not in the order of the file
        order = np.lexsort((pred.place, pred.frame))
        position[order] = position.copy()
    return (rank[pred.frame].astype(np.int64) << 32) + position


def measure(ledger: Ledger, pred_row: Ints, truth_row: Ints) -> Floats:
    """Errors (P, n_errors) of any pairs of predictions and truths of a ledger, matched or not; NaN where unknown."""
    protocol = ledger.protocol
    period = np.array([task.yaw_period_rad for task in protocol.tasks], dtype=np.float64)
    columns = _error_columns(ledger.truth, ledger.pred, protocol)
    return _measure(columns, pred_row, truth_row, period[ledger.truth_task[truth_row]])


def _measure(columns: ErrorColumns, pred_row: Ints, truth_row: Ints, period: Floats) -> Floats:
    errors = np.full((len(pred_row), len(columns)), np.nan)
    one = np.empty(len(pred_row))
    for i, (rule, column) in enumerate(columns):
        if column is not None:
            rule.kernel(pred_row, truth_row, column[0], column[1], period, one)
            errors[:, i] = one
    return errors


def _error_columns(truth: Boxes, pred: Boxes, protocol: Protocol) -> ErrorColumns:
    """Columns that each error compares; None where one side lacks it, so that the error is unknown."""
    columns: ErrorColumns = []
    for error in protocol.errors:
        rule = kernels.ERROR[error.kind]
        if rule.column == "attribute":
            columns.append((rule, _attributes(truth, pred)))
            continue
        p, t = getattr(pred, rule.column), getattr(truth, rule.column)
        columns.append((rule, None if p is None or t is None else (p, t)))
    return columns


def _attributes(truth: Boxes, pred: Boxes) -> tuple[Codes, Codes] | None:
    """Attribute codes of both sides in one table; -1 for a truth without, -2 for a prediction without."""
    if truth.attribute is None:
        return None
    table = {name: code for code, name in enumerate(dict.fromkeys((*truth.attributes, *pred.attributes)))}
    of_truth = np.array([table[name] if name else -1 for name in truth.attributes] or [0], np.int32)
    of_pred = np.array([table[name] if name else -2 for name in pred.attributes] or [0], np.int32)
    missing = np.full(len(pred), -2, np.int32)
    return missing if pred.attribute is None else of_pred[pred.attribute], of_truth[truth.attribute]


def _even(offsets: Ints, n_parts: int) -> list[int]:
    """Edges that cut groups into ranges of about equal numbers of rows."""
    n_groups = len(offsets) - 1
    if n_groups == 0:
        return [0, 0]
    cuts = np.searchsorted(offsets, np.linspace(offsets[0], offsets[-1], n_parts + 1)[1:-1])
    return sorted({0, *cuts.tolist(), n_groups})


def _lowest_bit(bits: Ints) -> Ints:
    """Index of the lowest bit set."""
    lowest: Ints = np.log2(bits & -bits).astype(np.int64)
    return lowest
