"""Slices against the slow rules of naive.py, as partitions, and as weights."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detmetrics as dm
import make
import naive
from detmetrics.curves import EVERYWHERE
from detmetrics.errors import InputError
from detmetrics.slicing import DESCRIBED, MAX_NUMBERS, parse, text_of

seeds = given(seed=st.integers(0, 2**32 - 1))
some = settings(max_examples=15, deadline=None)


PROTOCOLS = pytest.mark.parametrize("protocol", [dm.NUSCENES, dm.ARGOVERSE2], ids=lambda protocol: protocol.name)


def scene(seed: int, protocol: dm.Protocol = dm.NUSCENES, **knobs: Any) -> tuple[dm.Boxes, dm.Boxes]:
    """A small scene with what there is to slice by; distances on the ground are not those in space."""
    rng = np.random.default_rng(seed)
    if protocol.affinity.kind == "center_xyz":
        truth, pred = make.sweeps(
            seed, n_truth=20, classes=("REGULAR_VEHICLE", "PEDESTRIAN", "BUS"), spread_m=15, **knobs
        )
        truth, pred = (
            boxes.replace(
                center_m=boxes.center_m * (1, 1, 2),
                velocity_mps=np.where(rng.random((len(boxes), 1)) < 0.2, np.nan, rng.normal(0, 3, (len(boxes), 2))),
                attribute=rng.integers(0, 3, len(boxes)),
                attributes=("", "parked", "moving"),
            )
            for boxes in (truth, pred)
        )
    else:
        defaults = {"n_frames": 5, "n_truth": 14, "classes": ("car", "pedestrian", "bicycle"), "doubles": 0.5}
        truth, pred = make.scene(seed, **(defaults | knobs))
    f = np.arange(truth.n_frames)
    truth = truth.replace(
        frame_columns={
            "scene": np.array([f"scene-{i // 2}" for i in f], dtype=str),
            "description": np.array([("Night, rain", "Parked cars", "After rain, dusk")[i % 3] for i in f], dtype=str),
        },
        box_columns={
            "visibility": rng.choice(["1", "2", "3", "4", ""], size=len(truth)),
            "occlusion": rng.integers(0, 3, size=len(truth)),
        },
    )
    pred = pred.replace(box_columns={"occlusion": rng.integers(0, 3, size=len(pred))})
    return truth, pred


def bin_name(value: float, edges: tuple[float, ...]) -> str:
    if math.isnan(value):
        return "unknown"
    if value < edges[0]:
        return f"<{edges[0]:g}"
    if value >= edges[-1]:
        return f">={edges[-1]:g}"
    return next(f"{a:g}-{b:g}" for a, b in itertools.pairwise(edges) if a <= value < b)


def members(by: str, truth: dm.Boxes, pred: dm.Boxes, protocol: dm.Protocol) -> tuple[list[str], list[str] | None]:
    """Slice of each row, found out the slow way."""
    ego = dict(zip(truth.frames, truth.ego_xy_m.tolist(), strict=True))

    def of(boxes: dm.Boxes, is_truth: bool) -> list[str] | None:
        names = []
        for row in range(len(boxes)):
            frame = boxes.frames[boxes.frame[row]]
            if by.startswith("range="):
                x, y = ego[frame]
                distance = math.hypot(boxes.center_m[row, 0] - x, boxes.center_m[row, 1] - y)
                names.append(bin_name(distance, (0.0, 10.0, 25.0)))
            elif by.startswith("speed="):
                velocity = boxes.velocity_mps
                speed = math.nan if velocity is None else math.hypot(*velocity[row])
                names.append(bin_name(speed, (1.0, 5.0)))
            elif by.startswith("size="):
                names.append(bin_name(max(boxes.size_lwh_m[row]), (0.0, 2.0, 4.0)))
            elif by.startswith("points="):
                if not is_truth:
                    return None
                points = math.nan if boxes.num_points is None else float(boxes.num_points[row])
                names.append(bin_name(points, (1.0, 6.0)))
            elif by == "class":
                label = (boxes.labels or ())[boxes.label[row]]
                names.append(protocol.mapping.get(label, label))
            elif by == "attribute":
                names.append(
                    (boxes.attributes[boxes.attribute[row]] if boxes.attribute is not None else "") or "unknown"
                )
            elif by == "scene":
                names.append(str(truth.frame_columns["scene"][truth.frame_index[frame]]))
            elif by in DESCRIBED:
                text = str(truth.frame_columns["description"][truth.frame_index[frame]])
                word = {
                    "weather": {"Night, rain": "rain", "Parked cars": "dry", "After rain, dusk": "after rain"},
                    "daytime": {"Night, rain": "night", "Parked cars": "day", "After rain, dusk": "dusk"},
                }[by][text]
                names.append(word)
            elif by == "visibility":
                if not is_truth:
                    return None
                names.append(str(boxes.box_columns["visibility"][row]) or "unknown")
            elif by == "occlusion":
                names.append(str(boxes.box_columns["occlusion"][row]))
        return names

    found = of(truth, True)
    assert found is not None
    return found, of(pred, False)


def same(scores: dm.Scores, expected: naive.Result) -> None:
    """All numbers within 1e-12; where classes are omitted, naive.py leaves them out of the means only."""
    theirs = naive.summary(expected, scores.protocol)
    ours = {key: scores.to_summary()[key] for key in theirs}
    if scores.absent == "omit":
        for label, n_truth in expected.n_truth.items():
            if not n_truth:
                assert math.isnan(scores.class_ap[label])
                for values in (ours, theirs):
                    for key in {"label_aps", "mean_dist_aps", "label_tp_errors", "label_cds"} & set(values):
                        values[key].pop(label)
    assert not naive.apart(ours, theirs)


BOTH_SIDES = (
    "range=0,10,25",
    "speed=1,5",
    "size=0,2,4",
    "class",
    "attribute",
    "scene",
    "weather",
    "daytime",
    "occlusion",
)
TRUTH_ONLY = ("points=1,6", "visibility")


@PROTOCOLS
@pytest.mark.parametrize("by", [*BOTH_SIDES, *TRUTH_ONLY])
@pytest.mark.parametrize("absent", ["omit", "official"])
def test_every_attribute_against_the_slow_rule(by: str, absent: Any, protocol: dm.Protocol) -> None:
    for seed in range(3):
        truth, pred = scene(seed, protocol)
        in_truth, in_pred = members(by, truth, pred, protocol)
        slices = dm.slices(dm.match(truth, pred, protocol), by, absent=absent)
        assert len(slices) >= 2
        for name, scores in slices:
            events, truths = naive.shard_weights(truth, pred, protocol, in_truth, in_pred, name)
            same(
                scores,
                naive.evaluate(truth, pred, protocol, absent=absent, event_weight=events, truth_weight=truths),
            )


@PROTOCOLS
@pytest.mark.parametrize(
    "by",
    [
        "range=0,10,25+weather",
        "occlusion+scene",
        "weather+occlusion",
        "occlusion+visibility",
        "visibility+range=0,10,25",
        "weather+visibility",
        "visibility+points=1,6",
    ],
)
def test_crossings_against_the_slow_rule(by: str, protocol: dm.Protocol) -> None:
    first, second = by.split("+")
    for seed in range(2):
        truth, pred = scene(seed, protocol)
        parts = [members(one, truth, pred, protocol) for one in (first, second)]
        in_truth = [f"{a}+{b}" for a, b in zip(parts[0][0], parts[1][0], strict=True)]
        for name, scores in dm.slices(dm.match(truth, pred, protocol), by):
            a, b = name.split("+")
            # an unmatched prediction must be in the slice by every attribute that it has, and not be spoken against
            weights = [
                naive.shard_weights(truth, pred, protocol, part[0], part[1], one)
                for part, one in zip(parts, (a, b), strict=True)
            ]
            if parts[0][1] is None and parts[1][1] is None:
                weights = [naive.shard_weights(truth, pred, protocol, in_truth, None, name)]
            events = np.prod([w[0] for w in weights], axis=0)
            truths = np.prod([w[1] for w in weights], axis=0)
            same(
                scores,
                naive.evaluate(truth, pred, protocol, absent="omit", event_weight=events, truth_weight=truths),
            )


def outcomes(ledger: dm.Ledger, weights: dm.Weights) -> np.ndarray:
    """True positives, false positives and truths at each threshold (T, 3)."""
    counts = []
    assert weights.event is not None
    assert weights.truth is not None
    for t in range(len(ledger.protocol.affinity.thresholds)):
        matched = np.zeros(len(ledger.event_pred), np.bool_)
        matched[ledger.pair_event[ledger.pair_bits >> t & 1 == 1]] = True
        n_truth = weights.truth[ledger.truth_rows].sum()
        counts.append((weights.event[t][matched].sum(), weights.event[t][~matched].sum(), n_truth))
    return np.array(counts)


@seeds
@some
def test_a_partition_adds_up(seed: int) -> None:
    truth, pred = scene(seed)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    ones = dm.Weights(event=np.ones((4, len(ledger.event_pred)), np.int64), truth=np.ones(len(truth), np.int64))
    whole = outcomes(ledger, ones)
    for by in (*BOTH_SIDES, "weather+range=0,10,25", "class+attribute"):
        slices = dm.slices(ledger, by)
        np.testing.assert_array_equal(sum(outcomes(ledger, slices.weights(name)) for name in slices.names), whole)
        assert sum(scores.n_truth.sum() for _, scores in slices) == slices.whole.n_truth.sum()
        assert sum(scores.n_pred.sum() for _, scores in slices) == slices.whole.n_pred.sum()
    for by in (*TRUTH_ONLY, "visibility+points=1,6"):
        slices = dm.slices(ledger, by)
        parts = [outcomes(ledger, slices.weights(name)) for name in slices.names]
        total = np.sum(parts, axis=0)
        np.testing.assert_array_equal(total[:, [0, 2]], whole[:, [0, 2]])
        assert all((part[:, 1] <= whole[:, 1]).all() for part in parts)


@seeds
@some
def test_a_slice_is_the_score_under_its_weights(seed: int) -> None:
    truth, pred = scene(seed)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    for by in ("range=0,10,25", "visibility", "scene", "visibility+scene", "attribute+range=0,10,25"):
        slices = dm.slices(ledger, by, absent="official")
        for name, scores in slices:
            other = dm.score(ledger, slices.weights(name))
            for field in ("ap", "class_errors", "precision", "confidence", "n_truth", "n_pred"):
                np.testing.assert_array_equal(getattr(scores, field), getattr(other, field))


def test_an_unmatched_prediction_near_a_truth_of_another_slice_is_left_out() -> None:
    """Two truths 3 m apart of two slices: a stray prediction between them is in neither, one far away in both."""
    common: dict[str, Any] = {"frame": ["f", "f"], "label": ["car", "car"]}
    size = [(4.0, 2.0, 1.5)]
    truth = dm.Boxes(
        center_m=[(0, 0, 0), (3, 0, 0)],
        size_lwh_m=size * 2,
        yaw_rad=[0, 0],
        box_columns={"visibility": ["low", "high"]},
        **common,
    )
    pred = dm.Boxes(
        center_m=[(0, 0, 0), (3, 0, 0), (1.5, 0.1, 0), (20, 0, 0), (6.5, 0, 0)],
        size_lwh_m=size * 5,
        yaw_rad=[0] * 5,
        frame=["f"] * 5,
        label=["car"] * 5,
        score=[0.9, 0.8, 0.7, 0.6, 0.5],
    )
    ledger = dm.match(truth, pred, dm.NUSCENES)
    (group,) = dm.slices(ledger, "visibility").groups
    low, high = group.names.index("low"), group.names.index("high")
    np.testing.assert_array_equal(group.event, [[low, high, -1, EVERYWHERE, high]] * 4)


def test_a_class_absent_from_a_slice() -> None:
    truth, pred = scene(3)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    omit, official = dm.slices(ledger, "class"), dm.slices(ledger, "class", absent="official")
    for name, scores in omit:
        whole = dm.score(ledger)
        assert scores.class_ap[name] == whole.class_ap[name] == scores.mean_ap
        assert sum(math.isnan(value) for value in scores.class_ap.values()) == 9
        assert official[name].mean_ap == pytest.approx(scores.mean_ap / 10)
    row = omit.to_rows()[0]
    assert row["n_absent"] == 9
    assert omit.to_rows()[-1]["slice"] == "all"
    assert omit.whole.absent == "omit"


def test_what_comes_out() -> None:
    truth, pred = scene(0)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    slices = dm.slices(ledger, {"range": [0, 10, 25], "weather": None})
    assert slices.by == "range=0,10,25+weather"
    assert len(slices) == len(list(slices)) == len(slices.names)
    text = str(slices)
    for name in (*slices.names, "all", "NDS"):
        assert name in text
    assert f"slice:{slices.by}:{slices.names[0]}" in slices.scores[0].signature
    assert repr(slices).startswith("<Slices by range")
    assert slices.whole.notes, "said of the whole"
    assert not any(scores.notes for scores in slices.scores), "and not once more of each slice"
    assert text_of(parse("range=0,10.5+class")) == "range=0,10.5+class"


def test_frames_in_another_order_are_the_same_slices() -> None:
    truth, pred = scene(5)
    order = np.random.default_rng(0).permutation(truth.n_frames)
    other = truth.take(order)
    a = dm.slices(dm.match(truth, pred, dm.NUSCENES), "weather+range=0,10,25")
    b = dm.slices(dm.match(other, pred, dm.NUSCENES), "weather+range=0,10,25")
    assert str(a) == str(b)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("wether", "unknown attribute to slice by 'wether'.*did you mean.*'weather'"),
        ("range=0,ten", "edges of 'range'.*numbers with commas.*ten"),
        ("range=10,5", "edges of range must be ascending"),
        ("range=0,inf", "edges of range must be ascending and finite"),
        ("class=1,2", "class has no edges: it is a category"),
        ("visibility=1,2", "visibility has no edges"),
        ("class+range+weather", "what to slice by must be one attribute or a crossing of two"),
        ("class+class", "a crossing must be of two different attributes"),
        ("", "what to slice by"),
    ],
)
def test_bad_input(by: str, message: str) -> None:
    truth, pred = scene(0)
    with pytest.raises(InputError, match=message):
        dm.slices(dm.match(truth, pred, dm.NUSCENES), by)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([], r"edges of range must be ascending and finite, got \[\]"),
        ("0,10", "edges of range must be numbers, got '0,10'"),
        (10, "edges of range must be numbers, got 10"),
    ],
)
def test_bad_edges_in_a_mapping(edges: Any, message: str) -> None:
    truth, pred = scene(0)
    with pytest.raises(InputError, match=message):
        dm.slices(dm.match(truth, pred, dm.NUSCENES), {"range": edges})


def test_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, pred = scene(0)
    bare = truth.replace(frame_columns={}, box_columns={}, num_points=None)
    ledger = dm.match(bare, pred, dm.NUSCENES)
    with pytest.raises(InputError, match="cannot slice by points"):
        dm.slices(ledger, "points")
    with pytest.raises(InputError, match="unknown attribute to slice by 'weather'"):
        dm.slices(ledger, "weather")
    many = truth.replace(box_columns={"area": np.arange(len(truth)) + 0.5})
    with pytest.raises(InputError, match=r"area has .* distinct numbers: give edges"):
        dm.slices(dm.match(many, pred, dm.NUSCENES), "area")
    with monkeypatch.context() as patch:
        patch.setattr("detmetrics.slicing.MAX_SHARDS", 5)
        named = truth.replace(box_columns={"area": np.array([f"a{i}" for i in range(len(truth))])})
        with pytest.raises(InputError, match=r"slices by area must be at most 5, got \d+"):
            dm.slices(dm.match(named, pred, dm.NUSCENES), "area")
        with pytest.raises(InputError, match=r"slices by scene\+weather must be at most 5, got 3 x 3"):
            dm.slices(dm.match(truth, pred, dm.NUSCENES), "scene+weather")
    two = truth.replace(box_columns={"area": np.zeros((len(truth), 2))})
    with pytest.raises(InputError, match="column area to slice by must be of one value each"):
        dm.slices(dm.match(two, pred, dm.NUSCENES), "area")
    slices = dm.slices(dm.match(truth, pred, dm.NUSCENES), "scene")
    with pytest.raises(InputError, match="unknown slice by scene 'scene-9'"):
        slices["scene-9"]
    with pytest.raises(InputError, match="unknown slice by scene"):
        slices.weights("scene-9")


def test_edges_and_names_are_written_as_they_are() -> None:
    assert text_of(parse("range=0,1000000,1e20")) == "range=0,1000000,1e+20"
    for text in ("range=0,10.1234567,10.1234568,20", "time=1530582045126761,1535008568168059", "a=1e+20+b=2"):
        assert text_of(parse(text)) == text
        assert parse(text_of(parse(text))) == parse(text)
    truth, pred = scene(0)
    big = 1530582045126761 + np.arange(len(truth)) % 3
    odd = truth.replace(
        box_columns={"time": big, "kind": np.array(["", "unknown", "a"])[np.arange(len(truth)) % 3], "x": big * 1.0}
    )
    ledger = dm.match(odd, pred, dm.NUSCENES)
    assert dm.slices(ledger, "time").names == tuple(str(value) for value in sorted(set(big.tolist())))
    assert len(set(dm.slices(ledger, "x").names)) == 3
    lacking = np.array([None, math.nan, "None", np.datetime64("NaT")], object)[np.arange(len(truth)) % 4]
    kinds = dm.slices(dm.match(truth.replace(box_columns={"kind": lacking}), pred, dm.NUSCENES), "kind")
    assert kinds.names == ("None", "unknown")
    kinds = dm.slices(ledger, "kind")
    assert kinds.names == ("a", "unknown")
    assert sum(scores.n_truth.sum() for _, scores in kinds) == kinds.whole.n_truth.sum()


def test_own_columns_come_before_what_the_description_says() -> None:
    truth, pred = scene(0)
    named = truth.replace(frame_columns={**truth.frame_columns, "weather": np.array(["hail"] * truth.n_frames)})
    assert dm.slices(dm.match(named, pred, dm.NUSCENES), "weather").names == ("hail",)


@pytest.mark.parametrize("side", ["both", "truth", "mixed"])
def test_two_crossings_of_one_name_are_refused(side: str) -> None:
    """'a+b' with 'c' and 'a' with 'b+c': taken for one, the numbers of the one would stand for those of the other."""
    truth, pred = scene(0)

    def ledger_of(kinds: tuple[str, str], states: tuple[str, str]) -> dm.Ledger:
        truth_columns, pred_columns = (
            {name: np.array(values)[np.arange(len(boxes)) % 2] for name, values in (("kind", kinds), ("state", states))}
            for boxes in (truth, pred)
        )
        known = {"both": ("kind", "state"), "truth": (), "mixed": ("kind",)}[side]
        pred_columns = {name: pred_columns[name] for name in known}
        return dm.match(truth.replace(box_columns=truth_columns), pred.replace(box_columns=pred_columns), dm.NUSCENES)

    ledger = ledger_of(("a", "a+b"), ("b+c", "c"))
    for run in (dm.slices, lambda one, by: dm.bootstrap(one, 2, by=by)):
        with pytest.raises(InputError, match=r"slices by kind\+state must be of distinct names, got \['a\+b\+c'\]"):
            run(ledger, "kind+state")
        with pytest.raises(InputError, match=r"slices by state\+kind must be of distinct names, got \['b\+a\+b'\]"):
            run(ledger_of(("a+b", "b"), ("b", "b+a")), "state+kind")
    assert set(dm.slices(ledger_of(("a", "a+b"), ("b", "c")), "kind+state").names) >= {"a+b", "a+b+c"}


def test_a_slice_without_one_of_the_errors_has_no_composite() -> None:
    """AVE and AAE mean nothing for barriers and cones: without them it would be another score, not NDS."""
    truth, pred = scene(0, classes=("car", "barrier", "traffic_cone"))
    parts = dm.slices(dm.match(truth, pred, dm.NUSCENES), "class")
    assert not math.isnan(parts["car"].nds)
    for name in ("barrier", "traffic_cone"):
        assert math.isnan(parts[name].tp_errors["AVE"])
        assert not math.isnan(parts[name].mean_ap)
        assert math.isnan(parts[name].composite)
    assert not math.isnan(dm.slices(dm.match(truth, pred, dm.NUSCENES), "class", absent="official")["barrier"].nds)
    assert not math.isnan(parts.whole.nds)


def test_bins_that_were_asked_for_stand_there_empty() -> None:
    truth, pred = scene(0)
    assert dm.slices(dm.match(truth, pred, dm.NUSCENES), "range=0,1000,2000,3000").names == (
        "0-1000",
        "1000-2000",
        "2000-3000",
    )


def test_a_crossing_that_holds_predictions_alone_is_a_slice() -> None:
    """A prediction at 19 m means the truth at 21 m, of visibility 1, which nothing nearer than 20 m has."""
    box = {"size_lwh_m": np.ones((2, 3)), "yaw_rad": np.zeros(2), "label": ["car"] * 2, "frame": ["f"] * 2}
    truth = dm.Boxes(center_m=[[21, 0, 0], [5, 0, 0]], box_columns={"visibility": np.array(["1", "2"])}, **box)
    pred = dm.Boxes(center_m=[[19, 0, 0], [5, 0, 0]], score=[0.9, 0.8], **box)
    for by, name in (("range=0,20+visibility", "0-20+1"), ("visibility+range=0,20", "1+0-20")):
        found = dm.slices(dm.match(truth, pred, dm.NUSCENES), by)
        assert (found[name].n_truth.sum(), found[name].n_pred.sum()) == (0, 1)


def test_as_many_slices_and_numbers_as_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, pred = scene(0, n_truth=60)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    monkeypatch.setattr("detmetrics.slicing.MAX_SHARDS", 9)
    assert 0 < len(dm.slices(ledger, "scene+weather")) <= 9  # 3 x 3
    monkeypatch.setattr("detmetrics.slicing.MAX_SHARDS", 3)
    assert len(dm.slices(ledger, "scene")) == 3
    monkeypatch.undo()
    kept = np.cumsum(ledger.truth_fate == dm.Fate.KEPT)
    for n, is_allowed in ((MAX_NUMBERS, True), (MAX_NUMBERS + 1, False)):
        numbers = dm.match(truth.replace(box_columns={"number": kept % n}), pred, dm.NUSCENES)
        if is_allowed:
            assert len(dm.slices(numbers, "number")) == n
            continue
        with pytest.raises(InputError, match=f"number has {n} distinct numbers: give edges"):
            dm.slices(numbers, "number")


def test_a_class_with_one_truth_is_not_absent() -> None:
    car: dict[str, Any] = {
        "center_m": [(5, 0, 0)],
        "size_lwh_m": [(4, 2, 1)],
        "yaw_rad": [0],
        "label": ["car"],
        "frame": ["f"],
    }
    ledger = dm.match(dm.Boxes(**car), dm.Boxes(**car, score=[0.5]), dm.NUSCENES)
    assert [row["n_absent"] for row in dm.slices(ledger, "class").to_rows()] == [9, 9]


def test_the_curve_of_a_slice_ends_with_the_last_prediction_that_counts_in_it() -> None:
    """Also with one that counts in every slice."""
    n = {"size_lwh_m": np.ones((3, 3)), "yaw_rad": np.zeros(3), "label": ["car"] * 3, "frame": ["f"] * 3}
    two = {name: value[:2] for name, value in n.items()}
    truth = dm.Boxes(center_m=[(0, 0, 0), (30, 0, 0)], box_columns={"visibility": ["1", "2"]}, **two)
    pred = dm.Boxes(center_m=[(0, 0, 0), (30, 0, 0), (-20, 0, 0)], score=[0.9, 0.8, 0.5], **n)
    for _, scores in dm.slices(dm.match(truth, pred, dm.NUSCENES), "visibility"):
        assert scores.curve("car", 2.0).confidence[-1] == 0.5
        assert scores.curve("car", 2.0).precision[-1] == 0.5
