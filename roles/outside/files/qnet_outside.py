#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Let the kernel of a host carry what its pods send outside, and bring answers back; or undo all of that.

Every pod of the host is known to the kernel by an address of its own on the link `qnet-out`. Packets from there are
routed and leave with an address of the host. The host itself cannot be reached from there, and nothing is forwarded to
there but what belongs to a connection that a pod has opened.

Usage: qnet-outside {attach|detach} [REFUSED ...]     REFUSED: addresses or subnets that pods never reach
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import time
from pathlib import Path

DEVICE, DEVICE_MAC, SWITCH_MAC = "qnet-out", "0a:00:00:00:00:02", "0a:00:00:00:00:01"
# Family: addresses that pods have there, the kernel's own, and that of the switch as a gateway, which nobody has.
LINKS = {
    "-4": ("198.19.0.0/17", "198.19.255.254/32", "198.19.255.253"),
    "-6": ("fd71:6e65:7400::/113", "fd71:6e65:7400::fffe/128", "fd71:6e65:7400::fffd"),
}
WHOLE_LINKS = {"ip": "198.19.0.0/16", "ip6": "fd71:6e65:7400::/112"}
TABLE = "qnet_outside"
SETTINGS, SAVED = Path("/proc/sys/net"), Path("/run/qnet-outside/settings.json")
WAIT_SECONDS = 30


def run(*argv: str, stdin: str | None = None) -> str:
    """Run a command; its error output ends the program with a line that names the command."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"qnet-outside: `{' '.join(argv)}` failed: {done.stderr.strip()}")
    return done.stdout


def there() -> bool:
    """Whether Open vSwitch has made the port."""
    return subprocess.run(["ip", "link", "show", "dev", DEVICE], capture_output=True, check=False).returncode == 0


def wait_for_port() -> None:
    """Wait until it has."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not there():
        if time.monotonic() > deadline:
            sys.exit(f"qnet-outside: there is no {DEVICE} after {WAIT_SECONDS} s: is Open vSwitch running?")
        time.sleep(0.2)


def rules(refused: list[str]) -> str:
    """The rules of the packet filter, which replace those that are there."""
    blocks = [ipaddress.ip_network(text) for text in refused]
    lines = []
    for version, family in ((4, "ip"), (6, "ip6")):
        pods, whole = LINKS[f"-{version}"][0], WHOLE_LINKS[family]
        named = ", ".join(sorted({str(block) for block in ipaddress.collapse_addresses(
            block for block in blocks if block.version == version)}))  # fmt: skip
        lines += [
            f'add rule inet {TABLE} early iifname "{DEVICE}" meta nfproto ipv{version} {family} saddr != {pods} drop',
            f'add rule inet {TABLE} early iifname != "{DEVICE}" {family} daddr {whole} drop',
            f'add rule inet {TABLE} leave {family} saddr {pods} oifname != "{DEVICE}" masquerade',
        ]
        if named:
            lines.append(f'add rule inet {TABLE} early iifname "{DEVICE}" {family} daddr {{ {named} }} drop')
    chains = {
        # Before connections are tracked and before other rules translate: the host's own addresses are not reached.
        "early": "type filter hook prerouting priority raw; policy accept;",
        "host": "type filter hook input priority filter - 5; policy accept;",
        "through": "type filter hook forward priority filter - 5; policy accept;",
        "answers": "type filter hook output priority filter - 5; policy accept;",
        "leave": "type nat hook postrouting priority srcnat - 5; policy accept;",
    }
    return "\n".join([
        f"table inet {TABLE}", f"delete table inet {TABLE}", f"add table inet {TABLE}",
        *(f"add chain inet {TABLE} {name} {{ {hook} }}" for name, hook in chains.items()),
        *lines,
        f'add rule inet {TABLE} early iifname "{DEVICE}" fib daddr type != unicast drop',
        f'add rule inet {TABLE} host iifname "{DEVICE}" drop',
        f'add rule inet {TABLE} through iifname "{DEVICE}" oifname "{DEVICE}" drop',
        *(f'add rule inet {TABLE} {chain} oifname "{DEVICE}" ct state != {{ established, related }} drop'
          for chain in ("through", "answers")),
    ]) + "\n"  # fmt: skip


def wanted_settings() -> dict[str, str]:
    """Settings of the kernel by path: it forwards, and still learns its own routes where it did so before."""
    wanted = {"ipv4/ip_forward": "1", f"ipv4/conf/{DEVICE}/rp_filter": "1"}
    if not (SETTINGS / "ipv6/conf/all/forwarding").exists():
        return wanted
    for setting in sorted((SETTINGS / "ipv6/conf").glob("*/accept_ra")):
        if setting.read_text().strip() == "1" and setting.parent.name not in ("all", DEVICE):
            wanted[f"ipv6/conf/{setting.parent.name}/accept_ra"] = "2"
    return {**wanted, f"ipv6/conf/{DEVICE}/accept_ra": "0", "ipv6/conf/all/forwarding": "1"}


def change_settings() -> None:
    """Set them, and remember what they were."""
    saved: dict[str, str] = json.loads(SAVED.read_text()) if SAVED.exists() else {}
    for name, value in wanted_settings().items():
        old = (SETTINGS / name).read_text().strip()
        if old != value:
            saved.setdefault(name, old)
            (SETTINGS / name).write_text(value)
    SAVED.parent.mkdir(exist_ok=True)
    SAVED.write_text(json.dumps(saved))


def restore_settings() -> None:
    """Set back what was changed."""
    saved: dict[str, str] = json.loads(SAVED.read_text()) if SAVED.exists() else {}
    for name, value in reversed(saved.items()):
        if (SETTINGS / name).exists():
            (SETTINGS / name).write_text(value)
    SAVED.unlink(missing_ok=True)


def attach(refused: list[str]) -> None:
    """Set everything up; a second time changes nothing."""
    wait_for_port()
    run("nft", "-f", "-", stdin=rules(refused))  # closed before it is opened
    change_settings()
    run("ip", "link", "set", "dev", DEVICE, "address", DEVICE_MAC, "up")
    for family, (pods, own, gateway) in LINKS.items():
        if family == "-6" and not (SETTINGS / "ipv6/conf" / DEVICE).exists():
            continue
        no_probing = ["nodad"] if family == "-6" else []
        run("ip", family, "address", "replace", own, "dev", DEVICE, *no_probing)
        run("ip", family, "neighbour", "replace", gateway, "lladdr", SWITCH_MAC, "nud", "permanent", "dev", DEVICE)
        run("ip", family, "route", "replace", pods, "via", gateway, "dev", DEVICE, "onlink")


def detach(dummy: list[str]) -> None:
    """Undo it. The port goes with the bridge; the packet filter stays shut until then."""
    if there():
        run("ip", "link", "set", "dev", DEVICE, "down")
        run("ip", "address", "flush", "dev", DEVICE)
    restore_settings()
    run("nft", "-f", "-", stdin=f"table inet {TABLE}\ndelete table inet {TABLE}\n")


def main() -> None:
    """Entry point."""
    actions = {"attach": attach, "detach": detach}
    if len(sys.argv) < 2 or sys.argv[1] not in actions:
        sys.exit("usage: qnet-outside {attach|detach} [REFUSED ...]")
    actions[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    main()
