"""What looking costs, without a graphics card: pictures, and the window on a virtual screen (needs Xvfb).

``python tests/bench/viewer.py [POINTS …]``, by default 35,000 and 300,000 points with 100 boxes. A step is the next
frame, its scene built anew; a turn is the same frame from elsewhere, as a drag does it; a score is a key that changes
which boxes are shown. Median and least by the clock, and processor time, which a busy machine does not change; no
time is quoted unless the pixels are there.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import looking
from detmetrics.geometry import IDENTITY
from detmetrics_viz import Footage, Painter
from detmetrics_viz.opening import open3d
from detmetrics_viz.session import Session
from detmetrics_viz.themes import DARK, rgb
from detmetrics_viz.window import SIZE, _Loop

N_TIMES = 15


def footage(n_points: int, n_frames: int) -> Footage:
    """The same street and boxes in each frame."""
    cloud = looking.cloud(looking.ground(n_points))
    rng = np.random.default_rng(0)
    names = [f"f{i}" for i in range(n_frames)]
    n = 50 * n_frames
    rows = np.column_stack(
        [rng.uniform(-40, 40, (n, 2)), np.full(n, -1), rng.uniform(1, 5, (n, 3)), rng.uniform(-3, 3, n)]
    )
    where = {"frame": np.repeat(np.arange(n_frames), 50), "frames": names}
    truth, pred = looking.boxes(rows, **where), looking.boxes(rows + 0.2, score=rng.uniform(0, 1, n), **where)
    return Footage(names, lambda _: (cloud, IDENTITY, None), truth, pred)


def told(what: str, run: Callable[[int], Any]) -> None:
    """Time it, and say so."""
    run(0)
    taken = []
    before = time.process_time()
    for k in range(1, N_TIMES + 1):
        start = time.perf_counter()
        run(k)
        taken.append(1e3 * (time.perf_counter() - start))
    cpu = 1e3 * (time.process_time() - before) / N_TIMES
    print(f"  {what:32s} {statistics.median(taken):6.0f} ms, least {min(taken):.0f}, processor {cpu:.0f}", flush=True)


def pictures(n_points: int) -> None:
    own = footage(n_points, 1)
    told("scene", lambda _: own[0])
    scene = own[0]
    for smooth in (1, 2):
        with Painter(smooth=smooth) as painter:
            assert is_drawn(painter.draw(scene))
            told(f"picture 1280 x 720, smooth={smooth}", lambda _, painter=painter: painter.draw(scene))


def window(n_points: int) -> None:
    shown = open3d().visualization.VisualizerWithKeyCallback()
    shown.create_window("bench", width=SIZE[0], height=SIZE[1])
    session = Session(footage(n_points, N_TIMES + 1))
    loop = _Loop(shown, session)

    def draw() -> None:
        assert loop._draw()
        shown.poll_events()

    def step(k: int) -> None:
        session.go(k)
        draw()

    def turn(_: int) -> None:
        session.orbit = session.orbit.turned(0.01, 0.0)
        draw()

    def score(k: int) -> None:
        session.score(1 if k % 2 else -1)
        draw()

    session.go(N_TIMES)
    told("window 1280 x 800: step", step)
    told("window: turn", turn)
    told("window: score", score)
    assert is_drawn(np.round(np.asarray(shown.capture_screen_float_buffer(True)) * 255))


def is_drawn(image: Any) -> bool:
    """Whether a good part of a picture is not ground."""
    return bool((np.abs(image.astype(int) - rgb(DARK.background)).max(axis=2) > 20).mean() > 0.02)


def main(counts: list[int]) -> None:
    for n_points in counts:
        print(f"{n_points:,} points, 100 boxes", flush=True)
        pictures(n_points)
        with looking.screen() as environment:
            command = [sys.executable, __file__, "--window", str(n_points)]
            subprocess.run(command, env={**os.environ, **environment}, check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--window"]:
        window(int(sys.argv[2]))
    else:
        main([int(count) for count in sys.argv[1:]] or [35_000, 300_000])
