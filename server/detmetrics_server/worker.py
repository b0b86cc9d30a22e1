"""A worker process: takes jobs from a pipe, one at a time, keeps truth in memory, writes nothing but scratch files.

It ends when the pipe does, so it never outlives its server.
"""

from __future__ import annotations

import contextlib
import gzip
import resource
import signal
import sys
import time
import traceback
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics.boxes import Boxes
from detmetrics.errors import InputError
from detmetrics_server import convert, intervals, jobs, messages
from detmetrics_server.blobs import PIECE, check
from detmetrics_server.errors import ServiceError, Told, of_os_error
from detmetrics_server.heap import keep_freed
from detmetrics_server.messages import COLUMNS, GZIP, NUSCENES_JSON, PARQUET

if TYPE_CHECKING:
    from detmetrics.ledger import Ledger
    from detmetrics.protocol import Protocol

LARGE = 200_000  # boxes from which one job takes all cores
MAX_TABLE = 20_000_000  # values of all curves together
MAX_DRAWN = 20_000_000  # values of all draws together
MAX_SLICES = 200

Report = Callable[[str, int, int], None]


class Worker:
    """Does jobs; remembers truth.

    Parameters
    ----------
    cache_bytes : int
        Of truth that is kept; the last one is, however large.
    """

    def __init__(self, cache_bytes: int) -> None:
        self._cache: OrderedDict[str, tuple[Boxes, int]] = OrderedDict()
        self._cache_bytes = cache_bytes

    def do(self, job: jobs.Job, report: Report) -> Any:
        """Do a job."""
        if isinstance(job, jobs.Check):
            truth = read(job.truth, report, are_predictions=False)
            return jobs.Checked(truth.n_frames, len(truth), sorted(truth.frame_columns))
        if isinstance(job, jobs.Evaluate):
            return self._evaluate(job, report)
        return self._compare(job, report)

    def _truth(self, payload: jobs.Payload, report: Report) -> Boxes:
        if not payload.sha256:
            return read(payload, report, are_predictions=False)
        found = self._cache.get(payload.sha256)
        if found is None:
            truth = read(payload, report, are_predictions=False)
            found = self._cache[payload.sha256] = (truth, _size(truth))
            while sum(size for _, size in self._cache.values()) > self._cache_bytes and len(self._cache) > 1:
                self._cache.popitem(last=False)
        self._cache.move_to_end(payload.sha256)
        return found[0]

    def _evaluate(self, job: jobs.Evaluate, report: Report) -> jobs.Evaluated:
        from detmetrics.matching import match
        from detmetrics.resampling import bootstrap
        from detmetrics.scoring import score

        rules, absent, draws = protocol(job.protocol), job.absent, job.draws
        if draws is not None:
            _check_size(draws.n, rules)
        pred = read(job.pred, report, are_predictions=True)
        truth = self._truth(job.truth, report)
        report("scoring", 0, 0)
        threads = None if len(truth) + len(pred) > LARGE else 1
        start = time.perf_counter()
        ledger = match(truth, pred, rules, threads=threads)
        scores = score(ledger, absent=absent)
        message = convert.from_scores(replace(scores, eval_time_s=time.perf_counter() - start))
        if draws is not None:

            def advance(done: int, total: int) -> None:
                report("resampling", done, total)

            drawn = bootstrap(ledger, *draws[:3], level=draws.level, absent=absent, progress=advance)
            message.intervals.CopyFrom(intervals.from_bootstrap(drawn))
        return jobs.Evaluated(message.SerializeToString(), dict(message.metrics))

    def _compare(self, job: jobs.Compare, report: Report) -> bytes:
        from detmetrics.gate import Gate
        from detmetrics.matching import match
        from detmetrics.resampling import compare

        request = messages.parse("CompareEvaluationsRequest", job.request)
        given = jobs.asked(request)
        gate = Gate.from_dict({**convert.to_dict(request.gate), **given}) if request.HasField("gate") else None
        draws = jobs.Draws(**given) if gate is None else jobs.Draws(gate.n, gate.unit, gate.seed, gate.level)
        draws.checked()
        rules, truth = protocol(job.protocol), self._truth(job.truth, report)
        first, second = (
            match(truth, read(side, report, are_predictions=True), rules) for side in (job.baseline, job.candidate)
        )
        _check_slices(first, job.by, draws.n)

        def advance(done: int, total: int) -> None:
            report("comparing", done, total)

        absent = job.absent
        options: dict[str, Any] = {**draws._asdict(), "progress": advance}
        verdict = None if gate is None else gate.check(first, second, absent=absent, progress=advance)
        whole = compare(first, second, absent=absent, **options) if verdict is None else verdict.comparison
        parts = [part for by in job.by for part in compare(first, second, by=by, **options).values()]
        data: bytes = intervals.from_comparison(whole, verdict, parts).SerializeToString()
        return data


def _size(boxes: Boxes) -> int:
    """Bytes of all columns, and of the names of frames."""
    columns = [*vars(boxes).values(), *boxes.box_columns.values(), *boxes.frame_columns.values()]
    arrays = sum(column.nbytes for column in columns if isinstance(column, np.ndarray))
    return arrays + sum(map(sys.getsizeof, boxes.frames))


def _check_slices(ledger: Ledger, slicings: Sequence[str], n: int) -> None:
    """Refuse a comparison by so many slices that single boxes could be told apart, or that would need too much."""
    from detmetrics.slicing import parse, shards_by

    n_slices = sum(len(group.names) for by in slicings for group in shards_by(ledger, parse(by)))
    if n_slices > MAX_SLICES:
        raise InputError("by", expected=f"of at most {MAX_SLICES} slices", got=n_slices)
    _check_size(n, ledger.protocol, 1 + n_slices)


def _check_size(n: int, rules: Protocol, n_parts: int = 1) -> None:
    """Refuse draws that hold too many numbers."""
    from detmetrics.scoring import metric_names

    size = n_parts * len(metric_names(rules))
    if n * size > MAX_DRAWN:
        raise InputError("draws", expected=f"at most {MAX_DRAWN // size:,} of {size:,} numbers each", got=n)


def protocol(data: bytes) -> Any:
    """Give the rules of a serialised ``ProtocolChoice``, if they are of a size that can be worked with."""
    rules = convert.to_protocol(messages.parse("ProtocolChoice", data))
    size = len(rules.tasks) * len(rules.affinity.thresholds) * (len(rules.errors) + 2) * rules.curve.n_samples
    if size > MAX_TABLE:
        raise InputError("protocol", expected=f"of at most {MAX_TABLE:,} curve values", got=size)
    return rules


def read(payload: jobs.Payload, report: Report, *, are_predictions: bool) -> Boxes:
    """Read boxes from what was sent; errors name the upload, never a path of the server.

    Raises
    ------
    InputError
    CorruptError
        Where a blob is not what was kept.
    """
    path = Path(payload.path)
    if payload.path and payload.sha256:
        check(path, payload.sha256)
    try:
        if payload.format == COLUMNS:
            data = payload.data or _all_of(path, payload)
            message = messages.parse("Boxes", data)
            return convert.to_boxes(message, payload.source, are_predictions=are_predictions)
        if payload.compression == GZIP:
            _unpack(path, payload)
            path = Path(payload.scratch)
        boxes = _read_file(path, payload, report, are_predictions)
        object.__setattr__(boxes, "source", payload.source)  # what later errors name, too
        return boxes
    except InputError as error:
        text = str(error)
        for hidden in {payload.path, payload.scratch, str(path)} - {"", "."}:
            text = text.replace(hidden, payload.source)
        raise Told(text, error.what if text == str(error) else "", error.expected).error() from None
    except RecursionError:
        raise InputError(f"{payload.source} nests too deep") from None


def _read_file(path: Path, payload: jobs.Payload, report: Report, are_predictions: bool) -> Boxes:
    from detmetrics.io import nuscenes, parquet

    def advance(done: int, total: int) -> None:
        report("reading", done, total)

    if payload.format == PARQUET:
        _check_parquet(path, payload)
        return parquet.read(path, progress=advance)
    if payload.format == NUSCENES_JSON and are_predictions:
        return nuscenes.load_results(path, progress=advance)
    raise InputError("format", expected="columns or Parquet" + (" or nuScenes JSON" if are_predictions else ""))


def _check_parquet(path: Path, payload: jobs.Payload) -> None:
    """Refuse a small file that says it holds a large table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        meta = pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError) as error:  # a name that is not UTF-8 is a ValueError
        raise InputError(f"cannot read {payload.source}: {str(error).splitlines()[0]}") from None
    size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    if max(size, 8 * meta.num_rows * meta.num_columns) > payload.max_bytes:
        raise _too_large(payload)


def _all_of(path: Path, payload: jobs.Payload) -> bytes:
    if payload.compression != GZIP:
        return path.read_bytes()
    pieces: list[bytes] = []
    _pieces(path, payload, pieces.append)
    return b"".join(pieces)


def _unpack(path: Path, payload: jobs.Payload) -> None:
    try:
        with open(payload.scratch, "wb") as file:  # a worker that was lost may have left a part of it
            _pieces(path, payload, file.write)
    except OSError as error:
        raise of_os_error(error) from error


def _pieces(path: Path, payload: jobs.Payload, take: Callable[[bytes], object]) -> None:
    size = 0
    try:
        with gzip.open(path, "rb") as file:
            while piece := file.read(PIECE):
                size += len(piece)
                if size > payload.max_bytes:
                    raise _too_large(payload)
                take(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{payload.source} is not whole gzip: {error}") from None


def _too_large(payload: jobs.Payload) -> InputError:
    return InputError(f"{payload.source}, unpacked,", expected=f"at most {payload.max_bytes:,} bytes")


def warm_up(worker: Worker) -> None:
    """Load and compile all that an evaluation needs."""
    one: dict[str, Any] = {"center_m": np.ones((1, 3)), "size_lwh_m": np.ones((1, 3)), "yaw_rad": [0.0]}
    one |= {"label": [0], "labels": ["car"], "frame": [0], "frames": ["a"], "velocity_mps": np.zeros((1, 2))}
    sides = [convert.from_boxes(Boxes(**side)).SerializeToString() for side in (one, one | {"score": [0.5]})]
    payloads = [jobs.Payload(format=COLUMNS, data=side) for side in sides]
    worker.do(jobs.Evaluate(payloads[0], payloads[1], b"", "official"), lambda *_: None)


def main(descriptor: int, cache_bytes: int, memory_bytes: int) -> None:
    """Serve jobs from the pipe until it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # which are for the server, that drains
        signal.signal(number, signal.SIG_IGN)
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    keep_freed()
    pipe = Connection(descriptor)
    worker = Worker(cache_bytes)
    try:
        warm_up(worker)
    except (MemoryError, ImportError) as error:  # a library that finds no room cannot be imported
        sys.exit(f"worker: {type(error).__name__} {error}")
    last = 0.0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.1:
            last = now
            pipe.send(("progress", (stage, done, total)))

    with contextlib.suppress(EOFError, OSError):  # the server has gone
        pipe.send(("ready", None))
        while True:
            job = pipe.recv()
            answer: tuple[str, Any]
            try:
                answer = ("done", worker.do(job, report))
            except InputError as error:
                answer = ("refused", Told.of(error))
            except (ServiceError, MemoryError) as error:
                answer = ("failed", error)
            except Exception as error:
                answer = ("fault", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            pipe.send(answer)
            del job, answer


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:4]))
