"""nuScenes detection, ``detection_cvpr_2019``, as nuscenes-devkit 1.2.0 computes it.

Sources: nutonomy/nuscenes-devkit @ d9de17a, ``eval/detection/configs/detection_cvpr_2019.json``, ``algo.py``,
``utils.py``, ``evaluate.py``, ``eval/common/loaders.py``; H. Caesar et al., *nuScenes*, CVPR 2020, section 3.

Formulas. AP of a class and distance: precision at the recalls 0.11, 0.12, … 1.00, less 0.1, floored at 0, averaged,
divided by 0.9; mAP is the mean over classes and the four distances. The errors are means over recall 0.11 … the last
recall reached of the running mean of each error. NDS = (5 mAP + Σ max(0, 1 - error)) / 10.

Reproduced, since official numbers depend on it:

- among equal scores the later box of the file goes first;
- a distance equal to the threshold is no match;
- a class without truth has AP 0 and errors 1, and both are averaged;
- unknown predicted velocities are left out of AVE, leading ones count as error 0;
- a class whose truth has no attribute has AAE 1;
- a true positive of score exactly 0 reads as recall not reached;
- 0.10 recall scores nothing; the grid is ``np.linspace(0, 1, 101)``, above i/100 at ten places;
- truth and predictions are filtered apart, so a pair across the range limit is a false positive or a miss.

Refused instead of reproduced: a sample token inside a box other than the one that it is filed under, negative scores,
sizes that are not positive, zero quaternions. A detector that finds nothing at all scores 0 (officially: a crash).

Parity: every AP, error, mean and curve within 1e-12 of the devkit; see ``tests/parity`` and ``tests/bench/results.md``.
"""

from __future__ import annotations

from math import pi

from detmetrics.protocol import Affinity, Composite, Curve, Protocol, Task, TpError

NUSCENES = Protocol(
    name="nuscenes|detection_cvpr_2019",
    tasks=(
        Task(label="car", range_m=50),
        Task(label="truck", range_m=50),
        Task(label="bus", range_m=50),
        Task(label="trailer", range_m=50),
        Task(label="construction_vehicle", range_m=50),
        Task(label="pedestrian", range_m=40),
        Task(label="motorcycle", range_m=40),
        Task(label="bicycle", range_m=40),
        # evaluate.py: cones have neither a front nor a motion, barriers no motion
        Task(label="traffic_cone", range_m=30, undefined=("AOE", "AVE", "AAE")),
        # algo.py: front and back of a barrier look alike
        Task(label="barrier", range_m=30, yaw_period_rad=pi, undefined=("AVE", "AAE")),
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
        "movable_object.barrier": "barrier",
        "vehicle.bicycle": "bicycle",
        "vehicle.bus.bendy": "bus",
        "vehicle.bus.rigid": "bus",
        "vehicle.car": "car",
        "vehicle.construction": "construction_vehicle",
        "vehicle.motorcycle": "motorcycle",
        "human.pedestrian.adult": "pedestrian",
        "human.pedestrian.child": "pedestrian",
        "human.pedestrian.construction_worker": "pedestrian",
        "human.pedestrian.police_officer": "pedestrian",
        "movable_object.trafficcone": "traffic_cone",
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
    ),
    drop_empty=True,
    regions={"static_object.bicycle_rack": ("bicycle", "motorcycle")},  # loaders.py: filter_eval_boxes
    max_boxes_per_frame=500,
)
