"""Operating points, frames and export, against counting by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detmetrics as dm
import make
import naive
from detmetrics.errors import InputError
from detmetrics.framing import first_order
from detmetrics.operating import best_scores
from detmetrics.protocol import CompositeKind
from detmetrics.protocols import by_name
from detmetrics.scoring import COMPOSITE

NUSCENES = dm.NUSCENES


def scene(seed: int, **knobs: Any) -> tuple[dm.Boxes, dm.Boxes]:
    defaults: dict[str, Any] = {"classes": ("car", "pedestrian", "barrier"), "n_truth": 15, "doubles": 0.4}
    truth, pred = make.scene(seed, **(defaults | knobs))
    return truth.replace(frame_columns={"scene": np.array([f"s{i % 2}" for i in range(truth.n_frames)])}), pred


def count(events: list[naive.Event], n_truth: int, score: float) -> tuple[int, int, int]:
    made = [event for event in events if event.pred.score >= score]
    tp = sum(event.truth is not None for event in made)
    return tp, len(made) - tp, n_truth - tp


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), digits=st.sampled_from([None, 1]))
def test_points_against_counting(seed: int, digits: int | None) -> None:
    truth, pred = scene(seed, score_digits=digits)
    expected = naive.evaluate(truth, pred, NUSCENES)
    ledger = dm.match(truth, pred, NUSCENES)
    for threshold in (0.5, 2.0):
        points = dm.operating_points(ledger, threshold=threshold)
        half = dm.operating_points(ledger, 0.5, threshold=threshold)
        for label in NUSCENES.labels:
            events, n_truth = expected.events[label, threshold], expected.n_truth[label]
            one = half.chosen[label]
            assert (one.tp, one.fp, one.fn) == count(events, n_truth, 0.5)
            best = points.best[label]
            f1 = {}
            for score in {event.pred.score for event in events}:
                tp, fp, fn = count(events, n_truth, score)
                f1[score] = 2 * tp / (2 * tp + fp + fn)
            if not any(event.truth for event in events):
                assert math.isnan(best.score)
                continue
            assert best.f1 == pytest.approx(max(f1.values()))
            assert best.score == max(score for score, value in f1.items() if value == pytest.approx(best.f1, abs=1e-15))
            assert (best.tp, best.fp, best.fn) == count(events, n_truth, best.score)
            assert best.precision == best.tp / (best.tp + best.fp)
            assert best.recall == best.tp / n_truth
        # every truth is in its row, every prediction that is made in its column
        k = len(NUSCENES.labels)
        for i, label in enumerate(NUSCENES.labels):
            one = points.chosen[label]
            assert points.confusion[i].sum() == expected.n_truth[label]
            assert points.confusion[:, i].sum() == one.tp + one.fp
            assert points.confusion[i, i] == one.tp
        assert points.confusion[k, k] == 0


def test_confusion_sees_a_swap() -> None:
    common: dict[str, Any] = {"size_lwh_m": [[4, 2, 1.5]] * 3, "yaw_rad": [0] * 3, "frame": ["f"] * 3}
    at = np.array([[0, 0, 0], [10, 0, 0], [20, 0, 0]])
    truth = dm.Boxes(center_m=at, label=["car", "car", "bus"], **common)
    pred = dm.Boxes(center_m=at, label=["car", "truck", "bus"], score=[0.9, 0.8, 0.7], **common)
    points = dm.operating_points(dm.match(truth, pred, NUSCENES), 0.1)
    car, truck, bus = (NUSCENES.labels.index(name) for name in ("car", "truck", "bus"))
    expected = np.zeros((11, 11), int)
    expected[car, car] = expected[car, truck] = expected[bus, bus] = 1
    np.testing.assert_array_equal(points.confusion, expected)
    below = dm.operating_points(dm.match(truth, pred, NUSCENES), {"truck": 0.85})
    assert below.confusion[car, 10] == 1  # the truck is not made, so the car is missed
    assert below.confusion[:, truck].sum() == 0


def test_what_is_not_made_neither_finds_nor_takes_a_truth() -> None:
    """A truck on a car: what else lies there is below its score, once the right class, once another wrong one."""
    one: dict[str, Any] = {"size_lwh_m": [[4, 2, 1.5]], "yaw_rad": [0], "frame": ["f"]}
    two = {name: value * 2 for name, value in one.items()}
    truth = dm.Boxes(center_m=[[0, 0, 0]], label=["car"], **one)
    for label, score in (("car", 0.2), ("bus", 0.95)):
        pred = dm.Boxes(center_m=np.zeros((2, 3)), label=["truck", label], score=[0.9, score], **two)
        points = dm.operating_points(dm.match(truth, pred, NUSCENES), {"truck": 0.9, label: score + 0.01})
        expected = np.zeros((11, 11), int)
        expected[NUSCENES.labels.index("car"), NUSCENES.labels.index("truck")] = 1
        np.testing.assert_array_equal(points.confusion, expected)


def test_reliability() -> None:
    n = 1000
    rng = np.random.default_rng(0)
    score = rng.random(n)
    right = rng.random(n) < score  # calibrated by construction
    at = np.stack((np.arange(n) % 30, np.zeros(n), np.zeros(n)), axis=1) * [1, 0, 0]
    frame = [f"{i:04d}" for i in range(n)]
    common: dict[str, Any] = {
        "size_lwh_m": np.ones((n, 3)),
        "yaw_rad": np.zeros(n),
        "label": ["car"] * n,
        "frame": frame,
    }
    truth = dm.Boxes(center_m=at, **common)
    pred = dm.Boxes(center_m=at + np.where(right, 0, 5)[:, None] * [0, 1, 0], score=score, **common)
    one = dm.operating_points(dm.match(truth, pred, NUSCENES)).reliability["car"]
    assert one.count.sum() == n
    for b in range(10):
        mine = (score >= b / 10) & (score < (b + 1) / 10)
        assert one.count[b] == mine.sum()
        assert one.precision[b] == pytest.approx(right[mine].mean())
        assert one.score[b] == pytest.approx(score[mine].mean())
    gap = sum(one.count * abs(one.precision - one.score)) / n
    assert one.ece == pytest.approx(gap)
    assert one.ece < 0.06
    double = pred.replace(score=score / 2)
    assert dm.operating_points(dm.match(truth, double, NUSCENES)).reliability["car"].ece > 0.2
    large = pred.replace(score=score * 100)  # scores above 1 fall into the last bin
    assert dm.operating_points(dm.match(truth, large, NUSCENES)).reliability["car"].count[-1] > 900


def test_slices_have_points_of_their_own() -> None:
    truth, pred = scene(3, n_frames=8)
    ledger = dm.match(truth, pred, NUSCENES)
    whole = dm.operating_points(ledger)
    parts = dm.operating_points(ledger, by="scene")
    for label in NUSCENES.labels:
        assert sum(part.chosen[label].tp for part in parts.values()) == whole.chosen[label].tp
        assert sum(part.chosen[label].fp for part in parts.values()) == whole.chosen[label].fp
    np.testing.assert_array_equal(sum(part.confusion for part in parts.values()), whole.confusion)
    assert "truth in rows" in str(whole)
    assert len(whole.to_rows()) == 10


@pytest.mark.parametrize("by", ["range=0,15", "visibility"])
def test_points_of_slices_against_counting(by: str) -> None:
    """At every threshold: which slice a prediction is in depends on what it matches there."""
    truth, pred = scene(3, n_frames=8, n_truth=30, score_digits=2, noise_m=1.5)
    truth = truth.replace(box_columns={"visibility": np.array(["1", "2"])[np.arange(len(truth)) % 2]})
    ledger = dm.match(truth, pred, NUSCENES)
    slices = dm.slices(ledger, by)
    for t, threshold in enumerate(NUSCENES.affinity.thresholds):
        parts = dm.operating_points(ledger, 0.4, threshold=threshold, by=by)
        if by != "visibility":  # what only truth has makes no partition of the predictions
            whole = dm.operating_points(ledger, 0.4, threshold=threshold)
            np.testing.assert_array_equal(sum(part.confusion for part in parts.values()), whole.confusion)
        matched = np.zeros(len(ledger.event_pred), bool)
        matched[ledger.pair_event[ledger.pair_bits >> t & 1 == 1]] = True
        for name, part in parts.items():
            weights = slices.weights(name)
            assert weights.event is not None
            assert weights.truth is not None
            for k, label in enumerate(NUSCENES.labels):
                here = (weights.event[t] == 1) & (ledger.event_task == k)
                score, right = ledger.event_score[here], matched[here]
                n_truth = int(weights.truth[ledger.truth_task == k].sum())
                one, best, fit = part.chosen[label], part.best[label], part.reliability[label]
                tp = int((right & (score >= 0.4)).sum())
                assert (one.tp, one.fp, one.fn) == (tp, int((score >= 0.4).sum()) - tp, n_truth - tp)
                made = [(cut, int((score >= cut).sum()), int((right & (score >= cut)).sum())) for cut in set(score)]
                f1 = {cut: 2 * n_right / (n_made + n_truth) for cut, n_made, n_right in made if n_right}
                if not f1:
                    assert math.isnan(best.score)
                else:
                    assert best.f1 == pytest.approx(max(f1.values()), abs=1e-12)
                    assert best.score == max(cut for cut in f1 if f1[cut] == pytest.approx(best.f1, abs=1e-12))
                for b in range(10):
                    mine = np.clip(np.floor(np.round(score * 100) / 10), 0, 9) == b
                    assert fit.count[b] == mine.sum()
                    if mine.any():
                        assert fit.score[b] == pytest.approx(score[mine].mean())
                        assert fit.precision[b] == pytest.approx(right[mine].mean())


def test_a_lost_prediction_is_in_the_slice_that_it_is_in_at_this_threshold() -> None:
    """At 0.5 m it finds the truth beyond 15 m; at 2 m a better one does, and it is lost where it lies itself."""
    ledger = dm.match(row([15.05]), row([16, 14.95], [0.9, 0.5]), NUSCENES)
    car, nothing = 0, len(NUSCENES.labels)
    for threshold, expected in ((0.5, {">=15": 1, "0-15": 0}), (2.0, {">=15": 0, "0-15": 1})):
        parts = dm.operating_points(ledger, 0.1, threshold=threshold, by="range=0,15")
        assert {name: part.confusion[nothing, car] for name, part in parts.items()} == expected
        assert parts[">=15"].confusion[car, car] == 1


def test_bad_input() -> None:
    truth, pred = scene(0)
    ledger = dm.match(truth, pred, NUSCENES)
    for options, message in (
        ({"threshold": 3.0}, "threshold must be one of"),
        ({"bins": 0}, "bins must be at least 1"),
        ({"score": {"cra": 0.1}}, "unknown class 'cra'.*'car'"),
        ({"score": math.nan}, "score of car must be finite"),
        ({"score": {"car": None}}, "score of car must be finite"),
        ({"score": "0.5"}, "score of car must be finite and a number, got '0.5'"),
    ):
        with pytest.raises(InputError, match=message):
            dm.operating_points(ledger, **options)  # type: ignore[arg-type]
    for options, message in (
        ({"threads": 0}, "threads must be at least 1"),
        ({"among": -1}, "among must be zero or more"),
        ({"absent": "omitted"}, "absent must be one of"),
    ):
        with pytest.raises(InputError, match=message):
            dm.frames(ledger, **options)  # type: ignore[arg-type]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_cost_of_a_frame_is_the_score_without_it(seed: int) -> None:
    truth, pred = scene(seed, n_frames=5, empty=0.3)
    ledger = dm.match(truth, pred, NUSCENES)
    frames = dm.frames(ledger, threads=2)
    assert frames.cost is not None
    whole = naive.evaluate(truth, pred, NUSCENES).composite
    for f, name in enumerate(truth.frames):
        rest = [other for other in truth.frames if other != name]
        expected = naive.evaluate(truth.take(rest), pred.take(rest), NUSCENES).composite
        assert frames.cost[f] == pytest.approx(expected - whole, abs=1e-12)
    assert list(frames.worst(5)) == sorted(range(5), key=lambda f: (-frames.cost[f], f))  # type: ignore[index]


@pytest.mark.parametrize("protocol", ["nuscenes", "scaled"])
@pytest.mark.parametrize("classes", [("car", "pedestrian", "barrier", "traffic_cone"), ("barrier",), ("traffic_cone",)])
def test_the_first_order_is_the_slope_of_precision_times_recall(protocol: str, classes: tuple[str, ...]) -> None:
    """Slowly: frames weighted by a hair less, with the errors that mean nothing for a class left out of the means."""
    rules = NUSCENES
    if protocol == "scaled":
        errors = [{**msgspec.to_builtins(error), "scale": 1 + i / 2} for i, error in enumerate(NUSCENES.errors)]
        rules = dm.Protocol.from_dict({"extends": "nuscenes", "name": "scaled", "errors": errors})
    truth, pred = make.scene(5, n_frames=6, n_truth=12, classes=classes, empty=0.1)
    ledger = dm.match(truth, pred, rules)
    thresholds = range(len(rules.affinity.thresholds))
    present = [k for k, n in enumerate(ledger.truth_counts.sum(axis=0)) if n]
    cuts = [best_scores(ledger, t) for t in thresholds]

    def surrogate(weight: list[float]) -> float:
        ap, errors = 0.0, {name: [] for name in rules.error_names}
        for t in thresholds:
            for k in present:
                n_truth = sum(w * n for w, n in zip(weight, ledger.truth_counts[:, k].tolist(), strict=True))
                made = [e for e in range(len(ledger.event_pred)) if ledger.event_task[e] == k]
                made = [e for e in made if ledger.event_score[e] >= cuts[t][k]]
                pairs = [p for p, e in enumerate(ledger.pair_event) if e in made and ledger.pair_bits[p] >> t & 1]
                of_pair = {p: weight[ledger.event_frame[ledger.pair_event[p]]] for p in pairs}
                tp, said = sum(of_pair.values()), sum(weight[ledger.event_frame[e]] for e in made)
                ap += tp / n_truth * tp / said / len(present) / len(thresholds) if tp else 0
                if t != rules.error_index:
                    continue
                for i, name in enumerate(rules.error_names):
                    if name in rules.tasks[k].undefined:
                        continue
                    known = {p: w for p, w in of_pair.items() if not math.isnan(ledger.pair_errors[p, i])}
                    total = sum(w * ledger.pair_errors[p, i] for p, w in known.items())
                    errors[name].append(total / sum(known.values()) if known else 0.0)
        weights = rules.composite.error_weights
        score = rules.composite.map_weight * ap
        for error in rules.errors:
            if errors[error.name]:
                score -= weights[error.name] * sum(errors[error.name]) / len(errors[error.name]) / error.scale
        return score / (rules.composite.map_weight + sum(weights.values()))

    found, step = first_order(ledger), 1e-5
    for f in range(6):
        more, less = ([1.0 + sign * step * (g == f) for g in range(6)] for sign in (1, -1))
        assert found[f] == pytest.approx((surrogate(less) - surrogate(more)) / (2 * step), abs=1e-8)
    assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize("kind", get_args(CompositeKind))
@pytest.mark.parametrize("base", ["nuscenes", "argoverse2"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_first_order_is_the_slope_of_every_composite(base: str, kind: str, seed: int) -> None:
    """Slowly: frames weighted by a hair less; scores of errors away from 0 for means, at 0 too for products."""
    errors = [msgspec.to_builtins(error) for error in by_name(base).errors]
    if kind == "weighted_mean":
        errors = [{**error, "scale": 20 + i} for i, error in enumerate(errors)]
    composite = {"kind": kind, "error_weights": {error["name"]: 1 + i for i, error in enumerate(errors)}}
    rules = dm.Protocol.from_dict({"extends": base, "name": "mine", "errors": errors, "composite": composite})
    if base == "nuscenes":
        truth, pred = make.scene(seed, n_frames=5, n_truth=14, classes=("car", "pedestrian", "barrier"), nan_velocity=0)
    else:
        truth, pred = make.sweeps(seed, n_frames=5, n_truth=14, classes=("BUS", "DOG", "BOLLARD"))
    ledger = dm.match(truth, pred, rules)
    cuts = [best_scores(ledger, t) for t in range(len(rules.affinity.thresholds))]

    def surrogate(weight: np.ndarray) -> float:
        ap = np.full((len(rules.tasks), len(cuts)), np.nan)
        means = np.full((len(rules.tasks), len(rules.errors)), np.nan)
        for k in np.flatnonzero(ledger.truth_counts.sum(axis=0)):
            means[k] = [error.worst for error in rules.errors]
            for t, cut in enumerate(cuts):
                made = (ledger.event_task == k) & (ledger.event_score >= cut[k])
                pairs = np.flatnonzero((ledger.pair_bits >> t & 1 == 1) & made[ledger.pair_event])
                of_pair = weight[ledger.event_frame[ledger.pair_event[pairs]]]
                tp, said = of_pair.sum(), weight[ledger.event_frame[made]].sum()
                ap[k, t] = tp / (weight @ ledger.truth_counts[:, k]) * tp / said if len(pairs) else 0
                for e in range(len(rules.errors)):
                    values = ledger.pair_errors[pairs, e]
                    known = ~np.isnan(values)
                    if t == rules.error_index and known.any():
                        means[k, e] = of_pair[known] @ values[known] / of_pair[known].sum()
            for name in rules.tasks[k].undefined:
                means[k, rules.error_names.index(name)] = np.nan
        return float(COMPOSITE[kind](rules, ap, means))

    found, step, ones = first_order(ledger), 1e-6, np.ones(5)
    if math.isnan(surrogate(ones)):
        return  # an error that is defined nowhere: there is no composite
    for f in range(5):
        hair = step * (np.arange(5) == f)
        slope = (surrogate(ones - hair) - surrogate(ones + hair)) / (2 * step)
        assert found[f] == pytest.approx(slope, abs=1e-7)


def test_the_first_order_finds_the_dear_frames_of_a_product() -> None:
    truth, pred = make.sweeps(0, n_frames=60, n_truth=20, classes=("BUS", "DOG", "BOLLARD", "PEDESTRIAN"))
    ledger = dm.match(truth, pred, dm.ARGOVERSE2)
    cost = dm.frames(ledger).cost
    assert cost is not None
    assert np.corrcoef(first_order(ledger), cost)[0, 1] > 0.8


def test_the_best_frames_are_the_other_end_of_the_worst() -> None:
    truth, pred = scene(3, n_frames=12, empty=0.3)
    frames = dm.frames(dm.match(truth, pred, NUSCENES), cost=False)
    made = dataclasses.replace(
        frames,
        tp=np.array([3, 0, 9, 0, 3, 3]), fp=np.array([1, 0, 0, 2, 0, 1]), fn=np.array([0, 0, 1, 0, 0, 0]),
    )  # fmt: skip
    assert list(made.best(10)) == [4, 2, 0, 5], (
        "fewest mistakes, then most matches, then order; without 1 and 3: no truth"
    )
    assert list(made.best(2)) == [4, 2]
    missed = dataclasses.replace(made, tp=np.zeros(6, int), fn=np.array([0, 0, 1, 0, 0, 2]))
    assert list(missed.best(10)) == [2, 5], "also where none of the truths was found"
    priced = dataclasses.replace(made, cost=np.array([0.3, 0, -0.2, 0.1, np.nan, 0.2]))
    assert list(priced.best(3)) == [2, 5, 0], "by cost where it is known"


def test_frames_count() -> None:
    truth, pred = scene(1, n_frames=6)
    ledger = dm.match(truth, pred, NUSCENES)
    frames, points = dm.frames(ledger, cost=False), dm.operating_points(ledger)
    assert frames.cost is None
    assert frames.tp.sum() == sum(one.tp for one in points.chosen.values())
    assert frames.fp.sum() == sum(one.fp for one in points.chosen.values())
    assert frames.fn.sum() == sum(one.fn for one in points.chosen.values())
    rows = list(frames.to_rows())
    assert [row["frame"] for row in rows] == list(truth.frames)
    assert {"scene", "tp", "fp", "fn", "ATE", "AAE"} == set(rows[0]) - {"frame", "ASE", "AOE", "AVE"}
    mistakes = frames.fp + frames.fn
    assert list(mistakes[frames.worst(6)]) == sorted(mistakes, reverse=True)
    for f in range(6):
        cut = (
            ledger.event_score >= np.array([points.chosen[label].score for label in NUSCENES.labels])[ledger.event_task]
        )
        mine = (ledger.pair_bits >> 2 & 1 == 1) & (ledger.event_frame[ledger.pair_event] == f) & cut[ledger.pair_event]
        for i, column in enumerate(ledger.pair_errors[mine].T):
            known = [value for value in column.tolist() if not math.isnan(value)]
            mean = sum(known) / len(known) if known else math.nan
            assert frames.error_mean[f, i] == pytest.approx(mean, nan_ok=True)
    assert "<Frames 6:" in repr(frames)


def test_export(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is the extra [parquet]")
    truth, pred = scene(2, partial=True, extra_frames=1)
    truth = truth.replace(box_columns={"visibility": np.array(["1", "2"])[np.arange(len(truth)) % 2]})
    ledger = dm.match(truth, pred, NUSCENES)
    table = ledger.to_arrow(by=["range=0,20", "visibility", "scene"])
    assert table.num_rows == len(truth) + len(pred)
    parquet.write_table(table, tmp_path / "x.parquet")
    rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    truths, preds = rows[: len(truth)], rows[len(truth) :]
    expected = naive.evaluate(truth, pred, NUSCENES)
    for threshold in NUSCENES.affinity.thresholds:
        matches = {pair for label in NUSCENES.labels for pair in expected.matches(label, threshold)}
        key = f"match@{threshold:g}"
        assert {(row["row"], row[key]) for row in preds if row[key] is not None} == matches
        assert {(row[key], row["row"]) for row in truths if row[key] is not None} == matches
        n_tp = sum(row[f"outcome@{threshold:g}"] == "tp" for row in preds)
        assert n_tp == len(matches) == sum(row[f"outcome@{threshold:g}"] == "found" for row in truths)
        n_fp = sum(row[f"outcome@{threshold:g}"] == "fp" for row in preds)
        assert n_tp + n_fp == len(ledger.event_pred)
    dropped = [row for row in preds if row["fate"] != "kept"]
    assert dropped
    assert all(row["outcome@2"] is None for row in dropped)
    assert all(row["frame:scene"] is None for row in preds if row["fate"] == "extra_frame")
    assert {row["box:visibility"] for row in truths} == {"1", "2"}
    assert {row["box:visibility"] for row in preds} == {None}
    assert {row["slice:visibility"] for row in preds} == {None}
    kept = [row for row in truths if row["fate"] == "kept"]
    assert {row["slice:range=0,20"] for row in kept} <= {"0-20", ">=20", "<0"}
    causes = {row["cause"] for row in preds if row["outcome@2"] == "fp"}
    assert None not in causes
    counts = dm.diagnose(ledger).counts()
    for name, (n_pred, n_truth) in counts.items():
        assert sum(row["cause"] == name for row in preds) == n_pred
        assert sum(row["cause"] == name for row in truths) == n_truth
    ate = [row["ATE"] for row in preds if row["outcome@2"] == "tp"]
    assert all(value is not None for value in ate)
    with pytest.raises(InputError, match="a slice column must be one attribute"):
        ledger.to_arrow(by=["range+scene"])


def row(x: list[float], score: list[float] | None = None, frame: str = "f", **columns: Any) -> dm.Boxes:
    """Cars on a line."""
    n = len(x)
    return dm.Boxes(
        center_m=np.c_[x, np.zeros((n, 2))], size_lwh_m=np.ones((n, 3)), yaw_rad=np.zeros(n), label=["car"] * n,
        frame=[frame] * n, score=score, **columns,
    )  # fmt: skip


def test_a_bin_of_scores_holds_its_lower_edge() -> None:
    found = dm.operating_points(dm.match(row([0, 9]), row([0, 9, 20], [0.5, 1.0, 0.0]), NUSCENES))
    assert found.reliability["car"].count.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    tenths = [i / 10 for i in range(11)]
    found = dm.operating_points(dm.match(row([0]), row(tenths, tenths), NUSCENES))
    assert found.reliability["car"].count.tolist() == [1] * 9 + [2]


def test_a_frame_of_nothing_costs_nothing() -> None:
    both: dict[str, Any] = {"frames": ["f", "nothing"]}
    frames = dm.frames(dm.match(row([0, 9], **both), row([0], [0.5], **both), NUSCENES))
    assert frames.cost is not None
    assert frames.cost[1] == 0
    assert frames.cost[0] < 0


def test_export_of_errors_and_of_columns_of_two_kinds() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is the extra [parquet]")
    truth, pred = row([0, 9], box_columns={"track": [7, 8]}), row([0.5], [0.5], box_columns={"track": ["a"]})
    rows = dm.match(truth, pred, NUSCENES).to_arrow().to_pylist()
    assert [one["ATE"] for one in rows] == [0.5, None, 0.5]
    assert [one["box:track"] for one in rows] == ["7", "8", "a"]


def test_every_threshold_has_its_columns() -> None:
    """Also those that agree in their first digits."""
    pytest.importorskip("pyarrow", reason="pyarrow is the extra [parquet]")
    near = {"thresholds": [1.0, 1.0000001, 2.0], "error_threshold": 2.0}
    protocol = dm.Protocol.from_dict({"extends": "nuscenes", "name": "near", "affinity": near})
    names = dm.match(*scene(2), protocol).to_arrow().column_names
    assert [name for name in names if "@" in name] == [
        f"{kind}@{threshold}" for threshold in ("1", "1.0000001", "2") for kind in ("outcome", "match")
    ]


def test_flat_dict_is_documented() -> None:
    truth, pred = scene(0)
    scores = dm.evaluate(truth, pred, NUSCENES)
    flat = scores.to_flat_dict(prefix="val/")
    assert flat["val/NDS"] == scores.nds
    assert flat["val/AP/car"] == scores.class_ap["car"]
    assert flat["val/ATE/car"] == scores.class_errors[0, 0]
    assert math.isnan(flat["val/AVE/barrier"])
    assert len(flat) == 7 + 60
