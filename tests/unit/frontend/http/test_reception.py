"""When a request has arrived, told from its bytes alone."""

from __future__ import annotations

import pytest

from frontend.http.reception import MAX_REQUEST_BYTES, Arrival, Reception

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /orders HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

WHOLE = [
    GET,
    b"GET / HTTP/1.1\r\n\r\n",
    POST + b"\r\n",
    POST + b"Content-Length: 0\r\n\r\n",
    POST + b"content-length:  3 \r\n\r\nabc",
    POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
    POST + b"X-Content-Length: 9\r\nX: Content-Length: 9\r\n\r\n",
    CHUNKED + b"0\r\n\r\n",
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    CHUNKED + b"3;name=value\r\n\r\n\r\r\n00a \r\n0123456789\r\n0\r\n\r\n",
    CHUNKED + b"1\r\nx\r\n0\r\nTrailer: value\r\n\r\n",
]

ENDLESS = [
    POST + b"Content-Length: x\r\n\r\n",
    POST + b"Content-Length: -1\r\n\r\n",
    POST + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n",
    POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    POST + b"Expect: miracles\r\nContent-Length: 9\r\n\r\n",
    POST + b"Content-Length: %d\r\n\r\n" % MAX_REQUEST_BYTES,
    CHUNKED + b"-1\r\n",
    CHUNKED + b"x\r\n",
    CHUNKED + b"%x\r\n" % MAX_REQUEST_BYTES,
    CHUNKED + b"1\r\nx\r\n" * (MAX_REQUEST_BYTES // 6),
    b"GET /" + b"x" * MAX_REQUEST_BYTES,
    b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_REQUEST_BYTES,
]


@pytest.mark.parametrize("request_bytes", WHOLE)
def test_a_request_is_whole_with_its_last_byte(request_bytes: bytes) -> None:
    reception = Reception()
    arrivals = [reception.add(bytes([byte])) for byte in request_bytes]
    assert arrivals == [Arrival.PART] * (len(request_bytes) - 1) + [Arrival.WHOLE]


@pytest.mark.parametrize("request_bytes", WHOLE)
def test_a_request_is_whole_with_the_next_behind_it(request_bytes: bytes) -> None:
    reception = Reception()
    assert reception.add(request_bytes + GET) is Arrival.WHOLE
    taken = reception.take()
    assert taken == request_bytes + GET
    assert reception.add(b"") is Arrival.NOTHING
    assert reception.add(taken[len(request_bytes) :]) is Arrival.WHOLE


@pytest.mark.parametrize("request_bytes", ENDLESS, ids=range(len(ENDLESS)))
def test_a_request_without_an_end_is_not_waited_for(request_bytes: bytes) -> None:
    assert Reception().add(request_bytes) is Arrival.ENDLESS


@pytest.mark.parametrize("value", [b"%b\rx", b"x%bx", b"3%b\r", b"%b"])
def test_blanks_are_read_once(value: bytes) -> None:
    """To try every way to match so many of them would take hours."""
    head = POST + b"Content-Length:" + value % (b" " * 16_000) + b"\r\n\r\n"
    assert Reception().add(head) in (Arrival.WHOLE, Arrival.ENDLESS)


def test_empty_lines_begin_no_request() -> None:
    reception = Reception()
    assert reception.add(b"\r\n" * 3) is Arrival.NOTHING
    assert reception.add(b"\r") is Arrival.PART
    assert reception.add(b"\n") is Arrival.NOTHING
    assert reception.add(b"\r\n" + GET) is Arrival.WHOLE
    assert reception.take() == GET


@pytest.mark.parametrize(
    ("version", "expectation", "expected"),
    [
        (b"HTTP/1.1", b"Expect: 100-Continue\r\n", True),
        (b"HTTP/1.0", b"Expect: 100-continue\r\n", False),
        (b"HTTP/1.1", b"", False),
    ],
)
def test_who_expects_to_be_told_to_continue(
    version: bytes, expectation: bytes, expected: bool
) -> None:
    reception = Reception()
    head = b"POST / " + version + b"\r\nContent-Length: 1\r\n" + expectation + b"\r\n"
    assert reception.add(head) is Arrival.PART
    assert reception.expects_continue is expected


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX: ", CHUNKED])
def test_what_is_kept_of_a_request_has_a_bound(start: bytes) -> None:
    reception = Reception()
    reception.add(start)
    while reception.add(b"1\r\nx\r\n") is Arrival.PART:
        pass
    assert reception.has_head is (start == CHUNKED)
    assert len(reception.take()) <= MAX_REQUEST_BYTES + 6
