"""What a newcomer gets wrong in Python and on the command line: each is one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detmetrics as dm
from detmetrics.errors import InputError, unknown_name
from detmetrics.exporting import to_arrow
from detmetrics.gate import Gate


def columns(n: int = 4, **more: Any) -> dict[str, Any]:
    """The arrays of some cars in a row, in one frame."""
    arrays = {
        "center_m": np.arange(3.0 * n).reshape(n, 3),
        "size_lwh_m": np.tile([4.0, 2.0, 1.5], (n, 1)),
        "yaw_rad": np.zeros(n),
        "label": ["car"] * n,
        "frame": ["a"] * n,
    }
    return {**arrays, **more}


def truth(**more: Any) -> dm.Boxes:
    return dm.Boxes(**columns(**more))


def pred(**more: Any) -> dm.Boxes:
    return dm.Boxes(**columns(**{"score": np.linspace(1, 0.1, 4), **more}))


def test_near_names_whatever_their_capitals() -> None:
    assert str(unknown_name("metric", "nds", ("NDS", "mAP"))) == "unknown metric 'nds' (did you mean 'NDS'?)"
    assert str(unknown_name("metric", "map", ("NDS", "mAP", "MAP"))).endswith("did you mean 'mAP', 'MAP'?)")
    assert str(unknown_name("metric", 3, ("NDS", "mAP"))) == "unknown metric 3 (known: 'NDS', 'mAP')"


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ((truth(), pred(frame=["z"] * 4)), "pred has 1 frame that truth does not have: 'z'"),
        ((truth(frames=["a", "b"]), pred(frames=["a"])), "pred lacks 1 of the 2 frames of truth: 'b'"),
        ((truth(source="x"), pred(frames=["b"], frame=["b"] * 4)), "pred has 1 frame that x does not have"),
        ((truth(source="x"), pred(frame=["b"] * 4, source="x")), "pred has 1 frame that truth does not have"),
        ((truth(), pred(label=["cat"] * 4)), "pred: unknown class 'cat' in box 0 of frame 'a' and 3 more boxes"),
        ((truth(), pred(label=["Car"] * 4)), r"pred: unknown class 'Car' .*\(did you mean 'car'"),
        ((truth(), pred(label=[0, 1, 2, 11])), r"pred.label\[3\] must be a code into the 10 classes"),
        ((truth(label=[0, 1, 2, 11]), pred()), r"truth.label\[3\] must be a code into the 10 classes"),
        ((truth(), truth()), r"pred: these predictions have no scores \(give score=\)"),
        ((pred(), truth()), "have no scores .truth comes first, and its boxes have scores: are the two swapped"),
    ],
)
def test_errors_say_which_side_is_wrong(sides: tuple[dm.Boxes, dm.Boxes], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dm.evaluate(*sides, dm.NUSCENES)


def test_errors_about_a_ledger_speak_of_its_truth() -> None:
    ledger = dm.match(truth(), pred(), dm.NUSCENES)
    for ask, message in {
        lambda: dm.bootstrap(ledger): "a column of the frames of truth, which has none",
        lambda: dm.slices(ledger, "points"): "cannot slice by points: truth does not say it",
    }.items():
        with pytest.raises(InputError, match=message):
            ask()


LEDGER = dm.match(truth(), pred(), dm.NUSCENES)
GATE = Gate.from_dict({"rule": [{"metric": "NDS"}]})
NO_LEDGERS = {
    "scores": dm.score(LEDGER),
    "boxes": LEDGER.pred,
    "path": "run.ledger",
    "pair": (LEDGER.truth, LEDGER.pred),
    "nothing": None,
}


@pytest.mark.parametrize("value", NO_LEDGERS.values(), ids=NO_LEDGERS)
@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (dm.score, "ledger"),
        (lambda one: dm.slices(one, "range"), "ledger"),
        (dm.bootstrap, "ledger"),
        (lambda one: dm.bootstrap(one, by="range"), "ledger"),
        (lambda one: dm.compare(one, LEDGER), "baseline"),
        (lambda one: dm.compare(LEDGER, one), "candidate"),
        (lambda one: GATE.check(one, LEDGER), "baseline"),
        (lambda one: GATE.check(LEDGER, one), "candidate"),
        (dm.diagnose, "ledger"),
        (dm.frames, "ledger"),
        (dm.operating_points, "ledger"),
        (lambda one: dm.concat([LEDGER, one]), "ledgers[1]"),
        (to_arrow, "ledger"),
        (lambda one: dm.io.ledgers.save(one, "x"), "ledger"),
    ],
)
def test_what_is_no_ledger_says_what_gives_one(ask: Callable[[Any], object], what: str, value: object) -> None:
    with pytest.raises(InputError) as told:
        ask(value)
    assert str(told.value).startswith(
        f"{what} must be a Ledger, as detmetrics.match(truth, pred, protocol) gives it, got "
        if value is not None
        else f"{what} must be a Ledger, as detmetrics.match(truth, pred, protocol) gives it (detmetrics.Ledger.load"
    )
    assert str(told.value).endswith("(detmetrics.Ledger.load(path) reads a saved one)")
    assert len(str(told.value)) < 300


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: dm.concat(LEDGER), "ledgers must be a sequence of Ledger, got <Ledger"),
        (lambda: dm.score(LEDGER, np.ones(1)), r"weights must be Weights\(frame=…, event=…, truth=…\), got array"),
        (lambda: dm.score(LEDGER, "official"), r"weights must be Weights.*got 'official'"),
        (lambda: dm.slices(LEDGER, ["range"]), r"what to slice by must be text as .*got \['range'\]"),
        (lambda: dm.slices(LEDGER, None), "what to slice by must be text as"),
        (lambda: dm.bootstrap(LEDGER, "frame"), "number of replicates must be a whole number.*got 'frame'"),
        (lambda: dm.bootstrap(LEDGER, 1e3, "frame"), "number of replicates must be a whole number.*got 1000.0"),
        (lambda: dm.bootstrap(LEDGER, 10, "frame", seed="a"), "seed must be a whole number.*got 'a'"),
        (lambda: dm.bootstrap(LEDGER, 10, "frame", level="95%"), "level must be between 0 and 1, got '95%'"),
        (lambda: dm.io.load(None), "what to read must be a path"),
        (lambda: dm.io.load(["a.json"]), r"what to read must be a path, got \['a.json'\]"),
        (lambda: dm.io.load("a\0b"), "what to read must be a path"),
        (lambda: dm.io.load("~/nothing.json"), r"cannot read ~/nothing.json: .*\(write .* for ~\)"),
        (lambda: LEDGER.save(LEDGER), "output must be a path"),
        (lambda: LEDGER.save("~/none/x.ledger"), r"output must be in a folder that exists.*\(write .* for ~\)"),
    ],
)
def test_one_thing_in_place_of_another(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()


def test_a_report_of_what_is_no_ledger(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    for given in (dm.score(LEDGER), [LEDGER, dm.score(LEDGER)], None):
        with pytest.raises(InputError, match=r"what to report must be a Ledger, as detmetrics.match"):
            dm.report(given, tmp_path / "x.html")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="output must be a path, got <Ledger"):
        dm.report(str(tmp_path / "x.html"), LEDGER)  # type: ignore[arg-type]
