# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes a packet that asks consists of: no exception, and nothing is let through that policy refuses.

The policy is written down here once more, for the one model of test_hot_path.py. QNET_FUZZ_EXAMPLES: how many packets.
"""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from property.test_hot_path import GROUPS, PODS, SWITCHES, address, asked, model
from qnet_controller.decide.decide import Kind, Origin
from qnet_controller.openflow import reading
from qnet_controller.pipeline.demands import Settings
from qnet_controller.pipeline.fields import IN_PORT, ORIGIN, SOURCE_GROUP, SOURCE_ZONE, VNI
from qnet_controller.pipeline.messages import Installed, PacketIn, Resubmit, Set
from qnet_controller.pipeline.program import Answer, SwitchProgram
from qnet_controller.pipeline.tables import Table

EXAMPLES = int(os.environ.get("QNET_FUZZ_EXAMPLES", "150"))
_EXPORTS = {(1, 0), (2, 1)}  # (caller's group, the group whose service it may call); group 2 also calls pods directly


def allowed(origin: int, group: int, target: bytes) -> bool:
    """Whether anything of a group may pass on to an address, as an own request or as an answer."""
    for number in range(GROUPS):
        related = group == number or (group, number) in _EXPORTS
        if target == address(200 + number):
            return related and origin == Origin.POD
        if target in {address(pod) for pod in range(PODS) if pod % GROUPS == number}:
            if origin == Origin.POD and (group, number) == (1, 0):
                return False  # over the Service IP only
            return related or (number, group) in _EXPORTS
    return False


def judge(packet: PacketIn, answer: Answer) -> None:
    """What goes on goes where its registers, as the switch has sent them, and its real addresses may go."""
    if answer.packet_out is None:
        return
    data = packet.data
    # Kind DROP goes on where an export names ports: those are looked at next, by the switch.
    assert answer.kind is not Kind.DROP or packet.table != Table.LOCATION
    assert answer.packet_out.data == data
    assert isinstance(answer.packet_out.actions[-1], Resubmit)
    target = data[30:34] if data[12:14] == b"\x08\x00" else data[38:54]
    restored = {a.target: a.value for a in answer.packet_out.actions if isinstance(a, Set)}
    if packet.table == Table.LOCATION:
        assert target in {address(pod) for pod in range(PODS)}
        return
    group, origin = restored[SOURCE_GROUP] - 1, restored[ORIGIN]
    assert allowed(origin, group, target), (packet, answer)
    if packet.table != Table.ADMISSION:
        assert group == (packet.fields["reg1"] & 0xFFFF) - 1


addresses = st.one_of(st.integers(0, 15), st.integers(198, 204)).map(address)
headers = st.builds(
    lambda kind, first, middle, source, target, rest: bytes(12) + kind + first + middle + source + target + rest,
    st.sampled_from((b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00")), st.sampled_from((b"E", b"F", b"`", b"\0")),
    st.binary(min_size=11, max_size=11), addresses, addresses, st.binary(max_size=40),
)  # fmt: skip
frames = st.one_of(st.binary(max_size=120), headers, headers)
registers = st.fixed_dictionaries({}, optional={
    VNI.field.name: st.one_of(st.just(7), st.integers(0, 0xFFFFFFFF)),
    SOURCE_GROUP.field.name: st.one_of(st.integers(0, 5), st.integers(0, 0xFFFFFFFF)),
    ORIGIN.field.name: st.one_of(st.sampled_from((0, 0x100)), st.integers(0, 0xFFFFFFFF)),
    SOURCE_ZONE.field.name: st.integers(0, 0xFFFFFFFF),
    IN_PORT.name: st.one_of(st.integers(0, 20), st.integers(0, 0xFFFFFFFF)),
    "tun_id": st.sampled_from((0, 7, 9)), "tun_src": st.sampled_from((0, 0xC0000201, 0xC0000202, 5)),
    "tun_ipv6_src": st.integers(0, (1 << 128) - 1),
})  # fmt: skip
tables = st.one_of(st.sampled_from([int(table) for table in Table]), st.integers(0, 255))
plausible = st.fixed_dictionaries({
    VNI.field.name: st.just(7), SOURCE_GROUP.field.name: st.integers(1, GROUPS),
    ORIGIN.field.name: st.sampled_from((0, 0x100)), SOURCE_ZONE.field.name: st.integers(10, 10 + PODS),
    "tun_id": st.just(7), "tun_src": st.sampled_from((0xC0000201, 0xC0000202)),
})  # fmt: skip
asking = st.sampled_from(
    (int(Table.ADMISSION), int(Table.PLAN), int(Table.LOCATION), int(Table.ASK), int(Table.BROADCAST))
)
packets = st.one_of(st.builds(PacketIn, tables, frames, registers), st.builds(PacketIn, asking, headers, plausible))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(packets, min_size=1, max_size=12), st.sampled_from(SWITCHES))
def test_no_packet_breaks_a_decision_or_gets_through_one(some: list[PacketIn], switch: int) -> None:
    program = SwitchProgram(model(), switch, Settings())
    program.adopt(Installed((), frozenset(), {}), 0.0)
    for packet in some:
        judge(packet, program.packet_in(packet, 0.0))
    for (table, priority, matching), flow in program.flows.items():
        if table is Table.PLAN and priority == 100 and flow.actions:
            terms = {name: (value, mask) for name, value, mask in matching}
            target = terms.get("ipv4_dst", (0, 0))[0].to_bytes(4, "big")
            assert allowed(terms["reg2"][0] >> 8, terms["reg1"][0] - 1, target), flow


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, PODS - 1), st.integers(0, 255), st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255))))
def test_a_packet_of_a_pod_with_bytes_changed_is_read_or_refused(
    pod: int, target: int, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(asked(pod, target))
    before = len(data)
    for place, value in changes:
        frame = before - (14 + 20 + 20) + place  # within the frame: what comes before it is the switch's own
        if frame < before:
            data[frame] = value
    program = SwitchProgram(model(), SWITCHES[pod % 2], Settings())
    program.adopt(Installed((), frozenset(), {}), 0.0)
    packet = reading.packet_in(bytes(data))
    judge(packet, program.packet_in(packet, 0.0))
