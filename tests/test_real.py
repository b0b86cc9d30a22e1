"""A real detector's results on the real boxes of nuScenes mini_val: every official number and curve."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import detmetrics as dm
from compare import furthest
from detmetrics.scoring import metric_names, metric_values

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
    """Our composite and means alone, on the AP and errors of each class of a full validation set as published."""
    published = json.loads((DATA / "metrics_summaries" / "graphbev_nusc_val.json").read_text())
    protocol = dm.NUSCENES
    aps = [list(published["label_aps"][label].values()) for label in protocol.labels]
    errors = [[published["label_tp_errors"][label][e.key] for e in protocol.errors] for label in protocol.labels]
    values = metric_values(protocol, np.array(aps, np.float64), np.array(errors, np.float64))
    ours = dict(zip(metric_names(protocol), values.tolist(), strict=True))
    assert ours["NDS"] == pytest.approx(published["nd_score"], abs=1e-12)
    assert ours["mAP"] == pytest.approx(published["mean_ap"], abs=1e-12)
    for error in protocol.errors:
        assert ours[error.name] == pytest.approx(published["tp_errors"][error.key], abs=1e-12)
