"""The service beside the local evaluation: `python tests/bench/server.py [--val] [--memory]`.

Times are wall-clock with the CPU seconds of all processes together beside them, since machines are shared. No time is
printed unless the numbers were equal to the local ones in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import detmetrics as dm
import serving
from detmetrics.synth import make_boxes
from detmetrics_server import convert, messages

METHOD = f"{serving.EVALUATIONS}/Evaluate"
TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: list[int]) -> float:
    """CPU seconds of these processes and this one, ended children included."""
    total = sum(os.times()[:4])
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / TICK
    return total


def timed(call: Callable[[], Any], pids: list[int]) -> tuple[Any, float, float]:
    cpu, start = cpu_s(pids), time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - start, cpu_s(pids) - cpu


def messages_of_boxes() -> None:
    _, pred = make_boxes(n_frames=500, seed=0)
    data = convert.to_bytes(pred)
    there, back, copies = [], [], []
    for _ in range(21):
        start = time.process_time()
        bytes(memoryview(data))
        copies.append(time.process_time() - start)
        start = time.process_time()
        convert.to_bytes(pred)
        middle = time.process_time()
        read = convert.to_boxes(messages.parse("Boxes", data), "pred")
        back.append(time.process_time() - middle)
        there.append(middle - start)
    assert read.digest == pred.digest
    n = len(pred)
    print(
        f"{n:,} boxes to a message {statistics.median(there) * 1e3:.1f} ms CPU, from it {statistics.median(back) * 1e3:.1f} ms CPU; "
        f"one copy of its {len(data) / 1e6:.1f} MB {statistics.median(copies) * 1e3:.1f} ms (writing takes one, reading two)"
    )


def small(folder: Path, durable: bool) -> None:
    truth, pred = make_boxes(n_frames=81, boxes_per_sample=86, seed=0)
    server = serving.Process(folder / "small", environment={"DETMETRICS_SERVER_DURABLE": str(durable).lower()})
    pids = [server.process.pid, *_children(server.process.pid)]
    local = dm.evaluate(truth, pred, dm.NUSCENES)
    local.signature  # noqa: B018
    alone = []
    for _ in range(50):
        start = time.perf_counter()
        one = dm.evaluate(truth, pred.replace(), dm.NUSCENES)
        one.signature  # noqa: B018
        alone.append(time.perf_counter() - start)
    with serving.Client(server.address) as client:
        client.upload_dataset("mini", truth)
        serving.same(local, client.evaluate(pred, dataset="mini").scores)
        for what, call in {
            "stored": lambda: client.evaluate(pred, dataset="mini"),
            "stateless": lambda: client.evaluate(pred, truth=truth),
        }.items():
            for _ in range(10):
                call()
            wall = sorted(timed(call, pids)[1] for _ in range(100))
            cpu = timed(lambda: [call() for _ in range(20)], pids)[2] / 20  # noqa: B023
            print(
                f"{len(pred):,} boxes, one client, {what}: median {wall[50] * 1e3:.1f} ms, p90 {wall[90] * 1e3:.1f} ms, CPU {cpu * 1e3:.1f} ms"
            )
    print(f"  the local evaluation in the same run: median {statistics.median(alone) * 1e3:.1f} ms")
    request = messages.twin("EvaluateRequest")(
        dataset="datasets/mini", predictions=[convert.from_boxes(pred).SerializeToString()]
    )
    cpu, (n, seconds, failed) = cpu_s(pids), asyncio.run(_many(server.address, request, 64, 400))
    print(
        f"64 clients: {n / seconds:.1f} a second, {failed} failed, CPU {(cpu_s(pids) - cpu) / n * 1e3:.1f} ms each, durable {durable}"
    )
    server.kill()


async def _many(address: str, request: Any, n_clients: int, n_calls: int) -> tuple[int, float, int]:
    left = iter(range(n_calls))
    failed = 0
    data = request.SerializeToString()
    extra = messages.twin("EvaluateRequest")

    async def client() -> None:
        nonlocal failed
        async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = channel.unary_unary(METHOD)
            for _ in left:
                try:
                    await call(data + extra(request_id=uuid.uuid4().hex).SerializeToString())
                except grpc.RpcError as error:
                    print(error.code(), error.details())
                    failed += 1

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(n_clients)))
    return n_calls, time.perf_counter() - start, failed


def _children(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def write_new(path: Path, size: int) -> None:
    """Write to a new file: what any upload costs at least.

    On a virtual machine that hands free memory back, memory of the first touch is slow (here 0.4 GB/s against 5). Where
    the file is deleted just before, the machine holds as much memory: what a machine that is not shared always does.
    """
    piece = bytes(1 << 20)
    with open(path, "xb", buffering=0) as file:
        for _ in range(size >> 20):
            file.write(piece)


def val(folder: Path) -> None:
    truth, pred = make_boxes(n_frames=6000, seed=0)
    dm.io.nuscenes.write_results(pred, folder / "val.json")
    dm.io.parquet.write(pred, folder / "val.parquet")
    server = serving.Process(folder / "val", "--workers", "2", environment={"DETMETRICS_SERVER_DURABLE": "true"})
    pids = [server.process.pid, *_children(server.process.pid)]
    slow: list[float] = []
    done = threading.Event()

    def ask_health() -> None:
        with grpc.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            health.Check(health_pb2.HealthCheckRequest())
            while not done.is_set():
                start = time.perf_counter()
                health.Check(health_pb2.HealthCheckRequest())
                slow.append(time.perf_counter() - start)
                time.sleep(0.005)

    with serving.Client(server.address) as client:
        client.upload_dataset("val", truth)
        for path in (folder / "val.json", folder / "val.parquet"):

            def local(path: Path = path) -> dm.Scores:
                scores = dm.evaluate(truth, dm.io.load(path), dm.NUSCENES)
                scores.signature  # noqa: B018
                return scores

            def remote(path: Path = path) -> dm.Scores:
                return client.evaluate(path, dataset="val", protocol=dm.NUSCENES).scores

            local(), remote()
            pairs: dict[str, list[tuple[float, ...]]] = {"any": [], "held": []}
            for memory_is in ("any", "held") * 3:
                mine, wall, cpu = timed(local, [])
                scratch = folder / "scratch"
                write_s = timed(lambda: write_new(scratch, path.stat().st_size), [])[1]  # noqa: B023
                if memory_is == "held":
                    scratch.unlink()
                theirs, wall_there, cpu_there = timed(remote, pids)
                scratch.unlink(missing_ok=True)
                serving.same(mine, theirs)
                pairs[memory_is].append((wall_there - wall, wall, wall_there, cpu, cpu_there, write_s))
            print(f"{path.name} ({path.stat().st_size / 1e6:.0f} MB, {len(pred):,} boxes):")
            for memory_is, rows in pairs.items():
                over, wall, wall_there, cpu, cpu_there, write_s = sorted(rows)[1]
                print(
                    f"  memory {memory_is:4}: local {wall:.2f} s (CPU {cpu:.2f}), service {wall_there:.2f} s (CPU {cpu_there:.2f}), "
                    f"over {over:+.2f} s; writing as many bytes to a new file alone: {write_s:.2f} s"
                )
        thread = threading.Thread(target=ask_health)
        thread.start()
        remote(folder / "val.json")
        done.set()
        thread.join()
    slow.sort()
    print(
        f"health while it runs: {len(slow)} checks, median {slow[len(slow) // 2] * 1e3:.1f} ms, p99 {slow[int(len(slow) * 0.99)] * 1e3:.1f} ms"
    )
    server.kill()


def memory(folder: Path, n: int) -> None:
    truth, pred = make_boxes(n_frames=81, boxes_per_sample=86, seed=0)
    server = serving.Process(folder / "memory")
    pids = [server.process.pid, *_children(server.process.pid)]
    seen = []
    with serving.Client(server.address) as client:
        client.upload_dataset("mini", truth)
        for i in range(n + 1):
            client.evaluate(pred, dataset="mini")
            if i % (n // 10) == 0:
                seen.append([int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4 // 1024 for pid in pids])
    print(f"resident MiB of server and worker over {n:,} submissions: {' '.join(f'{a}+{b}' for a, b in seen)}")
    server.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--val", action="store_true", help="also at the size of nuScenes val")
    parser.add_argument("--memory", type=int, default=0, metavar="N", help="also watch the memory over N submissions")
    arguments = parser.parse_args()
    print("load", os.getloadavg(), "cores", os.cpu_count())
    with tempfile.TemporaryDirectory() as name:
        messages_of_boxes()
        small(Path(name), durable=True)
        if arguments.val:
            val(Path(name))
        if arguments.memory:
            memory(Path(name), arguments.memory)
