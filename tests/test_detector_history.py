"""The history of a run is read, judged and shown."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curves import KINDS, confusion, made
from detmetrics.detector.history import History, read
from detmetrics.detector.learning import ADVICE, diagnose
from detmetrics.errors import InputError


def row(epoch: int, train: float | None = None, val: float | None = None, **other: Any) -> dict[str, Any]:
    loss = 1.0 + math.exp(-epoch / 3) if train is None else train
    return {
        "epoch": epoch, "step": 10 * epoch, "train_loss": loss, "val_loss": 1.1 * loss if val is None else val,
        "train": {"heatmap": 0.7 * loss, "offset": 0.3 * loss}, "val": {"heatmap": 0.8 * loss, "offset": 0.3 * loss},
        "lr": 1e-3, "seconds": 12.5, "samples_per_s": 33.0, "mAP": 0.1 * epoch, "NDS": None, **other,
    }  # fmt: skip


def write(folder: Path, rows: list[dict[str, Any]], tail: str = "") -> Path:
    (folder / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows) + tail)
    return folder


def history(train: list[float], val: list[float], nds: list[float] | None = None) -> History:
    none = np.full(len(train), np.nan)
    scores = none if nds is None else np.array(nds)
    return History(
        np.arange(1, len(train) + 1), none, np.array(train, float), np.array(val, float), none, none, none, none, scores,
        {}, {}, (), "made up",
    )  # fmt: skip


def test_rows_become_columns(tmp_path: Path) -> None:
    got = read(write(tmp_path, [row(1), row(2, val=float("nan")), row(3)]))
    assert got.epoch.tolist() == [1, 2, 3]
    assert got.train["heatmap"] == pytest.approx(0.7 * got.train_loss)
    assert np.isnan(got.val_loss[1])
    assert np.isnan(got.NDS).all()
    assert got.mAP.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert got.notes == ()
    assert read(tmp_path / "history.jsonl").epoch.tolist() == [1, 2, 3]


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    whole = json.dumps(row(3))
    for cut in (1, 9, len(whole) // 2, len(whole) - 1):
        got = read(write(tmp_path, [row(1), row(2)], whole[:cut]))
        assert got.epoch.tolist() == [1, 2]
        assert got.notes == ("the last line of the history is cut short and was left out",)
    assert read(write(tmp_path, [row(1), row(2)], whole)).epoch.tolist() == [1, 2, 3], "whole, but for its line end"


def test_an_epoch_that_was_run_again_counts_once(tmp_path: Path) -> None:
    got = read(write(tmp_path, [row(1), row(2, 5.0), row(3), row(2, 1.5)]))
    assert got.epoch.tolist() == [1, 2, 3]
    assert got.train_loss[1] == 1.5
    assert got.notes == ("epoch 2 was run more than once; the later one counts",)


def test_parts_may_change_on_the_way(tmp_path: Path) -> None:
    got = read(write(tmp_path, [row(1), row(2, val=None) | {"val": {"new": 1.0}}]))
    assert np.isnan(got.val["heatmap"][1])
    assert got.val["new"][1] == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no finished epoch"),
        ("{broken\n{}\n", "line 1, is not JSON"),
        ("[1]\n", "line 1 must be an object with epoch"),
        ('{"train_loss": 1}\n', "line 1, has no 'epoch'"),
        ('{"epoch": 1}\n', "line 1, has no 'train_loss'"),
        ('{"epoch": 1.5, "train_loss": 1}\n', "epoch must be a whole number, got 1.5"),
        ('{"epoch": 1, "train_loss": "low"}\n', "train_loss must be a number or null, got 'low'"),
        ('{"epoch": 1, "train_loss": 1, "val": {"a": true}}\n', "val.a must be a number or null, got True"),
        ('{"epoch": 1, "train_loss": 1, "val": [1]}\n', "val must be an object of numbers"),
    ],
)
def test_bad_histories(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "history.jsonl").write_text(content)
    with pytest.raises(InputError, match=re.escape(message)):
        read(tmp_path)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no history\.jsonl"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"has no history\.jsonl"):
        read(tmp_path / "away")


#: What is promised in the docstring of learning.py for 5 to 10 and 20 to 100 epochs, less four standard deviations of 40 seeds.
PROMISED = {
    0.005: {
        "overfitting": (0.66, 0.97),
        "underfitting": (0.97, 0.97),
        "still learning": (0.97, 0.97),
        "plateau": (0.97, 0.92),
        "healthy": (0.86, 0.74),
    },
    0.02: {
        "overfitting": (0.48, 0.92),
        "underfitting": (0.97, 0.95),
        "still learning": (0.83, 0.95),
        "plateau": (0.73, 0.87),
        "healthy": (0.72, 0.69),
    },
    0.05: {
        "overfitting": (0.2, 0.73),
        "underfitting": (0.77, 0.92),
        "still learning": (0.33, 0.6),
        "plateau": (0.47, 0.64),
        "healthy": (0.39, 0.65),
    },
}


@pytest.mark.parametrize("noise", sorted(PROMISED))
@pytest.mark.parametrize("length", [0, 1])
def test_made_up_curves_are_told_apart(noise: float, length: int) -> None:
    table = confusion(((5, 6, 8, 10), (20, 40, 100))[length], (noise,), range(5000, 5040))
    for kind in KINDS:
        least = 0.97 if kind == "diverged" else 0.82 if kind == "too noisy" else PROMISED[noise][kind][length]
        assert table[kind].get(kind, 0.0) >= least, (kind, table[kind])
        if kind not in ("overfitting", "diverged"):
            assert table[kind].get("overfitting", 0.0) <= 0.07, (kind, table[kind])
            assert table[kind].get("diverged", 0.0) <= 0.04, (kind, table[kind])


@pytest.mark.parametrize("kind", ["overfitting", "healthy", "plateau", "still learning"])
def test_training_above_validation_changes_nothing(kind: str) -> None:
    for seed in range(30):
        for n in (6, 10, 30):
            plain, harder = (made(kind, n, 0.01, seed, regularised=False) for _ in range(2))
            harder = history((1.7 * harder.train_loss).tolist(), harder.val_loss.tolist())
            assert diagnose(plain).kind == diagnose(harder).kind


def test_scale_changes_nothing() -> None:
    for kind in KINDS:
        one = made(kind, 20, 0.02, 1)
        other = history((1e3 * one.train_loss).tolist(), (1e3 * one.val_loss).tolist())
        assert diagnose(one)[:2] == diagnose(other)[:2]


def test_the_words_hold_the_figures() -> None:
    train = [4.0, 3.0, 2.5, 2.2, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3]
    val = [4.2, 3.3, 2.9, 2.6, 2.45, 2.42, 2.41, 2.46, 2.53, 2.60, 2.69, 2.75]
    told = diagnose(history(train, val))
    assert told.kind == "overfitting"
    assert told.epoch == 7
    rise = np.mean(val[-2:]) / np.mean(val[5:7]) - 1
    assert told.words == f"since epoch 7: validation rose {100 * rise:.0f} % over its best while training fell 27 %"
    assert told.advice == ADVICE["overfitting"]
    rising = [0.02 * i for i in range(12)]
    assert diagnose(history(train, val, rising)).words.endswith("NDS rose on, so the loss alone is no reason to stop")
    assert "NDS" not in diagnose(history(train, val, [min(x, 0.1) for x in rising])).words


@pytest.mark.parametrize(
    ("train", "val", "kind"),
    [
        ([3, 2, math.nan], [3, 2, math.nan], "diverged"),
        ([3, 2, 1], [3, 2, math.inf], "diverged"),
        ([3, 2, 1], [3, 2, 1], "too early"),
        ([3, 2, 1, 0.5, 0.4], [math.nan] * 5, "too early"),
        ([2.0] * 8, [2.0] * 8, "underfitting"),
        ([3, 2, 1, 1, 1, 1, 1, 1, 1, 1], [3, 2, 1, 1, 1, 1, 1, 1, 1, 1], "plateau"),
        ([3, 2, 1, 50, 1, 0.9, 0.85, 0.84, 0.83, 0.83], [3, 2, 1, 50, 1, 0.9, 0.85, 0.84, 0.83, 0.83], "healthy"),
        ([1, 0, 0, 0, 0, 0], [1, 0.5, 0.2, 0.1, 0.1, 0.1], "healthy"),
    ],
)
def test_odd_curves(train: list[float], val: list[float], kind: str) -> None:
    assert diagnose(history(train, val)).kind == kind


def test_what_is_little_is_not_named() -> None:
    epoch = np.arange(20)

    def told(up: float) -> Any:
        val = np.where(epoch < 10, 3 - 0.2 * epoch, np.interp(epoch, [10, 14, 19], [1, up, up]))
        return diagnose(history((3 * np.exp(-0.1 * epoch) + 0.5).tolist(), val.tolist()))

    assert told(1.02).kind == "healthy"  # without noise, but by less than 3 %
    assert told(1.06).kind == "overfitting"
    assert "while training fell 34 %" in told(1.06).words

    def both(up: float) -> Any:
        loss = np.interp(epoch, [0, 8, 12, 19], [10, 1, 1, up]).tolist()
        return diagnose(history(loss, loss))

    assert both(2.5).kind == "diverged"
    assert both(1.2).kind == "overfitting"  # training rose by more than a tenth, but had fallen to a tenth
    assert re.search(r"validation rose \d+ % over its best while training rose \d+ % itself", both(1.2).words)


def test_too_early_says_how_many_epochs_there_are() -> None:
    assert diagnose(history([3, 2], [math.nan, 1])).words == "only 1 epoch has a validation loss"
    assert diagnose(history([3, 2, 1], [3, 2, 1])).words == "only 3 epochs have a validation loss"


def test_every_diagnosis_has_advice() -> None:
    assert {"too early", *KINDS} == set(ADVICE)


def test_the_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra [detector] is not installed")
    from detmetrics.detector.page import write_page

    run = tmp_path / "run <b>&"
    run.mkdir()
    write(run, [row(epoch, NDS=0.05 * epoch) for epoch in range(1, 9)], '{"epo')
    (run / "config.json").write_text(json.dumps({"model": {"width": 64, "name": "<script>x</script>"}, "lr": 0.001}))
    told = write_page(run)
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
    page = (run / "index.html").read_text()
    assert told.words in page
    assert told.advice.split(".")[0] in page
    assert "cut short" in page
    assert "<script" not in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "run &lt;b&gt;&amp;" in page
    assert "model.width" in page
    assert "0.4000 (epoch 8)" in page, "best NDS"
    assert '<td class="n good">0.4000</td>' in page
    assert '<td class="n ">0.3500</td>' in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "asks nobody for anything"
    assert page.count('<th scope="row" class="n">') == 8
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "curves.png", "history.jsonl", "index.html"]


@pytest.mark.parametrize(("best", "top"), [(0.4, 0.46), (0.95, 1.0), (0.01, 0.0575)])
def test_scores_are_drawn_from_0_to_a_little_over_the_best(
    best: float, top: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the extra [detector] is not installed")
    from matplotlib.figure import Figure

    from detmetrics.detector.page import draw

    seen: dict[str, Any] = {}

    def look(figure: Figure, *_: Any, **__: Any) -> None:
        seen.update({axes.get_title(): axes.get_ylim() for axes in figure.axes})

    monkeypatch.setattr(Figure, "savefig", look)
    one = history([3, 2, 1.5], [3, 2.5, 2], [0.0, best, best / 2])
    draw(one, diagnose(one))
    assert seen["Scores on validation"] == pytest.approx((0, top))


def test_the_page_of_one_epoch_without_scores(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra [detector] is not installed")
    from detmetrics.detector.page import write_page

    (tmp_path / "history.jsonl").write_text('{"epoch": 0, "train_loss": NaN}\n')
    assert write_page(tmp_path).kind == "diverged"
    page = (tmp_path / "index.html").read_text()
    assert "not finite in epoch 0" in page
    assert "Configuration" not in page


def test_bad_runs_for_the_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra [detector] is not installed")
    from detmetrics.detector.page import write_page

    with pytest.raises(InputError, match="must be the folder of a training run"):
        write_page(tmp_path / "away")
    write(tmp_path, [row(1)])
    for content, message in (("[]", "must be an object"), ("{", "is not JSON")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match=message):
            write_page(tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_no_torch() -> None:
    code = "import sys, detmetrics.detector.page, detmetrics.detector.leaks; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False False\n"
    )


def test_the_card_tells_what_the_ablations_showed() -> None:
    pytest.importorskip("torch", reason="torch is the extra [detector]")
    from detmetrics.detector import card
    from detmetrics.detector.config import CLASSES, TrainPlan

    def arm(value: float) -> dict[str, Any]:
        errors = {label: {"vel_err": float("nan") if "cone" in label else value / 2} for label in CLASSES}
        interval = {"value": value, "low": value - 0.1, "high": value + 0.1}
        rows = [{"metric": name, **interval} for name in ("NDS", "mAP", "ATE", "ASE", "AOE", "AVE", "AAE")]
        return {"intervals": rows, "scores": {"tp_errors": {"vel_err": value}, "label_tp_errors": errors}}

    told = card.matters({"reference": arm(0.5), "one-sweep": arm(2.0)}, TrainPlan(epochs=2, samples=2200))
    assert "2 epochs of 2,200 samples" in told
    assert "| one sweep | 2.000 [1.900, 2.100] |" in told
    assert "| reference | 0.25 | " in told
    assert "AVE is 0.25 of what it is with one, that of cars 0.25" in told
    assert "several clouds" not in card.matters({"reference": arm(0.5)}, TrainPlan())
    assert card.matters({}, TrainPlan()) == "The ablations were not run."
