"""Packet rules inside the network of a container, put there by a helper that shares it.

They stand in a chain of the injector's own, in the filter table only: the engine's name server
lives in the nat table. A container that starts anew has a new network, without any of them.
"""

from __future__ import annotations

from pathlib import Path

import docker
from docker.errors import BuildError, ContainerError, DockerException

from stack.containers import Containers, helper_labels
from stack.parts import StackError

_IMAGE = "bourse-faults-network"
_CHAIN = "BOURSE-FAULTS"
_DELAY = "30ms 20ms"

# Both ways: what comes in, and what goes out.
_INSERT = f"""
set -e
iptables -w 5 -N {_CHAIN}
iptables -w 5 -I INPUT -j {_CHAIN}
iptables -w 5 -I OUTPUT -j {_CHAIN}
"""
# Each rule may be missing: then there is nothing to heal.
_HEAL = f"""
iptables -w 5 -D INPUT -j {_CHAIN} 2>/dev/null
iptables -w 5 -D OUTPUT -j {_CHAIN} 2>/dev/null
iptables -w 5 -F {_CHAIN} 2>/dev/null
iptables -w 5 -X {_CHAIN} 2>/dev/null
for device in $(ls /sys/class/net); do tc qdisc del dev $device root netem 2>/dev/null; done
! iptables -w 5 -S {_CHAIN} >/dev/null 2>&1
"""


class Network:
    """Every method raises StackError."""

    def __init__(self, engine: docker.DockerClient, stack: Containers) -> None:
        self._engine = engine
        self._stack = stack
        self._is_built = False

    def build(self) -> None:
        """The helper's image: takes a moment, the first time."""
        try:
            directory = str(Path(__file__).parent)
            self._engine.images.build(
                path=directory, dockerfile="Dockerfile.network", tag=_IMAGE, rm=True
            )
        except (BuildError, DockerException, OSError) as error:
            raise StackError(f"the helper for network faults cannot be built: {error}") from error
        self._is_built = True

    def cut_off(self, service: str) -> None:
        """From all the others; the edge keeps its published port."""
        self._drop(service, self._stack.subnets(service))

    def cut_from(self, service: str, *others: str) -> None:
        """From those alone, at the addresses that they have now."""
        addresses = [self._stack.address(other) for other in others]
        known = [address for address in addresses if address is not None]
        if not known:
            raise StackError(f"no address of {', '.join(others)} to cut {service} off from")
        self._drop(service, known)

    def lose(self, service: str, share: float) -> str:
        """Loses that share of the packets, each way. Returns what it could not do, in words."""
        self._drop(
            service,
            self._stack.subnets(service),
            f"-m statistic --mode random --probability {share}",
        )
        delay = "for d in $(ls /sys/class/net | grep eth); do tc qdisc add dev $d root netem delay "
        try:
            self._run(service, f"set -e\n{delay}{_DELAY}; done")
        except StackError:
            return "no delay: this kernel has no netem"
        return f"with a delay of {_DELAY}"

    def heal(self, service: str) -> None:
        """Takes every rule away again, if there are any."""
        if self._stack.status(service) == "running":
            self._run(service, _HEAL)

    def rules(self, service: str) -> str:
        """The chain with its counters, as iptables prints it; empty if there is none."""
        return self._run(service, f"iptables -w 5 -nvL {_CHAIN} 2>/dev/null || true")

    def _drop(self, service: str, others: list[str], how: str = "") -> None:
        rules = [
            f"iptables -w 5 -A {_CHAIN} {end} {other} {how} -j DROP"
            for other in others
            for end in ("-s", "-d")
        ]
        self._run(service, _INSERT + "\n".join(rules))

    def _run(self, service: str, script: str) -> str:
        if not self._is_built:
            self.build()
        container = self._stack.container(service)
        try:
            said: bytes = self._engine.containers.run(
                _IMAGE,
                ["sh", "-c", script],
                network_mode=f"container:{container.id}",
                labels=helper_labels(self._stack.project),
                cap_drop=["ALL"],
                cap_add=["NET_ADMIN", "NET_RAW"],
                remove=True,
                stderr=True,
            )
        except ContainerError as error:
            said = error.stderr or b""
            reason = said.decode("utf-8", "replace").strip() or f"exit code {error.exit_status}"
            raise StackError(f"packet rules of {service}: {reason}") from error
        except (DockerException, OSError) as error:
            raise StackError(f"packet rules of {service}: {error}") from error
        return said.decode("utf-8", "replace")
