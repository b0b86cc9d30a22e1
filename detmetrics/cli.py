"""The command line: one front door; every room is imported only when it is used."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from errno import EDQUOT, ENOSPC
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import quote

import msgspec
import typer

from detmetrics import __version__, extras
from detmetrics.errors import DetmetricsError, InputError, listing
from detmetrics.files import check_ending, check_output, whole_file

if TYPE_CHECKING:
    from detmetrics.boxes import Boxes
    from detmetrics.gate import Gate, Verdict
    from detmetrics.ledger import Ledger
    from detmetrics.protocol import Protocol
    from detmetrics.resampling import Bootstrap, Comparison
    from detmetrics.scoring import Scores
    from detmetrics.slicing import Slices

app = typer.Typer(
    name="detmetrics",
    help="Is this 3D detector better, where, and am I sure?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Results = Annotated[Path, typer.Argument(help="Predictions, or a ledger saved by evaluate --ledger.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DATAROOT", help="Folder of a data set: nuScenes, TruckScenes, Argoverse 2."),
]
Version = Annotated[
    str | None, typer.Option("--version", metavar="V", help="Version of the tables; default: the only v1.*-* there.")
]
Split = Annotated[
    str | None, typer.Option("--split", metavar="S", help="Predefined split, or one of the data set's splits.json.")
]
Scene = Annotated[list[str] | None, typer.Option("--scene", metavar="NAME", help="Only this scene; may be repeated.")]
Truth = Annotated[
    Path | None, typer.Option("--truth", metavar="FILE", help="Truth in Parquet or feather instead of --data.")
]
Rules = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        metavar="NAME|FILE",
        help="A bundled protocol, or your own as a TOML file; default nuscenes, or the ledger's own.",
        show_default=False,
    ),
]
Slicings = Annotated[
    list[str] | None,
    typer.Option(
        "--by", metavar="ATTRIBUTE", help="Also slice: range=0,20,40, weather, scene+class, …; may be repeated."
    ),
]
Draws = Annotated[
    int, typer.Option("--bootstrap", metavar="N", help="Intervals from N draws of scenes, e.g. 1000; 0: none.")
]
Unit = Annotated[str, typer.Option(help="What is drawn as one: scene, frame, or another column of the frames.")]
Token = Annotated[
    str | None, typer.Option("--token", envvar="DETMETRICS_TOKEN", help="What the server's admin gave you.")
]
Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS to the server.")]
TlsCa = Annotated[
    Path | None, typer.Option("--tls-ca", metavar="FILE", help="Certificates to trust, PEM; means --tls.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Another machine without TLS, all the same.")]
Cache = Annotated[bool, typer.Option("--cache/--no-cache", help="Keep truth read from tables in the cache folder.")]


@app.callback(invoke_without_command=True)
def _front(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"detmetrics {__version__}")
        raise typer.Exit


@app.command()
def evaluate(
    results: Results,
    data: Data = None,
    version: Version = None,
    split: Split = None,
    scene: Scene = None,
    truth: Truth = None,
    protocol: Rules = None,
    absent: Annotated[
        str, typer.Option(help="A class without truth: 'official' (AP 0, worst errors) or 'omit' (left out).")
    ] = "official",
    json_out: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers (official keys, and signature).")
    ] = None,
    details_out: Annotated[
        Path | None, typer.Option("--details", metavar="FILE", help="Write the curves (official keys).")
    ] = None,
    ledger_out: Annotated[
        Path | None, typer.Option("--ledger", metavar="FILE", help="Keep the matching, to slice or compare it later.")
    ] = None,
    by: Slicings = None,
    n: Draws = 0,
    unit: Unit = "scene",
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    cache: Cache = True,
) -> None:
    """Score predictions: the table people know, slices and intervals, and the official files on request."""
    outputs = _writable(**{"--json": json_out, "--details": details_out, "--ledger": ledger_out})
    _refuse_inputs(outputs, results, truth, protocol)
    rule = _absent(absent)
    _check_draws(n)
    from detmetrics import slicing

    slicings = [slicing.parse(text) for text in dict.fromkeys(by or [])]
    with _progress() as step:
        ledger, seconds = _ledger(results, _Source(data, version, split, scene, truth, cache, protocol), step)
        with step("scoring"):
            from detmetrics.scoring import score

            start = time.perf_counter()
            scores = score(ledger, absent=rule)
            scores = replace(scores, eval_time_s=seconds + time.perf_counter() - start)
            scores.signature  # noqa: B018  hashes are part of the work
            sliced = [slicing.slices(ledger, slicing.text_of(terms)) for terms in slicings]
        intervals = None
        if n:
            from detmetrics.resampling import bootstrap

            with step(f"{n:,} draws of {unit}s") as advance:
                intervals = bootstrap(ledger, n, unit, seed, absent=rule, progress=advance)
        if "--ledger" in outputs:
            with step("writing the ledger"):
                ledger.save(outputs.pop("--ledger"))
    if "--json" in outputs:
        more = {"slices": {one.by: one.to_rows() for one in sliced}} if sliced else {}
        _write_json(outputs["--json"], {**_summary(scores, intervals), **more})
    if "--details" in outputs:
        _write_json(outputs["--details"], scores.to_details())
    _print_scores(scores, intervals, sliced)


@app.command()
def compare(
    baseline: Annotated[
        Path, typer.Argument(help="Predictions, or a ledger saved by evaluate --ledger; with --server an evaluation.")
    ],
    candidate: Annotated[Path, typer.Argument(help="What may take the place of the baseline.")],
    data: Data = None,
    version: Version = None,
    split: Split = None,
    scene: Scene = None,
    truth: Truth = None,
    protocol: Rules = None,
    gate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rules in TOML; exit code 3 where one of them is broken.")
    ] = None,
    by: Slicings = None,
    n: Annotated[
        int | None, typer.Option("-n", "--draws", help="Number of draws; default 1000, or the gate's.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="What is drawn as one; default scene, or the gate's.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws; default 0, or the gate's.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")] = None,
    markdown_out: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a summary for a pull request.")
    ] = None,
    cache: Cache = True,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Compare two evaluations there: BASELINE and CANDIDATE are evaluations/…, or names that they were "
            "submitted with.",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --server: look for the names in this data set only.")
    ] = None,
    token: Token = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    insecure: Insecure = False,
) -> None:
    """Compare two detectors on the same truth: what got better or worse, and is it more than chance."""
    outputs = _writable(**{"--json": json_out, "--markdown": markdown_out})
    from detmetrics import gate as gates
    from detmetrics import slicing

    slicings = [slicing.text_of(slicing.parse(text)) for text in dict.fromkeys(by or [])]
    if n is not None and n < 2:
        raise InputError("--draws", expected="at least 2", got=n)
    given = {name: value for name, value in {"n": n, "unit": unit, "seed": seed}.items() if value is not None}
    rules = None if gate is None else msgspec.structs.replace(gates.Gate.load(gate), **given)
    source = _Source(data, version, split, scene, truth, cache, protocol)
    names = (baseline.stem, candidate.stem)
    if server is None:
        _refuse_inputs(outputs, baseline, candidate, truth, gate, protocol)
        of_server = {"--dataset": dataset, "--tls": tls, "--tls-ca": tls_ca, "--insecure": insecure}
        if stray := [option for option, value in of_server.items() if value]:
            raise InputError(f"{stray[0]} goes with --server")
        comparison, verdict, sliced = _compare_here((baseline, candidate), source, rules, given, slicings)
    else:
        _refuse_inputs(outputs, gate)
        source.refuse("not with --server: it holds the truth, and knows the rules", protocol)
        names = (str(baseline), str(candidate))
        with _client(server, token, tls, tls_ca, insecure) as client:
            comparison, verdict, sliced = _compare_there(names, dataset, client, rules, given, slicings)
    from detmetrics.reporting import comparing
    from detmetrics.reporting.table import comparison_table
    from detmetrics.scoring import headline_names

    if "--json" in outputs:
        _write_json(outputs["--json"], comparing.as_json(comparison, verdict, sliced))
    if "--markdown" in outputs:
        with whole_file(outputs["--markdown"]) as file:
            file.write(comparing.as_markdown(comparison, verdict, sliced, names).encode())
    console = _console()
    console.print(comparison_table(comparison))
    for part in sliced.values():
        console.print(comparison_table(part, headline_names(part.protocol)))
    if verdict is not None:
        console.print(comparing.verdict_table(verdict))
        if not verdict.passed:
            raise typer.Exit(3)


@app.command()
def report(
    results: Annotated[
        list[Path], typer.Argument(help="Predictions or saved ledgers; the others are compared with the first.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="HTML file to write.")],
    data: Data = None,
    version: Version = None,
    split: Split = None,
    scene: Scene = None,
    truth: Truth = None,
    protocol: Rules = None,
    by: Slicings = None,
    n: Annotated[int, typer.Option("--bootstrap", metavar="N", help="Draws for the intervals; 0: none.")] = 1000,
    unit: Unit = "scene",
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="What a run is called, once for each; default: its file.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "",
    worst: Annotated[int, typer.Option("--worst", min=0, help="How many of the worst frames to list.")] = 20,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pictures of frames: FRAME.png, .jpg or .webp.")
    ] = None,
    link: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where a frame can be seen, with {frame} for its name.")
    ] = "",
    draw: Annotated[
        Path | None,
        typer.Option(
            metavar="DATAROOT",
            help="Draw the worst frames of each run, and write a page of each beside the report.",
        ),
    ] = None,
    cache: Cache = True,
) -> None:
    """Write one HTML file to read and to forward: how good, where, why not better, how sure, what changed."""
    target = _writable(**{"--output": output})["--output"]
    check_ending(output, (".html", ".htm"), "--output")
    _refuse_inputs({"--output": target}, *results, truth, protocol)
    _check_draws(n)
    from detmetrics import slicing
    from detmetrics.reporting import page

    by = [slicing.text_of(slicing.parse(text)) for text in dict.fromkeys(by or [])]
    page.environment()
    if draw is not None:
        extras.require("viz", "open3d", "pillow", what="a drawing")
    if link and "{frame}" not in link:
        raise InputError("--link", expected="an address with {frame} in it", got=link)
    if draw is not None and (link or images is not None):
        raise InputError("--draw makes pictures and links: give it without --images and --link")
    pictures = {} if images is None else _pictures(images)
    names = page.named([str(path) for path in results], name or None)
    with _progress() as step:
        source = _Source(data, version, split, scene, truth, cache, protocol)
        ledgers, _ = _ledgers(results, source, step)
        links = (
            {frame: link.replace("{frame}", quote(frame, safe="")) for frame in ledgers[0].truth.frames} if link else {}
        )
        with ExitStack() as stack:
            shown: Any = pictures
            led: Any = links
            if draw is not None:
                called = names if len(names) > 1 else [""]
                shown = [
                    stack.enter_context(_gallery(draw, version, ledger, target, run))
                    for ledger, run in zip(ledgers, called, strict=True)
                ]
                led = [one.links() for one in shown]
            advance = stack.enter_context(step.several())
            page.report(
                ledgers, target, names=names, title=title, by=by, n=n, unit=unit, seed=seed, n_worst=worst,
                images=shown, links=led, progress=advance,
            )  # fmt: skip
    _console().print(f"{output}: {target.stat().st_size / 1e6:.1f} MB, {listing(names)}")


@app.command()
def diagnose(
    results: Results,
    data: Data = None,
    version: Version = None,
    split: Split = None,
    scene: Scene = None,
    truth: Truth = None,
    protocol: Rules = None,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")] = None,
    cache: Cache = True,
) -> None:
    """Say why it is wrong: the cause of every false positive and missed truth, and what repairing each would give."""
    outputs = _writable(**{"--json": json_out})
    _refuse_inputs(outputs, results, truth, protocol)
    from detmetrics.diagnosis import diagnose as find
    from detmetrics.operating import operating_points
    from detmetrics.reporting.table import diagnosis_table, operating_table

    with _progress() as step:
        ledger, _ = _ledger(results, _Source(data, version, split, scene, truth, cache, protocol), step)
        with step("looking for causes"):
            diagnosis, points = find(ledger), operating_points(ledger)
    if "--json" in outputs:
        by_class = {label: diagnosis.counts(label) for label in ledger.protocol.labels}
        values = {"causes": diagnosis.to_rows(), "by_class": by_class, "operating_points": points.to_rows()}
        values |= {"value": dict(diagnosis.value), "signature": ledger.signature("official")}
        _write_json(outputs["--json"], values)
    console = _console()
    console.print(diagnosis_table(diagnosis))
    console.print(operating_table(points))


@app.command()
def worst(
    results: Results,
    data: Data = None,
    version: Version = None,
    split: Split = None,
    scene: Scene = None,
    truth: Truth = None,
    protocol: Rules = None,
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many frames to list.")] = 20,
    cost: Annotated[
        bool, typer.Option("--cost/--no-cost", help="Score the set once without each frame; else go by mistakes.")
    ] = True,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all frames as JSON.")] = None,
    cache: Cache = True,
) -> None:
    """List the frames that cost most."""
    outputs = _writable(**{"--json": json_out})
    _refuse_inputs(outputs, results, truth, protocol)
    from detmetrics.framing import frames
    from detmetrics.reporting.table import frames_table

    with _progress() as step:
        ledger, _ = _ledger(results, _Source(data, version, split, scene, truth, cache, protocol), step)
        with step("leaving out each frame") as advance:
            found = frames(ledger, cost=cost, progress=advance)
    if "--json" in outputs:
        _write_json(outputs["--json"], list(found.to_rows()))
    _console().print(frames_table(found, n))


@app.command()
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
    outputs = _writable(**{"--save": save, "--html": html})
    _refuse_inputs(outputs, cloud, predictions, boxes, calib, protocol)
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
    with _progress() as step:
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
                _Source(data, version, split, scene, None, cache, protocol), predictions, lidar, sweeps, step
            )
        if not color and not footage.has_predictions:
            request = request.by_class()
        cameras = viewing.cameras_of(data, version) if camera and data is not None else None
        with step("drawing") as advance:
            lines = viewing.view(footage, request, cameras=cameras, progress=advance)
    for line in lines:
        _console().print(line)
    if not outputs:
        viewing.show(footage, request)


@app.command()
def export(
    results: Results,
    output: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    data: Data = None,
    version: Version = None,
    split: Split = None,
    scene: Scene = None,
    truth: Truth = None,
    protocol: Rules = None,
    by: Slicings = None,
    cache: Cache = True,
) -> None:
    """Write one row for every truth and prediction: outcome and match at every threshold, errors, cause, slices."""
    target = _writable(output=output)["output"]
    _refuse_inputs({"output": target}, results, truth, protocol)
    check_ending(output, (".parquet",), "the output")
    extras.require("parquet", what="Parquet")
    from detmetrics.slicing import parse, text_of

    for text in by or []:
        if len(parse(text)) != 1:
            raise InputError("--by of an export", expected="one attribute", got=text_of(parse(text)))
    with _progress() as step:
        ledger, _ = _ledger(results, _Source(data, version, split, scene, truth, cache, protocol), step)
        with step(f"writing {output.name}"):
            table = ledger.to_arrow(by or ["range"])
            import pyarrow.parquet

            with whole_file(target) as file:
                pyarrow.parquet.write_table(table, file, compression="zstd")
    _console().print(f"{output}: {table.num_rows:,} rows, {table.num_columns} columns")


@app.command()
def protocols(
    name: Annotated[
        str | None, typer.Argument(help="A bundled protocol, or a TOML file; default: all, in short.")
    ] = None,
    toml: Annotated[
        bool, typer.Option("--toml", help="Print the rules as TOML, to start a protocol of your own.")
    ] = False,
) -> None:
    """Print the rules of the protocols, from their data."""
    from detmetrics.protocols import PROTOCOLS
    from detmetrics.reporting import rules

    if name is None:
        if toml:
            raise InputError("--toml needs the name of a protocol", hint=f"known: {listing(PROTOCOLS)}")
        _console().print(rules.overview(PROTOCOLS))
    elif toml:
        typer.echo(rules.as_toml(_protocol(name)), nl=False)
    else:
        _console().print(rules.as_renderable(_protocol(name)))


@app.command()
def convert(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="[INPUT] OUTPUT", help="INPUT is left out when --data names truth to convert."),
    ],
    data: Data = None,
    version: Version = None,
    split: Split = None,
    scene: Scene = None,
    cache: Cache = True,
) -> None:
    """Convert predictions or truth to our Parquet, and predictions back to nuScenes result JSON.

    The ending of OUTPUT decides: .parquet or .json.
    """
    expected = 1 if data is not None else 2
    if len(paths) != expected:
        raise InputError(
            "arguments", expected="OUTPUT" if data is not None else "INPUT OUTPUT", got=[str(path) for path in paths]
        )
    given = {"--version": version, "--split": split, "--scene": scene}
    if data is None and (stray := [option for option, value in given.items() if value]):
        raise InputError(f"{stray[0]} goes with --data, not with INPUT")
    output = paths[-1]
    check_ending(output, (".parquet", ".json"), "the output")
    _refuse_inputs(_writable(output=output), *paths[:-1])
    if output.suffix == ".parquet":
        extras.require("parquet", what="Parquet")
    from detmetrics import io

    with _progress() as step:
        boxes = _truth(data, version, split, scene, None, cache, step) if data else _predictions(paths[0], step)
        with step(f"writing {output.name}"):
            if output.suffix == ".parquet":
                io.parquet.write(boxes, output)
            else:
                io.nuscenes.write_results(boxes, output)
    _console().print(f"{output}: {len(boxes):,} boxes in {boxes.n_frames:,} frames")


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; it must not exist or be empty.")],
    boxes_only: Annotated[bool, typer.Option("--boxes-only", help="Tables without sensor data.")] = False,
    train_scenes: Annotated[int | None, typer.Option(help="Scenes of the split synth_train; default 2.")] = None,
    val_scenes: Annotated[int | None, typer.Option(help="Scenes of the split synth_val; default 2.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    samples: Annotated[int | None, typer.Option(help="Key frames a scene, at 2 Hz; default 40.")] = None,
    sweeps: Annotated[int | None, typer.Option(help="Clouds between key frames, 0 to 9; default 2.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="2 + 2 short scenes with the full sensor, in seconds.")] = False,
    workers: Annotated[int | None, typer.Option(help="Threads; default: the cores, at most 8.")] = None,
    sensor_rows: Annotated[
        bool,
        typer.Option("--sensor-rows", help="With --boxes-only: rows for all 12 sensors, to test loading at full size."),
    ] = False,
    predictions: Annotated[
        bool | None,
        typer.Option(
            "--predictions/--no-predictions",
            help="With --boxes-only: also imperfect predictions of each split (default).",
        ),
    ] = None,
    boxes_per_sample: Annotated[
        int | None, typer.Option(help="With --boxes-only: predicted boxes a sample, about; default 60.")
    ] = None,
) -> None:
    """Write seeded driving scenes in the nuScenes format: with lidar clouds, or boxes only with predictions."""
    sizes = {"--train-scenes": train_scenes, "--val-scenes": val_scenes, "--samples": samples, "--sweeps": sweeps}
    if tiny and (stray := [option for option, value in sizes.items() if value is not None]):
        raise InputError(f"{stray[0]} does not go with --tiny, which says all sizes")
    from detmetrics.synth import TINY, write_dataset, write_predictions
    from detmetrics.synth.predictions import Detector

    train_scenes = 2 if train_scenes is None else train_scenes
    val_scenes = 2 if val_scenes is None else val_scenes
    samples = 40 if samples is None else samples
    if not boxes_only:
        for option, is_given in {
            "--sensor-rows": sensor_rows,
            "--predictions": predictions is not None,
            "--boxes-per-sample": boxes_per_sample is not None,
        }.items():
            if is_given:
                raise InputError(f"{option} goes with --boxes-only, not with the lidar world")
        plan = TINY if tiny else {
            "train_scenes": train_scenes, "val_scenes": val_scenes, "samples_per_scene": samples,
            "sweeps": 2 if sweeps is None else sweeps,
        }  # fmt: skip
        _synth_world(out, plan, seed, workers)
        return
    for option, is_given in {"--sweeps": sweeps is not None, "--tiny": tiny, "--workers": workers is not None}.items():
        if is_given:
            raise InputError(f"{option} goes with the lidar world, not with --boxes-only")
    if predictions is False and boxes_per_sample is not None:
        raise InputError("--boxes-per-sample goes with --predictions, not with --no-predictions")
    detector = Detector(boxes_per_sample=60 if boxes_per_sample is None else boxes_per_sample)
    detector.check()  # before anything is written
    with _progress() as step:
        with step("scenes") as advance:
            write_dataset(
                out,
                train_scenes=train_scenes,
                val_scenes=val_scenes,
                seed=seed,
                samples_per_scene=samples,
                sensor_rows=sensor_rows,
                progress=advance,
            )
        splits = {"synth_train": train_scenes, "synth_val": val_scenes}
        written = [split for split, n_scenes in splits.items() if n_scenes and predictions is not False]
        for split in written:
            with step(f"predictions of {split}") as advance:
                write_predictions(
                    out,
                    out / f"results_{split}.json",
                    split=split,
                    seed=seed,
                    boxes_per_sample=detector.boxes_per_sample,
                    progress=advance,
                )
    console = _console()
    console.print(f"{out}: version v1.0-synth, {train_scenes} + {val_scenes} scenes of {samples} samples")
    for split in written:
        console.print(f"  detmetrics evaluate {out / f'results_{split}.json'} --data {out} --split {split}")


def _synth_world(out: Path, plan: dict[str, int], seed: int, workers: int | None) -> None:
    from detmetrics.synth import WorldPlan, write_world

    whole = WorldPlan(seed=seed, **plan)
    whole.check()
    cores = workers or min(os.cpu_count() or 1, 8)
    minutes = whole.seconds(cores) / 60
    with _progress() as step:
        step.say("when interrupted, the same command goes on where it stopped")
        step.say(
            f"{plan['train_scenes']} + {plan['val_scenes']} scenes, {whole.n_clouds():,} clouds: about "
            f"{whole.n_bytes() / 1e9:.2g} GB and {max(minutes, 0.1):.2g} minutes with {cores} threads"
        )
        with step("clouds") as advance:
            summary = write_world(out, seed=seed, workers=workers, progress=advance, **plan)
        if summary.n_resumed:
            step.say(f"{summary.n_resumed} scenes were there from an interrupted run")
    console = _console()
    console.print(
        f"{out}: version v1.0-synth, world {whole.world_version}, {summary.n_clouds:,} clouds, "
        f"{summary.n_rows['sample_annotation']:,} boxes in {summary.n_rows['sample']:,} samples"
    )


Server = Annotated[str, typer.Option("--server", metavar="HOST:PORT", help="Where the server is.")]
Store = Annotated[Path | None, typer.Option("--storage", metavar="DIR", help="The server's folder.")]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML; flags win.")]


@app.command()
def serve(
    storage: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of database and blobs; made.")] = None,
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default: 127.0.0.1:50051.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key, PEM.")] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Serve other machines without TLS and tokens, all the same.")
    ] = None,
    tokens: Annotated[
        bool | None, typer.Option("--tokens/--no-tokens", help="Whether calls need one; default: where any exists.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default one a core.")] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="HOST:PORT", help="Serve Prometheus.")] = None,
    config: Config = None,
    more: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; may be repeated.")
    ] = None,
) -> None:
    """Serve evaluations over gRPC: truth stays here, people submit predictions.

    The settings are printed at the start, as TOML for --config; DETMETRICS_SERVER_… in the environment sets one, too.
    """
    _quiet_grpc()
    from detmetrics_server import main, settings

    flags: dict[str, Any] = {
        "storage": storage,
        "address": address,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "insecure": insecure,
    }
    flags |= {"tokens": tokens, "workers": workers, "metrics_address": metrics}
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()}
    for entry in more or ():
        name, mark, text = entry.partition("=")
        if not mark:
            raise InputError("--set", expected="NAME=VALUE", got=entry)
        texts[name] = text
    main.run(settings.load(texts, file=config))


@app.command()
def submit(
    results: Annotated[Path, typer.Argument(help="Predictions: nuScenes result JSON, gzipped or not, or Parquet.")],
    dataset: Annotated[str, typer.Option(help="Name of the data set on the server.")],
    server: Server = "localhost:50051",
    name: Annotated[str, typer.Option(help="What to call it.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="To find it by; may be repeated.")] = None,
    protocol: Rules = None,
    absent: Annotated[str, typer.Option(help="A class without truth: 'official' or 'omit'.")] = "official",
    n: Draws = 0,
    unit: Unit = "scene",
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers.")] = None,
    token: Token = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    insecure: Insecure = False,
) -> None:
    """Send predictions to a server and print the table."""
    outputs = _writable(**{"--json": json_out})
    rule = _absent(absent)
    _check_draws(n)
    with _client(server, token, tls, tls_ca, insecure) as client, _progress() as step, _stages(step) as progress:
        chosen = _protocol(protocol) if protocol and protocol.endswith(".toml") else protocol or "nuscenes"
        run = client.evaluate(
            results, dataset=dataset, name=name, tags=tag or [], protocol=chosen, absent=rule, bootstrap=n, unit=unit,
            seed=seed, progress=progress,
        )  # fmt: skip
    if "--json" in outputs:
        _write_json(outputs["--json"], {**_summary(run.scores, run.intervals), "evaluation": run.name})
    _print_scores(run.scores, run.intervals)
    _console().print(run.name)


@app.command("upload-dataset")
def upload_dataset(
    name: Annotated[str, typer.Argument(help="What the data set is to be called.")],
    data: Data = None,
    version: Version = None,
    split: Split = None,
    scene: Scene = None,
    truth: Truth = None,
    server: Server = "localhost:50051",
    token: Token = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    insecure: Insecure = False,
    cache: Cache = True,
) -> None:
    """Store ground truth on a server; it never comes back."""
    with _client(server, token, tls, tls_ca, insecure) as client, _progress() as step:
        boxes = _truth(data, version, split, scene, truth, cache, step)
        with _stages(step) as progress:
            stored = client.upload_dataset(name, boxes, progress=progress)
    _console().print(f"{stored.name}: {stored.n_boxes:,} boxes in {stored.n_frames:,} frames")


token_app = typer.Typer(help="Who may call a server.", no_args_is_help=True)
app.add_typer(token_app, name="token")


@token_app.command("add")
def token_add(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    storage: Store = None,
    role: Annotated[str, typer.Option(help="reader, submitter or admin.")] = "submitter",
    days: Annotated[float | None, typer.Option(min=0, help="How long it is valid; default: for ever.")] = None,
    config: Config = None,
) -> None:
    """Make a token and print it, once: only its hash is kept."""
    expires_ns = None if days is None else time.time_ns() + int(days * 86_400e9)
    kind: Any = role
    typer.echo(_storage(storage, config, must_exist=False).add_token(name, kind, expires_ns))


@token_app.command("list")
def token_list(storage: Store = None, config: Config = None) -> None:
    """List the tokens, without what they are."""
    for row in _storage(storage, config).tokens():
        until = (
            "" if row["expires_ns"] is None else time.strftime(" until %F %T", time.localtime(row["expires_ns"] / 1e9))
        )
        typer.echo(f"{row['name']}  {row['role']}{until}")


@token_app.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(help="Whose it is.")], storage: Store = None, config: Config = None
) -> None:
    """Make a token invalid."""
    _storage(storage, config).delete_token(name)


detector = typer.Typer(name="detector", help="The bundled baseline detector.", no_args_is_help=True)
app.add_typer(detector)
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda; auto takes CUDA where there is one.")]
Loaders = Annotated[int, typer.Option("--workers", min=0, help="Processes that read samples.")]
Root = Annotated[Path, typer.Option("--data", metavar="DATAROOT", help="A data set in the nuScenes format.")]


@detector.command("info")
def detector_info(device: Device = "auto") -> None:
    """Parameters, FLOPs and latency of each configuration on this machine."""
    from detmetrics.detector import commands

    commands.info(device, _console().print)


@detector.command("train")
def detector_train(
    data: Root,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the run; one that is there goes on.")],
    config: Annotated[str, typer.Option(help="tiny, small or base.")] = "small",
    train_split: Annotated[str, typer.Option(metavar="S", help="Split to train on.")] = "synth_train",
    val_split: Annotated[str, typer.Option(metavar="S", help="Split to validate on.")] = "synth_val",
    version: Version = None,
    epochs: Annotated[int | None, typer.Option(help="Passes; default 8.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples a step; default 2.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples an epoch; default: as many as there are.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; default 0.0015.")] = None,
    lr_scale: Annotated[
        list[str] | None,
        typer.Option(metavar="PART=FACTOR", help="Of encoder, backbone, neck, heads; may be repeated."),
    ] = None,
    decay: Annotated[float | None, typer.Option(help="Weight decay; default 0.01.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Of channels before the heads; default 0.")] = None,
    freeze: Annotated[str, typer.Option(metavar="PARTS", help="Not trained, e.g. encoder,backbone.")] = "",
    init_from: Annotated[Path | None, typer.Option(metavar="FILE", help="Checkpoint to start from.")] = None,
    augment: Annotated[bool, typer.Option("--augment/--no-augment", help="Vary the samples.")] = True,
    sweeps: Annotated[int | None, typer.Option(help="Clouds joined; default: the configuration's.")] = None,
    stop_on: Annotated[str | None, typer.Option(help="What the best epoch goes by: NDS (default) or val_loss.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better one, then stop; default: never.")
    ] = None,
    validate: Annotated[int | None, typer.Option(help="Validation samples an epoch; default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    device: Device = "auto",
    workers: Loaders = 1,
    compile_it: Annotated[bool, typer.Option("--compile", help="torch.compile the convolutions.")] = False,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Train although val shares data with train.")
    ] = False,
) -> None:
    """Train a detector; the same command goes on where an interrupted one stopped."""
    extras.require("detector")
    from detmetrics.detector import commands

    settings = {"epochs": epochs, "batch": batch, "samples": samples, "lr": lr, "decay": decay, "stop_on": stop_on}
    settings |= {"patience": patience, "validate": validate, "seed": seed}
    with _progress() as step, step.several() as advance:
        commands.run_training(
            data, out, config, settings, splits=(train_split, val_split), version=version, allow_leaks=allow_leaks,
            sweeps=sweeps, dropout=dropout, augment=augment, lr_scale=lr_scale or [], freeze=freeze,
            init_from=init_from, device=device, workers=workers, compile_it=compile_it, say=step.say, progress=advance,
        )  # fmt: skip


@detector.command("predict")
def detector_predict(
    data: Root,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Result JSON, or Parquet by its ending.")],
    split: Split = None,
    version: Version = None,
    weights: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="Default: the bundled one.")
    ] = None,
    device: Device = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 4,
    workers: Loaders = 1,
    sweeps: Annotated[
        int | None, typer.Option(min=1, help="Clouds joined, at most; default: as many as it was trained with.")
    ] = None,
) -> None:
    """Find the objects of a split, for detmetrics evaluate."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait starve a busy machine
    from detmetrics.detector import commands

    with _progress() as step, step("predicting") as advance:
        line = commands.run_prediction(
            data, split, out, weights=weights, version=version, device=device, batch=batch, workers=workers,
            sweeps=sweeps, progress=advance,
        )  # fmt: skip
    _console().print(line)


@detector.command("check")
def detector_check(
    data: Root,
    train: Annotated[str, typer.Option(metavar="S", help="Split to train on.")] = "synth_train",
    val: Annotated[str, typer.Option(metavar="S", help="Split to validate on.")] = "synth_val",
    version: Version = None,
    clouds: Annotated[bool, typer.Option(help="Also look for clouds that are nearly alike.")] = True,
) -> None:
    """Look for leaks between two splits, and for shifts; exit code 3 where there is a leak."""
    from detmetrics.detector import leaks

    with _progress() as step, step("reading both splits") as advance:
        found = leaks.check(data, train, val, version, clouds=clouds, progress=advance)
    typer.echo(found.to_text())
    if found.refusals:
        raise typer.Exit(3)


@detector.command("curves")
def detector_curves(run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]) -> None:
    """Draw the curves of a run anew, and say what they say."""
    extras.require("detector", "matplotlib", "jinja2")
    from detmetrics.detector import page

    told = page.write_page(run)
    typer.echo(f"{told.kind}: {told.words}\n{told.advice}")


@detector.command("card")
def detector_card(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Put card and loss curves there, instead of printing."),
    ] = None,
) -> None:
    """Show the model card of the bundled detector: how it was trained, how good it is, what it cannot do."""
    weights = Path(__file__).parent / "detector" / "weights"
    if out is None:
        typer.echo((weights / "MODEL_CARD.md").read_text(encoding="utf-8"), nl=False)
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {out}: {error.strerror}") from None
    for name in ("MODEL_CARD.md", "curves.png"):
        with whole_file(check_output(out / name, "--out")) as file:
            file.write((weights / name).read_bytes())
        typer.echo(out / name)


@detector.command("plain")
def detector_plain(
    data: Root,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Result JSON, or Parquet by its ending.")],
    split: Annotated[str, typer.Option("--split", metavar="S", help="Predefined split, or one of splits.json.")],
    version: Version = None,
    sweeps: Annotated[int, typer.Option(min=1, help="Clouds that boxes are followed through.")] = 3,
) -> None:
    """Find objects without learning (cluster, fit, classify by size): what a detector has to beat."""
    target = check_output(out, "--out")
    check_ending(target, (".json", ".parquet"), "--out")
    from detmetrics import io
    from detmetrics.detector import plain

    with _progress() as step, step("clustering") as advance:
        boxes = plain.predict(data, split, version, n_sweeps=sweeps, progress=advance)
    if target.suffix == ".parquet":
        io.parquet.write(boxes, target)
    else:
        io.nuscenes.write_results(boxes, target)
    _console().print(f"{out}: {len(boxes):,} boxes in {boxes.n_frames:,} samples")


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for everything that it makes.")] = Path("demo"),
) -> None:
    """From nothing to a scored, seen and served detector, in a few minutes: every command is shown."""
    from detmetrics import demo as tour

    tour.run(out, partial(_console().print, soft_wrap=True))  # a command on one line can be copied


def main() -> None:
    """Run the command line: exit code 2 for bad input, 1 for our own faults, never a traceback."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no – shows ? and all the rest
    try:
        app()  # ends the process itself, with 2 on wrong usage
    except BrokenPipeError:  # the reader of a pipe has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except DetmetricsError as error:
        _complain(str(error))
        sys.exit(2)
    except OSError as error:
        full = " (make room, then run the same command again)" if error.errno in (ENOSPC, EDQUOT) else ""
        _complain(f"{error.filename or 'system'}: {error.strerror or error}{full}")
        sys.exit(2)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (told := extras.missing(error)):
            _complain(str(told))
            sys.exit(2)
        if os.environ.get("DETMETRICS_DEBUG"):
            raise
        _complain(
            f"this is a fault of detmetrics, not of your input: {type(error).__name__}: {error} "
            "(set DETMETRICS_DEBUG=1 for the traceback)"
        )
        sys.exit(1)


def _absent(word: str) -> Any:
    """Give the word for what a class without truth counts, if it is one."""
    if word not in ("official", "omit"):
        raise InputError("--absent", expected="official or omit", got=word)
    return word


def _quiet_grpc() -> None:
    """Keep gRPC's own log lines away: what went wrong is said once, by us."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _client(server: str, token: str | None, tls: bool, tls_ca: Path | None, insecure: bool) -> Any:
    _quiet_grpc()
    from detmetrics_server.client import Client

    return Client(server, token=token, tls=tls_ca or tls, insecure=insecure, patience_s=10.0)


def _storage(folder: Path | None, config: Path | None, *, must_exist: bool = True) -> Any:
    from detmetrics_server import settings
    from detmetrics_server.storage import Storage

    told = settings.load({"storage": None if folder is None else str(folder)}, file=config)
    if must_exist and not Path(told.storage).is_dir():
        raise InputError(f"there is no folder {told.storage}")
    return Storage(Path(told.storage), url=told.database_url, exclusive=False)


@contextmanager
def _stages(step: Step) -> Iterator[Callable[[str, int, int], None]]:
    """Show the stages that a server tells of."""
    with ExitStack() as stack:
        shown: dict[str, Callable[[int, int], None]] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in shown:
                stack.close()
                shown[stage] = stack.enter_context(step(stage))
            shown[stage](done, total or 1)

        yield tell


def _truth(
    data: Path | None,
    version: str | None,
    split: str | None,
    scenes: list[str] | None,
    truth: Path | None,
    cache: bool,
    step: Step,
) -> Boxes:
    if (data is None) == (truth is None):
        raise InputError("give either --data DATAROOT or --truth FILE" + (", not both" if data else ""))
    from detmetrics import io

    if truth is not None:
        stray = [name for name, value in {"--version": version, "--split": split, "--scene": scenes}.items() if value]
        if stray:
            raise InputError(f"{stray[0]} goes with --data, not with --truth")
        with step(f"reading {truth.name}") as advance:
            return io.load_truth(truth, progress=advance)
    assert data is not None
    with step("reading truth") as advance:
        return io.load_truth(
            data,
            version=version,
            split=split,
            scenes=scenes or None,
            cache=cache,
            progress=advance,
            notice=step.say,
        )


class _Source(NamedTuple):
    """Where truth comes from and by which rules, as given on the command line."""

    data: Path | None
    version: str | None
    split: str | None
    scenes: list[str] | None
    truth: Path | None
    cache: bool
    protocol: str | None

    def read(self, step: Step) -> Boxes:
        return _truth(*self[:6], step)

    def refuse(self, why: str = "not with a ledger: a ledger holds its truth", protocol: str | None = None) -> None:
        """Refuse what would be ignored."""
        given = {"--data": self.data, "--version": self.version, "--split": self.split, "--truth": self.truth}
        stray = [name for name, value in {**given, "--scene": self.scenes, "--protocol": protocol}.items() if value]
        if stray:
            raise InputError(f"{stray[0]} goes with results, {why}")


def _ledger(path: Path, source: _Source, step: Step) -> tuple[Ledger, float]:
    """Load a ledger where the file is one, else read and match; and the seconds that matching took."""
    (ledger,), seconds = _ledgers([path], source, step)
    return ledger, seconds


def _ledgers(paths: list[Path], source: _Source, step: Step) -> tuple[list[Ledger], float]:
    """Load the files that are ledgers, match the others to one truth; and the seconds that matching took."""
    from detmetrics.io import ledgers

    saved = {path: _saved(path, source.protocol, step) for path in dict.fromkeys(paths) if ledgers.is_ledger(path)}
    if len(saved) == len(set(paths)):
        source.refuse()
        return [saved[path] for path in paths], 0.0
    if source.protocol is None and saved:
        rules = next(iter(saved.values())).protocol
    else:
        rules = _protocol(source.protocol or "nuscenes")
    truth = source.read(step)
    found, seconds = [], 0.0
    for path in paths:
        if path in saved:
            found.append(saved[path])
            continue
        pred = _predictions(path, step)
        with step("matching"):
            from detmetrics.matching import match

            start = time.perf_counter()
            found.append(match(truth, pred, rules))
            seconds += time.perf_counter() - start
    return found, seconds


def _saved(path: Path, protocol: str | None, step: Step) -> Ledger:
    """Load a ledger; refuse other rules than its own."""
    from detmetrics.io import ledgers

    rules = None if protocol is None else _protocol(protocol)
    with step(f"reading {path.name}"):
        ledger = ledgers.load(path)
    if rules is not None and rules.digest != ledger.protocol.digest:
        raise InputError("--protocol", expected=f"that of the ledger {path} ({ledger.protocol.name})", got=protocol)
    return ledger


def _compare_here(
    paths: tuple[Path, Path], source: _Source, rules: Gate | None, given: dict[str, Any], slicings: list[str]
) -> tuple[Comparison, Verdict | None, dict[str, Comparison]]:
    """Compare two files: the whole, what the gate says, and the slices."""
    from detmetrics.resampling import compare as pair

    settings = given
    if rules is not None:
        settings = {"n": rules.n, "unit": rules.unit, "seed": rules.seed, "level": rules.level}
    with _progress() as step:
        (first, second), _ = _ledgers(list(paths), source, step)
        with step("comparing") as advance:
            verdict = None if rules is None else rules.check(first, second, progress=advance)
            whole = pair(first, second, progress=advance, **settings) if verdict is None else verdict.comparison
        sliced: dict[str, Comparison] = {}
        for text in slicings:
            with step(f"comparing by {text}") as advance:
                parts = pair(first, second, by=text, progress=advance, **settings)
            sliced |= {f"{text}:{name}": part for name, part in parts.items()}
    return whole, verdict, sliced


def _compare_there(
    names: tuple[str, str],
    dataset: str | None,
    client: Any,
    rules: Gate | None,
    given: dict[str, Any],
    slicings: list[str],
) -> tuple[Comparison, Verdict | None, dict[str, Comparison]]:
    """Compare two evaluations of a server."""
    with _progress() as step:
        with step("looking for the evaluations"):
            baseline, candidate = (client.find(name, dataset=dataset) for name in names)
        with step("comparing on the server"):
            if rules is None:
                found = client.compare(baseline, candidate, by=slicings, **given)
            else:
                found = client.compare(baseline, candidate, by=slicings, gate=msgspec.to_builtins(rules))
    return found.comparison, found.verdict, dict(found.slices)


def _footage(source: _Source, predictions: Path | None, lidar: str, sweeps: int, step: Step) -> Any:
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
        ledger = _saved(predictions, source.protocol, step)
        truth = ledger.truth
    else:
        truth = source.read(step)
    if predictions is not None and ledger is None:
        pred = _predictions(predictions, step)
        shared = [name for name in truth.frames if name in pred.frame_index]
        if not shared:
            raise InputError(
                f"{predictions} and {truth.source} have no frame in common", hint="is it another split? see --split"
            )
        if len(shared) < truth.n_frames:
            step.say(f"{truth.n_frames - len(shared)} frames without predictions are left out")
        from detmetrics.matching import match

        with step("matching"):
            ledger = match(truth.take(shared), pred.take(shared), _protocol(source.protocol or "nuscenes"))
        truth = ledger.truth
    with step("reading poses"):
        footage = Footage.of_data(
            source.data, truth, None, ledger, version=source.version, channel=lidar, n_sweeps=sweeps
        )
    return footage.only(source.scenes) if source.scenes else footage


def _gallery(data: Path, version: str | None, ledger: Ledger, report: Path, run: str) -> Any:
    """Pictures of what a run found, drawn when asked for, and pages of them in a folder beside the report."""
    from detmetrics_viz.footage import Footage
    from detmetrics_viz.gallery import Gallery

    footage = Footage.of_data(data, ledger.truth, None, ledger, version=version)
    return Gallery(footage, report.with_name(f"{report.stem}_frames"), name=run)


def _refuse_inputs(outputs: dict[str, Path], *inputs: Path | str | None) -> None:
    """Refuse an output that would take the place of an input."""
    paths = {os.path.realpath(path) for path in inputs if path is not None}
    for option, path in outputs.items():
        if str(path) in paths:
            raise InputError(option, expected="another file than the input", got=str(path))


def _pictures(folder: Path) -> dict[str, Path]:
    """Give the pictures of a folder by name of the frame."""
    if not folder.is_dir():
        raise InputError("--images", expected="a folder", got=str(folder))
    kinds = (".png", ".jpg", ".jpeg", ".webp")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in kinds}


def _predictions(path: Path, step: Step) -> Boxes:
    from detmetrics import io

    with step(f"reading {path.name}") as advance:
        return io.load(path, progress=advance)


def _protocol(name: str) -> Protocol:
    from detmetrics.protocol import Protocol
    from detmetrics.protocols import PROTOCOLS, by_name

    if name.endswith(".toml"):
        return Protocol.load(name)
    if name not in PROTOCOLS and (Path(name).suffix or Path(name).exists()):
        raise InputError("--protocol", expected="a bundled protocol or a file that ends in .toml", got=name)
    return by_name(name)


def _check_draws(n: int) -> None:
    if n < 0 or n == 1:
        raise InputError("--bootstrap", expected="0, or at least 2", got=n)


def _summary(scores: Scores, intervals: Bootstrap | None) -> dict[str, Any]:
    """Give the numbers with their official keys, and the intervals."""
    values = scores.to_summary()
    if intervals is not None:
        values["intervals"] = {"signature": intervals.signature, "rows": intervals.to_rows()}
    return values


def _print_scores(scores: Scores, intervals: Bootstrap | None, sliced: Sequence[Slices] = ()) -> None:
    """Print the table people know, slices and intervals."""
    from detmetrics.reporting.table import as_renderable, intervals_table, slices_table

    console = _console()
    console.print(as_renderable(scores))
    for one in sliced:
        console.print(slices_table(one))
    if intervals is not None:
        console.print(intervals_table(intervals))


def _write_json(path: Path, values: Any) -> None:
    from detmetrics.reporting.official import without_nan

    with whole_file(path) as file:
        file.write(json.dumps(without_nan(values), indent=2, allow_nan=False).encode() + b"\n")


def _writable(**paths: Path | None) -> dict[str, Path]:
    """Check that files can be written before any work is done."""
    wanted = {option: check_output(path, option) for option, path in paths.items() if path is not None}
    if len(set(wanted.values())) < len(wanted):
        raise InputError(" and ".join(wanted), expected="different files")
    return wanted


def _console() -> Any:
    """Console for results: as wide as the terminal, or as the table where the output goes to a file."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)


def _complain(message: str) -> None:
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(message, err=True)


class Step:
    """Progress on stderr: ``with step("reading x") as advance: … advance(done, total)``."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress

    @contextmanager
    def __call__(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Show a step while it runs."""
        task = self.progress.add_task(title, total=None)
        yield lambda done, total: self.progress.update(task, completed=done, total=total)
        self.progress.update(task, total=1, completed=1)
        self.progress.remove_task(task)

    @contextmanager
    def several(self) -> Iterator[Callable[[str, int, int], None]]:
        """Show steps that name themselves: ``advance(title, done, total)``."""
        task = self.progress.add_task("", total=None)
        yield lambda title, done, total: self.progress.update(task, description=title, completed=done, total=total)
        self.progress.remove_task(task)

    def say(self, message: str) -> None:
        """Print a line above the progress."""
        self.progress.console.print(message, style="dim", highlight=False, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Step]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, markup=False, emoji=False),
        transient=True,
    ) as progress:
        yield Step(progress)


if __name__ == "__main__":
    main()
