"""Argoverse 2 sensor data set, 3D detection, as av2 0.3.6 computes it without maps.

Sources: argoverse/av2-api @ b7321d1, ``av2/evaluation/detection/eval.py``, ``utils.py``, ``constants.py``,
``av2/geometry/iou.py``; B. Wilson et al., *Argoverse 2*, NeurIPS Datasets and Benchmarks 2021, section 4.2.

Boxes are in the ego frame. Formulas. AP of a class and distance: mean over the recalls 0, 0.01, … 1.00 of the highest
precision at that recall or a later one; AP of a class is the mean over four distances. The errors are plain means over
the matches below 2 m. CDS of a class = AP (3 - ATE / 2 - ASE - AOE / π) / 3, and CDS is the mean over classes. Nothing
is rounded; the official table has three decimals.

**Not the official setting in one thing**: the leaderboard counts only boxes that touch the drivable area or the 5 m
around it, which needs the maps. These rules are those of ``eval_only_roi_instances=False``, and every signature says
``roi:off``.

Reproduced, since official numbers depend on it:

- (a) each detection claims its nearest truth, however far, and the first claim, by score, is the only one: a confident
  detection 30 m away takes a truth from a good one, and a detection whose truth is taken gets no other;
- (d) heights count: range, matching and ATE are distances in space;
- (f) ASE is 1 - Π min / Π max of the sides, which is not the IoU that the paper and nuScenes have;
- headings are the z angle of extrinsic x, y, z Euler angles, 0 in gimbal lock (``detmetrics.io.argoverse2``);
- of the detections in range only the 100 best count in a sweep and category;
- precision is tp / (tp + fp + 2⁻⁵²);
- a category without truth has AP and CDS 0, ATE 2, ASE 1, AOE π, and all are averaged.

Not reproduced:

- (b) truths that are marked as matched whatever the distance: the mark enters no number;
- (c) with other than four thresholds the package writes into wrong columns: ours takes any thresholds;
- (e) the hierarchical AP of the long-tail challenge (its ``taken`` notes the wrong truth) is another metric;
- two headings exactly 2π apart (-π and π) count as an error of π there, 0 here;
- equal scores: the official order within a sweep is that of an unstable sort, here always that of the file;
- detections of categories that are not evaluated are left out there, refused here; detections in sweeps without
  annotations are false positives there, refused here unless the truth lists those sweeps (``load_truth(sweeps=…)``).

Parity: every AP, error, CDS and mean within 1e-12 of the package before its rounding; see ``tests/parity``.
"""

from __future__ import annotations

from math import pi

from detmetrics.protocol import Affinity, Composite, Curve, Protocol, Task, TpError

MAX_RANGE_M = 150.0  # utils.py: DetectionCfg.max_range_m; older text says 200

ARGOVERSE2 = Protocol(
    name="argoverse2|sensor_detection",
    tasks=tuple(
        Task(label=label, range_m=MAX_RANGE_M)
        for label in (  # evaluation/__init__.py: SensorCompetitionCategories
            "ARTICULATED_BUS",
            "BICYCLE",
            "BICYCLIST",
            "BOLLARD",
            "BOX_TRUCK",
            "BUS",
            "CONSTRUCTION_BARREL",
            "CONSTRUCTION_CONE",
            "DOG",
            "LARGE_VEHICLE",
            "MESSAGE_BOARD_TRAILER",
            "MOBILE_PEDESTRIAN_CROSSING_SIGN",
            "MOTORCYCLE",
            "MOTORCYCLIST",
            "PEDESTRIAN",
            "REGULAR_VEHICLE",
            "SCHOOL_BUS",
            "SIGN",
            "STOP_SIGN",
            "STROLLER",
            "TRUCK",
            "TRUCK_CAB",
            "VEHICULAR_TRAILER",
            "WHEELCHAIR",
            "WHEELED_DEVICE",
            "WHEELED_RIDER",
        )
    ),
    affinity=Affinity(kind="center_xyz", thresholds=(0.5, 1.0, 2.0, 4.0), error_threshold=2.0),
    assignment="nearest_then_first",
    range_kind="space",
    ties="earlier_first",  # eval.py: summarize_metrics sorts stably
    curve=Curve(kind="envelope", n_samples=101, error_mean="plain"),
    errors=(  # constants.py: the worst values are also what the errors are divided by
        TpError(name="ATE", key="ATE", kind="translation_xyz", unit="m", worst=2.0, scale=2.0),
        TpError(name="ASE", key="ASE", kind="scale_max", unit="1 - Π min / Π max", worst=1.0, scale=1.0),
        TpError(name="AOE", key="AOE", kind="orientation", unit="rad", worst=pi, scale=pi),
    ),
    composite=Composite(name="CDS", key="cds", kind="class_product", error_weights={"ATE": 1, "ASE": 1, "AOE": 1}),
    drop_empty=True,
    cap_per_task=100,  # utils.py: DetectionCfg.max_num_dts_per_category
    caveats=("roi:off",),
)
