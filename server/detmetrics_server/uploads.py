"""Uploads: header, chunks, footer; spooled to disk, counted, and checked at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple, Self

from detmetrics.errors import InputError
from detmetrics_server import messages
from detmetrics_server.blobs import Spooled
from detmetrics_server.core import Core
from detmetrics_server.errors import BusyError, LimitError

MAX_CHUNK = 4 << 20
MAX_PART = MAX_CHUNK + 1024
MAX_OTHER = 1 << 20  # a header or footer


class Chunk(NamedTuple):
    """A piece of an upload, as in the contract."""

    offset_bytes: int
    data: bytes | memoryview


class Upload:
    """One stream of requests; inside ``with`` it counts as one that sends.

    Parameters
    ----------
    core : Core
    name : str
        The message of the stream.
    stream : async iterator of bytes
    """

    def __init__(self, core: Core, name: str, stream: AsyncIterator[bytes]) -> None:
        self._core, self._name, self._stream = core, name, stream
        self._place = core.receiving()
        self._end = time.monotonic() + core.settings.upload_s

    def __enter__(self) -> Self:
        """Take a place among those that send."""
        self._place.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Give the place back."""
        self._place.__exit__(None, None, None)

    async def _next(self) -> tuple[str, Any]:
        """Give the kind of the next part and the part."""
        idle_s = self._core.settings.idle_s
        if time.monotonic() > self._end:
            raise InputError("upload", expected=f"whole after {self._core.settings.upload_s:g} s")
        try:
            async with asyncio.timeout(idle_s):  # wait_for of Python 3.11 misses a cancellation just as a part comes
                data = await anext(self._stream, None)
        except TimeoutError:
            raise InputError(f"upload: no part came for {idle_s:g} s") from None
        if data is None:
            return "the end", None
        if len(data) > MAX_PART:
            raise InputError("part of the stream", expected=f"at most {MAX_PART:,} bytes", got=len(data))
        chunk = messages.chunk_of(data)
        if chunk is not None:
            return "chunk", Chunk(*chunk)
        if len(data) > MAX_OTHER and data[0] != messages.CHUNK_TAG:
            raise InputError("header", expected=f"at most {MAX_OTHER:,} bytes", got=len(data))
        part = messages.parse(self._name, data)
        kind = part.WhichOneof("part")
        return (kind, getattr(part, kind)) if kind else ("an empty part", None)

    async def header(self) -> Any:
        """Give the header.

        Raises
        ------
        InputError
            Where something else comes first.
        """
        kind, header = await self._next()
        if kind != "header":
            raise InputError("first part of the stream", expected="a header", got=kind)
        return header

    async def body(self, spooled: Spooled) -> None:
        """Take all chunks, and hold them against the footer; their bytes count until the upload is closed.

        Raises
        ------
        InputError
            Chunks out of order, a second header, a wrong count or hash, no footer, or nothing for too long.
        LimitError
            Where it is larger than this server takes.
        BusyError
            Where all uploads together are too large now.
        FullError
            Where the disk is full.
        """
        core, settings, pending = self._core, self._core.settings, None
        taken = 0
        try:
            while True:
                kind, part = await self._next()
                if kind == "chunk":
                    data = part.data
                    self._check_chunk(part, taken)
                    if taken + len(data) > settings.max_upload_bytes:
                        raise LimitError(f"an upload may have at most {settings.max_upload_bytes:,} bytes")
                    if core.spool_bytes + len(data) > settings.max_spool_bytes:
                        raise BusyError("too much is being uploaded at a time")
                    taken += len(data)
                    spooled.claim(len(data))
                    core.numbers.uploaded.inc(len(data))
                    if pending is not None:
                        await pending
                    pending = asyncio.ensure_future(asyncio.to_thread(spooled.write, data))
                elif kind == "footer":
                    if pending is not None:
                        await pending
                    _check_footer(part, spooled)
                    if (await self._next())[0] != "the end":
                        raise InputError("a part after the footer")
                    return
                else:
                    raise InputError(f"part after {taken:,} bytes", expected="a chunk or the footer", got=kind)
        finally:
            if pending is not None:
                pending.cancel()  # what a thread has begun ends before the upload is closed, the rest is not written

    @staticmethod
    def _check_chunk(chunk: Any, taken: int) -> None:
        if chunk.offset_bytes != taken:
            raise InputError("chunk.offset_bytes", expected=f"{taken}, the bytes sent before", got=chunk.offset_bytes)
        if not 0 < len(chunk.data) <= MAX_CHUNK:
            raise InputError("chunk.data", expected=f"1 to {MAX_CHUNK:,} bytes", got=len(chunk.data))


def _check_footer(footer: Any, spooled: Spooled) -> None:
    if not spooled.size:
        raise InputError("upload", expected="at least one chunk")
    if footer.size_bytes != spooled.size:
        raise InputError("footer.size_bytes", expected=f"{spooled.size}, the bytes that came", got=footer.size_bytes)
    if footer.sha256.hex() != spooled.sha256:
        raise InputError("footer.sha256", expected=f"{spooled.sha256}, of the bytes that came", got=footer.sha256.hex())
