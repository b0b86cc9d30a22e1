"""Seeded synthetic driving scenes in the nuScenes format, boxes only or with a lidar, and an imperfect detector."""

from __future__ import annotations

from detmetrics.synth.memory import make_boxes
from detmetrics.synth.predictions import PredictionSummary, write_predictions
from detmetrics.synth.tables import VERSION, DatasetSummary, write_dataset
from detmetrics.synth.world import TINY, WORLD_VERSION, WorldPlan, WorldSummary, write_world

__all__ = [
    "TINY",
    "VERSION",
    "WORLD_VERSION",
    "DatasetSummary",
    "PredictionSummary",
    "WorldPlan",
    "WorldSummary",
    "make_boxes",
    "write_dataset",
    "write_predictions",
    "write_world",
]
