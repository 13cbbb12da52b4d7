# SPDX-License-Identifier: Apache-2.0
"""Health checks on a live fleet: who fails leaves the rotation everywhere, and nobody flaps with a new controller."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.real import run, wait_for

from .live import Agent, Fleet, dotted
from .tenants import SERVICE_BLOCK, TCP, World

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
SERVICE_IP = dotted(SERVICE_BLOCK + 10)
HTTP_PORT = 8099
TIMES = {"interval_seconds": "0.4", "timeout_seconds": "0.3", "healthy_threshold": "2", "unhealthy_threshold": "2"}
CHECKS = {
    "tcp": {"type": "tcp", "port": "80"},
    "http": {"type": "http", "port": str(HTTP_PORT), "path": "/"},
    "icmp": {"type": "icmp"},
}


def world() -> World:
    """Service a/s with a pod on each of two hosts; its neighbour a/c calls it from h1."""
    made = World({"red": 100}, {"a": 1})
    made.services = {"a/s": "red", "a/c": "red"}
    made.service_ips = {"a/s:main": SERVICE_BLOCK + 10}
    made.new_pod("a/s", "h1")
    made.new_pod("a/s", "h2")
    made.new_pod("a/c", "h1")
    return made


class Checked:
    """A fleet whose pods fail and recover by one kind of check."""

    def __init__(self, fleet: Fleet, kind: str) -> None:
        self.fleet, self.kind = fleet, kind
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        if kind == "http":
            site = fleet.directory / "site"
            site.mkdir()
            for key in ("a/s-1", "a/s-2"):
                self.servers[key] = subprocess.Popen(
                    [*self._inside(key), sys.executable, "-m", "http.server", "-d", str(site), str(HTTP_PORT)],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip

    def _inside(self, key: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.fleet.prefix}{key.replace('/', '.')}"]

    def _ignore_echo(self, key: str, ignore: int) -> None:
        run(*self._inside(key), "sysctl", "-qw", f"net.ipv4.icmp_echo_ignore_all={ignore}")

    def fail(self, key: str) -> None:
        """Let a pod fail: no listener any more, a process that hangs, no answer to a ping."""
        if self.kind == "tcp":
            self.fleet.agents[key].stop()
        elif self.kind == "http":
            self.servers[key].send_signal(signal.SIGSTOP)
        else:
            self._ignore_echo(key, 1)

    def recover(self, key: str) -> None:
        """Let it be well again."""
        if self.kind == "tcp":
            self.fleet.agents[key] = Agent(f"{self.fleet.prefix}{key.replace('/', '.')}", key)
        elif self.kind == "http":
            self.servers[key].send_signal(signal.SIGCONT)
        else:
            self._ignore_echo(key, 0)

    def stop(self) -> None:
        """End what was started."""
        for server in self.servers.values():
            server.kill()
            server.wait()

    def status(self) -> dict[str, Any]:
        """What the controller says."""
        found: dict[str, Any] = json.loads(self.fleet.api("/v1/status"))
        return found

    def health(self) -> dict[str, str]:
        """Health of the pods of the service, as far as they are where they are."""
        return {pod["pod"]: pod["health"] for pod in self.status()["pods"] if pod["service"] == "a/s" and pod["host"]}

    def is_now(self, first: str, second: str) -> Callable[[], bool]:
        """Whether the two pods are in these states."""
        return lambda: self.health() == {"a/s-1": first, "a/s-2": second}

    def answering(self) -> set[str]:
        """Who answers a number of connections to the Service IP."""
        answers = self.fleet.agents["a/c-1"].say(json.dumps([[SERVICE_IP, TCP, 80]] * 12))
        return {answer[0] if answer else "nobody" for answer in answers}


@pytest.mark.parametrize("kind", list(CHECKS))
def test_a_backend_that_fails_its_check_leaves_the_rotation_until_it_passes(kind: str, tmp_path: Path) -> None:
    with Fleet(tmp_path, world(), ["h1", "h2"]) as fleet:
        fleet.wait_until_ready()
        on, log = Checked(fleet, kind), tmp_path / "controller.log"
        try:
            fleet.change_service("a/s", health_check=["map", [list(item) for item in (CHECKS[kind] | TIMES).items()]])
            wait_for(on.is_now("passing", "passing"), 15)
            assert on.answering() == {"a/s-1", "a/s-2"}

            on.fail("a/s-2")  # on the other host than the caller
            wait_for(on.is_now("passing", "failing"), 15)
            assert on.answering() == {"a/s-1"}

            fleet.stop_controller()
            said = len(log.read_text())
            fleet.start_controller()
            wait_for(lambda: _try(on.is_now("passing", "failing")), 20)
            wait_for(lambda: all("check" in pod for pod in on.status()["pods"] if pod["health"]), 20)
            assert "its health check" not in log.read_text()[said:], (
                "a controller that starts knows it from the switches"
            )

            on.fail("a/s-1")
            wait_for(on.is_now("failing", "failing"), 15)
            (service,) = on.status()["services"]
            assert service == {"service": "a/s", "backends": ["a/s-1", "a/s-2"], "all_down": True}

            on.recover("a/s-1")
            on.recover("a/s-2")
            wait_for(on.is_now("passing", "passing"), 15)
            assert on.answering() == {"a/s-1", "a/s-2"}
        finally:
            on.stop()


def _try(what: Callable[[], Any]) -> Any:
    try:
        return what()
    except AssertionError:
        return None
