# SPDX-License-Identifier: GPL-3.0-or-later
"""qnet_offload between two hosts joined by a wire that is good, and by one that spoils what the card has cut."""

from __future__ import annotations

import pathlib
import typing as t
from collections.abc import Iterator

import pytest

from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host, reason_to_skip

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))

PROGRAM = pathlib.Path(__file__).resolve().parents[6] / "roles/offload/files/qnet_offload_probe.py"
MTU = 1450
# Behind the headers of a tunnelled TCP segment; only packets that were left to the card to cut are that long.
SPOIL = """
table netdev bad {
  chain ingress {
    type filter hook ingress device "eth1" priority 0;
    udp dport 14789 meta length > 1600 @th,800,16 set 0xdead
  }
}
"""
# As a receiver does that checks checksums: what a bad card has sent never arrives.
DISCARD = SPOIL.replace("@th,800,16 set 0xdead", "drop")
Result = dict[str, t.Any]


class Pair:
    """Two hosts; the second one serves, and the module runs on the first."""

    def __init__(self, here: Host, there: Host, pinned: pathlib.Path) -> None:
        self.here, self.there, self.pinned = here, there, pinned

    def module(self, check_mode: bool = False, **options: t.Any) -> Result:
        ends = {"local": "192.0.2.1", "remote": "192.0.2.2", "number": 7, "mtu": MTU, "seconds": 0.5}
        probe = {"probe": {"program": str(PROGRAM), **ends}}
        options = {"interface": "eth1", "pinned_file": str(self.pinned), **probe, **options}
        return self.here.module("qnet_offload", check_mode, **options)

    def feature(self, name: str) -> str:
        lines = self.here.run("ethtool", "-k", "eth1").splitlines()
        return next(line.split()[1] for line in lines if line.strip().startswith(f"{name}:"))

    def spoil(self, rules: str) -> None:
        rules_file = self.pinned.with_name("rules.nft")
        rules_file.write_text(rules)
        self.there.run("nft", "-f", str(rules_file))


@pytest.fixture
def pair(tmp_path: pathlib.Path, target_python: str, import_path: str) -> Iterator[Pair]:
    hosts = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        hosts.append(Host(tmp_path / name, target_python, import_path))
    here, there = hosts
    try:
        for host in hosts:
            host.start(switch=False)
        here.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", str(there.pid))
        for number, host in enumerate(hosts, 1):
            host.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", "eth1")
            host.run("ip", "link", "set", "eth1", "up")
        words = ("--local", "192.0.2.2", "--remote", "192.0.2.1", "--number", "7", "--mtu", str(MTU))
        server = there.popen("python3", str(PROGRAM), "serve", *words, stdout=-1)
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "ready"
        yield Pair(here, there, tmp_path / "offload.json")
        server.terminate()
        server.communicate(timeout=10)
    finally:
        for host in hosts:
            host.stop()


def test_the_best_level_is_proved_pinned_and_then_left_alone(pair: Pair) -> None:
    pair.here.run("ethtool", "-K", "eth1", "tx-udp_tnl-segmentation", "off")
    first = pair.module()
    assert (first["level"], first["proved"], first["changed"]) == ("stateless", True, True), first
    assert set(first["probes"]) == {"stateless", "none"}
    assert first["gain"] > 0
    assert pair.feature("tx-udp_tnl-segmentation") == "on"
    again = pair.module()
    assert (again["changed"], again["probes"], again["level"]) == (False, {}, "stateless")


@pytest.mark.parametrize(("rules", "symptom"), [(SPOIL, "arrived changed"), (DISCARD, "stalled")])
def test_a_card_that_spoils_packets_falls_back_and_the_report_says_why(pair: Pair, rules: str, symptom: str) -> None:
    pair.spoil(rules)
    result = pair.module()
    assert (result["level"], result["proved"]) == ("none", True), result["reasons"]
    assert "stateless failed" in " ".join(result["reasons"])
    assert symptom in " ".join(result["reasons"])
    assert pair.feature("tx-udp_tnl-segmentation") == "off"
    assert pair.module()["changed"] is False


def test_what_somebody_else_switched_is_put_right_without_trying_again(pair: Pair) -> None:
    pair.module()
    pair.here.run("ethtool", "-K", "eth1", "tx-udp_tnl-csum-segmentation", "off")
    assert pair.module(True)["changed"] is True
    assert pair.feature("tx-udp_tnl-csum-segmentation") == "off"
    result = pair.module()
    assert (result["changed"], result["probes"]) == (True, {})
    assert pair.feature("tx-udp_tnl-csum-segmentation") == "on"


def test_another_kernel_is_tried_again(pair: Pair) -> None:
    pair.module()
    pair.pinned.write_text(pair.pinned.read_text().replace('"identity": "veth', '"identity": "veth-of-yesterday'))
    assert pair.here.module("qnet_offload_info", interface="eth1", pinned_file=str(pair.pinned))["current"] is False
    assert "stateless" in pair.module()["probes"]


def test_a_wish_is_kept_below_what_the_card_may_have(pair: Pair) -> None:
    assert pair.module(level="none")["level"] == "none"
    assert pair.feature("tx-udp_tnl-segmentation") == "off"
    assert pair.module(level="flow")["level"] == "stateless"


def test_a_wire_that_is_cut_is_not_blamed_on_the_card(pair: Pair) -> None:
    pair.there.run("ip", "link", "set", "eth1", "down")
    result = pair.module()
    assert result["proved"] is False
    assert "the card is not the cause" in " ".join(result["reasons"])


def test_an_interface_that_is_not_there_is_named(pair: Pair) -> None:
    result = pair.module(interface="eth9")
    assert result["failed"]
    assert "eth9" in result["msg"]
