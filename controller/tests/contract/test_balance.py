# SPDX-License-Identifier: Apache-2.0
"""Groups as a real Open vSwitch deals them: shares by weight, and more backends than a message holds."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest

from contract.real import Authority, Vswitch
from contract.test_open_vswitch import dump, play, refusals
from qnet_controller.openflow.session import Session
from qnet_controller.pipeline.balance import Spread, spread
from qnet_controller.pipeline.messages import Bucket, Group, Output, PacketOut, PutGroup, UseGroup
from simulator import packets as p
from simulator.balanced import groups as groups_of

from .peers import Owner

CONNECTIONS = 6000
GROUP = 9


def addresses(count: int) -> list[bytes]:
    return [(0x0A0A0001 + number).to_bytes(4, "big") for number in range(count)]


def shared(weights: list[int], *, by_client: bool) -> Spread:
    return spread(list(zip(addresses(len(weights)), weights, strict=True)), weights, by_client=by_client)


async def counted(session: Session, switch: Vswitch, *, many_clients: bool) -> list[int]:
    """Packets by bucket, in their order, of first packets with a client port, or a client, of their own each."""
    for turn in range(CONNECTIONS):
        client, port = (0x0B000000 + turn, 1024) if many_clients else (0x0B000000, 1024 + turn)
        session.send((), PacketOut(p.udp(client, port, 0x0A600001, 53, b"?").encode(), 1, (UseGroup(GROUP),)))
        if turn % 500 == 499:
            await asyncio.wait_for(session.barrier(), 20)
    stats = await asyncio.to_thread(switch.ofctl, "dump-group-stats")
    return [int(count) for count in re.findall(r"bucket\d+:packet_count=(\d+)", stats)]


@pytest.mark.parametrize("by_client", [False, True], ids=["dp_hash", "hash"])
@pytest.mark.parametrize("weights", [[100, 100, 100], [100, 50], [300, 100, 100]])
def test_connections_are_shared_by_weight(
    switch: Vswitch, authority: Authority, weights: list[int], by_client: bool
) -> None:
    made = shared(weights, by_client=by_client)

    async def test(session: Session, owner: Owner) -> None:
        buckets = tuple(Bucket(share.id, share.weight, (Output(2),)) for share in made.shares)
        assert await refusals(session, PutGroup(Group(GROUP, buckets, made.hashed), exists=False)) == []
        got: Counter[bytes] = Counter()
        for share, count in zip(made.shares, await counted(session, switch, many_clients=by_client), strict=True):
            got[share.address] += count
        assert got.total() == CONNECTIONS
        for address, weight in zip(addresses(len(weights)), weights, strict=True):
            # The deviation of chance is 1 to 2 %; equal buckets without care for weights would be 12 % off and more.
            assert got[address] == pytest.approx(CONNECTIONS * weight / sum(weights), rel=0.07)

    play(switch, authority, test)


@pytest.mark.parametrize("by_client", [False, True], ids=["none", "client"])
def test_a_service_of_five_thousand_backends_is_installed_and_changed(
    switch: Vswitch, authority: Authority, by_client: bool
) -> None:
    def groups(count: int) -> list[Group]:
        made = groups_of([100] * count, affinity="client" if by_client else "none")
        assert sum(len(group.buckets) for group in made[:-1]) == count
        return made

    async def test(session: Session, owner: Owner) -> None:
        for count, exists in ((5000, False), (4999, True)):
            made = groups(count)
            assert await refusals(session, *(PutGroup(group, exists=exists) for group in made)) == []
            stats = await asyncio.to_thread(switch.ofctl, "dump-group-stats")
            assert stats.count(":packet_count=") == count + 2
            assert (await dump(session)).groups == {group.id: len(group.buckets) for group in made}
        packet = p.udp(0x0B000000, 1024, 0x0A600001, 53, b"?").encode()
        session.send((), PacketOut(packet, 1, (UseGroup(made[-1].id),)))
        await session.barrier()
        stats = await asyncio.to_thread(switch.ofctl, "dump-group-stats")
        assert re.findall(r"bucket\d+:packet_count=([1-9]\d*)", stats) == ["1", "1"], "a part, and a backend in it"
        assert owner.count("refused") == owner.count("violated") == 0

    play(switch, authority, test)
