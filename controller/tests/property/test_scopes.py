# SPDX-License-Identifier: Apache-2.0
"""A refusal that covers more than a pair never refuses what is allowed, however the model has changed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from property.test_state import ADDRESSES, BASE, SWITCHES, Intended, objects, removals
from qnet_controller.decide.decide import Origin, Question, decide
from qnet_controller.decide.reach import reach
from qnet_controller.model.model import Model
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline import scopes
from qnet_controller.pipeline.demands import Settings
from qnet_controller.pipeline.family import FAMILIES, Family, family, number
from qnet_controller.pipeline.program import SwitchProgram
from qnet_controller.pipeline.scopes import MOST_BLOCKS, Block, Scope, cover, everything, scope_of
from qnet_controller.pipeline.tables import Table
from simulator.fabric import START

NETWORKS = {"red": 100, "blue": 200}
GROUPS = (1, 2, 3)
worlds = st.lists(st.one_of(objects, objects, objects, removals), max_size=30).map(lambda some: [*BASE, *some])


def _refused_by(flows: dict[m.FlowKey, m.Flow], origin: Origin, vni: int, group: int, address: bytes) -> bool:
    """Whether the plan drops a packet, by the flows there are."""
    ip = family(address)
    packet = {"reg0": vni, "reg1": group, "reg2": origin << 8, "eth_type": ip.eth_type, ip.target.name: number(address)}
    matching = [
        flow for (table, _, matched), flow in flows.items()
        if table is Table.PLAN and all(packet.get(name, 0) & mask == value for name, value, mask in matched)
    ]  # fmt: skip
    best = max((flow.priority for flow in matching), default=-1)
    return any(flow.priority == best and not flow.actions for flow in matching)


@settings(max_examples=200, deadline=None)
@given(worlds, st.randoms(use_true_random=False))
def test_no_scope_refuses_what_is_allowed(changes: list, chance) -> None:  # type: ignore[no-untyped-def]
    model, intended = Model(), Intended(referential=True)
    programs = [SwitchProgram(model, switch, Settings()) for switch in SWITCHES]
    for change in changes:
        if not intended.accepts(change):
            continue
        touched = model.apply([change])
        for program in programs:
            program.refresh(touched, START)
        origin, vni = chance.choice(list(Origin)), chance.choice([100, 200])
        group, address = chance.choice(GROUPS), chance.choice(ADDRESSES)
        scope = scope_of(model, origin, vni, group, address) if vni in model.network_by_vni else None
        if scope is not None:
            for program in programs:
                program._demand([scope], START)
        for program in programs:
            flows = program.flows
            for name, number_ in NETWORKS.items():
                for question in (Question(o, name, g, a) for o in Origin for g in GROUPS for a in ADDRESSES):
                    network = model.networks.get(name)
                    if network is None or network.vni != number_ or decide(model, question, START).refused:
                        continue
                    found = reach(model, name, question.group)
                    assert found is not None
                    assert question.address in found.addresses
                    assert not _refused_by(flows, question.origin, number_, question.group, question.address)


@given(st.sampled_from(FAMILIES), st.sampled_from(Origin), st.integers(0, 0xFFFFFF), st.integers(0, 9), st.data())
def test_the_match_of_a_block_is_that_of_its_terms(
    ip: Family, origin: Origin, vni: int, group: int, data: st.DataObject
) -> None:
    bits = ip.bytes * 8
    prefix = data.draw(st.integers(0, bits))
    start = data.draw(st.integers(0, (1 << prefix) - 1)) << bits - prefix
    scope, block = Scope(origin, vni, group, 0, everything(ip)), Block(start, prefix, bits)
    sent = m.match(*scopes._asked(scope, everything(ip)))
    assert scopes._towards(sent, ip, block) == m.match(*scopes._asked(scope, block))


@settings(max_examples=300, deadline=None)
@given(st.sets(st.integers(0, 0xFFFF), max_size=400), st.integers(1, MOST_BLOCKS))
def test_few_blocks_hold_every_address(addresses: set[int], most: int) -> None:
    blocks = cover(addresses, 32, most)
    assert len(blocks) <= most
    assert all(sum(block.has(address) for block in blocks) == 1 for address in addresses)
    assert all(block.start & ~block.mask == 0 for block in blocks)
    if len(addresses) <= most:
        assert all(block.prefix == 32 for block in blocks)
