"""Our Parquet form: lossless, and open to files that other programs write."""

from __future__ import annotations

import builtins
import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
import make
from detmetrics.errors import InputError
from detmetrics.io import parquet

pa = pytest.importorskip("pyarrow", reason="pyarrow is the extra [parquet]")
pq = pytest.importorskip("pyarrow.parquet")


def same(a: dm.Boxes, b: dm.Boxes) -> None:
    assert a.digest == b.digest
    for name in ("frames", "labels", "attributes", "partial", "is_complete", "meta"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("center_m", "yaw_rad", "place", "frame_place", "ego_xy_m", "num_points", "velocity_mps"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for kind in ("box_columns", "frame_columns"):
        mine, other = getattr(a, kind), getattr(b, kind)
        assert list(mine) == list(other)
        for name in mine:
            assert mine[name].tolist() == other[name].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_round_trip(tmp_path: Path, seed: int) -> None:
    truth, pred = make.scene(seed, empty=0.3, partial=seed % 2 == 1, racks=1, n_frames=6)
    n = len(truth)
    truth = truth.replace(
        box_columns={"instance": np.array([f"i{i}" for i in range(n)]), "occlusion": np.arange(n)},
        frame_columns={"weather": ["rain", "sun"] * 3, "timestamp_us": np.arange(6) * 500_000},
        meta={"made": "here"},
    )
    for boxes in (truth, pred):
        parquet.write(boxes, tmp_path / "boxes.parquet")
        same(parquet.read(tmp_path / "boxes.parquet"), boxes)


def test_nothing_at_all(tmp_path: Path) -> None:
    none = dm.Boxes(
        center_m=[], size_lwh_m=[], yaw_rad=[], label=[], labels=["car"], frame=[], frames=["a", "b"], score=[]
    )
    parquet.write(none, tmp_path / "none.parquet")
    same(parquet.read(tmp_path / "none.parquet"), none)


def plain(**changes: Any) -> dict[str, Any]:
    """Columns as another program would write them."""
    names = ("center_x_m", "center_y_m", "center_z_m", "length_m", "width_m", "height_m", "yaw_rad", "score")
    columns: dict[str, Any] = {"frame": ["b", "a", "b"], "label": ["car", "bus", "car"]}
    columns |= {name: [1.0, 2.0, 3.0] for name in names}
    columns |= changes
    return {name: column for name, column in columns.items() if column is not None}


def written(path: Path, **changes: Any) -> Path:
    pq.write_table(pa.table(plain(**changes)), path)
    return path


def test_files_of_other_programs(tmp_path: Path) -> None:
    boxes = parquet.read(written(tmp_path / "x.parquet", weather=["sun", "rain", "fog"], num_points=[1, None, 3]))
    assert boxes.frames == ("b", "a")
    assert not boxes.is_complete
    assert boxes.score is not None
    assert boxes.score.tolist() == [1, 3, 2]
    assert boxes.box_columns["weather"].tolist() == ["sun", "fog", "rain"]
    assert boxes.num_points is not None
    assert np.isnan(boxes.num_points[2])
    assert boxes.size_lwh_m[0].tolist() == [1, 1, 1]
    assert dm.io.load(tmp_path / "x.parquet").digest == boxes.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"yaw_rad": None, "label": None}, r"x.parquet lacks the columns 'label', 'yaw_rad'"),
        ({"center_x_m": ["a", "b", "c"]}, r"x.parquet: column center_x_m must be numbers, got 'string'"),
        ({"center_x_m": [1.0, None, 2.0]}, r"column center_x_m must be without missing values, got 1"),
        ({"label": ["car", None, "car"]}, r"column label must be without missing values"),
        ({"label": [1, 2, 3]}, r"column label must be text, got 'int64'"),
        ({"velocity_x_mps": [1.0, 2.0, 3.0]}, r"has 'velocity_x_mps' but lacks 'velocity_y_mps'"),
        (
            {"length_m": [1.0, 0.0, 1.0]},
            r"x.parquet.size_lwh_m\[1\] must be positive, got \[0.0, 2.0, 2.0\] in frame 'a'",
        ),
        ({"score": [0.5, -1.0, 0.5]}, r"score\[1\] must be zero or more"),
    ],
)
def test_bad_columns(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parquet.read(written(tmp_path / "x.parquet", **changes))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none.parquet: No such file"):
        parquet.read(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="must be a file, got a folder"):
        parquet.read(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"{}")
    with pytest.raises(InputError, match=r"x.parquet is not a Parquet file"):
        parquet.read(tmp_path / "x.parquet")
    whole = written(tmp_path / "y.parquet").read_bytes()
    (tmp_path / "y.parquet").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"cannot read .*y.parquet"):
        parquet.read(tmp_path / "y.parquet")
    table = pa.table(plain()).replace_schema_metadata({"detmetrics": '{"format": 99}'})
    pq.write_table(table, tmp_path / "z.parquet")
    with pytest.raises(InputError, match=r"z.parquet: format must be 1, got 99"):
        parquet.read(tmp_path / "z.parquet")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("frames", 5, r"Expected `array`, got `int` - at `\$.frames`"),
        ("frames", [["a"]], r"Expected `str`, got `array` - at `\$.frames\[0\]`"),
        ("labels", None, r"Expected `array`, got `null`"),
        ("attributes", [1], r"Expected `str`, got `int`"),
        ("meta", [1], r"Expected `object`, got `array` - at `\$.meta`"),
        ("frame_place", [10**30], "too large|too big|out of range"),
        ("frame_place", [float("inf")], "Expected `int`"),
        ("ego_xy_m", "x", "Expected `array`, got `str`"),
        ("partial", 1, "Expected `bool`"),
        ("frame_columns", {"a": {"dtype": "zz", "values": [1]}}, "data type 'zz' not understood"),
        ("frame_columns", {"a": {"dtype": "<i8", "values": [10**30]}}, "too large"),
        ("frame_columns", {"a": {"values": [1]}}, "missing required field `dtype`"),
    ],
)
def test_metadata_that_is_wrong(tmp_path: Path, name: str, value: Any, says: str) -> None:
    parquet.write(make.scene(0)[0], tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    told = json.loads(table.schema.metadata[b"detmetrics"])
    assert name in told
    text = json.dumps({**told, name: value})
    pq.write_table(table.replace_schema_metadata({"detmetrics": text}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=rf"x\.parquet: its detmetrics metadata cannot be read: .*({says})"):
        parquet.read(tmp_path / "x.parquet")


def test_bad_writes(tmp_path: Path) -> None:
    _, pred = make.scene(0)
    with pytest.raises(InputError, match=r"output must be in a folder that exists, got .*nowhere"):
        parquet.write(pred, tmp_path / "nowhere" / "x.parquet")
    with pytest.raises(InputError, match="have the names of columns of the file"):
        parquet.write(pred.replace(box_columns={"score": np.zeros(len(pred))}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="codes without labels="):
        parquet.write(pred.replace(labels=None), tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "x.parquet")
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(name, name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"pip install 'detmetrics\[parquet\]'"):
        parquet.read(path)


def test_columns_of_any_shape_and_type_come_back(tmp_path: Path) -> None:
    truth, _ = make.scene(0, n_frames=3)
    n = len(truth)
    truth = truth.replace(
        box_columns={"part": np.arange(2.0 * n).reshape(n, 2), "level": np.arange(n, dtype=np.int8)},
        frame_columns={"wet": np.array([1.0, np.nan, np.inf], np.float32), "no": np.arange(3, dtype=np.int16)},
    )
    parquet.write(truth, tmp_path / "x.parquet")
    again = parquet.read(tmp_path / "x.parquet")
    for kind in ("box_columns", "frame_columns"):
        for name, values in getattr(truth, kind).items():
            assert getattr(again, kind)[name].dtype == values.dtype
            np.testing.assert_array_equal(getattr(again, kind)[name], values)


def test_times_of_frames_come_back(tmp_path: Path) -> None:
    truth, _ = make.scene(0, n_frames=3)
    times = np.array(["2020-01-01T12:00:00.123456789", "NaT", "1960-02-29"], "datetime64[ns]")
    truth = truth.replace(frame_columns={"at": times, "since": times - times[0]})
    parquet.write(truth, tmp_path / "x.parquet")
    again = parquet.read(tmp_path / "x.parquet").frame_columns
    for name, values in truth.frame_columns.items():
        assert again[name].dtype == values.dtype
        np.testing.assert_array_equal(again[name], values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box_columns": {"a": 1j}}, r"box column 'a' must be of a type that Parquet has.*got 'complex128 \("),
        (
            {"box_columns": {"a": np.zeros(0)}},
            r"box column 'a' must be .* a value or more a row, got 'float64 \(\d+, 0\)'",
        ),
        (
            {"frame_columns": {"a": 1j}},
            "meta and frame columns of pred must be plain JSON values to be saved, got Obj",
        ),
        ({"meta": {"a": {1}}}, "meta and frame columns of pred must be plain JSON values to be saved, got Object of"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    _, pred = make.scene(0)
    for kind, n in (("box_columns", len(pred)), ("frame_columns", pred.n_frames)):
        if kind in change:
            change = {kind: {name: np.array([value] * n) for name, value in change[kind].items()}}
    with pytest.raises(InputError, match=message):
        parquet.write(pred.replace(**change, source="pred"), tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())


def test_missing_text_is_empty_text(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet", note=["x", None, "y"], attribute=["p", None, "p"])
    boxes = parquet.read(path)
    assert boxes.box_columns["note"].tolist() == ["x", "y", ""]
    assert boxes.attribute is not None
    assert [boxes.attributes[code] for code in boxes.attribute] == ["p", "p", ""]


@pytest.mark.parametrize("column", [[[1], [2, 3], None], [{"a": 1}, {"a": 2}, None], [True, None, False]])
def test_columns_that_no_array_can_hold(tmp_path: Path, column: list[Any]) -> None:
    with pytest.raises(InputError, match=r"x.parquet: column note must be numbers, truth values, text or times"):
        parquet.read(written(tmp_path / "x.parquet", note=column))


def test_a_damaged_file_is_an_input_error(tmp_path: Path) -> None:
    whole = written(tmp_path / "x.parquet").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(whole)
        for at in random.integers(4, len(whole), 3):
            broken[at] = random.integers(256)
        (tmp_path / "x.parquet").write_bytes(broken)
        with contextlib.suppress(InputError):
            parquet.read(tmp_path / "x.parquet")


def test_codes_that_point_nowhere_are_refused(tmp_path: Path) -> None:
    """Reading does not look at them; found by noise on uploads to the server."""
    path = tmp_path / "a.parquet"
    parquet.write(make.scene(0)[1], path)
    pq.write_table(pq.read_table(path), path, compression="none")
    whole = path.read_bytes()
    group = pq.read_metadata(path).row_group(0)
    column = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "label")
    refused = 0
    for at in range(
        column.dictionary_page_offset, column.data_page_offset
    ):  # somewhere stands how many names there are
        path.write_bytes(whole[:at] + b"\x02" + whole[at + 1 :])
        try:
            parquet.read(path)
        except InputError:
            refused += 1
    assert refused
