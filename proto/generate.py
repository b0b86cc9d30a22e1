"""Write detmetrics/v1/ from proto/detmetrics/v1/: `make proto`.

With ``--release`` also the descriptor that later contracts are held against (`proto/detmetrics_v1.binpb`): only when
the contract is meant to change for good.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Write the Python of every message and service below ``out``."""
    names = sorted(str(path.relative_to(HERE)) for path in HERE.glob("detmetrics/v1/*.proto"))
    services = [name for name in names if name.endswith("_service.proto")]
    _protoc(f"--python_out={out}", *names)
    _protoc(f"--grpc_python_out={out}", *services)
    init = out / "detmetrics" / "v1" / "__init__.py"
    init.write_text('"""The wire contract, generated from proto/detmetrics/v1 by `make proto`."""\n')


def describe(path: Path) -> None:
    """Write the descriptor of the whole contract."""
    names = sorted(str(path.relative_to(HERE)) for path in HERE.glob("detmetrics/v1/*.proto"))
    _protoc(f"--descriptor_set_out={path}", "--include_imports", *names)


def _protoc(*arguments: str) -> None:
    common = files("grpc_tools") / "_proto"
    if protoc.main(["protoc", f"-I{HERE}", f"-I{common}", *arguments]) != 0:
        raise SystemExit("protoc failed")


if __name__ == "__main__":
    generate(HERE.parent)
    if "--release" in sys.argv[1:]:
        describe(HERE / "detmetrics_v1.binpb")
