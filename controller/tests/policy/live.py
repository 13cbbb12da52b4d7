# SPDX-License-Identifier: Apache-2.0
"""A small real fleet on this machine: Open vSwitch in a namespace per host, the intent database, the controller.

As in the lab, each host has `br-int` with the one flow-based VXLAN port and `br-phy` with the underlay address; pods
are namespaces with a veth. Everything has a prefix of its own and ends with the `with` block.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import yaml

from contract.real import QNET_SCHEMA, REPOSITORY, VSWITCH_SCHEMA, Authority, Database, daemon, database, run, wait_for
from qnet_controller.controller.conntrack import READER_PORT
from simulator.packets import is_ipv6, packed

from .tenants import IPV6, POD_BLOCK, SERVICE_BLOCK, EgressPlan, ExportPlan, PodPlan, World, digest

AGENT = Path(__file__).with_name("agent.py")
COLLECTIONS, MODULES = REPOSITORY / "collections", "ansible_collections.qiniu.qnet.plugins.modules"
UNDERLAY = yaml.safe_load((REPOSITORY / "roles" / "underlay" / "vars" / "main.yml").read_text())
USER_SPACE = [f"other_config:{key}={value}" for key, value in UNDERLAY["__underlay_user_space"].items()]
READER = REPOSITORY / "roles" / "connections" / "files" / "qnet_connections.py"
VTEP_BLOCK, MANAGEMENT_BLOCK = "10.200.1", "10.200.2"
DATAPATH = os.environ.get("QNET_TEST_DATAPATH", "netdev")  # or `system`, on a machine whose kernel has the module
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp"}


def dotted(address: int) -> str:
    """An address as text."""
    return str(ipaddress.ip_address(packed(address)))


def port_name(key: str) -> str:
    """The name of a pod's port."""
    return "qn" + digest(key)[:12]


def mac_text(key: str) -> str:
    """The MAC address of a pod."""
    return bytes.fromhex("02" + digest(key)[12:22]).hex(":")


class Agent:
    """A pod's process."""

    def __init__(self, namespace: str, name: str, program: Path = AGENT) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-S", "-E", str(program), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.answer() == "ready"

    def ask(self, tries: list[tuple[str, int, int | None]]) -> None:
        """Start trying."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(tries) + "\n")
        self.process.stdin.flush()

    def say(self, line: str) -> Any:
        """Send a line, return the answer."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next answer."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Vswitch:
    """Open vSwitch of one host."""

    def __init__(self, fleet: Fleet, name: str, number: int) -> None:
        self.name, self.number, self.fleet = name, number, fleet
        self.namespace = f"{fleet.prefix}{name}"
        self.directory = fleet.directory / name
        self.directory.mkdir()
        self.datapath_id = digest(name)[:16]

    def vsctl(self, *arguments: str) -> str:
        """ovs-vsctl."""
        return run("ovs-vsctl", f"--db=unix:{self.directory}/Open_vSwitch.sock", "--timeout=8", *arguments).strip()

    def ofctl(self, command: str, *arguments: str) -> str:
        """ovs-ofctl on br-int."""
        return run("ovs-ofctl", "-OOpenFlow15", command, f"unix:{self.directory}/br-int.mgmt", *arguments)

    def appctl(self, *arguments: str) -> str:
        """ovs-appctl on ovs-vswitchd."""
        return run("ovs-appctl", "-t", self.directory / "vswitchd.ctl", *arguments)

    def start(self, stack: ExitStack) -> None:
        """Namespace, links, daemons and bridges."""
        fleet, inside = self.fleet, self.namespace
        fleet.add_namespace(inside)
        fleet.link(f"{self.number}u", inside, "under")
        fleet.link(f"{self.number}m", inside, "mgmt")
        # The kernel sees what comes to `under` as well; its address is that of br-phy, which alone answers for it.
        run("ip", "netns", "exec", inside, "sysctl", "-qw", "net.ipv4.conf.under.arp_ignore=1")
        fleet.ip(inside, "addr", "add", f"{MANAGEMENT_BLOCK}.{self.number}/24", "dev", "mgmt")
        stack.enter_context(
            database(self.directory, "Open_vSwitch", VSWITCH_SCHEMA, "--private-key=db:Open_vSwitch,SSL,private_key")
        )
        self.start_switch(stack)
        self.vsctl("--no-wait", "init", "--", "set", "open_vswitch", ".", *USER_SPACE)
        self.vsctl(
            *self._underlay_bridge(),
            "--", "add-br", "br-int", "--", "set", "bridge", "br-int", f"datapath_type={DATAPATH}",
            "protocols=OpenFlow15", "fail_mode=secure",
            f"other_config:datapath-id={self.datapath_id}", "other_config:disable-in-band=true",
            "--", "add-port", "br-int", "qnet-vxlan", "--", "set", "interface", "qnet-vxlan", "type=vxlan",
            "options:remote_ip=flow", "options:key=flow",
        )  # fmt: skip
        self.give_address()

    def start_switch(self, stack: ExitStack) -> None:
        """ovs-vswitchd; what its database says is made again."""
        stack.enter_context(
            daemon(
                "ip", "netns", "exec", self.namespace,
                "ovs-vswitchd", f"unix:{self.directory}/Open_vSwitch.sock", f"--unixctl={self.directory}/vswitchd.ctl",
                f"--log-file={self.directory}/vswitchd.log", f"--pidfile={self.directory}/vswitchd.pid",
                "-vconsole:off", directory=self.directory,
            )
        )  # fmt: skip

    def give_address(self) -> None:
        """The address of the underlay."""
        device = "br-phy" if DATAPATH == "netdev" else "under"  # the kernel's tunnels need no bridge for the underlay
        self.fleet.ip(self.namespace, "addr", "replace", f"{VTEP_BLOCK}.{self.number}/24", "dev", device)
        self.fleet.ip(self.namespace, "link", "set", device, "up")

    @staticmethod
    def _underlay_bridge() -> list[str]:
        if DATAPATH != "netdev":
            return []
        bridge = ["add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev", "fail_mode=standalone"]
        return [*bridge, "--", "add-port", "br-phy", "under"]

    def connect(self, stack: ExitStack) -> None:
        """Connect to the controller with mutual TLS, and let it ask about connections as systemd does on a host."""
        certificate, key = self.fleet.authority.issue(self.name)
        self.vsctl("set-ssl", str(key), str(certificate), str(self.fleet.authority.ca))
        self.vsctl("set-controller", "br-int", f"ssl:{MANAGEMENT_BLOCK}.254:6653")
        for name, target in (("ca.pem", self.fleet.authority.ca), ("host.pem", certificate), ("host.key", key)):
            (self.directory / name).symlink_to(target)
        stack.enter_context(
            daemon(
                "ip", "netns", "exec", self.namespace, "systemd-socket-activate", "--accept", "--inetd",
                f"--listen={MANAGEMENT_BLOCK}.{self.number}:{READER_PORT}", "/usr/bin/python3", "-I", READER, "c1",
                f"--pki={self.directory}", f"--control={self.directory}/vswitchd.ctl", directory=self.directory,
            )
        )  # fmt: skip


class Fleet:
    """Hosts, pods, database and controller; `program` is what runs in the pods."""

    def __init__(self, directory: Path, world: World, hosts: list[str], program: Path = AGENT) -> None:
        self.directory, self.world, self.program = directory, world, program
        self.prefix = f"qp{os.getpid()}-"
        self.authority = Authority(directory)
        self.hosts = {name: Vswitch(self, name, number) for number, name in enumerate(hosts, 1)}
        self.agents: dict[str, Agent] = {}
        self._stack = ExitStack()
        self._namespaces: list[str] = []
        self.under = f"{self.prefix}under"
        self.database = Database(directory, "QNet")
        self.configuration = ""  # more for controller.toml

    # -- set-up ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Fleet:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for agent in self.agents.values():
            agent.stop()
        self.agents.clear()
        self._stack.close()
        for name in reversed(self._namespaces):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _start(self) -> None:
        self.add_namespace(self.under)
        for name in ("brm", "bru"):
            self.ip(self.under, "link", "add", name, "type", "bridge")
            self.ip(self.under, "link", "set", name, "up")
        self.ip(self.under, "addr", "add", f"{MANAGEMENT_BLOCK}.254/24", "dev", "brm")
        for host in self.hosts.values():
            host.start(self._stack)
        self._stack.enter_context(database(self.directory, "QNet", QNET_SCHEMA))
        self.load()
        self.start_controller()
        for host in self.hosts.values():
            host.connect(self._stack)
        for pod in self.world.pods.values():
            self.make_pod(pod)
            self.plug(pod)

    def add_namespace(self, name: str) -> None:
        """A network namespace that ends with the fleet."""
        run("ip", "netns", "add", name)
        self._namespaces.append(name)
        self.ip(name, "link", "set", "lo", "up")

    def ip(self, namespace: str, *arguments: str) -> None:
        """ip(8) in a namespace."""
        run("ip", "-n", namespace, *arguments)

    def link(self, name: str, namespace: str, inside: str) -> None:
        """A veth from a bridge of the underlay into a namespace; the letter at the end of `name` says which bridge."""
        self.ip(self.under, "link", "add", name, "type", "veth", "peer", "name", inside, "netns", namespace)
        self.ip(self.under, "link", "set", name, "master", "br" + name[-1], "up")
        self.ip(namespace, "link", "set", inside, "up")

    # -- the controller ----------------------------------------------------------------------------------------

    def start_controller(self) -> None:
        """Run the real controller process."""
        certificate, key = self.authority.issue("c1")
        config = self.directory / "controller.toml"
        config.write_text(
            f'name = "c1"\n[openflow]\nlisten = "{MANAGEMENT_BLOCK}.254:6653"\n'
            f'[database]\nremotes = ["unix:{self.directory}/QNet.sock"]\n'
            f'[pki]\nca = "{self.authority.ca}"\ncertificate = "{certificate}"\nprivate_key = "{key}"\n'
            f'[[controllers]]\nname = "c1"\naddress = "{MANAGEMENT_BLOCK}.254"\n[api]\nlisten = "127.0.0.1:9680"\n'
            + self.configuration
        )
        log = (self.directory / "controller.log").open("ab")
        self.controller = subprocess.Popen(
            ["ip", "netns", "exec", self.under, sys.executable, "-m", "qnet_controller.cli.main", "--config", config],
            stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        self._stack.callback(self.stop_controller)

    def stop_controller(self) -> None:
        """Kill it."""
        self.controller.kill()
        self.controller.wait()

    def api(self, path: str) -> str:
        """GET from the controller's API, from inside its namespace."""
        script = (
            f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:9680{path}', timeout=5).read().decode())"
        )
        return run("ip", "netns", "exec", self.under, sys.executable, "-S", "-c", script)

    def module(self, name: str, **arguments: object) -> dict[str, Any]:
        """Run a module of the collection on the controller's host; it must not fail."""
        settings = {"database": [f"unix:{self.database.socket}"], **arguments}
        done = subprocess.run(
            ["ip", "netns", "exec", self.under, sys.executable, "-m", f"{MODULES}.{name}"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": settings}), env=os.environ | {"PYTHONPATH": str(COLLECTIONS)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert not done.returncode, f"{name}: {done.stdout} {done.stderr}"
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def asked(self) -> int:
        """Packets that the controller has decided on."""
        lines = [line for line in self.api("/metrics").splitlines() if line.startswith("qnet_packet_in_total")]
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))

    # -- intent ------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Write the whole world in one transaction."""
        world, rows = self.world, list[dict[str, object]]()

        def insert(table: str, reference: str, /, **row: object) -> None:
            rows.append({"op": "insert", "table": table, "uuid-name": reference, "row": row})

        subnets = {
            kind: ["set", [f"{dotted(block)}/24", f"{dotted(IPV6 + block)}/120"]]
            for kind, block in (("pod_subnets", POD_BLOCK), ("service_subnets", SERVICE_BLOCK))
        }
        rows.append({"op": "insert", "table": "QNet_Global", "row": {"generation": 1}})
        for host in self.hosts.values():
            insert("Host", f"h_{host.name}", name=host.name, vteps=f"{VTEP_BLOCK}.{host.number}",
                   datapath_id=host.datapath_id, datapath_kind=DATAPATH, controller_set="", state="active")  # fmt: skip
        for name, vni in world.networks.items():
            insert("Network", f"n_{name}", name=name, vni=vni, **subnets)
        for (guest, home), (vni, addresses) in world.guests.items():
            insert("Guest", f"v_{guest}_{home}", network=["named-uuid", f"n_{guest}"], home=["named-uuid", f"n_{home}"],
                   vni=vni, addresses=["set", [dotted(address) for address in addresses]])  # fmt: skip
        for name, number in world.groups.items():
            insert("Security_Group", f"g_{name}", name=name, tenant=name, number=number,
                   egress=["set", sorted(map(str, world.egress.get(name, ())))],
                   broadcast=name in world.broadcast)  # fmt: skip
        for key, network in world.services.items():
            group, _, name = key.partition("/")
            insert("Service", f"s_{group}_{name}", name=name, group=["named-uuid", f"g_{group}"],
                   network=["named-uuid", f"n_{network}"])  # fmt: skip
        for key, address in world.service_ips.items():
            service, _, name = key.partition(":")
            insert("Service_IP", f"i_{name}_{service.replace('/', '_')}", name=name, address=dotted(address),
                   service=["named-uuid", f"s_{service.replace('/', '_')}"],
                   network=["named-uuid", f"n_{world.place(key)}"],
                   affinity="client" if key in world.kept else "none", algorithm="hash",
                   affinity_seconds=["set", [world.kept[key]] if key in world.kept else []])  # fmt: skip
        for pod in world.pods.values():
            mark = pod.key.replace("/", "_").replace("-", "_")
            insert("Pod", f"p_{mark}", name=pod.name, service=["named-uuid", f"s_{pod.service.replace('/', '_')}"],
                   network=["named-uuid", f"n_{pod.network}"], mac=mac_text(pod.key), port_name=port_name(pod.key),
                   weight=pod.weight, state=pod.state)  # fmt: skip
            for number, address in enumerate(pod.addresses):
                insert("Pod_Address", f"a{number}_{mark}", pod=["named-uuid", f"p_{mark}"], address=dotted(address),
                       network=["named-uuid", f"n_{pod.network}"])  # fmt: skip
        for export in world.exports.values():
            insert("Export", f"e_{export.service.replace('/', '_')}_{export.to}",
                   service=["named-uuid", f"s_{export.service.replace('/', '_')}"],
                   to_group=["named-uuid", f"g_{export.to}"], **self._export_row(export))  # fmt: skip
        self.database.execute(*rows)

    @staticmethod
    def _export_row(export: ExportPlan) -> dict[str, object]:
        ports = [f"{PROTOCOLS[protocol]}/{port}" if port else PROTOCOLS[protocol] for protocol, port in export.ports]
        return {
            "ports": ["set", ports], "direct": export.direct,
            "expires": ["set", [] if export.expires is None else [export.expires]],
        }  # fmt: skip

    def _uuid(self, table: str, *where: list[object]) -> list[object]:
        (found,) = self.database.execute({"op": "select", "table": table, "where": list(where), "columns": ["_uuid"]})
        rows = cast(list[dict[str, list[object]]], found["rows"])
        assert len(rows) == 1, f"{table} {where}: {rows}"
        return rows[0]["_uuid"]

    def _export_places(self, export: ExportPlan) -> tuple[list[object], list[object]]:
        group, _, name = export.service.partition("/")
        service = self._uuid(
            "Service", ["name", "==", name], ["group", "==", self._uuid("Security_Group", ["name", "==", group])]
        )
        return service, self._uuid("Security_Group", ["name", "==", export.to])

    def add_export(self, export: ExportPlan) -> None:
        """Grant."""
        self.world.exports[export.service, export.to] = export
        service, group = self._export_places(export)
        row = {"service": service, "to_group": group, **self._export_row(export)}
        self._change({"op": "insert", "table": "Export", "row": row})

    def remove_export(self, export: ExportPlan) -> None:
        """Revoke, as a module does: the row is known, and the database need not search for it."""
        service, group = self._export_places(export)
        row = self._uuid("Export", ["service", "==", service], ["to_group", "==", group])
        del self.world.exports[export.service, export.to]
        self._change({"op": "delete", "table": "Export", "where": [["_uuid", "==", row]]})

    def change_service(self, key: str, **columns: object) -> None:
        """Give a service other columns."""
        group, _, name = key.partition("/")
        of_group = ["group", "==", self._uuid("Security_Group", ["name", "==", group])]
        self._change({"op": "update", "table": "Service", "where": [["name", "==", name], of_group], "row": columns})

    def change_export(self, export: ExportPlan) -> None:
        """Let an export give something else from now on."""
        service, group = self._export_places(export)
        where = [["service", "==", service], ["to_group", "==", group]]
        self.world.exports[export.service, export.to] = export
        self._change({"op": "update", "table": "Export", "where": where, "row": self._export_row(export)})

    def change_egress(self, group: str, *rules: EgressPlan) -> None:
        """Let a group reach these addresses outside from now on, and no others."""
        self.world.egress[group] = frozenset(rules)
        row = {"egress": ["set", sorted(map(str, rules))]}
        self._change({"op": "update", "table": "Security_Group", "where": [["name", "==", group]], "row": row})

    def change_broadcast(self, group: str, allowed: bool) -> None:
        """Let pods of a group speak to all of their own from now on, or no longer."""
        self.world.broadcast = self.world.broadcast - {group} | ({group} if allowed else set())
        where = [["name", "==", group]]
        self._change({"op": "update", "table": "Security_Group", "where": where, "row": {"broadcast": allowed}})

    def _change(self, operation: dict[str, object]) -> None:
        grow: dict[str, object] = {
            "op": "mutate",
            "table": "QNet_Global",
            "where": [],
            "mutations": [["generation", "+=", 1]],
        }
        self.database.execute(operation, grow)

    # -- pods --------------------------------------------------------------------------------------------------

    def pod_namespace(self, pod: PodPlan) -> str:
        """Where a pod is."""
        return f"{self.prefix}{pod.group}.{pod.name}"

    def make_pod(self, pod: PodPlan) -> None:
        """The namespace with its process; `plug` gives it its interface."""
        self.add_namespace(self.pod_namespace(pod))
        run("ip", "netns", "exec", self.pod_namespace(pod), "sysctl", "-qw", "net.ipv4.ping_group_range=0 0",
            "net.ipv6.conf.default.accept_ra=0", "net.ipv6.conf.default.addr_gen_mode=1")  # fmt: skip
        self.agents[pod.key] = Agent(self.pod_namespace(pod), pod.key, self.program)

    def plug(self, pod: PodPlan) -> None:
        """Give the pod its interface on its host."""
        assert pod.host
        host, inside, port = self.hosts[pod.host], self.pod_namespace(pod), port_name(pod.key)
        self.ip(host.namespace, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", inside)
        # As qnet_pod does: the host's own stack says nothing to the pod.
        run("ip", "netns", "exec", host.namespace, "sysctl", "-qw", f"net.ipv6.conf.{port}.disable_ipv6=1")
        self.ip(host.namespace, "link", "set", port, "up")
        self.ip(inside, "link", "set", "eth0", "address", mac_text(pod.key), "mtu", "1400", "up")
        for address in pod.addresses:
            length, gateway = ("120", IPV6 + POD_BLOCK + 1) if is_ipv6(address) else ("24", POD_BLOCK + 1)
            without_probing = ["nodad"] if is_ipv6(address) else []
            self.ip(inside, "addr", "add", f"{dotted(address)}/{length}", "dev", "eth0", *without_probing)
            self.ip(inside, "route", "add", "default", "via", dotted(gateway))
        run("ip", "netns", "exec", inside, "ethtool", "-K", "eth0", "tx", "off")
        host.vsctl("add-port", "br-int", port)

    def move(self, pod: PodPlan, target: str) -> None:
        """Move a pod to another host."""
        assert pod.host
        host = self.hosts[pod.host]
        host.vsctl("del-port", "br-int", port_name(pod.key))
        self.ip(host.namespace, "link", "del", port_name(pod.key))
        pod.host = target
        self.plug(pod)

    def wait_until_ready(self) -> None:
        """Wait until every switch has the local flows of its pods."""

        def ready() -> bool:
            for host in self.hosts.values():
                flows = host.ofctl("dump-flows", "table=0")
                own = [pod for pod in self.world.pods.values() if pod.host == host.name]
                if not all(mac_text(pod.key) in flows for pod in own):
                    return False
            return True

        wait_for(ready, 20)

    def measure(
        self, addresses: list[int], probes: list[tuple[int, int | None]]
    ) -> dict[tuple[str, int, int, int | None], list[str] | None]:
        """What every pod gets from every address: (pod, address, protocol, port) → [who, which address it saw]."""
        asked: dict[str, list[tuple[int, int, int | None]]] = {}
        for key, agent in self.agents.items():
            pod = self.world.pods[key]
            others = [address for address in addresses if pod.own(address) not in (None, address)]
            asked[key] = [(address, *how) for address in others for how in probes]
            agent.ask([(dotted(address), protocol, port) for address, protocol, port in asked[key]])
        result: dict[tuple[str, int, int, int | None], list[str] | None] = {}
        for key, agent in self.agents.items():
            answers = agent.answer()
            for (address, protocol, port), answer in zip(asked[key], answers, strict=True):
                result[key, address, protocol, port] = answer
        return result
