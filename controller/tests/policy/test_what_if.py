# SPDX-License-Identifier: Apache-2.0
"""What-if is exact: what it says about reach, connections and flows is what the change then does, packet by packet."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from qnet_controller.model import objects as o
from qnet_controller.pipeline.what_if import BROADCAST, EVERYTHING, OUTSIDE, Reach, WhatIf, what_if
from simulator.conntrack import Datapath
from simulator.fabric import open_session

from .changes import Changer
from .live import Fleet
from .oracle import never_outside
from .probe import Prober
from .revocation import PROGRAM, SIP_OF_T, Streams, settle, world
from .revocation import SIP as SIP_OF_S
from .scene import SIP, opened, revoke
from .tenants import ICMP, OUTSIDE_ADDRESSES, TCP, UDP, EgressPlan, PodPlan, World, group_object, pod_object
from .test_simulated import HOSTS, build, check_programs

WORLDS, CHANGES = 15, 14  # on two kinds of datapath: 420 changes
BETWEEN = 0.3  # how often a pod moves, or its link goes up or down, before a change
LIVE_CHANGES, QUIET_SECONDS, TICK_MILLISECONDS = 6, 1.0, 40
WISHES: tuple[dict[str, object], ...] = (
    {"state": "absent"}, {"direct": False}, {"ports": ["tcp/7000"]}, {"ports": ["udp/7000"]}, {"ports": ["tcp/81"]},
    {"ports": ["tcp/7000"], "direct": False}, {"ports": ["tcp/7000", "udp/7000"]},
)  # fmt: skip
SPORTS = itertools.cycle(range(20000, 60000))
HOWS: tuple[tuple[int, int | None], ...] = ((TCP, 80), (TCP, 81), (UDP, 53), (ICMP, None))
Pairs = set[tuple[str, int, int, int | None]]
"""(client, address, protocol, port)"""


class Predicting:
    """Stands in front of `Fabric.apply`: asks what would happen, lets it happen, and keeps both."""

    def __init__(self, prober: Prober) -> None:
        self.prober, self.fabric = prober, prober.fabric
        self.apply = prober.fabric.apply
        self.found: WhatIf | None = None
        self.commands: dict[int, Counter[object]] = {}
        self.cut: set[object] = set()

    def __call__(self, changes: Iterable[o.Change]) -> None:
        fabric, changes = self.fabric, list(changes)
        fabric.forget()
        nodes = {node.switch.datapath_id: node for node in fabric.nodes.values()}
        listed = {number: node.switch.conntrack.listed(fabric.clock.now) for number, node in nodes.items()}
        programs = {number: node.program for number, node in nodes.items()}
        self.found = what_if(fabric.model, changes, programs, listed, fabric.clock.now)
        check_programs(fabric)
        before = len(fabric.commands)
        self.apply(changes)
        said = fabric.commands[before:]
        self.commands = {n: Counter(repr(c) for host, c in said if host == node.name) for n, node in nodes.items()}
        self.cut = set(fabric.forget())


def measured(prober: Prober) -> Pairs:
    """Who reaches whom, found out with packets."""
    found: Pairs = set()
    for client, address in prober.pairs():
        source = client.own(address)
        for protocol, port in HOWS if source is not None else ():
            session = open_session(
                prober.fabric, pod_object(client), source or 0, address, protocol, next(SPORTS), port or 0
            )
            if session.server:
                found.add((client.key, address, protocol, port))
    return found


def pairs_of(prober: Prober, reach: Iterable[Reach]) -> Pairs:
    """The pairs of pods and addresses that these are."""
    return {
        (client.key, address, protocol, port)
        for item in reach
        for client in prober.clients()
        for address in _targets(prober, client, item)
        for protocol, port in HOWS
        if item.rule in ((EVERYTHING.protocol, None), (protocol, port), (protocol, None))
    }


def _targets(prober: Prober, client: PodPlan, item: Reach) -> list[int]:
    """The addresses that an item says something about to a client."""
    if client.group != item.group or item.target == BROADCAST:
        return []
    if item.target != OUTSIDE:
        found = [int.from_bytes(item.address, "big")] if client.network == item.network else []
    else:
        rule = EgressPlan(int.from_bytes(item.address, "big"), item.prefix)
        found = [a for a in OUTSIDE_ADDRESSES if rule.opens(a, TCP, None) and not never_outside(a)]
    return [address for address in found if client.own(address) not in (None, address)]


def unchanged_egress(world: World, before: dict[str, frozenset[EgressPlan]], pairs: Pairs) -> Pairs:
    """Those of the pairs that a rule opens which the change leaves alone: what-if speaks of rules that come and go."""
    found = set()
    for client, address, protocol, port in pairs:
        group = client.partition("/")[0]
        same = before.get(group, frozenset()) & world.egress.get(group, frozenset())
        if address in OUTSIDE_ADDRESSES and any(rule.opens(address, protocol, port) for rule in same):
            found.add((client, address, protocol, port))
    return found


@pytest.mark.parametrize("datapath", ["netdev", "system"])
@pytest.mark.parametrize("seed", range(400, 400 + WORLDS))
def test_what_is_predicted_is_what_is_measured(seed: int, datapath: Datapath) -> None:
    chooser, prober = build(seed, datapath, hosts=2)
    changer, predicting = Changer(prober, chooser), Predicting(prober)
    prober.fabric.apply = predicting  # type: ignore[method-assign]
    kinds = (
        changer.add_export, changer.remove_export, changer.edit_export, changer.edit_export, changer.add_service_ip,
        changer.remove_service_ip, changer.add_pod, changer.reuse_address, changer.remove_pod, changer.scale_service,
        changer.drain_pod, changer.drain_pod, changer.weigh_pod, changer.edit_egress, changer.edit_egress,
        changer.give_pod_to_service, changer.remove_service, changer.remove_group,
        changer.edit_broadcast,
    )  # fmt: skip
    done: list[str] = []
    while len(done) < CHANGES:
        if chooser.random() < BETWEEN:  # what no intent says is as it may be
            chooser.choice((changer.move_pod, changer.set_link))()
        before, egress = measured(prober), dict(prober.world.egress)
        clients = {client.key for client in prober.clients()}
        kind = chooser.choice(kinds)
        change = kind()
        if change is None:
            continue
        done.append(change)
        found = predicting.found
        assert found is not None
        clients &= {client.key for client in prober.clients()}
        before, after = ({pair for pair in pairs if pair[0] in clients} for pairs in (before, measured(prober)))
        gained, lost = ({p for p in pairs_of(prober, part) if p[0] in clients} for part in (found.gained, found.lost))
        same = unchanged_egress(prober.world, egress, gained | lost)
        assert gained - lost - same == after - before, done
        assert lost - gained - same == before - after, done
        assert set().union(*found.cut.values()) == predicting.cut, done
        assert {n: Counter(map(repr, c)) for n, c in found.commands.items()} == predicting.commands, done
    check_programs(prober.fabric)


def test_who_may_speak_to_all_is_predicted(prober: Prober) -> None:
    predicting = Predicting(prober)
    prober.fabric.apply = predicting  # type: ignore[method-assign]
    for wanted, (gains, loses) in ({"a"}, (["a"], [])), ({"b", "x"}, (["b", "x"], ["a"])), (set(), ([], ["b", "x"])):
        changed = sorted(prober.world.broadcast ^ wanted)
        prober.world.broadcast = set(wanted)
        prober.fabric.apply([group_object(prober.world, group) for group in changed])
        assert predicting.found is not None
        for found, groups in (predicting.found.gained, gains), (predicting.found.lost, loses):
            networks = {"a": "red", "b": "red", "x": "blue"}
            assert [(r.group, r.target, r.network) for r in found] == [(g, BROADCAST, networks[g]) for g in groups]
        for client in prober.clients():
            prober.to_all(client, 0)


def test_what_is_cut_is_said_by_host_with_an_end_on_each(prober: Prober) -> None:
    items = [opened(prober, client, SIP) for client in ("b/u-1", "b/u-2") for _ in range(4)]
    predicting = Predicting(prober)
    prober.fabric.apply = predicting  # type: ignore[method-assign]
    revoke(prober, "a/s", "b")
    assert predicting.found is not None
    ends = {host: len(predicting.found.cut[number]) for host, (number, _) in HOSTS.items()}
    place = {key: pod.host for key, pod in prober.world.pods.items()}
    assert ends == {host: sum(host in (place[i.client], place[i.server]) for i in items) for host in HOSTS}
    assert len(predicting.cut) == len(items)


@pytest.mark.live
@pytest.mark.timeout(240)
def test_what_is_predicted_to_be_cut_is_cut_on_live_switches(tmp_path: Path) -> None:
    """The same with real Open vSwitch: its connections, the receipt of the change, and streams that really end."""
    chooser = random.Random(23)
    with Fleet(tmp_path, world(), ["h1", "h2"], PROGRAM) as fleet:
        fleet.wait_until_ready()
        for wish in chooser.sample(WISHES, LIVE_CHANGES):
            streams = Streams(fleet)
            pods = [pod.address for key, pod in fleet.world.pods.items() if key.startswith("a/")]
            kinds = [(p, address, 3, TICK_MILLISECONDS) for p in (TCP, UDP) for address in (*pods, SIP_OF_S, SIP_OF_T)]
            streams.open("b/u-1", kinds * 2)
            settle(streams)
            service = chooser.choice(("a/s", "a/t"))
            asked = {"_ansible_check_mode": True, "_ansible_diff": True}
            would = fleet.module("qnet_export", service=service, to="b", **wish, **asked)["what_if"]
            done = fleet.module("qnet_export", service=service, to="b", **wish, wait=True)["receipt"]
            assert would["ended"] == done["ended"], wish
            flows = [
                {part["host"]: (part["flows_added"], part["flows_removed"]) for part in said["hosts"]}
                for said in (would, done)
            ]
            assert flows[0] == flows[1], wish
            assert len(stopped(streams)) == would["connections_ended"], (wish, service)
            for name in ("a/s", "a/t"):  # so that the next round begins with no connection
                fleet.module("qnet_export", service=name, to="b", state="absent", wait=True)
            streams.close()
            for name in ("a/s", "a/t"):
                fleet.module("qnet_export", service=name, to="b", direct=True, wait=True)
        more = [{"name": "a/s-9", "service": "a/s"}]
        gained = fleet.module("qnet_pod", state="declared", pods=more, **asked)["what_if"]["gained"]
        assert {(item["group"], item["target"]) for item in gained} == {("a", "a/s-9"), ("b", "a/s-9")}


def stopped(streams: Streams) -> set[int]:
    """The streams that carry nothing any more, whichever end sends."""
    time.sleep(QUIET_SECONDS)
    before = streams.report()
    time.sleep(QUIET_SECONDS)
    after = streams.report()
    return {n for n in streams.opened if all(before[n][side][2] == after[n][side][2] for side in before[n])}
