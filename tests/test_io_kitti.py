"""KITTI's labels, results and calibration: boxes come back where they were put, real ones lie on their points."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import detmetrics as dm
from detmetrics.geometry import points_in_boxes, rotation_matrices, rotation_of_yaw, rotations_of_matrices, wrap_angle
from detmetrics.io import cameras, clouds, kitti

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="real data lies in ../shared/data, which is not here")
KITTI, DELFT = SHARED / "kitti" / "training", SHARED / "vod" / "lidar" / "training"

# x right, y down, z ahead from x ahead, y left, z up; then a camera that looks a little down and to the side
AXES = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
TILT = rotation_matrices([(1.0, 0.04, -0.03, 0.02)])[0]
SHIFT = np.array([0.1, -0.2, -0.3])


def write_calib(path: Path, rotation: NDArray[np.float64] = TILT @ AXES, shift: NDArray[np.float64] = SHIFT) -> Path:
    """The rotation split between R0_rect and Tr_velo_to_cam."""
    rect = rotation_matrices([(1.0, 0.01, 0.02, -0.01)])[0]
    velo = np.hstack([rect.T @ rotation, (rect.T @ shift)[:, None]])
    rows = {"P2": np.arange(12.0), "R0_rect": rect.ravel(), "Tr_velo_to_cam": velo.ravel(), "Tr_imu_to_velo": []}
    path.write_text("".join(f"{key}: {' '.join(map(repr, map(float, row)))}\n" for key, row in rows.items()) + "\n")
    return path


def line(
    kind: str, corners_camera: NDArray[np.float64], size_lwh: NDArray[np.float64], turn: float, score: str = ""
) -> str:
    """One object, from its eight corners in the camera's axes: the bottom centre is the mean of the lowest four."""
    bottom = corners_camera[np.argsort(corners_camera[:, 1])[-4:]].mean(axis=0)
    length, width, height = size_lwh
    numbers = [0.25, 2, -1.5, 10, 20, 30, 40, height, width, length, *bottom, turn]
    return f"{kind} {' '.join(map(repr, map(float, numbers)))}{score}\n".replace(" 2.0 ", " 2 ", 1)


def corners(size_lwh: NDArray[np.float64], turn: float, center: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners in the camera's axes of a box that turns about y (kit's readme: 0 looks along x), from its centre."""
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
    length, width, height = size_lwh
    own = signs * (length, height, width)
    cos, sin = np.cos(turn), np.sin(turn)
    return own @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T + center


@given(
    st.tuples(st.floats(-40, 40), st.floats(-3, 3), st.floats(2, 60)),
    st.tuples(st.floats(0.3, 12), st.floats(0.3, 3), st.floats(0.3, 4)),
    st.floats(-3.1, 3.1),
)
@settings(max_examples=80, deadline=None)
def test_corners_come_back(
    tmp_path_factory: pytest.TempPathFactory, center: tuple[float, ...], size: tuple[float, ...], turn: float
) -> None:
    """The same eight corners, in whatever order, after a way through text, centre, yaw and quaternion."""
    folder = tmp_path_factory.mktemp("kitti")
    calib = write_calib(folder / "calib.txt")
    there = corners(np.array(size), turn, np.array(center))
    (folder / "label.txt").write_text(line("Car", there, np.array(size), turn))
    boxes = kitti.load_truth(folder / "label.txt", calib)
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
    own = (signs * boxes.size_lwh_m[0]) @ rotation_matrices(boxes.rotation_wxyz)[0].T + boxes.center_m[0]
    back = own @ (TILT @ AXES).T + SHIFT
    away = np.linalg.norm(back[:, None] - there[None], axis=2)
    assert away.min(axis=1).max() < 1e-9
    assert away.min(axis=0).max() < 1e-9
    # the heading is the camera's (cos, 0, -sin), seen from the lidar, on the ground
    ahead = np.linalg.inv(TILT @ AXES) @ (np.cos(turn), 0, -np.sin(turn))
    assert abs(wrap_angle(boxes.yaw_rad[0] - np.arctan2(ahead[1], ahead[0]))) < 1e-9
    assert abs(wrap_angle(boxes.yaw_rad[0] - (-turn - np.pi / 2))) < 0.15  # the tilt is small


def test_upright_on_the_lidars_ground(tmp_path: Path) -> None:
    calib = write_calib(tmp_path / "calib.txt")
    bottom = TILT @ AXES @ (12.0, 3.0, -1.5) + SHIFT
    numbers = [0, 0, 0, 1, 2, 3, 4, 1.6, 1.8, 4.2, *bottom.tolist(), -np.pi / 2 - 0.3]
    (tmp_path / "label.txt").write_text("Car " + " ".join(map(repr, map(float, numbers))))
    boxes = kitti.load_truth(tmp_path / "label.txt", calib, upright="lidar")
    np.testing.assert_allclose(boxes.center_m, [(12, 3, -1.5 + 0.8)], atol=1e-12)
    np.testing.assert_allclose(boxes.yaw_rad, [0.3], atol=1e-12)
    np.testing.assert_allclose(boxes.rotation_wxyz, rotation_of_yaw([0.3]), atol=1e-12)
    with pytest.raises(dm.InputError, match="upright must be 'camera' or 'lidar', got 'moon'"):
        kitti.load_truth(tmp_path / "label.txt", calib, upright="moon")  # type: ignore[arg-type]


@given(st.lists(st.tuples(*[st.floats(-1, 1)] * 4), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_quaternions_of_matrices(quaternions: list[tuple[float, ...]]) -> None:
    given_ones = np.array([q for q in quaternions if np.linalg.norm(q) > 1e-3] or [(1.0, 0, 0, 0)])
    matrices = rotation_matrices(given_ones)
    back = rotations_of_matrices(matrices)
    np.testing.assert_allclose(rotation_matrices(back), matrices, atol=1e-9)
    assert (back[:, 0] >= 0).all()


DONT_CARE = "DontCare -1 -1 -10 402.27 166.69 477.31 197.98 -1 -1 -1 -1000 -1000 -1000 -10"
CAR = "Car 0.50 1 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57"


def test_folders_regions_and_columns(tmp_path: Path) -> None:
    for name in ("calib", "label_2", "results"):
        (tmp_path / name).mkdir()
    texts = {
        "000002": f"{CAR}\n{DONT_CARE}\n{DONT_CARE}\n",
        "000007": "",
        "000010": f"{DONT_CARE}\r\n\r\nVan{CAR[3:]}\r\n",
    }
    for name, text in texts.items():
        write_calib(tmp_path / "calib" / f"{name}.txt")
        (tmp_path / "label_2" / f"{name}.txt").write_text(text)
        (tmp_path / "results" / f"{name}.txt").write_text(
            "".join(f"{row} 0.75\n" for row in text.split("\n") if row.startswith("Car"))
        )
    seen: list[tuple[int, int]] = []
    truth = kitti.load_truth(tmp_path / "label_2", tmp_path / "calib", progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert truth.frames == ("000002", "000007", "000010")
    assert truth.is_complete
    assert [truth.labels[code] for code in truth.label] == ["Car", "Van"]
    assert truth.frame.tolist() == [0, 2]
    assert truth.box_columns["occluded"].tolist() == [1, 1]
    assert truth.box_columns["truncated"].tolist() == [0.5, 0.5]
    assert truth.box_columns["alpha_rad"].tolist() == [1.85, 1.85]
    assert truth.box_columns["bbox_px"][1].tolist() == [387.63, 181.54, 423.81, 203.12]
    regions = truth.frame_columns["dont_care_px"]
    assert regions.shape == (3, 2, 4)
    assert np.isfinite(regions).all(axis=2).sum(axis=1).tolist() == [2, 0, 1]
    assert regions[2, 0].tolist() == [402.27, 166.69, 477.31, 197.98]
    pred = kitti.load_results(tmp_path / "results", tmp_path / "calib")
    assert pred.score is not None
    assert pred.score.tolist() == [0.75]
    assert pred.frames == truth.frames
    np.testing.assert_array_equal(pred.center_m, truth.center_m[:1])
    assert len(kitti.load_truth(tmp_path / "label_2" / "000007.txt", tmp_path / "calib")) == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CAR.rsplit(" ", 1)[0], r"line 1 must be a type and 14 numbers"),
        (CAR + "\n" + CAR.replace("58.49", "far"), r"line 2: could not convert .*'far' in .*a\.txt"),
        (CAR.replace("58.49", "nan"), "line 1 must be finite numbers and positive sizes"),
        (CAR.replace("1.87", "0.0"), "line 1 must be finite numbers and positive sizes"),
        (CAR.replace("1.87", "-1"), "line 1 must be finite numbers and positive sizes"),
    ],
)
def test_bad_labels(tmp_path: Path, text: str, says: str) -> None:
    calib = write_calib(tmp_path / "calib.txt")
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(dm.InputError, match=says):
        kitti.load_truth(tmp_path / "a.txt", calib)


def test_bad_results_and_paths(tmp_path: Path) -> None:
    calib = write_calib(tmp_path / "calib.txt")
    (tmp_path / "a.txt").write_text(CAR)
    with pytest.raises(dm.InputError, match="a type, 14 numbers and a score"):
        kitti.load_results(tmp_path / "a.txt", calib)
    (tmp_path / "a.txt").write_text(CAR + " -0.5")
    with pytest.raises(dm.InputError, match=r"score of line 1 must be zero or more, got -0.5 .*logistic"):
        kitti.load_results(tmp_path / "a.txt", calib)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00C")
    with pytest.raises(dm.InputError, match="is not text"):
        kitti.load_truth(tmp_path / "a.txt", calib)
    with pytest.raises(dm.InputError, match="cannot read"):
        kitti.load_truth(tmp_path / "none.txt", calib)
    (tmp_path / "labels").mkdir()
    with pytest.raises(dm.InputError, match=r"holds no \.txt files"):
        kitti.load_truth(tmp_path / "labels", calib)
    for name in ("1.txt", "2.txt"):
        (tmp_path / "labels" / name).write_text(CAR)
    with pytest.raises(dm.InputError, match=r"calib .* must be a folder"):
        kitti.load_truth(tmp_path / "labels", calib)
    (tmp_path / "calibs").mkdir()
    write_calib(tmp_path / "calibs" / "1.txt")
    with pytest.raises(dm.InputError, match=r"lacks '2\.txt'"):
        kitti.load_truth(tmp_path / "labels", tmp_path / "calibs")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("R0_rect", "R9_rect", r"R0_rect must be 9 numbers, got no such line"),
        ("P2: 0.0 1.0", "P2: 0.0", r"P2 must be 12 numbers"),
        ("P2: 0.0", "P2: zero", r"P2 must be 12 numbers"),
        ("P2: 0.0", "P2: nan", r"P2 must be 12 numbers"),
    ],
)
def test_bad_calibrations(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = write_calib(tmp_path / "calib.txt")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(dm.InputError, match=says):
        kitti.read_calibration(path)
    write_calib(path, rotation=np.zeros((3, 3)))
    with pytest.raises(dm.InputError, match="must be rotations"):
        kitti.read_calibration(path)


# ------------------------------------------------------------------------------------------- real frames


def counted(cloud: clouds.Cloud, boxes: dm.Boxes) -> list[int]:
    found, _ = points_in_boxes(cloud.points_m, boxes.center_m, boxes.size_lwh_m, boxes.rotation_wxyz)
    return np.bincount(found, minlength=len(boxes)).tolist()


@needs_data
def test_boxes_of_kitti_lie_on_their_points() -> None:
    truth = kitti.load_truth(KITTI / "label_2", KITTI / "calib")
    assert len(truth) == 10
    for name in truth.frames:
        boxes, cloud = truth.take([name]), clouds.read(KITTI / "velodyne_reduced" / f"{name}.bin")
        n_points = counted(cloud, boxes)
        assert min(n_points) >= 9, (name, n_points)
        for up in (-1, 1):  # and not over or under the road
            moved = boxes.replace(center_m=boxes.center_m + up * np.array([0, 0, 1]) * boxes.size_lwh_m[:, 2:])
            assert sum(counted(cloud, moved)) < 0.2 * sum(n_points), (name, up)


@needs_data
def test_annotated_points_of_kitti_000008(tmp_path: Path) -> None:
    """Six objects whose points another tool counted, in its JSON beside the cloud; the label file is made of it.

    That tool (mmdetection3d) lets the boxes stand upright for the lidar, which drops the camera's tilt of half a degree.
    """
    told = json.loads((SHARED / "kitti" / "000008.json").read_text())["data_list"][0]
    rows, annotated = [], []
    for one in told["instances"]:
        x, y, z, length, height, width, turn = one["bbox_3d"]
        kind = "Car" if one["bbox_label"] == 2 else "DontCare"
        numbers = [one["truncated"], one["occluded"], one["alpha"], *one["bbox"], height, width, length, x, y, z, turn]
        rows.append(f"{kind} {' '.join(map(str, numbers))}\n")
        annotated += [one["num_lidar_pts"]] * (kind == "Car")
    (tmp_path / "label.txt").write_text("".join(rows))
    matrices = {
        "P2": np.array(told["images"]["CAM2"]["cam2img"])[:3],
        "R0_rect": np.array(told["images"]["R0_rect"])[:3, :3],
        "Tr_velo_to_cam": np.array(told["lidar_points"]["Tr_velo_to_cam"])[:3],
    }
    (tmp_path / "calib.txt").write_text("".join(f"{k}: {' '.join(map(str, m.ravel()))}\n" for k, m in matrices.items()))
    cloud = clouds.read(SHARED / "kitti" / "training" / "velodyne_reduced" / "000008.bin")
    upright = kitti.load_truth(tmp_path / "label.txt", tmp_path / "calib.txt", upright="lidar")
    assert annotated == [1325, 1900, 881, 659, 55, 162]
    assert counted(cloud, upright) == annotated
    exact = counted(cloud, kitti.load_truth(tmp_path / "label.txt", tmp_path / "calib.txt"))
    np.testing.assert_allclose(exact, annotated, rtol=0.08)
    assert sum(exact) > sum(annotated)  # what the camera's axes say fits better


@needs_data
def test_boxes_of_delft_stand_on_the_lidars_ground() -> None:
    """All 15 hold points, and their centres are those of the radar's labels, given in other axes: a rigid fit says."""
    boxes = kitti.load_truth(DELFT / "label_2", DELFT / "calib", upright="lidar")
    cloud = clouds.read(DELFT / "velodyne" / "00549.bin")
    assert len(boxes) == 15
    assert min(counted(cloud, boxes)) >= 14
    told = json.loads((SHARED / "vod" / "radar" / "training" / "label_2" / "00549.json").read_text())
    theirs = np.array([[one["geometry"]["center"][axis] for axis in "xyz"] for one in told])

    def misfit(ours: NDArray[np.float64]) -> float:
        a, b = theirs - theirs.mean(axis=0), ours - ours.mean(axis=0)
        u, _, v = np.linalg.svd(a.T @ b)
        turn = v.T @ np.diag([1, 1, np.sign(np.linalg.det(v.T @ u.T))]) @ u.T
        return float(np.abs(a @ turn.T - b).max())

    assert misfit(boxes.center_m) < 0.002
    other = kitti.load_truth(DELFT / "label_2", DELFT / "calib")  # about the camera's axis, which looks down
    assert misfit(other.center_m) > 0.01


# ------------------------------------------------------------------------------------------- cameras


@needs_data
def test_cameras_of_tables() -> None:
    reader = cameras.NuscenesCameras(SHARED / "lyft", "v1.01-train")
    assert len(reader.samples) == 1
    found = reader.of(reader.samples[0])
    assert len(found) == 7
    assert [one.name for one in found] == sorted(one.name for one in found)
    front = next(one for one in found if one.name == "CAM_FRONT")
    assert (front.width_px, front.height_px) == (1224, 1024) or (front.width_px, front.height_px) == (1920, 1080)
    assert front.intrinsic.shape == (3, 3)
    np.testing.assert_allclose(front.pose.rotation @ front.pose.rotation.T, np.eye(3), atol=1e-9)
    assert reader.of("another") == []


def tables(root: Path, **changes: object) -> Path:
    """One sample with a camera that looks along the ego's y axis, 1 m up, on an ego at (10, 0, 0) that looks along y."""
    half = float(np.sqrt(0.5))
    look = {"translation": [0, 0, 1], "rotation": [0.5, -0.5, 0.5, -0.5]}  # z ahead is the ego's x
    content: dict[str, list[dict[str, object]]] = {
        "sensor": [{"token": "s", "channel": "CAM_FRONT", "modality": "camera"}, {"token": "l", "channel": "LIDAR_TOP", "modality": "lidar"}],
        "calibrated_sensor": [
            {"token": "c", "sensor_token": "s", **look, "camera_intrinsic": [[100, 0, 80], [0, 100, 60], [0, 0, 1]]},
            {"token": "k", "sensor_token": "l", **look, "camera_intrinsic": []},
        ],
        "ego_pose": [{"token": "e", "translation": [10, 0, 0], "rotation": [half, 0, 0, half]}],
        "sample_data": [
            {"token": "d", "sample_token": "x", "ego_pose_token": "e", "calibrated_sensor_token": "c", "timestamp": 5, "is_key_frame": True, "filename": "a.jpg", "width": 160, "height": 120},
            {"token": "f", "sample_token": "x", "ego_pose_token": "e", "calibrated_sensor_token": "c", "timestamp": 4, "is_key_frame": False, "filename": "b.jpg", "width": 160, "height": 120},
            {"token": "g", "sample_token": "x", "ego_pose_token": "e", "calibrated_sensor_token": "k", "timestamp": 5, "is_key_frame": True, "filename": "a.pcd.bin"},
        ],
    }  # fmt: skip
    folder = root / "v1.0-mini"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in {**content, **changes}.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return root


def test_a_camera_sees_what_is_before_it(tmp_path: Path) -> None:
    (camera,) = cameras.NuscenesCameras(tables(tmp_path)).of("x")  # no lidar, no sweep between key frames
    assert (camera.name, camera.width_px, camera.height_px, camera.timestamp_us) == ("CAM_FRONT", 160, 120, 5)
    assert camera.path == tmp_path / "a.jpg"
    seen = camera.pose.inverse().apply([(10, 8, 1), (9, 8, 1), (10, 8, 0)])  # ahead; 1 m to the left; 1 m lower
    np.testing.assert_allclose(seen, [(0, 0, 8), (-1, 0, 8), (0, 1, 8)], atol=1e-12)
    pixels = seen @ camera.intrinsic.T
    np.testing.assert_allclose(pixels[1, :2] / pixels[1, 2], (80 - 100 / 8, 60))


def test_bad_camera_tables(tmp_path: Path) -> None:
    with pytest.raises(dm.InputError, match=r"ego_pose.*lacks 'e'"):
        cameras.NuscenesCameras(tables(tmp_path / "a", ego_pose=[]))
    bad = {
        "token": "c",
        "sensor_token": "s",
        "translation": [0, 0, 1],
        "rotation": [1, 0, 0, 0],
        "camera_intrinsic": [[1, 2], [3]],
    }
    with pytest.raises(dm.InputError, match="camera_intrinsic of 'c' must be 3 by 3 numbers"):
        cameras.NuscenesCameras(tables(tmp_path / "b", calibrated_sensor=[bad], sample_data=[]))
