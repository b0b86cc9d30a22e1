"""What the report of a val-sized ledger costs, and how soon it is open: ``python tests/bench/report.py``.

Asserts that the page agrees with the library before it quotes a time.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import detmetrics as dm
from detmetrics.reporting import page
from detmetrics.reporting.contents import contents
from detmetrics.reporting.runs import Settings, compute
from detmetrics.synth import make_boxes

SETTINGS = Settings(("range",), 1000, "scene", 0, 0.95, "official", None, 20)


def main() -> None:
    start = time.perf_counter()
    truth, pred = make_boxes(n_frames=6000, boxes_per_sample=200, seed=0)
    moved = pred.replace(center_m=pred.center_m + np.random.default_rng(0).normal(size=(len(pred), 3)) * [0.1, 0.1, 0])
    ledgers = [dm.match(truth, boxes, dm.NUSCENES) for boxes in (pred, moved)]
    for ledger in ledgers:
        ledger.truth.digest, ledger.pred.digest  # noqa: B018  hashes are computed once
    print(f"{ledgers[0]!r}, made in {time.perf_counter() - start:.0f} s", flush=True)

    class Clock:
        """Seconds by step."""

        def __init__(self) -> None:
            self.at, self.what, self.taken = time.perf_counter(), "scores, slices", dict[str, float]()

        def __call__(self, what: str, done: int, total: int) -> None:
            now = time.perf_counter()
            self.taken[self.what] = self.taken.get(self.what, 0.0) + now - self.at
            self.at, self.what = now, what

    for count in (1, 2):
        clock = Clock()
        runs = [compute(f"run {i}", ledger, SETTINGS, clock) for i, ledger in enumerate(ledgers[:count])]
        clock("contents and page", 0, 1)
        found: Any = contents(
            runs, SETTINGS, title="val", made="now", images=[{}] * len(runs), links=[{}] * len(runs), options={}
        )
        html = page.render(found)
        clock("", 0, 1)
        assert found["headline"][0]["composite"]["text"] == f"{dm.score(ledgers[0]).nds:.4f}"
        print(f"{count} run{'s' * (count > 1)}: {len(html.encode()) / 1e6:.2f} MB", flush=True)
        for what, seconds in clock.taken.items():
            print(f"  {what:45s} {seconds:6.2f} s", flush=True)
        opened(html)


def opened(html: str) -> None:
    """Time from navigation to all charts drawn, in the system's Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("  no chromium here")
        return
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        path.write_text(html)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        read = "[performance.getEntriesByName('first-contentful-paint')[0].startTime, performance.getEntriesByName('drawn')[0].startTime]"
        times = []
        for _ in range(9):
            tab = browser.new_page(viewport={"width": 1360, "height": 900})
            tab.goto(path.as_uri())
            tab.wait_for_selector("html[data-drawn=all]")
            times.append(tab.evaluate(read))
            tab.close()
        browser.close()
    for what, values in zip(("first paint", "all charts drawn"), zip(*times, strict=True), strict=True):
        median, least = statistics.median(values) / 1000, min(values) / 1000
        print(f"  opened, {what:37s} {median:6.2f} s (median of {len(times)}; best {least:.2f})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
