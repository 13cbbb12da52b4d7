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
from qnet_controller.pipeline.what_if import BROADCAST, EVERYTHING, Reach, WhatIf, what_if
from simulator.conntrack import Datapath
from simulator.fabric import open_session

from .changes import Changer
from .live import Fleet
from .probe import Prober
from .revocation import PROGRAM, SIP_OF_T, Streams, settle, world
from .revocation import SIP as SIP_OF_S
from .scene import SIP, opened, revoke
from .tenants import ICMP, TCP, UDP, group_object, pod_object
from .test_simulated import HOSTS, build, check_programs

WORLDS, CHANGES = 10, 10  # on two kinds of datapath: 200 changes
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
        (client.key, int.from_bytes(item.address, "big"), protocol, port)
        for item in reach
        for client in prober.clients()
        if (client.group, client.network) == (item.group, item.network)
        for protocol, port in HOWS
        if item.rule in ((EVERYTHING.protocol, None), (protocol, port), (protocol, None))
    }


@pytest.mark.parametrize("datapath", ["netdev", "system"])
@pytest.mark.parametrize("seed", range(400, 400 + WORLDS))
def test_what_is_predicted_is_what_is_measured(seed: int, datapath: Datapath) -> None:
    chooser, prober = build(seed, datapath, hosts=2)
    changer, predicting = Changer(prober, chooser), Predicting(prober)
    prober.fabric.apply = predicting  # type: ignore[method-assign]
    kinds = (changer.add_export, changer.remove_export, changer.edit_export, changer.edit_export,
             changer.add_service_ip, changer.remove_service_ip, changer.edit_broadcast)  # fmt: skip
    before, done = measured(prober), 0
    while done < CHANGES:
        change = chooser.choice(kinds)()
        if change is None:
            continue
        done += 1
        found = predicting.found
        assert found is not None
        after = measured(prober)
        gained, lost = pairs_of(prober, found.gained), pairs_of(prober, found.lost)
        assert (gained - lost) & after == after - before, change
        assert (lost - gained) & before == before - after, change
        assert set().union(*found.cut.values()) == predicting.cut, change
        assert {n: Counter(map(repr, c)) for n, c in found.commands.items()} == predicting.commands, change
        before = after
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
