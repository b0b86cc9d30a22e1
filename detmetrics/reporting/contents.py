"""All that the report says, as plain values: headline, what to do next, sections; no markup and no browser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from detmetrics.reporting import differences, reasons, sections
from detmetrics.reporting.cells import Cell, number
from detmetrics.reporting.pieces import delta, interval
from detmetrics.reporting.provenance import against_comparison, provenance
from detmetrics.reporting.runs import Run, Settings, compared, why_no_intervals
from detmetrics.resampling import Comparison

MIN_PRICE = 0.0005  # causes that cost less are not worth a sentence
MIN_TRUTH = 20  # slices with fewer truths are too small for one

#: Kinds of errors in words for the headline.
SAYS = {
    "translation_xy": "position",
    "translation_xyz": "position",
    "scale_aligned": "size",
    "scale_max": "size",
    "orientation": "heading",
    "velocity_xy": "velocity",
    "attribute": "attribute",
}

Finding = dict[str, str]


def contents(
    runs: Sequence[Run],
    settings: Settings,
    *,
    title: str,
    made: str,
    images: Sequence[Mapping[str, str]],
    links: Sequence[Mapping[str, str]],
    options: Mapping[str, str],
) -> dict[str, Any]:
    """Collect the report of one or more runs.

    Parameters
    ----------
    runs : sequence of Run
        The first is what the others are compared with; the last is the one that the findings are about.
    settings : Settings
    title, made : str
        Title of the page, and when it was made.
    images : sequence of mapping of str to str
        For each run ``data:`` addresses of pictures by name of the frame.
    links : sequence of mapping of str to str
        For each run addresses by name of the frame.
    options : mapping of str to str
        Further lines of the provenance.

    Returns
    -------
    dict
        Of strings, numbers, lists and dicts; None where undefined.

    Raises
    ------
    InputError
        Where the runs differ in protocol, frames or truth.
    """
    comparisons = [compared(runs[0], run) for run in runs[1:]]
    why = why_no_intervals(runs[0].ledger, settings)
    ledger = runs[0].ledger
    body = [
        differences.comparison(runs, comparisons),
        sections.classes(runs),
        sections.curves(runs),
        sections.slicings(runs) if settings.by else None,
        reasons.causes(runs),
        reasons.confusion(runs),
        reasons.calibration(runs),
        reasons.worst_frames(runs, settings.n_worst, images, links),
        provenance(runs, settings, made, options, why),
    ]
    return {
        "title": title,
        "made": made,
        "protocol": ledger.protocol.name,
        "summary": f"{_counted(ledger.n_frames, 'frame')}, {_counted(len(ledger.truth_rows), 'truth')}, "
        f"{_counted(len(ledger.protocol.tasks), 'class', 'classes')}",
        "headline": [_headline(run, one) for run, one in zip(runs, [None, *comparisons], strict=True)],
        "official": [not against_comparison(run.ledger, settings.absent) for run in runs],
        "intervals": "" if why else _told(settings),
        "warnings": list(dict.fromkeys(_warnings(runs, why))),
        "findings": list(_findings(runs, comparisons)),
        "about": runs[-1].name if len(runs) > 1 else "",
        "sections": [one for one in body if one is not None],
    }


def _told(settings: Settings) -> str:
    unit = settings.unit
    return (
        f"Small numbers: {settings.level * 100:g} % intervals, or half their width after ±, from {settings.n:,} "
        f"draws of {unit}s: how far would a number move on other {unit}s like these?"
    )


def _headline(run: Run, comparison: Comparison | None) -> dict[str, Any]:
    protocol, scores = run.ledger.protocol, run.scores
    name = protocol.composite.name
    composite = interval(run.boot, name, scores.composite)
    mean_ap = interval(run.boot, "mAP", scores.mean_ap)
    errors: list[tuple[str, str, str, Cell]] = []
    for error in protocol.errors:
        one = interval(run.boot, error.name, scores.tp_errors[error.name])
        errors.append(
            (error.name, SAYS[error.kind], error.unit, number(*one[:3], digits=3, why="not defined for any class"))
        )
    return {
        "run": run.name,
        "name": name,
        "composite": number(*composite[:3]),
        "mAP": number(*mean_ap[:3]),
        "errors": errors,
        "delta": None if comparison is None else delta(comparison, name),
    }


def _warnings(runs: Sequence[Run], why: str) -> Iterator[str]:
    """Give what the reader must know before any number."""
    if why:
        yield why
    for run in runs:
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        if run.boot is not None:
            yield from run.boot.notes
        if not len(run.ledger.event_pred):
            yield f"{prefix}no prediction counts: there is nothing to score"
        for note in run.scores.notes:
            yield note if all(note in other.scores.notes for other in runs) else f"{prefix}{note}"
    scores = runs[0].scores
    if not scores.n_truth.any():
        yield "no truth counts: nothing here means anything"
        return
    absent = [label for label, n in zip(scores.protocol.labels, scores.n_truth.tolist(), strict=True) if not n]
    if absent:
        counted = "count AP 0 and the worst errors" if scores.absent == "official" else "are left out of the means"
        some = ", ".join(absent[:8]) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
        yield f"classes without truth {counted}: {some}"


def _findings(runs: Sequence[Run], comparisons: Sequence[Comparison | None]) -> Iterator[Finding]:
    """Say in words what to do next, about the last run."""
    run = runs[-1]
    name = run.ledger.protocol.composite.name
    for other, comparison in zip(runs[1:], comparisons, strict=True):
        if comparison is not None:
            yield _finding(*_compared(runs[0].name, other.name, comparison), "#comparison")
    prices = {cause: gain[name] for cause, gain in run.diagnosis.prices.items() if gain[name] > MIN_PRICE}
    says = {str(row["cause"]): row for row in run.diagnosis.to_rows()}
    for cause in sorted(prices, key=lambda key: -prices[key])[:3]:
        row = says[cause]
        sides = (("predictions", "prediction"), ("truths", "missed truth"))
        many = " and ".join(_counted(int(row[side]), word) for side, word in sides if row[side])
        gain = f"Repairing “{cause.replace('_', ' ')}” alone would give {_signed(prices[cause])} {name}"
        yield _finding(gain, f"{row['meaning']} ({many or 'at other thresholds'}).", "#causes")
    yield from _weak_slices(run)
    yield from _weak_class(run)
    yield from _bad_frames(run)


def _finding(lead: str, rest: str, href: str) -> Finding:
    return {"lead": lead, "rest": rest, "href": href}


def _counted(n: int, word: str, words: str = "") -> str:
    return f"{n:,} {word if n == 1 else words or word + 's'}"


def _signed(value: float, digits: int = 4) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _compared(baseline: str, name: str, comparison: Comparison) -> tuple[str, str]:
    protocol = comparison.protocol
    headline = protocol.composite.name
    one = comparison[headline]
    if not one.is_significant:
        lead = f"{name} is not significantly different from {baseline}"
    else:
        lead = f"{name} is significantly {'better' if one.gain > 0 else 'worse'} than {baseline}"
    tail = "" if np.isnan(one.low) else f" ({_signed(one.low)} to {_signed(one.high)})"
    found = [comparison[f"AP/{label}"] for label in protocol.labels]
    better = sum(d.is_significant and d.gain > 0 for d in found)
    worse = sum(d.is_significant and d.gain < 0 for d in found)
    of_classes = f"AP is significantly better in {better} and worse in {worse} of {len(found)} classes"
    return lead, f"{headline} {_signed(one.difference)}{tail}; {of_classes}."


def _weak_slices(run: Run) -> Iterator[Finding]:
    name = run.ledger.protocol.composite.name
    for at, one in enumerate(run.sliced):
        whole = one.scores.whole.composite
        large = {key: scores.composite for key, scores in one.scores if scores.n_truth.sum() >= MIN_TRUTH}
        large = {key: value for key, value in large.items() if not np.isnan(value)}
        if len(large) < 2:
            continue
        worst = min(large, key=lambda key: large[key])
        found = interval(one.boots.get(worst), name, large[worst])
        if not (found.high < whole if one.boots else found.value < whole):
            continue
        tail = "" if np.isnan(found.low) else f" ({found.low:.4f}–{found.high:.4f})"
        n_truth = int(one.scores[worst].n_truth.sum())
        words = f"{name} {found.value:.4f}{tail} against {whole:.4f} of all, from {_counted(n_truth, 'truth')}."
        yield _finding(f"Weakest by {sections.titled(one.scores.by)}: {worst}", words, f"#slices-{at}")


def _weak_class(run: Run) -> Iterator[Finding]:
    scores = run.scores
    has_truth = scores.n_truth > 0
    if has_truth.sum() < 2:
        return
    ap = np.where(has_truth, scores.ap.mean(axis=1), np.inf)
    k = int(np.argmin(ap))
    if ap[k] == ap[has_truth].max():
        return  # none is weaker than another
    label = scores.protocol.labels[k]
    one = interval(run.boot, f"AP/{label}", float(ap[k]))
    tail = "" if np.isnan(one.low) else f" ({one.low:.4f}–{one.high:.4f})"
    words = (
        f"AP {one.value:.4f}{tail} from {_counted(int(scores.n_truth[k]), 'truth')}; the mean is {scores.mean_ap:.4f}."
    )
    yield _finding(f"Weakest class: {label}", words, "#classes")


def _bad_frames(run: Run) -> Iterator[Finding]:
    costs = run.frames.cost
    if costs is None or not len(costs) or not np.nanmax(costs, initial=0) > 0:
        return
    name, f = run.ledger.protocol.composite.name, int(run.frames.worst(1)[0])
    scene = run.ledger.truth.frame_columns.get("scene")
    where = f" of {scene[f]}" if scene is not None else ""
    lead = f"Dearest frame: {run.ledger.truth.frames[f]}{where}"
    yield _finding(lead, f"without it {name} would rise by {costs[f]:.5f}.", "#frames")
