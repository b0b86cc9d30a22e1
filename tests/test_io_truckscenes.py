"""The reader of MAN TruckScenes: which ego, which splits, tags as columns; the devkit itself is asked in tests/parity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import detmetrics as dm
from detmetrics.errors import InputError
from detmetrics.io import truckscenes
from detmetrics.io._truckscenes_splits import SPLITS
from detmetrics.protocols.truckscenes import UNDEFINED_TAGS
from detmetrics.synth import write_dataset

TAGS = (
    "weather.rain;area.highway;construction.unchanged;structure.tunnel;structure.bridge",
    "weather.clear;season.summer",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our synthetic tables, made to look like v1.1-mini: its lidar, and its two scenes of mini_val with tags."""
    path = tmp_path_factory.mktemp("trucks") / "data"
    write_dataset(path, train_scenes=1, val_scenes=2, seed=0, samples_per_scene=3)
    truth = dm.io.nuscenes.load_truth(path, split="synth_val", cache=False)
    tables = path / "v1.0-synth"
    tables.rename(path / "v1.1-mini")
    sensors = path / "v1.1-mini" / "sensor.json"
    sensors.write_text(sensors.read_text().replace("LIDAR_TOP", "LIDAR_LEFT"))
    scenes = path / "v1.1-mini" / "scene.json"
    text = scenes.read_text()
    for old, new in zip(
        sorted(set(truth.frame_columns["scene"].tolist())), sorted(SPLITS.scenes_of("mini_val")), strict=True
    ):
        text = text.replace(f'"{old}"', f'"{new}"')
    for old, new in zip(dict.fromkeys(truth.frame_columns["description"].tolist()), TAGS, strict=True):
        text = text.replace(f'"{old}"', f'"{new}"')
    scenes.write_text(text)
    return path


def test_tables_with_tags(root: Path) -> None:
    truth = dm.io.load_truth(root, cache=False)  # mini_val, and which data set it is, follow from the tables
    assert not truth.partial
    assert truth.n_frames == 6
    assert set(truth.frame_columns["scene"].tolist()) == SPLITS.scenes_of("mini_val")
    first = truth.frame_columns["description"] == TAGS[0]
    assert 0 < first.sum() < 6
    expected = {
        "weather": "rain",
        "area": "highway",
        "construction": "unchanged",
        "structure": "tunnel;bridge",
        "season": "",
    }
    for group, value in expected.items():
        assert set(truth.frame_columns[group][first].tolist()) == {value}
    assert set(truth.frame_columns["season"][~first].tolist()) == {"summer"}
    np.testing.assert_array_equal(truckscenes.has_tag(truth, "structure.bridge"), first)
    np.testing.assert_array_equal(truckscenes.has_tag(truth, "weather.clear"), ~first)
    assert not truckscenes.has_tag(truth, "weather.fog").any()
    assert {"visibility", "instance"} <= set(truth.box_columns)


def test_a_tag_score_is_a_slice(root: Path) -> None:
    truth = dm.io.load_truth(root, cache=False)
    pred = truth.replace(
        score=np.random.default_rng(0).uniform(0.1, 1, len(truth)), labels=None, partial=False,
        label=[_class(name) for name in np.array(truth.labels)[truth.label]],
    )  # fmt: skip
    known = [code for code, name in enumerate(pred.labels or ()) if name in dm.TRUCKSCENES.labels]
    keep = np.isin(pred.label, known)
    pred = dm.Boxes(
        center_m=pred.center_m[keep], size_lwh_m=pred.size_lwh_m[keep], yaw_rad=pred.yaw_rad[keep], score=pred.score[keep],
        label=np.array(pred.labels)[pred.label[keep]].tolist(), frame=pred.frame[keep], frames=pred.frames,
    )  # fmt: skip
    ledger = dm.match(truth, pred, dm.TRUCKSCENES)
    mask = truckscenes.has_tag(truth, "weather.rain")
    by_tag = dm.score(ledger, dm.Weights(frame=mask), absent="official")
    chosen = [name for name, is_in in zip(truth.frames, mask, strict=True) if is_in]
    alone = dm.evaluate(truth.take(chosen), pred.take(chosen), dm.TRUCKSCENES)
    assert by_tag.composite == pytest.approx(alone.composite, abs=1e-12)
    by_weather = dm.slices(ledger, "weather", absent="official")
    assert by_weather["rain"].composite == pytest.approx(by_tag.composite, abs=1e-12)
    assert by_tag.nds == by_tag.composite


def _class(category: str) -> str:
    return dm.TRUCKSCENES.mapping.get(category, category)


def test_tags_are_checked(root: Path) -> None:
    truth = dm.io.load_truth(root, cache=False)
    with pytest.raises(InputError, match=r"tag must be one of weather\.clear, .*, got 'weather\.wet'"):
        truckscenes.has_tag(truth, "weather.wet")
    with pytest.raises(InputError, match="has no frame column description"):
        truckscenes.has_tag(truth.replace(frame_columns={}), "weather.rain")
    other = truth.replace(frame_columns={"description": ["weather.rainy;heavy.weather.rain"] * truth.n_frames})
    assert not truckscenes.has_tag(other, "weather.rain").any()
    assert len(truckscenes.TAG_NAMES) == 34
    assert len(UNDEFINED_TAGS) == 7
    assert set(UNDEFINED_TAGS) < set(truckscenes.TAG_NAMES)


def test_a_sign_looks_alike_from_both_sides() -> None:
    one = {
        "center_m": [(9, 0, 0)] * 2,
        "size_lwh_m": [(1, 1, 1)] * 2,
        "label": ["traffic_sign", "car"],
        "frame": ["a"] * 2,
    }
    truth, pred = dm.Boxes(yaw_rad=[0, 0], **one), dm.Boxes(yaw_rad=[np.pi, np.pi], score=[0.9, 0.9], **one)
    errors = dm.evaluate(truth, pred, dm.TRUCKSCENES).class_errors[:, dm.TRUCKSCENES.error_names.index("AOE")]
    aoe = dict(zip(dm.TRUCKSCENES.labels, errors, strict=True))
    assert (aoe["traffic_sign"], aoe["car"]) == pytest.approx((0, np.pi))


def test_splits(root: Path) -> None:
    sizes = {split: len(SPLITS.scenes_of(split)) for split in SPLITS.version}
    assert sizes == {
        "train": 523,
        "val": 75,
        "train_detect": 523,
        "train_track": 0,
        "test": 149,
        "mini_train": 8,
        "mini_val": 2,
    }
    with pytest.raises(
        InputError, match=r"version for split 'val' must be one that ends in 'trainval', got 'v1\.1-mini'"
    ):
        dm.io.load_truth(root, split="val", cache=False)
    with pytest.raises(InputError, match="has no channel 'LIDAR_TOP'"):
        dm.io.nuscenes.load_truth(root, scenes=sorted(SPLITS.scenes_of("mini_val")), cache=False)
