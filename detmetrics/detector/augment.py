"""Training samples varied at random, and the bank of true objects that are pasted into them. Plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detmetrics.detector.config import CLASSES, Augment
from detmetrics.detector.objects import Objects, concat
from detmetrics.detector.samples import Sample, Samples
from detmetrics.geometry import points_in_boxes, rotation_of_yaw

#: Objects of each class that the bank keeps at most, and the points that make one worth keeping.
BANK_SIZE, BANK_POINTS = 500, 5
_MARGIN_M = 0.15  # around a box, when its points are taken: sensors and annotators err


@dataclass(frozen=True, eq=False)
class Bank:
    """True objects with their points, to be pasted.

    Attributes
    ----------
    objects : Objects
    points : float32 (P, 5)
        As in :class:`detmetrics.detector.samples.Sample`, object by object.
    offsets : int64 (N + 1,)
        Points of object ``i`` are ``points[offsets[i]:offsets[i + 1]]``.
    """

    objects: Objects
    points: NDArray[np.float32]
    offsets: NDArray[np.int64]


def make_bank(samples: Samples, seed: int, progress: Callable[[int, int], None] | None = None) -> Bank | None:
    """Cut objects out of training samples, up to :data:`BANK_SIZE` of each class, or give None where there are none.

    Samples are visited in a random order until each class has enough, or all were seen.
    """
    rng = np.random.default_rng([seed, 7])
    taken: list[Objects] = []
    points: list[NDArray[np.float32]] = []
    lengths: list[NDArray[np.int64]] = []
    count = np.zeros(len(CLASSES), np.int64)
    for done, number in enumerate(rng.permutation(len(samples)).tolist()):
        if progress:
            progress(done, len(samples))
        wanted = samples.labels(number)
        if not (count[wanted] < BANK_SIZE).any():
            continue
        sample = samples.read(number)
        objects = sample.objects.take(~sample.objects.is_ignored & (count[sample.objects.label] < BANK_SIZE))
        owner, inside = points_of(sample.points, objects)
        n_points = np.bincount(owner, minlength=len(objects))
        kept = n_points >= BANK_POINTS
        taken.append(objects.take(kept))
        points.append(sample.points[inside[kept[owner]]])
        lengths.append(n_points[kept])
        np.add.at(count, taken[-1].label, 1)
    if not taken or not count.sum():
        return None
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return Bank(concat(taken), np.concatenate(points), offsets)


def points_of(points: NDArray[np.float32], objects: Objects) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the points of each object, those of earlier sweeps where it was then; as ``points_in_boxes`` does.

    An object of unknown velocity is taken to stand.
    """
    owners, insides = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    rotation = rotation_of_yaw(objects.yaw_rad)
    velocity = np.nan_to_num(objects.velocity_mps)
    for time in np.unique(points[:, 4]):
        of_sweep = np.flatnonzero(points[:, 4] == time)
        center = objects.center_m.copy()
        center[:, :2] += velocity * time
        owner, inside = points_in_boxes(points[of_sweep, :3], center, objects.size_lwh_m + 2 * _MARGIN_M, rotation)
        owners.append(owner)
        insides.append(of_sweep[inside])
    owner, inside = np.concatenate(owners), np.concatenate(insides)
    order = np.argsort(owner, kind="stable")
    return owner[order], inside[order]


def augmented(sample: Sample, augment: Augment, bank: Bank | None, rng: np.random.Generator) -> Sample:
    """Vary a sample; the same generator gives the same one."""
    points, objects = sample.points, sample.objects
    if bank is not None and any(augment.paste):
        points, objects = _pasted(points, objects, augment, bank, rng)
    if rng.random() < augment.crop:
        points, objects = _cropped(points, objects, augment.crop_rad, rng)
    if augment.drop:
        points = points[rng.random(len(points), np.float32) >= rng.uniform(0, augment.drop)]
    points = points.copy()
    spread, shift = 1 + rng.uniform(-1, 1) * augment.contrast, rng.uniform(-1, 1) * augment.brightness
    points[:, 3] = np.clip((points[:, 3] - 0.1) * spread + 0.1 + shift, 0, 1)
    return Sample(*_moved(points, objects, augment, rng), sample.pose)


def _moved(
    points: NDArray[np.float32], objects: Objects, augment: Augment, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Objects]:
    """Flip, turn and scale everything about the sensor."""
    flip_x, flip_y = np.where(rng.random(2) < augment.flip, -1.0, 1.0)
    angle, scale = rng.uniform(-1, 1) * augment.rotate_rad, 1 + rng.uniform(-1, 1) * augment.scale
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    move = (scale * turn @ np.diag([flip_x, flip_y])).astype(np.float32)
    points[:, :2] = points[:, :2] @ move.T
    points[:, 2] *= np.float32(scale)
    heading = np.stack([np.cos(objects.yaw_rad), np.sin(objects.yaw_rad)], axis=-1) @ move.T
    center = np.concatenate([objects.center_m[:, :2] @ move.T, objects.center_m[:, 2:] * np.float32(scale)], axis=1)
    return points, replace(
        objects,
        center_m=center,
        size_lwh_m=objects.size_lwh_m * np.float32(scale),
        yaw_rad=np.arctan2(heading[:, 1], heading[:, 0]),
        velocity_mps=objects.velocity_mps @ move.T,
    )


def _cropped(
    points: NDArray[np.float32], objects: Objects, largest_rad: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Objects]:
    """Cut out a sector; what has its centre there cannot be found any more, and nobody asks for it."""
    start, width = rng.uniform(0, 2 * np.pi), rng.uniform(0, largest_rad)

    def is_in(xy: NDArray[np.float32]) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (np.arctan2(xy[:, 1], xy[:, 0]) - start) % (2 * np.pi) < width
        return inside

    return points[~is_in(points)], replace(objects, is_ignored=objects.is_ignored | is_in(objects.center_m))


def _pasted(
    points: NDArray[np.float32], objects: Objects, augment: Augment, bank: Bank, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Objects]:
    """Fill classes up with objects of the bank, each turned about the sensor, standing on the ground, free of others.

    At its own distance an object has the points that it would have there. Points of the scene inside it go.
    """
    there = np.bincount(objects.label, minlength=len(CLASSES))
    picked = [np.empty(0, np.int64)]
    for label, wanted in enumerate(augment.paste):
        of_class = np.flatnonzero(bank.objects.label == label)
        if len(of_class) and wanted > there[label]:
            picked.append(rng.choice(of_class, min(wanted - int(there[label]), len(of_class)), replace=False))
    rows = np.concatenate(picked)
    new = bank.objects.take(rows)
    angle = rng.uniform(0, 2 * np.pi, len(new))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2).astype(np.float32)
    center = new.center_m.copy()
    center[:, :2] = np.einsum("nij,nj->ni", turn, center[:, :2])
    # a circle around the footprint; smaller objects than what stands there first lose
    reach = np.hypot(*objects.size_lwh_m[:, :2].T) / 2
    xy, kept, ground = objects.center_m[:, :2], [], []
    some = points[::8, :3]
    some_x, some_y = some[:, 0].copy(), some[:, 1].copy()
    new_reach = np.hypot(*new.size_lwh_m[:, :2].T) / 2
    for i in np.argsort(-new_reach).tolist():
        if (np.hypot(*(xy - center[i, :2]).T) < reach + new_reach[i]).any():
            continue
        around = 2.0 + new_reach[i]
        near = some[(np.abs(some_x - center[i, 0]) < around) & (np.abs(some_y - center[i, 1]) < around), 2]
        if len(near) < 3:
            continue  # nothing says where the ground is
        kept.append(i)
        ground.append(np.percentile(near, 15))
        xy, reach = np.concatenate([xy, center[i : i + 1, :2]]), np.append(reach, new_reach[i])
    if not kept:
        return points, objects
    row = np.array(kept)
    lift = np.array(ground, np.float32) - (center[row, 2] - new.size_lwh_m[row, 2] / 2)
    center[row, 2] += lift
    new = replace(
        new,
        center_m=center,
        yaw_rad=(new.yaw_rad + angle).astype(np.float32),
        velocity_mps=np.einsum("nij,nj->ni", turn, new.velocity_mps),
    ).take(row)
    cut = [bank.points[bank.offsets[rows[i]] : bank.offsets[rows[i] + 1]].copy() for i in kept]
    for i, part, up in zip(kept, cut, lift.tolist(), strict=True):
        part[:, :2] = part[:, :2] @ turn[i].T
        part[:, 2] += up
    _, hidden = points_in_boxes(points[:, :3], new.center_m, new.size_lwh_m, rotation_of_yaw(new.yaw_rad))
    is_free = np.ones(len(points), bool)
    is_free[hidden] = False
    return np.concatenate([points[is_free], *cut]), concat([objects, new])
