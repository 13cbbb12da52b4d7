# SPDX-License-Identifier: Apache-2.0
"""What ends by the clock: tells what it touches in the moment that it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ..model.model import Model, Touches
from ..pipeline.connections import users_of
from .receipts import Receipts

LOG = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 30.0  # wall-clock time may jump: look again at least this often


class Expiry:
    """A timer for the next end in the model; `touch` is told what ended."""

    def __init__(self, model: Model, receipts: Receipts, touch: Callable[[Touches], None]) -> None:
        self._model = model
        self._receipts = receipts
        self._touch = touch
        self._until = time.time()
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self) -> None:
        """Look for the next end; to be called when the model has changed."""
        self.stop()
        # What has ended already is looked at again as well: the clock may be set back.
        following = self._model.next_expiry(min(self._until, time.time()))
        if following is None and self._model.ending:
            following = time.time() + LONGEST_WAIT_SECONDS
        if following is not None:
            delay = min(max(following - time.time(), 0.0) + 0.001, LONGEST_WAIT_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def stop(self) -> None:
        """Nothing ends any more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        now = time.time()
        if now < self._until:
            self._set_back(now)
            return
        ended = [e for e in self._model.ending.values() if e.expires and self._until < e.expires <= now]
        if ended:
            LOG.info("exports have expired: %s", ", ".join(sorted(export.key for export in ended)))
        drained, touched = self._model.end_drains(now)
        if drained:
            LOG.info("the time to drain is over for %s", ", ".join(sorted(pod.key for pod in drained)))
        self._receipts.expires(ended)
        self._receipts.left(frozenset(group for pod in drained for group in users_of(self._model, pod.service)))
        self._touch(self._model.expired(self._until, now) | touched)
        self._until = now
        self.schedule()

    def _set_back(self, now: float) -> None:
        """The clock goes after what has ended: some of it has not, and some may have ended unseen since then."""
        LOG.warning("the clock has been set back by %.0f s: exports end by the new time", self._until - now)
        self._touch(self._model.expired(now - 2 * LONGEST_WAIT_SECONDS, self._until))
        self._until = now
        self.schedule()
