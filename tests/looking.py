"""Things to look at for tests of the viewer: one box on one cloud, a tiny lidar world with a detector's errors; a screen."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import detmetrics as dm
from detmetrics import demo, extras
from detmetrics.geometry import IDENTITY
from detmetrics.io.clouds import Cloud
from detmetrics.synth import write_world
from detmetrics_viz.footage import Footage

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def why_nothing_can_be_drawn() -> str:
    """Say what to install before the tests of the viewer can run, or nothing where they can."""
    try:
        extras.require("viz", what="the viewer")
    except extras.MissingExtraError as error:
        return str(error)
    return demo._why_no_pictures()


def cloud(points: Any, **changes: Any) -> Cloud:
    points = np.asarray(points, np.float32)
    given = {
        "points_m": points,
        "intensity": np.arange(len(points), dtype=np.float32) % 100,
        "ring": np.zeros(len(points), np.int32),
        "time_s": np.zeros(len(points), np.float32),
        "pose": IDENTITY,
        "source": "a cloud",
    }
    return Cloud(**{**given, **changes})


def ground(n: int = 35_000, seed: int = 0) -> Any:
    """Points on a road, some above it."""
    rng = np.random.default_rng(seed)
    xy = rng.normal(0, 20, (n, 2))
    return np.column_stack([xy, np.where(rng.random(n) < 0.8, rng.normal(-1.8, 0.02, n), rng.uniform(-1.8, 4, n))])


def boxes(rows: list[tuple[float, ...]], **columns: Any) -> dm.Boxes:
    """Cars in frame ``f``: rows of x, y, z, length, width, height, yaw."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    given = {
        "center_m": table[:, :3],
        "size_lwh_m": table[:, 3:6],
        "yaw_rad": table[:, 6],
        "label": ["car"] * len(table),
        "frame": np.zeros(len(table), int),
        "frames": ["f"],
    }
    return dm.Boxes(**{**given, **columns})


def pair(truth: list[tuple[float, ...]], pred: list[tuple[float, ...]], score: list[float]) -> dm.Ledger:
    """Match cars."""
    n = len(truth)
    known = {"velocity_mps": np.zeros((n, 2)), "num_points": np.full(n, 9.0), "attribute": ["vehicle.parked"] * n}
    n = len(pred)
    said = {"velocity_mps": np.zeros((n, 2)), "attribute": ["vehicle.parked"] * n, "score": score}
    return dm.match(boxes(truth, **known), boxes(pred, **said), dm.NUSCENES)


@cache
def world() -> Path:
    """The folder of a tiny lidar world, for as long as the tests run."""
    folder = Path(tempfile.mkdtemp(prefix="detmetrics-looking-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_world(folder / "world", train_scenes=1, val_scenes=2, samples_per_scene=3, sweeps=1, seed=0)
    return folder / "world"


@cache
def truth() -> dm.Boxes:
    return dm.io.load_truth(world(), split="synth_val", cache=False)


@cache
def predictions(seed: int = 0) -> dm.Boxes:
    """Truth with misses, noise, and inventions."""
    rng = np.random.default_rng(seed)
    real = truth()
    labels = dm.NUSCENES.labels
    codes = {name: labels.index(found) for name in real.labels if (found := dm.NUSCENES.mapping.get(name)) in labels}
    label = np.array([codes.get(name, -1) for name in real.labels])[real.label]
    kept = np.flatnonzero((label >= 0) & (rng.random(len(real)) > 0.15))
    rows = np.concatenate([kept, rng.choice(kept, len(kept) // 3)])
    n = len(rows)
    invented = np.arange(n) >= len(kept)
    center = real.center_m[rows] + rng.normal(0, 0.3, (n, 3)) * [1, 1, 0.2]
    center[invented, :2] += rng.normal(0, 6, (int(invented.sum()), 2))
    return dm.Boxes(
        center_m=center,
        size_lwh_m=real.size_lwh_m[rows] * rng.normal(1, 0.05, (n, 3)),
        yaw_rad=real.yaw_rad[rows] + rng.normal(0, 0.1, n),
        label=label[rows],
        labels=labels,
        frame=real.frame[rows],
        frames=real.frames,
        score=np.where(invented, rng.beta(2, 5, n), rng.beta(5, 2, n)),
        velocity_mps=np.nan_to_num(real.velocity_mps[rows]),
        attribute=[""] * n,
        meta={"use_lidar": True},
        source="predictions",
    )


@cache
def ledger() -> dm.Ledger:
    return dm.match(truth(), predictions(), dm.NUSCENES)


@cache
def results() -> Path:
    path = world().parent / "results.json"
    dm.io.nuscenes.write_results(predictions(), path)
    return path


@cache
def footage() -> Footage:
    return Footage.of_data(world(), truth(), None, ledger())


@contextmanager
def screen() -> Iterator[dict[str, str]]:
    """A virtual screen; gives the environment of its programs. Without -noreset it forgets all when xdotool leaves."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1400x900x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=(write,), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        os.close(write)
        with os.fdopen(read) as numbers:
            number = numbers.readline().strip()
        yield {**os.environ, "DISPLAY": f":{number}", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    finally:
        server.terminate()
        server.wait()
