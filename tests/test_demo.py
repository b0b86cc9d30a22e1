"""The demo's commands exist, and it touches nothing that is not its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from detmetrics import demo
from detmetrics.cli import app
from detmetrics.errors import DetmetricsError, InputError
from detmetrics.gate import Gate


@pytest.fixture
def with_every_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all were installed: what these tests run needs none of them."""
    monkeypatch.setattr(demo, "require", lambda *extra, what: None)


def test_every_command_and_option_exists(tmp_path: Path) -> None:
    commands = typer.main.get_command(app)
    for step in demo.steps(tmp_path, "localhost:1"):
        words = list(step.arguments)
        command = commands
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        with command.make_context("detmetrics", words) as context:  # an unknown option ends here
            assert context.params


def test_every_run_prints_the_numbers(tmp_path: Path) -> None:
    kept = {step.arguments[0] for step in demo.steps(tmp_path, "localhost:1") if step.makes}
    assert kept == {
        "synth",
        "detector",
        "view",
        "report",
    }  # those leave files and say little; the others are the tables


def test_the_gate_is_one(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(demo.GATE)
    assert len(Gate.load(tmp_path / "gate.toml").rules) == 3


@pytest.mark.usefixtures("with_every_extra")
def test_steps_are_run_once_again_only_where_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    names = ["a", "b"]

    def steps(out: Path, server: str) -> list[demo.Step]:
        return [demo.Step(name, "why", (name,), (name,)) for name in names]

    def run(step: demo.Step) -> None:
        ran.append(step.title)
        (tmp_path / step.title[0]).touch()

    monkeypatch.setattr(demo, "steps", steps)
    monkeypatch.setattr(demo, "_run", run)
    demo.run(tmp_path, lambda line: None)
    demo.run(tmp_path, lambda line: None)
    assert ran == ["a", "b"]
    (tmp_path / "b").unlink()
    demo.run(tmp_path, lambda line: None)
    assert ran == ["a", "b", "b"]
    monkeypatch.setattr(demo, "__version__", "other")
    demo.run(tmp_path, lambda line: None)
    assert ran == ["a", "b", "b", "a", "b"]


@pytest.mark.usefixtures("with_every_extra")
def test_it_is_alone_and_touches_nothing_else(tmp_path: Path) -> None:
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another demo is running"):
            demo.run(tmp_path, lambda line: None)
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="not made by this demo"):
        demo.run(tmp_path, lambda line: None)
    assert (tmp_path / "data").is_dir()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is the extra [server]")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            demo._serving(tmp_path, server) as start,
            pytest.raises(DetmetricsError, match=r"did not start: .*another server"),
        ):
            start(lambda line: None)


def test_a_command_stays_on_one_line_to_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "$ detmetrics " + "--by weather " * 30 + "[x]"
    monkeypatch.setattr(demo, "run", lambda out, say: say(line))
    said = CliRunner().invoke(app, ["demo", str(tmp_path)], env={"COLUMNS": "80"}).stdout
    assert line in said.splitlines()


def test_a_failed_command_ends_it(tmp_path: Path) -> None:
    with pytest.raises(DetmetricsError, match="'detmetrics evaluate' ended with code 2"):
        demo._run(demo.Step("x", "y", ("evaluate", str(tmp_path / "missing.json"), "--data", str(tmp_path))))
    assert json.dumps(demo._marked(tmp_path)) == "{}"


@pytest.mark.usefixtures("with_every_extra")
def test_where_nothing_can_be_drawn_the_rest_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []
    said: list[str] = []

    def steps(out: Path, server: str) -> list[demo.Step]:
        return [
            demo.Step("picture", "why", ("view", "--save", "a.png"), ("a.png",)),
            demo.Step("report", "why", ("report", "a.json", "--draw", "data", "-o", "r.html"), ("r.html",)),
            demo.Step("page", "why", ("view", "--html", "p.html"), ("p.html",)),
        ]

    monkeypatch.setattr(demo, "steps", steps)
    monkeypatch.setattr(demo, "_run", lambda step: ran.append(step.arguments))
    monkeypatch.setattr(demo, "_why_no_pictures", lambda: "no driver")
    demo.run(tmp_path, said.append)
    assert ran == [("report", "a.json", "-o", "r.html"), ("view", "--html", "p.html")]
    assert said.count("no pictures here, the rest is done: no driver") == 1
    script = (tmp_path / "commands.sh").read_text()
    assert "view --save" not in script
    assert "--draw" not in script
    assert "detmetrics report a.json -o r.html" in script
    ran.clear()
    monkeypatch.setattr(demo, "_why_no_pictures", lambda: "")
    demo.run(tmp_path, said.append)
    assert [words[:2] for words in ran] == [("view", "--save"), ("report", "a.json"), ("view", "--html")]


def test_it_says_why_nothing_can_be_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "open3d.py").write_text("raise ImportError('libEGL.so.1: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    why = demo._why_no_pictures()
    assert why.startswith("Open3D cannot draw on this system: libEGL.so.1")
    assert "sudo apt-get install libgl1" in why
    (tmp_path / "open3d.py").write_text("import os; os.abort()")
    assert demo._why_no_pictures() == "drawing ended with code -6"


@pytest.mark.soak
def test_its_commands_typed_elsewhere_do_the_same(tmp_path: Path) -> None:
    server = f"localhost:{demo._free_port()}"
    out = Path("a demo")  # relative: the script is typed in another folder
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    with contextlib.chdir(first):
        demo.run(out, print)
        demo._write_script(out, demo.steps(out, server), server)  # the run's port may be taken by now
    script = first / out / "commands.sh"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "-e", str(script)], cwd=second, env=os.environ | {"PATH": path}, check=True)
    made = {file.name for file in (first / out).iterdir() if not file.name.startswith(".")}
    assert made - {file.name for file in (second / out).iterdir()} == {"commands.sh", "server.log"}
    for name in ("results.json", "results_weak.json", "comparison.json", "comparison.md"):
        assert (first / out / name).read_bytes() == (second / out / name).read_bytes(), name
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(server.rpartition(":")[2]))) != 0  # the server is stopped
