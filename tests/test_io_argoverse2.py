"""The reader of Argoverse 2 files: what it gives, what it refuses, the command line."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
import make
from detmetrics.errors import InputError
from detmetrics.io import argoverse2

pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "av2"
DROP = object()


def columns(boxes: dm.Boxes, **changes: Any) -> dict[str, Any]:
    """Columns of the official table; ``DROP`` leaves one out."""
    names = [boxes.frames[code].rpartition(":") for code in boxes.frame]
    assert boxes.rotation_wxyz is not None
    labels = boxes.labels or ()
    given: dict[str, Any] = {
        "log_id": [log for log, _, _ in names],
        "timestamp_ns": [int(time) for _, _, time in names],
        "track_uuid": [f"track-{i}" for i in range(len(boxes))],
        "category": [labels[code] for code in boxes.label],
        **{name: boxes.center_m[:, i] for i, name in enumerate(("tx_m", "ty_m", "tz_m"))},
        **{name: boxes.size_lwh_m[:, i] for i, name in enumerate(("length_m", "width_m", "height_m"))},
        **{name: boxes.rotation_wxyz[:, i] for i, name in enumerate(("qw", "qx", "qy", "qz"))},
        "num_interior_pts": np.ones(len(boxes), np.int64) if boxes.num_points is None else boxes.num_points.astype(int),
    }
    if boxes.score is not None:
        given["score"] = boxes.score
    return {name: value for name, value in (given | changes).items() if value is not DROP}


def write(path: Path, boxes: dm.Boxes, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(pa.table(columns(boxes, **changes)), str(path))
    return path


@pytest.fixture
def pair() -> tuple[dm.Boxes, dm.Boxes]:
    return make.sweeps(4, n_frames=5, tilted=True, empty=0.0)


@pytest.mark.parametrize("score_digits", [None, 1])
def test_tables_give_the_same_boxes(score_digits: int | None, tmp_path: Path) -> None:
    """With rounded scores the place in the file decides, which must not get lost."""
    truth, pred = make.sweeps(4, n_frames=5, tilted=True, empty=0.0, score_digits=score_digits, n_truth=20)
    ours = dm.io.argoverse2.load_truth(write(tmp_path / "labels.feather", truth), sweeps=truth.frames)
    found = dm.io.load(write(tmp_path / "detections.feather", pred))
    assert ours.frames == truth.frames
    assert ours.is_complete
    assert not found.is_complete
    assert found.num_points is None
    np.testing.assert_array_equal(ours.center_m, truth.center_m)
    np.testing.assert_array_equal(ours.rotation_wxyz, truth.rotation_wxyz)
    np.testing.assert_allclose(np.cos(ours.yaw_rad - truth.yaw_rad), 1, atol=1e-12)
    assert ours.frame_columns["scene"].tolist() == [name.partition(":")[0] for name in truth.frames]
    assert ours.frame_columns["timestamp_ns"].tolist() == [int(name.partition(":")[2]) for name in truth.frames]
    assert ours.box_columns["instance"].tolist() == [f"track-{i}" for i in range(len(truth))]
    one, other = dm.evaluate(ours, found, dm.ARGOVERSE2), dm.evaluate(truth, pred, dm.ARGOVERSE2)
    assert one.composite == pytest.approx(other.composite, abs=1e-12)
    np.testing.assert_array_equal(one.ap, other.ap)
    np.testing.assert_allclose(one.class_errors, other.class_errors, atol=1e-12)


def test_folders_of_logs(pair: tuple[dm.Boxes, dm.Boxes], tmp_path: Path) -> None:
    truth, _ = pair
    for log in ("log-0", "log-1"):
        some = truth.take([name for name in truth.frames if name.startswith(log)])
        write(tmp_path / "val" / log / "annotations.feather", some, log_id=DROP)
    lidar = tmp_path / "val" / "log-1" / "sensors" / "lidar"
    lidar.mkdir(parents=True)
    (lidar / "77.feather").touch()
    (lidar / "notes.feather").touch()
    there = dm.io.load_truth(tmp_path / "val")
    assert set(there.frames) - set(truth.frames) == {"log-1:77"}
    assert list(there.frames) == sorted(
        there.frames, key=lambda name: (name.partition(":")[0], int(name.partition(":")[2]))
    )
    assert len(there) == len(truth)
    one = dm.io.load_truth(tmp_path / "val" / "log-0")
    assert set(one.frame_columns["scene"]) == {"log-0"}
    again = dm.io.load_truth(tmp_path / "val", scenes=["log-0"])
    assert again.digest == one.digest
    table = write(tmp_path / "labels.feather", truth)
    assert set(dm.io.argoverse2.load_truth(table, logs=["log-1"]).frame_columns["scene"]) == {"log-1"}
    with pytest.raises(InputError, match="has no logs 'log-9'"):
        dm.io.load_truth(tmp_path / "val", scenes=["log-9"])
    with pytest.raises(InputError, match="has no split to choose"):
        dm.io.load_truth(tmp_path / "val", split="val")
    with pytest.raises(InputError, match=r"holds no annotations\.feather"):
        dm.io.argoverse2.load_truth(tmp_path)
    with pytest.raises(
        InputError, match="must be a feather file, the folder of a log or a folder of logs, got nothing"
    ):
        dm.io.argoverse2.load_truth(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_id": DROP, "qw": DROP}, "lacks the columns 'qw', 'log_id'"),
        ({"score": DROP}, "lacks the columns 'score'"),
        ({"timestamp_ns": lambda n: [0.5] * n}, "column timestamp_ns must be whole numbers, none missing, got 'double'"),
        ({"tx_m": lambda n: ["far"] * n}, "column tx_m must be numbers, got 'string'"),
        ({"score": lambda n: [None] + [0.5] * (n - 1)}, "column score must be without missing values, got 1"),
        ({"category": lambda n: [3] * n}, "column category must be text, got 'int64'"),
        ({"height_m": lambda n: [1.0] * (n - 1) + [0.0]}, r"length_m, width_m, height_m of row \d+ must be positive, got"),
        ({"score": lambda n: [0.5] * (n - 1) + [-1.0]}, r"score of row \d+ must be zero or more, got -1.0"),
        ({"qw": lambda n: [0.0] * n, "qx": lambda n: [0.0] * n, "qy": lambda n: [0.0] * n, "qz": lambda n: [0.0] * n},
         "qw, qx, qy, qz of row 0 must be a quaternion of positive length"),
        ({"timestamp_ns": lambda n: np.full(n, 2**63, np.uint64)}, "column timestamp_ns must be of 64 bits with sign"),
        ({"timestamp_ns": lambda n: [0] * (n - 1) + [-1]}, r"timestamp_ns of row \d+ must be zero or more, got -1"),
        ({"tx_m": lambda n: [math.inf] + [0.0] * (n - 1)}, "center_m"),
    ],
)  # fmt: skip
def test_bad_tables(changes: dict[str, Any], message: str, pair: tuple[dm.Boxes, dm.Boxes], tmp_path: Path) -> None:
    _, pred = pair
    given = {name: value(len(pred)) if callable(value) else value for name, value in changes.items()}
    path = write(tmp_path / "bad.feather", pred, **given)
    with pytest.raises(InputError, match=message) as caught:
        dm.io.argoverse2.load_results(path)
    assert "bad.feather" in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "x.feather"
    path.write_bytes(b"ARROW1 but no more")
    with pytest.raises(InputError, match=r"x.feather is not a feather file: "):
        dm.io.load(path)
    with pytest.raises(InputError, match=r"cannot read .*none.feather: No such file"):
        dm.io.load(tmp_path / "none.feather")
    with pytest.raises(InputError, match=r"cannot read .*none.feather: No such file"):
        dm.io.load_truth(tmp_path / "none.feather")
    for sweep in ("a", "a:²", "a:-1", f"a:{2**63}", "a:" + 5000 * "9"):
        with pytest.raises(InputError, match=r"sweep 'a.* must be log_id:timestamp_ns"):
            dm.io.argoverse2.load_truth(path, sweeps=[sweep])
    assert argoverse2._sweep_of(f"a:{2**63 - 1}") == ("a", 2**63 - 1)


def test_a_table_without_rows(pair: tuple[dm.Boxes, dm.Boxes], tmp_path: Path) -> None:
    truth, pred = pair
    empty = pa.table({name: pa.array([], pa.null()) for name in columns(pred)})
    feather.write_feather(empty, str(tmp_path / "none.feather"))
    found = dm.io.load(tmp_path / "none.feather")
    assert len(found) == 0
    assert dm.evaluate(truth, found, dm.ARGOVERSE2).composite == 0


def test_gimbal_lock() -> None:
    half = math.sqrt(0.5)
    quaternions = np.array([(half, 0, half, 0), (half, 0, -half, 0), (0, 1, 0, 0), (0, 0, 0, 1), (half, 0, 0, half)])
    # turned by 0.7 about z after a pitch of 90 degrees but for 1e-8: it heads somewhere, which does not count
    turned = half * np.array([(math.cos(0.35), -math.sin(0.35), math.cos(0.35), math.sin(0.35))])
    turned[0, 2] *= 1 + 1e-8
    assert abs(dm.geometry.yaw_of_rotation(turned)[0]) > 0.1
    assert dm.io.argoverse2.yaw_of_euler(turned).tolist() == [0]
    lifted = np.array([(math.cos(0.7), 0, math.sin(0.7), 0)])  # 80 degrees up
    yaw = dm.io.argoverse2.yaw_of_euler(np.concatenate((quaternions, lifted)))
    assert yaw[:2].tolist() == [0, 0]
    assert np.abs(yaw[2:5]).tolist() == pytest.approx([0, math.pi, math.pi / 2])
    assert yaw[5] == pytest.approx(0)


def test_the_command_line(pair: tuple[dm.Boxes, dm.Boxes], tmp_path: Path) -> None:
    truth, pred = pair
    write(tmp_path / "labels.feather", truth)
    write(tmp_path / "detections.feather", pred)
    done = subprocess.run(
        [sys.executable, "-m", "detmetrics", "evaluate", "detections.feather", "--truth", "labels.feather", "--protocol", "argoverse2"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "roi:off" in done.stdout
    assert "CDS" in done.stdout
    assert "AVE" not in done.stdout


@pytest.mark.skipif(not SHARED.exists(), reason="real data lies in ../shared/data, which is not here")
def test_real_files() -> None:
    truth = dm.io.load_truth(SHARED / "sensor" / "val")
    assert (len(truth), truth.n_frames) == (11364, 156)
    unit = SHARED / "detection_unit"
    one = dm.Protocol.from_dict({"extends": "argoverse2", "tasks": [{"label": "REGULAR_VEHICLE", "range_m": 150.0}]})
    labels = dm.io.load_truth(unit / "labels.feather")
    scores = dm.evaluate(labels, dm.io.load(unit / "detections.feather"), one)
    assert [round(value, 3) for value in scores.tp_errors.values()] == [0.017, 0.033, 0.524]
    scores = dm.evaluate(labels, dm.io.load(unit / "detections_assignment.feather"), one)
    assert round(scores.mean_ap, 3) == 0.999
    again = truth.replace(score=np.random.default_rng(0).uniform(0.1, 1, len(truth)))
    perfect = dm.evaluate(truth, again, dm.ARGOVERSE2, absent="omit")
    assert max(perfect.tp_errors.values()) < 1e-12
    assert perfect.composite == pytest.approx(1, abs=1e-12)
