"""The official MAN TruckScenes evaluator as a function of Boxes (environment ``.venv-parity``: truckscenes-devkit 1.2.0).

The shape of :mod:`oracle`, with the tags. Nothing here computes a metric.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from truckscenes import TruckScenes
from truckscenes.eval.common.config import config_factory
from truckscenes.eval.common.data_classes import EvalBoxes
from truckscenes.eval.common.loaders import add_center_dist, filter_eval_boxes, get_scene_tag_masks
from truckscenes.eval.detection.constants import DETECTION_NAMES
from truckscenes.eval.detection.data_classes import DetectionBox
from truckscenes.eval.detection.evaluate import DetectionEval
from truckscenes.eval.detection.utils import category_to_detection_name
from truckscenes.utils.splits import create_splits_scenes

import oracle
from detmetrics.boxes import Boxes

DEVKIT = "1.2.0"


class FakeTruckScenes(oracle.FakeNuScenes):
    """As much of a ``TruckScenes`` as the filters and masks ask for."""

    def __init__(self, truth: Boxes) -> None:
        super().__init__(truth)
        descriptions = truth.frame_columns["description"].tolist()
        self.tables["scene"] = {}
        for name, description in zip(truth.frames, descriptions, strict=True):
            sample = self.tables["sample"][name]
            sample["data"]["LIDAR_LEFT"] = sample["data"].pop("LIDAR_TOP")
            sample["scene_token"] = name
            self.tables["scene"][name] = {"description": description}


def detection_box(boxes: Boxes, row: int, name: str, score: float) -> DetectionBox:
    """One box of the devkit."""
    return oracle.detection_box(boxes, row, name, score, DetectionBox)


def in_memory(truth: Boxes, pred: Boxes, *, tags: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evaluate without files; give the summaries by tag (``all`` is the whole) and the curves of the whole."""
    gt_boxes, pred_boxes = EvalBoxes(), EvalBoxes()
    for name in truth.frames:
        boxes = []
        for row in oracle.frame_rows(truth, name):
            category = oracle.category_of(truth, row)
            label = category if category in DETECTION_NAMES else category_to_detection_name(category)
            if label is not None:
                boxes.append(detection_box(truth, row, label, -1.0))
        gt_boxes.add_boxes(name, boxes)
    for name in pred.frames:
        rows = oracle.frame_rows(pred, name)
        found = [detection_box(pred, row, oracle.category_of(pred, row), float(pred.score[row])) for row in rows]
        pred_boxes.add_boxes(name, found)
    database, cfg = FakeTruckScenes(truth), config_factory("detection_cvpr_2024")
    boxes_of = []
    for boxes in (pred_boxes, gt_boxes):
        boxes = add_center_dist(database, boxes)
        boxes_of.append(filter_eval_boxes(database, boxes, cfg.class_range) if boxes.all else boxes)
    evaluation = DetectionEval.__new__(DetectionEval)
    evaluation.cfg, evaluation.verbose = cfg, False
    evaluation.pred_boxes, evaluation.gt_boxes = boxes_of
    evaluation.pred_boxes_masks, evaluation.gt_boxes_masks = (get_scene_tag_masks(database, b) for b in boxes_of)
    metrics, details = evaluation.evaluate(evaluate_tags=tags)
    curves = {f"{name}:{th}": data.serialize() for (tag, name, th), data in details.md.items() if tag == "all"}
    return oracle.as_json(metrics.serialize()), oracle.as_json(curves)


def scenes_of(split: str) -> list[str]:
    """Names of the scenes of a split."""
    return list(create_splits_scenes()[split])


def write_tables(root: Path, truth: Boxes, *, seed: int, descriptions: tuple[str, str]) -> None:
    """Write truth as tables of version v1.1-mini, for the split mini_val."""
    first, second = scenes_of("mini_val")
    oracle.write_tables(
        root,
        truth,
        version="v1.1-mini",
        seed=seed,
        scenes=(first, second),
        other_scene=scenes_of("mini_train")[0],
        channel="LIDAR_LEFT",
        descriptions=descriptions,
    )
    for name in ("ego_motion_cabin", "ego_motion_chassis", "weather_annotation"):
        (root / "v1.1-mini" / f"{name}.json").write_text("[]")


def write_results(path: Path, pred: Boxes) -> None:
    """Write predictions as a result file."""
    oracle.write_results(path, pred, DetectionBox)


def through_files(root: Path, results: Path, output: Path) -> dict[str, Any]:
    """Evaluate as users do; give the summaries by tag."""
    database = TruckScenes("v1.1-mini", str(root), verbose=False)
    config = config_factory("detection_cvpr_2024")
    evaluation = DetectionEval(database, config, str(results), "mini_val", str(output), verbose=False)
    evaluation.main(render_curves=False, evaluate_tags=True)
    return json.loads((output / "metrics_summary.json").read_text())
