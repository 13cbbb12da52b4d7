# SPDX-License-Identifier: Apache-2.0
"""Packets: a small mutable value, and the real bytes of it (Ethernet, ARP, IPv4, IPv6, ND, TCP, UDP, ICMP)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

ETH_IPV4, ETH_ARP, ETH_IPV6 = 0x0800, 0x0806, 0x86DD
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
ECHO_REPLY, UNREACHABLE, ECHO_REQUEST = 0, 3, 8
ECHO_REQUEST_V6, ECHO_REPLY_V6, UNREACHABLE_V6, SOLICITATION, ADVERTISEMENT = 128, 129, 1, 135, 136
SOURCE_OPTION, TARGET_OPTION = 1, 2
BROADCAST = 0xFFFFFFFFFFFF
_OTHER_ECHO = {ECHO_REQUEST: ECHO_REPLY, ECHO_REPLY: ECHO_REQUEST,
               ECHO_REQUEST_V6: ECHO_REPLY_V6, ECHO_REPLY_V6: ECHO_REQUEST_V6}  # fmt: skip


def is_ipv6(address: int) -> bool:
    """Whether an address is one of IPv6: all that the tests use are larger than any of IPv4."""
    return address >> 32 != 0


def packed(address: int) -> bytes:
    """An address of either family as bytes."""
    return address.to_bytes(16 if is_ipv6(address) else 4, "big")


_FRAGMENT_BITS = {0: 0x4000, 1: 0x2000, 3: 0x00B9}
_FRAGMENTS = {bits: fragment for fragment, bits in _FRAGMENT_BITS.items()}


@dataclass(slots=True)
class Packet:
    """One frame. Addresses and ports are integers; `inner` is the packet that an ICMP error quotes.

    `source` and `target` are the IP addresses, of the family that `eth_type` says.
    """

    eth_src: int = 0
    eth_dst: int = 0
    eth_type: int = ETH_IPV4
    arp_op: int = 0
    arp_sha: int = 0
    arp_spa: int = 0
    arp_tha: int = 0
    arp_tpa: int = 0
    ip_proto: int = 0
    fragment: int = 0  # as ip_frag of ovs-fields(7): 1 the first of several, 3 a later one, which shows no ports
    source: int = 0
    target: int = 0
    ttl: int = 64
    src_port: int = 0
    dst_port: int = 0
    tcp_flags: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    icmp_id: int = 0
    nd_target: int = 0
    nd_flags: int = 0
    nd_option: int = 0  # 1: the sender's MAC address, 2: the target's
    nd_mac: int = 0
    payload: bytes = b""
    inner: Packet | None = None

    def copy(self) -> Packet:
        """An independent copy."""
        return replace(self, inner=self.inner.copy() if self.inner else None)

    @property
    def has_ports(self) -> bool:
        """Whether the transport protocol has ports."""
        return self.is_ip and self.ip_proto in (TCP, UDP, SCTP)

    @property
    def is_ip(self) -> bool:
        """Whether this is IP of either family."""
        return self.eth_type in (ETH_IPV4, ETH_IPV6)

    @property
    def is_icmp(self) -> bool:
        """Whether this is ICMP of its family."""
        return (self.eth_type, self.ip_proto) in ((ETH_IPV4, ICMP), (ETH_IPV6, ICMPV6))

    @property
    def is_nd(self) -> bool:
        """Whether this is a neighbour solicitation or advertisement."""
        return self.eth_type == ETH_IPV6 and self.is_icmp and self.icmp_type in (SOLICITATION, ADVERTISEMENT)

    @property
    def is_error(self) -> bool:
        """Whether this is an ICMP error that quotes a packet."""
        return self.is_icmp and self.icmp_type == (UNREACHABLE_V6 if self.eth_type == ETH_IPV6 else UNREACHABLE)

    @property
    def other_echo(self) -> int:
        """The ICMP type of the other half of an echo."""
        return _OTHER_ECHO.get(self.icmp_type, self.icmp_type)

    def encode(self) -> bytes:
        """The frame as it is on the wire, checksums included."""
        ethernet = self.eth_dst.to_bytes(6, "big") + self.eth_src.to_bytes(6, "big") + struct.pack("!H", self.eth_type)
        if self.eth_type == ETH_ARP:
            return (
                ethernet
                + struct.pack("!HHBBH", 1, ETH_IPV4, 6, 4, self.arp_op)
                + b"".join(
                    value.to_bytes(size, "big")
                    for value, size in ((self.arp_sha, 6), (self.arp_spa, 4), (self.arp_tha, 6), (self.arp_tpa, 4))
                )
            )
        if not self.is_ip:
            return ethernet + self.payload
        return ethernet + self._ip()

    def _ip(self) -> bytes:
        body = self._transport()
        if self.eth_type == ETH_IPV6:
            head = struct.pack("!IHBB", 6 << 28, len(body), self.ip_proto, 255 if self.is_nd else self.ttl)
            return head + self.source.to_bytes(16, "big") + self.target.to_bytes(16, "big") + body
        addresses = self.source.to_bytes(4, "big") + self.target.to_bytes(4, "big")
        fields = (0x45, 0, 20 + len(body), 0, _FRAGMENT_BITS[self.fragment], self.ttl, self.ip_proto)
        summed = checksum(struct.pack("!BBHHHBBH", *fields, 0) + addresses)
        return struct.pack("!BBHHHBBH", *fields, summed) + addresses + body

    def _transport(self) -> bytes:
        if self.ip_proto == TCP:
            head = struct.pack("!HHIIBBHHH", self.src_port, self.dst_port, 0, 0, 0x50, self.tcp_flags, 0xFFFF, 0, 0)
            return self._summed(head + self.payload, 16)
        if self.ip_proto == UDP:
            head = struct.pack("!HHHH", self.src_port, self.dst_port, 8 + len(self.payload), 0)
            return self._summed(head + self.payload, 6)
        if self.is_nd:
            body = struct.pack("!BBHI", self.icmp_type, self.icmp_code, 0, self.nd_flags)
            body += self.nd_target.to_bytes(16, "big")
            option = bytes((self.nd_option, 1)) + self.nd_mac.to_bytes(6, "big") if self.nd_option else b""
            return self._summed(body + option, 2)
        if self.is_icmp:
            quoted = self.inner._ip()[: 48 if self.eth_type == ETH_IPV6 else 28] if self.inner else self.payload
            body = struct.pack("!BBHHH", self.icmp_type, self.icmp_code, 0, self.icmp_id, 0) + quoted
            if self.eth_type == ETH_IPV6:
                return self._summed(body, 2)
            return body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        if self.ip_proto == SCTP:
            return struct.pack("!HHII", self.src_port, self.dst_port, 0, 0) + self.payload
        return self.payload

    def _summed(self, body: bytes, at: int) -> bytes:
        size = 16 if self.eth_type == ETH_IPV6 else 4
        pseudo = self.source.to_bytes(size, "big") + self.target.to_bytes(size, "big")
        pseudo += struct.pack("!HH", self.ip_proto, len(body))
        return body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def decode(data: bytes) -> Packet:
    """The packet that `data` is.

    Raises:
        ValueError: the frame is cut short.
    """
    if len(data) < 14:
        raise ValueError(f"a frame of {len(data)} bytes has no Ethernet header")
    packet = Packet(
        eth_dst=int.from_bytes(data[:6], "big"),
        eth_src=int.from_bytes(data[6:12], "big"),
        eth_type=int.from_bytes(data[12:14], "big"),
    )
    body = data[14:]
    if packet.eth_type == ETH_ARP:
        packet.arp_op = int.from_bytes(body[6:8], "big")
        packet.arp_sha, packet.arp_spa = int.from_bytes(body[8:14], "big"), int.from_bytes(body[14:18], "big")
        packet.arp_tha, packet.arp_tpa = int.from_bytes(body[18:24], "big"), int.from_bytes(body[24:28], "big")
    elif packet.eth_type == ETH_IPV4:
        _decode_ipv4(packet, body)
    elif packet.eth_type == ETH_IPV6:
        _decode_ipv6(packet, body)
    else:
        packet.payload = body
    return packet


def _decode_ipv4(packet: Packet, body: bytes) -> None:
    if len(body) < 20:
        raise ValueError("cut short in the IPv4 header")
    packet.ttl, packet.ip_proto = body[8], body[9]
    packet.fragment = _FRAGMENTS.get(int.from_bytes(body[6:8], "big"), 0)
    packet.source, packet.target = int.from_bytes(body[12:16], "big"), int.from_bytes(body[16:20], "big")
    _decode_transport(packet, body[(body[0] & 15) * 4 :])


def _decode_ipv6(packet: Packet, body: bytes) -> None:
    if len(body) < 40:
        raise ValueError("cut short in the IPv6 header")
    packet.ip_proto, packet.ttl = body[6], body[7]
    packet.source, packet.target = int.from_bytes(body[8:24], "big"), int.from_bytes(body[24:40], "big")
    _decode_transport(packet, body[40:])


def _decode_transport(packet: Packet, rest: bytes) -> None:
    if packet.ip_proto in (TCP, UDP, SCTP):
        packet.src_port, packet.dst_port = struct.unpack_from("!HH", rest)
        if packet.ip_proto == TCP and len(rest) >= 14:
            packet.tcp_flags = rest[13]
        packet.payload = rest[{TCP: 20, UDP: 8, SCTP: 12}[packet.ip_proto] :]
    elif packet.is_icmp:
        packet.icmp_type, packet.icmp_code = rest[0], rest[1]
        if packet.is_error:
            packet.inner = Packet(eth_type=packet.eth_type)
            (_decode_ipv6 if packet.eth_type == ETH_IPV6 else _decode_ipv4)(packet.inner, rest[8:])
        elif packet.is_nd:
            packet.nd_flags, packet.nd_target = int.from_bytes(rest[4:8], "big"), int.from_bytes(rest[8:24], "big")
            packet.nd_option = rest[24] if len(rest) > 24 else 0
            packet.nd_mac = int.from_bytes(rest[26:32], "big")
        else:
            packet.icmp_id, packet.payload = int.from_bytes(rest[4:6], "big"), rest[8:]
    else:
        packet.payload = rest


def arp_request(mac: int, sender: int, target: int) -> Packet:
    """Who has `target`? Tell `sender`."""
    return Packet(
        eth_src=mac, eth_dst=BROADCAST, eth_type=ETH_ARP, arp_op=1, arp_sha=mac, arp_spa=sender, arp_tpa=target
    )


def link_local(mac: int) -> int:
    """The address that a kernel gives its interface by itself."""
    return (0xFE80 << 112) | ((mac >> 24 ^ 0x020000) << 40 | 0xFFFE << 24 | mac & 0xFFFFFF)


def solicitation(mac: int, sender: int, target: int) -> Packet:
    """Who has the IPv6 address `target`? With `sender` 0: a probe whether anybody has it, which names no MAC."""
    return Packet(
        eth_src=mac, eth_dst=0x3333FF000000 | target & 0xFFFFFF, eth_type=ETH_IPV6, ip_proto=ICMPV6,
        source=sender, target=(0xFF02 << 112) + (0x1FF << 24) + (target & 0xFFFFFF), icmp_type=SOLICITATION,
        nd_target=target, nd_option=SOURCE_OPTION if sender else 0, nd_mac=mac if sender else 0,
    )  # fmt: skip


def between(source: int, target: int, protocol: int, **more: Any) -> Packet:
    """An IP packet of the family of its addresses; ICMP becomes that of the family. Who sends it sets the rest."""
    if not is_ipv6(target):
        return Packet(ip_proto=protocol, source=source, target=target, **more)
    protocol = ICMPV6 if protocol == ICMP else protocol
    return Packet(eth_type=ETH_IPV6, ip_proto=protocol, source=source, target=target, **more)


def tcp(source: int, sport: int, target: int, dport: int, flags: int, payload: bytes = b"") -> Packet:
    """A TCP segment; the Ethernet addresses are set by who sends it."""
    return between(source, target, TCP, src_port=sport, dst_port=dport, tcp_flags=flags, payload=payload)


def udp(source: int, sport: int, target: int, dport: int, payload: bytes = b"") -> Packet:
    """A UDP datagram."""
    return between(source, target, UDP, src_port=sport, dst_port=dport, payload=payload)


def echo(source: int, target: int, identifier: int, kind: int = ECHO_REQUEST) -> Packet:
    """An ICMP echo request, or with `kind` its reply."""
    if is_ipv6(target):
        kind = {ECHO_REQUEST: ECHO_REQUEST_V6, ECHO_REPLY: ECHO_REPLY_V6}.get(kind, kind)
    return between(source, target, ICMP, icmp_type=kind, icmp_id=identifier)


def reply_to(packet: Packet, flags: int = ACK, payload: bytes = b"") -> Packet:
    """What the receiver of `packet` would answer."""
    answer = between(packet.target, packet.source, packet.ip_proto, payload=payload)
    if packet.is_icmp:
        answer.icmp_type, answer.icmp_id = packet.other_echo, packet.icmp_id
    else:
        answer.src_port, answer.dst_port = packet.dst_port, packet.src_port
        answer.tcp_flags = flags if packet.ip_proto == TCP else 0
    return answer


def unreachable(packet: Packet) -> Packet:
    """The ICMP port-unreachable error that the receiver of `packet` would answer."""
    error = between(packet.target, packet.source, ICMP, inner=packet.copy())
    six = error.eth_type == ETH_IPV6
    error.icmp_type, error.icmp_code = (UNREACHABLE_V6, 4) if six else (UNREACHABLE, 3)
    return error
