"""Samples to batches: read, vary, sort into pillars, draw targets; in worker processes of torch's loader."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detmetrics.detector import pillars as pillar_room
from detmetrics.detector import targets as target_room
from detmetrics.detector.augment import Bank, augmented
from detmetrics.detector.config import CLASSES, Augment, Config
from detmetrics.detector.pillars import Pillars, pillars
from detmetrics.detector.samples import Samples
from detmetrics.detector.targets import Targets, targets
from detmetrics.errors import InputError
from detmetrics.extras import needs
from detmetrics.geometry import Pose

with needs("detector"):
    import torch
    from torch import Tensor
    from torch.utils.data import DataLoader, Dataset


class Batch(NamedTuple):
    """Some samples: the arguments of the network, targets by name, poses and numbers of the samples."""

    features: Tensor
    length: Tensor
    place: Tensor
    targets: dict[str, Tensor]
    poses: list[Pose]
    numbers: list[int]

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.numbers)

    def to(self, device: torch.device) -> Batch:
        """Move the tensors."""
        features, length, place = (
            column.to(device, non_blocking=True) for column in (self.features, self.length, self.place)
        )
        wanted = {name: column.to(device, non_blocking=True) for name, column in self.targets.items()}
        return Batch(features, length, place, wanted, self.poses, self.numbers)


class _Item(NamedTuple):
    pillars: Pillars
    targets: Targets
    pose: Pose
    number: int


class _Items(Dataset[_Item | InputError]):
    """Draws of samples: the position in the epoch decides how one is varied, whichever worker does it.

    An error is given, not raised: torch would make one text of it and the worker's traceback.
    """

    def __init__(
        self, samples: Samples, numbers: NDArray[np.int64], augment: Augment | None, bank: Bank | None, seed: list[int]
    ) -> None:
        self.samples, self.numbers, self.augment, self.bank, self.seed = samples, numbers, augment, bank, seed

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> _Item | InputError:
        number = int(self.numbers[position])
        try:
            sample = self.samples.read(number)
        except InputError as error:
            return error
        if self.augment is not None:
            rng = np.random.default_rng([*self.seed, position])
            sample = augmented(sample, self.augment, self.bank, rng)
        config = self.samples.config
        return _Item(pillars(sample.points, config), targets(sample.objects, config), sample.pose, number)


def loader(
    samples: Samples,
    numbers: NDArray[np.int64],
    batch: int,
    *,
    augment: Augment | None = None,
    bank: Bank | None = None,
    seed: list[int] | None = None,
    workers: int = 1,
    pin: bool = False,
) -> Iterator[Batch]:
    """Give batches of the samples with these numbers, in this order.

    Parameters
    ----------
    samples : Samples
    numbers : int64 (N,)
    batch : int
    augment, bank, seed
        Whether and how samples are varied; with the same seed and position, always alike.
    workers : int
        Processes; 0: none.
    pin : bool
        Memory that a GPU copies from by itself.

    Raises
    ------
    InputError
        See :meth:`detmetrics.detector.samples.Samples.read`; the same from a worker process.
    """
    batches: DataLoader[_Item | InputError] = DataLoader(
        _Items(samples, numbers, augment, bank, seed or [0]),
        batch_size=batch,
        collate_fn=partial(_batch_of, config=samples.config),
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
    )
    for found in batches:
        if isinstance(found, InputError):
            raise found
        yield found


def _batch_of(items: list[Any], config: Config) -> Batch | InputError:
    """Put items together, or give the first error."""
    for item in items:
        if isinstance(item, InputError):
            return item
    columns = pillar_room.stacked([item.pillars for item in items], config)
    wanted = target_room.stacked([item.targets for item in items], config)
    return Batch(
        torch.from_numpy(columns.features),
        torch.from_numpy(columns.length),
        torch.from_numpy(columns.place),
        {name: torch.from_numpy(column) for name, column in wanted._asdict().items()},
        [item.pose for item in items],
        [item.number for item in items],
    )


def draw(samples: Samples, n: int, balance: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the samples of an epoch.

    A share ``balance`` of the draws picks a class first and then a sample that has it (B. Zhu et al., *Class-balanced
    Grouping and Sampling*, 2019); the rest is a shuffle of all.
    """
    having: list[list[int]] = [[] for _ in CLASSES]
    for number in range(len(samples)):
        for label in np.unique(samples.labels(number)).tolist():
            having[label].append(number)
    known = [numbers for numbers in having if numbers]
    n_balanced = round(balance * n) if known else 0
    plain = np.concatenate([rng.permutation(len(samples)) for _ in range(-(-n // len(samples)))])[: n - n_balanced]
    balanced = [rng.choice(known[i % len(known)]) for i in range(n_balanced)]
    return rng.permutation(np.concatenate([plain, np.array(balanced, np.int64)]).astype(np.int64))
