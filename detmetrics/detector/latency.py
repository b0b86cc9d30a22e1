"""What a configuration costs: parameters, operations, and time on the device at hand."""

from __future__ import annotations

import platform
import time
from typing import NamedTuple

import numpy as np

from detmetrics.detector.config import Config
from detmetrics.detector.decoding import decode
from detmetrics.detector.model import Detector
from detmetrics.detector.pillars import pillars
from detmetrics.detector.predicting import mixed
from detmetrics.extras import needs

with needs("detector"):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

#: What :func:`measure` counts, in words.
HOW = (
    "GFLOP: convolutions and linear layers of one cloud, a multiplication and an addition counted apart; "
    "time: from joined points in memory to boxes, random points in rings, 20 runs after 5"
)


class Cost(NamedTuple):
    """Of one sample."""

    n_parameters: int
    gflop: float
    median_ms: float
    p90_ms: float


def measure(config: Config, device: torch.device, *, n_runs: int = 20) -> Cost:
    """Measure an untrained model; few boxes pass its threshold, as with a trained one on an ordinary street."""
    model = Detector(config).on(device).eval()
    points = _points(config)
    seconds = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            _run(model, points, config, device)
        for _ in range(5 + n_runs):
            start = time.perf_counter()
            _run(model, points, config, device)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    times = 1e3 * np.array(seconds[5:])
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(n_parameters, counter.get_total_flops() / 1e9, float(np.median(times)), float(np.quantile(times, 0.9)))


def _run(model: Detector, points: np.ndarray, config: Config, device: torch.device) -> None:
    own = pillars(points, config)
    features, length, place = (torch.from_numpy(column).to(device) for column in own)
    with mixed(device):
        heat, images = model(features, length, place, 1)
        decode(model, heat, images)


def _points(config: Config) -> np.ndarray:
    """As many points as joined sweeps have, the nearer the denser, as a lidar's rings are."""
    rng = np.random.default_rng(0)
    n = 26_000 * config.n_sweeps
    radius, angle = 3 * (config.half_m / 3) ** rng.random(n), rng.uniform(0, 2 * np.pi, n)
    time_s = -rng.integers(0, config.n_sweeps, n) * 0.5 / max(config.n_sweeps - 1, 1)
    columns = [radius * np.cos(angle), radius * np.sin(angle), rng.normal(-1.5, 0.5, n), rng.random(n), time_s]
    return np.stack(columns, axis=1).astype(np.float32)


def device_text(device: torch.device) -> str:
    """Name the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} threads"
