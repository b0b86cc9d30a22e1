"""``detmetrics view`` and ``report --draw`` as people use them: in a process, without a display."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import detmetrics as dm
import looking
from detmetrics import cli

if why := looking.why_nothing_can_be_drawn():
    pytest.skip(why, allow_module_level=True)

from PIL import Image

from detmetrics_viz import viewing
from detmetrics_viz.cameras import draw_on_picture
from detmetrics_viz.gallery import page_name
from detmetrics_viz.looks import LAYERS, Look
from detmetrics_viz.pictures import Painter, sheet
from detmetrics_viz.themes import DARK, LIGHT, rgb


def run(folder: Path, *arguments: object, code: int = 0, command: str = "view") -> str:
    """Run a command in this process, which is quicker; give what it prints, or its error."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(cli.app, [command, *map(str, arguments)])
    if code:
        assert isinstance(done.exception, dm.InputError), (done.output, done.exception)
        return str(done.exception)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def data() -> tuple[object, ...]:
    return ("--data", looking.world(), "--predictions", looking.results())


def test_a_picture_is_what_the_painter_draws(data: tuple[object, ...], tmp_path: Path) -> None:
    footage = looking.footage()
    frame = footage.frames[1]
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    words = [sys.executable, "-m", "detmetrics", "view", *map(str, data), "--frame", frame, "--save", "frame.png"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    assert re.fullmatch(r"frame\.png: [\d.]+ kB, 1 frame\n", done.stdout)
    assert "Open3D" not in done.stderr
    with Painter(smooth=2) as painter:
        np.testing.assert_array_equal(pixels(tmp_path / "frame.png"), painter.draw(footage[1]))
    options = (
        "--theme",
        "light",
        "--from",
        "bird",
        "--color",
        "score",
        "--points",
        "intensity",
        "--min-score",
        0.4,
        "--labels",
        "all",
    )
    run(tmp_path, *data, "--frame", frame, "--save", "other.png", "--size", "400x300", *options)
    with Painter((400, 300), smooth=2) as painter:
        look = Look(theme=LIGHT, boxes="score", points="intensity", min_score=0.4, labels="all")
        np.testing.assert_array_equal(pixels(tmp_path / "other.png"), painter.draw(footage[1], look, "bird"))


def test_a_ledger_does_as_well(tmp_path: Path) -> None:
    looking.ledger().save(tmp_path / "a.ledger")
    frame = looking.truth().frames[0]
    given = ("--data", looking.world(), "--predictions", "a.ledger", "--frame", frame, "--save", "a.png")
    for more, message in (
        (("--split", "synth_val"), "--split goes with results, not with a ledger"),
        (("--protocol", "argoverse2"), "--protocol must be that of the ledger a.ledger (nuscenes"),
    ):
        assert message in run(tmp_path, *given, *more, code=2)
    run(tmp_path, *given, "--protocol", "nuscenes")
    with Painter(smooth=2) as painter:
        np.testing.assert_array_equal(pixels(tmp_path / "a.png"), painter.draw(looking.footage()[0]))


def test_films(data: tuple[object, ...], tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    scene = looking.footage().scenes[-1]
    run(tmp_path, "--data", looking.world(), "--scene", scene, "--save", "scene.mp4", "--size", "320x180", "--fps", 2)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "scene.mp4"))
    meta = next(reader)
    assert (meta["size"], meta["fps"], len(list(reader))) == ((320, 180), 2, 3)
    run(tmp_path, *data, "--save", "all.gif", "--size", "320x180")
    with Image.open(tmp_path / "all.gif") as film:
        assert film.n_frames == 6
        ground = np.abs(np.asarray(film.convert("RGB")).astype(int) - rgb(DARK.background)).max(axis=2) < 12
        assert 0.3 < ground.mean() < 0.99


def place_of(tile: np.ndarray, sheet: np.ndarray) -> tuple[int, int]:
    """Row and column of a picture's first pixel on a sheet, where it stands exactly once."""
    height, width = tile.shape[:2]
    found = [
        (y, x)
        for y in range(sheet.shape[0] - height + 1)
        for x in range(12, sheet.shape[1] - width + 1, width + 12)
        if (sheet[y, x : x + 8] == tile[0, :8]).all() and (sheet[y : y + height, x : x + width] == tile).all()
    ]
    assert len(found) == 1
    return found[0]


def test_sheets(data: tuple[object, ...], tmp_path: Path) -> None:
    footage = looking.footage()
    run(tmp_path, *data, "--worst", 3, "--save", "worst.png")
    whole = pixels(tmp_path / "worst.png")
    with Painter((960, 540), smooth=2) as painter:
        places = [place_of(painter.draw(footage[at]), whole) for at in footage.worst(3)]
    assert places == sorted(places), "the worst first"
    run(tmp_path, *data, "--per-class", "--save", "class.png", "--size", "320x180")
    n = len(footage.worst_of_classes())
    assert n > 1
    columns = min(4, int(np.ceil(np.sqrt(n))))
    assert pixels(tmp_path / "class.png").shape[1] == 12 + columns * (320 + 12)


def test_best_and_worst_frames_on_one_sheet(data: tuple[object, ...], tmp_path: Path) -> None:
    footage = looking.footage()
    run(tmp_path, *data, "--best", 3, "--worst", 2, "--save", "both.png", "--size", "320x180")
    whole = pixels(tmp_path / "both.png")
    assert whole.shape[1] == 12 + 3 * (320 + 12)
    with Painter((320, 180), smooth=2) as painter:
        best = [place_of(painter.draw(footage[at]), whole) for at in footage.best(3)]
        worst = [place_of(painter.draw(footage[at]), whole) for at in footage.worst(2)]
    assert [x for _, x in best] == [12, 344, 676]
    assert [x for _, x in worst] == [12, 344]
    (above,), (below,) = ({y for y, _ in row} for row in (best, worst))
    assert above + 180 < below, "the best above"
    is_ink = (whole != rgb(DARK.background)).any(axis=2)
    assert is_ink[12 : above - 30, :600].sum() > 500, "under a title"
    assert is_ink[above + 192 : below - 30, :600].sum() > 500, "each under its own"
    run(tmp_path, *data, "--best", 3, "--save", "best.png", "--size", "320x180")
    alone = pixels(tmp_path / "best.png")
    with Painter((320, 180), smooth=2) as painter:
        assert [place_of(painter.draw(footage[at]), alone)[1] for at in footage.best(3)] == [12, 344, 12]


def test_a_sheet_says_once_what_a_picture_is(tmp_path: Path) -> None:
    """In its legend, or else in a caption above it."""
    footage, path = looking.footage(), tmp_path / "best.png"
    for look, is_told in ((Look(), True), (Look(layers=frozenset(LAYERS) - {"legend"}), False)):
        viewing.view(footage, viewing.Request(look=look, best=2, save=path, size=(320, 180)))
        with Painter((320, 180), smooth=2) as painter:
            tiles = [painter.draw(footage[at], look) for at in footage.best(2)]
        captions = [f"{i}. {footage[at].title}" for i, at in enumerate(footage.best(2), 1)]
        whole = sheet(tiles, None if is_told else captions, DARK, title="Best frames: fewest mistakes first")
        assert np.array_equal(pixels(path), whole)


def test_best_and_worst_frames_on_one_page_and_in_a_film(data: tuple[object, ...], tmp_path: Path) -> None:
    footage = looking.footage()
    said = run(tmp_path, *data, "--best", 1, "--worst", 2, "--html", "both.html", "--save", "both.gif")
    assert said.count("3 frames") == 2
    told = re.search(r'id="scenes">(.*?)</script>', (tmp_path / "both.html").read_text(), re.DOTALL)
    assert told is not None
    shown = [(one["frame"], one["title"].partition(" · ")[0]) for one in json.loads(told[1])["frames"]]
    (best,), (worst, second) = footage.best(1), footage.worst(2)
    assert shown == [
        (footage.frames[best], "best 1"), (footage.frames[worst], "worst 1"), (footage.frames[second], "worst 2"),
    ]  # fmt: skip
    with Image.open(tmp_path / "both.gif") as film:
        assert film.n_frames == 3


def test_a_page(data: tuple[object, ...], tmp_path: Path) -> None:
    frame = looking.truth().frames[0]
    said = run(tmp_path, *data, "--frame", frame, "--html", "frame.html", "--save", "frame.png")
    assert "frame.html: " in said
    assert "frame.png: " in said
    assert frame in (tmp_path / "frame.html").read_text()
    assert (tmp_path / "frame.html").stat().st_size < 3e6


def test_cameras(data: tuple[object, ...], tmp_path: Path) -> None:
    """The lidar world has no cameras, so it gets one."""
    from detmetrics.io.cameras import NuscenesCameras

    tables = looking.world() / "v1.0-synth"
    world = tmp_path / "world"
    (world / tables.name).mkdir(parents=True)
    for name in ("samples", "sweeps", "maps"):
        if (looking.world() / name).exists():
            (world / name).symlink_to(looking.world() / name)
    for path in tables.iterdir():
        rows = json.loads(path.read_text())
        if path.name == "sensor.json":
            rows.append({"token": "c" * 32, "channel": "CAM_FRONT", "modality": "camera"})
        elif path.name == "calibrated_sensor.json":
            matrix = [[400.0, 0, 319.5], [0, 400.0, 179.5], [0, 0, 1]]
            front = {"translation": [1.7, 0, 1.5], "rotation": [0.5, -0.5, 0.5, -0.5], "camera_intrinsic": matrix}
            rows.append({"token": "d" * 32, "sensor_token": "c" * 32, **front})
        elif path.name == "sample_data.json":
            lidar = [row for row in rows if row["is_key_frame"]]
            picture = {"filename": "../front.png", "width": 640, "height": 360, "calibrated_sensor_token": "d" * 32}
            rows += [{**row, **picture, "token": f"{i:032x}", "prev": "", "next": ""} for i, row in enumerate(lidar)]
        (world / tables.name / path.name).write_text(json.dumps(rows))
    Image.fromarray(np.full((360, 640, 3), 90, np.uint8)).save(tmp_path / "front.png")
    frame = looking.truth().frames[0]
    for shape in ("3d", "2d"):
        options = ("--predictions", looking.results(), "--frame", frame, "--camera", "CAM_FRONT", "--shape", shape)
        run(tmp_path, "--data", world, *options, "--save", f"{shape}.png")
        (camera,) = NuscenesCameras(world).of(frame)
        drawn = draw_on_picture(looking.footage()[0], camera, shape=shape)
        assert (drawn != 90).mean() > 0.05
        np.testing.assert_array_equal(pixels(tmp_path / f"{shape}.png"), drawn)
    options = ("--data", world, "--frame", frame, "--save", "a.png")
    assert "has no camera 'CAM_BACK' (there are 'CAM_FRONT')" in run(tmp_path, *options, "--camera", "CAM_BACK", code=2)
    (tmp_path / "front.png").write_bytes(b"no picture")
    assert "cannot be read as a picture" in run(tmp_path, *options, "--camera", "CAM_FRONT", code=2)
    assert not (tmp_path / "a.png").exists()


def kitti(folder: Path) -> tuple[object, ...]:
    """One car 10 m ahead with points in it, as KITTI would write it."""
    rng = np.random.default_rng(0)
    inside = rng.uniform([8.5, -0.6, -1.4], [11.5, 0.6, -0.3], (500, 3))
    points = np.concatenate([inside, looking.ground(3_000)])
    np.column_stack([points, rng.uniform(0, 1, len(points))]).astype("<f4").tofile(folder / "cloud.bin")
    matrices = {
        "P2": "700 0 600 0 0 700 180 0 0 0 1 0",
        "R0_rect": "1 0 0 0 1 0 0 0 1",
        "Tr_velo_to_cam": "0 -1 0 0 0 0 -1 0 1 0 0 0",
    }
    (folder / "calib.txt").write_text("".join(f"{name}: {row}\n" for name, row in matrices.items()))
    line = "Car 0 0 0 500 150 700 250 1.5 1.6 4.0 0 1.6 10 -1.5707963"
    (folder / "label.txt").write_text(f"{line}\n")
    (folder / "result.txt").write_text(f"{line} 0.8\n")
    return ("cloud.bin", "--boxes", "label.txt", "--calib", "calib.txt", "--format", "kitti")


def test_one_cloud_of_kitti(tmp_path: Path) -> None:
    from detmetrics_viz.viewing import open_cloud

    arguments = kitti(tmp_path)
    run(tmp_path, *arguments, "--save", "frame.png")
    scene = open_cloud(
        *(tmp_path / name for name in ("cloud.bin", "label.txt", "result.txt", "calib.txt")), "kitti", None
    )[0]
    assert (scene.n_points >= 500).all()
    np.testing.assert_allclose(scene.center, [[10, 0, -0.85]] * 2, atol=1e-5)
    np.testing.assert_allclose(scene.yaw_rad, 0, atol=1e-5)
    color = DARK.class_colors(1)[0].astype(int)
    assert (np.abs(pixels(tmp_path / "frame.png").astype(int) - color).max(axis=2) < 60).sum() > 300
    run(tmp_path, *arguments, "--predictions", "result.txt", "--save", "both.png")
    assert (pixels(tmp_path / "both.png") != pixels(tmp_path / "frame.png")).any()


def test_report_with_pictures_of_the_worst_frames(tmp_path: Path) -> None:
    options = ("--data", looking.world(), "--split", "synth_val", "--bootstrap", 0, "--worst", 2)
    run(tmp_path, looking.results(), *options, "-o", "r.html", "--draw", looking.world(), command="report")
    html = (tmp_path / "r.html").read_text()
    worst = [looking.truth().frames[code] for code in dm.frames(looking.ledger()).worst(2)]
    assert html.count("data:image/jpeg;base64,") == 2
    assert sorted(path.name for path in (tmp_path / "r_frames").iterdir()) == sorted(map(page_name, worst))
    for frame in worst:
        assert f'href="r_frames/{page_name(frame)}"' in html
    said = run(
        tmp_path,
        looking.results(),
        *options,
        "-o",
        "s.html",
        "--draw",
        looking.world(),
        "--link",
        "{frame}",
        command="report",
        code=2,
    )
    assert "--draw makes pictures and links" in said


def test_each_run_of_a_report_has_its_own_pictures(tmp_path: Path) -> None:
    """Beside the counts of a run stands what that run found, not what another did."""
    weak = json.loads(looking.results().read_text())
    for boxes in weak["results"].values():
        del boxes[::2]
    (tmp_path / "weak.json").write_text(json.dumps(weak))
    options = ("--data", looking.world(), "--split", "synth_val", "--bootstrap", 0, "--worst", 99, "-o", "r.html")
    given = (looking.results(), "weak.json", *options, "--name", "all", "--name", "half of it")
    run(tmp_path, *given, "--draw", looking.world(), command="report")
    html = (tmp_path / "r.html").read_text()
    pictures = re.findall(r'<a href="([^"]+)"[^>]*>\s*<img src="([^"]+)" alt="frame ([^:"]+): (\d+) TP, (\d+) FP', html)
    by_frame: dict[str, set[str]] = {}
    for href, image, frame, n_tp, n_fp in pictures:
        by_frame.setdefault(frame, set()).add(image)
        page = (tmp_path / href).read_text()
        told = json.loads(re.search(r'id="scenes">(.*?)</script>', page)[1])["frames"][0]  # type: ignore[index]
        name, _, title = told["title"].partition(" · ")
        assert name in ("all", "half of it")
        assert frame in title
        shown = [
            told["partner"][i] >= 0
            for i in range(len(told["pred"]))
            if told["pred"][i] and told["counts"][i] and told["score"][i] >= (told["cutoff"][told["label"][i]] or 9)
        ]
        assert (shown.count(True), shown.count(False)) == (int(n_tp), int(n_fp))
    assert any(len(images) == 2 for images in by_frame.values()), "the same frame, drawn for either"


def test_names_of_pages_are_names_of_files() -> None:
    assert page_name("ca9a282c") == "ca9a282c.html"
    assert re.fullmatch(r"_\.\._etc_passwd-[0-9a-f]{12}\.html", page_name("../../etc/passwd"))
    assert re.fullmatch(r"log_315966265259836000-[0-9a-f]{12}\.html", page_name("log:315966265259836000"))
    alike = [
        "a:1",
        "a/1",
        "a 1",
        "a_1",
        ".a_1",
        "..a_1",
        "A_1",
        "a" * 300,
        "a" * 301,
        "é",
        "e\u0301",
        "ß",
        "ss",
        ".",
        "\ud800",
    ]
    # capitals are the same letters to some file systems, and so are some letters with and without an accent of their own
    assert len({page_name(name).casefold() for name in alike}) == len(alike), "one page would be written over another"
    assert all(name.isascii() and len(name) < 130 for name in map(page_name, alike))


def test_bad_input(data: tuple[object, ...], tmp_path: Path) -> None:
    frame = looking.truth().frames[0]
    arguments = kitti(tmp_path)
    looking.ledger().save(tmp_path / "a.ledger")
    (tmp_path / "empty.bin").write_bytes(b"")
    (tmp_path / "odd.bin").write_bytes(b"123")
    np.full((10, 4), np.nan, "<f4").tofile(tmp_path / "nan.bin")
    for options, message in (
        ((*data, "--frame", frame[:9], "--save", "a.png"), f"unknown frame '{frame[:9]}' (did you mean '{frame}'?)"),
        ((*data, "--save", "a.png"), "a picture shows one frame, and there are 6 (--frame NAME"),
        ((*data, "--save", "a.jpg", "--frame", frame), "ending of --save must be '.png', '.mp4', '.gif', got 'a.jpg'"),
        ((*data, "--save", "no/a.png"), "--save must be in a folder that exists"),
        ((*data, "--save", "a.png", "--html", "a.png"), "must be different files"),
        ((*data, "--save", "a.png", "--theme", "blue"), "theme must be one of 'dark', 'light', got 'blue'"),
        ((*data, "--save", "a.png", "--size", "big"), "size must be like 1280x720, got 'big'"),
        ((*data, "--save", "a.png", "--frame", frame, "--size", "9x9"), "size of a picture must be 64 to 8192"),
        ((*data, "--save", "a.png", "--frame", frame, "--from", "above"), "view must be one of 'behind'"),
        ((*data, "--save", "a.png", "--frame", frame, "--lidar", "X"), "has no calibrated sensor 'X' (lidars there: 'LIDAR_TOP')"),
        (("--data", looking.world(), "--worst", 2, "--save", "a.png"), "worst frames need predictions"),
        (("--data", looking.world(), "--best", 2, "--save", "a.png"), "best frames need predictions"),
        ((*data, "--best", 2, "--per-class", "--save", "a.png"), "one of --frame, --per-class, --best or --worst, got --per-class and --best or --worst"),
        ((*data, "--best", 2, "--frame", frame, "--save", "a.png"), "choice of frames must be one of"),
        (("--data", looking.world(), "--scene", "x", "--save", "a.png"), "x"),
        (("--boxes", "label.txt", "--save", "a.png"), "--boxes goes with one cloud: boxes without a cloud"),
        (("--save", "a.png"), "give either a cloud or --data DATAROOT"),
        (("none.bin", "--save", "a.png"), "cannot read none.bin: No such file"),
        (("empty.bin", "--save", "a.png"), "empty.bin must be a cloud, got an empty file"),
        (("odd.bin", "--format", "kitti", "--save", "a.png"), "4 float32 (16 bytes) a point, got 3 bytes"),
        (("nan.bin", "--format", "kitti", "--save", "a.png"), "point 0 must be finite numbers"),
        ((*arguments[:3], "--save", "a.png"), "label.txt lies in a camera's frame (--calib FILE"),
        ((*arguments, "--save", "label.txt"), "--save must be another file than the input"),
        ((*arguments, "--data", looking.world(), "--save", "a.png"), "--data goes with a data set, not with one cloud"),
        ((*arguments, "--frame", "7", "--save", "a.png"), "unknown frame '7' (known: 'label')"),
        ((*arguments, "--version", "v1.0-mini", "--save", "a.png"), "--version goes with a data set, not with one cloud"),
        ((*arguments, "--sweeps", 3, "--save", "a.png"), "--sweeps goes with a data set, not with one cloud"),
        ((*arguments, "--lidar", "X", "--save", "a.png"), "--lidar goes with a data set, not with one cloud"),
        ((*data, "--frame", frame, "--save", "a.png", "--shape", "2d"), "--shape goes with --camera"),
        ((*data, "--frame", frame, "--save", "a.png", "--shape", "4d"), "--shape must be 3d or 2d, got '4d'"),
        ((*data, "--frame", frame, "--save", "a.png", "--fps", 9), "--fps goes with a film"),
        ((*data, "--camera", "CAM_FRONT", "--html", "a.html"), "--camera goes with --save FILE"),
        ((*data, "--size", "640x360", "--html", "a.html"), "--size goes with --save FILE"),
        ((*data, "--camera", "X", "--size", "640x360", "--frame", frame, "--save", "a.png"), "--size does not go with --camera"),
        (("--data", looking.world(), "--protocol", "argoverse2", "--save", "a.gif"), "--protocol goes with --predictions"),
        (("--data", looking.world(), "--predictions", "a.ledger", "--split", "synth_val", "--html", "a.html"), "--split goes with results, not with a ledger"),
    ):  # fmt: skip
        assert message in run(tmp_path, *options, code=2), message
    assert not list(tmp_path.glob("a.[phg]*"))


def test_boxes_only_data_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "tables", "--boxes-only", "--train-scenes", 0, "--val-scenes", 1, "--samples", 2, command="synth")
    said = run(tmp_path, "--data", "tables", "--save", "a.gif", code=2)
    assert "cannot read" in said or "boxes without a cloud" in said
