"""The command line as people use it: in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import detmetrics as dm

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "nuscenes"


def run(*arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "detmetrics", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120", **environment},
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data set with predictions."""
    out = tmp_path_factory.mktemp("cli") / "a data set"
    size = ("--train-scenes", 1, "--val-scenes", 2, "--samples", 8)
    run("synth", out, "--boxes-only", *size, "--seed", 3, "--boxes-per-sample", 40)
    return out


def test_from_nothing_to_scores(data: Path, tmp_path: Path) -> None:
    results = data / "results_synth_val.json"
    where = ("--data", data, "--version", "v1.0-synth", "--split", "synth_val")
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    outputs = ("--json", tmp_path / "scores.json", "--details", tmp_path / "curves.json")
    done = run("evaluate", results, *where, *outputs, **cache)
    for word in ("car", "barrier", "AP", "AAE", "mean", "NDS", "mAP", "nuscenes|detection_cvpr_2019"):
        assert word in done.stdout
    assert "truth cached in" in done.stderr

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    summary = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    curves = json.loads((tmp_path / "curves.json").read_text(), parse_constant=refuse)
    truth = dm.io.nuscenes.load_truth(data, cache=False)
    scores = dm.evaluate(truth, dm.io.nuscenes.load_results(results), dm.NUSCENES)
    assert summary["nd_score"] == scores.nds
    assert summary["signature"] == scores.signature
    assert summary["label_tp_errors"]["traffic_cone"]["vel_err"] is None
    assert summary["cfg"]["dist_ths"] == [0.5, 1.0, 2.0, 4.0]
    assert curves["car:0.5"]["precision"] == scores.curve("car", 0.5).precision.tolist()
    assert f"NDS {scores.nds:.4f}" in done.stdout
    again = run("evaluate", results, "--data", data, **cache)
    assert "truth from cache" in again.stderr
    assert again.stdout == done.stdout
    assert "cache" not in run("evaluate", results, "--data", data, "--no-cache").stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_characters_gets_all_the_rest(data: Path, encoding: str) -> None:
    """The dash of what is undefined is in neither; numbers and words are."""
    asked = ("evaluate", data / "results_synth_val.json", "--data", data, "--no-cache")
    whole, poor = (run(*asked, PYTHONIOENCODING=name).stdout for name in ("utf-8", encoding))
    assert "–" in whole
    words = [re.findall(r"[\w.,:#/]+", text) for text in (whole, poor)]
    assert words[0] == words[1]


def test_through_parquet_and_back(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    results = data / "results_synth_val.json"
    truth, pred, back = tmp_path / "truth.parquet", tmp_path / "pred.parquet", tmp_path / "back.json"
    assert "16 frames" in run("convert", "--data", data, "--split", "synth_val", truth).stdout
    run("convert", results, pred)
    run("convert", pred, back)
    tables = run("evaluate", results, "--data", data, "--no-cache").stdout
    assert run("evaluate", pred, "--truth", truth).stdout == tables
    from_back = run("evaluate", back, "--truth", truth).stdout
    assert from_back.split("nuscenes|")[0] == tables.split("nuscenes|")[0]  # rotations are made upright: another hash


def test_a_protocol_of_ones_own(data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(run("protocols", "nuscenes", "--toml").stdout.replace("nuscenes|detection_cvpr_2019", "mine"))
    done = run("evaluate", data / "results_synth_val.json", "--data", data, "--protocol", mine)
    assert "mine#" in done.stdout
    assert "detection_cvpr_2019" in run("protocols").stdout
    for word in ("0.5, 1, 2, 4 m", "static_object.bicycle_rack", "180°", "AOE AVE AAE", "vehicle.bus.bendy"):
        assert word in run("protocols", "nuscenes").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "{results}"], "give either --data DATAROOT or --truth FILE"),
        (["evaluate", "{results}", "--data", "{data}", "--truth", "x"], "not both"),
        (["evaluate", "nowhere.json", "--data", "{data}"], "cannot read nowhere.json: No such file"),
        (["evaluate", "{data}", "--data", "{data}"], "must be a file, got a folder"),
        (["evaluate", "{results}", "--data", "nowhere"], "data set nowhere must be a folder, got nothing"),
        (["evaluate", "{results}", "--data", "{data}", "--split", "val"], "version for split 'val' must be one that ends"),
        (["evaluate", "{results}", "--data", "{data}", "--split", "synth_vale"], "has no split 'synth_vale'"),
        (["evaluate", "{results}", "--data", "{data}", "--split", "synth_train"], "lacks 8 of the 8 frames"),
        (["evaluate", "{results}", "--data", "{data}", "--version", "v1.0-mini"], "has no version 'v1.0-mini'"),
        (["evaluate", "{results}", "--data", "{data}", "--protocol", "kitty"], "unknown protocol 'kitty'"),
        (["evaluate", "{results}", "--data", "{data}", "--protocol", "no.toml"], "cannot read no.toml"),
        (["evaluate", "{results}", "--data", "{data}", "--absent", "no"], "--absent must be official or omit"),
        (["evaluate", "{results}", "--data", "{data}", "--json", "/nowhere/s.json"], "--json must be in a folder that"),
        (["evaluate", "{results}", "--data", "{data}", "--json", "a", "--details", "a"], "must be different files"),
        (["evaluate", "{results}", "--truth", "{results}"], "is not a Parquet file"),
        (["convert", "{results}"], "arguments must be INPUT OUTPUT"),
        (["convert", "{results}", "out.csv"], "ending of the output must be .parquet or .json"),
        (["convert", "--data", "{data}", "truth.json"], "only predictions can be written"),
        (["synth", "{data}", "--boxes-only"], "empty"),
        (["synth", "new", "--boxes-only", "--val-scenes", "-1"], "val_scenes must be"),
        (["synth", "new", "--boxes-only", "--tiny"], "--tiny goes with the lidar world"),
        (["synth", "new", "--sensor-rows"], "goes with --boxes-only"),
        (["synth", "new", "--no-predictions"], "--predictions goes with --boxes-only"),
        (["synth", "new", "--boxes-per-sample", "9"], "--boxes-per-sample goes with --boxes-only"),
        (["synth", "new", "--sweeps", "11"], "sweeps must be from 0 to 9"),
        (["synth", "{data}", "--tiny"], "empty"),
        (["synth", "new", "--tiny", "--val-scenes", "3"], "--val-scenes does not go with --tiny"),
        (["compare", "{results}", "{results}", "--data", "{data}", "-n", "1"], "--draws must be at least 2, got 1"),
        (["compare", "{results}", "{results}", "--data", "{data}", "--tls"], "--tls goes with --server"),
        (["compare", "{results}", "{results}", "--data", "{data}", "--insecure"], "--insecure goes with --server"),
        (["report", "nowhere.json", "--data", "{data}", "-o", "r.html", "--bootstrap", "1"], "--bootstrap must be 0, or"),
        (["report", "nowhere.json", "--data", "{data}", "-o", "r.html", "--by", "range=9,0"], "range"),
        (["synth", "new", "--boxes-only", "--boxes-per-sample", "501"], "boxes_per_sample must be from 0 to 500"),
        (["synth", "new", "--boxes-only", "--no-predictions", "--boxes-per-sample", "9"], "not with --no-predictions"),
        (["synth", "/dev/null/new", "--boxes-only"], "cannot make /dev/null/new: "),
        (["protocols", "--toml"], "--toml needs the name of a protocol"),
        (["evaluate", "--nothing"], "No such option"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(data: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    names = {"data": str(data), "results": str(data / "results_synth_val.json")}
    done = subprocess.run(
        [sys.executable, "-m", "detmetrics", *(one.format(**names) for one in arguments)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())  # nothing is written


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_are_not_replaced_and_links_are_followed(data: Path, tmp_path: Path) -> None:
    command = ("evaluate", data / "results_synth_val.json", "--data", data, "--no-cache", "--json")
    os.mkfifo(tmp_path / "pipe")
    done = run(*command, tmp_path / "pipe", code=2)
    assert "--json must be a file on disk, got the pipe or device" in done.stderr
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    run(*command, tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert "nd_score" in json.loads((tmp_path / "real.json").read_text())


def test_our_own_faults_are_named_so(data: Path) -> None:
    code = (
        "import detmetrics.matching as m, sys; m.match = lambda *a, **k: 1 / 0; from detmetrics.cli import main; "
        f"sys.argv = ['detmetrics', 'evaluate', {str(data / 'results_synth_val.json')!r}, '--data', {str(data)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "this is a fault of detmetrics, not of your input: ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr


def test_small_things() -> None:
    assert run("--version").stdout == f"detmetrics {dm.__version__}\n"
    assert "evaluate" in run("--help").stdout
    assert "--show-completion" in run("--help").stdout


@pytest.mark.skipif(not DATA.exists(), reason="real data lies in ../shared/data, which is not here")
def test_the_real_job(tmp_path: Path) -> None:
    done = run(
        "evaluate", DATA / "results_pointpillars_mini" / "results_nusc.json", "--data", DATA / "minival_tables",
        "--version", "v1.0-mini", "--split", "mini_val", "--json", tmp_path / "s.json", "--no-cache",
    )  # fmt: skip
    assert "NDS 0.0992   mAP 0.0613" in done.stdout
    official = json.loads((DATA / "results_pointpillars_mini" / "metrics_summary.json").read_text())
    assert json.loads((tmp_path / "s.json").read_text())["nd_score"] == pytest.approx(official["nd_score"], abs=1e-12)


def test_slices_intervals_comparison_and_gate(data: Path, tmp_path: Path) -> None:
    results = data / "results_synth_val.json"
    where = ("--data", data, "--split", "synth_val")
    more = ("--by", "range=0,20,40", "--by", "weather+class", "--bootstrap", 20, "--ledger", tmp_path / "a.ledger")
    done = run("evaluate", results, *where, *more, "--json", tmp_path / "a.json")
    for word in ("by range=0,20,40", "by weather+class", "20-40", "dry+car", "95 % from", "boot:20/scene/seed0"):
        assert word in done.stdout
    summary = json.loads((tmp_path / "a.json").read_text())
    assert set(summary["slices"]) == {"range=0,20,40", "weather+class"}
    assert summary["slices"]["range=0,20,40"][-1]["NDS"] is not None
    assert summary["intervals"]["rows"][0]["metric"] == "NDS"

    values = json.loads(results.read_text())
    for boxes in values["results"].values():
        for box in boxes:
            box["translation"][0] += 1.2
    (tmp_path / "worse.json").write_text(json.dumps(values))
    (tmp_path / "gate.toml").write_text(
        'n = 50\n[[rule]]\nmetric = "mAP"\nsignificant = false\n[[rule]]\nmetric = "AP"\nclass = "car"\nslice = "range=0-20"'
    )
    files = ("--json", tmp_path / "c.json", "--markdown", tmp_path / "c.md")
    pair = (tmp_path / "a.ledger", tmp_path / "worse.json")
    done = run("compare", *pair, *where, "--gate", tmp_path / "gate.toml", "--by", "weather", *files, code=3)
    assert "gate: NOT passed" in done.stdout
    assert "Gate: NOT passed" in (tmp_path / "c.md").read_text()
    assert json.loads((tmp_path / "c.json").read_text())["gate"]["passed"] is False
    done = run("compare", *reversed(pair), *where, "--gate", tmp_path / "gate.toml", "-n", 10)
    assert "gate: passed" in done.stdout
    # two ledgers need no truth
    run("evaluate", tmp_path / "worse.json", *where, "--ledger", tmp_path / "b.ledger")
    run("compare", tmp_path / "a.ledger", tmp_path / "b.ledger", "-n", 5)
    done = run("compare", tmp_path / "a.ledger", tmp_path / "worse.json", code=2)
    assert "give either --data DATAROOT or --truth FILE" in done.stderr
    run(
        "evaluate",
        data / "results_synth_train.json",
        "--data",
        data,
        "--split",
        "synth_train",
        "--ledger",
        tmp_path / "t",
    )
    done = run("compare", tmp_path / "a.ledger", tmp_path / "t", code=2)
    assert "frames of baseline and candidate must be the same" in done.stderr
    # nothing that was given is ignored, no input is overwritten
    for arguments, message in (
        (("diagnose", tmp_path / "a.ledger", *where), "--data goes with results, not with a ledger"),
        (("worst", tmp_path / "a.ledger", "--protocol", "argoverse2"), "--protocol must be that of the ledger"),
        (("evaluate", results, *where, "--json", results), "--json must be another file than the input"),
        (
            ("compare", tmp_path / "a.ledger", tmp_path / "b.ledger", "--json", tmp_path / "b.ledger"),
            "another file than",
        ),
        (("export", tmp_path / "a.ledger", tmp_path / "a.ledger"), "another file than the input"),
        (("evaluate", results, *where, "--bootstrap", 1), "--bootstrap must be 0, or at least 2"),
    ):
        assert message in run(*arguments, code=2).stderr.replace("\n", " ")
    (tmp_path / "cut").write_bytes((tmp_path / "a.ledger").read_bytes()[:5000])
    assert "is no ledger of detmetrics, or is damaged" in run("diagnose", tmp_path / "cut", code=2).stderr.replace(
        "\n", " "
    )
    assert "by class" in run("evaluate", tmp_path / "a.ledger", "--by", "class").stdout
    done = run("evaluate", results, *where, "--by", "wether", "--json", tmp_path / "never.json", code=2)
    assert "did you mean" in done.stderr
    assert not (tmp_path / "never.json").exists()


def test_causes_worst_frames_and_export(data: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow.parquet", reason="pyarrow is the extra [parquet]")
    results = data / "results_synth_val.json"
    where = ("--data", data, "--split", "synth_val")
    done = run("diagnose", results, *where, "--json", tmp_path / "d.json")
    for word in ("background", "out_of_range", "what it means", "truth in rows", "ECE"):
        assert word in done.stdout
    values = json.loads((tmp_path / "d.json").read_text())
    assert len(values["causes"]) == 15
    assert set(values["by_class"]) == set(dm.NUSCENES.labels)
    run("evaluate", results, *where, "--ledger", tmp_path / "a.ledger")
    done = run("worst", tmp_path / "a.ledger", "-n", 3, "--json", tmp_path / "w.json")
    assert "NDS without it" in done.stdout
    assert len(json.loads((tmp_path / "w.json").read_text())) == 16
    done = run("export", tmp_path / "a.ledger", tmp_path / "rows.parquet", "--by", "range=0,20", "--by", "class")
    assert "rows" in done.stdout
    table = pa.read_table(tmp_path / "rows.parquet")
    assert {"slice:range=0,20", "slice:class", "cause", "outcome@0.5"} <= set(table.column_names)


def test_the_card_of_the_bundled_detector_and_its_curves(tmp_path: Path) -> None:
    card = run("detector", "card")
    assert card.stdout.startswith("# Bundled detector `small`")
    run("detector", "card", "--out", str(tmp_path / "new" / "folder"))
    assert (tmp_path / "new" / "folder" / "MODEL_CARD.md").read_text() == card.stdout
    assert (tmp_path / "new" / "folder" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "file").touch()
    assert "Not a directory" in run("detector", "card", "--out", tmp_path / "file" / "x", code=2).stderr


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Not read as markup or emoji: file names and names of runs reach titles and notices."""
    from detmetrics.cli import terminal

    with terminal.steps() as step:
        step.say("data in [/b] x:car:y [red]z")
    assert "data in [/b] x:car:y [red]z" in capsys.readouterr().err
    terminal.show("slice x:car:y")
    assert "slice x:car:y" in capsys.readouterr().out


def test_convert_refuses_what_it_would_ignore(data: Path, tmp_path: Path) -> None:
    done = run("convert", data / "results_synth_val.json", tmp_path / "x.parquet", "--split", "a", code=2)
    assert "--split goes with --data, not with INPUT" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_link_is_written_by_its_own_ending(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out.json").symlink_to(tmp_path / "store")
    (tmp_path / "store").write_text("old")
    rest = ("--data", data, "--split", "nothing", "--out")
    assert "nothing" in run("detector", "plain", *rest, tmp_path / "out.json", code=2).stderr
    assert "ending of --out must be" in run("detector", "plain", *rest, tmp_path / "store", code=2).stderr
    assert (tmp_path / "store").read_text() == "old"
