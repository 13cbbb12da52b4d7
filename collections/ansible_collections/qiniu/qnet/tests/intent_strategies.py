# SPDX-License-Identifier: GPL-3.0-or-later
"""Random intents for property tests: small, so that names, addresses and numbers collide often."""

from __future__ import annotations

import dataclasses
import typing as t

from hypothesis import strategies as st

GROUPS = ("a", "b", "c")
SERVICES = ("x", "y")
# Subnets of a network never shrink here, so that no address falls out of them.
NETWORKS = [
    {"name": "n1", "vni": 1, "pod_subnets": ["10.0.0.0/28"], "service_subnets": ["10.1.0.0/28"]},
    {
        "name": "n2",
        "vni": 2,
        "pod_subnets": ["10.0.0.0/29", "10.0.0.16/28", "fd00::/124"],
        "service_subnets": ["fd01::/124"],
    },
]


@dataclasses.dataclass(frozen=True)
class Wish:
    """Everything an inventory says: the arguments of qnet_tenant, and the pods."""

    networks: list[dict[str, t.Any]]
    tenants: list[dict[str, t.Any]]
    exports: list[dict[str, t.Any]]
    pods: list[dict[str, t.Any]]


def _some(values: t.Sequence[t.Any]) -> st.SearchStrategy[list[t.Any]]:
    return st.lists(st.sampled_from(values), unique=True)


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    """A wish that is valid, with room enough for the addresses that are not given."""
    places = draw(
        st.dictionaries(st.tuples(st.sampled_from(GROUPS), st.sampled_from(SERVICES)), st.sampled_from((0, 1)))
    )
    tenants = []
    for group in GROUPS:
        services = [
            {
                "name": service,
                "network": NETWORKS[place]["name"],
                "service_ips": [{"name": name} for name in draw(_some(("main", "second")))],
            }
            for (owner, service), place in places.items()
            if owner == group
        ]
        tenants.append({"name": f"t-{group}", "security_groups": [{"name": group, "services": services}]})
    exports = [
        {
            "service": f"{owner}/{service}",
            "to": to,
            "ports": draw(_some(("tcp/80", "udp/53", "icmp"))),
            "direct": direct,
        }
        for owner, service in places
        for to, direct in draw(st.dictionaries(st.sampled_from(GROUPS), st.booleans())).items()
        if to != owner
    ]
    pods = [
        {"group": owner, "service": service, "name": f"{service}-{number}", "weight": draw(st.integers(0, 3))}
        for owner, service in places
        for number in range(draw(st.integers(0, 2)))
    ]
    return Wish(NETWORKS, tenants, exports, pods)
