"""Export: a ledger as one Arrow table, a row for every truth and every prediction, for polars, duckdb and pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics.diagnosis import CAUSES, diagnose
from detmetrics.errors import InputError
from detmetrics.extras import needs
from detmetrics.ledger import Fate, Ledger, check_ledger
from detmetrics.slicing import By, codes_by, parse, plain, text_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


def to_arrow(ledger: Ledger, by: By | Sequence[By] = ("range",)) -> pa.Table:
    """Give a ledger as an Arrow table.

    Parameters
    ----------
    ledger : Ledger
    by : str, mapping, or sequence of these
        Slice columns to add, see :func:`detmetrics.slices`; one attribute each.

    Returns
    -------
    pyarrow.Table
        Truths first, then predictions, each in the order of the boxes. Columns: ``side`` (truth, prediction), ``row``,
        ``frame``, ``category``, ``class``, ``fate`` (kept, or why not), ``score``, ``x_m`` … ``yaw_rad``,
        ``num_points``, for every threshold ``outcome@0.5`` (tp, fp; found, missed; null where the box does not count)
        and ``match@0.5`` (row on the other side, null without), the errors of the match at the threshold of the errors,
        ``cause`` (at that threshold), the slice columns as ``slice:…`` (own attribute; null where it is not known), the
        further columns of boxes and frames as ``box:…`` and ``frame:…``.

    Raises
    ------
    InputError
        Without pyarrow, or on an unknown attribute or a crossing.
    """
    check_ledger(ledger)
    if not isinstance(by, str | Mapping | Sequence):
        raise InputError("by", expected="a slicing or a sequence of them", got=by)
    with needs("parquet", "an Arrow table"):
        import pyarrow as pa
    protocol = ledger.protocol
    n = (len(ledger.truth), len(ledger.pred))
    columns: dict[str, Any] = {
        "side": _names(pa, np.repeat([0, 1], n), ("truth", "prediction")),
        "row": np.concatenate([np.arange(size) for size in n]),
    }
    sides = (ledger.truth, ledger.pred)
    frames = tuple(dict.fromkeys((*ledger.truth.frames, *ledger.pred.frames)))
    columns["frame"] = _names(pa, _recode([(side.frame, side.frames) for side in sides], frames), frames)
    labels = tuple(dict.fromkeys(label for side in sides for label in side.labels or ()))
    coded = _recode([(side.label, side.labels or ()) for side in sides], labels)
    columns["category"] = _names(pa, coded, labels)
    tasks = [protocol.task_of(label) for label in labels]
    task = np.array([-1 if one is None else one for one in tasks] or [-1])
    columns["class"] = _names(pa, task[coded], protocol.labels)
    fates = tuple(fate.name.lower() for fate in Fate)
    columns["fate"] = _names(pa, np.concatenate((ledger.truth_fate, ledger.pred_fate)), fates)
    columns["score"] = pa.array(_both(n, None, ledger.pred.score), from_pandas=True)
    for i, name in enumerate(("x_m", "y_m", "z_m")):
        columns[name] = np.concatenate([side.center_m[:, i] for side in sides])
    for i, name in enumerate(("length_m", "width_m", "height_m")):
        columns[name] = np.concatenate([side.size_lwh_m[:, i] for side in sides])
    columns["yaw_rad"] = np.concatenate([side.yaw_rad for side in sides])
    columns["num_points"] = pa.array(_both(n, ledger.truth.num_points, ledger.pred.num_points), from_pandas=True)
    _add_outcomes(pa, ledger, columns)
    diagnosis = diagnose(ledger)
    t = protocol.error_index
    cause = np.concatenate((diagnosis.truth_cause[t], _by_pred(ledger, diagnosis.event_cause[t], 0)))
    columns["cause"] = _names(pa, np.where(cause == 0, -1, cause), [one.name for one in CAUSES])
    for one in [by] if isinstance(by, str | Mapping) else by:
        terms = parse(one)
        if len(terms) != 1:
            raise InputError("a slice column", expected="one attribute", got=text_of(terms))
        names, of_truth, of_event = codes_by(ledger, terms[0])
        of_pred = np.full(n[1], -1) if of_event is None else _by_pred(ledger, of_event, -1)
        columns[f"slice:{text_of(terms)}"] = _names(pa, np.concatenate((of_truth, of_pred)), names)
    for name in dict.fromkeys((*ledger.truth.box_columns, *ledger.pred.box_columns)):
        columns[f"box:{name}"] = _extra(pa, [side.box_columns.get(name) for side in sides], n)
    for name in ledger.truth.frame_columns:
        columns[f"frame:{name}"] = _of_frames(pa, ledger, name)
    return pa.table({name: _flat(pa, column) for name, column in columns.items()})


def _add_outcomes(pa: Any, ledger: Ledger, columns: dict[str, Any]) -> None:
    """Outcome and match at every threshold, and the errors."""
    n_truth, n_pred = len(ledger.truth), len(ledger.pred)
    errors = np.full((n_truth + n_pred, len(ledger.protocol.errors)), np.nan)
    kept = np.concatenate((ledger.truth_fate, ledger.pred_fate)) == Fate.KEPT
    for t, threshold in enumerate(ledger.protocol.affinity.thresholds):
        pairs = np.flatnonzero(ledger.pair_bits >> t & 1)
        pred_row, truth_row = ledger.event_pred[ledger.pair_event[pairs]], ledger.pair_truth[pairs]
        match = np.full(n_truth + n_pred, -1)
        match[truth_row], match[n_truth + pred_row] = pred_row, truth_row
        is_pred = np.repeat([False, True], (n_truth, n_pred))
        outcome = np.where(kept, np.where(is_pred, np.where(match >= 0, 0, 1), np.where(match >= 0, 2, 3)), -1)
        columns[f"outcome@{plain(threshold)}"] = _names(pa, outcome, ("tp", "fp", "found", "missed"))
        columns[f"match@{plain(threshold)}"] = pa.array(match, mask=match < 0)
        if t == ledger.protocol.error_index:
            errors[truth_row] = errors[n_truth + pred_row] = ledger.pair_errors[pairs]
    for i, name in enumerate(ledger.protocol.error_names):
        columns[name] = pa.array(errors[:, i], from_pandas=True)


def _by_pred(ledger: Ledger, of_event: NDArray[Any], nothing: int) -> NDArray[np.int64]:
    """Spread values of events over the rows of the predictions."""
    out = np.full(len(ledger.pred), nothing, np.int64)
    out[ledger.event_pred] = of_event
    return out


def _names(pa: Any, codes: NDArray[Any], names: Sequence[str]) -> Any:
    """Give a dictionary column; negative codes are null."""
    codes = np.asarray(codes, np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(list(names), pa.string()))


def _recode(parts: Sequence[tuple[NDArray[Any], Sequence[str]]], names: Sequence[str]) -> NDArray[np.int64]:
    code = {name: i for i, name in enumerate(names)}
    return np.concatenate([np.array([code[name] for name in table] or [0], np.int64)[codes] for codes, table in parts])


def _both(n: tuple[int, int], truth: NDArray[Any] | None, pred: NDArray[Any] | None) -> NDArray[Any]:
    """Join a column of both sides; NaN where a side has none."""
    parts = [np.full(size, np.nan) if part is None else part for size, part in zip(n, (truth, pred), strict=True)]
    return np.concatenate(parts)


def _extra(pa: Any, parts: Sequence[NDArray[Any] | None], n: tuple[int, int]) -> Any:
    """A further column of boxes; null on a side that lacks it."""
    arrays = [
        pa.nulls(size) if part is None else pa.array(part if part.ndim == 1 else list(part))
        for part, size in zip(parts, n, strict=True)
    ]
    kinds = {array.type for array, part in zip(arrays, parts, strict=True) if part is not None}
    kind = kinds.pop() if len(kinds) == 1 else pa.string()  # two kinds under one name: as text
    return pa.chunked_array([array.cast(kind) for array in arrays])


def _of_frames(pa: Any, ledger: Ledger, name: str) -> Any:
    """A column of frames, row by row."""
    values = pa.array(list(ledger.truth.frame_columns[name]))
    index = ledger.truth.frame_index
    of_pred = np.array([index.get(frame, -1) for frame in ledger.pred.frames] or [-1], np.int64)[ledger.pred.frame]
    rows = np.concatenate((ledger.truth.frame.astype(np.int64), of_pred))
    return values.take(pa.array(rows, mask=rows < 0))


def _flat(pa: Any, column: Any) -> Any:
    return pa.array(column) if isinstance(column, np.ndarray) else column
