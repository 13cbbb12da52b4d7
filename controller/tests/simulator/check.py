# SPDX-License-Identifier: Apache-2.0
"""What Open vSwitch refuses in a flow or bucket. tests/policy/test_trace.py holds it against the real one."""

from __future__ import annotations

from collections.abc import Container

from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.fields import BY_NAME, CT_INVALID, CT_MARK, CT_TRACKED, Bits
from qnet_controller.pipeline.tables import Table

from .packets import ADVERTISEMENT, ETH_ARP, ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, SCTP, SOLICITATION, TCP, UDP

TRANSPORT = {"tcp_dst": TCP, "tcp_src": TCP, "udp_dst": UDP, "udp_src": UDP, "sctp_dst": SCTP,
             "sctp_src": SCTP}  # fmt: skip
ICMP_OF = {"icmpv4_type": (ETH_IPV4, ICMP), "icmpv4_code": (ETH_IPV4, ICMP),
           "icmpv6_type": (ETH_IPV6, ICMPV6), "icmpv6_code": (ETH_IPV6, ICMPV6)}  # fmt: skip
ND_TYPES = {"nd_target": (SOLICITATION, ADVERTISEMENT), "nd_sll": (SOLICITATION,), "nd_tll": (ADVERTISEMENT,),
            "nd_reserved": (SOLICITATION, ADVERTISEMENT), "nd_options_type": (SOLICITATION, ADVERTISEMENT)}  # fmt: skip
FAMILY_OF = {"ipv4_src": ETH_IPV4, "ipv4_dst": ETH_IPV4, "ipv6_src": ETH_IPV6, "ipv6_dst": ETH_IPV6}
NOT_IN_KERNEL = frozenset({"nd_reserved", "nd_options_type"})  # "datapath does not support IPv6 ND Extensions fields"
READ_ONLY = frozenset({"in_port", "eth_type", "ip_proto", "ip_frag", "ct_state", "ct_zone", "ct_ipv4_dst",
                       "ct_ipv6_dst", "ct_proto", "ct_tp_dst", "ct_mark"})  # fmt: skip
CT_NEW_EST_REL_RPL_NAT = 0x01 | 0x02 | 0x04 | 0x08 | 0x40 | 0x80
MAX_BUCKET_ID = 0xFFFFFF00
MAX_TIMEOUT = 0xFFFF


class Refused(Exception):
    """Open vSwitch would answer with an error."""


def check_flow(flow: m.Flow, groups: Container[int], meters: Container[int]) -> None:
    """Check one flow.

    Raises:
        Refused: names the rule and the flow.
    """
    try:
        matched = _check_match(flow.match)
        _check_actions(flow.actions, matched, flow.table)
        for action in flow.actions:
            if isinstance(action, m.UseGroup) and action.group not in groups:
                raise Refused(f"OFPBAC_BAD_OUT_GROUP: group {action.group}")
            if isinstance(action, m.UseMeter) and action.meter not in meters:
                raise Refused(f"OFPMMFC_INVALID_METER: meter {action.meter}")
        if not 0 <= flow.priority <= 0xFFFF or not 0 <= flow.cookie < 1 << 64:
            raise Refused("priority or cookie does not fit")
        if not (0 <= flow.idle_timeout <= MAX_TIMEOUT and 0 <= flow.hard_timeout <= MAX_TIMEOUT):
            raise Refused("a timeout does not fit 16 bits")
    except Refused as error:
        raise Refused(f"{error} in {flow}") from None


def check_kernel(flow: m.Flow) -> None:
    """Check what only the datapath of the kernel refuses.

    Raises:
        Refused: names the field and the flow.
    """
    written = {action.target.field.name for action in flow.actions if isinstance(action, m.Set | m.Move)}
    for name in sorted(NOT_IN_KERNEL & (written | {name for name, *_ in flow.match})):
        raise Refused(f"OFPBAC_BAD_SET_ARGUMENT: {name} in {flow}")


def check_bucket(group: int, bucket: m.Bucket) -> None:
    """Check one bucket of a select group; Open vSwitch does not check prerequisites there."""
    if not 0 <= bucket.id <= MAX_BUCKET_ID:
        raise Refused(f"OFPGMFC_BAD_BUCKET: id {bucket.id} in group {group}")
    if not 0 <= bucket.weight <= 0xFFFF:
        raise Refused(f"OFPGMFC_BAD_BUCKET: weight {bucket.weight} in group {group}")
    for action in bucket.actions:
        if isinstance(action, m.Goto):
            raise Refused(f"goto_table is an instruction, no action of a bucket (group {group})")
        _check_widths(action)


def _check_match(terms: m.Match) -> dict[str, tuple[int, int]]:
    matched = {name: (value, mask) for name, value, mask in terms}
    if list(matched) != sorted(matched) or len(matched) != len(terms):
        raise Refused("match is not sorted by field, or has one twice")
    for name, (value, mask) in matched.items():
        if name not in BY_NAME:
            raise Refused(f"OFPBMC_BAD_FIELD: {name}")
        if mask & ~BY_NAME[name].full or mask == 0:
            raise Refused(f"OFPBMC_BAD_MASK: {name}/{mask:#x}")
        if value & ~mask:
            raise Refused(f"OFPBMC_BAD_WILDCARDS: {name}={value:#x}/{mask:#x} has bits outside of the mask")
        if not _may_use(name, matched):
            raise Refused(f"OFPBMC_BAD_PREREQ: {name}")
    return matched


def _may_use(name: str, matched: dict[str, tuple[int, int]]) -> bool:
    exact = {field: value for field, (value, mask) in matched.items() if mask == BY_NAME[field].full}
    if name.startswith("arp_"):
        return exact.get("eth_type") == ETH_ARP
    family = exact.get("eth_type")
    if name in TRANSPORT:
        return family in (ETH_IPV4, ETH_IPV6) and exact.get("ip_proto") == TRANSPORT[name]
    if name in ICMP_OF:
        return (family, exact.get("ip_proto")) == ICMP_OF[name]
    if name in ND_TYPES:
        asked = (family, exact.get("ip_proto"), exact.get("icmpv6_code"))
        return asked == (ETH_IPV6, ICMPV6, 0) and exact.get("icmpv6_type") in ND_TYPES[name]
    if name in ("ip_proto", "ip_frag"):
        return family in (ETH_IPV4, ETH_IPV6)
    if name in FAMILY_OF:
        return family == FAMILY_OF[name]
    if name in ("ct_ipv4_dst", "ct_ipv6_dst", "ct_proto", "ct_tp_dst"):
        value, mask = matched.get("ct_state", (0, 0))
        valid = bool(value & CT_NEW_EST_REL_RPL_NAT) or bool(
            value & CT_TRACKED and mask & CT_INVALID and not value & CT_INVALID
        )
        wanted = {"ct_ipv4_dst": (ETH_IPV4,), "ct_ipv6_dst": (ETH_IPV6,)}.get(name, (ETH_IPV4, ETH_IPV6))
        return family in wanted and valid
    return True


def _check_actions(actions: m.Actions, matched: dict[str, tuple[int, int]], table: Table) -> None:
    for position, action in enumerate(actions):
        match action:
            case m.Set(target, _) if not _may_use(target.field.name, matched):
                raise Refused(f"OFPBAC_MATCH_INCONSISTENT: set {target.field.name}")
            case m.Move(source, target) if not (
                _may_use(source.field.name, matched) and _may_use(target.field.name, matched)
            ):
                raise Refused(f"OFPBAC_MATCH_INCONSISTENT: move {source.field.name} to {target.field.name}")
            case m.Ct() if matched.get("eth_type") not in ((ETH_IPV4, 0xFFFF), (ETH_IPV6, 0xFFFF)):
                raise Refused("OFPBAC_MATCH_INCONSISTENT: ct without eth_type")
            case m.Goto(target_table) if target_table <= table:
                raise Refused(f"OFPBIC_BAD_TABLE_ID: goto {target_table} from {table}")
            case m.Goto() if position != len(actions) - 1:
                raise Refused("goto is not the last action")
        _check_widths(action)


def _check_widths(action: m.Action) -> None:
    match action:
        case m.Set(target, value):
            if target.field.name in READ_ONLY:
                raise Refused(f"OFPBAC_BAD_SET_ARGUMENT: {target.field.name} is read-only")
            if not 0 <= value < 1 << target.width:
                raise Refused(f"OFPBAC_BAD_SET_ARGUMENT: {value:#x} does not fit {target.name}")
        case m.Move(source, target):
            if source.width != target.width:
                raise Refused(f"OFPBAC_BAD_SET_LEN: {source.name} and {target.name} have different widths")
            if target.field.name in READ_ONLY:
                raise Refused(f"OFPBAC_BAD_SET_ARGUMENT: {target.field.name} is read-only")
        case m.Ct(zone=zone, nat=nat, commit=commit, mark=mark):
            if mark is not None and (not commit or mark.width != CT_MARK.bits):
                raise Refused("OFPBAC_BAD_ARGUMENT: a mark needs commit and 32 bits")
            if (zone.width if isinstance(zone, Bits) else zone.bit_length()) > 16:
                raise Refused("ct zone does not fit 16 bits")
            if nat is not None and nat.kind != "lookup" and (not commit or len(nat.address) not in (4, 16)):
                raise Refused(f"nat({nat.kind}) needs commit and an address")
