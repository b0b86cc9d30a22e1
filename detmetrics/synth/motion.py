"""How things move: streams of traffic that share their speed, and ways with at most one bend."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from detmetrics.synth.categories import AT_REST, ATTRIBUTE_OF_STATE, FAMILY_OF_KIND, Floats, Ints
from detmetrics.synth.shapes import RIDDEN

STEP_S = 0.05  # of the times of a flow


@dataclass(frozen=True, eq=False)
class Flows:
    """How far each stream of traffic has come at each time: ``travelled_m`` (F, T); the first moves 1 m in a second."""

    time_s: Floats
    travelled_m: Floats

    def at(self, time_s: Floats) -> Floats:
        """Distances (F, S) at times (S,)."""
        return np.stack([np.interp(time_s, self.time_s, row) for row in self.travelled_m])


@dataclass(frozen=True, eq=False)
class Movers:
    """Things as columns (N,): where each is after ``scale`` × its flow's distance on a way with at most one bend."""

    kind: Ints
    x: Floats
    y: Floats
    yaw_rad: Floats
    bend_at_m: Floats
    bend_rad: Floats
    radius_m: Floats
    flow: Ints
    scale: Floats
    state: Ints
    group: Ints
    size_lwh_m: Floats
    tone: Floats

    def take(self, rows: Ints) -> Movers:
        """Give some rows."""
        return Movers(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    def poses(self, flows: Flows, time_s: Floats) -> Floats:
        """x, y, heading (N, S, 3) at times (S,)."""
        along = self.scale[:, None] * flows.at(time_s)[self.flow]
        bend_at, radius, bend = self.bend_at_m[:, None], self.radius_m[:, None], self.bend_rad[:, None]
        angle = np.clip((along - bend_at) / radius, 0, np.abs(bend))
        rest = np.maximum(along - bend_at - radius * np.abs(bend), 0)
        ahead = np.minimum(along, bend_at) + radius * np.sin(angle) + rest * np.cos(angle)
        aside = np.sign(bend) * (radius * (1 - np.cos(angle)) + rest * np.sin(angle))
        cos, sin = np.cos(self.yaw_rad)[:, None], np.sin(self.yaw_rad)[:, None]
        x = self.x[:, None] + cos * ahead - sin * aside
        y = self.y[:, None] + sin * ahead + cos * aside
        return np.stack([x, y, self.yaw_rad[:, None] + np.sign(bend) * angle], axis=-1)

    def shapes(self) -> Ints:
        """Row of each in :data:`detmetrics.synth.shapes.PARTS`."""
        return np.where((FAMILY_OF_KIND[self.kind] == "cycle") & (self.state != AT_REST), RIDDEN, self.kind)

    def attributes(self) -> Ints:
        """Attribute codes, -1 for none."""
        codes: Ints = ATTRIBUTE_OF_STATE[self.kind, self.state]
        return codes


@dataclass(frozen=True)
class EgoWay:
    """How the ego vehicle drives: its lane's y, its turn (1 left, -1 right, 0 none), a bend's beginning and radius."""

    lane_y: float
    turn: int
    bend_at_m: float
    radius_m: float


def draw_flow(rng: np.random.Generator, time_s: Floats, speed_mps: tuple[float, float]) -> Floats:
    """Distance travelled (T,), zero at time 0: a speed that changes softly, with a stop now and then."""
    knot_s = np.arange(time_s[0], time_s[-1] + 4, 4.0)
    cruise = rng.uniform(*speed_mps)
    speed = cruise * np.clip(rng.normal(0.95, 0.22, len(knot_s)), 0.3, 1.3)
    if rng.random() < 0.3 and speed_mps[0] < 10:
        first = int(rng.integers(0, len(knot_s)))
        speed[first : first + int(rng.integers(1, 4))] = 0
    speed = np.interp(time_s, knot_s, speed)
    kernel = np.hanning(41) / np.hanning(41).sum()  # over two seconds: nobody stops at once
    speed = np.convolve(np.pad(speed, 20, mode="edge"), kernel, mode="valid")
    travelled = np.cumsum(speed) * STEP_S
    return travelled - np.interp(0.0, time_s, travelled)


def slowed(time_s: Floats, flow_m: Floats, bend_at_m: float, bend_m: float, radius_m: float) -> Floats:
    """Distance travelled (T,), zero at time 0, of one that brakes for a bend and then drives on as before."""
    speed = np.diff(flow_m, prepend=flow_m[0]) / STEP_S
    speed[0] = speed[1]
    in_bend = 2.5 * radius_m  # square of the speed at which the turn is felt as 2.5 m/s²

    def drive(start_m: float) -> Floats:
        at, rows = start_m, []
        for wanted in speed.tolist():
            rows.append(at)
            away = max(bend_at_m - at, at - bend_at_m - bend_m, 0.0)
            at += min(wanted, (in_bend + 3.0 * away) ** 0.5) * STEP_S
        return np.array(rows)

    start = float(flow_m[0])
    for _ in range(3):  # start later or earlier, so that it is at its place at time 0
        travelled = drive(start)
        start -= float(np.interp(0.0, time_s, travelled))
    return drive(start)
