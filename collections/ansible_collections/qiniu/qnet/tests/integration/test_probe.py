# SPDX-License-Identifier: GPL-3.0-or-later
"""qnet_probe between real namespaces with real listeners, and with a switch that drops."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterator

import pytest

from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host, reason_to_skip

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))

Options = dict[str, t.Any]
SOURCES = 20
SERVER, V4, V6 = "g.server", "10.20.0.200", "fd20::c8"
LISTEN = """
import socket
tcp4, tcp6 = socket.create_server(("10.20.0.200", 80)), socket.create_server(("fd20::c8", 80), family=socket.AF_INET6)
udp4, udp6 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp4.bind(("10.20.0.200", 53)); udp6.bind(("fd20::c8", 53))
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); silent.bind(("10.20.0.200", 99))
import selectors
selector = selectors.DefaultSelector()
for handle in (udp4, udp6): selector.register(handle, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        data, sender = key.fileobj.recvfrom(2048)
        key.fileobj.sendto(data, sender)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, target_python: str, import_path: str) -> Iterator[Host]:
    """A host whose pods g/p-1 … and g/server hang on one bridge of a real Open vSwitch."""
    host = Host(tmp_path_factory.mktemp("host"), target_python, import_path)
    try:
        host.start()
        ports = []
        for number in [*range(1, SOURCES + 1), 200]:
            name = SERVER if number == 200 else f"g.p-{number}"
            port = f"v{number}"
            host.run("ip", "netns", "add", name)
            host.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            host.run("ip", "link", "set", port, "up")
            for line in (
                "link set lo up",
                "link set eth0 up",
                f"addr add 10.20.0.{number}/16 dev eth0",
                f"addr add fd20::{number:x}/64 dev eth0 nodad",
            ):
                host.run("ip", "-n", name, *line.split())
            host.run("ip", "netns", "exec", name, "ethtool", "-K", "eth0", "tx", "off")
            ports.append({"name": port})
        result = host.module("qnet_vswitch", bridges=[{"name": "br-int", "datapath_type": "netdev", "ports": ports}])
        assert "failed" not in result, result
        server = host.popen("ip", "netns", "exec", SERVER, "python3", "-c", LISTEN, stdout=-1)
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "ready"
        yield host
        server.kill()
        server.communicate()
    finally:
        host.stop()


def target(address: str, *protocols: str, name: str = "server") -> Options:
    return {"name": name, "address": address, "protocols": list(protocols)}


def probe(host: Host, **options: t.Any) -> Options:
    result = host.module("qnet_probe", **options)
    assert "failed" not in result, result["msg"]
    assert result["changed"] is False
    return result


def results(host: Host, *targets: Options, **options: t.Any) -> list[tuple[str, str, bool]]:
    found = probe(host, probes=[{"pod": "g/p-1", "targets": list(targets)}], **options)
    return [(item["protocol"], item["result"], item["reached"]) for item in found["results"]]


@pytest.mark.parametrize("address", [V4, V6])
def test_what_answers_is_reachable_and_what_refuses_is_reached(host: Host, address: str) -> None:
    assert results(host, target(address, "icmp", "tcp/80", "tcp/81", "udp/53", "udp/54")) == [
        ("icmp", "reachable", True),
        ("tcp/80", "reachable", True),
        ("tcp/81", "refused", True),
        ("udp/53", "reachable", True),
        ("udp/54", "refused", True),
    ]


def test_an_answer_has_a_time_and_no_reason(host: Host) -> None:
    found = probe(host, probes=[{"pod": "g/p-1", "targets": [target(V4, "icmp", "tcp/80", "udp/53")]}])
    for item in found["results"]:
        assert item.pop("rtt_milliseconds") > 0
        assert item.pop("protocol") in ("icmp", "tcp/80", "udp/53")
        assert item == {
            "pod": "g/p-1",
            "target": "server",
            "address": V4,
            "reached": True,
            "result": "reachable",
            "attempts": 1,
        }


def test_what_the_switch_drops_is_a_timeout_after_all_attempts(host: Host) -> None:
    host.run("ovs-ofctl", "add-flow", "br-int", f"priority=9,ip,nw_dst={V4},actions=drop")
    host.run("ovs-ofctl", "add-flow", "br-int", f"priority=9,ipv6,ipv6_dst={V6},actions=drop")
    try:
        protocols = ("icmp", "tcp/80", "tcp/81", "udp/53", "udp/54")
        start = time.monotonic()
        found = probe(
            host,
            probes=[{"pod": "g/p-1"}],
            targets=[target(V4, *protocols), target(V6, *protocols)],
            timeout_seconds=0.4,
            attempts=2,
        )
        assert 0.8 <= time.monotonic() - start < 5
        assert {(item["result"], item["reached"], item["attempts"]) for item in found["results"]} == {
            ("timeout", False, 2)
        }
    finally:
        host.run("ovs-ofctl", "del-flows", "br-int", f"ip,nw_dst={V4}")
        host.run("ovs-ofctl", "del-flows", "br-int", f"ipv6,ipv6_dst={V6}")


def test_answers_that_are_dropped_count_as_not_reached(host: Host) -> None:
    host.run("ovs-ofctl", "add-flow", "br-int", f"priority=9,ip,nw_src={V4},actions=drop")
    try:
        found = results(host, target(V4, "icmp", "tcp/80", "tcp/81", "udp/53"), timeout_seconds=0.3, attempts=1)
        assert {item[1:] for item in found} == {("timeout", False)}
    finally:
        host.run("ovs-ofctl", "del-flows", "br-int", f"ip,nw_src={V4}")


def test_a_udp_service_that_stays_silent_is_not_reached(host: Host) -> None:
    assert results(host, target(V4, "udp/99"), timeout_seconds=0.3, attempts=1) == [("udp/99", "timeout", False)]


def test_a_lost_first_packet_is_made_up_for(host: Host) -> None:
    """The first packet of a pair may be lost while controllers set up its flow."""
    host.run("ovs-ofctl", "add-flow", "br-int", f"priority=9,hard_timeout=1,ip,nw_dst={V4},actions=drop")
    found = probe(
        host,
        probes=[{"pod": "g/p-1", "targets": [target(V4, "icmp", "tcp/80", "udp/53")]}],
        timeout_seconds=0.5,
        attempts=8,
    )
    for item in found["results"]:
        assert item["result"] == "reachable"
        assert item["attempts"] > 1


def test_no_route_is_unreachable_with_its_reason(host: Host) -> None:
    found = probe(host, probes=[{"pod": "g/p-1", "targets": [target("192.0.2.1", "icmp", "tcp/80", "udp/53")]}])
    for item in found["results"]:
        assert (item["result"], item["reached"]) == ("unreachable", False)
        assert item["reason"] == "Network is unreachable"


def test_an_echo_of_another_address_is_no_answer(host: Host) -> None:
    """A pod that answers in the name of another must not make that one look reached."""
    rewrite = "priority=9,icmp,nw_dst=10.20.9.9,actions=mod_nw_dst:10.20.0.200,mod_dl_dst:%s,normal"
    mac = host.run("ip", "-n", SERVER, "-br", "link", "show", "eth0").split()[2]
    host.run("ovs-ofctl", "add-flow", "br-int", rewrite % mac)
    host.run("ip", "-n", "g.p-1", "neigh", "replace", "10.20.9.9", "lladdr", mac, "dev", "eth0")
    try:
        assert results(host, target("10.20.9.9", "icmp"), timeout_seconds=0.5, attempts=1) == [
            ("icmp", "timeout", False)
        ]
    finally:
        host.run("ovs-ofctl", "del-flows", "br-int", "icmp,nw_dst=10.20.9.9")


def test_namespaces_by_name_and_path_and_own_and_common_targets(host: Host) -> None:
    found = probe(
        host,
        probes=[
            {"pod": "a/x", "namespace": "g.p-2"},
            {"pod": "a/y", "namespace": "/run/netns/g.p-3", "targets": [target(V4, "tcp/80", name="own")]},
            {"pod": "a/z", "namespace": "g.p-2", "targets": []},
        ],
        targets=[target(V6, "icmp", name="common"), target("10.20.0.3", "icmp", name="three")],
    )
    assert [(item["pod"], item["target"], item["result"]) for item in found["results"]] == [
        ("a/x", "common", "reachable"),
        ("a/x", "three", "reachable"),
        ("a/y", "own", "reachable"),
    ]


def test_hundreds_of_targets_from_tens_of_pods_take_seconds(host: Host) -> None:
    """Half of them are there and half are not, so every attempt and its time-out count."""
    addresses = [f"10.20.{third}.{number}" for third in (0, 1) for number in range(1, SOURCES + 1)]
    start = time.monotonic()
    found = probe(
        host,
        probes=[{"pod": f"g/p-{number}"} for number in range(1, SOURCES + 1)],
        targets=[target(address, "icmp", "tcp/80", "udp/54", name=address) for address in addresses],
        probes_per_second=400,
    )
    elapsed = time.monotonic() - start
    assert len(found["results"]) == SOURCES * len(addresses) * 3
    wrong = [item for item in found["results"] if item["reached"] != item["address"].startswith("10.20.0.")]
    assert wrong == []
    assert elapsed < 20, f"{elapsed:.1f} s"


def test_faults_come_all_at_once(host: Host) -> None:
    result = host.module(
        "qnet_probe",
        probes=[
            {"pod": "g/none"},
            {"pod": "g/p-1", "targets": [target("10.0.0", "icmp", "sctp/1", "tcp", "tcp/0", "udp/65536")]},
        ],
        attempts=0,
    )
    assert result["failed"] is True
    assert [problem.split(": ")[0] for problem in result["problems"]] == [
        "attempts",
        "probes[0]",
        "probes[1].targets[0].address",
        *(f"probes[1].targets[0].protocols[{number}]" for number in range(1, 5)),
    ]
