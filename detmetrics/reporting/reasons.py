"""The sections of the report about causes, confusion, calibration and single frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detmetrics.operating import OperatingPoint, OperatingPoints
from detmetrics.reporting.cells import Figure, Table, column, count, figure, number, paragraph, plain, table, text
from detmetrics.reporting.pieces import MANY_CLASSES, Section, run_cell, run_column, section
from detmetrics.reporting.runs import SHORT_LIST, Run

MAX_CONFUSED = 24  # classes of a confusion matrix; the others are taken together


def causes(runs: Sequence[Run]) -> Section:
    """Say what is wrong and what repairing it would give."""
    diagnosis = runs[-1].diagnosis
    protocol = diagnosis.ledger.protocol
    names = (protocol.composite.name, "mAP")
    order = sorted(diagnosis.prices, key=lambda cause: -diagnosis.prices[cause][names[0]])
    views = [
        {
            "name": name,
            "axis": f"gain of {name} if repaired",
            "series": [
                {"name": run.name, "value": plain([run.diagnosis.prices[cause][name] for cause in order])}
                for run in runs
            ],
        }
        for name in names
    ]
    return section(
        "causes",
        "Causes and their prices",
        figure(
            "prices",
            "What repairing each cause alone would give",
            "Bars: the gain of each cause, the same numbers as in the table below.",
            "bars",
            {"labels": [cause.replace("_", " ") for cause in order], "views": views},
        ),
        _cause_table(runs, order),
        paragraph(
            "Every false positive and every missed truth has one cause, counted for matches within "
            f"{protocol.affinity.error_threshold:g} m. The price: this cause alone is repaired, at every threshold, "
            "and everything is scored again. Prices do not add up, since one repair may uncover another fault.",
            "note",
        ),
    )


def _cause_table(runs: Sequence[Run], order: Sequence[str]) -> Table:
    *others, run = runs
    names = (run.ledger.protocol.composite.name, "mAP")
    columns = [
        column("cause", words=True),
        *(column(f"{name} gain", f"what {name} would gain if this cause alone were repaired") for name in names),
        *(column(f"{names[0]} gain of {other.name}") for other in others),
        column("predictions", "false positives, or matches with this fault"),
        column("truths", "missed truths"),
        column("what it means", words=True),
        column("the price assumes that", words=True),
    ]
    found = {str(row["cause"]): row for row in run.diagnosis.to_rows()}
    rows = []
    for cause in order:
        row = found[cause]
        n_pred, n_truth = int(row["predictions"]), int(row["truths"])
        tone = "" if n_pred or n_truth else "dim"
        gains = [float(row[f"{name}_gain"]) for name in names]
        gains += [other.diagnosis.prices[cause][names[0]] for other in others]
        rows.append(
            [text(cause.replace("_", " ")), *(number(gain, signed=True, tone=tone) for gain in gains),
             count(n_pred, tone), count(n_truth, tone), text(str(row["meaning"])), text(str(row["repair"]))]
        )  # fmt: skip
    where = f" of {run.name}" if len(runs) > 1 else ""
    return table("causes-table", f"Causes{where}, dearest first", columns, rows)


def confusion(runs: Sequence[Run]) -> Section:
    """Which class was taken for which, at the score of the best F1 of each class."""
    blocks: list[Any] = []
    for i, run in enumerate(runs):
        blocks += _confusion(run, i, f"{run.name}: " if len(runs) > 1 else "")
    blocks.append(
        paragraph(
            "Predictions below the score of the best F1 of their class are left out. Rows are what was there, columns "
            "what was said; colours are shares of a row.",
            "note",
        )
    )
    return section("confusion", "Confusion of classes", *blocks)


def _confusion(run: Run, i: int, prefix: str) -> list[Any]:
    labels, counts = _joined(run.points)
    rows, columns = [*labels, "nothing"], [*labels, "missed"]
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.where(total, total, 1)
    within = f"matches within {run.points.threshold:g} m"
    chart = figure(
        f"confusion-{i}",
        f"{prefix}truth in rows, predictions in columns, {within}"
        if prefix
        else f"Truth in rows, predictions in columns, {within}",
        "Grid of counts: the same as in the table below.",
        "grid",
        {"rows": rows, "columns": columns, "counts": counts.tolist(), "share": plain(share, 3)},
    )
    cells = [[text(name), *(count(value, "" if value else "dim") for value in row)]
             for name, row in zip(rows, counts.tolist(), strict=True)]  # fmt: skip
    heads = [column("truth \\ prediction", words=True), *(column(name) for name in columns)]
    return [
        chart,
        table(f"confusion-{i}-table", f"{prefix}confusion" if prefix else "Confusion", heads, cells, folded=True),
    ]


def _joined(points: OperatingPoints) -> tuple[list[str], Any]:
    """Give the matrix with the classes beyond the largest taken together."""
    labels, counts = list(points.protocol.labels), points.confusion
    if len(labels) <= MAX_CONFUSED:
        return labels, counts
    size = counts.sum(axis=0)[:-1] + counts.sum(axis=1)[:-1]
    largest = np.sort(np.argsort(-size, kind="stable")[: MAX_CONFUSED - 1])
    group = np.full(len(counts), len(largest))
    group[largest] = np.arange(len(largest))
    group[-1] = len(largest) + 1
    joined = np.zeros((len(largest) + 2,) * 2, np.int64)
    np.add.at(joined, (group[:, None], group[None, :]), counts)
    return [*(labels[k] for k in largest.tolist()), f"the other {len(labels) - len(largest)}"], joined


def calibration(runs: Sequence[Run]) -> Section:
    """Operating points, and whether the scores mean what they say."""
    return section(
        "calibration",
        "Operating points and calibration",
        _reliability_figure(runs),
        _points_table(runs),
        paragraph(
            "A calibrated detector is right seven times out of ten where it says 0.7. ECE: mean distance from that, "
            "weighted by predictions. The points of the best F1 are chosen on these very data: on others they "
            "are a little worse.",
            "note",
        ),
    )


def _reliability_figure(runs: Sequence[Run]) -> Figure:
    labels = runs[0].ledger.protocol.labels
    shown = labels if len(labels) <= MANY_CLASSES else labels[:MANY_CLASSES]
    series = []
    for run in runs:
        parts = [run.points.reliability[label] for label in labels]
        total = sum(part.count for part in parts)
        some = np.where(total, total, np.nan)
        pooled = [
            sum(np.nan_to_num(getattr(part, name)) * part.count for part in parts) / some
            for name in ("score", "precision")
        ]
        bins = [(pooled[0], pooled[1], total)]
        bins += [(one.score, one.precision, one.count) for one in parts[: len(shown)]]
        series.append(
            {
                "name": run.name,
                "score": [plain(score, 3) for score, _, _ in bins],
                "precision": [plain(precision, 3) for _, precision, _ in bins],
                "count": [plain(n) for _, _, n in bins],
            }
        )
    return figure(
        "reliability",
        f"Share of right predictions over their score, matches within {runs[0].points.threshold:g} m",
        "Dots: the share of right predictions in ten bins of the score, against the diagonal of a calibrated detector; "
        "the calibration error of each class is in the table below.",
        "reliability",
        {"labels": ["all classes", *shown], "series": series},
    )


def _points_table(runs: Sequence[Run]) -> Table:
    columns = [
        column("class", words=True),
        *run_column(runs),
        column("score", "of the best F1; predictions below it are left out"),
        column("precision"),
        column("recall"),
        column("F1", "the best"),
        column("TP", "true positives"),
        column("FP", "false positives"),
        column("missed", "truths that nothing found"),
        column("ECE", "expected calibration error"),
    ]
    rows = []
    for label in runs[0].ledger.protocol.labels:
        for run in runs:
            one: OperatingPoint = run.points.best[label]
            no_score = "nothing of this class is ever right" if one.fn or one.fp else "no truth of this class"
            rates = [number(value, digits=3, why=no_score) for value in one[:4]]
            counts = [count(value) for value in one[4:]]
            ece = number(run.points.reliability[label].ece, digits=3, why="no predictions of this class")
            rows.append([text(label), *run_cell(runs, run), *rates, *counts, ece])
    return table("points", "Every class at the score of its best F1", columns, rows)


def worst_frames(
    runs: Sequence[Run], n_worst: int, images: Sequence[Mapping[str, str]], links: Sequence[Mapping[str, str]]
) -> Section:
    """List the frames that cost most, with the pictures and links that the caller has of each run."""
    blocks: list[Any] = []
    for i, (run, seen, led) in enumerate(zip(runs, images, links, strict=True)):
        rows = list(run.frames.to_rows())
        listed = [f for f in run.frames.worst(n_worst).tolist() if _is_wrong(rows[f])]
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        blocks.append(_frame_table(run, rows, listed, led, i, prefix))
        pictures = [_picture(rows[f], seen, led) for f in listed if str(rows[f]["frame"]) in seen]
        if pictures:
            blocks.append({"kind": "gallery", "pictures": pictures})
    composite = runs[0].ledger.protocol.composite.name
    exact = f"{composite} of the set without the frame, less {composite} of all of it, scored anew for each frame."
    if any(run.frames.cost is not None and np.isnan(run.frames.cost).any() for run in runs):
        exact += f" Done for the {SHORT_LIST:,} frames that a first-order estimate thinks dearest."
    blocks.append(paragraph(f"The gain is exact: {exact}", "note"))
    return section("frames", "Worst frames", *blocks)


def _is_wrong(row: Mapping[str, Any]) -> bool:
    return bool(row["fp"] or row["fn"] or row.get("cost", 0) > 0)


def _frame_table(
    run: Run, rows: Sequence[Mapping[str, Any]], listed: Sequence[int], links: Mapping[str, str], i: int, prefix: str
) -> Table:
    protocol = run.ledger.protocol
    has_scene = bool(rows) and "scene" in rows[0]
    columns = [
        column("frame", words=True),
        *([column("scene", words=True)] if has_scene else []),
        column("gain", f"gain of {protocol.composite.name} if the frame were not there"),
        column("TP", "true positives"),
        column("FP", "false positives"),
        column("missed", "truths that nothing found"),
        *(column(error.name, f"mean of its matches, {error.unit}") for error in protocol.errors),
    ]
    cells = []
    for f in listed:
        row = rows[f]
        name = str(row["frame"])
        link = {"href": links[name]} if name in links else {}
        errors = [
            number(float(row[error]), digits=3, why="not known for any match in this frame")
            for error in protocol.error_names
        ]
        cells.append(
            [text(name, tone="code", **link), *([text(str(row["scene"]), tone="nowrap")] if has_scene else []),
             number(float(row.get("cost", math.nan)), digits=5, signed=True, why="not computed"),
             *(count(int(row[key])) for key in ("tp", "fp", "fn")), *errors]
        )  # fmt: skip
    return table(
        f"frames-{i}",
        f"{prefix}the frames that cost most" if prefix else "The frames that cost most",
        columns,
        cells,
        empty="No frame has a mistake.",
    )


def _picture(row: Mapping[str, Any], images: Mapping[str, str], links: Mapping[str, str]) -> dict[str, Any]:
    name = str(row["frame"])
    words = f"{row['tp']} TP, {row['fp']} FP, {row['fn']} missed"
    return {
        "src": images[name],
        "href": links.get(name, ""),
        "title": name,
        "text": words,
        "alt": f"frame {name}: {words}",
    }
