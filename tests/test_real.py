"""A real detector's results on the real boxes of nuScenes mini_val: every official number and curve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import detmetrics as dm
from compare import furthest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "nuscenes"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="real data lies in ../shared/data, which is not here")


def test_every_number_and_every_curve() -> None:
    truth = dm.io.nuscenes.load_truth(DATA / "minival_tables", version="v1.0-mini", split="mini_val", cache=False)
    folder = DATA / "results_pointpillars_mini"
    scores = dm.evaluate(truth, dm.io.nuscenes.load_results(folder / "results_nusc.json"), dm.NUSCENES)
    official = json.loads((folder / "metrics_summary.json").read_text())
    assert furthest(scores, official, json.loads((folder / "metrics_details.json").read_text())) < 1e-12
    assert scores.nds == pytest.approx(0.09923557931974811, abs=1e-15)
    assert scores.to_summary()["cfg"] == official["cfg"]


def test_nds_of_a_published_summary() -> None:
    """The arithmetic of the composite alone, on a full validation set's published numbers."""
    published = json.loads((DATA / "metrics_summaries" / "graphbev_nusc_val.json").read_text())
    protocol = dm.NUSCENES
    weights = protocol.composite.error_weights
    total = protocol.composite.map_weight * published["mean_ap"]
    for error in protocol.errors:
        total += weights[error.name] * max(0, 1 - published["tp_errors"][error.key])
    nds = total / (protocol.composite.map_weight + sum(weights.values()))
    assert nds == pytest.approx(published["nd_score"], abs=1e-12)
