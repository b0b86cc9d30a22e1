"""A server as a process: the command line, the end of it by signal and by kill, TLS, and clients in other languages."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import detmetrics as dm

pytest.importorskip("grpc", reason="detmetrics[server] is not installed")

import serving
from detmetrics.errors import DetmetricsError
from detmetrics_server.client import Client
from serving import Process
from test_docs import DOCS, blocks

ROOT = Path(__file__).resolve().parent.parent
BUF = shutil.which("buf", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "detmetrics", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("server")
    process = Process(folder / "storage")
    yield process
    process.kill()


def test_the_command_line(server: Process, tmp_path: Path) -> None:
    truth, pred = serving.boxes()
    dm.io.parquet.write(truth, tmp_path / "truth.parquet")
    dm.io.nuscenes.write_results(pred, tmp_path / "results.json")
    done = command("upload-dataset", "small", "--truth", str(tmp_path / "truth.parquet"), "--server", server.address)
    assert done.returncode == 0, done.stderr
    assert "small: " in done.stdout
    arguments = (
        str(tmp_path / "results.json"),
        "--server",
        server.address,
        "--dataset",
        "small",
        "--name",
        "mine",
        "--tag",
        "nightly",
    )
    done = command("submit", *arguments, "--json", str(tmp_path / "scores.json"))
    assert done.returncode == 0, done.stderr
    local = dm.evaluate(truth, dm.io.load(tmp_path / "results.json"), dm.NUSCENES)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["nd_score"] == local.nds
    assert written["signature"] == local.signature
    assert f"{local.nds:.4f}" in done.stdout
    assert written["evaluation"] in done.stdout
    with Client(server.address) as client:
        assert client.get(written["evaluation"]).tags == ("nightly",)
    assert "intervals" not in written
    done = command("submit", *arguments[:3], "--dataset", "other")
    assert done.returncode == 2
    assert "there is no data set 'other'" in done.stderr


def test_the_same_tables_here_and_there(server: Process, tmp_path: Path) -> None:
    """What submit and compare --server print and write is what evaluate and compare print and write."""
    truth, pred = serving.boxes()
    dm.io.parquet.write(truth, tmp_path / "truth.parquet")
    dm.io.parquet.write(pred, tmp_path / "good.parquet")
    dm.io.parquet.write(pred.replace(center_m=pred.center_m + 0.3), tmp_path / "worse.parquet")
    (tmp_path / "gate.toml").write_text(
        'n = 40\nseed = 1\n[[rule]]\nmetric = "NDS"\n[[rule]]\nmetric = "mAP"\nsignificant = false\nslice = "range=0-20"\n'
    )
    there, here = ("--server", server.address), ("--truth", str(tmp_path / "truth.parquet"))
    drawn = ("--bootstrap", "30", "--unit", "frame", "--seed", "2", "--json", str(tmp_path / "out.json"))
    done = command("upload-dataset", "cli", *here, *there)
    assert done.returncode == 0, done.stderr

    def outputs(*arguments: str, code: int = 0) -> tuple[str, Any]:
        done = command(*arguments, COLUMNS="160")
        assert done.returncode == code, done.stderr
        written = json.loads((tmp_path / "out.json").read_text())
        written.pop("eval_time", None)
        return done.stdout, written

    for name in ("good", "worse"):
        results = str(tmp_path / f"{name}.parquet")
        remote, told = outputs("submit", results, *there, "--dataset", "cli", "--name", name, *drawn)
        local, expected = outputs("evaluate", results, *here, *drawn)
        assert told.pop("evaluation") == remote.splitlines()[-1]
        assert remote.splitlines()[:-1] == local.splitlines()
        assert len(told["intervals"]["rows"]) == 67
        assert told == expected
    files = [str(tmp_path / f"{name}.parquet") for name in ("good", "worse")]
    pages = [tmp_path / "out.json", tmp_path / "out.md"]
    more = ("--by", "range=0,20,40", "--json", str(pages[0]), "--markdown", str(pages[1]))
    for extra, code in ((("-n", "40"), 0), (("--gate", str(tmp_path / "gate.toml"), "--seed", "0"), 3)):
        remote, told = outputs("compare", "good", "worse", *there, "--dataset", "cli", *more, *extra, code=code)
        page = pages[1].read_text()
        local, expected = outputs("compare", *files, *here, *more, *extra, code=code)
        assert remote == local
        assert page == pages[1].read_text()
        assert told == expected
    assert "gate: NOT passed" in remote
    assert expected["seed"] == 0, "a flag wins over the gate"
    same, _ = outputs("compare", "good", "good", *there, *more, "--gate", str(tmp_path / "gate.toml"))
    assert "gate: passed" in same
    for arguments, text in (
        (("compare", "good", "worse", *there, *here), "--truth goes with results, not with --server"),
        (("compare", "good", "worse", *there, "--protocol", "nuscenes"), "--protocol goes with results, not with"),
        (("compare", *files, *here, "--dataset", "cli"), "--dataset goes with --server"),
        (("compare", "good", "worse", *there, "-n", "0"), "--draws must be at least 2, got 0"),
        (("compare", "good", "best", *there), "called 'best' must be one, got 0"),
        (("compare", "evaluations/x", "worse", *there), "baseline must be of the form evaluations/{id}"),
        (("submit", files[0], *there, "--dataset", "cli", "--bootstrap", "1"), "--bootstrap must be 0, or at least 2"),
        (("submit", files[0], *there, "--dataset", "cli", "--bootstrap", "9", "--unit", "log"), "unit 'log' to draw"),
    ):
        done = command(*arguments)
        assert done.returncode == 2, done.stderr
        assert text in done.stderr.replace("\n", " ")


def test_settings_are_printed_without_secrets_and_the_folder_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from detmetrics.cli import app
    from detmetrics_server.watching import LOG

    monkeypatch.setattr(LOG, "handlers", [])

    def here(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, "--storage", str(tmp_path / "x")])

    refused = here("serve", "--address", "0.0.0.0:0")
    assert "must be loopback, or served with --tls-cert" in str(refused.exception)
    assert not (tmp_path / "x").exists()
    log = Path(f"{tmp_path / 'x'}.log")
    process = Process(tmp_path / "x", environment={"DETMETRICS_SERVER_DRAIN_S": "3"})
    try:
        assert "drain_s = 3.0" in log.read_text()
        held = here("serve", "--address", "127.0.0.1:0")
        assert "another server holds" in str(held.exception)
        token = here("token", "add", "ci", "--role", "submitter", "--days", "1").stdout.strip()
        with Client(process.address, token=token) as client:
            assert client.info()["needs_token"]
        assert "ci  submitter until" in here("token", "list").stdout
        assert here("token", "revoke", "ci").exit_code == 0
        assert isinstance(here("token", "revoke", "ci").exception, dm.InputError)
        assert token not in log.read_text()
    finally:
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(20) == 0


def test_a_drain_lets_work_finish(tmp_path: Path) -> None:
    truth, pred = serving.boxes()
    process = Process(tmp_path / "x")
    with Client(process.address, patience_s=0) as client:
        client.upload_dataset("small", truth)
        answers: list[Any] = []
        stages: list[str] = []
        path = tmp_path / "pred.parquet"
        dm.io.parquet.write(pred, path)
        pid = workers_of(process)[0]
        os.kill(pid, signal.SIGSTOP)

        def ask() -> None:
            answers.append(client.evaluate(path, dataset="small", progress=lambda stage, *_: stages.append(stage)))

        def is_refused() -> bool:
            with Client(process.address, patience_s=0) as late, suppress(DetmetricsError):
                late.info()
                return False
            return True

        thread = threading.Thread(target=ask)
        thread.start()
        serving.wait_until(lambda: "waiting" in stages)
        process.process.send_signal(signal.SIGTERM)
        serving.wait_until(is_refused)
        os.kill(pid, signal.SIGCONT)
        thread.join(20)
    assert process.process.wait(20) == 0
    assert answers[0].state == "succeeded"
    serving.wait_until(lambda: not Path(f"/proc/{pid}").exists())


def workers_of(process: Process) -> list[int]:
    children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text().split()
    tasks = Path(f"/proc/{process.process.pid}/task").glob("*/children")
    return sorted({int(pid) for path in tasks for pid in path.read_text().split()} | {int(pid) for pid in children})


def kill_at_random_moments(folder: Path, times: int, seed: int) -> dict[str, int]:
    """Kill the server while it takes uploads, evaluates and writes; look at what is there after each start."""
    rng = random.Random(seed)
    truth, pred = serving.boxes()
    preds = [pred.replace(score=pred.score * (0.5 + 0.1 * i)) for i in range(4)]
    local = [dm.evaluate(truth, one, dm.NUSCENES) for one in preds]
    parquet = folder / "pred.parquet"
    dm.io.parquet.write(preds[0], parquet)
    acknowledged: dict[str, int] = {}
    asked: dict[str, int] = {}
    counts = {"kills": 0, "acknowledged": 0, "resumed or unacknowledged": 0}
    process = Process(folder / "storage")
    with Client(process.address, patience_s=0) as client:
        client.upload_dataset("small", truth)
    for round_ in range(times):
        stop = threading.Event()

        def submit(address: str, number: int, stop: threading.Event = stop) -> None:
            with Client(address, patience_s=0) as client:
                while not stop.is_set():
                    which, request = number % 4, uuid.uuid4().hex
                    asked[request] = which
                    try:
                        source = parquet if which == 0 else preds[which]
                        run = client.evaluate(source, dataset="small", name=str(which), request_id=request)
                        acknowledged[run.name] = which
                        del asked[request]
                        if rng.random() < 0.2:
                            client.upload_dataset(f"d{uuid.uuid4().hex}", truth.take(truth.frames[:3]))
                    except DetmetricsError:
                        return
                    number += 1

        threads = [threading.Thread(target=submit, args=(process.address, i)) for i in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.02, 0.5))
        process.kill()
        stop.set()
        for thread in threads:
            thread.join()
        counts["kills"] += 1
        process = Process(folder / "storage")
        with Client(process.address) as client:
            serving.wait_until(
                lambda c=client: not any(run.state == "running" for run in c.evaluations(page_size=1000)), 60
            )
            for request, which in list(asked.items())[-3:]:  # who lost the answer asks again
                sources = [parquet if which == 0 else preds[which]] * 2
                names = [
                    client.evaluate(one, dataset="small", name=str(which), request_id=request).name for one in sources
                ]
                assert names[0] == names[1]
            asked.clear()
            runs = {run.name: run for run in client.evaluations(page_size=1000)}
            assert set(acknowledged) <= set(runs), f"round {round_}: an acknowledged evaluation is gone"
            for run in runs.values():
                assert run.state == "succeeded", (round_, run)
            newest = list(runs)[:20] if round_ < times - 1 else list(runs)
            for name in newest:
                serving.same(local[int(runs[name].display_name)], client.get(name).scores)
    process.kill()
    from detmetrics_server.storage import Query, Storage

    storage = Storage(folder / "storage")
    storage.sweep()
    named = {row["sha256"] for row in storage.datasets("", 10**6)}
    page = storage.evaluations(Query(), 10**6, None)
    named |= {row[key] for row in page.rows for key in ("sha256", "report")}
    assert set(storage.blobs.listed()) == named, "blobs and rows agree"
    assert not list(storage.blobs.spool.iterdir())
    storage.close()
    counts["acknowledged"] = len(acknowledged)
    counts["resumed or unacknowledged"] = len(page.rows) - len(acknowledged)
    return counts


def test_kill_at_a_few_random_moments(tmp_path: Path) -> None:
    assert kill_at_random_moments(tmp_path, 2, seed=0)["kills"] == 2


@pytest.mark.soak
def test_kill_at_two_hundred_random_moments(tmp_path: Path) -> None:
    print(kill_at_random_moments(tmp_path, 200, seed=1))


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A small disk of its own: what was acknowledged stays, what was refused leaves nothing, and room helps."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    truth, pred = serving.boxes()
    local = dm.evaluate(truth, pred, dm.NUSCENES)
    try:
        process = Process(disk / "x")
        kept = []
        with Client(process.address, patience_s=0) as client:
            client.upload_dataset("small", truth)

            def fill() -> None:
                for i in range(100):
                    one = pred.replace(score=pred.score * (1 - i / 200))
                    kept.append(client.evaluate(one, dataset="small").name)

            with pytest.raises(DetmetricsError, match="disk is full"):
                fill()
            assert len(kept) > 1
            assert {run.name for run in client.evaluations()} == set(kept)
            serving.same(local, client.get(kept[0]).scores)
        process.kill()
        process = Process(disk / "x")
        with Client(process.address, patience_s=0) as client:
            serving.same(local, client.get(kept[0]).scores)
            for name in kept[1:]:
                client.delete(name)
            assert client.evaluate(pred, dataset="small").state == "succeeded"
        process.kill()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_tls_and_token(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([openssl, *request, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    assert ssl.create_default_context(cafile=str(cert))
    settings = {"address": "0.0.0.0:0", "tls_cert": str(cert), "tls_key": str(key)}
    truth, pred = serving.boxes()
    with serving.serving(tmp_path / "x", **settings) as server:
        token = server.storage.add_token("me", "admin")
        address = f"localhost:{server.server.port}"
        with Client(address, token=token, tls=cert) as client:
            serving.same(dm.evaluate(truth, pred, dm.NUSCENES), client.evaluate(pred, truth=truth))
        with Client(address, tls=cert, patience_s=0) as client, pytest.raises(DetmetricsError, match="valid token"):
            client.info()
        with Client(address, token=token, patience_s=0) as client, pytest.raises(DetmetricsError):
            client.info()


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "grpc.py").write_text("raise ModuleNotFoundError('no', name='grpc')")
    done = command("submit", "x.json", "--dataset", "a", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "pip install 'detmetrics[client]'" in done.stderr
    done = command("serve", "--storage", str(tmp_path / "x"), PYTHONPATH=str(tmp_path))
    assert "pip install 'detmetrics[server]'" in done.stderr


PAGE = blocks(DOCS / "server.md")
(REQUEST_TEXT,) = [block.text for block in PAGE if block.language == "json"]
(JS,) = [block.text for block in PAGE if block.language == "js"]
(CURL,) = [block.text for block in PAGE if block.text.startswith("buf curl")]
REQUEST = json.loads(REQUEST_TEXT)


def local_nds() -> float:
    names = {"centerM": "center_m", "sizeLwhM": "size_lwh_m", "yawRad": "yaw_rad"}
    sides = []
    for side in REQUEST.values():
        values = {names.get(key, key): value for key, value in side.items()}
        values |= {key: [values[key]] for key in ("center_m", "size_lwh_m")}
        sides.append(dm.Boxes(**values))
    return dm.evaluate(*sides, dm.NUSCENES).nds


@pytest.mark.skipif(BUF is None, reason="buf is not installed (buf-bin)")
@pytest.mark.parametrize("schema", ["reflection", "files"])
def test_buf_curl_of_the_page(server: Process, tmp_path: Path, schema: str) -> None:
    assert BUF is not None
    (tmp_path / "request.json").write_text(REQUEST_TEXT)
    words = CURL.replace("localhost:50051", server.address).split()
    assert words[:2] == ["buf", "curl"]
    words[2:2] = ["--schema", str(ROOT / "proto")] if schema == "files" else []
    done = subprocess.run([BUF, *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluation"]["metrics"]["NDS"] == local_nds()


def test_the_node_client_of_the_page(server: Process, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node and npm are not installed")
    install = [npm, "install", "--silent", "--no-audit", "--no-fund", "@grpc/grpc-js@1", "@grpc/proto-loader@0.8"]
    try:
        done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not answer")
    if done.returncode:
        pytest.skip(f"npm cannot install: {done.stderr[-200:]}")
    (tmp_path / "request.json").write_text(REQUEST_TEXT)
    (tmp_path / "proto").symlink_to(ROOT / "proto")
    (tmp_path / "client.js").write_text(JS.replace("localhost:50051", server.address))
    done = subprocess.run([node, "client.js"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == local_nds()


def test_prometheus(tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving.serving(tmp_path, metrics_address=f"127.0.0.1:{port}") as server, server.client() as client:
        client.info()
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert 'detmetrics_calls_total{code="OK",method="/detmetrics.v1.ServerService/GetServerInfo"} 1.0' in text
    assert "detmetrics_waiting 0.0" in text


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to do with freed memory")
def test_freed_memory_is_kept_for_the_next_request() -> None:
    """A process that serves takes the pages of a message from the system once, not for each one anew."""
    code = """if True:
        import resource, sys
        from detmetrics_server.heap import keep_freed
        if sys.argv[1] == "kept":
            keep_freed()
        for i in range(60):
            if i == 10:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            pieces = [bytes(b"x" * (700 << 10)) for _ in range(8)]
            del pieces
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "given back")
    )
    assert kept < 1000 < given_back
