"""Lidar clouds: files to Cloud, and sweeps joined in the frame of the last one.

:func:`read` reads a file of any format of :data:`FORMATS`; :class:`NuscenesClouds` and :class:`Argoverse2Clouds` find
the clouds of a data set, with poses, and join sweeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError, Words, listing
from detmetrics.files import open_file
from detmetrics.geometry import IDENTITY, Pose, rotation_matrices
from detmetrics.io import _tables
from detmetrics.io.argoverse2 import is_time

Floats32 = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]
Format = Literal["nuscenes", "kitti", "vod", "vod-radar", "argoverse2", "pcd", "ply", "npy"]

#: Formats of files that :func:`read` knows.
FORMATS: tuple[Format, ...] = get_args(Format)

__all__ = ["FORMATS", "Argoverse2Clouds", "Cloud", "NuscenesClouds", "join", "read", "read_nuscenes"]


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points of one or more lidar sweeps in the sensor's frame at one time, the reference.

    Attributes
    ----------
    points_m : float32 (N, 3)
    intensity : float32 (N,)
        From 0 to 255 where the format says what it is (radar: cross-section, dBsm), else as in the file; NaN where the
        file has none.
    ring : int32 (N,)
        Number of the beam, the lowest first; -1 where the file has none.
    time_s : float32 (N,)
        When the point was measured, as far as the file tells, seconds after the reference. nuScenes: when its sweep
        ended, so zero or negative.
    pose : Pose
        From this frame to the global one at the reference; the identity where the file does not tell.
    timestamp_us : int
        The reference, microseconds; zero where the file does not tell.
    source : str
        The file.
    columns : mapping of str to array (N,) or (N, …)
        Whatever else the file has for each point, under its own names.
    """

    points_m: Floats32
    intensity: Floats32
    ring: NDArray[np.int32]
    time_s: Floats32
    pose: Pose
    timestamp_us: int = 0
    source: str = ""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.points_m)


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
    return _cloud(_floats(path, "nuscenes"), path, pose, timestamp_us)


def read(
    path: str | Path,
    format: Format | None = None,
    *,
    pose: Pose | None = None,
    timestamp_us: int | None = None,
    drop_nan: bool = False,
) -> Cloud:
    """Read a cloud of any format.

    Parameters
    ----------
    path : path
    format : str, optional
        One of :data:`FORMATS`; default: by the ending (``.pcd.bin``, ``.bin``, ``.feather``, ``.pcd``, ``.ply``,
        ``.npy``, ``.npz``). A ``.bin`` is what its length and its numbers can be: KITTI (x, y, z, reflectance from 0 to
        1), View-of-Delft (reflectance from 0 to 255) or nuScenes (x, y, z, intensity, ring). PCD, PLY and NumPy's files
        name their columns (``x``, ``y``, ``z``, ``intensity``, ``ring`` and some synonyms); a plain NumPy array is
        x, y, z and, where it is wider, intensity and ring. An ``.npz`` holds such an array (``points``, or the only
        one) or one array for each column.
    pose, timestamp_us
        Of the reference, where known: from the cloud's frame to the global one, and microseconds. Argoverse 2: default
        what the log and the name of the file tell.
    drop_nan : bool
        Leave out points that are not finite instead of refusing them.

    Returns
    -------
    Cloud
        Points as in the file, in its order. Argoverse 2: in the ego frame, others in the sensor's.

    Raises
    ------
    InputError
        Where the file is missing, empty, damaged, of an unknown format, not a whole number of points, without x, y, z,
        or holds NaN or infinity, with the row.

    Notes
    -----
    KITTI: development kit, ``readme.txt`` (reflectance becomes intensity times 255). View-of-Delft:
    tudelft-iv/view-of-delft-dataset, ``docs/GETTING_STARTED.md``; radar columns are x, y, z, cross-section, relative
    and compensated radial velocity, scan.
    """
    kind = _format_of(Path(path)) if format is None else format
    if kind not in FORMATS:
        raise InputError("format", expected=f"one of {', '.join(FORMATS)}", got=format)
    if kind == "argoverse2":
        return _read_argoverse2(Path(path), pose, timestamp_us, drop_nan)
    columns = _READERS[kind](path) if kind in _READERS else _floats(path, kind)
    if kind == "kitti":
        columns["intensity"] = columns["intensity"] * np.float32(255)
    return _cloud(columns, path, pose, timestamp_us or 0, drop_nan)


#: Columns of files that are nothing but float32.
_WIDE: dict[Format, tuple[str, ...]] = {
    "nuscenes": ("x", "y", "z", "intensity", "ring"),
    "kitti": ("x", "y", "z", "intensity"),
    "vod": ("x", "y", "z", "intensity"),
    "vod-radar": ("x", "y", "z", "intensity", "v_r", "v_r_compensated", "scan"),
}
_ENDINGS: dict[str, Format] = {
    ".pcd.bin": "nuscenes",
    ".feather": "argoverse2",
    ".pcd": "pcd",
    ".ply": "ply",
    ".npy": "npy",
    ".npz": "npy",
}
#: What others call the columns of Cloud, in lower case; CloudCompare puts ``scalar_`` before.
_SYNONYMS = {
    "intensity": ("intensity", "i", "reflectance", "reflectivity", "remission"),
    "ring": ("ring", "laser_number", "laser_id", "beam", "channel"),
}


def _format_of(path: Path) -> Format:
    """Tell the format by the ending, that of ``.bin`` by what is in it."""
    name = path.name.lower()
    for ending, kind in _ENDINGS.items():
        if name.endswith(ending):
            return kind
    known = f"format= one of {', '.join(FORMATS)} says what it is"
    if not name.endswith(".bin"):
        raise InputError(f"{path}", expected=f"a cloud (.bin, {', '.join(_ENDINGS)})", hint=known)
    with open_file(path) as file:
        content = file.read()
    if not content:
        raise InputError(f"{path}", expected="a cloud", got=Words("an empty file"))
    fitting: list[Format] = [
        kind for kind in ("kitti", "nuscenes", "vod") if len(content) % (4 * len(_WIDE[kind])) == 0
    ]
    if not fitting:
        raise InputError(
            f"{path}",
            expected="whole points of 4 (kitti, vod) or 5 (nuscenes) float32",
            got=Words(f"{len(content)} bytes"),
        )
    for kind in fitting:
        points = np.frombuffer(content, "<f4").reshape(-1, len(_WIDE[kind]))
        with np.errstate(invalid="ignore"):
            high = 1.0 if kind == "kitti" else 255.0
            is_likely = bool(
                ((points[:, 3] >= 0) & (points[:, 3] <= high)).all() and (np.abs(points[:, :3]) < 2000).all()
            )
            if kind == "nuscenes":
                is_likely &= bool(((points[:, 4] == np.floor(points[:, 4])) & (points[:, 4] >= 0)).all())
        if is_likely:
            return kind
    if len(fitting) == 1 or not np.isfinite(np.frombuffer(content, "<f4")).all():
        return fitting[0]  # the reader says what is wrong, if anything is
    raise InputError(f"{path} is like no cloud of {', '.join(fitting)}", hint=known)


def _floats(path: str | Path, kind: Format) -> Columns:
    """Read a file that is nothing but float32."""
    names = _WIDE[kind]
    with open_file(path) as file:
        content = file.read()
    if not content:
        raise InputError(f"{path}", expected="a cloud", got=Words("an empty file"))
    if len(content) % (4 * len(names)):
        raise InputError(
            f"{path}",
            expected=f"{len(names)} float32 ({4 * len(names)} bytes) a point",
            got=Words(f"{len(content)} bytes"),
        )
    return dict(zip(names, np.frombuffer(content, "<f4").reshape(-1, len(names)).T, strict=True))


def _numpy(path: str | Path) -> Columns:
    """Read ``.npy`` and ``.npz``: an array of points, a structured one, or one array for each column."""
    with open_file(path) as file:
        try:
            found = np.load(file, allow_pickle=False)
            arrays = {"points": found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
        except Exception as error:  # damage makes the readers of headers and archives raise nearly anything
            raise InputError(f"{path} cannot be read as arrays: {error}") from None
    array = arrays.get("points", next(iter(arrays.values()))) if "points" in arrays or len(arrays) == 1 else None
    if array is None:
        columns = arrays
    elif array.dtype.names:
        columns = {name: array[name].reshape(-1) for name in array.dtype.names}
    elif array.ndim != 2 or array.shape[1] < 3:
        raise InputError(f"{path}: points", expected="of shape (N, 3 or more)", got=array.shape)
    else:
        wide = _WIDE["nuscenes"] + tuple(f"column_{i}" for i in range(5, array.shape[1]))
        columns = dict(zip(wide, array.T, strict=False))
        columns |= {name: column for name, column in arrays.items() if name != "points" and array is not column}
    wrong = [name for name, column in columns.items() if column.dtype.kind not in "fiub"]
    if wrong:
        raise InputError(f"{path}: columns {listing(wrong)}", expected="numbers")
    return columns


def _pcd_columns(path: str | Path) -> Columns:
    from detmetrics.io import _pcd

    return _pcd.read(path)


def _ply_columns(path: str | Path) -> Columns:
    from detmetrics.io import _ply

    return _ply.read(path)


_READERS: dict[Format, Callable[[str | Path], Columns]] = {"pcd": _pcd_columns, "ply": _ply_columns, "npy": _numpy}


def _cloud(
    columns: Columns, path: str | Path, pose: Pose | None, timestamp_us: int, drop_nan: bool = False, **known: Any
) -> Cloud:
    """Sort columns into a cloud, and refuse what no point can be."""
    by_name = {name.lower().removeprefix("scalar_"): name for name in columns}
    found = {axis: columns[by_name[axis]] for axis in "xyz" if axis in by_name}
    if len(found) < 3:
        raise InputError(f"{path} has no columns x, y, z", hint=f"it has {listing(columns)}" if columns else "")
    taken = set(map(by_name.get, "xyz"))
    for ours, theirs in _SYNONYMS.items():
        name = next((by_name[name] for name in theirs if name in by_name), None)
        if name is not None and columns[name].ndim == 1:
            found[ours] = columns[name]
            taken.add(name)
    n_points = len(found["x"])
    for name, column in columns.items():
        if len(column) != n_points:
            raise InputError(f"{path}: column {name!r}", expected=f"of length {n_points} like x", got=len(column))
    if any(found[axis].ndim != 1 for axis in "xyz"):
        raise InputError(f"{path}: x, y, z", expected="one number a point")
    if not n_points:
        raise InputError(f"{path}", expected="a cloud", got=Words("no points"))
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is dealt with below
        table = np.stack([column.astype(np.float64) for column in found.values()], axis=1)
        is_finite = np.isfinite(table.astype(np.float32)).all(axis=1)
    if not is_finite.all():
        row = int(np.argmin(is_finite))
        if not drop_nan:
            more = f"{np.count_nonzero(~is_finite)} points in all; drop_nan=True leaves them out"
            raise InputError(
                f"point {row}", expected="finite numbers", got=table[row].tolist(), where=str(path), hint=more
            )
        if not is_finite.any():
            raise InputError(f"{path}", expected="a cloud", got=Words("no finite points"))
        table = table[is_finite]
    of = dict(zip(found, table.T, strict=True))
    return Cloud(
        points_m=table[:, :3].astype(np.float32),
        intensity=of["intensity"].astype(np.float32) if "intensity" in of else np.full(len(table), np.nan, np.float32),
        ring=np.clip(of["ring"], -1, 2**31 - 1).astype(np.int32) if "ring" in of else np.full(len(table), -1, np.int32),
        time_s=np.asarray(known.get("time_s", np.zeros(n_points)), np.float32)[is_finite],
        pose=pose or IDENTITY,
        timestamp_us=timestamp_us,
        source=str(path),
        columns={name: column[is_finite] for name, column in columns.items() if name not in taken},
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
    points, intensity, ring, time_s, columns = [], [], [], [], []
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
        columns.append({name: column[kept] for name, column in cloud.columns.items()})
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
        columns={
            name: np.concatenate([one[name] for one in columns])
            for name in columns[0]
            if all(name in one for one in columns)
        },
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


class _Calibrated(_tables.Placed, gc=False, frozen=True):
    sensor_token: str


class _Recording(NamedTuple):
    path: Path
    pose: Pose
    timestamp_us: int
    prev: str
    mounting: Pose


class NuscenesClouds:
    """The clouds of one lidar of a data set in the nuScenes format; the tables are read once, clouds when asked for.

    Parameters
    ----------
    dataroot : path
        Folder that holds the version folder with the tables.
    version : str, optional
        E.g. ``v1.0-trainval``; default: the only ``v1.*-*`` there.
    channel : str
        The sensor.

    Raises
    ------
    InputError
        Missing folder, table, channel or pose; tables that are not JSON.
    """

    def __init__(self, dataroot: str | Path, version: str | None = None, channel: str = "LIDAR_TOP") -> None:
        root = _tables.find_root(Path(dataroot), version)
        channels = {row.token: row.channel for row in _tables.all_rows(root, "sensor", _tables.Sensor)}
        sensors = {token for token, name in channels.items() if name == channel}
        calibrated = {
            row.token: row.pose
            for row in _tables.all_rows(root, "calibrated_sensor", _Calibrated)
            if row.sensor_token in sensors
        }
        if not calibrated:
            lidars = sorted({name for name in channels.values() if "LIDAR" in name.upper()} - {channel})
            hint = f"lidars there: {listing(lidars)}" if lidars else ""
            raise InputError(f"{root.table('sensor')} has no calibrated sensor {channel!r}", hint=hint)
        data = [
            row
            for piece in _tables.rows(root.table("sample_data"), _SampleData)
            for row in piece
            if row.calibrated_sensor_token in calibrated
        ]
        ego = _tables.ego_poses(root, {row.ego_pose_token for row in data})
        self._recordings = {
            row.token: _Recording(
                root.dataroot / row.filename,
                ego[row.ego_pose_token].after(calibrated[row.calibrated_sensor_token]),
                round(row.timestamp),
                row.prev,
                calibrated[row.calibrated_sensor_token],
            )
            for row in data
        }
        self._of_sample = {row.sample_token: row.token for row in data if row.is_key_frame}
        #: Tokens of the samples that have a cloud, in the order of the table.
        self.samples = list(self._of_sample)

    def mounting(self, sample_token: str) -> Pose:
        """Give the motion from the sensor's frame to that of the ego vehicle (x forward) at a sample's key frame.

        Raises
        ------
        InputError
            For an unknown sample.
        """
        return self._recordings[self._key_frame(sample_token)].mounting

    def _key_frame(self, sample_token: str) -> str:
        token = self._of_sample.get(sample_token, "")
        if not token:
            raise InputError(f"no cloud of sample {sample_token!r} in this data set")
        return token

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
        token = self._key_frame(sample_token)
        chain: list[Cloud] = []
        seen: set[str] = set()
        while token and len(chain) < n_sweeps:
            if token not in self._recordings or token in seen:
                wrong = "comes before itself" if token in seen else "is not in the tables"
                raise InputError(f"the recording {token!r} before sample {sample_token!r} {wrong}")
            seen.add(token)
            recording = self._recordings[token]
            token = recording.prev
            if chain and 1e-6 * (chain[-1].timestamp_us - recording.timestamp_us) < gap_s:
                continue
            chain.append(read_nuscenes(recording.path, pose=recording.pose, timestamp_us=recording.timestamp_us))
        return join(chain, drop_close_m=drop_close_m)


def _feather(path: Path) -> Columns:
    """Columns of a feather file of numbers (or texts)."""
    from detmetrics.io._arrow import read_feather

    table = read_feather(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def _read_argoverse2(path: Path, pose: Pose | None, timestamp_us: int | None, drop_nan: bool = False) -> Cloud:
    """Read one sweep (``x y z intensity laser_number offset_ns``); pose and time from the log, where it lies in one."""
    columns = _feather(path)
    time_ns = int(path.stem) if is_time(path.stem) else 0
    poses = path.parents[2] / _POSES if len(path.parents) > 2 else path
    if pose is None and poses.name == _POSES and poses.is_file():
        pose = _argoverse2_poses(poses).get(time_ns)
    wrong = [name for name, column in columns.items() if column.dtype.kind not in "fiu"]
    if wrong:
        raise InputError(f"{path}: columns {listing(wrong)}", expected="numbers")
    time_s = (
        1e-9 * columns.pop("offset_ns") if "offset_ns" in columns else np.zeros(len(next(iter(columns.values()), [])))
    )
    reference_us = time_ns // 1000 if timestamp_us is None else timestamp_us
    return _cloud(columns, path, pose, reference_us, drop_nan, time_s=time_s)


_POSES = "city_SE3_egovehicle.feather"


def _argoverse2_poses(path: Path) -> dict[int, Pose]:
    """Ego in the city at each time of a log, nanoseconds."""
    columns = _feather(path)
    needed = ("timestamp_ns", "qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(f"{path} lacks the columns {listing(missing, shown=len(missing))}")
    rotation = rotation_matrices(np.stack([columns[name] for name in needed[1:5]], axis=1))
    translation = np.stack([columns[name] for name in needed[5:]], axis=1).astype(np.float64)
    return {int(time): Pose(rotation[i], translation[i]) for i, time in enumerate(columns["timestamp_ns"].tolist())}


class Argoverse2Clouds:
    """The lidar sweeps of Argoverse 2 logs, in the ego frame, as their boxes are; clouds are read when asked for.

    Parameters
    ----------
    path : path
        The folder of one log, or a folder of logs (a split).

    Raises
    ------
    InputError
        Where there is no log.
    """

    def __init__(self, path: str | Path) -> None:
        root = Path(path)
        files = sorted(root.glob("sensors/lidar/*.feather")) or sorted(root.glob("*/sensors/lidar/*.feather"))
        self._files = {f"{file.parents[2].name}:{file.stem}": file for file in files if is_time(file.stem)}
        if not self._files:
            raise InputError(f"{path} has no sweeps", hint="expected sensors/lidar/*.feather there, or in its folders")
        self._poses: tuple[Path, dict[int, Pose]] | None = None
        #: Names of the sweeps, ``log_id:timestamp_ns``, as :mod:`detmetrics.io.argoverse2` calls frames.
        self.samples = list(self._files)

    def read(self, sample_token: str, *, n_sweeps: int = 1, drop_close_m: float = 0.0) -> Cloud:
        """Read a sweep, joined with those before it in its log.

        Parameters
        ----------
        sample_token : str
            One of ``samples``.
        n_sweeps : int
            How many sweeps at most, this one included.
        drop_close_m : float
            See :func:`join`; here in the ego frame.

        Returns
        -------
        Cloud
            In the ego frame at the sweep; ``pose`` leads to the city's.

        Raises
        ------
        InputError
            For an unknown sweep, a log without poses where sweeps are to be joined, and see :func:`read`.
        """
        if n_sweeps < 1:
            raise InputError("n_sweeps", expected="at least 1", got=n_sweeps)
        if sample_token not in self._files:
            raise InputError(f"no cloud of sample {sample_token!r} in this data set")
        last = self.samples.index(sample_token)
        log = sample_token.rpartition(":")[0]
        names = [
            name for name in self.samples[max(0, last - n_sweeps + 1) : last + 1] if name.rpartition(":")[0] == log
        ]
        return join((self._read(name, needed=len(names) > 1) for name in reversed(names)), drop_close_m=drop_close_m)

    def _read(self, name: str, *, needed: bool) -> Cloud:
        file = self._files[name]
        table = file.parents[2] / _POSES
        if self._poses is None or self._poses[0] != table:
            self._poses = (table, _argoverse2_poses(table) if table.is_file() else {})
        pose = self._poses[1].get(int(file.stem))
        if pose is None and needed:
            raise InputError(f"{table} has no pose of {name}, so its sweeps cannot be joined")
        return _read_argoverse2(file, pose or IDENTITY, None)
