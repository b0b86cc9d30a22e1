"""Argoverse 2: engine against the naive rules, weights, what surprises in the official code, and the words one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detmetrics as dm
import make
import naive
from detmetrics.errors import InputError

AV2 = dm.ARGOVERSE2
KNOBS: list[dict[str, Any]] = [
    {},
    {"hogs": 0.8, "spread_m": 10.0},
    {"grid_m": 0.5, "score_digits": 1, "spread_m": 6.0},
    {"crowd": 150, "n_frames": 2},
    {"edges": True},
    {"absent": ("BUS",), "unseen": ("PEDESTRIAN",), "empty": 0.4},
    {"tilted": True, "zero_points": 0.4},
]


def same(ours: dm.Scores, expected: naive.Result, protocol: dm.Protocol = AV2) -> None:
    summary = {name: ours.to_summary()[name] for name in naive.summary(expected, protocol)}
    assert not naive.apart(summary, naive.summary(expected, protocol))
    assert not naive.apart(ours.to_details(), naive.details(expected))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), knobs=st.sampled_from(KNOBS))
def test_everything(seed: int, knobs: dict[str, Any]) -> None:
    truth, pred = make.sweeps(seed, **knobs)
    ledger = dm.match(truth, pred, AV2)
    expected = naive.evaluate(truth, pred, AV2)
    for k, label in enumerate(AV2.labels):
        for t, threshold in enumerate(AV2.affinity.thresholds):
            at = slice(*ledger.matches.offsets[4 * k + t :][:2])
            rows = ledger.event_pred[ledger.matches.event[at]].tolist(), ledger.matches.truth[at].tolist()
            assert list(zip(*rows, strict=True)) == expected.matches(label, threshold)
    same(dm.score(ledger), expected)
    omit = naive.evaluate(truth, pred, AV2, absent="omit").composite
    assert dm.score(ledger, absent="omit").composite == pytest.approx(omit, abs=1e-12, nan_ok=True)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_weights_are_repetitions(seed: int) -> None:
    """Frame weights against duplicated and re-matched data; weights of events and truths against repeated events."""
    truth, pred = make.sweeps(seed, n_frames=6)
    rng = np.random.default_rng(seed)
    ledger = dm.match(truth, pred, AV2)
    frame = rng.integers(0, 4, truth.n_frames)
    twice = naive.duplicate(truth, pred, frame.tolist())
    weighted = dm.score(ledger, dm.Weights(frame=frame))
    same(weighted, naive.evaluate(*twice, AV2))
    again = dm.evaluate(*twice, AV2)
    for name in ("ap", "class_errors", "precision", "confidence", "error_curves"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(again, name), atol=1e-12)
    of_truth = rng.integers(1, 4, len(truth))
    of_pred = rng.integers(0, 4, (4, len(pred)))
    for t in range(4):
        at = ledger.pair_bits >> t & 1 == 1
        of_pred[t, ledger.event_pred[ledger.pair_event[at]]] = of_truth[ledger.pair_truth[at]]
    expected = naive.evaluate(truth, pred, AV2, event_weight=of_pred, truth_weight=of_truth)
    same(dm.score(ledger, dm.Weights(event=of_pred[:, ledger.event_pred], truth=of_truth)), expected)


#: Every word of Argoverse 2 put alone into the rules of nuScenes.
MIXED: list[dict[str, Any]] = [
    {"assignment": "nearest_then_first"},
    {"affinity": {"kind": "center_xyz"}},
    {"range_kind": "space"},
    {"ties": "earlier_first"},
    {"cap_per_task": 2},
    {"curve": {"kind": "envelope"}},
    {"curve": {"error_mean": "plain"}},
    {"curve": {"min_recall": None, "min_precision": 0.0}},
    {"composite": {"kind": "class_product"}},
]


@pytest.mark.parametrize("changes", MIXED, ids=str)
def test_each_word_alone(changes: dict[str, Any]) -> None:
    protocol = dm.Protocol.from_dict({"extends": "nuscenes", "name": "mixed", **changes})
    moved = 0
    for seed in range(8):
        knobs = {"score_digits": 1, "grid_m": 0.5, "classes": ("car", "pedestrian"), "n_truth": 20, "spread_m": 41.0}
        truth, pred = make.scene(seed, partial=bool(seed % 2), **knobs, nan_velocity=0.0, far_m=0.0)
        up = np.array([0.0, 0.0, 20.0])
        heights = pred.center_m * (1, 1, 8) + up  # that matter; ego stands at 0
        truth, pred = truth.replace(center_m=truth.center_m + up), pred.replace(center_m=heights)
        scores = dm.evaluate(truth, pred, protocol)
        same(scores, naive.evaluate(truth, pred, protocol), protocol)
        before = dm.evaluate(truth, pred, dm.NUSCENES)
        moved += not math.isclose(scores.composite, before.composite, abs_tol=1e-9)
        if "ties" in changes:
            moved += scores.to_details() != before.to_details()
    assert moved > 0, "the word moved nothing: these scenes test nothing"


def boxes(center: list[tuple[float, ...]], score: list[float] | None = None, **columns: Any) -> dm.Boxes:
    n = len(center)
    given = {
        "size_lwh_m": [(4.0, 2.0, 1.5)] * n,
        "yaw_rad": [0.0] * n,
        "label": ["BUS"] * n,
        "frame": ["a:1"] * n,
        "frames": ["a:1"],
        **columns,
    }
    return dm.Boxes(center_m=center, score=score, **given)


def ap(truth: dm.Boxes, pred: dm.Boxes) -> list[float]:
    return dm.evaluate(truth, pred, AV2).ap[AV2.labels.index("BUS")].tolist()


def errors(truth: dm.Boxes, pred: dm.Boxes) -> list[float]:
    return dm.evaluate(truth, pred, AV2).class_errors[AV2.labels.index("BUS")].tolist()


def test_a_far_detection_takes_the_truth_of_a_good_one() -> None:
    """Surprise (a)."""
    assert ap(boxes([(0, 0, 0)]), boxes([(30, 0, 0), (0.1, 0, 0)], [0.9, 0.5])) == [0, 0, 0, 0]
    assert min(ap(boxes([(0, 0, 0)]), boxes([(30, 0, 0), (0.1, 0, 0)], [0.5, 0.9]))) > 0.995


def test_the_first_of_equally_near_truths_is_claimed() -> None:
    truth = boxes([(0, 1, 0), (0, -1, 0)])
    ledger = dm.match(truth, boxes([(0, 0, 0)], [0.9]), AV2)
    assert ledger.pair_truth.tolist() == [0]
    assert ledger.pair_bits.tolist() == [0b1100]  # nearer than 2 m and than 4 m; exactly 1 m is no match


def test_heights_count() -> None:
    """Surprise (d)."""
    assert ap(boxes([(0, 0, 0)]), boxes([(0, 0, 3)], [0.9])) == pytest.approx([0, 0, 0, 1])
    assert errors(boxes([(0, 0, 0)]), boxes([(0, 0, 1)], [0.9])) == [1, 0, 0]
    far = [(0, 90.0, 120.0), (0, 90.0, 119.9)]  # 150 m away, and just nearer
    assert dm.match(boxes(far), boxes(far, [0.9, 0.8]), AV2).truth_fate.tolist() == [dm.Fate.OUT_OF_RANGE, dm.Fate.KEPT]


def test_the_scale_error_is_no_iou() -> None:
    """Surprise (f)."""
    truth, pred = boxes([(0, 0, 0)], size_lwh_m=[(4, 10, 3)]), boxes([(0, 0, 0)], [0.9], size_lwh_m=[(9, 5, 2)])
    assert errors(truth, pred)[1] == pytest.approx(1 - 40 / 270)


def test_only_the_best_of_a_sweep_and_class_count() -> None:
    near = [(float(i), 0.0, 0.0) for i in range(102)]
    far = [(160.0, 0.0, 0.0)] * 3
    pred = boxes(far + near, [0.99] * 3 + [0.9 - i / 1000 for i in range(102)])
    fate = dm.match(boxes([(0, 0, 0)]), pred, AV2).pred_fate
    assert (fate[:3] == dm.Fate.OUT_OF_RANGE).all()
    assert (fate[3:] == dm.Fate.OVER_CAP).tolist() == [False] * 100 + [True] * 2


def test_the_units_of_the_official_tests() -> None:
    """``test_eval.py: compute_average_precision``, measured: true positives by score, of so many truths."""
    for hits, n_truth, expected in (
        ([1, 1, 0, 1], 4, 0.6881188118811881),
        ([0, 1], 1, 0.5),
        ([1], 2, 0.5049504950495048),
    ):
        two = {"frames": ["a:1", "a:2"]}  # false positives are in a sweep of their own: they would claim truths
        truth = boxes([(10.0 * i, 0, 0) for i in range(n_truth)], **two)
        place = [10.0 * sum(hits[:i]) for i in range(len(hits))]
        frame = ["a:1" if hit else "a:2" for hit in hits]
        pred = boxes([(x, 0, 0) for x in place], [0.9 - i / 10 for i in range(len(hits))], frame=frame, **two)
        assert ap(truth, pred) == pytest.approx([expected] * 4, abs=1e-12)


def test_a_category_without_truth_counts_the_worst() -> None:
    scores = dm.evaluate(boxes([(0, 0, 0)]), boxes([(0, 0, 0)], [0.9]), AV2)
    assert scores.class_composite["BUS"] == pytest.approx(1)
    assert scores.composite == pytest.approx(1 / 26)
    assert scores.tp_errors == pytest.approx({"ATE": 50 / 26, "ASE": 25 / 26, "AOE": 25 * math.pi / 26})
    assert scores.class_composite["DOG"] == 0
    omit = dm.evaluate(boxes([(0, 0, 0)]), boxes([(0, 0, 0)], [0.9]), AV2, absent="omit")
    assert omit.composite == pytest.approx(1)
    assert math.isnan(omit.class_composite["DOG"])


def test_what_is_printed() -> None:
    scores = dm.evaluate(boxes([(0, 0, 0)]), boxes([(0.5, 0, 0)], [0.9]), AV2)
    text = str(scores)
    header = next(line for line in text.splitlines() if "class" in line).split()
    assert header == ["class", "truth", "pred", "AP", "ATE", "ASE", "AOE", "CDS"]
    assert "roi:off" in scores.signature
    assert "nan-velocity" not in scores.signature
    assert "velocit" not in text
    assert f"{scores.composite:.4f}" in text
    with pytest.raises(AttributeError, match=r"has no NDS but CDS: use \.composite"):
        scores.nds  # noqa: B018
    flat = scores.to_flat_dict()
    assert flat["CDS"] == scores.composite
    assert flat["CDS/BUS"] == scores.class_composite["BUS"]
    assert scores.to_summary()["cds"] == scores.composite
    assert scores.to_summary()["label_cds"]["BUS"] == scores.class_composite["BUS"]


def test_any_chunking() -> None:
    truth, pred = make.sweeps(5, n_frames=8, score_digits=1, crowd=130)
    whole = dm.match(truth, pred, AV2)
    parts = [dm.match(truth.take(names), pred.take(names), AV2) for names in (truth.frames[5:], truth.frames[:5])]
    merged = dm.score(dm.concat(parts))
    assert not naive.apart(merged.to_details(), dm.score(whole).to_details(), 0)
    assert merged.composite == dm.score(whole).composite


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cap_per_task": 0}, "cap_per_task must be positive"),
        (
            {"errors": [{"name": "A", "key": "a", "kind": "orientation", "unit": "", "scale": 0}]},
            "scale must be positive",
        ),
        ({"composite": {"error_weights": {}}}, "composite.error_weights must be of positive sum"),
        ({"range_kind": "sea"}, "Invalid enum value 'sea'"),
    ],
)
def test_rules_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dm.Protocol.from_dict({"extends": "argoverse2", **changes})


def test_what_stands_on_the_ledger_works_with_these_rules(tmp_path: Any) -> None:
    """Saving, slices, intervals and comparison know nothing of a protocol; CDS of a class is one of their numbers."""
    truth, pred = make.sweeps(3, n_frames=12, n_truth=20)
    truth = truth.replace(frame_columns={"scene": [str(i // 2) for i in range(12)]})
    ledger = dm.match(truth, pred, AV2)
    ledger.save(tmp_path / "a.ledger")
    again = dm.Ledger.load(tmp_path / "a.ledger")
    assert again.protocol == AV2
    assert dm.score(again).signature == dm.score(ledger).signature
    by_range = dm.slices(ledger, "range=0,20,40")
    weights = by_range.weights("20-40")
    assert dm.score(ledger, weights, absent="omit").composite == by_range["20-40"].composite
    intervals = dm.bootstrap(ledger, n=20)
    assert intervals["CDS/BUS"].value == pytest.approx(dm.score(ledger).class_composite["BUS"])
    assert intervals["CDS/BUS"].low <= intervals["CDS/BUS"].value <= intervals["CDS/BUS"].high
    assert math.isnan(intervals["CDS/DOG"].low)  # no truth, no interval
    assert dm.compare(ledger, again, n=20)["CDS"].difference == 0
