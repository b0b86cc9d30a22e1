"""The surprises of the official evaluator, S1 to S22 of the parity research, as the numbers that it gives.

Observed with nuscenes-devkit 1.2.0; where an entry has no number, the behaviour is what is tested.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
from detmetrics.errors import InputError

NAN = float("nan")


def boxes(x: list[float], **columns: Any) -> dm.Boxes:
    """Cars on a line, at x metres, 1 m apart in nothing else; ego at the origin, one frame."""
    n = len(x)
    given: dict[str, Any] = {
        "center_m": np.c_[x, np.zeros((n, 2))],
        "size_lwh_m": np.tile((4.0, 2.0, 1.5), (n, 1)),
        "yaw_rad": np.zeros(n),
        "label": ["car"] * n,
        "frame": ["f"] * n,
        "frames": ["f"],
        "velocity_mps": np.zeros((n, 2)),
        "attribute": ["vehicle.moving"] * n,
    }
    return dm.Boxes(**(given | columns))


def evaluate(truth: dm.Boxes, pred: dm.Boxes) -> dm.Scores:
    return dm.evaluate(truth, pred, dm.NUSCENES)


def car(scores: dm.Scores, threshold: float = 2.0) -> tuple[float, dict[str, float]]:
    """AP at a threshold, and the errors, of cars."""
    ap = scores.ap[0, dm.NUSCENES.affinity.thresholds.index(threshold)]
    return float(ap), dict(zip(dm.NUSCENES.error_names, scores.class_errors[0].tolist(), strict=True))


def apart(n: int) -> list[float]:
    """Positions within range, far enough apart that only the right ones match."""
    return np.linspace(-49, 49, n).tolist()


def found(n_truth: int, n_found: int, **columns: Any) -> dm.Scores:
    """Some of the truths found perfectly, scores falling."""
    x = apart(n_truth)
    pred = boxes(x[:n_found], score=np.linspace(0.9, 0.1, n_found), **columns)
    return evaluate(boxes(x), pred)


def test_s1_the_later_of_equal_scores_goes_first() -> None:
    truth = boxes([0])
    assert car(evaluate(truth, boxes([1.5, 0], score=[0.5, 0.5])))[1]["ATE"] == 0
    assert car(evaluate(truth, boxes([0, 1.5], score=[0.5, 0.5])))[1]["ATE"] == 1.5


def test_s2_a_distance_equal_to_the_threshold_is_no_match() -> None:
    assert car(evaluate(boxes([0]), boxes([2.0], score=[0.5])))[0] == 0
    assert car(evaluate(boxes([0]), boxes([np.nextafter(2.0, 0)], score=[0.5])))[0] == pytest.approx(1)


def results(path: Path, **changes: Any) -> Path:
    """A result file of one box in sample f."""
    box = {
        "sample_token": "f",
        "translation": [0.0, 0.0, 0.0],
        "size": [2.0, 4.0, 1.5],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.0, 0.0],
        "detection_name": "car",
        "detection_score": 0.5,
        "attribute_name": "",
    } | changes
    path.write_text(json.dumps({"meta": {}, "results": {"f": [box], "g": []}}))
    return path


def test_s3_a_token_of_another_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sample_token of box 0 of sample 'f' must be that of its sample, got 'g'"):
        dm.io.nuscenes.load_results(results(tmp_path / "r.json", sample_token="g"))


def test_s4_a_class_without_truth_counts_zero_and_one() -> None:
    scores = found(10, 10)
    bus = dm.NUSCENES.labels.index("bus")
    assert scores.ap[bus].tolist() == [0, 0, 0, 0]
    assert scores.class_errors[bus].tolist() == [1, 1, 1, 1, 1]
    assert scores.mean_ap == pytest.approx(0.1)
    assert scores.tp_errors["ATE"] == pytest.approx(0.9)


def test_s5_unknown_predicted_velocities_are_left_out() -> None:
    velocity = np.zeros((20, 2))
    velocity[:, 0] = 3
    honest = found(20, 20, velocity_mps=velocity)
    velocity[1:] = NAN
    assert car(honest)[1]["AVE"] == 3
    velocity[:] = 0, 0
    velocity[10:] = NAN  # the ten bad ones hidden
    assert car(found(20, 20, velocity_mps=velocity))[1]["AVE"] == 0


@pytest.mark.parametrize(("first", "second", "expected"), [(NAN, 3.0, 0.85), (3.0, NAN, 3.0)])
def test_s6_a_leading_unknown_counts_as_no_error(first: float, second: float, expected: float) -> None:
    velocity = np.array([[first, 0], [second, 0]])
    scores = evaluate(boxes([-20, 20]), boxes([-20, 20], score=[0.9, 0.5], velocity_mps=velocity))
    assert car(scores)[1]["AVE"] == pytest.approx(expected, abs=1e-12)


def test_s7_truth_without_attributes_gives_attribute_error_one() -> None:
    x = apart(10)
    scores = evaluate(boxes(x, attribute=[""] * 10), boxes(x, score=np.linspace(0.9, 0.1, 10)))
    assert car(scores)[1]["AAE"] == 1


def test_s8_a_score_of_zero_reads_as_recall_not_reached() -> None:
    x = apart(10)
    scores = evaluate(boxes(x), boxes(x, score=np.linspace(0.9, 0, 10)))
    confidence = scores.curve("car", 2.0).confidence
    assert int(np.flatnonzero(confidence)[-1]) == 99


def test_s9_negative_scores_are_refused_and_those_above_one_are_not() -> None:
    with pytest.raises(InputError, match=r"boxes.score\[0\] must be zero or more, got -0.5"):
        boxes([0], score=[-0.5])
    assert car(evaluate(boxes([0]), boxes([0], score=[7.0])))[0] == pytest.approx(1)


def test_s10_the_cliff_at_ten_percent_recall() -> None:
    ap, errors = car(found(10, 1))
    assert ap == 0
    assert set(errors.values()) == {1.0}
    ap, errors = car(found(9, 1))
    assert ap == pytest.approx(0.0111, abs=5e-5)
    assert errors["ATE"] == 0


def test_s11_trailing_false_positives_change_the_last_bin_only() -> None:
    x = [0.0] + [20.0 + i for i in range(9)]
    scores = evaluate(boxes([0]), boxes(x, score=np.linspace(0.9, 0.1, 10)))
    assert car(scores)[0] == pytest.approx(0.98889, abs=5e-6)
    assert scores.curve("car", 2.0).precision[100] == pytest.approx(0.1)


@pytest.mark.parametrize(("n_found", "last", "ap"), [(7, 69, 0.65556), (6, 60, 0.55556)])
def test_s12_the_grid_is_linspace(n_found: int, last: int, ap: float) -> None:
    scores = found(10, n_found)
    assert int(np.flatnonzero(scores.curve("car", 2.0).precision)[-1]) == last
    assert car(scores)[0] == pytest.approx(ap, abs=5e-6)


def test_s13_tied_scores_hide_errors() -> None:
    # the later box goes first: it is exact, the earlier one is 1 m off
    scores = evaluate(boxes([-20, 20]), boxes([-19, 20], score=[0.5, 0.5]))
    assert scores.curve("car", 2.0).errors["trans_err"].tolist()[:100] == [0.0] * 100


def test_s14_a_perfect_ap_may_exceed_one_in_the_last_digit() -> None:
    assert car(found(100, 100))[0] == 1.0000000000000004


def test_s15_sizes_that_are_not_positive_are_refused() -> None:
    with pytest.raises(InputError, match=r"size_lwh_m\[0\] must be positive"):
        boxes([0], size_lwh_m=[[4, 0, 1]], score=[0.5])


def test_s16_a_zero_quaternion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rotation of box 0 of sample 'f' must be a quaternion of positive length"):
        dm.io.nuscenes.load_results(results(tmp_path / "r.json", rotation=[0, 0, 0, 0]))


def test_s17_attributes_are_not_checked_against_the_class() -> None:
    x = apart(10)
    score = np.linspace(0.9, 0.1, 10)
    for attribute in ("pedestrian.moving", ""):
        assert car(evaluate(boxes(x), boxes(x, score=score, attribute=[attribute] * 10)))[1]["AAE"] == 1


def test_s18_truth_and_predictions_are_filtered_apart() -> None:
    scores = evaluate(boxes([50.1]), boxes([49.9], score=[0.5]))
    assert (scores.n_truth[0], scores.n_pred[0]) == (0, 1)
    scores = evaluate(boxes([49.9]), boxes([50.1], score=[0.5]))
    assert (scores.n_truth[0], scores.n_pred[0], car(scores)[0]) == (1, 0, 0)
    assert evaluate(boxes([50.0]), boxes([0], score=[0.5])).n_truth[0] == 0  # the limit itself is out


def test_s19_the_rack_test_includes_the_height() -> None:
    rack = boxes([0], label=["static_object.bicycle_rack"], size_lwh_m=[[6, 6, 2]])
    low_high = np.array([[1.0, 0, 0.5], [1.0, 0, 1.5]])
    pred = boxes([0, 0], center_m=low_high, label=["bicycle"] * 2, score=[0.9, 0.8])
    ledger = dm.match(rack, pred, dm.NUSCENES)
    assert ledger.pred_fate.tolist() == [dm.Fate.IN_REGION, dm.Fate.KEPT]


def test_s19_the_faces_of_a_rack_belong_to_it() -> None:
    rack = boxes([0], label=["static_object.bicycle_rack"], size_lwh_m=[[6, 4, 2]])
    faces = np.array([[3, 0, 0], [-3, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 1], [0, 0, -1], [3, 2, 1]], float)
    beyond = faces * (1 + 1e-9)
    n = len(faces)
    for center, fate in ((faces, dm.Fate.IN_REGION), (beyond, dm.Fate.KEPT)):
        pred = boxes([0.0] * n, center_m=center, label=["bicycle"] * n, score=np.linspace(0.9, 0.1, n))
        assert set(dm.match(rack, pred, dm.NUSCENES).pred_fate.tolist()) == {fate}


def test_s20_no_predictions_at_all_score_zero() -> None:
    scores = evaluate(boxes([0]), boxes([], score=[], attribute=[]))
    assert (scores.nds, scores.mean_ap) == (0, 0)
    assert set(scores.tp_errors.values()) == {1.0}


def test_s21_precision_has_no_envelope() -> None:
    # found, false, found: recall 0.5 at precision 1, then 1.0 at 2/3; on the plateau the last point, 1/2, counts
    scores = evaluate(boxes([-20, 20]), boxes([-20, 0, 20], score=[0.9, 0.5, 0.1]))
    precision = scores.curve("car", 2.0).precision
    assert precision[50] == pytest.approx(1 / 2)
    assert precision[75] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert precision[100] == pytest.approx(2 / 3)


def test_s22_truth_as_prediction_is_not_perfect() -> None:
    """Truth without points is dropped from truth and stays among predictions."""
    x = apart(20)
    truth = boxes(x, num_points=[0.0] * 5 + [3.0] * 15)
    scores = evaluate(truth, boxes(x, score=np.linspace(0.9, 0.1, 20)))
    assert (scores.n_truth[0], scores.n_pred[0]) == (15, 20)
    assert car(scores)[0] < 0.75
