# SPDX-License-Identifier: Apache-2.0
"""What the switches ask: packets of pods for our controller, packets between learned MACs for learning switches."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from . import intent, wire
from .verify import Asked

_REFUSALS = 2  # the second one is refused with all that is like it
_VIRTUAL_MAC = bytes.fromhex("0a0000000001")


@dataclass(slots=True)
class Numbers:
    """Makes every packet unlike every other: the payload has a number."""

    last: int = 0

    def payload(self) -> bytes:
        """The next payload, of 32 bytes."""
        self.last += 1
        return self.last.to_bytes(8, "big") + bytes(24)


class Asking:
    """First packets of the pods of one switch: no pair (group, destination) comes twice until all have come.

    A group asks for at most `_REFUSALS` illegal pairs at a time: after so many all else that is illegal is refused
    by the switch, without asking.
    """

    def __init__(self, plan: intent.Plan, switch: int, plan_table: int, illegal: float = 0.0) -> None:
        self._plan = plan
        self._table = plan_table
        self._numbers = Numbers()
        self._chance = random.Random(switch)
        self._senders: dict[int, list[intent.Pod]] = {}
        for pod in plan.on_switch[switch]:
            self._senders.setdefault(pod.group, []).append(pod)
        self._illegal = illegal
        self._refused: Counter[int] = Counter()
        self.count, self._pairs = self._order()

    def _order(self) -> tuple[int, Iterator[tuple[int, bytes]]]:
        """Every legal pair that pods of the switch may ask for, in random order, and over again."""
        plan, legal = self._plan, list[tuple[int, bytes]]()
        pods_of: dict[int, list[intent.Pod]] = {}
        for pod in plan.pods:
            pods_of.setdefault(pod.group, []).append(pod)
        for group in self._senders:
            own = range(group, plan.size.services, plan.size.groups)
            legal += [(group, pod.address) for pod in pods_of[group]]
            legal += [(group, plan.service_address(service)) for service in own]
        legal += [
            (group, plan.service_address(service)) for service, group in sorted(plan.exports) if group in self._senders
        ]
        self._chance.shuffle(legal)

        def endless() -> Iterator[tuple[int, bytes]]:
            groups = sorted(self._senders)
            while True:
                for pair in legal:
                    while self._illegal and self._chance.random() < self._illegal:
                        group, other = self._chance.choice(groups), self._chance.choice(plan.pods)
                        if not plan.allowed(group, other.address) and self._refused[group] < _REFUSALS:
                            self._refused[group] += 1
                            yield group, other.address
                    yield pair

        return len(legal), endless()

    def take(self, count: int) -> tuple[list[bytes], list[Asked]]:
        """The next packet-ins, and what they ask."""
        self._refused.clear()
        made = [self._ask(*next(self._pairs)) for _ in range(count)]
        return [packet for packet, _ in made], [asked for _, asked in made]

    def about(self, pod: intent.Pod) -> tuple[bytes, Asked]:
        """The packet-in of a pod of the same group that asks for `pod`."""
        return self._ask(pod.group, pod.address)

    def _ask(self, group: int, target: bytes) -> tuple[bytes, Asked]:
        pod = self._chance.choice(self._senders[group])
        frame = wire.frame(pod.mac, _VIRTUAL_MAC, self._numbers.payload(), (pod.address, target))
        fields = wire.in_port(pod.port.number) + wire.registers((intent.VNI, group + 1, 0, pod.port.number))
        packet = wire.packet_in(self._table, wire.match(fields), frame, wire.OPENFLOW_15)
        return packet, Asked(frame, pod.port.number, group, target)


class Learning:
    """Packets between the MACs behind one switch's ports; `introduce` lets the controller learn them."""

    def __init__(self, switch: int, version: int, ports: int = 16, macs: int = 256) -> None:
        self._version = version
        self._numbers = Numbers()
        self._chance = random.Random(switch)
        self.port_of = {bytes((2, 0, 0, switch, *divmod(mac, 256))): 1 + mac % ports for mac in range(macs)}
        self._macs = list(self.port_of)

    def _packet(self, source: bytes, target: bytes) -> tuple[bytes, Asked]:
        port = self.port_of[source]
        frame = wire.frame(source, target, self._numbers.payload())
        return wire.packet_in(0, wire.match(wire.in_port(port)), frame, self._version), Asked(frame, port, 0, target)

    def introduce(self) -> list[bytes]:
        """A packet from every MAC, to one that nobody has."""
        return [self._unknown(mac) for mac in self._macs]

    def _unknown(self, mac: bytes) -> bytes:
        frame = wire.frame(mac, b"\x02\xff\xff\xff\xff\xff", self._numbers.payload())
        return wire.packet_in(0, wire.match(wire.in_port(self.port_of[mac])), frame, self._version)

    def take(self, count: int) -> tuple[list[bytes], list[Asked]]:
        """The next packet-ins, and what they ask."""
        made = [self._packet(*self._ends()) for _ in range(count)]
        return [packet for packet, _ in made], [asked for _, asked in made]

    def _ends(self) -> tuple[bytes, bytes]:
        """Two MACs behind different ports: what stays behind one is dropped, not sent back."""
        while True:
            source, target = self._chance.sample(self._macs, 2)
            if self.port_of[source] != self.port_of[target]:
                return source, target
