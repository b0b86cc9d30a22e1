"""Polygon files (``.ply``) to named columns of their vertices: ascii, binary little and big endian.

The format: http://paulbourke.net/dataformats/ply. Own code, since plyfile is under the GPL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError, Words
from detmetrics.files import open_file

_KINDS = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_LIST = "list"


def read(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read the properties of all vertices; what follows them in the file is left alone.

    Raises
    ------
    InputError
        Missing file, a header that is not one of PLY, no vertices, lists or repeated names among or before them, data
        that are too short.
    """
    with open_file(path) as file:
        content = file.read()
    how, elements, start = _header(content, path)
    if "vertex" not in elements:
        raise InputError(f"{path} has no vertices")
    before = list(elements)[: list(elements).index("vertex") + 1]
    for name in before:
        if any(kind == _LIST for _, kind in elements[name][1]):
            raise InputError(f"{path}: element {name!r}", expected="without lists", got=Words("a list"))
        names = [of for of, _ in elements[name][1]]
        if len(set(names)) < len(names):
            raise InputError(f"{path}: properties of element {name!r}", expected="distinct", got=names)
    count = elements["vertex"][0]
    if how == "ascii":
        lines = content[start:].splitlines()
        skipped = sum(elements[name][0] for name in before[:-1])
        words = b" ".join(lines[skipped : skipped + count]).split()
        if len(words) != count * len(names):
            raise InputError(
                f"{path}", expected=f"{count} vertices of {len(names)} numbers", got=Words(f"{len(words)} numbers")
            )
        try:
            table = np.array(words, np.float64).reshape(count, len(names))
        except ValueError as error:
            raise InputError(f"{path}: its vertices must be numbers: {error}") from None
        return dict(zip(names, table.T, strict=True))
    rows = {name: np.dtype([(n, _ORDERS[how] + k) for n, k in elements[name][1]]) for name in before}
    start += sum(elements[name][0] * rows[name].itemsize for name in before[:-1])
    needed = count * rows["vertex"].itemsize
    if len(content) - start < needed:
        raise InputError(
            f"{path}", expected=f"{needed} bytes of vertices, as its header says", got=max(len(content) - start, 0)
        )
    vertices = np.frombuffer(content, rows["vertex"], count=count, offset=start)
    return {name: vertices[name].astype(vertices[name].dtype.newbyteorder("=")) for name in names}


def _header(content: bytes, path: str | Path) -> tuple[str, dict[str, tuple[int, list[tuple[str, str]]]], int]:
    """Encoding, count and properties of each element, and where the data begin."""
    end = content.find(b"end_header", 0, 1 << 20)
    line_end = content.find(b"\n", end)
    if not content.startswith(b"ply") or end < 0 or line_end < 0:
        raise InputError(f"{path} is not a PLY file")
    how, elements = "", dict[str, tuple[int, list[tuple[str, str]]]]()
    for number, line in enumerate(content[:end].decode("ascii", "replace").splitlines()[1:], 2):
        try:
            match line.split():
                case ["format", how, _]:
                    pass
                case ["element", name, count] if name not in elements:
                    elements[name] = (int(count), [])
                case ["property", "list", _, _, name]:
                    elements[list(elements)[-1]][1].append((name, _LIST))
                case ["property", kind, name]:
                    elements[list(elements)[-1]][1].append((name, _KINDS[kind]))
                case [] | ["comment", *_] | ["obj_info", *_]:
                    pass
                case _:
                    raise ValueError(line)
        except (KeyError, ValueError, IndexError):
            expected = "of the form 'element NAME COUNT', each NAME once, or below it 'property TYPE NAME'"
            raise InputError(f"{path}: line {number} of its header", expected=expected, got=line) from None
    if how not in _ORDERS or any(count < 0 for count, _ in elements.values()):
        raise InputError(f"{path}: its format", expected=f"one of {', '.join(_ORDERS)}", got=how)
    return how, elements, line_end + 1
