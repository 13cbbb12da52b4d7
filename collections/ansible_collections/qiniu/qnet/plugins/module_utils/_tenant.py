# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks, guests, tenants, exports and what is balanced at L7, as the inventory nests them, in one plan. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _plan

Tree = t.Mapping[str, t.Any]
Wish = tuple[str, str, dict[str, t.Any]]
Options = dict[str, t.Any]

LISTS = ("networks", "guests", "tenants", "exports", "l7_listeners", "l7_routes")
"""The lists that are planned together; their documentation is the fragment ``tenants``."""


def options(element_options: t.Callable[[str], Options]) -> Options:
    """Argument spec of the lists and of purge. ``element_options``: the options of an element of a kind."""

    def without(kind: str, *fields: str) -> Options:
        return {name: option for name, option in element_options(kind).items() if name not in fields}

    service = {
        "name": {"type": "str", "required": True},
        "network": {"type": "str", "required": True},
        **without("service", "group", "name", "network"),
        "service_ips": _list_of(without("service_ip", "group", "service")),
    }
    group = {**without("security_group", "tenant", "number"), "services": _list_of(service)}
    tenant = {"name": {"type": "str", "required": True}, "security_groups": _list_of(group)}
    return {
        "networks": _list_of(element_options("network")),
        "guests": _list_of(element_options("guest")),
        "tenants": _list_of(tenant),
        "exports": _list_of(element_options("export")),
        "l7_listeners": _list_of(element_options("l7_listener")),
        "l7_routes": _list_of(element_options("l7_route")),
        "purge": {"type": "bool", "default": False},
    }


def _list_of(elements: Options) -> Options:
    return {"type": "list", "elements": "dict", "options": elements}


def planner(params: Tree) -> t.Callable[[_model.State], _plan.Plan]:
    """What plans the lists of a module's parameters."""
    lists = {name: params[name] for name in LISTS}
    return lambda have: plan_tenants(have, purge=params["purge"], **lists)


def plan_tenants(
    have: _model.State,
    networks: t.Sequence[Tree] | None,
    tenants: t.Sequence[Tree] | None,
    exports: t.Sequence[Tree] | None,
    purge: bool,
    l7_listeners: t.Sequence[Tree] | None = None,
    l7_routes: t.Sequence[Tree] | None = None,
    guests: t.Sequence[Tree] | None = None,
) -> _plan.Plan:
    """Plan the lists that are not None.

    Without ``purge`` what is not said is left alone. With it the lists are the whole truth: objects that are not
    listed go (with a service, its pods), and fields that are not said take their defaults; addresses and group
    numbers that were allocated stay. Raises IntentRefused with every problem.
    """
    draft = _plan.Draft(have)
    keep: dict[str, set[str]] = {kind: set() for kind in _model.KINDS}
    l7 = {"l7_listener": l7_listeners, "l7_route": l7_routes}
    for kind, path, values in (
        *_networks(networks or ()),
        *_guests(guests or ()),
        *_tenants(tenants or ()),
        *_exports(exports or ()),
        *_l7(l7),
    ):
        key = draft.put(kind, values, path, complete=purge)
        if key is not None:
            keep[kind].add(key)
    if purge:
        if networks is not None:
            draft.keep_only("network", keep["network"])
        if guests is not None:
            draft.keep_only("guest", keep["guest"])
        if tenants is not None:
            for kind in ("security_group", "service", "service_ip"):
                draft.keep_only(kind, keep[kind])
            draft.keep_only("pod", (), lambda pod: pod.service_key not in keep["service"])
        if exports is not None:
            draft.keep_only("export", keep["export"])
        for kind, wishes in l7.items():
            if wishes is not None:
                draft.keep_only(kind, keep[kind])
    return draft.plan()


def _networks(networks: t.Iterable[Tree]) -> t.Iterator[Wish]:
    for index, network in enumerate(networks):
        yield "network", f"networks[{index}]", dict(network)


def _guests(guests: t.Iterable[Tree]) -> t.Iterator[Wish]:
    for index, guest in enumerate(guests):
        yield "guest", f"guests[{index}]", dict(guest)


def _exports(exports: t.Iterable[Tree]) -> t.Iterator[Wish]:
    for index, export in enumerate(exports):
        yield "export", f"exports[{index}]", dict(export)


def _l7(wishes: t.Mapping[str, t.Sequence[Tree] | None]) -> t.Iterator[Wish]:
    for kind, given in wishes.items():
        for path, element in _elements(f"{kind}s", given):
            yield kind, path, dict(element)


def _tenants(tenants: t.Iterable[Tree]) -> t.Iterator[Wish]:
    for path, tenant in _elements("tenants", tenants):
        for group_path, group in _elements(f"{path}.security_groups", tenant.get("security_groups")):
            yield (
                "security_group",
                group_path,
                {
                    "name": group["name"],
                    "tenant": tenant["name"],
                    "number": group.get("number"),
                    "egress": group.get("egress"),
                    "broadcast": group.get("broadcast"),
                },
            )
            for service_path, service in _elements(f"{group_path}.services", group.get("services")):
                yield (
                    "service",
                    service_path,
                    {
                        "group": group["name"],
                        "name": service["name"],
                        "network": service["network"],
                        "health_check": service.get("health_check"),
                        "drain_seconds": service.get("drain_seconds"),
                        "l7": service.get("l7"),
                    },
                )
                for ip_path, service_ip in _elements(f"{service_path}.service_ips", service.get("service_ips")):
                    yield "service_ip", ip_path, {**service_ip, "group": group["name"], "service": service["name"]}


def _elements(path: str, elements: t.Iterable[Tree] | None) -> t.Iterator[tuple[str, Tree]]:
    for index, element in enumerate(elements or ()):
        yield f"{path}[{index}]", element
