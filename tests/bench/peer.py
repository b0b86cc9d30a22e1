"""The official evaluator as users run it, timed: nuscenes-devkit's NuScenes and DetectionEval. Runs in .venv-parity.

Usage: peer.py DATAROOT VERSION SPLIT RESULTS [OUT]     prints one JSON line; OUT gets metrics_summary.json
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time


def main() -> None:
    dataroot, version, split, results = sys.argv[1:5]
    start = time.perf_counter()
    from nuscenes import NuScenes
    from nuscenes.eval.detection.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    nusc = NuScenes(version=version, dataroot=dataroot, verbose=False)
    loaded = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = DetectionEval(
            nusc, config_factory("detection_cvpr_2019"), results, eval_set=split, output_dir=folder, verbose=False
        )
        read = time.perf_counter()
        metrics, _ = run.evaluate()
        done = time.perf_counter()
    print(
        json.dumps(
            {
                "tables_s": loaded - start,
                "results_s": read - loaded,
                "score_s": done - read,
                "whole_s": done - start,
                "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
                "summary": metrics.serialize(),
            }
        )
    )


if __name__ == "__main__":
    main()
