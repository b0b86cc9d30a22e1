"""What our Parquet and the feather files of others share: pyarrow, where it is there, and columns with their checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError
from detmetrics.extras import needs
from detmetrics.files import open_file


def import_pyarrow(what: str = "Parquet") -> tuple[Any, Any]:
    """Give pyarrow and pyarrow.parquet, or raise a MissingExtraError."""
    with needs("parquet", what):
        import pyarrow as pa
        import pyarrow.parquet as pq
    return pa, pq


def read_feather(path: str | Path) -> Any:
    """Read a feather file as a pyarrow.Table.

    Raises
    ------
    InputError
        Without pyarrow, or where the file is no feather file.
    """
    pa, _ = import_pyarrow("Feather")
    from pyarrow import feather

    with open_file(path) as file:
        try:
            return feather.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is not a feather file: {str(error).splitlines()[0]}") from None


def floats(pa: Any, column: Any, name: str, path: str | Path) -> NDArray[np.float64]:
    """Numbers of a column; only velocities and points may be missing."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise InputError(f"{path}: column {name}", expected="numbers", got=str(column.type))
    may_lack = name.startswith("velocity") or name in ("num_points", "num_interior_pts")
    if column.null_count and not may_lack:
        raise InputError(f"{path}: column {name}", expected="without missing values", got=column.null_count)
    values = column.to_numpy()
    return np.asarray(values, np.float64)


def codes_and_names(
    pa: Any, column: Any, name: str, table: list[str] | None, path: str | Path
) -> tuple[NDArray[np.int32], list[str]]:
    """Codes and their table, in the order of the file's own table where it has one."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not is_text(pa, kind):
        raise InputError(f"{path}: column {name}", expected="text", got=str(kind))
    if column.null_count and name == "attribute":
        column = column.cast(pa.string()).fill_null("")
    if column.null_count:
        raise InputError(f"{path}: column {name}", expected="without missing values", got=column.null_count)
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


def is_text(pa: Any, kind: Any) -> bool:
    """Whether a type is text, of any of Arrow's kinds."""
    is_view = getattr(pa.types, "is_string_view", None)  # since pyarrow 16
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or (is_view and is_view(kind)))
