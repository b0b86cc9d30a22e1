"""Opening files with one clear error, and writing them whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Any, BinaryIO

from detmetrics.errors import InputError, Words


def open_file(path: str | Path) -> BinaryIO:
    """Open a file for reading bytes, or raise an InputError that says why not."""
    try:
        if Path(path).is_dir():
            raise InputError(f"{path}", expected="a file", got=Words("a folder"))
        if Path(path).exists() and not Path(path).is_file():  # opening a pipe may wait for ever; none can be read twice
            raise InputError(f"{path}", expected="a file on disk", got=Words("a pipe or device"))
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file, or raise an InputError that says why not."""
    import tomllib

    with open_file(path) as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not TOML: {error}") from None


def check_output(path: str | Path, what: str = "output") -> Path:
    """Give the file that a path names, links followed, or raise an InputError where it cannot become our output.

    A device or pipe is refused: a file that takes its place would destroy it.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(what, expected="a file", got=Words(f"the folder {path}"))
    if target.exists() and not target.is_file():
        raise InputError(what, expected="a file on disk", got=Words(f"the pipe or device {path}"))
    if not target.parent.is_dir():
        raise InputError(what, expected="in a folder that exists", got=str(path))
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(what, expected="writable", got=str(path))
    return target


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
