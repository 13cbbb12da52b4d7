# SPDX-License-Identifier: Apache-2.0
"""Says which services have no backend in rotation, when that begins and when it ends."""

from __future__ import annotations

import logging
from typing import Any

from ..model.model import Model, Touches
from .metrics import Metrics

LOG = logging.getLogger(__name__)


class Rotation:
    """Watches the services with a Service IP; the model decides, this one only speaks."""

    def __init__(self, model: Model, metrics: Metrics) -> None:
        self._model = model
        self._metrics = metrics
        self._down: set[str] = set()

    def review(self, touched: Touches) -> None:
        """Look at the services whose backends have changed."""
        for what, key in touched:
            if what == "backends":
                self._review(str(key))
        self._metrics.services_down.set(len(self._down))

    def _review(self, service: str) -> None:
        backends = self._model.backends(service)
        down = backends.kept and service in self._model.service_ips_of
        if down and service not in self._down:
            kept = ", ".join(pod.key for pod in backends.pods)
            LOG.warning("no backend of service %s is in rotation; these are kept: %s", service, kept)
        elif not down and service in self._down:
            LOG.info("service %s has backends in rotation again, or none at all", service)
        (self._down.add if down else self._down.discard)(service)

    def status(self) -> list[dict[str, Any]]:
        """One entry per service with a Service IP, by key."""
        return [self._status(service) for service in sorted(self._model.service_ips_of)]

    def _status(self, service: str) -> dict[str, Any]:
        backends = self._model.backends(service)
        return {"service": service, "backends": [pod.key for pod in backends.pods], "all_down": backends.kept}
