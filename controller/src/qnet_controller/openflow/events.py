# SPDX-License-Identifier: Apache-2.0
"""What a session tells its owner, and what can go wrong in one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..pipeline.messages import Command, FlowRemoved, InstalledFlow, Meter, PacketIn, Port, Tampered
from .codec import Role, SwitchError

if TYPE_CHECKING:
    from .session import Session


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes; `max_backlog` counts messages that wait for a bundle.

    `max_handshakes` counts connections whose TLS handshake is not complete. `penalty`: for how long the address of a
    peer that broke the protocol is turned away; it doubles while that goes on. `packet_rate`: packets that one switch
    may ask about in a second, after a burst; those above are shed unread but for a `packet_trickle`, so that no switch
    takes the CPU from others. The meters of its pods and its tunnel port are there to keep it far below.
    """

    handshake: float = 10.0
    echo_interval: float = 1.0
    silence: float = 5.0
    reply: float = 60.0
    high_water: int = 1 << 20
    max_backlog: int = 1000
    max_queued: int = 128 << 20
    max_unheard: int = 1 << 20
    max_handshakes: int = 512
    max_handshakes_per_address: int = 128
    packet_rate: float = 4000.0
    packet_burst: float = 1000.0
    packet_trickle: float = 250.0
    penalty: float = 1.0
    longest_penalty: float = 16.0
    max_multipart: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Dump:
    """What a switch holds: groups with the number of their buckets, and in the bytes of the wire if that was asked."""

    flows: tuple[InstalledFlow, ...]
    groups: dict[int, int]
    meters: dict[int, Meter]
    descriptions: dict[int, bytes] = field(default_factory=dict)


class SessionClosed(ConnectionError):
    """The connection ended before the reply came."""


class Refused(Exception):
    """The switch answered a request with an error."""

    def __init__(self, error: SwitchError) -> None:
        super().__init__(str(error))
        self.error = error


class CommitFailed(Exception):
    """The switch refused commands: `failures` are (command or None for the bundle itself, error)."""

    def __init__(self, commands: tuple[Command, ...], failures: list[tuple[Command | None, SwitchError]]) -> None:
        super().__init__(f"{len(failures)} errors")
        self.commands = commands
        self.failures = failures


class Events(Protocol):
    """What a session tells its owner, on the event loop and in the order of the wire."""

    def turned_away(self, address: str, reason: str) -> None:
        """A peer without a certificate of the fleet has been turned away."""

    def identified(self, session: Session) -> None:
        """The switch has said who it is."""

    def port_status(self, session: Session, port: Port, gone: bool) -> None:
        """A port is new, changed or gone."""

    def packet_in(self, session: Session, packet: PacketIn) -> None:
        """A packet asks for a decision."""

    def shed(self, session: Session, packets: int) -> None:
        """So many packets have been left unread: the switch sends more of them than its share."""

    def flow_removed(self, session: Session, removed: FlowRemoved) -> None:
        """A flow has ended."""

    def tampered(self, session: Session, found: list[Tampered]) -> None:
        """Someone else has changed flows, groups or meters of the switch."""

    def role_changed(self, session: Session, role: Role) -> None:
        """Someone else has changed the role of this connection."""

    def refused(self, session: Session, error: SwitchError, command: Command | None) -> None:
        """The switch refused something that nobody waits for."""

    def violated(self, session: Session, reason: str) -> None:
        """The peer broke the protocol and is being dropped."""

    def handler_failed(self, session: Session, event: str) -> None:
        """A method of this object raised; it has been logged."""

    def lost(self, session: Session, reason: str) -> None:
        """The connection has ended."""
