"""The rules of every protocol, slow and obvious: the oracle of every kernel.

Written from the official evaluators that the docstrings of :mod:`detmetrics.protocols` name, one box at a time, with
numpy only where a rule is stated in terms of numpy (``linspace``, ``interp``). It imports nothing of detmetrics but the
two containers that it is handed, boxes and the words of a protocol, and it checks nothing. ``tests/parity`` proves it
against the official packages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from detmetrics.boxes import Boxes
from detmetrics.protocol import Protocol, TpError

NAN = math.nan


@dataclass
class Box:
    """One box, plainly."""

    row: int
    frame: str
    category: str
    center: tuple[float, float, float]
    size_lwh: tuple[float, float, float]
    yaw: float
    score: float
    velocity: tuple[float, float]
    attribute: str
    num_points: float
    rotation_wxyz: tuple[float, float, float, float]
    order: tuple[int, int]


@dataclass
class Event:
    """A prediction that counts, and what it matched at one threshold."""

    pred: Box
    truth: Box | None
    errors: tuple[float, ...] = ()


@dataclass
class Curve:
    """A curve over recall; ``errors`` by official key."""

    recall: np.ndarray
    precision: np.ndarray
    confidence: np.ndarray
    errors: dict[str, np.ndarray]


@dataclass
class Result:
    """Everything that an evaluation gives."""

    events: dict[tuple[str, float], list[Event]] = field(default_factory=dict)
    truths: dict[str, list[Box]] = field(default_factory=dict)
    n_truth: dict[str, int] = field(default_factory=dict)
    curves: dict[tuple[str, float], Curve] = field(default_factory=dict)
    ap: dict[tuple[str, float], float] = field(default_factory=dict)
    class_ap: dict[str, float] = field(default_factory=dict)
    class_errors: dict[tuple[str, str], float] = field(default_factory=dict)
    tp_errors: dict[str, float] = field(default_factory=dict)
    tp_scores: dict[str, float] = field(default_factory=dict)
    class_composite: dict[str, float] = field(default_factory=dict)
    mean_ap: float = NAN
    composite: float = NAN

    def matches(self, label: str, threshold: float) -> list[tuple[int, int]]:
        """Rows (prediction, truth) of the matches, in the order of matching."""
        return [(e.pred.row, e.truth.row) for e in self.events[label, threshold] if e.truth is not None]


# the small things


def matrix_of(rotation_wxyz: Sequence[float]) -> list[list[float]]:
    """Rotation matrix of a quaternion that need not have length 1."""
    length = math.sqrt(sum(q * q for q in rotation_wxyz))
    w, x, y, z = (q / length for q in rotation_wxyz)
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


def is_inside(
    point: Sequence[float], center: Sequence[float], size_lwh: Sequence[float], rotation_wxyz: Sequence[float]
) -> bool:
    """Whether a point lies in a box that is turned in space, faces included."""
    matrix = matrix_of(rotation_wxyz)
    for axis in range(3):
        # along this axis of the box, how far is the point from its centre?
        along = sum((point[i] - center[i]) * matrix[i][axis] for i in range(3))
        if abs(along) > size_lwh[axis] / 2:
            return False
    return True


def angle_difference(truth: float, pred: float, period: float) -> float:
    """Smallest angle between two headings that repeat after ``period``, in [0, period / 2] and at most π."""
    difference = (truth - pred + period / 2) % period - period / 2
    if difference > math.pi:
        difference -= 2 * math.pi
    return abs(difference)


def aligned_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes with one centre and one heading."""
    both = min(a[0], b[0]) * min(a[1], b[1]) * min(a[2], b[2])
    return both / (a[0] * a[1] * a[2] + b[0] * b[1] * b[2] - both)


def ground_distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Distance of two points in x and y."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    return math.sqrt(dx * dx + dy * dy)


def space_distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Distance of two points in x, y and z."""
    dx, dy, dz = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return math.sqrt(dx * dx + dy * dy + dz * dz)


def running_mean(values: Sequence[float]) -> list[float]:
    """Mean of what is known so far at each position; 0 while nothing is known, 1 where nothing ever is."""
    if all(math.isnan(value) for value in values):
        return [1.0 for _ in values]
    means = []
    total, count = 0.0, 0
    for value in values:
        if not math.isnan(value):
            total += value
            count += 1
        means.append(total / count if count else 0.0)
    return means


DISTANCE = {"center_xy": ground_distance, "center_xyz": space_distance}
RANGE = {"ground": ground_distance, "space": space_distance}


def error_of(kind: str, truth: Box, pred: Box, period: float) -> float:
    """One true-positive error of a pair."""
    if kind == "translation_xy":
        return ground_distance(truth.center, pred.center)
    if kind == "translation_xyz":
        return space_distance(truth.center, pred.center)
    if kind == "scale_max":
        sides = list(zip(pred.size_lwh, truth.size_lwh, strict=True))
        return 1 - math.prod(min(p, t) for p, t in sides) / math.prod(max(p, t) for p, t in sides)
    if kind == "scale_aligned":
        return 1 - aligned_iou(truth.size_lwh, pred.size_lwh)
    if kind == "orientation":
        return angle_difference(truth.yaw, pred.yaw, period)
    if kind == "velocity_xy":
        return ground_distance(truth.velocity, pred.velocity)
    if kind == "attribute":
        return NAN if truth.attribute == "" else float(truth.attribute != pred.attribute)
    raise KeyError(kind)


# boxes


def plain_boxes(boxes: Boxes, protocol: Protocol, frame_rank: dict[str, int] | None = None) -> list[Box]:
    """Boxes one by one, in the order of their rows.

    ``order`` is what decides between equal scores: the place in the file, or with ``frame_rank`` the rank of the frame
    and then the position within the frame.
    """
    labels = protocol.labels if boxes.labels is None else boxes.labels
    result = []
    for row in range(len(boxes)):
        frame = boxes.frames[boxes.frame[row]]
        yaw = float(boxes.yaw_rad[row])
        place = int(boxes.place[row])
        result.append(
            Box(
                row=row,
                frame=frame,
                category=labels[boxes.label[row]],
                center=tuple(boxes.center_m[row].tolist()),
                size_lwh=tuple(boxes.size_lwh_m[row].tolist()),
                yaw=yaw,
                score=NAN if boxes.score is None else float(boxes.score[row]),
                velocity=(NAN, NAN) if boxes.velocity_mps is None else tuple(boxes.velocity_mps[row].tolist()),
                attribute="" if boxes.attribute is None else boxes.attributes[boxes.attribute[row]],
                num_points=NAN if boxes.num_points is None else float(boxes.num_points[row]),
                rotation_wxyz=(math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
                if boxes.rotation_wxyz is None
                else tuple(boxes.rotation_wxyz[row].tolist()),
                order=(0, place) if frame_rank is None else (frame_rank.get(frame, -1), place),
            )
        )
    return result


def class_of(box: Box, protocol: Protocol) -> str | None:
    """Class that a box is evaluated as."""
    if box.category in protocol.mapping:
        return protocol.mapping[box.category]
    return box.category if box.category in protocol.labels else None


def kept(
    boxes: list[Box], ego: dict[str, tuple[float, float, float]], regions: list[Box], protocol: Protocol
) -> dict[str, list[Box]]:
    """Boxes that count, by class."""
    result: dict[str, list[Box]] = {label: [] for label in protocol.labels}
    for box in boxes:
        label = class_of(box, protocol)
        if label is None or box.frame not in ego:
            continue
        limit = next(task.range_m for task in protocol.tasks if task.label == label)
        if limit is not None and not RANGE[protocol.range_kind](box.center, ego[box.frame]) < limit:
            continue
        if protocol.drop_empty and box.num_points == 0:
            continue
        if any(
            region.frame == box.frame
            and label in protocol.regions[region.category]
            and is_inside(box.center, region.center, region.size_lwh, region.rotation_wxyz)
            for region in regions
        ):
            continue
        result[label].append(box)
    return result


def best_of_each_frame(boxes: list[Box], protocol: Protocol) -> list[Box]:
    """Of the predictions of a class those that are not over the cap of their frame."""
    taken: dict[str, int] = {}
    result = []
    for box in by_score(boxes, protocol):
        taken[box.frame] = taken.get(box.frame, 0) + 1
        if protocol.cap_per_task is None or taken[box.frame] <= protocol.cap_per_task:
            result.append(box)
    return result


# matching and curves


def by_score(pred: list[Box], protocol: Protocol) -> list[Box]:
    """Best score first; among equals the later or the earlier box."""
    sign = 1 if protocol.ties == "later_first" else -1
    return sorted(pred, key=lambda box: (box.score, sign * box.order[0], sign * box.order[1]), reverse=True)


def match_nearest_then_first(truth: list[Box], pred: list[Box], threshold: float, protocol: Protocol) -> list[Event]:
    """Let each prediction, best score first, claim the nearest truth of its frame; only the first claim can match."""
    distance = DISTANCE[protocol.affinity.kind]
    events = []
    claimed: set[int] = set()
    for box in by_score(pred, protocol):
        here = [candidate for candidate in truth if candidate.frame == box.frame]
        event = Event(box, None)
        if here:
            nearest = min(here, key=lambda candidate: distance(candidate.center, box.center))
            if nearest.row not in claimed and distance(nearest.center, box.center) < threshold:
                event = Event(box, nearest)
            claimed.add(nearest.row)
        events.append(event)
    return events


def match_nearest_free(truth: list[Box], pred: list[Box], threshold: float, protocol: Protocol) -> list[Event]:
    """Give each prediction, best score first, the nearest truth of its frame that is free."""
    distance = DISTANCE[protocol.affinity.kind]
    events = []
    taken: set[int] = set()
    for box in by_score(pred, protocol):
        best, nearest = math.inf, None
        for candidate in truth:
            if candidate.frame != box.frame or candidate.row in taken:
                continue
            here = distance(candidate.center, box.center)
            if here < best:
                best, nearest = here, candidate
        if nearest is not None and best < threshold:
            taken.add(nearest.row)
            events.append(Event(box, nearest))
        else:
            events.append(Event(box, None))
    return events


MATCH = {"nearest_free": match_nearest_free, "nearest_then_first": match_nearest_then_first}


def envelope_of(events: list[Event], n_truth: int, protocol: Protocol) -> Curve:
    """Highest precision at each recall or a later one; score and mean errors of the matches that it takes."""
    grid = np.linspace(0, 1, protocol.curve.n_samples)
    matches = [event for event in events if event.truth is not None]
    keys = [error.key for error in protocol.errors]
    confidence = np.zeros(len(grid))
    errors = {key: np.full(len(grid), NAN) for key in keys}
    if n_truth == 0 or not matches:
        return Curve(grid, np.zeros(len(grid)), confidence, errors)
    recall, precision = [], []
    n_tp = 0
    for n_seen, event in enumerate(events, start=1):
        n_tp += event.truth is not None
        precision.append(n_tp / (n_seen + 2.0**-52))
        recall.append(n_tp / n_truth)
    envelope = [max(precision[i:]) for i in range(len(precision))]
    for g, wanted in enumerate(grid.tolist()):
        enough = [n for n in range(1, len(matches) + 1) if n / n_truth >= wanted]
        needed = enough[0] if enough else len(matches)
        if enough:
            confidence[g] = matches[needed - 1].pred.score
        for i, key in enumerate(keys):
            errors[key][g] = known_mean([event.errors[i] for event in matches[:needed]])
    return Curve(grid, np.interp(grid, recall, envelope, right=0), confidence, errors)


def curve_of(events: list[Event], n_truth: int, protocol: Protocol) -> Curve:
    """Precision, confidence and mean errors over recall."""
    grid = np.linspace(0, 1, protocol.curve.n_samples)
    matches = [event for event in events if event.truth is not None]
    keys = [error.key for error in protocol.errors]
    if n_truth == 0 or not matches:
        zeros = np.zeros(len(grid))
        return Curve(grid, zeros, zeros.copy(), {key: np.ones(len(grid)) for key in keys})
    recall, precision, scores = [], [], []
    n_tp = 0
    for n_seen, event in enumerate(events, start=1):
        n_tp += event.truth is not None
        precision.append(n_tp / n_seen)
        recall.append(n_tp / n_truth)
        scores.append(event.pred.score)
    confidence = np.interp(grid, recall, scores, right=0)
    falling = [event.pred.score for event in matches]
    errors = {}
    for i, key in enumerate(keys):
        means = running_mean([event.errors[i] for event in matches])
        errors[key] = np.interp(confidence[::-1], falling[::-1], means[::-1])[::-1]
    return Curve(grid, np.interp(grid, recall, precision, right=0), confidence, errors)


CURVE = {"linear": curve_of, "envelope": envelope_of}


def average_precision(curve: Curve, protocol: Protocol) -> float:
    """Mean of the precision above the least recall and the least precision, stretched to 0…1."""
    rules = protocol.curve
    first = 0 if rules.min_recall is None else round((rules.n_samples - 1) * rules.min_recall) + 1
    counted = [max(p - rules.min_precision, 0.0) for p in curve.precision[first:].tolist()]
    return sum(counted) / len(counted) / (1 - rules.min_precision)


def plain_mean_error(events: list[Event], i: int, worst: float) -> float:
    """Mean of the i-th error over all matches of which it is known."""
    known = [e.errors[i] for e in events if e.truth is not None and not math.isnan(e.errors[i])]
    return sum(known) / len(known) if known else worst


def mean_error(curve: Curve, key: str, worst: float, protocol: Protocol) -> float:
    """Mean of what is known of an error from the least recall to the last recall that is reached."""
    rules = protocol.curve
    first = 0 if rules.min_recall is None else round((rules.n_samples - 1) * rules.min_recall) + 1
    last = -1
    for i, confidence in enumerate(curve.confidence.tolist()):
        if confidence != 0:
            last = i
    mean = known_mean(curve.errors[key][first : last + 1].tolist())
    return worst if math.isnan(mean) else mean


def score_of(error: TpError, mean: float) -> float:
    """1 for no error, 0 for one of the scale or more."""
    return NAN if math.isnan(mean) else max(0.0, 1 - mean / error.scale)


def known_mean(values: Sequence[float]) -> float:
    """Mean of what is not NaN; NaN where nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else NAN


def evaluate(
    truth: Boxes,
    pred: Boxes,
    protocol: Protocol,
    *,
    absent: str = "official",
    event_weight: np.ndarray | None = None,
    truth_weight: np.ndarray | None = None,
) -> Result:
    """Everything, from the boxes.

    ``event_weight`` (T, N_pred) and ``truth_weight`` (N_truth,) repeat each event and each truth so many times, after
    matching. With ``absent="omit"`` classes without truth are left out of all means.
    """
    rank = {name: int(place) for name, place in zip(truth.frames, truth.frame_place, strict=True)}
    ego = {name: (*xy, 0.0) for name, xy in zip(truth.frames, truth.ego_xy_m.tolist(), strict=True)}
    truth_boxes = plain_boxes(truth, protocol)
    pred_boxes = plain_boxes(pred, protocol, rank if truth.partial else None)
    regions = [box for box in truth_boxes if box.category in protocol.regions]
    truths = kept(truth_boxes, ego, regions, protocol)
    preds = kept(pred_boxes, ego, regions, protocol)
    preds = {label: best_of_each_frame(boxes, protocol) for label, boxes in preds.items()}

    result = Result(truths=truths)
    for task in protocol.tasks:
        label = task.label
        repeats = [1 if truth_weight is None else int(truth_weight[box.row]) for box in truths[label]]
        result.n_truth[label] = sum(repeats)
        for t, threshold in enumerate(protocol.affinity.thresholds):
            events = MATCH[protocol.assignment](truths[label], preds[label], threshold, protocol)
            for event in events:
                if event.truth is not None:
                    event.errors = tuple(
                        error_of(error.kind, event.truth, event.pred, task.yaw_period_rad) for error in protocol.errors
                    )
            if event_weight is not None:
                events = [event for event in events for _ in range(int(event_weight[t, event.pred.row]))]
            curve = CURVE[protocol.curve.kind](events, result.n_truth[label], protocol)
            result.events[label, threshold] = events
            result.curves[label, threshold] = curve
            result.ap[label, threshold] = average_precision(curve, protocol)
        thresholds = protocol.affinity.thresholds
        result.class_ap[label] = sum(result.ap[label, threshold] for threshold in thresholds) / len(thresholds)
        curve = result.curves[label, protocol.affinity.error_threshold]
        for i, error in enumerate(protocol.errors):
            if error.name in task.undefined:
                value = NAN
            elif result.n_truth[label] == 0:
                value = error.worst
            elif protocol.curve.error_mean == "plain":
                value = plain_mean_error(result.events[label, protocol.affinity.error_threshold], i, error.worst)
            else:
                value = mean_error(curve, error.key, error.worst, protocol)
            result.class_errors[label, error.name] = value

    counted = [label for label in protocol.labels if absent == "official" or result.n_truth[label]]
    result.mean_ap = known_mean([result.class_ap[label] for label in counted])
    for error in protocol.errors:
        mean = known_mean([result.class_errors[label, error.name] for label in counted])
        result.tp_errors[error.name] = mean
        result.tp_scores[error.name] = score_of(error, mean)
    rules = protocol.composite
    if rules.kind == "class_product":
        for label in protocol.labels:
            total, weight = 0.0, 0.0
            for error in protocol.errors:
                score = score_of(error, result.class_errors[label, error.name])
                if error.name in rules.error_weights and not math.isnan(score):
                    total += rules.error_weights[error.name] * score
                    weight += rules.error_weights[error.name]
            result.class_composite[label] = result.class_ap[label] * total / weight if weight else NAN
        result.composite = known_mean([result.class_composite[label] for label in counted])
        return result
    total = rules.map_weight * result.mean_ap
    for name, weight in rules.error_weights.items():
        total += weight * result.tp_scores[name]
    result.composite = total / (rules.map_weight + sum(rules.error_weights.values()))
    return result


# weights by physical repetition


def duplicate(truth: Boxes, pred: Boxes, counts: Sequence[int]) -> tuple[Boxes, Boxes]:
    """Frame ``i`` of truth and what was predicted in it ``counts[i]`` times over, under the names ``name#0``, …"""
    times = dict(zip(truth.frames, (int(count) for count in counts), strict=True))
    return _repeat(truth, times), _repeat(pred, times)


def _repeat(boxes: Boxes, times: dict[str, int]) -> Boxes:
    rows: list[int] = []
    frame: list[int] = []
    names: list[str] = []
    came_from: list[int] = []
    for code, name in enumerate(boxes.frames):
        for copy in range(times.get(name, 0)):
            mine = range(int(boxes.offsets[code]), int(boxes.offsets[code + 1]))
            rows.extend(mine)
            frame.extend(len(names) for _ in mine)
            names.append(f"{name}#{copy}")
            came_from.append(code)
    columns: dict[str, Any] = {"center_m": boxes.center_m, "size_lwh_m": boxes.size_lwh_m, "yaw_rad": boxes.yaw_rad}
    columns["label"] = boxes.label
    for name in ("score", "velocity_mps", "attribute", "num_points", "rotation_wxyz"):
        if getattr(boxes, name) is not None:
            columns[name] = getattr(boxes, name)
    return Boxes(
        **{name: column[rows] for name, column in columns.items()},
        labels=boxes.labels,
        attributes=boxes.attributes or None,
        frame=np.array(frame, dtype=np.int64),
        frames=names,
        ego_xy_m=boxes.ego_xy_m[came_from],
        partial=boxes.partial,
        source=boxes.source,
    )


# results in the layout of the official files, and how far two of them are apart


def summary(result: Result, protocol: Protocol) -> dict[str, Any]:
    """Numbers under the keys of ``metrics_summary.json``."""
    key = {error.name: error.key for error in protocol.errors}
    return {
        "label_aps": {
            label: {str(threshold): result.ap[label, threshold] for threshold in protocol.affinity.thresholds}
            for label in protocol.labels
        },
        "mean_dist_aps": dict(result.class_ap),
        "mean_ap": result.mean_ap,
        "label_tp_errors": {
            label: {key[name]: result.class_errors[label, name] for name in key} for label in protocol.labels
        },
        "tp_errors": {key[name]: value for name, value in result.tp_errors.items()},
        "tp_scores": {key[name]: value for name, value in result.tp_scores.items()},
        **({f"label_{protocol.composite.key}": result.class_composite} if result.class_composite else {}),
        protocol.composite.key: result.composite,
    }


def details(result: Result) -> dict[str, dict[str, list[float]]]:
    """Curves under the keys of ``metrics_details.json``."""
    return {
        f"{label}:{threshold}": {
            "recall": curve.recall.tolist(),
            "precision": curve.precision.tolist(),
            "confidence": curve.confidence.tolist(),
            **{key: error.tolist() for key, error in curve.errors.items()},
        }
        for (label, threshold), curve in result.curves.items()
    }


#: Keys of the numbers of a summary; it holds the configuration and times, too.
NUMBERS = ("label_aps", "mean_dist_aps", "mean_ap", "label_tp_errors", "tp_errors", "tp_scores", "nd_score")


def numbers(summary: dict[str, Any]) -> dict[str, Any]:
    """The part of a summary that is numbers."""
    return {name: summary[name] for name in NUMBERS}


def apart(got: Any, expected: Any, tolerance: float = 1e-12, path: str = "") -> list[str]:
    """Where two nested values differ by more than the tolerance, or in their keys; NaN (or None) equals NaN."""
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) != set(expected):
            return [f"{path}: keys {sorted(got)} instead of {sorted(expected)}"]
        return [line for key in expected for line in apart(got[key], expected[key], tolerance, f"{path}/{key}")]
    if isinstance(expected, list | tuple | np.ndarray):
        if len(got) != len(expected):
            return [f"{path}: {len(got)} values instead of {len(expected)}"]
        pairs = enumerate(zip(got, expected, strict=True))
        return [line for i, (g, e) in pairs for line in apart(g, e, tolerance, f"{path}/{i}")]
    if isinstance(expected, bool | str):
        return [] if got == expected else [f"{path}: {got!r} instead of {expected!r}"]
    g, e = (NAN if value is None else float(value) for value in (got, expected))
    if math.isnan(g) and math.isnan(e):
        return []
    return [] if abs(g - e) <= tolerance else [f"{path}: {g!r} instead of {e!r}"]


# slices and intervals


def shard_weights(
    truth: Boxes,
    pred: Boxes,
    protocol: Protocol,
    truth_shard: Sequence[str],
    pred_shard: Sequence[str] | None,
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the slice ``name``: of events (T, N_pred) and truths (N_truth,).

    ``truth_shard`` and ``pred_shard`` say where each row belongs; None: only truth knows. Then an unmatched prediction
    counts everywhere, but not where a truth of another slice lies within the loosest threshold, as the protocol
    measures distances.
    """
    whole = evaluate(truth, pred, protocol)
    distance = DISTANCE[protocol.affinity.kind]
    truth_weight = np.array([1 if shard == name else 0 for shard in truth_shard], dtype=np.int64).reshape(-1)
    thresholds = protocol.affinity.thresholds
    event_weight = np.zeros((len(thresholds), len(pred)), np.int64)
    for (label, threshold), events in whole.events.items():
        t = thresholds.index(threshold)
        for event in events:
            if event.truth is not None:
                counts = truth_shard[event.truth.row] == name
            elif pred_shard is not None:
                counts = pred_shard[event.pred.row] == name
            else:
                others = [
                    box
                    for box in whole.truths[label]
                    if box.frame == event.pred.frame
                    and truth_shard[box.row] != name
                    and distance(box.center, event.pred.center) < thresholds[-1]
                ]
                counts = not others
            event_weight[t, event.pred.row] = int(counts)
    return event_weight, truth_weight


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest of the sorted values."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def bca(value: float, replicates: Sequence[float], left_out: Sequence[float], level: float) -> tuple[float, float]:
    """Bias-corrected and accelerated limits, Efron and Tibshirani 1993, equations 14.9 to 14.15."""
    normal = NormalDist()
    below = sum(1.0 if r < value else 0.5 if r == value else 0.0 for r in replicates)
    z0 = normal.inv_cdf((below + 0.5) / (len(replicates) + 1))
    mean = sum(left_out) / len(left_out)
    cubes, squares = sum((mean - x) ** 3 for x in left_out), sum((mean - x) ** 2 for x in left_out)
    a = cubes / (6 * squares**1.5) if squares else 0.0
    limits = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = normal.inv_cdf(tail)
        limits.append(quantile(replicates, normal.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))))
    return limits[0], limits[1]


def keep_far(center: Sequence[Sequence[float]], label: Sequence[int], radius: Sequence[float]) -> list[bool]:
    """Which boxes, the best first, stay: none nearer than its label's radius to a better one of its label that stays."""
    kept: list[int] = []
    for i in range(len(label)):
        if all(label[k] != label[i] or ground_distance(center[i], center[k]) >= radius[label[i]] for k in kept):
            kept.append(i)
    return [i in kept for i in range(len(label))]
