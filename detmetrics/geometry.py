"""Angles, quaternions, poses, corners, points in boxes: pure numpy, whole arrays at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Pose(NamedTuple):
    """A rigid motion from one frame into another: ``rotation`` (3, 3) float64, then ``translation_m`` (3,) float64."""

    rotation: Floats
    translation_m: Floats

    @classmethod
    def of_quaternion(cls, rotation_wxyz: ArrayLike, translation_m: ArrayLike) -> Pose:
        """Make a pose from a quaternion (4,), real part first, and a translation (3,), as nuScenes writes them."""
        return cls(rotation_matrices(rotation_wxyz)[0], np.asarray(translation_m, dtype=np.float64))

    def apply(self, points_m: ArrayLike) -> Floats:
        """Move points (N, 3)."""
        moved: Floats = np.asarray(points_m, dtype=np.float64) @ self.rotation.T + self.translation_m
        return moved

    def after(self, first: Pose) -> Pose:
        """Join: the motion ``first``, then this one."""
        return Pose(self.rotation @ first.rotation, self.rotation @ first.translation_m + self.translation_m)

    def inverse(self) -> Pose:
        """Give the motion back."""
        return Pose(self.rotation.T, -self.rotation.T @ self.translation_m)


#: The motion that leaves everything where it is.
IDENTITY = Pose(np.eye(3), np.zeros(3))


def rotation_matrices(rotation_wxyz: ArrayLike) -> Floats:
    """Rotation matrices of quaternions, which are normalised first.

    Parameters
    ----------
    rotation_wxyz : array_like (N, 4)
        Quaternions, real part first, of positive length.

    Returns
    -------
    float64 (N, 3, 3)
    """
    q = np.asarray(rotation_wxyz, dtype=np.float64).reshape(-1, 4)
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = (
        (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
    )
    matrices: Floats = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    return matrices


def yaw_of_rotation(rotation_wxyz: ArrayLike) -> Floats:
    """Heading of the rotated x axis on the ground, radians in (-π, π]; shape (N,).

    This is how nuScenes reads a quaternion (``eval/common/utils.py: quaternion_yaw``); for boxes with roll or pitch it
    differs from an Euler angle.
    """
    q = np.asarray(rotation_wxyz, dtype=np.float64).reshape(-1, 4)
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    yaw: Floats = np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)
    return yaw


def rotation_of_yaw(yaw_rad: ArrayLike) -> Floats:
    """Quaternions (N, 4), real part first, of rotations about +z by ``yaw_rad`` (N,), radians."""
    half = np.asarray(yaw_rad, dtype=np.float64) / 2
    zero = np.zeros_like(half)
    return np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1)


def rotations_of_matrices(matrices: ArrayLike) -> Floats:
    """Quaternions (N, 4), real part first and not negative, of rotation matrices (N, 3, 3).

    Of a matrix that is a rotation only nearly, as calibrations are with few digits, the nearest one: the eigenvector
    of the largest eigenvalue (Bar-Itzhack 2000, "New method for extracting the quaternion from a rotation matrix").
    """
    m = np.asarray(matrices, dtype=np.float64).reshape(-1, 3, 3)
    k = np.empty((len(m), 4, 4))
    trace = np.trace(m, axis1=1, axis2=2)
    k[:, 0, 0] = trace
    k[:, 1:, 1:] = m + m.transpose(0, 2, 1) - trace[:, None, None] * np.eye(3)
    k[:, 0, 1:] = k[:, 1:, 0] = np.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], 1)
    quaternions: Floats = np.linalg.eigh(k)[1][:, :, -1]
    return np.where(quaternions[:, :1] < 0, -quaternions, quaternions)


def ground_corners(center_m: ArrayLike, size_lwh_m: ArrayLike, yaw_rad: ArrayLike) -> Floats:
    """Corners on the ground, counter-clockwise from front left.

    Parameters
    ----------
    center_m, size_lwh_m, yaw_rad : array_like (N, 3), (N, 3), (N,)
        Boxes in metres and radians.

    Returns
    -------
    float64 (N, 4, 2)
    """
    center, size, yaw = (np.asarray(value, dtype=np.float64) for value in (center_m, size_lwh_m, yaw_rad))
    corner = np.array([(0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5)])
    x, y = np.moveaxis(size[:, None, :2] * corner, -1, 0)
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    corners: Floats = center[:, None, :2] + np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
    return corners


def wrap_angle(angle_rad: ArrayLike) -> NDArray[Any]:
    """Bring angles into [-π, π), radians."""
    return (np.asarray(angle_rad) + np.pi) % (2 * np.pi) - np.pi


def points_in_boxes(
    points_m: ArrayLike, center_m: ArrayLike, size_lwh_m: ArrayLike, rotation_wxyz: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find which points lie in which boxes, boundary included.

    Time and memory grow with the points near boxes, not with points times boxes: points are sorted into square cells on
    the ground, and a box looks only at the cells that it touches.

    Parameters
    ----------
    points_m : array_like (P, 3)
        Finite, in metres, in the same frame as the boxes.
    center_m, size_lwh_m : array_like (N, 3), (N, 3)
        Boxes in metres.
    rotation_wxyz : array_like (N, 4)
        Quaternions, real part first, of positive length.

    Returns
    -------
    box, point : int64 (K,), int64 (K,)
        The pairs, ascending by box, then by point; ``np.bincount(box, minlength=N)`` counts the points of each box.

    Notes
    -----
    The same test as nuscenes-devkit 1.2.0 ``utils/geometry_utils.py: points_in_box``, which takes one box at a time.
    """
    points = np.asarray(points_m, dtype=np.float64).reshape(-1, 3)
    center = np.asarray(center_m, dtype=np.float64).reshape(-1, 3)
    half = np.asarray(size_lwh_m, dtype=np.float64).reshape(-1, 3) / 2
    axes = rotation_matrices(rotation_wxyz) if len(center) else np.empty((0, 3, 3))
    none = np.empty(0, np.int64)
    if not len(points) or not len(center):
        return none, none
    reach = np.einsum("nij,nj->ni", np.abs(axes), half)[:, :2] + 1e-6  # half extents of the box around the box
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    cell_m = max(1.0, float((high - low).max()) / 2048)
    n_cells = ((high - low) // cell_m).astype(np.int64) + 1

    cell = ((points[:, :2] - low) // cell_m).astype(np.int64)
    code = cell[:, 0] * n_cells[1] + cell[:, 1]
    order = np.argsort(code, kind="stable")
    code = code[order]
    first = np.clip(np.floor((center[:, :2] - reach - low) / cell_m), 0, n_cells).astype(np.int64)
    last = np.clip(np.floor((center[:, :2] + reach - low) / cell_m), -1, n_cells - 1).astype(np.int64)
    # one run of sorted points for each box and each column of cells that it touches
    n_columns = np.where((last >= first).all(axis=1), last[:, 0] - first[:, 0] + 1, 0)
    box = np.repeat(np.arange(len(center)), n_columns)
    column = first[box, 0] + np.arange(len(box)) - np.repeat(np.cumsum(n_columns) - n_columns, n_columns)
    start = np.searchsorted(code, column * n_cells[1] + first[box, 1], side="left")
    stop = np.searchsorted(code, column * n_cells[1] + last[box, 1], side="right")
    length = stop - start

    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = [(none, none)]
    ends = np.cumsum(length)
    run = 0
    while run < len(length):  # a million candidates at a time
        until = max(int(np.searchsorted(ends, ends[run] - length[run] + 1_000_000, side="right")), run + 1)
        count = length[run:until]
        inner = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        point = order[np.repeat(start[run:until], count) + inner]
        of_box = np.repeat(box[run:until], count)
        away = points[point] - center[of_box]
        inside = np.ones(len(point), dtype=bool)
        for axis in range(3):
            along = axes[of_box, 0, axis] * away[:, 0] + axes[of_box, 1, axis] * away[:, 1]
            along += axes[of_box, 2, axis] * away[:, 2]
            inside &= np.abs(along) <= half[of_box, axis]
        found.append((of_box[inside], point[inside]))
        run = until
    boxes, inside_points = (np.concatenate(column) for column in zip(*found, strict=True))
    ascending = np.lexsort((inside_points, boxes))
    return boxes[ascending], inside_points[ascending]
