"""Cells, tables and figures of the report as plain values: what can be written as JSON and looked at in a test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

#: A cell has ``text`` and, where they are known: ``value`` and ``low``, ``high`` (full precision, for sorting and CSV),
#: ``small`` (second line), ``hint`` (tooltip), ``tone`` (a class of the style sheet), ``href``, ``spark`` (a path).
Cell = dict[str, Any]
Table = dict[str, Any]
Figure = dict[str, Any]

DASH = "–"


def number(
    value: float,
    low: float = math.nan,
    high: float = math.nan,
    *,
    digits: int = 4,
    signed: bool = False,
    why: str = "undefined",
    tone: str = "",
    half: bool = False,
) -> Cell:
    """Make a cell of a number and its interval; a dash with the reason where it is undefined.

    Parameters
    ----------
    value, low, high : float
    digits : int
        Decimals shown.
    signed : bool
        Show the sign of positive numbers, too.
    why : str
        Why it is undefined, if it is.
    tone : str
        A class of the style sheet.
    half : bool
        Show half the width of the interval instead of its ends.
    """
    if not math.isfinite(value):
        return {"text": DASH, "value": None, "hint": why, "tone": "none"}
    form = f"{'+' if signed else ''}.{digits}f"
    cell: Cell = {"text": _minus(format(value, form)), "value": float(f"{value:.6g}")}
    if tone:
        cell["tone"] = tone
    if math.isfinite(low) and math.isfinite(high):
        cell |= {"low": float(f"{low:.6g}"), "high": float(f"{high:.6g}")}
        ends = _minus(f"{format(low, form)} to {format(high, form)}")
        if half:
            cell |= {"small": "±" + f"{(high - low) / 2:.3f}".removeprefix("0"), "hint": ends}
        else:
            cell["small"] = ends if signed else ends.replace(" to ", "–")
    return cell


def count(value: int, tone: str = "") -> Cell:
    """Make a cell of a whole number."""
    cell: Cell = {"text": f"{value:,}", "value": value}
    return cell | {"tone": tone} if tone else cell


def text(value: str, **more: Any) -> Cell:
    """Make a cell of words."""
    return {"text": value, **more}


def column(title: str, hint: str = "", *, words: bool = False, interval: bool = False) -> dict[str, Any]:
    """Describe a column: of words or of numbers, with intervals or not."""
    return {"title": title, "hint": hint, "words": words, "interval": interval}


def table(
    name: str, caption: str, columns: Sequence[Mapping[str, Any]], rows: Iterable[Sequence[Cell]], **more: Any
) -> Table:
    """Make a table; ``name`` is its place in the page and the name of its CSV file."""
    return {"kind": "table", "id": name, "caption": caption, "columns": list(columns), "rows": list(rows), **more}


def figure(name: str, caption: str, alt: str, chart: str, data: Mapping[str, Any]) -> Figure:
    """Make a figure: ``chart`` is a function of report.js that draws ``data``; ``alt`` says it in words."""
    return {"kind": "figure", "id": name, "caption": caption, "alt": alt, "chart": chart, "data": dict(data)}


def paragraph(words: str, tone: str = "") -> dict[str, Any]:
    """Make a paragraph."""
    return {"kind": "text", "text": words, "tone": tone}


def plain(values: Any, digits: int = 5) -> Any:
    """Round numbers and replace undefined ones by None, at any depth, for JSON."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, float):
        return round(values, digits) if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {key: plain(value, digits) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain(value, digits) for value in values]
    return values.item() if isinstance(values, np.generic) else values


def thousandths(values: Any) -> Any:
    """Write an array as whole thousandths, None where undefined: a curve in a third of the bytes."""
    array = np.asarray(values, np.float64)
    if array.ndim > 1:
        return [thousandths(part) for part in array]
    return [None if math.isnan(value) else round(1000 * value) for value in array.tolist()]


def _minus(words: str) -> str:
    """Write the minus sign as one."""
    return words.replace("-", "−")
