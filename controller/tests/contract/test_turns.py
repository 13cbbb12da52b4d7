# SPDX-License-Identifier: Apache-2.0
"""Switches take turns: one that has much to say delays the others by its turn, not by all it says."""

from __future__ import annotations

import asyncio
import struct

from contract.peers import Owner, Peer, Scene, message, scene
from contract.real import Authority
from qnet_controller.openflow import oxm
from qnet_controller.openflow.events import Limits
from qnet_controller.openflow.session import Session
from qnet_controller.openflow.stream import TURN
from qnet_controller.pipeline.fields import IN_PORT
from qnet_controller.pipeline.messages import PacketIn, match

MANY = 4000
ENOUGH = Limits(packet_burst=2.0 * MANY)


def packet_in(port: int) -> bytes:
    matched = oxm.encode_match(match((IN_PORT, port)))
    return message(10, struct.pack("!IHBBQ", 0xFFFFFFFF, 60, 0, 2, 7) + matched + bytes(62))


class Busy(Owner):
    """Wakes the quiet peer while the noisy one is being heard, and notes who is heard when."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[int] = []
        self.quiet: Peer | None = None

    def packet_in(self, session: Session, packet: PacketIn) -> None:
        self.order.append(packet.fields["in_port"])
        if len(self.order) == 1 and self.quiet:
            self.quiet.send(packet_in(2))
        super().packet_in(session, packet)


def test_a_quiet_switch_is_heard_between_the_turns_of_a_noisy_one(authority: Authority) -> None:
    async def run() -> None:
        owner = Busy()
        async with scene(authority, ENOUGH, owner) as on:
            noisy, owner.quiet = await on.switch(1), await on.switch(2)
            noisy.send(packet_in(1) * MANY)
            await owner.wait("packet_in", MANY + 1)
            # What lies in between is the way of its one message through the sockets, not the rest of the noisy ones.
            assert owner.order.index(2) < MANY // 2
            assert owner.order.count(1) == MANY

    asyncio.run(run())


def test_what_is_said_in_a_turn_goes_out_in_one_piece(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(1)
        session = on.owner.sessions[-1]
        transport = session._transport
        assert transport is not None
        sent: list[bytes] = []
        original = transport.write

        def note(data: bytes | bytearray | memoryview) -> None:
            sent.append(bytes(data))
            original(data)

        transport.write = note  # type: ignore[method-assign]
        peer.send(b"".join(message(2, bytes((number,)), number) for number in range(TURN)))
        for number in range(TURN):
            assert (await peer.read(3))[8:] == bytes((number,))
        assert len(sent) < TURN

    async def run() -> None:
        async with scene(authority, Limits()) as on:
            await test(on)

    asyncio.run(run())


def test_a_switch_that_says_more_than_is_heard_waits_and_loses_nothing(authority: Authority) -> None:
    async def run() -> None:
        async with scene(authority, Limits(max_unheard=1 << 14, packet_burst=2.0 * MANY)) as on:
            peer = await on.switch(1)
            peer.send(packet_in(1) * MANY)
            await on.owner.wait("packet_in", MANY)
            peer.send(packet_in(3))
            packet = await on.owner.wait("packet_in", MANY + 1)
            assert packet.fields["in_port"] == 3

    asyncio.run(run())


def test_what_is_above_the_share_of_a_switch_is_shed_and_another_has_its_own(authority: Authority) -> None:
    async def run() -> None:
        async with scene(authority, Limits(packet_rate=0.001, packet_burst=10, packet_trickle=0)) as on:
            noisy, quiet = await on.switch(1), await on.switch(2)
            noisy.send(packet_in(1) * 50)
            await on.owner.wait("shed", 40)
            assert on.owner.count("packet_in") == 10
            quiet.send(packet_in(2) * 10)
            await on.owner.wait("packet_in", 20)
            noisy.send(message(2, b"still there?", 9))
            assert (await noisy.read(3))[8:] == b"still there?"

    asyncio.run(run())


def test_ports_of_a_switch_above_its_share_are_heard_in_turn(authority: Authority) -> None:
    async def run() -> None:
        async with scene(authority, Limits(packet_rate=0.001, packet_burst=10, packet_trickle=1e6)) as on:
            noisy = await on.switch(1)
            noisy.send(packet_in(1) * 10)
            await on.owner.wait("packet_in", 10)
            noisy.send(packet_in(1) * 50 + packet_in(2))
            await on.owner.wait("packet_in", 12)
            ports = [what.fields["in_port"] for event, what in on.owner.heard if event == "packet_in"]
            assert ports == [1] * 10 + [1, 2]
            await on.owner.wait("shed", 49)

    asyncio.run(run())
