"""Points to pillars: which cell each point lies in, and what the encoder is told of it. Plain numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detmetrics.detector.config import POINT_FEATURES, Config

#: Points older than this, in seconds, are of an earlier cloud; a turn takes 0.05, real stamps within it differ.
NOW_S = 0.02
#: Places in a cell of the heatmap: four pillars, each now and before.
SLOTS = 8


class Pillars(NamedTuple):
    """The pillars of one or more samples that have points; what is seen now and what was before lie apart.

    So what moves shows as a difference of two channels at one place, and need not be told from a single time.

    Attributes
    ----------
    features : float32 (P, 10)
        Of the points, pillar by pillar: x and y from the middle of the pillar and z, in metres; intensity from 0 to 1;
        seconds; x, y, z from the mean of the pillar; logarithm of how many the pillar had; distance over 50 m.
    length : int64 (V,)
        Points of each pillar.
    place : int64 (V,)
        Where it lies, see :func:`pillars`.
    """

    features: NDArray[np.float32]
    length: NDArray[np.int64]
    place: NDArray[np.int64]


def pillars(points: NDArray[np.float32], config: Config) -> Pillars:
    """Sort points into pillars.

    Parameters
    ----------
    points : float32 (P, 5)
        See :class:`detmetrics.detector.samples.Sample`; none is allowed.
    config : Config

    Returns
    -------
    Pillars
        Places count cells of the heatmap, row by row (y, then x), in each its four pillars, and in each of those the
        newest cloud and the older ones: so ``place`` is also the layout of an (n, n, 8) array, whose last axis the
        network takes as channels.
    """
    half, n = np.float32(config.half_m), 2 * config.n_cells
    points = points[(np.abs(points[:, 0]) < half) & (np.abs(points[:, 1]) < half)]
    if not len(points):
        return Pillars(np.empty((0, POINT_FEATURES), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))
    cell = np.minimum(((points[:, :2] + half) * np.float32(1 / config.pillar_m)).astype(np.int32), n - 1)
    x, y = cell[:, 0], cell[:, 1]
    is_old = points[:, 4] < -NOW_S
    place = (((y >> 1) * (n >> 1) + (x >> 1)) << 3) + ((y & 1) << 2) + ((x & 1) << 1) + is_old
    order = np.argsort(place, kind="stable")
    place = place[order]
    start = np.flatnonzero(np.diff(place, prepend=-1))
    count = np.diff(start, append=len(place))
    pillar = np.repeat(np.arange(len(start)), count)
    number = np.arange(len(place)) - start[pillar]
    kept = np.minimum(count, config.max_points)
    # point i of n is kept where i·k/n passes a whole number: evenly over the sweeps, which lie one after the other
    is_kept = (number * kept[pillar]) // count[pillar] != ((number - 1) * kept[pillar]) // count[pillar]
    order, pillar, place = order[is_kept], pillar[is_kept], place[start]
    points = points[order]
    starts = np.cumsum(kept) - kept
    mean = np.add.reduceat(points[:, :3], starts, axis=0) / kept[:, None].astype(np.float32)
    middle = (cell[order] + np.float32(0.5)) * np.float32(config.pillar_m) - half
    features = np.empty((len(points), POINT_FEATURES), np.float32)
    features[:, :2] = points[:, :2] - middle
    features[:, 2:5] = points[:, 2:5]
    features[:, 5:8] = points[:, :3] - mean[pillar]
    features[:, 8] = np.log(count.astype(np.float32))[pillar] * np.float32(0.3)
    features[:, 9] = np.hypot(points[:, 0], points[:, 1]) * np.float32(1 / 50)
    return Pillars(features, kept.astype(np.int64), place.astype(np.int64))


def stacked(parts: list[Pillars], config: Config) -> Pillars:
    """Put the pillars of samples together; places of sample ``i`` are raised by ``i`` times the cells of one."""
    a_sample = SLOTS * config.n_cells**2
    return Pillars(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.length for part in parts]),
        np.concatenate([part.place + i * a_sample for i, part in enumerate(parts)]),
    )
