"""Objects to targets: heatmaps of the classes, and what the cells around each centre should say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detmetrics.detector.config import CLASSES, GROUP_OF, Config
from detmetrics.detector.objects import Objects
from detmetrics.protocols import NUSCENES

_GROUP = np.array(GROUP_OF)
#: Half turns that look alike, and classes whose heading is not counted.
PERIOD = np.array([task.yaw_period_rad for task in NUSCENES.tasks], np.float32)
HAS_HEADING = np.array(["AOE" not in task.undefined for task in NUSCENES.tasks])
HAS_VELOCITY = np.array(["AVE" not in task.undefined for task in NUSCENES.tasks])
_AROUND = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), axis=-1).reshape(-1, 2)
#: Least radius of the bell around a centre, cells.
MIN_RADIUS = 1.5


class Targets(NamedTuple):
    """Targets of one sample, or of several put together.

    Attributes
    ----------
    heat : float32 (B, C, n, n)
        1 at the cell of a centre, falling off around it.
    is_counted : bool (B, C, n, n)
        False around objects that are neither to be found nor to be missed.
    place : int64 (K,)
        Cell, row by row and sample by sample, of each place where something is regressed: the cell of a centre and its
        neighbours, since the highest cell may be off by one.
    weight : float32 (K,)
        Of that place: 1 at the centre.
    group, label, attribute : int64 (K,)
        ``attribute`` is negative where there is none.
    values : float32 (K, 10)
        Offset of the centre from the middle of the cell in cells, height, logarithms of length, width and height, sine
        and cosine of the heading, velocity; NaN where there is none.
    """

    heat: NDArray[np.float32]
    is_counted: NDArray[np.bool_]
    place: NDArray[np.int64]
    weight: NDArray[np.float32]
    group: NDArray[np.int64]
    label: NDArray[np.int64]
    attribute: NDArray[np.int64]
    values: NDArray[np.float32]


def targets(objects: Objects, config: Config) -> Targets:
    """Draw the targets of one sample (B = 1).

    Notes
    -----
    The bell of a centre follows X. Zhou et al., *Objects as Points*, 2019: its radius grows with the object, so that a
    cell nearby, whose box would still overlap much, costs little; here a quarter of the ground's diagonal.
    """
    n = config.n_cells
    heat = np.zeros((len(CLASSES), n, n), np.float32)
    is_counted = np.ones((len(CLASSES), n, n), bool)
    at = (objects.center_m[:, :2] + config.half_m) / np.float32(config.cell_m)
    cell = np.floor(at).astype(np.int64)
    inside = ((cell >= 0) & (cell < n)).all(axis=1)
    objects, at, cell = objects.take(inside), at[inside], cell[inside]
    radius = np.maximum(np.hypot(*objects.size_lwh_m[:, :2].T) / (4 * config.cell_m), MIN_RADIUS)
    for i in range(len(objects)):
        reach = int(radius[i])
        x, y = cell[i]
        columns = np.arange(max(x - reach, 0), min(x + reach, n - 1) + 1)
        rows = np.arange(max(y - reach, 0), min(y + reach, n - 1) + 1)
        square = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        if objects.is_ignored[i]:
            is_counted[objects.label[i]][square] = False
            continue
        sigma = (2 * radius[i] + 1) / 6
        bell = np.exp(-((rows[:, None] - y) ** 2 + (columns[None] - x) ** 2) / (2 * sigma**2))
        part = heat[objects.label[i]][square]
        np.maximum(part, bell, out=part)
    found = np.flatnonzero(~objects.is_ignored)
    is_counted[objects.label[found], cell[found, 1], cell[found, 0]] = True
    row = np.repeat(found, len(_AROUND))
    shift = np.tile(_AROUND, (len(found), 1))
    where = cell[row] + shift
    kept = ((where >= 0) & (where < n)).all(axis=1)
    row, shift, where = row[kept], shift[kept], where[kept]
    label = objects.label[row]
    values = np.empty((len(row), 10), np.float32)
    values[:, :2] = at[row] - where - 0.5
    values[:, 2] = objects.center_m[row, 2]
    values[:, 3:6] = np.log(objects.size_lwh_m[row])
    values[:, 6], values[:, 7] = np.sin(objects.yaw_rad[row]), np.cos(objects.yaw_rad[row])
    values[~HAS_HEADING[label], 6:8] = np.nan
    values[:, 8:] = objects.velocity_mps[row]
    values[~HAS_VELOCITY[label], 8:] = np.nan
    # a neighbour counts by how likely it is to be the highest: the less, the further the centre is
    weight = np.exp(-((values[:, :2] ** 2).sum(axis=1) - 0.25).clip(0))
    weight[(shift == 0).all(axis=1)] = 1.0
    return Targets(
        heat[None],
        is_counted[None],
        where[:, 1] * n + where[:, 0],
        weight.astype(np.float32),
        _GROUP[label],
        label,
        objects.attribute[row],
        values,
    )


def stacked(parts: list[Targets], config: Config) -> Targets:
    """Put the targets of samples together."""
    columns = [np.concatenate([part[k] for part in parts]) for k in range(len(Targets._fields))]
    columns[2] = np.concatenate([part.place + i * config.n_cells**2 for i, part in enumerate(parts)])
    return Targets(*columns)
