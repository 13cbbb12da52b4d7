# SPDX-License-Identifier: Apache-2.0
"""The policy oracle: random tenants put through random changes, and everything that decides held against it.

After every step and for every pair of a pod and an address: the oracle says where a packet goes, the simulated switches
deliver it there, and `ofproto/trace` on real switches with the same flows takes it the same way through the tables, on
the sender's host and on the receiver's. IPv4 and IPv6, two networks with the same addresses. Every list of states is
played once more backwards, with empty states between, and in one leap; each time what was reached step by step is what
a new program makes from scratch. test_live.py does the same with real packets, for a few.

QNET_ORACLE_WORLDS: how many tenant configurations.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from contract.real import own_network, vswitch
from simulator.check import Refused
from simulator.conntrack import Datapath
from simulator.fabric import TUNNEL_PORT, VIRTUAL_MAC, Node
from simulator.packets import Packet
from simulator.switch import Emission

from .changes import Changer
from .probe import PROBES, Prober
from .states import EMPTY, go_to, snapshot
from .tenants import World, pod_object
from .test_simulated import HOSTS, build, check_programs
from .tracing import Mirror, Trace

pytestmark = [pytest.mark.live, pytest.mark.timeout(1200)]
WORLDS, STEPS, PORTS = int(os.environ.get("QNET_ORACLE_WORLDS", "300")), 3, 40
CONVERSATIONS = 3
DATAPATHS: tuple[Datapath, Datapath] = ("netdev", "system")
BATCHES = 10


class Real:
    """Real switches that mirror the simulated ones."""

    def __init__(self, switches: dict[str, tuple[Mirror, Trace]]) -> None:
        self._switches = switches
        self.counted: Counter[str] = Counter()

    def follow(self, prober: Prober) -> None:
        """Take over the flows."""
        for name, node in prober.fabric.nodes.items():
            self._switches[name][0].follow(node.switch)

    def check(self, prober: Prober, node: Node, packet: Packet, port: int, tunnel: dict[str, int]) -> None:
        """Trace a packet on its host, and on the one that it goes to."""
        outcomes, flight = node.switch.follow(packet, port, tunnel)
        if different := self._switches[node.name][1].differs(packet, port, tunnel, flight):
            prober.fail(different)
        self.counted["in part" if flight.changes else "whole"] += 1
        for outcome in outcomes:
            if isinstance(outcome, Emission) and node.switch.ports[outcome.port] == TUNNEL_PORT:
                there = next(n for n in prober.fabric.nodes.values() if n.vtep == outcome.tun_dst)
                outer = {"tun_src": node.vtep, "tun_dst": outcome.tun_dst, "tun_id": outcome.tun_id}
                self.check(prober, there, outcome.packet, 1, outer)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with ExitStack() as stack:
        switches = {}
        for number, name in enumerate(HOSTS, 1):
            stack.callback(own_network())  # each has interfaces of the same names
            bridge = f"q{name}"
            ovs = stack.enter_context(vswitch(tmp_path_factory.mktemp(name), bridge, number))
            tunnel = ("type=vxlan", "options:remote_ip=flow", "options:key=flow")
            wanted: list[str] = []
            for port in range(1, PORTS):
                kind = tunnel if port == 1 else ("type=internal",)
                wanted += ["--", "add-port", bridge, f"{name}p{port}"]
                wanted += ["--", "set", "interface", f"{name}p{port}", f"ofport_request={port}", *kind]
            ovs.vsctl(*wanted[1:])
            switches[name] = (Mirror(ovs), Trace(ovs))
        yield Real(switches)


def check(prober: Prober, chooser: random.Random, real: Real) -> int:
    """Every pair by one packet, some by whole conversations, all of them on real switches; returns how many pairs."""
    pairs = list(prober.pairs())
    sent = [(client, prober.first(client, address, *chooser.choice(PROBES))) for client, address in pairs]
    for client, address in chooser.sample(pairs, min(len(pairs), CONVERSATIONS)):
        prober.probe(client, address, *chooser.choice(PROBES))
    sent += [(client, prober.to_all(client, number)) for number, client in enumerate(prober.clients())]
    check_programs(prober.fabric)
    real.follow(prober)
    for client, packet in sent:
        node, port = prober.fabric.port(pod_object(client))
        fresh = packet.copy()  # of another connection of the same pair
        fresh.src_port = 1024 + fresh.src_port % 18000 if fresh.has_ports else 0
        fresh.icmp_id ^= 0x8000 if fresh.is_icmp else 0
        fresh.eth_src, fresh.eth_dst = int.from_bytes(pod_object(client).mac, "big"), packet.eth_dst or VIRTUAL_MAC
        real.check(prober, node, fresh, port, {})
    return len(pairs)


def replay(prober: Prober, chooser: random.Random, order: list[World]) -> int:
    """Go from state to state with some packets in each and all pairs in the last; returns how many pairs."""
    count = 0
    for number, state in enumerate(order, 1):
        go_to(prober, state)
        pairs = list(prober.pairs())
        if number < len(order):
            pairs = chooser.sample(pairs, len(pairs) // 10)
        for client, address in pairs:
            prober.first(client, address, *chooser.choice(PROBES))
        count += len(pairs)
    check_programs(prober.fabric)
    return count


@pytest.mark.parametrize("batch", range(BATCHES))
def test_oracle_simulator_and_trace_agree_after_every_change(batch: int, real: Real) -> None:
    pairs = 0
    for seed in range(1000 + batch, 1000 + WORLDS, BATCHES):
        chooser, prober = build(seed, DATAPATHS[seed // BATCHES % 2])
        changer, history, states = Changer(prober, chooser), list[str](), [snapshot(prober)]
        try:
            pairs += check(prober, chooser, real)
            for _ in range(STEPS):
                history.append(changer.step())
                pairs += check(prober, chooser, real)
                states.append(snapshot(prober))
            for title, order in (
                ("backwards", states[::-1]),
                ("with empty states", [state for full in states for state in (EMPTY, full)]),
                ("in one leap", [states[0], states[-1]]),
            ):
                history.append(title)
                pairs += replay(prober, chooser, order)
        except (AssertionError, Refused) as error:
            raise AssertionError(f"seed {seed}, after: " + "; ".join(history) + f"\n{error}") from error
    assert real.counted["whole"] > real.counted["in part"] > 0
    print(f"{pairs} pairs; traces so far: {dict(real.counted)}")
