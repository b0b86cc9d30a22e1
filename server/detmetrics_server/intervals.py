"""Intervals and comparisons to messages and back; numbers keep every bit, replicates stay on the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detmetrics.errors import InputError, unknown_name
from detmetrics.gate import Gate, Outcome, Verdict
from detmetrics.intervals import Method
from detmetrics.protocol import Protocol
from detmetrics.resampling import Bootstrap, Comparison, Difference, Interval
from detmetrics_server import convert, messages


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ToldBootstrap(Bootstrap):
    """Intervals that a server drew: as it read them off its replicates, which stay there (``replicates`` is (n, 0))."""

    told: Mapping[str, Interval]

    def interval(self, name: str, *, level: float | None = None, method: Method | None = None) -> Interval:
        """Give the interval of a number; only at the level and by the method that the server was asked for.

        Raises
        ------
        InputError
            On an unknown name, another level or method.
        """
        if level not in (None, self.level) or method not in (None, self.method):
            asked = f"level {level or self.level:g}, method {method or self.method!r}"
            expected = f"level {self.level:g} and method {self.method!r}, since the replicates stayed on the server"
            raise InputError("interval", expected=expected, got=asked)
        if name not in self.told:
            raise unknown_name("metric", name, self.names)
        return self.told[name]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ToldComparison(Comparison):
    """A comparison that a server made: the differences, without replicates (``replicates`` is (n, 0))."""

    told: Mapping[str, Difference]

    def __getitem__(self, name: str) -> Difference:
        """Difference in a number by name, e.g. ``"NDS"``, ``"AP/car"``."""
        if name not in self.told:
            raise unknown_name("metric", name, self.names)
        return self.told[name]


def from_bootstrap(drawn: Bootstrap) -> Any:
    """Make an ``Intervals`` message (the twin): aggregates, no replicates."""
    message = messages.twin("Intervals")(
        draws=len(drawn.replicates),
        unit=drawn.unit,
        seed=drawn.seed,
        level=drawn.level,
        method=drawn.method,
        signature=drawn.signature,
        notes=drawn.notes,
    )
    for (name, one), n_units in zip(drawn, drawn.n_units.tolist(), strict=True):
        message.intervals.add(metric=name, n_units=n_units, **one._asdict())
    return message


def to_bootstrap(scores: Any) -> Bootstrap | None:
    """Give the intervals of a ``Scores`` message (the twin) to the last bit; None where it has none."""
    if not scores.HasField("intervals"):
        return None
    message = scores.intervals
    rows = {row.metric: Interval(*(getattr(row, name) for name in Interval._fields)) for row in message.intervals}
    return ToldBootstrap(
        told=rows,
        **_drawn(message, Protocol.from_dict(convert.to_dict(scores.protocol)), message.intervals),
        value=np.array([one.value for one in rows.values()]),
        signature=message.signature,
    )


def _drawn(message: Any, protocol: Protocol, rows: Any) -> dict[str, Any]:
    """Give what intervals and comparisons have in common."""
    return {
        "protocol": protocol,
        "names": tuple(row.metric for row in rows),
        "replicates": np.empty((message.draws, 0)),
        "left_out": np.empty((0, 0)),
        "level": message.level,
        "method": message.method,
        "unit": message.unit,
        "n_units": np.array([row.n_units for row in rows], np.int64),
        "notes": tuple(message.notes),
        "seed": message.seed,
    }


def from_comparison(comparison: Comparison, verdict: Verdict | None, slices: Sequence[Comparison] = ()) -> Any:
    """Make a ``CompareEvaluationsResponse`` (the twin): aggregates, no replicates."""
    message = messages.twin("CompareEvaluationsResponse")(
        signatures=comparison.signatures,
        notes=comparison.notes,
        draws=len(comparison.replicates),
        unit=comparison.unit,
        level=comparison.level,
        seed=comparison.seed,
        method=comparison.method,
    )
    message.protocol.CopyFrom(convert.to_struct(comparison.protocol.to_dict(), "protocol"))
    _put_differences(message.differences, comparison)
    for part in slices:
        one = message.slices.add(name=part.slice, notes=part.notes, signatures=part.signatures)
        _put_differences(one.differences, part)
    if verdict is not None:
        message.verdict.passed = verdict.passed
        for outcome in verdict.outcomes:
            row = message.verdict.outcomes.add(rule=str(outcome.rule), verdict=outcome.verdict)
            _put_difference(row.difference, outcome.rule.name, outcome.difference)
    return message


def to_comparison(message: Any) -> tuple[Comparison, dict[str, Comparison]]:
    """Give the comparison of a ``CompareEvaluationsResponse`` (the twin), and those of its slices by name."""
    protocol = Protocol.from_dict(convert.to_dict(message.protocol))

    def made(part: Any, name: str = "") -> Comparison:
        rows = {row.metric: to_difference(row, message.level) for row in part.differences}
        fields = _drawn(message, protocol, part.differences)
        return ToldComparison(
            told=rows,
            **{**fields, "notes": tuple(part.notes)},
            baseline=np.array([one.baseline for one in rows.values()]),
            candidate=np.array([one.candidate for one in rows.values()]),
            signatures=tuple(part.signatures),
            slice=name,
        )

    return made(message), {part.name: made(part, part.name) for part in message.slices}


def to_verdict(message: Any, gate: Gate, comparison: Comparison) -> Verdict:
    """Give the answer of a gate in a ``CompareEvaluationsResponse`` (the twin)."""
    outcomes = (
        Outcome(rule, row.verdict, to_difference(row.difference, message.level))
        for rule, row in zip(gate.rules, message.verdict.outcomes, strict=True)
    )
    return Verdict(tuple(outcomes), comparison)


def to_difference(row: Any, level: float) -> Difference:
    """Make a difference of a ``Difference`` message (the twin)."""
    return Difference(**{name: getattr(row, name) for name in Difference._fields if name != "level"}, level=level)


def _put_differences(rows: Any, comparison: Comparison) -> None:
    for (name, one), n_units in zip(comparison, comparison.n_units.tolist(), strict=True):
        row = rows.add(n_units=n_units)
        _put_difference(row, name, one)


def _put_difference(message: Any, name: str, one: Difference) -> None:
    message.metric = name
    for key, value in one._asdict().items():
        if key != "level":  # said once, of the whole comparison
            setattr(message, key, value)
