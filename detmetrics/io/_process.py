"""A second process that runs one of our modules.

Started as a program, not forked (forking a threaded process is unsafe) and not by multiprocessing (which would run the
user's script again).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import detmetrics


def start(module: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes] | None:
    """Start ``python -m module arguments`` with pipes, or give None where no process can be started.

    It imports the same detmetrics as this process, wherever that lies, and (``-P``) nothing from the working directory,
    which may hold somebody else's ``numpy.py``.
    """
    if not sys.executable or getattr(sys, "frozen", False):  # frozen: sys.executable is the user's own program
        return None
    home = str(Path(detmetrics.__file__).resolve().parents[1])
    paths = os.pathsep.join(path for path in (home, os.environ.get("PYTHONPATH")) if path)
    for pipesize in (1 << 20, -1):  # wide, so that neither side waits often; the system may refuse that
        with contextlib.suppress(OSError):
            return subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                pipesize=pipesize,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": paths},
            )
    return None
