# SPDX-License-Identifier: Apache-2.0
"""Clients that keep their pod for some seconds, whatever other pods come and go, and choose anew after that."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from qnet_controller.model import objects as o
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.kept import Kept, chosen
from simulator.packets import packed

from .probe import Prober
from .scene import SIP, opened
from .tenants import SERVICE_BLOCK, TCP, PodPlan, pod_object, service_ip_object
from .test_simulated import check_programs

SECONDS, KEY, CLIENTS = 60, "a/s:main", 24


def keep(prober: Prober, seconds: int) -> None:
    """How long clients of the Service IP keep their pods from now on; 0: they do not."""
    prober.world.kept = {KEY: seconds} if seconds else {}
    prober.fabric.apply([service_ip_object(prober.world, KEY)])


def crowd(prober: Prober, count: int = CLIENTS) -> list[PodPlan]:
    """So many clients, on h1."""
    pods = [prober.world.new_pod("b/u", "h1") for _ in range(count)]
    for pod in pods:
        prober.fabric.apply([pod_object(pod)])
        prober.fabric.plug(pod_object(pod), "h1")
    return pods


def add(prober: Prober, host: str = "h3", weight: int = 100) -> PodPlan:
    """One more backend."""
    pod = prober.world.new_pod("a/s", host)
    pod.weight = weight
    prober.fabric.apply([pod_object(pod)])
    prober.fabric.plug(pod_object(pod), host)
    return pod


def call(prober: Prober, clients: list[PodPlan]) -> dict[str, str]:
    """Who serves a new connection of each client."""
    return {pod.key: opened(prober, pod.key, SIP).server for pod in clients}


def test_every_new_connection_of_a_client_goes_to_one_pod(prober: Prober) -> None:
    clients = crowd(prober)
    keep(prober, SECONDS)
    first = call(prober, clients)
    assert len(set(first.values())) == 2
    asked = prober.fabric.asked()
    for _ in range(3):
        assert call(prober, clients) == first
    assert prober.fabric.asked() == asked
    check_programs(prober.fabric)


def test_pods_that_come_take_no_client_before_its_time_is_over(prober: Prober) -> None:
    clients = crowd(prober)
    keep(prober, SECONDS)
    first = call(prober, clients)
    for _ in range(3):
        add(prober)
    prober.fabric.wait(SECONDS - 1)
    assert call(prober, clients) == first
    prober.fabric.wait(SECONDS - 1)  # since their last connection
    assert call(prober, clients) == first
    prober.fabric.wait(SECONDS + 1)
    later = call(prober, clients)
    moved = [key for key in later if later[key] != first[key]]
    assert moved
    assert all(later[key] not in first.values() for key in moved)  # only to those that have come
    check_programs(prober.fabric)


@pytest.mark.parametrize("how", ["draining", "weight", "gone", "unplugged"])
def test_only_the_clients_of_a_pod_that_leaves_move_and_at_once(prober: Prober, how: str) -> None:
    add(prober)
    clients = crowd(prober)
    keep(prober, SECONDS)
    first = call(prober, clients)
    pod = prober.world.pods["a/s-2"]
    assert pod.key in first.values()
    if how == "draining":
        pod.state = "draining"
    elif how == "weight":
        pod.weight = 0
    elif how == "gone":
        del prober.world.pods[pod.key]
    else:
        prober.fabric.unplug(pod_object(pod), "h2")
        pod.host = None
    prober.fabric.apply([o.Removed(o.Pod, pod.key) if how == "gone" else pod_object(pod)])
    then = call(prober, clients)
    assert pod.key not in then.values()
    assert {key: then[key] for key in first if first[key] != pod.key} == {
        key: server for key, server in first.items() if server != pod.key
    }
    # It comes back within the time: nobody goes back to it.
    if how in ("draining", "weight"):
        pod.state, pod.weight = "active", 100
        prober.fabric.apply([pod_object(pod)])
        assert call(prober, clients) == then
    check_programs(prober.fabric)


def test_a_new_master_knows_who_has_which_pod(prober: Prober) -> None:
    clients = crowd(prober)
    keep(prober, SECONDS)
    first = call(prober, clients)
    add(prober)
    add(prober)
    before = len(prober.fabric.commands)
    prober.fabric.restart_controller(random.Random(1))
    assert all(isinstance(item[1], m.PutGroup) for item in prober.fabric.commands[before:])
    assert call(prober, clients) == first


def test_the_option_comes_and_goes_and_cuts_nothing(prober: Prober) -> None:
    held = [opened(prober, "b/u-1", SIP) for _ in range(4)]
    keep(prober, SECONDS)
    held += [opened(prober, "b/u-1", SIP) for _ in range(4)]
    assert all(map(prober.check_open, held))
    keep(prober, 0)
    assert all(map(prober.check_open, held))
    assert not [d for node in prober.fabric.nodes.values() for d in node.program.demands if isinstance(d, Kept)]
    prober.check_all(((TCP, 80),))
    check_programs(prober.fabric)


def test_choices_follow_the_weights_within_three_percent(prober: Prober) -> None:
    add(prober, weight=300)
    keep(prober, SECONDS)
    model = prober.fabric.model
    picks = (chosen(model, 100, packed(SIP), number.to_bytes(4, "big")) for number in range(100_000))
    counted = Counter(pick.pod for pick in picks if pick)
    total = sum(counted.values())
    assert sorted(round(count / total, 2) for count in counted.values()) == [0.2, 0.2, 0.6]
    for count, share in zip(sorted(counted.values()), (0.2, 0.2, 0.6), strict=True):
        assert abs(count / total / share - 1) < 0.03


def test_a_pod_that_calls_itself_may_keep_itself(prober: Prober) -> None:
    prober.world.kept = {KEY: SECONDS}
    prober.fabric.apply([service_ip_object(prober.world, KEY)])
    for client in ("a/s-1", "a/s-2"):
        servers = {opened(prober, client, SIP).server for _ in range(6)}
        assert len(servers) == 1
    assert SIP == SERVICE_BLOCK + 10
