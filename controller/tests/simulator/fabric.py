# SPDX-License-Identifier: Apache-2.0
"""Hosts joined by VXLAN, each a simulated switch driven by a real `SwitchProgram`.

`Controller` is what the I/O layers are in production: it feeds events into models and programs and carries the
commands out. `Fabric` carries packets between pods and hosts.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from qnet_controller.controller.far_end import ends
from qnet_controller.controller.metrics import Metrics
from qnet_controller.controller.rotation import Rotation
from qnet_controller.model.model import Model, Touches
from qnet_controller.model.objects import Change, Pod, Removed
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.connections import Ends, concerned, cut, groups_of, users_of, zones
from qnet_controller.pipeline.demands import Pair, Settings
from qnet_controller.pipeline.program import SwitchProgram

from .conntrack import Datapath
from .packets import (
    ACK,
    ADVERTISEMENT,
    ICMP,
    SYN,
    TARGET_OPTION,
    TCP,
    Packet,
    arp_request,
    between,
    echo,
    is_ipv6,
    reply_to,
    solicitation,
    tcp,
)
from .switch import Asked, Emission, Outcome, Switch

TUNNEL_PORT = "qnet-vxlan"
OUTSIDE_PORT = "qnet-out"
VIRTUAL_MAC = 0x0A0000000001
START = 1_800_000_000.0


class Clock:
    """Time that moves only when told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        """Unix seconds."""
        return self.now


@dataclass(frozen=True, slots=True)
class Delivery:
    """A packet that a pod received."""

    pod: str
    packet: Packet


@dataclass(slots=True)
class Node:
    """One host."""

    name: str
    vtep: int
    switch: Switch
    program: SwitchProgram
    next_port: int = 2
    asked: Counter[int] = field(default_factory=Counter)  # packets to the controller, by the port they came from


Waiting = deque[tuple[Node, Callable[[], tuple[list[Outcome], list[str]]]]]
"""What is still to happen: at which node, and the call that makes it happen."""


class Fabric:
    """Several hosts and the one controller that is master of all of them.

    `intent` holds the objects as the database would; `apply` changes it and the model together. `foretells`: the other
    end of a call is told, as when one controller is master of both.
    """

    def __init__(self, hosts: dict[str, tuple[int, int]], settings: Settings, datapath: Datapath = "netdev") -> None:
        """`hosts`: name → (datapath id, VTEP address as an integer)."""
        self.clock = Clock()
        self.settings = settings
        self.model = Model()
        self._rotation = Rotation(self.model, Metrics())
        self.intent: dict[tuple[type, str], Change] = {}
        self.nodes: dict[str, Node] = {}
        self.trace: list[str] = []
        self.foretells = True
        self._concerned: set[str] = set()
        self.commands: list[tuple[str, m.Command]] = []
        self.observers: list[Callable[[Node, list[m.Command]], None]] = []
        for name, (datapath_id, vtep) in hosts.items():
            switch = Switch(datapath_id, datapath, self.clock)
            switch.ports[1] = TUNNEL_PORT
            self.nodes[name] = Node(name, vtep, switch, SwitchProgram(self.model, datapath_id, settings))
        for node in self.nodes.values():
            self._connect(node)

    # -- the controller ----------------------------------------------------------------------------------------

    def apply(self, changes: Iterable[Change]) -> None:
        """Change the intent."""
        changes = list(changes)
        for change in changes:
            if isinstance(change, Removed):
                self.intent.pop((change.kind, change.key), None)
            else:
                self.intent[type(change), change.key] = change
        self._concerned |= concerned(self.model, changes)
        self._refresh(self.model.apply(changes))

    def forget(self) -> set[Ends]:
        """Look the connections up that the changes since the last time may have ended, and forget those that have.

        In production that follows the tables as soon as they are confirmed; returns what was open.
        """
        groups, self._concerned = frozenset(self._concerned), set()
        found: set[Ends] = set()
        for node in self.nodes.values():
            where = zones(self.model, node.switch.datapath_id, groups)
            listed = [item for item in node.switch.conntrack.listed(self.clock.now) if item.zone in where]
            over = cut(self.model, node.switch.datapath_id, listed, self.clock.now)
            found |= over.open
            for other in self.nodes.values():
                self._send(other, over.flushes.get(other.switch.datapath_id, ()))
        return found

    def _refresh(self, touched: Touches) -> None:
        self._concerned |= self._rotation.review(touched)
        for node in self.nodes.values():
            self._send(node, node.program.refresh(touched, self.clock.now))

    def _send(self, node: Node, commands: Iterable[m.Command]) -> None:
        commands = list(commands)
        self.commands += [(node.name, command) for command in commands]
        node.switch.execute(commands)
        for observer in self.observers:
            observer(node, commands)
        self._settle(node)

    def _settle(self, node: Node) -> None:
        for _ in range(100):
            removed = node.switch.take_removed()
            if not removed:
                return
            for notice in removed:
                commands = node.program.flow_removed(notice, self.clock.now)
                self.commands += [(node.name, command) for command in commands]
                node.switch.execute(commands)
        raise AssertionError(f"{node.name}: flow-removed messages never end")

    def _connect(self, node: Node) -> None:
        ports = [(number, name, True) for number, name in node.switch.ports.items()]
        touched = self.model.switch_ports(node.switch.datapath_id, ports)
        self._send(node, node.program.adopt(node.switch.dump(), self.clock.now))
        for other in self.nodes.values():
            if other is not node:
                self._send(other, other.program.refresh(touched, self.clock.now))

    def restart_controller(self, chooser: random.Random) -> None:
        """A new process: same intent in another order, locations from the switches, flows adopted."""
        objects = list(self.intent.values())
        chooser.shuffle(objects)
        # Where a pod has ports on two switches, the newest one counts; only the old process saw which that is.
        order = sorted(self.nodes.values(), key=lambda node: node.name)
        self.model = Model()
        self._rotation = Rotation(self.model, Metrics())
        touched = self.model.apply(objects)
        for node in order:
            ports = [(number, name, True) for number, name in node.switch.ports.items()]
            touched |= self.model.switch_ports(node.switch.datapath_id, ports)
        self._rotation.review(touched)
        for node in order:
            node.program = SwitchProgram(self.model, node.switch.datapath_id, self.settings)
            self._send(node, node.program.adopt(node.switch.dump(), self.clock.now))

    def restart_switch(self, host: str) -> None:
        """The host's switch restarts with empty tables, without connections, and connects again."""
        node = self.nodes[host]
        node.switch.power_cycle()
        self._connect(node)

    # -- pods --------------------------------------------------------------------------------------------------

    def plug(self, pod: Pod, host: str) -> None:
        """The pod's port appears on a host."""
        node = self.nodes[host]
        number, node.next_port = node.next_port, node.next_port + 1
        node.switch.ports[number] = pod.port_name
        self._refresh(self.model.port_seen(node.switch.datapath_id, number, pod.port_name, True))

    def unplug(self, pod: Pod, host: str) -> None:
        """The pod's port goes away."""
        self.pull(*self.port(pod, host))

    def pull(self, node: Node, number: int) -> None:
        """A port goes away, whoever it was for."""
        del node.switch.ports[number]
        self._refresh(self.model.port_gone(node.switch.datapath_id, number))

    def set_link(self, pod: Pod, live: bool) -> None:
        """The pod's port loses its link, or has it again."""
        node, number = self.port(pod)
        self._refresh(self.model.port_seen(node.switch.datapath_id, number, pod.port_name, live))

    def move(self, pod: Pod, source: str, target: str) -> None:
        """The pod moves: its new port appears, then the old one goes."""
        self.plug(pod, target)
        self.unplug(pod, source)

    def port(self, pod: Pod, host: str | None = None) -> tuple[Node, int]:
        """Where the pod's port is; with several, the newest."""
        found = [
            (node, number)
            for node in self.nodes.values()
            if host in (None, node.name)
            for number, name in node.switch.ports.items()
            if name == pod.port_name
        ]
        if not found:
            raise LookupError(f"{pod.key} has no port" + (f" on {host}" if host else ""))
        return found[-1]

    # -- time --------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Let time pass: flows age, exports end."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            expiry = self.model.next_expiry(self.clock.now)
            due = min([end, *([expiry] if expiry else []), *(n.switch.next_expiry() for n in self.nodes.values())])
            since, self.clock.now = self.clock.now, max(due, self.clock.now)
            for node in self.nodes.values():
                node.switch.age()
                self._settle(node)
            gone = (e for e in self.model.exports.values() if e.expires and since < e.expires <= self.clock.now)
            self._concerned |= {group for export in gone for group in groups_of(export)}
            drained, touched = self.model.end_drains(self.clock.now)
            self._concerned |= {group for pod in drained for group in users_of(self.model, pod.service)}
            self._refresh(touched)
            self._refresh(self.model.expired(since, self.clock.now))

    def open_outside(self) -> None:
        """Every host gets its way out; what leaves there is delivered to `OUTSIDE_PORT`."""
        for node in self.nodes.values():
            number, node.next_port = node.next_port, node.next_port + 1
            node.switch.ports[number] = OUTSIDE_PORT
            self._refresh(self.model.port_seen(node.switch.datapath_id, number, OUTSIDE_PORT, True))

    def from_outside(self, host: str, packet: Packet) -> list[Delivery]:
        """What the kernel of a host sends to its pods."""
        node = self.nodes[host]
        number = next(number for number, name in node.switch.ports.items() if name == OUTSIDE_PORT)
        return self.inject(node, number, packet)

    # -- packets -----------------------------------------------------------------------------------------------

    def send(self, pod: Pod, packet: Packet) -> list[Delivery]:
        """Send a packet as the pod; returns who received what. Ethernet addresses are filled in when zero."""
        node, number = self.port(pod)
        packet = packet.copy()
        packet.eth_src = packet.eth_src or int.from_bytes(pod.mac, "big")
        packet.eth_dst = packet.eth_dst or VIRTUAL_MAC
        return self.inject(node, number, packet)

    def inject(self, node: Node, port: int, packet: Packet, tunnel: dict[str, int] | None = None) -> list[Delivery]:
        """Let a packet arrive at a port; returns everything that pods received because of it."""
        self.trace = []
        deliveries: list[Delivery] = []
        waiting: Waiting = deque()
        waiting.append((node, lambda: node.switch.receive(packet, port, tunnel)))
        for _ in range(50):
            if not waiting:
                return deliveries
            here, event = waiting.popleft()
            outcomes, trace = event()
            self.trace += trace
            for outcome in outcomes:
                match outcome:
                    case Asked(message):
                        self._ask(here, message, waiting)
                    case Emission():
                        self._carry(here, outcome, deliveries, waiting)
        raise AssertionError("a packet went round in circles:\n" + "\n".join(self.trace))

    def _ask(self, node: Node, message: m.PacketIn, waiting: Waiting) -> None:
        node.asked[message.fields["in_port"]] += 1
        answer = node.program.packet_in(message, self.clock.now)
        self.trace.append(f"{node.name}: asked {message.fields} -> {answer.kind.name}, {len(answer.commands)} commands")
        if answer.call is not None and self.foretells:
            self._foretell(node, *answer.call)
        self._send(node, answer.commands)
        if answer.packet_out is not None:
            out = answer.packet_out
            waiting.append((node, lambda: node.switch.packet_out(out)))

    def _foretell(self, caller: Node, pair: Pair, source: bytes) -> None:
        """What the controller tells the other end when it is master there too."""
        for datapath_id, arriving in ends(self.model, pair):
            node = next(node for node in self.nodes.values() if node.switch.datapath_id == datapath_id)
            if node is not caller:
                self._send(node, node.program.foresee([arriving], [source], self.clock.now))

    def _carry(self, node: Node, emission: Emission, deliveries: list[Delivery], waiting: Waiting) -> None:
        name = node.switch.ports[emission.port]
        if name != TUNNEL_PORT:
            deliveries.append(Delivery(name, emission.packet))
            return
        target = next((n for n in self.nodes.values() if n.vtep == emission.tun_dst), None)
        self.trace.append(f"{node.name}: tunnel to {target.name if target else hex(emission.tun_dst)}")
        if target is not None:
            number = next(number for number, name in target.switch.ports.items() if name == TUNNEL_PORT)
            family = "ipv6_" if is_ipv6(node.vtep) else ""
            ends = {f"tun_{family}src": node.vtep, f"tun_{family}dst": emission.tun_dst}
            outer = {"tun_id": emission.tun_id, **ends}
            waiting.append((target, lambda: target.switch.receive(emission.packet, number, outer)))

    def asked(self) -> int:
        """How many packets went to the controller so far, from all hosts."""
        return sum(node.asked.total() for node in self.nodes.values())

    def resolve(self, pod: Pod, sender: int, target: int) -> int | None:
        """The MAC address that ARP or ND gives the pod for `target`; None without an answer."""
        ask = solicitation if is_ipv6(target) else arp_request
        answers = self.send(pod, ask(int.from_bytes(pod.mac, "big"), sender, target))
        if not answers:
            return None
        (answer,) = answers
        reply = answer.packet
        if reply.is_nd:
            said = (reply.icmp_type, reply.icmp_code, reply.source, reply.target, reply.nd_target, reply.nd_option)
            flags = (reply.nd_flags, reply.eth_src, reply.eth_dst)
            wanted = (0xE0000000, VIRTUAL_MAC, int.from_bytes(pod.mac, "big"))
            if said != (ADVERTISEMENT, 0, target, sender, target, TARGET_OPTION) or flags != wanted:
                raise AssertionError(f"ND for {target:#x} was answered wrongly: {answer}")
            return reply.nd_mac
        if answer.pod != pod.port_name or (reply.arp_op, reply.arp_spa, reply.arp_tpa) != (2, target, sender):
            raise AssertionError(f"ARP for {target:#x} was answered wrongly: {answer}")
        return reply.arp_sha


@dataclass(slots=True)
class Session:
    """A connection from a pod to an address, as both ends see it.

    `server` is the port name of the pod that received the first packet, None when nobody did.
    """

    fabric: Fabric
    client: Pod
    first: Packet
    server: str | None = None
    at_server: Packet | None = None

    def forward(self, flags: int = ACK, payload: bytes = b"") -> list[Delivery]:
        """Send another packet of the client."""
        packet = self.first.copy()
        packet.tcp_flags, packet.payload = (flags if packet.ip_proto == TCP else 0), payload
        return self.fabric.send(self.client, packet)

    def backward(self, server: Pod, flags: int = ACK, payload: bytes = b"") -> list[Delivery]:
        """Send what the server would answer to what it saw."""
        assert self.at_server is not None
        return self.fabric.send(server, reply_to(self.at_server, flags, payload))

    def came_back(self, deliveries: list[Delivery]) -> bool:
        """Whether exactly the client received an answer, from the address and port it had asked."""
        if len(deliveries) != 1 or deliveries[0].pod != self.client.port_name:
            return False
        got, sent = deliveries[0].packet, self.first
        return (got.ip_proto, got.source, got.src_port, got.target, got.dst_port, got.icmp_id) == (
            sent.ip_proto, sent.target, sent.dst_port, sent.source, sent.src_port, sent.icmp_id,
        )  # fmt: skip


def first_packet(source: int, target: int, protocol: int, sport: int, port: int) -> Packet:
    """The first packet of a connection."""
    if protocol == TCP:
        return tcp(source, sport, target, port, SYN)
    if protocol == ICMP:
        return echo(source, target, sport)
    return between(source, target, protocol, src_port=sport, dst_port=port, payload=b"question")


def open_session(
    fabric: Fabric, client: Pod, source: int, target: int, protocol: int, sport: int, port: int
) -> Session:
    """Send the first packet of a connection and see who receives it."""
    first = first_packet(source, target, protocol, sport, port)
    session = Session(fabric, client, first)
    deliveries = fabric.send(client, first)
    if len(deliveries) > 1:
        raise AssertionError(f"one packet was delivered {len(deliveries)} times: {deliveries}")
    if deliveries:
        session.server, session.at_server = deliveries[0].pod, deliveries[0].packet
    return session
