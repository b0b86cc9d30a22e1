"""What the server knows: rows and blobs agree, whatever is added, ended, deleted or asked twice.

Also on PostgreSQL where DETMETRICS_TEST_DATABASE_URL names an empty database of it (and psycopg is installed):
DETMETRICS_TEST_DATABASE_URL=postgresql+psycopg://dm:dm@localhost/dm
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="detmetrics[server] is not installed")

import sqlalchemy as sa

import serving
from detmetrics.errors import InputError
from detmetrics_server import blobs
from detmetrics_server import storage as storages
from detmetrics_server.errors import CorruptError, DrainingError, ExistsError, NotFoundError, StateError
from detmetrics_server.messages import CANCELLED, FAILED, RUNNING, SUCCEEDED
from detmetrics_server.storage import META, Query, Storage

URL = os.environ.get("DETMETRICS_TEST_DATABASE_URL", "")


@pytest.fixture(params=["sqlite", *(["the other database"] if URL else [])])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return ""
    engine = sa.create_engine(URL)
    META.drop_all(engine)
    engine.dispose()
    return URL


@pytest.mark.skipif(not URL, reason="DETMETRICS_TEST_DATABASE_URL names no database: these tests ran on SQLite alone")
def test_another_database_is_tested(url: str) -> None:
    assert sa.make_url(URL).get_backend_name() != "sqlite"


@pytest.fixture
def storage(tmp_path: Path, url: str) -> Iterator[Storage]:
    storage = Storage(tmp_path / "x", url=url)
    storage.add_dataset(dataset("a", storage.blobs.put(b"truth of a")), same_is_fine=False)
    yield storage
    storage.close()


def dataset(name: str, sha256: str) -> dict[str, Any]:
    counts = {"size_bytes": 1, "n_frames": 2, "n_boxes": 3}
    return {"id": name, "sha256": sha256, "frame_columns": ["scene"], "payload": "{}", **counts}


def row(storage: Storage, **more: Any) -> dict[str, Any]:
    told = {"owner": "me", "display_name": "x", "dataset": "a", "protocol_name": "p", "job": "{}"}
    given = {"id": uuid.uuid4().hex, "state": SUCCEEDED, "created_ns": time.time_ns(), **told, **more}
    data = given.pop("data", b"predictions")
    return {"sha256": storage.blobs.put(data), **given}


def add(storage: Storage, tags: tuple[str, ...] = (), metrics: dict[str, float] | None = None, **more: Any) -> str:
    return storage.add_evaluation(row(storage, **more), tags, metrics or {})[0]["id"]


def named(storage: Storage) -> set[str]:
    """Every blob that a row names."""
    rows = storage.evaluations(Query(), 10**6, None).rows
    hashes = {found[key] for found in rows for key in ("sha256", "report")} - {None}
    return hashes | {found["sha256"] for found in storage.datasets("", 10**6)}


def pages(storage: Storage, query: Query, size: int, between: Callable[[], object] = lambda: None) -> list[str]:
    found, after = [], None
    while True:
        page = storage.evaluations(query, size, after)
        assert len(page.rows) <= size
        found += [one["display_name"] for one in page.rows]
        if page.next is None:
            return found
        after = page.next
        between()


def test_the_same_request_is_one_evaluation_and_leaves_no_blob(storage: Storage) -> None:
    first = add(storage, request_id="r", data=b"one")
    again, is_new = storage.add_evaluation(row(storage, request_id="r", data=b"two"), [], {})
    assert (again["id"], is_new) == (first, False)
    assert add(storage, request_id="r", owner="you") != first, "request ids are each caller's own"
    assert add(storage) != add(storage), "without an id every call is a new one"
    assert set(storage.blobs.listed()) == named(storage)
    assert storage.by_request("me", "r")["id"] == first  # type: ignore[index]
    assert storage.by_request("me", None) is storage.by_request("me", "other") is None


def test_what_gets_no_row_does_not_stay(storage: Storage) -> None:
    """Blobs go again with their row's failure; those that another row names stay."""
    add(storage, data=b"known")
    before = set(storage.blobs.listed())
    spooled = storage.blobs.new()
    spooled.write(b"an upload")

    def fails() -> None:
        with storage.keeping() as keep:
            assert keep(b"known") in before
            assert {keep(b"new"), keep(spooled)} <= set(storage.blobs.listed()) - before
            raise RuntimeError("no row")

    with pytest.raises(RuntimeError, match="no row"):
        fails()
    assert set(storage.blobs.listed()) == before


def test_a_closed_storage_is_no_longer_written(tmp_path: Path) -> None:
    """A call of a server that has stopped may still be on its way, and the folder is another's."""
    storage = Storage(tmp_path, durable=False)
    storage.close()
    with pytest.raises(DrainingError), storage.keeping():
        pass
    with pytest.raises(DrainingError):
        storage.datasets("", 10)


@pytest.mark.parametrize("keeping", [True, False])
def test_many_at_once_with_one_request_id(storage: Storage, keeping: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = storage.by_request

    def slowly(owner: str, request_id: str | None) -> dict[str, Any] | None:
        found = looked_up(owner, request_id)
        time.sleep(0.005)
        return found

    monkeypatch.setattr(storage, "by_request", slowly)

    def one(i: int) -> tuple[str, bool]:
        with storage.keeping() if keeping else nullcontext():
            found, is_new = storage.add_evaluation(row(storage, request_id="race", data=bytes([i])), ["t"], {"NDS": i})
        return found["id"], is_new

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(one, range(24)))
    assert len({name for name, _ in found}) == 1
    assert sum(is_new for _, is_new in found) == 1
    assert set(storage.blobs.listed()) == named(storage)


def test_tags_metrics_and_row_are_written_as_one(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("in the middle")

    running = add(storage, state=RUNNING)
    with monkeypatch.context() as patch:
        patch.setattr(storages, "_add_metrics", fails)
        with pytest.raises(RuntimeError):
            add(storage, tags=("t",), metrics={"NDS": 1.0})
        with pytest.raises(RuntimeError):
            storage.end(running, SUCCEEDED, report=storage.blobs.put(b"report"), metrics={"NDS": 1.0})
    assert [found["id"] for found in storage.evaluations(Query(), 10, None).rows] == [running]
    assert storage.evaluation(running)["state"] == RUNNING
    assert not storage.evaluations(Query(tag="t"), 10, None).rows


def test_what_has_ended_stays_as_it_ended(storage: Storage) -> None:
    report = b"report"
    for first, second in ((CANCELLED, SUCCEEDED), (FAILED, CANCELLED), (SUCCEEDED, FAILED)):
        name = add(storage, state=RUNNING)
        assert storage.end(name, first, error="why", metrics={"NDS": 1.0})["state"] == first
        kept = storage.blobs.put(report)
        found = storage.end(name, second, report=kept, error="other", metrics={"NDS": 2.0})
        assert (found["state"], found["report"], found["error"]) == (first, None, "why")
        assert found["metrics"] == {"NDS": 1.0}
        assert found["ended_ns"] is not None
        assert kept not in set(storage.blobs.listed()), "a report that nobody names"
    with pytest.raises(NotFoundError):
        storage.end("0" * 32, FAILED, metrics={})


def test_a_blob_of_two_rows_goes_with_the_last(storage: Storage) -> None:
    report = storage.blobs.put(b"the same report")
    names = [add(storage, data=b"the same", report=report) for _ in range(2)]
    storage.delete_evaluation(names[0])
    assert storage.blobs.read(report) == b"the same report"
    storage.delete_evaluation(names[1])
    assert set(storage.blobs.listed()) == named(storage)
    with pytest.raises(CorruptError):
        storage.blobs.read(report)
    with pytest.raises(NotFoundError):
        storage.delete_evaluation(names[1])
    truth = storage.dataset("a")["sha256"]
    add(storage, data=b"truth of a")  # predictions with the bytes of the truth
    storage.delete_evaluation(storage.evaluations(Query(), 1, None).rows[0]["id"])
    assert truth in set(storage.blobs.listed())


def test_no_blob_is_deleted_while_its_row_is_on_the_way(storage: Storage) -> None:
    """One deletes the only row of a blob while another keeps the same bytes again."""
    for _ in range(20):
        old = add(storage, data=b"twice")
        inside, gone = threading.Event(), threading.Event()

        def delete(old: str = old, inside: threading.Event = inside, gone: threading.Event = gone) -> None:
            inside.wait()
            storage.delete_evaluation(old)
            gone.set()

        thread = threading.Thread(target=delete)
        thread.start()
        with storage.keeping():
            given = row(storage, data=b"twice")
            inside.set()
            assert not gone.wait(0.01), "deletion waits"
            new = storage.add_evaluation(given, [], {})[0]
        thread.join()
        assert storage.blobs.read(new["sha256"]) == b"twice"
        storage.delete_evaluation(new["id"])


def test_running_and_deleting(storage: Storage) -> None:
    names = [add(storage, state=RUNNING) for _ in range(2)]
    add(storage)
    with pytest.raises(StateError, match="cancel it first"):
        storage.delete_evaluation(names[0])
    storage.set_attempts(names[1], 2)
    assert [(found["id"], found["attempts"]) for found in storage.left()] == [(names[0], 0), (names[1], 2)]
    storage.end(names[0], CANCELLED, metrics={})
    storage.delete_evaluation(names[0])
    storage.set_attempts(names[0], 5)
    assert [(found["id"], found["attempts"]) for found in storage.left()] == [(names[1], 2)]


def test_data_sets(storage: Storage) -> None:
    sha256 = storage.dataset("a")["sha256"]
    assert storage.add_dataset(dataset("a", sha256), same_is_fine=True)["id"] == "a"
    with pytest.raises(ExistsError):
        storage.add_dataset(dataset("a", sha256), same_is_fine=False)
    assert storage.blobs.read(sha256) == b"truth of a", "what is refused must not take the old one along"
    other = storage.blobs.put(b"other truth")
    with pytest.raises(ExistsError):
        storage.add_dataset(dataset("a", other), same_is_fine=True)
    assert other not in set(storage.blobs.listed())
    for name in ("b", "c"):
        storage.add_dataset(dataset(name, storage.blobs.put(b"shared truth")), same_is_fine=False)
    assert [found["id"] for found in storage.datasets("a", 5)] == ["b", "c"]
    assert [found["id"] for found in storage.datasets("", 2)] == ["a", "b"]
    name = add(storage)
    with pytest.raises(StateError, match="1 evaluations refer to the data set 'a'"):
        storage.delete_dataset("a")
    storage.delete_evaluation(name)
    storage.delete_dataset("a")
    storage.delete_dataset("b")
    with pytest.raises(NotFoundError):
        storage.delete_dataset("a")
    with pytest.raises(NotFoundError, match="no data set 'a' any more"):
        add(storage, data=b"for nothing")
    assert set(storage.blobs.listed()) == named(storage) == {storage.dataset("c")["sha256"]}


def test_lists(storage: Storage) -> None:
    storage.add_dataset(dataset("b", storage.blobs.put(b"b")), same_is_fine=False)
    for i in range(7):
        metrics = {"NDS": [0.5, 0.1, 0.5, float("nan"), 0.9, 0.1, -0.0][i], "mAP": 1.0 * i}
        tags = ("even",) if i % 2 == 0 else ("odd", "third") if i == 3 else ("odd",)
        more = {"dataset": "ab"[i % 2], "protocol_name": f"p{i % 3}", "created_ns": 100 + i // 2}
        add(storage, tags=tags, metrics=metrics, display_name=f"r{i}", **more)
    add(storage, state=RUNNING, display_name="running", created_ns=50)
    up = ["running", *(f"r{i}" for i in range(7))]
    for size in (1, 2, 3, 8, 100):
        assert pages(storage, Query(descending=False), size) == up
        assert pages(storage, Query(), size) == up[::-1]
        assert pages(storage, Query(metric="NDS"), size) == ["r4", "r2", "r0", "r5", "r1", "r6"], "NaN is left out"
        assert pages(storage, Query(metric="NDS", descending=False), size) == ["r6", "r1", "r5", "r0", "r2", "r4"]
    assert pages(storage, Query(tag="odd", metric="mAP"), 2) == ["r5", "r3", "r1"]
    assert pages(storage, Query(tag="third"), 2) == ["r3"]
    assert pages(storage, Query(dataset="b", protocol="p0"), 2) == ["r3"]
    assert pages(storage, Query(from_ns=101, until_ns=103, descending=False), 2) == ["r2", "r3", "r4", "r5"]
    assert pages(storage, Query(metric="none"), 2) == []
    best = storage.evaluations(Query(metric="NDS"), 1, None).rows[0]
    assert (best["tags"], best["metrics"]) == (["even"], {"NDS": 0.9, "mAP": 4.0})


@pytest.mark.parametrize("query", [Query(), Query(metric="NDS"), Query(metric="NDS", descending=False)])
def test_pages_hold_still(storage: Storage, query: Query) -> None:
    """What comes and goes between two pages neither doubles nor hides another."""
    names = {f"r{i}": add(storage, metrics={"NDS": i % 4}, display_name=f"r{i}") for i in range(12)}
    expected = pages(storage, query, 100)
    seen = storage.evaluations(query, 3, None)

    def disturb() -> None:
        for found in seen.rows:
            with suppress(NotFoundError):
                storage.delete_evaluation(found["id"])
        add(storage, metrics={"NDS": 2.0}, display_name="new")

    found = [name for name in pages(storage, query, 3, disturb) if name != "new"]
    assert found == expected
    assert len(names) == 12


def test_metrics_keep_every_bit(storage: Storage) -> None:
    values = {"a": 0.1 + 0.2, "b": 5e-324, "c": -1.7976931348623157e308, "d": 1 / 3}
    assert storage.evaluation(add(storage, metrics=values))["metrics"] == values


def test_tokens(storage: Storage) -> None:
    assert not storage.has_tokens()
    token = storage.add_token("me", "reader")
    assert storage.token(token) == ("me", "reader")
    assert storage.token(token[:-1]) is None
    assert storage.token("") is None
    assert storage.token(storages._hashed(token)) is None, "what is stored opens nothing"
    assert storage.token(storage.add_token("soon", "admin", time.time_ns() + 10**12)) == ("soon", "admin")
    assert storage.token(storage.add_token("late", "admin", time.time_ns() - 1)) is None
    for name in ("", "anonymous", "x" * 201, "a\x1b[2J", "me"):
        with pytest.raises(InputError):
            storage.add_token(name, "reader")
    with pytest.raises(InputError, match="role must be one of"):
        storage.add_token("king", "king")  # type: ignore[arg-type]
    assert [found["name"] for found in storage.tokens()] == ["late", "me", "soon"]


def test_revoking_the_last_token_lets_nobody_in(storage: Storage) -> None:
    token = storage.add_token("me", "admin")
    storage.delete_token("me")
    assert storage.token(token) is None
    assert storage.has_tokens(), "or the server would be open to all from now on"
    assert not storage.tokens()
    with pytest.raises(InputError, match="no token 'me'"):
        storage.delete_token("me")
    again = storage.add_token("me", "reader")
    assert storage.token(again) == ("me", "reader")
    assert storage.token(token) is None
    storage.delete_token("me")
    storage.add_token("you", "reader")


def test_what_a_killed_server_leaves_is_swept(storage: Storage) -> None:
    add(storage, report=storage.blobs.put(b"report"))
    storage.blobs.put(b"orphan")
    half = storage.blobs.new()
    half.write(b"half")
    half.flush(durable=False)
    assert storage.sweep() == 2
    assert set(storage.blobs.listed()) == named(storage)
    assert not list(storage.blobs.spool.iterdir())
    assert storage.sweep() == 0


def test_blobs_are_checked(storage: Storage, tmp_path: Path) -> None:
    name = storage.blobs.put(b"bytes")
    path = storage.blobs.path(name)
    blobs.check(path, name)
    for damage in (b"bytez", b"byte", b"bytes ", b""):
        path.write_bytes(damage)
        for read in (lambda: storage.blobs.read(name), lambda: blobs.check(path, name)):
            with pytest.raises(CorruptError, match="damaged"):
                read()
    assert storage.blobs.put(b"bytes") == name
    assert storage.blobs.read(name) == b"bytes", "kept again, it is whole again"
    path.unlink()
    for read in (lambda: storage.blobs.read(name), lambda: blobs.check(path, name)):
        with pytest.raises(CorruptError, match="missing"):
            read()


def test_a_durable_blob_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, then the name, then the folders that hold the name."""
    done: list[str] = []
    sync, replace, open_ = os.fsync, os.replace, os.open
    opened: dict[int, str] = {}

    def noted_open(path: Any, *more: Any) -> int:
        descriptor = open_(path, *more)
        opened[descriptor] = Path(path).name
        return descriptor

    monkeypatch.setattr(os, "open", noted_open)
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(opened.get(fd, "bytes")), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("name"), replace(a, b)))
    kept = blobs.Blobs(tmp_path, durable=True)
    name = kept.put(b"bytes")
    assert done == ["bytes", "name", name[:2], "blobs"]
    done.clear()
    kept.put(b"bytes")
    assert done == ["bytes", "name", name[:2]]
    done.clear()
    blobs.Blobs(tmp_path, durable=False).put(b"other")
    assert done == ["name"]


def test_only_one_server_holds_a_folder(tmp_path: Path) -> None:
    first = Storage(tmp_path / "x")
    with pytest.raises(InputError, match="another server holds"):
        Storage(tmp_path / "x")
    assert (tmp_path / "x").stat().st_mode & 0o077 == 0, "ground truth is for nobody else"
    Storage(tmp_path / "x", exclusive=False).close()
    first.close()
    Storage(tmp_path / "x").close()


def test_closing_waits_for_what_is_being_kept(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "x")
    with storage.keeping():
        thread = threading.Thread(target=storage.close)
        thread.start()
        thread.join(0.05)
        with pytest.raises(InputError, match="another server holds"):
            Storage(tmp_path / "x")
    thread.join()
    Storage(tmp_path / "x").close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "database_url must be a URL"),
        ("nosuch://host/db", "database_url must be a URL"),
        ("mysql+nosuchdriver://host/db", "database_url"),
        ("sqlite:////proc/nothing/here.db", "cannot use the database: unable to open"),
    ],
)
def test_databases_that_cannot_be_used(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Storage(tmp_path / "x", url=url)
    Storage(tmp_path / "x").close()


def test_a_server_on_this_database(tmp_path: Path, url: str) -> None:
    truth, pred = serving.boxes()
    with serving.serving(tmp_path / "x", database_url=url) as server, server.client() as client:
        client.upload_dataset("small", truth)
        first = client.evaluate(pred, dataset="small", request_id="once", tags=["b", "a"], name="é\u200b漢")
        again = client.evaluate(pred, dataset="small", request_id="once", tags=["a", "b"], name="é\u200b漢")
        assert again.name == first.name
        worse = client.evaluate(pred.replace(center_m=pred.center_m + 0.3), dataset="small")
        assert [run.name for run in client.evaluations(order_by="NDS desc")] == [first.name, worse.name]
        assert client.compare(first.name, worse.name, n=20).differences["NDS"].difference < 0
        client.delete(worse.name)
    with serving.serving(tmp_path / "x", database_url=url) as server, server.client() as client:
        serving.same(client.get(first.name).scores, client.evaluate(pred, dataset="small").scores)
        assert client.get(first.name).tags == ("a", "b")
        assert client.get(first.name).display_name == "é\u200b漢"


def test_a_database_that_ended_in_between_is_asked_again(storage: Storage) -> None:
    if storage.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no connection to lose")
    other = sa.create_engine(URL)
    with other.begin() as c:
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
        assert c.execute(sa.text(f"{end} pg_backend_pid()")).all()
    other.dispose()
    assert [row["id"] for row in storage.datasets("", 9)] == ["a"]
