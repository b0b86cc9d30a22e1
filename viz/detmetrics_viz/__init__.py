"""Cuboids on lidar clouds: in a window, in a picture, in a browser.

>>> from detmetrics_viz import build_scene
>>> scene = build_scene(cloud, truth, pred, ledger, frame=token)

Names load on first use; open3d only when something is drawn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_WHERE = {
    "Outcome": "detmetrics_viz.outcomes",
    "Outcomes": "detmetrics_viz.outcomes",
    "Page": "detmetrics_viz.page",
    "Scene": "detmetrics_viz.scene",
    "build_scene": "detmetrics_viz.scene",
    "Theme": "detmetrics_viz.themes",
    "THEMES": "detmetrics_viz.themes",
    "write_html": "detmetrics_viz.page",
}

if TYPE_CHECKING:
    from detmetrics_viz.outcomes import Outcome, Outcomes
    from detmetrics_viz.scene import Scene, build_scene
    from detmetrics_viz.themes import THEMES, Theme

__all__ = ["THEMES", "Outcome", "Outcomes", "Scene", "Theme", "build_scene"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'detmetrics_viz' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
