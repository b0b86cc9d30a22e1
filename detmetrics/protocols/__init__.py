"""The official protocols, one literal a module."""

from __future__ import annotations

from detmetrics.errors import unknown_name
from detmetrics.protocol import Protocol
from detmetrics.protocols.argoverse2 import ARGOVERSE2
from detmetrics.protocols.nuscenes import NUSCENES
from detmetrics.protocols.truckscenes import TRUCKSCENES

#: Every bundled protocol by the name that the command line takes.
PROTOCOLS: dict[str, Protocol] = {"nuscenes": NUSCENES, "argoverse2": ARGOVERSE2, "truckscenes": TRUCKSCENES}

__all__ = ["ARGOVERSE2", "NUSCENES", "PROTOCOLS", "TRUCKSCENES", "by_name"]


def by_name(name: str) -> Protocol:
    """Give a bundled protocol by name; an unknown one is an InputError that suggests near names."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, tuple(PROTOCOLS))
    return PROTOCOLS[name]
