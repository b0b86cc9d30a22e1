"""Run a server until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys

from detmetrics_server.heap import keep_freed
from detmetrics_server.service import Server
from detmetrics_server.settings import Settings
from detmetrics_server.watching import log_to_stderr


def run(settings: Settings) -> None:
    """Print the settings, serve, and drain at the end.

    Raises
    ------
    InputError
        Where the server cannot start.
    """
    keep_freed()
    log_to_stderr()
    print(settings.to_text(), file=sys.stderr, flush=True)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(settings)
    await server.start()
    host = settings.address.rpartition(":")[0]
    where = settings.address if settings.address.startswith("unix:") else f"{host}:{server.port}"
    print(f"serving on {where}", flush=True)
    await stop.wait()
    await server.stop()
