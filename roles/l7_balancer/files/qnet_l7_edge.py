#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make a balancer's pod reachable on the addresses of its host: qnet_l7_edge.py up|down EDGE.JSON.

The pod gets a second leg, a veth pair to the host. The host sends what comes in for a listener's port on that leg, with
the client's own address; the pod's answers go back by the way they came. The pod cannot open anything towards the host
or the outside by this leg: what it may reach is governed by exports alone.

Both for IPv4 and IPv6, the latter where the host has it.

EDGE.JSON: {"instance": "group.pod", "ports": ["tcp/443", "udp/53"]}.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

LEGS = ipaddress.IPv4Network("169.254.192.0/18")  # a /30 of it for each leg
LEGS6 = ipaddress.IPv6Network("fdc7:716e:6574:1::/64")  # a /126 of it for each leg
ROUTES = "169"  # the pod's routing table for answers
INNER = "edge0"
FORWARDING = {
    "ipv4": (Path("/proc/sys/net/ipv4/ip_forward"), Path("/run/qnet-l7-forwarding-was-off")),
    "ipv6": (Path("/proc/sys/net/ipv6/conf/all/forwarding"), Path("/run/qnet-l7-forwarding6-was-off")),
}
IPV6 = Path("/proc/sys/net/ipv6/conf")


@dataclass(frozen=True)
class Edge:
    """The leg of one pod."""

    instance: str
    ports: tuple[str, ...]

    @property
    def digest(self) -> str:
        """What its names are made of."""
        return hashlib.sha256(self.instance.encode()).hexdigest()[:12]

    @property
    def outer(self) -> str:
        """The host's end."""
        return f"qe{self.digest}"

    @property
    def addresses(self) -> tuple[str, str]:
        """The host's and the pod's address on the leg."""
        return str(LEGS[self._number * 4 + 1]), str(LEGS[self._number * 4 + 2])

    @property
    def addresses6(self) -> tuple[str, str]:
        """The same for IPv6."""
        return str(LEGS6[self._number * 4 + 1]), str(LEGS6[self._number * 4 + 2])

    @property
    def _number(self) -> int:
        return int(self.digest, 16) % (LEGS.num_addresses // 4)

    def rules(self, forwarding_was_off: Collection[str]) -> str:
        """What nftables is told, as one transaction. `forwarding_was_off`: of ipv4 and ipv6."""
        table, outer = f"inet qnet_l7_{self.digest}", self.outer
        matches = [f"{port.split('/')[0]} dport {port.split('/')[1]}" for port in self.ports]
        into = [
            f"fib daddr type local {theirs} {match} dnat {family} to {inner}"
            for family, inner, theirs in (
                ("ip", self.addresses[1], "ip daddr != 127.0.0.0/8"),
                ("ip6", self.addresses6[1], "ip6 daddr != { ::1, fe80::/10 }"),
            )
            for match in matches
        ]
        # A host that did not forward before forwards for balancers only.
        others = [f'meta nfproto {family} iifname != "qe*" oifname != "qe*" drop' for family in forwarding_was_off]
        leg = [f'iifname "{outer}" ct state established,related accept', f'iifname "{outer}" drop']
        neighbours = f'iifname "{outer}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept'
        chains = {
            "arrive type nat hook prerouting priority dstnat": [f'iifname != "qe*" {rule}' for rule in into],
            "here type nat hook output priority -100": into,
            "pass type filter hook forward priority -5": [*leg, *others],
            "enter type filter hook input priority -5": [neighbours, *leg],
        }
        lines = [f"table {table}", f"delete table {table}", f"table {table} {{"]
        for chain, rules in chains.items():
            name, _, hook = chain.partition(" ")
            lines += [f"  chain {name} {{", f"    {hook};", *(f"    {rule}" for rule in rules), "  }"]
        return "\n".join([*lines, "}", ""])


def run(*argv: str, text: str | None = None) -> str:
    """Run a command; its complaint becomes the exception's text."""
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def up(edge: Edge) -> None:
    """Make the leg, or bring it up to date."""
    names = [link["ifname"] for link in json.loads(run("ip", "-json", "-netns", edge.instance, "link", "show"))]
    if INNER not in names:
        with contextlib.suppress(RuntimeError):
            run("ip", "link", "del", edge.outer)
        run("ip", "link", "add", edge.outer, "type", "veth", "peer", "name", INNER, "netns", edge.instance)
    outer, inner = edge.addresses
    inside = ("ip", "-netns", edge.instance)
    run("ip", "address", "replace", f"{outer}/30", "dev", edge.outer)
    run("ip", "link", "set", edge.outer, "up")
    run(*inside, "address", "replace", f"{inner}/30", "dev", INNER)
    run(*inside, "link", "set", INNER, "up")
    run(*inside, "route", "replace", "default", "via", outer, "dev", INNER, "table", ROUTES)
    if inner not in run(*inside, "rule", "show"):
        run(*inside, "rule", "add", "from", inner, "lookup", ROUTES)
    families = ["ipv4"]
    if IPV6.exists() and (IPV6 / "all/disable_ipv6").read_text().strip() == "0":
        families.append("ipv6")
        up6(edge)
    for family in families:
        switch, was_off = FORWARDING[family]
        if switch.read_text().strip() == "0":
            was_off.touch()
            if family == "ipv6":
                keep_router_advertisements()
            switch.write_text("1")
    run("nft", "-f", "-", text=edge.rules([family for family in families if FORWARDING[family][1].exists()]))


def up6(edge: Edge) -> None:
    """The leg's addresses and the way back, for IPv6."""
    outer, inner = edge.addresses6
    inside = ("ip", "-6", "-netns", edge.instance)
    enable = f"echo 0 >{IPV6}/{INNER}/disable_ipv6"
    run("ip", "netns", "exec", edge.instance, "sh", "-c", enable)
    (IPV6 / edge.outer / "disable_ipv6").write_text("0")
    run("ip", "-6", "address", "replace", f"{outer}/126", "dev", edge.outer, "nodad")
    run(*inside, "address", "replace", f"{inner}/126", "dev", INNER, "nodad")
    run(*inside, "route", "replace", "default", "via", outer, "dev", INNER, "table", ROUTES)
    if inner not in run(*inside, "rule", "show"):
        run(*inside, "rule", "add", "from", inner, "lookup", ROUTES)


def keep_router_advertisements() -> None:
    """A kernel that forwards ignores them unless told otherwise, and the host may have its default route from one."""
    for switch in IPV6.glob("*/accept_ra"):
        if switch.read_text().strip() == "1":
            switch.write_text("2")


def down(edge: Edge) -> None:
    """Remove the leg and its rules."""
    with contextlib.suppress(RuntimeError):
        run("nft", "delete", "table", "inet", f"qnet_l7_{edge.digest}")
    with contextlib.suppress(RuntimeError):
        run("ip", "link", "del", edge.outer)


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    word, path = arguments
    told = json.loads(Path(path).read_text(encoding="utf-8"))
    edge = Edge(told["instance"], tuple(told["ports"]))
    try:
        {"up": up, "down": down}[word](edge)
    except RuntimeError as error:
        print(f"qnet_l7_edge {word} {edge.instance}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
