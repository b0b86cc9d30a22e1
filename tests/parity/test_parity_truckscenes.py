"""The official MAN TruckScenes evaluator as the oracle, scores of tags included: `make parity`."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
import make
import naive
from compare import difference
from detmetrics.io.truckscenes import TAG_GROUPS, TAG_NAMES, has_tag
from detmetrics.protocols.truckscenes import UNDEFINED_TAGS

pytestmark = pytest.mark.parity
pytest.importorskip("truckscenes", reason="truckscenes-devkit is in the parity environment only")
sys.path.insert(0, str(Path(__file__).parent))
truck = pytest.importorskip("oracle_truckscenes")

TOLERANCE = 1e-12
TRUCK: dict[str, Any] = {"classes": make.TRUCK_CLASSES, "range_m": make.TRUCK_RANGE_M, "spread_m": 120.0}
KNOBS: dict[str, dict[str, Any]] = {
    "plain": {"n_truth": 25},
    "ties": {"score_digits": 1, "grid_m": 0.5},
    "absent classes": {"absent": ("car", "animal", "traffic_sign"), "unseen": ("truck",)},
    "racks": {"racks": 2, "spread_m": 30.0},
    "edges": {"edges": True},
    "signs and animals": {"classes": ("animal", "traffic_sign", "barrier", "other_vehicle"), "n_truth": 30},
}


def described(truth: dm.Boxes, seed: int) -> dm.Boxes:
    """Give frames descriptions with a tag of each group, now and then none or two, and of every tag in the end."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in truth.frames:
        tags = []
        for group, names in TAG_GROUPS.items():
            tags += [f"{group}.{name}" for name in rng.choice(names, int(rng.choice([0, 1, 1, 1, 2])), replace=False)]
        texts.append(";".join(rng.permutation(tags)) if tags else "no tags")
    return truth.replace(frame_columns={"description": np.array(texts)})


def furthest(scores: dm.Scores, summary: dict[str, Any]) -> float:
    mine = scores.to_summary()
    return max(difference(mine[key], summary[key]) for key in naive.NUMBERS)


def check_tags(ledger: dm.Ledger, official: dict[str, Any]) -> None:
    for tag in TAG_NAMES:
        if tag in UNDEFINED_TAGS:
            assert math.isnan(official[tag]["mean_ap"])
            continue
        scores = dm.score(ledger, dm.Weights(frame=has_tag(ledger.truth, tag)), absent="official")
        assert furthest(scores, official[tag]) < TOLERANCE, tag


@pytest.mark.parametrize(("name", "seed"), list(itertools.product(KNOBS, range(9))))
def test_generated_sets(name: str, seed: int) -> None:
    truth, pred = make.scene(1000 * seed + len(name), **{**TRUCK, "n_frames": 6, **KNOBS[name]})
    truth = described(truth, seed)
    official, curves = truck.in_memory(truth, pred, tags=seed % 3 == 0)
    ledger = dm.match(truth, pred, dm.TRUCKSCENES)
    scores = dm.score(ledger)
    assert furthest(scores, official["all"]) < TOLERANCE
    assert difference(scores.to_details(), curves) < TOLERANCE
    expected = naive.evaluate(truth, pred, dm.TRUCKSCENES)
    assert not naive.apart(naive.summary(expected, dm.TRUCKSCENES), naive.numbers(official["all"]), TOLERANCE)
    if seed % 3 == 0:
        check_tags(ledger, official)


@pytest.mark.parametrize("seed", range(3))
def test_from_files_to_scores(seed: int, tmp_path: Path) -> None:
    truth, pred = make.scene(seed, **{**TRUCK, "n_frames": 10, "score_digits": 1, "racks": seed})
    descriptions = (
        "weather.rain;area.city;daytime.noon;structure.tunnel;structure.bridge",
        "weather.clear;season.winter",
    )
    truck.write_tables(tmp_path / "data", truth, seed=seed, descriptions=descriptions)
    truck.write_results(tmp_path / "results.json", pred)
    official = truck.through_files(tmp_path / "data", tmp_path / "results.json", tmp_path / "out")
    ours = dm.io.load_truth(tmp_path / "data", split="mini_val", cache=False)
    assert set(ours.frame_columns["weather"]) == {"rain", "clear"}
    assert set(ours.frame_columns["structure"]) == {"tunnel;bridge", ""}
    ledger = dm.match(ours, dm.io.truckscenes.load_results(tmp_path / "results.json"), dm.TRUCKSCENES)
    assert furthest(dm.score(ledger), official["all"]) < TOLERANCE
    check_tags(ledger, official)


@pytest.mark.parametrize("split", ["train", "val", "test", "mini_train", "mini_val", "train_detect", "train_track"])
def test_splits_are_those_of_the_devkit(split: str) -> None:
    from detmetrics.io._truckscenes_splits import SPLITS

    assert SPLITS.scenes_of(split) == set(truck.scenes_of(split))


def test_tags_are_those_of_the_devkit() -> None:
    from truckscenes.eval.common.constants import TAG_NAMES as theirs

    assert list(TAG_NAMES) == theirs
    assert set(UNDEFINED_TAGS) < set(TAG_NAMES)
