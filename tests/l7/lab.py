# SPDX-License-Identifier: Apache-2.0
"""The same tests in the lab: nginx in its pod as the role runs it, over the overlay to pods on two hosts.

Listeners and routes go to nginx through the role's module, pods and exports through the intent database and the feeder;
clients ask the host's address from outside. The servers of pods are this process's, on sockets that were opened inside
of the pods' network namespaces.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.fleet import ROOT, Fleet, Pod, eventually
from tests.l7.balancer import BALANCER, Balancer, Refused, Values, ask
from tests.l7.intent import Intent
from tests.l7.place import NUMBERS, Loopback

from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_render import Worker, render

INSTANCE = "edge.balancer-1"
UNIT = f"qnet-l7@{INSTANCE}.service"
LISTEN, PORT = 8080, 8081  # of the listener, and of the pods
INVENTORY = ROOT / "tests/l7/inventory"
CLONE_NEWNET = 0x40000000
SERVICE_IPS = "10.97.0"


class LabPlace(Loopback):
    """The hosts and pods of the lab. The client is this machine, on the network that the hosts are managed by."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__("")
        self.fleet = fleet
        self.pods = fleet.pods()
        self.balancer = self.pods["edge/balancer-1"]
        self.server = fleet.address(self.balancer.host)
        self.clients = f"{self.server.rpartition('.')[0]}.0/29"
        self.declared: dict[str, set[str]] = {}  # by service; a test changes it
        self._roots: dict[str, Path] = {}
        self._bridge = _device_to(self.server)

    @property
    def server6(self) -> str:  # type: ignore[override]
        """An IPv6 address of the balancer's host on its network of management, which gets it when it is asked for."""
        run = self.fleet.run
        device = run(self.balancer.host, "sh", "-c", f"ip -o -4 address show | grep -w {self.server} | cut -d' ' -f2")
        run(self.balancer.host, "sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6")
        run(self.balancer.host, "ip", "address", "replace", "fd00:7:7::2/64", "dev", device, "nodad")
        subprocess.run(["ip", "address", "replace", f"{self.client6}/64", "dev", self._bridge, "nodad"], check=True)
        return "fd00:7:7::2"

    client6 = "fd00:7:7::1"

    def client(self, number: int) -> str:
        prefix = self.server.rpartition(".")[0]
        if number == 1:
            return f"{prefix}.1"
        address = f"{prefix}.{number if number < 8 else number + 20}"
        subprocess.run(["ip", "address", "replace", f"{address}/32", "dev", self._bridge], check=True)
        return address

    def address(self, service: str, number: int) -> str:
        return self.pods[f"{service.split('/')[0]}/{service.split('/')[1]}-{number}"].address

    def service_ip(self, service: str) -> str:
        return f"{SERVICE_IPS}.{NUMBERS[service]}"

    def over_network(self, service: str) -> set[str]:
        return set(self.declared[service])

    def behind(self, address: str) -> list[str]:
        if not address.startswith(f"{SERVICE_IPS}."):
            return [address]
        service = next(name for name in NUMBERS if self.service_ip(name) == address)
        group = service.split("/")[0]
        return [self.pods[f"{group}/{name}"].address for name in sorted(self.declared[service])]

    @contextmanager
    def inside(self, address: str) -> Iterator[None]:
        pod = next(pod for pod in self.pods.values() if pod.address == address)
        libc = ctypes.CDLL(None, use_errno=True)
        theirs = self.root(pod.host) / "run/netns" / pod.namespace
        with open("/proc/thread-self/ns/net", encoding="utf-8") as before, theirs.open() as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {theirs}: these tests need root")
            try:
                yield
            finally:
                libc.setns(before.fileno(), CLONE_NEWNET)

    def root(self, host: str) -> Path:
        """The file system of a host, seen from here."""
        if host not in self._roots:
            argv = ["podman", "inspect", "--format", "{{.State.Pid}}", f"{self.fleet.name}-{host}"]
            found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
            self._roots[host] = Path(f"/proc/{found}/root")
        return self._roots[host]

    def run_module(self, host: str, module: str, **arguments: Any) -> dict[str, Any]:
        """Run a module on a host, as a play does; what it returns."""
        argv = ["ansible", host, "-i", str(self.fleet.hosts_file), "-m", module, "-a", json.dumps(arguments)]
        environment = {
            **os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_LIBRARY": str(ROOT / "roles/l7_balancer/library"),
        }  # fmt: skip
        done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
        _, arrow, text = done.stdout.partition(" => ")
        assert arrow, done.stdout + done.stderr
        result: dict[str, Any] = json.JSONDecoder().raw_decode(text)[0]
        return result

    def move(self, pod: Pod, host: str) -> Pod:
        """Detach a pod from its host and attach it to another one."""
        told = {"name": pod.name, "service": pod.name.rpartition("-")[0]}
        inside = ("ip", "netns", "exec", pod.namespace)
        mtu = int(self.fleet.run(pod.host, *inside, "cat", "/sys/class/net/eth0/mtu"))
        for where, state in ((pod.host, "detached"), (host, "present")):
            done = self.run_module(where, "qiniu.qnet.qnet_pod", pods=[told], state=state, mtu=mtu, **self.database)
            assert "msg" not in done, done["msg"]
        moved = Pod(pod.name, host, pod.address)
        self.pods[pod.name] = moved
        return moved

    @property
    def database(self) -> dict[str, Any]:
        """Where the hosts find the intent, and with which keys."""
        address = self.fleet.address(self.fleet.groups["controllers"][0])
        files = {"private_key": "host.key", "certificate": "host.pem", "ca_certificate": "ca.pem"}
        return {"database": [f"ssl:{address}:6641"], **{name: f"/etc/qnet/pki/{file}" for name, file in files.items()}}


@contextmanager
def lab_place() -> Iterator[tuple[LabPlace, Intent]]:
    """The lab, up and with the inventory of these tests for the time of a block; one that was down before is after."""
    name = os.environ.get("QNET_LAB", "qnet")
    was_up = bool(subprocess.run(["podman", "ps", "-q", "-f", f"name=^{name}-c1$"], capture_output=True).stdout)
    ready = os.environ["QNET_L7_LAB"] == "ready"  # it is up, and the inventory was applied
    if not ready:
        subprocess.run([ROOT / "lab" / "lab", "up"], check=True, stdin=subprocess.DEVNULL)
    fleet = Fleet(name)
    intent = None
    try:
        if not ready:
            fleet.play("site", INVENTORY)
        place = LabPlace(fleet)
        database = place.root(fleet.groups["controllers"][0]) / "run/qnet-database/qnet.sock"
        intent = Intent(f"unix:{database}")
        for service in NUMBERS:
            group, short = service.split("/")
            names = (pod.split("/")[1] for pod in place.pods if pod.startswith(f"{group}/{short}-"))
            place.declared[service] = set(names)
        yield place, intent
    finally:
        if intent is not None:
            intent.close()
        if not was_up:
            subprocess.run([ROOT / "lab" / "lab", "down"], check=True, stdin=subprocess.DEVNULL)


def _device_to(address: str) -> str:
    shown = subprocess.run(["ip", "-json", "route", "get", address], capture_output=True, check=True).stdout
    return str(json.loads(shown)[0]["dev"])


class LabBalancer(Balancer):
    """nginx as the role runs it, in the pod edge/balancer-1."""

    def __init__(self, place: LabPlace, intent: Intent, tenants: Mapping[str, str]) -> None:
        self.place = place
        self.fleet, self.host = place.fleet, place.balancer.host
        self.intent = intent
        self.tenants = tenants
        self.addresses = {(service, "main"): place.service_ip(service) for service in NUMBERS}
        self.addresses[BALANCER, "main"] = f"{SERVICE_IPS}.9"
        root = place.root(self.host)
        self.directory = root / "var/lib/qnet/l7" / INSTANCE
        self.run = root / "run/qnet-l7" / INSTANCE
        self.services: dict[str, dict[str, Any]] = {}
        self.l7: dict[str, Values] = {}
        self._told: set[str] = set()  # the services that nginx was configured to know pods of

    def configure(
        self,
        listeners: Sequence[Values],
        routes: Sequence[Values],
        files: Mapping[str, str] | None = None,
        **worker: Any,
    ) -> str:
        worker = {"processes": 1, "connections": 4096, **worker}
        rendered = render(BALANCER, listeners, routes, self.addresses, self.tenants, Worker(**worker), self.l7)
        instance = {
            "instance": INSTANCE, "group": "edge", "files": dict(rendered.files), "beside": dict(rendered.beside),
            "ports": list(rendered.ports), "services": list(rendered.services),
        }  # fmt: skip
        before = self.workers()
        done = self.place.run_module(
            self.host,
            "l7_balancer",
            instances=[instance],
            secrets={target: (files or {})[source] for source, target in rendered.beside.items()},
            database=self.place.database["database"],
        )
        if "nginx refuses it" in done.get("msg", ""):
            raise Refused(done["msg"])
        assert "msg" not in done, done["msg"]
        if done["reloaded"]:
            eventually(lambda: not self.workers() & before, 30, "the old workers take no more connections")
        self._told = set(rendered.services)
        self.push()
        return rendered.files["nginx.conf"]

    def workers(self) -> set[int]:
        script = (
            f"main=$(systemctl show --value --property=MainPID {UNIT}); [ $main = 0 ] && exit; "
            "for one in $(cat /proc/$main/task/$main/children); do "
            "echo $one $(tr '\\0' ' ' </proc/$one/cmdline 2>/dev/null); done"
        )
        lines = self.fleet.run(self.host, "sh", "-c", script, check=False).splitlines()
        return {int(line.split()[0]) for line in lines if "worker process" in line and "shutting down" not in line}

    def set_pods(self, service: str, pods: Mapping[str, str], **more: Any) -> None:
        """Declare just these pods of a service, their weights and states, and its export."""
        group, short = service.split("/")
        weights, draining = more.get("weights", {}), more.get("draining", ())
        export = {"service": service, "to": "edge", "direct": more.get("direct", True), "ports": more.get("ports", [])}
        wishes: list[tuple[str, dict[str, Any]]] = [("export", export)]
        for name, address in pods.items():
            state = "draining" if name in draining else "active"
            mine = {"group": group, "service": short, "name": name, "addresses": [address]}
            wishes.append(("pod", {**mine, "weight": weights.get(name, 100), "state": state}))
        gone = [("pod", {"group": group, "name": name}) for name in self.place.declared.get(service, set()) - set(pods)]
        generation = self.intent.change(wishes, gone)
        self.place.declared[service] = set(pods)
        self.services[service] = {
            "direct": export["direct"],
            "ports": sorted(export["ports"]) if export["direct"] else [],
            "pods": {name: (weights.get(name, 100), "draining" if name in draining else "active") for name in pods},
        }
        controller = self.fleet.groups["controllers"][0]
        told = json.loads(self.fleet.api(controller, f"/v1/receipt?generation={generation}&wait=4"))
        assert told, "the switches have not confirmed it"
        self.push()

    def push(self) -> None:
        """Wait until the feeder has told nginx what the database says."""
        if self.workers():
            eventually(self._knows, 30, "the feeder has told nginx")

    def _knows(self) -> bool:
        try:
            known = json.loads(ask(self.run / "control.sock", "GET", "/pods")[1]) or {"services": {}}
        except (OSError, ValueError):
            return False
        return all(
            _seen(known["services"].get(service, {})) == told
            for service, told in self.services.items()
            if service in self._told
        )

    def reopen_logs(self) -> None:
        self.fleet.run(self.host, "systemctl", "kill", "--signal=USR1", "--kill-who=main", UNIT)

    def seen(self, path: Path) -> str:
        return f"/{path.relative_to(self.place.root(self.host))}"

    def reset(self) -> None:
        """As if it had never run: nothing in its caches, counters and logs."""
        script = (
            f"systemctl stop --no-block {UNIT}; systemctl kill --signal=TERM {UNIT}; systemctl stop {UNIT}; "
            f"cd /var/lib/qnet/l7/{INSTANCE} && rm -rf cache/* logs/* www"
        )
        self.fleet.run(self.host, "sh", "-c", script, check=False)

    def stop(self) -> None:
        self.reset()


def _seen(service: Mapping[str, Any]) -> dict[str, Any]:
    pods = {pod["name"]: (pod["weight"], pod["state"]) for pod in service.get("pods", ())}
    return {"direct": service.get("direct"), "ports": service.get("ports"), "pods": pods}
