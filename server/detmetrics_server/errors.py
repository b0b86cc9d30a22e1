"""What can go wrong in the service."""

from __future__ import annotations

import errno
from typing import NamedTuple

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
