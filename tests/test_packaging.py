"""What people install: the wheel and the sdist, and environments in which only one extra is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import detmetrics as dm
from detmetrics import demo, extras
from detmetrics.errors import InputError

pytest.importorskip("build", reason="build and hatchling are in the development environment only")
import environments

ROOT = environments.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {"detmetrics": "detmetrics", "detmetrics_server": "server", "detmetrics_viz": "viz"}
#: Everything that is no Python, so a new large file is looked at once.
DATA = {
    "detmetrics/py.typed", "detmetrics_server/py.typed", "detmetrics_viz/py.typed",
    "detmetrics/detector/page.html", "detmetrics/detector/weights/MODEL_CARD.md", "detmetrics/detector/weights/curves.png",
    "detmetrics/detector/weights/small.json", "detmetrics/detector/weights/small.safetensors",
    "detmetrics/reporting/assets/report.css", "detmetrics/reporting/assets/report.html", "detmetrics/reporting/assets/report.js",
    "detmetrics/reporting/assets/plotly/LICENSE", "detmetrics/reporting/assets/plotly/README.md",
    "detmetrics/reporting/assets/plotly/plotly-cartesian.min.js",
    "detmetrics_viz/assets/page.css", "detmetrics_viz/assets/page.html", "detmetrics_viz/assets/page.js",
    "detmetrics_viz/assets/three/LICENSE", "detmetrics_viz/assets/three/README.md", "detmetrics_viz/assets/three/entry.js",
    "detmetrics_viz/assets/three/three.min.js",
}  # fmt: skip
MAX_WHEEL_MB = 8.0
#: Every command: arguments that a user might type, and the extra that it cannot do without ("": the core is enough).
COMMANDS = {
    "evaluate": (["pred.json", "--truth", "truth.parquet"], "parquet"),
    "compare": (["pred.json", "pred.json", "--truth", "truth.parquet"], "parquet"),
    "diagnose": (["pred.json", "--truth", "truth.parquet"], "parquet"),
    "worst": (["pred.json", "--truth", "truth.parquet"], "parquet"),
    "export": (["pred.json", "rows.parquet", "--data", "nowhere"], "parquet"),
    "convert": (["pred.json", "pred.parquet"], "parquet"),
    "report": (["pred.json", "-o", "report.html", "--data", "nowhere"], "report"),
    "view": (["--data", "nowhere", "--save", "frame.png"], "viz"),
    "protocols": ([], ""),
    "synth": (["made", "--boxes-only", "--val-scenes", "1", "--train-scenes", "0", "--samples", "2"], ""),
    "serve": (["--storage", "store"], "server"),
    "submit": (["pred.json", "--dataset", "a"], "client"),
    "upload-dataset": (["a", "--truth", "truth.parquet"], "client"),
    "token add": (["me", "--storage", "store"], "server"),
    "token list": (["--storage", "store"], "server"),
    "token revoke": (["me", "--storage", "store"], "server"),
    "detector info": ([], "detector"),
    "detector train": (["--data", "nowhere", "--out", "run"], "detector"),
    "detector predict": (["--data", "nowhere", "--out", "boxes.json"], "detector"),
    "detector curves": (["run"], "detector"),
    "detector check": (["--data", "nowhere"], ""),
    "detector card": ([], ""),
    "detector plain": (["--data", "nowhere", "--out", "boxes.json", "--split", "a"], ""),
    "demo": (["shown"], "detector"),
}
WALK = """
import json, typer
from detmetrics.cli import app
def walk(command, path):
    assert command.main(["--help"], prog_name="detmetrics", standalone_mode=False) in (0, None)
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, [*path, name])
    if not getattr(command, "commands", {}):
        yield " ".join(path)
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as shown:
    leaves = list(walk(typer.main.get_command(app), []))
print(json.dumps([leaves, shown.getvalue().count("Usage:")]))
"""
#: What each extra is for, in Python; the rooms that need it import whole.
USES = {
    "parquet": "import detmetrics as dm; from detmetrics.io._arrow import import_pyarrow; import_pyarrow(); import detmetrics.exporting, detmetrics.io.argoverse2",
    "report": "from detmetrics.reporting import page; page.environment().get_template('report.html')",
    "client": "from detmetrics_server.client import Client; from detmetrics_server import convert",
    "server": "from detmetrics_server import main, worker; from detmetrics_server.client import Client",
    "viz": "from detmetrics_viz import opening, viewing, window, gallery; opening.open3d(); import PIL, imageio_ffmpeg",
    "detector": (
        "import pkgutil, importlib, detmetrics.detector as room\n"
        "for one in pkgutil.iter_modules(room.__path__): importlib.import_module(f'detmetrics.detector.{one.name}')\n"
        "from detmetrics.detector import checkpoint, page\n"
        "import matplotlib, jinja2"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheel and sdist of this tree."""
    made = environments.build(ROOT, tmp_path_factory.mktemp("build") / "dist", "--wheel", "--sdist")
    return {"wheel" if path.suffix == ".whl" else "sdist": path for path in made}


@pytest.fixture(scope="module")
def core(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> environments.Environment:
    """An environment that holds the core and nothing more, at a path with a space."""
    return environments.linked(tmp_path_factory.mktemp("only the core") / "env", built["wheel"], environments.CORE)


def tracked() -> set[str]:
    """Give what git keeps, by the names it has in a wheel."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("no git clone")
    names = set()
    for name in done.stdout.splitlines():
        for package, folder in PACKAGES.items():
            start = f"{package}/" if folder == package else f"{folder}/{package}/"
            if name.startswith(start) and (ROOT / name).exists():
                names.add(name[len(start) - len(package) - 1 :])
    return names


def test_the_wheel_holds_the_packages_and_nothing_else(built: dict[str, Path]) -> None:
    found = set(environments.contents(built["wheel"]))
    inside = {name for name in found if ".dist-info/" not in name}
    assert inside == tracked()
    assert {name for name in inside if not name.endswith(".py")} == DATA
    rest = {name.partition(".dist-info/")[2] for name in found - inside}
    assert rest == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert built["wheel"].stat().st_size < MAX_WHEEL_MB * 1e6


def test_the_wheel_says_what_the_project_says(built: dict[str, Path]) -> None:
    files = environments.contents(built["wheel"])
    (text,) = (data.decode() for name, data in files.items() if name.endswith("/METADATA"))
    for line in (f"Version: {dm.__version__}", "Requires-Python: >=3.11", "License-Expression: Apache-2.0"):
        assert line in text.splitlines()
    assert set(re.findall(r"^Provides-Extra: (.*)$", text, re.MULTILINE)) == set(extras.EXTRAS)
    assert set(extras.EXTRAS) == set(PROJECT["project"]["optional-dependencies"])


def test_the_sdist_is_what_a_wheel_is_made_of(built: dict[str, Path], tmp_path: Path) -> None:
    found = set(environments.contents(built["sdist"]))
    tops = {name.partition("/")[0] for name in found}
    assert tops == {
        "detmetrics", "server", "viz", "proto", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "PKG-INFO", ".gitignore",
    }  # fmt: skip
    assert built["sdist"].stat().st_size < MAX_WHEEL_MB * 1e6
    source = tmp_path / "source"
    for name, data in environments.contents(built["sdist"]).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    (again,) = environments.build(source, tmp_path / "dist", "--wheel")
    assert environments.contents(again) == environments.contents(built["wheel"])


def test_the_table_of_extras_is_that_of_the_project(built: dict[str, Path]) -> None:
    for extra, packages in extras.EXTRAS.items():
        wanted = {one.name.lower() for one in environments.requirements(built["wheel"], extra)}
        assert set(packages.values()) <= wanted, extra
        for module, package in packages.items():
            for name in (package, environments.INSTEAD.get(package, package)):
                try:
                    tops = {file.parts[0] for file in metadata.files(name) or ()}
                except metadata.PackageNotFoundError:
                    continue
                assert module.partition(".")[0] in tops or f"{module}.py" in tops, (module, name)


def test_every_command_helps_with_the_core_alone(core: environments.Environment) -> None:
    for extra, packages in extras.EXTRAS.items():
        for package in packages.values():
            call = f"from detmetrics import extras; extras.require({extra!r}, {package!r})"
            with pytest.raises(AssertionError, match="which is not installed"):
                core.run(call)
    leaves, shown = json.loads(core.run(WALK))
    assert set(leaves) == set(COMMANDS), "every command stands in COMMANDS, with the extra that it needs"
    assert shown == len(leaves) + 1 + len({name.split()[0] for name in leaves if " " in name})
    assert "evaluate" in core.detmetrics("--help").stdout
    assert core.detmetrics("--version").stdout == f"detmetrics {dm.__version__}\n"
    where = core.run("import detmetrics; print(detmetrics.__file__)")
    assert Path(where).is_relative_to(core.folder), where


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_the_extra_that_it_needs(core: environments.Environment, command: str, tmp_path: Path) -> None:
    arguments, extra = COMMANDS[command]
    (tmp_path / "pred.json").write_text('{"meta": {"use_lidar": true}, "results": {}}')
    (tmp_path / "truth.parquet").write_bytes(b"PAR1")
    (tmp_path / "run").mkdir()
    row = {"epoch": 1, "steps": 1, "seconds": 1.0}
    (tmp_path / "run" / "history.jsonl").write_text(json.dumps(row) + "\n")
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [core.folder / "bin" / "detmetrics", *command.split(), *arguments],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environments.bare(COLUMNS="200"),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "fault of detmetrics" not in done.stderr
    if not extra:
        assert "pip install" not in done.stderr
        assert done.returncode == (2 if "nowhere" in arguments else 0), done.stderr
        return
    assert done.returncode == 2, (done.stdout, done.stderr)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))  # and the last of the progress
    assert re.fullmatch(
        rf"error: .* needs [a-z0-9-]+, which is not installed: pip install 'detmetrics\[{extra}\]'", line
    ), line
    assert sorted(tmp_path.iterdir()) == before  # nothing is begun


#: What fails in Python for want of an extra.
CALLS = {
    "dm.io.parquet.read('x')": "parquet",
    "dm.io.argoverse2.load_results('x')": "parquet",
    "dm.io.clouds.read('x.feather')": "parquet",
    "dm.match(*dm.synth.make_boxes(n_frames=2, seed=0), dm.NUSCENES).to_arrow()": "parquet",
    "dm.report([dm.match(*dm.synth.make_boxes(n_frames=2, seed=0), dm.NUSCENES)], 'x.html')": "report",
    "import detmetrics_server.client": "client",
    "import detmetrics_server.messages": "client",
    "import detmetrics_server.storage": "server",
    "import detmetrics_server.service": "server",
    "from detmetrics_viz import Painter; Painter()": "viz",
    "import numpy as np; from detmetrics_viz import save_png; save_png(np.zeros((2, 2, 3), np.uint8), 'x.png')": "viz",
    "import detmetrics.detector.predicting": "detector",
    "import detmetrics.detector.checkpoint": "detector",
}


def test_python_names_the_extra_too(core: environments.Environment) -> None:
    code = (
        "import json, detmetrics as dm\n"
        "def told(call):\n"
        "    try: exec(call, {'dm': dm})\n"
        "    except ImportError as error: return [type(error).__name__, str(error)]\n"
        f"print(json.dumps({{call: told(call) for call in {list(CALLS)!r}}}))\n"
    )
    for call, told in json.loads(core.run(code)).items():
        assert told is not None, f"{call} worked"
        assert told[0] == "MissingExtraError", (call, told)
        assert told[1].endswith(f"which is not installed: pip install 'detmetrics[{CALLS[call]}]'"), (call, told)


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_an_extra_asks_for_all_that_it_needs(extra: str, built: dict[str, Path], tmp_path: Path) -> None:
    try:
        made = environments.linked(tmp_path / "env", built["wheel"], extra)
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    if extra == "viz" and (why := demo._why_no_pictures()):
        pytest.skip(why)
    made.run(f"from detmetrics import extras; extras.require({extra!r})")
    made.run(USES[extra])


def test_a_module_of_ours_that_is_missing_is_our_fault() -> None:
    with pytest.raises(ModuleNotFoundError), extras.needs("viz"):
        import detmetrics.no_such_module  # noqa: F401
    assert extras.missing(ModuleNotFoundError("no", name="detmetrics.no_such_module")) is None
    assert extras.missing(ModuleNotFoundError("no", name="strange")) is None
    assert str(extras.missing(ModuleNotFoundError("no", name="google"))) == (
        "this needs protobuf, which is not installed: pip install 'detmetrics[client]'"
    )


def test_the_outer_purpose_names_the_extra() -> None:
    with (
        pytest.raises(InputError, match=r"it needs grpcio, .*'detmetrics\[server\]'"),
        extras.needs("server", "it"),
        extras.needs("client"),
    ):
        raise ModuleNotFoundError("no", name="grpc._channel")


@pytest.mark.soak
@pytest.mark.parametrize("extra", [environments.CORE, *extras.EXTRAS])
def test_the_wheel_installs_into_an_empty_environment(extra: str, built: dict[str, Path], tmp_path: Path) -> None:
    """From an index, as users do; ``tests/bench/extras.py`` measures the same."""
    made = environments.installed(tmp_path / "env", built["wheel"], extra, [ROOT / "constraints.txt"])
    assert made.detmetrics("--version").stdout == f"detmetrics {dm.__version__}\n"
    if extra != environments.CORE:
        made.run(USES[extra])
