# SPDX-License-Identifier: Apache-2.0
"""What an owner wants on a switch: flows and groups of its own, and parts that it shares with others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..model.model import Touch
from .messages import Flow, FlowKey, Group


class Local(NamedTuple):
    """The owner of a local pod's flows."""

    pod: str


class Frame(NamedTuple):
    """The owner of the static flows."""


class Part(NamedTuple):
    """Flows that many owners need alike, wanted as long as one of them does: `what` they are, and for which object.

    "service": (network, address) of a Service IP; "presence": (network, address) of a pod; "answers": (origin, group
    number, family, grants); "network": (network,) that pods of the switch are in; "outside": (group,) of such pods.
    """

    what: str
    key: tuple[Any, ...]


@dataclass(slots=True)
class Program:
    """The flows and groups that one owner wants on a switch, and what of the model they were derived from.

    `needs` are wanted besides; `meters` are used besides those of the ports. That of a pair is the same on all
    switches and shared by them: nobody changes it.
    """

    flows: dict[FlowKey, Flow] = field(default_factory=dict)
    groups: dict[int, Group] = field(default_factory=dict)
    root: FlowKey | None = None
    depends: set[Touch] = field(default_factory=set)
    needs: set[Part] = field(default_factory=set)
    meters: tuple[int, ...] = ()
    drops: bool = False
    """Whether the root drops for a while."""

    @property
    def refuses(self) -> bool:
        """Whether it carries nothing: there is no root, or one that drops."""
        return self.root is None or self.drops

    def add(self, *flows: Flow) -> None:
        """Want these flows too."""
        for item in flows:
            self.flows[item.key] = item

    def add_root(self, item: Flow) -> None:
        """Want this flow; when it expires the demand has ended."""
        self.add(item)
        self.root, self.drops = item.key, bool(item.hard_timeout)
