"""nuScenes result JSON to columns, piece by piece.

The text is cut into pieces where one sample's list ends and the next one's name begins. A cut is only a guess (the same
characters may stand inside a string), so each piece must prove itself: a wrong cut leaves a string or a bracket open,
which never decodes, and then the piece is extended to a later cut. msgspec does all the parsing.
"""

from __future__ import annotations

import gc
import itertools
import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError, Words, listing
from detmetrics.files import open_file
from detmetrics.geometry import yaw_of_rotation
from detmetrics.io._json import REFUSALS, Buffer, Codes, is_wrong_cut

PIECE = 1 << 18  # bytes; small, so that text and objects stay in the processor's cache
#: How much of a file the first of two processes reads: more than half, since the second has to start Python.
FIRST_SHARE = 0.55
#: What stands in front of the samples of a piece, so that they are a text of their own.
_BEFORE = b'{"results":{'
_CLOSE = ord("}")
_HEAD = re.compile(rb'"results"\s*:\s*\{')
#: The end of a list of objects, then a name with such a list or an empty one.
_CUT = re.compile(rb'\}\s*\]\s*(,)\s*"(?=[^"\\]*"\s*:\s*\[\s*[\]{])')

Progress = Callable[[int, int], None]
T = TypeVar("T")


class Box(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One detection, in the order of the official file; fields that are not named here are ignored."""

    sample_token: str
    translation: tuple[float, float, float]
    size: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    velocity: tuple[float | None, float | None] | None
    detection_name: str
    detection_score: float = -1.0  # the official default, refused below
    attribute_name: str
    num_pts: float = -1.0  # the official default: unknown


class Sample:
    """A key of ``results``; two equal ones stay two keys, so that a repeated sample is seen."""

    __slots__ = ("token",)

    def __init__(self, token: str) -> None:
        self.token = token


class _Tail(msgspec.Struct, gc=False):
    results: dict[Sample, list[Box]]
    meta: msgspec.Raw = msgspec.Raw()


class _Head(msgspec.Struct, gc=False):
    meta: msgspec.Raw = msgspec.Raw()
    results: msgspec.Raw = msgspec.Raw()


def _sample(_: type, token: str) -> Sample:
    return Sample(token)


#: The columns and what a row of each is.
COLUMNS: dict[str, np.dtype[Any]] = {
    "center_m": np.dtype((np.float64, 3)),
    "size_lwh_m": np.dtype((np.float64, 3)),
    "yaw_rad": np.dtype(np.float64),
    "velocity_mps": np.dtype((np.float64, 2)),
    "score": np.dtype(np.float64),
    "num_pts": np.dtype(np.float64),
    "label": np.dtype(np.int32),
    "attribute": np.dtype(np.int32),
}
#: One box as bytes, and how numpy reads them.
_PACK = struct.Struct("=14d2i").pack
_ROW = np.dtype(
    [
        ("translation", np.float64, 3),
        ("size", np.float64, 3),
        ("rotation", np.float64, 4),
        ("velocity", np.float64, 2),
        ("score", np.float64),
        ("num_pts", np.float64),
        ("label", np.int32),
        ("attribute", np.int32),
    ]
)

_piece_decoder = msgspec.json.Decoder(dict[Sample, list[Box]], dec_hook=_sample)
_tail_decoder = msgspec.json.Decoder(_Tail, dec_hook=_sample)


@dataclass
class Columns:
    """Columns of boxes in file order; codes point into the tables."""

    tokens: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=Codes)
    attributes: dict[str, int] = field(default_factory=Codes)
    parts: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    meta: bytes | None = None

    def add(self, samples: dict[Sample, list[Box]], file: str) -> None:
        """Append the boxes of some samples, refusing values that no box can have."""
        for sample, boxes in samples.items():
            token = sample.token
            inside = [box.sample_token for box in boxes]
            if inside.count(token) < len(boxes):
                i = next(i for i, other in enumerate(inside) if other != token)
                raise InputError(
                    f"{file}: sample_token of box {i} of sample {token!r}",
                    expected="that of its sample",
                    got=inside[i],
                )
            self.tokens.append(token)
            self.counts.append(len(boxes))
        rows = self._rows(list(itertools.chain.from_iterable(samples.values())))
        self._check(rows, samples, file)
        self.parts.append(  # what needs more memory on the way is done here, where it stays in the cache
            {
                "center_m": rows["translation"].copy(),
                "size_lwh_m": np.take(rows["size"], [1, 0, 2], axis=1),  # nuScenes: width, length, height
                "yaw_rad": yaw_of_rotation(rows["rotation"]),
                "velocity_mps": rows["velocity"].copy(),
                **{name: rows[name].copy() for name in ("score", "num_pts", "label", "attribute")},
            }
        )

    def _rows(self, boxes: list[Box]) -> NDArray[np.void]:
        """Boxes as rows of ``_ROW``: one call a box takes less time than one pass a column."""
        pack, label, attribute = _PACK, self.labels, self.attributes
        try:
            packed = [
                pack(*b.translation, *b.size, *b.rotation, *b.velocity, b.detection_score, b.num_pts,
                     label[b.detection_name], attribute[b.attribute_name])  # type: ignore[misc]
                for b in boxes
            ]  # fmt: skip
        except (struct.error, TypeError):  # some velocities are null
            packed = [
                pack(*b.translation, *b.size, *b.rotation, *_velocity(b), b.detection_score, b.num_pts,
                     label[b.detection_name], attribute[b.attribute_name])
                for b in boxes
            ]  # fmt: skip
        return np.frombuffer(b"".join(packed), _ROW)

    @staticmethod
    def _check(rows: NDArray[np.void], samples: dict[Sample, list[Box]], file: str) -> None:
        for name, wrong, expected in (
            ("size", (rows["size"] <= 0).any(axis=1), "positive"),
            ("rotation", (rows["rotation"] == 0).all(axis=1), "a quaternion of positive length"),
            ("score", rows["score"] < 0, "zero or more (-1 where detection_score is missing)"),
        ):
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                place = row
                for sample, boxes in samples.items():  # noqa: B007  used after the loop
                    if row < len(boxes):
                        break
                    row -= len(boxes)
                got = rows[name][place]
                raise InputError(
                    f"{file}: {name} of box {row} of sample {sample.token!r}",
                    expected=expected,
                    got=got.tolist(),
                    hint=f"{int(wrong.sum())} such boxes nearby" if wrong.sum() > 1 else "",
                )


def read_range(path: str | Path, start: int, stop: int | None, progress: Progress | None = None) -> Columns:
    """Read the samples whose text lies in a range of bytes.

    Parameters
    ----------
    path : path
        Result JSON.
    start, stop : int, int or None
        From the first ``"`` of a sample's name to the comma after the last sample; None: to the end of the file.
    progress : callable, optional
        Called with the bytes done and the bytes in all.
    """
    columns = Columns()
    was_enabled = gc.isenabled()
    gc.disable()  # millions of young objects that cannot form cycles
    try:
        with open_file(path) as file:
            for samples, done, total in _pieces(file, str(path), start, stop, columns):
                columns.add(samples, str(path))
                if progress:
                    progress(done, total)
    finally:
        if was_enabled:
            gc.enable()
    return columns


def _pieces(
    file: BinaryIO, name: str, start: int, stop: int | None, columns: Columns
) -> Iterator[tuple[dict[Sample, list[Box]], int, int]]:
    size = file.seek(0, 2) if stop is None else stop
    position = start
    buffer = Buffer(_BEFORE, PIECE)
    first = buffer.start
    while position < size:
        length = PIECE
        while True:
            is_last = position + buffer.read(file, position, min(length, size - position)) >= size
            if is_last and stop is None:
                try:
                    tail = _decoded(_tail_decoder, buffer[: buffer.stop])
                except REFUSALS as error:
                    text = bytes(buffer[first : buffer.stop])
                    raise diagnosis(name, text, position, _BEFORE, b"", error) from None
                refuse_second(name, bytes(buffer[: buffer.stop]))
                columns.meta = bytes(tail.meta) or columns.meta
                yield tail.results, size, size
                return
            end = buffer.stop if is_last else buffer.last_cut(_CUT)
            if end > first:
                buffer.bytes[end] = _CLOSE  # in the place of the comma
                try:
                    samples = _decoded(_piece_decoder, buffer[first - 1 : end + 1])
                    break
                except REFUSALS as error:
                    piece = bytes(buffer[first:end])
                    plain = b"{" + without_bare_nan(piece) + b"}"
                    if is_last or not is_wrong_cut(plain, len(plain) - 1):
                        raise diagnosis(name, piece, position, _BEFORE, b"}}", error) from None
            length *= 2
        position += end - first
        yield samples, position, size
        if is_last:
            return
        position += buffer.bytes.index(b'"', end) - end  # past the comma and white space, which the cut has shown


def _decoded(decoder: msgspec.json.Decoder[T], text: memoryview) -> T:
    """Decode a text that may hold bare ``NaN``; looking for them first would cost a tenth of the whole time."""
    try:
        return decoder.decode(text)
    except REFUSALS:
        plain = bytes(text)
        if b"NaN" not in plain:
            raise
    return decoder.decode(without_bare_nan(plain))


def find_body(file: BinaryIO, name: str) -> tuple[int, bytes | None]:
    """Byte at which the samples begin, and the text of ``meta`` where it comes first."""
    size = file.seek(0, 2)
    if size == 0:
        raise InputError(f"{name} is empty")
    length = 1 << 16
    while True:
        file.seek(0)
        text = file.read(length)
        for match in _HEAD.finditer(text):
            try:
                plain = without_bare_nan(text[: match.start()] + b'"results":{}}')
                head = msgspec.json.decode(plain, type=_Head)
            except REFUSALS:
                continue
            refuse_second(name, plain)
            return match.end(), bytes(head.meta) or None
        if len(text) < length:
            break
        length *= 8
    try:
        head = msgspec.json.decode(without_bare_nan(text), type=_Head)
    except REFUSALS as error:
        raise diagnosis(name, text, 0, b"", b"", error) from None
    if not bytes(head.results):
        raise InputError(f"{name} has no results: it must be {{'meta': …, 'results': {{sample_token: [box, …]}}}}")
    raise InputError(
        f"{name}: results",
        expected="an object {sample_token: [box, …]}",
        got=bytes(head.results)[:40].decode(errors="replace"),
    )


def refuse_second(name: str, text: bytes) -> None:
    """Refuse an object with two keys ``results``, of which a decoder takes the last without a word."""
    if text.count(b'"results"') < 2:  # nearly always; else it may be a sample's name, or stand inside of meta
        return
    pairs: list[tuple[str, object]] = json.loads(without_bare_nan(text), object_pairs_hook=list, parse_int=str)
    if sum(key == "results" for key, _ in pairs) > 1:
        raise InputError(f"{name}: results", expected="given once", got=Words("two keys of this name"))


def find_middle(file: BinaryIO, start: int) -> int | None:
    """Guess a byte where a sample's name begins and the second process does, or None."""
    size = file.seek(0, 2)
    at = start + int((size - start) * FIRST_SHARE)
    file.seek(at)
    found = _CUT.search(file.read(PIECE << 4))
    return at + found.end() - 1 if found else None


def without_bare_nan(text: bytes) -> bytes:
    """Write ``null`` for ``NaN`` outside of strings; the inside of strings is untouched."""
    if b"NaN" not in text:
        return text
    bare = text
    if b"\\" in text:  # backslashes stand in strings only: hide escaped backslashes, then escaped quotes
        bare = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    quotes = np.flatnonzero(np.frombuffer(bare, np.uint8) == ord('"'))
    places = np.fromiter((match.start() for match in re.finditer(b"NaN", text)), np.int64)
    places = places[np.searchsorted(quotes, places) % 2 == 0]  # after an even number of quotes: outside of strings
    starts, ends = [0, *(places + 3).tolist()], [*places.tolist(), len(text)]
    return b"null".join(text[start:end] for start, end in zip(starts, ends, strict=True))


def diagnosis(name: str, text: bytes, position: int, before: bytes, after: bytes, error: Exception) -> InputError:
    """Say what is wrong in a piece of text that did not decode, more slowly and in full."""
    shift = position - len(before)
    try:
        content = json.loads((before + text + after).decode("utf-8"))
    except UnicodeDecodeError as failure:
        return InputError(f"{name} is not UTF-8 at byte {failure.start + shift}")
    except json.JSONDecodeError as failure:
        at = len(failure.doc[: failure.pos].encode()) + shift
        end = position + len(text)
        what = "ends too early" if at >= end or "ntermin" in failure.msg else "is not valid JSON"
        return InputError(f"{name} {what}: {failure.msg} at byte {at}")
    except RecursionError:
        return InputError(f"{name} is nested too deeply to be a result file")
    except ValueError as failure:  # a number of more digits than Python takes
        return InputError(f"{name}, bytes {position} to {position + len(text)}: {failure}")
    if not isinstance(content, dict):
        return InputError(f"{name}", expected="an object with meta and results", got=content)
    try:
        refuse_second(name, before + text + after)
    except InputError as refusal:
        return refusal
    results = content.get("results")
    if not isinstance(results, dict):
        return InputError(f"{name}: results", expected="an object {sample_token: [box, …]}", got=results)
    for token, boxes in results.items():
        where = f"of sample {token!r}"
        if not isinstance(boxes, list):
            return InputError(f"{name}: boxes {where}", expected="a list", got=boxes)
        for i, box in enumerate(boxes):
            problem = _box_problem(box)
            if problem:
                field_name, expected, got = problem
                got = Words("null") if got is None else got
                return InputError(f"{name}: {field_name} of box {i} {where}", expected=expected, got=got)
    return InputError(f"{name}, bytes {position} to {position + len(text)}: {error}")


def _box_problem(box: object) -> tuple[str, str, object] | None:
    """Field, expected and got of the first thing wrong with a box, or None."""
    if not isinstance(box, dict):
        return "the content", "an object", box
    for name in ("sample_token", "translation", "size", "rotation", "velocity", "detection_name", "attribute_name"):
        if name not in box:
            return name, "given", Words("nothing")
    for name in ("sample_token", "detection_name", "attribute_name"):
        if not isinstance(box[name], str):
            return name, "a string", box[name]
    for name, length in (("translation", 3), ("size", 3), ("rotation", 4), ("velocity", 2)):
        value = box[name]
        if name == "velocity" and value is None:
            continue
        if not isinstance(value, list) or len(value) != length:
            return name, f"{length} numbers", value
        for entry in value:
            unknown = name == "velocity" and (entry is None or entry != entry)
            if not unknown and not _is_finite(entry):
                return name, f"{length} finite numbers" + (" or NaN" if name == "velocity" else ""), value
    for name in ("detection_score", "num_pts"):
        if name in box and not _is_finite(box[name]):
            return name, "a finite number", box[name]
    return None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _velocity(box: Box) -> tuple[float, float]:
    x, y = box.velocity or (None, None)
    return np.nan if x is None else x, np.nan if y is None else y


def check_samples(tokens: list[str], name: str) -> None:
    """Refuse a sample that is there twice."""
    if len(set(tokens)) < len(tokens):
        seen: set[str] = set()
        twice = [token for token in tokens if token in seen or seen.add(token)]  # type: ignore[func-returns-value]
        raise InputError(f"{name} has {len(twice)} samples more than once: {listing(twice)}")
