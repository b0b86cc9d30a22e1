"""The baseline detector: what goes in, what is wanted, what is learnt, what comes out; tiny worlds, on the CPU."""

from __future__ import annotations

import errno
import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the detector needs its extra")

from typer.testing import CliRunner  # noqa: E402

import detmetrics as dm  # noqa: E402
import naive  # noqa: E402
from detmetrics import cli, io, kernels  # noqa: E402
from detmetrics.detector import augment as augmenting  # noqa: E402
from detmetrics.detector import checkpoint, commands, decoding, latency, losses, training  # noqa: E402
from detmetrics.detector.config import (  # noqa: E402
    CLASSES,
    CONFIGS,
    GROUP_OF,
    GROUPS,
    NO_AUGMENT,
    PARTS,
    Augment,
    Config,
    TrainPlan,
    config_named,
)
from detmetrics.detector.loading import draw, loader  # noqa: E402
from detmetrics.detector.model import MODEL_PARTS, PRIOR, Detector, _around  # noqa: E402
from detmetrics.detector.objects import Objects, concat  # noqa: E402
from detmetrics.detector.optim import Mean, optimizer, rate, set_training  # noqa: E402
from detmetrics.detector.pillars import NOW_S, SLOTS, pillars  # noqa: E402
from detmetrics.detector.predicting import device_named, predict  # noqa: E402
from detmetrics.detector.samples import Sample, Samples  # noqa: E402
from detmetrics.detector.targets import targets  # noqa: E402
from detmetrics.errors import InputError  # noqa: E402
from detmetrics.geometry import points_in_boxes, rotation_of_yaw  # noqa: E402
from detmetrics.synth import write_world  # noqa: E402

TINY = config_named("tiny")
#: As small as a network can be that still has every part.
LEAST = replace(TINY, half_m=51.2, pillar_m=0.8, widths=(8, 16), depths=(1, 1), head_width=8, regress_width=16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "data"
    write_world(out, seed=5, train_scenes=2, val_scenes=2, samples_per_scene=3, sweeps=1, workers=2)
    return out


@pytest.fixture(scope="module")
def samples(root: Path) -> Samples:
    return Samples(root, "synth_train", TINY)


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root, tmp_path / "copy"))


def objects(n: int, seed: int = 0, **columns: Any) -> Objects:
    rng = np.random.default_rng(seed)
    given: dict[str, Any] = {
        "center_m": rng.uniform(-45, 45, (n, 3)).astype(np.float32),
        "size_lwh_m": rng.uniform(0.5, 6, (n, 3)).astype(np.float32),
        "yaw_rad": rng.uniform(-3, 3, n).astype(np.float32),
        "velocity_mps": rng.normal(0, 4, (n, 2)).astype(np.float32),
        "label": rng.integers(0, len(CLASSES), n),
        "attribute": rng.integers(-1, 8, n),
        "is_ignored": np.zeros(n, bool),
    }
    return Objects(**(given | columns))


def cloud(n: int, seed: int = 0, reach: float = 60.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-reach, reach, (n, 3)) * [1, 1, 0.03]
    return np.column_stack([xyz, rng.random(n), rng.choice([0.0, -0.25, -0.5], n)]).astype(np.float32)


# ------------------------------------------------------------------------------------------ what goes in


def test_every_class_has_a_group_and_a_configuration_its_parts() -> None:
    assert sorted(name for names in GROUPS for name in names) == sorted(CLASSES)
    assert all(CLASSES[c] in GROUPS[g] for c, g in enumerate(GROUP_OF))
    for config in CONFIGS.values():
        config.check()
    with pytest.raises(InputError, match="config must be one of tiny, small, base"):
        config_named("huge")
    with pytest.raises(InputError, match="half_m must be a multiple"):
        replace(TINY, half_m=51.0).check()
    with pytest.raises(InputError, match="depths must be one for each"):
        replace(TINY, depths=(1,)).check()


def test_pillars_are_what_a_loop_makes_of_the_points() -> None:
    config = replace(LEAST, max_points=3)
    points = cloud(3000)
    got = pillars(points, config)
    n = config.n_cells
    of: dict[int, list[np.ndarray]] = {}
    for point in points:
        if abs(point[0]) < 51.2 and abs(point[1]) < 51.2:
            x, y = (math.floor((value + 51.2) / 0.8) for value in point[:2])
            slot = (y % 2) * 4 + (x % 2) * 2 + (point[4] < -NOW_S)
            of.setdefault(int(((y // 2) * n + x // 2) * SLOTS + slot), []).append(point)
    assert got.place.tolist() == sorted(of)
    assert got.length.tolist() == [min(len(of[place]), 3) for place in sorted(of)]
    starts = np.cumsum(got.length) - got.length
    for i in range(0, len(starts), 97):
        there = np.array(of[int(got.place[i])])
        rows = got.features[starts[i] : starts[i] + got.length[i]]
        kept = [p for p in there if any(abs(p[2] - row[2]) < 1e-6 and abs(p[3] - row[3]) < 1e-6 for row in rows)]
        assert len(kept) == len(rows)
        np.testing.assert_allclose(rows[:, 5:8], np.array(kept)[:, :3] - np.mean(kept, axis=0)[:3], atol=2e-5)
        np.testing.assert_allclose(rows[:, 8], 0.3 * np.log(len(there)), rtol=1e-5)
        assert (np.abs(rows[:, :2]) <= 0.4 + 1e-4).all()


def test_no_points_and_points_outside_make_no_pillars() -> None:
    for points in (np.empty((0, 5), np.float32), np.full((4, 5), 99, np.float32)):
        assert [len(column) for column in pillars(points, TINY)] == [0, 0, 0]


def test_sweeps_are_joined_and_moved_with_the_car(root: Path) -> None:
    one = Samples(root, "synth_train", replace(TINY, n_sweeps=1))
    last = len(one) - 1
    assert np.unique(one.read(last).points[:, 4]).tolist() == [0.0]
    near = Samples(root, "synth_train", replace(TINY, gap_s=0.1))
    assert np.unique(near.read(last).points[:, 4]) == pytest.approx([-0.25, 0.0], abs=0.01)
    assert len(near.read(last).points) > 1.9 * len(one.read(last).points)
    far = Samples(root, "synth_train", replace(TINY, gap_s=0.4))
    assert np.unique(far.read(last).points[:, 4]) == pytest.approx([-0.5, 0.0], abs=0.01)


def test_objects_stand_where_their_points_are(samples: Samples) -> None:
    sample = samples.read(1)
    now = sample.points[sample.points[:, 4] == 0, :3]
    turn = rotation_of_yaw(sample.objects.yaw_rad)
    box, _ = points_in_boxes(now, sample.objects.center_m, sample.objects.size_lwh_m, turn)
    count = np.bincount(box, minlength=len(sample.objects))
    assert (count[~sample.objects.is_ignored] > 0).mean() > 0.95
    rows = slice(*samples.truth.offsets[1:3])
    kept = samples._label[rows] >= 0
    assert (sample.objects.is_ignored == (samples.truth.box_columns["num_lidar_pts"][rows][kept] == 0)).all()


def test_class_balanced_draws_raise_what_is_rare(samples: Samples) -> None:
    class Stub:
        def __len__(self) -> int:
            return 100

        def labels(self, number: int) -> np.ndarray:
            return np.array([0, 7] if number == 50 else [0])

    stub: Any = Stub()
    plain = draw(stub, 100, 0.0, np.random.default_rng(0))
    assert sorted(plain.tolist()) == list(range(100))
    balanced = draw(stub, 100, 0.5, np.random.default_rng(0))
    assert len(balanced) == 100
    assert 25 <= (balanced == 50).sum() <= 27
    assert (draw(stub, 100, 0.5, np.random.default_rng(0)) == balanced).all()
    stub.labels = lambda number: np.empty(0, np.int64)  # no sample has an object
    assert len(draw(stub, 250, 0.5, np.random.default_rng(0))) == 250


# ------------------------------------------------------------------------------------------ what is varied


def test_flips_turns_and_scales_keep_points_in_their_boxes() -> None:
    boxes = objects(12, size_lwh_m=np.full((12, 3), 3, np.float32))
    rng = np.random.default_rng(1)
    points = np.concatenate([boxes.center_m[i] + rng.uniform(-0.9, 0.9, (20, 3)) for i in range(12)])
    points = np.column_stack([points, np.zeros((240, 2))]).astype(np.float32)
    ahead = boxes.center_m[:, :2] + np.stack([np.cos(boxes.yaw_rad), np.sin(boxes.yaw_rad)], axis=-1)
    markers = np.column_stack([ahead, boxes.center_m[:, 2], np.zeros((12, 2))]).astype(np.float32)
    for seed in range(8):
        plan = replace(NO_AUGMENT, flip=0.5, rotate_rad=1.0, scale=0.2)
        sample = augmenting.augmented(
            Sample(np.concatenate([points, markers]), boxes, None), plan, None, np.random.default_rng(seed)  # type: ignore[arg-type]
        )  # fmt: skip
        owner, _ = points_in_boxes(
            sample.points[:240, :3], sample.objects.center_m, sample.objects.size_lwh_m,
            rotation_of_yaw(sample.objects.yaw_rad),
        )  # fmt: skip
        assert (np.bincount(owner, minlength=12) >= 20).all()
        heading = sample.points[240:, :2] - sample.objects.center_m[:, :2]
        along = np.stack([np.cos(sample.objects.yaw_rad), np.sin(sample.objects.yaw_rad)], axis=-1)
        scale = np.linalg.norm(heading, axis=1, keepdims=True)
        np.testing.assert_allclose(heading / scale, along, atol=1e-4)
        assert 0.79 < scale.mean() < 1.21
        speed = np.linalg.norm(boxes.velocity_mps, axis=1) * scale[:, 0]
        np.testing.assert_allclose(np.linalg.norm(sample.objects.velocity_mps, axis=1), speed, rtol=1e-4)
        before = np.einsum("ni,ni->n", boxes.velocity_mps, ahead - boxes.center_m[:, :2])
        after = np.einsum("ni,ni->n", sample.objects.velocity_mps, along)
        np.testing.assert_allclose(after, before * scale[:, 0], atol=2e-3)


def test_a_cut_sector_has_no_points_and_asks_for_no_objects() -> None:
    boxes = objects(40)
    plan = replace(NO_AUGMENT, crop=1.0, crop_rad=2.0)
    sample = augmenting.augmented(Sample(cloud(5000), boxes, None), plan, None, np.random.default_rng(3))  # type: ignore[arg-type]
    assert 0 < len(sample.points) < 5000
    hidden = sample.objects.is_ignored
    assert 0 < hidden.sum() < 40
    angles = np.sort(np.arctan2(sample.points[:, 1], sample.points[:, 0]))
    gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
    assert gaps.max() > 0.1 > 10 * np.median(gaps)
    after = (np.arctan2(boxes.center_m[:, 1], boxes.center_m[:, 0]) - angles[np.argmax(gaps)]) % (2 * np.pi)
    assert (hidden == (after < gaps.max())).all()


def test_dropping_and_intensity_stay_in_bounds() -> None:
    sample = Sample(cloud(4000), objects(3), None)  # type: ignore[arg-type]
    plan = replace(NO_AUGMENT, drop=0.5, brightness=0.3, contrast=0.5)
    sizes, means = [], []
    for seed in range(20):
        got = augmenting.augmented(sample, plan, None, np.random.default_rng(seed))
        sizes.append(len(got.points))
        means.append(float(got.points[:, 3].mean()))
        assert got.points[:, 3].min() >= 0
        assert got.points[:, 3].max() <= 1
    assert 1900 < min(sizes) < max(sizes) <= 4000
    assert np.std(means) > 0.05
    again = augmenting.augmented(sample, plan, None, np.random.default_rng(19))
    assert (again.points == got.points).all()


def test_pasted_objects_are_free_of_others_and_bring_their_points(samples: Samples) -> None:
    bank = augmenting.make_bank(samples, 0)
    assert bank is not None
    assert (np.diff(bank.offsets) >= augmenting.BANK_POINTS).all()
    sample = samples.read(0)
    plan = replace(NO_AUGMENT, paste=(12,) * len(CLASSES))
    got = augmenting.augmented(sample, plan, bank, np.random.default_rng(0))
    n = len(sample.objects)
    new = got.objects.take(np.arange(n, len(got.objects)))
    assert len(new) > 5
    reach = np.hypot(*got.objects.size_lwh_m[:, :2].T) / 2
    for i in range(n, len(got.objects)):
        apart = np.hypot(*(got.objects.center_m[:, :2] - got.objects.center_m[i, :2]).T)
        apart[i] = np.inf
        assert (apart >= reach + reach[i] - 1e-3).all()
    owner, _ = augmenting.points_of(got.points, new)
    assert (np.bincount(owner, minlength=len(new)) >= augmenting.BANK_POINTS).all()
    # they stand on the ground of this scene, near that of the objects that were there
    bottom = new.center_m[:, 2] - new.size_lwh_m[:, 2] / 2
    there = sample.objects.center_m[:, 2] - sample.objects.size_lwh_m[:, 2] / 2
    assert np.median(np.abs(bottom - np.median(there))) < 0.6
    per_class = np.bincount(got.objects.label, minlength=len(CLASSES))
    assert (per_class <= np.maximum(12, np.bincount(sample.objects.label, minlength=len(CLASSES)))).all()


# ------------------------------------------------------------------------------------------ what is wanted


def test_targets_decode_to_the_objects_they_were_made_of() -> None:
    """Targets put in the place of the network's outputs give the objects back."""
    boxes = objects(25, seed=4)
    boxes.attribute[:] = np.where(
        decoding.CAN_HAVE[boxes.label].any(axis=1), decoding.CAN_HAVE[boxes.label].argmax(1), -1
    )
    wanted = targets(boxes, TINY)
    centers = (wanted.heat[0] == 1).reshape(-1)
    assert centers.sum() == 25

    class Heads:
        def regress(self, images: Any, place: Any, group: Any) -> dict[str, Any]:
            rows = [
                next(
                    k for k in np.flatnonzero(wanted.place == int(p)) if wanted.weight[k] == 1 and wanted.group[k] == g
                )
                for p, g in zip(place.tolist(), group.tolist(), strict=True)
            ]
            values = np.nan_to_num(wanted.values[rows])
            logits = np.eye(8)[np.maximum(wanted.attribute[rows], 0)]
            columns = np.split(values, [2, 3, 6, 8], axis=1)
            return {name: torch.from_numpy(v) for name, v in zip(PARTS, [*columns, logits], strict=True)}

    class Model:
        config, heads = TINY, Heads()

    model: Any = Model()
    heat = torch.from_numpy(np.where(wanted.heat == 1, 3.0, -9.0).astype(np.float32))
    (found,) = decoding.decode(model, heat, [heat])
    order = [int(np.argmin(np.linalg.norm(found.center_m - c, axis=1))) for c in boxes.center_m]
    assert len(set(order)) == 25
    np.testing.assert_allclose(found.center_m[order], boxes.center_m, atol=1e-4)
    np.testing.assert_allclose(found.size_lwh_m[order], boxes.size_lwh_m, rtol=1e-4)
    assert (found.label[order] == boxes.label).all()
    assert (found.attribute[order] == boxes.attribute).all()
    moves = np.array([c not in (8, 9) for c in boxes.label])
    np.testing.assert_allclose(found.velocity_mps[order][moves], boxes.velocity_mps[moves], atol=1e-4)
    has = boxes.label != 8
    turn = np.exp(1j * (found.yaw_rad[order] - boxes.yaw_rad))[has]
    np.testing.assert_allclose(turn, 1, atol=1e-4)


def test_what_stands_in_the_world_comes_back_to_it(samples: Samples) -> None:
    numbers = [0, 4]
    found, poses = [], []
    for number in numbers:
        sample = samples.read(number)
        own = sample.objects
        columns = (
            own.center_m,
            own.size_lwh_m,
            own.yaw_rad,
            own.velocity_mps,
            own.label,
            own.attribute,
            own.yaw_rad * 0,
        )
        found.append(decoding.Found(*columns))
        poses.append(sample.pose)
    frames = [samples.tokens[number] for number in numbers]
    boxes = decoding.in_the_world(found, poses, frames, "test")
    truth = samples.truth.take(frames)
    kept = np.concatenate([samples._label[slice(*samples.truth.offsets[n : n + 2])] >= 0 for n in numbers])
    np.testing.assert_allclose(boxes.center_m, truth.center_m[kept], atol=1e-3)
    np.testing.assert_allclose(np.exp(1j * boxes.yaw_rad), np.exp(1j * truth.yaw_rad[kept]), atol=0.01)
    assert boxes.velocity_mps is not None
    assert truth.velocity_mps is not None
    np.testing.assert_allclose(boxes.velocity_mps, truth.velocity_mps[kept], atol=0.1)  # flattened twice
    assert boxes.attribute is not None
    assert truth.attribute is not None
    names = [boxes.attributes[code] for code in boxes.attribute]
    assert names == [truth.attributes[code] for code in truth.attribute[kept]]


def test_sensors_do_not_see_the_world_as_it_is_drawn(samples: Samples) -> None:
    """Objects are in the sensor's frame: heading and velocity turn with it, and agree with the points of two sweeps."""
    sample = samples.read(1)
    rows = slice(*samples.truth.offsets[1:3])
    kept = samples._label[rows] >= 0
    turn = np.arctan2(sample.pose.rotation[1, 0], sample.pose.rotation[0, 0])
    ahead = np.exp(1j * (sample.objects.yaw_rad + turn))
    np.testing.assert_allclose(ahead, np.exp(1j * samples.truth.yaw_rad[rows][kept]), atol=0.01)
    velocity = sample.objects.velocity_mps[:, 0] + 1j * sample.objects.velocity_mps[:, 1]
    assert samples.truth.velocity_mps is not None
    wanted = samples.truth.velocity_mps[rows][kept]
    np.testing.assert_allclose(velocity * np.exp(1j * turn), wanted[:, 0] + 1j * wanted[:, 1], atol=0.1)


def test_what_has_no_points_is_neither_to_be_found_nor_to_be_missed() -> None:
    boxes = objects(6, is_ignored=np.array([True, False, False, True, False, False]))
    wanted = targets(boxes, TINY)
    assert (wanted.heat == 1).sum() == 4
    assert len(np.unique(wanted.label)) <= 4
    cell = np.floor((boxes.center_m[:, :2] + 51.2) / TINY.cell_m).astype(int)
    at = wanted.is_counted[0, boxes.label, cell[:, 1], cell[:, 0]]
    assert at.tolist() == (~boxes.is_ignored).tolist()
    nothing = targets(objects(0), TINY)
    assert nothing.heat.max() == 0
    assert nothing.is_counted.all()


def test_people_side_by_side_are_two_and_cars_that_near_are_one() -> None:
    for name, expected in (("pedestrian", 2), ("car", 1)):
        boxes = objects(
            2, center_m=np.array([(10.0, 10.0, 0), (10.9, 10.0, 0)], np.float32), label=np.full(2, CLASSES.index(name))
        )
        wanted = targets(boxes, TINY)

        class Heads:
            def regress(self, images: Any, place: Any, group: Any, wanted: Any = wanted) -> dict[str, Any]:
                at = [np.flatnonzero((wanted.place == int(p)) & (wanted.weight == 1))[0] for p in place.tolist()]
                parts = [*np.split(np.nan_to_num(wanted.values[at]), [2, 3, 6, 8], axis=1), np.zeros((len(at), 8))]
                return {part: torch.from_numpy(value) for part, value in zip(PARTS, parts, strict=True)}

        class Model:
            config, heads = TINY, Heads()

        model: Any = Model()
        heat = torch.full(wanted.heat.shape, -9.0)
        (y1, x1), (y2, x2) = np.argwhere(wanted.heat[0, CLASSES.index(name)] == 1)
        heat[0, CLASSES.index(name), y1, x1], heat[0, CLASSES.index(name), y2, x2] = 3.0, 2.0
        assert len(decoding.decode(model, heat, [heat])[0].score) == expected


# ------------------------------------------------------------------------------------------ losses


def test_focal_loss_is_the_formula_and_finite_where_a_sigmoid_and_a_log_are_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (2, 3, 4, 4))
    heat = np.where(rng.random(x.shape) < 0.1, 1.0, rng.random(x.shape) * 0.9)
    counted = rng.random(x.shape) < 0.8
    p = 1 / (1 + np.exp(-x))
    plain = np.where(heat == 1, -((1 - p) ** 2) * np.log(p), -((1 - heat) ** 4) * p**2 * np.log(1 - p)) * counted
    got = losses.focal(torch.from_numpy(x), torch.from_numpy(heat), torch.from_numpy(counted))
    np.testing.assert_allclose(got.numpy(), plain.sum(axis=(0, 2, 3)), rtol=1e-5)
    far = torch.tensor([-1e4, -200.0, 200.0, 1e4]).view(1, 1, 1, 4).requires_grad_()
    for target in (0.0, 1.0):
        loss = losses.focal(far, torch.full((1, 1, 1, 4), target), torch.ones(1, 1, 1, 4, dtype=torch.bool)).sum()
        (slope,) = torch.autograd.grad(loss, far)
        assert torch.isfinite(loss)
        assert torch.isfinite(slope).all()
        assert loss > 1e4  # and what is wrong still hurts


def _loss_of(regressed: dict[str, Any], values: np.ndarray, label: int, attribute: int = -1) -> dict[str, float]:
    n = len(values)
    wanted = {
        "heat": torch.zeros(1, len(CLASSES), 4, 4), "is_counted": torch.ones(1, len(CLASSES), 4, 4, dtype=torch.bool),
        "weight": torch.ones(n), "label": torch.full((n,), label), "attribute": torch.full((n,), attribute),
        "values": torch.from_numpy(values.astype(np.float32)),
    }  # fmt: skip
    return losses.losses(torch.full((1, len(CLASSES), 4, 4), -9.0), regressed, wanted)[1]


def _zeros(n: int) -> dict[str, Any]:
    return {name: torch.zeros(n, size, requires_grad=True) for name, size in PARTS.items()}


def test_every_target_has_its_beta_and_what_is_unknown_pulls_nothing() -> None:
    for name, column in {"offset": 0, "height": 2, "size": 3, "heading": 6, "velocity": 8}.items():
        beta, weight = losses.PARTS[name]
        assert 0 < beta <= 0.25
        for error in (beta / 2, 4 * beta):
            values = np.zeros((1, 10))
            values[0, column] = error
            expected = weight * (0.5 * error**2 / beta if error < beta else error - beta / 2)
            assert _loss_of(_zeros(1), values, label=0)[name] == pytest.approx(expected, rel=1e-4)
    unknown = np.full((3, 10), np.nan)
    parts = _loss_of(_zeros(3), unknown, label=0)
    assert all(parts[name] == 0 for name in losses.PARTS)
    given = _zeros(3)
    wanted = np.full((3, 10), np.nan)
    wanted[1] = 1.0
    loss = losses.losses(
        torch.zeros(1, len(CLASSES), 4, 4), given,
        {
            "heat": torch.zeros(1, len(CLASSES), 4, 4), "is_counted": torch.ones(1, len(CLASSES), 4, 4).bool(),
            "weight": torch.ones(3), "label": torch.zeros(3, dtype=torch.int64),
            "attribute": torch.tensor([-1, 2, -1]), "values": torch.from_numpy(wanted.astype(np.float32)),
        },
    )[0]  # fmt: skip
    loss.backward()
    for column in given.values():
        assert torch.isfinite(column.grad).all()
        assert (column.grad[[0, 2]] == 0).all()
        assert (column.grad[1] != 0).any()


def test_a_barrier_has_no_front() -> None:
    values = np.zeros((1, 10))
    values[0, 6:8] = np.sin(0.4), np.cos(0.4)
    given = _zeros(1)
    given["heading"] = torch.tensor([[-np.sin(0.4), -np.cos(0.4)]], dtype=torch.float32)
    assert _loss_of(given, values, CLASSES.index("barrier"))["heading"] == pytest.approx(0, abs=1e-6)
    assert _loss_of(given, values, CLASSES.index("car"))["heading"] > 1


# ------------------------------------------------------------------------------------------ model and optimiser


def test_the_first_outputs_are_the_prior_and_every_weight_learns(samples: Samples) -> None:
    torch.manual_seed(0)
    model = Detector(TINY)
    batch = next(iter(loader(samples, np.arange(2), 2, workers=0)))
    heat, images = model(batch.features, batch.length, batch.place, 2)
    assert heat.shape == (2, len(CLASSES), TINY.n_cells, TINY.n_cells)
    assert float(torch.sigmoid(heat.detach()).mean()) == pytest.approx(PRIOR, rel=0.2)
    regressed = model.heads.regress(images, batch.targets["place"], batch.targets["group"])
    losses.losses(heat, regressed, batch.targets)[0].backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    # blocks start as the identity: nothing comes through to their first halves yet
    assert [name for name in dead if "conv" not in name and "norm1" not in name] == []
    empty = model.eval()(torch.empty(0, 10), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 1)
    assert torch.isfinite(empty[0]).all()


def test_samples_of_a_batch_do_not_touch_each_other(samples: Samples) -> None:
    model = Detector(LEAST).eval()
    both = next(iter(loader(replace_config(samples, LEAST), np.array([0, 3]), 2, workers=0)))
    heat, images = model(both.features, both.length, both.place, 2)
    for i, number in enumerate((0, 3)):
        own = next(iter(loader(replace_config(samples, LEAST), np.array([number]), 1, workers=0)))
        alone, image = model(own.features, own.length, own.place, 1)
        torch.testing.assert_close(alone[0], heat[i], atol=1e-5, rtol=1e-4)
        n = LEAST.n_cells
        corner = torch.tensor([0, n - 1, n * n - 1, 5 * n + 7])
        group = torch.tensor([0, 1, 2, 3])
        here, there = model.heads.regress(image, corner, group), model.heads.regress(images, corner + i * n * n, group)
        for name in PARTS:
            torch.testing.assert_close(here[name], there[name], atol=1e-5, rtol=1e-4)


def test_the_cells_around_are_those_that_a_convolution_sees() -> None:
    image = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4)
    wanted = torch.nn.functional.unfold(image, 3, padding=1).view(2, 3, 9, 16).permute(0, 3, 2, 1).reshape(32, 27)
    cells = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(4), indexing="ij")
    assert torch.equal(_around(image, *(column.reshape(-1) for column in cells)), wanted)


def test_every_epoch_draws_anew(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def record(samples: Samples, n: int, balance: float, rng: np.random.Generator) -> np.ndarray:
        drawn.append(draw(samples, n, balance, rng).tolist())
        return np.arange(n) % len(samples)

    monkeypatch.setattr(training, "draw", record)
    monkeypatch.setattr(training, "_step", lambda *_: {"heat": 1.0})
    training.train(root, tmp_path / "a", LEAST, replace(PLAN, samples=40, batch=20, epochs=2), workers=0)
    assert drawn[0] != drawn[1]


def replace_config(samples: Samples, config: Config) -> Samples:
    import copy as copying

    other = copying.copy(samples)
    other.config = config
    return other


def test_groups_of_the_optimiser_and_frozen_parts(samples: Samples) -> None:
    plan = TrainPlan(freeze=("encoder", "backbone"), lr_scale={"neck": 0.1})
    model = Detector(TINY)
    optim = optimizer(model, plan)
    assert {(g["weight_decay"], g["scale"]) for g in optim.param_groups} == {(0.01, 0.1), (0, 0.1), (0.01, 1), (0, 1)}
    for group in optim.param_groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = next(iter(loader(samples, np.arange(2), 2, workers=0)))
    set_training(model, plan)
    training._step(training.Trainee(model), optim, batch, 1e-3, 10.0)
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"neck", "heads"}
    with pytest.raises(InputError, match=r"--freeze must be parts of encoder.*got 'tail'"):
        optimizer(model, TrainPlan(freeze=("tail",)))
    with pytest.raises(InputError, match="--lr-scale must be parts"):
        optimizer(model, TrainPlan(lr_scale={"tail": 1.0}))
    with pytest.raises(InputError, match="leave a part"):
        optimizer(model, TrainPlan(freeze=MODEL_PARTS))


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    plan = TrainPlan(lr=1.0, warmup=0.1)
    rates = [rate(plan, step, 1000) for step in range(1000)]
    assert rates[0] < 0.02
    assert int(np.argmax(rates)) in (99, 100)
    assert max(rates) == pytest.approx(1, abs=0.02)
    assert rates[-1] < 1e-4
    assert (np.diff(rates[100:]) < 0).all()


def test_the_mean_of_the_weights_follows() -> None:
    model = torch.nn.Linear(1, 1)
    mean = Mean(model, 0.9)
    for step in range(200):
        torch.nn.init.constant_(model.weight, 5.0)
        mean.update(model, step)
    assert float(mean.state["weight"]) == pytest.approx(5.0, abs=1e-3)


# ------------------------------------------------------------------------------------------ is it real?


def _fit(samples: Samples, numbers: np.ndarray, steps: int, *, shuffled: bool) -> float:
    """Train on one batch, with the targets of each other where shuffled; mAP on it by its true objects."""
    torch.manual_seed(0)
    model, plan = Detector(TINY), TrainPlan(lr=3e-3)
    batch = next(iter(loader(samples, numbers, len(numbers), workers=0)))
    if shuffled:
        other = next(iter(loader(samples, numbers[::-1].copy(), len(numbers), workers=0)))
        batch = batch._replace(targets=other.targets)
    optim, trainee = optimizer(model, plan), training.Trainee(model)
    for step in range(steps):
        training._step(trainee, optim, batch, rate(plan, step, steps), plan.clip)
    pred = predict(model, samples, numbers, workers=0)
    truth = samples.truth.take([samples.tokens[number] for number in numbers])
    return float(dm.score(dm.match(truth, pred, dm.NUSCENES), absent="omit").to_summary()["mean_ap"])


def test_it_overfits_one_batch_and_learns_nothing_of_shuffled_labels(samples: Samples) -> None:
    numbers = np.array([1, 4])  # of two scenes
    assert _fit(samples, numbers, 110, shuffled=False) > 0.8
    assert _fit(samples, numbers, 60, shuffled=True) < 0.1


# ------------------------------------------------------------------------------------------ training, whole

PLAN = TrainPlan(epochs=2, batch=2, samples=4, validate=2, augment=Augment(paste=(1,) * 10), fade=1)


class Stopped(Exception):
    pass


def test_an_interrupted_run_goes_on_to_the_same_weights(root: Path, tmp_path: Path) -> None:
    rows = training.train(root, tmp_path / "a", LEAST, PLAN, workers=0)
    assert [row["epoch"] for row in rows] == [1, 2]
    for name in ("best.safetensors", "state.safetensors", "history.jsonl", "config.json", "index.html", "curves.png"):
        assert (tmp_path / "a" / name).stat().st_size > 0, name
    assert any((tmp_path / "a" / "tensorboard").iterdir())
    lines = (tmp_path / "a" / "history.jsonl").read_text().splitlines()
    assert {"epoch", "step", "train_loss", "val_loss", "train", "val", "lr", "seconds", "mAP", "NDS"} <= set(
        json.loads(lines[1])
    )

    def stop(title: str, done: int, total: int) -> None:
        if title.startswith("epoch 2/2") and done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        training.train(root, tmp_path / "b", LEAST, PLAN, workers=0, progress=stop)
    said: list[str] = []
    training.train(root, tmp_path / "b", LEAST, PLAN, workers=0, say=said.append)
    assert any("going on after epoch 1" in line for line in said)
    states = [checkpoint.load(tmp_path / run / "state.safetensors")[0] for run in "ab"]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    with pytest.raises(InputError, match=r"is the state of a training run, not a model \(best\.safetensors in its"):
        checkpoint.load_model(tmp_path / "b" / "state.safetensors")
    with pytest.raises(InputError, match="another plan: 'lr' "):
        training.train(root, tmp_path / "b", LEAST, replace(PLAN, lr=0.1), workers=0)
    with pytest.raises(InputError, match="another configuration: 'head_width' "):
        training.train(root, tmp_path / "b", replace(LEAST, head_width=4), PLAN, workers=0)
    with pytest.raises(InputError, match=r"another pair of splits: \['synth_train', 'synth_val'\] before"):
        training.train(root, tmp_path / "b", LEAST, PLAN, splits=("synth_val", "synth_train"), workers=0)
    moved = shutil.copytree(root, tmp_path / "moved")
    training.train(moved, tmp_path / "b", LEAST, PLAN, workers=0)  # wherever it is
    path = next(moved.glob("*/sample_annotation.json"))
    rows = json.loads(path.read_text())
    rows[0]["size"][0] *= 2
    path.unlink()  # of the copy alone, whatever it is linked with
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"another data set \(choose another --out"):
        training.train(moved, tmp_path / "b", LEAST, PLAN, workers=0)
    settings = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "data"}))
    training.train(moved, tmp_path / "b", LEAST, PLAN, workers=0)  # a run of an older version does not tell
    for odd in ("[]", "{}", '{"config": null}'):
        (tmp_path / "b" / "config.json").write_text(odd)
        with pytest.raises(InputError, match="another configuration "):
            training.train(root, tmp_path / "b", LEAST, PLAN, workers=0)


def test_leaks_are_refused_unless_allowed(root: Path, tmp_path: Path) -> None:
    same = ("synth_train", "synth_train")
    with pytest.raises(InputError, match="is no validation of synth_train"):
        training.train(root, tmp_path / "a", LEAST, PLAN, splits=same, workers=0)
    plan = replace(PLAN, epochs=1)
    assert len(training.train(root, tmp_path / "b", LEAST, plan, splits=same, workers=0, allow_leaks=True)) == 1


def test_early_stopping_looks_at_the_best() -> None:
    rows = [{"NDS": value, "val_loss": 1 / (i + 1)} for i, value in enumerate([0.1, 0.3, 0.2, 0.2])]
    assert training._best(rows, TrainPlan()) == 1
    assert training._best(rows, TrainPlan(stop_on="val_loss")) == 3
    assert training._is_over(rows, TrainPlan(patience=2))
    assert not training._is_over(rows, TrainPlan(patience=3))
    assert not training._is_over(rows, TrainPlan())


def test_fine_tuning_starts_from_a_checkpoint(root: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = Detector(LEAST)
    checkpoint.save_model(tmp_path / "first.safetensors", LEAST, first.state_dict(), {})
    plan = replace(PLAN, epochs=1, freeze=("encoder", "backbone", "neck"), ema=0.0)
    training.train(root, tmp_path / "run", LEAST, plan, workers=0, init_from=tmp_path / "first.safetensors")
    got = checkpoint.load_model(tmp_path / "run" / "best.safetensors")[0].state_dict()
    for name, value in first.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            same = torch.allclose(value, got[name], atol=1e-6)
            assert same == (not name.startswith("heads")), name
    training.train(root, tmp_path / "run", LEAST, plan, workers=0)  # goes on; nothing is started again
    checkpoint.save_model(tmp_path / "second.safetensors", LEAST, Detector(LEAST).state_dict(), {})
    with pytest.raises(InputError, match=r"another checkpoint to start from \("):
        training.train(root, tmp_path / "run", LEAST, plan, workers=0, init_from=tmp_path / "second.safetensors")


def test_a_full_disk_and_a_full_gpu_are_told_plainly(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    plan = replace(PLAN, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(InputError, match="No space left on device"):
            training.train(root, tmp_path / "a", LEAST, plan, workers=0)
    assert not list((tmp_path / "a").glob("*.partial"))

    def too_much(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "_step", too_much)
    with pytest.raises(InputError, match=r"out of memory at batch 2 \(try --batch 1"):
        training.train(root, tmp_path / "b", LEAST, plan, workers=0)


def test_a_loss_that_is_not_finite_stops_the_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_step", lambda *_: {"heat": math.nan})
    with pytest.raises(InputError, match="not finite at step 0"):
        training.train(root, tmp_path / "a", LEAST, PLAN, workers=0)


# ------------------------------------------------------------------------------------------ what comes out


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = Detector(LEAST)
    torch.nn.init.constant_(model.heads.heat.bias, -2.0)
    path = tmp_path_factory.mktemp("weights") / "least.safetensors"
    checkpoint.save_model(path, LEAST, model.state_dict(), {"history": []})
    return path


def test_boxes_too_near_go_as_the_slow_rule_says() -> None:
    rng = np.random.default_rng(0)
    radius = np.array([0.5, 2.0])
    for n in (0, 1, 40, 120):
        center, label = rng.uniform(0, 8, (n, 2)), rng.integers(0, 2, n)
        keep = np.empty(n, np.bool_)
        kernels.keep_far(center, label, radius, keep)
        assert keep.tolist() == naive.keep_far(center.tolist(), label.tolist(), radius.tolist())


def test_predictions_go_straight_into_evaluate(root: Path, weights: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    for name in ("out.json", "out.parquet"):
        given = ["detector", "predict", "--data", str(root), "--split", "synth_val", "--workers", "0"]
        done = runner.invoke(cli.app, [*given, "--checkpoint", str(weights), "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    boxes = io.load(tmp_path / "out.json")
    truth = io.load_truth(root, split="synth_val")
    assert boxes.frames == truth.frames
    assert len(boxes) == len(io.load(tmp_path / "out.parquet")) > 0
    assert (np.diff(boxes.offsets) <= 500).all()
    away = np.hypot(*(boxes.center_m[:, :2] - truth.ego_xy_m[boxes.frame]).T)
    assert away.max() < 90
    scores = runner.invoke(
        cli.app, ["evaluate", str(tmp_path / "out.json"), "--data", str(root), "--split", "synth_val"]
    )
    assert scores.exit_code == 0, scores.output


def test_the_path_of_a_gpu_gives_the_same_boxes_on_the_cpu(samples: Samples, weights: Path) -> None:
    """bf16, compiled (without a compiler's code) and channels-last, as on CUDA: near what float32 finds."""
    model = checkpoint.load_model(weights)[0].on(torch.device("cpu"))
    batch = next(iter(loader(replace_config(samples, LEAST), np.arange(2), 2, workers=0)))
    with torch.inference_mode():
        heat, images = model(batch.features, batch.length, batch.place, 2)
        assert images[0].is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            coarse, rough = model(batch.features, batch.length, batch.place, 2)
            found = decoding.decode(model, coarse, rough)
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(torch.sigmoid(coarse.float()), torch.sigmoid(heat), atol=0.03, rtol=0.1)
    assert all(np.isfinite(one.center_m).all() for one in found)
    compiled = checkpoint.load_model(weights)[0]
    compiled.backbone.compile(backend="eager")
    compiled.neck.compile(backend="eager")
    with torch.inference_mode():
        again, _ = compiled(batch.features, batch.length, batch.place, 2)
    torch.testing.assert_close(again, heat, atol=1e-5, rtol=1e-4)
    assert compiled.state_dict().keys() == model.state_dict().keys()


def test_devices_are_named_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_named("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto").type == "cpu"
    for name in ("cuda", "tpu", "mps"):
        with pytest.raises(InputError, match="--device"):
            device_named(name)


def test_info_measures_each_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "CONFIGS", {"least": replace(LEAST, name="least")})
    lines: list[str] = []
    commands.info("cpu", lines.append)
    cells = next(line for line in lines if line.startswith("least")).split()
    model = Detector(LEAST)
    assert int(cells[1].replace(",", "")) == sum(p.numel() for p in model.parameters())
    assert float(cells[4]) > 0
    # FLOPs against a count by hand of one convolution that dominates: the stem
    cost = latency.measure(LEAST, torch.device("cpu"), n_runs=2)
    stem = 2 * 9 * SLOTS * LEAST.pillar_width * LEAST.widths[0] * LEAST.n_cells**2 / 1e9
    assert stem < cost.gflop < 40 * stem


def test_the_bundled_checkpoint_finds_what_it_has_never_seen(root: Path) -> None:
    model, note = checkpoint.load_model()
    assert checkpoint.BUNDLED.stat().st_size <= 8e6
    assert model.config == config_named("small")
    assert note["run"]["plan"]["seed"] == 6
    for name in ("MODEL_CARD.md", "small.json", "curves.png"):
        assert (checkpoint.BUNDLED.parent / name).exists()
    samples = Samples(root, "synth_val", model.config)
    scores = dm.score(dm.match(samples.truth, predict(model, samples, workers=0), dm.NUSCENES), absent="omit")
    assert scores.to_summary()["mean_ap"] > 0.4  # two sweeps of an odd pace, a handful of samples
    assert scores.to_summary()["mean_dist_aps"]["car"] > 0.6


# ------------------------------------------------------------------------------------------ bad input


def _broken(copy: Path, change: Any) -> None:
    for path in sorted((copy / "samples" / "LIDAR_TOP").iterdir()):
        change(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), r"cannot read .*LIDAR_TOP.*pcd\.bin: No such file"),
        (lambda path: path.write_bytes(b""), "must be a cloud, got an empty file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), r"must be 5 float32 \(20 bytes\) a point"),
        (lambda path: path.write_bytes(np.full((3, 5), np.nan, "<f4").tobytes()), "point 0 must be finite numbers"),
    ],
    ids=["missing", "empty", "width", "nan"],
)  # fmt: skip
def test_broken_clouds_are_named(copy: Path, weights: Path, change: Any, message: str) -> None:
    _broken(copy, change)
    model = checkpoint.load_model(weights)[0]
    with pytest.raises(InputError, match=message):
        predict(model, Samples(copy, "synth_val", LEAST), workers=0)


def test_broken_clouds_are_named_from_worker_processes(copy: Path, weights: Path) -> None:
    _broken(copy, lambda path: path.unlink())
    model = checkpoint.load_model(weights)[0]
    # the whole message: torch would put the worker's traceback around it
    with pytest.raises(InputError, match=r"^cannot read \S+LIDAR_TOP\S+: No such file or directory$"):
        predict(model, Samples(copy, "synth_val", LEAST), workers=1)


def test_a_cloud_without_returns_gives_no_error(copy: Path, weights: Path) -> None:
    _broken(copy, lambda path: path.write_bytes(np.zeros((7, 5), "<f4").tobytes()))
    model = checkpoint.load_model(weights)[0]
    boxes = predict(model, Samples(copy, "synth_val", replace(LEAST, n_sweeps=1)), workers=0)
    assert boxes.n_frames == 6


def test_a_sample_without_a_cloud_is_named(copy: Path) -> None:
    path = copy / "v1.0-synth" / "sample_data.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, "is_key_frame": False} for row in rows]))
    with pytest.raises(InputError, match=r"no key frame|no cloud"):
        Samples(copy, "synth_val", LEAST)


def test_wrong_checkpoints_are_refused(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="cannot read"):
        checkpoint.load_model(path)
    content = weights.read_bytes()
    for wrong in (content[:-100], content[:50], b"", b"{}", b"\x80\x04pickle"):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="must be a whole safetensors file"):
            checkpoint.load_model(path)
    tensors, note = checkpoint.load(weights)
    other = {**note, "config": asdict(replace(LEAST, head_width=12))}
    checkpoint.save(path, tensors, other)
    with pytest.raises(InputError, match=r"shape of '.*' must be"):
        checkpoint.load_model(path)
    some = dict(list(tensors.items())[3:])
    checkpoint.save(path, some, note)
    with pytest.raises(InputError, match="lacks the tensor"):
        checkpoint.load_model(path)
    checkpoint.save(path, {**tensors, "heads.heat.bias": torch.full((10,), math.nan)}, note)
    with pytest.raises(InputError, match=r"'heads\.heat\.bias' must be finite"):
        checkpoint.load_model(path)
    checkpoint.save(path, tensors, {**note, "classes": ["car"]})
    with pytest.raises(InputError, match="classes must be"):
        checkpoint.load_model(path)
    checkpoint.save(path, tensors, {**note, "format": 9})
    with pytest.raises(InputError, match="format of the checkpoint"):
        checkpoint.load_model(path)
    with pytest.raises(InputError, match="a checkpoint of configuration 'small', got 'tiny'"):
        checkpoint.load_model(weights, expected=config_named("small"))
    import safetensors.torch

    safetensors.torch.save_file(tensors, path)
    with pytest.raises(InputError, match="no checkpoint of this detector"):
        checkpoint.load_model(path)


def test_wrong_settings_are_refused() -> None:
    for change, message in (
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"batch": 0}, "--batch must be at least 1"),
        ({"lr": 0.0}, "--lr must be above 0, got 0"),
        ({"lr": math.inf}, "--lr must be above 0, got inf"),
        ({"decay": math.nan}, "--decay must be zero or more, got nan"),
        ({"balance": 1.5}, "balance must be a share from 0 to 1"),
        ({"stop_on": "luck"}, "--stop-on must be NDS or val_loss"),
    ):
        with pytest.raises(InputError, match=message):
            replace(TrainPlan(), **change).check()
    with pytest.raises(InputError, match="--lr-scale must be PART=FACTOR"):
        commands._scale("backbone")
    assert commands._scale("backbone=0.1") == ("backbone", 0.1)


def test_what_is_refused_leaves_no_run_behind_and_is_refused_soon(root: Path, tmp_path: Path) -> None:
    said: list[str] = []  # leaks, which take long to look for, would be told of
    for plan, splits, message in (
        (replace(PLAN, batch=8), ("synth_train", "synth_val"), "--batch must be at most the 4 samples"),
        (replace(PLAN, freeze=("bone",)), ("synth_train", "synth_val"), "--freeze must be parts of .* got 'bone'"),
        (PLAN, ("synth_train", "nope"), "has no split 'nope'"),
    ):
        with pytest.raises(InputError, match=message):
            training.train(root, tmp_path / "a", LEAST, plan, splits=splits, workers=0, say=said.append)
    assert not said
    assert not list((tmp_path / "a").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--out: cannot make the folder .*: File exists"):
        training.train(root, tmp_path / "file", LEAST, PLAN, workers=0)


def test_objects_can_be_put_together() -> None:
    both = concat([objects(3), objects(2, seed=1)])
    assert len(both) == 5
    assert len(both.take(both.label >= 0)) == 5
