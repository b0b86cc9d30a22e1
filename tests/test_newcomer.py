"""The errors that a newcomer meets first: each is a sentence that says what to do.

The Makefile runs in a folder of its own, at a path with a space; what it calls is played by small scripts, so nothing is
installed and no network is asked.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from detmetrics import cli
from detmetrics.errors import InputError
from detmetrics.files import whole_file

ROOT = Path(__file__).resolve().parent.parent
PLAIN = (
    "bash",
    "sh",
    "cat",
    "env",
    "awk",
    "touch",
    "rm",
    "timeout",
    "mkdir",
    "chmod",
    "sleep",
    "flock",
    "make",
    "ln",
    "true",
)
#: A Python whose environments hold a Python and a detmetrics that only write down what they are asked.
PYTHON = """#!/bin/bash
here=$(pwd)
case "$*" in
-c*) exit ${WRONG_VERSION:-0};;
"-m venv .venv") [ ! -e no-venv ] || exit 1; mkdir -p .venv/bin; cat > .venv/bin/python <<'INNER'
#!/bin/bash
echo "start $*" >> pip.log; sleep ${PIP_S:-0}; echo "end" >> pip.log
[ ! -e offline ] || { echo 'ERROR: No matching distribution found for numpy' >&2; exit 1; }
INNER
printf '#!/bin/bash\\necho demo runs\\n' > .venv/bin/detmetrics; chmod +x .venv/bin/*;;
esac
"""

pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("make", "flock", "bash")), reason="make, flock or bash is missing"
)


class Machine:
    """A machine on which little is installed, and a folder with our Makefile."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder / "det metrics", folder / "bin"
        self.folder.mkdir()
        self.bin.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder)
        for name in PLAIN:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.play("python3", PYTHON)
        self.play("id", "#!/bin/bash\necho 1000\n")
        self.play("df", "#!/bin/bash\necho header\necho x x x ${FREE_MB:-90000} x x\n")

    def play(self, name: str, script: str) -> None:
        """Put a program on the path."""
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start make."""
        return subprocess.Popen(
            ["make", *words], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={"PATH": str(self.bin), **environment},
        )  # fmt: skip

    def make(self, *words: str, code: int = 0, **environment: str) -> str:
        """Run make, and give what it says."""
        process = self.start(*words, **environment)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == code, said
        return said

    def error(self, *words: str, **environment: str) -> str:
        """Give the one error that make ends with."""
        (line,) = re.findall(r"^error: (.*)$", self.make(*words, code=2, **environment), re.MULTILINE)
        return line

    @property
    def pip_calls(self) -> list[str]:
        """What pip was asked, in order."""
        log = self.folder / "pip.log"
        return [line[6:] for line in log.read_text().splitlines() if line.startswith("start")] if log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_demo_is_installed_once(machine: Machine) -> None:
    assert "demo runs" in machine.make("demo")
    first = machine.pip_calls
    assert len(first) == 2, "pip itself, then everything at once"
    assert "demo runs" in machine.make("demo")
    assert machine.pip_calls == first
    (machine.folder / "pyproject.toml").touch()
    os.utime(machine.folder / "pyproject.toml", (time.time() + 5,) * 2)
    machine.make("demo")
    assert len(machine.pip_calls) == 3


def test_the_index_of_torch_is_asked_for_torch_alone(machine: Machine) -> None:
    machine.make("demo", "TORCH_INDEX=https://example.org/cpu")
    (call,) = (call for call in machine.pip_calls if "example.org" in call)
    assert call.endswith("--index-url https://example.org/cpu torch")


def test_a_wrong_python(machine: Machine) -> None:
    assert machine.error("demo", WRONG_VERSION="1") == (
        "detmetrics needs Python 3.11 or newer, and python3 is not: make PYTHON=python3.11 …"
    )
    assert "python9 is not" in machine.error("demo", "PYTHON=python9")
    assert not (machine.folder / ".venv").exists()


def test_an_old_python_is_refused_by_the_makefile_alone_where_it_is_old(machine: Machine) -> None:
    """The condition itself, run by this Python and told another version."""
    (code,) = re.findall(r"\$\(PYTHON\) -c '([^']*)'", (ROOT / "Makefile").read_text())
    for version, is_right in {(3, 10, 14): False, (3, 11, 0): True, (3, 13, 1): True, (4, 0, 0): True}.items():
        told = code.replace("sys.version_info", str(version))
        assert told != code
        assert (subprocess.run([sys.executable, "-c", told], check=False).returncode == 0) is is_right


def test_no_module_venv(machine: Machine) -> None:
    (machine.folder / "no-venv").touch()
    assert machine.error("demo") == "Python lacks its module venv; install it first: sudo apt-get install python3-venv"
    assert not (machine.folder / ".venv").exists()


def test_no_network_half_way_and_then_again(machine: Machine) -> None:
    machine.make(".venv/python")
    (machine.folder / "offline").touch()
    line = machine.error("demo")
    assert "is there a network?" in line
    assert "Run make again: it goes on where it stopped" in line
    (machine.folder / "offline").unlink()
    assert "demo runs" in machine.make("demo")
    assert sum("--upgrade pip" in call for call in machine.pip_calls) == 1, "what was done is not done again"


def test_no_space(machine: Machine) -> None:
    line = machine.error("demo", FREE_MB="120")
    assert line.startswith("the disk is too full: 120 MB are free here or in /tmp, and an installation needs 3000 MB")
    assert not machine.pip_calls, "it is said before anything is loaded"
    machine.make(".venv/python")
    (machine.folder / "offline").touch()
    line = machine.error("demo", FREE_MB="7", TMPDIR="/small")
    assert line.startswith("the disk is too full: 7 MB are free here or in /small")
    assert "set TMPDIR to a folder with room" in line


def test_a_folder_that_may_not_be_written_to(machine: Machine) -> None:
    (machine.bin / "touch").unlink()
    machine.play("touch", "#!/bin/bash\nexit 1\n")  # as it ends there; nothing stops root, as whom the gate runs
    said = machine.make("demo", code=2)
    assert re.findall(r"^error: (.*)$", said, re.MULTILINE) == [
        "everything is installed in this folder, and you may not write here: copy it to where you may, and run make there"
    ]
    assert "another make" not in said
    assert not machine.pip_calls


def test_two_at_once_install_once(machine: Machine) -> None:
    first = machine.start("demo", PIP_S="1")
    deadline = time.monotonic() + 20
    while not machine.pip_calls and time.monotonic() < deadline:
        time.sleep(0.02)
    second = machine.make("demo", PIP_S="1")
    assert "another make is installing here: waiting until it is done" in second
    assert "demo runs" in second
    said, _ = first.communicate(timeout=60)
    assert "demo runs" in said
    assert "waiting" not in said
    assert len(machine.pip_calls) == 2
    log = (machine.folder / "pip.log").read_text()
    assert re.fullmatch(r"(start.*\nend\n)+", log), "never two at once"


@pytest.mark.parametrize("who", ["root", "sudo", "neither"])
def test_packages_of_the_system(machine: Machine, who: str) -> None:
    machine.play("apt-get", '#!/bin/bash\necho "$SUDO apt-get $*" >> apt.log\n')
    machine.play("dpkg", "#!/bin/bash\nexit 1\n")
    if who == "root":
        machine.play("id", "#!/bin/bash\necho 0\n")
    elif who == "sudo":
        machine.play("sudo", '#!/bin/bash\n[ "$1" = -n ] || exit 9\nshift\nSUDO=sudo exec "$@"\n')
    else:
        machine.play("sudo", "#!/bin/bash\nexit 1\n")
    said = machine.make("demo")
    assert "demo runs" in said
    log = machine.folder / "apt.log"
    told = "the demo draws no pictures here; to have them, first: sudo apt-get install libgl1 libegl1 "
    if who == "neither":
        assert told in said
        assert not log.exists()
    else:
        assert told not in said
        (line,) = log.read_text().splitlines()
        assert line.startswith("sudo" if who == "sudo" else " apt-get")
        assert " install -y " in line
        assert "libegl1" in line
        assert "xvfb" not in line, "that is for the tests"


def test_without_debian_nothing_is_said(machine: Machine) -> None:
    assert "apt-get" not in machine.make("demo")


@pytest.mark.parametrize(
    ("oracles", "rest", "code"), [(0, 0, 0), (5, 0, 0), (0, 5, 0), (5, 5, 2), (1, 0, 2), (0, 1, 2), (5, 2, 2)]
)
def test_parity_of_a_file_without_one_kind_of_test(machine: Machine, oracles: int, rest: int, code: int) -> None:
    """pytest ends with 5 where it finds no test."""
    machine.play("python", f'#!/bin/bash\necho "asked $*"\n[ "$4" = parity ] && exit {oracles}; exit {rest}\n')
    said = machine.make("parity", "made=", f"PARITY={machine.bin}", "ARGS=tests/test_x.py -k some", code=code)
    asked = [line for line in said.splitlines() if line.startswith("asked")]
    assert len(asked) == (1 if oracles == 1 else 2)
    assert all(line.endswith(" tests/test_x.py -k some") for line in asked)


def test_a_full_disk_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with (
            pytest.raises(
                InputError, match=r"cannot write .*: No space left on device \(make room, then run it again\)"
            ),
            whole_file(tmp_path / "a"),
        ):
            pass
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: system: No space left on device (make room, then run the same command again)\n"
    )


def test_a_disk_that_is_full_indeed(tmp_path: Path) -> None:
    """On a file system of one megabyte: a data set that does not fit, a file that does not, and a demo that will not."""
    if not all(map(find_spec, ("torch", "open3d", "sqlalchemy", "jinja2"))):
        pytest.skip("the demo needs every extra")
    small = f"mkdir {tmp_path}/small && mount -t tmpfs -o size=1m tmpfs {tmp_path}/small"
    alone = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*alone, f"{small} && umount {tmp_path}/small"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no file systems of one's own here")
    (tmp_path / "small").rmdir()
    ours = f"'{sys.executable}' -m detmetrics"
    made = f"{ours} synth '{tmp_path}/data' --boxes-only --train-scenes 0 --val-scenes 2 && head -c 1000000 /dev/zero > '{tmp_path}/small/fill' 2>/dev/null"
    for command, told in {
        f"{ours} synth '{tmp_path}/small/data' --tiny": "the disk of .* has too little room",
        f"{ours} synth '{tmp_path}/small/data' --boxes-only --val-scenes 40": "No space left on device .make room",
        f"{made}; {ours} convert --data '{tmp_path}/data' '{tmp_path}/small/truth.parquet'": "No space left on device .make room",
        f"{ours} demo '{tmp_path}/small/demo'": "the demo needs 2 GB of disk, and 0.0 GB are free .*make room",
    }.items():
        done = subprocess.run([*alone, f"{small} && {{ {command}; }}"], capture_output=True, text=True, check=False)
        shutil.rmtree(tmp_path / "small")
        assert done.returncode == 2, (command, done.stderr)
        assert re.search(rf"^error: .*{told}", done.stderr, re.MULTILINE), (command, done.stderr)
        assert "Traceback" not in done.stderr


def test_where_nothing_can_be_kept_kernels_compile_and_it_is_said_once() -> None:
    code = (
        "import numba\n"
        "real = numba.njit\n"
        "def njit(*given, cache=False, **options):\n"
        "    if cache: raise RuntimeError('cannot cache function: no locator available')\n"
        "    return real(*given, **options)\n"
        "numba.njit = njit\n"
        "import numpy as np, detmetrics.synth.rays\n"
        "print(*detmetrics.kernels.group(np.array([1, 0], np.int32), 2)[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 0\n"
    assert done.stderr.count("no writable folder for compiled kernels") == 1
    assert "set NUMBA_CACHE_DIR" in done.stderr


def test_reasons_for_skipping_are_said_once(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(3))\n"
        "def test_one(n): pytest.skip('no real data')\n"
        "@pytest.mark.skipif(True, reason='no real data')\n"
        "def test_two(): pass\n"
        "def test_three(): pytest.skip('no pipe')\n"
        "def test_four(): pass\n"
    )
    for name in "bc":
        (tmp_path / f"test_{name}.py").write_text(
            "import pytest\npytest.importorskip('nothing', reason='no nothing')\n"
        )
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:dash", "-rfExX", "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    lines = [line.strip() for line in done.stdout.splitlines()]
    at = next(number for number, line in enumerate(lines) if "skipped, and why" in line)
    assert lines[at + 1 :] == ["4 tests: no real data", "1 test: no pipe", "2 files: no nothing", lines[-1]]
    assert lines[-1].startswith("1 passed, 7 skipped")
