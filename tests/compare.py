"""How far our scores are from numbers of another evaluator under the official keys."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import naive
from detmetrics.scoring import Scores


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference of two nested values; infinite where only one is NaN or the keys differ."""
    if isinstance(theirs, dict):
        ours = {str(key): value for key, value in ours.items()}
        if set(ours) != {str(key) for key in theirs}:
            return math.inf
        return max((difference(ours[str(key)], value) for key, value in theirs.items()), default=0.0)
    a = np.array([math.nan if entry is None else entry for entry in np.ravel(ours)], np.float64)
    b = np.array([math.nan if entry is None else entry for entry in np.ravel(theirs)], np.float64)
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return math.inf
    return float(np.nanmax(np.abs(a - b), initial=0.0))


def furthest(scores: Scores, summary: dict[str, Any], details: dict[str, Any]) -> float:
    """Largest difference in any number or curve."""
    mine = scores.to_summary()
    return max(difference(mine[key], summary[key]) for key in naive.NUMBERS) + difference(scores.to_details(), details)
