"""Scene: what is to be seen of one frame, as arrays; windows, pictures and pages only draw it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from detmetrics.errors import InputError, Words, listing
from detmetrics.geometry import (
    IDENTITY,
    Pose,
    points_in_boxes,
    rotation_matrices,
    rotation_of_yaw,
    rotations_of_matrices,
)
from detmetrics.ledger import Ledger
from detmetrics_viz.outcomes import Outcome, Outcomes
from detmetrics_viz.themes import BOX_MODES, POINT_MODES, Colors, Theme

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics.boxes import Boxes
    from detmetrics.io.clouds import Cloud

    Floats32 = NDArray[np.float32]
    Mask = NDArray[np.bool_]

#: Ten nodes of a box: bottom, then top, each front left, rear left, rear right, front right; then the two ends of the
#: heading stroke on the bottom, which begins at the middle and ends before the front.
N_NODES = 10
#: The thirteen lines of a box between its nodes: bottom, top, posts, heading.
EDGES = np.array(
    [
        *((0, 1), (1, 2), (2, 3), (3, 0)),
        *((4, 5), (5, 6), (6, 7), (7, 4)),
        *((0, 4), (1, 5), (2, 6), (3, 7)),
        (8, 9),
    ],
    np.int32,
)
#: The own car where nobody says otherwise: length, width, height, metres.
EGO_LWH_M = (4.6, 1.9, 1.6)


class Lines(NamedTuple):
    """Lines of one layer.

    Attributes
    ----------
    ends : float32 (L, 2, 3)
        Metres.
    box : int32 (L,)
        The box that a line belongs to, with which it is shown and hidden; -1 for none.
    """

    ends: Floats32
    box: NDArray[np.int32]


class Counts(NamedTuple):
    """What happened in the frame; ``errors`` are the means over the true positives, NaN where unknown."""

    tp: int
    fp: int
    fn: int
    not_counted: int
    errors: tuple[float, ...]


class LegendRow(NamedTuple):
    """One row of the legend: what, how many are shown (-1: no number), and the colour."""

    text: str
    number: int
    color: tuple[int, int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Scene:
    """One frame to look at. P points, B boxes (first the truths, then the predictions), K classes, E errors.

    Everything lies in the *view frame*: x forward, y left, z up, metres. Colours depend on a theme and on the least
    score shown, so what is kept are shades and codes, and methods turn them into colours.

    Attributes
    ----------
    frame : str
        Name of the frame.
    title : str
        What stands above a picture: the scene, where known, and the frame.
    source : str
        File of the cloud.
    pose : Pose
        From the view frame to the global one; the identity where unknown.
    timestamp_us : int
        Zero where unknown.
    points : float32 (P, 3)
        Rays without return are left out.
    shades : dict of str to uint8 (P,)
        For each of :data:`~detmetrics_viz.themes.POINT_MODES` that the cloud has, the place of its
        colour in the theme's ``lookup`` of that name.
    ranges : dict of str to (float, float)
        The values that shades 0 and 255 stand for: metres above the ground, intensity, metres, seconds.
    ground_m : float
        Height of the ground near the sensor.
    labels : tuple of str, K
        Class names that ``label`` points into.
    is_pred : bool (B,)
    row : int64 (B,)
        Row in the truth or in the predictions.
    label : int16 (B,)
    score : float32 (B,)
        NaN for truths.
    counts : bool (B,)
        Whether matching counted the box; True where nothing was matched.
    partner : int32 (B,)
        The box on the other side that it matches, or -1.
    errors : float32 (B, E)
        True-positive errors of matched predictions, else NaN.
    center, size : float32 (B, 3)
        Size is length, width, height.
    yaw_rad : float32 (B,)
    velocity : float32 (B, 2)
        Metres per second, NaN where unknown.
    nodes : float32 (B, 10, 3)
        See :data:`detmetrics_viz.scene.EDGES`; the first eight are the corners.
    n_points : int32 (B,)
        Points of this cloud in the box.
    cutoff : float32 (K,)
        Least score shown where none is asked for: that of the best F1 of the class over all frames (infinite where
        nothing is ever right); zero where nothing was matched.
    matched : bool
        Whether there was a ledger: else outcomes are only truth and prediction.
    threshold_m : float
        Of the match; NaN without.
    error_names, error_units : tuple of str, E
        Units that are formulas, such as "1 - IoU", are left out.
    lines : dict of str to Lines
        ``matches`` (each with its prediction as box), ``velocity`` (arrows of three lines: where it is in a second),
        ``rings``, ``ego``.
    rings_m : tuple of float
        Radii.
    """

    frame: str
    title: str
    source: str
    pose: Pose
    timestamp_us: int
    points: Floats32
    shades: Mapping[str, NDArray[np.uint8]]
    ranges: Mapping[str, tuple[float, float]]
    ground_m: float
    labels: tuple[str, ...]
    is_pred: Mask
    row: NDArray[np.int64]
    label: NDArray[np.int16]
    score: Floats32
    counts: Mask
    partner: NDArray[np.int32]
    errors: Floats32
    center: Floats32
    size: Floats32
    yaw_rad: Floats32
    velocity: Floats32
    nodes: Floats32
    n_points: NDArray[np.int32]
    cutoff: Floats32
    matched: bool
    threshold_m: float
    error_names: tuple[str, ...]
    error_units: tuple[str, ...]
    lines: Mapping[str, Lines]
    rings_m: tuple[float, ...]

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.row)

    def __repr__(self) -> str:
        """Say how much there is."""
        n_pred = int(self.is_pred.sum())
        return f"<Scene {self.frame!r}: {len(self.points):,} points, {len(self) - n_pred} truths, {n_pred} predictions>"

    def _repr_html_(self) -> str:
        """Show the scene in a notebook, to turn and to pick from."""
        from detmetrics_viz.page import Page

        return Page(self)._repr_html_()

    def shown(self, min_score: float | None = None) -> Mask:
        """Tell which boxes a least score leaves, (B,): all truths, and predictions at or above it.

        Parameters
        ----------
        min_score : float, optional
            Default: the cutoff of each class.
        """
        least = self.cutoff[self.label] if min_score is None else np.float32(min_score)
        shown: Mask = ~self.is_pred | (self.score >= least)
        return shown

    def outcome(self, min_score: float | None = None) -> NDArray[np.uint8]:
        """Give the :class:`Outcome` of each box, (B,), where predictions below a score are not made.

        Matching goes by descending score, so a match does not depend on lower ones: a truth is missed when its partner
        is not shown.
        """
        if not self.matched:
            return np.where(self.is_pred, Outcome.PREDICTION, Outcome.TRUTH).astype(np.uint8)
        has_partner = self.partner >= 0
        found = has_partner & self.shown(min_score)[self.partner]
        outcome = np.where(
            self.is_pred,
            np.where(has_partner, Outcome.TRUE_POSITIVE, Outcome.FALSE_POSITIVE),
            np.where(found, Outcome.FOUND, Outcome.MISSED),
        )
        return np.where(self.counts, outcome, Outcome.NOT_COUNTED).astype(np.uint8)

    def summary(self, min_score: float | None = None) -> Counts:
        """Count true positives, false positives, missed truths, and average the errors of the first."""
        outcome, shown = self.outcome(min_score), self.shown(min_score)
        number = np.bincount(outcome[shown], minlength=len(Outcome)).tolist()
        errors = self.errors[(outcome == Outcome.TRUE_POSITIVE) & shown].astype(np.float64)
        known = ~np.isnan(errors)
        n_known = known.sum(axis=0)
        total = np.where(known, errors, 0).sum(axis=0)
        means = np.divide(total, n_known, out=np.full(errors.shape[1], np.nan), where=n_known > 0)
        return Counts(
            number[Outcome.TRUE_POSITIVE],
            number[Outcome.FALSE_POSITIVE],
            number[Outcome.MISSED],
            number[Outcome.NOT_COUNTED],
            tuple(means.tolist()),
        )

    def point_colors(self, theme: Theme, mode: str = "height") -> Colors:
        """Colours of the points, uint8 (P, 3).

        Raises
        ------
        InputError
            For a mode that the cloud does not have.
        """
        if mode not in self.shades:
            raise InputError("colour of points", expected=f"one of {listing(self.shades)} for this cloud", got=mode)
        return theme.lookup[mode][self.shades[mode]]

    def box_colors(self, theme: Theme, mode: str = "outcome", min_score: float | None = None) -> Colors:
        """Colours of the boxes, uint8 (B, 3): by ``outcome``, ``class``, or ``score`` (truths have none: as truth).

        Raises
        ------
        InputError
            For another mode.
        """
        if mode == "outcome":
            return theme.outcome_colors[self.outcome(min_score)]
        if mode == "class":
            return theme.class_colors(len(self.labels))[self.label]
        if mode == "score":
            shade = np.round(255 * np.clip(np.nan_to_num(self.score), 0, 1)).astype(np.uint8)
            return np.where(self.is_pred[:, None], theme.lookup["score"][shade], theme.outcome_colors[Outcome.FOUND])
        raise InputError("colour of boxes", expected=f"one of {listing(BOX_MODES)}", got=mode)

    def legend(self, theme: Theme, mode: str = "outcome", min_score: float | None = None) -> list[LegendRow]:
        """Give the rows of the legend: outcomes or classes with the number shown, or five scores."""
        shown = self.shown(min_score)
        if mode == "score":
            at = np.linspace(0, 1, 5)
            colors = theme.lookup["score"][np.round(255 * at).astype(int)].tolist()
            return [LegendRow(f"score {value:.2f}", -1, tuple(color)) for value, color in zip(at, colors, strict=True)]
        if mode == "class":
            number = np.bincount(self.label[shown], minlength=len(self.labels)).tolist()
            names, colors = list(self.labels), theme.class_colors(len(self.labels)).tolist()
        else:
            number = np.bincount(self.outcome(min_score)[shown], minlength=len(Outcome)).tolist()
            names, colors = [one.says for one in Outcome], theme.outcome_colors.tolist()
        return [LegendRow(*row[:2], tuple(row[2])) for row in zip(names, number, colors, strict=True) if row[1]]

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """One short label for each box: class, score, and the first error of a match."""
        texts = []
        score, first = self.score.tolist(), self.errors[:, 0].tolist() if self.error_names else []
        for i, label in enumerate(self.label.tolist()):
            text = self.labels[label]
            if self.is_pred[i]:
                text += f" {score[i]:.2f}"
                if first and first[i] == first[i]:
                    text += f" · {first[i]:.2f} {self.error_units[0]}".rstrip()
            texts.append(text)
        return tuple(texts)

    def describe(self, i: int, min_score: float | None = None) -> list[str]:
        """Give all that is known of box ``i``, one line each: what a pick shows."""
        outcome = Outcome(int(self.outcome(min_score)[i]))
        head = f"{self.labels[self.label[i]]}, {outcome.says}"
        lines = [head if not self.is_pred[i] else f"{head}, score {self.score[i]:.3f}"]
        x, y, z = self.center[i].tolist()
        length, width, height = self.size[i].tolist()
        lines.append(f"at {x:.1f}, {y:.1f}, {z:.1f} m, {np.hypot(x, y):.1f} m away, {self.n_points[i]:,} points")
        heading = f"heading {np.degrees(self.yaw_rad[i]):.0f}°"
        speed = float(np.hypot(*self.velocity[i].tolist()))
        if speed == speed:
            heading += f", {speed:.1f} m/s"
        lines.append(f"{length:.2f} x {width:.2f} x {height:.2f} m, {heading}")
        known = [
            f"{name} {value:.2f} {unit}".rstrip()
            for name, unit, value in zip(self.error_names, self.error_units, self.errors[i].tolist(), strict=True)
            if value == value
        ]
        if known:
            lines.append("errors: " + ", ".join(known))
        if self.partner[i] >= 0:
            other = int(self.partner[i])
            lines.append(f"matches the {'truth' if self.is_pred[i] else 'prediction'} {self.texts[other]}")
        return lines


def build_scene(
    cloud: Cloud | None,
    truth: Boxes | None = None,
    pred: Boxes | None = None,
    ledger: Ledger | Outcomes | None = None,
    *,
    frame: str | None = None,
    title: str = "",
    boxes_to_cloud: Pose | None = None,
    cloud_to_view: Pose | None = None,
    ego_center_xy_m: tuple[float, float] = (0.0, 0.0),
) -> Scene:
    """Put together what is to be seen of one frame.

    Parameters
    ----------
    cloud : Cloud
    truth, pred : Boxes, optional
        Of one or many frames; default: those of the ledger.
    ledger : Ledger or Outcomes, optional
        What became of the boxes. For many frames make the :class:`Outcomes` once and hand them in.
    frame : str, optional
        Name of the frame; needed where the boxes have several.
    title : str
        Default: the scene, where known, and the frame.
    boxes_to_cloud : Pose, optional
        From the frame of the boxes to that of the cloud; default: the boxes are in the global frame that
        ``cloud.pose`` leads to.
    cloud_to_view : Pose, optional
        From the frame of the cloud to one with x forward and z up; default: the cloud's already is such.
    ego_center_xy_m : tuple of float
        Middle of the own car in the view frame, metres.

    Returns
    -------
    Scene

    Raises
    ------
    InputError
        Without a cloud, for an empty or not finite one, for an unknown frame (near names are told), for boxes that are
        not those of the ledger.
    """
    if cloud is None:
        raise InputError("boxes without a cloud: a scene needs the points that they lie on")
    outcomes = Outcomes.of(ledger) if isinstance(ledger, Ledger) else ledger
    if outcomes is not None:
        truth = _own(truth, outcomes.ledger.truth, "truth")
        pred = _own(pred, outcomes.ledger.pred, "pred")
    name = _frame(frame, truth, pred)
    sides = [_rows(truth, name), _rows(pred, name)]

    view = cloud_to_view or IDENTITY
    points = _points(cloud, view)
    motion = view.after(boxes_to_cloud or cloud.pose.inverse())
    labels = _labels(truth, pred, sides, outcomes)
    columns = [_side(boxes, rows, motion, labels, outcomes) for boxes, rows in zip((truth, pred), sides, strict=True)]
    column = {key: np.concatenate([one[key] for one in columns]) for key in columns[0]}
    is_pred = np.repeat([False, True], [len(rows) for rows in sides])
    column |= _matches(outcomes, sides)
    protocol = outcomes.ledger.protocol if outcomes else None
    cutoff = np.zeros(len(labels), np.float32)
    if outcomes is not None:
        cutoff[: len(outcomes.cutoff)] = outcomes.cutoff
    rotation = column.pop("rotation")
    nodes = box_nodes(column["center"], column["size"], rotation)
    box, _ = points_in_boxes(points.moved, column["center"], column["size"], rotations_of_matrices(rotation))
    ground = _ground(points.moved)
    rings = _radii(points.moved)
    lines = {
        "matches": _match_lines(column, is_pred),
        "velocity": _arrows(column),
        "rings": _free(_circles(rings, ground)),
        "ego": _free(_ego(ego_center_xy_m, ground)),
    }
    shades, ranges = _shades(points, ground)
    return Scene(
        frame=name,
        title=title or title_of(name, scene_name(name, truth, pred)),
        source=cloud.source,
        pose=cloud.pose.after(view.inverse()),
        timestamp_us=cloud.timestamp_us,
        points=points.moved,
        shades=shades,
        ranges=ranges,
        ground_m=ground,
        labels=labels,
        is_pred=is_pred,
        nodes=nodes,
        n_points=np.bincount(box, minlength=len(is_pred)).astype(np.int32),
        cutoff=cutoff,
        matched=outcomes is not None,
        threshold_m=outcomes.threshold if outcomes else float("nan"),
        error_names=protocol.error_names if protocol else (),
        error_units=tuple("" if " " in one.unit else one.unit for one in protocol.errors) if protocol else (),
        lines=lines,
        rings_m=rings,
        **column,
    )


def box_nodes(center: NDArray[Any], size: NDArray[Any], rotation: NDArray[Any]) -> Floats32:
    """Nodes of boxes, float32 (B, 10, 3), from centres (B, 3), length, width, height (B, 3) and rotations (B, 3, 3)."""
    unit = np.zeros((N_NODES, 3))
    unit[:8, :2] = np.tile([(0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5)], (2, 1))
    unit[:, 2] = [*[-0.5] * 4, *[0.5] * 4, -0.5, -0.5]
    unit[9, 0] = 0.5
    local = unit * size[:, None, :]
    local[:, 9, 0] += np.clip(0.25 * size[:, 0], 0.3, 1.2)  # the stroke leaves the box by so much
    nodes: Floats32 = (np.einsum("bij,bnj->bni", rotation, local) + center[:, None, :]).astype(np.float32)
    return nodes


class _Points(NamedTuple):
    """The returns of a cloud, moved into the view frame, with what they are coloured by."""

    moved: Floats32
    intensity: Floats32
    time_s: Floats32


def _points(cloud: Cloud, view: Pose) -> _Points:
    given = np.asarray(cloud.points_m)
    name = cloud.source or "cloud"
    if given.ndim != 2 or given.shape[1] != 3:
        raise InputError(f"points of {name}", expected="of shape (N, 3)", got=given.shape)
    if not len(given):
        raise InputError(f"{name}", expected="a cloud with points", got=Words("none"))
    if not np.isfinite(given).all():
        row = int(np.argmin(np.isfinite(given).all(axis=1)))
        raise InputError(f"point {row}", expected="finite numbers", got=given[row].tolist(), where=name)
    x, y, z = np.abs(given.T)
    is_return = (x > 0.05) | (y > 0.05) | (z > 0.05)  # a ray without return lies at the sensor
    moved = view.apply(given[is_return]).astype(np.float32)
    return _Points(moved, np.asarray(cloud.intensity)[is_return], np.asarray(cloud.time_s)[is_return])


def _own(given: Boxes | None, ledgers: Boxes, side: str) -> Boxes:
    """Refuse boxes that the rows of the ledger do not speak of."""
    same = given is None or given is ledgers
    if given is not None and not same:
        same = given.frames == ledgers.frames and np.array_equal(given.center_m, ledgers.center_m)
    if not same:
        raise InputError(side, expected=f"the boxes that were matched ({ledgers!r})", got=given)
    return ledgers


def _frame(frame: str | None, truth: Boxes | None, pred: Boxes | None) -> str:
    known = list(dict.fromkeys(name for boxes in (truth, pred) if boxes is not None for name in boxes.frames))
    if frame is None:
        if len(known) > 1:
            raise InputError("frame", expected="given where the boxes have several", hint=listing(known))
        return known[0] if known else ""
    if known and frame not in known:
        raise unknown_frame(frame, known)
    return frame


def unknown_frame(frame: str, known: list[str]) -> InputError:
    """Error for a frame that is not there, with near names."""
    near = [name for name in known if frame and name.startswith(frame)][:3]
    near = near or difflib.get_close_matches(frame, known, n=3, cutoff=0.4)
    hint = f"did you mean {listing(near)}?" if near else f"known: {listing(known)}"
    return InputError(f"unknown frame {frame!r}", hint=hint)


def _rows(boxes: Boxes | None, frame: str) -> NDArray[np.int64]:
    if boxes is None or frame not in boxes.frame_index:
        return np.empty(0, np.int64)
    code = boxes.frame_index[frame]
    return np.arange(boxes.offsets[code], boxes.offsets[code + 1])


def _class_names(boxes: Boxes, outcomes: Outcomes | None) -> list[str]:
    """Class of each label code: of raw categories, that which the protocol makes of them."""
    if outcomes is None:
        n_codes = int(boxes.label.max(initial=-1)) + 1
        return list(boxes.labels) if boxes.labels is not None else [f"class {code}" for code in range(n_codes)]
    protocol = outcomes.ledger.protocol
    return [protocol.mapping.get(name, name) for name in boxes.labels or protocol.labels]


def _labels(
    truth: Boxes | None, pred: Boxes | None, sides: list[NDArray[np.int64]], outcomes: Outcomes | None
) -> tuple[str, ...]:
    """All classes: those of the protocol first, and whatever else the boxes have a name for."""
    names = list(outcomes.ledger.protocol.labels) if outcomes else []
    for boxes, rows in zip((truth, pred), sides, strict=True):
        if boxes is not None:
            own = _class_names(boxes, outcomes)
            # with a protocol only what occurs here is added, else colours would run out on categories nobody evaluates
            codes = range(len(own)) if outcomes is None else np.unique(boxes.label[rows]).tolist()
            names += [own[code] for code in codes]
    return tuple(dict.fromkeys(names))


def _side(
    boxes: Boxes | None, rows: NDArray[np.int64], motion: Pose, labels: tuple[str, ...], outcomes: Outcomes | None
) -> dict[str, NDArray[Any]]:
    """Columns of one side in the view frame."""
    if boxes is None:
        return {
            "row": rows,
            "label": np.empty(0, np.int16),
            "score": np.empty(0, np.float32),
            "center": np.empty((0, 3), np.float32),
            "size": np.empty((0, 3), np.float32),
            "rotation": np.empty((0, 3, 3)),
            "yaw_rad": np.empty(0, np.float32),
            "velocity": np.empty((0, 2), np.float32),
        }
    own = boxes.rotation_wxyz[rows] if boxes.rotation_wxyz is not None else rotation_of_yaw(boxes.yaw_rad[rows])
    rotation = motion.rotation @ rotation_matrices(own) if len(rows) else np.empty((0, 3, 3))
    velocity = np.full((len(rows), 3), np.nan)
    if boxes.velocity_mps is not None:
        velocity[:, :2], velocity[:, 2] = boxes.velocity_mps[rows], 0
        velocity = velocity @ motion.rotation.T
    code = np.array([labels.index(name) if name in labels else -1 for name in _class_names(boxes, outcomes)], np.int16)
    return {
        "row": rows,
        "label": code[boxes.label[rows]] if len(rows) else np.empty(0, np.int16),
        "score": np.full(len(rows), np.nan, np.float32)
        if boxes.score is None
        else boxes.score[rows].astype(np.float32),
        "center": motion.apply(boxes.center_m[rows]).astype(np.float32),
        "size": boxes.size_lwh_m[rows].astype(np.float32),
        "rotation": rotation,
        "yaw_rad": np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]).astype(np.float32),
        "velocity": velocity[:, :2].astype(np.float32),
    }


def _matches(outcomes: Outcomes | None, sides: list[NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
    """What matching says of the boxes."""
    n_truth, n_boxes = len(sides[0]), sum(len(rows) for rows in sides)
    partner = np.full(n_boxes, -1, np.int32)
    if outcomes is None:
        return {"counts": np.ones(n_boxes, bool), "partner": partner, "errors": np.empty((n_boxes, 0), np.float32)}
    truth_row = outcomes.partner[sides[1]]
    pred_at = np.flatnonzero(truth_row >= 0)
    truth_at = np.searchsorted(sides[0], truth_row[pred_at])
    partner[n_truth + pred_at] = truth_at
    partner[truth_at] = n_truth + pred_at
    n_errors = outcomes.errors.shape[1]
    return {
        "counts": np.concatenate([outcomes.truth_counts[sides[0]], outcomes.pred_counts[sides[1]]]),
        "partner": partner,
        "errors": np.concatenate([np.full((n_truth, n_errors), np.nan), outcomes.errors[sides[1]]]).astype(np.float32),
    }


def _ground(points: Floats32) -> float:
    """Height at which most points near the sensor lie, the highest third or so left aside; zero without points."""
    near = points[np.hypot(points[:, 0], points[:, 1]) < 25]
    z = near[:, 2] if len(near) > 100 else points[:, 2]
    if not len(z):
        return 0.0
    low, middle = np.percentile(z, [1, 70])
    number, edge = np.histogram(z, bins=max(1, min(200, int((middle - low) / 0.1))), range=(low, middle + 1e-3))
    at = int(np.argmax(number))
    return float((edge[at] + edge[at + 1]) / 2)


def _radii(points: Floats32) -> tuple[float, ...]:
    """Radii of range rings: every 10 m for near clouds, every 25 m for far ones."""
    far = float(np.percentile(np.hypot(points[:, 0], points[:, 1]), 99)) if len(points) else 50.0
    step = 10.0 if far < 75 else 25.0
    return tuple((step * np.arange(1, int(np.clip(np.ceil(far / step), 3, 8)) + 1)).tolist())


def _shades(points: _Points, ground: float) -> tuple[dict[str, NDArray[np.uint8]], dict[str, tuple[float, float]]]:
    """Where each point stands between the ends of each ramp."""
    distance = np.linalg.norm(points.moved, axis=1)
    far = max(float(np.percentile(distance, 99)), 10.0) if len(distance) else 10.0
    given: dict[str, tuple[NDArray[Any], float, float, float]] = {
        "height": (points.moved[:, 2] - ground, -0.5, 4.5, 1.0),
        "distance": (distance, 0.0, far, 0.6),
    }
    if np.isfinite(points.intensity).any():
        dark, bright = np.nanpercentile(points.intensity, [1, 99]).tolist()
        low = min(dark, 0.0)
        given["intensity"] = (np.nan_to_num(points.intensity, nan=low), low, max(bright, low + 1e-6), 0.5)
    age = -points.time_s
    if np.isfinite(age).all() and len(age) and (oldest := float(age.max())) > (newest := float(age.min())):
        given["time"] = (age, newest, oldest, 1.0)
    shades = {
        mode: np.round(255 * np.clip((value - low) / (high - low), 0, 1) ** power).astype(np.uint8)
        for mode, (value, low, high, power) in given.items()
    }
    return {mode: shades[mode] for mode in POINT_MODES if mode in shades}, {
        mode: (low, high) for mode, (_, low, high, _) in given.items()
    }


def _match_lines(column: Mapping[str, NDArray[Any]], is_pred: Mask) -> Lines:
    box = np.flatnonzero(is_pred & (column["partner"] >= 0))
    ends = np.stack([column["center"][box], column["center"][column["partner"][box]]], axis=1)
    return Lines(ends, box.astype(np.int32))


def _arrows(column: Mapping[str, NDArray[Any]]) -> Lines:
    """Arrows from the middle of a moving box to where it is in a second: a shaft and two barbs."""
    speed = np.hypot(column["velocity"][:, 0], column["velocity"][:, 1])
    box = np.flatnonzero(speed > 0.3)  # slower is noise of a standing box
    along = column["velocity"][box] / speed[box, None]
    start = column["center"][box]
    tip = start.copy()
    tip[:, :2] += column["velocity"][box]
    barb = np.clip(0.25 * speed[box], 0.2, 0.8)[:, None]
    ends = np.empty((len(box), 3, 2, 3), np.float32)
    ends[:, 0, 0], ends[:, :, 1] = start, tip[:, None]
    for i, turn in ((1, np.radians(150)), (2, np.radians(-150))):
        ends[:, i, 0] = tip
        ends[:, i, 0, 0] += barb[:, 0] * (np.cos(turn) * along[:, 0] - np.sin(turn) * along[:, 1])
        ends[:, i, 0, 1] += barb[:, 0] * (np.sin(turn) * along[:, 0] + np.cos(turn) * along[:, 1])
    return Lines(ends.reshape(-1, 2, 3), np.repeat(box, 3).astype(np.int32))


def _circles(radii: tuple[float, ...], ground: float, n_sides: int = 120) -> Floats32:
    angle = np.linspace(0, 2 * np.pi, n_sides + 1)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=-1)
    around = np.array(radii)[:, None, None] * circle + np.array([0, 0, ground])
    ends: Floats32 = np.stack([around[:, :-1], around[:, 1:]], axis=2).reshape(-1, 2, 3).astype(np.float32)
    return ends


def _ego(center_xy: tuple[float, float], ground: float) -> Floats32:
    size = np.array([EGO_LWH_M])
    center = np.array([[*center_xy, ground + size[0, 2] / 2]])
    ends: Floats32 = box_nodes(center, size, np.eye(3)[None])[0][EDGES]
    return ends


def _free(ends: Floats32) -> Lines:
    return Lines(ends, np.full(len(ends), -1, np.int32))


def scene_name(frame: str, truth: Boxes | None, pred: Boxes | None) -> str:
    """Scene of a frame; ``""`` where neither side knows it."""
    for boxes in (truth, pred):
        if boxes is not None and frame in boxes.frame_index and "scene" in boxes.frame_columns:
            return str(boxes.frame_columns["scene"][boxes.frame_index[frame]])
    return ""


def title_of(frame: str, scene: str) -> str:
    """Give the scene, where known and not in the name already, and the frame."""
    return frame if frame.startswith(scene) else f"{scene} · {frame}"
