"""Why it is wrong: one cause for every false positive and every missed truth, and what repairing each would give.

Causes are found at every threshold on its own, best score first, so that all repairs together make every prediction a
match and every truth found. After D. Bolya et al., *TIDE: A General Toolbox for Identifying Object Detection Errors*,
ECCV 2020, with the localisation errors of boxes in space and the misses of lidar.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from detmetrics.curves import order_by_score
from detmetrics.errors import InputError, unknown_name
from detmetrics.kernels import Floats, Ints, blame, group
from detmetrics.ledger import Fate, Ledger, check_ledger
from detmetrics.matching import measure
from detmetrics.scoring import Absent, Plan
from detmetrics.slicing import name_of
from detmetrics.weights import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Causes = NDArray[np.int8]


class Cause(NamedTuple):
    """A way to be wrong.

    Attributes
    ----------
    name : str
    says : str
        What it means.
    repair : str
        What the price assumes instead.
    """

    name: str
    says: str
    repair: str


REMOVED = "the prediction is not made"
FOUND = "the truth is found, with the median score of the class's true positives"
MOVED = "the prediction matches the truth it meant, without this part of its offset"
SET_RIGHT = "this error of the match is gone"

#: All causes; codes are positions in this tuple, and 0 means nothing is wrong.
CAUSES = (
    Cause("", "right", ""),
    Cause("duplicate", "a better-scored prediction has taken the truth", REMOVED),
    Cause("wrong_class", "it lies on a truth of another class", "it is of the class of the missed truth, or not made"),
    Cause("longitudinal", "near a missed truth of its class, too far before or behind it", MOVED),
    Cause("lateral", "near a missed truth of its class, too far beside it", MOVED),
    Cause("vertical", "too high or too low: no match, or a match off by much of the truth's height", MOVED),
    Cause("size", "matches, with a wrong size", SET_RIGHT),
    Cause("yaw", "matches, with a wrong heading", SET_RIGHT),
    Cause("flip", "matches, with front and back exchanged", "turned by half a turn"),
    Cause("out_of_range", "prediction and truth lie on two sides of the range limit", f"{REMOVED}, or {FOUND}"),
    Cause("ignored_truth", "it lies on a truth that does not count: no points, or in an ignore region", REMOVED),
    Cause("background", "nothing is there", REMOVED),
    Cause("few_points", "missed: few sensor points", FOUND),
    Cause("occluded", "missed: hardly visible", FOUND),
    Cause("far", "missed: far away", FOUND),
    Cause("missed", "missed, and none of this excuses it", FOUND),
)
CODE = {cause.name: code for code, cause in enumerate(CAUSES)}


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one cause ends and the next begins; the reasons stand beside the values.

    Attributes
    ----------
    reach : float
        A prediction means a missed truth of its class nearer than this many thresholds (at least the loosest one).
        2: beyond that, the next parked car is as near.
    flip_rad : float
        Heading errors above are flips. 3/4 π: nearer to half a turn than to a quarter.
    yaw_rad : float
        Heading errors above are wrong. π/6: the box of a car then covers less than two thirds of it.
    size : float
        Size errors (1 - IoU, aligned) above are wrong. 0.5: half the volume is not shared.
    vertical : float
        Height offsets above this share of the truth's height are wrong. 0.5: half the box hangs in the air.
    few_points : float
        Truths with at most so many points have few. 5: Waymo's border of LEVEL_2.
    occluded : tuple of str
        Values of the column ``visibility`` that mean hardly visible, as slices name them (``"1"`` for the number 1.0).
        nuScenes: "1" is 0 to 40 %.
    far : float
        Truths beyond this share of their class's range are far. 0.75: the outer 44 % of the area.
    """

    reach: float = 2.0
    flip_rad: float = 0.75 * math.pi
    yaw_rad: float = math.pi / 6
    size: float = 0.5
    vertical: float = 0.5
    few_points: float = 5.0
    occluded: tuple[str, ...] = ("1",)
    far: float = 0.75

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("reach", "flip_rad", "yaw_rad", "size", "vertical", "few_points", "far"):
            if not getattr(self, name) >= 0:
                raise InputError(f"rules.{name}", expected="zero or more", got=getattr(self, name))


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """Causes and their prices.

    Attributes
    ----------
    ledger : Ledger
    rules : Rules
    event_cause : int8 (T, E)
        Cause of each event at each threshold, a code of :data:`detmetrics.diagnosis.CAUSES`; 0 for a match without
        fault. Faults of matches (size, yaw, flip, vertical) stand at the threshold of the errors only.
    event_truth : int64 (T, E)
        Row of the missed truth that a wrong or misplaced prediction meant, or -1.
    truth_cause : int8 (T, N_truth)
        Cause of each missed truth; 0 where it is found or does not count.
    value : dict of str to float
        mAP and the composite as they are.
    prices : dict of str to dict of str to float
        For each cause, how much mAP and the composite would gain if it alone were repaired.
    absent : str
        What a class without truth counts.
    """

    ledger: Ledger
    rules: Rules
    event_cause: Causes
    event_truth: Ints
    truth_cause: Causes
    value: Mapping[str, float]
    prices: Mapping[str, Mapping[str, float]]
    absent: Absent

    def counts(self, label: str | None = None, threshold: float | None = None) -> dict[str, tuple[int, int]]:
        """Give, for each cause, how many predictions and how many missed truths it explains.

        Parameters
        ----------
        label : str, optional
            Of one class only.
        threshold : float, optional
            Default: the one of the errors.
        """
        protocol = self.ledger.protocol
        thresholds = protocol.affinity.thresholds
        if threshold is not None and threshold not in thresholds:
            raise InputError("threshold", expected=f"one of {thresholds}", got=threshold)
        t = protocol.error_index if threshold is None else thresholds.index(threshold)
        events: slice = slice(None)
        in_class = np.ones(len(self.ledger.truth), np.bool_)
        if label is not None:
            if label not in protocol.labels:
                near = unknown_name("class", label, protocol.labels).hint
                raise InputError("label", expected="one of the classes", got=label, hint=near)
            k = protocol.labels.index(label)
            events = slice(int(self.ledger.event_offsets[k]), int(self.ledger.event_offsets[k + 1]))
            in_class = self.ledger.truth_task == k
        of_events = np.bincount(self.event_cause[t, events], minlength=len(CAUSES))
        of_truths = np.bincount(self.truth_cause[t, in_class], minlength=len(CAUSES))
        return {cause.name: (int(of_events[c]), int(of_truths[c])) for c, cause in enumerate(CAUSES) if c}

    def to_rows(self) -> list[dict[str, float | int | str]]:
        """Give one dict a cause: name, counts, prices, what it means and what the price assumes."""
        return [
            {
                "cause": cause.name,
                "predictions": predictions,
                "truths": truths,
                **{f"{name}_gain": gain for name, gain in self.prices[cause.name].items()},
                "meaning": cause.says,
                "repair": cause.repair,
            }
            for cause, (predictions, truths) in zip(CAUSES[1:], self.counts().values(), strict=True)
        ]

    def __str__(self) -> str:
        """Give the table, dearest cause first."""
        from detmetrics.reporting.table import as_plain, diagnosis_table

        return as_plain(diagnosis_table(self))

    def __repr__(self) -> str:
        """Say what costs most."""
        name = self.ledger.protocol.composite.name
        worst = max(self.prices, key=lambda cause: self.prices[cause][name])
        if not self.prices[worst][name] > 0:
            return f"<Diagnosis: nothing costs any {name}>"
        return f"<Diagnosis: {worst} costs most, {self.prices[worst][name]:.4f} {name}>"


def diagnose(ledger: Ledger, rules: Rules | None = None, *, absent: Absent = "official") -> Diagnosis:
    """Find the cause of every false positive and every missed truth, and the price of each cause.

    Parameters
    ----------
    ledger : Ledger
        From :func:`detmetrics.match`; affinity by distance of the centres.
    rules : Rules, optional
        Where one cause ends and the next begins.
    absent : {"official", "omit"}
        What a class without truth counts.

    Returns
    -------
    Diagnosis
    """
    check_ledger(ledger)
    if not isinstance(rules, Rules | None):
        raise InputError("rules", expected="detmetrics.diagnosis.Rules(…)", got=rules)
    rules = rules or Rules()
    protocol = ledger.protocol
    n_thresholds = len(protocol.affinity.thresholds)
    event_cause = np.zeros((n_thresholds, len(ledger.event_pred)), np.int8)
    event_truth = np.full(event_cause.shape, -1, np.int64)
    truth_cause = np.zeros((n_thresholds, len(ledger.truth)), np.int8)
    scene = Evidence(ledger, rules)
    for t in range(n_thresholds):
        event_cause[t], event_truth[t] = scene.blame(t)
        truth_cause[t] = scene.blame_misses(t, event_cause[t], event_truth[t])
    _faults_of_matches(ledger, rules, event_cause[protocol.error_index])

    names = (protocol.composite.name, "mAP")
    plain = Plan(ledger, Weights()).numbers(absent)[0, :2]  # composite and mAP stand first
    value = dict(zip(names, plain, strict=True))
    prices = {}
    for code, cause in enumerate(CAUSES):
        if code:
            repaired = _repaired(ledger, {code}, event_cause, event_truth, truth_cause, absent)
            prices[cause.name] = dict(zip(names, (repaired - plain).tolist(), strict=True))
    return Diagnosis(ledger, rules, event_cause, event_truth, truth_cause, value, prices, absent)


def repair(diagnosis: Diagnosis, causes: set[str]) -> dict[str, float]:
    """Give mAP and the composite with several causes repaired at once.

    Raises
    ------
    InputError
        On an unknown cause.
    """
    strange = sorted(set(causes) - set(list(CODE)[1:]))
    if strange:
        raise InputError("causes", expected=f"among {list(CODE)[1:]}", got=strange)
    codes = {CODE[name] for name in causes}
    d = diagnosis
    values = _repaired(d.ledger, codes, d.event_cause, d.event_truth, d.truth_cause, d.absent)
    return dict(zip((d.ledger.protocol.composite.name, "mAP"), values.tolist(), strict=True))


class Evidence:
    """Events by frame and score, truths by frame, whatever their class and fate."""

    def __init__(self, ledger: Ledger, rules: Rules | None = None) -> None:
        self.ledger, self.rules = ledger, rules or Rules()
        truth, pred = ledger.truth, ledger.pred
        self.dims = _dims(ledger)
        self.order = np.lexsort((-ledger.event_score, ledger.event_frame))
        self.rows = np.flatnonzero(ledger.truth_task >= 0)
        frames = np.arange(ledger.n_frames + 1)
        self.offsets = np.stack(
            (
                np.searchsorted(ledger.event_frame[self.order], frames),
                np.searchsorted(truth.frame[self.rows], frames),
            ),
            axis=1,
        ).astype(np.int64)
        self.xyz = np.ascontiguousarray(pred.center_m[ledger.event_pred[self.order]])
        self.truth_xyz = np.ascontiguousarray(truth.center_m[self.rows])
        fate = ledger.truth_fate[self.rows]
        self.state = np.where(fate == Fate.OUT_OF_RANGE, 2, np.where(fate == Fate.KEPT, 0, 3)).astype(np.int64)
        self.excuse = self._excuses()

    def _excuses(self) -> Causes:
        """Cause of each truth if nothing but the miss itself is known of it (N_truth,)."""
        ledger, truth, rules = self.ledger, self.ledger.truth, self.rules
        limit = np.array([math.inf if task.range_m is None else task.range_m for task in ledger.protocol.tasks])
        distance = np.linalg.norm(truth.center_m[:, :2] - truth.ego_xy_m[truth.frame], axis=1)
        excuse = np.full(len(truth), CODE["missed"], np.int8)
        excuse[distance > rules.far * limit[ledger.truth_task]] = CODE["far"]
        if "visibility" in truth.box_columns:
            column = truth.box_columns["visibility"]
            if column.ndim > 1:
                raise InputError(
                    f"column visibility of {truth.called('truth')}", expected="of one value each", got=column.shape
                )
            kinds, kind = np.unique(column, return_inverse=True)
            is_occluded = np.array([name_of(one) in rules.occluded for one in kinds.tolist()], np.bool_)
            excuse[is_occluded[kind]] = CODE["occluded"]
        if truth.num_points is not None:
            excuse[truth.num_points <= rules.few_points] = CODE["few_points"]
        return excuse

    def blame(self, t: int, made: NDArray[np.bool_] | None = None) -> tuple[Causes, Ints]:
        """Give the cause of each unmatched event at one threshold, and the row of the missed truth that it meant or -1.

        Parameters
        ----------
        t : int
            Index of the threshold.
        made : bool (E,), optional
            Events that are made at all; the others neither find nor blame anything.
        """
        ledger = self.ledger
        thresholds = ledger.protocol.affinity.thresholds
        matched = ledger.pair_bits >> t & 1 == 1
        if made is not None:
            matched &= made[ledger.pair_event]
        settled = np.zeros(len(ledger.event_pred), np.bool_) if made is None else ~made
        settled[ledger.pair_event[matched]] = True
        is_found = np.zeros(len(ledger.truth), np.bool_)
        is_found[ledger.pair_truth[matched]] = True

        event = np.stack((ledger.event_task[self.order], settled[self.order]), axis=1).astype(np.int64)
        state = np.where(is_found[self.rows], 1, self.state)
        truth = np.stack((ledger.truth_task[self.rows], state, np.zeros_like(state)), axis=1).astype(np.int64)
        far = max(self.rules.reach * thresholds[t], thresholds[-1])
        reach = np.array([thresholds[t], far, 1.0 if self.dims == 3 else 0.0])
        out = np.empty((len(event), 2), np.int64)
        blame(self.offsets, event, self.xyz, truth, self.truth_xyz, reach, out)

        codes = np.array([0, CODE["duplicate"], CODE["wrong_class"], 0, CODE["out_of_range"], CODE["ignored_truth"],
                          CODE["background"]], np.int8)[out[:, 0]]  # fmt: skip
        meant = np.full(len(event), -1, np.int64)
        has_partner = out[:, 1] >= 0
        meant[has_partner] = self.rows[out[has_partner, 1]]
        misplaced = np.flatnonzero(out[:, 0] == 3)
        codes[misplaced] = self._direction(self.order[misplaced], meant[misplaced])
        event_cause, event_truth = np.empty_like(codes), np.empty_like(meant)
        event_cause[self.order], event_truth[self.order] = codes, meant
        return event_cause, event_truth

    def blame_misses(self, t: int, event_cause: Causes, event_truth: Ints) -> Causes:
        """Give the cause of each missed truth at one threshold (N_truth,), 0 elsewhere."""
        ledger = self.ledger
        missed = ledger.truth_fate == Fate.KEPT
        missed[ledger.pair_truth[ledger.pair_bits >> t & 1 == 1]] = False
        cause = np.where(missed, self.excuse, np.int8(0)).astype(np.int8)
        cause[self._beside_out_of_range(ledger.protocol.affinity.thresholds[t], missed)] = CODE["out_of_range"]
        meaning = event_truth >= 0
        cause[event_truth[meaning]] = event_cause[meaning]
        return cause

    def _direction(self, event: Ints, truth_row: Ints) -> Causes:
        """Largest part of the offset of each pair."""
        largest = np.abs(_offsets(self.ledger, event, truth_row)[:, : self.dims]).argmax(axis=1)
        codes: Causes = np.array([CODE["longitudinal"], CODE["lateral"], CODE["vertical"]], np.int8)[largest]
        return codes

    def _beside_out_of_range(self, threshold: float, missed: NDArray[np.bool_]) -> Ints:
        """Missed truths with a prediction of their class within the threshold that lies out of range."""
        ledger, pred, truth = self.ledger, self.ledger.pred, self.ledger.truth
        dropped = np.flatnonzero(ledger.pred_fate == Fate.OUT_OF_RANGE)
        rows = np.flatnonzero(missed)
        if not len(dropped) or not len(rows):
            return np.zeros(0, np.int64)
        tasks = np.array([ledger.protocol.task_of(label) for label in pred.labels or ()], np.int64)
        frame = np.array([truth.frame_index.get(name, -1) for name in pred.frames], np.int64)[pred.frame[dropped]]
        n_tasks = len(ledger.protocol.tasks)
        n_groups = ledger.n_frames * n_tasks
        offsets, order = group((frame * n_tasks + tasks[pred.label[dropped]]).astype(np.int32), n_groups)
        key = truth.frame[rows] * n_tasks + ledger.truth_task[rows]
        # every dropped prediction of the frame and class of each missed truth
        counts = offsets[key + 1] - offsets[key]
        which = np.repeat(np.arange(len(rows)), counts)
        starts = np.cumsum(counts) - counts
        other = dropped[order[np.arange(counts.sum()) + np.repeat(offsets[key] - starts, counts)]]
        offset = pred.center_m[other, : self.dims] - truth.center_m[rows[which], : self.dims]
        near: Ints = rows[np.unique(which[np.linalg.norm(offset, axis=1) < threshold])]
        return near


def _faults_of_matches(ledger: Ledger, rules: Rules, event_cause: Causes) -> None:
    """Mark matches at the threshold of the errors whose height, size or heading is wrong."""
    pairs = np.flatnonzero(ledger.pair_bits >> ledger.protocol.error_index & 1)
    truth_row, event = ledger.pair_truth[pairs], ledger.pair_event[pairs]
    cause = np.zeros(len(pairs), np.int8)
    height = ledger.truth.size_lwh_m[truth_row, 2]
    offset = ledger.pred.center_m[ledger.event_pred[event], 2] - ledger.truth.center_m[truth_row, 2]
    cause[np.abs(offset) > rules.vertical * height] = CODE["vertical"]
    for name, limit in (("size", rules.size), ("yaw", rules.yaw_rad), ("flip", rules.flip_rad)):
        column = _column(ledger, name)
        if column is not None:
            cause[ledger.pair_errors[pairs, column] > limit] = CODE[name]
    event_cause[event] = cause


def _column(ledger: Ledger, name: str) -> int | None:
    """Column of the errors that a fault or a part of the offset shows in; None where the protocol has none."""
    kinds = {"size": "scale", "yaw": "orientation", "flip": "orientation"}
    columns = [
        i for i, error in enumerate(ledger.protocol.errors) if error.kind.startswith(kinds.get(name, "translation"))
    ]
    return columns[0] if columns else None


class _Edits(NamedTuple):
    """Events and pairs to add, as columns."""

    task: Ints
    frame: Ints
    score: Floats
    place: Ints
    truth: Ints
    threshold: Ints
    errors: Floats


def _repaired(
    ledger: Ledger, codes: set[int], event_cause: Causes, event_truth: Ints, truth_cause: Causes, absent: Absent
) -> Floats:
    """Composite and mAP with some causes repaired."""
    n_thresholds, n_events = event_cause.shape
    wanted = np.isin(event_cause, list(codes))
    keep = np.ones((n_thresholds, n_events), np.int64)
    placed = np.isin(event_cause, [CODE["longitudinal"], CODE["lateral"], CODE["vertical"]]) & (event_truth >= 0)
    faults = np.isin(event_cause, [CODE[name] for name in ("vertical", "size", "yaw", "flip")]) & ~placed
    keep[wanted & ~placed & ~faults] = 0

    pair_errors = _without_faults(ledger, wanted & faults, event_cause)
    pairs = _pairs_to_add(ledger, wanted & placed, event_cause, event_truth)
    moved = _moved(ledger, wanted & ~placed & (event_truth >= 0), event_truth)
    partnered = np.zeros(truth_cause.shape, np.bool_)
    t, e = np.nonzero(event_truth >= 0)
    partnered[t, event_truth[t, e]] = True
    found = _found(ledger, np.isin(truth_cause, list(codes)) & ~partnered, event_cause)
    edits = _Edits(*(np.concatenate(columns) for columns in zip(moved, found, strict=True)))
    changed, weights = _edited(ledger, edits, pairs, pair_errors, keep)
    return Plan(changed, weights).numbers(absent)[0, :2]


def _without_faults(ledger: Ledger, wanted: NDArray[np.bool_], event_cause: Causes) -> Floats:
    """Errors of the pairs with these faults of matches set right."""
    t = ledger.protocol.error_index
    pairs = np.flatnonzero((ledger.pair_bits >> t & 1 == 1) & wanted[t, ledger.pair_event])
    errors = ledger.pair_errors.copy()
    cause = event_cause[t, ledger.pair_event[pairs]]
    period = np.array([task.yaw_period_rad for task in ledger.protocol.tasks])
    for name in ("vertical", "size", "yaw", "flip"):
        column, mine = _column(ledger, name), pairs[cause == CODE[name]]
        if column is None:
            continue
        if name == "flip":
            turned = math.pi - errors[mine, column]
            errors[mine, column] = np.where(period[ledger.truth_task[ledger.pair_truth[mine]]] > math.pi, turned, 0)
        elif name == "vertical":
            errors[mine, column] = _without_part(ledger, ledger.pair_event[mine], ledger.pair_truth[mine], name)
        else:
            errors[mine, column] = 0
    return errors


def _without_part(ledger: Ledger, event: Ints, truth_row: Ints, name: str) -> Floats:
    """Translation error, as the protocol measures it, without the part of the offset that a cause names."""
    column = _column(ledger, name)
    dims = 3 if column is not None and ledger.protocol.errors[column].kind.endswith("xyz") else 2
    offset = _offsets(ledger, event, truth_row)
    offset[:, ("longitudinal", "lateral", "vertical").index(name)] = 0
    distance: Floats = np.linalg.norm(offset[:, :dims], axis=1)
    return distance


def _offsets(ledger: Ledger, event: Ints, truth_row: Ints) -> Floats:
    """Offset of events from truths, along the truth, beside it and upwards (n, 3)."""
    offset = ledger.pred.center_m[ledger.event_pred[event]] - ledger.truth.center_m[truth_row]
    yaw = ledger.truth.yaw_rad[truth_row]
    along = offset[:, 0] * np.cos(yaw) + offset[:, 1] * np.sin(yaw)
    beside = offset[:, 1] * np.cos(yaw) - offset[:, 0] * np.sin(yaw)
    return np.stack((along, beside, offset[:, 2]), axis=1)


def _dims(ledger: Ledger) -> int:
    """In how many dimensions the protocol measures distances."""
    return 3 if ledger.protocol.affinity.kind.endswith("xyz") else 2


def _pairs_to_add(
    ledger: Ledger, wanted: NDArray[np.bool_], event_cause: Causes, event_truth: Ints
) -> tuple[Ints, Ints, Ints, Floats]:
    """Pairs (event, truth, bits, errors) of misplaced predictions with the truths that they meant."""
    t, event = np.nonzero(wanted)
    truth_row = event_truth[t, event]
    errors = measure(ledger, ledger.event_pred[event], truth_row)
    column = _column(ledger, "vertical")
    if column is not None:
        for name in ("longitudinal", "lateral", "vertical"):
            mine = event_cause[t, event] == CODE[name]
            errors[mine, column] = _without_part(ledger, event[mine], truth_row[mine], name)
    return event, truth_row, np.int64(1) << t, errors


def _moved(ledger: Ledger, wanted: NDArray[np.bool_], event_truth: Ints) -> _Edits:
    """Predictions of a wrong class as ones of the class of the truth that they meant."""
    t, event = np.nonzero(wanted)
    truth_row = event_truth[t, event]
    return _Edits(
        task=ledger.truth_task[truth_row].astype(np.int64),
        frame=ledger.event_frame[event].astype(np.int64),
        score=ledger.event_score[event],
        place=ledger.event_place[event],
        truth=truth_row,
        threshold=t,
        errors=measure(ledger, ledger.event_pred[event], truth_row),
    )


def _found(ledger: Ledger, wanted: NDArray[np.bool_], event_cause: Causes) -> _Edits:
    """Missed truths as found, with the median score of the class's matches and errors that are not known."""
    t, truth_row = np.nonzero(wanted)
    task = ledger.truth_task[truth_row].astype(np.int64)
    n_tasks, n_thresholds = len(ledger.protocol.tasks), len(event_cause)
    median = np.ones((n_thresholds, n_tasks))
    matches = ledger.matches
    for k in range(n_tasks):
        for i in range(n_thresholds):
            events = matches.event[slice(*matches.offsets[k * n_thresholds + i :][:2])]
            if len(events):
                median[i, k] = np.median(ledger.event_score[events])
    return _Edits(
        task=task,
        frame=ledger.truth.frame[truth_row].astype(np.int64),
        score=median[t, task],
        place=truth_row,
        truth=truth_row,
        threshold=t,
        errors=np.full((len(t), len(ledger.protocol.errors)), np.nan),
    )


def _edited(
    ledger: Ledger, edits: _Edits, pairs: tuple[Ints, Ints, Ints, Floats], pair_errors: Floats, keep: Ints
) -> tuple[Ledger, Weights]:
    """Give a ledger with events and pairs added, and the weights that take out what does not count."""
    n_tasks, n_old, n_new = len(ledger.protocol.tasks), len(ledger.event_pred), len(edits.task)
    task = np.concatenate((ledger.event_task, edits.task))
    score = np.concatenate((ledger.event_score, edits.score))
    place = np.concatenate((ledger.event_place, edits.place))
    offsets, order = group(task.astype(np.int32), n_tasks)
    if n_new:
        for k in range(n_tasks):
            part = slice(offsets[k], offsets[k + 1])
            order[part] = order[part][order_by_score(score[order[part]], place[order[part]])]
    new = np.empty(len(order), np.int64)
    new[order] = np.arange(len(order))
    weight = np.zeros((len(keep), n_old + n_new), np.int64)
    weight[:, :n_old] = keep
    added = np.arange(n_old, n_old + n_new)
    weight[edits.threshold, added] = 1
    event = new[np.concatenate((ledger.pair_event, pairs[0], added))]
    by_event = np.argsort(event, kind="stable")
    bits = np.concatenate((ledger.pair_bits, pairs[2], np.int64(1) << edits.threshold))
    changes: dict[str, Any] = {
        "event_offsets": offsets,
        "event_pred": np.concatenate((ledger.event_pred, np.zeros(n_new, np.int64)))[order],
        "event_frame": np.concatenate((ledger.event_frame, edits.frame)).astype(np.int32)[order],
        "event_score": score[order],
        "event_place": place[order],
        "pair_event": event[by_event],
        "pair_truth": np.concatenate((ledger.pair_truth, pairs[1], edits.truth))[by_event],
        "pair_bits": bits[by_event],
        "pair_errors": np.concatenate((pair_errors, pairs[3], edits.errors))[by_event],
    }
    return dataclasses.replace(ledger, **changes), Weights(event=weight[:, order])
