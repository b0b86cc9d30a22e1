"""How far the distributions of training and validation lie apart, beyond what dealing the scenes at random would do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.protocols import NUSCENES

Floats = NDArray[np.float64]

_BINS, _DEALS, _LEVEL = 10, 1000, 0.05
#: Fewer boxes of a class than this on one side, and its distributions are not compared.
_ENOUGH = 50
#: Words in descriptions that say nothing of conditions.
_FILLERS = frozenset({"and", "are", "for", "from", "into", "near", "off", "over", "the", "very", "wait", "with"})


class Shift(NamedTuple):
    """How far one quantity's distributions in the training and validation sets lie apart.

    Attributes
    ----------
    what : str
        E.g. ``"car: range [m]"``.
    train, val : str
        Medians, or the shares of the entry that differs most.
    distance : float
        Total variation, 0 (the same) to 1 (nothing in common), over the deciles of both sets together or the entries.
    chance : float
        The mean total variation when the same scenes are dealt to the two sets at random.
    excess : float
        ``distance - chance`` in standard deviations of that deal: the shifts are ranked by it.
    is_real : bool or None
        Whether ``excess`` is beyond what the largest of all shifts reaches by chance, in 5 % of the deals; None where
        there are too few scenes to tell.
    """

    what: str
    train: str
    val: str
    distance: float
    chance: float
    excess: float
    is_real: bool | None


class _Quantity(NamedTuple):
    """Counts of one quantity by scene (S, bins), and how it reads on each side."""

    what: str
    counts: Floats
    train: str
    val: str


def shifts(train: Boxes, val: Boxes, seed: int = 0) -> tuple[Shift, ...]:
    """Compare the distributions, with the scenes dealt at random as the measure of chance.

    Parameters
    ----------
    train, val : Boxes
        Truth from tables: with frame columns ``scene`` and ``description``, and ego positions.
    seed : int
        Of the deals.

    Returns
    -------
    tuple of Shift
        The largest excess first. Compared are: boxes a sample, the mix of classes, range, points in box, speed and
        sizes, of all boxes and of each class that has 50 on both sides, and the words of the scenes' descriptions.

    Notes
    -----
    The same deals serve all quantities, so that the largest excess of each deal gives a bound that holds for all of
    them together (Westfall and Young, *Resampling-Based Multiple Testing*, 1993).
    """
    n_train = len(np.unique(train.frame_columns["scene"]))
    quantities = list(_quantities(train, val, n_train))
    n_scenes = n_train + len(np.unique(val.frame_columns["scene"]))
    rng = np.random.default_rng(seed)
    deals = np.zeros((_DEALS + 1, n_scenes))
    deals[0, :n_train] = 1  # as they are
    for deal in deals[1:]:
        deal[rng.permutation(n_scenes)[:n_train]] = 1
    distance = np.array([_total_variation(one.counts, deals) for one in quantities]).reshape(len(quantities), -1)
    chance = distance[:, 1:].mean(axis=1)
    spread = np.maximum(distance[:, 1:].std(axis=1), 1e-9)
    excess = (distance - chance[:, None]) / spread[:, None]
    bound = np.quantile(excess[:, 1:].max(axis=0), 1 - _LEVEL) if quantities else np.inf
    is_enough = comb(n_scenes, n_train) >= 2 / _LEVEL
    rows = [
        Shift(
            one.what,
            one.train,
            one.val,
            float(distance[code, 0]),
            float(chance[code]),
            float(excess[code, 0]),
            bool(excess[code, 0] > bound) if is_enough else None,
        )
        for code, one in enumerate(quantities)
    ]
    return tuple(sorted(rows, key=lambda row: -row.excess))


def table(rows: tuple[Shift, ...], most: int = 12) -> list[str]:
    """Print the shifts beyond chance, and three at least, as lines of text."""
    if not rows:
        return []
    n_real = sum(row.is_real is True for row in rows)
    shown = rows[: min(max(n_real, 3), most)]
    if rows[0].is_real is None:
        title = "shifts: too few scenes to tell them from chance; the largest"
    else:
        title = f"shifts: {n_real} of {len(rows)} beyond chance" + ("" if n_real else "; the largest")
    cells = [("", "train", "val", "distance", "by chance", "excess", "")]
    for row in shown:
        numbers = (f"{row.distance:.3f}", f"{row.chance:.3f}", f"{row.excess:+.1f} sd")
        cells.append((row.what, row.train, row.val, *numbers, "shifted" if row.is_real else ""))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [title]
    for what, *others in cells:
        right = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(["  " + what.ljust(widths[0]), *right]).rstrip())
    return [*lines, f"  and {n_real - most} more"] if n_real > most else lines


def _total_variation(counts: Floats, deals: Floats) -> Floats:
    """Distance between the scenes dealt to one side and the rest: counts (S, bins), deals (D, S) of 0 and 1 to (D,)."""
    one, other = deals @ counts, (1 - deals) @ counts
    one /= np.maximum(one.sum(axis=1, keepdims=True), 1e-9)
    other /= np.maximum(other.sum(axis=1, keepdims=True), 1e-9)
    result: Floats = np.abs(one - other).sum(axis=1) / 2
    return result


def _quantities(train: Boxes, val: Boxes, n_train: int) -> Iterator[_Quantity]:
    """Count what is compared: by frame, by scene, of all boxes, and of each class with enough boxes."""
    sets = (train, val)
    scene_of_frame = np.concatenate(
        [
            np.unique(one.frame_columns["scene"], return_inverse=True)[1] + n_train * side
            for side, one in enumerate(sets)
        ]
    )
    n_scenes = int(scene_of_frame.max()) + 1
    table = _Counter(scene_of_frame < n_train, scene_of_frame, n_scenes, n_train)
    yield table.numbers("boxes a sample", np.concatenate([np.diff(one.offsets) for one in sets]))

    classes = [np.array([_class_of(name) for name in one.labels or ()] or [""])[one.label] for one in sets]
    frame = np.concatenate([train.frame, val.frame + train.n_frames])
    name = np.concatenate(classes)
    kept = name != ""
    name, scene = name[kept], scene_of_frame[frame[kept]]
    table = _Counter(scene < n_train, scene, n_scenes, n_train)
    yield table.words("class", name)
    size = np.concatenate([one.size_lwh_m for one in sets])[kept]
    columns: dict[str, Floats] = {
        "range [m]": np.concatenate(
            [np.linalg.norm(one.center_m[:, :2] - one.ego_xy_m[one.frame], axis=1) for one in sets]
        )[kept],
        "points in box": np.concatenate([_optional(one.num_points, len(one)) for one in sets])[kept],
        "speed [m/s]": np.linalg.norm(
            np.concatenate([_optional(one.velocity_mps, len(one), 2) for one in sets])[kept], axis=1
        ),
        "length [m]": size[:, 0],
        "width [m]": size[:, 1],
        "height [m]": size[:, 2],
    }
    for what in ("range [m]", "points in box", "speed [m/s]"):
        yield table.numbers(what, columns[what])
    for own in np.unique(name):
        rows = name == own
        if min((rows & table.is_train).sum(), (rows & ~table.is_train).sum()) >= _ENOUGH:
            part = _Counter(table.is_train[rows], scene[rows], n_scenes, n_train)
            for what, values in columns.items():
                yield part.numbers(f"{own}: {what}", values[rows])

    texts = np.concatenate([one.frame_columns["description"] for one in sets])
    _, first = np.unique(scene_of_frame, return_index=True)
    words = [set(_words(str(texts[row]))) for row in first]
    for word in sorted(set().union(*words)):
        has = np.array([word in one for one in words], np.float64)
        if min(has.sum(), n_scenes - has.sum()) >= max(2, 0.02 * n_scenes):
            shares = f"{has[:n_train].mean():.0%} of scenes", f"{has[n_train:].mean():.0%} of scenes"
            yield _Quantity(f"condition {word!r}", np.stack([has, 1 - has], axis=1), *shares)


class _Counter(NamedTuple):
    """Rows with their side and scene, to count values in."""

    is_train: NDArray[np.bool_]
    scene: NDArray[np.int64]
    n_scenes: int
    n_train: int

    def numbers(self, what: str, values: NDArray[Any]) -> _Quantity:
        """Count in the deciles of all values; NaN is left out."""
        known = np.isfinite(values)
        edges = (
            np.unique(np.quantile(values[known], np.linspace(0, 1, _BINS + 1)[1:-1])) if known.any() else np.empty(0)
        )
        counts = self._count(np.searchsorted(edges, values[known], side="right"), self.scene[known], len(edges) + 1)
        sides = (values[known & self.is_train], values[known & ~self.is_train])
        train, val = (f"{np.median(side):.3g}" if len(side) else "none" for side in sides)
        return _Quantity(what, counts, train, val)

    def words(self, what: str, values: NDArray[Any]) -> _Quantity:
        """Count the entries."""
        names, code = np.unique(values, return_inverse=True)
        counts = self._count(code, self.scene, max(len(names), 1))
        train, val = counts[: self.n_train].sum(axis=0), counts[self.n_train :].sum(axis=0)
        shares = train / max(train.sum(), 1), val / max(val.sum(), 1)
        if not len(names):
            return _Quantity(what, counts, "none", "none")
        most = int(np.abs(shares[0] - shares[1]).argmax())
        return _Quantity(what, counts, *(f"{names[most]} {share[most]:.1%}" for share in shares))

    def _count(self, code: NDArray[Any], scene: NDArray[np.int64], n_bins: int) -> Floats:
        flat = np.bincount(scene * n_bins + code, minlength=self.n_scenes * n_bins)
        return flat.reshape(self.n_scenes, n_bins).astype(np.float64)


def _class_of(category: str) -> str:
    """The detection class, "" for a category of the nuScenes family that is not evaluated, others as they are."""
    task = NUSCENES.task_of(category)
    if task is not None:
        return NUSCENES.labels[task]
    return (
        "" if category.split(".")[0] in {"human", "vehicle", "movable_object", "static_object", "animal"} else category
    )


def _optional(column: Floats | None, n_rows: int, width: int = 0) -> Floats:
    return np.full((n_rows, width) if width else n_rows, np.nan) if column is None else column


def _words(description: str) -> Iterator[str]:
    """The words of a description, fillers left out."""
    cleaned = "".join(letter if letter.isalpha() else " " for letter in description.lower())
    return islice((word for word in cleaned.split() if len(word) > 2 and word not in _FILLERS), 100)
