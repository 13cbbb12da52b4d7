#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tell a controller which connections Open vSwitch tracks on this host; systemd starts this for each question.

Standard input is the connection. It is secured with mutual TLS, and only the controllers named on the command line are
answered. The question is one line of JSON: a list of conntrack zones, or {"shares": a list of them}. The answer is the
text of `ovs-appctl dpctl/dump-conntrack` or `dpctl/ct-get-limits` for these zones, ended by a line `end`. It reads and
changes nothing. But a controller asks about connections when something is not allowed any more, and Open vSwitch in
user space before 3.1.3 may keep a flow that does what its rule did before (ADR 0035): it is made to look anew.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WAIT_SECONDS = 10
LONGEST_QUESTION = 1 << 20
ZONES_ASKED_SINGLY = 8
ZONE = re.compile(r"\bzone=(\d+)")
VERSION = re.compile(r"\b(\d+)\.(\d+)\.(\d+)")
KEEPS_NO_OLD_FLOW = (3, 1, 3)
"""Has "dpif-netdev: Fix dpif_netdev_flow_put"."""


class Vswitchd:
    """The control socket of ovs-vswitchd (JSON-RPC, see ovs-appctl(8))."""

    def __init__(self, path: Path | None) -> None:
        run = Path("/run/openvswitch")
        self._path = path or run / f"ovs-vswitchd.{(run / 'ovs-vswitchd.pid').read_text().strip()}.ctl"

    def run(self, method: str, *arguments: str) -> str:
        """The output of one command.

        Raises:
            OSError: ovs-vswitchd is not there, or refuses.
        """
        question = json.dumps({"id": 0, "method": method, "params": arguments})
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(WAIT_SECONDS)
            control.connect(str(self._path))
            control.sendall(question.encode())
            answer = _read_object(control)
        if answer.get("error") is not None:
            raise OSError(f"{method}: {answer['error']}")
        return str(answer["result"])


def _read_object(control: socket.socket) -> dict[str, Any]:
    # One object without a length before it: it is complete when it ends with a brace and can be parsed.
    data = bytearray()
    while chunk := control.recv(1 << 20):
        data += chunk
        if chunk.rstrip().endswith(b"}"):
            try:
                return dict(json.loads(data))
            except ValueError:
                continue
    raise OSError("ovs-vswitchd closed its control socket")


def look_anew(vswitchd: Vswitchd) -> None:
    """Have the next packet of every flow decided by the rules as they are now."""
    version = VERSION.search(vswitchd.run("version"))
    if version is None or tuple(map(int, version.groups())) < KEEPS_NO_OLD_FLOW:
        vswitchd.run("revalidator/purge")


def connections(vswitchd: Vswitchd, zones: list[int]) -> Iterator[str]:
    """The entries of the zones, one a line."""
    wanted = {str(zone) for zone in zones}
    for datapath in vswitchd.run("dpctl/dump-dps").split():
        if datapath.startswith("netdev@"):
            look_anew(vswitchd)
        if len(zones) <= ZONES_ASKED_SINGLY:
            for zone in zones:
                yield from vswitchd.run("dpctl/dump-conntrack", datapath, f"zone={zone}").splitlines()
            continue
        for line in vswitchd.run("dpctl/dump-conntrack", datapath).splitlines():
            zone_of_line = ZONE.search(line)
            if zone_of_line and zone_of_line[1] in wanted:
                yield line


def shares(vswitchd: Vswitchd, zones: list[int]) -> Iterator[str]:
    """The limit and the number of connections of the zones, one a line."""
    wanted = "zone=" + ",".join(map(str, zones))
    for datapath in vswitchd.run("dpctl/dump-dps").split():
        yield from vswitchd.run("dpctl/ct-get-limits", datapath, wanted).splitlines()


def _common_name(connection: ssl.SSLSocket) -> str:
    subject: Any = (connection.getpeercert() or {}).get("subject", ())
    return next((str(value) for part in subject for name, value in part if name == "commonName"), "")


def _question(connection: ssl.SSLSocket) -> tuple[Callable[[Vswitchd, list[int]], Iterator[str]], list[int]]:
    data = bytearray()
    while not data.endswith(b"\n") and len(data) < LONGEST_QUESTION:
        chunk = connection.recv(1 << 16)
        if not chunk:
            break
        data += chunk
    asked = json.loads(data)
    ask, zones = (shares, asked.get("shares")) if isinstance(asked, dict) else (connections, asked)
    if not isinstance(zones, list) or not all(isinstance(zone, int) and 0 <= zone < 1 << 16 for zone in zones):
        raise ValueError("the question is not a list of conntrack zones")
    return ask, zones


def answer(plain: socket.socket, pki: Path, controllers: list[str], control: Path | None) -> None:
    """Answer the one question that comes over a connection.

    Raises:
        OSError: whoever asks is no controller, or ovs-vswitchd does not answer.
        ValueError: it is no question.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=pki / "ca.pem")
    context.load_cert_chain(pki / "host.pem", pki / "host.key")
    plain.settimeout(WAIT_SECONDS)
    with context.wrap_socket(plain, server_side=True) as connection:
        name = _common_name(connection)
        if name not in controllers:
            raise PermissionError(f"{name!r} is none of the controllers {', '.join(controllers)}")
        ask, zones = _question(connection)
        text = "".join(f"{line}\n" for line in ask(Vswitchd(control), zones))
        connection.sendall(text.encode() + b"end\n")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("controllers", nargs="+", metavar="CONTROLLER", help="names of certificates that may ask")
    parser.add_argument("--pki", type=Path, default=Path("/etc/qnet/pki"), help="ca.pem, host.pem and host.key")
    parser.add_argument("--control", type=Path, help="control socket of ovs-vswitchd (default: the one of the host)")
    arguments = parser.parse_args()
    try:
        plain = socket.socket(fileno=sys.stdin.fileno())
        answer(plain, arguments.pki, arguments.controllers, arguments.control)
    except (OSError, ValueError) as error:
        sys.exit(f"qnet-connections: {error}")


if __name__ == "__main__":
    main()
