# SPDX-License-Identifier: Apache-2.0
"""Packets: a small mutable value, and the real bytes of it (Ethernet, ARP, IPv4, TCP, UDP, ICMP)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

ETH_IPV4, ETH_ARP = 0x0800, 0x0806
ICMP, TCP, UDP, SCTP = 1, 6, 17, 132
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
ECHO_REPLY, UNREACHABLE, ECHO_REQUEST = 0, 3, 8
BROADCAST = 0xFFFFFFFFFFFF


@dataclass(slots=True)
class Packet:
    """One frame. Addresses and ports are integers; `inner` is the packet that an ICMP error quotes."""

    eth_src: int = 0
    eth_dst: int = 0
    eth_type: int = ETH_IPV4
    arp_op: int = 0
    arp_sha: int = 0
    arp_spa: int = 0
    arp_tha: int = 0
    arp_tpa: int = 0
    ip_proto: int = 0
    ipv4_src: int = 0
    ipv4_dst: int = 0
    ttl: int = 64
    src_port: int = 0
    dst_port: int = 0
    tcp_flags: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    icmp_id: int = 0
    payload: bytes = b""
    inner: Packet | None = None

    def copy(self) -> Packet:
        """An independent copy."""
        return replace(self, inner=self.inner.copy() if self.inner else None)

    @property
    def has_ports(self) -> bool:
        """Whether the transport protocol has ports."""
        return self.eth_type == ETH_IPV4 and self.ip_proto in (TCP, UDP, SCTP)

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
        if self.eth_type != ETH_IPV4:
            return ethernet + self.payload
        return ethernet + self._ipv4()

    def _ipv4(self) -> bytes:
        body = self._transport()
        addresses = self.ipv4_src.to_bytes(4, "big") + self.ipv4_dst.to_bytes(4, "big")
        fields = (0x45, 0, 20 + len(body), 0, 0x4000, self.ttl, self.ip_proto)
        summed = checksum(struct.pack("!BBHHHBBH", *fields, 0) + addresses)
        return struct.pack("!BBHHHBBH", *fields, summed) + addresses + body

    def _transport(self) -> bytes:
        if self.ip_proto == TCP:
            head = struct.pack("!HHIIBBHHH", self.src_port, self.dst_port, 0, 0, 0x50, self.tcp_flags, 0xFFFF, 0, 0)
            return self._summed(head + self.payload, 16)
        if self.ip_proto == UDP:
            head = struct.pack("!HHHH", self.src_port, self.dst_port, 8 + len(self.payload), 0)
            return self._summed(head + self.payload, 6)
        if self.ip_proto == ICMP:
            quoted = self.inner._ipv4()[:28] if self.inner else self.payload
            body = struct.pack("!BBHHH", self.icmp_type, self.icmp_code, 0, self.icmp_id, 0) + quoted
            return body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        if self.ip_proto == SCTP:
            return struct.pack("!HHII", self.src_port, self.dst_port, 0, 0) + self.payload
        return self.payload

    def _summed(self, body: bytes, at: int) -> bytes:
        pseudo = struct.pack("!IIBBH", self.ipv4_src, self.ipv4_dst, 0, self.ip_proto, len(body))
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
    else:
        packet.payload = body
    return packet


def _decode_ipv4(packet: Packet, body: bytes) -> None:
    if len(body) < 20:
        raise ValueError("cut short in the IPv4 header")
    packet.ttl, packet.ip_proto = body[8], body[9]
    packet.ipv4_src, packet.ipv4_dst = int.from_bytes(body[12:16], "big"), int.from_bytes(body[16:20], "big")
    rest = body[(body[0] & 15) * 4 :]
    if packet.ip_proto in (TCP, UDP, SCTP):
        packet.src_port, packet.dst_port = struct.unpack_from("!HH", rest)
        if packet.ip_proto == TCP and len(rest) >= 14:
            packet.tcp_flags = rest[13]
        packet.payload = rest[{TCP: 20, UDP: 8, SCTP: 12}[packet.ip_proto] :]
    elif packet.ip_proto == ICMP:
        packet.icmp_type, packet.icmp_code = rest[0], rest[1]
        if packet.icmp_type == UNREACHABLE:
            packet.inner = Packet()
            _decode_ipv4(packet.inner, rest[8:])
        else:
            packet.icmp_id, packet.payload = int.from_bytes(rest[4:6], "big"), rest[8:]
    else:
        packet.payload = rest


def arp_request(mac: int, sender: int, target: int) -> Packet:
    """Who has `target`? Tell `sender`."""
    return Packet(
        eth_src=mac, eth_dst=BROADCAST, eth_type=ETH_ARP, arp_op=1, arp_sha=mac, arp_spa=sender, arp_tpa=target
    )


def tcp(source: int, sport: int, target: int, dport: int, flags: int, payload: bytes = b"") -> Packet:
    """A TCP segment between IPv4 addresses; the Ethernet addresses are set by who sends it."""
    return Packet(
        ip_proto=TCP, ipv4_src=source, ipv4_dst=target, src_port=sport, dst_port=dport, tcp_flags=flags, payload=payload
    )


def udp(source: int, sport: int, target: int, dport: int, payload: bytes = b"") -> Packet:
    """A UDP datagram."""
    return Packet(ip_proto=UDP, ipv4_src=source, ipv4_dst=target, src_port=sport, dst_port=dport, payload=payload)


def echo(source: int, target: int, identifier: int, kind: int = ECHO_REQUEST) -> Packet:
    """An ICMP echo request, or with `kind` its reply."""
    return Packet(ip_proto=ICMP, ipv4_src=source, ipv4_dst=target, icmp_type=kind, icmp_id=identifier)


def reply_to(packet: Packet, flags: int = ACK, payload: bytes = b"") -> Packet:
    """What the receiver of `packet` would answer."""
    answer = Packet(ip_proto=packet.ip_proto, ipv4_src=packet.ipv4_dst, ipv4_dst=packet.ipv4_src, payload=payload)
    if packet.ip_proto == ICMP:
        answer.icmp_type, answer.icmp_id = ECHO_REPLY, packet.icmp_id
    else:
        answer.src_port, answer.dst_port = packet.dst_port, packet.src_port
        answer.tcp_flags = flags if packet.ip_proto == TCP else 0
    return answer


def unreachable(packet: Packet) -> Packet:
    """The ICMP port-unreachable error that the receiver of `packet` would answer."""
    return Packet(
        ip_proto=ICMP,
        ipv4_src=packet.ipv4_dst,
        ipv4_dst=packet.ipv4_src,
        icmp_type=UNREACHABLE,
        icmp_code=3,
        inner=packet.copy(),
    )
