"""Pictures, pixel by pixel: drawn without a display."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

import detmetrics as dm
import looking
from detmetrics_viz import build_scene
from detmetrics_viz.lettering import ImageCanvas, width_of
from detmetrics_viz.looks import LAYERS, Look
from detmetrics_viz.orbit import Orbit, viewpoint
from detmetrics_viz.scene import EDGES
from detmetrics_viz.themes import DARK, LIGHT, rgb

if why := looking.why_nothing_can_be_drawn():
    pytest.skip(why, allow_module_level=True)

from detmetrics_viz import opening, pictures
from detmetrics_viz.pictures import Painter, save_film, save_png, sheet

SIZE = (640, 360)
BARE = frozenset({"points", "truth", "predictions"})
CAR = (12.0, 1.0, -1.0, 4.0, 2.0, 1.6, 0.5)
FAR = [[0.0, 0.0, -900.0]]  # a cloud needs a point; this one is behind every camera here
AHEAD = Orbit((12.0, 0.0, 0.0), 14.0)


@pytest.fixture(scope="module")
def painter() -> Iterator[Painter]:
    with Painter(SIZE) as made:
        yield made


def close_to(image: Any, color: Any, within: int = 40) -> Any:
    """Where an image has a colour."""
    return (np.abs(image.astype(int) - np.asarray(color)) <= within).all(axis=2)


def along(ends: Any, n: int, margin: float = 0.0) -> Any:
    """Points on lines (L, 2, 2)."""
    t = np.linspace(margin, 1 - margin, n)[:, None, None]
    return (ends[None, :, 0] * (1 - t) + ends[None, :, 1] * t).reshape(-1, 2)


@pytest.mark.parametrize("smooth", [1, 2])
@pytest.mark.parametrize(
    "orbit", [AHEAD, Orbit((12.0, 1.0, -1.0), 30.0, 2.0, 1.5), Orbit((10.0, 2.0, 0.0), 9.0, -0.8, 0.7)]
)
def test_edges_of_a_box_fall_where_the_projection_says(orbit: Orbit, smooth: int) -> None:
    scene = build_scene(looking.cloud(FAR), ledger=looking.pair([CAR], [], []))
    camera = orbit.camera(SIZE)
    with Painter(SIZE, smooth=smooth) as own:
        image = own.draw(scene, Look(layers=BARE), camera)
    red, *others = np.moveaxis(image.astype(int), 2, 0)
    is_red = red - np.maximum(*others) > 40  # the ground is dark
    ends, line = camera.clip(scene.nodes[0][EDGES])
    assert len(np.unique(line)) == len(EDGES)
    expected = np.round(along(ends, 40, 0.05)).astype(int)
    near = np.stack([is_red[np.clip(expected[:, 1] + dy, 0, 359), np.clip(expected[:, 0] + dx, 0, 639)]
                     for dy in (-1, 0, 1) for dx in (-1, 0, 1)])  # fmt: skip
    assert near.any(axis=0).mean() > 0.99, "every line is there"
    found = np.argwhere(is_red)[:, ::-1]
    away = np.abs(found[:, None] - along(ends, 400)[None]).max(axis=2).min(axis=1)
    assert away.max() <= 2.5, "and nothing else is red"


def test_a_missed_truth_is_red_a_found_one_is_not(painter: Painter) -> None:
    ledger = looking.pair([CAR], [(*CAR[:2], -0.9, *CAR[3:])], [0.7])
    scene = build_scene(looking.cloud(FAR), ledger=ledger)
    missed, right = DARK.outcome_colors[2], DARK.outcome_colors[0]
    for least, has_red in ((0.5, False), (0.9, True)):
        image = painter.draw(scene, Look(layers=BARE, min_score=least), AHEAD.camera(SIZE))
        assert (close_to(image, missed).sum() > 200) == has_red
        assert (close_to(image, right).sum() > 200) != has_red


def test_points_fall_where_the_projection_says(painter: Painter) -> None:
    points = np.array([[10.0, 3, 0], [20, -6, 2], [14, 0, -1], *FAR])
    scene = build_scene(looking.cloud(points))
    camera = AHEAD.camera(SIZE)
    image = painter.draw(scene, Look(layers=frozenset({"points"}), point_px=10), camera)
    drawn = ~close_to(image, rgb(DARK.background), 8)
    pixels, _ = camera.project(points[:3])
    assert drawn.sum() == pytest.approx(3 * 25, abs=12), "10 pixels at 720 lines are 5 here"
    for pixel, color in zip(pixels, scene.point_colors(DARK)[:3], strict=True):
        part = close_to(image, color, 3)
        middle = np.argwhere(
            part & (np.abs(np.indices(part.shape)[::-1].transpose(1, 2, 0) - pixel).max(axis=2) < 12)
        ).mean(axis=0)
        np.testing.assert_allclose(middle[::-1], pixel, atol=1.0)


def test_themes_and_layers(painter: Painter) -> None:
    scene = looking.footage()[1]
    for theme in (DARK, LIGHT):
        empty = painter.draw(scene, Look(theme=theme, layers=frozenset()))
        assert close_to(empty, rgb(theme.background), 2).all()
        for layer in LAYERS:
            with_it = painter.draw(scene, Look(theme=theme, layers=frozenset({layer, "truth", "predictions"})))
            without = painter.draw(scene, Look(theme=theme, layers=frozenset({"truth", "predictions"}) - {layer}))
            changed = (with_it != without).any(axis=2).sum()
            assert changed > 20 or (layer == "matches" and changed > 0), layer


def test_views_look_from_where_they_say(painter: Painter) -> None:
    scene = looking.footage()[0]
    for view in ("behind", "bird", "follow"):
        np.testing.assert_array_equal(
            painter.draw(scene, None, view), painter.draw(scene, None, viewpoint(view, scene).camera(SIZE))
        )
    camera = viewpoint("bird", scene).camera(SIZE)
    ahead, left = camera.project(np.array([[20.0, 0, scene.ground_m], [0, 20.0, scene.ground_m]]))[0]
    assert ahead[1] < 180
    assert ahead[0] == pytest.approx(319.5, abs=0.5)
    assert left[0] < 320
    with pytest.raises(dm.InputError, match="view must be one of 'behind', 'bird', 'follow'"):
        painter.draw(scene, None, "above")
    with pytest.raises(dm.InputError, match="camera must be of the painter's size"):
        painter.draw(scene, None, viewpoint("bird", scene).camera((100, 100)))


@pytest.mark.parametrize(("row", "column"), [(0, 2), (1, 2), (0, 0)])
def test_a_camera_that_open3d_would_draw_wrongly_is_refused(painter: Painter, row: int, column: int) -> None:
    """Its view control takes one focal length, and the middle of the picture for the principal point."""
    scene = build_scene(looking.cloud(FAR), ledger=looking.pair([CAR], [], []))
    camera = AHEAD.camera(SIZE)
    matrix = camera.matrix.copy()
    matrix[row, column] += 20
    with pytest.raises(dm.InputError, match="camera must be with its principal point in the middle of the picture"):
        painter.draw(scene, None, dataclasses.replace(camera, matrix=matrix))


def test_a_label_stands_above_its_box_and_says_what_it_is(painter: Painter) -> None:
    scene = build_scene(looking.cloud(FAR), ledger=looking.pair([CAR], [], []))
    camera = AHEAD.camera(SIZE)
    bare = painter.draw(scene, Look(layers=BARE), camera)
    image = painter.draw(scene, Look(layers=BARE | {"labels"}), camera)
    rows, columns = np.nonzero((image != bare).any(axis=2))
    top = camera.project(scene.nodes[0, 4:8].mean(axis=0)[None])[0][0]
    assert rows.max() < top[1]
    assert rows.min() > top[1] - 40
    assert columns.mean() == pytest.approx(top[0], abs=3)
    assert np.ptp(columns) == pytest.approx(width_of("car missed", 13) + 8, abs=2)


def test_labels_keep_off_the_plates() -> None:
    """A label under a legend or the title would be cut."""
    from detmetrics_viz import lettering

    class Noting(lettering.ImageCanvas):
        written: list[tuple[int, int, int, str]]

        def text(self, x: int, y: int, text: str, color: tuple[int, int, int], size: int = 15) -> int:
            wide = super().text(x, y, text, color, size)
            self.written.append((x, y, wide, text))
            return wide

    scene = looking.footage()[0]
    plates: list[tuple[int, int, int, int]] = []
    look = Look(min_score=0.0, labels="all")
    for view in ("behind", "bird"):
        canvas = Noting(np.zeros((270, 480, 3), np.uint8))
        canvas.written = []
        lettering.write_on(canvas, scene, look, viewpoint(view, scene).camera((480, 270)))
        drawn = [lettering._write_head, lettering._write_boxes, lettering._write_points]
        plates = [plate for write in drawn if (plate := write(canvas, scene, look))]
        assert len(plates) == 3
        texts = set(scene.texts) | {f"{text} missed" for text in scene.texts}
        labels = [one for one in canvas.written if one[3] in texts]
        assert labels
        for x, y, wide, text in labels:
            for left, top, right, bottom in plates:
                assert x >= right or x + wide <= left or y >= bottom or y + 13 <= top, text


def test_labels_do_not_cover_each_other(painter: Painter) -> None:
    class Watched(ImageCanvas):
        def __init__(self, image: Any) -> None:
            super().__init__(image)
            self.panels: list[tuple[int, int, int, int]] = []

        def panel(self, x: int, y: int, width: int, height: int, color: Any, opacity: float = 0.85) -> None:
            self.panels.append((x, y, x + width, y + height))
            super().panel(x, y, width, height, color, opacity)

    from detmetrics_viz.lettering import write_on

    scene = looking.footage()[0]
    look = Look(min_score=0.0, labels="all", layers=frozenset(LAYERS) - {"legend"})
    canvas = Watched(np.zeros((360, 640, 3), np.uint8))
    write_on(canvas, scene, look, viewpoint("behind", scene).camera(SIZE))
    assert len(canvas.panels) > 5
    for i, (left, top, right, bottom) in enumerate(canvas.panels):
        for other in canvas.panels[:i]:
            assert left >= other[2] or other[0] >= right or top >= other[3] or other[1] >= bottom


def test_any_name_can_be_written() -> None:
    canvas = ImageCanvas(np.zeros((60, 300, 3), np.uint8))
    for text in ("", "轿车", "Straßenbahn 🚋", "a\nb", "x" * 500):
        assert canvas.text(-5, -5, text, (255, 255, 255)) > 0
        assert canvas.text(290, 55, text, (255, 255, 255)) > 0
    assert canvas.image.any()


def test_fast_enough() -> None:
    """Under 50 ms for 35,000 points and 100 boxes, on two cores without a graphics card."""
    rng = np.random.default_rng(0)
    rows = np.column_stack(
        [rng.uniform(-40, 40, (100, 2)), np.full(100, -1), rng.uniform(1, 5, (100, 3)), rng.uniform(-3, 3, 100)]
    )
    pred = looking.boxes(rows[:50].tolist(), score=rng.uniform(0, 1, 50))
    scene = build_scene(looking.cloud(looking.ground()), looking.boxes(rows[50:].tolist()), pred)
    with Painter() as own:
        seconds = []
        for _ in range(12):
            start = time.perf_counter()
            own.draw(scene, Look(labels="all"))
            seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05, seconds


def drawn_elsewhere(seed: int) -> bytes:
    scene = build_scene(looking.cloud(looking.ground(3_000, seed)), ledger=looking.pair([CAR], [], []))
    with Painter(SIZE) as own:
        return own.draw(scene).tobytes()


def test_worker_processes_draw_the_same() -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        there = pool.map(drawn_elsewhere, [1, 2])
    assert there == [drawn_elsewhere(1), drawn_elsewhere(2)]
    assert there[0] != there[1]


def test_a_display_is_not_asked_for() -> None:
    code = "import sys; sys.path.insert(0, 'tests'); import test_viz_pictures as t; sys.stdout.buffer.write(t.drawn_elsewhere(1))"
    for display in ("", ":99"):
        environment = {**os.environ, "DISPLAY": display}
        environment.pop("WAYLAND_DISPLAY", None)
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env=environment,
            cwd=Path(__file__).parent.parent,
        )
        assert done.stdout == drawn_elsewhere(1)
        assert done.stderr == b""


def test_displays_are_hidden_while_the_window_opens_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Window:
        def create_window(self, **_: Any) -> bool:
            seen.append([os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")])
            return True

        def get_render_option(self) -> object:
            return object()

    fake = MagicMock()
    fake.visualization.Visualizer = Window
    monkeypatch.setattr(opening, "open3d", lambda: fake)
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-7")
    before = dict(os.environ)
    opening.offscreen(100, 100)
    assert seen == [[None, None]]
    assert dict(os.environ) == before


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(
        dm.InputError, match=r"the viewer needs open3d, which is not installed: pip install 'detmetrics\[viz\]'"
    ):
        Painter()
    code = (
        "import sys, importlib.abc\n"
        "class Broken(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'open3d': raise ImportError('libusb-1.0.so.0: cannot open shared object file')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "from detmetrics_viz.pictures import Painter\n"
        "Painter()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "libusb-1.0.so.0" in done.stderr
    assert "sudo apt-get install libgl1 libegl1" in done.stderr


def test_a_system_that_cannot_draw_is_told_what_to_install() -> None:
    code = "from detmetrics_viz.pictures import Painter; Painter()"
    nowhere = dict.fromkeys(
        ("__EGL_VENDOR_LIBRARY_DIRS", "__EGL_VENDOR_LIBRARY_FILENAMES", "LIBGL_DRIVERS_PATH"), "/nowhere"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **nowhere}
    )
    assert done.returncode == 1
    assert "InputError: Open3D cannot draw on this system" in done.stderr
    assert opening.PACKAGES in done.stderr


def test_sizes_are_checked() -> None:
    for arguments, message in (({"size": (10, 100)}, "64 to 8192"), ({"smooth": 5}, "smooth must be 1 to 4")):
        with pytest.raises(dm.InputError, match=message):
            Painter(**arguments)


def shades(n: int) -> list[Any]:
    return [np.full((90, 160, 3), 30 + 25 * i, np.uint8) for i in range(n)]


def test_a_sheet() -> None:
    whole = sheet(shades(5), [f"frame {i}" for i in range(5)], DARK)
    for i in range(5):
        assert (whole == 30 + 25 * i).all(axis=2).sum() >= 90 * 160
    assert whole.shape[1] > 3 * 160 > whole.shape[1] - 160
    for images, captions, message in (
        ([], [], "at least one picture"),
        (shades(2), ["a"], "captions must be one for each of 2"),
        ([*shades(1), np.zeros((9, 9, 3), np.uint8)], ["a", "b"], "of one size"),
    ):
        with pytest.raises(dm.InputError, match=message):
            sheet(images, captions, DARK)


def test_a_sheet_without_captions_has_no_room_for_them() -> None:
    whole = sheet(shades(5), None, DARK, n_columns=3)
    assert whole.shape == (12 + 2 * (90 + 12), 12 + 3 * (160 + 12), 3)
    is_ink = (whole != rgb(DARK.background)).any(axis=2)
    assert is_ink.sum() == 5 * 90 * 160


def test_a_film(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    counted: list[int] = []
    save_film(iter(shades(6)), tmp_path / "a.mp4", fps=5, progress=counted.append)
    assert counted == [1, 2, 3, 4, 5, 6]
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    meta = next(reader)
    assert meta["size"] == (160, 90)
    assert meta["fps"] == 5
    found = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    np.testing.assert_allclose(found, [30 + 25 * i for i in range(6)], atol=4)

    from PIL import Image

    save_film(shades(4), tmp_path / "a.gif", fps=4)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 4
        assert film.info["duration"] == 250
        film.seek(3)
        assert np.asarray(film.convert("RGB")).mean() == pytest.approx(105, abs=3)


def test_a_film_is_whole_or_not_there(tmp_path: Path) -> None:
    def broken() -> Iterator[Any]:
        yield from shades(3)
        raise dm.InputError("no more clouds")

    for ending in (".mp4", ".gif"):
        path = tmp_path / f"a{ending}"
        path.write_bytes(b"before")
        with pytest.raises(dm.InputError, match="no more clouds"):
            save_film(broken(), path)
        assert path.read_bytes() == b"before"
        with pytest.raises(dm.InputError, match="at least one picture"):
            save_film([], path)
        # a whole film takes the name of the one before: who still has that one open, or linked, keeps it
        (tmp_path / "kept").hardlink_to(path)
        save_film(shades(3), path)
        assert (tmp_path / "kept").read_bytes() == b"before"
        assert path.stat().st_size > 500
        (tmp_path / "kept").unlink()
    for path, fps, message in (
        ("a.avi", 4, "ending of a film must be .mp4 or .gif, got 'a.avi'"),
        ("a.mp4", 0, "pictures a second must be 0.1 to 120"),
        ("no/a.mp4", 4, "in a folder that exists"),
    ):
        with pytest.raises(dm.InputError, match=message):
            save_film(shades(1), tmp_path / path, fps=fps)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.mp4"]


def test_png_keeps_every_pixel(tmp_path: Path) -> None:
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    save_png(image, tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)
    assert pictures.encode_png(image).startswith(b"\x89PNG")
