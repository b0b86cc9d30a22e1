"""Intervals: what is read off the replicates of one number, its confidence interval and its p-value.

Sources: B. Efron, R. Tibshirani, *An Introduction to the Bootstrap*, 1993, chapters 13 (percentile) and 14 (BCa);
T. Hesterberg, *What Teachers Should Know About the Bootstrap*, 2015, section 4 (few units). How often the intervals
hold the truth is measured, see ``tests/bench/results.md``.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import Literal

import numpy as np

from detmetrics.kernels import Floats

#: How an interval is read off the replicates.
Method = Literal["expanded", "percentile", "bca"]

NORMAL = NormalDist()


def limits(
    value: float,
    replicates: Floats,
    left_out: Floats,
    n_units: int,
    level: float,
    method: Method,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """Give the confidence interval of one number; NaN where it is undefined.

    With few units an interval can be wide enough to leave the range of the metric; it is cut there, where no true value
    can lie.

    Parameters
    ----------
    value : float
        The estimate.
    replicates, left_out : float64 (n,), float64 (J,)
        Its bootstrap replicates and jackknife values.
    n_units : int
        How many units bear on it.
    level : float
    method : {"expanded", "percentile", "bca"}
    bounds : (float, float)
        Least and greatest value that the number can have.
    """
    replicates = replicates[~np.isnan(replicates)]
    if math.isnan(value) or len(replicates) < 2 or n_units < 2:
        return math.nan, math.nan
    low, high = _ends(value, replicates, left_out, n_units, level, method)
    least, most = min(bounds[0], value), max(bounds[1], value)  # the number itself may pass them by a rounding error
    return float(max(low, least)), float(min(high, most))


def _ends(
    value: float, replicates: Floats, left_out: Floats, n_units: int, level: float, method: Method
) -> tuple[float, float]:
    """Ends of the interval before they are cut."""
    z = critical(level, n_units, method)
    tails = [NORMAL.cdf(-z), NORMAL.cdf(z)]
    if method == "bca":
        bias, acceleration = _bias(value, replicates), _acceleration(left_out)
        tails = [_bca(-z, bias, acceleration), _bca(z, bias, acceleration)]
    if method == "expanded" and tails[0] * (len(replicates) + 1) < 1:  # so far out that no draw lies beyond
        half = z * float(replicates.std(ddof=1))  # normal tails
        return float(min(value - half, replicates.min())), float(max(value + half, replicates.max()))
    low, high = np.quantile(replicates, tails)
    return float(low), float(high)


@functools.lru_cache(maxsize=4096)
def critical(level: float, n_units: int, method: Method) -> float:
    """Normal deviate of the tails: for ``expanded``, as wide as Student's t and the unbiased variance make a mean's."""
    if method != "expanded":
        return NORMAL.inv_cdf((1 + level) / 2)
    return student_quantile((1 + level) / 2, n_units - 1) * math.sqrt(n_units / (n_units - 1))


def p_value(value: float, replicates: Floats, left_out: Floats, n_units: int, method: Method) -> float:
    """Give the two-sided p-value of a difference: the smallest 1 - level whose interval leaves out zero.

    Where no draw lies beyond zero there is none to count: it is that of normal tails, and may be larger.
    """
    replicates = replicates[~np.isnan(replicates)]
    if math.isnan(value) or len(replicates) < 2 or n_units < 2:
        return math.nan
    below = float(np.sum(replicates < 0) + 0.5 * np.sum(replicates == 0))
    z = NORMAL.inv_cdf((below + 0.5) / (len(replicates) + 1))
    spread = float(replicates.std(ddof=1))
    if method == "expanded" and below in (0, len(replicates)) and spread > 0:  # no draw lies beyond zero: normal tails
        z = float(value / spread)
    if method == "expanded":
        return 2 * student_tail(abs(z) * math.sqrt((n_units - 1) / n_units), n_units - 1)
    if method == "bca":
        bias, acceleration = _bias(value, replicates), _acceleration(left_out)
        shifted = z - bias
        z = shifted / (1 + acceleration * shifted) - bias
    return 2 * NORMAL.cdf(-abs(z))


def student_tail(t: float, degrees: int) -> float:
    """Probability that Student's t with ``degrees`` of freedom exceeds ``t`` >= 0.

    Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(t, math.sqrt(degrees))
    square = math.cos(angle) ** 2
    odd = degrees % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= square * (k - 1) / k
        total += term
    if odd:
        total = (angle + (math.sin(angle) * total if degrees > 1 else 0)) * 2 / math.pi
    else:
        total *= math.sin(angle)
    return max(0.0, 1 - total) / 2


def student_quantile(share: float, degrees: int) -> float:
    """Value that Student's t with ``degrees`` of freedom stays below with probability ``share`` > 0.5; by bisection."""
    low, high = 0.0, 1.0
    while student_tail(high, degrees) > 1 - share:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, degrees) > 1 - share else (low, middle)
    return (low + high) / 2


def _bias(value: float, replicates: Floats) -> float:
    """How far the estimate lies from the median of its replicates, in normal deviations."""
    below = (np.sum(replicates < value) + 0.5 * np.sum(replicates == value) + 0.5) / (len(replicates) + 1)
    return NORMAL.inv_cdf(float(below))


def _acceleration(left_out: Floats) -> float:
    """How fast the standard error changes with the estimate, from the jackknife."""
    left_out = left_out[~np.isnan(left_out)]
    if len(left_out) < 2:
        return 0.0
    deviation = left_out.mean() - left_out
    scale = float(np.sum(deviation**2)) ** 1.5
    return float(np.sum(deviation**3)) / (6 * scale) if scale > 0 else 0.0


def _bca(z: float, bias: float, acceleration: float) -> float:
    """Tail of the replicates that a normal deviate stands for, corrected for bias and acceleration.

    The correction grows without limit towards a pole, where the deviate is 1 / acceleration (at least 6) beyond the
    bias, and would come out with the other sign behind it: from the pole on, all replicates lie before the end.
    """
    shifted = bias + z
    slope = 1 - acceleration * shifted
    return NORMAL.cdf(bias + shifted / slope) if slope > 0 else float(shifted > 0)


def spread(replicates: Floats) -> float:
    """Standard deviation of the replicates that are defined; NaN with fewer than two."""
    defined = replicates[~np.isnan(replicates)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else math.nan
