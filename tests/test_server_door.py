"""Who may come in, and what is refused: every method x role x token, malformed requests and uploads."""

from __future__ import annotations

import base64
import gc
import gzip
import hashlib
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import detmetrics as dm
from detmetrics.errors import InputError

pytest.importorskip("grpc", reason="detmetrics[server] is not installed")

import grpc
import sqlalchemy as sa

import serving
from detmetrics_server import access, convert, messages
from detmetrics_server import settings as server_settings
from detmetrics_server.errors import BusyError, ForbiddenError, UnauthenticatedError
from detmetrics_server.storage import ROLES
from serving import DATASETS, EVALUATIONS, INFO, Running

ROOT = Path(__file__).resolve().parent.parent
PROTO = "".join(path.read_text() for path in (ROOT / "proto" / "detmetrics" / "v1").glob("*.proto"))
REFUSED = {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving.serving(tmp_path_factory.mktemp("server"), idle_s=0.5, max_unpacked_bytes=2 << 20) as running:
        with running.client() as client:
            client.upload_dataset("small", serving.boxes()[0])
            client.upload_dataset("two", serving.boxes(n_frames=2, boxes_per_sample=3)[0])
        yield running


@pytest.fixture(scope="module")
def channel(open_server: Running) -> Iterator[Any]:
    with grpc.insecure_channel(open_server.address) as channel:
        yield channel


def test_every_method_role_and_token(tmp_path: Path) -> None:
    methods = [
        f"/{serving.PACKAGE}.{s}/{m.name}"
        for s in messages.SERVICES
        for m in messages.POOL.FindServiceByName(f"{serving.PACKAGE}.{s}").methods
    ]
    assert set(methods) < set(access.NEEDS), "every rpc says who may call it"
    told = re.findall(r"// [^\n]*Role: (\w+)[^\n]*\n  rpc (\w+)", PROTO)
    assert {method.rpartition("/")[2]: access.NEEDS[method] for method in methods} == {rpc: role for role, rpc in told}
    with serving.serving(tmp_path, tokens=True) as server, grpc.insecure_channel(server.address) as channel:
        good = {role: server.storage.add_token(f"a {role}", role) for role in ROLES}
        gone = {role: server.storage.add_token(f"old {role}", role, time.time_ns() - 1) for role in ROLES}
        for method in methods:
            for token in ("", "dm_wrong", "x" * 5000, *gone.values()):
                assert (
                    serving.code_of(lambda m=method, t=token: serving.raw(channel, m, b"", t)) == "UNAUTHENTICATED"
                ), method
            for role in ROLES:
                code = serving.code_of(lambda m=method, r=role: serving.raw(channel, m, b"\xff", good[r]))
                may = ROLES.index(role) >= ROLES.index(access.NEEDS[method])
                assert (code == "INVALID_ARGUMENT") if may else (code == "PERMISSION_DENIED"), (method, role)
        assert (
            serving.code_of(lambda: serving.raw(channel, f"/{serving.PACKAGE}.Other/Call", b"", good["admin"]))
            == "UNIMPLEMENTED"
        )
        assert serving.raw(channel, "/grpc.health.v1.Health/Check") == b"\x08\x01"
        server.storage.delete_token("a reader")
        assert (
            serving.code_of(lambda: serving.raw(channel, f"{INFO}/GetServerInfo", b"", good["reader"]))
            == "UNAUTHENTICATED"
        )
        kept = b"".join(path.read_bytes() for path in tmp_path.glob("detmetrics.db*"))
        assert not [token for token in (*good.values(), *gone.values()) if token.encode() in kept], (
            "tokens are hashed at rest"
        )


def test_only_the_owner_and_admins_delete(tmp_path: Path) -> None:
    truth, pred = serving.boxes()
    with serving.serving(tmp_path) as server:
        tokens = {
            name: server.storage.add_token(name, role)
            for name, role in (("a", "submitter"), ("b", "submitter"), ("root", "admin"))
        }
        with (
            server.client(token=tokens["root"]) as root,
            server.client(token=tokens["a"]) as a,
            server.client(token=tokens["b"]) as b,
        ):
            root.upload_dataset("small", truth)
            run = a.evaluate(pred, dataset="small", request_id="same")
            assert run.owner == "a"
            assert b.evaluate(pred, dataset="small", request_id="same").owner == "b", (
                "request ids are each caller's own"
            )
            for call in (b.delete, b.cancel):
                with pytest.raises(ForbiddenError):
                    call(run.name)
            assert b.get(run.name).scores is not None
            root.delete(run.name)
        with server.client() as nobody, pytest.raises(UnauthenticatedError):
            nobody.info()


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "192.168.1.5:1", "example.org:1"])
def test_other_machines_need_tls_and_tokens(address: str) -> None:
    def load(**more: Any) -> server_settings.Settings:
        return server_settings.load({"storage": "x", "address": address, **more}, environment={})

    with pytest.raises(InputError, match="must be loopback, or served with --tls-cert"):
        load()
    with pytest.raises(InputError, match="served with tokens"):
        load(tls_cert="a", tls_key="b", tokens=False)
    with pytest.raises(InputError, match="both given or none"):
        load(tls_cert="a")
    assert load(tls_cert="a", tls_key="b").needs_token(False)
    assert not load(insecure=True).needs_token(False)
    assert load(insecure=True).needs_token(True)


def test_settings_come_from_flags_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('storage = "file"\nworkers = 3\nmax_waiting = 7\n')
    environment = {"DETMETRICS_SERVER_WORKERS": "5", "DETMETRICS_SERVER_DATABASE_URL": "postgresql://me:secret@host/db"}
    found = server_settings.load({"storage": "flag", "workers": None}, file=file, environment=environment)
    assert (found.storage, found.workers, found.max_waiting) == ("flag", 5, 7)
    assert "secret" not in found.to_text()
    assert "host/db" in found.to_text()
    for wrong, text in (
        ({"storage": "x", "colour": "red"}, "colour"),
        ({"storage": "x", "workers": "many"}, "workers"),
        ({}, "storage"),
    ):
        with pytest.raises(InputError, match=text):
            server_settings.load(wrong, environment={})
    file.write_text("storage = ")
    with pytest.raises(InputError, match="is not TOML"):
        server_settings.load({}, file=file, environment={})


@pytest.mark.parametrize("name", ["workers", "drain_s", "cache_bytes", "worker_memory_bytes"])
def test_settings_below_nothing_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} must be at least 0, got -1"):
        server_settings.Settings(storage="x", **{name: -1})
    server_settings.Settings(storage="x", **{name: 0})


def test_settings_are_printed_as_they_can_be_read(tmp_path: Path) -> None:
    given = server_settings.Settings(storage='a "b"\\ é', workers=3, idle_s=0.5, max_waiting=1000, durable=False)
    file = tmp_path / "server.toml"
    for whole in (given, server_settings.Settings(storage="x", tokens=True, database_url="sqlite:///x.db")):
        file.write_text(whole.to_text())
        assert server_settings.load({}, file=file, environment={}) == whole
    assert "max_message_bytes = 33_554_432  # 32 MiB" in given.to_text()
    for url in (
        "postgresql://me:secret@host/db",
        "postgresql://host/db?user=me&password=secret",
        "x://a@b:secret@host/db",
    ):
        text = server_settings.Settings(storage="x", database_url=url).to_text()
        assert "secret" not in text
        assert "host/db" in text


@pytest.mark.parametrize(
    "url", ["postgresql://me:se?cret@host/db", "postgresql://host/db?user=me@there&password=secret"]
)
def test_a_url_whose_login_cannot_be_told_from_its_rest_is_not_printed(url: str) -> None:
    shown = sa.make_url(url)
    assert "se" in (shown.password or shown.query["password"])
    text = server_settings.Settings(storage="x", database_url=url).to_text()
    assert 'database_url = "postgresql://…"' in text


@pytest.mark.parametrize(
    "address", ["localhost", "127.0.0.1:99999", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:-1", "[::1]:1²"]
)
def test_addresses_have_a_port(address: str) -> None:
    with pytest.raises(InputError, match="address must be"):
        server_settings.Settings(storage="x", address=address)
    with pytest.raises(InputError, match="metrics_address must be host:port"):
        server_settings.Settings(storage="x", metrics_address=address)


# uploads that are wrong

stream = messages.twin("EvaluateStreamRequest")
HEADER = {"dataset": "datasets/small", "format": 1}
DATA = convert.from_boxes(serving.boxes()[1]).SerializeToString()


def chunk(data: bytes = DATA, offset: int = 0) -> Any:
    return stream(chunk={"offset_bytes": offset, "data": data})


def footer(data: bytes = DATA, **changes: Any) -> Any:
    return stream(footer={"size_bytes": len(data), "sha256": hashlib.sha256(data).digest(), **changes})


def header(**changes: Any) -> Any:
    return stream(header={**HEADER, **changes})


def whole(data: bytes, **changes: Any) -> list[Any]:
    return [header(**changes), chunk(data), footer(data)]


DEEP = b'{"meta": {}, "results": {"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}"
UPLOADS: dict[str, tuple[list[Any], str]] = {
    "nothing": ([], "must be a header, got 'the end'"),
    "chunk first": ([chunk()], "must be a header, got 'chunk'"),
    "empty part": ([stream()], "must be a header"),
    "header twice": ([header(), header()], "must be a chunk or the footer, got 'header'"),
    "no footer": ([header(), chunk()], "must be a chunk or the footer, got 'the end'"),
    "no chunk": ([header(), footer(b"")], "at least one chunk"),
    "out of order": ([header(), chunk(offset=5)], r"chunk.offset_bytes must be 0, the bytes sent before, got 5"),
    "repeated": ([header(), chunk(), chunk()], "offset_bytes must be"),
    "negative": ([header(), chunk(offset=-1)], "offset_bytes must be"),
    "empty chunk": ([header(), chunk(b"")], "chunk.data must be 1 to"),
    "wrong hash": ([header(), chunk(), footer(sha256=b"x" * 32)], "footer.sha256 must be"),
    "short hash": ([header(), chunk(), footer(sha256=b"")], "footer.sha256 must be"),
    "wrong count": ([header(), chunk(), footer(size_bytes=3)], "footer.size_bytes must be"),
    "more after": ([header(), chunk(), footer(), chunk()], "a part after the footer"),
    "no format": ([header(format=0)], "header.format must be"),
    "unknown format": ([header(format=99)], "header.format must be"),
    "unknown compression": ([header(compression=9)], "header.compression must be"),
    "path as data set": ([header(dataset="datasets/../../etc/passwd")], "of the form datasets/{id}"),
    "no data set": ([header(dataset="")], "of the form datasets/{id}"),
    "many tags": ([header(tags=[str(i) for i in range(17)])], "tags must be at most 16"),
    "long name": ([header(display_name="x" * 201)], "display_name must be at most 200 characters"),
    "control characters": ([header(display_name="a\x1b[2J")], "without control characters"),
    "long file name": ([header(file_name="x" * 201)], "file_name must be at most 200"),
    "absent": ([header(absent=7)], "absent must be"),
    "protocol": ([header(protocol=[b"\x0a\x01x"])], "unknown protocol 'x'"),
    "many draws": ([header(bootstrap={"draws": 2**31 - 1})], "bootstrap.draws must be from 2 to 10000"),
    "negative draws": ([header(bootstrap={"draws": -1})], "bootstrap.draws must be from 2 to 10000"),
    "no level": ([header(bootstrap={"level": float("nan")})], "bootstrap.level must be between 0 and 1"),
    "path as unit": (
        [header(bootstrap={"unit": "../../etc/passwd"})],
        "unit '../../etc/passwd' to draw must be 'frame'",
    ),
    "columns are noise": (whole(b"\xff" * 100), "is no Boxes message"),
    "no json": (whole(b"hello", format=2), "predictions"),
    "half json": (whole(b'{"meta": {}, "results": {"a": [{"tr', format=2), "predictions"),
    "nan": (whole(b'{"meta": {}, "results": {"a": NaN}}', format=2), "predictions"),
    "infinity": (whole(b'{"meta": {}, "results": {"a": [{"translation": [1e999, 0, 0]}]}}', format=2), "predictions"),
    "depth bomb": (whole(DEEP, format=2), "predictions"),
    "no parquet": (whole(b"PAR1" + b"\0" * 50 + b"PAR1", format=3), "cannot read predictions"),
    "no gzip": (whole(b"hello", format=2, compression=1), "predictions is not whole gzip"),
    "half gzip": (whole(gzip.compress(DATA)[:-20], compression=1), "predictions is not whole gzip"),
    "gzip bomb": (whole(gzip.compress(bytes(3 << 20)), compression=1), "unpacked, must be at most"),
    "gzip bomb of json": (whole(gzip.compress(b" " * (3 << 20)), format=2, compression=1), "unpacked, must be at most"),
}


@given(st.integers(0, 2**63 - 1), st.binary(max_size=200), st.integers(0, 3), st.binary(min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_chunks_read_by_hand_are_those_of_the_contract(offset: int, data: bytes, at: int, noise: bytes) -> None:
    right = chunk(data, offset).SerializeToString()
    for message in (
        right,
        right[:at] + noise + right[at:],
        right[:at] + noise + right[at + len(noise) :],
        right + noise,
    ):
        quick = messages.chunk_of(message)
        if quick is not None:
            part = messages.contract("EvaluateStreamRequest").FromString(message)
            assert part.WhichOneof("part") == "chunk"
            assert quick == (part.chunk.offset_bytes, part.chunk.data)
    assert not data or messages.chunk_of(right) is not None


@pytest.mark.parametrize("name", UPLOADS)
def test_wrong_uploads(open_server: Running, channel: Any, name: str) -> None:
    parts, text = UPLOADS[name]
    call = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(
        iter([part.SerializeToString() for part in parts]), timeout=20
    )
    with pytest.raises(grpc.RpcError, match=text) as found:
        list(call)
    assert found.value.code().name == "INVALID_ARGUMENT"
    assert str(open_server.settings.storage) not in found.value.details(), "no path of the server is told"
    serving.wait_until(lambda: not open_server.left_over())


def test_slow_and_half_open_uploads_end(open_server: Running, channel: Any) -> None:
    def slowly() -> Iterator[bytes]:
        yield header().SerializeToString()
        yield chunk().SerializeToString()
        time.sleep(1.5)

    call = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(slowly())
    with pytest.raises(grpc.RpcError, match=r"no part came for 0.5 s"):
        list(call)
    serving.wait_until(lambda: not open_server.left_over())


def test_a_small_parquet_file_that_says_it_is_large(open_server: Running, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"frame": pa.array(np.zeros(5_000_000, np.int8))}), tmp_path / "big.parquet", compression="zstd"
    )
    assert (tmp_path / "big.parquet").stat().st_size < 50_000
    with open_server.client() as client, pytest.raises(InputError, match="unpacked, must be at most"):
        client.evaluate(tmp_path / "big.parquet", dataset="small")


def test_a_parquet_file_with_a_name_that_is_no_text(open_server: Running, tmp_path: Path) -> None:
    """Found by test_ten_thousand_malformed_inputs."""
    path = tmp_path / "pred.parquet"
    dm.io.parquet.write(serving.boxes()[1], path)
    path.write_bytes(path.read_bytes().replace(b"yaw_rad", b"\xd8aw_rad"))
    with open_server.client() as client, pytest.raises(InputError, match=r"cannot read pred\.parquet"):
        client.evaluate(path, dataset="small")


def test_rules_that_would_need_too_much(open_server: Running) -> None:
    truth, pred = serving.boxes()
    huge = dm.Protocol.from_dict({"extends": "nuscenes", "curve": {"n_samples": 10**9}})
    with open_server.client() as client, pytest.raises(InputError, match="curve values"):
        client.evaluate(pred, truth=truth, protocol=huge)


def test_requests_that_would_hold_up_everybody(channel: Any) -> None:
    """Large where it should be small: refused before the event loop reads it."""
    many = messages.twin("Boxes")(box_columns=[{}] * 2000).SerializeToString()
    deep = base64.urlsafe_b64encode(b"[" * 200_000).decode()
    request = messages.twin("EvaluateRequest")
    for method, data, text in (
        (f"{EVALUATIONS}/CompareEvaluations", bytes(2 << 20), "request must be at most"),
        (
            f"{EVALUATIONS}/ListEvaluations",
            messages.twin("ListEvaluationsRequest")(page_token=deep).SerializeToString(),
            "page_token",
        ),
        (
            f"{EVALUATIONS}/Evaluate",
            request(dataset="datasets/small", predictions=[many]).SerializeToString(),
            "columns must be at most 1000",
        ),
        (
            f"{EVALUATIONS}/Evaluate",
            request(predictions=[b"x"], dataset="datasets/small", protocol=[bytes(1 << 20)]).SerializeToString(),
            "protocol must be at most",
        ),
        (f"{EVALUATIONS}/Evaluate", request(dataset="datasets/small").SerializeToString(), "predictions must be given"),
        (
            f"{EVALUATIONS}/Evaluate",
            request(predictions=[b"x"]).SerializeToString(),
            "dataset and truth must be one of them",
        ),
    ):
        with pytest.raises(grpc.RpcError, match=text) as found:
            serving.raw(channel, method, data)
        assert found.value.code().name == "INVALID_ARGUMENT"


def test_a_request_in_millions_of_pieces(open_server: Running, channel: Any) -> None:
    """Each empty piece is two bytes on the wire and an object when read: refused before it is read."""
    noticed = []
    for tag in (b"\x1a", b"\x3a", b"\x22", b"\xfa\x01"):  # predictions, tags, protocol, nothing known
        start = time.monotonic()
        with pytest.raises(grpc.RpcError, match="EvaluateRequest must be of at most 1,000 fields"):
            serving.raw(channel, f"{EVALUATIONS}/Evaluate", (tag + b"\0") * (8 << 20))
        noticed.append(time.monotonic() - start)
    assert max(noticed) < 2, "the loop read them"
    many = messages.twin("EvaluateHeader")(tags=[""] * 600_000).SerializeToString()
    with pytest.raises(grpc.RpcError, match="header must be at most"):
        serving.upload(channel, [stream(header=messages.twin("EvaluateHeader").FromString(many)).SerializeToString()])


def test_as_many_fields_as_are_allowed_are_let_pass() -> None:
    field = b"\x08\x00"
    messages.check_fields("EvaluateRequest", field * messages.MAX_FIELDS)
    with pytest.raises(InputError, match=r"at most 1,000 fields, got more"):
        messages.check_fields("EvaluateRequest", field * (messages.MAX_FIELDS + 1))


@given(st.binary(max_size=60), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_fields_are_counted_as_the_contract_reads_them(data: bytes, n: int) -> None:
    """What protobuf reads, the count lets pass; groups, which no proto3 message has, apart."""
    data = VALID_BYTES * n + data
    kind = messages.contract("EvaluateRequest")
    try:
        kind.FromString(data)
    except Exception:
        return
    try:
        messages.check_fields("EvaluateRequest", data)
    except InputError:
        assert any(byte & 7 in (3, 4) for byte in data)


def test_only_so_many_send_at_a_time(tmp_path: Path) -> None:
    """gRPC holds a message whole before its length is known, so those who send are counted before they are read."""
    with (
        serving.serving(tmp_path, max_receiving=3, idle_s=2.0) as server,
        grpc.insecure_channel(server.address) as channel,
        server.client() as client,
    ):
        gone = threading.Event()

        def half() -> Iterator[bytes]:
            yield header().SerializeToString()
            gone.wait(10)

        def nothing() -> Iterator[bytes]:
            gone.wait(10)
            yield from ()

        client.upload_dataset("small", serving.boxes()[0])
        calls = [channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(half()) for _ in range(2)]
        calls.append(channel.stream_unary(f"{EVALUATIONS}/Evaluate").future(nothing()))
        counted = server.server.core.n_receiving
        serving.wait_until(lambda: counted[False] == 3)
        with pytest.raises(BusyError, match="too many are sending"):
            client.info()
        assert serving.raw(channel, "/grpc.health.v1.Health/Check") == b"\x08\x01"
        assert serving.code_of(lambda: calls[2].result()) == "INVALID_ARGUMENT", "nothing came for 2 s"
        assert client.info()["workers"] == 1
        gone.set()
        for call in calls[:2]:
            assert serving.code_of(lambda c=call: list(c)) == "INVALID_ARGUMENT"
        assert counted == {False: 0, True: 0}


def test_who_watches_without_a_token_leaves_room_for_calls(tmp_path: Path) -> None:
    """Anyone may watch the health, for ever."""
    with serving.serving(tmp_path, max_calls=8) as server:
        token = server.storage.add_token("me", "reader")
        with grpc.insecure_channel(server.address) as channel, server.client(token=token) as client:
            watch = channel.unary_stream(access.WATCH)
            streams = [watch(b"", timeout=60) for _ in range(8)]
            codes = [serving.code_of(lambda stream=stream: next(stream)) for stream in streams]
            assert client.info()["needs_token"]
            assert sorted(codes) == ["OK"] * 2 + ["RESOURCE_EXHAUSTED"] * 6
            assert serving.code_of(lambda: channel.unary_unary(access.CHECK)(b"", timeout=20)) == "OK"
        serving.wait_until(lambda: server.server.core.n_watching == 0)


def test_an_upload_that_never_ends(tmp_path: Path) -> None:
    with serving.serving(tmp_path, upload_s=0.5) as server, grpc.insecure_channel(server.address) as channel:

        def drops() -> Iterator[bytes]:
            yield header().SerializeToString()
            for i in range(100):
                time.sleep(0.05)
                yield chunk(b"x", i).SerializeToString()

        with server.client() as client:
            client.upload_dataset("small", serving.boxes()[0])
        with pytest.raises(grpc.RpcError, match=r"upload must be whole after 0\.5 s"):
            list(channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(drops()))
        serving.wait_until(lambda: not server.left_over())


def test_nothing_is_read_of_a_call_without_a_token(tmp_path: Path) -> None:
    """A large message of a stranger stays where it is: outside."""
    with serving.serving(tmp_path, tokens=True) as server, grpc.insecure_channel(server.address) as channel:
        seen = []
        front = server.server.core.receiving

        def noted(**more: Any) -> Any:
            seen.append(more)
            return front(**more)

        server.server.core.receiving = noted
        for method in (*UNARY, *STREAMS):
            code = serving.code_of(lambda m=method: serving.raw(channel, m, bytes(30 << 20), "dm_wrong"))
            assert code == "UNAUTHENTICATED", method
        assert not seen


def test_a_compressed_message_that_is_large(open_server: Running) -> None:
    """What counts is the size after gRPC has unpacked it."""
    with grpc.insecure_channel(
        open_server.address, compression=grpc.Compression.Gzip, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        code = serving.code_of(lambda: serving.raw(channel, f"{EVALUATIONS}/Evaluate", bytes(80 << 20)))
    assert code == "RESOURCE_EXHAUSTED"


def test_a_message_that_was_read_is_let_go(channel: Any) -> None:
    """At once, not when Python looks for cycles: else the server grows by a request each."""
    large = messages.twin("Boxes")(labels=["x" * (2 << 20)]).SerializeToString()
    request = messages.twin("EvaluateRequest")(dataset="datasets/none", predictions=[large]).SerializeToString()
    harmless = (
        VALID_BYTES + messages.varint(1000 << 3 | 2) + messages.varint(2 << 20) + bytes(2 << 20)
    )  # a field unknown
    parts = [header().SerializeToString(), chunk(bytes(2 << 20), offset=1).SerializeToString()]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(10):
            assert serving.code_of(lambda: serving.raw(channel, f"{EVALUATIONS}/Evaluate", request)) == "NOT_FOUND"
            assert serving.code_of(lambda: serving.upload(channel, parts)) == "INVALID_ARGUMENT"
            assert serving.code_of(lambda: serving.raw(channel, f"{EVALUATIONS}/Evaluate", harmless)) == "OK"
        serving.wait_until(lambda: tracemalloc.get_traced_memory()[0] < 10 << 20, 5.0)
    finally:
        tracemalloc.stop()
        gc.enable()


# any bytes

UNARY = [
    method for method in access.NEEDS if serving.PACKAGE in method and not method.endswith(("Stream", "UploadDataset"))
]
STREAMS = [f"{EVALUATIONS}/EvaluateStream", f"{DATASETS}/UploadDataset"]


def check_noise(channel: Any, method: str, data: bytes) -> None:
    code = serving.code_of(lambda: serving.raw(channel, method, data, timeout=10))
    assert code in REFUSED | {"OK", "NOT_FOUND"}, (method, data, code)


@given(st.sampled_from([*UNARY, *STREAMS]), st.binary(max_size=80))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(channel: Any, method: str, data: bytes) -> None:
    check_noise(channel, method, data)


PREDICTIONS = convert.from_boxes(serving.boxes(n_frames=2, boxes_per_sample=3)[1]).SerializeToString()
CHOICE = messages.twin("ProtocolChoice")()
CHOICE.custom.update({"extends": "nuscenes", "curve": {"n_samples": 11}})
VALID = messages.twin("EvaluateRequest")(
    dataset="datasets/two",
    predictions=[PREDICTIONS],
    display_name="x",
    tags=["a"],
    protocol=[CHOICE.SerializeToString()],
    bootstrap={"draws": 2, "unit": "frame", "seed": 1, "level": 0.5},
)
VALID_BYTES = VALID.SerializeToString()


def spoil(data: bytes, at: int, how: int, noise: bytes) -> bytes:
    at %= len(data)
    return (data[:at] + noise + data[at:], data[:at] + noise + data[at + len(noise) :], data[:at])[how]


@given(st.integers(0, 10**6), st.integers(0, 2), st.binary(min_size=1, max_size=9))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_spoilt_requests(channel: Any, at: int, how: int, noise: bytes) -> None:
    check_noise(channel, f"{EVALUATIONS}/Evaluate", spoil(VALID_BYTES, at, how, noise))


def test_the_server_is_still_well(open_server: Running) -> None:
    truth, pred = serving.boxes()
    with open_server.client() as client:
        serving.same(dm.evaluate(truth, pred, dm.NUSCENES), client.evaluate(pred, dataset="small").scores)
    assert open_server.server.core.pending_bytes == open_server.server.core.spool_bytes == 0
    assert not open_server.left_over()


@pytest.mark.soak
def test_ten_thousand_malformed_inputs(open_server: Running, channel: Any, tmp_path: Path) -> None:
    """Seeded noise on messages, on uploads of every format, and gzipped: refused with a reason, no crash, hang or growth."""
    rng = np.random.default_rng(0)
    dm.io.nuscenes.write_results(serving.boxes(n_frames=2, boxes_per_sample=3)[1], tmp_path / "a.json")
    dm.io.parquet.write(serving.boxes(n_frames=2, boxes_per_sample=3)[1], tmp_path / "a.parquet")
    files = {
        1: PREDICTIONS,
        2: (tmp_path / "a.json").read_bytes(),
        3: (tmp_path / "a.parquet").read_bytes(),
    }
    pids = open_server.pool.pids()
    counts: dict[str, int] = {}
    memory = []
    for i in range(12_000):
        noise = rng.bytes(int(rng.integers(1, 9)))
        at, how = int(rng.integers(0, 10**6)), int(rng.integers(0, 3))
        if i % 2:
            spoilt = spoil(VALID_BYTES, at, how, noise)
            call = partial(serving.raw, channel, f"{EVALUATIONS}/Evaluate", spoilt, timeout=20)
        else:
            kind = int(rng.integers(1, 4))
            data = spoil(files[kind], at, how, noise) or b"x"
            packed = int(rng.integers(0, 2))
            data = gzip.compress(data, 1) if packed else data
            parts = [
                part.SerializeToString()
                for part in whole(data, dataset="datasets/two", format=kind, compression=packed)
            ]
            call = partial(serving.upload, channel, parts)
        code = serving.code_of(call)
        assert code in REFUSED | {"OK", "NOT_FOUND"}, (i, code)
        counts[code] = counts.get(code, 0) + 1
        if i % 2000 == 1999:
            memory.append(sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in pids) >> 20)
    print(counts, "worker MiB", memory)
    assert open_server.pool.pids() == pids, "no worker died"
    assert memory[-1] < memory[1] + 64
    assert counts["OK"] > 100, "some noise is harmless, and is scored"


@pytest.mark.soak
def test_coverage_guided_noise() -> None:
    pytest.importorskip("atheris", reason="atheris is not installed (make soak does)")
    script = Path(__file__).with_name("fuzz_uploads.py")
    done = subprocess.run(
        [sys.executable, str(script), "-runs=30000", "-seed=1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    print(done.stderr[-300:])
