"""Comparison and verdict as JSON and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detmetrics.reporting.table import chance, number, signed
from detmetrics.scoring import headline_names

if TYPE_CHECKING:
    from rich.console import RenderableType

    from detmetrics.gate import Verdict
    from detmetrics.resampling import Comparison


def as_json(comparison: Comparison, verdict: Verdict | None, slices: dict[str, Comparison]) -> dict[str, Any]:
    """Give everything as plain values; NaN where undefined."""
    result: dict[str, Any] = {
        "baseline": comparison.signatures[0],
        "candidate": comparison.signatures[1],
        "replicates": len(comparison.replicates),
        "unit": comparison.unit,
        "seed": comparison.seed,
        "n_units": int(comparison.n_units[0]),
        "level": comparison.level,
        "method": comparison.method,
        "notes": list(comparison.notes),
        "metrics": {name: _plain(one) for name, one in comparison},
    }
    if slices:
        result["slices"] = {name: {metric: _plain(one) for metric, one in part} for name, part in slices.items()}
        result["slice_notes"] = {name: list(part.notes) for name, part in slices.items() if part.notes}
    if verdict is not None:
        result["gate"] = {
            "passed": verdict.passed,
            "rules": [
                {
                    "rule": str(outcome.rule),
                    "metric": outcome.rule.metric,
                    "class": outcome.rule.label,
                    "slice": outcome.rule.slice,
                    "tolerance": outcome.rule.tolerance,
                    "significant": outcome.rule.significant,
                    "verdict": outcome.verdict,
                    **_plain(outcome.difference),
                }
                for outcome in verdict.outcomes
            ],
        }
    return result


def _plain(one: Any) -> dict[str, Any]:
    return {**one._asdict(), "is_significant": one.is_significant}


def as_markdown(
    comparison: Comparison, verdict: Verdict | None, slices: dict[str, Comparison], names: tuple[str, str]
) -> str:
    """Give a summary for a pull request: the verdict first, then the numbers.

    Parameters
    ----------
    comparison : Comparison
    verdict : Verdict or None
        Of the gate.
    slices : dict of str to Comparison
    names : (str, str)
        What the baseline and the candidate are called.
    """
    protocol = comparison.protocol
    headline = comparison[protocol.composite.name]
    lines = [f"### {_escape(names[1])} against {_escape(names[0])}", ""]
    if verdict is not None:
        lines += [f"**Gate: {verdict.words}.**", ""]
    percent = f"{comparison.level * 100:g} %"
    change = f"{signed(headline.difference)}, {percent} interval {signed(headline.low)} to {signed(headline.high)}"
    values = f"{number(headline.baseline)} → {number(headline.candidate)}"
    lines += [f"{protocol.composite.name} {values} ({change}, p {chance(headline.p_value)})", ""]
    if verdict is not None:
        lines += _rows(
            ("rule", "baseline", "candidate", "difference", f"{percent} interval", "verdict"),
            [
                (
                    _escape(str(outcome.rule)),
                    number(outcome.difference.baseline),
                    number(outcome.difference.candidate),
                    signed(outcome.difference.difference),
                    f"{signed(outcome.difference.low)} to {signed(outcome.difference.high)}",
                    VERDICTS[outcome.verdict],
                )
                for outcome in verdict.outcomes
            ],
        )
    headlines = headline_names(protocol)
    header = ("metric", "baseline", "candidate", "difference", f"{percent} interval", "p", "detectable", "")
    shown = (*headlines, *(f"AP/{label}" for label in protocol.labels))
    lines += _rows(header, [_row(name, comparison) for name in shown])
    for name, part in slices.items():
        lines += [f"#### {_escape(part.slice or name)}", ""]
        lines += _rows(header, [_row(metric, part) for metric in headlines])
        lines += [line for note in part.notes for line in (f"> {_escape(note)}", "")]
    lines += [line for note in comparison.notes for line in (f"> {_escape(note)}", "")]
    units = f"{comparison.n_units[0]} {comparison.unit}s, seed {comparison.seed}"
    drawn = f"{len(comparison.replicates)} draws of {units}, the same for both"
    detectable = "the smallest true difference that would be significant four times out of five"
    lines += [
        f"{drawn}; *detectable* is {detectable}.",
        "",
        f"baseline `{comparison.signatures[0]}`  ",
        f"candidate `{comparison.signatures[1]}`",
    ]
    return "\n".join(lines) + "\n"


VERDICTS = {"ok": "ok", "worse": "**worse**", "undefined": "**undefined**", "nothing": "**nothing to judge by**"}


def _row(name: str, comparison: Comparison) -> tuple[str, ...]:
    one = comparison[name]
    mark = "" if not one.is_significant else ("better" if one.gain > 0 else "**worse**")
    return (
        _escape(name),
        number(one.baseline),
        number(one.candidate),
        signed(one.difference),
        f"{signed(one.low)} to {signed(one.high)}",
        chance(one.p_value),
        number(one.detectable),
        mark,
    )


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    aligned = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (header, aligned, *rows)] + [""]


def _escape(text: str) -> str:
    """Keep names from being read as Markdown or HTML."""
    for character in "\\`*_{}[]<>#|":
        text = text.replace(character, f"\\{character}")
    return text


def verdict_table(verdict: Verdict) -> RenderableType:
    """Give the rules and what became of them."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rule")
    for name in ("baseline", "candidate", "difference", "from", "to", "verdict"):
        table.add_column(name, justify="right")
    for outcome in verdict.outcomes:
        one = outcome.difference
        table.add_row(
            str(outcome.rule),
            number(one.baseline),
            number(one.candidate),
            signed(one.difference),
            signed(one.low),
            signed(one.high),
            outcome.verdict,
            style="" if outcome.verdict == "ok" else "red",
        )
    return Group(table, Text(f"gate: {verdict.words}", style="bold green" if verdict.passed else "bold red"))
