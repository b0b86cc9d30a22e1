"""The documentation keeps its word: its blocks run, page by page and in order; it builds without a warning."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from detmetrics import extras
from detmetrics.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^```(?:\{code-block\} )?(\w+)\n((?::\w+:[^\n]*\n)*)(.*?)^```$", re.DOTALL | re.MULTILINE)
RUN = ("python", "sh")
SHOWN = "text"


class Block(NamedTuple):
    """A code block of a page; ``caption`` is the file that it is."""

    language: str
    caption: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = []
    for language, options, text in BLOCK.findall(page.read_text()):
        given = dict(re.findall(r":(\w+):\s*(.*)", options))
        found.append(Block(language, given.get("caption", ""), text))
    return found


def has_module(name: str) -> bool:
    """Whether a module is there, without loading it."""
    return importlib.util.find_spec(name) is not None


def skip_where_an_extra_is_absent(message: str) -> None:
    """Skip for what is not installed; where it is, the message is a fault."""
    for extra in re.findall(r"pip install 'detmetrics\[(\w+)\]'", message):
        try:
            extras.require(extra)
        except extras.MissingExtraError as error:
            pytest.skip(f"this page needs the extra [{extra}], and {error.package} is not installed")
    if "Open3D cannot draw on this system" in message:
        pytest.skip("Open3D lacks a library of the system: see make screen")


class Reader:
    """Someone who types a page into one folder, block by block."""

    def __init__(self, folder: Path, ports: dict[str, str]) -> None:
        self.folder, self.ports = folder, ports
        self.names: dict[str, Any] = {"__name__": "__page__"}
        self.groups: list[int] = []
        self.path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"

    def fitted(self, text: str) -> str:
        for port, free in self.ports.items():
            text = text.replace(port, free)
        return text

    def do(self, block: Block) -> str:
        """Type a block; give what it prints."""
        text = self.fitted(block.text)
        if block.caption:
            (self.folder / block.caption).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.caption).write_text(text)
        if block.language == "python":
            return self.python(text)
        return self.shell(text) if block.language == "sh" else ""

    def python(self, text: str) -> str:
        printed = io.StringIO()
        try:
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
                exec(compile(text, "page", "exec"), self.names)
        except (InputError, ImportError) as error:
            skip_where_an_extra_is_absent(str(error))
            absent = extras.missing(error) if isinstance(error, ModuleNotFoundError) else None
            if absent is not None:
                pytest.skip(f"this page needs {absent.package}")
            raise
        return printed.getvalue()

    def shell(self, text: str) -> str:
        out, err = self.folder / ".out", self.folder / ".err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            shell = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self.folder,
                env={**os.environ, "PATH": self.path, "COLUMNS": "160", "DETMETRICS_SERVER_WORKERS": "1"},
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # what goes on in the background is ended with the page
            )
        self.groups.append(shell.pid)
        code = shell.wait(timeout=100)
        if code:
            said = err.read_text() + out.read_text()
            skip_where_an_extra_is_absent(said)
            absent = re.search(r"(buf|openssl|curl): command not found", said)
            if absent:
                pytest.skip(f"{absent[1]} is not installed")
            raise AssertionError(f"exit code {code} of:\n{text}\n{said[-3000:]}")
        return out.read_text()

    def leave(self) -> None:
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def reader(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    page: Path = request.getfixturevalue("page")
    ports = {port: free_port() for port in sorted(set(re.findall(r":(\d{4,5})\b", page.read_text())))}
    someone = Reader(tmp_path, ports)
    yield someone
    someone.leave()


def shown_in(shown: str, printed: str) -> bool:
    """Whether the lines of a text block were printed, in order; … stands for anything, blanks for blanks."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in filter(str.strip, shown.splitlines()):
        words = ".*".join(re.escape(part.strip()) for part in " ".join(line.split()).split("…"))
        if not any(re.search(words, one) for one in lines):  # goes on where the last was found
            return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page: Path, reader: Reader) -> None:
    printed = ""
    for block in blocks(page):
        if block.language == SHOWN:
            assert shown_in(reader.fitted(block.text), printed), f"{page.name} shows\n{block.text}\nbut got\n{printed}"
        else:
            printed = reader.do(block) or printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_of_a_known_kind(page: Path) -> None:
    text = page.read_text()
    unnamed = page == README  # its two make commands, which the gate itself is
    assert text.count("\n```") == 2 * (len(re.findall(r"^```(?:\{\S+\}|\w+)", text, re.MULTILINE)) + unnamed)
    for block in blocks(page):
        assert block.language in (*RUN, SHOWN, "toml", "json", "js", "sql", "console"), block
        if block.language == "console":
            assert page.stem == "install", "only what installs is not run; see the test of that page"
        elif page == README and block.language == "js":
            assert block.text in [other.text for other in blocks(DOCS / "server.md")], "run by Node there"
        elif block.language not in (*RUN, SHOWN):
            assert block.caption, f"a {block.language} block needs a caption, the file that it is: it is used below"
            others = text.replace(f":caption: {block.caption}", "")
            assert block.caption.rpartition("/")[2] in others, f"{block.caption} is not used on {page.name}"


def test_the_two_commands_and_the_links_of_the_readme_exist() -> None:
    text = README.read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "docs"):
        assert f"make {target}" in text
        assert f"\n{target}:" in makefile
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / link).exists(), link


def test_installing_names_what_there_is() -> None:
    """Its blocks would change the machine, so what they name is held against where it is said."""
    from detmetrics_viz.opening import PACKAGES

    page, makefile = (DOCS / "install.md").read_text(), (ROOT / "Makefile").read_text()
    table = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(table))) == set(extras.EXTRAS)
    for named in re.findall(r"'\.\[([\w,]+)\]'", page):
        assert set(named.split(",")) <= set(extras.EXTRAS)
    targets = set(re.findall(r"\bmake (?:TORCH_INDEX=\S+ )?([.\w/]+)`?$", page, re.MULTILINE))
    targets |= set(re.findall(r"`make (?:TORCH_INDEX=\S+ )?([.\w/]+)`", page))
    assert targets >= {".venv/core", ".venv/all", "demo", "test"}
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
    assert f"apt-get install {PACKAGES}\n" in re.sub(r" \\\n +", " ", page)
    assert f"VIEWER := {PACKAGES}\n" in makefile
    assert "TORCH_INDEX ?=" in makefile
    asked = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if "requires-python" in line)
    assert f"Python {re.findall(r'[0-9.]+', asked)[0]} or newer" in page


def test_blocks_are_found_and_held_against_what_is_printed() -> None:
    """So that a page that is misread (no blocks) is noticed."""
    assert sum(len([b for b in blocks(page) if b.language in RUN]) for page in PAGES) >= 30
    assert shown_in("a … c\nd", "x\na b c\n\n  d")
    assert not shown_in("a … c\nd", "a b\nd")


sphinx = pytest.mark.skipif(not has_module("sphinx"), reason="Sphinx is in the development environment only")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(out / "trees"), str(DOCS), str(out / "html")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "html"


@sphinx
def test_every_public_name_is_described(site: Path) -> None:
    from sphinx.util.inventory import InventoryFile

    import detmetrics as dm
    from detmetrics import io, synth

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda _, name: name)
    described = {
        name
        for kind, names in getattr(inventory, "data", inventory).items()
        if kind.startswith("py:")
        for name in names
    }
    rooms = {"reporting", "__version__"}
    wanted = {f"detmetrics.{name}" for name in dm.__all__ if name not in rooms}
    wanted |= {f"detmetrics.io.{name}" for name in io.__all__} | {f"detmetrics.synth.{name}" for name in synth.__all__}
    assert not wanted - described
    assert "detmetrics_server.client.Client.evaluate" in described
    import detmetrics_viz

    assert not {f"detmetrics_viz.{name}" for name in detmetrics_viz.__all__} - described


@sphinx
def test_every_command_is_described(site: Path) -> None:
    from typer.main import get_command

    from detmetrics.cli import app

    page = (site / "_made" / "commands.html").read_text()
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert f'id="detmetrics-{name}"' in page, name


@sphinx
def test_pages_ask_nobody_for_anything(site: Path) -> None:
    for path in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"(https?:[^\"]+)", path.read_text())
        loaded += re.findall(r"<link[^>]+rel=\"(?:stylesheet|preload)\"[^>]+href=\"(https?:[^\"]+)", path.read_text())
        assert not loaded, path


WORKFLOW = DOCS / "gate" / "detmetrics-gate.yml"


@pytest.mark.skipif(
    not has_module("check_jsonschema"), reason="check-jsonschema is in the development environment only"
)
def test_the_workflow_is_one() -> None:
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for action in re.findall(r"uses: (.*)", WORKFLOW.read_text()):
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action), f"{action} is not pinned to a major version"


@pytest.mark.parametrize(("quality", "answer"), [(1.0, 0), (0.7, 3)])
def test_the_workflow_runs(tmp_path: Path, quality: float, answer: int) -> None:
    """Its shell steps, in order, as GitHub runs them; only pip is left out."""
    yaml = pytest.importorskip("ruamel.yaml", reason="in the development environment only")
    for module in ("pyarrow", "jinja2"):
        pytest.importorskip(module, reason="an extra that the workflow installs")
    import detmetrics as dm
    from detmetrics.synth import make_boxes

    settings: dict[str, Any] = {"n_frames": 40, "samples_per_scene": 5, "boxes_per_sample": 30}
    truth, good = make_boxes(**settings)
    dm.io.parquet.write(truth, tmp_path / "truth.parquet")
    dm.io.parquet.write(make_boxes(**settings, quality=quality)[1], tmp_path / "made.parquet")
    dm.match(dm.io.parquet.read(tmp_path / "truth.parquet"), good, dm.NUSCENES).save(tmp_path / "baseline.ledger")
    (rules,) = [block for block in blocks(DOCS / "gate.md") if block.language == "toml"]
    (tmp_path / "gate.toml").write_text(rules.text)
    (tmp_path / "predict.sh").write_text('#!/bin/sh\ncp made.parquet "$1"\n')
    (tmp_path / "predict.sh").chmod(0o755)

    flow = yaml.YAML(typ="safe").load(WORKFLOW.read_text())
    summary = tmp_path / "step_summary"
    environment = {**os.environ, **flow["env"], "GITHUB_STEP_SUMMARY": str(summary)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    codes = {}
    for step in flow["jobs"]["gate"]["steps"]:
        if "run" not in step or step["name"] == "Install":
            continue
        needed = re.search(r"hashFiles\('(.*?)'\)", step.get("if", ""))
        if "if" in step:
            assert "!cancelled()" in step["if"]  # also where the gate said no
            assert needed is not None
            assert (tmp_path / needed[1]).exists()
        else:
            assert not any(codes.values()), "a step after one that failed would not run"
        command = ["bash", "-e", "-c", step["run"]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        codes[step["name"]] = done.returncode
        assert done.returncode == (answer if step["name"] == "Gate" else 0), done.stderr
    assert codes == {"Predict": 0, "Score": 0, "Gate": answer, "Summary": 0, "Report": 0}
    assert ("worse" in summary.read_text()) == (answer == 3)
    kept = flow["jobs"]["gate"]["steps"][-1]["with"]["path"].split()
    assert all((tmp_path / name).stat().st_size for name in kept)


def test_the_unit_is_one(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    program = shutil.which("true")
    unit = (DOCS / "server" / "detmetrics.service").read_text()
    (tmp_path / "detmetrics.service").write_text(unit.replace("/opt/detmetrics/bin/detmetrics", str(program)))
    done = subprocess.run(
        [analyze, "verify", tmp_path / "detmetrics.service"], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "detmetrics" in line]
    assert not ours, done.stderr
