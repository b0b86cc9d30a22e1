"""The official Argoverse 2 evaluator as the oracle: `make parity`."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
import make
import naive

pytestmark = pytest.mark.parity
pytest.importorskip("av2", reason="av2 is in the parity environment only")
sys.path.insert(0, str(Path(__file__).parent))
oracle = pytest.importorskip("oracle_argoverse2")

TOLERANCE = 1e-12
UNIT = Path(__file__).resolve().parents[3] / "shared" / "data" / "av2" / "detection_unit"
KNOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one sweep": {"n_frames": 1, "empty": 0.0},
    "many sweeps": {"n_frames": 20, "n_truth": 20},
    "absent classes": {"absent": ("BUS", "BOLLARD"), "unseen": ("PEDESTRIAN",)},
    "empty sweeps": {"empty": 0.5, "n_frames": 10},
    "hogs": {"hogs": 0.8, "spread_m": 12.0},
    "crowded": {"spread_m": 5.0, "n_truth": 30, "n_false": 30},
    "over the cap": {"crowd": 250, "n_frames": 3},
    "edges": {"edges": True},
    "ties in distance": {"grid_m": 1.0, "spread_m": 5.0, "n_truth": 20},
    "tilted": {"tilted": True},
    "no points": {"zero_points": 0.7},
}


@pytest.mark.parametrize(("name", "seed"), list(itertools.product(KNOBS, range(10))))
def test_generated_sets(name: str, seed: int, tmp_path: Path) -> None:
    """In memory, and for every third seed through our readers of the official files."""
    truth, pred = make.sweeps(1000 * seed + len(name), **KNOBS[name])
    assert len(set(pred.score.tolist())) == len(pred), "equal scores have no official order"
    official = oracle.evaluate(oracle.table(pred), oracle.table(truth))
    assert oracle.apart(dm.evaluate(truth, pred, dm.ARGOVERSE2), official) < TOLERANCE
    expected = naive.evaluate(truth, pred, dm.ARGOVERSE2)
    assert abs(expected.composite - official["AVERAGE_METRICS"]["CDS"]) < TOLERANCE
    if seed % 3 == 0 and len(pred):
        oracle.table(pred).to_feather(tmp_path / "detections.feather")
        oracle.write_log_folders(tmp_path / "val", truth)
        again = dm.io.argoverse2.load_truth(tmp_path / "val")
        assert again.frames == truth.frames
        found = dm.io.argoverse2.load_results(tmp_path / "detections.feather")
        assert oracle.apart(dm.evaluate(again, found, dm.ARGOVERSE2), official) < TOLERANCE


def test_detections_in_sweeps_without_annotations_are_false_positives(tmp_path: Path) -> None:
    truth, pred = make.sweeps(3, n_frames=6, empty=0.0)
    some = truth.take(truth.frames[:4])
    official = oracle.evaluate(oracle.table(pred), oracle.table(some))
    path = tmp_path / "labels.feather"
    oracle.table(some).to_feather(path)
    with pytest.raises(dm.InputError, match=r"has 3 frames that .* does not have"):
        dm.evaluate(dm.io.argoverse2.load_truth(path), pred, dm.ARGOVERSE2)
    listed = dm.io.argoverse2.load_truth(path, sweeps=pred.frames)
    assert oracle.apart(dm.evaluate(listed, pred, dm.ARGOVERSE2), official) < TOLERANCE


def test_headings_are_those_of_the_package() -> None:
    from av2.geometry.geometry import mat_to_xyz, quat_to_mat

    rng = np.random.default_rng(0)
    quaternions = rng.normal(size=(2000, 4))
    near_lock = (
        np.array([np.sqrt(0.5), 0, np.sqrt(0.5), 0]) + rng.normal(size=(500, 4)) * np.logspace(-3, -12, 500)[:, None]
    )
    half = np.sqrt(0.5)
    exact = [
        (half, 0, half, 0),
        (half, 0, -half, 0),
        (0, 1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 0, 1),
        (1, 0, 0, 0),
        (0.5, 0.5, 0.5, 0.5),
    ]
    everything = np.concatenate((quaternions, near_lock, exact))
    theirs = mat_to_xyz(quat_to_mat(everything))[:, 2]
    ours = dm.io.argoverse2.yaw_of_euler(everything)
    far = ~(np.abs(np.hypot(*_ahead(everything)) - 1e-7) < 1e-9)  # at the border of the lock rounding decides
    # within 1e-3 of the lock a heading is a quotient of small numbers
    np.testing.assert_allclose(np.sin(ours - theirs)[far], 0, atol=1e-7)
    np.testing.assert_allclose(np.sin(ours - theirs)[:2000], 0, atol=1e-11)
    np.testing.assert_allclose(np.cos(ours - theirs)[far], 1, atol=1e-7)


def _ahead(quaternions: np.ndarray) -> np.ndarray:
    return dm.geometry.rotation_matrices(quaternions)[:, :2, 0].T


@pytest.mark.skipif(not UNIT.exists(), reason="the official unit data lie in ../shared/data, which is not here")
def test_the_official_unit_data() -> None:
    expected = json.loads((UNIT / "expected.json").read_text())
    one = dm.Protocol.from_dict({"extends": "argoverse2", "tasks": [{"label": "REGULAR_VEHICLE", "range_m": 150.0}]})
    import pandas as pd

    labels = UNIT / "labels.feather"
    for file, truth, key in (
        ("detections_identity.feather", None, "identity (dts=gts=detections_identity.feather, num_interior_pts=1)"),
        ("detections.feather", labels, "detections.feather vs labels.feather"),
        ("detections_assignment.feather", labels, "detections_assignment.feather vs labels.feather"),
    ):
        gts = pd.read_feather(truth or UNIT / file)
        if truth is None:
            gts["num_interior_pts"] = 1
        official = oracle.evaluate(pd.read_feather(UNIT / file), gts, ("REGULAR_VEHICLE",))
        ours = dm.io.argoverse2.load_truth(truth or UNIT / file)
        scores = dm.evaluate(ours, dm.io.argoverse2.load_results(UNIT / file), one)
        assert oracle.apart(scores, official) < TOLERANCE
        mine = {"AP": scores.mean_ap, **scores.tp_errors}
        for name, value in expected[key].items():
            assert round(mine[name], 3) == value
