#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Make the namespaces and interfaces of this host's pods again after a boot, from what their ports say. Stdlib only.

The ports are still in the database of Open vSwitch, with what qnet_pod wrote there (`external_ids:qnet-attachment`).
A pod whose port has its interface is left alone. What is made is what qnet_pod makes; it finds nothing to change after.
"""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

NAMESPACES = pathlib.Path("/run/netns")
ATTACHMENT = "qnet-attachment"
CLONE_NEWNET = 0x40000000
WAIT_SECONDS = 60
Pod = dict[str, Any]


class Failure(Exception):
    """Something could not be done; the text says what."""


def run(*argv: str, stdin: str | None = None) -> str:
    """Run a command and return its output."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")
    return done.stdout


def ask() -> dict[str, Pod]:
    """Port name -> the pod behind it. Waits until Open vSwitch has its database open."""
    words = ("--format=json", "--columns=name,external_ids", "find", "Interface", f'external_ids:{ATTACHMENT}!=""')
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            rows = json.loads(run("ovs-vsctl", "--no-wait", "--timeout=5", *words))["data"]
            said = {name: dict(notes[1]).get(ATTACHMENT) for name, notes in rows}
            return {name: json.loads(text) for name, text in said.items() if text}
        except Failure:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def enter(path: str) -> None:
    """Move this process into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, encoding="ascii") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise Failure(f"cannot enter {path}: {os.strerror(ctypes.get_errno())}")


def write_settings(interface: str, settings: dict[str, str]) -> None:
    """Write settings under /proc/sys/net; those that this kernel does not have are left out."""
    for key, value in settings.items():
        path = pathlib.Path("/proc/sys/net", key.replace("*", interface))
        if path.exists():
            path.write_text(value, encoding="ascii")


def furnish(pod: Pod) -> None:
    """Everything inside the namespace, in which this process is."""
    own = {"ipv4/tcp_mtu_probing": "1", "ipv4/conf/*/promote_secondaries": "1", "ipv6/conf/*/disable_ipv6": "0"}
    write_settings("eth0", {**own, "ipv6/conf/*/addr_gen_mode": "1", "ipv6/conf/*/accept_ra": "0"})
    if not pod["transmit_checksum"]:
        run("ethtool", "-K", "eth0", "tx", "off")
    lines = ["link set dev lo up", "link set dev eth0 up"]
    lines += [f"address add {text} dev eth0{' nodad' if ':' in text else ''}" for text in pod["addresses"]]
    lines += [
        f"neighbour replace {via} lladdr {pod['virtual_mac']} nud permanent dev eth0" for via in pod["neighbours"]
    ]
    lines += [f"route replace {via} dev eth0" for via in pod["neighbours"]]
    lines += [f"route replace {'::/0' if ':' in via else '0.0.0.0/0'} via {via} dev eth0" for via in pod["gateways"]]
    run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")


def restore(port: str, pod: Pod) -> None:
    """Make one pod's namespace and interface; the port comes up last, so that nothing passes before all is in place."""
    name, mtu = pod["namespace"], pod["mtu"]
    run("ip", "netns", "add", name)
    peer = f"peer name eth0 address {pod['mac']} mtu {mtu} netns {name}"
    run("ip", *f"link add name {port} mtu {mtu} type veth {peer}".split())
    run("ip", "link", "set", "dev", port, "arp", "off")
    kept_out = {"ipv4/conf/*/forwarding": "0", "ipv4/conf/*/rp_filter": "1"}
    kept_out |= {"ipv4/conf/*/drop_unicast_in_l2_multicast": "1", "ipv6/conf/*/disable_ipv6": "1"}
    write_settings(port, kept_out)
    here = f"/proc/{os.getpid()}/fd/{os.open('/proc/self/ns/net', os.O_RDONLY)}"
    enter(str(NAMESPACES / name))
    try:
        furnish(pod)
    finally:
        enter(here)
    run("ip", "link", "set", "dev", port, "up")


def missing(port: str, pod: Pod) -> bool:
    """Whether neither the namespace nor the interface is there; what is there in part is left to qnet_pod."""
    return not pathlib.Path("/sys/class/net", port).exists() and not (NAMESPACES / pod["namespace"]).exists()


def main() -> int:
    """Entry point."""
    try:
        pods = {port: pod for port, pod in ask().items() if missing(port, pod)}
    except Failure as failure:
        sys.exit(f"qnet-pods-restore: {failure}")
    failures = 0
    for port, pod in sorted(pods.items()):
        try:
            restore(port, pod)
        except (Failure, OSError) as failure:
            failures += 1
            print(f"qnet-pods-restore: pod {pod['namespace']}: {failure}; run playbooks/pods.yml", file=sys.stderr)
    print(f"qnet-pods-restore: {len(pods) - failures} pods are back")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
