"""What a process in a container could do beyond its work: nothing, as far as can be tried."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from stack.parts import ORDER_SERVICES, SERVICES
from tests.e2e.stack import PYTHON_SERVICES, Stack

every_service = pytest.mark.parametrize("service", SERVICES)
every_python_service = pytest.mark.parametrize("service", PYTHON_SERVICES)

STORE_TMPFS = {"/tmp": "size=64m"}  # noqa: S108 - of containers
TMPFS: dict[str, dict[str, str]] = {
    "edge": {},
    "frontend": {},
    "redis": {"/data": "size=1m,mode=1777"},
    **dict.fromkeys(("catalog", *ORDER_SERVICES), STORE_TMPFS),
}
STORE_WRITABLE = {"/data", "/tmp"}  # noqa: S108 - of containers
WRITABLE: dict[str, set[str]] = {
    "edge": set(),
    "frontend": set(),
    "redis": {"/data", "/secrets/frontend", "/secrets/order"},
    **dict.fromkeys(("catalog", *ORDER_SERVICES), STORE_WRITABLE),
}
# Every container has these two, in memory and for itself alone.
ALWAYS_WRITABLE = {"/dev/mqueue", "/dev/shm"}  # noqa: S108 - of containers


def tried(stack: Stack, service: str, script: str, user: str = "") -> tuple[int, str]:
    """The exit code of a shell script inside a container, and what it said."""
    return stack.attempt(service, "sh", "-c", script, user=user)


def printed(stack: Stack, service: str, script: str, user: str = "") -> list[str]:
    return sorted(tried(stack, service, script, user)[1].split())


def host_config(stack: Stack, service: str) -> dict[str, Any]:
    config: dict[str, Any] = stack.container(service).attrs["HostConfig"]
    return config


@every_service
def test_it_runs_as_nobody_special(stack: Stack, service: str) -> None:
    config = host_config(stack, service)
    assert config["ReadonlyRootfs"]
    assert config["CapDrop"] == ["ALL"]
    assert not config["CapAdd"]
    assert not config["Privileged"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert config["Init"]
    assert set(config["LogConfig"]["Config"]) == {"max-size", "max-file"}


@every_service
def test_no_process_has_or_gets_privileges(stack: Stack, service: str) -> None:
    users = {"edge": "haproxy", "redis": "redis"}
    uid = stack.execute(service, "id", "-u", users[service]) if service in users else "10001"
    assert int(uid) != 0
    script = r"cat /proc/[0-9]*/status | grep -E '^(Uid|Cap|NoNewPrivs)' | sort -u"
    lines = [line.split() for line in tried(stack, service, script)[1].splitlines()]
    status = {name: values for name, *values in lines}
    assert len(lines) == len(status), f"processes differ: {lines}"
    assert status.pop("Uid:") == [uid.strip()] * 4
    assert status.pop("NoNewPrivs:") == ["1"]
    assert {int(value, 16) for [value] in status.values()} == {0}, status


@every_service
def test_the_root_is_read_only_even_for_root(stack: Stack, service: str) -> None:
    for path in ("/tried", "/etc/tried", "/usr/local/bin/tried"):
        code, said = tried(stack, service, f"echo > {path}", user="0")
        assert (code != 0, "Read-only file system" in said) == (True, True), said


@every_service
def test_it_writes_only_where_it_must(stack: Stack, service: str) -> None:
    script = r"find / \( -path /proc -o -path /sys \) -prune -o -type d -writable -print -prune"
    assert set(printed(stack, service, f"{script} 2>/dev/null")) == (
        WRITABLE[service] | ALWAYS_WRITABLE
    )
    assert (host_config(stack, service).get("Tmpfs") or {}) == TMPFS[service]


@every_service
def test_memory_for_files_has_an_end(stack: Stack, service: str) -> None:
    for path in [*TMPFS[service], "/dev/shm"]:  # noqa: S108 - of containers
        script = f"head -c 70000000 /dev/zero > {path}/tried; code=$?; rm {path}/tried; exit $code"
        code, said = tried(stack, service, script)
        assert (code != 0, "No space left" in said) == (True, True), said


@every_service
def test_memory_and_processes_have_limits(stack: Stack, service: str) -> None:
    config = host_config(stack, service)
    assert 0 < config["Memory"] == config["MemorySwap"]
    assert 0 < config["PidsLimit"] <= 1024
    script = "cd /sys/fs/cgroup && cat {} 2>/dev/null"
    for path, limit in {
        "memory.max memory/memory.limit_in_bytes": config["Memory"],
        "pids.max pids/pids.max": config["PidsLimit"],
    }.items():
        assert printed(stack, service, script.format(path)) == [str(limit)]


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


@every_service
def test_the_image_brings_no_tools_to_build_with(stack: Stack, service: str) -> None:
    tools = "gcc g++ cc make ld"
    assert printed(stack, service, f"for tool in {tools}; do command -v $tool; done") == []
    assert printed(stack, service, "ls -A /root/.cache 2>/dev/null", user="0") == []


@every_python_service
def test_the_code_is_not_the_services_to_change(stack: Stack, service: str) -> None:
    found = "find /app ! -type l \\( ! -user root -o -perm /022 \\)"
    assert printed(stack, service, found) == []
