"""The MAN TruckScenes formats: tables to truth with the scene tags as columns; result files are those of nuScenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detmetrics.boxes import Boxes
from detmetrics.errors import InputError
from detmetrics.io import _tables
from detmetrics.io._truckscenes_splits import SPLITS
from detmetrics.io.nuscenes import load_results, write_results

__all__ = ["TAG_GROUPS", "TAG_NAMES", "has_tag", "load_results", "load_truth", "write_results"]

CHANNEL = "LIDAR_LEFT"  # eval/common/loaders.py: add_center_dist

#: Tags by group, in the devkit's order (1.2.0, ``eval/common/constants.py: TAG_NAMES``). The tag ``clear`` of the group
#: ``weather`` is written ``weather.clear`` in a scene's description.
TAG_GROUPS: dict[str, tuple[str, ...]] = {
    "weather": ("clear", "rain", "snow", "fog", "hail", "overcast", "other_weather"),
    "area": ("highway", "rural", "terminal", "parking", "city", "residential", "other_area"),
    "daytime": ("morning", "noon", "evening", "night"),
    "season": ("spring", "summer", "autumn", "winter"),
    "lighting": ("illuminated", "glare", "dark", "twilight", "other_lighting"),
    "structure": ("tunnel", "bridge", "underpass", "overpass", "regular"),
    "construction": ("roadworks", "unchanged"),
}
#: Every tag, ``group.name``.
TAG_NAMES = tuple(f"{group}.{name}" for group, names in TAG_GROUPS.items() for name in names)


def load_truth(
    dataroot: str | Path,
    *,
    version: str | None = None,
    split: str | None = None,
    scenes: list[str] | None = None,
    cache: bool = True,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Boxes:
    """Read truth from the tables of MAN TruckScenes.

    Parameters
    ----------
    dataroot, version, split, scenes, cache, progress, notice
        As for :func:`detmetrics.io.nuscenes.load_truth`; the predefined splits are train, val, train_detect,
        train_track, test, mini_train and mini_val of this data set.

    Returns
    -------
    Boxes
        As there, with ego where LIDAR_LEFT has its key frame; and a frame column for each group of tags (``weather``,
        ``area``, ``daytime``, ``season``, ``lighting``, ``structure``, ``construction``): the tag of the sample's scene
        without its group, e.g. ``rain``; several joined by ``;``; empty without one. The tags as they are written
        stand in the frame column ``description``.

    Raises
    ------
    InputError
        See there.
    """
    truth = _tables.load_truth(
        dataroot,
        version=version,
        split=split,
        scenes=scenes,
        channel=CHANNEL,
        splits=SPLITS,
        cache=cache,
        progress=progress,
        notice=notice,
    )
    return truth.replace(frame_columns={**truth.frame_columns, **tag_columns(truth.frame_columns["description"])})


def tag_columns(description: NDArray[np.str_]) -> dict[str, NDArray[np.str_]]:
    """Split descriptions (F,) of scenes, tags joined by ``;``, into a column (F,) a group."""
    scenes, code = np.unique(description, return_inverse=True)
    tags = [set(text.split(";")) for text in scenes.tolist()]
    return {
        group: np.array([";".join(name for name in names if f"{group}.{name}" in here) for here in tags], dtype=str)[
            code
        ]
        for group, names in TAG_GROUPS.items()
    }


def has_tag(truth: Boxes, tag: str) -> NDArray[np.int64]:
    """Give 1 for frames of scenes with a tag and 0 for the others, (F,): weights of frames.

    ``score(ledger, Weights(frame=has_tag(truth, tag)), absent="official")`` gives the devkit's score of a tag, but for
    those of :data:`detmetrics.protocols.truckscenes.UNDEFINED_TAGS`, which it sets to NaN.

    Parameters
    ----------
    truth : Boxes
        With the frame column ``description``.
    tag : str
        One of :data:`detmetrics.io.truckscenes.TAG_NAMES`, e.g. ``"weather.rain"``.

    Raises
    ------
    InputError
        If there is no such tag, or truth has no descriptions.
    """
    if tag not in TAG_NAMES:
        raise InputError("tag", expected=f"one of {', '.join(TAG_NAMES)}", got=tag)
    if "description" not in truth.frame_columns:
        raise InputError(f"{truth.source} has no frame column description, so no tags")
    scenes, code = np.unique(truth.frame_columns["description"], return_inverse=True)
    mask: NDArray[np.int64] = np.array([tag in text.split(";") for text in scenes.tolist()], np.int64)[code]
    return mask
