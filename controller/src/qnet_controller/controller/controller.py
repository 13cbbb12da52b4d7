# SPDX-License-Identifier: Apache-2.0
"""The controller: intent and locations in, flows out. Everything runs on one event loop.

Switches are taken over only when the model is complete enough to be right about them (`settled`); from then on every
change of the model is corrected on all mastered switches before a packet is decided on the new model.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from functools import partial
from typing import Any

from ..config import Config
from ..model.model import Model, Touches
from ..model.objects import Host, Pod
from ..openflow.codec import Role, Roles, SwitchError
from ..openflow.events import CommitFailed, Dump, Refused, SessionClosed
from ..openflow.session import Session
from ..ovsdb.feed import Delta
from ..pipeline.messages import Command, Commands, FlowRemoved, FlushZone, Installed, PacketIn, Port, Tampered
from ..pipeline.program import SwitchProgram
from . import names, status, warm
from .ahead import Ahead
from .drops import Drops
from .expiry import Expiry
from .full import Full
from .health import Health
from .mastership import Mastership
from .metrics import Metrics
from .neighbours import Neighbours
from .packets import Packets
from .receipts import Receipts
from .rotation import Rotation
from .switch import FIRST_RETRY_SECONDS, Switch
from .tampering import Tampering
from .word import Word

LOG = logging.getLogger(__name__)

SETTLE_SECONDS = 3.0
FREEZE_AGAIN_SECONDS = 30.0  # by when all switches have been adopted
HOST_GRACE_SECONDS = 3.0
_LOGGED_FAILURES = 5
_FIRST_RESERVED_PORT = 0xFFFFFF00


class Controller:
    """Joins the intent feed, the sessions and the programs of the switches. Implements `openflow.session.Events`."""

    def __init__(
        self,
        config: Config,
        *,
        settle_seconds: float = SETTLE_SECONDS,
        host_grace_seconds: float = HOST_GRACE_SECONDS,
    ) -> None:
        self.config = config
        self.model = Model()
        self.metrics = Metrics()
        self._rotation = Rotation(self.model, self.metrics)
        self.switches: dict[int, Switch] = {}
        self._health = Health(self.model, self.switches, self.metrics)
        self.mastership = Mastership(config, self.model, self.switches, self._mastered, self._unmastered)
        self.receipts = Receipts(config, self.switches, lambda: self.model)
        self._packets = Packets(self.model, self.switches, self.metrics, self._flush, self._commit, self._adopt_later)
        self._ahead = Ahead(self.model, self.switches)
        self._neighbours = Neighbours(self.model, self.switches, config.decisions)
        self.drops = Drops(lambda: self.model, self.switches, self.metrics)
        self.full = Full(lambda: self.model, self.switches, self.receipts.shares, self.drops.event, self.metrics)
        self._expiry = Expiry(self.model, self.receipts, self._touch)
        self.loaded = False
        self.settled = False
        self.generation = 0
        self._settle_seconds = settle_seconds
        self._host_grace_seconds = host_grace_seconds
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[Session, None] = {}
        self._waiting: dict[Session, None] = {}
        self._programs: dict[int, SwitchProgram] = {}
        self._dirty: Touches = frozenset()
        self._settling: asyncio.TimerHandle | None = None
        self._tampering = Tampering(self.model, self.metrics)

    # -- intent ----------------------------------------------------------------------------------------------------

    def intent_changed(self, delta: Delta) -> None:
        """Take over a change of intent; the first one completes the model."""
        self.receipts.arrives(delta.changes, delta.generation)
        self._touch(self.model.apply(delta.changes))
        self.generation = delta.generation
        self.receipts.arrived(touched=bool(self._dirty))
        self.metrics.malformed_rows.set(delta.malformed)
        self.metrics.generation.set(delta.generation)
        self._loop.call_soon(self._count_model)  # after the switches have been told
        if not self.loaded:
            self.loaded = True
            LOG.info("intent loaded: generation %d, %s", self.generation, status.model_counts(self.model))
        if any(isinstance(change, Host) or getattr(change, "kind", None) is Host for change in delta.changes):
            self._review_hosts()
        for session in list(self._waiting):
            self._admit(session)
        self._check_settled()
        self._expiry.schedule()

    def _review_hosts(self) -> None:
        """Let go of switches whose host is gone or has become another one."""
        for switch in list(self.switches.values()):
            host = self.model.host_by_datapath.get(switch.datapath_id)
            if host is not None and host.name == switch.host:
                continue
            LOG.warning("switch %016x is no longer the one of host %s", switch.datapath_id, switch.host)
            self._forget(switch)
            self._programs.pop(switch.datapath_id, None)
            self._touch(self.model.switch_ports(switch.datapath_id, ()))
            self._admit(switch.session)
        self.mastership.elect_all()

    def _count_model(self) -> None:
        for kind, count in status.model_counts(self.model).items():
            self.metrics.model_objects.labels(kind).set(count)

    def _touch(self, touched: Touches) -> None:
        if not touched:
            return
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty |= touched

    def _flush(self) -> None:
        """Correct every mastered switch for all changes of this turn, one bundle each."""
        touched, self._dirty = self._dirty, frozenset()
        if not touched:
            return
        self.receipts.left(self._rotation.review(touched))
        self._health.review(touched)
        now = time.time()
        turn = self.receipts.begin()
        for switch in self.switches.values():
            program = switch.ready()
            if program is None:
                continue
            try:
                newcomers = warm.newcomers(self.model, switch.datapath_id, program, touched)
                commands = (*program.refresh(touched, now), *self._foreseen(program, newcomers, now))
                self.receipts.sent(turn, switch, commands, self._commit(switch, commands))
            except Exception:
                LOG.exception("cannot correct the flows of %s", switch.host)
                self.handler_failed(switch.session, "refresh")
                self._adopt_later(switch)

    def _foreseen(self, program: SwitchProgram, newcomers: list[Pod], now: float) -> Commands:
        if not newcomers or not self.config.decisions.warm_start:
            return ()
        sources = [address for pod in newcomers for address in pod.addresses]
        return program.foresee(warm.pairs(self.model, newcomers, self._programs), sources, now)

    # -- switches come and go ----------------------------------------------------------------------------------------

    def turned_away(self, address: str, reason: str) -> None:
        """A peer without a certificate of the fleet has been turned away."""
        self.metrics.turned_away.inc()

    def identified(self, session: Session) -> None:
        """A switch has said who it is."""
        self._sessions[session] = None
        self._admit(session)

    def _admit(self, session: Session) -> None:
        datapath_id = session.datapath_id
        if datapath_id is None or session.closing:
            return
        host = self.model.host_by_datapath.get(datapath_id)
        if host is None or not self.loaded:
            if session not in self._waiting:
                self._waiting[session] = None
                why = "no Host row has its datapath id yet" if self.loaded else "the intent is not loaded yet"
                LOG.info("switch %016x (%s) waits: %s", datapath_id, session, why)
            return
        self._waiting.pop(session, None)
        if host.name != session.peer_name:
            LOG.warning(
                "dropped %s: its certificate is for host %r, but switch %016x belongs to host %s",
                session, session.peer_name, datapath_id, host.name,
            )  # fmt: skip
            self.metrics.refused_peers.inc()
            session.drop("claims the switch of another host")
            return
        old = self.switches.pop(datapath_id, None)
        if old is not None:
            old.stop()
            old.session.drop("replaced by a newer connection")
        switch = Switch(session, datapath_id, host.name, self._loop.time())
        self.switches[datapath_id] = switch
        LOG.info("switch of host %s connected from %s", host.name, session.address)
        session.fetch_ports(partial(self._ports, switch), partial(self._ports_failed, switch))
        self._count_roles()

    def _ports(self, switch: Switch, ports: list[Port]) -> None:
        if self.switches.get(switch.datapath_id) is not switch:
            return
        listed = [port for port in ports if port.number < _FIRST_RESERVED_PORT]
        switch.hardware = {port.number: port.hardware for port in listed}
        known = [(port.number, port.name, port.live) for port in listed]
        passing = {port.number for port in listed if port.passing}
        self._touch(self.model.switch_ports(switch.datapath_id, known, passing))
        switch.ports_known = True
        self._check_settled()
        self.mastership.elect(switch)

    def _ports_failed(self, switch: Switch, error: Exception) -> None:
        if isinstance(error, Refused):
            switch.session.drop(f"refuses to describe its ports: {error}")

    def port_status(self, session: Session, port: Port, gone: bool) -> None:
        """A port is new, changed or gone."""
        switch = self._switch(session)
        if switch is None or not switch.ports_known or port.number >= _FIRST_RESERVED_PORT:
            return
        pod = self.model.pod_by_port.get(port.name)
        state = "gone" if gone else "up" if port.live else "down"
        LOG.info("port %s (%s) of %s is %s", port.name, pod.key if pod else "no pod", switch.host, state)
        if gone:
            self._touch(self.model.port_gone(switch.datapath_id, port.number))
        else:
            switch.hardware[port.number] = port.hardware
            self._touch(self.model.port_seen(switch.datapath_id, port.number, port.name, port.live, port.passing))

    def lost(self, session: Session, reason: str) -> None:
        """The connection has ended; its pods leave the rotation when it stays away."""
        self._sessions.pop(session, None)
        self._waiting.pop(session, None)
        switch = self._switch(session)
        if switch is None:
            return
        LOG.warning("switch of host %s disconnected: %s", switch.host, reason)
        self._forget(switch)
        # Who says nothing has had its time; whoever closes the connection may be back at once.
        grace = 0.0 if session.silent else self._host_grace_seconds
        self._loop.call_later(grace, self._grace_over, switch.datapath_id)

    def _grace_over(self, datapath_id: int) -> None:
        if datapath_id not in self.switches:
            self._touch(self.model.switch_lost(datapath_id))

    def _forget(self, switch: Switch) -> None:
        switch.stop()
        if self.switches.get(switch.datapath_id) is switch:
            del self.switches[switch.datapath_id]
        self._health.switch_changed(switch)
        self._count_roles()

    def _switch(self, session: Session) -> Switch | None:
        switch = self.switches.get(session.datapath_id) if session.datapath_id is not None else None
        return switch if switch is not None and switch.session is session else None

    def violated(self, session: Session, reason: str) -> None:
        """A peer broke the protocol and is being dropped."""
        self.metrics.violations.inc()

    def handler_failed(self, session: Session, event: str) -> None:
        """A handler raised and has been logged."""
        self.metrics.handler_exceptions.labels(event).inc()

    # -- mastership ----------------------------------------------------------------------------------------------------

    def _check_settled(self) -> None:
        """Settle when every active host has said where its pods are, or enough time has passed for the others."""
        if self.settled or not self.loaded:
            return
        known = {number for number, switch in self.switches.items() if switch.ports_known}
        expected = {host.datapath_id for host in self.model.hosts.values() if host.state == "active"}
        if known and expected <= known:
            self._settle()
        elif known and self._settling is None:
            self._settling = self._loop.call_later(self._settle_seconds, self._settle)

    def _settle(self) -> None:
        if self.settled:
            return
        self.settled = True
        self.metrics.settled.set(1)
        if self._settling:
            self._settling.cancel()
        absent = sorted(h.name for h in self.model.hosts.values() if h.datapath_id not in self.switches)
        LOG.info("settled with %d switches%s", len(self.switches), f"; absent: {', '.join(absent)}" if absent else "")
        self.mastership.begin()
        self._ahead.begin()
        self._freeze()
        self._loop.call_later(FREEZE_AGAIN_SECONDS, self._freeze)

    def _freeze(self) -> None:
        """Leave what has been built so far out of garbage collection: it would stop all switches for its duration."""
        gc.freeze()

    @property
    def ready(self) -> bool:
        """Whether a switch that connects now is served: the intent is loaded and nothing is being waited for."""
        return self.loaded and (self.settled or self._settling is None)

    def word(self) -> Word:
        """What this controller tells the others about itself."""
        return Word(self.settled and not self.mastership.leaving, self.generation, lacks=self.mastership.lacks)

    def role_changed(self, session: Session, role: Role) -> None:
        """Another controller has become master of the switch: accept."""
        if (switch := self._switch(session)) is not None:
            self.mastership.role_changed(switch, role)

    def _mastered(self, switch: Switch) -> None:
        self._count_roles()
        self._adopt(switch)

    def _unmastered(self, switch: Switch) -> None:
        switch.session.monitor(False)
        self._programs.pop(switch.datapath_id, None)
        self._health.switch_changed(switch)
        self._count_roles()

    def _count_roles(self) -> None:
        for role in Roles.NAMES[1:]:
            self.metrics.switches.labels(role).set(sum(s.role_name == role for s in self.switches.values()))

    # -- adoption ------------------------------------------------------------------------------------------------------

    def _adopt(self, switch: Switch) -> None:
        """Read back what the switch holds; its answer is handled before anything that it says later."""
        if switch.retry:
            switch.retry.cancel()
            switch.retry = None
        if switch.role == Roles.MASTER and self.switches.get(switch.datapath_id) is switch:
            switch.adopted = False
            switch.session.monitor(True)  # before the dump, so that nothing falls between the two
            switch.session.fetch_dump(partial(self._dumped, switch), partial(self._dump_failed, switch))

    def _dump_failed(self, switch: Switch, error: Exception) -> None:
        if isinstance(error, Refused):
            LOG.error("%s refuses to show its flows: %s", switch.host, error)
            self._adopt_later(switch)

    def _dumped(self, switch: Switch, dump: Dump) -> None:
        if switch.role != Roles.MASTER or self.switches.get(switch.datapath_id) is not switch:
            return
        program = self._programs.get(switch.datapath_id)
        if program is None:
            program = SwitchProgram(self.model, switch.datapath_id, self.config.decisions)
            self._programs[switch.datapath_id] = program
        try:
            now = time.time()
            commands = program.adopt(Installed(dump.flows, frozenset(dump.groups), dump.meters), now)
            commands = (*commands, *self._tampering.undo_unseen(switch.host, program, dump))
            if not dump.flows:  # a host that has just started
                pods = [pod for pod, _ in self.model.local_pods(switch.datapath_id)]
                commands = (*commands, *self._foreseen(program, pods, now))
        except Exception:
            # Flows cannot be told from the program any more: begin anew, with the demands read from the switch.
            self._programs.pop(switch.datapath_id, None)
            self._adopt_later(switch)
            raise
        switch.program, switch.adopted = program, True
        self.metrics.adoptions.labels(switch.host).inc()
        LOG.info(
            "adopted %s: found %d flows, %d groups, %d meters; %d commands; %s",
            switch.host, len(dump.flows), len(dump.groups), len(dump.meters), len(commands), program.status(),
        )  # fmt: skip
        owed, switch.owed = tuple(switch.owed), {}
        self.receipts.adopting(switch, self._commit(switch, (*commands, *owed)))
        self._health.switch_changed(switch)
        self._neighbours.ask(switch)
        for packet in switch.release(self._loop.time()):
            self.packet_in(switch.session, packet)

    def compare(self, datapath_id: int) -> None:
        """Compare a switch that we are master of with what it should hold, and put right what differs."""
        switch = self.switches.get(datapath_id)
        if switch is not None and switch.ready() is not None:
            self._adopt(switch)

    def _adopt_later(self, switch: Switch) -> None:
        """Compare again with what the switch really holds, after a delay that grows while it does not help."""
        if switch.retry is None and self.switches.get(switch.datapath_id) is switch:
            switch.retry = self._loop.call_later(switch.next_delay(), self._adopt, switch)

    def tampered(self, session: Session, found: list[Tampered]) -> None:
        """Someone else has changed flows, groups or meters: put them right at once."""
        switch = self._switch(session)
        if switch is None:
            return
        if not switch.tampered:  # a group and the flows that went with it are one repair
            self._loop.call_soon(self._repair, switch)
        switch.tampered += found

    def _repair(self, switch: Switch) -> None:
        found, switch.tampered = switch.tampered, []
        program = switch.ready()
        if program is not None:  # otherwise it is compared as a whole when it is adopted
            self._commit(switch, self._tampering.undo(switch.host, program, found))

    # -- commands ------------------------------------------------------------------------------------------------------

    def _commit(self, switch: Switch, commands: Commands) -> asyncio.Future[None] | None:
        if not commands:
            return None
        self.metrics.flow_mods.of[switch.host,] += len(commands)
        future = switch.session.commit(commands)
        future.add_done_callback(partial(self._committed, switch))
        return future

    def _committed(self, switch: Switch, future: asyncio.Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is None:
            if switch.retry is None:
                switch.retry_seconds = FIRST_RETRY_SECONDS
            return
        if isinstance(error, CommitFailed):
            for command, cause in error.failures[:_LOGGED_FAILURES]:
                self._log_refusal(switch, cause, command)
            switch.owed |= {command: None for command in error.commands if isinstance(command, FlushZone)}
            self._adopt_later(switch)
        elif not isinstance(error, SessionClosed):
            LOG.error("commands for %s failed", switch.host, exc_info=error)
            self.handler_failed(switch.session, "commit")
            self._adopt_later(switch)

    def refused(self, session: Session, error: SwitchError, command: Command | None) -> None:
        """The switch refused a single command: compare again with what it holds."""
        switch = self._switch(session)
        if switch is None:
            LOG.warning("%s reports %s", session, error)
            return
        self._log_refusal(switch, error, command)
        if command is not None:
            self._adopt_later(switch)

    def _log_refusal(self, switch: Switch, error: SwitchError, command: Command | None) -> None:
        if error.overtaken:  # it says that we are no longer master, before or after the switch has told us so
            self.metrics.overtaken_writes.inc()
            return
        self.metrics.errors.labels(switch.host, str(error)).inc()
        LOG.error("%s refuses %s: %s", switch.host, names.command_name(self.model, command), error)

    # -- packets -------------------------------------------------------------------------------------------------------

    def packet_in(self, session: Session, packet: PacketIn) -> None:
        """Decide on a packet: flows first, then the packet itself."""
        began = time.perf_counter()
        switch = self._switch(session)
        if switch is not None and self._health.answered(switch, packet):
            return
        program = switch.ready() if switch else None
        if switch is not None and program is None and switch.wanted_role == Roles.MASTER:
            switch.hold(packet, self._loop.time())
            return
        if switch is None or program is None:
            self.metrics.packet_in_dropped.labels("unsettled" if not self.settled else "not adopted").inc()
            return
        if session.congested:  # the flow would wait in the queue; the pair asks again
            self.metrics.packet_in_dropped.labels("congested").inc()
            return
        self._packets.decide(switch, program, packet, began)

    def shed(self, session: Session, packets: int) -> None:
        """Packets have been left unread: the switch sends more of them than its share."""
        self.metrics.packet_in_dropped.labels("above its switch's share").inc(packets)

    def flow_removed(self, session: Session, removed: FlowRemoved) -> None:
        """A flow has ended by itself or was deleted behind our back."""
        switch = self._switch(session)
        if switch is not None and switch.ready() is not None:
            self._packets.flow_removed(switch, removed)

    # -- for people ----------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What /v1/status shows."""
        mine = {"name": self.config.name, "ready": self.ready, "loaded": self.loaded, "settled": self.settled}
        waiting = sorted(f"{session.datapath_id:016x} {session}" for session in self._waiting)
        switches = status.switches(self.model, self.switches, self.mastership.master_for)
        fleet = status.fleet(self.model, switches, self._rotation, self._health)
        return mine | {"generation": self.generation, "waiting": waiting} | fleet

    def close(self) -> None:
        """Stop: connections are closed, nothing is taken from the switches."""
        self.mastership.close()
        self._expiry.stop()
        if self._settling:
            self._settling.cancel()
        self.receipts.stop()
        self._health.close()
        for background in (self.drops, self.full, self._ahead, self._neighbours):
            background.stop()
        for switch in list(self.switches.values()):
            switch.stop()
        for session in list(self._sessions):
            session.close("the controller stops")
