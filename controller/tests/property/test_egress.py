# SPDX-License-Identifier: Apache-2.0
"""Whatever rules, networks and tunnels there are: what shares a block has the same answer, and none is a wrong one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_controller.decide import outside
from qnet_controller.decide.decide import Origin, Question, decide
from qnet_controller.model import objects as o
from qnet_controller.model.model import Model

RULES = st.sampled_from([None, o.PortRule(6, 443), o.PortRule(17, 53), o.PortRule(1)])


@st.composite
def blocks(draw: st.DrawFn) -> o.Subnet:
    """A block of either family, of which many lie in each other."""
    size = draw(st.sampled_from([4, 16]))
    first = draw(st.sampled_from([b"\xcb\x00\x71\x00", b"\x0a\x01\x00\x00", b"\xa9\xfe\x00\x00", b"\x20\x01\x0d\xb8"]))
    last = draw(st.binary(min_size=1, max_size=1))
    value = int.from_bytes(first.ljust(size - 1, b"\0")[: size - 1] + last, "big")
    prefix = draw(st.one_of(st.integers(1, 8), st.integers(size * 8 - 10, size * 8)))
    shift = size * 8 - prefix
    return o.Subnet((value >> shift << shift).to_bytes(size, "big"), prefix)


worlds = st.tuples(
    st.lists(st.tuples(blocks(), RULES), max_size=5),  # rules
    st.lists(blocks().filter(lambda block: block.prefix > 8), max_size=3),  # subnets
    st.lists(blocks(), max_size=3),  # tunnels end at the first address of each
)


def build(world: tuple[list, list, list]) -> tuple[Model, o.SecurityGroup]:
    """The model of a world."""
    rules, subnets, vteps = world
    group = o.SecurityGroup("a", "t", 1, frozenset(o.EgressRule(to, port) for to, port in rules))
    model = Model()
    model.apply([group, o.Network("red", 100, tuple(subnets), ()), o.Network("blue", 200, (), ())])
    model.apply(o.Host(f"h{number}", (block.address,), number) for number, block in enumerate(vteps))
    return model, group


@settings(max_examples=300, deadline=None)
@given(worlds, blocks(), st.randoms(use_true_random=False))
def test_all_of_a_block_is_treated_alike(world, place, chance) -> None:  # type: ignore[no-untyped-def]
    model, group = build(world)
    found = outside.block(model, group, place.address)
    assert place.address in found
    bits = len(place.address) * 8
    first, span = int.from_bytes(found.address, "big"), 1 << bits - found.prefix
    members = {first, first + span - 1, *(first + chance.randrange(span) for _ in range(20))}
    for network in ("red", "blue"):
        answers = [
            decide(model, Question(Origin.POD, network, 1, member.to_bytes(len(place.address), "big")), 0)
            for member in members
        ]
        assert all(answer == answers[0] for answer in answers)
    if found.prefix:  # and no larger block is
        other = (first ^ 1 << bits - found.prefix).to_bytes(len(place.address), "big")
        assert outside.block(model, group, other) != o.Subnet(found.address, found.prefix - 1)


@settings(max_examples=300, deadline=None)
@given(worlds, blocks())
def test_what_is_open_is_outside_and_covered_by_a_rule(world, place) -> None:  # type: ignore[no-untyped-def]
    model, group = build(world)
    verdict = decide(model, Question(Origin.POD, "red", 1, place.address), 0)
    if verdict.refused:
        return
    covering = {rule.port for rule in group.egress if place.address in rule.to}
    assert covering
    assert verdict.ports == (frozenset() if None in covering else covering)
    assert place.address not in model.host_by_vtep
    closed = [*outside.NEVER, *(subnet for network in model.networks.values() for subnet in network.pod_subnets)]
    assert not any(place.address in block for block in closed)
