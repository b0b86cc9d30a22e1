"""Cameras of a data set in the nuScenes format: where each stood, its intrinsics and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError
from detmetrics.geometry import Pose
from detmetrics.io import _tables

__all__ = ["Camera", "NuscenesCameras"]


@dataclass(frozen=True, eq=False)
class Camera:
    """One picture of one camera.

    Attributes
    ----------
    name : str
        Its channel, e.g. ``CAM_FRONT``.
    intrinsic : float64 (3, 3)
        From the camera's axes (x right, y down, z ahead) to pixels, homogeneous; undistorted.
    pose : Pose
        From the camera's axes to the global frame when the picture was taken.
    width_px, height_px : int
        Of the picture.
    path : Path
        The picture's file.
    timestamp_us : int
        When it was taken, microseconds.
    """

    name: str
    intrinsic: NDArray[np.float64]
    pose: Pose
    width_px: int
    height_px: int
    path: Path
    timestamp_us: int


class _Shot(msgspec.Struct, gc=False, frozen=True):
    sample_token: str
    ego_pose_token: str
    calibrated_sensor_token: str
    timestamp: float
    is_key_frame: bool
    filename: str
    width: int | None = None
    height: int | None = None


class _Calibrated(_tables.Placed, gc=False, frozen=True):
    sensor_token: str
    camera_intrinsic: list[list[float]] = msgspec.field(default_factory=list)


class _Sensor(_tables.Sensor, gc=False, frozen=True):
    modality: str = ""


class NuscenesCameras:
    """The cameras at the key frames of a data set in the nuScenes format; the tables are read once.

    Parameters
    ----------
    dataroot : path
        Folder that holds the version folder with the tables.
    version : str, optional
        E.g. ``v1.0-trainval``; default: the only ``v1.*-*`` there.

    Raises
    ------
    InputError
        Missing folder, table or pose; tables that are not JSON; intrinsics that are not 3 by 3 numbers.
    """

    def __init__(self, dataroot: str | Path, version: str | None = None) -> None:
        root = _tables.find_root(Path(dataroot), version)
        channels = {
            row.token: row.channel for row in _tables.all_rows(root, "sensor", _Sensor) if row.modality == "camera"
        }
        calibrated = {
            row.token: row
            for row in _tables.all_rows(root, "calibrated_sensor", _Calibrated)
            if row.sensor_token in channels
        }
        shots = [
            row
            for piece in _tables.rows(root.table("sample_data"), _Shot)
            for row in piece
            if row.is_key_frame and row.calibrated_sensor_token in calibrated
        ]
        ego = _tables.ego_poses(root, {row.ego_pose_token for row in shots})
        intrinsics = {row.token: _intrinsic(row, root.table("calibrated_sensor")) for row in calibrated.values()}
        self._of_sample: dict[str, list[Camera]] = {}
        for shot in shots:
            sensor = calibrated[shot.calibrated_sensor_token]
            camera = Camera(
                name=channels[sensor.sensor_token],
                intrinsic=intrinsics[sensor.token],
                pose=ego[shot.ego_pose_token].after(sensor.pose),
                width_px=shot.width or 0,
                height_px=shot.height or 0,
                path=root.dataroot / shot.filename,
                timestamp_us=round(shot.timestamp),
            )
            self._of_sample.setdefault(shot.sample_token, []).append(camera)
        #: Tokens of the samples that have pictures, in the order of the table.
        self.samples = list(self._of_sample)

    def of(self, sample_token: str) -> list[Camera]:
        """Give the cameras of a sample, by name; none where it has no pictures."""
        return sorted(self._of_sample.get(sample_token, []), key=lambda camera: camera.name)


def _intrinsic(row: _Calibrated, table: Path) -> NDArray[np.float64]:
    try:
        matrix = np.array(row.camera_intrinsic, np.float64)
    except ValueError:
        matrix = np.zeros(0)
    if matrix.shape != (3, 3):
        raise InputError(
            f"{table}: camera_intrinsic of {row.token!r}", expected="3 by 3 numbers", got=row.camera_intrinsic
        )
    return matrix
