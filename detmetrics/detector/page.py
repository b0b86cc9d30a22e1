"""The page of a training run: the diagnosis, the curves, the epochs, and what it was trained with."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from detmetrics.detector.history import Floats, History, read
from detmetrics.detector.learning import Diagnosis, diagnose
from detmetrics.errors import InputError
from detmetrics.extras import needs
from detmetrics.files import check_output, open_file, whole_file
from detmetrics.reporting.page import ASSETS, environment

TRAIN, VAL, GRID = "#d55e00", "#0072b2", "#d7dce1"
#: Colours that people with any colour vision tell apart (Okabe and Ito), for the parts of the loss.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d00")


def write_page(run: str | Path) -> Diagnosis:
    """Write ``curves.png`` and ``index.html`` into the folder of a run; needs matplotlib and jinja2.

    The page is one file that asks nobody for anything: the picture is inside, there is no script.

    Parameters
    ----------
    run : path
        A folder with ``history.jsonl`` and, where training wrote it, ``config.json``.

    Returns
    -------
    Diagnosis
        As on the page.

    Raises
    ------
    InputError
        See :func:`detmetrics.detector.history.read`; a ``config.json`` that is no JSON object; without the two
        libraries; where the files cannot be written.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise InputError("run", expected="the folder of a training run", got=str(run))
    history = read(folder)
    settings = _settings(folder / "config.json")
    targets = check_output(folder / "curves.png"), check_output(folder / "index.html")
    told = diagnose(history)
    picture = draw(history, told)
    page = render(folder.resolve().name, history, told, settings, picture)
    for target, content in zip(targets, (picture, page.encode()), strict=True):
        with whole_file(target) as file:
            file.write(content)
    return told


def draw(history: History, told: Diagnosis) -> bytes:
    """Draw losses, their parts, scores and the learning rate, as a PNG.

    Raises
    ------
    InputError
        Without matplotlib.
    """
    with needs("detector", "a drawing of the curves"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    figure = Figure(figsize=(12, 7.5), dpi=110, layout="constrained")
    axes = figure.subplots(2, 2)
    (loss, scores), (parts, rate) = axes
    epoch = history.epoch

    def line(where: Any, values: Floats, label: str, colour: str, style: str = "-") -> None:
        marker = "o" if len(epoch) <= 60 else None
        where.plot(epoch, values, style, color=colour, label=label, marker=marker, markersize=3.5, linewidth=1.6)

    line(loss, history.train_loss, "train", TRAIN)
    line(loss, history.val_loss, "validation", VAL)
    if told.kind in ("overfitting", "plateau", "diverged"):
        loss.axvline(told.epoch, color="#57606a", linestyle=":", linewidth=1.4, label=f"{told.kind} since {told.epoch}")
    loss.set_title("Loss")
    line(scores, history.NDS, "NDS", VAL)
    line(scores, history.mAP, "mAP", TRAIN)
    scores.set_title("Scores on validation")
    for (name, values), colour in zip(history.val.items(), _around(COLOURS), strict=False):
        line(parts, values, name, colour)
    for (name, values), colour in zip(history.train.items(), _around(COLOURS), strict=False):
        line(parts, values, "" if name in history.val else f"{name} (train)", colour, "--")
    parts.set_title("Parts of the loss: validation solid, train dashed")
    line(rate, history.lr, "learning rate", VAL)
    rate.set_title("Learning rate")
    for one in axes.flat:
        one.xaxis.set_major_locator(MaxNLocator(integer=True))
        one.set_xlim(epoch[0] - 0.5, epoch[-1] + 0.5)
        one.set_xlabel("epoch")
        one.grid(color=GRID, linewidth=0.7)
        one.spines[["top", "right"]].set_visible(False)
        shown = [row.get_ydata() for row in one.lines if row.get_marker() != "None" or len(row.get_ydata()) > 2]
        values = np.concatenate(shown) if shown else np.empty(0)
        finite = values[np.isfinite(values)]
        if not len(finite):
            one.text(0.5, 0.5, "no values", transform=one.transAxes, ha="center", color="#57606a")
            continue
        if one in (loss, parts) and finite.min() > 0 and finite.max() > 10 * finite.min():
            one.set_yscale("log")
        if one is scores:
            one.set_ylim(0, min(1.0, 1.15 * max(float(finite.max()), 0.05)))
        if one is rate:
            one.set_ylim(0, 1.1 * float(finite.max()))
            one.ticklabel_format(axis="y", scilimits=(-2, 3))
        else:
            one.legend(frameon=False, fontsize=9, ncols=2 if len(one.lines) > 6 else 1)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _around(colours: tuple[str, ...]) -> Iterable[str]:
    while True:
        yield from colours


def render(name: str, history: History, told: Diagnosis, settings: Mapping[str, str], picture: bytes) -> str:
    """Make the page; whatever is printed is escaped.

    Raises
    ------
    InputError
        Without jinja2.
    """
    template = environment().from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    columns: dict[str, tuple[Floats, str]] = {
        "train loss": (history.train_loss, ".4g"),
        "validation loss": (history.val_loss, ".4g"),
        "mAP": (history.mAP, ".4f"),
        "NDS": (history.NDS, ".4f"),
        "learning rate": (history.lr, ".3g"),
        "seconds": (history.seconds, ",.0f"),
        "samples/s": (history.samples_per_s, ".3g"),
    }
    columns = {title: column for title, column in columns.items() if np.isfinite(column[0]).any()}
    best = {
        "validation loss": _row(history.val_loss, np.nanargmin),
        "mAP": _row(history.mAP, np.nanargmax),
        "NDS": _row(history.NDS, np.nanargmax),
    }
    rows = [
        {
            "epoch": int(history.epoch[row]),
            "cells": [
                {"text": _text(float(values[row]), form), "tone": "good" if best.get(title) == row else ""}
                for title, (values, form) in columns.items()
            ],
        }
        for row in range(len(history))
    ]
    sides = {"train": history.train, "validation": history.val}
    names = dict.fromkeys(name for side in sides.values() for name in side)
    parts = [
        {
            "name": part,
            "cells": [_text(float(side[part][-1]), ".4g") if part in side else "" for side in sides.values()],
        }
        for part in names
    ]
    seconds = history.seconds[np.isfinite(history.seconds)].sum()
    facts = {
        "Epochs": f"{len(history)}",
        "Time": f"{seconds / 60:,.1f} min" if seconds else "",
        "Best NDS": _best(history, history.NDS, best["NDS"], ".4f"),
        "Best mAP": _best(history, history.mAP, best["mAP"], ".4f"),
        "Best validation loss": _best(history, history.val_loss, best["validation loss"], ".4g"),
    }
    return str(
        template.render(
            name=name,
            told=told,
            tone={"healthy": "good", "diverged": "bad", "overfitting": "bad", "underfitting": "bad"}.get(told.kind, ""),
            notes=history.notes,
            facts={key: value for key, value in facts.items() if value},
            titles=list(columns),
            rows=rows,
            sides=list(sides),
            parts=parts,
            settings=settings,
            style=(ASSETS / "report.css").read_text(encoding="utf-8"),
            picture=base64.b64encode(picture).decode(),
        )
    )


def _row(values: Floats, pick: Any) -> int:
    """Place of the best value, -1 where there is none."""
    return int(pick(values)) if np.isfinite(values).any() else -1


def _best(history: History, values: Floats, row: int, form: str) -> str:
    return f"{_text(float(values[row]), form)} (epoch {int(history.epoch[row])})" if row >= 0 else ""


def _text(value: float, form: str) -> str:
    if math.isnan(value):
        return "–"
    return format(value, form)


def _settings(path: Path) -> dict[str, str]:
    """The configuration in dotted names, empty where the run has none."""
    if not path.exists():
        return {}
    with open_file(path) as file:
        content = file.read()
    try:
        values = json.loads(content)
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}", expected="an object", got=values)
    return dict(_flat(values, ""))


def _flat(values: Mapping[str, Any], start: str) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
