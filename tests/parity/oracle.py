"""The official nuScenes evaluator as a function of Boxes (environment ``.venv-parity``: nuscenes-devkit 1.2.0).

:func:`in_memory` hands boxes to the devkit's own filter, accumulate, calc_ap and calc_tp without any file;
:func:`through_files` writes real tables and a result file and goes through ``NuScenes`` and ``DetectionEval`` from end
to end. Nothing here computes a metric.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes
from nuscenes.eval.detection import algo
from nuscenes.eval.detection.constants import DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes

from detmetrics.boxes import Boxes

DEVKIT = "1.2.0"


@dataclass
class Official:
    """What the devkit gives.

    ``summary`` and ``details`` have the layout of ``metrics_summary.json`` and ``metrics_details.json``; ``matches``
    holds the rows (prediction, truth) of each class and threshold in the order of matching.
    """

    summary: dict[str, Any]
    details: dict[str, dict[str, list[float]]]
    matches: dict[tuple[str, float], list[tuple[int, int]]] = field(default_factory=dict)


class FakeNuScenes:
    """As much of a ``NuScenes`` as the filters ask for: poses, and the bicycle racks of a sample."""

    def __init__(self, truth: Boxes) -> None:
        self.tables: dict[str, dict[str, Any]] = {
            "sample": {},
            "sample_data": {},
            "ego_pose": {},
            "sample_annotation": {},
        }
        for code, name in enumerate(truth.frames):
            x, y = truth.ego_xy_m[code].tolist()
            rows = range(int(truth.offsets[code]), int(truth.offsets[code + 1]))
            self.tables["sample"][name] = {"data": {"LIDAR_TOP": name}, "anns": [f"ann-{row}" for row in rows]}
            self.tables["sample_data"][name] = {"ego_pose_token": name}
            self.tables["ego_pose"][name] = {"translation": [x, y, 0.0]}
            for row in rows:
                self.tables["sample_annotation"][f"ann-{row}"] = {
                    "category_name": category_of(truth, row),
                    "translation": truth.center_m[row].tolist(),
                    "size": truth.size_lwh_m[row][[1, 0, 2]].tolist(),
                    "rotation": rotation_of(truth, row),
                }

    def get(self, table: str, token: str) -> Any:
        """Give a row of a table."""
        return self.tables[table][token]


def category_of(boxes: Boxes, row: int) -> str:
    """Name of the category or class of a row."""
    assert boxes.labels is not None
    return boxes.labels[boxes.label[row]]


def rotation_of(boxes: Boxes, row: int) -> list[float]:
    """Quaternion of a row."""
    if boxes.rotation_wxyz is not None:
        return [float(q) for q in boxes.rotation_wxyz[row]]
    half = float(boxes.yaw_rad[row]) / 2
    return [math.cos(half), 0.0, 0.0, math.sin(half)]


def detection_box(boxes: Boxes, row: int, name: str, score: float, kind: Any = DetectionBox) -> Any:
    """One box of a devkit, which remembers its row."""
    points = None if boxes.num_points is None else boxes.num_points[row]
    box = kind(
        sample_token=boxes.frames[boxes.frame[row]],
        translation=tuple(boxes.center_m[row].tolist()),
        size=tuple(boxes.size_lwh_m[row][[1, 0, 2]].tolist()),
        rotation=tuple(rotation_of(boxes, row)),
        velocity=(math.nan, math.nan) if boxes.velocity_mps is None else tuple(boxes.velocity_mps[row].tolist()),
        num_pts=-1 if points is None or math.isnan(points) else int(points),
        detection_name=name,
        detection_score=score,
        attribute_name="" if boxes.attribute is None else boxes.attributes[boxes.attribute[row]],
    )
    box.row = row
    return box


def frame_rows(boxes: Boxes, name: str) -> range:
    """Rows of a frame in the order of the file."""
    code = boxes.frame_index[name]
    rows = range(int(boxes.offsets[code]), int(boxes.offsets[code + 1]))
    assert np.all(np.diff(boxes.place[rows.start : rows.stop]) > 0)
    return rows


def in_memory(truth: Boxes, pred: Boxes) -> Official:
    """Evaluate without files.

    Where truth is partial (a custom split) predictions are read in the order of the truth's frames and those of other
    frames are left out, as the devkit does; else in the order of the predictions' frames.
    """
    gt_boxes, pred_boxes = EvalBoxes(), EvalBoxes()
    for name in truth.frames:
        boxes = []
        for row in frame_rows(truth, name):
            category = category_of(truth, row)
            label = category if category in DETECTION_NAMES else category_to_detection_name(category)
            if label is not None:
                boxes.append(detection_box(truth, row, label, -1.0))
        gt_boxes.add_boxes(name, boxes)
    for name in truth.frames if truth.partial else pred.frames:
        rows = frame_rows(pred, name) if name in pred.frame_index else range(0)
        pred_boxes.add_boxes(
            name, [detection_box(pred, row, category_of(pred, row), float(pred.score[row])) for row in rows]
        )
    assert set(pred_boxes.sample_tokens) == set(gt_boxes.sample_tokens)
    nusc = FakeNuScenes(truth)
    cfg = config_factory("detection_cvpr_2019")
    boxes_of: list[EvalBoxes] = []
    for boxes in (pred_boxes, gt_boxes):
        boxes = add_center_dist(nusc, boxes)
        if boxes.all:  # the devkit raises on none at all (S20); filtering nothing is nothing
            boxes = filter_eval_boxes(nusc, boxes, cfg.class_range)
        boxes_of.append(boxes)
    # the devkit's own evaluate(), on an instance that has not read files
    evaluation = DetectionEval.__new__(DetectionEval)
    evaluation.cfg, evaluation.verbose = cfg, False
    evaluation.pred_boxes, evaluation.gt_boxes = boxes_of
    with recorded_matches() as matches:
        metrics, details = evaluation.evaluate()
    return Official(as_json(metrics.serialize()), as_json(details.serialize()), matches)


@contextmanager
def recorded_matches() -> Iterator[dict[tuple[str, float], list[tuple[int, int]]]]:
    """Listen in: the devkit measures every match, and only matches, with ``algo.center_distance``."""
    matches: dict[tuple[str, float], list[tuple[int, int]]] = {}
    now: list[tuple[int, int]] = []
    distance, accumulate = algo.center_distance, algo.accumulate
    import nuscenes.eval.detection.evaluate as module

    def listening(gt_box: DetectionBox, pred_box: DetectionBox) -> float:
        now.append((pred_box.row, gt_box.row))
        return distance(gt_box, pred_box)

    def noting(gt_boxes: Any, pred_boxes: Any, class_name: str, dist_fcn: Any, dist_th: float) -> Any:
        now.clear()
        data = accumulate(gt_boxes, pred_boxes, class_name, dist_fcn, dist_th)
        matches[class_name, dist_th] = list(now)
        return data

    algo.center_distance, module.accumulate = listening, noting
    try:
        yield matches
    finally:
        algo.center_distance, module.accumulate = distance, accumulate


def as_json(value: Any) -> Any:
    """Plain values as they stand in the official files: keys are strings, numbers are floats."""
    return json.loads(json.dumps(value, default=lambda v: v.tolist()))


# the way through files

SCENES = ("scene-0103", "scene-0916")  # mini_val
OTHER_SCENE = "scene-0061"  # mini_train: the neighbours that give velocities live here


def write_tables(
    root: Path,
    truth: Boxes,
    *,
    split: str = "mini_val",
    version: str = "v1.0-mini",
    seed: int = 0,
    scenes: tuple[str, str] = SCENES,
    other_scene: str = OTHER_SCENE,
    channel: str = "LIDAR_TOP",
    descriptions: tuple[str, str] = ("", ""),
) -> None:
    """Write truth as nuScenes tables.

    Frames are shared out among the scenes of mini_val; a split of another name gets a ``splits.json``. Velocities are
    not a column of the tables but come from neighbours in time, which are put into a scene of another split: a random
    mix of boxes with a previous one, a next one, both, neither, and gaps at and beyond the limit. So the velocities of
    ``truth`` count only as known or unknown; read the truth back for their values.
    """
    rng = np.random.default_rng(seed)
    folder = root / version
    folder.mkdir(parents=True)
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("attribute", "category", "instance", "log", "map", "visibility", "ego_pose")
    }
    tables |= {name: [] for name in ("sample", "sample_data", "sample_annotation", "scene", "sensor")}
    names = (*scenes, other_scene)
    tables["sensor"] = [{"token": "lidar", "channel": channel, "modality": "lidar"}]
    tables["calibrated_sensor"] = [
        {
            "token": "calibrated",
            "sensor_token": "lidar",
            "translation": [0.0, 0.0, 1.8],
            "rotation": [1.0, 0.0, 0.0, 0.0],
            "camera_intrinsic": [],
        }
    ]
    assert truth.labels is not None
    tables["category"] = [{"token": f"category-{i}", "name": n, "description": ""} for i, n in enumerate(truth.labels)]
    tables["attribute"] = [
        {"token": f"attribute-{i}", "name": n, "description": ""} for i, n in enumerate(truth.attributes) if n
    ]

    def add_sample(token: str, scene: str, timestamp: int, xy: list[float]) -> None:
        tables["sample"].append(
            {"token": token, "timestamp": timestamp, "prev": "", "next": "", "scene_token": f"scene-token-{scene}"}
        )
        tables["ego_pose"].append(
            {
                "token": f"pose-{token}",
                "timestamp": timestamp,
                "rotation": [1.0, 0.0, 0.0, 0.0],
                "translation": [*xy, 0.0],
            }
        )
        tables["sample_data"].append(
            {
                "token": f"data-{token}",
                "sample_token": token,
                "ego_pose_token": f"pose-{token}",
                "calibrated_sensor_token": "calibrated",
                "timestamp": timestamp,
                "fileformat": "pcd",
                "is_key_frame": True,
                "height": 0,
                "width": 0,
                "filename": f"samples/{channel}/{token}.pcd.bin",
                "prev": "",
                "next": "",
            }
        )

    def add_annotation(token: str, row: int, sample: str, center: list[float]) -> dict[str, Any]:
        attribute = 0 if truth.attribute is None else int(truth.attribute[row])
        named = bool(truth.attributes) and bool(truth.attributes[attribute])
        points = 1 if truth.num_points is None else int(truth.num_points[row])
        entry = {
            "token": token,
            "sample_token": sample,
            "instance_token": f"instance-{row}",
            "visibility_token": "",
            "attribute_tokens": [f"attribute-{attribute}"] if named else [],
            "translation": center,
            "size": truth.size_lwh_m[row][[1, 0, 2]].tolist(),
            "rotation": rotation_of(truth, row),
            "prev": "",
            "next": "",
            "num_lidar_pts": points // 2,
            "num_radar_pts": points - points // 2,
        }
        tables["sample_annotation"].append(entry)
        return entry

    gap_us = (500_000, 1_500_000, 1_500_001, 400_000)
    for code, frame in enumerate(truth.frames):
        now = 1_532_402_927_000_000 + code * 20_000_000
        xy = truth.ego_xy_m[code].tolist()
        add_sample(frame, scenes[code % 2], now, xy)
        gap = gap_us[code % len(gap_us)]
        add_sample(f"{frame}-before", other_scene, now - gap, xy)
        add_sample(f"{frame}-after", other_scene, now + gap, xy)
    for row in rng.permutation(len(truth)) if len(truth) else []:
        frame = truth.frames[truth.frame[row]]
        center = truth.center_m[row].tolist()
        tables["instance"].append(
            {
                "token": f"instance-{row}",
                "category_token": f"category-{int(truth.label[row])}",
                "nbr_annotations": 1,
                "first_annotation_token": "",
                "last_annotation_token": "",
            }
        )
    for row in range(len(truth)):
        frame = truth.frames[truth.frame[row]]
        center = truth.center_m[row].tolist()
        here = add_annotation(f"annotation-{row}", row, frame, center)
        if truth.velocity_mps is None or np.isnan(truth.velocity_mps[row]).any():
            continue
        vx, vy = truth.velocity_mps[row].tolist()
        sides = ((-1,), (1,), (-1, 1))[int(rng.integers(3))]
        for side in sides:
            word, key, back = ("before", "prev", "next") if side < 0 else ("after", "next", "prev")
            there = add_annotation(
                f"annotation-{row}-{word}",
                row,
                f"{frame}-{word}",
                [center[0] + side * 0.5 * vx, center[1] + side * 0.5 * vy, center[2]],
            )
            here[key], there[back] = there["token"], here["token"]
    for name, description in zip(names, (*descriptions, ""), strict=True):
        tables["scene"].append(
            {
                "token": f"scene-token-{name}",
                "log_token": "log",
                "name": name,
                "description": description,
                "nbr_samples": 0,
                "first_sample_token": "",
                "last_sample_token": "",
            }
        )
    tables["log"] = [{"token": "log", "logfile": "", "vehicle": "", "date_captured": "", "location": "boston-seaport"}]
    (root / "maps").mkdir()
    (root / "maps" / "none.png").touch()
    tables["map"] = [{"token": "map", "log_tokens": ["log"], "category": "semantic_prior", "filename": "maps/none.png"}]
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=1))
    if split != "mini_val":
        (folder / "splits.json").write_text(json.dumps({split: list(scenes)}))


def write_results(path: Path, pred: Boxes, kind: Any = DetectionBox) -> None:
    """Write predictions as a result file, frames in their order."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in pred.frames}
    for row in range(len(pred)):
        box = detection_box(pred, row, category_of(pred, row), float(pred.score[row]), kind).serialize()
        del box["ego_translation"]
        if pred.num_points is None:
            del box["num_pts"]
        results[box["sample_token"]].append(box)
    meta = dict.fromkeys(("use_camera", "use_radar", "use_map", "use_external"), False) | {"use_lidar": True}
    path.write_text(json.dumps({"meta": meta, "results": results}))


def through_files(
    root: Path, results: Path, output: Path, *, split: str = "mini_val", version: str = "v1.0-mini"
) -> Official:
    """Evaluate as users do: tables and a result file in, ``DetectionEval`` from end to end, its own files out."""
    nusc = NuScenes(version=version, dataroot=str(root), verbose=False)
    evaluation = DetectionEval(
        nusc,
        config=config_factory("detection_cvpr_2019"),
        result_path=str(results),
        eval_set=split,
        output_dir=str(output),
        verbose=False,
    )
    evaluation.main(plot_examples=0, render_curves=False)
    return Official(
        json.loads((output / "metrics_summary.json").read_text()),
        json.loads((output / "metrics_details.json").read_text()),
    )
