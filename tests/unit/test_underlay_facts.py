# SPDX-License-Identifier: Apache-2.0
"""What the role underlay makes of the interfaces of a host."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "roles/underlay/library/underlay_facts.py"
WANTED = {
    "host": "h1", "interface": "eth1", "vtep_address": "", "minimum_overlay_mtu": 1280, "networks": [],
    "datapath_identity": "00000000000000aa",
}  # fmt: skip


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The module as a library."""
    spec = importlib.util.spec_from_file_location("underlay_facts", FILE)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def link(name: str, mtu: int = 1500, **addresses: str) -> dict[str, Any]:
    """An interface as `ip -json address show` says it; IPv6 first, to see that the order is ours."""
    shown = [{"family": family, "local": address, "scope": "global"} for family, address in addresses.items()]
    return {
        "ifname": name,
        "mtu": mtu,
        "address": "02:00:00:00:00:01",
        "addr_info": sorted(shown, key=str, reverse=True),
    }


def test_the_first_ipv4_address_is_the_tunnel_end_point(module: ModuleType) -> None:
    found, reasons = module.facts([link("lo"), link("eth1", inet6="2001:db8::1", inet="192.0.2.1")], WANTED)
    assert (found["vtep"], found["overlay_mtu"], found["pods_mtu"], reasons) == ("192.0.2.1", 1450, 0, [])


def test_ipv6_costs_twenty_bytes_more(module: ModuleType) -> None:
    found, reasons = module.facts([link("eth1", inet6="2001:db8::1")], WANTED)
    assert (found["vtep"], found["overlay_mtu"], reasons) == ("2001:db8::1", 1430, [])


def test_addresses_that_have_moved_to_the_bridge_are_found_there(module: ModuleType) -> None:
    links = [
        link("eth1"),
        link("br-phy", inet="192.0.2.1"),
        link("qn0123456789ab", mtu=1400),
        link("qnet-out", mtu=9000),
    ]
    found, reasons = module.facts(links, WANTED)
    assert (found["vtep"], found["pods_mtu"], reasons) == ("192.0.2.1", 1400, [])


def test_all_reasons_are_given_at_once(module: ModuleType) -> None:
    wanted = {**WANTED, "vtep_address": "192.0.2.9", "networks": [{"name": "large", "mtu": 1300}, {"name": "any"}]}
    dummy, reasons = module.facts([link("eth1", mtu=1300, inet="192.0.2.1")], wanted)
    assert [reason.split()[0] for reason in reasons] == ["underlay_vtep_address:", "eth1", "qnet_networks:"]
    assert "'192.0.2.9' is not an address of eth1 on h1; it has 192.0.2.1" in reasons[0]
    assert "MTU 1300, which leaves 1250" in reasons[1]
    assert "the mtu of large is more than the 1250" in reasons[2]


def test_a_missing_interface_is_named_with_those_that_are_there(module: ModuleType) -> None:
    dummy, reasons = module.facts([link("lo"), link("eth0")], WANTED)
    assert reasons == ["qnet_underlay_interface: h1 has no interface 'eth1'; it has lo, eth0"]
