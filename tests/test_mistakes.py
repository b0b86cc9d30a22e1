"""What a newcomer gets wrong in Python and on the command line: each is one sentence that says what to do."""

from __future__ import annotations

import gzip
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import detmetrics as dm
from detmetrics import cli
from detmetrics.errors import InputError, unknown_name
from detmetrics.exporting import to_arrow
from detmetrics.gate import Gate
from detmetrics.synth.memory import make_boxes


def columns(n: int = 4, **more: Any) -> dict[str, Any]:
    """The arrays of some cars in a row, in one frame."""
    arrays = {
        "center_m": np.arange(3.0 * n).reshape(n, 3),
        "size_lwh_m": np.tile([4.0, 2.0, 1.5], (n, 1)),
        "yaw_rad": np.zeros(n),
        "label": ["car"] * n,
        "frame": ["a"] * n,
    }
    return {**arrays, **more}


def truth(**more: Any) -> dm.Boxes:
    return dm.Boxes(**columns(**more))


def pred(**more: Any) -> dm.Boxes:
    return dm.Boxes(**columns(**{"score": np.linspace(1, 0.1, 4), **more}))


def test_near_names_whatever_their_capitals() -> None:
    assert str(unknown_name("metric", "nds", ("NDS", "mAP"))) == "unknown metric 'nds' (did you mean 'NDS'?)"
    assert str(unknown_name("metric", "map", ("NDS", "mAP", "MAP"))).endswith("did you mean 'mAP', 'MAP'?)")
    assert str(unknown_name("metric", 3, ("NDS", "mAP"))) == "unknown metric 3 (known: 'NDS', 'mAP')"


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ((truth(), pred(frame=["z"] * 4)), "pred has 1 frame that truth does not have: 'z'"),
        ((truth(frames=["a", "b"]), pred(frames=["a"])), "pred lacks 1 of the 2 frames of truth: 'b'"),
        ((truth(source="x"), pred(frames=["b"], frame=["b"] * 4)), "pred has 1 frame that x does not have"),
        ((truth(source="x"), pred(frame=["b"] * 4, source="x")), "pred has 1 frame that truth does not have"),
        ((truth(), pred(label=["cat"] * 4)), "pred: unknown class 'cat' in box 0 of frame 'a' and 3 more boxes"),
        ((truth(), pred(label=["Car"] * 4)), r"pred: unknown class 'Car' .*\(did you mean 'car'"),
        ((truth(), pred(label=[0, 1, 2, 11])), r"pred.label\[3\] must be a code into the 10 classes"),
        ((truth(label=[0, 1, 2, 11]), pred()), r"truth.label\[3\] must be a code into the 10 classes"),
        (
            (truth(), truth(box_columns={"Score": np.ones(4)})),
            "have no scores .predictions need score=, and 'Score' is a",
        ),
        ((pred(box_columns={"score_of_truth": [1] * 4}), truth(box_columns={"conf": [1] * 4})), "are the two swapped"),
        ((truth(), truth(box_columns={"confusable": np.ones(4)})), "predictions need score=.$"),
        ((truth(), truth()), r"pred: these predictions have no scores \(are they truth\? predictions need score=\)"),
        ((pred(), truth()), "have no scores .truth comes first, and its boxes have scores: are the two swapped"),
    ],
)
def test_errors_say_which_side_is_wrong(sides: tuple[dm.Boxes, dm.Boxes], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dm.evaluate(*sides, dm.NUSCENES)


def test_errors_about_a_ledger_speak_of_its_truth() -> None:
    ledger = dm.match(truth(), pred(), dm.NUSCENES)
    for ask, message in {
        lambda: dm.bootstrap(ledger): "a column of the frames of truth, which has none",
        lambda: dm.slices(ledger, "points"): "cannot slice by points: truth does not say it",
    }.items():
        with pytest.raises(InputError, match=message):
            ask()


LEDGER = dm.match(truth(), pred(), dm.NUSCENES)
GATE = Gate.from_dict({"rule": [{"metric": "NDS"}]})
NO_LEDGERS = {
    "scores": dm.score(LEDGER),
    "boxes": LEDGER.pred,
    "path": "run.ledger",
    "pair": (LEDGER.truth, LEDGER.pred),
    "nothing": None,
}


@pytest.mark.parametrize("value", NO_LEDGERS.values(), ids=NO_LEDGERS)
@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (dm.score, "ledger"),
        (lambda one: dm.slices(one, "range"), "ledger"),
        (dm.bootstrap, "ledger"),
        (lambda one: dm.bootstrap(one, by="range"), "ledger"),
        (lambda one: dm.compare(one, LEDGER), "baseline"),
        (lambda one: dm.compare(LEDGER, one), "candidate"),
        (lambda one: GATE.check(one, LEDGER), "baseline"),
        (lambda one: GATE.check(LEDGER, one), "candidate"),
        (dm.diagnose, "ledger"),
        (dm.frames, "ledger"),
        (dm.operating_points, "ledger"),
        (lambda one: dm.concat([LEDGER, one]), "ledgers[1]"),
        (to_arrow, "ledger"),
        (lambda one: dm.io.ledgers.save(one, "x"), "ledger"),
    ],
)
def test_what_is_no_ledger_says_what_gives_one(ask: Callable[[Any], object], what: str, value: object) -> None:
    with pytest.raises(InputError) as told:
        ask(value)
    assert str(told.value).startswith(
        f"{what} must be a Ledger, as detmetrics.match(truth, pred, protocol) gives it, got "
        if value is not None
        else f"{what} must be a Ledger, as detmetrics.match(truth, pred, protocol) gives it (detmetrics.Ledger.load"
    )
    assert str(told.value).endswith("(detmetrics.Ledger.load(path) reads a saved one)")
    assert len(str(told.value)) < 300


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: dm.concat(LEDGER), "ledgers must be a sequence of Ledger, got <Ledger"),
        (lambda: dm.score(LEDGER, np.ones(1)), r"weights must be Weights\(frame=…, event=…, truth=…\), got array"),
        (lambda: dm.score(LEDGER, "official"), r"weights must be Weights.*got 'official'"),
        (lambda: dm.slices(LEDGER, ["range"]), r"what to slice by must be text as .*got \['range'\]"),
        (lambda: dm.slices(LEDGER, None), "what to slice by must be text as"),
        (lambda: dm.bootstrap(LEDGER, "frame"), "number of replicates must be a whole number.*got 'frame'"),
        (lambda: dm.bootstrap(LEDGER, 1e3, "frame"), "number of replicates must be a whole number.*got 1000.0"),
        (lambda: dm.bootstrap(LEDGER, 10, "frame", seed="a"), "seed must be a whole number.*got 'a'"),
        (lambda: dm.bootstrap(LEDGER, 10, "frame", level="95%"), "level must be between 0 and 1, got '95%'"),
        (lambda: dm.io.load(None), "what to read must be a path"),
        (lambda: dm.io.load(["a.json"]), r"what to read must be a path, got \['a.json'\]"),
        (lambda: dm.io.load("a\0b"), "what to read must be a path"),
        (lambda: dm.io.load("~/nothing.json"), r"cannot read ~/nothing.json: .*\(write .* for ~\)"),
        (lambda: LEDGER.save(LEDGER), "output must be a path"),
        (lambda: LEDGER.save("~/none/x.ledger"), r"output must be in a folder that exists.*\(write .* for ~\)"),
    ],
)
def test_one_thing_in_place_of_another(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()


def test_a_report_of_a_generator(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    dm.report((one for one in [LEDGER]), tmp_path / "x.html", n=0)  # type: ignore[arg-type]
    assert (tmp_path / "x.html").stat().st_size > 10_000


def test_a_report_of_what_is_no_ledger(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    for given in (dm.score(LEDGER), [LEDGER, dm.score(LEDGER)], None):
        with pytest.raises(InputError, match=r"what to report must be a Ledger, as detmetrics.match"):
            dm.report(given, tmp_path / "x.html")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="output must be a path, got <Ledger"):
        dm.report(str(tmp_path / "x.html"), LEDGER)  # type: ignore[arg-type]


class NA:
    """What pandas puts where something is missing: no number, no truth value, equal to nothing."""

    def __repr__(self) -> str:
        return "<NA>"

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    def __eq__(self, other: object) -> Any:
        return self

    __hash__ = object.__hash__


def objects(*values: object) -> Any:
    """An array of objects, as pandas gives nullable columns to numpy."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("num_points", objects(1, NA(), 2, None), [1, np.nan, 2, np.nan]),
        ("num_points", [1, None, 2, float("nan")], [1, np.nan, 2, np.nan]),
        ("num_points", np.ma.array([1, 2, 3, 4], mask=[0, 1, 0, 0]), [1, np.nan, 3, 4]),
        ("velocity_mps", objects((1, 0), [NA(), 0], [2, 0], np.ones(2)), None),
        ("score", ["0.5", "1", "0", "1e-1"], [0.5, 1, 0, 0.1]),
        ("center_m", objects([1, 2, 3], (1, 2, 3), np.array([1, 2, 3]), [1.0, 2, 3]), [[1, 2, 3]] * 4),
        ("place", objects(3, 2, 1, 0), [3, 2, 1, 0]),
        ("label", objects(0, 1, 2, 0), [0, 1, 2, 0]),
        ("attribute", ["x", None, "y", "x"], [0, 1, 2, 0]),
        ("attribute", [float("nan"), "x", "y", "x"], [0, 1, 2, 1]),
        ("attribute", objects("x", NA(), "y", "x"), [0, 1, 2, 0]),
        ("attribute", [float("nan")] * 4, [0] * 4),
    ],
)
def test_columns_of_other_libraries(name: str, given: Any, expected: Any) -> None:
    if expected is None:
        with pytest.raises(InputError, match=r"boxes.velocity_mps\[1\] must be 2 numbers, got \[<NA>, 0\]"):
            truth(**{name: given})
        return
    np.testing.assert_array_equal(getattr(truth(**{name: given}), name), expected)


def test_missing_attributes_are_none_also_where_a_table_is_given() -> None:
    boxes = truth(attribute=["x", None, "x", NA()], attributes=["x"])
    assert [boxes.attributes[code] for code in boxes.attribute] == ["x", "", "x", ""]  # type: ignore[union-attr]


def test_free_columns_of_other_libraries() -> None:
    given = {
        "numbers": objects(1, NA(), 2.5, None),
        "texts": objects("x", None, NA(), "y"),
        "mixed": objects("x", 1, None, True),
        "nothing": objects(None, None, None, None),
        "long": objects(1 << 60, None, 1, 2),
    }
    found = truth(box_columns=given).box_columns
    np.testing.assert_array_equal(found["numbers"], [1, np.nan, 2.5, np.nan])
    assert found["texts"].tolist() == ["x", "", "", "y"]
    assert found["mixed"].tolist() == ["x", "1", "", "True"]
    assert found["nothing"].tolist() == [""] * 4
    assert found["long"].tolist() == [str(1 << 60), "", "1", "2"]
    (weather,) = truth(frame_columns={"weather": [None]}).frame_columns.values()
    assert weather.tolist() == [""]


def test_free_columns_with_texts_are_texts() -> None:
    """Wherever a missing one stands, and whatever the other parts hold."""
    for given in (["a", None, "b", float("nan")], ["a", NA(), "b", None]):
        assert truth(box_columns={"w": given}).box_columns["w"].tolist() == ["a", "", "b", ""]
    assert truth(box_columns={"w": [None, "a", "b", "c"]}).box_columns["w"].tolist() == ["", "a", "b", "c"]
    parts = [
        truth(frame=[name] * 4, box_columns={"w": column})
        for name, column in {"a": [None] * 4, "b": [1, None, 2.5, 3], "c": ["x", None, "y", "z"]}.items()
    ]
    assert dm.Boxes.concat(parts).box_columns["w"].tolist() == ["", "", "", "", "1", "", "2.5", "3", "x", "", "y", "z"]
    numbers = dm.Boxes.concat([parts[1], truth(frame=["d"] * 4, box_columns={"w": [1, 2, 3, 4]})]).box_columns["w"]
    np.testing.assert_array_equal(numbers, [1, np.nan, 2.5, 3, 1, 2, 3, 4])


def test_masked_arrays() -> None:
    mask = [0, 1, 0, 0]
    days = np.ma.array(np.array(["2020-01-01"] * 4, "datetime64[ns]"), mask=mask)
    boxes = truth(
        velocity_mps=np.ma.array(np.ones((4, 2)), mask=[[m, m] for m in mask]),
        box_columns={"day": days, "whole": np.ma.array([1.0, 2, 3, 4]), "few": np.ma.array([1, 2, 3, 4], mask=mask)},
    )
    np.testing.assert_array_equal(boxes.velocity_mps[:, 0], [1, np.nan, 1, 1])  # type: ignore[index]
    assert np.isnat(boxes.box_columns["day"]).tolist() == [False, True, False, False]
    assert boxes.box_columns["whole"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(boxes.box_columns["few"], [1, np.nan, 3, 4])


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    boxes = truth(
        center_m=torch.ones(4, 3, requires_grad=True),
        score=torch.full((4,), 0.5, dtype=torch.bfloat16),
        label=torch.arange(4),
        box_columns={"logit": torch.ones(4, requires_grad=True)},
    )
    assert boxes.center_m.tolist() == [[1, 1, 1]] * 4
    assert boxes.score.tolist() == [0.5] * 4  # type: ignore[union-attr]
    assert boxes.label.tolist() == [0, 1, 2, 3]
    assert boxes.box_columns["logit"].tolist() == [1] * 4
    with pytest.raises(InputError, match=r"boxes.score must be an array.*requires grad"):
        truth(score=[torch.ones((), requires_grad=True)] * 4)


def test_frames_of_pandas() -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"x": [1.0, 2], "y": pd.array([1, 2], "Int64"), "label": pd.Categorical(["car", "bus"])})
    table["z"] = pd.array([1, None], "Float64")
    given = {"center_m": table[["x", "y", "x"]], "label": table["label"], "num_points": table["z"]}
    boxes = truth(**{**columns(2), **given})
    assert boxes.labels == ("car", "bus")
    np.testing.assert_array_equal(boxes.num_points, [1, np.nan])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"boxes.center_m\[1\] must be finite, got \[2.0, 2.0, nan\]"):
        truth(**{**columns(2), "center_m": table[["x", "y", "z"]], "label": table["label"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"center_m": [[1, 2, 3], [1, 2], [1, 2, 3], [1, 2, 3]]}, r"center_m\[1\] must be 3 numbers, got \[1, 2\]"),
        ({"yaw_rad": [0, None, 0, 0]}, r"yaw_rad\[1\] must be finite, got nan"),
        ({"score": np.ma.array(np.ones(4), mask=[0, 0, 1, 0])}, r"score\[2\] must be finite, got nan"),
        ({"score": ["0.5", "high", "0", "1"]}, r"score\[1\] must be a number, got 'high'"),
        ({"score": np.full(4, 0.5 + 1j)}, r"score must be numbers of shape \(4,\), got 'complex128'"),
        ({"score": [0.5 + 1j] * 4}, r"score must be numbers of shape \(4,\), got 'complex128'"),
        ({"yaw_rad": np.array(["2026-01-01"] * 4, "datetime64[ns]")}, r"yaw_rad must be numbers .*'datetime64\[ns\]'"),
        ({"num_points": np.ones(4, "timedelta64[s]")}, r"num_points must be numbers .*'timedelta64\[s\]'"),
        ({"score": (x for x in range(4))}, r"score must be numbers of shape \(4,\), got <generator"),
        ({"yaw_rad": {0: 1}}, r"yaw_rad must be numbers of shape \(4,\), got \{0: 1\}"),
        ({"place": [0, 1, 2.5, 3]}, r"place\[2\] must be a whole number, got 2.5"),
        ({"place": objects(0, 1, 2.5, 3)}, r"place\[2\] must be a whole number, got 2.5"),
        ({"place": [0, 1, None, 3]}, r"place\[2\] must be a whole number, got nan"),
        ({"place": [10**30] * 4}, "place must be numbers"),
        ({"frame_place": [0.5]}, r"frame_place\[0\] must be a whole number, got 0.5"),
        ({"label": ["car", None, "car", "car"]}, r"label\[1\] must be a name \(str\) \(it is None\)"),
        ({"label": [float("nan"), "car", "car", "car"]}, r"label\[0\] must be a name \(str\), got nan"),
        ({"label": objects("car", NA(), "car", "car")}, r"label\[1\] must be a name \(str\), got <NA>"),
        ({"label": objects(0, NA(), 1, 2)}, r"label\[1\] must be a name \(str\), got <NA>"),
        ({"label": objects(["car"], "car", "car", "car")}, r"label\[0\] must be a name \(str\), got \['car'\]"),
        ({"label": [0.0, 1.0, 0.0, 0.0]}, r"label\[0\] must be a name \(str\), got 0.0 \(codes are whole numbers"),
        ({"frame": ["a", None, "a", "a"]}, r"frame\[1\] must be a name \(str\) \(it is None\)"),
        ({"frames": "abc"}, "frames must be a sequence of names, got 'abc'"),
        ({"frames": 4}, "frames must be a sequence of names, got 4"),
        ({"box_columns": ["occlusion"]}, "box_columns must be a mapping of names"),
        ({"box_columns": {"w": [[1], [1, 2], [3], [4]]}}, r"box_columns\['w'\] must be of one value each"),
        ({"label": ["car", ["car"], "car", "car"]}, r"label\[1\] must be a name \(str\), got \['car'\]"),
        ({"frame_columns": "scene"}, "frame_columns must be a mapping of names, got 'scene'"),
        ({"meta": "camera"}, "meta must be a mapping of names, got 'camera'"),
    ],
)
def test_columns_that_cannot_be_taken_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"^boxes.{message}"):
        truth(**change)


def heading_note(truth_rad: Any, pred_rad: Any, label: str = "car", rules: dm.Protocol = dm.NUSCENES) -> str:
    """What first aid says of the headings of matches."""
    n = len(truth_rad)
    both = columns(n, center_m=np.c_[np.arange(n) * 0.05, np.zeros((n, 2))], label=[label] * n)
    both["frame"] = [str(i // 100) for i in range(n)]
    sides = (dm.Boxes(**{**both, "yaw_rad": truth_rad}), dm.Boxes(**{**both, "yaw_rad": pred_rad}, score=np.ones(n)))
    found = [note for note in dm.match(*sides, rules).notes if "headings" in note]
    assert len(found) <= 1
    return found[0] if found else ""


def headings(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Headings of truth, most of them along two streets, and what a detector makes of them."""
    random = np.random.default_rng(seed)
    streets = random.integers(0, 4, n) * np.pi / 2 + random.normal(0, 0.3, n)
    truth_rad = np.where(random.random(n) < 0.3, random.uniform(-np.pi, np.pi, n), streets)
    return truth_rad, truth_rad + random.normal(0, 0.1, n)


@pytest.mark.parametrize("n", [10, 300])
@pytest.mark.parametrize(
    ("misread", "what"),
    [
        (lambda yaw: yaw + np.pi / 2, "turned by .90°: .* with 90° taken off"),
        (lambda yaw: yaw - np.pi / 2, "turned by -90°: .* with 90° added"),
        (lambda yaw: np.remainder(yaw + np.pi, 2 * np.pi), "turned by 180°: .* turned back"),
        (lambda yaw: -yaw, "mirrored, clockwise in place of counter-clockwise: .* with the other sign"),
        (lambda yaw: np.pi / 2 - yaw, "mirrored and turned, as of a compass"),
        (lambda yaw: -yaw - np.pi / 2, "mirrored and turned, as angles about a camera"),
        (np.degrees, "in degrees, not radians, in the predictions: .* as degrees"),
    ],
)
def test_misread_headings_are_noticed(misread: Callable[[Any], Any], what: str, n: int) -> None:
    truth_rad, pred_rad = headings(n)
    if n == 10:  # so few on two streets may be mirrored and turned alike
        truth_rad = np.arange(n) * 0.6 + 0.3
        pred_rad = truth_rad + 0.1
    note = heading_note(truth_rad, misread(pred_rad))
    assert re.match(f"headings look {what}", note), note
    before, after = (int(share) for share in re.findall(r"(\d+)% (?:of those|with|turned|as)", note))
    assert before <= 25
    assert after == 100
    assert heading_note(truth_rad, pred_rad) == ""
    assert heading_note(truth_rad[:9], misread(pred_rad[:9])) == "", "nine show nothing"


def test_headings_in_degrees_on_the_other_side_or_on_both() -> None:
    truth_rad, pred_rad = headings(300)
    assert "radians, in truth" in heading_note(np.degrees(truth_rad), pred_rad)
    assert "radians, on both sides" in heading_note(np.degrees(truth_rad), np.degrees(pred_rad))


def test_one_heading_that_was_not_wrapped_makes_no_degrees() -> None:
    """Along one street, where nearly half of the fronts are flipped, degrees in place of radians would be right, too."""
    truth_rad = np.linspace(-0.05, 0.05, 400)
    pred_rad = np.where(np.arange(400) % 20 < 9, truth_rad + np.pi, truth_rad)
    assert heading_note(truth_rad, pred_rad) == ""
    pred_rad[0] += 6 * np.pi
    assert heading_note(truth_rad, pred_rad) == ""


def test_classes_without_a_front_say_nothing_of_headings() -> None:
    truth_rad, pred_rad = headings(300)
    for label, rules in (("barrier", dm.NUSCENES), ("traffic_cone", dm.NUSCENES), ("car", symmetric())):
        assert heading_note(truth_rad, pred_rad + np.pi, label, rules) == ""
        assert heading_note(truth_rad, pred_rad + np.pi / 2, label, rules) == ""


def symmetric() -> dm.Protocol:
    """Rules by which front and back of a car look alike."""
    tasks = [{"label": "car", "yaw_period_rad": np.pi}]
    return dm.Protocol.from_dict({"extends": "nuscenes", "name": "mine", "tasks": tasks, "mapping": {}, "regions": {}})


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [10, 30, 300])
def test_the_faults_of_a_detector_are_not_taken_for_misread_headings(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth_rad, pred_rad = headings(n, seed)
    turned = random.permutation(n) < 0.4 * n
    assert heading_note(truth_rad, pred_rad + np.where(turned, np.pi, 0)) == ""
    assert heading_note(truth_rad, pred_rad + np.where(turned, np.pi / 2, 0)) == ""
    assert heading_note(truth_rad, random.uniform(-np.pi, np.pi, n)) == "", "headings at random"
    assert heading_note(truth_rad, random.uniform(-500, 500, n)) == "", "degrees at random"
    assert heading_note(truth_rad, random.normal(0, 0.05, n)) == "", "one heading for all, about"
    assert heading_note(truth_rad, pred_rad + random.integers(0, 4, n) * np.pi / 2) == "", "any of four"
    assert heading_note(np.full(n, np.pi / 2), np.zeros(n)) == "", "a detector without headings"
    assert heading_note(truth_rad, pred_rad + random.integers(-9, 9, n) * 2 * np.pi) == "", "whole turns"


@pytest.mark.parametrize("seed", range(12))
def test_predictions_of_the_made_up_world_get_no_note_on_headings(seed: int) -> None:
    """Whatever the detector is worth, however few frames there are, and in each class alone."""
    random = np.random.default_rng(seed)
    sizes = {"n_frames": int(random.integers(1, 12)), "boxes_per_sample": int(random.integers(20, 200))}
    sides = make_boxes(seed=seed, samples_per_scene=12, quality=float(random.uniform(0.2, 1)), **sizes)
    labels = sides[1].labels or ()
    for one in (sides, *((sides[0], only(sides[1], code)) for code in range(len(labels)))):
        assert not [note for note in dm.match(*one, dm.NUSCENES).notes if "headings" in note]


def test_misread_predictions_of_the_made_up_world_get_one() -> None:
    sides = make_boxes(n_frames=10, boxes_per_sample=100)
    for what, yaw_rad in {"turned by +90°": sides[1].yaw_rad + np.pi / 2, "mirrored, clock": -sides[1].yaw_rad}.items():
        found = dm.match(sides[0], sides[1].replace(yaw_rad=yaw_rad), dm.NUSCENES).notes
        assert [note for note in found if f"headings look {what}" in note]


def only(boxes: dm.Boxes, code: int) -> dm.Boxes:
    """The boxes of one class."""
    rows = boxes.label == code
    columns = ("center_m", "size_lwh_m", "yaw_rad", "label", "frame", "place", "score")
    given = {name: getattr(boxes, name)[rows] for name in columns}
    return dm.Boxes(**given, labels=boxes.labels, frames=boxes.frames)


def test_what_is_printed_is_short_and_a_table_where_there_is_one() -> None:
    sides = make_boxes(n_frames=12, samples_per_scene=6, boxes_per_sample=60)
    ledger = dm.match(*sides, dm.NUSCENES)
    points = dm.operating_points(ledger)
    verdict = Gate.from_dict({"rule": [{"metric": "NDS"}], "n": 20}).check(ledger, ledger)
    for value, starts, in_table in (
        (sides[0], "<Boxes 391 boxes in 12 frames", ""),
        (ledger, "<Ledger nuscenes|", ""),
        (dm.NUSCENES, "<Protocol nuscenes|detection_cvpr_2019: 10 classes, NDS>", "nearer than 0.5, 1, 2, 4 m"),
        (dm.score(ledger), "<Scores nuscenes|", "construction_vehicle"),
        (dm.frames(ledger), "<Frames 12: ", "NDS without it"),
        (dm.slices(ledger, "range"), "<Slices by range: '0-10'", "20-30"),
        (dm.bootstrap(ledger, 20), "<Bootstrap NDS ", "standard error"),
        (dm.compare(ledger, ledger, 20), "<Comparison NDS +0.0000", "detectable"),
        (dm.diagnose(ledger), "<Diagnosis: ", "what it means"),
        (points, "<OperatingPoints within 2 m: 207 TP, 26 FP, 55 missed>", "truth in rows"),
        (verdict, "<Verdict: passed, its one rule met>", "NDS: no significant drop"),
        (ledger.matches, "<Matches 784 ", ""),
        (dm.score(ledger).curve("car", 2.0), "<CurveValues at 101 recalls, reaches recall 0.81, errors: trans_err", ""),
    ):
        assert repr(value).startswith(starts), repr(value)
        assert len(repr(value)) < 140
        assert "\n" not in repr(value)
        assert in_table in str(value)
        assert max(map(len, str(value).splitlines())) < 200


def test_scores_by_name() -> None:
    scores = dm.score(LEDGER)
    assert scores["NDS"] == scores.nds
    assert "NDS" in scores
    assert "nds" not in scores
    assert dict(scores).keys() == scores.to_flat_dict().keys()
    assert scores["mAP"] == scores.mean_ap
    assert scores["AP/car"] == scores.class_ap["car"]
    assert np.isnan(scores["AOE/traffic_cone"])
    for name, near in {
        "nds": "'NDS'",
        "map": "'mAP'",
        "car": "'AP/car'",
        "AP/Car": "'AP/car'",
        "aoe/CAR": "'AOE/car'",
    }.items():
        with pytest.raises(InputError, match=f"unknown metric {name!r} .did you mean .*{near}"):
            scores[name]


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (dm.Protocol, {"extends": "nuscenes", "affinty": {}}, r"unknown field `affinty` \(did you mean 'affinity'\?\)"),
        (
            dm.Protocol,
            {"extends": "nuscenes", "affinity": {"tresholds": [1]}},
            r"affinity` \(did you mean 'thresholds'",
        ),
        (dm.Protocol, {"extends": "nuscenes", "tasks": [{"label": "car", "rang_m": 3}]}, r"did you mean 'range_m'\?"),
        (dm.Protocol, {"extends": "nuscenes", "affinity": {"kind": "centre_xy"}}, "did you mean 'center_xy', 'cen"),
        (dm.Protocol, {"extends": "nuscenes", "assignment": "nearest"}, r"'nearest' .*did you mean 'nearest_free'\?"),
        (dm.Protocol, {"extends": "nuscenes", "regions": {"a": 3}}, r"Expected `array`, got `int` - at `\$.regions"),
        (dm.Protocol, {"name": "mine"}, r"missing required field `tasks` \(extends = .nuscenes. takes"),
        (dm.Protocol, "nuscenes", "protocol must be a mapping of the fields of a protocol, got 'nuscenes'"),
        (dm.Protocol, None, "protocol must be a mapping of the fields of a protocol"),
        (Gate, {"rules": []}, r"unknown field `rules` \(did you mean 'rule'\?\)"),
        (Gate, {"rule": [{"metric": "NDS", "tolerence": 1}]}, r"did you mean 'tolerance'\?"),
        (Gate, {"rule": [{"metric": "NDS", "label": "car"}]}, r"`label` .*\(known: 'metric', 'class', 'slice', 'tol"),
        (Gate, {"rule": [{"metric": "NDS"}], "draws": 9}, r"`draws` \(known: 'rule', 'level', 'n', 'unit', 'seed'\)"),
        (Gate, [], r"gate must be a mapping of the fields of a gate, got \[\]"),
    ],
)
def test_unknown_keys_get_near_names(make: Any, values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make.from_dict(values)


def test_settings_of_a_server_get_near_names() -> None:
    settings = pytest.importorskip("detmetrics_server.settings")
    with pytest.raises(InputError, match=r"unknown field `max_wating` \(did you mean 'max_waiting'"):
        settings.load({"storage": "x", "max_wating": "3"}, environment={})


def command(*words: object) -> str:
    """Run a command that must be refused, and give the sentence."""
    done = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert isinstance(done.exception, InputError), (done.output, done.exception)
    return str(done.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("export", "run.ledger", "rows.csv"), "ending of the output must be .parquet, got 'rows.csv'"),
        (("export", "run.ledger", "rows"), "ending of the output must be .parquet, got 'rows'"),
        (("convert", "a.json", "b.csv"), "ending of the output must be .parquet or .json, got 'b.csv'"),
        (("report", "run.ledger", "-o", "a.pdf"), "ending of --output must be .html or .htm, got 'a.pdf'"),
        (
            ("detector", "plain", "--data", ".", "--split", "val", "--out", "a.txt"),
            "ending of --out must be .json or .parquet, got 'a.txt'",
        ),
    ],
)
def test_unknown_endings_are_refused_before_any_work(words: tuple[str, ...], message: str) -> None:
    assert command(*words) == message


def test_the_ending_of_predictions_is_refused_before_any_work() -> None:
    pytest.importorskip("torch")
    told = command("detector", "predict", "--data", "nowhere", "--split", "val", "--out", "a.txt")
    assert told == "ending of --out must be .json or .parquet, got 'a.txt'"


def test_headings_in_degrees_along_one_street_are_noticed_though_zero_is_right() -> None:
    random = np.random.default_rng(0)
    truth_rad = random.integers(0, 2, 300) * np.pi + random.normal(0, 0.02, 300)
    assert "in degrees" in heading_note(truth_rad, np.degrees(truth_rad))
    assert heading_note(truth_rad, truth_rad) == ""


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: dm.match(truth(), pred(), dm.NUSCENES, threads="2"), "threads must be a whole number, got '2'"),  # type: ignore[arg-type]
        (lambda: dm.match(truth(), pred(), dm.NUSCENES, threads=2.0), "threads must be a whole number, got 2.0"),  # type: ignore[arg-type]
        (lambda: dm.bootstrap(LEDGER, 9, "frame", threads="2"), "to draw .frame. must be at least 2, got 1"),  # type: ignore[call-overload]
        (lambda: dm.frames(LEDGER, threads="2"), "threads must be a whole number"),  # type: ignore[arg-type]
        (lambda: dm.frames(LEDGER, among="3"), "among must be a whole number"),  # type: ignore[arg-type]
        (lambda: dm.frames(LEDGER).worst("3"), "n must be a whole number"),  # type: ignore[arg-type]
        (lambda: dm.frames(LEDGER).best(-1), "n must be zero or more, got -1"),
        (lambda: dm.operating_points(LEDGER, bins=1.5), "bins must be a whole number"),  # type: ignore[call-overload]
        (lambda: dm.diagnose(LEDGER, {"size": 1}), r"rules must be detmetrics.diagnosis.Rules\(…\), got \{'size': 1\}"),  # type: ignore[arg-type]
        (lambda: dm.diagnose(LEDGER).counts("Car"), r"label must be one of .*\(did you mean 'car'\?\)"),
        (lambda: pred().take("a"), "frames to take must be a sequence of names or codes, got 'a'"),
        (lambda: pred().take(0), "frames to take must be a sequence of names or codes, got 0"),  # type: ignore[arg-type]
        (lambda: dm.Boxes.concat([pred(), 3]), r"parts\[1\] must be Boxes, got 3"),  # type: ignore[list-item]
        (lambda: dm.io.load_truth(None), "truth must be a path"),  # type: ignore[arg-type]
        (lambda: dm.io.load_truth(".", split=["val"]), r"split must be one name, got \['val'\]"),  # type: ignore[arg-type]
        (lambda: dm.io.load_truth(".", version=1), "version must be one name, got 1"),  # type: ignore[arg-type]
        (lambda: dm.io.load_truth(".", scenes="scene-1"), "scenes must be a list of names, got 'scene-1'"),  # type: ignore[arg-type]
        (lambda: dm.io.nuscenes.write_results(LEDGER, "x.json"), "what to write must be Boxes, got <Ledger"),  # type: ignore[arg-type]
    ],
)
def test_odd_arguments(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()


def test_odd_arguments_of_what_needs_extras(tmp_path: Path) -> None:
    for package in ("jinja2", "pyarrow"):
        pytest.importorskip(package)
    with pytest.raises(InputError, match="names must be a list of texts, got 'v1'"):
        dm.report([LEDGER], tmp_path / "x.html", names="v1")
    with pytest.raises(InputError, match="by must be a list of texts, got 'range'"):
        dm.report([LEDGER], tmp_path / "x.html", by="range")
    with pytest.raises(InputError, match="number of replicates must be a whole number, got '1000'"):
        dm.report([LEDGER], tmp_path / "x.html", n="1000")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="what to write must be Boxes, got <Ledger"):
        dm.io.parquet.write(LEDGER, tmp_path / "x.parquet")  # type: ignore[arg-type]
    table = tmp_path / "x.parquet"
    dm.io.parquet.write(pred(), table)
    parquet = pytest.importorskip("pyarrow.parquet")
    names = [{"yaw_rad": "yaw"}.get(name, name) for name in parquet.read_table(table).column_names]
    parquet.write_table(parquet.read_table(table).rename_columns(names), table)
    with pytest.raises(InputError, match=r"x.parquet lacks the columns 'yaw_rad' \(it has .*'yaw'\)"):
        dm.io.load(table)
    with pytest.raises(InputError, match="by must be a slicing or a sequence of them"):
        LEDGER.to_arrow(None)  # type: ignore[arg-type]


def test_files_that_are_something_else(tmp_path: Path) -> None:
    saved, packed, pickled, results, pointer = (tmp_path / name for name in ("a", "r.json.gz", "r.pkl", "r.json", "p"))
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n")
    LEDGER.save(saved)
    packed.write_bytes(gzip.compress(b"{}"))
    pickled.write_bytes(pickle.dumps({"results": {}}))
    results.write_text('{"meta": {}, "results": {}}')
    for read in (dm.io.load, dm.io.load_truth):
        for path, told in {
            saved: r"saved ledger or a zip \(detmetrics.Ledger.load",
            packed: r"packed with gzip \(unpack it first",
            pointer: r"is a pointer of Git LFS, not the file itself \(git lfs pull",
            pickled: "is a pickle, which could run any code",
        }.items():
            with pytest.raises(InputError, match=told):
                read(path)
    with pytest.raises(InputError, match=r"r.json is not a Parquet file \(truth is .* result files hold predictions\)"):
        dm.io.load_truth(results)


def test_another_split_is_noticed() -> None:
    two = {"frame": ["x", "x", "y", "y"]}
    for found in (pred(**two), pred(**two, frames=["x", "y"])):
        with pytest.raises(InputError, match=r"they have none in common: is it another split, or another version\?"):
            dm.evaluate(truth(), found, dm.NUSCENES)
    part = truth(frames=["a", "z"], partial=True)
    with pytest.raises(InputError, match=r"lacks 2 of the 2 frames of truth.*they have none in common"):
        dm.evaluate(part, pred(**two, frames=["x", "y"]), dm.NUSCENES)
