"""Frames: what happened in each, and what each costs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from detmetrics.errors import check_whole
from detmetrics.kernels import Floats, Ints
from detmetrics.ledger import Ledger, check_ledger
from detmetrics.operating import best_scores
from detmetrics.scoring import SLOPE, Absent, Plan, official
from detmetrics.weights import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, repr=False)
class Frames:
    """One row a frame.

    Attributes
    ----------
    ledger : Ledger
    tp, fp, fn : int64 (F,)
        Matches, false positives, missed truths at the threshold of the errors; predictions below the score of the best
        F1 of their class are left out, since a detector's tail of low scores says nothing of a frame.
    error_mean : float64 (F, n_errors)
        Means of the known errors of these matches; NaN where there are none.
    cost : float64 (F,) or None
        What the composite would gain if the frame were not there: leave-one-out, exact. Negative: the frame lifts it.
        NaN for frames that were not asked about.
    """

    ledger: Ledger
    tp: Ints
    fp: Ints
    fn: Ints
    error_mean: Floats
    cost: Floats | None

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.tp)

    def worst(self, n: int = 10) -> Ints:
        """Give the codes of the frames that cost most, dearest first; without costs, of those with most mistakes."""
        check_whole("n", n, 0)
        key = (self.fp + self.fn).astype(np.float64) if self.cost is None else self.cost
        return np.lexsort((np.arange(len(self)), -key))[:n]

    def best(self, n: int = 10) -> Ints:
        """Give the codes of the frames at the other end of :meth:`worst`, the best first; of equals most matches first.

        Frames without a truth that counts are left out: where nothing was to be found, nothing was done well.
        """
        check_whole("n", n, 0)
        key = (self.fp + self.fn).astype(np.float64) if self.cost is None else self.cost
        order = np.lexsort((np.arange(len(self)), -self.tp, key))
        return order[(self.tp + self.fn)[order] > 0][:n]

    def to_rows(self) -> Iterator[dict[str, float | int | str]]:
        """Give one dict a frame, in the order of the ledger: name, scene if known, counts, mean errors, cost."""
        truth, protocol = self.ledger.truth, self.ledger.protocol
        scene = truth.frame_columns.get("scene")
        for f, name in enumerate(truth.frames):
            row: dict[str, float | int | str] = {"frame": name}
            if scene is not None:
                row["scene"] = str(scene[f])
            row |= {"tp": int(self.tp[f]), "fp": int(self.fp[f]), "fn": int(self.fn[f])}
            row |= dict(zip(protocol.error_names, self.error_mean[f].tolist(), strict=True))
            if self.cost is not None:
                row["cost"] = float(self.cost[f])
            yield row

    def __str__(self) -> str:
        """Give the table of the ten worst frames."""
        from detmetrics.reporting.table import as_plain, frames_table

        return as_plain(frames_table(self, 10))

    def __repr__(self) -> str:
        """Say how many."""
        return f"<Frames {len(self)}: {self.tp.sum()} TP, {self.fp.sum()} FP, {self.fn.sum()} missed>"


def frames(
    ledger: Ledger,
    *,
    cost: bool = True,
    among: int | None = None,
    absent: Absent = "official",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Frames:
    """Count what happened in each frame, and what each costs.

    Parameters
    ----------
    ledger : Ledger
        From :func:`detmetrics.match`.
    cost : bool
        Whether to score the set once without each frame. A val-sized ledger takes some 20 s on 2 cores.
    among : int, optional
        Only without each of so many frames, those that :func:`detmetrics.framing.first_order` thinks dearest; default:
        all.
    absent : {"official", "omit"}
        What a class without truth counts.
    threads : int, optional
        Worker threads; default one a core.
    progress : callable, optional
        Called with (done, total).
    """
    check_ledger(ledger)
    if threads is not None:
        check_whole("threads", threads, 1)
    if among is not None:
        check_whole("among", among, 0)
    protocol, n_frames = ledger.protocol, ledger.n_frames
    t = protocol.error_index
    made = ledger.event_score >= best_scores(ledger, t)[ledger.event_task]
    pairs = np.flatnonzero((ledger.pair_bits >> t & 1 == 1) & made[ledger.pair_event])
    frame = ledger.event_frame[ledger.pair_event[pairs]]
    tp = np.bincount(frame, minlength=n_frames)
    fp = np.bincount(ledger.event_frame[made], minlength=n_frames) - tp
    fn = ledger.truth_counts.sum(axis=1) - tp
    error_mean = np.full((n_frames, len(protocol.errors)), np.nan)
    for i, column in enumerate(ledger.pair_errors[pairs].T):
        known = np.flatnonzero(~np.isnan(column))
        count = np.bincount(frame[known], minlength=n_frames)
        total = np.bincount(frame[known], column[known], n_frames)
        error_mean[count > 0, i] = total[count > 0] / count[count > 0]
    found = Frames(ledger, tp, fp, fn, error_mean, None)
    if not cost:
        return found
    listed = np.arange(n_frames) if among is None else np.argsort(-first_order(ledger), kind="stable")[:among]
    return replace(found, cost=_costs(ledger, listed, absent, threads or os.cpu_count() or 1, progress))


def first_order(ledger: Ledger) -> Floats:
    """Estimate the cost of each frame (F,), in milliseconds: enough to say which ones to score without.

    At the score of the best F1 of each class and threshold, AP is taken for precision times recall; what a frame moves
    in these, and in the mean errors there, is written to first order, and so is what these move in the composite;
    classes without truth and errors that mean nothing are left out. On a val-sized set of nuScenes it correlates with
    the exact cost by 0.8, and 19 of the 20 dearest frames are among the 300 it thinks dearest; see
    ``tests/bench/results.md``.
    """
    protocol, n_frames = ledger.protocol, ledger.n_frames
    n_tasks, n_thresholds = len(protocol.tasks), len(protocol.affinity.thresholds)
    cell = ledger.event_frame.astype(np.int64) * n_tasks + ledger.event_task

    def counted(cells: Ints, weight: Floats | None = None) -> Floats:
        return np.bincount(cells, weight, n_frames * n_tasks).reshape(n_frames, n_tasks).astype(np.float64)

    def share(part: Floats, whole: Floats) -> Floats:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    truth = ledger.truth_counts.astype(np.float64)
    ap, errors = np.zeros((n_tasks, n_thresholds)), np.zeros((n_tasks, len(protocol.errors)))
    ap_gain, error_drop = np.zeros((n_frames, n_tasks)), np.zeros((n_frames, *errors.shape))  # without each frame
    for t in range(n_thresholds):
        made = ledger.event_score >= best_scores(ledger, t)[ledger.event_task]
        pairs = np.flatnonzero((ledger.pair_bits >> t & 1 == 1) & made[ledger.pair_event])
        matched = cell[ledger.pair_event[pairs]]
        right, said = counted(matched), counted(cell[made])
        recall, precision = (share(right.sum(axis=0), side.sum(axis=0)) for side in (truth, said))
        ap[:, t] = precision * recall
        gain = precision * share(recall * truth - right, np.broadcast_to(truth.sum(axis=0), truth.shape))
        gain += recall * share(precision * said - right, np.broadcast_to(said.sum(axis=0), said.shape))
        ap_gain += gain / n_thresholds
        if t != protocol.error_index:
            continue
        for e, error in enumerate(protocol.errors):
            values = ledger.pair_errors[pairs, e]
            known = ~np.isnan(values)
            total, number = counted(matched[known], values[known]), counted(matched[known])
            every = number.sum(axis=0)
            mean = share(total.sum(axis=0), every)
            errors[:, e] = np.where(every > 0, mean, error.worst)
            error_drop[:, :, e] = share(total - mean * number, np.broadcast_to(every, number.shape))
    ap, errors = official(protocol, ap, errors, truth.sum(axis=0), "omit")
    by_ap, by_error = SLOPE[protocol.composite.kind](protocol, ap.mean(axis=-1), errors)
    return ap_gain @ by_ap - np.tensordot(error_drop, by_error, 2)


def _costs(
    ledger: Ledger, listed: Ints, absent: Absent, threads: int, progress: Callable[[int, int], None] | None
) -> Floats:
    """Gain of the composite without each of some frames; exactly zero for frames in which nothing counts."""
    plan = Plan(ledger, Weights())
    whole = plan.numbers(absent)[0, 0]  # the composite stands first
    is_busy: NDArray[np.bool_] = ledger.truth_counts.sum(axis=1) > 0
    is_busy[ledger.event_frame] = True
    busy = listed[is_busy[listed]]
    costs = np.full(ledger.n_frames, np.nan)
    costs[listed] = 0

    def one(f: int) -> None:
        weight = np.ones(ledger.n_frames, np.int64)
        weight[f] = 0
        costs[f] = plan.numbers(absent, weight)[0, 0] - whole

    with ThreadPoolExecutor(threads) as pool:
        for done, _ in enumerate(pool.map(one, busy.tolist()), 1):
            if progress:
                progress(done, len(busy))
    return costs
