"""Protocol: the rules of an evaluation as data, values plus words from small closed tables.

An official evaluator is one literal in :mod:`detmetrics.protocols`; a protocol of one's own is an ordinary value, from
Python, from a dict or from TOML. Nothing in the engine knows a protocol's name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from detmetrics.errors import InputError
from detmetrics.files import near_key, read_toml

#: A ledger keeps the thresholds of a match as the bits of one number.
MAX_THRESHOLDS = 62

#: Columns that stand beside the errors in tables of single boxes, frames and slices; no error may bear their names.
COLUMNS = (
    *("side", "row", "frame", "category", "class", "fate", "score", "num_points", "cause"),
    *("x_m", "y_m", "z_m", "length_m", "width_m", "height_m", "yaw_rad"),
    *("scene", "tp", "fp", "fn", "cost"),
    *("slice", "n_truth", "n_pred", "n_absent"),
)
COLUMN_PREFIXES = ("outcome@", "match@", "slice:", "box:", "frame:")

AffinityKind = Literal["center_xy", "center_xyz"]
AssignmentKind = Literal["nearest_free", "nearest_then_first"]
RangeKind = Literal["ground", "space"]
TieKind = Literal["later_first", "earlier_first"]
CurveKind = Literal["linear", "envelope"]
ErrorMeanKind = Literal["over_recall", "plain"]
ErrorKind = Literal[
    "translation_xy", "translation_xyz", "scale_aligned", "scale_max", "orientation", "velocity_xy", "attribute"
]
CompositeKind = Literal["weighted_mean", "class_product"]


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that is scored on its own: a class, and what is particular about it.

    Attributes
    ----------
    label : str
        Class name.
    range_m : float or None
        Boxes count if their centre is nearer to ego than this (strictly), metres; None: no limit. How the distance is
        taken is the protocol's ``range_kind``.
    yaw_period_rad : float
        Heading errors repeat after this angle, at most 2π: 2π, or π where front and back look alike.
    undefined : tuple of str
        Names of the errors that mean nothing for this class.
    """

    label: str
    range_m: float | None = None
    yaw_period_rad: float = 2 * math.pi
    undefined: tuple[str, ...] = ()


class Affinity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a prediction and a truth may match.

    Attributes
    ----------
    kind : str
        ``center_xy``: distance of the centres on the ground, ``center_xyz``: in space, metres.
    thresholds : tuple of float
        A match is nearer than this (strictly); one precision-recall curve each.
    error_threshold : float
        The one of them whose matches give the true-positive errors.
    """

    kind: AffinityKind
    thresholds: tuple[float, ...]
    error_threshold: float


class Curve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a curve becomes a number.

    Attributes
    ----------
    kind : str
        ``linear``: precision read off by linear interpolation, no envelope (nuScenes). ``envelope``: the highest
        precision at this recall or a later one (Argoverse 2, Pascal VOC).
    n_samples : int
        Number of equidistant recalls from 0 to 1 at which the curve is read.
    min_recall : float or None
        Recalls at or below it do not count; None: all count, that of 0, too.
    min_precision : float
        What lies at or below does not count; the rest is stretched back to 0…1.
    error_mean : str
        ``over_recall``: running means of the errors, averaged over the recalls that count, are reached and have a match
        of which the error is known (nuScenes).
        ``plain``: mean over all matches (Argoverse 2).
    """

    kind: CurveKind = "linear"
    n_samples: int = 101
    min_recall: float | None = None
    min_precision: float = 0.0
    error_mean: ErrorMeanKind = "over_recall"

    @property
    def first_sample(self) -> int:
        """Index of the first recall that counts: the one above ``min_recall``; 0 without one."""
        return 0 if self.min_recall is None else round((self.n_samples - 1) * self.min_recall) + 1


class TpError(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One error of true positives.

    Attributes
    ----------
    name : str
        Short name, e.g. ``ATE``.
    key : str
        Name in the official result files, e.g. ``trans_err``.
    kind : str
        A word of the closed table ``detmetrics.kernels.ERROR``.
    unit : str
        Unit to print.
    worst : float
        The official value where nothing was matched.
    scale : float
        In composites the error counts as the score ``max(0, 1 - error / scale)``.
    """

    name: str
    key: str
    kind: ErrorKind
    unit: str
    worst: float = 1.0
    scale: float = 1.0


class Composite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one weighted score.

    Attributes
    ----------
    name : str
        E.g. ``NDS``.
    key : str
        Name in result files.
    kind : str
        ``weighted_mean``: of mAP and of the score of each error. ``class_product``: for each class its AP times the
        weighted mean of the scores of its errors; then the mean over classes.
    map_weight : float
        Weight of mAP; a product has no use for it.
    error_weights : dict of str to float
        Weight of each error by name; what is not listed does not enter.

    Notes
    -----
    A weighted mean needs all its parts: it is undefined (NaN) where an error of it is defined in no class that counts,
    as AVE among barriers and cones alone when classes without truth are left out. Without that part it would be another
    score under the same name, not comparable with that of other slices. In a product the errors that mean nothing for
    a class drop out, class by class: so Argoverse 2 defines its CDS.
    """

    name: str
    key: str = "nd_score"
    kind: CompositeKind = "weighted_mean"
    map_weight: float = 1.0
    error_weights: dict[str, float]


class Protocol(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of one evaluation.

    Attributes
    ----------
    name : str
        Identifies the protocol in signatures.
    tasks : tuple of Task
        The classes, in the order of tables and results.
    affinity, assignment, curve, errors, composite
        See the classes; ``assignment`` is a word of ``detmetrics.kernels.ASSIGN``: ``nearest_free`` gives each
        prediction, best score first, the nearest truth that is still free; with ``nearest_then_first`` each prediction
        claims its nearest truth, however far, and only the best claim on a truth can match.
    range_kind : str
        How far a box is from ego: ``ground``: in x and y, ``space``: in x, y and z (ego stands at z = 0).
    ties : str
        Which of two predictions of equal score goes first: ``later_first`` or ``earlier_first``, by place in the file.
    mapping : dict of str to str
        Raw category to class; classes that are not listed map to themselves; any other category is not evaluated.
    attributes : tuple of str
        Attribute names that predictions may use; empty: any.
    drop_empty : bool
        Boxes known to hold no sensor point do not count.
    regions : dict of str to tuple of str
        Ignore regions: boxes of the classes on the right do not count where their centre lies inside a truth box of
        the category on the left.
    max_boxes_per_frame : int or None
        More predictions in a frame are refused.
    cap_per_task : int or None
        Of the predictions in range only so many count in a frame and task, the best scores.
    caveats : tuple of str
        What these rules leave out of the official ones, for the signature.
    """

    name: str
    tasks: tuple[Task, ...]
    affinity: Affinity
    assignment: AssignmentKind = "nearest_free"
    range_kind: RangeKind = "ground"
    ties: TieKind = "later_first"
    curve: Curve = Curve()
    errors: tuple[TpError, ...]
    composite: Composite
    mapping: dict[str, str] = {}
    attributes: tuple[str, ...] = ()
    drop_empty: bool = True
    regions: dict[str, tuple[str, ...]] = {}
    max_boxes_per_frame: int | None = None
    cap_per_task: int | None = None
    caveats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rules that contradict each other."""
        labels, names = self.labels, self.error_names
        _need(bool(labels), "tasks", "at least one")
        _need(len(set(labels)) == len(labels), "tasks", "of distinct labels", labels)
        _need(len(set(names)) == len(names), "errors", "of distinct names", names)
        taken = {"AP", "mAP"} & {*names, self.composite.name} or {self.composite.name} & set(names)
        _need(not taken, "names of errors and composite", "other than each other, AP and mAP", sorted(taken))
        odd = [name for name in (*names, self.composite.name) if not name or "/" in name]
        _need(not odd, "names of errors and composite", "without '/' and not empty", odd)
        taken = {one for one in (*names, self.composite.name) if one in COLUMNS or one.startswith(COLUMN_PREFIXES)}
        _need(
            not taken, "names of errors and composite", "other than those of columns of exported tables", sorted(taken)
        )
        for task in self.tasks:
            where = f"tasks[{task.label!r}]"
            _need(task.range_m is None or task.range_m > 0, f"{where}.range_m", "positive", task.range_m)
            _need(
                0 < task.yaw_period_rad <= 2 * math.pi,
                f"{where}.yaw_period_rad",
                "positive and at most 2π, the whole turn",
                task.yaw_period_rad,
            )
            _need(set(task.undefined) <= set(names), f"{where}.undefined", f"among {names}", task.undefined)
        thresholds = self.affinity.thresholds
        _need(len(thresholds) <= MAX_THRESHOLDS, "affinity.thresholds", f"at most {MAX_THRESHOLDS}", len(thresholds))
        _need(
            bool(thresholds) and all(a > 0 for a in thresholds) and list(thresholds) == sorted(set(thresholds)),
            "affinity.thresholds",
            "positive and ascending",
            thresholds,
        )
        _need(
            self.affinity.error_threshold in thresholds,
            "affinity.error_threshold",
            f"one of {thresholds}",
            self.affinity.error_threshold,
        )
        curve = self.curve
        _need(curve.n_samples >= 2, "curve.n_samples", "at least 2", curve.n_samples)
        least = curve.min_recall
        _need(least is None or 0 <= least < 1, "curve.min_recall", "at least 0 and below 1", least)
        _need(
            curve.first_sample < curve.n_samples,
            "curve.min_recall",
            f"below the last of {curve.n_samples} recalls",
            least,
        )
        _need(0 <= curve.min_precision < 1, "curve.min_precision", "at least 0 and below 1", curve.min_precision)
        for error in self.errors:
            _need(error.scale > 0, f"errors[{error.name!r}].scale", "positive", error.scale)
        keys = [error.key for error in self.errors]
        is_plain = len(set(keys)) == len(keys) and not {"recall", "precision", "confidence"} & set(keys)
        _need(is_plain, "keys of errors", "distinct, and none of recall, precision and confidence", keys)
        weights = self.composite.error_weights
        _need(set(weights) <= set(names), "composite.error_weights", f"for errors among {names}", list(weights))
        total = self.composite.map_weight + sum(weights.values())
        _need(
            self.composite.map_weight >= 0 and all(w >= 0 for w in weights.values()) and 0 < total < math.inf,
            "composite weights",
            "not negative, their sum positive and finite",
            [self.composite.map_weight, *weights.values()],
        )
        is_product = self.composite.kind == "class_product"
        _need(not is_product or sum(weights.values()) > 0, "composite.error_weights", "of positive sum", weights)
        strange = sorted(set(self.mapping.values()) - set(labels))
        _need(not strange, "mapping", "to labels of tasks", strange)
        strange = sorted({label for region in self.regions.values() for label in region} - set(labels))
        _need(not strange, "regions", "of labels of tasks", strange)
        limit = self.max_boxes_per_frame
        _need(limit is None or limit > 0, "max_boxes_per_frame", "positive", limit)
        cap = self.cap_per_task
        _need(cap is None or cap > 0, "cap_per_task", "positive", cap)

    def __str__(self) -> str:
        """Give the rules in words, as ``detmetrics protocols NAME`` prints them."""
        from detmetrics.reporting.rules import as_renderable
        from detmetrics.reporting.table import as_plain

        return as_plain(as_renderable(self))

    def __repr__(self) -> str:
        """Say its name, how many classes it has, and its composite."""
        return f"<Protocol {self.name}: {len(self.tasks)} classes, {self.composite.name}>"

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in order."""
        return tuple(task.label for task in self.tasks)

    @property
    def error_names(self) -> tuple[str, ...]:
        """Names of the true-positive errors in order."""
        return tuple(error.name for error in self.errors)

    @property
    def error_index(self) -> int:
        """Which of the thresholds gives the true-positive errors."""
        return self.affinity.thresholds.index(self.affinity.error_threshold)

    @property
    def digest(self) -> str:
        """SHA-256 of all rules, hex, 64 characters."""
        plain = msgspec.convert(self.to_dict(), Protocol)  # so that 50 and 50.0 are the same rule
        return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()

    def task_of(self, category: str) -> int | None:
        """Give the task of a class or raw category, or None where it is not evaluated."""
        label = self.mapping.get(category, category)
        return self.labels.index(label) if label in self.labels else None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values; :meth:`from_dict` takes them back."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any], *, source: str = "protocol") -> Protocol:
        """Make a protocol from plain values.

        Parameters
        ----------
        values : dict
            The fields. With ``extends = "nuscenes"`` the fields of that protocol are the start, and tables given here
            (``affinity``, ``curve``, ``composite``) change only the fields that they name.
        source : str
            Named in errors.

        Raises
        ------
        InputError
            Naming the field.
        """
        if not isinstance(values, Mapping):
            raise InputError(source, expected="a mapping of the fields of a protocol", got=values)
        values = dict(values)
        base = values.pop("extends", None)
        if base is not None:
            from detmetrics.protocols import by_name

            start = by_name(base).to_dict()
            for key, value in values.items():
                merge = key in ("affinity", "curve", "composite") and isinstance(value, dict)
                start[key] = {**start[key], **value} if merge else value
            values = start
        try:
            return msgspec.convert(values, Protocol)
        except msgspec.ValidationError as error:
            is_short = base is None and "missing required" in str(error)
            hint = 'extends = "nuscenes" takes what is not said from there' if is_short else near_key(error, Protocol)
            raise InputError(f"{source}: {error}", hint=hint) from None

    @staticmethod
    def load(path: str | Path) -> Protocol:
        """Read a protocol from a TOML file; see :meth:`from_dict`.

        Raises
        ------
        InputError
            Where the file is missing, is not TOML or does not make a protocol.
        """
        return Protocol.from_dict(read_toml(path), source=str(path))


def _need(condition: bool, field: str, expected: str, got: object = None) -> None:
    """Raise InputError; when msgspec builds the value it puts the path of the field to it, as to any ValueError."""
    if not condition:
        raise InputError(f"protocol.{field}", expected=expected, got=got)
