# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""From what hosts have measured of each other to one table that names causes."""

from __future__ import annotations

import dataclasses
import typing as t

Measured = t.Mapping[str, t.Any]
TITLES = ("from", "to", "route", "loss", "latency", "MTU", "UDP 4789", "")
MOST_LOSS = 0.1


@dataclasses.dataclass(frozen=True)
class Host:
    """What is known of a host: its own answer to each question, None where it did not answer.

    `vteps` are what the intent database has for it, `faults` what is wrong on the host itself.
    """

    name: str
    vtep: str
    ways: t.Sequence[Measured] | None
    heard: t.Sequence[str] | None
    vteps: t.Sequence[str] = ()
    faults: t.Sequence[str] = ()


def cause(way: Measured, sender: Host, receiver: Host, mtu: int) -> str:
    """Why packets do not get from one host to the other as they should; "" when they do."""
    if receiver.vteps and receiver.vtep not in receiver.vteps:
        known = ", ".join(receiver.vteps)
        return (
            f"wrong VTEP: the intent database has {known} for {receiver.name}, which has {receiver.vtep}: run site.yml"
        )
    if way["route"].startswith("no route"):
        return f"route: {sender.name} has none to {way['address']} ({way['route'].partition(': ')[2]})"
    if receiver.heard is None:
        return f"{receiver.name} did not answer"
    arrives = sender.name in receiver.heard
    if not way["answered"]:
        if arrives:
            return ""  # echoes are filtered, tunnels work
        return f"nothing from {sender.name} arrives at {way['address']}: host, link, or wrong address"
    if not arrives:
        return f"firewall: echoes pass, UDP port 4789 from {sender.name} does not arrive at {receiver.name}"
    if way["mtu"] is not None and way["mtu"] < mtu:
        return f"MTU: the path carries {way['mtu']}, the overlay needs {mtu}"
    loss = 1 - way["answered"] / way["sent"]
    return f"loss: {loss:.0%} of echoes" if loss > MOST_LOSS else ""


def report(hosts: t.Sequence[Host], mtu: int) -> dict[str, t.Any]:
    """The table as rows, and the faults as lines: `mtu` is what packets of the underlay need to carry the overlay."""
    by_name = {host.name: host for host in hosts}
    rows: list[tuple[str, ...]] = [TITLES]
    faults = [f"{host.name}: {fault}" for host in hosts for fault in host.faults]
    for host in hosts:
        if host.ways is None:
            faults.append(f"{host.name}: could not be asked")
            continue
        for way in host.ways:
            peer = by_name[way["peer"]]
            why = cause(way, host, peer, mtu)
            arrives = "-" if peer.heard is None else "yes" if host.name in peer.heard else "no"
            latency, largest = way["latency_milliseconds"], way["mtu"]
            loss = f"{1 - way['answered'] / way['sent']:.0%}" if way["sent"] else "-"
            rows.append(
                (
                    host.name,
                    peer.name,
                    way["route"].partition(":")[0],
                    loss,
                    "-" if latency is None else f"{latency:.2f} ms",
                    "-" if largest is None else str(largest),
                    arrives,
                    why or "ok",
                )
            )
            if why:
                faults.append(f"{host.name} -> {peer.name}: {why}")
    return {"rows": [list(row) for row in rows], "faults": faults}
