"""Samples of any data set in the nuScenes format: points of joined sweeps and the objects around, sensor's frame."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detmetrics import io
from detmetrics.boxes import Boxes
from detmetrics.detector.config import ATTRIBUTES, Config
from detmetrics.detector.objects import Objects, turned
from detmetrics.errors import InputError
from detmetrics.geometry import Pose
from detmetrics.protocols import NUSCENES

OWN_CAR_M = 1.0  # points nearer than this in x and y are of the car itself, or rays without return


class Sample(NamedTuple):
    """One sample.

    ``points`` float32 (P, 5): x, y, z in metres, intensity from 0 to 1, seconds after the key frame (zero or negative).
    """

    points: NDArray[np.float32]
    objects: Objects
    pose: Pose


class Samples:
    """The samples of a split; tables are read once, clouds when asked for.

    Parameters
    ----------
    dataroot : path
    split : str or None
        See :func:`detmetrics.io.load_truth`.
    config : Config
    version : str, optional

    Raises
    ------
    InputError
        See :func:`detmetrics.io.load_truth` and :class:`detmetrics.io.clouds.NuscenesClouds`; or where a sample of the
        split has no cloud.
    """

    def __init__(self, dataroot: str | Path, split: str | None, config: Config, *, version: str | None = None) -> None:
        self.config = config
        self.clouds = io.clouds.NuscenesClouds(dataroot, version)
        self.truth: Boxes = io.nuscenes.load_truth(dataroot, version=version, split=split)
        self.tokens = list(self.truth.frames)
        missing = set(self.tokens) - set(self.clouds.samples)
        if missing:
            raise InputError(f"{len(missing)} samples of split {split!r} have no cloud, the first {min(missing)!r}")
        names = self.truth.labels or ()
        task = np.array([-1 if (code := NUSCENES.task_of(name)) is None else code for name in names] or [-1], np.int64)
        codes = {name: code for code, name in enumerate(ATTRIBUTES)}
        self._attribute = np.array([codes.get(name, -1) for name in self.truth.attributes] or [-1], np.int64)
        self._label = task[self.truth.label]

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, number: int) -> Sample:
        """Read a sample.

        Raises
        ------
        InputError
            Where a cloud is missing or broken, see :func:`detmetrics.io.clouds.read_nuscenes`.
        """
        config = self.config
        cloud = self.clouds.read(
            self.tokens[number], n_sweeps=config.n_sweeps, drop_close_m=OWN_CAR_M, gap_s=config.gap_s
        )
        points = np.empty((len(cloud), 5), np.float32)
        points[:, :3] = cloud.points_m
        points[:, 3] = cloud.intensity * np.float32(1 / 255)
        points[:, 4] = cloud.time_s
        return Sample(points, self.objects(number, cloud.pose), cloud.pose)

    def labels(self, number: int) -> NDArray[np.int64]:
        """Classes of the objects of a sample; the cloud is not read."""
        rows = slice(self.truth.offsets[number], self.truth.offsets[number + 1])
        label: NDArray[np.int64] = self._label[rows]
        return label[label >= 0]

    def objects(self, number: int, pose: Pose) -> Objects:
        """Give the objects of a sample in the frame of the sensor, which stands at ``pose``."""
        truth = self.truth
        rows = np.arange(truth.offsets[number], truth.offsets[number + 1])
        rows = rows[self._label[rows] >= 0]
        back = pose.inverse()
        velocity = np.full((len(rows), 2), np.nan) if truth.velocity_mps is None else truth.velocity_mps[rows]
        velocity, yaw = turned(velocity, truth.yaw_rad[rows], back)
        attribute = np.full(len(rows), -1) if truth.attribute is None else self._attribute[truth.attribute[rows]]
        seen = truth.box_columns.get("num_lidar_pts", truth.num_points)
        return Objects(
            center_m=back.apply(truth.center_m[rows]).astype(np.float32),
            size_lwh_m=truth.size_lwh_m[rows].astype(np.float32),
            yaw_rad=yaw.astype(np.float32),
            velocity_mps=velocity.astype(np.float32),
            label=self._label[rows],
            attribute=attribute,
            is_ignored=np.zeros(len(rows), bool) if seen is None else seen[rows] == 0,
        )
