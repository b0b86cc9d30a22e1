"""The tables of a written data set, and its bytes: for the tests of what is written in the nuScenes format."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

TABLES = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample", "sample_annotation",
    "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip


def hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def table(root: Path, name: str) -> list[dict[str, Any]]:
    """Rows of one table."""
    rows: list[dict[str, Any]] = json.loads((root / "v1.0-synth" / f"{name}.json").read_text())
    return rows
