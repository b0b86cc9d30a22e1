"""What a question to a val-sized ledger costs, after one matching: slices, intervals, comparison.

``python tests/bench/questions.py`` after ``tests/bench/whole.py``, whose Parquet files it reads. Asserts that slices equal
scores under weights and that intervals have the same bits for any number of threads before it quotes a time.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import detmetrics as dm

FOLDER = Path(".bench")


def seconds(run: Callable[[], Any], times: int = 5) -> float:
    run()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    if not (FOLDER / "truth150.parquet").exists():
        sys.exit("run tests/bench/whole.py first: it makes the data")
    truth = dm.io.parquet.read(FOLDER / "truth150.parquet")
    pred = dm.io.parquet.read(FOLDER / "pred150.parquet")
    ledger = dm.match(truth, pred, dm.NUSCENES)
    rng = np.random.default_rng(0)
    moved = pred.replace(center_m=pred.center_m + rng.normal(size=(len(pred), 3)) * [0.1, 0.1, 0])
    other = dm.match(truth, moved, dm.NUSCENES)
    print(f"{ledger!r}, {len(pred):,} predictions in all, {peak_gb():.2f} GB so far", flush=True)

    for by in ("range=0,10,20,30,40", "visibility"):  # parity first
        slices = dm.slices(ledger, by, absent="official")
        for name, scores in slices:
            same = dm.score(ledger, slices.weights(name))
            assert np.array_equal(same.ap, scores.ap)
            assert np.array_equal(same.class_errors, scores.class_errors, equal_nan=True)
    one, two = (dm.bootstrap(ledger, n=20, threads=threads) for threads in (1, 3))
    assert one.replicates.tobytes() == two.replicates.tobytes()

    once = seconds(lambda: dm.score(ledger))
    print(f"score                      {once * 1e3:7.1f} ms", flush=True)
    ten = "range=0,5,10,15,20,25,30,35,40,45,50"
    for by in (
        ten,
        "class",
        "attribute",
        "visibility",
        "points=1,2,4,8,16,32,64,128,256",
        "weather+range=0,10,20,30,40,50",
    ):
        taken, n = seconds(lambda by=by: dm.slices(ledger, by)), len(dm.slices(ledger, by))
        print(f"{n:3d} slices by {by:40s} {taken * 1e3:7.1f} ms, {taken / once:.1f} scorings", flush=True)
    before = peak_gb()
    for threads in (1, 2):
        start = time.perf_counter()
        boot = dm.bootstrap(ledger, n=1000, threads=threads)
        taken = time.perf_counter() - start
        print(
            f"bootstrap, 1000 draws, {threads} threads: {taken:.1f} s; memory {before:.2f} -> {peak_gb():.2f} GB",
            flush=True,
        )
    print(f"  {boot!r}")
    start = time.perf_counter()
    found = dm.compare(ledger, other, n=1000)
    print(f"compare, 1000 draws: {time.perf_counter() - start:.1f} s; {found!r}; {peak_gb():.2f} GB", flush=True)
    start = time.perf_counter()
    dm.bootstrap(ledger, n=1000, by="range=0,20,40")
    print(f"bootstrap by range, 1000 draws: {time.perf_counter() - start:.1f} s; {peak_gb():.2f} GB", flush=True)
    start = time.perf_counter()
    ledger.save(FOLDER / "a.ledger")
    saved = time.perf_counter()
    dm.Ledger.load(FOLDER / "a.ledger")
    size = (FOLDER / "a.ledger").stat().st_size / 1e6
    print(f"save {saved - start:.2f} s, load {time.perf_counter() - saved:.2f} s, {size:.0f} MB")


if __name__ == "__main__":
    main()
