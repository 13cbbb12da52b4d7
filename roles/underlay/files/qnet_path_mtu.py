#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tell pods that the path to another host has become too small, where the datapath is in user space. Stdlib only.

A router that cannot forward a packet of a tunnel says so to the host that sent it, and quotes it. The datapath of the
kernel passes that on to the pod (`skb_tunnel_check_pmtu`), the one in user space does not. This program does what the
kernel would: out of what the router quotes it makes the message that the pod should have got, from the pod's peer, and
has `br-int` treat it as if it had come through the tunnel. So admission, decisions and translations of Service IPs
apply to it: whoever can forge such a message can forge a packet of a tunnel just as well, and gets no further with it.

Usage: qnet-path-mtu VTEP [BRIDGE PORT]
"""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import struct
import subprocess
import sys
import time

BRIDGE, PORT = "br-int", "qnet-vxlan"
VXLAN_PORT, VNI_VALID = 4789, 0x08
ETHERNET, UDP, VXLAN = 14, 8, 8  # lengths of headers
IPV4, IPV6 = 20, 40
LEAST_IPV4_MTU, LEAST_IPV6_MTU = 576, 1280
QUOTED = 8  # bytes behind the headers of what a pod has sent: the ports of TCP and UDP, what an echo is known by
MOST_QUOTED = 512
PER_SECOND = 50  # messages that are passed on; routers send fewer, and a pod that missed one sends again
SOL_RAW, ICMP_FILTER = 255, 1  # <linux/icmp.h>; the socket module has no names for them
ICMP6_FILTER = 1  # <linux/icmpv6.h>
UNREACHABLE, FRAGMENTATION_NEEDED, PACKET_TOO_BIG = 3, 4, 2
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclasses.dataclass(frozen=True)
class Told:
    """What a router has said: to which host, in which network, and the frame that tells the pod."""

    vtep: Address
    vni: int
    frame: bytes


def checksum(data: bytes) -> int:
    """The checksum of the Internet (RFC 1071)."""
    words = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tunnelled(quoted: bytes, own: Address) -> tuple[Address, int, bytes] | None:
    """The other end, the network and the inner frame of a tunnel's packet that `own` has sent; None: it is not one."""
    if own.version == 4:
        if len(quoted) < IPV4 or quoted[0] >> 4 != 4:
            return None
        length = (quoted[0] & 15) * 4
        protocol, fragment, source, target = quoted[9], quoted[6:8], quoted[12:16], quoted[16:20]
        if int.from_bytes(fragment, "big") & 0x1FFF:
            return None
    else:
        if len(quoted) < IPV6 or quoted[0] >> 4 != 6:
            return None
        length, protocol, source, target = IPV6, quoted[6], quoted[8:24], quoted[24:40]
    udp, vxlan = quoted[length : length + UDP], quoted[length + UDP : length + UDP + VXLAN]
    if protocol != socket.IPPROTO_UDP or source != own.packed or len(vxlan) < VXLAN or not vxlan[0] & VNI_VALID:
        return None
    if int.from_bytes(udp[2:4], "big") != VXLAN_PORT:
        return None
    return ipaddress.ip_address(target), int.from_bytes(vxlan[4:7], "big"), quoted[length + UDP + VXLAN :]


def too_big(frame: bytes, mtu: int) -> bytes | None:
    """The frame that tells the sender of `frame` the MTU of its path; None where nobody can be told."""
    packet, kind = frame[ETHERNET:], frame[12:ETHERNET]
    if kind == b"\x08\x00":
        answer = too_big_v4(packet, max(mtu, LEAST_IPV4_MTU))
    elif kind == b"\x86\xdd":
        answer = too_big_v6(packet, max(mtu, LEAST_IPV6_MTU))
    else:
        answer = None
    return frame[6:12] + frame[:6] + kind + answer if answer else None


def too_big_v4(packet: bytes, mtu: int) -> bytes | None:
    """An answer to an IPv4 packet (RFC 1191)."""
    length = (packet[0] & 15) * 4 if packet else 0
    if length < IPV4 or len(packet) < length + QUOTED or int.from_bytes(packet[6:8], "big") & 0x1FFF:
        return None
    if packet[9] == socket.IPPROTO_ICMP and packet[length] not in (0, 8):  # no errors about errors (RFC 1122, 3.2.2)
        return None
    quoted = packet[:MOST_QUOTED]
    icmp = struct.pack("!BBHHH", UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, mtu) + quoted
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    ends = packet[16:20] + packet[12:16]
    header = struct.pack("!BBHHHBBH", 0x45, 0, IPV4 + len(icmp), 0, 0x4000, 64, socket.IPPROTO_ICMP, 0) + ends
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + icmp


def too_big_v6(packet: bytes, mtu: int) -> bytes | None:
    """An answer to an IPv6 packet (RFC 4443, 3.2)."""
    if len(packet) < IPV6 + QUOTED or (packet[6] == socket.IPPROTO_ICMPV6 and packet[IPV6] < 128):
        return None
    icmp = struct.pack("!BBHI", PACKET_TOO_BIG, 0, 0, mtu) + packet[:MOST_QUOTED]
    ends = packet[24:40] + packet[8:24]
    pseudo = ends + struct.pack("!II", len(icmp), socket.IPPROTO_ICMPV6)
    icmp = icmp[:2] + struct.pack("!H", checksum(pseudo + icmp)) + icmp[4:]
    return struct.pack("!IHBB", 6 << 28, len(icmp), socket.IPPROTO_ICMPV6, 64) + ends + icmp


def understand(message: bytes, own: Address) -> Told | None:
    """What an ICMP message (from its type on) says about a pod's packet; None where it says nothing of that kind."""
    if own.version == 4:
        wanted, mtu = (UNREACHABLE, FRAGMENTATION_NEEDED), int.from_bytes(message[6:8], "big")
    else:
        wanted, mtu = (PACKET_TOO_BIG, 0), int.from_bytes(message[4:8], "big")
    if tuple(message[:2]) != wanted or not mtu:
        return None
    found = tunnelled(message[8:], own)
    if found is None:
        return None
    vtep, vni, frame = found
    outer = (IPV4 if own.version == 4 else IPV6) + UDP + VXLAN + ETHERNET
    answer = too_big(frame, mtu - outer)
    return Told(vtep, vni, answer) if answer else None


def packet_out(told: Told, own: Address, port: str) -> str:
    """The words of `ovs-ofctl packet-out` for a frame that came through the tunnel, as far as anybody can tell."""
    tunnel = "tun" if own.version == 4 else "tun_ipv6"
    ends = f"{tunnel}_src={told.vtep},{tunnel}_dst={own}"
    return f"in_port={port},tun_id={told.vni},{ends},packet={told.frame.hex()},actions=resubmit(,0)"


def listen(own: Address) -> socket.socket:
    """A socket that hears the messages of routers that have something to say about a packet's size."""
    if own.version == 4:
        heard = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        heard.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", ~(1 << UNREACHABLE) & 0xFFFFFFFF))
    else:
        heard = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        passes = [~(1 << PACKET_TOO_BIG) & 0xFFFFFFFF, *[0xFFFFFFFF] * 7]
        heard.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("=8I", *passes))
    heard.bind((str(own), 0))
    return heard


def serve(own: Address, bridge: str, port: str) -> None:
    """Pass messages on for ever."""
    heard, second, left = listen(own), 0, 0
    while True:
        data = heard.recv(2048)
        told = understand(data[(data[0] & 15) * 4 :] if own.version == 4 else data, own)
        now = int(time.monotonic())
        if now != second:
            second, left = now, PER_SECOND
        if told is None or not left:
            continue
        left -= 1
        argv = ["ovs-ofctl", "-O", "OpenFlow15", "packet-out", bridge, packet_out(told, own, port)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"qnet-path-mtu: a pod was not told: {done.stderr.strip()}", file=sys.stderr, flush=True)


def main() -> None:
    """Entry point."""
    if len(sys.argv) not in (2, 4):
        sys.exit("usage: qnet-path-mtu VTEP [BRIDGE PORT]")
    bridge, port = sys.argv[2:] or (BRIDGE, PORT)
    serve(ipaddress.ip_address(sys.argv[1]), bridge, port)


if __name__ == "__main__":
    main()
