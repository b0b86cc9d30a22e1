"""What the front asks of a worker, and what comes back: plain values that go through a pipe."""

from __future__ import annotations

from typing import NamedTuple


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
        A file that may be written and that the front deletes.
    """

    format: int
    compression: int = 0
    path: str = ""
    sha256: str = ""
    data: bytes = b""
    source: str = "predictions"
    max_bytes: int = 1 << 30
    scratch: str = ""


class Check(NamedTuple):
    """Read truth and say what it is."""

    truth: Payload


class Checked(NamedTuple):
    """Answer to Check."""

    n_frames: int
    n_boxes: int
    frame_columns: list[str]


class Evaluate(NamedTuple):
    """Evaluate predictions; the protocol as a serialised ``ProtocolChoice``."""

    truth: Payload
    pred: Payload
    protocol: bytes
    absent: int


class Evaluated(NamedTuple):
    """Answer to Evaluate: a serialised ``Scores`` and the numbers by name."""

    scores: bytes
    metrics: dict[str, float]


class Compare(NamedTuple):
    """Compare two evaluations; the settings as a serialised ``CompareEvaluationsRequest``."""

    truth: Payload
    baseline: Payload
    candidate: Payload
    protocol: bytes
    absent: int
    request: bytes


Job = Check | Evaluate | Compare
