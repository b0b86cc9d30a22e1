"""Messages to Boxes, Protocol, Scores and back; numbers keep every bit, and those that cannot are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import OPTIONAL, Boxes
from detmetrics.errors import InputError, Words, listing
from detmetrics.protocol import Protocol
from detmetrics.protocols import by_name
from detmetrics.scoring import Absent, Scores
from detmetrics_server import messages

FLOAT, CODE, PLACE = np.dtype("<f8"), np.dtype("<i4"), np.dtype("<i8")

#: Width of every column of floats: values in a row.
WIDTHS = {
    "center_m": 3,
    "size_lwh_m": 3,
    "yaw_rad": 1,
    "score": 1,
    "velocity_mps": 2,
    "num_points": 1,
    "rotation_wxyz": 4,
}
_MAX_INTEGER = 2**63 - 1
ABSENT_NUMBERS: dict[Absent, int] = {"official": messages.ABSENT_OFFICIAL, "omit": messages.ABSENT_OMIT}
ABSENT: dict[int, Absent] = {
    messages.ABSENT_DEFAULT: "official",
    **{number: word for word, number in ABSENT_NUMBERS.items()},
}


def array(pieces: Any, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Give a packed column as an array, without a copy where it came in one piece."""
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if len(data) % dtype.itemsize:
        raise InputError(what, expected=f"whole values of {dtype.itemsize} bytes", got=Words(f"{len(data)} bytes"))
    return np.frombuffer(data, dtype)


def _rows(pieces: Any, width: int, what: str) -> NDArray[np.float64]:
    flat = array(pieces, FLOAT, what)
    if width == 1:
        return flat
    if len(flat) % width:
        raise InputError(what, expected=f"{width} values a row", got=Words(f"{len(flat)} values"))
    return flat.reshape(-1, width)


def to_boxes(message: Any, source: str, *, are_predictions: bool = False) -> Boxes:
    """Make boxes of a ``Boxes`` message (the twin).

    Parameters
    ----------
    message : messages.Boxes
    source : str
        Named in errors, e.g. ``predictions``.
    are_predictions : bool
        No boxes at all then have scores, too.

    Raises
    ------
    InputError
        As :class:`detmetrics.Boxes` says it.
    """
    there = {name for name in OPTIONAL if len(getattr(message, name))} | set(message.empty_columns)
    strange = sorted(there - set(OPTIONAL))
    if strange:
        raise InputError(f"{source}.empty_columns", expected=f"among {OPTIONAL}", got=strange[0])
    if are_predictions and not len(message.yaw_rad):
        there.add("score")
    given: dict[str, Any] = {
        name: _rows(getattr(message, name), width, f"{source}.{name}")
        for name, width in WIDTHS.items()
        if name not in OPTIONAL or name in there
    }
    for name in ("label", "frame", *(("attribute",) if "attribute" in there else ())):
        given[name] = array(getattr(message, name), CODE, f"{source}.{name}")
    for name in ("place", "frame_place"):
        if len(getattr(message, name)):
            given[name] = array(getattr(message, name), PLACE, f"{source}.{name}")
    if len(message.ego_xy_m):
        given["ego_xy_m"] = _rows(message.ego_xy_m, 2, f"{source}.ego_xy_m")
    for kind in ("box_columns", "frame_columns"):
        columns = getattr(message, kind)
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            raise InputError(f"{source}.{kind}", expected="of distinct names", got=Words(listing(names)))
        given[kind] = {column.name: _to_column(column, f"{source}.{kind}[{column.name!r}]") for column in columns}
    boxes = Boxes(
        **given,
        labels=list(message.labels) or None,
        frames=list(message.frames),
        attributes=list(message.attributes) or None,
        partial=message.partial,
        meta=to_dict(message.meta),
        source=source,
    )
    if message.frames_incomplete:
        object.__setattr__(boxes, "is_complete", False)
    return boxes


def from_boxes(boxes: Boxes) -> Any:
    """Make a ``Boxes`` message (the twin); :func:`to_boxes` gives the boxes back to the last bit.

    Free columns come back as 64-bit numbers, those of more than two dimensions as rows; those without values in a row
    are left out.

    Raises
    ------
    InputError
        On a number that the message has no room for.
    """
    message = _all_but_columns(boxes)
    for name, values, dtype in _packed(boxes):
        _put(message, name, values, dtype)
    return message


def to_bytes(boxes: Boxes) -> bytes:
    """Give a ``Boxes`` message serialised: each column copied once, and the same bytes in every process."""
    pieces: list[Any] = [_all_but_columns(boxes).SerializeToString(deterministic=True)]
    for name, values, dtype in _packed(boxes):
        data = np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8).data
        tag = messages.Boxes.DESCRIPTOR.fields_by_name[name].number << 3 | 2
        pieces += [messages.varint(tag), messages.varint(len(data)), data]
    return b"".join(pieces)


def _packed(boxes: Boxes) -> list[tuple[str, NDArray[Any], np.dtype[Any]]]:
    """Every packed column that has values."""
    columns: list[tuple[str, NDArray[Any] | None, np.dtype[Any]]] = [
        *((name, getattr(boxes, name), FLOAT) for name in (*WIDTHS, "ego_xy_m")),
        *((name, getattr(boxes, name), CODE) for name in ("label", "frame", "attribute")),
    ]
    for name in ("place", "frame_place"):
        values = getattr(boxes, name)
        if not np.array_equal(values, np.arange(len(values))):
            columns.append((name, values, PLACE))
    return [(name, values, dtype) for name, values, dtype in columns if values is not None and values.size]


def _all_but_columns(boxes: Boxes) -> Any:
    message = messages.Boxes(
        labels=boxes.labels or (),
        frames=boxes.frames,
        attributes=boxes.attributes,
        partial=boxes.partial,
        frames_incomplete=not boxes.is_complete,
    )
    message.empty_columns.extend(name for name in OPTIONAL if not len(boxes) and getattr(boxes, name) is not None)
    if boxes.meta:
        message.meta.CopyFrom(to_struct(boxes.meta, f"{boxes.source}.meta"))
    for kind in ("box_columns", "frame_columns"):
        for name, values in getattr(boxes, kind).items():
            if all(values.shape[1:]):  # KITTI without regions DontCare has a column of none
                getattr(message, kind).append(_from_column(name, values, f"{boxes.source}.{kind}[{name!r}]"))
    return message


def _put(message: Any, name: str, values: NDArray[Any] | None, dtype: np.dtype[Any]) -> None:
    if values is not None and values.size:
        getattr(message, name).append(np.ascontiguousarray(values, dtype).tobytes())


def _to_column(column: Any, what: str) -> NDArray[Any]:
    width = column.width or 1
    values: NDArray[Any]
    if column.kind == messages.NUMBER:
        values = array(column.numbers, FLOAT, what)
    elif column.kind in (messages.INTEGER, messages.BOOLEAN):
        values = array(column.integers, PLACE, what)
        values = values.astype(bool) if column.kind == messages.BOOLEAN else values
    elif column.kind == messages.TEXT:
        codes, names = array(column.codes, CODE, what), np.array(list(column.names), dtype=str)
        wrong = np.flatnonzero((codes < 0) | (codes >= len(names)))
        if len(wrong):
            raise InputError(
                f"{what}.codes[{wrong[0]}]", expected=f"from 0 to {len(names) - 1}", got=int(codes[wrong[0]])
            )
        if names.itemsize * len(codes) > 1 << 30:  # a long text many times over
            raise InputError(what, expected="shorter texts", got=Words(f"{names.itemsize // 4} characters in one"))
        values = names[codes] if len(codes) else np.zeros(0, dtype="U1")
    else:
        raise InputError(f"{what}.kind", expected="a number, integer, boolean or text", got=column.kind)
    if width < 1 or len(values) % width:
        raise InputError(what, expected=f"rows of {width} values", got=Words(f"{len(values)} values"))
    return values if width == 1 else values.reshape(-1, width)


def _from_column(name: str, values: NDArray[Any], what: str) -> Any:
    column = messages.Column(name=name, width=int(np.prod(values.shape[1:], dtype=np.int64)))
    kind = values.dtype.kind
    if kind == "U":
        names, codes = np.unique(values, return_inverse=True)
        column.kind = messages.TEXT
        column.names.extend(names.tolist())
        _put(column, "codes", codes.reshape(-1), CODE)
    elif kind in "iub":
        column.kind = messages.BOOLEAN if kind == "b" else messages.INTEGER
        if kind == "u" and values.size and values.max() > _MAX_INTEGER:
            raise InputError(what, expected=f"at most {_MAX_INTEGER}", got=int(values.max()))
        _put(column, "integers", values, PLACE)
    elif kind == "f" and values.itemsize <= FLOAT.itemsize:
        column.kind = messages.NUMBER
        _put(column, "numbers", values, FLOAT)
    else:
        raise InputError(what, expected="numbers of at most 64 bits, truth values or text", got=str(values.dtype))
    return column


def to_dict(struct: Any) -> dict[str, Any]:
    """Give a ``Struct`` as plain values; whole numbers below 2**53 become int, all but -0.0."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return to_dict(value.struct_value)
    if kind == "list_value":
        return [_plain(entry) for entry in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        is_int = number.is_integer() and abs(number) < 2**53 and (number or math.copysign(1, number) > 0)
        return int(number) if is_int else number
    return getattr(value, kind) if kind in ("string_value", "bool_value") else None


def to_struct(values: Mapping[str, object], what: str) -> Any:
    """Give plain values as a ``Struct`` (the twin), called ``what`` in errors; :func:`to_dict` gives equal ones back.

    Raises
    ------
    InputError
        On a whole number that no double is equal to, a key that is no text, and what is not plain.
    """
    try:
        _check_plain(values, what)
    except RecursionError:
        raise InputError(what, expected="nested less deep") from None
    return _struct(json.dumps(values))


def _check_plain(value: object, what: str) -> None:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise InputError(f"key of {what}", expected="text", got=key)
            _check_plain(entry, f"{what}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            _check_plain(entry, f"{what}[{i}]")
    elif isinstance(value, int) and not _is_double(value):
        hint = "as text it is kept"
        raise InputError(what, expected="a number that a double holds to the last digit", got=value, hint=hint)
    elif not (value is None or isinstance(value, (str, bool, int, float))):
        raise InputError(what, expected="a number, text, truth value, list, mapping or None", got=value)


def _is_double(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


@lru_cache(maxsize=64)
def _struct(text: str) -> Any:
    struct = messages.Scores().protocol
    struct.update(json.loads(text))
    return struct


def to_protocol(choice: Any) -> Protocol:
    """Give the rules of a ``ProtocolChoice``; nuScenes' by default.

    Raises
    ------
    InputError
        On an unknown name, or naming the field.
    """
    if choice.WhichOneof("choice") == "custom":
        return Protocol.from_dict(to_dict(choice.custom))
    return by_name(choice.bundled or "nuscenes")


def put_protocol(choice: Any, protocol: Protocol) -> None:
    """Put rules into a ``ProtocolChoice``, as data."""
    choice.custom.CopyFrom(to_struct(protocol.to_dict(), "protocol"))


def from_scores(scores: Scores) -> Any:
    """Make a ``Scores`` message (the twin)."""
    message = messages.Scores(
        absent=ABSENT_NUMBERS[scores.absent],
        notes=scores.notes,
        eval_time_s=scores.eval_time_s,
        nan_velocity_share=scores.nan_velocity_share,
        signature=scores.signature,
        metrics=scores.to_flat_dict(),
    )
    message.protocol.CopyFrom(to_struct(scores.protocol.to_dict(), "protocol"))
    message.meta.CopyFrom(to_struct(scores.meta, "meta"))
    for name in ("ap", "class_errors", "precision", "confidence", "error_curves"):
        _put(message, name, getattr(scores, name), FLOAT)
    for name in ("n_truth", "n_pred"):
        _put(message, name, getattr(scores, name), PLACE)
    return message


def to_scores(message: Any) -> Scores:
    """Make scores of a ``Scores`` message (the twin): the same type and bits as the local ones."""
    protocol = Protocol.from_dict(to_dict(message.protocol))
    k, t = len(protocol.tasks), len(protocol.affinity.thresholds)
    e, s = len(protocol.errors), protocol.curve.n_samples
    shapes = {
        "ap": (k, t),
        "class_errors": (k, e),
        "precision": (k, t, s),
        "confidence": (k, t, s),
        "error_curves": (k, t, e, s),
    }
    tables: dict[str, Any] = {
        name: array(getattr(message, name), FLOAT, name).reshape(shape) for name, shape in shapes.items()
    }
    signature = message.signature
    return Scores(
        protocol=protocol,
        **tables,
        n_truth=array(message.n_truth, PLACE, "n_truth"),
        n_pred=array(message.n_pred, PLACE, "n_pred"),
        absent=ABSENT[message.absent],
        notes=tuple(message.notes),
        eval_time_s=message.eval_time_s,
        meta=to_dict(message.meta),
        nan_velocity_share=message.nan_velocity_share,
        sign=lambda: signature,
    )
