"""Attempts: how often a worker had an evaluation as its server ended; one that ends it each time is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable

from detmetrics_server.watching import log


class Attempt:
    """One server's attempt at an evaluation: counted while a worker has it; a server that is killed leaves it so.

    Parameters
    ----------
    ended : int
        Attempts at whose end the server ended.
    write : callable
        Writes ``attempts`` of the row.
    is_kept : bool
        Whether there is a row yet.
    """

    def __init__(self, ended: int, write: Callable[[int], None], *, is_kept: bool) -> None:
        self._ended, self._write, self._is_kept = ended, write, is_kept
        self._is_at_work = self._is_over = False
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """What ``attempts`` of the row is to be."""
        return self._ended + self._is_at_work

    def begun(self) -> None:
        """A worker is about to get it."""
        with self._lock:
            if not (self._is_at_work or self._is_over):
                self._is_at_work = True
                self._write_down()

    def kept(self, number: int) -> None:
        """The row is there, with a number that may be old by now."""
        with self._lock:
            self._is_kept = True
            if number != self.number:
                self._write_down()

    def let_go(self) -> None:
        """No worker has it any more, nor gets it from this server."""
        with self._lock:
            self._is_over = True
            if self._is_at_work:
                self._is_at_work = False
                self._write_down()

    def _write_down(self) -> None:
        if self._is_kept:
            try:
                self._write(self.number)
            except Exception as error:  # the evaluation matters more
                log("fault", level=40, error=error)
