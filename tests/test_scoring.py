"""Scores: weights, absent classes, curves, official files, the table, first aid."""

from __future__ import annotations

import json
import pickle
from typing import Any

import msgspec
import numpy as np
import pytest

import detmetrics as dm
import make
from detmetrics.errors import InputError
from detmetrics.reporting.official import without_nan
from detmetrics.scoring import Plan, higher_is_better


def one_frame(**changes: Any) -> dict[str, Any]:
    """Ten cars in a row, found perfectly."""
    n = 10
    given: dict[str, Any] = {
        "center_m": np.c_[np.arange(n) * 3.0, np.zeros((n, 2))],
        "size_lwh_m": np.tile((4.0, 2.0, 1.5), (n, 1)),
        "yaw_rad": np.zeros(n),
        "label": ["car"] * n,
        "frame": ["f"] * n,
    }
    return given | changes


def test_ap_of_perfect_cars_is_one() -> None:
    truth, pred = dm.Boxes(**one_frame()), dm.Boxes(**one_frame(score=np.linspace(0.9, 0.1, 10)))
    scores = dm.evaluate(truth, pred, dm.NUSCENES)
    assert scores.class_ap["car"] == pytest.approx(1, abs=1e-12)
    assert scores.mean_ap == pytest.approx(0.1, abs=1e-12)  # nine classes are absent
    only = dm.evaluate(truth, pred, dm.NUSCENES, absent="omit")
    assert only.mean_ap == pytest.approx(1, abs=1e-12)
    assert np.isnan(only.class_ap["bus"])
    assert only.tp_errors["ATE"] == 0
    assert only.n_truth.sum() == only.n_pred.sum() == 10
    assert "absent:omit" in only.signature


def test_labels_by_code_follow_the_class_order() -> None:
    truth = dm.Boxes(**one_frame(label=[1] * 10))
    pred = dm.Boxes(**one_frame(label=["truck"] * 10, score=np.ones(10)))
    assert dm.evaluate(truth, pred, dm.NUSCENES).class_ap["truck"] == pytest.approx(1, abs=1e-12)
    with pytest.raises(InputError, match=r"truth.label\[0\] must be a code into the 10 classes of nuscenes.*got 12"):
        dm.evaluate(dm.Boxes(**one_frame(label=[12] * 10)), pred, dm.NUSCENES)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (dm.Weights(frame=np.ones(3, int)), r"weights.frame must be of shape \(1,\), got \(3,\)"),
        (dm.Weights(frame=np.array([0.5])), "weights.frame must be whole numbers, got 'float64'"),
        (dm.Weights(frame=np.array([-1])), "weights.frame must be zero or more, got -1"),
        (dm.Weights(event=np.ones(10, int)), r"weights.event must be of shape \(4, 10\), got \(10,\)"),
        (dm.Weights(truth=np.ones(2, int)), r"weights.truth must be of shape \(10,\), got \(2,\)"),
    ],
)
def test_bad_weights_are_refused(weights: dm.Weights, message: str) -> None:
    ledger = dm.match(dm.Boxes(**one_frame()), dm.Boxes(**one_frame(score=np.ones(10))), dm.NUSCENES)
    with pytest.raises(InputError, match=message):
        dm.score(ledger, weights)


def test_weights_of_a_plan_and_of_a_run_multiply() -> None:
    truth, pred = make.scene(2, n_frames=6)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    first, second = np.array([1, 2, 0, 3, 1, 1]), np.array([2, 1, 1, 0, 1, 3])
    found = Plan(ledger, dm.Weights(frame=first)).run(second, details=True)
    for mine, theirs in zip(found, Plan(ledger, dm.Weights()).run(first * second, details=True), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(found, Plan(ledger, dm.Weights(frame=first)).run(details=True), strict=True):
        assert not np.array_equal(mine, theirs)


def test_bad_options_are_refused() -> None:
    truth, pred = dm.Boxes(**one_frame()), dm.Boxes(**one_frame(score=np.ones(10)))
    with pytest.raises(InputError, match="absent must be one of"):
        dm.evaluate(truth, pred, dm.NUSCENES, absent="maybe")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        dm.match(truth, pred, dm.NUSCENES, threads=0)
    with pytest.raises(InputError, match="have no scores"):
        dm.match(truth, truth, dm.NUSCENES)


def test_frames_must_agree() -> None:
    truth = dm.Boxes(**one_frame(frames=["f", "g"]))
    extra = dm.Boxes(**one_frame(frame=["f"] * 9 + ["z"], score=np.ones(10), source="r.json"))
    with pytest.raises(InputError, match=r"r.json has 1 frame that truth does not have: 'z'"):
        dm.match(truth, extra, dm.NUSCENES)
    fewer = dm.Boxes(**one_frame(frames=["f"], score=np.ones(10), source="r.json"))
    with pytest.raises(InputError, match=r"r.json lacks 1 of the 2 frames of truth: 'g'"):
        dm.match(truth, fewer, dm.NUSCENES)
    arrays = dm.Boxes(**one_frame(score=np.ones(10)))  # without a list of frames, empty ones need not be named
    assert dm.match(truth, arrays, dm.NUSCENES).n_frames == 2
    part = truth.replace(partial=True)
    ledger = dm.match(part, extra, dm.NUSCENES)
    assert ledger.n_extra_frames == 1
    assert len(ledger.event_pred) == 9
    assert "in 1 frame outside this part" in ledger.notes[-1]
    many = dm.Boxes(**one_frame(frame=[f"x{i}" for i in range(10)], score=np.ones(10)))
    with pytest.raises(InputError, match=r"has 10 frames .*'x0', 'x1', 'x2', 'x3', 'x4' and 5 more"):
        dm.match(truth, many, dm.NUSCENES)


def test_classes_and_attributes_must_be_known() -> None:
    truth = dm.Boxes(**one_frame())
    wrong = dm.Boxes(**one_frame(label=["car"] * 9 + ["cra"], score=np.ones(10), source="r.json"))
    with pytest.raises(InputError, match=r"r.json: unknown class 'cra' in box 9 of frame 'f' \(did you mean 'car'"):
        dm.match(truth, wrong, dm.NUSCENES)
    wrong = dm.Boxes(**one_frame(attribute=["vehicle.flying"] * 10, score=np.ones(10), source="r.json"))
    with pytest.raises(InputError, match=r"unknown attribute 'vehicle.flying' in box 0 of frame 'f' and 9 more"):
        dm.match(truth, wrong, dm.NUSCENES)


def test_too_many_boxes_are_refused() -> None:
    rules = msgspec.structs.replace(dm.NUSCENES, max_boxes_per_frame=9)
    pred = dm.Boxes(**one_frame(score=np.ones(10), source="r.json"))
    with pytest.raises(InputError, match=r"r.json: boxes in frame 'f' must be at most 9, got 10"):
        dm.match(dm.Boxes(**one_frame()), pred, rules)


def test_as_many_boxes_as_are_allowed_and_any_number_in_ignored_frames() -> None:
    rules = msgspec.structs.replace(dm.NUSCENES, max_boxes_per_frame=10)
    assert len(dm.match(dm.Boxes(**one_frame()), dm.Boxes(**one_frame(score=np.ones(10))), rules).event_pred) == 10
    many = {key: np.repeat(value, 2, axis=0) for key, value in one_frame(score=np.ones(10)).items()}
    pred = dm.Boxes(**{**many, "frame": ["f", "z", "z", "z"] * 5})
    assert len(dm.match(dm.Boxes(**one_frame()).replace(partial=True), pred, rules).event_pred) == 5


def test_curves_and_files_have_the_official_form() -> None:
    truth, pred = make.scene(3)
    scores = dm.evaluate(truth, pred.replace(meta={"use_lidar": True}), dm.NUSCENES)
    curve = scores.curve("car", 0.5)
    assert curve.precision.shape == (101,)
    assert list(curve.errors) == ["trans_err", "scale_err", "orient_err", "vel_err", "attr_err"]
    with pytest.raises(InputError, match="unknown class 'cart'"):
        scores.curve("cart", 0.5)
    with pytest.raises(InputError, match=r"threshold must be one of \(0.5, 1.0, 2.0, 4.0\), got 0.7"):
        scores.curve("car", 0.7)
    summary = scores.to_summary()
    assert set(summary) == {
        "label_aps", "mean_dist_aps", "mean_ap", "label_tp_errors", "tp_errors", "tp_scores", "nd_score", "eval_time",
        "cfg", "meta", "signature",
    }  # fmt: skip
    assert summary["meta"] == {"use_lidar": True}
    assert summary["eval_time"] > 0
    assert np.isnan(summary["label_tp_errors"]["traffic_cone"]["vel_err"])
    text = json.dumps(without_nan(summary), allow_nan=False)
    assert json.loads(text)["label_tp_errors"]["traffic_cone"]["vel_err"] is None
    details = scores.to_details()
    assert len(details) == 40
    assert set(details["barrier:4.0"]) == {"recall", "precision", "confidence", *curve.errors}


def test_the_table_says_what_counts() -> None:
    truth, pred = make.scene(3, absent=("bus",))
    scores = dm.evaluate(truth, pred, dm.NUSCENES)
    text = str(scores)
    for word in ("car", "barrier", "AP", "ATE", "ASE", "AOE", "AVE", "AAE", "mean", "NDS", "mAP", f"{scores.nds:.4f}"):
        assert word in text
    assert scores.signature in text.replace("\n", "")
    assert "without truth, counts AP 0 and the worst errors: " in text
    assert repr(scores).startswith("<Scores nuscenes|detection_cvpr_2019: NDS ")


def test_the_share_of_unknown_velocities_is_shown() -> None:
    velocity = np.zeros((10, 2))
    velocity[:3] = np.nan
    truth = dm.Boxes(**one_frame(velocity_mps=np.zeros((10, 2))))
    pred = dm.Boxes(**one_frame(score=np.ones(10), velocity_mps=velocity))
    scores = dm.evaluate(truth, pred, dm.NUSCENES)
    assert scores.nan_velocity_share == pytest.approx(0.3)
    assert "nan-velocity:30.00%" in scores.signature
    assert "30.0% of the predictions have no velocity" in str(scores)


def test_scores_can_be_pickled() -> None:
    truth, pred = make.scene(3)
    scores = dm.evaluate(truth, pred, dm.NUSCENES)
    again = pickle.loads(pickle.dumps(scores))
    assert again.nds == scores.nds
    assert again.signature == scores.signature


def notes(truth: dict[str, Any], pred: dict[str, Any]) -> str:
    given = one_frame(score=np.linspace(1, 0.5, 10)) | pred
    return " ".join(dm.match(dm.Boxes(**(one_frame() | truth)), dm.Boxes(**given), dm.NUSCENES).notes)


def at_side(distance_m: float) -> np.ndarray:
    return np.c_[np.arange(10), np.full(10, distance_m), np.zeros(10)]


@pytest.mark.parametrize(
    ("truth", "pred", "message"),
    [
        ({"center_m": at_side(812)}, {}, "no truth is within 100 m of a prediction: are these boxes in another frame?"),
        (
            {},
            {"size_lwh_m": np.tile((2.0, 4.0, 1.5), (10, 1))},
            "length and width look swapped: sizes overlap 33%, and 100% the other way",
        ),
        ({}, {"label": ["bus"] * 10}, "a truth is within 4 m: are the classes named alike"),
        ({"label": ["thing"] * 10}, {}, "no truth is of a class of the protocol: its labels are 'thing'"),
        ({"num_points": np.zeros(10)}, {}, "all truths are dropped as out of range, without points"),
        ({"label": ["car"] * 9 + ["thing"]}, {}, "truth of classes that the protocol does not know is left out"),
        ({}, {"attribute": [""] * 10}, "truth without attributes: AAE is 1"),
    ],
)
def test_first_aid(truth: dict[str, Any], pred: dict[str, Any], message: str) -> None:
    assert message in notes(truth, pred)


def test_predictions_without_velocities_are_said_once() -> None:
    moving = {"velocity_mps": np.ones((10, 2))}
    assert "predictions without velocities: AVE is 1" in notes(moving, {})
    assert "% of the predictions" not in notes(moving, {})


CURVES = [("linear", "over_recall"), ("linear", "plain"), ("envelope", "over_recall"), ("envelope", "plain")]


@pytest.mark.parametrize("worst", [1.0, 2.5])
@pytest.mark.parametrize(("kind", "error_mean"), CURVES)
@pytest.mark.parametrize("missing", ["truth", "predictions"])
def test_first_aid_says_what_an_error_is_that_is_unknown(
    kind: str, error_mean: str, worst: float, missing: str
) -> None:
    """In a class that is found, and in one with truth of which nothing is."""
    errors = [
        {"name": name, "key": name, "kind": word, "unit": "1", "worst": worst}
        for name, word in (("AVE", "velocity_xy"), ("AAE", "attribute"))
    ]
    rules = dm.Protocol.from_dict(
        {
            "extends": "nuscenes",
            "name": "mine",
            "errors": errors,
            "curve": {"kind": kind, "error_mean": error_mean},
            "tasks": [{"label": "car"}, {"label": "bus"}],
            "mapping": {},
            "regions": {},
            "composite": {"error_weights": {}},
        }
    )
    known = {"velocity_mps": np.ones((11, 2)), "attribute": ["vehicle.moving"] * 11}
    both = one_frame(label=["car"] * 10 + ["bus"], center_m=np.c_[np.arange(11) * 3.0, np.zeros((11, 2))])
    both |= {"size_lwh_m": np.ones((11, 3)), "yaw_rad": np.zeros(11), "frame": ["f"] * 11}
    truth = dm.Boxes(**both, **({} if missing == "truth" else known))
    pred = dm.Boxes(**both, score=np.ones(11), **({} if missing == "predictions" else known)).replace(label=[0] * 11)
    scores = dm.evaluate(truth, pred, rules)
    assert len(scores.notes) == 2
    for i, (name, what) in enumerate((("AVE", "velocities"), ("AAE", "attributes"))):
        found, nothing = scores.class_errors[:, i]
        assert nothing == worst
        says = f"{missing} without {what}: {name} is {'undefined' if np.isnan(found) else f'{found:g}'}"
        assert says + ("" if found == worst else f", and {worst:g} where too little is found") in scores.notes


def test_a_small_share_of_unknown_velocities_is_not_none() -> None:
    moving = {"velocity_mps": np.ones((10, 2))}
    many = one_frame(**{key: np.repeat(value, 300, axis=0) for key, value in (one_frame() | moving).items()})
    unknown = many["velocity_mps"].copy()
    unknown[0] = np.nan
    truth, pred = dm.Boxes(**many), dm.Boxes(**(many | {"velocity_mps": unknown}), score=np.ones(3000))
    rules = msgspec.structs.replace(dm.NUSCENES, max_boxes_per_frame=None)
    assert any(note.startswith("fewer than 0.1% of the pred") for note in dm.match(truth, pred, rules).notes)


def test_a_box_keeps_the_first_reason_why_it_does_not_count() -> None:
    """Without points, and in a rack as well."""
    columns = one_frame(label=["static_object.bicycle_rack"] + ["bicycle"] * 9, num_points=[5] + [0] * 4 + [1] * 5)
    columns["size_lwh_m"] = np.array([(99.0, 9.0, 9.0)] + [(2.0, 1.0, 1.0)] * 9)
    pred = dm.Boxes(**one_frame(label=["bicycle"] * 10, score=np.ones(10)))
    fate = dm.match(dm.Boxes(**columns), pred, dm.NUSCENES).truth_fate.tolist()
    assert fate == [dm.Fate.OTHER_CLASS] + [dm.Fate.NO_POINTS] * 4 + [dm.Fate.IN_REGION] * 5


def test_no_first_aid_where_all_is_well() -> None:
    complete = {"attribute": ["vehicle.moving"] * 10, "velocity_mps": np.ones((10, 2))}
    assert notes(complete, complete) == ""


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, "data", r"truth must be Boxes, as detmetrics.io.load_truth gives them, got 'data'"),
        (1, "results.json", r"predictions must be Boxes, as detmetrics.io.load gives them, got 'results.json'"),
        (2, "nuscenes", r"protocol must be a Protocol, as detmetrics.protocols.by_name gives them, got 'nuscenes'"),
        (2, None, r"protocol must be a Protocol"),
    ],
)
def test_what_is_no_boxes_and_no_protocol(place: int, value: object, message: str) -> None:
    """Names and paths are what a newcomer tries first."""
    given: list[Any] = [*make.scene(0), dm.NUSCENES]
    given[place] = value
    with pytest.raises(InputError, match=message):
        dm.evaluate(*given)


def test_tables_can_be_scored_under_both_rules() -> None:
    truth, pred = make.scene(3, absent=("bus",))
    ledger = dm.match(truth, pred, dm.NUSCENES)
    plan = Plan(ledger, dm.Weights())
    tables = plan.run(details=True)
    before = [values.copy() for values in tables]
    for absent in ("omit", "official", "omit"):
        again, once = plan.scores(tables, 0, absent), dm.score(ledger, absent=absent)  # type: ignore[arg-type]
        np.testing.assert_array_equal(again.ap, once.ap)
        np.testing.assert_array_equal(again.class_errors, once.class_errors)
    for values, copy in zip(tables, before, strict=True):
        np.testing.assert_array_equal(values, copy)


def test_truth_values_are_weights() -> None:
    truth, pred = make.scene(2, n_frames=6)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    some = np.array([True, False, True, True, False, True])
    np.testing.assert_array_equal(
        dm.score(ledger, dm.Weights(frame=some)).ap, dm.score(ledger, dm.Weights(frame=some.astype(int))).ap
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ATE", False), ("ATE/BUS", False), ("CDS", True), ("CDS/BUS", True), ("AP/BUS", True), ("mAP", True)],
)
def test_which_way_a_number_is_better(name: str, expected: bool) -> None:
    assert higher_is_better(name, dm.ARGOVERSE2) == expected


def test_the_share_of_unknown_velocities_is_that_of_the_counted_predictions() -> None:
    """Unknown where one of the two components is; nothing is said where all are known."""
    velocity = np.zeros((10, 2))
    velocity[0, 0] = velocity[1, 1] = velocity[2] = np.nan
    center = np.c_[np.arange(10) * 3.0, np.zeros((10, 2))]
    center[2, 0] = 60  # out of range
    pred = dm.Boxes(**one_frame(score=np.ones(10), velocity_mps=velocity, center_m=center))
    truth = dm.Boxes(**one_frame(velocity_mps=np.zeros((10, 2))))
    assert dm.evaluate(truth, pred, dm.NUSCENES).nan_velocity_share == pytest.approx(2 / 9)
    known = pred.replace(velocity_mps=np.where(np.arange(10)[:, None] == 2, np.nan, np.zeros((10, 2))))
    scores = dm.evaluate(truth, known, dm.NUSCENES)
    assert scores.nan_velocity_share == 0
    assert "nan-velocity" not in scores.signature
