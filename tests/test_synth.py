"""Synthetic scenes: the same bytes for a seed, tables that hold together, a world within bounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import detmetrics as dm
from detmetrics.errors import InputError
from detmetrics.synth import make_boxes, predictions, scenes, sensors, tables, write_dataset, write_predictions
from written import TABLES, hashes, table


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "data"
    write_dataset(out, train_scenes=2, val_scenes=3, seed=5, samples_per_scene=20)
    write_predictions(out, out / "val.json", split="synth_val", seed=5, boxes_per_sample=60)
    return out


def test_the_same_seed_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_dataset(again, train_scenes=2, val_scenes=3, seed=5, samples_per_scene=20)
    write_predictions(again, again / "val.json", split="synth_val", seed=5, boxes_per_sample=60)
    assert hashes(again) == hashes(root)
    other = tmp_path / "other"
    write_dataset(other, train_scenes=2, val_scenes=3, seed=6, samples_per_scene=20)
    assert hashes(other)["v1.0-synth/sample_annotation.json"] != hashes(root)["v1.0-synth/sample_annotation.json"]


def test_a_scene_does_not_depend_on_how_many_there_are(root: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "fewer", train_scenes=0, val_scenes=1, seed=5, samples_per_scene=20)
    fewer = dm.io.nuscenes.load_truth(tmp_path / "fewer", cache=False)
    more = dm.io.nuscenes.load_truth(root, cache=False)
    first = more.frame_columns["scene"] == more.frame_columns["scene"][0]
    np.testing.assert_array_equal(fewer.center_m, more.take(np.flatnonzero(first)).center_m)


def test_tables_hold_together(root: Path) -> None:
    rows = {name: table(root, name) for name in TABLES}
    tokens = {name: {row["token"] for row in content} for name, content in rows.items()}
    for name, content in rows.items():
        assert len(tokens[name]) == len(content), f"tokens of {name} repeat"
        for row in content:
            for key, value in row.items():
                if key.endswith("_token") and key[:-6] in tokens and value:
                    assert value in tokens[key[:-6]], (name, key)
    for name in ("sample", "sample_annotation", "sample_data"):
        by_token = {row["token"]: row for row in rows[name]}
        for row in rows[name]:
            if row["next"]:
                assert by_token[row["next"]]["prev"] == row["token"]
    for instance in rows["instance"]:
        chain = [row for row in rows["sample_annotation"] if row["instance_token"] == instance["token"]]
        assert len(chain) == instance["nbr_annotations"]
        assert chain[0]["token"] == instance["first_annotation_token"]
    for scene in rows["scene"]:
        assert sum(row["scene_token"] == scene["token"] for row in rows["sample"]) == scene["nbr_samples"]
    splits = json.loads((root / "v1.0-synth" / "splits.json").read_text())
    assert not set(splits["synth_train"]) & set(splits["synth_val"])
    assert (len(splits["synth_train"]), len(splits["synth_val"])) == (2, 3)
    for row in rows["map"]:
        assert (root / row["filename"]).read_bytes().startswith(b"\x89PNG")


def test_the_world_has_what_the_rules_ask_about() -> None:
    truth, pred = make_boxes(n_frames=800, seed=0, boxes_per_sample=60)
    labels = set(truth.labels or ())
    assert {dm.NUSCENES.mapping[label] for label in labels & set(dm.NUSCENES.mapping)} == set(dm.NUSCENES.labels)
    assert "static_object.bicycle_rack" in labels
    assert len(labels - set(dm.NUSCENES.mapping)) > 4
    assert truth.velocity_mps is not None
    assert 0.001 < np.isnan(truth.velocity_mps).any(axis=1).mean() < 0.2
    assert truth.num_points is not None
    assert 0.005 < (truth.num_points == 0).mean() < 0.5
    far = np.hypot(*(truth.center_m[:, :2] - truth.ego_xy_m[truth.frame]).T)
    assert 55 < far.max() < 130
    assert (far > 50).mean() > 0.02
    ledger = dm.match(truth, pred, dm.NUSCENES)
    assert 8 < len(ledger.truth_rows) / ledger.n_frames < 60
    scores = dm.score(ledger)
    assert 0.3 < scores.nds < 0.9
    assert 0.3 < scores.mean_ap < 0.9
    assert set(dm.Fate) - {dm.Fate.EXTRA_FRAME, dm.Fate.OVER_CAP} <= set(ledger.truth_fate.tolist())


def test_all_sensors(tmp_path: Path) -> None:
    write_dataset(tmp_path / "all", train_scenes=0, val_scenes=1, seed=0, samples_per_scene=4, sensor_rows=True)
    rows = table(tmp_path / "all", "sample_data")
    assert len({row["calibrated_sensor_token"] for row in rows}) == 12
    assert 40 < len(rows) / 4 < 110
    assert sum(row["is_key_frame"] for row in rows) == 4 * 12
    assert len(table(tmp_path / "all", "ego_pose")) == len(rows)


def test_vehicles_drive_forwards() -> None:
    truth, _ = make_boxes(n_frames=200, seed=0)
    assert truth.velocity_mps is not None
    speed = np.hypot(*truth.velocity_mps.T)
    is_vehicle = np.array([name.startswith("vehicle.") for name in truth.labels or ()])[truth.label]
    moves = is_vehicle & (speed > 1.5)
    away = np.arctan2(*truth.velocity_mps[moves, ::-1].T) - truth.yaw_rad[moves]
    assert moves.sum() > 300
    assert (np.cos(away) > 0.9).all()


def test_a_recording_belongs_to_the_nearest_sample(tmp_path: Path) -> None:
    write_dataset(tmp_path / "all", train_scenes=0, val_scenes=1, seed=0, samples_per_scene=4, sensor_rows=True)
    time_us = {row["token"]: row["timestamp"] for row in table(tmp_path / "all", "sample")}
    rows = table(tmp_path / "all", "sample_data")
    offset_us = {sensor.channel: sensor.offset_us for sensor in sensors.SENSORS}  # the shutter's, of every picture
    own_us = [row["timestamp"] - offset_us[row["filename"].split("/")[1]] for row in rows]
    away = [abs(own - time_us[row["sample_token"]]) for own, row in zip(own_us, rows, strict=True)]
    least = [min(abs(own - one) for one in time_us.values()) for own in own_us]
    assert np.subtract(away, least).max() <= 1  # half a microsecond between two samples


def test_velocities_end_at_long_gaps() -> None:
    """As the devkit has it: 1.5 s from a box to its only neighbour, 3 s between two neighbours."""
    seconds = np.array([0.0, 1.4, 1.4 + 1.6, 10.0, 11.6, 20.0, 21.4])
    track = np.array([0, 0, 0, 1, 1, 2, 2])
    center = np.stack([2 * seconds, 0 * seconds, 0 * seconds], axis=1)
    prev, after = scenes.neighbours(np.arange(7), track)
    assert prev.tolist() == [-1, 0, 1, -1, 3, -1, 5]
    speed = scenes.velocity(center, np.round(1e6 * seconds).astype(np.int64), prev, after)[:, 0]
    np.testing.assert_allclose(speed, [2, 2, np.nan, np.nan, np.nan, 2, 2])


def test_in_memory_is_what_the_files_say(root: Path) -> None:
    truth, pred = make_boxes(n_frames=60, seed=5, samples_per_scene=20, boxes_per_sample=60)
    of_files = dm.io.nuscenes.load_truth(root, split="synth_val", cache=False)
    assert truth.frames == of_files.frames
    np.testing.assert_array_equal(truth.center_m, of_files.center_m)
    np.testing.assert_allclose(truth.velocity_mps, of_files.velocity_mps, atol=1e-9)  # type: ignore[arg-type]
    ours = dm.evaluate(truth, pred, dm.NUSCENES)
    theirs = dm.evaluate(of_files, dm.io.nuscenes.load_results(root / "val.json"), dm.NUSCENES)
    assert ours.nds == pytest.approx(theirs.nds, abs=1e-9)


def test_ties_and_unknown_velocities_on_request(root: Path, tmp_path: Path) -> None:
    write_predictions(root, tmp_path / "r.json", split="synth_val", score_decimals=1, nan_velocity_share=0.3)
    assert "NaN" in (tmp_path / "r.json").read_text()
    pred = dm.io.nuscenes.load_results(tmp_path / "r.json")
    assert pred.score is not None
    assert len(np.unique(pred.score)) <= 11
    assert pred.velocity_mps is not None
    assert 0.2 < np.isnan(pred.velocity_mps).any(axis=1).mean() < 0.4
    worse = tmp_path / "worse.json"
    write_predictions(root, worse, split="synth_val", quality=0.3)
    truth = dm.io.nuscenes.load_truth(root, split="synth_val", cache=False)
    assert (
        dm.evaluate(truth, dm.io.nuscenes.load_results(worse), dm.NUSCENES).nds
        < dm.evaluate(truth, pred, dm.NUSCENES).nds
    )


@pytest.mark.parametrize(
    "changes", [{"val_scenes": -1}, {"train_scenes": 0, "val_scenes": 0}, {"samples_per_scene": 0}, {"seed": -1}]
)
def test_impossible_sizes(tmp_path: Path, changes: dict[str, int]) -> None:
    with pytest.raises(InputError):
        write_dataset(tmp_path / "x", **{"train_scenes": 1, "val_scenes": 1, **changes})
    assert not list(tmp_path.iterdir())


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="empty"):
        write_dataset(tmp_path / "full", train_scenes=1, val_scenes=1)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "x", train_scenes=1, val_scenes=1, samples_per_scene=3, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert tables.VERSION == "v1.0-synth"


def test_a_second_box_of_an_object_has_a_lower_score(root: Path) -> None:
    """By 2 before the logistic curve, and a little for its larger error."""
    falls: list[float] = []
    for scene in tables.read_plan(root).scenes("synth_val"):
        found = predictions._found(np.random.default_rng(0), scene, predictions.Detector(200))
        boxes = scene.boxes
        away = np.linalg.norm(found.center_m[:, None] - boxes.center_m, axis=2)
        meant = np.where(found.sample[:, None] == boxes.sample, away, np.inf).argmin(axis=1)
        is_copy = np.append(False, meant[1:] == meant[:-1])
        logit = np.log(found.score / (1 - found.score))
        falls += (logit[:-1] - logit[1:])[is_copy[1:]].tolist()
    assert len(falls) > 100
    assert 1.7 < np.median(falls) < 2.5


@pytest.mark.parity
def test_the_official_evaluator_reads_it(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is in the parity environment only")
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    from compare import furthest

    nusc = NuScenes(version="v1.0-synth", dataroot=str(root), verbose=False)
    config = config_factory("detection_cvpr_2019")
    run = DetectionEval(nusc, config, str(root / "val.json"), "synth_val", str(tmp_path), verbose=False)
    run.main(plot_examples=0, render_curves=False)
    scores = dm.evaluate(
        dm.io.nuscenes.load_truth(root, split="synth_val", cache=False),
        dm.io.nuscenes.load_results(root / "val.json"),
        dm.NUSCENES,
    )
    official = [json.loads((tmp_path / f"metrics_{name}.json").read_text()) for name in ("summary", "details")]
    assert furthest(scores, *official) < 1e-12
