"""The report of a run: the figures, the text on the terminal, and the page."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from faults.checker import judge
from faults.history import (
    Call,
    Completion,
    End,
    Fault,
    Record,
)
from faults.reporting.figures import Figures, figures_of
from faults.reporting.page import draw, page
from faults.reporting.text import as_text
from stack.observations import Observation, Position
from stack.terminal import Progress, seconds
from tests.unit.faults.histories import S, good, run

MS = 1_000_000


def lookup(id: int, at_ms: int, wait_ms: int, status: int | None = 200) -> list[Record]:
    said = {"quantity": 5} if status == 200 else {"error": "<script>alert(1)</script>"}
    return [
        Call(id, at_ms * MS, 1, "lookup", "run", name="a"),
        Completion(id, (at_ms + wait_ms) * MS, status, **said),  # type: ignore[arg-type]
    ]


def led(at_ms: int, name: str, epoch: int) -> Observation:
    return Observation(
        at_ms * MS, at_ms * MS, {name: Position("leader", epoch, int(name[-1]), 0, "00" * 32)}
    )


def step(at_ms: int, step: str, detail: str = "", id: int = 1) -> Fault:
    return Fault(id, at_ms * MS, step, "kill", "leader", ("order-3",), ("order-3",), detail)


def story() -> list[Record]:
    """A run of ten seconds with a lookup every 100 ms. The leader is killed after 4 s."""
    records: list[Record] = [run(), led(0, "order-3", 1)]
    for number in range(100):
        at_ms = number * 100
        in_fault = 4_000 <= at_ms < 4_500
        records += lookup(number + 1, at_ms, 400 if in_fault else 10, 503 if in_fault else 200)
    records += [step(4_000, "begin"), step(4_010, "broken"), led(4_510, "order-2", 2)]
    records += [step(6_000, "healing"), step(6_100, "healed"), step(7_000, "recovered")]
    return [*records, End(11 * S, interrupted=False)]


def figures() -> Figures:
    return figures_of(story())


def test_the_waits_during_a_fault_are_told_from_the_others() -> None:
    found = figures()
    assert found.waits["lookup"].count == 100
    assert found.waits["lookup"].p50_s == pytest.approx(0.010)
    (kill,) = found.faults
    # The lookups that began between 4.0 and 7.0 s.
    assert kill.waits.count == 30
    assert kill.waits.worst_s == pytest.approx(0.4)
    assert kill.errors == 5


def test_a_new_leader_and_the_catch_up_are_timed() -> None:
    (kill,) = figures().faults
    assert kill.new_leader_s == pytest.approx(0.5)
    assert kill.catch_up_s == pytest.approx(0.9)
    assert [change.replica for change in figures().leaders] == ["order-3", "order-2"]


def test_a_fault_that_missed_the_leader_has_no_new_one() -> None:
    records: Iterable[Record] = (
        led(0, "order-1", 1) if isinstance(one, Observation) and one.at_ns == 0 else one
        for one in story()
    )
    assert figures_of(records).faults[0].new_leader_s is None


def test_the_course_of_the_run_is_in_its_buckets() -> None:
    found = figures()
    assert sum(one.errors for one in found.buckets) == 5
    assert sum(one.lookups * found.bucket_s for one in found.buckets) == pytest.approx(95)
    assert len(found.buckets) == 20


def test_a_history_cut_short_has_figures_all_the_same() -> None:
    records = story()
    for length in range(len(records)):
        found = figures_of(records[:length])
        judgement = judge(records[:length])
        assert not judgement.held
        assert "Every promise held" not in as_text(found, judgement)
        if length % 40 == 0:
            page(found, judgement)


def test_the_terminal_has_verdicts_faults_and_requests() -> None:
    records = good().verified().told()
    text = as_text(figures_of(records), judge(records))
    assert re.findall(r"^(G\d)  ✓ held", text, re.MULTILINE) == [f"G{n}" for n in range(1, 10)]
    assert "play it again: again" in text
    assert text.endswith("Every promise held.")
    assert "\x1b" not in text
    assert "\x1b[32m" in as_text(figures_of(records), judge(records), colour=True)


def test_what_the_injector_could_not_do_is_said_aloud() -> None:
    records = [
        dataclasses.replace(one, detail="no delay: this kernel has no netem")
        if isinstance(one, Fault) and one.step == "broken"
        else one
        for one in story()
    ]
    found, judgement = figures_of(records), judge(records)
    assert "kill:leader, 1x: no delay: this kernel has no netem" in as_text(found, judgement)
    assert "no delay: this kernel has no netem" in page(found, judgement)


def test_what_is_broken_is_said_with_its_reason() -> None:
    text = as_text(figures(), judge(story()))
    assert "G8  ✗ BROKEN" in text
    assert "got 503 after 0.400 s" in text
    assert re.search(r"kill:leader +1 +5 +400 ms +400 ms +500 ms +900 ms", text)
    assert text.endswith("BROKEN: G8")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0004, "0 ms"), (0.25, "250 ms"), (1, "1.00 s"), (12.34, "12.3 s")]
)
def test_seconds_have_three_digits(value: float, text: str) -> None:
    assert seconds(value) == text


class Elements(HTMLParser):
    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def picture(text: str) -> str:
    """The largest picture of the page. The legend has small ones."""
    return max(re.findall(r"<svg.*?</svg>", text, re.DOTALL), key=len)


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    text = page(figures(), judge(story()))
    elements = Elements(text)
    assert elements.open == []
    assert {"html", "title", "svg", "table"} <= {tag for tag, _ in elements.seen}
    for tag, attributes in elements.seen:
        assert tag not in {"script", "link", "img", "iframe", "object"}
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    ElementTree.fromstring(picture(text))  # noqa: S314 - our own


def test_what_a_server_said_is_no_markup() -> None:
    text = page(figures(), judge(story()))
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text


def test_the_picture_shows_the_fault_where_it_was() -> None:
    svg = picture(page(figures(), judge(story())))
    assert "kill:leader (order-3): 4.0 s to 7.0 s, healed at 6.1 s, worst wait 400 ms" in svg
    assert "order-2 leads epoch 2 at 4.5 s" in svg
    assert "4 errors at 4.5 s" in svg


def test_the_picture_tells_broken_from_healed_and_not_yet_serving() -> None:
    drawn = draw(figures())
    (bar,) = drawn.bars
    a_second = (drawn.right - drawn.left) / figures().duration_s
    assert bar.broken == pytest.approx(2.1 * a_second, abs=0.2)
    assert bar.width == pytest.approx(3 * a_second, abs=0.2)


def test_a_run_that_ends_within_a_bucket_does_not_look_like_an_outage() -> None:
    """The last bucket covers a tenth of a second, so its rate would be too low."""
    records = [*story(), *lookup(101, 10_000, 100)]
    found = figures_of(records)
    assert found.buckets[-1].lookups < found.buckets[-2].lookups / 2
    assert draw(found).lookups.count("L") == len(found.buckets) - 2


def test_a_long_run_has_a_page_of_bearable_size() -> None:
    records: list[Record] = [run()]
    for number in range(60_000):
        records += lookup(number + 1, number * 10, 5)
    for number in range(150):
        at_ms = number * 4_000
        records += [step(at_ms, "begin", id=number), step(at_ms + 3_000, "recovered", id=number)]
    found = figures_of(records)
    assert len(found.buckets) <= 601
    assert len(page(found, judge(records))) < 1_000_000


class Terminal(io.StringIO):
    def __init__(self, *, is_tty: bool) -> None:
        super().__init__()
        self._is_tty = is_tty

    def isatty(self) -> bool:
        return self._is_tty


@pytest.mark.parametrize(("is_tty", "lines"), [(True, 1), (False, 10)])
def test_progress_keeps_to_one_line_of_a_terminal(*, is_tty: bool, lines: int) -> None:
    now_s = 0.0
    stream = Terminal(is_tty=is_tty)
    progress = Progress(stream, lambda: now_s)
    for _ in range(100):
        now_s += 1.0
        progress.show(1_234, 2)
    progress.say("kill:leader strikes order-3")
    text = stream.getvalue()
    assert text.count("\n") == lines + (not is_tty)
    assert "1,234 requests, 2 in doubt" in text
    assert text.endswith("  100.0 s  kill:leader strikes order-3\n")
