"""Intervals and comparison: against brute force, against the textbook, and counted on data whose truth is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coverage_study
import detmetrics as dm
import make
import naive
from detmetrics.errors import InputError
from detmetrics.intervals import limits, p_value, spread, student_quantile, student_tail
from detmetrics.resampling import MAX_LEFT_OUT, Difference, Draws, _few
from detmetrics.scoring import metric_names, metric_range
from detmetrics.slicing import parse, shards_by


def scene(seed: int, n_frames: int = 12, **knobs: Any) -> tuple[dm.Boxes, dm.Boxes]:
    """Two frames a scene."""
    defaults: dict[str, Any] = {"classes": ("car", "pedestrian", "barrier"), "n_truth": 8}
    truth, pred = make.scene(seed, n_frames=n_frames, **(defaults | knobs))
    names = np.array([f"scene-{int(name[-2:]) // 2}" for name in truth.frames], dtype=str)
    return truth.replace(frame_columns={"scene": names}), pred


def flat(result: naive.Result) -> list[float]:
    """All numbers in the order of ``metric_names``."""
    labels, errors = dm.NUSCENES.labels, dm.NUSCENES.error_names
    return [
        result.composite,
        result.mean_ap,
        *(result.tp_errors[name] for name in errors),
        *(result.class_ap[label] for label in labels),
        *(result.class_errors[label, name] for name in errors for label in labels),
    ]


def test_a_replicate_is_the_duplicated_data_set_matched_again() -> None:
    for seed in range(3):
        truth, pred = scene(seed)
        ledger = dm.match(truth, pred, dm.NUSCENES)
        boot, draws = dm.bootstrap(ledger, n=6, seed=seed), Draws(ledger, 6, "scene", seed)
        np.testing.assert_allclose(boot.value, flat(naive.evaluate(truth, pred, dm.NUSCENES)), atol=1e-12)
        for i in range(6):
            weights = draws.weights(i)
            by_scene = {name: set() for name in truth.frame_columns["scene"]}
            for name, weight in zip(truth.frame_columns["scene"], weights, strict=True):
                by_scene[name].add(int(weight))
            assert all(len(counts) == 1 for counts in by_scene.values())
            assert sum(counts.pop() for counts in by_scene.values()) == len(by_scene)  # scenes, with multiplicity
            doubled = naive.duplicate(truth, pred, weights.tolist())
            np.testing.assert_allclose(
                boot.replicates[i], flat(naive.evaluate(*doubled, dm.NUSCENES)), atol=1e-12, err_msg=f"{seed} {i}"
            )
        for j, name in enumerate(sorted(set(truth.frame_columns["scene"].tolist()))):
            keep = [frame for frame, one in zip(truth.frames, truth.frame_columns["scene"], strict=True) if one != name]
            rest = naive.evaluate(truth.take(keep), pred.take(keep), dm.NUSCENES)
            np.testing.assert_allclose(boot.left_out[j], flat(rest), atol=1e-12)


def test_slices_resample_as_slices_of_the_duplicated_data_set() -> None:
    truth, pred = scene(1)
    truth = truth.replace(box_columns={"visibility": np.random.default_rng(0).choice(["1", "2"], size=len(truth))})
    ledger = dm.match(truth, pred, dm.NUSCENES)
    draws = Draws(ledger, 4, "scene", 0)
    for by in ("range=0,20", "visibility", "visibility+range=0,20"):
        boots = dm.bootstrap(ledger, n=4, by=by)
        for i in range(4):
            weights = draws.weights(i)
            keep = np.flatnonzero(weights)
            parts = []
            for copy in range(weights.max()):  # frames of one name cannot be twice in one set: merge renamed copies
                frames = [truth.frames[f] for f in keep if weights[f] > copy]
                parts.append([_renamed(boxes.take(frames), copy) for boxes in (truth, pred)])
            whole = [dm.Boxes.concat([part[side] for part in parts]) for side in (0, 1)]
            slices = dm.slices(dm.match(whole[0], whole[1], dm.NUSCENES), by)
            for name, scores in slices:
                expected = list(scores.to_flat_dict().values())
                np.testing.assert_allclose(boots[name].replicates[i], expected, atol=1e-12)


def _renamed(boxes: dm.Boxes, copy: int) -> dm.Boxes:
    n = len(boxes)
    return boxes.replace(frames=[f"{name}#{copy}" for name in boxes.frames], place=np.arange(n) + copy * 10_000)


def test_same_bits_for_threads_and_order() -> None:
    truth, pred = scene(2)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    first = dm.bootstrap(ledger, n=50, threads=1)
    for other in (
        dm.bootstrap(ledger, n=50, threads=5),
        dm.bootstrap(dm.match(truth.take(np.arange(truth.n_frames)[::-1]), pred, dm.NUSCENES), n=50),
    ):
        assert other.replicates.tobytes() == first.replicates.tobytes()
        assert other.left_out.tobytes() == first.left_out.tobytes()
        assert str(other) == str(first)
    assert dm.bootstrap(ledger, n=50, seed=1).replicates.tobytes() != first.replicates.tobytes()


def test_student() -> None:
    """Tables of Student's t, Abramowitz and Stegun, table 26.10."""
    table = {1: (6.314, 12.706, 63.657), 2: (2.920, 4.303, 9.925), 5: (2.015, 2.571, 4.032), 30: (1.697, 2.042, 2.750)}
    for degrees, values in table.items():
        for share, value in zip((0.95, 0.975, 0.995), values, strict=True):
            assert student_quantile(share, degrees) == pytest.approx(value, abs=6e-4)
            assert student_tail(student_quantile(share, degrees), degrees) == pytest.approx(1 - share, rel=1e-9)
    assert student_tail(0, 7) == 0.5
    assert student_quantile(0.975, 100_001) == pytest.approx(1.95996, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), level=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_limits_against_the_textbook(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    data = rng.gamma(1.5, size=12)
    replicates = data[rng.integers(0, 12, (400, 12))].mean(axis=1)
    left_out = (data.sum() - data) / 11
    value = float(data.mean())
    tails = ((1 - level) / 2, (1 + level) / 2)
    plain = [naive.quantile(replicates.tolist(), tail) for tail in tails]
    assert limits(value, replicates, left_out, 12, level, "percentile") == pytest.approx(plain)
    expected = naive.bca(value, replicates.tolist(), left_out.tolist(), level)
    assert limits(value, replicates, left_out, 12, level, "bca") == pytest.approx(expected)
    wide = limits(value, replicates, left_out, 12, level, "expanded")
    assert wide[0] <= plain[0] <= plain[1] <= wide[1]
    few = limits(value, replicates, left_out, 3, level, "expanded")
    assert few[0] <= wide[0] <= wide[1] <= few[1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), method=st.sampled_from(["expanded", "percentile", "bca"]))
def test_p_value_agrees_with_the_interval(seed: int, method: Any) -> None:
    rng = np.random.default_rng(seed)
    data = rng.normal(rng.uniform(-0.8, 0.8), size=15)
    replicates = data[rng.integers(0, 15, (2000, 15))].mean(axis=1)
    left_out, value = (data.sum() - data) / 14, float(data.mean())
    p = p_value(value, replicates, left_out, 15, method)
    assert 0 < p <= 1
    for level in (0.8, 0.9, 0.95):
        low, high = limits(value, replicates, left_out, 15, level, method)
        if p < 0.9 * (1 - level) - 0.003:
            assert low > 0 or high < 0
        if p > 1.1 * (1 - level) + 0.003:
            assert low <= 0 <= high


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize("n_units", [2, 3, 8])
def test_intervals_of_a_higher_level_hold_those_of_a_lower_one(n_units: int, method: Any) -> None:
    """Up to levels so extreme that the correction of BCa has a pole, behind which its formula has the other sign."""
    rng = np.random.default_rng(n_units)
    levels = (0.5, 0.9, 0.99, 0.9999999, 1 - 1e-12, 1 - 1e-15)
    for skew in (-1.0, 1.0):
        data = np.append(np.zeros(n_units - 1), skew)
        replicates = np.append(data[rng.integers(0, n_units, (500, n_units))].mean(axis=1), [-1.0, 1.0])
        left_out = skew * np.append(np.zeros(200), -1.0)  # the greatest acceleration that there is: 1/6
        for value in (replicates.min() - 1, replicates.max() + 1, float(data.mean())):
            ends = [limits(value, replicates, left_out, n_units, level, method) for level in levels]
            lows, highs = zip(*ends, strict=True)
            assert list(lows) == sorted(lows, reverse=True)
            assert list(highs) == sorted(highs)
            assert p_value(value, replicates, left_out, n_units, method) <= 1


def test_undefined_numbers_have_no_interval() -> None:
    truth, pred = scene(0)
    boot = dm.bootstrap(dm.match(truth, pred, dm.NUSCENES), n=20)
    assert all(math.isnan(value) for value in boot["AVE/barrier"])
    assert math.isnan(limits(math.nan, np.ones(5), np.ones(5), 5, 0.95, "bca")[0])
    assert math.isnan(limits(1.0, np.full(5, math.nan), np.ones(5), 5, 0.95, "percentile")[0])
    assert math.isnan(p_value(1.0, np.ones(5), np.ones(5), 1, "expanded"))


def test_what_rests_on_one_scene_has_no_interval() -> None:
    """However many draws: a scene alone says nothing of how scenes differ."""
    truth, pred = scene(0, raw=False)
    only = truth.frame_columns["scene"] == "scene-0"
    weather = np.where(only, "rain", "dry")
    truth = truth.replace(frame_columns={**truth.frame_columns, "weather": weather})
    boots = dm.bootstrap(dm.match(truth, pred, dm.NUSCENES), n=50, by="weather")
    rain = boots["rain"]
    assert not math.isnan(rain["mAP"].value)
    assert math.isnan(rain["mAP"].low)
    assert rain.notes == ("only 1 scene: nothing can be said about how sure these numbers are",)
    assert boots["dry"]["mAP"].low < boots["dry"]["mAP"].high
    assert boots["dry"].notes[0].startswith("only 5 scenes")
    # a class that is in one scene only has none either, even where the rest has
    car = truth.labels.index("car") if truth.labels else 0
    rows = (truth.label != car) | only[truth.frame]
    rare = truth.replace(num_points=np.where(rows, 5.0, 0.0))  # zero points: does not count
    boot = dm.bootstrap(dm.match(rare, pred, dm.NUSCENES), n=50)
    assert boot.n_units[boot.names.index("AP/car")] == 1
    assert math.isnan(boot["AP/car"].low)
    assert boot["mAP"].low < boot["mAP"].high


def test_errors_rest_on_the_scenes_with_matches() -> None:
    """Truth in every scene, found in one: AP has an interval, its errors have none, in a comparison either way round."""
    truth, pred = scene(0, recall=1.0)
    here = truth.frame_columns["scene"][np.array([truth.frame_index[name] for name in pred.frames])[pred.frame]]
    away = pred.replace(center_m=pred.center_m + np.where(here == "scene-0", 0.0, 5000.0)[:, None] * [1, 0, 0])
    all_over, one = (dm.match(truth, boxes, dm.NUSCENES) for boxes in (pred, away))
    boot = dm.bootstrap(one, n=20)
    assert boot.n_units[boot.names.index("ATE")] == 1
    assert boot.n_units[boot.names.index("mAP")] > 2
    assert math.isnan(boot["ATE"].low)
    for sides in ((all_over, one), (one, all_over)):
        assert math.isnan(dm.compare(*sides, n=20)["ATE"].p_value)


def test_jackknife_values_that_are_undefined_are_left_out() -> None:
    replicates, left_out = np.random.default_rng(0).gamma(2, size=500), np.random.default_rng(1).gamma(2, size=20)
    assert limits(2.0, replicates, np.append(left_out, math.nan), 20, 0.9, "bca") == limits(
        2.0, replicates, left_out, 20, 0.9, "bca"
    )


def test_the_p_value_of_skewed_data_is_where_the_interval_ends_at_zero() -> None:
    """With the acceleration: without it the interval would end elsewhere."""
    data = np.random.default_rng(3).gamma(0.4, size=20) - 0.22
    replicates = data[np.random.default_rng(4).integers(0, 20, (100_000, 20))].mean(axis=1)
    left_out, value = (data.sum() - data) / 19, float(data.mean())
    p = p_value(value, replicates, left_out, 20, "bca")
    low, high = limits(value, replicates, left_out, 20, 1 - p, "bca")
    assert 0.01 < p < 0.6
    assert min(abs(low), abs(high)) < 0.005 * replicates.std()


def test_what_comes_out() -> None:
    truth, pred = scene(3, n_frames=44)
    calls: list[tuple[int, int]] = []
    ledger = dm.match(truth, pred, dm.NUSCENES)
    boot = dm.bootstrap(ledger, n=40, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(calls), len(calls)) == (1 + 40 + 22, 63)
    assert boot.notes == ("only 40 draws: with fewer than 200, the ends of intervals are left to chance",)
    assert not dm.bootstrap(ledger, n=200).notes
    assert len(boot) == len(metric_names(dm.NUSCENES)) == len(list(boot)) == len(boot.to_rows())
    scores = dm.score(ledger)
    assert boot["NDS"].value == scores.nds
    for name, value in scores.to_flat_dict().items():
        assert boot[name].value == pytest.approx(value, nan_ok=True, abs=0)
    one = boot["mAP"]
    assert one.low < one.value < one.high
    assert boot.interval("mAP", level=0.5).low > one.low
    assert boot.interval("mAP", method="bca") != one
    assert "boot:40/scene/seed0/expanded95" in boot.signature
    assert "standard error" in str(boot)
    assert "NDS" in repr(boot)
    assert dm.bootstrap(ledger, n=5, absent="omit")["mAP"].value == dm.score(ledger, absent="omit").mean_ap


def test_comparison() -> None:
    truth, pred = scene(4, n_frames=30, n_truth=30, recall=0.95)
    worse = pred.replace(center_m=np.add(pred.center_m, [1.5, 0, 0]))
    a, b = (dm.match(truth, one, dm.NUSCENES) for one in (pred, worse))
    same = dm.compare(a, a, n=50)
    for _, one in same:
        assert math.isnan(one.p_value) or (one.difference == 0 and one.p_value == pytest.approx(1))
    found = dm.compare(a, b, n=200)
    boots = [dm.bootstrap(one, n=200) for one in (a, b)]
    np.testing.assert_array_equal(found.replicates, boots[1].replicates - boots[0].replicates)
    one = found["mAP"]
    assert one.difference == one.candidate - one.baseline < 0
    assert one.is_significant
    assert one.p_value < 0.05
    assert one.gain == one.difference
    assert found["ATE"].gain == -found["ATE"].difference
    assert one.detectable > 0
    assert dm.compare(b, a, n=200)["mAP"].low == pytest.approx(-one.high)
    parts = dm.compare(a, b, n=20, by="range=0,20")
    assert set(parts) >= {"0-20", ">=20"}
    assert parts["0-20"].slice == "range=0,20:0-20"
    assert "p" in str(found)
    assert "mAP" not in repr(found)
    assert len(found.to_rows()) == len(found)


@pytest.mark.parametrize("n_scenes", [2, 3, 4, 5, 30])
@pytest.mark.parametrize("n", [20, 1000])
def test_few_scenes_or_draws_are_not_called_significant(n_scenes: int, n: int) -> None:
    """Means of pure noise: at 95 % about one in twenty may be, for any number of units and draws."""
    rng = np.random.default_rng(n_scenes * n)
    n_significant, n_sets = 0, 300
    for _ in range(n_sets):
        data = rng.normal(size=n_scenes)
        replicates = data[rng.integers(0, n_scenes, (n, n_scenes))].mean(axis=1)
        value, none = float(data.mean()), np.zeros(0)
        low, high = limits(value, replicates, none, n_scenes, 0.95, "expanded")
        p = p_value(value, replicates, none, n_scenes, "expanded")
        n_significant += (low > 0 or high < 0) and p < 0.05
    assert n_significant <= 0.11 * n_sets


def test_units_must_be_the_same() -> None:
    truth, pred = scene(5)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    turned = truth.replace(frame_columns={"scene": truth.frame_columns["scene"][::-1].copy()})
    with pytest.raises(InputError, match=r"scene of the frames of baseline and candidate must be the same.*'scene-"):
        dm.compare(ledger, dm.match(turned, pred, dm.NUSCENES), n=5)
    for column in (["a"] * 6 + [""] * 6, [7.0] * 6 + [math.nan] * 6, ["a"] * 6 + [None] * 3 + [math.nan] * 3):
        nameless = truth.replace(frame_columns={"scene": np.array(column, object if None in column else None)})
        with pytest.raises(InputError, match=r"6 frames of .* have no scene to draw by"):
            dm.bootstrap(dm.match(nameless, pred, dm.NUSCENES), n=5)
    wide = truth.replace(frame_columns={"scene": np.zeros((12, 2))})
    with pytest.raises(InputError, match="column 'scene' to draw by must be of one value a frame"):
        dm.bootstrap(dm.match(wide, pred, dm.NUSCENES), n=5)
    one, other = (
        dm.match(truth.replace(box_columns={"visibility": column}), pred, dm.NUSCENES)
        for column in (np.array(["1"] * len(truth)), np.array(["1", "2"])[np.arange(len(truth)) % 2])
    )
    with pytest.raises(InputError, match="truths of slice '1' of baseline and candidate must be the same number"):
        dm.compare(one, other, n=5, by="visibility")


def test_what_cannot_be_compared() -> None:
    truth, pred = scene(5)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    rules = dm.Protocol.from_dict({"extends": "nuscenes", "name": "mine", "curve": {"min_recall": 0.2}})
    with pytest.raises(InputError, match=r"protocol of baseline and candidate must be the same.*nuscenes.*mine"):
        dm.compare(ledger, dm.match(truth, pred, rules))
    fewer = dm.match(truth.take(truth.frames[1:]), pred.take(truth.frames[1:]), dm.NUSCENES)
    with pytest.raises(InputError, match=r"frames of baseline and candidate.*12 and 11.*only in the baseline: "):
        dm.compare(ledger, fewer)
    named = [f"{name}x" if i == 0 else name for i, name in enumerate(truth.frames)]
    other = dm.match(
        truth.replace(frames=named),
        pred.replace(frames=[dict(zip(truth.frames, named, strict=True))[name] for name in pred.frames]),
        dm.NUSCENES,
    )
    with pytest.raises(InputError, match=r"frames of baseline and candidate must be the same, got 12 and 12.*only in"):
        dm.compare(ledger, other)
    moved = dm.match(truth.replace(yaw_rad=truth.yaw_rad + 1e-9), pred, dm.NUSCENES)
    with pytest.raises(InputError, match="truth of baseline and candidate must be the same"):
        dm.compare(ledger, moved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "log"}, "unit 'log' to draw must be 'frame' or a column.*'scene'"),
        ({"n": 1}, "number of replicates must be at least 2"),
        ({"n": 10**9}, "number of replicates must be .* at most 1000000, got 1000000000"),
        ({"seed": -1}, "seed must be zero or more"),
        ({"level": 1.0}, "level must be between 0 and 1"),
        ({"method": "magic"}, "method must be one of"),
        ({"absent": "maybe"}, "absent must be one of"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    truth, pred = scene(0)
    with pytest.raises(InputError, match=message):
        dm.bootstrap(dm.match(truth, pred, dm.NUSCENES), **{"n": 3, **options})


def test_one_unit_is_refused() -> None:
    truth, pred = scene(0)
    one = truth.replace(frame_columns={"scene": np.array(["s"] * truth.n_frames)})
    with pytest.raises(InputError, match=r"units to draw \(scene\) must be at least 2, got 1"):
        dm.bootstrap(dm.match(one, pred, dm.NUSCENES), n=3)
    with pytest.raises(InputError, match="unknown metric 'ADE'"):
        dm.bootstrap(dm.match(truth, pred, dm.NUSCENES), n=3)["ADE"]
    with pytest.raises(InputError, match="BCa intervals only if asked for"):
        dm.bootstrap(dm.match(truth, pred, dm.NUSCENES), n=3, by="scene")["scene-0"].interval("mAP", method="bca")


def test_frames_as_units() -> None:
    truth, pred = scene(0)
    ledger = dm.match(truth.replace(frame_columns={}), pred, dm.NUSCENES)
    boot = dm.bootstrap(ledger, n=10, unit="frame")
    assert boot.n_units[0] == (ledger.truth_counts.sum(axis=1) > 0).sum() > 6


def test_many_units_are_left_out_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, pred = scene(0)
    monkeypatch.setattr("detmetrics.resampling.MAX_LEFT_OUT", 5)
    draws = Draws(dm.match(truth, pred, dm.NUSCENES), 3, "frame", 0)
    assert len(draws.left_out) == 5
    assert sorted(np.concatenate(draws.left_out).tolist()) == list(range(12))


def test_draws_are_those_of_the_seed() -> None:
    """Spelled out: a seed promises these bits, and with many units groups that have nothing to do with their names."""
    n_units = MAX_LEFT_OUT + 101
    names = [f"f{i:04d}" for i in np.random.default_rng(1).permutation(n_units)]
    truth = dm.Boxes(
        center_m=np.zeros((n_units, 3)), size_lwh_m=np.ones((n_units, 3)), yaw_rad=np.zeros(n_units),
        label=["car"] * n_units, frame=names, frames=names,
    )  # fmt: skip
    draws = Draws(dm.match(truth, truth.replace(score=np.ones(n_units)), dm.NUSCENES), 3, "frame", 7)
    random = np.random.default_rng(7)
    for row in draws.counts:
        drawn = random.integers(0, n_units, n_units).tolist()
        assert row.tolist() == [drawn.count(unit) for unit in range(n_units)]
    ordered = sorted(names)
    for frame, name in enumerate(truth.frames):
        assert draws.weights(1)[frame] == draws.counts[1, ordered.index(name)]
    assert len(draws.left_out) == MAX_LEFT_OUT
    assert sorted({len(group) for group in draws.left_out}) == [1, 2]
    flat = np.concatenate(draws.left_out).tolist()
    assert flat == random.permutation(n_units).tolist()  # of a fresh stream they would not be independent of the draws
    without = draws.without(0)
    gone = {ordered.index(truth.frames[frame]) for frame in np.flatnonzero(without == 0)}
    assert gone == set(draws.left_out[0].tolist())
    assert set(without.tolist()) == {0, 1}


def test_with_few_units_each_is_left_out_once_and_in_order() -> None:
    truth, pred = scene(0)
    draws = Draws(dm.match(truth, pred, dm.NUSCENES), 3, "frame", 0)
    assert [group.tolist() for group in draws.left_out] == [[i] for i in range(12)]
    assert Draws(dm.match(truth, pred, dm.NUSCENES), 3, "frame", 0, jackknife=False).left_out == []


@pytest.mark.parametrize("by", [None, "weather", "range=0,15", "kind", "visibility", "weather+visibility"])
def test_units_that_bear_on_a_number_are_counted(by: str | None) -> None:
    """Slowly: scenes with a truth of the class in the slice; for errors, with a match whose truth is of it."""
    truth, pred = scene(3, n_truth=3, n_frames=16, recall=0.7, noise_m=1.5)
    rng = np.random.default_rng(0)
    truth = truth.replace(
        box_columns={name: rng.choice(["1", "2"], size=len(truth)) for name in ("visibility", "kind")},
        frame_columns={**truth.frame_columns, "weather": np.repeat(["rain", "dry"], 8)},
    )
    pred = pred.replace(box_columns={"kind": rng.choice(["1", "2"], size=len(pred))})  # not that of the truth it finds
    ledger = dm.match(truth, pred, dm.NUSCENES)
    found = dm.bootstrap(ledger, n=2, by=by) if by else {"": dm.bootstrap(ledger, n=2)}
    shard_of = {"": np.zeros(len(truth), int)}
    if by:
        shard_of = {}
        for group in shards_by(ledger, parse(by)):
            shard_of |= {name: np.where(group.truth == s, 0, -1) for s, name in enumerate(group.names)}
    is_found = np.zeros(len(truth), bool)
    is_found[ledger.pair_truth[ledger.pair_bits & 4 > 0]] = True  # at 2 m, where nuScenes takes the errors
    scenes = truth.frame_columns["scene"][truth.frame]
    for name, boot in found.items():
        for metric, n_units in zip(boot.names, boot.n_units.tolist(), strict=True):
            kind, _, label = metric.partition("/")
            counts = (ledger.truth_fate == dm.Fate.KEPT) & (shard_of[name] == 0)
            if kind in dm.NUSCENES.error_names:
                counts &= is_found
            if label:
                counts &= ledger.truth_task == dm.NUSCENES.labels.index(label)
            assert n_units == len(set(scenes[counts].tolist())), (name, metric)
    assert len({int(n) for boot in found.values() for n in boot.n_units}) > 3


def test_an_interval_that_ends_at_zero_holds_it() -> None:
    one = Difference(0.5, 0.5, 0.1, 0.0, 0.2, 0.01, 0.1, higher_is_better=True, level=0.95)
    assert not one.is_significant
    assert not one._replace(low=-0.2, high=0.0).is_significant
    assert one._replace(low=1e-9).is_significant
    assert not one._replace(low=1e-9, p_value=0.06).is_significant


def test_tails_beyond_the_draws_hold_all_of_them() -> None:
    """Of 20 draws none shows a tail of half a percent: normal tails, unless a draw lies further out."""
    replicates = np.append(np.zeros(19), -10.0)
    low, high = limits(0.0, replicates, np.zeros(0), 15, 0.99, "expanded")
    assert low == -10
    assert high == pytest.approx(replicates.std(ddof=1) * 2.9768 * math.sqrt(15 / 14), rel=1e-4)
    assert limits(0.0, -replicates, np.zeros(0), 15, 0.99, "expanded") == (-high, 10)


def test_the_jackknife_of_slices_is_the_slices_of_the_rest() -> None:
    truth, pred = scene(1)
    boots = dm.bootstrap(dm.match(truth, pred, dm.NUSCENES), n=2, by="range=0,20", method="bca")
    scenes = truth.frame_columns["scene"]
    for j, gone in enumerate(sorted(set(scenes.tolist()))):
        keep = [frame for frame, one in zip(truth.frames, scenes, strict=True) if one != gone]
        for name, scores in dm.slices(dm.match(truth.take(keep), pred.take(keep), dm.NUSCENES), "range=0,20"):
            np.testing.assert_allclose(boots[name].left_out[j], list(scores.to_flat_dict().values()), atol=1e-12)


def test_few_units_are_said_up_to_twenty() -> None:
    assert _few(20, "scene", 200) == ()
    assert _few(19, "scene", 200) == ("only 19 scenes: with fewer than 20, intervals are rough",)
    assert _few(20, "scene", 199) == ("only 199 draws: with fewer than 200, the ends of intervals are left to chance",)
    assert _few(2, "scene", 200)[0].startswith("only 2 scenes: with")


def test_the_p_value_of_few_units_is_where_the_interval_ends_at_zero() -> None:
    """With the tails of Student and the unbiased variance, as the interval has them."""
    data = np.array([0.1, 0.9, -0.2, 0.7])
    replicates = data[np.random.default_rng(4).integers(0, 4, (200_000, 4))].mean(axis=1)
    replicates += np.random.default_rng(5).normal(0, 0.01, len(replicates))  # four units alone make steps
    p = p_value(float(data.mean()), replicates, np.zeros(0), 4, "expanded")
    low, high = limits(float(data.mean()), replicates, np.zeros(0), 4, 1 - p, "expanded")
    assert 0.1 < p < 0.6
    assert min(abs(low), abs(high)) < 0.01 * replicates.std()


def test_what_could_be_detected() -> None:
    """The difference whose interval leaves out zero in four of five repetitions, if replicates spread as they should."""
    truth, pred = scene(4, n_frames=30, n_truth=30, recall=0.95)
    worse = pred.replace(center_m=np.add(pred.center_m, [1.5, 0, 0]))
    a, b = (dm.match(truth, one, dm.NUSCENES) for one in (pred, worse))
    found = dm.compare(a, b, n=100)
    m, n = found.names.index("mAP"), 15
    assert found.n_units[m] == n
    error = float(np.std(found.replicates[:, m], ddof=1))
    # the unbiased standard error times: where the interval ends (Student, 14 degrees), and 80 % of a normal
    expected = math.sqrt(n / (n - 1)) * error * (2.1448 + 0.8416)
    assert found["mAP"].detectable == pytest.approx(expected, rel=1e-4)
    rough = dm.compare(a, b, n=100, method="percentile", level=0.9)["mAP"].detectable
    assert rough == pytest.approx(error * (1.6449 + 0.8416 * math.sqrt(n / (n - 1))), rel=1e-4)
    rng, hits, n_sets = np.random.default_rng(0), 0, 400
    for _ in range(n_sets):  # the promise itself, for means of 15 units with a spread of 1
        data = rng.normal((2.1448 + 0.8416) / math.sqrt(n), size=n)
        replicates = data[rng.integers(0, n, (300, n))].mean(axis=1)
        hits += limits(float(data.mean()), replicates, np.zeros(0), n, 0.95, "expanded")[0] > 0
    assert 0.72 < hits / n_sets < 0.88


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """A small run of the study in coverage_study.py; the full one is part of ``make soak``."""
    n_sets = 60
    counts = coverage_study.study(n_scenes=25, n_sets=n_sets, n=200)
    for name in ("NDS", "mAP", "ATE"):
        held, false_alarms = counts["expanded"][name]
        assert held >= 49  # 95 % of 60 is 57; below 49 once in 50,000 runs at 94 %
        assert false_alarms <= 11


def test_a_sure_difference_has_a_small_p_value_and_not_a_negative_one() -> None:
    replicates = np.random.default_rng(0).normal(-1, 0.01, 500)
    assert 0 <= p_value(-1.0, replicates, np.zeros(0), 150, "expanded") < 1e-6


def test_intervals_end_where_the_range_of_the_number_does() -> None:
    """With few scenes the expanded intervals would reach below zero and above one; the ends alone are cut."""
    truth, pred = scene(5, n_frames=6, recall=0.7)
    worse = pred.replace(center_m=np.add(pred.center_m, [5, 0, 0]))
    a, b = (dm.match(truth, one, dm.NUSCENES) for one in (pred, worse))
    boot, found = dm.bootstrap(a, n=200), dm.compare(a, b, n=200)
    cut = {"low": 0, "high": 0, "difference": 0}
    for m, name in enumerate(boot.names):
        least, most = metric_range(name, dm.NUSCENES)
        rest = boot.replicates[:, m], boot.left_out[:, m], int(boot.n_units[m])
        low, high = limits(boot.value[m], *rest, 0.95, "expanded")
        one, difference = boot[name], found[name]
        if math.isnan(low):
            continue
        assert (one.low, one.high) == (max(low, least), min(high, most))
        assert least <= one.low <= one.value <= one.high <= most
        cut["low"] += one.low > low
        cut["high"] += one.high < high
        rest = found.replicates[:, m], found.left_out[:, m], int(found.n_units[m])
        low, high = limits(difference.difference, *rest, 0.95, "expanded")
        assert (difference.low, difference.high) == (max(low, least - most), min(high, most - least))
        cut["difference"] += difference.low > low or difference.high < high
    assert all(cut.values()), cut


def test_the_number_itself_is_never_cut_off() -> None:
    above = 1 + 1e-15
    assert limits(above, np.array([0.9, above, 1.2]), np.zeros(0), 3, 0.95, "expanded", (0.0, 1.0))[1] == above


@pytest.mark.parametrize(
    ("protocol", "name", "expected"),
    [
        (dm.NUSCENES, "NDS", (0, 1)),
        (dm.NUSCENES, "AP/car", (0, 1)),
        (dm.NUSCENES, "ATE", (0, math.inf)),
        (dm.NUSCENES, "ASE/bus", (0, 1)),
        (dm.NUSCENES, "AOE", (0, math.pi)),
        (dm.NUSCENES, "AVE/car", (0, math.inf)),
        (dm.NUSCENES, "AAE", (0, 1)),
        (dm.ARGOVERSE2, "CDS/BUS", (0, 1)),
        (dm.ARGOVERSE2, "AOE/BUS", (0, math.pi)),
    ],
)
def test_ranges(protocol: dm.Protocol, name: str, expected: tuple[float, float]) -> None:
    assert metric_range(name, protocol) == expected


def test_a_worst_value_of_ones_own_widens_the_range() -> None:
    errors = [{"name": "ASE", "key": "k", "kind": "scale_aligned", "unit": "1", "worst": 5.0}]
    rules = dm.Protocol.from_dict(
        {
            "name": "mine",
            "tasks": [{"label": "car"}],
            "affinity": {"kind": "center_xy", "thresholds": [1.0], "error_threshold": 1.0},
            "errors": errors,
            "composite": {"name": "X", "error_weights": {}},
        }
    )
    assert metric_range("ASE", rules) == (0, 5)


def test_as_many_units_as_are_left_out_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detmetrics.resampling.MAX_LEFT_OUT", 12)
    truth, pred = scene(0)
    draws = Draws(dm.match(truth, pred, dm.NUSCENES), 3, "frame", 0)
    assert [group.tolist() for group in draws.left_out] == [[i] for i in range(12)]


def test_a_level_less_than_a_digit_below_one_is_none() -> None:
    truth, pred = scene(0)
    with pytest.raises(InputError, match=r"level must be between 0 and 1, got 0\.99999"):
        dm.bootstrap(dm.match(truth, pred, dm.NUSCENES), n=2, level=math.nextafter(1, 0))


def test_a_comparison_keeps_its_seed_and_its_jackknife() -> None:
    truth, pred = scene(4)
    worse = pred.replace(center_m=np.add(pred.center_m, [1.5, 0, 0]))
    a, b = (dm.match(truth, one, dm.NUSCENES) for one in (pred, worse))
    first, second = (dm.bootstrap(one, n=3, seed=5) for one in (a, b))
    found = dm.compare(a, b, n=3, seed=5)
    assert found.seed == 5
    np.testing.assert_array_equal(found.left_out, second.left_out - first.left_out)
    assert np.nanmax(np.abs(found.left_out)) > 0


def test_undefined_replicates_are_left_out() -> None:
    known = np.random.default_rng(0).normal(0.1, size=30)
    some = np.insert(known, [3, 20], math.nan)
    none = np.zeros(0)
    assert spread(some) == spread(known) == pytest.approx(known.std(ddof=1))
    assert math.isnan(spread(np.array([1.0, math.nan])))
    for method in ("expanded", "percentile"):
        assert p_value(0.1, some, none, 9, method) == p_value(0.1, known, none, 9, method)
        assert limits(0.1, some, none, 9, 0.9, method) == limits(0.1, known, none, 9, 0.9, method)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_p_value_where_no_draw_lies_beyond_zero(sign: int) -> None:
    """By Student's t of one degree, whose tail is an arcus tangent, and the unbiased spread of the draws."""
    replicates = sign * np.array([1.0, 2.0, 3.0, 4.0])
    t = 2.5 / math.sqrt(5 / 3) * math.sqrt(1 / 2)
    expected = 1 - 2 * math.atan(t) / math.pi
    assert p_value(sign * 2.5, replicates, np.zeros(0), 2, "expanded") == pytest.approx(expected, abs=1e-12)


def test_the_number_itself_is_never_cut_off_below() -> None:
    below = -1e-15
    assert limits(below, np.array([-0.2, below, 0.1]), np.zeros(0), 3, 0.95, "expanded", (0.0, 1.0))[0] == below


def test_a_p_value_of_just_what_the_level_leaves_is_not_significant() -> None:
    one = Difference(0.5, 0.6, 0.1, 0.01, 0.2, 1 - 0.95, 0.1, higher_is_better=True, level=0.95)
    assert not one.is_significant
    assert one._replace(p_value=math.nextafter(1 - 0.95, 0)).is_significant


def test_one_known_replicate_makes_no_interval() -> None:
    one = np.array([1.0, math.nan])
    for method in ("expanded", "percentile", "bca"):
        assert all(math.isnan(end) for end in limits(1.0, one, np.arange(5.0), 5, 0.95, method))


def test_replicates_that_equal_the_estimate_count_half() -> None:
    """As where a class is found in few scenes."""
    replicates, left_out = np.repeat([0.0, 0.5, 1.0, 2.0], [30, 60, 50, 20]), np.array([0.2, 0.6, 0.5, 0.9, 1.4])
    expected = naive.bca(0.5, replicates.tolist(), left_out.tolist(), 0.6)
    assert limits(0.5, replicates, left_out, 5, 0.6, "bca") == pytest.approx(expected)
    doubled = np.repeat(replicates, 2) + np.tile([-1e-9, 1e-9], 160)  # half of the equals just below, half above
    assert p_value(0.5, replicates, left_out, 5, "bca") == pytest.approx(
        p_value(0.5, doubled, left_out, 5, "bca"), abs=0.01
    )
