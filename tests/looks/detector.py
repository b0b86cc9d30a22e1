"""What does the bundled detector see? Pictures from above: held-out synthetic scenes, and the one real frame.

    python tests/looks/detector.py OUT_FOLDER [--data WORLD --split synth_val] [--checkpoint FILE] [--score 0.3]

writes ``real.png`` where the real frame lies beside the checkout, and ``world_*.png`` for a few samples of a data set:
truth in green, boxes of a score of at least ``--score`` in orange (darker: surer), both with a stroke ahead. Pictures of
the real frame are for looking at, never for publishing or committing.

The real frame is one cloud without the sweeps before it, of a sensor, a town and things that the detector has never
seen; what it makes of it is in the model card, without excuses.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from detmetrics.detector import checkpoint, decoding
from detmetrics.detector.config import CLASSES
from detmetrics.detector.pillars import pillars
from detmetrics.detector.samples import OWN_CAR_M, Samples
from detmetrics.geometry import ground_corners
from detmetrics.io.clouds import join, read_nuscenes

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "nuscenes" / "frame_ca9a282c"


def find(model: Any, points: np.ndarray) -> Any:
    own = pillars(points, model.config)
    with torch.inference_mode():
        heat, images = model(*(torch.from_numpy(column) for column in own), 1)
        return decoding.decode(model, heat, images)[0]


def draw(path: Path, points: np.ndarray, truth: Any, found: Any, least: float, title: str) -> None:
    figure, axes = plt.subplots(figsize=(11, 11), dpi=110)
    axes.scatter(points[:, 0], points[:, 1], s=0.15, c="#888", linewidths=0)
    for center, size, yaw, colour, label, alpha in [
        *((c, s, y, "#009e73", n, 1.0) for c, s, y, n in truth),
        *(
            (
                found.center_m[i],
                found.size_lwh_m[i],
                found.yaw_rad[i],
                "#d55e00",
                CLASSES[found.label[i]],
                found.score[i],
            )
            for i in np.flatnonzero(found.score >= least)
        ),
    ]:
        corners = ground_corners([center], [size], [yaw])[0]
        axes.plot(*np.vstack([corners, corners[:1]]).T, color=colour, lw=1.2, alpha=0.3 + 0.7 * alpha)
        ahead = center[:2] + np.array([np.cos(yaw), np.sin(yaw)]) * (size[0] / 2 + 1)
        axes.plot([center[0], ahead[0]], [center[1], ahead[1]], color=colour, lw=1)
        axes.text(*corners[0 if colour == "#d55e00" else 2], label[:5], fontsize=5, color=colour, clip_on=True)
    axes.set(xlim=(-52, 52), ylim=(-52, 52), aspect="equal", title=title)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def real(model: Any, out: Path, least: float) -> None:
    cloud = join([read_nuscenes(next(REAL.glob("*.pcd.bin")))], drop_close_m=OWN_CAR_M)
    points = np.column_stack([cloud.points_m, cloud.intensity / 255, cloud.time_s]).astype(np.float32)
    info = json.loads(next(REAL.glob("*.json")).read_text())
    name_of = {code: name for name, code in info["metainfo"]["categories"].items()}
    rows = [row for row in info["data_list"][0]["instances"] if row["bbox_label_3d"] >= 0 and row["num_lidar_pts"] > 0]
    truth = [
        (np.array(r["bbox_3d"][:3]), r["bbox_3d"][3:6], r["bbox_3d"][6], name_of[r["bbox_label_3d"]]) for r in rows
    ]
    truth = [row for row in truth if np.abs(row[0][:2]).max() < 51.2]
    found = find(model, points)
    draw(out / "real.png", points, truth, found, least, "the real frame: truth green, found orange")
    print(f"real frame, one cloud, score at least {least}, within 2 m and of the class:")
    for name in CLASSES:
        wanted = [row for row in truth if row[3] == name]
        mine = np.flatnonzero((found.score >= least) & (found.label == CLASSES.index(name)))
        free, hits = list(mine), 0
        for row in wanted:
            near = [i for i in free if np.hypot(*(found.center_m[i, :2] - row[0][:2])) < 2]
            if near:
                free.remove(near[0])
                hits += 1
        if wanted or len(mine):
            print(f"  {name:<22} found {hits} of {len(wanted)}, false {len(free)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="synth_val")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--score", type=float, default=0.3)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model, _ = checkpoint.load_model(given.checkpoint)
    if REAL.exists():
        real(model, given.out, given.score)
    if given.data:
        samples = Samples(given.data, given.split, model.config)
        for number in np.linspace(0, len(samples) - 1, 5).astype(int).tolist():
            sample = samples.read(number)
            own = sample.objects.take(~sample.objects.is_ignored)
            truth = list(zip(own.center_m, own.size_lwh_m, own.yaw_rad, [CLASSES[c] for c in own.label], strict=True))
            found = find(model, sample.points)
            draw(given.out / f"world_{number}.png", sample.points, truth, found, given.score, f"sample {number}")


if __name__ == "__main__":
    main()
