"""Where a text stops being JSON: tells a wrong cut of a piece, which is mended, from a wrong file, which is refused."""

from __future__ import annotations

import re

import msgspec

#: What msgspec raises on a text that it does not take; ValidationError is a DecodeError.
REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MALFORMED = re.compile(r"JSON is malformed: (?P<reason>.*) \(byte (?P<at>\d+)\)")


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
