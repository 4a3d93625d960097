"""One family of errors and one table: exception, gRPC status, HTTP status.

No other module names a status of either protocol. An exception outside the family is a
defect: the caller gets a generic INTERNAL or 500, the log gets the traceback.

The errors are in the order of what a caller may conclude:

- no repeat changes it: the request itself is at fault;
- this copy of the request did nothing: send it again, elsewhere or later;
- unknown: it may have been executed, or may yet be. Repeat it under the same request id only. All
  that is in neither of the other two groups is here, defects of the other side as well: INTERNAL
  says that something broke, not when.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import ClassVar

import grpc

logger = logging.getLogger(__name__)


class BourseError(Exception):
    """Something the caller is told about. The message is for the caller's eyes."""

    grpc_status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    http_status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    default_message: ClassVar[str] = "internal error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.default_message)

    @property
    def message(self) -> str:
        return str(self.args[0])


# ---------------------------------------------------------------- no repeat changes it


class InvalidRequest(BourseError):
    """The input is malformed; nothing was done."""

    grpc_status = grpc.StatusCode.INVALID_ARGUMENT
    http_status = HTTPStatus.BAD_REQUEST
    default_message = "invalid request"


class NotFound(BourseError):
    grpc_status = grpc.StatusCode.NOT_FOUND
    http_status = HTTPStatus.NOT_FOUND
    default_message = "not found"


class KeyReused(BourseError):
    """The request id was decided for another trade; this one was not executed."""

    grpc_status = grpc.StatusCode.ALREADY_EXISTS
    http_status = HTTPStatus.UNPROCESSABLE_ENTITY
    default_message = "this Idempotency-Key was used for another trade"


# ---------------------------------------------------------------- this copy did nothing


class NotLeader(BourseError):
    """This copy of the request was not executed: another replica leads."""

    grpc_status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "not leader"


class StaleEpoch(BourseError):
    """The catalog refused an epoch that is not the registered one; nothing was decided."""

    grpc_status = grpc.StatusCode.ABORTED
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "stale epoch"


class Busy(BourseError):
    """A bound was reached; this copy of the request was not executed."""

    grpc_status = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "too many requests at once"


# ---------------------------------------------------------------- unknown


class Unavailable(BourseError):
    """The other side cannot be reached, or cannot serve now."""

    grpc_status = grpc.StatusCode.UNAVAILABLE
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "service unavailable"


class WrongPeer(Unavailable):
    """Somebody else answered at this address. Raised by callers; no service answers it."""

    default_message = "another service answered"


class OutcomeUnknown(BourseError):
    """The request may have been executed or may yet be; repeat it under the same key."""

    grpc_status = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "outcome unknown, repeat with the same Idempotency-Key"


class Internal(BourseError):
    """A defect on the other side, whose log has the traceback: met before or after the deed."""


class Damaged(BourseError):
    """Stored data contradicts itself; serving it would be worse than not serving."""

    grpc_status = grpc.StatusCode.DATA_LOSS
    http_status = HTTPStatus.INTERNAL_SERVER_ERROR
    default_message = "stored data is damaged"


class Contradiction(Damaged):
    """A log and a journal, each whole in itself, do not belong together."""

    grpc_status = grpc.StatusCode.OUT_OF_RANGE
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "log and journal contradict each other"


# ---------------------------------------------------------------- the table


def damage_elsewhere(error: Damaged) -> Unavailable:
    """What the damage that another part reports is here: it says nothing of this part's data."""
    return Unavailable(error.message)


_BY_GRPC_STATUS: dict[grpc.StatusCode, type[BourseError]] = {
    kind.grpc_status: kind
    for kind in (
        Internal,
        InvalidRequest,
        NotFound,
        KeyReused,
        NotLeader,
        StaleEpoch,
        Busy,
        Unavailable,
        OutcomeUnknown,
        Damaged,
        Contradiction,
    )
}
# A call cancelled from this side (its channel was closed) reached nobody who would answer.
_BY_GRPC_STATUS[grpc.StatusCode.CANCELLED] = Unavailable
# gRPC's own answer where a service does not exist: a container has got another one's address.
_BY_GRPC_STATUS[grpc.StatusCode.UNIMPLEMENTED] = WrongPeer


def number_of(status: grpc.StatusCode) -> int:
    """The status as it travels inside a message."""
    return int(status.value[0])


_BY_NUMBER = {number_of(status): status for status in grpc.StatusCode}


def from_number(number: int, message: str) -> BourseError:
    """The error that a status inside a message stands for."""
    return _error(_BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN), message)


def from_rpc_error(error: grpc.RpcError) -> BourseError:
    """The error of the family that a failed call stands for."""
    return _error(error.code(), error.details())


def _error(status: grpc.StatusCode, details: str | None) -> BourseError:
    """A status that no service of ours sends (a proxy's, or gRPC's own UNKNOWN) is Internal."""
    kind = _BY_GRPC_STATUS.get(status, Internal)
    if kind is Internal:
        # What went wrong over there is for the logs, not for whoever is told of it.
        logger.error("%s from the other side: %s", status, details)
        return Internal()
    return kind(None if kind is WrongPeer else details)
