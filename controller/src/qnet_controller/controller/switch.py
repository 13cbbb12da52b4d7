# SPDX-License-Identifier: Apache-2.0
"""One connected switch as its controller sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from ..openflow.codec import Roles
from ..openflow.session import Session
from ..pipeline.messages import FlowRemoved, FlushZone, PacketIn, Tampered
from ..pipeline.program import SwitchProgram

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
FIRST_CLAIM_SECONDS = 5.0
LONGEST_CLAIM_SECONDS = 480.0
HELD_PACKETS = 256
HELD_SECONDS = 1.0
MOST_ASKED_PER_SECOND = 20


@dataclass(slots=True, eq=False)
class Switch:
    """A session that has been admitted as a host's switch.

    `program` is there for a master; `adopted`: it says what the switch holds, so packets may be decided;
    `synced`: the switch has confirmed what the adoption corrected. Packets that come to a master before the adoption
    are `held`. `watched_since`, `asked_at`: of the watch over what `answers`. `hardware`: the MAC
    addresses of its ports. `connected_at`: by the clock of the event loop.
    """

    session: Session
    datapath_id: int
    host: str
    connected_at: float = float("-inf")
    ports_known: bool = False
    hardware: dict[int, bytes] = field(default_factory=dict)
    role: int = Roles.NOCHANGE
    wanted_role: int = Roles.NOCHANGE
    adopted: bool = False
    synced: bool = False
    program: SwitchProgram | None = None
    owed: dict[FlushZone, None] = field(default_factory=dict)
    tampered: list[Tampered] = field(default_factory=list)
    ended: list[FlowRemoved] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    retry: asyncio.TimerHandle | None = None
    retry_seconds: float = FIRST_RETRY_SECONDS
    claim_seconds: float = FIRST_CLAIM_SECONDS
    claim: asyncio.TimerHandle | None = None
    mastered_at: float = 0.0
    held: deque[tuple[float, PacketIn]] = field(default_factory=lambda: deque(maxlen=HELD_PACKETS))
    answers: bool = True
    watched_since: float | None = None
    asked_at: float = 0.0

    @property
    def role_name(self) -> str:
        """The role for metrics and status."""
        return Roles.NAMES[self.role] if self.role < len(Roles.NAMES) else str(self.role)

    @property
    def address(self) -> str:
        """The address of its host."""
        return self.session.address.rpartition(":")[0]

    def ready(self) -> SwitchProgram | None:
        """The program, when packets and changes may be turned into flows now."""
        return self.program if self.adopted and self.role == Roles.MASTER else None

    def hold(self, packet: PacketIn, now: float) -> None:
        """Keep a packet until the switch has been adopted; when there are too many, the oldest is forgotten."""
        self.held.append((now, packet))

    def release(self, now: float) -> list[PacketIn]:
        """The packets that have been held, but for those whose sender will have given up waiting."""
        held, self.held = self.held, deque(maxlen=HELD_PACKETS)
        return [packet for at, packet in held if now - at <= HELD_SECONDS]

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt; doubles up to a bound."""
        delay, self.retry_seconds = self.retry_seconds, min(self.retry_seconds * 2, LONGEST_RETRY_SECONDS)
        return delay

    def next_claim_delay(self, now: float) -> float:
        """Seconds to wait before a switch that another has taken is claimed again; doubles up to a bound.

        Begins anew when the last claim has held for longer than its delay: that was no quarrel.
        """
        if now - self.mastered_at > self.claim_seconds:
            self.claim_seconds = FIRST_CLAIM_SECONDS
        delay, self.claim_seconds = self.claim_seconds, min(self.claim_seconds * 2, LONGEST_CLAIM_SECONDS)
        return delay

    def stop(self) -> None:
        """Nothing more happens for this switch."""
        self.adopted = False
        if self.task:
            self.task.cancel()
        for timer in (self.retry, self.claim):
            if timer:
                timer.cancel()


async def in_turn(switches: Mapping[int, Switch], round_seconds: float) -> AsyncIterator[Switch]:
    """The switches that we are master of, one after the other, for ever.

    Each comes once in `round_seconds`, as long as that is no more than `MOST_ASKED_PER_SECOND`.
    """
    while True:
        mine = [switch for switch in list(switches.values()) if switch.ready() is not None]
        for switch in mine:
            yield switch
            await asyncio.sleep(max(round_seconds / len(mine), 1 / MOST_ASKED_PER_SECOND))
        if not mine:
            await asyncio.sleep(round_seconds)
