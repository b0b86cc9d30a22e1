"""Opening files with one clear error, and writing them whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Any, BinaryIO

from detmetrics.errors import InputError, Words, unknown_name


def open_file(path: str | Path) -> BinaryIO:
    """Open a file for reading bytes, or raise an InputError that says why not."""
    check_path(path, "what to read")
    try:
        if Path(path).is_dir():
            raise InputError(f"{path}", expected="a file", got=Words("a folder"))
        if Path(path).exists() and not Path(path).is_file():  # opening a pipe may wait for ever; none can be read twice
            raise InputError(f"{path}", expected="a file on disk", got=Words("a pipe or device"))
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint=_home(path)) from None


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file, or raise an InputError that says why not."""
    import tomllib

    with open_file(path) as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not TOML: {error}") from None


def near_key(error: object, kind: Any) -> str:
    """Give a hint to what msgspec says of an unknown field or word of a struct: near names, or the known ones."""
    import types
    from typing import Literal, Union, get_args, get_origin

    import msgspec

    words = re.match(r"Object contains unknown field `(.+?)`|Invalid enum value '(.+?)'", str(error))
    if words is None:
        return ""
    at = re.search(r" - at `\$(.*)`$", str(error))
    for name in re.findall(r"\.(\w+)|\[", at[1] if at else ""):
        if name:
            kind = next((field.type for field in msgspec.structs.fields(kind) if field.encode_name == name), None)
            if kind is None:  # a key that looks like the end of such a sentence
                return ""
        else:  # of a sequence what it holds, of a mapping its values
            kind = [one for one in get_args(kind) if one is not ...][-1]
        if get_origin(kind) in (Union, types.UnionType):
            kind = next(one for one in get_args(kind) if one is not type(None))
    known = get_args(kind) if get_origin(kind) is Literal else [f.encode_name for f in msgspec.structs.fields(kind)]
    return unknown_name("", words[1] or words[2], known).hint


def check_output(path: str | Path, what: str = "output") -> Path:
    """Give the file that a path names, links followed, or raise an InputError where it cannot become our output.

    A device or pipe is refused: a file that takes its place would destroy it.
    """
    check_path(path, what)
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(what, expected="a file", got=Words(f"the folder {path}"))
    if target.exists() and not target.is_file():
        raise InputError(what, expected="a file on disk", got=Words(f"the pipe or device {path}"))
    if not target.parent.is_dir():
        raise InputError(what, expected="in a folder that exists", got=str(path), hint=_home(path))
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(what, expected="writable", got=str(path))
    return target


def check_ending(path: Path, known: tuple[str, ...], what: str) -> None:
    """Refuse a file whose ending says no format that can be written."""
    if path.suffix not in known:
        raise InputError(f"ending of {what}", expected=" or ".join(known), got=path.name)


def check_path(path: object, what: str) -> None:
    """Refuse what is no path."""
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        raise InputError(what, expected="a path", got=path)


def _home(path: str | Path) -> str:
    """Say that nobody but a shell makes ~ a folder, where a path begins with it."""
    return f"write {Path.home()} for ~" if str(path).startswith("~") else ""


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its name only when the block ends well."""
    target = check_output(path)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            yield file
        os.replace(partial, target)
    except OSError as error:
        full = "make room, then run it again" if error.errno in (ENOSPC, EDQUOT) else ""
        raise InputError(f"cannot write {path}: {error.strerror or error}", hint=full) from None
    finally:
        partial.unlink(missing_ok=True)
