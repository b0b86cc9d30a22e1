"""The report: one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from detmetrics.errors import InputError, Words, listing
from detmetrics.extras import needs
from detmetrics.files import check_output, open_file, whole_file
from detmetrics.ledger import Ledger, check_ledger
from detmetrics.reporting.contents import contents
from detmetrics.reporting.runs import Progress, Run, Settings, compute, default_slicings
from detmetrics.resampling import check_comparable, check_draws
from detmetrics.scoring import Absent, Scores

PLOTLY = "4.1.1"  # the version of the bundle in assets/plotly
ASSETS = Path(__file__).with_name("assets")
#: Kinds of pictures by how their files begin.
PICTURES = {
    re.compile(rb"\x89PNG\r\n\x1a\n"): "image/png",
    re.compile(rb"\xff\xd8\xff"): "image/jpeg",
    re.compile(rb"RIFF....WEBP", re.DOTALL): "image/webp",
}

Picture = bytes | str | Path
T = TypeVar("T")


def report(
    ledgers: Ledger | str | Path | Sequence[Ledger | str | Path],
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
    by: Sequence[str] | None = None,
    n: int = 1000,
    unit: str = "scene",
    seed: int = 0,
    level: float = 0.95,
    absent: Absent = "official",
    n_worst: int = 20,
    images: Mapping[str, Picture] | Sequence[Mapping[str, Picture]] | None = None,
    links: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
    options: Mapping[str, str] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write one HTML file that says how good a detector is, where, why not better, and how sure that is.

    Needs jinja2 (``pip install 'detmetrics[report]'``). The file is self-contained and asks nobody for anything: its
    content security policy forbids it. It is some 2 MB, plus the pictures that it is given.

    Parameters
    ----------
    ledgers : Ledger or path, or a sequence of them
        One or more runs on the same truth, as ledgers or files saved by :meth:`detmetrics.Ledger.save`. The others are
        compared with the first; what to do next is said about the last.
    path : path
        File to write, whole or not at all.
    names : sequence of str, optional
        What the runs are called; default: the names of the files.
    title : str
        Title of the page.
    by : sequence of str, optional
        What to slice by, see :func:`detmetrics.slices`; default: ``range``, and weather and daytime where known.
    n : int
        Draws of the bootstrap; 0: no intervals. Where there are fewer than two units or no scenes, the report goes
        without and says so.
    unit, seed, level, absent, threads
        As in :func:`detmetrics.bootstrap`.
    n_worst : int
        How many frames to list.
    images : mapping of str to bytes or path, or one for each run, optional
        PNG, JPEG or WebP pictures by name of the frame; those of the worst frames are put in, and only they are asked
        for, so a mapping may draw them on request. Where they show what a run found, each run needs its own.
    links : mapping of str to str, or one for each run, optional
        Web addresses or relative paths by name of the frame.
    options : mapping of str to str, optional
        Further lines of the provenance, e.g. the command.
    progress : callable, optional
        Called with (what, done, total).

    Raises
    ------
    InputError
        Without jinja2; where the runs differ in protocol, frames or truth; on names, slicings, pictures or links that
        cannot be.
    """
    check_output(path)
    environment()
    for what, value in (("names", names), ("by", by)):
        if isinstance(value, str):
            raise InputError(what, expected="a list of texts", got=value)
    if n:
        check_draws(n, seed)
    runs: Any = ledgers  # dictionaries' values and generators do as well
    is_one = isinstance(runs, Ledger | Scores | str | Path) or not isinstance(runs, Iterable)
    given: list[Any] = [runs] if is_one else list(runs)
    if not given:
        raise InputError("no run to report")
    for one in given:
        if not isinstance(one, str | Path):
            check_ledger(one, "what to report")
    called = named([one.pred.source if isinstance(one, Ledger) else str(one) for one in given], names)
    shown = _for_each("images", images, len(given))
    addresses = [_links(one) for one in _for_each("links", links, len(given))]
    found = [one if isinstance(one, Ledger) else Ledger.load(one) for one in given]
    for other in found[1:]:
        check_comparable(found[0], other)
    slicings = tuple(default_slicings(found[0]) if by is None else by)
    settings = Settings(slicings, n, unit, seed, level, absent, threads, n_worst)
    steps = progress or (lambda what, done, total: None)
    runs = [compute(name, ledger, settings, steps) for name, ledger in zip(called, found, strict=True)]
    collected = contents(
        runs,
        settings,
        title=title or " against ".join(reversed(called[:1] + called[-1:] if len(called) > 1 else called)),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        images=[_addresses(run, n_worst, one) for run, one in zip(runs, shown, strict=True)],
        links=addresses,
        options={"drawn by": f"Plotly's JavaScript {PLOTLY}", **(options or {})},
    )
    html = render(collected)
    with whole_file(path) as file:
        file.write(html.encode())


def render(collected: Mapping[str, Any]) -> str:
    """Make the page of what :func:`detmetrics.reporting.contents.contents` collected."""
    from markupsafe import Markup

    scripts = [(ASSETS / name).read_text(encoding="utf-8") for name in ("plotly/plotly-cartesian.min.js", "report.js")]
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    blocks = (block for section in collected["sections"] for block in section["blocks"])
    figures = [{key: one[key] for key in ("id", "chart", "data")} for one in blocks if one["kind"] == "figure"]
    template = environment().get_template("report.html")
    return str(
        template.render(
            report=collected,
            style=Markup((ASSETS / "report.css").read_text(encoding="utf-8")),
            scripts=[Markup(script) for script in scripts],
            script_sources=Markup(" ".join(f"'sha256-{one}'" for one in hashes)),
            figures=Markup(script_json(figures)),
        )
    )


def script_json(values: Any) -> str:
    """Write JSON that nothing in it can end the script element it stands in."""
    words = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        words = words.replace(character, f"\\u{ord(character):04x}")
    return words


def environment() -> Any:
    """Give the environment of the template, which escapes whatever it prints.

    Raises
    ------
    InputError
        Without jinja2.
    """
    with needs("report", "the report"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    return Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def named(sources: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """Give each run the name that it was given, or that of its file.

    Raises
    ------
    InputError
        On too few or too many names, empty or equal ones.
    """
    if names is None:
        stems = [Path(source).stem or source for source in sources]
        return [stem if stems.count(stem) == 1 else f"{stem} ({i})" for i, stem in enumerate(stems, 1)]
    if len(names) != len(sources):
        raise InputError("names", expected=f"one for each of the {len(sources)} runs", got=list(names))
    if len(set(names)) < len(names) or not all(names):
        raise InputError("names", expected="different and not empty", got=list(names))
    return list(names)


def _for_each(
    what: str, given: Mapping[str, T] | Sequence[Mapping[str, T]] | None, n_runs: int
) -> Sequence[Mapping[str, T]]:
    """Give each run its mapping: its own, or the one of all."""
    if given is None or isinstance(given, Mapping):
        return [given or {}] * n_runs
    if len(given) != n_runs:
        raise InputError(what, expected=f"one mapping, or one for each of the {n_runs} runs", got=len(given))
    return given


def _addresses(run: Run, n_worst: int, images: Mapping[str, Picture]) -> dict[str, str]:
    """Give the pictures of the worst frames, and ask for no others."""
    listed = sorted(str(run.ledger.truth.frames[f]) for f in run.frames.worst(n_worst).tolist())
    return {name: _address(name, images[name]) for name in listed if name in images}


def _links(links: Mapping[str, str]) -> dict[str, str]:
    """Refuse addresses that are more than a place to go to."""
    wrong = [link for link in links.values() if not _leads_to_a_place(link)]
    if wrong:
        raise InputError("links", expected="web addresses or relative paths", got=Words(listing(wrong)))
    return {name: link.strip() for name, link in links.items()}


def _leads_to_a_place(link: str) -> bool:
    try:
        return urlsplit(link.strip()).scheme in ("", "http", "https")
    except ValueError:  # e.g. half an IPv6 address
        return False


def _address(name: str, picture: Picture) -> str:
    """Give a picture as a ``data:`` address."""
    if isinstance(picture, bytes):
        content = picture
    else:
        with open_file(os.fspath(picture)) as file:
            content = file.read()
    kind = next((kind for form, kind in PICTURES.items() if form.match(content)), None)
    if kind is None:
        raise InputError(f"image of frame {name!r}", expected="PNG, JPEG or WebP", got=content[:8])
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
