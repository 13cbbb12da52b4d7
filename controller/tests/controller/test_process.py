# SPDX-License-Identifier: Apache-2.0
"""The whole controller process with a real Open vSwitch and a real intent database."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from contract.fixtures import BRIDGE, DATAPATH_ID, attach, write_toml
from contract.intent import delete, fleet, insert, update
from contract.process import (
    API,
    OPENFLOW,
    Process,
    Stage,
    its_switch,
    master,
    point_at_controller,
    shared_stage,
    small_fleet,
)
from contract.real import QNET_SCHEMA, Authority, Database, Vswitch, database, wait_for
from qnet_controller.pipeline.tables import Table

__all__ = ["its_switch", "master", "shared_stage", "small_fleet"]


def durations(switch: Vswitch) -> dict[str, float]:
    """Seconds since each flow was written, by its cookie, table and match."""
    found = {}
    for line in switch.flows():
        duration = re.search(r"duration=([\d.]+)s", line)
        assert duration
        name = re.sub(r"(duration|n_packets|n_bytes|idle_age)=\S+ ", "", line)
        found[name] = float(duration[1])
    return found


def test_a_switch_is_adopted_and_its_pods_are_located(process: Process, switch: Vswitch) -> None:
    status = process.status()
    assert (status["ready"], status["loaded"], status["settled"], status["generation"]) == (True, True, True, 7)
    assert process.switch()["role"] == "master"
    assert process.switch()["flows"] == len(switch.flows()) > 30
    assert {pod["pod"]: (pod["host"], pod["port"]) for pod in status["pods"]} == {
        "fop/image-1": ("h1", 1),
        "fop/image-2": ("h1", 2),
        "entry/web-3": ("h1", 3),
    }
    assert process.get("/healthz") == (200, "ok\n")
    assert process.get("/readyz") == (200, "ready\n")
    assert process.metric("qnet_adoptions_total") >= 1
    assert process.metric("qnet_openflow_errors_total") == 0
    assert 'qnet_switches{role="master"} 1.0' in process.get("/metrics")[1]


def test_a_killed_controller_leaves_the_flows_alone(process: Process, switch: Vswitch) -> None:
    before = durations(switch)
    process.end(signal.SIGKILL)
    assert durations(switch).keys() == before.keys(), "flows went with the controller"
    time.sleep(0.2)
    process.start()
    wait_for(lambda: process.switch().get("adopted"))
    after = durations(switch)
    assert after.keys() == before.keys()
    touched = [name for name in before if after[name] <= before[name]]
    assert not touched, f"written again: {touched}"


def test_wrong_missing_and_foreign_flows_are_corrected_and_no_others(process: Process, switch: Vswitch) -> None:
    right = durations(switch)
    assert process.end(signal.SIGTERM) == 0
    victim = next(name for name in right if f"table={int(Table.PORTS)}" in name)
    switch.ofctl("del-flows", f"table={int(Table.PORTS)}")
    switch.ofctl("add-flow", f"table={int(Table.PLAN)},priority=7,ip,nw_dst=10.10.0.1 actions=drop")
    switch.ofctl("add-flow", "table=77,priority=7,tcp,tcp_flags=+syn,nw_ttl=3,reg9=4 actions=drop")
    switch.ofctl("add-group", "group_id=99,type=select,bucket=weight:1,actions=output:1")
    process.start()
    wait_for(lambda: process.switch().get("adopted"))
    wait_for(lambda: durations(switch).keys() == right.keys())
    after = durations(switch)
    assert [name for name in right if after[name] < right[name]] == [victim]
    assert "group_id=99" not in switch.ofctl("dump-groups")
    assert process.metric("qnet_openflow_errors_total") == 0


def test_a_change_of_intent_changes_only_what_it_must(process: Process, switch: Vswitch, intent: Database) -> None:
    before = durations(switch)
    intent.execute(update("Pod", ["name", "==", "web-3"], mac="02:00:00:00:00:33"))
    wait_for(lambda: any("02:00:00:00:00:33" in name for name in durations(switch)))
    after = durations(switch)
    kept = before.keys() & after.keys()
    assert len(kept) > 25
    assert all(after[name] > before[name] for name in kept)
    assert not any("02:00:00:00:00:03" in name for name in after)
    intent.execute(delete("Pod_Address", ["address", "==", "10.10.0.3"]), delete("Pod", ["name", "==", "web-3"]))
    wait_for(lambda: "10.10.0.3" not in "\n".join(switch.flows()))
    assert process.metric("qnet_openflow_errors_total") == 0


def test_ports_that_come_and_go_move_pods(process: Process, switch: Vswitch) -> None:
    def located() -> dict[str, Any]:
        return {pod["pod"]: pod["port"] for pod in process.status()["pods"]}

    switch.vsctl("del-port", "dummy3")
    wait_for(lambda: located()["entry/web-3"] is None)
    wait_for(lambda: "10.10.0.3" not in "\n".join(switch.flows()))
    attach(switch, 3)
    wait_for(lambda: located()["entry/web-3"] == 3)
    wait_for(lambda: "10.10.0.3" in "\n".join(switch.flows()))


def test_a_lost_database_changes_nothing(stage: Stage, switch: Vswitch, tmp_path: Path, authority: Authority) -> None:
    if stage.process.alive():
        stage.process.end()
    config = write_toml(
        tmp_path / "controller.toml", authority, port=OPENFLOW, api=API, remote=f"unix:{tmp_path}/QNet.sock"
    )
    process = Process(config, tmp_path / "controller.log")
    try:
        wait_for(lambda: process.get("/readyz") == (503, "waiting for the intent database\n"))
        with database(tmp_path, "QNet", QNET_SCHEMA) as served:
            served.execute(*fleet())
            wait_for(lambda: process.switch().get("adopted"), 15)
        wait_for(lambda: "lost the intent database" in process.log)
        before = durations(switch)
        switch.vsctl("del-controller", BRIDGE)
        wait_for(lambda: not process.switch()["connected"])
        point_at_controller(switch)
        wait_for(lambda: process.switch().get("adopted"))
        assert durations(switch).keys() == before.keys()
        with database(tmp_path, "QNet", QNET_SCHEMA) as served:
            served.execute(insert("Network", name="late", vni=7, pod_subnets="10.20.0.0/16"))
            wait_for(lambda: process.status()["model"]["networks"] == 2, 15)
    finally:
        process.end()
        stage.process.start()


def test_a_switch_without_a_host_waits_and_gets_nothing(process: Process, switch: Vswitch, intent: Database) -> None:
    intent.execute(delete("Host"))
    wait_for(lambda: process.status()["waiting"])
    switch.ofctl("del-flows")
    switch.vsctl("set", "bridge", BRIDGE, f"other_config:datapath-id={DATAPATH_ID + 1:016x}")
    wait_for(lambda: f"{DATAPATH_ID + 1:016x} h1" in " ".join(process.status().get("waiting", [])))
    assert switch.flows() == []
    intent.execute(
        insert(
            "Host", name="h1", vteps="192.0.2.1", datapath_id=f"{DATAPATH_ID + 1:016x}", datapath_kind="netdev",
            controller_set="", state="active",
        )
    )  # fmt: skip
    wait_for(lambda: process.switch().get("adopted"))
    wait_for(switch.flows)
    switch.vsctl("set", "bridge", BRIDGE, f"other_config:datapath-id={DATAPATH_ID:016x}")


def test_the_switch_of_another_host_is_refused(process: Process, switch: Vswitch, intent: Database) -> None:
    intent.execute(update("Host", ["name", "==", "h1"], name="h2"))
    wait_for(lambda: process.metric("qnet_refused_peers_total") >= 2)
    assert "its certificate is for host 'h1', but switch" in process.log
    assert not process.switch()["connected"]
    intent.execute(update("Host", ["name", "==", "h2"], name="h1"))
    wait_for(lambda: process.switch().get("adopted"))


def test_bytes_from_a_stranger_are_nobodys_business(process: Process, switch: Vswitch, authority: Authority) -> None:
    with socket.create_connection(("127.0.0.1", OPENFLOW)) as stranger:
        stranger.sendall(b"\x06\x00\x00\x10" + bytes(12))
        stranger.settimeout(5)
        try:
            while stranger.recv(4096):
                pass
        except ConnectionError:
            pass
    assert process.switch()["adopted"]
    assert process.get("/readyz")[0] == 200


def test_a_second_process_says_why_it_cannot_run(process: Process) -> None:
    done = subprocess.run(process.command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "api.listen: 127.0.0.1:19680: cannot listen there" in done.stderr
    assert "Traceback" not in done.stderr
