"""The Python client: boxes and files in, the same Scores as the local library's out.

>>> with Client("localhost:50051") as c:
...     scores = c.evaluate(pred, truth=truth)
...     c.upload_dataset("mini_val", truth)
...     run = c.evaluate(pred, dataset="mini_val", name="pointpillars-v3")
"""

from __future__ import annotations

import gzip
import hashlib
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from detmetrics.boxes import Boxes
from detmetrics.errors import InputError, listing
from detmetrics.extras import needs
from detmetrics.files import open_file
from detmetrics.gate import Gate, Verdict
from detmetrics.protocol import Protocol
from detmetrics.resampling import Bootstrap, Comparison, Difference
from detmetrics.scoring import Absent, Scores
from detmetrics_server import convert, intervals, messages
from detmetrics_server.errors import ServiceError
from detmetrics_server.messages import (
    CANCELLED,
    COLUMNS,
    FAILED,
    GZIP,
    NUSCENES_JSON,
    PACKAGE,
    PARQUET,
    PLAIN,
    RUNNING,
    SUCCEEDED,
)
from detmetrics_server.settings import Settings
from detmetrics_server.statuses import from_rpc_error, has_details, retry_delay_s

with needs("client"):
    import grpc

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
#: How predictions and truth are handed over: in memory, or as a file.
Source = Boxes | str | Path

CHUNK = 1 << 20
UNARY_BYTES = 16 << 20  # larger predictions go through the stream
STATES = {RUNNING: "running", SUCCEEDED: "succeeded", FAILED: "failed", CANCELLED: "cancelled"}


class Run(NamedTuple):
    """An evaluation on the server.

    Attributes
    ----------
    name : str
        Resource name, ``evaluations/{id}``.
    display_name, dataset, owner, protocol : str
    tags : tuple of str
    state : str
        ``running``, ``succeeded``, ``failed`` or ``cancelled``.
    created : datetime
    metrics : dict of str to float
        The numbers by name, e.g. ``NDS``.
    scores : Scores or None
        Absent in lists and until it succeeded.
    error : str
        Why it failed.
    intervals : Bootstrap or None
        How sure the scores are, where that was asked for: the numbers of :func:`detmetrics.bootstrap` to the last bit.
        Its replicates stay on the server, so there are intervals at the level that was asked for only.
    """

    name: str
    display_name: str
    dataset: str
    owner: str
    protocol: str
    tags: tuple[str, ...]
    state: str
    created: datetime
    metrics: Mapping[str, float]
    scores: Scores | None
    error: str
    intervals: Bootstrap | None = None


class Dataset(NamedTuple):
    """A data set on the server, as far as it tells: name and counts."""

    name: str
    n_frames: int
    n_boxes: int
    size_bytes: int
    sha256: str
    frame_columns: tuple[str, ...]


class Compared(NamedTuple):
    """How two evaluations differ.

    Attributes
    ----------
    differences : dict of str to Difference
        By metric.
    passed : bool or None
        The gate's answer; None without a gate.
    outcomes : tuple of (str, str)
        Each rule of the gate in words, and what became of it.
    signatures, notes : tuple of str
    comparison : Comparison
        The numbers of :func:`detmetrics.compare` to the last bit; its replicates stay on the server.
    slices : dict of str to Comparison
        By what was sliced by and name of the slice, e.g. ``range=0,20,40:20-40``.
    verdict : Verdict or None
        Of the gate.
    """

    differences: Mapping[str, Difference]
    passed: bool | None
    outcomes: tuple[tuple[str, str], ...]
    signatures: tuple[str, ...]
    notes: tuple[str, ...]
    comparison: Comparison
    slices: Mapping[str, Comparison]
    verdict: Verdict | None


class Client:
    """A connection to a server.

    Parameters
    ----------
    address : str
        ``host:port``, or ``unix:PATH``.
    token : str, optional
        Sent only over TLS or to this machine, unless ``insecure``.
    tls : bool or path
        Whether to use TLS; a path: of the certificates to trust, PEM.
    insecure : bool
        Speak to other machines without TLS all the same.
    timeout_s : float, optional
        Of each call; default: none.
    patience_s : float
        How long to try again where the server is busy or away; calls are made so that this is safe.

    Raises
    ------
    InputError
        On another machine without TLS.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: bool | str | Path = False,
        insecure: bool = False,
        timeout_s: float | None = None,
        patience_s: float = 30.0,
    ) -> None:
        if not tls and not insecure and not Settings(storage="", address=address, insecure=True).is_loopback:
            raise InputError(f"server {address}", expected="on this machine, or spoken to over TLS")
        self._address, self._has_tls = address, bool(tls)
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        self._timeout_s, self._patience_s = timeout_s, patience_s
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if tls:
            roots = None if tls is True else _certificates(Path(str(tls)))
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options)
        else:
            self._channel = grpc.insecure_channel(address, options)

    def __enter__(self) -> Client:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    # evaluating

    @overload
    def evaluate(
        self,
        pred: Boxes,
        *,
        truth: Boxes,
        protocol: Protocol | str = ...,
        absent: Absent = ...,
    ) -> Scores: ...
    @overload
    def evaluate(
        self,
        pred: Source,
        *,
        dataset: str,
        name: str = ...,
        tags: Sequence[str] = ...,
        protocol: Protocol | str = ...,
        absent: Absent = ...,
        bootstrap: int = ...,
        unit: str = ...,
        seed: int = ...,
        level: float = ...,
        request_id: str | None = ...,
        progress: Progress | None = ...,
    ) -> Run: ...
    def evaluate(
        self,
        pred: Source,
        *,
        truth: Boxes | None = None,
        dataset: str | None = None,
        name: str = "",
        tags: Sequence[str] = (),
        protocol: Protocol | str = "nuscenes",
        absent: Absent = "official",
        bootstrap: int = 0,
        unit: str = "scene",
        seed: int = 0,
        level: float = 0.95,
        request_id: str | None = None,
        progress: Progress | None = None,
    ) -> Scores | Run:
        """Evaluate predictions, against truth that comes along (nothing is stored) or a data set of the server.

        Parameters
        ----------
        pred : Boxes or path
            A path: nuScenes result JSON, gzipped or not, or Parquet; only with ``dataset``.
        truth : Boxes, optional
        dataset : str, optional
            Name of the data set; one of the two is needed.
        name, tags : str, sequence of str
            To find it by.
        protocol : Protocol or str
            Rules, or the name of bundled ones.
        absent : {"official", "omit"}
            What a class without truth counts.
        bootstrap : int
            Number of draws that ``intervals`` come from; 0: none. Only with ``dataset``.
        unit, seed, level
            Of the draws, as in :func:`detmetrics.bootstrap`.
        request_id : str, optional
            A second call with the same id must ask for the same, and gives the same evaluation; default: a new one, so
            that this call can be tried again.
        progress : callable, optional
            Called with stage, done, total.

        Returns
        -------
        Scores, or Run where a data set is named

        Raises
        ------
        InputError
            As the local library says it.
        ServiceError
            What else the server refuses, or cannot do.
        """
        if (truth is None) == (dataset is None):
            raise InputError("truth= and dataset=", expected="one of them")
        if absent not in convert.ABSENT_NUMBERS:
            raise InputError("absent=", expected="official or omit", got=absent)
        fields: dict[str, Any] = {"absent": convert.ABSENT_NUMBERS[absent], "protocol": [_choice(protocol)]}
        if truth is not None:
            if not isinstance(pred, Boxes):
                raise InputError("pred", expected="Boxes where truth is given", got=str(pred))
            if bootstrap:
                raise InputError(
                    "bootstrap= goes with dataset=: where truth is given, detmetrics.bootstrap does it here"
                )
            given = {"name": name, "tags": tags, "request_id": request_id, "progress": progress}
            if stray := [word for word, value in given.items() if value]:
                raise InputError(f"{stray[0]}= goes with dataset=: where truth is given, nothing is stored")
            request = messages.twin("EvaluateRequest")(
                truth=[convert.to_bytes(truth)],
                predictions=[convert.to_bytes(pred)],
                **fields,
            )
            scores = self._unary("EvaluationService", "Evaluate", request).evaluation.scores
            return convert.to_scores(scores)
        fields |= {"dataset": f"datasets/{dataset}", "display_name": name, "tags": tags}
        fields["request_id"] = request_id or uuid.uuid4().hex
        if bootstrap:
            fields["bootstrap"] = {"draws": bootstrap, "unit": unit, "seed": seed, "level": level}
        if isinstance(pred, Boxes):
            data = convert.to_bytes(pred)
            if len(data) <= UNARY_BYTES:
                request = messages.twin("EvaluateRequest")(predictions=[data], **fields)
                return _checked(self._unary("EvaluationService", "Evaluate", request).evaluation, bootstrap)
            source: bytes | str | Path = data
        else:
            source = pred
        header = messages.twin("EvaluateHeader")(**fields, **_described(source))
        return _checked(self._again(lambda: self._stream(header, source, progress)), bootstrap)

    def _stream(self, header: Any, source: bytes | str | Path, progress: Progress | None) -> Any:
        method = self._channel.stream_stream(f"/{PACKAGE}.EvaluationService/EvaluateStream")
        evaluation = None
        with _sending(_parts("EvaluateStreamRequest", header, source, progress)) as parts:
            for data in method(parts, metadata=self._metadata, timeout=self._timeout_s):
                event = messages.parse("EvaluateStreamResponse", data)
                kind = event.WhichOneof("event")
                if kind == "progress" and progress is not None:
                    progress(event.progress.stage, event.progress.done, event.progress.total)
                elif kind == "evaluation":
                    evaluation = event.evaluation
        assert evaluation is not None
        return evaluation

    def get(self, name: str) -> Run:
        """Give an evaluation by its resource name."""
        return _run(self._unary("EvaluationService", "GetEvaluation", {"name": name}).evaluation)

    def evaluations(
        self,
        *,
        dataset: str | None = None,
        protocol: str = "",
        tag: str = "",
        name: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        order_by: str = "create_time desc",
        page_size: int = 0,
    ) -> Iterator[Run]:
        """List evaluations, without scores; ``order_by="NDS desc"`` is the ranking.

        Parameters
        ----------
        dataset, protocol, tag, name : str, optional
            Only of these; ``name`` is the display name.
        since, until : datetime, optional
            Only those accepted at this time or later, and before this time; without a time zone: local time.
        order_by : str
            ``create_time`` or the name of a metric, and ``desc``.
        page_size : int
            Evaluations a call, by default 50.
        """
        fields: dict[str, Any] = {"protocol": protocol, "tag": tag, "order_by": order_by, "page_size": page_size}
        fields |= {"dataset": f"datasets/{dataset}" if dataset else "", "display_name": name}
        for name, moment in (("create_time_from", since), ("create_time_until", until)):
            if moment is not None:
                fields[name] = moment.astimezone(UTC)
        token = ""
        while True:
            page = self._unary("EvaluationService", "ListEvaluations", {**fields, "page_token": token})
            yield from map(_run, page.evaluations)
            token = page.next_page_token
            if not token:
                return

    def cancel(self, name: str) -> Run:
        """Stop an evaluation; give it as it is now."""
        return _run(self._unary("EvaluationService", "CancelEvaluation", {"name": name}).evaluation)

    def delete(self, name: str) -> None:
        """Delete an evaluation."""
        self._unary("EvaluationService", "DeleteEvaluation", {"name": name})

    def compare(
        self,
        baseline: str,
        candidate: str,
        *,
        n: int = 0,
        unit: str = "",
        seed: int = 0,
        level: float = 0.0,
        gate: Mapping[str, object] | None = None,
        by: Sequence[str] = (),
    ) -> Compared:
        """Compare two evaluations on the same data set.

        Parameters
        ----------
        baseline, candidate : str
            Resource names.
        n, unit, seed, level
            As in :func:`detmetrics.compare`; 0 and empty: the defaults, or the gate's.
        gate : mapping, optional
            The fields of a gate's TOML file.
        by : sequence of str
            Also compare by slices, see :func:`detmetrics.slices`.
        """
        fields = {"baseline": baseline, "candidate": candidate, "draws": n, "unit": unit, "seed": seed, "level": level}
        request = messages.twin("CompareEvaluationsRequest")(**fields, by=by)
        if gate is not None:
            request.gate.CopyFrom(convert.to_struct(gate, "gate"))
        answer = self._unary("EvaluationService", "CompareEvaluations", request)
        if not answer.HasField("protocol"):
            raise ServiceError("this server is of an older version: it does not say by which rules it compared")
        comparison, slices = intervals.to_comparison(answer)
        verdict = None if gate is None else intervals.to_verdict(answer, Gate.from_dict(gate), comparison)
        return Compared(
            differences=dict(comparison),
            passed=answer.verdict.passed if verdict is not None else None,
            outcomes=tuple((outcome.rule, outcome.verdict) for outcome in answer.verdict.outcomes),
            signatures=comparison.signatures,
            notes=comparison.notes,
            comparison=comparison,
            slices=slices,
            verdict=verdict,
        )

    def find(self, name: str, *, dataset: str | None = None) -> str:
        """Give the resource name of the evaluation that is called so.

        Parameters
        ----------
        name : str
            Resource name, ``evaluations/{id}``, or a display name that only one evaluation that succeeded has.
        dataset : str, optional
            Only look there.

        Raises
        ------
        InputError
            Where none has it, or several.
        """
        if name.startswith("evaluations/"):
            return name
        runs = [run for run in self.evaluations(dataset=dataset, name=name) if run.state == "succeeded"]
        runs = [run for run in runs if run.display_name == name]  # an older server lists them all
        if len(runs) != 1:
            where = f" of the data set {dataset!r}" if dataset else ""
            told = listing([f"{run.name} of {run.dataset}, {run.created:%F %T} UTC" for run in runs])
            raise InputError(
                f"evaluations{where} that succeeded and are called {name!r}",
                expected="one",
                got=len(runs),
                hint=f"give the name of one: {told}" if runs else "",
            )
        return runs[0].name

    # data sets

    def upload_dataset(self, name: str, truth: Source, *, progress: Progress | None = None) -> Dataset:
        """Store ground truth under a name; the same truth under the same name again is no error.

        Parameters
        ----------
        name : str
        truth : Boxes or path
            A path: Parquet of ours.
        progress : callable, optional
            Called with stage, done, total.
        """
        source = convert.to_bytes(truth) if isinstance(truth, Boxes) else truth
        fields = {"dataset_id": name, "request_id": uuid.uuid4().hex}
        header = messages.twin("DatasetHeader")(**fields, **_described(source))
        method = self._channel.stream_unary(f"/{PACKAGE}.DatasetService/UploadDataset")

        def call() -> Any:
            with _sending(_parts("UploadDatasetRequest", header, source, progress)) as parts:
                return method(parts, metadata=self._metadata, timeout=self._timeout_s)

        return _dataset(messages.parse("UploadDatasetResponse", self._again(call)).dataset)

    def dataset(self, name: str) -> Dataset:
        """Give a data set by its name."""
        return _dataset(self._unary("DatasetService", "GetDataset", {"name": f"datasets/{name}"}).dataset)

    def datasets(self) -> list[Dataset]:
        """List the data sets by name."""
        found, token = [], ""
        while True:
            page = self._unary("DatasetService", "ListDatasets", {"page_token": token})
            found += [_dataset(entry) for entry in page.datasets]
            token = page.next_page_token
            if not token:
                return found

    def delete_dataset(self, name: str) -> None:
        """Delete a data set that no evaluation refers to."""
        self._unary("DatasetService", "DeleteDataset", {"name": f"datasets/{name}"})

    def info(self) -> dict[str, Any]:
        """Version, limits and protocols of the server."""
        answer = self._unary("ServerService", "GetServerInfo", {})
        values = {field.name: getattr(answer, field.name) for field in answer.DESCRIPTOR.fields}
        return {**values, "protocols": list(answer.protocols)}

    # calling

    def _unary(self, service: str, method: str, request: Any) -> Any:
        if isinstance(request, dict):
            request = messages.twin(f"{method}Request")(**request)
        call = self._channel.unary_unary(f"/{PACKAGE}.{service}/{method}")
        data = request.SerializeToString()
        answer = self._again(lambda: call(data, metadata=self._metadata, timeout=self._timeout_s))
        return messages.parse(f"{method}Response", answer)

    def _again(self, call: Callable[[], T]) -> T:
        """Call, and again for a while where the server is busy or away."""
        end = time.monotonic() + self._patience_s
        pause_s = 0.2
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                delay_s = retry_delay_s(error)
                is_away = error.code() is grpc.StatusCode.UNAVAILABLE
                if not (delay_s or is_away) or time.monotonic() + max(delay_s, pause_s) > end:
                    raise self._away(error) or from_rpc_error(error) from None
                time.sleep(max(delay_s, pause_s))
                pause_s = min(2 * pause_s, 5.0)

    def _away(self, error: grpc.RpcError) -> ServiceError | None:
        """Say what is wrong where it was not the server that answered."""
        if error.code() is not grpc.StatusCode.UNAVAILABLE or has_details(error):
            return None
        text = error.details() or ""
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return ServiceError(
                f"the certificate of {self._address} is not of one that is trusted, or not for this name"
            )
        said = "over TLS" if self._has_tls else "without TLS"
        return ServiceError(f"no server answers at {self._address}, spoken to {said}")


def _certificates(path: Path) -> bytes:
    with open_file(path) as file:
        data: bytes = file.read()
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise InputError(str(path), expected="certificates, PEM")
    return data


def _choice(protocol: Protocol | str) -> bytes:
    choice = messages.twin("ProtocolChoice")()
    if isinstance(protocol, Protocol):
        convert.put_protocol(choice, protocol)
    else:
        choice.bundled = protocol
    data: bytes = choice.SerializeToString(deterministic=True)
    return data


def _described(source: bytes | str | Path) -> dict[str, Any]:
    """Say what an upload is, by its first bytes."""
    if isinstance(source, bytes):
        return {"format": COLUMNS}
    with open_file(source) as file:
        first = file.read(4)
    compression = PLAIN
    if first[:2] == b"\x1f\x8b":
        compression = GZIP
        with open_file(source) as file, gzip.open(file) as unpacked:
            try:
                first = unpacked.read(4)
            except (EOFError, OSError, zlib.error) as error:
                raise InputError(f"{source} is not whole gzip: {error}") from None
    kind = PARQUET if first == b"PAR1" else NUSCENES_JSON
    return {"format": kind, "compression": compression, "file_name": Path(source).name[:200]}


def _parts(name: str, header: Any, source: bytes | str | Path, progress: Progress | None) -> Iterator[bytes]:
    """Give header, chunks and footer of an upload, serialised."""
    make = messages.twin(name)
    yield make(header=header).SerializeToString()
    sent, whole = 0, hashlib.sha256()
    total = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    for data in _pieces(source):
        yield make(chunk={"offset_bytes": sent, "data": data}).SerializeToString()
        whole.update(data)
        sent += len(data)
        if progress is not None:
            progress("uploading", sent, total)
    yield make(footer={"size_bytes": sent, "sha256": whole.digest()}).SerializeToString()


@contextmanager
def _sending(parts: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """Raise here what fails while gRPC asks for parts, on a thread of its own: it would say no more than that."""
    faults: list[Exception] = []

    def all_of() -> Iterator[bytes]:
        try:
            yield from parts
        except Exception as error:
            faults.append(error)  # the upload ends without a footer, so the server refuses it

    try:
        yield all_of()
    except grpc.RpcError:
        if faults:
            raise faults[0] from None
        raise


def _pieces(source: bytes | str | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        for start in range(0, len(source), CHUNK):
            yield source[start : start + CHUNK]
        return
    with open_file(source) as file:
        while piece := file.read(CHUNK):
            yield piece


def _run(message: Any) -> Run:
    return Run(
        name=message.name,
        display_name=message.display_name,
        dataset=message.dataset.removeprefix("datasets/"),
        owner=message.owner,
        protocol=message.protocol,
        tags=tuple(message.tags),
        state=STATES.get(message.state, "unspecified"),
        created=message.create_time.ToDatetime(UTC),  # which cuts off: rounded up it would lie after the run
        metrics=dict(message.metrics),
        scores=convert.to_scores(message.scores) if message.HasField("scores") else None,
        error=message.error,
        intervals=intervals.to_bootstrap(message.scores),
    )


def _checked(message: Any, draws: int) -> Run:
    """Give an evaluation that was asked for, unless it failed or is not all that was asked for."""
    run = _run(message)
    if run.state == "failed":
        raise InputError(run.error)
    if draws and run.state == "succeeded" and run.intervals is None:
        raise ServiceError(f"this server is of an older version: it drew no intervals for {run.name}")
    return run


def _dataset(message: Any) -> Dataset:
    fields = {name: getattr(message, name) for name in Dataset._fields}
    return Dataset(
        **{**fields, "name": message.name.removeprefix("datasets/"), "frame_columns": tuple(message.frame_columns)}
    )
