"""Evaluate: match and score in one call."""

from __future__ import annotations

import time
from dataclasses import replace

from detmetrics.boxes import Boxes
from detmetrics.matching import match
from detmetrics.protocol import Protocol
from detmetrics.scoring import Absent, Scores, score


def evaluate(
    truth: Boxes, pred: Boxes, protocol: Protocol, *, absent: Absent = "official", threads: int | None = None
) -> Scores:
    """Match predictions to truth and score them.

    Parameters
    ----------
    truth, pred : Boxes
        In one coordinate frame; ``pred`` with scores.
    protocol : Protocol
        The rules, e.g. :data:`detmetrics.NUSCENES`.
    absent : {"official", "omit"}
        What a class without truth counts; see :func:`detmetrics.score`.
    threads : int, optional
        Worker threads, default one a core.

    Raises
    ------
    InputError
        See :func:`detmetrics.match`.
    """
    start = time.perf_counter()
    scores = score(match(truth, pred, protocol, threads=threads), absent=absent)
    return replace(scores, eval_time_s=time.perf_counter() - start)
