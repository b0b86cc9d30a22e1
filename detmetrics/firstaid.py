"""First aid: what is probably wrong when scores are far too low, in a line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from detmetrics.errors import listing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics.ledger import Ledger
    from detmetrics.protocol import Protocol, TpError

    Floats = NDArray[np.float64]

SAMPLE = 2000  # boxes looked at; a sample shows a systematic fault
FEW_PAIRS = 10  # fewer show nothing

NEAR_RAD = math.pi / 6  # a heading within this is right, as a diagnosis has it; of random ones a sixth is
MOST_RIGHT = 0.25  # where more headings are right as they are, they are the detector's own faults
IN_DEGREES = 0.6  # as MOST_RIGHT where headings beyond two turns say that they are degrees: near zero they are right
WOUND = 0.1  # share beyond two turns that some detectors have who count turns on
ONE_HEADING = 0.95  # length of the mean of unit vectors
LEAST_MENDED = 0.6  # share that is right once mended; with few pairs more, see _headings

#: What headings may be instead of ours, how that is mended, and ours from theirs.
HEADINGS: tuple[tuple[str, str, Callable[[Floats], Floats]], ...] = (
    ("turned by +90°", "with 90° taken off", lambda yaw: yaw - math.pi / 2),
    ("turned by -90°", "with 90° added", lambda yaw: yaw + math.pi / 2),
    ("turned by 180°", "turned back", lambda yaw: yaw + math.pi),
    ("mirrored, clockwise in place of counter-clockwise", "with the other sign", np.negative),
    ("mirrored and turned, as of a compass", "as 90° less them", lambda yaw: math.pi / 2 - yaw),
    ("mirrored and turned, as angles about a camera's y", "as -90° less them", lambda yaw: -math.pi / 2 - yaw),
)


def first_aid(ledger: Ledger) -> tuple[str, ...]:
    """Notes for the reader of the scores: what is missing, and likely causes where nothing fits."""
    notes = [*_missing(ledger)]
    if ledger.n_extra_frames:
        n, s = ledger.n_extra_frames, "" if ledger.n_extra_frames == 1 else "s"
        notes.append(f"predictions in {n} frame{s} outside this part of the data set are ignored")
    if len(ledger.truth) and len(ledger.pred):
        notes += (
            _nothing_matches(ledger) if not len(ledger.pair_event) else [*_swapped_sides(ledger), *_headings(ledger)]
        )
    return tuple(notes)


def _missing(ledger: Ledger) -> list[str]:
    notes = []
    unknown = _of_nothing_known(ledger.protocol)
    share = ledger.nan_velocity_share
    for error in ledger.protocol.errors:
        if error.kind == "attribute":
            if ledger.truth.attribute is None and len(ledger.truth):
                notes.append(f"truth without attributes: {_is(error, unknown(error))}")
            if ledger.pred.attribute is None and len(ledger.pred):  # no attribute is a wrong one
                notes.append(f"predictions without attributes: {_is(error, 1)}")
        if error.kind == "velocity_xy":
            if ledger.truth.velocity_mps is None and len(ledger.truth):
                notes.append(f"truth without velocities: {_is(error, unknown(error))}")
            if share == 1:
                notes.append(f"predictions without velocities: {_is(error, unknown(error))}")
            elif share > 0:
                many = f"{share:.1%}" if share >= 0.0005 else "fewer than 0.1%"
                notes.append(
                    f"{many} of the predictions have no velocity: {error.name} leaves them out, "
                    "which can raise the score"
                )
    labels = ledger.truth.labels or ()
    strange = [label for label in labels if ledger.protocol.task_of(label) is None]
    if strange and not set(labels) & set(ledger.protocol.mapping):  # raw categories may well have no class
        notes.append(f"truth of classes that the protocol does not know is left out: {listing(strange)}")
    return notes


def _of_nothing_known(protocol: Protocol) -> Callable[[TpError], float]:
    """What an error is in a class with matches of which it is known of none."""
    is_one = protocol.curve.kind == "linear" and protocol.curve.error_mean == "over_recall"  # as nuScenes has it
    return lambda error: 1 if is_one else error.worst


def _is(error: TpError, value: float) -> str:
    """Say what an error is in a class with matches, and in one with too few where that is something else."""
    says = f"{error.name} is {value:g}"
    return says if value == error.worst else f"{says}, and {error.worst:g} where too little is found"


def _nothing_matches(ledger: Ledger) -> list[str]:
    truth, pred = ledger.truth, ledger.pred
    limit = ledger.protocol.affinity.thresholds[-1]
    evaluated = np.flatnonzero(ledger.truth_task >= 0)
    if not len(evaluated):
        return [f"no truth is of a class of the protocol: its labels are {listing(truth.labels or ())}"]
    nearest, looked_at = np.inf, 0
    for code in np.unique(truth.frame[evaluated]).tolist():
        other = pred.frame_index.get(truth.frames[code])
        if other is None or looked_at > SAMPLE:
            continue
        t = evaluated[truth.frame[evaluated] == code]
        p = np.arange(pred.offsets[other], pred.offsets[other + 1])
        if not len(p):
            continue
        looked_at += len(p)
        apart = np.hypot(*np.moveaxis(pred.center_m[p, None, :2] - truth.center_m[None, t, :2], -1, 0))
        nearest = min(nearest, float(apart.min()))
    if not np.isfinite(nearest):
        return ["nothing matches: no frame has both truth and predictions"]
    if nearest >= limit:  # coarse: a server tells these notes to those who may not see the truth
        far = max(limit, 10.0 ** np.floor(np.log10(nearest)))
        return [f"nothing matches: no truth is within {far:,g} m of a prediction: are these boxes in another frame?"]
    if not len(ledger.event_pred) or not len(ledger.truth_rows):
        side = "predictions" if not len(ledger.event_pred) else "truths"
        return [f"nothing matches: all {side} are dropped as out of range, without points or in an ignore region"]
    return [f"nothing matches although a truth is within {limit:g} m: are the classes named alike on both sides?"]


def _swapped_sides(ledger: Ledger) -> list[str]:
    pairs = slice(0, SAMPLE)
    size_p = ledger.pred.size_lwh_m[ledger.event_pred[ledger.pair_event[pairs]]]
    size_t = ledger.truth.size_lwh_m[ledger.pair_truth[pairs]]

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        both = np.minimum(a, b).prod(axis=1)
        return float((both / (a.prod(axis=1) + b.prod(axis=1) - both)).mean())

    as_is, swapped = overlap(size_p, size_t), overlap(size_p[:, [1, 0, 2]], size_t)
    if len(size_p) >= 10 and swapped > as_is + 0.2:
        return [f"length and width look swapped: sizes overlap {as_is:.0%}, and {swapped:.0%} the other way round"]
    return []


def _headings(ledger: Ledger) -> list[str]:
    """Say where predicted headings are right but for one rule: turned, mirrored, or in degrees.

    Classes that look alike from front and back say nothing, nor do those whose heading means nothing, nor predictions
    that all have about one heading. A detector that mixes up fronts gets no note unless it turns most of them round.
    """
    measured = {error.name for error in ledger.protocol.errors if error.kind == "orientation"}
    tells = [
        task.yaw_period_rad > math.pi * 1.001 and bool(measured - set(task.undefined)) for task in ledger.protocol.tasks
    ]
    matched = ledger.pair_bits >> ledger.protocol.error_index & 1 == 1
    pairs = np.flatnonzero(matched & np.array(tells)[ledger.truth_task[ledger.pair_truth]])
    if len(pairs) < FEW_PAIRS:
        return []
    pairs = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), SAMPLE)).astype(np.int64)]
    pred = ledger.pred.yaw_rad[ledger.event_pred[ledger.pair_event[pairs]]]
    truth = ledger.truth.yaw_rad[ledger.pair_truth[pairs]]
    if np.abs(np.exp(1j * pred).mean()) > ONE_HEADING:
        return []

    def right(pred: Floats, truth: Floats) -> float:
        return float((np.abs(np.remainder(pred - truth + math.pi, 2 * math.pi) - math.pi) < NEAR_RAD).mean())

    as_is = right(pred, truth)
    degrees = (np.radians(pred), np.radians(truth))
    shares = {}
    if any((np.abs(side) > 4 * math.pi).mean() > WOUND for side in (pred, truth)):  # no turn in radians
        shares["in degrees, not radians, in the predictions", "as degrees"] = right(degrees[0], truth)
        shares["in degrees, not radians, in truth", "as degrees"] = right(pred, degrees[1])
        shares["in degrees, not radians, on both sides", "as degrees"] = right(*degrees)
    shares |= {(what, how): right(mend(pred), truth) for what, how, mend in HEADINGS}
    (what, how), mended = max(shares.items(), key=lambda item: round(item[1], 1))  # of about equals the plainer one
    most = IN_DEGREES if "degrees" in what else MOST_RIGHT
    if as_is > most or mended < max(LEAST_MENDED, 0.5 + 1 / math.sqrt(len(pairs))):
        return []
    return [f"headings look {what}: {as_is:.0%} of those of matches are within 30° of truth, and {mended:.0%} {how}"]
