"""The model card of the bundled checkpoint: what it is, how it was made, how good it is, what it cannot do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from detmetrics.detector.config import CLASSES, Config, TrainPlan
from detmetrics.detector.latency import HOW, Cost

#: Scores that a row of a comparison shows.
_SHOWN = ("NDS", "mAP", "ATE", "ASE", "AOE", "AVE", "AAE")
_KEYS = {"ATE": "trans_err", "ASE": "scale_err", "AOE": "orient_err", "AVE": "vel_err", "AAE": "attr_err"}
_CANNOT = """\
- It has seen one synthetic world and nothing else. On real clouds it is a starting point to be fine-tuned
  (`--init-from`, `--freeze`, `--lr-scale`), not a detector. On the one real nuScenes frame that we
  have, a single cloud, it fails: at a score of 0.3 and within 2 m it finds 0 of 4 cars, 0 of 2 trucks, 2 of 19
  pedestrians, 1 of 22 barriers and 0 of 3 cones, with 16 false boxes (`tests/looks/detector.py`).
- It must not be used where a missed object can hurt anybody.
- Front and back of vehicles that stand, above all of distant ones with few points, are guessed: this is most of
  AOE. The same goes for people who stand, whose heading in this world nothing shows.
- Two objects whose centres lie in one cell of 0.8 m are found as one.
- Nothing beyond 51.2 m ahead, behind or beside the sensor is found.
- Scores rank; they are no probabilities.
- It expects four clouds within about half a second, and the sensor about 1.84 m above the ground."""


class Facts(NamedTuple):
    """What the card tells; scores as :func:`detmetrics.detector.recipe.scores_of` gives them."""

    world: str
    held_out: str
    config: Config
    plan: TrainPlan
    short: TrainPlan
    history: Sequence[dict[str, Any]]
    device: str
    cost: Cost
    scores: dict[str, Any]
    plain: dict[str, Any]
    arms: dict[str, dict[str, Any]]


def text(facts: Facts) -> str:
    """Give the card as Markdown."""
    plan, history, cost = facts.plan, facts.history, facts.cost
    minutes = sum(row["seconds"] for row in history) / 60
    rows = [("this checkpoint", facts.scores), ("plain baseline, without learning", facts.plain)]
    config = facts.config
    speed = sum(row["samples_per_s"] for row in history) / len(history)
    what = (
        f"Point pillars of {config.pillar_m} m, {config.n_sweeps} joined clouds, a small pyramid of convolutions, "
        f"centre\nheatmaps on cells of {config.cell_m} m: {cost.n_parameters:,} parameters, {cost.gflop:.2f} GFLOP a "
        "sample. The ten classes of\nnuScenes, with velocity and attribute."
    )
    how = (
        f"- World: {facts.world}.\n"
        f"- {plan.epochs} epochs of {plan.samples:,} samples, batch {plan.batch}, AdamW at {plan.lr:g}, seed "
        f"{plan.seed}; the best epoch\n  by NDS on the validation split of that world: {facts.scores['epoch']}.\n"
        f"- {minutes:.0f} minutes of training ({speed:.1f} samples/s) on {facts.device}; world and validation come on "
        "top."
    )
    good = (
        f"On the validation split of another world ({facts.held_out}), which neither training nor early\nstopping nor "
        "any choice of a setting has seen. In brackets: 95 % intervals, 1,000 draws of whole scenes."
    )
    parts = [
        f"# Bundled detector `{config.name}`",
        "Written by `python -m detmetrics.detector.recipe WORK --install`; every figure comes from that run.",
        "## What it is",
        what,
        "## How it was made",
        how,
        "![curves](curves.png)",
        "## How good it is",
        good,
        _table(rows),
        _by_class(facts.scores),
        f"Signature: `{facts.scores['signature']}`",
        f"Latency: {cost.median_ms:.0f} ms (median), {cost.p90_ms:.0f} ms (90 %) a sample at batch 1. {HOW}.",
        "## What matters",
        matters(facts.arms, facts.short),
        "## What it cannot do",
        _CANNOT,
    ]
    return "\n\n".join(parts) + "\n"


def matters(arms: Mapping[str, dict[str, Any]], short: TrainPlan) -> str:
    """Give the part of the card about the ablations, scores as in :class:`Facts`."""
    if not arms:
        return "The ablations were not run."
    rows = [(name.replace("-", " "), scores) for name, scores in arms.items()]
    parts = [
        f"Each arm: {short.epochs} epochs of {short.samples:,} samples, the same seed, the same held-out scenes.",
        _table(rows),
        "AVE of each class:",
        _velocities(rows),
    ]
    if {"reference", "one-sweep"} <= arms.keys():
        several, one = (arms[name]["scores"] for name in ("reference", "one-sweep"))
        mean = several["tp_errors"]["vel_err"] / one["tp_errors"]["vel_err"]
        car = several["label_tp_errors"]["car"]["vel_err"] / one["label_tp_errors"]["car"]["vel_err"]
        parts.append(
            f"With several clouds AVE is {mean:.2f} of what it is with one, that of cars {car:.2f}; the aim was half."
        )
    if "no-augmentation" in arms:
        parts.append(
            "So short a schedule reads about as many samples as there are: nothing is overfitted yet, and augmentation "
            "only costs.\nOn the full one it was not tried without."
        )
    return "\n\n".join(parts)


def _table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    lines = ["| | " + " | ".join(_SHOWN) + " |", "|---|" + "---|" * len(_SHOWN)]
    for name, scores in rows:
        by_name = {row["metric"]: row for row in scores["intervals"]}
        lines.append(f"| {name} | " + " | ".join(_cell(by_name[metric]) for metric in _SHOWN) + " |")
    return "\n".join(lines)


def _velocities(arms: Sequence[tuple[str, dict[str, Any]]]) -> str:
    labels = [label for label in CLASSES if label not in ("traffic_cone", "barrier")]
    lines = ["| | " + " | ".join(labels) + " |", "|---|" + "---|" * len(labels)]
    for name, scores in arms:
        errors = scores["scores"]["label_tp_errors"]
        lines.append(f"| {name} | " + " | ".join(f"{errors[label]['vel_err']:.2f}" for label in labels) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    if row["value"] is None or math.isnan(row["value"]):
        return "–"
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _by_class(scores: dict[str, Any]) -> str:
    lines = ["| class | AP | " + " | ".join(_KEYS) + " |", "|---|---|" + "---|" * len(_KEYS)]
    whole = scores["scores"]
    for label in CLASSES:
        errors = [whole["label_tp_errors"][label].get(key) for key in _KEYS.values()]
        cells = ["–" if value is None or math.isnan(value) else f"{value:.3f}" for value in errors]
        lines.append(f"| {label} | {whole['mean_dist_aps'][label]:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
