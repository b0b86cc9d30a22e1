"""The commands for several ledgers: compare, report."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from detmetrics import extras
from detmetrics.cli.options import (
    Cache,
    Data,
    Insecure,
    Rules,
    Scene,
    Slicings,
    Split,
    Tls,
    TlsCa,
    Token,
    Truth,
    Unit,
    Version,
)
from detmetrics.cli.reading import Source, check_draws, ledgers_of
from detmetrics.cli.serving import connect
from detmetrics.cli.terminal import show, steps
from detmetrics.cli.writing import refuse_inputs, writable, write_json
from detmetrics.errors import InputError, listing
from detmetrics.files import check_ending, whole_file

if TYPE_CHECKING:
    from detmetrics.gate import Gate, Verdict
    from detmetrics.ledger import Ledger
    from detmetrics.resampling import Comparison


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
    outputs = writable(**{"--json": json_out, "--markdown": markdown_out})
    from detmetrics import gate as gates
    from detmetrics import slicing

    slicings = [slicing.text_of(slicing.parse(text)) for text in dict.fromkeys(by or [])]
    if n is not None and n < 2:
        raise InputError("--draws", expected="at least 2", got=n)
    given = {name: value for name, value in {"n": n, "unit": unit, "seed": seed}.items() if value is not None}
    rules = None if gate is None else msgspec.structs.replace(gates.Gate.load(gate), **given)
    source = Source(data, version, split, scene, truth, cache, protocol)
    names = (baseline.stem, candidate.stem)
    if server is None:
        refuse_inputs(outputs, baseline, candidate, truth, gate, protocol)
        of_server = {"--dataset": dataset, "--tls": tls, "--tls-ca": tls_ca, "--insecure": insecure}
        if stray := [option for option, value in of_server.items() if value]:
            raise InputError(f"{stray[0]} goes with --server")
        comparison, verdict, sliced = _compare_here((baseline, candidate), source, rules, given, slicings)
    else:
        refuse_inputs(outputs, gate)
        source.refuse("not with --server: it holds the truth, and knows the rules", protocol)
        names = (str(baseline), str(candidate))
        with connect(server, token, tls, tls_ca, insecure) as client:
            comparison, verdict, sliced = _compare_there(names, dataset, client, rules, given, slicings)
    from detmetrics.reporting import comparing
    from detmetrics.reporting.table import comparison_table
    from detmetrics.scoring import headline_names

    if "--json" in outputs:
        write_json(outputs["--json"], comparing.as_json(comparison, verdict, sliced))
    if "--markdown" in outputs:
        with whole_file(outputs["--markdown"]) as file:
            file.write(comparing.as_markdown(comparison, verdict, sliced, names).encode())
    show(comparison_table(comparison))
    for part in sliced.values():
        show(comparison_table(part, headline_names(part.protocol)))
    if verdict is not None:
        show(comparing.verdict_table(verdict))
        if not verdict.passed:
            raise typer.Exit(3)


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
    target = writable(**{"--output": output})["--output"]
    check_ending(output, (".html", ".htm"), "--output")
    refuse_inputs({"--output": target}, *results, truth, protocol)
    check_draws(n)
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
    with steps() as step:
        source = Source(data, version, split, scene, truth, cache, protocol)
        ledgers, _ = ledgers_of(results, source, step)
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
    show(f"{output}: {target.stat().st_size / 1e6:.1f} MB, {listing(names)}")


def _compare_here(
    paths: tuple[Path, Path], source: Source, rules: Gate | None, given: dict[str, Any], slicings: list[str]
) -> tuple[Comparison, Verdict | None, dict[str, Comparison]]:
    """Compare two files: the whole, what the gate says, and the slices."""
    from detmetrics.resampling import compare as pair

    settings = given
    if rules is not None:
        settings = {"n": rules.n, "unit": rules.unit, "seed": rules.seed, "level": rules.level}
    with steps() as step:
        (first, second), _ = ledgers_of(list(paths), source, step)
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
    with steps() as step:
        with step("looking for the evaluations"):
            baseline, candidate = (client.find(name, dataset=dataset) for name in names)
        with step("comparing on the server"):
            if rules is None:
                found = client.compare(baseline, candidate, by=slicings, **given)
            else:
                found = client.compare(baseline, candidate, by=slicings, gate=msgspec.to_builtins(rules))
    return found.comparison, found.verdict, dict(found.slices)


def _gallery(data: Path, version: str | None, ledger: Ledger, report: Path, run: str) -> Any:
    """Pictures of what a run found, drawn when asked for, and pages of them in a folder beside the report."""
    from detmetrics_viz.footage import Footage
    from detmetrics_viz.gallery import Gallery

    footage = Footage.of_data(data, ledger.truth, None, ledger, version=version)
    return Gallery(footage, report.with_name(f"{report.stem}_frames"), name=run)


def _pictures(folder: Path) -> dict[str, Path]:
    """Give the pictures of a folder by name of the frame."""
    if not folder.is_dir():
        raise InputError("--images", expected="a folder", got=str(folder))
    kinds = (".png", ".jpg", ".jpeg", ".webp")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in kinds}
