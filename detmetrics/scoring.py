"""Scoring: ledger and weights in, numbers out; every number of detmetrics comes from here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from detmetrics.curves import CURVE, ERROR_MEAN, average_precision, walk
from detmetrics.errors import InputError, unknown_name
from detmetrics.kernels import ERROR, Floats, Ints, group
from detmetrics.ledger import Ledger, check_ledger
from detmetrics.protocol import Protocol
from detmetrics.weights import Weights

#: What a class without truth counts: the protocol's official value, or not at all.
Absent = Literal["official", "omit"]


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        """Say how far the curve goes."""
        reached = self.recall[self.confidence > 0]
        end = f"recall {reached[-1]:.2f}" if len(reached) else "nothing"
        return f"<CurveValues at {len(self.recall)} recalls, reaches {end}, errors: {' '.join(self.errors)}>"


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
    meta : dict
        What the file of the predictions says of itself.
    nan_velocity_share : float
        Share of the counted predictions whose velocity is unknown; NaN without predictions.
    sign : callable
        Makes the signature.
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

    def __getitem__(self, name: str) -> float:
        """Give a number by its name of :func:`detmetrics.scoring.metric_names`, e.g. ``"NDS"``, ``"AP/car"``."""
        numbers = self.to_flat_dict()
        if name not in numbers:
            raise unknown_name("metric", name, numbers)
        return numbers[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is a number of that name."""
        return name in self.to_flat_dict()

    def __iter__(self) -> Iterator[str]:
        """Give the names of all numbers, so that ``dict(scores)`` is what it looks like."""
        return iter(self.to_flat_dict())

    def keys(self) -> list[str]:
        """Name all numbers."""
        return list(self)

    @property
    def mean_ap(self) -> float:
        """Mean over classes of the mean over thresholds (mAP)."""
        return float(mean_of_defined(self.ap.mean(axis=1)))

    @property
    def class_ap(self) -> dict[str, float]:
        """AP of each class, mean over thresholds."""
        return dict(zip(self.protocol.labels, self.ap.mean(axis=1).tolist(), strict=True))

    @property
    def tp_errors(self) -> dict[str, float]:
        """Each error by name, mean over the classes in which it is defined."""
        return dict(zip(self.protocol.error_names, mean_of_defined(self.class_errors.T).tolist(), strict=True))

    @property
    def tp_scores(self) -> dict[str, float]:
        """``max(0, 1 - error / scale)`` of each error by name."""
        scores = _error_scores(self.protocol, mean_of_defined(self.class_errors.T))
        return dict(zip(self.protocol.error_names, scores.tolist(), strict=True))

    @property
    def class_composite(self) -> dict[str, float]:
        """The composite of each class; empty where the protocol has none."""
        rule = CLASS_COMPOSITE.get(self.protocol.composite.kind)
        if rule is None:
            return {}
        return dict(zip(self.protocol.labels, rule(self.protocol, self.ap, self.class_errors).tolist(), strict=True))

    @property
    def composite(self) -> float:
        """The one weighted score of the protocol, e.g. NDS."""
        return float(COMPOSITE[self.protocol.composite.kind](self.protocol, self.ap, self.class_errors))

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

    def to_flat_dict(self, prefix: str = "") -> dict[str, float]:
        """Give all numbers under stable names, for loggers; see :func:`detmetrics.scoring.metric_names`.

        Parameters
        ----------
        prefix : str
            Put before every name, e.g. ``"val/"``.
        """
        values = metric_values(self.protocol, self.ap, self.class_errors).tolist()
        return {prefix + name: value for name, value in zip(metric_names(self.protocol), values, strict=True)}

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
        On weights of wrong shape, negative or fractional, and on another word for ``absent``.
    """
    check_ledger(ledger)
    if not isinstance(weights, Weights | None):
        raise InputError("weights", expected="Weights(frame=…, event=…, truth=…)", got=weights)
    plan = Plan(ledger, Weights() if weights is None else weights)
    tables = plan.run(details=True)
    return plan.scores(tables, 0, absent)


class Shards(NamedTuple):
    """Which shard each event and truth belongs to.

    Attributes
    ----------
    names : tuple of str (S,)
    event : int16 (T, E) or (1, E)
        Shard of each event at each threshold (one row where it is the same at all), or ``NOWHERE`` or ``EVERYWHERE``.
    truth : int16 (N_truth,)
        Shard of each truth row, or ``NOWHERE``.
    """

    names: tuple[str, ...]
    event: NDArray[np.int16]
    truth: NDArray[np.int16]


class _Part(NamedTuple):
    """The matches of one threshold and shard among those of a walk."""

    threshold: int
    shard: int
    rows: Ints
    score: Floats
    errors: Floats | None


class _Walk(NamedTuple):
    """One pass over the events of a task."""

    task: int
    events: slice
    pairs: slice
    match_event: Ints
    event_weight: Ints
    code: NDArray[np.int16]
    parts: list[_Part]


class Tables(NamedTuple):
    """What a run counts and reads: shards x tasks (x thresholds, errors, samples)."""

    n_truth: Ints
    n_pred: Ints
    ap: Floats
    errors: Floats
    precision: Floats
    confidence: Floats
    error_curves: Floats


class Plan:
    """A ledger made ready to be scored many times under different frame weights, whole or in shards.

    Parameters
    ----------
    ledger : Ledger
    weights : Weights
        Checked here; they multiply into every run.
    shards : Shards, optional
        All are scored in the same walk; default: one shard, the whole.
    """

    def __init__(self, ledger: Ledger, weights: Weights, shards: Shards | None = None) -> None:
        protocol = ledger.protocol
        n_tasks, n_thresholds = len(protocol.tasks), len(protocol.affinity.thresholds)
        self.ledger, self.shards = ledger, shards
        self.n_shards = 1 if shards is None else len(shards.names)
        self.weights = weights.checked(ledger.n_frames, n_thresholds, len(ledger.event_pred), len(ledger.truth))
        self.error_index = protocol.error_index
        same = self.weights.event is None and (shards is None or len(shards.event) == 1)
        self.walks = [
            self._walk(k, thresholds)
            for k in range(n_tasks)
            for thresholds in ([range(n_thresholds)] if same else [[t] for t in range(n_thresholds)])
        ]

    def _n_truth(self, weight: Ints | None) -> Ints:
        """Truths by shard and task (S, K) under frame weights."""
        shape = (self.n_shards, len(self.ledger.protocol.tasks))
        if weight is None:  # once, without a table of all frames
            key, own = self._truth_keys()
            counts = np.bincount(key % (shape[0] * shape[1]), own, minlength=shape[0] * shape[1]).astype(np.int64)
        else:
            counts = (weight.astype(np.float64) @ self.truth_counts).astype(np.int64)
        return counts.reshape(shape)

    def _truth_keys(self) -> tuple[Ints, Ints | None]:
        """Frame, shard and task of every truth that counts, as one number each, and their own weights."""
        ledger, shards, weight = self.ledger, self.shards, self.weights.truth
        rows = ledger.truth_rows
        shard = np.zeros(len(rows), np.int64) if shards is None else shards.truth[rows].astype(np.int64)
        n_tasks = len(ledger.protocol.tasks)
        key = (ledger.truth.frame[rows].astype(np.int64) * self.n_shards + shard) * n_tasks + ledger.truth_task[rows]
        return key[shard >= 0], None if weight is None else weight[rows][shard >= 0]

    @cached_property
    def truth_counts(self) -> Floats:
        """Truths by frame, shard and task (F, S * K), as float for a fast product."""
        key, own = self._truth_keys()
        size = self.ledger.n_frames * self.n_shards * len(self.ledger.protocol.tasks)
        return np.bincount(key, own, minlength=size).astype(np.float64).reshape(self.ledger.n_frames, -1)

    def _walk(self, k: int, thresholds: Sequence[int]) -> _Walk:
        ledger, shards, weight = self.ledger, self.shards, self.weights.event
        events = slice(int(ledger.event_offsets[k]), int(ledger.event_offsets[k + 1]))
        pairs = slice(ledger.pair_offsets[k], ledger.pair_offsets[k + 1])
        match_event, bits = ledger.pair_event[pairs] - events.start, ledger.pair_bits[pairs]
        t = thresholds[0]
        code = np.zeros(0, np.int16)
        shard = np.zeros(len(match_event), np.int16)
        if shards is not None:
            code = shards.event[t if len(shards.event) > 1 else 0, events]
            shard = code[match_event]
        parts = []
        for t in thresholds:
            matched = np.flatnonzero(bits >> t & 1)
            offsets, order = group(shard[matched].astype(np.int32), self.n_shards)
            for s in range(self.n_shards):
                rows = matched[order[offsets[s] : offsets[s + 1]]]
                score = ledger.event_score[events][match_event[rows]]
                parts.append(
                    _Part(t, s, rows, score, ledger.pair_errors[pairs][rows] if t == self.error_index else None)
                )
        event_weight = np.zeros(0, np.int64) if weight is None else weight[t, events]
        return _Walk(k, events, pairs, match_event, event_weight, code, parts)

    def run(self, frame_weight: Ints | None = None, *, details: bool = False) -> Tables:
        """Count and read everything once.

        Parameters
        ----------
        frame_weight : int64 (F,), optional
            Multiplicity of each frame, on top of the plan's own weights.
        details : bool
            Keep the error curves, at every threshold; else they are read only where the errors are taken, and not kept.
        """
        ledger, protocol = self.ledger, self.ledger.protocol
        n_tasks, n_thresholds = len(protocol.tasks), len(protocol.affinity.thresholds)
        grid = np.linspace(0, 1, protocol.curve.n_samples)
        shape = (self.n_shards, n_tasks, n_thresholds)
        weight = self.weights.frame
        if weight is not None and frame_weight is not None:
            weight = weight * frame_weight
        elif frame_weight is not None:
            weight = frame_weight
        tables = Tables(
            n_truth=self._n_truth(weight),
            n_pred=np.zeros(shape[:2], np.int64),
            ap=np.empty(shape),
            errors=np.empty((*shape[:2], len(protocol.errors))),
            precision=np.empty((*shape, len(grid))),
            confidence=np.empty((*shape, len(grid))),
            error_curves=np.empty((*shape, len(protocol.errors), len(grid)) if details else (0,)),
        )
        read, mean, rule = CURVE[protocol.curve.kind], ERROR_MEAN[protocol.curve.error_mean], protocol.curve
        worst = np.array([error.worst for error in protocol.errors])
        none = np.zeros(0, np.int64)
        for one in self.walks:
            score = ledger.event_score[one.events]
            before, own, previous, total, last = walk(
                one.match_event,
                score,
                ledger.event_frame[one.events],
                none if weight is None else weight,
                one.event_weight,
                one.code,
                self.n_shards,
            )
            for part in one.parts:
                at, rows, scores = (part.shard, one.task, part.threshold), part.rows, part.score
                is_error, errors = part.threshold == self.error_index, part.errors
                if errors is None:
                    errors = ledger.pair_errors[one.pairs][rows] if details else np.empty((len(rows), 0))
                has_weight = own[rows] > 0
                if not has_weight.all():
                    rows, errors, scores = rows[has_weight], errors[has_weight], scores[has_weight]
                tables.precision[at], tables.confidence[at], curves = read(
                    before[rows],
                    own[rows],
                    scores,
                    previous[rows],
                    errors,
                    total[part.shard],
                    last[part.shard],
                    tables.n_truth[at[:2]],
                    grid,
                )
                if details:
                    tables.error_curves[at] = curves
                if is_error:
                    tables.n_pred[at[:2]] = total[part.shard]
                    confidence = tables.confidence[at]
                    tables.errors[at[:2]] = mean(curves, confidence, errors, own[rows], rule.first_sample, worst)
        tables.ap[:] = average_precision(tables.precision, rule.first_sample, rule.min_precision)
        return tables

    def numbers(self, absent: Absent, frame_weight: Ints | None = None) -> Floats:
        """Give the numbers of :func:`metric_names` of each shard (S, M), under frame weights (F,) if given."""
        protocol, tables = self.ledger.protocol, self.run(frame_weight)
        return metric_values(protocol, *official(protocol, tables.ap, tables.errors, tables.n_truth, absent))

    def scores(self, tables: Tables, shard: int, absent: Absent) -> Scores:
        """Make the scores of one shard."""
        ledger = self.ledger
        ap, errors = official(ledger.protocol, tables.ap[shard], tables.errors[shard], tables.n_truth[shard], absent)
        return Scores(
            protocol=ledger.protocol,
            ap=ap,
            class_errors=errors,
            n_truth=tables.n_truth[shard],
            n_pred=tables.n_pred[shard],
            precision=tables.precision[shard],
            confidence=tables.confidence[shard],
            error_curves=tables.error_curves[shard],
            absent=absent,
            notes=ledger.notes,
            nan_velocity_share=ledger.nan_velocity_share,
            meta=ledger.pred.meta,
            sign=partial(ledger.signature, absent),
        )


def official(protocol: Protocol, ap: Floats, errors: Floats, n_truth: Ints, absent: Absent) -> tuple[Floats, Floats]:
    """Put in what a class without truth counts, and NaN where an error means nothing; the one place that does.

    Parameters
    ----------
    ap, errors, n_truth : (..., K, T), (..., K, n_errors), (..., K)
    absent : {"official", "omit"}

    Raises
    ------
    InputError
        On another word for ``absent``.
    """
    if absent not in get_args(Absent):
        raise InputError("absent", expected=f"one of {get_args(Absent)}", got=absent)
    ap, errors = ap.copy(), errors.copy()
    missing = n_truth == 0
    ap[missing] = 0 if absent == "official" else np.nan
    errors[missing] = [error.worst if absent == "official" else np.nan for error in protocol.errors]
    for k, task in enumerate(protocol.tasks):
        for name in task.undefined:
            errors[..., k, protocol.error_names.index(name)] = np.nan
    return ap, errors


def mean_of_defined(values: Floats) -> Floats:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    n_defined = defined.sum(axis=-1)
    mean: Floats = np.where(defined, values, 0).sum(axis=-1) / np.where(n_defined, n_defined, np.nan)
    return mean


def _weighted_mean(protocol: Protocol, ap: Floats, errors: Floats) -> Floats:
    """Mean of mAP and of the scores of the errors with the weights of the composite."""
    composite = protocol.composite
    total = composite.map_weight * mean_of_defined(ap.mean(axis=-1))
    scores = _error_scores(protocol, mean_of_defined(np.swapaxes(errors, -1, -2)))
    weights = {name: composite.error_weights[name] for name in protocol.error_names if name in composite.error_weights}
    for name, weight in weights.items():  # in the order of the errors, whatever the dict's: so do rules read from a map
        total = total + weight * scores[..., protocol.error_names.index(name)]
    return total / (composite.map_weight + sum(weights.values()))


def _class_product(protocol: Protocol, ap: Floats, errors: Floats) -> Floats:
    """AP of each class times the weighted mean of the scores of those of its errors that mean something."""
    weights, scores = _error_weights(protocol), _error_scores(protocol, errors)
    defined = ~np.isnan(scores)
    total = (defined * weights).sum(axis=-1)
    mean: Floats = (np.where(defined, scores, 0) * weights).sum(axis=-1) / np.where(total > 0, total, np.nan)
    product: Floats = ap.mean(axis=-1) * mean
    return product


def _mean_class_product(protocol: Protocol, ap: Floats, errors: Floats) -> Floats:
    """Mean over classes of the products."""
    return mean_of_defined(_class_product(protocol, ap, errors))


def _error_weights(protocol: Protocol) -> Floats:
    """Weight of each error in the composite (n_errors,), in the order of the protocol."""
    return np.array([protocol.composite.error_weights.get(name, 0.0) for name in protocol.error_names])


def _error_scores(protocol: Protocol, errors: Floats) -> Floats:
    """``max(0, 1 - error / scale)`` of errors (..., n_errors)."""
    scores: Floats = np.maximum(1 - errors / np.array([error.scale for error in protocol.errors]), 0)
    return scores


#: From ap (..., K, T) and errors (..., K, n_errors) to the composite (...).
COMPOSITE: dict[str, Callable[[Protocol, Floats, Floats], Floats]] = {
    "weighted_mean": _weighted_mean,
    "class_product": _mean_class_product,
}
#: The same for each class (..., K), where the composite has such parts.
CLASS_COMPOSITE: dict[str, Callable[[Protocol, Floats, Floats], Floats]] = {"class_product": _class_product}


def _weighted_mean_slope(protocol: Protocol, ap: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Slope of the weighted mean, as if the scores of the errors could fall below 0."""
    weights, map_weight = _error_weights(protocol), protocol.composite.map_weight
    counts, known = ~np.isnan(ap), ~np.isnan(errors)
    total = map_weight + weights.sum()
    per_error = weights / np.array([error.scale for error in protocol.errors]) / np.maximum(known.sum(axis=0), 1)
    return map_weight * counts / max(counts.sum(), 1) / total, -per_error * known / total


def _class_product_slope(protocol: Protocol, ap: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Slope of the mean of the products; a score that is 0 stays 0."""
    scores = _error_scores(protocol, errors)
    weights = _error_weights(protocol) * ~np.isnan(scores)
    total = weights.sum(axis=-1)
    counts = ~np.isnan(ap) & (total > 0)
    share = weights / np.where(counts, total, np.inf)[:, None] / max(counts.sum(), 1)
    per_error = np.where(scores > 0, share / np.array([error.scale for error in protocol.errors]), 0)
    return (share * np.nan_to_num(scores)).sum(axis=-1), -np.nan_to_num(ap)[:, None] * per_error


#: How fast the composite rises with the AP of each class (K,) and with its errors (K, n_errors), from ap (K,), the mean
#: over thresholds, and errors (K, n_errors), NaN where they do not count; 0 there.
SLOPE: dict[str, Callable[[Protocol, Floats, Floats], tuple[Floats, Floats]]] = {
    "weighted_mean": _weighted_mean_slope,
    "class_product": _class_product_slope,
}


def headline_names(protocol: Protocol) -> tuple[str, ...]:
    """Names of the numbers of all classes together: the composite, ``mAP``, the errors."""
    return (protocol.composite.name, "mAP", *protocol.error_names)


def metric_names(protocol: Protocol) -> tuple[str, ...]:
    """Stable names of all numbers: the composite, ``mAP``, the errors, ``AP/car`` …, ``ATE/car`` …, in this order.

    Where the composite is made class by class (``class_product``), those parts come last: ``CDS/car`` ….
    """
    has_parts = protocol.composite.kind in CLASS_COMPOSITE
    kinds = ("AP", *protocol.error_names, *([protocol.composite.name] if has_parts else []))
    by_class = (f"{kind}/{label}" for kind in kinds for label in protocol.labels)
    return (*headline_names(protocol), *by_class)


def metric_values(protocol: Protocol, ap: Floats, errors: Floats) -> Floats:
    """Values of :func:`metric_names` (..., M) from ap (..., K, T) and errors (..., K, n_errors)."""
    class_ap = ap.mean(axis=-1)
    by_error = np.swapaxes(errors, -1, -2)
    whole = COMPOSITE[protocol.composite.kind](protocol, ap, errors)
    by_class = CLASS_COMPOSITE.get(protocol.composite.kind)
    return np.concatenate(
        (
            whole[..., None],
            mean_of_defined(class_ap)[..., None],
            mean_of_defined(by_error),
            class_ap,
            by_error.reshape(*by_error.shape[:-2], -1),
            *([by_class(protocol, ap, errors)] if by_class else []),
        ),
        axis=-1,
    )


def higher_is_better(name: str, protocol: Protocol) -> bool:
    """Whether more of a metric of :func:`metric_names` is better: all but the errors."""
    return name.partition("/")[0] not in protocol.error_names


def metric_range(name: str, protocol: Protocol) -> tuple[float, float]:
    """Least and greatest value that a metric of :func:`metric_names` can have; infinite where there is no greatest."""
    kind = name.partition("/")[0]
    for error in protocol.errors:
        if error.name == kind:
            return 0.0, max(ERROR[error.kind].most, error.worst)
    return 0.0, 1.0
