"""Who may import whom, what may be loaded, and that kernels compile once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import detmetrics as dm
from detmetrics.errors import InputError, Words, shorten

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted(path for path in (ROOT / "detmetrics").rglob("*.py") if "v1" not in path.parts)  # v1 is generated
SERVER = sorted((ROOT / "server" / "detmetrics_server").glob("*.py"))
VIZ = sorted((ROOT / "viz" / "detmetrics_viz").glob("*.py"))
TEMPLATES = {"jinja2", "markupsafe"}  # the report only
TORCH = {"torch", "safetensors", "matplotlib"}  # the detector only
HEAVY = TORCH | {"grpc", "open3d", "pandas", "scipy", "shapely", "google", "sqlalchemy", "prometheus_client"}
ENGINE = (
    "kernels",
    "matching",
    "ledger",
    "curves",
    "scoring",
    "weights",
    "evaluation",
    "firstaid",
    "slicing",
    "intervals",
    "resampling",
)
#: What each module of the engine may import from detmetrics.
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "extras": {"errors"},
    "geometry": set(),
    "kernels": set(),
    "curves": {"kernels"},
    "boxes": {"errors"},
    "protocol": {"errors", "files", "protocols", "reporting"},
    "weights": {"errors"},
    "ledger": {"boxes", "curves", "errors", "kernels", "protocol", "io", "exporting"},
    "firstaid": {"errors", "ledger", "protocol"},
    "matching": {"kernels", "boxes", "curves", "errors", "firstaid", "geometry", "ledger", "protocol"},
    "scoring": {"curves", "errors", "kernels", "ledger", "protocol", "weights", "reporting"},
    "evaluation": {"boxes", "matching", "protocol", "scoring"},
    "slicing": {"boxes", "curves", "errors", "kernels", "ledger", "protocol", "reporting", "scoring", "weights"},
    "intervals": {"kernels"},
    "resampling": {
        "errors",
        "intervals",
        "kernels",
        "ledger",
        "protocol",
        "reporting",
        "scoring",
        "slicing",
        "weights",
    },
    "diagnosis": {"curves", "errors", "kernels", "ledger", "matching", "reporting", "scoring", "slicing", "weights"},
    "operating": {"diagnosis", "errors", "kernels", "ledger", "protocol", "reporting", "slicing", "weights"},
    "framing": {"errors", "kernels", "ledger", "operating", "reporting", "scoring", "weights"},
    "exporting": {"boxes", "diagnosis", "errors", "extras", "ledger", "slicing"},
    "demo": {"errors", "extras", "files"},
    "gate": {"errors", "files", "ledger", "protocol", "reporting", "resampling", "scoring", "slicing"},
}
ROOMS = {
    "io": {"boxes", "errors", "extras", "files", "geometry", "io", "ledger", "protocol"},
    "protocols": {"errors", "protocol", "protocols"},
    "detector": {
        "boxes",
        "detector",
        "errors",
        "extras",
        "files",
        "geometry",
        "io",
        "kernels",
        "protocols",
        "reporting",
        "synth",  # the recipe makes its worlds
    },
    "synth": {"boxes", "errors", "files", "geometry", "kernels", "protocols", "synth"},
    "reporting": {
        "protocol",
        "scoring",
        "errors",
        "extras",
        "reporting",
        "slicing",
        "resampling",
        "gate",
        "diagnosis",
        "operating",
        "framing",
        "ledger",
        "files",
        "protocols",
    },
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module == "detmetrics":
                names |= {f"detmetrics.{alias.name}" for alias in node.names if not alias.name.startswith("__")}
    return names


def parts(names: set[str]) -> set[str]:
    """The second part of every ``detmetrics.x.y``."""
    return {[*name.split("."), "detmetrics"][1] for name in names if name.split(".")[0] == "detmetrics"}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_stay_in_their_room(path: Path) -> None:
    names = imported(path)
    heavy = {
        name for name in names if name.split(".")[0] in HEAVY - (TORCH if path.parent.name == "detector" else set())
    }
    assert not heavy, f"{path.name} imports {heavy}"
    assert not {name for name in names if name.split(".")[0] in TEMPLATES} or path.parent.name == "reporting"
    if "numba" in {name.split(".")[0] for name in names}:
        assert path.stem == "kernels"
    relative = path.relative_to(ROOT / "detmetrics").parts
    if relative[0] == "cli":
        return  # the front door may open every room
    if len(relative) > 1:
        assert parts(names) - {"detmetrics"} <= ROOMS[relative[0]]
    elif path.stem in ALLOWED:
        assert parts(names) - {"detmetrics"} <= ALLOWED[path.stem]
    else:
        assert path.stem in ("__init__", "__main__"), f"{path.name} is in no list of this test"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_knows_the_server(path: Path) -> None:
    names = imported(path)
    if path.parent.name != "cli":
        assert not {name for name in names if name.split(".")[0] == "detmetrics_server"}
    assert not {name for name in names if name.startswith("detmetrics.v1")}


@pytest.mark.parametrize("path", SERVER, ids=lambda path: path.name)
def test_the_server_imports_no_heavy_library_of_others(path: Path) -> None:
    heavy = {name.split(".")[0] for name in imported(path)} & HEAVY
    allowed = {"grpc", "google"} | ({"sqlalchemy"} if path.stem == "storage" else set())
    allowed |= {"prometheus_client"} if path.stem == "watching" else set()
    assert heavy <= allowed
    if path.stem == "worker":
        assert "grpc" not in heavy, "workers know nothing of the wire but messages"


@pytest.mark.parametrize("path", VIZ, ids=lambda path: path.name)
def test_the_viewer_stays_in_its_room(path: Path) -> None:
    rooms = {name.split(".")[0] for name in imported(path)}
    assert rooms & HEAVY <= ({"open3d"} if path.stem == "opening" else set())
    assert "detmetrics_server" not in rooms
    assert "cli" not in parts(imported(path))


@pytest.mark.parametrize("path", [*LIBRARY, *SERVER], ids=lambda path: path.name)
def test_only_the_command_line_knows_the_viewer(path: Path) -> None:
    knows = "detmetrics_viz" in {name.split(".")[0] for name in imported(path)}
    assert not knows or path.parent.name == "cli"


@pytest.mark.parametrize("module", ENGINE)
def test_the_engine_knows_no_protocol(module: str) -> None:
    source = (ROOT / "detmetrics" / f"{module}.py").read_text()
    tree = ast.parse(source)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            for name in ("nuscenes", "argoverse", "kitti", "waymo", "truckscenes"):
                assert name not in node.value.lower(), f"{module}.py:{node.lineno}: {node.value!r}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_knows_the_detector(path: Path) -> None:
    if path.parent.name not in ("cli", "detector"):
        assert "detector" not in parts(imported(path))


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_is_light() -> None:
    loaded = run("import sys, detmetrics; detmetrics.Boxes, detmetrics.NUSCENES; print(*sys.modules)").split()
    assert not {
        "numba",
        "torch",
        "grpc",
        "open3d",
        "pandas",
        "scipy",
        "pyarrow",
        "rich",
        "typer",
        "jinja2",
        "google",
        "sqlalchemy",
    } & set(loaded)


def test_import_is_fast() -> None:
    code = (
        "import numpy, time; t = time.perf_counter(); import detmetrics; detmetrics.Boxes; detmetrics.NUSCENES; "
        "print(time.perf_counter() - t)"
    )
    assert min(float(run(code)) for _ in range(3)) < 0.15


def test_every_word_of_a_protocol_has_its_function() -> None:
    from detmetrics import curves, kernels, protocol, scoring

    for kinds, table in (
        (protocol.AffinityKind, kernels.AFFINITY),
        (protocol.AssignmentKind, kernels.ASSIGN),
        (protocol.ErrorKind, kernels.ERROR),
        (protocol.RangeKind, kernels.RANGE),
        (protocol.TieKind, curves.TIES),
        (protocol.CurveKind, curves.CURVE),
        (protocol.ErrorMeanKind, curves.ERROR_MEAN),
        (protocol.CompositeKind, scoring.COMPOSITE),
        (protocol.CompositeKind, scoring.SLOPE),
    ):
        assert set(get_args(kinds)) == set(table)


def test_every_public_name_is_there() -> None:
    for name in dm.__all__:
        assert getattr(dm, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        dm.nothing  # noqa: B018


def test_kernels_compile_once() -> None:
    """A second compilation for another type of the same argument would cost seconds and hide a wrong dtype."""
    import make
    from detmetrics import curves, kernels

    for seed, knobs in enumerate(({}, {"racks": 1}, {"partial": True}, {"n_frames": 1}, {"pred_points": True})):
        truth, pred = make.scene(seed, **knobs)
        ledger = dm.match(truth, pred, dm.NUSCENES)
        dm.score(ledger, dm.Weights(frame=[1] * truth.n_frames))
        truth, pred = make.sweeps(seed)
        dm.score(dm.match(truth, pred, dm.ARGOVERSE2))
    found = 0
    for module in (kernels, curves):
        for name, function in vars(module).items():
            if hasattr(function, "nopython_signatures"):
                found += 1
                assert len(function.nopython_signatures) <= 1, (name, function.nopython_signatures)
    assert found >= 12


@pytest.mark.parametrize("path", LIBRARY + SERVER + VIZ, ids=lambda path: path.name)
def test_what_came_is_not_our_own_words_in_quotes(path: Path) -> None:
    """``got=`` is printed as it was given, a text in quotes; what we say of it is ``Words``."""

    def is_ours(node: ast.expr) -> bool:
        if isinstance(node, ast.IfExp):
            return is_ours(node.body) or is_ours(node.orelse)
        return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            said = [one.value.lineno for one in node.keywords if one.arg == "got" and is_ours(one.value)]
            assert not said, f"{path.name}:{said[0]}: got=Words(…)"


def test_words_of_ours_are_printed_without_quotes() -> None:
    assert str(InputError("x", expected="a file", got=Words("a folder"))) == "x must be a file, got a folder"
    assert str(InputError("x", expected="a file", got="a folder")) == "x must be a file, got 'a folder'"
    assert len(shorten(Words("long " * 100))) == 120
