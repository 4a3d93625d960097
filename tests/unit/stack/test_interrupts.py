"""When an interrupt ends a run, and when it waits."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator

import pytest

from stack.terminal import Interrupts, Progress, say_at_once

said: list[str] = []


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    """As in a terminal: under nohup a hangup would be ignored."""
    said.clear()
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with Interrupts(said.append) as found:
            yield found
    finally:
        signal.signal(signal.SIGHUP, before)


def interrupt(number: signal.Signals = signal.SIGINT) -> None:
    signal.raise_signal(number)


every_signal = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


@every_signal
def test_before_the_load_it_ends_the_run(interrupts: Interrupts, number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(number)


@every_signal
def test_under_load_the_first_ends_it_early_and_the_second_gives_up(
    interrupts: Interrupts, number: signal.Signals
) -> None:
    interrupts.end_early()
    interrupt(number)
    assert interrupts.stopping.is_set()
    assert said == ["ending early; once more gives up at once"]
    with pytest.raises(KeyboardInterrupt):
        interrupt(number)


def test_who_has_given_up_is_not_interrupted_while_healing(interrupts: Interrupts) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    interrupt()
    interrupt(signal.SIGTERM)
    assert said == ["not before everything is put back"] * 2


def test_what_is_healed_at_the_end_is_not_interrupted(interrupts: Interrupts) -> None:
    interrupts.end_early()
    interrupts.not_any_more()
    interrupt()
    assert not interrupts.stopping.is_set()
    assert said == ["not before everything is put back"]


class Interrupted(io.StringIO):
    def write(self, text: str) -> int:
        interrupt()
        return super().write(text)


def test_an_interrupt_waits_for_nothing_that_it_interrupted(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The main thread was printing; what it held for that it cannot give back meanwhile."""
    stream = Interrupted()
    with Interrupts(say_at_once) as interrupts:
        interrupts.not_any_more()
        Progress(stream).say("problem")
    assert stream.getvalue().endswith("problem\n")
    assert "not before everything is put back" in capfd.readouterr().err


def test_afterwards_everything_is_as_it_was() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts(said.append):
        assert signal.getsignal(signal.SIGINT) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts(said.append):
            interrupt(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
