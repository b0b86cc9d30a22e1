"""Our columnar form of boxes, truth or predictions: Parquet with flat columns that polars and duckdb read and write.

One row a box. Needed: ``frame``, ``label``, ``center_x_m``, ``center_y_m``, ``center_z_m``, ``length_m``, ``width_m``,
``height_m``, ``yaw_rad``, and ``score`` for predictions. Optional: ``velocity_x_mps`` and ``velocity_y_mps``,
``attribute``, ``num_points``, ``rotation_w`` … ``rotation_z``, ``place``; every other column of numbers, truth values,
text or times is kept as a box column (missing text becomes ``""``).
The key ``detmetrics`` of the file's metadata holds, as JSON, what is known per frame and of the whole; a file without
it is read as plain boxes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.errors import InputError, Words, listing
from detmetrics.files import open_file, whole_file
from detmetrics.io._arrow import codes_and_names, floats, import_pyarrow, is_text
from detmetrics.io._json import text_of

FORMAT = 1
_NUMBERS = {
    "center_m": ("center_x_m", "center_y_m", "center_z_m"),
    "size_lwh_m": ("length_m", "width_m", "height_m"),
    "yaw_rad": ("yaw_rad",),
    "score": ("score",),
    "velocity_mps": ("velocity_x_mps", "velocity_y_mps"),
    "num_points": ("num_points",),
    "rotation_wxyz": ("rotation_w", "rotation_x", "rotation_y", "rotation_z"),
}
_NEEDED = ("frame", "label", *_NUMBERS["center_m"], *_NUMBERS["size_lwh_m"], "yaw_rad")
_KNOWN = {"frame", "label", "attribute", "place", *(name for names in _NUMBERS.values() for name in names)}
_NAMES = ("frame", "label", "attribute")


def write(boxes: Boxes, path: str | Path) -> None:
    """Write boxes, whole or not at all; :func:`read` gives them back to the last bit.

    Parameters
    ----------
    boxes : Boxes
        With a table of labels.
    path : path

    Raises
    ------
    InputError
        Label codes without a table, columns or ``meta`` that Parquet or JSON cannot hold, or a file that cannot be
        written.
    """
    pa, pq = import_pyarrow()
    if not isinstance(boxes, Boxes):
        raise InputError("what to write", expected="Boxes", got=boxes)
    if boxes.labels is None:
        raise InputError(f"{boxes.source} have label codes without labels=: a file needs class names")
    clash = sorted(_KNOWN & set(boxes.box_columns))
    if clash:
        raise InputError(f"box columns {listing(clash)} have the names of columns of the file")
    columns: dict[str, Any] = {
        "frame": _dictionary(pa, boxes.frame, boxes.frames),
        "label": _dictionary(pa, boxes.label, boxes.labels),
    }
    for name, parts in _NUMBERS.items():
        values = getattr(boxes, name)
        if values is not None:
            flat = values.reshape(len(boxes), len(parts))
            columns |= {part: pa.array(np.ascontiguousarray(flat[:, i])) for i, part in enumerate(parts)}
    if boxes.attribute is not None:
        columns["attribute"] = _dictionary(pa, boxes.attribute, boxes.attributes)
    columns["place"] = pa.array(boxes.place)
    columns |= {name: _cells(pa, values, name) for name, values in boxes.box_columns.items()}
    told = {
        "format": FORMAT,
        "frames": boxes.frames,
        "labels": boxes.labels,
        "attributes": boxes.attributes,
        "ego_xy_m": boxes.ego_xy_m.tolist(),
        "frame_place": boxes.frame_place.tolist(),
        "frame_columns": {
            name: {"dtype": values.dtype.str, "values": _cells_told(values)}
            for name, values in boxes.frame_columns.items()
        },
        "is_complete": boxes.is_complete,
        "partial": boxes.partial,
        "meta": dict(boxes.meta),
        "source": boxes.source,
    }
    table = pa.table(columns).replace_schema_metadata(
        {"detmetrics": text_of(told, f"meta and frame columns of {boxes.source}")}
    )
    dictionaries = [name for name in columns if pa.types.is_dictionary(table.schema.field(name).type)]
    with whole_file(path) as file:
        pq.write_table(table, file, compression="zstd", compression_level=1, use_dictionary=dictionaries)


def read(path: str | Path, *, progress: Callable[[int, int], None] | None = None) -> Boxes:
    """Read boxes that :func:`write`, or another program, has written.

    Parameters
    ----------
    path : path
        See the module for the columns.
    progress : callable, optional
        Called with 1 and 1 when done.

    Raises
    ------
    InputError
        Not Parquet, missing columns, wrong types, missing values; naming file and column.
    """
    pa, pq = import_pyarrow()
    with open_file(path) as file:
        if file.read(4) != b"PAR1":
            raise InputError(f"{path} is not a Parquet file")
        try:
            file.seek(0)
            table = pq.read_table(file, use_threads=True)
            table.validate(full=True)  # reading does not look whether the codes of names are in their tables
            there = set(table.column_names)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    missing = [name for name in _NEEDED if name not in there]
    if missing:
        others = sorted(name for name in there if name not in _NEEDED)
        hint = f"it has {listing(others, shown=20)}" if others else ""
        raise InputError(f"{path} lacks the columns {listing(missing, shown=len(missing))}", hint=hint)
    told = _told(table.schema.metadata, path)
    given: dict[str, Any] = {}
    for name, parts in _NUMBERS.items():
        has = [part for part in parts if part in there]
        if not has:
            continue
        if len(has) < len(parts):
            raise InputError(f"{path} has {listing(has)} but lacks {listing(sorted(set(parts) - there))}")
        given[name] = np.empty((table.num_rows, len(parts)))
        for i, part in enumerate(parts):
            given[name][:, i] = floats(pa, table[part], part, path)
        if len(parts) == 1:
            given[name] = given[name][:, 0]
    for name in _NAMES:
        if name in there:
            given[name], given[f"{name}s"] = codes_and_names(pa, table[name], name, told.get(f"{name}s"), path)
    if "place" in there:
        place = table["place"]
        if not pa.types.is_integer(place.type) or place.null_count:
            raise InputError(f"{path}: column place", expected="whole numbers, none missing", got=str(place.type))
        given["place"] = place.to_numpy()
    given["box_columns"] = {
        name: _plain(pa, table[name], name, path) for name in table.column_names if name not in _KNOWN
    }
    if not told:
        frames = given.pop("frames")
        given["frame"] = [frames[code] for code in given["frame"]]  # those that occur, not a complete list
    else:
        given |= {name: told[name] for name in ("ego_xy_m", "frame_place", "partial", "meta", "frame_columns")}
    if not given.get("attributes"):
        given.pop("attributes", None)
    try:
        boxes = Boxes(**given, source=str(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") if str(path) not in str(error) else error from None
    if told:
        object.__setattr__(boxes, "is_complete", told["is_complete"])
    if progress:
        progress(1, 1)
    return boxes


class _Cells(msgspec.Struct):
    dtype: str
    values: list[Any]


class _Told(msgspec.Struct):
    """What the file says per frame and of the whole, beside its rows."""

    frames: list[str]
    labels: list[str]
    attributes: list[str]
    ego_xy_m: list[list[float]]
    frame_place: list[int]
    frame_columns: dict[str, _Cells]
    is_complete: bool
    partial: bool
    meta: dict[str, Any]


def _told(metadata: dict[bytes, bytes] | None, path: str | Path) -> dict[str, Any]:
    text = (metadata or {}).get(b"detmetrics")
    if text is None:
        return {}
    try:
        told = json.loads(text)
        found = told["format"]
        if found != FORMAT:
            raise InputError(f"{path}: format", expected=f"{FORMAT}", got=found, hint="written by another version")
        known = msgspec.structs.asdict(msgspec.convert(told, _Told))
        known["frame_place"] = np.array(known["frame_place"], np.int64)
        known["frame_columns"] = {name: np.array(c.values, c.dtype) for name, c in known["frame_columns"].items()}
        return known
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, msgspec.ValidationError) as error:
        raise InputError(f"{path}: its detmetrics metadata cannot be read: {error}") from None


def _dictionary(pa: Any, codes: NDArray[np.int32], names: tuple[str, ...]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, pa.string()))


def _cells(pa: Any, values: NDArray[Any], name: str) -> Any:
    """One cell a row; where a row has several values, a list of fixed length."""
    try:
        cells = pa.array(np.ascontiguousarray(values).reshape(-1))
        return cells if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(cells, int(np.prod(values.shape[1:])))
    except (pa.ArrowException, TypeError) as error:  # Arrow has no type for them, or rows hold no values
        expected, got = "of a type that Parquet has, a value or more a row", f"{values.dtype} {values.shape}"
        raise InputError(f"box column {name!r}", expected=expected, got=got, hint=str(error)) from None


def _cells_told(values: NDArray[Any]) -> list[Any]:
    """Cells as plain values; times as whole numbers, which their dtype makes times of again."""
    told: list[Any] = (values.astype(np.int64) if values.dtype.kind in "mM" else values).tolist()
    return told


def _plain(pa: Any, column: Any, name: str, path: str | Path) -> NDArray[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_fixed_size_list(kind) and not column.null_count:
        flat: NDArray[Any] = _plain(
            pa, pa.chunked_array([c.flatten() for c in column.chunks], kind.value_type), name, path
        )
        return flat.reshape(-1, kind.list_size)
    if is_text(pa, kind):
        return np.array(column.cast(pa.string()).fill_null("").to_pylist(), dtype=str)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind)
    if is_number or (pa.types.is_boolean(kind) and not column.null_count):
        values: NDArray[Any] = column.to_numpy()
        if values.dtype != object:
            return values
    lacks = f" with {column.null_count} missing" if column.null_count else ""
    raise InputError(
        f"{path}: column {name}", expected="numbers, truth values, text or times", got=Words(f"{kind}{lacks}")
    )
