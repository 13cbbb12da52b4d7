# SPDX-License-Identifier: Apache-2.0
"""Plays connections through the simulated fabric and holds every step of them against the oracle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from qnet_controller.decide.outside import link_address
from simulator import packets as p
from simulator.fabric import OUTSIDE_PORT, VIRTUAL_MAC, Delivery, Fabric, Session, first_packet, open_session
from simulator.packets import is_ipv6, packed

from .oracle import OUTSIDE, expected, hear, who_has
from .tenants import (
    ICMP,
    IPV6,
    OUTSIDE_ADDRESSES,
    POD_BLOCK,
    SERVICE_BLOCK,
    TCP,
    UDP,
    PodPlan,
    World,
    digest,
    pod_object,
)

PROBES: tuple[tuple[int, int | None], ...] = ((TCP, 80), (TCP, 81), (UDP, 53), (UDP, 54), (ICMP, None), (132, 9))
_ephemeral = itertools.cycle(range(20000, 60000))


GROUPS = ((0xFFFFFFFF, POD_BLOCK + 255, 0xE00000FB), ((0xFF02 << 112) + 0xFB, (0xFF0E << 112) + 0x101))
"""Addresses for all, of IPv4 and of IPv6."""


def to_all(source: int, number: int) -> p.Packet:
    """A datagram to one of the addresses for all."""
    groups = GROUPS[is_ipv6(source)]
    target = groups[number % len(groups)]
    packet = p.udp(source, next(_ephemeral), target, 5353)
    multicast = 0x333300000000 | target & 0xFFFFFFFF if is_ipv6(target) else 0x01005E000000 | target & 0x7FFFFF
    packet.eth_dst = multicast if target >> 28 == 0xE or is_ipv6(target) else p.BROADCAST
    return packet


@dataclass(slots=True)
class Open:
    """A connection that was opened earlier and should live as long as policy and places allow."""

    session: Session
    client: str
    server: str
    address: int
    protocol: int
    port: int | None
    balanced: bool
    seen_at: int | None = None

    def __str__(self) -> str:
        return f"{self.client} -> {self.address:#x} {self.protocol}/{self.port} at {self.server}"


class Prober:
    """Knows the world as it should be and the fabric as it is."""

    def __init__(self, world: World, fabric: Fabric) -> None:
        self.world, self.fabric = world, fabric

    def fail(self, what: str) -> None:
        """Fail with the way the last packet went."""
        raise AssertionError(what + "\n  " + "\n  ".join(self.fabric.trace))

    def clients(self) -> list[PodPlan]:
        """The pods that are somewhere."""
        return [pod for pod in self.world.pods.values() if pod.host]

    def addresses(self) -> list[int]:
        """Every address in use in any network, and some that are not."""
        used = {address for pod in self.world.pods.values() for address in pod.addresses}
        used |= set(self.world.service_ips.values())
        nobody = {family + block + 251 for family in (0, IPV6) for block in (POD_BLOCK, SERVICE_BLOCK)}
        return sorted(used | nobody | set(OUTSIDE_ADDRESSES))

    def pairs(self) -> Iterator[tuple[PodPlan, int]]:
        """Every ordered pair of a pod and an address of a family it has; its own address stays inside of it."""
        return ((c, a) for c, a in itertools.product(self.clients(), self.addresses()) if c.own(a) not in (None, a))

    def by_port(self, port_name: str) -> PodPlan:
        """The pod with a port name."""
        return next(pod for pod in self.world.pods.values() if "qn" + digest(pod.key)[:12] == port_name)

    def probe(
        self, client: PodPlan, address: int, protocol: int, port: int | None, sport: int | None = None
    ) -> Open | None:
        """Open a connection, or see it refused, as the oracle says; returns it when it opened."""
        want = expected(self.world, client, address, protocol, port, self.fabric.clock.now)
        what = f"{client.key}@{client.host} -> {self.describe(client, address)} {protocol}/{port}"
        sport = sport or next(_ephemeral)
        if who_has(self.world, client.network, address) is None:
            self._outside(client, address, protocol, port or 0, sport, want.receivers, what)
            return None
        if protocol == 132:
            self._one_way(client, address, port or 0, sport, want.receivers, what)
            return None
        source = client.own(address)
        assert source is not None
        session = open_session(self.fabric, pod_object(client), source, address, protocol, sport, port or 0)
        got = self.by_port(session.server).key if session.server else None
        if got is None and want.receivers:
            self.fail(f"wrong deny: {what}, expected {set(want.receivers)}")
        if got is not None and got not in want.receivers:
            self.fail(f"wrong allow: {what} reached {got}, expected {set(want.receivers) or 'nobody'}")
        if got is None:
            if not want.allowed:
                self._force(client, address, protocol, port or 0, sport, what)
            return None
        found = Open(session, client.key, got, address, protocol, port, want.balanced, want.seen_at)
        self._check_arrival(found, sport, what)
        self._converse(found, what)
        return found

    def first(self, client: PodPlan, address: int, protocol: int, port: int | None) -> p.Packet:
        """Send the first packet of a connection and see that it goes where the oracle says; returns it as sent."""
        want = expected(self.world, client, address, protocol, port, self.fabric.clock.now)
        source = client.own(address)
        assert source is not None
        packet = first_packet(source, address, protocol, next(_ephemeral), port or 0)
        got = {self.receiver(delivery.pod) for delivery in self.fabric.send(pod_object(client), packet)}
        if not got <= want.receivers or len(got) != bool(want.receivers):
            what = f"{client.key}@{client.host} -> {self.describe(client, address)} {protocol}/{port}"
            self.fail(f"{what}: reached {got or 'nobody'}, expected {set(want.receivers) or 'nobody'}")
        return packet

    def to_all(self, client: PodPlan, number: int) -> p.Packet:
        """Send something to all and see that exactly those get it who should; returns it as sent."""
        packet = to_all(client.addresses[number % len(client.addresses)], number)
        got = [self.receiver(delivery.pod) for delivery in self.fabric.send(pod_object(client), packet)]
        if sorted(got) != sorted(want := hear(self.world, client)):
            self.fail(f"{client.key}@{client.host} to all ({packet.target:#x}): reached {got}, expected {set(want)}")
        return packet

    def describe(self, client: PodPlan, address: int) -> str:
        """An address in words."""
        owner = who_has(self.world, client.network, address)
        name = owner.key if isinstance(owner, PodPlan) else owner
        return f"{name or 'nobody'} ({address:#x} in {client.network})"

    def _one_way(
        self, client: PodPlan, address: int, port: int, sport: int, receivers: frozenset[str], what: str
    ) -> None:
        packet = p.between(client.own(address) or 0, address, 132, src_port=sport, dst_port=port)
        got = {self.by_port(d.pod).key for d in self.fabric.send(pod_object(client), packet)}
        if not got <= receivers or bool(got) != bool(receivers):
            self.fail(f"{what}: reached {got}, expected {set(receivers)}")

    def _outside(
        self, client: PodPlan, address: int, protocol: int, port: int, sport: int, receivers: frozenset[str], what: str
    ) -> None:
        """What nobody in the overlay has: it leaves the client's own host or not, and what answers it comes back."""
        pod = pod_object(client)
        sent = first_packet(client.own(address) or 0, address, protocol, sport, port)
        got = {self.receiver(d.pod) for d in self.fabric.send(pod, sent)}
        if got != receivers:
            self.fail(f"{what}: reached {got or 'nobody'}, expected {set(receivers) or 'nobody'}")
        if protocol == 132 or client.host is None:
            return
        _, number = self.fabric.port(pod)
        answer = p.reply_to(sent, p.SYN | p.ACK)
        answer.target = int.from_bytes(link_address(number, packed(address)), "big")
        back = {self.receiver(d.pod) for d in self.fabric.from_outside(client.host, answer)}
        if back != ({client.key} if receivers else set()):
            self.fail(f"{what}: its answer reached {back or 'nobody'}")
        if protocol != ICMP:
            answer.src_port ^= 1
            if self.fabric.from_outside(client.host, answer):
                self.fail(f"{what}: a packet that is no answer came in")

    def receiver(self, port_name: str) -> str:
        """The pod with a port name, or the world outside."""
        return OUTSIDE if port_name == OUTSIDE_PORT else self.by_port(port_name).key

    def _check_arrival(self, found: Open, sport: int, what: str) -> None:
        seen = found.session.at_server
        assert seen is not None
        client, server = self.world.pods[found.client], self.world.pods[found.server]
        source = found.address if found.balanced and client.key == server.key else client.own(found.address)
        source = found.seen_at or source
        if seen.source != source:
            self.fail(f"{what}: {server.key} sees {seen.source:#x} as the client, not {source}")
        if seen.target != server.own(found.address) or seen.dst_port != found.session.first.dst_port:
            self.fail(f"{what}: arrived at {seen.target:#x}:{seen.dst_port}")
        if (seen.eth_src, seen.eth_dst) != (VIRTUAL_MAC, int.from_bytes(pod_object(server).mac, "big")):
            self.fail(f"{what}: wrong Ethernet addresses {seen}")

    def _converse(self, found: Open, what: str) -> None:
        """Finish the handshake and send data both ways."""
        session, server = found.session, pod_object(self.world.pods[found.server])
        flags = p.SYN | p.ACK
        for step in range(2):
            if not session.came_back(session.backward(server, flags)):
                self.fail(f"{what}: answer {step} of {server.key} did not come back")
            there = session.forward()
            if [d.pod for d in there] != [session.server]:
                self.fail(f"{what}: packet {step} of the open connection went to {there}")
            if found.protocol != ICMP and there[0].packet.src_port != session.at_server.src_port:  # type: ignore[union-attr]
                self.fail(f"{what}: the source port changed during the connection")
            flags = p.ACK
        self._only_answers(found, what)

    def _only_answers(self, found: Open, what: str) -> None:
        """The server of an open connection may open none of its own by that."""
        client, server = self.world.pods[found.client], self.world.pods[found.server]
        if client.key == server.key or found.protocol == ICMP:
            return
        sport, dport = found.session.first.dst_port, next(_ephemeral)
        here, there = found.seen_at or client.own(found.address), server.own(found.address)
        assert here is not None
        assert there is not None
        want = expected(self.world, server, here, found.protocol, dport, self.fabric.clock.now)
        if want.allowed:
            return
        tries = [p.udp(there, sport, here, dport)]
        if found.protocol == TCP:
            kinds = (p.SYN, p.ACK, p.SYN | p.ACK, p.RST)
            tries = [p.tcp(there, sport, here, dport, flags) for flags in kinds]
        for packet in tries:
            if self.fabric.send(pod_object(server), packet):
                self.fail(f"{what}: {server.key} opened a connection back by {packet}")

    def _force(self, client: PodPlan, address: int, protocol: int, port: int, sport: int, what: str) -> None:
        """Packets that look as if they belonged to a connection get no further than the first one."""
        own = client.own(address)
        assert own is not None
        if protocol == TCP:
            tries = [p.tcp(own, sport, address, port, flags) for flags in (p.ACK, p.SYN | p.ACK, p.RST, p.FIN)]
        elif protocol == UDP:
            tries = [p.udp(own, port, address, sport)]
        else:
            quoted = p.udp(address, 53, own, 53)
            tries = [p.echo(own, address, sport, p.ECHO_REPLY), p.unreachable(quoted)]
        for packet in tries:
            if (
                protocol == UDP
                and expected(self.world, client, address, protocol, sport, self.fabric.clock.now).allowed
            ):
                continue
            if self.fabric.send(pod_object(client), packet):
                self.fail(f"wrong allow: {what} by {packet}")

    def goes_on(self, item: Open) -> bool:
        """Whether an open connection should still work."""
        client, server = self.world.pods.get(item.client), self.world.pods.get(item.server)
        if client is None or server is None or not client.host or not server.host:
            return False
        return expected(self.world, client, item.address, item.protocol, item.port, self.fabric.clock.now).allowed

    def check_open(self, item: Open) -> bool:
        """Hold an open connection against the oracle; returns whether it lives on."""
        client, server = self.world.pods.get(item.client), self.world.pods.get(item.server)
        if self.goes_on(item):
            assert server is not None
            there = item.session.forward()
            if [d.pod for d in there] != [item.session.server]:
                self.fail(f"{item}: cut, though still allowed: {there}")
            if not item.session.came_back(item.session.backward(pod_object(server))):
                self.fail(f"{item}: answers are cut, though still allowed")
            return True
        if client is not None and client.host and (there := item.session.forward()) and not self._moved_on(item, there):
            self.fail(f"{item}: goes on, though no longer allowed: {there}")
        if server is not None and server.host and not self._may_talk_back(item, server):
            back = item.session.backward(pod_object(server))
            if back:
                self.fail(f"{item}: the server still reaches the client: {back}")
        return False

    def _moved_on(self, item: Open, there: list[Delivery]) -> bool:
        """Whether UDP, whose backend has gone, has been balanced anew."""
        client = self.world.pods[item.client]
        want = expected(self.world, client, item.address, item.protocol, item.port, self.fabric.clock.now)
        reached = [self.by_port(delivery.pod).key for delivery in there]
        return item.balanced and item.protocol == UDP and len(reached) == 1 and reached[0] in want.receivers

    def _may_talk_back(self, item: Open, server: PodPlan) -> bool:
        """Whether the server might open a connection that looks like its answers."""
        seen = item.session.at_server
        assert seen is not None
        if seen.source == server.own(seen.source):
            return True
        port = None if item.protocol == ICMP else seen.src_port
        return expected(self.world, server, seen.source, item.protocol, port, self.fabric.clock.now).allowed

    def check_all(self, probes: tuple[tuple[int, int | None], ...] = PROBES) -> list[Open]:
        """Probe every ordered pair with every probe; returns what opened."""
        found = [self.probe(client, address, *how) for client, address in self.pairs() for how in probes]
        return [item for item in found if item is not None]
