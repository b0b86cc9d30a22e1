"""Glass: text and panels as a mesh of rectangles on a plane before the camera, for windows that draw only geometry."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from detmetrics_viz.lettering import mask_of
from detmetrics_viz.projecting import NEAR_M
from detmetrics_viz.themes import Theme, rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics_viz.lettering import Color, Image
    from detmetrics_viz.projecting import Pinhole

#: Where the glass is, metres before the camera; every panel or text lies a little nearer than the one before.
_DEPTH_M, _STEP_M = 1.05 * NEAR_M, 2e-6
_N_INKS = 3  # shades at the edges of letters


class GlassCanvas:
    """Collects what is written; :meth:`mesh` gives it as a mesh in the frame of the camera's points.

    Parameters
    ----------
    size : (int, int)
        Of the window.
    theme : Theme
        Panels are opaque here, and the edges of letters blend into its ``panel``.
    """

    def __init__(self, size: tuple[int, int], theme: Theme) -> None:
        self._size = size
        self._ground = np.array(rgb(theme.panel), np.float64)
        self._rectangles: list[NDArray[np.float64]] = []  # left, top, right, bottom
        self._colors: list[NDArray[np.float64]] = []
        self._depths: list[NDArray[np.float64]] = []

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self._size

    def panel(self, x: int, y: int, width: int, height: int, color: Color, opacity: float = 0.85) -> None:
        """Lay a rectangle."""
        self._add(np.array([[x, y, x + width, y + height]], np.float64), np.array([color], np.float64))

    def text(self, x: int, y: int, text: str, color: Color, size: int = 15) -> int:
        """Write a line whose upper left corner is at (x, y); give its width."""
        runs, ink = _runs(text, size)
        self._add(runs + np.array([x, y, x, y]), self._ground + ink[:, None] * (np.array(color) - self._ground))
        return int(mask_of(text, size).shape[1])

    def ramp(self, x: int, y: int, width: int, height: int, colors: Image) -> None:
        """Draw a colour ramp, lowest left."""
        edge = x + np.linspace(0, width, 65)
        whole = np.full(64, 1.0)
        at = np.linspace(0, len(colors) - 1, 64).astype(int)
        self._add(np.stack([edge[:-1], y * whole, edge[1:], (y + height) * whole], axis=1), colors[at].astype(float))

    def mesh(self, camera: Pinhole) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
        """Give vertices (V, 3), their colours (V, 3) from 0 to 1, and triangles (T, 3)."""
        if not self._rectangles:
            return np.empty((0, 3)), np.empty((0, 3)), np.empty((0, 3), np.int32)
        box = np.concatenate(self._rectangles) - 0.5  # edges of pixels, whose middles are whole numbers
        depth = np.concatenate(self._depths)[:, None]
        pixels = box[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
        away = (pixels - camera.matrix[:2, 2]) / np.diag(camera.matrix)[:2] * depth[:, :, None]
        local = np.concatenate([away, np.repeat(depth, 4, axis=1)[:, :, None]], axis=2).reshape(-1, 3)
        first = 4 * np.arange(len(box), dtype=np.int32)[:, None, None]
        triangles = (first + np.array([[0, 1, 2], [0, 2, 3]], np.int32)).reshape(-1, 3)
        colors = np.repeat(np.concatenate(self._colors) / 255, 4, axis=0)
        return camera.pose.inverse().apply(local), colors, triangles

    def _add(self, rectangles: NDArray[np.float64], colors: NDArray[np.float64]) -> None:
        self._depths.append(np.full(len(rectangles), _DEPTH_M - _STEP_M * len(self._depths)))
        self._rectangles.append(rectangles)
        self._colors.append(colors)


@lru_cache(maxsize=4096)
def _runs(text: str, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rectangles (R, 4) that make up a line of text, and how much ink each has, (R,) from 0 to 1."""
    level = np.round(mask_of(text, size).astype(np.float64) / 255 * _N_INKS)
    padded = np.pad(level, ((0, 0), (1, 1)))
    change = np.diff(padded, axis=1) != 0
    row, start = np.nonzero(change)
    # a run ends where the next change of its row is
    stop = np.append(start[1:], 0)
    ink = padded[row, start + 1] / _N_INKS
    kept = ink > 0
    return np.stack([start, row, stop, row + 1], axis=1)[kept].astype(np.float64), ink[kept]
