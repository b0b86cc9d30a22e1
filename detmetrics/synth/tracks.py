"""The world of one scene: a road, the ego vehicle's drive along it, and the objects around it with their motion."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from detmetrics.synth.categories import (
    AT_REST,
    ATTRIBUTE_OF_STATE,
    BARRIER,
    BICYCLE,
    CODE,
    DENSITY_OF_KIND,
    FAMILY_OF_KIND,
    KINDS,
    MOVING,
    MOVING_OF_KIND,
    RACK,
    SIZE_OF_KIND,
    WAITING,
    Floats,
    Ints,
)

SAMPLE_S = 0.5  # 2 Hz
_MARGIN_S = 16.0  # objects are also placed before and after the scene, so that the ends are as full as the middle
_MEAN_SECONDS = 11.4  # how long an object is annotated, measured; turns boxes a sample into objects a second
_ROAD_STEP_M = 0.5
_LANE_M = 3.5


@dataclass(frozen=True, eq=False)
class Drive:
    """A road and how far along it the ego vehicle is at each time; metres, seconds, radians."""

    road_m: Floats
    road_xy_m: Floats
    road_yaw_rad: Floats
    time_s: Floats
    travelled_m: Floats

    def on_road(self, along_m: Floats, lateral_m: Floats | float) -> tuple[Floats, Floats]:
        """Position (…, 2) and heading (…) at a distance along the road, ``lateral_m`` to the left of its middle."""
        yaw = np.interp(along_m, self.road_m, self.road_yaw_rad)
        x = np.interp(along_m, self.road_m, self.road_xy_m[:, 0]) - lateral_m * np.sin(yaw)
        y = np.interp(along_m, self.road_m, self.road_xy_m[:, 1]) + lateral_m * np.cos(yaw)
        return np.stack([x, y], axis=-1), yaw

    def travelled(self, time_s: Floats) -> Floats:
        """How far along the road the ego vehicle is."""
        return np.interp(time_s, self.time_s, self.travelled_m)

    def ego_pose(self, time_s: Floats) -> tuple[Floats, Floats]:
        """Translation (N, 3) and rotation (N, 4), real part first, of the ego vehicle at times (N,)."""
        xy, yaw = self.on_road(self.travelled(time_s), 0.0)
        sway = 0.008 * np.sin(0.9 * time_s), 0.006 * np.sin(1.7 * time_s + 1.0)
        return np.concatenate([xy, np.zeros((len(xy), 1))], axis=1), rotation_of_angles(yaw, *sway)


def make_drive(rng: np.random.Generator, end_s: float) -> Drive:
    """Draw a road of straight and curved pieces and a speed that changes along it, with stops."""
    time_s = np.arange(-_MARGIN_S, end_s + _MARGIN_S + 0.05, 0.05)
    knot_s = np.arange(-_MARGIN_S, end_s + _MARGIN_S + 4, 4.0)
    cruise_mps = 0.0 if rng.random() < 0.12 else rng.uniform(2, 13)
    knot_mps = cruise_mps * np.clip(rng.normal(0.9, 0.4, len(knot_s)), 0, 1.4) * (rng.random(len(knot_s)) > 0.12)
    travelled_m = np.cumsum(np.interp(time_s, knot_s, knot_mps)) * 0.05

    road_m = np.arange(-140, travelled_m[-1] + 140, _ROAD_STEP_M)
    n_pieces = len(road_m) // 60 + 1  # 30 m each
    curvature = np.clip(rng.normal(0, 1 / 70, n_pieces), -1 / 25, 1 / 25) * (rng.random(n_pieces) < 0.35)
    yaw = rng.uniform(-np.pi, np.pi) + np.cumsum(curvature[np.arange(len(road_m)) // 60]) * _ROAD_STEP_M
    xy = np.cumsum(np.stack([np.cos(yaw), np.sin(yaw)], axis=1), axis=0) * _ROAD_STEP_M
    return Drive(road_m, xy + rng.uniform((400, 400), (2200, 1800)), yaw, time_s, travelled_m)


@dataclass(frozen=True, eq=False)
class Tracks:
    """Objects as columns (N,): where each is at ``anchor_s``, how it moves, from when to when it is annotated."""

    kind: Ints
    anchor_s: Floats
    start_s: Floats
    end_s: Floats
    along_m: Floats
    lateral_m: Floats
    speed_mps: Floats  # signed: along the road's direction where ``in_lane``, along ``yaw_rad`` elsewhere
    in_lane: NDArray[np.bool_]
    with_ego: NDArray[np.bool_]  # drives as fast as the ego vehicle
    xy_m: Floats
    yaw_rad: Floats
    turn_radps: Floats
    size_lwh_m: Floats
    ground_m: Floats
    tilt_rad: Floats
    attribute: Ints


_GROUP = np.array([kind.group for kind in KINDS])
_GAP_M = np.array([kind.gap_m for kind in KINDS])
_SPEED_MPS = np.array([kind.speed_mps for kind in KINDS])
_DISTANCE_M = np.array([kind.distance_m for kind in KINDS])
_LATERAL_M = np.array([kind.lateral_m for kind in KINDS])


def place(rng: np.random.Generator, drive: Drive, end_s: float, keeps_left: bool) -> Tracks:
    """Draw groups of objects around the ego vehicle: traffic in the lanes, parked cars, people, road works."""
    # how much of a kind a scene has varies a lot: Poisson numbers around a gamma-distributed mean
    mean = DENSITY_OF_KIND * (end_s + 2 * _MARGIN_S) / _MEAN_SECONDS / _GROUP
    kind = np.repeat(np.arange(len(KINDS)), rng.poisson(mean * rng.gamma(1.2, 1 / 1.2, len(KINDS))))
    n = len(kind)
    family = FAMILY_OF_KIND[kind]
    is_vehicle, is_cycle, is_person = (family == name for name in ("vehicle", "cycle", "pedestrian"))
    moves = rng.random(n) < MOVING_OF_KIND[kind]
    waits = is_vehicle & ~moves & (rng.random(n) < 0.25)  # stands in traffic
    crosses = moves & rng.choice([True, False], n, p=[0.15, 0.85]) | moves & ~is_vehicle & ~is_cycle
    in_lane = (moves & ~crosses) | waits

    # across the road: lanes at multiples of 3.5 m, the ego vehicle's own is 0; elsewhere each kind has its strip
    low, high = _LATERAL_M[kind].T
    strip_m = (low + (high - low) * rng.beta(1, 2.2, n)) * rng.choice([-1, 1], n)
    lane = rng.choice([0, -1, 1, 2], n, p=[0.25, 0.25, 0.3, 0.2])
    lane_m = np.where(is_cycle, np.where(lane > 0, 2.6, -1.5), np.where(waits & (lane == 0), -1, lane)) * _LANE_M
    lane_m = np.where(keeps_left, -lane_m, lane_m)
    lateral_m = np.where(in_lane, lane_m, strip_m)
    oncoming = lateral_m < -0.1 if keeps_left else lateral_m > 0.1
    oncoming[in_lane] = (lane > 0)[in_lane]
    with_ego = in_lane & moves & (lateral_m == 0)

    # along the road, at a time at which the ego vehicle is so far away
    anchor_s = rng.uniform(-_MARGIN_S, end_s + _MARGIN_S, n)
    distance_m = np.clip(rng.gamma(3, _DISTANCE_M[kind] / 3), 4, 78)
    ahead_m = np.sqrt(np.maximum(distance_m**2 - lateral_m**2, 0)) * rng.choice([-1, 1], n)
    ahead_m = np.where(with_ego & (np.abs(ahead_m) < 9), np.copysign(9, ahead_m), ahead_m)
    along_m = drive.travelled(anchor_s) + ahead_m
    speed_mps = np.where(moves, _SPEED_MPS[kind] * rng.gamma(6, 1 / 6, n), 0)
    speed_mps = np.where(in_lane & oncoming, -speed_mps, speed_mps)

    # headings relative to the road
    sideways = np.where(rng.random(n) < 0.5, 0.5, -0.5) * np.pi
    any_yaw = rng.uniform(-np.pi, np.pi, n)
    across = crosses & (is_vehicle | is_cycle | (rng.random(n) < 0.3)) | (is_vehicle & ~moves & (rng.random(n) < 0.3))
    yaw = np.where(oncoming, np.pi, 0.0)
    yaw = np.where(is_person & moves, np.where(any_yaw > 0, 0, np.pi), yaw)
    yaw = np.where(across & ~in_lane, sideways, yaw)
    yaw = np.where(kind == BARRIER, sideways, yaw)
    free = ~moves & ~is_vehicle & (kind != BARRIER) & (kind != RACK)
    yaw = np.where(free, any_yaw, yaw) + rng.normal(0, 0.05, n)
    turn_radps = np.where(crosses, rng.normal(0, 0.06, n), 0)
    gap_m = _GAP_M[kind] * np.where(in_lane, 1.6, np.where(is_vehicle & across, 0.5, 1.0))
    state = np.where(moves, MOVING, np.where(waits | (rng.random(n) < 0.15), WAITING, AT_REST))

    # the members of each group
    group = np.repeat(np.arange(n), 1 + rng.poisson(_GROUP[kind] - 1))
    n = len(group)
    place_in_group = np.arange(n) - np.searchsorted(group, group)
    along_m = along_m[group] + place_in_group * gap_m[group] * np.where(ahead_m > 0, 1, -1)[group]
    along_m += rng.normal(0, 0.08, n) * gap_m[group]
    lateral_m = lateral_m[group] + np.where(is_person[group], rng.normal(0, 0.8, n), rng.normal(0, 0.1, n))
    kind = kind[group]
    xy_m, road_yaw = drive.on_road(along_m, lateral_m)
    length_s = np.where(rng.random(n) < 0.06, SAMPLE_S, SAMPLE_S + rng.gamma(2, 8, n))  # some are seen just once
    start_s = anchor_s[group] - rng.random(n) * length_s
    tilt_rad = np.where(kind == RACK, rng.random(n) < 0.4, False)[:, None] * rng.normal(0, 0.03, (n, 2))
    people_size = 1 + 0.5 * (family[group] == "pedestrian")[:, None]
    tracks = Tracks(
        kind=kind,
        anchor_s=anchor_s[group],
        start_s=start_s,
        end_s=start_s + length_s,
        along_m=along_m,
        lateral_m=lateral_m,
        speed_mps=speed_mps[group] * (1 + rng.normal(0, 0.02, n)),
        in_lane=in_lane[group],
        with_ego=with_ego[group],
        xy_m=xy_m,
        yaw_rad=road_yaw + yaw[group] + rng.normal(0, 0.02, n),
        turn_radps=turn_radps[group],
        size_lwh_m=np.round(SIZE_OF_KIND[kind] * np.exp(rng.normal(0, 0.09, (n, 3)) * people_size), 3),
        ground_m=rng.normal(0, 0.15, n),
        tilt_rad=tilt_rad,
        attribute=ATTRIBUTE_OF_STATE[kind, state[group]],
    )
    return _with_bicycles_in_racks(rng, tracks)


def _with_bicycles_in_racks(rng: np.random.Generator, tracks: Tracks) -> Tracks:
    """Put bicycles and a few motorcycles into the racks; most of their centres lie inside, some do not."""
    racks = np.flatnonzero(tracks.kind == RACK)
    parent = np.repeat(racks, rng.poisson(1.2, len(racks)))
    n = len(parent)
    kind = np.where(rng.random(n) < 0.8, BICYCLE, CODE["vehicle.motorcycle"])
    offset_m = tracks.size_lwh_m[parent, :2] * rng.uniform(-0.55, 0.55, (n, 2))
    cos, sin = np.cos(tracks.yaw_rad[parent]), np.sin(tracks.yaw_rad[parent])
    turned_m = np.stack([cos * offset_m[:, 0] - sin * offset_m[:, 1], sin * offset_m[:, 0] + cos * offset_m[:, 1]], 1)
    columns = {name: getattr(tracks, name)[parent] for name in (f.name for f in fields(Tracks))} | {
        "kind": kind,
        "xy_m": tracks.xy_m[parent] + turned_m,
        "yaw_rad": tracks.yaw_rad[parent] + np.pi / 2 + rng.normal(0, 0.1, n),
        "size_lwh_m": np.round(SIZE_OF_KIND[kind] * np.exp(rng.normal(0, 0.09, (n, 3))), 3),
        "tilt_rad": np.zeros((n, 2)),
        "attribute": ATTRIBUTE_OF_STATE[kind, AT_REST],
    }
    return Tracks(**{name: np.concatenate([getattr(tracks, name), added]) for name, added in columns.items()})


def move(drive: Drive, tracks: Tracks, time_s: Floats) -> tuple[Floats, Floats]:
    """Positions (N, S, 2) and headings (N, S) of N tracks at S times: along the lane, or with a constant turn rate."""
    since_s = time_s - tracks.anchor_s[:, None]
    driven_m = tracks.speed_mps[:, None] * since_s
    ego_m = drive.travelled(time_s) - drive.travelled(tracks.anchor_s)[:, None]
    along_m = tracks.along_m[:, None] + np.where(tracks.with_ego[:, None], ego_m, driven_m)
    lane_xy, lane_yaw = drive.on_road(along_m, tracks.lateral_m[:, None])
    at_rest = tracks.yaw_rad - drive.on_road(tracks.along_m, 0.0)[1]  # heading relative to the road

    turned = tracks.turn_radps[:, None] * since_s
    # chord of an arc of length `driven` that turns by `turned`; np.sinc(x) is sin(πx)/(πx)
    chord_m = driven_m * np.sinc(turned / (2 * np.pi))
    chord_yaw = tracks.yaw_rad[:, None] + turned / 2
    free_xy = tracks.xy_m[:, None] + chord_m[..., None] * np.stack([np.cos(chord_yaw), np.sin(chord_yaw)], axis=-1)
    in_lane = tracks.in_lane[:, None]
    xy = np.where(in_lane[..., None], lane_xy, free_xy)
    yaw = np.where(in_lane, lane_yaw + at_rest[:, None], tracks.yaw_rad[:, None] + turned)
    return xy, yaw


def rotation_of_angles(yaw_rad: Floats, pitch_rad: Floats, roll_rad: Floats) -> Floats:
    """Quaternions (N, 4), real part first: roll about x, then pitch about y, then yaw about z."""
    (cy, cp, cr), (sy, sp, sr) = (
        [turn(angle / 2) for angle in (yaw_rad, pitch_rad, roll_rad)] for turn in (np.cos, np.sin)
    )
    return np.stack(
        [
            cy * cp * cr + sy * sp * sr,
            cy * cp * sr - sy * sp * cr,
            cy * sp * cr + sy * cp * sr,
            sy * cp * cr - cy * sp * sr,
        ],
        axis=-1,
    )
