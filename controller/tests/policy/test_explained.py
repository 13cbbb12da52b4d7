# SPDX-License-Identifier: Apache-2.0
"""What a trace says of every pair of a random world is what the policy says."""

from __future__ import annotations

import pytest

from qnet_controller.controller.trace import Packet, trace
from simulator.packets import packed

from .oracle import expected
from .probe import PROBES
from .test_simulated import build


@pytest.mark.parametrize("seed", range(200, 212))
def test_a_trace_is_as_the_policy_says(seed: int) -> None:
    _, prober = build(seed, "netdev")
    model, now = prober.fabric.model, prober.fabric.clock.now
    delivered = 0
    for client, address in prober.pairs():
        for protocol, port in PROBES:
            want = expected(prober.world, client, address, protocol, port, now)
            found = trace(model, model.pods[client.key], packed(address), Packet(protocol, port), now)
            what = f"{client.key} -> {prober.describe(client, address)} {protocol}/{port}: {found}"
            assert found.passes == bool(want.receivers), what
            if found.passes:
                assert {way.target for way in found.ways} == want.receivers, what
                delivered += 1
            else:
                assert any(not step.passes for step in (*found.steps, *(s for w in found.ways for s in w.steps))), what
    assert delivered
