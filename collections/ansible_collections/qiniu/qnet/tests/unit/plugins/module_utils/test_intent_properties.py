# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of plans that hold for every intent."""

from __future__ import annotations

import ipaddress
import itertools

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _plan, _pods, _tenant
from ansible_collections.qiniu.qnet.tests import intent_strategies

WISHES = intent_strategies.wishes()


def plans(have: _model.State, wish: intent_strategies.Wish) -> list[_plan.Plan]:
    """The plans that lead to a wish: pods that would be in the way first, then tenants, then pods."""
    networks = {
        (group["name"], service["name"]): service["network"]
        for tenant in wish.tenants
        for group in tenant["security_groups"]
        for service in group["services"]
    }
    stay = {_pods.key(pod) for pod in wish.pods}
    gone = [
        {"group": pod.group, "name": pod.name}
        for key, pod in have["pod"].items()
        if key not in stay or networks.get((pod.group, pod.service)) != pod.network
    ]
    first = _pods.plan_removal(have, gone)
    second = _tenant.plan_tenants(first.after, wish.networks, wish.tenants, wish.exports, purge=True)
    return [first, second, _pods.plan_pods(second.after, wish.pods)]


def apply(have: _model.State, plan: _plan.Plan) -> _model.State:
    """Carry out the changes of a plan one by one, as a database would."""
    state = have.copy()
    for change in plan.changes:
        assert state[change.kind].get(change.key) == change.before
        if change.after is None:
            del state[change.kind][change.key]
        else:
            state.add(change.kind, change.after)
    return state


@given(st.lists(WISHES, min_size=1, max_size=3))
def test_a_second_plan_is_empty_whatever_was_there_before(history: list[intent_strategies.Wish]) -> None:
    state = _model.State()
    for wish in history:
        for plan in plans(state, wish):
            state = apply(state, plan)
            assert state == plan.after
        assert [plan.changes for plan in plans(state, wish)] == [(), (), ()]


@given(st.lists(WISHES, min_size=1, max_size=3))
def test_every_address_has_one_owner_and_lies_in_a_subnet_of_its_network(history: list[intent_strategies.Wish]) -> None:
    state = _model.State()
    for wish in history:
        state = plans(state, wish)[-1].after
        owned = [(pod.network, address, "pod_subnets") for pod in state["pod"].values() for address in pod.addresses]
        owned += [(ip.network, ip.address, "service_subnets") for ip in state["service_ip"].values()]
        assert len({(network, address) for network, address, dummy in owned}) == len(owned)
        for network, address, field in owned:
            subnets = map(ipaddress.ip_network, getattr(state["network"][network], field))
            (subnet,) = (subnet for subnet in subnets if ipaddress.ip_address(address) in subnet)
            taken = list(itertools.islice(subnet.hosts(), 1)) if field == "pod_subnets" else []
            never = {subnet.network_address, *taken, *([subnet.broadcast_address] if subnet.version == 4 else [])}
            assert ipaddress.ip_address(address) not in never


@given(WISHES, WISHES)
def test_numbers_and_addresses_of_what_stays_do_not_change(
    before: intent_strategies.Wish, after: intent_strategies.Wish
) -> None:
    old = plans(_model.State(), before)[-1].after
    new = plans(old, after)[-1].after
    for key, group in old["security_group"].items():
        assert new["security_group"][key].number == group.number
    for key, pod in old["pod"].items():
        if key in new["pod"] and new["pod"][key].network == pod.network:
            assert new["pod"][key].addresses == pod.addresses


@given(WISHES)
def test_the_order_of_the_lists_does_not_matter_for_what_is_given(wish: intent_strategies.Wish) -> None:
    state = plans(_model.State(), wish)[-1].after
    turned = intent_strategies.Wish(wish.networks[::-1], wish.tenants[::-1], wish.exports[::-1], wish.pods[::-1])
    assert [plan.changes for plan in plans(state, turned)] == [(), (), ()]
