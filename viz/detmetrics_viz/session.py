"""Session: what someone looks at in a window and what each key does to it; knows nothing of windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from detmetrics_viz.looks import LAYERS, VIEWS, Look
from detmetrics_viz.orbit import viewpoint
from detmetrics_viz.projecting import ray_through_boxes
from detmetrics_viz.themes import BOX_MODES, POINT_MODES, THEMES

if TYPE_CHECKING:
    from detmetrics_viz.footage import Footage
    from detmetrics_viz.projecting import Pinhole
    from detmetrics_viz.scene import Scene

#: Scenes kept, so that stepping back and forth reads nothing again.
_KEPT = 8
#: A step of the least score.
_STEP = 0.05


class Session:
    """A walk through footage.

    Parameters
    ----------
    footage : Footage
    look : Look, optional
    start : int
        Place of the first frame.
    view : str
        One of :data:`~detmetrics_viz.looks.VIEWS`.
    tell : callable, optional
        Called with lines for the terminal.

    Attributes
    ----------
    at : int
        Place of the frame.
    look : Look
    view : str
    orbit : Orbit
        Where one looks from; may be set.
    picked : int or None
        Box that was picked.
    is_help_shown, is_playing, is_over : bool
    message : str
        The last thing to say.
    wants_picture : Path or None
        Where the window shall write what it shows.
    """

    def __init__(
        self,
        footage: Footage,
        look: Look | None = None,
        *,
        start: int = 0,
        view: str = "behind",
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.footage, self.look, self.at = footage, look or Look(), start
        self.view = view
        own = self.look.theme
        self._themes = (*THEMES.values(), *(() if own in THEMES.values() else (own,)))
        self.picked: int | None = None
        self.is_help_shown = self.is_playing = self.is_over = False
        self.message = ""
        self.wants_picture: Path | None = None
        self._tell = tell or (lambda line: None)
        self._scenes: dict[int, Scene] = {}
        self._worst: list[int] | None = None
        self._worst_shown: int | None = None
        self.orbit = viewpoint(view, self.scene)
        self._say_frame()

    @property
    def scene(self) -> Scene:
        """The scene of the frame."""
        if self.at not in self._scenes:
            self._scenes[self.at] = self.footage[self.at]
            while len(self._scenes) > _KEPT:
                del self._scenes[next(iter(self._scenes))]
        return self._scenes[self.at]

    def go(self, at: int) -> None:
        """Show another frame; a picked box is looked for there."""
        before, self.at = self.scene, min(max(at, 0), len(self.footage) - 1)
        if self.scene is not before:
            self.picked = None if self.picked is None else same_box(before, self.picked, self.scene)
            if self.view == "follow":
                self.orbit = viewpoint("follow", self.scene, self.picked)
            self._say_frame()

    def step(self, by: int) -> None:
        """Show a frame further on, or back."""
        self.go(self.at + by)

    def step_scene(self, by: int) -> None:
        """Show the first frame of the next scene, or of the one before."""
        scenes = self.footage.scenes
        starts = [i for i, name in enumerate(scenes) if i == 0 or name != scenes[i - 1]]
        now = max(k for k, start in enumerate(starts) if start <= self.at)
        self.go(starts[min(max(now + by, 0), len(starts) - 1)])

    def step_worst(self) -> None:
        """Show the frame with most mistakes, then the one with next most; from any other frame, begin again."""
        if self.footage.outcomes is None:
            self.say("worst frames need predictions")
            return
        if self._worst is None:
            self._worst = self.footage.worst(len(self.footage))
        place = self._worst.index(self.at) + 1 if self.at == self._worst_shown else 0
        place %= len(self._worst)
        self.go(self._worst[place])
        self._worst_shown = self.at
        counts = self.scene.summary()
        self.say(f"worst frame number {place + 1}: {counts.fp} false positives, {counts.fn} missed")

    def play(self) -> None:
        """Let the frames run, or stop."""
        self.is_playing = not self.is_playing

    def score(self, by: int) -> None:
        """Raise or lower the least score shown, from 0 to 1 or the highest score of the frame."""
        now = self.look.min_score
        if now is None:
            finite = self.scene.cutoff[np.isfinite(self.scene.cutoff)]
            now = float(np.median(finite)) if len(finite) else 0.0
        highest = float(self.scene.score.max(initial=1, where=np.isfinite(self.scene.score)))
        # halves go up, as in the browser; scores are never negative
        least = min(max(round(math.floor(now / _STEP + 0.5) * _STEP + by * _STEP, 2), 0.0), highest)
        self.look = replace(self.look, min_score=least)
        counts = self.scene.summary(least)
        self.say(f"scores from {least:.2f}: TP {counts.tp}, FP {counts.fp}, missed {counts.fn}")

    def best_scores(self) -> None:
        """Show predictions from the score of the best F1 of their class on."""
        self.look = replace(self.look, min_score=None)
        self.say("scores from the best F1 of each class")

    def toggle(self, layer: str) -> None:
        """Show or hide a layer."""
        self.look = replace(self.look, layers=self.look.layers ^ {layer})
        self.say(f"{layer} {'shown' if layer in self.look.layers else 'hidden'}")

    def next_points(self) -> None:
        """Colour the points by the next thing that the cloud has."""
        modes = [mode for mode in POINT_MODES if mode in self.scene.shades]
        mode = modes[(modes.index(self.look.point_mode(self.scene)) + 1) % len(modes)]
        self.look = replace(self.look, points=mode)
        self.say(f"points by {mode}")

    def next_boxes(self) -> None:
        """Colour the boxes by the next thing."""
        mode = BOX_MODES[(BOX_MODES.index(self.look.boxes) + 1) % len(BOX_MODES)]
        self.look = replace(self.look, boxes=mode)
        self.say(f"boxes by {mode}")

    def next_view(self) -> None:
        """Look from the next preset."""
        self.stand(VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)])

    def stand(self, view: str) -> None:
        """Look from a preset."""
        self.view, self.orbit = view, viewpoint(view, self.scene, self.picked)
        self.say({"bird": "from above", "behind": "from behind ego"}.get(view, "following"))

    def change_theme(self) -> None:
        """Change between dark, light and, where one began with another, that."""
        at = self._themes.index(self.look.theme) if self.look.theme in self._themes else -1
        self.look = replace(self.look, theme=self._themes[(at + 1) % len(self._themes)])

    def change_labels(self) -> None:
        """Change between labels for mistakes and for all."""
        self.look = replace(self.look, labels="all" if self.look.labels == "mistakes" else "mistakes")
        self.say(f"labels: {self.look.labels}")

    def help(self) -> None:
        """Show or hide what the keys do; the terminal gets it too."""
        self.is_help_shown = not self.is_help_shown
        if self.is_help_shown:
            for line in help_lines():
                self._tell(line)

    def picture(self) -> None:
        """Ask for a picture of the window, in the folder one stands in."""
        number = 1
        while (path := Path(f"detmetrics-{number:03d}.png")).exists():
            number += 1
        self.wants_picture = path

    def pick_next(self) -> None:
        """Pick the next box, from near to far."""
        seen = np.flatnonzero(self.look.visible(self.scene))
        order = seen[np.argsort(np.hypot(*self.scene.center[seen, :2].T), kind="stable")].tolist()
        if order:
            self.pick(order[(order.index(self.picked) + 1) % len(order)] if self.picked in order else order[0])

    def pick_at(self, pixel: tuple[float, float], camera: Pinhole) -> None:
        """Pick the nearest visible box under a pixel, or none."""
        self.pick(box_at(self.scene, self.look, pixel, camera))

    def pick(self, box: int | None) -> None:
        """Pick a box, or none."""
        self.picked = box
        if box is not None:
            for line in self.scene.describe(box, self.look.min_score):
                self._tell(line)
        if self.view == "follow":
            self.orbit = viewpoint("follow", self.scene, box)

    def leave(self) -> None:
        """End."""
        self.is_over = True

    def say(self, message: str) -> None:
        """Show a message, and tell it."""
        self.message = message
        self._tell(message)

    def _say_frame(self) -> None:
        scene = self.scene
        line = f"{self.at + 1}/{len(self.footage)} {scene.title}"
        if scene.matched:
            counts = scene.summary(self.look.min_score)
            line += f": TP {counts.tp}, FP {counts.fp}, missed {counts.fn}"
        self.message = ""
        self._tell(line)


class Key(NamedTuple):
    """A key, what it is called, and what it does."""

    code: int
    name: str
    says: str
    do: Callable[[Session], None]


def _toggling(layer: str) -> Callable[[Session], None]:
    return lambda session: session.toggle(layer)


#: Keys with codes of GLFW, in the order of the help.
KEYS = (
    Key(262, "right", "next frame", lambda s: s.step(1)),
    Key(263, "left", "previous frame", lambda s: s.step(-1)),
    Key(265, "up", "next scene", lambda s: s.step_scene(1)),
    Key(264, "down", "previous scene", lambda s: s.step_scene(-1)),
    Key(32, "space", "play, stop", Session.play),
    Key(ord("W"), "w", "worst frame, then the next worst", Session.step_worst),
    Key(ord("="), "=", "least score up", lambda s: s.score(1)),
    Key(ord("-"), "-", "least score down", lambda s: s.score(-1)),
    Key(ord("F"), "f", "scores from the best F1 of each class", Session.best_scores),
    Key(ord("C"), "c", "colour of points: height, intensity, distance, time", Session.next_points),
    Key(ord("B"), "b", "colour of boxes: outcome, class, score", Session.next_boxes),
    Key(ord("A"), "a", "labels of mistakes, of all", Session.change_labels),
    Key(ord("T"), "t", "dark, light, what one began with", Session.change_theme),
    Key(ord("V"), "v", "from behind ego, from above, following", Session.next_view),
    Key(ord("X"), "x", "from here again", lambda s: s.stand(s.view)),
    Key(258, "tab", "pick the next box (or click on one)", Session.pick_next),
    Key(ord("U"), "u", "pick nothing", lambda s: s.pick(None)),
    Key(ord("S"), "s", "save a picture", Session.picture),
    *(
        Key(ord(str((k + 1) % 10)), str((k + 1) % 10), f"{layer} on, off", _toggling(layer))
        for k, layer in enumerate(LAYERS)
    ),
    Key(ord("H"), "h", "help", Session.help),
    Key(ord("Q"), "q", "leave", Session.leave),
    Key(256, "escape", "leave", Session.leave),
)


def help_lines() -> list[str]:
    """What the keys and the mouse do."""
    lines = ["keys", *(f"{key.name:>6}   {key.says}" for key in KEYS)]
    return [*lines, " mouse   left: turn, right: move, wheel: nearer, click: pick"]


def box_at(scene: Scene, look: Look, pixel: tuple[float, float], camera: Pinhole) -> int | None:
    """Give the nearest visible box that the ray through a pixel hits, or None."""
    seen = np.flatnonzero(look.visible(scene))
    if not len(seen):
        return None
    first, last = ray_through_boxes(*camera.ray(pixel), scene.nodes[seen], 0.1)  # thin boxes are hard to hit
    hit = np.flatnonzero((first <= last) & (last > 0))
    return int(seen[hit[np.argmin(first[hit])]]) if len(hit) else None


def same_box(before: Scene, box: int, after: Scene, reach_m: float = 3.0) -> int | None:
    """Find a box again in another frame: of its side and class, nearest to where its velocity took it, or None."""
    seconds = 1e-6 * (after.timestamp_us - before.timestamp_us)
    center = before.center[box].astype(np.float64)
    if abs(seconds) < 10:
        center[:2] += np.nan_to_num(before.velocity[box]) * seconds
    center = after.pose.inverse().apply(before.pose.apply(center[None]))[0]
    same = np.flatnonzero(
        (after.is_pred == before.is_pred[box])
        & np.array([after.labels[code] == before.labels[before.label[box]] for code in after.label], bool)
    )
    if not len(same):
        return None
    away = np.linalg.norm(after.center[same] - center, axis=1)
    nearest = int(np.argmin(away))
    return int(same[nearest]) if away[nearest] < reach_m else None
