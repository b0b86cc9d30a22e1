"""The gate: may the candidate replace the baseline? Rules are data; the answer is yes or no, and why."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from detmetrics.errors import InputError, unknown_name
from detmetrics.files import near_key, read_toml
from detmetrics.ledger import Ledger, check_ledger
from detmetrics.protocol import Protocol
from detmetrics.resampling import check_draws, check_level, compare
from detmetrics.scoring import metric_names
from detmetrics.slicing import Term, check_terms, plain

if TYPE_CHECKING:
    from detmetrics.resampling import Comparison, Difference, Progress
    from detmetrics.scoring import Absent


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must not get worse, and by how much it may.

    Attributes
    ----------
    metric : str
        ``NDS`` (or the protocol's composite), ``mAP``, an error (``ATE`` …), or with ``class`` also ``AP``.
    label : str or None
        The class (``class`` in TOML); None: the mean over classes.
    slice : str or None
        ``weather=rain``, ``range=20-40``, ``weather=rain+range=20-40``; None: the whole. An empty text is refused.
    tolerance : float
        How much worse the candidate may be, in the metric's own unit.
    significant : bool
        Whether only a drop beyond the tolerance that is significant fails: the whole interval must lie beyond it. Where
        there is no interval, since one scene alone bears on the number, the drop itself decides.
    """

    metric: str
    label: str | None = msgspec.field(default=None, name="class")
    slice: str | None = None
    tolerance: float = 0.0
    significant: bool = True

    def __post_init__(self) -> None:
        """Refuse a tolerance that is none, and a slice that cannot be read."""
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise InputError("tolerance of a gate's rule", expected="zero or more", got=self.tolerance)
        if self.slice is not None:
            parse_slice(self.slice)

    @property
    def name(self) -> str:
        """Name of the number, as in :func:`detmetrics.scoring.metric_names`."""
        return self.metric if self.label is None else f"{self.metric}/{self.label}"

    def __str__(self) -> str:
        """Say the rule in words."""
        where = "" if self.slice is None else f" in {self.slice}"
        drop = "no significant drop" if self.significant else "no drop"
        beyond = f" beyond {self.tolerance:g}" if self.tolerance else ""
        return f"{self.name}{where}: {drop}{beyond}"


class Outcome(NamedTuple):
    """What a rule says of two detectors.

    Attributes
    ----------
    rule : Rule
    verdict : str
        ``ok``; ``worse``; ``undefined``: the candidate lacks a number that the baseline has; ``nothing``: there is no
        truth to judge by. Only ``ok`` passes: a rule about nothing would never say no.
    difference : Difference
    """

    rule: Rule
    verdict: Literal["ok", "worse", "undefined", "nothing"]
    difference: Difference


class Verdict(NamedTuple):
    """The answer of a gate.

    Attributes
    ----------
    outcomes : tuple of Outcome
        One a rule, in order.
    comparison : Comparison
        Of the whole.
    """

    outcomes: tuple[Outcome, ...]
    comparison: Comparison

    @property
    def passed(self) -> bool:
        """Whether every rule is met."""
        return all(outcome.verdict == "ok" for outcome in self.outcomes)

    def __str__(self) -> str:
        """Give the table: one line a rule."""
        from detmetrics.reporting.comparing import verdict_table
        from detmetrics.reporting.table import as_plain

        return as_plain(verdict_table(self))

    def __repr__(self) -> str:
        """Say the answer."""
        return f"<Verdict: {self.words}>"

    @property
    def words(self) -> str:
        """The answer in words, and how many rules were broken."""
        n_rules = len(self.outcomes)
        n_broken = sum(outcome.verdict != "ok" for outcome in self.outcomes)
        if n_rules == 1:
            return "NOT passed, its one rule broken" if n_broken else "passed, its one rule met"
        return f"NOT passed, {n_broken} of {n_rules} rules broken" if n_broken else f"passed, all {n_rules} rules met"


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules and how the comparison is done.

    Attributes
    ----------
    rules : tuple of Rule
        ``[[rule]]`` in TOML.
    level, n, unit, seed
        As in :func:`detmetrics.compare`.
    """

    rules: tuple[Rule, ...] = msgspec.field(name="rule")
    level: float = 0.95
    n: int = 1000
    unit: str = "scene"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a gate that can only say yes, and what no comparison could be done with."""
        if not self.rules:
            raise InputError("gate", expected="at least one [[rule]]")
        check_level(self.level)
        check_draws(self.n, self.seed)

    @staticmethod
    def load(path: str | Path) -> Gate:
        """Read a gate from TOML.

        Raises
        ------
        InputError
            Where the file is missing, is not TOML, or is no gate, naming the field.
        """
        return Gate.from_dict(read_toml(path), str(path))

    @staticmethod
    def from_dict(values: Mapping[str, object], source: str = "gate") -> Gate:
        """Make a gate from plain values, as TOML holds them.

        Raises
        ------
        InputError
            Where they are no gate, naming the field.
        """
        if not isinstance(values, Mapping):
            raise InputError(source, expected="a mapping of the fields of a gate", got=values)
        try:
            return msgspec.convert(values, Gate)
        except msgspec.ValidationError as error:
            raise InputError(f"{source}: {error}", hint=near_key(error, Gate)) from None

    def check(
        self,
        baseline: Ledger,
        candidate: Ledger,
        *,
        absent: Absent | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Verdict:
        """Compare two ledgers under the rules; the same scenes are drawn for every rule.

        Parameters
        ----------
        baseline, candidate : Ledger
        absent : {"official", "omit"}, optional
            What a class without truth counts in the whole; in slices it is always left out.
        threads, progress
            As in :func:`detmetrics.compare`.

        Raises
        ------
        InputError
            On a metric, class or slice that there is not, or ledgers that cannot be compared.
        """
        check_ledger(baseline, "baseline")
        check_ledger(candidate, "candidate")
        for rule in self.rules:
            _check_name(rule, baseline.protocol)
        slicings = list(dict.fromkeys(terms for terms, _ in self._slices() if terms))
        n_parts = 1 + len(slicings)
        settings: Any = {"n": self.n, "unit": self.unit, "seed": self.seed, "level": self.level, "threads": threads}
        whole: Comparison = compare(
            baseline, candidate, absent=absent, progress=_part(progress, 0, n_parts), **settings
        )
        by_slicing: dict[tuple[Term, ...], dict[str, Comparison]] = {}
        for i, terms in enumerate(slicings):
            by = {term.name: term.edges for term in terms}
            part = _part(progress, i + 1, n_parts)
            by_slicing[terms] = compare(baseline, candidate, by=by, progress=part, **settings)
        outcomes = []
        for rule, (terms, name) in zip(self.rules, self._slices(), strict=True):
            comparison = whole
            if terms:
                found = by_slicing[terms]
                if name not in found:
                    raise unknown_name(f"slice {rule.slice!r}: no", name, tuple(found))
                comparison = found[name]
            has_truth = comparison.n_units[comparison.names.index(_truth_of(rule))] > 0
            outcomes.append(_outcome(rule, comparison[rule.name], bool(has_truth)))
        return Verdict(tuple(outcomes), whole)

    def _slices(self) -> Iterator[tuple[tuple[Term, ...], str]]:
        """Slicing and name of the slice of each rule."""
        return (((), "") if rule.slice is None else parse_slice(rule.slice) for rule in self.rules)


def parse_slice(text: str) -> tuple[tuple[Term, ...], str]:
    """Read ``weather=rain+range=20-40``: what to slice by, and the name of the slice.

    Raises
    ------
    InputError
        Where it cannot be read.
    """
    terms, names = [], []
    for part in re.split(r"\+(?=\s*[^\W\d])", text):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise InputError(f"slice {text!r}", expected="like weather=rain or range=20-40")
        number = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
        match = re.fullmatch(f"{number}-{number}|<{number}|>={number}", value)
        edges = tuple(float(group) for group in match.groups() if group is not None) if match else None
        terms.append(Term(name, edges))
        names.append(value if edges is None else _bin_name(value, edges))
    check_terms(terms, text)
    return tuple(terms), "+".join(names)


def _bin_name(value: str, edges: tuple[float, ...]) -> str:
    """Name of a bin as slices write it, however its edges were written."""
    if len(edges) == 2:
        return f"{plain(edges[0])}-{plain(edges[1])}"
    return ("<" if value.startswith("<") else ">=") + plain(edges[0])


def _truth_of(rule: Rule) -> str:
    """Name of the number that counts the truths which a rule is about."""
    return "mAP" if rule.label is None else f"AP/{rule.label}"


def _outcome(rule: Rule, one: Difference, has_truth: bool = True) -> Outcome:
    """Apply a rule to a difference."""
    if math.isnan(one.baseline) or not has_truth:
        return Outcome(rule, "nothing", one)
    if math.isnan(one.candidate):
        return Outcome(rule, "undefined", one)
    loss = -one.gain
    surely = -one.high if one.higher_is_better else one.low  # the end of the interval that is kindest to the candidate
    is_sure = not rule.significant or math.isnan(surely) or one.is_significant
    worse = is_sure and (surely if rule.significant and not math.isnan(surely) else loss) > rule.tolerance
    return Outcome(rule, "worse" if worse else "ok", one)


def _check_name(rule: Rule, protocol: Protocol) -> None:
    known = metric_names(protocol)
    undefined = {f"{name}/{task.label}" for task in protocol.tasks for name in task.undefined}
    if rule.name in undefined:
        raise InputError(f"a rule on {rule.name}", expected=f"on a number that {protocol.name} defines")
    if rule.name in known:
        return
    if rule.label is not None and rule.metric in known and f"{rule.metric}/{protocol.labels[0]}" not in known:
        raise InputError(f"{rule.metric} has no classes: leave out class = {rule.label!r}, or name another metric")
    if rule.label is not None and rule.label not in protocol.labels:
        raise unknown_name("class", rule.label, protocol.labels)
    raise unknown_name("metric", rule.metric, (*(name for name in known if "/" not in name), "AP with a class"))


def _part(progress: Progress | None, i: int, n_parts: int) -> Progress | None:
    """Progress of one of several parts, in thousandths of a part."""
    if progress is None:
        return None
    return lambda done, total: progress(1000 * i + 1000 * done // total, 1000 * n_parts)
