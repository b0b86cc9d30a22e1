"""What becomes of freed memory in a process that serves."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed() -> None:
    """Let glibc keep freed memory for the next request, instead of handing each large piece back to the system.

    Requests are alike, so the next one asks for as much; and a page that the system has to give anew costs more than to
    read a message from it. The limits are those that glibc itself comes to after it has freed a piece of 32 MiB.
    Elsewhere this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 64 << 20)
