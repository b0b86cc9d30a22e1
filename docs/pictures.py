"""Make the pictures of these pages from synthetic data: ``python docs/pictures.py`` (needs Chromium and playwright)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import detmetrics as dm
from detmetrics.synth import make_boxes, write_world
from detmetrics_viz import Footage, Painter, save_png

OUT = Path(__file__).with_name("pictures")
SETTINGS = {"n_frames": 400, "samples_per_scene": 20, "boxes_per_sample": 60}


def main() -> None:
    """Write every picture."""
    OUT.mkdir(exist_ok=True)
    report()
    view()


def view() -> None:
    """Draw a frame of the lidar world; the predictions are its truth, shaken, a fifth left out, some made up."""
    with tempfile.TemporaryDirectory() as data:
        write_world(data, seed=4, train_scenes=0, val_scenes=1, samples_per_scene=8, sweeps=1)
        truth = dm.io.load_truth(data, split="synth_val", cache=False)
        names = [dm.NUSCENES.mapping.get(truth.labels[code], "") for code in truth.label]
        rows = np.array([i for i, name in enumerate(names) if name and i % 5])
        rng = np.random.default_rng(0)
        shift = rng.normal(0, 0.25, (len(rows), 3)) + 4 * (rng.random((len(rows), 1)) < 0.08)
        pred = dm.Boxes(
            center_m=truth.center_m[rows] + shift * [1, 1, 0.3],
            size_lwh_m=truth.size_lwh_m[rows],
            yaw_rad=truth.yaw_rad[rows],
            label=[names[i] for i in rows],
            frame=truth.frame[rows],
            frames=truth.frames,
            score=rng.uniform(0.3, 1, len(rows)),
        )
        footage = Footage.of_data(data, truth, pred, dm.match(truth, pred, dm.NUSCENES))
        with Painter((1280, 720), smooth=2) as painter:
            save_png(painter.draw(footage[5]), f"{data}/view.png")
        with Image.open(f"{data}/view.png") as picture:
            picture.convert("RGB").quantize(96).save(OUT / "view.png", optimize=True)


def report() -> None:
    """Open a report of two runs and keep its head."""
    runs = [dm.match(*make_boxes(**SETTINGS, quality=quality), dm.NUSCENES) for quality in (0.97, 1.0)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_path = Path(folder) / "report.html"
        dm.report(runs, page_path, names=["v1", "v2"], title="Nightly", n=500, n_worst=3)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1000}, device_scale_factor=1.25)
        page.goto(page_path.as_uri())
        page.wait_for_timeout(1500)
        page.screenshot(path=f"{folder}/report.png")
        browser.close()
        with Image.open(f"{folder}/report.png") as picture:
            picture.quantize(64).save(OUT / "report.png", optimize=True)


if __name__ == "__main__":
    main()
