# SPDX-License-Identifier: Apache-2.0
"""What is remembered on the hot path changes no byte: the same packets give the same messages without any memory."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_controller.controller import ahead
from qnet_controller.controller.switch import Switch
from qnet_controller.decide.decide import Origin
from qnet_controller.model import objects as o
from qnet_controller.model.model import Model
from qnet_controller.openflow import oxm, reading, wire
from qnet_controller.openflow.codec import Roles, SwitchError
from qnet_controller.openflow.outbox import Outbox
from qnet_controller.openflow.session import Session
from qnet_controller.pipeline import demands, service, ways
from qnet_controller.pipeline.demands import Settings
from qnet_controller.pipeline.fields import IN_PORT, ORIGIN, SOURCE_GROUP, SOURCE_ZONE, VNI
from qnet_controller.pipeline.messages import (
    AddFlow,
    Command,
    Commands,
    Installed,
    PacketIn,
    PacketOut,
    PutGroup,
    match,
)
from qnet_controller.pipeline.program import SwitchProgram
from qnet_controller.pipeline.standing import local_program
from qnet_controller.pipeline.tables import Table
from qnet_controller.pipeline.wanted import Local, Program

SWITCHES, GROUPS, PODS = (1, 2), 3, 9
LOOP = asyncio.new_event_loop()


def address(number: int) -> bytes:
    return bytes((10, 0, 0, number))


def model() -> Model:
    made = Model()
    made.apply([o.Network("n", 7, (o.Subnet(address(0), 24),), ())])
    made.apply([o.Host(f"h{number}", (bytes((192, 0, 2, number)),), number) for number in SWITCHES])
    made.apply([o.SecurityGroup(f"g{number}", "t", number + 1) for number in range(GROUPS)])
    made.apply([o.Service("s", f"g{number}", "n") for number in range(GROUPS)])
    made.apply([o.ServiceIP("main", f"g{number}/s", "n", address(200 + number)) for number in range(GROUPS)])
    made.apply([o.Export("g0/s", "g1", frozenset({o.PortRule(6, 80)})), o.Export("g1/s", "g2", direct=True)])
    for number in range(PODS):
        group = f"g{number % GROUPS}/s"
        made.apply([o.Pod(f"p{number}", group, "n", bytes((2, 0, 0, 0, 0, number)), f"q{number}", (address(number),))])
        made.port_seen(SWITCHES[number % 2], 10 + number, f"q{number}", True)
    for number in SWITCHES:
        made.port_seen(number, 1, "qnet-vxlan", True)
    return made


def asked(pod: int, target: int) -> bytes:
    """The packet-in of a pod's first packet."""
    registers = ((VNI, 7), (SOURCE_GROUP, pod % GROUPS + 1), (ORIGIN, Origin.POD), (SOURCE_ZONE, 10 + pod))
    matched = oxm.encode_match(match((IN_PORT, 10 + pod), *registers))
    frame = bytes(12) + b"\x08\x00\x45" + bytes(11) + address(pod) + address(target) + bytes(20)
    head = bytes(7) + bytes((Table.PLAN,)) + bytes(8)
    return wire.message(10, head + matched + bytes(2) + frame, 0)


class Said:
    """A connection that keeps what is sent, by type and body."""

    def __init__(self) -> None:
        self.heard = b""

    def next_xid(self) -> int:
        return 1

    def write(self, data: bytes) -> None:
        self.heard += data

    def write_barrier(self, data: bytes, passed: Callable[[], None]) -> None:
        raise AssertionError("answers are no bundles")

    def messages(self) -> list[tuple[int, bytes]]:
        found, at = [], 0
        while at < len(self.heard):
            length = int.from_bytes(self.heard[at + 2 : at + 4], "big")
            found.append((self.heard[at + 1], self.heard[at + 8 : at + length]))
            at += length
        return found


def quickly(commands: Commands) -> list[tuple[int, bytes]]:
    """The messages of commands as the hot path sends them."""
    line = Said()
    Outbox(line, LOOP).send(commands)
    return line.messages()


def slowly(command: Command) -> Iterator[tuple[int, bytes]]:
    """A command encoded from a copy that nothing is known about."""
    wire.encode_action.cache_clear()
    wire._instructions.clear()
    if isinstance(command, AddFlow):
        command = AddFlow(dataclasses.replace(command.flow))
        assert not command.flow.encoded
    elif isinstance(command, PutGroup):
        command = PutGroup(dataclasses.replace(command.group), command.exists)
        assert not command.group.encoded
    yield from wire.encode_command(command)


def forget() -> None:
    """Forget what is kept across changes of the model."""
    for kept in (ways.way, ways.identity, service.backend, service.balancing, demands._planned, demands._refused):
        kept.cache_clear()
    demands._onward.cache_clear()
    demands._from.cache_clear()


def read_slowly(data: bytes) -> PacketIn:
    matching, after = oxm.decode_match(data, 24, len(data))
    return PacketIn(data[15], data[after + 2 :], {name: value for name, value, _ in matching})


def packet_out_slowly(packet: PacketOut) -> bytes:
    wire._heads.clear()
    wire.encode_action.cache_clear()
    return wire.encode_packet_out(packet, 1)


questions = st.tuples(st.sampled_from(SWITCHES), st.integers(0, PODS - 1), st.sampled_from([*range(12), 200, 201, 202]))


@settings(max_examples=150, deadline=None)
@given(st.lists(questions, min_size=1, max_size=25), st.sampled_from([None, 0, 5]))
def test_memory_changes_no_byte(questions: list[tuple[int, int, int]], moved: int | None) -> None:
    world = model()
    nothing = Installed((), frozenset(), {})
    with_memory = {number: SwitchProgram(world, number, Settings()) for number in SWITCHES}
    for program in with_memory.values():
        program.adopt(nothing, 0.0)
    without = {}
    for number in SWITCHES:  # a model of its own for each, which forgets before each packet
        own = model()
        without[number] = (own, SwitchProgram(own, number, Settings()))
        without[number][1].adopt(nothing, 0.0)
    for turn, (switch, pod, target) in enumerate(questions):
        if moved is not None and turn == len(questions) // 2:
            there = SWITCHES[(moved + 1) % 2]
            for program_model, programs in ((world, with_memory), *((m, {n: p}) for n, (m, p) in without.items())):
                touched = program_model.port_seen(there, 90, f"q{moved}", True)
                for program in programs.values():
                    program.refresh(touched, 0.0)
        data = asked(pod, target)
        packet = reading.packet_in(data)
        assert packet == read_slowly(data)
        own, slow = without[switch]
        own._changed()
        answer = with_memory[switch].packet_in(packet, 0.0)
        forget()
        expected = slow.packet_in(packet, 0.0)
        said = sorted(quickly(answer.commands))
        assert said == sorted(body for command in expected.commands for body in slowly(command))
        if answer.packet_out is not None and expected.packet_out is not None:
            assert wire.encode_packet_out(answer.packet_out, 1) == packet_out_slowly(expected.packet_out)
        assert (answer.packet_out is None) == (expected.packet_out is None)
    for number in SWITCHES:
        assert with_memory[number].flows == without[number][1].flows
        assert with_memory[number].groups == without[number][1].groups


def test_what_is_remembered_of_a_pair_goes_with_its_export() -> None:
    world = model()
    program = SwitchProgram(world, 1, Settings())
    program.adopt(Installed((), frozenset(), {}), 0.0)
    packet = reading.packet_in(asked(1, 200))  # of g1, to the Service IP that g0 exports to it
    export = o.Export("g0/s", "g1", frozenset({o.PortRule(6, 80)}), expires=50)
    for now, change, may_go in (
        (1.0, None, True),
        (2.0, o.Removed(o.Export, export.key), False),
        (3.0, export, True),
        (49.0, None, True),
        (50.0, None, False),  # nothing has changed but the time
    ):
        touched = world.apply([change]) if change else frozenset()
        program.refresh(touched, now)
        assert (program.packet_in(packet, now).packet_out is not None) == may_go


addresses = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))


@given(st.sampled_from(Origin), st.integers(0, 0xFFFFFF), st.integers(0, 0xFFFF), addresses, st.integers(-1, 128))
def test_the_match_of_a_plan_flow_is_that_of_its_terms(
    origin: Origin, vni: int, group: int, address: bytes, prefix: int
) -> None:
    bits = len(address) * 8
    if 0 <= prefix <= bits:  # a block has no bit outside of its prefix
        number = int.from_bytes(address, "big") >> bits - prefix << bits - prefix
        address = number.to_bytes(len(address), "big")
    pair = demands.Pair(origin, vni, group, address, prefix if prefix <= bits else demands.WHOLE)
    assert demands._plan_match(pair) == match(*demands._asked(pair))


def test_an_error_finds_the_command_that_it_is_about() -> None:
    program = SwitchProgram(model(), 1, Settings())
    program.adopt(Installed((), frozenset(), {}), 0.0)
    line = Said()
    outbox = Outbox(line, LOOP)
    answers = [program.packet_in(reading.packet_in(asked(0, target)), 0.0) for target in (3, 6, 200)]
    for answer in answers:
        outbox.send(answer.commands, answer.packet_out)
    for command in (command for answer in answers for command in answer.commands):
        ((kind, body),) = wire.encode_command(command)
        data = wire.message(kind, body, wire.SAID_AGAIN)[:64]
        found = outbox.command_of(SwitchError(wire.SAID_AGAIN, "", "", data))
        assert found is not None
        assert next(iter(wire.encode_command(found)))[1][:56] == body[:56]
    assert outbox.command_of(SwitchError(wire.SAID_AGAIN, "", "", bytes(64))) is None
    assert outbox.command_of(SwitchError(wire.SAID_AGAIN, "", "", b"")) is None


def test_what_is_worked_out_ahead_is_what_is_asked_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "FIRST_SECONDS", 0.0)
    world = model()
    program = SwitchProgram(world, 1, Settings())
    program.adopt(Installed((), frozenset(), {}), 0.0)
    before = program.flows

    async def prepare() -> None:
        switch = Switch(cast(Session, None), 1, "h1", role=Roles.MASTER, adopted=True, program=program)
        worker = ahead.Ahead(world, {1: switch})
        worker.begin()
        while not worker.done:
            await asyncio.sleep(0.001)

    forget()
    asyncio.run(prepare())
    assert program.flows == before
    answer = program.packet_in(reading.packet_in(asked(0, 200)), 0.0)
    adds = [command.flow for command in answer.commands if isinstance(command, AddFlow)]
    ready = {item.table for item in adds if item.encoded}
    assert ready >= {Table.SERVICE, Table.STATE, Table.LOCATION, Table.ADMISSION}


def test_a_switch_has_no_work_with_pods_that_come_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    world = model()
    programs = {number: SwitchProgram(world, number, Settings()) for number in SWITCHES}
    for one in programs.values():
        one.adopt(Installed((), frozenset(), {}), 0.0)
    worked: list[str] = []

    def counted(parts: demands.Compiler, owner: Local) -> Program | None:
        worked.append(owner.pod)
        return local_program(parts, owner)

    monkeypatch.setattr("qnet_controller.pipeline.program.local_program", counted)
    here, there = SWITCHES
    touched = world.switch_ports(there, [(1, "qnet-vxlan", True), *((90 + n, f"q{n}", True) for n in (1, 3, 5))])
    assert programs[here].refresh(touched, 0.0) == ()
    assert not worked
    assert programs[there].refresh(touched, 0.0)
    assert set(worked) >= {"g0/p3", "g1/p1", "g2/p5"}
    worked.clear()
    touched = world.port_seen(there, 99, "q0", True)  # it moves: both have work, with this one alone
    assert programs[here].refresh(touched, 0.0)
    assert programs[there].refresh(touched, 0.0)
    assert worked == ["g0/p0", "g0/p0"]
