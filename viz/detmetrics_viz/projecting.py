"""Projecting: a pinhole camera, points and lines onto its image, lines clipped at the border and behind the camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics.geometry import Pose

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

#: Nothing nearer to a camera than this is drawn, metres.
NEAR_M = 0.1


@dataclass(frozen=True, eq=False)
class Pinhole:
    """A pinhole camera; its axes are x right, y down, z ahead.

    Attributes
    ----------
    width, height : int
        Pixels of the image; the middle of the first pixel is at (0, 0).
    matrix : float64 (3, 3)
        Intrinsic: focal lengths and principal point, pixels.
    pose : Pose
        From the frame of the points to that of the camera.
    """

    width: int
    height: int
    matrix: Floats
    pose: Pose

    def project(self, points_m: ArrayLike) -> tuple[Floats, Floats]:
        """Give pixels (N, 2) and depths (N,) in metres of points (N, 3); pixels are NaN behind the camera."""
        return _onto(self.matrix, self.pose.apply(points_m))

    def ray(self, pixel: ArrayLike) -> tuple[Floats, Floats]:
        """Give where the camera is, (3,), and which way a pixel looks, (3,), in the frame of the points."""
        back = self.pose.inverse()
        return back.translation_m, back.rotation @ np.linalg.solve(self.matrix, np.append(np.asarray(pixel), 1.0))

    def scaled(self, factor: float) -> Pinhole:
        """Give the same view on an image of another size."""
        matrix = self.matrix.copy()
        matrix[:2] *= factor
        matrix[:2, 2] += (factor - 1) / 2  # pixels are counted from their middles
        return Pinhole(round(self.width * factor), round(self.height * factor), matrix, self.pose)

    def clip(self, ends_m: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
        """Cut lines to what the image shows.

        Parameters
        ----------
        ends_m : array_like (L, 2, 3)

        Returns
        -------
        pixels : float64 (M, 2, 2)
            Ends of what is left of lines, within the image.
        line : int64 (M,)
            Which lines these are, ascending.
        """
        given = np.asarray(ends_m, np.float64).reshape(-1, 2, 3)
        ends = self.pose.apply(given.reshape(-1, 3)).reshape(-1, 2, 3)
        start, way = ends[:, 0], ends[:, 1] - ends[:, 0]
        # the part in front of the camera: where depth(t) = start + t * way is at least NEAR_M
        front = _part(NEAR_M - start[:, 2], way[:, 2])
        line = np.flatnonzero(front[0] <= front[1])
        kept = np.stack([start[line] + t[line, None] * way[line] for t in front], axis=1)
        pixels = _onto(self.matrix, kept.reshape(-1, 3))[0].reshape(-1, 2, 2)
        start, way = pixels[:, 0], pixels[:, 1] - pixels[:, 0]
        low, high = np.zeros(len(line)), np.ones(len(line))  # Liang and Barsky 1984
        for axis, limit in ((0, self.width - 1), (1, self.height - 1)):
            for need, slope in ((-start[:, axis], way[:, axis]), (start[:, axis] - limit, -way[:, axis])):
                first, last = _part(need, slope)
                low, high = np.maximum(low, first), np.minimum(high, last)
        inside = np.flatnonzero(low <= high)
        cut = np.stack([start[inside] + t[inside, None] * way[inside] for t in (low, high)], axis=1)
        return cut, line[inside]


def ray_through_boxes(
    origin_m: Floats, way: Floats, nodes: NDArray[Any], margin_m: float = 0.0
) -> tuple[Floats, Floats]:
    """Give where a ray enters and leaves boxes, in lengths of ``way``; it misses where it enters after it leaves.

    Parameters
    ----------
    origin_m, way : float64 (3,)
    nodes : array (B, 10, 3)
        See :data:`detmetrics_viz.scene.EDGES`.
    margin_m : float
        By how much boxes are larger on each side.

    Returns
    -------
    enter, leave : float64 (B,)
    """
    corners = nodes.astype(np.float64)
    edges = corners[:, [0, 0, 4]] - corners[:, [1, 3, 0]]  # length, width, height
    size = np.linalg.norm(edges, axis=2)
    axes = edges / size[:, :, None]
    start = np.einsum("bij,bj->bi", axes, origin_m - corners[:, :8].mean(axis=1))
    along = np.einsum("bij,j->bi", axes, way)
    half = size / 2 + margin_m
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.sort(np.stack([(-half - start) / along, (half - start) / along]), axis=0)
    return np.nanmax(ends[0], axis=1, initial=-np.inf), np.nanmin(ends[1], axis=1, initial=np.inf)


def _onto(matrix: Floats, points: Floats) -> tuple[Floats, Floats]:
    depth = points[:, 2]
    flat = points @ matrix.T
    safe = np.where(depth >= NEAR_M * (1 - 1e-9), depth, np.nan)
    return flat[:, :2] / safe[:, None], depth


def _part(need: NDArray[Any], slope: NDArray[Any]) -> tuple[Floats, Floats]:
    """The part [first, last] of [0, 1] in which ``slope * t >= need``; empty (1, 0) where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = need / slope
    first = np.where(slope > 0, np.clip(t, 0, 2), np.where((slope == 0) & (need > 0), 2, 0))
    last = np.where(slope < 0, np.clip(t, -1, 1), np.where((slope == 0) & (need > 0), -1, 1))
    return first, last
