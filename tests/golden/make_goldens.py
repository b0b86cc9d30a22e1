"""Write the goldens: inputs and what the official evaluator makes of them. Run in .venv-parity: `make goldens`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "parity"), str(HERE.parents[1])]

import oracle_argoverse2  # noqa: E402
import oracle_truckscenes  # noqa: E402
from test_parity_truckscenes import TAG_NAMES, TRUCK, UNDEFINED_TAGS, described  # noqa: E402

import make  # noqa: E402
import oracle  # noqa: E402

SETS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (1, {}),
    "ties": (2, {"grid_m": 0.5, "score_digits": 1, "n_frames": 5}),
    "racks": (3, {"racks": 2, "classes": ("bicycle", "motorcycle", "car"), "n_truth": 14}),
    "custom_split": (4, {"partial": True, "extra_frames": 2, "score_digits": 1}),
    "unknown": (5, {"nan_velocity": 0.6, "nan_first": True, "no_attribute": 0.5, "absent": ("bus",)}),
    "edges": (6, {"edges": True, "extreme_scores": True, "empty": 0.3}),
}

SWEEPS: dict[str, tuple[int, dict[str, Any]]] = {
    "argoverse2_plain": (1, {"absent": ("BOLLARD",), "tilted": True}),
    "argoverse2_hogs": (2, {"hogs": 0.8, "spread_m": 10.0}),
    "argoverse2_cap_and_edges": (3, {"crowd": 130, "edges": True, "n_frames": 2, "n_false": 2}),
}


def rounded(columns: dict[str, Any]) -> dict[str, Any]:
    """Inputs of nine digits, to keep the files small; the golden is what the devkit makes of these."""

    def cut(value: Any) -> Any:
        if isinstance(value, list):
            return [cut(entry) for entry in value]
        return float(f"{value:.9g}") if isinstance(value, float) else value

    exact = {"rotation_wxyz", "yaw_rad", "score"}  # yaw and rotation say the same; ties must stay
    return {name: column if name in exact else cut(column) for name, column in columns.items()}


def write(name: str, golden: dict[str, Any], score: float) -> None:
    path = HERE / f"{name}.json"
    path.write_text(json.dumps(golden) + "\n")
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB, {score:.6f}")


def sweeps(name: str, seed: int, knobs: dict[str, Any]) -> None:
    """Argoverse 2: the rounded inputs are what the package gets, too."""
    inputs = [rounded(make.to_columns(boxes)) for boxes in make.sweeps(seed, **knobs)]
    truth, pred = (make.from_columns(columns) for columns in inputs)
    table = oracle_argoverse2.evaluate(oracle_argoverse2.table(pred), oracle_argoverse2.table(truth))
    golden = {
        "made by": f"av2 {oracle_argoverse2.PACKAGE}, before its rounding, without maps, `make goldens`",
        "protocol": "argoverse2",
        "set": {"seed": seed, "knobs": knobs},
        "truth": inputs[0],
        "pred": inputs[1],
        "table": table,
    }
    write(name, golden, table["AVERAGE_METRICS"]["CDS"])


def truckscenes(name: str, seed: int) -> None:
    """MAN TruckScenes, with a few tags."""
    knobs = {**TRUCK, "n_frames": 4, "n_truth": 12, "classes": ("car", "animal", "traffic_sign", "other_vehicle")}
    scene = make.scene(seed, **knobs)
    inputs = [rounded(make.to_columns(boxes)) for boxes in scene]
    description = described(scene[0], seed).frame_columns["description"].tolist()
    inputs[0]["frame_columns"] = {"description": description}
    truth, pred = (make.from_columns(columns) for columns in inputs)
    official, curves = oracle_truckscenes.in_memory(truth, pred, tags=True)
    in_part = [tag for tag in TAG_NAMES if 0 < sum(tag in text for text in description) < len(description)]
    some = [tag for tag in in_part if tag not in UNDEFINED_TAGS][:3]
    golden = {
        "made by": f"truckscenes-devkit {oracle_truckscenes.DEVKIT}, `make goldens`",
        "protocol": "truckscenes",
        "set": {"seed": seed, "knobs": knobs},
        "truth": inputs[0],
        "pred": inputs[1],
        "summary": official["all"],
        "tags": {tag: official[tag] for tag in some},
        "curves": {key: curve for key, curve in curves.items() if key in ("car:2.0", "traffic_sign:4.0")},
    }
    write(name, golden, official["all"]["nd_score"])


def main() -> None:
    for name, (seed, knobs) in SWEEPS.items():
        sweeps(name, seed, knobs)
    truckscenes("truckscenes_tags", 1)
    for name, (seed, knobs) in SETS.items():
        inputs = [rounded(make.to_columns(boxes)) for boxes in make.scene(seed, **knobs)]
        truth, pred = (make.from_columns(columns) for columns in inputs)
        official = oracle.in_memory(truth, pred)
        curves = {
            key: official.details[key] for key in list(official.details) if max(official.details[key]["precision"]) > 0
        }
        golden = {
            "made by": f"nuscenes-devkit {oracle.DEVKIT}, `make goldens`",
            "set": {"seed": seed, "knobs": knobs},
            "truth": inputs[0],
            "pred": inputs[1],
            "summary": official.summary,
            "curves": dict(list(curves.items())[:6]),
        }
        write(name, golden, official.summary["nd_score"])


if __name__ == "__main__":
    main()
