# SPDX-License-Identifier: Apache-2.0
"""What qnet-path-mtu makes of messages about too large packets. Built and read with the codec's packet library."""

from __future__ import annotations

import importlib.util
import ipaddress
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet, icmp, icmpv6, in_proto, ipv4, ipv6, packet, udp, vxlan

PROGRAM = Path(__file__).resolve().parents[2] / "roles/underlay/files/qnet_path_mtu.py"
OWN = {4: "192.0.2.1", 6: "2001:db8::1"}
OTHER = {4: "198.51.100.2", 6: "2001:db8:1::2"}
POD, PEER = {4: "10.10.0.2", 6: "fd10::2"}, {4: "10.10.0.3", 6: "fd10::3"}
MACS = ("02:00:00:00:00:02", "0a:00:00:00:00:01")


def load() -> ModuleType:
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("qnet_path_mtu", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


path_mtu = load()


def header(version: int, source: str, target: str, protocol: int) -> ipv4.ipv4 | ipv6.ipv6:
    if version == 4:
        return ipv4.ipv4(src=source, dst=target, proto=protocol, flags=2)
    return ipv6.ipv6(src=source, dst=target, nxt=protocol)


def frame(inner: int, *content: packet.packet_base.PacketBase | bytes, protocol: int = in_proto.IPPROTO_UDP) -> bytes:
    """What a pod has sent."""
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(dst=MACS[1], src=MACS[0], ethertype=0x0800 if inner == 4 else 0x86DD))
    made.add_protocol(header(inner, POD[inner], PEER[inner], protocol))
    for part in content or (udp.udp(src_port=5000, dst_port=6000), b"x" * 1000):
        made.add_protocol(part)
    made.serialize()
    return bytes(made.data)


def tunnelled(outer: int, content: bytes, port: int = 4789, source: str = "") -> bytes:
    """The packet of a tunnel around it."""
    made = packet.Packet()
    made.add_protocol(header(outer, source or OWN[outer], OTHER[outer], in_proto.IPPROTO_UDP))
    made.add_protocol(udp.udp(src_port=50000, dst_port=port))
    made.add_protocol(bytes(vxlan.vxlan(vni=100).serialize(b"", None)) + content)
    made.serialize()
    return bytes(made.data)


def said(outer: int, mtu: int, quoted: bytes) -> bytes:
    """The message of a router, from the ICMP header on."""
    if outer == 4:
        return b"\x03\x04\0\0\0\0" + mtu.to_bytes(2, "big") + quoted[:548]
    return b"\x02\0\0\0" + mtu.to_bytes(4, "big") + quoted[:1232]


@pytest.mark.parametrize(("outer", "overhead"), [(4, 50), (6, 70)])
@pytest.mark.parametrize("inner", [4, 6])
def test_the_pod_gets_the_message_from_its_peer(outer: int, overhead: int, inner: int) -> None:
    sent = frame(inner)
    own = ipaddress.ip_address(OWN[outer])
    told = path_mtu.understand(said(outer, 1400, tunnelled(outer, sent)), own)
    assert (str(told.vtep), told.vni) == (OTHER[outer], 100)
    got = packet.Packet(told.frame)
    link, network, message = got.protocols[0], got.protocols[1], got.protocols[2]
    assert (link.dst, link.src) == MACS
    assert (network.src, network.dst) == (PEER[inner], POD[inner])
    if inner == 4:
        assert (message.type, message.code, message.data.mtu) == (3, 4, 1400 - overhead)
        assert path_mtu.checksum(told.frame[14:34]) == 0
        assert path_mtu.checksum(told.frame[34:]) == 0
        quoted = told.frame[42:]
    else:
        assert (message.type_, message.code) == (icmpv6.ICMPV6_PACKET_TOO_BIG, 0)
        assert int.from_bytes(told.frame[58:62], "big") == 1400 - overhead
        rest = told.frame[54:]
        pseudo = told.frame[22:54] + len(rest).to_bytes(4, "big") + b"\0\0\0\x3a"
        assert path_mtu.checksum(pseudo + rest) == 0
        quoted = told.frame[62:]
    assert sent[14:].startswith(quoted)
    assert len(quoted) >= 40 + 8


def test_no_pod_is_told_less_than_every_path_must_carry() -> None:
    own = ipaddress.ip_address(OWN[4])
    for inner, least, where in ((4, 576, slice(40, 42)), (6, 1280, slice(58, 62))):
        told = path_mtu.understand(said(4, 300, tunnelled(4, frame(inner))), own)
        assert int.from_bytes(told.frame[where], "big") == least


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("an unreachable port", b"\x03\x03" + said(4, 1400, tunnelled(4, frame(4)))[2:]),
        ("a router that does not say how much", said(4, 0, tunnelled(4, frame(4)))),
        ("something other than a tunnel", said(4, 1400, tunnelled(4, frame(4), port=53))),
        ("a packet of somebody else", said(4, 1400, tunnelled(4, frame(4), source="192.0.2.9"))),
        ("a quotation that ends before the pod's ports", said(4, 1400, tunnelled(4, frame(4))[: 50 + 20 + 7])),
        (
            "an error about an error",
            said(4, 1400, tunnelled(4, frame(4, icmp.icmp(3, 4), b"x" * 64, protocol=in_proto.IPPROTO_ICMP))),
        ),
    ],
)
def test_nobody_is_told(what: str, message: bytes) -> None:
    assert path_mtu.understand(message, ipaddress.ip_address(OWN[4])) is None, what


@given(st.sampled_from([4, 6]), st.binary(max_size=200))
def test_any_bytes_are_survived(outer: int, rest: bytes) -> None:
    own = ipaddress.ip_address(OWN[outer])
    path_mtu.understand(rest, own)
    whole = said(outer, 1400, tunnelled(outer, frame(4)))
    for cut in range(0, len(whole), 7):
        path_mtu.understand(whole[:cut] + rest[: len(whole) - cut], own)
    path_mtu.understand(said(outer, 1400, rest), own)
