"""Make the pictures of these pages from synthetic data: ``python docs/pictures.py`` (needs Chromium and playwright)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import detmetrics as dm
from detmetrics.synth import make_boxes

OUT = Path(__file__).with_name("pictures")
SETTINGS = {"n_frames": 400, "samples_per_scene": 20, "boxes_per_sample": 60}


def main() -> None:
    """Write every picture."""
    runs = [dm.match(*make_boxes(**SETTINGS, quality=quality), dm.NUSCENES) for quality in (0.97, 1.0)]
    OUT.mkdir(exist_ok=True)
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
