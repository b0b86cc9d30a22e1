"""The official result files of nuScenes, for any protocol of that shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detmetrics.protocol import Protocol
    from detmetrics.scoring import Scores


def summary(scores: Scores) -> dict[str, Any]:
    """Numbers under the keys of the official ``metrics_summary.json``; NaN where undefined."""
    protocol = scores.protocol
    thresholds = [str(float(threshold)) for threshold in protocol.affinity.thresholds]
    key = {error.name: error.key for error in protocol.errors}
    return {
        "label_aps": {
            label: dict(zip(thresholds, row, strict=True))
            for label, row in zip(protocol.labels, scores.ap.tolist(), strict=True)
        },
        "mean_dist_aps": scores.class_ap,
        "mean_ap": scores.mean_ap,
        "label_tp_errors": {
            label: dict(zip(key.values(), row, strict=True))
            for label, row in zip(protocol.labels, scores.class_errors.tolist(), strict=True)
        },
        "tp_errors": {key[name]: value for name, value in scores.tp_errors.items()},
        "tp_scores": {key[name]: value for name, value in scores.tp_scores.items()},
        **({f"label_{protocol.composite.key}": scores.class_composite} if scores.class_composite else {}),
        protocol.composite.key: scores.composite,
        "eval_time": scores.eval_time_s,
        "cfg": config(protocol),
        "meta": dict(scores.meta),
        "signature": scores.signature,
    }


def details(scores: Scores) -> dict[str, dict[str, list[float]]]:
    """Curves under the keys of the official ``metrics_details.json``, e.g. ``car:0.5``."""
    protocol = scores.protocol
    result = {}
    for label in protocol.labels:
        for threshold in protocol.affinity.thresholds:
            curve = scores.curve(label, threshold)
            values = {"recall": curve.recall, "precision": curve.precision, "confidence": curve.confidence}
            values.update(curve.errors)
            result[f"{label}:{float(threshold)}"] = {name: column.tolist() for name, column in values.items()}
    return result


def config(protocol: Protocol) -> dict[str, Any]:
    """Rules under the keys of the official configuration file."""
    words = {"center_xy": "center_distance"}
    return {
        "class_range": {task.label: task.range_m for task in protocol.tasks},
        "dist_fcn": words.get(protocol.affinity.kind, protocol.affinity.kind),
        "dist_ths": list(protocol.affinity.thresholds),
        "dist_th_tp": protocol.affinity.error_threshold,
        "min_recall": protocol.curve.min_recall,
        "min_precision": protocol.curve.min_precision,
        "max_boxes_per_sample": protocol.max_boxes_per_frame,
        "mean_ap_weight": protocol.composite.map_weight,
    }


def without_nan(value: Any) -> Any:
    """Give the same nested value with None for NaN and infinity, so that it is valid JSON."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
