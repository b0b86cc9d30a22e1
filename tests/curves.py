"""Made-up curves of known kinds, noisy ones too: what the diagnosis of a run is tested on."""

from __future__ import annotations

import numpy as np

from detmetrics.detector.history import History

KINDS = ("diverged", "overfitting", "too noisy", "still learning", "underfitting", "plateau", "healthy")


def made(kind: str, n: int, noise: float, seed: int, *, regularised: bool | None = None) -> History:
    """A run of ``n`` epochs; ``noise`` is the standard deviation of validation as a share, training has a third of it."""
    rng = np.random.default_rng([seed, n, KINDS.index(kind), round(1e4 * noise)])
    e = np.arange(n) / (n - 1)  # 0 … 1
    floor = rng.uniform(0.1, 0.5)  # what is left in the end

    def decay(tau: float, bottom: float) -> np.ndarray:
        return bottom + (1 - bottom) * np.exp(-e / tau)

    gap = 1 + rng.uniform(0.0, 0.3)
    train, val = decay(rng.uniform(0.1, 0.14), floor), decay(rng.uniform(0.1, 0.14), floor) * gap
    if kind == "overfitting":
        turn, height = rng.uniform(0.25, 0.55), rng.uniform(0.1, 0.5)
        val = decay(turn / 5, floor) * gap * (1 + height * np.maximum(e - turn, 0) / (1 - turn))
        train = train * np.exp(-rng.uniform(0.2, 0.8) * e)
    elif kind == "too noisy":
        noise = rng.uniform(0.35, 0.6) * max(1.0, (n / 15) ** 0.5)
    elif kind == "still learning":
        tau = rng.uniform(0.7, 1.5)
        train, val = decay(tau, floor), decay(tau, floor) * gap
    elif kind == "underfitting":
        bottom = rng.uniform(0.85, 0.97)
        train, val = decay(0.12, bottom), decay(0.12, bottom) * (1 + rng.uniform(0, 0.05))
    elif kind == "plateau":
        tau = rng.uniform(0.02, 0.05)
        train, val = decay(tau, floor), decay(tau, floor) * gap
        train = train * np.exp(-rng.uniform(0, 0.3) * e)
    elif kind == "diverged":
        begin = rng.uniform(0.3, 0.7)
        blow = np.exp(rng.uniform(1.5, 4) * np.maximum(e - begin, 0) / (1 - begin))
        train, val = train * blow, val * blow
    if regularised is None:
        regularised = bool(rng.random() < 0.3)
    if regularised:  # dropout and augmentation make training the harder task
        train = train * rng.uniform(1.2, 1.8)
    scale = np.exp(rng.uniform(-3, 3))
    train = scale * train * np.exp(rng.normal(0, noise / 3, n))
    val = scale * val * np.exp(rng.normal(0, noise, n))
    if kind == "diverged" and rng.random() < 0.3:
        train[-1] = np.nan
    none = np.full(n, np.nan)
    return History(np.arange(1, n + 1), none, train, val, none, none, none, none, none, {}, {}, (), "made up")


def confusion(ns: tuple[int, ...], noises: tuple[float, ...], seeds: range) -> dict[str, dict[str, float]]:
    """Share of each diagnosis, by true kind."""
    from detmetrics.detector.learning import diagnose

    table: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        told = [diagnose(made(kind, n, noise, seed)).kind for n in ns for noise in noises for seed in seeds]
        table[kind] = {name: told.count(name) / len(told) for name in sorted(set(told), key=told.count, reverse=True)}
    return table


if __name__ == "__main__":
    for length, ns in {"short": (5, 6, 8, 10), "long": (20, 40, 100)}.items():
        for noise in (0.005, 0.02, 0.05):
            print(f"{length} runs, noise {noise:.1%}")
            for kind, row in confusion(ns, (noise,), range(1000, 1200)).items():
                print(f"  {kind:15}", ", ".join(f"{name} {share:.1%}" for name, share in row.items()))
