"""How sure: intervals by resampling scenes, and the paired comparison of two detectors.

Frames of one scene look alike, so whole scenes are drawn, with replacement and with multiplicity; a replicate is the
ledger under frame weights, so nothing is matched again. What is read off the replicates: :mod:`detmetrics.intervals`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, overload

import numpy as np

from detmetrics.errors import InputError, Words, check_whole, listing, unknown_name
from detmetrics.intervals import NORMAL, Method, critical, limits, p_value, spread
from detmetrics.kernels import Floats, Ints
from detmetrics.ledger import Ledger, check_ledger
from detmetrics.protocol import Protocol
from detmetrics.scoring import (
    Absent,
    Plan,
    Shards,
    higher_is_better,
    metric_names,
    metric_range,
)
from detmetrics.slicing import By, parse, shards_by, text_of
from detmetrics.weights import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]

FEW_UNITS = 20
FEW_DRAWS = 200
MAX_DRAWS = 1_000_000  # their counts and numbers are kept: gigabytes
MAX_LEFT_OUT = 400  # with more units, the jackknife leaves out groups of them
POWER = 0.8


class Interval(NamedTuple):
    """A number and how sure it is.

    Attributes
    ----------
    value : float
        The number of the whole data set.
    low, high : float
        Confidence interval, cut at the range of the number (AP from 0 to 1, AOE from 0 to π); NaN where the
        number is undefined.
    standard_error : float
        Standard deviation of the replicates.
    """

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap:
    """Intervals of every number of one ledger.

    Attributes
    ----------
    protocol : Protocol
    names : tuple of str (M,)
        See :func:`detmetrics.scoring.metric_names`.
    value : float64 (M,)
        The numbers of the whole data set.
    replicates : float64 (n, M)
        The numbers of each replicate; NaN where undefined.
    left_out : float64 (J, M)
        The numbers without each unit in turn (jackknife), for BCa; J is 0 for slices by another method.
    level : float
        Confidence level.
    method : str
        ``expanded``, ``percentile`` or ``bca``.
    unit : str
        What was drawn.
    n_units : int64 (M,)
        How many of them bear on each number: have truth of the class, or of any. With fewer than two there is no
        interval, however many draws there are.
    signature : str
    notes : tuple of str
    seed : int
        Of the draws.
    """

    protocol: Protocol
    names: tuple[str, ...]
    value: Floats
    replicates: Floats
    left_out: Floats
    level: float
    method: Method
    unit: str
    n_units: Ints
    signature: str
    notes: tuple[str, ...]
    seed: int

    def __getitem__(self, name: str) -> Interval:
        """Interval of a number by name, e.g. ``"NDS"``, ``"mAP"``, ``"ATE"``, ``"AP/car"``, ``"AOE/bus"``."""
        return self.interval(name)

    def __iter__(self) -> Iterator[tuple[str, Interval]]:
        """Name and interval of each number."""
        return ((name, self.interval(name)) for name in self.names)

    def __len__(self) -> int:
        """Count the numbers."""
        return len(self.names)

    def interval(self, name: str, *, level: float | None = None, method: Method | None = None) -> Interval:
        """Give the interval of a number, at another level or by another method if asked.

        Raises
        ------
        InputError
            On an unknown name, level or method.
        """
        if name not in self.names:
            raise unknown_name("metric", name, self.names)
        m = self.names.index(name)
        level, method = _checked(self.level if level is None else level, method or self.method)
        if method == "bca" and not len(self.left_out):
            raise InputError("a slice has BCa intervals only if asked for at once", hint='bootstrap(…, method="bca")')
        columns, n_units = (self.replicates[:, m], self.left_out[:, m]), int(self.n_units[m])
        low, high = limits(self.value[m], *columns, n_units, level, method, metric_range(name, self.protocol))
        return Interval(float(self.value[m]), low, high, spread(self.replicates[:, m]))

    def to_rows(self) -> list[dict[str, float | str]]:
        """Give one dict a number: metric, value, low, high, standard error."""
        return [
            {"metric": name, "value": one.value, "low": one.low, "high": one.high, "standard_error": one.standard_error}
            for name, one in self
        ]

    def __str__(self) -> str:
        """Give the table."""
        from detmetrics.reporting.table import as_plain, intervals_table

        return as_plain(intervals_table(self))

    def __repr__(self) -> str:
        """Say the headline with its interval."""
        name, one = next(iter(self))
        return f"<Bootstrap {name} {one.value:.4f} [{one.low:.4f}, {one.high:.4f}], {self.n_units[0]} {self.unit}s>"


@overload
def bootstrap(
    ledger: Ledger,
    n: int = ...,
    unit: str = ...,
    seed: int = ...,
    *,
    by: None = ...,
    level: float = ...,
    method: Method = ...,
    absent: Absent | None = ...,
    threads: int | None = ...,
    progress: Progress | None = ...,
) -> Bootstrap: ...
@overload
def bootstrap(
    ledger: Ledger,
    n: int = ...,
    unit: str = ...,
    seed: int = ...,
    *,
    by: By,
    level: float = ...,
    method: Method = ...,
    absent: Absent | None = ...,
    threads: int | None = ...,
    progress: Progress | None = ...,
) -> dict[str, Bootstrap]: ...
def bootstrap(
    ledger: Ledger,
    n: int = 1000,
    unit: str = "scene",
    seed: int = 0,
    *,
    by: By | None = None,
    level: float = 0.95,
    method: Method = "expanded",
    absent: Absent | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Bootstrap | dict[str, Bootstrap]:
    """Give confidence intervals of every number by resampling scenes.

    Parameters
    ----------
    ledger : Ledger
        From :func:`detmetrics.match`.
    n : int
        Number of replicates.
    unit : str
        What is drawn as one: a frame column of truth (``"scene"``, ``"log"``, ``"location"``, …), or ``"frame"``.
        Neighbouring frames are alike, so intervals from single frames come out too narrow.
    seed : int
        The same seed gives the same bits, for any number of threads and any order of frames.
    by : str or mapping, optional
        Also slice, see :func:`detmetrics.slices`; the result is then a dict by name of the slice.
    level : float
        Confidence level.
    method : {"expanded", "percentile", "bca"}
        How the interval is read off the replicates: quantiles at tails that allow for a small number of units
        (Hesterberg), plain quantiles, or bias-corrected and accelerated ones (Efron). Intervals are cut where they
        would leave the range of the number: an AP lies between 0 and 1.
    absent : {"official", "omit"}, optional
        What a class without truth counts, in the estimate and in every replicate. Default: ``official`` for the whole,
        ``omit`` for slices.
    threads : int, optional
        Worker threads; default one a core.
    progress : callable, optional
        Called with (done, total).

    Returns
    -------
    Bootstrap, or dict of str to Bootstrap

    Raises
    ------
    InputError
        On an unknown unit, fewer than two of them, or options out of range.
    """
    check_ledger(ledger)
    absent = absent or ("official" if by is None else "omit")
    level, method = _checked(level, method)
    groups = [None] if by is None else shards_by(ledger, parse(by))
    draws = Draws(ledger, n, unit, seed, jackknife=by is None or method == "bca")
    found: dict[str, Bootstrap] = {}
    done = _Counter(progress, len(groups) * (n + 1 + len(draws.left_out)))
    for group in groups:
        value, replicates, left_out, n_units = _resample(ledger, draws, group, absent, threads, done)
        for shard, name in enumerate(group.names if group else [""]):
            which = f"boot:{n}/{unit}/seed{seed}/{method}{level * 100:g}"
            if by is not None:
                which = f"slice:{text_of(parse(by))}:{name}|{which}"
            head, _, tail = ledger.signature(absent).rpartition("|")
            found[name] = Bootstrap(
                protocol=ledger.protocol,
                names=metric_names(ledger.protocol),
                value=value[shard],
                replicates=replicates[:, shard],
                left_out=left_out[:, shard],
                level=level,
                method=method,
                unit=unit,
                n_units=n_units[shard],
                signature=f"{head}|{which}|{tail}",
                notes=_few(int(n_units[shard, 0]), unit, n),
                seed=seed,
            )
    return found[""] if by is None else found


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Two detectors on the same truth: what differs, and is it more than chance.

    Attributes
    ----------
    protocol : Protocol
    names : tuple of str (M,)
        See :func:`detmetrics.scoring.metric_names`.
    baseline, candidate : float64 (M,)
        The numbers of each.
    replicates, left_out : float64 (n, M), float64 (J, M)
        Candidate less baseline, in each replicate and without each unit.
    level, method, unit, n_units, notes
        As in :class:`Bootstrap`.
    seed : int
        Of the draws.
    signatures : tuple of str
        Of the baseline and of the candidate.
    slice : str
        Which slice this is, or empty.
    """

    protocol: Protocol
    names: tuple[str, ...]
    baseline: Floats
    candidate: Floats
    replicates: Floats
    left_out: Floats
    level: float
    method: Method
    unit: str
    n_units: Ints
    signatures: tuple[str, str]
    notes: tuple[str, ...]
    seed: int
    slice: str = ""

    def __getitem__(self, name: str) -> Difference:
        """Difference in a number by name, e.g. ``"NDS"``, ``"AP/car"``."""
        if name not in self.names:
            raise unknown_name("metric", name, self.names)
        m = self.names.index(name)
        value = self.candidate[m] - self.baseline[m]
        replicates, left_out = self.replicates[:, m], self.left_out[:, m]
        n_units = int(self.n_units[m])
        least, most = metric_range(name, self.protocol)
        low, high = limits(value, replicates, left_out, n_units, self.level, self.method, (least - most, most - least))
        detectable = math.nan
        if n_units > 1:
            power = NORMAL.inv_cdf(POWER) * math.sqrt(n_units / (n_units - 1))
            detectable = (critical(self.level, n_units, self.method) + power) * spread(replicates)
        return Difference(
            baseline=float(self.baseline[m]),
            candidate=float(self.candidate[m]),
            difference=float(value),
            low=low,
            high=high,
            p_value=p_value(value, replicates, left_out, n_units, self.method),
            detectable=detectable,
            higher_is_better=higher_is_better(name, self.protocol),
            level=self.level,
        )

    def __iter__(self) -> Iterator[tuple[str, Difference]]:
        """Name and difference of each number."""
        return ((name, self[name]) for name in self.names)

    def __len__(self) -> int:
        """Count the numbers."""
        return len(self.names)

    def to_rows(self) -> list[dict[str, float | str | bool]]:
        """Give one dict a number: metric, and the fields of :class:`Difference`."""
        return [{"metric": name, **one._asdict()} for name, one in self]

    def __str__(self) -> str:
        """Give the table."""
        from detmetrics.reporting.table import as_plain, comparison_table

        return as_plain(comparison_table(self))

    def __repr__(self) -> str:
        """Say the headline difference."""
        one = self[self.names[0]]
        return (
            f"<Comparison {self.names[0]} {one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}], p {one.p_value:.3f}>"
        )


class Difference(NamedTuple):
    """One number of two detectors.

    Attributes
    ----------
    baseline, candidate, difference : float
        ``difference`` is candidate less baseline.
    low, high : float
        Confidence interval of the difference, cut at the range that differences of the number can have.
    p_value : float
        Two-sided: the smallest 1 - level whose interval still leaves out zero; where no draw lies beyond zero, told
        from their spread alone, as normal tails, which may be larger.
    detectable : float
        The smallest true difference that this data set would show as significant four times out of five.
    higher_is_better : bool
    level : float
    """

    baseline: float
    candidate: float
    difference: float
    low: float
    high: float
    p_value: float
    detectable: float
    higher_is_better: bool
    level: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out zero, and the p-value agrees."""
        return (self.low > 0 or self.high < 0) and self.p_value < 1 - self.level

    @property
    def gain(self) -> float:
        """The difference, counted so that more is better."""
        return self.difference if self.higher_is_better else -self.difference


@overload
def compare(
    baseline: Ledger,
    candidate: Ledger,
    n: int = ...,
    unit: str = ...,
    seed: int = ...,
    *,
    by: None = ...,
    level: float = ...,
    method: Method = ...,
    absent: Absent | None = ...,
    threads: int | None = ...,
    progress: Progress | None = ...,
) -> Comparison: ...
@overload
def compare(
    baseline: Ledger,
    candidate: Ledger,
    n: int = ...,
    unit: str = ...,
    seed: int = ...,
    *,
    by: By,
    level: float = ...,
    method: Method = ...,
    absent: Absent | None = ...,
    threads: int | None = ...,
    progress: Progress | None = ...,
) -> dict[str, Comparison]: ...
def compare(
    baseline: Ledger,
    candidate: Ledger,
    n: int = 1000,
    unit: str = "scene",
    seed: int = 0,
    *,
    by: By | None = None,
    level: float = 0.95,
    method: Method = "expanded",
    absent: Absent | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison | dict[str, Comparison]:
    """Compare two detectors on the same truth: the same scenes are drawn for both.

    Parameters
    ----------
    baseline, candidate : Ledger
        Of one protocol and the same truth.
    n, unit, seed, by, level, method, absent, threads, progress
        As in :func:`bootstrap`.

    Returns
    -------
    Comparison, or dict of str to Comparison by name of the slice
        A slice that one side only has is undefined, as its note says.

    Raises
    ------
    InputError
        Where the ledgers differ in protocol, frames or truth, naming the field; else as :func:`bootstrap`.
    """
    check_comparable(baseline, candidate, unit)
    if by is not None:
        _check_slices([shards_by(ledger, parse(by)) for ledger in (baseline, candidate)])
    options: dict[str, Any] = {"level": level, "method": method, "absent": absent, "threads": threads}
    halves = (_half(progress, 0), _half(progress, 1))
    if by is None:
        a, b = (
            bootstrap(ledger, n, unit, seed, progress=half, **options)
            for ledger, half in zip((baseline, candidate), halves, strict=True)
        )
        return paired(a, b)
    first, second = (
        bootstrap(ledger, n, unit, seed, by=by, progress=half, **options)
        for ledger, half in zip((baseline, candidate), halves, strict=True)
    )
    return _paired_slices(first, second, text_of(parse(by)))


def _paired_slices(
    baseline: Mapping[str, Bootstrap], candidate: Mapping[str, Bootstrap], by: str
) -> dict[str, Comparison]:
    """Compare the slices of two ledgers; of one that only one of them has, say that there is nothing to compare.

    The truths of every slice are the same in both, so such a slice holds predictions alone and no truth.
    """
    found = {}
    for name in dict.fromkeys((*baseline, *candidate)):
        here = [side[name] for side in (baseline, candidate) if name in side]
        first, second = (side[name] if name in side else _nothing(here[0]) for side in (baseline, candidate))
        found[name] = paired(first, second, f"{by}:{name}")
        if len(here) == 1:
            has = "baseline" if name in baseline else "candidate"
            note = f"only the {has} has predictions here, and there is no truth: nothing to compare"
            found[name] = replace(found[name], notes=(note,))
    return found


def _nothing(like: Bootstrap) -> Bootstrap:
    """Give the bootstrap of a slice that holds nothing."""
    undefined = {name: np.full_like(getattr(like, name), np.nan) for name in ("value", "replicates", "left_out")}
    return replace(like, **undefined, n_units=np.zeros_like(like.n_units))


def paired(baseline: Bootstrap, candidate: Bootstrap, name: str = "") -> Comparison:
    """Compare two bootstraps of the same draws, as :func:`compare` does.

    Parameters
    ----------
    baseline, candidate : Bootstrap
        Of comparable ledgers (:func:`check_comparable`), with the same options.
    name : str
        Which slice they are of.
    """
    n_units = np.minimum(baseline.n_units, candidate.n_units)
    return Comparison(
        protocol=baseline.protocol,
        names=baseline.names,
        baseline=baseline.value,
        candidate=candidate.value,
        replicates=candidate.replicates - baseline.replicates,
        left_out=candidate.left_out - baseline.left_out,
        level=baseline.level,
        method=baseline.method,
        unit=baseline.unit,
        n_units=n_units,
        signatures=(baseline.signature, candidate.signature),
        notes=_few(int(n_units[0]), baseline.unit, len(baseline.replicates)),
        seed=baseline.seed,
        slice=name,
    )


def _half(progress: Progress | None, i: int) -> Progress | None:
    """Progress of the first or second half."""
    if progress is None:
        return None
    return lambda done, total: progress(i * total + done, 2 * total)


def _check_slices(groups: Sequence[Sequence[Shards | None]]) -> None:
    """Refuse slices that hold other truths in the two ledgers, since a column differs."""
    counts = [
        {
            name: int(count)
            for shards in side
            if shards is not None
            for name, count in zip(
                shards.names, np.bincount(shards.truth + 1, minlength=len(shards.names) + 1)[1:], strict=True
            )
            if count
        }
        for side in groups
    ]
    if counts[0] != counts[1]:
        differ = sorted(name for name in counts[0] | counts[1] if counts[0].get(name) != counts[1].get(name))
        raise InputError(
            f"truths of slice {differ[0]!r} of baseline and candidate",
            expected="the same number",
            got=Words(f"{counts[0].get(differ[0], 0)} and {counts[1].get(differ[0], 0)}"),
            hint="the two ledgers have other columns",
        )


def check_comparable(baseline: Ledger, candidate: Ledger, unit: str = "frame") -> None:
    """Refuse two ledgers that differ in protocol, frames, truth, or in the unit of a frame.

    Raises
    ------
    InputError
        Naming the field that differs and both values.
    """
    check_ledger(baseline, "baseline")
    check_ledger(candidate, "candidate")
    if baseline.protocol.digest != candidate.protocol.digest:
        names = [f"{ledger.protocol.name}#{ledger.protocol.digest[:6]}" for ledger in (baseline, candidate)]
        raise InputError("protocol of baseline and candidate", expected="the same", got=Words(" and ".join(names)))
    frames = [set(ledger.truth.frames) for ledger in (baseline, candidate)]
    if frames[0] != frames[1]:
        only = [sorted(frames[0] - frames[1]), sorted(frames[1] - frames[0])]
        raise InputError(
            "frames of baseline and candidate",
            expected="the same",
            got=Words(f"{len(frames[0])} and {len(frames[1])}"),
            hint="; ".join(
                f"only in the {side}: {listing(names)}"
                for side, names in zip(("baseline", "candidate"), only, strict=True)
                if names
            ),
        )
    digests = [ledger.truth.digest[:12] for ledger in (baseline, candidate)]
    if digests[0] != digests[1]:
        raise InputError("truth of baseline and candidate", expected="the same", got=Words(" and ".join(digests)))
    first, second = (
        dict(zip(one.truth.frames, _unit_column(one, unit).tolist(), strict=True)) for one in (baseline, candidate)
    )
    if first != second:
        differ = [frame for frame, name in first.items() if second[frame] != name]
        raise InputError(
            f"{unit} of the frames of baseline and candidate",
            expected="the same",
            got=Words(f"{len(differ)} that differ"),
            hint=f"frame {differ[0]!r}: {first[differ[0]]!r} and {second[differ[0]]!r}",
        )


def _unit_column(ledger: Ledger, unit: str) -> NDArray[Any]:
    """Name of the unit of each frame (F,)."""
    truth = ledger.truth
    if unit == "frame":
        return np.array(truth.frames)
    if unit not in truth.frame_columns:
        raise InputError(
            f"unit {unit!r} to draw",
            expected=f"'frame' or a column of the frames of {truth.called('truth')}, "
            f"which has {listing(truth.frame_columns) or 'none'}",
            hint="'frame' draws single frames; neighbouring frames are alike, so intervals come out too narrow",
        )
    column = truth.frame_columns[unit]
    if column.ndim > 1:
        raise InputError(f"column {unit!r} to draw by", expected="of one value a frame", got=column.shape)
    nameless = column == "" if column.dtype.kind == "U" else column != column  # NaN
    if nameless.any():
        raise InputError(f"{int(nameless.sum())} frames of {truth.called('truth')} have no {unit} to draw by")
    return column


class Draws:
    """Which units are drawn how often in each replicate; the same for every ledger with the same units.

    Attributes
    ----------
    unit_of_frame : int64 (F,)
        Unit of each frame; units are numbered in the order of their names.
    counts : int32 (n, U)
        Multiplicity of each unit in each replicate.
    left_out : list of int64 arrays
        Units that each jackknife sample leaves out: one each, or groups where there are very many.
    """

    def __init__(self, ledger: Ledger, n: int, unit: str, seed: int, *, jackknife: bool = True) -> None:
        check_draws(n, seed)
        names, self.unit_of_frame = np.unique(_unit_column(ledger, unit), return_inverse=True)
        self.n_units = len(names)
        if self.n_units < 2:
            raise InputError(f"units to draw ({unit})", expected="at least 2", got=self.n_units)
        random = np.random.default_rng(seed)
        self.counts = np.empty((n, self.n_units), np.int32)
        for row in self.counts:
            row[:] = np.bincount(random.integers(0, self.n_units, self.n_units), minlength=self.n_units)
        order = random.permutation(self.n_units) if self.n_units > MAX_LEFT_OUT else np.arange(self.n_units)
        self.left_out = np.array_split(order, min(self.n_units, MAX_LEFT_OUT)) if jackknife else []

    def weights(self, i: int) -> Ints:
        """Frame weights (F,) of replicate ``i``."""
        weights: Ints = self.counts[i].astype(np.int64)[self.unit_of_frame]
        return weights

    def without(self, j: int) -> Ints:
        """Frame weights (F,) without the units of jackknife sample ``j``."""
        keep = np.ones(self.n_units, np.int64)
        keep[self.left_out[j]] = 0
        weights: Ints = keep[self.unit_of_frame]
        return weights


def _few(n_units: int, unit: str, n: int) -> tuple[str, ...]:
    """Warn where there are few units or draws."""
    notes = []
    note = f"only {n_units} {unit}{'' if n_units == 1 else 's'}"
    if n_units < 2:
        return (f"{note}: nothing can be said about how sure these numbers are",)
    if n_units < FEW_UNITS:
        notes.append(f"{note}: with fewer than {FEW_UNITS}, intervals are rough")
    if n < FEW_DRAWS:
        notes.append(f"only {n} draws: with fewer than {FEW_DRAWS}, the ends of intervals are left to chance")
    return tuple(notes)


class _Counter:
    """Progress over several loops."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def step(self) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)


def _resample(
    ledger: Ledger, draws: Draws, shards: Shards | None, absent: Absent, threads: int | None, done: _Counter
) -> tuple[Floats, Floats, Floats, Ints]:
    """Numbers of the whole (S, M), of the replicates (n, S, M), of the jackknife (J, S, M); units that bear on each."""
    if threads is not None:
        check_whole("threads", threads, 1)
    plan = Plan(ledger, Weights(), shards)
    value = plan.numbers(absent)
    done.step()
    n, n_left_out = len(draws.counts), len(draws.left_out)
    out = np.empty((n + n_left_out, *value.shape))

    def one(i: int) -> None:
        out[i] = plan.numbers(absent, draws.weights(i) if i < n else draws.without(i - n))

    threads = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(one, range(len(out))):
            done.step()
    return value, out[:n], out[n:], _units(plan, draws)


def _units(plan: Plan, draws: Draws) -> Ints:
    """Count the units that bear on each number (S, M): those with truth, for errors with matches, of its class."""
    ledger = plan.ledger
    n_tasks = len(ledger.protocol.tasks)
    shape = (draws.n_units, plan.n_shards, n_tasks)
    truths, matches = np.zeros(shape), np.zeros(shape)
    np.add.at(truths, draws.unit_of_frame, plan.truth_counts.reshape(-1, plan.n_shards, n_tasks))
    pairs = np.flatnonzero(ledger.pair_bits >> plan.error_index & 1)
    event = ledger.pair_event[pairs]
    shard = np.zeros(len(event), np.int64)
    if plan.shards is not None:
        shard = plan.shards.event[plan.error_index if len(plan.shards.event) > 1 else 0, event].astype(np.int64)
    unit, task = draws.unit_of_frame[ledger.event_frame[event]], ledger.truth_task[ledger.pair_truth[pairs]]
    inside = shard >= 0
    np.add.at(matches, (unit[inside], shard[inside], task[inside]), 1)
    columns = []
    for name in metric_names(ledger.protocol):
        kind, _, label = name.partition("/")
        counts = matches if kind in ledger.protocol.error_names else truths
        mine = counts[..., ledger.protocol.labels.index(label)] if label else counts.sum(axis=-1)
        columns.append((mine > 0).sum(axis=0))
    return np.stack(columns, axis=1)


def check_draws(n: int, seed: int) -> None:
    """Refuse a number of replicates or a seed that cannot be."""
    check_whole("number of replicates", n)
    if not 2 <= n <= MAX_DRAWS:
        raise InputError("number of replicates", expected=f"at least 2 and at most {MAX_DRAWS}", got=n)
    check_whole("seed", seed, 0)


def check_level(level: float) -> None:
    """Refuse a confidence level that is none."""
    is_number = isinstance(level, int | float | np.floating)
    if not (is_number and level > 0 and (1 + level) / 2 < 1):  # also less than half a digit below 1 is none
        raise InputError("level", expected="between 0 and 1", got=level)


def _checked(level: float, method: str) -> tuple[float, Method]:
    check_level(level)
    if method not in get_args(Method):
        raise InputError("method", expected=f"one of {get_args(Method)}", got=method)
    return level, method  # type: ignore[return-value]
