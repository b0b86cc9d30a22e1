"""Slices: the same ledger by distance, weather, class, …; every slice is a set of weights, so nothing is matched again.

An event belongs to the slice of the truth that it matched, an unmatched prediction to its own, a truth to its own. What
only truth knows (number of points, visibility) has no slice for an unmatched prediction: it counts in every slice,
except where it lies within the loosest threshold of a truth of another one (the rule of Waymo's metrics,
``metrics_utils.cc``).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from detmetrics.curves import EVERYWHERE, NOWHERE
from detmetrics.errors import InputError, Words, listing, unknown_name
from detmetrics.kernels import Codes, Ints, bin_of, distance_to, length_xy, longest_side, only_shard
from detmetrics.ledger import Ledger, check_ledger
from detmetrics.scoring import Absent, Plan, Scores, Shards, score
from detmetrics.weights import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics.boxes import Boxes

    Values = NDArray[Any]

MAX_SHARDS = 2000
MAX_NUMBERS = 30  # more distinct numbers than this want edges

UNKNOWN = "unknown"

#: One or more attributes to slice by: a name, ``"range=0,20,40"``, ``"weather+range=0,20,40"`` for a crossing, or a
#: mapping of names to edges (None: the default ones, or categories).
By = str | Mapping[str, Sequence[float] | None]


class Term(NamedTuple):
    """One attribute and, for numbers, the edges of its bins."""

    name: str
    edges: tuple[float, ...] | None


@dataclass(frozen=True, eq=False, repr=False)
class Slices:
    """The scores of every slice, and of the whole under the same rule.

    Attributes
    ----------
    by : str
        What was sliced by, e.g. ``range=0,20,40``.
    names : tuple of str
        Names of the slices in order.
    whole : Scores
        All of it, with the same rule for classes without truth.
    scores : tuple of Scores
        One a slice.
    groups : tuple of Shards
        The slices as they were scored, those of a group in one walk.
    """

    by: str
    names: tuple[str, ...]
    whole: Scores
    scores: tuple[Scores, ...]
    groups: tuple[Shards, ...]

    def __len__(self) -> int:
        """Count the slices."""
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, Scores]]:
        """Name and scores of each slice."""
        return iter(zip(self.names, self.scores, strict=True))

    def __getitem__(self, name: str) -> Scores:
        """Scores of a slice by name."""
        if name not in self.names:
            raise unknown_name(f"slice by {self.by}", name, self.names)
        return self.scores[self.names.index(name)]

    def weights(self, name: str) -> Weights:
        """Give a slice as weights: ``score(ledger, slices.weights(name), absent=…)`` gives its numbers."""
        if name not in self.names:
            raise unknown_name(f"slice by {self.by}", name, self.names)
        n_thresholds = len(self.whole.protocol.affinity.thresholds)
        for group in self.groups:
            if name in group.names:
                code = np.int16(group.names.index(name))
                event = ((group.event == code) | (group.event == EVERYWHERE)).astype(np.int64)
                shape = (n_thresholds, event.shape[1])
                return Weights(event=np.broadcast_to(event, shape), truth=(group.truth == code).astype(np.int64))
        raise AssertionError(name)  # every name is in one group

    def to_rows(self) -> list[dict[str, float | int | str]]:
        """Give one dict a slice (and one for the whole, last): name, counts, mAP, errors, composite."""
        rows: list[dict[str, float | int | str]] = []
        for name, scores in [*self, ("all", self.whole)]:
            rows.append(
                {
                    "slice": name,
                    "n_truth": int(scores.n_truth.sum()),
                    "n_pred": int(scores.n_pred.sum()),
                    "n_absent": int((scores.n_truth == 0).sum()),
                    "mAP": scores.mean_ap,
                    **scores.tp_errors,
                    scores.protocol.composite.name: scores.composite,
                }
            )
        return rows

    def __str__(self) -> str:
        """Give the table: one line a slice."""
        from detmetrics.reporting.table import as_plain, slices_table

        return as_plain(slices_table(self))

    def __repr__(self) -> str:
        """Say what was sliced."""
        return f"<Slices by {self.by}: {listing(self.names)}>"


def slices(ledger: Ledger, by: By, *, absent: Absent = "omit") -> Slices:
    """Score every slice of a ledger in one go.

    Parameters
    ----------
    ledger : Ledger
        From :func:`detmetrics.match`.
    by : str or mapping
        What to slice by. ``"range"`` (distance to ego on the ground, m), ``"points"`` (sensor points in the truth),
        ``"speed"`` (m/s), ``"size"`` (longest side, m), ``"class"``, ``"attribute"``, ``"weather"`` and ``"daytime"``
        (from the scene's description, unless there are columns of these names), or any column of boxes or frames
        (``"visibility"``, ``"scene"``, ``"location"``, one's own). Numbers take edges, ``"range=0,20,40"`` or
        ``{"range": [0, 20, 40]}``: bins hold their lower edge; what lies outside has bins of its own. A crossing of
        two: ``"weather+range=0,20,40"`` or a mapping of two.
    absent : {"omit", "official"}
        What a class without truth in a slice counts: nothing (NaN, left out of the means), or the protocol's official
        worst values.

    Returns
    -------
    Slices

    Raises
    ------
    InputError
        On an unknown attribute, edges that do not ascend, numbers that need edges.
    """
    check_ledger(ledger)
    terms = parse(by)
    groups = shards_by(ledger, terms)
    whole = score(ledger, absent=absent)
    names, found = [], []
    for group in groups:
        plan = Plan(ledger, Weights(), group)
        tables = plan.run(details=True)
        for shard, name in enumerate(group.names):
            scores = plan.scores(tables, shard, absent)
            found.append(replace(scores, notes=(), sign=partial(_sign, whole, f"{text_of(terms)}:{name}")))
            names.append(name)
    return Slices(text_of(terms), tuple(names), whole, tuple(found), tuple(groups))


def _sign(whole: Scores, which: str) -> str:
    """Signature of a slice: the whole's and which slice it is."""
    head, _, tail = whole.signature.rpartition("|")
    return f"{head}|slice:{which}|{tail}"


def parse(by: By) -> tuple[Term, ...]:
    """Read what to slice by; see :func:`slices`.

    Raises
    ------
    InputError
        Where it cannot be read.
    """
    if not isinstance(by, str | Mapping):
        raise InputError("what to slice by", expected="text as 'range=0,20,40' or a mapping of names to edges", got=by)
    if isinstance(by, str):
        terms = []
        for part in re.split(r"\+(?=\s*[^\W\d])", by):  # not the plus of 1e+06
            name, equals, text = part.partition("=")
            edges: tuple[float, ...] | None = None
            if equals:
                try:
                    edges = tuple(float(number) for number in text.split(","))
                except ValueError:
                    raise InputError(f"edges of {name!r} in {by!r}", expected="numbers with commas", got=text) from None
            terms.append(Term(name.strip(), edges))
    else:
        terms = []
        for name, given in by.items():
            try:
                terms.append(Term(name, None if given is None else tuple(map(float, given))))
            except (TypeError, ValueError):
                raise InputError(f"edges of {name}", expected="numbers", got=given) from None
    check_terms(terms, by)
    return tuple(terms)


def check_terms(terms: Sequence[Term], by: object) -> None:
    """Refuse more than two attributes, one of them twice, and edges that do not ascend.

    Raises
    ------
    InputError
        Naming ``by``, what was asked for.
    """
    if not 1 <= len(terms) <= 2 or not all(term.name for term in terms):
        raise InputError("what to slice by", expected="one attribute or a crossing of two", got=by)
    if len({term.name for term in terms}) < len(terms):
        raise InputError("a crossing", expected="of two different attributes", got=by)
    for term in terms:
        if term.edges is None:
            continue
        if not term.edges or not all(a < b for a, b in itertools.pairwise((*term.edges, np.inf))):
            raise InputError(f"edges of {term.name}", expected="ascending and finite", got=list(term.edges))


def text_of(terms: Sequence[Term]) -> str:
    """Write terms as :func:`parse` reads them."""
    return "+".join(
        term.name + ("" if term.edges is None else "=" + ",".join(map(plain, term.edges))) for term in terms
    )


def plain(number: float) -> str:
    """Write a number so that it reads back the same, and shorter where it is whole."""
    return str(int(number)) if abs(number) < 2**53 and number == int(number) else repr(float(number))


class Attribute(NamedTuple):
    """Shard of every kept truth and of every event, by one attribute."""

    names: tuple[str, ...]
    truth: NDArray[np.int16]
    event: NDArray[np.int16] | None
    by_frame: bool


def codes_by(ledger: Ledger, term: Term) -> tuple[tuple[str, ...], NDArray[np.int16], NDArray[np.int16] | None]:
    """Give the names of an attribute's values, and the own value of every truth (N_truth,) and event (E,) as codes.

    Truths that do not count have -1; events are None where only truth knows.
    """
    attribute = _attribute(ledger, term)
    return attribute.names, attribute.truth, attribute.event


def shards_by(ledger: Ledger, terms: Sequence[Term]) -> list[Shards]:
    """Give the shards of one attribute or of a crossing, in groups that are walked together."""
    attributes = [_attribute(ledger, term) for term in terms]
    if len(attributes) == 1:
        return [_shards(ledger, attributes[0])]
    first, second = attributes
    if len(first.names) * len(second.names) > MAX_SHARDS:
        raise InputError(
            f"slices by {text_of(terms)}",
            expected=f"at most {MAX_SHARDS}",
            got=Words(f"{len(first.names)} x {len(second.names)}"),
        )
    if (first.event is None) == (second.event is None):
        groups = [_shards(ledger, _crossed(first, second))]
    else:
        groups = _outer_and_inner(ledger, first, second)
    counts = Counter(name for group in groups for name in group.names)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise InputError(
            f"slices by {text_of(terms)}",
            expected="of distinct names",
            got=twice,
            hint="as 'a+b' with 'c', and 'a' with 'b+c', would be: write such values without '+'",
        )
    return groups


def _outer_and_inner(ledger: Ledger, first: Attribute, second: Attribute) -> list[Shards]:
    """Cross an attribute that both sides know with one that truth alone knows, one group for each value of the former.

    The groups hold shards of the latter, under the rule for what only truth knows.
    """
    groups = []
    for outer, inner, swapped in ((first, second, False), (second, first, True)):
        if outer.event is None:
            continue
        base, own = _shards(ledger, inner), _shards(ledger, outer)
        for code, outer_name in enumerate(outer.names):
            truth = np.where(own.truth == code, base.truth, NOWHERE).astype(np.int16)
            event = np.where(own.event == code, base.event, NOWHERE).astype(np.int16)
            full = [s for s in range(len(inner.names)) if (truth == s).any() or (event == s).any()]
            renumber = np.full(len(inner.names) + 2, NOWHERE, np.int16)  # the last two are codes -2 and -1
            renumber[full] = np.arange(len(full))
            renumber[EVERYWHERE] = EVERYWHERE
            names = [f"{inner.names[s]}+{outer_name}" if swapped else f"{outer_name}+{inner.names[s]}" for s in full]
            if full:
                groups.append(Shards(tuple(names), renumber[event], renumber[truth]))
    return groups


def _crossed(first: Attribute, second: Attribute) -> Attribute:
    """Cross two attributes that are known to the same sides; combinations that do not occur are left out."""
    width = len(second.names)

    def both(a: NDArray[np.int16], b: NDArray[np.int16]) -> Codes:
        code: Codes = a * np.int32(width) + b  # fits: there are at most MAX_SHARDS
        code[(a | b) < 0] = -1
        return code

    truth = both(first.truth, second.truth)
    event = None if first.event is None or second.event is None else both(first.event, second.event)
    used = sum(
        np.bincount(side + 1, minlength=len(first.names) * width + 1)[1:] for side in (truth, event) if side is not None
    )
    found = np.flatnonzero(used)
    renumber = np.full(len(first.names) * width + 1, -1, np.int16)
    renumber[found] = np.arange(len(found))
    names = tuple(f"{first.names[code // width]}+{second.names[code % width]}" for code in found.tolist())
    by_frame = first.by_frame and second.by_frame
    return Attribute(names, renumber[truth], None if event is None else renumber[event], by_frame)


def _shards(ledger: Ledger, attribute: Attribute) -> Shards:
    """Apply the rule: the slice of the matched truth, else one's own, else every slice that nothing speaks against."""
    own = attribute.event
    if own is None:
        own = np.empty(len(ledger.event_pred), np.int16)
        only_shard(*ledger.near, attribute.truth, own)
    elif attribute.by_frame:
        return Shards(attribute.names, own[None], attribute.truth)
    n_thresholds = len(ledger.protocol.affinity.thresholds)
    event = np.repeat(own[None], n_thresholds, axis=0)
    code = attribute.truth[ledger.pair_truth]
    for t in range(n_thresholds):
        matched = (ledger.pair_bits >> t & 1).astype(np.bool_)
        event[t, ledger.pair_event[matched]] = code[matched]
    return Shards(attribute.names, event, attribute.truth)


class Coded(NamedTuple):
    """Categories as codes and their names, which may repeat."""

    codes: Codes
    names: tuple[str, ...]


# The attributes. A value function takes boxes, rows, and the frame of truth of each row; None: these boxes lack it.


def _range(ledger: Ledger, boxes: Boxes, rows: Ints, frame: Codes) -> Values | None:
    out = np.empty(len(rows))
    distance_to(rows, boxes.center_m, frame, ledger.truth.ego_xy_m, out)
    return out


def _points(ledger: Ledger, boxes: Boxes, rows: Ints, frame: Codes) -> Values | None:
    return None if boxes.num_points is None else boxes.num_points[rows]


def _speed(ledger: Ledger, boxes: Boxes, rows: Ints, frame: Codes) -> Values | None:
    if boxes.velocity_mps is None:
        return np.full(len(rows), np.nan)
    out = np.empty(len(rows))
    length_xy(rows, boxes.velocity_mps, out)
    return out


def _size(ledger: Ledger, boxes: Boxes, rows: Ints, frame: Codes) -> Values | None:
    out = np.empty(len(rows))
    longest_side(rows, boxes.size_lwh_m, out)
    return out


def _class(ledger: Ledger, boxes: Boxes, rows: Ints, frame: Codes) -> Coded:
    labels = ledger.protocol.labels
    tasks = [ledger.protocol.task_of(label) for label in boxes.labels or ()]
    return Coded(boxes.label[rows], tuple(UNKNOWN if task is None else labels[task] for task in tasks))


def _attributes(ledger: Ledger, boxes: Boxes, rows: Ints, frame: Codes) -> Coded:
    if boxes.attribute is None:
        return Coded(np.zeros(len(rows), np.int32), (UNKNOWN,))
    return Coded(boxes.attribute[rows], tuple(name or UNKNOWN for name in boxes.attributes))


class Derived(NamedTuple):
    """How an attribute is had from the boxes, its default edges, and its unit."""

    value: Callable[[Ledger, Boxes, Ints, Codes], Values | Coded | None]
    edges: tuple[float, ...] | None
    unit: str


ATTRIBUTES = {
    "range": Derived(_range, (0, 10, 20, 30, 40, 50), "m"),
    "points": Derived(_points, (1, 6, 21, 101), "points"),  # 5: Waymo's border of LEVEL_2
    "speed": Derived(_speed, (0, 0.2, 1, 3, 10), "m/s"),  # Waymo's: stationary, slow, medium, fast, very fast
    "size": Derived(_size, (0, 1, 2, 4, 8), "m"),
    "class": Derived(_class, None, ""),
    "attribute": Derived(_attributes, None, ""),
}

#: Words in a scene's description, the first that is found counts; nuScenes writes "Night, after rain, …".
DESCRIBED: dict[str, tuple[tuple[str, str], ...]] = {
    "weather": (("after rain", "after rain"), ("rain", "rain"), ("snow", "snow"), ("fog", "fog"), ("", "dry")),
    "daytime": (("night", "night"), ("dusk", "dusk"), ("dawn", "dawn"), ("", "day")),
}


def _attribute(ledger: Ledger, term: Term) -> Attribute:
    """Give the shard of every truth and event; of truths that do not count: NOWHERE."""
    truth, pred = ledger.truth, ledger.pred
    rows, events = ledger.truth_rows, ledger.event_pred
    edges = term.edges
    of_truth: Values | Coded | None
    of_event: Values | Coded | None
    if term.name in ATTRIBUTES:
        derived = ATTRIBUTES[term.name]
        edges = derived.edges if edges is None else edges
        of_truth = derived.value(ledger, truth, rows, truth.frame[rows])
        of_event = derived.value(ledger, pred, events, ledger.event_frame)
    elif term.name in truth.box_columns:
        of_truth = truth.box_columns[term.name][rows]
        of_event = pred.box_columns[term.name][events] if term.name in pred.box_columns else None
    elif (column := _frame_column(truth, term.name)) is not None:
        (codes,), names = _codes(term, edges, [column])
        return _placed(ledger, names, codes[truth.frame[rows]], codes[ledger.event_frame], by_frame=True)
    else:
        known = (*ATTRIBUTES, *truth.box_columns, *truth.frame_columns)
        if "description" in truth.frame_columns:
            known = (*known, *DESCRIBED)
        raise unknown_name("attribute to slice by", term.name, known)
    if of_truth is None:
        raise InputError(f"cannot slice by {term.name}: {truth.called('truth')} does not say it")
    if isinstance(of_truth, Coded) and isinstance(of_event, Coded):
        if edges is not None:
            raise InputError(f"{term.name} has no edges: it is a category", got=list(edges))
        coded, names = _recoded([of_truth, of_event])
    else:
        coded, names = _codes(term, edges, [of_truth] if of_event is None else [of_truth, of_event])  # type: ignore[list-item]
    return _placed(ledger, names, coded[0], None if of_event is None else coded[1], by_frame=False)


def _placed(
    ledger: Ledger,
    names: tuple[str, ...],
    in_truth: NDArray[np.int16],
    in_event: NDArray[np.int16] | None,
    *,
    by_frame: bool,
) -> Attribute:
    """Spread the codes of the kept truths over all rows, NOWHERE elsewhere."""
    whole = np.full(len(ledger.truth), NOWHERE, np.int16)
    whole[ledger.truth_rows] = in_truth
    return Attribute(names, whole, in_event, by_frame)


def _frame_column(truth: Boxes, name: str) -> Values | None:
    """Give a column of the frames, or what the description of the scene says."""
    if name in truth.frame_columns:
        return truth.frame_columns[name]
    if name not in DESCRIBED or "description" not in truth.frame_columns:
        return None
    texts, inverse = np.unique(truth.frame_columns["description"].astype(str), return_inverse=True)
    found = [
        next(value for word, value in DESCRIBED[name] if word in text.lower()) if text else UNKNOWN
        for text in texts.tolist()
    ]
    return np.array(found or [UNKNOWN])[inverse]


def _recoded(parts: Sequence[Coded]) -> tuple[list[NDArray[np.int16]], tuple[str, ...]]:
    """Bring codes into one table of the names that occur, unknown last."""
    used = [np.bincount(part.codes, minlength=len(part.names)) > 0 for part in parts]
    found = [name for part, use in zip(parts, used, strict=True) for name in itertools.compress(part.names, use)]
    names = tuple(dict.fromkeys(sorted(found, key=lambda name: name == UNKNOWN)))
    code = {name: i for i, name in enumerate(names)}
    tables = [np.array([code.get(name, NOWHERE) for name in part.names] or [NOWHERE], np.int16) for part in parts]
    return [table[part.codes] for table, part in zip(tables, parts, strict=True)], names


def _codes(
    term: Term, edges: tuple[float, ...] | None, parts: Sequence[Values]
) -> tuple[list[NDArray[np.int16]], tuple[str, ...]]:
    """Code each value and name the codes; names that nobody bears are left out, except bins that were asked for."""
    for values in parts:
        if values.ndim > 1:
            raise InputError(f"column {term.name} to slice by", expected="of one value each", got=values.shape)
    if edges is None:
        kinds, codes = np.unique(np.concatenate(parts), return_inverse=True)
        if kinds.dtype.kind in "fiu" and len(kinds) > MAX_NUMBERS:
            raise InputError(
                f"{term.name} has {len(kinds)} distinct numbers: give edges", hint=f"for example {term.name}=0,10,20"
            )
        if len(kinds) > MAX_SHARDS:
            raise InputError(f"slices by {term.name}", expected=f"at most {MAX_SHARDS}", got=len(kinds))
        labels = tuple(map(name_of, kinds.tolist()))
        split = np.split(codes.astype(np.int32), np.cumsum([len(values) for values in parts])[:-1])
        return _recoded([Coded(part, labels) for part in split])  # two values may bear one name
    if any(values.dtype.kind not in "fiub" for values in parts):
        raise InputError(f"{term.name} has no edges: it is a category", got=list(edges))
    counts = np.zeros(len(edges) + 2, np.int64)
    coded = [np.empty(len(values), np.int16) for values in parts]
    for values, code in zip(parts, coded, strict=True):
        bin_of(np.require(values, np.float64, ["C", "W"]), np.array(edges, np.float64), code, counts)
    names = [
        f"<{plain(edges[0])}",
        *(f"{plain(low)}-{plain(high)}" for low, high in itertools.pairwise(edges)),
        f">={plain(edges[-1])}",
        UNKNOWN,
    ]
    keep = [code for code in range(len(names)) if counts[code] or 0 < code < len(edges)]
    renumber = np.full(len(names), NOWHERE, np.int16)
    renumber[keep] = np.arange(len(keep))
    return [renumber[code] for code in coded], tuple(names[code] for code in keep)


def name_of(value: object) -> str:
    """Name of a category, as slices write it: ``1`` for 1.0, :data:`UNKNOWN` for what is empty or NaN."""
    name = plain(value) if isinstance(value, float) and np.isfinite(value) else str(value)
    return UNKNOWN if name in ("", "nan") else name
