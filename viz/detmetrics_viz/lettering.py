"""Lettering: text, panels and lines on an image; and what stands written on a picture of a scene."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from detmetrics.extras import needs
from detmetrics_viz.outcomes import Outcome
from detmetrics_viz.themes import rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics_viz.looks import Look
    from detmetrics_viz.projecting import Pinhole
    from detmetrics_viz.scene import Scene
    from detmetrics_viz.themes import Theme

    Image = NDArray[np.uint8]
    Color = tuple[int, int, int]
    #: Left, upper, right and lower edge of a panel, pixels; None: there is none.
    Plate = tuple[int, int, int, int] | None

#: Fonts of the system for what Pillow's own has no letters for.
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf")
_OWN_LETTERS = frozenset("·°…")
#: More labels than this are not read.
MAX_LABELS = 60


class Canvas(Protocol):
    """What can be written on: an image, or the glass before the camera of a window."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""

    def panel(self, x: int, y: int, width: int, height: int, color: Color, opacity: float = 0.85) -> None:
        """Lay a translucent rectangle over what is there."""

    def text(self, x: int, y: int, text: str, color: Color, size: int = 15) -> int:
        """Write a line whose upper left corner is at (x, y); give its width."""

    def ramp(self, x: int, y: int, width: int, height: int, colors: Image) -> None:
        """Draw a colour ramp, lowest left."""


class ImageCanvas:
    """Writes on an image, uint8 (H, W, 3), in place."""

    def __init__(self, image: Image) -> None:
        self.image = image

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.image.shape[1], self.image.shape[0]

    def panel(self, x: int, y: int, width: int, height: int, color: Color, opacity: float = 0.85) -> None:
        """Lay a translucent rectangle over the image."""
        part = self.image[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
        part[...] = part * (1 - opacity) + np.array(color) * opacity

    def text(self, x: int, y: int, text: str, color: Color, size: int = 15) -> int:
        """Write a line whose upper left corner is at (x, y); give its width."""
        mask = mask_of(text, size)
        height, width = mask.shape
        left, top = max(-x, 0), max(-y, 0)
        part = self.image[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
        if part.size:
            ink = mask[top : top + part.shape[0], left : left + part.shape[1], None].astype(np.float32) / 255
            part[...] = part + ink * (np.array(color, np.float32) - part)
        return int(width)

    def ramp(self, x: int, y: int, width: int, height: int, colors: Image) -> None:
        """Draw a colour ramp, lowest left."""
        at = np.linspace(0, len(colors) - 1, width).astype(int)
        self.image[y : y + height, x : x + width] = colors[at]


def width_of(text: str, size: int) -> int:
    """Width of a line, pixels."""
    return int(mask_of(text, size).shape[1])


def line_height(size: int) -> int:
    """Height of a line, pixels."""
    return int(mask_of("x", size).shape[0])


@lru_cache(maxsize=4096)
def mask_of(text: str, size: int) -> Image:
    """How much ink a line of text leaves on each pixel, uint8 (height, width)."""
    with needs("viz", "a picture"):
        from PIL import Image, ImageDraw

    font = _font(size, text.isascii() or _OWN_LETTERS.issuperset(c for c in text if not c.isascii()))
    up, down = _font(size, True).getmetrics()
    image = Image.new("L", (max(int(np.ceil(font.getlength(text))), 1) + 1, up + down))
    ImageDraw.Draw(image).text((0, up), text, fill=255, font=font, anchor="ls")
    return np.asarray(image)


@lru_cache(maxsize=64)
def _font(size: int, own: bool) -> Any:
    with needs("viz", "a picture"):
        from PIL import ImageFont
    for name in () if own else _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def write_on(canvas: Canvas, scene: Scene, look: Look, camera: Pinhole) -> None:
    """Write labels, range, title, counts and legend on the picture of a scene that a camera made."""
    if "rings" in look.layers:
        _write_rings(canvas, scene, look, camera)
    plates: list[Plate] = []
    if "legend" in look.layers:
        plates = [_write_head(canvas, scene, look), _write_boxes(canvas, scene, look)]
        plates.append(_write_points(canvas, scene, look))
    _write_labels(canvas, scene, look, camera, plates)


def write_frame(canvas: Canvas, scene: Scene, look: Look, camera: Pinhole, name: str) -> None:
    """Write labels, title, counts and the legend of boxes on the picture of a real camera."""
    plates: list[Plate] = []
    if "legend" in look.layers:
        plates = [_write_head(canvas, scene, look, name), _write_boxes(canvas, scene, look)]
    _write_labels(canvas, scene, look, camera, plates)


def _write_rings(canvas: Canvas, scene: Scene, look: Look, camera: Pinhole) -> None:
    """Write each radius where its ring meets a ray ahead and to the right, which every preset shows."""
    bearing = np.radians(-40)
    at = np.array([[r * np.cos(bearing), r * np.sin(bearing), scene.ground_m] for r in scene.rings_m])
    pixels, _ = camera.project(at)
    color = _blend(look.theme.faint, look.theme.text, 0.45)
    for radius, (u, v) in zip(scene.rings_m, pixels.tolist(), strict=True):
        if 0 <= u < canvas.size[0] - 40 and 0 <= v < canvas.size[1] - 15:
            canvas.text(int(u) + 3, int(v) - 7, f"{radius:.0f} m", color, 12)


def _write_labels(canvas: Canvas, scene: Scene, look: Look, camera: Pinhole, plates: list[Plate]) -> None:
    """Write labels over their boxes, the nearest first; one that finds no room beside the plates is left out."""
    rows = np.flatnonzero(look.labelled(scene))
    if not len(rows):
        return
    top = scene.nodes[rows, 4:8].mean(axis=1)
    pixels, depth = camera.project(top)
    width, height = canvas.size
    on_image = (depth > 0) & (pixels >= 0).all(axis=1) & (pixels < [width, height]).all(axis=1)
    outcome = scene.outcome(look.min_score)[rows]
    is_missed = outcome == Outcome.MISSED
    order = np.lexsort((np.hypot(*scene.center[rows, :2].T), ~is_missed, outcome == Outcome.TRUE_POSITIVE))
    colors = scene.box_colors(look.theme, look.boxes, look.min_score)
    size = 13
    high = line_height(size) + 2
    taken = np.array([plate for plate in plates if plate is not None], float).reshape(-1, 4)
    most = len(taken) + MAX_LABELS
    for i in order[on_image[order]].tolist():
        text = scene.texts[rows[i]] + (" missed" if is_missed[i] else "")
        wide = width_of(text, size) + 8
        left = int(np.clip(pixels[i, 0] - wide / 2, 0, max(width - wide, 0)))
        for lift in (4, 4 + high):
            up = int(pixels[i, 1]) - high - lift
            clash = (left < taken[:, 2]) & (taken[:, 0] < left + wide) & (up < taken[:, 3]) & (taken[:, 1] < up + high)
            if up >= 0 and not clash.any():
                canvas.panel(left, up, wide, high, rgb(look.theme.panel), 0.72)
                color: Any = tuple(colors[rows[i]].tolist())
                canvas.text(left + 4, up + 1, text, color, size)
                taken = np.vstack([taken, (left, up, left + wide, up + high)])
                break
        if len(taken) >= most:
            return


def _write_head(canvas: Canvas, scene: Scene, look: Look, name: str = "") -> Plate:
    """Write what it is, what happened, how far off, and what is shown."""
    theme = look.theme
    text, quiet = rgb(theme.text), _blend(theme.panel, theme.text, 0.6)
    rows: list[list[tuple[str, Color]]] = [[(shorten(name + scene.title, 70), text)]]
    if scene.matched:
        counts = scene.summary(look.min_score)
        colors = theme.outcome_colors.tolist()
        rows.append(
            [
                (f"TP {counts.tp}", tuple(colors[Outcome.TRUE_POSITIVE])),
                (f"FP {counts.fp}", tuple(colors[Outcome.FALSE_POSITIVE])),
                (f"missed {counts.fn}", tuple(colors[Outcome.MISSED])),
            ]
        )
        known = [
            (f"{name} {value:.2f} {unit}".rstrip(), quiet)
            for name, unit, value in zip(scene.error_names, scene.error_units, counts.errors, strict=True)
            if value == value
        ]
        if known:
            rows.append(known)
        least = "the best F1 of each class" if look.min_score is None else f"{look.min_score:.2f}"
        rows.append([(f"matches within {scene.threshold_m:g} m, scores from {least}", quiet)])
    elif look.min_score is not None:
        rows.append([(f"scores from {look.min_score:.2f}", quiet)])
    sizes = [17, 16, 14, 13]
    gap, pad = 14, 10
    wide = max(sum(width_of(part, size) + gap for part, _ in row) - gap for row, size in zip(rows, sizes, strict=False))
    tall = sum(line_height(size) + 2 for _, size in zip(rows, sizes, strict=False))
    canvas.panel(12, 12, wide + 2 * pad, tall + 2 * pad - 4, rgb(theme.panel))
    y = 12 + pad - 2
    for row, size in zip(rows, sizes, strict=False):
        x = 12 + pad
        for part, color in row:
            x += canvas.text(x, y, part, color, size) + gap
        y += line_height(size) + 2
    return 12, 12, 12 + wide + 2 * pad, 12 + tall + 2 * pad - 4


def _write_boxes(canvas: Canvas, scene: Scene, look: Look) -> Plate:
    """Draw the legend of boxes at the lower left."""
    theme, size = look.theme, 13
    height = canvas.size[1]
    text, quiet = rgb(theme.text), _blend(theme.panel, theme.text, 0.6)
    high = line_height(size) + 3
    rows = scene.legend(theme, look.boxes, look.min_score)[: max((height - 140) // high, 1)]
    if not rows:
        return None
    names = max(width_of(row.text, size) for row in rows)
    numbers = max(width_of(str(row.number), size) for row in rows) if rows[0].number >= 0 else -12
    wide, tall = 22 + names + 14 + numbers + 20, len(rows) * high + 12
    left, top = 12, height - 12 - tall
    canvas.panel(left, top, wide, tall, rgb(theme.panel))
    for k, row in enumerate(rows):
        y = top + 6 + k * high
        canvas.panel(left + 10, y + high // 2 - 2, 14, 4, row.color, 1.0)
        canvas.text(left + 32, y, row.text, text, size)
        if row.number >= 0:
            number = str(row.number)
            canvas.text(left + wide - 10 - width_of(number, size), y, number, quiet, size)
    return left, top, left + wide, top + tall


def _write_points(canvas: Canvas, scene: Scene, look: Look) -> Plate:
    """Draw the legend of points at the lower right."""
    if "points" not in look.layers:
        return None
    theme, size = look.theme, 13
    width, height = canvas.size
    text, quiet = rgb(theme.text), _blend(theme.panel, theme.text, 0.6)
    high = line_height(size) + 3
    mode = look.point_mode(scene)
    low, top_value = scene.ranges[mode]
    unit = {"height": " m", "distance": " m", "time": " s"}.get(mode, "")
    ends = (f"{low + 0.0:.3g}{unit}", f"{top_value:.3g}{unit}")  # no minus before zero
    title = {"height": "height above ground", "time": "age"}.get(mode, mode)
    wide, tall = 200, 2 * high + 22
    left, top = width - 12 - wide, height - 12 - tall
    canvas.panel(left, top, wide, tall, rgb(theme.panel))
    canvas.text(left + 10, top + 5, title, text, size)
    canvas.ramp(left + 10, top + 8 + high, wide - 20, 7, theme.lookup[mode])
    canvas.text(left + 10, top + 17 + high, ends[0], quiet, size)
    canvas.text(left + wide - 10 - width_of(ends[1], size), top + 17 + high, ends[1], quiet, size)
    return left, top, left + wide, top + tall


def write_lines(canvas: Canvas, x: int, y: int, lines: list[str], theme: Theme, size: int = 14) -> None:
    """Write lines on a panel whose upper left corner is at (x, y), the first one brighter."""
    high = line_height(size) + 2
    wide = max(width_of(line, size) for line in lines)
    canvas.panel(x, y, wide + 20, len(lines) * high + 16, rgb(theme.panel))
    for k, line in enumerate(lines):
        color = rgb(theme.text) if k == 0 else _blend(theme.panel, theme.text, 0.75)
        canvas.text(x + 10, y + 8 + k * high, line, color, size)


def shorten(text: str, limit: int) -> str:
    """Cut text to a number of letters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _blend(first: str, second: str, share: float) -> Color:
    """Mix two colours of a theme."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(rgb(first), rgb(second), strict=True))
    return red, green, blue
