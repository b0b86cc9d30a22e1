"""Viewing: what the command ``detmetrics view`` does with footage: a window, a picture, a sheet, a film, a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics.errors import InputError, listing
from detmetrics_viz.cameras import Shape, draw_on_picture
from detmetrics_viz.footage import Footage
from detmetrics_viz.looks import Look
from detmetrics_viz.orbit import viewpoint
from detmetrics_viz.outcomes import Outcome
from detmetrics_viz.pictures import FILMS, SIZE, Painter, save_film, save_png, sheet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics.boxes import Boxes
    from detmetrics.io.cameras import Camera
    from detmetrics_viz.scene import Scene

#: A page with more frames than this is too large to send round.
MAX_PAGE_FRAMES = 200
#: Width and height of one picture of a sheet, pixels.
TILE = (960, 540)


@dataclass(frozen=True)
class Request:
    """What someone wants to see.

    Attributes
    ----------
    look : Look
    view : str
    frame : str or None
        One frame.
    worst : int
        So many of the worst frames; 0: all in their order.
    per_class : bool
        One frame for each class, that with most mistakes of it.
    save, html : Path or None
        Files to write; without any, a window opens.
    camera : str
        Draw on the picture of this camera instead.
    shape : str
        How, ``3d`` or ``2d``.
    size : (int, int)
        Of pictures and films, pixels.
    fps : float
        Of films.
    """

    look: Look = field(default_factory=Look)
    view: str = "behind"
    frame: str | None = None
    worst: int = 0
    per_class: bool = False
    save: Path | None = None
    html: Path | None = None
    camera: str = ""
    shape: Shape = "3d"
    size: tuple[int, int] = SIZE
    fps: float = 4.0

    def by_class(self) -> Request:
        """Ask for the same with boxes coloured by class."""
        return replace(self, look=replace(self.look, boxes="class"))


def view(
    footage: Footage,
    request: Request,
    *,
    cameras: Callable[[str], list[Camera]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Do what is asked for.

    Parameters
    ----------
    footage : Footage
    request : Request
    cameras : callable, optional
        Gives the cameras of a frame.
    progress : callable, optional
        Called with what is done and what is to do.

    Returns
    -------
    list of str
        A line for each file written.

    Raises
    ------
    InputError
        On an unknown frame or camera, and whatever cannot be drawn or written.
    """
    tell = progress or (lambda done, total: None)
    places = _places(footage, request)
    done = []
    if request.save is not None:
        _save(footage, request, places, cameras, tell)
        done.append(f"{request.save}: {request.save.stat().st_size / 1e6:.2g} MB")
    if request.html is not None:
        from detmetrics_viz.page import write_html

        if len(places) > MAX_PAGE_FRAMES:
            raise InputError(
                "frames of a page",
                expected=f"at most {MAX_PAGE_FRAMES}",
                got=len(places),
                hint="choose by --scene, --worst or --frame",
            )
        scenes = (footage[at] for at in places)
        write_html(
            scenes, request.html, look=request.look, view=request.view, progress=lambda n, _: tell(n, len(places))
        )
        done.append(f"{request.html}: {request.html.stat().st_size / 1e6:.2g} MB, {len(places)} frames")
    return done


def size_of(text: str) -> tuple[int, int]:
    """Read width and height, as in ``1280x720``.

    Raises
    ------
    InputError
        For another form.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise InputError("size", expected="like 1280x720", got=text)
    return int(width), int(height)


def cameras_of(data: Path, version: str | None) -> Callable[[str], list[Camera]]:
    """Give what finds the cameras of a frame in tables of nuScenes."""
    from detmetrics.io.cameras import NuscenesCameras

    return NuscenesCameras(data, version).of


def open_cloud(
    cloud: Path, boxes: Path | None, predictions: Path | None, calib: Path | None, format: str | None, frame: str | None
) -> Footage:
    """Open one cloud with boxes in its frame.

    Parameters
    ----------
    cloud : Path
    boxes, predictions : Path, optional
        Truth and predictions: KITTI's text, which needs ``calib``; or whatever :func:`detmetrics.io.load_truth` and
        :func:`detmetrics.io.load` read.
    calib : Path, optional
        KITTI's calibration.
    format : str, optional
        Of the cloud, see :func:`detmetrics.io.clouds.read`.
    frame : str, optional
        Which of the boxes' frames.

    Raises
    ------
    InputError
        See the readers; KITTI's text without calibration.
    """
    from detmetrics import io

    if predictions is None and boxes is None and calib is not None:
        raise InputError("a calibration goes with boxes", hint="--boxes FILE or --predictions FILE")
    kind: Any = format
    points = io.clouds.read(cloud, kind, drop_nan=format in ("pcd", "ply") or cloud.suffix in (".pcd", ".ply"))
    upright: Any = "lidar" if format in ("vod", "vod-radar") else "camera"
    sides: list[Boxes | None] = []
    for path, kitti, other in (
        (boxes, io.kitti.load_truth, io.load_truth),
        (predictions, io.kitti.load_results, io.load),
    ):
        if path is None:
            sides.append(None)
        elif path.suffix == ".txt":
            if calib is None:
                raise InputError(f"{path} lies in a camera's frame", hint="--calib FILE says where the lidar is")
            sides.append(kitti(path, calib, upright=upright))
        else:
            sides.append(other(path))
    return Footage.of_cloud(points, *sides, frame=frame)


def show(footage: Footage, request: Request) -> None:
    """Open a window at the first of the frames asked for."""
    from detmetrics_viz import window

    places = _places(footage, request)
    window.show(footage, request.look, start=places[0], view=request.view)


def _places(footage: Footage, request: Request) -> list[int]:
    """Places of the frames asked for."""
    if request.frame is not None:
        return [footage.index(request.frame)]
    if request.per_class:
        return list(footage.worst_of_classes().values())
    return footage.worst(request.worst) if request.worst else list(range(len(footage)))


def _save(
    footage: Footage,
    request: Request,
    places: list[int],
    cameras: Callable[[str], list[Camera]] | None,
    tell: Callable[[int, int], None],
) -> None:
    """Write a picture, a sheet or a film, as the ending says."""
    target = request.save
    assert target is not None
    ending = target.suffix.lower()
    if ending not in (".png", *FILMS):
        raise InputError("ending of --save", expected=listing((".png", *FILMS)), got=target.name)
    is_sheet = ending == ".png" and (request.per_class or request.worst > 0) and request.frame is None
    if ending == ".png" and not is_sheet and len(places) > 1:
        raise InputError(
            f"a picture shows one frame, and there are {len(places)}",
            hint="--frame NAME; or --worst N or --per-class for a sheet; or .mp4 or .gif for a film",
        )
    if request.camera:
        images = _on_pictures(footage, request, places, cameras)
    elif request.per_class:
        images = _of_classes(footage, request)
    else:
        images = _drawn(
            footage, request, places, TILE if is_sheet else request.size, smooth=2 if ending == ".png" else 1
        )
    if ending in FILMS:
        save_film(images, target, fps=request.fps, progress=lambda n: tell(n, len(places)))
    elif is_sheet:
        tiles = []
        for image in images:
            tiles.append(image)
            tell(len(tiles), len(places))
        save_png(sheet(tiles, _captions(footage, request, places), request.look.theme), target)
    else:
        save_png(next(iter(images)), target)


def _drawn(
    footage: Footage, request: Request, places: list[int], size: tuple[int, int], *, smooth: int
) -> Iterator[NDArray[np.uint8]]:
    with Painter(size, smooth=smooth) as painter:
        for at in places:
            yield painter.draw(footage[at], request.look, request.view)


def _of_classes(footage: Footage, request: Request) -> Iterator[NDArray[np.uint8]]:
    """Draw for each class its worst frame, from behind the nearest mistake of it."""
    look = replace(request.look, layers=request.look.layers - {"legend"})
    with Painter(TILE, smooth=2) as painter:
        for label, at in footage.worst_of_classes().items():
            scene = footage[at]
            yield painter.draw(scene, look, viewpoint("follow", scene, _mistake(scene, label)).camera(TILE))


def _mistake(scene: Scene, label: str) -> int | None:
    """The nearest missed truth or false positive of a class."""
    outcome = scene.outcome()
    wrong = ((outcome == Outcome.MISSED) | (outcome == Outcome.FALSE_POSITIVE)) & scene.shown()
    wrong &= scene.label == scene.labels.index(label)
    rows = np.flatnonzero(wrong)
    return int(rows[np.argmin(np.hypot(*scene.center[rows, :2].T))]) if len(rows) else None


def _captions(footage: Footage, request: Request, places: list[int]) -> list[str]:
    if request.per_class:
        return [f"{label} · {footage.frames[at]}" for label, at in footage.worst_of_classes().items()]
    names = [f"{footage.scenes[at]} · {footage.frames[at]}".removeprefix(" · ") for at in places]
    return [f"{k}. {name}" for k, name in enumerate(names, 1)]


def _on_pictures(
    footage: Footage, request: Request, places: list[int], cameras: Callable[[str], list[Camera]] | None
) -> Iterator[NDArray[np.uint8]]:
    if cameras is None:
        raise InputError("--camera needs --data of a data set in the nuScenes format")
    for at in places:
        frame = footage.frames[at]
        there = {camera.name: camera for camera in cameras(frame)}
        if request.camera not in there:
            hint = f"there are {listing(there)}" if there else "it has no pictures"
            raise InputError(f"frame {frame!r} has no camera {request.camera!r}", hint=hint)
        yield draw_on_picture(footage[at], there[request.camera], request.look, shape=request.shape)
