# SPDX-License-Identifier: GPL-3.0-or-later
"""qnet_vswitch and qnet_vswitch_info against a real Open vSwitch."""

from __future__ import annotations

import os
import pathlib
import signal
import typing as t
from collections.abc import Iterator

import pytest

from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host, reason_to_skip, wait_until

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))

Options = dict[str, t.Any]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, target_python: str, import_path: str) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"), target_python, import_path)
    try:
        yield host.start()
    finally:
        host.stop()


@pytest.fixture
def host(machine: Host) -> Iterator[Host]:
    yield machine
    machine.run("ovs-vsctl", "--", "emer-reset")
    for bridge in machine.run("ovs-vsctl", "list-br").split():
        machine.run("ovs-vsctl", "del-br", bridge)
    machine.run("ovs-vsctl", "clear", "open", ".", "external_ids", "--", "clear", "open", ".", "other_config")


def vswitch(host: Host, check_mode: bool = False, **options: t.Any) -> Options:
    return host.module("qnet_vswitch", check_mode, **options)


def integration_bridge(**options: t.Any) -> Options:
    return {
        "bridges": [
            {
                "name": "br-int",
                "datapath_type": "netdev",
                "fail_mode": "secure",
                "protocols": ["OpenFlow15", "OpenFlow13"],
                "datapath_id": "2F7C1A9DE0B45310",
                "other_config": {"disable-in-band": True},
                "controllers": [
                    {
                        "target": "tcp:127.0.0.1:6653",
                        "max_backoff_milliseconds": 2000,
                        "inactivity_probe_milliseconds": 5000,
                        "connection_mode": "out-of-band",
                    },
                    {"target": "tcp:127.0.0.2:6653"},
                ],
                "ports": [{"name": "qnet-vxlan", "type": "vxlan", "options": {"remote_ip": "flow", "key": "flow"}}],
                **options,
            }
        ]
    }


def column(host: Host, table: str, record: str, name: str) -> str:
    return host.run("ovs-vsctl", "get", table, record, name)


def row_ids(host: Host, table: str) -> set[str]:
    return set(host.run("ovs-vsctl", "--no-headings", "-f", "csv", "--columns=_uuid", "list", table).split())


def transactions(host: Host) -> int:
    """How many transactions are in the log of the database."""
    return len(host.run("ovsdb-tool", "show-log", str(host.directory / "conf.db")).splitlines())


def test_apply_again_and_what_ovs_itself_says(host: Host) -> None:
    first = vswitch(host, **integration_bridge())
    assert first["changed"] is True
    assert "failed" not in first, first
    assert column(host, "bridge", "br-int", "datapath_id") == '"2f7c1a9de0b45310"'
    assert column(host, "bridge", "br-int", "fail_mode") == "secure"
    assert column(host, "bridge", "br-int", "protocols") == "[OpenFlow13, OpenFlow15]"
    assert column(host, "interface", "qnet-vxlan", "options") == "{key=flow, remote_ip=flow}"
    assert int(column(host, "interface", "qnet-vxlan", "ofport")) > 0
    assert set(host.run("ovs-vsctl", "get-controller", "br-int").split()) == {
        "tcp:127.0.0.1:6653",
        "tcp:127.0.0.2:6653",
    }
    # The switch works, not only its database.
    assert "2f7c1a9de0b45310" in host.run("ovs-ofctl", "-O", "OpenFlow15", "show", "br-int")

    log = transactions(host)
    again = vswitch(host, **integration_bridge())
    assert again["changed"] is False
    assert again["diff"]["before"] == again["diff"]["after"]
    assert transactions(host) == log


def test_equivalent_spellings_change_nothing(host: Host) -> None:
    vswitch(host, **integration_bridge())
    spelled = integration_bridge(
        protocols=["OpenFlow13", "OpenFlow15", "OpenFlow13"],
        datapath_id="2f7c1a9de0b45310",
        other_config={"disable-in-band": "true"},
    )
    spelled["bridges"][0]["controllers"].reverse()
    assert vswitch(host, **spelled)["changed"] is False


def test_check_mode_says_exactly_what_a_run_does(host: Host) -> None:
    for step in (integration_bridge(), integration_bridge(fail_mode="", controllers=[]), integration_bridge()):
        before = host.run("ovs-vsctl", "show")
        foreseen = vswitch(host, True, **step)
        assert host.run("ovs-vsctl", "show") == before
        done = vswitch(host, **step)
        assert foreseen["changed"] is done["changed"] is True
        assert foreseen["diff"] == done["diff"]
        assert foreseen["vswitch"] == done["vswitch"]
        assert vswitch(host, True, **step)["changed"] is False


@pytest.mark.parametrize(
    ("change", "table", "record", "name", "value"),
    [
        ({"fail_mode": "standalone"}, "bridge", "br-int", "fail_mode", "standalone"),
        ({"fail_mode": ""}, "bridge", "br-int", "fail_mode", "[]"),
        ({"protocols": []}, "bridge", "br-int", "protocols", "[]"),
        ({"protocols": ["OpenFlow14"]}, "bridge", "br-int", "protocols", "[OpenFlow14]"),
        ({"other_config": {}}, "bridge", "br-int", "other_config", '{datapath-id="2f7c1a9de0b45310"}'),
        ({"datapath_id": ""}, "bridge", "br-int", "other_config", '{disable-in-band="true"}'),
        ({"external_ids": {"a": "b=c"}}, "bridge", "br-int", "external_ids", '{a="b=c"}'),
        ({"controllers": []}, "bridge", "br-int", "controller", "[]"),
        (
            {"ports": [{"name": "qnet-vxlan", "options": {"remote_ip": "flow"}}]},
            "interface", "qnet-vxlan", "options", "{remote_ip=flow}",
        ),
        (
            {"ports": [{"name": "qnet-vxlan", "external_ids": {"qnet-pod": "g/p"}}]},
            "interface", "qnet-vxlan", "external_ids", '{qnet-pod="g/p"}',
        ),
        (
            {"ports": [{"name": "qnet-vxlan", "type": "internal", "options": {}}]},
            "interface", "qnet-vxlan", "type", "internal",
        ),
        ({"ports": [{"name": "br-int", "mtu": 1400}]}, "interface", "br-int", "mtu_request", "1400"),
    ],
)  # fmt: skip
def test_each_option_changes_its_column_and_nothing_else(
    host: Host, change: Options, table: str, record: str, name: str, value: str
) -> None:
    vswitch(host, **integration_bridge())
    ports, controllers = row_ids(host, "port"), row_ids(host, "controller")
    result = vswitch(host, bridges=[{"name": "br-int", **change}])
    assert result["changed"] is True
    assert "failed" not in result, result
    assert column(host, table, record, name) == value
    assert row_ids(host, "port") == ports
    assert row_ids(host, "controller") == (set() if "controllers" in change else controllers)
    assert vswitch(host, bridges=[{"name": "br-int", **change}])["changed"] is False


def test_settings_of_one_controller_change_in_its_row(host: Host) -> None:
    vswitch(host, **integration_bridge())
    ids = row_ids(host, "controller")
    controllers = [
        {"target": "tcp:127.0.0.1:6653", "max_backoff_milliseconds": 3000},
        {"target": "tcp:127.0.0.2:6653"},
    ]
    result = vswitch(host, bridges=[{"name": "br-int", "controllers": controllers}])
    assert result["vswitch"]["bridges"]["br-int"]["controllers"]["tcp:127.0.0.1:6653"] == {
        "max_backoff_milliseconds": 3000,
        "inactivity_probe_milliseconds": 5000,
        "connection_mode": "out-of-band",
    }
    assert row_ids(host, "controller") == ids


def test_what_is_not_mentioned_survives(host: Host) -> None:
    host.run("ovs-vsctl", "add-br", "br-other", "--", "set", "bridge", "br-other", "datapath_type=netdev")
    host.run("ovs-vsctl", "add-port", "br-other", "in0", "--", "set", "interface", "in0", "type=internal")
    host.run("ovs-vsctl", "set", "open", ".", "external_ids:system-id=x", "external_ids:drop=me")
    result = vswitch(host, **integration_bridge(), external_ids={"owner": "qnet", "drop": None})
    assert result["diff"]["after"]["external_ids"] == {"owner": "qnet"}
    assert host.run("ovs-vsctl", "list-ports", "br-other") == "in0"
    assert column(host, "open", ".", "external_ids") == "{owner=qnet, system-id=x}"
    vswitch(host, bridges=[{"name": "br-other", "ports": []}, {"name": "br-int", "state": "absent"}])
    assert host.run("ovs-vsctl", "list-ports", "br-other") == "in0"
    assert host.run("ovs-vsctl", "list-br") == "br-other"


def test_a_port_moves_between_bridges_and_keeps_its_row(host: Host) -> None:
    bridges = [{"name": name, "datapath_type": "netdev"} for name in ("br-a", "br-b")]
    vswitch(host, bridges=[{**bridges[0], "ports": [{"name": "in0", "type": "internal"}]}, bridges[1]])
    row = column(host, "port", "in0", "_uuid")
    result = vswitch(host, bridges=[{"name": "br-b", "ports": [{"name": "in0"}]}])
    assert "failed" not in result, result
    assert host.run("ovs-vsctl", "port-to-br", "in0") == "br-b"
    assert column(host, "port", "in0", "_uuid") == row


def test_keys_and_certificates_are_set_changed_and_cleared(host: Host) -> None:
    files = {"private_key": "/k.pem", "certificate": "/c.pem", "ca_certificate": "/a.pem"}
    assert vswitch(host, ssl=files)["changed"] is True
    assert "/k.pem" in host.run("ovs-vsctl", "get-ssl")
    assert vswitch(host, ssl=files)["changed"] is False
    assert vswitch(host, ssl={**files, "certificate": "/d.pem"})["changed"] is True
    assert "/d.pem" in host.run("ovs-vsctl", "get-ssl")
    assert vswitch(host)["changed"] is False
    assert vswitch(host, ssl={})["changed"] is True
    assert host.run("ovs-vsctl", "get-ssl") == ""
    assert "are required together" in vswitch(host, ssl={"private_key": "/k.pem"})["msg"]


def test_removal_removes_every_row(host: Host) -> None:
    vswitch(host, **integration_bridge())
    gone: Options = {"bridges": [{"name": "br-int", "state": "absent"}]}
    assert vswitch(host, **gone)["changed"] is True
    assert vswitch(host, **gone)["changed"] is False
    for table in ("bridge", "port", "interface", "controller"):
        assert host.run("ovs-vsctl", "--no-headings", "list", table) == ""


def test_an_interface_that_cannot_be_opened_is_named_also_when_nothing_changes(host: Host) -> None:
    ask: Options = {"bridges": [{"name": "br-phy", "datapath_type": "netdev", "ports": [{"name": "eth7"}]}]}
    for changed in (True, False):
        result = vswitch(host, **ask)
        assert result["failed"] is True
        assert result["changed"] is changed
        assert "bridge br-phy, port eth7: could not open network device eth7" in result["msg"]
    other = vswitch(host, **integration_bridge())
    assert "failed" not in other, other
    assert list(other["interface_errors"]) == ["eth7"]


def test_a_datapath_that_cannot_be_made_is_named(host: Host) -> None:
    if pathlib.Path("/sys/module/openvswitch").exists():
        pytest.skip("this kernel has the openvswitch module")
    result = vswitch(host, bridges=[{"name": "br-sys", "datapath_type": "system"}])
    assert result["failed"] is True
    assert "bridge br-sys: ovs-vswitchd could not create its datapath" in result["msg"]
    assert "datapath_type=netdev" in result["msg"]


def test_bad_options_change_nothing_and_come_all_at_once(host: Host) -> None:
    before = host.run("ovs-vsctl", "show")
    bad = integration_bridge(datapath_id="xyz", controllers=[{"target": "nowhere"}])
    bad["bridges"].append({"name": "a-name-that-is-too-long"})
    result = vswitch(host, **bad)
    assert result["failed"] is True
    assert [line.split(": ")[0] for line in result["msg"].splitlines()] == [
        "bridges[0].datapath_id",
        "bridges[0].controllers[0].target",
        "bridges[1].name",
    ]
    assert host.run("ovs-vsctl", "show") == before


def test_what_the_database_refuses_is_reported_by_check_mode_as_well(host: Host) -> None:
    controllers = [{"target": "tcp:127.0.0.1:6653", "inactivity_probe_milliseconds": 2**70}]
    for check_mode in (True, False):
        result = vswitch(host, check_mode, **integration_bridge(controllers=controllers))
        assert result["failed"] is True
        assert "the database Open_vSwitch refused the transaction" in result["msg"]
    assert host.run("ovs-vsctl", "list-br") == ""


def test_other_writers_at_the_same_time_lose_nothing(host: Host) -> None:
    vswitch(host, **integration_bridge(controllers=[]))
    add = "ovs-vsctl add-port br-int w$i -- set interface w$i type=internal"
    writer = host.popen("sh", "-c", f"for i in 1 2 3 4 5 6 7 8 9 10 11 12; do {add}; done")
    for number in range(6):
        port = {"name": f"m{number}", "type": "internal"}
        result = vswitch(host, bridges=[{"name": "br-int", "ports": [port]}])
        assert "failed" not in result, result
    assert writer.wait(60) == 0
    ports = set(host.run("ovs-vsctl", "list-ports", "br-int").split())
    assert ports == {"qnet-vxlan", *(f"w{i}" for i in range(1, 13)), *(f"m{i}" for i in range(6))}


def test_without_vswitchd_it_says_so_and_a_later_run_finds_the_work_done(host: Host) -> None:
    host.kill("ovs-vswitchd")
    try:
        result = vswitch(host, **integration_bridge(), wait_seconds=1)
        assert result["failed"] is True
        assert "ovs-vswitchd has not applied the configuration within 1 s" in result["msg"]
        waited_again = vswitch(host, **integration_bridge(), wait_seconds=1)
        assert waited_again["failed"] is True
        assert "failed" not in vswitch(host, **integration_bridge(), wait_seconds=0)
    finally:
        host.start_daemon()
    result = vswitch(host, **integration_bridge())
    assert "failed" not in result, result
    assert result["changed"] is False


def test_a_database_that_hangs_is_given_up_on(host: Host) -> None:
    server = host.daemon_pid("ovsdb-server")
    os.kill(server, signal.SIGSTOP)
    try:
        result = vswitch(host, **integration_bridge())
    finally:
        os.kill(server, signal.SIGCONT)
    assert result["failed"] is True
    assert "no answer within 10 s" in result["msg"]


def test_info_shows_options_and_status(host: Host) -> None:
    vswitch(host, **integration_bridge())
    info = wait_until(lambda: host.module("qnet_vswitch_info"), 5)
    assert info["changed"] is False
    assert info["vswitch"]["bridges"]["br-int"]["fail_mode"] == "secure"
    status = info["status"]["bridges"]["br-int"]
    assert status["datapath_id"] == "2f7c1a9de0b45310"
    assert status["controllers"]["tcp:127.0.0.1:6653"]["is_connected"] is False
    assert status["ports"]["qnet-vxlan"]["ofport"] > 0
    assert status["ports"]["qnet-vxlan"]["error"] is None
    only = host.module("qnet_vswitch_info", bridges=["br-none"])
    assert only["vswitch"]["bridges"] == only["status"]["bridges"] == {}


@pytest.fixture
def bare(tmp_path: pathlib.Path, target_python: str, import_path: str) -> Iterator[Host]:
    """A host on which no Open vSwitch runs."""
    host = Host(tmp_path, target_python, import_path)
    try:
        yield host.start(switch=False)
    finally:
        host.stop()


@pytest.mark.parametrize("module", ["qnet_vswitch", "qnet_vswitch_info"])
@pytest.mark.parametrize("check_mode", [True, False])
def test_a_host_without_ovs_says_how_to_install_it(bare: Host, module: str, check_mode: bool) -> None:
    result = bare.module(module, check_mode)
    assert result["failed"] is True
    assert "no Open vSwitch on this host" in result["msg"]
    assert "/run/openvswitch/db.sock" in result["msg"]
    assert "apt-get install openvswitch-switch python3-openvswitch" in result["msg"]


def test_a_host_without_the_library_says_how_to_install_it(
    tmp_path: pathlib.Path, import_path: str, target_python: str
) -> None:
    """A Python that does not find the distribution's packages stands for a host that lacks them."""
    isolated = tmp_path / "python"
    isolated.write_text(f'#!/bin/sh\nexec {target_python} -S "$@"\n')
    isolated.chmod(0o755)
    host = Host(tmp_path, str(isolated), import_path)
    try:
        result = host.start(switch=False).module("qnet_vswitch")
    finally:
        host.stop()
    assert result["failed"] is True
    assert "no Python library 'ovs'" in result["msg"]
    assert "apt-get install openvswitch-switch python3-openvswitch" in result["msg"]


def test_an_empty_database_is_filled(bare: Host) -> None:
    bare.run("ovsdb-tool", "create", str(bare.directory / "conf.db"), "/usr/share/openvswitch/vswitch.ovsschema")
    bare.start_database()
    result = vswitch(bare, **integration_bridge(), wait_seconds=0)
    assert "failed" not in result, result
    assert result["changed"] is True
    assert vswitch(bare, **integration_bridge(), wait_seconds=0)["changed"] is False
