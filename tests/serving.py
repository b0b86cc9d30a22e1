"""Servers for tests: in this process on a thread of their own, or as a process to kill."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import grpc

import detmetrics as dm
from detmetrics.synth import make_boxes
from detmetrics_server import messages
from detmetrics_server.client import Client
from detmetrics_server.service import Server
from detmetrics_server.settings import Settings

PACKAGE = messages.PACKAGE
EVALUATIONS, DATASETS, INFO = (f"/{PACKAGE}.{name}" for name in messages.SERVICES)


class Running:
    """A server on a thread."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        given = {"storage": str(folder), "address": "127.0.0.1:0", "workers": 1, "durable": False}
        self.settings = Settings(**{**given, **settings})
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = Server(self.settings)
        self.do(self.server.start())

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def storage(self) -> Any:
        return self.server.core.storage

    @property
    def pool(self) -> Any:
        return self.server.core.pool

    def client(self, **more: Any) -> Client:
        return Client(self.address, **{"patience_s": 0.0, **more})

    def left_over(self) -> list[str]:
        """Files in the spool."""
        return [path.name for path in self.storage.blobs.spool.iterdir()]

    def stop(self, drain_s: float = 5.0) -> None:
        self.do(self.server.stop(drain_s))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Running]:
    running = Running(folder, **settings)
    try:
        yield running
    finally:
        running.stop()


class Process:
    """A server as a process, through the command line."""

    def __init__(self, folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "detmetrics", "serve", "--storage", str(folder)]
        self.process = subprocess.Popen(
            [
                *command,
                "--address",
                "127.0.0.1:0",
                *([] if "--workers" in arguments else ["--workers", "1"]),
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=open(f"{folder}.log", "ab"),  # noqa: SIM115  goes with the process
            env={**os.environ, "DETMETRICS_SERVER_DURABLE": "false", **(environment or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("serving on "), Path(f"{folder}.log").read_text()[-3000:]
        self.address = line.split()[-1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def code_of(call: Any) -> str:
    """Name of the status code that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def raw(channel: Any, method: str, data: bytes = b"", token: str = "", timeout: float = 30.0) -> bytes:
    """Make a call with bytes as they are, of whatever kind the method is."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    options = {"metadata": metadata, "timeout": timeout}
    if method.endswith("/EvaluateStream"):
        return list(channel.stream_stream(method)(iter([data]), **options))[-1]
    if method.endswith("/UploadDataset"):
        return channel.stream_unary(method)(iter([data]), **options)
    return channel.unary_unary(method)(data, **options)


def upload(channel: Any, parts: list[bytes]) -> list[bytes]:
    """Evaluate an upload, part by part as given."""
    return list(channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(iter(parts), timeout=20))


def wait_until(what: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


@cache
def boxes(n_frames: int = 20, boxes_per_sample: int = 20, seed: int = 0) -> tuple[dm.Boxes, dm.Boxes]:
    """A small data set with scenes."""
    return make_boxes(n_frames=n_frames, seed=seed, samples_per_scene=5, boxes_per_sample=boxes_per_sample)


def same(mine: dm.Scores, theirs: dm.Scores) -> None:
    """Every number, to the last bit."""
    import numpy as np

    for name in ("ap", "class_errors", "precision", "confidence", "error_curves", "n_truth", "n_pred"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    assert mine.composite == theirs.composite
    assert mine.mean_ap == theirs.mean_ap
    assert list(map(repr, mine.tp_errors.items())) == list(map(repr, theirs.tp_errors.items()))
    assert mine.signature == theirs.signature
    assert mine.notes == theirs.notes


def same_intervals(mine: dm.Bootstrap, theirs: dm.Bootstrap | None) -> None:
    """Every interval, and all that is printed with it, to the last bit."""
    assert isinstance(theirs, dm.Bootstrap)
    assert mine.names == theirs.names
    for name, one in mine:
        assert repr(one) == repr(theirs[name]), name
    same_draws(mine, theirs)
    assert mine.signature == theirs.signature
    assert str(mine) == str(theirs)


def same_comparison(mine: dm.Comparison, theirs: dm.Comparison) -> None:
    """Every difference, and all that is printed with it, to the last bit."""
    assert isinstance(theirs, dm.Comparison)
    assert mine.names == theirs.names
    for name, one in mine:
        assert repr(one) == repr(theirs[name]), name
    same_draws(mine, theirs)
    assert mine.signatures == theirs.signatures
    assert mine.slice == theirs.slice
    assert str(mine) == str(theirs)


def same_draws(mine: Any, theirs: Any) -> None:
    assert len(mine.replicates) == len(theirs.replicates)
    assert mine.n_units.tolist() == theirs.n_units.tolist()
    for name in ("protocol", "level", "method", "unit", "notes", "seed"):
        assert getattr(mine, name) == getattr(theirs, name), name
