"""The same content as a written data set and its predictions, as Boxes in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.errors import InputError
from detmetrics.geometry import yaw_of_rotation
from detmetrics.synth.categories import ATTRIBUTES, CATEGORY_NAMES, CLASSES
from detmetrics.synth.predictions import Detector, detect
from detmetrics.synth.scenes import Plan


def make_boxes(
    *,
    n_frames: int,
    seed: int = 0,
    samples_per_scene: int = 40,
    boxes_per_sample: int = 200,
    quality: float = 1.0,
    score_decimals: int | None = None,
    nan_velocity_share: float = 0.0,
) -> tuple[Boxes, Boxes]:
    """Make truth and predictions in memory, without files.

    They are the first ``n_frames`` samples of the split ``synth_val`` that :func:`write_dataset` writes with the same
    ``seed`` and ``samples_per_scene``, and what :func:`write_predictions` writes for it with the same other settings.

    Parameters
    ----------
    n_frames : int
        At least 1.
    seed, samples_per_scene, boxes_per_sample, quality, score_decimals, nan_velocity_share
        See :func:`write_dataset` and :func:`write_predictions`.

    Returns
    -------
    truth : Boxes
        Labels are raw category names, ignored ones included. Frames are sample tokens. With velocity (by finite
        difference over neighbouring samples, NaN where unknown), attribute, points (lidar and radar), full rotation,
        ego position, and the columns ``visibility`` (1 to 4) of boxes and ``scene`` (name) of frames.
    pred : Boxes
        Labels are class names, over the same frames.
        Both are in global coordinates, metres, radians, metres per second.

    Raises
    ------
    InputError
        Where a setting is out of range.
    """
    if n_frames < 1:
        raise InputError("n_frames", expected="at least 1", got=n_frames)
    n_scenes = -(-n_frames // max(samples_per_scene, 1))
    plan = Plan(seed=seed, train_scenes=0, val_scenes=n_scenes, samples_per_scene=samples_per_scene)
    plan.check()
    detector = Detector(boxes_per_sample, quality, score_decimals, nan_velocity_share)
    detector.check()
    scenes = list(plan.scenes("synth_val"))
    found = [detect(scene, detector, seed) for scene in scenes]
    frames = [token for scene in scenes for token in scene.sample_token][:n_frames]
    names = np.repeat([scene.name for scene in scenes], samples_per_scene)[:n_frames]
    ego_xy = [scene.drive.ego_pose(scene.seconds(scene.timestamp_us))[0][:, :2] for scene in scenes]
    shared: dict[str, Any] = {
        "frames": frames,
        "ego_xy_m": np.concatenate(ego_xy)[:n_frames],
        "frame_columns": {"scene": names},
    }

    def rows(parts: Sequence[Any]) -> Callable[[str], NDArray[Any]]:
        frame = np.concatenate([part.sample + samples_per_scene * number for number, part in enumerate(parts)])
        kept = frame < n_frames
        return lambda name: (frame if name == "frame" else np.concatenate([getattr(p, name) for p in parts]))[kept]

    true, made = rows([scene.boxes for scene in scenes]), rows(found)
    truth = Boxes(
        center_m=true("center_m"),
        size_lwh_m=true("size_lwh_m"),
        yaw_rad=yaw_of_rotation(true("rotation_wxyz")),
        rotation_wxyz=true("rotation_wxyz"),
        velocity_mps=true("velocity_mps"),
        label=true("kind"),
        labels=CATEGORY_NAMES,
        attribute=true("attribute") + 1,
        attributes=("", *ATTRIBUTES),
        num_points=true("n_lidar") + true("n_radar"),
        box_columns={"visibility": true("visibility")},
        frame=true("frame"),
        source="truth",
        **shared,
    )
    pred = Boxes(
        center_m=made("center_m"),
        size_lwh_m=made("size_lwh_m"),
        yaw_rad=made("yaw_rad"),
        velocity_mps=made("velocity_mps"),
        label=made("label"),
        labels=CLASSES,
        attribute=made("attribute") + 1,
        attributes=("", *ATTRIBUTES),
        score=made("score"),
        frame=made("frame"),
        source="pred",
        **shared,
    )
    return truth, pred
