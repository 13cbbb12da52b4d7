# SPDX-License-Identifier: Apache-2.0
"""What hosts a lab has, and on which networks."""

from __future__ import annotations

import importlib
import ipaddress
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import plan

LAB = Path(__file__).resolve().parents[2] / "lab"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> plan.Lab:
    monkeypatch.setattr(sys, "path", [str(LAB), *sys.path])
    module = importlib.import_module("plan")
    made: plan.Lab = module.Lab(
        "test",
        controllers=1,
        switches=3,
        block="172.20.4.0/22",
        virtual=1,
        underlays=2,
        releases=("bookworm", "trixie"),
    )
    return made


def test_switches_take_releases_and_underlays_in_turn(lab: plan.Lab) -> None:
    switches = [host for host in lab.hosts if host.group == "switches"]
    assert [(host.name, host.release, host.underlay) for host in switches[:3]] == [
        ("h1", "bookworm", 0),
        ("h2", "trixie", 1),
        ("h3", "bookworm", 0),
    ]
    assert (switches[3].name, switches[3].virtual, switches[3].underlay) == ("v1", True, 1)


def test_no_two_hosts_share_an_address_or_a_mac(lab: plan.Lab) -> None:
    for network in (0, 1):
        assert len({lab.address(host, network) for host in lab.hosts}) == len(lab.hosts)
    assert len({lab.mac(host, network) for host in lab.hosts for network in (0, 1)}) == 2 * len(lab.hosts)


def test_the_router_of_a_host_is_on_its_own_underlay(lab: plan.Lab) -> None:
    for host in lab.hosts:
        own = ipaddress.ip_network(list(lab.networks.values())[1 + host.underlay])
        for to, via in lab.routes(host).items():
            assert ipaddress.ip_address(via) in own
            assert not ipaddress.ip_network(to).overlaps(own)


def test_the_group_of_a_lab_goes_with_what_is_in_it_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(LAB), *sys.path])
    host = importlib.import_module("host")
    monkeypatch.setattr(host, "GROUPS", tmp_path)
    for kind in ("cpu", "pids"):
        for name in ("test", "test-2"):
            (tmp_path / kind / host.group_of(name) / "conmon").mkdir(parents=True)
    host.remove_group("test")
    assert sorted(found.name for found in tmp_path.glob("*/*")) == ["qnet-lab-test-2", "qnet-lab-test-2"]
