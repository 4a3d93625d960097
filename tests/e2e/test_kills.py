"""Everything killed, the catalog killed, and several frontends.

Replicas and Redis: test_faults.py.
"""

from __future__ import annotations

import uuid

import pytest

from client.api import BourseClient
from stack.waiting import wait_for
from tests.e2e.inside import digests, statuses
from tests.e2e.stack import Stack


@pytest.mark.slow
def test_everything_is_killed_and_comes_back(stack: Stack) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    trade = {"name": "stock4", "quantity": 3, "type": "SELL"}
    number = stack.request("POST", "/orders", trade, key)[2]["data"]["transaction_number"]
    quote = stack.get("/stocks?stockname=stock4")[2]
    before = digests(stack)
    stack.compose("kill")
    stack.compose("up", "--wait", "--wait-timeout", "120")
    assert digests(stack) == before
    assert stack.get("/stocks?stockname=stock4")[2] == quote
    status, headers, body = stack.request("POST", "/orders", trade, key)
    assert (status, body) == (200, {"data": {"transaction_number": number}})
    assert headers["idempotency-replayed"] == "true"


@pytest.mark.slow
def test_the_catalog_is_killed(stack: Stack) -> None:
    number = stack.request("POST", "/orders", {"name": "stock5", "quantity": 1, "type": "SELL"})[2][
        "data"
    ]["transaction_number"]
    stack.kill("catalog")
    key = {"Idempotency-Key": str(uuid.uuid4())}
    trade = {"name": "stock5", "quantity": 1, "type": "SELL"}
    status, headers, _ = stack.request("POST", "/orders", trade, key)
    assert status == 503
    assert "retry-after" in headers
    assert stack.get(f"/orders?order-number={number}")[0] == 200
    assert stack.get(f"/orders?order-number={number + 1_000_000}")[0] == 503
    assert stack.get("/readyz")[0] == 503
    assert stack.get("/healthz")[0] == 200
    stack.start("catalog")
    # A request just before a frontend looks again is still told that the catalog is away.
    wait_for(
        lambda: stack.request("POST", "/orders", trade, key)[0] == 200,
        20,
        lambda: statuses(stack),
    )


def test_frontends_share_the_truth(stack: Stack) -> None:
    """A trade through one is seen through all, from the first lookup on."""
    client = BourseClient(stack.url)
    quantity = client.lookup("stock6").data["quantity"]
    for _ in range(60):
        # The edge deals requests out in turn, so each frontend may have it cached now.
        for _ in range(4):
            assert client.lookup("stock6").data["quantity"] == quantity
        assert client.trade("stock6", 1, "SELL").status == 200
        quantity += 1
    client.close()
