# SPDX-License-Identifier: Apache-2.0
"""Connection tracking as Open vSwitch does it: zones, states, NAT with a source port that moves on collision.

Two datapaths differ in details that a pipeline can depend on, so both are here. `system` (Linux): a connection is new
until it was answered, and `nat` without commit leaves new packets alone. `netdev` (userspace): the second packet of a
connection counts as established, and `nat` translates every packet of a known connection. Sequence numbers are not
checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from qnet_controller.pipeline import messages
from qnet_controller.pipeline.connections import Connection as Listed
from qnet_controller.pipeline.fields import CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED, CT_REPLY, CT_TRACKED
from qnet_controller.pipeline.messages import Nat

from .check import Refused
from .packets import ACK, ECHO_REQUEST, ECHO_REQUEST_V6, FIN, ICMP, ICMPV6, RST, SYN, TCP, Packet, packed

Datapath = Literal["system", "netdev"]

CT_SOURCE_NAT, CT_DESTINATION_NAT = 0x40, 0x80
FIRST_EPHEMERAL = 1024
TIMEOUT_OPENING, TIMEOUT_ESTABLISHED, TIMEOUT_CLOSED = 30.0, 86400.0, 30.0


class Tuple(NamedTuple):
    """One direction of a connection as it is on the wire. ICMP: the ports hold type and identifier."""

    protocol: int
    source: int
    target: int
    sport: int
    dport: int

    def reversed(self) -> Tuple:
        """The other direction."""
        return Tuple(self.protocol, self.target, self.source, self.dport, self.sport)


def tuple_of(packet: Packet) -> Tuple:
    """The tuple of a packet that is no ICMP error."""
    if packet.is_icmp:
        sport, dport = packet.icmp_type << 16 | packet.icmp_id, packet.other_echo << 16 | packet.icmp_id
    else:
        sport, dport = packet.src_port, packet.dst_port
    return Tuple(packet.ip_proto, packet.source, packet.target, sport, dport)


@dataclass(slots=True, eq=False)
class Connection:
    """A committed connection: what its opener sends, and what its answers look like before they are translated back."""

    forward: Tuple
    reverse: Tuple
    expires: float
    answered: bool = False
    repeated: bool = False
    mark: int = 0
    closing: int = 0  # bit 1: FIN of the opener, bit 2: FIN of the other side, 3: closed

    @property
    def translated(self) -> bool:
        """Whether answers need translation."""
        return self.reverse != self.forward.reversed()


class Tracked(NamedTuple):
    """What ct() wrote to the metadata of a packet, and whether the datapath dropped it instead."""

    state: int
    original: Tuple | None = None
    """What the opener sent, as far as there is a connection or could be one."""
    mark: int = 0
    dropped: bool = False


class Conntrack:
    """The connections of one switch, by zone."""

    def __init__(self, datapath: Datapath) -> None:
        self.datapath = datapath
        self._known: dict[tuple[int, Tuple], Connection] = {}

    def __len__(self) -> int:
        """How many connections are known, in all zones."""
        return len({id(connection) for connection in self._known.values()})

    def flush(self, zone: int) -> None:
        """Forget a zone."""
        self._known = {key: connection for key, connection in self._known.items() if key[0] != zone}

    def connections(self, zone: int | None = None) -> list[Connection]:
        """The connections, of all zones or of one."""
        found = {id(c): c for (key, _), c in self._known.items() if zone is None or key == zone}
        return list(found.values())

    def forget(self, zone: int, opened: messages.Tuple) -> None:
        """Forget one connection of a zone, if it is there."""
        for connection in self.connections(zone):
            if _as_listed(connection.forward) == opened:
                self._forget(zone, connection)

    def listed(self, now: float) -> list[Listed]:
        """The connections as the dump of a switch shows them."""
        return [
            Listed(zone, _as_listed(c.forward), _as_listed(c.reverse), c.mark, c.closing != 3)
            for (zone, key), c in self._known.items()
            if key == c.forward and c.expires > now
        ]

    def track(
        self, packet: Packet, zone: int, commit: bool, nat: Nat | None, now: float, mark: int | None = None
    ) -> Tracked:
        """Look `packet` up, commit it if asked and new, and translate it in place; `mark` is written if committed."""
        if packet.is_error:
            return self._related(packet, zone, nat, now)
        key = tuple_of(packet)
        connection = self._find(zone, key, now)
        if connection and self._reopened(connection, packet):
            self._forget(zone, connection)
            connection = None
        if connection is None:
            if not _may_open(packet):
                return Tracked(CT_TRACKED | CT_INVALID)
            if not commit:
                return Tracked(CT_TRACKED | CT_NEW, key)
            connection = self._commit(zone, key, nat, now)
            if connection is None:
                return Tracked(CT_TRACKED | CT_NEW, key, dropped=self.datapath == "system")
            state = CT_TRACKED | CT_NEW
        else:
            state = CT_TRACKED | self._advance(connection, key, packet, now)
        if nat and (commit or self.datapath == "netdev" or not state & CT_NEW):
            state |= _translate(packet, connection, key)
        if commit and mark is not None:
            connection.mark = mark
        return Tracked(state, connection.forward, connection.mark)

    def _find(self, zone: int, key: Tuple, now: float) -> Connection | None:
        connection = self._known.get((zone, key))
        if connection and connection.expires <= now:
            self._forget(zone, connection)
            return None
        return connection

    def _forget(self, zone: int, connection: Connection) -> None:
        for key in (connection.forward, connection.reverse):
            if self._known.get((zone, key)) is connection:
                del self._known[zone, key]

    def _reopened(self, connection: Connection, packet: Packet) -> bool:
        return packet.ip_proto == TCP and packet.tcp_flags & (SYN | ACK) == SYN and connection.closing == 3

    def _commit(self, zone: int, key: Tuple, nat: Nat | None, now: float) -> Connection | None:
        reverse = self._reverse_of(zone, key, nat, now)
        if reverse is None:
            return None
        connection = Connection(key, reverse, now + TIMEOUT_OPENING)
        self._known[zone, key] = connection
        # Without NAT the userspace datapath does not notice that answers already belong to another connection; from
        # then on the newest one has them.
        self._known[zone, reverse] = connection
        return connection

    def _reverse_of(self, zone: int, key: Tuple, nat: Nat | None, now: float) -> Tuple | None:
        reverse = key.reversed()
        if nat is None or nat.kind == "lookup":
            clash = self.datapath == "system" and self._find(zone, reverse, now) is not None
            return None if clash else reverse
        address = int.from_bytes(nat.address, "big")
        if self.datapath == "netdev" and address == (key.source if nat.kind == "source" else key.target):
            raise Refused("a NAT that may change nothing makes ovs-vswitchd 3.1 abort on the userspace datapath")
        reverse = reverse._replace(target=address) if nat.kind == "source" else reverse._replace(source=address)
        if self._find(zone, reverse, now) is None:
            return reverse
        if key.protocol in (ICMP, ICMPV6):
            return None
        ports = [*range(reverse.dport + 1, 0x10000), *range(FIRST_EPHEMERAL, reverse.dport)]
        return next((r for r in (reverse._replace(dport=p) for p in ports) if self._find(zone, r, now) is None), None)

    def _advance(self, connection: Connection, key: Tuple, packet: Packet, now: float) -> int:
        reply = key == connection.reverse and key != connection.forward
        if reply:
            connection.answered = True
            state = CT_ESTABLISHED | CT_REPLY
        elif connection.answered or (self.datapath == "netdev" and (connection.repeated or packet.ip_proto == TCP)):
            state = CT_ESTABLISHED
        else:
            connection.repeated = True
            state = CT_NEW
        if packet.ip_proto == TCP and packet.tcp_flags & FIN:
            connection.closing |= 2 if reply else 1
        if packet.ip_proto == TCP and packet.tcp_flags & RST:
            connection.closing = 3
        timeout = TIMEOUT_ESTABLISHED if connection.answered and packet.ip_proto == TCP else TIMEOUT_OPENING
        connection.expires = now + (TIMEOUT_CLOSED if connection.closing == 3 else timeout)
        return state

    def _related(self, packet: Packet, zone: int, nat: Nat | None, now: float) -> Tracked:
        assert packet.inner is not None
        quoted = tuple_of(packet.inner)
        connection = self._find(zone, quoted.reversed(), now)
        if connection is None:
            return Tracked(CT_TRACKED | CT_INVALID)
        state = CT_TRACKED | CT_RELATED
        reply = quoted.reversed() == connection.reverse
        if reply:
            state |= CT_REPLY
        if nat and connection.translated:
            # The error goes the way of the answers: what it quotes becomes what the opener sent.
            before = connection.forward if reply else connection.reverse
            packet.inner.source, packet.inner.target = before.source, before.target
            packet.inner.src_port, packet.inner.dst_port = before.sport, before.dport
            packet.target = before.source
            if packet.source == quoted.target:
                packet.source = before.target
            state |= CT_DESTINATION_NAT
        return Tracked(state, connection.forward, connection.mark)


def _as_listed(key: Tuple) -> messages.Tuple:
    sport, dport = key.sport, key.dport
    if key.protocol in (ICMP, ICMPV6):
        sport, dport = sport & 0xFFFF, (sport >> 16) << 8
    return messages.Tuple(key.protocol, packed(key.source), packed(key.target), sport, dport)


def _may_open(packet: Packet) -> bool:
    if packet.ip_proto == TCP:
        return packet.tcp_flags & (SYN | ACK) != SYN | ACK
    return not packet.is_icmp or packet.icmp_type in (ECHO_REQUEST, ECHO_REQUEST_V6)


def _translate(packet: Packet, connection: Connection, key: Tuple) -> int:
    if not connection.translated:
        return 0
    want = (connection.reverse if key == connection.forward else connection.forward).reversed()
    state = 0
    if (want.source, want.sport) != (key.source, key.sport):
        state |= CT_SOURCE_NAT
    if (want.target, want.dport) != (key.target, key.dport):
        state |= CT_DESTINATION_NAT
    packet.source, packet.target = want.source, want.target
    if not packet.is_icmp:
        packet.src_port, packet.dst_port = want.sport, want.dport
    return state
