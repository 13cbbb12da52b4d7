# SPDX-License-Identifier: Apache-2.0
"""A pod goes outside by the rules of its group, through the kernel of its host as the role `outside` has set it up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from tests.e2e.fleet import ROOT, Fleet, Pod

PORT, OTHER_PORT = 12360, 12361
WEB = "203.0.113.9"
MACHINE = Pod("e2e/outside", "", WEB)
WIRE = (
    "ip netns add e2e.outside && ip link add e2e-wire type veth peer name wire netns e2e.outside && "
    "ip addr add 192.0.2.1/30 dev e2e-wire && ip link set e2e-wire up && "
    "ip -n e2e.outside link set lo up && ip -n e2e.outside addr add 192.0.2.2/30 dev wire && "
    f"ip -n e2e.outside addr add {WEB}/32 dev lo && ip -n e2e.outside link set wire up && "
    f"ip route add {WEB}/32 via 192.0.2.2"
)
UNWIRE = f"ip netns del e2e.outside; ip link del e2e-wire 2>/dev/null; ip route del {WEB}/32 2>/dev/null; true"


def let(fop: Fleet, group: str, *rules: dict[str, object]) -> None:
    """Give a group these egress rules, and wait until the switches have confirmed it."""
    arguments = json.dumps({"name": group, "egress": list(rules), "wait": True})
    command = ["ansible", fop.groups["controllers"][0], "-i", str(fop.hosts_file), "-m"]
    done = subprocess.run(
        [*command, "qiniu.qnet.qnet_security_group", "-a", arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def caller(fop: Fleet, pods: dict[str, Pod]) -> Iterator[Pod]:
    """A pod of the group fop, with a machine outside on a wire of its host."""
    pod = next(pod for name, pod in sorted(pods.items()) if name.startswith("fop/"))
    fop.run(pod.host, "sh", "-c", WIRE)
    try:
        yield pod
    finally:
        fop.run(pod.host, "sh", "-c", UNWIRE)
        let(fop, "fop")


def test_a_pod_reaches_outside_what_its_group_may_and_nothing_reaches_it(fop: Fleet, caller: Pod) -> None:
    machine = Pod(MACHINE.name, caller.host, WEB)
    with (
        fop.serving([machine], "serve-tcp", "{}", PORT, 120),
        fop.serving([machine], "serve-tcp", "{}", OTHER_PORT, 120),
    ):
        assert fop.ask(caller, "ask", "tcp", WEB, PORT, 1)["errors"]
        let(fop, "fop", {"to": "203.0.113.0/24", "ports": [f"tcp/{PORT}"]})
        assert fop.ask(caller, "ask", "tcp", WEB, PORT, 5)["errors"] == []
        assert fop.ask(caller, "ask", "tcp", WEB, OTHER_PORT, 1)["errors"]
        let(fop, "fop")
        assert fop.ask(caller, "ask", "tcp", WEB, PORT, 1)["errors"]
    with fop.serving([caller], "serve-tcp", "{}", PORT, 60):
        fop.run(caller.host, "ip", "-n", "e2e.outside", "route", "add", "198.19.0.0/16", "via", "192.0.2.1")
        numbers = fop.run(caller.host, "ovs-vsctl", "--bare", "--columns=ofport", "list", "Interface").split()
        for number in sorted({number for number in numbers if number.isdigit() and 0 < int(number) < 100}):
            assert fop.ask(machine, "ask", "tcp", f"198.19.0.{number}", PORT, 1)["errors"]


def test_the_way_out_is_set_up_once_and_the_controllers_know_it(fop: Fleet) -> None:
    for host in fop.groups["switches"]:
        assert fop.run(host, "systemctl", "is-active", "qnet-outside.service") == "active"
        found = fop.switch(host)
        assert found is not None
        assert found[1]["way_out"]
