"""Weights: how often each frame, event and truth counts. Slices and bootstrap only build these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError

Whole = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Weights:
    """Non-negative whole numbers; what is absent is 1; they compose by product.

    Attributes
    ----------
    frame : int64 (F,), optional
        Multiplicity of each frame: 0 and 1 choose frames, larger numbers repeat them.
    event : int64 (T, E), optional
        Multiplicity of each event at each threshold.
    truth : int64 (N_truth,), optional
        Multiplicity of each truth row.
    """

    frame: Whole | None = None
    event: Whole | None = None
    truth: Whole | None = None

    def checked(self, n_frames: int, n_thresholds: int, n_events: int, n_truth: int) -> Weights:
        """Give the weights as int64 of the right shapes, or an InputError that names the one that is wrong."""
        shapes = {"frame": (n_frames,), "event": (n_thresholds, n_events), "truth": (n_truth,)}
        fixed: dict[str, Whole | None] = {}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                fixed[name] = None
                continue
            array = np.asarray(value)
            if array.shape != shape:
                raise InputError(f"weights.{name}", expected=f"of shape {shape}", got=array.shape)
            if array.dtype.kind not in "iub":
                raise InputError(f"weights.{name}", expected="whole numbers", got=str(array.dtype))
            if array.size and array.min() < 0:
                raise InputError(f"weights.{name}", expected="zero or more", got=int(array.min()))
            fixed[name] = np.require(array, np.int64, ["C", "W"])  # one type for the kernels
        return Weights(**fixed)
