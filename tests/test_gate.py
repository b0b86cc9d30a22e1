"""The gate: rules as data, and what they say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import detmetrics as dm
import make
from detmetrics.errors import InputError
from detmetrics.gate import Gate, Rule, _outcome, parse_slice
from detmetrics.reporting import comparing
from detmetrics.reporting.table import as_plain
from detmetrics.resampling import Difference
from detmetrics.slicing import Term


def difference(gain: float, low: float, high: float, is_error: bool = False) -> Difference:
    """A difference whose gain lies between low and high."""
    if is_error:
        gain, low, high = -gain, -high, -low
    p = 0.01 if low > 0 or high < 0 else 0.5
    return Difference(0.5, 0.5 + gain, gain, low, high, p, 0.1, not is_error, 0.95)


@pytest.mark.parametrize("is_error", [False, True])
@pytest.mark.parametrize(
    ("rule", "gain", "low", "high", "verdict"),
    [
        ({}, -0.01, -0.02, -0.001, "worse"),
        ({}, -0.01, -0.02, 0.001, "ok"),  # a drop, but not significant
        ({"significant": False}, -0.01, -0.02, 0.001, "worse"),
        ({"significant": False}, 0.0, -0.02, 0.02, "ok"),
        ({"tolerance": 0.02}, -0.03, -0.04, -0.01, "ok"),  # surely worse, but not surely by more than 0.02
        ({"tolerance": 0.02}, -0.03, -0.04, -0.021, "worse"),
        ({"tolerance": 0.02, "significant": False}, -0.03, -0.04, -0.01, "worse"),
        ({}, 0.1, 0.05, 0.2, "ok"),
        ({}, -0.01, math.nan, math.nan, "worse"),  # no interval: the drop itself decides
        ({}, 0.01, math.nan, math.nan, "ok"),
        ({"tolerance": 0.02}, -0.01, math.nan, math.nan, "ok"),
    ],
)
def test_what_a_rule_says(rule: dict, gain: float, low: float, high: float, verdict: str, is_error: bool) -> None:
    name = "ATE" if is_error else "mAP"
    assert _outcome(Rule(metric=name, **rule), difference(gain, low, high, is_error)).verdict == verdict


def test_undefined_numbers() -> None:
    one = difference(0.0, 0.0, 0.0)
    assert _outcome(Rule(metric="mAP"), one._replace(candidate=math.nan)).verdict == "undefined"
    assert _outcome(Rule(metric="mAP"), one._replace(baseline=math.nan)).verdict == "nothing"
    assert _outcome(Rule(metric="mAP"), one, has_truth=False).verdict == "nothing"
    unsure = difference(-0.01, -0.02, -0.001)._replace(p_value=0.2)  # few draws: interval and p-value disagree
    assert _outcome(Rule(metric="mAP"), unsure).verdict == "ok"


def test_slices_in_words() -> None:
    assert parse_slice("weather=rain") == ((Term("weather", None),), "rain")
    assert parse_slice("range=20-40") == ((Term("range", (20.0, 40.0)),), "20-40")
    assert parse_slice("range=>=40") == ((Term("range", (40.0,)),), ">=40")
    assert parse_slice("range=20.0-1e6")[1] == "20-1000000"
    assert parse_slice("height=-1.5-2")[0] == (Term("height", (-1.5, 2.0)),)
    assert parse_slice("speed=<0.5+scene=scene-0103") == (
        (Term("speed", (0.5,)), Term("scene", None)),
        "<0.5+scene-0103",
    )


def two(recall: float = 0.9) -> tuple[dm.Ledger, dm.Ledger]:
    truth, pred = make.scene(0, n_frames=40, classes=("car", "pedestrian"), n_truth=30, recall=recall)
    scenes = np.array([f"s{int(name[-2:]) // 2:02d}" for name in truth.frames], dtype=str)
    weather = np.where(np.arange(40) % 4 < 2, "rain", "dry")
    truth = truth.replace(frame_columns={"scene": scenes, "weather": weather})
    moved = pred.replace(center_m=np.add(pred.center_m, [1.5, 0, 0]))
    return dm.match(truth, pred, dm.NUSCENES), dm.match(truth, moved, dm.NUSCENES)


TOML = """
n = 100
[[rule]]
metric = "NDS"
[[rule]]
metric = "AP"
class = "car"
slice = "range=0-20"
tolerance = 0.01
[[rule]]
metric = "ATE"
slice = "weather=rain+range=0-20"
[[rule]]
metric = "ASE"
significant = false
"""


def test_a_worse_detector_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(TOML)
    gate = Gate.load(tmp_path / "gate.toml")
    baseline, worse = two()
    calls: list[tuple[int, int]] = []
    verdict = gate.check(baseline, worse, progress=lambda done, total: calls.append((done, total)))
    assert [outcome.verdict for outcome in verdict.outcomes] == ["worse", "worse", "ok", "ok"]
    assert not verdict.passed
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    parts = dm.compare(baseline, worse, n=100, by="range=0,20")
    assert verdict.outcomes[1].difference == parts["0-20"]["AP/car"]
    assert Gate(rules=gate.rules[:3], n=100).check(worse, baseline).passed
    assert gate.check(baseline, baseline).passed
    markdown = comparing.as_markdown(verdict.comparison, verdict, parts, ("a|b", "<b>"))
    assert "**Gate: NOT passed, 2 of 4 rules broken.**" in markdown
    assert "gate: NOT passed, 2 of 4 rules broken" in as_plain(comparing.verdict_table(verdict))
    assert gate.check(baseline, baseline).words == "passed, all 4 rules met"
    assert Gate(rules=gate.rules[:1], n=100).check(baseline, worse).words == "NOT passed, its one rule broken"
    assert Gate(rules=gate.rules[:1], n=100).check(baseline, baseline).words == "passed, its one rule met"
    assert "AP/car in range=0-20: no significant drop beyond 0.01" in markdown
    assert "a\\|b" in markdown
    assert "\\<b\\>" in markdown
    for line in markdown.splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") in (7, 9)
    values = comparing.as_json(verdict.comparison, verdict, parts)
    assert values["gate"]["passed"] is False
    assert values["gate"]["rules"][0]["verdict"] == "worse"
    assert set(values["slices"]) == set(parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing required field `rule`"),
        ("rule = []", "gate must be at least one"),
        ("[[rule]]\nclass = 'car'", "missing required field `metric`"),
        ("[[rule]]\nmetric = 'NDS'\ntolerence = 1", "unknown field `tolerence`"),
        ("[[rule]]\nmetric = 'NDS'\ntolerance = -1", "tolerance of a gate's rule must be zero or more, got -1"),
        ("[[rule]]\nmetric = 'NDS'\ntolerance = 'x'", "Expected `float`, got `str`"),
        ("[[rule]]\nmetric = 'NDS'\nslice = ''", r"slice '' must be like weather=rain.*rule\[0\]"),
        ("[[rule]]\nmetric = 'NDS'\nslice = 'range=40-20'", "edges of range must be ascending"),
        (
            "[[rule]]\nmetric = 'NDS'\nslice = 'range=0-20+range=20-40'",
            "a crossing must be of two different attributes",
        ),
        ("[[rule]]\nmetric = 'NDS'\nslice = 'a=b+c=d+e=f'", "what to slice by must be one attribute or a crossing"),
        ("level = 1.0\n[[rule]]\nmetric = 'NDS'", "level must be between 0 and 1, got 1.0"),
        ("level = 95\n[[rule]]\nmetric = 'NDS'", "level must be between 0 and 1, got 95.0"),
        ("n = 1\n[[rule]]\nmetric = 'NDS'", "number of replicates must be at least 2 .*, got 1"),
        ("seed = -1\n[[rule]]\nmetric = 'NDS'", "seed must be zero or more, got -1"),
        ("[[rule", "is not TOML"),
    ],
)
def test_gates_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        Gate.load(tmp_path / "gate.toml")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"metric": "NSD"}, "unknown metric 'NSD'.*did you mean 'NDS'"),
        ({"metric": "AP"}, "unknown metric 'AP'"),
        ({"metric": "AP", "label": "cra"}, "unknown class 'cra'.*'car'"),
        ({"metric": "NDS", "label": "car"}, "NDS has no classes: leave out class = 'car'"),
        ({"metric": "AVE", "label": "barrier"}, "a rule on AVE/barrier must be on a number that nuscenes"),
        ({"metric": "NDS", "slice": "weather=snow"}, "slice 'weather=snow'.*'rain'"),
        ({"metric": "NDS", "slice": "wether=rain"}, "unknown attribute to slice by 'wether'"),
        ({"metric": "NDS", "slice": "rain"}, "slice 'rain' must be like weather=rain"),
    ],
)
def test_rules_about_nothing(rule: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Gate(rules=(Rule(**rule),), n=3).check(*two())


def test_a_rule_about_nothing_does_not_pass() -> None:
    baseline, _ = two()
    for rule in (Rule(metric="AP", label="bicycle"), Rule(metric="NDS", slice="range=60-80")):
        (outcome,) = Gate(rules=(rule,), n=3).check(baseline, baseline).outcomes
        assert outcome.verdict == "nothing"


def test_no_gate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*gate.toml: No such file"):
        Gate.load(tmp_path / "gate.toml")


def test_a_slice_of_one_side_only_is_named() -> None:
    """Predictions of a kind that neither the truth nor the other side has: nothing to compare, and it says so."""
    baseline, worse = two()
    truth, preds = (
        baseline.truth,
        (baseline.pred, worse.pred.replace(center_m=np.add(worse.pred.center_m, [30.0, 0, 0]))),
    )
    truth = truth.replace(box_columns={"kind": np.full(len(truth), "a")})
    kinds = [
        pred.replace(box_columns={"kind": np.full(len(pred), kind)}) for pred, kind in zip(preds, "ab", strict=True)
    ]
    first, second = (dm.match(truth, pred, dm.NUSCENES) for pred in kinds)
    for sides, has in (((first, second), "candidate"), ((second, first), "baseline")):
        parts = dm.compare(*sides, n=10, by="kind")
        assert set(parts) == {"a", "b"}
        note = f"only the {has} has predictions here, and there is no truth: nothing to compare"
        assert parts["b"].notes == (note,)
        assert all(math.isnan(one.difference) and not one.is_significant for _, one in parts["b"])
        assert not math.isnan(parts["a"]["mAP"].difference)
        whole = dm.compare(*sides, n=10)
        assert note in str(parts["b"])
        assert comparing.as_json(whole, None, parts)["slice_notes"]["b"] == [note]
        assert f"> {note}" in comparing.as_markdown(whole, None, parts, ("x", "y"))
        (outcome,) = Gate(rules=(Rule(metric="NDS", slice="kind=b"),), n=10).check(*sides).outcomes
        assert outcome.verdict == "nothing"


def test_the_comparison_is_done_as_the_gate_says() -> None:
    baseline, worse = two()
    rules = (Rule(metric="NDS"), Rule(metric="NDS", slice="weather=rain"))
    options = {"n": 7, "unit": "frame", "seed": 3, "level": 0.8}
    verdict = Gate(rules=rules, **options).check(baseline, worse)
    whole = dm.compare(baseline, worse, **options)
    found = verdict.comparison
    assert (found.unit, found.seed, found.level) == (whole.unit, whole.seed, whole.level) == ("frame", 3, 0.8)
    assert found.replicates.tobytes() == whole.replicates.tobytes()
    rain = dm.compare(baseline, worse, by="weather", **options)["rain"]
    assert verdict.outcomes[1].difference == rain["NDS"]


def test_classes_without_truth_count_as_asked_in_the_whole_and_never_in_slices() -> None:
    baseline, worse = two()
    gate = Gate(rules=(Rule(metric="mAP"), Rule(metric="mAP", slice="weather=rain")), n=3)
    left_out = dm.compare(baseline, worse, n=3, by="weather")["rain"]["mAP"]
    for absent in ("official", "omit"):
        whole, rain = gate.check(baseline, worse, absent=absent).outcomes  # type: ignore[arg-type]
        assert whole.difference.baseline == dm.score(baseline, absent=absent).mean_ap  # type: ignore[arg-type]
        assert rain.difference == left_out
    assert dm.score(baseline).mean_ap < dm.score(baseline, absent="omit").mean_ap


@pytest.mark.parametrize("tolerance", [math.inf, math.nan, -1e-9])
def test_a_tolerance_is_a_finite_number(tolerance: float) -> None:
    with pytest.raises(InputError, match="tolerance of a gate's rule must be zero or more, got"):
        Rule(metric="NDS", tolerance=tolerance)


def test_a_candidate_that_finds_nothing_is_judged_by_the_truth_that_there_is() -> None:
    """No match, so no scene bears on the error: it is the worst one all the same."""
    baseline, _ = two()
    nothing = dm.match(baseline.truth, baseline.pred.replace(center_m=baseline.pred.center_m + 500), dm.NUSCENES)
    (outcome,) = Gate(rules=(Rule(metric="ATE", label="car"),), n=3).check(baseline, nothing).outcomes
    assert outcome.difference.candidate == 1 > outcome.difference.baseline
    assert outcome.verdict == "worse"
