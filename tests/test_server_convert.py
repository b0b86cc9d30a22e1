"""Messages and back: every bit, and errors that say what the local ones say."""

from __future__ import annotations

import contextlib
import hashlib
import json
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detmetrics as dm
import make
from detmetrics.errors import InputError

pytest.importorskip("grpc", reason="detmetrics[server] is not installed")

import grpc

from detmetrics_server import asking, convert, jobs, messages, worker
from detmetrics_server.client import Client
from detmetrics_server.errors import BusyError, LimitError, ServiceError
from detmetrics_server.jobs import Draws
from detmetrics_server.statuses import CODES, code_of, from_rpc_error, to_status

GOLDENS = sorted((Path(__file__).parent / "golden").glob("*.json"))


def over(boxes: dm.Boxes, source: str = "predictions") -> dm.Boxes:
    return convert.to_boxes(messages.parse("Boxes", convert.from_boxes(boxes).SerializeToString()), source)


def same(a: dm.Boxes, b: dm.Boxes) -> None:
    assert a.digest == b.digest
    assert (a.frames, a.labels, a.attributes) == (b.frames, b.labels, b.attributes)
    assert (a.is_complete, a.partial, dict(a.meta)) == (b.is_complete, b.partial, dict(b.meta))
    for name in ("place", "frame_place", "ego_xy_m"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for kind in ("box_columns", "frame_columns"):
        mine, theirs = getattr(a, kind), getattr(b, kind)
        assert list(mine) == list(theirs)
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name])


@pytest.mark.parametrize(
    "knobs", [{}, {"racks": 1}, {"partial": True, "extra_frames": 2}, {"n_truth": 0}, {"n_frames": 1}]
)
def test_boxes_keep_every_bit(knobs: dict) -> None:
    for boxes in make.scene(3, **knobs):
        same(boxes, over(boxes))
        same(boxes, convert.to_boxes(messages.parse("Boxes", convert.to_bytes(boxes)), "boxes"))
        assert messages.contract("Boxes").FromString(convert.to_bytes(boxes)) == messages.contract("Boxes").FromString(
            convert.from_boxes(boxes).SerializeToString()
        )


def test_more_columns_and_meta() -> None:
    _, pred = make.scene(1)
    n, f = len(pred), pred.n_frames
    pred = pred.replace(
        box_columns={"cloud": np.arange(3.0 * n).reshape(n, 3), "ok": np.arange(n) % 2 == 0, "id": np.arange(n)},
        frame_columns={"scene": np.array([f"s{i % 2}" for i in range(f)])},
        meta={"use_lidar": True, "runs": 3, "share": 0.5, "who": ["a", None]},
    )
    same(pred, over(pred))


@pytest.mark.parametrize(
    "number", [0, 1, -1, 2**53 - 1, 2**53, -(2**53), 2**70, 0.5, -0.0, 1e300, 5e-324, float("inf"), float("nan"), True]
)
def test_numbers_of_a_struct_keep_every_bit(number: float) -> None:
    values = {"one": number, "more": [number, {"deep": number}]}
    message = messages.Scores(meta=convert.to_struct(values, "meta"))
    back = convert.to_dict(messages.parse("Scores", message.SerializeToString()).meta)
    assert back.keys() == values.keys()
    for one in (back["one"], back["more"][0], back["more"][1]["deep"]):
        assert np.float64(one).tobytes() == np.float64(number).tobytes()
        assert isinstance(one, bool) == isinstance(number, bool)
        if isinstance(number, int) and abs(number) < 2**53:
            assert type(one) is type(number)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"a": {"b": [0, 2**53 + 1]}},
            r"meta\['a'\]\['b'\]\[1\] must be a number that a double .* got 9007199254740993",
        ),
        ({"a": -(2**53) - 1}, "got -9007199254740993"),
        ({"a": 10**400}, r"meta\['a'\] must be a number that a double"),
        ({"a": {1: "b"}}, r"key of meta\['a'\] must be text, got 1"),
        ({"a": {3}}, r"meta\['a'\] must be a number, text, .* got \{3\}"),
        ({"a": np.int64(3)}, r"meta\['a'\] must be a number, text"),
    ],
)
def test_what_a_struct_cannot_hold_is_refused(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert.to_struct(values, "meta")
    _, pred = make.scene(1)
    for made in (convert.from_boxes, convert.to_bytes):
        with pytest.raises(InputError, match=r"pred\.meta\["):
            made(pred.replace(meta={"x": values}, source="pred"))


def test_a_struct_within_itself_is_refused() -> None:
    values: dict = {}
    values["again"] = values
    with pytest.raises(InputError, match="meta must be nested less deep"):
        convert.to_struct(values, "meta")


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "u8", "f2", "f4", "f8", "?"])
def test_free_columns_keep_every_bit(dtype: str) -> None:
    _, pred = make.scene(1)
    kind = np.dtype(dtype)
    ends = {"b": (False, True), "f": (-0.0, np.nan)}.get(kind.kind)
    if ends is None:
        info = np.iinfo(kind)
        ends = (info.min, min(info.max, 2**63 - 1))
    column = np.resize(np.array(ends, kind), len(pred))
    back = over(pred.replace(box_columns={"free": column})).box_columns["free"]
    wide = {"f": np.float64, "b": np.bool_}.get(kind.kind, np.int64)
    assert back.dtype == wide
    assert back.tobytes() == column.astype(wide).tobytes()


@pytest.mark.parametrize("n_regions", [0, 2])
def test_free_columns_of_several_values(n_regions: int) -> None:
    """As KITTI's reader gives them: regions of an image by frame, also none at all."""
    truth, _ = make.scene(1)
    regions = np.arange(truth.n_frames * n_regions * 4.0).reshape(truth.n_frames, n_regions, 4)
    truth = truth.replace(frame_columns={**truth.frame_columns, "dont_care_px": regions})
    back = over(truth).frame_columns
    assert ("dont_care_px" in back) == (n_regions > 0)
    if n_regions:
        np.testing.assert_array_equal(back["dont_care_px"], regions.reshape(truth.n_frames, -1))


def test_free_columns_that_no_message_holds_are_refused() -> None:
    _, pred = make.scene(1)
    n = len(pred)
    for column, message in (
        (np.full(n, 2**63, np.uint64), "must be at most 9223372036854775807, got 9223372036854775808"),
        (np.zeros(n, np.longdouble), "must be numbers of at most 64 bits, truth values or text, got 'float128'"),
        (np.zeros(n, complex), "must be numbers of at most 64 bits, truth values or text, got 'complex128'"),
    ):
        with pytest.raises(InputError, match=r"pred\.box_columns\['free'\] " + message):
            convert.from_boxes(pred.replace(box_columns={"free": column}, source="pred"))


def test_no_boxes() -> None:
    empty = dm.Boxes(
        center_m=np.zeros((0, 3)), size_lwh_m=np.zeros((0, 3)), yaw_rad=[], label=[], frame=[], frames=["a"], score=[]
    )
    same(empty, over(empty))


def test_a_client_that_does_not_pack() -> None:
    """Each value as a field of its own is the same message."""
    _, pred = make.scene(2)
    data = convert.from_boxes(pred).SerializeToString()
    whole = messages.contract("Boxes").FromString(data)
    scores = np.array(whole.score)
    whole.ClearField("score")
    loose = b"".join(b"\x41" + value.tobytes() for value in scores)  # field 8, fixed64
    read = messages.parse("Boxes", whole.SerializeToString() + loose)
    same(pred, convert.to_boxes(read, "predictions"))


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_golden_through_messages(path: Path) -> None:
    golden = json.loads(path.read_text())
    truth, pred = make.from_columns(golden["truth"]), make.from_columns(golden["pred"])
    protocol = dm.protocols.by_name(golden.get("protocol", "nuscenes"))
    local = dm.evaluate(truth, pred, protocol)
    choice = messages.twin("ProtocolChoice")()
    convert.put_protocol(choice, protocol)
    rules = convert.to_protocol(messages.parse("ProtocolChoice", choice.SerializeToString()))
    assert rules.digest == protocol.digest
    scores = dm.evaluate(over(truth), over(pred), rules)
    back = convert.to_scores(messages.parse("Scores", convert.from_scores(scores).SerializeToString()))
    for name in ("ap", "class_errors", "precision", "confidence", "error_curves", "n_truth", "n_pred"):
        np.testing.assert_array_equal(getattr(local, name), getattr(back, name))
    assert np.array_equal(list(local.to_flat_dict().values()), list(back.to_flat_dict().values()), equal_nan=True)
    assert local.signature == back.signature
    assert str(local).splitlines()[1:-2] == str(back).splitlines()[1:-2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.score.__setitem__(0, m.score[0][:-8]), "score must be of shape"),
        (lambda m: m.score.__setitem__(0, m.score[0][:-3]), "whole values of 8 bytes"),
        (lambda m: m.center_m.__setitem__(0, m.center_m[0][:-8]), "3 values a row"),
        (lambda m: m.label.__setitem__(0, b"\xff\xff\xff\xff" + m.label[0][4:]), r"label\[0\] must be a code from 0"),
        (lambda m: m.frame.__setitem__(0, b"\xff\xff\xff\x7f" + m.frame[0][4:]), r"frame\[0\] must be a code from 0"),
        (
            lambda m: m.yaw_rad.__setitem__(0, np.array([np.nan]).tobytes() + m.yaw_rad[0][8:]),
            r"yaw_rad\[0\] must be finite",
        ),
        (lambda m: m.frames.append(m.frames[0]), "frames must be distinct"),
        (lambda m: m.empty_columns.append("nothing"), "empty_columns must be among"),
        (lambda m: m.box_columns.add(name="a"), r"\['a'\].kind must be a number"),
        (lambda m: m.box_columns.add(name="a", kind=4, codes=[b"\x01\0\0\0"]), r"codes\[0\] must be from 0"),
        (lambda m: m.box_columns.add(name="a", kind=1, width=-1), "rows of -1 values"),
        (lambda m: (m.box_columns.add(name="a", kind=1), m.box_columns.add(name="a", kind=1)), "distinct names"),
    ],
)
def test_wrong_columns_are_refused(change, message: str) -> None:
    _, pred = make.scene(2)
    wrong = convert.from_boxes(pred)
    change(wrong)
    with pytest.raises(InputError, match=message):
        convert.to_boxes(messages.parse("Boxes", wrong.SerializeToString()), "predictions")


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused_or_read(noise: bytes, at: int) -> None:
    data = convert.from_boxes(make.scene(5, n_frames=1, n_truth=2)[1]).SerializeToString()
    for spoilt in (noise, data[:at] + noise + data[at:], data[:at] + noise + data[at + len(noise) :]):
        with contextlib.suppress(InputError):
            convert.to_boxes(messages.parse("Boxes", spoilt), "predictions")


def test_rules_as_data() -> None:
    choice = messages.twin("ProtocolChoice")()
    assert convert.to_protocol(choice) == dm.NUSCENES
    choice.custom.update({"extends": "nuscenes", "curve": {"n_samples": 51}})
    assert convert.to_protocol(choice).curve.n_samples == 51
    choice.custom.update({"curve": {"n_samples": 50.5}})
    with pytest.raises(InputError, match="n_samples"):
        convert.to_protocol(choice)


def test_the_defaults_of_draws_are_those_of_the_library() -> None:
    """They stand in the signatures that people read, and in Draws for what a request leaves out."""
    names = {"n": "n", "unit": "unit", "seed": "seed", "level": "level"}
    for function, more in ((dm.bootstrap, {}), (dm.compare, {}), (Client.evaluate, {"n": "bootstrap"})):
        given = signature(function).parameters
        for ours, theirs in (names | more).items():
            if theirs != "bootstrap":  # 0 there: none are drawn
                assert given[theirs].default == Draws._field_defaults[ours], (function, theirs)


def test_truth_is_forgotten_by_its_size(tmp_path: Path) -> None:
    """Of text columns, too, which may be most of it."""
    truth, _ = make.scene(1, n_frames=4)
    wide = truth.replace(box_columns={"note": np.full(len(truth), "x" * 4000)})
    payloads = []
    for i, boxes in enumerate((wide, truth, truth)):
        data = convert.to_bytes(boxes)
        (tmp_path / str(i)).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        path = str(tmp_path / str(i))
        payloads.append(jobs.Payload(format=messages.COLUMNS, path=path, sha256=sha256 if i < 2 else ""))
    size = wide.box_columns["note"].nbytes
    for room, kept in ((size, 1), (size + 1_000_000, 2)):
        one = worker.Worker(room)
        first = one._truth(payloads[0], lambda *_: None)
        assert one._truth(payloads[0], lambda *_: None) is first
        for payload in payloads[1:]:
            one._truth(payload, lambda *_: None)
        assert len(one._cache) == kept
        assert (one._truth(payloads[0], lambda *_: None) is first) == (kept == 2)


def test_every_error_of_ours_has_a_code() -> None:
    def below(kind: type) -> set[type]:
        return {kind, *(leaf for sub in kind.__subclasses__() for leaf in below(sub))}

    ours = below(ServiceError) - {ServiceError}
    assert len(ours) > 10
    assert ours <= set(CODES)
    for kind in ours:
        back = from_rpc_error(Failed(to_status(kind("what it says"), "r1")))
        assert type(back) is kind
        assert str(back) == "what it says"


class Failed(grpc.RpcError):
    """A failed call as a client gets it."""

    def __init__(self, status: Any) -> None:
        self.code, self.details = (lambda: status.code), (lambda: status.details)
        self.trailing_metadata = lambda: status.trailing_metadata


@pytest.mark.parametrize(
    ("error", "kind"),
    [(InputError("a"), InputError), (MemoryError(), LimitError), (KeyError("a"), ServiceError)],
)
def test_errors_without_a_reason_are_told_apart_by_their_code(error: Exception, kind: type) -> None:
    assert type(from_rpc_error(Failed(to_status(error, "r1")))) is kind


@pytest.mark.parametrize(("retry_s", "kind"), [(0, LimitError), (1, BusyError)])
def test_a_server_that_tells_no_reason(retry_s: int, kind: type) -> None:
    from google.protobuf import any_pb2, duration_pb2
    from google.rpc import error_details_pb2, status_pb2
    from grpc_status import rpc_status

    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=retry_s)))
    status = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="a", details=[packed])
    assert type(from_rpc_error(Failed(rpc_status.to_status(status)))) is kind


def test_the_status_says_field_and_reason_and_nothing_internal() -> None:
    from google.rpc import error_details_pb2, status_pb2

    status = to_status(InputError("pred.score[3]", expected="finite", got=float("nan"), where="frame 'a'"), "r1")
    packed = dict(status.trailing_metadata)["grpc-status-details-bin"]
    bad = error_details_pb2.BadRequest()
    assert status_pb2.Status.FromString(packed).details[0].Unpack(bad)
    assert bad.field_violations[0].field == "pred.score[3]"
    assert bad.field_violations[0].description == "pred.score[3] must be finite, got nan in frame 'a'"
    hidden = to_status(KeyError("/srv/secret"), "r2")
    assert code_of(KeyError()).name == "INTERNAL"
    assert "secret" not in hidden.details
    assert "r2" in hidden.details


def test_metrics_to_order_by_are_known() -> None:
    for name in ("NDS", "CDS", "AP/car", "AP/mine"):
        asking.known_metric(name, ["AP/mine"])
    with pytest.raises(
        InputError, match=r"order_by must be create_time or a metric, got 'x' \(known: 'NDS', 'mAP', .* more\)"
    ):
        asking.known_metric("x", ["AP/mine"])
