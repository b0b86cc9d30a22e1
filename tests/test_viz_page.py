"""The browser view: what is in the file, and what someone who opens it in Chromium sees and can do."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import browsing
import detmetrics as dm
from browsing import CHROMIUM, chromium, why_no_page_can_be_opened
from detmetrics.geometry import IDENTITY
from detmetrics.io import clouds, kitti
from detmetrics_viz import Outcome, Scene, build_scene
from detmetrics_viz.looks import LAYERS, VIEWS, Look
from detmetrics_viz.page import ASSETS, Page, write_html
from detmetrics_viz.themes import DARK, LIGHT, THEMES, rgb

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="real data lies in ../shared/data, which is not here")
NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028'\"`${x}{{title}}&amp;"
FRAMES = ("first", NASTY, "third")


def make_cloud(n_points: int, seed: int) -> clouds.Cloud:
    """A street: ground, and walls on both sides."""
    rng = np.random.default_rng(seed)
    far = rng.gamma(2, 12, n_points)
    turn = rng.uniform(-np.pi, np.pi, n_points)
    points = np.stack([far * np.cos(turn), far * np.sin(turn), rng.normal(-1.8, 0.02, n_points)], axis=1)
    is_wall = np.abs(points[:, 1]) > 9
    points[is_wall, 1] = np.sign(points[is_wall, 1]) * 9
    points[is_wall, 2] += rng.uniform(0, 5, is_wall.sum())
    return clouds.Cloud(
        points_m=points.astype(np.float32),
        intensity=rng.uniform(0, 255, n_points).astype(np.float32),
        ring=np.zeros(n_points, np.int32),
        time_s=np.zeros(n_points, np.float32),
        pose=IDENTITY,
        source="street.pcd.bin",
    )


def make_scenes(n_points: int = 4000, n_crowd: int = 0, nasty: str = "vehicle.car") -> list[Scene]:
    """Three frames: a car found, one missed (at 14, 4), a false alarm (at 16, -5), a weak one, one without points."""
    rng = np.random.default_rng(3)
    truth: dict[str, list[Any]] = {
        "center_m": [],
        "size_lwh_m": [],
        "yaw_rad": [],
        "label": [],
        "frame": [],
        "num_points": [],
    }
    pred: dict[str, list[Any]] = {
        "center_m": [],
        "size_lwh_m": [],
        "yaw_rad": [],
        "label": [],
        "frame": [],
        "score": [],
    }

    def add(side: dict[str, list[Any]], center: tuple[float, float], yaw: float, **more: Any) -> None:
        side["center_m"].append((*center, -1.0))
        side["size_lwh_m"].append((4.4, 1.9, 1.6))
        side["yaw_rad"].append(yaw)
        for name, value in more.items():
            side[name].append(value)

    for frame in FRAMES:
        add(truth, (8, 0), 0.1, label="vehicle.car", frame=frame, num_points=9)
        add(truth, (14, 4), 1.2, label="vehicle.car", frame=frame, num_points=9)
        add(truth, (-9, -3), 0.4, label="vehicle.car", frame=frame, num_points=0)
        add(pred, (8.3, 0.2), 0.15, label="car", frame=frame, score=0.9)
        add(pred, (16, -5), -0.7, label="car", frame=frame, score=0.8 if frame == "first" else 0.55)
        add(pred, (24, 6), 0.3, label="car", frame=frame, score=0.2)
        for _ in range(n_crowd):
            x, y = rng.uniform(-40, 40, 2)
            add(truth, (x, y), rng.uniform(-3, 3), label="vehicle.truck", frame=frame, num_points=5)
            add(pred, (x + rng.normal(), y), rng.uniform(-3, 3), label="truck", frame=frame, score=rng.uniform())
    velocity = {"velocity_mps": np.tile([3.0, 0.5], (len(truth["label"]), 1))}
    truths = dm.Boxes(
        **truth, **velocity, attribute=["vehicle.moving"] * len(truth["label"]), frames=FRAMES, source="truth"
    )
    preds = dm.Boxes(
        **pred,
        velocity_mps=np.tile([3.1, 0.4], (len(pred["label"]), 1)),
        attribute=["vehicle.moving"] * len(pred["label"]),
        frames=FRAMES,
        source="pred",
    )
    ledger = dm.match(truths, preds, dm.NUSCENES)
    if nasty != "vehicle.car":
        truths = truths.with_labels([nasty if name == "vehicle.car" else name for name in truths.labels or ()])
    return [
        build_scene(make_cloud(n_points, seed), truths, preds, None if nasty != "vehicle.car" else ledger, frame=name)
        for seed, name in enumerate(FRAMES)
    ]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return make_scenes()


class Elements(HTMLParser):
    """Every element with its attributes, and the text of those that are kept as they stand."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag
        if tag in ("script", "style", "title"):
            self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style", "title"):
            self.texts[-1] = (self._open, self.texts[-1][1] + data)


def unpacked(text: str, index: int = 0) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What the file says of a frame, and its arrays."""
    said = re.search(r'<script type="application/json" id="scenes">(.*?)</script>', text, re.S)
    arrays = re.search(rf'<script type="text/plain" id="arrays{index}">(.*?)</script>', text)
    assert said
    assert arrays
    told = json.loads(said[1])["frames"][index]
    raw = zlib.decompress(base64.b64decode(arrays[1]))
    found, at = {}, 0
    for name, kind, count in told["layout"]:
        found[name] = np.frombuffer(raw, f"<{kind}", count, at)
        at += found[name].nbytes
    assert at == len(raw)
    return told, found


# ------------------------------------------------------------------------------------------- the file


def test_a_frame_of_35000_points_and_100_boxes_is_small(tmp_path: Path) -> None:
    large = make_scenes(35_000, n_crowd=50)
    assert len(large[0]) > 100
    write_html(large[0], tmp_path / "one.html")
    one = (tmp_path / "one.html").stat().st_size
    assert one < 1_500_000  # of 3 MB that a page may have
    write_html(large, tmp_path / "three.html")
    assert (tmp_path / "three.html").stat().st_size - one < 2 * 700_000


def test_what_is_packed_is_what_was_there(scenes: list[Scene]) -> None:
    text = Page(scenes).html()
    for i, scene in enumerate(scenes):
        told, arrays = unpacked(text, i)
        points = arrays["points"].reshape(-1, 3) * told["step"]
        assert points.shape == scene.points.shape
        assert np.abs(points - scene.points).max() <= 0.51 * told["step"] < 0.003
        assert np.array_equal(arrays["nodes"].reshape(-1, 10, 3), scene.nodes)
        for mode, shade in scene.shades.items():
            assert np.array_equal(arrays[f"shade_{mode}"], shade)
        for name, lines in scene.lines.items():
            assert np.array_equal(arrays[f"{name}_ends"], lines.ends.ravel())
            assert np.array_equal(arrays[f"{name}_box"], lines.box)
        assert told["frame"] == scene.frame
        assert told["texts"] == list(scene.texts)
        for key in ("score", "center", "size", "yaw_rad", "errors", "velocity"):
            got = np.array(told[key], float)  # null becomes NaN
            np.testing.assert_allclose(got, getattr(scene, key), rtol=1e-6, atol=1e-7, err_msg=key)


def test_the_file_asks_nobody_and_lets_nothing_else_run(scenes: list[Scene]) -> None:
    page = Elements(Page(scenes).html())
    policy = next(a["content"] for tag, a in page.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert not re.search(r"unsafe|\*|https?:", policy)
    hashes = {
        tag: [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for kind, text in page.texts
            if kind == tag
        ]
        for tag in ("script", "style")
    }
    assert rules["style-src"] == " ".join(hashes["style"])
    assert rules["script-src"].split() == hashes["script"][-2:]
    for tag, attributes in page.found:
        assert tag not in ("iframe", "object", "embed", "base", "form") or attributes == {"method": "dialog"}
        assert not attributes.get("src")
        assert attributes.get("href", "data:,") == "data:,"
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert not re.search(r"@import|url\(", next(text for tag, text in page.texts if tag == "style"))


def test_names_cannot_break_out() -> None:
    nasty = make_scenes(100, nasty=NASTY)
    text = Page(nasty, title=NASTY).html()
    page = Elements(text)
    assert [tag for tag, _ in page.found].count("script") == 1 + 3 + 2
    assert "img" not in [tag for tag, _ in page.found]
    assert dict(page.texts)["title"] == NASTY
    told, _ = unpacked(text, 1)
    assert told["frame"] == NASTY
    assert NASTY in told["labels"]
    odd = build_scene(make_cloud(10, 0), title="\ud800 half a letter")
    assert Page(odd).html().encode(errors="replace")


def test_the_bundle_is_the_one_described() -> None:
    folder = ASSETS / "three"
    words = (folder / "README.md").read_text()
    bundle = (folder / "three.min.js").read_bytes()
    assert re.findall(r"\b[0-9a-f]{64}\b", words) == [hashlib.sha256(bundle).hexdigest()]
    assert "MIT" in (folder / "LICENSE").read_text()
    assert b"</script" not in bundle.lower()
    assert "</script" not in (ASSETS / "page.js").read_text().lower()
    entry = (folder / "entry.js").read_text()
    names = set(re.findall(r"\bTHREE\.(\w+)", (ASSETS / "page.js").read_text()))
    exported = set(re.findall(r"\b\w+\b", " ".join(re.findall(r"\{(.*?)\}", entry, re.S))))
    assert names == exported  # nothing that is not used


def test_the_script_has_the_words_of_the_library() -> None:
    script = (ASSETS / "page.js").read_text()
    block = re.search(r"const LAYERS = \[(.*?)\n  \];", script, re.S)
    assert block
    assert tuple(re.findall(r'\["(\w+)",', block[1])) == LAYERS
    views = re.search(r"const VIEWS = \[(.*?)\]", script)
    assert views
    assert tuple(re.findall(r'"(\w+)"', views[1])) == VIEWS
    codes = re.search(r"const OUTCOME = \{(.*?)\}", script)
    assert codes
    assert [int(code) for code in re.findall(r"\d+", codes[1])] == [int(one) for one in Outcome]


def test_bad_requests(tmp_path: Path, scenes: list[Scene]) -> None:
    with pytest.raises(dm.InputError, match="scenes must be at least one"):
        write_html([], tmp_path / "a.html")
    with pytest.raises(dm.InputError, match="scenes must be at least one"):
        Page([])
    with pytest.raises(dm.InputError, match="view must be one of behind, bird, follow, got 'moon'"):
        write_html(scenes, tmp_path / "a.html", view="moon")
    with pytest.raises(dm.InputError, match="in a folder that exists"):
        write_html(scenes, tmp_path / "none" / "a.html")

    def broken() -> Iterator[Scene]:
        yield scenes[0]
        raise dm.InputError("the second cloud is missing")

    with pytest.raises(dm.InputError, match="second cloud"):
        write_html(broken(), tmp_path / "a.html")
    assert list(tmp_path.iterdir()) == []


def test_scenes_may_come_one_after_another(tmp_path: Path, scenes: list[Scene]) -> None:
    seen: list[tuple[int, int]] = []
    write_html(iter(scenes), tmp_path / "a.html", progress=lambda *at: seen.append(at))
    assert seen == [(1, 1), (2, 2), (3, 3)]
    seen.clear()
    write_html(scenes, tmp_path / "b.html", progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes() == Page(scenes).html().encode()


def test_a_notebook_shows_it_shut_off() -> None:
    scene = make_scenes(100, nasty=NASTY)[1]
    text = scene._repr_html_()
    ((tag, attributes),) = Elements(text).found
    assert tag == "iframe"
    assert attributes["srcdoc"] == Page(scene).html()
    assert attributes["title"] == scene.title
    assert attributes["sandbox"] is not None
    assert "allow-same-origin" not in attributes["sandbox"]


def test_it_needs_neither_open3d_nor_jinja2() -> None:
    code = "import sys, detmetrics_viz; detmetrics_viz.Page, detmetrics_viz.write_html; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"open3d", "jinja2", "PIL", "torch"} & set(loaded)


# ------------------------------------------------------------------------------------------- in Chromium

WHY_NOT = why_no_page_can_be_opened()
browses = [pytest.mark.browser, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
#: WebGL without a graphics card.
SOFTWARE = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def each(test: Any) -> Any:
    for mark in browses:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(*SOFTWARE) as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scenes: list[Scene]) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_html(scenes, folder / "three.html")
    write_html(make_scenes(200, nasty=NASTY), folder / "nasty.html", title=NASTY)
    bare = Look(theme=LIGHT, layers=frozenset({"truth", "predictions", "uncounted"}), points="intensity", min_score=0.3)
    write_html(scenes[0], folder / "bare.html", look=bare, view="bird")
    write_html(build_scene(make_cloud(50, 1)), folder / "points only.html")
    return folder


class Tab(browsing.Tab):
    """An open page of scenes."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        super().__init__(
            browser, path, ready="html[data-ready=yes]", **{"viewport": {"width": 1200, "height": 800}, **options}
        )

    def get(self, what: str) -> Any:
        return self.page.evaluate(f"window.detmetrics.{what}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def at_frame(self, name: str) -> None:
        """Wait for a frame."""
        for _ in range(100):
            if self.page.locator("html").get_attribute("data-frame") == name:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never came to {name!r}")

    def settle(self) -> None:
        """Wait until the camera stands."""
        before = None
        for _ in range(60):
            self.page.wait_for_timeout(200)
            now = self.get("camera()")
            if now == before and not self.get("flies()"):
                return
            before = now

    def picture(self) -> NDArray[np.int64]:
        """What is drawn, without the plates before it."""
        from PIL import Image

        self.page.evaluate("for (const one of document.querySelectorAll('.plate')) one.style.visibility = 'hidden'")
        self.page.wait_for_timeout(150)
        return np.asarray(Image.open(io.BytesIO(self.page.locator("#stage").screenshot())).convert("RGB"), np.int64)

    def pixels(self, color: str) -> int:
        """How many pixels of a drawing have a colour, nearly."""
        return int((np.abs(self.picture() - rgb(color)).max(axis=2) <= 8).sum())


@pytest.fixture
def tab(browser: Any, folder: Path) -> Iterator[Tab]:
    tab = Tab(browser, folder / "three.html", reduced_motion="reduce")
    yield tab
    tab.close()


def texts_of(tab: Tab, selector: str) -> list[str]:
    return [text.strip() for text in tab.page.locator(selector).all_inner_texts()]


@each
@pytest.mark.parametrize("score", [None, 0.3, 0.85, 0.95])
def test_it_counts_and_hides_as_the_scene_does(tab: Tab, scenes: list[Scene], score: float | None) -> None:
    if score is not None:
        tab.page.locator("#score").fill(str(score))
        tab.page.locator("#stage").focus()
    for i, scene in enumerate(scenes):
        look = Look(min_score=score)
        assert tab.get("frame()") == scene.frame
        assert tab.get("outcomes()") == scene.outcome(score).tolist()
        assert tab.get("shown()") == np.flatnonzero(look.visible(scene)).tolist()
        assert tab.get("labelled()") == np.flatnonzero(look.labelled(scene)).tolist()
        expected = scene.summary(score)
        got = tab.get("counts()")
        assert [got["number"][k] for k in (Outcome.TRUE_POSITIVE, Outcome.FALSE_POSITIVE, Outcome.MISSED)] == list(
            expected[:3]
        )
        np.testing.assert_allclose(np.array(got["errors"], float), expected.errors, rtol=1e-5, atol=1e-6)
        rows = [text.split("\n") for text in texts_of(tab, "#rows li")]
        assert [(text, int(n)) for text, n in rows] == [row[:2] for row in scene.legend(DARK, "outcome", score)]
        if i + 1 < len(scenes):
            tab.press("ArrowRight")
            tab.at_frame(scenes[i + 1].frame)


@each
def test_colours_are_those_of_the_theme(browser: Any, folder: Path) -> None:
    """Without points: a missed truth is red, in the theme's very red, and is not there when truth is hidden."""
    tab = Tab(browser, folder / "bare.html", reduced_motion="reduce")
    missed, wrong = LIGHT.outcomes[Outcome.MISSED], LIGHT.outcomes[Outcome.FALSE_POSITIVE]
    assert tab.pixels(LIGHT.background) > 100_000
    assert tab.pixels(missed) > 40
    assert tab.pixels(wrong) > 40
    tab.press("2")
    assert tab.pixels(missed) == 0
    assert tab.pixels(wrong) > 40
    tab.press("2", "3")
    assert tab.pixels(missed) > 40
    assert tab.pixels(wrong) == 0
    tab.press("t")
    assert tab.pixels(DARK.background) > 100_000
    assert tab.pixels(DARK.outcomes[Outcome.MISSED]) > 40
    tab.press("b")
    assert tab.pixels(DARK.outcomes[Outcome.MISSED]) == 0
    assert tab.pixels(DARK.classes[0]) > 40
    tab.press("1")
    assert tab.page.locator("#points").input_value() == "intensity"
    assert tab.pixels("#fff3c4") + tab.pixels("#2b3550") > 20  # the ends of the ramp
    tab.close()


@each
def test_a_missed_truth_is_drawn_where_the_projection_says(browser: Any, folder: Path, scenes: list[Scene]) -> None:
    """From above, the missed car's red pixels fill its outline and nothing else of the picture."""
    tab = Tab(browser, folder / "bare.html", reduced_motion="reduce")
    scene = scenes[0]
    (box,) = np.flatnonzero(scene.outcome(0.3) == Outcome.MISSED)
    rows, columns = np.nonzero(np.abs(tab.picture() - rgb(LIGHT.outcomes[Outcome.MISSED])).max(axis=2) <= 8)
    up = 45 / np.tan(np.radians(25))  # the camera of the page: 50° high, 45 m each way on the ground
    eye = scene.ground_m + up
    corners = scene.nodes[box].astype(float)  # with the heading, which reaches out
    scale = 400 / np.tan(np.radians(25)) / (eye - corners[:, 2])
    x, y = 600 - corners[:, 1] * scale, 400 - corners[:, 0] * scale  # left is left, ahead is up
    assert columns.min() == pytest.approx(x.min(), abs=2.5)
    assert columns.max() == pytest.approx(x.max(), abs=2.5)
    assert rows.min() == pytest.approx(y.min(), abs=2.5)
    assert rows.max() == pytest.approx(y.max(), abs=2.5)
    tab.close()


@each
def test_points_are_drawn_where_the_projection_says(browser: Any, tmp_path: Path) -> None:
    cloud = make_cloud(300, 0)
    spots = np.array([(10.0, 2.0, 0.0), (-20.0, -7.0, 0.0), (31.0, 15.0, 3.0)])
    cloud.points_m[:] = np.repeat(spots, 100, axis=0)
    scene = build_scene(cloud)
    write_html(scene, tmp_path / "spots.html", look=Look(layers=frozenset({"points"}), point_px=5), view="bird")
    tab = Tab(browser, tmp_path / "spots.html", reduced_motion="reduce")
    rows, columns = np.nonzero(np.abs(tab.picture() - rgb(DARK.background)).max(axis=2) > 20)
    half = 45 if scene.rings_m[0] <= 10 else 80
    scale = 400 / np.tan(np.radians(25)) / (scene.ground_m + half / np.tan(np.radians(25)) - spots[:, 2])
    x, y = 600 - spots[:, 1] * scale, 400 - spots[:, 0] * scale
    of = np.argmin(np.hypot(columns[:, None] - x, rows[:, None] - y), axis=1)
    for k in range(3):
        assert 10 < np.count_nonzero(of == k) < 60
        assert columns[of == k].mean() == pytest.approx(x[k], abs=1.5)
        assert rows[of == k].mean() == pytest.approx(y[k], abs=1.5)
    tab.close()


@each
def test_names_in_a_card_are_only_text(browser: Any, tmp_path: Path, scenes: list[Scene]) -> None:
    """Of a matched box, whose partner's name is in a row."""
    nasty = dataclasses.replace(
        scenes[0], labels=(NASTY,) * len(scenes[0].labels), error_names=(NASTY,) * len(scenes[0].error_names)
    )
    write_html(nasty, tmp_path / "nasty.html")
    tab = Tab(browser, tmp_path / "nasty.html", reduced_motion="reduce")
    for _ in range(3):
        tab.press("n")
        tab.page.wait_for_timeout(100)
        assert NASTY[:20] in (tab.page.locator("#card").text_content() or "")
    assert tab.page.locator("img").count() == 0
    assert NASTY.replace(" ", "\u00a0") in (tab.page.locator("#errors").text_content() or "")
    tab.close()


@each
def test_a_picked_box_shows_what_is_known(tab: Tab, scenes: list[Scene]) -> None:
    scene = scenes[0]
    tab.page.locator("#score").fill("0.3")
    (wrong,) = np.flatnonzero((scene.outcome() == Outcome.FALSE_POSITIVE) & (scene.score > 0.5))
    at = tab.get(f"place({wrong})")
    tab.page.mouse.click(at["x"], at["y"])
    assert tab.get("picked()") == wrong
    assert tab.page.locator("#card h2").inner_text() == "car"
    rows = dict(zip(texts_of(tab, "#card dt"), texts_of(tab, "#card dd"), strict=True))
    assert rows["outcome"] == "false positive"
    assert rows["score"] == f"{scene.score[wrong]:.3f}"
    assert rows["points"] == f"{scene.n_points[wrong]:,}"
    assert not [name for name in rows if name in scene.error_names]
    assert "car 0.80" in tab.page.locator("#said").inner_text()
    right = int(np.flatnonzero(scene.outcome() == Outcome.TRUE_POSITIVE)[0])
    at = tab.get(f"place({right})")
    tab.page.mouse.click(at["x"], at["y"])
    assert tab.get("picked()") == right  # of a pair the prediction is first
    rows = dict(zip(texts_of(tab, "#card dt"), texts_of(tab, "#card dd"), strict=True))
    assert rows["outcome"] == "true positive"
    for name, unit, value in zip(scene.error_names, scene.error_units, scene.errors[right], strict=True):
        assert rows[name] == f"{value:.2f} {unit}".strip()
    partner = int(scene.partner[right])
    assert rows["its truth"] == scene.texts[partner]
    tab.page.mouse.click(at["x"], at["y"])  # the same place again: the box behind
    assert tab.get("picked()") == partner
    assert dict(zip(texts_of(tab, "#card dt"), texts_of(tab, "#card dd"), strict=True))["outcome"] == "found truth"
    tab.page.locator("#other").click()
    assert tab.get("picked()") == right
    tab.press("Escape")
    assert tab.get("picked()") == -1
    assert tab.page.locator("#card").is_hidden()
    tab.page.mouse.click(600, 60)  # the sky
    assert tab.get("picked()") == -1


@each
def test_labels_say_what_was_missed(browser: Any, folder: Path) -> None:
    """In words, as pictures do: not by colour alone."""
    tab = Tab(browser, folder / "three.html", reduced_motion="reduce")
    tab.page.evaluate(
        "() => { const write = CanvasRenderingContext2D.prototype.fillText; window.written = [];"
        " CanvasRenderingContext2D.prototype.fillText = function (text, ...at) {"
        " window.written.push(text); write.call(this, text, ...at); }; }"
    )
    tab.press("a")
    tab.page.wait_for_timeout(300)
    written = set(tab.page.evaluate("window.written"))
    assert "car missed" in written
    assert sum("missed" in text for text in written) == 1, "what was found is not"
    assert any(text.startswith("car 0.90") for text in written)
    tab.close()


@each
def test_dragging_turns_and_does_not_pick(tab: Tab) -> None:
    before = tab.get("camera()")
    at = tab.get("place(0)")
    tab.page.mouse.move(at["x"], at["y"])
    tab.page.mouse.down()
    tab.page.mouse.move(at["x"] + 120, at["y"] + 30, steps=4)
    tab.page.mouse.up()
    tab.settle()
    after = tab.get("camera()")
    assert np.linalg.norm(np.subtract(after["position"], before["position"])) > 2
    assert tab.get("picked()") == -1
    tab.press("x")
    tab.settle()
    np.testing.assert_allclose(tab.get("camera()")["position"], before["position"], atol=1e-3)


@each
def test_the_camera_flies_between_presets(browser: Any, folder: Path) -> None:
    tab = Tab(browser, folder / "three.html")
    tab.page.locator("[data-view=bird]").click()
    tab.settle()
    x, y, z = tab.get("camera()")["position"]
    assert abs(x) < 0.1
    assert abs(y) < 0.1
    assert z > 80
    tab.press("v", "n")
    tab.press("g")
    tab.settle()
    picked = tab.get("picked()")
    assert picked >= 0
    place = tab.get(f"place({picked})")
    assert place["x"] == pytest.approx(600, abs=3)
    assert place["y"] == pytest.approx(400, abs=3)
    tab.close()


@each
def test_frames_change_by_slider_button_key_and_link(browser: Any, folder: Path, tab: Tab) -> None:
    def is_at(k: int) -> None:
        tab.at_frame(FRAMES[k])
        assert tab.page.locator("#at").inner_text() == f"{k + 1} / 3"

    tab.page.locator("#frame").fill("2")
    is_at(2)
    tab.page.locator("#after").click()
    is_at(0)
    tab.page.locator("#before").click()
    is_at(2)
    tab.page.locator("#stage").focus()
    tab.press("ArrowLeft")
    is_at(1)
    assert tab.page.evaluate("decodeURIComponent(location.hash)") == f"#frame={FRAMES[1]}"
    tab.page.locator("#play").click()
    is_at(2)
    is_at(0)
    tab.page.locator("#play").click()
    for after, frame in (("#frame=third", "third"), ("#frame=nothing", "first"), ("#frame=%", "first")):
        other = Tab(browser, folder / "three.html", after=after)
        assert other.get("frame()") == frame
        other.close()


@each
def test_the_score_slider_and_the_best_scores(tab: Tab, scenes: list[Scene]) -> None:
    scene = scenes[0]
    assert tab.page.locator("#least").inner_text() == "auto"
    tab.page.locator("#score").fill("0.15")
    assert tab.page.locator("#least").inner_text() == "0.15"
    assert not tab.page.locator("#auto").is_checked()
    weak = int(np.flatnonzero(np.isclose(scene.score, 0.2))[0])
    assert weak in tab.get("shown()")
    assert texts_of(tab, "#counts div") == ["1\ntrue positive", "2\nfalse positive", "1\nmissed"]
    tab.page.locator("#stage").focus()
    tab.press("=", "=")  # 0.25
    assert weak not in tab.get("shown()")
    assert texts_of(tab, "#counts div")[1] == "1\nfalse positive"
    tab.page.locator("#score").fill("1")
    assert texts_of(tab, "#counts div") == ["0\ntrue positive", "0\nfalse positive", "2\nmissed"]
    tab.page.locator("#auto").check()
    assert tab.get("outcomes()") == scene.outcome().tolist()


@each
@pytest.mark.parametrize(("cutoff", "key", "least"), [(0.125, "=", "0.20"), (0.125, "-", "0.10"), (0.83, "=", "0.90")])
def test_the_first_step_of_the_least_score_begins_at_the_cutoffs(
    cutoff: float, key: str, least: str, browser: Any, tmp_path: Path, scenes: list[Scene]
) -> None:
    """The slider stands there already, and the box beside it lets go there; test_viz_window.py has the same steps."""
    odd = [0, 1, np.inf][: len(scenes[0].cutoff)]
    cutoffs = np.array([cutoff] * len(scenes[0].cutoff) + odd, np.float32)
    score = np.where(np.isclose(scenes[1].score, 0.9), np.float32(3), scenes[1].score)
    others = [dataclasses.replace(scenes[1], score=score)]
    write_html([dataclasses.replace(scenes[0], cutoff=cutoffs), *others], tmp_path / "cutoffs.html")
    tab = Tab(browser, tmp_path / "cutoffs.html", reduced_motion="reduce")
    slider = tab.page.locator("#score")
    assert float(slider.input_value()) == pytest.approx(cutoff, abs=0.006)
    shown = tab.get("shown()")
    tab.page.locator("#auto").uncheck()
    assert float(tab.page.locator("#least").inner_text()) == pytest.approx(cutoff, abs=0.006)
    assert tab.get("shown()") == shown, "all classes have this cutoff: nothing comes or goes"
    tab.page.locator("#auto").check()
    tab.page.locator("#stage").focus()
    tab.press(key)
    assert tab.page.locator("#least").inner_text() == least
    tab.press(*["="] * 60)
    assert tab.page.locator("#least").inner_text() == "3.00", "the highest score of all frames"
    tab.press(*["-"] * 70)
    assert tab.page.locator("#least").inner_text() == "0.00"
    tab.close()


@each
def test_layers_and_rows_of_the_legend_hide(tab: Tab, scenes: list[Scene]) -> None:
    scene = scenes[0]
    tab.page.locator("#score").fill("0.3")
    tab.page.locator("#stage").focus()
    for k, layer in enumerate(LAYERS):
        box = tab.page.locator(f"#layer-{layer}")
        assert box.is_checked()
        tab.press(str((k + 1) % 10))
        assert not box.is_checked()
        without = Look(layers=frozenset(LAYERS) - {layer}, min_score=0.3)
        assert tab.get("shown()") == np.flatnonzero(without.visible(scene)).tolist()
        assert tab.get("labelled()") == np.flatnonzero(without.labelled(scene)).tolist()
        assert tab.page.locator("#key").is_visible() == (layer != "legend")
        box.check()
    tab.press("a")
    assert tab.get("labelled()") == np.flatnonzero(Look(labels="all", min_score=0.3).labelled(scene)).tolist()
    tab.page.locator("#rows button", has_text="false positive").click()
    wrong = scene.outcome(0.3) == Outcome.FALSE_POSITIVE
    assert tab.get("shown()") == np.flatnonzero(Look(min_score=0.3).visible(scene) & ~wrong).tolist()
    assert tab.page.locator("#rows button", has_text="false positive").get_attribute("aria-pressed") == "false"
    assert texts_of(tab, "#counts div")[1] == "1\nfalse positive"  # hidden, not unmade
    tab.page.locator("#boxes").select_option("score")
    assert texts_of(tab, "#rows li") == [row.text for row in scene.legend(DARK, "score")]


@each
def test_points_and_lines_disappear_with_their_layer(browser: Any, folder: Path) -> None:
    tab = Tab(browser, folder / "three.html", reduced_motion="reduce")
    tab.press("2", "3", "9")  # no boxes, no labels
    empty = DARK.background

    def drawn() -> int:
        return 1200 * 800 - tab.pixels(empty)

    everything = drawn()
    tab.press("1")
    lines = drawn()
    assert lines < everything - 2000
    tab.press("7")
    car = drawn()
    assert 100 < car < lines - 500
    tab.press("8")
    assert drawn() == 0
    tab.close()


@each
def test_a_line_to_a_match_needs_both_boxes(browser: Any, tmp_path: Path, scenes: list[Scene]) -> None:
    few = Look(theme=LIGHT, layers=frozenset({"truth", "predictions", "matches"}))
    write_html(scenes[0], tmp_path / "matches.html", look=few, view="bird")
    tab = Tab(browser, tmp_path / "matches.html", reduced_motion="reduce")
    tab.press("n", "g", "u")  # near the nearest pair

    def dark() -> int:
        """Pixels of the line, which the boxes around it tint a little; no box is so dark."""
        return int((tab.picture().max(axis=2) < 105).sum())

    assert dark() > 20
    tab.press("2")
    assert dark() == 0
    tab.press("2", "3")
    assert dark() == 0
    tab.press("3")
    assert dark() > 20
    tab.close()


@each
def test_the_keys_are_listed_and_the_picture_saved(tab: Tab, tmp_path: Path) -> None:
    from PIL import Image

    tab.press("h")
    assert tab.page.locator("#help").is_visible()
    assert "best F1" in tab.page.locator("#help").inner_text()
    tab.press("2")  # keys rest while the list is open
    tab.press("Escape")
    assert tab.page.locator("#help").is_hidden()
    assert tab.page.locator("#layer-truth").is_checked()
    with tab.page.expect_download() as download:
        tab.press("s")
    assert download.value.suggested_filename == "first.png"
    download.value.save_as(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png").convert("RGB")
    assert image.size == (1200, 800)
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 200  # not an empty sheet


@each
def test_the_keyboard_alone_reaches_everything(tab: Tab) -> None:
    tab.press("Tab")
    reached = [tab.page.evaluate("document.activeElement.id || document.activeElement.textContent")]
    for _ in range(40):
        tab.press("Tab")
        reached.append(tab.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached[0] == "stage"
    assert {"fold", "points", "boxes", "size", "score", "auto", "theme", "shot", "ask", "play", "frame"} <= set(reached)
    assert {f"layer-{layer}" for layer in LAYERS} <= set(reached)


@each
@pytest.mark.parametrize("name", ["nasty", "points only"])
def test_strange_files(browser: Any, folder: Path, name: str) -> None:
    tab = Tab(browser, folder / f"{name}.html", reduced_motion="reduce")
    if name == "nasty":
        assert tab.page.title() == NASTY
        tab.press("ArrowRight")
        tab.at_frame(NASTY)
        tab.press("b", "n")
        assert tab.page.locator("#card h2").text_content() == NASTY
        assert NASTY in (tab.page.locator("#rows").text_content() or "")
        assert tab.page.locator("img").count() == 0
    else:
        assert tab.page.locator("#film").is_hidden()
        assert tab.page.locator("#scores").is_hidden()
        assert texts_of(tab, "#counts div") == []
        tab.press("n", "g", "c", "b", "v")
    tab.close()


@each
def test_it_fits_a_phone_and_takes_touch(browser: Any, folder: Path, scenes: list[Scene]) -> None:
    tab = Tab(
        browser,
        folder / "three.html",
        viewport={"width": 360, "height": 740},
        is_mobile=True,
        has_touch=True,
        device_scale_factor=2,
    )
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.page.locator("#layer-points").is_hidden()
    tab.page.locator("#fold").tap()
    assert tab.page.locator("#layer-points").is_visible()
    tab.page.locator("[data-view=follow]").tap()
    tab.page.locator("#layer-legend").uncheck()
    tab.page.locator("#fold").tap()
    tab.settle()
    right = int(np.flatnonzero(scenes[0].outcome() == Outcome.TRUE_POSITIVE)[0])
    at = tab.get(f"place({right})")
    tab.page.touchscreen.tap(at["x"], at["y"])
    assert tab.get("picked()") == right
    for name in ("#head", "#card", "#film", "#menu"):
        box = tab.page.locator(name).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert box["y"] + box["height"] <= 740
    tab.close()


@each
def test_a_notebooks_frame_works(browser: Any, scenes: list[Scene]) -> None:
    from playwright.sync_api import expect

    context = browser.new_context(viewport={"width": 1000, "height": 700})
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.set_content(f"<p>cell</p>{Page(scenes)._repr_html_()}<p>cell</p>")
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready=yes]").wait_for(timeout=30_000)
    frame.locator("#after").click()
    expect(frame.locator("#at")).to_have_text("2 / 3")
    assert faults == []
    context.close()


@each
def test_without_webgl_it_says_so(browser: Any, folder: Path) -> None:
    blind = browser.browser_type.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-3d-apis"])
    page = blind.new_page()
    page.goto((folder / "three.html").as_uri())
    page.wait_for_selector("html[data-ready=no]")
    assert "needs WebGL" in page.locator("#fault").inner_text()
    blind.close()


@each
def test_a_browser_that_cannot_unpack_is_told_so(browser: Any, folder: Path) -> None:
    context = browser.new_context()
    context.add_init_script("delete window.DecompressionStream")
    page = context.new_page()
    page.goto((folder / "three.html").as_uri())
    page.wait_for_selector("html[data-ready=no]")
    assert "cannot unpack" in page.locator("#fault").inner_text()
    assert page.locator("button").count() == 0, "there is nothing that would do something"
    context.close()


@each
@pytest.mark.parametrize("index", [0, 1])
def test_a_damaged_frame_stops_the_film_and_says_so(
    index: int, browser: Any, tmp_path: Path, scenes: list[Scene]
) -> None:
    from playwright.sync_api import expect

    path = tmp_path / "damaged.html"
    write_html(scenes, path)
    text = path.read_text()
    start = text.index(f'id="arrays{index}">') + 200
    path.write_text(f"{text[:start]}{'A' * 400}{text[start + 400 :]}")
    ready = "no" if index == 0 else "yes"
    tab = browsing.Tab(browser, path, ready=f"html[data-ready={ready}]", reduced_motion="reduce")
    said, play = tab.page.locator("#spoilt"), tab.page.locator("#play")
    if index:
        expect(said).to_be_hidden()
        play.click()
        expect(said).to_contain_text(f"Still shown: {scenes[0].title}")
        expect(play).to_have_attribute("aria-pressed", "false")
        expect(play).to_have_text("▶")
    expect(said).to_contain_text(f"Frame {index + 1}, {scenes[index].frame}, cannot be unpacked")
    if index:
        tab.page.locator("#after").click()
        expect(tab.page.locator("html")).to_have_attribute("data-frame", scenes[2].frame)
        expect(said).to_be_hidden()
        tab.page.locator("#before").click()
        expect(said).to_be_visible()
    tab.close()


@each
@needs_data
def test_real_clouds(browser: Any, tmp_path: Path) -> None:
    """126,891 points of KITTI with the two boxes of the frame, one file under 3 MB."""
    place = SHARED / "kitti" / "training"
    boxes = kitti.load_truth(place / "label_2" / "000002.txt", place / "calib" / "000002.txt")
    cloud = clouds.read(place / "velodyne" / "000002.bin")
    scene = build_scene(cloud, boxes, boxes_to_cloud=IDENTITY)
    write_html(scene, tmp_path / "kitti.html", look=Look(points="intensity"))
    assert (tmp_path / "kitti.html").stat().st_size < 3_000_000
    tab = Tab(browser, tmp_path / "kitti.html", reduced_motion="reduce")
    assert "126,891 points" in tab.page.locator("#source").inner_text()
    assert texts_of(tab, "#rows li") == ["truth\n2"]
    tab.press("n")
    rows = dict(zip(texts_of(tab, "#card dt"), texts_of(tab, "#card dd"), strict=True))
    assert tab.page.locator("#card h2").inner_text() == "Misc"
    assert rows["points"] == "1,351"
    assert tab.pixels(DARK.outcomes[Outcome.TRUTH]) > 40
    tab.close()


def test_themes_are_all_in_the_page(scenes: list[Scene]) -> None:
    text = Page(scenes[0], look=Look(theme=LIGHT)).html()
    assert '<html lang="en" data-theme="light">' in text
    for theme in THEMES.values():
        assert f"--background:{theme.background}" in text


@each
@pytest.mark.parametrize("name", ["dusk", "dark", '"></style>'])
def test_a_theme_of_ones_own_is_seen_and_comes_back(
    name: str, browser: Any, tmp_path: Path, scenes: list[Scene]
) -> None:
    own = dataclasses.replace(LIGHT, name=name, background="#ffe0c0", outcomes=("#123456",) * len(Outcome))
    look = Look(theme=own, layers=frozenset({"truth", "predictions"}))
    write_html(scenes[0], tmp_path / "own.html", look=look)
    tab = Tab(browser, tmp_path / "own.html", reduced_motion="reduce")
    assert tab.page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert tab.pixels("#123456") > 40
    for background, offered in ((own, "Dark"), (DARK, "Light"), (LIGHT, "Own"), (own, "Dark")):
        assert tab.pixels(background.background) > 100_000
        assert tab.page.locator("#theme").text_content() == offered
        tab.press("t")
    tab.close()
