"""Themes: the colours of points, boxes and text, on dark and on light ground."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from detmetrics.errors import InputError, listing

Colors = NDArray[np.uint8]

#: What points can be coloured by, each with its ramp; a cloud of one sweep has no "time".
POINT_MODES = ("height", "intensity", "distance", "time")
#: What boxes can be coloured by.
BOX_MODES = ("outcome", "class", "score")


@dataclass(frozen=True)
class Theme:
    """Colours as ``#rrggbb``.

    Attributes
    ----------
    name : str
    background, text, faint, panel : str
        Ground, writing, range rings and quiet writing, ground of writing.
    ego, match : str
        The own car; lines from predictions to their truths.
    outcomes : tuple of str
        One colour for each :class:`detmetrics_viz.outcomes.Outcome`.
    classes : tuple of str
        Colours of classes in their order, used again where there are more.
    ramps : dict of str to tuple of str
        Stops of the colour ramps, lowest first, evenly spaced; one for each of
        :data:`detmetrics_viz.themes.POINT_MODES`, and ``score``.
    """

    name: str
    background: str
    text: str
    faint: str
    panel: str
    ego: str
    match: str
    outcomes: tuple[str, ...]
    classes: tuple[str, ...]
    ramps: dict[str, tuple[str, ...]]

    @cached_property
    def outcome_colors(self) -> Colors:
        """Colours of outcomes, uint8 (7, 3)."""
        return np.array([rgb(color) for color in self.outcomes], np.uint8)

    def class_colors(self, n_classes: int) -> Colors:
        """Colours of the first classes, uint8 (n_classes, 3)."""
        colors = np.array([rgb(color) for color in self.classes], np.uint8)
        return colors[np.arange(n_classes) % len(colors)]

    @cached_property
    def lookup(self) -> dict[str, Colors]:
        """For each ramp its 256 colours, uint8 (256, 3): what the shades of a scene point into."""
        return {name: _ramp(stops) for name, stops in self.ramps.items()}


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of ``#rrggbb``."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def theme_of(name: str) -> Theme:
    """Give a theme by name.

    Raises
    ------
    InputError
        For a name that is none.
    """
    if name not in THEMES:
        raise InputError("theme", expected=f"one of {listing(THEMES)}", got=name)
    return THEMES[name]


def _ramp(stops: tuple[str, ...]) -> Colors:
    """Blend stops in linear light, so that the middle of two bright colours is no darker than both."""
    light = (np.array([rgb(color) for color in stops]) / 255.0) ** 2.2
    at = np.linspace(0, 1, 256)
    blend = np.stack([np.interp(at, np.linspace(0, 1, len(stops)), light[:, i]) for i in range(3)], axis=-1)
    return np.round(255 * blend ** (1 / 2.2)).astype(np.uint8)


# Outcomes stand in the order of Outcome: true positive, false positive, missed, found truth, not counted, truth,
# prediction. Right is a bluish green, wrong is amber and red: they differ in lightness too, for those who tell red from
# green badly.
DARK = Theme(
    name="dark",
    background="#0c1016",
    text="#e8edf4",
    faint="#3a4552",
    panel="#141b24",
    ego="#8fa3b8",
    match="#e8edf4",
    outcomes=("#2ee6a6", "#ffb224", "#ff4d57", "#7f9dbd", "#56616e", "#5ad1ff", "#ffd166"),
    classes=(
        *("#ff9f43", "#4dabff", "#f368e0", "#ffd93d", "#2ee6a6", "#ff6b6b", "#a98bff", "#7ee0ff"),
        *("#c6e377", "#e8a87c", "#ff8fab", "#9fb4c8"),
    ),
    ramps={
        "height": ("#28406e", "#3566a8", "#3aa0c9", "#55cdb4", "#b5e48c", "#f4f1a0", "#ffd9a0"),
        "intensity": ("#2b3550", "#4a5f95", "#8a7fc0", "#d98fb0", "#ffc38a", "#fff3c4"),
        "distance": ("#f7f4c8", "#8fe0b0", "#41b6c4", "#3c7fc0", "#3a4f9c", "#33376b"),
        "time": ("#ffe9a8", "#ff9f6b", "#d6608c", "#7c4a9e", "#3a3570"),
        "score": ("#5b6ee1", "#8a6fe8", "#d36fd0", "#ff8a7a", "#ffd166"),
    },
)
LIGHT = Theme(
    name="light",
    background="#fbfbf9",
    text="#1b2430",
    faint="#cfd5db",
    panel="#ffffff",
    ego="#5b6b7c",
    match="#1b2430",
    outcomes=("#00895e", "#d97800", "#e0182d", "#5a7fa8", "#b3bac2", "#0072c6", "#b07c00"),
    classes=(
        *("#d9660a", "#1668c7", "#b8279f", "#a88400", "#00895e", "#cf2f2f", "#6a45d1", "#0d8fb3"),
        *("#5d8a00", "#9c5a2e", "#d1396b", "#54687c"),
    ),
    ramps={
        "height": ("#8d99ae", "#6f8fc0", "#3f83c2", "#2a6f9e", "#2f5d8c", "#4a3f8a", "#5c2a6e"),
        "intensity": ("#b9c2cf", "#8fa0c4", "#7a6fb0", "#a04a8c", "#b0303f", "#7a1010"),
        "distance": ("#5c2a6e", "#3f55a0", "#2a7fae", "#4aa3a3", "#8db6a5", "#b9c2bd"),
        "time": ("#1b2a5c", "#5c3a94", "#b0408c", "#de7a5a", "#d9c08a"),
        "score": ("#4656c9", "#7a4fc4", "#b53fa6", "#d9504a", "#c98a00"),
    },
)
THEMES = {theme.name: theme for theme in (DARK, LIGHT)}
