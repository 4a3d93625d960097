"""One family of errors and one table: exception, gRPC status, HTTP status.

No other module names a status of either protocol. An exception outside the family is a
defect: the caller gets a generic INTERNAL or 500, the log gets the traceback.

The errors are in three groups. Each tells the caller what it may do:

- No repeat changes it: the request itself is wrong.
- This copy of the request did nothing: send it again, elsewhere or later.
- Unknown: it may have executed, or may still execute. Repeat it only with the same request id. All
  other errors are here, defects of the other side too: INTERNAL says that something broke, but not
  whether that was before or after the request was executed.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import ClassVar

import grpc

logger = logging.getLogger(__name__)


class BourseError(Exception):
    """An error that the caller is told about. The caller sees its message."""

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


class NotActive(BourseError):
    """This copy of the request did nothing: another catalog is active, or none yet."""

    grpc_status = grpc.StatusCode.PERMISSION_DENIED
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "this catalog is not the active one"


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
    """Another service answered at this address. Callers raise it; no service answers with it."""

    default_message = "another service answered"


class OutcomeUnknown(BourseError):
    """The request may have executed, or may still execute. Repeat it with the same key."""

    grpc_status = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "outcome unknown, repeat with the same Idempotency-Key"


class Internal(BourseError):
    """A defect on the other side, before or after it executed. Its log has the traceback."""


class Damaged(BourseError):
    """Stored data contradicts itself. It must not be served."""

    grpc_status = grpc.StatusCode.DATA_LOSS
    http_status = HTTPStatus.INTERNAL_SERVER_ERROR
    default_message = "stored data is damaged"


class Contradiction(Damaged):
    """A log and a journal do not belong together, though neither is damaged."""

    grpc_status = grpc.StatusCode.OUT_OF_RANGE
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "log and journal contradict each other"


# ---------------------------------------------------------------- the table


def damage_elsewhere(error: Damaged) -> Unavailable:
    """The error to raise when another part reports damage: this part's own data may be fine."""
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
        NotActive,
        Busy,
        Unavailable,
        OutcomeUnknown,
        Damaged,
        Contradiction,
    )
}
# This side cancelled the call by closing its channel, so no answer will come.
_BY_GRPC_STATUS[grpc.StatusCode.CANCELLED] = Unavailable
# gRPC answers this when the service does not exist there: a container has another one's address.
_BY_GRPC_STATUS[grpc.StatusCode.UNIMPLEMENTED] = WrongPeer


def number_of(status: grpc.StatusCode) -> int:
    """The status as a number inside a message."""
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
        # The details are for the log, not for the caller.
        logger.error("%s from the other side: %s", status, details)
        return Internal()
    return kind(None if kind is WrongPeer else details)
