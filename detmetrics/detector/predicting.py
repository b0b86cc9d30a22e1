"""Predictions of a detector for the samples of a split, and how well they score."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.detector.decoding import MIN_SCORE, decode, in_the_world
from detmetrics.detector.loading import loader
from detmetrics.detector.losses import losses
from detmetrics.detector.model import Detector
from detmetrics.detector.samples import Samples
from detmetrics.errors import InputError
from detmetrics.extras import needs

with needs("detector"):
    import torch

Progress = Callable[[int, int], None]


def device_named(name: str) -> torch.device:
    """Give the device of a name; ``auto`` is CUDA where there is one.

    Raises
    ------
    InputError
        Where it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError("--device", expected="auto, cpu or cuda", got=name) from None
    if device.type not in ("cpu", "cuda"):
        raise InputError("--device", expected="auto, cpu or cuda", got=name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device", expected="one that is there: torch finds no CUDA", got=name)
    return device


def mixed(device: torch.device) -> AbstractContextManager[object]:
    """Give bf16 where it pays, on CUDA; it needs no scaling of the loss, unlike fp16. CPUs without AMX lose by it."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


@torch.inference_mode()
def predict(
    model: Detector,
    samples: Samples,
    numbers: NDArray[np.int64] | None = None,
    *,
    device: torch.device | None = None,
    batch: int = 4,
    workers: int = 1,
    min_score: float = MIN_SCORE,
    losses_out: list[dict[str, float]] | None = None,
    progress: Progress | None = None,
) -> Boxes:
    """Find the objects of samples.

    Parameters
    ----------
    model : Detector
    samples : Samples
        Read under the configuration of the model.
    numbers : int64 (N,), optional
        Which samples; default: all.
    device, batch, workers
    min_score : float
        Boxes below are left out.
    losses_out : list, optional
        Gets the parts of the loss of each batch, for validation.
    progress : callable, optional
        Called with the samples done and in all.

    Returns
    -------
    Boxes
        In the global frame, for :func:`detmetrics.evaluate` or a result file.

    Raises
    ------
    InputError
        See :meth:`detmetrics.detector.samples.Samples.read`.
    """
    device = device or torch.device("cpu")
    numbers = np.arange(len(samples)) if numbers is None else numbers
    model = model.on(device).eval()
    found, poses, done = [], [], 0
    for own in loader(samples, numbers, batch, workers=workers, pin=device.type == "cuda"):
        moved = own.to(device)
        with mixed(device):
            heat, images = model(moved.features, moved.length, moved.place, moved.n)
            if losses_out is not None:
                regressed = model.heads.regress(images, moved.targets["place"], moved.targets["group"])
                losses_out.append(losses(heat, regressed, moved.targets)[1])
            found += decode(model, heat, images, min_score=min_score)
        poses += moved.poses
        done += moved.n
        if progress:
            progress(done, len(numbers))
    return in_the_world(found, poses, [samples.tokens[number] for number in numbers], f"detector {model.config.name}")
