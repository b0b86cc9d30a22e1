"""A baseline without learning: take the ground away, cluster what is left, fit boxes, name them by their size.

The ground is the lowest points of square cells, no steeper between cells than a ramp. What stands 0.25 to 4.5 m above
it falls into clusters of touching cells. Around each lies a rectangle whose sides hug its points; its sides and its
height are weighed against the mean sizes of the classes, either way round: larger than the class is bad, smaller is
likely hidden, but one side should be seen as it is. A box has the size of its class and the corner that the sensor
sees. The score is the class's share among all classes and clutter. Thin clusters as tall as a barrier are cut into
barriers. Velocity comes from following a box back through the sweeps; what stands is taken to look where the car looks.

Its constants were chosen by hand on a lidar world of seed 6 (8 scenes: NDS 0.293, mAP 0.121). On another, of which only
the first draft was scored before (``detmetrics synth OUT --train-scenes 2 --val-scenes 10 --seed 5``): NDS 0.285, mAP
0.120; AP of car 0.333, pedestrian 0.255, truck 0.198, barrier 0.177, motorcycle 0.122, of the others at most 0.082; of
cars ATE 0.30 m, AOE 0.97 rad (a third look the wrong way), AVE 2.6 m/s (6.5 without velocities). It places and names
most of what is near and whole, and cannot tell it from posts, bushes and pieces of walls: precision is what it lacks.
About 0.1 s a sample on two cores that are free.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.detector.config import META
from detmetrics.errors import InputError, listing
from detmetrics.io.clouds import Cloud, NuscenesClouds
from detmetrics.io.nuscenes import load_truth

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Progress = Callable[[int, int], None]


class Kind(NamedTuple):
    """What is known of a class: its mean size, how often it stands there, its commonest attribute."""

    label: str
    size_lwh_m: tuple[float, float, float]
    prior: float
    attribute: str
    moving: str = ""


#: Mean sizes over the nuScenes training set, rounded (H. Caesar et al., CVPR 2020, and the anchors made of them).
KINDS = (
    Kind("car", (4.63, 1.97, 1.74), 1.0, "vehicle.parked", "vehicle.moving"),
    Kind("truck", (6.93, 2.51, 2.84), 0.3, "vehicle.parked", "vehicle.moving"),
    Kind("bus", (11.1, 2.93, 3.46), 0.15, "vehicle.stopped", "vehicle.moving"),
    Kind("trailer", (12.3, 2.92, 3.87), 0.15, "vehicle.parked", "vehicle.moving"),
    Kind("construction_vehicle", (6.37, 2.85, 3.19), 0.1, "vehicle.parked", "vehicle.moving"),
    Kind("pedestrian", (0.73, 0.67, 1.77), 0.5, "pedestrian.standing", "pedestrian.moving"),
    Kind("motorcycle", (2.11, 0.77, 1.47), 0.1, "cycle.without_rider", "cycle.with_rider"),
    Kind("bicycle", (1.70, 0.60, 1.28), 0.1, "cycle.without_rider", "cycle.with_rider"),
    Kind("traffic_cone", (0.41, 0.41, 1.07), 0.3, ""),
    Kind("barrier", (0.50, 2.53, 0.98), 0.4, ""),
)
_SIZE = np.array([kind.size_lwh_m for kind in KINDS])
_PRIOR = np.array([kind.prior for kind in KINDS])

_BARRIER, _ROW_SCORE = len(KINDS) - 1, 0.15
_REACH_M = 54.0
_GROUND_CELL_M, _SLOPE = 2.0, 0.12
_CLEAR_M, _TOP_M = 0.25, 4.5  # of an object's points above the ground
_CELL_M, _MIN_POINTS = 0.25, 4
_ANGLES = np.deg2rad(np.arange(0, 90, 3))
_MIN_SPEED_MPS, _MAX_SPEED_MPS = 1.0, 20.0
_MIN_SCORE = 0.01
_STRAY_M = 1.0  # of a box from where its speed so far would have it
_CLUTTER = 1.0  # the weight of everything that is none of the classes


def predict(
    dataroot: str | Path,
    split: str | Sequence[str],
    version: str | None = None,
    *,
    n_sweeps: int = 3,
    progress: Progress | None = None,
) -> Boxes:
    """Detect objects in all samples of a split.

    Parameters
    ----------
    dataroot, version
        A data set in the nuScenes format.
    split : str or sequence of str
        Name of a split, or names of scenes.
    n_sweeps : int
        Velocities come from following boxes back through them; 1: all velocities are zero.
    progress : callable, optional
        Called with the samples done and the samples in all.

    Returns
    -------
    Boxes
        In the global frame, with scores, velocities and attributes.

    Raises
    ------
    InputError
        See :func:`detmetrics.io.nuscenes.load_truth` (only its list of samples is used) and
        :class:`detmetrics.io.clouds.NuscenesClouds`.
    """
    name, scenes = (split, None) if isinstance(split, str) else (None, list(split))
    samples = load_truth(dataroot, version=version, split=name, scenes=scenes).frames
    clouds = NuscenesClouds(dataroot, version)
    missing = sorted(set(samples) - set(clouds.samples))
    if missing:
        raise InputError(f"no key frame of the lidar for samples {listing(missing)}")
    found: list[_Found] = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for one in pool.map(lambda name: detect(clouds.read(name, n_sweeps=n_sweeps, drop_close_m=1.5)), samples):
            found.append(one)
            if progress:
                progress(len(found), len(samples))
    velocity = np.concatenate([one.velocity_mps for one in found])
    kind = np.concatenate([one.kind for one in found])
    moves = (velocity != 0).any(axis=1)
    attributes = [[one.attribute, one.moving or one.attribute] for one in KINDS]
    return Boxes(
        center_m=np.concatenate([one.center_m for one in found]),
        size_lwh_m=_SIZE[kind],
        yaw_rad=np.concatenate([one.yaw_rad for one in found]),
        label=kind,
        labels=[one.label for one in KINDS],
        frame=np.repeat(np.arange(len(found)), [len(one.kind) for one in found]),
        frames=samples,
        score=np.concatenate([one.score for one in found]),
        velocity_mps=velocity,
        attribute=[attributes[k][m] for k, m in zip(kind, moves.astype(int), strict=True)],
        meta=META,
        source="plain baseline",
    )


class _Found(NamedTuple):
    center_m: Floats
    yaw_rad: Floats
    kind: Ints
    score: Floats
    velocity_mps: Floats


def detect(cloud: Cloud) -> _Found:
    """Detect objects in a cloud of one or more sweeps, in the global frame; the newest sweep has time 0."""
    points = cloud.pose.apply(cloud.points_m)  # upright, unlike the sensor's frame
    sensor = cloud.pose.translation_m
    near = np.abs(points[:, :2] - sensor[:2]).max(axis=1) < _REACH_M
    points, time_s = points[near] - sensor, cloud.time_s[near]
    now = _objects(points[time_s == 0])
    older = [(_objects(points[time_s == t]), -float(t)) for t in np.unique(time_s)[-2::-1]]
    velocity = _velocities(now, older)
    # what moves, points where it goes; what stands, where the car looks (y of the lidars of nuScenes)
    is_moving = (velocity != 0).any(axis=1)[:, None]
    ahead = np.where(is_moving, velocity, cloud.pose.rotation[:2, 1])
    heading = np.stack([np.cos(now.yaw_rad), np.sin(now.yaw_rad)], axis=1)
    yaw = now.yaw_rad + np.pi * (np.einsum("ij,ij->i", heading, ahead) < 0)
    return now._replace(center_m=now.center_m + sensor, yaw_rad=yaw, velocity_mps=velocity)


def _objects(points: Floats) -> _Found:
    """Boxes of one sweep; points are relative to the sensor."""
    above = points[:, 2] - _ground(points)
    kept = (above > _CLEAR_M) & (above < _TOP_M)
    points, above = points[kept], above[kept]
    cluster = _clusters(points)
    order = np.argsort(cluster, kind="stable")
    points, above, cluster = points[order], above[order], cluster[order]
    start = np.flatnonzero(np.diff(cluster, prepend=-1))
    count = np.diff(start, append=len(cluster))
    if not len(start):
        return _Found(np.empty((0, 3)), np.empty(0), np.empty(0, np.int64), np.empty(0), np.empty((0, 2)))
    angle, low, high = _rectangles(points[:, :2], start, count)
    height = np.maximum.reduceat(above, start)
    floor = np.add.reduceat(points[:, 2] - above, start) / count
    cost = _costs(high - low, height)  # clusters, two ways round, kinds
    likely = _PRIOR * np.exp(-cost / 2) * (count >= _MIN_POINTS)[:, None, None]
    share = likely / (likely.sum(axis=(1, 2), keepdims=True) + _CLUTTER)
    share *= (1 - np.exp(-count / 10))[:, None, None]
    share[..., _BARRIER] *= ~_is_row(high - low, height)[:, None]
    own, turned, kind = np.nonzero((share == share.max(axis=1, keepdims=True)) & (share > _MIN_SCORE))
    score = share[own, turned, kind]
    # the corner that the sensor sees stays; what is hidden lies behind it
    size = np.where(turned[:, None] == 1, _SIZE[kind][:, [1, 0]], _SIZE[kind][:, :2])
    first, last = low[own], high[own]
    behind = np.where(np.abs(first) <= np.abs(last), first + size / 2, last - size / 2)
    middle = np.where(first * last <= 0, (first + last) / 2, behind)
    cos, sin = np.cos(angle[own]), np.sin(angle[own])
    x = cos * middle[:, 0] - sin * middle[:, 1]
    y = sin * middle[:, 0] + cos * middle[:, 1]
    center = np.stack([x, y, floor[own] + _SIZE[kind][:, 2] / 2], axis=1)
    alone = _Found(center, angle[own] + np.pi / 2 * turned, kind, score, np.zeros((len(own), 2)))
    rows = _rows(angle, low, high, floor, np.flatnonzero(_is_row(high - low, height)))
    return _Found(*(np.concatenate(pair) for pair in zip(alone, rows, strict=True)))


def _is_row(extent: Floats, height: Floats) -> NDArray[np.bool_]:
    """Whether a cluster is thin, as tall as a barrier, and longer than one."""
    tall = _SIZE[_BARRIER, 2]
    is_row: NDArray[np.bool_] = (
        (extent.min(axis=1) < 0.9) & (extent.max(axis=1) > 3.4) & (np.abs(height - tall) < 0.3 * tall)
    )
    return is_row


def _rows(angle: Floats, low: Floats, high: Floats, floor: Floats, which: Ints) -> _Found:
    """Barriers that stand end to end, each one a box."""
    found: list[tuple[Floats, float]] = [(np.empty((0, 3)), 0.0)]
    for c in which:
        extent = high[c] - low[c]
        axis = int(extent.argmax())
        n = max(round(float(extent[axis]) / _SIZE[_BARRIER, 1]), 1)
        middle = np.tile((low[c] + high[c]) / 2, (n, 1))
        middle[:, axis] = low[c, axis] + (np.arange(n) + 0.5) * extent[axis] / n
        cos, sin = np.cos(angle[c]), np.sin(angle[c])
        xy = middle @ np.array([[cos, sin], [-sin, cos]])
        z = np.full((n, 1), floor[c] + _SIZE[_BARRIER, 2] / 2)
        # a barrier's length is its thickness
        found.append((np.hstack([xy, z]), float(angle[c]) + (0.0 if axis == 1 else np.pi / 2)))
    center = np.concatenate([one for one, _ in found])
    yaw = np.concatenate([np.full(len(one), turn) for one, turn in found])
    kind = np.full(len(center), _BARRIER, np.int64)
    return _Found(center, yaw, kind, np.full(len(center), _ROW_SCORE), np.zeros((len(center), 2)))


def _ground(points: Floats) -> Floats:
    """Height of the ground under each point: the lowest points of cells, under a bound on the slope between cells."""
    n = int(2 * _REACH_M / _GROUND_CELL_M) + 3
    cell = np.clip(((points[:, :2] + _REACH_M) / _GROUND_CELL_M).astype(np.int64) + 1, 0, n - 1)
    lowest = np.full((n, n), np.inf)
    np.minimum.at(lowest, (cell[:, 0], cell[:, 1]), points[:, 2])
    for _ in range(n):
        ramp = lowest + _SLOPE * _GROUND_CELL_M
        grown = lowest.copy()
        for own, other in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            grown[own] = np.minimum(grown[own], ramp[other])
            grown[:, own] = np.minimum(grown[:, own], ramp[:, other])
        if np.array_equal(grown, lowest):
            break
        lowest = grown
    height: Floats = lowest[cell[:, 0], cell[:, 1]]
    return height


def _clusters(points: Floats) -> Ints:
    """Number the connected parts: cells on the ground that hold points, at most one empty cell between neighbours."""
    cell = ((points[:, :2] + _REACH_M) / _CELL_M).astype(np.int64)
    width = int(2 * _REACH_M / _CELL_M) + 8
    code, own = np.unique(cell[:, 0] * width + cell[:, 1], return_inverse=True)
    one, other = [], []
    for dx in range(3):
        for dy in range(-2, 3):
            if (dx, dy) > (0, 0):
                place = np.minimum(np.searchsorted(code, code + dx * width + dy), max(len(code) - 1, 0))
                linked = np.flatnonzero(code[place] == code + dx * width + dy) if len(code) else place
                one.append(linked)
                other.append(place[linked])
    first, second = np.concatenate(one), np.concatenate(other)
    label = np.arange(len(code))
    while True:  # the smaller number wins on both sides of a link, then numbers take their number's number
        low = np.minimum(label[first], label[second])
        new = label.copy()
        np.minimum.at(new, first, low)
        np.minimum.at(new, second, low)
        new = new[new]
        if np.array_equal(new, label):
            return label[own]
        label = new


def _rectangles(xy: Floats, start: Ints, count: Ints) -> tuple[Floats, Floats, Floats]:
    """The rectangle around each cluster whose sides lie closest to its points (X. Zhang et al., IV 2017, closeness).

    Gives its angle (C,), and in axes turned by it the low and high corner (C, 2).
    """
    best = np.full(len(start), -np.inf)
    angle, low, high = np.zeros(len(start)), np.zeros((len(start), 2)), np.zeros((len(start), 2))
    for turn in _ANGLES:
        cos, sin = np.cos(turn), np.sin(turn)
        along = np.stack([cos * xy[:, 0] + sin * xy[:, 1], cos * xy[:, 1] - sin * xy[:, 0]], axis=1)
        least, most = np.minimum.reduceat(along, start), np.maximum.reduceat(along, start)
        away = np.minimum(along - np.repeat(least, count, axis=0), np.repeat(most, count, axis=0) - along).min(axis=1)
        close = np.add.reduceat(1 / np.maximum(away, 0.05), start)
        better = close > best
        best[better], angle[better], low[better], high[better] = close[better], turn, least[better], most[better]
    return angle, low, high


def _costs(extent: Floats, height: Floats) -> Floats:
    """How badly each cluster (C,) fits each kind (K,) both ways round: (C, 2, K).

    Larger than the class is bad, smaller is likely hidden; of the two sides one should be seen as it is.
    """
    sides = np.stack([extent, extent[:, ::-1]], axis=1)[:, :, None, :]  # along and across the length
    mean = _SIZE[:, :2]
    off = (sides - mean) / (0.15 * mean + 0.1)
    over = np.maximum(off, 0)
    under = np.maximum(-off, 0) * 0.3
    tall = (height[:, None] - _SIZE[:, 2]) / (0.15 * _SIZE[:, 2])
    tall = np.where(tall > 0, tall, 0.5 * tall)[:, None, :]
    cost: Floats = (over**2 + under**2).sum(axis=-1) + np.abs(off).min(axis=-1) ** 2 + tall**2
    return cost


def _velocities(now: _Found, older: list[tuple[_Found, float]]) -> Floats:
    """Velocity by following each box back through the sweeps, the newest first; zero where its track is lost.

    The box of the same kind is looked for where the speed so far would have it, with the first step anywhere in reach.
    """
    velocity, center = np.zeros((len(now.kind), 2)), now.center_m[:, :2]
    is_followed = np.full(len(now.kind), len(older) > 0)
    for step, (found, seconds) in enumerate(older):
        reach = _MAX_SPEED_MPS * seconds if step == 0 else _STRAY_M
        expected = center - velocity * seconds
        for kind in np.unique(now.kind):
            own, other = np.flatnonzero(now.kind == kind), np.flatnonzero(found.kind == kind)
            if not len(other):
                is_followed[own] = False
                continue
            distance = np.linalg.norm(expected[own, None] - found.center_m[None, other, :2], axis=2)
            nearest = distance.argmin(axis=1)
            is_followed[own] &= distance[np.arange(len(own)), nearest] < reach
            velocity[own] = (center[own] - found.center_m[other[nearest], :2]) / seconds
    is_followed &= np.linalg.norm(velocity, axis=1) > _MIN_SPEED_MPS
    return np.where(is_followed[:, None], velocity, 0.0)
