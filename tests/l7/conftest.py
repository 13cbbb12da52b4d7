# SPDX-License-Identifier: Apache-2.0
"""A balancer with two services behind it, for every test of its own."""

from __future__ import annotations

import itertools
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.l7.backends import Backends, said
from tests.l7.balancer import BALANCER, Balancer
from tests.l7.intent import Intent
from tests.l7.lab import LISTEN, PORT, LabBalancer, LabPlace, lab_place
from tests.l7.place import IN_LAB, NUMBERS, Loopback

TENANTS = {"fop": "files", "edge": "platform", "audit": "files"}
PODS = {"fop/image": 2, "fop/agents": 3, "audit/audit": 1}
_NET = itertools.count(random.randrange(1, 200))


def free_port() -> int:
    """A TCP port that nobody listens on, on any address."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    """What curl brought back. `headers` in lower case; of several with one name, all, one in a line."""

    status: int
    headers: dict[str, str]
    body: str
    version: str = ""

    @property
    def said(self) -> dict[str, Any]:
        """What the backend said it was asked."""
        return said(self.body)

    @property
    def pod(self) -> str:
        """Who answered."""
        return str(self.said["pod"])


@dataclass
class Scene:
    """The balancer, its backends, and a client."""

    balancer: Balancer
    backends: Backends
    place: Loopback
    port: int
    listen: int
    files: dict[str, str] = field(default_factory=dict)

    @property
    def server(self) -> str:
        """Where clients find the balancer."""
        return self.place.server

    def client(self, number: int = 1) -> str:
        """An address that requests may come from; without --interface it is 1."""
        return self.place.client(number)

    def address(self, service: str, number: int) -> str:
        """The address of a pod: fop/image 1, …"""
        return self.place.address(service, number)

    def service_ip(self, service: str = "fop/image") -> str:
        """The address of a service."""
        return self.place.service_ip(service)

    def over_network(self, service: str = "fop/image") -> set[str]:
        """Who may answer when the network chooses."""
        return self.place.over_network(service)

    def asked(self, service: str, path: str) -> int:
        """How often a service was asked for a path over its Service IP."""
        return self.backends.asked(self.service_ip(service), self.port, path)

    def pods(self, service: str, number: int, start: bool = True, **more: Any) -> None:
        """Have a service with so many pods."""
        name = service.split("/")[1]
        for one in range(1, number + 1):
            if start:
                self.backends.start(f"{name}-{one}", self.address(service, one), self.port)
        addresses = {f"{name}-{one}": self.address(service, one) for one in range(1, number + 1)}
        self.balancer.set_pods(service, addresses, **more)

    def stop_pod(self, service: str, number: int) -> None:
        """A pod's process ends."""
        self.backends.stop(self.address(service, number), self.port)

    def backend(self, service: str = "fop/image", **more: Any) -> dict[str, Any]:
        """A backend of a route."""
        return {"service": service, "port": self.port, **more}

    def route(self, name: str = "all", **values: Any) -> dict[str, Any]:
        """A route to fop/image, unless it says otherwise."""
        action = {"redirect", "respond", "static", "backends"} & set(values)
        return {"name": name, "listener": "web", **({} if action else {"backends": [self.backend()]}), **values}

    def listener(self, **values: Any) -> dict[str, Any]:
        """The listener."""
        return {"name": "web", "balancer": BALANCER, "protocol": "http", "port": self.listen, **values}

    def configure(self, *routes: Mapping[str, Any], listener: Mapping[str, Any] | None = None, **worker: Any) -> str:
        """Have one listener with these routes."""
        return self.balancer.configure([self.listener(**(listener or {}))], list(routes), self.files, **worker)

    def get(self, path: str = "/", *arguments: str, host: str = "www.example.org", scheme: str = "http") -> Answer:
        """Ask with curl, on a connection of its own."""
        url = f"{scheme}://{host}:{self.listen}{path}"
        command = ["curl", "--silent", "--show-error", "--include", "--max-time", "20", "--noproxy", "*", "--insecure"]
        command += ["--path-as-is", "--resolve", f"{host}:{self.listen}:{self.server}", *arguments, url]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        if done.returncode:
            raise ConnectionError(done.stderr.decode())
        return parse_answer(done.stdout)


def parse_answer(output: bytes) -> Answer:
    """The last answer in what `curl --include` printed."""
    head, _, body = output.partition(b"\r\n\r\n")
    while b" 100 " in head.split(b"\r\n")[0] or b" 200 Connection" in head.split(b"\r\n")[0]:
        head, _, body = body.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        known = headers.get(name.lower())
        headers[name.lower()] = value.strip() if known is None else f"{known}\n{value.strip()}"
    version, status = first.split()[:2]
    return Answer(int(status), headers, body.decode(errors="replace"), version)


@contextmanager
def make_scene(net: str) -> Iterator[Scene]:
    """fop/image with two pods, fop/agents with three, audit/audit with one; a Service IP each, played by one server.

    Their addresses are in `net`, the first two parts of an address, which has to be local.
    """
    place, port = Loopback(net), free_port()
    sips = {service: place.service_ip(service) for service in NUMBERS}
    # Sockets have short names; the usual temporary directories may not.
    directory = Path(tempfile.mkdtemp(prefix="qnet-l7-"))
    directory.chmod(0o755)  # when root runs the tests, nginx's workers are somebody else
    backends = Backends(place)
    balancer = Balancer(directory, {(service, "main"): address for service, address in sips.items()}, TENANTS)
    made = Scene(balancer, backends, place, port, free_port())
    try:
        for service, address in sips.items():
            backends.start(f"{service.split('/')[1]}-network", address, port)
        for service, number in PODS.items():
            made.pods(service, number)
        yield made
    finally:
        balancer.stop()
        backends.close()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def lab() -> Iterator[tuple[LabPlace, Intent]]:
    """The lab with the inventory of these tests, and a way to its intent database."""
    with lab_place() as found:
        yield found


@contextmanager
def make_lab_scene(place: LabPlace, intent: Intent) -> Iterator[Scene]:
    """The same services in the lab."""
    backends = Backends(place)
    balancer = LabBalancer(place, intent, TENANTS)
    made = Scene(balancer, backends, place, PORT, LISTEN)
    try:
        balancer.reset()
        for service, number in PODS.items():
            made.pods(service, number)
        yield made
    finally:
        balancer.stop()
        backends.close()


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene on the loopback, which needs no root; or in the lab."""
    if IN_LAB:
        with make_lab_scene(*request.getfixturevalue("lab")) as made:
            yield made
    else:
        with make_scene(f"127.{next(_NET) % 200 + 20}") as made:
            yield made


def pods_that_answer(scene: Scene, number: int, *arguments: str, path: str = "/") -> list[str]:
    """Who answers so many requests, one after the other."""
    return [scene.get(path, *arguments).pod for _ in range(number)]


def values(answers: Sequence[Answer], name: str) -> list[str]:
    """A header of each answer."""
    return [answer.headers.get(name, "") for answer in answers]
