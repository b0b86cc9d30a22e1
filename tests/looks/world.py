"""Does the lidar world look like the real one? Pictures and figures beside one real nuScenes frame.

    python tests/looks/world.py OUT_FOLDER [--scenes 6] [--seed 0] [--boxes]

writes ``world_*.png`` (from above, and in perspective from behind the car) for the first frames of ``--scenes`` scenes and,
where the real frame lies beside the checkout, ``real.png``. Pictures of the real frame are for looking at, never for
publishing or committing. Then it prints the comparison, here for world version 1, seed 0, ten scenes (1 in rain):

    figure                                     the real frame                   the world, mean of ten
    points a frame beyond 2.5 m                26162                            25131
    elevation of rings 12 to 31, step          -14.72° to 10.66°, 1.336°        -14.67° to 10.67°, 1.333°
    no return; own roof, bonnet and boot       21.2 %, 3.4 %                    19.5 %, 8.0 %
    returns of rings 0 10 20 25 31             18 97 88 71 58 %                 18 97 93 67 52 %
    range at 25 50 75 95 99 %, m               5.8 9.4 18.8 45.2 70.7           5.3 8.7 15.6 41.2 70.3
    share near the ground                      63 %                             59 %
    intensity 0 1 2- 4- 8- 16- 32- 64- 128-    0.1 1.1 6.6 24 29 22 13 3.9 0.2  0.1 0.7 7.1 27 27 23 13 2.4 0.3
    boxes, ten classes and ignored             69                               34
    points, boxes of cars at 25-40-60 m        9 (2), 5 (1)                     17 (3.2), 6 (3.2)
    of pedestrians at 0-15-25-40-60 m          8 8 5 2                          34 8 4 1
    of barriers and cones at 0-15-25-40-60 m   26 6 2 1                         36 7 3 2

Annotated with at least one point, a sample, mean of 200 training scenes of seed 78, beside what nuScenes publishes for
all its samples: cars 14.0 (14.4), adults 6.2 (6.1), barriers 4.6 (4.5), cones 3.1 (2.9), trucks 2.5 (2.6), trailers 0.78
(0.73), rigid buses 0.55 (0.42), construction vehicles 0.49 (0.43), motorcycles 0.36 (0.37), bicycles 0.31 (0.35), racks 0.20
(0.08), animals 0.016 (0.023); all 34.6 (34.1).

One real frame is one place: it says what the sensor does (rings, drop-outs, intensity), not what a mean street holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from detmetrics.geometry import Pose, points_in_boxes, rotation_of_yaw, yaw_of_rotation
from detmetrics.io.clouds import read_nuscenes
from detmetrics.synth import lidar, places
from detmetrics.synth.categories import CLASS_OF_KIND, CLASSES

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "nuscenes" / "frame_ca9a282c"


class Frame:
    """Points (N, 5) in the sensor's frame, boxes (B, 7) in it, class numbers, points in each box."""

    def __init__(self, points: np.ndarray, boxes: np.ndarray, label: np.ndarray) -> None:
        self.points, self.boxes, self.label = points, boxes, label
        box, _ = points_in_boxes(points[:, :3], boxes[:, :3], boxes[:, 3:6], rotation_of_yaw(boxes[:, 6]))
        self.count = np.bincount(box, minlength=len(boxes))
        self.range_m = np.linalg.norm(points[:, :3], axis=1)


def real_frame() -> Frame | None:
    if not REAL.is_dir():
        return None
    cloud = read_nuscenes(next(REAL.glob("*.pcd.bin")))
    points = np.column_stack([cloud.points_m, cloud.intensity, cloud.ring])
    content = json.loads(next(REAL.glob("*.json")).read_text())
    info = content["data_list"][0]["instances"]
    names = {code: name for name, code in content["metainfo"]["categories"].items()}
    label = [CLASSES.index(names[row["bbox_label_3d"]]) if row["bbox_label_3d"] in names else -1 for row in info]
    return Frame(points, np.array([row["bbox_3d"] for row in info]), np.array(label))


def world_frame(seed: int, number: int, sample: int = 6) -> tuple[Frame, str]:
    scene, place = places.make_place_scene(seed, "synth_train", number, "scene-0001", sample + 1)
    clouds: list[np.ndarray] = []
    scene = places.record(
        scene, place, [(int(scene.timestamp_us[k]), k) for k in (sample,)], lambda _, points: clouds.append(points)
    )
    where, turned = scene.drive.ego_pose(scene.seconds(scene.timestamp_us[sample : sample + 1]))
    pose = Pose.of_quaternion(turned[0], where[0]).after(
        Pose.of_quaternion(rotation_of_yaw([np.radians(-90)])[0], lidar.LIDAR_M)
    )
    back = pose.inverse()
    yaw = yaw_of_rotation(scene.boxes.rotation_wxyz)
    local = yaw - yaw_of_rotation(turned)[0] + np.pi / 2
    boxes = np.column_stack([back.apply(scene.boxes.center_m), scene.boxes.size_lwh_m, local])
    return Frame(clouds[0].astype(np.float64), boxes, CLASS_OF_KIND[scene.boxes.kind]), scene.description


# ------------------------------------------------------------------------------------------------ pictures


def corners(box: np.ndarray) -> np.ndarray:
    x, y, z, length, width, height, yaw = box
    sign = np.array([(a, b, c) for c in (-1, 1) for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))]) / 2
    local = sign * (length, width, height)
    cos, sin = np.cos(yaw), np.sin(yaw)
    return local @ np.array([(cos, sin, 0), (-sin, cos, 0), (0, 0, 1)]) + (x, y, z)


def colours(intensity: np.ndarray) -> np.ndarray:
    """Dark blue to yellow by the logarithm of the intensity."""
    t = np.clip(np.log1p(intensity) / np.log(150), 0, 1)[:, None]
    low, middle, high = np.array([40, 60, 160]), np.array([60, 190, 160]), np.array([255, 235, 80])
    return np.where(t < 0.5, low + (middle - low) * 2 * t, middle + (high - middle) * (2 * t - 1)).astype(np.uint8)


def above(frame: Frame, boxes: bool, reach_m: float = 50, size: int = 900) -> Image.Image:
    canvas = np.full((size, size, 3), 12, np.uint8)
    scale = size / (2 * reach_m)
    p = frame.points[frame.range_m > 2.5]
    at = np.stack([size / 2 - p[:, 1] * scale, size / 2 + p[:, 0] * scale], axis=-1).astype(int)
    inside = ((at >= 0) & (at < size - 1)).all(axis=1)
    colour = colours(p[inside, 3])
    for dy, dx in ((0, 0), (0, 1), (1, 0)):
        canvas[at[inside, 0] + dy, at[inside, 1] + dx] = colour
    image = Image.fromarray(canvas)
    if boxes:
        draw = ImageDraw.Draw(image)
        for box in frame.boxes:
            c = corners(box)[:4]
            draw.polygon([(size / 2 + q[0] * scale, size / 2 - q[1] * scale) for q in c], outline=(255, 90, 60))
    return image


def perspective(frame: Frame, boxes: bool, width: int = 1300, height: int = 620) -> Image.Image:
    """From nine metres behind and five over the sensor, looking ahead and down."""
    eye, pitch, focal = np.array([0.0, -9.0, 5.0]), 0.24, 640.0

    def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q = points - eye
        depth = q[:, 1] * np.cos(pitch) - q[:, 2] * np.sin(pitch)
        up = q[:, 1] * np.sin(pitch) + q[:, 2] * np.cos(pitch)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([width / 2 + focal * q[:, 0] / depth, height * 0.42 - focal * up / depth], axis=-1), depth

    canvas = np.full((height, width, 3), 12, np.uint8)
    p = frame.points[frame.range_m > 2.5]
    at, depth = project(p[:, :3])
    order = np.argsort(-depth)
    at, depth, colour = at[order], depth[order], colours(p[order, 3])
    near = (depth > 1) & (at >= 0).all(axis=1) & (at < (width - 3, height - 3)).all(axis=1)
    at = at[near].astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            canvas[at[:, 1] + dy, at[:, 0] + dx] = colour[near]
    image = Image.fromarray(canvas)
    if boxes:
        draw = ImageDraw.Draw(image)
        for box in frame.boxes:
            c, d = project(corners(box))
            if d.min() > 2:
                for a, b in [
                    (0, 1),
                    (1, 2),
                    (2, 3),
                    (3, 0),
                    (4, 5),
                    (5, 6),
                    (6, 7),
                    (7, 4),
                    (0, 4),
                    (1, 5),
                    (2, 6),
                    (3, 7),
                ]:
                    draw.line([tuple(c[a]), tuple(c[b])], fill=(255, 90, 60))
    return image


def picture(frame: Frame, boxes: bool) -> Image.Image:
    top, side = above(frame, boxes), perspective(frame, boxes)
    whole = Image.new("RGB", (top.width + side.width, max(top.height, side.height)), (12, 12, 12))
    whole.paste(top, (0, 0))
    whole.paste(side, (top.width, 0))
    return whole


# ------------------------------------------------------------------------------------------------- figures


def shares(frames: list[Frame]) -> dict[str, Any]:
    """What the sensor makes of a place: points a frame, elevations of the rings, share near the ground, intensities."""
    points = np.concatenate([frame.points for frame in frames])
    range_m = np.concatenate([frame.range_m for frame in frames])
    p, r = points[range_m > 2.5], range_m[range_m > 2.5]
    elevation = np.degrees(np.arcsin(p[:, 2] / r))
    bins = [0, 1, 2, 4, 8, 16, 32, 64, 128, 257]
    return {
        "points": len(p) / len(frames),
        "rings_deg": np.array([np.median(elevation[(p[:, 4] == k) & (r > 3)]) for k in range(32)]),
        "ground": ((p[:, 2] > -2.4) & (p[:, 2] < -1.3) & (r < 40)).mean(),
        "intensity": np.histogram(p[:, 3], bins)[0] / len(p),
        "range_m": np.percentile(r, [25, 50, 75, 95, 99]),
        "no return, own car": np.histogram(range_m, [0, 0.85, 2.5])[0] / len(points),
        "returns": np.array([(range_m[points[:, 4] == k] > 2.5).mean() for k in (0, 10, 20, 25, 31)]),
    }


def figures(frames: list[Frame]) -> dict[str, str]:
    """Figures of frames taken together, in words."""
    share = shares(frames)
    boxes = np.concatenate([frame.boxes for frame in frames])
    count = np.concatenate([frame.count for frame in frames])
    label = np.concatenate([frame.label for frame in frames])
    distance = np.hypot(boxes[:, 0], boxes[:, 1])

    def per_distance(*names: str) -> str:
        mine = np.isin(label, [CLASSES.index(name) for name in names])
        bins = [(0, 15), (15, 25), (25, 40), (40, 60)]
        cells = [count[mine & (distance >= a) & (distance < b)] for a, b in bins]
        return " ".join(f"{np.median(c):.0f} ({len(c) / len(frames):.1f})" if len(c) else "-" for c in cells)

    def percent(values: Any) -> str:
        return " ".join(f"{100 * value:.1f}" for value in np.atleast_1d(values)) + " %"

    ring = share["rings_deg"][12:]
    return {
        "points a frame beyond 2.5 m": f"{share['points']:.0f}",
        "elevation of rings 12 to 31, step": f"{ring[0]:.2f} to {ring[-1]:.2f}, {np.diff(ring).mean():.3f}",
        "no return; own roof, bonnet and boot": percent(share["no return, own car"]),
        "returns of rings 0 10 20 25 31": percent(share["returns"]),
        "range at 25 50 75 95 99 %, m": " ".join(f"{value:.1f}" for value in share["range_m"]),
        "share near the ground": percent(share["ground"]),
        "intensity 0 1 2- 4- 8- 16- 32- 64- 128-": percent(share["intensity"]),
        "boxes": f"{len(boxes) / len(frames):.0f}",
        "points (boxes) of cars at 0-15-25-40-60 m": per_distance("car"),
        "of trucks, buses, trailers, machines": per_distance("truck", "bus", "trailer", "construction_vehicle"),
        "of pedestrians": per_distance("pedestrian"),
        "of barriers and cones": per_distance("barrier", "traffic_cone"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Look at the lidar world beside a real frame.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--boxes", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(options.scenes):
        frame, description = world_frame(options.seed, number)
        made.append(frame)
        picture(frame, options.boxes).save(options.out / f"world_{number}.png")
        print(f"world_{number}.png: {description}")
    real = real_frame()
    columns = [("world", figures(made))]
    if real is None:
        print(f"no real frame: {REAL} is absent", file=sys.stderr)
    else:
        picture(real, options.boxes).save(options.out / "real.png")
        columns.insert(0, ("real", figures([real])))
    for key in columns[0][1]:
        print(f"{key}")
        for name, values in columns:
            print(f"    {name:6} {values[key]}")


if __name__ == "__main__":
    main()
