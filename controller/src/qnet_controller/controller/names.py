# SPDX-License-Identifier: Apache-2.0
"""Names for people: what a cookie, a command or a packet is about."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping
from functools import cached_property

from ..model.model import Model
from ..model.objects import Pod, ServiceIP
from ..pipeline.fields import VNI
from ..pipeline.messages import (
    COOKIE_MAGIC,
    AddFlow,
    AddMeter,
    Command,
    DeleteFlow,
    DeleteGroup,
    DeleteMeter,
    Feature,
    Flow,
    FlowKey,
    FlushConnection,
    FlushZone,
    PacketIn,
    PutGroup,
    SetPassing,
    Tampered,
    object_hash,
)
from ..pipeline.packet import ip_addresses
from ..pipeline.tables import Table


def tables(model: Model) -> dict[str, Mapping[str, object]]:
    """The objects by kind and key; `kind key` is how cookies and people name one."""
    return {
        "pod": model.pods,
        "service": model.services,
        "service_ip": model.service_ips,
        "export": model.exports,
        "group": model.groups,
        "network": model.networks,
        "host": model.hosts,
    }


def cookie_owner(model: Model, cookie: int) -> str | None:
    """The object a cookie leads back to, as `kind key`. Looks through the whole model: not for the hot path."""
    if cookie >> 56 != COOKIE_MAGIC:
        return None
    wanted = cookie & 0xFFFFFFFF
    owners = (f"{kind} {key}" for kind, table in tables(model).items() for key in table)
    return next((name for name in owners if object_hash(name) == wanted), None)


class Owners:
    """`cookie_owner` for many cookies of one model: all names are hashed, once."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @cached_property
    def _names(self) -> dict[int, str]:
        owners = (f"{kind} {key}" for kind, table in tables(self._model).items() for key in table)
        return {object_hash(name): name for name in owners}

    def of(self, cookie: int) -> str | None:
        """The object a cookie leads back to, as `kind key`."""
        return self._names.get(cookie & 0xFFFFFFFF) if cookie >> 56 == COOKIE_MAGIC else None


def cookie_purpose(cookie: int) -> str:
    """What a flow is there for, in one word."""
    if cookie >> 56 != COOKIE_MAGIC:
        return "foreign"
    feature = cookie >> 48 & 0xFF
    return Feature(feature).name.lower() if feature in set(Feature) else f"feature {feature}"


def cookie_name(model: Model, cookie: int) -> str:
    """The purpose and the object of a cookie, for errors."""
    if cookie >> 56 != COOKIE_MAGIC:
        return f"foreign cookie {cookie:#x}"
    owner = cookie_owner(model, cookie)
    return f"{cookie_purpose(cookie)} flow" + (f" of {owner}" if owner else "")


def _key_name(key: FlowKey) -> str:
    table, priority, matching = key
    title = Table(table).title if table in set(Table) else f"table {int(table)}"
    terms = (f"{name}={value:#x}/{mask:#x}" for name, value, mask in matching)
    return f"{title} priority {priority} [{' '.join(terms)}]"


def command_name(model: Model, command: Command | None) -> str:
    """What a command was about."""
    match command:
        case None:
            return "the bundle"
        case AddFlow(flow):
            return f"{cookie_name(model, flow.cookie)} in {_key_name(flow.key)}"
        case DeleteFlow(key):
            return f"deletion in {_key_name(key)}"
        case PutGroup(group, _):
            return f"group {group.id} of {len(group.buckets)} backends"
        case DeleteGroup(number):
            return f"deletion of group {number}"
        case AddMeter(meter):
            return f"meter {meter.id}"
        case DeleteMeter(number):
            return f"deletion of meter {number}"
        case FlushZone(zone):
            return f"flush of conntrack zone {zone}"
        case SetPassing(port, _, passing):
            return f"word that port {port} {'passes' if passing else 'fails'} its check"
        case FlushConnection(zone, opened):
            ends = f"{address_text(opened.source)} to {address_text(opened.target)}"
            return f"flush of a connection from {ends} in conntrack zone {zone}"


def tampered_name(model: Model, item: Tampered, intended: Flow | None) -> str:
    """What someone else did: to which flow, group or meter, and whose it is."""
    done = "deleted" if item.gone else "added or changed"
    if item.key is None:
        return f"{done}: " + (f"{item.kind} {item.number}" if item.number is not None else f"every {item.kind}")
    what = cookie_name(model, intended.cookie) if intended else "a flow that is not intended"
    return f"{done}: {what} in {_key_name(item.key)}"


def packet_name(model: Model, packet: PacketIn) -> str:
    """Source and destination of a packet, by the names of pods and Service IPs."""
    addresses = ip_addresses(packet.data)
    if addresses is None:
        return "a packet that is not IP"
    vni = packet.fields.get(VNI.field.name, 0) >> VNI.offset & (1 << VNI.width) - 1
    network = model.network_by_vni.get(vni or packet.fields.get("tun_id", 0))
    ends = (_address_name(model, network.name if network else "", end) for end in (addresses.source, addresses.target))
    return " -> ".join(ends)


def _address_name(model: Model, network: str, address: bytes) -> str:
    owner = model.owner.get((network, address))
    text = address_text(address)
    if isinstance(owner, Pod | ServiceIP):
        return f"{owner.key} ({text})"
    return text


def address_text(address: bytes) -> str:
    """A packed address as people write it."""
    return str(ipaddress.ip_address(address))


def packed_address(text: str) -> bytes | None:
    """The packed address that a text means, if it is one."""
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        return None


def nearest(text: str, known: Iterable[str]) -> str:
    """A hint at the name that was probably meant, to go on with after what was wrong; empty when none is near."""
    near = difflib.get_close_matches(text, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


class Budget:
    """So many lines per second and no more."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._spent = 0

    def allow(self, now: float) -> bool:
        """Whether one more may be written at `now` (seconds of any clock)."""
        if int(now) != self._second:
            self._second, self._spent = int(now), 0
        self._spent += 1
        return self._spent <= self._per_second
