"""What the official evaluators made of small sets, without them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import detmetrics as dm
import make
import naive
from compare import difference

GOLDENS = sorted((Path(__file__).parent / "golden").glob("*.json"))
MAKERS = {
    "nuscenes": "nuscenes-devkit 1.2.0",
    "argoverse2": "av2 0.3.6",
    "truckscenes": "truckscenes-devkit 1.2.0",
}


def test_the_goldens_are_there() -> None:
    assert len(GOLDENS) == 10


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    golden = json.loads(path.read_text())
    protocol = golden.get("protocol", "nuscenes")
    assert golden["made by"].startswith(MAKERS[protocol])
    truth, pred = make.from_columns(golden["truth"]), make.from_columns(golden["pred"])
    ledger = dm.match(truth, pred, dm.protocols.by_name(protocol))
    scores = dm.score(ledger)
    if protocol == "argoverse2":
        assert table_apart(scores, golden["table"]) < 1e-12
        return
    check(scores, golden["summary"])
    assert golden["curves"]
    for name, curve in golden["curves"].items():
        assert difference(scores.to_details()[name], curve) < 1e-12, name
    for tag, summary in golden.get("tags", {}).items():
        frame = dm.io.truckscenes.has_tag(truth, tag)
        assert 0 < frame.sum() < len(frame)
        check(dm.score(ledger, dm.Weights(frame=frame), absent="official"), summary)


def check(scores: dm.Scores, summary: dict[str, Any]) -> None:
    mine = scores.to_summary()
    for key in naive.NUMBERS:
        assert difference(mine[key], summary[key]) < 1e-12, key


def table_apart(scores: dm.Scores, table: dict[str, dict[str, float]]) -> float:
    """Largest difference from the table of Argoverse 2: AP, errors and CDS by class, and their means."""
    rows = {"AVERAGE_METRICS": [scores.mean_ap, *scores.tp_errors.values(), scores.composite]}
    for k, label in enumerate(scores.protocol.labels):
        rows[label] = [scores.class_ap[label], *scores.class_errors[k].tolist(), scores.class_composite[label]]
    if set(rows) != set(table):
        return math.inf
    return max(difference(row, list(table[name].values())) for name, row in rows.items())
