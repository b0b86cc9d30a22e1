"""MAN TruckScenes detection, ``detection_cvpr_2024``, as truckscenes-devkit 1.2.0 computes it.

Sources: TUMFTM/truckscenes-devkit @ e8f7ceb, ``eval/detection/configs/detection_cvpr_2024.json``, ``algo.py``,
``utils.py``, ``evaluate.py``, ``eval/common/loaders.py``, ``constants.py``; F. Fent et al., *MAN TruckScenes*,
NeurIPS Datasets and Benchmarks 2024.

The rules are those of :mod:`detmetrics.protocols.nuscenes`, with what it says there on formulas, on what is reproduced
and what is refused. Other are: twelve classes up to 150 m or 75 m away; the ego position is that of the key frame of
LIDAR_LEFT; front and back of a barrier and of a traffic sign look alike; an animal has no attribute, a traffic sign no
velocity. The construction vehicle of nuScenes belongs to ``other_vehicle``, the trailer behind ego to ``trailer``.

Tags. A scene's description lists tags such as ``weather.rain``; the devkit also scores each tag alone, over the samples
of scenes that have it. Such a score is a slice of the ledger: weights 1 and 0 of frames and ``absent="official"``,
since a class without truth under a tag counts AP 0 and the worst errors, too. Scores of the seven tags
:data:`UNDEFINED_TAGS` are NaN whatever the data. See :mod:`detmetrics.io.truckscenes`.

Parity: every AP, error, mean and curve, and those of every tag, within 1e-12 of the devkit; see ``tests/parity``.
"""

from __future__ import annotations

from math import pi

from detmetrics.protocol import Affinity, Composite, Curve, Protocol, Task, TpError

#: Scored NaN, since they are too rare (``eval/detection/evaluate.py: evaluate``).
UNDEFINED_TAGS = (
    "weather.other_weather",
    "weather.snow",
    "weather.hail",
    "area.parking",
    "area.other_area",
    "season.spring",
    "lighting.other_lighting",
)

TRUCKSCENES = Protocol(
    name="truckscenes|detection_cvpr_2024",
    tasks=(
        Task(label="car", range_m=150),
        Task(label="truck", range_m=150),
        Task(label="bus", range_m=150),
        Task(label="trailer", range_m=150),
        Task(label="other_vehicle", range_m=150),
        Task(label="pedestrian", range_m=75),
        Task(label="motorcycle", range_m=75),
        Task(label="bicycle", range_m=75),
        # evaluate.py: what each class has no meaning for
        Task(label="traffic_cone", range_m=75, undefined=("AOE", "AVE", "AAE")),
        # algo.py: front and back of barriers and traffic signs look alike
        Task(label="barrier", range_m=75, yaw_period_rad=pi, undefined=("AVE", "AAE")),
        Task(label="animal", range_m=75, undefined=("AAE",)),
        Task(label="traffic_sign", range_m=75, yaw_period_rad=pi, undefined=("AVE",)),
    ),
    affinity=Affinity(kind="center_xy", thresholds=(0.5, 1.0, 2.0, 4.0), error_threshold=2.0),
    assignment="nearest_free",
    curve=Curve(kind="linear", n_samples=101, min_recall=0.1, min_precision=0.1),
    errors=(
        TpError(name="ATE", key="trans_err", kind="translation_xy", unit="m"),
        TpError(name="ASE", key="scale_err", kind="scale_aligned", unit="1 - IoU"),
        TpError(name="AOE", key="orient_err", kind="orientation", unit="rad"),
        TpError(name="AVE", key="vel_err", kind="velocity_xy", unit="m/s"),
        TpError(name="AAE", key="attr_err", kind="attribute", unit="1 - acc"),
    ),
    composite=Composite(name="NDS", map_weight=5, error_weights={"ATE": 1, "ASE": 1, "AOE": 1, "AVE": 1, "AAE": 1}),
    mapping={  # eval/detection/utils.py: category_to_detection_name
        "animal": "animal",
        "movable_object.barrier": "barrier",
        "vehicle.bicycle": "bicycle",
        "vehicle.bus.bendy": "bus",
        "vehicle.bus.rigid": "bus",
        "vehicle.car": "car",
        "vehicle.motorcycle": "motorcycle",
        "vehicle.construction": "other_vehicle",
        "vehicle.other": "other_vehicle",
        "human.pedestrian.adult": "pedestrian",
        "human.pedestrian.child": "pedestrian",
        "human.pedestrian.construction_worker": "pedestrian",
        "human.pedestrian.police_officer": "pedestrian",
        "movable_object.trafficcone": "traffic_cone",
        "static_object.traffic_sign": "traffic_sign",
        "vehicle.ego_trailer": "trailer",
        "vehicle.trailer": "trailer",
        "vehicle.truck": "truck",
    },
    attributes=(  # eval/detection/constants.py: ATTRIBUTE_NAMES; not checked against the class, as there
        "pedestrian.moving",
        "pedestrian.sitting_lying_down",
        "pedestrian.standing",
        "cycle.with_rider",
        "cycle.without_rider",
        "vehicle.moving",
        "vehicle.parked",
        "vehicle.stopped",
        "traffic_sign.pole_mounted",
        "traffic_sign.overhanging",
        "traffic_sign.temporary",
    ),
    drop_empty=True,
    regions={"static_object.bicycle_rack": ("bicycle", "motorcycle")},  # loaders.py: filter_eval_boxes
    max_boxes_per_frame=500,
)
