"""Losses: the focal loss of heatmaps on logits, and smooth L1 with a ``beta`` for each target."""

from __future__ import annotations

import math
from typing import NamedTuple

from detmetrics.detector.targets import PERIOD
from detmetrics.extras import needs

with needs("detector"):
    import torch
    from torch import Tensor
    from torch.nn import functional


class Part(NamedTuple):
    """How a part counts: smooth L1 is a parabola below ``beta`` and straight above it."""

    beta: float
    weight: float


#: ``beta`` is set where an error stops to matter for the scores: below it the pull fades, above it all errors pull
#: alike. 1.0, the usual default, would be a parabola over the whole range of a sine, and pull hardest on what is lost.
PARTS = {
    "offset": Part(0.1, 1.0),  # cells of 0.8 m: 8 cm, a sixth of the strictest threshold of 0.5 m
    "height": Part(0.1, 0.5),  # metres; no score of nuScenes looks at the height
    "size": Part(0.05, 1.0),  # logarithms: 5 %, about what annotators differ by; sizes spread by 8 %
    "heading": Part(0.1, 1.0),  # of a sine or cosine: 0.1 rad, half of the 0.2 that are aimed at
    "velocity": Part(0.25, 0.3),  # m/s: a pedestrian walks 1.3; the weight, since cars do 10
    "attribute": Part(0.0, 0.3),  # cross-entropy
}
HEAT_WEIGHT = 1.0


def focal(logits: Tensor, heat: Tensor, is_counted: Tensor) -> Tensor:
    """Focal loss of heatmaps, summed over cells of each class.

    The logarithms of p and 1 - p are taken from the logit x as -log(1 + exp(-x)) and -log(1 + exp(x)), each a
    log-sum-exp that neither over- nor underflows; a sigmoid followed by a log is infinite from x = 17 on (float32).

    Parameters
    ----------
    logits, heat : (B, C, n, n)
    is_counted : bool (B, C, n, n)

    Returns
    -------
    (C,)

    Notes
    -----
    H. Law and J. Deng, *CornerNet*, 2018, eq. 1, with α = 2 and β = 4.
    """
    x = logits.float()
    log_p, log_not = functional.logsigmoid(x), functional.logsigmoid(-x)
    is_center = heat == 1
    at_center = -(torch.exp(2 * log_not)) * log_p
    elsewhere = -torch.exp(2 * log_p) * log_not * (1 - heat) ** 4
    loss = torch.where(is_center, at_center, elsewhere) * is_counted
    return loss.sum(dim=(0, 2, 3))


def losses(
    heat_logits: Tensor, regressed: dict[str, Tensor], targets: dict[str, Tensor]
) -> tuple[Tensor, dict[str, float]]:
    """Total loss and its parts.

    Parameters
    ----------
    heat_logits : (B, C, n, n)
    regressed : dict
        See :meth:`detmetrics.detector.model.Heads.regress`.
    targets : dict
        The columns of :class:`detmetrics.detector.targets.Targets`.

    Notes
    -----
    The heatmap of a class is divided by its centres in the batch (and a few more, so that one centre of a rare class
    is not worth a whole batch of another), and classes are averaged, as mAP does.
    """
    heat, label = targets["heat"], targets["label"]
    n_centers = (heat == 1).sum(dim=(0, 2, 3)).float()
    parts = {"heat": HEAT_WEIGHT * (focal(heat_logits, heat, targets["is_counted"]) / (n_centers + 2)).mean()}
    weight = targets["weight"]
    values = dict(zip(("offset", "height", "size", "heading", "velocity"), _columns(targets["values"]), strict=True))
    for name, wanted in values.items():
        beta = PARTS[name].beta
        error = _smooth(regressed[name], wanted, beta)
        if name == "heading":  # where front and back look alike, the nearer of both
            is_alike = torch.from_numpy(2 * math.pi - 1e-6 > PERIOD).to(label.device)[label]
            error = torch.where(is_alike, torch.minimum(error, _smooth(regressed[name], -wanted, beta)), error)
        parts[name] = PARTS[name].weight * _mean(error, weight)
    known = targets["attribute"] >= 0
    entropy = functional.cross_entropy(regressed["attribute"], targets["attribute"].clamp(min=0), reduction="none")
    parts["attribute"] = PARTS["attribute"].weight * _mean(torch.where(known, entropy, torch.nan), weight)
    total = torch.stack(list(parts.values())).sum()
    return total, {name: float(part.detach()) for name, part in parts.items()}


def _columns(values: Tensor) -> tuple[Tensor, ...]:
    return values[:, :2], values[:, 2:3], values[:, 3:6], values[:, 6:8], values[:, 8:]


def _smooth(got: Tensor, wanted: Tensor, beta: float) -> Tensor:
    """Smooth L1, summed over the columns, NaN where the target is."""
    known = torch.nan_to_num(wanted)
    error = functional.smooth_l1_loss(got, known, beta=beta, reduction="none").sum(dim=1)
    return torch.where(wanted.isnan().any(dim=1), torch.nan, error)


def _mean(error: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of what is known; zero where nothing is."""
    known = ~error.isnan()
    weight = weight * known
    return (torch.where(known, error, 0) * weight).sum() / weight.sum().clamp(min=1.0)


def names() -> tuple[str, ...]:
    """Names of the parts, in order."""
    return ("heat", *PARTS)
