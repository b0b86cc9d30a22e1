"""The commands of the bundled detector."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from detmetrics import extras
from detmetrics.cli.options import Split, Version
from detmetrics.cli.terminal import show, steps
from detmetrics.errors import InputError
from detmetrics.files import check_ending, check_output, whole_file

detector = typer.Typer(name="detector", help="The bundled baseline detector.", no_args_is_help=True)
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda; auto takes CUDA where there is one.")]
Loaders = Annotated[int, typer.Option("--workers", min=0, help="Processes that read samples.")]
Root = Annotated[Path, typer.Option("--data", metavar="DATAROOT", help="A data set in the nuScenes format.")]


@detector.command("info")
def detector_info(device: Device = "auto") -> None:
    """Parameters, FLOPs and latency of each configuration on this machine."""
    from detmetrics.detector import commands

    commands.info(device, show)


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
    with steps() as step, step.several() as advance:
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

    with steps() as step, step("predicting") as advance:
        line = commands.run_prediction(
            data, split, out, weights=weights, version=version, device=device, batch=batch, workers=workers,
            sweeps=sweeps, progress=advance,
        )  # fmt: skip
    show(line)


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

    with steps() as step, step("reading both splits") as advance:
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
    weights = files("detmetrics.detector") / "weights"
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
    check_ending(out, (".json", ".parquet"), "--out")
    from detmetrics import io
    from detmetrics.detector import plain

    with steps() as step, step("clustering") as advance:
        boxes = plain.predict(data, split, version, n_sweeps=sweeps, progress=advance)
    if out.suffix == ".parquet":
        io.parquet.write(boxes, target)
    else:
        io.nuscenes.write_results(boxes, target)
    show(f"{out}: {len(boxes):,} boxes in {boxes.n_frames:,} samples")
