# SPDX-License-Identifier: Apache-2.0
"""Which switches this controller is master of: elections, claims, and what happens when another one claims.

Nobody steps back by himself: a switch is served until the controller elected has taken it over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from ..config import Config
from ..model.model import Model
from ..model.objects import DEFAULT_SET
from ..openflow.codec import Role, Roles
from ..openflow.events import Refused, SessionClosed
from .election import Standing, elected
from .switch import LONGEST_CLAIM_SECONDS, Switch

LOG = logging.getLogger(__name__)

APART_CLAIM_SECONDS = 30.0
_LOOKS_IN_PROBE = 10


class Mastership:
    """Takes and gives up the role of master.

    `gained` and `lost` are told after the switch has changed the role; nothing is claimed before `begin`.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        switches: Mapping[int, Switch],
        gained: Callable[[Switch], None],
        lost: Callable[[Switch], None],
    ) -> None:
        self._config = config
        self._model = model
        self._standing = Standing(frozenset(peer.name for peer in config.controllers))
        self._switches = switches
        self._gained = gained
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._looked_at = self._awake_since = self._loop.time()
        self._looking: asyncio.TimerHandle | None = None
        self._given_up: asyncio.Event = asyncio.Event()
        self.leaving = False
        self.lacks: frozenset[int] = frozenset()
        """The switches that should answer this controller and do not."""
        self.told: Callable[[], None] = lambda: None
        """Called when `lacks` or `leaving` has changed."""

    def begin(self) -> None:
        """The model is complete enough to be right about the switches: elect their masters."""
        self._begun = True
        self._look()
        self.told()
        self.elect_all()

    def standing_changed(self, standing: Standing) -> None:
        """Other controllers have come or gone, or have other switches: elect the masters of all switches anew."""
        self._standing = standing
        self.elect_all()

    def elect_all(self) -> None:
        """Elect the masters of all switches."""
        for switch in list(self._switches.values()):
            self.elect(switch)

    def elect(self, switch: Switch) -> None:
        """Take the role that the election gives us for this switch.

        Who is not sure that it is his claims it later, if nothing has changed by then.
        """
        if not self._begun or not switch.ports_known:
            return
        keep = switch.wanted_role == Roles.MASTER
        claim = not keep and self._is_elected(switch)
        if claim and (seconds := self._doubt(switch)):
            self._claim_later(switch, seconds)
            claim = False
        self._want(switch, Roles.MASTER if keep or claim else Roles.SLAVE)

    def _doubt(self, switch: Switch) -> float:
        """How long to wait before claiming a switch that we are elected for; 0: not at all.

        Who is cut off from the others may have old intent while another decides there. And a switch that has just come
        has come to all of us; he whose it is may only not have said so yet.
        """
        if self._standing.cut_off:
            return APART_CLAIM_SECONDS
        heard = 2 * self._config.probe_seconds / _LOOKS_IN_PROBE
        new = switch.connected_at + heard - self._loop.time()
        his = elected(switch.datapath_id, self._members(switch.datapath_id), Standing(self._standing.live))
        return new if new > 0 and his != self._config.name else 0.0

    def _want(self, switch: Switch, role: int) -> None:
        if switch.wanted_role != role:
            switch.wanted_role = role
            switch.task = self._loop.create_task(self._take_role(switch, role))

    def master_for(self, datapath_id: int) -> str | None:
        """The controller elected for a switch."""
        return elected(datapath_id, self._members(datapath_id), self._standing)

    def _members(self, datapath_id: int) -> frozenset[str]:
        host = self._model.host_by_datapath.get(datapath_id)
        return self._config.members(host.controller_set if host else DEFAULT_SET)

    def _is_elected(self, switch: Switch) -> bool:
        return not self.leaving and self.master_for(switch.datapath_id) == self._config.name

    async def _take_role(self, switch: Switch, wanted: int) -> None:
        while switch.wanted_role == wanted:
            try:
                role = await switch.session.request_role(wanted)
            except SessionClosed:
                return
            except Refused as error:  # another controller has been faster: ask again with a newer generation
                LOG.warning("%s refuses role %s: %s", switch.host, Roles.NAMES[wanted], error)
                await asyncio.sleep(switch.next_delay())
                continue
            if switch.wanted_role != wanted:  # an election or another's claim has gone otherwise meanwhile
                switch.role = switch.session.role
                return
            if switch.session.role != role.role:  # the reply has been overtaken by news of a later claim
                self._overruled(switch, Role(switch.session.role, role.generation))
                return
            switch.role = switch.wanted_role = role.role
            LOG.info("%s of %s (generation %d)", switch.role_name, switch.host, role.generation)
            if role.role == Roles.MASTER:
                switch.mastered_at = self._loop.time()
                self._gained(switch)
            else:
                self._let_go(switch)
            return

    def role_changed(self, switch: Switch, role: Role) -> None:
        """Another controller has become master of the switch: accept."""
        if role.role != switch.role:
            self._overruled(switch, role)

    def _overruled(self, switch: Switch, role: Role) -> None:
        name = Roles.NAMES[role.role % 4]
        LOG.info("%s of %s by another controller (generation %d)", name, switch.host, role.generation)
        switch.role = switch.wanted_role = role.role
        if self._is_elected(switch):
            # Someone who does not see us has taken it. Two that do not see each other must not flap, but should the
            # other die unseen, the switch must not stay without a master: ask again, less and less often.
            delay = switch.next_claim_delay(self._loop.time())
            self._claim_later(switch, LONGEST_CLAIM_SECONDS if self._standing.cut_off else delay)
        self._let_go(switch)

    def _let_go(self, switch: Switch) -> None:
        switch.adopted = False
        switch.program = None
        switch.held.clear()
        self._lost(switch)
        self._given_up.set()

    def _claim_later(self, switch: Switch, seconds: float) -> None:
        if switch.claim is None:
            switch.claim = self._loop.call_later(seconds, self._claim_again, switch)

    def _claim_again(self, switch: Switch) -> None:
        switch.claim = None
        if self._switches.get(switch.datapath_id) is switch and self._is_elected(switch):
            self._want(switch, Roles.MASTER)

    # -- switches that do not answer ---------------------------------------------------------------------------------

    def _look(self) -> None:
        """Ask the switches that we are master of whether they are there; those that say nothing need another master."""
        probe = self._config.probe_seconds
        now = self._loop.time()
        if now - self._looked_at > probe / 2:  # it is we who were frozen: what they have said waits to be read
            self._awake_since = now
        self._looked_at = now
        for switch in self._switches.values():
            self._look_at(switch, now, probe)
        expected = self._config.controller_set
        lacks = frozenset(
            host.datapath_id
            for host in self._model.hosts.values()
            if host.controller_set == expected and not self._answers(host.datapath_id)
        )
        if lacks != self.lacks:
            self.lacks = lacks
            self.told()
        self._looking = self._loop.call_later(probe / _LOOKS_IN_PROBE, self._look)

    def _look_at(self, switch: Switch, now: float, probe: float) -> None:
        if switch.wanted_role != Roles.MASTER and switch.answers:
            switch.watched_since = None
            return
        if switch.watched_since is None:
            switch.watched_since = now
        silent = now - max(switch.session.heard_at, switch.watched_since, self._awake_since)
        if silent >= probe / 2 and now - switch.asked_at >= probe / 2:
            switch.asked_at = now
            switch.session.ask_for_life()
        answers = silent < probe * (1 - 1 / _LOOKS_IN_PROBE)
        if answers != switch.answers:
            switch.answers = answers
            LOG.warning("switch of host %s %s", switch.host, "answers again" if answers else "does not answer")

    def _answers(self, datapath_id: int) -> bool:
        switch = self._switches.get(datapath_id)
        return switch is not None and switch.ports_known and switch.answers

    # -- leaving -----------------------------------------------------------------------------------------------------

    async def hand_over(self, seconds: float) -> None:
        """Have others take our switches, and serve these until then; give up after `seconds`."""
        self.leaving = True
        self.told()
        mastered = self._mastered()
        if mastered and len(self._standing.live) > 1:
            LOG.info("hands over %d switches", mastered)
            try:
                async with asyncio.timeout(seconds):
                    while self._mastered():
                        self._given_up.clear()
                        await self._given_up.wait()
            except TimeoutError:
                LOG.warning("%d switches have not been taken over within %g s", self._mastered(), seconds)

    def _mastered(self) -> int:
        return sum(switch.role == Roles.MASTER for switch in self._switches.values())

    def close(self) -> None:
        """Stop to look after the switches."""
        if self._looking:
            self._looking.cancel()
