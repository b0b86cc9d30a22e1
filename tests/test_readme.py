"""The README keeps its word: its Python runs, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_python_runs() -> None:
    code = "".join(text for language, text in BLOCKS if language == "python")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "NDS" in done.stdout
    assert "nuscenes|detection_cvpr_2019#" in done.stdout
    assert "detectable" in done.stdout


@cache
def help_of(*command: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "detmetrics", *command, "--help"], capture_output=True, text=True, check=True
    ).stdout


def test_the_commands_and_options_exist() -> None:
    lines = [line for _, text in BLOCKS for line in text.splitlines() if line.startswith("detmetrics ")]
    assert len(lines) >= 4
    for line in lines:
        words = line.split()[1:]
        command = words[:2] if words[0] in ("detector", "token") else words[:1]
        shown = help_of(*command)
        for option in re.findall(r"--[a-z-]+", line.split("#")[0]):
            assert option in shown, (command, option)
    text = README.read_text()
    for target in ("make demo", "make test"):
        assert target in text


def test_the_gate_is_one(tmp_path: Path) -> None:
    from detmetrics.gate import Gate

    (text,) = [text for language, text in BLOCKS if language == "toml"]
    (tmp_path / "gate.toml").write_text(text)
    assert len(Gate.load(tmp_path / "gate.toml").rules) == 2


def test_the_query_runs(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is in the development environment only")
    pytest.importorskip("pyarrow", reason="pyarrow is the extra [parquet]")
    import pyarrow.parquet

    import detmetrics as dm
    from detmetrics.synth import make_boxes

    table = dm.match(*make_boxes(n_frames=40, seed=0), dm.NUSCENES).to_arrow(by=["range=0,20,40"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    (query,) = [text for language, text in BLOCKS if language == "sql"]
    rows = duckdb.sql(query.replace("rows.parquet", str(tmp_path / "rows.parquet"))).fetchall()
    assert {cause for _, cause, _, _ in rows} & {"few_points", "missed"}
