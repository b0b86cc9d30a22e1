"""What commands write: outputs checked before any work, JSON, the tables of scores."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detmetrics.cli.terminal import show
from detmetrics.errors import InputError
from detmetrics.files import check_output, whole_file

if TYPE_CHECKING:
    from detmetrics.resampling import Bootstrap
    from detmetrics.scoring import Scores
    from detmetrics.slicing import Slices


def refuse_inputs(outputs: dict[str, Path], *inputs: Path | str | None) -> None:
    """Refuse an output that would take the place of an input."""
    paths = {os.path.realpath(path) for path in inputs if path is not None}
    for option, path in outputs.items():
        if str(path) in paths:
            raise InputError(option, expected="another file than the input", got=str(path))


def summary(scores: Scores, intervals: Bootstrap | None) -> dict[str, Any]:
    """Give the numbers with their official keys, and the intervals."""
    values = scores.to_summary()
    if intervals is not None:
        values["intervals"] = {"signature": intervals.signature, "rows": intervals.to_rows()}
    return values


def print_scores(scores: Scores, intervals: Bootstrap | None, sliced: Sequence[Slices] = ()) -> None:
    """Print the table people know, slices and intervals."""
    from detmetrics.reporting.table import as_renderable, intervals_table, slices_table

    show(as_renderable(scores))
    for one in sliced:
        show(slices_table(one))
    if intervals is not None:
        show(intervals_table(intervals))


def write_json(path: Path, values: Any) -> None:
    """Write numbers, with null in place of NaN."""
    from detmetrics.reporting.official import without_nan

    with whole_file(path) as file:
        file.write(json.dumps(without_nan(values), indent=2, allow_nan=False).encode() + b"\n")


def writable(**paths: Path | None) -> dict[str, Path]:
    """Check that files can be written before any work is done."""
    wanted = {option: check_output(path, option) for option, path in paths.items() if path is not None}
    if len(set(wanted.values())) < len(wanted):
        raise InputError(" and ".join(wanted), expected="different files")
    return wanted
