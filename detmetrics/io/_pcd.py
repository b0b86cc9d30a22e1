"""Point Cloud Data (``.pcd``) to named columns: ascii, binary and binary_compressed.

The format: https://pointclouds.org/documentation/tutorials/pcd_file_format.html. Compressed data are LibLZF's, column
after column. Own code, since pypcd4 would bring pydantic and a C extension for what is below.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError, Words
from detmetrics.files import open_file

#: What a field can be: the words of TYPE and SIZE, and what numpy calls it.
_KINDS = {kind + size: f"<{kind.lower()}{size}" for kind in "IUF" for size in "1248" if kind + size != "F1"}
#: What fields called "_" are called here, so that they differ; no name has a space.
_PADDING = "_ "
_MAX_COUNT = 1 << 16
_MAX_DIGITS = 18


def read(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read the fields of all points; a field of several numbers is (N, count), padding (``_``) is left out.

    Raises
    ------
    InputError
        Missing file, a header that is not one of PCD, data that are too short or damaged.
    """
    with open_file(path) as file:
        content = file.read()
    header, start = _header(content, path)
    row, n_points, how = _layout(header, path)
    if how == "ascii":
        columns = _ascii(content[start:], row, n_points, path)
    elif how == "binary":
        _check_length(len(content) - start, n_points * row.itemsize, path)
        table = np.frombuffer(content, row, count=n_points, offset=start)
        columns = {name: table[name] for name in row.names or ()}
    else:
        columns = _compressed(content[start:], row, n_points, path)
    return {name: c[:, 0] if c.shape[1] == 1 else c for name, c in columns.items() if not name.startswith(_PADDING)}


def _header(content: bytes, path: str | Path) -> tuple[dict[str, list[str]], int]:
    """Words of each header line, and where the data begin."""
    found: dict[str, list[str]] = {}
    at = 0
    while "DATA" not in found:
        end = content.find(b"\n", at, at + 65536)
        if end < 0:
            raise InputError(f"{path} is not a PCD file: it has no line DATA")
        key, *words = content[at:end].decode("ascii", "replace").split() or ["#"]
        if not key.startswith("#"):
            found[key] = words
        at = end + 1
    found.setdefault("COUNT", ["1"] * len(found.get("FIELDS", [])))
    return found, at


def _layout(header: dict[str, list[str]], path: str | Path) -> tuple[np.dtype[Any], int, str]:
    """One point, how many there are, and how they are encoded."""
    names = [name if name != "_" else f"{_PADDING}{i}" for i, name in enumerate(header.get("FIELDS", []))]
    for key, expected in (("FIELDS", "names"), ("SIZE", ""), ("TYPE", ""), ("COUNT", ""), ("POINTS", "a count")):
        words = header.get(key, [])
        if not words or (not expected and len(words) != len(names)):
            expected = expected or f"{len(names)} values, one a field"
            raise InputError(f"{path}: the line {key} of its header", expected=expected, got=" ".join(words))
    if len(set(names)) < len(names):
        raise InputError(f"{path}: FIELDS", expected="distinct", got=header["FIELDS"])
    kinds = [kind + size for kind, size in zip(header["TYPE"], header["SIZE"], strict=True)]
    for name, kind, count in zip(names, kinds, header["COUNT"], strict=True):
        if kind not in _KINDS:
            known = f"one of {', '.join(_KINDS)}"
            raise InputError(f"{path}: TYPE and SIZE of the field {name!r}", expected=known, got=kind)
        if not (_is_count(count) and 0 < int(count) <= _MAX_COUNT):
            raise InputError(f"{path}: COUNT of the field {name!r}", expected=f"from 1 to {_MAX_COUNT}", got=count)
    n_points, how = header["POINTS"][0], " ".join(header["DATA"])
    if not _is_count(n_points) or how not in ("ascii", "binary", "binary_compressed"):
        raise InputError(f"{path}: POINTS and DATA", expected="a count and a known encoding", got=(n_points, how))
    counts = map(int, header["COUNT"])
    row = np.dtype([(n, _KINDS[k], (c,)) for n, k, c in zip(names, kinds, counts, strict=True)])
    return row, int(n_points), how


def _is_count(word: str) -> bool:
    return word.isdecimal() and len(word) <= _MAX_DIGITS


def _check_length(got: int, needed: int, path: str | Path) -> None:
    if got < needed:
        raise InputError(f"{path}", expected=f"at least {needed} bytes of points, as its header says", got=got)


def _ascii(text: bytes, row: np.dtype[Any], n_points: int, path: str | Path) -> dict[str, NDArray[Any]]:
    widths = [row[name].shape[0] for name in row.names or ()]
    words = text.split()
    if len(words) != n_points * sum(widths):
        raise InputError(
            f"{path}", expected=f"{n_points} points of {sum(widths)} numbers", got=Words(f"{len(words)} numbers")
        )
    try:
        table = np.array(words, np.float64).reshape(n_points, sum(widths))
    except ValueError as error:
        raise InputError(f"{path}: its points must be numbers: {error}") from None
    return dict(zip(row.names or (), np.split(table, np.cumsum(widths)[:-1], axis=1), strict=True))


def _compressed(data: bytes, row: np.dtype[Any], n_points: int, path: str | Path) -> dict[str, NDArray[Any]]:
    if not n_points:
        return {name: np.zeros((0, *row[name].shape)) for name in row.names or ()}
    _check_length(len(data), 8, path)
    n_packed, n_bytes = struct.unpack_from("<II", data)
    _check_length(len(data) - 8, n_packed, path)
    names = row.names or ()
    if n_bytes != n_points * row.itemsize:  # padding, which PCL never looks for here (pcd_io.cpp)
        names = tuple(name for name in names if not name.startswith(_PADDING))
        expected = n_points * sum(row[name].itemsize for name in names)
        if n_bytes != expected:
            raise InputError(f"{path}: size of the points", expected=f"{n_points * row.itemsize} bytes", got=n_bytes)
    try:
        plain = lzf_decompress(data[8 : 8 + n_packed], n_bytes)
    except ValueError as error:
        raise InputError(f"{path}: its compressed points are damaged: {error}") from None
    columns, at = {}, 0
    for name in names:
        column = np.frombuffer(plain, row[name].base, count=n_points * row[name].shape[0], offset=at)
        columns[name] = column.reshape(n_points, -1)
        at += column.nbytes
    return columns


def lzf_decompress(packed: bytes, n_bytes: int) -> bytes:
    """Undo LibLZF: runs of up to 32 plain bytes, and copies of what was written before.

    Raises
    ------
    ValueError
        Where the data end too soon, reach back too far or are not of ``n_bytes`` in the end.
    """
    out, at, end = bytearray(), 0, len(packed)
    try:
        while at < end and len(out) <= n_bytes:
            control = packed[at]
            at += 1
            if control < 32:
                out += packed[at : at + control + 1]
                at += control + 1
                continue
            length = (control >> 5) + 2
            if length == 9:
                length += packed[at]
                at += 1
            start = len(out) - ((control & 31) << 8) - packed[at] - 1
            at += 1
            if start < 0:
                raise ValueError("a copy from before the start")
            source = out[start : start + length]
            out += source if len(source) == length else (source * (length // len(source) + 1))[:length]
    except IndexError:
        raise ValueError("they end too soon") from None
    if len(out) != n_bytes or at != end:
        raise ValueError(f"{len(out)} bytes instead of {n_bytes}")
    return bytes(out)
