"""The official protocols, one literal a module."""

from __future__ import annotations

from detmetrics.protocol import Protocol, unknown_name
from detmetrics.protocols.nuscenes import NUSCENES

#: Every bundled protocol by the name that the command line takes.
PROTOCOLS: dict[str, Protocol] = {"nuscenes": NUSCENES}

__all__ = ["NUSCENES", "PROTOCOLS", "by_name"]


def by_name(name: str) -> Protocol:
    """Give a bundled protocol by name; an unknown one is an InputError that suggests near names."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, tuple(PROTOCOLS))
    return PROTOCOLS[name]
