# SPDX-License-Identifier: Apache-2.0
"""Flows of the simulated switch on a real one, and the way that `ofproto/trace` says packets take through them."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import replace

from contract.real import Vswitch
from qnet_controller.openflow import wire
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.text import value_text
from simulator import packets as p
from simulator.switch import Flight
from simulator.switch import Switch as Simulated

HELLO, ERROR, BARRIER_REQUEST, BARRIER_REPLY = 0, 1, 20, 21
FLAGS = (
    (0x01, "new"),
    (0x02, "est"),
    (0x04, "rel"),
    (0x08, "rpl"),
    (0x10, "inv"),
    (0x20, "trk"),
    (0x40, "snat"),
    (0x80, "dnat"),
)
STEP = re.compile(r"^ *(\d+)\. (?:.*?priority (\d+)|.*?No match|.*)")


class Wire:
    """A plain OpenFlow 1.5 connection to the switch: sends what `wire` makes, returns the errors."""

    def __init__(self, ovs: Vswitch) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(ovs.directory / f"{ovs.bridge}.mgmt"))
        self._socket.sendall(wire.message(HELLO, bytes([0, 1, 0, 8, 0, 0, 0, 0x40]), 0))

    def send(self, commands: Iterable[m.Command]) -> list[tuple[int, int]]:
        """The (type, code) of every error."""
        for command in commands:
            for kind, body in wire.encode_command(command):
                self._socket.sendall(wire.message(kind, body, 1))
        self._socket.sendall(wire.message(BARRIER_REQUEST, b"", 2))
        errors = []
        while True:
            _, kind, length, _ = struct.unpack("!BBHI", self._read(8))
            body = self._read(length - 8)
            if kind == ERROR:
                errors.append(struct.unpack("!HH", body[:4]))
            elif kind == BARRIER_REPLY:
                return errors

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            assert more, "the switch hung up"
            data += more
        return data


def spec(packet: p.Packet, port: int, tunnel: dict[str, int]) -> str:
    """The packet as a flow for ofproto/trace."""
    terms = [f"in_port={port}", *(f"{name}={value_text(name, value)}" for name, value in tunnel.items())]
    if packet.eth_type == p.ETH_ARP:
        terms += [
            "arp",
            f"arp_op={packet.arp_op}",
            *(f"{n}={value_text(n, getattr(packet, n))}" for n in ("arp_spa", "arp_tpa", "arp_sha")),
        ]
    else:
        six = packet.eth_type == p.ETH_IPV6
        protocol = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp", 132: "sctp"}[packet.ip_proto]
        family, field = ("ipv6", "ipv6_src") if six else ("nw", "ipv4_src")
        terms += [protocol + ("6" if six else "")]
        terms += [
            f"{family}_src={value_text(field, packet.source)}",
            f"{family}_dst={value_text(field, packet.target)}",
        ]
        if packet.has_ports:
            terms += [f"{protocol}_src={packet.src_port}", f"{protocol}_dst={packet.dst_port}"]
        else:
            terms += [f"{'icmpv6' if six else 'icmp'}_type={packet.icmp_type}"]
        if packet.is_nd:
            terms += ["icmpv6_code=0", f"nd_target={value_text('nd_target', packet.nd_target)}"]
            option = {p.SOURCE_OPTION: "nd_sll", p.TARGET_OPTION: "nd_tll"}.get(packet.nd_option)
            terms += [f"{option}={value_text(option, packet.nd_mac)}"] if option else []
    return ",".join([*terms, *(f"{n}={value_text(n, getattr(packet, n))}" for n in ("eth_src", "eth_dst"))])


def real_path(text: str) -> list[tuple[int, int]]:
    """The (table, priority) of every lookup in the output of ofproto/trace."""
    found = []
    for line in text.splitlines():
        step = STEP.match(line)
        if step:
            found.append((int(step[1]), int(step[2]) if step[2] else -1))
    return found


class Trace:
    """`ofproto/trace` over the control socket of ovs-vswitchd: one connection, no process for each trace."""

    def __init__(self, ovs: Vswitch) -> None:
        self._bridge = ovs.bridge
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(ovs.directory / "vswitchd.ctl"))
        self._decoder = json.JSONDecoder()

    def __call__(self, packet: p.Packet, port: int, tunnel: dict[str, int], states: list[int]) -> str:
        """What becomes of a packet whose lookups in conntrack give these states."""
        flags = [",".join(name for bit, name in FLAGS if state & bit) for state in states]
        nexts = [term for text in flags for term in ("--ct-next", text)]
        params = [self._bridge, spec(packet, port, tunnel), *nexts]
        self._socket.sendall(json.dumps({"method": "ofproto/trace", "params": params, "id": 0}).encode())
        text = ""
        while True:
            text += self._socket.recv(1 << 16).decode()
            try:
                answer, _ = self._decoder.raw_decode(text)
            except ValueError:
                continue
            assert answer["error"] is None, f"{params}: {answer['error']}"
            return str(answer["result"])

    def differs(self, packet: p.Packet, port: int, tunnel: dict[str, int], flight: Flight) -> str:
        """How the real way differs from that of the simulated switch; empty when it does not.

        A trace does not translate addresses, so the two are compared up to where the simulated switch did that.
        """
        text = self(packet, port, tunnel, flight.states)
        simulated, real = flight.path, real_path(text)
        if flight.changes:
            simulated, real = simulated[: flight.changes[0]], real[: flight.changes[0]]
        if simulated == real:
            return ""
        return f"{packet} at port {port} {tunnel}\nsimulated {simulated}, real {real}\n{text}"


class Mirror:
    """A real switch that holds what a simulated one holds; flows of it do not age."""

    def __init__(self, ovs: Vswitch) -> None:
        self._wire = Wire(ovs)
        self._flows: dict[m.FlowKey, m.Flow] = {}
        self._groups: dict[int, m.Group] = {}
        self._meters: dict[int, m.Meter] = {}

    def follow(self, switch: Simulated) -> None:
        """Make the real switch hold what the simulated one holds now, by the least number of messages."""
        flows = {key: replace(flow, idle_timeout=0, hard_timeout=0, notify=False) for key, flow in switch.flows.items()}
        groups, meters = switch.groups, switch.meters
        nested = [number for number, group in groups.items() if any(_uses_group(b) for b in group.buckets)]
        first = sorted(groups, key=lambda number: number in nested)
        commands: list[m.Command] = [
            *(m.DeleteFlow(key) for key in self._flows.keys() - flows.keys()),
            *(m.DeleteMeter(number) for number in self._meters if meters.get(number) != self._meters[number]),
            *(m.AddMeter(meter) for number, meter in meters.items() if self._meters.get(number) != meter),
            *(m.PutGroup(groups[n], exists=n in self._groups) for n in first if self._groups.get(n) != groups[n]),
            *(m.AddFlow(flow) for key, flow in flows.items() if self._flows.get(key) != flow),
            *(m.DeleteGroup(number) for number in self._groups.keys() - groups.keys()),
        ]
        assert self._wire.send(commands) == []
        self._flows, self._groups, self._meters = flows, groups, meters


def _uses_group(bucket: m.Bucket) -> bool:
    return any(isinstance(action, m.UseGroup) for action in bucket.actions)
