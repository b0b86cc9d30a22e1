"""Cuboids on lidar clouds: in a window, in a picture, in a browser.

>>> from detmetrics_viz import Footage, Painter, build_scene, save_png, show, write_html
>>> scene = build_scene(cloud, truth, pred, ledger, frame=token)
>>> with Painter(smooth=2) as painter:
...     save_png(painter.draw(scene), "frame.png")
>>> write_html(scene, "frame.html")
>>> show(Footage.of_data(dataroot, truth, pred, ledger))

Names load on first use; open3d only when something is drawn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_WHERE = {
    "Footage": "detmetrics_viz.footage",
    "Gallery": "detmetrics_viz.gallery",
    "LAYERS": "detmetrics_viz.looks",
    "Look": "detmetrics_viz.looks",
    "Orbit": "detmetrics_viz.orbit",
    "Outcome": "detmetrics_viz.outcomes",
    "Outcomes": "detmetrics_viz.outcomes",
    "Page": "detmetrics_viz.page",
    "Painter": "detmetrics_viz.pictures",
    "Scene": "detmetrics_viz.scene",
    "THEMES": "detmetrics_viz.themes",
    "Theme": "detmetrics_viz.themes",
    "build_scene": "detmetrics_viz.scene",
    "draw_on_picture": "detmetrics_viz.cameras",
    "save_film": "detmetrics_viz.pictures",
    "save_png": "detmetrics_viz.pictures",
    "sheet": "detmetrics_viz.pictures",
    "show": "detmetrics_viz.window",
    "viewpoint": "detmetrics_viz.orbit",
    "write_html": "detmetrics_viz.page",
}

if TYPE_CHECKING:
    from detmetrics_viz.cameras import draw_on_picture
    from detmetrics_viz.footage import Footage
    from detmetrics_viz.gallery import Gallery
    from detmetrics_viz.looks import LAYERS, Look
    from detmetrics_viz.orbit import Orbit, viewpoint
    from detmetrics_viz.outcomes import Outcome, Outcomes
    from detmetrics_viz.page import Page, write_html
    from detmetrics_viz.pictures import Painter, save_film, save_png, sheet
    from detmetrics_viz.scene import Scene, build_scene
    from detmetrics_viz.themes import THEMES, Theme
    from detmetrics_viz.window import show

__all__ = [
    "LAYERS",
    "THEMES",
    "Footage",
    "Gallery",
    "Look",
    "Orbit",
    "Outcome",
    "Outcomes",
    "Page",
    "Painter",
    "Scene",
    "Theme",
    "build_scene",
    "draw_on_picture",
    "save_film",
    "save_png",
    "sheet",
    "show",
    "viewpoint",
    "write_html",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'detmetrics_viz' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
