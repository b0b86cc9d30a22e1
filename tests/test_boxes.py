"""Boxes: grouping by frame, checks, take, concat, digest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import detmetrics as dm
from detmetrics.errors import InputError


def columns(n: int = 4, **changes: Any) -> dict[str, Any]:
    """Valid constructor arguments for n boxes in two frames."""
    given: dict[str, Any] = {
        "center_m": np.arange(3.0 * n).reshape(n, 3),
        "size_lwh_m": np.full((n, 3), 2.0),
        "yaw_rad": np.zeros(n),
        "label": ["car", "bus"] * (n // 2),
        "frame": ["b", "a"] * (n // 2),
        "score": np.linspace(1, 0.1, n),
    }
    return given | changes


def test_rows_are_grouped_by_frame_and_keep_their_place() -> None:
    boxes = dm.Boxes(**columns(6))
    assert boxes.frames == ("b", "a")
    assert boxes.offsets.tolist() == [0, 3, 6]
    assert boxes.place.tolist() == [0, 2, 4, 1, 3, 5]
    assert boxes.score is not None
    np.testing.assert_allclose(boxes.score, np.linspace(1, 0.1, 6)[boxes.place])
    assert boxes.frame_names(np.array([0, 5])) == ["b", "a"]


def test_names_and_codes_give_the_same() -> None:
    named = dm.Boxes(**columns(frames=["a", "b", "empty"]))
    coded = dm.Boxes(
        **columns(label=[0, 1, 0, 1], labels=["car", "bus"], frame=[1, 0, 1, 0], frames=["a", "b", "empty"])
    )
    assert named.digest == coded.digest
    assert coded.n_frames == 3
    numbered = dm.Boxes(**columns(frame=[7, 3, 7, 3]))
    assert numbered.frames == ("3", "7")


def test_columns_are_read_only() -> None:
    given = columns()
    boxes = dm.Boxes(**given)
    with pytest.raises(ValueError, match="read-only"):
        boxes.center_m[0, 0] = 1
    given["center_m"][0, 0] = 5  # the caller's own array stays writable
    with pytest.raises(AttributeError):
        boxes.source = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"size_lwh_m": [[4.1, 0, 1.5]] + [[1, 1, 1]] * 3},
            r"boxes.size_lwh_m\[0\] must be positive, got \[4.1, 0.0, 1.5\] in frame 'b'",
        ),
        ({"size_lwh_m": [[1, 1, -1]] * 4}, r"positive.*4 boxes in all"),
        (
            {"center_m": [[0, np.nan, 0]] + [[1, 1, 1]] * 3},
            r"boxes.center_m\[0\] must be finite, got \[0.0, nan, 0.0\]",
        ),
        ({"center_m": np.zeros((4, 2))}, r"boxes.center_m must be of shape \(4, 3\) \(one row a box\), got \(4, 2\)"),
        ({"center_m": "far"}, r"boxes.center_m must be numbers of shape \(4, 3\)"),
        ({"score": [1, 0.5, -0.1, 0.2]}, r"boxes.score\[2\] must be zero or more, got -0.1 in frame 'b'"),
        ({"score": [1, np.inf, 0, 0]}, r"boxes.score\[1\] must be finite, got inf"),
        ({"yaw_rad": [0, 0, 0, np.nan]}, r"boxes.yaw_rad\[3\] must be finite"),
        ({"velocity_mps": [[0, np.inf]] * 4}, r"boxes.velocity_mps\[0\] must be finite or NaN"),
        ({"num_points": [1, 2, -1, 0]}, r"boxes.num_points\[2\] must be zero or more, or NaN where unknown, got -1.0"),
        ({"rotation_wxyz": np.zeros((4, 4))}, r"a quaternion of positive length"),
        ({"label": [0, 1, 2, 0], "labels": ["car", "bus"]}, r"boxes.label\[2\] must be a code from 0 to 1, got 2"),
        (
            {"label": ["car", "bus", "cat", "car"], "labels": ["car", "bus"]},
            r"boxes.label\[2\] must be one of labels, got 'cat'",
        ),
        ({"label": ["car", 3, "car", "car"]}, r"boxes.label\[1\] must be a name"),
        ({"labels": ["car", "bus", "car"]}, r"boxes.labels must be distinct, got \['car'\]"),
        ({"frame": ["a", "b", "c", "a"], "frames": ["a", "b"]}, r"boxes.frame\[2\] must be one of frames, got 'c'"),
        ({"yaw_rad": [0, 0, 0]}, r"boxes.yaw_rad must be of shape \(4,\) \(one row a box\), got \(3,\)"),
        ({"frame": ["a", "b"]}, r"boxes.frame must be of shape \(4,\)"),
        ({"frame": 0}, r"boxes.frame must be of shape \(4,\), got \(\)"),
        ({"label": "car"}, r"boxes.label must be of shape \(4,\), got \(\)"),
        ({"label": [["car"]] * 4}, r"boxes.label must be of shape \(4,\), got \(4, 1\)"),
        ({"attribute": [0, 1, 0, 0]}, r"attribute must be names, or codes into attributes="),
        ({"box_columns": {"occlusion": [1, 2]}}, r"box_columns\['occlusion'\] must be of length 4"),
        ({"frame_columns": {"weather": ["rain"]}}, r"frame_columns\['weather'\] must be of length 2"),
        ({"ego_xy_m": np.zeros((3, 2))}, r"boxes.ego_xy_m must be of shape \(2, 2\) \(one row a frame\), got \(3, 2\)"),
    ],
)
def test_bad_columns_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dm.Boxes(**columns(**changes))


def test_the_source_is_named() -> None:
    with pytest.raises(InputError, match=r"results.json.score\[0\]"):
        dm.Boxes(**columns(score=[-1, 0, 0, 0], source="results.json"))


def test_nothing_at_all() -> None:
    none = dm.Boxes(
        center_m=np.zeros((0, 3)), size_lwh_m=np.zeros((0, 3)), yaw_rad=[], label=[], frame=[], frames=["a"]
    )
    assert (len(none), none.n_frames, none.offsets.tolist()) == (0, 1, [0, 0])
    assert dm.Boxes(center_m=[], size_lwh_m=[], yaw_rad=[], label=[], frame=[]).frames == ()


def test_take_and_concat_bring_back_the_whole() -> None:
    boxes = dm.Boxes(
        **columns(
            8,
            frame=["a", "b", "c", "a", "c", "b", "a", "c"],
            frames=["a", "b", "c", "d"],
            attribute=["", "vehicle.moving"] * 4,
            box_columns={"track": np.arange(8)},
            frame_columns={"weather": ["rain", "sun", "fog", "sun"]},
            ego_xy_m=np.arange(8.0).reshape(4, 2),
        )
    )
    one, two = boxes.take(["c", "a"]), boxes.take(np.array([3, 1]))
    assert one.frames == ("c", "a")
    assert one.box_columns["track"].tolist() == [2, 4, 7, 0, 3, 6]
    whole = dm.Boxes.concat([two, one])
    assert whole.frames == boxes.frames
    assert whole.digest == boxes.digest
    assert whole.frame_columns["weather"].tolist() == ["rain", "sun", "fog", "sun"]
    np.testing.assert_array_equal(whole.ego_xy_m, boxes.ego_xy_m)
    np.testing.assert_array_equal(whole.place, boxes.place)
    assert whole.is_complete
    with pytest.raises(InputError, match="distinct"):
        dm.Boxes.concat([one, one])
    assert boxes.is_complete
    assert boxes.replace(yaw_rad=boxes.yaw_rad + 1).is_complete
    found = dm.Boxes(**columns())  # frames that occur: there may be others
    assert not found.replace(yaw_rad=found.yaw_rad + 1).is_complete
    assert found.replace(frames=found.frames).is_complete
    for wrong, message in (
        ([4], "codes below 4, got 4"),
        ([0, -1], "codes below 4, got -1"),
        ([0.5], "names or codes, got 'float64'"),
        (np.array([True, False]), "names or codes, got 'bool'"),
    ):
        with pytest.raises(InputError, match=message):
            boxes.take(wrong)  # type: ignore[arg-type]
    assert boxes.take([]).n_frames == 0
    with pytest.raises(InputError, match="no such frames in boxes: 'x'"):
        boxes.take(["a", "x"])
    with pytest.raises(InputError, match="column score must be in all parts or in none"):
        dm.Boxes.concat([one, two.replace(score=None)])


@pytest.mark.parametrize(
    "changes",
    [
        {"score": [1, 0.7, 0.4, 0.2]},
        {"label": ["car"] * 4},
        {"frame": ["b", "a", "b", "c"]},
        {"yaw_rad": [0, 0, 0, 1e-9]},
        {"attribute": ["", "", "", "vehicle.moving"]},
        {"ego_xy_m": [[0, 0], [0, 1]]},
        {"place": [0, 1, 3, 2]},
    ],
)
def test_the_digest_sees_what_moves_a_number(changes: dict[str, Any]) -> None:
    assert dm.Boxes(**columns(**changes)).digest != dm.Boxes(**columns()).digest


def test_the_digest_does_not_see_the_order_of_frames() -> None:
    boxes = dm.Boxes(**columns())
    assert boxes.take(["a", "b"]).digest == boxes.digest


def test_replace_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="colour"):
        dm.Boxes(**columns()).replace(colour=1)


def test_names_for_codes_make_other_boxes() -> None:
    boxes = dm.Boxes(**columns(label=[0, 1, 0, 1]))
    before = boxes.digest  # kept once computed
    assert boxes.with_labels(("car", "bus")).digest != before
    assert boxes.digest == before
