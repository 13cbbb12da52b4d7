# SPDX-License-Identifier: Apache-2.0
"""What holds for every sequence of changes: the model and the programs depend on the present, not on its history."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.tenants import IPV6, POD_BLOCK, SERVICE_BLOCK
from qnet_controller.decide.decide import Origin, Question, decide
from qnet_controller.model import objects as o
from qnet_controller.model.model import Model
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.demands import WHOLE, Pair, Settings, Target
from qnet_controller.pipeline.program import SwitchProgram
from qnet_controller.pipeline.scopes import Block, Scope
from qnet_controller.pipeline.strangers import Source
from simulator.fabric import START
from simulator.packets import packed
from simulator.switch import Switch

SWITCHES = (1, 2)
NETWORKS, GROUPS, SERVICES = ("red", "blue"), ("a", "b"), ("a/s", "a/t", "b/s")
POD_ADDRESSES = [packed(POD_BLOCK + n) for n in (2, 3, 4, IPV6 + 2)]
SERVICE_ADDRESSES = [packed(SERVICE_BLOCK + n) for n in (2, 3, IPV6 + 2)]
ADDRESSES = POD_ADDRESSES + SERVICE_ADDRESSES
BLOCKS = (o.Subnet(packed(POD_BLOCK), 24),), (o.Subnet(packed(SERVICE_BLOCK), 24),)
VTEPS = {1: packed(0xC0A80001), 2: packed(0xC0A80002)}


def _pod(name: str, service: str, network: str, address: bytes, state: str, weight: int) -> o.Pod:
    key = f"{service.partition('/')[0]}/{name}"
    return o.Pod(name, service, network, b"\2\0\0" + key.encode()[-3:], f"qn-{key}", (address,), weight, state)


objects = st.one_of(
    st.builds(
        lambda name, vni: o.Network(name, vni, *BLOCKS),
        st.sampled_from(NETWORKS), st.sampled_from((100, 200)),
    ),
    st.builds(lambda name, n: o.SecurityGroup(name, "t", n), st.sampled_from(GROUPS), st.sampled_from((1, 2))),
    st.builds(
        lambda key, network: o.Service(key.split("/")[1], key.split("/")[0], network),
        st.sampled_from(SERVICES), st.sampled_from(NETWORKS),
    ),
    st.builds(
        lambda service, name, network, address: o.ServiceIP(name, service, network, address),
        st.sampled_from(SERVICES), st.just("main"), st.sampled_from(NETWORKS), st.sampled_from(SERVICE_ADDRESSES),
    ),
    st.builds(
        _pod, st.sampled_from(("p", "q")), st.sampled_from(SERVICES), st.sampled_from(NETWORKS),
        st.sampled_from(POD_ADDRESSES), st.sampled_from(("active", "draining")), st.sampled_from((0, 100)),
    ),
    st.builds(
        o.Export, st.sampled_from(SERVICES), st.sampled_from(GROUPS),
        st.sampled_from((frozenset(), frozenset({o.PortRule(6, 80)}))), st.sampled_from((None, int(START) + 50)),
        st.booleans(),
    ),
    st.builds(
        lambda n, kind, one: o.Host(f"h{n}", (VTEPS[n],) if one else (VTEPS[n], packed(9 + n)), n, kind),
        st.sampled_from(SWITCHES), st.sampled_from(("netdev", "system")), st.booleans(),
    ),
)  # fmt: skip
removals = objects.map(lambda item: o.Removed(type(item), item.key))
BASE: tuple[o.Object, ...] = (
    o.Network("red", 100, *BLOCKS), o.Network("blue", 200, *BLOCKS),
    o.SecurityGroup("a", "t", 1), o.SecurityGroup("b", "t", 2),
    o.Service("s", "a", "red"), o.Service("t", "a", "red"), o.Service("s", "b", "red"),
)  # fmt: skip
PORT_NAMES = ["qnet-vxlan", *(f"qn-{group}/{name}" for group in GROUPS for name in ("p", "q"))]
ports = st.tuples(
    st.just("port"), st.sampled_from(SWITCHES), st.integers(1, 4), st.sampled_from(PORT_NAMES), st.booleans()
)
gone = st.tuples(st.just("gone"), st.sampled_from(SWITCHES), st.integers(1, 4))
lost = st.tuples(st.just("lost"), st.sampled_from(SWITCHES))
addresses = st.sampled_from(ADDRESSES)
demands = st.one_of(
    st.builds(
        Pair, st.sampled_from(Origin), st.sampled_from((100, 200)), st.sampled_from((1, 2)), addresses, st.just(WHOLE)
    ),
    st.builds(
        Pair,
        st.sampled_from(Origin),
        st.sampled_from((100, 200)),
        st.sampled_from((1, 2)),
        st.just(packed(0xCB007100)),
        st.sampled_from((8 * 3, 25)),
    ),
    st.builds(Target, st.sampled_from((100, 200)), st.sampled_from(POD_ADDRESSES)),
    st.builds(
        Source,
        st.sampled_from([*VTEPS.values(), packed(7)]),
        st.sampled_from((100, 200)),
        st.sampled_from(POD_ADDRESSES),
    ),
    st.builds(
        Scope,
        st.sampled_from(Origin),
        st.sampled_from((100, 200)),
        st.sampled_from((1, 2)),
        st.integers(0, 2),
        st.sampled_from((Block(0, 0, 32), Block(0, 0, 128), Block(POD_BLOCK, 30, 32))),
    ),
    st.builds(Source, st.just(packed(7)), st.none(), st.none()),
    st.builds(Source, st.sampled_from(list(VTEPS.values())), st.just(999), st.none()),
)
wishes = st.tuples(st.just("demand"), st.sampled_from(SWITCHES), demands)
steps = st.lists(st.one_of(objects, objects, objects, removals, ports, ports, gone, lost, wishes, wishes), max_size=40)


class Intended:
    """What the database would let happen: unique numbers and addresses and, if `referential`, real references."""

    def __init__(self, referential: bool = False) -> None:
        self.objects: dict[tuple[type[o.Object], str], o.Object] = {}
        self.referential = referential

    def accepts(self, change: o.Change) -> bool:
        """Take a change over unless it breaks a rule of the schema."""
        if self.referential and not self._references_hold(change):
            return False
        if isinstance(change, o.Removed):
            self.objects.pop((change.kind, change.key), None)
            return True
        others = [item for place, item in self.objects.items() if place != (type(change), change.key)]
        mine = self._claims(change)
        if any(mine & self._claims(item) for item in others):
            return False
        self.objects[type(change), change.key] = change
        return True

    def _references_hold(self, change: o.Change) -> bool:
        if isinstance(change, o.Removed):
            gone = (change.kind, change.key)
            return not any(gone in self._references(item) for item in self.objects.values())
        return self._references(change) <= self.objects.keys()

    @staticmethod
    def _references(item: o.Object) -> set[tuple[type[o.Object], str]]:
        match item:
            case o.Service():
                return {(o.SecurityGroup, item.group), (o.Network, item.network)}
            case o.ServiceIP() | o.Pod():
                return {(o.Service, item.service), (o.Network, item.network)}
            case o.Export():
                return {(o.Service, item.service), (o.SecurityGroup, item.to_group)}
            case _:
                return set()

    @staticmethod
    def _claims(item: o.Object) -> set[object]:
        match item:
            case o.Network():
                return {("vni", item.vni)}
            case o.SecurityGroup():
                return {("group", item.number)}
            case o.ServiceIP():
                return {(item.network, item.address)}
            case o.Pod():
                return {(item.network, address) for address in item.addresses} | {("port", item.port_name)}
            case _:
                return set()


def answers(model: Model) -> list[object]:
    """Everything that can be asked."""
    questions = [
        Question(origin, network, group, address)
        for origin in Origin for network in NETWORKS for group in (1, 2) for address in ADDRESSES
    ]  # fmt: skip
    return [decide(model, question, START) for question in questions]


@given(st.lists(st.one_of(objects, removals), max_size=40), st.randoms(use_true_random=False))
def test_the_model_forgets_its_history(changes: list[o.Change], chooser: random.Random) -> None:
    model, intended = Model(), Intended()
    for change in changes:
        if intended.accepts(change):
            model.apply([change])
    final = list(intended.objects.values())
    chooser.shuffle(final)
    fresh = Model()
    fresh.apply(final)
    for table in (
        "networks", "network_by_vni", "hosts", "host_by_datapath", "host_by_vtep", "groups", "group_by_number",
        "services",
        "service_ips", "pods", "exports", "owner", "pod_by_port", "pods_of", "service_ips_of", "services_of",
    ):  # fmt: skip
        assert getattr(model, table) == getattr(fresh, table), table
    assert answers(model) == answers(fresh)


@given(st.lists(st.one_of(objects, removals), max_size=40))
def test_an_address_has_one_owner_who_claims_it(changes: list[o.Change]) -> None:
    model, intended = Model(), Intended()
    for change in changes:
        if intended.accepts(change):
            model.apply([change])
    claimed = {
        (item.network, address): item
        for item in intended.objects.values() if isinstance(item, o.Pod | o.ServiceIP)
        for address in (item.addresses if isinstance(item, o.Pod) else (item.address,))
    }  # fmt: skip
    assert model.owner == claimed


@given(st.lists(st.one_of(objects, removals), max_size=30))
def test_an_answer_changes_only_when_something_it_depends_on_is_touched(changes: list[o.Change]) -> None:
    model, intended = Model(), Intended()
    for change in changes:
        if not intended.accepts(change):
            continue
        before = {(n, g, a, s): decide(model, Question(s, n, g, a), START)
                  for n in NETWORKS for g in (1, 2) for a in ADDRESSES for s in Origin}  # fmt: skip
        owners = dict(model.owner)
        touched = model.apply([change])
        for (network, group, address, origin), verdict in before.items():
            if decide(model, Question(origin, network, group, address), START) == verdict:
                continue
            keys: set[tuple[str, object]] = {("address", (network, address)), ("source", group), ("network", network)}
            for owner in (owners.get((network, address)), model.owner.get((network, address))):
                if isinstance(owner, o.Pod | o.ServiceIP):
                    keys.add(("exports", owner.service))
            assert keys & touched, (change, network, group, address)


class World:
    """A model with two switches, each followed by an incremental program and a simulated switch that obeys it."""

    def __init__(self) -> None:
        self.model, self.intended = Model(), Intended(referential=True)
        self.now = START
        self.programs = {n: SwitchProgram(self.model, n, Settings()) for n in SWITCHES}
        self.switches = {n: Switch(n, "netdev", lambda: self.now) for n in SWITCHES}
        for number, program in self.programs.items():
            self.send(number, program.adopt(m.Installed((), frozenset(), {}), self.now))
        for item in BASE:
            self.step(item)

    def send(self, number: int, commands: m.Commands) -> None:
        """Carry commands out."""
        self.switches[number].execute(commands)
        self.switches[number].take_removed()

    def step(self, step: object) -> None:
        """Take one step of a random history."""
        match step:
            case ("demand", int(number), Pair() | Source() | Target() | Scope() as demand):
                self.send(number, self.programs[number]._demand([demand], self.now))
                return
            case ("port", int(switch), int(port), str(name), bool(live)):
                touched = self.model.port_seen(switch, port, name, live)
            case ("gone", int(switch), int(port)):
                touched = self.model.port_gone(switch, port)
            case ("lost", int(switch)):
                touched = self.model.switch_lost(switch)
            case _:
                if not self.intended.accepts(step):  # type: ignore[arg-type]
                    return
                touched = self.model.apply([step])  # type: ignore[list-item]
        for number, program in self.programs.items():
            self.send(number, program.refresh(touched, self.now))


@settings(max_examples=300)
@given(steps)
def test_a_program_is_what_a_fresh_one_with_the_same_demands_would_be(history: list[object]) -> None:
    world = World()
    for step in history:
        world.step(step)
    for number, program in world.programs.items():
        assert world.switches[number].flows == program.flows
        assert world.switches[number].groups == program.groups
        fresh = SwitchProgram(world.model, number, Settings())
        fresh.adopt(m.Installed((), frozenset(), {}), world.now)
        fresh._demand(sorted(program.demands, key=repr), world.now)
        assert fresh.flows == program.flows
        assert fresh.groups == program.groups


@settings(max_examples=200)
@given(steps)
def test_adopting_what_is_right_changes_nothing(history: list[object]) -> None:
    world = World()
    for step in history:
        world.step(step)
    for number, program in world.programs.items():
        fresh = SwitchProgram(world.model, number, Settings())
        commands = fresh.adopt(world.switches[number].dump(), world.now)
        assert [c for c in commands if not (isinstance(c, m.PutGroup) and c.exists)] == []
        assert fresh.flows == program.flows


@settings(max_examples=200)
@given(steps, st.integers(0, 10**6))
def test_an_idle_flow_frees_exactly_what_only_it_needed(history: list[object], pick: int) -> None:
    world = World()
    for step in history:
        world.step(step)
    for number, program in world.programs.items():
        removable = [flow for flow in program.flows.values() if flow.notify]
        if not removable:
            continue
        victim = removable[pick % len(removable)]
        reason = m.RemovalReason.IDLE_TIMEOUT if victim.idle_timeout else m.RemovalReason.HARD_TIMEOUT
        world.switches[number].execute([m.DeleteFlow(victim.key)])
        world.send(number, program.flow_removed(m.FlowRemoved(victim.key, victim.cookie, reason), world.now))
        assert world.switches[number].flows == program.flows
        fresh = SwitchProgram(world.model, number, Settings())
        fresh.adopt(m.Installed((), frozenset(), {}), world.now)
        fresh._demand(sorted(program.demands, key=repr), world.now)
        assert fresh.flows == program.flows
        assert fresh.groups == program.groups
