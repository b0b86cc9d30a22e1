"""Angles, quaternions, corners: pure numpy, whole arrays at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


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
