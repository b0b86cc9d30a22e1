"""How well fingerprints of clouds tell copies from others: python tests/looks/fingerprints.py DATAROOT [VERSION].

The figures in the docstring of detmetrics/detector/leaks.py are its output for
``detmetrics synth DATAROOT --train-scenes 2 --val-scenes 10 --seed 5``.
"""

from __future__ import annotations

import dataclasses
import sys

import numpy as np

from detmetrics.detector.leaks import SIMILARITY, fingerprint
from detmetrics.io.clouds import NuscenesClouds
from detmetrics.io.nuscenes import load_recordings, load_truth

RNG = np.random.default_rng(0)


def turned(points: np.ndarray, by_rad: float) -> np.ndarray:
    cos, sin = np.cos(by_rad), np.sin(by_rad)
    return points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def noisy(points: np.ndarray, by_m: float) -> np.ndarray:
    return points + RNG.normal(0, by_m, points.shape)


COPIES = {
    "the same": lambda points: points,
    "2 cm of noise": lambda points: noisy(points, 0.02),
    "5 cm of noise": lambda points: noisy(points, 0.05),
    "80 % of the points": lambda points: points[RNG.random(len(points)) < 0.8],
    "50 % of the points": lambda points: points[RNG.random(len(points)) < 0.5],
    "25 % of the points": lambda points: points[RNG.random(len(points)) < 0.25],
    "10 % of the points": lambda points: points[RNG.random(len(points)) < 0.1],
    "turned": lambda points: turned(points, RNG.uniform(0, 2 * np.pi)),
    "mirrored": lambda points: points * [1, -1, 1],
    "scaled by 2 %": lambda points: points * 1.02,
    "scaled by 5 %": lambda points: points * 1.05,
    "30 cm away": lambda points: points + np.array([0.3, 0, 0]),
    "turned, 70 %, 2 cm of noise": lambda points: noisy(
        turned(points[RNG.random(len(points)) < 0.7], RNG.uniform(0, 2 * np.pi)), 0.02
    ),
}


def main(dataroot: str, version: str | None = None) -> None:
    clouds = NuscenesClouds(dataroot, version)
    truth = load_truth(dataroot, version=version, scenes=list(load_recordings(dataroot, version)))
    scene = truth.frame_columns["scene"]
    every = [clouds.read(name) for name in truth.frames]
    prints = np.array([fingerprint(cloud) for cloud in every])
    alike = prints @ prints.T
    first, second = np.triu_indices(len(every), 1)
    others = alike[first, second][scene[first] != scene[second]]
    print(f"{len(every)} clouds of {len(np.unique(scene))} scenes; threshold {SIMILARITY}")
    print(
        f"{len(others):,} pairs of different scenes: largest {others.max():.4f}, {np.mean(others >= SIMILARITY):.2%} taken for copies"
    )
    near = np.flatnonzero(scene[1:] == scene[:-1])
    step_m = np.linalg.norm(truth.ego_xy_m[near + 1] - truth.ego_xy_m[near], axis=1)
    for name, rows in {"moves over 2 m": step_m > 2, "stands": step_m < 0.05}.items():
        values = alike[near, near + 1][rows]
        if len(values):
            print(
                f"{len(values)} neighbours, ego {name}: {values.min():.4f} to {values.max():.4f}, {np.mean(values >= SIMILARITY):.0%} taken for copies"
            )
    sample = range(0, len(every), 6)
    for name, copy in COPIES.items():
        copies = [dataclasses.replace(every[row], points_m=np.asarray(copy(every[row].points_m))) for row in sample]
        values = np.array([fingerprint(one) @ prints[row] for one, row in zip(copies, sample, strict=True)])
        print(f"{len(values)} copies, {name}: from {values.min():.4f}, {np.mean(values >= SIMILARITY):.0%} found")


if __name__ == "__main__":
    main(*sys.argv[1:])
