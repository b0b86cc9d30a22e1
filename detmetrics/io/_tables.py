"""nuScenes tables to truth: only the tables needed, the large ones piece by piece.

``sample_data`` and ``ego_pose`` (2.7 million rows each in trainval) are never in memory as a whole. As in the result
reader, a cut between two rows is a guess that the decoding of the piece proves.
"""

from __future__ import annotations

import gc
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.errors import InputError, Words, listing
from detmetrics.files import open_file
from detmetrics.geometry import Pose, yaw_of_rotation
from detmetrics.io import _cache, _tables_worker
from detmetrics.io._json import REFUSALS, Buffer, Codes, flaw, is_wrong_cut
from detmetrics.io._splits import SPLITS, Splits

PIECE = 1 << 18  # bytes; small, so that text and objects stay in the processor's cache
#: Where ``sample_data`` and ``ego_pose`` are larger than this, a second process reads them.
LARGE = 32 << 20
_CUT = re.compile(rb"\}\s*(,)\s*\{")
T = TypeVar("T")
Progress = Callable[[int, int], None]
Vector = tuple[float, float, float]


class _Row(msgspec.Struct, gc=False, frozen=True):
    token: str


class _Named(_Row, gc=False, frozen=True):
    name: str


class Scene(_Named, gc=False, frozen=True):
    """A scene, as far as it is needed here."""

    log_token: str = ""
    description: str = ""


class Log(_Row, gc=False, frozen=True):
    """The drive that scenes were cut from."""

    location: str = ""


class _Sample(_Row, gc=False, frozen=True):
    timestamp: float  # whole in nuScenes, not in Lyft
    scene_token: str


class _Instance(_Row, gc=False, frozen=True):
    category_token: str


class Sensor(_Row, gc=False, frozen=True):
    """A sensor of the vehicle."""

    channel: str


class _Calibrated(_Row, gc=False, frozen=True):
    sensor_token: str


class _SampleData(msgspec.Struct, gc=False, frozen=True):
    sample_token: str
    ego_pose_token: str
    calibrated_sensor_token: str
    is_key_frame: bool


class _EgoPose(_Row, gc=False, frozen=True):
    translation: Vector


class Placed(_Row, gc=False, frozen=True):
    """What has a place and a rotation: an ego pose or a calibrated sensor."""

    translation: Vector
    rotation: tuple[float, float, float, float]

    @property
    def pose(self) -> Pose:
        """Pose in the frame that the place is told in."""
        return Pose.of_quaternion(self.rotation, self.translation)


class _Annotation(_Row, gc=False, frozen=True, kw_only=True):
    sample_token: str
    instance_token: str
    visibility_token: str = ""
    attribute_tokens: tuple[str, ...]
    translation: Vector
    size: Vector
    rotation: tuple[float, float, float, float]
    prev: str
    next: str
    num_lidar_pts: int
    num_radar_pts: int


class Root(NamedTuple):
    """A version folder of a data set."""

    dataroot: Path
    version: str

    def table(self, name: str) -> Path:
        """Path of a table."""
        return self.dataroot / self.version / f"{name}.json"


def load_truth(
    dataroot: str | Path,
    *,
    version: str | None = None,
    split: str | None = None,
    scenes: list[str] | None = None,
    channel: str = "LIDAR_TOP",
    splits: Splits = SPLITS,
    cache: bool = True,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Boxes:
    """Read truth from a data set in the nuScenes format.

    Parameters
    ----------
    dataroot : path
        Folder that holds the version folder with the tables.
    version : str, optional
        E.g. ``v1.0-trainval``; default: the only ``v1.*-*`` there.
    split : str, optional
        A predefined split (train, val, train_detect, train_track, test, mini_train, mini_val) or a name of the data
        set's ``splits.json``; default: the validation split of the version.
    scenes : list of str, optional
        Names of single scenes instead of a split.
    channel : str
        Sensor whose key frames say where ego is.
    splits : Splits
        The predefined splits of the data set.
    cache : bool
        Keep the result in the user's cache folder, and take it from there while the tables are unchanged.
    progress : callable, optional
        Called with the bytes done and the bytes in all.
    notice : callable, optional
        Called with a sentence on the cache.

    Returns
    -------
    Boxes
        All annotations in the global frame, under their raw categories; frames are samples in the order of
        ``sample.json``. ``partial`` for everything but predefined splits. Box columns ``visibility``, ``num_lidar_pts``
        and ``instance``; frame columns ``scene``, ``timestamp_us``, ``location`` and ``description``.

    Raises
    ------
    InputError
        Missing folder, table, key or scene; a version that does not fit the split; tables that are not JSON.

    Notes
    -----
    nuscenes-devkit 1.2.0: ``eval/common/loaders.py: load_gt``, ``nuscenes.py: box_velocity``.
    """
    root = find_root(Path(dataroot), version)
    names, is_predefined = _scene_names(root, split, scenes, splits)
    key = {"scenes": sorted(names), "channel": channel, "predefined": is_predefined}
    say = notice or (lambda _: None)
    entry = _cache.Entry.of(root, key) if cache else None
    if entry and (found := entry.read(say)) is not None:
        return found
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        truth = _read(root, names, is_predefined, channel, progress or (lambda done, total: None))
    finally:
        if was_enabled:
            gc.enable()
    if entry:
        entry.write(truth, say)
    return truth


def rows(path: Path, kind: type[T], progress: Callable[[int], None] | None = None) -> Iterator[list[T]]:
    """Rows of a table, a piece at a time.

    Raises
    ------
    InputError
        Missing file, text that is not JSON (with the byte), a row without a needed key.
    """
    decoder = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
    if not path.exists():
        raise InputError(f"table {path} is missing")
    with open_file(path) as file:
        size = file.seek(0, 2)
        if size == 0:
            raise InputError(f"{path} is empty")
        position, n_rows = 0, 0
        buffer = Buffer(b"[", PIECE)
        while position < size:
            length = PIECE
            begin = buffer.start - bool(position)  # the first piece has its own bracket
            while True:
                is_last = position + buffer.read(file, position, min(length, size - position)) >= size
                end = buffer.stop if is_last else buffer.last_cut(_CUT)
                if end > buffer.start:
                    if not is_last:
                        buffer.bytes[end] = ord("]")  # in the place of the comma
                    text = buffer[begin : end + (not is_last)]
                    try:
                        got = decoder.decode(text)
                        break
                    except REFUSALS as error:
                        piece = bytes(text)
                        if is_last or not is_wrong_cut(piece, len(piece) - 1):
                            raise _diagnosis(path, piece, position + begin - buffer.start, n_rows, error) from None
                length *= 2
            yield got
            n_rows += len(got)
            position += end - buffer.start + (not is_last)
            if progress:
                progress(position)


def ego_positions(
    root: Root,
    wanted: set[str],
    channel: str,
    progress: Callable[[int], None] | None = None,
) -> dict[str, tuple[float, float]]:
    """Where ego is at the key frame of the channel in each wanted sample: sample token to x and y, metres."""
    sensors = {row.token for row in all_rows(root, "sensor", Sensor) if row.channel == channel}
    if not sensors:
        raise InputError(f"{root.table('sensor')} has no channel {channel!r}")
    calibrated = {row.token for row in all_rows(root, "calibrated_sensor", _Calibrated) if row.sensor_token in sensors}
    pose_of: dict[str, str] = {}
    for piece in rows(root.table("sample_data"), _SampleData, progress):
        for row in piece:
            if row.is_key_frame and row.calibrated_sensor_token in calibrated and row.sample_token in wanted:
                pose_of[row.sample_token] = row.ego_pose_token
    missing = wanted - pose_of.keys()
    if missing:
        raise InputError(f"{root.table('sample_data')}: no key frame of {channel} for samples {listing(missing)}")
    done = root.table("sample_data").stat().st_size
    poses = set(pose_of.values())
    where: dict[str, tuple[float, float]] = {}
    for poses_read in rows(root.table("ego_pose"), _EgoPose, progress and (lambda n: progress(done + n))):
        for pose in poses_read:
            if pose.token in poses:
                where[pose.token] = pose.translation[:2]
    missing = poses - where.keys()
    if missing:
        raise InputError(f"{root.table('ego_pose')} lacks the ego poses {listing(missing)}")
    return {sample: where[pose] for sample, pose in pose_of.items()}


def ego_poses(root: Root, wanted: set[str]) -> dict[str, Pose]:
    """Poses of ego in the global frame by token; each wanted one must be there."""
    poses = {
        row.token: row.pose for piece in rows(root.table("ego_pose"), Placed) for row in piece if row.token in wanted
    }
    if wanted - poses.keys():
        raise InputError(f"{root.table('ego_pose')} lacks {listing(sorted(wanted - poses.keys()))}")
    return poses


def _read(root: Root, names: set[str], is_predefined: bool, channel: str, progress: Progress) -> Boxes:
    all_scenes = all_rows(root, "scene", Scene)
    scene_of = {row.token: row for row in all_scenes if row.name in names}
    missing = names - {scene.name for scene in scene_of.values()}
    if missing and not is_predefined:  # the devkit, too, takes what is there of a predefined split
        raise InputError(f"{root.table('scene')} has no scenes {listing(sorted(missing))}")
    all_samples = all_rows(root, "sample", _Sample)
    stray = {row.scene_token for row in all_samples} - {row.token for row in all_scenes}
    if stray:
        raise InputError(f"{root.table('sample')} refers to scenes {listing(sorted(stray))}, which no table has")
    samples = [row for row in all_samples if row.scene_token in scene_of]
    if not samples:
        raise InputError(f"{root.table('sample')} has no samples of the {len(names)} scenes asked for")
    frames = {row.token: code for code, row in enumerate(samples)}
    if len(frames) < len(samples):
        twice = [token for token, n in Counter(row.token for row in samples).items() if n > 1]
        raise InputError(f"{root.table('sample')} has samples more than once: {listing(twice)}")

    sizes = {
        name: root.table(name).stat().st_size
        for name in ("sample_annotation", "sample_data", "ego_pose")
        if root.table(name).exists()
    }
    total = sum(sizes.values())
    apart = total - sizes.get("sample_annotation", 0) > LARGE
    worker = _tables_worker.start(root, list(frames), channel) if apart else None
    try:
        annotations = _Annotations(root, frames, lambda n: progress(n, total))
        ego = _tables_worker.finish(worker) if worker else None
    finally:
        if worker:
            _tables_worker.stop(worker)
    if ego is None:
        done = sizes.get("sample_annotation", 0)
        ego = ego_positions(root, set(frames), channel, lambda n: progress(done + n, total))

    category = {row.token: row.name for row in all_rows(root, "category", _Named)}
    instance = {row.token: row.category_token for row in all_rows(root, "instance", _Instance)}
    attribute = {row.token: row.name for row in all_rows(root, "attribute", _Named)}
    location = {row.token: row.location for row in all_rows(root, "log", Log)} if root.table("log").exists() else {}
    table = root.table("sample_annotation")
    column = annotations.columns

    for code, tokens in enumerate(annotations.tables["attribute"]):
        if len(tokens) > 1:
            raise InputError(
                f"{table}: attributes of annotation {annotations.first('attribute', code)!r}",
                expected="at most one",
                got=len(tokens),
            )
    label, labels = annotations.named("instance", lambda token: category[instance[token]])
    attribute_code, attributes = annotations.named("attribute", lambda tokens: attribute[tokens[0]] if tokens else "")
    scene = [scene_of[row.scene_token] for row in samples]
    lidar_points, radar_points = column["lidar_points"], column["radar_points"]
    unknown = (lidar_points < 0) | (radar_points < 0)  # -1 in Lyft
    points = np.where(unknown, np.nan, (lidar_points + radar_points).astype(np.float64))
    rotation, size_wlh = column["rotation"], column["size"]
    if (zero := np.flatnonzero((rotation == 0).all(axis=1))).size:
        raise InputError(
            f"{table}: rotation of annotation {annotations.token(zero[0])!r}",
            expected="a quaternion",
            got=Words("zeros"),
        )
    if (flat := np.flatnonzero((size_wlh <= 0).any(axis=1))).size:
        raise InputError(
            f"{table}: size of annotation {annotations.token(flat[0])!r}",
            expected="positive",
            got=tuple(size_wlh[flat[0]].tolist()),
        )
    return Boxes(
        center_m=column["translation"],
        size_lwh_m=size_wlh[:, [1, 0, 2]],
        yaw_rad=yaw_of_rotation(rotation),
        rotation_wxyz=rotation,
        label=label,
        labels=labels or None,
        frame=column["frame"],
        frames=list(frames),
        velocity_mps=_velocities(annotations, {row.token: row.timestamp for row in all_samples}),
        attribute=attribute_code,
        attributes=attributes or None,
        num_points=points,
        ego_xy_m=np.array([ego[row.token] for row in samples]),
        box_columns={
            "visibility": annotations.strings("visibility"),
            "num_lidar_pts": lidar_points,
            "instance": annotations.strings("instance"),
        },
        frame_columns={
            "scene": np.array([one.name for one in scene]),
            "timestamp_us": np.array([round(row.timestamp) for row in samples], np.int64),
            "location": np.array([location.get(one.log_token, "") for one in scene]),
            "description": np.array([one.description for one in scene]),
        },
        partial=not is_predefined,
        source=str(root.dataroot),
    )


#: One annotation as bytes, and how numpy reads them; the last six are codes.
_PACK = struct.Struct("=10d2q7i").pack
_ROW = np.dtype(
    [
        ("translation", np.float64, 3),
        ("size", np.float64, 3),
        ("rotation", np.float64, 4),
        ("lidar_points", np.int64),
        ("radar_points", np.int64),
        ("frame", np.int32),
        ("token", np.int32),
        ("prev", np.int32),
        ("next", np.int32),
        ("instance", np.int32),
        ("visibility", np.int32),
        ("attribute", np.int32),
    ]
)


class _Annotations:
    """Columns of the annotations of some samples, in the order of the file; codes point into the tables.

    Parameters
    ----------
    root : Root
    frames : dict
        Code of each wanted sample.
    progress : callable
        Called with the bytes done.
    """

    def __init__(self, root: Root, frames: dict[str, int], progress: Callable[[int], None]) -> None:
        self.root, self.frames = root, frames
        token, instance, visibility = Codes[str](), Codes[str](), Codes[str]()
        attribute = Codes[tuple[str, ...]]()
        token[""] = 0  # as a neighbour: none
        parts: list[NDArray[np.void]] = []
        for piece in rows(root.table("sample_annotation"), _Annotation, progress):
            packed = [
                _PACK(*a.translation, *a.size, *a.rotation, a.num_lidar_pts, a.num_radar_pts, frame,
                      token[a.token], token[a.prev], token[a.next],
                      instance[a.instance_token], visibility[a.visibility_token], attribute[a.attribute_tokens])
                for a in piece
                if (frame := frames.get(a.sample_token)) is not None
            ]  # fmt: skip
            parts.append(np.frombuffer(b"".join(packed), _ROW))
        whole = np.concatenate(parts)
        self.columns: dict[str, NDArray[Any]] = {name: whole[name].copy() for name in _ROW.names or ()}
        self.tokens = list(token)
        self.tables: dict[str, list[Any]] = {
            "instance": list(instance),
            "visibility": list(visibility),
            "attribute": list(attribute),
        }

    def token(self, row: int) -> str:
        """Token of an annotation."""
        token: str = self.tokens[self.columns["token"][row]]
        return token

    def strings(self, name: str) -> NDArray[np.str_]:
        """A column as strings."""
        strings: NDArray[np.str_] = np.array(self.tables[name] or [""], dtype=str)[self.columns[name]]
        return strings

    def first(self, name: str, code: int) -> str:
        """Token of the first annotation with this code in a column."""
        return self.token(int(np.flatnonzero(self.columns[name] == code)[0]))

    def named(self, name: str, name_of: Callable[[Any], str]) -> tuple[NDArray[np.int32], list[str]]:
        """Codes and table of the names that the entries of a column stand for."""
        table = Codes[str]()
        codes = []
        for code, entry in enumerate(self.tables[name]):
            try:
                codes.append(table[name_of(entry)])
            except KeyError as error:
                raise InputError(
                    f"{self.root.table('sample_annotation')}: annotation {self.first(name, code)!r} refers to {error}, "
                    "which no table has"
                ) from None
        return np.array(codes or [0], np.int32)[self.columns[name]], list(table)


def _velocities(annotations: _Annotations, timestamp: dict[str, float]) -> NDArray[np.float64]:
    """Velocity (N, 2) from the neighbours on the track; NaN where there is none, or too long a gap."""
    root, column, tokens = annotations.root, annotations.columns, annotations.tokens
    n_rows = len(column["token"])
    place = np.full(len(tokens), -1)
    own = np.arange(n_rows)
    place[column["token"]] = own
    position = column["translation"]
    seconds_at = 1e-6 * np.array([timestamp[token] for token in annotations.frames], np.float64)[column["frame"]]
    asked = np.zeros(len(tokens), np.bool_)
    asked[column["prev"]] = asked[column["next"]] = True
    asked[0] = False
    strange = {tokens[code]: code for code in np.flatnonzero(asked & (place < 0)).tolist()}
    if strange:  # neighbours in samples that were not asked for
        known: dict[str, _Annotation] = {}
        for piece in rows(root.table("sample_annotation"), _Annotation):
            known.update((row.token, row) for row in piece if row.token in strange)
        missing = strange.keys() - known.keys()
        if missing:
            raise InputError(f"{root.table('sample_annotation')} lacks the neighbours {listing(sorted(missing))}")
        try:
            further = 1e-6 * np.array([timestamp[row.sample_token] for row in known.values()], np.float64)
        except KeyError as error:
            raise InputError(f"{root.table('sample')} lacks the sample {error}") from None
        place[[strange[token] for token in known]] = n_rows + np.arange(len(known))
        position = np.concatenate([position, [row.translation for row in known.values()]])
        seconds_at = np.concatenate([seconds_at, further])
    has_prev, has_next = column["prev"] > 0, column["next"] > 0
    first, last = np.where(has_prev, place[column["prev"]], own), np.where(has_next, place[column["next"]], own)
    seconds = seconds_at[last] - seconds_at[first]
    moved = position[last] - position[first]
    with np.errstate(divide="ignore", invalid="ignore"):
        velocity: NDArray[np.float64] = moved[:, :2] / seconds[:, None]
    both = has_prev & has_next
    unknown = ~(has_prev | has_next) | (seconds > np.where(both, 3.0, 1.5))
    velocity[unknown | ~np.isfinite(velocity).all(axis=1)] = np.nan
    return velocity


def all_rows(root: Root, name: str, kind: type[T]) -> list[T]:
    """All rows of a table, for the small ones."""
    return [row for piece in rows(root.table(name), kind) for row in piece]


def find_root(dataroot: Path, version: str | None) -> Root:
    """Find the version folder of a data set, or raise an InputError that says what is there."""
    if not dataroot.is_dir():
        raise InputError(
            f"data set {dataroot}", expected="a folder", got=Words("a file" if dataroot.exists() else "nothing")
        )
    there = sorted(path.name for path in dataroot.glob("v1.*-*") if path.is_dir())
    if version is None:
        if len(there) != 1:
            raise InputError(
                f"{dataroot} holds {'no' if not there else 'more than one'} v1.*-* folder: "
                + (f"choose a version of {listing(there)}" if there else "is it the folder above the tables?")
            )
        version = there[0]
    if not (dataroot / version).is_dir():
        raise InputError(f"{dataroot} has no version {version!r}" + (f": it has {listing(there)}" if there else ""))
    return Root(dataroot, version)


def _scene_names(root: Root, split: str | None, scenes: list[str] | None, splits: Splits) -> tuple[set[str], bool]:
    """Names of the scenes asked for, and whether they are a predefined split."""
    if scenes is not None:
        if split is not None:
            raise InputError("give a split or scenes, not both")
        if not scenes:
            raise InputError("scenes", expected="at least one name")
        return set(scenes), False
    path = root.dataroot / root.version / "splits.json"
    custom: dict[str, list[str]] = {}
    if path.exists():
        with open_file(path) as file:
            text = file.read()
        try:
            custom = msgspec.json.decode(text, type=dict[str, list[str]])
        except msgspec.DecodeError as error:
            raise InputError(f"{path}", expected="an object {split: [scene name, …]}", got=Words(error)) from None
    if split is None:
        defaults = {"mini": "mini_val", "trainval": "val", "test": "test"}
        split = next((name for ending, name in defaults.items() if root.version.endswith(ending)), None)
        validation = [name for name in custom if name.endswith("val")]
        if split is None and len(validation) == 1:
            split = validation[0]
        if split is None:
            raise InputError(f"which split of {root.version}?", hint=f"splits.json has {listing(custom)}")
    if split in splits.version:
        ending = splits.version[split]
        if not root.version.endswith(ending):
            raise InputError(
                f"version for split {split!r}",
                expected=f"one that ends in {ending!r}",
                got=root.version,
                hint=f"it has the splits {listing(custom)}" if custom else "",
            )
        return set(splits.scenes_of(split)), True
    if split not in custom:
        known = [*(name for name, ending in splits.version.items() if root.version.endswith(ending)), *custom]
        raise InputError(f"{root.dataroot} has no split {split!r}: choose of {listing(known, shown=12)}")
    return set(custom[split]), False


def _diagnosis(path: Path, piece: bytes, position: int, n_rows: int, error: Exception) -> InputError:
    """Say what is wrong with a piece that starts at a byte of the file and after so many rows."""
    found = flaw(piece)
    if found:
        return InputError(f"{path} is not valid JSON: {found[1]} at byte {position + found[0]}")
    if isinstance(error, UnicodeDecodeError):
        return InputError(f"{path} is not UTF-8: {error.reason} between bytes {position} and {position + len(piece)}")
    message, _, place = str(error).rstrip("`").partition(" - at `$[")
    row, _, rest = place.partition("]")
    if not row.isdigit():
        return InputError(f"{path}: {error}")
    return InputError(f"{path}: row {n_rows + int(row)}{rest and f', {rest.lstrip(chr(46))}'}: {message}")
