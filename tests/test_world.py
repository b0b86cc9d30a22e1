"""The lidar world: the same bits for a seed, rays that are exact, truth that agrees with the clouds, a plausible town."""

from __future__ import annotations

import errno
import io as iolib
import json
import re
import runpy
import shutil
import struct
import tracemalloc
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image

import detmetrics as dm
from detmetrics.errors import InputError
from detmetrics.geometry import Pose, ground_corners, points_in_boxes, rotation_matrices, rotation_of_yaw
from detmetrics.io import clouds
from detmetrics.synth import TINY, WORLD_VERSION, lidar, places, rays, room, shapes, world, write_world
from detmetrics.synth.categories import ATTRIBUTE_OF_STATE, CATEGORY_NAMES, CLASS_OF_KIND, FAMILY_OF_KIND, MOVING
from written import TABLES, hashes, table


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "data"
    write_world(out, seed=3, workers=2, **TINY)
    return out


@pytest.fixture(scope="module")
def some() -> list[tuple[Any, places.Place]]:
    """Scenes without clouds: eight towns with their traffic."""
    return [places.make_place_scene(11, "synth_train", number, "scene", 21) for number in range(8)]


# ------------------------------------------------------------------------------------------ the data set


def test_it_is_a_whole_nuscenes_directory(root: Path) -> None:
    rows = {name: table(root, name) for name in TABLES}
    tokens = {name: {row["token"] for row in content} for name, content in rows.items()}
    for name, content in rows.items():
        assert len(tokens[name]) == len(content) > 0, name
        for row in content:
            for key, value in row.items():
                if key.endswith("_token") and key[:-6] in tokens and value:
                    assert value in tokens[key[:-6]], (name, key)
    for name in ("sample", "sample_annotation", "sample_data"):
        by_token = {row["token"]: row for row in rows[name]}
        for row in rows[name]:
            assert not row["next"] or by_token[row["next"]]["prev"] == row["token"]
    named = {row["filename"] for row in rows["sample_data"]}
    there = {str(path.relative_to(root)) for path in root.rglob("*.bin")}
    assert named == there
    assert len(named) == 4 * (4 + 3)
    assert {name.split("/")[0] for name in named} == {"samples", "sweeps"}
    for row in rows["map"]:
        header = (root / row["filename"]).read_bytes()[:33]
        width, height, bits = struct.unpack(">IIB", header[16:25])
        assert header.startswith(b"\x89PNG")
        assert min(width, height) > 2000
        assert bits == 8
    (mount,) = {json.dumps(row["translation"]) for row in rows["calibrated_sensor"]}
    assert mount == "[0.94, 0.0, 1.84]"
    times = sorted(row["timestamp"] for row in rows["sample"] if row["scene_token"] == rows["scene"][0]["token"])
    assert np.diff(times) == pytest.approx(500_000, abs=3000)
    note = json.loads((root / "v1.0-synth" / "world.json").read_text())
    assert note["plan"]["world_version"] == WORLD_VERSION == 1
    assert not list(root.glob("scenes"))


def test_every_tool_reads_the_truth(root: Path) -> None:
    truth = dm.io.nuscenes.load_truth(root, split="synth_val", cache=False)
    assert len(truth) > 20
    assert truth.n_frames == 8
    assert truth.velocity_mps is not None
    assert set(truth.box_columns["visibility"].tolist()) <= {"1", "2", "3", "4", 1, 2, 3, 4}
    assert len(set(truth.box_columns["visibility"].tolist())) > 1
    assert {text.split(",")[0] for text in truth.frame_columns["description"].tolist()} <= {"Day", "Night"}


def test_train_and_val_share_nothing(root: Path) -> None:
    splits = json.loads((root / "v1.0-synth" / "splits.json").read_text())
    scenes, logs = table(root, "scene"), {row["token"]: row for row in table(root, "log")}
    log_of = {row["name"]: row["log_token"] for row in scenes}
    maps = {log: row["token"] for row in table(root, "map") for log in row["log_tokens"]}
    used = [{log_of[name] for name in splits[split]} for split in ("synth_train", "synth_val")]
    assert not used[0] & used[1]
    assert not {maps[log] for log in used[0]} & {maps[log] for log in used[1]}
    assert not {logs[log]["location"] for log in used[0]} & {logs[log]["location"] for log in used[1]}
    made = {
        split: [places.make_place_scene(3, split, number, "scene", 4) for number in range(3)]
        for split in ("synth_train", "synth_val")
    }  # fmt: skip
    for train, place in made["synth_train"]:
        for val, other in made["synth_val"]:
            assert train.key != val.key
            assert not np.array_equal(place.town.ground, other.town.ground)
            assert place.town.streets.shape != other.town.streets.shape or not np.allclose(
                place.town.streets, other.town.streets
            )
            assert not set(map(tuple, place.town.standing[:, :2])) & set(map(tuple, other.town.standing[:, :2]))
            assert train.stream(places.BEAMS).integers(2**62) != val.stream(places.BEAMS).integers(2**62)


def test_same_bytes_for_any_workers_and_after_an_interruption(root: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 28
        if done == 17:
            raise KeyboardInterrupt

    out = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        write_world(out, seed=3, workers=1, progress=interrupt, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == [".data.partial"]
    with pytest.raises(InputError, match="other settings"):
        write_world(out, seed=4, **TINY)
    counts: list[int] = []
    again = write_world(out, seed=3, workers=3, progress=lambda done, total: counts.append(done), **TINY)
    assert again.n_resumed == 2
    assert counts == list(range(15, 29))
    assert hashes(out) == hashes(root)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_full_disk(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(world.shutil, "disk_usage", lambda path: usage(10, 9, 1000))
    with pytest.raises(InputError, match="too little room"):
        write_world(tmp_path / "new" / "a", **TINY)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    original, n_written = Path.write_bytes, 0

    def write_bytes(self: Path, data: bytes) -> int:
        nonlocal n_written
        n_written += 1
        if n_written == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(InputError, match=r"No space left.*goes on from there"):
        write_world(tmp_path / "data", seed=3, workers=1, **TINY)
    assert not (tmp_path / "data").exists()
    monkeypatch.undo()
    write_world(tmp_path / "data", seed=3, **TINY)
    assert hashes(tmp_path / "data") == hashes(root)


def test_two_runs_do_not_meet(tmp_path: Path) -> None:
    refused: list[str] = []

    def second(done: int, total: int) -> None:
        if done == 1:
            with pytest.raises(InputError, match="another run") as caught:
                write_world(tmp_path / "x", train_scenes=1, val_scenes=0, samples_per_scene=2, sweeps=0)
            refused.append(str(caught.value))

    write_world(tmp_path / "x", train_scenes=1, val_scenes=0, samples_per_scene=2, sweeps=0, progress=second)
    assert len(refused) == 1
    assert not (tmp_path / "x" / "sweeps").exists()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"val_scenes": -1}, "val_scenes must be"),
        ({"train_scenes": 0, "val_scenes": 0}, "at least 1"),
        ({"samples_per_scene": 0}, "samples_per_scene must be"),
        ({"sweeps": 10}, "sweeps must be from 0 to 9"),
        ({"seed": -1}, "seed must be"),
        ({"workers": 0}, "workers must be"),
    ],
)
def test_impossible_settings(tmp_path: Path, changes: dict[str, int], text: str) -> None:
    with pytest.raises(InputError, match=text):
        write_world(tmp_path / "x", **(TINY | changes))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="empty or new"):
        write_world(tmp_path / "full", **TINY)
    with pytest.raises(InputError, match="a folder"):
        write_world(tmp_path / "full" / "mine.txt", **TINY)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]


# ------------------------------------------------------------------------------------------ the annotations


def test_points_are_counted_in_the_written_clouds(root: Path) -> None:
    """Again from the files alone, every box with every point."""
    cloud_of = clouds.NuscenesClouds(root)
    rows = table(root, "sample_annotation")
    assert sum(row["num_lidar_pts"] > 0 for row in rows) > 100
    for token in cloud_of.samples[::3]:
        cloud = cloud_of.read(token)
        points = cloud.pose.apply(cloud.points_m)
        for row in (row for row in rows if row["sample_token"] == token):
            local = (points - row["translation"]) @ rotation_matrices(row["rotation"])[0]
            inside = (np.abs(local) <= np.array(row["size"])[[1, 0, 2]] / 2).all(axis=1)
            assert inside.sum() == row["num_lidar_pts"]


def test_points_in_boxes_equals_the_slow_rule() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-40, 40, (3000, 3)) * (1, 1, 0.1)
    center, size = rng.uniform(-50, 50, (200, 3)) * (1, 1, 0.1), rng.uniform(0.2, 9, (200, 3))
    rotation = rng.normal(size=(200, 4))
    box, point = points_in_boxes(points, center, size, rotation)
    turned = rotation_matrices(rotation)
    slow = [
        np.flatnonzero((np.abs((points - c) @ r) <= s / 2).all(1)) for c, s, r in zip(center, size, turned, strict=True)
    ]
    np.testing.assert_array_equal(point, np.concatenate(slow))
    np.testing.assert_array_equal(box, np.repeat(np.arange(200), [len(rows) for rows in slow]))


def test_points_on_the_boundary_are_inside() -> None:
    corner = np.array([(x, y, z) for x in (-2, 2) for y in (-1, 1) for z in (-0.5, 0.5)])
    where = np.array([10.0, -4.0, 1.0])
    box, _ = points_in_boxes(
        np.concatenate([corner + where, corner * 1.0001 + where]), [where], [(4, 2, 1)], [(1, 0, 0, 0)]
    )
    assert len(box) == 8
    for empty in (points_in_boxes(np.empty((0, 3)), [where], [(4, 2, 1)], [(1, 0, 0, 0)]),
                  points_in_boxes(corner, np.empty((0, 3)), np.empty((0, 3)), np.empty((0, 4)))):  # fmt: skip
        assert [len(column) for column in empty] == [0, 0]


def test_points_in_thousands_of_boxes_take_little_memory() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 20, (35_000, 3)) * (1, 1, 0.05)
    center = rng.normal(0, 25, (5000, 3)) * (1, 1, 0.05)
    tracemalloc.start()
    points_in_boxes(points, center, np.full((5000, 3), (4.5, 2, 1.6)), rotation_of_yaw(rng.uniform(-3, 3, 5000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6 < 5000 * 35_000


def test_velocity_agrees_with_the_motion() -> None:
    checked = 0
    for number in range(2):
        scene, place = places.make_place_scene(5, "synth_val", number, "scene", 5)
        key_frames = [(stamp, code) for code, stamp in enumerate(scene.timestamp_us.tolist())]
        scene = places.record(scene, place, key_frames, lambda number, points: None)
        boxes = scene.boxes
        time_s = scene.seconds(scene.timestamp_us)
        pose = place.movers.poses(place.flows, time_s)[1:]
        xy = place.to_global(pose[..., :2])
        for row in range(len(boxes.sample)):
            sample = boxes.sample[row]
            mover = np.flatnonzero(np.abs(xy[:, sample] - boxes.center_m[row, :2]).max(axis=1) < 2e-3)
            assert len(mover) == 1
            prev, after = boxes.prev[row], boxes.next[row]
            if prev >= 0 and after >= 0 and boxes.sample[after] - boxes.sample[prev] == 2:
                moved = (xy[mover[0], sample + 1] - xy[mover[0], sample - 1]) / (
                    time_s[sample + 1] - time_s[sample - 1]
                )
                np.testing.assert_allclose(boxes.velocity_mps[row], moved, atol=3e-3)
                checked += 1
                is_moving = place.movers.state[1:][mover[0]] == MOVING
                assert is_moving or np.abs(moved).max() == 0
    assert checked > 40


def test_nobody_annotates_through_a_long_absence() -> None:
    """Three samples without a point are bridged, four are not; what is too far is left out."""
    scene, place = places.make_place_scene(5, "synth_val", 0, "scene", 13)
    shape = (13, 1)
    n_points = np.array([0, 5, 0, 0, 0, 5, 0, 0, 0, 0, 5, 0, 5])[:, None]
    distance = np.where(np.arange(13) == 12, 96.0, 50.0)[:, None]
    found = places._annotate(
        scene, place.movers.take(np.array([1])), np.zeros((*shape, 3)), np.zeros(shape), distance, n_points,
        np.ones((*shape, 2), np.int64),
    )  # fmt: skip
    assert found.sample.tolist() == [1, 2, 3, 4, 5, 10]
    assert found.n_lidar.tolist() == [5, 0, 0, 0, 5, 5]


def test_attributes_say_what_the_boxes_do(some: list[Any]) -> None:
    for _, place in some:
        words = np.array([*ATTRIBUTE_OF_STATE.ravel()])
        assert words.max() < 8
        movers = place.movers
        moves = movers.poses(place.flows, np.array([0.0, 10.0]))
        moves = np.linalg.norm(moves[:, 1, :2] - moves[:, 0, :2], axis=1) > 0
        named = np.array([*dm.NUSCENES.attributes, ""])[movers.attributes()]
        for name in ("vehicle.parked", "vehicle.stopped", "pedestrian.standing", "cycle.without_rider"):
            assert not moves[named == name].any()
        assert moves[named == "pedestrian.moving"].all()
        assert moves[named == "cycle.with_rider"].all()


def test_visibility_follows_from_occlusion() -> None:
    """A car behind half a wall, another in the open, another behind a whole one."""
    size = np.array([(4.6, 1.9, 1.7)] * 3)
    car = CATEGORY_NAMES.index("vehicle.car")
    parts, owner = shapes.template(np.array([car] * 3), size, np.ones(3))
    pose = np.array([(20.0, 0.0, 0.85, np.pi / 2), (0.0, 20.0, 0.85, 0.0), (-20.0, 0.0, 0.85, np.pi / 2)])
    walls = shapes.solids(
        shapes.BOX,
        np.array([(9.5, 5.0, 1.0), (-9.5, 0.0, 2.0)]),
        np.array([(0.1, 5.0, 3.0), (0.1, 9.0, 4.0)]),
        "concrete",
    )
    sweep = lidar.turn(view(walls), 0.0, 1, parts, owner, pose, count=True)
    assert sweep.counts is not None
    share = sweep.counts[:, 1] / sweep.counts[:, 0]
    assert 0.3 < share[0] < 0.7
    assert share[1] > 0.65  # the windows let rays through
    assert share[2] == 0


# ------------------------------------------------------------------------------------------ the sensor


def view(standing: Any, speed_mps: float = 0.0, weather: lidar.Weather = lidar.CLEAR, turn: float = 0.0) -> lidar.View:
    """A plane without kerbs, under a car that drives along x from the origin, which it reaches at time 0."""

    def ride(time_s: Any) -> Any:
        zero = 0 * time_s
        return np.column_stack([speed_mps * time_s, zero, zero, turn * time_s, zero + 0.01, zero])

    streets = np.array([(0.0, -1e4, 1e4, 0.0, 3.0)])
    return lidar.View(ride, np.zeros(13), streets, np.zeros(2), standing, weather)


NO_PARTS = (np.empty((0, 12)), np.empty(0, np.int64), np.empty((0, 4)))


def test_rays_are_exact() -> None:
    """No ray passes through a solid, and each ends on the surface that it names."""
    rng = np.random.default_rng(4)
    n = 60
    ring, angle = rng.uniform(7, 35, n), rng.uniform(-np.pi, np.pi, n)
    rows = shapes.solids(shapes.BOX, np.column_stack([ring * np.cos(angle), ring * np.sin(angle), 4 * rng.random(n)]), rng.uniform(0.3, 3, (n, 3)), "concrete",
                         rng.uniform(-3, 3, n))  # fmt: skip
    rows[:, shapes.FORM] = np.arange(n) % 3
    columns, _ = lidar._columns(view(rows, 8.0), 0.0)
    columns = columns[::40].copy()
    shape = (len(columns), 32)
    hits = (np.empty(shape), np.empty(shape, np.int64), np.empty(shape))
    everything = (np.array([0, n]), np.arange(n), np.zeros(n))  # one list for all, sorted by nothing
    for first in range(len(columns)):
        part = tuple(array[first : first + 1] for array in hits)
        town = (np.zeros(13), view(rows).streets, np.full((1, 32), 1e9))
        rays.cast(columns[first : first + 1], lidar.BEAMS, everything, rows, shapes.SURFACES, town, 0, part)
    reach, met, _ = hits
    assert (met >= 0).sum() > 150
    cos, sin = np.cos(lidar.ELEVATION_RAD)[:, None], np.sin(lidar.ELEVATION_RAD)[:, None]
    for column in range(len(columns)):
        origin, flat, up = columns[column].reshape(3, 3)
        direction = cos * flat + sin * up
        np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1)
        for ring in range(32):
            steps = np.arange(0.0, min(reach[column, ring], 60.0) - 0.02, 0.05)
            depth = inside(rows, origin + steps[:, None] * direction[ring])
            assert (depth > 1).all()
            if met[column, ring] >= 0:
                end = origin + reach[column, ring] * direction[ring]
                assert inside(rows[met[column, ring]][None], end[None])[0, 0] == pytest.approx(1, abs=1e-9)
            elif met[column, ring] == rays.ROAD:
                assert (origin + reach[column, ring] * direction[ring])[2] == pytest.approx(0, abs=0.005)


def inside(rows: Any, points: Any) -> Any:
    """(points, solids): below 1 inside, 1 on the surface."""
    away = points[:, None] - rows[:, 1:4]
    cos, sin = rows[:, 4], rows[:, 5]
    x = (cos * away[..., 0] + sin * away[..., 1]) / rows[:, 6]
    y = (cos * away[..., 1] - sin * away[..., 0]) / rows[:, 7]
    z = away[..., 2] / rows[:, 8]
    box = np.abs([x, y, z]).max(axis=0)
    cylinder = np.maximum(np.hypot(x, y), np.abs(z))
    return np.choose(rows[:, 0].astype(int), [box, cylinder, np.sqrt(x * x + y * y + z * z)])


def test_lists_leave_nothing_out(some: list[Any]) -> None:
    """The short lists of near solids give the same hits as looking at all of them."""
    _, place = some[0]
    rows = place.town.solids
    columns, _ = lidar._columns(
        lidar.View(place.ride, place.town.ground, place.town.streets, place.town.slope, rows, lidar.CLEAR), 3.0
    )
    shape = (len(columns), 32)
    town = (place.town.ground, place.town.streets, np.full(shape, 1e9))
    found = []
    for lists in (lidar._lists(rows, columns), all_lists(len(rows), len(columns))):
        hits = (np.empty(shape), np.empty(shape, np.int64), np.empty(shape))
        rays.cast(columns, lidar.BEAMS, lists, rows, shapes.SURFACES, town, 7, hits)
        found.append(hits)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def all_lists(n_solids: int, n_columns: int) -> Any:
    n_bins = -(-n_columns // 4)
    return np.arange(n_bins + 1) * n_solids, np.tile(np.arange(n_solids), n_bins), np.zeros(n_solids)


def test_a_cloud_has_nuscenes_layout() -> None:
    walls = shapes.solids(
        shapes.BOX, np.array([(0.0, 30.0, 5.0), (0.0, -30, 5)]), np.array([(60.0, 0.5, 30)] * 2), "concrete"
    )
    calm = lidar.Weather(0.0, 0.0, 0.0, 100.0)
    points = lidar.turn(view(walls, weather=calm), 0.0, 1, *NO_PARTS, count=False).points.reshape(
        lidar.N_COLUMNS, 32, 5
    )
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points[..., 4], np.tile(np.arange(32), (lidar.N_COLUMNS, 1)))
    assert points[..., 3].min() >= 0
    assert points[..., 3].max() <= 255
    distance = np.linalg.norm(points[..., :3], axis=-1)
    elevation = np.degrees(np.arcsin(points[..., 2] / np.maximum(distance, 1e-3)))
    for ring in range(32):
        mine = elevation[:, ring][distance[:, ring] > 3]
        assert np.median(mine) == pytest.approx(-30.667 + ring * 4 / 3, abs=0.01)
    azimuth = np.degrees(np.unwrap(np.arctan2(points[:, 15, 1], points[:, 15, 0])))
    assert np.median(np.diff(azimuth)) == pytest.approx(-360 / 1084, abs=1e-4)  # clockwise
    assert azimuth[0] == pytest.approx(180, abs=0.5)  # from the car's left, which is the sensor's -x


def test_points_are_placed_by_their_own_time() -> None:
    """While the car drives and turns, a wall is still a plane, where it is; without its motion it would not be."""
    walls = shapes.solids(shapes.BOX, np.array([(0.0, 12.0, 5.0)]), np.array([(80.0, 1.0, 20)]), "concrete")
    calm = lidar.Weather(0.0, 0.0, 0.0, 100.0)
    for speed, turn in ((0.0, 0.0), (14.0, 0.0), (9.0, 0.5)):
        points = lidar.turn(view(walls, speed, calm, turn), 0.0, 1, *NO_PARTS, count=False).points[:, :3]
        to_car = Pose.of_quaternion(rotation_of_yaw([np.radians(-90)])[0], lidar.LIDAR_M)
        pitch = Pose(
            np.array([(np.cos(0.01), 0, np.sin(0.01)), (0, 1, 0), (-np.sin(0.01), 0, np.cos(0.01))]), np.zeros(3)
        )
        where = pitch.after(to_car).apply(points)
        on_wall = where[(where[:, 2] > 2.5) & (np.abs(where[:, 1] - 11) < 0.5)]
        assert len(on_wall) > 1500
        np.testing.assert_allclose(on_wall[:, 1], 11.0, atol=2e-4)


def test_rain_loses_returns_and_adds_drops() -> None:
    walls = shapes.solids(
        shapes.BOX, np.array([(0.0, 25.0, 5.0), (0, -25, 5)]), np.array([(90.0, 1.0, 20)] * 2), "wall"
    )
    found = {}
    for name, weather in (("clear", lidar.CLEAR), ("rain", lidar.RAIN), ("night", lidar.NIGHT)):
        points = lidar.turn(view(walls, weather=weather), 0.0, 1, *NO_PARTS, count=False).points
        distance = np.linalg.norm(points[:, :3], axis=1)
        height = points[:, 2] + 1.84
        found[name] = ((distance > 3).sum(), ((distance > 3) & (np.abs(points[:, 0]) < 20) & (height > 0.6)).sum())
    assert found["rain"][0] < 0.95 * found["clear"][0]
    assert found["rain"][1] > 3 * found["night"][1] + 20


def test_far_and_grazing_surfaces_are_lost_more_often() -> None:
    weather = lidar.Weather(0.0, 0.0, 0.0, 11.0)
    walls = shapes.solids(
        shapes.BOX, np.array([(0.0, 60.0, 5.0), (0.0, -15, 5)]), np.array([(90.0, 1.0, 40)] * 2), "wall"
    )
    points = lidar.turn(view(walls, weather=weather), 0.0, 1, *NO_PARTS, count=False).points.reshape(-1, 32, 5)
    upper = np.linalg.norm(points[:, 24:, :3], axis=-1) > 3
    columns = np.arange(lidar.N_COLUMNS)
    ahead, right = np.abs(columns - 271) < 30, np.abs(columns - 813) < 30
    left_wall, right_wall = upper[np.abs(columns) < 30], upper[np.abs(columns - 542) < 30]
    assert left_wall.mean() < 0.5 < right_wall.mean()
    assert upper[ahead].mean() < 0.1
    assert upper[right].mean() < 0.1


def test_kernels_and_materials_agree() -> None:
    names = [material.name for material in shapes.MATERIALS]
    codes = (rays.ASPHALT, rays.CONCRETE, rays.MARKING, rays.EDGE, rays.GRASS, rays.PAINT)
    assert [names[code] for code in codes] == ["asphalt", "pavement", "marking", "kerb", "grass", "paint"]
    where = {
        "road": (3.0, 0.9),
        "crossing": (60.0, 0.9),
        "pavement": (3.0, 7.0),
        "grass": (3.0, 12.0),
        "middle": (3.0, 0.1),
    }
    streets = np.array([(1.0, -5.9, 5.9, 2.4, 3.0), (0.0, 55.0, 65.0, 0.0, 3.0)])
    kinds = {"pavement": rays.PAVEMENT, "grass": rays.PAVEMENT}
    found = {k: names[rays._surface_of_ground(*at, kinds.get(k, rays.ROAD), streets)] for k, at in where.items()}
    assert found == {
        "road": "asphalt",
        "crossing": "asphalt",
        "pavement": "pavement",
        "grass": "grass",
        "middle": "marking",
    }
    assert names[rays._surface_of_ground(3.0, 5.9, rays.KERB, streets)] == "kerb"


def test_kernels_compile_once(root: Path) -> None:
    found = 0
    for name, function in vars(rays).items():
        if hasattr(function, "nopython_signatures"):
            found += 1
            # numba compiles tiny functions once more for constants
            kinds = {re.sub(r"Literal\[int\]\(\d+\)", "int64", str(one)) for one in function.nopython_signatures}
            assert len(kinds) <= 1, (name, kinds)
    assert found >= 9


def test_it_looks_like_the_real_frame() -> None:
    """The figures of the looks script, within bounds that any fault of the sensor would break."""
    pytest.importorskip("PIL", reason="the looks script draws with Pillow")
    looks = runpy.run_path(str(Path(__file__).parent / "looks" / "world.py"))
    frames = [looks["world_frame"](0, number)[0] for number in range(3)]
    share = looks["shares"](frames)
    assert 0.5 < share["ground"] < 0.8
    assert 20_000 < share["points"] < 30_000
    real = looks["real_frame"]()
    if real is None:
        pytest.skip("the real frame is absent: ../shared/data/nuscenes/frame_ca9a282c")
    other = looks["shares"]([real])
    np.testing.assert_allclose(share["rings_deg"][12:], other["rings_deg"][12:], atol=0.25)
    assert abs(share["ground"] - other["ground"]) < 0.15
    assert abs(share["points"] / other["points"] - 1) < 0.2
    assert np.abs(share["intensity"] - other["intensity"]).sum() < 0.4


# ------------------------------------------------------------------------------------------ the traffic


def footprints(place: places.Place, time_s: Any) -> Any:
    """Polygons (N, S) of what is annotated and, first, of the ego vehicle."""
    pose = place.movers.poses(place.flows, time_s)
    size = place.movers.size_lwh_m.copy()
    size[0] = room.EGO_SIZE_M
    pose[0, :, 0] += room.EGO_AHEAD_M * np.cos(pose[0, :, 2])
    pose[0, :, 1] += room.EGO_AHEAD_M * np.sin(pose[0, :, 2])
    flat = pose.reshape(-1, 3)
    corners = ground_corners(
        np.column_stack([flat[:, :2], 0 * flat[:, 0]]), np.repeat(size, len(time_s), axis=0), flat[:, 2]
    )
    return shapely.polygons(corners).reshape(len(pose), len(time_s))


def test_nothing_stands_in_anything_else(some: list[Any]) -> None:
    rack = CATEGORY_NAMES.index("static_object.bicycle_rack")
    for scene, place in some:
        time_s = scene.seconds(scene.timestamp_us)[::2]
        polygons = footprints(place, time_s)
        standing = place.town.standing
        walls = shapely.box(*(standing[:, :2] - standing[:, 2:4] / 2).T, *(standing[:, :2] + standing[:, 2:4] / 2).T)
        kind, group = place.movers.kind, place.movers.group
        for step in range(len(time_s)):
            tree = shapely.STRtree(polygons[:, step])
            first, second = tree.query(polygons[:, step], predicate="intersects")
            pairs = [
                (a, b)
                for a, b in zip(first.tolist(), second.tolist(), strict=True)
                if a < b and not (rack in (kind[a], kind[b]) and group[a] == group[b])
            ]
            assert not pairs
            assert not len(shapely.STRtree(walls).query(polygons[:, step], predicate="intersects")[0])
        assert (standing[:, 4] == 1).any()


def test_motion_is_plausible(some: list[Any]) -> None:
    for scene, place in some:
        time_s = np.arange(0, scene.seconds(scene.timestamp_us)[-1], 0.1)
        pose = place.movers.poses(place.flows, time_s)
        step = np.diff(pose[..., :2], axis=1)
        speed = np.linalg.norm(step, axis=-1) / 0.1
        assert speed.max() < 35
        assert np.abs(np.diff(speed, axis=1)).max() / 0.1 < 9  # nobody brakes harder than a car can
        away = np.arctan2(step[..., 1], step[..., 0]) - pose[:, :-1, 2]
        away = np.abs((away + np.pi) % (2 * np.pi) - np.pi)
        assert away[speed > 0.3].max() < 0.05  # forwards, not sideways
        turn = np.abs(np.diff(pose[..., 2], axis=1)) / 0.1
        assert (turn * speed).max() < 3.2  # nor round a bend faster than a passenger likes
        people = FAMILY_OF_KIND[place.movers.kind] == "pedestrian"
        assert speed[people].max(initial=0) < 3


def test_the_ego_vehicle_keeps_to_its_lane(some: list[Any]) -> None:
    lanes = []
    for scene, place in some:
        time_s = scene.seconds(scene.timestamp_us)
        pose = place.movers.poses(place.flows, time_s)[0]
        assert place.town.is_road(pose[:, 0], pose[:, 1]).all()
        straight = np.abs(pose[:, 2]) < 1e-9
        offset = np.abs(pose[straight, 1]) % 3.5
        np.testing.assert_allclose(offset, 1.75, atol=1e-6)
        position, _ = scene.drive.ego_pose(time_s)
        height = place.height_m(pose[:, :2])
        np.testing.assert_allclose(position[:, 2], height, atol=1e-9)
        lanes.append(pose[0, 1])
    assert len(set(np.sign(lanes))) == 2  # some keep left, some right


def test_the_world_has_what_nuscenes_has(some: list[Any]) -> None:
    kinds = np.concatenate([place.movers.kind[1:] for _, place in some])
    assert set(CLASS_OF_KIND[kinds].tolist()) >= set(range(10))
    names = {CATEGORY_NAMES[kind] for kind in kinds.tolist()}
    assert {"static_object.bicycle_rack", "movable_object.pushable_pullable"} <= names
    states = np.concatenate([place.movers.state[1:] for _, place in some])
    assert len(np.unique(states)) == 3
    assert len({place.town.style.name for _, place in some}) > 2
    told = " ".join(scene.description for scene, _ in some)
    assert "Day" in told
    bent = sum(int((place.movers.bend_rad[1:] != 0).sum()) for _, place in some)
    assert bent > 2
    cars = np.concatenate(
        [place.movers.size_lwh_m[place.movers.kind == CATEGORY_NAMES.index("vehicle.car")] for _, place in some]
    )
    np.testing.assert_allclose(cars.mean(axis=0), (4.62, 1.96, 1.73), rtol=0.05)


def test_the_map_is_in_global_axes(root: Path) -> None:
    """As nuScenes has it: pixel (10 x, H - 10 y) is 255 where (x, y) is in a street."""
    names = {row["log_tokens"][0]: row["filename"] for row in table(root, "map")}
    log_of_scene = {row["token"]: row["log_token"] for row in table(root, "scene")}
    scene_of_sample = {row["token"]: row["scene_token"] for row in table(root, "sample")}
    categories = {row["token"]: row["name"] for row in table(root, "category")}
    category = {row["token"]: categories[row["category_token"]] for row in table(root, "instance")}
    poses = {row["token"]: row["translation"] for row in table(root, "ego_pose")}

    def is_street(sample: str, xyz: list[float]) -> bool:
        with Image.open(root / names[log_of_scene[scene_of_sample[sample]]]) as image:
            assert image.mode == "L"
            value = image.getpixel((round(10 * xyz[0]), image.height - round(10 * xyz[1])))
        assert value in (0, 255)
        return value == 255

    for row in table(root, "sample_data"):
        assert is_street(row["sample_token"], poses[row["ego_pose_token"]])
    found: dict[str, list[bool]] = {"vehicle.car": [], "human.pedestrian.adult": []}
    for row in table(root, "sample_annotation"):
        if (name := category[row["instance_token"]]) in found:
            found[name].append(is_street(row["sample_token"], row["translation"]))
    assert np.mean(found["vehicle.car"]) > 0.8  # some are parked on the pavement
    assert np.mean(found["human.pedestrian.adult"]) < 0.5  # most are on it


def test_a_mask_is_drawn_as_the_slow_rule_says() -> None:
    _, place = places.make_place_scene(5, "synth_val", 3, "scene", 3)
    with Image.open(iolib.BytesIO(world._mask(place))) as image:
        pixels = np.asarray(image)
    rng = np.random.default_rng(0)
    row, column = rng.integers(0, pixels.shape, (20000, 2)).T
    at = place.to_town(np.column_stack([column, len(pixels) - row]) * 0.1)
    area = place.town.area
    inside = (at >= area[::2]).all(axis=1) & (at <= area[1::2]).all(axis=1)
    expected = place.town.is_road(at[:, 0], at[:, 1]) & inside
    assert ((pixels[row, column] == 255) == expected).mean() > 0.9999  # but for places on an edge, to rounding
    assert 0.05 < expected.mean() < 0.6
    np.testing.assert_allclose(place.to_town(place.to_global(at)), at, atol=1e-9)


# ------------------------------------------------------------------------------------------ clouds


def test_sweeps_join_in_the_reference_frame(root: Path) -> None:
    reader = clouds.NuscenesClouds(root)
    data = {row["token"]: row for row in table(root, "sample_data")}
    token = reader.samples[2]
    single, both = reader.read(token), reader.read(token, n_sweeps=2, drop_close_m=1.0)
    (row,) = (row for row in data.values() if row["sample_token"] == token and row["is_key_frame"])
    before = data[row["prev"]]
    assert single.timestamp_us == row["timestamp"]
    lag = 1e-6 * (before["timestamp"] - row["timestamp"])
    assert sorted(set(both.time_s.tolist())) == pytest.approx([lag, 0])
    ego = {one["token"]: one for one in table(root, "ego_pose")}
    mount = Pose.of_quaternion(*(table(root, "calibrated_sensor")[0][key] for key in ("rotation", "translation")))
    poses = [Pose.of_quaternion(ego[one["ego_pose_token"]]["rotation"], ego[one["ego_pose_token"]]["translation"]).after(mount)
             for one in (row, before)]  # fmt: skip
    raw = clouds.read_nuscenes(root / before["filename"])
    far = (np.abs(raw.points_m[:, :2]) >= 1).any(axis=1)
    moved = poses[0].inverse().apply(poses[1].apply(raw.points_m[far]))
    np.testing.assert_allclose(both.points_m[both.time_s < 0], moved, atol=1e-4)
    assert len(reader.read(reader.samples[0], n_sweeps=9)) == len(single)  # nothing before the first
    assert single.ring.max() == 31


def test_sweeps_in_a_circle_are_refused(tmp_path: Path, root: Path) -> None:
    """Where those too near in time are skipped, a circle would be walked for ever."""
    shutil.copytree(root / "v1.0-synth", tmp_path / "v1.0-synth")
    (tmp_path / "samples").symlink_to(root / "samples")
    (tmp_path / "sweeps").symlink_to(root / "sweeps")
    rows = table(tmp_path, "sample_data")
    first = next(i for i, row in enumerate(rows) if not row["prev"] and row["is_key_frame"])
    rows[first]["prev"] = rows[first]["token"]
    (tmp_path / "v1.0-synth" / "sample_data.json").write_text(json.dumps(rows))
    reader = clouds.NuscenesClouds(tmp_path)
    for gap_s in (0.0, 0.1):
        with pytest.raises(InputError, match="comes before itself"):
            reader.read(rows[first]["sample_token"], n_sweeps=5, gap_s=gap_s)


def test_bad_clouds(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "x.pcd.bin"
    with pytest.raises(InputError, match="cannot read"):
        clouds.read_nuscenes(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty file"):
        clouds.read_nuscenes(path)
    path.write_bytes(bytes(16 * 3))
    with pytest.raises(InputError, match="20 bytes"):
        clouds.read_nuscenes(path)
    points = np.zeros((4, 5), np.float32)
    points[2, 1] = np.nan
    path.write_bytes(points.tobytes())
    with pytest.raises(InputError, match=r"point 2 must be finite numbers.*x\.pcd\.bin"):
        clouds.read_nuscenes(path)
    reader = clouds.NuscenesClouds(root)
    with pytest.raises(InputError, match="no cloud of sample 'nobody'"):
        reader.read("nobody")
    with pytest.raises(InputError, match="n_sweeps"):
        reader.read(reader.samples[0], n_sweeps=0)
    with pytest.raises(InputError, match="no calibrated sensor 'LIDAR_BACK'"):
        clouds.NuscenesClouds(root, channel="LIDAR_BACK")
    with pytest.raises(InputError, match="at least one"):
        clouds.join([])


# ------------------------------------------------------------------------------------------ frozen


def test_the_world_of_a_seed_stays(tmp_path: Path) -> None:
    """Models are trained on it and name its version. Tolerances are for the last bit of another processor's sine."""
    frozen = Path(__file__).parent / "frozen"
    expected = json.loads((frozen / "lidar_world.json").read_text())
    made = runpy.run_path(str(frozen / "make_world.py"))["make"](tmp_path)
    assert made["world_version"] == expected["world_version"] == WORLD_VERSION
    assert list(made["scenes"]) == list(expected["scenes"])
    for name, scene in expected["scenes"].items():
        other = made["scenes"][name]
        assert other["description"] == scene["description"]
        np.testing.assert_allclose(other["boxes"], scene["boxes"], atol=2e-3)
        np.testing.assert_allclose(other["points_in_boxes"], scene["points_in_boxes"], atol=2)
        for frame, other_frame in zip(scene["frames"], other["frames"], strict=True):
            np.testing.assert_allclose(other_frame["points_by_ring"], frame["points_by_ring"], atol=2)
            np.testing.assert_allclose(other_frame["mean"], frame["mean"], atol=0.01)
            np.testing.assert_allclose(other_frame["deviation"], frame["deviation"], atol=0.01)


# ------------------------------------------------------------------------------------------ the oracle


@pytest.mark.parity
def test_the_devkit_sees_the_same_world(root: Path) -> None:
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is in the parity environment only")
    from nuscenes import NuScenes
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import points_in_box

    nusc = NuScenes(version="v1.0-synth", dataroot=str(root), verbose=False)
    reader = clouds.NuscenesClouds(root)
    truth = dm.io.nuscenes.load_truth(root, scenes=[row["name"] for row in nusc.scene], cache=False)
    assert len(truth) == len(nusc.sample_annotation)
    n_boxes = 0
    for sample in nusc.sample:
        record = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        path, boxes, _ = nusc.get_sample_data(record["token"])
        theirs = LidarPointCloud.from_file(path).points
        ours = reader.read(sample["token"])
        np.testing.assert_array_equal(ours.points_m, theirs[:3].T)
        code = truth.frames.index(sample["token"])
        rows = np.flatnonzero(truth.frame == code)
        assert len(rows) == len(boxes)
        by_place = {tuple(np.round(truth.center_m[row], 3)): row for row in rows}
        for box in boxes:
            note = nusc.get("sample_annotation", box.token)
            row = by_place[tuple(np.round(note["translation"], 3))]
            n_inside = points_in_box(box, theirs[:3]).sum()
            assert abs(int(n_inside) - note["num_lidar_pts"]) <= 1  # their frame rounds otherwise at the very boundary
            assert truth.num_points[row] == note["num_lidar_pts"]
            velocity = nusc.box_velocity(box.token)[:2]
            np.testing.assert_allclose(truth.velocity_mps[row], velocity, atol=1e-9)
            n_boxes += 1
        many, lag = LidarPointCloud.from_file_multisweep(nusc, sample, "LIDAR_TOP", "LIDAR_TOP", nsweeps=3)
        joined = reader.read(sample["token"], n_sweeps=3, drop_close_m=1.0)
        np.testing.assert_allclose(joined.points_m, many.points[:3].T, atol=2e-3)
        np.testing.assert_allclose(joined.time_s, -lag[0], atol=1e-6)
    assert n_boxes == len(truth)
    for record in nusc.sample_data:
        (mask,) = (row["mask"] for row in nusc.map if _log_of(nusc, record) in row["log_tokens"])
        x, y, _ = nusc.get("ego_pose", record["ego_pose_token"])["translation"]
        assert mask.is_on_mask(x, y).all()


def _log_of(nusc: Any, record: dict[str, Any]) -> str:
    sample = nusc.get("sample", record["sample_token"])
    log: str = nusc.get("scene", sample["scene_token"])["log_token"]
    return log
