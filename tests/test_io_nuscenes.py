"""nuScenes results and tables: what is read, piece by piece or whole, and what is refused with which words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import detmetrics as dm
from detmetrics.errors import InputError
from detmetrics.io import _cache, _results, _results_worker, _splits, _tables, nuscenes

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="real data lies in ../shared/data, which is not here")


def box(token: str = "s0", **changes: Any) -> dict[str, Any]:
    """A valid detection."""
    return {
        "sample_token": token,
        "translation": [1.0, 2.0, 3.0],
        "size": [2.0, 4.0, 1.5],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.5, -0.5],
        "detection_name": "car",
        "detection_score": 0.5,
        "attribute_name": "vehicle.moving",
    } | changes


def written(tmp_path: Path, content: Any, **options: Any) -> Path:
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content, **options), encoding="utf-8")
    return path


def with_boxes(*boxes: dict[str, Any]) -> dict[str, Any]:
    return {"meta": {"use_lidar": True}, "results": {"s0": list(boxes), "s1": []}}


# results: what is read


def test_a_box_is_converted(tmp_path: Path) -> None:
    half = np.sqrt(0.5)
    boxes = nuscenes.load_results(written(tmp_path, with_boxes(box(rotation=[half, 0, 0, half]), box(num_pts=7))))
    assert boxes.frames == ("s0", "s1")
    assert boxes.size_lwh_m[0].tolist() == [4.0, 2.0, 1.5]
    assert boxes.yaw_rad.tolist() == pytest.approx([np.pi / 2, 0])
    assert boxes.num_points is not None
    assert np.isnan(boxes.num_points[0])
    assert boxes.num_points[1] == 7
    assert boxes.meta == {"use_lidar": True}
    assert boxes.is_complete
    assert boxes.source.endswith("results.json")


@pytest.mark.parametrize("velocity", ["[NaN, NaN]", "[null, null]", "null", "[NaN, 1.0]"])
def test_unknown_velocities(tmp_path: Path, velocity: str) -> None:
    text = json.dumps(with_boxes(box(), box(velocity="V"))).replace('"V"', velocity)
    boxes = nuscenes.load_results(written(tmp_path, text))
    assert boxes.velocity_mps is not None
    assert np.isnan(boxes.velocity_mps[1]).any()
    assert boxes.velocity_mps[0].tolist() == [0.5, -0.5]


@pytest.mark.parametrize("name", ["NaN", "a NaN, b", '"NaN"', "[NaN]", "\\NaN\\", 'x"}], "y', '}],\n"', "ü NaN"])
def test_the_inside_of_strings_is_untouched(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"meta": {name: name}, "results": {f"s{i}": [box(f"s{i}", attribute_name=name)] * 3 for i in range(9)}}
    content["results"]["s4"][1] = box("s4", velocity=[np.nan, 0.0], attribute_name=name)
    path = written(tmp_path, content, ensure_ascii=False)
    for size in (1, 64, 500, 1 << 20):
        monkeypatch.setattr(_results, "PIECE", size)
        boxes = nuscenes.load_results(path)
        assert boxes.attributes == (name,)
        assert boxes.meta == {name: name}
        assert len(boxes) == 27
        assert boxes.velocity_mps is not None
        assert np.isnan(boxes.velocity_mps).sum() == 1


@pytest.mark.parametrize("indent", [None, 0, 3])
@pytest.mark.parametrize("meta_first", [True, False])
@pytest.mark.parametrize("size", [1, 300, 1 << 20])
def test_every_layout_and_size_of_piece(
    tmp_path: Path, indent: int | None, meta_first: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    results = {
        f"s{i}": [box(f"s{i}", translation=rng.normal(size=3).tolist()) for _ in range(int(rng.integers(0, 4)))]
        for i in range(20)
    }
    parts = [("meta", {"a": [{"results": {}}]}), ("results", results), ("more", [[{}], "x"])]
    path = written(tmp_path, dict(parts if meta_first else parts[::-1]), indent=indent)
    monkeypatch.setattr(_results, "PIECE", size)
    boxes = nuscenes.load_results(path)
    assert boxes.frames == tuple(results)
    assert boxes.center_m.tolist() == [one["translation"] for entries in results.values() for one in entries]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_two_processes_read_what_one_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbuffered: str) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    rng = np.random.default_rng(1)
    results = {
        f"s{i}": [
            box(
                f"s{i}", translation=rng.normal(size=3).tolist(), detection_name=f"class{i % 7}", velocity=[np.nan, 1.0]
            )
            for _ in range(5)
        ]
        for i in range(50)
    }
    path = written(tmp_path, {"results": results, "meta": {"x": 1}})
    one = nuscenes.load_results(path, workers=1)
    monkeypatch.setattr(nuscenes, "LARGE", 100)
    finished = []
    finish = nuscenes._results_worker.finish
    monkeypatch.setattr(
        nuscenes._results_worker, "finish", lambda worker: finished.append(finish(worker)) or finished[-1]
    )
    two = nuscenes.load_results(path, workers=2)
    (columns,) = finished
    assert columns is not None  # it was not read again by one
    assert 0 < len(columns.tokens) < 50
    assert two.digest == one.digest
    assert (two.frames, two.meta) == (one.frames, one.meta)
    monkeypatch.setattr(nuscenes._results_worker, "start", lambda *a: None)  # no process to be had
    assert nuscenes.load_results(path, workers=2).digest == one.digest
    monkeypatch.setattr(
        nuscenes._results_worker,
        "start",
        lambda *a: subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], stdout=subprocess.PIPE),
    )
    assert nuscenes.load_results(path, workers=2).digest == one.digest


def test_a_system_that_refuses_wide_pipes_still_gives_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, {"meta": {}, "results": {f"s{i}": [box(f"s{i}")] * 300 for i in range(200)}})
    one = nuscenes.load_results(path, workers=1)
    monkeypatch.setattr(nuscenes, "LARGE", 100)
    start = subprocess.Popen
    sizes, finished = [], []

    def narrow(*args: Any, pipesize: int, **options: Any) -> Any:
        sizes.append(pipesize)
        if pipesize > 0:
            raise PermissionError
        return start(*args, pipesize=pipesize, **options)

    monkeypatch.setattr(subprocess, "Popen", narrow)
    finish = _results_worker.finish
    monkeypatch.setattr(_results_worker, "finish", lambda worker: finished.append(finish(worker)) or finished[-1])
    two = nuscenes.load_results(path, workers=2)  # many times what a pipe holds
    assert finished[0] is not None  # it was not read again by one
    assert sizes == [1 << 20, -1]
    assert two.digest == one.digest


numbers = st.floats(-1e6, 1e6)
boxes_of_a_sample = st.lists(
    st.fixed_dictionaries(
        {
            "translation": st.lists(numbers, min_size=3, max_size=3),
            "size": st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3),
            "velocity": st.lists(numbers | st.just(float("nan")), min_size=2, max_size=2),
            "detection_name": st.text(max_size=5),
            "attribute_name": st.text(alphabet='"\\NaN}],{: ', max_size=12),
            "detection_score": st.floats(0, 2) | st.integers(0, 1),
        }
    ),
    max_size=3,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    samples=st.dictionaries(st.text(max_size=6), boxes_of_a_sample, min_size=1, max_size=6), size=st.integers(1, 2000)
)
def test_any_file_is_read_as_json_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: dict[str, list[dict[str, Any]]], size: int
) -> None:
    content = {"meta": {}, "results": {t: [box(t, **one) for one in entries] for t, entries in samples.items()}}
    path = written(tmp_path, content)
    monkeypatch.setattr(_results, "PIECE", size)
    boxes = nuscenes.load_results(path)
    expected = [one for entries in json.loads(path.read_text())["results"].values() for one in entries]
    assert boxes.frames == tuple(samples)
    assert boxes.center_m.tolist() == [one["translation"] for one in expected]
    assert boxes.velocity_mps is not None
    np.testing.assert_array_equal(boxes.velocity_mps, np.reshape([one["velocity"] for one in expected], (-1, 2)))
    assert [(boxes.labels or ())[code] for code in boxes.label] == [one["detection_name"] for one in expected]
    assert boxes.attribute is not None
    assert [boxes.attributes[code] for code in boxes.attribute] == [one["attribute_name"] for one in expected]


@pytest.mark.parametrize("sizes", [(1, 1), (0, 1), (1, 0), (1500, 1), (1, 1500), (1500, 1500), (None, 2)])
@pytest.mark.parametrize("meta_first", [True, False])
def test_two_keys_results_are_refused(sizes: tuple[int | None, int], meta_first: bool, tmp_path: Path) -> None:
    """A decoder would take the last one in silence; larger than one piece or not."""
    parts = [
        "null" if n is None else json.dumps({f"{side}{i}": [box(f"{side}{i}")] for i in range(n)})
        for side, n in zip("ab", sizes, strict=True)
    ]
    pairs = ['"meta": {"results": 1}', *(f'"results": {part}' for part in parts)]
    path = written(tmp_path, "{" + ", ".join(pairs if meta_first else pairs[::-1]) + "}")
    assert sizes != (1500, 1500) or path.stat().st_size > 2 * _results.PIECE
    expected = r"results must be given once, got two keys" if sizes[0] is not None else "results must be"
    with pytest.raises(InputError, match=expected):
        nuscenes.load_results(path)


def test_a_sample_and_meta_may_be_called_results(tmp_path: Path) -> None:
    content = {"meta": {"results": {"results": "x"}}, "results": {"results": [box("results")], "s1": []}}
    boxes = nuscenes.load_results(written(tmp_path, content))
    assert boxes.frames == ("results", "s1")
    turned = dict(reversed(content.items()))
    assert nuscenes.load_results(written(tmp_path, turned)).digest == boxes.digest


def test_results_written_are_read_again(tmp_path: Path) -> None:
    first = nuscenes.load_results(written(tmp_path, with_boxes(box(velocity=[np.nan, 0.0]), box(attribute_name=""))))
    nuscenes.write_results(first, tmp_path / "again.json")
    again = nuscenes.load_results(tmp_path / "again.json")
    assert again.digest == first.digest
    assert again.meta == first.meta
    with pytest.raises(InputError, match="have no scores"):
        nuscenes.write_results(first.replace(score=None), tmp_path / "none.json")
    circle: dict[str, Any] = {}
    circle["again"] = circle
    for meta in ({"a": np.int64(1)}, circle):
        with pytest.raises(InputError, match="meta of pred must be plain JSON values to be saved, got"):
            nuscenes.write_results(first.replace(meta=meta, source="pred"), tmp_path / "none.json")
    for keyed in ({1: "a"}, {"a": [{"b": {None: 1}}]}):  # JSON would make text of the keys
        with pytest.raises(InputError, match="key of meta of pred must be text"):
            nuscenes.write_results(first.replace(meta=keyed, source="pred"), tmp_path / "none.json")  # type: ignore[arg-type]
    assert not (tmp_path / "none.json").exists()


def test_memory_stays_near_the_columns(tmp_path: Path) -> None:
    """Peak of a fresh process: at most the file and twice the columns more than a tiny file takes."""
    one = json.dumps([box("TOKEN")] * 400)
    text = ", ".join(f'"s{i}": {one.replace("TOKEN", f"s{i}")}' for i in range(300))
    big = written(tmp_path, f'{{"meta": {{}}, "results": {{{text}}}}}')
    small = tmp_path / "small.json"
    small.write_text(json.dumps(with_boxes(box())))
    code = (
        "import sys, resource; from detmetrics.io import nuscenes; nuscenes.load_results(sys.argv[1], workers=1); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )

    def peak(path: Path) -> int:
        return int(
            subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
        )

    columns = 120_000 * (14 * 8 + 8 + 3 * 4)
    assert peak(big) - peak(small) < big.stat().st_size + 2 * columns


# results: what is refused


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([box(), box("s1")], r"results.json: sample_token of box 1 of sample 's0' must be that of its sample, got 's1'"),
        ([box(translation=[1, 2])], r"translation of box 0 of sample 's0' must be 3 numbers, got \[1, 2\]"),
        ([box(translation=[1, 2, "x"])], r"translation of box 0 .* must be 3 finite numbers, got \[1, 2, 'x'\]"),
        ([box(), box(translation=[1, np.nan, 3])], r"translation of box 1 .* must be 3 finite numbers, got \[1, nan, 3\]"),
        ([box(size=[np.inf, 1, 1])], r"size of box 0 of sample 's0' must be 3 finite numbers, got \[inf, 1, 1\]"),
        ([box(velocity=[np.inf, 1])], r"velocity of box 0 .* must be 2 finite numbers or NaN, got \[inf, 1\]"),
        ([box(detection_score=np.nan)], r"detection_score of box 0 .* must be a finite number, got nan"),
        ([box(detection_score=-0.1)], r"score of box 0 .* must be zero or more .*, got -0.1"),
        ([{k: v for k, v in box().items() if k != "detection_score"}], r"must be zero or more \(-1 where detection_score is missing\), got -1.0"),
        ([{k: v for k, v in box().items() if k != "velocity"}], r"velocity of box 0 of sample 's0' must be given, got nothing"),
        ([box(), box(size=[1, 0, 1])], r"size of box 1 of sample 's0' must be positive, got \[1.0, 0.0, 1.0\]"),
        ([box(rotation=[0, 0, 0, 0])], r"rotation of box 0 .* must be a quaternion of positive length"),
        ([box(rotation=[1, 0, 0])], r"rotation of box 0 .* must be 4 numbers, got \[1, 0, 0\]"),
        ([box(detection_name=3)], r"detection_name of box 0 .* must be a string, got 3"),
        ([box(sample_token=None)], r"sample_token of box 0 .* must be a string, got null"),
        (["car"], r"the content of box 0 of sample 's0' must be an object, got 'car'"),
    ],
)  # fmt: skip
def test_bad_boxes(tmp_path: Path, boxes: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        nuscenes.load_results(written(tmp_path, with_boxes(*boxes)))


GOOD = json.dumps(with_boxes(box(), box()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"results.json is empty"),
        ("[]", r"results.json must be an object with meta and results, got \[\]"),
        ("{}", r"has no results"),
        ('{"results": {}}', r"has no meta"),
        ('{"meta": {}, "results": []}', r"results must be an object"),
        ('{"meta": {}, "results": {"a": 3}}', r"boxes of sample 'a' must be a list, got 3"),
        ('{"meta": {}, "results": {"a": [], "b": [], "a": []}}', r"has 1 samples more than once: 'a'"),
        ('{"meta": 3, "results": {"a": []}}', r"meta must be an object, got 3"),
        (GOOD[:200], r"ends too early: .* at byte \d+"),
        (GOOD[:-1], rf"ends too early: .* at byte {len(GOOD) - 1}"),
        (GOOD.replace("[1.0, 2.0", "[1.0; 2.0", 1), rf"is not valid JSON: .* at byte {GOOD.index('[1.0, 2.0') + 4}"),
        (GOOD + "x", rf"is not valid JSON: .* at byte {len(GOOD)}"),
        (GOOD.replace("[1.0,", "[1e999,", 1), r"translation of box 0 .* must be 3 finite numbers, got \[inf"),
        ('{"meta": {}, "results": {"a": ' + "[" * 100_000, r"nested too deeply|ends too early"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        nuscenes.load_results(written(tmp_path, text))


def test_the_byte_counts_from_the_start_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_results, "PIECE", 700)
    text = json.dumps({"meta": {}, "results": {f"s{i}": [box(f"s{i}", velocity=[np.nan, 1.0])] for i in range(30)}})
    at = text.index('"s25"')
    with pytest.raises(InputError, match=rf"is not valid JSON: .* at byte {at}"):
        nuscenes.load_results(written(tmp_path, text[:at] + "?" + text[at:]))


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be a file, got a folder"):
        nuscenes.load_results(tmp_path)
    with pytest.raises(InputError, match=r"cannot read .*none.json: No such file"):
        nuscenes.load_results(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b'{"meta": {}, "results": {"\xff": []}}')
    with pytest.raises(InputError, match=r"not UTF-8 at byte 26"):
        nuscenes.load_results(tmp_path / "bytes.json")


PARTS = {"parts": [{"a": 1}], "n": 2}


@pytest.mark.parametrize("size", [1, 200, 500, 900])
@pytest.mark.parametrize("extra", [PARTS, {"more": [], "parts": [{"a": 1}], "also": [{"b": []}], "size": 0}])
def test_lists_of_objects_inside_a_box_mislead_no_cut(
    tmp_path: Path, size: int, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_results, "PIECE", size)
    results = {f"s{i}": [extra | box(f"s{i}")] * 2 for i in range(20)}  # before what a box needs
    assert len(nuscenes.load_results(written(tmp_path, {"meta": {}, "results": results}))) == 40


@pytest.mark.parametrize("text", [b"?", b'Infinity, 1, 1], "x": "'])
def test_a_wrong_file_is_refused_at_the_piece_where_it_is_wrong(
    tmp_path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_results, "PIECE", 2000)
    content = json.dumps({"meta": {}, "results": {f"s{i}": [box(f"s{i}")] for i in range(300)}}).encode()
    at = content.index(b'"size": [', 5000) + 9
    path = tmp_path / "results.json"
    path.write_bytes(content[:at] + text + content[at:])
    seen: list[int] = []
    judge = _results.diagnosis

    def diagnosis(name: str, piece: bytes, *rest: Any) -> InputError:
        seen.append(len(piece))
        return judge(name, piece, *rest)

    monkeypatch.setattr(_results, "diagnosis", diagnosis)
    with pytest.raises(InputError):
        nuscenes.load_results(path)
    assert seen
    assert max(seen) <= 4000  # not the whole rest of the file


@pytest.mark.parametrize("order", ["meta first", "results first"])
def test_nan_in_meta_is_taken_as_officially(tmp_path: Path, order: str) -> None:
    parts = ['"meta": {"loss": NaN}', '"results": {"s0": []}']
    text = "{" + ", ".join(parts if order == "meta first" else parts[::-1]) + "}"
    assert nuscenes.load_results(written(tmp_path, text)).meta == {"loss": None}


def test_names_in_messages_are_those_of_the_file(tmp_path: Path) -> None:
    text = json.dumps({"meta": {}, "results": {"sä": [box("sä", size=[1, 1])]}}, ensure_ascii=False)
    with pytest.raises(InputError, match="box 0 of sample 'sä' must be 3 numbers"):
        nuscenes.load_results(written(tmp_path, text))


@pytest.mark.parametrize("value", ["1" + "0" * 5000, "[" * 5000 + "]" * 5000])
def test_values_beyond_measure(tmp_path: Path, value: str) -> None:
    with pytest.raises(InputError):
        nuscenes.load_results(written(tmp_path, json.dumps(with_boxes(box(size="V"))).replace('"V"', value)))
    with pytest.raises(InputError):
        nuscenes.load_results(
            written(tmp_path, json.dumps(with_boxes(box(extra="V"), box(size=3))).replace('"V"', value))
        )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match="must be a file on disk"):
        dm.io.load(tmp_path / "pipe.json")


def test_the_second_process_takes_nothing_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nraise ImportError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    path = written(tmp_path, {"results": {f"s{i}": [box(f"s{i}")] for i in range(9)}, "meta": {}})
    start, _ = _results.find_body(path.open("rb"), str(path))
    worker = _results_worker.start(str(path), start, None)
    assert worker is not None
    columns = _results_worker.finish(worker)
    assert columns is not None  # it has found detmetrics, wherever that lies
    assert len(columns.tokens) == 9
    assert not (tmp_path / "run").exists()


# tables


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two scenes of three samples, a track of three annotations in the first."""
    tables: dict[str, list[dict[str, Any]]] = {
        "category": [{"token": "c0", "name": "vehicle.car"}],
        "attribute": [{"token": "a0", "name": "vehicle.moving"}],
        "instance": [{"token": "i0", "category_token": "c0"}],
        "sensor": [{"token": "lidar", "channel": "LIDAR_TOP"}, {"token": "cam", "channel": "CAM_FRONT"}],
        "calibrated_sensor": [{"token": "k0", "sensor_token": "lidar"}, {"token": "k1", "sensor_token": "cam"}],
        "scene": [{"token": f"n{i}", "name": f"one-{i}", "log_token": "l0", "description": "Night"} for i in range(2)],
        "log": [{"token": "l0", "location": "here"}],
        "sample": [],
        "sample_data": [],
        "ego_pose": [],
        "sample_annotation": [],
    }
    for scene in range(2):
        for i in range(3):
            token = f"s{scene}{i}"
            tables["sample"].append({"token": token, "timestamp": i * 500_000, "scene_token": f"n{scene}"})
            for k in range(2):
                tables["sample_data"].append(
                    {
                        "sample_token": token,
                        "ego_pose_token": f"e{scene}{i}{k}",
                        "calibrated_sensor_token": f"k{k}",
                        "is_key_frame": True,
                    }
                )
                tables["ego_pose"].append({"token": f"e{scene}{i}{k}", "translation": [10.0 * i, 1.0 + k, 0.0]})
    for i in range(3):
        tables["sample_annotation"].append(
            {
                "token": f"x{i}",
                "sample_token": f"s0{i}",
                "instance_token": "i0",
                "visibility_token": "4",
                "attribute_tokens": ["a0"] if i else [],
                "translation": [2.0 * i, 0.0, 0.0],
                "size": [2.0, 4.0, 1.5],
                "rotation": [1.0, 0.0, 0.0, 0.0],
                "prev": f"x{i - 1}" if i else "",
                "next": f"x{i + 1}" if i < 2 else "",
                "num_lidar_pts": i,
                "num_radar_pts": 1,
            }
        )
    folder = tmp_path / "data" / "v1.0-mine"
    folder.mkdir(parents=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))
    (folder / "splits.json").write_text(json.dumps({"first_val": ["one-0"], "both": ["one-0", "one-1"]}))
    return folder.parent


def change(root: Path, table: str, edit: Any) -> None:
    path = root / "v1.0-mine" / f"{table}.json"
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows, indent=0))


def load(root: Path, **options: Any) -> dm.Boxes:
    return nuscenes.load_truth(root, **{"cache": False, "split": "both"} | options)


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_tables_are_read(root: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tables, "PIECE", size)
    truth = load(root)
    assert truth.frames == ("s00", "s01", "s02", "s10", "s11", "s12")
    assert truth.partial
    assert truth.labels == ("vehicle.car",)
    assert truth.size_lwh_m[0].tolist() == [4, 2, 1.5]
    assert truth.ego_xy_m.tolist() == [[0, 1], [10, 1], [20, 1]] * 2
    assert truth.velocity_mps is not None
    np.testing.assert_allclose(truth.velocity_mps, [[4, 0]] * 3)
    assert truth.num_points is not None
    assert truth.num_points.tolist() == [1, 2, 3]
    assert truth.attribute is not None
    assert [truth.attributes[code] for code in truth.attribute] == ["", "vehicle.moving", "vehicle.moving"]
    assert truth.frame_columns["scene"].tolist() == ["one-0"] * 3 + ["one-1"] * 3
    assert truth.frame_columns["location"].tolist() == ["here"] * 6
    assert truth.frame_columns["description"].tolist() == ["Night"] * 6


def test_two_processes_read_the_tables_alike(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = load(root)
    monkeypatch.setattr(_tables, "LARGE", 1)
    asked = []
    monkeypatch.setattr(_tables, "ego_positions", lambda *a: asked.append(a))  # the second process has its own
    assert load(root).digest == one.digest
    assert not asked


def test_parts_of_the_data(root: Path) -> None:
    assert load(root, split=None).n_frames == 3  # the only split that ends in "val"
    assert load(root, split=None, scenes=["one-1"]).n_frames == 3
    with pytest.raises(InputError, match="not both"):
        load(root, scenes=["one-1"])
    with pytest.raises(InputError, match=r"has no scenes 'two-2'"):
        load(root, split=None, scenes=["one-1", "two-2"])
    with pytest.raises(InputError, match=r"has no split 'neither': choose of 'first_val', 'both'"):
        load(root, split="neither")
    with pytest.raises(
        InputError, match=r"version for split 'val' must be one that ends in 'trainval', got 'v1.0-mine'"
    ):
        load(root, split="val")
    with pytest.raises(InputError, match=r"has no version 'v9': it has 'v1.0-mine'"):
        load(root, version="v9")
    with pytest.raises(InputError, match="must be a folder, got nothing"):
        load(root / "nowhere")
    (root / "v1.0-other").mkdir()
    with pytest.raises(InputError, match=r"more than one v1.* choose a version of 'v1.0-mine', 'v1.0-other'"):
        load(root)
    with pytest.raises(InputError, match=r"no v1\.\*-\* folder: is it the folder above the tables"):
        load(root / "v1.0-mine")


@pytest.mark.parametrize(
    ("seconds", "expected"), [((0, 1.5, 3.0), (4 / 3, 4 / 3, 4 / 3)), ((0, 1.6, 3.1), (np.nan, np.nan, 2 / 1.5))]
)
def test_gaps_make_velocities_unknown(root: Path, seconds: tuple[float, ...], expected: tuple[float, ...]) -> None:
    def edit(rows: list[dict[str, Any]]) -> None:
        for row, second in zip(rows, seconds, strict=False):
            row["timestamp"] = int(second * 1e6)

    change(root, "sample", edit)
    velocity = load(root).velocity_mps
    assert velocity is not None
    np.testing.assert_allclose(velocity[:, 0], expected)


def test_a_track_of_one_has_no_velocity(root: Path) -> None:
    change(root, "sample_annotation", lambda rows: rows.__delitem__(slice(1, 3)) or rows[0].update(next=""))
    velocity = load(root).velocity_mps
    assert velocity is not None
    assert np.isnan(velocity).all()


@pytest.mark.parametrize(
    ("table", "edit", "message"),
    [
        ("sample_annotation", lambda rows: rows[1].pop("size"), r"sample_annotation.json: .*missing required field `size`"),
        ("sample_annotation", lambda rows: rows[1].update(instance_token="zz"), r"annotation 'x1' refers to 'zz'"),
        ("sample_annotation", lambda rows: rows[1].update(attribute_tokens=["a0", "a0"]), r"attributes of annotation 'x1' must be at most one, got 2"),
        ("sample_annotation", lambda rows: rows[1].update(prev="gone"), r"lacks the neighbours 'gone'"),
        ("sample_annotation", lambda rows: rows[1].update(size=[1, -1, 1]), r"sample_annotation.json: size of annotation 'x1' must be positive"),
        ("sample_annotation", lambda rows: rows[1].update(rotation=[0, 0, 0, 0]), r"rotation of annotation 'x1'"),
        ("sample_data", lambda rows: rows[0].update(is_key_frame=False), r"no key frame of LIDAR_TOP for samples 's00'"),
        ("ego_pose", lambda rows: rows.pop(0), r"ego_pose.json lacks the ego poses 'e000'"),
        ("sensor", lambda rows: rows.pop(0), r"has no channel 'LIDAR_TOP'"),
    ],
)  # fmt: skip
def test_broken_tables(root: Path, table: str, edit: Any, message: str) -> None:
    change(root, table, edit)
    with pytest.raises(InputError, match=message):
        load(root)


@pytest.mark.parametrize("size", [1, 300, 1 << 20])
def test_rows_are_counted_from_the_start_of_the_table(root: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tables, "PIECE", size)
    change(root, "sample_annotation", lambda rows: rows[2].update(translation=[0.0, None, 0.0]))
    with pytest.raises(
        InputError, match=r"sample_annotation.json: row 2, translation\[1\]: Expected `float`, got `null`"
    ):
        load(root)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "?"])
def test_the_byte_counts_from_the_start_of_the_table(root: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tables, "PIECE", 100)
    path = root / "v1.0-mine" / "ego_pose.json"
    text = path.read_text()
    at = text.rindex("10.0")
    path.write_text(text[:at] + word + text[at:])
    with pytest.raises(InputError, match=rf"ego_pose.json is not valid JSON: .* at byte {at}$"):
        load(root)


def test_samples_of_unknown_scenes_and_samples_twice(root: Path) -> None:
    change(root, "sample", lambda rows: rows[0].update(scene_token="zz"))
    with pytest.raises(InputError, match=r"sample.json refers to scenes 'zz', which no table has"):
        load(root)
    change(root, "sample", lambda rows: rows[0].update(scene_token="n0"))
    change(root, "sample", lambda rows: rows.append(rows[0]))
    with pytest.raises(InputError, match=r"sample.json has samples more than once: 's00'"):
        load(root)


def test_tables_of_lyft(root: Path) -> None:
    """Fractions of microseconds, and -1 where points were not counted."""
    change(root, "sample", lambda rows: [row.update(timestamp=row["timestamp"] + 0.25) for row in rows])
    change(root, "sample_annotation", lambda rows: rows[1].update(num_lidar_pts=-1))
    truth = load(root)
    np.testing.assert_array_equal(truth.num_points, [1, np.nan, 3])
    assert truth.frame_columns["timestamp_us"].tolist() == [0, 500_000, 1_000_000] * 2


def test_files_that_are_no_tables(root: Path) -> None:
    path = root / "v1.0-mine" / "ego_pose.json"
    text = path.read_text()
    path.write_text(text[:-40])
    with pytest.raises(InputError, match=r"ego_pose.json is not valid JSON: .* at byte \d+"):
        load(root)
    path.write_text("")
    with pytest.raises(InputError, match=r"ego_pose.json is empty"):
        load(root)
    path.unlink()
    with pytest.raises(InputError, match=r"table .*ego_pose.json is missing"):
        load(root)


# cache


def test_the_cache(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    told: list[str] = []
    first = load(root, cache=True, notice=told.append)
    again = load(root, cache=True, notice=told.append)
    assert again.digest == first.digest
    assert again.frame_columns["scene"].tolist() == first.frame_columns["scene"].tolist()
    assert (again.partial, again.is_complete, again.labels) == (first.partial, first.is_complete, first.labels)
    assert [line.split()[:2] for line in told] == [["truth", "cached"], ["truth", "from"]]
    (file,) = (tmp_path / "cache" / "detmetrics").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert load(root, cache=True, notice=told.append).digest == first.digest
    assert "cannot be used" in told[2]
    change(root, "sample_annotation", lambda rows: rows[0].update(translation=[9.0, 9.0, 0.0]))
    changed = load(root, cache=True, notice=told.append)
    assert changed.digest != first.digest
    assert load(root, split=None, scenes=["one-0"], cache=True).n_frames == 3


def test_the_cache_drops_what_nobody_uses(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load(root, cache=True)
    base = tmp_path / "cache" / "detmetrics"
    (used,) = base.iterdir()
    names = ("truth-old.npz", ".truth-old.npz.0a.partial", "truth-young.npz", "theirs.npz")
    for name in names:
        (base / name).write_bytes(b"")
    long_ago = time.time() - (_cache.UNUSED_DAYS + 1) * 86_400
    for name in (*names[:2], names[3], used.name):
        os.utime(base / name, (long_ago, long_ago))
    assert len(load(root, cache=True)) == 3  # reading is using, and drops nothing
    assert {path.name for path in base.iterdir()} == {*names, used.name}
    load(root, split=None, scenes=["one-0"], cache=True)  # writing does
    left = {path.name for path in base.iterdir()}
    assert {*names[2:], used.name} < left
    assert not left & set(names[:2])
    assert len(left) == 4


def test_a_damaged_cache_is_no_error(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = load(root, cache=True)
    (file,) = (tmp_path / "cache" / "detmetrics").iterdir()
    content = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(100):
        broken = bytearray(content)
        for at in random.integers(0, len(content), 3):
            broken[at] = random.integers(256)
        file.write_bytes(broken)
        assert load(root, cache=True).digest == whole.digest
    directory = content.rindex(b"rotation_wxyz")  # a name in the table of contents: the column seems not to be there
    file.write_bytes(content[:directory] + b"R" + content[directory + 1 :])
    assert load(root, cache=True).digest == whole.digest


def test_a_cache_that_cannot_be_written_is_no_error(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    told: list[str] = []
    assert len(load(root, cache=True, notice=told.append)) == 3
    assert told[0].startswith("truth is not cached")


# the real thing


@needs_data
def test_the_predefined_splits() -> None:
    official = json.loads((SHARED / "splits" / "nuscenes_splits.json").read_text())
    for name in _splits.VERSION:
        assert _splits.scenes_of(name) == set(official[name])


@needs_data
def test_real_tables(tmp_path: Path) -> None:
    truth = nuscenes.load_truth(SHARED / "nuscenes" / "minival_tables", cache=False)
    assert (len(truth), truth.n_frames, truth.partial) == (4514, 81, False)
    pred = nuscenes.load_results(SHARED / "nuscenes" / "results_pointpillars_mini" / "results_nusc.json")
    assert (len(pred), pred.n_frames) == (793, 81)
    annotations = json.loads(
        (SHARED / "nuscenes" / "minival_tables" / "v1.0-mini" / "sample_annotation.json").read_text()
    )
    by_token = {row["token"]: row for row in annotations}
    samples = json.loads((SHARED / "nuscenes" / "minival_tables" / "v1.0-mini" / "sample.json").read_text())
    time = {row["token"]: row["timestamp"] for row in samples}
    expected = []
    for row in annotations:
        first, last = by_token.get(row["prev"], row), by_token.get(row["next"], row)
        seconds = 1e-6 * time[last["sample_token"]] - 1e-6 * time[first["sample_token"]]
        both = bool(row["prev"]) and bool(row["next"])
        if first is last or seconds > (3.0 if both else 1.5):
            expected.append((np.nan, np.nan))
        else:
            expected.append(tuple((last["translation"][i] - first["translation"][i]) / seconds for i in range(2)))
    assert truth.velocity_mps is not None
    np.testing.assert_array_equal(truth.velocity_mps, np.array(expected)[truth.place])
    shutil.copytree(SHARED / "nuscenes" / "minival_tables", tmp_path / "copy")
    (tmp_path / "copy" / "v1.0-mini" / "attribute.json").unlink()
    with pytest.raises(InputError, match=r"table .*attribute.json is missing"):
        nuscenes.load_truth(tmp_path / "copy", cache=False)


@needs_data
@pytest.mark.parity
def test_truth_is_what_the_devkit_loads() -> None:
    """Against ``load_gt`` and ``box_velocity`` of nuscenes-devkit 1.2.0, to the last bit."""
    pytest.importorskip("nuscenes")
    from nuscenes import NuScenes
    from nuscenes.eval.common.loaders import add_center_dist, load_gt
    from nuscenes.eval.detection.data_classes import DetectionBox

    root = SHARED / "nuscenes" / "minival_tables"
    official = NuScenes("v1.0-mini", str(root), verbose=False)
    boxes = add_center_dist(official, load_gt(official, "mini_val", DetectionBox))
    truth = nuscenes.load_truth(root, cache=False)
    assert truth.labels is not None
    assert truth.velocity_mps is not None
    assert truth.num_points is not None
    assert truth.attribute is not None
    assert truth.rotation_wxyz is not None
    assert list(truth.frames) == boxes.sample_tokens
    seen = 0
    for code, token in enumerate(truth.frames):
        rows = range(truth.offsets[code], truth.offsets[code + 1])
        ours = [row for row in rows if dm.NUSCENES.task_of(truth.labels[truth.label[row]]) is not None]
        assert len(ours) == len(boxes[token])
        for row, theirs in zip(ours, boxes[token], strict=True):
            assert truth.center_m[row].tolist() == list(theirs.translation)
            assert truth.size_lwh_m[row, [1, 0, 2]].tolist() == list(theirs.size)
            assert truth.rotation_wxyz[row].tolist() == list(theirs.rotation)
            np.testing.assert_array_equal(truth.velocity_mps[row], theirs.velocity)
            assert truth.num_points[row] == theirs.num_pts
            assert truth.attributes[truth.attribute[row]] == theirs.attribute_name
            np.testing.assert_array_equal(truth.center_m[row, :2] - truth.ego_xy_m[code], theirs.ego_translation[:2])
            seen += 1
    assert seen > 4000
