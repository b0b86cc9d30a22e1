"""The errors that detmetrics raises on purpose; each names what, where, expected and got."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class DetmetricsError(Exception):
    """Base of every error that detmetrics raises on purpose."""


class InputError(DetmetricsError, ValueError):
    """Something handed to detmetrics is wrong, and the message says what, where, what was expected and what came.

    Parameters
    ----------
    what : str
        The thing that is wrong, e.g. ``"pred.size_lwh_m[17]"``.
    expected : str, optional
        Completes the sentence "*what* must be …", e.g. ``"positive"``; without it ``what`` is the whole sentence.
    got : object, optional
        What came instead, printed shortened: a text that was given in quotes, :class:`Words` of ours without.
    where : str, optional
        File, frame or row in which it was found, e.g. ``"frame 'n015-…'"``.
    hint : str, optional
        A sentence that says what to do.
    """

    def __init__(self, what: str, *, expected: str = "", got: object = None, where: str = "", hint: str = "") -> None:
        self.what, self.expected, self.got, self.where, self.hint = what, expected, got, where, hint
        text = f"{what} must be {expected}" if expected else what
        if got is not None:
            text += f", got {shorten(got)}"
        if where:
            text += f" in {where}"
        if hint:
            text += f" ({hint})"
        super().__init__(text)


def check_whole(what: str, value: object, least: int | None = None) -> None:
    """Refuse what is no whole number, or a smaller one than ``least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(what, expected="a whole number", got=value)
    if least is not None and value.__index__() < least:
        raise InputError(what, expected=f"at least {least}" if least else "zero or more", got=value)


class Words(str):
    """What came, in words of ours (``a folder``, ``12 and 13``): printed as they are, not in quotes like given text."""

    __slots__ = ()
    __repr__ = str.__str__


def shorten(value: object, limit: int = 120) -> str:
    """Give ``repr(value)`` cut to ``limit`` characters, with an ellipsis where something is left out."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listing(names: Iterable[str] | Sequence[str], total: int | None = None, shown: int = 5) -> str:
    """List the first few names and count the rest: ``'a', 'b', 'c', 'd', 'e' and 12 more``."""
    names = list(names)
    total = len(names) if total is None else total
    text = ", ".join(repr(name) for name in names[:shown])
    return f"{text} and {total - shown} more" if total > shown else text


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Error for a name that is in no table, with near ones, whatever their capitals."""
    import difflib

    folded: dict[str, list[str]] = {}
    for one in known:
        folded.setdefault(one.lower(), []).append(one)
    asked = str(name).lower()
    close = difflib.get_close_matches(asked, folded, n=3) or [key for key in folded if asked in key.split("/")]
    near = [one for key in close for one in folded[key]]
    names = [one for same in folded.values() for one in same]
    return InputError(
        f"unknown {kind} {name!r}",
        hint=f"did you mean {listing(near[:3])}?" if near else f"known: {listing(names, shown=20)}",
    )
