# SPDX-License-Identifier: Apache-2.0
"""Which services have lost backends, and which have none in rotation, when that begins and when it ends."""

from __future__ import annotations

import logging
from typing import Any

from ..model.model import Model, Touches
from ..pipeline.connections import users_of
from .metrics import Metrics

LOG = logging.getLogger(__name__)


class Rotation:
    """Watches the services with a Service IP; the model decides, this one only speaks."""

    def __init__(self, model: Model, metrics: Metrics) -> None:
        self._model = model
        self._metrics = metrics
        self._down: set[str] = set()
        self._pods: dict[str, frozenset[str]] = {}

    def review(self, touched: Touches) -> frozenset[str]:
        """Look at the services whose backends have changed; returns the groups that may use one that lost some."""
        groups: set[str] = set()
        for what, key in touched:
            if what == "backends" and self._review(str(key)):
                groups.update(users_of(self._model, str(key)))
        self._metrics.services_down.set(len(self._down))
        return frozenset(groups)

    def _review(self, service: str) -> bool:
        """Speak of a change; returns whether a backend has gone that is meant to be there."""
        backends = self._model.backends(service)
        before, now = self._pods.get(service, frozenset()), frozenset(pod.key for pod in backends.pods)
        self._pods[service] = now
        if not now:
            del self._pods[service]
        down = backends.kept and service in self._model.service_ips_of
        if down and service not in self._down:
            kept = ", ".join(pod.key for pod in backends.pods)
            LOG.warning("no backend of service %s is in rotation; these are kept: %s", service, kept)
        elif not down and service in self._down:
            LOG.info("service %s has backends in rotation again, or none at all", service)
        (self._down.add if down else self._down.discard)(service)
        # What drains keeps its connections, and what is no longer intended is looked after with the change of intent.
        gone = (self._model.pods.get(key) for key in before - now)
        failed = any(pod is not None and pod.state == "active" and pod.weight > 0 for pod in gone)
        return failed and service in self._model.service_ips_of

    def status(self) -> list[dict[str, Any]]:
        """One entry per service with a Service IP, by key."""
        return [self._status(service) for service in sorted(self._model.service_ips_of)]

    def _status(self, service: str) -> dict[str, Any]:
        backends = self._model.backends(service)
        return {"service": service, "backends": [pod.key for pod in backends.pods], "all_down": backends.kept}
