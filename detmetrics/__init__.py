"""detmetrics: is this 3D detector better, where, and am I sure?

>>> import detmetrics as dm
>>> scores = dm.evaluate(truth, pred, dm.NUSCENES)

Names load on first use, so that ``import detmetrics`` costs nothing; numba loads at the first match.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_WHERE = {
    "Boxes": "detmetrics.boxes",
    "Diagnosis": "detmetrics.diagnosis",
    "diagnose": "detmetrics.diagnosis",
    "DetmetricsError": "detmetrics.errors",
    "InputError": "detmetrics.errors",
    "evaluate": "detmetrics.evaluation",
    "Fate": "detmetrics.ledger",
    "Ledger": "detmetrics.ledger",
    "concat": "detmetrics.ledger",
    "match": "detmetrics.matching",
    "Protocol": "detmetrics.protocol",
    "ARGOVERSE2": "detmetrics.protocols",
    "NUSCENES": "detmetrics.protocols",
    "TRUCKSCENES": "detmetrics.protocols",
    "PROTOCOLS": "detmetrics.protocols",
    "Frames": "detmetrics.framing",
    "frames": "detmetrics.framing",
    "OperatingPoints": "detmetrics.operating",
    "operating_points": "detmetrics.operating",
    "report": "detmetrics.reporting.page",
    "Bootstrap": "detmetrics.resampling",
    "Comparison": "detmetrics.resampling",
    "bootstrap": "detmetrics.resampling",
    "compare": "detmetrics.resampling",
    "Scores": "detmetrics.scoring",
    "score": "detmetrics.scoring",
    "Slices": "detmetrics.slicing",
    "slices": "detmetrics.slicing",
    "Weights": "detmetrics.weights",
}
_ROOMS = ("geometry", "io", "protocols", "reporting", "synth")

if TYPE_CHECKING:
    from detmetrics import geometry, io, protocols, reporting, synth
    from detmetrics.boxes import Boxes
    from detmetrics.diagnosis import Diagnosis, diagnose
    from detmetrics.errors import DetmetricsError, InputError
    from detmetrics.evaluation import evaluate
    from detmetrics.framing import Frames, frames
    from detmetrics.ledger import Fate, Ledger, concat
    from detmetrics.matching import match
    from detmetrics.operating import OperatingPoints, operating_points
    from detmetrics.protocol import Protocol
    from detmetrics.protocols import ARGOVERSE2, NUSCENES, PROTOCOLS, TRUCKSCENES
    from detmetrics.reporting.page import report
    from detmetrics.resampling import Bootstrap, Comparison, bootstrap, compare
    from detmetrics.scoring import Scores, score
    from detmetrics.slicing import Slices, slices
    from detmetrics.weights import Weights

__all__ = [
    "ARGOVERSE2",
    "NUSCENES",
    "PROTOCOLS",
    "TRUCKSCENES",
    "Bootstrap",
    "Boxes",
    "Comparison",
    "DetmetricsError",
    "Diagnosis",
    "Fate",
    "Frames",
    "InputError",
    "Ledger",
    "OperatingPoints",
    "Protocol",
    "Scores",
    "Slices",
    "Weights",
    "__version__",
    "bootstrap",
    "compare",
    "concat",
    "diagnose",
    "evaluate",
    "frames",
    "geometry",
    "io",
    "match",
    "operating_points",
    "protocols",
    "report",
    "reporting",
    "score",
    "slices",
    "synth",
]


def __getattr__(name: str) -> object:
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
    elif name in _ROOMS:
        value = import_module(f"detmetrics.{name}")
    else:
        raise AttributeError(f"module 'detmetrics' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
