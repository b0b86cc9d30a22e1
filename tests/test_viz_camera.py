"""Boxes on the pictures of cameras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
import looking
from detmetrics.geometry import IDENTITY, Pose
from detmetrics.io.cameras import Camera
from detmetrics_viz import build_scene
from detmetrics_viz.looks import Look
from detmetrics_viz.orbit import Orbit
from detmetrics_viz.projecting import NEAR_M, Pinhole
from detmetrics_viz.scene import EDGES

pytest.importorskip("PIL", reason="the extra viz is not installed")

from PIL import Image

from detmetrics_viz.cameras import draw_on_picture, pinhole, read_picture, rectangles

MATRIX = np.array([[400.0, 0, 319.5], [0, 400, 179.5], [0, 0, 1]])
#: Looks along x of the global frame: its x is -y there, its y is -z.
AHEAD = Pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0.0, 0, 1]))
NO_PANELS = Look(layers=frozenset({"truth", "predictions"}))


def camera(tmp_path: Path, image: Any = None, **changes: Any) -> Camera:
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((360, 640, 3), 60, np.uint8) if image is None else image).save(path)
    given = {
        "name": "CAM",
        "intrinsic": MATRIX,
        "pose": AHEAD,
        "width_px": 640,
        "height_px": 360,
        "path": path,
        "timestamp_us": 0,
    }
    return Camera(**{**given, **changes})


def scene(*rows: tuple[float, ...]) -> Any:
    return build_scene(looking.cloud([[1, 1, 1]]), ledger=looking.pair(list(rows), [], []))


def test_a_finer_image_shows_the_same() -> None:
    """Pixels are counted from their middles: pixel 0 is the fine pixels 0 and 1, whose middle is 0.5."""
    eye = Pinhole(640, 360, MATRIX, IDENTITY)
    points = np.random.default_rng(0).normal([0, 0, 9], 2, (50, 3))
    pixels, _ = eye.project(points)
    fine, _ = eye.scaled(2).project(points)
    np.testing.assert_allclose(fine, 2 * pixels + 0.5, atol=1e-9)
    assert (eye.scaled(2).width, eye.scaled(2).height) == (1280, 720)


def test_clipping_keeps_what_is_seen_and_nothing_else() -> None:
    """Against 2,000 points on each of 300 random lines."""
    rng = np.random.default_rng(0)
    eye = Pinhole(640, 360, MATRIX, IDENTITY)
    ends = rng.normal([0, 0, 2], 4, (300, 2, 3))
    pixels, line = eye.clip(ends)
    assert (np.diff(line) > 0).all()
    assert (pixels >= -1e-6).all()
    assert (pixels <= [639 + 1e-6, 359 + 1e-6]).all()
    kept = dict(zip(line.tolist(), pixels, strict=True))
    t = np.linspace(0, 1, 2_000)[:, None]
    n_cut = 0
    for i, (start, stop) in enumerate(ends):
        points = start * (1 - t) + stop * t
        seen, depth = eye.project(points)
        with np.errstate(invalid="ignore"):
            inside = (depth >= NEAR_M) & (seen >= 0).all(axis=1) & (seen <= [639, 359]).all(axis=1)
        if inside.sum() < 3:
            continue
        n_cut += not inside.all()
        for pixel, own in zip(kept[i], seen[np.flatnonzero(inside)[[0, -1]]], strict=True):
            step = np.abs(np.diff(seen[inside], axis=0)).max() + 1e-6
            assert np.abs(pixel - own).max() <= 2 * step
    assert n_cut > 30
    unseen = [i for i in range(300) if i not in kept]
    assert len(unseen) > 50
    for i in unseen:
        seen, depth = eye.project(ends[i, 0] * (1 - t) + ends[i, 1] * t)
        with np.errstate(invalid="ignore"):
            assert not ((depth >= NEAR_M) & (seen >= 0).all(axis=1) & (seen <= [639, 359]).all(axis=1)).any()


def test_what_is_behind_the_camera_is_not_drawn(tmp_path: Path) -> None:
    behind = scene((-10.0, 0, 1, 4, 2, 2, 0))
    image = draw_on_picture(behind, camera(tmp_path), NO_PANELS)
    assert (image == 60).all()
    assert not len(rectangles(pinhole(behind, camera(tmp_path), (640, 360)), behind.nodes.astype(float))[1])


@pytest.mark.parametrize("shape", ["3d", "2d"])
@pytest.mark.parametrize(
    ("focal", "middle"), [((400, 400), (319.5, 179.5)), ((420, 380), (250.0, 240.0))], ids=["centred", "off-centre"]
)
def test_lines_fall_where_the_projection_says(
    tmp_path: Path, shape: Any, focal: tuple[float, float], middle: tuple[float, float]
) -> None:
    one = scene((12.0, 1.0, 0.5, 4, 2, 2, 0.4))
    own = camera(tmp_path, intrinsic=np.array([[focal[0], 0, middle[0]], [0, focal[1], middle[1]], [0, 0, 1]]))
    image = draw_on_picture(one, own, NO_PANELS, shape=shape).astype(int)
    is_red = (image[:, :, 0] - image[:, :, 1:].max(axis=2)) > 60
    u, v = pinhole(one, own, (640, 360)).project(one.nodes[0])[0].T
    # by hand: a point x ahead, y left, z up lies y / x and (z - 1) / x focal lengths from the principal point
    x, y, z = one.nodes[0].T.astype(float)
    np.testing.assert_allclose(u, middle[0] - focal[0] * y / x, atol=1e-6)
    np.testing.assert_allclose(v, middle[1] - focal[1] * (z - 1) / x, atol=1e-6)
    t = np.linspace(0, 1, 300)[:, None]
    if shape == "3d":
        lines = [((u[a], v[a]), (u[b], v[b])) for a, b in EDGES]
    else:
        left, right, top, bottom = u[:8].min(), u[:8].max(), v[:8].min(), v[:8].max()
        lines = [
            ((left, top), (right, top)),
            ((right, top), (right, bottom)),
            ((right, bottom), (left, bottom)),
            ((left, bottom), (left, top)),
        ]
    drawn = np.concatenate([np.array(a) * (1 - t) + np.array(b) * t for a, b in lines])
    for pixel in drawn[::7]:
        column, row = np.round(pixel).astype(int)
        assert is_red[row - 1 : row + 2, column - 1 : column + 2].any(), pixel
    for row, column in np.argwhere(is_red):
        assert np.abs(drawn - (column, row)).max(axis=1).min() < 2.5


def test_a_box_at_the_border_is_cut_there(tmp_path: Path) -> None:
    wide = scene((6.0, 4.0, 1.0, 4, 3, 2, 0.0))
    own = pinhole(wide, camera(tmp_path), (640, 360))
    (rectangle,), _ = rectangles(own, wide.nodes.astype(float))
    assert rectangle[0] == pytest.approx(0, abs=1e-6)
    assert 0 < rectangle[2] < 320
    around = scene((2.0, 0.0, 1.0, 6, 2, 2, 0.0))  # the camera is in it
    (rectangle,), _ = rectangles(pinhole(around, camera(tmp_path), (640, 360)), around.nodes.astype(float))
    np.testing.assert_allclose(rectangle, [0, 0, 639, 359], atol=1e-6)


def test_the_front_is_tinted(tmp_path: Path) -> None:
    for yaw, is_tinted in ((np.pi, True), (0.0, False)):  # towards the camera, away from it
        image = draw_on_picture(scene((12.0, 0.0, 1.0, 8, 3, 3, yaw)), camera(tmp_path), NO_PANELS).astype(int)
        inner = image[179 - 55 : 179 - 45, 319 + 50]  # within the near face, beyond the far one
        assert bool((inner[:, 0] - inner[:, 1] > 10).all()) == is_tinted


def test_the_nearest_box_is_drawn_last(tmp_path: Path) -> None:
    """Where lines cross, the nearer box's colour stays: a false positive before a missed truth."""
    near, far = (6.0, 0.0, 1.0, 0.1, 1.2, 1.2, 0.0), (12.0, 0.6, 1.0, 0.1, 2.4, 4.0, 0.0)
    both = build_scene(looking.cloud([[1, 1, 1]]), ledger=looking.pair([far], [near], [0.9]))
    look = Look(layers=NO_PANELS.layers, min_score=0.0)
    image = draw_on_picture(both, camera(tmp_path), look).astype(int)
    own = pinhole(both, camera(tmp_path), (640, 360))
    row = round(own.project(both.nodes[1, [4, 7]])[0][:, 1].mean())  # the top of the near one's front
    column = round(own.project(both.nodes[0, [3, 7]])[0][:, 0].mean())  # the right of the far one's front
    crossing = image[row, column]
    assert crossing[1] > 120, f"amber has green, red has not: {crossing}"


def test_bad_pictures(tmp_path: Path) -> None:
    one = scene((12.0, 0.0, 1.0, 4, 2, 2, 0.0))
    own = camera(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    whole = own.path.read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for path, message in (
        (tmp_path / "none.jpg", "cannot read .*none.jpg: No such file"),
        (tmp_path / "broken.jpg", "broken.jpg cannot be read as a picture"),
        (tmp_path / "cut.png", "cut.png cannot be read as a picture"),
        (tmp_path, "must be a file, got a folder"),
    ):
        with pytest.raises(dm.InputError, match=message):
            read_picture(path)
    with pytest.raises(dm.InputError, match="of 1600 x 900 pixels, as its table says, got 640 x 360"):
        draw_on_picture(one, camera(tmp_path, width_px=1600, height_px=900))
    wrong: Any = "4d"
    with pytest.raises(dm.InputError, match="shape must be one of '3d', '2d'"):
        draw_on_picture(one, own, shape=wrong)


def test_turning_and_moving_an_orbit() -> None:
    start = Orbit((5.0, 1.0, 0.0), 20.0)
    target = np.array([start.target_m])
    for orbit in (start, start.turned(0.2, 0.1), start.nearer(3), start.turned(0, 5)):
        pixel, depth = orbit.camera((641, 361)).project(target)
        np.testing.assert_allclose(pixel[0], [320, 180], atol=1e-6)
        assert depth[0] == pytest.approx(orbit.distance_m)
    up = start.turned(0, 5).camera((641, 361)).pose.rotation
    np.testing.assert_allclose(up[2], [0, 0, -1], atol=1e-9)  # straight down, ahead is up
    np.testing.assert_allclose(up[1], [-1, 0, 0], atol=1e-9)
    right = start.moved(0.1, 0.0).camera((641, 361)).project(target)[0][0]
    assert right[0] == pytest.approx(320 + 36.1, abs=1e-6), "what is there follows the mouse"
    down = start.moved(0.0, 0.1).camera((641, 361)).project(target)[0][0]
    assert down[1] > 185
    assert start.nearer(1).distance_m < start.distance_m < start.nearer(-1).distance_m
    left = start.turned(0.1, 0).camera((641, 361)).project(target - [[3, 0, 0]])[0][0]
    assert left[0] > 322, "what is near follows the mouse too"


@pytest.mark.skipif(not looking.REAL.exists(), reason="real data lies in ../shared/data, which is not here")
def test_rectangles_on_the_real_picture_are_the_annotated_ones() -> None:
    """Those are hulls of the corners before the camera, cut at the border."""
    folder = looking.REAL / "nuscenes" / "frame_ca9a282c"
    info = json.loads(next(folder.glob("*.json")).read_text())["data_list"][0]
    front = info["images"]["CAM_FRONT"]
    lidar_to_camera = np.array(front["lidar2cam"])
    rows = info["instances"]
    scene = build_scene(
        dm.io.clouds.read(next(folder.glob("*.pcd.bin"))), looking.boxes([row["bbox_3d"] for row in rows])
    )
    back = Pose(lidar_to_camera[:3, :3], lidar_to_camera[:3, 3]).inverse()
    own = Camera("CAM_FRONT", np.array(front["cam2img"])[:3, :3], back, 1600, 900, next(folder.glob("*.jpg")), 0)
    found, _ = rectangles(pinhole(scene, own, (1600, 900)), scene.nodes.astype(float))
    annotated = np.array([row["bbox"] for row in info["cam_instances"]["CAM_FRONT"]])
    low = np.maximum(found[:, None, :2], annotated[None, :, :2])
    high = np.minimum(found[:, None, 2:], annotated[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    area = [np.prod(part[:, 2:] - part[:, :2], axis=1) for part in (found, annotated)]
    iou = both / (area[0][:, None] + area[1] - both)
    assert len(annotated) == 47
    assert iou.max(axis=0).min() > 0.9  # 0.908 to 0.983: the boxes lost roll and pitch
    image = draw_on_picture(scene, own)
    assert image.shape == (900, 1600, 3)
