# SPDX-License-Identifier: Apache-2.0
"""What becomes of a packet that was asked about."""

from __future__ import annotations

from dataclasses import dataclass

from ..decide.decide import Kind
from ..model.objects import Address
from .demands import Pair
from .messages import Commands, PacketOut


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send for a first packet: the commands, then the packet if it may go on.

    `quarantined`: the port of the pod whose quarantine begins with it; `crowded`: that of one whose demands have become
    too many. `call`: what is allowed, and the address that calls, when a pod of this switch does.
    """

    commands: Commands = ()
    packet_out: PacketOut | None = None
    kind: Kind = Kind.DROP
    quarantined: int | None = None
    crowded: int | None = None
    call: tuple[Pair, Address] | None = None
