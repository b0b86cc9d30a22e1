"""The town of one scene: a grid of streets with kerbs, and what stands there for good.

Everything is in the town's own axes, metres, with the slope of the ground taken out of z. Each scene has its own town.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detmetrics.synth.categories import Floats
from detmetrics.synth.shapes import BOX, CYLINDER, ELLIPSOID, MATERIAL, X, Y, Z

LANE_M = 3.5
PARKING_M = 2.4
VIEW_M = 115.0


class Style(NamedTuple):
    """What a district is like; densities are factors on the mean of nuScenes."""

    name: str
    share: float
    lanes: int
    parking: bool
    block_m: tuple[float, float]
    pavement_m: float
    setback_m: tuple[float, float]
    height_m: tuple[float, float]
    house_m: tuple[float, float]
    gap: float
    park: float
    tree_m: float
    speed_mps: tuple[float, float]
    vehicles: float
    people: float
    works: float


STYLES = (
    Style("city", 0.40, 2, False, (80, 130), 4.0, (0, 3), (8, 28), (10, 30), 0.3, 0.25, 15, (4, 11), 1.0, 0.9, 1.1),
    Style("dense", 0.25, 1, True, (70, 110), 4.5, (0, 1), (12, 45), (12, 35), 0.1, 0.12, 14, (0, 7), 1.5, 1.9, 1.3),
    Style("residential", 0.23, 1, True, (80, 120), 2.5, (3, 7), (5, 9), (8, 14), 0.6, 0.2, 11, (3, 9), 0.9, 0.5, 0.6),
    Style("highway", 0.12, 3, False, (250, 400), 5.0, (8, 25), (5, 18), (15, 50), 0.8, 0.7, 20, (12, 22), 0.9, 0.04, 1),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Town:
    """Streets, ground, and what stands.

    Attributes
    ----------
    streets : float64 (S, 5)
        The axis a street is measured on (0: it runs along y), from, to, width of its parking strips, and the depth of
        the pavements.
    ground : float64 (13,)
        See :func:`detmetrics.synth.rays.unevenness`.
    slope : float64 (2,)
        Rise of the plane under everything, along x and y.
    solids : float64 (P, 12)
        See :mod:`detmetrics.synth.shapes`.
    standing : float64 (W, 5)
        What no footprint may touch, upright boxes on the ground: x, y, length along x, along y, whether it is a wall.
    area : float64 (4,)
        From x to x, from y to y.
    """

    style: Style
    streets: Floats
    ground: Floats
    slope: Floats
    solids: Floats
    standing: Floats
    area: Floats

    def middle_m(self, street: int) -> float:
        """Where the middle of a street is, on its axis."""
        return float(self.streets[street, 1:3].mean())

    def half_m(self, street: int) -> float:
        """Half of a street's width."""
        return float(self.streets[street, 2] - self.streets[street, 1]) / 2

    def running(self, axis: int) -> list[int]:
        """Streets measured on an axis, ascending."""
        return np.flatnonzero(self.streets[:, 0] == axis).tolist()

    def n_lanes(self, street: int) -> int:
        """How many lanes lead each way."""
        return int((self.half_m(street) - 0.6) / LANE_M)

    def is_road(self, x: Floats, y: Floats) -> NDArray[np.bool_]:
        """Whether places are in a street."""
        at = np.where(self.streets[:, 0] == 0, np.asarray(x)[..., None], np.asarray(y)[..., None])
        inside = (at >= self.streets[:, 1]) & (at <= self.streets[:, 2])
        return np.asarray(inside.any(axis=-1))

    def level_m(self, x: Floats, y: Floats) -> Floats:
        """Height of the ground, kerbs included, over the sloping plane."""
        waves = self.ground[:12].reshape(3, 4)
        phase = np.asarray(x)[..., None] * waves[:, 1] + np.asarray(y)[..., None] * waves[:, 2] + waves[:, 3]
        level: Floats = (waves[:, 0] * np.sin(phase)).sum(axis=-1) + np.where(self.is_road(x, y), 0, self.ground[12])
        return level


def make_town(rng: np.random.Generator, style: Style, ahead_m: float, turn: int, crossing_m: float) -> Town:
    """Draw a town around a drive along x from the origin, over ``ahead_m``; a street crosses at ``crossing_m``.

    The drive may ``turn`` off there: 1 left, -1 right.
    """
    area = np.array([-VIEW_M, ahead_m + VIEW_M, -VIEW_M, VIEW_M])
    if turn:
        area[2 if turn < 0 else 3] += turn * ahead_m
    slope = rng.normal(0, 0.012, 2)
    waves = [
        (
            rng.uniform(high / 4, high),
            *(2 * np.pi / rng.uniform(*wavelength) * np.array(_direction(rng))),
            rng.uniform(0, 6.3),
        )
        for high, wavelength in ((0.10, (50, 90)), (0.05, (25, 45)), (0.012, (6, 11)))
    ]
    ground = np.array([*np.ravel(waves), rng.uniform(0.11, 0.17)])
    streets = _streets(rng, style, area, crossing_m)
    town = Town(style, streets, ground, slope, np.empty((0, 12)), np.empty((0, 5)), area)
    rows, standing = _furnish(rng, town)
    return Town(style, streets, ground, slope, rows, standing, area)


def _direction(rng: np.random.Generator) -> tuple[float, float]:
    angle = rng.uniform(0, np.pi)
    return float(np.cos(angle)), float(np.sin(angle))


def _streets(rng: np.random.Generator, style: Style, area: Floats, crossing_m: float) -> Floats:
    """Streets along x (the first is the ego vehicle's, its middle at y = 0) and along y."""
    rows = []
    for axis in (1, 0):
        at, low, high = (0.0, area[2], area[3]) if axis == 1 else (crossing_m, area[0], area[1])
        places = [at]
        while (at := places[-1] + rng.uniform(*style.block_m)) < high:
            places.append(at)
        while (at := places[0] - rng.uniform(*style.block_m)) > low:
            places.insert(0, at)
        for place in places:
            is_main = axis == 1 and place == 0.0
            lanes = style.lanes if is_main else min(style.lanes, int(rng.integers(1, 3)))
            strip = PARKING_M if style.parking or (not is_main and rng.random() < 0.6) else 0.0
            half = lanes * LANE_M + max(strip, 0.6 if lanes > 1 else 2.4)
            rows.append((axis, place - half, place + half, strip, style.pavement_m))
    rows.sort(key=lambda row: (row[0] != 1 or row[1] != -row[2], row[0], row[1]))  # the main street first
    return np.array(rows, dtype=np.float64)


class _Furniture:
    """Solids and footprints, gathered."""

    def __init__(self, rng: np.random.Generator, town: Town) -> None:
        self.rng, self.town = rng, town
        self.rows: list[tuple[float, ...]] = []
        self.standing: list[tuple[float, float, float, float, float]] = []

    def add(
        self,
        form: int,
        at: tuple[float, float, float],
        half: tuple[float, ...],
        material: str,
        *,
        foot: bool = True,
        tone: float = 1.0,
    ) -> None:
        """Put a solid; ``at`` z is the height of its foot over the ground."""
        self.rows.append((form, at[0], at[1], at[2] + half[2], 1.0, 0.0, *half, MATERIAL[material], -1, tone))
        if foot:
            self.standing.append((at[0], at[1], 2 * half[0], 2 * half[1], float(material in ("wall", "concrete"))))

    def solids(self) -> Floats:
        """Everything put, on the ground."""
        rows = np.array(self.rows, dtype=np.float64)
        rows[:, Z] += self.town.level_m(rows[:, X], rows[:, Y])
        return rows

    def tree(self, x: float, y: float) -> None:
        """A trunk and a crown of two or three balls."""
        rng = self.rng
        trunk, radius = rng.uniform(1.8, 3.6), rng.uniform(0.09, 0.24)
        self.add(CYLINDER, (x, y, -0.2), (radius, radius, trunk / 2 + 0.5), "wood")
        size = rng.uniform(1.2, 3.0)
        for _ in range(int(rng.integers(2, 5))):
            dx, dy, dz = rng.normal(0, 0.35 * size, 3)
            half = size * rng.uniform(0.55, 1.0, 3) * (1, 1, 0.8)
            self.add(ELLIPSOID, (x + dx, y + dy, trunk - 0.3 + abs(dz)), tuple(half), "leaf", foot=False)

    def bush(self, x: float, y: float) -> None:
        """A ball of leaves on the ground."""
        half = self.rng.uniform((0.4, 0.4, 0.35), (1.3, 1.3, 1.0))
        self.add(ELLIPSOID, (x, y, -0.3 * half[2]), (half[0], half[1], half[2]), "hedge")

    def pole(self, x: float, y: float) -> None:
        """A street lamp, a sign, or a traffic light."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.55:
            self.add(CYLINDER, (x, y, -0.1), (0.09, 0.09, 3.6), "metal")
        else:
            high = rng.uniform(2.2, 3.2)
            self.add(CYLINDER, (x, y, -0.1), (0.04, 0.04, high / 2), "metal")
            wide, thin = (0.03, rng.uniform(0.25, 0.45)) if rng.random() < 0.5 else (rng.uniform(0.25, 0.45), 0.03)
            self.add(BOX, (x, y, high - 0.3), (wide, thin, 0.3), "retro" if kind < 0.85 else "paint", foot=False)


def _furnish(rng: np.random.Generator, town: Town) -> tuple[Floats, Floats]:
    """Fill the blocks between the streets."""
    furniture = _Furniture(rng, town)
    spans = []
    for axis in (0, 1):
        edges = town.streets[town.streets[:, 0] == axis][:, 1:3]
        edges = edges[np.argsort(edges[:, 0])]
        low, high = town.area[2 * axis], town.area[2 * axis + 1]
        cuts = [low - 20, *edges.ravel().tolist(), high + 20]
        spans.append([(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=True) if b - a > 12])
    for x0, x1 in spans[0]:
        for y0, y1 in spans[1]:
            _fill_block(furniture, x0, x1, y0, y1)
    return furniture.solids(), np.array(furniture.standing)


def _fill_block(furniture: _Furniture, x0: float, x1: float, y0: float, y1: float) -> None:
    """Line a block with kerbside things, and its inside with houses or a park."""
    rng, style = furniture.rng, furniture.town.style
    pavement = style.pavement_m
    is_park = rng.random() < style.park
    sides = (("x", y0, 1), ("x", y1, -1), ("y", x0, 1), ("y", x1, -1))
    for axis, edge, inward in sides:
        start, stop = (x0, x1) if axis == "x" else (y0, y1)
        at = start + 3 + rng.uniform(0, style.tree_m)
        while at < stop - 3:
            place = edge + inward * rng.uniform(0.7, 1.0)
            x, y = (at, place) if axis == "x" else (place, at)
            what = rng.random()
            if what < 0.40:
                furniture.tree(x, y)
            elif what < 0.75:
                furniture.pole(x, y)
            elif what < 0.85:  # a hydrant, a box, a bin
                half = rng.uniform((0.15, 0.15, 0.3), (0.35, 0.35, 0.75))
                furniture.add(BOX, (x, y, 0), tuple(half), "metal")
            at += style.tree_m * rng.uniform(0.4, 1.4)
    if is_park:
        _fill_park(furniture, x0 + pavement, x1 - pavement, y0 + pavement, y1 - pavement)
        return
    for axis, edge, inward in sides:
        start, stop = (x0, x1) if axis == "x" else (y0, y1)
        setback = pavement + rng.uniform(*style.setback_m)
        depth = min(rng.uniform(8, 13), ((y1 - y0) if axis == "x" else (x1 - x0)) / 2 - setback - 0.5)
        if depth < 2:
            continue
        reserve = setback + (0.0 if axis == "x" else depth + 1.0)  # corners belong to the fronts along x
        at = start + reserve
        while at < stop - reserve - 5:
            width = min(rng.uniform(*style.house_m), stop - reserve - at)
            back = rng.uniform(0, 1.2)
            _house(furniture, axis, (at, at + width), edge + inward * (setback + back), inward, depth - back)
            at += width
            if rng.random() < style.gap:
                gap = rng.uniform(2, 9)
                _gap(furniture, axis, (at, min(at + gap, stop - reserve)), edge + inward * setback)
                at += gap
        if setback - pavement > 2:  # front gardens
            _garden(furniture, axis, (start + reserve, stop - reserve), edge + inward * (pavement + 0.4), inward)


def _house(
    furniture: _Furniture, axis: str, span: tuple[float, float], front: float, inward: int, depth: float
) -> None:
    """A box with a few bays, porches and ledges on its front."""
    rng = furniture.rng
    height, tone = rng.uniform(*furniture.town.style.height_m), rng.uniform(0.35, 1.6)
    middle, half = (span[0] + span[1]) / 2, (span[1] - span[0]) / 2

    def put(along: float, wide: float, out: float, deep: float, foot_m: float, high: float, material: str) -> None:
        across = front + inward * (deep / 2 - out)
        at, size = ((along, across), (wide, deep / 2)) if axis == "x" else ((across, along), (deep / 2, wide))
        furniture.add(BOX, (*at, foot_m), (*size, high / 2), material, foot=foot_m < 2, tone=tone)

    put(middle, half, 0.0, depth, -0.6, height + 0.6, "wall")
    along = span[0] + rng.uniform(0.5, 3)
    while along < span[1] - 1:
        kind = rng.random()
        if kind < 0.35:
            put(along, rng.uniform(0.15, 0.9), rng.uniform(0.1, 0.8), 1.0, -0.6, height, "wall")  # a pillar or a bay
        elif kind < 0.55:
            put(along, rng.uniform(0.5, 1.4), rng.uniform(0.4, 1.0), 1.2, 2.6, rng.uniform(0.2, 1.2), "metal")  # awning
        elif kind < 0.8:
            put(along, rng.uniform(0.6, 1.2), 0.03, 0.3, 0.4, 2.0, "glass")
        along += rng.uniform(2, 5)


def _gap(furniture: _Furniture, axis: str, span: tuple[float, float], front: float) -> None:
    """What closes the gap between two houses: a fence, a hedge, a wall, or nothing."""
    half = (span[1] - span[0]) / 2 - 0.1
    kind = furniture.rng.random()
    if half < 0.5 or kind < 0.3:
        return
    material, thick, high = (
        ("wire", 0.03, 1.8) if kind < 0.55 else ("hedge", 0.35, 1.4) if kind < 0.8 else ("concrete", 0.1, 1.9)
    )
    middle = (span[0] + span[1]) / 2
    at, size = ((middle, front), (half, thick)) if axis == "x" else ((front, middle), (thick, half))
    furniture.add(BOX, (*at, -0.1), (*size, high / 2), material)


def _garden(furniture: _Furniture, axis: str, span: tuple[float, float], front: float, inward: int) -> None:
    rng = furniture.rng
    at = span[0]
    while at < span[1] - 2:
        stop = min(at + rng.uniform(5, 14), span[1])
        if rng.random() < 0.6:
            _gap(furniture, axis, (at, stop), front)
        for _ in range(int(rng.integers(0, 3))):
            along, across = rng.uniform(at, stop), front + inward * rng.uniform(1.0, 1.8)
            furniture.bush(*((along, across) if axis == "x" else (across, along)))
        at = stop + rng.uniform(1, 4)


def _fill_park(furniture: _Furniture, x0: float, x1: float, y0: float, y1: float) -> None:
    rng = furniture.rng
    if min(x1 - x0, y1 - y0) < 6:
        return
    number = (x1 - x0) * (y1 - y0)
    for _ in range(min(int(number / 90), 60)):
        x, y = rng.uniform((x0 + 2, y0 + 2), (x1 - 2, y1 - 2))
        furniture.tree(x, y) if rng.random() < 0.55 else furniture.bush(x, y)
    for axis, front, span in (("x", y0, (x0, x1)), ("x", y1, (x0, x1)), ("y", x0, (y0, y1)), ("y", x1, (y0, y1))):
        if rng.random() < 0.35:
            at = span[0]
            while at < span[1] - 4:
                _gap(furniture, axis, (at, min(at + 12, span[1])), front)
                at += rng.uniform(12, 16)
