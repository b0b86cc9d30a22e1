"""Orbits: a camera that looks at a place from around it, and the presets of where one stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from detmetrics.errors import InputError, listing
from detmetrics.geometry import Pose
from detmetrics_viz.looks import VIEWS
from detmetrics_viz.projecting import Pinhole

if TYPE_CHECKING:
    from detmetrics_viz.scene import Scene


@dataclass(frozen=True)
class Orbit:
    """A camera on a sphere around what it looks at, never tilted sideways.

    Attributes
    ----------
    target_m : tuple of float (3,)
    distance_m : float
    azimuth_rad : float
        Direction of the view on the ground, counter-clockwise from x.
    elevation_rad : float
        How far the view looks down: 0 level, π/2 straight down.
    fov_rad : float
        Angle that the height of the image spans.
    """

    target_m: tuple[float, float, float]
    distance_m: float
    azimuth_rad: float = 0.0
    elevation_rad: float = 0.4
    fov_rad: float = math.radians(55)

    def camera(self, size: tuple[int, int]) -> Pinhole:
        """Give the camera for an image of some width and height."""
        cos, sin = math.cos(self.azimuth_rad), math.sin(self.azimuth_rad)
        level, down = math.cos(self.elevation_rad), math.sin(self.elevation_rad)
        ahead = np.array([level * cos, level * sin, -down])
        rotation = np.stack([[sin, -cos, 0.0], [-down * cos, -down * sin, -level], ahead])
        eye = np.array(self.target_m) - self.distance_m * ahead
        width, height = size
        focal = height / 2 / math.tan(self.fov_rad / 2)
        matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        return Pinhole(width, height, matrix, Pose(rotation, -rotation @ eye))

    def turned(self, right: float, down: float) -> Orbit:
        """Turn by a drag over the image, in heights of it: its whole height is half a turn."""
        elevation = float(np.clip(self.elevation_rad + math.pi * down, math.radians(-5), math.pi / 2))
        return replace(self, azimuth_rad=self.azimuth_rad - math.pi * right, elevation_rad=elevation)

    def moved(self, right: float, down: float) -> Orbit:
        """Move over the ground by a drag, in heights of the image."""
        span = 2 * self.distance_m * math.tan(self.fov_rad / 2)
        cos, sin = math.cos(self.azimuth_rad), math.sin(self.azimuth_rad)
        x, y, z = self.target_m
        ahead, side = span * down, span * right
        return replace(self, target_m=(x + ahead * cos - side * sin, y + ahead * sin + side * cos, z))

    def nearer(self, steps: float) -> Orbit:
        """Come nearer by steps of the wheel, or go away."""
        return replace(self, distance_m=float(np.clip(self.distance_m * 0.88**steps, 2.0, 1500.0)))


def viewpoint(view: str, scene: Scene, box: int | None = None) -> Orbit:
    """Give the orbit of a preset.

    Parameters
    ----------
    view : str
        ``behind`` ego and above; ``bird``: from straight above, ahead is up; ``follow``: behind a box.
    scene : Scene
    box : int, optional
        Whom to follow; default: ego.

    Raises
    ------
    InputError
        For another view.
    """
    ground = scene.ground_m
    if view == "behind":
        return Orbit((12.0, 0.0, ground), 34.0, elevation_rad=math.radians(21))
    if view == "bird":
        half = 45.0 if scene.rings_m[0] <= 10 else 80.0
        fov = math.radians(20)  # from high above, so that walls and trees hide little
        return Orbit((0.0, 0.0, ground), half / math.tan(fov / 2), elevation_rad=math.pi / 2, fov_rad=fov)
    if view == "follow":
        if box is None:
            return Orbit((4.0, 0.0, ground + 1.0), 17.0, elevation_rad=math.radians(22))
        x, y, z = scene.center[box].tolist()
        reach = max(10.0, 2.2 * float(scene.size[box].max()))
        return Orbit((x, y, z), reach, float(scene.yaw_rad[box]), math.radians(22))
    raise InputError("view", expected=f"one of {listing(VIEWS)}", got=view)
