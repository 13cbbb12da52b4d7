# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people write, brought to the one spelling that is stored and compared.

Every parser takes a value and returns its canonical form, or raises ValueError with a sentence that says what is
wrong with the value and what would be right.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_schema, _l7_shape, _model

try:
    import netaddr

    NETADDR_ERROR: Exception | None = None
except ImportError as error:  # reported by the module that needs it, with the package to install
    NETADDR_ERROR = error

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_MAC = re.compile(r"([0-9a-f]{2}([:-]?)(?:[0-9a-f]{2}\2){4}[0-9a-f]{2}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2})\Z")
_PORT = re.compile(r"(tcp|udp)/([0-9]{1,5})\Z")
_CONTAINER = re.compile(r"[!-~]{1,255}\Z")

Parser = t.Callable[[t.Any], t.Any]

NEVER_OUTSIDE = (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "198.19.0.0/16", "224.0.0.0/3",
    "::/96", "::ffff:0:0/96", "fd71:6e65:7400::/112", "fe80::/10", "fec0::/10", "ff00::/8", "fd00:ec2::254/128",
)  # fmt: skip
"""What no egress rule opens (the same list as in the controller's decide/outside.py)."""
WAYS_OUT = ("198.19.0.0/16", "fd71:6e65:7400::/112")
"""By these addresses the kernel of a host knows its pods when they go outside."""


def label(value: str) -> str:
    """A name of one part: a DNS label."""
    if not _LABEL.match(value):
        raise ValueError(f"'{value}' is not a name; a name has 1 to 63 of a-z, 0-9 and '-', not '-' first or last")
    return value


def service_key(value: str) -> str:
    """``group/service``."""
    parts = value.split("/")
    if len(parts) != 2 or not all(_LABEL.match(part) for part in parts):
        raise ValueError(f"'{value}' is not a service; a service is said as group/service, for example fop/image")
    return value


def integer(low: int, high: int, what: str) -> Parser:
    """A parser of whole numbers from low to high, both included."""

    def parse(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"{value} is out of range; {what} is {low} to {high}")
        return value

    return parse


def mtu(value: int) -> int | None:
    """576 to 65535, or 0 for: none of its own."""
    return integer(576, 65535, "an MTU (0 removes it)")(value) if value else None


def address(value: str) -> str:
    """One IPv4 or IPv6 address in its canonical form."""
    try:
        return str(netaddr.IPAddress(value, flags=netaddr.INET_PTON))
    except (netaddr.AddrFormatError, ValueError, TypeError):
        raise ValueError(f"'{value}' is not an IPv4 or IPv6 address without prefix length") from None


def unicast_address(value: str) -> str:
    """An address that one host can own."""
    canonical = address(value)
    parsed = netaddr.IPAddress(canonical)
    if parsed.is_multicast() or parsed.is_loopback() or int(parsed) == 0 or canonical == "255.255.255.255":
        raise ValueError(f"'{value}' is not an address that a host can own; write a unicast address")
    return canonical


@functools.lru_cache(maxsize=65536)
def number(canonical: str) -> tuple[int, int]:
    """(IP version, address as a number), for arithmetic and for sorting."""
    try:
        parsed = netaddr.IPAddress(canonical)
    except netaddr.AddrFormatError as error:
        raise ValueError(str(error)) from None
    return int(parsed.version), int(parsed)


def from_number(version: int, value: int) -> str:
    """The canonical text of an address given as a number."""
    return str(netaddr.IPAddress(value, 4 if version == 4 else 6))


class Span(t.NamedTuple):
    """A subnet as numbers. ``low``..``high`` are the addresses that may be given to somebody."""

    version: int
    prefix_length: int
    first: int
    last: int
    gateway: int
    low: int
    high: int

    def holds(self, version: int, value: int) -> bool:
        """Whether the address lies in the subnet at all."""
        return version == self.version and self.first <= value <= self.last


@functools.lru_cache(maxsize=4096)
def span(subnet_text: str, role: str) -> Span:
    """The numbers of a canonical subnet; role ``pod`` keeps the first usable address for the gateway."""
    try:
        parsed = netaddr.IPNetwork(subnet_text)
    except netaddr.AddrFormatError as error:
        raise ValueError(str(error)) from None
    version, length = int(parsed.version), int(parsed.prefixlen)
    first, last = int(parsed.first), int(parsed.last)
    bits = 32 if version == 4 else 128
    small = bits - length < 2
    low = first if small else first + 1
    high = last if small or version == 6 else last - 1
    gateway = low
    return Span(version, length, first, last, gateway, low + 1 if role == "pod" else low, high)


def subnet(value: str) -> str:
    """A subnet in CIDR notation with no host bits set, canonical."""
    parts = value.split("/")
    hint = "write it as address/prefix length, for example 10.10.0.0/16"
    if len(parts) != 2 or not parts[1].isdecimal():
        raise ValueError(f"'{value}' is not a subnet; {hint}")
    base = address(parts[0])
    try:
        parsed = netaddr.IPNetwork(f"{base}/{int(parts[1])}")
    except (netaddr.AddrFormatError, ValueError, TypeError):
        raise ValueError(f"'{value}' has no valid prefix length; {hint}") from None
    if int(parsed.ip) != int(parsed.first):
        raise ValueError(f"'{value}' has host bits set; did you mean {parsed.cidr}?")
    if parsed.prefixlen == 0 or parsed.network.is_multicast() or parsed.network.is_loopback():
        raise ValueError(f"'{value}' is not a range of unicast addresses; write a subnet of its own for this network")
    taken = [net for net in map(netaddr.IPNetwork, WAYS_OUT) if net.version == parsed.version]
    if any(net in parsed or parsed in net for net in taken):
        raise ValueError(f"'{value}' overlaps {taken[0]}, which qnet uses on every host; choose another subnet")
    return str(parsed)


def outside_block(value: str) -> str:
    """Addresses outside of the overlay, as a subnet or one address; canonical, always with a prefix length."""
    parts = value.split("/")
    hint = "write it as address/prefix length, for example 203.0.113.0/24, or 0.0.0.0/0 for every IPv4 address"
    base = address(parts[0])
    if len(parts) > 2 or (len(parts) == 2 and not parts[1].isdecimal()):
        raise ValueError(f"'{value}' is not a subnet; {hint}")
    try:
        parsed = netaddr.IPNetwork("/".join([base, *parts[1:]]))
    except (netaddr.AddrFormatError, ValueError, TypeError):
        raise ValueError(f"'{value}' has no valid prefix length; {hint}") from None
    if int(parsed.ip) != int(parsed.first):
        raise ValueError(f"'{value}' has host bits set; did you mean {parsed.cidr}?")
    if any(parsed in netaddr.IPNetwork(block) for block in NEVER_OUTSIDE):
        raise ValueError(f"'{value}' has no address of a host outside; a rule for it would open nothing, remove it")
    return str(parsed)


def egress(value: t.Sequence[t.Mapping[str, t.Any]]) -> tuple[str, ...]:
    """Egress rules as lines, each once. Raises ValueError with every fault."""
    lines, faults = set(), []
    for index, rule in enumerate(value):
        try:
            to = outside_block(rule["to"])
            ports = [port(text) for text in rule.get("ports") or ()]
        except ValueError as error:
            faults.append(f"[{index}]: {error}")
            continue
        lines |= {f"{to} {text}" for text in ports} or {to}
    if faults:
        raise ValueError("; ".join(faults))
    return egress_lines(lines)


def egress_lines(lines: t.Iterable[str]) -> tuple[str, ...]:
    """Lines in order; without those for ports of a block all of whose ports are open."""
    known = set(lines)
    kept = {line for line in known if line.partition(" ")[0] not in known - {line}}
    return tuple(sorted(kept, key=_in_order_of_egress))


def _in_order_of_egress(line: str) -> tuple[t.Any, ...]:
    to, dummy, port_text = line.partition(" ")
    return (in_order_of_value(to), in_order_of_port(port_text))


def pod_subnet(value: str) -> str:
    """A subnet with room for a gateway and at least one pod."""
    canonical = subnet(value)
    chosen = span(canonical, "pod")
    if chosen.high < chosen.low or chosen.prefix_length > (30 if chosen.version == 4 else 126):
        raise ValueError(f"'{value}' is too small for pods; use /30 or larger (IPv6: /126 or larger)")
    return canonical


def mac(value: str) -> str:
    """A unicast MAC address as six lower-case pairs with colons."""
    if not _MAC.match(value.lower()):
        raise ValueError(f"'{value}' is not a MAC address; write it like 02:1a:2b:3c:4d:5e")
    canonical = str(netaddr.EUI(value, dialect=netaddr.mac_unix_expanded))
    if int(canonical[:2], 16) & 1 or canonical == "00:00:00:00:00:00":
        raise ValueError(f"'{value}' is not a unicast MAC address; the first byte must be even and not all may be 0")
    if canonical == _model.VIRTUAL_MAC:
        raise ValueError(f"'{value}' is the virtual MAC that answers ARP for everybody; give the pod another one")
    return canonical


def datapath_id(value: str) -> str:
    """16 hexadecimal digits, not all zero."""
    digits = value.lower().replace(":", "").removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{16}", digits) or not int(digits, 16):
        raise ValueError(f"'{value}' is not a datapath id; it has 16 hexadecimal digits, not all 0")
    return digits


def port(value: str) -> str:
    """``tcp/80``, ``udp/53`` or ``icmp``."""
    lowered = value.strip().lower()
    if lowered == "icmp":
        return lowered
    match = _PORT.match(lowered)
    if not match or not 1 <= int(match[2]) <= 65535:
        raise ValueError(f"'{value}' is not a port; write tcp/PORT or udp/PORT with 1 to 65535, or icmp")
    return f"{match[1]}/{int(match[2])}"


def expires(value: str) -> int | None:
    """An ISO 8601 time with its offset → whole seconds since the epoch; empty: never."""
    if not value:
        return None
    hint = "write it like 2027-01-01T00:00:00Z, or '' for never"
    try:
        moment = datetime.datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"'{value}' is not an ISO 8601 time; {hint}") from None
    if moment.tzinfo is None:
        raise ValueError(f"'{value}' does not say its time zone; {hint}")
    return int(moment.timestamp())


def container(value: str) -> str:
    """A container's name or id: printable ASCII without blanks."""
    if not _CONTAINER.match(value):
        raise ValueError(f"'{value}' is not a container name; use 1 to 255 printable ASCII characters, no blanks")
    return value


def one_of(*choices: str) -> Parser:
    """A parser that lets only the choices pass."""

    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"'{value}' is not one of {', '.join(choices)}")
        return value

    return parse


def l7_settings(shape: _l7_shape.Shape, columns: t.Collection[str]) -> Parser:
    """A parser of the options of a listener or a route (besides ``columns``) into canonical JSON."""
    properties = {name: option for name, option in shape["properties"].items() if name not in columns}
    settings = {**shape, "properties": properties, "required": []}

    def parse(value: t.Mapping[str, t.Any]) -> str:
        given = {name: option for name, option in value.items() if option is not None}
        faults = [f"{_l7_shape.written(path)}: {fault}" for path, fault in _l7_shape.faults(settings, given)]
        if faults:
            raise ValueError("; ".join(faults))
        return json.dumps(given, sort_keys=True, separators=(",", ":"))

    return parse


def as_is(value: t.Any) -> t.Any:
    """The value itself (booleans, which Ansible has parsed already)."""
    return value


def in_order_of_value(text: str) -> tuple[int, int, int]:
    """Sort key of addresses and subnets: IPv4 first, then by number, then larger subnets first."""
    base, slash, dummy = text.partition("/")
    return (*number(base), span(text, "service").prefix_length if slash else 0)


def in_order_of_port(text: str) -> tuple[str, int]:
    """Sort key of ports: by protocol, then by number."""
    protocol, dummy, number_text = text.partition("/")
    return protocol, int(number_text or 0)


# Option of a health check: its parser and, unless the type needs it, what it is when left out.
_CHECK_NUMBERS: dict[str, tuple[float, float, float]] = {
    "interval_seconds": (0.1, 3600, 2),
    "timeout_seconds": (0.05, 3600, 1),
    "healthy_threshold": (1, 100, 2),
    "unhealthy_threshold": (1, 100, 3),
}


def drain_seconds(value: int) -> int | None:
    """0 to 2592000 (30 days), or a negative number for: no end."""
    return integer(0, 2592000, "a time to drain (-1 removes it)")(value) if value >= 0 else None


def affinity_seconds(value: int) -> int | None:
    """1 to 65535, or 0 for: no end while the set of pods stays the same."""
    return integer(1, 65535, "a time to keep a client's pod (0 removes it)")(value) if value else None


def health_check(value: t.Mapping[str, t.Any]) -> tuple[tuple[str, str], ...]:
    """The options of a health check, all of them, as text; an empty mapping is no check."""
    given = {name: option for name, option in value.items() if option is not None}
    if not given:
        return ()
    kind = given.get("type")
    if kind not in ("tcp", "http", "icmp"):
        raise ValueError(f"type: '{kind}' is not a kind of check; it is one of tcp, http, icmp")
    options = {"type": kind}
    if kind == "icmp":
        for name in ("port", "path"):
            if name in given:
                raise ValueError(f"{name}: a check by icmp has none; leave it out")
    else:
        if "port" not in given:
            raise ValueError(f"port: a check by {kind} needs one, 1 to 65535")
        options["port"] = str(integer(1, 65535, "a port")(given["port"]))
    if kind == "http":
        options["path"] = given.get("path", "/")
        if not re.fullmatch(r"/[!-~]{0,254}", options["path"]):
            raise ValueError(f"path: '{options['path']}' is not a path; it begins with '/' and has no blanks")
    elif "path" in given:
        raise ValueError("path: only a check by http has one; leave it out")
    for name, (low, high, default) in _CHECK_NUMBERS.items():
        number_given = given.get(name, min(default, options_timeout(options, name, default)))
        if not low <= number_given <= high:
            raise ValueError(f"{name}: {number_given} is out of range; it is {low:g} to {high:g}")
        options[name] = f"{number_given:g}"
    if float(options["timeout_seconds"]) > float(options["interval_seconds"]):
        raise ValueError(
            "timeout_seconds: it is longer than interval_seconds; an answer must be in before the next check"
        )
    return tuple(sorted(options.items()))


def options_timeout(options: t.Mapping[str, str], name: str, default: float) -> float:
    """Left out, the timeout is half the interval at most."""
    return float(options["interval_seconds"]) / 2 if name == "timeout_seconds" else default


# Fields whose value is a set: parser of one element, and the order in which sets are compared and shown.
SETS: dict[str, dict[str, tuple[Parser, t.Callable[[str], t.Any]]]] = {
    "network": {"pod_subnets": (pod_subnet, in_order_of_value), "service_subnets": (subnet, in_order_of_value)},
    "guest": {"addresses": (unicast_address, in_order_of_value)},
    "host": {"vteps": (unicast_address, in_order_of_value)},
    "pod": {"addresses": (address, in_order_of_value), "containers": (container, str)},
    "export": {"ports": (port, in_order_of_port)},
}

# Sets that must not be emptied: what to do instead.
NOT_EMPTY: dict[tuple[str, str], str] = {
    ("network", "pod_subnets"): "a network needs at least one pod subnet",
    ("guest", "addresses"): "a guest needs an address; leave the option out to have one allocated",
    ("host", "vteps"): "a host needs at least one VTEP address",
    ("pod", "addresses"): "a pod needs an address; leave the option out to have one allocated",
}

SCALARS: dict[str, dict[str, Parser]] = {
    "network": {"name": label, "vni": integer(1, _model.MAX_VNI, "a VNI"), "mtu": mtu},
    "guest": {
        "network": label,
        "home": label,
        "vni": integer(1, _model.MAX_VNI - 1, "a VNI that has another one after it"),
    },
    "host": {
        "name": label,
        "datapath_id": datapath_id,
        "datapath_kind": one_of("system", "netdev"),
        "controller_set": label,
        "draining": as_is,
    },
    "security_group": {
        "name": label,
        "tenant": label,
        "number": integer(1, _model.MAX_GROUP_NUMBER, "a group number"),
        "egress": egress,
        "broadcast": as_is,
    },
    "service": {
        "group": label,
        "name": label,
        "network": label,
        "health_check": health_check,
        "drain_seconds": drain_seconds,
        "l7": l7_settings(_l7_schema.SERVICE, ()),
    },
    "service_ip": {
        "group": label,
        "service": label,
        "name": label,
        "network": label,
        "address": address,
        "affinity": one_of("none", "client"),
        "affinity_seconds": affinity_seconds,
    },
    "pod": {
        "group": label,
        "service": label,
        "name": label,
        "mac": mac,
        "weight": integer(0, 65535, "a weight"),
        "state": one_of("active", "draining"),
    },
    "export": {"service": service_key, "to": label, "direct": as_is, "expires": expires},
    "l7_listener": {
        "name": label,
        "balancer": service_key,
        "protocol": one_of("http", "https", "tcp", "udp"),
        "port": integer(1, 65535, "a port"),
        "settings": l7_settings(_l7_schema.LISTENER, _l7_schema.LISTENER_COLUMNS),
    },
    "l7_route": {
        "listener": label,
        "name": label,
        "settings": l7_settings(_l7_schema.ROUTE, _l7_schema.ROUTE_COLUMNS),
    },
}


def canonical_set(kind: str, field: str, values: t.Iterable[str]) -> tuple[str, ...]:
    """Canonical elements once each, in the order of the field."""
    return tuple(sorted(set(values), key=SETS[kind][field][1]))


def item(kind: str, values: t.Mapping[str, t.Any], path: str, problems: list[str]) -> dict[str, t.Any]:
    """The fields of one object that were given (not None), canonical.

    What is wrong is added to ``problems`` with its path, and that field is left out.
    """
    given: dict[str, t.Any] = {}
    prefix = f"{path}." if path else ""
    for field, parse in SCALARS[kind].items():
        if values.get(field) is not None:
            try:
                given[field] = parse(values[field])
            except ValueError as error:
                problems.append(f"{prefix}{field}: {error}")
    for field, (parse, dummy) in SETS.get(kind, {}).items():
        if values.get(field) is not None:
            good = []
            for index, element in enumerate(values[field]):
                try:
                    good.append(parse(element))
                except ValueError as error:
                    problems.append(f"{prefix}{field}[{index}]: {error}")
            if not values[field] and (kind, field) in NOT_EMPTY:
                problems.append(f"{prefix}{field}: the list is empty; {NOT_EMPTY[kind, field]}")
            given[field] = canonical_set(kind, field, good)
    return given
