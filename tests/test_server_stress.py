"""Callers who go at every stage, workers that die, threads that are busy, a server that stops; then what must hold."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import detmetrics as dm

pytest.importorskip("grpc", reason="detmetrics[server] is not installed")

import grpc

import serving
from detmetrics_server import client as clients
from detmetrics_server import convert, messages
from detmetrics_server.storage import Query, Storage
from serving import DATASETS, EVALUATIONS, Running

#: How a call may end that is cut short; anything else is a fault of the server.
ENDS = {
    *("OK", "CANCELLED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "FAILED_PRECONDITION"),
    *("ALREADY_EXISTS", "NOT_FOUND", "UNAVAILABLE"),
}


class Material:
    """What is uploaded: two kinds of predictions, and what they score."""

    def __init__(self, folder: Path) -> None:
        self.truth, self.pred = serving.boxes()
        dm.io.nuscenes.write_results(self.pred, folder / "results.json")
        json_gz = gzip.compress((folder / "results.json").read_bytes())
        told = {"format": messages.NUSCENES_JSON, "compression": messages.GZIP, "file_name": "results.json.gz"}
        self.uploads: dict[str, tuple[bytes, dict[str, Any]]] = {
            "columns": (convert.to_bytes(self.pred), {"format": messages.COLUMNS}),
            "json.gz": (json_gz, told),
        }
        self.scores = {
            "columns": dm.evaluate(self.truth, self.pred, dm.NUSCENES),
            "json.gz": dm.evaluate(self.truth, dm.io.load(folder / "results.json"), dm.NUSCENES),
        }

    @cached_property
    def truth_bytes(self) -> bytes:
        return convert.to_bytes(self.truth)


class Caller:
    """Calls of every kind, each ended early at a moment drawn by lot."""

    def __init__(self, material: Material, address: str, seed: int, until: float, accepted: set[str]) -> None:
        self.material, self.address, self.until, self.accepted = material, address, until, accepted
        self.rng = random.Random(seed)
        self.codes: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self) -> None:
        while time.monotonic() < self.until:
            with grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                for _ in range(self.rng.randint(1, 6)):
                    self.one(channel)

    def one(self, channel: Any) -> None:
        rng = self.rng
        timeout = rng.choice([30.0, rng.uniform(0, 0.05), rng.uniform(0, 0.5), rng.uniform(0, 2)])
        make = rng.choice([self.stream, self.stream, self.stream, self.unary, self.dataset, self.again, self.compare])
        call = make(channel, timeout)
        if call is None:
            return
        if rng.random() < 0.75:
            threading.Timer(
                rng.choice([rng.uniform(0, 0.03), rng.uniform(0, 0.3), rng.uniform(0, 1)]), call.cancel
            ).start()
        try:
            if make == self.stream:
                for data in call:
                    self.told(messages.parse("EvaluateStreamResponse", data))
            else:
                call.result()
            self.codes["OK"] += 1
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            code = error.code().name if isinstance(error, grpc.RpcError) else "CANCELLED"
            self.codes[code] += 1
            if code not in ENDS:
                self.faults.append(f"{make.__name__}: {error}")

    def told(self, event: Any) -> None:
        if event.WhichOneof("event") == "accepted":
            self.accepted.add(event.accepted.name)
        if event.WhichOneof("event") == "evaluation" and event.evaluation.state == messages.RUNNING:
            self.faults.append("a stream that ended with an evaluation that had not")

    def parts(self, name: str, header: Any, data: bytes) -> Iterator[bytes]:
        """Some of the parts of an upload, or all; then the end, at once or late."""
        n_parts, pause = self.rng.choice([1, 2, 3, 3, 3, 3]), self.rng.choice([0, 0.02])
        for part in list(clients._parts(name, header, data, None))[:n_parts]:
            time.sleep(pause)
            yield part
        if n_parts < 3:
            time.sleep(self.rng.choice([0, 0.2, 1]))

    def stream(self, channel: Any, timeout: float) -> Any:
        kind = self.rng.choice(sorted(self.material.uploads))
        data, more = self.material.uploads[kind]
        if self.rng.random() < 0.2:
            more = {**more, "bootstrap": {"draws": self.rng.choice([5, 2000])}}
        told = {"dataset": "datasets/small", "display_name": kind, "request_id": uuid.uuid4().hex, **more}
        parts = self.parts("EvaluateStreamRequest", messages.twin("EvaluateHeader")(**told), data)
        return channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(parts, timeout=timeout)

    def unary(self, channel: Any, timeout: float) -> Any:
        told = {"dataset": "datasets/small", "display_name": "columns", "request_id": uuid.uuid4().hex}
        request = messages.twin("EvaluateRequest")(predictions=[self.material.uploads["columns"][0]], **told)
        return channel.unary_unary(f"{EVALUATIONS}/Evaluate").future(request.SerializeToString(), timeout=timeout)

    def dataset(self, channel: Any, timeout: float) -> Any:
        header = messages.twin("DatasetHeader")(dataset_id=f"x{uuid.uuid4().hex[:8]}", format=messages.COLUMNS)
        parts = self.parts("UploadDatasetRequest", header, self.material.truth_bytes)
        return channel.stream_unary(f"{DATASETS}/UploadDataset").future(parts, timeout=timeout)

    def again(self, channel: Any, timeout: float) -> Any:
        """Cancel, delete or get one that was accepted."""
        names = sorted(self.accepted)
        if not names:
            return None
        name, method = self.rng.choice(names), self.rng.choice(["Cancel", "Cancel", "Delete", "Get"])
        if method == "Delete":
            self.accepted.discard(name)
        request = messages.twin(f"{method}EvaluationRequest")(name=name).SerializeToString()
        return channel.unary_unary(f"{EVALUATIONS}/{method}Evaluation").future(request, timeout=timeout)

    def compare(self, channel: Any, timeout: float) -> Any:
        names = sorted(self.accepted)
        if len(names) < 2:
            return None
        baseline, candidate = self.rng.sample(names, 2)
        draws = self.rng.choice([5, 2000])
        request = messages.twin("CompareEvaluationsRequest")(baseline=baseline, candidate=candidate, draws=draws)
        method = f"{EVALUATIONS}/CompareEvaluations"
        return channel.unary_unary(method).future(request.SerializeToString(), timeout=timeout)


def trouble(server: Running, seed: int, until: float) -> None:
    """Kill workers and keep threads busy."""
    rng = random.Random(seed)

    def jam() -> None:
        for _ in range(rng.randint(4, 12)):
            server.loop.run_in_executor(None, time.sleep, rng.uniform(0.01, 0.25))

    while time.monotonic() < until:
        time.sleep(rng.uniform(0.02, 0.5))
        pids = server.pool.pids()
        if rng.random() < 0.5 and pids:
            with suppress(ProcessLookupError):  # another is on its way
                os.kill(rng.choice(pids), signal.SIGKILL)
        elif not server.loop.is_closed():
            server.loop.call_soon_threadsafe(jam)


def check_rest(server: Running) -> None:
    """Nothing is left of any call: no file, no byte that counts, no place taken; and every worker is free again."""
    core, pool = server.server.core, server.pool
    serving.wait_until(lambda: pool.running == pool.waiting == 0, 90)
    serving.wait_until(lambda: core.n_receiving == {False: 0, True: 0} and not core.calls)
    serving.wait_until(lambda: not server.left_over())
    assert (core.spool_bytes, core.pending_bytes) == (0, 0)
    serving.wait_until(lambda: pool._free.qsize() == len(pool._slots))


def check_storage(folder: Path, material: Material, accepted: set[str]) -> Counter[int]:
    """Every row has ended, with the right scores or a reason; every accepted one is there, and every blob is of a row."""
    storage = Storage(folder)
    try:
        rows = storage.evaluations(Query(), 10**6, None).rows
        for row in rows:
            assert row["state"] in (messages.SUCCEEDED, messages.FAILED, messages.CANCELLED), row
            if row["state"] == messages.FAILED:
                assert "worker process of the server was lost" in row["error"], row
            if row["state"] == messages.SUCCEEDED:
                scores = convert.to_scores(messages.parse("Scores", storage.blobs.read(row["report"])))
                serving.same(scores, material.scores[row["display_name"]])
        assert accepted <= {f"evaluations/{row['id']}" for row in rows}
        named = {row[key] for row in rows for key in ("sha256", "report")} - {None, ""}
        assert set(storage.blobs.listed()) == named | {row["sha256"] for row in storage.datasets("", 10**6)}
        return Counter(row["state"] for row in rows)
    finally:
        storage.close()


def hard(folder: Path, seed: int, seconds: float, *, stops: bool) -> tuple[Counter[str], Counter[int]]:
    """Give how the calls and the evaluations ended."""
    material, rng = Material(folder), random.Random(seed)
    store = folder / "store"
    server = Running(store, workers=2, timeout_s=60)
    with server.client() as client:
        client.upload_dataset("small", material.truth)
    until, accepted = time.monotonic() + seconds, set[str]()
    callers = [Caller(material, server.address, 1000 * seed + i, until, accepted) for i in range(12)]
    with ThreadPoolExecutor(len(callers) + 1) as threads:
        work = [threads.submit(caller.run) for caller in callers]
        last = threads.submit(trouble, server, seed, until if not stops else until - 0.7 * seconds)
        if stops:
            time.sleep(seconds * rng.uniform(0.3, 0.8))
            last.result()
            server.do(server.server.stop(rng.choice([0, 0.05, 0.5])))
            assert server.left_over() == []
            tasks = asyncio.run_coroutine_threadsafe(all_tasks(), server.loop).result(10)
            assert not [task for task in tasks if "detmetrics_server" in task]
            second = Running(store, workers=2)  # at once, while the first one's callers still call
        for one in (*work, last):
            one.result()
    if stops:
        server.loop.call_soon_threadsafe(server.loop.stop)
        server.thread.join()
        server.loop.close()
        server = second
    serving.wait_until(lambda: not server.server._evaluations._running, 90)
    check_rest(server)
    with server.client() as client:
        found = client.evaluate(material.pred, dataset="small", name="columns")
        serving.same(found.scores, material.scores["columns"])
    server.stop()
    assert not [fault for caller in callers for fault in caller.faults]
    return sum((caller.codes for caller in callers), Counter()), check_storage(store, material, accepted)


async def all_tasks() -> list[str]:
    return [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@pytest.mark.parametrize("stops", [False, True], ids=["goes on", "stops"])
def test_callers_who_go_at_every_stage(tmp_path: Path, stops: bool) -> None:
    calls, rows = hard(tmp_path, 0, 3, stops=stops)
    assert min(calls["OK"], calls["CANCELLED"], rows[messages.SUCCEEDED]) > 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 13))
def test_callers_who_go_at_every_stage_for_longer(tmp_path: Path, seed: int) -> None:
    calls, rows = hard(tmp_path, seed, 20, stops=seed % 2 == 0)
    print(seed, dict(calls), dict(rows))
    assert min(calls["CANCELLED"], calls["DEADLINE_EXCEEDED"], rows[messages.SUCCEEDED]) > 20
    assert rows[messages.CANCELLED]
