# SPDX-License-Identifier: Apache-2.0
"""Machines outside of a real fleet, on a wire with every host, and the way out of each host as its role sets it up."""

from __future__ import annotations

from contract.real import REPOSITORY, run

from .live import VTEP_BLOCK, Agent, Fleet, Vswitch

WAY_OUT = REPOSITORY / "roles" / "outside" / "files" / "qnet_outside.py"
FLEET = f"{VTEP_BLOCK}.0/24"


def open_outside(fleet: Fleet, machines: dict[str, list[str]]) -> None:
    """Start machines with these addresses, which are prefixes of one address."""
    for host in fleet.hosts.values():
        port = ("add-port", "br-int", "qnet-out", "--", "set", "interface", "qnet-out", "type=internal")
        host.vsctl(*port, "mtu_request=1400")
    for number, (name, addresses) in enumerate(machines.items()):
        machine = fleet.prefix + name
        fleet.add_namespace(machine)
        run("ip", "netns", "exec", machine, "sysctl", "-qw", "net.ipv4.ping_group_range=0 0")
        for address in addresses:
            fleet.ip(machine, "addr", "add", address, "dev", "lo", *_unprobed(address))
        for host in fleet.hosts.values():
            _wire(fleet, host, number, machine, addresses)
        fleet.agents[name] = Agent(machine, name, fleet.program)
    for host in fleet.hosts.values():
        way_out(host, "attach", FLEET)


def _wire(fleet: Fleet, host: Vswitch, number: int, machine: str, addresses: list[str]) -> None:
    """Between a host and a machine, which always speaks from its own addresses."""
    net, wire, inside = number * 100 + host.number, f"w{host.number}", host.namespace
    fleet.ip(machine, "link", "add", wire, "type", "veth", "peer", "name", f"wan{number}", "netns", inside)
    fleet.ip(machine, "link", "set", wire, "up")
    fleet.ip(inside, "link", "set", f"wan{number}", "up")
    for near, far, whole in ((f"172.31.{net}.1", f"172.31.{net}.2", 30), (f"fd31::{net}:1", f"fd31::{net}:2", 126)):
        fleet.ip(inside, "addr", "add", f"{near}/{whole}", "dev", f"wan{number}", *_unprobed(near))
        fleet.ip(machine, "addr", "add", f"{far}/{whole}", "dev", wire, *_unprobed(far))
        for address in addresses:
            if (":" in address) == (":" in near):
                fleet.ip(inside, "route", "add", address, "via", far)
                source = address.partition("/")[0]
                fleet.ip(machine, "route", "replace", near, "dev", wire, "src", source)
        if not number:
            fleet.ip(inside, "route", "add", "default", "via", far)


def way_out(host: Vswitch, *arguments: str) -> None:
    """Run on a host what the role `outside` runs there."""
    run("ip", "netns", "exec", host.namespace, "unshare", "--mount", "sh", "-c",
        'mount -t tmpfs none /run && exec "$@"', "sh", "/usr/bin/python3", "-I", WAY_OUT, *arguments)  # fmt: skip


def _unprobed(address: str) -> list[str]:
    """Use an IPv6 address without asking whether another one has it."""
    return ["nodad"] if ":" in address else []
