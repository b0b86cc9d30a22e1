"""Write the goldens: inputs and what the official evaluator makes of them. Run in .venv-parity: `make goldens`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "parity"), str(HERE.parents[1])]

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


def rounded(columns: dict[str, Any]) -> dict[str, Any]:
    """Inputs of nine digits, to keep the files small; the golden is what the devkit makes of these."""

    def cut(value: Any) -> Any:
        if isinstance(value, list):
            return [cut(entry) for entry in value]
        return float(f"{value:.9g}") if isinstance(value, float) else value

    exact = {"rotation_wxyz", "yaw_rad", "score"}  # yaw and rotation say the same; ties must stay
    return {name: column if name in exact else cut(column) for name, column in columns.items()}


def main() -> None:
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
        path = HERE / f"{name}.json"
        path.write_text(json.dumps(golden) + "\n")
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB, NDS {official.summary['nd_score']:.6f}")


if __name__ == "__main__":
    main()
