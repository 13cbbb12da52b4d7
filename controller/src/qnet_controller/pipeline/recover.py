# SPDX-License-Identifier: Apache-2.0
"""Which demand a flow found on a switch belongs to: the reverse of `demands`, from the flow's match alone."""

from __future__ import annotations

from ..decide.decide import Origin
from .arrivals import Arrival
from .broadcast import Broadcast
from .demands import Demand, Pair, Target
from .family import FAMILIES
from .fields import ETH_TYPE, ORIGIN, SOURCE_GROUP, TUN_ID, VNI, Bits, Field
from .kept import Kept
from .messages import COOKIE_MAGIC, Feature, InstalledFlow, Match
from .scopes import Scope, recovered
from .strangers import STRANGERS, Source
from .tables import Table

_ROOTS = {
    Feature.PLAN,
    Feature.REFUSED,
    Feature.IDENTITY,
    Feature.LOCATION,
    Feature.ARRIVED,
    Feature.SCOPE,
    Feature.FORGED_TUNNEL,
    Feature.BROADCAST,
    Feature.KEPT,
}


def recover(item: InstalledFlow) -> Demand | None:
    """The demand whose root `item` is or was; None for any other flow, ours or not."""
    if item.cookie >> 56 != COOKIE_MAGIC or item.cookie >> 48 & 0xFF not in _ROOTS:
        return None
    if item.cookie >> 48 & 0xFF == Feature.SCOPE:
        return _scope(item)
    table, _, matching = item.key
    vni, address = _part(matching, VNI), _address(matching, *(family.target for family in FAMILIES))
    if table == Table.PLAN:
        block = _block(matching)
        origin, group = _part(matching, ORIGIN), _part(matching, SOURCE_GROUP)
        if vni is not None and origin is not None and group is not None and address is not None:
            return Pair(Origin(origin), vni, group, address)
        if vni is not None and origin is not None and group is not None and block is not None:
            return Pair(Origin(origin), vni, group, *block)
    elif table == Table.BROADCAST:
        origin, group = _part(matching, ORIGIN), _part(matching, SOURCE_GROUP)
        if vni is not None and origin is not None and group is not None:
            return Broadcast(Origin(origin), vni, group)
    elif table == Table.SERVICE:
        client = _address(matching, *(family.source for family in FAMILIES))
        if vni is not None and address is not None and client is not None:
            return Kept(vni, address, client, item.cookie & 0xFFFFFFFF)
    elif table == Table.LOCATION:
        if vni is not None and address is not None:
            return Target(vni, address)
    elif table == Table.STATE:
        sender = _address(matching, *(family.source for family in FAMILIES))
        if vni is not None and sender is not None:
            return Arrival(vni, sender)
    elif table == Table.ADMISSION:
        vtep = _address(matching, *(family.tunnel_source for family in FAMILIES))
        if vtep is not None:
            source = _address(matching, *(family.source for family in FAMILIES))
            return Source(vtep, _whole(matching, TUN_ID), source)
        if item.cookie >> 48 & 0xFF == Feature.FORGED_TUNNEL:
            return STRANGERS
    return None


def _scope(item: InstalledFlow) -> Scope | None:
    _, priority, matching = item.key
    vni, origin, group = (_part(matching, part) for part in (VNI, ORIGIN, SOURCE_GROUP))
    terms = {name: (value, mask) for name, value, mask in matching}
    ip = next((one for one in FAMILIES if terms.get(ETH_TYPE.name, (0,))[0] == one.eth_type), None)
    if vni is None or origin is None or group is None or ip is None:
        return None
    return recovered(Origin(origin), vni, group, priority, ip, terms.get(ip.target.name))


def _whole(matching: Match, field: Field) -> int | None:
    return next((value for name, value, mask in matching if name == field.name and mask == field.full), None)


def _block(matching: Match) -> tuple[bytes, int] | None:
    """The block of destinations that is matched, and its prefix length."""
    for name, value, mask in matching:
        ip = next((family for family in FAMILIES if family.target.name == name), None)
        if ip is not None and mask == ip.mask(mask.bit_count()):
            return value.to_bytes(ip.bytes, "big"), mask.bit_count()
    return None


def _part(matching: Match, part: Bits) -> int | None:
    for name, value, mask in matching:
        if name == part.field.name and mask & part.mask == part.mask:
            return (value & part.mask) >> part.offset
    return None


def _address(matching: Match, *fields: Field) -> bytes | None:
    """The address in the first of the fields that is matched."""
    values = ((field, _whole(matching, field)) for field in fields)
    return next((value.to_bytes(field.bits // 8, "big") for field, value in values if value is not None), None)
