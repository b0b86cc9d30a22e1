"""``detmetrics detector …``: what its commands do; the command line imports this on use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from detmetrics import io
from detmetrics.detector import checkpoint, latency
from detmetrics.detector.config import CONFIGS, NO_AUGMENT, Augment, TrainPlan, config_named
from detmetrics.detector.decoding import MIN_SCORE
from detmetrics.detector.predicting import device_named, predict
from detmetrics.detector.samples import Samples
from detmetrics.detector.training import Progress, Say, train
from detmetrics.errors import InputError
from detmetrics.extras import needs, require
from detmetrics.files import check_ending, check_output

with needs("detector"):
    import torch

Echo = Callable[[str], None]


def info(device: str, echo: Echo) -> None:
    """Print parameters, FLOPs and latency of each configuration."""
    target = device_named(device)
    echo(f"{latency.device_text(target)}, batch 1, float32{' and bf16' if target.type == 'cuda' else ''}")
    echo(f"{'configuration':<14}{'parameters':>12}{'MB':>7}{'GFLOP':>8}{'median ms':>11}{'90 % ms':>9}")
    for config in CONFIGS.values():
        cost = latency.measure(config, target)
        echo(
            f"{config.name:<14}{cost.n_parameters:>12,}{4e-6 * cost.n_parameters:>7.1f}{cost.gflop:>8.2f}"
            f"{cost.median_ms:>11.1f}{cost.p90_ms:>9.1f}"
        )
    echo(latency.HOW)


def run_training(
    data: Path,
    out: Path,
    config_name: str,
    settings: dict[str, Any],
    *,
    splits: tuple[str, str],
    version: str | None,
    allow_leaks: bool,
    sweeps: int | None,
    dropout: float | None,
    augment: bool,
    lr_scale: list[str],
    freeze: str,
    say: Say,
    progress: Progress,
    **others: Any,
) -> None:
    """Put configuration and plan together, and train."""
    config = config_named(config_name)
    config = replace(
        config,
        n_sweeps=config.n_sweeps if sweeps is None else sweeps,
        dropout=config.dropout if dropout is None else dropout,
    )
    config.check()
    plan = TrainPlan(
        **{name: value for name, value in settings.items() if value is not None},
        lr_scale=dict(_scale(text) for text in lr_scale),
        freeze=tuple(name.strip() for name in freeze.split(",") if name.strip()),
        augment=Augment() if augment else NO_AUGMENT,
    )
    plan.check()
    train(
        data,
        out,
        config,
        plan,
        splits=splits,
        version=version,
        allow_leaks=allow_leaks,
        say=say,
        progress=progress,
        **others,
    )


def _scale(text: str) -> tuple[str, float]:
    name, _, factor = text.partition("=")
    try:
        value = float(factor)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InputError("--lr-scale", expected="PART=FACTOR, e.g. backbone=0.1", got=text)
    return name, value


def run_prediction(
    data: Path,
    split: str | None,
    out: Path,
    *,
    weights: Path | None,
    version: str | None,
    device: str,
    batch: int,
    workers: int,
    sweeps: int | None = None,
    min_score: float = MIN_SCORE,
    progress: Callable[[int, int], None],
) -> str:
    """Predict a split and write a result file; give a line about it."""
    target = check_output(out, "--out")
    check_ending(out, (".json", ".parquet"), "--out")
    if out.suffix == ".parquet":
        require("parquet", what="Parquet")
    model, _note = checkpoint.load_model(weights)
    where = device_named(device)
    config = model.config if sweeps is None else replace(model.config, n_sweeps=sweeps)
    config.check()
    samples = Samples(data, split, config, version=version)
    try:
        boxes = predict(
            model, samples, device=where, batch=batch, workers=workers, min_score=min_score, progress=progress
        )
    except torch.cuda.OutOfMemoryError:
        raise InputError(f"CUDA is out of memory at batch {batch}", hint=f"try --batch {max(batch // 2, 1)}") from None
    if out.suffix == ".parquet":
        io.parquet.write(boxes, target)
    else:
        io.nuscenes.write_results(boxes, target)
    return f"{out}: {len(boxes):,} boxes in {boxes.n_frames:,} samples, by {model.config.name}"
