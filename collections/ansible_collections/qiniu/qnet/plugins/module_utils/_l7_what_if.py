# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan would do to the requests of L7 balancers: where they would go, and which nginx is reloaded. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _plan

_ASKED = ("service", "l7_listener", "l7_route")

Way = tuple[str, str, str]
"""Listener, which of its requests, where they go."""


def requests(plan: _plan.Plan) -> dict[str, t.Any]:
    """``gained`` and ``lost``: ways of requests; ``reloaded``: the services whose nginx takes a new configuration.

    A way is ``listener``, ``requests`` and ``to``, all for people. The requests of a route that goes fall to the next
    one that matches, or get a 404.
    """
    changed = [change for change in plan.changes if change.kind in _ASKED]
    after = {kind: dict(plan.after[kind]) for kind in _ASKED}
    before = {kind: dict(records) for kind, records in after.items()}
    for change in changed:
        if change.before is None:
            del before[change.kind][change.key]
        else:
            before[change.kind][change.key] = change.before
    have, want = _ways(before), _ways(after)
    reloaded = {_balancer(side, change) for change in changed for side in (before, after)} if changed else set()
    return {
        "gained": [_shown(way) for way in sorted(want - have)],
        "lost": [_shown(way) for way in sorted(have - want)],
        "reloaded": sorted(name for names in reloaded for name in names),
    }


def text(found: t.Mapping[str, t.Any]) -> list[str]:
    """The same as lines for people."""
    lines = [f"- requests to {_line(way)}" for way in found["lost"]]
    lines += [f"+ requests to {_line(way)}" for way in found["gained"]]
    if found["reloaded"]:
        lines.append(f"nginx is reloaded, open connections stay: {', '.join(found['reloaded'])}")
    return lines


def _line(way: t.Mapping[str, str]) -> str:
    return f"{way['listener']} {way['requests']}: {way['to']}"


def _shown(way: Way) -> dict[str, str]:
    return dict(zip(("listener", "requests", "to"), way, strict=True))


def _ways(side: t.Mapping[str, t.Mapping[str, t.Any]]) -> set[Way]:
    ways = set()
    for route in side["l7_route"].values():
        listener = side["l7_listener"].get(route.listener)
        if listener is not None:
            name = f"{listener.name} ({listener.protocol} port {listener.port} of {listener.balancer})"
            ways |= {(name, _which(route.values), to) for to in _targets(route.values)}
    return ways


def _which(route: t.Mapping[str, t.Any]) -> str:
    """The requests that a route takes, as its options say it."""
    hosts = ", ".join(route.get("hosts") or ["any host"])
    path = f" {route.get('match', 'prefix')} {route['path']}" if "path" in route else ""
    methods = f" {'/'.join(route['methods'])}" if route.get("methods") else ""
    return f"for {hosts}{path}{methods}"


def _targets(route: t.Mapping[str, t.Any]) -> list[str]:
    """Where its requests go."""
    if route.get("maintenance", {}).get("enabled"):
        return ["the maintenance page"]
    if "redirect" in route:
        return [f"redirected to {route['redirect']['to']}"]
    if "respond" in route:
        return ["answered by nginx"]
    if "static" in route:
        return [f"files of {route['static']['directory']}"]
    backends = route.get("backends") or []
    whole = sum(entry.get("weight", 1) for entry in backends) or 1
    return [
        f"{entry['service']} port {entry['port']}"
        + (f" ({100 * entry.get('weight', 1) / whole:.3g} %)" if len(backends) > 1 else "")
        for entry in backends
    ]


def _balancer(side: t.Mapping[str, t.Mapping[str, t.Any]], change: _plan.Change) -> frozenset[str]:
    """The balancers to whose configuration a changed object belongs, as things stand on one side of the change."""
    record = side[change.kind].get(change.key)
    if record is None:
        return frozenset()
    if isinstance(record, _model.L7Listener):
        return frozenset({record.balancer})
    if isinstance(record, _model.L7Route):
        return _of_listeners(side, {record.listener})
    told = change.before is not None and change.after is not None and change.before.l7 != change.after.l7
    asking = {route.listener for route in side["l7_route"].values() if told and record.key in route.services}
    return _of_listeners(side, asking)


def _of_listeners(side: t.Mapping[str, t.Mapping[str, t.Any]], names: t.Iterable[str]) -> frozenset[str]:
    return frozenset(side["l7_listener"][name].balancer for name in names if name in side["l7_listener"])
