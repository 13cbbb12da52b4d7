# SPDX-License-Identifier: Apache-2.0
"""The L7 balancer of the FOP inventory: from outside on the hosts' addresses, from pods on its Service IP."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import yaml
from tests.e2e.fleet import ROOT, Fleet, Pod

pytestmark = pytest.mark.timeout(900)

BALANCER_IP = "10.96.0.3"


@dataclass(frozen=True)
class Answer:
    """Status, headers in lower case, and the body."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def pod(self) -> str:
        """The pod that answered the balancer."""
        return self.headers.get("x-qnet-pod", "")


@pytest.fixture
def outside(fop: Fleet, pods: dict[str, Pod]) -> list[str]:
    """The addresses of the hosts with a pod of the balancer, as a client outside of the overlay sees them."""
    hosts = yaml.safe_load(fop.hosts_file.read_text())["all"]["children"]["switches"]["hosts"]
    return [hosts[pod.host]["ansible_host"] for pod in of_balancer(pods)]


def of_balancer(pods: dict[str, Pod]) -> list[Pod]:
    return [pod for name, pod in sorted(pods.items()) if name.startswith("edge/balancer-")]


def ask(address: str, path: str, body: bytes | None = None, timeout: float = 20, **headers: str) -> Answer:
    """A request from this machine; headers are said with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{address}{path}", body, named)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            told = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, told, answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        told = {name.lower(): value for name, value in error.headers.items()}
        return Answer(error.code, told, error.read().decode(errors="replace"))


def set_direct(fop: Fleet, direct: bool) -> None:
    """Change the export of the agents to the balancer's group, as an operator would by hand."""
    command = [
        "ansible", "controllers", "--inventory", str(fop.hosts_file), "--limit", fop.groups["controllers"][0],
        "--module-name", "qiniu.qnet.qnet_export",
        "--args", json.dumps({"service": "fop/agents", "to": "edge", "direct": direct}),
    ]  # fmt: skip
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)


def test_the_entry_answers_on_the_address_of_every_host_with_a_balancer(outside: list[str]) -> None:
    for address in outside:
        answer = ask(address, "/sample.png?resize=20x20")
        assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
        assert answer.pod.startswith("entry/entry-")


def test_pods_reach_the_balancer_on_its_service_ip(fop: Fleet, pods: dict[str, Pod]) -> None:
    caller = of_balancer(pods)[0]  # a pod of the same group
    script = f"import urllib.request as u; print(u.urlopen('http://{BALANCER_IP}/', timeout=10).status)"
    assert fop.run(caller.host, "ip", "netns", "exec", caller.namespace, "python3", "-c", script).strip() == "200"


def test_a_file_goes_to_the_agent_that_holds_it(outside: list[str]) -> None:
    """By hash of its name: the second request for a file is answered from the memory of the same agent."""
    agents, body = set(), sample(outside[0])
    for number in range(12):
        path = f"/agents/image?resize={10 + number}x10&file={number}"
        first, second = (ask(address, path, body) for address in (outside[0], outside[-1]))
        assert (first.status, second.status) == (200, 200)
        assert first.pod == second.pod, "both balancers choose the same agent"
        assert second.headers["x-qnet-cache"] == "hit"
        agents.add(first.pod)
    assert len(agents) > 1


def sample(address: str) -> bytes:
    """A picture that agents can have processed."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/sample.png", timeout=20) as answer:
        return bytes(answer.read())


def test_a_request_names_its_agent_and_no_other_pod(outside: list[str]) -> None:
    body = sample(outside[0])
    for number in (1, 2):
        for name in (f"agents-{number}", f"fop/agents-{number}", str(number)):
            answer = ask(outside[0], f"/agents/image?resize=3{number}x10", body, X_Fop_Agent=name)
            assert (answer.status, answer.pod) == (200, f"fop/agents-{number}")
    for name in ("image-1", "fop/image-1", "9"):
        assert ask(outside[0], "/agents/image", body, X_Fop_Agent=name).status == 404
    assert ask(outside[0], "/", X_Fop_Agent="1").status == 400, "this route does not let a request name a pod"


def test_naming_ends_with_the_export(fop: Fleet, outside: list[str]) -> None:
    body = sample(outside[0])

    def status() -> int:
        """0 for a request that was on its way when its export went: its connection is cut off, not reset."""
        try:
            return ask(outside[0], "/agents/image?resize=5x5", body, 3, X_Fop_Agent="1").status
        except OSError:
            return 0

    def becomes(wanted: int) -> bool:
        deadline = time.monotonic() + 30
        while status() != wanted:
            if time.monotonic() > deadline:
                return False
        return True

    assert becomes(200)
    set_direct(fop, False)
    try:
        assert becomes(403)
    finally:
        set_direct(fop, True)
    assert becomes(200)


def test_metrics_and_log_name_the_service(fop: Fleet, pods: dict[str, Pod], outside: list[str]) -> None:
    pod = of_balancer(pods)[0]
    ask(outside[0], "/agents/image", sample(outside[0]), X_Fop_Agent="1")
    script = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9681/metrics', timeout=10).read().decode())"
    deadline = time.monotonic() + 30
    while 'route="agents",service="fop/agents"' not in (text := fop.run(pod.host, "python3", "-c", script)):
        assert time.monotonic() < deadline, text
    log = fop.run(pod.host, "tail", "--lines=50", f"/var/lib/qnet/l7/{pod.namespace}/logs/access.log")
    lines = [json.loads(line) for line in log.splitlines()]
    wanted = {"route": "web/agents", "service": "fop/agents", "tenant": "fop", "pod": "agents-1"}
    assert wanted in [{name: line[name] for name in wanted} for line in lines]
