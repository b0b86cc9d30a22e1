"""How often a 95 % interval holds the truth: many small data sets from one generator whose true numbers are known.

The truth is the value on 20,000 scenes of the same generator. Scenes differ in how crowded and how hard they are, so
boxes of one scene are alike, as in the field. Run as a script for the full study::

    python tests/coverage_study.py --scenes 150 --sets 4000
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

import detmetrics as dm
from detmetrics.intervals import limits, p_value
from detmetrics.protocol import Affinity, Composite, Curve, Protocol, Task, TpError
from detmetrics.resampling import Draws
from detmetrics.scoring import Plan, metric_names, metric_range, metric_values, official
from detmetrics.weights import Weights

PROTOCOL = Protocol(
    name="coverage",
    tasks=(Task(label="car"), Task(label="pedestrian")),
    affinity=Affinity(kind="center_xy", thresholds=(1.0, 2.0), error_threshold=2.0),
    curve=Curve(min_recall=0.1, min_precision=0.1),  # said here, so that no default moves the figures
    errors=(
        TpError(name="ATE", key="trans_err", kind="translation_xy", unit="m"),
        TpError(name="AOE", key="orient_err", kind="orientation", unit="rad"),
    ),
    composite=Composite(name="NDS", map_weight=3, error_weights={"ATE": 1, "AOE": 1}),
)
FRAMES = 2
TRUE_SCENES, TRUE_SEED = 20_000, 10**9  # a seed that no simulated data set has
METHODS = ("expanded", "percentile", "bca")


def world(seed: int, n_scenes: int) -> tuple[dm.Boxes, dm.Boxes, dm.Boxes]:
    """Truth, predictions of a detector, and of a second one that is as good, for ``n_scenes`` scenes."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=n_scenes)  # what makes a scene hard for both detectors
    crowd = rng.gamma(2.0, 0.5, size=(n_scenes, 2)) * [6.0, 4.0]  # truths of each class a frame
    n_truth = rng.poisson(np.repeat(crowd, FRAMES, axis=0))  # (frames, classes)
    cell = np.repeat(np.arange(n_truth.size), n_truth.ravel())
    frame, label = np.divmod(cell, 2)
    center = rng.uniform(-40, 40, size=(len(cell), 3)) * [1, 1, 0]
    yaw = rng.uniform(-math.pi, math.pi, size=len(cell))
    frames = [f"{i:06d}" for i in range(n_scenes * FRAMES)]
    scene = np.repeat(np.arange(n_scenes), FRAMES)
    columns = {"scene": np.array([f"scene-{i:06d}" for i in range(n_scenes)])[scene]}
    common: dict[str, Any] = {"frames": frames, "labels": PROTOCOL.labels}
    truth = dm.Boxes(
        center_m=center,
        size_lwh_m=np.ones((len(cell), 3)),
        yaw_rad=yaw,
        label=label,
        frame=frame,
        frame_columns=columns,
        **common,
    )

    def detect() -> dm.Boxes:
        quality = 0.9 - 0.8 * hard[scene[frame]] + rng.normal(size=len(frame))
        found = rng.normal(size=len(frame)) < quality
        sigma = 0.35 * np.exp(0.25 * hard[scene[frame]])[found, None]
        at = center[found] + rng.normal(size=(found.sum(), 3)) * sigma * [1, 1, 0]
        turned = yaw[found] + rng.normal(size=found.sum()) * 0.3
        logit = quality[found] + rng.normal(size=found.sum())
        n_false = rng.poisson(np.repeat(2.0 * np.exp(0.3 * hard), FRAMES)[:, None] * [1.0, 1.0])
        cell = np.repeat(np.arange(n_false.size), n_false.ravel())
        wrong = rng.normal(size=len(cell)) - 0.8
        return dm.Boxes(
            center_m=np.concatenate((at, rng.uniform(-40, 40, size=(len(cell), 3)) * [1, 1, 0])),
            size_lwh_m=np.ones((len(at) + len(cell), 3)),
            yaw_rad=np.concatenate((turned, rng.uniform(-math.pi, math.pi, size=len(cell)))),
            label=np.concatenate((label[found], cell % 2)),
            frame=np.concatenate((frame[found], cell // 2)),
            score=1 / (1 + np.exp(-np.concatenate((logit, wrong)))),
            **common,
        )

    return truth, detect(), detect()


def numbers(plan: Plan, weight: np.ndarray | None) -> np.ndarray:
    """All numbers (M,) under frame weights."""
    tables = plan.run(weight)
    return metric_values(PROTOCOL, *official(PROTOCOL, tables.ap, tables.errors, tables.n_truth, "official"))[0]


def true_values() -> np.ndarray:
    """The numbers on 20,000 scenes (M,)."""
    truth, pred, other = world(TRUE_SEED, TRUE_SCENES)
    both = [numbers(Plan(dm.match(truth, one, PROTOCOL), Weights()), None) for one in (pred, other)]
    return np.mean(both, axis=0)  # the two detectors are equally good


def one_set(task: tuple[int, int, int]) -> tuple[list[tuple[float, float]], list[float]]:
    """Intervals of one data set, method by method and number by number, and p-values of two equally good detectors."""
    seed, n_scenes, n = task
    truth, pred, other = world(seed, n_scenes)
    found = []
    for one in (pred, other):
        ledger = dm.match(truth, one, PROTOCOL, threads=1)
        plan, draws = Plan(ledger, Weights()), Draws(ledger, n, "scene", seed)
        weights = [draws.weights(i) for i in range(n)]
        out = [draws.without(j) for j in range(len(draws.left_out))]
        values = [numbers(plan, weight) for weight in [None, *weights, *out]]
        found.append((values[0], np.array(values[1 : n + 1]), np.array(values[n + 1 :])))
    (value, replicates, left_out), (value_b, replicates_b, left_out_b) = found
    intervals = [
        limits(value[m], replicates[:, m], left_out[:, m], n_scenes, 0.95, method, bounds)  # type: ignore[arg-type]
        for method in METHODS
        for m, bounds in enumerate(metric_range(name, PROTOCOL) for name in metric_names(PROTOCOL))
    ]
    p_values = [
        p_value(a, r, j, n_scenes, method)  # type: ignore[arg-type]
        for method in METHODS
        for a, r, j in zip(value_b - value, (replicates_b - replicates).T, (left_out_b - left_out).T, strict=True)
    ]
    return intervals, p_values


def study(n_scenes: int, n_sets: int, n: int, processes: int = 1) -> dict[str, dict[str, tuple[int, int]]]:
    """Count the sets whose interval holds the truth, and those that call two equally good detectors different."""
    target = true_values()
    names = metric_names(PROTOCOL)
    held = np.zeros((len(METHODS), len(names)), np.int64)
    false_alarm = np.zeros_like(held)
    for intervals, p_values in _run([(seed, n_scenes, n) for seed in range(n_sets)], processes):
        low, high = np.array(intervals).reshape(len(METHODS), len(names), 2).transpose(2, 0, 1)
        held += (low <= target) & (target <= high)
        false_alarm += np.array(p_values).reshape(held.shape) < 0.05
    return {
        method: {name: (int(held[i, m]), int(false_alarm[i, m])) for m, name in enumerate(names)}
        for i, method in enumerate(METHODS)
    }


def _run(tasks: list[tuple[int, int, int]], processes: int) -> Iterator[Any]:
    if processes == 1:
        yield from map(one_set, tasks)
        return
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for i, result in enumerate(pool.imap(one_set, tasks, chunksize=4)):
            yield result
            if (i + 1) % 100 == 0:
                left = (time.perf_counter() - start) / (i + 1) * (len(tasks) - i - 1)
                print(f"{i + 1} of {len(tasks)} data sets, {left:.0f} s left", file=sys.stderr, flush=True)


def binomial_interval(k: int, n: int, level: float = 0.99) -> tuple[float, float]:
    """Wilson's interval of a share."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return centre - half, centre + half


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--sets", type=int, default=4000)
    parser.add_argument("--replicates", type=int, default=1000)
    options = parser.parse_args()
    counts = study(options.scenes, options.sets, options.replicates, os.cpu_count() or 1)
    for method, by_name in counts.items():
        for name, (held, alarms) in by_name.items():
            low, high = binomial_interval(held, options.sets)
            print(
                f"{options.scenes:5d} scenes {method:10s} {name:15s} coverage {held / options.sets:.4f} "
                f"[{low:.4f}, {high:.4f}]  false alarms {alarms / options.sets:.4f}"
            )
    print(json.dumps(counts))
