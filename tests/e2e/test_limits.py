# SPDX-License-Identifier: Apache-2.0
"""Every pod has its own limit of tracked connections, also after Open vSwitch has died (ADR 0033)."""

from __future__ import annotations

import re

import pytest
from tests.e2e.fleet import Fleet, eventually

LIMIT, OF_ITSELF, HIGHEST = 200_000, 0x8000, 0x7FFF
LIMIT_SECONDS = 60.0
pytestmark = pytest.mark.timeout(600)


def limits(fop: Fleet, host: str) -> set[int]:
    """The limits of a few zones: of pods that are there, of themselves, and of the highest port."""
    zones = ",".join(str(base + port) for port in (1, 2, HIGHEST) for base in (0, OF_ITSELF))
    shown = fop.run(host, "sh", "-c", f"ovs-appctl dpctl/ct-get-limits zone={zones} || true")
    return {int(found) for found in re.findall(r"zone=\d+,limit=(\d+)", shown)}


def test_every_pod_has_its_limit_also_after_open_vswitch_has_died(fop: Fleet) -> None:
    host = fop.groups["switches"][-1]
    eventually(lambda: limits(fop, host) == {LIMIT}, LIMIT_SECONDS, "every zone has its limit")
    process = fop.run(host, "cat", "/run/openvswitch/ovs-vswitchd.pid").strip()
    fop.run(host, "kill", "-KILL", process)
    eventually(lambda: limits(fop, host) == {LIMIT}, LIMIT_SECONDS, "every zone has its limit again")
    assert fop.run(host, "cat", "/run/openvswitch/ovs-vswitchd.pid").strip() != process
    eventually(lambda: fop.switch(host), LIMIT_SECONDS, f"{host} has a master again")
