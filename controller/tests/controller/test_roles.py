# SPDX-License-Identifier: Apache-2.0
"""Roles, where the order of a switch's words decides: a test plays the switch over TLS."""

from __future__ import annotations

import asyncio
import struct

from contract.example import controllers, fleet, until
from contract.fixtures import DATAPATH_ID
from contract.peers import Owner, Peer, Scene, message
from contract.real import Authority
from qnet_controller.openflow.codec import Roles
from qnet_controller.openflow.guard import Multipart, Type

ROLE_REQUEST, MULTIPART_REQUEST = 24, 18
NOBODY = (1 << 64) - 1


def xid(request: bytes) -> int:
    return int.from_bytes(request[4:8], "big")


def role_reply(request: bytes, role: int, generation: int) -> bytes:
    return message(Type.ROLE_REPLY, struct.pack("!IHxxQ", role, 0, generation), xid(request))


def role_status(role: int, generation: int) -> bytes:
    return message(Type.ROLE_STATUS, struct.pack("!IB3xQ", role, 0, generation), 0)


async def until_claimed(peer: Peer) -> bytes:
    """Play a switch without ports that nobody is master of; returns the request for the role of master."""
    ports = await peer.read(MULTIPART_REQUEST)
    peer.send(message(Type.MULTIPART_REPLY, struct.pack("!HH4x", Multipart.PORT_DESC, 0), xid(ports)))
    peer.send(role_reply(await peer.read(ROLE_REQUEST), Roles.EQUAL, NOBODY))
    claim = await peer.read(ROLE_REQUEST)
    assert int.from_bytes(claim[8:12], "big") == Roles.MASTER
    return claim


def test_the_news_that_another_is_master_counts_though_it_overtakes_the_awaited_reply(authority: Authority) -> None:
    async def run() -> None:
        async with controllers(authority, "c1") as ((controller,), (port,)):
            controller.intent_changed(fleet())
            scene = Scene(Owner(), port, authority)
            peer = await scene.peer()
            await peer.handshake(DATAPATH_ID)
            claim = await until_claimed(peer)
            # Read together: the news is handled before the task that awaits the reply goes on.
            peer.send(role_reply(claim, Roles.MASTER, 0) + role_status(Roles.SLAVE, 1))
            switch = controller.switches[DATAPATH_ID]
            await until(lambda: switch.role == Roles.SLAVE)
            assert switch.wanted_role == Roles.SLAVE
            assert switch.ready() is None
            # Nothing is read back, let alone written, in a role that is over.
            peer.send(message(Type.ECHO_REQUEST, b"", 77))
            while (heard := await peer.reader.readexactly(8))[1] != Type.ECHO_REPLY:
                assert heard[1] != MULTIPART_REQUEST
                await peer.reader.readexactly(int.from_bytes(heard[2:4], "big") - 8)
            peer.writer.transport.abort()

    asyncio.run(run())


def test_a_reply_that_nothing_overtakes_makes_a_master(authority: Authority) -> None:
    async def run() -> None:
        async with controllers(authority, "c1") as ((controller,), (port,)):
            controller.intent_changed(fleet())
            scene = Scene(Owner(), port, authority)
            peer = await scene.peer()
            await peer.handshake(DATAPATH_ID)
            peer.send(role_reply(await until_claimed(peer), Roles.MASTER, 0))
            await peer.read(MULTIPART_REQUEST)  # it begins to read back what the switch holds
            assert controller.switches[DATAPATH_ID].role == Roles.MASTER
            peer.writer.transport.abort()

    asyncio.run(run())
