"""Numba kernels: no checks, no class names, fixed dtypes. The functions around them check; these only compute.

Rows of boxes are grouped by *group* = frame x task; only boxes of one group can match, so groups are independent and
ranges of them run in parallel (the kernels release the GIL) with the same bits for any split.

The closed tables at the end map the words of a protocol to functions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Bytes = NDArray[np.uint8]


def kernel(function: F) -> F:
    """Compile on first use and keep the machine code on disk, or only in memory where no folder is writable."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:
        warnings.warn(
            "no writable folder for compiled kernels: every process compiles anew (set NUMBA_CACHE_DIR)",
            RuntimeWarning,
            stacklevel=1,  # the same line for all kernels, so it is said once
        )
        return cast(F, numba.njit(nogil=True)(function))


@kernel
def filter_rows(
    offsets: Ints,
    ego: Floats,
    center: Floats,
    task: NDArray[np.int16],
    limit: Floats,
    in_space: bool,
    num_points: Floats,
    fate: Bytes,
) -> None:
    """Write what becomes of each box: 0 kept, 1 other class, 2 out of range, 3 without points.

    ``limit`` (n_tasks,) is compared with the distance on the ground or in space, strictly; ``num_points`` may be empty.
    """
    for frame in range(len(offsets) - 1):
        x, y = ego[frame, 0], ego[frame, 1]
        for row in range(offsets[frame], offsets[frame + 1]):
            if task[row] < 0:
                fate[row] = 1
                continue
            dx, dy = center[row, 0] - x, center[row, 1] - y
            square = dx * dx + dy * dy
            if in_space:
                square += center[row, 2] * center[row, 2]
            if not math.sqrt(square) < limit[task[row]]:
                fate[row] = 2
            elif len(num_points) and num_points[row] == 0:
                fate[row] = 3
            else:
                fate[row] = 0


@kernel
def inside_regions(
    rows: Ints, frame: Codes, center: Floats, offsets: Ints, origin: Floats, edges: Floats, inside: NDArray[np.bool_]
) -> None:
    """Whether the centre of each row lies in a region of its frame, faces included.

    Regions of frame ``f`` are ``offsets[f]:offsets[f + 1]``; each is a corner ``origin`` (R, 3) and three ``edges``
    (R, 3, 3) from it.
    """
    for i in range(len(rows)):
        row = rows[i]
        for region in range(offsets[frame[i]], offsets[frame[i] + 1]):
            hit = True
            for axis in range(3):
                along, length = 0.0, 0.0
                for xyz in range(3):
                    edge = edges[region, axis, xyz]
                    along += (center[row, xyz] - origin[region, xyz]) * edge
                    length += edge * edge
                if not 0 <= along <= length:
                    hit = False
            if hit:
                inside[i] = True
                break


@kernel
def group(keys: Codes, n_groups: int) -> tuple[Ints, Ints]:
    """Stable counting sort: offsets (n_groups + 1,) and the indices in order; negative keys are left out."""
    offsets = np.zeros(n_groups + 1, np.int64)
    for key in keys:
        if key >= 0:
            offsets[key + 1] += 1
    for g in range(n_groups):
        offsets[g + 1] += offsets[g]
    cursor = offsets[:-1].copy()
    order = np.empty(offsets[-1], np.int64)
    for i in range(len(keys)):
        key = keys[i]
        if key >= 0:
            order[cursor[key]] = i
            cursor[key] += 1
    return offsets, order


@kernel
def pairs_center_xy(
    pred_offsets: Ints,
    pred_rows: Ints,
    pred_center: Floats,
    truth_offsets: Ints,
    truth_rows: Ints,
    truth_center: Floats,
    limit: float,
) -> tuple[Ints, Ints, Floats]:
    """Pairs within a group whose centres are nearer than ``limit`` on the ground.

    Predictions of group ``g`` are ``pred_rows[pred_offsets[g]:pred_offsets[g + 1]]``, from 0; truths likewise.

    Returns
    -------
    offsets (n_pred + 1,), truth row and distance of each pair; truths in the order of their group.
    """
    n_pred = pred_offsets[-1]
    most = 0
    for g in range(len(pred_offsets) - 1):
        most += (pred_offsets[g + 1] - pred_offsets[g]) * (truth_offsets[g + 1] - truth_offsets[g])
    offsets = np.zeros(n_pred + 1, np.int64)
    truth = np.empty(most, np.int64)
    distance = np.empty(most, np.float64)
    far = limit * limit * (1 + 1e-9)  # a cheap test first; the root decides
    n = 0
    for g in range(len(pred_offsets) - 1):
        for p in range(pred_offsets[g], pred_offsets[g + 1]):
            x, y = pred_center[pred_rows[p], 0], pred_center[pred_rows[p], 1]
            for t in range(truth_offsets[g], truth_offsets[g + 1]):
                row = truth_rows[t]
                dx, dy = x - truth_center[row, 0], y - truth_center[row, 1]
                square = dx * dx + dy * dy
                if square < far:
                    d = math.sqrt(square)
                    if d < limit:
                        truth[n] = row
                        distance[n] = d
                        n += 1
            offsets[p + 1] = n
    return offsets, truth[:n], distance[:n]


@kernel
def pairs_center_xyz(
    pred_offsets: Ints,
    pred_rows: Ints,
    pred_center: Floats,
    truth_offsets: Ints,
    truth_rows: Ints,
    truth_center: Floats,
    limit: float,
) -> tuple[Ints, Ints, Floats]:
    """Pairs within a group whose centres are nearer than ``limit`` in space; otherwise as :func:`pairs_center_xy`."""
    n_pred = pred_offsets[-1]
    most = 0
    for g in range(len(pred_offsets) - 1):
        most += (pred_offsets[g + 1] - pred_offsets[g]) * (truth_offsets[g + 1] - truth_offsets[g])
    offsets = np.zeros(n_pred + 1, np.int64)
    truth = np.empty(most, np.int64)
    distance = np.empty(most, np.float64)
    n = 0
    for g in range(len(pred_offsets) - 1):
        for p in range(pred_offsets[g], pred_offsets[g + 1]):
            at = pred_rows[p]
            for t in range(truth_offsets[g], truth_offsets[g + 1]):
                row = truth_rows[t]
                dx, dy = pred_center[at, 0] - truth_center[row, 0], pred_center[at, 1] - truth_center[row, 1]
                dz = pred_center[at, 2] - truth_center[row, 2]
                d = math.sqrt(dx * dx + dy * dy + dz * dz)
                if d < limit:
                    truth[n] = row
                    distance[n] = d
                    n += 1
            offsets[p + 1] = n
    return offsets, truth[:n], distance[:n]


@kernel
def nearest_free(
    offsets: Ints, truth: Ints, distance: Floats, thresholds: Floats, taken: NDArray[np.bool_]
) -> tuple[Ints, Ints, Ints]:
    """Give each prediction, in order, the nearest truth that is free at each threshold; the first wins a tie.

    ``taken`` (n_truth_rows, n_thresholds) is scratch, False at the start.

    Returns
    -------
    prediction (index into ``offsets``), truth row and thresholds (bit t is set where they match at threshold t) of each
    matched pair, in order.
    """
    most = 0
    for p in range(len(offsets) - 1):
        most += min(offsets[p + 1] - offsets[p], len(thresholds))
    pred_out = np.empty(most, np.int64)
    truth_out = np.empty(most, np.int64)
    bits_out = np.empty(most, np.int64)
    n = 0
    for p in range(len(offsets) - 1):
        start, stop = offsets[p], offsets[p + 1]
        if start == stop:
            continue
        first = n
        for t in range(len(thresholds)):
            best, at = thresholds[t], np.int64(-1)
            for c in range(start, stop):
                if distance[c] < best and not taken[truth[c], t]:
                    best, at = distance[c], truth[c]
            if at < 0:
                continue
            taken[at, t] = True
            known = first
            while known < n and truth_out[known] != at:
                known += 1
            if known == n:
                pred_out[n], truth_out[n], bits_out[n] = p, at, 0
                n += 1
            bits_out[known] |= 1 << t
    return pred_out[:n], truth_out[:n], bits_out[:n]


@kernel
def nearest_then_first(
    offsets: Ints, truth: Ints, distance: Floats, thresholds: Floats, taken: NDArray[np.bool_]
) -> tuple[Ints, Ints, Ints]:
    """Let each prediction, in order, claim its nearest truth; only the first claim on a truth can match.

    The nearest of equally near truths is the first. A first claim matches at the thresholds that are above its
    distance; the others, and all later claims on that truth, match nothing. Arguments and results are those of
    :func:`nearest_free`; only the first column of ``taken`` is used.
    """
    n_pred = len(offsets) - 1
    pred_out = np.empty(n_pred, np.int64)
    truth_out = np.empty(n_pred, np.int64)
    bits_out = np.empty(n_pred, np.int64)
    n = 0
    for p in range(n_pred):
        if offsets[p] == offsets[p + 1]:
            continue
        nearest = offsets[p]
        for c in range(offsets[p] + 1, offsets[p + 1]):
            if distance[c] < distance[nearest]:
                nearest = c
        at = truth[nearest]
        if taken[at, 0]:
            continue
        taken[at, 0] = True
        bits = np.int64(0)
        for t in range(len(thresholds)):
            if distance[nearest] < thresholds[t]:
                bits |= 1 << t
        if bits:
            pred_out[n], truth_out[n], bits_out[n] = p, at, bits
            n += 1
    return pred_out[:n], truth_out[:n], bits_out[:n]


@kernel
def translation_xy(pred: Ints, truth: Ints, center_p: Floats, center_t: Floats, period: Floats, out: Floats) -> None:
    """Distance of the centres on the ground, metres."""
    for i in range(len(pred)):
        dx = center_p[pred[i], 0] - center_t[truth[i], 0]
        dy = center_p[pred[i], 1] - center_t[truth[i], 1]
        out[i] = math.sqrt(dx * dx + dy * dy)


@kernel
def translation_xyz(pred: Ints, truth: Ints, center_p: Floats, center_t: Floats, period: Floats, out: Floats) -> None:
    """Distance of the centres in space, metres."""
    for i in range(len(pred)):
        dx = center_p[pred[i], 0] - center_t[truth[i], 0]
        dy = center_p[pred[i], 1] - center_t[truth[i], 1]
        dz = center_p[pred[i], 2] - center_t[truth[i], 2]
        out[i] = math.sqrt(dx * dx + dy * dy + dz * dz)


@kernel
def scale_aligned(pred: Ints, truth: Ints, size_p: Floats, size_t: Floats, period: Floats, out: Floats) -> None:
    """1 - IoU of the two boxes with centre and heading aligned."""
    for i in range(len(pred)):
        both, volume_p, volume_t = 1.0, 1.0, 1.0
        for axis in range(3):
            p, t = size_p[pred[i], axis], size_t[truth[i], axis]
            both *= min(p, t)
            volume_p *= p
            volume_t *= t
        out[i] = 1 - both / (volume_p + volume_t - both)


@kernel
def scale_max(pred: Ints, truth: Ints, size_p: Floats, size_t: Floats, period: Floats, out: Floats) -> None:
    """1 - the product of the smaller sides over that of the larger ones; not an IoU where no box holds the other."""
    for i in range(len(pred)):
        smaller, larger = 1.0, 1.0
        for axis in range(3):
            p, t = size_p[pred[i], axis], size_t[truth[i], axis]
            smaller *= min(p, t)
            larger *= max(p, t)
        out[i] = 1 - smaller / larger


@kernel
def orientation(pred: Ints, truth: Ints, yaw_p: Floats, yaw_t: Floats, period: Floats, out: Floats) -> None:
    """Smallest difference of the headings modulo ``period`` of each pair, radians in [0, π]."""
    for i in range(len(pred)):
        half = period[i] / 2
        difference = (yaw_t[truth[i]] - yaw_p[pred[i]] + half) % period[i] - half
        if difference > math.pi:
            difference -= 2 * math.pi
        out[i] = abs(difference)


@kernel
def velocity_xy(pred: Ints, truth: Ints, velocity_p: Floats, velocity_t: Floats, period: Floats, out: Floats) -> None:
    """Length of the difference of the velocities, m/s; NaN where either is unknown."""
    for i in range(len(pred)):
        dx = velocity_p[pred[i], 0] - velocity_t[truth[i], 0]
        dy = velocity_p[pred[i], 1] - velocity_t[truth[i], 1]
        out[i] = math.sqrt(dx * dx + dy * dy)


@kernel
def attribute(pred: Ints, truth: Ints, attribute_p: Codes, attribute_t: Codes, period: Floats, out: Floats) -> None:
    """1 where the attributes differ, 0 where they agree, NaN where the truth has none (a negative code)."""
    for i in range(len(pred)):
        code = attribute_t[truth[i]]
        out[i] = math.nan if code < 0 else (0.0 if code == attribute_p[pred[i]] else 1.0)


@kernel
def bin_of(values: Floats, edges: Floats, out: NDArray[np.int16], counts: Ints) -> None:
    """Write how many of the ascending ``edges`` are at or below each value, one more than there are for NaN.

    ``counts`` (len(edges) + 2,) is added to.
    """
    for i in range(len(values)):
        value, code = values[i], 0
        while code < len(edges) and edges[code] <= value:
            code += 1
        if math.isnan(value):
            code = len(edges) + 1
        out[i] = code
        counts[code] += 1


@kernel
def distance_to(rows: Ints, center: Floats, frame: Codes, ego: Floats, out: Floats) -> None:
    """Distance on the ground of each row from the position of its frame; ``frame`` is one a row asked for."""
    for i in range(len(rows)):
        dx, dy = center[rows[i], 0] - ego[frame[i], 0], center[rows[i], 1] - ego[frame[i], 1]
        out[i] = math.sqrt(dx * dx + dy * dy)


@kernel
def length_xy(rows: Ints, vector: Floats, out: Floats) -> None:
    """Length of the vector (N, 2) of each row asked for."""
    for i in range(len(rows)):
        x, y = vector[rows[i], 0], vector[rows[i], 1]
        out[i] = math.sqrt(x * x + y * y)


@kernel
def longest_side(rows: Ints, size: Floats, out: Floats) -> None:
    """Largest of length, width and height of each row asked for."""
    for i in range(len(rows)):
        out[i] = max(size[rows[i], 0], size[rows[i], 1], size[rows[i], 2])


@kernel
def only_shard(offsets: Ints, truth: Ints, shard: NDArray[np.int16], out: NDArray[np.int16]) -> None:
    """Write the shard of the truths near each event: -2 without any, -1 where they are of several or of none.

    Truths near event ``e`` are ``truth[offsets[e]:offsets[e + 1]]``; ``shard`` (N_truth,) is -1 for no shard.
    """
    for e in range(len(offsets) - 1):
        found = -2
        for i in range(offsets[e], offsets[e + 1]):
            code = shard[truth[i]]
            if found == -2:
                found = code
            elif found != code:
                found = -1
        out[e] = found


@kernel
def blame(
    offsets: Ints, event: Ints, event_xyz: Floats, truth: Ints, truth_xyz: Floats, reach: Floats, out: Ints
) -> None:
    """Say of each unmatched event what stands in its way, the best score of a frame first.

    Parameters
    ----------
    offsets : int64 (F + 1, 2)
        Events of frame ``f`` are ``offsets[f, 0]:offsets[f + 1, 0]``, by descending score; truths likewise in column 1.
    event, event_xyz : int64 (E, 2), float64 (E, 3)
        Task of each event, and whether it is matched.
    truth, truth_xyz : int64 (G, 3), float64 (G, 3)
        Task of each truth; its state: 0 missed, 1 found, 2 out of range, 3 ignored for another reason; and 1 where an
        event has taken it as partner (written here).
    reach : float64 (3,)
        Threshold, how far localisation errors go, and the weight of the height in distances (0 or 1).
    out : int64 (E, 2)
        Written: cause (0 matched, 1 duplicate, 2 wrong class, 3 localisation, 4 out of range, 5 ignored truth,
        6 background) and the missed truth that was meant, or -1.
    """
    for f in range(len(offsets) - 1):
        for e in range(offsets[f, 0], offsets[f + 1, 0]):
            out[e, 0], out[e, 1] = 0, -1
            if event[e, 1]:
                continue
            is_duplicate, is_out, is_ignored, is_other = False, False, False, False
            own, own_distance, other, other_distance = -1, reach[1], -1, reach[0]
            for g in range(offsets[f, 1], offsets[f + 1, 1]):
                dx, dy = event_xyz[e, 0] - truth_xyz[g, 0], event_xyz[e, 1] - truth_xyz[g, 1]
                dz = (event_xyz[e, 2] - truth_xyz[g, 2]) * reach[2]
                distance = math.sqrt(dx * dx + dy * dy + dz * dz)
                if distance >= reach[1]:
                    continue
                is_own, is_near, is_free = truth[g, 0] == event[e, 0], distance < reach[0], truth[g, 2] == 0
                state = truth[g, 1]
                if is_own and state == 0 and is_free and distance < own_distance:
                    own, own_distance = g, distance
                if not is_own and state == 0 and is_free and distance < other_distance:
                    other, other_distance = g, distance
                if is_near:
                    is_duplicate |= is_own and (state == 1 or (state == 0 and not is_free))
                    is_out |= is_own and state == 2
                    is_ignored |= is_own and state == 3
                    is_other |= not is_own and state < 2
            if is_duplicate:
                out[e, 0] = 1
            elif other >= 0:
                out[e, 0], out[e, 1] = 2, other
            elif own >= 0:
                out[e, 0], out[e, 1] = 3, own
            elif is_out:
                out[e, 0] = 4
            elif is_ignored:
                out[e, 0] = 5
            else:
                out[e, 0] = 2 if is_other else 6
            if out[e, 1] >= 0:
                truth[out[e, 1], 2] = 1


@kernel
def keep_far(center: Floats, label: Ints, radius: Floats, keep: NDArray[np.bool_]) -> None:
    """Write which rows stay: one goes where a row before it that stays, of its label, is nearer than the radius.

    ``center`` (N, 2), the best first; ``radius`` (n_labels,) is that of each label.
    """
    for i in range(len(label)):
        square = radius[label[i]] * radius[label[i]]
        keep[i] = True
        for k in range(i):
            if keep[k] and label[k] == label[i]:
                dx, dy = center[i, 0] - center[k, 0], center[i, 1] - center[k, 1]
                if dx * dx + dy * dy < square:
                    keep[i] = False
                    break


class ErrorRule(NamedTuple):
    """A true-positive error: its kernel, the column of :class:`detmetrics.Boxes` that it compares, its maximum."""

    kernel: Callable[[Ints, Ints, NDArray[Any], NDArray[Any], Floats, Floats], None]
    column: str
    most: float


class AssignRule(NamedTuple):
    """An assignment: its kernel, and whether it must also see pairs beyond the loosest threshold."""

    kernel: Callable[[Ints, Ints, Floats, Floats, NDArray[np.bool_]], tuple[Ints, Ints, Ints]]
    sees_all: bool


#: Whether the distance to ego is taken in space.
RANGE = {"ground": False, "space": True}
AFFINITY = {"center_xy": pairs_center_xy, "center_xyz": pairs_center_xyz}
ASSIGN = {
    "nearest_free": AssignRule(nearest_free, sees_all=False),
    "nearest_then_first": AssignRule(nearest_then_first, sees_all=True),
}
ERROR = {
    "translation_xy": ErrorRule(translation_xy, "center_m", math.inf),
    "translation_xyz": ErrorRule(translation_xyz, "center_m", math.inf),
    "scale_aligned": ErrorRule(scale_aligned, "size_lwh_m", 1.0),
    "scale_max": ErrorRule(scale_max, "size_lwh_m", 1.0),
    "orientation": ErrorRule(orientation, "yaw_rad", math.pi),
    "velocity_xy": ErrorRule(velocity_xy, "velocity_mps", math.inf),
    "attribute": ErrorRule(attribute, "attribute", 1.0),
}
