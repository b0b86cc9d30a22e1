"""The commands that need no detector: protocols, convert, synth, demo."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from detmetrics import extras
from detmetrics.cli.options import Cache, Data, Scene, Split, Version
from detmetrics.cli.reading import Source, protocol_of, read_predictions
from detmetrics.cli.terminal import show, steps
from detmetrics.cli.writing import refuse_inputs, writable
from detmetrics.errors import InputError, listing
from detmetrics.files import check_ending


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
        show(rules.overview(PROTOCOLS))
    elif toml:
        typer.echo(rules.as_toml(protocol_of(name)), nl=False)
    else:
        show(rules.as_renderable(protocol_of(name)))


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
    refuse_inputs(writable(output=output), *paths[:-1])
    if output.suffix == ".parquet":
        extras.require("parquet", what="Parquet")
    from detmetrics import io

    with steps() as step:
        boxes = (
            Source(data, version, split, scene, None, cache).read(step) if data else read_predictions(paths[0], step)
        )
        with step(f"writing {output.name}"):
            if output.suffix == ".parquet":
                io.parquet.write(boxes, output)
            else:
                io.nuscenes.write_results(boxes, output)
    show(f"{output}: {len(boxes):,} boxes in {boxes.n_frames:,} frames")


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
    with steps() as step:
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
    show(f"{out}: version v1.0-synth, {train_scenes} + {val_scenes} scenes of {samples} samples")
    for split in written:
        show(f"  detmetrics evaluate {out / f'results_{split}.json'} --data {out} --split {split}")


def _synth_world(out: Path, plan: dict[str, int], seed: int, workers: int | None) -> None:
    from detmetrics.synth import WorldPlan, write_world

    whole = WorldPlan(seed=seed, **plan)
    whole.check()
    cores = workers or min(os.cpu_count() or 1, 8)
    minutes = whole.seconds(cores) / 60
    with steps() as step:
        step.say("when interrupted, the same command goes on where it stopped")
        step.say(
            f"{plan['train_scenes']} + {plan['val_scenes']} scenes, {whole.n_clouds():,} clouds: about "
            f"{whole.n_bytes() / 1e9:.2g} GB and {max(minutes, 0.1):.2g} minutes with {cores} threads"
        )
        with step("clouds") as advance:
            summary = write_world(out, seed=seed, workers=workers, progress=advance, **plan)
        if summary.n_resumed:
            step.say(f"{summary.n_resumed} scenes were there from an interrupted run")
    show(
        f"{out}: version v1.0-synth, world {whole.world_version}, {summary.n_clouds:,} clouds, "
        f"{summary.n_rows['sample_annotation']:,} boxes in {summary.n_rows['sample']:,} samples"
    )


def demo(
    out: Annotated[Path, typer.Argument(help="Folder for everything that it makes.")] = Path("demo"),
) -> None:
    """From nothing to a scored, seen and served detector, in a few minutes: every command is shown."""
    from detmetrics import demo as tour

    tour.run(out, partial(show, soft_wrap=True))  # a command on one line can be copied
