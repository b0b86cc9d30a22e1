"""Scoring: ledger and weights in, numbers out; every number of detmetrics comes from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detmetrics.curves import CURVE, average_precision, mean_error, running_weight
from detmetrics.errors import InputError
from detmetrics.kernels import Floats, Ints
from detmetrics.ledger import Ledger
from detmetrics.protocol import Protocol, unknown_name
from detmetrics.weights import Weights

#: What a class without truth counts: the protocol's official value, or not at all.
Absent = Literal["official", "omit"]


@dataclass(frozen=True, eq=False)
class CurveValues:
    """One curve, read at equidistant recalls.

    Attributes
    ----------
    recall, precision, confidence : float64 (S,)
    errors : dict of str to float64 (S,)
        Running mean of each true-positive error by its official key, e.g. ``trans_err``.
    """

    recall: Floats
    precision: Floats
    confidence: Floats
    errors: Mapping[str, Floats]


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """All numbers of one evaluation. NaN means undefined.

    Attributes
    ----------
    protocol : Protocol
    ap : float64 (K, T)
        Average precision by class and threshold.
    class_errors : float64 (K, n_errors)
        True-positive errors by class, in the order of ``protocol.errors``.
    n_truth, n_pred : int64 (K,)
        Weighted counts of what entered.
    precision, confidence, error_curves : float64 (K, T, S), (K, T, S), (K, T, n_errors, S)
        The curves behind them.
    absent : str
        What a class without truth counts.
    notes : tuple of str
        What the reader should know.
    eval_time_s : float
        Seconds that matching and scoring took; NaN where not measured.
    """

    protocol: Protocol
    ap: Floats
    class_errors: Floats
    n_truth: Ints
    n_pred: Ints
    precision: Floats
    confidence: Floats
    error_curves: Floats
    absent: Absent
    notes: tuple[str, ...] = ()
    eval_time_s: float = float("nan")
    meta: Mapping[str, object] = field(default_factory=dict)
    nan_velocity_share: float = float("nan")
    sign: Callable[[], str] = field(default=str)

    @cached_property
    def signature(self) -> str:
        """Every choice that could move a number, in one line; the hashes are computed when it is first asked for."""
        return self.sign()

    @property
    def mean_ap(self) -> float:
        """Mean over classes of the mean over thresholds (mAP)."""
        return float(_mean(self.ap.mean(axis=1)))

    @property
    def class_ap(self) -> dict[str, float]:
        """AP of each class, mean over thresholds."""
        return dict(zip(self.protocol.labels, self.ap.mean(axis=1).tolist(), strict=True))

    @property
    def tp_errors(self) -> dict[str, float]:
        """Each error by name, mean over the classes in which it is defined."""
        means = (_mean(column) for column in self.class_errors.T)
        return {name: float(mean) for name, mean in zip(self.protocol.error_names, means, strict=True)}

    @property
    def tp_scores(self) -> dict[str, float]:
        """``max(0, 1 - error)`` of each error by name."""
        return {name: float(np.maximum(1 - error, 0)) for name, error in self.tp_errors.items()}

    @property
    def composite(self) -> float:
        """The one weighted score of the protocol, e.g. NDS."""
        return COMPOSITE[self.protocol.composite.kind](self)

    @property
    def nds(self) -> float:
        """The nuScenes detection score; an error where the protocol has another composite."""
        if self.protocol.composite.name != "NDS":
            raise AttributeError(f"{self.protocol.name} has no NDS but {self.protocol.composite.name}: use .composite")
        return self.composite

    def curve(self, label: str, threshold: float) -> CurveValues:
        """Give the curve of a class at a threshold.

        Parameters
        ----------
        label : str
            Class name.
        threshold : float
            One of the protocol's thresholds.

        Raises
        ------
        InputError
            If there is no such class or threshold.
        """
        labels, thresholds = self.protocol.labels, self.protocol.affinity.thresholds
        if label not in labels:
            raise unknown_name("class", label, labels)
        if threshold not in thresholds:
            raise InputError("threshold", expected=f"one of {thresholds}", got=threshold)
        k, t = labels.index(label), thresholds.index(threshold)
        keys = [error.key for error in self.protocol.errors]
        return CurveValues(
            recall=self.recall,
            precision=self.precision[k, t],
            confidence=self.confidence[k, t],
            errors=dict(zip(keys, self.error_curves[k, t], strict=True)),
        )

    @property
    def recall(self) -> Floats:
        """Recalls at which the curves are read, (S,)."""
        return np.linspace(0, 1, self.protocol.curve.n_samples)

    def to_summary(self) -> dict[str, Any]:
        """Give the numbers under the keys of the official ``metrics_summary.json``, and ``signature``."""
        from detmetrics.reporting.official import summary

        return summary(self)

    def to_details(self) -> dict[str, dict[str, list[float]]]:
        """Give the curves under the keys of the official ``metrics_details.json``."""
        from detmetrics.reporting.official import details

        return details(self)

    def __str__(self) -> str:
        """Give the table: class by class, means, composite, signature."""
        from detmetrics.reporting.table import as_text

        return as_text(self)

    def __repr__(self) -> str:
        """Say the headline numbers."""
        name = self.protocol.composite.name
        return f"<Scores {self.protocol.name}: {name} {self.composite:.4f}, mAP {self.mean_ap:.4f}>"


def score(ledger: Ledger, weights: Weights | None = None, *, absent: Absent = "official") -> Scores:
    """Compute every number of a ledger under weights.

    Parameters
    ----------
    ledger : Ledger
        From :func:`detmetrics.match`.
    weights : Weights, optional
        How often each frame, event and truth counts; default once.
    absent : {"official", "omit"}
        What a class without truth counts: the protocol's official values (AP 0, the worst errors), averaged with the
        others, or NaN, left out of the means.

    Raises
    ------
    InputError
        On weights of wrong shape, negative or fractional.
    """
    if absent not in get_args(Absent):
        raise InputError("absent", expected=f"one of {get_args(Absent)}", got=absent)
    protocol = ledger.protocol
    n_tasks, n_thresholds = len(protocol.tasks), len(protocol.affinity.thresholds)
    n_errors, grid = len(protocol.errors), np.linspace(0, 1, protocol.curve.n_samples)
    weights = (weights or Weights()).checked(ledger.n_frames, n_thresholds, len(ledger.event_pred), len(ledger.truth))
    n_truth = _truth_counts(ledger, weights)
    n_pred = np.empty(n_tasks, np.int64)
    precision = np.empty((n_tasks, n_thresholds, len(grid)))
    confidence = np.empty_like(precision)
    curves = np.empty((n_tasks, n_thresholds, n_errors, len(grid)))
    read = CURVE[protocol.curve.kind]
    for k in range(n_tasks):
        events = slice(ledger.event_offsets[k], ledger.event_offsets[k + 1])
        pairs = slice(ledger.pair_offsets[k], ledger.pair_offsets[k + 1])
        running = _running(ledger, weights, events)
        for t in range(n_thresholds):
            running_t = running if weights.event is None else _running_events(running, weights.event[t, events])
            precision[k, t], confidence[k, t], curves[k, t] = read(
                ledger.pair_event[pairs] - events.start,
                ledger.pair_bits[pairs],
                t,
                ledger.pair_errors[pairs],
                ledger.event_score[events],
                running_t,
                n_truth[k],
                grid,
            )
            if t == protocol.error_index:
                n_pred[k] = running_t[-1]
    ap, errors = _numbers(protocol, precision, confidence, curves, n_truth, absent)
    return Scores(
        protocol=protocol,
        ap=ap,
        class_errors=errors,
        n_truth=n_truth,
        n_pred=n_pred,
        precision=precision,
        confidence=confidence,
        error_curves=curves,
        absent=absent,
        notes=ledger.notes,
        nan_velocity_share=ledger.nan_velocity_share,
        meta=ledger.pred.meta,
        sign=partial(ledger.signature, absent),
    )


def _truth_counts(ledger: Ledger, weights: Weights) -> Ints:
    """Weighted number of truths of each task, (K,)."""
    if weights.truth is None:
        counts = ledger.truth_counts
        return counts.sum(axis=0) if weights.frame is None else weights.frame @ counts
    rows = ledger.truth_rows
    weight = weights.truth[rows]
    if weights.frame is not None:
        weight = weight * weights.frame[ledger.truth.frame[rows]]
    counts = np.zeros(len(ledger.protocol.tasks), np.int64)
    np.add.at(counts, ledger.truth_task[rows], weight)
    return counts


def _running(ledger: Ledger, weights: Weights, events: slice) -> Ints:
    """Running sum of the frame weights of the events of a task, (E_task + 1,)."""
    n_events = events.stop - events.start
    if weights.frame is None:
        return np.arange(n_events + 1)
    out = np.empty(n_events + 1, np.int64)
    running_weight(ledger.event_frame[events], weights.frame, out)
    return out


def _running_events(running: Ints, weight: Ints) -> Ints:
    """Multiply further weights of events into a running sum."""
    return np.concatenate(([0], np.cumsum(np.diff(running) * weight)))


def _numbers(
    protocol: Protocol, precision: Floats, confidence: Floats, curves: Floats, n_truth: Ints, absent: Absent
) -> tuple[Floats, Floats]:
    """Reduce curves to AP (K, T) and errors (K, n_errors); the one place where undefined becomes official."""
    rule, names = protocol.curve, protocol.error_names
    ap: NDArray[np.float64] = average_precision(precision, rule.min_recall, rule.min_precision)
    errors = np.empty((len(protocol.tasks), len(names)))
    t = protocol.error_index
    for k, task in enumerate(protocol.tasks):
        for i, error in enumerate(protocol.errors):
            errors[k, i] = mean_error(curves[k, t, i], confidence[k, t], rule.min_recall, error.worst)
        if n_truth[k] == 0:
            ap[k] = 0 if absent == "official" else np.nan
            errors[k] = [error.worst if absent == "official" else np.nan for error in protocol.errors]
        errors[k, [names.index(name) for name in task.undefined]] = np.nan
    return ap, errors


def _mean(values: Floats) -> np.floating[Any]:
    """Mean of what is defined; NaN, without a warning, where nothing is."""
    defined = values[~np.isnan(values)]
    return defined.mean() if len(defined) else np.float64(np.nan)


def _weighted_mean(scores: Scores) -> float:
    """Mean of mAP and the scores of the errors with the weights of the composite."""
    composite = scores.protocol.composite
    total = composite.map_weight * scores.mean_ap
    for name, weight in composite.error_weights.items():
        total += weight * scores.tp_scores[name]
    return total / (composite.map_weight + sum(composite.error_weights.values()))


COMPOSITE: dict[str, Callable[[Scores], float]] = {"weighted_mean": _weighted_mean}


def with_time(scores: Scores, seconds: float) -> Scores:
    """Give the scores with the seconds that they took."""
    return replace(scores, eval_time_s=seconds)
