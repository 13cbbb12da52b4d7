# SPDX-License-Identifier: GPL-3.0-or-later
"""A good inventory, and for every kind of error of one how to make it and what must be said of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_rules import Fleet, rule_problems
from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_shape import shape_problems
from ansible_collections.qiniu.qnet.plugins.plugin_utils.problem import Problem, render_path

SCHEMA = json.loads((Path(__file__).parents[5] / "schemas/inventory.schema.json").read_text())
FLEET = Fleet(
    now=datetime(2026, 6, 1, tzinfo=UTC),
    switches=["h1", "h2", "h3"],
    database=["c1", "c2", "c3"],
    underlay_payload=1450,
    has_file=lambda name: name == "workloads/w.py",
)
SERVICE = "qnet_tenants[0].security_groups[0].services[0]"
Inventory = dict[str, Any]


def inventory() -> Inventory:
    """A good inventory that uses every key."""
    return {
        "qnet_networks": [
            {
                "name": "prod",
                "vni": 100,
                "pod_subnets": ["10.10.0.0/24"],
                "service_subnets": ["10.96.0.0/24"],
                "mtu": 1450,
            },
            {
                "name": "lab",
                "vni": 101,
                "pod_subnets": ["10.10.0.0/24"],
                "service_subnets": ["10.96.0.0/24", "10.10.1.0/24"],
            },
        ],
        "qnet_guests": [{"network": "lab", "home": "prod", "vni": 300, "addresses": ["10.96.0.200"]}],
        "qnet_tenants": [
            {
                "name": "fop",
                "security_groups": [
                    {
                        "name": "fop",
                        "broadcast": True,
                        "services": [
                            {
                                "name": "image",
                                "network": "prod",
                                "service_ips": [
                                    {"address": "10.96.0.10", "affinity": "client", "affinity_seconds": 60},
                                    {"name": "second"},
                                ],
                                "replicas": 3,
                                "hosts": ["h1", "h2"],
                                "placement": {"image-2": "h3"},
                                "weights": {"image-1": 50},
                                "addresses": {"image-1": ["10.10.0.7"]},
                                "draining": ["image-3"],
                                "workload": {
                                    "command": "/usr/bin/python3 /opt/qnet/workloads/w.py",
                                    "environment": {"PORT": "80"},
                                    "files": ["workloads/w.py"],
                                    "packages": ["python3-pil"],
                                },
                            },
                            {
                                "name": "video",
                                "network": "prod",
                                "service_ips": [{}, {"name": "lab", "network": "lab"}],
                            },
                        ],
                    }
                ],
            },
            {
                "name": "platform",
                "security_groups": [
                    {
                        "name": "entry",
                        "egress": [{"to": "203.0.113.0/24", "ports": ["tcp/443", "icmp"]}, {"to": "2001:db8::53/128"}],
                    }
                ],
            },
        ],
        "qnet_exports": [
            {
                "service": "fop/image",
                "to": "entry",
                "ports": ["tcp/80", "udp/53", "icmp"],
                "direct": True,
                "expires": "2027-01-01T00:00:00Z",
            }
        ],
    }


def problems(wrong: Inventory, fleet: Fleet = FLEET) -> list[Problem]:
    """All that is found, as the action does it."""
    return [*shape_problems(SCHEMA, wrong), *rule_problems(wrong, fleet)]


def paths(wrong: Inventory, fleet: Fleet = FLEET) -> list[str]:
    """The paths of all that is found."""
    return [render_path(problem.path) for problem in problems(wrong, fleet)]


def service(of: Inventory) -> dict[str, Any]:
    """The service fop/image."""
    found: dict[str, Any] = of["qnet_tenants"][0]["security_groups"][0]["services"][0]
    return found


def apart(of: Inventory) -> list[dict[str, Any]]:
    """Take the Service IP that lies in another network out of it; returns the networks."""
    del of["qnet_tenants"][0]["security_groups"][0]["services"][1]["service_ips"][1]
    found: list[dict[str, Any]] = of["qnet_networks"]
    return found


Change = Callable[[Inventory], object]

# name of the fault: how to make it, where it must be found, a word of the rule, a word of the hint
FAULTS: dict[str, tuple[Change, str, str, str]] = {
    "unknown key": (
        lambda i: service(i).update(replica=3),
        f"{SERVICE}.replica",
        "known key",
        "Did you mean replicas?",
    ),
    "unknown variable": (
        lambda i: i.update(qnet_tenant=[]),
        "qnet_tenant",
        "known variable",
        "Did you mean qnet_tenants?",
    ),
    "missing key": (lambda i: service(i).pop("network"), f"{SERVICE}.network", "missing", "Add it"),
    "misspelt required key": (
        lambda i: i["qnet_networks"][0].update(vin=i["qnet_networks"][0].pop("vni")),
        "qnet_networks[0].vni",
        "missing",
        "Rename vin to vni",
    ),
    "wrong type": (lambda i: service(i).update(replicas="3"), f"{SERVICE}.replicas", "whole number", "quotes"),
    "number for a text": (
        lambda i: service(i)["workload"]["environment"].update(PORT=80),
        f"{SERVICE}.workload.environment.PORT",
        "must be a text",
        "quotes",
    ),
    "vni too large": (
        lambda i: i["qnet_networks"][0].update(vni=16777216),
        "qnet_networks[0].vni",
        "out of range 1 to 16777215",
        "1 to 16777215",
    ),
    "vni zero": (lambda i: i["qnet_networks"][0].update(vni=0), "qnet_networks[0].vni", "out of range", "Use a number"),
    "vni twice": (lambda i: i["qnet_networks"][1].update(vni=100), "qnet_networks[1].vni", "twice", "Rename"),
    "network twice": (
        lambda i: i.pop("qnet_guests") and apart(i)[1].update(name="prod"),
        "qnet_networks[1].name",
        "twice",
        "Rename",
    ),
    "subnets overlap": (
        lambda i: i["qnet_networks"][0].update(pod_subnets=["10.10.0.0/24", "10.10.0.128/25"]),
        "qnet_networks[0].pod_subnets[1]",
        "overlaps 10.10.0.0/24 (qnet_networks[0].pod_subnets[0])",
        "share no address",
    ),
    "pod and service subnet overlap": (
        lambda i: i["qnet_networks"][1].update(service_subnets=["10.10.0.0/16"]),
        "qnet_networks[1].service_subnets[0]",
        "overlaps 10.10.0.0/24",
        "share no address",
    ),
    "subnet without prefix": (
        lambda i: i["qnet_networks"][1].update(pod_subnets=["10.1.0.0"]),
        "qnet_networks[1].pod_subnets[0]",
        "no subnet",
        "10.10.0.0/16",
    ),
    "subnet with host bits": (
        lambda i: i["qnet_networks"][1].update(pod_subnets=["10.1.0.9/24"]),
        "qnet_networks[1].pod_subnets[0]",
        "host bits",
        "10.1.0.0/24",
    ),
    "multicast subnet": (
        lambda i: i["qnet_networks"][1].update(pod_subnets=["224.1.0.0/24"]),
        "qnet_networks[1].pod_subnets[0]",
        "cannot be given",
        "private range",
    ),
    "IPv6 subnet with host bits": (
        lambda i: i["qnet_networks"][1].update(pod_subnets=["fd00::1/64"]),
        "qnet_networks[1].pod_subnets[0]",
        "host bits",
        "fd00::/64",
    ),
    "link-local subnet": (
        lambda i: i["qnet_networks"][1].update(pod_subnets=["fe80::/64"]),
        "qnet_networks[1].pod_subnets[0]",
        "cannot be given",
        "private range",
    ),
    "small IPv6 subnet": (
        lambda i: i["qnet_networks"][1].update(pod_subnets=["fd00::/127"]),
        "qnet_networks[1].pod_subnets[0]",
        "no room for a gateway",
        "126",
    ),
    "no pod subnet": (
        lambda i: i["qnet_networks"][1].update(pod_subnets=[]),
        "qnet_networks[1].pod_subnets",
        "empty",
        "at least one",
    ),
    "subnet too small": (
        lambda i: i["qnet_networks"][1].update(pod_subnets=["10.1.0.0/31"]),
        "qnet_networks[1].pod_subnets[0]",
        "no room",
        "30 or less",
    ),
    "mtu above the underlay": (
        lambda i: i["qnet_networks"][0].update(mtu=1500),
        "qnet_networks[0].mtu",
        "more than the 1450 bytes",
        "1450 or less",
    ),
    "name that is no label": (
        lambda i: i["qnet_tenants"][1].update(name="Big_Co"),
        "qnet_tenants[1].name",
        "DNS label",
        "big-co",
    ),
    "tenant twice": (lambda i: i["qnet_tenants"][1].update(name="fop"), "qnet_tenants[1].name", "twice", "Rename"),
    "group twice": (
        lambda i: i["qnet_tenants"][1]["security_groups"].append({"name": "entry"}),
        "qnet_tenants[1].security_groups[1].name",
        "already at qnet_tenants[1].security_groups[0].name",
        "Rename",
    ),
    "service twice": (
        lambda i: i["qnet_tenants"][0]["security_groups"][0]["services"].append({"name": "video", "network": "lab"}),
        "qnet_tenants[0].security_groups[0].services[2].name",
        "twice",
        "Rename",
    ),
    "Service IP name twice": (
        lambda i: service(i)["service_ips"][1].pop("name"),
        f"{SERVICE}.service_ips[1].name",
        "twice",
        "Rename",
    ),
    "Service IP address twice": (
        lambda i: service(i)["service_ips"][1].update(address="10.96.0.10"),
        f"{SERVICE}.service_ips[1].address",
        "twice",
        "Rename",
    ),
    "Service IP outside": (
        lambda i: service(i)["service_ips"][0].update(address="10.97.0.10"),
        f"{SERVICE}.service_ips[0].address",
        "outside of the service_subnets",
        "10.96.0.0/24",
    ),
    "Service IP is broadcast": (
        lambda i: service(i)["service_ips"][0].update(address="10.96.0.255"),
        f"{SERVICE}.service_ips[0].address",
        "first or last",
        "between",
    ),
    "Service IP with prefix": (
        lambda i: service(i)["service_ips"][0].update(address="10.96.0.10/24"),
        f"{SERVICE}.service_ips[0].address",
        "no address",
        "10.96.0.10",
    ),
    "Service IP without subnets": (
        lambda i: (
            apart(i)[1].update(service_subnets=[]),
            i["qnet_tenants"][0]["security_groups"][0]["services"][1].update(network="lab"),
        ),
        "qnet_tenants[0].security_groups[0].services[1].service_ips[0]",
        "no service_subnets",
        "Add service_subnets",
    ),
    "affinity": (
        lambda i: service(i)["service_ips"][0].update(affinity="clients"),
        f"{SERVICE}.service_ips[0].affinity",
        "one of none, client",
        "Did you mean client?",
    ),
    "affinity of nobody with an end": (
        lambda i: service(i)["service_ips"][1].update(affinity_seconds=60),
        f"{SERVICE}.service_ips[1].affinity_seconds",
        "is for affinity client alone",
        "Add affinity: client",
    ),
    "affinity without end": (
        lambda i: service(i)["service_ips"][0].update(affinity_seconds=0),
        f"{SERVICE}.service_ips[0].affinity_seconds",
        "1",
        "",
    ),
    "broadcast as a word": (
        lambda i: i["qnet_tenants"][0]["security_groups"][0].update(broadcast="all"),
        "qnet_tenants[0].security_groups[0].broadcast",
        "true or false",
        "",
    ),
    "health check without port": (
        lambda i: service(i).update(health_check={"type": "tcp"}),
        f"{SERVICE}.health_check.port",
        "is missing",
        "needs it",
    ),
    "health check of no kind": (
        lambda i: service(i).update(health_check={"type": "https", "port": 443}),
        f"{SERVICE}.health_check.type",
        "one of tcp, http, icmp",
        "Did you mean http?",
    ),
    "pod address outside": (
        lambda i: service(i)["addresses"].update({"image-1": ["10.11.0.7"]}),
        f"{SERVICE}.addresses.image-1[0]",
        "outside of the pod_subnets",
        "10.10.0.0/24",
    ),
    "pod address is the gateway": (
        lambda i: service(i)["addresses"].update({"image-1": ["10.10.0.1"]}),
        f"{SERVICE}.addresses.image-1[0]",
        "gateway",
        "10.10.0.2",
    ),
    "pod address twice": (
        lambda i: service(i)["addresses"].update({"image-2": ["10.10.0.7"]}),
        f"{SERVICE}.addresses.image-2[0]",
        "twice",
        "Rename",
    ),
    "address of a missing pod": (
        lambda i: service(i)["addresses"].update({"image-4": ["10.10.0.8"]}),
        f"{SERVICE}.addresses.image-4",
        "no pod of fop/image, which has 3",
        "image-",
    ),
    "missing pod draining": (
        lambda i: service(i).update(draining=["img-3"]),
        f"{SERVICE}.draining[0]",
        "no pod",
        "Did you mean image-3?",
    ),
    "missing pod pinned": (
        lambda i: service(i).update(placement={"image-9": "h1"}),
        f"{SERVICE}.placement.image-9",
        "no pod",
        "image-",
    ),
    "missing pod weighted": (
        lambda i: service(i).update(weights={"image-9": 1}),
        f"{SERVICE}.weights.image-9",
        "no pod",
        "image-",
    ),
    "service on a missing network": (
        lambda i: service(i).update(network="prd"),
        f"{SERVICE}.network",
        "no network",
        "Did you mean prod?",
    ),
    "pin to a missing host": (
        lambda i: service(i).update(placement={"image-1": "h9"}),
        f"{SERVICE}.placement.image-1",
        "no host of group switches",
        "h1",
    ),
    "missing host": (lambda i: service(i).update(hosts=["h1", "hh2"]), f"{SERVICE}.hosts[1]", "no host", "h2"),
    "host twice": (lambda i: service(i).update(hosts=["h1", "h1"]), f"{SERVICE}.hosts", "twice", "Remove"),
    "too many replicas": (
        lambda i: service(i).update(replicas=254),
        "qnet_networks[0].pod_subnets",
        "253 addresses for 255 pods",
        "larger",
    ),
    "pod name too long": (
        lambda i: (
            service(i).update(name="i" * 62, placement={}, weights={}, addresses={}, draining=[])
            or i.update(qnet_exports=[])
        ),
        f"{SERVICE}.name",
        "longer than 63",
        "Shorten",
    ),
    "relative command": (
        lambda i: service(i)["workload"].update(command="python3 x"),
        f"{SERVICE}.workload.command",
        "absolute path",
        "/usr/bin/python3",
    ),
    "reserved variable": (
        lambda i: service(i)["workload"]["environment"].update(QNET_POD="x"),
        f"{SERVICE}.workload.environment.QNET_POD",
        "set by qnet",
        "another name",
    ),
    "missing file": (
        lambda i: service(i)["workload"].update(files=["workloads/x.py"]),
        f"{SERVICE}.workload.files[0]",
        "no file",
        "relative",
    ),
    "export of a missing service": (
        lambda i: i["qnet_exports"][0].update(service="fop/imag"),
        "qnet_exports[0].service",
        "no service",
        "Did you mean fop/image?",
    ),
    "export to a missing group": (
        lambda i: i["qnet_exports"][0].update(to="entri"),
        "qnet_exports[0].to",
        "no security group",
        "Did you mean entry?",
    ),
    "export to the own group": (
        lambda i: i["qnet_exports"][0].update(to="fop"),
        "qnet_exports[0].to",
        "own group",
        "Remove",
    ),
    "export twice": (
        lambda i: i["qnet_exports"].append(copy.deepcopy(i["qnet_exports"][0])),
        "qnet_exports[1]",
        "already at qnet_exports[0]",
        "Rename",
    ),
    "export of nothing reachable": (
        lambda i: i["qnet_exports"][0].update(direct=False) or service(i).pop("service_ips"),
        "qnet_exports[0].service",
        "lets nothing pass",
        "direct: true",
    ),
    "export of no service": (
        lambda i: i["qnet_exports"][0].update(service="image"),
        "qnet_exports[0].service",
        "group/service",
        "alice/resize",
    ),
    "port syntax": (
        lambda i: i["qnet_exports"][0].update(ports=["tcp/80", "tcp:81"]),
        "qnet_exports[0].ports[1]",
        "no protocol and port",
        "tcp/80",
    ),
    "port too large": (
        lambda i: i["qnet_exports"][0].update(ports=["udp/65536"]),
        "qnet_exports[0].ports[0]",
        "no protocol and port",
        "65535",
    ),
    "expiry syntax": (
        lambda i: i["qnet_exports"][0].update(expires="2027-01-01"),
        "qnet_exports[0].expires",
        "RFC 3339",
        "2027-01-01T00:00:00Z",
    ),
    "expiry without quotes": (
        lambda i: i["qnet_exports"][0].update(expires=datetime(2027, 1, 1, tzinfo=UTC)),
        "qnet_exports[0].expires",
        "must be a text",
        "quotes",
    ),
    "datapath id": (
        lambda i: i.update(qnet_datapath_id="0x1"),
        "qnet_datapath_id",
        "no datapath id",
        "Correct it",
    ),
    "expiry in the past": (
        lambda i: i["qnet_exports"][0].update(expires="2026-01-01T00:00:00Z"),
        "qnet_exports[0].expires",
        "in the past (it is 2026-06-01T00:00:00Z)",
        "later",
    ),
}
