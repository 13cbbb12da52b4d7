# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""What a pod needs on its host, and the steps from what is there to that. Pure: no input, no output.

A pod is attached when its namespace has an ``eth0`` whose other end is the pod's port in the host's own namespace.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

INTERFACE = "eth0"
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
ADDRESS_GENERATION_NONE = "1"  # net.ipv6.conf.*.addr_gen_mode: no link-local address

Tree = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Attachment:
    """What one pod needs on its host.

    ``addresses`` carry their prefix length, such as ``10.10.0.7/16``. ``owned`` says whether the namespace is ours to
    make and to remove. ``transmit_checksum`` is False on the userspace datapath, which delivers packets without it.
    ``neighbours`` are gateways whose MAC address the pod is told, ``virtual_mac``: the kernel's datapath cannot answer
    neighbour solicitations. The IPv6 addresses of such a pod stand alone (/128), so that it asks for nobody else.
    """

    pod: str
    port_name: str
    namespace: str
    owned: bool
    mac: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    mtu: int
    transmit_checksum: bool
    neighbours: tuple[str, ...] = ()
    virtual_mac: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is there for one pod: items of ``ip -j``, and settings that ``ip`` does not show.

    ``routes`` are pairs of IP version and item. ``neighbours`` are those that do not expire: address to MAC.
    """

    namespace: bool = False
    host_link: Tree | None = None
    host_settings: dict[str, str | None] = dataclasses.field(default_factory=dict)
    link: Tree | None = None
    settings: dict[str, str | None] = dataclasses.field(default_factory=dict)
    routes: tuple[tuple[int, Tree], ...] = ()
    neighbours: dict[str, str] = dataclasses.field(default_factory=dict)
    transmit_checksum: bool | None = None

    @property
    def linked(self) -> bool:
        """Whether the port on the host and the interface in the namespace are the two ends of one pair."""
        host, link = self.host_link, self.link
        return bool(
            host
            and link
            and host.get("link_index") == link["ifindex"]
            and link.get("link_index") == host["ifindex"]
            and "link_netnsid" in link
        )


@dataclasses.dataclass(frozen=True)
class Steps:
    """What is to be done for one pod, in the order of the fields. ``rebuild`` says that the pair is made anew."""

    make_namespace: bool = False
    rebuild: bool = False
    inside_first: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    host_settings: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    inside: tuple[str, ...] = ()
    transmit_checksum: bool | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return self == Steps()


def host_settings(port_name: str) -> dict[str, str]:
    """Settings that keep the host's own network stack away from the port of a pod.

    On the userspace datapath the host's stack sees every packet of the port as well; without these it would answer ARP
    for the host's addresses there and accept packets from the pod past all policy.
    """
    return {
        f"net/ipv4/conf/{port_name}/forwarding": "0",
        f"net/ipv4/conf/{port_name}/rp_filter": "1",
        f"net/ipv4/conf/{port_name}/drop_unicast_in_l2_multicast": "1",
        f"net/ipv6/conf/{port_name}/disable_ipv6": "1",
    }


def pod_settings() -> dict[str, str]:
    """Settings of a pod: no addresses but its own, no routes from strangers.

    TCP finds a smaller size by itself when its segments vanish. The datapath in user space does not tell a sender that
    the path between two hosts has become too small, as that of the kernel does.
    """
    return {
        "net/ipv4/tcp_mtu_probing": "1",
        f"net/ipv4/conf/{INTERFACE}/promote_secondaries": "1",
        f"net/ipv6/conf/{INTERFACE}/disable_ipv6": "0",
        f"net/ipv6/conf/{INTERFACE}/addr_gen_mode": ADDRESS_GENERATION_NONE,
        f"net/ipv6/conf/{INTERFACE}/accept_ra": "0",
    }


def refusals(want: Attachment, facts: Facts) -> list[str]:
    """Why the pod cannot be attached, one line each."""
    faults = []
    if not facts.namespace and not want.owned:
        faults.append(
            f"pod {want.pod}: {want.namespace}: no network namespace there: start the container first, "
            "or leave out namespace_path and pid to have one made"
        )
    if facts.link and not facts.linked and not want.owned:
        faults.append(
            f"pod {want.pod}: {want.namespace} has an interface {INTERFACE} that is not this pod's: "
            "start the container without a network of its own"
        )
    if facts.host_link and _kind(facts.host_link) != "veth":
        faults.append(
            f"pod {want.pod}: {want.port_name} is an interface of another kind on this host: "
            "the name belongs to the pod, rename that interface"
        )
    if want.mtu < 1280 and any(":" in address for address in want.addresses):
        faults.append(f"pod {want.pod}: mtu: {want.mtu} is less than 1280, the least that IPv6 works with")
    return faults


def wanted(want: Attachment) -> Tree:
    """The state of an attached pod, for comparison and diffs."""
    return {
        "namespace": want.namespace,
        "port": want.port_name,
        "linked": True,
        "host_interface": {"mtu": want.mtu, "up": True, "guarded": True},
        "interface": {
            "mac": want.mac,
            "mtu": want.mtu,
            "up": True,
            "settings": "static",
            "addresses": sorted(want.addresses),
            "routes": sorted(_wanted_routes(want)),
            "neighbours": dict.fromkeys(want.neighbours, want.virtual_mac),
            "transmit_checksum": want.transmit_checksum,
        },
    }


def present(want: Attachment, facts: Facts) -> Tree:
    """The state as it is, in the form of :func:`wanted`."""
    host, link = facts.host_link, facts.link
    return {
        "namespace": want.namespace if facts.namespace else None,
        "port": want.port_name if host else None,
        "linked": facts.linked,
        "host_interface": host and {"mtu": host["mtu"], "up": _is_up(host), "guarded": _is_guarded(want, facts)},
        "interface": link
        and {
            "mac": link["address"],
            "mtu": link["mtu"],
            "up": _is_up(link),
            "settings": "other" if _differing(pod_settings(), facts.settings) else "static",
            "addresses": sorted(_addresses(link)),
            "routes": sorted(_present_routes(want, facts)),
            "neighbours": {key: mac for key, mac in facts.neighbours.items() if key in want.neighbours},
            "transmit_checksum": facts.transmit_checksum,
        },
    }


def plan(want: Attachment, facts: Facts) -> Steps:
    """The steps that attach a pod, apart from its port on the bridge; empty when it is as it should be."""
    if not facts.linked:
        return _plan_anew(want, facts)
    host, link = facts.host_link or {}, facts.link or {}
    host_lines = []
    if host["mtu"] != want.mtu:
        host_lines.append(f"link set dev {want.port_name} mtu {want.mtu}")
    if "NOARP" not in host["flags"]:
        host_lines.append(f"link set dev {want.port_name} arp off")
    if not _is_up(host):
        host_lines.append(f"link set dev {want.port_name} up")
    lines = []
    if link["address"] != want.mac:
        lines.append(f"link set dev {INTERFACE} address {want.mac}")
    if link["mtu"] != want.mtu:
        lines.append(f"link set dev {INTERFACE} mtu {want.mtu}")
    if not _is_up(link):
        lines += ["link set dev lo up", f"link set dev {INTERFACE} up"]
    lines += _wrong_route_lines(want, facts)
    lines += _address_lines(set(want.addresses), set(_addresses(link)))
    lines += _neighbour_lines(want, facts.neighbours)
    lines += _route_lines(want, facts, anew=bool(lines))
    return Steps(
        host=tuple(host_lines),
        host_settings=_differing(host_settings(want.port_name), facts.host_settings),
        settings=_differing(pod_settings(), facts.settings),
        inside=tuple(lines),
        transmit_checksum=want.transmit_checksum if facts.transmit_checksum != want.transmit_checksum else None,
    )


def _plan_anew(want: Attachment, facts: Facts) -> Steps:
    host_lines = [f"link delete dev {want.port_name}"] if facts.host_link else []
    host_lines.append(
        f"link add name {want.port_name} mtu {want.mtu} type veth "
        f"peer name {INTERFACE} address {want.mac} mtu {want.mtu} netns {want.namespace}"
    )
    host_lines.append(f"link set dev {want.port_name} arp off")
    lines = ["link set dev lo up", f"link set dev {INTERFACE} up"]
    lines += _address_lines(set(want.addresses), set())
    lines += _neighbour_lines(want, {})
    lines += [_route_line(route) for route in _gateway_routes(want) + _default_routes(want)]
    return Steps(
        make_namespace=not facts.namespace,
        rebuild=True,
        inside_first=(f"link delete dev {INTERFACE}",) if facts.link else (),
        host=tuple(host_lines),
        host_settings=tuple(sorted(host_settings(want.port_name).items())),
        settings=tuple(sorted(pod_settings().items())),
        inside=tuple(lines),
        transmit_checksum=want.transmit_checksum,
    )


def _is_up(link: Tree) -> bool:
    return "UP" in link["flags"]


def _kind(link: Tree) -> str | None:
    return t.cast("str | None", link.get("linkinfo", {}).get("info_kind"))


def _is_guarded(want: Attachment, facts: Facts) -> bool:
    flags = (facts.host_link or {}).get("flags", [])
    return "NOARP" in flags and not _differing(host_settings(want.port_name), facts.host_settings)


def _differing(want: dict[str, str], have: dict[str, str | None]) -> tuple[tuple[str, str], ...]:
    """Settings to write. One that reads as None does not exist on this kernel (no IPv6, say) and needs no change."""
    return tuple(
        (path, value) for path, value in sorted(want.items()) if have.get(path) is not None and have[path] != value
    )


def _addresses(link: Tree) -> list[str]:
    return [
        f"{item['local']}/{item['prefixlen']}" for item in link.get("addr_info", []) if item.get("scope") == "global"
    ]


def _address_lines(want: set[str], have: set[str]) -> list[str]:
    # Without duplicate address detection: the database gives an address once, and the pod has it at once.
    return [f"address delete {address} dev {INTERFACE}" for address in sorted(have - want)] + [
        f"address add {address} dev {INTERFACE}{' nodad' if ':' in address else ''}" for address in sorted(want - have)
    ]


def _neighbour_lines(want: Attachment, have: dict[str, str]) -> list[str]:
    return [
        f"neighbour replace {address} lladdr {want.virtual_mac} nud permanent dev {INTERFACE}"
        for address in want.neighbours
        if have.get(address) != want.virtual_mac
    ]


def _gateway_routes(want: Attachment) -> list[str]:
    """The way to gateways that are in no subnet of the pod's addresses."""
    return list(want.neighbours)


def _default_routes(want: Attachment) -> list[str]:
    return [f"{DEFAULT[6 if ':' in gateway else 4]} via {gateway}" for gateway in want.gateways]


def _subnet_routes(want: Attachment) -> list[str]:
    networks = {ipaddress.ip_interface(address).network for address in want.addresses}
    return sorted(str(network) for network in networks if network.num_addresses > 1)


def _wanted_routes(want: Attachment) -> list[str]:
    return _gateway_routes(want) + _default_routes(want) + _subnet_routes(want)


def _present_routes(want: Attachment, facts: Facts) -> list[str]:
    """Default routes over the interface and those of the pod's subnets; other routes are the workload's business."""
    found = []
    for version, route in facts.routes:
        if route.get("dev") != INTERFACE:
            continue
        destination = DEFAULT[version] if route["dst"] == "default" else route["dst"]
        text = f"{destination} via {route['gateway']}" if "gateway" in route else destination
        if route["dst"] == "default" or text in _subnet_routes(want) or text in _gateway_routes(want):
            found.append(text)
    return sorted(set(found))


def _route_line(route: str) -> str:
    return f"route replace {route} dev {INTERFACE}"


def _wrong_route_lines(want: Attachment, facts: Facts) -> list[str]:
    wrong = set(_present_routes(want, facts)) - set(_wanted_routes(want))
    return [f"route delete {route} dev {INTERFACE}" for route in sorted(wrong)]


def _route_lines(want: Attachment, facts: Facts, anew: bool) -> list[str]:
    have = _present_routes(want, facts)
    known = {str(ipaddress.ip_interface(address).network) for address in _addresses(facts.link or {})}
    # The kernel makes the route of a subnet with the address; only one that was lost since then has to be put back.
    lost = [route for route in sorted(set(_subnet_routes(want)) - set(have)) if route in known]
    # A change of address or link can take routes with it, so then the default routes are set again.
    missing = [route for route in _gateway_routes(want) + _default_routes(want) if anew or route not in have]
    return [_route_line(route) for route in lost + missing]
