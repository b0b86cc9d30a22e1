"""Lidar clouds: files to Cloud, and sweeps joined in the frame of the last one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError, listing
from detmetrics.files import open_file
from detmetrics.geometry import Pose
from detmetrics.io import _tables

Floats32 = NDArray[np.float32]

__all__ = ["Cloud", "NuscenesClouds", "join", "read_nuscenes"]


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points of one or more lidar sweeps in the sensor's frame at one time, the reference.

    Attributes
    ----------
    points_m : float32 (N, 3)
    intensity : float32 (N,)
        From 0 to 255.
    ring : int32 (N,)
        Number of the beam, the lowest first.
    time_s : float32 (N,)
        When the point's sweep ended, seconds after the reference: zero or negative.
    pose : Pose
        From this frame to the global one at the reference; the identity where the file does not tell.
    timestamp_us : int
        The reference, microseconds; zero where the file does not tell.
    source : str
        The file.
    """

    points_m: Floats32
    intensity: Floats32
    ring: NDArray[np.int32]
    time_s: Floats32
    pose: Pose
    timestamp_us: int = 0
    source: str = ""

    def __len__(self) -> int:
        return len(self.points_m)


_IDENTITY = Pose(np.eye(3), np.zeros(3))


def read_nuscenes(path: str | Path, *, pose: Pose | None = None, timestamp_us: int = 0) -> Cloud:
    """Read a nuScenes lidar file (``.pcd.bin``): float32 x, y, z, intensity, ring of each point.

    Parameters
    ----------
    path : path
    pose, timestamp_us
        Of the reference, where known: from the sensor's frame to the global one, and microseconds.

    Returns
    -------
    Cloud
        As in the file, rays without return (points at the sensor) included.

    Raises
    ------
    InputError
        Where the file is missing, empty, not a whole number of points, or holds NaN or infinity, with the row.
    """
    with open_file(path) as file:
        content = file.read()
    if not content:
        raise InputError(f"{path}", expected="a cloud", got="an empty file")
    if len(content) % 20:
        raise InputError(f"{path}", expected="5 float32 (20 bytes) a point", got=f"{len(content)} bytes")
    columns = np.frombuffer(content, dtype="<f4").reshape(-1, 5)
    is_finite = np.isfinite(columns).all(axis=1)
    if not is_finite.all():
        row = int(np.argmin(is_finite))
        raise InputError(f"point {row}", expected="finite numbers", got=columns[row].tolist(), where=str(path))
    return Cloud(
        points_m=columns[:, :3].astype(np.float32),
        intensity=columns[:, 3].astype(np.float32),
        ring=columns[:, 4].astype(np.int32),
        time_s=np.zeros(len(columns), np.float32),
        pose=pose or _IDENTITY,
        timestamp_us=timestamp_us,
        source=str(path),
    )


def join(clouds: Iterable[Cloud], *, drop_close_m: float = 0.0) -> Cloud:
    """Bring clouds into the frame of the first of them, by their poses, and put them together in this order.

    Parameters
    ----------
    clouds : iterable of Cloud
        At least one, all with poses.
    drop_close_m : float
        Leave out points whose \\|x\\| and \\|y\\| in their own sensor's frame are both smaller: the car itself and rays
        without return. nuscenes-devkit 1.2.0 ``LidarPointCloud.from_file_multisweep`` takes 1.0.

    Raises
    ------
    InputError
        Without clouds.
    """
    points, intensity, ring, time_s = [], [], [], []
    reference: Cloud | None = None
    for cloud in clouds:
        reference = reference or cloud
        far = np.abs(cloud.points_m[:, :2]) >= drop_close_m
        kept = slice(None) if drop_close_m <= 0 else far[:, 0] | far[:, 1]
        moved = cloud.points_m[kept]
        if cloud is not reference:
            moved = reference.pose.inverse().after(cloud.pose).apply(moved).astype(np.float32)
        points.append(moved)
        intensity.append(cloud.intensity[kept])
        ring.append(cloud.ring[kept])
        time_s.append(cloud.time_s[kept] + np.float32(1e-6 * (cloud.timestamp_us - reference.timestamp_us)))
    if reference is None:
        raise InputError("clouds", expected="at least one", got=0)
    return Cloud(
        points_m=np.concatenate(points),
        intensity=np.concatenate(intensity),
        ring=np.concatenate(ring),
        time_s=np.concatenate(time_s),
        pose=reference.pose,
        timestamp_us=reference.timestamp_us,
        source=reference.source,
    )


class _SampleData(msgspec.Struct, gc=False, frozen=True):
    token: str
    sample_token: str
    ego_pose_token: str
    calibrated_sensor_token: str
    timestamp: float
    is_key_frame: bool
    filename: str
    prev: str


class _Placed(msgspec.Struct, gc=False, frozen=True):
    token: str
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]


class _Calibrated(_Placed, gc=False, frozen=True):
    sensor_token: str


class _Recording(NamedTuple):
    path: Path
    pose: Pose
    timestamp_us: int
    prev: str


class NuscenesClouds:
    """The clouds of one lidar of a data set in the nuScenes format; the tables are read once, clouds when asked for.

    Parameters
    ----------
    dataroot : path
        Folder that holds the version folder with the tables.
    version : str, optional
        E.g. ``v1.0-trainval``; default: the only ``v1.0-*`` there.
    channel : str
        The sensor.

    Raises
    ------
    InputError
        Missing folder, table, channel or pose; tables that are not JSON.
    """

    def __init__(self, dataroot: str | Path, version: str | None = None, channel: str = "LIDAR_TOP") -> None:
        root = _tables._root(Path(dataroot), version)
        sensors = {row.token for row in _tables._all(root, "sensor", _tables._Sensor) if row.channel == channel}
        calibrated = {
            row.token: Pose.of_quaternion(row.rotation, row.translation)
            for row in _tables._all(root, "calibrated_sensor", _Calibrated)
            if row.sensor_token in sensors
        }
        if not calibrated:
            raise InputError(f"{root.table('sensor')} has no calibrated sensor {channel!r}")
        data = [
            row
            for piece in _tables.rows(root.table("sample_data"), _SampleData)
            for row in piece
            if row.calibrated_sensor_token in calibrated
        ]
        wanted = {row.ego_pose_token for row in data}
        ego = {
            row.token: Pose.of_quaternion(row.rotation, row.translation)
            for piece in _tables.rows(root.table("ego_pose"), _Placed)
            for row in piece
            if row.token in wanted
        }
        if wanted - ego.keys():
            raise InputError(f"{root.table('ego_pose')} lacks {listing(sorted(wanted - ego.keys()))}")
        self._recordings = {
            row.token: _Recording(
                root.dataroot / row.filename,
                ego[row.ego_pose_token].after(calibrated[row.calibrated_sensor_token]),
                round(row.timestamp),
                row.prev,
            )
            for row in data
        }
        self._of_sample = {row.sample_token: row.token for row in data if row.is_key_frame}
        #: Tokens of the samples that have a cloud, in the order of the table.
        self.samples = list(self._of_sample)

    def read(self, sample_token: str, *, n_sweeps: int = 1, drop_close_m: float = 0.0, gap_s: float = 0.0) -> Cloud:
        """Read the cloud of a sample's key frame, joined with the sweeps before it.

        Parameters
        ----------
        sample_token : str
        n_sweeps : int
            How many clouds at most, the key frame included; at the start of a scene there are fewer.
        drop_close_m : float
            See :func:`join`.
        gap_s : float
            Clouds nearer in time than this to the last one taken are skipped, unread: sets recorded at 2 and at 20
            clouds a second then give sweeps alike.

        Returns
        -------
        Cloud
            In the sensor's frame at the key frame.

        Raises
        ------
        InputError
            For an unknown sample, and see :func:`read_nuscenes`.
        """
        if n_sweeps < 1:
            raise InputError("n_sweeps", expected="at least 1", got=n_sweeps)
        token = self._of_sample.get(sample_token, "")
        if not token:
            raise InputError(f"no cloud of sample {sample_token!r} in this data set")
        chain: list[Cloud] = []
        while token and len(chain) < n_sweeps:
            if token not in self._recordings:
                raise InputError(f"the recording {token!r} before sample {sample_token!r} is not in the tables")
            recording = self._recordings[token]
            token = recording.prev
            if chain and 1e-6 * (chain[-1].timestamp_us - recording.timestamp_us) < gap_s:
                continue
            chain.append(read_nuscenes(recording.path, pose=recording.pose, timestamp_us=recording.timestamp_us))
        return join(chain, drop_close_m=drop_close_m)
