"""One scene of the lidar world: its place, weather, drive and traffic, its sweeps, and the truth that follows.

A scene depends on the data set's seed, its split and its number within the split, and shares its town with no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from detmetrics.geometry import Pose, points_in_boxes, rotation_of_yaw, wrap_angle
from detmetrics.synth import lidar
from detmetrics.synth.categories import CATEGORY_NAMES, Floats, Ints
from detmetrics.synth.motion import STEP_S, EgoWay, Flows, Movers, draw_flow, slowed
from detmetrics.synth.scenes import (
    BEAMS,
    PLACE,
    SAMPLE_TOKENS,
    SPLITS,
    Scene,
    SceneBoxes,
    Split,
    neighbours,
    stream,
    tokens,
    velocity,
)
from detmetrics.synth.shapes import template
from detmetrics.synth.town import LANE_M, STYLES, Town, make_town
from detmetrics.synth.tracks import SAMPLE_S, Drive, rotation_of_angles
from detmetrics.synth.traffic import fill

_LONGEST_GAP = 3  # samples without a point after which nobody annotates on
_FAR_M = 95.0
_WHEELBASE_M, _TRACK_M = 2.6, 1.5


@dataclass(frozen=True, eq=False)
class TownDrive(Drive):
    """The ego vehicle's drive through a town, whose axes are turned and moved into the global frame."""

    place: Place

    def ego_pose(self, time_s: Floats) -> tuple[Floats, Floats]:
        """Translation (N, 3) and rotation (N, 4), real part first, at times (N,) since the first sample."""
        at = self.place.ride(time_s)
        place = np.concatenate([self.place.to_global(at[:, :2]), at[:, 2:3]], axis=1)
        return place, rotation_of_angles(wrap_angle(at[:, 3] + self.place.yaw_rad), at[:, 4], at[:, 5])


@dataclass(frozen=True, eq=False)
class Place:
    """A town with its traffic, and where it lies: the town's origin and heading in the global frame."""

    town: Town
    movers: Movers
    flows: Flows
    origin_m: Floats
    yaw_rad: float
    weather: lidar.Weather

    def to_global(self, xy_m: Floats) -> Floats:
        """Turn and move places on the ground (…, 2)."""
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        moved: Floats = xy_m @ np.array([(cos, sin), (-sin, cos)]) + self.origin_m
        return moved

    def to_town(self, xy_m: Floats) -> Floats:
        """Bring places on the ground (…, 2) back from the global frame."""
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        moved: Floats = (xy_m - self.origin_m) @ np.array([(cos, -sin), (sin, cos)])
        return moved

    def corners_m(self) -> Floats:
        """Corners of the town (4, 2) in the global frame."""
        area = self.town.area
        return self.to_global(np.array([(x, y) for x in area[:2] for y in area[2:]]))

    def height_m(self, xy_m: Floats) -> Floats:
        """Height of the ground at places in the town (…, 2), slope included."""
        height: Floats = self.town.level_m(xy_m[..., 0], xy_m[..., 1]) + xy_m @ self.town.slope
        return height

    def ride(self, time_s: Floats) -> Floats:
        """Where the ego vehicle is, see :data:`detmetrics.synth.lidar.Ride`: on the ground, on four wheels."""
        time_s = np.atleast_1d(time_s)
        xy_yaw = self.movers.take(np.array([0])).poses(self.flows, time_s)[0]
        xy, yaw = xy_yaw[:, :2], xy_yaw[:, 2]
        ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
        left = np.stack([-ahead[:, 1], ahead[:, 0]], axis=-1) * _TRACK_M / 2
        rear, front, near, far = (
            self.height_m(xy + offset) for offset in (0 * ahead, _WHEELBASE_M * ahead, left, -left)
        )
        pitch = -np.arctan2(front - rear, _WHEELBASE_M) + 0.004 * np.sin(1.7 * time_s)
        roll = np.arctan2(near - far, _TRACK_M) + 0.003 * np.sin(2.3 * time_s + 1.0)
        return np.column_stack([xy, rear, yaw, pitch, roll])

    def poses(self, time_s: float) -> Floats:
        """Middle in the levelled town and heading (N, 4) of all but the ego vehicle at a time."""
        at = self.movers.poses(self.flows, np.array([time_s]))[1:, 0]
        level = self.town.level_m(at[:, 0], at[:, 1]) + self.movers.size_lwh_m[1:, 2] / 2
        return np.column_stack([at[:, :2], level, at[:, 2]])


def make_place_scene(seed: int, split: Split, number: int, name: str, n_samples: int) -> tuple[Scene, Place]:
    """Make a scene without annotations, and its place."""
    key = (seed, SPLITS.index(split), number)
    rng = stream(PLACE, *key)
    style = STYLES[int(rng.choice(len(STYLES), p=[style.share for style in STYLES]))]
    night, rain = rng.random() < 0.12, rng.random() < 0.2
    left = rng.random() < 0.45
    start = datetime(2018, 6, 1, tzinfo=timezone(timedelta(hours=8 if left else -4))) + timedelta(
        days=int(rng.integers(150)),
        hours=int(rng.integers(19, 23) if night else rng.integers(9, 18)),
        microseconds=int(rng.integers(3_600_000_000)),
    )
    step_s = SAMPLE_S + np.clip(rng.normal(0, 0.0003, n_samples), -0.002, 0.002)
    step_s[0] = 0
    timestamp_us = round(start.timestamp() * 1e6) + np.round(1e6 * np.cumsum(step_s)).astype(np.int64)
    end_s = float(1e-6 * (timestamp_us[-1] - timestamp_us[0]))

    time_s = np.arange(-2.0, end_s + 2.0, STEP_S)
    turn = 0 if style.name == "highway" or rng.random() < 0.7 else int(rng.choice([-1, 1]))
    turn_at_s = rng.uniform(0.2, 0.7) * end_s
    flow = draw_flow(rng, time_s, style.speed_mps)
    way, crossing_m = _way(turn, left, int(rng.integers(style.lanes)), float(np.interp(turn_at_s, time_s, flow)))
    if crossing_m is None:
        crossing_m = rng.uniform(25, 70)
    else:
        flow = slowed(time_s, flow, way.bend_at_m, way.radius_m * np.pi / 2, way.radius_m)
    travelled = float(np.interp(end_s, time_s, flow))
    town = make_town(rng, style, travelled, way.turn, crossing_m)
    movers, flows = fill(rng, town, way, flow, time_s, left)
    weather = lidar.RAIN if rain else lidar.NIGHT if night else lidar.CLEAR
    margin_m, yaw = rng.uniform(20, 60, 2), float(rng.uniform(-np.pi, np.pi))
    place = Place(town, movers, flows, np.zeros(2), yaw, weather)
    # the map's corner, and with it the mask's, is the global origin
    place = replace(place, origin_m=margin_m - place.corners_m().min(axis=0))
    none = np.empty(0)  # the columns of a plain drive
    return Scene(
        key=key,
        name=name,
        location=f"synth-{split.removeprefix('synth_')}-{number:04d}",
        vehicle="n015" if left else "n008",
        start=start,
        description=_describe(place, end_s, night, rain),
        timestamp_us=timestamp_us,
        sample_token=tokens(stream(SAMPLE_TOKENS, *key), n_samples),
        drive=TownDrive(none, none, none, none, none, place),
        boxes=NO_BOXES,
    ), place


def _way(turn: int, left: bool, lane_number: int, turned_at_m: float) -> tuple[EgoWay, float | None]:
    """Lane and bend of the ego vehicle, and where the street must cross into which it turns."""
    side = -1 if left else 1
    if turn and turned_at_m > 20:
        is_near = turn == -side
        number = lane_number if is_near else 0
        radius = 6.5 if is_near else 13.0
        lane_y = -side * (number + 0.5) * LANE_M
        middle = turned_at_m
        # it leaves in the first lane of the other street, which lies to this side of that street's middle
        into = middle + (-0.5 * LANE_M if is_near else 0.5 * LANE_M)
        return EgoWay(lane_y, turn, into - radius, radius), middle
    return EgoWay(-side * (lane_number + 0.5) * LANE_M, 0, np.inf, 1.0), None


def _describe(place: Place, end_s: float, night: bool, rain: bool) -> str:
    """Say what the scene is like: light, weather, district, and what happens."""
    movers = place.movers
    way = movers.poses(place.flows, np.linspace(0.0, end_s, 9))[..., :2]
    near = np.linalg.norm(way - way[0], axis=-1).min(axis=1) < 25
    names = {CATEGORY_NAMES[kind] for kind in np.unique(movers.kind[near]).tolist()}
    people = sum(CATEGORY_NAMES[kind].startswith("human") for kind in movers.kind[near].tolist())
    said = {
        "Night" if night else "Day": True,
        "rain": rain,
        {"city": "city street", "dense": "dense traffic"}.get(place.town.style.name, place.town.style.name): True,
        "turn": bool(movers.bend_rad[0]),
        "wait": float(np.ptp(way[0], axis=0).max()) < 3,
        "many pedestrians": people > 12,
        "bicycle rack": "static_object.bicycle_rack" in names,
        "construction": "vehicle.construction" in names or "human.pedestrian.construction_worker" in names,
    }
    return ", ".join(word for word, holds in said.items() if holds)


_NONE: Ints = np.empty(0, np.int64)
NO_BOXES = SceneBoxes(
    sample=_NONE, track=_NONE, kind=_NONE, center_m=np.empty((0, 3)), size_lwh_m=np.empty((0, 3)),
    rotation_wxyz=np.empty((0, 4)), velocity_mps=np.empty((0, 2)), attribute=_NONE, visibility=_NONE, n_lidar=_NONE,
    n_radar=_NONE, prev=_NONE, next=_NONE,
)  # fmt: skip


def record(
    scene: Scene,
    place: Place,
    sweeps: list[tuple[int, int]],
    write: Callable[[int, NDArray[np.float32]], None],
) -> Scene:
    """Make all sweeps of a scene and annotate it.

    Parameters
    ----------
    scene, place : Scene, Place
        As :func:`make_place_scene` gives them.
    sweeps : list of (int, int)
        Timestamp in microseconds of each sweep, and the sample of which it is the key frame or -1.
    write : callable
        Called with the number of each sweep and its points (N, 5), float32.

    Returns
    -------
    Scene
        With its annotations.
    """
    town, movers = place.town, place.movers
    objects = movers.take(np.arange(1, len(movers.kind)))
    parts, owner = template(objects.shapes(), objects.size_lwh_m, objects.tone)
    view = lidar.View(place.ride, town.ground, town.streets, town.slope, town.solids, place.weather)
    seeds = scene.stream(BEAMS).integers(0, 2**62, len(sweeps)).tolist()
    n, n_samples = len(objects.kind), len(scene.timestamp_us)
    center = np.zeros((n_samples, n, 3))
    yaw, distance = np.zeros((2, n_samples, n))
    n_points, counts = np.zeros((n_samples, n), np.int64), np.zeros((n_samples, n, 2), np.int64)
    calibrated = Pose.of_quaternion(rotation_of_yaw([np.radians(-90)])[0], lidar.LIDAR_M)
    for number, ((timestamp_us, sample), seed) in enumerate(zip(sweeps, seeds, strict=True)):
        time_s = float(1e-6 * (timestamp_us - scene.timestamp_us[0]))
        pose = place.poses(time_s)
        sweep = lidar.turn(view, time_s, seed, parts, owner, pose, count=sample >= 0)
        write(number, sweep.points)
        if sample < 0 or sweep.counts is None:
            continue
        counts[sample] = sweep.counts
        height = pose[:, 2:3] + pose[:, :2] @ town.slope[:, None]
        center[sample] = np.round(np.concatenate([place.to_global(pose[:, :2]), height], axis=1), 3)
        yaw[sample] = wrap_angle(pose[:, 3] + place.yaw_rad)
        where, turned = scene.drive.ego_pose(np.array([time_s]))
        distance[sample] = np.linalg.norm(center[sample, :, :2] - where[0, :2], axis=-1)
        near = np.flatnonzero(distance[sample] < _FAR_M + 10)
        found = Pose.of_quaternion(turned[0], where[0]).after(calibrated).apply(sweep.points[:, :3])
        box, _ = points_in_boxes(
            found, center[sample, near], objects.size_lwh_m[near], rotation_of_yaw(yaw[sample, near])
        )
        n_points[sample, near] = np.bincount(box, minlength=len(near))
    return replace(scene, boxes=_annotate(scene, objects, center, yaw, distance, n_points, counts))


def _annotate(
    scene: Scene, objects: Movers, center: Floats, yaw: Floats, distance: Floats, n_points: Ints, counts: Ints
) -> SceneBoxes:
    """Annotate each object from its first point to its last, but not through a long absence."""
    seen = (n_points > 0) & (distance < _FAR_M)
    order = np.arange(len(seen))[:, None]
    last = np.maximum.accumulate(np.where(seen, order, -(10**6)), axis=0)
    following = np.minimum.accumulate(np.where(seen, order, 10**6)[::-1], axis=0)[::-1]
    sample, row = np.nonzero(seen | ((following - last <= _LONGEST_GAP + 1) & (distance < _FAR_M)))
    share = counts[sample, row, 1] / np.maximum(counts[sample, row, 0], 1)
    track = np.unique(row, return_inverse=True)[1]
    prev, after = neighbours(sample, track)
    center_m = center[sample, row]
    return SceneBoxes(
        sample=sample,
        track=track,
        kind=objects.kind[row],
        center_m=center_m,
        size_lwh_m=objects.size_lwh_m[row],
        rotation_wxyz=rotation_of_yaw(yaw[sample, row]),
        velocity_mps=velocity(center_m, scene.timestamp_us[sample], prev, after),
        attribute=objects.attributes()[row],
        visibility=1 + np.searchsorted([0.4, 0.6, 0.8], share, side="right"),
        n_lidar=n_points[sample, row],
        n_radar=np.zeros(len(row), np.int64),
        prev=prev,
        next=after,
    )
