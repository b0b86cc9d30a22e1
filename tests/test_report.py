"""The report: what is collected, that nothing in it can break out of its place, and the file itself; no browser here."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import numpy as np
import pytest

import detmetrics as dm
import make
from detmetrics.framing import first_order
from detmetrics.ledger import Fate
from detmetrics.protocol import Composite, ErrorKind, Task
from detmetrics.reporting import cells, page, provenance
from detmetrics.reporting.comparing import as_markdown
from detmetrics.reporting.contents import SAYS, _findings, contents
from detmetrics.reporting.runs import Settings, compared, compute
from detmetrics.synth import make_boxes

pytest.importorskip("jinja2")

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'&{{7*7}} `|\u2028"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def settings(**changes: Any) -> Settings:
    values = {"by": ("range",), "n": 20, "unit": "scene", "seed": 0, "level": 0.95, "absent": "official"}
    return Settings(**({**values, "threads": 1, "n_worst": 5} | changes))


def collected(*ledgers: dm.Ledger, names: tuple[str, ...] = ("one", "two"), **changes: Any) -> dict[str, Any]:
    wanted = settings(**changes)
    runs = [compute(name, one, wanted, lambda *_: None) for name, one in zip(names, ledgers, strict=False)]
    found = contents(
        runs, wanted, title="a title", made="now", images=[{}] * len(runs), links=[{}] * len(runs), options={}
    )
    json.dumps(found, allow_nan=False)  # plain values, nothing undefined but None
    return found


class Elements(HTMLParser):
    """All start tags, and the text of the JSON block."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures, self.inside = "", False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script" and ("id", "figures") in attrs

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.figures += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def checked(html: str, links: tuple[str, ...] = ()) -> Elements:
    """The page is under 3 MB, has our three scripts, asks nobody, and each name stands once as an id."""
    assert len(html.encode()) < 3e6
    page_ = Elements(html)
    assert sum(tag == "script" for tag, _ in page_.tags) == 3
    assert not {tag for tag, _ in page_.tags} & {"iframe", "object", "embed", "base", "form"}
    for tag, attributes in page_.tags:
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")) or value in links, (tag, name, value)
    ids = [attributes["id"] for _, attributes in page_.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in page_.tags if tag == "a" and str(a.get("href")).startswith("#")}
    assert targets <= set(ids)
    for one in json.loads(page_.figures):
        assert one["id"] in ids
    return page_


@pytest.fixture(scope="module")
def pair() -> tuple[dm.Ledger, dm.Ledger]:
    truth, strong = make_boxes(n_frames=40, samples_per_scene=5, boxes_per_sample=40, seed=1)
    _, weak = make_boxes(n_frames=40, samples_per_scene=5, boxes_per_sample=40, seed=1, quality=0.5)
    return dm.match(truth, weak, dm.NUSCENES), dm.match(truth, strong, dm.NUSCENES)


def tables(found: dict[str, Any]) -> dict[str, Any]:
    return {b["id"]: b for section in found["sections"] for b in section["blocks"] if b["kind"] == "table"}


def figures(found: dict[str, Any]) -> dict[str, Any]:
    return {b["id"]: b for section in found["sections"] for b in section["blocks"] if b["kind"] == "figure"}


def test_the_numbers_are_those_of_the_library(pair: tuple[dm.Ledger, dm.Ledger]) -> None:
    found = collected(*pair)
    table = tables(found)
    boots = [dm.bootstrap(one, n=20) for one in pair]
    comparison = dm.compare(*pair, n=20)
    for head, boot in zip(found["headline"], boots, strict=True):
        one = boot["NDS"]
        assert head["composite"] == cells.number(*one[:3])
        assert head["composite"]["text"] == f"{one.value:.4f}"
    titles = [column["title"] for column in table["comparison-0"]["columns"]]
    for row in table["comparison-0"]["rows"]:
        d = comparison[row[0]["text"]]
        cell = row[titles.index("difference")]
        assert cell["value"] == pytest.approx(d.difference, rel=1e-5, abs=1e-12)
        assert cell.get("low") == (None if np.isnan(d.low) else pytest.approx(d.low, rel=1e-5))
    scores = dm.score(pair[1])
    ap = [column["title"] for column in table["classes-table"]["columns"]].index("AP")
    for row in table["classes-table"]["rows"]:
        if row[1]["text"] == "two":
            assert row[ap]["value"] == pytest.approx(scores.class_ap[row[0]["text"]], rel=1e-5)
    slices = dm.slices(pair[1], "range")
    of_two = [row for row in table["slices-0-table"]["rows"] if row[1]["text"] == "two"]
    assert [row[0]["text"] for row in of_two] == list(slices.names)
    assert [row[2]["text"] for row in of_two] == [f"{one.composite:.4f}" for one in slices.scores]
    prices = {row[0]["text"].replace(" ", "_"): row[1]["value"] for row in table["causes-table"]["rows"]}
    for cause, price in dm.diagnose(pair[1]).prices.items():
        assert prices[cause] == pytest.approx(price["NDS"], rel=1e-5)
    curve = figures(found)["precision-recall"]["data"]
    assert curve["precision"][1][1 + dm.NUSCENES.labels.index("car")][2] == [
        None if confidence == 0 else round(1000 * precision)
        for precision, confidence in zip(
            scores.curve("car", 2.0).precision, scores.curve("car", 2.0).confidence, strict=True
        )
    ]
    confusion = np.array(figures(found)["confusion-1"]["data"]["counts"])
    assert np.array_equal(confusion, dm.operating_points(pair[1]).confusion)
    frames = dm.frames(pair[1])
    listed = [row[0]["text"] for row in table["frames-1"]["rows"]]
    assert listed == [pair[1].truth.frames[f] for f in frames.worst(5)]
    titles = [column["title"] for column in table["frames-1"]["columns"]]
    for row, f in zip(table["frames-1"]["rows"], frames.worst(5).tolist(), strict=True):
        assert [row[titles.index(name)]["value"] for name in ("TP", "FP", "missed")] == [
            frames.tp[f], frames.fp[f], frames.fn[f]
        ]  # fmt: skip
        for name, mean in zip(dm.NUSCENES.error_names, frames.error_mean[f].tolist(), strict=True):
            value = row[titles.index(name)]["value"]
            assert np.isnan(mean) if value is None else value == pytest.approx(mean, rel=1e-5)
    assert (frames.tp[frames.worst(5)] > 1).any(), "else a sum would pass for a mean"
    assert "two is" in found["findings"][0]["lead"]
    assert any(one["lead"].startswith("Repairing") for one in found["findings"])
    assert any("only 8 scenes" in words for words in found["warnings"])


def test_what_costs_next_to_nothing_is_no_finding(pair: tuple[dm.Ledger, dm.Ledger]) -> None:
    run = compute("x", pair[0], settings(by=(), n=0), lambda *_: None)
    prices = {"dear": 0.0006, "cheap": 0.0004}
    rows = [{"cause": cause, "meaning": "made up", "predictions": 1, "truths": 0} for cause in prices]
    diagnosis: Any = SimpleNamespace(
        prices={cause: {"NDS": price} for cause, price in prices.items()}, to_rows=lambda: rows
    )
    leads = [one["lead"] for one in _findings([dataclasses.replace(run, diagnosis=diagnosis)], [])]
    assert [lead for lead in leads if lead.startswith("Repairing")] == ["Repairing “dear” alone would give +0.0006 NDS"]


@pytest.mark.parametrize(("n_truth", "weakest"), [(19, "middle"), (20, "worst")])
def test_small_slices_are_no_finding(pair: tuple[dm.Ledger, dm.Ledger], n_truth: int, weakest: str) -> None:
    class Slices(dict[str, Any]):
        by, whole = "place", SimpleNamespace(composite=0.5)

        def __iter__(self) -> Any:
            return iter(self.items())

    scores = {"worst": (0.1, n_truth), "middle": (0.3, 200), "best": (0.7, 200)}
    parts = {
        name: SimpleNamespace(composite=value, n_truth=np.array([n - 5, 5])) for name, (value, n) in scores.items()
    }
    run = compute("x", pair[0], settings(by=(), n=0), lambda *_: None)
    sliced: Any = [SimpleNamespace(scores=Slices(parts), boots={})]
    leads = [one["lead"] for one in _findings([dataclasses.replace(run, sliced=sliced)], [])]
    (lead,) = [lead for lead in leads if lead.startswith("Weakest by")]
    assert lead.endswith(f": {weakest}")


def test_every_box_has_a_fate_in_words() -> None:
    """Argoverse 2 has one that nuScenes has not: beyond the hundred best."""
    truth, pred = make.sweeps(0)
    ledger = dm.match(truth, pred, msgspec.structs.replace(dm.ARGOVERSE2, cap_per_task=1))
    assert (ledger.pred_fate == Fate.OVER_CAP).any()
    table = tables(collected(ledger, n=0, unit="frame"))["fates"]
    counts = np.array([[cell["value"] for cell in row[1:]] for row in table["rows"]])
    assert counts.sum(axis=0).tolist() == [len(truth), len(pred)]


def test_every_error_has_a_word() -> None:
    assert set(SAYS) == set(get_args(ErrorKind))


def test_the_difference_is_that_of_compare(pair: tuple[dm.Ledger, dm.Ledger]) -> None:
    runs = [compute("x", one, settings(), lambda *_: None) for one in pair]
    mine, theirs = compared(*runs), dm.compare(*pair, n=20)
    assert mine is not None
    for name in theirs.names:
        np.testing.assert_array_equal(mine[name], theirs[name])


def test_differences_of_errors_bear_their_units(pair: tuple[dm.Ledger, dm.Ledger]) -> None:
    """One axis for all: without them, metres and radians look alike."""
    data = figures(collected(*pair))["differences"]["data"]
    assert data["labels"] == [
        "NDS", "mAP", "ATE (m)", "ASE (1 - IoU)", "AOE (rad)", "AVE (m/s)", "AAE (1 - acc)",
    ]  # fmt: skip
    assert data["views"][1]["labels"] == [f"AP/{label}" for label in dm.NUSCENES.labels]


def test_no_p_value_is_shown_as_zero() -> None:
    """Here what is told from the spread is below all decimals."""
    size = {"n_frames": 100, "samples_per_scene": 5, "boxes_per_sample": 40, "seed": 1}
    pair = [dm.match(*make_boxes(**size, quality=quality), dm.NUSCENES) for quality in (1.0, 0.2)]
    comparison = dm.compare(*pair, n=20)
    assert comparison["NDS"].p_value < 0.00005
    row = tables(collected(*pair))["comparison-0"]["rows"][0]
    assert row[4]["text"] == "<0.0001"
    assert row[4]["value"] == pytest.approx(comparison["NDS"].p_value, rel=1e-5)
    for told in (str(comparison), as_markdown(comparison, None, {}, ("a", "b"))):
        assert "<0.0001" in told


def test_only_frames_that_were_asked_about_have_a_cost(pair: tuple[dm.Ledger, dm.Ledger]) -> None:
    every, some = dm.frames(pair[0]), dm.frames(pair[0], among=7)
    known = ~np.isnan(some.cost)
    assert known.sum() == 7
    np.testing.assert_array_equal(some.cost[known], every.cost[known])
    assert np.corrcoef(first_order(pair[0]), every.cost)[0, 1] > 0.5
    assert every.cost[known].mean() > np.sort(every.cost)[-20:].mean()
    assert set(some.worst(7)) == set(np.flatnonzero(known))


ODD = (
    "no predictions",
    "no truth",
    "nothing",
    "nothing, twice",
    "nothing against something",
    "one frame",
    "no scenes",
    "all unknown",
    "three errors",
)


@functools.cache
def odd() -> dict[str, tuple[dm.Ledger, ...]]:
    """Inputs that a report must survive."""
    truth, pred = make_boxes(n_frames=12, samples_per_scene=4, boxes_per_sample=20, seed=2)
    nothing = dm.Boxes(
        center_m=np.empty((0, 3)), size_lwh_m=np.empty((0, 3)), yaw_rad=[], label=[], frame=[], score=[],
        frames=truth.frames,
    )  # fmt: skip
    no_truth = dm.Boxes(
        center_m=np.empty((0, 3)), size_lwh_m=np.empty((0, 3)), yaw_rad=[], label=[], frame=[], frames=truth.frames
    )
    box = {"size_lwh_m": [[4, 2, 1.5]], "yaw_rad": [0.0], "label": ["car"], "frame": ["only"]}
    alone = dm.Boxes(center_m=[[5, 0, 0]], **box)
    alone_pred = dm.Boxes(center_m=[[5.2, 0, 0]], score=[0.5], **box)
    lost = {"velocity_mps": np.full((len(pred), 2), np.nan), "attribute": None}
    short = msgspec.structs.replace(
        dm.NUSCENES,
        name="three errors",
        errors=dm.NUSCENES.errors[:3],
        tasks=tuple(msgspec.structs.replace(task, undefined=()) for task in dm.NUSCENES.tasks),
        composite=Composite(name="CDS", map_weight=1, error_weights={"ATE": 1, "ASE": 1, "AOE": 1}),
    )
    return {
        "no predictions": (dm.match(truth, nothing, dm.NUSCENES),),
        "no truth": (dm.match(no_truth, pred, dm.NUSCENES),),
        "nothing": (dm.match(no_truth, nothing, dm.NUSCENES),),
        "nothing, twice": (dm.match(no_truth, nothing, dm.NUSCENES),) * 2,
        "nothing against something": (dm.match(truth, pred, dm.NUSCENES), dm.match(truth, nothing, dm.NUSCENES)),
        "one frame": (dm.match(alone, alone_pred, dm.NUSCENES),) * 2,
        "no scenes": (dm.match(truth.replace(frame_columns={}), pred, dm.NUSCENES),),
        "all unknown": (dm.match(truth, pred.replace(**lost), dm.NUSCENES),),
        "three errors": (dm.match(truth, pred, short),),
    }


@pytest.mark.parametrize("name", ODD)
def test_odd_inputs(name: str) -> None:
    assert set(ODD) == set(odd())
    found = collected(*odd()[name])
    checked(page.render(found))
    words = " ".join(found["warnings"])
    if name in ("one frame", "no scenes"):
        assert "no intervals" in words
        assert "low" not in found["headline"][0]["composite"]
    if name in ("no predictions", "nothing"):
        assert "no prediction counts" in words
    if name in ("no truth", "nothing"):
        assert "no truth counts" in words
    if name == "three errors":
        assert found["headline"][0]["name"] == "CDS"
        assert not any(found["official"])
    if name == "all unknown":
        assert "predictions without velocities" in words


def many(n: int, *, named: str = "class") -> tuple[dm.Ledger, dm.Ledger]:
    """Two runs of many classes, 5 of each a scene."""
    rng = np.random.default_rng(0)
    labels = [f"{named} {i}" for i in range(n)]
    protocol = msgspec.structs.replace(
        dm.NUSCENES, name=named, tasks=tuple(Task(label=label, range_m=80) for label in labels), mapping={}, regions={}
    )
    size = 10 * n
    frame = np.repeat(np.arange(10), n)
    shared: dict[str, Any] = {
        "size_lwh_m": np.tile([4.0, 2, 1.5], (size, 1)), "yaw_rad": rng.uniform(-3, 3, size), "label": np.tile(np.arange(n), 10),
        "labels": labels, "frame": frame, "frames": [f"{named} {i}" for i in range(10)],
        "velocity_mps": rng.normal(size=(size, 2)), "attribute": np.zeros(size, int), "attributes": ["vehicle.moving"],
    }  # fmt: skip
    center = rng.uniform(-50, 50, (size, 3)) * [1, 1, 0]
    truth = dm.Boxes(
        center_m=center,
        num_points=np.ones(size),
        frame_columns={"scene": [f"{named} {i // 2}" for i in range(10)]},
        **shared,
    )
    preds = [
        dm.Boxes(center_m=center + rng.normal(0, noise, (size, 3)), score=rng.random(size), meta={named: named}, source=named, **shared)
        for noise in (0.3, 0.9)
    ]  # fmt: skip
    return dm.match(truth, preds[0], protocol), dm.match(truth, preds[1], protocol)


def test_two_hundred_classes_in_three_megabytes() -> None:
    found = collected(*many(200), n=5)
    checked(page.render(found))
    assert len(tables(found)["classes-table"]["rows"]) == 400
    assert len(figures(found)["confusion-0"]["data"]["rows"]) == 25
    told = found["sections"][2]["blocks"][-1]["text"]
    assert "in this file one in " in told  # curves are thinned, and it says so
    assert "shaded border" in told


def test_pictures_and_links_of_each_run(tmp_path: Path) -> None:
    ledgers = many(3)
    frames = ledgers[0].truth.frames
    out, places = tmp_path / "report.html", ("one/", "two/")
    links = [{frame: f"{place}{i}" for i, frame in enumerate(frames)} for place in places]
    given: dict[str, Any] = {"names": ["one", "two"], "n": 0, "by": [], "n_worst": 3, "threads": 1}
    dm.report(ledgers, out, images=[{}, dict.fromkeys(frames, PNG)], links=links, **given)
    first, _, second = out.read_text().partition("two: the frames that cost most")
    assert "one/" in first
    assert "two/" not in first
    assert "two/" in second
    assert "one/" not in second
    assert "<img" not in first
    assert "<img" in second
    for name in ("images", "links"):
        with pytest.raises(dm.InputError, match=f"{name} must be one mapping, or one for each of the 2 runs, got 3"):
            dm.report(ledgers, out, **{name: [{}] * 3}, **given)


def test_the_summary_says_what_its_small_numbers_are() -> None:
    told = "Small numbers: 90 % intervals, or half their width after ±, from 30 draws of scenes"
    assert collected(*many(3), level=0.9, n=30)["intervals"].startswith(told)
    assert collected(*many(3), n=0)["intervals"] == ""


def test_no_class_is_weakest_where_all_are_alike() -> None:
    truth = many(3)[0].truth
    nothing = dm.Boxes(
        center_m=np.empty((0, 3)), size_lwh_m=np.empty((0, 3)), yaw_rad=[], label=[], frame=[], score=[],
        frames=truth.frames,
    )  # fmt: skip
    ledger = dm.match(truth, nothing, many(3)[0].protocol)
    assert not any("Weakest class" in one["lead"] for one in collected(ledger, n=0)["findings"])
    assert any("Weakest class" in one["lead"] for one in collected(many(3)[0], n=0)["findings"])


def test_one_frame_is_one_frame() -> None:
    truth, pred = make_boxes(n_frames=1, samples_per_scene=1, boxes_per_sample=10, seed=1)
    told = json.dumps(collected(dm.match(truth, pred, dm.NUSCENES), n=0))
    assert "the truth has 1 frame; " in told
    assert "1 frames" not in told


def test_the_note_on_p_names_the_level() -> None:
    for level, words in ((0.95, "p is below 0.05. "), (0.9, "p is below 0.1. ")):
        told = collected(*many(3), level=level)["sections"][0]["blocks"][-1]["text"]
        assert words in told
        assert f"about {100 - 100 * level:.0f} are called so" in told


def test_names_do_not_break_out(tmp_path: Path) -> None:
    ledgers = many(3, named=NASTY)
    frames = ledgers[0].truth.frames
    out = tmp_path / "report.html"
    dm.report(
        ledgers, out, names=[NASTY, NASTY + "2"], title=NASTY, n=5, by=["range", "scene"], n_worst=3, options={NASTY: NASTY},
        images=dict.fromkeys(frames, PNG), links=dict.fromkeys(frames, 'https://example.org/?a="><script>'), threads=1,
    )  # fmt: skip
    html = out.read_text()
    found = checked(html, links=('https://example.org/?a="><script>',))
    assert "alert(1)</script>" not in html.replace("\\u003c/script\\u003e", "")
    assert "{{7*7}}" in html  # not read as a template
    pictures = [a for tag, a in found.tags if tag == "img"]
    assert len(pictures) >= 3
    assert all(str(a["src"]).startswith("data:image/png;base64,") and NASTY in str(a["alt"]) for a in pictures)
    shown = json.loads(found.figures)
    assert shown[1]["data"]["labels"][0] == f"{NASTY} 0"


def test_what_the_file_promises(pair: tuple[dm.Ledger, dm.Ledger], tmp_path: Path) -> None:
    pair[0].save(tmp_path / "a.ledger")
    seen = []
    dm.report(tmp_path / "a.ledger", tmp_path / "r.html", n=0, progress=lambda *step: seen.append(step))
    html = (tmp_path / "r.html").read_text()
    found = checked(html)
    policy = next(a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "no intervals were asked for" in html
    assert pair[0].truth.digest in html
    assert pair[0].pred.digest in html
    assert dm.score(pair[0]).signature in html
    assert len(seen) > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ledger", "r.html"]


def test_bad_input(pair: tuple[dm.Ledger, dm.Ledger], tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    frame = str(pair[0].truth.frames[0])
    other = dm.match(*make_boxes(n_frames=8, samples_per_scene=4, boxes_per_sample=9, seed=5), dm.NUSCENES)
    for message, ledgers, changes in (
        ("no run", [], {}),
        ("frames of baseline and candidate", [pair[0], other], {}),
        ("names must be one for each", pair, {"names": ["a"]}),
        ("different and not empty", pair, {"names": ["a", "a"]}),
        ("links must be web addresses", pair, {"links": {frame: " java\nscript:alert(1)"}}),
        ("links must be web addresses", pair, {"links": {frame: "data:text/html,x"}}),
        ("PNG, JPEG or WebP", pair[0], {"images": dict.fromkeys(pair[0].truth.frames, b"<svg onload=alert(1)>")}),
        (
            "PNG, JPEG or WebP",
            pair[0],
            {"images": dict.fromkeys(pair[0].truth.frames, b"RIFF\x10\x00\x00\x00WAVEfmt ")},
        ),
        ("cannot read", pair[0], {"images": dict.fromkeys(pair[0].truth.frames, tmp_path / "no.png")}),
        ("unknown attribute to slice by", pair[0], {"by": ["wether"]}),
        ("unit 'sceen'", pair[0], {"unit": "sceen"}),
    ):
        with pytest.raises(dm.InputError, match=message):
            dm.report(ledgers, out, **({"n": 5, "threads": 1} | changes))
    with pytest.raises(dm.InputError, match="folder that exists"):
        dm.report(pair[0], tmp_path / "no" / "r.html")
    assert not list(tmp_path.iterdir())


def test_without_intervals_the_differences_still_stand(pair: tuple[dm.Ledger, dm.Ledger]) -> None:
    table = tables(collected(*pair, n=0))["comparison-0"]
    flat = [dm.score(one).to_flat_dict() for one in pair]
    for name, first, second, difference, *_ in table["rows"]:
        values = [one[name["text"]] for one in flat]
        assert [first["value"], second["value"]] == [None if np.isnan(v) else float(f"{v:.6g}") for v in values]
        if not np.isnan(values).any():
            assert difference["value"] == pytest.approx(values[1] - values[0], rel=1e-5, abs=1e-12)


def test_one_scene_alone_has_no_intervals() -> None:
    truth, pred = make_boxes(n_frames=4, samples_per_scene=4, boxes_per_sample=9, seed=0)
    warnings = collected(dm.match(truth, pred, dm.NUSCENES))["warnings"]
    assert "no intervals: there is only 1 scene to draw" in warnings


def test_errors_over_recall_end_where_the_recall_does(pair: tuple[dm.Ledger, dm.Ledger]) -> None:
    scores = dm.score(pair[0])
    values = figures(collected(pair[0]))["error-recall"]["data"]["values"][0]
    reached = scores.confidence[:, scores.protocol.error_index] > 0
    assert not reached.all()
    car, shown = 0, np.array(values[1][0], dtype=float)  # after the mean; ATE
    np.testing.assert_array_equal(~np.isnan(shown), reached[car])


def test_classes_taken_together_keep_what_is_missed_apart() -> None:
    ledger = many(40)[1]
    whole = dm.operating_points(ledger).confusion
    data = figures(collected(ledger))["confusion-0"]["data"]
    counts = np.array(data["counts"])
    assert data["rows"][-2:] == ["the other 17", "nothing"]
    assert counts.sum() == whole.sum()
    assert counts[:, -1].sum() == whole[:, -1].sum() > 0
    assert counts[-1].sum() == whole[-1].sum() > 0


def test_comparable_or_not() -> None:
    truth, pred = make_boxes(n_frames=4, samples_per_scene=2, boxes_per_sample=9, seed=0)
    ledger = dm.match(truth, pred, dm.NUSCENES)
    assert provenance.against_comparison(ledger, "official") == [
        "the truth has 4 frames; the official splits have 6,019 (val) and 6,008 (test)"
    ]
    # as if these frames were the whole of val
    frames = [*truth.frames, *(f"more {i}" for i in range(6015))]
    whole = {
        "frames": frames,
        "ego_xy_m": np.vstack((truth.ego_xy_m, np.zeros((6015, 2)))),
        "frame_columns": None,
        "frame_place": None,
    }
    columns = (
        "center_m",
        "size_lwh_m",
        "yaw_rad",
        "velocity_mps",
        "attribute",
        "attributes",
        "label",
        "labels",
        "frame",
    )
    full = [
        dm.Boxes(**{name: getattr(boxes, name) for name in columns}, **extra, **whole)
        for boxes, extra in ((truth, {"num_points": truth.num_points}), (pred, {"score": pred.score}))
    ]
    assert provenance.against_comparison(dm.match(*full, dm.NUSCENES), "official") == []
    reasons = {
        "left out of the means": (full, dm.NUSCENES, "omit"),
        "differs from nuscenes in 'curve'": (full, dm.Protocol.from_dict({"extends": "nuscenes", "name": "mine", "curve": {"min_recall": 0.2}}), "official"),
        "100.0% of the predictions have no velocity": ([full[0], full[1].replace(velocity_mps=None)], dm.NUSCENES, "official"),
        "these frames are a part of a larger data set": ([full[0].replace(partial=True), full[1]], dm.NUSCENES, "official"),
        "truth has no attributes": ([full[0].replace(attribute=None), full[1]], dm.NUSCENES, "official"),
    }  # fmt: skip
    for reason, (boxes, protocol, absent) in reasons.items():
        assert reason in "; ".join(provenance.against_comparison(dm.match(*boxes, protocol), absent)), reason
    partial = dataclasses.replace(dm.match(*full, dm.NUSCENES), n_extra_frames=3)
    assert "predictions in 3 frames" in provenance.against_comparison(partial, "official")[0]
    one = dataclasses.replace(partial, n_extra_frames=1)
    assert "predictions in 1 frame outside" in provenance.against_comparison(one, "official")[0]


def test_the_bundle_is_the_published_one() -> None:
    folder = page.ASSETS / "plotly"
    content = (folder / "plotly-cartesian.min.js").read_bytes()
    told = (folder / "README.md").read_text()
    assert hashlib.sha256(content).hexdigest() in told
    assert f"v{page.PLOTLY}".encode() in content[:200]
    assert f"@{page.PLOTLY}" in told
    for script in (content, (page.ASSETS / "report.js").read_bytes()):
        assert not re.search(rb"</script|<!--|\r", script, re.IGNORECASE)


def test_without_jinja2_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['jinja2'] = None; from detmetrics.cli import main; "
        f"sys.argv = ['detmetrics', 'report', 'nothing.json', '-o', {str(tmp_path / 'r.html')!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'detmetrics[report]'" in done.stderr


def test_the_command(pair: tuple[dm.Ledger, dm.Ledger], tmp_path: Path) -> None:
    for name, ledger in zip("ab", pair, strict=True):
        ledger.save(tmp_path / f"{name}.ledger")
    worst = str(pair[1].truth.frames[dm.frames(pair[1]).worst(1)[0]])
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / f"{worst}.png").write_bytes(PNG)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "detmetrics", "report", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    done = run("a.ledger", "b.ledger", "-o", "r.html", "--bootstrap", 10, "--by", "class+range=0,20,40", "--images",
               "pictures", "--link", "https://example.org/{frame}", "--title", "Nightly", "--worst", 3)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'a', 'b'" in done.stdout
    html = (tmp_path / "r.html").read_text()
    checked(html, tuple(f"https://example.org/{frame}" for frame in pair[0].truth.frames))
    assert html.count("data:image/png") >= 1
    assert "<title>Nightly</title>" in html
    for message, arguments in (
        ("--output must be in a folder", ("a.ledger", "-o", "no/r.html")),
        ("with {frame} in it", ("a.ledger", "-o", "s.html", "--link", "https://example.org")),
        ("names must be one for each", ("a.ledger", "b.ledger", "-o", "s.html", "--name", "x")),
    ):
        done = run(*arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr.replace("\n", " ")
    assert not (tmp_path / "s.html").exists()
