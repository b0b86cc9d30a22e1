"""A second process that reads part of a result file: ``python -m detmetrics.io._results_worker PATH START STOP``.

Its columns come back through a pipe as plain arrays.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError
from detmetrics.io import _process
from detmetrics.io._results import COLUMNS, Columns, read_range


def start(path: str, begin: int, end: int | None) -> subprocess.Popen[bytes] | None:
    """Start the reading of a range of bytes, or give None where no process can be started."""
    return _process.start("detmetrics.io._results_worker", path, str(begin), str(end or 0))


def finish(worker: subprocess.Popen[bytes]) -> Columns | None:
    """Take the columns of a worker, or None where it failed: whoever asked reads the range again, for the error."""
    assert worker.stdout is not None
    try:
        with worker.stdout as pipe:
            header = pipe.readline()
            if not header:
                return None
            told = json.loads(header)
            columns = Columns(told["tokens"], told["counts"], told["labels"], told["attributes"])
            columns.meta = None if told["meta"] is None else told["meta"].encode()
            columns.parts.append({name: _receive(pipe, row, sum(columns.counts)) for name, row in COLUMNS.items()})
            return columns
    except (ValueError, EOFError, OSError):
        return None
    finally:
        worker.wait()


def stop(worker: subprocess.Popen[bytes]) -> None:
    """End a worker whose columns are not wanted any more."""
    worker.kill()
    worker.communicate()


def _receive(pipe: IO[bytes], row: np.dtype[Any], n_rows: int) -> NDArray[Any]:
    array = np.empty(n_rows, row)
    view = memoryview(array.reshape(-1).view(np.uint8).data)
    got = 0
    while got < len(view):
        more = pipe.readinto(view[got:])  # type: ignore[attr-defined]
        if not more:
            raise EOFError
        got += more
    return array


def main() -> None:
    """Read, and write the columns to the standard output."""
    path, begin, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) or None
    try:
        columns = read_range(path, begin, end)
    except InputError:
        sys.exit(2)
    told = {
        "tokens": columns.tokens,
        "counts": columns.counts,
        "labels": columns.labels,
        "attributes": columns.attributes,
        "meta": None if columns.meta is None else columns.meta.decode(),
    }
    # a buffer of our own, whatever PYTHONUNBUFFERED says of sys.stdout
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(json.dumps(told).encode() + b"\n")
        for name in COLUMNS:
            for part in columns.parts:
                out.write(np.ascontiguousarray(part.pop(name)).reshape(-1).view(np.uint8).data)


if __name__ == "__main__":
    main()
