"""Kernels of the lidar: which surface each ray meets, exactly, and what the sensor makes of it.

Everything stands in the *levelled town*: the town's own axes, with the slope of the ground taken out of z (a shear,
under which straight rays stay straight). Random numbers are hashes of the sweep's seed and the ray's number, so the
order of the work does not matter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detmetrics.kernels import Floats, Ints, kernel

MAX_RANGE_M = 105.0
#: What a ray met instead of a solid.
NOTHING, ROAD, PAVEMENT, KERB, OWN_CAR = -1, -2, -3, -4, -5
_COLUMNS_A_BIN = 4
#: Materials of the ground and of the sensor's own car: rows of shapes.MATERIALS, a test compares them.
ASPHALT, CONCRETE, MARKING, EDGE, GRASS, PAINT = 0, 1, 2, 3, 4, 7


@kernel
def _share(seed: int, ray: int, use: int) -> float:
    """Give a number in (0, 1) from a hash, the finaliser of splitmix64."""
    x: Any = (
        np.uint64(seed)
        + np.uint64(ray) * np.uint64(0x9E3779B97F4A7C15)
        + np.uint64(use) * np.uint64(0xD1B54A32D192ED03)
    )
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    share: float = (float(x >> np.uint64(11)) + 0.5) / 9007199254740992.0
    return share


@kernel
def unevenness(x: float, y: float, ground: Floats) -> float:
    """Height of the road above its plane, metres; ``ground`` holds three waves (4 each) and the height of kerbs."""
    height = 0.0
    for wave in range(3):
        height += ground[4 * wave] * math.sin(
            ground[4 * wave + 1] * x + ground[4 * wave + 2] * y + ground[4 * wave + 3]
        )
    return height


@kernel
def is_road(x: float, y: float, streets: Floats) -> bool:
    """Whether a place is in a street; rows are (axis it is measured on, from, to, …)."""
    for row in range(len(streets)):
        at = x if streets[row, 0] == 0 else y
        if streets[row, 1] <= at <= streets[row, 2]:
            return True
    return False


@kernel
def _meets_ground(ray: Floats, lift: float, ground: Floats) -> float:
    """Range at which a ray (origin, direction) meets the surface ``lift`` above the road, to half a centimetre."""
    if ray[5] > -1e-3:
        return 1e9
    t: float = (lift - ray[2]) / ray[5]
    for _ in range(6):
        if t > 2 * MAX_RANGE_M:
            return 1e9
        last = t
        t = (unevenness(ray[0] + t * ray[3], ray[1] + t * ray[4], ground) + lift - ray[2]) / ray[5]
        if abs(t - last) < 0.005:
            break
    return t


@kernel
def _ground(ray: Floats, ground: Floats, streets: Floats) -> tuple[float, int]:
    """Range and kind of the ground that a ray meets: pavement, the face of a kerb, or road."""
    high = _meets_ground(ray, ground[12], ground)
    if high > MAX_RANGE_M:
        return 1e9, NOTHING
    if not is_road(ray[0] + high * ray[3], ray[1] + high * ray[4], streets):
        return high, PAVEMENT
    low = _meets_ground(ray, 0.0, ground)
    if is_road(ray[0] + low * ray[3], ray[1] + low * ray[4], streets):
        return low, ROAD
    for _ in range(12):
        middle = 0.5 * (high + low)
        if is_road(ray[0] + middle * ray[3], ray[1] + middle * ray[4], streets):
            high = middle
        else:
            low = middle
    return low, KERB


@kernel
def _crosses(ray: Floats, solid: Floats, out: Floats) -> bool:
    """Whether a ray crosses a solid; ``out``: range on entry and exit, cosine of incidence on entry."""
    x, y, z = ray[0] - solid[1], ray[1] - solid[2], ray[2] - solid[3]
    cos, sin = solid[4], solid[5]
    # in the solid's axes, where it is the unit cube, cylinder or ball
    ox, oy, oz = (cos * x + sin * y) / solid[6], (cos * y - sin * x) / solid[7], z / solid[8]
    dx = (cos * ray[3] + sin * ray[4]) / solid[6]
    dy = (cos * ray[4] - sin * ray[3]) / solid[7]
    dz = ray[5] / solid[8]
    enter, leave = -1e9, 1e9
    nx, ny, nz = 0.0, 0.0, 0.0
    form = solid[0]
    if form == 0:
        if abs(dx) < 1e-12:
            if abs(ox) > 1:
                return False
        else:
            a, b = (-1 - ox) / dx, (1 - ox) / dx
            near, far = min(a, b), max(a, b)
            if near > enter:
                enter, nx = near, 1.0
            leave = min(leave, far)
        if abs(dy) < 1e-12:
            if abs(oy) > 1:
                return False
        else:
            a, b = (-1 - oy) / dy, (1 - oy) / dy
            near, far = min(a, b), max(a, b)
            if near > enter:
                enter, nx, ny = near, 0.0, 1.0
            leave = min(leave, far)
    else:
        extra = 1.0 if form == 2 else 0.0
        a = dx * dx + dy * dy + extra * dz * dz
        b = ox * dx + oy * dy + extra * oz * dz
        c = ox * ox + oy * oy + extra * oz * oz - 1
        under = b * b - a * c
        if under <= 0 or a < 1e-15:
            return False
        root = math.sqrt(under)
        enter, leave = (-b - root) / a, (-b + root) / a
        nx, ny, nz = ox + enter * dx, oy + enter * dy, extra * (oz + enter * dz)
    if form != 2:
        if abs(dz) < 1e-12:
            if abs(oz) > 1:
                return False
        else:
            a, b = (-1 - oz) / dz, (1 - oz) / dz
            near, far = min(a, b), max(a, b)
            if near > enter:
                enter, nx, ny, nz = near, 0.0, 0.0, 1.0
            leave = min(leave, far)
    if enter >= leave or leave <= 0:
        return False
    # a normal turns with the inverse of the scale; the direction has length 1
    nx, ny, nz = nx / solid[6], ny / solid[7], nz / solid[8]
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    along = nx * dx * solid[6] + ny * dy * solid[7] + nz * dz * solid[8]
    out[0], out[1], out[2] = enter, leave, abs(along) / length
    return True


@kernel
def _misses(solids: Floats, row: int, ray: Floats, flat: float) -> bool:
    """Whether a ray surely misses a solid: the upright cylinder around it, on the ground, or over and under it."""
    x, y = ray[0] - solids[row, 1], ray[1] - solids[row, 2]
    radius2 = solids[row, 6] * solids[row, 6] + solids[row, 7] * solids[row, 7]
    aside = x * ray[4] - y * ray[3]
    left = radius2 * flat - aside * aside
    if left < 0:
        return True
    # squares instead of roots: |height in the middle| against half the height and the climb across the cylinder
    high = abs((ray[2] - solids[row, 3]) * flat - (x * ray[3] + y * ray[4]) * ray[5]) - solids[row, 8] * flat
    misses: bool = high > 0 and high * high > left * ray[5] * ray[5]
    return misses


@kernel
def list_near(solids: Floats, columns: Floats, near: Floats) -> tuple[Ints, Ints]:
    """List the solids that each bin of columns may meet, the nearest first, as offsets and rows.

    ``near`` (N,) gets the distance on the ground before which no ray meets the solid; solids come sorted by nothing.
    """
    n_columns = len(columns)
    n_bins = -(-n_columns // _COLUMNS_A_BIN)
    middle = n_columns // 2
    x, y = columns[middle, 0], columns[middle, 1]
    start = math.atan2(columns[0, 4], columns[0, 3])
    span = np.empty((len(solids), 2), np.int64)
    for row in range(len(solids)):
        dx, dy = solids[row, 1] - x, solids[row, 2] - y
        radius = math.sqrt(solids[row, 6] ** 2 + solids[row, 7] ** 2) + 1.0  # the sensor moves on by a metre or so
        distance = math.sqrt(dx * dx + dy * dy)
        near[row] = max(distance - radius, 0.0)
        if near[row] > MAX_RANGE_M:
            span[row, 0], span[row, 1] = 0, 0
        elif distance <= radius:
            span[row, 0], span[row, 1] = 0, n_bins
        else:
            half = math.asin(radius / distance) / (2 * math.pi) * n_columns + 6
            at = ((start - math.atan2(dy, dx)) / (2 * math.pi)) % 1.0 * n_columns
            span[row, 0] = math.floor((at - half) / _COLUMNS_A_BIN)
            span[row, 1] = min(math.floor((at + half) / _COLUMNS_A_BIN) + 1, span[row, 0] + n_bins)
    offsets = np.zeros(n_bins + 1, np.int64)
    for row in range(len(solids)):
        for number in range(span[row, 0], span[row, 1]):
            offsets[number % n_bins + 1] += 1
    for number in range(n_bins):
        offsets[number + 1] += offsets[number]
    rows = np.empty(offsets[n_bins], np.int64)
    filled = offsets[:-1].copy()
    for row in np.argsort(near, kind="mergesort"):
        for number in range(span[row, 0], span[row, 1]):
            rows[filled[number % n_bins]] = row
            filled[number % n_bins] += 1
    return offsets, rows


@kernel
def _set_ray(columns: Floats, column: int, cos: float, sin: float, ray: Floats) -> None:
    for axis in range(3):
        ray[axis] = columns[column, axis]
        ray[3 + axis] = cos * columns[column, 3 + axis] + sin * columns[column, 6 + axis]


@kernel
def cast(
    columns: Floats,
    beams: Floats,
    lists: tuple[Ints, Ints, Floats],
    solids: Floats,
    surfaces: Floats,
    town: tuple[Floats, Floats, Floats],
    seed: int,
    hits: tuple[Floats, Ints, Floats],
) -> None:
    """Write for each ray its range, what it met and the cosine of incidence, each (A, R); columns are (A, 9).

    A column is the origin, the direction at elevation 0 and the sensor's up; ``beams`` (R, 2) are the cosine and sine
    of each elevation. ``town`` is ground, streets, and the range (A, R) at which the car that carries the sensor is in
    the way.
    """
    offsets, rows, near = lists
    ground, streets, own = town
    reach, met, incidence = hits
    ray, crossing = np.empty(6), np.empty(3)
    for column in range(len(columns)):
        number = column // _COLUMNS_A_BIN
        for ring in range(len(beams)):
            _set_ray(columns, column, beams[ring, 0], beams[ring, 1], ray)
            flat = ray[3] * ray[3] + ray[4] * ray[4]
            best, kind = _ground(ray, ground, streets)
            cosine = 0.75 if kind == KERB else abs(ray[5])
            if own[column, ring] < best:
                best, kind, cosine = own[column, ring], OWN_CAR, 0.5
            if best >= MAX_RANGE_M:
                best, kind = MAX_RANGE_M, NOTHING
            for place in range(offsets[number], offsets[number + 1]):
                row = rows[place]
                if near[row] >= best:
                    break
                if _misses(solids, row, ray, flat) or not _crosses(ray, solids[row], crossing):
                    continue
                t = max(crossing[0], 0.0)
                if t >= best:
                    continue
                surface = int(solids[row, 9])
                if surfaces[surface, 3] > 0:
                    t -= surfaces[surface, 3] * math.log(_share(seed, column * 64 + ring, 16 + row))
                    if t >= min(crossing[1], best):
                        continue
                    crossing[2] = 0.6
                elif surfaces[surface, 2] > 0 and _share(seed, column * 64 + ring, 16 + row) < surfaces[surface, 2]:
                    continue
                best, kind, cosine = t, row, crossing[2]
            reach[column, ring], met[column, ring], incidence[column, ring] = best, kind, cosine


@kernel
def count_rays(
    columns: Floats,
    beams: Floats,
    lists: tuple[Ints, Ints, Floats],
    solids: Floats,
    met: Ints,
    counts: Ints,
) -> None:
    """Count for each object (N, 2) the rays that would meet it if it stood alone, and those that did meet it."""
    offsets, rows, _ = lists
    ray, crossing = np.empty(6), np.empty(3)
    stamp = np.full(len(counts), -1, np.int64)
    for column in range(len(columns)):
        number = column // _COLUMNS_A_BIN
        for ring in range(len(beams)):
            _set_ray(columns, column, beams[ring, 0], beams[ring, 1], ray)
            flat = ray[3] * ray[3] + ray[4] * ray[4]
            for place in range(offsets[number], offsets[number + 1]):
                row = rows[place]
                owner = int(solids[row, 10])
                if owner < 0 or stamp[owner] == column * 64 + ring:
                    continue
                if not _misses(solids, row, ray, flat) and _crosses(ray, solids[row], crossing):
                    stamp[owner] = column * 64 + ring
                    counts[owner, 0] += 1
                    if met[column, ring] >= 0 and int(solids[met[column, ring], 10]) == owner:
                        counts[owner, 1] += 1


@kernel
def _surface_of_ground(x: float, y: float, kind: int, streets: Floats) -> int:
    """Material of the ground: marks on the road, pavement with grass away from the streets."""
    nearest, mine = 1e9, -1
    for row in range(len(streets)):
        at = x if streets[row, 0] == 0 else y
        outside = max(streets[row, 1] - at, at - streets[row, 2])
        nearest = min(nearest, outside)
        if outside <= 0:
            if mine >= 0:
                return ASPHALT  # where two streets cross
            mine = row
    if kind == KERB:
        return EDGE
    if kind == PAVEMENT:
        return CONCRETE if nearest < streets[0, 4] else GRASS
    if mine < 0:
        return ASPHALT
    axis = streets[mine, 0]
    across, along = (x, y) if axis == 0 else (y, x)
    crossing = 1e9
    for row in range(len(streets)):
        if streets[row, 0] != axis:
            crossing = min(crossing, max(streets[row, 1] - along, along - streets[row, 2]))
    if 1.0 < crossing < 4.0:  # a crossing for people
        return MARKING if across % 1.1 < 0.5 else ASPHALT
    middle = abs(across - 0.5 * (streets[mine, 1] + streets[mine, 2]))
    half = 0.5 * (streets[mine, 2] - streets[mine, 1])
    lane = middle % 3.5
    is_stop_line = 4.4 < crossing < 4.8
    is_along = middle < 0.16 or abs(half - streets[mine, 3] - middle) < 0.1
    is_dash = (lane < 0.08 or lane > 3.42) and middle < half - 2 and along % 9.0 < 3.5
    return MARKING if is_stop_line or is_along or is_dash else ASPHALT


@kernel
def measure(
    columns: Floats,
    shown: Floats,
    beams: Floats,
    hits: tuple[Floats, Ints, Floats],
    solids: Floats,
    streets: Floats,
    sensor: tuple[Floats, Floats, int],
    points: NDArray[np.float32],
) -> None:
    """Write the points (A·R, 5): noise, drop-outs, intensity, ring; a ray without return stays at the sensor.

    ``shown`` (A, 9) are the columns in the frame of the sweep's reference. ``sensor`` holds the materials, the
    conditions (noise in metres, weather's loss a metre, its spurious share, level of the detector) and the seed.
    """
    reach, met, incidence = hits
    surfaces, conditions, seed = sensor
    for column in range(len(columns)):
        for ring in range(len(beams)):
            ray = column * 64 + ring
            cos, sin = beams[ring, 0], beams[ring, 1]
            r, kind = reach[column, ring], met[column, ring]
            if kind == NOTHING:
                r, intensity = 0.0, 1.0 + 3.0 * _share(seed, ray, 1)
            else:
                tone = 1.0
                if kind >= 0:
                    surface, tone = int(solids[kind, 9]), solids[kind, 11]
                elif kind == OWN_CAR:
                    surface = PAINT
                else:
                    x = columns[column, 0] + r * (cos * columns[column, 3] + sin * columns[column, 6])
                    y = columns[column, 1] + r * (cos * columns[column, 4] + sin * columns[column, 7])
                    surface = _surface_of_ground(x, y, kind, streets)
                    if surface == GRASS:  # blades of four centimetres, seen from the sensor's height
                        r += (_share(seed, ray, 5) - 0.5) * 0.08 * r / 1.84
                length, angle = math.sqrt(-2 * math.log(_share(seed, ray, 2))), 2 * math.pi * _share(seed, ray, 3)
                facing = incidence[column, ring]
                retro = surfaces[surface, 0] > 100
                strength = tone * surfaces[surface, 0] * (0.45 + 0.55 * facing)
                strength *= math.exp(surfaces[surface, 1] * length * math.cos(angle))
                # near the sensor the optics do not see it whole; farther off the device corrects for the range
                intensity = min(strength * (1 - 0.85 * math.exp(-r / 4.0)), 255.0)
                power = strength * (0.35 + 0.65 * math.sqrt(facing)) * math.exp(-conditions[1] * r)
                level = math.log(max(power, 1e-3)) - 2 * math.log(max(r, 5.0) / conditions[3])
                chance = 0.996 if retro else 0.996 / (1 + math.exp(-3.0 * level))
                if _share(seed, ray, 4) > chance:
                    r, intensity = 0.0, 1.0 + 3.0 * _share(seed, ray, 1)
                else:
                    r = max(r + conditions[0] * (1 + r / 60) * length * math.sin(angle), 0.05)
            if _share(seed, ray, 8) < conditions[2]:
                drop = 1.5 - 5.0 * math.log(_share(seed, ray, 9))  # a drop, or haze
                if r == 0.0 or drop < r:
                    r, intensity = drop, 1.0 + 4.0 * _share(seed, ray, 10)
            row = column * len(beams) + ring
            for axis in range(3):
                along = cos * shown[column, 3 + axis] + sin * shown[column, 6 + axis]
                points[row, axis] = shown[column, axis] + r * along
            points[row, 3] = math.floor(intensity)
            points[row, 4] = ring


@kernel
def _columns_within(at: float, step: float, low: float, high: float, n: int) -> tuple[int, int]:
    """First column, and one after the last, of ``n`` whose place ``at + column * step`` is between two bounds."""
    if abs(step) < 1e-12:
        return (0, n) if low <= at <= high else (0, 0)
    first, last = (low - at) / step, (high - at) / step
    if first > last:
        first, last = last, first
    return max(0, math.ceil(first)), min(n, math.floor(last) + 1)


@kernel
def draw_streets(
    origin: Floats, axes: Floats, streets: Floats, area: Floats, pixel_m: float, pixels: NDArray[np.uint8]
) -> None:
    """Set the pixels (H, W) that lie in a street to 255, row by row.

    Column c of row r lies at (c, H - r) pixels in the global frame, of which ``origin`` (2,) is the origin in the town
    and ``axes`` (2, 2) are the directions of x and y there.
    """
    height, width = pixels.shape
    step_x, step_y = axes[0, 0] * pixel_m, axes[0, 1] * pixel_m
    for row in range(height):
        up = (height - row) * pixel_m
        x, y = origin[0] + up * axes[1, 0], origin[1] + up * axes[1, 1]
        first, last = _columns_within(x, step_x, area[0], area[1], width)
        low, high = _columns_within(y, step_y, area[2], area[3], width)
        first, last = max(first, low), min(last, high)
        for street in range(len(streets)):
            if streets[street, 0] == 0:
                low, high = _columns_within(x, step_x, streets[street, 1], streets[street, 2], width)
            else:
                low, high = _columns_within(y, step_y, streets[street, 1], streets[street, 2], width)
            for column in range(max(first, low), min(last, high)):
                pixels[row, column] = 255
