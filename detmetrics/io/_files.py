"""Opening files with one clear error, and writing them whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from detmetrics.errors import InputError


def open_file(path: str | Path) -> BinaryIO:
    """Open a file for reading bytes, or raise an InputError that says why not."""
    try:
        if Path(path).is_dir():
            raise InputError(f"{path}", expected="a file", got="a folder")
        if Path(path).exists() and not Path(path).is_file():  # opening a pipe may wait for ever; none can be read twice
            raise InputError(f"{path}", expected="a file on disk", got="a pipe or device")
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its name only when the block ends well."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}", expected="a file", got="a folder")
    try:
        handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    try:
        with open(handle, "wb") as file:
            yield file
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
