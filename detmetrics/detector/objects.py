"""Objects around the sensor at one time, as training wants them: columns in the sensor's frame."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.geometry import Pose

Floats32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Objects:
    """Boxes of the classes, in the frame of the sensor.

    Attributes
    ----------
    center_m, size_lwh_m : float32 (N, 3)
    yaw_rad : float32 (N,)
    velocity_mps : float32 (N, 2)
        NaN where unknown.
    label, attribute : int64 (N,)
        Codes into the classes and attributes of the protocol; no attribute is negative.
    is_ignored : bool (N,)
        Neither to be found nor to be missed: without a lidar point.
    """

    center_m: Floats32
    size_lwh_m: Floats32
    yaw_rad: Floats32
    velocity_mps: Floats32
    label: NDArray[np.int64]
    attribute: NDArray[np.int64]
    is_ignored: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.yaw_rad)

    def take(self, rows: NDArray[Any]) -> Objects:
        """Give some rows, by a mask or by numbers."""
        return Objects(*(getattr(self, column.name)[rows] for column in fields(self)))

    def columns(self) -> dict[str, NDArray[Any]]:
        """Give all columns by name."""
        return {column.name: getattr(self, column.name) for column in fields(self)}


def concat(parts: list[Objects]) -> Objects:
    """Put objects together, at least one part."""
    return Objects(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Objects)))


def turned(xy: NDArray[Any], yaw_rad: NDArray[Any], pose: Pose) -> tuple[NDArray[Any], NDArray[Any]]:
    """Turn vectors on the ground (N, 2) and headings (N,) by a pose.

    Both are taken as flat in their own frame; what leaves the ground of the other is cut off, as nuScenes does with the
    yaw of a quaternion.
    """
    turn = pose.rotation[:2, :2]
    heading = np.stack([np.cos(yaw_rad), np.sin(yaw_rad)], axis=-1) @ turn.T
    return xy @ turn.T, np.arctan2(heading[:, 1], heading[:, 0])
