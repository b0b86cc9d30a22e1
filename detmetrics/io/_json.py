"""JSON: plain values to text, and large texts piece by piece: reading a piece, guessing where it can be cut, and where
a text stops being JSON.

The last tells a wrong cut, which is mended, from a wrong file, which is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import BinaryIO, TypeVar

import msgspec

from detmetrics.errors import InputError, Words

#: What msgspec raises on a text that it does not take; ValidationError is a DecodeError.
REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
K = TypeVar("K", bound=Hashable)
_MALFORMED = re.compile(r"JSON is malformed: (?P<reason>.*) \(byte (?P<at>\d+)\)")


def text_of(value: object, what: str) -> bytes:
    """Give plain values as JSON text.

    Raises
    ------
    InputError
        Naming ``what``, where something in it is not plain, or a key is not text.
    """
    try:
        text = json.dumps(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(what, expected="plain JSON values to be saved", got=Words(error)) from None
    parts: list[object] = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            for key in part:
                if not isinstance(key, str):
                    raise InputError(f"key of {what}", expected="text", got=key)
            parts += part.values()
        elif isinstance(part, list | tuple):
            parts += part
    return text


def flaw(text: bytes) -> tuple[int, str] | None:
    """Give the byte of the first thing that is not JSON, and what is wrong there; None for sound JSON."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)  # walks the text and builds nothing
    except msgspec.DecodeError as error:
        found = _MALFORMED.search(str(error))
        return (int(found["at"]), found["reason"]) if found else (len(text), "it ends too early")
    except RecursionError:
        return 0, "nested too deeply"
    return None


def is_wrong_cut(text: bytes, end: int) -> bool:
    """Whether a piece, completed to ``text`` after its byte ``end``, fails only because it was cut in a wrong place.

    A parser goes from left to right: with a wrong cut everything before it is sound, and what was put behind it is not.
    """
    found = flaw(text)
    return found is not None and found[0] >= end


class Buffer:
    """Memory that every piece of a file is read into in its turn: fresh memory costs more than the reading.

    Parameters
    ----------
    before : bytes
        What stands in front of every piece.
    size : int
        Bytes of a usual piece; the buffer grows where more is asked for.

    Attributes
    ----------
    start : int
        Where the piece begins.
    stop : int
        Where it ends; at least one more byte is there to be written.
    bytes : bytearray
    """

    def __init__(self, before: bytes, size: int) -> None:
        self.start = self.stop = len(before)
        self.bytes = bytearray(before) + bytes(size + 1)

    def read(self, file: BinaryIO, position: int, length: int) -> int:
        """Read a piece and give its length, which is shorter at the end of the file."""
        if length >= len(self.bytes) - self.start:
            self.bytes = self.bytes[: self.start] + bytes(length + 1)
        file.seek(position)
        got: int = file.readinto(self[self.start : self.start + length])  # type: ignore[attr-defined]
        self.stop = self.start + got
        return got

    def __getitem__(self, part: slice) -> memoryview:
        """Part of the memory, without a copy."""
        return memoryview(self.bytes)[part]

    def last_cut(self, pattern: re.Pattern[bytes]) -> int:
        """Where group 1 of the last match in the piece begins, or ``start`` where nothing matches."""
        window = 1 << 14
        while True:
            begin = max(self.start, self.stop - window)
            cuts = [match.start(1) for match in pattern.finditer(self.bytes, begin, self.stop)]
            if cuts:
                return cuts[-1]
            if begin == self.start:
                return self.start
            window *= 8


class Codes(dict[K, int]):
    """Code of each name, in the order in which they were asked for first."""

    def __missing__(self, name: K) -> int:
        self[name] = code = len(self)
        return code
