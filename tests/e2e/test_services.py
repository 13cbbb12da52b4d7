# SPDX-License-Identifier: Apache-2.0
"""What callers of a Service IP see: any port and protocol, real backends, their own address; and nothing undeclared."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from tests.e2e.fleet import Fleet, Pod

PORT = 12345  # nobody has configured it anywhere
SECONDS = 60
AGENTS_IP, IMAGE_IP = "10.96.0.10", "10.96.0.20"  # inventories/fop


def of_service(pods: dict[str, Pod], service: str) -> list[Pod]:
    return [pod for name, pod in sorted(pods.items()) if name.startswith(f"{service}-")]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_opened_just_now_answers_on_the_service_ip(fop: Fleet, pods: dict[str, Pod], protocol: str) -> None:
    backends, caller = of_service(pods, "fop/image"), pods["fop/agents-1"]
    closed = fop.ask(caller, "ask", protocol, IMAGE_IP, PORT, 2)
    assert not closed["answers"]
    with fop.serving(backends, f"serve-{protocol}", "{}", PORT, SECONDS):
        seen = fop.ask(caller, "ask", protocol, IMAGE_IP, PORT, 40)
    assert seen["errors"] == []
    assert {name for name, _ in seen["answers"]} == {pod.name for pod in backends}
    assert {client for _, client in seen["answers"]} == {caller.address}


def test_ping_of_a_service_ip_reaches_a_backend_with_the_callers_address(fop: Fleet, pods: dict[str, Pod]) -> None:
    backends, caller = of_service(pods, "fop/image"), pods["fop/agents-1"]
    with ExitStack() as stack:
        watchers = [stack.enter_context(fop.running(pod, "probe.py", "watch-icmp", SECONDS)) for pod in backends]
        for watcher in watchers:
            watcher.wait_until_ready()
        fop.run(caller.host, "ip", "netns", "exec", caller.namespace, "ping", "-c3", "-i0.2", "-W2", IMAGE_IP)
        seen = [watcher.stop()["from"] for watcher in watchers]
    assert [sources for sources in seen if sources] == [[caller.address]]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_another_group_reaches_the_exported_service_and_no_other(
    fop: Fleet, pods: dict[str, Pod], protocol: str
) -> None:
    agents, images, caller = of_service(pods, "fop/agents"), of_service(pods, "fop/image"), pods["entry/entry-1"]
    with fop.serving(agents + images, f"serve-{protocol}", "{}", PORT, SECONDS):
        exported = fop.ask(caller, "ask", protocol, AGENTS_IP, PORT, 20)
        other = fop.ask(caller, "ask", protocol, IMAGE_IP, PORT, 2)
        straight = fop.ask(caller, "ask", protocol, agents[0].address, PORT, 2)
    assert exported["errors"] == []
    assert {name for name, _ in exported["answers"]} == {pod.name for pod in agents}
    assert {client for _, client in exported["answers"]} == {caller.address}
    assert other["answers"] == []
    assert straight["answers"] == []


def test_a_pod_reaches_itself_through_its_own_service_ip(fop: Fleet, pods: dict[str, Pod]) -> None:
    backends = of_service(pods, "fop/image")
    caller = backends[0]
    with fop.serving(backends, "serve-tcp", "{}", PORT, SECONDS):
        seen = fop.ask(caller, "ask", "tcp", IMAGE_IP, PORT, 40)
    assert seen["errors"] == []
    peers = dict(seen["answers"])
    assert peers.pop(caller.name) == IMAGE_IP  # its answers must come back through the switch
    assert set(peers) == {pod.name for pod in backends[1:]}
    assert set(peers.values()) == {caller.address}


def test_nothing_of_a_refused_sender_arrives(fop: Fleet, pods: dict[str, Pod]) -> None:
    """Not even ARP: the switch answers it, for addresses that exist and for those that do not alike."""
    sender, victims = pods["entry/entry-1"], of_service(pods, "fop/image")
    nobody = "10.10.254.254"
    with ExitStack() as stack:
        watchers = [stack.enter_context(fop.running(pod, "probe.py", "watch-frames", SECONDS)) for pod in victims]
        for watcher in watchers:
            watcher.wait_until_ready()
        fop.run(sender.host, "ip", "-n", sender.namespace, "neighbour", "flush", "all")
        for address in [pod.address for pod in victims] + [nobody]:
            fop.ask(sender, "knock", address, PORT, 0.3, 0.1)
        frames = [watcher.stop()["frames"] for watcher in watchers]
    assert not [frame for seen in frames for frame in seen if bytes(map(int, sender.address.split("."))).hex() in frame]
    known = fop.run(sender.host, "ip", "-n", sender.namespace, "neighbour", "show")
    assert {line.split("lladdr ")[1].split()[0] for line in known.splitlines() if "lladdr" in line} == {
        "0a:00:00:00:00:01"
    }
