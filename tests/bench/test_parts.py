"""The parts, one by one (`make bench`, or pytest --benchmark-only): small here, where they only must run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import detmetrics as dm
from detmetrics.synth import make_boxes


@pytest.fixture(scope="module")
def boxes() -> tuple[dm.Boxes, dm.Boxes]:
    return make_boxes(n_frames=200, seed=0)


def test_match(benchmark: Any, boxes: tuple[dm.Boxes, dm.Boxes]) -> None:
    ledger = benchmark(dm.match, *boxes, dm.NUSCENES)
    assert len(ledger.pair_event) > 1000


def test_score(benchmark: Any, boxes: tuple[dm.Boxes, dm.Boxes]) -> None:
    scores = benchmark(dm.score, dm.match(*boxes, dm.NUSCENES))
    assert 0.3 < scores.nds < 0.9


def test_results(benchmark: Any, boxes: tuple[dm.Boxes, dm.Boxes], tmp_path: Path) -> None:
    dm.io.nuscenes.write_results(boxes[1], tmp_path / "r.json")
    assert len(benchmark(dm.io.nuscenes.load_results, tmp_path / "r.json")) == len(boxes[1])


def test_parquet(benchmark: Any, boxes: tuple[dm.Boxes, dm.Boxes], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is the extra [parquet]")
    dm.io.parquet.write(boxes[1], tmp_path / "p.parquet")
    assert len(benchmark(dm.io.parquet.read, tmp_path / "p.parquet")) == len(boxes[1])


def test_digest(benchmark: Any, boxes: tuple[dm.Boxes, dm.Boxes]) -> None:
    assert len(benchmark(lambda: boxes[1].replace().digest)) == 64
