"""Scenes: what is to be seen of a frame, without anything that draws."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
import detmetrics_viz
import looking
from detmetrics.geometry import IDENTITY, Pose, ground_corners, points_in_boxes, rotation_of_yaw
from detmetrics.io import argoverse2
from detmetrics.io.clouds import NuscenesClouds
from detmetrics_viz import Outcome, Outcomes, build_scene
from detmetrics_viz.footage import Footage
from detmetrics_viz.looks import LAYERS, Look, strokes
from detmetrics_viz.scene import EDGES, Scene
from detmetrics_viz.themes import DARK, LIGHT, POINT_MODES

CAR = (10.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.3)


def turned(degrees: float, *translation: float) -> Pose:
    return Pose.of_quaternion(rotation_of_yaw([np.radians(degrees)])[0], translation)


def test_counts_and_errors_are_those_of_the_frames() -> None:
    found = dm.frames(looking.ledger(), cost=False)
    footage = looking.footage()
    total = 0
    for at in range(len(footage)):
        counts = footage[at].summary()
        assert (counts.tp, counts.fp, counts.fn) == (found.tp[at], found.fp[at], found.fn[at])
        np.testing.assert_allclose(counts.errors, found.error_mean[at], rtol=1e-5)
        total += counts.tp * counts.fp * counts.fn
    assert total > 0, "all kinds occur"


def test_rings_and_ground_follow_from_the_cloud() -> None:
    near = build_scene(looking.cloud(looking.ground(2_000)))
    assert near.rings_m[:2] == (10.0, 20.0)
    far = build_scene(looking.cloud(looking.ground(2_000) * [4, 4, 1]))
    assert far.rings_m[:2] == (25.0, 50.0)
    rng = np.random.default_rng(0)
    rough = np.column_stack([rng.uniform(-20, 20, (7_500, 2)), rng.normal(-1.8, 0.2, 7_500)])
    ceiling = np.column_stack([rng.uniform(-20, 20, (2_500, 2)), np.full(2_500, 3.0)])
    assert build_scene(looking.cloud([*rough, *ceiling])).ground_m == pytest.approx(-1.8, abs=0.25)


def test_a_match_below_the_best_f1_is_a_missed_truth() -> None:
    """Two sure matches, three false alarms and then a third match: it is not worth going down to that."""
    truth = [(x, 0.0, 0.0, 4.5, 1.9, 1.6, 0.0) for x in (10.0, 20.0, 30.0)]
    alarms = [(x, 20.0, 0.0, 4.5, 1.9, 1.6, 0.0) for x in (10.0, 20.0, 30.0)]
    ledger = looking.pair(truth, [*truth[:2], *alarms, truth[2]], [0.9, 0.8, 0.5, 0.4, 0.3, 0.1])
    found = Outcomes.of(ledger)
    assert found.cutoff[0] == 0.8
    assert (found.partner >= 0).sum() == 3
    assert found.mistakes().tolist() == [[1] + [0] * 9]
    counts = build_scene(looking.cloud(looking.ground(500)), ledger=found, boxes_to_cloud=IDENTITY).summary()
    assert (counts.tp, counts.fp, counts.fn) == (2, 0, 1)


@pytest.mark.parametrize("least", [0.0, 0.3, 0.62, 0.9])
def test_a_least_score_gives_what_matching_without_the_lower_predictions_would(least: float) -> None:
    pred = looking.predictions()
    kept = np.flatnonzero(pred.score.astype(np.float32) >= np.float32(least))
    columns = ("center_m", "size_lwh_m", "yaw_rad", "label", "score", "velocity_mps", "attribute", "frame", "place")
    fewer = pred.replace(**{name: getattr(pred, name)[kept] for name in columns})
    again = Outcomes.of(dm.match(looking.truth(), fewer, dm.NUSCENES))
    for frame in looking.truth().frames:
        whole = build_scene(looking.cloud([[1, 1, 1]]), ledger=looking.ledger(), frame=frame)
        part = build_scene(looking.cloud([[1, 1, 1]]), ledger=again, frame=frame)
        shown = whole.shown(least)
        np.testing.assert_array_equal(whole.outcome(least)[shown], part.outcome(0.0))
        assert whole.summary(least)[:4] == part.summary(0.0)[:4]


def test_outcomes_of_one_frame_and_who_matches_whom() -> None:
    away = (30.0, -5.0, 0.0, 4.0, 2.0, 1.5, 0.0)
    near = (10.5, 2.0, 0.0, 4.0, 2.0, 1.5, 0.3)
    scene = build_scene(
        looking.cloud([[1, 1, 1]]), ledger=looking.pair([CAR, away], [near, (20, 8, 0, 4, 2, 1, 0)], [0.8, 0.6])
    )
    names = [Outcome(code).name for code in scene.outcome(0.0)]
    assert names == ["FOUND", "MISSED", "TRUE_POSITIVE", "FALSE_POSITIVE"]
    assert scene.partner.tolist() == [2, -1, 0, -1]
    assert [Outcome(code).name for code in scene.outcome(0.81)][:2] == ["MISSED", "MISSED"]
    assert scene.errors[2, 0] == pytest.approx(0.5)
    assert scene.texts == ("car", "car", "car 0.80 · 0.50 m", "car 0.60")
    assert "matches the truth car" in scene.describe(2, 0.0)
    assert scene.describe(1, 0.0)[0] == "car, missed"
    (line,) = scene.lines["matches"].ends
    np.testing.assert_allclose(line, [near[:3], CAR[:3]], atol=1e-6)
    assert scene.lines["matches"].box.tolist() == [2]
    rows = {row.text: row.number for row in scene.legend(DARK, min_score=0.0)}
    assert rows == {"true positive": 1, "false positive": 1, "missed": 1, "found truth": 1}
    assert {row.text: row.number for row in scene.legend(DARK, "class", 0.0)} == {"car": 4}


def test_a_missed_truth_is_red_and_what_counts_not_is_dim() -> None:
    far = (80.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0)  # out of range
    scene = build_scene(looking.cloud([[1, 1, 1]]), ledger=looking.pair([CAR, far], [], []))
    for theme in (DARK, LIGHT):
        red, green, blue = scene.box_colors(theme)[0].tolist()
        assert red > 200
        assert max(green, blue) < 100
        dim = scene.box_colors(theme)[1].astype(int)
        assert np.ptp(dim) < 40
    assert scene.summary()[:4] == (0, 0, 1, 1)


def test_nodes_are_the_corners_and_the_heading_leaves_by_the_front() -> None:
    table = np.random.default_rng(0).uniform([-30, -30, -2, 1, 1, 1, -3], [30, 30, 2, 9, 3, 4, 3], (50, 7))
    scene = build_scene(looking.cloud([[1, 1, 1]]), looking.boxes(table.tolist()))
    flat = ground_corners(table[:, :3], table[:, 3:6], table[:, 6])
    for level, up in ((slice(0, 4), -0.5), (slice(4, 8), 0.5)):
        np.testing.assert_allclose(scene.nodes[:, level, :2], flat, atol=1e-4)
        np.testing.assert_allclose(
            scene.nodes[:, level, 2], (table[:, 2] + up * table[:, 5])[:, None].repeat(4, 1), atol=1e-4
        )
    stroke = scene.nodes[:, 9] - scene.nodes[:, 8]
    np.testing.assert_allclose(np.arctan2(stroke[:, 1], stroke[:, 0]), table[:, 6], atol=1e-4)
    assert (np.linalg.norm(stroke, axis=1) > table[:, 3] / 2 + 0.2).all()
    length = np.linalg.norm(scene.nodes[:, EDGES[:12, 0]] - scene.nodes[:, EDGES[:12, 1]], axis=2)
    np.testing.assert_allclose(np.sort(length, axis=1), np.sort(np.repeat(table[:, 3:6], 4, axis=1), axis=1), atol=1e-4)


def test_all_stand_in_the_view_frame() -> None:
    """A box in the global frame, a cloud in a turned sensor's: what was in the box stays in it, ahead is x."""
    pose, view = turned(70, 100, -50, 3), turned(-90, 1, 0, 1.8)
    inside = np.array([[12.0, 3.0, 0.5]])
    sensor = pose.inverse().apply(inside)
    truth = looking.boxes([(12, 3, 0.5, 4, 2, 1, 1.1)], velocity_mps=[[3.0, 0.0]])
    scene = build_scene(looking.cloud([*sensor, [5, 5, 5]], pose=pose), truth, cloud_to_view=view)
    assert scene.n_points.tolist() == [1]
    np.testing.assert_allclose(scene.points[0], view.apply(sensor)[0], atol=1e-4)
    np.testing.assert_allclose(scene.center[0], scene.points[0], atol=1e-4)
    np.testing.assert_allclose(scene.pose.apply(scene.points[:1]), inside, atol=1e-4)
    assert scene.yaw_rad[0] == pytest.approx(1.1 - np.radians(70) - np.radians(90), abs=1e-5)
    turn = -np.radians(160)
    np.testing.assert_allclose(scene.velocity[0], [3 * np.cos(turn), 3 * np.sin(turn)], atol=1e-4)
    shaft = scene.lines["velocity"].ends[0]
    np.testing.assert_allclose(shaft[1, :2] - shaft[0, :2], scene.velocity[0], atol=1e-4)


def test_boxes_of_the_world_hold_the_points_that_its_tables_count() -> None:
    footage, truth = looking.footage(), looking.truth()
    for at, frame in enumerate(footage.frames):
        rows = np.flatnonzero(truth.frame == truth.frame_index[frame])
        scene = footage[at]
        n_truth = int((~scene.is_pred).sum())
        np.testing.assert_array_equal(scene.n_points[:n_truth], truth.box_columns["num_lidar_pts"][rows])
    assert scene.n_points.max() > 20


@pytest.mark.skipif(not looking.REAL.exists(), reason="real data lies in ../shared/data, which is not here")
def test_boxes_of_both_argoverse_sweeps_hold_the_points_that_were_annotated() -> None:
    root = looking.REAL / "av2" / "sensor" / "val"
    truth = argoverse2.load_truth(root)
    footage = Footage.of_data(root, truth)
    assert len(footage) == 2
    for at, frame in enumerate(footage.frames):
        scene = footage[at]
        rows = np.flatnonzero(truth.frame == truth.frame_index[frame])
        assert len(rows) == 81
        np.testing.assert_array_equal(scene.n_points, truth.num_points[rows])


@pytest.mark.skipif(not looking.REAL.exists(), reason="real data lies in ../shared/data, which is not here")
def test_boxes_of_the_nuscenes_frame_hold_the_points_that_were_annotated() -> None:
    folder = looking.REAL / "nuscenes" / "frame_ca9a282c"
    rows = json.loads(next(folder.glob("*.json")).read_text())["data_list"][0]["instances"]
    truth = looking.boxes([row["bbox_3d"] for row in rows])
    cloud = dm.io.clouds.read(next(folder.glob("*.pcd.bin")))
    scene = build_scene(cloud, truth, cloud_to_view=turned(-90, 0.94, 0, 1.84))
    same = scene.n_points == [row["num_lidar_pts"] for row in rows]
    assert (int(same.sum()), len(rows)) == (61, 69)  # the others lost roll and pitch


def test_shades() -> None:
    points = looking.ground(2_000)
    points[:, :2] *= 3
    scene = build_scene(looking.cloud(points, time_s=np.linspace(-0.5, 0, 2_000).astype(np.float32)))
    assert tuple(scene.shades) == POINT_MODES
    assert scene.ground_m == pytest.approx(-1.8, abs=0.06)
    for mode, shade in scene.shades.items():
        assert shade.dtype == np.uint8
        assert shade.shape == (2_000,)
        value = {
            "height": points[:, 2],
            "intensity": np.arange(2_000) % 100,
            "distance": np.linalg.norm(points, axis=1),
            "time": np.arange(2_000)[::-1],
        }[mode]
        order = np.argsort(value, kind="stable")
        assert (np.diff(shade[order].astype(int)) >= 0).all(), mode
        assert shade.max() - shade.min() > 200, mode
        np.testing.assert_array_equal(scene.point_colors(DARK, mode), DARK.lookup[mode][shade])
    bare = build_scene(looking.cloud(points, intensity=np.full(2_000, np.nan, np.float32)))
    assert set(bare.shades) == {"height", "distance"}
    with pytest.raises(dm.InputError, match="intensity"):
        bare.point_colors(DARK, "intensity")


def test_rays_without_return_are_left_out_and_rings_lie_on_the_ground() -> None:
    points = looking.ground(5_000)
    points[::5] = 0
    scene = build_scene(looking.cloud(points))
    assert len(scene.points) == 4_000
    ends = scene.lines["rings"].ends
    np.testing.assert_allclose(ends[:, :, 2], scene.ground_m)
    assert set(np.round(np.linalg.norm(ends[:, 0, :2], axis=1)).tolist()) == set(scene.rings_m)


def test_without_matching_all_are_truth_and_predictions() -> None:
    pred = looking.boxes([CAR, CAR], score=[0.2, 0.7])
    scene = build_scene(looking.cloud([[1, 1, 1]]), looking.boxes([CAR]), pred)
    assert [Outcome(code).name for code in scene.outcome()] == ["TRUTH", "PREDICTION", "PREDICTION"]
    assert scene.shown(0.5).tolist() == [True, False, True]
    assert not scene.matched
    assert scene.label.tolist() == [0, 0, 0]


def test_layers_hide_and_show() -> None:
    scene = looking.footage()[1]
    everything, _ = strokes(scene, Look(min_score=0.0))
    for layer in LAYERS:
        fewer, color = strokes(scene, Look(min_score=0.0, layers=frozenset(LAYERS) - {layer}))
        is_drawn = layer not in ("points", "labels", "legend")
        assert (len(fewer) < len(everything)) == is_drawn, layer
        assert len(color) == len(fewer)
    visible = Look(min_score=0.5).visible(scene)
    assert not visible[scene.is_pred & (scene.score < 0.5)].any()
    matches = strokes(scene, Look(min_score=1.0, layers=frozenset({"matches"})))[0]
    assert not len(matches), "lines from hidden predictions"


def make(**changes: Any) -> Scene:
    given = {"cloud": looking.cloud([[1.0, 2, 3]]), "truth": looking.boxes([CAR])}
    return build_scene(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cloud": None}, "boxes without a cloud"),
        ({"cloud": looking.cloud(np.empty((0, 3)))}, "a cloud must be a cloud with points"),
        ({"cloud": looking.cloud([[1.0, 2, 3], [1, np.nan, 3]])}, r"point 1 must be finite numbers, got \[1.0, nan, 3.0\] in a cloud"),
        ({"cloud": looking.cloud(np.ones((4, 2)))}, r"of shape \(N, 3\), got \(4, 2\)"),
        ({"frame": "g"}, "unknown frame 'g'.*known: 'f'"),
        ({"truth": looking.boxes([CAR], frames=["n015-aaa", "n015-bbb"]), "frame": "n015-aa"}, "did you mean 'n015-aaa'"),
        ({"truth": looking.boxes([CAR], frames=["a", "b"])}, "frame must be given where the boxes have several"),
        ({"truth": looking.boxes([CAR]), "ledger": looking.pair([(9, 9, 0, 4, 2, 1, 0)], [], [])}, "the boxes that were matched"),
    ],
)  # fmt: skip
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(dm.InputError, match=message):
        make(**changes)


def test_bad_words() -> None:
    for words, message in (
        ({"points": "colour"}, "colour of points must be one of 'height'"),
        ({"boxes": "x"}, "colour of boxes must be one of"),
        ({"layers": frozenset({"truths"})}, "layers must be of"),
        ({"min_score": float("nan")}, "least score must be finite"),
    ):
        with pytest.raises(dm.InputError, match=message):
            Look(**words)
    with pytest.raises(dm.InputError, match="threshold must be one of"):
        Outcomes.of(looking.ledger(), 3.0)


def test_another_threshold_changes_outcomes() -> None:
    strict = Outcomes.of(looking.ledger(), 0.5)
    loose = Outcomes.of(looking.ledger(), 4.0)
    assert (strict.partner >= 0).sum() < (loose.partner >= 0).sum()
    assert build_scene(looking.cloud([[1, 1, 1]]), ledger=strict, frame=looking.truth().frames[0]).threshold_m == 0.5


def test_footage() -> None:
    footage = looking.footage()
    assert footage.frames == looking.truth().frames
    assert len(set(footage.scenes)) == 2
    one = footage.only([footage.scenes[0]])
    assert set(one.scenes) == {footage.scenes[0]}
    with pytest.raises(dm.InputError, match="no scenes 'scene-9'"):
        footage.only(["scene-9"])
    with pytest.raises(dm.InputError, match="did you mean"):
        footage.index(footage.frames[2][:8])
    mistakes = [sum(scene.summary()[1:3]) for scene in (footage[at] for at in range(len(footage)))]
    assert [mistakes[at] for at in footage.worst(6)] == sorted(mistakes, reverse=True)
    assert [mistakes[at] for at in footage.best(6)] == sorted(mistakes), "all six have truth"
    assert footage.only([footage.scenes[3]]).best(9) == [at - 3 for at in footage.best(6) if at >= 3]
    found = dm.frames(looking.ledger(), cost=False)
    np.testing.assert_array_equal(footage.outcomes.mistakes().sum(axis=1), found.fp + found.fn)
    for label, at in footage.worst_of_classes().items():
        scene = footage[at]
        outcome = scene.outcome()
        wrong = ((outcome == Outcome.MISSED) | (outcome == Outcome.FALSE_POSITIVE)) & scene.shown()
        assert (wrong & (scene.label == scene.labels.index(label))).any(), label
    joined = Footage.of_data(looking.world(), looking.truth(), n_sweeps=2)[2]
    assert "time" in joined.shades
    sensor = NuscenesClouds(looking.world()).mounting(footage.frames[2]).translation_m
    assert (np.abs(footage[2].points[:, :2] - sensor[:2]).max(axis=1) < 0.5).any(), "one sweep shows the own car"
    newest = joined.points[joined.shades["time"] == 0]
    assert len(newest) > 10_000
    assert not (np.abs(newest[:, :2] - sensor[:2]).max(axis=1) < 0.5).any(), "joined ones do not"
    assert len(joined.points) > 1.5 * len(footage[2].points)
    box, _ = points_in_boxes(joined.points, joined.center, joined.size, rotation_of_yaw(joined.yaw_rad))
    assert len(box) > footage[2].n_points[~footage[2].is_pred].sum()


def test_frames_without_truth_are_not_the_best() -> None:
    ledger = looking.pair([], [], [])
    footage = Footage(["f"], lambda _: (looking.cloud([[1, 1, 1]]), IDENTITY, None), ledger=ledger)
    assert footage.worst(1) == [0]
    with pytest.raises(dm.InputError, match="best frames must be among frames with a truth that counts, got none such"):
        footage.best(1)


def test_frames_without_clouds_are_refused() -> None:
    truth = looking.boxes([CAR])
    with pytest.raises(dm.InputError, match="boxes without a cloud: none of the frames"):
        Footage.of_data(looking.world(), truth)


def test_every_public_name_is_there() -> None:
    for name in detmetrics_viz.__all__:
        assert getattr(detmetrics_viz, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        detmetrics_viz.nothing  # noqa: B018


def test_looking_costs_no_drawing_library() -> None:
    code = (
        "import sys, detmetrics_viz; detmetrics_viz.build_scene; print('open3d' in sys.modules, 'PIL' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False False\n"
    )
