"""Freeze the lidar world: what version 1 makes of a seed, so that a change of it cannot pass unseen.

    python tests/frozen/make_world.py        # only together with a new synth.world.WORLD_VERSION

writes ``lidar_world.json``. Not a hash: the sine of one processor may differ from another's in the last bit, which moves
hardly a point; any change of the drawing moves thousands.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import detmetrics as dm
from detmetrics.io import clouds
from detmetrics.synth import write_world

PLAN = {"train_scenes": 3, "val_scenes": 3, "samples_per_scene": 3, "sweeps": 1}
SEED = 20
PATH = Path(__file__).parent / "lidar_world.json"


def summary(root: Path) -> dict[str, Any]:
    """What is in the world: per key frame points by ring and moments of the columns, per scene its boxes and words."""
    reader = clouds.NuscenesClouds(root)
    tables = {name: json.loads((root / "v1.0-synth" / f"{name}.json").read_text()) for name in ("scene", "sample")}
    world = json.loads((root / "v1.0-synth" / "world.json").read_text())
    scenes = {}
    for row in tables["scene"]:
        truth = dm.io.nuscenes.load_truth(root, scenes=[row["name"]], cache=False)
        frames = []
        for token in truth.frames:
            cloud = reader.read(token)
            seen = np.linalg.norm(cloud.points_m, axis=1) > 2.5
            columns = np.column_stack([cloud.points_m, cloud.intensity])[seen].astype(np.float64)
            frames.append(
                {
                    "points_by_ring": np.bincount(cloud.ring[seen], minlength=32).tolist(),
                    "mean": columns.mean(axis=0).round(4).tolist(),
                    "deviation": columns.std(axis=0).round(4).tolist(),
                }
            )
        order = np.lexsort((*truth.center_m.T, truth.frame))
        boxes = np.column_stack([truth.frame, truth.label, truth.center_m, truth.size_lwh_m, truth.yaw_rad])[order]
        scenes[row["name"]] = {
            "description": row["description"],
            "frames": frames,
            "boxes": boxes.round(4).tolist(),
            "points_in_boxes": truth.num_points[order].tolist(),
        }
    return {"world_version": world["plan"]["world_version"], "seed": SEED, "plan": PLAN, "scenes": scenes}


def make(folder: Path) -> dict[str, Any]:
    """Write the world and sum it up."""
    write_world(folder / "data", seed=SEED, workers=2, **PLAN)
    return summary(folder / "data")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        made = make(Path(folder))
    if PATH.exists() and json.loads(PATH.read_text())["world_version"] == made["world_version"]:
        sys.exit(f"{PATH.name} is already of world version {made['world_version']}; a changed world needs a new one")
    PATH.write_text(json.dumps(made, separators=(",", ":")) + "\n")
