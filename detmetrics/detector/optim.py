"""The optimiser: groups of parameters, the learning rate over time, and a running mean of the weights."""

from __future__ import annotations

import math

from detmetrics.detector.config import TrainPlan
from detmetrics.detector.model import MODEL_PARTS, Detector
from detmetrics.errors import InputError
from detmetrics.extras import needs

with needs("detector"):
    import torch
    from torch import nn


def optimizer(model: Detector, plan: TrainPlan) -> torch.optim.AdamW:
    """Give AdamW over what is trained.

    A group for each part of the model and whether it decays: weights of convolutions and linear layers do, norms and
    biases do not, since pulling a scale or a shift to zero regularises nothing. ``scale`` of a group is the factor on
    the learning rate. What is frozen has no gradient and no group, and its normalisations keep their statistics, see
    :func:`set_training`.

    Raises
    ------
    InputError
        For an unknown part, or where nothing is left to be trained.
    """
    for option, names in (("--freeze", plan.freeze), ("--lr-scale", tuple(plan.lr_scale))):
        for name in names:
            if name not in MODEL_PARTS:
                raise InputError(option, expected=f"parts of {', '.join(MODEL_PARTS)}", got=name)
    groups = []
    for part in MODEL_PARTS:
        parameters = list(getattr(model, part).parameters())
        for parameter in parameters:
            parameter.requires_grad_(part not in plan.freeze)
        if part in plan.freeze:
            continue
        scale = plan.lr_scale.get(part, 1.0)
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            groups.append({"params": chosen, "weight_decay": plan.decay if decays else 0.0, "scale": scale})
    if not groups:
        raise InputError("--freeze", expected="to leave a part that is trained", got=",".join(plan.freeze))
    return torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.99))


def set_training(model: Detector, plan: TrainPlan) -> None:
    """Put the model in training mode, frozen parts apart."""
    model.train()
    for part in plan.freeze:
        getattr(model, part).eval()


def rate(plan: TrainPlan, step: int, n_steps: int) -> float:
    """Learning rate of a step: up in a line during the warm-up, then half a cosine down to zero."""
    warmup = max(plan.warmup * n_steps, 1.0)
    if step < warmup:
        return plan.lr * (step + 1) / (warmup + 1)
    return plan.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(n_steps - warmup, 1.0)))


class Mean:
    """Exponential moving average of weights and of the statistics of normalisations (T. Polyak's averaging).

    In the first steps it forgets faster, so that it is not made of the initial weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - keep)
            else:
                self.state[name].copy_(value)
