"""The pool: worker processes, the queue before them, and what becomes of a worker that dies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from detmetrics.errors import InputError
from detmetrics_server import jobs
from detmetrics_server.errors import BusyError, DrainingError, LimitError, WorkerLostError

Progress = Callable[[str, int, int], None]


class WorkerFaultError(Exception):
    """A fault of ours inside a worker; the text is its traceback."""


class _Slot:
    """One worker process and the pipe to it; used by one thread at a time.

    The event loop only ever sets a flag (that a job is not wanted, that all is over) and then kills the process; the
    thread only ever sets the process and then looks at the flags. So neither can miss the other.
    """

    def __init__(self, cache_bytes: int, memory_bytes: int) -> None:
        self._settings = (cache_bytes, memory_bytes)
        self.process: subprocess.Popen[bytes] | None = None
        self.is_closed = False
        self._pipe: Connection | None = None

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.stop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [sys.executable, "-m", "detmetrics_server.worker", str(theirs.fileno())]
            self.process = subprocess.Popen(
                [*command, *(str(value) for value in self._settings)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server, which then drains
            )
            self._pipe = Connection(ours.detach())
        if self.is_closed:
            self.kill()
        kind, _ = self._pipe.recv()
        assert kind == "ready"

    def kill(self) -> None:
        """Kill the process, from any thread; whoever waits for it sees its pipe end."""
        process = self.process
        if process is not None:
            process.kill()

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def call(
        self, job: jobs.Job, progress: Progress, is_wanted: Callable[[], bool], begun: Callable[[], object]
    ) -> Any:
        """Do a job; a worker that dies in the middle costs one retry."""
        try:
            return self._call(job, progress, is_wanted, begun)
        finally:
            for payload in jobs.payloads(job):  # here, where no worker can write them any more
                if payload.scratch:
                    Path(payload.scratch).unlink(missing_ok=True)

    def _call(
        self, job: jobs.Job, progress: Progress, is_wanted: Callable[[], bool], begun: Callable[[], object]
    ) -> Any:
        for attempt in (1, 2):
            try:
                if self._pipe is None:
                    self.start()
                if not is_wanted():  # it was let go of before there was a process to kill
                    raise WorkerLostError("nobody wants this any more")
                begun()
                assert self._pipe is not None
                self._pipe.send(job)
                while True:
                    kind, value = self._pipe.recv()
                    if kind == "progress":
                        progress(*value)
                    elif kind == "done":
                        return value
                    elif kind == "refused":
                        raise value.error()
                    elif kind == "failed":
                        raise value
                    else:
                        raise WorkerFaultError(value)
            except (EOFError, OSError):  # OSError also where it ends in the middle of what it says
                self.stop()
                if attempt == 2 or self.is_closed or not is_wanted():
                    raise WorkerLostError(
                        "a worker process of the server was lost while at this; try again later"
                    ) from None
        raise AssertionError


class Pool:
    """Runs jobs in worker processes.

    Parameters
    ----------
    workers : int
        Number of processes.
    max_waiting : int
        Jobs that may wait; more are refused.
    timeout_s : float
        Longest time for one job.
    cache_bytes, memory_bytes : int
        Of each worker: truth kept, and the most memory it may have (0: no limit).
    """

    def __init__(self, workers: int, max_waiting: int, timeout_s: float, cache_bytes: int, memory_bytes: int) -> None:
        self.max_waiting, self.timeout_s = max_waiting, timeout_s
        self._slots = [_Slot(cache_bytes, memory_bytes) for _ in range(workers)]
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="pool")
        self._free: asyncio.Queue[_Slot] = asyncio.Queue()
        self._turn = asyncio.Lock()  # fair, as the queue is not: it gives to who comes before who waits has woken
        self._left: set[asyncio.Task[None]] = set()
        self.waiting = self.running = 0
        self.is_closed = False

    async def start(self) -> None:
        """Start all workers.

        Raises
        ------
        InputError
            Where one ends at once.
        """
        loop = asyncio.get_running_loop()
        starts = [loop.run_in_executor(self._threads, slot.start) for slot in self._slots]
        for failure in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(failure, (EOFError, OSError)):
                hint = "is worker_memory_bytes, or the machine, too small?"
                raise InputError("a worker process cannot start", hint=hint) from None
            if failure is not None:
                raise failure
        for slot in self._slots:
            self._free.put_nowait(slot)

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    def check_room(self) -> None:
        """Refuse work that would have to wait in a full queue.

        Raises
        ------
        BusyError
        DrainingError
        """
        if self.is_closed:
            raise DrainingError("the server is about to stop; try again later")
        if self.waiting >= self.max_waiting:
            raise BusyError(f"{self.waiting} evaluations wait already")

    async def run(
        self,
        job: jobs.Job,
        *,
        progress: Progress | None = None,
        kill: bool = False,
        must_wait: bool = False,
        begun: Callable[[], object] = lambda: None,
    ) -> Any:
        """Do a job in a worker.

        Parameters
        ----------
        job : Job
        progress : callable, optional
            Called in the event loop with stage, done, total.
        kill : bool
            Whether cancellation kills the worker; else it finishes what nobody wants any more.
        must_wait : bool
            Whether it waits also in a full queue: it was accepted before.
        begun : callable, optional
            Called in a thread each time before a worker gets it.

        Raises
        ------
        BusyError, DrainingError, WorkerLostError, LimitError
            DrainingError also for what was waiting when the pool was closed.
        Exception
            What the job itself raises.
        """
        if not must_wait:
            self.check_room()
        self.waiting += 1
        try:
            async with self._turn:
                slot = await self._free.get()
        finally:
            self.waiting -= 1
        if slot.is_closed:
            self._free.put_nowait(slot)  # for the next that waits, to be told as well
            raise DrainingError("the server stopped; try again later")
        self.running += 1
        loop = asyncio.get_running_loop()
        end, is_wanted = loop.time() + self.timeout_s, True

        def tell(stage: str, done: int, total: int) -> None:
            if progress is not None and is_wanted:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(progress, stage, done, total)

        work = loop.run_in_executor(self._threads, slot.call, job, tell, lambda: is_wanted, begun)
        try:
            async with asyncio.timeout_at(end):
                return await asyncio.shield(work)
        except TimeoutError:
            kill = True
            raise LimitError(f"this takes longer than the {self.timeout_s:g} s that one evaluation may take") from None
        finally:
            is_wanted = False
            if work.done():
                work.cancelled() or work.exception()  # nobody may be left to be told
                self._release(slot)
            else:
                if kill:
                    slot.kill()
                task = asyncio.ensure_future(self._after(work, slot, end - loop.time()))
                self._left.add(task)
                task.add_done_callback(self._left.discard)

    async def _after(self, work: asyncio.Future[Any], slot: _Slot, seconds: float) -> None:
        """Wait for work that nobody wants any more, and kill the worker where that takes longer than it may."""
        await asyncio.wait([work], timeout=max(seconds, 0.0))
        if not work.done():
            slot.kill()
        with contextlib.suppress(Exception):
            await work
        self._release(slot)

    def _release(self, slot: _Slot) -> None:
        self.running -= 1
        self._free.put_nowait(slot)

    async def close(self) -> None:
        """End the workers, whatever they do."""
        self.is_closed = True
        for slot in self._slots:
            slot.is_closed = True
            slot.kill()
        await asyncio.gather(*self._left, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        for slot in self._slots:
            slot.stop()
