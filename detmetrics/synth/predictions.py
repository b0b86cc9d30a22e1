"""An imperfect detector: predictions made from the truth of a scene, and the official result file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detmetrics.errors import InputError
from detmetrics.files import whole_file
from detmetrics.geometry import rotation_of_yaw, wrap_angle, yaw_of_rotation
from detmetrics.protocols import NUSCENES
from detmetrics.synth.categories import (
    ATTRIBUTES,
    CATEGORY_NAMES,
    CLASS_OF_KIND,
    CLASSES,
    KINDS,
    Floats,
    Ints,
    attributes_of,
)
from detmetrics.synth.scenes import PREDICTIONS, SPLITS, Scene, Split, stream
from detmetrics.synth.tables import Progress, read_plan

_MAX_BOXES = NUSCENES.max_boxes_per_frame or 500
_META = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}

_LOOKS_LIKE = {  # ignored categories that a detector takes for something that is evaluated
    "human.pedestrian.wheelchair": "pedestrian",
    "human.pedestrian.stroller": "pedestrian",
    "human.pedestrian.personal_mobility": "pedestrian",
    "vehicle.emergency.ambulance": "truck",
    "vehicle.emergency.police": "car",
    "movable_object.pushable_pullable": "pedestrian",
    "movable_object.debris": "barrier",
}
_CONFUSED_WITH = {
    "car": ("truck", "truck"),
    "truck": ("car", "bus"),
    "bus": ("truck", "trailer"),
    "trailer": ("truck", "bus"),
    "construction_vehicle": ("truck", "trailer"),
    "pedestrian": ("bicycle", "traffic_cone"),
    "motorcycle": ("bicycle", "bicycle"),
    "bicycle": ("motorcycle", "pedestrian"),
    "traffic_cone": ("barrier", "pedestrian"),
    "barrier": ("traffic_cone", "car"),
}


@dataclass(frozen=True)
class Detector:
    """How good the made-up detector is; see :func:`write_predictions`."""

    boxes_per_sample: int
    quality: float = 1.0
    score_decimals: int | None = None
    nan_velocity_share: float = 0.0

    def check(self) -> None:
        """Refuse settings out of range, as InputError."""
        if not 0 <= self.boxes_per_sample <= _MAX_BOXES:
            raise InputError("boxes_per_sample", expected=f"from 0 to {_MAX_BOXES}", got=self.boxes_per_sample)
        if not 0 < self.quality <= 1:
            raise InputError("quality", expected="above 0 and at most 1", got=self.quality)
        if self.score_decimals is not None and self.score_decimals < 1:
            raise InputError("score_decimals", expected="at least 1, or None", got=self.score_decimals)
        if not 0 <= self.nan_velocity_share <= 1:
            raise InputError("nan_velocity_share", expected="from 0 to 1", got=self.nan_velocity_share)


@dataclass(frozen=True, eq=False)
class Detections:
    """Predicted boxes of one scene as columns (N,), sample by sample; ``attribute`` is -1 for none."""

    sample: Ints
    label: Ints
    center_m: Floats
    size_lwh_m: Floats
    yaw_rad: Floats
    velocity_mps: Floats
    attribute: Ints
    score: Floats


@dataclass(frozen=True)
class PredictionSummary:
    """What :func:`write_predictions` wrote."""

    path: Path
    n_samples: int
    n_boxes: int


def write_predictions(
    dataset_dir: str | os.PathLike[str],
    out_json: str | os.PathLike[str],
    *,
    split: str,
    seed: int = 0,
    boxes_per_sample: int = 200,
    quality: float = 1.0,
    score_decimals: int | None = None,
    nan_velocity_share: float = 0.0,
    progress: Progress | None = None,
) -> PredictionSummary:
    """Write the predictions of an imperfect detector for a split as an official nuScenes result file.

    The boxes are jittered truth with misses, duplicates, confused classes and turned headings, and clutter; wrong boxes
    tend to have low scores. The truth is made again from the data set's seed. The same arguments give the same bytes.

    Parameters
    ----------
    dataset_dir : path
        What :func:`write_dataset` wrote.
    out_json : path
        File to write, replaced where it exists. It appears when everything is written, or not at all.
    split : str
        ``"synth_train"`` or ``"synth_val"``.
    seed : int
        Zero or more; another seed is another detector of the same quality.
    boxes_per_sample : int
        Mean number of boxes of a sample, 0 to 500; the real number varies and never exceeds 500.
    quality : float
        1 is a good detector; towards 0 it misses more, is less exact and mixes up right and wrong more.
    score_decimals : int, optional
        Round the scores, which makes ties.
    nan_velocity_share : float
        Share of boxes with unknown velocity, written as bare ``NaN`` as Python's json does.
    progress : callable, optional
        Called as ``progress(done, total)`` after each scene.

    Returns
    -------
    PredictionSummary

    Raises
    ------
    InputError
        Where there is no such data set or split, or a setting is out of range.
    """
    detector = Detector(boxes_per_sample, quality, score_decimals, nan_velocity_share)
    detector.check()
    plan = read_plan(dataset_dir)
    known = _split(split)
    if not plan.n_scenes(known):
        raise InputError(f"{dataset_dir} has no scenes in split {split!r}")
    path = Path(out_json).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    n_samples = n_boxes = 0
    with whole_file(path) as file:
        file.write(f'{{"meta": {json.dumps(_META)}, "results": {{'.encode())
        for done, scene in enumerate(plan.scenes(known), start=1):
            found = detect(scene, detector, seed)
            for token, boxes in _result_rows(scene, found):
                file.write(f'{", " if n_samples else ""}"{token}": {json.dumps(boxes)}'.encode())
                n_samples, n_boxes = n_samples + 1, n_boxes + len(boxes)
            if progress is not None:
                progress(done, plan.n_scenes(known))
        file.write(b"}}")
    return PredictionSummary(path, n_samples, n_boxes)


def _split(name: str) -> Split:
    for split in SPLITS:
        if split == name:
            return split
    raise InputError("split", expected=f"one of {SPLITS}", got=name)


def _result_rows(scene: Scene, found: Detections) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Sample tokens and their boxes as the result file wants them."""
    names = [*ATTRIBUTES, ""]  # code -1 is none
    columns = [
        column.tolist()
        for column in (
            found.center_m,
            found.size_lwh_m[:, [1, 0, 2]],
            rotation_of_yaw(found.yaw_rad),
            found.velocity_mps,
            found.label,
            found.score,
            found.attribute,
        )
    ]
    offsets = np.searchsorted(found.sample, np.arange(len(scene.sample_token) + 1)).tolist()
    for token, start, stop in zip(scene.sample_token, offsets[:-1], offsets[1:], strict=True):
        yield (
            token,
            [
                {
                    "sample_token": token,
                    "translation": center,
                    "size": size,
                    "rotation": rotation,
                    "velocity": velocity,
                    "detection_name": CLASSES[label],
                    "detection_score": score,
                    "attribute_name": names[attribute],
                }
                for center, size, rotation, velocity, label, score, attribute in zip(
                    *(column[start:stop] for column in columns), strict=True
                )
            ],
        )


_CLASS_OF_KIND = np.array(
    [CLASSES.index(_LOOKS_LIKE[n]) if n in _LOOKS_LIKE else CLASS_OF_KIND[k] for k, n in enumerate(CATEGORY_NAMES)]
)
_OTHER_CLASS = np.array([[CLASSES.index(other) for other in _CONFUSED_WITH[label]] for label in CLASSES])
_DENSITY = np.array(
    [sum(k.per_sample for k, c in zip(KINDS, CLASS_OF_KIND, strict=True) if c == code) for code in range(len(CLASSES))]
)
_CLUTTER_SHARE = np.sqrt(_DENSITY) / np.sqrt(_DENSITY).sum()
_TYPICAL = [
    max((k for k, c in zip(KINDS, CLASS_OF_KIND, strict=True) if c == code), key=lambda k: k.per_sample)
    for code in range(len(CLASSES))
]
_SIZE_M = np.array([kind.size_lwh_m for kind in _TYPICAL])
_RANGE_M = np.array([task.range_m for task in NUSCENES.tasks], dtype=np.float64)
_YAW_ERROR_RAD = np.array([0.07] * 5 + [0.5, 0.25, 0.3, 1.5, 0.15])  # cones have no front
_FLIPPED = np.array([0.04] * 5 + [0.08, 0.12, 0.12, 0.5, 0.45])  # barriers look alike from both sides
# attribute codes that boxes of a class may have, as (first code, how many); no attribute: (-1, 1)
_ATTRIBUTE_RANGE = np.array(
    [(codes[0], len(codes)) if (codes := attributes_of(kind.family)) else (-1, 1) for kind in _TYPICAL]
)


def detect(scene: Scene, detector: Detector, seed: int) -> Detections:
    """Make the predictions of one scene."""
    if seed < 0:
        raise InputError("seed", expected="zero or more", got=seed)
    rng = stream(PREDICTIONS, seed, *scene.key[1:])
    n_samples = len(scene.sample_token)
    wanted = np.minimum(rng.poisson(detector.boxes_per_sample, n_samples), _MAX_BOXES)
    right = _found(rng, scene, detector)
    missing = np.maximum(wanted - np.bincount(right.sample, minlength=n_samples), 0)
    wrong = _clutter(rng, scene, np.repeat(np.arange(n_samples), missing), detector.quality)
    columns = {
        name: np.concatenate([getattr(right, name), getattr(wrong, name)]) for name in Detections.__dataclass_fields__
    }
    n = len(columns["score"])
    columns["velocity_mps"][rng.random(n) < detector.nan_velocity_share] = math.nan
    # where there is room for fewer, the best stay; then any order within the sample
    best = np.lexsort((-columns["score"], columns["sample"]))
    sample = columns["sample"][best]
    kept = best[np.arange(n) - np.searchsorted(sample, sample) < wanted[sample]]
    kept = kept[np.lexsort((rng.random(len(kept)), columns["sample"][kept]))]
    if detector.score_decimals is not None:
        columns["score"] = np.round(columns["score"], detector.score_decimals)
    return Detections(**{name: column[kept] for name, column in columns.items()})


def _found(rng: np.random.Generator, scene: Scene, detector: Detector) -> Detections:
    """Boxes that stand for something: less likely and less exact far away and with few points."""
    boxes, quality = scene.boxes, detector.quality
    distance = _distance_m(scene, boxes.sample, boxes.center_m)
    label = _CLASS_OF_KIND[boxes.kind]
    n_points = boxes.n_lidar + boxes.n_radar
    chance = quality * (0.99 - 0.3 * distance / 60) * (1 - np.exp(-(n_points + 0.5) / 2.5))
    chance *= np.where(label < 0, 0, np.where(CLASS_OF_KIND[boxes.kind] < 0, 0.4, 1))
    row = np.flatnonzero(rng.random(len(label)) < chance * (distance < 1.15 * _RANGE_M[label]))
    n_copies = 1 + (rng.random(len(row)) < 0.2)
    row = np.repeat(row, n_copies)
    is_copy = np.append(False, row[1:] == row[:-1])[: len(row)]
    n = len(row)
    label, distance, n_points = label[row], distance[row], n_points[row]

    blur = (0.7 + distance / 40 + is_copy) / quality
    size = boxes.size_lwh_m[row]
    spread_m = (0.1 + 0.04 * np.sqrt(size[:, 0] * size[:, 1])) * blur
    error_m = rng.standard_t(4, (n, 3)) * spread_m[:, None] * (1, 1, 0.4)
    is_confused = rng.random(n) < 0.04 / quality
    label = np.where(is_confused, _OTHER_CLASS[label, rng.integers(0, 2, n)], label)
    yaw = yaw_of_rotation(boxes.rotation_wxyz[row]) + rng.normal(0, 1, n) * _YAW_ERROR_RAD[label] * blur
    yaw = yaw + np.pi * (rng.random(n) < _FLIPPED[label])
    velocity = np.nan_to_num(boxes.velocity_mps[row]) + rng.normal(0, 0.25, (n, 2)) * blur[:, None]
    first, count = _ATTRIBUTE_RANGE[label].T
    any_attribute = first + rng.integers(0, count)
    truth = boxes.attribute[row]
    is_kept = (truth >= first) & (truth < first + count) & (rng.random(n) < 0.5 + 0.3 * quality)
    surprise = np.linalg.norm(error_m[:, :2], axis=1) / (0.3 + spread_m)
    logit = -0.9 + 0.75 * np.log1p(n_points) - 0.5 * surprise - 2.0 * is_copy - 1.5 * is_confused
    logit += rng.normal(0, 0.8, n) - 2 * (1 - quality)
    return Detections(
        sample=boxes.sample[row],
        label=label,
        center_m=boxes.center_m[row] + error_m,
        size_lwh_m=size * np.exp(rng.normal(0, 0.06, (n, 3)) * np.minimum(blur, 6)[:, None]),
        yaw_rad=wrap_angle(yaw),
        velocity_mps=velocity,
        attribute=np.where(is_kept, truth, any_attribute),
        score=_share(logit),
    )


def _clutter(rng: np.random.Generator, scene: Scene, sample: Ints, quality: float) -> Detections:
    """Boxes that stand for nothing, one for each entry of ``sample``: half of them near objects, half anywhere."""
    boxes = scene.boxes
    n = len(sample)
    start = np.searchsorted(boxes.sample, sample)
    count = np.searchsorted(boxes.sample, sample, side="right") - start
    near = np.minimum(start + (rng.random(n) * count).astype(np.int64), max(len(boxes.sample) - 1, 0))
    is_near = (count > 0) & (rng.random(n) < 0.5)
    label = rng.choice(len(CLASSES), n, p=_CLUTTER_SHARE)
    ego_xy = scene.drive.ego_pose(scene.seconds(scene.timestamp_us))[0][sample, :2]
    distance, bearing = 58 * np.sqrt(rng.random(n)), rng.uniform(-np.pi, np.pi, n)
    xy = ego_xy + distance[:, None] * np.stack([np.cos(bearing), np.sin(bearing)], axis=1)
    if len(boxes.sample):
        xy = np.where(is_near[:, None], boxes.center_m[near, :2] + rng.normal(0, 4, (n, 2)), xy)
        alike = _CLASS_OF_KIND[boxes.kind[near]]
        label = np.where(is_near & (alike >= 0) & (rng.random(n) < 0.5), alike, label)
    size = _SIZE_M[label] * np.exp(rng.normal(0, 0.12, (n, 3)))
    first, count = _ATTRIBUTE_RANGE[label].T
    return Detections(
        sample=sample,
        label=label,
        center_m=np.concatenate([xy, size[:, 2:] / 2 + rng.normal(0, 0.3, (n, 1))], axis=1),
        size_lwh_m=size,
        yaw_rad=rng.uniform(-np.pi, np.pi, n),
        velocity_mps=rng.normal(0, 0.6, (n, 2)),
        attribute=first + rng.integers(0, count),
        score=_share(rng.normal(-3.4, 0.9, n) + 1.0 * (1 - quality)),
    )


def _distance_m(scene: Scene, sample: Ints, center_m: Floats) -> Floats:
    """Distance (A,) on the ground from the ego vehicle in the box's sample."""
    ego_xy = scene.drive.ego_pose(scene.seconds(scene.timestamp_us))[0][:, :2]
    distance: Floats = np.linalg.norm(center_m[:, :2] - ego_xy[sample], axis=1)
    return distance


def _share(logit: Floats) -> Floats:
    """Bring scores into (0, 1)."""
    share: Floats = 1 / (1 + np.exp(-logit))
    return share
