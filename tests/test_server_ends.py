"""How calls, workers and the server end before their time, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import detmetrics as dm

pytest.importorskip("grpc", reason="detmetrics[server] is not installed")

import grpc

import serving
from detmetrics_server import access, convert, datasets, evaluations, jobs, messages, worker
from detmetrics_server import client as clients
from detmetrics_server import pool as pools
from detmetrics_server.attempts import Attempt
from detmetrics_server.client import Client
from detmetrics_server.core import CALLER, Caller
from detmetrics_server.errors import DrainingError, FullError, NotFoundError, ServiceError, WorkerLostError
from detmetrics_server.messages import CANCELLED, GZIP, NUSCENES_JSON, RUNNING
from detmetrics_server.storage import EVALUATIONS as EVALUATION_ROWS
from detmetrics_server.storage import Query, Storage
from serving import EVALUATIONS, Process, Running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving.serving(tmp_path_factory.mktemp("server")) as running, running.client() as client:
        client.upload_dataset("small", serving.boxes()[0])
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Client]:
    with server.client() as client:
        yield client


@contextmanager
def stopped_worker(server: Running) -> Iterator[None]:
    """Its only worker neither does anything nor ends, until it is killed."""
    with server.client() as client:
        client.evaluate(serving.boxes()[1], dataset="small")  # one that was killed is replaced on use
    pid = server.pool.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if pid in server.pool.pids():
            os.kill(pid, signal.SIGCONT)


def pieces() -> list[bytes]:
    header = messages.twin("EvaluateHeader")(dataset="datasets/small", format=1)
    return list(clients._parts("EvaluateStreamRequest", header, convert.to_bytes(serving.boxes()[1]), None))


@contextmanager
def accepted(server: Running) -> Iterator[tuple[str, Any]]:
    """Give an evaluation that goes on, and the stream that tells of it."""
    with grpc.insecure_channel(server.address) as channel:
        stream = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(iter(pieces()), timeout=60)
        yield messages.parse("EvaluateStreamResponse", next(stream)).accepted.name, stream


# workers


def test_what_a_lost_worker_unpacked_does_not_stop_the_next(tmp_path: Path) -> None:
    _, pred = serving.boxes()
    dm.io.nuscenes.write_results(pred, tmp_path / "results.json")
    (tmp_path / "sent").write_bytes(gzip.compress((tmp_path / "results.json").read_bytes()))
    (tmp_path / "scratch").write_bytes(b"x" * 10_000_000)
    paths = {"path": str(tmp_path / "sent"), "scratch": str(tmp_path / "scratch")}
    payload = jobs.Payload(format=NUSCENES_JSON, compression=GZIP, **paths)
    read = worker.read(payload, lambda *_: None, are_predictions=True)
    assert read.score.tolist() == dm.io.load(tmp_path / "results.json").score.tolist()


class Pipe:
    """A pipe to a worker that is only played."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.sent: list[Any] = []
        self._answer = answer

    def send(self, job: Any) -> None:
        self.sent.append(job)

    def recv(self) -> Any:
        return "done", self._answer()

    def close(self) -> None:
        pass


def played(pipe: Pipe, start: Callable[[], object] = lambda: None) -> pools.Pool:
    """Give a pool of one such worker."""
    pool = pools.Pool(1, 1, 20.0, 0, 0)
    (slot,) = pool._slots

    def begin() -> None:
        start()
        slot._pipe = pipe  # type: ignore[assignment]

    slot.start = begin  # type: ignore[method-assign]
    pool._free.put_nowait(slot)
    return pool


async def rest(pool: pools.Pool) -> None:
    async with asyncio.timeout(20):
        while pool.running or pool.waiting:
            await asyncio.sleep(0.01)


def a_check(scratch: Path | None = None) -> jobs.Check:
    return jobs.Check(jobs.Payload(format=1, scratch=str(scratch or "")))


def test_what_a_worker_writes_late_is_deleted(tmp_path: Path) -> None:
    """A killed worker may write a little longer than its caller waits."""
    scratch, at_work, go_on = tmp_path / "scratch", threading.Event(), threading.Event()

    def answer() -> int:
        at_work.set()
        assert go_on.wait(20)
        scratch.write_bytes(b"late")
        return 1

    async def lost() -> None:
        pool = played(Pipe(answer))
        call = asyncio.ensure_future(pool.run(a_check(scratch), kill=True))
        await asyncio.to_thread(at_work.wait, 20)
        call.cancel()
        await asyncio.wait([call])
        go_on.set()
        await rest(pool)

    asyncio.run(lost())
    assert at_work.is_set()
    assert not scratch.exists()


def test_a_job_let_go_of_while_its_worker_starts_is_not_begun() -> None:
    """There is no process to kill then."""
    starting, go_on, pipe = threading.Event(), threading.Event(), Pipe(lambda: 1)

    def start() -> None:
        starting.set()
        assert go_on.wait(20)

    async def lost() -> Any:
        pool = played(pipe, start)
        call = asyncio.ensure_future(pool.run(a_check(), kill=True))
        await asyncio.to_thread(starting.wait, 20)
        call.cancel()
        await asyncio.wait([call])
        go_on.set()
        await rest(pool)
        assert pipe.sent == []
        return await pool.run(a_check())

    assert asyncio.run(lost()) == 1


def test_a_worker_that_starts_while_the_pool_is_closed_ends() -> None:
    slot = pools._Slot(0, 0)
    slot.is_closed = True
    with pytest.raises((EOFError, OSError)):
        slot.start()
    slot.stop()


def test_what_waits_when_the_pool_is_closed_is_told() -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def answer() -> int:
        at_work.set()
        assert go_on.wait(20)
        return 1

    async def lost() -> list[Any]:
        pool = played(Pipe(answer))
        calls = [asyncio.ensure_future(pool.run(a_check(), must_wait=True)) for _ in range(3)]
        await asyncio.to_thread(at_work.wait, 20)
        closing = asyncio.ensure_future(pool.close())
        await asyncio.sleep(0.05)
        go_on.set()
        async with asyncio.timeout(20):
            await closing
            found = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(DrainingError):
            await pool.run(a_check(), must_wait=True)
        assert (pool.running, pool.waiting) == (0, 0)
        return found

    first, *others = asyncio.run(lost())
    assert first == 1
    assert [type(other) for other in others] == [DrainingError, DrainingError]


def test_a_worker_that_ends_in_the_middle_of_its_answer_costs_one_retry() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(struct.pack("!i", 1000) + b"the first bytes of a thousand")
    theirs.shutdown(socket.SHUT_WR)
    pool = played(Pipe(lambda: 1))
    pool._slots[0]._pipe = Connection(ours.detach())
    assert asyncio.run(pool.run(a_check())) == 1
    theirs.close()


def test_what_nobody_waits_for_may_not_take_longer_than_anything_else(tmp_path: Path) -> None:
    truth, pred = serving.boxes()
    with serving.serving(tmp_path, timeout_s=3.0) as server, server.client() as client:
        client.upload_dataset("small", truth)
        pid = server.pool.pids()[0]
        os.kill(pid, signal.SIGSTOP)
        with server.client(timeout_s=0.3) as hasty, pytest.raises(ServiceError, match="DEADLINE"):
            hasty.evaluate(pred, dataset="small")
        serving.wait_until(lambda: server.pool.running == 0)
        assert client.evaluate(pred, dataset="small").state == "succeeded"
        assert server.pool.pids() != [pid]


def test_who_waits_longest_is_next() -> None:
    """Also where a newcomer asks just as a worker becomes free."""

    async def turns() -> list[str]:
        pool, order = played(Pipe(lambda: 1)), []
        slot = pool._free.get_nowait()

        async def one(name: str) -> None:
            await pool.run(a_check(), must_wait=True)
            order.append(name)

        calls = [asyncio.ensure_future(one(name)) for name in ("first", "second")]
        await asyncio.sleep(0)
        calls.append(asyncio.ensure_future(one("newcomer")))
        pool._free.put_nowait(slot)
        async with asyncio.timeout(20):
            await asyncio.gather(*calls)
        return order

    assert asyncio.run(turns()) == ["first", "second", "newcomer"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_no_room_to_unpack_is_a_full_disk(tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(gzip.compress(b"x" * 100_000))
    payload = jobs.Payload(format=NUSCENES_JSON, compression=GZIP, path=str(sent), scratch="/dev/full")
    with pytest.raises(FullError, match="disk is full"):
        worker.read(payload, lambda *_: None, are_predictions=True)


def test_a_worker_outlives_the_signal_that_tells_the_server_to_drain(server: Running, client: Client) -> None:
    """A service manager sends it to all processes."""
    client.evaluate(serving.boxes()[1], dataset="small")
    (pid,) = server.pool.pids()
    os.kill(pid, signal.SIGTERM)
    assert client.evaluate(serving.boxes()[1], dataset="small").state == "succeeded"
    assert server.pool.pids() == [pid]


# callers


@pytest.mark.parametrize("n_ticks", range(8))
@pytest.mark.parametrize("kind", ["upload", "message"])
def test_a_caller_who_goes_just_as_a_part_comes_is_not_taken_for_one_who_stays(
    server: Running, kind: str, n_ticks: int
) -> None:
    part = messages.twin("UploadDatasetRequest")(header={"dataset_id": "lost", "format": 1}).SerializeToString()

    async def lost() -> bool:
        CALLER.set(Caller("anonymous", "admin", ""))
        came = asyncio.Event()

        async def stream() -> AsyncIterator[bytes]:
            await came.wait()
            yield part
            await asyncio.sleep(20)

        async def never(request: bytes, context: Any) -> None:
            await asyncio.sleep(20)

        service = datasets.DatasetService(server.server.core)
        one = access.Door(server.server.core)._with_one(never, access.EVALUATE)
        call = asyncio.ensure_future((service.UploadDataset if kind == "upload" else one)(stream(), None))
        await asyncio.sleep(0.02)
        came.set()
        for _ in range(n_ticks):
            await asyncio.sleep(0)
        call.cancel()
        done, _ = await asyncio.wait([call], timeout=5)
        return bool(done) and call.cancelled()

    assert asyncio.run(lost())
    assert server.server.core.n_receiving[False] == 0


def test_who_cancels_and_goes_has_cancelled(server: Running, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written down is also done: it does not work on for nothing."""
    core, service = server.server.core, server.server._evaluations
    begun, go_on, end = threading.Event(), threading.Event(), core.storage.end

    def slow(*arguments: Any, **more: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return end(*arguments, **more)

    async def lost(name: str) -> None:
        CALLER.set(Caller("anonymous", "admin", ""))
        request = messages.twin("CancelEvaluationRequest")(name=name).SerializeToString()
        call = asyncio.ensure_future(service.CancelEvaluation(request, None))
        await asyncio.to_thread(begun.wait, 20)
        call.cancel()
        await asyncio.wait([call])
        go_on.set()

    with stopped_worker(server), accepted(server) as (name, stream):
        with monkeypatch.context() as patch:
            patch.setattr(core.storage, "end", slow)
            server.do(lost(name))
            serving.wait_until(lambda: not service._running)
        assert serving.code_of(lambda: list(stream)) == "FAILED_PRECONDITION"
        assert client.get(name).state == "cancelled"


def test_who_went_before_the_first_answer_is_not_told_any_more(server: Running, client: Client) -> None:
    service = server.server._evaluations

    class Gone:
        async def write(self, message: Any) -> None:
            raise grpc.aio.InternalError("gone")

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    async def lost() -> list[Any]:
        CALLER.set(Caller("anonymous", "admin", ""))
        with pytest.raises(grpc.aio.InternalError):
            await service.EvaluateStream(stream(), Gone())
        return [listener for running in service._running.values() for listener in running.listeners]

    with stopped_worker(server):
        assert server.do(lost()) == []
        (evaluation_id,) = service._running
        client.cancel(f"evaluations/{evaluation_id}")
    serving.wait_until(lambda: not service._running)


def test_an_answer_to_a_caller_who_went_is_no_fault_of_the_server(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, Any]] = []
    monkeypatch.setattr(access, "log", lambda event, **fields: told.append((event, fields.get("code"))))

    async def behaviour(stream: Any, context: Any) -> None:
        raise grpc.aio.InternalError("gone")

    async def lost() -> None:
        method = f"{serving.INFO}/GetServerInfo"
        await access.Door(server.server.core)._call(behaviour, None, None, method, {})

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(lost())
    assert told == [("call", "CANCELLED")]


# evaluations


@pytest.mark.parametrize("what", ["evaluation", "data set"])
def test_what_is_deleted_while_it_waits_is_not_found(server: Running, client: Client, what: str) -> None:
    """It is no damage of what is stored."""
    truth, pred = serving.boxes()
    pred = pred.replace(score=pred.score * 0.9)
    name = client.evaluate(pred, dataset="small").name
    client.upload_dataset("gone", truth.take(truth.frames[:3]))
    with stopped_worker(server), ThreadPoolExecutor(2) as threads, server.client() as other:
        first = threads.submit(other.evaluate, pred, truth=truth)
        serving.wait_until(lambda: server.pool.running == 1)
        if what == "evaluation":
            second = threads.submit(other.compare, name, name, n=10)
        else:
            second = threads.submit(other.evaluate, pred, dataset="gone")
        serving.wait_until(lambda: server.pool.waiting == 1)
        if what == "evaluation":
            client.delete(name)
        client.delete_dataset("gone")
        os.kill(server.pool.pids()[0], signal.SIGCONT)
        first.result(20)
        with pytest.raises(NotFoundError):
            second.result(20)


def test_what_is_deleted_while_it_is_read_is_not_found(
    server: Running, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, read = client.evaluate(serving.boxes()[1], dataset="small").name, server.storage.blobs.read

    def late(sha256: str) -> bytes:
        server.storage.delete_evaluation(name.split("/")[1])
        return read(sha256)

    monkeypatch.setattr(server.storage.blobs, "read", late)
    with pytest.raises(NotFoundError):
        client.get(name)


def test_what_failed_while_the_disk_was_full_does_not_stay_running(
    server: Running, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who listens is told at once; the rest is written down when there is room."""
    (tmp_path / "bad.json").write_text("hello")
    end, is_full, refused = server.storage.end, threading.Event(), []
    is_full.set()

    def full(evaluation_id: str, *arguments: Any, **more: Any) -> Any:
        if is_full.is_set():
            refused.append(evaluation_id)
            raise FullError("the server's disk is full: nothing was stored")
        return end(evaluation_id, *arguments, **more)

    monkeypatch.setattr(evaluations, "AGAIN_S", 0.01)
    monkeypatch.setattr(server.storage, "end", full)
    with pytest.raises(dm.InputError, match=r"bad\.json"):
        client.evaluate(tmp_path / "bad.json", dataset="small")
    serving.wait_until(lambda: len(refused) > 2)
    assert client.get(f"evaluations/{refused[0]}").state == "running"
    is_full.clear()
    serving.wait_until(lambda: client.get(f"evaluations/{refused[0]}").state == "failed")
    serving.wait_until(lambda: not server.server._evaluations._running)
    assert "bad.json" in client.get(f"evaluations/{refused[0]}").error


def test_what_found_no_memory_is_kept_as_it_is_told(
    server: Running, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise MemoryError("of our own")

    monkeypatch.setattr(server.pool, "run", fails)
    with accepted(server) as (name, stream):
        assert serving.code_of(lambda: list(stream)) == "RESOURCE_EXHAUSTED"
    assert client.get(name).error == "the server has too little memory for this"


def test_what_cannot_be_gone_on_with_does_not_stay_running(tmp_path: Path) -> None:
    with serving.serving(tmp_path) as server, server.client() as client:
        client.upload_dataset("small", serving.boxes()[0])
        name = client.evaluate(serving.boxes()[1], dataset="small").name
        with server.storage._begin() as c:
            c.execute(EVALUATION_ROWS.update().values(state=RUNNING, job="damaged", report=None))
    with serving.serving(tmp_path) as server, server.client() as client:
        serving.wait_until(lambda: not server.server._evaluations._running, 5)
        assert client.get(name).state == "failed"


def test_what_is_deleted_before_its_end_is_written_down_is_let_go_of(
    server: Running, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation that comes as the scores are on their way to the disk wins, and so does a deletion after it."""
    storage, end, begun = server.storage, server.storage.end, threading.Event()
    before = sorted(storage.blobs.listed())

    def slow(evaluation_id: str, *arguments: Any, **more: Any) -> Any:
        if not begun.is_set():
            begun.set()
            end(evaluation_id, CANCELLED, metrics={})
            storage.delete_evaluation(evaluation_id)
        return end(evaluation_id, *arguments, **more)

    monkeypatch.setattr(storage, "end", slow)
    with accepted(server) as (name, stream):
        assert serving.code_of(lambda: list(stream)) == "NOT_FOUND"
    serving.wait_until(lambda: not server.server._evaluations._running)
    with pytest.raises(ServiceError, match="no evaluation"):
        client.get(name)
    assert sorted(storage.blobs.listed()) == before


def test_a_cancellation_that_comes_after_the_work_is_told(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    end = server.storage.end

    def late(evaluation_id: str, state: int, **more: Any) -> Any:
        end(evaluation_id, CANCELLED, metrics={})
        return end(evaluation_id, state, **more)

    monkeypatch.setattr(server.storage, "end", late)
    with accepted(server) as (_, stream):
        assert serving.code_of(lambda: list(stream)) == "FAILED_PRECONDITION"


def test_without_second_names_of_files_an_evaluation_is_known_before_it_is_kept(
    server: Running, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: Any) -> None:
        raise OSError("not on this file system")

    storage, seen = server.storage, []
    add = storage.add_evaluation

    def noted(row: dict[str, Any], *more: Any) -> Any:
        answer = add(row, *more)
        seen.append(row["id"] in server.server._evaluations._running)
        return answer

    truth, pred = serving.boxes()
    monkeypatch.setattr(evaluations.os, "link", no_link)
    monkeypatch.setattr(clients, "UNARY_BYTES", 0)
    monkeypatch.setattr(storage, "add_evaluation", noted)
    serving.same(dm.evaluate(truth, pred, dm.NUSCENES), client.evaluate(pred, dataset="small").scores)
    assert seen == [True]
    assert not server.left_over()


# the client


@pytest.mark.parametrize("kind", ["data set", "predictions"])
def test_what_fails_while_a_client_sends_is_told(client: Client, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def fails(*_: Any) -> None:
        raise KeyError("a fault of the caller's own")

    truth, pred = serving.boxes()
    monkeypatch.setattr(clients, "UNARY_BYTES", 0)
    sends: dict[str, Callable[[], object]] = {
        "data set": lambda: client.upload_dataset("other", truth, progress=fails),
        "predictions": lambda: client.evaluate(pred, dataset="small", progress=fails),
    }
    with pytest.raises(KeyError, match="the caller's own"):
        sends[kind]()


def test_the_time_of_a_run_is_not_after_it() -> None:
    """So that since= this time finds it, and until= does not."""
    message = messages.Evaluation()
    message.create_time.FromNanoseconds(1_764_536_400_123_456_789)
    assert clients._run(message).created.microsecond == 123_456


# the server


def test_the_end_waits_for_what_is_being_kept_and_lets_nothing_in_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Running(tmp_path)
    storage, keep, begun, go_on = server.storage, server.storage.blobs.keep, threading.Event(), threading.Event()
    with server.client() as client:
        client.upload_dataset("small", serving.boxes()[0])

    def slow(upload: Any) -> str:
        begun.set()
        assert go_on.wait(20)
        return keep(upload)

    monkeypatch.setattr(storage.blobs, "keep", slow)
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(1) as threads:
        stream = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(iter(pieces()), timeout=60)
        assert begun.wait(20)
        end = threads.submit(server.stop, 0.0)
        time.sleep(0.5)
        assert not end.done()
        go_on.set()
        end.result(20)
        assert serving.code_of(lambda: list(stream)) == "UNAVAILABLE"
    with pytest.raises(DrainingError, match="stopped"):
        storage.datasets("", 1)
    with pytest.raises(DrainingError, match="stopped"), storage.keeping():
        pass
    reopened = Storage(tmp_path)
    (row,) = reopened.evaluations(Query(), 9, None).rows
    reopened.close()
    assert row["state"] == RUNNING
    assert server.left_over() == []


def test_a_drain_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    """Also where a stream is open all the time, for which gRPC waits first."""
    server = Running(tmp_path)
    with server.client() as client:
        client.upload_dataset("small", serving.boxes()[0])
    os.kill(server.pool.pids()[0], signal.SIGSTOP)
    with accepted(server):
        start = time.monotonic()
        server.stop(drain_s=4.0)
        assert 3.5 < time.monotonic() - start < 7.5


def test_nothing_is_kept_where_its_row_cannot_be_written(server: Running, client: Client) -> None:
    storage = server.storage
    before = sorted(storage.blobs.listed())
    old = storage.blobs.read(before[0])

    def fails() -> None:
        with storage.keeping() as keep:
            keep(b"new")
            keep(old)
            raise FullError("the server's disk is full: nothing was stored")

    with pytest.raises(FullError):
        fails()
    assert sorted(storage.blobs.listed()) == before


def test_an_attempt_is_written_down_where_a_worker_has_it_alone() -> None:
    written: list[int] = []

    def attempt(*, is_kept: bool) -> Attempt:
        written.clear()
        return Attempt(2, written.append, is_kept=is_kept)

    one = attempt(is_kept=True)
    one.begun()
    one.begun()  # by the worker that takes the place of a lost one
    assert written == [3]
    one.let_go()
    one.let_go()
    one.begun()  # too late: the server has let go of it
    assert (written, one.number) == ([3, 2], 2)
    one = attempt(is_kept=False)
    one.begun()
    assert written == [], "there is no row yet"
    one.kept(2)
    assert written == [3], "it began while the row was on its way"
    one = attempt(is_kept=False)
    one.begun()
    one.kept(3)
    assert written == [], "the row was written with it"
    one.let_go()
    assert written == [2]

    def fails(number: int) -> None:
        raise FullError("the server's disk is full: nothing was stored")

    Attempt(0, fails, is_kept=True).begun()  # the evaluation goes on


def test_a_slow_reader_gets_the_latest_and_the_end() -> None:
    running = evaluations.Running(Attempt(0, lambda number: None, is_kept=True))
    queue: asyncio.Queue[Any] = asyncio.Queue()
    running.listeners.append(queue)
    events = [("matching", done, 2) for done in range(3)]
    for event in [*events, None]:
        running.tell(event)
    running.tell(events[0])  # of a thread that had not heard of the end
    assert [queue.get_nowait() for _ in range(queue.qsize())] == [events[-1], None]
    assert running.at == events[-1]


def held(slot: pools._Slot, *arguments: Any) -> Any:
    """A worker that has a job until it is killed."""
    _, _, is_wanted, begun = arguments
    begun()
    serving.wait_until(lambda: slot.is_closed or not is_wanted())
    raise WorkerLostError("killed")


def attempts(folder: Path) -> list[int]:
    storage = Storage(folder)
    try:
        return [row["attempts"] for row in storage.evaluations(Query(descending=False), 9, None).rows]
    finally:
        storage.close()


def test_stops_that_drain_count_against_no_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither against one that waits, nor against one that a worker has."""
    with serving.serving(tmp_path) as server, server.client() as client:
        client.upload_dataset("small", serving.boxes()[0])
    with monkeypatch.context() as patch:
        patch.setattr(pools._Slot, "start", lambda slot: None)
        patch.setattr(pools._Slot, "_call", held)
        server = Running(tmp_path)
        with accepted(server), accepted(server):
            serving.wait_until(lambda: (server.pool.running, server.pool.waiting) == (1, 1))
            server.stop(drain_s=0)
        for _ in range(evaluations.MAX_ATTEMPTS + 1):
            server = Running(tmp_path)
            serving.wait_until(lambda one=server: (one.pool.running, one.pool.waiting) == (1, 1))
            server.stop(drain_s=0)
        assert attempts(tmp_path) == [0, 0]
    with serving.serving(tmp_path) as server, server.client() as client:
        serving.wait_until(lambda: not server.server._evaluations._running)
        assert [run.state for run in client.evaluations()] == ["succeeded", "succeeded"]


def test_a_kill_counts_against_what_a_worker_had_alone(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    process = Process(folder)
    with Client(process.address) as client:
        client.upload_dataset("small", serving.boxes()[0])
    (started,) = [line for line in Path(f"{folder}.log").read_text().splitlines() if '"started"' in line]
    (pid,) = json.loads(started)["workers"]
    os.kill(pid, signal.SIGSTOP)
    with grpc.insecure_channel(process.address) as channel:
        call = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")
        for _ in range(2):
            next(call(iter(pieces()), timeout=60))
        serving.wait_until(lambda: attempts_now(folder) == [1, 0])
        process.kill()
    assert attempts(folder) == [1, 0]


def attempts_now(folder: Path) -> list[int]:
    """While a server has the folder."""
    with closing(sqlite3.connect(folder / "detmetrics.db")) as database:
        return [row[0] for row in database.execute("SELECT attempts FROM evaluations ORDER BY seq")]


def test_a_start_that_fails_counts_against_no_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving.serving(tmp_path) as server, server.client() as client:
        client.upload_dataset("small", serving.boxes()[0])
    monkeypatch.setattr(pools._Slot, "start", lambda slot: None)
    monkeypatch.setattr(pools._Slot, "_call", held)
    server = Running(tmp_path)
    with accepted(server):
        serving.wait_until(lambda: server.pool.running)
        server.stop(drain_s=0)

    async def fails(server: Any) -> None:
        await asyncio.sleep(0.3)  # what was left is at work by then
        raise RuntimeError("no start")

    monkeypatch.setattr(type(server.server._server), "start", fails)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no start"):
            Running(tmp_path)
        assert attempts(tmp_path) == [0]
