"""What a process in a container could do beyond its work: the checks, for every stack."""

from __future__ import annotations

from typing import Any

from stack.parts import ETCD_SERVICES, ORDER_SERVICES, POSTGRES_SERVICES
from tests.e2e.stack import Stack

_STORE_TMPFS = {"/tmp": "size=64m"}  # noqa: S108 - of containers
_POSTGRES_TMPFS = {"/run/postgresql": "size=4m,mode=0700,uid=10001,gid=10001"}
TMPFS: dict[str, dict[str, str]] = {
    "edge": {},
    "frontend": {},
    "redis": {"/data": "size=1m,mode=1777"},
    **dict.fromkeys(("catalog", *ORDER_SERVICES), _STORE_TMPFS),
    **dict.fromkeys(POSTGRES_SERVICES, _POSTGRES_TMPFS),
    **{service: {} for service in ETCD_SERVICES},
}
_STORE_WRITABLE = {"/data", "/tmp"}  # noqa: S108 - of containers
_POSTGRES_WRITABLE = {"/data", *_POSTGRES_TMPFS}
WRITABLE: dict[str, set[str]] = {
    "edge": set(),
    "frontend": set(),
    "redis": {"/data", "/secrets/frontend", "/secrets/order"},
    **dict.fromkeys(("catalog", *ORDER_SERVICES), _STORE_WRITABLE),
    **dict.fromkeys(POSTGRES_SERVICES, _POSTGRES_WRITABLE),
    **{service: {"/data"} for service in ETCD_SERVICES},
}
# Every container has these two, in memory and for itself alone.
_ALWAYS_WRITABLE = {"/dev/mqueue", "/dev/shm"}  # noqa: S108 - of containers
# The others run as number 10001.
_USERS = {"edge": "haproxy", "redis": "redis"}


def tried(stack: Stack, service: str, script: str, user: str = "") -> tuple[int, str]:
    """The exit code of a shell script inside a container, and what it said."""
    return stack.attempt(service, "sh", "-c", script, user=user)


def printed(stack: Stack, service: str, script: str, user: str = "") -> list[str]:
    return sorted(tried(stack, service, script, user)[1].split())


def host_config(stack: Stack, service: str) -> dict[str, Any]:
    config: dict[str, Any] = stack.container(service).attrs["HostConfig"]
    return config


def check_it_is_nobody_special(stack: Stack, service: str) -> None:
    config = host_config(stack, service)
    assert config["ReadonlyRootfs"]
    assert config["CapDrop"] == ["ALL"]
    assert not config["CapAdd"]
    assert not config["Privileged"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert config["Init"]
    assert set(config["LogConfig"]["Config"]) == {"max-size", "max-file"}


def check_no_process_has_privileges(stack: Stack, service: str) -> None:
    uid = stack.execute(service, "id", "-u", _USERS[service]) if service in _USERS else "10001"
    assert int(uid) != 0
    script = r"cat /proc/[0-9]*/status | grep -E '^(Uid|Cap|NoNewPrivs)' | sort -u"
    lines = [line.split() for line in tried(stack, service, script)[1].splitlines()]
    status = {name: values for name, *values in lines}
    assert len(lines) == len(status), f"processes differ: {lines}"
    assert status.pop("Uid:") == [uid.strip()] * 4
    assert status.pop("NoNewPrivs:") == ["1"]
    assert {int(value, 16) for [value] in status.values()} == {0}, status


def check_the_root_is_read_only(stack: Stack, service: str) -> None:
    """Even for root."""
    for path in ("/tried", "/etc/tried", "/usr/local/bin/tried"):
        code, said = tried(stack, service, f"echo > {path}", user="0")
        assert (code != 0, "Read-only file system" in said) == (True, True), said


def check_where_it_writes(stack: Stack, service: str) -> None:
    script = r"find / \( -path /proc -o -path /sys \) -prune -o -type d -writable -print -prune"
    assert set(printed(stack, service, f"{script} 2>/dev/null")) == (
        WRITABLE[service] | _ALWAYS_WRITABLE
    )
    assert (host_config(stack, service).get("Tmpfs") or {}) == TMPFS[service]


def check_memory_for_files_has_an_end(stack: Stack, service: str) -> None:
    for path in [*TMPFS[service], "/dev/shm"]:  # noqa: S108 - of containers
        script = f"head -c 70000000 /dev/zero > {path}/tried; code=$?; rm {path}/tried; exit $code"
        code, said = tried(stack, service, script)
        assert (code != 0, "No space left" in said) == (True, True), said


def check_limits(stack: Stack, service: str) -> None:
    config = host_config(stack, service)
    assert 0 < config["Memory"] == config["MemorySwap"]
    assert 0 < config["PidsLimit"] <= 1024
    script = "cd /sys/fs/cgroup && cat {} 2>/dev/null"
    for path, limit in {
        "memory.max memory/memory.limit_in_bytes": config["Memory"],
        "pids.max pids/pids.max": config["PidsLimit"],
    }.items():
        assert printed(stack, service, script.format(path)) == [str(limit)]


def check_no_tools_to_build_with(stack: Stack, service: str) -> None:
    tools = "gcc g++ cc make ld"
    assert printed(stack, service, f"for tool in {tools}; do command -v $tool; done") == []
    assert printed(stack, service, "ls -A /root/.cache 2>/dev/null", user="0") == []


CHECKS = (
    check_it_is_nobody_special,
    check_no_process_has_privileges,
    check_the_root_is_read_only,
    check_where_it_writes,
    check_memory_for_files_has_an_end,
    check_limits,
    check_no_tools_to_build_with,
)
