"""Outcomes: what matching made of each box, at one threshold of the protocol."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detmetrics.errors import InputError
from detmetrics.ledger import Fate
from detmetrics.operating import best_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics.ledger import Ledger


class Outcome(enum.IntEnum):
    """What became of a box; the last two where nothing was matched."""

    TRUE_POSITIVE = 0
    FALSE_POSITIVE = 1
    MISSED = 2
    FOUND = 3
    NOT_COUNTED = 4
    TRUTH = 5
    PREDICTION = 6

    @property
    def says(self) -> str:
        """Words for a legend."""
        return _SAYS[self]


_SAYS = ("true positive", "false positive", "missed", "found truth", "not counted", "truth", "prediction")


@dataclass(frozen=True, eq=False)
class Outcomes:
    """A ledger read for looking at frames; made once for all of them.

    Attributes
    ----------
    ledger : Ledger
    threshold : float
        Of the match, e.g. 2 metres.
    partner : int64 (N_pred,)
        Row of the truth that each prediction matches, or -1.
    errors : float64 (N_pred, E)
        True-positive errors of ``protocol.errors``; NaN without a match and where unknown.
    cutoff : float64 (K,)
        For each class the score of its best F1 over all frames; infinite where nothing is ever right. The counts of
        :func:`detmetrics.frames` leave out predictions below it, and so does a scene unless told otherwise.
    """

    ledger: Ledger
    threshold: float
    partner: NDArray[np.int64]
    errors: NDArray[np.float64]
    cutoff: NDArray[np.float64]

    @classmethod
    def of(cls, ledger: Ledger, threshold: float | None = None) -> Outcomes:
        """Read a ledger.

        Parameters
        ----------
        ledger : Ledger
        threshold : float, optional
            One of the protocol's; default: that of the true-positive errors.

        Raises
        ------
        InputError
            For a threshold that the protocol does not have.
        """
        thresholds = ledger.protocol.affinity.thresholds
        chosen = ledger.protocol.affinity.error_threshold if threshold is None else threshold
        if chosen not in thresholds:
            raise InputError("threshold", expected=f"one of {thresholds}", got=threshold)
        t = thresholds.index(chosen)
        pairs = np.flatnonzero(ledger.pair_bits >> t & 1)
        rows = ledger.event_pred[ledger.pair_event[pairs]]
        partner = np.full(len(ledger.pred), -1, np.int64)
        partner[rows] = ledger.pair_truth[pairs]
        errors = np.full((len(ledger.pred), len(ledger.protocol.errors)), np.nan)
        errors[rows] = ledger.pair_errors[pairs]
        return cls(ledger, chosen, partner, errors, best_scores(ledger, t))

    @property
    def truth_counts(self) -> NDArray[np.bool_]:
        """Which truths count, (N_truth,)."""
        counts: NDArray[np.bool_] = self.ledger.truth_fate == Fate.KEPT
        return counts

    @property
    def pred_counts(self) -> NDArray[np.bool_]:
        """Which predictions count, (N_pred,)."""
        counts: NDArray[np.bool_] = self.ledger.pred_fate == Fate.KEPT
        return counts

    def mistakes(self) -> NDArray[np.int64]:
        """Count false positives and missed truths by frame and class, (F, K); scores from ``cutoff`` on."""
        ledger = self.ledger
        n_tasks = len(ledger.protocol.tasks)
        made = ledger.event_score >= self.cutoff[ledger.event_task]
        is_match = self.partner[ledger.event_pred] >= 0
        cell = ledger.event_frame.astype(np.int64) * n_tasks + ledger.event_task

        def counted(events: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.bincount(cell[events], minlength=ledger.n_frames * n_tasks).reshape(ledger.n_frames, n_tasks)

        return counted(made & ~is_match) + ledger.truth_counts - counted(made & is_match)
