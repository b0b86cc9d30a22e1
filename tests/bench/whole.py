"""Whole jobs at full size beside the official evaluator, in one run: `make bench`.

Makes (once) a set of nuScenes val's size, 150 scenes with 200 predictions a sample, and, with --trainval, tables of
trainval's size, in --work; then runs every job in fresh processes, asserts that the numbers agree within 1e-12, and
prints a table for results.md. The peer runs once (it takes minutes), ours five times: medians.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEER = ROOT / ".venv-parity" / "bin" / "python"


def run(python: str | Path, script: str, *arguments: object, **environment: str) -> dict[str, Any]:
    command = [str(python), str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def same(ours: dict[str, Any], official: dict[str, Any]) -> float:
    """Largest difference between two summaries."""
    worst = 0.0
    for key in ("label_aps", "label_tp_errors", "tp_errors", "tp_scores", "mean_dist_aps", "mean_ap", "nd_score"):
        worst = max(worst, _difference(ours[key], official[key]))
    return worst


def _difference(a: Any, b: Any) -> float:
    if isinstance(a, dict):
        return max(_difference(a[key], value) for key, value in ((str(k), v) for k, v in b.items()))
    a, b = (math.nan if x is None else float(x) for x in (a, b))
    return 0.0 if math.isnan(a) and math.isnan(b) else abs(a - b) if not math.isnan(a + b) else math.inf


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, default=ROOT / ".bench")
    parser.add_argument("--scenes", type=int, default=150, help="scenes of the val-sized set")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--trainval", action="store_true", help="also the tables of trainval's size (2.5 GB)")
    parser.add_argument("--no-peer", action="store_true", help="leave the official evaluator out (parity unchecked)")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(exist_ok=True)
    me = str(ROOT / ".venv" / "bin" / "detmetrics")

    root = work / f"val{options.scenes}"
    results = root / "results_synth_val.json"
    if not results.exists():
        size = ["--train-scenes", "1", "--val-scenes", str(options.scenes), "--boxes-per-sample", "200"]
        subprocess.run([me, "synth", str(root), "--boxes-only", *size], check=True)
    parquet = {name: work / f"{name}{options.scenes}.parquet" for name in ("truth", "pred")}
    if not parquet["pred"].exists():
        subprocess.run([me, "convert", "--data", root, "--split", "synth_val", parquet["truth"]], check=True)
        subprocess.run([me, "convert", results, parquet["pred"]], check=True)

    rows: list[tuple[str, float, float, float]] = []  # job, seconds, peak GB, ratio to the peer
    peer = None if options.no_peer else run(PEER, "peer.py", root, "v1.0-synth", "synth_val", results)
    if peer:
        rows.append(("devkit: matching and scoring", peer["score_s"], math.nan, 1))
        rows.append(("devkit: whole, from tables and JSON", peer["whole_s"], peer["peak_gb"], 1))

    def ours(title: str, job: str, *paths: object, against: str = "", **environment: str) -> None:
        runs = [run(sys.executable, "ours.py", job, *paths, **environment) for _ in range(options.runs)]
        seconds = [figure for one in runs for figure in one.get("times_s", [one["whole_s"]])]
        if peer and "summary" in runs[0]:
            worst = max(same(one["summary"], peer["summary"]) for one in runs)
            assert worst < 1e-12, f"{title}: differs by {worst}"
        median = statistics.median(seconds)
        ratio = peer[against] / median if peer and against else math.nan
        rows.append((title, median, max(one["peak_gb"] for one in runs), ratio))
        for key in ("truth_s", "read_s", "codes_s", "strings_s", "digest_s"):
            if key in runs[0]:
                rows.append((f"  of it: {key[:-2]}", statistics.median(one[key] for one in runs), math.nan, math.nan))

    ours("Boxes to Scores, warm", "warm", parquet["truth"], parquet["pred"], against="score_s")
    ours("tables and JSON to Scores", "json", root, "synth_val", results, against="whole_s")
    ours("Parquet to Scores", "parquet", parquet["truth"], parquet["pred"], against="whole_s")
    if options.trainval:
        big = work / "trainval"
        if not big.exists():
            size = ["--train-scenes", "700", "--val-scenes", "150", "--sensor-rows", "--no-predictions"]
            subprocess.run([me, "synth", str(big), "--boxes-only", *size], check=True)
        cache = {"XDG_CACHE_HOME": str(work / "cache")}
        ours("trainval's tables to val truth", "truth", big, "synth_val")
        run(sys.executable, "ours.py", "cached", big, "synth_val", **cache)
        ours("  the next time, from the cache", "cached", big, "synth_val", **cache)
    rows += command_line(me, options.runs)

    commit = "unknown, without git"
    if shutil.which("git"):
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True, cwd=ROOT).strip()
    print(f"\n{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"commit {commit}")
    print(f"val-sized set: {options.scenes} scenes, {results.stat().st_size / 1e6:.0f} MB of JSON\n")
    print("| job | seconds | peak GB | times the devkit |\n| --- | ---: | ---: | ---: |")
    for title, seconds, peak, ratio in rows:
        cells = [
            f"{value:.{digits}f}" if not math.isnan(value) else ""
            for value, digits in ((seconds, 3), (peak, 2), (ratio, 0))
        ]
        print(f"| {title} | {' | '.join(cells)} |")


def command_line(me: str, n_runs: int) -> list[tuple[str, float, float, float]]:
    """Real mini_val from the command line, kernels cached and never compiled."""
    data = ROOT.parent / "shared" / "data" / "nuscenes"
    if not data.exists():
        return []
    results = data / "results_pointpillars_mini" / "results_nusc.json"
    command = [me, "evaluate", str(results), "--data", str(data / "minival_tables"), "--no-cache"]

    def once(**environment: str) -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
        return time.perf_counter() - start

    once()
    warm = statistics.median(once() for _ in range(n_runs))
    cold = []
    for i in range(n_runs):
        folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"detmetrics-bench-{os.getpid()}-{i}"
        cold.append(once(NUMBA_CACHE_DIR=str(folder)))
    return [
        ("mini_val from the command line, kernels cached", warm, math.nan, math.nan),
        ("mini_val from the command line, never compiled", statistics.median(cold), math.nan, math.nan),
    ]


if __name__ == "__main__":
    main()
