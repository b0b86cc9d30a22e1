"""Opening Open3D: the one place that imports it, with one clear error where that, or a window, cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics.errors import InputError
from detmetrics.extras import MissingExtraError, needs
from detmetrics_viz.looks import Look, strokes
from detmetrics_viz.projecting import NEAR_M
from detmetrics_viz.themes import rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics_viz.projecting import Pinhole
    from detmetrics_viz.scene import Scene

#: What Open3D and software rendering ask of a Debian or Ubuntu system.
PACKAGES = "libgl1 libegl1 libgl1-mesa-dri libusb-1.0-0 libx11-6 libgomp1 libudev1 libidn2-0"


def open3d() -> Any:
    """Import Open3D.

    Raises
    ------
    InputError
        Where it is not installed, or a library of the system is missing; names the packages.
    """
    try:
        with needs("viz", "the viewer"):
            import open3d
    except MissingExtraError:
        raise
    except (ImportError, OSError) as error:
        raise missing_library(str(error)) from None
    return open3d


def missing_library(what: str) -> InputError:
    """Error for a library of the system that is not there."""
    return InputError(
        f"Open3D cannot draw on this system: {what}",
        hint=f"on Debian and Ubuntu: sudo apt-get install {PACKAGES}",
    )


def offscreen(width: int, height: int) -> Any:
    """Open a window of Open3D that nobody sees, through EGL, whether or not there is a display.

    Raises
    ------
    InputError
        Where no driver can draw.
    """
    library = open3d()
    window = library.visualization.Visualizer()
    with _no_display(), quiet(library):
        is_open = window.create_window(width=width, height=height, visible=False)
    if not is_open or window.get_render_option() is None:
        raise missing_library("no driver for drawing without a display (EGL)")
    return window


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Keep Open3D from printing what is no error of ours."""
    with library.utility.VerbosityContextManager(library.utility.VerbosityLevel.Error):
        yield


@contextmanager
def _no_display() -> Iterator[None]:
    """Hide the displays: hidden windows on a screen are cut at its size, and a remote one has no modern OpenGL."""
    names = ("DISPLAY", "WAYLAND_DISPLAY")
    before = {name: os.environ.pop(name, None) for name in names}
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime is None:
        os.environ["XDG_RUNTIME_DIR"] = os.path.sep  # without any, the library of Wayland complains on stderr
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        if runtime is None:
            del os.environ["XDG_RUNTIME_DIR"]


class Stage:
    """What stands in a window of Open3D: one cloud and one set of lines, filled anew for each scene and look."""

    def __init__(self, window: Any) -> None:
        self._window = window
        self._geometry = open3d().geometry
        self._vectors = open3d().utility
        self._shown: list[Any] = []
        self._glass: Any = None
        # the view control works in shares of a bounding box, so it is given one that stays
        reach = self._geometry.PointCloud(self._vectors.Vector3dVector(np.array([[-100.0] * 3, [100.0] * 3])))
        window.add_geometry(reach, reset_bounding_box=True)
        window.remove_geometry(reach, reset_bounding_box=False)

    def show(self, scene: Scene, look: Look, *, scale: float = 1.0, picked: int | None = None) -> None:
        """Fill the window.

        Parameters
        ----------
        scene : Scene
        look : Look
        scale : float
            Pixels drawn for one pixel seen.
        picked : int, optional
            A box to stand out.
        """
        vectors, options = self._vectors, self._window.get_render_option()
        for old in self._shown:
            self._window.remove_geometry(old, reset_bounding_box=False)
        self._shown = []
        if "points" in look.layers and len(scene.points):
            cloud = self._geometry.PointCloud(vectors.Vector3dVector(scene.points.astype(np.float64)))
            colors = scene.point_colors(look.theme, look.point_mode(scene))
            cloud.colors = vectors.Vector3dVector(colors / 255.0)
            self._shown.append(cloud)
        ends, color = strokes(scene, look, picked)
        if len(ends):
            lines = self._geometry.LineSet(
                vectors.Vector3dVector(ends.reshape(-1, 3).astype(np.float64)),
                vectors.Vector2iVector(np.arange(2 * len(ends), dtype=np.int32).reshape(-1, 2)),
            )
            lines.colors = vectors.Vector3dVector(color / 255.0)
            self._shown.append(lines)
        for new in self._shown:
            self._window.add_geometry(new, reset_bounding_box=False)
        options.background_color = np.array(rgb(look.theme.background)) / 255.0
        options.point_size = look.point_size(scene) * scale
        options.line_width = 2.0 * scale  # windows on a screen draw all lines one pixel wide
        options.light_on = False
        options.mesh_show_back_face = True

    def write(self, vertices: NDArray[np.float64], colors: NDArray[np.float64], triangles: NDArray[np.int32]) -> None:
        """Put a coloured mesh before everything, in the place of the last one: vertices (V, 3), colours (V, 3)."""
        vectors = self._vectors
        if self._glass is not None:
            self._window.remove_geometry(self._glass, reset_bounding_box=False)
            self._glass = None
        if len(triangles):
            mesh = self._geometry.TriangleMesh(vectors.Vector3dVector(vertices), vectors.Vector3iVector(triangles))
            mesh.vertex_colors = vectors.Vector3dVector(colors)
            self._window.add_geometry(mesh, reset_bounding_box=False)
            self._glass = mesh

    def stand(self, camera: Pinhole) -> None:
        """Look through a camera, whose image has the size of the window."""
        library = open3d()
        view = self._window.get_view_control()
        seen = library.camera.PinholeCameraParameters()
        matrix = camera.matrix
        seen.intrinsic = library.camera.PinholeCameraIntrinsic(
            camera.width, camera.height, matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
        )
        extrinsic = np.eye(4)
        extrinsic[:3, :3], extrinsic[:3, 3] = camera.pose
        seen.extrinsic = extrinsic
        view.convert_from_pinhole_camera_parameters(seen, allow_arbitrary=True)
        view.set_constant_z_near(NEAR_M)
        view.set_constant_z_far(2000.0)
