# SPDX-License-Identifier: Apache-2.0
"""What is read of the flows of a switch."""

from __future__ import annotations

import struct

import pytest

from qnet_controller.openflow import oxm, reading, wire
from qnet_controller.openflow.guard import Violation
from qnet_controller.pipeline.fields import IN_PORT, IPV4_SRC
from qnet_controller.pipeline.messages import InstalledFlow, Match, Traffic, match
from qnet_controller.pipeline.tables import Table

PORTS = [match((IN_PORT, 7)), match((IN_PORT, 8)), match((IPV4_SRC, 0x0A000001))]


def described(matching: Match, packets: int, octets: int) -> bytes:
    """An ofp_flow_desc with counters of packets and bytes (OpenFlow 1.5.1, 7.3.5.2 and 7.2.4)."""
    counters = struct.pack("!IQIQ", 0x80020A08, octets, 0x80020808, packets)
    statistics = struct.pack("!HH", 0, 4 + len(counters)) + counters
    statistics += bytes(-len(statistics) % 8)
    rest = oxm.encode_match(matching) + statistics
    return struct.pack("!H2xBxHHHHHQ", 24 + len(rest), Table.ADMISSION, 100, 0, 0, 0, 0, 0x71) + rest


def reply(*flows: bytes) -> bytes:
    return wire.message(19, struct.pack("!HH4x", 17, 0) + b"".join(flows), 1)


def test_flows_that_carried_nothing_are_left_out_when_only_used_ones_are_wanted() -> None:
    data = reply(*(described(one, packets, packets * 100) for one, packets in zip(PORTS, (0, 3, 0), strict=True)))
    found = [(InstalledFlow((Table.ADMISSION, 100, one), 0x71), Traffic(n, n * 100)) for one, n in
             zip(PORTS, (0, 3, 0), strict=True)]  # fmt: skip
    assert list(reading.counted_flows(data)) == found
    assert list(reading.counted_flows(data, used=True)) == found[1:2]


@pytest.mark.parametrize("used", [False, True])
def test_a_match_that_leads_out_of_its_flow_is_a_violation(used: bool) -> None:
    flow = bytearray(described(PORTS[0], 0, 0))
    flow[26:28] = (0x7FFF).to_bytes(2, "big")
    with pytest.raises(Violation):
        list(reading.counted_flows(reply(bytes(flow)), used=used))
