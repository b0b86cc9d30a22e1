"""The plain baseline: what it finds on a made-up ground, and on a lidar world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import detmetrics as dm
from detmetrics.detector import plain
from detmetrics.errors import InputError
from detmetrics.geometry import Pose, rotation_matrices, rotation_of_yaw
from detmetrics.io import nuscenes
from detmetrics.io.clouds import Cloud
from detmetrics.synth import TINY, write_world

NAMES = [kind.label for kind in plain.KINDS]


def ground(rng: np.random.Generator, slope: float = 0.0, n: int = 20_000) -> np.ndarray:
    xy = rng.uniform(-50, 50, (n, 2))
    return np.column_stack([xy, -1.8 + slope * xy[:, 0] + rng.normal(0, 0.02, n)])


def shell(
    x: float, y: float, size: tuple[float, float, float], yaw: float, rng: np.random.Generator, slope: float = 0.0
) -> np.ndarray:
    """Points on the two sides of a box that a sensor at the origin sees."""
    length, width, height = size
    cos, sin = np.cos(yaw), np.sin(yaw)
    to_sensor = np.array([[cos, sin], [-sin, cos]]) @ np.array([-x, -y])
    sides = [
        np.column_stack([np.full(150, np.sign(to_sensor[0]) * length / 2), rng.uniform(-width / 2, width / 2, 150)]),
        np.column_stack([rng.uniform(-length / 2, length / 2, 150), np.full(150, np.sign(to_sensor[1]) * width / 2)]),
    ]
    flat = np.concatenate(sides) @ np.array([[cos, sin], [-sin, cos]]) + [x, y]
    up = rng.uniform(0, height, len(flat))
    up[:2] = height
    return np.column_stack([flat, -1.8 + slope * x + up])


def cloud(*parts: np.ndarray, time_s: list[float] | None = None, pose: Pose | None = None) -> Cloud:
    points = np.concatenate(parts).astype(np.float32)
    times = np.repeat(np.float32(time_s or [0.0] * len(parts)), [len(part) for part in parts])
    return Cloud(
        points,
        np.zeros(len(points), np.float32),
        np.zeros(len(points), np.int32),
        times,
        pose or Pose(np.eye(3), np.zeros(3)),
    )


def best(found: plain._Found) -> tuple[str, np.ndarray, float, np.ndarray]:
    row = int(found.score.argmax())
    return NAMES[found.kind[row]], found.center_m[row], float(found.yaw_rad[row]), found.velocity_mps[row]


@pytest.mark.parametrize("slope", [0.0, 0.04])
@pytest.mark.parametrize("name", ["car", "truck", "pedestrian", "bus", "barrier"])
def test_a_box_on_the_ground_is_found_and_named(name: str, slope: float) -> None:
    rng = np.random.default_rng(1)
    size = plain.KINDS[NAMES.index(name)].size_lwh_m
    got, center, yaw, velocity = best(plain.detect(cloud(ground(rng, slope), shell(14, 9, size, 0.5, rng, slope))))
    assert got == name
    assert np.hypot(center[0] - 14, center[1] - 9) < 0.35
    assert center[2] == pytest.approx(-1.8 + 14 * slope + size[2] / 2, abs=0.25)
    if name != "pedestrian":
        assert abs((yaw - 0.5 + np.pi / 2) % np.pi - np.pi / 2) < np.deg2rad(6)
    assert (velocity == 0).all()


@pytest.mark.parametrize("turn", [0.0, 1.0, -2.5])
def test_the_pose_carries_everything_along(turn: float) -> None:
    rng = np.random.default_rng(2)
    size = plain.KINDS[0].size_lwh_m
    parts = ground(rng), shell(10, 6, size, 0.3, rng)
    _, here, yaw, _ = best(plain.detect(cloud(*parts)))
    pose = Pose(rotation_matrices(rotation_of_yaw(turn))[0], np.array([500.0, -300.0, 20.0]))
    name, there, turned, _ = best(plain.detect(cloud(*parts, pose=pose)))
    assert name == "car"
    np.testing.assert_allclose(there, pose.apply(here[None])[0], atol=0.35)
    assert abs((turned - yaw - turn + np.pi) % (2 * np.pi) - np.pi) < np.deg2rad(6)


@pytest.mark.parametrize("speed", [0.0, 5.0, -9.0])
def test_velocity_from_the_sweeps(speed: float) -> None:
    rng = np.random.default_rng(3)
    size = plain.KINDS[0].size_lwh_m
    sweeps, times = [], []
    for time_s in (0.0, -0.17, -0.33):
        sweeps += [ground(rng), shell(10 + speed * time_s, 6, size, 0.0, np.random.default_rng(4))]
        times += [time_s, time_s]
    name, center, yaw, velocity = best(plain.detect(cloud(*sweeps, time_s=times)))
    assert name == "car"
    assert center[0] == pytest.approx(10, abs=0.3)
    np.testing.assert_allclose(velocity, [speed, 0], atol=0.4)
    if speed:
        assert np.cos(yaw) * speed > 0, "it points where it goes"


def test_a_box_that_strays_is_not_followed() -> None:
    """Where the second step would take 3 m more than the first, these are two boxes and no velocity is known."""
    rng = np.random.default_rng(3)
    size = plain.KINDS[0].size_lwh_m
    sweeps = []
    for x in (10.0, 9.2, 5.4):
        sweeps += [ground(rng), shell(x, 6, size, 0.0, np.random.default_rng(4))]
    name, _, _, velocity = best(plain.detect(cloud(*sweeps, time_s=[0.0, 0.0, -0.17, -0.17, -0.33, -0.33])))
    assert name == "car"
    np.testing.assert_array_equal(velocity, [0, 0])


def test_a_row_of_barriers_is_cut() -> None:
    rng = np.random.default_rng(5)
    row = np.column_stack(
        [rng.uniform(5, 15, 600), np.full(600, 8.0) + rng.normal(0, 0.03, 600), -1.8 + rng.uniform(0, 0.98, 600)]
    )
    found = plain.detect(cloud(ground(rng), row))
    barriers = found.center_m[found.kind == NAMES.index("barrier")]
    assert len(barriers) == 4
    np.testing.assert_allclose(np.sort(barriers[:, 0]), [6.25, 8.75, 11.25, 13.75], atol=0.15)
    np.testing.assert_allclose(np.abs(np.sin(found.yaw_rad)), 1.0, atol=0.1, err_msg="its length is its thickness")


def test_walls_and_bare_ground_are_nothing() -> None:
    rng = np.random.default_rng(6)
    wall = np.column_stack([rng.uniform(-30, 30, 4000), np.full(4000, 12.0), -1.8 + rng.uniform(0, 9, 4000)])
    found = plain.detect(cloud(ground(rng), wall))
    assert not (found.score > 0.05).any()
    assert len(plain.detect(cloud(ground(rng))).score) == 0
    assert len(plain.detect(cloud(np.zeros((0, 3)))).score) == 0


def test_few_points_are_little_evidence() -> None:
    flat = ground(np.random.default_rng(8))
    person = np.array([(14.0, 9.0, -1.5), (14.6, 9.6, -0.7), (14.3, 9.0, -0.05), (14.0, 9.6, -1.0)])
    assert len(plain.detect(cloud(flat, person[:3])).score) == 0
    few = plain.detect(cloud(flat, person)).score.max()
    many = plain.detect(cloud(flat, *[person] * 5)).score.max()  # the same shape
    assert few / many == pytest.approx((1 - np.exp(-0.4)) / (1 - np.exp(-2)))


def test_clusters_are_connected_parts() -> None:
    rng = np.random.default_rng(7)
    points = np.column_stack([rng.uniform(-8, 8, (300, 2)), np.zeros(300)])
    got = plain._clusters(points)
    cell = ((points[:, :2] + plain._REACH_M) / plain._CELL_M).astype(int)
    touches = np.abs(cell[:, None] - cell).max(axis=2) <= 2
    slow = np.arange(300)
    for _ in range(300):
        slow = np.where(touches, slow, 300).min(axis=1)
    assert len(np.unique(slow)) > 20
    assert len({*zip(got.tolist(), slow.tolist(), strict=True)}) == len(np.unique(slow)) == len(np.unique(got))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "data"
    write_world(out, seed=5, workers=2, **TINY)
    return out


def test_a_world_is_scored(world: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pred = plain.predict(world, "synth_val", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)
    nuscenes.write_results(pred, tmp_path / "results.json")
    again = nuscenes.load_results(tmp_path / "results.json")
    assert len(again) == len(pred)
    truth = nuscenes.load_truth(world, split="synth_val", cache=False)
    scores = dm.evaluate(truth, pred, dm.NUSCENES)
    cars = float(scores.to_summary()["mean_dist_aps"]["car"])
    assert cars > 0.15
    np.testing.assert_allclose(again.center_m, pred.center_m)
    known = {one.attribute for one in plain.KINDS} | {one.moving for one in plain.KINDS}
    assert {again.attributes[code] for code in set(again.attribute.tolist())} <= known | {""}


def test_bad_input(world: Path) -> None:
    with pytest.raises(InputError, match="no split 'no'"):
        plain.predict(world, "no")
    with pytest.raises(InputError, match="no scenes 'away'"):
        plain.predict(world, ["away"])
