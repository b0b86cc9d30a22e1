"""One job of detmetrics in a fresh process, timed; prints one JSON line.

Usage: ours.py json|parquet|truth|cached|warm PATHS…
"""

from __future__ import annotations

import json
import resource
import sys
import time


def main() -> None:
    start = time.perf_counter()
    job, *paths = sys.argv[1:]
    import detmetrics as dm

    figures: dict[str, object] = {}
    if job == "json":
        root, split, results = paths
        truth = dm.io.nuscenes.load_truth(root, split=split, cache=False)
        figures["truth_s"] = time.perf_counter() - start
        pred = dm.io.nuscenes.load_results(results)
        figures["read_s"] = time.perf_counter() - start
        figures["summary"] = dm.evaluate(truth, pred, dm.NUSCENES).to_summary()
    elif job == "parquet":
        truth_path, results = paths
        truth, pred = dm.io.parquet.read(truth_path), dm.io.parquet.read(results)
        figures["read_s"] = time.perf_counter() - start
        figures["summary"] = dm.evaluate(truth, pred, dm.NUSCENES).to_summary()
    elif job in ("truth", "cached"):
        root, split = paths
        truth = dm.io.nuscenes.load_truth(root, split=split, cache=job == "cached")
        figures["boxes"] = len(truth)
    elif job == "warm":
        truth_path, results = paths
        truth, pred = dm.io.parquet.read(truth_path), dm.io.parquet.read(results)
        dm.evaluate(truth, pred, dm.NUSCENES)
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            scores = dm.evaluate(truth, pred, dm.NUSCENES)
            times.append(time.perf_counter() - begin)
        figures |= {"times_s": times, "summary": scores.to_summary(), **_building(pred)}
    figures["whole_s"] = time.perf_counter() - start
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    figures["peak_gb"] = (own + children) / 1e6
    print(json.dumps(figures))


def _building(pred: object) -> dict[str, float]:
    """Seconds to build Boxes from codes and from strings, and to hash them."""
    import detmetrics as dm

    assert isinstance(pred, dm.Boxes)
    names = list(pred.labels or ())
    columns = {
        "center_m": pred.center_m,
        "size_lwh_m": pred.size_lwh_m,
        "yaw_rad": pred.yaw_rad,
        "score": pred.score,
        "velocity_mps": pred.velocity_mps,
    }
    strings = {
        "label": [names[code] for code in pred.label],
        "frame": pred.frame_names(pred.place * 0 + range(len(pred))),
    }
    begin = time.perf_counter()
    built = dm.Boxes(**columns, label=pred.label, labels=names, frame=pred.frame, frames=pred.frames)
    codes = time.perf_counter()
    dm.Boxes(**columns, **strings)
    text = time.perf_counter()
    built.digest  # noqa: B018
    return {"codes_s": codes - begin, "strings_s": text - codes, "digest_s": time.perf_counter() - text}


if __name__ == "__main__":
    main()
