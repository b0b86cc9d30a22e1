"""Boxes: the columns of all boxes of a data set, grouped by frame; no object per box anywhere.

Conventions: x forward along the length, yaw counter-clockwise about +z, the centre is the geometric centre, metres,
radians, metres per second. Readers convert; nobody else does.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics.errors import InputError, Words, listing

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Codes = NDArray[np.int32]

#: The source of boxes that nobody gave one; errors that know the side then say truth or pred instead.
UNNAMED = "boxes"
#: How Python, numpy and pandas write what is missing, where it is no text.
NOTHING = ("None", "nan", "NaT", "<NA>")
#: The columns with one value a box that may be absent.
OPTIONAL = ("score", "velocity_mps", "attribute", "num_points", "rotation_wxyz")


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Boxes:
    """Columns of boxes, rows grouped by frame; checked once, here, and read-only afterwards.

    Rows may come in any order: they are grouped by frame (stable), and ``place`` remembers where each stood, because
    official evaluators let the place in the file decide between equal scores.

    Parameters
    ----------
    center_m : array_like (N, 3), float
        Geometric centres, metres; one coordinate frame for truth and predictions.
    size_lwh_m : array_like (N, 3), float
        Length (along the heading), width, height; metres, positive.
    yaw_rad : array_like (N,), float
        Heading, counter-clockwise about +z, radians.
    label : array_like (N,), str or int
        Class or raw category names, or codes into ``labels``; codes without ``labels`` follow the protocol's classes.
    frame : array_like (N,), str or int
        Frame names (nuScenes: sample tokens), or codes into ``frames``.
    labels, frames, attributes : sequence of str, optional
        The tables that integer codes point into. ``frames`` lists *all* frames, also empty ones; it then counts as the
        complete list that truth and predictions are held to. Default: those that occur.
    score : array_like (N,), float, optional
        Detection scores, finite and not negative. Predictions need them, truth has none.
    velocity_mps : array_like (N, 2), float, optional
        Velocity in x and y, metres per second; NaN where unknown.
    attribute : array_like (N,), str or int, optional
        Attribute names, ``""`` for none, or codes into ``attributes``.
    num_points : array_like (N,), optional
        Sensor points inside each box; NaN where unknown.
    rotation_wxyz : array_like (N, 4), float, optional
        Full orientation as quaternion; only ignore regions use it, everything else goes by ``yaw_rad``.
    ego_xy_m : array_like (F, 2), float, optional
        Position of the ego vehicle in each frame, metres. Default: the origin, i.e. boxes in the ego frame.
    box_columns, frame_columns : mapping of str to array_like (N, …) or (F, …), optional
        Anything else that is known per box (occlusion, …) or per frame (scene, weather, …); empty text, None and NaN:
        unknown.
    place : array_like (N,), int, optional
        Position of each row in its file; default: its position in this call.
    frame_place : array_like (F,), int, optional
        Position of each frame in its data set; default: its position in ``frames``.
    partial : bool
        These frames are a part of a larger set: predictions elsewhere are counted and ignored, not refused, and ties
        follow this frame order (how nuScenes treats custom splits).
    meta : mapping, optional
        What the file says of itself, e.g. which sensors were used; handed through to the scores.
    source : str
        Name used in error messages, usually the file.

    Attributes
    ----------
    frame : int32 (N,)
        Frame code of each row, ascending.
    offsets : int64 (F + 1,)
        Rows of frame ``f`` are ``offsets[f]:offsets[f + 1]``.
    is_complete : bool
        Whether ``frames`` was given, so that a frame that is not in it is an error.

    Raises
    ------
    InputError
        Naming the column, the row, the frame and the value.
    """

    center_m: Floats
    size_lwh_m: Floats
    yaw_rad: Floats
    label: Codes
    labels: tuple[str, ...] | None
    frame: Codes
    frames: tuple[str, ...]
    offsets: Ints
    score: Floats | None
    velocity_mps: Floats | None
    attribute: Codes | None
    attributes: tuple[str, ...]
    num_points: Floats | None
    rotation_wxyz: Floats | None
    ego_xy_m: Floats
    box_columns: Mapping[str, NDArray[Any]]
    frame_columns: Mapping[str, NDArray[Any]]
    place: Ints
    frame_place: Ints
    is_complete: bool
    partial: bool
    meta: Mapping[str, object]
    source: str

    def __init__(
        self,
        *,
        center_m: ArrayLike,
        size_lwh_m: ArrayLike,
        yaw_rad: ArrayLike,
        label: ArrayLike | Sequence[str],
        frame: ArrayLike | Sequence[str],
        labels: Sequence[str] | None = None,
        frames: Sequence[str] | None = None,
        score: ArrayLike | None = None,
        velocity_mps: ArrayLike | None = None,
        attribute: ArrayLike | Sequence[str] | None = None,
        attributes: Sequence[str] | None = None,
        num_points: ArrayLike | None = None,
        rotation_wxyz: ArrayLike | None = None,
        ego_xy_m: ArrayLike | None = None,
        box_columns: Mapping[str, ArrayLike] | None = None,
        frame_columns: Mapping[str, ArrayLike] | None = None,
        place: ArrayLike | None = None,
        frame_place: ArrayLike | None = None,
        partial: bool = False,
        meta: Mapping[str, object] | None = None,
        source: str = UNNAMED,
    ) -> None:
        yaw_rad, center_m, size_lwh_m, frame, label = (
            _given(f"{source}.{name}", value)
            for name, value in {
                "yaw_rad": yaw_rad,
                "center_m": center_m,
                "size_lwh_m": size_lwh_m,
                "frame": frame,
                "label": label,
            }.items()
        )
        n_boxes = _number(yaw_rad, center_m, size_lwh_m, frame, label)
        rows = _Rows(source, n_boxes)
        frame_code, frame_names = rows.codes("frame", frame, frames, default="numbers")
        label_code, label_names = rows.codes("label", label, labels, default="none")
        columns: dict[str, NDArray[Any] | None] = {
            "center_m": rows.floats("center_m", center_m, 3),
            "size_lwh_m": rows.floats("size_lwh_m", size_lwh_m, 3),
            "yaw_rad": rows.floats("yaw_rad", yaw_rad),
            "label": label_code,
            "score": None if score is None else rows.floats("score", score),
            "velocity_mps": None if velocity_mps is None else rows.floats("velocity_mps", velocity_mps, 2, nan=True),
            "num_points": None if num_points is None else rows.floats("num_points", num_points, nan=True),
            "rotation_wxyz": None if rotation_wxyz is None else rows.floats("rotation_wxyz", rotation_wxyz, 4),
            "place": np.arange(n_boxes) if place is None else rows.array("place", place, np.int64),
        }
        attribute_names: tuple[str, ...] | None = ()
        columns["attribute"] = None
        if attribute is not None:
            columns["attribute"], attribute_names = rows.codes("attribute", attribute, attributes, default="refuse")
        extra = {name: rows.free(f"box_columns[{name!r}]", v) for name, v in rows.named("box_columns", box_columns)}

        if n_boxes and np.any(frame_code[1:] < frame_code[:-1]):
            order = np.argsort(frame_code, kind="stable")
            frame_code = frame_code[order]
            columns = {name: None if column is None else column[order] for name, column in columns.items()}
            extra = {name: column[order] for name, column in extra.items()}
        assert frame_names is not None
        for name, column in columns.items():
            object.__setattr__(self, name, _frozen(column))
        n_frames = len(frame_names)
        cells = _Rows(source, n_frames, unit="frame")
        for name, value in {
            "labels": label_names,
            "frame": _frozen(frame_code),
            "frames": frame_names,
            "offsets": _frozen(np.searchsorted(frame_code, np.arange(n_frames + 1)).astype(np.int64)),
            "attributes": attribute_names,
            "ego_xy_m": _frozen(np.zeros((n_frames, 2)) if ego_xy_m is None else cells.floats("ego_xy_m", ego_xy_m, 2)),
            "box_columns": {name: _frozen(column) for name, column in extra.items()},
            "frame_columns": {
                name: _frozen(cells.free(f"frame_columns[{name!r}]", v))
                for name, v in cells.named("frame_columns", frame_columns)
            },
            "frame_place": _frozen(
                np.arange(n_frames) if frame_place is None else cells.array("frame_place", frame_place, np.int64)
            ),
            "is_complete": frames is not None,
            "partial": bool(partial),
            "meta": dict(rows.named("meta", meta)),
            "source": source,
        }.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        """Refuse values that no box can have."""
        flat: NDArray[np.bool_] = np.any(self.size_lwh_m <= 0, axis=1)
        if flat.any():
            self._refuse("size_lwh_m", flat, "positive")
        if self.score is not None and np.any(negative := self.score < 0):
            self._refuse("score", negative, "zero or more")
        if self.num_points is not None and np.any(self.num_points < 0):
            self._refuse("num_points", self.num_points < 0, "zero or more, or NaN where unknown")
        if self.rotation_wxyz is not None and np.any(zero := (self.rotation_wxyz == 0).all(axis=1)):
            self._refuse("rotation_wxyz", zero, "a quaternion of positive length")

    def _refuse(self, column: str, wrong: NDArray[np.bool_], expected: str) -> None:
        row = int(np.flatnonzero(wrong)[0])
        value = getattr(self, column)[row]
        n_wrong = int(wrong.sum())
        raise InputError(
            f"{self.source}.{column}[{int(self.place[row])}]",
            expected=expected,
            got=value.tolist(),
            where=f"frame {self.frames[self.frame[row]]!r}",
            hint=f"{n_wrong} boxes in all" if n_wrong > 1 else "",
        )

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.yaw_rad)

    def __repr__(self) -> str:
        """Say how many boxes and frames there are, and which optional columns."""
        has = [name for name in OPTIONAL if getattr(self, name) is not None]
        has += [*self.box_columns, *self.frame_columns]
        return f"<Boxes {len(self)} boxes in {self.n_frames} frames, {self.source}: {' '.join(has) or 'geometry only'}>"

    @property
    def n_frames(self) -> int:
        """Number of frames, empty ones included."""
        return len(self.frames)

    def called(self, side: str) -> str:
        """Give what errors call these boxes where their side is known: their source, or without one the side."""
        return side if self.source == UNNAMED else self.source

    @cached_property
    def frame_index(self) -> dict[str, int]:
        """Code of each frame name."""
        return {name: code for code, name in enumerate(self.frames)}

    def replace(self, **changes: Any) -> Boxes:
        """Give the same boxes with some constructor arguments changed (rows stay in their present order)."""
        given: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("offsets", "is_complete")
        }
        if not self.attributes:
            given["attributes"] = None
        unknown = sorted(set(changes) - set(given))
        if unknown:
            raise TypeError(f"replace() got unknown columns {listing(unknown)}")
        changed = Boxes(**(given | changes))
        object.__setattr__(changed, "is_complete", self.is_complete or "frames" in changes)
        return changed

    def with_labels(self, labels: Sequence[str]) -> Boxes:
        """Give the same boxes with a table for their label codes."""
        named = copy.copy(self)
        named.__dict__.pop("digest", None)
        object.__setattr__(named, "labels", tuple(labels))
        return named

    def take(self, frames: Iterable[str] | NDArray[np.integer[Any]]) -> Boxes:
        """Give the boxes of some frames only, in the order asked for; each box keeps its place.

        Parameters
        ----------
        frames : iterable of str, or int array
            Frame names or frame codes, each at most once.

        Raises
        ------
        InputError
            On a frame that there is not, or that is asked for twice.
        """
        if isinstance(frames, str) or not isinstance(frames, Iterable):
            raise InputError("frames to take", expected="a sequence of names or codes", got=frames)
        wanted = list(frames)
        if any(isinstance(name, str) for name in wanted):
            missing = [name for name in wanted if name not in self.frame_index]
            if missing:
                raise InputError(f"no such frames in {self.source}: {listing(missing)}")
            wanted = [self.frame_index[name] for name in wanted]
        codes = np.asarray(wanted) if wanted else np.zeros(0, np.int64)
        if codes.dtype.kind not in "iu" or codes.ndim != 1:
            raise InputError("frames to take", expected="names or codes", got=str(codes.dtype))
        codes = codes.astype(np.int64)
        if np.any(outside := (codes < 0) | (codes >= self.n_frames)):
            raise InputError("frames to take", expected=f"codes below {self.n_frames}", got=int(codes[outside][0]))
        if len(np.unique(codes)) != len(codes):
            raise InputError("frames to take", expected="distinct", got=Words(f"{len(codes)} with repeats"))
        rows, code = _rows_of(self.offsets, codes)
        return self._pick(rows, code, codes)

    def _pick(self, rows: Ints, frame: Codes, frame_codes: Ints) -> Boxes:
        """Give the rows asked for, under the frames asked for."""
        changes: dict[str, Any] = {
            name: None if (column := getattr(self, name)) is None else column[rows]
            for name in ("center_m", "size_lwh_m", "yaw_rad", "label", "place", *OPTIONAL)
        }
        picked = self.replace(
            **changes,
            frame=frame,
            frames=tuple(self.frames[code] for code in frame_codes),
            ego_xy_m=self.ego_xy_m[frame_codes],
            frame_place=self.frame_place[frame_codes],
            box_columns={name: column[rows] for name, column in self.box_columns.items()},
            frame_columns={name: column[frame_codes] for name, column in self.frame_columns.items()},
        )
        object.__setattr__(picked, "is_complete", self.is_complete)
        return picked

    def frame_names(self, rows: NDArray[np.integer[Any]]) -> list[str]:
        """Frame name of each row."""
        return [self.frames[code] for code in self.frame[rows]]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the boxes, frames and ego positions, hex, 64 characters; the same for any order of the frames.

        Of what can move a number only the order of frames that settles ties where a set is ``partial`` is not in it.
        """
        whole = hashlib.sha256()
        for piece in sorted(self._frame_digests()):
            whole.update(piece)
        return whole.hexdigest()

    def _frame_digests(self) -> list[bytes]:
        columns: list[NDArray[Any]] = [
            self.center_m,
            self.size_lwh_m,
            self.yaw_rad,
            _name_hashes(self.labels)[self.label] if self.labels is not None else self.label,
        ]
        for name in OPTIONAL:
            column = getattr(self, name)
            if column is not None:
                columns.append(_name_hashes(self.attributes)[column] if name == "attribute" else column)
        if self.score is not None:
            columns.append(self.place)
        present = ",".join(name for name in OPTIONAL if getattr(self, name) is not None).encode()
        offsets = self.offsets.tolist()
        views = [  # bytes without a copy
            (np.ascontiguousarray(column).reshape(-1).view(np.uint8).data, column.nbytes // len(self))
            for column in columns
            if len(self)
        ]
        digests = []
        for code, name in enumerate(self.frames):
            start, stop = offsets[code], offsets[code + 1]
            piece = hashlib.sha256(present + b"\0" + name.encode() + self.ego_xy_m[code].tobytes())
            for view, width in views:
                piece.update(view[start * width : stop * width])
            digests.append(piece.digest())
        return digests

    @staticmethod
    def concat(parts: Sequence[Boxes]) -> Boxes:
        """Join boxes of disjoint frames; every box keeps its place, frames stand in the order of ``frame_place``.

        Raises
        ------
        InputError
            If a frame occurs twice, or a column is in some parts only.
        """
        if not parts:
            raise InputError("nothing to concatenate")
        for i, part in enumerate(parts):
            if not isinstance(part, Boxes):
                raise InputError(f"parts[{i}]", expected="Boxes", got=part)
        if len(parts) == 1:
            return parts[0]
        names = [name for part in parts for name in part.frames]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1}) if len(names) < 10_000 else []
            raise InputError(
                "frames to concatenate", expected="distinct", got=Words(listing(twice) if twice else "repeats")
            )
        first = parts[0]
        for name in OPTIONAL:
            if len({getattr(part, name) is None for part in parts}) > 1:
                raise InputError(f"column {name}", expected="in all parts or in none")
        for name in ("box_columns", "frame_columns"):
            if len({tuple(sorted(getattr(part, name))) for part in parts}) > 1:
                raise InputError(name, expected="the same in all parts")
        if len({part.labels is None for part in parts}) > 1:
            raise InputError("labels", expected="given in all parts or in none")
        labels = None if first.labels is None else _union(part.labels or () for part in parts)
        attributes = _union(part.attributes for part in parts)
        frame_place = np.concatenate([part.frame_place for part in parts])
        order = np.lexsort((np.array(names), frame_place)) if names else np.zeros(0, np.int64)
        rank = np.empty(len(names), dtype=np.int32)
        rank[order] = np.arange(len(names), dtype=np.int32)
        starts = np.cumsum([0, *(part.n_frames for part in parts)])

        def joined(name: str) -> NDArray[Any] | None:
            return None if getattr(first, name) is None else np.concatenate([getattr(part, name) for part in parts])

        whole = Boxes(
            **{name: joined(name) for name in ("center_m", "size_lwh_m", "yaw_rad", "place")},  # type: ignore[arg-type]
            **{name: joined(name) for name in OPTIONAL if name != "attribute"},  # type: ignore[arg-type]
            label=np.concatenate([_recode(part.label, part.labels, labels) for part in parts]),
            labels=labels,
            attribute=None
            if first.attribute is None
            else np.concatenate(
                [_recode(part.attribute, part.attributes, attributes) for part in parts if part.attribute is not None]
            ),
            attributes=attributes or None,
            frame=np.concatenate([rank[part.frame + start] for part, start in zip(parts, starts, strict=False)]),
            frames=tuple(names[code] for code in order),
            ego_xy_m=np.concatenate([part.ego_xy_m for part in parts])[order],
            frame_place=frame_place[order],
            box_columns={key: _stacked([part.box_columns[key] for part in parts]) for key in first.box_columns},
            frame_columns={
                key: _stacked([part.frame_columns[key] for part in parts])[order] for key in first.frame_columns
            },
            partial=first.partial,
            meta=first.meta,
            source=first.source,
        )
        object.__setattr__(whole, "is_complete", all(part.is_complete for part in parts))
        return whole


def _given(name: str, value: Any) -> Any:
    """Give a column as an array whatever library holds it, or a list of names as it is.

    None, NaN and NA among texts stay what they are, and do not become texts.
    """
    if isinstance(value, list) and value and isinstance(value[0], str):
        return value
    try:
        if hasattr(value, "detach"):  # a tensor of torch, on whatever device, and with its gradient
            value = value.detach().cpu()
            value = (value.double() if value.is_floating_point() else value).numpy()
        if isinstance(value, np.ma.MaskedArray):
            value = _unmasked(value)
        try:
            array = np.asarray(value)
        except ValueError:  # rows of several lengths; which one is odd is said where their shape is checked
            array = np.array(value, dtype=object)
        if array.dtype.kind in "SU" and not isinstance(value, np.ndarray):
            array = np.array(value, dtype=object)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(name, expected="an array, or what numpy makes one of", got=str(error)) from None
    return array


def _unmasked(value: Any) -> Any:
    """Give a masked array with NaN, NaT or None where it is masked."""
    data = np.ma.getdata(value)
    if not np.ma.getmaskarray(value).any():
        return data
    if data.dtype.kind in "fmM":
        return value.filled(np.nan if data.dtype.kind == "f" else data.dtype.type("NaT"))
    return np.where(np.ma.getmaskarray(value), None, data)  # type: ignore[call-overload]


def _stacked(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join the columns of several parts; where some are texts, all are, and what is no number is no text."""
    if len({column.dtype.kind == "U" for column in columns}) > 1:
        columns = [column if column.dtype.kind == "U" else _as_texts(column) for column in columns]
    return np.concatenate(columns)


def _as_texts(column: NDArray[Any]) -> NDArray[Any]:
    def one(value: Any) -> str:
        if value != value:
            return ""
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    return np.array([one(value) for value in column.ravel().tolist()], np.str_).reshape(column.shape)


def _is_short_number(value: object) -> bool:
    """Whether a value is a number that a double holds to the last digit."""
    if isinstance(value, bool | np.bool_):
        return False
    return isinstance(value, float | np.floating) or (isinstance(value, int | np.integer) and abs(int(value)) < 1 << 53)


def _is_nothing(value: object) -> bool:
    return not isinstance(value, str) and str(value) in NOTHING


def _nothing_of(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of some objects stand for nothing."""
    return np.asarray(np.frompyfunc(_is_nothing, 1, 1)(array), np.bool_)


def _number(*columns: Any) -> int:
    """Give the length that most columns have, so that an error names the one that differs."""
    lengths = [len(one) if isinstance(one, list) else len(np.atleast_1d(one)) for one in columns]
    return Counter(lengths).most_common(1)[0][0]


class _Rows:
    """Checks of the columns of one call: every one must have the same length."""

    def __init__(self, source: str, length: int, unit: str = "box") -> None:
        self.source, self.length, self.unit = source, length, unit

    def named(self, name: str, given: Mapping[str, Any] | None) -> Iterable[tuple[str, Any]]:
        """Give what a mapping holds, of which every key must be a name."""
        if given is None:
            return ()
        if not hasattr(given, "items"):
            raise InputError(f"{self.source}.{name}", expected="a mapping of names", got=given)
        return tuple(given.items())

    def array(self, name: str, value: ArrayLike, dtype: type, width: int = 0) -> NDArray[Any]:
        """Check the shape and give a contiguous array of the dtype; None and NA become NaN."""
        shape = (self.length, width) if width else (self.length,)
        given = np.asarray(_given(f"{self.source}.{name}", value))
        if given.dtype.kind in "cmMV":  # numpy would drop the imaginary part, and count nanoseconds
            raise InputError(f"{self.source}.{name}", expected=f"numbers of shape {shape}", got=str(given.dtype))
        if given.dtype == object and dtype is np.float64:
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                given = given.astype(np.float64)
        if given.dtype == object:
            is_nothing = _nothing_of(given)
            if dtype is np.int64 and is_nothing.any():
                row = int(np.flatnonzero(is_nothing)[0])
                raise InputError(f"{self.source}.{name}[{row}]", expected="a whole number", got=math.nan)
            given = np.where(is_nothing, math.nan, given)
        try:
            with np.errstate(invalid="ignore"):
                array: NDArray[Any] = np.ascontiguousarray(
                    given.tolist() if given.dtype == object else given, dtype=dtype
                )
        except (TypeError, ValueError, OverflowError) as error:
            self._refuse_first(name, given.tolist(), shape)
            got = str(error) if given.ndim else given.item()
            raise InputError(f"{self.source}.{name}", expected=f"numbers of shape {shape}", got=got) from None
        if array.size == 0 and self.length == 0:
            array = array.reshape(shape)
        if array.shape != shape:
            raise InputError(
                f"{self.source}.{name}", expected=f"of shape {shape} (one row a {self.unit})", got=array.shape
            )
        if dtype is np.int64 and given.dtype.kind in "fuO" and np.any(wrong := array != given.astype(np.float64)):
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(f"{self.source}.{name}[{row}]", expected="a whole number", got=given.tolist()[row])
        return array

    def _refuse_first(self, name: str, values: Any, shape: tuple[int, ...]) -> None:
        """Name the first row that is no number, or not as many as the others."""
        for row, one in enumerate(values if isinstance(values, list) else ()):
            try:
                fine = np.array(one, np.float64).shape == shape[1:]
            except (TypeError, ValueError, OverflowError):
                fine = False
            if not fine:
                expected = f"{shape[1]} numbers" if len(shape) > 1 else "a number"
                raise InputError(f"{self.source}.{name}[{row}]", expected=expected, got=one)

    def floats(self, name: str, value: ArrayLike, width: int = 0, nan: bool = False) -> Floats:
        """Check shape and finiteness and give float64."""
        array = self.array(name, value, np.float64, width)
        fine = np.isfinite(array)
        if not np.all(fine) and (not nan or not np.all(fine | np.isnan(array))):
            wrong = ~(fine | np.isnan(array)) if nan else ~fine
            row = int(np.flatnonzero(wrong.reshape(len(array), -1).any(axis=1))[0])
            raise InputError(
                f"{self.source}.{name}[{row}]",
                expected="finite" + (" or NaN" if nan else ""),
                got=array[row].tolist(),
                hint=f"{int(wrong.sum())} such values" if wrong.sum() > 1 else "",
            )
        return array

    def free(self, name: str, value: ArrayLike) -> NDArray[Any]:
        """Check the length only; objects become numbers where all are, else texts; what is nothing is NaN or ""."""
        given = _given(f"{self.source}.{name}", value)
        array = np.array(given, dtype=object) if isinstance(given, list) else np.asarray(given)
        if array.dtype == object:
            is_nothing = _nothing_of(array)
            if not is_nothing.all() and all(map(_is_short_number, array[~is_nothing].tolist())):
                array = np.array(np.where(is_nothing, np.nan, array).tolist())  # a nullable column of pandas
            else:
                try:
                    array = np.where(is_nothing, "", array).astype(str)
                except ValueError:
                    raise InputError(f"{self.source}.{name}", expected="of one value each") from None
        if array.ndim == 0 or len(array) != self.length:
            raise InputError(f"{self.source}.{name}", expected=f"of length {self.length}", got=array.shape)
        return array

    def codes(
        self, name: str, value: ArrayLike | Sequence[str], table: Sequence[str] | None, default: str
    ) -> tuple[Codes, tuple[str, ...] | None]:
        """Give int32 codes and their table, from names or from codes."""
        tables = {"frame": "frames", "label": "labels", "attribute": "attributes"}[name]
        if isinstance(table, str) or not (table is None or isinstance(table, Iterable)):
            raise InputError(f"{self.source}.{tables}", expected="a sequence of names", got=table)
        names = None if table is None else tuple(table)
        if names is not None:
            strange = [entry for entry in names if not isinstance(entry, str)]
            if strange:
                raise InputError(f"{self.source}.{tables}", expected="names (str)", got=strange[0])
            if len(set(names)) < len(names):
                twice = [entry for entry, n in zip(*np.unique(names, return_counts=True), strict=True) if n > 1]
                raise InputError(f"{self.source}.{tables}", expected="distinct", got=[str(one) for one in twice])
        array = _given(f"{self.source}.{name}", value)
        shape = (len(array),) if isinstance(array, list) else array.shape
        if shape != (self.length,):
            raise InputError(f"{self.source}.{name}", expected=f"of shape ({self.length},)", got=shape)
        if len(array) == 0:
            return np.zeros(0, np.int32), names if names is not None or default == "none" else ()
        if isinstance(array, np.ndarray) and array.dtype.kind in "iu":
            return self._integer_codes(name, tables, array, names, default)
        values = array if isinstance(array, list) else array.tolist()
        if isinstance(array, np.ndarray) and array.dtype == object and all(type(entry) is int for entry in values):
            return self._integer_codes(name, tables, np.array(values), names, default)
        if name == "attribute" and not all(isinstance(entry, str) for entry in values):
            values = ["" if _is_nothing(entry) else entry for entry in values]
            names = names if names is None or "" in names or "" not in values else (*names, "")
        known = {entry: code for code, entry in enumerate(names or ())}
        try:
            if names is None:
                for entry in values:
                    known.setdefault(entry, len(known))
            codes = np.fromiter((known[entry] for entry in values), dtype=np.int32, count=len(values))
        except (KeyError, TypeError):
            row = next(i for i, entry in enumerate(values) if not isinstance(entry, str) or entry not in known)
            raise self._no_name(
                name, row, values[row], "a name (str)" if names is None else f"one of {tables}"
            ) from None
        strange = [entry for entry in known if not isinstance(entry, str)]
        if strange:
            worst = next((entry for entry in strange if _is_nothing(entry)), strange[0])
            row = next(i for i, entry in enumerate(values) if entry is worst)
            raise self._no_name(name, row, worst, "a name (str)")
        return codes, tuple(known)

    def _no_name(self, name: str, row: int, got: object, expected: str) -> InputError:
        hint = "it is None" if got is None else ""
        if isinstance(got, float) and got.is_integer():
            hint = "codes are whole numbers: give .astype(int)"
        return InputError(f"{self.source}.{name}[{row}]", expected=expected, got=got, hint=hint)

    def _integer_codes(
        self, name: str, tables: str, array: NDArray[Any], names: tuple[str, ...] | None, default: str
    ) -> tuple[Codes, tuple[str, ...] | None]:
        if names is None and default == "refuse":
            raise InputError(f"{self.source}.{name}", expected=f"names, or codes into {tables}=, which is not given")
        limit = len(names) if names is not None else np.iinfo(np.int32).max
        if np.any(wrong := (array < 0) | (array >= limit)):
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"{self.source}.{name}[{row}]", expected=f"a code from 0 to {limit - 1}", got=int(array[row])
            )
        if names is None and default == "numbers":
            numbers, codes = np.unique(array, return_inverse=True)
            return codes.astype(np.int32), tuple(str(number) for number in numbers.tolist())
        return np.ascontiguousarray(array, dtype=np.int32), names


def _frozen(array: NDArray[Any] | None) -> Any:
    """Give a read-only view, so that nobody changes columns behind the checks."""
    if array is None:
        return None
    view = array.view()
    view.flags.writeable = False
    return view


def _rows_of(offsets: Ints, codes: Ints) -> tuple[Ints, Codes]:
    """Rows of the given frames one after another, and the new frame code of each."""
    counts = offsets[codes + 1] - offsets[codes]
    starts = np.cumsum(counts) - counts
    rows = np.arange(counts.sum()) + np.repeat(offsets[codes] - starts, counts)
    return rows, np.repeat(np.arange(len(codes), dtype=np.int32), counts)


def _union(tables: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for table in tables for name in table))


def _recode(codes: Codes, table: tuple[str, ...] | None, new: tuple[str, ...] | None) -> Codes:
    if table is None or new is None or not len(codes):
        return codes
    index = {name: code for code, name in enumerate(new)}
    return np.array([index[name] for name in table], dtype=np.int32)[codes]


def _name_hashes(names: Sequence[str]) -> NDArray[np.uint64]:
    """64 bits for each name, so that hashes do not depend on the order of a table."""
    return np.array(
        [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") for name in names], dtype=np.uint64
    )
