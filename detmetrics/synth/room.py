"""Who stands in whose way: footprints, and the choice of things of which no two overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detmetrics.geometry import ground_corners
from detmetrics.synth.categories import BICYCLE, FAMILY_OF_KIND, MOVING, RACK, WAITING, Floats, Ints
from detmetrics.synth.motion import Flows, Movers
from detmetrics.synth.town import Town

EGO_SIZE_M, EGO_AHEAD_M = (4.1, 1.75, 1.56), 1.3  # the car's middle is ahead of its origin, the rear axle


def footprints(movers: Movers, flows: Flows, time_s: Floats) -> Floats:
    """Middle, half length, half width, heading (N, S, 5) of what each covers, a hand's breadth included."""
    pose = movers.poses(flows, time_s)
    half = movers.size_lwh_m[:, :2] / 2
    middle = pose[..., :2].copy()
    half = half.copy()
    half[0] = np.array(EGO_SIZE_M[:2]) / 2
    middle[0] += EGO_AHEAD_M * np.stack([np.cos(pose[0, :, 2]), np.sin(pose[0, :, 2])], axis=-1)
    spread = np.broadcast_to(half[:, None] + 0.06, middle.shape)
    return np.concatenate([middle, spread, pose[..., 2:]], axis=-1)


def without_overlap(movers: Movers, flows: Flows, town: Town) -> Ints:
    """Rows, in order, that touch neither what stands nor an earlier row at any quarter of a second."""
    # what is in the lanes has the first choice; racks come before what would stand in their place
    rank = np.where(movers.state == WAITING, 1, np.where(movers.state == MOVING, 2, 3)) + 2 * (movers.kind != RACK)
    rank = np.where(FAMILY_OF_KIND[movers.kind] == "vehicle", rank - 3, rank)
    rank[0] = -9
    order = np.argsort(rank, kind="stable")
    time_s = np.arange(0.0, flows.time_s[-1] + 0.01, 0.25)
    place = footprints(movers, flows, time_s)
    radius = np.hypot(place[:, 0, 2], place[:, 0, 3])
    wall = np.zeros((len(town.standing), 5))
    wall[:, :2], wall[:, 2:4] = town.standing[:, :2], town.standing[:, 2:4] / 2
    wall_radius = np.hypot(wall[:, 2], wall[:, 3])
    kept: list[int] = []
    for row in order.tolist():
        own = place[row]
        if row and _hits_town(own, radius[row], wall, wall_radius):
            continue
        others = np.array(kept, np.int64)
        if movers.kind[row] in (RACK, BICYCLE):
            others = others[[not _shares(movers, k, row) for k in kept]]
        if row and len(others):
            away = np.linalg.norm(place[others, :, :2] - own[:, :2], axis=-1)
            which, when = np.nonzero(away < radius[others, None] + radius[row])
            if len(which) and _overlaps(own[when], place[others[which], when]).any():
                continue
        kept.append(row)
    return np.array(sorted(kept), np.int64)


def _hits_town(own: Floats, radius: float, wall: Floats, wall_radius: Floats) -> bool:
    """Whether footprints (S, 5) touch what stands (W, 5)."""
    moves = len(own) > 1 and np.ptp(own[:, :2], axis=0).max() > 0
    steps = own if moves else own[:1]
    low, high = steps[:, :2].min(axis=0) - radius, steps[:, :2].max(axis=0) + radius
    near = np.flatnonzero(
        ((wall[:, :2] + wall_radius[:, None] >= low) & (wall[:, :2] - wall_radius[:, None] <= high)).all(axis=1)
    )
    if not len(near):
        return False
    away = np.linalg.norm(wall[near, None, :2] - steps[None, :, :2], axis=-1)
    which, when = np.nonzero(away < wall_radius[near, None] + radius)
    return bool(len(which)) and bool(_overlaps(steps[when], wall[near[which]]).any())


def _shares(movers: Movers, first: int, second: int) -> bool:
    """Whether one is a rack and the other a bicycle in it."""
    is_rack = movers.kind[first] == RACK or movers.kind[second] == RACK
    return bool(is_rack and movers.group[first] == movers.group[second])


def _overlaps(first: Floats, second: Floats) -> NDArray[np.bool_]:
    """Whether oriented rectangles (N, 5) overlap, pair by pair: no axis of either keeps them apart."""
    apart = np.zeros(len(first), dtype=bool)
    corners = [
        ground_corners(
            np.concatenate([box[:, :2], np.zeros((len(box), 1))], axis=1),
            np.concatenate([2 * box[:, 2:4], np.ones((len(box), 1))], axis=1),
            box[:, 4],
        )
        for box in (first, second)
    ]
    for box in (first, second):
        for turn in (0.0, np.pi / 2):
            axis = np.stack([np.cos(box[:, 4] + turn), np.sin(box[:, 4] + turn)], axis=-1)
            one, two = (np.einsum("ncd,nd->nc", corner, axis) for corner in corners)
            apart |= (one.max(axis=1) < two.min(axis=1)) | (two.max(axis=1) < one.min(axis=1))
    return ~apart
