"""What things are made of: materials as the lidar sees them, and each category's few convex parts.

A part is a box, an upright elliptic cylinder or an ellipsoid, in fractions of the annotated size: x forward, y left, z
up, from -0.5 to 0.5. Parts reach to 0.49, so that range noise leaves most points inside the annotated box.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detmetrics.synth.categories import KINDS, Floats, Ints

BOX, CYLINDER, ELLIPSOID = range(3)


class Material(NamedTuple):
    """How the sensor sees a surface.

    ``intensity`` is the mean at right angles nearby, ``spread`` the sigma of its logarithm. ``passes`` is the share of
    rays that go through (glass, wire); where ``free_path_m`` is not 0, a ray ends after an exponential depth (leaves).
    """

    name: str
    intensity: float
    spread: float
    passes: float = 0.0
    free_path_m: float = 0.0


# intensities: set by eye and histogram, so that the looks script's figures come near the real frame's
MATERIALS = (
    Material("asphalt", 13.0, 0.45),
    Material("pavement", 36.0, 0.45),
    Material("marking", 85.0, 0.35),
    Material("kerb", 48.0, 0.35),
    Material("grass", 60.0, 0.45),
    Material("wall", 19.0, 0.6, 0.10),
    Material("glass", 10.0, 0.7, 0.65),
    Material("paint", 26.0, 0.8, 0.04),
    Material("tyre", 5.0, 0.4),
    Material("cloth", 24.0, 0.6),
    Material("metal", 36.0, 0.6),
    Material("retro", 140.0, 0.4),
    Material("leaf", 34.0, 0.6, 0.0, 1.6),
    Material("hedge", 48.0, 0.6, 0.0, 0.30),
    Material("wood", 26.0, 0.45),
    Material("wire", 24.0, 0.5, 0.72),
    Material("plastic", 34.0, 0.5),
    Material("concrete", 36.0, 0.35),
)
MATERIAL = {material.name: code for code, material in enumerate(MATERIALS)}
#: Columns intensity, spread, passes, free path of all materials, for the kernels.
SURFACES: Floats = np.array([material[1:] for material in MATERIALS])

Part = tuple[int, tuple[float, float, float], tuple[float, float, float], str]

_WHEELS: list[Part] = [(BOX, (x, y, -0.37), (0.07, 0.05, 0.12), "tyre") for x in (-0.31, 0.31) for y in (-0.435, 0.435)]
_CAR: list[Part] = [
    (BOX, (0.0, 0.0, -0.13), (0.475, 0.48, 0.22), "paint"),
    (BOX, (0.0, 0.0, -0.16), (0.49, 0.40, 0.13), "paint"),
    (BOX, (-0.05, 0.0, 0.22), (0.27, 0.42, 0.20), "glass"),
    (BOX, (-0.06, 0.0, 0.45), (0.22, 0.40, 0.04), "paint"),
    (BOX, (-0.06, 0.0, 0.25), (0.02, 0.43, 0.20), "paint"),  # pillars
    (BOX, (-0.487, 0.0, -0.10), (0.004, 0.13, 0.035), "retro"),
    *_WHEELS,
]
_BOXY: list[Part] = [  # a cab in front of a box
    (BOX, (0.37, 0.0, -0.06), (0.12, 0.47, 0.36), "paint"),
    (BOX, (0.485, 0.0, 0.08), (0.006, 0.42, 0.12), "glass"),
    (BOX, (-0.12, 0.0, 0.07), (0.37, 0.49, 0.42), "paint"),
    (BOX, (-0.02, 0.0, -0.37), (0.45, 0.30, 0.05), "metal"),
    (BOX, (-0.487, 0.0, -0.25), (0.004, 0.35, 0.02), "retro"),
    *_WHEELS,
]
_BUS: list[Part] = [
    (BOX, (0.0, 0.0, -0.21), (0.49, 0.49, 0.19), "paint"),
    (BOX, (0.0, 0.0, 0.17), (0.485, 0.485, 0.19), "glass"),
    (BOX, (0.0, 0.0, 0.42), (0.49, 0.49, 0.07), "paint"),
    *[(BOX, (x, 0.0, 0.17), (0.012, 0.488, 0.19), "paint") for x in (-0.45, -0.22, 0.02, 0.25, 0.45)],
    *_WHEELS,
]
_TRAILER: list[Part] = [
    (BOX, (0.0, 0.0, 0.12), (0.49, 0.49, 0.37), "paint"),
    (BOX, (-0.05, 0.0, -0.30), (0.42, 0.25, 0.06), "metal"),
    (BOX, (-0.33, 0.0, -0.37), (0.12, 0.46, 0.12), "tyre"),
    (BOX, (0.30, 0.0, -0.40), (0.02, 0.30, 0.09), "metal"),
    (BOX, (-0.489, 0.0, -0.2), (0.002, 0.40, 0.02), "retro"),
]
_DIGGER: list[Part] = [
    (BOX, (0.0, 0.27, -0.36), (0.42, 0.19, 0.13), "metal"),
    (BOX, (0.0, -0.27, -0.36), (0.42, 0.19, 0.13), "metal"),
    (BOX, (-0.18, 0.0, -0.06), (0.30, 0.44, 0.18), "paint"),
    (BOX, (0.02, 0.22, 0.26), (0.13, 0.22, 0.22), "glass"),
    (BOX, (0.02, 0.22, 0.47), (0.14, 0.23, 0.02), "paint"),
    (BOX, (0.27, -0.08, 0.10), (0.20, 0.07, 0.07), "paint"),
    (BOX, (0.45, -0.08, -0.18), (0.04, 0.20, 0.24), "metal"),
]
_PERSON: list[Part] = [
    (CYLINDER, (0.14, 0.19, -0.27), (0.13, 0.13, 0.22), "cloth"),
    (CYLINDER, (-0.14, -0.19, -0.27), (0.13, 0.13, 0.22), "cloth"),
    (CYLINDER, (0.0, 0.0, 0.13), (0.24, 0.34, 0.21), "cloth"),
    (CYLINDER, (-0.10, 0.40, 0.08), (0.12, 0.09, 0.20), "cloth"),
    (CYLINDER, (0.12, -0.40, 0.08), (0.12, 0.09, 0.20), "cloth"),
    (ELLIPSOID, (0.02, 0.0, 0.42), (0.18, 0.18, 0.075), "cloth"),
]
_PUSHED: list[Part] = [
    (BOX, (0.1, 0.0, -0.10), (0.35, 0.42, 0.20), "cloth"),
    (BOX, (0.0, 0.0, -0.42), (0.40, 0.45, 0.07), "metal"),
    (BOX, (-0.38, 0.0, 0.25), (0.08, 0.40, 0.23), "cloth"),
]
_CYCLE: list[Part] = [
    (BOX, (0.33, 0.0, -0.24), (0.15, 0.06, 0.25), "tyre"),
    (BOX, (-0.33, 0.0, -0.24), (0.15, 0.06, 0.25), "tyre"),
    (BOX, (0.0, 0.0, 0.02), (0.30, 0.07, 0.10), "metal"),
    (BOX, (0.27, 0.0, 0.38), (0.03, 0.45, 0.04), "metal"),
    (BOX, (-0.14, 0.0, 0.28), (0.08, 0.16, 0.04), "plastic"),
]
_HEAVY_CYCLE: list[Part] = [*_CYCLE, (BOX, (-0.02, 0.0, -0.08), (0.25, 0.22, 0.20), "paint")]
_RIDDEN: list[Part] = [  # as high as the rider
    (BOX, (0.33, 0.0, -0.32), (0.15, 0.06, 0.17), "tyre"),
    (BOX, (-0.33, 0.0, -0.32), (0.15, 0.06, 0.17), "tyre"),
    (BOX, (0.0, 0.0, -0.15), (0.30, 0.09, 0.08), "metal"),
    (CYLINDER, (0.02, 0.0, -0.12), (0.07, 0.34, 0.22), "cloth"),
    (CYLINDER, (-0.06, 0.0, 0.18), (0.11, 0.36, 0.18), "cloth"),
    (ELLIPSOID, (0.0, 0.0, 0.42), (0.07, 0.18, 0.075), "plastic"),
]
_CONE: list[Part] = [
    (BOX, (0.0, 0.0, -0.47), (0.49, 0.49, 0.025), "plastic"),
    (CYLINDER, (0.0, 0.0, -0.28), (0.34, 0.34, 0.17), "plastic"),
    (CYLINDER, (0.0, 0.0, 0.02), (0.24, 0.24, 0.14), "retro"),
    (CYLINDER, (0.0, 0.0, 0.31), (0.15, 0.15, 0.18), "plastic"),
]
_BARRIER: list[Part] = [
    (BOX, (0.0, 0.0, -0.36), (0.46, 0.49, 0.13), "plastic"),
    (BOX, (0.0, 0.0, 0.08), (0.22, 0.49, 0.40), "plastic"),
    (BOX, (0.0, 0.0, 0.30), (0.25, 0.44, 0.06), "retro"),
]
_RACK: list[Part] = [
    (BOX, (x, 0.0, -0.1), (0.004, 0.2, 0.38), "metal") for x in np.round(np.linspace(-0.46, 0.46, 9), 3).tolist()
]
_LUMP: list[Part] = [
    (ELLIPSOID, (0.0, 0.0, -0.1), (0.48, 0.45, 0.38), "cloth"),
    (BOX, (0.05, 0.0, -0.3), (0.4, 0.4, 0.19), "plastic"),
]
_CART: list[Part] = [
    (BOX, (0.0, 0.0, -0.02), (0.44, 0.44, 0.42), "plastic"),
    (BOX, (-0.4, 0.0, 0.42), (0.06, 0.45, 0.06), "metal"),
]
_ANIMAL: list[Part] = [
    (ELLIPSOID, (-0.05, 0.0, 0.05), (0.36, 0.34, 0.24), "cloth"),
    (ELLIPSOID, (0.36, 0.0, 0.30), (0.13, 0.25, 0.18), "cloth"),
    *[(CYLINDER, (x, y, -0.3), (0.05, 0.09, 0.19), "cloth") for x in (-0.28, 0.2) for y in (-0.2, 0.2)],
]

_BY_NAME = {
    "human.pedestrian.wheelchair": _PUSHED,
    "human.pedestrian.stroller": _PUSHED,
    "animal": _ANIMAL,
    "vehicle.motorcycle": _HEAVY_CYCLE,
    "vehicle.bicycle": _CYCLE,
    "vehicle.bus.bendy": _BUS,
    "vehicle.bus.rigid": _BUS,
    "vehicle.truck": _BOXY,
    "vehicle.construction": _DIGGER,
    "vehicle.emergency.ambulance": _BOXY,
    "vehicle.trailer": _TRAILER,
    "movable_object.barrier": _BARRIER,
    "movable_object.trafficcone": _CONE,
    "movable_object.pushable_pullable": _CART,
    "movable_object.debris": _LUMP,
    "static_object.bicycle_rack": _RACK,
}


def _parts_of(name: str) -> list[Part]:
    return _BY_NAME.get(name, _PERSON if name.startswith("human") else _CAR)


def _columns(parts: list[Part]) -> Floats:
    rows = [(kind, *center, *half, MATERIAL[material]) for kind, center, half, material in parts]
    return np.array(rows, dtype=np.float64)


#: Parts of every kind (P, 8): form, centre, half extents, material; after them those of a ridden cycle.
PARTS = (*(_columns(_parts_of(kind.name)) for kind in KINDS), _columns(_RIDDEN))
RIDDEN = len(KINDS)

# columns of an array of solids (N, 12)
FORM, X, Y, Z, COS, SIN, HALF_X, HALF_Y, HALF_Z, SURFACE, OWNER, TONE = range(12)


def solids(
    form: int, center_m: Floats, half_m: Floats, material: str, yaw_rad: Floats | float = 0.0, tone: Floats | float = 1
) -> Floats:
    """Solids (N, 12) of one form and material that nothing owns: centres (N, 3), half extents (N, 3), metres."""
    rows = np.empty((len(center_m), 12))
    rows[:, FORM], rows[:, SURFACE], rows[:, OWNER], rows[:, TONE] = form, MATERIAL[material], -1, tone
    rows[:, X : Z + 1], rows[:, HALF_X : HALF_Z + 1] = center_m, half_m
    rows[:, COS], rows[:, SIN] = np.cos(yaw_rad), np.sin(yaw_rad)
    return rows


def template(shape: Ints, size_lwh_m: Floats, tone: Floats) -> tuple[Floats, Ints]:
    """Parts of objects as solids at the origin (P, 12), and the object of each (P,).

    Parameters
    ----------
    shape : int64 (N,)
        Rows of :data:`PARTS`.
    size_lwh_m : float64 (N, 3)
    tone : float64 (N,)
        Factor on the intensity.
    """
    count = np.array([len(parts) for parts in PARTS])[shape]
    owner = np.repeat(np.arange(len(shape)), count)
    parts = np.concatenate([PARTS[code] for code in shape.tolist()]) if len(shape) else np.empty((0, 8))
    rows = np.empty((len(owner), 12))
    rows[:, FORM], rows[:, SURFACE], rows[:, OWNER], rows[:, TONE] = parts[:, 0], parts[:, 7], owner, tone[owner]
    rows[:, X : Z + 1] = parts[:, 1:4] * size_lwh_m[owner]
    rows[:, HALF_X : HALF_Z + 1] = parts[:, 4:7] * size_lwh_m[owner]
    rows[:, COS], rows[:, SIN] = 1, 0
    return rows, owner


def placed(parts: Floats, owner: Ints, center_m: Floats, yaw_rad: Floats) -> Floats:
    """Copy parts at the origin to where their objects stand: centres (N, 3) in metres, headings (N,)."""
    rows = parts.copy()
    cos, sin = np.cos(yaw_rad)[owner], np.sin(yaw_rad)[owner]
    rows[:, X] = center_m[owner, 0] + cos * parts[:, X] - sin * parts[:, Y]
    rows[:, Y] = center_m[owner, 1] + sin * parts[:, X] + cos * parts[:, Y]
    rows[:, Z] = center_m[owner, 2] + parts[:, Z]
    rows[:, COS], rows[:, SIN] = cos, sin
    return rows
