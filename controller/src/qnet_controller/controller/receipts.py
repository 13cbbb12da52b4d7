# SPDX-License-Identifier: Apache-2.0
"""What a change of intent has done, switch by switch: flows changed, connections ended, and how long it took.

Only switches that this controller is master of are known here. A turn is what one run of the event loop corrected: the
changes of one generation of the intent, or of a few that came together. Tables come first; only when the switch has
confirmed them are the connections looked up that they refuse, and forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..config import Config
from ..model.model import Model
from ..model.objects import Change, Export, Pod
from ..openflow.events import CommitFailed, SessionClosed
from ..pipeline.connections import Connection, Ends, concerned, cut, groups_of, zones
from ..pipeline.messages import AddFlow, Commands, DeleteFlow, DeleteGroup, PutGroup
from . import conntrack, names
from .peers import client_context
from .switch import Switch

LOG = logging.getLogger(__name__)

TURNS_KEPT = 512
HOSTS_ASKED_AT_ONCE = 32
LONGEST_PAUSE_SECONDS = 2.0
Future = asyncio.Future[None]


@dataclass(slots=True)
class Part:
    """What a turn did at one switch. `seconds`: until it confirmed its tables; None while it has not."""

    host: str
    flows_added: int = 0
    flows_removed: int = 0
    groups_changed: int = 0
    seconds: float | None = None
    problem: str = ""
    cut: frozenset[Ends] | None = None
    finished: bool = False

    def count(self, commands: Commands) -> None:
        """Take over what is being sent. A flow that is written again in another form counts as added."""
        self.flows_added += sum(isinstance(command, AddFlow) for command in commands)
        self.flows_removed += sum(isinstance(command, DeleteFlow) for command in commands)
        self.groups_changed += sum(isinstance(command, PutGroup | DeleteGroup) for command in commands)


@dataclass(slots=True)
class Turn:
    """One correction of all switches for the generations from `first` to `last`."""

    first: int
    last: int
    groups: frozenset[str]
    began: float = field(default_factory=time.monotonic)
    parts: dict[str, Part] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    all_read: asyncio.Event = field(default_factory=asyncio.Event)

    def read(self, host: str) -> None:
        """The connections of a host have been looked at, or cannot be."""
        self.unread.discard(host)
        if not self.unread:
            self.all_read.set()


class Receipts:
    """Follows every turn to its end and remembers the last ones."""

    def __init__(self, config: Config, switches: Mapping[int, Switch], model: Callable[[], Model]) -> None:
        self._config = config
        self._switches = switches
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._turns: deque[Turn] = deque(maxlen=TURNS_KEPT)
        self._generation = self._flushed = 0
        self._groups: frozenset[str] = frozenset()
        self._began: float | None = None
        self._news = asyncio.Event()
        self._asking = asyncio.Semaphore(HOSTS_ASKED_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what happens ------------------------------------------------------------------------------------------------

    def arrives(self, changes: Iterable[Change], generation: int) -> None:
        """A change of intent has come in; the model does not have it yet."""
        self._groups |= concerned(self._model(), changes)
        if generation < self._generation:  # another database, which begins anew
            self._flushed = generation - 1
            self._turns.clear()
        self._generation = generation
        self._began = self._began or time.monotonic()

    def expires(self, exports: Iterable[Export]) -> None:
        """Exports have come to their end."""
        self._groups |= {group for export in exports for group in groups_of(export)}

    def left(self, groups: frozenset[str]) -> None:
        """Backends have gone that pods of these groups may be connected to."""
        self._groups |= groups

    def arrived(self, touched: bool) -> None:
        """The model has the change; one that touched nothing makes no turn."""
        if not touched:
            self._flushed, self._began = self._generation, None
        self._pulse()

    def begin(self) -> Turn:
        """The switches are about to be corrected for everything that came since the last time."""
        # When only places have changed, no generation is in this turn: its first is after its last.
        first, self._flushed = self._flushed + 1, self._generation
        turn = Turn(first, self._generation, self._groups, self._began or time.monotonic())
        self._groups, self._began = frozenset(), None
        self._turns.append(turn)
        return turn

    def sent(self, turn: Turn, switch: Switch, commands: Commands, future: Future | None) -> None:
        """The commands of a turn for a switch are on their way; None when there are none."""
        where = zones(self._model(), switch.datapath_id, turn.groups) if turn.groups else []
        if future is None and not where:
            return
        part = turn.parts[switch.host] = Part(switch.host)
        turn.unread.add(switch.host)
        part.count(commands)
        self._run(self._follow(turn, part, switch, future or switch.session.commit(()), where))

    def adopting(self, switch: Switch, future: Future | None) -> None:
        """The switch is being brought to the present model as a whole: that confirms every turn so far."""
        switch.synced = False
        self._run(self._adopted(switch, future or switch.session.commit(())))

    def _run(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Nothing is followed any more."""
        for task in self._tasks:
            task.cancel()

    async def _adopted(self, switch: Switch, future: Future) -> None:
        try:
            await asyncio.shield(future)
        except (CommitFailed, SessionClosed):
            return
        switch.synced = True
        for turn in self._turns:
            part = turn.parts.get(switch.host)
            if part is not None and part.seconds is None:
                part.seconds, part.finished = time.monotonic() - turn.began, True
        self._pulse()

    async def _follow(self, turn: Turn, part: Part, switch: Switch, future: Future, where: list[int]) -> None:
        try:
            await asyncio.shield(future)
            part.seconds = time.monotonic() - turn.began
            self._pulse()
            part.cut = await self._cut(turn, switch, where) if where else frozenset()
        except (CommitFailed, SessionClosed) as error:
            part.problem = f"{error}"
        except conntrack.Unreadable as error:
            part.problem = f"its connections cannot be read: {error}"
            LOG.warning("%s: %s; what the tables refuse now is not counted, and forgotten later", part.host, error)
        except Exception:
            LOG.exception("cannot follow a change at %s", part.host)
            part.problem = "failed, see the log of the controller"
        finally:
            turn.read(part.host)
            part.finished = part.seconds is not None
            self._pulse()

    async def _cut(self, turn: Turn, switch: Switch, where: list[int]) -> frozenset[Ends]:
        """End the connections in these zones that nothing allows any more; returns those that were open."""
        found = await self.read(switch, where)
        turn.read(switch.host)
        # A connection has an entry at both of its ends: count them all before any is forgotten.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_PAUSE_SECONDS):
                await turn.all_read.wait()
        over = cut(self._model(), switch.datapath_id, found, time.time())
        ends = [
            there.session.commit(flushes)
            for datapath_id, flushes in over.flushes.items()
            if (there := self._switches.get(datapath_id)) is not None and there.ready() is not None
        ]
        await asyncio.gather(*ends)
        LOG.info("%s: ended %d connections of %d looked at", switch.host, len(over.open), len(found))
        return over.open

    async def read(self, switch: Switch, where: list[int]) -> list[Connection]:
        """The connections in these zones of a switch.

        Raises:
            conntrack.Unreadable: its host does not say.
        """
        async with self._asking:
            return await conntrack.read(switch.address, switch.host, self.context, where)

    async def shares(self, switch: Switch, where: list[int]) -> list[conntrack.Share]:
        """How many connections there are in these zones, and may be.

        Raises:
            conntrack.Unreadable: its host does not say.
        """
        async with self._asking:
            return await conntrack.shares(switch.address, switch.host, self.context, where)

    @cached_property
    def context(self) -> ssl.SSLContext:
        """For questions to hosts."""
        return client_context(self._config.pki)

    # -- what is said of it ------------------------------------------------------------------------------------------

    def _pulse(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def wait(self, generation: int, seconds: float) -> dict[str, Any]:
        """The receipt of our switches, as soon as all have confirmed `generation` or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while not self._complete(generation):
                    await self._news.wait()
        except TimeoutError:
            pass
        return self._receipt(generation)

    def _of(self, generation: int) -> list[Turn]:
        return [turn for turn in self._turns if turn.first <= generation <= turn.last]

    def _complete(self, generation: int) -> bool:
        if self._flushed < generation:
            return False
        unfinished = any(not part.finished for turn in self._of(generation) for part in turn.parts.values())
        return not unfinished and all(switch.synced for switch in self._mastered())

    def _mastered(self) -> list[Switch]:
        return [switch for switch in self._switches.values() if switch.ready() is not None]

    def _receipt(self, generation: int) -> dict[str, Any]:
        turns = self._of(generation) if self._generation >= generation else []
        parts = {part.host: part for turn in turns for part in turn.parts.values()}
        here = (
            {switch.host for switch in self._mastered() if switch.synced} if self._generation >= generation else set()
        )
        confirmed = {host for host in here if host not in parts or parts[host].seconds is not None}
        return {
            "generation": generation,
            "confirmed": sorted(confirmed),
            "hosts": [self._shown(part) for _, part in sorted(parts.items())],
        }

    def _shown(self, part: Part) -> dict[str, Any]:
        return {
            "host": part.host,
            "flows_added": part.flows_added,
            "flows_removed": part.flows_removed,
            "groups_changed": part.groups_changed,
            "milliseconds": None if part.seconds is None else round(part.seconds * 1000, 3),
            "connections": None if part.cut is None else sorted(ends_text(self._model(), item) for item in part.cut),
            "problem": part.problem or None,
        }


def ends_text(model: Model, item: Ends) -> str:
    """A connection for people: `tcp b/u-1 10.1.0.5:40000 -> a/s-1 10.1.0.2:80 in prod`."""
    client = _end_text(model, item.network, item.client, item.client_port)
    server = _end_text(model, item.network, item.server, item.server_port)
    return f"{conntrack.protocol_name(item.protocol)} {client} -> {server} in {item.network}"


def _end_text(model: Model, network: str, address: bytes, port: int) -> str:
    owner = model.owner.get((network, address))
    text = names.address_text(address)
    place = f"[{text}]:{port}" if len(address) == 16 else f"{text}:{port}"
    return f"{owner.key} {place}" if isinstance(owner, Pod) else place
