"""The writer of a synthetic data set: the thirteen nuScenes tables, split names and map masks."""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError
from detmetrics.synth.categories import ATTRIBUTE_DESCRIPTIONS, ATTRIBUTES, KINDS
from detmetrics.synth.scenes import LOCATIONS, SPLITS, STATIC_TOKENS, TOKENS, Plan, Scene, stream, tokens
from detmetrics.synth.sensors import LIDAR_TOP, SENSORS, Row, Sensor, calibration, recordings

#: Name of the folder with the tables, the ``version`` that the devkit is asked for.
VERSION = "v1.0-synth"
TABLES = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample", "sample_annotation",
    "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip
_VISIBILITY = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class DatasetSummary:
    """What :func:`write_dataset` wrote: where, the scene names of each split, and the number of rows of each table."""

    path: Path
    version: str
    splits: dict[str, list[str]]
    n_rows: dict[str, int]


def write_dataset(
    out: str | os.PathLike[str],
    *,
    train_scenes: int,
    val_scenes: int,
    seed: int = 0,
    samples_per_scene: int = 40,
    sensor_rows: bool = False,
    progress: Progress | None = None,
) -> DatasetSummary:
    """Write a synthetic data set in the nuScenes table format, boxes only.

    The official devkit reads it with ``NuScenes(version="v1.0-synth", dataroot=out)``; its splits ``synth_train`` and
    ``synth_val`` are custom splits of the devkit. The same arguments give the same bytes, and a scene is the same
    however many others there are. Memory does not grow with the number of scenes.

    Parameters
    ----------
    out : path
        Folder to make; it may exist if it is empty. It appears when everything is written, or not at all.
    train_scenes, val_scenes : int
        Number of scenes of each split, one may be zero.
    seed : int
        Zero or more.
    samples_per_scene : int
        Key frames of each scene, at 2 Hz.
    sensor_rows : bool
        Rows of all twelve sensors and of the sweeps between the key frames in ``sample_data`` and ``ego_pose``, about
        77 a sample as in nuScenes, rather than the lidar's key frames alone. There are no sensor files either way.
    progress : callable, optional
        Called as ``progress(done, total)`` after each scene.

    Returns
    -------
    DatasetSummary

    Raises
    ------
    InputError
        Where ``out`` is a file or not empty, or a count makes no data set.
    """
    plan = Plan(seed=seed, train_scenes=train_scenes, val_scenes=val_scenes, samples_per_scene=samples_per_scene)
    plan.check()
    path = Path(out).absolute()
    n_scenes = train_scenes + val_scenes
    with _new_folder(path) as folder:
        static = Static(seed)
        log_tokens: dict[str, list[str]] = {location: [] for location in LOCATIONS}
        (folder / VERSION).mkdir()
        with ExitStack() as stack:
            table = {name: stack.enter_context(Table(folder / VERSION / f"{name}.json")) for name in TABLES}
            for name, rows in static.rows().items():
                table[name].extend(rows)
            scenes = (scene for split in SPLITS for scene in plan.scenes(split))
            for done, scene in enumerate(scenes, start=1):
                logfile = f"{scene.vehicle}-{scene.start:%Y-%m-%d-%H-%M-%S%z}"
                rows_of = scene_rows(
                    scene, static, SENSORS if sensor_rows else (LIDAR_TOP,), sweeps=sensor_rows, logfile=logfile
                )
                log_tokens[scene.location].append(rows_of["log"][0]["token"])
                for name, rows in rows_of.items():
                    table[name].extend(rows)
                if progress is not None:
                    progress(done, n_scenes)
            table["map"].extend(static.maps(log_tokens))
        splits: dict[str, list[str]] = {split: plan.scene_names(split) for split in SPLITS}
        write_json(folder / VERSION / "splits.json", splits)
        write_json(folder / VERSION / "synth.json", {"plan": plan, "fingerprint": plan.fingerprint()})
        (folder / "maps").mkdir()
        for row in static.maps(log_tokens):
            (folder / row["filename"]).write_bytes(_white_png())
    return DatasetSummary(path, VERSION, splits, {name: table[name].n_rows for name in TABLES})


def read_plan(dataset_dir: str | os.PathLike[str]) -> Plan:
    """Read what a data set was made from.

    Raises
    ------
    InputError
        Where there is no synthetic data set, or where this installation would make other scenes from the same plan.
    """
    path = Path(dataset_dir) / VERSION / "synth.json"
    try:
        note = msgspec.json.decode(path.read_bytes(), type=_Note)
    except OSError as error:
        raise InputError(f"no synthetic data set in {dataset_dir}: cannot read {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is not what write_dataset writes: {error}") from None
    note.plan.check()
    if note.plan.fingerprint() != note.fingerprint:
        raise InputError(
            f"{path.parent} was written by another version of detmetrics or numpy, which makes other scenes from the "
            "same seed",
            hint="write the data set again with this one",
        )
    return note.plan


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``synth.json``."""

    plan: Plan
    fingerprint: str


def check_new_folder(out: Path) -> None:
    """Refuse a place that is not free for a data set."""
    if out.exists() and not out.is_dir():
        raise InputError("out", expected="a folder", got=str(out))
    if out.is_dir() and any(out.iterdir()):
        raise InputError("out", expected="an empty or new folder", got=str(out))


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside ``out`` that becomes ``out`` at the end, and vanishes where anything goes wrong."""
    check_new_folder(out)
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot make {out}: {error.strerror}") from None
    try:
        yield partial
        partial.rename(out)  # replaces an empty folder
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


class Table:
    """A JSON array in a file, one row a line, written batch by batch."""

    def __init__(self, path: Path) -> None:
        self.path, self.n_rows = path, 0
        self._encoder = msgspec.json.Encoder()
        self._file: BinaryIO

    def __enter__(self) -> Table:
        self._file = self.path.open("wb")
        return self

    def extend(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        if rows:
            self._file.write(b",\n" if self.n_rows else b"[\n")
            # strings in JSON hold no raw line breaks, so those are the ones between the rows
            self._file.write(self._encoder.encode_lines(rows)[:-1].replace(b"\n", b",\n"))
            self.n_rows += len(rows)

    def __exit__(self, *error: object) -> None:
        self._file.write(b"\n]\n" if self.n_rows else b"[]\n")
        self._file.close()


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


class Static:
    """Tokens of the rows that do not belong to a scene."""

    def __init__(self, seed: int, sensors: Sequence[Sensor] = SENSORS) -> None:
        rng = stream(STATIC_TOKENS, seed)
        self.category = tokens(rng, len(KINDS))
        self.attribute = tokens(rng, len(ATTRIBUTES))
        self.sensor = dict(zip((one.channel for one in sensors), tokens(rng, len(sensors)), strict=True))
        self._modality = {one.channel: one.modality for one in sensors}
        self.map = dict(zip(LOCATIONS, tokens(rng, len(LOCATIONS)), strict=True))

    def rows(self) -> dict[str, list[Row]]:
        """Rows of the tables of categories, attributes, visibilities and sensors."""
        return {
            "category": [
                {"token": token, "name": kind.name, "description": kind.description}
                for token, kind in zip(self.category, KINDS, strict=True)
            ],
            "attribute": [
                {"token": token, "name": name, "description": ATTRIBUTE_DESCRIPTIONS[name]}
                for token, name in zip(self.attribute, ATTRIBUTES, strict=True)
            ],
            "visibility": [
                {"token": token, "level": level, "description": f"{level[1:]} % of the object can be seen."}
                for token, level in _VISIBILITY.items()
            ],
            "sensor": [
                {"token": token, "channel": channel, "modality": self._modality[channel]}
                for channel, token in self.sensor.items()
            ],
        }

    def maps(self, log_tokens: dict[str, list[str]]) -> list[Row]:
        """Rows of the table of map masks."""
        return [
            {
                "category": "semantic_prior",
                "token": token,
                "filename": f"maps/{token}.png",
                "log_tokens": log_tokens[location],
            }
            for location, token in self.map.items()
        ]


def scene_rows(
    scene: Scene, static: Static, sensors: Sequence[Sensor], *, sweeps: bool, logfile: str
) -> dict[str, list[Row]]:
    """Rows of one scene, of these sensors, with or without the recordings between key frames."""
    rng = scene.stream(TOKENS)
    scene_token, log_token = tokens(rng, 2)
    calibrated = dict(zip(sensors, tokens(rng, len(sensors)), strict=True))
    sample_data, ego_pose = recordings(scene, logfile, calibrated, sweeps)
    chain = ["", *scene.sample_token, ""]
    annotations, instances = _annotation_rows(scene, static, rng)
    return {
        "log": [
            {
                "token": log_token,
                "logfile": logfile,
                "vehicle": scene.vehicle,
                "date_captured": f"{scene.start:%Y-%m-%d}",
                "location": scene.location,
            }
        ],
        "scene": [
            {
                "token": scene_token,
                "log_token": log_token,
                "nbr_samples": len(scene.sample_token),
                "first_sample_token": scene.sample_token[0],
                "last_sample_token": scene.sample_token[-1],
                "name": scene.name,
                "description": scene.description,
            }
        ],
        "sample": [
            {"token": token, "timestamp": stamp, "prev": before, "next": after, "scene_token": scene_token}
            for token, stamp, before, after in zip(
                scene.sample_token, scene.timestamp_us.tolist(), chain, chain[2:], strict=False
            )
        ],
        "calibrated_sensor": [
            calibration(sensor, token, static.sensor[sensor.channel]) for sensor, token in calibrated.items()
        ],
        "sample_data": sample_data,
        "ego_pose": ego_pose,
        "sample_annotation": annotations,
        "instance": instances,
    }


def _annotation_rows(scene: Scene, static: Static, rng: np.random.Generator) -> tuple[list[Row], list[Row]]:
    """Rows of the tables of annotations and of instances (tracks)."""
    boxes = scene.boxes
    count = np.bincount(boxes.track)
    instance = tokens(rng, len(count))
    token = [*tokens(rng, len(boxes.track)), ""]  # row -1 is none
    columns: list[list[Any]] = [
        column.tolist()
        for column in (
            boxes.sample,
            boxes.track,
            boxes.visibility,
            boxes.attribute,
            boxes.center_m,
            boxes.size_lwh_m[:, [1, 0, 2]],
            boxes.rotation_wxyz,
            boxes.prev,
            boxes.next,
            boxes.n_lidar,
            boxes.n_radar,
        )
    ]
    attribute_tokens: list[list[str]] = [*([name] for name in static.attribute), []]  # code -1 is none
    annotations = [
        {
            "token": own,
            "sample_token": scene.sample_token[sample],
            "instance_token": instance[track],
            "visibility_token": str(visibility),
            "attribute_tokens": attribute_tokens[attribute],
            "translation": center,
            "size": size,
            "rotation": rotation,
            "prev": token[prev],
            "next": token[following],
            "num_lidar_pts": n_lidar,
            "num_radar_pts": n_radar,
        }
        for own, sample, track, visibility, attribute, center, size, rotation, prev, following, n_lidar, n_radar in zip(
            token, *columns, strict=False
        )
    ]
    first, last = np.flatnonzero(boxes.prev < 0), np.flatnonzero(boxes.next < 0)
    first, last = first[np.argsort(boxes.track[first])], last[np.argsort(boxes.track[last])]
    instances = [
        {
            "token": own,
            "category_token": static.category[kind],
            "nbr_annotations": n,
            "first_annotation_token": token[start],
            "last_annotation_token": token[end],
        }
        for own, kind, n, start, end in zip(
            instance, boxes.kind[first].tolist(), count.tolist(), first.tolist(), last.tolist(), strict=True
        )
    ]
    return annotations, instances


def png(lines: NDArray[np.uint8], level: int = -1) -> bytes:
    """Give a grayscale image as PNG, compressed at a level of zlib; lines (H, 1 + W) begin with their filter."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", lines.shape[1] - 1, lines.shape[0], 8, 0, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), level)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _white_png() -> bytes:
    """Give a white 8 × 8 image."""
    return png(np.array([[0] + [255] * 8] * 8, np.uint8))
