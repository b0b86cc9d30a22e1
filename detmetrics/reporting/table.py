"""The table people know: class by class AP and errors, means, the composite, the signature."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING

from detmetrics.scoring import headline_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from detmetrics.diagnosis import Diagnosis
    from detmetrics.framing import Frames
    from detmetrics.operating import OperatingPoints
    from detmetrics.resampling import Bootstrap, Comparison, Interval
    from detmetrics.scoring import Scores
    from detmetrics.slicing import Slices


def as_text(scores: Scores) -> str:
    """Give the table as plain text."""
    return as_plain(as_renderable(scores))


def as_plain(renderable: RenderableType) -> str:
    """Print anything that rich can print as plain text."""
    from io import StringIO

    from rich.console import Console

    width = max(160, shutil.get_terminal_size((160, 24)).columns)
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False, markup=False, emoji=False)
    console.print(renderable)
    assert isinstance(console.file, StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())


def as_renderable(scores: Scores) -> RenderableType:
    """Give the table for a rich console."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    protocol = scores.protocol
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    absent = [label for label, n in zip(protocol.labels, scores.n_truth.tolist(), strict=True) if n == 0]
    table.add_column("class", footer="mean")
    for name, values in (("truth", scores.n_truth), ("pred", scores.n_pred)):
        table.add_column(name, justify="right", footer=f"{int(values.sum()):,}")
    table.add_column("AP", justify="right", footer=number(scores.mean_ap), style="bold")
    for name, mean in scores.tp_errors.items():
        table.add_column(name, justify="right", footer=number(mean))
    parts = scores.class_composite
    if parts:
        table.add_column(protocol.composite.name, justify="right", footer=number(scores.composite))
    for k, (label, ap) in enumerate(scores.class_ap.items()):
        errors = [number(value) for value in scores.class_errors[k].tolist()]
        table.add_row(
            label,
            f"{scores.n_truth[k]:,}",
            f"{scores.n_pred[k]:,}",
            number(ap),
            *errors,
            *([number(parts[label])] if parts else []),
            style="dim" if label in absent else "",
        )
    headline = Text.assemble(
        (f"{protocol.composite.name} {number(scores.composite)}", "bold green"), f"   mAP {number(scores.mean_ap)}"
    )
    lines = list(scores.notes)
    if absent:
        counted = "counts AP 0 and the worst errors" if scores.absent == "official" else "left out of the means"
        lines.insert(0, f"without truth, {counted}: {', '.join(absent)}")
    notes = [Text(f"note: {line}", style="yellow") for line in lines]
    return Group(table, headline, *notes, Text(scores.signature, style="dim", overflow="fold"))


def number(value: float) -> str:
    """Four decimals, or a dash where undefined."""
    return "–" if math.isnan(value) else f"{value:.4f}"


def chance(p_value: float) -> str:
    """Four decimals of a p-value, which is never 0."""
    return "<0.0001" if p_value < 0.00005 else number(p_value)


def slices_table(slices: Slices) -> RenderableType:
    """Give the table of slices: one line each, and the whole under the same rule."""
    from rich import box
    from rich.table import Table

    protocol = slices.whole.protocol
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"by {slices.by}", title_justify="left")
    table.add_column("slice", no_wrap=True)
    n_tasks = len(protocol.tasks)
    for name in ("truth", "pred", "classes", "mAP", *protocol.error_names):
        table.add_column(name, justify="right")
    table.add_column(protocol.composite.name, justify="right", style="bold")
    entries = [*slices, ("all", slices.whole)]
    for i, (name, scores) in enumerate(entries):
        present = int((scores.n_truth > 0).sum())
        table.add_row(
            name,
            f"{int(scores.n_truth.sum()):,}",
            f"{int(scores.n_pred.sum()):,}",
            f"{present}/{n_tasks}",
            number(scores.mean_ap),
            *(number(value) for value in scores.tp_errors.values()),
            number(scores.composite),
            end_section=i == len(entries) - 2,
        )
    return table


def intervals_table(bootstrap: Bootstrap) -> RenderableType:
    """Give the intervals of the whole, and class by class AP with its interval and each error with half its width."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    protocol = bootstrap.protocol
    percent = f"{bootstrap.level * 100:g} %"
    whole = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "value", f"{percent} from", "to", "standard error"):
        whole.add_column(name, justify="right" if name else "left")
    for name in headline_names(protocol):
        one = bootstrap[name]
        whole.add_row(name, *(number(value) for value in one))
    classes = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    classes.add_column("class", no_wrap=True)
    for name in ("AP", f"{percent} from", "to", *protocol.error_names):
        classes.add_column(name, justify="right")
    for label in protocol.labels:
        ap = bootstrap[f"AP/{label}"]
        errors = (bootstrap[f"{name}/{label}"] for name in protocol.error_names)
        classes.add_row(
            label,
            *(number(value) for value in ap[:3]),
            *(_with_half_width(one) for one in errors),
        )
    lines = [Text(note, style="yellow") for note in bootstrap.notes]
    return Group(whole, classes, *lines, Text(bootstrap.signature, style="dim", overflow="fold"))


def _with_half_width(one: Interval) -> str:
    """Write a number and half the width of its interval, where it has one."""
    if math.isnan(one.value) or math.isnan(one.low):
        return number(one.value) if math.isnan(one.value) else f"{one.value:.3f}     "
    return f"{one.value:.3f}±{(one.high - one.low) / 2:.3f}".replace("±0.", "±.")


def comparison_table(comparison: Comparison, names: Sequence[str] | None = None) -> RenderableType:
    """Give baseline, candidate, difference with interval, p-value and smallest detectable difference."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    protocol = comparison.protocol
    percent = f"{comparison.level * 100:g} %"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=comparison.slice or None, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("baseline", "candidate", "difference", f"{percent} from", "to", "p", "detectable"):
        table.add_column(name, justify="right")
    headline = headline_names(protocol)
    shown = names or (*headline, *(f"AP/{label}" for label in protocol.labels))
    for name in shown:
        one = comparison[name]
        style = "" if not one.is_significant else ("green" if one.gain > 0 else "red")
        table.add_row(
            name,
            number(one.baseline),
            number(one.candidate),
            signed(one.difference),
            signed(one.low),
            signed(one.high),
            chance(one.p_value),
            number(one.detectable),
            style=style,
            end_section=name == headline[-1],
        )
    lines = [Text(note, style="yellow") for note in comparison.notes]
    if not comparison.slice:
        lines.append(
            Text(
                f"{comparison.n_units[0]} {comparison.unit}s drawn alike for both; "
                "detectable: the smallest true difference that would be significant four times out of five",
                style="dim",
            )
        )
    return Group(table, *lines)


def signed(value: float) -> str:
    """Write a difference with its sign."""
    return "–" if math.isnan(value) else f"{value:+.4f}"


def diagnosis_table(diagnosis: Diagnosis) -> RenderableType:
    """Give causes, counts and prices, dearest first."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    protocol = diagnosis.ledger.protocol
    name = protocol.composite.name
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("cause", no_wrap=True)
    for title in ("predictions", "truths", "mAP", name):
        table.add_column(title, justify="right")
    table.add_column("what it means")
    for row in sorted(diagnosis.to_rows(), key=lambda row: -float(row[f"{name}_gain"])):
        nothing = not row["predictions"] and not row["truths"]
        table.add_row(
            str(row["cause"]),
            f"{row['predictions']:,}",
            f"{row['truths']:,}",
            signed(float(row["mAP_gain"])),
            signed(float(row[f"{name}_gain"])),
            str(row["meaning"]),
            style="dim" if nothing else "",
        )
    threshold = protocol.affinity.error_threshold
    headline = f"{name} {number(diagnosis.value[name])}   mAP {number(diagnosis.value['mAP'])}"
    return Group(
        table,
        Text(headline, style="bold green"),
        Text(
            f"counts at {threshold:g} m; the gains are what repairing this cause alone, at every threshold, would give",
            style="dim",
        ),
    )


def operating_table(points: OperatingPoints) -> RenderableType:
    """Give precision, recall and F1 at the chosen scores, calibration, and the confusion of classes."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title=f"matches within {points.threshold:g} m", title_justify="left"
    )
    table.add_column("class", no_wrap=True)
    for name in ("score", "precision", "recall", "F1", "TP", "FP", "missed", "best F1", "at", "ECE"):
        table.add_column(name, justify="right")
    for label in points.protocol.labels:
        one, best = points.chosen[label], points.best[label]
        table.add_row(
            label,
            *(number(value) for value in one[:4]),
            *(f"{value:,}" for value in one[4:]),
            number(best.f1),
            number(best.score),
            number(points.reliability[label].ece),
        )
    confusion = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title="truth in rows, predictions in columns", title_justify="left"
    )
    confusion.add_column("", no_wrap=True)
    names = (*points.protocol.labels, "missed")
    for name in names:
        confusion.add_column(name if len(name) < 12 else name[:10] + "…", justify="right")
    for name, row in zip((*points.protocol.labels, "nothing"), points.confusion.tolist(), strict=True):
        confusion.add_row(name, *(f"{value:,}" if value else "" for value in row))
    return Group(table, confusion)


def frames_table(frames: Frames, n: int) -> RenderableType:
    """Give the frames that cost most."""
    from rich import box
    from rich.table import Table

    protocol = frames.ledger.protocol
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows = list(frames.to_rows())
    has_scene = bool(rows) and "scene" in rows[0]
    for name in ("frame", "scene") if has_scene else ("frame",):
        table.add_column(name, no_wrap=True)
    gain = [] if frames.cost is None else [f"{protocol.composite.name} without it"]
    for name in ("TP", "FP", "missed", *protocol.error_names, *gain):
        table.add_column(name, justify="right")
    for f in frames.worst(n).tolist():
        row = rows[f]
        table.add_row(
            str(row["frame"]),
            *([str(row["scene"])] if has_scene else []),
            *(f"{row[name]:,}" for name in ("tp", "fp", "fn")),
            *(number(float(row[name])) for name in protocol.error_names),
            *([f"{row['cost']:+.6f}"] if gain else []),
        )
    return table
