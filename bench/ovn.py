# SPDX-License-Identifier: Apache-2.0
"""OVN: its databases, ovn-northd, and an ovn-controller beside each Open vSwitch (userspace datapath) that it is for.

The programs are those of Debian's packages ovn-common, ovn-central and ovn-host, unpacked into .cache/ovn and not
installed, so that no service of theirs starts.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.pods import Fleet

from contract.real import Vswitch, daemon, database, own_network, run, vswitch, wait_for
from policy.live import VTEP_BLOCK
from policy.live import Vswitch as Host

PACKAGES = ("ovn-common", "ovn-central", "ovn-host")
ROOT = Path(__file__).resolve().parents[1] / ".cache" / "ovn"
COMMANDS_AT_ONCE = 500
SYNC_SECONDS = 120
FIRST_HOST = 101  # numbers of OVN's hosts on the underlay of ours


def install() -> Path:
    """Unpack the packages unless that is done; returns the directory that holds usr/."""
    root, stamp = ROOT / "root", ROOT / "unpacked"
    if not stamp.exists():
        ROOT.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "--quiet", "download", *PACKAGES], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for package in sorted(ROOT.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
        stamp.touch()
    return root


class Switch(Protocol):
    """An Open vSwitch with a bridge br-int."""

    directory: Path

    def vsctl(self, *arguments: str) -> str:
        """ovs-vsctl."""


class Central:
    """The databases and ovn-northd."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.root, self.directory = root, directory

    def remote(self, database: str) -> str:
        """Where a database listens."""
        return f"unix:{self.directory / database}.sock"

    def change(self, commands: Sequence[Sequence[str]]) -> None:
        """Run commands of ovn-nbctl, many in one transaction."""
        for first in range(0, len(commands), COMMANDS_AT_ONCE):
            self._nbctl(*(word for command in commands[first : first + COMMANDS_AT_ONCE] for word in (*command, "--")))

    def sync(self) -> None:
        """Wait until all hosts have taken over everything."""
        self._nbctl("--wait=hv", f"--timeout={SYNC_SECONDS}", "sync")

    def monitored(self) -> list[str]:
        """What OVN's checks say of the backends they are made for: online, offline, error, or nothing yet."""
        command = [str(self.root / "usr/bin/ovn-sbctl"), f"--db={self.remote('OVN_Southbound')}", "--bare"]
        return run(*command, "--columns=status", "list", "Service_Monitor").split()

    def _nbctl(self, *words: str) -> None:
        command = [str(self.root / "usr/bin/ovn-nbctl"), f"--db={self.remote('OVN_Northbound')}", *words]
        command = command[:-1] if command[-1] == "--" else command
        subprocess.run(command, check=True, timeout=SYNC_SECONDS + 10, stdout=subprocess.DEVNULL)


@contextmanager
def central(directory: Path) -> Iterator[Central]:
    """OVN without hosts, and nothing in it."""
    root = install()
    directory.mkdir(exist_ok=True)
    system = Central(root, directory)
    with ExitStack() as stack:
        for name, schema in (("OVN_Northbound", "ovn-nb"), ("OVN_Southbound", "ovn-sb")):
            stack.enter_context(database(directory, name, root / f"usr/share/ovn/{schema}.ovsschema"))
        stack.enter_context(
            daemon(
                "env", f"OVN_RUNDIR={directory}", root / "usr/bin/ovn-northd",
                f"--ovnnb-db={system.remote('OVN_Northbound')}", f"--ovnsb-db={system.remote('OVN_Southbound')}",
                f"--log-file={directory / 'northd.log'}", "-vconsole:off", directory=directory,
            )
        )  # fmt: skip
        yield system


@contextmanager
def agent(system: Central, switch: Switch, name: str, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """The ovn-controller of a host, whose tunnels end at `address`."""
    directory = switch.directory
    switch.vsctl(
        "set", "Open_vSwitch", ".", f"external_ids:system-id={name}",
        f"external_ids:ovn-remote={system.remote('OVN_Southbound')}",
        "external_ids:ovn-encap-type=geneve", f"external_ids:ovn-encap-ip={address}",
        "external_ids:ovn-bridge-datapath-type=netdev", "external_ids:ovn-monitor-all=true",
    )  # fmt: skip
    with daemon(
        "env", f"OVN_RUNDIR={directory}", system.root / "usr/bin/ovn-controller",
        f"unix:{directory / 'Open_vSwitch.sock'}", f"--log-file={directory / 'agent.log'}", "-vconsole:off",
        directory=directory,
    ) as process:  # fmt: skip
        wait_for(lambda: list(directory.glob("ovn-controller.*.ctl")))
        yield process


@dataclass(frozen=True)
class Ovn:
    """A running OVN with one host."""

    central: Central
    switch: Vswitch
    agent: subprocess.Popen[bytes]


@contextmanager
def ovn(directory: Path) -> Iterator[Ovn]:
    """OVN with one host and nothing in it."""
    install()  # while there is a way out of here
    with ExitStack() as stack:
        stack.callback(own_network())
        system = stack.enter_context(central(directory))
        switch = stack.enter_context(vswitch(directory, "br-int", 1))
        yield Ovn(system, switch, stack.enter_context(agent(system, switch, "h1", "127.0.0.1")))


class OvnFleet:
    """OVN on hosts of its own, on the underlay of a fleet of ours: switches with a router as their gateway.

    That is the shape its container networks use, with load balancers on the switch, but without any policy: an ACL
    with tracked connections (`allow-related`) lets OVN 23.03 commit them with a translation to 0.0.0.0, and that makes
    ovs-vswitchd 3.1 abort on the userspace datapath within seconds of new connections.
    """

    def __init__(
        self,
        fleet: Fleet,
        system: Central,
        hosts: dict[str, Host],
        agents: dict[str, subprocess.Popen[bytes]],
        stack: ExitStack,
    ) -> None:
        self.fleet, self.central, self.hosts, self.agents, self._stack = fleet, system, hosts, agents, stack
        self.aborts = 0
        system.change([["lr-add", "gateway"]])

    def revive(self) -> None:
        """Start each ovs-vswitchd again that has aborted; counted in `aborts`."""
        gone = [host for host in self.hosts.values() if not alive(host)]
        for host in gone:
            host.start_switch(self._stack)
            wait_for(lambda host=host: alive(host))  # type: ignore[misc]
            host.give_address()
            self.aborts += 1
        if gone:
            self.central.sync()

    def add_switch(self, name: str, gateway: str) -> None:
        """A logical switch behind the router, whose pods have addresses of the /16 of its gateway."""
        port = f"to-{name}"
        self.central.change(
            [
                ["ls-add", name],
                ["lrp-add", "gateway", port, mac_of(gateway), f"{gateway}/16"],
                ["lsp-add", name, f"from-{name}"],
                ["lsp-set-type", f"from-{name}", "router"],
                ["lsp-set-addresses", f"from-{name}", "router"],
                ["lsp-set-options", f"from-{name}", f"router-port={port}"],
            ]
        )

    def add_pod(self, name: str, switch: str, host: str, gateway: str, *addresses: str) -> list[str]:
        """A pod with one or more addresses; returns what a command begins with that runs in its namespace."""
        namespace, where, mac = f"{self.fleet.prefix}{name}", self.hosts[host], mac_of(addresses[0])
        self.fleet.add_namespace(namespace)
        self.fleet.ip(where.namespace, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self.fleet.ip(where.namespace, "link", "set", name, "up")
        self.fleet.ip(namespace, "link", "set", "eth0", "address", mac, "mtu", "1400", "up")
        for address in addresses:
            self.fleet.ip(namespace, "addr", "add", f"{address}/16", "dev", "eth0")
        self.fleet.ip(namespace, "route", "add", "default", "via", gateway)
        run("ip", "netns", "exec", namespace, "ethtool", "-K", "eth0", "tx", "off")
        where.vsctl("add-port", "br-int", name, "--", "set", "interface", name, f"external_ids:iface-id={name}")
        identity = " ".join((mac, *addresses))
        self.central.change(
            [
                ["lsp-add", switch, name],
                ["lsp-set-addresses", name, identity],
                ["lsp-set-port-security", name, identity],
            ]
        )
        return ["ip", "netns", "exec", namespace]

    def add_service(self, switch: str, vip: str, port: str, *backends: str) -> None:
        """A load balancer, port for port."""
        ends = ",".join(f"{backend}:{port}" for backend in backends)
        self.central.change([["lb-add", vip, f"{vip}:{port}", ends, "tcp"], ["ls-lb-add", switch, vip]])

    def add_check(self, vip: str, port: str, source: str, backends: dict[str, str], **options: str) -> None:
        """Checks of the backends (address to port name) of a load balancer, from an address that nobody has."""
        places = [f'ip_port_mappings:"{address}"="{name}:{source}"' for address, name in backends.items()]
        given = [f"options:{option}={value}" for option, value in options.items()]
        check = ["--id=@check", "create", "Load_Balancer_Health_Check", f'vip="{vip}:{port}"', *given]
        self.central.change([check, ["set", "Load_Balancer", vip, *places, "health_check=@check"]])


def alive(host: Host) -> bool:
    """Whether the ovs-vswitchd of a host runs and answers."""
    try:
        host.appctl("version")
    except AssertionError:
        return False
    return True


def mac_of(address: str) -> str:
    """A MAC address for an IPv4 address."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


@contextmanager
def ovn_fleet(fleet: Fleet, names: Sequence[str] = ("o1", "o2")) -> Iterator[OvnFleet]:
    """OVN on as many hosts as there are names, beside a running fleet of ours."""
    with ExitStack() as stack:
        system = stack.enter_context(central(fleet.directory / "ovn"))
        hosts = {name: Host(fleet, name, FIRST_HOST + number) for number, name in enumerate(names)}
        agents = {}
        for host in hosts.values():
            host.start(stack)
            agents[host.name] = stack.enter_context(agent(system, host, host.name, f"{VTEP_BLOCK}.{host.number}"))
        yield OvnFleet(fleet, system, hosts, agents, stack)
