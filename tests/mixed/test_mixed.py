# SPDX-License-Identifier: Apache-2.0
"""One play on hosts of three kinds, and packets between all of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.e2e.fleet import Fleet, Pod

pytestmark = pytest.mark.timeout(7200)
CONTAINERS, MACHINE = ("h1", "h2"), "v1"
PORT = 12347
OVERLAY_MTU = 1450
IP_HEADERS = 28  # of an echo over IPv4: IP and ICMP


def pod_on(pods: dict[str, Pod], host: str, start: str = "fop/") -> Pod:
    """A pod on a host, of those whose names begin so."""
    return next(pod for name, pod in sorted(pods.items()) if pod.host == host and name.startswith(start))


def pings(fleet: Fleet, pod: Pod, address: str, *words: str) -> str:
    """What ping in a pod prints, its errors too."""
    line = " ".join(("ip netns exec", pod.namespace, "ping", "-W", "2", *words, address, "2>&1 || true"))
    return fleet.run(pod.host, "sh", "-c", line)


def forget_paths(fleet: Fleet, *pods: Pod) -> None:
    """Let pods learn anew how large packets may be; otherwise they believe for ten minutes what they were told."""
    for pod in pods:
        fleet.run(pod.host, "ip", "-n", pod.namespace, "route", "flush", "cache")


def test_the_hosts_are_of_three_kinds(fop: Fleet) -> None:
    kinds = {
        host: (
            fop.run(host, "sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"),
            fop.run(host, "ovs-vsctl", "get", "Bridge", "br-int", "datapath_type").strip('"') or "system",
            fop.run(host, "sh", "-c", "test -e /sys/class/net/vxlan_sys_4789 && echo kernel || echo own"),
        )
        for host in fop.groups["switches"]
    }
    assert kinds == {
        "h1": ("bookworm", "netdev", "own"),
        "h2": ("trixie", "netdev", "own"),
        "v1": ("bookworm", "system", "kernel"),
    }


def test_site_again_changes_nothing(fop: Fleet) -> None:
    assert fop.play("site", "fop").changed == {}


def test_fop_reaches_what_it_should_on_all_of_them(fop: Fleet) -> None:
    fop.play("verify", "fop")


def test_no_controller_meets_a_flow_that_a_switch_refuses(fop: Fleet) -> None:
    for host in fop.groups["controllers"]:
        log = fop.run(host, "journalctl", "--unit=qnet-controller", "--boot", "--output=cat", "--quiet")
        assert [line for line in log.splitlines() if " refuses " in line] == []


def test_pods_learn_their_mtu_and_it_is_what_the_path_carries(fop: Fleet, pods: dict[str, Pod]) -> None:
    """Unbroken up to the MTU; above it refused by the pod's own kernel at once, or sent in fragments."""
    whole = OVERLAY_MTU - IP_HEADERS
    for sender in (*CONTAINERS, MACHINE):
        for receiver in {*CONTAINERS, MACHINE} - {sender}:
            pod, peer = pod_on(pods, sender), pod_on(pods, receiver)
            where = f"{pod.name} on {sender} to {peer.name} on {receiver}"
            assert " 0% packet loss" in pings(fop, pod, peer.address, "-c2", "-M", "do", "-s", str(whole)), where
            assert "essage too long" in pings(fop, pod, peer.address, "-c1", "-M", "do", "-s", str(whole + 1)), where
            assert " 0% packet loss" in pings(fop, pod, peer.address, "-c2", "-M", "dont", "-s", "4000"), where


@contextmanager
def narrow_router(fleet: Fleet) -> Iterator[None]:
    """The way from the first underlay to the second one carries less than the hosts on either side believe."""
    argv = ["podman", "--runtime", "runc", "exec", f"{fleet.name}-r1", "ip", "link", "set", "dev", "eth1", "mtu"]
    subprocess.run([*argv, "1400"], check=True)
    try:
        yield
    finally:
        subprocess.run([*argv, "1500"], check=True)
        fleet.run(MACHINE, "ip", "route", "flush", "cache")


# Sends datagrams that must not be broken, from one port after the other, until the way is known to carry less.
LEARN = """
import contextlib, socket, sys, time
IP_MTU, IP_MTU_DISCOVER, PMTUDISC_DO = 14, 10, 2
end = time.monotonic() + 90
while time.monotonic() < end:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
        sender.connect((sys.argv[1], 9))
        for dummy in range(3):
            with contextlib.suppress(OSError):
                sender.send(bytes(int(sys.argv[2])))
            time.sleep(0.3)
        learnt = sender.getsockopt(socket.IPPROTO_IP, IP_MTU)
        if learnt < int(sys.argv[2]):
            break
print(learnt)
"""


@pytest.mark.parametrize("host", ["h1", "v1"])
def test_a_pod_is_told_that_its_path_has_become_smaller(fop: Fleet, pods: dict[str, Pod], host: str) -> None:
    """By its peer's address, and by that of a Service IP where it has called that (one of its backends is on h2)."""
    pod, peer = pod_on(pods, host), pod_on(pods, "h2", "fop/image")
    with narrow_router(fop):
        for address in (peer.address, "10.96.0.20"):
            forget_paths(fop, pod)
            whole = str(OVERLAY_MTU - IP_HEADERS)
            learnt = fop.run(host, "ip", "netns", "exec", pod.namespace, "python3", "-c", LEARN, address, whole)
            assert learnt == str(OVERLAY_MTU - 100), address
    forget_paths(fop, pod)


@pytest.mark.parametrize("host", ["h1", "v1"])
def test_a_stream_gets_through_a_path_that_has_become_smaller(fop: Fleet, pods: dict[str, Pod], host: str) -> None:
    pod, peer = pod_on(pods, host), pod_on(pods, "h2")
    send = (
        f"import socket; s=socket.create_connection(('{peer.address}',{PORT}),9); s.settimeout(60); f=s.makefile('rb');"
        "f.readline(); s.sendall(b'x'*60000); print(len(f.read(60000)))"
    )
    with narrow_router(fop), fop.serving([peer], "serve-tcp", "{}", PORT, 120):
        got = fop.run(host, "ip", "netns", "exec", pod.namespace, "python3", "-c", send)
    forget_paths(fop, pod, peer)
    assert got == "60000"


@pytest.mark.parametrize("host", ["h1", "h2", "v1"])
def test_a_service_ip_balances_from_every_kind_of_host(fop: Fleet, pods: dict[str, Pod], host: str) -> None:
    caller = pod_on(pods, host)
    image = [pod for name, pod in pods.items() if name.startswith("fop/image-")]
    for protocol in ("tcp", "udp"):
        with fop.serving(image, f"serve-{protocol}", "{}", PORT, 120):
            seen = fop.ask(caller, "ask", protocol, "10.96.0.20", PORT, 60)
        assert seen["errors"] == []
        names = {name for name, _ in seen["answers"]}
        assert names == {pod.name for pod in image}
        for name, address in seen["answers"]:
            assert address == caller.address or name == caller.name  # a pod that calls itself sees the Service IP
