#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Give every pod of this host its own limit of tracked connections; systemd starts this after each ovs-vswitchd.

A pod's conntrack zone is the number of its port, and a second one has 0x8000 added for a pod that calls itself. On the
kernel's datapath the default limit is one for each zone. In user space, Open vSwitch 3.1 counts all zones without a
limit of their own together, so each zone gets one, whether a pod has it or not: nobody knows a port's number before.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUN = Path("/run/openvswitch")
WAIT_SECONDS = 30
HIGHEST_PORT, OF_ITSELF = 0x7FFF, 0x8000
ZONES_AT_ONCE = 256
"""Less than a millisecond for ovs-vswitchd, which does nothing else meanwhile: in user space it forwards as well."""
PAUSE = 2
"""Times as long as a step has taken: for packets."""
LEVELS = re.compile(r"^conntrack +\S+ +\S+ +(\S+)$", re.MULTILINE)


def control_socket() -> Path:
    """Where ovs-vswitchd listens (see ovs-appctl(8))."""
    return RUN / f"ovs-vswitchd.{(RUN / 'ovs-vswitchd.pid').read_text().strip()}.ctl"


def run(path: Path, method: str, *arguments: str) -> str:
    """The output of one command.

    Raises:
        OSError: ovs-vswitchd is not there, or refuses.
    """
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(WAIT_SECONDS)
        control.connect(str(path))
        control.sendall(json.dumps({"id": 0, "method": method, "params": arguments}).encode())
        data = b""
        while chunk := control.recv(1 << 20):
            data += chunk
            try:
                answer = json.loads(data)
            except ValueError:
                continue
            if answer.get("error") is not None:
                raise OSError(f"{method}: {answer['error']}")
            return str(answer["result"])
    raise OSError(f"{method}: ovs-vswitchd has hung up")


def settings(datapath: str, limit: int) -> Iterator[list[str]]:
    """The arguments of dpctl/ct-set-limits, a few zones at a time; a limit of 0 is none."""
    if datapath.startswith("system@"):
        yield [datapath, f"default={limit}"]
        return
    zones = [base + port for port in range(1, HIGHEST_PORT + 1) for base in (0, OF_ITSELF)]
    for first in range(0, len(zones), ZONES_AT_ONCE):
        yield [datapath, *(f"zone={zone},limit={limit}" for zone in zones[first : first + ZONES_AT_ONCE])]


@contextmanager
def unlogged(path: Path) -> Iterator[None]:
    """Leave limits out of the log of ovs-vswitchd: 65,000 lines, and most of the time that they take."""
    level = LEVELS.search(run(path, "vlog/list"))
    if level is None:
        yield
        return
    run(path, "vlog/set", "conntrack:file:warn")
    try:
        yield
    finally:
        run(path, "vlog/set", f"conntrack:file:{level[1].lower()}")


def main() -> None:
    """Set the limit on every datapath that there is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(";", maxsplit=1)[0])
    parser.add_argument("limit", type=int, help="connections of one pod; 0: no limit")
    parser.add_argument("--control", type=Path, help="control socket of ovs-vswitchd")
    options = parser.parse_args()
    path = options.control or control_socket()
    with unlogged(path):
        for datapath in run(path, "dpctl/dump-dps").split():
            for arguments in settings(datapath, options.limit):
                began = time.monotonic()
                run(path, "dpctl/ct-set-limits", *arguments)
                time.sleep(PAUSE * (time.monotonic() - began))


if __name__ == "__main__":
    main()
