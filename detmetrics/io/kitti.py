"""The KITTI object formats: ``label_2``, result files and ``calib`` to Boxes in the lidar's frame; View-of-Delft's too.

One text file a frame, one line an object: type, truncated, occluded, alpha, 2-D box (left, top, right, bottom; pixels),
height, width, length, the *bottom* centre x, y, z in the axes of the rectified camera (x right, y down, z ahead), the
rotation about y and, in result files, the score (KITTI object development kit, ``readme.txt``). A calibration leads
from the lidar to that camera: ``R0_rect`` after ``Tr_velo_to_cam``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.errors import InputError, Words, listing
from detmetrics.files import open_file
from detmetrics.geometry import Pose, rotation_of_yaw, rotations_of_matrices, wrap_angle, yaw_of_rotation

__all__ = ["Calibration", "load_results", "load_truth", "read_calibration"]

Floats = NDArray[np.float64]
Upright = Literal["camera", "lidar"]
Progress = Callable[[int, int], None]
_DONT_CARE = "DontCare"
_WIDTH = 14  # truncated, occluded, alpha, left, top, right, bottom, height, width, length, x, y, z, rotation
_BOX_AXES = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # a box's own axes in the camera's at rotation 0


@dataclass(frozen=True, eq=False)
class Calibration:
    """What one calibration file says.

    Attributes
    ----------
    lidar_to_camera : Pose
        From the lidar into the rectified camera axes that boxes are in; nearly a rigid motion, as the file has it.
    projection : float64 (3, 4)
        ``P2``: from there to the pixels of the left colour camera, homogeneous.
    source : str
        The file.
    """

    lidar_to_camera: Pose
    projection: Floats
    source: str = ""

    def to_lidar(self, points_m: Floats) -> Floats:
        """Bring points (N, 3) from the camera's axes into the lidar's frame."""
        rotation, translation = self.lidar_to_camera
        return np.asarray(np.linalg.solve(rotation, (points_m - translation).T).T, np.float64)


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration file.

    Raises
    ------
    InputError
        Missing file, missing or broken matrices.
    """
    with open_file(path) as file:
        lines = file.read().decode("utf-8", "replace").splitlines()
    found = {key.strip(): words.split() for key, _, words in (line.partition(":") for line in lines)}
    matrices: list[Floats] = []
    for name, other, shape in (
        ("P2", "P2", (3, 4)),
        ("R0_rect", "R_rect", (3, 3)),
        ("Tr_velo_to_cam", "Tr_velo_cam", (3, 4)),
    ):
        words = found.get(name, found.get(other))
        matrix: Floats = np.full(shape, np.nan)
        with suppress(TypeError, ValueError):
            matrix = np.array(words, np.float64).reshape(shape)
        if not np.isfinite(matrix).all():
            expected = f"{shape[0] * shape[1]} numbers"
            raise InputError(
                f"{path}: {name}", expected=expected, got=Words("no such line") if words is None else " ".join(words)
            )
        matrices.append(matrix)
    projection, rectified, moved = matrices
    pose = Pose(rectified @ moved[:, :3], rectified @ moved[:, 3])
    if abs(np.linalg.det(pose.rotation)) < 0.5:
        raise InputError(f"{path}: R0_rect and Tr_velo_to_cam", expected="rotations")
    return Calibration(pose, projection, str(path))


def load_truth(
    labels: str | Path, calib: str | Path, *, upright: Upright = "camera", progress: Progress | None = None
) -> Boxes:
    """Read labels.

    Parameters
    ----------
    labels, calib : path
        A ``label_2`` file and its calibration, or the two folders, whose files are paired by name.
    upright : str
        Whose vertical axis boxes turn about: the ``"camera"``'s, as KITTI defines it, or the ``"lidar"``'s, as
        View-of-Delft does, whose camera looks 7° down.
    progress : callable, optional
        Called with the files done and the files in all.

    Returns
    -------
    Boxes
        In the frame of the lidar, under their types; a frame is called like its file (``000008``). The tilt of the
        camera is in ``rotation_wxyz``. Box columns ``truncated``, ``occluded``, ``alpha_rad`` and ``bbox_px`` (N, 4:
        left, top, right, bottom); frame column ``dont_care_px`` (F, K, 4), the regions ``DontCare``, which have no box
        in space, padded with NaN.

    Raises
    ------
    InputError
        Missing files, lines of too few words or of words that are not numbers, sizes that are not positive.
    """
    return _load(Path(labels), Path(calib), upright, needs_score=False, progress=progress)


def load_results(
    results: str | Path, calib: str | Path, *, upright: Upright = "camera", progress: Progress | None = None
) -> Boxes:
    """Read results: as :func:`load_truth`, and every line ends with a score.

    Raises
    ------
    InputError
        As there; also lines without a score. KITTI's scores may be negative; Boxes refuse that.
    """
    return _load(Path(results), Path(calib), upright, needs_score=True, progress=progress)


def _load(labels: Path, calib: Path, upright: Upright, *, needs_score: bool, progress: Progress | None) -> Boxes:
    if upright not in ("camera", "lidar"):
        raise InputError("upright", expected="'camera' or 'lidar'", got=upright)
    files = sorted(labels.glob("*.txt")) if labels.is_dir() else [labels]
    if not files:
        raise InputError(f"{labels} holds no .txt files")
    calibrations = [calib / file.name for file in files] if calib.is_dir() else [calib]
    if len(calibrations) != len(files):
        raise InputError(f"calib {calib}", expected=f"a folder, since {labels} is one", got=Words("a file"))
    missing = [path.name for path in calibrations if not path.exists()]
    if missing:
        raise InputError(
            f"{calib} lacks {listing(missing)}" if calib.is_dir() else f"cannot read {calib}: no such file"
        )
    parts: list[dict[str, Any]] = []
    dont_care: list[Floats] = []
    for i, (file, calibration) in enumerate(zip(files, calibrations, strict=True)):
        types, numbers = _lines(file, needs_score)
        is_box = types != _DONT_CARE
        dont_care.append(numbers[~is_box, 3:7])
        parts.append({"label": types[is_box], **_placed(numbers[is_box], read_calibration(calibration), upright)})
        if progress:
            progress(i + 1, len(files))
    counts = [len(part["label"]) for part in parts]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    numbers = whole.pop("numbers")
    padded = np.full((len(files), max(map(len, dont_care)), 4), np.nan)
    for row, regions in zip(padded, dont_care, strict=True):
        row[: len(regions)] = regions
    return Boxes(
        **{**whole, "label": whole["label"].tolist()},
        score=numbers[:, 14] if needs_score else None,
        frame=np.repeat(np.arange(len(files)), counts),
        frames=[file.stem for file in files],
        box_columns={
            "truncated": numbers[:, 0],
            "occluded": numbers[:, 1].astype(np.int64),
            "alpha_rad": numbers[:, 2],
            "bbox_px": numbers[:, 3:7],
        },
        frame_columns={"dont_care_px": padded},
        source=str(labels),
    )


def _lines(path: Path, needs_score: bool) -> tuple[NDArray[np.str_], Floats]:
    """Types, and the numbers after them: 14, and the score where it is needed."""
    width = _WIDTH + needs_score
    with open_file(path) as file:
        text = file.read()
    try:
        lines = text.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text") from None
    types, rows = [], []
    for i, line in enumerate(lines, 1):
        kind, *words = line.split() or [""]
        if not kind:
            continue
        if len(words) < width:
            what = "a type, 14 numbers and a score" if needs_score else "a type and 14 numbers"
            raise InputError(f"line {i}", expected=what, got=line, where=str(path))
        try:
            row = [float(word) for word in words[:width]]
        except ValueError as error:
            raise InputError(f"line {i}: {error}", where=str(path)) from None
        if not np.isfinite(row).all() or (kind != _DONT_CARE and min(row[7:10]) <= 0):
            raise InputError(f"line {i}", expected="finite numbers and positive sizes", got=line, where=str(path))
        if kind != _DONT_CARE and needs_score and row[14] < 0:
            hint = "KITTI allows negative scores; shift all of them, or take a logistic function"
            raise InputError(f"score of line {i}", expected="zero or more", got=row[14], where=str(path), hint=hint)
        types.append(kind)
        rows.append(row)
    return np.array(types, dtype=str), np.array(rows, np.float64).reshape(-1, width)


def _placed(numbers: Floats, calibration: Calibration, upright: Upright) -> dict[str, Any]:
    """Bring boxes into the lidar's frame."""
    height, width, length = numbers[:, 7:10].T
    bottom, turn = numbers[:, 10:13], numbers[:, 13]
    if upright == "camera":
        center = calibration.to_lidar(bottom - height[:, None] / 2 * np.array([0.0, 1.0, 0.0]))
        cos, sin, zero = np.cos(turn), np.sin(turn), np.zeros_like(turn)
        about_y = np.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos], axis=1).reshape(-1, 3, 3)
        rotation = rotations_of_matrices(np.linalg.inv(calibration.lidar_to_camera.rotation) @ about_y @ _BOX_AXES)
        yaw = yaw_of_rotation(rotation) if len(rotation) else turn
    else:
        center = calibration.to_lidar(bottom) + height[:, None] / 2 * np.array([0.0, 0.0, 1.0])
        yaw = wrap_angle(-turn - np.pi / 2)
        rotation = rotation_of_yaw(yaw)
    size = np.stack([length, width, height], axis=1)
    return {"center_m": center, "size_lwh_m": size, "yaw_rad": yaw, "rotation_wxyz": rotation, "numbers": numbers}
