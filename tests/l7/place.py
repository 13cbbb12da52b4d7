# SPDX-License-Identifier: Apache-2.0
"""Where the balancer of a test, its pods and its clients are: on the loopback, or on hosts of the lab (lab.py)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

IN_LAB = "QNET_L7_LAB" in os.environ
loopback_only = pytest.mark.skipif(IN_LAB, reason="it is about addresses that the lab does not have")
NUMBERS = {"fop/image": 1, "fop/agents": 2, "audit/audit": 3}


class Loopback:
    """Pods are addresses of `net`, the first two parts of an address that has to be local; a Service IP is one more."""

    server = "127.0.0.1"
    server6, client6 = "::1", "::1"
    clients = "127.0.0.0/29"

    def __init__(self, net: str) -> None:
        self.net = net

    def client(self, number: int) -> str:
        """An address to ask from; 1 is the one that is used when none is said. Those below 8 are in `clients`."""
        return f"127.0.0.{number}"

    def address(self, service: str, number: int) -> str:
        """The address of a pod: fop/image 1, …"""
        return f"{self.net}.{NUMBERS[service]}.{number}"

    def service_ip(self, service: str) -> str:
        """The address of a service, which one server plays here."""
        return f"{self.net}.9.{NUMBERS[service]}"

    def over_network(self, service: str) -> set[str]:
        """The names of who may answer on its Service IP."""
        return {f"{service.split('/')[1]}-network"}

    def behind(self, address: str) -> list[str]:
        """The pods that are asked when an address is."""
        return [address]

    @contextmanager
    def inside(self, address: str) -> Iterator[None]:
        """What opens a socket in this block does it where this address is."""
        del address
        yield

    def listen(self, address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A socket that is bound to an address of a pod."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.inside(address):
            bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
        bound.setblocking(False)
        return bound
