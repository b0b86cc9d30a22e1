"""The door: every call passes here, for its token, its errors, its log line and its numbers."""

from __future__ import annotations

import asyncio
import inspect
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from detmetrics.errors import DetmetricsError, InputError
from detmetrics_server.core import CALLER, Caller, Core
from detmetrics_server.errors import ForbiddenError, UnauthenticatedError, of_os_error
from detmetrics_server.messages import PACKAGE
from detmetrics_server.statuses import code_of, to_status
from detmetrics_server.storage import ROLES, Role
from detmetrics_server.watching import log

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
PUBLIC = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")


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
        kinds = {
            (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
            (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
            (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
            (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
        }
        kind, make = kinds[bool(handler.request_streaming), bool(handler.response_streaming)]
        behaviour, method = getattr(handler, kind), details.method
        metadata = dict(details.invocation_metadata)

        async def around(request: Any, context: Any) -> Any:
            return await self._call(behaviour, request, context, method, metadata)

        return make(around, handler.request_deserializer, handler.response_serializer)

    async def _call(self, behaviour: Any, request: Any, context: Any, method: str, metadata: Any) -> Any:
        start, request_id, name, code = time.perf_counter(), uuid.uuid4().hex, "", grpc.StatusCode.OK
        try:
            caller = await self._caller(method, metadata, request_id)
            name = caller.name
            CALLER.set(caller)
            if isinstance(request, bytes) and len(request) > MAX_QUESTION and method != EVALUATE:
                raise InputError("request", expected=f"at most {MAX_QUESTION:,} bytes", got=len(request))
            answer = behaviour(request, context)
            if not inspect.isasyncgen(answer):
                return await answer
            async for message in answer:
                await context.write(message)
            return None
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
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
            await context.abort(status.code, status.details, status.trailing_metadata)
        finally:
            seconds = time.perf_counter() - start
            self._core.numbers.calls.labels(method, code.name).inc()
            self._core.numbers.seconds.labels(method).observe(seconds)
            if method not in PUBLIC:
                log("call", method=method, code=code.name, ms=round(seconds * 1e3, 1), caller=name, request=request_id)

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
