"""Leaks between training and validation are found, each by its own trace; shifts are told from chance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detmetrics.boxes import Boxes
from detmetrics.detector import leaks
from detmetrics.detector.leaks import check, fingerprint
from detmetrics.detector.shifts import shifts
from detmetrics.errors import InputError
from detmetrics.io.clouds import NuscenesClouds, read_nuscenes
from detmetrics.io.nuscenes import load_recordings, load_truth
from detmetrics.synth import TINY, write_dataset, write_world

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "nuscenes"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("leaks") / "data"
    write_world(out, seed=11, workers=2, **TINY)
    return out


@pytest.fixture
def root(world: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(world, tmp_path / "data"))


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Boxes, Boxes]:
    """Boxes of many short scenes, train and val alike."""
    out = tmp_path_factory.mktemp("drives") / "data"
    write_dataset(out, train_scenes=16, val_scenes=12, seed=2, samples_per_scene=8)
    train, val = (load_truth(out, split=f"synth_{name}", cache=False) for name in ("train", "val"))
    return train, val


def edit(root: Path, table: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = root / "v1.0-synth" / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def scene_of_samples(root: Path) -> dict[str, str]:
    folder = root / "v1.0-synth"
    names = {row["token"]: row["name"] for row in json.loads((folder / "scene.json").read_text())}
    return {row["token"]: names[row["scene_token"]] for row in json.loads((folder / "sample.json").read_text())}


def on_one_map(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["location"] = "town"


def test_a_clean_split_is_clean(world: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = check(world, "synth_train", "synth_val", progress=lambda done, total: seen.append((done, total)))
    assert found.refusals == ()
    assert found.warnings == ()
    assert seen[-1] == (16, 16)
    assert found.to_text().startswith("no leak between train and val\n")
    assert all(row.is_real is None for row in found.shifts), "2 and 2 scenes say nothing"
    assert "too few scenes" in found.to_text()


def test_shared_scenes(world: Path) -> None:
    found = check(world, ["scene-0001", "scene-0002"], ["scene-0002", "scene-0003"])
    assert found.refusals == ("1 scene is in both: 'scene-0002'",), "told once, not as log, samples, clouds again"


def test_shared_logs(root: Path) -> None:
    def same_log(rows: list[dict[str, Any]]) -> None:
        rows[3]["log_token"] = rows[0]["log_token"]

    edit(root, "scene", same_log)
    (told,) = check(root, "synth_train", "synth_val", clouds=False).refusals
    assert told.startswith("1 val scene is cut from the drives (logs) of train scenes: 'n0")


def test_shared_tracks(root: Path) -> None:
    where = scene_of_samples(root)

    def same_track(rows: list[dict[str, Any]]) -> None:
        train = next(row for row in rows if where[row["sample_token"]] == "scene-0001")
        val = next(row for row in rows if where[row["sample_token"]] == "scene-0003")
        val["instance_token"] = train["instance_token"]

    edit(root, "sample_annotation", same_track)
    (told,) = check(root, "synth_train", "synth_val", clouds=False).refusals
    assert told.startswith("1 track is in both, under different scenes: ")


@pytest.mark.parametrize(
    ("apart_s", "is_leak"), [(0.0, True), (2.4, True), (30.0, False), (-2.4, True), (-30.0, False)]
)
def test_overlapping_time_on_one_map(root: Path, apart_s: float, is_leak: bool) -> None:
    """Tiny scenes last 1.5 s; a gap under a second is a split inside a drive."""
    where = scene_of_samples(root)

    def at_once(rows: list[dict[str, Any]]) -> None:
        train, val = (
            sorted(row["timestamp"] for row in rows if where[row["token"]] == name)
            for name in ("scene-0001", "scene-0003")
        )
        for row in rows:
            if where[row["token"]] == "scene-0003":
                row["timestamp"] += train[0] - val[0] + round(1e6 * apart_s)

    edit(root, "sample", at_once)
    assert not check(root, "synth_train", "synth_val", clouds=False).refusals, "two towns at once"
    edit(root, "log", on_one_map)
    told = check(root, "synth_train", "synth_val", clouds=False).refusals
    assert told == (
        ("val and train scenes overlap in time on one map: 'scene-0003 and scene-0001'",) if is_leak else ()
    )


def test_one_vehicle_in_two_towns_at_once_is_odd(root: Path) -> None:
    where = scene_of_samples(root)

    def at_once(rows: list[dict[str, Any]]) -> None:
        train, val = (
            min(row["timestamp"] for row in rows if where[row["token"]] == name)
            for name in ("scene-0001", "scene-0003")
        )
        for row in rows:
            row["timestamp"] += (train - val) * (where[row["token"]] == "scene-0003")

    def one_vehicle(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["vehicle"] = "n008"

    edit(root, "sample", at_once)
    edit(root, "log", one_vehicle)
    found = check(root, "synth_train", "synth_val", clouds=False)
    assert found.refusals == ()
    assert "one vehicle overlap in time on two maps: 'scene-0003 and scene-0001'" in found.warnings[0]


@pytest.mark.parametrize("copy", ["same", "noise", "thin", "turned", "all", "scaled"])
def test_copied_clouds(root: Path, copy: str) -> None:
    rng = np.random.default_rng(4)
    train, val = (load_truth(root, split=f"synth_{name}", cache=False) for name in ("train", "val"))
    clouds = NuscenesClouds(root)
    source, target = (Path(clouds.read(boxes.frames[1]).source) for boxes in (train, val))
    points = np.fromfile(source, np.float32).reshape(-1, 5)
    if copy in ("thin", "all"):
        points = points[rng.random(len(points)) < 0.5]
    if copy in ("noise", "all"):
        points[:, :3] += rng.normal(0, 0.03, (len(points), 3))
    if copy in ("turned", "all"):
        cos, sin = np.cos(2.0), np.sin(2.0)
        points[:, :2] = points[:, :2] @ np.array([[cos, sin], [-sin, cos]])
    if copy == "scaled":
        points[:, :3] *= 1.05  # stated as not found
    points.astype("<f4").tofile(target)
    told = check(root, "synth_train", "synth_val").refusals
    if copy == "scaled":
        assert told == ()
        return
    assert len(told) == 1
    assert told[0].startswith("1 of 8 val clouds are near-identical to train clouds")
    assert train.frames[1] in told[0]
    assert val.frames[1] in told[0]


def test_different_scenes_are_far_from_copies(world: Path) -> None:
    truth = load_truth(world, scenes=list(load_recordings(world)), cache=False)
    clouds = NuscenesClouds(world)
    prints = np.array([fingerprint(clouds.read(name)) for name in truth.frames])
    scene = truth.frame_columns["scene"]
    assert (prints @ prints.T)[scene[:, None] != scene].max() < leaks.SIMILARITY - 0.03


def test_a_cloud_without_points_in_reach_is_no_copy(root: Path) -> None:
    clouds = NuscenesClouds(root)
    train, val = (load_truth(root, split=f"synth_{name}", cache=False) for name in ("train", "val"))
    for boxes in (train, val):
        np.zeros((10, 5), np.float32).tofile(clouds.read(boxes.frames[0]).source)
    assert not fingerprint(clouds.read(train.frames[0])).any()
    assert check(root, "synth_train", "synth_val").refusals == ()


def test_neighbours_in_place(root: Path) -> None:
    truth = {name: load_truth(root, split=f"synth_{name}", cache=False) for name in ("train", "val")}
    target = truth["train"].ego_xy_m[0]
    data = {
        row["ego_pose_token"]
        for row in json.loads((root / "v1.0-synth/sample_data.json").read_text())
        if row["sample_token"] == truth["val"].frames[2]
    }

    def drive_there(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["token"] in data:
                row["translation"][:2] = [target[0] + 4.9, target[1]]

    edit(root, "ego_pose", drive_there)
    assert check(root, "synth_train", "synth_val", clouds=False).warnings == (), "another map"
    edit(root, "log", on_one_map)
    (told,) = check(root, "synth_train", "synth_val", clouds=False).warnings
    assert told.startswith("12% of the val samples (1 of 8) lie within 5 m of a train sample on the same map")


def test_within_is_what_all_pairs_say() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.uniform(-30, 30, (200, 2)), rng.uniform(-30, 30, (40, 2))
    slow = (np.linalg.norm(one[:, None] - other, axis=2) <= leaks.NEIGHBOUR_M).any(axis=1)
    assert 20 < slow.sum() < 180
    np.testing.assert_array_equal(leaks._within(one, other), slow)


def test_alike_sets_are_seldom_called_shifted(drives: tuple[Boxes, Boxes]) -> None:
    """The rule holds for all quantities together: about 5 % of the splits show any."""
    boxes = drives[0]
    scenes = np.unique(boxes.frame_columns["scene"])
    shifted = 0
    for seed in range(12):
        mine = np.random.default_rng(seed).permutation(scenes)[:8]
        is_mine = np.isin(boxes.frame_columns["scene"], mine)
        result = shifts(boxes.take(np.flatnonzero(is_mine)), boxes.take(np.flatnonzero(~is_mine)))
        assert len(result) > 20
        assert [row.excess for row in result] == sorted((row.excess for row in result), reverse=True)
        shifted += any(row.is_real for row in result)
    assert shifted <= 3


@pytest.mark.parametrize(
    ("what", "first"),
    [
        ("size", ("length", "width", "height")),
        ("points", ("points",)),
        ("range", ("range",)),
        ("class", ("class",)),
        ("condition", ("condition 'fog'",)),
    ],
)
def test_a_shift_is_found(drives: tuple[Boxes, Boxes], what: str, first: tuple[str, ...]) -> None:
    train, val = drives
    labels = list(val.labels or ())
    change: dict[str, Any] = {
        "size": {"size_lwh_m": val.size_lwh_m * 1.3},
        "points": {"num_points": val.num_points * 5 + 3 if val.num_points is not None else None},
        "range": {"center_m": val.center_m + np.array([40.0, 0, 0])},
        "class": {
            "label": np.where(val.label == labels.index("vehicle.car"), labels.index("vehicle.truck"), val.label)
        },
        "condition": {"frame_columns": {**val.frame_columns, "description": np.full(val.n_frames, "Fog")}},
    }[what]
    result = shifts(train, val.replace(**change))
    found = [row for row in result if row.is_real and any(word in row.what for word in first)]
    assert found, result[:3]
    assert result[0].is_real
    assert all(0 < row.chance < row.distance <= 1 for row in found)


def test_the_table_of_shifts(drives: tuple[Boxes, Boxes]) -> None:
    train, val = drives
    rows = shifts(train, val.replace(size_lwh_m=val.size_lwh_m * 1.3))
    text = leaks.Findings((), (), rows).to_text(3)
    n_real = sum(bool(row.is_real) for row in rows)
    assert f"shifts: {n_real} of {len(rows)} beyond chance" in text
    assert text.count("shifted") == 3
    assert text.endswith(f"and {n_real - 3} more")


def test_distance_is_total_variation(drives: tuple[Boxes, Boxes]) -> None:
    train, val = drives
    (mix,) = [row for row in shifts(train, val) if row.what == "class"]
    from detmetrics.protocols import NUSCENES

    def share(boxes: Boxes) -> np.ndarray:
        assert boxes.labels
        tasks = [NUSCENES.task_of(name) for name in boxes.labels]
        code = np.array([-1 if task is None else task for task in tasks])[boxes.label]
        counts = np.bincount(code[code >= 0], minlength=10)
        return counts / counts.sum()

    assert mix.distance == pytest.approx(np.abs(share(train) - share(val)).sum() / 2, abs=1e-12)


def test_bad_input(root: Path) -> None:
    with pytest.raises(InputError, match="no split 'no'"):
        check(root, "synth_train", "no")
    with pytest.raises(InputError, match="no scenes 'scene-9999'"):
        check(root, "synth_train", ["scene-9999"])
    cloud = next((root / "samples" / "LIDAR_TOP").glob("*val-0000*.bin"))
    cloud.unlink()
    with pytest.raises(InputError, match=f"cannot read .*{cloud.name[:20]}"):
        check(root, "synth_train", "synth_val")
    edit(root, "sample_data", lambda rows: rows.remove(next(row for row in rows if row["is_key_frame"])))
    with pytest.raises(InputError, match="no key frame of"):
        check(root, "synth_train", "synth_val")


@pytest.mark.skipif(not REAL.exists(), reason="real data lies in ../shared/data, which is not here")
def test_real_tables() -> None:
    """Two real scenes, of Boston and of Singapore."""
    recordings = load_recordings(REAL / "minival_tables")
    assert {name: one.vehicle for name, one in recordings.items()} == {"scene-0103": "n008", "scene-0916": "n015"}
    found = check(REAL / "minival_tables", ["scene-0103"], ["scene-0916"], clouds=False)
    assert found.refusals == ()
    assert (
        "leak: 1 scene is in both" in check(REAL / "minival_tables", "mini_val", ["scene-0916"], clouds=False).to_text()
    )


@pytest.mark.skipif(not REAL.exists(), reason="real data lies in ../shared/data, which is not here")
def test_a_real_cloud_and_its_copies() -> None:
    cloud = read_nuscenes(next((REAL / "frame_ca9a282c").glob("*.bin")))
    rng = np.random.default_rng(0)
    from dataclasses import replace

    own = fingerprint(cloud)
    half = replace(
        cloud, points_m=cloud.points_m[rng.random(len(cloud)) < 0.5] + rng.normal(0, 0.02, 3).astype(np.float32)
    )
    assert own @ fingerprint(half) > leaks.SIMILARITY
    assert own @ fingerprint(replace(cloud, points_m=cloud.points_m * np.float32([-1, 1, 1]))) > leaks.SIMILARITY
