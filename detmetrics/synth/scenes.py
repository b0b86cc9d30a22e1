"""The world: seeded scenes in which the ego vehicle drives along a road and everything else stands or moves around it.

A scene depends on the data set's seed, its split and its number within the split, on nothing else: how many other
scenes are made does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

import msgspec
import numpy as np

from detmetrics.errors import InputError
from detmetrics.geometry import wrap_angle
from detmetrics.synth.categories import CATEGORY_NAMES, CODE, FAMILY_OF_KIND, KINDS, Floats, Ints
from detmetrics.synth.tracks import (
    SAMPLE_S,
    Drive,
    Tracks,
    make_drive,
    move,
    place,
    rotation_of_angles,
)

Split = Literal["synth_train", "synth_val"]

SPLITS: tuple[Split, ...] = ("synth_train", "synth_val")

# What a stream of random numbers is for; with the split and the number of the scene it makes the stream's key.
WORLD, SAMPLE_TOKENS, TOKENS, SENSOR_TOKENS, STATIC_TOKENS, PREDICTIONS, PLACE, BEAMS = range(8)

_LOCATIONS = (  # name, share of the scenes, vehicle, hours from UTC
    ("boston-seaport", 0.55, "n008", -4),
    ("singapore-onenorth", 0.2, "n015", 8),
    ("singapore-hollandvillage", 0.12, "n015", 8),
    ("singapore-queenstown", 0.13, "n015", 8),
)
LOCATIONS = tuple(name for name, *_ in _LOCATIONS)


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a data set is made from; ``synth.json`` holds it."""

    seed: int
    train_scenes: int
    val_scenes: int
    samples_per_scene: int

    def check(self) -> None:
        """Refuse counts that make no data set, as InputError."""
        for name in ("seed", "train_scenes", "val_scenes"):
            if getattr(self, name) < 0:
                raise InputError(name, expected="zero or more", got=getattr(self, name))
        if self.train_scenes + self.val_scenes < 1:
            raise InputError("train_scenes + val_scenes", expected="at least 1", got=0)
        if self.samples_per_scene < 1:
            raise InputError("samples_per_scene", expected="at least 1", got=self.samples_per_scene)

    def n_scenes(self, split: Split) -> int:
        """Count the scenes of a split."""
        return self.train_scenes if split == "synth_train" else self.val_scenes

    def scene_names(self, split: Split) -> list[str]:
        """Names of a split's scenes; train comes first, val goes on counting."""
        first = 1 if split == "synth_train" else 1 + self.train_scenes
        return [f"scene-{number:04d}" for number in range(first, first + self.n_scenes(split))]

    def scenes(self, split: Split) -> Iterator[Scene]:
        """Make a split's scenes one after the other."""
        for number, name in enumerate(self.scene_names(split)):
            yield make_scene(self.seed, split, number, name, self.samples_per_scene)

    def fingerprint(self) -> str:
        """SHA-256 of the first scene, to find out whether another numpy makes other scenes (hex)."""
        split: Split = "synth_train" if self.train_scenes else "synth_val"
        scene = next(self.scenes(split))
        parts = (scene.timestamp_us, scene.boxes.center_m, scene.boxes.kind, scene.boxes.velocity_mps)
        return hashlib.sha256("".join(scene.sample_token).encode() + b"".join(p.tobytes() for p in parts)).hexdigest()


@dataclass(frozen=True, eq=False)
class SceneBoxes:
    """The annotations of one scene as columns (A,), sample by sample; ``prev`` and ``next`` are rows, -1 for none."""

    sample: Ints
    track: Ints
    kind: Ints
    center_m: Floats
    size_lwh_m: Floats
    rotation_wxyz: Floats
    velocity_mps: Floats
    attribute: Ints
    visibility: Ints
    n_lidar: Ints
    n_radar: Ints
    prev: Ints
    next: Ints


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene: its samples (key frames), the drive, the annotations."""

    key: tuple[int, int, int]
    name: str
    location: str
    vehicle: str
    start: datetime
    description: str
    timestamp_us: Ints
    sample_token: list[str]
    drive: Drive
    boxes: SceneBoxes

    def stream(self, purpose: int) -> np.random.Generator:
        """Random numbers for a purpose, e.g. :data:`TOKENS`."""
        return stream(purpose, *self.key)

    def seconds(self, timestamp_us: Ints) -> Floats:
        """Seconds since the first sample."""
        seconds: Floats = 1e-6 * (timestamp_us - self.timestamp_us[0])
        return seconds


def stream(purpose: int, seed: int, *key: int) -> np.random.Generator:
    """Give the random numbers of one purpose of one scene."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, *key)))


def tokens(rng: np.random.Generator, count: int) -> list[str]:
    """Draw tokens of 32 hexadecimal characters."""
    digits = rng.bytes(16 * count).hex()
    return [digits[start : start + 32] for start in range(0, len(digits), 32)]


def make_scene(seed: int, split: Split, number: int, name: str, n_samples: int) -> Scene:
    """Make scene ``number`` of a split; ``name`` and ``n_samples`` are given, the rest follows from the seed."""
    key = (seed, SPLITS.index(split), number)
    rng = stream(WORLD, *key)
    location, _, vehicle, from_utc = _LOCATIONS[rng.choice(len(_LOCATIONS), p=[share for _, share, *_ in _LOCATIONS])]
    night, rain = rng.random() < 0.12, rng.random() < 0.2
    start = datetime(2018, 6, 1, tzinfo=timezone(timedelta(hours=from_utc))) + timedelta(
        days=int(rng.integers(150)),
        hours=int(rng.integers(19, 23) if night else rng.integers(9, 18)),
        microseconds=int(rng.integers(3_600_000_000)),
    )
    timestamp_us = _sample_times_us(rng, start, n_samples)
    time_s = 1e-6 * (timestamp_us - timestamp_us[0])
    drive = make_drive(rng, time_s[-1])
    keeps_left = location.startswith("singapore")
    boxes = _annotate(rng, drive, time_s, timestamp_us, place(rng, drive, time_s[-1], keeps_left), rain)
    return Scene(
        key=key,
        name=name,
        location=location,
        vehicle=vehicle,
        start=start,
        description=_describe(drive, boxes, time_s, night, rain),
        timestamp_us=timestamp_us,
        sample_token=tokens(stream(SAMPLE_TOKENS, *key), n_samples),
        drive=drive,
        boxes=boxes,
    )


def _sample_times_us(rng: np.random.Generator, start: datetime, n_samples: int) -> Ints:
    """Key frames at 2 Hz; in one scene of twelve the recording pauses once for longer than velocities are given for."""
    step_s = SAMPLE_S + np.clip(rng.normal(0, 0.0003, n_samples), -0.002, 0.002)
    pause, pause_s, after = rng.random() < 1 / 12, rng.uniform(2.8, 6.0), rng.integers(1, max(n_samples, 2))
    if pause and after < n_samples:
        step_s[after] += pause_s
    step_s[0] = 0
    return round(start.timestamp() * 1e6) + np.round(1e6 * np.cumsum(step_s)).astype(np.int64)


def _annotate(
    rng: np.random.Generator, drive: Drive, time_s: Floats, timestamp_us: Ints, tracks: Tracks, rain: bool
) -> SceneBoxes:
    """Decide which objects are annotated in which sample, and what the annotations say."""
    n_tracks = len(tracks.kind)
    xy, yaw = move(drive, tracks, time_s)
    from_ego = xy - drive.ego_pose(time_s)[0][:, :2]
    distance = np.linalg.norm(from_ego, axis=-1)
    seen = (time_s >= tracks.start_s[:, None]) & (time_s < tracks.end_s[:, None])
    seen &= distance < np.clip(rng.normal(76, 9, n_tracks), 50, 90)[:, None]
    hidden_from = tracks.start_s + rng.uniform(0.5, 4, n_tracks)  # a few are hidden for longer than velocities allow
    hidden_to = hidden_from + np.where(rng.random(n_tracks) < 0.05, rng.uniform(1.6, 4, n_tracks), 0)
    seen &= (time_s < hidden_from[:, None]) | (time_s >= hidden_to[:, None])

    sample, track = np.nonzero(seen.T)
    n = len(sample)
    kind, size = tracks.kind[track], tracks.size_lwh_m[track]
    moving = tracks.speed_mps[track] != 0
    xy, yaw, distance, from_ego = (
        xy[track, sample],
        yaw[track, sample],
        distance[track, sample],
        from_ego[track, sample],
    )
    xy = xy + rng.normal(0, 0.03, (n, 2)) * moving[:, None]
    center = np.round(np.concatenate([xy, (tracks.ground_m[track] + size[:, 2] / 2)[:, None]], axis=1), 3)

    visible = np.clip(rng.beta(2, 0.6, n_tracks)[track] + rng.normal(0, 0.1, n), 0.02, 1)
    aspect = yaw - np.arctan2(from_ego[:, 1], from_ego[:, 0])
    face_m2 = size[:, 2] * (size[:, 0] * np.abs(np.sin(aspect)) + size[:, 1] * np.abs(np.cos(aspect)))
    n_lidar = rng.poisson((2400 if rain else 3200) * face_m2 * visible**2 / np.maximum(distance, 3) ** 2)
    radar_mean = np.where(FAMILY_OF_KIND[kind] == "vehicle", np.where(moving, 2.0, 1.0), 0.15)
    n_radar = rng.poisson(radar_mean * visible * np.minimum(1, 25 / np.maximum(distance, 1)))
    attribute = np.where(rng.random(n) < 0.015, -1, tracks.attribute[track])

    prev, after = neighbours(sample, track)
    return SceneBoxes(
        sample=sample,
        track=np.unique(track, return_inverse=True)[1],
        kind=kind,
        center_m=center,
        size_lwh_m=size,
        rotation_wxyz=rotation_of_angles(wrap_angle(yaw), *tracks.tilt_rad[track].T),
        velocity_mps=velocity(center, timestamp_us[sample], prev, after),
        attribute=attribute,
        visibility=1 + np.searchsorted([0.4, 0.6, 0.8], visible),
        n_lidar=n_lidar,
        n_radar=n_radar,
        prev=prev,
        next=after,
    )


def neighbours(sample: Ints, track: Ints) -> tuple[Ints, Ints]:
    """Rows of each annotation's predecessor and successor on its track, -1 for none."""
    order = np.lexsort((sample, track))
    same = track[order][1:] == track[order][:-1]
    before, after = order[:-1][same], order[1:][same]
    prev, following = np.full((2, len(sample)), -1)
    prev[after] = before
    following[before] = after
    return prev, following


def velocity(center_m: Floats, timestamp_us: Ints, prev: Ints, following: Ints) -> Floats:
    """Velocity (A, 2) as the devkit's ``box_velocity`` gives it: across both neighbours, NaN over too long a time."""
    row = np.arange(len(prev))
    first, last = np.where(prev < 0, row, prev), np.where(following < 0, row, following)
    took_s = 1e-6 * timestamp_us[last] - 1e-6 * timestamp_us[first]
    known = (first != last) & (took_s <= np.where((prev >= 0) & (following >= 0), 3.0, 1.5))
    with np.errstate(invalid="ignore", divide="ignore"):
        velocity = (center_m[last, :2] - center_m[first, :2]) / took_s[:, None]
    return np.where(known[:, None], velocity, np.nan)


def _describe(drive: Drive, boxes: SceneBoxes, time_s: Floats, night: bool, rain: bool) -> str:
    """Say in a few words what the scene is like, as nuScenes does."""
    names = [KINDS[kind].name for kind in np.unique(boxes.kind)]
    per_sample = np.bincount(boxes.kind, minlength=len(KINDS)) / len(time_s)
    driven_m = drive.travelled(time_s)
    turned = np.ptp(np.interp(driven_m, drive.road_m, drive.road_yaw_rad))
    people = per_sample[[name.startswith("human") for name in CATEGORY_NAMES]].sum()
    said = {
        "Night": night,
        "Rain": rain,
        "turn": turned > 0.7,
        "wait at intersection": np.ptp(driven_m) < 2,
        "high speed": np.ptp(driven_m) > 10 * (time_s[-1] - time_s[0]) > 0,
        "many pedestrians": people > 10,
        "parked cars": per_sample[CODE["vehicle.car"]] > 15,
        "construction": "vehicle.construction" in names or "human.pedestrian.construction_worker" in names,
        "cones and barriers": {"movable_object.trafficcone", "movable_object.barrier"} <= set(names),
        "bicycle rack": "static_object.bicycle_rack" in names,
        "police": "vehicle.emergency.police" in names,
    }
    text = ", ".join(word for word, holds in said.items() if holds) or "street"
    return text[0].upper() + text[1:]
