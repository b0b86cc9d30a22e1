"""Ledger: what matching leaves behind, all that slices, intervals, diagnosis and export need."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics import __version__
from detmetrics.boxes import Boxes
from detmetrics.curves import order_by_score
from detmetrics.errors import InputError
from detmetrics.kernels import AFFINITY, Bytes, Codes, Floats, Ints, group
from detmetrics.protocol import Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class Fate(enum.IntEnum):
    """What became of a box."""

    KEPT = 0
    OTHER_CLASS = 1
    OUT_OF_RANGE = 2
    NO_POINTS = 3
    IN_REGION = 4
    EXTRA_FRAME = 5
    OVER_CAP = 6


@dataclass(frozen=True, eq=False, repr=False)
class Matches:
    """Matches in compressed rows: task ``k`` at threshold ``t`` has ``offsets[k * T + t]:offsets[k * T + t + 1]``.

    Attributes
    ----------
    offsets : int64 (K * T + 1,)
    event : int64 (M,)
        Index of the event, ascending within a task and threshold.
    truth : int64 (M,)
        Row of the truth.
    errors : float64 (M, n_errors)
    """

    offsets: Ints
    event: Ints
    truth: Ints
    errors: Floats

    def __repr__(self) -> str:
        """Say how many."""
        return f"<Matches {len(self.event)} of all tasks and thresholds>"


@dataclass(frozen=True, eq=False, repr=False)
class Ledger:
    """The outcome of one matching; every number is ``score(ledger, weights)``.

    An *event* is a kept prediction. Events are sorted by task, then by descending score, then by descending
    ``event_place``: the order of the curves. A *pair* is a prediction and a truth that match at one threshold at least.

    Attributes
    ----------
    protocol : Protocol
    truth, pred : Boxes
        All boxes, kept and dropped.
    truth_fate, pred_fate : uint8 (N,)
        Values of :class:`Fate`.
    truth_task : int16 (N_truth,)
        Index of the task of each truth, -1 for other categories.
    event_offsets : int64 (K + 1,)
        Events of task ``k`` are ``event_offsets[k]:event_offsets[k + 1]``.
    event_pred, event_frame, event_score : int64 (E,), int32 (E,), float64 (E,)
        Row of the prediction; frame of ``truth.frames``; score.
    event_place : int64 (E,)
        Among equal scores the greater one goes first: the position in the file, negated where the earlier box does.
    pair_event, pair_truth, pair_bits : int64 (P,)
        Event, truth row, and thresholds at which they match (bit ``t``); ascending by event.
    pair_errors : float64 (P, n_errors)
        The errors of ``protocol.errors``; NaN where unknown.
    n_extra_frames : int
        Frames with predictions that truth does not have, ignored since ``truth.partial``.
    notes : tuple of str
        What the reader of the scores should know.
    version : str
        Version of detmetrics that matched; it stands in the signature.
    """

    protocol: Protocol
    truth: Boxes
    pred: Boxes
    truth_fate: Bytes
    pred_fate: Bytes
    truth_task: NDArray[np.int16]
    event_offsets: Ints
    event_pred: Ints
    event_frame: Codes
    event_score: Floats
    event_place: Ints
    pair_event: Ints
    pair_truth: Ints
    pair_bits: Ints
    pair_errors: Floats
    n_extra_frames: int = 0
    notes: tuple[str, ...] = ()
    version: str = __version__

    def __repr__(self) -> str:
        """Say how much there is."""
        return (
            f"<Ledger {self.protocol.name}: {len(self.truth_rows)} truths and {len(self.event_pred)} predictions "
            f"counted in {self.n_frames} frames, {len(self.pair_event)} pairs>"
        )

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.truth.n_frames

    @cached_property
    def truth_rows(self) -> Ints:
        """Rows of the truths that count, (G,)."""
        return np.flatnonzero(self.truth_fate == Fate.KEPT)

    @cached_property
    def event_task(self) -> Ints:
        """Task of each event, (E,)."""
        return np.repeat(np.arange(len(self.protocol.tasks)), np.diff(self.event_offsets))

    @cached_property
    def pair_offsets(self) -> Ints:
        """Pairs of task ``k`` are ``pair_offsets[k]:pair_offsets[k + 1]``."""
        return np.searchsorted(self.pair_event, self.event_offsets).astype(np.int64)

    @cached_property
    def truth_counts(self) -> Ints:
        """Truths that count, by frame and task, (F, K)."""
        n_tasks = len(self.protocol.tasks)
        rows = self.truth_rows
        keys = self.truth.frame[rows].astype(np.int64) * n_tasks + self.truth_task[rows]
        return np.bincount(keys, minlength=self.n_frames * n_tasks).reshape(self.n_frames, n_tasks)

    @cached_property
    def matches(self) -> Matches:
        """The matches of every task and threshold one after another."""
        n_thresholds = len(self.protocol.affinity.thresholds)
        bits = self.pair_bits[:, None] >> np.arange(n_thresholds) & 1
        pair, threshold = np.nonzero(bits)
        key = self.event_task[self.pair_event[pair]] * n_thresholds + threshold
        offsets, order = group(key.astype(np.int32), len(self.protocol.tasks) * n_thresholds)
        pair = pair[order]
        return Matches(offsets, self.pair_event[pair], self.pair_truth[pair], self.pair_errors[pair])

    @cached_property
    def near(self) -> tuple[Ints, Ints]:
        """Offsets (E + 1,) and rows of the truths of each event's task within the loosest threshold of it."""
        n_tasks, n_groups = len(self.protocol.tasks), self.n_frames * len(self.protocol.tasks)
        key = self.event_frame * np.int32(n_tasks) + self.event_task.astype(np.int32)
        p_offsets, p_events = group(key, n_groups)
        key = self.truth.frame * np.int32(n_tasks) + self.truth_task
        t_offsets, t_rows = group(np.where(self.truth_fate == Fate.KEPT, key, np.int32(-1)), n_groups)
        pairs = AFFINITY[self.protocol.affinity.kind]
        centers, loosest = (self.pred.center_m, self.truth.center_m), self.protocol.affinity.thresholds[-1]
        offsets, rows, _ = pairs(
            p_offsets, self.event_pred[p_events], centers[0], t_offsets, t_rows, centers[1], loosest
        )
        # from the order of groups to the order of events
        counts = np.empty(len(p_events), np.int64)
        counts[p_events] = np.diff(offsets)
        event = np.repeat(p_events, np.diff(offsets))
        return np.concatenate(([0], np.cumsum(counts))), rows[np.argsort(event, kind="stable")]

    @cached_property
    def nan_velocity_share(self) -> float:
        """Share of the counted predictions whose velocity is unknown; NaN without predictions."""
        if not len(self.event_pred):
            return float("nan")
        velocity = self.pred.velocity_mps
        if velocity is None:
            return 1.0
        if not np.isnan(velocity.sum()):
            return 0.0
        unknown = np.isnan(velocity[self.event_pred, 0]) | np.isnan(velocity[self.event_pred, 1])
        return float(unknown.mean())

    def save(self, path: str | Path) -> None:
        """Write the ledger to a file, whole or not at all; see :func:`detmetrics.io.ledgers.save`."""
        from detmetrics.io.ledgers import save

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> Ledger:
        """Read a saved ledger; see :func:`detmetrics.io.ledgers.load`."""
        from detmetrics.io.ledgers import load

        return load(path)

    def to_arrow(self, by: Sequence[Any] = ("range",)) -> Any:
        """Give one row for every truth and prediction as a pyarrow.Table; see :func:`detmetrics.exporting.to_arrow`."""
        from detmetrics.exporting import to_arrow

        return to_arrow(self, by)

    def signature(self, absent: str) -> str:
        """Every choice that could move a number, in one line; see the README."""
        share = self.nan_velocity_share
        parts = [
            f"{self.protocol.name}#{self.protocol.digest[:6]}",
            *self.protocol.caveats,
            f"absent:{absent}",
            f"frames:{self.n_frames}" + (f"+{self.n_extra_frames} ignored" if self.n_extra_frames else ""),
            f"truth:{self.truth.digest[:12]}",
            f"pred:{self.pred.digest[:12]}",
        ]
        if share > 0 and any(error.kind == "velocity_xy" for error in self.protocol.errors):
            parts.append(f"nan-velocity:{share:.2%}")
        return "|".join([*parts, f"detmetrics:{self.version}"])


def check_ledger(value: object, what: str = "ledger") -> None:
    """Refuse what is no ledger, and say what gives one.

    Raises
    ------
    InputError
        Naming ``what`` the value was given as.
    """
    if not isinstance(value, Ledger):
        expected = "a Ledger, as detmetrics.match(truth, pred, protocol) gives it"
        raise InputError(what, expected=expected, got=value, hint="detmetrics.Ledger.load(path) reads a saved one")


def concat(ledgers: Sequence[Ledger]) -> Ledger:
    """Join ledgers of disjoint frames: the same bits as matching all frames at once, for any order of the parts.

    Parameters
    ----------
    ledgers : sequence of Ledger
        Of one protocol; their boxes carry their places in the whole (:meth:`detmetrics.Boxes.take` keeps them).

    Raises
    ------
    InputError
        Where the protocols differ or a frame occurs twice.
    """
    if not isinstance(ledgers, Sequence):
        raise InputError("ledgers", expected="a sequence of Ledger", got=ledgers)
    if not ledgers:
        raise InputError("no ledgers to concatenate")
    for i, ledger in enumerate(ledgers):
        check_ledger(ledger, f"ledgers[{i}]")
    if len(ledgers) == 1:
        return ledgers[0]
    first = ledgers[0]
    for ledger in ledgers[1:]:
        if ledger.protocol != first.protocol:
            raise InputError(
                "protocol", expected=f"the same in all ledgers ({first.protocol.name})", got=ledger.protocol.name
            )
    truth, truth_rows = _concat_boxes([ledger.truth for ledger in ledgers])
    pred, pred_rows = _concat_boxes([ledger.pred for ledger in ledgers])
    n_tasks = len(first.protocol.tasks)

    def joined(name: str, rows: list[Ints], size: int) -> NDArray[np.generic]:
        whole = np.empty(size, getattr(first, name).dtype)
        for ledger, at in zip(ledgers, rows, strict=True):
            whole[at] = getattr(ledger, name)
        return whole

    # events: put each part's events at its rows in the whole, then into the order of the curves again
    task = np.concatenate([ledger.event_task for ledger in ledgers])
    score = np.concatenate([ledger.event_score for ledger in ledgers])
    place = np.concatenate([ledger.event_place for ledger in ledgers])
    rows = np.concatenate([at[ledger.event_pred] for ledger, at in zip(ledgers, pred_rows, strict=True)])
    code = truth.frame_index
    frame = np.concatenate(
        [np.array([code[name] for name in ledger.truth.frames], np.int32)[ledger.event_frame] for ledger in ledgers]
    )
    event_offsets, order = group(task.astype(np.int32), n_tasks)
    for k in range(n_tasks):
        part = slice(event_offsets[k], event_offsets[k + 1])
        at = order[part]
        at = at[np.argsort(rows[at])]  # a fixed order before ties are settled by place
        order[part] = at[order_by_score(score[at], place[at])]
    new_event = np.empty(len(order), np.int64)
    new_event[order] = np.arange(len(order))
    starts = np.cumsum([0, *(len(ledger.event_pred) for ledger in ledgers)])
    pair_event = np.concatenate(
        [new_event[ledger.pair_event + start] for ledger, start in zip(ledgers, starts, strict=False)]
    )
    pair_truth = np.concatenate([at[ledger.pair_truth] for ledger, at in zip(ledgers, truth_rows, strict=True)])
    pair_bits = np.concatenate([ledger.pair_bits for ledger in ledgers])
    pair_order = np.argsort(pair_event, kind="stable")
    return Ledger(
        protocol=first.protocol,
        truth=truth,
        pred=pred,
        truth_fate=joined("truth_fate", truth_rows, len(truth)),  # type: ignore[arg-type]
        pred_fate=joined("pred_fate", pred_rows, len(pred)),  # type: ignore[arg-type]
        truth_task=joined("truth_task", truth_rows, len(truth)),  # type: ignore[arg-type]
        event_offsets=event_offsets,
        event_pred=rows[order],
        event_frame=frame[order],
        event_score=score[order],
        event_place=place[order],
        pair_event=pair_event[pair_order],
        pair_truth=pair_truth[pair_order],
        pair_bits=pair_bits[pair_order],
        pair_errors=np.concatenate([ledger.pair_errors for ledger in ledgers])[pair_order],
        n_extra_frames=sum(ledger.n_extra_frames for ledger in ledgers),
        notes=tuple(dict.fromkeys(note for ledger in ledgers for note in ledger.notes)),
        version="+".join(sorted({ledger.version for ledger in ledgers})),
    )


def _concat_boxes(parts: list[Boxes]) -> tuple[Boxes, list[Ints]]:
    """Join boxes and say at which row of the whole each row of each part stands."""
    starts = np.cumsum([0, *(len(part) for part in parts)])
    numbered = [
        part.replace(box_columns={**part.box_columns, "#": np.arange(len(part)) + start})
        for part, start in zip(parts, starts, strict=False)
    ]
    whole = Boxes.concat(numbered)
    columns = dict(whole.box_columns)
    came_from = columns.pop("#")
    where = np.empty(len(whole), np.int64)
    where[came_from] = np.arange(len(whole))
    return whole.replace(box_columns=columns), [where[a:b] for a, b in itertools.pairwise(starts)]
