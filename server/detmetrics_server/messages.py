"""The messages of the contract with every packed column as bytes.

On the wire a packed ``repeated double`` is the little-endian array itself. So each message has a twin here in which
such a field is ``repeated bytes``, one entry a packed piece: reading 100,000 boxes costs a copy of the memory instead
of a million Python floats. Clients see only the contract in ``proto/``. A client that does not pack leaves unknown
fields in the twin; its message is then packed first by way of the contract's own class.

In the same way the boxes and the rules of a request are ``repeated bytes`` in its twin (joined pieces are the merged
message): the event loop hands them on unread, and a worker reads them.
"""

from __future__ import annotations

from typing import Any

from detmetrics.errors import InputError, Words
from detmetrics.extras import needs

with needs("client"):
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, timestamp_pb2
    from google.protobuf.message import DecodeError
    from google.protobuf.unknown_fields import UnknownFieldSet

    from detmetrics.v1 import (
        boxes_pb2,
        dataset_service_pb2,
        evaluation_service_pb2,
        scores_pb2,
        server_service_pb2,
        uploads_pb2,
    )

PACKAGE = "detmetrics.v1"
CHUNK_TAG = 0x12  # field 2 of the stream's part
MAX_FIELDS = 1000  # of a large message, in pieces
MAX_COLUMNS = 1000  # of boxes, and of frames
MODULES = (boxes_pb2, scores_pb2, uploads_pb2, evaluation_service_pb2, dataset_service_pb2, server_service_pb2)
SERVICES = ("EvaluationService", "DatasetService", "ServerService")

#: Numbers of the contract's enums.
COLUMNS = uploads_pb2.PAYLOAD_FORMAT_COLUMNS
NUSCENES_JSON = uploads_pb2.PAYLOAD_FORMAT_NUSCENES_JSON
PARQUET = uploads_pb2.PAYLOAD_FORMAT_PARQUET
PLAIN, GZIP = uploads_pb2.COMPRESSION_UNSPECIFIED, uploads_pb2.COMPRESSION_GZIP
NUMBER, INTEGER = boxes_pb2.COLUMN_KIND_NUMBER, boxes_pb2.COLUMN_KIND_INTEGER
BOOLEAN, TEXT = boxes_pb2.COLUMN_KIND_BOOLEAN, boxes_pb2.COLUMN_KIND_TEXT
ABSENT_DEFAULT = scores_pb2.ABSENT_UNSPECIFIED
ABSENT_OFFICIAL, ABSENT_OMIT = scores_pb2.ABSENT_OFFICIAL, scores_pb2.ABSENT_OMIT
RUNNING, SUCCEEDED = evaluation_service_pb2.EVALUATION_STATE_RUNNING, evaluation_service_pb2.EVALUATION_STATE_SUCCEEDED
FAILED, CANCELLED = evaluation_service_pb2.EVALUATION_STATE_FAILED, evaluation_service_pb2.EVALUATION_STATE_CANCELLED

_Field = descriptor_pb2.FieldDescriptorProto
_UNREAD = {f".{PACKAGE}.Boxes", f".{PACKAGE}.ProtocolChoice"}
_PACKED = {_Field.TYPE_DOUBLE, _Field.TYPE_SFIXED32, _Field.TYPE_SFIXED64}


def _make_pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for module in (struct_pb2, timestamp_pb2, *MODULES):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type if module in MODULES else ():
            for field in message.field:
                if field.label == _Field.LABEL_REPEATED and field.type in _PACKED:
                    field.type = _Field.TYPE_BYTES
                if field.type == _Field.TYPE_MESSAGE and field.type_name in _UNREAD:
                    field.type, field.label = _Field.TYPE_BYTES, _Field.LABEL_REPEATED
                    field.ClearField("type_name")
        pool.Add(file)
    return pool


POOL = _make_pool()


def twin(name: str) -> Any:
    """Give the twin class of a message of the contract by its short name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def contract(name: str) -> Any:
    """Give the contract's own class of a message by its short name."""
    return next(getattr(module, name) for module in MODULES if hasattr(module, name))


Boxes = twin("Boxes")
Column = twin("Column")
Scores = twin("Scores")
Evaluation = twin("Evaluation")
Dataset = twin("Dataset")


def parse(name: str, data: bytes) -> Any:
    """Read a message into its twin.

    Raises
    ------
    InputError
        Where the bytes are no such message.
    """
    try:
        message = twin(name).FromString(data)
        if name == "Boxes" and _is_loose(message):
            message = twin(name).FromString(contract(name).FromString(data).SerializeToString())
    except DecodeError:
        raise InputError(f"request is no {name} message, or is damaged") from None
    return message


def check_fields(name: str, data: bytes) -> None:
    """Refuse a message in so many pieces that to read it would take long: each empty piece is two bytes.

    Raises
    ------
    InputError
    """
    view, at = memoryview(data), 0
    for _ in range(MAX_FIELDS + 1):  # and once more, to see the end
        if at == len(view):
            return
        tag, at = _varint(view, at)
        size = {1: 8, 2: -1, 5: 4}.get(tag & 7, 0)
        if size <= 0:
            size, after = _varint(view, at)
            at, size = after, (size if tag & 7 == 2 else 0)
        if tag < 0 or tag & 7 in (3, 4) or size < 0 or at + size > len(view):
            raise InputError(f"request is no {name} message, or is damaged")
        at += size
    raise InputError(f"{name}", expected=f"of at most {MAX_FIELDS:,} fields", got=Words("more"))


def _is_loose(boxes: Any) -> bool:
    """Whether a client did not pack the columns."""
    columns = (boxes.box_columns, boxes.frame_columns)
    n_columns = max(map(len, columns))
    if n_columns > MAX_COLUMNS:
        raise InputError("columns", expected=f"at most {MAX_COLUMNS}", got=n_columns)
    return any(len(UnknownFieldSet(part)) for part in (boxes, *columns[0], *columns[1]))


def chunk_of(data: bytes) -> tuple[int, memoryview] | None:
    """Give offset and bytes of a message that holds a chunk alone, as every writer lays it out, without a copy.

    None where it is anything else: :func:`parse` reads that.
    """
    view = memoryview(data)
    tag, at = _varint(view, 0)
    size, at = _varint(view, at)
    if tag != CHUNK_TAG or size != len(data) - at:  # field 2 of the stream's part, up to the end
        return None
    offset = 0
    tag, after = _varint(view, at)
    if tag == 0x08:  # offset_bytes, left out where it is 0
        offset, at = _varint(view, after)
        tag, after = _varint(view, at)
    size, start = _varint(view, after)
    if tag != 0x12 or size != len(data) - start or not 0 <= offset < 1 << 63:  # data, up to the end
        return None
    return offset, view[start:]


def varint(value: int) -> bytes:
    """Give a number, zero or more, as the wire has it."""
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Give a number and where it ends; (-1, …) where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    return -1, at
