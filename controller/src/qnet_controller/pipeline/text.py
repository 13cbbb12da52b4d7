# SPDX-License-Identifier: Apache-2.0
"""Flows, groups and meters as text: in the syntax of ovs-ofctl(8), and by the names of their parts."""

from __future__ import annotations

import ipaddress

from ..decide.decide import Kind, Origin
from . import fields as f
from .messages import (
    PORT_CONTROLLER,
    PORT_IN_PORT,
    Action,
    Actions,
    Ct,
    Flow,
    Goto,
    Group,
    Match,
    Meter,
    Move,
    Nat,
    Output,
    OutputTo,
    Resubmit,
    Set,
    ToController,
    UseGroup,
    UseMeter,
)
from .tables import Table

_OFCTL_NAME = {"ipv4_src": "ip_src", "ipv4_dst": "ip_dst", "ip_proto": "nw_proto", "ct_ipv4_dst": "ct_nw_dst",
                "ct_proto": "ct_nw_proto"}  # fmt: skip
_MAC_FIELDS = frozenset({"eth_src", "eth_dst", "arp_sha", "arp_tha", "nd_sll", "nd_tll"})
_ADDRESS_FIELDS = frozenset({"ipv4_src", "ipv4_dst", "arp_spa", "arp_tpa", "tun_src", "tun_dst", "ct_ipv4_dst"})
_WIDE_ADDRESS_FIELDS = frozenset({"ipv6_src", "ipv6_dst", "nd_target", "tun_ipv6_src", "tun_ipv6_dst", "ct_ipv6_dst"})
_DECIMAL_FIELDS = frozenset({"in_port", "tun_id", "ip_proto", "tcp_dst", "udp_dst", "sctp_dst", "arp_op", "ct_zone",
                             "ct_proto", "ct_tp_dst", "icmpv6_type", "icmpv6_code", "nd_options_type"})  # fmt: skip
_ETH_TYPE = {f.ETH_TYPE_IPV4: "ip", f.ETH_TYPE_ARP: "arp", f.ETH_TYPE_IPV6: "ipv6"}
_PROTOCOL = {
    f.ETH_TYPE_IPV4: {1: "icmp", 6: "tcp", 17: "udp", 132: "sctp"},
    f.ETH_TYPE_IPV6: {58: "icmp6", 6: "tcp6", 17: "udp6", 132: "sctp6"},
}
_CT_FLAGS = ((f.CT_TRACKED, "trk"), (f.CT_NEW, "new"), (f.CT_ESTABLISHED, "est"), (f.CT_RELATED, "rel"),
             (f.CT_REPLY, "rpl"), (f.CT_INVALID, "inv"), (0x40, "snat"), (0x80, "dnat"))  # fmt: skip
_FRAGMENTS = {0: "no", 1: "first", f.LATER_FRAGMENT: "later"}
_PARTS = (f.VNI, f.SOURCE_GROUP, f.KIND, f.ORIGIN, f.HAIRPIN, f.SOURCE_ZONE, f.TARGET_ZONE, f.GRANT)


def flow_text(item: Flow, *, cookie: bool = True) -> str:
    """The flow as an argument of `ovs-ofctl add-flow`."""
    terms = [f"cookie={item.cookie:#x}"] if cookie else []
    terms += [f"table={int(item.table)}", f"priority={item.priority}"]
    if item.idle_timeout:
        terms.append(f"idle_timeout={item.idle_timeout}")
    if item.hard_timeout:
        terms.append(f"hard_timeout={item.hard_timeout}")
    if item.notify:
        terms.append("send_flow_rem")
    return ",".join([*terms, *match_terms(item.match), f"actions={actions_text(item.actions)}"])


def match_terms(matching: Match) -> list[str]:
    """The terms of a match, prerequisites first."""
    values = {name: (value, mask) for name, value, mask in matching}
    terms = []
    eth_type = values.pop("eth_type", None)
    protocol = values.get("ip_proto")
    known = _PROTOCOL.get(eth_type[0], {}) if eth_type else {}
    if protocol and protocol[0] in known:
        terms.append(known[values.pop("ip_proto")[0]])
    elif eth_type:
        terms.append(_ETH_TYPE.get(eth_type[0], f"eth_type={eth_type[0]:#06x}"))
    return terms + [_term(name, value, mask) for name, (value, mask) in values.items()]


def _term(name: str, value: int, mask: int) -> str:
    if name == "ct_state":
        flags = "".join(("+" if value & bit else "-") + flag for bit, flag in _CT_FLAGS if mask & bit)
        return f"ct_state={flags}"
    text = f"{_OFCTL_NAME.get(name, name)}={value_text(name, value)}"
    return text if mask == f.BY_NAME[name].full else f"{text}/{value_text(name, mask)}"


def value_text(name: str, value: int) -> str:
    """A value of a field as people write it."""
    if name == "ip_frag":
        return _FRAGMENTS[value]
    if name in _MAC_FIELDS:
        return value.to_bytes(6, "big").hex(":")
    if name in _ADDRESS_FIELDS:
        return ".".join(str(byte) for byte in value.to_bytes(4, "big"))
    if name in _WIDE_ADDRESS_FIELDS:
        return str(ipaddress.IPv6Address(value))
    return str(value) if name in _DECIMAL_FIELDS else f"{value:#x}"


def actions_text(actions: Actions) -> str:
    """A list of actions; an empty one drops."""
    return ",".join(_action(action) for action in actions) or "drop"


def _action(action: Action) -> str:
    match action:
        case Set(target, value):
            return f"set_field:{_masked(target, value)}->{_OFCTL_NAME.get(target.field.name, target.field.name)}"
        case Move(source, target):
            return f"move:{_subfield(source)}->{_subfield(target)}"
        case Output(port):
            return {PORT_IN_PORT: "in_port", PORT_CONTROLLER: "controller"}.get(port, f"output:{port}")
        case OutputTo(port):
            return f"output:{_subfield(port)}"
        case ToController():
            return "controller"
        case UseGroup(number):
            return f"group:{number}"
        case UseMeter(number):
            return f"meter:{number}"
        case Goto(table):
            return f"goto_table:{int(table)}"
        case Resubmit(table):
            return f"resubmit(,{int(table)})"
        case Ct():
            return _ct(action)


def _masked(target: f.Bits, value: int) -> str:
    name = target.field.name
    text = value_text(name, value << target.offset)
    return text if target.width == target.field.bits else f"{text}/{value_text(name, target.mask)}"


def _subfield(part: f.Bits) -> str:
    name = _OFCTL_NAME.get(part.field.name, part.field.name)
    if part.width == part.field.bits:
        return f"{name}[]"
    return f"{name}[{part.offset}..{part.offset + part.width - 1}]"


def _ct(action: Ct) -> str:
    terms = ["commit"] if action.commit else []
    if action.table is not None:
        terms.append(f"table={int(action.table)}")
    terms.append(f"zone={_subfield(action.zone) if isinstance(action.zone, f.Bits) else action.zone}")
    if action.nat is not None:
        terms.append(_nat(action.nat))
    if action.mark is not None:
        terms.append(f"exec(move:{_subfield(action.mark)}->ct_mark[])")
    return f"ct({','.join(terms)})"


def _nat(nat: Nat) -> str:
    if nat.kind == "lookup":
        return "nat"
    address = str(ipaddress.ip_address(nat.address))
    written = f"[{address}]" if ":" in address else address
    return f"nat({'src' if nat.kind == 'source' else 'dst'}={written})"


def group_text(group: Group) -> str:
    """The group as an argument of `ovs-ofctl add-group`."""
    buckets = [
        f"bucket=bucket_id={bucket.id},weight:{bucket.weight},actions={actions_text(bucket.actions)}"
        for bucket in group.buckets
    ]
    names = ",".join(_OFCTL_NAME.get(field.name, field.name) for field in group.hashed)
    fields = [f"fields({names})"] if names else []
    method = f"selection_method={'hash' if group.hashed else 'dp_hash'}"
    return ",".join([f"group_id={group.id}", "type=select", method, *fields, *buckets])


def meter_text(meter: Meter) -> str:
    """The meter as an argument of `ovs-ofctl add-meter`."""
    return f"meter={meter.id},pktps,burst,stats,bands=type=drop,rate={meter.rate},burst_size={meter.burst}"


def names_text(item: Flow) -> str:
    """What the registers of a flow mean: the parts it matches, and after an arrow those it sets; empty without any."""
    matched = [
        _named(part, (value & part.mask) >> part.offset)
        for name, value, mask in item.match
        for part in _parts(name, mask)
    ]
    done = [_named(action.target, action.value) for action in item.actions if isinstance(action, Set)
            and action.target in _PARTS]  # fmt: skip
    done += [f"to {action.table.title}" for action in item.actions if isinstance(action, Goto | Resubmit)]
    done += [
        f"to {action.table.title}" for action in item.actions if isinstance(action, Ct) and action.table is not None
    ]
    return " → ".join(filter(None, (", ".join(matched), ", ".join(done))))


def _parts(name: str, mask: int) -> list[f.Bits]:
    exact = [part for part in _PARTS if part.field.name == name and part.mask & mask == part.mask]
    if not exact and (name, mask) == (f.KIND_OPENS.field.name, f.KIND_OPENS.mask):
        return [f.KIND_OPENS]
    return exact


def _named(part: f.Bits, value: int) -> str:
    if part == f.KIND:
        return f"kind={Kind(value).name.lower()}"
    if part == f.KIND_OPENS:
        return "kind=open or allow"
    if part == f.ORIGIN:
        return f"origin={Origin(value).name.lower()}"
    return f"{part.name}={value:#x}" if part == f.GRANT else f"{part.name}={value}"


def table_title(table: Table) -> str:
    """A table's number and name."""
    return f"{int(table)} {table.title}"
