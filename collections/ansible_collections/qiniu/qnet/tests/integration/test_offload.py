# SPDX-License-Identifier: GPL-3.0-or-later
"""qnet_offload between two hosts joined by a wire that is good, and by those that spoil what was left to the card."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
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
    udp dport { 4789, 14789 } meta length > 1600 @th,800,16 set 0xdead
  }
}
"""
# As a receiver does that checks checksums: what a bad card has sent never arrives.
DISCARD = SPOIL.replace("@th,800,16 set 0xdead", "drop")
# The same for datagrams alone (in Ethernet, in IPv4), which mlx5_core cut wrongly in tunnels before Linux 6.10.
DISCARD_DATAGRAMS = DISCARD.replace("drop", "@th,224,16 0x0800 @th,312,8 17 drop")
# A card that is slow with what is left to it to cut.
SLOW = """
table netdev slow {
  chain egress {
    type filter hook egress device "eth1" priority 0;
    meta length > 1600 meta priority set 1:20
  }
}
"""
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

    def spoil(self, rules: str, host: Host | None = None) -> None:
        rules_file = self.pinned.with_name("rules.nft")
        rules_file.write_text(rules)
        (host or self.there).run("nft", "-f", str(rules_file))


@contextlib.contextmanager
def joined(tmp_path: pathlib.Path, hosts: list[Host]) -> Iterator[Pair]:
    """Two hosts whose interfaces `eth1` are joined already; the second one serves."""
    here, there = hosts
    for number, host in enumerate(hosts, 1):
        host.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", "eth1")
        host.run("ip", "link", "set", "eth1", "up")
    words = ("--local", "192.0.2.2", "--remote", "192.0.2.1", "--number", "7", "--mtu", str(MTU))
    server = there.popen("python3", str(PROGRAM), "serve", *words, stdout=-1)
    assert server.stdout is not None
    assert server.stdout.readline().strip() == "ready"
    try:
        yield Pair(here, there, tmp_path / "offload.json")
    finally:
        server.terminate()
        server.communicate(timeout=10)


@pytest.fixture
def hosts(tmp_path: pathlib.Path, target_python: str, import_path: str) -> Iterator[list[Host]]:
    made = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        made.append(Host(tmp_path / name, target_python, import_path))
    try:
        for host in made:
            host.start(switch=False)
        yield made
    finally:
        for host in made:
            host.stop()


@pytest.fixture
def pair(tmp_path: pathlib.Path, hosts: list[Host]) -> Iterator[Pair]:
    """The two joined by a wire of veth."""
    wire(hosts[0], "eth1", hosts[1], "eth1")
    with joined(tmp_path, hosts) as found:
        yield found


def wire(here: Host, device: str, there: Host, other: str) -> None:
    here.run("ip", "link", "add", device, "type", "veth", "peer", "name", other, "netns", str(there.pid))


@pytest.fixture
def without_checksums(
    tmp_path: pathlib.Path, hosts: list[Host], target_python: str, import_path: str
) -> Iterator[Pair]:
    """The two with a switch in user space between: it takes packets as they are, so a checksum that was left to the
    card is never completed, and whoever checks it drops the packet. This is how the stalls of 63 seconds come about.
    """
    (tmp_path / "between").mkdir()
    between = Host(tmp_path / "between", target_python, import_path)
    try:
        between.start()
        between.run("ovs-vsctl", "--timeout=20", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        for number, host in enumerate(hosts, 1):
            wire(host, "eth1", between, f"to{number}")
            between.run("ip", "link", "set", f"to{number}", "up")
            between.run("ovs-vsctl", "--timeout=20", "add-port", "br0", f"to{number}")
            host.run("ip", "link", "set", "eth1", "mtu", "1600")
            between.run("ip", "link", "set", f"to{number}", "mtu", "1600")
        with joined(tmp_path, hosts) as found:
            yield found
    finally:
        between.stop()


def test_the_best_level_is_proved_pinned_and_then_left_alone(pair: Pair) -> None:
    pair.here.run("ethtool", "-K", "eth1", "tx-udp_tnl-segmentation", "off")
    first = pair.module()
    assert (first["level"], first["proved"], first["changed"]) == ("stateless", True, True), first
    assert set(first["probes"]) == {"stateless", "none"}
    assert first["gain"] > 0
    assert pair.feature("tx-udp_tnl-segmentation") == "on"
    again = pair.module()
    assert (again["changed"], again["probes"], again["level"]) == (False, {}, "stateless")


@pytest.mark.parametrize(
    ("rules", "symptom"),
    [
        (SPOIL, "arrived changed"),
        (DISCARD, "stalled"),
        (DISCARD_DATAGRAMS, "11 of 11 datagrams that were cut from one over IPv4 did not come back"),
    ],
    ids=["spoils", "stalls", "loses datagrams"],
)
def test_a_card_that_spoils_packets_falls_back_and_the_report_says_why(pair: Pair, rules: str, symptom: str) -> None:
    pair.spoil(rules)
    result = pair.module()
    assert (result["level"], result["proved"]) == ("none", True), result["reasons"]
    assert "stateless failed" in " ".join(result["reasons"])
    assert symptom in " ".join(result["reasons"])
    assert pair.feature("tx-udp_tnl-segmentation") == "off"
    assert pair.module()["changed"] is False


def test_a_card_that_is_slower_than_the_kernel_is_left_out_unless_it_is_wished_for(pair: Pair) -> None:
    pair.here.run("tc", "qdisc", "add", "dev", "eth1", "root", "handle", "1:", "htb", "default", "10")
    for name, rate, burst in (("1:10", "20gbit", "1m"), ("1:20", "100mbit", "128k")):
        words = ("parent", "1:", "classid", name, "htb", "rate", rate, "burst", burst)
        pair.here.run("tc", "class", "add", "dev", "eth1", *words)
    pair.spoil(SLOW, pair.here)
    result = pair.module()
    assert (result["level"], result["proved"], result["gain"]) == ("none", True, None), result
    assert "stateless passed, and was measured slower: 0." in " ".join(result["reasons"])
    assert "in 4 streams" in " ".join(result["reasons"])
    assert pair.feature("tx-udp_tnl-segmentation") == "off"
    assert pair.module()["changed"] is False
    wished = pair.module(level="stateless")
    assert (wished["level"], wished["proved"]) == ("stateless", True), wished
    assert wished["gain"] < 0.9


# Echoes datagrams and swallows a stream, and says at its end how the stream came; each line of text is one of them.
SERVE = """
import json, selectors, socket, sys
udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.create_server(("", 7))
udp.bind(("", 7))
chosen = selectors.DefaultSelector()
for one in (udp, tcp, sys.stdin):
    chosen.register(one, selectors.EVENT_READ)
print("ready", flush=True)
total, right = 0, True
while True:
    for key, _ in chosen.select():
        if key.fileobj is udp:
            udp.sendto(*udp.recvfrom(2048))
        elif key.fileobj is tcp:
            chosen.register(tcp.accept()[0], selectors.EVENT_READ)
        elif key.fileobj is sys.stdin:
            print(json.dumps({"bytes": total, "right": right}))
            sys.exit()
        elif data := key.fileobj.recv(1 << 16):
            right = right and data == (bytes(range(256)) * 257)[total % 256:][:len(data)]
            total += len(data)
        else:
            chosen.unregister(key.fileobj)
            key.fileobj.close()
"""
# Sends a datagram and a piece of a stream every 20 ms; says how long the longest times without progress of either were.
# It ends a second after it was told to, once both have gone on, or a minute later.
CALL = """
import contextlib, json, select, socket, sys, time
udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.create_connection(("198.51.100.2", 7), 10)
udp.connect(("198.51.100.2", 7))
udp.setblocking(False)
tcp.setblocking(False)
print("ready", flush=True)
last = dict.fromkeys(("datagrams", "stream"), time.monotonic())
longest, sent, told = dict.fromkeys(last, 0.0), 0, None

def progress(kind):
    now = time.monotonic()
    longest[kind], last[kind] = max(longest[kind], now - last[kind]), now

while told is None or time.monotonic() < told + 60 and min(last.values()) < told + 1:
    time.sleep(0.02)
    with contextlib.suppress(OSError):
        udp.send(b"ping")
        while udp.recv(2048):
            progress("datagrams")
    with contextlib.suppress(BlockingIOError):
        sent += tcp.send((bytes(range(256)) * 257)[sent % 256:][:1 << 16])
        progress("stream")
    if told is None and select.select([sys.stdin], [], [], 0)[0]:
        told = time.monotonic()
if min(last.values()) < told + 1:
    sys.exit(f"no progress a minute after the end: {last}, {told}")
tcp.setblocking(True)
tcp.settimeout(60)
tcp.shutdown(socket.SHUT_WR)
tcp.recv(1)
print(json.dumps({**longest, "sent": sent}))
"""


@contextlib.contextmanager
def traffic(pair: Pair) -> Iterator[Result]:
    """Datagrams and a stream through the pods' tunnel while the block runs; then what they met is known."""
    for number, host in enumerate((pair.here, pair.there), 1):
        ends = ("local", f"192.0.2.{number}", "remote", f"192.0.2.{3 - number}", "dstport", "4789", "noudpcsum")
        host.run("ip", "link", "add", "vxlan_sys_4789", "type", "vxlan", "id", "100", *ends)
        host.run("ip", "link", "set", "vxlan_sys_4789", "mtu", str(MTU), "up")
        host.run("ip", "address", "add", f"198.51.100.{number}/24", "dev", "vxlan_sys_4789")
        host.run("ethtool", "-K", "vxlan_sys_4789", "tx-checksum-ip-generic", "off")
        host.run("ethtool", "-K", "eth1", "tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    met: Result = {}
    with (
        pair.there.popen(sys.executable, "-c", SERVE, **pipes) as server,
        pair.here.popen(sys.executable, "-c", CALL, **pipes) if ready(server) else contextlib.nullcontext() as caller,
    ):
        try:
            assert caller is not None
            assert ready(caller)
            yield met
            met.update(json.loads(caller.communicate("stop", timeout=120)[0]))
            met.update(json.loads(server.communicate("stop", timeout=10)[0]))
        finally:
            for process in (caller, server):
                if process is not None:
                    process.kill()


def ready(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "ready\n"


@pytest.mark.parametrize("card", ["cuts badly", "leaves checksums undone"])
def test_traffic_breaks_for_no_longer_than_a_bad_card_is_tried(card: str, request: pytest.FixtureRequest) -> None:
    """The pods' own tunnel goes through the card while a level is tried that the card spoils packets at."""
    pair: Pair = request.getfixturevalue("pair" if card == "cuts badly" else "without_checksums")
    if card == "cuts badly":
        pair.spoil(DISCARD)
    with traffic(pair) as met:
        began = time.monotonic()
        result = pair.module()
        took = time.monotonic() - began
    assert (result["level"], result["proved"]) == ("none", True), result["reasons"]
    assert "stateless failed" in " ".join(result["reasons"])
    tried = result["probes"]["stateless"]["seconds"]
    print(f"{card}: {took:.1f} s, of these {tried:.1f} s with the bad level; no progress for at most {met}")
    assert (met["bytes"], met["right"]) == (met["sent"], True)
    # Level none was proved in the first part of the run, and nothing is missing then however busy the machine is.
    assert met["datagrams"] < took
    assert met["stream"] < 2 * took  # TCP itself waits up to as long again before it tries once more


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


# As drivers say it that list a feature as one to be switched, and then do not switch it.
REFUSE = """#!/bin/sh
case "$*" in -K*tx-udp_tnl-segmentation\\ on*) echo "Cannot change tx-udp_tnl-segmentation" >&2; exit 1 ;; esac
PATH=${PATH#*:} exec ethtool "$@"
"""


def test_a_driver_that_refuses_a_level_has_the_one_below(
    pair: Pair, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ethtool").write_text(REFUSE)
    (tmp_path / "bin" / "ethtool").chmod(0o755)
    pair.here.run("ethtool", "-K", "eth1", "tx-udp_tnl-segmentation", "off")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    result = pair.module()
    assert (result["level"], result["proved"]) == ("none", True), result["reasons"]
    assert "Cannot change tx-udp_tnl-segmentation" in " ".join(result["reasons"])
    assert pair.feature("tx-udp_tnl-csum-segmentation") == "off"


def test_a_wire_that_is_cut_is_not_blamed_on_the_card(pair: Pair) -> None:
    pair.there.run("ip", "link", "set", "eth1", "down")
    result = pair.module()
    assert result["proved"] is False
    assert "the card is not the cause" in " ".join(result["reasons"])


def test_an_interface_that_is_not_there_is_named(pair: Pair) -> None:
    result = pair.module(interface="eth9")
    assert result["failed"]
    assert "eth9" in result["msg"]
