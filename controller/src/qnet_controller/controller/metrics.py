# SPDX-License-Identifier: Apache-2.0
"""Counters and gauges, in a registry of their own so that a process can hold several controllers (tests do)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_DURATIONS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)


class Metrics:
    """All metrics of a controller. Label values are hosts, tables, and fixed words."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.packet_in = self._counter("qnet_packet_in", "Packets that asked for a decision", "switch", "table")
        self.packet_in_dropped = self._counter("qnet_packet_in_dropped", "Packets left undecided", "reason")
        self.decisions = self._counter("qnet_decision", "Decisions by kind", "kind")
        self.packet_in_duration = Histogram(
            "qnet_packet_in_duration_seconds",
            "From a packet's arrival to its answer in the queue",
            buckets=_DURATIONS,
            registry=self.registry,
        )
        self.flow_mods = self._counter("qnet_flow_mods", "Commands sent: flows, groups, meters, flushes", "switch")
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
        self.health_checks = self._counter("qnet_health_checks", "Health checks made", "result")
        self.services_down = Gauge(
            "qnet_services_down",
            "Services with a Service IP and no backend in rotation",
            registry=self.registry,
        )
        self.settled = Gauge("qnet_settled", "Whether decisions are made", registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)
