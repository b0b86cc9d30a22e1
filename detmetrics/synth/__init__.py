"""Seeded synthetic driving scenes, boxes only, in the nuScenes format, and predictions of an imperfect detector."""

from __future__ import annotations

from detmetrics.synth.memory import make_boxes
from detmetrics.synth.predictions import PredictionSummary, write_predictions
from detmetrics.synth.tables import VERSION, DatasetSummary, write_dataset

__all__ = ["VERSION", "DatasetSummary", "PredictionSummary", "make_boxes", "write_dataset", "write_predictions"]
