"""What a measurement needs of the service: load beside it, and answers to what it must know."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from client.api import BourseClient
from stack.containers import Containers

# Well within a lease, which lives 5 s.
_LOOKED_UP_EVERY_S = 1.5

# Runs inside a replica: nothing else reaches the inner network.
_WHO_LEADS = """
from common.replicas import ReplicaPeer
from proto import bourse_pb2
print(ReplicaPeer(1, "127.0.0.1:50051").call("Status", bourse_pb2.Empty(), 5.0).leader_id)
"""


@contextmanager
def looked_up(url: str, stocks: int) -> Iterator[None]:
    """Looks up the first stocks all the time.

    Otherwise no cache could have an old quote of them. Then trades would wait for no invalidation,
    and look faster than they are.
    """
    stopping = threading.Event()
    with BourseClient(url) as client:
        _look_up(client, stocks)

        def go_on() -> None:
            while not stopping.wait(_LOOKED_UP_EVERY_S):
                _look_up(client, stocks)

        thread = threading.Thread(target=go_on, name="looked up", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()


def _look_up(client: BourseClient, stocks: int) -> None:
    for number in range(1, stocks + 1):
        client.lookup(f"stock{number}")


def cache_results(url: str, stocks: Iterable[int]) -> Counter[str]:
    """What the lookups of these stocks say in X-Cache."""
    with BourseClient(url) as client:
        answers = [client.lookup(f"stock{number}") for number in stocks]
    return Counter(str(answer.headers.get("X-Cache")) for answer in answers)


def next_number(url: str) -> int:
    """Of a trade made now, which also has a leader elected. Raises Malformed, NoAnswer."""
    with BourseClient(url) as client:
        answer = client.trade("stock1", 1, "SELL", f"bench-{secrets.token_hex(8)}")
        return answer.order_number()


def leader(containers: Containers) -> str:
    """The service of the replica that leads, as the first one knows it. Raises StackError."""
    return f"order-{containers.execute('order-1', 'python', '-c', _WHO_LEADS)}"
