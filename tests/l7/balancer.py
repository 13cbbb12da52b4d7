# SPDX-License-Identifier: Apache-2.0
"""A real nginx with a rendered configuration, on the loopback; pods are addresses of 127.0.0.0/8."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.qiniu.qnet.plugins.module_utils._l7_marks import RELEASE, RUN, explain
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_render import Worker, render

ROOT = Path(__file__).resolve().parents[2]
LUA = ROOT / "roles/l7_balancer/files/lua"
BALANCER = "edge/balancer"
Values = Mapping[str, Any]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: Path, method: str, uri: str, body: str | None = None) -> tuple[int, str]:
    """A request over a Unix socket."""
    connection = _UnixConnection(str(path))
    try:
        connection.request(method, uri, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Refused(Exception):
    """nginx does not take the configuration."""


class Balancer:
    """One nginx. `services`: group/service to its pods (name -> address), all reachable directly."""

    def __init__(self, directory: Path, addresses: Mapping[tuple[str, str], str], tenants: Mapping[str, str]) -> None:
        self.directory = directory
        self.addresses = addresses
        self.tenants = tenants
        self.run = directory / "run"
        self.services: dict[str, dict[str, Any]] = {}
        self.l7: dict[str, Values] = {}  # what services say of how they are asked
        self.releases = 0
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("run", "logs", "temp", "cache", "secrets"):
            (directory / name).mkdir(exist_ok=True)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def configure(
        self,
        listeners: Sequence[Values],
        routes: Sequence[Values],
        files: Mapping[str, str] | None = None,
        **worker: Any,
    ) -> str:
        """Render, check and write the configuration; start nginx or reload it, and wait until it is live."""
        worker = {"processes": 1, "connections": 4096, "lua_directory": str(LUA), **worker}
        rendered = render(BALANCER, listeners, routes, self.addresses, self.tenants, Worker(**worker), self.l7)
        for source, target in rendered.beside.items():
            (self.directory / target).write_text((files or {})[source])
        self.releases += 1
        text = rendered.files["nginx.conf"].replace(RELEASE, str(self.releases))
        self.check(text)
        (self.directory / "nginx.conf").write_text(text.replace(RUN, str(self.run)))
        if self._process is None:
            self._process = subprocess.Popen(self._argv("nginx.conf"), stderr=subprocess.DEVNULL)
            self._await_release(str(self.releases))
        else:
            before = self.workers()
            self._process.send_signal(signal.SIGHUP)
            self._await_release(str(self.releases))
            # A new worker answers already; the old ones may take connections for another moment.
            deadline = time.monotonic() + 30
            while self.workers() & before and time.monotonic() < deadline:
                time.sleep(0.005)
        self.push()
        return text

    def check(self, text: str) -> None:
        """`nginx -t` in a scratch place."""
        scratch = self.directory / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        (self.directory / "trial.conf").write_text(text.replace(RUN, str(scratch)))
        done = subprocess.run(
            [*self._argv("trial.conf"), "-t"], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise Refused(explain(text, done.stderr))

    def workers(self) -> set[int]:
        """Process ids of the workers that take connections."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = set()
        for child in children:
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{child}/cmdline").read_bytes()
                if b"worker process" in title and b"shutting down" not in title:
                    found.add(int(child))
        return found

    def _argv(self, name: str) -> list[str]:
        # -e: the log that is used before the configuration is read.
        return ["nginx", "-p", f"{self.directory}/", "-e", "logs/error.log", "-c", str(self.directory / name)]

    def _await_release(self, release: str) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                if self.state()["release"] == release:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError((self.directory / "logs/error.log").read_text()[-3000:])

    def state(self) -> dict[str, Any]:
        """What the control socket says."""
        found: dict[str, Any] = json.loads(ask(self.run / "control.sock", "GET", "/state")[1])
        return found

    def metrics(self) -> str:
        """The metrics as text."""
        return ask(self.run / "metrics.sock", "GET", "/metrics")[1]

    def set_pods(self, service: str, pods: Mapping[str, str], **more: Any) -> None:
        """The pods of a service: name to address. `weights`, `draining`, `direct`, `ports` may be given."""
        weights, draining = more.get("weights", {}), more.get("draining", ())
        self.services[service] = {
            "direct": more.get("direct", True),
            "ports": more.get("ports", []),
            "pods": [
                {
                    "name": name,
                    "id": f"id-{name}",
                    "index": int(name.rsplit("-", 1)[1]),
                    "address": address,
                    "weight": weights.get(name, 100),
                    "state": "draining" if name in draining else "active",
                }
                for name, address in sorted(pods.items())
            ],
        }
        if self._process is not None:
            self.push()

    def push(self) -> None:
        """Say which pods there are, as the feeder does."""
        status, text = ask(self.run / "control.sock", "PUT", "/pods", json.dumps({"services": self.services}))
        assert status == 200, text

    def log(self, wanted: int = 1, name: str = "access") -> list[dict[str, Any]]:
        """The lines of the access log (or of sessions over tcp and udp) as JSON, at least so many of them."""
        deadline = time.monotonic() + 10
        while True:
            lines = (self.directory / f"logs/{name}.log").read_text().splitlines()
            if len(lines) >= wanted or time.monotonic() > deadline:
                return [json.loads(line) for line in lines]
            time.sleep(0.02)

    def errors(self) -> str:
        """The error log."""
        return (self.directory / "logs/error.log").read_text()

    def reopen_logs(self) -> None:
        """As logrotate has it done."""
        self.process.send_signal(signal.SIGUSR1)

    def seen(self, path: Path) -> str:
        """A path below `directory`, as nginx sees it."""
        return str(path)

    def stop(self) -> None:
        """End nginx at once."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
