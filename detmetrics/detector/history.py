"""What a training run wrote down: one row an epoch in ``history.jsonl``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError
from detmetrics.files import open_file

Floats = NDArray[np.float64]
#: The numbers of a row; NaN where a row has none.
NUMBERS = ("step", "train_loss", "val_loss", "lr", "seconds", "samples_per_s", "mAP", "NDS")


@dataclass(frozen=True, eq=False)
class History:
    """Columns of a run, one row an epoch, in their order.

    Attributes
    ----------
    epoch : int64 (E,)
        Ascending; of an epoch that was run again, after a crash, the later row counts.
    step, train_loss, val_loss, lr, seconds, samples_per_s, mAP, NDS : float64 (E,)
        NaN where there is none, infinite or NaN where training made such a loss.
    train, val : mapping of str to float64 (E,)
        The parts of the losses.
    notes : tuple of str
        What was odd about the file.
    source : str
        The file.
    """

    epoch: NDArray[np.int64]
    step: Floats
    train_loss: Floats
    val_loss: Floats
    lr: Floats
    seconds: Floats
    samples_per_s: Floats
    mAP: Floats
    NDS: Floats
    train: Mapping[str, Floats]
    val: Mapping[str, Floats]
    notes: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.epoch)


def read(run: str | Path) -> History:
    """Read the history of a run.

    Parameters
    ----------
    run : path
        The folder of the run, or the file.

    Raises
    ------
    InputError
        A missing or empty file; a row that is no JSON object, lacks ``epoch`` or ``train_loss``, or holds something
        that is no number, with the line. A last line that a crash cut short is left out, with a note.
    """
    path = Path(run)
    if path.is_dir():
        path = path / "history.jsonl"
    if not path.exists():
        raise InputError(
            f"{run} has no history.jsonl", hint="is it the folder of a training run, after its first epoch?"
        )
    with open_file(path) as file:
        content = file.read()
    rows: dict[int, dict[str, Any]] = {}
    notes: list[str] = []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # no line end: a crash while it was written
                notes.append("the last line of the history is cut short and was left out")
                continue
            raise InputError(f"{path}, line {number}, is not JSON: {error}") from None
        _check(row, f"{path}, line {number}")
        epoch = int(row["epoch"])
        if epoch in rows:
            notes.append(f"epoch {epoch} was run more than once; the later one counts")
        rows[epoch] = row
    if not rows:
        raise InputError(f"{path} holds no finished epoch")
    ordered = [rows[epoch] for epoch in sorted(rows)]
    columns = {name: np.array([_number(row.get(name)) for row in ordered]) for name in NUMBERS}
    parts = {
        side: {
            name: np.array([_number((row.get(side) or {}).get(name)) for row in ordered])
            for name in dict.fromkeys(key for row in ordered for key in row.get(side) or {})
        }
        for side in ("train", "val")
    }
    return History(
        epoch=np.array(sorted(rows), np.int64),
        **columns,
        train=parts["train"],
        val=parts["val"],
        notes=tuple(dict.fromkeys(notes)),
        source=str(path),
    )


def _check(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise InputError(where, expected="an object with epoch and train_loss", got=row)
    for name in ("epoch", "train_loss"):
        if name not in row:
            raise InputError(f"{where}, has no {name!r}")
    if not isinstance(row["epoch"], int) or isinstance(row["epoch"], bool):
        raise InputError(f"{where}: epoch", expected="a whole number", got=row["epoch"])
    for side in ("train", "val"):
        if not isinstance(row.get(side) or {}, dict):
            raise InputError(f"{where}: {side}", expected="an object of numbers by part", got=row[side])
    numbers = {name: row.get(name) for name in NUMBERS}
    numbers |= {f"{side}.{name}": value for side in ("train", "val") for name, value in (row.get(side) or {}).items()}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise InputError(f"{where}: {name}", expected="a number or null", got=value)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
