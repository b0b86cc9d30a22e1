"""A second process that finds the ego positions while the first reads the annotations.

``python -m detmetrics.io._tables_worker`` takes JSON on its standard input: where the tables are and which samples are
wanted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from detmetrics.errors import InputError
from detmetrics.io import _process

if TYPE_CHECKING:
    from detmetrics.io._tables import Root


def start(root: Root, samples: list[str], channel: str) -> subprocess.Popen[bytes] | None:
    """Start the search, or give None where no process can be started."""
    order = json.dumps(
        {"dataroot": str(root.dataroot), "version": root.version, "samples": samples, "channel": channel}
    ).encode()
    worker = _process.start("detmetrics.io._tables_worker", stdin=subprocess.PIPE)
    if worker is None:
        return None

    def hand_over() -> None:
        assert worker.stdin is not None
        try:
            with worker.stdin as pipe:
                pipe.write(order)
        except OSError:  # it has died: finish() will see
            pass

    threading.Thread(target=hand_over, daemon=True).start()
    return worker


def finish(worker: subprocess.Popen[bytes]) -> dict[str, tuple[float, float]] | None:
    """Take the positions, or None where the worker failed: whoever asked then searches again, for the error."""
    assert worker.stdout is not None
    text = worker.stdout.read()
    if worker.wait() != 0:
        return None
    return {sample: (x, y) for sample, (x, y) in json.loads(text).items()}


def stop(worker: subprocess.Popen[bytes]) -> None:
    """End a worker that is not needed any more."""
    if worker.poll() is None:
        worker.kill()
        worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()


def main() -> None:
    """Search, and write the positions to the standard output."""
    import gc
    from pathlib import Path

    from detmetrics.io._tables import Root, ego_positions

    gc.disable()
    order = json.load(sys.stdin)
    try:
        found = ego_positions(Root(Path(order["dataroot"]), order["version"]), set(order["samples"]), order["channel"])
    except InputError:
        sys.exit(2)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
