# SPDX-License-Identifier: Apache-2.0
"""The encoder and the session against a real Open vSwitch: what is sent is what is there, under the same key."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.fixtures import BRIDGE, DATAPATH_ID
from contract.peers import Owner, Scene, scene
from contract.real import Authority, Vswitch
from qnet_controller.controller.conntrack import parse
from qnet_controller.openflow.codec import Roles
from qnet_controller.openflow.events import CommitFailed, Dump, Limits
from qnet_controller.openflow.session import Session
from qnet_controller.openflow.wire import flow_content, group_description
from qnet_controller.pipeline import family
from qnet_controller.pipeline import fields as f
from qnet_controller.pipeline.balance import connection
from qnet_controller.pipeline.fields import Bits, Field, whole
from qnet_controller.pipeline.messages import (
    Action,
    Actions,
    AddFlow,
    AddMeter,
    Bucket,
    Command,
    Ct,
    DeleteFlow,
    DeleteGroup,
    DeleteMeter,
    Flow,
    FlushConnection,
    FlushZone,
    Goto,
    Group,
    Match,
    Meter,
    Move,
    Nat,
    Output,
    OutputTo,
    PacketOut,
    PutGroup,
    RemovalReason,
    Resubmit,
    Set,
    ToController,
    Tuple,
    UseGroup,
    UseMeter,
    match,
)
from qnet_controller.pipeline.tables import Table


def play(switch: Vswitch, authority: Authority, test: Callable[[Session, Owner], Awaitable[None]]) -> None:
    """Run a test with the session of the switch, as its master."""

    async def run() -> None:
        async with scene(authority, Limits()) as on:
            session = await connect(switch, on)
            assert (await session.request_role(Roles.MASTER)).role == Roles.MASTER
            await test(session, on.owner)

    asyncio.run(run())


async def connect(switch: Vswitch, on: Scene) -> Session:
    switch.vsctl("set-controller", BRIDGE, f"ssl:127.0.0.1:{on.port}")
    assert await on.owner.wait("identified", seconds=10) == DATAPATH_ID
    session = on.owner.sessions[-1]
    assert session.peer_name == "h1"
    return session


async def dump(session: Session) -> Dump:
    future: asyncio.Future[Dump] = asyncio.get_running_loop().create_future()
    session.fetch_dump(future.set_result, future.set_exception)
    return await asyncio.wait_for(future, 10)


async def refusals(session: Session, *commands: Command) -> list[tuple[Command | None, str]]:
    """Commit; returns what was refused and why."""
    try:
        await asyncio.wait_for(session.commit(commands), 10)
    except CommitFailed as failed:
        return [(command, str(error)) for command, error in failed.failures]
    return []


def a_flow(
    matching: Match, actions: Actions = (), *, table: Table = Table.PLAN, cookie: int = 0x7101, **more: int
) -> Flow:
    return Flow(table, more.pop("priority", 100), matching, actions, cookie, **more)  # type: ignore[arg-type]


IP = (f.ETH_TYPE, f.ETH_TYPE_IPV4)
ARP = (f.ETH_TYPE, f.ETH_TYPE_ARP)
IPV6 = (f.ETH_TYPE, f.ETH_TYPE_IPV6)
ICMPV6 = (IPV6, (f.IP_PROTO, 58))
SOLICITATION, ADVERTISEMENT = ((*ICMPV6, (f.ICMPV6_TYPE, kind), (f.ICMPV6_CODE, 0)) for kind in (135, 136))
TRACKED = (f.CT_STATE, f.CT_NEW, f.CT_NEW)
PREREQUISITES: dict[str, tuple[tuple[Field, ...] | tuple[object, ...], ...]] = {
    **dict.fromkeys(("ip_proto", "ip_frag", "ipv4_src", "ipv4_dst"), (IP,)),
    **dict.fromkeys(("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"), (ARP,)),
    **dict.fromkeys(("tcp_src", "tcp_dst"), (IP, (f.IP_PROTO, 6))),
    **dict.fromkeys(("udp_src", "udp_dst"), (IP, (f.IP_PROTO, 17))),
    **dict.fromkeys(("sctp_src", "sctp_dst"), (IP, (f.IP_PROTO, 132))),
    "icmpv4_type": (IP, (f.IP_PROTO, 1)),
    **dict.fromkeys(("ct_ipv4_dst", "ct_proto"), (IP, TRACKED)),
    "ct_tp_dst": (IP, TRACKED, (f.CT_PROTO, 6)),
    **dict.fromkeys(("ipv6_src", "ipv6_dst"), (IPV6,)),
    **dict.fromkeys(("icmpv6_type", "icmpv6_code"), ICMPV6),
    **dict.fromkeys(("nd_target", "nd_sll", "nd_reserved", "nd_options_type"), SOLICITATION),
    "nd_tll": ADVERTISEMENT,
    "ct_ipv6_dst": (IPV6, TRACKED),
}
EXACT_ONLY = {"in_port", "eth_type", "ip_proto", "arp_op", "ct_zone", "ct_proto", "icmpv6_type", "icmpv6_code",
              "nd_reserved", "nd_options_type", "icmpv4_type", "ip_frag"}  # fmt: skip
LARGEST = {"arp_op": 0xFF, "in_port": 0xFE00, "ip_frag": 3}


@st.composite
def matches(draw: st.DrawFn, field: Field) -> Match:
    """A field of the pipeline, masked where it may be, with any registers."""
    mask = field.full if field.name in EXACT_ONLY else draw(st.sampled_from([field.full, field.full & ~0xFF]))
    value = draw(st.integers(1, LARGEST.get(field.name, field.full))) & mask
    terms = [(field, value, mask), *PREREQUISITES.get(field.name, ())]
    registers = draw(
        st.sets(st.sampled_from([f.VNI, f.SOURCE_GROUP, f.KIND, f.ORIGIN, f.SOURCE_ZONE, f.TARGET_ZONE, f.GRANT]))
    )
    terms += [(part, draw(st.integers(0, (1 << part.width) - 1))) for part in registers if part.field != field]
    return match(*terms)  # type: ignore[arg-type]


def test_every_match_comes_back_under_its_own_key(switch: Vswitch, authority: Authority) -> None:
    cases: list[Match] = []
    for field in f.ALL:
        if field not in (f.CT_STATE, f.ETH_TYPE):  # these come as what others depend on

            @settings(max_examples=16, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
            @given(matches(field))
            def collect(matching: Match) -> None:
                cases.append(matching)

            collect()
    wanted = {a_flow(case, priority=7 + len(case)) for case in cases}

    async def test(session: Session, owner: Owner) -> None:
        assert await refusals(session, *(AddFlow(flow) for flow in wanted)) == []
        found = await dump(session)
        assert {flow.key for flow in found.flows} == {flow.key for flow in wanted}
        assert {flow.cookie for flow in found.flows} == {0x7101}
        assert await refusals(session, *(DeleteFlow(flow.key) for flow in found.flows)) == []
        assert (await dump(session)).flows == ()
        assert owner.count("violated") == owner.count("refused") == 0

    play(switch, authority, test)


ACTIONS: dict[str, tuple[Action, str]] = {
    "set register": (Set(f.VNI, 0x123456), "set_field:0x123456/0xffffff->reg0"),
    "set part in the middle": (Set(f.ORIGIN, 1), "set_field:0x100/0x100->reg2"),
    "set MAC": (Set(whole(f.ETH_DST), 0x0A0000000001), "set_field:0a:00:00:00:00:01->eth_dst"),
    "set tun_id": (Set(whole(f.TUN_ID), 100), "set_field:0x64->tun_id"),
    "set tun_ipv6_dst": (Set(whole(f.TUN_IPV6_DST), 0xFD00 << 112 | 1), "set_field:fd00::1->tun_ipv6_dst"),
    "set tun_dst": (Set(whole(f.TUN_DST), 0xC0000201), "set_field:192.0.2.1->tun_dst"),
    "move": (Move(f.SOURCE_ZONE, f.TARGET_ZONE), "move:NXM_NX_REG3[0..15]->NXM_NX_REG4[0..15]"),
    "move MAC": (Move(whole(f.ETH_SRC), whole(f.ETH_DST)), "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]"),
    "output": (Output(2), "output:2"),
    "output to register": (OutputTo(f.TARGET_ZONE), "output:NXM_NX_REG4[0..15]"),
    "to controller": (ToController(), "CONTROLLER:65535"),
    "group": (UseGroup(5), "group:5"),
    "meter": (UseMeter(9), "meter:9"),
    "resubmit": (Resubmit(Table.PLAN), f"resubmit(,{int(Table.PLAN)})"),
    "ct": (Ct(7), "ct(zone=7)"),
    "ct in a register's zone": (
        Ct(f.SOURCE_ZONE, Table.STATE),
        f"ct(table={int(Table.STATE)},zone=NXM_NX_REG3[0..15])",
    ),
    "ct commit": (Ct(7, Table.STATE, commit=True), f"ct(commit,table={int(Table.STATE)},zone=7)"),
    "ct nat": (Ct(7, Table.STATE, nat=Nat("lookup")), f"ct(table={int(Table.STATE)},zone=7,nat)"),
    "ct to an address": (
        Ct(7, Table.STATE, commit=True, nat=Nat("destination", bytes([10, 0, 0, 9]))),
        f"ct(commit,table={int(Table.STATE)},zone=7,nat(dst=10.0.0.9))",
    ),
    "ct from an address": (
        Ct(7, Table.STATE, commit=True, nat=Nat("source", bytes([10, 0, 0, 9]))),
        f"ct(commit,table={int(Table.STATE)},zone=7,nat(src=10.0.0.9))",
    ),
    "ct to an IPv6 address": (
        Ct(7, Table.STATE, commit=True, nat=Nat("destination", bytes([0xFD, *bytes(14), 9]))),
        f"ct(commit,table={int(Table.STATE)},zone=7,nat(dst=fd00::9))",
    ),
    "ct with a mark": (
        Ct(7, Table.STATE, commit=True, mark=f.GRANT),
        f"ct(commit,table={int(Table.STATE)},zone=7,exec(move:NXM_NX_REG5[]->NXM_NX_CT_MARK[]))",
    ),
    "ct to an address with a mark": (
        Ct(f.SOURCE_ZONE, commit=True, nat=Nat("destination", bytes([10, 0, 0, 9])), mark=f.GRANT),
        "ct(commit,zone=NXM_NX_REG3[0..15],nat(dst=10.0.0.9),exec(move:NXM_NX_REG5[]->NXM_NX_CT_MARK[]))",
    ),
    "goto": (Goto(Table.STATE), f"goto_table:{int(Table.STATE)}"),
}


def test_every_action_is_what_open_vswitch_says_it_is(switch: Vswitch, authority: Authority) -> None:
    async def test(session: Session, owner: Owner) -> None:
        bucket = Bucket(1, 1, (Output(2),))
        assert await refusals(session, AddMeter(Meter(9, 10, 10)), PutGroup(Group(5, (bucket,)), exists=False)) == []
        flows = [
            AddFlow(a_flow(match(IPV6 if "IPv6" in name else IP), (action,), priority=number, cookie=number))
            for number, (name, (action, _)) in enumerate(ACTIONS.items(), 1)
        ]
        assert await refusals(session, *flows) == []
        described = {flow.cookie: flow.content for flow in (await dump(session)).flows}
        assert described == {command.flow.cookie: flow_content(command.flow) for command in flows}
        shown = {
            int(number, 16): actions
            for line in switch.flows()
            for number, actions in re.findall(r"cookie=0x([0-9a-f]+),.* actions=(.*)", line)
        }
        assert shown == {number: text for number, (_, text) in enumerate(ACTIONS.values(), 1)}

    play(switch, authority, test)


def test_a_flow_carries_its_timeouts_and_says_when_it_goes(switch: Vswitch, authority: Authority) -> None:
    async def test(session: Session, owner: Owner) -> None:
        flow = a_flow(match(IP, (f.VNI, 9)), idle_timeout=1, hard_timeout=300, notify=True, cookie=0xABC)
        session.send((AddFlow(flow),))
        await session.barrier()
        (line,) = switch.flows()
        assert "idle_timeout=1, hard_timeout=300, send_flow_rem" in line
        removed = await owner.wait("flow_removed", seconds=5)
        assert (removed.key, removed.cookie, removed.reason) == (flow.key, 0xABC, RemovalReason.IDLE_TIMEOUT)

    play(switch, authority, test)


def test_groups_are_made_changed_and_removed(switch: Vswitch, authority: Authority) -> None:
    def group(*backends: int) -> Group:
        nat = {backend: Nat("destination", bytes([10, 0, 0, backend])) for backend in backends}
        ct = {backend: Ct(f.SOURCE_ZONE, Table.STATE, commit=True, nat=item) for backend, item in nat.items()}
        return Group(77, tuple(Bucket(backend, 100 + backend, (action,)) for backend, action in ct.items()))

    async def test(session: Session, owner: Owner) -> None:
        assert await refusals(session, PutGroup(group(1, 2), exists=False)) == []
        assert await refusals(session, PutGroup(group(2, 3), exists=True)) == []
        shown = switch.ofctl("dump-groups")
        assert re.findall(r"bucket_id:(\d+),weight:(\d+)", shown) == [("2", "102"), ("3", "103")]
        assert shown.count("nat(dst=10.0.0.") == 2
        assert "selection_method=dp_hash" in shown
        described = (await session.raw_dump([77])).read()
        assert (described.groups, described.descriptions) == ({77: 2}, {77: group_description(group(2, 3))})
        assert await refusals(session, DeleteGroup(77)) == []
        assert (await dump(session)).groups == {}

    play(switch, authority, test)


def test_a_group_larger_than_a_message_is_built_in_chunks(switch: Vswitch, authority: Authority) -> None:
    def group(count: int) -> Group:
        nat = (Nat("destination", (0x0A000000 + number).to_bytes(4, "big")) for number in range(count))
        actions = (Ct(f.SOURCE_ZONE, Table.STATE, commit=True, nat=item) for item in nat)
        return Group(3, tuple(Bucket(number, 1, (action,)) for number, action in enumerate(actions)))

    async def test(session: Session, owner: Owner) -> None:
        for count, exists in ((1500, False), (1200, True), (4, True)):
            assert await refusals(session, PutGroup(group(count), exists=exists)) == []
            # Its description no longer fits one message; the statistics are what adoption reads.
            stats = switch.ofctl("dump-group-stats")
            assert stats.count(":packet_count=") == count
            assert (await dump(session)).groups == {3: count}

    play(switch, authority, test)


def test_every_chunk_of_a_group_keeps_how_its_bucket_is_chosen(switch: Vswitch, authority: Authority) -> None:
    buckets = tuple(Bucket(number, 1, (Output(1),)) for number in range(900))

    async def test(session: Session, owner: Owner) -> None:
        ways = {
            (): "dp_hash",
            (f.IPV4_SRC,): r"hash,fields=?\(?ip_src\)?",
            connection(family.IPV4): r"hash,fields\(ip_src,ip_dst,.*udp_dst",
            connection(family.IPV6): r"hash,fields\(ipv6_src,ipv6_dst,.*udp_dst",
        }
        for hashed, shown in ways.items():
            for exists in (False, True):
                assert await refusals(session, PutGroup(Group(4, buckets, hashed), exists=exists)) == []
            assert re.search(f"selection_method={shown}", switch.ofctl("dump-groups"))
            described = (await session.raw_dump([4])).read().descriptions
            assert described == {4: group_description(Group(4, buckets, hashed))}
            assert await refusals(session, DeleteGroup(4)) == []

    play(switch, authority, test)


def test_meters_come_before_and_go_after_the_flows_that_use_them(switch: Vswitch, authority: Authority) -> None:
    async def test(session: Session, owner: Owner) -> None:
        flow = a_flow(match(IP), (UseMeter(4), ToController()))
        assert await refusals(session, AddFlow(flow), AddMeter(Meter(4, 300, 30))) == []
        assert re.search(r"meter=4 pktps burst.*\n.*rate=300 burst_size=30", switch.ofctl("dump-meters"))
        assert (await dump(session)).meters == {4: Meter(4, 300, 30)}
        other = a_flow(match(IP), (ToController(),))
        assert await refusals(session, DeleteMeter(4), AddFlow(other)) == []
        assert len(switch.flows()) == 1
        assert (await dump(session)).meters == {}

    play(switch, authority, test)


@pytest.mark.parametrize(
    "culprit",
    [
        PutGroup(Group(8, (Bucket(1, 1, (Output(1),)),)), exists=True),  # refused at the commit: there is no group 8
        AddFlow(a_flow(match((f.TCP_DST, 80)))),  # refused when it is added: its prerequisites are missing
    ],
    ids=["at commit", "at add"],
)
def test_a_bundle_is_all_or_nothing(switch: Vswitch, authority: Authority, culprit: Command) -> None:
    async def test(session: Session, owner: Owner) -> None:
        kept = a_flow(match(IP, (f.VNI, 1)), cookie=1)
        assert await refusals(session, AddFlow(kept)) == []
        refused = await refusals(
            session, DeleteFlow(kept.key), AddFlow(a_flow(match(IP, (f.VNI, 2)), cookie=2)), culprit
        )
        assert culprit in [command for command, _ in refused]
        assert [flow.cookie for flow in (await dump(session)).flows] == [1]
        assert await refusals(session, DeleteFlow(kept.key)) == []

    play(switch, authority, test)


def test_commands_keep_their_order_across_bundles(switch: Vswitch, authority: Authority) -> None:
    async def test(session: Session, owner: Owner) -> None:
        matching = match(IP, (f.VNI, 1))
        ends = []
        for turn in range(1, 41):
            flow = AddFlow(a_flow(matching, cookie=turn))
            if turn % 3:
                ends.append(session.commit([flow]))
            else:
                session.send((flow,))
        await asyncio.gather(*ends)
        await session.barrier()
        assert [flow.cookie for flow in (await dump(session)).flows] == [40]

    play(switch, authority, test)


def test_a_dump_shows_every_command_given_before_it(switch: Vswitch, authority: Authority) -> None:
    async def test(session: Session, owner: Owner) -> None:
        flows = [a_flow(match(IP, (f.VNI, number)), cookie=number) for number in range(1, 31)]
        ends = [session.commit([AddFlow(flow)]) for flow in flows]
        found = dump(session)  # asked for while the first bundle is still being staged
        assert {flow.cookie for flow in (await found).flows} == set(range(1, 31))
        await asyncio.gather(*ends)

    play(switch, authority, test)


def test_a_refused_single_command_is_named(switch: Vswitch, authority: Authority) -> None:
    async def test(session: Session, owner: Owner) -> None:
        command = AddFlow(a_flow(match((f.TCP_DST, 80))))
        session.send((command,))
        error, culprit = await owner.wait("refused")
        assert culprit is command
        assert "BAD_MATCH" in str(error)

    play(switch, authority, test)


# ICMP echo request from 10.0.0.2 to 10.0.0.3, with correct checksums: conntrack looks at them.
FRAME = bytes.fromhex("0a000000000102000000000108004500001c00004000400126dd0a0000020a0000030800f7ff00000000")


def test_a_packet_out_meets_the_flows_sent_before_it(switch: Vswitch, authority: Authority) -> None:
    async def test(session: Session, owner: Owner) -> None:
        up = a_flow(match(IP, (f.VNI, 100), (f.ORIGIN, 1)), (ToController(),), table=Table.LOCATION)
        again: Actions = (Set(f.VNI, 100), Set(f.ORIGIN, 1), Set(f.SOURCE_ZONE, 7), Resubmit(Table.LOCATION))
        session.send((AddFlow(up),), PacketOut(FRAME, 1, again))
        packet = await owner.wait("packet_in")
        assert packet.table == Table.LOCATION
        assert packet.data == FRAME
        assert packet.fields == {"in_port": 1, "reg0": 100, "reg2": 0x100, "reg3": 7}

    play(switch, authority, test)


def test_a_zone_is_flushed(switch: Vswitch, authority: Authority) -> None:
    async def test(session: Session, owner: Owner) -> None:
        for zone in (7, 8):
            flow = AddFlow(a_flow(match(IP, (f.SOURCE_ZONE, zone)), (Ct(zone, commit=True),)))
            session.send((flow,), PacketOut(FRAME, 1, (Set(f.SOURCE_ZONE, zone), Resubmit(Table.PLAN))))
        await session.barrier()
        assert set(re.findall(r"zone=(\d)", switch.appctl("dpctl/dump-conntrack"))) == {"7", "8"}
        assert await refusals(session, FlushZone(7)) == []
        assert set(re.findall(r"zone=(\d)", switch.appctl("dpctl/dump-conntrack"))) == {"8"}

    play(switch, authority, test)


def udp_frame(sport: int, dport: int) -> bytes:
    """A datagram from 10.0.0.2 to 10.0.0.3 without checksum of its own."""
    head = bytearray(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, b"\x0a\0\0\x02", b"\x0a\0\0\x03"))
    total = sum(struct.unpack("!10H", head))
    head[10:12] = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
    return FRAME[:14] + head + struct.pack("!HHHH", sport, dport, 8, 0)


def test_one_connection_is_forgotten_and_no_other(switch: Vswitch, authority: Authority) -> None:
    a, b = b"\x0a\0\0\x02", b"\x0a\0\0\x03"

    def known() -> list[tuple[int, int, int, int]]:
        found = parse(switch.appctl("dpctl/dump-conntrack").splitlines())
        return sorted((c.zone, c.opened.protocol, c.opened.sport, c.opened.dport) for c in found)

    async def test(session: Session, owner: Owner) -> None:
        switch.appctl("dpctl/flush-conntrack")
        frames = [FRAME, *(udp_frame(sport, dport) for sport in (1000, 1001) for dport in (53, 54))]
        for zone in (7, 8):
            flow = AddFlow(a_flow(match(IP, (f.SOURCE_ZONE, zone)), (Ct(zone, commit=True),)))
            session.send((flow,))
            for frame in frames:
                session.send((), PacketOut(frame, 1, (Set(f.SOURCE_ZONE, zone), Resubmit(Table.PLAN))))
        await session.barrier()
        want = known()
        assert len(want) == 10
        echo = next(c for c in parse(switch.appctl("dpctl/dump-conntrack", "zone=8").splitlines()) if c.opened[0] == 1)
        commands = [FlushConnection(7, Tuple(17, a, b, 1000, 53)), FlushConnection(8, echo.opened)]
        assert await refusals(session, *commands) == []
        want.remove((7, 17, 1000, 53))
        want.remove((8, 1, echo.opened.sport, echo.opened.dport))
        assert known() == want
        # What is not there is no error: it may have ended meanwhile.
        assert await refusals(session, FlushConnection(7, Tuple(6, a, b, 1, 2))) == []
        await session.commit([FlushConnection(7, Tuple(17, a, b, sport, 54)) for sport in (1000, 1001)])
        assert known() == [item for item in want if not (item[0] == 7 and item[3] == 54)]

    play(switch, authority, test)


def test_ports_are_reported_at_once_and_when_they_change(switch: Vswitch, authority: Authority) -> None:
    async def test(session: Session, owner: Owner) -> None:
        ports: asyncio.Future[dict[str, int]] = asyncio.get_running_loop().create_future()
        session.fetch_ports(lambda found: ports.set_result({p.name: p.number for p in found}), ports.set_exception)
        assert {"dummy1": 1, "dummy2": 2}.items() <= (await ports).items()
        late = ("set", "interface", "late", "type=internal", "ofport_request=9")
        await asyncio.to_thread(switch.vsctl, "add-port", BRIDGE, "late", "--", *late)
        assert (await owner.wait("port_status"))[0].name == "late"
        before = owner.count("port_status")
        await asyncio.to_thread(switch.vsctl, "del-port", "late")
        await owner.wait("port_status", before + 1)
        async with asyncio.timeout(5):
            while not owner.last("port_status")[1]:
                await asyncio.sleep(0.02)

    play(switch, authority, test)


def test_the_newest_generation_is_master_and_the_other_is_told(switch: Vswitch, authority: Authority) -> None:
    async def run() -> None:
        async with scene(authority, Limits()) as first, scene(authority, Limits()) as second:
            switch.vsctl("set-controller", BRIDGE, f"ssl:127.0.0.1:{first.port}", f"ssl:127.0.0.1:{second.port}")
            for on in (first, second):
                await on.owner.wait("identified", seconds=10)
            one, two = first.owner.sessions[0], second.owner.sessions[0]
            mine = await one.request_role(Roles.MASTER)
            assert (await two.request_role(Roles.SLAVE)).role == Roles.SLAVE
            assert await refusals(two, AddFlow(a_flow(match(IP)))) != [], "a slave wrote a flow"
            theirs = await two.request_role(Roles.MASTER)
            assert theirs.generation == mine.generation + 1
            told = await first.owner.wait("role_changed")
            assert told.role == Roles.SLAVE
            assert await refusals(one, AddFlow(a_flow(match(IP)))) != []
            assert await refusals(two, AddFlow(a_flow(match(IP), (ToController(),)))) == []
            two.send((), PacketOut(FRAME, 1, (Resubmit(Table.PLAN),)))
            await second.owner.wait("packet_in")
            await one.barrier()
            assert first.owner.count("packet_in") == 0, "a slave was asked"

    asyncio.run(run())


def test_bits_of_the_pipeline_fit_their_fields() -> None:
    parts = [item for item in vars(f).values() if isinstance(item, Bits)]
    assert all(part.offset + part.width <= part.field.bits for part in parts)
