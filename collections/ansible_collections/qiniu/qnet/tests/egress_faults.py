# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of egress rules, in the form of inventory_faults.py."""

from __future__ import annotations

from typing import Any

from ansible_collections.qiniu.qnet.tests.inventory_faults import Change, Inventory


def entry(inventory: Inventory) -> dict[str, Any]:
    """The group that goes outside."""
    group: dict[str, Any] = inventory["qnet_tenants"][1]["security_groups"][0]
    return group


EGRESS_FAULTS: dict[str, tuple[Change, str, str, str]] = {
    "egress into a network": (
        lambda i: entry(i)["egress"][0].update(to="10.96.0.0/25"),
        "qnet_tenants[1].security_groups[0].egress[0].to",
        "lies within 10.96.0.0/24 of network prod",
        "Export a service",
    ),
    "egress to the metadata of a cloud": (
        lambda i: entry(i)["egress"][0].update(to="169.254.169.254/32"),
        "qnet_tenants[1].security_groups[0].egress[0].to",
        "opens nothing",
        "Remove the rule",
    ),
    "egress with host bits": (
        lambda i: entry(i)["egress"][0].update(to="203.0.113.7/24"),
        "qnet_tenants[1].security_groups[0].egress[0].to",
        "host bits",
        "Write 203.0.113.0/24.",
    ),
    "egress with an unknown key": (
        lambda i: entry(i)["egress"][1].update(port="tcp/53"),
        "qnet_tenants[1].security_groups[0].egress[1].port",
        "no known key",
        "ports",
    ),
    "egress without addresses": (
        lambda i: entry(i)["egress"][1].pop("to"),
        "qnet_tenants[1].security_groups[0].egress[1].to",
        "is missing",
        "Add it",
    ),
    "egress to a wrong port": (
        lambda i: entry(i)["egress"][0].update(ports=["https"]),
        "qnet_tenants[1].security_groups[0].egress[0].ports[0]",
        "no protocol and port",
        "tcp/80",
    ),
    "network on the way out": (
        lambda i: i["qnet_networks"][1].update(pod_subnets=["198.19.0.0/24"]),
        "qnet_networks[1].pod_subnets[0]",
        "cannot be given to a pod",
        "private range",
    ),
}
