"""The long form of test_naive: `make soak`."""

from __future__ import annotations

import os

import numpy as np
import pytest

import coverage_study
import detmetrics as dm
import make
import naive
from detmetrics.scoring import metric_names
from test_naive import KNOBS


@pytest.mark.soak
@pytest.mark.parametrize("block", range(20))
def test_a_thousand_sets_against_the_naive_rules(block: int) -> None:
    """Every number and curve of 1,000 sets, seeds 0 to 999, with the knobs in turn."""
    for seed in range(50 * block, 50 * block + 50):
        truth, pred = make.scene(seed, **KNOBS[seed % len(KNOBS)])
        scores = dm.evaluate(truth, pred, dm.NUSCENES)
        expected = naive.evaluate(truth, pred, dm.NUSCENES)
        differences = naive.apart(scores.to_details(), naive.details(expected))
        ours = naive.numbers(scores.to_summary())
        differences += naive.apart(ours, naive.summary(expected, dm.NUSCENES))
        assert not differences, (seed, differences[:3])
        assert np.isfinite(scores.nds)


@pytest.mark.soak
@pytest.mark.parametrize(("n_scenes", "n_sets"), [(150, 4000), (50, 1000), (20, 1000), (10, 1000)])
def test_coverage(n_scenes: int, n_sets: int) -> None:
    """A 95 % interval holds the truth about that often; the full figures are printed, run with -s to see them."""
    counts = coverage_study.study(n_scenes, n_sets, n=1000, processes=os.cpu_count() or 1)
    names = metric_names(coverage_study.PROTOCOL)
    for method, by_name in counts.items():
        for name in names:
            held, alarms = by_name[name]
            low, high = coverage_study.binomial_interval(held, n_sets)
            print(f"{n_scenes} {method} {name} {held / n_sets:.4f} [{low:.4f}, {high:.4f}] {alarms / n_sets:.4f}")
    for name in names:
        held, alarms = counts["expanded"][name]
        assert coverage_study.binomial_interval(held, n_sets)[1] >= 0.91, name
        assert coverage_study.binomial_interval(alarms, n_sets)[0] <= 0.07, name
