"""What the official evaluator made of small sets, without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import detmetrics as dm
import make
from compare import SUMMARY, difference

GOLDENS = sorted((Path(__file__).parent / "golden").glob("*.json"))


def test_the_goldens_are_there() -> None:
    assert len(GOLDENS) == 6


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    golden = json.loads(path.read_text())
    assert golden["made by"].startswith("nuscenes-devkit 1.2.0")
    scores = dm.evaluate(make.from_columns(golden["truth"]), make.from_columns(golden["pred"]), dm.NUSCENES)
    mine = scores.to_summary()
    for key in SUMMARY:
        assert difference(mine[key], golden["summary"][key]) < 1e-12, key
    assert golden["curves"]
    for name, curve in golden["curves"].items():
        assert difference(scores.to_details()[name], curve) < 1e-12, name
