"""What the report needs of each run, computed once: scores, intervals, slices, causes, operating points, frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from detmetrics.diagnosis import Diagnosis, diagnose
from detmetrics.framing import Frames, frames
from detmetrics.operating import OperatingPoints, operating_points
from detmetrics.resampling import Bootstrap, Comparison, bootstrap, check_comparable, paired
from detmetrics.scoring import Absent, Scores, score
from detmetrics.slicing import By, Slices, parse, slices, text_of

if TYPE_CHECKING:
    from detmetrics.ledger import Ledger

MANY_FRAMES = 2000  # with more, only the frames that seem dearest are left out in turn
SHORT_LIST = 1000

Progress = Callable[[str, int, int], None]


class Settings(NamedTuple):
    """What the caller asked for.

    Attributes
    ----------
    by : tuple of str
        What to slice by.
    n : int
        Draws of the bootstrap; 0: no intervals.
    unit : str
        What is drawn as one.
    seed, level, absent, threads
        As in :func:`detmetrics.bootstrap`.
    n_worst : int
        How many frames to list.
    """

    by: tuple[str, ...]
    n: int
    unit: str
    seed: int
    level: float
    absent: Absent
    threads: int | None
    n_worst: int


@dataclass
class Sliced:
    """One slicing of one run, with intervals where there are some."""

    scores: Slices
    boots: dict[str, Bootstrap] = field(default_factory=dict)


@dataclass
class Run:
    """One detector's results and all that is said of them.

    Attributes
    ----------
    name : str
    ledger : Ledger
    scores : Scores
    boot : Bootstrap or None
    sliced : list of Sliced
        One a slicing.
    diagnosis : Diagnosis
    points : OperatingPoints
    frames : Frames
    """

    name: str
    ledger: Ledger
    scores: Scores
    boot: Bootstrap | None
    sliced: list[Sliced]
    diagnosis: Diagnosis
    points: OperatingPoints
    frames: Frames


def default_slicings(ledger: Ledger) -> tuple[str, ...]:
    """Give what is always worth a look: the distance, and the weather and daytime where they are known."""
    known = ledger.truth.frame_columns
    return ("range", *(name for name in ("weather", "daytime") if name in known or "description" in known))


def why_no_intervals(ledger: Ledger, settings: Settings) -> str:
    """Say why there can be no intervals; empty where there can."""
    if not settings.n:
        return "no intervals were asked for"
    truth, unit = ledger.truth, settings.unit
    if unit == "frame":
        n_units = ledger.n_frames
    elif unit in truth.frame_columns:
        n_units = len(np.unique(truth.frame_columns[unit]))
    elif unit == "scene":
        return (
            "no intervals: the data set does not say which frames belong to one scene, and frames alone are too alike"
        )
    else:
        return ""  # a unit that somebody asked for: the bootstrap complains
    if n_units < 2:
        return (
            f"no intervals: there {'is' if n_units == 1 else 'are'} only {n_units} {unit}{'s' * (n_units != 1)} to draw"
        )
    return ""


def compute(name: str, ledger: Ledger, settings: Settings, progress: Progress) -> Run:
    """Compute everything that the report says of one run.

    Raises
    ------
    InputError
        On slicings or a unit that there are not.
    """
    by: Sequence[By] = [text_of(parse(one)) for one in settings.by]
    scores = score(ledger, absent=settings.absent)
    sliced = [Sliced(slices(ledger, one)) for one in by]
    boot = None
    if not why_no_intervals(ledger, settings):
        step = _step(progress, f"{name}: {settings.n:,} draws of {settings.unit}s")
        boot = bootstrap(
            ledger, settings.n, settings.unit, settings.seed,
            level=settings.level, absent=settings.absent, threads=settings.threads, progress=step,
        )  # fmt: skip
        for one in sliced:
            step = _step(progress, f"{name}: {settings.n:,} draws by {one.scores.by}")
            one.boots = bootstrap(
                ledger, settings.n, settings.unit, settings.seed,
                by=one.scores.by, level=settings.level, threads=settings.threads, progress=step,
            )  # fmt: skip
    progress(f"{name}: causes", 0, 1)
    diagnosis, points = diagnose(ledger, absent=settings.absent), operating_points(ledger)
    among = SHORT_LIST if ledger.n_frames > MANY_FRAMES else None
    step = _step(progress, f"{name}: leaving out each frame")
    found = frames(ledger, absent=settings.absent, among=among, threads=settings.threads, progress=step)
    return Run(name, ledger, scores, boot, sliced, diagnosis, points, found)


def compared(baseline: Run, candidate: Run) -> Comparison | None:
    """Compare two runs by the draws that were made already: they are the same for both.

    Raises
    ------
    InputError
        Where they differ in protocol, frames or truth.
    """
    unit = "frame" if baseline.boot is None else baseline.boot.unit
    check_comparable(baseline.ledger, candidate.ledger, unit)
    if baseline.boot is None or candidate.boot is None:
        return None
    return paired(baseline.boot, candidate.boot)


def compared_slices(baseline: Run, candidate: Run, at: int) -> dict[str, Comparison]:
    """Compare the slices of one slicing that both have."""
    first, second = baseline.sliced[at].boots, candidate.sliced[at].boots
    return {name: paired(first[name], second[name]) for name in first if name in second}


def _step(progress: Progress, title: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(title, done, total)
