"""How old a request is, by the edge's header."""

from __future__ import annotations

import time

import pytest

from frontend.http.request_start import elapsed_s, is_too_old

NOW = 1_800_000_000.0


def of(header: str) -> float:
    return elapsed_s({"HTTP_X_REQUEST_START": header}, NOW)


@pytest.mark.parametrize(
    ("header", "elapsed"),
    [
        ("t=1800000000000", 0.0),
        ("t=1799999997250", 2.75),
        ("t=1799999990000", 10.0),
        ("t=1", NOW - 0.001),
        ("t=0", NOW),
    ],
)
def test_the_header_is_milliseconds_since_the_epoch(header: str, elapsed: float) -> None:
    assert of(header) == pytest.approx(elapsed)


@pytest.mark.parametrize("header", ["t=1800000000001", "t=1800000099000", "t=" + "9" * 15])
def test_the_future_counts_as_now(header: str) -> None:
    assert of(header) == 0.0


MALFORMED = ["", "t=", "1799999990000", "t=-5", "t=1.5", "t=x", "t= 1", "t=1 ", "T=1", "t=1,t=1"]


@pytest.mark.parametrize("header", [*MALFORMED, "t=" + "1" * 16, "t=" + "1" * 5000, "t=\u0661"])
def test_what_is_malformed_counts_as_now(header: str) -> None:
    assert of(header) == 0.0


def test_without_a_header_a_request_is_new() -> None:
    assert elapsed_s({}) == 0.0


@pytest.mark.parametrize(("age_s", "too_old"), [(0, False), (6.5, False), (7.5, True), (1e9, True)])
def test_it_is_too_old_after_seven_seconds(age_s: float, too_old: bool) -> None:
    environ = {"HTTP_X_REQUEST_START": f"t={int((time.time() - age_s) * 1000)}"}
    assert is_too_old(environ) is too_old
