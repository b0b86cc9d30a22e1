"""The service as its users see it: the same numbers over the wire, history, ranking, comparison, repeatable calls."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
import make
from detmetrics.errors import InputError

pytest.importorskip("grpc", reason="detmetrics[server] is not installed")

import grpc

import serving
from detmetrics.gate import Gate
from detmetrics.reporting import comparing
from detmetrics_server import asking, blobs, convert, datasets, evaluations, intervals, messages, statuses
from detmetrics_server import client as clients
from detmetrics_server import storage as storages
from detmetrics_server.client import Client
from detmetrics_server.core import CALLER, Caller
from detmetrics_server.errors import (
    BusyError,
    ExistsError,
    FullError,
    LimitError,
    NotFoundError,
    ServiceError,
    StateError,
    WorkerLostError,
)
from serving import EVALUATIONS, Running

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "nuscenes"
GOLDENS = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving.serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Client]:
    with server.client() as client:
        client.upload_dataset("small", serving.boxes()[0])
        yield client


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_golden_over_the_wire(client: Client, path: Path, tmp_path: Path) -> None:
    """Stateless, stored, and as a stream: the numbers of the local library to the last bit."""
    golden = json.loads(path.read_text())
    truth, pred = make.from_columns(golden["truth"]), make.from_columns(golden["pred"])
    rules = golden.get("protocol", "nuscenes")
    local = dm.evaluate(truth, pred, dm.protocols.by_name(rules))
    serving.same(local, client.evaluate(pred, truth=truth, protocol=rules))
    serving.same(local, client.evaluate(pred, truth=truth, protocol=local.protocol))
    client.upload_dataset(f"golden.{path.stem}", truth)
    run = client.evaluate(pred, dataset=f"golden.{path.stem}", name=path.stem, protocol=rules)
    serving.same(local, run.scores)
    serving.same(local, client.get(run.name).scores)
    dm.io.parquet.write(pred, tmp_path / "pred.parquet")
    streamed = client.evaluate(tmp_path / "pred.parquet", dataset=f"golden.{path.stem}", protocol=rules)
    serving.same(local, streamed.scores)
    fields: dict[str, Any] = {"absent": "omit", "bootstrap": 40, "unit": "frame", "seed": 3, "level": 0.9}
    omitted = client.evaluate(pred, dataset=f"golden.{path.stem}", protocol=rules, **fields)
    serving.same(dm.evaluate(truth, pred, local.protocol, absent="omit"), omitted.scores)
    assert run.intervals is None
    ledger = dm.match(truth, pred, local.protocol)
    drawn = dm.bootstrap(ledger, 40, "frame", 3, level=0.9, absent="omit")
    serving.same_intervals(drawn, omitted.intervals)
    serving.same_intervals(drawn, client.get(omitted.name).intervals)


@pytest.mark.skipif(not DATA.exists(), reason="real data lies in ../shared/data, which is not here")
def test_a_real_detector_over_the_wire(client: Client) -> None:
    truth = dm.io.nuscenes.load_truth(DATA / "minival_tables", version="v1.0-mini", split="mini_val", cache=False)
    results = DATA / "results_pointpillars_mini" / "results_nusc.json"
    client.upload_dataset("mini_val", truth)
    run = client.evaluate(results, dataset="mini_val")
    serving.same(dm.evaluate(truth, dm.io.load(results), dm.NUSCENES), run.scores)
    assert run.scores.nds == pytest.approx(0.09923557931974811, abs=1e-15)


@pytest.mark.parametrize("ending", ["json", "json.gz", "parquet", "memory"])
def test_every_kind_of_upload(client: Client, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, pred = serving.boxes()
    path = tmp_path / f"results.{ending}"
    if ending == "parquet":
        dm.io.parquet.write(pred, path)
    else:
        dm.io.nuscenes.write_results(pred, tmp_path / "results.json")
    if ending == "json.gz":
        path.write_bytes(gzip.compress((tmp_path / "results.json").read_bytes()))
    if ending == "memory":
        monkeypatch.setattr(clients, "UNARY_BYTES", 0)
    local = dm.evaluate(
        truth, pred if ending in ("memory", "parquet") else dm.io.load(tmp_path / "results.json"), dm.NUSCENES
    )
    stages = []
    sent = pred if ending == "memory" else path
    run = client.evaluate(sent, dataset="small", progress=lambda *stage: stages.append(stage))
    serving.same(local, run.scores)
    assert stages[0][0] == "uploading"
    assert run.metrics["NDS"] == local.nds


def test_rules_of_your_own(client: Client) -> None:
    truth, pred = serving.boxes()
    rules = dm.Protocol.from_dict({"extends": "nuscenes", "name": "mine", "affinity": {"thresholds": [1.0, 2.0]}})
    run = client.evaluate(pred, dataset="small", protocol=rules)
    serving.same(dm.evaluate(truth, pred, rules), run.scores)
    assert run.protocol == "mine"
    with pytest.raises(InputError, match="unknown protocol 'nuscenez'"):
        client.evaluate(pred, dataset="small", protocol="nuscenez")


def test_history_and_ranking(tmp_path: Path) -> None:
    truth, _ = serving.boxes()
    with serving.serving(tmp_path) as server, server.client() as client:
        client.upload_dataset("a", truth)
        client.upload_dataset("b", truth)
        expected = {}
        for seed in range(5):
            pred = serving.boxes()[1]
            pred = pred.replace(score=pred.score * 0.9, center_m=pred.center_m + seed * 0.1)
            run = client.evaluate(pred, dataset="ab"[seed % 2], name=f"r{seed}", tags=["even"] if seed % 2 == 0 else [])
            expected[run.display_name] = run.scores.nds
        ranked = [
            (run.display_name, run.metrics["NDS"]) for run in client.evaluations(order_by="NDS desc", page_size=2)
        ]
        assert ranked == sorted(expected.items(), key=lambda item: -item[1])
        assert [run.display_name for run in client.evaluations(order_by="ATE", dataset="a")] == ["r0", "r2", "r4"]
        assert [run.display_name for run in client.evaluations(tag="even", page_size=1)] == ["r4", "r2", "r0"]
        assert [run.display_name for run in client.evaluations(order_by="create_time")] == [f"r{i}" for i in range(5)]
        runs = list(client.evaluations())
        with pytest.raises(
            InputError, match=r"order_by must be create_time or a metric, got 'nothing' .known: 'NDS', 'mAP', .* more."
        ):
            list(client.evaluations(order_by="nothing desc"))
        assert not list(client.evaluations(order_by="CDS desc")), "a metric of bundled rules that none has yet"
        assert not list(client.evaluations(order_by="NDS", dataset="c"))
        assert set(runs[0].metrics) <= set(server.storage.metrics())
        assert not list(client.evaluations(protocol="kitti"))
        assert all(run.scores is None for run in client.evaluations())
        assert [data.name for data in client.datasets()] == ["a", "b"]
        lister = messages.twin("ListEvaluationsRequest")
        for wrong, text in (
            (lister(page_token="x"), "page_token"),
            (lister(page_size=-1), "page_size"),
            (lister(dataset="datasets/../x"), "dataset"),
            (lister(order_by="NDS,mAP"), "order_by"),
        ):
            with pytest.raises(InputError, match=text):
                client._unary("EvaluationService", "ListEvaluations", wrong)
        token = client._unary("EvaluationService", "ListEvaluations", {"page_size": 1}).next_page_token
        with pytest.raises(InputError, match="all other fields the same"):
            client._unary("EvaluationService", "ListEvaluations", {"page_token": token, "tag": "even"})
        middle = messages.twin("ListEvaluationsRequest")()
        middle.create_time_from.FromDatetime(runs[2].created)
        assert len(client._unary("EvaluationService", "ListEvaluations", middle).evaluations) in (2, 3)

        with pytest.raises(StateError, match="refer to the data set"):
            client.delete_dataset("a")
        for run in runs:
            client.delete(run.name)
        with pytest.raises(NotFoundError):
            client.get(runs[0].name)
        client.delete_dataset("a")
        client.delete_dataset("b")
        assert not list(server.storage.blobs.listed()), "nothing is left of what was deleted"
    with serving.serving(tmp_path) as server, server.client() as client:
        assert not client.datasets()


def test_data_sets_keep_their_name(client: Client) -> None:
    truth, pred = serving.boxes()
    again = client.upload_dataset("small", truth)
    assert again == client.dataset("small")
    assert (again.n_frames, again.n_boxes, again.frame_columns) == (
        truth.n_frames,
        len(truth),
        tuple(sorted(truth.frame_columns)),
    )
    with pytest.raises(ExistsError):
        client.upload_dataset("small", truth.take(truth.frames[:3]))
    with pytest.raises(NotFoundError):
        client.evaluate(pred, dataset="other")
    for name in ("../small", "", "a/b", ".hidden", "x" * 64, "a\0b"):
        with pytest.raises(InputError, match="dataset_id"):
            client.upload_dataset(name, truth)


def test_comparison_is_the_local_one(client: Client) -> None:
    truth, pred = serving.boxes()
    worse = pred.replace(center_m=pred.center_m + 0.3)
    runs = [client.evaluate(side, dataset="small").name for side in (pred, worse)]
    ledgers = [dm.match(truth, side, dm.NUSCENES) for side in (pred, worse)]
    local = dm.compare(*ledgers, n=50, seed=3)
    compared = client.compare(*runs, n=50, seed=3)
    for name, one in local:
        assert repr(compared.differences[name]) == repr(one)
    assert compared.signatures == local.signatures
    assert compared.passed is None
    rules = {"rule": [{"metric": "NDS", "significant": False}, {"metric": "AOE", "tolerance": 9}]}
    judged = client.compare(*runs, n=50, gate=rules)
    assert judged.passed is False
    assert [verdict for _, verdict in judged.outcomes] == ["worse", "ok"]
    with pytest.raises(InputError, match="gate"):
        client.compare(*runs, gate={"rules": 1})
    with pytest.raises(InputError, match="draws must be from 2 to 10000"):
        client.compare(*runs, n=20_000)
    client.upload_dataset("third", truth.take(truth.frames[:10]))
    other = client.evaluate(pred.take(truth.frames[:10]), dataset="third").name
    with pytest.raises(InputError, match="data set of baseline and candidate must be the same"):
        client.compare(runs[0], other)


@pytest.fixture(scope="module")
def pair(client: Client) -> tuple[list[str], list[dm.Ledger]]:
    """Two evaluations, and their ledgers; the second one is worse far away."""
    truth, pred = serving.boxes()
    far = np.hypot(*pred.center_m[:, :2].T) > 20
    worse = pred.replace(center_m=pred.center_m + 0.4 * far[:, None])
    names = [client.evaluate(side, dataset="small", name=f"p{i}").name for i, side in enumerate((pred, worse))]
    return names, [dm.match(truth, side, dm.NUSCENES) for side in (pred, worse)]


def test_intervals_of_one_evaluation(client: Client, tmp_path: Path) -> None:
    """As a message and as a stream, with the defaults of the local library; kept, left out of lists."""
    truth, pred = serving.boxes()
    ledger = dm.match(truth, pred, dm.NUSCENES)
    run = client.evaluate(pred, dataset="small", name="sure", bootstrap=60)
    serving.same_intervals(dm.bootstrap(ledger, 60), run.intervals)
    serving.same_intervals(dm.bootstrap(ledger, 60), client.get(run.name).intervals)
    assert next(client.evaluations(name="sure")).intervals is None
    path, stages = tmp_path / "pred.parquet", []
    dm.io.parquet.write(pred, path)
    run = client.evaluate(path, dataset="small", bootstrap=300, progress=lambda stage, *_: stages.append(stage))
    serving.same(dm.evaluate(truth, pred, dm.NUSCENES), run.scores)
    serving.same_intervals(dm.bootstrap(ledger, 300), run.intervals)
    assert "resampling" in stages
    asked = {"truth": [convert.to_bytes(truth)], "predictions": [convert.to_bytes(pred)], "bootstrap": {"draws": 60}}
    request = messages.twin("EvaluateRequest")(**asked)
    answer = client._unary("EvaluationService", "Evaluate", request).evaluation
    assert (answer.name, answer.dataset) == ("", "")
    scores = answer.scores
    serving.same_intervals(dm.bootstrap(ledger, 60), intervals.to_bootstrap(scores))


def test_nothing_is_stored_of_a_stateless_evaluation(client: Client, server: Running) -> None:
    truth, pred = serving.boxes()
    before = len(list(client.evaluations())), sorted(server.storage.blobs.listed())
    fields = {"dataset": "datasets/small", "stateless": True, "request_id": "kept-nowhere", "tags": ["b", "a"]}
    request = messages.twin("EvaluateRequest")(**fields, predictions=[convert.to_bytes(pred)])
    answer = client._unary("EvaluationService", "Evaluate", request).evaluation
    serving.same(dm.evaluate(truth, pred, dm.NUSCENES), convert.to_scores(answer.scores))
    assert (answer.name, answer.dataset, list(answer.tags)) == ("", "datasets/small", ["a", "b"])
    assert (len(list(client.evaluations())), sorted(server.storage.blobs.listed())) == before


def test_intervals_at_another_level_stay_on_the_server(client: Client) -> None:
    _, pred = serving.boxes()
    drawn = client.evaluate(pred, dataset="small", bootstrap=20).intervals
    assert drawn is not None
    assert drawn.interval("NDS", level=0.95, method="expanded") == drawn["NDS"]
    for other in ({"level": 0.9}, {"method": "bca"}):
        with pytest.raises(InputError, match=r"level 0\.95 and method 'expanded', since the replicates stayed"):
            drawn.interval("NDS", **other)
    with pytest.raises(InputError, match="unknown metric 'NDX'"):
        drawn["NDX"]


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"draws": 1}, "bootstrap.draws must be from 2 to 10000"),
        ({"draws": -3}, "bootstrap.draws must be from 2 to 10000"),
        ({"draws": 10_001}, "bootstrap.draws must be from 2 to 10000"),
        ({"draws": 2**31 - 1}, "bootstrap.draws must be from 2 to 10000"),
        ({"seed": -1}, "bootstrap.seed must be zero or more"),
        ({"level": float("nan")}, "bootstrap.level must be between 0 and 1, got nan"),
        ({"level": float("inf")}, "bootstrap.level must be between 0 and 1"),
        ({"level": -0.5}, "bootstrap.level must be between 0 and 1"),
        ({"level": 1.0}, "bootstrap.level must be between 0 and 1"),
        ({"level": 1 - 2**-53}, "bootstrap.level must be between 0 and 1"),
        ({"unit": "a\x1b"}, "bootstrap.unit must be without control characters"),
        ({"unit": "x" * 201}, "bootstrap.unit must be at most 200"),
        ({"unit": "street"}, "unit 'street' to draw must be 'frame' or a column of the frames of truth of small"),
    ],
)
def test_draws_that_cannot_be_made(client: Client, server: Running, asked: dict[str, Any], text: str) -> None:
    """Refused before anything is uploaded or done, in both ways to ask."""
    _, pred = serving.boxes()
    before = len(list(client.evaluations()))
    fields = {"dataset": "datasets/small", "bootstrap": asked}
    request = messages.twin("EvaluateRequest")(**fields, predictions=[convert.to_bytes(pred)])
    header = messages.twin("EvaluateStreamRequest")(header={**fields, "format": 1}).SerializeToString()
    with pytest.raises(InputError, match=text):
        client._unary("EvaluationService", "Evaluate", request)
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError, match=text) as found:
        serving.upload(channel, [header])
    assert found.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(list(client.evaluations())) == before


def test_draws_that_nobody_waits_for_end(client: Client, server: Running) -> None:
    """What takes long is stopped when its caller has gone; the next one is served."""
    _, pred = serving.boxes()
    client.evaluate(pred, dataset="small")
    before = server.pool.pids()
    fields = {"dataset": "datasets/small", "bootstrap": {"draws": 10_000}}
    request = messages.twin("EvaluateRequest")(**fields, predictions=[convert.to_bytes(pred)]).SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        call = serving.code_of(lambda: serving.raw(channel, f"{EVALUATIONS}/Evaluate", request, timeout=0.5))
    assert call == "DEADLINE_EXCEEDED"
    serving.wait_until(lambda: server.pool.running == 0)
    assert client.evaluate(pred, dataset="small").state == "succeeded"
    assert server.pool.pids() != before


def test_a_server_that_knows_no_intervals(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves out is not passed over in silence."""
    _, pred = serving.boxes()
    run = client.evaluate(pred, dataset="small", name="old")
    with monkeypatch.context() as patch:
        patch.setattr(intervals, "to_bootstrap", lambda _: None)
        with pytest.raises(ServiceError, match="it drew no intervals for evaluations/"):
            client.evaluate(pred, dataset="small", bootstrap=20)
    with monkeypatch.context() as patch:
        patch.setattr(client, "evaluations", lambda **_: iter([run]))
        with pytest.raises(InputError, match="called 'older' must be one, got 0"):
            client.find("older")


def test_draws_that_would_hold_too_much(client: Client) -> None:
    truth, pred = serving.boxes()
    with pytest.raises(InputError, match="bootstrap= goes with dataset="):
        client.evaluate(pred, truth=truth, bootstrap=9)  # type: ignore[call-overload]
    rules = dm.NUSCENES.to_dict() | {"name": "wide", "curve": {**dm.NUSCENES.to_dict()["curve"], "n_samples": 11}}
    rules["tasks"] = [*rules["tasks"], *({**rules["tasks"][0], "label": f"c{i}"} for i in range(590))]
    with pytest.raises(InputError, match=r"draws must be at most [\d,]+ of 3,607 numbers each, got 10000"):
        client.evaluate(pred, dataset="small", protocol=dm.Protocol.from_dict(rules), bootstrap=10_000)


def test_intervals_are_part_of_what_was_asked(client: Client, tmp_path: Path) -> None:
    _, pred = serving.boxes()
    path = tmp_path / "pred.parquet"
    dm.io.parquet.write(pred, path)
    for sent, key in ((pred, "drawn"), (path, "drawn-stream")):
        first = client.evaluate(sent, dataset="small", request_id=key, bootstrap=20, seed=1)
        again = client.evaluate(sent, dataset="small", request_id=key, bootstrap=20, seed=1, unit="scene")
        assert again.name == first.name
        assert first.intervals is not None
        serving.same_intervals(first.intervals, again.intervals)
        for other in ({}, {"bootstrap": 21, "seed": 1}, {"bootstrap": 20}, {"bootstrap": 20, "seed": 1, "level": 0.9}):
            with pytest.raises(InputError, match="request_id must be new"):
                client.evaluate(sent, dataset="small", request_id=key, **other)


def test_comparison_by_slices_and_what_the_gate_says(client: Client, pair: tuple[list[str], list[dm.Ledger]]) -> None:
    (first, second), (mine, other) = pair
    rules = {
        "n": 60,
        "seed": 2,
        "rule": [
            {"metric": "NDS"},
            {"metric": "AP", "class": "car", "slice": "range=20-40", "tolerance": 0.01, "significant": False},
            {"metric": "mAP", "slice": "range=0-20+class=car", "significant": False},
            {"metric": "ATE", "slice": "scene=scene-0002", "tolerance": 5.0},
        ],
    }
    gate = Gate.from_dict(rules)
    slicings = ["range=0,20,40", "class", "scene+class"]
    found = client.compare(first, second, gate=rules, by=slicings)
    verdict = gate.check(mine, other)
    serving.same_comparison(verdict.comparison, found.comparison)
    assert found.verdict is not None
    assert list(map(repr, verdict.outcomes)) == list(map(repr, found.verdict.outcomes))
    assert found.verdict.passed is found.passed is verdict.passed is False
    assert found.outcomes == tuple((str(outcome.rule), outcome.verdict) for outcome in verdict.outcomes)
    local = {
        f"{by}:{name}": part for by in slicings for name, part in dm.compare(mine, other, 60, seed=2, by=by).items()
    }
    assert list(found.slices) == list(local)
    for name, part in local.items():
        serving.same_comparison(part, found.slices[name])
    sections = (comparing.as_markdown, comparing.as_json)
    names = (("a", "b"),), ()
    for write, more in zip(sections, names, strict=True):
        theirs = write(found.comparison, found.verdict, dict(found.slices), *more)
        assert repr(theirs) == repr(write(verdict.comparison, verdict, local, *more))
    with pytest.raises(InputError, match="unknown metric 'NDX'"):
        found.comparison["NDX"]


WHOLE_METRES = ",".join(map(str, range(1, 40)))


def test_comparisons_that_cannot_be_made(client: Client, pair: tuple[list[str], list[dm.Ledger]]) -> None:
    names, _ = pair
    for asked, text in (
        ({"by": ["nothing"]}, "unknown attribute to slice by 'nothing'"),
        ({"by": ["range=1,1"]}, "edges of range must be ascending and finite"),
        ({"by": ["class", *(f"range={i}" for i in range(9))]}, "by must be at most 8"),
        ({"by": ["x" * 201]}, r"by\[0\] must be at most 200"),
        ({"by": ["class\n"]}, r"by\[0\] must be without control"),
        ({"by": [f"range={i},{WHOLE_METRES}+class" for i in (0.25, 0.5, 0.75)]}, "by must be of at most 200 slices"),
        ({"by": ["range=" + ",".join(map(str, range(50)))], "n": 10_000}, r"draws must be at most 5,\d+ of 3,\d+ numb"),
        ({"gate": {"rule": [{"metric": "NDS", "slice": "range=3-5000"}], "n": 2}, "level": 1.5}, "level must be"),
        ({"gate": {"rule": [{"metric": "NDS", "slice": "weather"}]}}, "slice 'weather' must be like"),
        ({"gate": {"rule": [{"metric": "NDS", "slice": "nothing=x"}]}}, "unknown attribute to slice by 'nothing'"),
        ({"gate": {"rule": [{"metric": "NDS"}], "n": 10_001}}, "draws must be from 2 to 10000"),
        ({"gate": {"rule": [{"metric": "NDS"}], "level": 1 - 2**-53}}, "level must be between 0 and 1"),
        ({"n": 1}, "draws must be from 2 to 10000"),
        ({"seed": -1}, "seed must be zero or more"),
        ({"level": float("nan")}, "level must be between 0 and 1"),
        ({"unit": "street"}, "unit 'street' to draw must be 'frame'"),
    ):
        with pytest.raises(InputError, match=text):  # noqa: PT012
            client.compare(*names, **asked)
            pytest.fail(str(asked))


def test_names_instead_of_resource_names(
    client: Client, pair: tuple[list[str], list[dm.Ledger]], tmp_path: Path
) -> None:
    (first, second), (mine, _) = pair
    (tmp_path / "p1.json").write_text("hello")
    with pytest.raises(InputError, match=r"p1\.json"):  # one that failed is not meant
        client.evaluate(tmp_path / "p1.json", dataset="small", name="p1")
    assert {run.state for run in client.evaluations(name="p1")} == {"failed", "succeeded"}
    assert [client.find(name) for name in ("p0", "p1", second)] == [first, second, second]
    assert client.find("p0", dataset="small") == first
    with pytest.raises(InputError, match=r"succeeded and are called 'p9' must be one, got 0"):
        client.find("p9")
    client.upload_dataset("elsewhere", mine.truth)
    twin = client.evaluate(serving.boxes()[1], dataset="elsewhere", name="p0").name
    with pytest.raises(InputError, match="called 'p0' must be one, got 2") as found:
        client.find("p0")
    assert first in str(found.value)
    assert twin in str(found.value)
    assert client.find("p0", dataset="elsewhere") == twin
    assert client.find("p0", dataset="small") == first


def test_errors_say_what_the_local_ones_say(client: Client, tmp_path: Path) -> None:
    truth, pred = serving.boxes()
    wrong = pred.replace(labels=["lorry" if name == "truck" else name for name in pred.labels])
    with pytest.raises(InputError) as local:
        dm.evaluate(truth, wrong, dm.NUSCENES)
    with pytest.raises(InputError) as remote:
        client.evaluate(wrong, truth=truth)
    assert str(remote.value).removeprefix("predictions") == str(local.value).removeprefix(wrong.source)
    path = tmp_path / "results.json"
    dm.io.nuscenes.write_results(pred, path)
    text = path.read_text()
    path.write_text(text.replace('"size": [', '"size": [-', 1))
    with pytest.raises(InputError) as local:
        dm.io.load(path)
    with pytest.raises(InputError) as remote:
        client.evaluate(path, dataset="small")
    assert str(remote.value) == str(local.value).replace(str(path), path.name)


def test_the_same_request_twice_is_one_evaluation(client: Client, server: Running, tmp_path: Path) -> None:
    _, pred = serving.boxes()
    first = client.evaluate(pred, dataset="small", request_id="once")
    assert client.evaluate(pred, dataset="small", request_id="once").name == first.name
    with pytest.raises(InputError, match="request_id must be 1 to 64"):
        client.evaluate(pred, dataset="small", request_id="../x")
    with ThreadPoolExecutor(4) as threads:
        runs = list(threads.map(lambda _: client.evaluate(pred, dataset="small", request_id="race").name, range(4)))
    assert len(set(runs)) == 1
    path = tmp_path / "pred.parquet"
    dm.io.parquet.write(pred, path)
    streamed = client.evaluate(path, dataset="small", request_id="stream")
    again = client.evaluate(path, dataset="small", request_id="stream")
    assert again.name == streamed.name
    serving.same(streamed.scores, again.scores)


def pieces(pred: dm.Boxes, *, request_id: str = "", dataset: str = "small") -> list[bytes]:
    data = convert.to_bytes(pred)
    header = messages.twin("EvaluateHeader")(dataset=f"datasets/{dataset}", format=1, request_id=request_id)
    return list(clients._parts("EvaluateStreamRequest", header, data, None))


def test_a_lost_stream_does_not_stop_what_was_accepted(client: Client, server: Running) -> None:
    _, pred = serving.boxes()
    pid = server.pool.pids()[0]
    os.kill(pid, signal.SIGSTOP)  # so that it cannot be done before the stream is lost
    try:
        with grpc.insecure_channel(server.address) as channel:
            stream = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(iter(pieces(pred)))
            event = messages.parse("EvaluateStreamResponse", next(stream))
            stream.cancel()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert event.WhichOneof("event") == "accepted"
    serving.wait_until(lambda: client.get(event.accepted.name).state != "running")
    serving.same(client.get(event.accepted.name).scores, client.evaluate(pred, dataset="small").scores)


def test_a_stream_lost_before_that_leaves_nothing(client: Client, server: Running) -> None:
    _, pred = serving.boxes()
    before = len(list(client.evaluations())), sorted(server.storage.blobs.listed())
    for n_sent, how in ((1, "cancel"), (2, "cancel"), (2, "deadline"), (1, "deadline")):
        gone = threading.Event()

        def parts(n_sent: int = n_sent, gone: threading.Event = gone) -> Iterator[bytes]:
            yield from pieces(pred)[:n_sent]
            gone.wait(5)

        with grpc.insecure_channel(server.address) as channel:
            timeout = 0.3 if how == "deadline" else None
            stream = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(parts(), timeout=timeout)
            if how == "cancel":
                if n_sent > 1:
                    serving.wait_until(server.left_over)
                stream.cancel()
            assert serving.code_of(lambda stream=stream: list(stream)) in ("CANCELLED", "DEADLINE_EXCEEDED")
            gone.set()
    serving.wait_until(lambda: not server.left_over())
    assert server.server.core.spool_bytes == 0
    assert (len(list(client.evaluations())), sorted(server.storage.blobs.listed())) == before


@pytest.mark.parametrize("when", ["before the write", "before the close"])
@pytest.mark.parametrize("kind", ["EvaluateStream", "UploadDataset"])
def test_a_caller_who_goes_while_no_thread_is_free_leaves_nothing(
    client: Client, server: Running, kind: str, when: str
) -> None:
    """The end of a stream and the end of its call come one after the other: what tidies up is itself cancelled."""
    core, free, n_threads = server.server.core, threading.Event(), 4
    if kind == "EvaluateStream":
        service: Any = evaluations.EvaluationService(core)
        header: dict[str, Any] = {"dataset": "datasets/small", "format": 1}
    else:
        service, header = datasets.DatasetService(core), {"dataset_id": "lost", "format": 1}
    chunk = {"offset_bytes": 0, "data": b"x" * 10}

    async def stream(threads: ThreadPoolExecutor, is_full: asyncio.Event) -> AsyncIterator[bytes]:
        def fill() -> None:
            for _ in range(n_threads):
                threads.submit(free.wait, 20)
            is_full.set()

        message = messages.twin(f"{kind}Request")
        yield message(header=header).SerializeToString()
        if when == "before the write":
            fill()
        yield message(chunk=chunk).SerializeToString()
        if when == "before the close":
            while not server.left_over():
                await asyncio.sleep(0.01)
            fill()
        await asyncio.sleep(20)

    async def lost() -> None:
        CALLER.set(Caller("anonymous", "admin", ""))
        with ThreadPoolExecutor(n_threads) as threads:
            asyncio.get_running_loop().set_default_executor(threads)
            is_full = asyncio.Event()
            call = asyncio.ensure_future(getattr(service, kind)(stream(threads, is_full), None))
            full = asyncio.ensure_future(is_full.wait())
            await asyncio.wait([call, full], return_when=asyncio.FIRST_COMPLETED)
            assert full.done(), call.exception()
            for _ in range(5):
                await asyncio.sleep(0.02)
                call.cancel()
            await asyncio.wait([call])
            free.set()

    try:
        asyncio.run(lost())
    finally:
        free.set()
    assert server.left_over() == []
    assert (core.spool_bytes, core.n_receiving[False]) == (0, 0)


def test_a_deadline_before_the_answer_leaves_nothing(client: Client, server: Running) -> None:
    _, pred = serving.boxes()
    before = len(list(client.evaluations()))
    pid = server.pool.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        with server.client(timeout_s=0.3) as hasty, pytest.raises(ServiceError, match="DEADLINE"):
            hasty.evaluate(pred, dataset="small")
        serving.wait_until(lambda: server.server.core.pending_bytes == 0)  # the server has noticed, too
    finally:
        os.kill(pid, signal.SIGCONT)
    serving.wait_until(lambda: server.pool.running == 0)
    assert len(list(client.evaluations())) == before
    assert server.server.core.pending_bytes == 0


def test_a_server_that_stops_waits_for_what_its_calls_began(tmp_path: Path) -> None:
    """Uploads are on the way, and no thread is free to tidy up after them: another server may have the folder at once."""
    truth, pred = serving.boxes()
    server = serving.Running(tmp_path)
    with server.client() as client:
        client.upload_dataset("small", truth)
    gone, busy = threading.Event(), threading.Event()

    def parts() -> Iterator[bytes]:
        yield from pieces(pred)[:2]
        gone.wait(20)

    with grpc.insecure_channel(server.address) as channel:
        streams = [channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(parts()) for _ in range(3)]
        serving.wait_until(lambda: len(server.left_over()) == 3)
        for _ in range(40):  # more than there are threads
            server.loop.call_soon_threadsafe(server.loop.run_in_executor, None, busy.wait, 0.5)
        server.do(server.server.stop(0.0))
        assert server.left_over() == []
        assert (server.server.core.spool_bytes, server.server.core.n_receiving[False]) == (0, 0)
        with serving.serving(tmp_path) as second, second.client() as client:
            serving.same(client.evaluate(pred, dataset="small").scores, dm.evaluate(truth, pred, dm.NUSCENES))
        gone.set()
        assert {serving.code_of(lambda one=one: list(one)) for one in streams} <= {"UNAVAILABLE", "CANCELLED"}
    server.loop.call_soon_threadsafe(server.loop.stop)
    server.thread.join()
    server.loop.close()


def test_cancelling(client: Client, server: Running) -> None:
    _, pred = serving.boxes()
    os.kill(server.pool.pids()[0], signal.SIGSTOP)
    with grpc.insecure_channel(server.address) as channel:
        stream = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(iter(pieces(pred)))
        name = messages.parse("EvaluateStreamResponse", next(stream)).accepted.name
        with pytest.raises(StateError):
            client.delete(name)
        assert client.get(name).state == "running"
        assert client.cancel(name).state == "cancelled"
        assert serving.code_of(lambda: list(stream)) == "FAILED_PRECONDITION"
    assert client.get(name).state == "cancelled"
    assert client.cancel(name).state == "cancelled"
    assert client.evaluate(pred, dataset="small").state == "succeeded", "the killed worker was replaced"
    done = client.evaluate(pred, dataset="small")
    assert client.cancel(done.name).state == "succeeded"
    client.delete(name)


def test_a_full_queue_is_told_and_waited_for(tmp_path: Path) -> None:
    truth, pred = serving.boxes()
    with serving.serving(tmp_path, max_waiting=2) as server, server.client() as client:
        client.upload_dataset("small", truth)
        pid = server.pool.pids()[0]
        os.kill(pid, signal.SIGSTOP)
        with server.client(patience_s=30) as patient, ThreadPoolExecutor(6) as threads:
            waiting = [threads.submit(patient.evaluate, pred, dataset="small") for _ in range(6)]
            serving.wait_until(lambda: server.pool.waiting == 2)
            with pytest.raises(BusyError, match="2 evaluations wait already"):
                client.evaluate(pred, dataset="small")
            with grpc.insecure_channel(server.address) as channel:
                stream = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(iter(pieces(pred)))
                with pytest.raises(grpc.RpcError) as refused:
                    list(stream)
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert statuses.retry_delay_s(refused.value) == 1.0
            os.kill(pid, signal.SIGCONT)
            assert len({run.result().name for run in waiting}) == 6
        assert len(list(client.evaluations())) == 6


def test_limits(tmp_path: Path) -> None:
    truth, pred = serving.boxes()
    limits = {"max_message_bytes": 5 << 20, "max_upload_bytes": 60_000, "max_unpacked_bytes": 100_000}
    with serving.serving(tmp_path, **limits, max_pending_bytes=10_000) as server, server.client() as client:
        client.upload_dataset("tiny", truth.take(truth.frames[:2]))
        with grpc.insecure_channel(server.address) as channel:
            call = lambda: serving.raw(channel, f"{EVALUATIONS}/Evaluate", bytes(6 << 20))  # noqa: E731
            assert serving.code_of(call) == "RESOURCE_EXHAUSTED"
        with pytest.raises(BusyError, match="too much is being sent"):
            client.evaluate(pred, truth=truth)
        with pytest.raises(LimitError, match="an upload may have at most 60,000 bytes"):
            client.upload_dataset("small", serving.boxes(n_frames=200)[0])
        info = client.info()
        assert (info["max_upload_bytes"], info["protocols"]) == (60_000, list(dm.PROTOCOLS))
        bomb = gzip.compress(b'{"meta": {}, "results": {' + b" " * 50_000_000)
        (tmp_path / "bomb.json.gz").write_bytes(bomb)
        with pytest.raises(InputError, match=r"bomb\.json\.gz, unpacked, must be at most 100,000 bytes"):
            client.evaluate(tmp_path / "bomb.json.gz", dataset="tiny")
        serving.wait_until(lambda: not server.left_over())


def test_a_killed_worker_costs_one_retry(client: Client, server: Running) -> None:
    truth, pred = serving.boxes()
    local = dm.evaluate(truth, pred, dm.NUSCENES)
    pid = server.pool.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(client.evaluate, pred, dataset="small")
        serving.wait_until(lambda: server.pool.running == 1)
        os.kill(pid, signal.SIGKILL)
        serving.same(local, run.result().scores)
    assert server.pool.pids()[0] != pid


def test_a_worker_killed_twice_is_told(client: Client, server: Running) -> None:
    _, pred = serving.boxes()
    before = len(list(client.evaluations()))
    first = server.pool.pids()[0]
    os.kill(first, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(client.evaluate, pred, dataset="small")
        serving.wait_until(lambda: server.pool.running == 1)
        os.kill(first, signal.SIGKILL)
        serving.wait_until(lambda: server.pool.pids() not in ([], [first]))
        os.kill(server.pool.pids()[0], signal.SIGKILL)
        with pytest.raises(WorkerLostError, match=r"^a worker process of the server was lost .*; try again later$"):
            run.result()
    assert len(list(client.evaluations())) == before
    assert client.evaluate(pred, dataset="small").state == "succeeded"


def test_what_is_stored_is_checked(tmp_path: Path) -> None:
    truth, pred = serving.boxes()
    with serving.serving(tmp_path) as server, server.client() as client:
        client.upload_dataset("small", truth)
        run = client.evaluate(pred, dataset="small")
        row = server.storage.evaluation(run.name.split("/")[1])
        report, blob = server.storage.blobs.path(row["report"]), server.storage.blobs.path(row["sha256"])
        data = bytearray(report.read_bytes())
        data[len(data) // 2] ^= 1
        report.write_bytes(data)
        with pytest.raises(ServiceError, match="damaged"):
            client.get(run.name)
        blob.unlink()
        with pytest.raises(ServiceError, match="missing"):
            client.compare(run.name, run.name)
        truth_blob = server.storage.blobs.path(server.storage.dataset("small")["sha256"])
        truth_blob.write_bytes(b"x")
    with serving.serving(tmp_path) as server, server.client() as client, pytest.raises(ServiceError, match="damaged"):
        client.evaluate(pred, dataset="small")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault put into the file layer: every write to a new file after the first n bytes fails with ENOSPC."""
    import errno
    import io

    class Full(io.FileIO):
        room = 0

        def write(self, data: object) -> int:
            if len(data) > Full.room:  # type: ignore[arg-type]
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)  # type: ignore[arg-type]

    truth, pred = serving.boxes()
    with serving.serving(tmp_path) as server, server.client() as client:
        client.upload_dataset("small", truth)
        before = sorted(server.storage.blobs.listed())
        path = tmp_path / "pred.parquet"
        dm.io.parquet.write(pred, path)
        with monkeypatch.context() as patch:
            patch.setattr(blobs, "open_new", lambda path: Full(path, "xb"))
            for call in (
                lambda: client.evaluate(pred, dataset="small"),
                lambda: client.evaluate(path, dataset="small"),
                lambda: client.upload_dataset("other", truth.take(truth.frames[:5])),
            ):
                with pytest.raises(FullError, match="disk is full"):
                    call()
        assert sorted(server.storage.blobs.listed()) == before
        assert not server.left_over()
        assert client.evaluate(pred, dataset="small").state == "succeeded"
        assert len(list(client.evaluations())) == 1


def test_errors_of_files_name_the_upload_alone(client: Client, server: Running, tmp_path: Path) -> None:
    """Also those that come up after the file was read: the server's folders are nobody's business."""
    truth, pred = serving.boxes()
    dm.io.parquet.write(truth, tmp_path / "truth.parquet")
    client.upload_dataset("from.file", tmp_path / "truth.parquet")
    path = tmp_path / "other.json"
    for wrong in (pred.take(pred.frames[:-2]), serving.boxes(n_frames=25)[1]):
        dm.io.nuscenes.write_results(wrong, path)
        for packed in (False, True):
            if packed:
                path.write_bytes(gzip.compress(path.read_bytes()))
            with pytest.raises(InputError, match=r"other\.json (lacks|has) .*truth of from\.file") as found:
                client.evaluate(path, dataset="from.file")
            assert server.settings.storage not in str(found.value)
            assert "spool" not in str(found.value)


AGAIN = """
import sys
from detmetrics.protocol import Protocol
import serving
from detmetrics_server.client import Client
rules = Protocol.from_dict({"extends": "nuscenes", "name": "mine"})
truth, pred = (side.replace(meta={"z": 1, "a": 2, "k": {"y": 3, "b": 4}, "m": 5}) for side in serving.boxes())
with Client(sys.argv[1]) as client:
    client.upload_dataset("again", truth)
    print(client.evaluate(pred, dataset="again", request_id="again", protocol=rules).name)
"""


def test_another_process_that_asks_again_asks_the_same(server: Running) -> None:
    """The maps of protobuf are laid out anew in every process."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    names = {
        subprocess.run(
            [sys.executable, "-c", AGAIN, server.address], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(3)
    }
    assert len(names) == 1
    rules = messages.twin("ProtocolChoice")()
    convert.put_protocol(rules, dm.Protocol.from_dict({"extends": "nuscenes", "name": "mine"}))
    _, pred = serving.boxes()
    fields = {"dataset": "datasets/again", "absent": 1, "request_id": "again"}
    fields["predictions"] = [convert.to_bytes(pred.replace(meta={"z": 1, "a": 2, "k": {"y": 3, "b": 4}, "m": 5}))]
    twins = {rules.SerializeToString(deterministic=True), *(rules.SerializeToString() for _ in range(2))}
    for laid_out in twins:  # also by clients that lay out rules in another order
        request = messages.twin("EvaluateRequest")(**fields, protocol=[laid_out])
        with server.client() as client:
            assert f"{client._unary('EvaluationService', 'Evaluate', request).evaluation.name}\n" in names


@pytest.mark.parametrize("how", ["unary", "stream"])
def test_who_asks_again_must_ask_the_same(client: Client, server: Running, tmp_path: Path, how: str) -> None:
    truth, pred = serving.boxes()
    other = pred.replace(score=pred.score * 0.5)
    if how == "stream":
        for name, boxes in (("pred", pred), ("other", other)):
            dm.io.parquet.write(boxes, tmp_path / f"{name}.parquet")
    sent, strange = (pred, other) if how == "unary" else (tmp_path / "pred.parquet", tmp_path / "other.parquet")
    client.upload_dataset("same.truth", truth)
    asked: dict[str, Any] = {"dataset": "small", "name": "a", "tags": ["x", "y"], "request_id": f"again-{how}"}
    first = client.evaluate(sent, **asked)
    before = sorted(server.storage.blobs.listed())
    assert client.evaluate(sent, **{**asked, "tags": ["y", "x", "y"]}, protocol=dm.NUSCENES).name == first.name
    for change in (
        *({"dataset": "same.truth"}, {"absent": "omit"}, {"protocol": "argoverse2"}, {"bootstrap": 20}),
        *({"name": "b"}, {"tags": ["x"]}),
    ):
        with pytest.raises(InputError, match="request_id must be new, or that of the same request, got 'again-"):
            client.evaluate(sent, **{**asked, **change})
    with pytest.raises(InputError, match="request_id must be new"):
        client.evaluate(strange, **asked)
    assert sorted(server.storage.blobs.listed()) == before
    assert not server.left_over()


def test_streams_of_one_id_at_once_must_bring_the_same(client: Client, server: Running) -> None:
    """Also where neither is known when the other begins."""
    _, pred = serving.boxes()
    sides = [pred, pred.replace(score=pred.score * 0.5)]
    both, found = threading.Barrier(2), []

    def parts(side: dm.Boxes) -> Iterator[bytes]:
        for number, part in enumerate(pieces(side, request_id="at-once")):
            if number == 1:
                serving.wait_until(lambda: server.server.core.n_receiving[False] == 2)
                both.wait(10)
                time.sleep(0.3)  # until both headers were read
            yield part

    def ask(side: dm.Boxes) -> None:
        with grpc.insecure_channel(server.address) as channel:
            stream = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")
            found.append(serving.code_of(lambda: list(stream(parts(side), timeout=20))))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(ask, sides))
    assert sorted(found) == ["INVALID_ARGUMENT", "OK"]


def test_the_same_by_stream_and_in_one_call_is_one_evaluation(client: Client, server: Running) -> None:
    _, pred = serving.boxes()
    first = client.evaluate(pred, dataset="small", request_id="both-ways").name
    for side, code in ((pred, "OK"), (pred.replace(score=pred.score * 0.5), "INVALID_ARGUMENT")):
        with grpc.insecure_channel(server.address) as channel:
            sent = pieces(side, request_id="both-ways")
            assert serving.code_of(lambda c=channel, sent=sent: serving.upload(c, sent)) == code
    with grpc.insecure_channel(server.address) as channel:
        events = [
            messages.parse("EvaluateStreamResponse", data)
            for data in serving.upload(channel, pieces(pred, request_id="both-ways"))
        ]
    assert {getattr(event, event.WhichOneof("event")).name for event in events} == {first}


def test_waiting_is_told(client: Client, server: Running, tmp_path: Path) -> None:
    _, pred = serving.boxes()
    path = tmp_path / "pred.parquet"
    dm.io.parquet.write(pred, path)
    stages: list[str] = []
    pid = server.pool.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as threads:
            run = threads.submit(
                client.evaluate, path, dataset="small", progress=lambda stage, *_: stages.append(stage)
            )
            serving.wait_until(lambda: "waiting" in stages)
            os.kill(pid, signal.SIGCONT)
            assert run.result().state == "succeeded"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert stages[0] == "uploading"


def test_what_both_left_out_is_left_out_of_their_comparison(client: Client) -> None:
    truth, pred = serving.boxes()
    present = truth.replace(label=np.zeros(len(truth), np.int32), labels=["car"])  # the other classes have no truth
    client.upload_dataset("few", present)
    sides = (pred, pred.replace(center_m=pred.center_m + 0.3))
    runs = [client.evaluate(side, dataset="few", absent="omit").name for side in sides]
    ledgers = [dm.match(present, side, dm.NUSCENES) for side in sides]
    omitted, official = (dm.compare(*ledgers, n=20, absent=absent) for absent in ("omit", "official"))
    assert omitted["NDS"].difference != official["NDS"].difference
    compared = client.compare(*runs, n=20)
    for name, one in omitted:
        assert repr(compared.differences[name]) == repr(one)
    judged = client.compare(*runs, n=20, gate={"rule": [{"metric": "NDS"}]})
    serving.same_comparison(omitted, judged.comparison)
    other = client.evaluate(pred, dataset="few").name
    with pytest.raises(InputError, match="absent of baseline and candidate must be the same"):
        client.compare(runs[0], other)


def test_lists_by_protocol_and_time(client: Client) -> None:
    _, pred = serving.boxes()
    first, second = (client.evaluate(pred, dataset="small", tags=["timed"]) for _ in range(2))
    rules = dm.Protocol.from_dict({"extends": "nuscenes", "name": "mine"})
    mine = client.evaluate(pred, dataset="small", tags=["timed"], protocol=rules).name

    def names(**more: object) -> list[str]:
        return [run.name for run in client.evaluations(tag="timed", order_by="create_time", **more)]

    assert names(protocol="nuscenes") == [first.name, second.name] == names(protocol=dm.NUSCENES.name)
    assert names(protocol="mine") == [mine]
    assert names(since=second.created + timedelta(microseconds=1)) == [mine]
    assert names(until=second.created - timedelta(microseconds=1)) == [first.name]
    stored = client.get(first.name)
    assert set(stored.metrics) == {name for name, value in stored.scores.to_flat_dict().items() if value == value}


def test_names_of_rules_are_checked(client: Client) -> None:
    truth, pred = serving.boxes()
    for change in ({"name": "x" * 201}, {"name": "a\x1b[2J"}):
        with pytest.raises(InputError, match=r"protocol\.name must be"):
            client.evaluate(pred, truth=truth, protocol=dm.Protocol.from_dict({"extends": "nuscenes", **change}))


def test_pages_of_others_are_refused(client: Client) -> None:
    for state in ("\ud800", "a\0b", 5, None, ["a"], "x" * 70):
        token = asking.page_token(state, "datasets")
        if state is not None:
            with pytest.raises(InputError, match="page_token must be one that this server gave"):
                client._unary("DatasetService", "ListDatasets", {"page_token": token})
    query = asking.query(messages.twin("ListEvaluationsRequest")())
    for state in ([1], "x", [1, 2, 3], ["x", 1], [1, "x"], [2**70, 1], [1, 2**40], [True, True], {"a": 1}):
        with pytest.raises(InputError, match="page_token must be one that this server gave"):
            client._unary("EvaluationService", "ListEvaluations", {"page_token": asking.page_token(state, query)})


def test_where_no_server_answers_one_sentence_says_so(server: Running, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{probe.getsockname()[1]}"
    with Client(away, patience_s=0) as client, pytest.raises(ServiceError) as found:
        client.info()
    assert str(found.value) == f"no server answers at {away}, spoken to without TLS"
    with Client(server.address, tls=True, patience_s=0) as client, pytest.raises(ServiceError) as found:
        client.info()
    assert str(found.value) == f"no server answers at {server.address}, spoken to over TLS"
    (tmp_path / "none.pem").write_text("hello")
    with pytest.raises(InputError, match="must be certificates, PEM"):
        Client(server.address, tls=tmp_path / "none.pem")
    with pytest.raises(InputError, match="must be on this machine, or spoken to over TLS"):
        Client("example.org:1")


def test_all_uploads_together_are_limited(tmp_path: Path) -> None:
    truth, _ = serving.boxes()
    with serving.serving(tmp_path, max_spool_bytes=10_000) as server, server.client() as client:
        client.upload_dataset("small", truth.take(truth.frames[:2]))
        with pytest.raises(BusyError, match="too much is being uploaded at a time"):
            client.upload_dataset("large", serving.boxes(n_frames=200)[0])
        assert server.server.core.spool_bytes == 0
        assert not server.left_over()


@pytest.mark.parametrize("kind", ["data set", "predictions"])
def test_an_upload_counts_until_its_file_has_left_the_spool(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while it is checked, and on its way to where it is kept."""
    truth, pred = serving.boxes()
    sizes = {"data set": len(convert.to_bytes(truth)), "predictions": len(convert.to_bytes(pred))}
    at_work, go_on = threading.Event(), threading.Event()
    with (
        serving.serving(tmp_path, max_spool_bytes=max(sizes.values()) + 100) as server,
        server.client() as client,
        ThreadPoolExecutor(1) as threads,
    ):
        client.upload_dataset("small", truth)
        monkeypatch.setattr(clients, "UNARY_BYTES", 0)
        core, link = server.server.core, os.link
        if kind == "data set":
            pid = server.pool.pids()[0]
            os.kill(pid, signal.SIGSTOP)
            first = threads.submit(client.upload_dataset, "checked", truth)
            serving.wait_until(lambda: server.pool.running)
        else:

            def slow(*paths: Path) -> None:
                at_work.set()
                assert go_on.wait(20)
                link(*paths)

            monkeypatch.setattr(evaluations.os, "link", slow)
            first = threads.submit(client.evaluate, pred, dataset="small")
            assert at_work.wait(20)
        try:
            assert core.spool_bytes == sizes[kind]
            with server.client() as other, pytest.raises(BusyError, match="too much is being uploaded at a time"):
                other.upload_dataset("other", truth)
            assert core.spool_bytes == sizes[kind]
        finally:
            go_on.set()
            if kind == "data set":
                os.kill(pid, signal.SIGCONT)
        first.result(20)
        assert core.spool_bytes == 0
        client.upload_dataset("other", truth)


def test_what_ends_the_server_each_time_is_given_up(tmp_path: Path) -> None:
    """An evaluation that was at work at five ends of the server is not begun a sixth time."""
    truth, pred = serving.boxes()
    with serving.serving(tmp_path) as server, server.client() as client:
        client.upload_dataset("small", truth)
        name = client.evaluate(pred, dataset="small").name
        with server.storage._begin() as c:
            c.execute(storages.EVALUATIONS.update().values(state=1, attempts=evaluations.MAX_ATTEMPTS, report=None))
    with serving.serving(tmp_path) as server, server.client() as client:
        run = client.get(name)
        assert (run.state, run.error) == ("failed", "the server ended 5 times while it worked on this")


def test_what_was_not_kept_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may find the scores before the upload is kept; if it is never kept, they are never told."""
    truth, pred = serving.boxes()
    path = tmp_path / "pred.parquet"
    dm.io.parquet.write(pred, path)
    with serving.serving(tmp_path / "x") as server, server.client() as client:
        client.upload_dataset("small", truth)
        before = sorted(server.storage.blobs.listed())

        keep = server.storage.blobs.keep

        def fails(upload: Any) -> str:
            if upload.size != path.stat().st_size:
                return keep(upload)
            serving.wait_until(lambda: server.pool.running == 0)  # it may have ended, or not begun: both are fine
            raise FullError("the server's disk is full: nothing was stored")

        with monkeypatch.context() as patch:
            patch.setattr(server.storage.blobs, "keep", fails)
            with pytest.raises(FullError, match="disk is full"):
                client.evaluate(path, dataset="small")
        serving.wait_until(lambda: not server.server._evaluations._running)
        assert not list(client.evaluations())
        assert sorted(server.storage.blobs.listed()) == before
        assert not server.left_over()


def test_a_stream_lost_while_its_upload_is_being_kept(
    client: Client, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once an upload is whole it is kept and evaluated, whether or not somebody is left to be told."""
    _, pred = serving.boxes()
    before = {run.name for run in client.evaluations()}
    keep, begun, lost = server.storage.blobs.keep, threading.Event(), threading.Event()

    def slow(upload: object) -> str:
        begun.set()
        assert lost.wait(10)
        return keep(upload)

    with monkeypatch.context() as patch, grpc.insecure_channel(server.address) as channel:
        patch.setattr(server.storage.blobs, "keep", slow)
        stream = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(iter(pieces(pred, request_id="kept")))
        assert begun.wait(10)
        stream.cancel()
        serving.wait_until(lambda: server.server.core.n_receiving[False] == 0)
        lost.set()
        serving.wait_until(lambda: not server.server._evaluations._running)
    [kept] = [run for run in client.evaluations() if run.name not in before]
    assert kept.state == "succeeded"
    serving.same(client.evaluate(pred, dataset="small").scores, client.get(kept.name).scores)


def test_the_end_waits_for_what_nobody_listens_to(tmp_path: Path) -> None:
    truth, pred = serving.boxes()
    server = Running(tmp_path)
    with server.client() as client:
        client.upload_dataset("small", truth)
    pid = server.pool.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    with grpc.insecure_channel(server.address) as channel:
        stream = channel.stream_stream(f"{EVALUATIONS}/EvaluateStream")(iter(pieces(pred)))
        name = messages.parse("EvaluateStreamResponse", next(stream)).accepted.name
        stream.cancel()
    go_on = threading.Timer(1.0, os.kill, (pid, signal.SIGCONT))
    go_on.start()
    server.stop(drain_s=20)
    go_on.join()
    storage = storages.Storage(tmp_path)
    assert storage.evaluation(name.split("/")[1])["state"] == messages.SUCCEEDED, "not left for the next start"
    storage.close()


def test_a_worker_that_is_faster_than_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads an upload while that goes to the disk; what it found is written down only after the upload."""
    truth, pred = serving.boxes()
    path = tmp_path / "pred.parquet"
    dm.io.parquet.write(pred, path)
    with serving.serving(tmp_path / "x", durable=True) as server, server.client() as client:
        client.upload_dataset("small", truth)
        client.evaluate(pred, dataset="small")
        flush, slow = blobs.Spooled.flush, []
        run_job, ended = server.pool.run, threading.Event()

        async def noted(*arguments: Any, **more: Any) -> Any:
            answer = await run_job(*arguments, **more)
            ended.set()
            return answer

        def slowly(upload: Any, *, durable: bool) -> None:
            if durable and not slow:
                slow.append(upload)
                assert ended.wait(20)
                time.sleep(0.3)
            flush(upload, durable=durable)

        monkeypatch.setattr(blobs.Spooled, "flush", slowly)
        monkeypatch.setattr(server.pool, "run", noted)
        run = client.evaluate(path, dataset="small")
        assert slow
        assert run.state == "succeeded"
        serving.same(dm.evaluate(truth, pred, dm.NUSCENES), run.scores)


def test_what_would_be_ignored_or_is_no_word_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    truth, pred = serving.boxes()
    broken = tmp_path / "broken.json.gz"
    broken.write_bytes(gzip.compress(b"x" * 1000)[:12])
    with Client("localhost:1", patience_s=0) as client:  # nobody is there
        with pytest.raises(InputError, match=r"absent= must be official or omit, got 'omitt'"):
            client.evaluate(pred, truth=truth, absent="omitt")
        for word, value in {"name": "a", "tags": ["b"], "request_id": "c", "progress": print}.items():
            with pytest.raises(InputError, match=f"{word}= goes with dataset="):
                client.evaluate(pred, truth=truth, **{word: value})
        with pytest.raises(InputError, match=r"broken\.json\.gz is not whole gzip"):
            client.evaluate(broken, dataset="x")
