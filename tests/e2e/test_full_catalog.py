"""The catalog's disk fills up: trades wait for room, all else goes on, nothing is half done."""

from __future__ import annotations

import uuid

from stack.waiting import wait_for
from tests.e2e.inside import leader, statuses
from tests.e2e.promises import check_promises
from tests.e2e.small_disks import (
    FULL,
    fill,
    free,
    lines,
    trade,
    trade_until_refused,
    wait_for_line,
)
from tests.e2e.stack import Stack
from tests.support.load import Load, let_pass

CLIENTS = 16


def test_a_full_catalog_refuses_trades_until_there_is_room(small: Stack) -> None:
    load = Load(small.url, CLIENTS)
    with load.running():
        let_pass(load, 50)
        fill(small, "catalog", spare_kib=20)  # so that it ends in the middle of a batch
        wait_for_line(small, "catalog", "ERROR", f"storage failure: {FULL}")
        key = str(uuid.uuid4())
        status, headers, _ = trade(small, key)
        assert status == 503
        assert int(headers["retry-after"]) >= 1
        assert small.get("/stocks?stockname=stock7")[0] == 200
        assert small.get("/orders?order-number=1")[0] == 200
        assert small.get("/orders?order-number=1000000")[0] == 404
        free(small, "catalog")
        # The clients repeat under their keys, and are served again.
        let_pass(load, 50)
    assert load.problems == []
    assert set(load.traffic.answers) <= {200, 404, 503}
    number = trade(small, key)[2]["data"]["transaction_number"]
    assert trade(small, key)[2]["data"]["transaction_number"] == number
    check_promises(small, {**load.acknowledged, key: number})


def test_nobody_leads_with_a_full_catalog(small: Stack) -> None:
    old = leader(small)
    fill(small, "catalog")
    acknowledged = trade_until_refused(small)
    registered = len(lines(small, "catalog", "fence", "accepted"))
    small.kill(old)
    assert trade(small)[0] == 503
    assert len(lines(small, "catalog", "fence", "accepted")) == registered
    free(small, "catalog")
    wait_for(lambda: trade(small)[0] == 200, 10, lambda: statuses(small))
    assert leader(small) != old
    small.start(old)
    check_promises(small, acknowledged)


def test_a_catalog_stops_and_waits_for_room_on_a_full_disk(small: Stack) -> None:
    number = trade(small)[2]["data"]["transaction_number"]
    assert small.stop("catalog") == 0
    fill(small, "catalog")
    small.start("catalog")
    wait_for_line(small, "catalog", "CRITICAL", "the disk is full, 0 KiB are left")
    assert trade(small)[0] == 503
    assert small.get(f"/orders?order-number={number}")[0] == 200
    free(small, "catalog")
    small.wait_healthy("catalog")  # by the restart policy alone
    wait_for(lambda: trade(small)[0] == 200, 10, lambda: statuses(small))
    check_promises(small, {})
