"""The official Argoverse 2 evaluator as a function of Boxes or of files (environment ``.venv-parity``: av2 0.3.6).

:func:`av2.evaluation.detection.eval.evaluate` runs from end to end, without maps, with two changes: its pool of processes
is a plain loop, and its numbers are taken before it rounds them. Nothing here computes a metric.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from av2.evaluation import SensorCompetitionCategories
from av2.evaluation.detection import eval as official
from av2.evaluation.detection.utils import DetectionCfg

from detmetrics.boxes import Boxes

PACKAGE = "0.3.6"
CATEGORIES = tuple(category.value for category in SensorCompetitionCategories)


class Loop:
    """As much of a pool of processes as the evaluator asks for."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def starmap(self, function: Any, arguments: list[Any]) -> list[Any]:
        """Call the function once for each."""
        return [function(*one) for one in arguments]


@contextmanager
def unrounded() -> Iterator[None]:
    """Run in this process, and leave the table of results as it is before rounding."""
    context = mock.Mock(Pool=Loop)
    with (
        mock.patch.object(official.mp, "get_context", mock.Mock(return_value=context)),
        mock.patch.object(pd.DataFrame, "round", lambda table, _: table),
    ):
        yield


def evaluate(dts: pd.DataFrame, gts: pd.DataFrame, categories: tuple[str, ...] = CATEGORIES) -> dict[str, Any]:
    """Give AP, ATE, ASE, AOE and CDS by category, and their means under ``AVERAGE_METRICS``."""
    cfg = DetectionCfg(categories=categories, eval_only_roi_instances=False)
    with unrounded():
        _, _, metrics = official.evaluate(dts, gts, cfg, n_jobs=1)
    return {str(name): {str(column): float(value) for column, value in row.items()} for name, row in metrics.iterrows()}


def table(boxes: Boxes) -> pd.DataFrame:
    """Boxes as the evaluator's table: one row a box, in the order of their places in the file."""
    labels = boxes.labels or ()
    rotation = boxes.rotation_wxyz
    if rotation is None:
        half = boxes.yaw_rad / 2
        rotation = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=-1)
    names = [boxes.frames[code].rpartition(":") for code in boxes.frame]
    columns: dict[str, Any] = {
        "log_id": [log for log, _, _ in names],
        "timestamp_ns": np.array([int(time) for _, _, time in names], np.int64),
        "category": [labels[code] for code in boxes.label],
        **{name: boxes.center_m[:, i] for i, name in enumerate(("tx_m", "ty_m", "tz_m"))},
        **{name: boxes.size_lwh_m[:, i] for i, name in enumerate(("length_m", "width_m", "height_m"))},
        **{name: rotation[:, i] for i, name in enumerate(("qw", "qx", "qy", "qz"))},
    }
    if boxes.score is not None:
        columns["score"] = boxes.score
    else:
        points = np.ones(len(boxes)) if boxes.num_points is None else boxes.num_points
        columns["num_interior_pts"] = points.astype(np.int64)
    return pd.DataFrame(columns).iloc[np.argsort(boxes.place)].reset_index(drop=True)


def write_log_folders(root: Path, truth: Boxes) -> None:
    """Write truth as a split: a folder a log, whose annotations do not name the log; a lidar file for every sweep."""
    whole = table(truth)
    for name in truth.frames:
        log, _, time = name.rpartition(":")
        scan = root / log / "sensors" / "lidar" / f"{time}.feather"
        scan.parent.mkdir(parents=True, exist_ok=True)
        scan.touch()
    for folder in root.iterdir():
        rows = whole[whole["log_id"] == folder.name].drop(columns="log_id").reset_index(drop=True)
        rows["track_uuid"] = [f"track-{i}" for i in range(len(rows))]
        rows.to_feather(folder / "annotations.feather")


def apart(ours: Any, theirs: dict[str, Any]) -> float:
    """Largest difference between our scores and the official table."""
    most = 0.0
    for k, label in enumerate(ours.protocol.labels):
        row = theirs[label]
        errors = ours.class_errors[k].tolist()
        mine = [ours.class_ap[label], *errors, ours.class_composite[label]]
        most = max(
            most, *(abs(a - row[name]) for a, name in zip(mine, ("AP", "ATE", "ASE", "AOE", "CDS"), strict=True))
        )
    mean = theirs["AVERAGE_METRICS"]
    mine = [ours.mean_ap, *ours.tp_errors.values(), ours.composite]
    most = max(most, *(abs(a - mean[name]) for a, name in zip(mine, ("AP", "ATE", "ASE", "AOE", "CDS"), strict=True)))
    return math.inf if math.isnan(most) else most
