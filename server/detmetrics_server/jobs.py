"""What the front asks of a worker, and what comes back: plain values that go through a pipe."""

from __future__ import annotations

from typing import Any, NamedTuple

from detmetrics.errors import InputError
from detmetrics.scoring import Absent

MAX_DRAWS = 10_000


class Payload(NamedTuple):
    """Boxes as they were sent.

    Attributes
    ----------
    format, compression : int
        ``PayloadFormat`` and ``Compression`` of the contract.
    path, sha256 : str
        The file, and its hash where it must be checked (blobs); or
    data : bytes
        the bytes themselves.
    source : str
        What errors call it.
    max_bytes : int
        Largest size after decompression.
    scratch : str
        A file that the worker may write; the pool deletes it once nobody can write it any more.
    """

    format: int
    compression: int = 0
    path: str = ""
    sha256: str = ""
    data: bytes = b""
    source: str = "predictions"
    max_bytes: int = 1 << 30
    scratch: str = ""


class Draws(NamedTuple):
    """How to say how sure the numbers are, see :func:`detmetrics.bootstrap`."""

    n: int = 1000
    unit: str = "scene"
    seed: int = 0
    level: float = 0.95

    def checked(self, where: str = "") -> Draws:
        """Give itself, if its numbers are such that it can be done.

        Raises
        ------
        InputError
            Naming the field of the request, after ``where``.
        """
        if not 2 <= self.n <= MAX_DRAWS:
            raise InputError(f"{where}draws", expected=f"from 2 to {MAX_DRAWS}, or 0 for the default", got=self.n)
        if self.seed < 0:
            raise InputError(f"{where}seed", expected="zero or more", got=self.seed)
        if not (self.level > 0 and (1 + self.level) / 2 < 1):
            raise InputError(f"{where}level", expected="between 0 and 1", got=self.level)
        return self


def asked(message: Any) -> dict[str, Any]:
    """Give the fields of :class:`Draws` that a message asks for; what is 0 or empty there is left to the default."""
    given = {"n": message.draws, "unit": message.unit, "seed": message.seed, "level": message.level}
    return {name: value for name, value in given.items() if value}


class Check(NamedTuple):
    """Read truth and say what it is."""

    truth: Payload


class Checked(NamedTuple):
    """Answer to Check."""

    n_frames: int
    n_boxes: int
    frame_columns: list[str]


class Evaluate(NamedTuple):
    """Evaluate predictions; the protocol as a serialised ``ProtocolChoice``; with intervals where draws are given."""

    truth: Payload
    pred: Payload
    protocol: bytes
    absent: Absent
    draws: Draws | None = None


class Evaluated(NamedTuple):
    """Answer to Evaluate: a serialised ``Scores`` and the numbers by name."""

    scores: bytes
    metrics: dict[str, float]


class Compare(NamedTuple):
    """Compare two evaluations, also by slices; the settings as a serialised ``CompareEvaluationsRequest``."""

    truth: Payload
    baseline: Payload
    candidate: Payload
    protocol: bytes
    absent: Absent
    request: bytes
    by: tuple[str, ...]


Job = Check | Evaluate | Compare


def payloads(job: Job) -> list[Payload]:
    """Give all boxes of a job."""
    return [value for value in job if isinstance(value, Payload)]
