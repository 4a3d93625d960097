"""What a session reports: for people, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from client.session import SessionResult
from client.tally import LatencySummary

# JSON lists them all.
_SHOWN_PROBLEMS = 50


def as_text(result: SessionResult) -> str:
    return "\n".join(_lines(result))


def as_json(result: SessionResult) -> str:
    settings, tally, traffic = result.settings, result.tally, result.traffic
    report: dict[str, Any] = {
        "url": result.url,
        "clients": settings.clients,
        "requests_per_client": settings.requests,
        "probability": settings.probability,
        "stocks": list(settings.stocks),
        "alone": settings.alone,
        "seed": settings.seed,
        "interrupted": result.interrupted,
        "duration_s": round(result.duration_s, 3),
        "requests": result.requests,
        "requests_per_s": _rate(result),
        "latency": {
            kind.value: summary and _summary_as_json(summary)
            for kind, summary in _summaries(result)
        },
        "answers": {str(status): count for status, count in sorted(traffic.answers.items())},
        "answers_5xx": traffic.server_errors,
        "reconnects": traffic.reconnects,
        "repeats": traffic.repeats,
        "cache": dict(tally.cache),
        "trades_done": len(tally.orders),
        "trades_refused": tally.refused,
        "orders_verified": tally.verified,
        "failures": tally.failures,
        "mismatches": tally.mismatches,
        "ok": result.ok,
    }
    return json.dumps(report, indent=2)


def _lines(result: SessionResult) -> Iterator[str]:
    settings, tally, traffic = result.settings, result.tally, result.traffic
    yield (
        f"session with {result.url}: clients {settings.clients}, lookups of each "
        f"{settings.requests}, trade probability {settings.probability:g}, seed {settings.seed}"
    )
    if result.interrupted:
        yield "interrupted: what was made until then is verified and reported"
    yield ""
    yield from _latency_table(result)
    yield ""
    yield f"{result.requests} requests in {result.duration_s:.2f} s: {_rate(result)} per second"
    yield "answers seen: " + _counts(traffic.answers)
    yield f"5xx answers seen: {traffic.server_errors}"
    yield f"connections opened again: {traffic.reconnects}, requests sent again: {traffic.repeats}"
    yield "lookups by X-Cache: " + _counts(tally.cache)
    yield f"trades: {len(tally.orders)} done, {tally.refused} refused for insufficient volume"
    yield f"orders verified: {tally.verified} of {len(tally.orders)}"
    yield from _problems("requests without a right answer", tally.failures)
    yield from _problems("mismatches", tally.mismatches)
    yield f"result: {'ok' if result.ok else 'NOT OK'}"


def _latency_table(result: SessionResult) -> Iterator[str]:
    yield f"{'ms':<13}{'count':>9}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}"
    for kind, summary in _summaries(result):
        if summary is None:
            yield f"{kind.value:<13}{0:>9}"
            continue
        times_s = (summary.p50_s, summary.p90_s, summary.p99_s, summary.max_s)
        cells = "".join(f"{time_s * 1000:>10.2f}" for time_s in times_s)
        yield f"{kind.value:<13}{summary.count:>9}{cells}"
    yield ""
    for kind, summary in _summaries(result):
        if summary is not None:
            yield f"slowest {kind}: {summary.max_s * 1000:.0f} ms at +{summary.max_at_s:.1f} s"


def _problems(title: str, problems: list[str]) -> Iterator[str]:
    yield f"{title}: {len(problems)}"
    yield from (f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS])
    if len(problems) > _SHOWN_PROBLEMS:
        yield f"  … and {len(problems) - _SHOWN_PROBLEMS} more; --json lists them all"


def _summaries(result: SessionResult) -> list[tuple[Any, LatencySummary | None]]:
    return [(kind, recorder.summary()) for kind, recorder in result.tally.latencies.items()]


def _summary_as_json(summary: LatencySummary) -> dict[str, float]:
    return {
        "count": summary.count,
        "p50_ms": round(summary.p50_s * 1000, 3),
        "p90_ms": round(summary.p90_s * 1000, 3),
        "p99_ms": round(summary.p99_s * 1000, 3),
        "max_ms": round(summary.max_s * 1000, 3),
        "max_at_s": round(summary.max_at_s, 3),
    }


def _counts(counter: Any) -> str:
    return ", ".join(f"{name} x{count}" for name, count in sorted(counter.items())) or "none"


def _rate(result: SessionResult) -> int:
    return round(result.requests / result.duration_s) if result.duration_s else 0
