# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of listeners and routes, on the wanted state of the intent. Pure."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_rules, _l7_shape, _model


def check(
    want: _model.State, touched: t.Mapping[str, t.Collection[str]], where: t.Callable[[str, str], str]
) -> list[str]:
    """Every broken rule of listeners and routes that are touched, one sentence each.

    An export that goes is not held up by a route that needs it: closing must always be possible.
    """
    if not touched["l7_listener"] and not touched["l7_route"] and not touched["service"]:
        return []
    l7 = {key: json.loads(service.l7) for key, service in want["service"].items()}
    listeners = [record.values for dummy, record in sorted(want["l7_listener"].items())]
    routes = [record.values for dummy, record in sorted(want["l7_route"].items())]
    problems = []

    def say(kind: str, key: str, fault: _l7_rules.Fault) -> None:
        path, rule, hint = fault
        place = f"{_l7_shape.written(path)} " if path else ""
        problems.append(f"{where(kind, key)}: {place}{rule}; {hint[:1].lower()}{hint[1:].rstrip('.')}")

    exports = {(export.service, export.to): (export.direct, export.ports) for export in want["export"].values()}
    for listener in listeners:
        if listener["name"] in touched["l7_listener"]:
            for fault in _l7_rules.listener_faults(listener):
                say("l7_listener", listener["name"], fault)
    for route in routes:
        key = f"{route['listener']}/{route['name']}"
        itself = key in touched["l7_route"] or route["listener"] in touched["l7_listener"]
        if not itself and not set(touched["service"]) & set(_l7_rules.services_of(route)):
            continue
        listener = want["l7_listener"][route["listener"]].values
        faults = list(_l7_rules.inheriting_faults(listener, route, l7))
        if itself:
            whole = {**_l7_rules.inherited(listener, route, l7), **route}
            udp = listener["protocol"] == "udp"
            faults += _l7_rules.export_faults(listener["balancer"], whole, exports, udp)
        for fault in faults:
            say("l7_route", key, fault)
    for position, fault in _l7_rules.between_faults(listeners, routes):
        if position is None:
            say("l7_listener", listeners[int(fault[0][0])]["name"], (fault[0][1:], *fault[1:]))
        else:
            say("l7_route", f"{routes[position]['listener']}/{routes[position]['name']}", fault)
    return problems
