"""The command view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from detmetrics import extras
from detmetrics.cli.options import Cache, Data, Rules, Scene, Split, Version
from detmetrics.cli.reading import Source, protocol_of, read_predictions, saved_ledger
from detmetrics.cli.terminal import Step, show, steps
from detmetrics.cli.writing import refuse_inputs, writable
from detmetrics.errors import InputError


def view(
    cloud: Annotated[
        Path | None,
        typer.Argument(help="One cloud instead of --data: .bin, .pcd.bin, .pcd, .ply, .npy, .npz, .feather."),
    ] = None,
    data: Data = None,
    version: Version = None,
    split: Split = None,
    scene: Scene = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="FILE", help="Predictions or a ledger; for one cloud KITTI's results."),
    ] = None,
    protocol: Rules = None,
    frame: Annotated[str | None, typer.Option(metavar="NAME", help="Only this frame.")] = None,
    best: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Only the N frames with fewest mistakes, of those with a truth that counts; of equals those with most "
            "matches. With --worst both: the best above, or first.",
        ),
    ] = 0,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Only the N frames with most mistakes.")] = 0,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="For each class the frame with most mistakes.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture or a sheet (.png) or a film (.mp4, .gif).")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page that turns in any browser.")] = None,
    camera: Annotated[
        str, typer.Option(metavar="CHANNEL", help="Draw on the picture of a camera, e.g. CAM_FRONT; with --save.")
    ] = "",
    shape: Annotated[str, typer.Option(help="On the picture of a camera: 3d or 2d.")] = "3d",
    boxes: Annotated[
        Path | None,
        typer.Option("--boxes", metavar="FILE", help="Boxes of the one cloud: KITTI's .txt, feather, Parquet."),
    ] = None,
    calib: Annotated[Path | None, typer.Option(metavar="FILE", help="KITTI's calibration of the one cloud.")] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Of the one cloud: nuscenes, kitti, vod, vod-radar, argoverse2, pcd, …"),
    ] = None,
    sweeps: Annotated[int, typer.Option(min=1, help="Sweeps to join for each frame.")] = 1,
    lidar: Annotated[str, typer.Option(metavar="CHANNEL", help="Which lidar of the tables.")] = "LIDAR_TOP",
    points: Annotated[str, typer.Option(help="Colour of points: height, intensity, distance, time.")] = "height",
    color: Annotated[
        str, typer.Option(help="Colour of boxes: outcome, class, score; default outcome, without predictions class.")
    ] = "",
    min_score: Annotated[
        float | None, typer.Option(help="Least score shown; default: that of the best F1 of each class.")
    ] = None,
    labels: Annotated[str, typer.Option(help="Labels of mistakes or all.")] = "mistakes",
    look_from: Annotated[
        str, typer.Option("--from", help="Look from behind (ego), bird (above) or follow.")
    ] = "behind",
    theme: Annotated[str, typer.Option(help="dark or light.")] = "dark",
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Of pictures and films, pixels; default 1280x720, on a sheet 960x540.")
    ] = "",
    fps: Annotated[float, typer.Option(help="Frames a second of a film.")] = 4.0,
    cache: Cache = True,
) -> None:
    """Look at boxes on lidar clouds: in a window; with --save in a picture, sheet or film, with --html on a page."""
    outputs = writable(**{"--save": save, "--html": html})
    refuse_inputs(outputs, cloud, predictions, boxes, calib, protocol)
    if (save is not None and not camera) or not outputs:
        extras.require("viz", "open3d", "pillow", what="the viewer")
    from detmetrics_viz import looks, themes, viewing, window

    if not outputs:
        window.check_display()
    words: Any = {"points": points, "boxes": color or "outcome", "labels": labels}
    look = looks.Look(theme=themes.theme_of(theme), min_score=min_score, **words)
    kind: Any = shape
    request = viewing.Request(
        look, look_from, frame=frame, best=best, worst=worst, per_class=per_class, save=save, html=html, camera=camera,
        shape=kind, size=viewing.size_of(size) if size else None, fps=fps,
    )  # fmt: skip
    with steps() as step:
        if cloud is not None:
            stray: dict[str, Any] = {
                "--data": data, "--version": version, "--split": split, "--scene": scene, "--protocol": protocol,
                "--camera": camera, "--sweeps": sweeps != 1, "--lidar": lidar != "LIDAR_TOP",
            }  # fmt: skip
            if given := [option for option, value in stray.items() if value]:
                raise InputError(f"{given[0]} goes with a data set, not with one cloud")
            footage = viewing.open_cloud(cloud, boxes, predictions, calib, format_, frame)
        else:
            stray = {"--boxes": boxes, "--calib": calib, "--format": format_}
            if given := [option for option, value in stray.items() if value]:
                raise InputError(f"{given[0]} goes with one cloud" + ("" if data else ": boxes without a cloud"))
            footage = _footage(
                Source(data, version, split, scene, None, cache, protocol), predictions, lidar, sweeps, step
            )
        if not color and not footage.has_predictions:
            request = request.by_class()
        cameras = viewing.cameras_of(data, version) if camera and data is not None else None
        with step("drawing") as advance:
            lines = viewing.view(footage, request, cameras=cameras, progress=advance)
    for line in lines:
        show(line)
    if not outputs:
        viewing.show(footage, request)


def _footage(source: Source, predictions: Path | None, lidar: str, sweeps: int, step: Step) -> Any:
    """Open a data set to look at it; of truth and predictions the frames that both have."""
    from detmetrics.io import ledgers
    from detmetrics_viz.footage import Footage

    if source.data is None:
        raise InputError("give either a cloud or --data DATAROOT")
    if source.protocol is not None and predictions is None:
        raise InputError("--protocol goes with --predictions: without them nothing is matched")
    truth = ledger = None
    if predictions is not None and ledgers.is_ledger(predictions):
        source._replace(data=None, version=None, scenes=None, protocol=None).refuse()
        ledger = saved_ledger(predictions, source.protocol, step)
        truth = ledger.truth
    else:
        truth = source.read(step)
    if predictions is not None and ledger is None:
        pred = read_predictions(predictions, step)
        shared = [name for name in truth.frames if name in pred.frame_index]
        if not shared:
            raise InputError(
                f"{predictions} and {truth.source} have no frame in common", hint="is it another split? see --split"
            )
        if len(shared) < truth.n_frames:
            step.say(f"{truth.n_frames - len(shared)} frames without predictions are left out")
        from detmetrics.matching import match

        with step("matching"):
            ledger = match(truth.take(shared), pred.take(shared), protocol_of(source.protocol or "nuscenes"))
        truth = ledger.truth
    with step("reading poses"):
        footage = Footage.of_data(
            source.data, truth, None, ledger, version=source.version, channel=lidar, n_sweeps=sweeps
        )
    return footage.only(source.scenes) if source.scenes else footage
