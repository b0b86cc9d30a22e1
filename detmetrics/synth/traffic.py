"""The traffic of one scene: the ego vehicle's way, and what moves or was left there, nothing in another's way."""

from __future__ import annotations

import numpy as np

from detmetrics.synth.categories import (
    AT_REST,
    BARRIER,
    BICYCLE,
    CODE,
    DENSITY_OF_KIND,
    FAMILY_OF_KIND,
    KINDS,
    MOVING,
    MOVING_OF_KIND,
    RACK,
    SIZE_OF_KIND,
    WAITING,
    Floats,
    Ints,
)
from detmetrics.synth.motion import EgoWay, Flows, Movers, draw_flow, slowed
from detmetrics.synth.room import without_overlap
from detmetrics.synth.town import LANE_M, Town

_CONE = CODE["movable_object.trafficcone"]
_WORKER, _DIGGER = CODE["human.pedestrian.construction_worker"], CODE["vehicle.construction"]
_VEHICLES = np.flatnonzero(FAMILY_OF_KIND == "vehicle")
_PEOPLE = np.flatnonzero((FAMILY_OF_KIND == "pedestrian") & (np.arange(len(KINDS)) != _WORKER))
_CYCLES = np.flatnonzero(FAMILY_OF_KIND == "cycle")
_THINGS = np.array([CODE[n] for n in ("animal", "movable_object.pushable_pullable", "movable_object.debris")])


class _Draft:
    """Things proposed, row by row."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.rows: list[tuple[float, ...]] = []
        self.n_groups = 0

    def group(self) -> int:
        """Start a group: things that stay or are left out together, as far as there is room."""
        self.n_groups += 1
        return self.n_groups

    def add(
        self,
        kind: int,
        xy: tuple[float, float],
        yaw: float,
        state: int,
        group: int,
        flow: int = 0,
        scale: float = 0.0,
        bend: tuple[float, float, float] = (np.inf, 0.0, 1.0),
    ) -> None:
        """Propose one thing."""
        self.rows.append((kind, *xy, yaw, *bend, flow, scale, state, group))

    def movers(self) -> Movers:
        """Everything proposed, with sizes and colours."""
        table = np.array(self.rows, dtype=np.float64).reshape(-1, 11)
        kind = table[:, 0].astype(np.int64)
        n = len(kind)
        people = np.where(FAMILY_OF_KIND[kind] == "pedestrian", 1.4, 1.0)[:, None]
        size = SIZE_OF_KIND[kind] * np.exp(np.clip(self.rng.normal(0, 0.08, (n, 3)), -0.2, 0.2) * people)
        columns = [table[:, k] for k in range(1, 7)]
        x, y, yaw, bend_at, bend, radius = columns
        flow, state, group = (table[:, k].astype(np.int64) for k in (7, 9, 10))
        tone = np.exp(self.rng.normal(-0.2, 0.6, n))
        size = np.round(size, 3)
        return Movers(kind, x, y, yaw, bend_at, bend, radius, flow, table[:, 8], state, group, size, tone)


def lane(town: Town, street: int, way: int, number: int, left: bool) -> tuple[float, float]:
    """Across-street place of a lane's middle and its heading; ``way`` is 1 along the street's axis, -1 against it."""
    side = -1 if left else 1
    offset = side * way * (number + 0.5) * LANE_M
    if town.streets[street, 0] == 1:  # along x, the right side is at smaller y
        return town.middle_m(street) - offset, 0.0 if way > 0 else np.pi
    return town.middle_m(street) + offset, np.pi / 2 if way > 0 else -np.pi / 2


def _spot(town: Town, street: int, along: float, across: float) -> tuple[float, float]:
    return (along, across) if town.streets[street, 0] == 1 else (across, along)


def fill(
    rng: np.random.Generator, town: Town, ego: EgoWay, flow_m: Floats, time_s: Floats, left: bool
) -> tuple[Movers, Flows]:
    """Draw the traffic around a drive.

    Parameters
    ----------
    rng : numpy.random.Generator
    town : Town
    ego : EgoWay
    flow_m : float64 (T,)
        Distance that the ego vehicle, and its lane with it, has come at ``time_s`` (T,), in steps of ``STEP_S``.
    time_s : float64 (T,)
    left : bool
        Whether traffic keeps left.

    Returns
    -------
    movers : Movers
        The first is the ego vehicle. Footprints overlap at no quarter of a second from 0 on, bicycles in racks apart.
    flows : Flows
    """
    draft, travelled = _Draft(rng), [time_s, flow_m]
    bend = (ego.bend_at_m, ego.turn * np.pi / 2, ego.radius_m) if ego.turn else (np.inf, 0.0, 1.0)
    draft.add(CODE["vehicle.car"], (0.0, ego.lane_y), 0.0, MOVING, draft.group(), 1, 1.0, bend)
    _lanes(draft, town, ego, travelled, time_s, left)
    _kerbsides(draft, town, left)
    _works(draft, town)
    _pavements(draft, town, time_s[-1])
    _racks(draft, town)
    movers, flows = draft.movers(), Flows(time_s, np.stack(travelled))
    movers = movers.take(_thin(rng, movers, flows, town))
    return movers.take(without_overlap(movers, flows, town)), flows


def _lanes(draft: _Draft, town: Town, ego: EgoWay, travelled: list[Floats], time_s: Floats, left: bool) -> None:
    """Vehicles and cycles in the lanes: streams, queues before crossings, and a few that turn off."""
    rng, style = draft.rng, town.style
    weights = _chances(_VEHICLES, MOVING_OF_KIND, 0.8)
    for street, row in enumerate(town.streets):
        axis = int(row[0])
        low, high = town.area[:2] if axis == 1 else town.area[2:]
        crossings = town.streets[town.streets[:, 0] != axis]
        for way in (1, -1):
            for number in range(town.n_lanes(street)):
                across, yaw = lane(town, street, way, number, left)
                is_egos = street == 0 and way == 1 and abs(across - ego.lane_y) < 1
                waits = not is_egos and rng.random() < (0.15 if street == 0 else 0.5) and style.name != "highway"
                if waits:  # a queue before each crossing
                    for crossing in crossings:
                        line = crossing[1] - 5.0 if way > 0 else crossing[2] + 5.0
                        group, at = draft.group(), line - way * rng.uniform(1, 3)
                        for _ in range(int(rng.integers(0, 7))):
                            kind = int(rng.choice(_VEHICLES, p=weights))
                            length = SIZE_OF_KIND[kind, 0]
                            spot = _spot(town, street, at - way * length / 2, across + rng.normal(0, 0.12))
                            draft.add(kind, spot, yaw + rng.normal(0, 0.015), WAITING, group)
                            at -= way * (length + rng.uniform(1.0, 3.0))
                    continue
                flow = 1
                if not is_egos:
                    flow = len(travelled)
                    travelled.append(draw_flow(rng, time_s, style.speed_mps))
                end = travelled[flow][-1]
                speed = (end - travelled[flow][0]) / (time_s[-1] - time_s[0])
                at = (low - end if way > 0 else low) - 5
                while at < (high if way > 0 else high + end):
                    kind = int(rng.choice(_VEHICLES, p=weights))
                    at += SIZE_OF_KIND[kind, 0] / 2 + 1.5 + speed * rng.gamma(2.0, 0.9) + rng.exponential(5.0)
                    bend, own = (np.inf, 0.0, 1.0), flow
                    if rng.random() < 0.08 and len(crossings):
                        bend = _bend(rng, crossings, at, way, left)
                        if bend[0] < end:
                            own = len(travelled)
                            length = bend[2] * np.pi / 2
                            travelled.append(slowed(time_s, travelled[flow], bend[0], length, bend[2]))
                    spot = _spot(town, street, at, across + rng.normal(0, 0.12))
                    draft.add(kind, spot, yaw, MOVING, draft.group(), own, 1.0, bend)
                    at += SIZE_OF_KIND[kind, 0] / 2
        for _ in range(6):  # cycles near the edge
            way = int(rng.choice([-1, 1]))
            edge = town.half_m(street) - max(row[3], 0.3) - 0.5
            side = -1 if left else 1
            across = town.middle_m(street) + side * way * edge * (1 if axis == 0 else -1)
            yaw = (0.0 if axis == 1 else np.pi / 2) + (np.pi if way < 0 else 0.0)
            kind = int(rng.choice(_CYCLES))
            spot = _spot(town, street, rng.uniform(low, high), across)
            draft.add(kind, spot, yaw, MOVING, draft.group(), 0, rng.uniform(2.5, 7.0))


def _chances(kinds: Ints, share: Floats, power: float) -> Floats:
    """Chance of each kind to be proposed: rare ones more often than they are, as most proposals are thinned out."""
    weights = (DENSITY_OF_KIND * share)[kinds] ** power
    chances: Floats = weights / weights.sum()
    return chances


def _bend(rng: np.random.Generator, crossings: Floats, at: float, way: int, left: bool) -> tuple[float, float, float]:
    """Where a vehicle turns off to its near side, how far round, and how tightly."""
    crossing = crossings[int(rng.integers(len(crossings)))]
    side = -1 if left else 1
    radius = 6.5
    start = crossing[1:3].mean() - way * (0.5 * LANE_M + radius) - at
    return (float(way * start), -side * np.pi / 2, radius) if way * start > 0 else (np.inf, 0.0, 1.0)


def _kerbsides(draft: _Draft, town: Town, left: bool) -> None:
    """Rows of parked vehicles in the parking strips, and single ones at other edges."""
    rng = draft.rng
    weights = _chances(_VEHICLES, 1 - MOVING_OF_KIND, 0.8)
    for street, row in enumerate(town.streets):
        axis = int(row[0])
        low, high = town.area[:2] if axis == 1 else town.area[2:]
        has_strip = row[3] > 0
        others = town.streets[town.streets[:, 0] != axis]
        for side in (-1, 1):
            at = low + rng.uniform(0, 10)
            across = town.middle_m(street) + side * (town.half_m(street) - (row[3] / 2 if has_strip else -1.6))
            # drivers park as they drive: on the right side of a street along x, at smaller y, they face +x
            forward = (side < 0) == (axis == 1)
            yaw = (0.0 if axis == 1 else np.pi / 2) + (0.0 if forward != left else np.pi)
            while at < high:
                group = draft.group()
                for _ in range(int(rng.integers(1, 7 if has_strip else 2))):
                    kind = int(rng.choice(_VEHICLES, p=weights))
                    length = SIZE_OF_KIND[kind, 0]
                    at += length / 2
                    clear = np.maximum(others[:, 1] - at, at - others[:, 2]).min(initial=99) > 6.5 + length / 2
                    if clear:
                        turned = np.pi if rng.random() < 0.06 else 0.0
                        spot = _spot(town, street, at, across + rng.normal(0, 0.1))
                        draft.add(kind, spot, yaw + turned + rng.normal(0, 0.025), AT_REST, group)
                    at += length / 2 + rng.uniform(0.7, 2.2)
                at += rng.uniform(3, 22) if has_strip else rng.uniform(15, 60)


def _works(draft: _Draft, town: Town) -> None:
    """Road works: lines of barriers or cones along an edge, with workers, sometimes a machine."""
    rng = draft.rng
    for street, row in enumerate(town.streets):
        axis = int(row[0])
        low, high = town.area[:2] if axis == 1 else town.area[2:]
        street_yaw = 0.0 if axis == 1 else np.pi / 2
        for _ in range(max(2, int((high - low) / 30))):
            side, at = rng.choice([-1, 1]), rng.uniform(low, high)
            is_barrier = rng.random() < 0.5
            kind, gap = (BARRIER, 2.75) if is_barrier else (_CONE, rng.uniform(1.8, 4))
            edge = town.half_m(street) - 0.45 if rng.random() < 0.6 else town.half_m(street) + rng.uniform(0.4, 2.0)
            n, group = 2 + int(rng.poisson(8 if is_barrier else 4)), draft.group()
            for number in range(n):
                jitter = rng.normal(0, 0.05, 2)
                spot = _spot(
                    town, street, at + number * gap + jitter[0], town.middle_m(street) + side * edge + jitter[1]
                )
                draft.add(kind, spot, street_yaw + np.pi / 2 + rng.normal(0, 0.04), AT_REST, group)
            inner = town.middle_m(street) + side * (town.half_m(street) + 1.4)
            for _ in range(int(rng.poisson(0.8))):
                spot = _spot(town, street, at + rng.uniform(0, n * gap), inner + rng.uniform(0, 1))
                draft.add(_WORKER, spot, rng.uniform(-np.pi, np.pi), AT_REST, draft.group())
            if rng.random() < 0.3:
                spot = _spot(town, street, at + rng.uniform(0, n * gap), inner + 1.2)
                draft.add(_DIGGER, spot, street_yaw + rng.normal(0, 0.15), AT_REST, draft.group())


def _pavements(draft: _Draft, town: Town, end_s: float) -> None:
    """People who walk, stand and cross, alone and in groups; parked cycles, carts, things that were left."""
    rng = draft.rng
    weights = _chances(_PEOPLE, np.ones(len(KINDS)), 0.5)
    for street, row in enumerate(town.streets):
        axis = int(row[0])
        low, high = town.area[:2] if axis == 1 else town.area[2:]
        others = town.streets[town.streets[:, 0] != axis]
        street_yaw = 0.0 if axis == 1 else np.pi / 2
        for _ in range(int((high - low) / 6)):
            side, at, group = rng.choice([-1, 1]), rng.uniform(low, high), draft.group()
            depth = rng.uniform(0.6, row[4] - 0.5)
            across = town.middle_m(street) + side * (town.half_m(street) + depth)
            what = rng.random()
            if what < 0.72:
                crosses = what < 0.08 and len(others)
                walks = crosses or what < 0.47
                speed = max(rng.normal(1.3, 0.25), 0.4) if walks else 0.0
                yaw = street_yaw + (0 if rng.random() < 0.5 else np.pi)
                if crosses:
                    other = others[int(rng.integers(len(others)))]
                    at = other[1] - 2.5 if rng.random() < 0.5 else other[2] + 2.5
                    # heads across the street, and is in its middle at some time of the scene
                    yaw = street_yaw + np.pi / 2
                    across = town.middle_m(street) - speed * rng.uniform(0, end_s) * (1 if axis == 1 else -1)
                for _ in range(1 + int(rng.poisson(1.2))):
                    kind = int(rng.choice(_PEOPLE, p=weights))
                    spot = _spot(town, street, at + rng.normal(0, 0.9), across + rng.normal(0, 0.45))
                    turn = rng.normal(0, 0.06) if walks else rng.uniform(-np.pi, np.pi)
                    state = MOVING if walks else (WAITING if rng.random() < 0.12 else AT_REST)
                    draft.add(kind, spot, yaw + turn, state, group, 0, speed)
            elif what < 0.86:
                kind = int(rng.choice(_CYCLES))
                for number in range(1 + int(rng.poisson(0.5))):
                    spot = _spot(town, street, at + 0.9 * number, across)
                    draft.add(kind, spot, street_yaw + np.pi / 2 + rng.normal(0, 0.3), AT_REST, group)
            else:
                kind = int(rng.choice(_THINGS, p=_chances(_THINGS, np.ones(len(KINDS)), 0.6)))
                draft.add(kind, _spot(town, street, at, across), rng.uniform(-np.pi, np.pi), AT_REST, group)


def _racks(draft: _Draft, town: Town) -> None:
    """Bicycle racks on the pavement, with bicycles in them."""
    rng = draft.rng
    for street, row in enumerate(town.streets):
        axis = int(row[0])
        low, high = town.area[:2] if axis == 1 else town.area[2:]
        yaw = 0.0 if axis == 1 else np.pi / 2
        for _ in range(max(1, int((high - low) / 60))):
            at, side, group = rng.uniform(low, high), rng.choice([-1, 1]), draft.group()
            across = town.middle_m(street) + side * (town.half_m(street) + 1.5)
            draft.add(RACK, _spot(town, street, at, across), yaw, AT_REST, group)
            for place in rng.permutation(np.arange(-3, 4))[: int(rng.poisson(0.4))]:
                spot = _spot(town, street, at + 0.95 * place, across + rng.normal(0, 0.05))
                draft.add(BICYCLE, spot, yaw + np.pi / 2 + rng.normal(0, 0.05), AT_REST, group)


def _thin(rng: np.random.Generator, movers: Movers, flows: Flows, town: Town) -> Ints:
    """Keep about as many near the drive as nuScenes has, whole groups at a time, the ego vehicle first."""
    time_s = np.arange(0.0, flows.time_s[-1], 1.0)
    xy = movers.poses(flows, time_s)[..., :2]
    near = np.linalg.norm(xy - xy[0], axis=-1).min(axis=1) < 72
    reach = np.linalg.norm(np.diff(xy[0], axis=0), axis=1).sum()
    exposure = (0.9 + reach / 85.0) * 1.5
    style = town.style
    family = FAMILY_OF_KIND
    factor = np.where(family == "vehicle", style.vehicles, np.where(family == "pedestrian", style.people, 1.0))
    factor[[BARRIER, _CONE, _WORKER, _DIGGER]] = style.works
    wanted = DENSITY_OF_KIND * exposure * factor * _UNSEEN * rng.gamma(3.0, 1 / 3.0, len(KINDS))
    moving_share = np.stack([MOVING_OF_KIND, 1 - MOVING_OF_KIND])
    room = wanted * moving_share  # (2, kinds): what moves or waits in traffic, what rests
    room[0, _VEHICLES] += wanted[_VEHICLES] * 0.1
    kept = [0]
    order = rng.permutation(int(movers.group.max()) + 1)
    rows = np.flatnonzero(near)
    of_group: dict[int, list[int]] = {}
    for row in rows.tolist():
        of_group.setdefault(int(movers.group[row]), []).append(row)
    for group in order.tolist():
        for row in of_group.get(group, []):
            at = (int(movers.state[row] == AT_REST), int(movers.kind[row]))
            in_rack = movers.kind[row] == BICYCLE and movers.kind[kept[-1]] in (RACK, BICYCLE)
            in_rack = in_rack and movers.group[kept[-1]] == group
            if row != 0 and (in_rack or rng.random() < room[at]):
                kept.append(row)
                room[at] -= 1
    return np.array(kept, np.int64)


#: Chances against being annotated (hidden, no room), by kind: set so that a mean sample has what nuScenes has.
_UNSEEN = np.ones(len(KINDS))
_UNSEEN[_PEOPLE] = 1.3
_UNSEEN[[_WORKER, CODE["human.pedestrian.adult"]]] = 1.7, 3.7
_UNSEEN[_CYCLES] = 1.8
_UNSEEN[_THINGS] = 1.6
_UNSEEN[CODE["animal"]] = 3.6
_UNSEEN[[CODE["vehicle.bus.rigid"], CODE["vehicle.bus.bendy"], _DIGGER, CODE["vehicle.trailer"]]] = (
    0.7,
    0.7,
    0.75,
    0.8,
)
_UNSEEN[[BICYCLE, CODE["vehicle.truck"], BARRIER, _CONE, RACK]] = 0.6, 0.65, 2.05, 1.9, 0.45
