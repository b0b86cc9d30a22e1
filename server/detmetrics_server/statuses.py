"""The one table from exceptions to status codes, and the way back in the client."""

from __future__ import annotations

import re
from typing import Any

from detmetrics.errors import InputError
from detmetrics.extras import needs
from detmetrics_server.errors import (
    BusyError,
    CancelledError,
    CorruptError,
    DrainingError,
    ExistsError,
    ForbiddenError,
    FullError,
    LimitError,
    NotFoundError,
    ServiceError,
    StateError,
    UnauthenticatedError,
    WorkerLostError,
)

with needs("client"):
    import grpc
    from google.protobuf import any_pb2, duration_pb2
    from google.rpc import error_details_pb2, status_pb2
    from grpc_status import rpc_status

DOMAIN = "detmetrics"
NO_MEMORY = "the server has too little memory for this"

#: The first class that an exception is an instance of decides.
CODES: dict[type[Exception], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    ExistsError: grpc.StatusCode.ALREADY_EXISTS,
    StateError: grpc.StatusCode.FAILED_PRECONDITION,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    LimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    FullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    MemoryError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    CorruptError: grpc.StatusCode.DATA_LOSS,
    WorkerLostError: grpc.StatusCode.UNAVAILABLE,
    DrainingError: grpc.StatusCode.UNAVAILABLE,
    CancelledError: grpc.StatusCode.CANCELLED,
    NotImplementedError: grpc.StatusCode.UNIMPLEMENTED,
}


def code_of(error: BaseException) -> grpc.StatusCode:
    """Give the status code of an exception; what is in no table is INTERNAL."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def to_status(error: BaseException, request_id: str) -> Any:
    """Give the status of an exception, with details; nothing internal leaks.

    Parameters
    ----------
    error : BaseException
    request_id : str
        Under which the log has the rest.
    """
    code = code_of(error)
    text = str(error)
    if code is grpc.StatusCode.INTERNAL:
        text = f"a fault of the server, not of your input; its log has it under {request_id}"
    elif isinstance(error, MemoryError):
        text = NO_MEMORY
    status = status_pb2.Status(code=code.value[0], message=text)
    if isinstance(error, InputError):
        field = error.what if error.expected else _first_word(error.what)
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
        _add(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, ServiceError):
        _add(status, error_details_pb2.ErrorInfo(reason=_reason(type(error)), domain=DOMAIN))
    retry_s = getattr(error, "retry_s", 0.0)
    if retry_s:
        _add(status, error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=int(retry_s))))
    _add(status, error_details_pb2.RequestInfo(request_id=request_id))
    return rpc_status.to_status(status)


def _reason(kind: type[Exception]) -> str:
    """Give the name of an error as the wire has it: ``NOT_FOUND`` for NotFoundError."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__.removesuffix("Error")).upper()


def _first_word(text: str) -> str:
    return text.split(" ", 1)[0].rstrip(":,")


def _add(status: Any, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


_BY_REASON = {_reason(kind): kind for kind in CODES if issubclass(kind, ServiceError)}
#: What the client raises for a code where no reason is told: InputError, gRPC's own, and those of older servers.
_BACK: dict[grpc.StatusCode, type[Exception]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: ExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: StateError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: ForbiddenError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: BusyError,
    grpc.StatusCode.DATA_LOSS: CorruptError,
    grpc.StatusCode.CANCELLED: CancelledError,
}


def from_rpc_error(error: grpc.RpcError) -> Exception:
    """Give the exception that a failed call means to the user of the client."""
    code, text = error.code(), error.details() or ""
    info = _detail(error, error_details_pb2.ErrorInfo)
    if info is not None and info.domain == DOMAIN and info.reason in _BY_REASON:
        return _BY_REASON[info.reason](text)
    kind = _BACK.get(code, ServiceError)
    if kind is BusyError and not retry_delay_s(error):
        kind = LimitError
    return kind(text if kind is not ServiceError else f"{code.name}: {text}")


def has_details(error: grpc.RpcError) -> bool:
    """Whether it was our server that refused: it always says more than gRPC does."""
    return rpc_status.from_call(error) is not None


def retry_delay_s(error: grpc.RpcError) -> float:
    """Seconds after which the server asks to be tried again; 0 where it does not."""
    info = _detail(error, error_details_pb2.RetryInfo)
    return 0.0 if info is None else float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)


def _detail(error: grpc.RpcError, kind: Any) -> Any:
    """Give the detail of a kind that came with a failed call, or None."""
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        if detail.Is(kind.DESCRIPTOR):
            found = kind()
            detail.Unpack(found)
            return found
    return None
