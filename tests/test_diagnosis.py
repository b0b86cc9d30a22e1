"""Causes: each is planted in perfect predictions and found, exactly; all repairs together make everything right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detmetrics as dm
import make
from detmetrics.diagnosis import CAUSES, CODE, Rules, repair
from detmetrics.errors import InputError

N_FRAMES = 6


def perfect() -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns of truth, far apart, and of predictions that equal it."""
    rows = []
    for f in range(N_FRAMES):
        for i, label in enumerate(("car", "pedestrian", "bus")):
            for j in range(4):
                rows.append((f, label, -24.0 + 16 * j, -16.0 + 16 * i, 0.3 * i + j))
    n = len(rows)
    truth: dict[str, Any] = {
        "center_m": np.array([(x, y, 1.0) for _, _, x, y, _ in rows]),
        "size_lwh_m": np.array([(4.0, 2.0, 1.6)] * n),
        "yaw_rad": np.array([yaw for *_, yaw in rows]),
        "label": np.array([label for _, label, *_ in rows], dtype=object),
        "frame": np.array([f"f{f}" for f, *_ in rows]),
        "velocity_mps": np.zeros((n, 2)),
        "attribute": np.array(["vehicle.parked"] * n),
        "num_points": np.full(n, 50.0),
    }
    pred = {key: value.copy() for key, value in truth.items() if key != "num_points"}
    pred["score"] = np.linspace(0.9, 0.5, n)
    return truth, pred


def boxes(columns: dict[str, Any]) -> dm.Boxes:
    extra = {name: columns[name] for name in ("box_columns",) if name in columns}
    plain = {name: list(value) if name == "label" else value for name, value in columns.items() if name not in extra}
    return dm.Boxes(**plain, **extra, frames=[f"f{f}" for f in range(N_FRAMES)])


def shifted(columns: dict[str, Any], row: int, along: float = 0.0, beside: float = 0.0, up: float = 0.0) -> None:
    yaw = columns["yaw_rad"][row]
    columns["center_m"][row] += (
        along * math.cos(yaw) - beside * math.sin(yaw),
        along * math.sin(yaw) + beside * math.cos(yaw),
        up,
    )


def without(columns: dict[str, Any], row: int) -> dict[str, Any]:
    return {name: np.delete(value, row, axis=0) for name, value in columns.items()}


def plant(cause: str, truth: dict[str, Any], pred: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    row = 17  # a pedestrian
    if cause in ("longitudinal", "lateral"):
        shifted(pred, row, **{{"longitudinal": "along", "lateral": "beside"}[cause]: 3.0, "up": 0.1})
    elif cause == "vertical":
        shifted(pred, row, up=1.2)
    elif cause == "wrong_class":
        pred["label"][row] = "bus"
    elif cause == "duplicate":
        pred = {name: np.concatenate((value, value[row : row + 1])) for name, value in pred.items()}
        pred["score"][-1] = 0.1
    elif cause == "background":
        pred = {name: np.concatenate((value, value[row : row + 1])) for name, value in pred.items()}
        pred["center_m"][-1] += (0, -8, 0)
    elif cause == "size":
        pred["size_lwh_m"][row] *= 1.5
    elif cause == "yaw":
        pred["yaw_rad"][row] += 0.8
    elif cause == "flip":
        pred["yaw_rad"][row] += 3.0
    elif cause == "ignored_truth":
        truth["num_points"][row] = 0
    elif cause == "out_of_range":
        for columns, x in ((truth, 40.2), (pred, 39.8)):
            columns["center_m"][row] = (x, 0, 1)
    elif cause in ("few_points", "occluded", "far", "missed"):
        pred = without(pred, row)
        visibility = np.array(["4"] * len(truth["yaw_rad"]))
        if cause == "few_points":
            truth["num_points"][row] = 3
        elif cause == "occluded":
            visibility[row] = "1"
        elif cause == "far":
            truth["center_m"][row] = (0, 35, 1)
        truth["box_columns"] = {"visibility": visibility}
    return truth, pred


#: How many predictions and truths each planted error makes wrong.
COUNTS = {
    **dict.fromkeys(("longitudinal", "lateral", "wrong_class"), (1, 1)),
    **dict.fromkeys(
        ("duplicate", "background", "size", "yaw", "flip", "vertical", "ignored_truth", "out_of_range"), (1, 0)
    ),
    **dict.fromkeys(("few_points", "occluded", "far", "missed"), (0, 1)),
}


def test_every_cause_is_planted() -> None:
    assert set(COUNTS) == set(CODE) - {""}


@pytest.mark.parametrize("kind", [str, np.int64, np.float64, np.float32])
def test_visibility_may_be_text_or_a_number(kind: Any) -> None:
    """A table with a missing value makes whole numbers floats: 1.0 is "1"."""
    truth, pred = plant("occluded", *perfect())
    column = truth["box_columns"]["visibility"].astype(np.int64).astype(kind)
    if column.dtype.kind == "f":
        column[0] = np.nan
    truth["box_columns"] = {"visibility": column}
    ledger = dm.match(boxes(truth), boxes(pred), dm.NUSCENES)
    assert dm.diagnose(ledger).counts()["occluded"] == (0, 1)
    assert "1" in dm.slices(ledger, "visibility").names


def test_visibility_of_two_values_a_truth_is_refused() -> None:
    truth, pred = perfect()
    truth["box_columns"] = {"visibility": np.ones((len(truth["yaw_rad"]), 2))}
    with pytest.raises(InputError, match=r"column visibility of .* must be of one value each, got \(\d+, 2\)"):
        dm.diagnose(dm.match(boxes(truth), boxes(pred), dm.NUSCENES))


@pytest.mark.parametrize("cause", COUNTS)
def test_a_planted_error_is_found_and_nothing_else(cause: str) -> None:
    truth, pred = plant(cause, *perfect())
    diagnosis = dm.diagnose(dm.match(boxes(truth), boxes(pred), dm.NUSCENES), absent="omit")
    found = {name: counts for name, counts in diagnosis.counts().items() if counts != (0, 0)}
    assert found == {cause: COUNTS[cause]}
    assert diagnosis.counts("pedestrian" if cause != "wrong_class" else "bus")[cause][0] == COUNTS[cause][0]
    # its repair alone brings back what it cost, and no other repair brings anything
    name = "NDS"
    clean = dm.score(dm.match(boxes(perfect()[0]), boxes(perfect()[1]), dm.NUSCENES), absent="omit")
    for other, prices in diagnosis.prices.items():
        if other != cause:
            assert prices == pytest.approx({"NDS": 0, "mAP": 0}, abs=1e-12)
    gained = diagnosis.value[name] + diagnosis.prices[cause][name]
    assert diagnosis.value["mAP"] + diagnosis.prices[cause]["mAP"] == pytest.approx(clean.mean_ap, abs=1e-12)
    if cause == "flip":
        assert gained == pytest.approx(clean.nds, abs=1e-3)  # π - 3 rad of it were no flip
    else:
        assert gained == pytest.approx(clean.nds, abs=1e-12)
    if cause not in ("size", "yaw", "flip", "vertical"):
        assert diagnosis.prices[cause]["mAP"] > 0
    elif cause != "vertical":  # heights do not enter this protocol
        assert diagnosis.prices[cause]["NDS"] > 0


def test_the_other_side_of_the_range_limit() -> None:
    """The truth within, the prediction beyond: a missed truth that nobody else explains."""
    truth, pred = perfect()
    for columns, x in ((truth, 39.5), (pred, 40.5)):
        columns["center_m"][17] = (x, 0, 1)
    diagnosis = dm.diagnose(dm.match(boxes(truth), boxes(pred), dm.NUSCENES))
    assert {n: c for n, c in diagnosis.counts().items() if c != (0, 0)} == {"out_of_range": (0, 1)}


def test_a_class_on_a_found_truth_of_another_class() -> None:
    truth, pred = perfect()
    pred = {name: np.concatenate((value, value[17:18])) for name, value in pred.items()}
    pred["label"][-1] = "car"
    diagnosis = dm.diagnose(dm.match(boxes(truth), boxes(pred), dm.NUSCENES))
    assert {n: c for n, c in diagnosis.counts().items() if c != (0, 0)} == {"wrong_class": (1, 0)}


KNOBS: list[dict[str, Any]] = [
    {},
    {"doubles": 0.6, "n_truth": 25, "classes": ("car", "pedestrian", "barrier")},
    {"racks": 2, "classes": ("bicycle", "motorcycle"), "n_truth": 20},
    {"edges": True, "pred_points": True},
    {"spread_m": 60.0, "recall": 0.3, "n_false": 30},
    {"score_digits": 1, "grid_m": 0.5, "n_truth": 20, "classes": ("car", "truck")},
]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), knobs=st.sampled_from(KNOBS))
def test_all_repairs_together_make_everything_right(seed: int, knobs: dict[str, Any]) -> None:
    truth, pred = make.scene(seed, **knobs)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    diagnosis = dm.diagnose(ledger, absent="omit")
    if len(ledger.truth_rows):
        assert repair(diagnosis, set(CODE) - {""})["mAP"] == pytest.approx(1, abs=1e-12)
    assert repair(diagnosis, set())["mAP"] == pytest.approx(dm.score(ledger, absent="omit").mean_ap, abs=0, nan_ok=True)
    for t in range(4):  # one cause for every false positive and every missed truth, none for anything else
        matched = ledger.pair_bits >> t & 1 == 1
        is_fp = np.ones(len(ledger.event_pred), np.bool_)
        is_fp[ledger.pair_event[matched]] = False
        fault = np.isin(diagnosis.event_cause[t], [CODE[name] for name in ("size", "yaw", "flip", "vertical")])
        np.testing.assert_array_equal(diagnosis.event_cause[t] != 0, is_fp | fault)
        missed = np.zeros(len(ledger.truth), np.bool_)
        missed[ledger.truth_rows] = True
        missed[ledger.pair_truth[matched]] = False
        np.testing.assert_array_equal(diagnosis.truth_cause[t] != 0, missed)
        meant = diagnosis.event_truth[t][diagnosis.event_truth[t] >= 0]
        assert len(np.unique(meant)) == len(meant)
        assert missed[meant].all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), knobs=st.sampled_from([{}, {"hogs": 0.8, "spread_m": 10.0}, {"edges": True}]))
def test_all_repairs_in_space_with_claims(seed: int, knobs: dict[str, Any]) -> None:
    """Distances in space, and detections that claim a truth from afar."""
    truth, pred = make.sweeps(seed, **knobs)
    diagnosis = dm.diagnose(dm.match(truth, pred, dm.ARGOVERSE2), absent="omit")
    if len(diagnosis.ledger.truth_rows):
        assert repair(diagnosis, set(CODE) - {""})["mAP"] == pytest.approx(1, abs=1e-12)


def test_two_at_a_truth_that_a_third_claimed_from_afar() -> None:
    """Argoverse 2 leaves the truth missed: the better of the two meant it, the other is its duplicate."""
    n = 3
    pred = dm.Boxes(
        center_m=[(20, 0, 0), (0.2, 0, 0), (0, 0.3, 0)], size_lwh_m=np.ones((n, 3)), yaw_rad=np.zeros(n),
        label=["BUS"] * n, frame=["f"] * n, score=[0.9, 0.8, 0.7],
    )  # fmt: skip
    truth = dm.Boxes(center_m=[(0, 0, 0)], size_lwh_m=[(1, 1, 1)], yaw_rad=[0], label=["BUS"], frame=["f"])
    counts = dm.diagnose(dm.match(truth, pred, dm.ARGOVERSE2)).counts()
    assert {name: c for name, c in counts.items() if c != (0, 0)} == {
        "background": (1, 0),
        "longitudinal": (1, 1),
        "duplicate": (1, 0),
    }


@pytest.mark.parametrize("affinity", ["center_xy", "center_xyz"])
@pytest.mark.parametrize(("kind", "rest"), [("translation_xy", 0.4), ("translation_xyz", 0.5)])
def test_what_is_left_of_an_offset_is_measured_as_the_error_is(affinity: str, kind: str, rest: float) -> None:
    """Matches may go by another distance than the error."""
    protocol = dm.Protocol.from_dict(
        {
            "name": "mixed",
            "tasks": [{"label": "car"}],
            "affinity": {"kind": affinity, "thresholds": [2.0], "error_threshold": 2.0},
            "errors": [{"name": "ATE", "key": "a", "kind": kind, "unit": "m"}],
            "composite": {"name": "X", "map_weight": 0, "error_weights": {"ATE": 1}},
        }
    )
    one: dict[str, Any] = {"size_lwh_m": [(4, 2, 1.5)], "yaw_rad": [0], "label": ["car"], "frame": ["f"]}
    pred = dm.Boxes(center_m=[(3, 0.4, 0.3)], score=[0.5], **one)
    diagnosis = dm.diagnose(dm.match(dm.Boxes(center_m=[(0, 0, 0)], **one), pred, protocol))
    assert diagnosis.counts()["longitudinal"] == (1, 1)
    assert repair(diagnosis, {"longitudinal"})["X"] == pytest.approx(1 - rest)


def test_what_is_far_above_is_not_near_where_distances_are_in_space() -> None:
    one: dict[str, Any] = {"size_lwh_m": [(4, 2, 1.5)], "yaw_rad": [0], "frame": ["f"]}
    for protocol, label, cause in ((dm.ARGOVERSE2, "BUS", "background"), (dm.NUSCENES, "bus", "longitudinal")):
        truth = dm.Boxes(center_m=[(0, 0, 0)], label=[label], **one)
        pred = dm.Boxes(center_m=[(3.5, 0, 20)], label=[label], score=[0.5], **one)
        assert dm.diagnose(dm.match(truth, pred, protocol)).counts()[cause][0] == 1


def test_where_front_and_back_look_alike_a_flip_leaves_no_error() -> None:
    truth, pred = perfect()
    for columns in (truth, pred):
        columns["label"][:] = "barrier"
        columns["center_m"][:, :2] *= 0.9
    pred["yaw_rad"] += 1.3
    ledger = dm.match(boxes(truth), boxes(pred), dm.NUSCENES)
    diagnosis = dm.diagnose(ledger, Rules(flip_rad=1.2))
    n = len(pred["yaw_rad"])
    assert diagnosis.counts()["flip"] == (n, 0)
    pred["yaw_rad"] -= 1.3
    clean = dm.evaluate(boxes(truth), boxes(pred), dm.NUSCENES)
    assert repair(diagnosis, {"flip"})["NDS"] == pytest.approx(clean.nds, abs=1e-12)


def test_rules_are_data() -> None:
    truth, pred = plant("yaw", *perfect())
    ledger = dm.match(boxes(truth), boxes(pred), dm.NUSCENES)
    assert dm.diagnose(ledger, Rules(yaw_rad=1.0)).counts()["yaw"] == (0, 0)
    truth, pred = plant("missed", *perfect())
    ledger = dm.match(boxes(truth), boxes(pred), dm.NUSCENES)
    assert dm.diagnose(ledger, Rules(few_points=50)).counts()["few_points"] == (0, 1)
    assert dm.diagnose(ledger, Rules(far=0.1)).counts()["far"] == (0, 1)
    with pytest.raises(InputError, match=r"rules.reach must be zero or more, got -1"):
        Rules(reach=-1.0)


def test_what_comes_out() -> None:
    truth, pred = make.scene(0, n_truth=20, doubles=0.5)
    diagnosis = dm.diagnose(dm.match(truth, pred, dm.NUSCENES))
    assert len(diagnosis.to_rows()) == len(CAUSES) - 1
    for cause in CAUSES[1:]:
        assert cause.name in str(diagnosis)
    assert "costs most" in repr(diagnosis)
    car = dm.Boxes(center_m=[[5, 0, 0]], size_lwh_m=[[4, 2, 1]], yaw_rad=[0], label=["car"], frame=["a"], score=[1])
    perfect = dm.match(car, car, dm.NUSCENES)
    assert repr(dm.diagnose(perfect)) == "<Diagnosis: nothing costs any NDS>"
    whole = diagnosis.counts(threshold=4.0)
    parts = [diagnosis.counts(label, 4.0) for label in dm.NUSCENES.labels]
    for name, counts in whole.items():
        assert counts == tuple(sum(part[name][side] for part in parts) for side in (0, 1))
    with pytest.raises(InputError, match="threshold must be one of"):
        diagnosis.counts(threshold=3.0)
    with pytest.raises(InputError, match="label must be one of"):
        diagnosis.counts("tank")
    for wrong in ("bad luck", ""):
        with pytest.raises(InputError, match="causes must be among"):
            repair(diagnosis, {wrong})
    with pytest.raises(InputError, match="absent must be one of"):
        dm.diagnose(diagnosis.ledger, absent="omitted")  # type: ignore[arg-type]
    none = dm.match(truth, _none(pred), dm.NUSCENES)
    assert sum(n for n, _ in dm.diagnose(none).counts().values()) == 0


def _none(pred: dm.Boxes) -> dm.Boxes:
    return dm.Boxes(
        center_m=np.zeros((0, 3)), size_lwh_m=np.zeros((0, 3)), yaw_rad=[], label=[], labels=["car"], frame=[],
        frames=pred.frames, score=[],
    )  # fmt: skip


def test_a_found_truth_has_the_median_score() -> None:
    """The price of a miss is that of a detector which finds it as surely as it finds others."""
    at = np.array([[0.0, 0, 0], [12, 0, 0], [24, 0, 0], [36, 0, 0]])

    def data(x: list[int], score: list[float] | None) -> dm.Boxes:
        n = len(x)
        return dm.Boxes(
            center_m=at[x],
            size_lwh_m=np.ones((n, 3)),
            yaw_rad=np.zeros(n),
            label=["car"] * n,
            frame=["f"] * n,
            score=score,
        )

    truth = data([0, 1, 2], None)
    diagnosis = dm.diagnose(dm.match(truth, data([0, 1, 3], [0.9, 0.5, 0.6]), dm.NUSCENES), absent="omit")
    assert diagnosis.counts()["missed"] == (0, 1)
    better = dm.evaluate(truth, data([0, 1, 2, 3], [0.9, 0.5, 0.7, 0.6]), dm.NUSCENES, absent="omit")
    assert diagnosis.value["mAP"] + diagnosis.prices["missed"]["mAP"] == pytest.approx(better.mean_ap, abs=1e-12)


def causes(truth: dm.Boxes, pred: dm.Boxes, protocol: dm.Protocol = dm.NUSCENES, **options: Any) -> dict[str, Any]:
    counts = dm.diagnose(dm.match(truth, pred, protocol)).counts(**options)
    return {name: pair for name, pair in counts.items() if pair != (0, 0)}


def cars(center: list[Any], score: list[float] | None = None, **columns: Any) -> dm.Boxes:
    """Cars (4, 2, 2) m that head along x, in one frame."""
    n = len(center)
    plain: dict[str, Any] = {
        "size_lwh_m": [(4, 2, 2)] * n,
        "yaw_rad": [0] * n,
        "label": ["car"] * n,
        "frame": ["f"] * n,
    }
    return dm.Boxes(center_m=np.reshape(center, (n, 3)), frames=["f"], score=score, **(plain | columns))


NOTHING = cars([], [])


def test_borders_belong_to_the_better_side() -> None:
    """Exactly at three quarters of the range nothing is far, six points are not few, half a height is not wrong."""
    ego = {"ego_xy_m": [(100, 0)]}
    at, beyond = [(100 + 22.5, 30, 0)], [(100 + 22.5, 30 + 1e-9, 0)]  # 37.5 m of 50
    assert causes(cars(at, **ego), NOTHING) == {"missed": (0, 1)}
    assert causes(cars(beyond, **ego), NOTHING) == {"far": (0, 1)}
    assert causes(cars([(0, 0, 0)], num_points=[6]), NOTHING) == {"missed": (0, 1)}
    assert causes(cars([(0, 0, 0)], num_points=[5]), NOTHING) == {"few_points": (0, 1)}
    assert causes(cars(beyond, **ego, num_points=[5]), NOTHING) == {"few_points": (0, 1)}
    truth = cars([(0, 0, 0)])
    assert causes(truth, cars([(0, 0, 1)], [0.9])) == {}
    assert causes(truth, cars([(0, 0, 0)], [0.9], size_lwh_m=[(2, 2, 2)])) == {}  # IoU 0.5
    assert causes(truth, cars([(0, 0, 0)], [0.9], size_lwh_m=[(1.99, 2, 2)])) == {"size": (1, 0)}


@pytest.mark.parametrize("sign", [1, -1])
def test_offsets_count_whatever_their_sign(sign: int) -> None:
    truth = cars([(0, 0, 0)])
    assert causes(truth, cars([(0, 0, sign * 1.01)], [0.9])) == {"vertical": (1, 0)}
    assert causes(truth, cars([(sign * 3, -sign * 0.1, 0)], [0.9])) == {"longitudinal": (1, 1)}
    assert causes(truth, cars([(sign * 0.1, -sign * 3, 0)], [0.9])) == {"lateral": (1, 1)}
    bus = {"label": ["BUS"]}
    high = cars([(sign * 0.1, sign * 0.1, -sign * 3)], [0.9], **bus)
    assert causes(cars([(0, 0, 0)], **bus), high, dm.ARGOVERSE2) == {"vertical": (1, 1)}


def test_at_a_tight_threshold_a_prediction_means_truths_as_far_as_the_loosest() -> None:
    one = cars([(0, 0, 0)]), cars([(3.9, 0, 0)], [0.9])
    assert causes(*one, threshold=0.5) == {"longitudinal": (1, 1)}
    assert causes(one[0], cars([(4, 0, 0)], [0.9]), threshold=0.5) == {"background": (1, 0), "missed": (0, 1)}


def test_what_lies_beside_the_range() -> None:
    """Nearer than the threshold, strictly, by the distance that the protocol matches by."""
    truth = cars([(49, 0, 0)])
    assert causes(truth, cars([(51, 0, 0)], [0.9])) == {"far": (0, 1)}
    assert causes(truth, cars([(np.nextafter(51, 50), 0, 0)], [0.9])) == {"out_of_range": (0, 1)}
    assert causes(truth, cars([(50.5, 0, 9)], [0.9])) == {"out_of_range": (0, 1)}
    assert causes(truth, cars([(50.5, 0, 0)], [0.9], label=["bus"])) == {"far": (0, 1)}
    bus = {"label": ["BUS"]}
    truth = cars([(149, 0, 0)], **bus)
    assert causes(truth, cars([(150.5, 0, 0)], [0.9], **bus), dm.ARGOVERSE2) == {"out_of_range": (0, 1)}
    assert causes(truth, cars([(150.5, 0, 3)], [0.9], **bus), dm.ARGOVERSE2) == {"far": (0, 1)}


def test_a_found_truth_has_the_median_score_of_its_threshold() -> None:
    """At 0.5 m of 0.8 and 0.1, at the others of 0.9, 0.8 and 0.1: the median, neither their mean nor all of them."""
    truth = cars([(0, 0, 0), (12, 0, 0), (24, 0, 0), (36, 0, 0)])
    at, score = [(0.7, 0, 0), (12, 0, 0), (24, 0, 0), (-20, 0, 0), (-30, 0, 0)], [0.9, 0.8, 0.1, 0.7, 0.3]
    diagnosis = dm.diagnose(dm.match(truth, cars(at, score), dm.NUSCENES), absent="omit")
    expected = []
    for t, median in enumerate((0.45, 0.8, 0.8, 0.8)):
        better = cars([*at, (36, 0, 0)], [*score, median])
        expected.append(dm.evaluate(truth, better, dm.NUSCENES).ap[0, t])
    gained = diagnosis.value["mAP"] + diagnosis.prices["missed"]["mAP"]
    assert gained == pytest.approx(sum(expected) / 4, abs=1e-12)
