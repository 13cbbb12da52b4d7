# SPDX-License-Identifier: Apache-2.0
"""Scaling and moving under traffic."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.e2e.fleet import ROOT, Fleet, Pod

IMAGE_IP, IMAGE_PORT = "10.96.0.20", 8081  # inventories/fop
SECONDS, LONG_REQUESTS = 600, 8
pytestmark = pytest.mark.timeout(900)


def test_scaling_under_constant_requests_fails_none(fop: Fleet, pods: dict[str, Pod]) -> None:
    caller = pods["fop/agents-1"]
    with ExitStack() as stack:
        # Many requests, and long ones beside them: some are under way whenever a backend comes or goes.
        ways = [(0.05, 0.0), *[(1.0, 1.0)] * LONG_REQUESTS]
        asked = ("probe.py", "load", IMAGE_IP, IMAGE_PORT, SECONDS)
        loads = [stack.enter_context(fop.running(caller, *asked, *map(str, way))) for way in ways]
        for load in loads:
            load.wait_until_ready()
        fop.play("pods", "fop", fop_image_replicas=5)
        more = who_answers(fop, caller)
        fop.play("pods", "fop", fop_image_replicas=3)
        fewer = who_answers(fop, caller)
        rows = [row for load in loads for row in load.stop()["rows"]]
    print("slowest:", *sorted(rows, key=lambda row: row[3])[-5:], sep="\n  ")
    names = {f"fop.image-{number}" for number in range(1, 6)}
    assert more == names
    assert fewer == names - {"fop.image-4", "fop.image-5"}
    assert [row for row in rows if row[2]] == []
    assert len(rows) > 200


def who_answers(fop: Fleet, caller: Pod) -> set[str]:
    """The backends in use now; a hundred requests find all of five but for one time in a thousand million."""
    seen = fop.ask(caller, "ask", "http", IMAGE_IP, IMAGE_PORT, 100)
    assert seen["errors"] == []
    return {name.replace("/", ".") for (name,) in seen["answers"]}


@pytest.fixture
def home_again(fop: Fleet) -> Iterator[None]:
    """Put the pods back where the inventory wants them."""
    yield
    fop.play("pods", "fop")


def inventory_with(directory: Path, pod: str, host: str) -> Path:
    """A copy of the FOP inventory in which a pod of the image service is pinned to a host."""
    folder = directory / "fop"
    shutil.copytree(ROOT / "inventories", directory, dirs_exist_ok=True)
    path = folder / "group_vars" / "all" / "tenants.yml"
    variables = yaml.safe_load(path.read_text())
    for tenant in variables["qnet_tenants"]:
        for group in tenant["security_groups"]:
            for service in group["services"]:
                if pod.rpartition("-")[0] == f"{group['name']}/{service['name']}":
                    service["placement"] = {pod.partition("/")[2]: host}
    path.write_text(yaml.safe_dump(variables))
    return folder


@pytest.mark.usefixtures("home_again")
def test_open_connections_follow_a_moved_pod(fop: Fleet, pods: dict[str, Pod], tmp_path: Path) -> None:
    """One straight to the pod and one through its Service IP; the process moves as live migration moves it."""
    pod, caller = pods["fop/image-1"], pods["fop/agents-1"]
    target = next(host for host in fop.groups["switches"] if host != pod.host)
    ports = {5000: pod.address, 5001: IMAGE_IP}
    with ExitStack() as stack:
        listening = ",".join(map(str, ports))
        server = stack.enter_context(fop.running(pod, "movable.py", "serve", pod.name, listening, "eth0", SECONDS))
        server.wait_until_ready()
        clients = [
            stack.enter_context(fop.running(caller, "probe.py", "hold", address, port, SECONDS, 0.05))
            for port, address in ports.items()
        ]
        for client in clients:
            client.wait_until_ready()
        states = server.stop()
        moved = replace(pod, host=target)
        prepare_namespace(fop, moved, caller)
        resumed = stack.enter_context(fop.running(moved, "movable.py", "resume", json.dumps(states), SECONDS))
        resumed.wait_until_ready()
        fop.play("pods", inventory_with(tmp_path, pod.name, target))
        fop.run(target, "ip", "-n", pod.namespace, "link", "delete", "waiting0")
        assert fop.pods()[pod.name] == moved  # the same address on another host
        held = [client.stop() for client in clients]
    for client in held:
        assert client["greeting"].split()[:2] == [pod.name, caller.address]
        assert client["longest"] > 1  # a line was on its way during the move, and was answered after it


def prepare_namespace(fop: Fleet, pod: Pod, peer: Pod) -> None:
    """A namespace on the new host in which connections can be restored before the pod's interface is there.

    Without an interface of their address nothing could be restored, and with a port on the switch the peer's packets
    would be answered with resets. So the address and the way to the peer lie on an interface that leads nowhere.
    """
    for words in (
        f"ip netns add {pod.namespace}",
        f"ip -n {pod.namespace} link set lo up",
        f"ip -n {pod.namespace} link add waiting0 type veth peer name waiting1",
        f"ip -n {pod.namespace} address add {pod.address}/32 dev waiting0",
        f"ip -n {pod.namespace} link set waiting1 up",
        f"ip -n {pod.namespace} link set waiting0 up",
        f"ip -n {pod.namespace} route add {peer.address}/32 dev waiting0",
    ):
        fop.run(pod.host, *words.split())
