"""Looks: how a scene is shown, the same words for windows, pictures and pages."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from detmetrics.errors import InputError, listing
from detmetrics_viz.outcomes import Outcome
from detmetrics_viz.scene import EDGES, Scene
from detmetrics_viz.themes import BOX_MODES, DARK, POINT_MODES, Theme, rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What can be shown and hidden; "uncounted" are the boxes that matching did not count.
LAYERS = ("points", "truth", "predictions", "uncounted", "matches", "velocity", "rings", "ego", "labels", "legend")

#: Where one can look from; see :func:`detmetrics_viz.viewpoint`.
VIEWS = ("behind", "bird", "follow")


@dataclass(frozen=True)
class Look:
    """How a scene is shown.

    Attributes
    ----------
    theme : Theme
    points : str
        What points are coloured by, of :data:`~detmetrics_viz.themes.POINT_MODES`; a scene that lacks it takes height.
    boxes : str
        What boxes are coloured by, of :data:`~detmetrics_viz.themes.BOX_MODES`.
    min_score : float or None
        Predictions below it are hidden, and their truths missed; None: the cutoff of each class.
    layers : frozenset of str
        Of :data:`LAYERS`.
    labels : str
        Which boxes have labels: ``mistakes`` (where nothing was matched: all) or ``all``.
    point_px : float or None
        Size of points, pixels; None: what suits their number.

    Raises
    ------
    InputError
        On words that are none of these.
    """

    theme: Theme = DARK
    points: str = "height"
    boxes: str = "outcome"
    min_score: float | None = None
    layers: frozenset[str] = field(default_factory=lambda: frozenset(LAYERS))
    labels: Literal["mistakes", "all"] = "mistakes"
    point_px: float | None = None

    def __post_init__(self) -> None:
        """Refuse words that nobody knows."""
        for what, word, known in (
            ("colour of points", self.points, POINT_MODES),
            ("colour of boxes", self.boxes, BOX_MODES),
            ("labels", self.labels, ("mistakes", "all")),
        ):
            if word not in known:
                raise InputError(what, expected=f"one of {listing(known)}", got=word)
        strange = sorted(self.layers - set(LAYERS))
        if strange:
            raise InputError("layers", expected=f"of {listing(LAYERS, shown=len(LAYERS))}", got=strange)
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise InputError("least score", expected="finite", got=self.min_score)

    def point_mode(self, scene: Scene) -> str:
        """Give what the points of a scene are coloured by: height where it lacks what was asked for."""
        return self.points if self.points in scene.shades else "height"

    def point_size(self, scene: Scene) -> float:
        """Give the size of points, pixels: 2.2 for 35,000 points, 1.3 for 300,000."""
        if self.point_px is not None:
            return self.point_px
        return float(np.clip(2.2 - math.log10(max(len(scene.points), 1) / 35_000), 1.2, 3))

    def visible(self, scene: Scene) -> NDArray[np.bool_]:
        """Tell which boxes are drawn, (B,)."""
        visible = scene.shown(self.min_score)
        if "truth" not in self.layers:
            visible &= scene.is_pred
        if "predictions" not in self.layers:
            visible &= ~scene.is_pred
        if "uncounted" not in self.layers:
            visible &= scene.counts
        return visible

    def labelled(self, scene: Scene) -> NDArray[np.bool_]:
        """Tell which boxes have a label, (B,)."""
        if "labels" not in self.layers:
            return np.zeros(len(scene), bool)
        visible = self.visible(scene)
        outcome = scene.outcome(self.min_score)
        if self.labels == "mistakes" and scene.matched:
            visible &= (outcome == Outcome.FALSE_POSITIVE) | (outcome == Outcome.MISSED)
        visible &= outcome != Outcome.FOUND  # the label of the match says it
        return visible


def strokes(scene: Scene, look: Look, picked: int | None = None) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Give all lines to draw: ends (L, 2, 3) and colours (L, 3), uint8; a picked box is drawn as text is."""
    theme, visible = look.theme, look.visible(scene)
    box_color = scene.box_colors(theme, look.boxes, look.min_score)
    if picked is not None:
        box_color[picked] = rgb(theme.text)
    ends: list[NDArray[np.float32]] = []
    color: list[NDArray[np.uint8]] = []
    for layer, fixed in (("rings", theme.faint), ("ego", theme.ego), ("matches", theme.match), ("velocity", "")):
        if layer in look.layers:
            lines = scene.lines[layer]
            kept = (lines.box < 0) | visible[lines.box] if len(scene) else np.ones(len(lines.box), bool)
            if layer == "matches":
                kept &= visible[scene.partner[lines.box]]
            ends.append(lines.ends[kept])
            own = box_color[lines.box[kept]] if not fixed else np.full((int(kept.sum()), 3), rgb(fixed), np.uint8)
            color.append(own)
    order = np.flatnonzero(visible)
    order = order[np.argsort(scene.is_pred[order] + 2 * scene.counts[order], kind="stable")]
    ends.append(scene.nodes[order][:, EDGES].reshape(-1, 2, 3))
    color.append(np.repeat(box_color[order], len(EDGES), axis=0))
    return np.concatenate(ends), np.concatenate(color)
