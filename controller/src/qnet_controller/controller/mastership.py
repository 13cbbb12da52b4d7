# SPDX-License-Identifier: Apache-2.0
"""Which switches this controller is master of: elections, claims, and what happens when another one claims.

Nobody steps back by himself: a switch is served until the controller elected has taken it over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from ..config import Config
from ..openflow.codec import Role, Roles
from ..openflow.events import Refused, SessionClosed
from .election import master_of
from .switch import Switch

LOG = logging.getLogger(__name__)


class Mastership:
    """Takes and gives up the role of master.

    `gained` and `lost` are told after the switch has changed the role; nothing is claimed before `begin`.
    """

    def __init__(
        self,
        config: Config,
        switches: Mapping[int, Switch],
        gained: Callable[[Switch], None],
        lost: Callable[[Switch], None],
    ) -> None:
        self._name = config.name
        self._live = frozenset(peer.name for peer in config.controllers)
        self._switches = switches
        self._gained = gained
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._begun = False

    def begin(self) -> None:
        """The model is complete enough to be right about the switches: elect their masters."""
        self._begun = True
        self._elect_all()

    def controllers_changed(self, live: frozenset[str]) -> None:
        """Other controllers have come or gone: elect the masters of all switches anew."""
        self._live = live
        self._elect_all()

    def _elect_all(self) -> None:
        for switch in list(self._switches.values()):
            self.elect(switch)

    def elect(self, switch: Switch) -> None:
        """Take the role that the election gives us for this switch."""
        if not self._begun or not switch.ports_known:
            return
        keep = switch.wanted_role == Roles.MASTER
        wanted = Roles.MASTER if keep or self._elected(switch) else Roles.SLAVE
        if switch.wanted_role != wanted:
            switch.wanted_role = wanted
            switch.task = self._loop.create_task(self._take_role(switch, wanted))

    def _elected(self, switch: Switch) -> bool:
        return master_of(switch.datapath_id, self._live) == self._name

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
            if switch.session.role != role.role:  # the reply has been overtaken by news of a later claim
                self._overruled(switch, Role(switch.session.role, role.generation))
                return
            switch.role = switch.wanted_role = role.role
            LOG.info("%s of %s (generation %d)", switch.role_name, switch.host, role.generation)
            if role.role == Roles.MASTER:
                self._gained(switch)
            else:
                self._lost(switch)
            return

    def role_changed(self, switch: Switch, role: Role) -> None:
        """Another controller has become master of the switch: accept."""
        if role.role != switch.role:
            self._overruled(switch, role)

    def _overruled(self, switch: Switch, role: Role) -> None:
        name = Roles.NAMES[role.role % 4]
        LOG.info("%s of %s by another controller (generation %d)", name, switch.host, role.generation)
        switch.role = switch.wanted_role = role.role
        if self._elected(switch):
            # Someone who does not see us has taken it. Two that do not see each other must not flap, but should the
            # other die unseen, the switch must not stay without a master: ask again, less and less often.
            self._loop.call_later(switch.next_claim_delay(), self._claim_again, switch)
        switch.adopted = False
        switch.program = None
        self._lost(switch)

    def _claim_again(self, switch: Switch) -> None:
        if self._switches.get(switch.datapath_id) is switch and self._elected(switch):
            self.elect(switch)
