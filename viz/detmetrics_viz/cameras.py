"""Cameras: the cuboids of a scene on the picture of a camera, clipped at its border and behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from detmetrics.errors import InputError, Words, listing
from detmetrics.extras import needs
from detmetrics.files import open_file
from detmetrics_viz.lettering import ImageCanvas, write_frame
from detmetrics_viz.looks import Look
from detmetrics_viz.projecting import NEAR_M, Pinhole, ray_through_boxes
from detmetrics_viz.scene import EDGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics.io.cameras import Camera
    from detmetrics_viz.scene import Scene

    Image = NDArray[np.uint8]
    Floats = NDArray[np.float64]

Shape = Literal["3d", "2d"]
#: The front of a box among its nodes, to be tinted so that one sees which way it looks.
_FRONT = [0, 3, 7, 4]
_SMOOTH = 2  # pixels drawn along each side of one that is kept


def draw_on_picture(scene: Scene, camera: Camera, look: Look | None = None, *, shape: Shape = "3d") -> Image:
    """Draw the boxes of a scene on the picture of a camera.

    Parameters
    ----------
    scene : Scene
        With its pose in the global frame.
    camera : Camera
        Of the same data set; see :class:`detmetrics.io.cameras.NuscenesCameras`.
    look : Look, optional
        Its points and rings are not drawn.
    shape : str
        ``3d``: wireframes with tinted fronts; ``2d``: the rectangles around what is seen of them.

    Returns
    -------
    uint8 (height, width, 3)

    Raises
    ------
    InputError
        Where the picture is missing, broken or of another size than the tables say; on another shape.
    """
    if shape not in get_args(Shape):
        raise InputError("shape", expected=f"one of {listing(get_args(Shape))}", got=shape)
    look = look or Look()
    image = read_picture(camera.path)
    height, width = image.shape[:2]
    if camera.width_px and camera.height_px and (width, height) != (camera.width_px, camera.height_px):
        raise InputError(
            f"picture {camera.path}",
            expected=f"of {camera.width_px} x {camera.height_px} pixels, as its table says",
            got=Words(f"{width} x {height}"),
        )
    seen = pinhole(scene, camera, (width, height))
    order = np.flatnonzero(look.visible(scene))
    order = order[
        np.argsort(-np.linalg.norm(scene.center[order], axis=1), kind="stable")
    ]  # the nearest covers the others
    colors = scene.box_colors(look.theme, look.boxes, look.min_score)
    draw = _draw_frames if shape == "3d" else _draw_rectangles
    image = draw(image, seen, scene.nodes[order].astype(np.float64), colors[order])
    write_frame(ImageCanvas(image), scene, look, seen, f"{camera.name} · ")
    return image


def read_picture(path: str | Path) -> Image:
    """Read a picture, uint8 (H, W, 3).

    Raises
    ------
    InputError
        Where it is missing or broken.
    """
    with needs("viz", "a picture"):
        from PIL import Image as pillow
        from PIL import UnidentifiedImageError

    with open_file(path) as file:
        try:
            with pillow.open(file) as picture:
                return np.array(picture.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
            raise InputError(f"{path} cannot be read as a picture: {error}") from None


def pinhole(scene: Scene, camera: Camera, size: tuple[int, int]) -> Pinhole:
    """Give the camera as one that looks at the view frame of a scene."""
    return Pinhole(*size, np.asarray(camera.intrinsic, np.float64), camera.pose.inverse().after(scene.pose))


def rectangles(camera: Pinhole, nodes: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Give the rectangles around what a camera sees of boxes.

    Parameters
    ----------
    camera : Pinhole
    nodes : float64 (B, 10, 3)

    Returns
    -------
    rectangle : float64 (R, 4)
        Left, top, right, bottom, pixels within the image.
    box : int64 (R,)
        Whose it is, ascending.
    """
    edges = EDGES[:12]  # without the heading
    pixels, line = camera.clip(nodes[:, edges].reshape(-1, 2, 3))
    owner, ends = [np.repeat(line // len(edges), 2)], [pixels.reshape(-1, 2)]
    for x in (0, camera.width - 1):  # the corners of the image that a box covers
        for y in (0, camera.height - 1):
            enter, leave = ray_through_boxes(*camera.ray((x, y)), nodes)
            covered = np.flatnonzero((enter <= leave) & (leave > NEAR_M))
            owner.append(covered)
            ends.append(np.tile([float(x), float(y)], (len(covered), 1)))
    box, at = np.unique(np.concatenate(owner), return_inverse=True)
    every = np.concatenate(ends)
    found = np.empty((len(box), 4))
    found[:, :2], found[:, 2:] = np.inf, -np.inf
    np.minimum.at(found[:, :2], at, every)
    np.maximum.at(found[:, 2:], at, every)
    return found, box


def _draw_frames(image: Image, camera: Pinhole, nodes: Floats, colors: Image) -> Image:
    fine = camera.scaled(_SMOOTH)
    front, depth = fine.project(nodes[:, _FRONT].reshape(-1, 3))
    front = front.reshape(-1, 4, 2)
    is_ahead = depth.reshape(-1, 4).min(axis=1, initial=np.inf) > NEAR_M
    pixels, line = fine.clip(nodes[:, EDGES].reshape(-1, 2, 3))
    starts = np.searchsorted(line, np.arange(len(nodes) + 1) * len(EDGES))

    def draw(pen: Any) -> None:
        for k, color in enumerate(colors.tolist()):
            lines = pixels[starts[k] : starts[k + 1]]
            if not len(lines):
                continue
            if is_ahead[k] and np.abs(front[k]).max() < 1e5:
                pen.polygon(front[k].ravel().tolist(), fill=(*color, 50))
            for ends in lines.reshape(-1, 4).tolist():
                pen.line(ends, fill=(*color, 255), width=2 * _SMOOTH)

    return _over(image, draw)


def _draw_rectangles(image: Image, camera: Pinhole, nodes: Floats, colors: Image) -> Image:
    found, box = rectangles(camera.scaled(_SMOOTH), nodes)

    def draw(pen: Any) -> None:
        for corners, color in zip(found.tolist(), colors[box].tolist(), strict=True):
            pen.rectangle(corners, outline=(*color, 255), fill=(*color, 26), width=2 * _SMOOTH)

    return _over(image, draw)


def _over(image: Image, draw: Any) -> Image:
    """Draw in double size on something transparent, and lay it over the picture."""
    with needs("viz", "a picture"):
        from PIL import Image as pillow
        from PIL import ImageDraw

    height, width = image.shape[:2]
    layer = pillow.new("RGBA", (width * _SMOOTH, height * _SMOOTH))
    draw(ImageDraw.Draw(layer))
    whole = pillow.fromarray(image).convert("RGBA")
    whole.alpha_composite(layer.reduce(_SMOOTH))
    return np.array(whole.convert("RGB"))
