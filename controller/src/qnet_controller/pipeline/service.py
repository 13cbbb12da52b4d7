# SPDX-License-Identifier: Apache-2.0
"""What a Service IP is made of: a bucket and a way on for each backend, and the turn of one that calls itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from ..decide.decide import Kind, addresses
from ..model.objects import Address, Location, Network, Pod, ServiceIP
from .balance import Share
from .family import family, number
from .fields import (
    CT_DESTINATION_TRANSLATED,
    CT_ESTABLISHED,
    CT_INVALID,
    CT_RELATED,
    CT_REPLY,
    CT_STATE,
    CT_TRACKED,
    CT_ZONE,
    GRANT,
    HAIRPIN,
    HAIRPIN_ZONE,
    KIND,
    SOURCE_ZONE,
    VNI,
    Field,
)
from .frame import state
from .messages import Bucket, Ct, Feature, Flow, Goto, Group, Nat, Set, flow, match
from .tables import Table
from .ways import REMEMBERED

# The original tuple can be matched only where conntrack is known to have one: tracked and not invalid.
_VALID = (CT_STATE, CT_TRACKED, CT_TRACKED | CT_INVALID)


@lru_cache(REMEMBERED)
def balancing(number: int, shares: tuple[Share, ...], hashed: tuple[Field, ...]) -> Group:
    """The group that balances over backends by their shares."""
    return Group(number, tuple(map(bucket, shares)), hashed)


def bucket(share: Share) -> Bucket:
    """The bucket of a backend: it commits the connection with the backend as its target."""
    return Bucket(share.id, share.weight, (to_backend(share.address),))


def to_backend(address: Address) -> Ct:
    """Commit a new connection with the backend as its target."""
    return Ct(SOURCE_ZONE, Table.STATE, commit=True, nat=Nat("destination", address), mark=GRANT)


@lru_cache(REMEMBERED)
def backend(vni: int, target: str, called: Address, address: Address, space: int) -> Flow:
    """Let connections to the Service IP `target` (its key), that is `called`, on to this pod of it.

    Old ones never reach the next owner of an address. A pod of another network is in another `space` (its VNI) from
    here on.
    """
    crosses = (Set(VNI, space),) if space != vni else ()
    ip = family(called)
    asked = match(
        (VNI, vni), (KIND, Kind.SERVICE), ip.term, (ip.target, number(address)),
        (ip.original_target, number(called)), state(CT_DESTINATION_TRANSLATED),
    )  # fmt: skip
    then = (*crosses, Goto(Table.LOCATION))
    return flow(Table.STATE, 90, asked, then, Feature.SERVICE, f"service_ip {target}")


def hairpin(pod: Pod, location: Location, network: Network, target: ServiceIP) -> Iterator[Flow]:
    """A pod that is a backend of the Service IP it calls, and may be chosen itself.

    It then sees the Service IP as its peer, translated in a second zone of its own.
    """
    port, zone = location.port, HAIRPIN_ZONE | location.port
    # One set of flows per pod serves all its Service IPs, hence two kinds of owner.
    for_pod, for_address = f"pod {pod.key}", f"service_ip {target.key}"
    ip, service_ip = family(target.address), number(target.address)
    ours = ((SOURCE_ZONE, port), (KIND, Kind.SERVICE), ip.term)
    look_again = (Ct(zone, Table.SERVICE, nat=Nat("lookup")),)
    called = match(*ours, (VNI, network.vni), (ip.target, service_ip))
    yield flow(Table.TRACK, 95, called, look_again, Feature.HAIRPIN, for_address)
    undo = (Set(HAIRPIN, 1), Ct(SOURCE_ZONE, Table.LOCATION, nat=Nat("lookup")))
    for answer in (CT_ESTABLISHED | CT_REPLY, CT_RELATED | CT_REPLY):
        answered = match((CT_ZONE, zone), ip.term, state(answer))
        yield flow(Table.SERVICE, 110, answered, undo, Feature.HAIRPIN, for_pod)
    go_on = (Ct(SOURCE_ZONE, Table.SERVICE, nat=Nat("lookup")),)
    yield flow(Table.SERVICE, 100, match((CT_ZONE, zone), ip.term), go_on, Feature.HAIRPIN, for_pod)
    for packed in addresses(pod, target.address):
        own = number(packed)
        itself = match(*ours, (ip.source, own), (ip.target, own), (ip.original_target, service_ip), _VALID)
        turn = (Set(HAIRPIN, 1), Ct(zone, Table.LOCATION, commit=True, nat=Nat("source", target.address)))
        yield flow(Table.STATE, 120, itself, turn, Feature.HAIRPIN, for_address)
