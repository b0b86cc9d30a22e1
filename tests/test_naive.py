"""Kernels, matching and scoring against the slow, obvious rules of naive.py."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detmetrics as dm
import make
import naive
from detmetrics import curves, kernels
from detmetrics.geometry import ground_corners, rotation_matrices, rotation_of_yaw, wrap_angle, yaw_of_rotation

KNOBS: list[dict[str, Any]] = [
    {},
    {"score_digits": 1, "grid_m": 0.5},
    {"racks": 2, "classes": ("bicycle", "motorcycle"), "n_truth": 20},
    {"partial": True, "extra_frames": 2, "score_digits": 1},
    {"nan_velocity": 0.5, "nan_first": True, "no_attribute": 0.6, "empty": 0.4},
    {"edges": True, "extreme_scores": True},
    {"classes": ("car", "pedestrian", "barrier"), "n_truth": 40, "n_false": 60},
]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), knobs=st.sampled_from(KNOBS))
def test_everything(seed: int, knobs: dict[str, Any]) -> None:
    truth, pred = make.scene(seed, **knobs)
    protocol = dm.NUSCENES
    ledger = dm.match(truth, pred, protocol)
    scores, expected = dm.score(ledger), naive.evaluate(truth, pred, protocol)
    n_thresholds = len(protocol.affinity.thresholds)
    for k, label in enumerate(protocol.labels):
        assert scores.n_truth[k] == expected.n_truth[label]
        for t, threshold in enumerate(protocol.affinity.thresholds):
            at = slice(*ledger.matches.offsets[n_thresholds * k + t :][:2])
            rows = ledger.event_pred[ledger.matches.event[at]], ledger.matches.truth[at]
            assert list(zip(*(r.tolist() for r in rows), strict=True)) == expected.matches(label, threshold)
            curve, other = scores.curve(label, threshold), expected.curves[label, threshold]
            np.testing.assert_allclose(curve.precision, other.precision, atol=1e-12)
            np.testing.assert_allclose(curve.confidence, other.confidence, atol=1e-12)
            for key, values in curve.errors.items():
                np.testing.assert_allclose(values, other.errors[key], atol=1e-12)
            assert scores.ap[k, t] == pytest.approx(expected.ap[label, threshold], abs=1e-12)
        for i, name in enumerate(protocol.error_names):
            assert scores.class_errors[k, i] == pytest.approx(
                expected.class_errors[label, name], abs=1e-12, nan_ok=True
            )
    assert scores.nds == pytest.approx(expected.composite, abs=1e-12)
    assert scores.mean_ap == pytest.approx(expected.mean_ap, abs=1e-12)
    assert scores.tp_errors == pytest.approx(expected.tp_errors, abs=1e-12, nan_ok=True)
    omit = dm.score(ledger, absent="omit")
    assert omit.composite == pytest.approx(
        naive.evaluate(truth, pred, protocol, absent="omit").composite, abs=1e-12, nan_ok=True
    )


@pytest.mark.parametrize("error_mean", ["over_recall", "plain"])
@pytest.mark.parametrize("kind", ["linear", "envelope"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_curve_with_every_mean_where_errors_are_unknown(kind: str, error_mean: str, seed: int) -> None:
    """Every mean of errors has a value in a class with truth, also where nothing is known of the best matches."""
    curve = {"kind": kind, "error_mean": error_mean}
    protocol = dm.Protocol.from_dict({"extends": "nuscenes", "name": "mixed", "curve": curve})
    unknown = {"nan_velocity": 0.6, "nan_first": True, "no_attribute": 0.6}
    truth, pred = make.scene(seed, n_truth=20, classes=("car", "pedestrian"), **unknown)
    scores, expected = dm.evaluate(truth, pred, protocol), naive.evaluate(truth, pred, protocol)
    assert not naive.apart(
        {k: scores.to_summary()[k] for k in naive.NUMBERS}, naive.numbers(naive.summary(expected, protocol))
    )
    assert not naive.apart(scores.to_details(), naive.details(expected))
    assert not np.isnan(scores.class_errors[:2]).any()


def test_an_envelope_leaves_out_the_recalls_at_which_an_error_is_unknown() -> None:
    """Four cars; of the best nothing is known, then errors of 1, 2 and 3 m/s: running means 1, 1.5 and 2."""
    columns: dict[str, Any] = {
        "center_m": [(x, 0, 0) for x in range(0, 40, 10)], "size_lwh_m": np.ones((4, 3)), "yaw_rad": np.zeros(4),
        "label": ["car"] * 4, "frame": ["f"] * 4,
    }  # fmt: skip
    truth = dm.Boxes(**columns, velocity_mps=np.zeros((4, 2)))
    curve = {"kind": "envelope", "n_samples": 5, "min_recall": None, "min_precision": 0}
    rules = dm.Protocol.from_dict({"extends": "nuscenes", "name": "mine", "curve": curve})
    for speeds, expected in (((np.nan, 1, 2, 3), (1 + 1.5 + 2) / 3), ((np.nan,) * 4, 1.0)):
        pred = dm.Boxes(**columns, velocity_mps=[(v, 0) for v in speeds], score=[0.9, 0.8, 0.7, 0.6])
        scores = dm.evaluate(truth, pred, rules)
        assert scores.class_errors[0, rules.error_names.index("AVE")] == pytest.approx(expected, abs=1e-15)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_weights_are_repetitions(seed: int) -> None:
    """Weights of events and truths against physically repeated events; of frames against duplicated, re-matched data."""
    truth, pred = make.scene(seed, n_frames=6, classes=("car", "pedestrian", "barrier"), nan_velocity=0.3)
    rng = np.random.default_rng(seed)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    frame = rng.integers(0, 4, truth.n_frames)
    ours = dm.score(ledger, dm.Weights(frame=frame))
    again = dm.evaluate(*naive.duplicate(truth, pred, frame.tolist()), dm.NUSCENES)
    of_truth = rng.integers(1, 4, len(truth))
    of_pred = rng.integers(0, 4, (4, len(pred)))
    for t in range(4):  # a repeated true positive needs as many truths
        at = ledger.pair_bits >> t & 1 == 1
        of_pred[t, ledger.event_pred[ledger.pair_event[at]]] = of_truth[ledger.pair_truth[at]]
    weights = dm.Weights(event=of_pred[:, ledger.event_pred], truth=of_truth)
    expected = naive.evaluate(truth, pred, dm.NUSCENES, event_weight=of_pred, truth_weight=of_truth)
    weighted = dm.score(ledger, weights)
    for name in ("ap", "class_errors", "precision", "confidence", "error_curves"):
        np.testing.assert_allclose(getattr(ours, name), getattr(again, name), atol=1e-12)
    assert weighted.composite == pytest.approx(expected.composite, abs=1e-12)
    assert weighted.mean_ap == pytest.approx(expected.mean_ap, abs=1e-12)


@pytest.mark.parametrize("partial", [False, True])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_ties_follow_the_place_not_the_row(partial: bool, seed: int) -> None:
    """Rows that stand in another order than in their file still settle ties as the file does."""
    truth, pred = make.scene(seed, score_digits=1, classes=("car",), n_truth=20, n_false=20, partial=partial)
    pred = pred.replace(place=np.random.default_rng(seed).permutation(len(pred)))
    scores, expected = dm.evaluate(truth, pred, dm.NUSCENES), naive.evaluate(truth, pred, dm.NUSCENES)
    assert not naive.apart(scores.to_details(), naive.details(expected))


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_small_things(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 8
    rows = np.arange(n)
    out = np.empty(n)
    period = rng.choice([np.pi, 2 * np.pi], n)
    yaw_p, yaw_t = rng.uniform(-7, 7, (2, n))
    yaw_p[0] = yaw_t[0] + period[0] / 2
    yaw_p.flags.writeable = yaw_t.flags.writeable = False
    kernels.orientation.py_func(rows, rows, yaw_p, yaw_t, period, out)
    assert out.tolist() == pytest.approx(
        [abs(naive.angle_difference(t, p, q)) for t, p, q in zip(yaw_t, yaw_p, period, strict=True)], abs=1e-12
    )
    size_p, size_t = rng.uniform(0.1, 5, (2, n, 3))
    kernels.scale_aligned.py_func(rows, rows, size_p, size_t, period, out)
    expected = [1 - naive.aligned_iou(t, p) for t, p in zip(size_t.tolist(), size_p.tolist(), strict=True)]
    assert out.tolist() == pytest.approx(expected, abs=1e-12)
    keys = rng.integers(-1, 4, 20).astype(np.int32)
    offsets, order = kernels.group.py_func(keys, 4)
    assert [order[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [
        [i for i, key in enumerate(keys) if key == g] for g in range(4)
    ]
    score, place = rng.integers(0, 4, 30) / 4.0, rng.permutation(30)
    assert curves.order_by_score(score, place).tolist() == sorted(range(30), key=lambda i: (-score[i], -place[i]))
    angle = rng.uniform(-20, 20, n)
    wrapped = wrap_angle(angle)
    assert (wrapped >= -np.pi).all()
    assert (wrapped < np.pi).all()
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angle), atol=1e-12)
    np.testing.assert_allclose(yaw_of_rotation(rotation_of_yaw(wrapped) * 3), wrapped, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_regions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=(1, 4))
    np.testing.assert_allclose(
        rotation_matrices(quaternion)[0], naive.matrix_of(quaternion[0] / np.linalg.norm(quaternion)), atol=1e-12
    )
    size = rng.uniform(1, 4, 3)
    truth = dm.Boxes(
        center_m=np.zeros((1, 3)), size_lwh_m=[size], yaw_rad=[0], rotation_wxyz=quaternion, label=["static_object.bicycle_rack"],
        frame=["f"], frames=["f", "g"],
    )  # fmt: skip
    points = rng.uniform(-2, 2, (40, 3))
    points[:2] = 0
    frame = ["f", "g"] + ["f"] * 38
    pred = dm.Boxes(
        center_m=points, size_lwh_m=np.ones((40, 3)), yaw_rad=np.zeros(40), label=["bicycle"] * 39 + ["car"], frame=frame, score=np.ones(40),
    )  # fmt: skip
    ledger = dm.match(truth, pred, dm.NUSCENES)
    dropped = np.empty(40, bool)
    dropped[ledger.pred.place] = ledger.pred_fate == dm.Fate.IN_REGION
    expected = [
        naive.is_inside(point, (0, 0, 0), size, quaternion[0] / np.linalg.norm(quaternion))
        and frame[i] == "f"
        and i < 39
        for i, point in enumerate(points.tolist())
    ]
    assert dropped.tolist() == expected


def test_corners_are_those_of_a_polygon() -> None:
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(0)
    size, yaw, center = rng.uniform(1, 5, (50, 3)), rng.uniform(-7, 7, 50), rng.normal(size=(50, 3))
    for corners, (length, width, _), angle, at in zip(
        ground_corners(center, size, yaw), size, yaw, center, strict=True
    ):
        straight = shapely.box(-length / 2, -width / 2, length / 2, width / 2)
        turned = shapely.affinity.translate(shapely.affinity.rotate(straight, angle, (0, 0), use_radians=True), *at[:2])
        ours = shapely.Polygon(corners)
        assert ours.symmetric_difference(turned).area < 1e-9
        assert ours.exterior.is_ccw
