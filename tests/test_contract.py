"""The wire contract: generated code is fresh, the lint is clean, nothing that clients rely on was taken away."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
BUF = shutil.which("buf") or shutil.which("buf", path=str(Path(sys.executable).parent))

pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")


def test_the_generated_code_is_fresh(tmp_path: Path) -> None:
    spec = spec_from_file_location("generate", PROTO / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "detmetrics" / "v1").mkdir(parents=True)
    module.generate(tmp_path)
    fresh = {path.name: path.read_text() for path in (tmp_path / "detmetrics" / "v1").glob("*.py")}
    assert len(fresh) > 5
    assert fresh == {path.name: path.read_text() for path in (ROOT / "detmetrics" / "v1").glob("*.py")}, "make proto"


@pytest.mark.skipif(BUF is None, reason="buf is not installed (buf-bin)")
@pytest.mark.parametrize("command", [["lint"], ["breaking", "--against", "detmetrics_v1.binpb"], ["format", "-d"]])
def test_buf(command: list[str]) -> None:
    assert BUF is not None
    done = subprocess.run([BUF, *command], cwd=PROTO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stdout


def test_every_field_is_documented() -> None:
    """buf's COMMENTS asks for a comment; this asks that it is a sentence."""
    for path in sorted((PROTO / "detmetrics" / "v1").glob("*.proto")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.search(r" = \d+;$", line):
                above = lines[number - 1].strip()
                assert above.startswith("// "), f"{path.name}:{number + 1}"
                assert above.endswith("."), f"{path.name}:{number}: {above}"


def test_no_answer_can_hold_truth() -> None:
    """Ground truth never leaves: no response has room for boxes, columns, frames or bytes of a file."""
    messages = pytest.importorskip("detmetrics_server.messages")
    seen: set[str] = set()

    def walk(kind: Any) -> None:
        if kind.full_name in seen or kind.full_name.startswith("google.protobuf."):
            return
        seen.add(kind.full_name)
        for field in kind.fields:
            if field.message_type is not None:
                walk(field.message_type)

    for name in messages.SERVICES:
        for method in messages.POOL.FindServiceByName(f"{messages.PACKAGE}.{name}").methods:
            walk(method.output_type)
    assert f"{messages.PACKAGE}.Scores" in seen
    for name in ("Boxes", "Column", "Chunk", "EvaluateRequest", "EvaluateHeader"):
        assert f"{messages.PACKAGE}.{name}" not in seen
