"""The official nuScenes evaluator as the oracle: `make parity`."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
import make
import naive
from compare import furthest

pytestmark = pytest.mark.parity
pytest.importorskip("nuscenes", reason="nuscenes-devkit is in the parity environment only")
sys.path.insert(0, str(Path(__file__).parent))
oracle = pytest.importorskip("oracle")

TOLERANCE = 1e-12
KNOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ties in score": {"score_digits": 1},
    "ties in distance": {"grid_m": 0.5, "score_digits": 1},
    "empty frames": {"empty": 0.5, "n_frames": 8},
    "absent classes": {"absent": ("car", "bus", "barrier"), "unseen": ("truck",)},
    "unknown velocities first": {"nan_velocity": 0.5, "nan_first": True},
    "unknown velocities last": {"nan_velocity": 0.5, "nan_last": True},
    "no attributes": {"no_attribute": 1.0},
    "racks": {"racks": 3, "classes": ("bicycle", "motorcycle"), "n_truth": 20},
    "edges": {"edges": True},
    "scores of 0 and above 1": {"extreme_scores": True, "score_digits": 1},
    "custom split": {"partial": True, "extra_frames": 2, "score_digits": 1},
    "points in predictions": {"pred_points": True, "zero_points": 0.4},
    "crowded": {"n_frames": 12, "n_truth": 60, "n_false": 100, "classes": ("car", "pedestrian", "barrier")},
    "one frame": {"n_frames": 1},
    "one class": {"classes": ("pedestrian",), "n_frames": 20},
    "coarse": {"grid_m": 1.0, "decimals": 1, "score_digits": 2, "n_frames": 10},
}
SEEDS = range(13)


@pytest.mark.parametrize(("name", "seed"), list(itertools.product(KNOBS, SEEDS)))
def test_generated_sets(name: str, seed: int) -> None:
    truth, pred = make.scene(1000 * seed + len(name), **KNOBS[name])
    official = oracle.in_memory(truth, pred)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    for k, label in enumerate(dm.NUSCENES.labels):
        for t, threshold in enumerate(dm.NUSCENES.affinity.thresholds):
            at = slice(ledger.matches.offsets[4 * k + t], ledger.matches.offsets[4 * k + t + 1])
            ours = zip(
                ledger.event_pred[ledger.matches.event[at]].tolist(), ledger.matches.truth[at].tolist(), strict=True
            )
            assert list(ours) == official.matches.get((label, threshold), []), (label, threshold)
    assert furthest(dm.score(ledger), official.summary, official.details) < TOLERANCE
    # the naive rules, which other tests trust
    expected = naive.evaluate(truth, pred, dm.NUSCENES)
    assert not naive.apart(naive.summary(expected, dm.NUSCENES), naive.numbers(official.summary), TOLERANCE)
    assert not naive.apart(naive.details(expected), official.details, TOLERANCE)


@pytest.mark.parametrize("seed", range(8))
def test_from_files_to_scores(seed: int, tmp_path: Path) -> None:
    """Both sides read the same tables and the same result file, for predefined and custom splits."""
    knobs = [{}, {"score_digits": 1}, {"racks": 2}, {"grid_m": 0.5, "score_digits": 1, "nan_velocity": 0.4}][seed % 4]
    split = "mini_val" if seed < 4 else "my_val"
    extra = {"partial": True, "extra_frames": 2} if split == "my_val" else {}
    truth, pred = make.scene(seed, n_frames=12, **knobs, **extra)
    oracle.write_tables(tmp_path / "data", truth, split=split, seed=seed)
    oracle.write_results(tmp_path / "results.json", pred)
    official = oracle.through_files(tmp_path / "data", tmp_path / "results.json", tmp_path / "out", split=split)
    ours = dm.io.nuscenes.load_truth(tmp_path / "data", split=split, cache=False)
    assert ours.partial == (split == "my_val")
    scores = dm.evaluate(ours, dm.io.nuscenes.load_results(tmp_path / "results.json"), dm.NUSCENES)
    assert furthest(scores, official.summary, official.details) < TOLERANCE


def test_the_reference_number_of_the_devkit() -> None:
    """``eval/detection/tests/test_algo.py: test_nd_score``: its mock data, through our code; no ranges, 2 m only."""
    mock = pytest.importorskip("nuscenes.eval.detection.tests.test_algo", reason="this wheel ships no tests").TestAlgo
    random.seed(42)
    np.random.seed(42)  # noqa: NPY002  the mock draws from the global generators
    sides: tuple[dict[str, list[Any]], dict[str, list[Any]]] = ({}, {})
    for label in mock.cfg.class_names:
        for columns, boxes in zip(sides, mock._mock_results(30, 3, 25, label), strict=True):
            for box in boxes.all:
                width, length, height = box.size
                for name, value in {
                    "center_m": box.translation,
                    "size_lwh_m": (length, width, height),
                    "rotation_wxyz": box.rotation,
                    "label": box.detection_name,
                    "frame": box.sample_token,
                    "score": box.detection_score,
                    "velocity_mps": box.velocity,
                    "attribute": box.attribute_name,
                }.items():
                    columns.setdefault(name, []).append(value)
    frames = [str(i) for i in range(30)]
    sides[0].pop("score")
    truth, pred = (
        dm.Boxes(**columns, yaw_rad=dm.geometry.yaw_of_rotation(columns["rotation_wxyz"]), frames=frames)
        for columns in sides
    )
    rules = {
        "affinity": {"thresholds": [2.0]},
        "tasks": [{**t, "range_m": None} for t in dm.NUSCENES.to_dict()["tasks"]],
    }
    protocol = dm.Protocol.from_dict({"extends": "nuscenes", **rules})
    assert abs(dm.evaluate(truth, pred, protocol).nds - 0.08606662159639042) < TOLERANCE
