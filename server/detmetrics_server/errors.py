"""What can go wrong in the service, and the one table from exceptions to status codes."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from detmetrics.errors import DetmetricsError, InputError


class ServiceError(DetmetricsError):
    """Base of what the service refuses or cannot do; the text is for the client."""

    #: Seconds after which a second try makes sense; 0: never by itself.
    retry_s = 0.0


class NotFoundError(ServiceError):
    """There is no such evaluation or data set."""


class ExistsError(ServiceError):
    """The name is taken."""


class StateError(ServiceError):
    """Not while it is in this state."""


class UnauthenticatedError(ServiceError):
    """No token, or none that is valid."""


class ForbiddenError(ServiceError):
    """The token's role does not allow it."""


class LimitError(ServiceError):
    """Larger than this server takes, ever."""


class BusyError(ServiceError):
    """Too much is waiting now."""

    retry_s = 1.0


class FullError(ServiceError):
    """The server's disk is full."""

    retry_s = 60.0


class CorruptError(ServiceError):
    """What is stored is not what was written."""


class WorkerLostError(ServiceError):
    """A worker process ended in the middle, twice."""

    retry_s = 5.0


class DrainingError(ServiceError):
    """The server is about to stop."""

    retry_s = 5.0


class CancelledError(ServiceError):
    """The evaluation was cancelled."""


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


class Told(NamedTuple):
    """An InputError as plain values, to carry between processes and into messages."""

    text: str
    what: str
    expected: str

    @staticmethod
    def of(error: InputError) -> Told:
        """Take the parts of an error."""
        return Told(str(error), getattr(error, "what", ""), getattr(error, "expected", ""))

    def error(self) -> InputError:
        """Give an InputError that says the same."""
        error = InputError(self.text)
        error.what, error.expected = self.what, self.expected
        return error


def of_os_error(error: OSError) -> Exception:
    """Give FullError where the disk is full, else the error itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return FullError("the server's disk is full: nothing was stored")
    return error


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
        text = "the server has too little memory for this"
    status = status_pb2.Status(code=code.value[0], message=text)
    if isinstance(error, InputError):
        field = error.what if error.expected else _first_word(error.what)
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
        _add(status, error_details_pb2.BadRequest(field_violations=[violation]))
    retry_s = getattr(error, "retry_s", 0.0)
    if retry_s:
        _add(status, error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=int(retry_s))))
    _add(status, error_details_pb2.RequestInfo(request_id=request_id))
    return rpc_status.to_status(status)


def _first_word(text: str) -> str:
    return text.split(" ", 1)[0].rstrip(":,")


def _add(status: Any, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


#: What the client raises for a code, where the local library would raise something of its own.
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
    kind = _BACK.get(code, ServiceError)
    if kind is BusyError and not retry_delay_s(error):
        kind = LimitError
    return kind(text if kind is not ServiceError else f"{code.name}: {text}")


def retry_delay_s(error: grpc.RpcError) -> float:
    """Seconds after which the server asks to be tried again; 0 where it does not."""
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            info = error_details_pb2.RetryInfo()
            detail.Unpack(info)
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return 0.0
