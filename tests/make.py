"""Small seeded scenes for tests of the core, with every oddity that the rules have an opinion on.

Only numpy and Boxes. The bigger world, with tracks, ego motion and tables, is :mod:`detmetrics.synth`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from detmetrics.boxes import Boxes

RANGE_M = {
    "car": 50,
    "truck": 50,
    "bus": 50,
    "trailer": 50,
    "construction_vehicle": 50,
    "pedestrian": 40,
    "motorcycle": 40,
    "bicycle": 40,
    "traffic_cone": 30,
    "barrier": 30,
}
CLASSES = tuple(RANGE_M)
TRUCK_RANGE_M = {  # MAN TruckScenes
    **dict.fromkeys(("car", "truck", "bus", "trailer", "other_vehicle"), 150),
    **dict.fromkeys(("pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier", "animal", "traffic_sign"), 75),
}
TRUCK_CLASSES = tuple(TRUCK_RANGE_M)
CATEGORIES = {  # nuScenes categories of each class
    "car": ("vehicle.car",),
    "truck": ("vehicle.truck",),
    "bus": ("vehicle.bus.bendy", "vehicle.bus.rigid"),
    "trailer": ("vehicle.trailer",),
    "construction_vehicle": ("vehicle.construction",),
    "pedestrian": ("human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.police_officer"),
    "motorcycle": ("vehicle.motorcycle",),
    "bicycle": ("vehicle.bicycle",),
    "traffic_cone": ("movable_object.trafficcone",),
    "barrier": ("movable_object.barrier",),
    # MAN TruckScenes alone
    "other_vehicle": ("vehicle.construction", "vehicle.other"),
    "animal": ("animal",),
    "traffic_sign": ("static_object.traffic_sign",),
}
IGNORED = ("animal", "human.pedestrian.stroller", "vehicle.emergency.police")
RACK = "static_object.bicycle_rack"
VEHICLE = ("vehicle.moving", "vehicle.parked", "vehicle.stopped")
ATTRIBUTES = {
    **dict.fromkeys(("car", "truck", "bus", "trailer", "construction_vehicle"), VEHICLE),
    "pedestrian": ("pedestrian.moving", "pedestrian.sitting_lying_down", "pedestrian.standing"),
    "motorcycle": ("cycle.with_rider", "cycle.without_rider"),
    "bicycle": ("cycle.with_rider", "cycle.without_rider"),
    "traffic_cone": ("",),
    "barrier": ("",),
    "other_vehicle": VEHICLE,
    "animal": ("",),
    "traffic_sign": ("traffic_sign.pole_mounted", "traffic_sign.overhanging", "traffic_sign.temporary"),
}
SIZE_LWH_M = {
    "car": (4.6, 1.9, 1.7),
    "truck": (6.9, 2.5, 2.8),
    "bus": (11.1, 2.9, 3.5),
    "trailer": (12.3, 2.9, 3.9),
    "construction_vehicle": (6.4, 2.8, 3.2),
    "pedestrian": (0.7, 0.7, 1.8),
    "motorcycle": (2.1, 0.8, 1.5),
    "bicycle": (1.7, 0.6, 1.3),
    "traffic_cone": (0.4, 0.4, 1.1),
    "barrier": (0.5, 2.5, 1.0),
    "other_vehicle": (6.4, 2.8, 3.2),
    "animal": (0.9, 0.4, 0.6),
    "traffic_sign": (0.1, 0.8, 0.8),
}
THRESHOLDS_M = (0.5, 1.0, 2.0, 4.0)


class _Columns:
    """Rows under construction."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> dict[str, Any]:
        self.rows.append(row)
        return row


def scene(
    seed: int | np.random.Generator,
    *,
    n_frames: int = 4,
    n_truth: int = 10,
    n_false: int = 6,
    classes: tuple[str, ...] = CLASSES,
    absent: tuple[str, ...] = (),
    unseen: tuple[str, ...] = (),
    spread_m: float = 30.0,
    noise_m: float = 0.8,
    recall: float = 0.8,
    doubles: float = 0.2,
    score_digits: int | None = None,
    grid_m: float | None = None,
    empty: float = 0.0,
    nan_velocity: float = 0.1,
    nan_first: bool = False,
    nan_last: bool = False,
    no_attribute: float = 0.1,
    zero_points: float = 0.1,
    pred_points: bool = False,
    racks: int = 0,
    edges: bool = False,
    extreme_scores: bool = False,
    shuffle_frames: bool = True,
    partial: bool = False,
    extra_frames: int = 0,
    raw: bool = True,
    decimals: int | None = None,
    far_m: float = 1000.0,
    range_m: dict[str, int] | None = None,
) -> tuple[Boxes, Boxes]:
    """Make truth and predictions.

    Parameters
    ----------
    seed : int or numpy.random.Generator
        The same seed and knobs give the same boxes.
    n_frames, n_truth, n_false : int
        Frames; at most so many truths and false detections in each.
    classes, absent, unseen : tuple of str
        Classes in play; those that truth lacks; those that predictions lack.
    spread_m, noise_m : float
        Boxes lie within this distance in x and y of ego; detections lie off by about the noise.
    recall, doubles : float
        Chance that a truth is found, and that it is found once more.
    score_digits : int, optional
        Round scores, so that many are equal.
    grid_m : float, optional
        Put all centres on a grid, so that many distances are equal.
    empty : float
        Chance that a frame has no truth, and, separately, no predictions.
    nan_velocity : float
        Chance of an unknown velocity, on either side.
    nan_first, nan_last : bool
        Leave out the velocities of the predictions with the highest or lowest scores.
    no_attribute, zero_points : float
        Chance that a truth has no attribute, or no points.
    pred_points : bool
        Predictions have point counts, too, some of them 0.
    racks : int
        Bicycle racks in each frame, tilted, with bicycles and motorcycles in and over them.
    edges : bool
        Add boxes exactly at the range of their class, and pairs exactly at each threshold.
    extreme_scores : bool
        Some scores are exactly 0, some are above 1.
    shuffle_frames : bool
        Predictions come in another order of frames.
    partial : bool
        Truth is part of a larger set (as in custom splits).
    extra_frames : int
        Frames with predictions that truth does not have; needs ``partial``.
    raw : bool
        Truth has nuScenes categories, some of them not evaluated, instead of classes.
    decimals : int, optional
        Round every column, so that it is short in a file.
    far_m : float
        How far from the origin ego may be.
    range_m : dict, optional
        Range of each class for ``edges``; default: that of nuScenes.
    """
    rng = np.random.default_rng(seed)
    found_classes = [name for name in classes if name not in unseen]
    true_classes = [name for name in classes if name not in absent]
    truth, pred = _Columns(), _Columns()
    frames = [f"frame-{i:02d}" for i in range(n_frames)]
    ego = np.round(rng.uniform(-far_m, far_m, (n_frames + extra_frames, 2)))  # whole metres: exact edges are possible
    scores = iter(lambda: float(rng.uniform(0.02, 0.98)), None)

    def place(f: int) -> tuple[float, float, float]:
        x, y = ego[f] + rng.uniform(-spread_m, spread_m, 2)
        return _snap(x, grid_m), _snap(y, grid_m), float(rng.normal(0, 0.5))

    def detect(f: int, of: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Add an imperfect detection of a truth."""
        x, y, z = of["center"]
        label = of["label"]
        if label not in found_classes:
            return {}
        if rng.random() < 0.05:
            label = str(rng.choice(found_classes))
        row = {
            "center": (
                _snap(x + noise_m * rng.normal(), grid_m),
                _snap(y + noise_m * rng.normal(), grid_m),
                z + 0.1 * float(rng.normal()),
            ),
            "size": tuple(s * float(rng.uniform(0.8, 1.25)) for s in of["size"]),
            "yaw": of["yaw"] + float(rng.normal(0, 0.3)) + (math.pi if rng.random() < 0.1 else 0.0),
            "label": label,
            "score": next(scores),
            "velocity": _velocity(rng, nan_velocity, of["true_velocity"]),
            "attribute": str(rng.choice(ATTRIBUTES[label])) if rng.random() < 0.4 else of["true_attribute"],
            "points": float(rng.integers(0, 4)),
            "frame": f,
        }
        return pred.add(**{**row, **changes})

    def exist(f: int, label: str, **changes: Any) -> dict[str, Any]:
        """Add a truth."""
        velocity = (0.0, 0.0) if rng.random() < 0.3 else tuple(float(v) for v in rng.normal(0, 3, 2))
        attribute = str(rng.choice(ATTRIBUTES[label]))
        row = {
            "center": place(f),
            "size": tuple(s * float(rng.uniform(0.9, 1.1)) for s in SIZE_LWH_M[label]),
            "yaw": float(rng.uniform(-math.pi, math.pi)),
            "label": label,
            "category": str(rng.choice(CATEGORIES[label])) if raw else label,
            "true_velocity": velocity,
            "velocity": _velocity(rng, nan_velocity, velocity, noise=0.0),
            "true_attribute": attribute,
            "attribute": "" if rng.random() < no_attribute else attribute,
            "points": 0.0 if rng.random() < zero_points else float(rng.integers(1, 50)),
            "frame": f,
        }
        return truth.add(**{**row, **changes})

    for f in range(n_frames):
        true_empty, pred_empty = rng.random(2) < empty
        if not true_empty and true_classes:
            for _ in range(rng.integers(0, n_truth + 1)):
                box = exist(f, str(rng.choice(true_classes)))
                while not pred_empty and rng.random() < (recall if box.get("found", 0) == 0 else doubles):
                    box["found"] = box.get("found", 0) + 1
                    detect(f, box)
            if raw and rng.random() < 0.5:
                exist(f, "car", category=str(rng.choice(IGNORED)))
            for _ in range(racks):
                _add_rack(rng, f, place(f), truth, exist, detect, pred_empty, found_classes, absent)
        if not pred_empty and found_classes:
            for _ in range(rng.integers(0, n_false + 1)):
                label = str(rng.choice(found_classes))
                nothing = {"center": place(f), "size": SIZE_LWH_M[label], "yaw": 0.0, "label": label}
                detect(f, {**nothing, "true_velocity": (0.0, 0.0), "true_attribute": ATTRIBUTES[label][0]})
        if edges and not true_empty and not pred_empty:
            _add_edges(rng, f, ego[f], true_classes, range_m or RANGE_M, exist, detect)
    for f in range(n_frames, n_frames + extra_frames):
        for label in found_classes[:3]:
            nothing = {"center": place(f), "size": SIZE_LWH_M[label], "yaw": 0.0, "label": label}
            detect(f, {**nothing, "true_velocity": (0.0, 0.0), "true_attribute": ATTRIBUTES[label][0]})

    rows = pred.rows
    if extreme_scores:
        for row in rows:
            chance = rng.random()
            row["score"] = 0.0 if chance < 0.1 else row["score"] * 5 if chance < 0.25 else row["score"]
    if score_digits is not None:
        for row in rows:
            row["score"] = round(row["score"], score_digits)
    by_score = sorted(rows, key=lambda row: -row["score"])
    for row in (by_score[: len(rows) // 4] if nan_first else []) + (by_score[-len(rows) // 4 :] if nan_last else []):
        row["velocity"] = (math.nan, math.nan)

    order = rng.permutation(n_frames + extra_frames) if shuffle_frames else np.arange(n_frames + extra_frames)
    names = [*frames, *(f"extra-{i}" for i in range(extra_frames))]
    for f in range(n_frames + extra_frames):  # positions within a frame, as a detector would mix them
        mine = [i for i, row in enumerate(rows) if row["frame"] == f]
        mixed = [rows[i] for i in rng.permutation(mine)]
        for i, row in zip(mine, mixed, strict=True):
            rows[i] = row
    new_code = {int(f): i for i, f in enumerate(order)}
    pred_rows = sorted(rows, key=lambda row: new_code[row["frame"]])
    return (
        _boxes(
            truth.rows,
            decimals,
            label=[row["category"] for row in truth.rows],
            rotation_wxyz=[row.get("rotation", _upright(row["yaw"])) for row in truth.rows],
            num_points=[row["points"] for row in truth.rows],
            frame=[frames[row["frame"]] for row in truth.rows],
            frames=frames,
            ego_xy_m=ego[:n_frames],
            partial=partial,
            source="truth",
        ),
        _boxes(
            pred_rows,
            decimals,
            label=[row["label"] for row in pred_rows],
            score=[row["score"] for row in pred_rows],
            num_points=[row["points"] for row in pred_rows] if pred_points else None,
            frame=[names[row["frame"]] for row in pred_rows],
            frames=[names[f] for f in order],
            source="pred",
        ),
    )


def _add_rack(
    rng: np.random.Generator,
    f: int,
    center: tuple[float, float, float],
    truth: _Columns,
    exist: Any,
    detect: Any,
    pred_empty: bool,
    found: list[str],
    absent: tuple[str, ...],
) -> None:
    """Add a tilted rack; in it and above it a few cycles, true and detected."""
    yaw, tilt, axis = rng.uniform(-math.pi, math.pi), rng.normal(0, 0.3), rng.uniform(-math.pi, math.pi)
    turn = np.array(_upright(yaw))
    lean = (math.cos(tilt / 2), math.sin(tilt / 2) * math.cos(axis), math.sin(tilt / 2) * math.sin(axis), 0.0)
    rotation = _product(tuple(turn), lean)
    if rng.random() < 0.5:
        rotation = tuple(2.5 * q for q in rotation)  # length does not matter
    length = float(rng.uniform(2, 8))
    truth.add(
        center=center,
        size=(length, 1.6, 1.4),
        yaw=_heading(rotation),
        rotation=rotation,
        label="",
        category=RACK,
        velocity=(math.nan, math.nan),
        attribute="",
        points=float(rng.integers(0, 3)),
        frame=f,
    )
    for _ in range(4):
        label = str(rng.choice(["bicycle", "motorcycle", "pedestrian"]))
        spot = tuple(
            c + float(rng.uniform(-1, 1)) * reach for c, reach in zip(center, (length * 0.6, 1.2, 1.0), strict=True)
        )
        if label not in absent:
            exist(f, label, center=spot)
        if not pred_empty and label in found:
            whole = {"center": spot, "size": SIZE_LWH_M[label], "yaw": 0.0, "label": label}
            whole |= {"true_velocity": (0.0, 0.0), "true_attribute": ATTRIBUTES[label][0]}
            detect(f, whole, center=tuple(s + float(rng.normal(0, 0.2)) for s in spot), label=label)


def _add_edges(
    rng: np.random.Generator,
    f: int,
    ego: np.ndarray,
    labels: list[str],
    range_m: dict[str, int],
    exist: Any,
    detect: Any,
) -> None:
    """Add boxes exactly at the range and just within it, and pairs exactly at a threshold and just nearer."""
    for label in labels:
        limit = range_m[label]
        dx, dy = (0.6, 0.8) if limit % 5 == 0 else (1.0, 0.0)
        for shrink in (0.0, 2.0**-20):
            x, y = float(ego[0]) + round(dx * limit), float(ego[1]) + round(dy * limit) - shrink
            for truth_there, pred_there in ((True, True), (True, False), (False, True)):
                if rng.random() < 0.3:
                    box = {"center": (x, y, 0.0), "size": SIZE_LWH_M[label], "yaw": 0.0, "label": label}
                    box |= {"true_velocity": (0.0, 0.0), "true_attribute": ATTRIBUTES[label][0]}
                    if truth_there:
                        exist(f, label, center=(x, y, 0.0))
                    if pred_there:
                        detect(f, box, center=(x, y, 0.0), label=label)
        if rng.random() < 0.7:
            threshold = float(rng.choice(THRESHOLDS_M)) - float(rng.choice([0.0, 2.0**-20]))
            x, y = float(ego[0] + rng.integers(-15, 15)), float(ego[1] + rng.integers(-15, 15))
            box = exist(f, label, center=(x, y, 0.0))
            detect(f, box, center=(x + threshold, y, 0.0), label=label)


def _snap(value: float, grid: float | None) -> float:
    return float(value) if grid is None else float(round(value / grid) * grid)


def _velocity(
    rng: np.random.Generator, unknown: float, true: tuple[float, float], noise: float = 0.5
) -> tuple[float, float]:
    chance, dx, dy = rng.random(), *rng.normal(0, 1, 2)
    return (math.nan, math.nan) if chance < unknown else (true[0] + noise * float(dx), true[1] + noise * float(dy))


def _upright(yaw: float) -> tuple[float, float, float, float]:
    return math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)


def _product(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, float, float]:
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )


def _heading(rotation: tuple[float, ...]) -> float:
    w, x, y, z = rotation
    return math.atan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)


def _boxes(rows: list[dict[str, Any]], decimals: int | None, **columns: Any) -> Boxes:
    n = len(rows)
    columns |= {
        "center_m": np.array([row["center"] for row in rows]).reshape(n, 3),
        "size_lwh_m": np.array([row["size"] for row in rows]).reshape(n, 3),
        "yaw_rad": np.array([row["yaw"] for row in rows]).reshape(n),
        "velocity_mps": np.array([row["velocity"] for row in rows]).reshape(n, 2),
        "attribute": [row["attribute"] for row in rows],
    }
    for name in ("rotation_wxyz",):
        if name in columns:
            columns[name] = np.array(columns[name]).reshape(n, 4)
    if decimals is not None:
        for name in ("center_m", "size_lwh_m", "yaw_rad", "velocity_mps", "score", "rotation_wxyz"):
            if columns.get(name) is not None:
                columns[name] = np.round(columns[name], decimals)
        if "rotation_wxyz" in columns:
            columns["yaw_rad"] = np.array([_heading(tuple(q)) for q in columns["rotation_wxyz"].tolist()]).reshape(n)
    return Boxes(**columns)


def to_columns(boxes: Boxes) -> dict[str, Any]:
    """Plain values, in the order of the rows, that :func:`from_columns` makes the same boxes of; NaN becomes None."""
    columns: dict[str, Any] = {}
    for name in ("center_m", "size_lwh_m", "yaw_rad", "velocity_mps", "score", "num_points", "rotation_wxyz"):
        column = getattr(boxes, name)
        if column is not None:
            columns[name] = _without_nan(column.tolist())
    assert boxes.labels is not None
    columns["label"], columns["labels"] = boxes.label.tolist(), list(boxes.labels)
    if boxes.attribute is not None:
        columns["attribute"], columns["attributes"] = boxes.attribute.tolist(), list(boxes.attributes)
    columns["frame"], columns["frames"] = boxes.frame.tolist(), list(boxes.frames)
    columns["ego_xy_m"] = boxes.ego_xy_m.tolist()
    columns["partial"], columns["source"] = boxes.partial, boxes.source
    return columns


def from_columns(columns: dict[str, Any]) -> Boxes:
    """Boxes of :func:`to_columns`."""
    given = dict(columns)
    for name in ("velocity_mps", "num_points"):
        if name in given:
            given[name] = np.array(given[name], dtype=np.float64)
    for name in ("label", "attribute", "frame"):
        if name in given:
            given[name] = np.array(given[name], dtype=np.int64)
    return Boxes(**given)


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if value != value else value


# Argoverse 2: boxes in the ego frame, heights count, a cap, claims on far truths

SWEEP_CLASSES = ("REGULAR_VEHICLE", "PEDESTRIAN", "BUS", "BOLLARD")
SWEEP_SIZE_LWH_M = {
    "REGULAR_VEHICLE": (4.6, 1.9, 1.7),
    "PEDESTRIAN": (0.7, 0.7, 1.8),
    "BUS": (12.0, 3.0, 3.3),
    "BOLLARD": (0.3, 0.3, 1.0),
    "DOG": (0.9, 0.4, 0.6),
}


def sweeps(
    seed: int | np.random.Generator,
    *,
    n_frames: int = 5,
    n_truth: int = 8,
    n_false: int = 6,
    classes: tuple[str, ...] = SWEEP_CLASSES,
    absent: tuple[str, ...] = (),
    unseen: tuple[str, ...] = (),
    spread_m: float = 40.0,
    noise_m: float = 0.8,
    hogs: float = 0.2,
    empty: float = 0.1,
    crowd: int = 0,
    edges: bool = False,
    tilted: bool = False,
    grid_m: float | None = None,
    score_digits: int | None = None,
    zero_points: float = 0.1,
) -> tuple[Boxes, Boxes]:
    """Make truth and predictions of sweeps in the ego frame.

    Parameters
    ----------
    seed, n_frames, n_truth, n_false, classes, absent, unseen, spread_m, noise_m, empty, zero_points
        As for :func:`scene`.
    hogs : float
        Chance that a truth is also claimed by a detection with a higher score that lies 3 to 30 m away.
    crowd : int
        So many more detections of one class in one frame, some of them out of range.
    edges : bool
        Add boxes at 150 m, and pairs at each threshold, exactly and just nearer, also by height alone.
    tilted : bool
        Boxes are turned in space, not only about z.
    grid_m : float, optional
        Put all centres on a grid, so that many distances are equal.
    score_digits : int, optional
        Round scores, so that many are equal; otherwise all are distinct.
    """
    rng = np.random.default_rng(seed)
    seen = [label for label in classes if label not in unseen]
    rows: dict[str, list[dict[str, Any]]] = {"truth": [], "pred": []}

    def add(side: str, f: int, label: str, center: Any, score: float = math.nan, size: Any = None) -> None:
        spin = np.array([1.0, *(rng.normal(0, 0.4 if tilted else 0.0, 2)), rng.normal(0, 2)])
        if tilted and rng.random() < 0.1:
            spin = np.array([math.sqrt(0.5), 0.0, math.copysign(math.sqrt(0.5), rng.normal()), 0.0])
        factor = rng.uniform(0.7, 1.4, 3) if size is None else 1.0
        x, y, z = (_snap(float(value), grid_m) for value in center)
        rows[side].append(
            {
                "center": (x, y, z),
                "size": tuple(np.array(SWEEP_SIZE_LWH_M[label]) * factor),
                "rotation": tuple(spin * rng.uniform(0.5, 2)),
                "label": label,
                "score": score,
                "points": 0.0 if rng.random() < zero_points else float(rng.integers(1, 40)),
                "frame": f,
            }
        )

    for f in range(n_frames):
        truth_empty, pred_empty = rng.random(2) < empty
        for _ in range(0 if truth_empty else int(rng.integers(0, n_truth + 1))):
            label = str(rng.choice([c for c in classes if c not in absent]))
            center = np.array([*rng.uniform(-spread_m, spread_m, 2), rng.normal(0, 1)])
            add("truth", f, label, center)
            if pred_empty or label not in seen:
                continue
            score = float(rng.uniform(0.05, 0.9))
            if rng.random() < 0.8:
                add("pred", f, label, center + rng.normal(0, noise_m, 3), score)
            if rng.random() < 0.3:
                add("pred", f, label, center + rng.normal(0, 2 * noise_m, 3), float(rng.uniform(0.05, 0.9)))
            if rng.random() < hogs:
                angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(3, 30)
                away = (far * math.cos(angle), far * math.sin(angle), 0.0)
                add("pred", f, label, center + away, score + float(rng.uniform(0, 0.1)))
        for _ in range(0 if pred_empty else int(rng.integers(0, n_false + 1))):
            center = np.array([*rng.uniform(-spread_m, spread_m, 2), rng.normal(0, 1)])
            add("pred", f, str(rng.choice(seen)), center, float(rng.uniform(0.05, 0.9)))
    for _ in range(crowd):
        center = np.array([*rng.uniform(-170, 170, 2), rng.normal(0, 2)])
        add("pred", 0, seen[0], center, float(rng.uniform(0.05, 0.9)))
        if rng.random() < 0.2:
            add("truth", 0, seen[0], center + rng.normal(0, 0.5, 3))
    if edges:
        for label in seen:
            for shrink in (0.0, 2.0**-20):
                for direction in ((0.6, 0.8, 0.0), (0.0, 0.6, 0.8), (1.0, 0.0, 0.0)):
                    at = 150.0 * np.array(direction) - np.array((0, shrink, 0) if direction[0] < 1 else (shrink, 0, 0))
                    for side in ("truth", "pred"):
                        if rng.random() < 0.7:
                            add(side, int(rng.integers(n_frames)), label, at, float(rng.uniform(0.05, 0.9)))
            for threshold in THRESHOLDS_M:
                base = np.round(rng.uniform(-40, 40, 3))
                f = int(rng.integers(n_frames))
                step = threshold - float(rng.choice([0.0, 2.0**-20]))
                add("truth", f, label, base)
                axis = int(rng.integers(3))
                add("pred", f, label, base + step * np.eye(3)[axis], float(rng.uniform(0.05, 0.9)))
    if score_digits is not None:
        for row in rows["pred"]:
            row["score"] = round(row["score"], score_digits)
    frames = [f"log-{f % 2}:{1000 + f}" for f in range(n_frames)]
    frames.sort()

    def boxes(side: str) -> Boxes:
        mine = [rows[side][i] for i in rng.permutation(len(rows[side]))]
        mine.sort(key=lambda row: row["frame"])
        rotation = np.array([row["rotation"] for row in mine]).reshape(-1, 4)
        return Boxes(
            center_m=[row["center"] for row in mine],
            size_lwh_m=[row["size"] for row in mine],
            yaw_rad=[_z_angle(row["rotation"]) for row in mine],
            rotation_wxyz=rotation if len(mine) else None,
            label=[row["label"] for row in mine],
            score=[row["score"] for row in mine] if side == "pred" else None,
            num_points=[row["points"] for row in mine] if side == "truth" else None,
            frame=np.array([row["frame"] for row in mine], np.int64),
            frames=frames,
            source=side,
        )

    return boxes("truth"), boxes("pred")


def _z_angle(rotation: tuple[float, ...]) -> float:
    """z angle of extrinsic x, y, z Euler angles; 0 where the pitch is 90 degrees up or down."""
    w, x, y, z = np.array(rotation) / np.linalg.norm(rotation)
    sine = 2 * (w * y - x * z)
    if abs(sine) > 1 - 1e-14:
        return 0.0
    return math.atan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)
