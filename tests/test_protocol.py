"""Protocols are values: round trips, TOML, checks, the bundled literal."""

from __future__ import annotations

import json
import math
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import detmetrics as dm
import make
from detmetrics.errors import InputError
from detmetrics.protocol import MAX_THRESHOLDS, Protocol
from detmetrics.protocols import PROTOCOLS, by_name
from detmetrics.reporting import rules
from detmetrics.reporting.official import config

SPLITS = Path(__file__).resolve().parents[2] / "shared" / "data" / "splits"


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=str)
def test_round_trips(protocol: Protocol) -> None:
    assert Protocol.from_dict(json.loads(json.dumps(protocol.to_dict()))) == protocol
    assert Protocol.from_dict(tomllib.loads(rules.as_toml(protocol))) == protocol


def test_the_configuration_is_the_official_one() -> None:
    path = SPLITS / "detection_cvpr_2019.json"
    if not path.exists():
        pytest.skip("the official configuration is in ../shared/data, which is not here")
    assert config(dm.NUSCENES) == json.loads(path.read_text())


def test_a_protocol_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        extends = "nuscenes"
        name = "mine"
        max_boxes_per_frame = 1000
        regions = {}
        mapping = { "vehicle.car" = "vehicle", "vehicle.truck" = "vehicle", "human.pedestrian.adult" = "human" }

        [[tasks]]
        label = "vehicle"
        range_m = 70

        [[tasks]]
        label = "human"

        [affinity]
        thresholds = [1.0, 3.0]
        error_threshold = 3.0

        [composite]
        name = "MINE"
        map_weight = 2
        error_weights = { ATE = 1, AVE = 3 }
        """
    )
    mine = Protocol.load(path)
    assert mine.labels == ("vehicle", "human")
    assert mine.affinity.kind == "center_xy"
    assert mine.task_of("vehicle.truck") == 0
    assert mine.task_of("human") == 1
    assert mine.task_of("vehicle.bus.rigid") is None
    truth, pred = make.scene(0, classes=("car", "truck", "pedestrian"))
    names = {"car": "vehicle", "truck": "vehicle", "pedestrian": "human"}
    pred = pred.replace(label=[names[(pred.labels or ())[code]] for code in pred.label], labels=None)
    scores = dm.evaluate(truth, pred, mine)
    expected = (2 * scores.mean_ap + max(0, 1 - scores.tp_errors["ATE"]) + 3 * max(0, 1 - scores.tp_errors["AVE"])) / 6
    assert scores.composite == pytest.approx(expected, abs=1e-15)
    assert scores.ap.shape == (2, 2)
    assert "MINE" in str(scores)
    with pytest.raises(AttributeError, match="mine has no NDS but MINE"):
        scores.nds  # noqa: B018


def test_columns_of_exported_tables_are_no_names_of_errors() -> None:
    """An error of the name ``score`` would stand in the place of the scores."""
    truth, pred = make.scene(0)
    scenes = np.array([f"s{i % 2}" for i in range(truth.n_frames)])
    ledger = dm.match(truth.replace(frame_columns={"scene": scenes}), pred, dm.NUSCENES)
    tables = [dm.frames(ledger).to_rows(), dm.slices(ledger, "class").to_rows()]
    if find_spec("pyarrow"):
        tables.append([dict.fromkeys(ledger.to_arrow(by=["class"]).column_names)])
    names = {name for rows in tables for row in rows for name in row} - {*dm.NUSCENES.error_names, "mAP", "NDS"}
    assert {"frame", "tp", "cost", "n_truth", "scene"} < names
    for name in (*names, "outcome@3", "box:colour"):
        for changes in (
            {"errors": [error_with(name=name)], **CAR},
            {"composite": {"name": name}},
        ):
            with pytest.raises(InputError, match="other than those of columns of exported tables"):
                Protocol.from_dict({"extends": "nuscenes", **changes})


#: A protocol of one class, whose errors no other field names.
CAR = {"tasks": [{"label": "car"}], "mapping": {}, "regions": {}, "composite": {"error_weights": {}}}


def error_with(**changes: str) -> dict[str, str]:
    return {"name": "A", "key": "a", "kind": "orientation", "unit": "rad", **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curvee": {}}, "unknown field `curvee`"),
        ({"curve": {"min_recall": 1.5}}, "protocol.curve.min_recall must be at least 0 and below 1, got 1.5"),
        ({"assignment": "best"}, r"Invalid enum value 'best' - at `\$.assignment`"),
        ({"affinity": {"thresholds": [2.0, 1.0]}}, "affinity.thresholds must be positive and ascending"),
        (
            {"affinity": {"error_threshold": 3}},
            r"affinity.error_threshold must be one of \(0.5, 1.0, 2.0, 4.0\), got 3",
        ),
        (
            {"affinity": {"thresholds": [i / 10 for i in range(1, 71)]}},
            "affinity.thresholds must be at most 62, got 70",
        ),
        ({"affinity": {"thresholds": []}}, "affinity.thresholds must be positive and ascending"),
        ({"tasks": []}, "protocol.tasks must be at least one"),
        ({"tasks": [{"label": "a"}, {"label": "a"}]}, "protocol.tasks must be of distinct labels"),
        ({"tasks": [{"label": "car", "undefined": ["XYZ"]}]}, "undefined must be among"),
        ({"tasks": [{"label": "car", "range_m": -5}]}, "range_m must be positive, got -5"),
        (
            {"tasks": [{"label": "car", "range_m": "far"}]},
            r"Expected `float \| null`, got `str` - at `\$.tasks\[0\].range_m`",
        ),
        ({"composite": {"error_weights": {"XYZ": 1}}}, "composite.error_weights must be for errors among"),
        ({"composite": {"map_weight": 0, "error_weights": {}}}, "their sum positive"),
        ({"mapping": {"vehicle.car": "kart"}}, r"protocol.mapping must be to labels of tasks, got \['kart'\]"),
        ({"max_boxes_per_frame": 0}, "max_boxes_per_frame must be positive, got 0"),
        (
            {"tasks": [{"label": "car", "yaw_period_rad": 6.29}]},
            "yaw_period_rad must be positive and at most 2π.*got 6.29",
        ),
        ({"tasks": [{"label": "car", "yaw_period_rad": 0}]}, "yaw_period_rad must be positive"),
        ({"curve": {"min_recall": 0.996}}, "curve.min_recall must be below the last of 101 recalls, got 0.996"),
        ({"curve": {"min_recall": 0.6, "n_samples": 2}}, "curve.min_recall must be below the last of 2 recalls"),
        ({"composite": {"map_weight": math.inf}}, "their sum positive and finite"),
        ({**CAR, "errors": [error_with(key="recall")]}, "keys of errors must be distinct, and none of recall"),
        ({**CAR, "errors": [error_with(), error_with(name="B")]}, r"keys of errors must be distinct.*got \['a', 'a'\]"),
    ],
)
def test_rules_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Protocol.from_dict({"extends": "nuscenes", **changes}, source="mine.toml")


def test_the_last_rules_that_make_sense() -> None:
    """On the border of what is refused; a single recall counts."""
    rules = {"extends": "nuscenes", "name": "last", "mapping": {}, "regions": {}, "curve": {"min_recall": 0.99}}
    last = Protocol.from_dict({**rules, "tasks": [{"label": "car", "yaw_period_rad": 2 * math.pi}]})
    assert last.curve.first_sample == 100
    truth, pred = make.scene(0, classes=("car",), raw=False)
    scores = dm.evaluate(truth, pred, last)
    np.testing.assert_allclose(scores.ap[0], np.maximum(scores.precision[0, :, 100] - 0.1, 0) / 0.9, atol=1e-15)


def test_files_that_are_no_protocol(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none.toml: No such file"):
        Protocol.load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(InputError, match=r"broken.toml is not TOML: Invalid value"):
        Protocol.load(broken)
    with pytest.raises(InputError, match=r"unknown protocol 'nuscene' \(did you mean 'nuscenes'"):
        by_name("nuscene")


def test_a_protocol_is_frozen() -> None:
    with pytest.raises(AttributeError):
        dm.NUSCENES.name = "other"  # type: ignore[misc]
    changed = msgspec.structs.replace(dm.NUSCENES, max_boxes_per_frame=7)
    assert changed.digest != dm.NUSCENES.digest


def test_as_many_thresholds_as_there_are_bits() -> None:
    """With all 62 the same AP as with each alone."""
    many = [i / 15 for i in range(1, MAX_THRESHOLDS + 1)]
    rules = {"extends": "nuscenes", "name": "many"}
    truth, pred = make.scene(2, n_frames=6, n_truth=20)
    every = Protocol.from_dict({**rules, "affinity": {"thresholds": many, "error_threshold": many[0]}})
    together = dm.evaluate(truth, pred, every).ap
    for t in (0, 30, 31, 32, 60, 61):
        one = Protocol.from_dict({**rules, "affinity": {"thresholds": [many[t]], "error_threshold": many[t]}})
        np.testing.assert_array_equal(together[:, t], dm.evaluate(truth, pred, one).ap[:, 0])


def test_undefined_errors_stay_out_of_the_mean() -> None:
    truth, pred = make.scene(1)
    scores = dm.evaluate(truth, pred, dm.NUSCENES)
    k = dm.NUSCENES.labels.index("traffic_cone")
    assert np.isnan(scores.class_errors[k]).tolist() == [False, False, True, True, True]
    for e, name in enumerate(dm.NUSCENES.error_names):
        means = [scores.class_errors[i, e] for i, task in enumerate(dm.NUSCENES.tasks) if name not in task.undefined]
        assert scores.tp_errors[name] == pytest.approx(sum(means) / len(means), abs=1e-15)
