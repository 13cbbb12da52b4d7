# SPDX-License-Identifier: Apache-2.0
"""What pods and tunnels have sent that they may not, by reason: read from the counters of the flows that drop it.

Every switch that this controller is master of is asked in turn for these flows only. A flow's counter begins anew when
the flow does, so what is added up is how far each has moved.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from ..model.model import Model
from ..openflow.events import Refused, SessionClosed
from ..pipeline.family import FAMILIES
from ..pipeline.messages import COOKIE_MAGIC, DROP_REASONS, Feature, FlowKey, InstalledFlow, Traffic
from . import names
from .metrics import Metrics
from .switch import Switch, in_turn

LOG = logging.getLogger(__name__)

ROUND_SECONDS = 10.0
EVENTS = 100
COOKIE = (COOKIE_MAGIC << 8 | DROP_REASONS) << 48
COOKIE_MASK = (0xFF << 8 | DROP_REASONS) << 48
TEXTS = {
    Feature.SPOOFED_MAC: "source MAC address is not its own",
    Feature.SPOOFED_IP: "source IP address is not its own",
    Feature.SPOOFED_ARP: "ARP that is no request from its own addresses",
    Feature.SPOOFED_ND: "neighbour discovery that is not its own",
    Feature.ROUTER: "router advertisement or redirect",
    Feature.DHCP: "DHCP",
    Feature.GROUP_ADDRESS: "multicast or broadcast",
    Feature.NOT_IP: "neither IP nor ARP",
    Feature.FORGED_TUNNEL: "VXLAN that its sender may not send",
    Feature.QUARANTINED: "questions while in quarantine",
}


class Source(NamedTuple):
    """Who sent it: a pod by key or a VTEP, at a host; and why it was dropped."""

    host: str
    sender: str
    reason: Feature


class Drops:
    """Asks the switches, adds up, says what is new."""

    def __init__(self, model: Callable[[], Model], switches: Mapping[int, Switch], metrics: Metrics) -> None:
        self._model, self._switches, self._metrics = model, switches, metrics
        self._seen: dict[int, dict[FlowKey, int]] = {}
        self._totals: Counter[Source] = Counter()
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._lines = names.Budget(20)
        self._task = asyncio.get_running_loop().create_task(self._rounds())

    def stop(self) -> None:
        """Ask no more."""
        self._task.cancel()

    async def _rounds(self) -> None:
        async for switch in in_turn(self._switches, ROUND_SECONDS):
            await self._look(switch)

    async def look(self) -> None:
        """Ask every switch now."""
        await asyncio.gather(*(self._look(one) for one in list(self._switches.values()) if one.ready() is not None))

    async def _look(self, switch: Switch) -> None:
        try:
            found = await switch.session.fetch_traffic(COOKIE, COOKIE_MASK, used=True)
        except (Refused, SessionClosed) as error:
            LOG.info("%s does not say what it has dropped: %s", switch.host, error)
            return
        if switch.ready() is not None:
            self.count(switch.datapath_id, switch.host, found)

    def count(self, datapath_id: int, host: str, found: Collection[tuple[InstalledFlow, Traffic]]) -> None:
        """Add what has been dropped since the last time, and say so; `found` may lack what has dropped nothing."""
        before, now = self._seen.get(datapath_id, {}), dict[FlowKey, int]()
        if not found and not before:
            return
        pods = {location.port: pod.key for pod, location in self._model().local_pods(datapath_id)}
        for flow, traffic in found:
            now[flow.key] = traffic.packets
            known = before.get(flow.key, 0)
            more = traffic.packets - known if traffic.packets >= known else traffic.packets
            reason = flow.cookie >> 48 & 0xFF
            if more and reason in TEXTS:
                self._add(Source(host, _sender(flow.key, pods, Feature(reason)), Feature(reason)), more)
        self._seen[datapath_id] = now

    def _add(self, source: Source, packets: int) -> None:
        self._totals[source] += packets
        self._metrics.spoofed.labels(source.host, source.reason.name.lower()).inc(packets)
        self.event(source.host, source.sender, f"{packets} packets dropped: {TEXTS[source.reason]}")

    def event(self, host: str, sender: str, text: str) -> None:
        """Keep and log that something has happened with a pod."""
        self._events.append({"time": round(time.time(), 3), "host": host, "sender": sender, "text": text})
        if self._lines.allow(time.monotonic()):
            LOG.warning("%s at %s: %s", sender, host, text)

    def status(self) -> dict[str, Any]:
        """The totals and the latest events."""
        rows = [
            {"host": one.host, "sender": one.sender, "reason": one.reason.name.lower(), "packets": packets}
            for one, packets in sorted(self._totals.items())
        ]
        return {"drops": rows, "events": list(self._events)}


def _sender(key: FlowKey, pods: Mapping[int, str], reason: Feature) -> str:
    terms = {name: value for name, value, _ in key[2]}
    for ip in FAMILIES:
        vtep = terms.get(ip.tunnel_source.name)
        if vtep is not None:
            return f"VTEP {names.address_text(vtep.to_bytes(ip.bytes, 'big'))}"
    if reason is Feature.FORGED_TUNNEL:
        return "VTEPs of no host"
    port = terms.get("in_port", terms.get("reg3", 0))
    return f"pod {pods[port]}" if port in pods else f"port {port}"
