"""The edge's configuration, and what of it the promises rest on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CONFIG = Path(__file__).parents[2] / "edge" / "haproxy.cfg"

# Mechanism → the line it is made of, and what stands in for it.
EDGE_MECHANISMS: Mapping[str, tuple[str, str]] = {
    "the edge's repeat": ("    retries 3\n", "    retries 0\n"),
    "the edge's key": (
        "    http-request set-header Idempotency-Key %[uuid()] if METH_POST"
        " !{ req.fhdr(idempotency-key) -m found }\n",
        "",
    ),
    "another frontend's answer": (
        "    retry-on conn-failure empty-response junk-response response-timeout 503\n",
        "    retry-on conn-failure empty-response junk-response response-timeout\n",
    ),
    "the unchecked frontends": (
        "    server unchecked abns@unchecked backup no-check pool-max-conn 0 maxconn 1000\n",
        "",
    ),
}


def config_without(mechanism: str) -> str:
    text = CONFIG.read_text("utf-8")
    line, stand_in = EDGE_MECHANISMS[mechanism]
    assert text.count(line) == 1, f"{line!r} is not in {CONFIG}"
    return text.replace(line, stand_in)
