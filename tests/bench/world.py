"""How fast is a lidar world written, files included: ``python tests/bench/world.py [--scenes 4] [--sweeps 9] [--workers 2]``.

Prints clouds a second of wall time and of processor time, and the peak memory; the data set goes to a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from detmetrics.synth import write_world


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the lidar world.")
    for name, default in (("scenes", 4), ("sweeps", 9), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder) / "warm", train_scenes=1, val_scenes=0, samples_per_scene=1, sweeps=0)
        wall, cpu = time.perf_counter(), time.process_time()
        made = write_world(
            Path(folder) / "world",
            train_scenes=options.scenes,
            val_scenes=0,
            seed=1,
            sweeps=options.sweeps,
            workers=options.workers,
        )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{options.scenes} scenes, {made.n_clouds} clouds, {options.workers} threads: {wall:.1f} s, "
        f"{made.n_clouds / wall:.0f} clouds a second; {cpu:.1f} s of processor, {made.n_clouds / cpu:.0f} clouds a "
        f"second of it; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
