"""EvaluationService: what the rpcs do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from detmetrics.errors import DetmetricsError, InputError, Words
from detmetrics.protocol import Protocol
from detmetrics_server import asking, convert, jobs, messages
from detmetrics_server.attempts import Attempt
from detmetrics_server.blobs import Spooled
from detmetrics_server.core import CALLER, Core, check_owner
from detmetrics_server.errors import CorruptError, DrainingError, NotFoundError, StateError, WorkerLostError
from detmetrics_server.messages import CANCELLED, COLUMNS, FAILED, PLAIN, RUNNING, SUCCEEDED
from detmetrics_server.statuses import NO_MEMORY
from detmetrics_server.uploads import Upload
from detmetrics_server.watching import log

MAX_ATTEMPTS = 5
AGAIN_S = 5.0
MAX_PROTOCOL = 256 << 10  # read in the event loop

STOPPED = "the evaluation was cancelled, or the server is about to stop"

Event = tuple[str, int, int]
Kept = asyncio.Future[tuple[dict[str, Any], bool]]


class Running:
    """An accepted evaluation at work, and who listens."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.task: asyncio.Task[None] | None = None
        self.at: Event = ("waiting", 0, 0)
        self.error: Exception | None = None
        self.is_over = False
        self.listeners: list[asyncio.Queue[Event | None]] = []

    def tell(self, event: Event | None) -> None:
        """Tell all listeners; None is the end, after which nothing that a thread was still telling counts."""
        if event is None:
            self.is_over = True
        elif self.is_over:
            return
        else:
            self.at = event
        for queue in self.listeners:
            if event is not None and not queue.empty():
                queue.get_nowait()  # a slow reader gets the latest, not a backlog
            queue.put_nowait(event)


class EvaluationService:
    """The rpcs; every one gets the bytes of its request."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._running: dict[str, Running] = {}

    # evaluating

    async def Evaluate(self, data: bytes, context: Any) -> Any:
        """Evaluate in one call."""
        with self._core.admitted(len(data)):
            messages.check_fields("EvaluateRequest", data)
            request = messages.parse("EvaluateRequest", data)
            fields = _fields(request)
            predictions, given_truth = b"".join(request.predictions), b"".join(request.truth)
            if not predictions:
                raise InputError("predictions", expected="given")
            if bool(given_truth) == bool(request.dataset):
                raise InputError(
                    "dataset and truth", expected="one of them", got=Words("both" if given_truth else "none")
                )
            protocol, rules = _rules(request)
            absent, draws = fields.pop("absent"), fields.pop("draws")
            is_stored = not (given_truth or request.stateless)
            if is_stored:
                job_told = _job(COLUMNS, PLAIN, protocol, absent, draws, "predictions")
                fields |= {"protocol_name": rules.name, "job": job_told}
            if is_stored and fields["request_id"]:
                fields["sha256"] = await asyncio.to_thread(lambda: hashlib.sha256(predictions).hexdigest())
                known = await self._core.db(self._core.storage.by_request, fields["owner"], fields["request_id"])
                if known is not None:
                    return messages.twin("EvaluateResponse")(evaluation=await self._answered(known, fields))
            if request.dataset:
                truth = await self._truth(fields["dataset"], draws)
            else:
                truth = jobs.Payload(format=COLUMNS, data=given_truth, source="truth")
            pred = jobs.Payload(format=COLUMNS, data=predictions)
            job = jobs.Evaluate(truth, pred, protocol, convert.ABSENT[absent], draws)
            del data, request, given_truth
            async with self._there(fields["dataset"]):
                done: jobs.Evaluated = await self._core.pool.run(job, kill=draws is not None)  # which take long
            if is_stored:
                row = await asyncio.shield(self._core.begin(self._store(fields, predictions, done)))
                evaluation = await self._answered(row, fields)
            else:
                evaluation = messages.Evaluation(
                    display_name=fields["display_name"],
                    dataset=f"datasets/{fields['dataset']}" if fields["dataset"] else "",
                    tags=fields["tags"],
                    state=SUCCEEDED,
                    protocol=rules.name,
                    owner=fields["owner"],
                    metrics={name: value for name, value in done.metrics.items() if value == value},
                )
                evaluation.scores.MergeFromString(done.scores)
            return messages.twin("EvaluateResponse")(evaluation=evaluation)

    async def _store(self, fields: dict[str, Any], predictions: bytes, done: jobs.Evaluated) -> dict[str, Any]:
        """Keep what an evaluation came from and came to, in one step."""

        def commit() -> dict[str, Any]:
            storage = self._core.storage
            with storage.keeping() as keep:
                report = keep(done.scores)
                now = time.time_ns()
                row = {
                    **fields,
                    "id": uuid.uuid4().hex,
                    "state": SUCCEEDED,
                    "created_ns": now,
                    "ended_ns": now,
                    "sha256": keep(predictions),
                    "report": report,
                }
                return storage.add_evaluation(row, row.pop("tags"), done.metrics)[0]

        return await self._core.db(commit)

    async def _answered(self, row: dict[str, Any], fields: dict[str, Any]) -> Any:
        """Give an evaluation that a request made, if it is the same request."""
        _check_same(row, fields)
        return await self._message(row, full=True)

    async def EvaluateStream(self, stream: AsyncIterator[bytes], context: Any) -> None:
        """Take an upload and tell how its evaluation goes on."""
        with Upload(self._core, "EvaluateStreamRequest", stream) as upload:
            row = await self._received(upload)
        running = self._running.get(row["id"])
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        if running is not None:
            queue.put_nowait(running.at)
            running.listeners.append(queue)
        response = messages.twin("EvaluateStreamResponse")
        try:
            await context.write(response(accepted=await self._message(row, full=False)))
            while running is not None and (event := await queue.get()) is not None:
                stage, done, total = event
                await context.write(response(progress={"stage": stage, "done": done, "total": total}))
        finally:
            if running is not None:
                running.listeners.remove(queue)
        if running is not None and running.error is not None:
            raise running.error
        row = await self._core.db(self._core.storage.evaluation, row["id"])
        await context.write(response(evaluation=await self._message(row, full=True)))

    async def _received(self, upload: Upload) -> dict[str, Any]:
        """Take an upload; give the row of its evaluation, or of the one that the same request made before."""
        header = await upload.header()
        fields = _fields(header)
        asking.payload(header.format, header.compression, is_truth=False)
        source = asking.text(header.file_name, "header.file_name") or "predictions"
        protocol, rules = _rules(header)
        fields["protocol_name"] = rules.name
        absent, draws = fields.pop("absent"), fields.pop("draws")
        fields["job"] = _job(header.format, header.compression, protocol, absent, draws, source)
        await self._truth(asking.dataset(header.dataset), draws)
        row = await self._core.db(self._core.storage.by_request, fields["owner"], fields["request_id"])
        if row is None:
            self._core.pool.check_room()
        else:
            _check_same(row, fields)  # before all is sent in vain
        spooled = self._core.storage.blobs.new()
        try:
            await upload.body(spooled)
        except BaseException:
            await self._core.surely(spooled.close)
            raise
        fields["sha256"] = spooled.sha256
        if row is None:
            row = await asyncio.shield(self._core.begin(self._accept(fields, spooled)))
        else:
            await self._core.surely(spooled.close)
        _check_same(row, fields)
        return row

    async def _accept(self, fields: dict[str, Any], spooled: Spooled) -> dict[str, Any]:
        """Keep an upload and begin its evaluation; from here on nobody needs to wait for it.

        A worker reads it under a second name already while it goes to the disk, which takes long for a large one; what
        the worker finds is written down only once the upload is kept.
        """
        storage = self._core.storage
        row = {**fields, "id": uuid.uuid4().hex, "state": RUNNING, "created_ns": time.time_ns()}
        early = storage.blobs.spool / f"early-{row['id']}"
        attempt = self._attempt(row["id"], 0, is_kept=False)

        def link() -> bool:
            try:
                spooled.flush(durable=False)
                os.link(spooled.path, early)
            except OSError:  # not every file system has second names
                return False
            except BaseException:
                spooled.close()
                raise
            return True

        def commit() -> tuple[dict[str, Any], bool]:
            try:
                spooled.flush(durable=storage.blobs.durable)  # before others have to wait
                columns = {name: value for name, value in row.items() if name != "tags"}
                with storage.keeping() as keep:
                    keep(spooled)
                    columns["attempts"] = attempt.number
                    answer = storage.add_evaluation(columns, row["tags"], {})
                attempt.kept(columns["attempts"])
                return answer
            finally:
                spooled.close()

        has_link = await self._core.db(link)
        kept = self._core.begin(self._core.db(commit))
        task, is_new = self._begin(row, attempt, str(early) if has_link else "", kept), False
        try:
            found, is_new = await kept
        finally:
            if not is_new:
                task.cancel()
        return found

    def _attempt(self, evaluation_id: str, ended: int, *, is_kept: bool) -> Attempt:
        return Attempt(ended, lambda n: self._core.storage.set_attempts(evaluation_id, n), is_kept=is_kept)

    def _begin(
        self, row: dict[str, Any], attempt: Attempt, path: str = "", kept: Kept | None = None
    ) -> asyncio.Task[None]:
        running = self._running[row["id"]] = Running(attempt)
        running.task = asyncio.ensure_future(self._work(row, running, path, kept))
        return running.task

    async def resume(self) -> int:
        """Begin what a stopped server left; give how many."""
        storage = self._core.storage
        rows = await self._core.db(storage.left)
        for row in rows:
            if row["attempts"] >= MAX_ATTEMPTS:
                error = f"the server ended {row['attempts']} times while it worked on this"
                await self._core.db(storage.end, row["id"], FAILED, error=error, metrics={})
            else:
                self._begin(row, self._attempt(row["id"], row["attempts"], is_kept=True))
        return len(rows)

    async def drain(self, seconds: float) -> None:
        """Wait a while for what is at work, then let go of it: it goes on at the next start."""
        tasks = [running.task for running in self._running.values() if running.task is not None]
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=seconds)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _work(self, row: dict[str, Any], running: Running, path: str, kept: Kept | None) -> None:
        """Evaluate what was accepted, and write down how it ended, if it was kept."""
        core, evaluation_id = self._core, row["id"]
        try:
            payload, told = self._stored(row, "pred")
            if path:
                payload = payload._replace(path=path, sha256="")  # its hash was taken a moment ago
            if not path and not await _is_kept(kept):
                return
            truth = await self._truth(row["dataset"])
            draws = jobs.Draws(**told["draws"]) if "draws" in told else None
            protocol, absent = base64.b64decode(told["protocol"]), convert.ABSENT[told["absent"]]
            job = jobs.Evaluate(truth, payload, protocol, absent, draws)
            done: jobs.Evaluated = await core.pool.run(
                job,
                progress=lambda *event: running.tell(event),
                kill=True,
                must_wait=True,
                begun=running.attempt.begun,
            )
            if not await _is_kept(kept):
                return

            def commit() -> dict[str, Any]:
                with core.storage.keeping() as keep:
                    return core.storage.end(evaluation_id, SUCCEEDED, report=keep(done.scores), metrics=done.metrics)

            if (await core.db(commit))["state"] == CANCELLED:  # which came when all was done but this
                running.error = StateError(STOPPED)
        except asyncio.CancelledError:  # by CancelEvaluation, which has written it down, or the end of the server
            running.error = StateError(STOPPED)
            if core.pool.is_closed:
                running.error = WorkerLostError("the server stopped; it goes on with this when it starts again")
        except Exception as error:
            running.error = error
            is_left = core.pool.is_closed and isinstance(error, (WorkerLostError, DrainingError))
            if await _is_kept(kept) and not is_left:
                text = NO_MEMORY if isinstance(error, MemoryError) else "a fault of the server"
                text = str(error) if isinstance(error, DetmetricsError) else text
                if not isinstance(error, DetmetricsError):
                    log("fault", level=40, error=error, evaluation=evaluation_id)
                while not await self._failed(evaluation_id, text) and not core.pool.is_closed:
                    running.tell(None)  # who listens need not wait until there is room on the disk
                    await asyncio.sleep(AGAIN_S)
        finally:
            try:
                if core.pool.is_closed:  # it goes on at the next start, and did not end this server
                    await core.surely(running.attempt.let_go)
            finally:
                if path:
                    Path(path).unlink(missing_ok=True)
                self._running.pop(evaluation_id, None)
                running.tell(None)

    async def _failed(self, evaluation_id: str, text: str) -> bool:
        """Write down that an evaluation failed; give whether that is done: nothing may stay running for ever."""
        try:
            await self._core.db(self._core.storage.end, evaluation_id, FAILED, error=text, metrics={})
        except NotFoundError:  # cancelled and deleted in the meantime
            return True
        except Exception as error:
            log("fault", level=40, error=error, evaluation=evaluation_id)
            return False
        return True

    def _stored(self, row: dict[str, Any], which: str) -> tuple[jobs.Payload, dict[str, Any]]:
        """Give the predictions of a row as a payload, and how they are evaluated."""
        told = json.loads(row["job"])
        return self._payload(row, told, told["source"], which), told

    async def _truth(self, dataset_id: str, draws: jobs.Draws | None = None) -> jobs.Payload:
        row = await self._core.db(self._core.storage.dataset, dataset_id)
        source = f"truth of {dataset_id}"
        if draws is not None:
            asking.unit(draws.unit, json.loads(row["frame_columns"]), source)
        return self._payload(row, json.loads(row["payload"]), source, "truth")

    def _payload(self, row: dict[str, Any], told: dict[str, Any], source: str, which: str) -> jobs.Payload:
        """Give what is stored of a row; ``which`` begins the name of its scratch file."""
        blobs = self._core.storage.blobs
        return jobs.Payload(
            format=told["format"],
            compression=told["compression"],
            path=str(blobs.path(row["sha256"])),
            sha256=row["sha256"],
            source=source,
            max_bytes=self._core.settings.max_unpacked_bytes,
            scratch=str(blobs.spool / f"{which}-{uuid.uuid4().hex}"),
        )

    # history

    async def GetEvaluation(self, data: bytes, context: Any) -> Any:
        """Give one evaluation."""
        request = messages.parse("GetEvaluationRequest", data)
        row = await self._core.db(self._core.storage.evaluation, asking.evaluation(request.name))
        return messages.twin("GetEvaluationResponse")(evaluation=await self._message(row, full=True))

    async def ListEvaluations(self, data: bytes, context: Any) -> Any:
        """List evaluations."""
        request = messages.parse("ListEvaluationsRequest", data)
        query, size = asking.query(request), asking.page_size(request.page_size)
        start = asking.position(asking.page_state(request.page_token, query))
        page = await self._core.db(self._core.storage.evaluations, query, size, start)
        if query.metric and not page.rows and start is None:
            asking.known_metric(query.metric, await self._core.db(self._core.storage.metrics))
        return messages.twin("ListEvaluationsResponse")(
            evaluations=[_without_scores(row) for row in page.rows],
            next_page_token=asking.page_token(page.next, query) if page.next else "",
        )

    async def CancelEvaluation(self, data: bytes, context: Any) -> Any:
        """Stop an evaluation."""
        request = messages.parse("CancelEvaluationRequest", data)
        storage, evaluation_id = self._core.storage, asking.evaluation(request.name)
        check_owner((await self._core.db(storage.evaluation, evaluation_id))["owner"])
        row = await asyncio.shield(self._core.begin(self._cancelled(evaluation_id)))
        return messages.twin("CancelEvaluationResponse")(evaluation=_without_scores(row))

    async def _cancelled(self, evaluation_id: str) -> dict[str, Any]:
        """Write down that an evaluation is cancelled, if it is still running, and then stop it."""
        row = await self._core.db(self._core.storage.end, evaluation_id, CANCELLED, metrics={})
        running = self._running.get(evaluation_id)
        if running is not None and running.task is not None and row["state"] == CANCELLED:
            running.task.cancel()
        return row

    async def DeleteEvaluation(self, data: bytes, context: Any) -> Any:
        """Delete an evaluation."""
        request = messages.parse("DeleteEvaluationRequest", data)
        storage, evaluation_id = self._core.storage, asking.evaluation(request.name)
        check_owner((await self._core.db(storage.evaluation, evaluation_id))["owner"])
        await self._core.db(storage.delete_evaluation, evaluation_id)
        return messages.twin("DeleteEvaluationResponse")()

    async def CompareEvaluations(self, data: bytes, context: Any) -> Any:
        """Compare two evaluations."""
        request = messages.parse("CompareEvaluationsRequest", data)
        slicings, rows = asking.by(request.by), []
        for field in ("baseline", "candidate"):
            evaluation_id = asking.evaluation(getattr(request, field), field)
            row = await self._core.db(self._core.storage.evaluation, evaluation_id)
            if row["state"] != SUCCEEDED:
                raise StateError(f"{field} has not succeeded")
            rows.append(row)
        if rows[0]["dataset"] != rows[1]["dataset"]:
            names = " and ".join(row["dataset"] for row in rows)
            raise InputError("data set of baseline and candidate", expected="the same", got=names)
        sides, rules, absents = [], [], set()
        for row, which in zip(rows, ("baseline", "candidate"), strict=True):
            payload, told = self._stored(row, which)
            sides.append(payload)
            rules.append(base64.b64decode(told["protocol"]))
            absents.add(convert.ABSENT[told["absent"]])
        digests = {convert.to_protocol(messages.parse("ProtocolChoice", rule)).digest for rule in rules}
        if len(digests) > 1:
            names = " and ".join(row["protocol_name"] for row in rows)
            raise InputError("protocol of baseline and candidate", expected="the same", got=names)
        if len(absents) > 1:
            raise InputError("absent of baseline and candidate", expected="the same")
        truth = await self._truth(rows[0]["dataset"])
        job = jobs.Compare(truth, sides[0], sides[1], rules[0], absents.pop(), data, slicings)
        async with self._there(rows[0]["dataset"], *(row["id"] for row in rows)):
            response = await self._core.pool.run(job, kill=True)
        return messages.twin("CompareEvaluationsResponse").FromString(response)

    async def _message(self, row: dict[str, Any], *, full: bool) -> Any:
        message = _without_scores(row)
        if full and row["report"]:
            async with self._there("", row["id"]):
                message.scores.MergeFromString(await self._core.db(self._core.storage.blobs.read, row["report"]))
        return message

    @asynccontextmanager
    async def _there(self, dataset_id: str, *evaluation_ids: str) -> AsyncIterator[None]:
        """Say of what is deleted in the midst of this that it is not found, not that it is damaged."""
        try:
            yield
        except CorruptError:
            for evaluation_id in evaluation_ids:
                await self._core.db(self._core.storage.evaluation, evaluation_id)
            if dataset_id:
                await self._core.db(self._core.storage.dataset, dataset_id)
            raise


async def _is_kept(kept: Kept | None) -> bool:
    """Whether an upload is stored under its own row; waits until that is known."""
    if kept is None:
        return True
    await asyncio.wait([kept])
    return not kept.cancelled() and kept.exception() is None and kept.result()[1]


def _fields(request: Any) -> dict[str, Any]:
    """Check and give what a request and a header have in common."""
    return {
        "owner": CALLER.get().name,
        "request_id": asking.request_id(request.request_id),
        "display_name": asking.text(request.display_name, "display_name"),
        "tags": asking.tags(request.tags),
        "absent": asking.absent(request.absent),
        "draws": asking.draws(request),
        "dataset": asking.dataset(request.dataset) if request.dataset else "",
    }


def _rules(request: Any) -> tuple[bytes, Protocol]:
    """Give the rules of a request, as they came and as they are."""
    data = b"".join(request.protocol)
    if len(data) > MAX_PROTOCOL:
        raise InputError("protocol", expected=f"at most {MAX_PROTOCOL:,} bytes", got=len(data))
    return data, asking.protocol(convert.to_protocol(messages.parse("ProtocolChoice", data)))


def _check_same(row: dict[str, Any], fields: dict[str, Any]) -> None:
    """Refuse a request whose id another one had, that asked for something else or brought other bytes.

    Raises
    ------
    InputError
    """
    if fields["request_id"] and (
        _asked(row) != _asked(fields) or fields.get("sha256", row["sha256"]) != row["sha256"]  # none before they came
    ):
        raise InputError("request_id", expected="new, or that of the same request", got=row["request_id"])


def _asked(row: dict[str, Any]) -> tuple[object, ...]:
    """Give what a request asks for, however its client laid the message out."""
    told = json.loads(row["job"])
    rules = convert.to_protocol(messages.parse("ProtocolChoice", base64.b64decode(told["protocol"])))
    how = told["format"], told["compression"], convert.ABSENT[told["absent"]], rules.digest, told.get("draws")
    return row["dataset"], row["display_name"], sorted(row["tags"]), *how


def _job(format_: int, compression: int, protocol: bytes, absent: int, draws: jobs.Draws | None, source: str) -> str:
    """Give what a later start, or a comparison, has to know, as text."""
    told: dict[str, Any] = {"format": format_, "compression": compression, "absent": absent, "source": source}
    told |= {} if draws is None else {"draws": draws._asdict()}
    return json.dumps({**told, "protocol": base64.b64encode(protocol).decode()})


def _without_scores(row: dict[str, Any]) -> Any:
    message = messages.Evaluation(
        name=f"evaluations/{row['id']}",
        display_name=row["display_name"],
        dataset=f"datasets/{row['dataset']}",
        tags=row["tags"],
        state=row["state"],
        protocol=row["protocol_name"],
        owner=row["owner"],
        error=row["error"],
        metrics=row["metrics"],
        predictions_sha256=row["sha256"],
    )
    message.create_time.FromNanoseconds(row["created_ns"])
    if row["ended_ns"] is not None:
        message.end_time.FromNanoseconds(row["ended_ns"])
    return message
