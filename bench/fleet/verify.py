# SPDX-License-Identifier: Apache-2.0
"""Whether what came back answers what was asked: every message is read by the second decoder and judged by the plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from . import decode, intent, wire
from .decode import FlowMod, Key, PacketOut

REG0, REG1, REG2 = 0x00010000, 0x00010200, 0x00010400
IN_PORT, ETH_DST, IPV4_DST = 0x80000000, 0x80000600, 0x80001800
TUN_DST, TUN_ID = 0x00014000, 0x80004C00
_COOKIE_MAGIC = 0x71


@dataclass(frozen=True, slots=True)
class Tables:
    """The numbers of the tables that verification looks into (docs/design/pipeline.md)."""

    plan: int
    location: int
    ask: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A packet-in from a pod: its frame, the port it came from, the group that asks and the destination."""

    frame: bytes
    in_port: int
    group: int
    target: bytes


@dataclass(slots=True)
class Judgement:
    """What was found; `faults` is empty when every packet-in has been answered rightly."""

    allowed: int = 0
    refused: int = 0
    flow_mods: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Something is wrong."""
        self.faults.append(text)


class Judge:
    """Follows one switch of our controller: what it holds, and whether answers are right by then."""

    def __init__(self, plan: intent.Plan, switch: int, tables: Tables) -> None:
        self._plan = plan
        self._switch = switch
        self._tables = tables
        self._pairs: dict[tuple[int, bytes], FlowMod] = {}
        self._ways: dict[bytes, FlowMod] = {}
        self._held: dict[Key, FlowMod] = {}

    def judge(self, asked: Iterable[Asked], said: Iterable[bytes]) -> Judgement:
        """Judge the messages `said` as answers to `asked`."""
        found = Judgement()
        waiting = {one.frame: one for one in asked}
        denied: dict[tuple[int, bytes], list[Asked]] = {}
        for one in waiting.values():
            if not self._plan.allowed(one.group, one.target):
                denied.setdefault((one.group, one.target), []).append(one)
        for message in said:
            try:
                self._hear(message, waiting, denied, found)
            except (decode.Malformed, IndexError, ValueError) as error:
                found.fault(f"malformed: {error}")
        for one in waiting.values():
            found.fault(f"no answer for group {one.group} to {one.target.hex()}")
        return found

    def _hear(
        self,
        message: bytes,
        waiting: dict[bytes, Asked],
        denied: dict[tuple[int, bytes], list[Asked]],
        found: Judgement,
    ) -> None:
        if message[1] == wire.FLOW_MOD:
            flow = decode.flow_mod(message[8:])
            found.flow_mods += 1
            pair = self._take(flow, found)
            if flow.key.table == self._tables.plan and flow.drops and flow.command == decode.ADD and pair is None:
                self._refuse_scope(flow, waiting, denied, found)
            if pair is not None and flow.drops and flow.command == decode.ADD:
                asked = denied.get(pair)
                if asked:
                    waiting.pop(asked.pop().frame, None)
                    found.refused += 1
        elif message[1] == wire.PACKET_OUT:
            self._let_go(decode.packet_out(message[8:], wire.OPENFLOW_15), waiting, found)

    def _refuse_scope(
        self,
        flow: FlowMod,
        waiting: dict[bytes, Asked],
        denied: dict[tuple[int, bytes], list[Asked]],
        found: Judgement,
    ) -> None:
        """A refusal that covers more than a pair answers all that is waiting in it."""
        group = int.from_bytes((flow.key.value(REG1) or bytes(4))[:4], "big") - 1
        target = flow.key.value(IPV4_DST) or bytes(8)
        block, mask = int.from_bytes(target[:4], "big"), int.from_bytes(target[4:], "big")
        for (asking, address), asked in denied.items():
            if asking == group and int.from_bytes(address, "big") & mask == block:
                for one in asked:
                    found.refused += waiting.pop(one.frame, None) is not None
                asked.clear()

    def _take(self, flow: FlowMod, found: Judgement) -> tuple[int, bytes] | None:
        """Take a flow into the tables; returns the (group, destination) of a pod's plan flow."""
        if flow.command == decode.ADD and flow.cookie >> 56 != _COOKIE_MAGIC:
            found.fault(f"a flow without our cookie in table {flow.key.table}")
        target = flow.key.value(IPV4_DST)
        pair = None
        if flow.key.table == self._tables.plan and target and len(target) == 4 and flow.goto != self._tables.ask:
            registers = [flow.key.value(number) for number in (REG0, REG1, REG2)]
            vni, group, origin = (int.from_bytes(value[:4], "big") if value else -1 for value in registers)
            if vni == intent.VNI and origin == 0:
                pair = (group - 1, target)
        if flow.command == decode.ADD:
            self._held[flow.key] = flow
            if pair is not None:
                self._pairs[pair] = flow
                if flow.drops == self._plan.allowed(*pair):
                    found.fault(f"group {pair[0]} to {target.hex() if target else ''} is judged wrongly")
            elif flow.key.table == self._tables.location and target is not None:
                self._ways[target] = flow
        else:
            self._held.pop(flow.key, None)
        return pair

    def _let_go(self, packet: PacketOut, waiting: dict[bytes, Asked], found: Judgement) -> None:
        asked = waiting.pop(packet.data, None)
        if asked is None:
            found.fault("a packet-out of a packet that nobody sent, or the second one for it")
            return
        found.allowed += 1
        if packet.in_port != asked.in_port:
            found.fault(f"a packet from port {asked.in_port} goes on from {packet.in_port}")
        if not packet.actions or decode.resubmit_table(packet.actions[-1]) != self._tables.plan:
            found.fault("a packet-out that does not go through the plan")
        if not self._plan.allowed(asked.group, asked.target):
            found.fault(f"group {asked.group} reaches {asked.target.hex()}")
        flow = self._pairs.get((asked.group, asked.target))
        if flow is None or flow.drops:
            found.fault(f"a packet goes on before the flow of group {asked.group} to {asked.target.hex()}")
        pod = self._plan.by_address.get(asked.target)
        if pod is not None and pod.switch != self._switch:
            self._check_way(pod, found)

    def _check_way(self, pod: intent.Pod, found: Judgement) -> None:
        way = self._ways.get(pod.address)
        vtep = int.from_bytes(self._plan.hosts[pod.switch].vtep, "big")
        if way is None or decode.written(way, TUN_DST) != vtep or decode.written(way, TUN_ID) != intent.VNI:
            found.fault(f"no way, or a wrong one, to {pod.address.hex()}")


def judge_learning(asked: Iterable[Asked], said: Iterable[bytes], port_of: dict[bytes, int], version: int) -> Judgement:
    """Judge a learning switch: each packet goes out of its destination's port, and a flow-mod says so as well.

    `target` of what is asked is a MAC here. A learning switch may let go of a packet only by the port it has learned.
    """
    found = Judgement()
    waiting = {one.frame: one for one in asked}
    flows: dict[bytes, int | None] = {}
    for message in said:
        try:
            if message[1] == wire.FLOW_MOD:
                flow = decode.flow_mod(message[8:])
                target = flow.key.value(ETH_DST)
                if target is not None and flow.actions:
                    found.flow_mods += 1
                    flows[target] = decode.output_port(flow.actions[-1])
            elif message[1] == wire.PACKET_OUT:
                packet = decode.packet_out(message[8:], version)
                one = waiting.pop(packet.data, None)
                if one is None:
                    found.fault("a packet-out of a packet that nobody sent")
                elif [decode.output_port(action) for action in packet.actions] != [port_of[one.target]]:
                    found.fault("a packet goes out of a wrong port")
                elif flows.get(one.target) != port_of[one.target]:
                    found.fault("no flow to the packet's destination")
                else:
                    found.allowed += 1
        except decode.Malformed as error:
            found.fault(f"malformed: {error}")
    for _ in waiting:
        found.fault("no answer")
    return found
