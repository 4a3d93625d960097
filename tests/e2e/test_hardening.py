"""What a process in a container could do beyond its work: nothing, as far as can be tried."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from stack.parts import SERVICES
from tests.e2e.hardening import CHECKS, printed
from tests.e2e.stack import PYTHON_SERVICES, Stack

every_service = pytest.mark.parametrize("service", SERVICES)
every_python_service = pytest.mark.parametrize("service", PYTHON_SERVICES)


@every_service
@pytest.mark.parametrize("check", CHECKS)
def test_it_can_do_its_work_and_no_more(
    stack: Stack, service: str, check: Callable[[Stack, str], None]
) -> None:
    check(stack, service)


def test_limits_can_be_set() -> None:
    wanted = {"FRONTEND": 11, "STORE": 12, "REDIS": 13, "EDGE": 14}
    memory = {f"{name}_MEMORY": f"{value}m" for name, value in wanted.items()}
    pids = {f"{name}_PIDS": str(value) for name, value in wanted.items()}
    stack = Stack({**memory, **pids})
    services = json.loads(stack.compose("config", "--format", "json"))["services"]
    for service in SERVICES:
        value = wanted.get(service.upper(), wanted["STORE"])
        assert int(services[service]["mem_limit"]) == value * 2**20
        assert int(services[service]["memswap_limit"]) == value * 2**20
        assert services[service]["pids_limit"] == value


# Whether what listens there speaks Redis, HTTP/2 or HTTP: a network may have proxies that answer
# for any address.
PROBE = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
http_2 = b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
hellos = {6379: b"PING\\r\\n", 26111: b"GET /healthz HTTP/1.0\\r\\n\\r\\n"}
hello = hellos.get(port, http_2)
try:
    with socket.create_connection((host, port), timeout=3) as connection:
        connection.sendall(hello)
        said = connection.recv(64)
        while port == 26111 and (more := connection.recv(1024)):
            said += more
except OSError:
    said = b""
spoke = said.startswith(b"-NOAUTH") or said[3:4] == b"\\4" or b'"alive"' in said
print("reached" if spoke else "not reached")
"""


@pytest.mark.parametrize("service", [*PYTHON_SERVICES, "redis"])
def test_the_host_has_no_way_to_the_inner_network(stack: Stack, service: str) -> None:
    networks = stack.container(service).attrs["NetworkSettings"]["Networks"]
    [address] = [network["IPAddress"] for network in networks.values()]
    port = {"redis": "6379", "frontend": "26111"}.get(service, "50051")
    probe = ["-c", PROBE, address, port]
    assert stack.execute("frontend-2", "python", *probe).strip() == "reached"
    from_host = subprocess.run(
        [sys.executable, *probe], capture_output=True, text=True, timeout=30, check=True
    )
    assert from_host.stdout.strip() == "not reached"


@every_python_service
def test_the_code_is_not_the_services_to_change(stack: Stack, service: str) -> None:
    found = "find /app ! -type l \\( ! -user root -o -perm /022 \\)"
    assert printed(stack, service, found) == []
