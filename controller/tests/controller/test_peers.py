# SPDX-License-Identifier: Apache-2.0
"""Controllers among each other, over real TLS: who is alive, how soon it is known, and who is not listened to."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from contract.example import adopted, fleet, point, until
from contract.real import Authority, Vswitch
from qnet_controller.config import Config, Endpoint, Peer, Pki
from qnet_controller.controller.controller import Controller
from qnet_controller.controller.election import Standing
from qnet_controller.controller.peers import Peers, Timing, client_context
from qnet_controller.controller.word import BEAT, READY, Word, encode
from qnet_controller.openflow.codec import Roles
from qnet_controller.openflow.server import listen, tls_context
from qnet_controller.pipeline.demands import Settings

TIMING = Timing(beat=0.05, probe=0.4, grace=0.6, connect=2.0)
NAMES = ("c1", "c2", "c3")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def configs(authority: Authority) -> list[Config]:
    peers = tuple(Peer(name, "127.0.0.1", port) for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True))
    nowhere = Endpoint("127.0.0.1", 1)
    return [
        Config(name, nowhere, ("unix:/x",), Pki(authority.ca, *authority.issue(name)), peers, nowhere, Settings())
        for name in NAMES
    ]


@dataclass
class Member:
    """One controller's view of the others, and every set of live ones that it has reported."""

    config: Config
    ready: bool = True
    generation: int = 1
    lacks: frozenset[int] = frozenset()
    standings: list[Standing] = field(default_factory=list)
    peers: Peers = field(init=False)

    def __post_init__(self) -> None:
        self.peers = Peers(self.config, self.word, self.standings.append, TIMING)

    def word(self) -> Word:
        return Word(self.ready, self.generation, lacks=self.lacks)

    @property
    def history(self) -> list[frozenset[str]]:
        return [standing.live for standing in self.standings]

    async def start(self) -> None:
        pki = self.config.pki
        await self.peers.start(tls_context(pki.ca, pki.certificate, pki.private_key))

    def connected(self) -> bool:
        return all(seen.connection is not None for seen in self.peers._seen.values())


@asynccontextmanager
async def members(authority: Authority, count: int = 3) -> AsyncIterator[list[Member]]:
    """The first `count` of three configured controllers, running."""
    made = [Member(config) for config in configs(authority)][:count]
    for member in made:
        await member.start()
    try:
        yield made
    finally:
        for member in made:
            await member.peers.stop()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def stranger(
    authority: Authority, name: str, to: Config, *, old: bool = False
) -> AsyncIterator[asyncio.StreamWriter]:
    """A raw connection with the certificate of `name` to the peer port of a controller; an old one speaks in bytes."""
    own = next(peer for peer in to.controllers if peer.name == to.name)
    context = client_context(Pki(authority.ca, *authority.issue(name)))
    if old:
        context.set_alpn_protocols(["something-else"])
    _, writer = await asyncio.open_connection(own.address, own.port, ssl=context)
    try:
        yield writer
    finally:
        writer.transport.abort()


def test_a_controller_that_ends_is_missed_at_once(authority: Authority) -> None:
    async def run() -> None:
        async with members(authority) as (one, two, three):
            await until(lambda: all(member.connected() for member in (one, two, three)))
            await asyncio.sleep(TIMING.grace + 0.1)
            assert one.history == two.history == []
            await three.peers.stop()
            # The reset of the connection says it; a peer that freezes takes the probe time and more.
            await until(lambda: one.peers.live == two.peers.live == {"c1", "c2"}, TIMING.probe * 2)

    asyncio.run(run())


def test_one_that_never_came_is_given_up_after_the_grace_time(authority: Authority) -> None:
    async def run() -> None:
        async with members(authority, 2) as (one, two):
            assert one.peers.live == {"c1", "c2", "c3"}
            await until(lambda: one.peers.live == two.peers.live == {"c1", "c2"}, TIMING.grace + 1)

    asyncio.run(run())


def test_one_that_is_not_ready_is_no_candidate(authority: Authority) -> None:
    async def run() -> None:
        async with members(authority) as (one, two, _three):
            await until(lambda: all(seen.was_ready for seen in one.peers._seen.values()))
            two.ready = False
            await until(lambda: one.peers.live == {"c1", "c3"})
            two.ready = True
            await until(lambda: one.peers.live == {"c1", "c2", "c3"})

    asyncio.run(run())


@pytest.mark.parametrize(("old", "beat"), [(True, READY), (False, encode(Word(True)))])
def test_one_that_falls_silent_is_gone_after_the_probe_time_and_back_with_its_next_beat(
    authority: Authority, old: bool, beat: bytes
) -> None:
    async def run() -> None:
        async with members(authority, 2) as (one, _two), stranger(authority, "c3", one.config, old=old) as writer:
            writer.write(beat)
            await until(lambda: one.peers.live == {"c1", "c2", "c3"} and one.connected())
            await until(lambda: one.peers.live == {"c1", "c2"}, TIMING.probe + 0.5)
            writer.write(BEAT if not old else beat)
            await until(lambda: one.peers.live == {"c1", "c2", "c3"})

    asyncio.run(run())


def test_a_process_that_was_frozen_takes_nobody_for_dead(authority: Authority) -> None:
    async def run() -> None:
        async with members(authority) as (one, two, three):
            await until(lambda: all(member.connected() for member in (one, two, three)))
            await asyncio.sleep(TIMING.grace)
            for member in (one, two, three):
                member.standings.clear()
            loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
            # All three share this loop, so their clocks jump together, as for one process that was stopped.
            jump = TIMING.probe * 10
            real = loop.time
            loop.time = lambda: real() + jump  # type: ignore[method-assign]
            await asyncio.sleep(TIMING.beat * 4)
            assert loop.time() - began > jump
            assert one.history == two.history == three.history == []

    asyncio.run(run())


NO_WORDS = [b"{}", b"[]", b"1", b"\xff", b'{"ready":1,"generation":1,"hears":[],"lacks":[]}', b"[" * 50000,
            b'{"ready":true,"generation":1,"hears":[1],"lacks":[]}',
            b'{"ready":true,"generation":1,"hears":[],"lacks":["x"]}']  # fmt: skip


@pytest.mark.parametrize(
    ("old", "said"),
    [(True, b"GET / HTTP/1.1\r\n"), (True, b"\x02"), (True, b"\xff" * 500), (False, b"GET / HTTP/1.1\r\n")]
    + [(False, len(body).to_bytes(4, "big") + body) for body in NO_WORDS],
)
def test_what_is_no_beat_ends_the_connection(authority: Authority, old: bool, said: bytes) -> None:
    async def run() -> None:
        async with members(authority, 2) as (one, _two), stranger(authority, "c3", one.config, old=old) as writer:
            writer.write(READY if old else encode(Word(True)))
            await until(lambda: one.connected() and all(seen.was_ready for seen in one.peers._seen.values()))
            writer.write(said)
            await until(lambda: not one.connected())
            assert "c3" not in one.peers.live

    asyncio.run(run())


def test_an_old_controller_and_a_new_one_understand_each_other(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qnet_controller.controller.peers.speaks_frames", lambda _: False)
    old_style = test_one_that_is_not_ready_is_no_candidate
    old_style(authority)


def test_one_that_another_hears_is_alive(authority: Authority) -> None:
    async def run() -> None:
        async with members(authority, 2) as (one, two), stranger(authority, "c3", two.config) as writer:
            port = one.config.controllers[2].port
            with socket.create_server(("127.0.0.1", port)):  # a connection to it leads nowhere, but is not refused
                await until(lambda: one.peers.live == {"c1", "c2"}, TIMING.grace + 1)
                await until(lambda: not one.peers._seen["c3"].ended)
                writer.write(encode(Word(True)))  # to two alone
                await until(lambda: one.peers.live == two.peers.live == {"c1", "c2", "c3"})
                writer.transport.abort()
                await until(lambda: one.peers.live == two.peers.live == {"c1", "c2"})

    asyncio.run(run())


def test_everyone_is_told_which_switches_do_not_answer_one(authority: Authority) -> None:
    async def run() -> None:
        async with members(authority, 2) as (one, two):
            await until(lambda: one.connected() or two.peers.live == {"c1", "c2"}, TIMING.grace + 1)
            one.lacks = frozenset({1, 1 << 63})
            one.peers.review()
            await until(lambda: two.standings and two.standings[-1].lacks == {"c1": one.lacks})
            await until(lambda: one.standings and one.standings[-1].lacks == {"c1": one.lacks})

    asyncio.run(run())


def test_one_whose_intent_is_older_than_that_of_the_others_is_no_candidate(authority: Authority) -> None:
    async def run() -> None:
        async with members(authority) as (one, two, three):
            await until(lambda: all(member.connected() for member in (one, two, three)))
            await asyncio.sleep(TIMING.grace)
            one.generation, two.generation, three.generation = 4, 5, 5
            await until(lambda: two.peers.live == three.peers.live == one.peers.live == {"c2", "c3"})
            one.generation = 5
            await until(lambda: two.peers.live == three.peers.live == one.peers.live == {"c1", "c2", "c3"})

    asyncio.run(run())


def test_one_that_hears_nobody_knows_that_it_may_be_cut_off(authority: Authority) -> None:
    async def run() -> None:
        async with members(authority, 1) as (one,):
            ports = [peer.port for peer in one.config.controllers if peer.name != "c1"]
            # Their hosts refuse connections: the processes have ended, and nobody else can be at work.
            await until(lambda: one.peers.live == {"c1"}, TIMING.grace + 1)
            assert not one.standings[-1].cut_off
            silent = [socket.create_server(("127.0.0.1", port)) for port in ports]  # connected to, and never answering
            await until(lambda: one.standings[-1].cut_off)
            for server in silent:
                server.close()

    asyncio.run(run())


def test_nobody_but_a_controller_is_listened_to(authority: Authority) -> None:
    async def run() -> None:
        async with members(authority, 2) as (one, _two):
            await until(lambda: one.peers.live == {"c1", "c2"}, TIMING.grace + 1)
            async with stranger(authority, "h1", one.config) as writer:
                writer.write(READY)
                await until(writer.transport.is_closing)
            bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
            with pytest.raises((ssl.SSLError, OSError)):
                await turned_away(one.config.controllers[0], bare)
            assert one.peers.live == {"c1", "c2"}

    asyncio.run(run())


async def turned_away(peer: Peer, context: ssl.SSLContext) -> None:
    """Raises what a client sees that is not let in; with TLS 1.3 only its first read shows it."""
    reader, writer = await asyncio.open_connection(peer.address, peer.port, ssl=context)
    try:
        if await reader.read(1) == b"":
            raise ConnectionResetError
    finally:
        writer.transport.abort()


@asynccontextmanager
async def cluster(authority: Authority, switch: Vswitch) -> AsyncIterator[list[tuple[Controller, Callable[[], None]]]]:
    """Three controllers with their peers, joined by one real switch; each with a function that kills it."""
    made: list[tuple[Controller, Callable[[], None]]] = []
    tasks: list[Peers] = []
    ports: list[int] = []
    for config in configs(authority):
        controller = Controller(config, settle_seconds=0.3, host_grace_seconds=0.2)
        context = tls_context(config.pki.ca, config.pki.certificate, config.pki.private_key)
        server = await listen("127.0.0.1", 0, context, controller)
        peers = Peers(config, controller.word, controller.mastership.standing_changed, TIMING)
        controller.mastership.told = peers.review
        await peers.start(context)
        ports.append(server.sockets[0].getsockname()[1])
        tasks.append(peers)

        def kill(server: asyncio.Server = server, controller: Controller = controller, peers: Peers = peers) -> None:
            server.close()
            controller.close()
            asyncio.get_running_loop().create_task(peers.stop())

        made.append((controller, kill))
        controller.intent_changed(fleet())
    point(switch, *ports)
    try:
        yield made
    finally:
        for peers in tasks:
            await peers.stop()
        for _, end in made:
            end()
        await asyncio.sleep(0.05)


def ages(switch: Vswitch) -> dict[str, float]:
    """Seconds since each flow was written, by table, priority and match."""
    found = (re.search(r"duration=([\d.]+)s, (table=\d+).* (priority=\S+) actions", line) for line in switch.flows())
    return {f"{row[2]} {row[3]}": float(row[1]) for row in found if row}


def wanted_flows(controller: Controller) -> int:
    return sum(program.status()["flows"] for s in controller.switches.values() if (program := s.ready()))


def test_another_controller_takes_a_switch_over_when_its_master_dies(authority: Authority, switch: Vswitch) -> None:
    async def run() -> None:
        async with cluster(authority, switch) as made:
            masters = lambda: [pair for pair in made if adopted(pair[0])]  # noqa: E731
            await until(lambda: len(masters()) == 1)
            await until(lambda: len(ages(switch)) == wanted_flows(masters()[0][0]) > 0)
            await asyncio.sleep(1.5)
            before = ages(switch)
            first, kill = masters()[0]
            made.remove((first, kill))
            kill()
            await until(lambda: len(masters()) == 1)
            assert masters()[0][0] is not first
            await asyncio.sleep(0.5)
            after = ages(switch)
            assert after.keys() == before.keys()
            assert all(after[flow] > before[flow] for flow in before), "flows were written anew"

    asyncio.run(run())


def test_a_controller_that_leaves_hands_its_switch_over_first(authority: Authority, switch: Vswitch) -> None:
    async def run() -> None:
        async with cluster(authority, switch) as made:
            masters = lambda: [pair[0] for pair in made if adopted(pair[0])]  # noqa: E731
            await until(lambda: len(masters()) == 1 and all(c.settled for c, _ in made))
            first = masters()[0]
            await first.mastership.hand_over(5.0)
            # It comes back only once another one has the role; that one adopts while packets wait.
            assert all(item.role != Roles.MASTER for item in first.switches.values())
            await until(lambda: len(masters()) == 1 and masters()[0] is not first)

    asyncio.run(run())
