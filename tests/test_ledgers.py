"""Saved ledgers: everything comes back, and nothing damaged is taken for one."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
import make
from detmetrics.errors import InputError
from detmetrics.io import ledgers


def ledger(seed: int = 0, **knobs: Any) -> dm.Ledger:
    truth, pred = make.scene(seed, **knobs)
    truth = truth.replace(
        frame_columns={"scene": np.array([f"s{i % 3}" for i in range(truth.n_frames)], dtype=str)},
        box_columns={
            "occlusion": np.arange(len(truth)),
            "colour": np.array(["rot", "grün"])[np.arange(len(truth)) % 2],
        },
    )
    return dm.match(truth, pred.replace(meta={"use_lidar": True}), dm.NUSCENES)


@pytest.mark.parametrize("knobs", [{}, {"racks": 2}, {"partial": True, "extra_frames": 2}, {"raw": False}])
def test_everything_comes_back(knobs: dict[str, Any], tmp_path: Path) -> None:
    one = ledger(**knobs)
    one.save(tmp_path / "a.ledger")
    other = dm.Ledger.load(tmp_path / "a.ledger")
    assert str(dm.score(one)) == str(dm.score(other))
    assert other.protocol == one.protocol
    assert other.notes == one.notes
    for side in ("truth", "pred"):
        before, after = getattr(one, side), getattr(other, side)
        assert before.digest == after.digest
        for name in ("labels", "frames", "attributes", "is_complete", "partial", "meta", "source"):
            assert getattr(before, name) == getattr(after, name)
        for name in ("box_columns", "frame_columns"):
            assert list(getattr(before, name)) == list(getattr(after, name))
            for key, column in getattr(before, name).items():
                np.testing.assert_array_equal(getattr(after, name)[key], column)
    for name in ("truth_fate", "pred_fate", "event_pred", "event_place", "pair_bits", "pair_errors"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
    assert str(dm.slices(one, "scene")) == str(dm.slices(other, "scene"))
    assert dm.bootstrap(one, n=5).replicates.tobytes() == dm.bootstrap(other, n=5).replicates.tobytes()


def test_meta_that_is_not_plain_is_refused(tmp_path: Path) -> None:
    truth, pred = make.scene(0)
    for meta in ({"a": np.int64(1)}, {"a": {1}}):
        with pytest.raises(InputError, match="meta of the boxes must be plain JSON values to be saved, got Object of"):
            dm.match(truth, pred.replace(meta=meta), dm.NUSCENES).save(tmp_path / "a.ledger")
    assert not list(tmp_path.iterdir())


def test_merging_saved_ledgers(tmp_path: Path) -> None:
    """What was matched in parts on different days is the whole again."""
    whole = ledger(1, n_frames=6)
    for i, part in enumerate((slice(0, 2), slice(2, 6))):
        names = whole.truth.frames[part]
        dm.match(whole.truth.take(names), whole.pred.take(names), dm.NUSCENES).save(tmp_path / f"{i}")
    joined = dm.concat([dm.Ledger.load(tmp_path / f"{i}") for i in (1, 0)])
    assert dm.score(joined).signature == dm.score(whole).signature
    assert dm.score(joined).ap.tobytes() == dm.score(whole).ap.tobytes()


def test_merging_adds_what_was_ignored_and_names_every_version() -> None:
    truth, pred = make.scene(1, n_frames=4, partial=True, extra_frames=2)
    extra = [name for name in pred.frames if name not in truth.frame_index]
    parts = [
        dm.match(truth.take(names), pred.take([*names, other]), dm.NUSCENES)
        for names, other in zip((truth.frames[:2], truth.frames[2:]), extra, strict=True)
    ]
    merged = dm.concat([dataclasses.replace(parts[0], version="0.0.1"), parts[1]])
    assert merged.n_extra_frames == 2
    assert merged.version == f"0.0.1+{dm.__version__}"
    assert "frames:4+2 ignored" in dm.score(merged).signature


def test_what_is_no_ledger(tmp_path: Path) -> None:
    for content in (b"", b"{}", b"PK\x03\x04 nothing", b"PAR1"):
        (tmp_path / "x").write_bytes(content)
        assert ledgers.is_ledger(tmp_path / "x") == content.startswith(b"PK")
        with pytest.raises(InputError, match="x is no ledger of detmetrics, or is damaged"):
            dm.Ledger.load(tmp_path / "x")
    with pytest.raises(InputError, match="No such file"):
        dm.Ledger.load(tmp_path / "nothing")
    with pytest.raises(InputError, match="a folder"):
        dm.Ledger.load(tmp_path)
    with pytest.raises(InputError, match="in a folder that exists"):
        ledger().save(tmp_path / "no" / "where")


@pytest.mark.parametrize("value", [None, 5, "x", [], [[1]], True])
def test_headers_of_other_types_are_refused(tmp_path: Path, value: object) -> None:
    ledger().save(tmp_path / "x")
    with np.load(tmp_path / "x") as file:
        arrays = dict(file)
    header = json.loads(arrays[ledgers.HEADER].tobytes())
    for wrong in ({**header, "pred": value}, {**header, "pred": {**header["pred"], "columns": value}}):
        arrays[ledgers.HEADER] = np.frombuffer(json.dumps(wrong).encode(), np.uint8)
        with open(tmp_path / "y", "wb") as file:
            np.savez(file, **arrays)
        with pytest.raises(InputError, match="y is no ledger of detmetrics, or is damaged"):
            dm.Ledger.load(tmp_path / "y")


def test_damage_is_seen(tmp_path: Path) -> None:
    """Every flipped byte gives the same numbers or one clear error."""
    one = ledger(2, n_frames=2)
    path = tmp_path / "x"
    one.save(path)
    content, numbers = path.read_bytes(), str(dm.score(one))
    rng = np.random.default_rng(0)
    n_refused = 0
    for at in rng.integers(0, len(content), 150):
        broken = bytearray(content)
        broken[at] ^= 0xFF
        path.write_bytes(broken)
        try:
            assert str(dm.score(dm.Ledger.load(path))) == numbers
        except InputError:
            n_refused += 1
    assert n_refused > 100
    for size in (10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(InputError):
            dm.Ledger.load(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pair_event", lambda a: a + 10**6),
        ("pair_event", lambda a: a[::-1]),
        ("pair_truth", lambda a: a - 10**6),
        ("pair_bits", lambda a: a + 16),
        ("pair_errors", lambda a: a[:, :2]),
        ("event_offsets", lambda a: a[::-1]),
        ("event_offsets", lambda a: np.maximum(a, 1)),
        ("event_frame", lambda a: a + 99),
        ("event_frame", lambda a: a.astype(np.int64)),
        ("event_pred", lambda a: a[:-1]),
        ("truth_task", lambda a: a + 30),
        ("truth.center_m", lambda a: a * np.nan),
        ("truth.frame", lambda a: a[::-1]),
        ("pred.label", lambda a: a + 100),
    ],
)
def test_indices_that_point_outside_are_refused(name: str, change: Any, tmp_path: Path) -> None:
    """Kernels do not check: a forged file must not reach them."""
    ledger(3).save(tmp_path / "x")
    with np.load(tmp_path / "x") as archive:
        arrays = dict(archive.items())
    arrays[name] = change(arrays[name])
    with open(tmp_path / "x", "wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(InputError):
        dm.Ledger.load(tmp_path / "x")


def _swap(arrays: dict[str, Any], names: tuple[str, ...], i: int, j: int) -> None:
    for name in names:
        arrays[name] = arrays[name].copy()
        arrays[name][[i, j]] = arrays[name][[j, i]]


def _unlike(column: np.ndarray[Any, Any], start: int = 0) -> tuple[int, int]:
    """The first of neighbours that differ."""
    at = start + int(np.flatnonzero(np.diff(column[start:]))[0])
    return at, at + 1


EVENTS = ("event_pred", "event_frame", "event_score", "event_place")


def _events_out_of_order(arrays: dict[str, Any]) -> None:
    _swap(arrays, EVENTS, *_unlike(arrays["event_score"]))


def _ties_out_of_order(arrays: dict[str, Any]) -> None:
    """Two of one score, the lower place first."""
    arrays["event_score"][:2] = arrays["pred.score"][arrays["event_pred"][:2]] = arrays["event_score"][0]
    if arrays["event_place"][0] > arrays["event_place"][1]:
        _swap(arrays, EVENTS, 0, 1)


def _one_event_twice(arrays: dict[str, Any]) -> None:
    for name in EVENTS:
        arrays[name][1] = arrays[name][0]


def _class_moved(arrays: dict[str, Any]) -> None:
    arrays["event_offsets"][1] -= 1  # the last car is the first truck


def _other_scores(arrays: dict[str, Any]) -> None:
    arrays["event_score"] /= 2


def _other_frames(arrays: dict[str, Any]) -> None:
    arrays["event_frame"] = arrays["event_frame"].max() - arrays["event_frame"]


def _other_classes(arrays: dict[str, Any]) -> None:
    arrays["truth_task"][np.flatnonzero(arrays["truth_task"] == 0)[0]] = 1


def _dropped(arrays: dict[str, Any]) -> None:
    arrays["pred_fate"][arrays["event_pred"][0]] = dm.Fate.OUT_OF_RANGE


def _matched_but_dropped(arrays: dict[str, Any]) -> None:
    arrays["truth_fate"][arrays["pair_truth"][0]] = dm.Fate.OUT_OF_RANGE


def _of_no_class(arrays: dict[str, Any]) -> None:
    arrays["truth_fate"][np.flatnonzero(arrays["truth_task"] < 0)[0]] = dm.Fate.KEPT


def _pair_of_another_frame(arrays: dict[str, Any]) -> None:
    same = arrays["truth_task"][arrays["pair_truth"]] == arrays["truth_task"][arrays["pair_truth"][0]]
    frame = arrays["truth.frame"][arrays["pair_truth"]]
    other = np.flatnonzero(same & (frame != frame[0]))[0]
    _swap(arrays, ("pair_truth",), 0, int(other))


def _pair_of_another_class(arrays: dict[str, Any]) -> None:
    frame, task = arrays["truth.frame"][arrays["pair_truth"]], arrays["truth_task"][arrays["pair_truth"]]
    other = np.flatnonzero((frame == frame[0]) & (task != task[0]))[0]
    _swap(arrays, ("pair_truth",), 0, int(other))


def _no_match(arrays: dict[str, Any]) -> None:
    arrays["pair_bits"][0] = 0


def _truth_found_twice(arrays: dict[str, Any]) -> None:
    key = np.stack((arrays["truth.frame"], arrays["truth_task"]))[:, arrays["pair_truth"]]
    other = np.flatnonzero((key == key[:, :1]).all(axis=0) & (arrays["pair_truth"] != arrays["pair_truth"][0]))[0]
    arrays["pair_truth"][other] = arrays["pair_truth"][0]
    arrays["pair_bits"][[0, other]] = 15


def _event_finds_two(arrays: dict[str, Any]) -> None:
    event, frame = arrays["pair_event"], arrays["truth.frame"][arrays["pair_truth"]]
    task = arrays["truth_task"][arrays["pair_truth"]]
    for i, j in zip(range(len(event)), range(1, len(event)), strict=False):
        if event[i] != event[j] and frame[i] == frame[j] and task[i] == task[j]:
            event[j] = event[i]
            arrays["pair_bits"][[i, j]] = 15
            return
    raise AssertionError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_events_out_of_order, "events are not in the order of their scores"),
        (_ties_out_of_order, "events are not in the order of their scores"),
        (_one_event_twice, "events are not the kept predictions"),
        (_dropped, "events are not the kept predictions"),
        (_other_scores, "scores of events are not those of the predictions"),
        (_other_frames, "frames of events are not those of the predictions"),
        (_class_moved, "classes of events are not those of the predictions"),
        (_other_classes, "classes of truths are not those of the protocol"),
        (_of_no_class, "a truth without a class counts"),
        (_matched_but_dropped, "pairs are not of one class and frame"),
        (_pair_of_another_frame, "pairs are not of one class and frame"),
        (_pair_of_another_class, "pairs are not of one class and frame"),
        (_no_match, "pairs are not of one class and frame"),
        (_truth_found_twice, "a box matches twice at one threshold"),
        (_event_finds_two, "a box matches twice at one threshold"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    """Every index points inside, so the scores would be wrong without a sign of it."""
    ledger(3, n_frames=3, classes=("car", "truck"), n_truth=30, racks=1).save(tmp_path / "x")
    with np.load(tmp_path / "x") as archive:
        arrays = {name: column.copy() for name, column in archive.items()}
    change(arrays)
    with open(tmp_path / "x", "wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(InputError, match=f"the ledger is damaged: {message}"):
        dm.Ledger.load(tmp_path / "x")


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    ledger(3).save(tmp_path / "x")
    with np.load(tmp_path / "x") as archive:
        arrays = dict(archive.items())
    header = json.loads(arrays["detmetrics"].tobytes())
    arrays["detmetrics"] = np.frombuffer(json.dumps({**header, "format": 99}).encode(), np.uint8)
    with open(tmp_path / "x", "wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(InputError, match="format of the ledger must be at most 1, got 99"):
        dm.Ledger.load(tmp_path / "x")


def test_no_pickle_is_read(tmp_path: Path) -> None:
    ledger(3).save(tmp_path / "x")
    column = io.BytesIO()
    np.save(column, np.array([{"evil": 1}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "x", "a") as archive:
        archive.writestr("evil.npy", column.getvalue())
    with pytest.raises(InputError, match="is no ledger"):
        dm.Ledger.load(tmp_path / "x")
