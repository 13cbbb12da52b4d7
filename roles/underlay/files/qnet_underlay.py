#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Move the addresses and routes of an underlay interface to the bridge it is a port of, or back.

The datapath in user space takes packets off the interface itself. The kernel must find the host's addresses on the
bridge, and must not see the same packets on the interface a second time.

Usage: qnet-underlay {attach|detach} INTERFACE BRIDGE
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time

TABLE = "qnet_underlay"
WAIT_SECONDS = 30


def run(*argv: str, stdin: str | None = None) -> str:
    """Run a command; its error output ends the program with a line that names the command."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"qnet-underlay: `{' '.join(argv)}` failed: {done.stderr.strip()}")
    return done.stdout


def wait_for(device: str) -> None:
    """Wait until Open vSwitch has made the bridge."""
    deadline = time.monotonic() + WAIT_SECONDS
    while subprocess.run(["ip", "link", "show", "dev", device], capture_output=True, check=False).returncode != 0:
        if time.monotonic() > deadline:
            sys.exit(f"qnet-underlay: there is no {device} after {WAIT_SECONDS} s: is Open vSwitch running?")
        time.sleep(0.2)


def addresses(device: str) -> list[str]:
    """The addresses of a device as the rest of an `address add` command."""
    found = []
    for entry in json.loads(run("ip", "-json", "address", "show", "dev", device))[0]["addr_info"]:
        if entry["scope"] != "global" or entry.get("temporary"):
            continue
        text = f"{entry['local']}/{entry['prefixlen']}"
        if "broadcast" in entry:
            text += f" broadcast {entry['broadcast']}"
        found.append(text + (" nodad" if entry["family"] == "inet6" else ""))
    return found


def routes(family: str, device: str) -> list[str]:
    """The routes of a device that do not come with its addresses, as the rest of a `route replace` command."""
    lines = run("ip", family, "route", "show", "table", "all", "dev", device).splitlines()
    words = [[word for word in line.split() if word not in ("linkdown", "dead")] for line in lines]
    own = ("local", "broadcast", "multicast")
    kept = [" ".join(line) for line in words if "kernel" not in line and line[0] not in own]
    # A route through a gateway needs the route to that gateway first.
    return sorted(kept, key=lambda line: " via " in line)


def move(source: str, target: str) -> None:
    """Move every address and route from one device to the other in one go, so that no connection is lost.

    Where that fails half-way, they go back: a host that is reached through them stays reachable.
    """
    moved = addresses(source)
    if not moved:
        return
    moved_routes = {family: routes(family, source) for family in ("-4", "-6")}
    try:
        carry(moved, moved_routes, source, target)
    except SystemExit:
        with contextlib.suppress(SystemExit):
            carry(moved, moved_routes, target, source)
        raise


def carry(moved: list[str], moved_routes: dict[str, list[str]], source: str, target: str) -> None:
    """Take addresses and routes off one device and put them on another."""
    batch = [f"link set dev {target} up", f"address flush dev {source} scope global"]
    batch += [f"address replace {address} dev {target}" for address in moved]
    run("ip", "-batch", "-", stdin="\n".join(batch) + "\n")
    for family, lines in moved_routes.items():
        if lines:
            batch = [f"route replace {line} dev {target}" for line in lines]
            run("ip", family, "-batch", "-", stdin="\n".join(batch) + "\n")


def without_kernel(interface: str) -> None:
    """Keep the kernel from handling the packets of the interface, and from merging them for the bridge."""
    rules = f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n  chain prerouting {{\n"
    rules += f'    type filter hook prerouting priority raw; iifname "{interface}" drop;\n  }}\n}}\n'
    run("nft", "-f", "-", stdin=rules)
    for feature in ("gro", "lro"):  # some drivers have no such switch
        subprocess.run(["ethtool", "-K", interface, feature, "off"], capture_output=True, check=False)


def attach(interface: str, bridge: str) -> None:
    """The addresses go to the bridge."""
    wait_for(bridge)
    run("ip", "link", "set", "dev", interface, "up")
    run("ethtool", "-K", bridge, "tx", "off")  # nothing behind the bridge would complete a checksum
    move(interface, bridge)
    without_kernel(interface)


def detach(interface: str, bridge: str) -> None:
    """The addresses go back to the interface."""
    run("nft", "-f", "-", stdin=f"table inet {TABLE}\ndelete table inet {TABLE}\n")
    if subprocess.run(["ip", "link", "show", "dev", bridge], capture_output=True, check=False).returncode == 0:
        move(bridge, interface)


def main() -> None:
    """Entry point."""
    actions = {"attach": attach, "detach": detach}
    if len(sys.argv) != 4 or sys.argv[1] not in actions:
        sys.exit("usage: qnet-underlay {attach|detach} INTERFACE BRIDGE")
    actions[sys.argv[1]](sys.argv[2], sys.argv[3])


if __name__ == "__main__":
    main()
