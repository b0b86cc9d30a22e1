"""Viewing: what the command ``detmetrics view`` does with footage: a window, a picture, a sheet, a film, a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
from rich.filesize import decimal

from detmetrics.errors import InputError, Words, listing
from detmetrics_viz.cameras import Shape, draw_on_picture
from detmetrics_viz.footage import Footage
from detmetrics_viz.looks import Look
from detmetrics_viz.orbit import viewpoint
from detmetrics_viz.outcomes import Outcome
from detmetrics_viz.pictures import FILMS, SIZE, Painter, save_film, save_png, sheet
from detmetrics_viz.scene import title_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics.boxes import Boxes
    from detmetrics.io.cameras import Camera
    from detmetrics_viz.scene import Scene

#: A page with more frames than this is too large to send round.
MAX_PAGE_FRAMES = 200
#: Width and height of one picture of a sheet, pixels.
TILE = (960, 540)
_TITLES = {"": "", "best": "Best frames: fewest mistakes first", "worst": "Worst frames: most mistakes first"}


@dataclass(frozen=True)
class Request:
    """What someone wants to see.

    Attributes
    ----------
    look : Look
    view : str
    frame : str or None
        One frame.
    best, worst : int
        So many of the best frames, then so many of the worst; 0 and 0: all in their order.
    per_class : bool
        One frame for each class, that with most mistakes of it.
    save, html : Path or None
        Files to write; without any, a window opens.
    camera : str
        Draw on the picture of this camera instead.
    shape : str
        How, ``3d`` or ``2d``.
    size : (int, int) or None
        Of pictures, films, and each picture of a sheet, pixels; None: 1280 x 720, on a sheet 960 x 540.
    fps : float
        Of films.

    Raises
    ------
    InputError
        On an unknown shape, and on what would be ignored: a camera, a size, a shape or a rate without the output that
        it is for.
    """

    look: Look = field(default_factory=Look)
    view: str = "behind"
    frame: str | None = None
    best: int = 0
    worst: int = 0
    per_class: bool = False
    save: Path | None = None
    html: Path | None = None
    camera: str = ""
    shape: Shape = "3d"
    size: tuple[int, int] | None = None
    fps: float = 4.0

    @property
    def is_sheet(self) -> bool:
        """Whether several frames make one picture."""
        return self.per_class or self.best > 0 or self.worst > 0

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise InputError("--shape", expected=" or ".join(get_args(Shape)), got=self.shape)
        is_film = self.save is not None and self.save.suffix.lower() in FILMS
        for is_idle, words in (
            (bool(self.camera) and self.save is None, "--camera goes with --save FILE"),
            (self.shape != Request.shape and not self.camera, "--shape goes with --camera"),
            (self.size is not None and self.save is None, "--size goes with --save FILE"),
            (
                self.size is not None and bool(self.camera),
                "--size does not go with --camera: pictures have their own",
            ),
            (self.fps != Request.fps and not is_film, f"--fps goes with a film: --save FILE{' or '.join(FILMS)}"),
        ):
            if is_idle:
                raise InputError(words)

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
        On an unknown frame or camera, two choices of frames at once, and whatever cannot be drawn or written.
    """
    tell = progress or (lambda done, total: None)
    shots = _shots(footage, request)
    done = []
    if request.save is not None:
        _save(footage, request, shots, cameras, tell)
        done.append(_written(request.save, shots))
    if request.html is not None:
        from detmetrics_viz.page import write_html

        if len(shots) > MAX_PAGE_FRAMES:
            raise InputError(
                "frames of a page",
                expected=f"at most {MAX_PAGE_FRAMES}",
                got=len(shots),
                hint="choose by --scene, --best, --worst or --frame",
            )
        scenes = (_titled(footage, shot) for shot in shots)
        write_html(
            scenes, request.html, look=request.look, view=request.view, progress=lambda n, _: tell(n, len(shots))
        )
        done.append(_written(request.html, shots))
    return done


def size_of(text: str) -> tuple[int, int]:
    """Read width and height, as in ``1280x720``.

    Raises
    ------
    InputError
        For another form.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
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

    window.show(footage, request.look, start=_shots(footage, request)[0].at, view=request.view)


class _Shot(NamedTuple):
    """A frame that was asked for.

    Attributes
    ----------
    at : int
        Its place in the footage.
    ranking : str
        ``best`` or ``worst`` where it was chosen by its place in that list.
    number : int
        That place, from 1.
    label : str
        The class by whose mistakes it was chosen, or ``""``.
    """

    at: int
    ranking: str = ""
    number: int = 0
    label: str = ""


def _shots(footage: Footage, request: Request) -> list[_Shot]:
    """Choose the frames asked for."""
    choices = {
        "--frame": request.frame is not None,
        "--per-class": request.per_class,
        "--best or --worst": request.best + request.worst > 0,
    }
    if sum(choices.values()) > 1:
        given = [option for option, is_given in choices.items() if is_given]
        raise InputError("choice of frames", expected=f"one of {', '.join(choices)}", got=Words(" and ".join(given)))
    if request.frame is not None:
        return [_Shot(footage.index(request.frame))]
    if request.per_class:
        return [_Shot(at, label=label) for label, at in footage.worst_of_classes().items()]
    if not request.is_sheet:
        return [_Shot(at) for at in range(len(footage))]
    best = footage.best(request.best) if request.best else []
    worst = footage.worst(request.worst) if request.worst else []
    return [_Shot(at, name, k) for name, places in (("best", best), ("worst", worst)) for k, at in enumerate(places, 1)]


def _titled(footage: Footage, shot: _Shot) -> Scene:
    """Build the scene of a shot; its title begins with the place in the list."""
    scene = footage[shot.at]
    return replace(scene, title=f"{shot.ranking} {shot.number} · {scene.title}") if shot.ranking else scene


def _written(path: Path, shots: list[_Shot]) -> str:
    """Say what was written."""
    return f"{path}: {decimal(path.stat().st_size)}, {len(shots)} frame{'s' * (len(shots) > 1)}"


def _save(
    footage: Footage,
    request: Request,
    shots: list[_Shot],
    cameras: Callable[[str], list[Camera]] | None,
    tell: Callable[[int, int], None],
) -> None:
    """Write a picture, a sheet or a film, as the ending says."""
    target = request.save
    assert target is not None
    ending = target.suffix.lower()
    if ending not in (".png", *FILMS):
        raise InputError("ending of --save", expected=listing((".png", *FILMS)), got=target.name)
    is_film = ending in FILMS
    if not is_film and not request.is_sheet and len(shots) > 1:
        raise InputError(
            f"a picture shows one frame, and there are {len(shots)}",
            hint="--frame NAME; or --best N, --worst N or --per-class for a sheet; or .mp4 or .gif for a film",
        )
    if request.camera:
        images = _on_pictures(footage, request, shots, cameras)
    else:
        images = _drawn(footage, request, shots, is_film)
    if is_film:
        save_film(images, target, fps=request.fps, progress=lambda n: tell(n, len(shots)))
    elif request.is_sheet:
        tiles = []
        for image in images:
            tiles.append(image)
            tell(len(tiles), len(shots))
        save_png(_sheet(footage, request.look, shots, tiles), target)
    else:
        save_png(next(iter(images)), target)


def _drawn(footage: Footage, request: Request, shots: list[_Shot], is_film: bool) -> Iterator[NDArray[np.uint8]]:
    """Draw the clouds; those chosen for a class from behind the nearest mistake of it."""
    size = request.size or (TILE if request.is_sheet and not is_film else SIZE)
    bare = replace(request.look, layers=request.look.layers - {"legend"})
    with Painter(size, smooth=1 if is_film else 2) as painter:
        for shot in shots:
            if shot.label:
                scene = footage[shot.at]
                seen = viewpoint("follow", scene, _mistake(scene, shot.label)).camera(size)
                yield painter.draw(scene, bare, seen)
            elif is_film:
                yield painter.draw(_titled(footage, shot), request.look, request.view)
            else:
                yield painter.draw(footage[shot.at], request.look, request.view)


def _sheet(footage: Footage, look: Look, shots: list[_Shot], tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put pictures on a sheet; best and worst ones each below a title, in as many columns.

    What a legend says of its picture is not said again above it.
    """
    lists = [list(part) for _, part in groupby(zip(shots, tiles, strict=True), lambda pair: pair[0].ranking)]
    n_columns = None if len(lists) == 1 else min(4, max(map(len, lists)))
    sheets = []
    for part in lists:
        told = "legend" in look.layers and not part[0][0].label
        captions = None if told else [_caption(footage, shot) for shot, _ in part]
        title = _TITLES[part[0][0].ranking]
        sheets.append(sheet([tile for _, tile in part], captions, look.theme, n_columns=n_columns, title=title))
    return np.concatenate(sheets)


def _caption(footage: Footage, shot: _Shot) -> str:
    frame = footage.frames[shot.at]
    return f"{shot.label} · {frame}" if shot.label else f"{shot.number}. {title_of(frame, footage.scenes[shot.at])}"


def _mistake(scene: Scene, label: str) -> int | None:
    """The nearest missed truth or false positive of a class."""
    outcome = scene.outcome()
    wrong = ((outcome == Outcome.MISSED) | (outcome == Outcome.FALSE_POSITIVE)) & scene.shown()
    wrong &= scene.label == scene.labels.index(label)
    rows = np.flatnonzero(wrong)
    return int(rows[np.argmin(np.hypot(*scene.center[rows, :2].T))]) if len(rows) else None


def _on_pictures(
    footage: Footage, request: Request, shots: list[_Shot], cameras: Callable[[str], list[Camera]] | None
) -> Iterator[NDArray[np.uint8]]:
    if cameras is None:
        raise InputError("--camera needs --data of a data set in the nuScenes format")
    for shot in shots:
        frame = footage.frames[shot.at]
        there = {camera.name: camera for camera in cameras(frame)}
        if request.camera not in there:
            hint = f"there are {listing(there)}" if there else "it has no pictures"
            raise InputError(f"frame {frame!r} has no camera {request.camera!r}", hint=hint)
        yield draw_on_picture(_titled(footage, shot), there[request.camera], request.look, shape=request.shape)
