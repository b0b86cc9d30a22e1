"""The writer of a lidar world: a complete data set in the nuScenes format, clouds included, that can be interrupted.

Scenes are made by a few threads, one scene each; the kernels release the GIL. Everything goes into the hidden folder
``.NAME.partial`` beside the output: the clouds, and for each finished scene one file with its rows of the tables. The
same command goes on where an interrupted one stopped. Only when all scenes are there, the tables are put together and
the folder gets its name.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import detmetrics
from detmetrics.errors import InputError
from detmetrics.files import whole_file
from detmetrics.synth import lidar, rays
from detmetrics.synth.places import Place, make_place_scene, record
from detmetrics.synth.scenes import SPLITS, STATIC_TOKENS, TOKENS, Plan, Scene, Split, stream, tokens
from detmetrics.synth.sensors import Row, recordings
from detmetrics.synth.tables import (
    TABLES,
    VERSION,
    DatasetSummary,
    Progress,
    Static,
    Table,
    check_new_folder,
    png,
    scene_rows,
    write_json,
)

#: Of the world: another number is another world from the same seed. Models that trained on it name it.
WORLD_VERSION = 1
CLOUD_BYTES = lidar.N_COLUMNS * lidar.N_RINGS * 20
_BOX_BYTES, _SWEEPS_A_SECOND_A_CORE = 45 * 700, 65.0  # JSON a sample; measured, see tests/bench/results.md
_MASK_M = 0.1


class WorldPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a lidar world is made from; ``world.json`` holds it.

    Attributes
    ----------
    world_version : int
    seed : int
        The same seed gives the same bytes.
    train_scenes, val_scenes : int
        Scenes of the splits ``synth_train`` and ``synth_val``.
    samples_per_scene : int
        Key frames a scene, at 2 Hz.
    sweeps : int
        Clouds between two key frames, evenly in time, 0 to 9; nuScenes has 9 (20 Hz).
    """

    world_version: int = WORLD_VERSION
    seed: int
    train_scenes: int
    val_scenes: int
    samples_per_scene: int
    sweeps: int

    def check(self) -> None:
        """Refuse a plan that makes no data set, as InputError."""
        self.scenes_plan().check()
        if not 0 <= self.sweeps <= 9:
            raise InputError("sweeps", expected="from 0 to 9", got=self.sweeps)
        if self.train_scenes + self.val_scenes > 9999:
            raise InputError(
                "train_scenes + val_scenes", expected="at most 9999", got=self.train_scenes + self.val_scenes
            )

    def scenes_plan(self) -> Plan:
        """Give the plan of seeds and names that the boxes-only world shares."""
        return Plan(
            seed=self.seed,
            train_scenes=self.train_scenes,
            val_scenes=self.val_scenes,
            samples_per_scene=self.samples_per_scene,
        )

    def jobs(self) -> list[tuple[Split, int, str]]:
        """Split, number and name of every scene."""
        plan = self.scenes_plan()
        return [(split, number, name) for split in SPLITS for number, name in enumerate(plan.scene_names(split))]

    def n_clouds(self) -> int:
        """Count the clouds."""
        n_scenes = self.train_scenes + self.val_scenes
        return n_scenes * (self.samples_per_scene + (self.samples_per_scene - 1) * self.sweeps)

    def n_bytes(self) -> int:
        """Estimate the size of the data set."""
        n_samples = (self.train_scenes + self.val_scenes) * self.samples_per_scene
        return self.n_clouds() * (CLOUD_BYTES + 1000) + n_samples * _BOX_BYTES

    def seconds(self, workers: int) -> float:
        """Estimate how long it takes, without compilation."""
        return self.n_clouds() / _SWEEPS_A_SECOND_A_CORE / max(min(workers, os.cpu_count() or 1), 1)


#: Two and two short scenes with the full sensor, for tests.
TINY = {"train_scenes": 2, "val_scenes": 2, "samples_per_scene": 4, "sweeps": 1}


@dataclass(frozen=True)
class WorldSummary(DatasetSummary):
    """What :func:`write_world` wrote, with the number of clouds and of scenes that an earlier run had left."""

    n_clouds: int = 0
    n_resumed: int = 0


def write_world(
    out: str | os.PathLike[str],
    *,
    train_scenes: int,
    val_scenes: int,
    seed: int = 0,
    samples_per_scene: int = 40,
    sweeps: int = 2,
    workers: int | None = None,
    progress: Progress | None = None,
) -> WorldSummary:
    """Write a synthetic lidar world in the nuScenes format: tables, clouds, maps.

    The official devkit reads it with ``NuScenes(version="v1.0-synth", dataroot=out)``; its splits are ``synth_train``
    and ``synth_val``. The same arguments give the same bytes, for any number of workers and however often it was
    interrupted. No two scenes share a town or a stream of random numbers. Memory does not grow with the scenes.

    Parameters
    ----------
    out : path
        Folder to make; it may exist if it is empty. It appears when everything is written. Until then the work is in
        ``.NAME.partial`` beside it, and the same call goes on from there.
    train_scenes, val_scenes : int
        Number of scenes of each split, one may be zero.
    seed : int
        Zero or more.
    samples_per_scene : int
        Key frames of each scene, at 2 Hz.
    sweeps : int
        Clouds between two key frames, 0 to 9.
    workers : int, optional
        Threads; default: the number of cores, at most 8.
    progress : callable, optional
        Called as ``progress(done, total)`` in clouds, from any thread.

    Returns
    -------
    WorldSummary

    Raises
    ------
    InputError
        Where ``out`` is a file or not empty, a setting makes no data set, there is too little room on the disk, another
        run writes there, or the partial folder is of another plan.
    """
    plan = WorldPlan(
        seed=seed,
        train_scenes=train_scenes,
        val_scenes=val_scenes,
        samples_per_scene=samples_per_scene,
        sweeps=sweeps,
    )
    plan.check()
    if workers is not None and workers < 1:
        raise InputError("workers", expected="at least 1", got=workers)
    path = Path(out).absolute()
    with _partial(path, plan) as folder:
        jobs = plan.jobs()
        missing = [job for job in jobs if not _rows_file(folder, job[2]).exists()]
        _make_scenes(folder, plan, missing, workers or min(os.cpu_count() or 1, 8), progress)
        n_rows = _finish(folder, plan)
        os.replace(folder, path) if not path.exists() else _take_place(folder, path)
    splits: dict[str, list[str]] = {split: plan.scenes_plan().scene_names(split) for split in SPLITS}
    return WorldSummary(path, VERSION, splits, n_rows, plan.n_clouds(), len(jobs) - len(missing))


def _take_place(folder: Path, path: Path) -> None:
    path.rmdir()  # empty, or this fails
    os.replace(folder, path)


def _rows_file(folder: Path, scene: str) -> Path:
    return folder / "scenes" / f"{scene}.json"


@contextmanager
def _partial(out: Path, plan: WorldPlan) -> Iterator[Path]:
    """Give the folder to work in, locked, new or of an earlier run of the same plan; OSError becomes InputError."""
    check_new_folder(out)
    folder = out.with_name(f".{out.name}.partial")
    note = folder / VERSION / "world.json"
    made = msgspec.json.format(
        msgspec.json.encode({"plan": plan, "detmetrics": detmetrics.__version__, "numpy": np.__version__}), indent=1
    )
    try:
        _check_room(folder, plan)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(f"{folder.name}.lock"), "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another run is writing {out}") from None
            try:
                if note.exists() and note.read_bytes() != made:
                    raise InputError(
                        f"{folder} holds an interrupted run with other settings or another version",
                        got=" ".join(note.read_text(errors="replace").split()),
                        hint="run that command again to finish it, or remove the folder",
                    )
                for name in ("scenes", "maps", VERSION, "samples/LIDAR_TOP", "sweeps/LIDAR_TOP"):
                    (folder / name).mkdir(parents=True, exist_ok=True)
                if not note.exists():
                    with whole_file(note) as file:
                        file.write(made)
                yield folder
            finally:
                os.unlink(lock.name)
    except OSError as error:
        raise InputError(
            f"cannot write {out}: {error.strerror or error}",
            hint=f"what is done stays in {folder}; the same command goes on from there",
        ) from None


def _check_room(folder: Path, plan: WorldPlan) -> None:
    done = sum(_rows_file(folder, name).exists() for _, _, name in plan.jobs())
    needed = plan.n_bytes() * (1 - done / max(plan.train_scenes + plan.val_scenes, 1))
    there = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise InputError(
            f"the disk of {there} has too little room: {needed / 1e9:.3g} GB are needed, {free / 1e9:.3g} GB are free"
        )


def _make_scenes(
    folder: Path, plan: WorldPlan, jobs: list[tuple[Split, int, str]], workers: int, progress: Progress | None
) -> None:
    """Make scenes in threads; the first error stops all."""
    total = plan.n_clouds()
    lock, stop = threading.Lock(), threading.Event()
    a_scene = total // max(plan.train_scenes + plan.val_scenes, 1)
    done = total - len(jobs) * a_scene

    def advance() -> None:
        nonlocal done
        if stop.is_set():
            raise _Stopped
        if progress is not None:
            with lock:
                done += 1
                progress(done, total)

    with ThreadPoolExecutor(min(workers, max(len(jobs), 1))) as pool:
        futures = {pool.submit(_make_scene, folder, plan, job, advance) for job in jobs}
        try:
            while futures:
                finished, futures = wait(futures, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise


class _Stopped(Exception):
    """Another scene has failed, or the user has had enough."""


def _make_scene(folder: Path, plan: WorldPlan, job: tuple[Split, int, str], advance: Callable[[], None]) -> None:
    """Make one scene: its clouds, its map, and last, whole or not at all, its rows."""
    split, number, name = job
    scene, place = make_place_scene(plan.seed, split, number, name, plan.samples_per_scene)
    static = _static(plan.seed)
    sensor = lidar.lidar_sensor(plan.sweeps)
    calibrated = {sensor: tokens(scene.stream(TOKENS), 3)[2]}  # as scene_rows draws it
    data, _ = recordings(scene, _logfile(scene), calibrated, sweeps=plan.sweeps > 0)
    sample = {token: code for code, token in enumerate(scene.sample_token)}
    times = [(row["timestamp"], sample[row["sample_token"]] if row["is_key_frame"] else -1) for row in data]

    def write(cloud: int, points: NDArray[np.float32]) -> None:
        (folder / data[cloud]["filename"]).write_bytes(points.tobytes())
        advance()

    scene = record(scene, place, times, write)
    rows = scene_rows(scene, static, (sensor,), sweeps=plan.sweeps > 0, logfile=_logfile(scene))
    (token,) = tokens(stream(STATIC_TOKENS, *scene.key), 1)
    rows["map"] = [
        {
            "category": "semantic_prior",
            "token": token,
            "filename": f"maps/{token}.png",
            "log_tokens": [rows["log"][0]["token"]],
        }
    ]
    (folder / "maps" / f"{token}.png").write_bytes(_mask(place))
    with whole_file(_rows_file(folder, name)) as file:
        file.write(msgspec.json.encode(rows))


def _logfile(scene: Scene) -> str:
    return f"{scene.vehicle}-{scene.start:%Y-%m-%d-%H-%M-%S%z}-{scene.location}"


def _static(seed: int) -> Static:
    return Static(seed, (lidar.lidar_sensor(0),))


def _finish(folder: Path, plan: WorldPlan) -> dict[str, int]:
    """Put the tables together, scene by scene."""
    static = _static(plan.seed)
    with ExitStack() as stack:
        table = {name: stack.enter_context(Table(folder / VERSION / f"{name}.json")) for name in TABLES}
        for name, rows in static.rows().items():
            table[name].extend(rows)
        for _, _, scene in plan.jobs():
            of_scene: dict[str, list[Row]] = msgspec.json.decode(_rows_file(folder, scene).read_bytes())
            for name, rows in of_scene.items():
                table[name].extend(rows)
    splits: dict[str, Any] = {split: plan.scenes_plan().scene_names(split) for split in SPLITS}
    write_json(folder / VERSION / "splits.json", splits)
    shutil.rmtree(folder / "scenes")
    if not plan.sweeps:
        shutil.rmtree(folder / "sweeps")
    return {name: table[name].n_rows for name in TABLES}


def _mask(place: Place) -> bytes:
    """Draw the streets as nuScenes does: a PNG in global axes, 255 on the street, 0.1 m a pixel, y up."""
    width, height = (np.ceil(place.corners_m().max(axis=0) / _MASK_M) + 1).astype(int).tolist()
    at_m = place.to_town(np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]))
    pixels = np.zeros((height, width), np.uint8)
    rays.draw_streets(at_m[0], at_m[1:] - at_m[0], place.town.streets, place.town.area, _MASK_M, pixels)
    # filter 2 of PNG, "up": each row as the difference to the one above, so that little is left to compress
    lines = np.empty((height, 1 + width), np.uint8)
    lines[:, 0], lines[0, 1:], lines[1:, 1:] = 2, pixels[0], pixels[1:] - pixels[:-1]
    return png(lines, level=1)
