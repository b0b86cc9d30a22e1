"""What a newcomer gets wrong in Python and on the command line: each is one sentence that says what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import detmetrics as dm
from detmetrics.errors import InputError, unknown_name


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
