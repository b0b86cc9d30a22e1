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

import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.errors import InputError, listing
from detmetrics.extras import needs
from detmetrics.files import open_file, whole_file

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
_TOLD = (
    *("frames", "labels", "attributes", "ego_xy_m", "frame_place", "frame_columns"),
    *("is_complete", "partial", "meta"),
)


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
        Label codes without a table, or a file that cannot be written.
    """
    pa, pq = _pyarrow()
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
    columns |= {name: _cells(pa, values) for name, values in boxes.box_columns.items()}
    told = {
        "format": FORMAT,
        "frames": boxes.frames,
        "labels": boxes.labels,
        "attributes": boxes.attributes,
        "ego_xy_m": boxes.ego_xy_m.tolist(),
        "frame_place": boxes.frame_place.tolist(),
        "frame_columns": {
            name: {"dtype": values.dtype.str, "values": values.tolist()} for name, values in boxes.frame_columns.items()
        },
        "is_complete": boxes.is_complete,
        "partial": boxes.partial,
        "meta": dict(boxes.meta),
        "source": boxes.source,
    }
    table = pa.table(columns).replace_schema_metadata({"detmetrics": json.dumps(told)})
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
    pa, pq = _pyarrow()
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
        raise InputError(f"{path} lacks the columns {listing(missing, shown=len(missing))}")
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
            given[name][:, i] = _floats(pa, table[part], part, path)
        if len(parts) == 1:
            given[name] = given[name][:, 0]
    for name in _NAMES:
        if name in there:
            given[name], given[f"{name}s"] = _codes(pa, table[name], name, told.get(f"{name}s"), path)
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


def _pyarrow(what: str = "Parquet") -> tuple[Any, Any]:
    with needs("parquet", what):
        import pyarrow as pa
        import pyarrow.parquet as pq
    return pa, pq


def _told(metadata: dict[bytes, bytes] | None, path: str | Path) -> dict[str, Any]:
    text = (metadata or {}).get(b"detmetrics")
    if text is None:
        return {}
    try:
        told: dict[str, Any] = json.loads(text)
        found = told["format"]
        if found != FORMAT:
            raise InputError(f"{path}: format", expected=f"{FORMAT}", got=found, hint="written by another version")
        told["frame_columns"] = {
            name: np.array(column["values"], column["dtype"]) for name, column in told["frame_columns"].items()
        }
        return {name: told[name] for name in _TOLD}
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: its detmetrics metadata cannot be read") from None


def _dictionary(pa: Any, codes: NDArray[np.int32], names: tuple[str, ...]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, pa.string()))


def _floats(pa: Any, column: Any, name: str, path: str | Path) -> NDArray[np.float64]:
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise InputError(f"{path}: column {name}", expected="numbers", got=str(column.type))
    may_lack = name.startswith("velocity") or name in ("num_points", "num_interior_pts")
    if column.null_count and not may_lack:
        raise InputError(f"{path}: column {name}", expected="without missing values", got=f"{column.null_count}")
    values = column.to_numpy()
    return np.asarray(values, np.float64)


def _codes(
    pa: Any, column: Any, name: str, table: list[str] | None, path: str | Path
) -> tuple[NDArray[np.int32], list[str]]:
    """Codes and their table, in the order of the file's own table where it has one."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not _is_text(pa, kind):
        raise InputError(f"{path}: column {name}", expected="text", got=str(kind))
    if column.null_count and name == "attribute":
        column = column.cast(pa.string()).fill_null("")
    if column.null_count:
        raise InputError(f"{path}: column {name}", expected="without missing values", got=f"{column.null_count}")
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], column.type)
    names = whole.dictionary.to_pylist()
    codes = whole.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    if table is None:
        return codes, names
    index = {entry: code for code, entry in enumerate(table)}
    strange = [entry for entry in names if entry not in index]
    if strange:
        raise InputError(f"{path}: column {name}", expected=f"names of its own list of {name}s", got=strange[0])
    return np.array([index[entry] for entry in names] or [0], np.int32)[codes], table


def _cells(pa: Any, values: NDArray[Any]) -> Any:
    """One cell a row; where a row has several values, a list of fixed length."""
    if values.ndim == 1:
        return pa.array(values)
    width = int(np.prod(values.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), width)


def _plain(pa: Any, column: Any, name: str, path: str | Path) -> NDArray[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_fixed_size_list(kind) and not column.null_count:
        flat: NDArray[Any] = _plain(
            pa, pa.chunked_array([c.flatten() for c in column.chunks], kind.value_type), name, path
        )
        return flat.reshape(-1, kind.list_size)
    if _is_text(pa, kind):
        return np.array(column.cast(pa.string()).fill_null("").to_pylist(), dtype=str)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind)
    if is_number or (pa.types.is_boolean(kind) and not column.null_count):
        values: NDArray[Any] = column.to_numpy()
        if values.dtype != object:
            return values
    lacks = f" with {column.null_count} missing" if column.null_count else ""
    raise InputError(f"{path}: column {name}", expected="numbers, truth values, text or times", got=f"{kind}{lacks}")


def _is_text(pa: Any, kind: Any) -> bool:
    is_view = getattr(pa.types, "is_string_view", None)  # since pyarrow 16
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or (is_view and is_view(kind)))
