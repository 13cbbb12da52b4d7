# SPDX-License-Identifier: Apache-2.0
"""A small fixed fleet to show flows of: docs/design/pipeline.md is made from it.

Network `prod`. Group `fop` has the service `image` (two pods, Service IP 10.96.0.10) and `entry` (one pod), and reaches
203.0.113.0/24 outside on TCP port 443. Group `alice` has `resize` (one pod), which is exported to `fop` with its pods
and TCP port 80. Group `bob` has `crop`, and `fop/image` is exported to it.
"""

from __future__ import annotations

import hashlib

from qnet_controller.model import objects as o
from qnet_controller.pipeline.demands import Settings

from . import packets as p
from .fabric import Fabric, open_session

VTEPS = {"h1": 0xC0A80001, "h2": 0xC0A80002}
IPV6_BLOCK, ENTRY_IPV6 = 0xFD00_0010 << 96, (0xFD00_0010 << 96) + 2
WEB = 0xCB007100
IMAGE_IP, RESIZE_IP, NOBODY = 0x0A60000A, 0x0A60000B, 0x0A0A0007


def _bytes(address: int) -> bytes:
    return p.packed(address)


def _pod(key: str, service: str, *addresses: int) -> o.Pod:
    mark = hashlib.sha256(key.encode()).hexdigest()
    mac = bytes.fromhex("02" + mark[12:22])
    return o.Pod(key.partition("/")[2], service, "prod", mac, "qn" + mark[:12], tuple(map(_bytes, addresses)))


PODS = {
    pod.key: (pod, host)
    for pod, host in (
        (_pod("fop/entry-1", "fop/entry", 0x0A0A0002, ENTRY_IPV6), "h1"),
        (_pod("fop/image-1", "fop/image", 0x0A0A0003), "h1"),
        (_pod("fop/image-2", "fop/image", 0x0A0A0004), "h2"),
        (_pod("alice/resize-1", "alice/resize", 0x0A0A0005), "h2"),
        (_pod("bob/crop-1", "bob/crop", 0x0A0A0006), "h2"),
    )
}
INTENT: tuple[o.Object, ...] = (
    o.Network(
        "prod",
        100,
        (o.Subnet(_bytes(0x0A0A0000), 16), o.Subnet(_bytes(IPV6_BLOCK), 64)),
        (o.Subnet(_bytes(0x0A600000), 16),),
    ),
    o.SecurityGroup("fop", "fop", 1, frozenset({o.EgressRule(o.Subnet(_bytes(WEB), 24), o.PortRule(6, 443))}), True),
    *(o.SecurityGroup(name, name, number) for name, number in (("alice", 2), ("bob", 3))),
    o.Service("entry", "fop", "prod"),
    o.Service("image", "fop", "prod"),
    o.Service("resize", "alice", "prod"),
    o.Service("crop", "bob", "prod"),
    o.ServiceIP("main", "fop/image", "prod", _bytes(IMAGE_IP)),
    o.ServiceIP("main", "alice/resize", "prod", _bytes(RESIZE_IP), "client", 600),
    o.Export("alice/resize", "fop", frozenset({o.PortRule(6, 80)}), direct=True),
    o.Export("fop/image", "bob"),
    *(pod for pod, _ in PODS.values()),
)


def example() -> Fabric:
    """The fleet after some traffic."""
    hosts = {name: (int(hashlib.sha256(name.encode()).hexdigest()[:16], 16), vtep) for name, vtep in VTEPS.items()}
    fabric = Fabric(hosts, Settings())
    fabric.apply([o.Host(name, (_bytes(vtep),), hosts[name][0]) for name, vtep in VTEPS.items()])
    fabric.apply(INTENT)
    for pod, host in PODS.values():
        fabric.plug(pod, host)
    fabric.open_outside()
    entry, image, crop = (PODS[key][0] for key in ("fop/entry-1", "fop/image-2", "bob/crop-1"))
    for sport in range(10):
        open_session(fabric, crop, 0x0A0A0006, IMAGE_IP, p.TCP, 3000 + sport, 80)
        open_session(fabric, entry, 0x0A0A0002, IMAGE_IP, p.TCP, 1000 + sport, 80)
    open_session(fabric, entry, 0x0A0A0002, RESIZE_IP, p.TCP, 2000, 80)
    open_session(fabric, entry, 0x0A0A0002, 0x0A0A0005, p.TCP, 2001, 80)
    for number in range(4):
        open_session(fabric, entry, 0x0A0A0002, NOBODY + number, p.TCP, 2002, 80)
    open_session(fabric, image, 0x0A0A0004, 0x0A0A0002, p.TCP, 2003, 80)
    for place in (WEB + 9, WEB + 0x10009):
        fabric.send(entry, p.tcp(0x0A0A0002, 2004, place, 443, p.SYN))
    for sender, source in ((entry, 0x0A0A0002), (image, 0x0A0A0004)):
        packet = p.udp(source, 5353, 0xE00000FB, 5353)
        packet.eth_dst = 0x01005E0000FB
        fabric.send(sender, packet)
    stranger = {"tun_id": 100, "tun_src": 0x01020304, "tun_dst": VTEPS["h1"]}
    fabric.inject(fabric.nodes["h1"], 1, p.tcp(0x0A0A0006, 1, 0x0A0A0002, 80, p.SYN), stranger)
    return fabric
