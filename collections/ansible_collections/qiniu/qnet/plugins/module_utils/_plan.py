# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans: from what is there and what is wanted to the exact list of changes. Pure.

A :class:`Draft` starts as a copy of the intent that is there. Wishes are put into it and removed from it; ``plan()``
allocates what was left open, checks the result as a whole and returns the difference.
"""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _allocate, _check, _model, _parse


@dataclasses.dataclass(frozen=True)
class Change:
    """One object created (``before`` None), removed (``after`` None) or changed."""

    kind: str
    key: str
    before: t.Any
    after: t.Any

    @property
    def action(self) -> str:
        """``create``, ``change`` or ``remove``."""
        if self.before is None:
            return "create"
        return "change" if self.after is not None else "remove"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that has to change, and the intent as it will be afterwards."""

    changes: tuple[Change, ...]
    after: _model.State

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.changes)

    def steps(self) -> list[dict[str, str]]:
        """The plan for people and for return values, one entry per object."""
        return [{"action": change.action, "kind": change.kind, "name": change.key} for change in self.changes]

    def diff(self) -> dict[str, dict[str, t.Any]]:
        """``before`` and ``after``: the objects that change, by list name and then by key."""
        sides: dict[str, dict[str, t.Any]] = {"before": {}, "after": {}}
        for change in self.changes:
            for side, record in (("before", change.before), ("after", change.after)):
                if record is not None:
                    sides[side].setdefault(_model.plural(change.kind), {})[change.key] = _model.render(record)
        return sides


def difference(have: _model.State, want: _model.State) -> tuple[Change, ...]:
    """The changes that lead from one state to the other, in the order of :data:`_model.KINDS` and of keys."""
    changes = []
    for kind in _model.KINDS:
        before, after = have[kind], want[kind]
        for key in sorted(before.keys() | after.keys()):
            old, new = before.get(key), after.get(key)
            if old != new:
                changes.append(Change(kind, key, old, new))
    return tuple(changes)


# Fields that must be given when an object is created. All others have a default, are derived or are allocated.
REQUIRED: dict[str, tuple[str, ...]] = {
    "network": ("vni", "pod_subnets"),
    "host": ("vteps",),
    "security_group": ("tenant",),
    "service": ("network",),
    "l7_listener": ("balancer", "protocol", "port"),
}


class Draft:
    """The wanted intent while it is being put together.

    ``problems`` collects everything that is wrong; ``plan()`` raises them all at once as IntentRefused.
    """

    def __init__(self, have: _model.State) -> None:
        self.have = have
        self.state = have.copy()
        self.problems: list[str] = []
        self.paths: dict[tuple[str, str], str] = {}
        self.given: dict[tuple[str, str], frozenset[str]] = {}
        self.complete: set[tuple[str, str]] = set()

    def put(self, kind: str, values: t.Mapping[str, t.Any], path: str = "", complete: bool = False) -> str | None:
        """Ask for an object. Fields that are None keep their value; with ``complete`` they take their default.

        Returns the key of the object, or None when even its name is wrong.
        """
        known = len(self.problems)
        given = _parse.item(kind, values, path, self.problems)
        record_type = _model.KINDS[kind]
        missing = [field for field in record_type.key_fields if field not in given]
        if missing:
            if len(self.problems) == known:
                self._problem(path, f"{_model.TITLES[kind]} without {' and '.join(missing)}; give it")
            return None
        key = key_of(kind, given)
        if (kind, key) in self.given:
            self._problem(path, f"{_model.TITLES[kind]} '{key}' is given twice; keep one of them")
            return key
        self.paths[kind, key] = path
        self.given[kind, key] = frozenset(given)
        if complete:
            self.complete.add((kind, key))
        merged = self._merge(kind, key, given, complete)
        absent = [field for field in REQUIRED.get(kind, ()) if merged.get(field) is None]
        if absent:
            if len(self.problems) == known:
                self._problem(
                    path, f"{_model.TITLES[kind]} '{key}' does not exist yet; creating it needs {' and '.join(absent)}"
                )
            return key
        self.state.add(kind, record_type(**merged))
        return key

    def remove(self, kind: str, values: t.Mapping[str, t.Any], path: str = "") -> str | None:
        """Ask that an object be gone. Only its key fields are looked at."""
        key_fields = _model.KINDS[kind].key_fields
        known = len(self.problems)
        given = _parse.item(kind, {field: values.get(field) for field in key_fields}, path, self.problems)
        if len(given) < len(key_fields):
            if len(self.problems) == known:
                self._problem(path, f"{_model.TITLES[kind]} without {' and '.join(set(key_fields) - set(given))}")
            return None
        key = key_of(kind, given)
        self.paths[kind, key] = path
        self.state[kind].pop(key, None)
        return key

    def keep_only(
        self, kind: str, keep: t.Container[str | None], among: t.Callable[[t.Any], bool] | None = None
    ) -> None:
        """Remove every object of a kind (for which ``among`` holds) whose key is not in ``keep``."""
        for key, record in list(self.state[kind].items()):
            if key not in keep and (among is None or among(record)):
                del self.state[kind][key]

    def plan(self) -> Plan:
        """Allocate, check, compare. Raises IntentRefused with every problem found."""
        self._settle_networks()
        self._settle_drains(int(time.time()))
        self.problems += _allocate.fill(self.state, self.given, self._where)
        # What could not be allocated stays open; it must not be compared or checked any further.
        if not self.problems:
            self.problems += _check.check(self.have, self.state, self._where)
        if self.problems:
            raise _model.IntentRefused(self.problems)
        return Plan(difference(self.have, self.state), self.state)

    def _merge(self, kind: str, key: str, given: t.Mapping[str, t.Any], complete: bool) -> dict[str, t.Any]:
        existing = self.have[kind].get(key)
        merged: dict[str, t.Any] = {}
        for field in dataclasses.fields(_model.KINDS[kind]):
            has_default = field.default is not dataclasses.MISSING
            if field.name in given:
                merged[field.name] = given[field.name]
            elif existing is not None and not (complete and has_default):
                merged[field.name] = getattr(existing, field.name)
            else:
                merged[field.name] = field.default if has_default else self._derived(kind, key, field.name)
        return merged

    @staticmethod
    def _derived(kind: str, key: str, field: str) -> t.Any:
        if kind == "host" and field == "datapath_id":
            return _model.datapath_id_of(key)
        if kind == "pod" and field == "mac":
            return _model.mac_of(key)
        if kind == "pod" and field == "port_name":
            return _model.port_name_of(key)
        return None

    def _settle_networks(self) -> None:
        """Give Service IPs and new pods the network of their service, unless a Service IP is to be elsewhere."""
        services = self.state["service"]
        for kind, key in self.given:
            if kind not in ("service_ip", "pod") or key not in self.state[kind]:
                continue
            record = self.state[kind][key]
            service = services.get(record.service_key)
            if service is None:
                continue
            if kind == "service_ip":
                record = self._in_its_network(key, record, service.network)
            elif record.network is None:
                record = dataclasses.replace(record, network=service.network)
            self.state[kind][key] = record

    def _in_its_network(self, key: str, record: _model.ServiceIP, home: str) -> _model.ServiceIP:
        """A Service IP where it was asked for, where it was put before, or else where its service is."""
        given = self.given["service_ip", key]
        before = self.have["service_ip"].get(key)
        network = record.network if "network" in given else home
        if "network" not in given and before is not None and ("service_ip", key) not in self.complete:
            was_home = self.have["service"][before.service_key].network
            network = before.network if before.network != was_home else home
        stays = before is not None and before.network == network
        moved: dict[str, t.Any] = {} if stays or "address" in given else {"address": None}
        return dataclasses.replace(record, network=network, **moved)

    def _settle_drains(self, now: int) -> None:
        """Give a pod that begins to drain the end that its service sets, and take it from one that drains no more."""
        for key, record in self.state["pod"].items():
            before = self.have["pod"].get(key)
            if record is before:
                continue
            until = record.drain_until
            if record.state != "draining":
                until = None
            elif before is None or before.state != "draining":
                service = self.state["service"].get(record.service_key)
                allowed = service.drain_seconds if service is not None else None
                until = None if allowed is None else now + allowed
            self.state["pod"][key] = dataclasses.replace(record, drain_until=until)

    def _where(self, kind: str, key: str) -> str:
        """``path: kind 'key'``: how a sentence about an object begins."""
        path = self.paths.get((kind, key))
        return f"{path}: {_model.TITLES[kind]} '{key}'" if path else f"{_model.TITLES[kind]} '{key}'"

    def _problem(self, path: str, text: str) -> None:
        self.problems.append(f"{path}: {text}" if path else text)


def key_of(kind: str, values: t.Mapping[str, t.Any]) -> str:
    """The key of an object from its key fields."""
    if kind == "service_ip":
        return f"{values['group']}/{values['service']}:{values['name']}"
    if kind == "guest":
        return f"{values['network']}>{values['home']}"
    if kind == "export":
        return f"{values['service']} -> {values['to']}"
    return "/".join(values[field] for field in _model.KINDS[kind].key_fields)
