"""Environments for tests of the package: wheel and sdist built, and environments that hold one extra and nothing more."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import Parser
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
#: The name of an extra that means none of them.
CORE = "none"
#: The same library under another name: a quarter of the size.
INSTEAD = {"open3d": "open3d-cpu"}


def bare(**changes: str) -> dict[str, str]:
    """Give an environment in which nothing points at the checkout or at the Python of the tests."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in dropped} | changes


def run(
    *command: object, code: int = 0, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command; another exit code than ``code`` is an error that shows all that was said."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=bare(**environment))
    assert done.returncode == code, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def build(source: Path, out: Path, *kinds: str) -> list[Path]:
    """Build ``--wheel`` and ``--sdist`` from a folder, with what is installed here; without a network."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *kinds, source, cwd=out.parent)
    return sorted(out.iterdir())


def contents(path: Path) -> dict[str, bytes]:
    """Give the files of a wheel or an sdist, those of an sdist without its topmost folder."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    with tarfile.open(path) as archive:
        assert all(member.isfile() or member.isdir() for member in archive)
        files = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


def requirements(wheel: Path, extra: str) -> list[Requirement]:
    """Give what a wheel asks for with an extra."""
    (text,) = (data.decode() for name, data in contents(wheel).items() if name.endswith(".dist-info/METADATA"))
    wanted = [Requirement(line) for line in Parser().parsestr(text).get_all("Requires-Dist", [])]
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": extra})]


def closure(wheel: Path, extra: str) -> dict[str, metadata.Distribution]:
    """Give all distributions that a wheel asks for with an extra, as they are installed here.

    Raises
    ------
    metadata.PackageNotFoundError
        Where one of them is not installed here.
    """
    found: dict[str, metadata.Distribution] = {}
    seen: set[str] = set()
    todo = requirements(wheel, extra)
    while todo:
        wish = todo.pop()
        if str(wish) in seen:
            continue
        seen.add(str(wish))
        name = canonicalize_name(wish.name)
        if name == "detmetrics":  # an extra that has another
            todo += [one for other in wish.extras for one in requirements(wheel, other)]
            continue
        name = INSTEAD.get(name, name)
        found[name] = metadata.distribution(name)
        for inner in map(Requirement, found[name].requires or ()):
            if inner.marker is None or any(inner.marker.evaluate({"extra": one}) for one in ("", *wish.extras)):
                todo.append(inner)
    return found


@dataclass(frozen=True)
class Environment:
    """An environment of its own, outside the checkout.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        """Where its packages lie."""
        (found,) = self.folder.glob("lib/python3.*/site-packages")
        return found

    def detmetrics(self, *arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the installed command outside the checkout."""
        done = run(self.folder / "bin" / "detmetrics", *arguments, code=code, cwd=self.folder, **environment)
        assert "Traceback" not in done.stderr
        return done

    def run(self, code: str) -> str:
        """Run Python outside the checkout, and give what it prints."""
        return run(self.python, "-c", code, cwd=self.folder).stdout.strip()


def linked(folder: Path, wheel: Path, extra: str) -> Environment:
    """Make an environment in a second: the wheel installed, what it asks for linked from the environment of the tests."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    made = Environment(folder)
    install = ("install", "-q", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", made.python, *install, wheel)
    for dist in closure(wheel, extra).values():
        tops = {file.parts[0] for file in dist.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            source = Path(str(dist.locate_file(top)))
            target = made.site / top
            if source.exists() and not target.exists():
                target.symlink_to(source)
    return made


def installed(folder: Path, wheel: Path, extra: str, constraints: Sequence[Path] = ()) -> Environment:
    """Make an environment as a user does: pip, an index, the wheel with its extra."""
    run(sys.executable, "-m", "venv", folder)
    made = Environment(folder)
    bounds = [word for path in constraints for word in ("-c", str(path))]
    wish = str(wheel) if extra == CORE else f"{wheel}[{extra}]"
    pip = (made.python, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "-q", *bounds, wish)
    run(*pip, "check")
    return made
