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

#: In ``code``: this event counts in no shard, in every shard.
NOWHERE, EVERYWHERE = -1, -2


@kernel
def walk(
    event: Ints,
    score: Floats,
    frame: Codes,
    frame_weight: Ints,
    event_weight: Ints,
    code: NDArray[np.int16],
    n_shards: int,
) -> tuple[Ints, Ints, Floats, Ints, Floats]:
    """Walk once over the events of a task and note, for each match, what a curve needs to know of the events before it.

    Parameters
    ----------
    event : int64 (M,)
        Event of each match, ascending, repeats allowed.
    score, frame : float64 (E,), int32 (E,)
        Score of each event, descending, and its frame.
    frame_weight, event_weight : int64 (F,) or (0,), int64 (E,) or (0,)
        Multiplicity of each frame and event; they multiply; empty: 1.
    code : int16 (E,) or (0,)
        Shard of each event, :data:`NOWHERE` or :data:`EVERYWHERE`; empty: shard 0.
    n_shards : int

    Returns
    -------
    before, weight, previous : int64 (M,), int64 (M,), float64 (M,)
        Weight of the events before each match in its shard, its own weight, and the score of the last event before it
        that has weight (NaN where there is none).
    total, last : int64 (n_shards,), float64 (n_shards,)
        Weight of all events of each shard, and the score of the last one that has weight (NaN).
    """
    before = np.zeros(len(event), np.int64)
    weight = np.zeros(len(event), np.int64)
    previous = np.full(len(event), np.nan)
    count = np.zeros(n_shards, np.int64)
    latest = np.full(n_shards, -1, np.int64)
    everywhere, latest_everywhere = 0, -1
    m = 0
    for e in range(len(score)):
        w = frame_weight[frame[e]] if len(frame_weight) else 1
        if len(event_weight):
            w *= event_weight[e]
        shard = code[e] if len(code) else 0
        while m < len(event) and event[m] == e:
            if shard >= 0:
                before[m] = count[shard] + everywhere
                weight[m] = w
                at = max(latest[shard], latest_everywhere)
                if at >= 0:
                    previous[m] = score[at]
            m += 1
        if w == 0:
            continue
        if shard >= 0:
            count[shard] += w
            latest[shard] = e
        elif shard == EVERYWHERE:
            everywhere += w
            latest_everywhere = e
    last = np.full(n_shards, np.nan)
    for shard in range(n_shards):
        count[shard] += everywhere
        at = max(latest[shard], latest_everywhere)
        if at >= 0:
            last[shard] = score[at]
    return before, weight, previous, count, last


@kernel
def linear_curve(
    before: Ints,
    weight: Ints,
    score: Floats,
    previous: Floats,
    errors: Floats,
    total: int,
    last: float,
    n_truth: int,
    grid: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Read precision, confidence and mean errors at the recalls of ``grid`` by linear interpolation, no envelope.

    The rules of nuScenes (``eval/detection/algo.py: accumulate``): ``np.interp`` over the points after every event; on
    a plateau of recall the last point counts; beyond the last recall precision and confidence are 0. Errors are running
    means over matches, read at the confidence of each recall, the earliest of equal scores counting.

    Parameters
    ----------
    before, weight : int64 (M,)
        Weight of all events before each match, and its own (positive): a weight stands for so many equal events.
    score, previous : float64 (M,)
        Score of each match, descending, and of the last event before it (NaN where there is none).
    errors : float64 (M, n_errors)
        Errors of each match; NaN is left out of the running mean.
    total, last : int, float
        Weight of all events, and the score of the last one.
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

    # the weight of the matches before each, sums and counts of the errors before each
    m = len(before)
    found_before = np.zeros(m + 1, np.int64)
    error_sum = np.zeros((m + 1, n_errors))
    error_count = np.zeros((m + 1, n_errors))
    for i in range(m):
        found_before[i + 1] = found_before[i] + weight[i]
        for k in range(n_errors):
            known = not math.isnan(errors[i, k])
            error_sum[i + 1, k] = error_sum[i, k] + (weight[i] * errors[i, k] if known else 0.0)
            error_count[i + 1, k] = error_count[i, k] + (weight[i] if known else 0)
    found = found_before[m]
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
        while i < m and found_before[i + 1] <= j:
            i += 1
        # point L: the last of the plateau of j true positives; point R: the first of the next
        if i == m:  # j is all: the plateau ends with the last event
            precision[g] = j / total
            confidence[g] = last
            continue
        right_precision = (j + 1) / (before[i] + j + 1 - found_before[i])
        right_confidence = score[i]
        if j > found_before[i]:  # between two copies of one match
            left_precision = j / (before[i] + j - found_before[i])
            left_confidence = right_confidence
        elif before[i] > 0:
            left_precision = j / before[i]
            left_confidence = previous[i]
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
        while i < m and score[i] > c:
            i += 1
        for k in range(n_errors):
            if error_count[m, k] == 0:
                continue  # never known: 1
            if i == m:  # lower than every match
                curves[k, g] = error_sum[m, k] / error_count[m, k]
                continue
            error = errors[i, k]
            known = not math.isnan(error)
            count = error_count[i, k] + (1 if known else 0)
            y0 = (error_sum[i, k] + (error if known else 0.0)) / count if count else 0.0
            if i == 0 or score[i] == c:
                curves[k, g] = y0
                continue
            y1 = error_sum[i, k] / error_count[i, k] if error_count[i, k] else 0.0
            curves[k, g] = (y1 - y0) / (score[i - 1] - score[i]) * (c - score[i]) + y0
    return precision, confidence, curves


@kernel
def envelope_curve(
    before: Ints,
    weight: Ints,
    score: Floats,
    previous: Floats,
    errors: Floats,
    total: int,
    last: float,
    n_truth: int,
    grid: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Read the highest precision at each recall of ``grid`` or a later one.

    The rules of Argoverse 2 (``av2/evaluation/detection/utils.py: compute_average_precision``): precision after every
    event is tp / (tp + fp + ε), its running maximum from the right is read by ``np.interp``, which gives the last point
    of a plateau of recall; beyond the last recall it is 0. The first point of the next plateau is a true positive,
    never less precise than the one before it, so the envelope is flat between the two.

    Confidence is the score of the true positive with which a recall is reached, errors are the running means up to
    there; both are ours, since the official package has neither.

    Parameters
    ----------
    before, weight, score, previous, errors, total, last, n_truth, grid
        As for :func:`linear_curve`; ``previous`` and ``last`` are not used.

    Returns
    -------
    precision (S,), confidence (S,), errors (n_errors, S)
        Without a match: zeros, zeros, NaN. An error is NaN as long as none is known.
    """
    n_errors = errors.shape[1]
    n_samples = len(grid)
    precision = np.zeros(n_samples)
    confidence = np.zeros(n_samples)
    curves = np.full((n_errors, n_samples), np.nan)
    m = len(before)
    found = 0
    for i in range(m):
        found += weight[i]
    if found == 0 or n_truth == 0:
        return precision, confidence, curves

    # the last copy of a match is the most precise one; from there on to the right
    epsilon = 2.0**-52
    best = np.zeros(m)
    tp = found
    for i in range(m - 1, -1, -1):
        best[i] = tp / (before[i] + weight[i] + epsilon)
        if i + 1 < m:
            best[i] = max(best[i], best[i + 1])
        tp -= weight[i]

    i, tp = 0, weight[0]  # match i holds the true positives up to the tp-th
    k, tp_k = 0, weight[0]  # the match with which the recall is reached
    error_sum = np.zeros(n_errors)  # over the matches before k
    error_count = np.zeros(n_errors)
    for g in range(n_samples):
        recall = grid[g]
        j = int(recall * n_truth)  # true positives at the last point at or left of this recall, rounding mended below
        while (j + 1) / n_truth <= recall:
            j += 1
        while j / n_truth > recall:
            j -= 1
        is_reached = j < found or (j == found and j / n_truth == recall)
        if j < found:
            while tp <= j:
                i += 1
                tp += weight[i]
            precision[g] = best[i]
        elif is_reached:  # j is all: the plateau ends with the last event
            precision[g] = found / (total + epsilon)
        needed = found  # true positives with which this recall is reached
        if is_reached:
            needed = max(j if j / n_truth == recall else j + 1, 1)
        while tp_k < needed:
            for e in range(n_errors):
                if not math.isnan(errors[k, e]):
                    error_sum[e] += weight[k] * errors[k, e]
                    error_count[e] += weight[k]
            k += 1
            tp_k += weight[k]
        if is_reached:
            confidence[g] = score[k]
        for e in range(n_errors):
            copies = needed - (tp_k - weight[k])
            known = not math.isnan(errors[k, e])
            count = error_count[e] + (copies if known else 0)
            if count:
                curves[e, g] = (error_sum[e] + (copies * errors[k, e] if known else 0.0)) / count
    return precision, confidence, curves


CURVE = {"linear": linear_curve, "envelope": envelope_curve}


def average_precision(precision: Floats, first: int, min_precision: float) -> Floats:
    """Mean precision from a least recall on and above ``min_precision``, stretched back to 0…1.

    Parameters
    ----------
    precision : float64 (..., S)
        Precision at S equidistant recalls from 0 to 1.
    first : int
        Index of the first recall that counts, below S.
    min_precision : float
        What lies at or below does not count.

    Returns
    -------
    float64 (...)

    Notes
    -----
    nuscenes-devkit ``eval/detection/algo.py: calc_ap``.
    """
    above = precision[..., first:] - min_precision
    result: Floats = np.maximum(above, 0).mean(axis=-1) / (1 - min_precision)
    return result


def mean_over_recall(
    curves: Floats, confidence: Floats, errors: Floats, weight: Ints, first: int, worst: Floats
) -> Floats:
    """Mean of each error curve over what is known of it from a least recall to the last one reached; else ``worst``.

    Parameters
    ----------
    curves, confidence : float64 (n_errors, S), float64 (S,)
        Curves at S equidistant recalls, NaN where unknown; the last recall reached is the last one with a confidence
        other than 0.
    errors, weight : float64 (M, n_errors), int64 (M,)
        Errors of each match and how often it counts; not used here.
    first : int
        Index of the first recall that counts.
    worst : float64 (n_errors,)
        Values where no recall that counts is reached, or nothing is known up to there.

    Notes
    -----
    nuscenes-devkit ``eval/detection/algo.py: calc_tp``, whose curves are known everywhere; those of
    :func:`envelope_curve` are not where the best matches have no velocity, say.
    """
    reached = np.flatnonzero(confidence)
    if not len(reached) or reached[-1] < first:
        return worst
    counted = curves[:, first : reached[-1] + 1]
    known = ~np.isnan(counted)
    count = known.sum(axis=1)
    mean: Floats = np.where(count > 0, np.where(known, counted, 0).sum(axis=1) / np.maximum(count, 1), worst)
    return mean


def mean_plain(curves: Floats, confidence: Floats, errors: Floats, weight: Ints, first: int, worst: Floats) -> Floats:
    """Mean of each error over all matches; ``worst`` where none is known. Parameters: :func:`mean_over_recall`.

    Notes
    -----
    av2 ``evaluation/detection/eval.py: summarize_metrics``.
    """
    known = ~np.isnan(errors)
    count = weight @ known
    total = weight @ np.where(known, errors, 0)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), worst)
    return mean


ERROR_MEAN = {"over_recall": mean_over_recall, "plain": mean_plain}


#: What places are multiplied with before :func:`order_by_score` sees them.
TIES = {"later_first": 1, "earlier_first": -1}


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
