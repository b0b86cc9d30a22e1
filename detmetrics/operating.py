"""Operating points: what a detector does at one score, class by class, and whether its scores mean what they say."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from detmetrics.diagnosis import Evidence
from detmetrics.errors import InputError, check_whole, unknown_name
from detmetrics.kernels import Floats, Ints
from detmetrics.ledger import Ledger, check_ledger
from detmetrics.protocol import Protocol
from detmetrics.slicing import By, slices
from detmetrics.weights import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_BINS = 10


class OperatingPoint(NamedTuple):
    """One class at one score.

    Attributes
    ----------
    score : float
        Predictions below it are not made; NaN where the class has none.
    precision, recall, f1 : float
        NaN where undefined.
    tp, fp, fn : int
        True positives, false positives, missed truths.
    """

    score: float
    precision: float
    recall: float
    f1: float
    tp: int
    fp: int
    fn: int


@dataclass(frozen=True, eq=False)
class Reliability:
    """Whether scores mean what they say: predictions of score 0.7 should be right seven times out of ten.

    Attributes
    ----------
    edges : float64 (B + 1,)
        Bins of the score; each holds its lower edge, the last one its upper edge and all above, too.
    count : int64 (B,)
        Predictions in each bin.
    score, precision : float64 (B,)
        Mean score and share of true positives of each bin; NaN where it is empty.
    ece : float
        Expected calibration error: mean distance of the two, weighted by count (Guo et al., ICML 2017); NaN without
        predictions.
    """

    edges: Floats
    count: Ints
    score: Floats
    precision: Floats
    ece: float


@dataclass(frozen=True, eq=False, repr=False)
class OperatingPoints:
    """Every class of one ledger, or of one slice of it, at one threshold of the match.

    Attributes
    ----------
    protocol : Protocol
    threshold : float
        Of the match.
    best : dict of str to OperatingPoint
        For each class, the score of the best F1 (the highest such score).
    chosen : dict of str to OperatingPoint
        For each class, the score that was asked for; where none was, the best one, in slices that of the whole.
    confusion : int64 (K + 1, K + 1)
        Rows are classes of truth, columns classes of predictions, at the chosen scores. The last column counts truths
        that nothing found, the last row predictions that found nothing.
    reliability : dict of str to Reliability
    """

    protocol: Protocol
    threshold: float
    best: Mapping[str, OperatingPoint]
    chosen: Mapping[str, OperatingPoint]
    confusion: Ints
    reliability: Mapping[str, Reliability]

    def to_rows(self) -> list[dict[str, float | int | str]]:
        """Give one dict a class: the chosen point, the best one, calibration."""
        rows = []
        for label in self.protocol.labels:
            one, best = self.chosen[label], self.best[label]
            row: dict[str, float | int | str] = {"class": label, **one._asdict()}
            rows.append(row | {"best_score": best.score, "best_f1": best.f1, "ece": self.reliability[label].ece})
        return rows

    def __str__(self) -> str:
        """Give the table."""
        from detmetrics.reporting.table import as_plain, operating_table

        return as_plain(operating_table(self))

    def __repr__(self) -> str:
        """Say what is found and what is wrong in all."""
        tp, fp, fn = (sum(getattr(one, name) for one in self.chosen.values()) for name in ("tp", "fp", "fn"))
        return f"<OperatingPoints within {self.threshold:g} m: {tp} TP, {fp} FP, {fn} missed>"


@overload
def operating_points(
    ledger: Ledger,
    score: float | Mapping[str, float] | None = ...,
    *,
    threshold: float | None = ...,
    by: None = ...,
    bins: int = ...,
) -> OperatingPoints: ...
@overload
def operating_points(
    ledger: Ledger,
    score: float | Mapping[str, float] | None = ...,
    *,
    threshold: float | None = ...,
    by: By,
    bins: int = ...,
) -> dict[str, OperatingPoints]: ...
def operating_points(
    ledger: Ledger,
    score: float | Mapping[str, float] | None = None,
    *,
    threshold: float | None = None,
    by: By | None = None,
    bins: int = N_BINS,
) -> OperatingPoints | dict[str, OperatingPoints]:
    """Give precision, recall, F1, the confusion of classes, and calibration at one score a class.

    Parameters
    ----------
    ledger : Ledger
        From :func:`detmetrics.match`.
    score : float or dict of str to float, optional
        Predictions below it are not made; default: the score of the best F1 of each class, in slices of the whole.
    threshold : float, optional
        Of the match; default: the one of the errors.
    by : str or mapping, optional
        Also slice, see :func:`detmetrics.slices`; the result is then a dict by name of the slice.
    bins : int
        Bins of the calibration.

    Raises
    ------
    InputError
        On an unknown class, threshold or slice, or a score that is no number.
    """
    check_ledger(ledger)
    protocol = ledger.protocol
    thresholds = protocol.affinity.thresholds
    if threshold is not None and threshold not in thresholds:
        raise InputError("threshold", expected=f"one of {thresholds}", got=threshold)
    check_whole("bins", bins, 1)
    t = protocol.error_index if threshold is None else thresholds.index(threshold)
    cut = best_scores(ledger, t)
    for label, value in _given(protocol, score).items():
        cut[protocol.labels.index(label)] = value
    seen = _Seen(ledger, t, cut)
    if by is None:
        return _points(seen, Weights(), bins)
    found = slices(ledger, by)
    return {name: _points(seen, found.weights(name), bins) for name in found.names}


def best_scores(ledger: Ledger, t: int) -> Floats:
    """Score of the best F1 of each class (K,); infinite where nothing is ever right."""
    scores = np.full(len(ledger.protocol.tasks), np.inf)
    for k in range(len(scores)):
        right, event_score, weight = _events(ledger, Weights(), t, k)
        at = _best(right, event_score, weight, int(ledger.truth_counts[:, k].sum()))
        if at is not None:
            scores[k] = event_score[at]
    return scores


def _given(protocol: Protocol, score: float | Mapping[str, float] | None) -> dict[str, float]:
    """Give the score that was asked for, class by class."""
    if score is None:
        return {}
    given: dict[str, Any] = dict(score) if isinstance(score, Mapping) else dict.fromkeys(protocol.labels, score)
    for label, value in given.items():
        if label not in protocol.labels:
            raise unknown_name("class", label, protocol.labels)
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise InputError(f"score of {label}", expected="finite and a number", got=value)
    return given


def _events(ledger: Ledger, weights: Weights, t: int, k: int) -> tuple[NDArray[np.bool_], Floats, Ints]:
    """Whether each event of a class is right, its score, and its weight; best score first."""
    events = slice(int(ledger.event_offsets[k]), int(ledger.event_offsets[k + 1]))
    right = np.zeros(events.stop - events.start, np.bool_)
    pairs = slice(int(ledger.pair_offsets[k]), int(ledger.pair_offsets[k + 1]))
    matched = ledger.pair_bits[pairs] >> t & 1 == 1
    right[ledger.pair_event[pairs][matched] - events.start] = True
    weight = np.ones(len(right), np.int64) if weights.event is None else weights.event[t, events]
    return right, ledger.event_score[events], weight


def _best(right: NDArray[np.bool_], score: Floats, weight: Ints, n_truth: int) -> int | None:
    """Event after which F1 is best, the first such; None where nothing is right."""
    tp, made = np.cumsum(right * weight), np.cumsum(weight)
    if not n_truth or not len(tp) or not tp[-1]:
        return None
    ends = np.concatenate((score[1:] != score[:-1], [True]))  # a score takes in all events that share it
    f1 = np.where(ends, 2 * tp / (made + n_truth), -1.0)
    return int(np.argmax(f1))


def _point(score: float, right: NDArray[np.bool_], scores: Floats, weight: Ints, n_truth: int) -> OperatingPoint:
    made = scores >= score
    tp, n_made = int((right & made) @ weight), int(made @ weight)
    precision = tp / n_made if n_made else float("nan")
    recall = tp / n_truth if n_truth else float("nan")
    f1 = 2 * tp / (n_made + n_truth) if n_made + n_truth else float("nan")
    return OperatingPoint(score, precision, recall, f1, tp, n_made - tp, n_truth - tp)


class _Seen:
    """What is found at these scores (K,), whatever is weighed afterwards."""

    def __init__(self, ledger: Ledger, t: int, cut: Floats) -> None:
        self.ledger, self.t, self.cut = ledger, t, cut
        task = ledger.event_task
        made = ledger.event_score >= cut[task]
        _, meant = Evidence(ledger).blame(t, made)
        pairs = np.flatnonzero((ledger.pair_bits >> t & 1 == 1) & made[ledger.pair_event])
        self.event, self.truth_row = ledger.pair_event[pairs], ledger.pair_truth[pairs]
        partnered = np.flatnonzero(made & (meant >= 0))
        self.swapped = partnered[ledger.truth_task[meant[partnered]] != task[partnered]]
        self.swapped_truth = meant[self.swapped]
        made[self.event] = made[self.swapped] = False
        self.lost = np.flatnonzero(made)  # predictions that found nothing
        self.found = np.zeros(len(ledger.truth), np.bool_)
        self.found[self.truth_row] = self.found[self.swapped_truth] = True


def _points(seen: _Seen, weights: Weights, bins: int) -> OperatingPoints:
    ledger, t, protocol = seen.ledger, seen.t, seen.ledger.protocol
    counted = np.zeros(len(ledger.truth), np.int64)
    counted[ledger.truth_rows] = 1 if weights.truth is None else weights.truth[ledger.truth_rows]
    best, chosen, reliability = {}, {}, {}
    for k, label in enumerate(protocol.labels):
        right, score, weight = _events(ledger, weights, t, k)
        n_truth = int(counted[ledger.truth_task == k].sum())
        at = _best(right, score, weight, n_truth)
        best[label] = _point(float("nan") if at is None else float(score[at]), right, score, weight, n_truth)
        cut = float(seen.cut[k])
        chosen[label] = _point(cut if np.isfinite(cut) else float("nan"), right, score, weight, n_truth)
        reliability[label] = _reliability(right, score, weight, bins)
    confusion = _confusion(seen, weights, counted)
    return OperatingPoints(protocol, protocol.affinity.thresholds[t], best, chosen, confusion, reliability)


def _reliability(right: NDArray[np.bool_], score: Floats, weight: Ints, bins: int) -> Reliability:
    edges = np.arange(bins + 1) / bins  # 0.3 and not 0.30000000000000004, as linspace has it
    which = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, bins - 1)
    count = np.bincount(which, weight, minlength=bins).astype(np.int64)
    some = np.where(count, count, np.nan)
    mean = np.bincount(which, weight * score, minlength=bins) / some
    precision = np.bincount(which, weight * right, minlength=bins) / some
    total = count.sum()
    ece = float(np.nansum(count * np.abs(mean - precision)) / total) if total else float("nan")
    return Reliability(edges, count, mean, precision, ece)


def _confusion(seen: _Seen, weights: Weights, counted: Ints) -> Ints:
    """Classes of truth against classes of predictions."""
    ledger = seen.ledger
    n_tasks = len(ledger.protocol.tasks)
    table = np.zeros((n_tasks + 1, n_tasks + 1), np.int64)
    task, event, swapped = ledger.event_task, seen.event, seen.swapped
    np.add.at(table, (task[event], task[event]), counted[seen.truth_row])
    np.add.at(table, (ledger.truth_task[seen.swapped_truth], task[swapped]), counted[seen.swapped_truth])
    weight = 1 if weights.event is None else weights.event[seen.t][seen.lost]
    np.add.at(table[n_tasks], task[seen.lost], weight)
    rows = np.flatnonzero(~seen.found & (counted > 0))
    np.add.at(table[:, n_tasks], ledger.truth_task[rows], counted[rows])
    return table
