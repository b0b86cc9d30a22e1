"""Where the numbers come from, and whether they may stand beside those of the official leaderboard."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics import __version__
from detmetrics.errors import listing
from detmetrics.ledger import Fate
from detmetrics.protocols import PROTOCOLS
from detmetrics.reporting.cells import column, count, paragraph, table, text
from detmetrics.reporting.pieces import Section, section

if TYPE_CHECKING:
    from detmetrics.ledger import Ledger
    from detmetrics.protocol import Protocol
    from detmetrics.reporting.runs import Run, Settings

#: Frames of the splits that the leaderboard ranks, by the name of the bundled protocol.
OFFICIAL_FRAMES: dict[str, dict[str, int]] = {
    "nuscenes": {"val": 6019, "test": 6008},  # H. Caesar et al., nuScenes, CVPR 2020
}

FATES = {
    Fate.KEPT: "counted",
    Fate.OTHER_CLASS: "of other classes",
    Fate.OUT_OF_RANGE: "out of range",
    Fate.NO_POINTS: "without sensor points",
    Fate.IN_REGION: "in an ignore region",
    Fate.EXTRA_FRAME: "in frames outside this part",
    Fate.OVER_CAP: "beyond the best that count in a frame and class",
}


def against_comparison(ledger: Ledger, absent: str) -> list[str]:
    """Give the reasons why the numbers are not comparable with the official leaderboard; none: they are.

    Parameters
    ----------
    ledger : Ledger
    absent : str
        What a class without truth counted.
    """
    protocol = ledger.protocol
    name = next((name for name, one in PROTOCOLS.items() if one.digest == protocol.digest), None)
    reasons = []
    if name is None:
        reasons.append(f"the rules are not those of any bundled protocol: {_nearest(protocol)}")
    if absent != "official":
        reasons.append("classes without truth are left out of the means; officially they count with the worst values")
    if ledger.n_extra_frames:
        reasons.append(f"predictions in {_frames(ledger.n_extra_frames)} outside this part of the data are ignored")
    splits = OFFICIAL_FRAMES.get(name or "", {})
    if splits and ledger.n_frames not in splits.values():
        known = " and ".join(f"{n:,} ({split})" for split, n in splits.items())
        reasons.append(f"the truth has {_frames(ledger.n_frames)}; the official splits have {known}")
    elif ledger.truth.partial:
        reasons.append("these frames are a part of a larger data set")
    kinds = {error.kind for error in protocol.errors}
    share = ledger.nan_velocity_share
    if "velocity_xy" in kinds and share > 0:
        many = f"{share:.1%}" if share >= 0.0005 else "fewer than 0.1%"
        reasons.append(f"{many} of the predictions have no velocity, which leaves them out of the velocity error")
    if "velocity_xy" in kinds and ledger.truth.velocity_mps is None and len(ledger.truth):
        reasons.append("truth has no velocities")
    if "attribute" in kinds and ledger.truth.attribute is None and len(ledger.truth):
        reasons.append("truth has no attributes")
    if ledger.truth.num_points is None and protocol.drop_empty and len(ledger.truth):
        reasons.append("truth has no point counts, so boxes without points could not be left out")
    return reasons


def _nearest(protocol: Protocol) -> str:
    """Say in what the rules differ from the bundled protocol that they differ least from."""
    mine = protocol.to_dict()
    differing = {
        name: [key for key, value in one.to_dict().items() if key != "name" and mine.get(key) != value]
        for name, one in PROTOCOLS.items()
    }
    name = min(differing, key=lambda key: len(differing[key]))
    return f"{protocol.name} differs from {name} in {listing(differing[name]) if differing[name] else 'its name'}"


def _frames(n: int) -> str:
    return f"{n:,} frame{'s' * (n != 1)}"


def provenance(
    runs: Sequence[Run], settings: Settings, made: str, options: Mapping[str, str], why_no_intervals: str
) -> Section:
    """Say everything that could move a number."""
    ledger = runs[0].ledger
    protocol, truth = ledger.protocol, ledger.truth
    facts = {
        "protocol": f"{protocol.name} #{protocol.digest[:12]}",
        "truth": f"{truth.source}, {_frames(truth.n_frames)}, {len(truth):,} boxes",
        "hash of truth": truth.digest,
        "classes without truth": "official values" if settings.absent == "official" else "left out",
        "intervals": why_no_intervals
        or f"{settings.level * 100:g} %, {settings.n:,} draws of {settings.unit}s, seed {settings.seed}",
        "slices": ", ".join(settings.by) or "none",
        "versions": _versions(),
        "made": made,
        **options,
    }
    of_all = table(
        "facts",
        "What was evaluated",
        [column("what", words=True), column("value", words=True)],
        [[text(key), text(value, tone="code" if "hash" in key else "")] for key, value in facts.items()],
    )
    columns = [column("run", words=True), column("predictions", words=True), column("hash of predictions", words=True)]
    columns += [column("said of itself", "meta of the result file", words=True), column("signature", words=True)]
    of_runs = table(
        "signatures",
        "Runs and their signatures",
        columns,
        [
            [
                text(run.name),
                text(run.ledger.pred.source),
                text(run.ledger.pred.digest, tone="code"),
                text(", ".join(f"{key}: {value}" for key, value in run.ledger.pred.meta.items()) or "–"),
                text(run.boot.signature if run.boot else run.scores.signature, tone="code"),
            ]
            for run in runs
        ],
    )
    return section("provenance", "Signature and provenance", *_verdicts(runs, settings), of_all, of_runs, _fates(runs))


def _verdicts(runs: Sequence[Run], settings: Settings) -> list[dict[str, Any]]:
    """Say of each run whether it may stand beside the leaderboard."""
    found = []
    of_runs = {run.name: against_comparison(run.ledger, settings.absent) for run in runs}
    alike = all(reasons == of_runs[runs[0].name] for reasons in of_runs.values())
    for name, reasons in [("", of_runs[runs[0].name])] if alike else of_runs.items():
        prefix = f"{name}: " if name else ""
        if reasons:
            words = f"{prefix}Comparable with the official leaderboard: no, because {'; '.join(reasons)}."
        else:
            words = (
                f"{prefix}Comparable with the official leaderboard: yes, because the rules, the number of frames and "
                "what absent classes count are the official ones, and nothing was ignored."
            )
        found.append(paragraph(words, "warn" if reasons else "good"))
    return found


def _fates(runs: Sequence[Run]) -> dict[str, Any]:
    """Count what became of every box."""
    sides: list[tuple[str, Any]] = [("truth", runs[0].ledger.truth_fate)]
    sides += [(f"predictions of {run.name}", run.ledger.pred_fate) for run in runs]
    counts = [np.bincount(fate, minlength=len(Fate)) for _, fate in sides]
    return table(
        "fates",
        "What became of every box",
        [column("boxes", words=True), *(column(name) for name, _ in sides)],
        [[text(words), *(count(int(one[fate])) for one in counts)] for fate, words in FATES.items()],
    )


def _versions() -> str:
    packages = ("numpy", "numba", "jinja2")
    known = [f"detmetrics {__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*known, *(f"{name} {version(name)}" for name in packages)])
