#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Give Open vSwitch the kernel's routes through a bridge, for its tunnels in user space, and follow them. Stdlib only.

Left to itself, Open vSwitch empties its own copy of the kernel's routes, and fills it again, each time any interface of
the host changes: a pod that came or went cost others packets. So it runs with `--disable-system-route`, and has only
what it is given here.

Usage: qnet-tunnel-routes BRIDGE
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import select
import socket
import subprocess
import sys
import time

NEWS = 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE and the same for IPv6 (linux/rtnetlink.h)
QUIET_SECONDS = 0.05  # without news, until they are looked at: changes come in numbers
AGAIN_SECONDS = 1.0  # after which news are looked at although more come, and what failed is tried again
APPCTL = ("ovs-appctl", "--timeout=10")
SHOWN = re.compile(r"^User: (\S+) dev (\S+)(?: GW (\S+))?(?: SRC (\S+))?", re.MULTILINE)


class Failed(Exception):
    """A command has failed; its text names the command."""


def run(*argv: str) -> str:
    """Run a command.

    Raises:
        Failed: it has failed.
    """
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"`{' '.join(argv)}` failed: {done.stderr.strip()}; it is tried again")
    return done.stdout


def addresses(bridge: str) -> set[str]:
    """The addresses of a bridge."""
    return {
        entry["local"] for entry in json.loads(run("ip", "-json", "address", "show", "dev", bridge))[0]["addr_info"]
    }


def kernel_routes(bridge: str) -> dict[str, str]:
    """The routes of the kernel's main table through a bridge: prefix -> gateway, empty where the targets are near."""
    found: dict[str, tuple[int, str]] = {}
    for family, whole in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        for route in json.loads(run("ip", "-json", family, "route", "show", "table", "main") or "[]"):
            prefix = ipaddress.ip_network(whole if route["dst"] == "default" else route["dst"])
            metric = route.get("metric", 0)
            for hop in route.get("nexthops", [route]):  # Open vSwitch knows one way to a prefix: the first
                best, _ = found.get(str(prefix), (1 << 32, ""))
                if hop.get("dev") == bridge and not prefix.is_link_local and "via" not in hop and metric < best:
                    found[str(prefix)] = (metric, hop.get("gateway", ""))
    return {prefix: gateway for prefix, (_, gateway) in found.items()}


def switch_routes(bridge: str) -> dict[str, tuple[str, str]]:
    """The routes that Open vSwitch has been given through a bridge: prefix -> gateway and its own address."""
    shown = SHOWN.findall(run(*APPCTL, "ovs/route/show"))
    return {prefix: (gateway, own) for prefix, device, gateway, own in shown if device == bridge}


def give(bridge: str) -> set[str]:
    """Let Open vSwitch route tunnels as the kernel would; returns what has failed, a line for each."""
    failed = set()

    def told(*words: str) -> None:
        try:
            run(*APPCTL, *words)
        except Failed as failure:
            failed.add(str(failure))

    try:
        wanted, have, own = kernel_routes(bridge), switch_routes(bridge), addresses(bridge)
    except Failed as failure:
        return {str(failure)}
    for prefix in have.keys() - wanted.keys():
        told("ovs/route/del", prefix)
    for prefix, gateway in wanted.items():
        known = have.get(prefix)
        if known is None or known[0] != gateway or known[1] not in own:  # given again, it takes the place of the old
            told("ovs/route/add", prefix, bridge, *([gateway] if gateway else []))
    keep([f"{prefix} {bridge} {gateway}".rstrip() for prefix, gateway in wanted.items()])
    return failed


def keep(lines: list[str]) -> None:
    """Leave the routes where the unit of Open vSwitch finds them, which gives them to it as soon as it is started anew.

    Until this program has been started after it, half a second would pass without tunnels.
    """
    if directory := os.environ.get("RUNTIME_DIRECTORY"):
        fresh = os.path.join(directory, "routes.new")
        with open(fresh, "w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in lines)
        os.replace(fresh, os.path.join(directory, "routes"))


def follow(bridge: str) -> None:
    """Keep the routes of Open vSwitch those of the kernel, until the process is ended."""
    said = set[str]()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as news:
        news.bind((0, NEWS))
        while True:
            failed = give(bridge)
            for line in sorted(failed - said):
                print(f"qnet-tunnel-routes: {line}", file=sys.stderr, flush=True)
            said = failed
            if select.select([news], [], [], AGAIN_SECONDS if failed else None)[0]:
                until = time.monotonic() + AGAIN_SECONDS
                while time.monotonic() < until and select.select([news], [], [], QUIET_SECONDS)[0]:
                    with contextlib.suppress(OSError):  # more news than it could keep are news as well
                        news.recv(1 << 16)


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 2:
        sys.exit("usage: qnet-tunnel-routes BRIDGE")
    follow(sys.argv[1])


if __name__ == "__main__":
    main()
