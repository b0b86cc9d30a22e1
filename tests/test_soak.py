"""The long form of test_naive: `make soak`."""

from __future__ import annotations

import numpy as np
import pytest

import detmetrics as dm
import make
import naive
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
