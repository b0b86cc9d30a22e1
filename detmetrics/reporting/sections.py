"""The sections of the report about classes, curves and slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.reporting.cells import (
    Cell,
    Figure,
    Table,
    column,
    count,
    figure,
    number,
    paragraph,
    plain,
    table,
    text,
    thousandths,
)
from detmetrics.reporting.pieces import MANY_CLASSES, Section, delta, ends, interval, run_cell, run_column, section
from detmetrics.reporting.runs import Run, compared_slices
from detmetrics.resampling import Bootstrap
from detmetrics.scoring import Scores, headline_names
from detmetrics.slicing import ATTRIBUTES, parse

Floats = NDArray[np.float64]

CURVE_BUDGET = 450_000  # bytes that all curves together may take in the file
STEPS = (1, 2, 4, 5, 10, 20, 25, 50)
SPARK_WIDTH, SPARK_HEIGHT = 100, 24


def classes(runs: Sequence[Run]) -> Section:
    """Class by class: AP and errors with intervals, and the curve as a sketch."""
    protocol = runs[0].ledger.protocol
    percent = f"{runs[0].boot.level * 100:g} % interval" if runs[0].boot else "no interval"
    columns = [
        column("class", words=True),
        *run_column(runs),
        column("AP", f"average precision, mean over the thresholds; {percent} below", interval=True),
        column("curve", f"precision over recall at {protocol.affinity.error_threshold:g} m", words=True),
        *(
            column(error.name, f"{error.kind}, {error.unit}; less is better", interval=True)
            for error in protocol.errors
        ),
        column("truth", "boxes of the truth that count"),
        column("pred", "predictions that count"),
    ]
    rows = [
        [text(label), *run_cell(runs, run), *_class_cells(run, k, at)]
        for k, label in enumerate(protocol.labels)
        for at, run in enumerate(runs)
    ]
    means = []
    for run in runs:
        ap = interval(run.boot, "mAP", run.scores.mean_ap)
        errors = [interval(run.boot, name, value) for name, value in run.scores.tp_errors.items()]
        totals = [count(int(run.scores.n_truth.sum())), count(int(run.scores.n_pred.sum()))]
        known = (number(*one[:3], half=True, why="not defined for any class") for one in errors)
        means.append([text("mean"), *run_cell(runs, run), number(*ap[:3]), text(""), *known, *totals])
    found = table("classes-table", "Every class", columns, rows, foot=means)
    return section("classes", "Classes", _class_figure(runs), found)


def _class_cells(run: Run, k: int, at: int) -> list[Cell]:
    scores, protocol, label = run.scores, run.ledger.protocol, run.ledger.protocol.labels[k]
    n_truth = int(scores.n_truth[k])
    why = "no truth of this class" if not n_truth else "undefined"
    tone = "" if n_truth else "dim"
    ap = interval(run.boot, f"AP/{label}", float(scores.ap[k].mean()))
    cells = [number(*ap[:3], why=why, tone=tone), _spark(scores, k, at)]
    for e, error in enumerate(protocol.errors):
        one = interval(run.boot, f"{error.name}/{label}", float(scores.class_errors[k, e]))
        reason = f"{error.name} means nothing for this class" if error.name in protocol.tasks[k].undefined else why
        cells.append(number(*one[:3], half=True, why=reason, tone=tone))
    return [*cells, count(n_truth, tone), count(int(scores.n_pred[k]), tone)]


def _spark(scores: Scores, k: int, run: int) -> Cell:
    """Sketch the precision over recall of a class at the threshold of the errors."""
    t = scores.protocol.error_index
    if not scores.n_truth[k] or not (scores.confidence[k, t] > 0).any():
        return text("", hint="nothing found")
    precision = scores.precision[k, t]
    step = max(1, (len(precision) - 1) // (20 if len(scores.protocol.labels) <= MANY_CLASSES else 10))
    at = np.arange(0, len(precision), step)
    x = np.round(SPARK_WIDTH * at / (len(precision) - 1)).astype(int)
    y = np.round(1 + (SPARK_HEIGHT - 2) * (1 - precision[at])).astype(int)
    return text("", run=run % 6, spark="M" + "L".join(f"{a} {b}" for a, b in zip(x.tolist(), y.tolist(), strict=True)))


def _class_figure(runs: Sequence[Run]) -> Figure:
    protocol = runs[0].ledger.protocol
    order = np.argsort(-runs[-1].scores.n_truth, kind="stable")[:MANY_CLASSES]
    labels = [protocol.labels[k] for k in sorted(order.tolist())]
    views = []
    for metric in ("AP", *protocol.error_names):
        series = []
        for run in runs:
            values = dict(zip(protocol.labels, _column_of(run.scores, metric).tolist(), strict=True))
            series.append({"name": run.name} | ends(interval(run.boot, f"{metric}/{i}", values[i]) for i in labels))
        unit = next((error.unit for error in protocol.errors if error.name == metric), "")
        views.append({"name": metric, "axis": f"{metric} ({unit})" if unit else metric, "series": series})
    some = "" if len(labels) == len(protocol.labels) else f" (the {len(labels)} classes of most truth)"
    return figure(
        "class-scores",
        f"AP and errors by class{some}" + ("; bars are intervals" if runs[0].boot else ""),
        "Dots with bars: one row a class, the same numbers as in the table below.",
        "dots",
        {"labels": labels, "views": views},
    )


def _column_of(scores: Scores, metric: str) -> Floats:
    if metric == "AP":
        mean: Floats = scores.ap.mean(axis=1)
        return mean
    return scores.class_errors[:, scores.protocol.error_names.index(metric)]


def curves(runs: Sequence[Run]) -> Section:
    """Precision over recall, and the errors over recall, for each class and for their mean."""
    protocol = runs[0].ledger.protocol
    n_samples = protocol.curve.n_samples
    n_curves = len(runs) * (len(protocol.tasks) + 1) * (len(protocol.affinity.thresholds) + len(protocol.errors))
    step = next((step for step in STEPS if n_curves * n_samples / step * 4.5 < CURVE_BUDGET), STEPS[-1])
    at = np.unique(np.append(np.arange(0, n_samples, step), n_samples - 1))
    shared = {
        "labels": ["all classes (mean)", *protocol.labels],
        "runs": [run.name for run in runs],
        "recall": thousandths(runs[0].scores.recall[at]),
        "thresholds": [f"{threshold:g} m" for threshold in protocol.affinity.thresholds],
        "chosen": protocol.error_index,
        "min_recall": protocol.curve.min_recall,
        "min_precision": protocol.curve.min_precision,
    }
    errors = [{"name": error.name, "unit": error.unit} for error in protocol.errors]
    named = f"matches within {protocol.affinity.error_threshold:g} m"
    read = f"Curves are read at {protocol.curve.n_samples} recalls"
    thinned = f"; in this file one in {step} is drawn, to keep it small" if step > 1 else ""
    is_cut = protocol.curve.min_recall or protocol.curve.min_precision
    border = " What lies in the shaded border does not count for AP." if is_cut else ""
    return section(
        "curves",
        "Curves",
        figure(
            "precision-recall",
            "Precision over recall",
            "Lines: precision over recall for each distance threshold, up to the recall that is reached; "
            "the classes' average precision is in the table of classes.",
            "curves",
            shared | {"precision": [thousandths(_precision(run.scores)[..., at]) for run in runs]},
        ),
        figure(
            "error-recall",
            f"Errors over recall, {named}",
            "Lines: the running mean of each true-positive error over recall; their means are in the table of classes.",
            "errors",
            shared | {"errors": errors, "values": [thousandths(_errors(run.scores)[..., at]) for run in runs]},
        ),
        paragraph(f"{read}{thinned}.{border}", "note"),
    )


def _precision(scores: Scores) -> Floats:
    """Precision (1 + K, T, S), the mean over the classes that have truth first; NaN beyond the recall reached."""
    reached = scores.confidence > 0
    values = np.where(reached, scores.precision, np.nan)
    has_truth = scores.n_truth > 0
    mean = np.full((1, *values.shape[1:]), np.nan)
    if has_truth.any():
        mean[0] = np.where(reached[has_truth].any(axis=0), scores.precision[has_truth].mean(axis=0), np.nan)
    return np.concatenate((mean, values))


def _errors(scores: Scores) -> Floats:
    """Errors (1 + K, E, S) at the threshold of the errors, NaN beyond the recall reached and where undefined."""
    protocol = scores.protocol
    t = protocol.error_index
    values = np.where(scores.confidence[:, None, t] > 0, scores.error_curves[:, t], np.nan)
    for k, task in enumerate(protocol.tasks):
        for name in task.undefined:
            values[k, protocol.error_names.index(name)] = np.nan
    known = ~np.isnan(values)
    n_known = known.sum(axis=0)
    mean = np.where(known, values, 0).sum(axis=0) / np.where(n_known, n_known, np.nan)
    return np.concatenate((mean[None], values))


def slicings(runs: Sequence[Run]) -> Section:
    """Every slicing: a chart and a table."""
    blocks: list[Any] = []
    for at, one in enumerate(runs[0].sliced):
        blocks += [_slice_figure(runs, at), _slice_table(runs, at)]
        if len(one.scores.names) == 0:
            blocks.append(paragraph(f"Nothing lies in any slice of {one.scores.by}."))
    if blocks:
        blocks.append(
            paragraph(
                "A class without truth in a slice is left out of its means, so slices with few classes are not like "
                "others; a prediction that matched belongs to the slice of its truth.",
                "note",
            )
        )
    return section("slices", "Slices", *blocks)


def _slice_names(runs: Sequence[Run], at: int) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.sliced[at].scores.names))


def _slice_figure(runs: Sequence[Run], at: int) -> Figure:
    protocol = runs[0].ledger.protocol
    names = _slice_names(runs, at)[:MANY_CLASSES]
    views = []
    for metric in headline_names(protocol):
        series = []
        for run in runs:
            one = run.sliced[at]
            found = (
                interval(one.boots.get(name), metric, _metric(one.scores[name], metric))
                if name in one.scores.names
                else interval(None, metric, math.nan)
                for name in names
            )
            whole = _metric(one.scores.whole, metric)
            series.append({"name": run.name, "whole": plain(whole)} | ends(found))
        views.append({"name": metric, "axis": metric, "series": series})
    by = runs[0].sliced[at].scores.by
    return figure(
        f"slices-{at}",
        f"By {titled(by)}",
        f"Dots with bars: one row a slice by {by}, the same numbers as in the table below; lines: all of it.",
        "dots",
        {"labels": names, "views": views},
    )


def titled(by: str) -> str:
    """Name what is sliced by with its unit, without its edges."""
    names = [term.name for term in parse(by)]
    units = [ATTRIBUTES[name].unit if name in ATTRIBUTES else "" for name in names]
    return " × ".join(
        f"{name} ({unit})" if unit not in ("", name) else name for name, unit in zip(names, units, strict=True)
    )


def _metric(scores: Scores, metric: str) -> float:
    if metric == scores.protocol.composite.name:
        return scores.composite
    return scores.mean_ap if metric == "mAP" else scores.tp_errors[metric]


def _slice_table(runs: Sequence[Run], at: int) -> Table:
    protocol = runs[0].ledger.protocol
    headline, by = protocol.composite.name, runs[0].sliced[at].scores.by
    columns = [
        column(titled(by), words=True),
        *run_column(runs),
        column(headline, "mean over the classes that have truth here", interval=True),
        *([column(f"Δ {headline}", f"difference from {runs[0].name}", interval=True)] if len(runs) > 1 else []),
        column("mAP", interval=True),
        *(column(error.name, f"{error.unit}; less is better", interval=True) for error in protocol.errors),
        column("truth", "boxes of the truth that count"),
        column("pred", "predictions that count"),
        column("classes", "classes that have truth here"),
    ]
    differences = [compared_slices(runs[0], run, at) for run in runs]

    def row(name: str, run: Run, which: int, scores: Scores, boot: Bootstrap | None) -> list[Cell]:
        cells = [text(name), *run_cell(runs, run)]
        for metric in headline_names(protocol):
            one = interval(boot, metric, _metric(scores, metric))
            cells.append(number(*one[:3], half=metric in protocol.error_names, why="no class has truth here"))
            if metric == headline and len(runs) > 1:
                cells.append(delta(differences[which].get(name), headline) if which else text(""))
        totals = (scores.n_truth.sum(), scores.n_pred.sum(), (scores.n_truth > 0).sum())
        return [*cells, *(count(int(total)) for total in totals)]

    rows, foot = [], []
    for name in _slice_names(runs, at):
        for which, run in enumerate(runs):
            one = run.sliced[at]
            if name in one.scores.names:
                rows.append(row(name, run, which, one.scores[name], one.boots.get(name)))
    for which, run in enumerate(runs):
        foot.append(row("all", run, which, run.sliced[at].scores.whole, None))
    return table(f"slices-{at}-table", f"Slices by {titled(by)}", columns, rows, foot=foot)
