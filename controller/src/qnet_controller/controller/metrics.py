# SPDX-License-Identifier: Apache-2.0
"""Counters and gauges, in a registry of their own so that a process can hold several controllers (tests do)."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

_DURATIONS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)


class Tally(Collector):
    """A counter of the hot path: numbers by the values of its labels, which become samples when somebody asks.

    A counter of the library takes a lock for each change. This one belongs to the event loop.
    """

    def __init__(self, registry: CollectorRegistry, name: str, text: str, *labels: str) -> None:
        self.of: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._name, self._text, self._labels = name, text, labels
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The samples."""
        found = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self.of.items():
            found.add_metric(labels, value)
        yield found


class Durations(Collector):
    """A histogram of the hot path, kept in the same way; in seconds."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str) -> None:
        self._counts, self._sum = [0] * (len(_DURATIONS) + 1), 0.0
        self._name, self._text = name, text
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """Something has taken so long."""
        self._counts[bisect_left(_DURATIONS, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The samples."""
        buckets, total = [], 0
        for bound, count in zip((*map(str, _DURATIONS), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)


class Metrics:
    """All metrics of a controller. Label values are hosts, tables, and fixed words."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.packet_in = self._tally("qnet_packet_in", "Packets that asked for a decision", "switch", "table")
        self.packet_in_dropped = self._counter("qnet_packet_in_dropped", "Packets left undecided", "reason")
        self.decisions = self._tally("qnet_decision", "Decisions by kind", "kind")
        self.packet_in_duration = Durations(
            self.registry, "qnet_packet_in_duration_seconds", "From a packet's arrival to its answer in the queue"
        )
        self.flow_mods = self._tally("qnet_flow_mods", "Commands sent: flows, groups, meters, flushes", "switch")
        self.flow_removed = self._counter("qnet_flow_removed", "Flows that ended by themselves", "switch")
        self.errors = self._counter("qnet_openflow_errors", "Errors reported by switches", "switch", "error")
        self.overtaken_writes = self._counter("qnet_overtaken_writes", "Writes refused: another had become the master")
        self.adoptions = self._counter("qnet_adoptions", "Times a switch was adopted", "switch")
        self.tampered = self._counter("qnet_tampered", "Changes by others that were put right", "switch", "kind")
        self.violations = self._counter("qnet_guard_violations", "Peers dropped for breaking OpenFlow")
        self.handler_exceptions = self._counter("qnet_handler_exceptions", "Exceptions survived in a handler", "event")
        self.turned_away = self._counter("qnet_turned_away", "Connections without a certificate of the fleet")
        self.refused_peers = self._counter("qnet_refused_peers", "Connections that claimed another host's switch")
        self.switches = Gauge("qnet_switches", "Connected switches by role", ["role"], registry=self.registry)
        self.generation = Gauge("qnet_model_generation", "Generation of the intent in use", registry=self.registry)
        self.model_objects = Gauge("qnet_model_objects", "Objects of intent", ["kind"], registry=self.registry)
        self.malformed_rows = Gauge("qnet_malformed_rows", "Rows of the database left out", registry=self.registry)
        self.spoofed = self._counter("qnet_spoofed", "Packets dropped that a sender may not send", "switch", "reason")
        self.quarantines = self._counter("qnet_quarantines", "Pods put in quarantine for asking in vain", "switch")
        self.crowded = self._counter("qnet_crowded", "Pods that had too many demands and gave up the oldest", "switch")
        self.full = Gauge(
            "qnet_full_pods",
            "Pods with all the connections that they may have",
            ["switch"],
            registry=self.registry,
        )
        self.health_checks = self._counter("qnet_health_checks", "Health checks made", "result")
        self.services_down = Gauge(
            "qnet_services_down",
            "Services with a Service IP and no backend in rotation",
            registry=self.registry,
        )
        self.settled = Gauge("qnet_settled", "Whether decisions are made", registry=self.registry)

    def _tally(self, name: str, text: str, *labels: str) -> Tally:
        return Tally(self.registry, name, text, *labels)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)
