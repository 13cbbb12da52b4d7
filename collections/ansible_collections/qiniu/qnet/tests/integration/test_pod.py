# SPDX-License-Identifier: GPL-3.0-or-later
"""qnet_pod against a real Open vSwitch, real namespaces and a real intent database."""

from __future__ import annotations

import copy
import json
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _netns
from ansible_collections.qiniu.qnet.tests.conftest import IntentDatabase
from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host, reason_to_skip
from ansible_collections.qiniu.qnet.tests.integration.pod_site import (
    ONE,
    OTHER_PORT,
    PORT,
    TWO,
    Options,
    Site,
    good,
    links,
    pods,
    prepare,
)

RESTORE = pathlib.Path(__file__).resolve().parents[6] / "roles/pods/files/qnet_pods_restore.py"
NOTES = ("ovs-vsctl", "--format=json", "--columns=external_ids", "find", "Interface")
pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, target_python: str, import_path: str) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"), target_python, import_path)
    try:
        yield host.start()
    finally:
        host.stop()


@pytest.fixture
def site(machine: Host, database: IntentDatabase) -> Iterator[Site]:
    site = Site(machine, database.remote)
    prepare(site)
    yield site
    good(site.pods(pods=[], purge=True))
    machine.module("qnet_vswitch", bridges=[{"name": "br-int", "state": "absent"}])
    for namespace in site.namespaces():
        machine.run("ip", "netns", "delete", namespace)
    for link in links(site):
        machine.run("ip", "link", "delete", link["ifname"])


def test_what_cannot_be_shown_is_said_with_the_commands() -> None:
    with pytest.raises(_netns.NamespaceError, match=r"'ip addr show; bogus show' failed: Object \"bogus\" is unknown"):
        _netns.show_each("addr show", "bogus show")


@pytest.fixture
def other_host(tmp_path: pathlib.Path, target_python: str, import_path: str) -> Iterator[Host]:
    """A second host, not started."""
    host = Host(tmp_path, target_python, import_path)
    yield host
    host.stop()


def test_attach_again_and_packets_flow(site: Site) -> None:
    first = good(site.pods(**pods(ONE, TWO)))
    assert first["changed"] is True
    assert [pod["name"] for pod in first["pods"]] == [ONE, TWO]
    assert first["pods"][0]["namespace_path"] == "/run/netns/g.s-1"
    assert [item["address"] for item in first["pods"][0]["addresses"]] == ["10.10.0.2", "fd10::2"]
    assert site.ports() == {PORT, OTHER_PORT}
    link = json.loads(site.inside("g.s-1", "ip", "-j", "addr", "show", "eth0"))[0]
    assert link["address"] == first["pods"][0]["mac"] == _model.mac_of(ONE)
    assert link["mtu"] == first["pods"][0]["mtu"] == 1400
    assert "default via 10.10.0.1" in site.inside("g.s-1", "ip", "route")
    assert "default via fd10::1" in site.inside("g.s-1", "ip", "-6", "route")
    said = dict(json.loads(site.host.run(*NOTES, f"name={PORT}"))["data"][0][0][1])
    attachment = json.loads(said.pop("qnet-attachment"))
    assert said == {
        "qnet-addresses": "10.10.0.2,fd10::2", "qnet-mac": _model.mac_of(ONE), "qnet-pod": ONE, "qnet-service": "g/s"
    }  # fmt: skip
    assert attachment == {
        "namespace": "g.s-1", "mac": _model.mac_of(ONE), "mtu": 1400, "transmit_checksum": False,
        "addresses": ["10.10.0.2/16", "fd10::2/64"], "gateways": ["10.10.0.1", "fd10::1"],
        "neighbours": [], "virtual_mac": _model.VIRTUAL_MAC,
    }  # fmt: skip
    assert site.reaches("g.s-1", "10.10.0.3")
    assert site.reaches("g.s-1", "fd10::3")
    assert site.declared()[ONE]["addresses"] == ["10.10.0.2", "fd10::2"]

    again = good(site.pods(**pods(ONE, TWO)))
    assert again["changed"] is False
    assert again["diff"]["before"] == again["diff"]["after"]
    assert again["pods"] == first["pods"]


def test_what_is_gone_after_a_boot_comes_back_without_a_play(site: Site) -> None:
    """The program that the role `pods` runs at boot makes what the module would make."""
    good(site.pods(**pods(ONE, TWO)))
    site.host.kill("ovs-vswitchd")
    for name, port in (("g.s-1", PORT), ("g.s-2", OTHER_PORT)):
        site.host.run("ip", "link", "delete", port)
        site.host.run("ip", "netns", "delete", name)
    site.host.start_daemon()
    said = site.host.run("python3", str(RESTORE))
    assert said == "qnet-pods-restore: 2 pods are back"
    again = good(site.pods(**pods(ONE, TWO)))
    assert again["changed"] is False, again["diff"]
    assert site.reaches("g.s-1", "10.10.0.3")
    assert site.reaches("g.s-1", "fd10::3")
    assert site.host.run("python3", str(RESTORE)) == "qnet-pods-restore: 0 pods are back"


def test_tcp_data_is_whole_on_the_userspace_datapath(site: Site) -> None:
    """With transmit checksums left to the interface, the receiver would throw the segments away."""
    good(site.pods(**pods(ONE, TWO)))
    assert "tx-checksumming: off" in site.inside("g.s-1", "ethtool", "-k", "eth0")
    serve = "import socket;s=socket.create_server(('10.10.0.3',80));c,_=s.accept();c.sendall(b'x'*300000);c.close()"
    server = site.host.popen("ip", "netns", "exec", "g.s-2", "python3", "-c", serve)
    fetch = (
        "import socket,time\n"
        "for _ in range(100):\n"
        "  try: s=socket.create_connection(('10.10.0.3',80),5); break\n"
        "  except ConnectionRefusedError: time.sleep(0.05)\n"
        "n=0\n"
        "while d:=s.recv(65536): n+=len(d)\n"
        "print(n)"
    )
    try:
        assert site.inside("g.s-1", "python3", "-c", fetch) == "300000"
    finally:
        server.kill()
        server.wait()


def test_check_mode_says_what_a_run_does_and_changes_nothing(site: Site) -> None:
    foreseen = good(site.pods(True, **pods(ONE)))
    assert site.declared() == {}
    assert site.ports() == site.namespaces() == set()
    done = good(site.pods(**pods(ONE)))
    for key in ("changed", "diff", "pods", "plan", "detached"):
        assert foreseen[key] == done[key], key
    assert good(site.pods(True, **pods(ONE)))["changed"] is False

    for step in ({"state": "detached"}, {"state": "present"}, {"state": "absent"}):
        foreseen = good(site.pods(True, **pods(ONE, **step)))
        assert (PORT in site.ports()) == (step["state"] != "present")
        done = good(site.pods(**pods(ONE, **step)))
        assert foreseen["changed"] is done["changed"] is True
        assert foreseen["diff"] == done["diff"]


def test_states_of_a_single_pod(site: Site) -> None:
    declared = good(site.pods(name=ONE, service="g/s", addresses=["10.10.7.7"], weight=50, state="declared"))
    assert declared["changed"] is True
    assert declared["pods"][0]["addresses"][0]["address"] == "10.10.7.7"
    assert site.ports() == site.namespaces() == set()

    assert good(site.pods(name=ONE))["changed"] is True
    assert site.ports() == {PORT}
    assert "10.10.7.7/16" in site.inside("g.s-1", "ip", "addr")
    assert site.declared()[ONE]["weight"] == 50

    assert good(site.pods(name=ONE, draining=True, containers=["c1"]))["plan"][0]["action"] == "change"
    assert site.declared()[ONE]["state"] == "draining"

    away = ["unix:/run/away.sock"]  # detaching must work when the intent database is not there
    detached = good(site.pods(name=ONE, state="detached", database=away))
    assert detached["changed"] is True
    assert detached["detached"] == [ONE]
    assert site.ports() == site.namespaces() == set()
    assert good(site.pods(name=ONE, state="detached"))["changed"] is False
    assert set(site.declared()) == {ONE}

    good(site.pods(name=ONE))
    absent = good(site.pods(name=ONE, state="absent"))
    assert absent["changed"] is True
    assert site.declared() == {}
    assert site.ports() == site.namespaces() == set()
    assert good(site.pods(name=ONE, state="absent"))["changed"] is False


def test_changes_of_a_declaration_reach_the_namespace(site: Site) -> None:
    good(site.pods(**pods(ONE, TWO)))
    index = site.host.run("ovs-vsctl", "get", "interface", PORT, "ifindex")
    change = {"name": ONE, "service": "g/s", "addresses": ["10.10.9.9"], "mac": "02:00:00:00:00:09"}
    assert good(site.pods(pods=[change], mtu=1350))["changed"] is True
    link = json.loads(site.inside("g.s-1", "ip", "-j", "addr", "show", "eth0"))[0]
    assert (link["address"], link["mtu"]) == ("02:00:00:00:00:09", 1350)
    assert [item["local"] for item in link["addr_info"]] == ["10.10.9.9"]
    assert 'qnet-addresses="10.10.9.9"' in site.host.run("ovs-vsctl", "get", "interface", PORT, "external_ids")
    assert site.host.run("ovs-vsctl", "get", "interface", PORT, "ifindex") == index
    assert site.reaches("g.s-2", "10.10.9.9")
    assert good(site.pods(pods=[change], mtu=1350))["changed"] is False


def test_the_smaller_mtu_counts(site: Site) -> None:
    tiny = {"name": "g/tiny-1", "service": "g/tiny"}
    assert good(site.pods(pods=[tiny]))["pods"][0]["mtu"] == 1300
    assert "mtu 1300" in site.inside("g.tiny-1", "ip", "link", "show", "eth0")
    assert good(site.pods(pods=[tiny], mtu=1290))["pods"][0]["mtu"] == 1290
    assert good(site.pods(pods=[tiny], mtu=None))["pods"][0]["mtu"] == 1300
    refused = site.pods(pods=[{"name": ONE, "service": "g/s"}], mtu=None)
    assert refused["failed"] is True
    assert refused["msg"].startswith(f"mtu: pod {ONE}")
    assert ONE not in site.declared()


def test_a_run_killed_at_any_moment_is_repaired_by_the_next(site: Site) -> None:
    for delay in (0.15, 0.2, 0.25, 0.3, 0.35, 0.4):
        process = site.host.start_module(
            "qnet_pod", database=[site.remote], mtu=1400, **pods(*(f"g/s-{n}" for n in range(1, 9)))
        )
        time.sleep(delay)
        process.kill()
        process.communicate()
        # The order: a port on the bridge means that its namespace was complete.
        for port in site.ports():
            pod = site.host.run("ovs-vsctl", "get", "interface", port, "external_ids:qnet-pod").strip('"')
            assert "10.10." in site.inside(_model.namespace_of(pod), "ip", "route", "show", "default")
        good(site.pods(**pods(*(f"g/s-{n}" for n in range(1, 9)))))
        assert good(site.pods(**pods(*(f"g/s-{n}" for n in range(1, 9)))))["changed"] is False
        good(site.pods(pods=[], purge=True))


def test_all_ports_of_a_call_appear_in_one_transaction(site: Site) -> None:
    names = [f"g/s-{number}" for number in range(1, 11)]
    good(site.pods(**pods(*names[:5])))
    before = int(site.host.run("ovs-vsctl", "get", "open", ".", "next_cfg"))
    # Five arrive and five leave.
    result = good(site.pods(**pods(*names[5:], purge=True)))
    assert int(site.host.run("ovs-vsctl", "get", "open", ".", "next_cfg")) == before + 1
    assert sorted(result["detached"]) == sorted(names[:5])
    assert site.ports() == {_model.port_name_of(name) for name in names[5:]}
    assert len(links(site)) == 5
    assert set(site.declared()) == set(names)


def test_purge_takes_pods_only(site: Site) -> None:
    site.host.run("ovs-vsctl", "add-port", "br-int", "in0", "--", "set", "interface", "in0", "type=internal")
    good(site.pods(**pods(ONE, TWO)))
    result = good(site.pods(**pods(TWO, purge=True)))
    assert result["detached"] == [ONE]
    assert site.ports() == {"in0", OTHER_PORT}
    assert site.namespaces() == {"g.s-2"}
    assert set(site.declared()) == {ONE, TWO}
    assert good(site.pods(**pods(TWO, purge=True)))["changed"] is False
    good(site.pods(**pods(TWO, purge=True, state="declared")))
    assert set(site.declared()) == {TWO}


def test_an_existing_namespace_is_attached_and_left_when_detached(site: Site) -> None:
    site.host.run("ip", "netns", "add", "container")
    existing = {"name": ONE, "service": "g/s", "namespace_path": "/run/netns/container"}
    assert good(site.pods(pods=[existing, {"name": TWO, "service": "g/s"}]))["changed"] is True
    assert site.namespaces() == {"container", "g.s-2"}
    assert site.reaches("container", "10.10.0.3")
    assert good(site.pods(pods=[existing]))["changed"] is False
    assert good(site.pods(pods=[existing], state="detached"))["changed"] is True
    assert site.namespaces() == {"container", "g.s-2"}
    assert "eth0" not in site.inside("container", "ip", "link")
    assert good(site.pods(pods=[existing], state="detached"))["changed"] is False


@pytest.fixture
def containers(site: Site) -> Iterator[list[int]]:
    """Two processes on the host, each with a network namespace of its own without a name."""
    running = []
    for _number in range(2):
        running.append(site.host.popen("unshare", "--net", "sh", "-c", "echo; exec sleep 60", stdout=subprocess.PIPE))
        assert running[-1].stdout is not None
        running[-1].stdout.readline()
    yield [process.pid for process in running]
    for process in running:
        process.kill()
        process.communicate()


def test_the_namespace_of_a_process_is_attached(site: Site, containers: list[int]) -> None:
    good(site.pods(**pods(TWO)))
    # The second stands for a restart of the container: the new namespace takes over, the pod keeps its address.
    for pid in containers:
        assert good(site.pods(name=ONE, service="g/s", pid=pid))["changed"] is True
        assert good(site.pods(name=ONE, service="g/s", pid=pid))["changed"] is False
        assert site.reaches("g.s-2", "10.10.0.3")


def echoes_of_the_host(site: Site) -> int:
    """How many echo requests the host's own stack has taken in."""
    names, values = (line for line in site.host.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Icmp:"))
    return int(dict(zip(names.split(), values.split(), strict=True))["InEchos"])


@pytest.mark.parametrize("guarded", [True, False])
def test_the_host_itself_is_not_reached_through_the_port_of_a_pod(site: Site, guarded: bool) -> None:
    """On the userspace datapath the host's own stack sees the packets as well; without the guard it takes them."""
    good(site.pods(**pods(ONE)))
    site.host.run("ovs-vsctl", "set-fail-mode", "br-int", "secure")
    site.host.run("ovs-ofctl", "del-flows", "br-int")
    if not guarded:
        site.host.run("ip", "link", "set", PORT, "arp", "on")
        for setting in ("rp_filter", "drop_unicast_in_l2_multicast"):
            site.host.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{PORT}/{setting}")
    mac = json.loads(site.host.run("ip", "-j", "link", "show", PORT))[0]["address"]
    site.host.run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    try:
        before = echoes_of_the_host(site)
        for lladdr in (mac, "ff:ff:ff:ff:ff:ff"):
            site.inside("g.s-1", "ip", "neigh", "replace", "10.10.0.1", "lladdr", lladdr, "dev", "eth0")
            assert not site.reaches("g.s-1", "192.0.2.1")
        site.inside("g.s-1", "ip", "route", "add", "192.0.2.1/32", "dev", "eth0")  # asks by ARP
        assert not site.reaches("g.s-1", "192.0.2.1")
        heard = site.inside("g.s-1", "ip", "neigh", "show", "192.0.2.1")
        assert (echoes_of_the_host(site) == before) is guarded
        assert (mac not in heard) is guarded
    finally:
        site.host.run("ip", "addr", "delete", "192.0.2.1/32", "dev", "lo")


REFUSALS: dict[str, tuple[Options, list[str]]] = {
    "unknown service": ({"pods": [{"name": ONE, "service": "g/none"}]}, ["pods[0]"]),
    "no service": ({"pods": [{"name": ONE}]}, ["pods[0].service"]),
    "no service for a single pod": ({"name": ONE}, ["service"]),
    "bad names": ({"pods": [{"name": "x"}, {"name": "a/b", "service": "c/d"}]}, ["pods[0].name", "pods[1].service"]),
    "address outside": ({"name": ONE, "service": "g/s", "addresses": ["192.0.2.1"]}, ["pod 'g/s-1'"]),
    "no such namespace": ({"name": ONE, "service": "g/s", "namespace_path": "/run/netns/none"}, [f"pod {ONE}"]),
    "no such process": ({"name": ONE, "service": "g/s", "pid": 2**22 + 1}, [f"pod {ONE}"]),
    "no bridge": ({"name": ONE, "service": "g/s", "bridge": "br-none"}, ["bridge"]),
    "workloads of one": ({"name": ONE, "service": "g/s", "workloads": []}, ["workloads"]),
    "purge of one": ({"name": ONE, "service": "g/s", "purge": True}, ["purge"]),
}


@pytest.mark.parametrize("why", REFUSALS)
@pytest.mark.parametrize("check_mode", [True, False])
def test_a_refusal_comes_before_any_change(site: Site, why: str, check_mode: bool) -> None:
    options, starts = copy.deepcopy(REFUSALS[why])
    result = site.pods(check_mode, **options)
    assert result["failed"] is True
    assert [problem[: len(start)] for problem, start in zip(result["problems"], starts, strict=True)] == starts
    assert site.declared() == {}
    assert site.ports() == site.namespaces() == set()
    assert links(site) == []


def test_a_container_with_a_network_of_its_own_is_refused(site: Site) -> None:
    site.host.run("ip", "netns", "add", "container")
    site.inside("container", "ip", "link", "add", "name", "eth0", "type", "veth", "peer", "name", "x0")
    result = site.pods(name=ONE, service="g/s", namespace_path="/run/netns/container")
    assert result["failed"] is True
    assert "has an interface eth0 that is not this pod's" in result["msg"]
    assert site.declared() == {}


def test_a_host_without_ovs_says_how_to_install_it(site: Site, other_host: Host) -> None:
    result = Site(other_host.start(switch=False), site.remote).pods(name=ONE, service="g/s")
    assert result["failed"] is True
    assert "no Open vSwitch on this host" in result["msg"]
    assert "apt-get install openvswitch-switch python3-openvswitch" in result["msg"]
    assert site.declared() == {}


def test_a_pod_moves_to_another_host_and_keeps_its_address(site: Site, other_host: Host) -> None:
    good(site.pods(**pods(ONE)))
    good(other_host.start().module("qnet_vswitch", bridges=[{"name": "br-int", "datapath_type": "netdev"}]))
    elsewhere = Site(other_host, site.remote)
    good(site.pods(**pods(ONE, state="detached")))
    moved = good(elsewhere.pods(**pods(ONE)))
    assert moved["plan"] == []
    assert "10.10.0.2/16" in elsewhere.inside("g.s-1", "ip", "addr")
    assert site.ports() == set()
    assert elsewhere.ports() == {PORT}


def test_without_vswitchd_it_says_so_and_a_later_run_attaches(site: Site) -> None:
    site.host.kill("ovs-vswitchd")
    try:
        result = site.pods(**pods(ONE, wait_seconds=1))
        assert result["failed"] is True
        assert "ovs-vswitchd has not applied the configuration within 1 s" in result["msg"]
    finally:
        site.host.start_daemon()
    good(site.pods(**pods(ONE, TWO)))
    assert good(site.pods(**pods(ONE, TWO)))["changed"] is False
    assert site.reaches("g.s-2", "10.10.0.2")
