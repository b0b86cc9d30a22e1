"""What all services share: settings, storage, pool, limits, and who is calling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from detmetrics_server.errors import BusyError, ForbiddenError
from detmetrics_server.pool import Pool
from detmetrics_server.settings import Settings
from detmetrics_server.storage import Role, Storage
from detmetrics_server.watching import Numbers

T = TypeVar("T")
MAX_PUBLIC = 16


class Caller(NamedTuple):
    """Who is calling."""

    name: str
    role: Role
    request_id: str


CALLER: ContextVar[Caller] = ContextVar("caller")


class Core:
    """One server's state.

    Parameters
    ----------
    settings : Settings
    storage : Storage
    pool : Pool
    """

    def __init__(self, settings: Settings, storage: Storage, pool: Pool) -> None:
        self.settings, self.storage, self.pool = settings, storage, pool
        self.numbers = Numbers()
        self.pending_bytes = 0
        self.n_receiving = {False: 0, True: 0}  # by whether anyone may call
        self.n_watching = 0
        self.calls: set[asyncio.Task[Any]] = set()
        self._begun: set[asyncio.Task[Any]] = set()
        self.numbers.gauge("detmetrics_waiting", "Evaluations that wait.", lambda: pool.waiting)
        self.numbers.gauge("detmetrics_running", "Evaluations at work.", lambda: pool.running)
        self.numbers.gauge("detmetrics_spool_bytes", "Bytes of uploads in the spool.", lambda: self.spool_bytes)

    @property
    def spool_bytes(self) -> int:
        """Bytes of uploads that lie in the spool, until each is kept or forgotten."""
        return self.storage.blobs.spool_bytes

    @property
    def needs_token(self) -> bool:
        """Whether calls need a token."""
        return self.settings.needs_token(self.storage.has_tokens())

    async def db(self, call: Callable[..., T], *arguments: Any, **more: Any) -> T:
        """Call something that waits for the disk, beside the event loop."""
        return await asyncio.to_thread(call, *arguments, **more)

    async def surely(self, call: Callable[..., T], *arguments: Any, **more: Any) -> T:
        """Call like :meth:`db` what must happen also where its caller goes before a thread has begun it."""
        return await asyncio.shield(self.begin(self.db(call, *arguments, **more)))

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin what must come to its end also where its caller goes; the end of the server waits for it."""
        task = asyncio.ensure_future(work)
        self._begun.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._begun.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left to be told

    async def settle(self) -> None:
        """End all calls, and wait until all that they began has ended; once no answer goes out any more."""
        for call in self.calls:
            call.cancel()
        while left := self.calls | self._begun:
            await asyncio.wait(left)

    @contextmanager
    def receiving(self, *, is_public: bool = False) -> Iterator[None]:
        """Count a call while it may still be sending: gRPC holds a message whole before we see its length.

        What anyone may call is counted by itself, so that a health check is answered while all others send.

        Raises
        ------
        BusyError
            Where as many as may are sending.
        """
        if self.n_receiving[is_public] >= (MAX_PUBLIC if is_public else self.settings.max_receiving):
            raise BusyError("too many are sending at a time")
        self.n_receiving[is_public] += 1
        try:
            yield
        finally:
            self.n_receiving[is_public] -= 1

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count a call that anyone may make and that never ends: a quarter of all calls may be such.

        Raises
        ------
        BusyError
        """
        if self.n_watching >= max(self.settings.max_calls // 4, 1):
            raise BusyError("too many watch the health of this server")
        self.n_watching += 1
        try:
            yield
        finally:
            self.n_watching -= 1

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Count the bytes of a message while it is at work.

        Raises
        ------
        BusyError
            Where all messages together would be too large.
        """
        if self.pending_bytes + size > self.settings.max_pending_bytes:
            raise BusyError("too much is being sent at a time")
        self.pending_bytes += size
        try:
            yield
        finally:
            self.pending_bytes -= size


def check_owner(owner: str) -> None:
    """Refuse all but the owner and admins.

    Raises
    ------
    ForbiddenError
    """
    caller = CALLER.get()
    if caller.role != "admin" and caller.name != owner:
        raise ForbiddenError("only who submitted it, or an admin, may do this")
