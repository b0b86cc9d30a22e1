"""The first five minutes: the commands from nothing to a scored, seen and served detector, run one by one and shown.

Every step is a command of ours that anyone can type; ``commands.sh`` holds them all. What a step leaves is kept, so a
second run only does again what changed. The server runs while its steps do, and no longer.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from detmetrics import __version__
from detmetrics.errors import DetmetricsError, InputError
from detmetrics.extras import require
from detmetrics.files import whole_file

#: Of the world: no other seed in the project is this one, so the bundled detector never saw its streets.
SEED = 2026
_SIZE = ("--train-scenes", "0", "--val-scenes", "12", "--samples", "16", "--sweeps", "4")
SPLIT = "synth_val"
_NEEDS_BYTES = 2_000_000_000
_WAIT_S = 60

GATE = """\
# What a candidate has to hold, to take the baseline's place.
[[rule]]
metric = "NDS"                  # no significant drop
[[rule]]
metric = "mAP"
tolerance = 0.01
[[rule]]
metric = "AVE"                  # velocities: what a planner lives on
"""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes
    ----------
    title, why : str
        What is done, and a line of explanation.
    arguments : tuple of str
        Of ``detmetrics``.
    makes : tuple of str
        Files or folders in the demo's folder: there already from the same command, it is not run again.
    needs_server : bool
    codes : tuple of int
        Exit codes that are right; the gate's no is 3.
    """

    title: str
    why: str
    arguments: tuple[str, ...]
    makes: tuple[str, ...] = ()
    needs_server: bool = False
    codes: tuple[int, ...] = (0,)


def steps(out: Path, server: str) -> list[Step]:
    """Give the commands of the demo that go into ``out`` and talk to ``server`` (HOST:PORT)."""
    data, good, weak = str(out / "data"), out / "results.json", out / "results_weak.json"
    of_data = ("--data", data, "--split", SPLIT)

    def submit(results: Path, name: str) -> tuple[str, ...]:
        return ("submit", str(results), "--dataset", "demo", "--name", name, "--bootstrap", "1000", "--server", server)

    look = ("view", *of_data, "--predictions", str(good), "--best", "3", "--worst", "3")
    return [
        Step(
            "A data set",
            "Driving scenes with lidar clouds in the nuScenes format, of a seed that the detector never saw.",
            ("synth", data, *_SIZE, "--seed", str(SEED)),
            ("data",),
        ),
        Step(
            "Predictions",
            "The bundled detector looks at every cloud, four of them joined, on whatever this machine has.",
            ("detector", "predict", *of_data, "--out", str(good)),
            ("results.json",),
        ),
        Step(
            "How it learned",
            "Its model card and the loss curves of its training: falling together, no overfitting.",
            ("detector", "card", "--out", str(out / "detector")),
            ("detector",),
        ),
        Step(
            "The truth goes to the server",
            "It stays there: whoever submits gets scores, never boxes.",
            ("upload-dataset", "demo", *of_data, "--server", server),
            needs_server=True,
        ),
        Step(
            "The predictions are submitted",
            "Over the wire; the table comes back, with intervals: how far would the numbers move on other streets?",
            submit(good, "bundled"),
            needs_server=True,
        ),
        Step(
            "Where is it good?",
            "Who has the truth needs no server: the same numbers bit for bit, here by distance.",
            ("evaluate", str(good), *of_data, "--by", "range=0,20,40"),
        ),
        Step(
            "A weaker detector",
            "The same one, shown a single cloud: things far away are thin, and nothing tells how fast they move.",
            ("detector", "predict", *of_data, "--sweeps", "1", "--out", str(weak)),
            ("results_weak.json",),
        ),
        Step(
            "It is submitted too",
            "The same truth, the same rules.",
            submit(weak, "one-cloud"),
            needs_server=True,
        ),
        Step(
            "May it take the other's place?",
            "The same scenes are drawn for both: what got worse, where, is it chance? Exit code 3: the gate says no.",
            (
                *("compare", "bundled", "one-cloud", "--server", server, "--dataset", "demo"),
                *("--gate", str(out / "gate.toml"), "--by", "range=0,20,40"),
                *("--markdown", str(out / "comparison.md"), "--json", str(out / "comparison.json")),
            ),
            needs_server=True,
            codes=(0, 3),
        ),
        Step(
            "Frames to look at",
            "The best and the worst: green found, red missed, orange wrong.",
            (*look, "--save", str(out / "frames.png")),
            ("frames.png",),
        ),
        Step(
            "The same to turn around in a browser",
            "All in one file, to send to a colleague.",
            (*look, "--html", str(out / "frames.html")),
            ("frames.html",),
        ),
        Step(
            "The report",
            "Scores, slices, causes, calibration, the comparison of the two, and the worst frames, drawn.",
            (
                *("report", str(good), str(weak), *of_data, "--name", "bundled", "--name", "one cloud"),
                *("--by", "range=0,20,40", "--by", "weather", "--worst", "8", "--draw", data),
                *("-o", str(out / "report.html")),
            ),
            ("report.html",),
        ),
    ]


def run(out: Path, say: Callable[[str], None]) -> None:
    """Run the demo into a folder, which is made.

    Parameters
    ----------
    out : Path
        What an earlier run left there is used again.
    say : callable
        Called with each line; the commands themselves print to the terminal.

    Raises
    ------
    InputError
        Where the folder is in use by another run or the disk is too full.
    DetmetricsError
        Where a command failed; what it said stands above.
    """
    for extra in ("detector", "report", "client", "server", "viz"):
        require(extra, what="the demo")
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        _check_room(out)
        with whole_file(out / "gate.toml") as file:
            file.write(GATE.encode())
        server = f"localhost:{_free_port()}"
        todo = steps(out, server)
        say(f"every command is shown, and kept in {out / 'commands.sh'} to copy")
        if any(map(_draws, todo)) and (why := _why_no_pictures()):
            say(f"no pictures here, the rest is done: {why}")
            todo = [undrawn for step in todo if (undrawn := _without_pictures(step))]
        _write_script(out, todo, server)
        shutil.rmtree(out / "server", ignore_errors=True)
        began, took = time.perf_counter(), []
        with _serving(out, server) as start:
            stamp = __version__
            for number, step in enumerate(todo, 1):
                say(f"\n{number}. {step.title}\n{step.why}")
                if step.needs_server:
                    start(say)
                # a step is done again where it, or one before it, is not what it was
                stamp = hashlib.sha256(f"{stamp} {step.arguments}".encode()).hexdigest() if step.makes else stamp
                say(f"$ {_line(step.arguments)}")
                begin = time.perf_counter()
                if step.makes and _is_done(out, step, stamp):
                    say("there already, from an earlier run")
                else:
                    _clear(out, step)
                    _run(step)
                    _mark(out, step, stamp)
                took.append((step.title, time.perf_counter() - begin))
        for title, seconds in took:
            say(f"{seconds:7.1f} s  {title}")
        say(f"{time.perf_counter() - began:7.1f} s  in all; the server is stopped, nothing is left running")


def _run(step: Step) -> None:
    code = subprocess.run([sys.executable, "-m", "detmetrics", *step.arguments], check=False).returncode
    if code not in step.codes:
        raise DetmetricsError(f"'detmetrics {step.arguments[0]}' ended with code {code}; what it said stands above")


def _draws(step: Step) -> bool:
    return bool({"--save", "--draw"} & set(step.arguments))


def _without_pictures(step: Step) -> Step | None:
    """Give a step as it can be done where nothing can be drawn; None where a picture is all that it makes."""
    words = step.arguments
    if not _draws(step):
        return step
    if "--save" in words:
        return None
    at = words.index("--draw")
    return replace(step, arguments=words[:at] + words[at + 2 :])


def _why_no_pictures() -> str:
    """Say why this machine cannot draw, or nothing where it can; in a process of its own, which a driver may end."""
    code = "from detmetrics_viz.opening import offscreen; offscreen(16, 16)"
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return ""
    said = tried.stderr.strip().splitlines() or [""]
    return said[-1].partition("Error: ")[2] or f"drawing ended with code {tried.returncode}"


def _marks(out: Path) -> Path:
    return out / ".done.json"


def _marked(out: Path) -> dict[str, str]:
    """Give what earlier runs made, and the stamps of the commands that did."""
    try:
        return dict(json.loads(_marks(out).read_text()))
    except (OSError, ValueError):
        return {}


def _is_done(out: Path, step: Step, stamp: str) -> bool:
    return _marked(out).get(step.makes[0]) == stamp and all((out / name).exists() for name in step.makes)


def _clear(out: Path, step: Step) -> None:
    """Remove a folder that an earlier version made; refuse one that is not ours."""
    for name in step.makes:
        if not (out / name).is_dir():
            continue
        if name not in _marked(out):
            raise InputError(f"{out / name} was not made by this demo; remove it, or name another folder")
        shutil.rmtree(out / name)


def _mark(out: Path, step: Step, stamp: str) -> None:
    if not step.makes:
        return
    with whole_file(_marks(out)) as file:
        file.write(json.dumps(_marked(out) | {step.makes[0]: stamp}).encode())


def _write_script(out: Path, todo: list[Step], server: str) -> None:
    """Write the commands, as they are run, to copy; together they make the same again where there is no ``out``."""
    folder = shlex.quote(str(out))
    lines = [
        "#!/bin/sh -e",
        f"# What 'detmetrics demo' ran, to copy. The whole of it runs where there is no {out} yet.",
        "",
        f"mkdir {folder}",
        f"cat > {folder}/gate.toml <<'END'",
        f"{GATE}END",
        "",
        f"{_line(_serve(out, server))} &",
        "trap 'kill $!' EXIT",
        "",
    ]
    for step in todo:
        codes = "".join(f" || [ $? = {code} ]" for code in step.codes if code)
        lines += [f"# {step.title}. {step.why}", _line(step.arguments) + codes, ""]
    with whole_file(out / "commands.sh") as file:
        file.write("\n".join(lines).encode())


def _serve(out: Path, server: str) -> tuple[str, ...]:
    return ("serve", "--storage", str(out / "server"), "--address", server)


def _line(arguments: tuple[str, ...]) -> str:
    return shlex.join(("detmetrics", *arguments))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder for this run."""
    with open(out / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out}: another demo is running there; wait for it, or name another folder") from None
        yield


def _check_room(out: Path) -> None:
    free = shutil.disk_usage(out).free
    if free < _NEEDS_BYTES and not (out / "data").exists():
        raise InputError(
            f"the demo needs {_NEEDS_BYTES / 1e9:.0f} GB of disk, and {free / 1e9:.1f} GB are free for {out}",
            hint="make room, or name a folder on another disk: detmetrics demo FOLDER",
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _serving(out: Path, server: str) -> Iterator[Callable[[Callable[[str], None]], None]]:
    """Give what starts the server the first time it is called; stop it at the end, whatever happens."""
    running: list[subprocess.Popen[bytes]] = []

    def start(say: Callable[[str], None]) -> None:
        if running:
            return
        arguments = _serve(out, server)
        say(f"$ {_line(arguments)} &")
        with open(out / "server.log", "wb") as log:
            running.append(
                subprocess.Popen([sys.executable, "-m", "detmetrics", *arguments], stdout=log, stderr=subprocess.STDOUT)
            )
        _wait_for(server, running[0], out / "server.log")

    try:
        yield start
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(server: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, port = server.rsplit(":", 1)
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.1)
    said = log.read_text(errors="replace").strip().splitlines()
    raise DetmetricsError(f"the server did not start: {said[-1] if said else 'it said nothing'}")
