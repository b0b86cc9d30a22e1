"""The lidar on the car: 32 beams that turn while the car moves, and the cloud that one turn leaves.

As nuScenes does it, every point is measured where the sensor was at the point's own time and then brought to the
sensor's frame at the end of the turn, the reference, with the motion of the car alone. A box fits what moved on
meanwhile only if it is drawn where the points are; nuScenes' annotators do that, and so everything but the car stands
here, during a turn, where it is at the reference.

How near its clouds come to a real one, in figures: ``tests/looks/world.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detmetrics.geometry import rotation_matrices
from detmetrics.synth import rays
from detmetrics.synth.categories import Floats, Ints
from detmetrics.synth.sensors import Sensor
from detmetrics.synth.shapes import BOX, SURFACES, placed, solids
from detmetrics.synth.tracks import rotation_of_angles

N_RINGS, N_COLUMNS, TURN_S = 32, 1084, 0.05  # 32 × 1084 is what a nuScenes file holds, rays without return included
#: Elevations of the beams of an HDL-32E, lowest first: steps of 4/3 degree from -30.67 to 10.67.
ELEVATION_RAD: Floats = np.radians(-92 / 3 + 4 / 3 * np.arange(N_RINGS))
#: Cosine and sine of each beam's elevation (R, 2).
BEAMS = np.stack([np.cos(ELEVATION_RAD), np.sin(ELEVATION_RAD)], axis=1)
LIDAR_M = (0.94, 0.0, 1.84)
_TO_CAR = np.array([(0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)])  # its x axis points to the car's right
_AZIMUTH = np.pi - 2 * np.pi * (np.arange(N_COLUMNS) + 0.5) / N_COLUMNS  # clockwise, from the car's left
_IN_TURN_S = -TURN_S * (1 - (np.arange(N_COLUMNS) + 1) / N_COLUMNS)

#: Where a car is at times (S,): x, y, z in metres, then yaw, pitch, roll; (S, 6), in the town's axes.
Ride = Callable[[Floats], Floats]


def lidar_sensor(sweeps: int) -> Sensor:
    """Give the sensor with so many sweeps between key frames."""
    return Sensor("LIDAR_TOP", "lidar", (sweeps, sweeps), 0, LIDAR_M, -90)


class Weather(NamedTuple):
    """Range noise in metres, loss of signal a metre, share of spurious returns, and the range of a faint return."""

    noise_m: float
    loss: float
    spurious: float
    faint_m: float


CLEAR = Weather(0.014, 0.0, 0.0004, 20.0)
NIGHT = Weather(0.014, 0.0, 0.0001, 21.0)  # no sunlight in the detector
RAIN = Weather(0.02, 0.012, 0.006, 14.0)


@dataclass(frozen=True, eq=False)
class View:
    """What a sweep sees: the car's ride, the ground (:class:`detmetrics.synth.town.Town`), what stands, the weather."""

    ride: Ride
    ground: Floats
    streets: Floats
    slope: Floats
    standing: Floats
    weather: Weather


class Sweep(NamedTuple):
    """Points (A·R, 5) float32 as in the file, and for each object the rays alone and the rays that met it (N, 2)."""

    points: NDArray[np.float32]
    counts: Ints | None


def turn(view: View, time_s: float, seed: int, parts: Floats, owner: Ints, pose: Floats, *, count: bool) -> Sweep:
    """Make one sweep.

    Parameters
    ----------
    view : View
    time_s : float
        The reference, when the turn ends.
    seed : int
        Of this sweep's noise.
    parts, owner : float64 (P, 12), int64 (P,)
        Parts of the objects at the origin, and whose they are.
    pose : float64 (N, 4)
        Middle of each object in the levelled town, metres, and heading, at the reference.
    count : bool
        Also count rays, for the visibility.
    """
    columns, shown = _columns(view, time_s)
    things = placed(parts, owner, pose[:, :3], pose[:, 3])
    rows = np.concatenate([view.standing, things])
    lists = _lists(rows, columns)
    shape = (N_COLUMNS, N_RINGS)
    hits = (np.empty(shape), np.empty(shape, np.int64), np.empty(shape))
    rays.cast(columns, BEAMS, lists, rows, SURFACES, (view.ground, view.streets, _own_car()), seed, hits)
    counts = None
    if count:
        counts = np.zeros((len(pose), 2), np.int64)
        met = np.where(hits[1] >= 0, hits[1] - len(view.standing), -1)
        rays.count_rays(columns, BEAMS, _lists(things, columns), things, met, counts)
    points = np.empty((N_COLUMNS * N_RINGS, 5), np.float32)
    sensor = (SURFACES, np.array(view.weather), seed)
    rays.measure(columns, shown, BEAMS, hits, rows, view.streets, sensor, points)
    return Sweep(points, counts)


def _lists(rows: Floats, columns: Floats) -> tuple[Ints, Ints, Floats]:
    near = np.empty(len(rows))
    offsets, listed = rays.list_near(rows, columns, near)
    return offsets, listed, near


def _columns(view: View, time_s: float) -> tuple[Floats, Floats]:
    """Origin, direction at elevation 0 and up of each column, in the levelled town and in the reference's frame."""
    knot_s = np.linspace(-TURN_S, 0, 6)
    knots = view.ride(time_s + knot_s)
    at = np.stack([np.interp(_IN_TURN_S, knot_s, column) for column in knots.T], axis=-1)
    turned = rotation_matrices(rotation_of_angles(at[:, 3], at[:, 4], at[:, 5]))
    origin = at[:, :3] + turned @ np.array(LIDAR_M)
    axes = turned @ _TO_CAR
    flat = axes[:, :, 0] * np.cos(_AZIMUTH)[:, None] + axes[:, :, 1] * np.sin(_AZIMUTH)[:, None]
    columns = np.stack([origin, flat, axes[:, :, 2]], axis=1)  # (A, 3, 3)
    shown = (columns - [origin[-1], np.zeros(3), np.zeros(3)]) @ axes[-1]
    columns[..., 2] -= columns[..., :2] @ view.slope
    return columns.reshape(-1, 9), np.ascontiguousarray(shown.reshape(-1, 9))


@cache
def _own_car() -> Floats:
    """Range (A, R) at which each ray meets the car that carries the sensor: roof, racks, bonnet, boot."""
    boxes = np.array(
        [  # middle and half extents in the sensor's frame: x to the right, y ahead
            (0.0, -0.13, -0.41, 0.50, 0.60, 0.09),
            (0.0, -0.95, -0.62, 0.48, 0.40, 0.15),
            (0.0, 1.55, -1.02, 0.55, 0.55, 0.15),
            (0.0, 0.80, -0.66, 0.48, 0.30, 0.14),
            (-0.46, -0.1, -0.32, 0.03, 0.45, 0.015),
            (0.46, -0.1, -0.32, 0.03, 0.45, 0.015),
        ]
    )
    lift = np.array([0.0, 0.0, 1000.0])  # far above any ground
    rows = solids(BOX, boxes[:, :3] + lift, boxes[:, 3:], "paint")
    columns = np.zeros((N_COLUMNS, 9))
    columns[:, 2], columns[:, 3], columns[:, 4], columns[:, 8] = 1000.0, np.cos(_AZIMUTH), np.sin(_AZIMUTH), 1.0
    shape = (N_COLUMNS, N_RINGS)
    hits = (np.empty(shape), np.empty(shape, np.int64), np.empty(shape))
    nowhere = np.full(shape, 1e9)
    streets = np.zeros((1, 5))
    town = (np.zeros(13), streets, nowhere)
    rays.cast(columns, BEAMS, _lists(rows, columns), rows, 0 * SURFACES, town, 0, hits)
    return np.where(hits[1] >= 0, hits[0], 1e9)
