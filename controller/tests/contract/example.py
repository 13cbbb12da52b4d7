# SPDX-License-Identifier: Apache-2.0
"""The small fleet that the controller's tests share, and how they wait for things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from qnet_controller.config import Config, Endpoint, Peer, Pki
from qnet_controller.controller.controller import Controller
from qnet_controller.model.objects import (
    Change,
    Export,
    Host,
    Network,
    Pod,
    SecurityGroup,
    Service,
    ServiceIP,
)
from qnet_controller.openflow.server import listen, tls_context
from qnet_controller.ovsdb.feed import Delta
from qnet_controller.ovsdb.rows import address, subnet
from qnet_controller.pipeline.demands import Settings

from .fixtures import BRIDGE, DATAPATH_ID
from .real import Authority, Vswitch

EXPORT = Export("fop/image", "entry")


def fleet(*more: Change) -> Delta:
    """Image pods 1 and 2 behind a Service IP, exported to entry with pod 3; pod n is on port dummy<n>."""

    def pod(number: int, service: str) -> Pod:
        mac = bytes([2, 0, 0, 0, 0, number])
        return Pod(f"p-{number}", service, "prod", mac, f"dummy{number}", (bytes([10, 10, 0, number]),))

    return Delta(
        (
            Network("prod", 100, (subnet("10.10.0.0/16"),), (subnet("10.96.0.0/16"),)),
            Host("h1", (address("192.0.2.1"),), DATAPATH_ID),
            SecurityGroup("fop", "t", 1),
            SecurityGroup("entry", "t", 2),
            Service("image", "fop", "prod"),
            Service("web", "entry", "prod"),
            ServiceIP("main", "fop/image", "prod", address("10.96.0.10")),
            pod(1, "fop/image"),
            pod(2, "fop/image"),
            pod(3, "entry/web"),
            *more,
        ),
        7,
        0,
    )


def point(switch: Vswitch, *ports: int) -> None:
    switch.vsctl("set-controller", BRIDGE, *(f"ssl:127.0.0.1:{port}" for port in ports))
    # A short wait between attempts: the tests drop connections.
    for row in switch.vsctl("--bare", "--columns=_uuid", "list", "controller").split():
        switch.vsctl("set", "controller", row, "max_backoff=1000")


async def until(what: Callable[[], object], seconds: float = 8.0) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.01)


def adopted(controller: Controller) -> bool:
    return any(switch.ready() for switch in controller.switches.values())


@asynccontextmanager
async def controllers(
    authority: Authority, *names: str, settle: float = 0.3, grace: float = 0.2
) -> AsyncIterator[tuple[list[Controller], list[int]]]:
    """Controllers of these names, all configured alike, and their ports."""
    certificate, key = authority.issue("controller")
    peers = tuple(Peer(name, "127.0.0.1") for name in names)
    pki = Pki(authority.ca, certificate, key)
    nowhere, made, servers = Endpoint("127.0.0.1", 1), [], []
    for name in names:
        config = Config(name, nowhere, ("unix:/nowhere",), pki, peers, nowhere, Settings())
        made.append(Controller(config, settle_seconds=settle, host_grace_seconds=grace))
        servers.append(await listen("127.0.0.1", 0, tls_context(authority.ca, certificate, key), made[-1]))
    try:
        yield made, [server.sockets[0].getsockname()[1] for server in servers]
    finally:
        for controller, server in zip(made, servers, strict=True):
            server.close()
            controller.close()
        await asyncio.sleep(0.05)
