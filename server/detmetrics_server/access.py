"""The door: every call passes here, for its token, its errors, its log line and its numbers."""

from __future__ import annotations

import asyncio
import inspect
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

from detmetrics.errors import DetmetricsError, InputError, Words
from detmetrics.extras import needs
from detmetrics_server.core import CALLER, Caller, Core
from detmetrics_server.errors import ForbiddenError, UnauthenticatedError, of_os_error
from detmetrics_server.messages import PACKAGE
from detmetrics_server.statuses import code_of, to_status
from detmetrics_server.storage import ROLES, Role
from detmetrics_server.watching import log

with needs("server"):
    import grpc
    import grpc.aio

_BY_ROLE: dict[Role, tuple[str, ...]] = {
    "reader": (
        f"/{PACKAGE}.EvaluationService/GetEvaluation",
        f"/{PACKAGE}.EvaluationService/ListEvaluations",
        f"/{PACKAGE}.EvaluationService/CompareEvaluations",
        f"/{PACKAGE}.DatasetService/GetDataset",
        f"/{PACKAGE}.DatasetService/ListDatasets",
        f"/{PACKAGE}.ServerService/GetServerInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ),
    "submitter": (
        f"/{PACKAGE}.EvaluationService/Evaluate",
        f"/{PACKAGE}.EvaluationService/EvaluateStream",
        f"/{PACKAGE}.EvaluationService/CancelEvaluation",
        f"/{PACKAGE}.EvaluationService/DeleteEvaluation",
    ),
    "admin": (f"/{PACKAGE}.DatasetService/UploadDataset", f"/{PACKAGE}.DatasetService/DeleteDataset"),
}
#: The least role that a method needs; what is not here is for nobody.
NEEDS: dict[str, Role] = {method: role for role, methods in _BY_ROLE.items() for method in methods}
EVALUATE = f"/{PACKAGE}.EvaluationService/Evaluate"
MAX_QUESTION = 1 << 20  # of every request but this one, since the event loop reads it
PUBLIC_IDLE_S = 5.0
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
PUBLIC = (CHECK, WATCH)


class Door(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets calls in.

    Parameters
    ----------
    core : Core
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Put everything around the handler of a call."""
        handler = await continuation(details)
        if handler is None:
            return None
        sides = [
            "stream" if streams else "unary" for streams in (handler.request_streaming, handler.response_streaming)
        ]
        behaviour, method = getattr(handler, "_".join(sides)), details.method
        if not handler.request_streaming:
            behaviour = self._with_one(behaviour, method)
        elif not method.startswith(f"/{PACKAGE}."):  # reflection; our own streams count themselves
            behaviour = self._with_all(behaviour)
        metadata = dict(details.invocation_metadata)

        async def around(stream: Any, context: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            self._core.calls.add(task)
            try:
                return await self._call(behaviour, stream, context, method, metadata)
            finally:
                self._core.calls.discard(task)
                await _forget(stream)

        # a stream to gRPC, whatever it is: so that nothing of a message is read before its caller is known
        make = {"unary": grpc.stream_unary_rpc_method_handler, "stream": grpc.stream_stream_rpc_method_handler}
        return make[sides[1]](around, handler.request_deserializer, handler.response_serializer)

    def _with_one(self, behaviour: Any, method: str) -> Any:
        """Make a handler of one message one of a stream, of which it takes the first."""
        is_public = method in PUBLIC
        idle_s = min(self._core.settings.idle_s, PUBLIC_IDLE_S if is_public else float("inf"))

        async def one(stream: Any, context: Any) -> Any:
            try:
                with self._core.receiving(is_public=is_public):
                    async with asyncio.timeout(idle_s):
                        request = await anext(stream, None)
            except TimeoutError:
                raise InputError(f"request: nothing came for {idle_s:g} s") from None
            if request is None:
                raise InputError("request", expected="one message", got=Words("none"))
            if isinstance(request, bytes) and len(request) > MAX_QUESTION and method != EVALUATE:
                raise InputError("request", expected=f"at most {MAX_QUESTION:,} bytes", got=len(request))
            with self._core.watching() if method == WATCH else nullcontext():
                answer = behaviour(request, context)
                if not inspect.isasyncgen(answer):
                    return await answer
                async for message in answer:
                    await context.write(message)
            return None

        return one

    def _with_all(self, behaviour: Any) -> Any:
        """Make a handler of a stream count as one that sends until its end."""

        async def all_of(stream: Any, context: Any) -> None:
            with self._core.receiving():
                async for message in behaviour(stream, context):
                    await context.write(message)

        return all_of

    async def _call(self, behaviour: Any, stream: Any, context: Any, method: str, metadata: Any) -> Any:
        start, request_id, name, code = time.perf_counter(), uuid.uuid4().hex, "", grpc.StatusCode.OK
        try:
            caller = await self._caller(method, metadata, request_id)
            name = caller.name
            CALLER.set(caller)
            return await behaviour(stream, context)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.InternalError:  # the caller has gone, which a write finds out before we are told
            code = grpc.StatusCode.CANCELLED
            raise asyncio.CancelledError from None
        except grpc.aio.AbortError:
            code = context.code() or grpc.StatusCode.UNKNOWN
            raise
        except Exception as error:
            if isinstance(error, OSError):
                error = of_os_error(error)
            code = code_of(error)
            if not isinstance(error, DetmetricsError):
                log("fault", level=40, error=error, method=method, request=request_id)
            status = to_status(error, request_id)
        finally:
            seconds = time.perf_counter() - start
            self._core.numbers.calls.labels(method, code.name).inc()
            self._core.numbers.seconds.labels(method).observe(seconds)
            if method not in PUBLIC:
                log("call", method=method, code=code.name, ms=round(seconds * 1e3, 1), caller=name, request=request_id)
        # out here, where the error has gone: gRPC would keep it, and with it all that it passed through
        return await context.abort(status.code, status.details, status.trailing_metadata)

    async def _caller(self, method: str, metadata: Any, request_id: str) -> Caller:
        """Give who calls, if they may.

        Raises
        ------
        UnauthenticatedError
        ForbiddenError
        """
        if method in PUBLIC:
            return Caller("anonymous", "reader", request_id)
        kind, _, token = str(metadata.get("authorization", "")).partition(" ")
        needs_token, found = await self._core.db(self._look_up, token if kind.lower() == "bearer" else "")
        if not needs_token:
            return Caller("anonymous", "admin", request_id)
        if found is None:
            raise UnauthenticatedError("this server needs a valid token: authorization: Bearer …")
        name, role = found
        if method not in NEEDS or ROLES.index(role) < ROLES.index(NEEDS[method]):
            raise ForbiddenError(f"this needs the role {NEEDS.get(method, 'of nobody')}, the token has {role}")
        return Caller(name, role, request_id)

    def _look_up(self, token: str) -> tuple[bool, tuple[str, Role] | None]:
        return self._core.needs_token, self._core.storage.token(token) if token else None


async def _forget(stream: Any) -> None:
    """Let go of the last message of a stream, of which nothing more is read.

    gRPC's iterator holds it, and itself: without this it would stay until Python looks for cycles, seldom.
    """
    await aiter(stream).aclose()
