"""Clouds of every format: what is written is read, real files lie under their boxes, damage is one clear error."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import detmetrics as dm
from detmetrics.geometry import Pose, points_in_boxes, rotation_matrices
from detmetrics.io import _pcd, clouds
from detmetrics.io.clouds import Cloud

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="real data lies in ../shared/data, which is not here")
AV2 = SHARED / "av2" / "sensor" / "val"
FRAME = SHARED / "nuscenes" / "frame_ca9a282c"


def table(n: int = 50, seed: int = 0) -> NDArray[np.float32]:
    """x, y, z, intensity from 0 to 255, ring."""
    rng = np.random.default_rng(seed)
    rings = rng.integers(0, 32, (n, 1))
    return np.hstack([rng.normal(0, 30, (n, 3)), rng.integers(0, 256, (n, 1)), rings]).astype(np.float32)


def counted(cloud: Cloud, boxes: dm.Boxes) -> NDArray[np.int64]:
    found, _ = points_in_boxes(cloud.points_m, boxes.center_m, boxes.size_lwh_m, boxes.rotation_wxyz)
    return np.bincount(found, minlength=len(boxes))


# ------------------------------------------------------------------------------------------- writers


def pack_lzf(plain: bytes) -> bytes:
    """A LibLZF packer, greedy by three bytes; slow and plain."""
    out, run, seen, at = bytearray(), bytearray(), dict[bytes, int](), 0

    def flush() -> None:
        for i in range(0, len(run), 32):
            piece = run[i : i + 32]
            out.extend((len(piece) - 1, *piece))
        run.clear()

    while at < len(plain):
        key = plain[at : at + 3]
        start = seen.get(key, -1)
        seen[key] = at
        if len(key) < 3 or start < 0 or at - start > 8192:
            run.append(plain[at])
            at += 1
            continue
        length = 3
        while length < 264 and at + length < len(plain) and plain[start + length] == plain[at + length]:
            length += 1
        flush()
        back, short = at - start - 1, length - 2
        out.extend((min(short, 7) << 5 | back >> 8, *([short - 7] if short >= 7 else []), back & 255))
        at += length
    flush()
    return bytes(out)


def pcd(
    points: NDArray[np.float32],
    how: str,
    *,
    header: str = "",
    fields: str = "x y z intensity ring",
    has_padding: bool = True,
) -> bytes:
    """x, y, z as float32, intensity as float32, ring as uint16, after a padding of three bytes that the header names."""
    row = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("_", "u1", 3), ("intensity", "<f4"), ("ring", "<u2")])
    rows = np.zeros(len(points), row)
    for i, name in enumerate(("x", "y", "z", "intensity", "ring")):
        rows[name] = points[:, i]
    head = (
        f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields.replace('z ', 'z _ ')}\nSIZE 4 4 4 1 4 2\nTYPE F F F U F U\nCOUNT 1 1 1 3 1 1\n"
        f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA {how}\n"
    )
    head = header or head
    if how == "ascii":
        lines = [f"{x!r} {y!r} {z!r} 0 0 0 {i!r} {int(r)}" for x, y, z, i, r in points.tolist()]
        return (head + "\n".join(lines) + "\n").encode()
    if how == "binary":
        return head.encode() + rows.tobytes()
    names = [name for name in row.names or () if has_padding or name != "_"]
    plain = b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in names)
    packed = pack_lzf(plain)
    return head.encode() + struct.pack("<II", len(packed), len(plain)) + packed


def ply(points: NDArray[np.float32], how: str) -> bytes:
    """A first element of another kind, vertices, and faces with lists behind them."""
    order = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}[how]
    head = (
        f"ply\nformat {how} 1.0\ncomment made by a test\nelement camera 2\nproperty float near\nproperty uchar kind\n"
        f"element vertex {len(points)}\nproperty float x\nproperty float32 y\nproperty double z\n"
        "property float scalar_Intensity\nproperty uchar laser_number\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    if how == "ascii":
        lines = [
            "0.1 1",
            "0.2 2",
            *(f"{x!r} {y!r} {z!r} {i!r} {int(r)}" for x, y, z, i, r in points.tolist()),
            "3 0 1 2",
        ]
        return (head + "\n".join(lines) + "\n").encode()
    row = np.dtype([("x", order + "f4"), ("y", order + "f4"), ("z", order + "f8"), ("i", order + "f4"), ("r", "u1")])
    rows = np.zeros(len(points), row)
    for i, name in enumerate(row.names or ()):
        rows[name] = points[:, i]
    return (
        head.encode()
        + struct.pack(order + "fBfB", 0.1, 1, 0.2, 2)
        + rows.tobytes()
        + struct.pack(order + "Biii", 3, 0, 1, 2)
    )


def save(path: Path, points: NDArray[np.float32]) -> Path:
    """Write points in the format that the name of the path says."""
    name = path.name
    if name.endswith(".pcd.bin"):
        path.write_bytes(points.tobytes())
    elif name.endswith(".bin"):
        path.write_bytes((points[:, :4] / np.float32([1, 1, 1, 255])).tobytes())
    elif name.endswith(".npz"):
        columns: dict[str, Any] = {
            "x": points[:, 0],
            "y": points[:, 1],
            "z": points[:, 2],
            "reflectivity": points[:, 3],
            "beam": points[:, 4],
        }
        np.savez(path, **columns)
    elif name.endswith(".npy"):
        np.save(path, points)
    elif name.endswith(".pcd"):
        path.write_bytes(pcd(points, name.split(".")[0]))
    else:
        path.write_bytes(ply(points, name.split(".")[0]))
    return path


NAMES = (
    *("a.pcd.bin", "a.bin", "a.npy", "a.npz"),
    *("ascii.pcd", "binary.pcd", "binary_compressed.pcd"),
    *("ascii.ply", "binary_little_endian.ply", "binary_big_endian.PLY"),
)


# ------------------------------------------------------------------------------------------- what is written is read


@pytest.mark.parametrize("name", NAMES)
def test_every_format_reads_what_was_written(tmp_path: Path, name: str) -> None:
    points = table()
    cloud = clouds.read(save(tmp_path / name, points))
    assert np.array_equal(cloud.points_m, points[:, :3])
    assert cloud.points_m.dtype == cloud.intensity.dtype == cloud.time_s.dtype == np.float32
    np.testing.assert_allclose(cloud.intensity, points[:, 3], rtol=1e-6)
    assert cloud.ring.tolist() == (points[:, 4].astype(int).tolist() if name != "a.bin" else [-1] * len(points))
    assert cloud.source.endswith(name)
    assert not cloud.columns


@pytest.mark.parametrize("how", ["ascii", "binary", "binary_compressed"])
def test_only_a_line_alone_is_padding(tmp_path: Path, how: str) -> None:
    """PCL pcd_io.cpp skips fields that are called "_", no others."""
    points = table()
    path = tmp_path / "a.pcd"
    for name in ("_time", "_3", "__"):
        path.write_bytes(pcd(points, how, fields=f"x y z {name} ring"))
        found = _pcd.read(path)
        assert list(found) == ["x", "y", "z", name, "ring"]
        np.testing.assert_array_equal(found[name].astype(np.float32), points[:, 3])


@pytest.mark.parametrize("has_padding", [True, False])
def test_compressed_points_may_lack_the_padding_that_their_header_names(tmp_path: Path, has_padding: bool) -> None:
    """PCL pcd_io.cpp passes over fields called "_" when it unpacks; others write them: the size tells."""
    points = table()
    path = tmp_path / "a.pcd"
    path.write_bytes(pcd(points, "binary_compressed", has_padding=has_padding))
    cloud = clouds.read(path)
    assert np.array_equal(cloud.points_m, points[:, :3])
    assert np.array_equal(cloud.intensity, points[:, 3])
    assert np.array_equal(cloud.ring, points[:, 4])


@given(st.integers(1, 400), st.integers(0, 10**6), st.sampled_from(NAMES))
@settings(max_examples=60, deadline=None)
def test_round_trips(tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, name: str) -> None:
    points = table(n, seed)
    cloud = clouds.read(save(tmp_path_factory.mktemp("clouds") / name, points), "kitti" if name == "a.bin" else None)
    assert np.array_equal(cloud.points_m, points[:, :3])
    np.testing.assert_allclose(cloud.intensity, points[:, 3], rtol=1e-6)


@given(st.binary(max_size=3000), st.integers(1, 64))
@settings(max_examples=300, deadline=None)
def test_lzf_undoes_a_packer(plain: bytes, repeated: int) -> None:
    whole = plain[:40] * repeated + plain
    assert _pcd.lzf_decompress(pack_lzf(whole), len(whole)) == whole


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=300, deadline=None)
def test_lzf_refuses_noise_or_gives_the_length(packed: bytes, n: int) -> None:
    with suppress(ValueError):
        assert len(_pcd.lzf_decompress(packed, n)) == n


@pytest.mark.parametrize("how", ["ascii", "binary", "compressed"])
def test_open3d_agrees_on_pcd(tmp_path: Path, how: str) -> None:
    """Another implementation wrote it: Open3D's, which packs with LibLZF itself."""
    o3d = pytest.importorskip(
        "open3d", reason="Open3D is not installed, or lacks a library of the system", exc_type=ImportError
    )
    points = table(2000)
    points[500:900] = points[500]  # something to pack
    cloud = o3d.t.geometry.PointCloud(points[:, :3].copy())
    cloud.point["intensity"] = points[:, 3:4].copy()
    path = tmp_path / "a.pcd"
    assert o3d.t.io.write_point_cloud(str(path), cloud, write_ascii=how == "ascii", compressed=how == "compressed")
    got = clouds.read(path)
    np.testing.assert_allclose(got.points_m, points[:, :3], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.intensity, points[:, 3], rtol=1e-5)


@pytest.mark.parametrize("ascii", [True, False])
def test_open3d_agrees_on_ply(tmp_path: Path, ascii: bool) -> None:
    o3d = pytest.importorskip(
        "open3d", reason="Open3D is not installed, or lacks a library of the system", exc_type=ImportError
    )
    points = table(2000)
    cloud = o3d.t.geometry.PointCloud(points[:, :3].copy())
    cloud.point["intensity"] = points[:, 3:4].copy()
    path = tmp_path / "a.ply"
    assert o3d.t.io.write_point_cloud(str(path), cloud, write_ascii=ascii)
    got = clouds.read(path)
    np.testing.assert_allclose(got.points_m, points[:, :3], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.intensity, points[:, 3], rtol=1e-5)


def test_a_plain_array_may_be_narrow_or_wide(tmp_path: Path) -> None:
    points = table()
    np.save(tmp_path / "three.npy", points[:, :3].astype(np.float64))
    narrow = clouds.read(tmp_path / "three.npy")
    assert np.isnan(narrow.intensity).all()
    assert (narrow.ring == -1).all()
    np.save(tmp_path / "six.npy", np.hstack([points, 7 + points[:, :1]]))
    assert np.array_equal(clouds.read(tmp_path / "six.npy").columns["column_5"], 7 + points[:, 0])
    np.savez(tmp_path / "named.npz", points=points[:, :3], intensity=points[:, 3], age=np.arange(50))
    named = clouds.read(tmp_path / "named.npz")
    assert np.array_equal(named.intensity, points[:, 3])
    assert np.array_equal(named.columns["age"], np.arange(50))
    structured = np.zeros(2, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("remission", "u1")])
    structured["remission"] = 9
    np.save(tmp_path / "structured.npy", structured)
    assert clouds.read(tmp_path / "structured.npy").intensity.tolist() == [9, 9]


def test_further_columns_are_kept_and_joined(tmp_path: Path) -> None:
    columns = np.arange(14, dtype=np.float32).reshape(2, 7)
    (tmp_path / "radar.bin").write_bytes(columns.tobytes())
    radar = clouds.read(tmp_path / "radar.bin", "vod-radar")
    assert radar.columns["v_r_compensated"].tolist() == [5, 12]
    assert radar.intensity.tolist() == [3, 10]
    moved = Pose(rotation_matrices([(1, 0, 0, 1)])[0], np.array([10.0, 0, 0]))
    other = clouds.read(tmp_path / "radar.bin", "vod-radar", pose=moved, timestamp_us=-500_000)
    both = clouds.join([radar, other])
    assert both.columns["scan"].tolist() == [6, 13, 6, 13]
    np.testing.assert_allclose(both.points_m[2], (10 - 1, 0, 2), atol=1e-5)
    assert both.time_s.tolist() == [0, 0, -0.5, -0.5]
    alone = clouds.join([radar, clouds.read(save(tmp_path / "a.npy", table(3)))])
    assert not alone.columns  # not all have them


@pytest.mark.parametrize(("width", "scale", "kind"), [(4, 1 / 255, "kitti"), (4, 1, "vod"), (5, 1, "nuscenes")])
def test_a_bin_is_what_its_numbers_can_be(tmp_path: Path, width: int, scale: float, kind: str) -> None:
    """60 points of 4 numbers are 48 of 5, too: the length alone would not tell."""
    points = table(60 if width == 4 else 48)[:, :width]
    points[:, 3] *= np.float32(scale)
    path = tmp_path / "000000.bin"
    path.write_bytes(points.tobytes())
    assert len(points.tobytes()) % 16 == len(points.tobytes()) % 20 == 0
    assert clouds._format_of(path) == kind
    cloud = clouds.read(path)
    assert np.array_equal(cloud.points_m, points[:, :3])
    np.testing.assert_allclose(cloud.intensity, points[:, 3] / (scale if kind == "kitti" else 1), rtol=1e-6)


# ------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("name", NAMES)
def test_nan_points_are_refused_or_left_out(tmp_path: Path, name: str) -> None:
    points = table()
    points[17, 1] = np.nan
    path = save(tmp_path / name, points)
    with pytest.raises(dm.InputError, match=r"point 17 must be finite numbers, got \[.*nan.*drop_nan"):
        clouds.read(path)
    cloud = clouds.read(path, drop_nan=True)
    assert np.array_equal(cloud.points_m, np.delete(points[:, :3], 17, axis=0))
    points[:, 2] = np.inf
    with pytest.raises(dm.InputError, match="no finite points"):
        clouds.read(save(path, points), drop_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_missing_empty_and_cut_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(dm.InputError, match="cannot read"):
        clouds.read(tmp_path / name)
    whole = save(tmp_path / name, table()).read_bytes()
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(dm.InputError, match=name):
        clouds.read(tmp_path / name)
    for cut in (1, 3, len(whole) // 2 + 1, len(whole) - 21):
        (tmp_path / name).write_bytes(whole[:cut])
        with pytest.raises(dm.InputError, match=name):
            clouds.read(tmp_path / name)


@given(st.sampled_from(NAMES), st.data())
@settings(max_examples=200, deadline=None)
def test_damage_is_one_error_or_a_cloud(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    path = save(tmp_path_factory.mktemp("damaged") / name, table(20))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(dm.InputError):
        assert len(clouds.read(path, drop_nan=True))


def test_wrong_widths(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(21))
    with pytest.raises(dm.InputError, match=r"4 \(kitti, vod\) or 5 \(nuscenes\) float32, got 21 bytes"):
        clouds.read(path)
    with pytest.raises(dm.InputError, match=r"7 float32 \(28 bytes\) a point, got 21 bytes"):
        clouds.read(path, "vod-radar")
    path.write_bytes(np.full((5, 4), 1e5, np.float32).tobytes())
    with pytest.raises(dm.InputError, match="is like no cloud of kitti, nuscenes, vod"):
        clouds.read(path)
    assert len(clouds.read(path, "vod")) == 5  # who says what it is is believed
    with pytest.raises(dm.InputError, match="format must be one of"):
        clouds.read(path, "las")  # type: ignore[arg-type]
    with pytest.raises(dm.InputError, match="format= one of"):
        clouds.read(tmp_path / "a.las")
    np.save(tmp_path / "two.npy", np.zeros((4, 2)))
    with pytest.raises(dm.InputError, match=r"of shape \(N, 3 or more\), got \(4, 2\)"):
        clouds.read(tmp_path / "two.npy")
    np.save(tmp_path / "words.npy", np.zeros((4, 4), "U3"))
    with pytest.raises(dm.InputError, match="numbers"):
        clouds.read(tmp_path / "words.npy")
    np.savez(tmp_path / "short.npz", x=np.zeros(3), y=np.zeros(3), z=np.zeros(2))
    with pytest.raises(dm.InputError, match="column 'z' must be of length 3"):
        clouds.read(tmp_path / "short.npz")
    np.savez(tmp_path / "flat.npz", x=np.zeros(3), y=np.zeros(3))
    with pytest.raises(dm.InputError, match="no columns x, y, z"):
        clouds.read(tmp_path / "flat.npz")
    np.save(tmp_path / "none.npy", np.zeros((0, 4)))
    with pytest.raises(dm.InputError, match="must be a cloud, got no points"):
        clouds.read(tmp_path / "none.npy")


def test_a_python_object_in_a_file_is_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(dm.InputError, match="cannot be read as arrays"):
        clouds.read(tmp_path / "bad.npy")


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("binary.pcd", "POINTS 50", "POINTS 50000000", "at least 1050000000 bytes"),
        ("binary.pcd", "POINTS 50", "POINTS -1", "POINTS and DATA"),
        ("binary.pcd", "TYPE F", "TYPE Q", "TYPE and SIZE of the field 'x' must be one of I1, .*, F8, got 'Q4'"),
        ("binary.pcd", "SIZE 4 4", "SIZE 4", "line SIZE of its header must be 6 values, one a field, got '4 4 1 4 2'"),
        ("binary.pcd", "SIZE 4 4", "SIZE 3 4", "must be one of I1, .*, F8, got 'F3'"),
        ("binary.pcd", "SIZE 4 4 4 1 4 2\n", "", "line SIZE of its header must be 6 values, one a field, got ''"),
        ("binary.pcd", "FIELDS x y z _ intensity ring", "FIELDS", "line FIELDS of its header must be names, got ''"),
        ("ascii.pcd", "FIELDS x y", "FIELDS x x", r"FIELDS must be distinct, got \['x', 'x', 'z'"),
        ("ascii.pcd", "COUNT 1", "COUNT 0", "COUNT of the field 'x' must be from 1 to 65536, got '0'"),
        ("binary.pcd", "COUNT 1", "COUNT 99999999999", "COUNT of the field 'x' must be from 1"),
        ("binary.pcd", "POINTS 50\n", "", "line POINTS of its header must be a count, got ''"),
        ("binary.pcd", "POINTS 50", "POINTS many", "POINTS and DATA"),
        ("binary.pcd", "POINTS 50", "POINTS " + 5000 * "9", "POINTS and DATA"),
        ("binary.pcd", "DATA binary", "DATA", "POINTS and DATA"),
        ("binary.pcd", "DATA binary", "DATA zipped", "POINTS and DATA"),
        ("binary.pcd", "DATA binary", "DATUM binary", "no line DATA"),
        ("ascii.pcd", "POINTS 50", "POINTS 51", "51 points of 8 numbers"),
        ("binary_compressed.pcd", "POINTS 50", "POINTS 51", "size of the points"),
        ("binary_little_endian.ply", "vertex 50", "vertex 50000000", "bytes of vertices"),
        ("binary_little_endian.ply", "vertex 50", "vertex -5", "format"),
        ("binary_little_endian.ply", "float32 y", "quaternion y", "line 9 of its header must be .*, got 'property quat"),
        ("binary_little_endian.ply", "uchar kind", "uchar near", r"element 'camera' must be distinct, got \['near', 'near'"),
        ("ascii.ply", "face 1", "vertex 1", "line 13 of its header must be .* each NAME once.*, got 'element vertex 1'"),
        ("binary_little_endian.ply", "float32 y", "list uchar int y", "without lists"),
        ("binary_little_endian.ply", "float32 y", "float32 x", "distinct"),
        ("binary_little_endian.ply", "element vertex", "element vortex", "no vertices"),
        ("binary_little_endian.ply", "binary_little_endian 1.0", "morse 1.0", "one of ascii"),
        ("binary_little_endian.ply", "ply\n", "lyp\n", "not a PLY file"),
        ("ascii.ply", "vertex 50", "vertex 53", "53 vertices of 5 numbers"),
    ],
)  # fmt: skip
def test_headers_that_lie(tmp_path: Path, name: str, old: str, new: str, says: str) -> None:
    path = save(tmp_path / name, table())
    assert old.encode() in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))
    with pytest.raises(dm.InputError, match=says) as told:
        clouds.read(path)
    assert str(path) in str(told.value)


# ------------------------------------------------------------------------------------------- Argoverse 2, made


def log(folder: Path, n_sweeps: int = 3) -> Path:
    """A log in which ego drives 1 m between two sweeps past one point of the city."""
    pa = pytest.importorskip("pyarrow")
    feather = pytest.importorskip("pyarrow.feather")
    (folder / "sensors" / "lidar").mkdir(parents=True)
    times = [10**18 + i * 100_000_000 for i in range(n_sweeps)]
    for i, time in enumerate(times):
        columns = {
            "x": np.array([20.0 - i], np.float16),
            "y": np.array([3.0], np.float16),
            "z": np.array([1.0], np.float16),
            "intensity": np.array([40 + i], np.uint8),
            "laser_number": np.array([7], np.uint8),
            "offset_ns": np.array([50_000_000], np.int32),
        }
        feather.write_feather(pa.table(columns), folder / "sensors" / "lidar" / f"{time}.feather")
    poses = {
        "timestamp_ns": times,
        "qw": [1.0] * n_sweeps,
        **{name: [0.0] * n_sweeps for name in ("qx", "qy", "qz", "ty_m", "tz_m")},
    }
    feather.write_feather(
        pa.table({**poses, "tx_m": [100.0 + i for i in range(n_sweeps)]}), folder / "city_SE3_egovehicle.feather"
    )
    return folder


def test_argoverse_sweeps_join_where_the_city_stands_still(tmp_path: Path) -> None:
    log(tmp_path / "one")
    log(tmp_path / "two")
    reader = clouds.Argoverse2Clouds(tmp_path)
    assert [name.partition(":")[0] for name in reader.samples] == ["one"] * 3 + ["two"] * 3
    cloud = reader.read(reader.samples[5], n_sweeps=9)
    assert len(cloud) == 3  # none of the other log
    np.testing.assert_allclose(cloud.points_m, [(18.0, 3, 1)] * 3)
    np.testing.assert_allclose(cloud.time_s, [0.05, -0.05, -0.15], atol=1e-6)
    assert cloud.intensity.tolist() == [42, 41, 40]
    assert cloud.ring.tolist() == [7] * 3
    np.testing.assert_allclose(cloud.pose.apply(cloud.points_m[:1]), [(120, 3, 1)])
    alone = clouds.read(reader._files[reader.samples[4]])
    np.testing.assert_allclose(alone.pose.translation_m, (101, 0, 0))
    assert alone.timestamp_us == (10**18 + 100_000_000) // 1000
    assert clouds.Argoverse2Clouds(tmp_path / "two").samples == reader.samples[3:]


def test_bad_argoverse_logs(tmp_path: Path) -> None:
    folder = log(tmp_path / "one")
    reader = clouds.Argoverse2Clouds(tmp_path)
    with pytest.raises(dm.InputError, match="no cloud of sample 'one:5'"):
        reader.read("one:5")
    with pytest.raises(dm.InputError, match="n_sweeps must be at least 1"):
        reader.read(reader.samples[0], n_sweeps=0)
    (folder / "city_SE3_egovehicle.feather").unlink()
    blind = clouds.Argoverse2Clouds(tmp_path)
    assert len(blind.read(blind.samples[2])) == 1
    with pytest.raises(dm.InputError, match="cannot be joined"):
        blind.read(blind.samples[2], n_sweeps=2)
    path = blind._files[blind.samples[0]]
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(dm.InputError, match="not a feather file"):
        clouds.read(path)
    with pytest.raises(dm.InputError, match="no sweeps"):
        clouds.Argoverse2Clouds(tmp_path / "one" / "sensors")


# ------------------------------------------------------------------------------------------- real clouds


@needs_data
@pytest.mark.parametrize("sweep", [0, 1])
def test_every_box_of_argoverse_has_its_annotated_points(sweep: int) -> None:
    pytest.importorskip("pyarrow")
    reader = clouds.Argoverse2Clouds(AV2)
    name = reader.samples[sweep]
    cloud, boxes = reader.read(name), dm.io.argoverse2.load_truth(AV2).take([name])
    assert len(cloud) == (99_229, 99_466)[sweep]
    assert len(boxes) == 81
    assert np.array_equal(counted(cloud, boxes), boxes.num_points)
    assert cloud.ring.max() == 63
    assert 0 <= cloud.time_s.min() <= cloud.time_s.max() < 0.12


@needs_data
def test_joined_argoverse_sweeps_lie_on_what_stands() -> None:
    """With poses, boxes of things that stand hold the points of both sweeps; without, walls would be double."""
    pytest.importorskip("pyarrow")
    reader = clouds.Argoverse2Clouds(AV2)
    name = reader.samples[1]
    boxes = dm.io.argoverse2.load_truth(AV2).take([name])
    one, two = (counted(reader.read(name, n_sweeps=n), boxes) for n in (1, 2))
    before = counted(reader.read(reader.samples[0]), dm.io.argoverse2.load_truth(AV2).take([reader.samples[0]])).sum()
    assert two.sum() > one.sum() + 0.9 * before


@needs_data
def test_the_nuscenes_frame_reads_by_name() -> None:
    path = next(FRAME.glob("*.pcd.bin"))
    cloud, known = clouds.read(path), clouds.read_nuscenes(path)
    assert len(cloud) == 34_688
    for name in ("points_m", "intensity", "ring"):
        assert np.array_equal(getattr(cloud, name), getattr(known, name))


@needs_data
def test_real_kitti_and_delft_clouds() -> None:
    kitti = clouds.read(SHARED / "kitti" / "training" / "velodyne" / "000000.bin")
    assert len(kitti) == 115_384
    assert 250 < kitti.intensity.max() < 255
    lidar = clouds.read(SHARED / "vod" / "lidar" / "training" / "velodyne" / "00549.bin")
    assert len(lidar) == 167_772
    assert lidar.intensity.max() == 255
    radar = clouds.read(SHARED / "vod" / "radar" / "training" / "velodyne" / "00549.bin", "vod-radar")
    assert len(radar) == 322
    assert radar.columns["v_r"].min() == np.float32(-3.8325481)
