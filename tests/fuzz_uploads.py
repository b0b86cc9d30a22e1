"""Coverage-guided noise on what a worker reads: `python tests/fuzz_uploads.py -runs=20000`.

The first byte chooses the format, the second the compression; the rest is the upload. Anything but an InputError that says
why is a finding: it becomes a fixed test in test_server_door.py.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["detmetrics_server", "detmetrics.io", "detmetrics.boxes"]):
    from detmetrics import io
    from detmetrics.synth import make_boxes
    from detmetrics_server import convert, jobs, messages, worker

from detmetrics.errors import InputError

FOLDER = Path(tempfile.mkdtemp())
LIMIT = 1 << 20


def quiet(*_: Any) -> None:
    """Take progress."""


def one(data: bytes) -> None:
    """Read one upload as a worker would."""
    if len(data) < 3:
        return
    kind, packed, body = data[0] % 5, data[1] % 2, data[2:]
    try:
        if kind == 4:
            request = messages.parse("EvaluateRequest", body)
            worker.protocol(b"".join(request.protocol))
            boxes = messages.parse("Boxes", b"".join(request.predictions))
            convert.to_boxes(boxes, "predictions", are_predictions=True)
            return
        path, scratch = FOLDER / "upload", FOLDER / "scratch"
        path.write_bytes(body)
        scratch.unlink(missing_ok=True)
        payload = jobs.Payload(kind, packed, path=str(path), max_bytes=LIMIT, scratch=str(scratch))
        worker.read(payload, quiet, are_predictions=True)
    except InputError as error:
        if not str(error) or str(FOLDER) in str(error):
            raise RuntimeError("no reason, or a path of the server, is told") from error


def seeds() -> Path:
    """Write one valid upload of each kind."""
    folder = FOLDER / "seeds"
    folder.mkdir()
    _, pred = make_boxes(n_frames=1, boxes_per_sample=2, seed=0)
    io.nuscenes.write_results(pred, FOLDER / "a.json")
    io.parquet.write(pred, FOLDER / "a.parquet")
    columns = convert.from_boxes(pred)
    request = messages.twin("EvaluateRequest")(predictions=[columns.SerializeToString()])
    bodies = {
        1: columns.SerializeToString(),
        2: (FOLDER / "a.json").read_bytes(),
        3: (FOLDER / "a.parquet").read_bytes(),
        4: request.SerializeToString(),
    }
    for kind, body in bodies.items():
        (folder / f"{kind}").write_bytes(bytes([kind, 0]) + body)
        (folder / f"{kind}z").write_bytes(bytes([kind, 1]) + gzip.compress(body))
    return folder


if __name__ == "__main__":
    arguments = [
        *sys.argv,
        "-max_len=20000",
        "-rss_limit_mb=4000",
        "-timeout=20",
        "-verbosity=0",
        "-print_final_stats=1",
        str(seeds()),
    ]
    atheris.Setup(arguments, one)
    os.chdir(FOLDER)  # where a finding is written
    atheris.Fuzz()
