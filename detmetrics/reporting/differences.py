"""The section of the report that compares runs with the first one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from detmetrics.reporting.cells import Figure, Table, column, figure, number, paragraph, plain, table, text
from detmetrics.reporting.pieces import MANY_CLASSES, Section, delta, section, tone_of
from detmetrics.reporting.runs import Run
from detmetrics.reporting.table import chance
from detmetrics.resampling import Comparison
from detmetrics.scoring import headline_names


def comparison(runs: Sequence[Run], comparisons: Sequence[Comparison | None]) -> Section | None:
    """Compare every run with the first."""
    if len(runs) < 2:
        return None
    blocks: list[Any] = []
    known = [(run, one) for run, one in zip(runs[1:], comparisons, strict=True) if one is not None]
    if known:
        blocks.append(_difference_figure(runs[0], known))
    for i, (run, one) in enumerate(zip(runs[1:], comparisons, strict=True)):
        blocks.append(_difference_table(runs[0], run, one, i))
    blocks.append(
        paragraph(
            "The same scenes are drawn for both, so what they share cancels out. p: the smallest 1 − level whose "
            "interval leaves out zero; where no draw lies beyond zero it is told from their spread alone, and may be "
            f"larger. Better or worse: the interval leaves out zero, and p is below {1 - known[0][1].level:.3g}. "
            "Detectable: the smallest true difference that would be significant four times out of five. Of a hundred "
            f"numbers that do not differ, about {100 * (1 - known[0][1].level):.3g} are called so by chance.",
            "note",
        )
        if known
        else paragraph("Without intervals nothing says whether a difference is more than chance.", "warn")
    )
    return section("comparison", "Comparison", *blocks)


def _difference_figure(baseline: Run, known: Sequence[tuple[Run, Comparison]]) -> Figure:
    protocol = baseline.ledger.protocol
    units = {error.name: f"{error.name} ({error.unit})" for error in protocol.errors}
    views = []
    of_classes = [f"AP/{label}" for label in protocol.labels][:MANY_CLASSES]
    for title, names in (
        (f"{protocol.composite.name}, mAP and errors", list(headline_names(protocol))),
        ("AP by class", of_classes),
    ):
        series = []
        for run, one in known:
            found = [one[name] for name in names]
            columns = {
                "value": [d.difference for d in found],
                "low": [d.low for d in found],
                "high": [d.high for d in found],
            }
            series.append({"name": run.name, "tones": [tone_of(d) for d in found]} | plain(columns))
        views.append({"name": title, "axis": f"difference from {baseline.name}", "series": series})
        views[-1]["labels"] = [units.get(name, name) for name in names]
    return figure(
        "differences",
        f"Differences from {baseline.name}; bars are intervals, filled dots are more than chance",
        "Dots with bars around zero: the same differences as in the table below. Errors: less is better.",
        "dots",
        {"labels": views[0]["labels"], "views": views, "zero": True},
    )


def _difference_table(baseline: Run, run: Run, one: Comparison | None, i: int) -> Table:
    protocol = baseline.ledger.protocol
    columns = [
        column("metric", words=True),
        column(baseline.name, "the baseline"),
        column(run.name, "the candidate"),
        column("difference", "candidate less baseline", interval=True),
        column("p", "two-sided"),
        column("detectable", "smallest true difference found four times out of five"),
        column("verdict", words=True),
    ]
    flat = [each.scores.to_flat_dict() for each in (baseline, run)]
    rows = []
    for name in (*headline_names(protocol), *(f"AP/{label}" for label in protocol.labels)):
        if one is None:
            a, b = (values[name] for values in flat)
            rows.append(
                [text(name), number(a), number(b), number(b - a, signed=True), *[number(math.nan)] * 2, text("")]
            )
            continue
        d = one[name]
        verdict = "better" if d.gain > 0 else "worse"
        few = "too few scenes have it"
        rows.append(
            [
                text(name),
                number(d.baseline),
                number(d.candidate),
                delta(one, name),
                number(d.p_value, why=few) | {"text": chance(d.p_value)},
                number(d.detectable, why=few),
                text(verdict if d.is_significant else "", tone="good" if d.gain > 0 else "bad"),
            ]
        )
    return table(f"comparison-{i}", f"{run.name} against {baseline.name}", columns, rows)
