# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of calls between networks, in the form of inventory_faults.py."""

from __future__ import annotations

from ansible_collections.qiniu.qnet.tests.inventory_faults import Change, apart

GUEST_FAULTS: dict[str, tuple[Change, str, str, str]] = {
    "guest of a missing network": (
        lambda i: apart(i) and i["qnet_guests"][0].update(network="lap"),
        "qnet_guests[0].network",
        "no network",
        "Did you mean lab?",
    ),
    "guest of itself": (
        lambda i: apart(i) and i["qnet_guests"][0].update(home="lab"),
        "qnet_guests[0].home",
        "calling network itself",
        "Name another",
    ),
    "guest twice": (
        lambda i: i["qnet_guests"].append({"network": "lab", "home": "prod"}),
        "qnet_guests[1]",
        "there twice",
        "Remove one",
    ),
    "guest with the VNI of a network": (
        lambda i: i["qnet_guests"][0].update(vni=99),
        "qnet_guests[0].vni",
        "100 is a VNI of network prod",
        "Use another number",
    ),
    "guest with the VNI of another guest": (
        lambda i: i["qnet_guests"].append({"network": "prod", "home": "lab", "vni": 301}),
        "qnet_guests[1].vni",
        "301 is a VNI of qnet_guests[0]",
        "Use another number",
    ),
    "guest seen outside of home": (
        lambda i: i["qnet_guests"][0].update(addresses=["10.97.0.1"]),
        "qnet_guests[0].addresses[0]",
        "outside of the service_subnets of network prod",
        "Use an address of 10.96.0.0/24",
    ),
    "guest seen twice": (
        lambda i: i["qnet_guests"][0].update(addresses=["10.96.0.200", "10.96.0.201"]),
        "qnet_guests[0].addresses[1]",
        "second address of IPv4",
        "Keep one",
    ),
    "guest seen as one of its pods": (
        lambda i: i["qnet_networks"][1].update(pod_subnets=["10.96.0.128/25"], service_subnets=["10.1.0.0/24"]),
        "qnet_guests[0].addresses[0]",
        "could be that of a pod of network lab",
        "Use one outside",
    ),
    "guest of a network that cannot see it": (
        lambda i: (apart(i)[1].update(service_subnets=[]), i["qnet_guests"].append({"network": "prod", "home": "lab"})),
        "qnet_guests[1].home",
        "has no service_subnets",
        "Add service_subnets to qnet_networks[1]",
    ),
    "Service IP where its network is no guest": (
        lambda i: i.pop("qnet_guests"),
        "qnet_tenants[0].security_groups[0].services[1].service_ips[1].network",
        "is no guest of network prod",
        "{network: lab, home: prod}",
    ),
    "Service IP in a missing network": (
        lambda i: i["qnet_tenants"][0]["security_groups"][0]["services"][1]["service_ips"][1].update(network="lap"),
        "qnet_tenants[0].security_groups[0].services[1].service_ips[1].network",
        "no network",
        "Did you mean lab?",
    ),
    "Service IP elsewhere that a pod could have": (
        lambda i: (
            i["qnet_networks"][0].update(pod_subnets=["10.10.0.0/23"]),
            i["qnet_tenants"][0]["security_groups"][0]["services"][1]["service_ips"][1].update(address="10.10.1.9"),
        ),
        "qnet_tenants[0].security_groups[0].services[1].service_ips[1].address",
        "could be that of a pod of network prod",
        "Use one outside",
    ),
}
