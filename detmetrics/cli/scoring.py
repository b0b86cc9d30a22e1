"""The commands that ask one ledger: evaluate, diagnose, worst, export."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from detmetrics import extras
from detmetrics.cli.options import Cache, Data, Draws, Results, Rules, Scene, Slicings, Split, Truth, Unit, Version
from detmetrics.cli.reading import Source, absent_of, check_draws, ledger_of
from detmetrics.cli.terminal import show, steps
from detmetrics.cli.writing import print_scores, refuse_inputs, summary, writable, write_json
from detmetrics.errors import InputError
from detmetrics.files import check_ending, whole_file


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
    outputs = writable(**{"--json": json_out, "--details": details_out, "--ledger": ledger_out})
    refuse_inputs(outputs, results, truth, protocol)
    rule = absent_of(absent)
    check_draws(n)
    from detmetrics import slicing

    slicings = [slicing.parse(text) for text in dict.fromkeys(by or [])]
    with steps() as step:
        ledger, seconds = ledger_of(results, Source(data, version, split, scene, truth, cache, protocol), step)
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
        write_json(outputs["--json"], {**summary(scores, intervals), **more})
    if "--details" in outputs:
        write_json(outputs["--details"], scores.to_details())
    print_scores(scores, intervals, sliced)


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
    outputs = writable(**{"--json": json_out})
    refuse_inputs(outputs, results, truth, protocol)
    from detmetrics.diagnosis import diagnose as find
    from detmetrics.operating import operating_points
    from detmetrics.reporting.table import diagnosis_table, operating_table

    with steps() as step:
        ledger, _ = ledger_of(results, Source(data, version, split, scene, truth, cache, protocol), step)
        with step("looking for causes"):
            diagnosis, points = find(ledger), operating_points(ledger)
    if "--json" in outputs:
        by_class = {label: diagnosis.counts(label) for label in ledger.protocol.labels}
        values = {"causes": diagnosis.to_rows(), "by_class": by_class, "operating_points": points.to_rows()}
        values |= {"value": dict(diagnosis.value), "signature": ledger.signature("official")}
        write_json(outputs["--json"], values)
    show(diagnosis_table(diagnosis))
    show(operating_table(points))


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
    outputs = writable(**{"--json": json_out})
    refuse_inputs(outputs, results, truth, protocol)
    from detmetrics.framing import frames
    from detmetrics.reporting.table import frames_table

    with steps() as step:
        ledger, _ = ledger_of(results, Source(data, version, split, scene, truth, cache, protocol), step)
        with step("leaving out each frame") as advance:
            found = frames(ledger, cost=cost, progress=advance)
    if "--json" in outputs:
        write_json(outputs["--json"], list(found.to_rows()))
    show(frames_table(found, n))


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
    target = writable(output=output)["output"]
    refuse_inputs({"output": target}, results, truth, protocol)
    check_ending(output, (".parquet",), "the output")
    extras.require("parquet", what="Parquet")
    from detmetrics.slicing import parse, text_of

    for text in by or []:
        if len(parse(text)) != 1:
            raise InputError("--by of an export", expected="one attribute", got=text_of(parse(text)))
    with steps() as step:
        ledger, _ = ledger_of(results, Source(data, version, split, scene, truth, cache, protocol), step)
        with step(f"writing {output.name}"):
            table = ledger.to_arrow(by or ["range"])
            import pyarrow.parquet

            with whole_file(target) as file:
                pyarrow.parquet.write_table(table, file, compression="zstd")
    show(f"{output}: {table.num_rows:,} rows, {table.num_columns} columns")
