"""What stands in a synthetic scene: the nuScenes categories, how many, how large, how they move.

Densities and mean sizes follow, rounded, the statistics published with nuScenes (H. Caesar et al., CVPR 2020); the ten
evaluated classes add up to about 31 boxes a sample, as in its validation split. Descriptions are our own words.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detmetrics.protocols import NUSCENES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Kind(NamedTuple):
    """One category.

    ``per_sample`` boxes are annotated in a mean sample. A group of about ``group`` objects stands ``gap_m`` apart, its
    middle at a typical distance of ``distance_m`` from the ego vehicle and between ``lateral_m`` from its lane; the
    share ``moving`` of groups moves with about ``speed_mps``.
    """

    name: str
    family: str
    per_sample: float
    size_lwh_m: tuple[float, float, float]
    distance_m: float
    lateral_m: tuple[float, float]
    group: float
    gap_m: float
    moving: float
    speed_mps: float
    description: str


#: All categories; those that no class is mapped to are ignored by the evaluation.
KINDS = (
    Kind("human.pedestrian.adult", "pedestrian", 5.6, (0.73, 0.67, 1.77), 25, (6, 20), 3, 1.3, 0.65, 1.3, "Adult."),
    Kind("human.pedestrian.child", "pedestrian", 0.07, (0.53, 0.50, 1.38), 23, (6, 18), 2, 1.1, 0.7, 1.1, "Child."),
    Kind(
        "human.pedestrian.wheelchair",
        "pedestrian",
        0.02,
        (1.07, 0.77, 1.37),
        23,
        (6, 16),
        1,
        1.0,
        0.6,
        1.0,
        "Person in a wheelchair.",
    ),
    Kind(
        "human.pedestrian.stroller",
        "pedestrian",
        0.03,
        (0.97, 0.61, 1.17),
        23,
        (6, 16),
        1,
        1.0,
        0.6,
        1.0,
        "Stroller, with or without a child.",
    ),
    Kind(
        "human.pedestrian.personal_mobility",
        "pedestrian",
        0.02,
        (1.17, 0.65, 1.78),
        24,
        (3, 12),
        1,
        1.0,
        0.8,
        3.0,
        "Person on a scooter, skateboard or the like.",
    ),
    Kind(
        "human.pedestrian.police_officer",
        "pedestrian",
        0.02,
        (0.74, 0.72, 1.80),
        24,
        (3, 14),
        1,
        1.0,
        0.3,
        1.2,
        "Police officer.",
    ),
    Kind(
        "human.pedestrian.construction_worker",
        "pedestrian",
        0.26,
        (0.77, 0.72, 1.75),
        25,
        (4, 16),
        2,
        2.0,
        0.4,
        1.0,
        "Construction worker.",
    ),
    Kind("animal", "", 0.03, (0.70, 0.35, 0.50), 20, (3, 16), 1, 1.0, 0.5, 1.0, "Any animal."),
    Kind("vehicle.car", "vehicle", 13.5, (4.62, 1.96, 1.73), 29, (5, 30), 2.5, 6.5, 0.42, 8.0, "Passenger car."),
    Kind(
        "vehicle.motorcycle",
        "cycle",
        0.35,
        (2.11, 0.77, 1.47),
        25,
        (4, 14),
        1.5,
        1.2,
        0.4,
        7.0,
        "Motorcycle or motor scooter.",
    ),
    Kind("vehicle.bicycle", "cycle", 0.25, (1.70, 0.60, 1.28), 24, (4, 14), 1.3, 1.0, 0.4, 4.0, "Bicycle."),
    Kind(
        "vehicle.bus.bendy",
        "vehicle",
        0.05,
        (9.5, 2.9, 3.45),
        32,
        (5, 16),
        1.5,
        10.0,
        0.7,
        6.0,
        "One section of an articulated bus.",
    ),
    Kind(
        "vehicle.bus.rigid", "vehicle", 0.42, (11.1, 2.94, 3.47), 33, (5, 20), 1, 13.0, 0.6, 6.0, "Bus in one section."
    ),
    Kind("vehicle.truck", "vehicle", 2.45, (6.93, 2.51, 2.84), 32, (5, 28), 1.2, 9.0, 0.35, 7.0, "Truck."),
    Kind(
        "vehicle.construction",
        "vehicle",
        0.4,
        (6.37, 2.85, 3.19),
        32,
        (6, 30),
        1.2,
        9.0,
        0.12,
        1.5,
        "Construction machine.",
    ),
    Kind("vehicle.emergency.ambulance", "vehicle", 0.01, (6.5, 2.4, 2.6), 30, (5, 16), 1, 9.0, 0.5, 8.0, "Ambulance."),
    Kind(
        "vehicle.emergency.police",
        "vehicle",
        0.03,
        (5.0, 2.05, 1.8),
        28,
        (5, 16),
        1,
        8.0,
        0.5,
        8.0,
        "Police car or motorcycle.",
    ),
    Kind("vehicle.trailer", "vehicle", 0.7, (12.29, 2.90, 3.87), 36, (6, 34), 1.2, 14.0, 0.15, 6.0, "Trailer."),
    Kind("movable_object.barrier", "", 4.2, (0.50, 2.53, 0.98), 23, (4, 16), 9, 2.6, 0.0, 0.0, "Temporary barrier."),
    Kind("movable_object.trafficcone", "", 2.7, (0.41, 0.41, 1.07), 22, (2.5, 12), 5, 3.0, 0.0, 0.0, "Traffic cone."),
    Kind(
        "movable_object.pushable_pullable",
        "",
        0.65,
        (0.67, 0.65, 1.04),
        22,
        (6, 18),
        1.5,
        1.2,
        0.05,
        0.8,
        "Something that a person pushes or pulls.",
    ),
    Kind(
        "movable_object.debris",
        "",
        0.09,
        (1.1, 1.0, 1.1),
        22,
        (2.5, 12),
        1.2,
        2.0,
        0.0,
        0.0,
        "Something left on the road.",
    ),
    Kind("static_object.bicycle_rack", "", 0.6, (8.0, 2.3, 1.4), 26, (7, 18), 1, 10.0, 0.0, 0.0, "Bicycle rack."),
)

#: Attributes as the devkit names them, in the protocol's order, with their families and our own words.
ATTRIBUTES = NUSCENES.attributes
ATTRIBUTE_DESCRIPTIONS = {
    "pedestrian.moving": "The person walks or runs.",
    "pedestrian.sitting_lying_down": "The person sits or lies.",
    "pedestrian.standing": "The person stands.",
    "cycle.with_rider": "Somebody rides it.",
    "cycle.without_rider": "Nobody rides it.",
    "vehicle.moving": "The vehicle moves.",
    "vehicle.parked": "The vehicle is parked.",
    "vehicle.stopped": "The vehicle stands in traffic.",
}

#: Evaluated classes in the protocol's order, and the class of every category (-1: ignored).
CLASSES = NUSCENES.labels
CATEGORY_NAMES = tuple(kind.name for kind in KINDS)
CLASS_OF_KIND = np.array([-1 if (task := NUSCENES.task_of(name)) is None else task for name in CATEGORY_NAMES])

#: Code of each category, and columns of :data:`KINDS` by it.
CODE = {name: code for code, name in enumerate(CATEGORY_NAMES)}
FAMILY_OF_KIND = np.array([kind.family for kind in KINDS])
SIZE_OF_KIND = np.array([kind.size_lwh_m for kind in KINDS])
DENSITY_OF_KIND = np.array([kind.per_sample for kind in KINDS])
MOVING_OF_KIND = np.array([kind.moving for kind in KINDS])
RACK, BICYCLE, BARRIER = (
    CODE[name] for name in ("static_object.bicycle_rack", "vehicle.bicycle", "movable_object.barrier")
)

#: What a thing does: it moves, it stands in traffic or sits, or it is at rest.
MOVING, WAITING, AT_REST = range(3)


def attributes_of(family: str) -> list[int]:
    """Codes of a family's attributes, in the order of :data:`ATTRIBUTES`; none for the family ``""``."""
    return [code for code, name in enumerate(ATTRIBUTES) if family and name.startswith(family + ".")]


def _attribute_table() -> Ints:
    """Attribute code for each kind in the states moving, waiting, at rest; -1 where the kind has none."""
    words = {
        "vehicle": ("vehicle.moving", "vehicle.stopped", "vehicle.parked"),
        "cycle": ("cycle.with_rider", "cycle.with_rider", "cycle.without_rider"),
        "pedestrian": ("pedestrian.moving", "pedestrian.sitting_lying_down", "pedestrian.standing"),
    }
    return np.array([[ATTRIBUTES.index(w) for w in words.get(kind.family, ())] or [-1] * 3 for kind in KINDS])


ATTRIBUTE_OF_STATE = _attribute_table()
