"""What the sections of the report share: their shape, the column of runs, cells of intervals and differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from detmetrics.reporting.cells import Cell, column, number, plain, text
from detmetrics.reporting.runs import Run
from detmetrics.resampling import Bootstrap, Comparison, Difference, Interval

Section = dict[str, Any]

MANY_CLASSES = 40  # a chart of more lines than this is no longer read


def section(name: str, title: str, *blocks: Any) -> Section:
    """Put blocks under a title."""
    return {"id": name, "title": title, "blocks": [block for block in blocks if block is not None]}


def run_column(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Give a column for the name of the run where there are several."""
    return [column("run", words=True)] if len(runs) > 1 else []


def run_cell(runs: Sequence[Run], run: Run) -> list[Cell]:
    """Give the cell of that column."""
    return [text(run.name, tone="nowrap")] if len(runs) > 1 else []


def interval(boot: Bootstrap | None, name: str, value: float) -> Interval:
    """Give the interval of a number, or the number alone."""
    return Interval(value, math.nan, math.nan, math.nan) if boot is None else boot[name]


def ends(intervals: Any) -> dict[str, list[Any]]:
    """Give values and ends of intervals as columns."""
    columns = list(zip(*(one[:3] for one in intervals), strict=True)) or [(), (), ()]
    return {name: plain(list(values)) for name, values in zip(("value", "low", "high"), columns, strict=True)}


def delta(comparison: Comparison | None, metric: str) -> Cell:
    """Make a cell of a difference: coloured where it is more than chance."""
    if comparison is None:
        return text("", hint="not compared")
    one = comparison[metric]
    return number(one.difference, one.low, one.high, signed=True, tone=tone_of(one))


def tone_of(one: Difference) -> str:
    """Say whether a difference is good or bad, where it is more than chance."""
    return "" if not one.is_significant else ("good" if one.gain > 0 else "bad")
