"""Curves: from the events of one task at one threshold to precision, confidence and errors over recall.

A curve is a walk over events in the order of their scores. An event of weight w stands for w equal events, one after
another, so a bootstrap replicate is the same walk with other weights. Only the running sum of the weights and the
matched pairs are needed: the precision between two matches is settled by how many events lie before the second.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detmetrics.kernels import Codes, Floats, Ints, kernel


@kernel
def running_weight(frame: Codes, frame_weight: Ints, out: Ints) -> None:
    """Running sum (n + 1,) of the weight of each event, which is the weight of its frame."""
    total = 0
    out[0] = 0
    for i in range(len(frame)):
        total += frame_weight[frame[i]]
        out[i + 1] = total


@kernel
def last_before(running: Ints, stop: int) -> int:
    """Index of the last event before ``stop`` that has weight, or -1."""
    i = stop - 1
    while i >= 0 and running[i + 1] == running[i]:
        i -= 1
    return i


@kernel
def linear_curve(
    event: Ints, bits: Ints, bit: int, errors: Floats, score: Floats, running: Ints, n_truth: int, grid: Floats
) -> tuple[Floats, Floats, Floats]:
    """Read precision, confidence and mean errors at the recalls of ``grid`` by linear interpolation, no envelope.

    The rules of nuScenes (``eval/detection/algo.py: accumulate``): ``np.interp`` over the points after every event; on
    a plateau of recall the last point counts; beyond the last recall precision and confidence are 0. Errors are running
    means over matches, read at the confidence of each recall, the earliest of equal scores counting.

    Parameters
    ----------
    event : int64 (P,)
        Event of each matched pair of the task, ascending.
    bits, bit : int64 (P,), int
        Pairs that match at this threshold have this bit set.
    errors : float64 (P, n_errors)
        Errors of each pair; NaN is left out of the running mean.
    score, running : float64 (E,), int64 (E + 1,)
        Score of each event, descending, and the running sum of the weights.
    n_truth : int
        Weighted number of truths.
    grid : float64 (S,)
        Recalls, ascending.

    Returns
    -------
    precision (S,), confidence (S,), errors (n_errors, S)
        Without a match: zeros, zeros, ones.
    """
    n_errors = errors.shape[1]
    n_samples = len(grid)
    precision = np.zeros(n_samples)
    confidence = np.zeros(n_samples)
    curves = np.ones((n_errors, n_samples))

    # matches that have weight, the weight of the matches before each, sums and counts of the errors before each
    match = np.empty(len(event), np.int64)
    before = np.zeros(len(event) + 1, np.int64)
    total = np.zeros((len(event) + 1, n_errors))
    count = np.zeros((len(event) + 1, n_errors))
    m = 0
    for p in range(len(event)):
        weight = running[event[p] + 1] - running[event[p]]
        if weight == 0 or not bits[p] >> bit & 1:
            continue
        match[m] = p
        before[m + 1] = before[m] + weight
        for k in range(n_errors):
            known = not math.isnan(errors[p, k])
            total[m + 1, k] = total[m, k] + (weight * errors[p, k] if known else 0.0)
            count[m + 1, k] = count[m, k] + (weight if known else 0)
        m += 1
    found = before[m]
    if found == 0 or n_truth == 0:
        return precision, confidence, curves

    i = 0  # the match that holds the j-th true positive, or the one after it
    for g in range(n_samples):
        recall = grid[g]
        j = int(recall * n_truth)  # true positives at the last point at or left of this recall, rounding mended below
        while (j + 1) / n_truth <= recall:
            j += 1
        while j / n_truth > recall:
            j -= 1
        if j > found or (j == found and j / n_truth < recall):
            break  # beyond the last recall: zeros
        while i < m and before[i + 1] <= j:
            i += 1
        # point L: the last of the plateau of j true positives; point R: the first of the next
        if i == m:  # j is all: the plateau ends with the last event
            precision[g] = j / running[-1]
            confidence[g] = score[last_before(running, len(score))]
            continue
        start = running[event[match[i]]]  # weight of all events before this match
        right_precision = (j + 1) / (start + j + 1 - before[i])
        right_confidence = score[event[match[i]]]
        if j > before[i]:  # between two copies of one match
            left_precision = j / (start + j - before[i])
            left_confidence = right_confidence
        elif start > 0:
            left_precision = j / start
            left_confidence = score[last_before(running, event[match[i]])]
        else:  # the first event of all is a true positive: nothing lies left of it
            precision[g] = right_precision
            confidence[g] = right_confidence
            continue
        if j / n_truth == recall:
            precision[g] = left_precision
            confidence[g] = left_confidence
        else:
            width = (j + 1) / n_truth - j / n_truth
            along = recall - j / n_truth
            precision[g] = (right_precision - left_precision) / width * along + left_precision
            confidence[g] = (right_confidence - left_confidence) / width * along + left_confidence

    # errors over confidence: confidence falls along the grid, matches fall in score, so one pass serves both
    i = 0
    for g in range(n_samples):
        c = confidence[g]
        while i < m and score[event[match[i]]] > c:
            i += 1
        for k in range(n_errors):
            if count[m, k] == 0:
                continue  # never known: 1
            if i == m:  # lower than every match
                curves[k, g] = total[m, k] / count[m, k]
                continue
            x0 = score[event[match[i]]]
            error = errors[match[i], k]
            known = not math.isnan(error)
            y0_total, y0_count = total[i, k] + (error if known else 0.0), count[i, k] + (1 if known else 0)
            y0 = y0_total / y0_count if y0_count else 0.0
            if i == 0 or x0 == c:
                curves[k, g] = y0
                continue
            x1 = score[event[match[i - 1]]]
            y1 = total[i, k] / count[i, k] if count[i, k] else 0.0
            curves[k, g] = (y1 - y0) / (x1 - x0) * (c - x0) + y0
    return precision, confidence, curves


CURVE = {"linear": linear_curve}


def average_precision(precision: Floats, min_recall: float, min_precision: float) -> Floats:
    """Mean precision above ``min_recall`` and ``min_precision``, stretched back to 0…1.

    Parameters
    ----------
    precision : float64 (..., S)
        Precision at S equidistant recalls from 0 to 1.
    min_recall, min_precision : float
        What lies at or below does not count.

    Returns
    -------
    float64 (...)

    Notes
    -----
    nuscenes-devkit ``eval/detection/algo.py: calc_ap``.
    """
    above = precision[..., first_sample(precision.shape[-1], min_recall) :] - min_precision
    result: Floats = np.maximum(above, 0).mean(axis=-1) / (1 - min_precision)
    return result


def mean_error(errors: Floats, confidence: Floats, min_recall: float, worst: float) -> float:
    """Mean of an error curve from ``min_recall`` to the last recall reached; ``worst`` where that is empty.

    Parameters
    ----------
    errors, confidence : float64 (S,)
        Curves at S equidistant recalls; the last recall reached is the last one with a confidence other than 0.
    min_recall : float
        What lies at or below does not count.
    worst : float
        Value where the recall never exceeds ``min_recall``.

    Notes
    -----
    nuscenes-devkit ``eval/detection/algo.py: calc_tp``.
    """
    reached = np.flatnonzero(confidence)
    first = first_sample(len(errors), min_recall)
    last = int(reached[-1]) if len(reached) else 0
    return worst if last < first else float(errors[first : last + 1].mean())


def first_sample(n_samples: int, min_recall: float) -> int:
    """Index of the first recall above ``min_recall``."""
    return round((n_samples - 1) * min_recall) + 1


def order_by_score(score: Floats, place: Ints) -> NDArray[np.int64]:
    """Indices by descending score, among equal scores by descending place.

    Parameters
    ----------
    score, place : float64 (N,), int64 (N,)
        Finite scores; position of each box in its file.
    """
    order = np.argsort(-score)  # numpy's fastest, not stable; ties are settled below
    if len(order) < 2:
        return order
    sorted_score = score[order]
    equal = sorted_score[1:] == sorted_score[:-1]
    if not equal.any():
        return order
    run = np.concatenate(([0], np.cumsum(~equal)))
    tied = np.flatnonzero(np.concatenate((equal, [False])) | np.concatenate(([False], equal)))
    order[tied] = order[tied][np.lexsort((-place[order[tied]], run[tied]))]
    return order
