# SPDX-License-Identifier: Apache-2.0
"""VXLAN that its sender may not send: the first few are refused one by one, and then all that is like them.

From VTEPs that are no host's; from a host, but for networks that are not there; from a host and for a network, but from
pods that are not on that host. Whoever makes such things up gets a bounded number of questions and flows out of a
switch. Above a wide refusal are flows that go on asking, for what may be right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..model.model import HOSTS, Model
from ..model.objects import Address, Pod
from .family import FAMILIES, Family, family, number
from .fields import IN_PORT, TUN_ID, Field
from .frame import TUNNEL_METER
from .messages import Feature, ToController, UseMeter, flow, match
from .tables import Table
from .wanted import Program

MOST_ALIKE = 8
EXACT = 140
"""From this priority on refusals are of one VTEP, network or address; wide ones are below."""

Term = tuple[Field, int]


class Source(NamedTuple):
    """Packets from a VTEP; with a VNI and an address when those before are known good.

    Without a VNI: from a VTEP that is no host's, or from a host for all networks that are not there. Without an
    address: for a network that is not there, or from all addresses that no pod has on that host.
    """

    vtep: Address
    vni: int | None
    address: Address | None

    @property
    def alike(self) -> Source:
        """All that is like it: with the last of what is known left open."""
        if self.address is not None:
            return self._replace(address=None)
        return self._replace(vni=None) if self.vni is not None else STRANGERS


STRANGERS = Source(b"", None, None)
"""Packets from all VTEPs that are no host's."""


def is_wide(model: Model, source: Source) -> bool:
    """Whether it stands for many: its last part is left open, and what is there is known good."""
    if source == STRANGERS:
        return True
    known = source.vtep in model.host_by_vtep and (source.vni is None or source.vni in model.network_by_vni)
    return known and source.address is None


def wide_program(model: Model, port: int, source: Source, seconds: int) -> Program:
    """The refusal for so long, and the flows that go on asking; compiled anew with every change of the model."""
    said: list[Term] = [(IN_PORT, port)]
    if source.vtep:
        said.append((family(source.vtep).tunnel_source, number(source.vtep)))
    if source.vni is not None:
        said.append((TUN_ID, source.vni))
    priority, owner = 10 * len(said) + 10, f"vtep {source.vtep.hex()}"  # above the flows that ask, below what is exact
    program = Program(depends={HOSTS})
    for ip, term in _left_open(model, source):
        ask = (UseMeter(TUNNEL_METER), ToController())
        asked = match(*said, ip.term, term)
        program.add(flow(Table.ADMISSION, priority + 1, asked, ask, Feature.ASKS, owner))
    refusal = flow(Table.ADMISSION, priority, match(*said), (), Feature.FORGED_TUNNEL, owner, hard=seconds, notify=True)
    program.add_root(refusal)
    return program


def _left_open(model: Model, source: Source) -> Iterator[tuple[Family, Term]]:
    """What may be right: for packets of which family, and what these have besides."""
    if source.vni is not None:
        host, sending = model.host_by_vtep[source.vtep], model.passages.reverse(model.network_by_vni[source.vni]).name
        for pod, _ in model.local_pods(host.datapath_id):
            for address in pod.addresses:
                if isinstance(found := model.owner.get((sending, address)), Pod) and found.key == pod.key:
                    yield family(address), (family(address).source, number(address))
        return
    for ip in FAMILIES:
        if source.vtep:
            yield from ((ip, (TUN_ID, vni)) for vni in sorted(model.network_by_vni))
        else:
            vteps = (vtep for host in model.hosts.values() for vtep in host.vteps)
            yield from ((ip, (family(vtep).tunnel_source, number(vtep))) for vtep in vteps)
