# SPDX-License-Identifier: GPL-3.0-or-later
"""What L7 listeners and routes must be to each other, to services and exports. What has a wrong shape is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_rules, _l7_schema, _l7_shape
from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_index import Index
from ansible_collections.qiniu.qnet.plugins.plugin_utils.problem import Path, Problem, suggest

Listed = list[tuple[int, Mapping[str, Any]]]


def l7_problems(inventory: Mapping[str, Any], index: Index, has_file: Callable[[str], bool]) -> Iterator[Problem]:
    """Everything in the listeners and routes of an inventory that contradicts itself or the rest."""
    listeners = _well_formed(inventory.get("qnet_l7_listeners"), _l7_schema.LISTENER)
    routes = _well_formed(inventory.get("qnet_l7_routes"), _l7_schema.ROUTE)
    yield from _names("qnet_l7_listeners", listeners, lambda item: (item["name"],))
    yield from _names("qnet_l7_routes", routes, lambda item: (item["listener"], item["name"]))
    by_name = {item["name"]: item for dummy, item in listeners}
    services = {service.name: service for service in index.services}
    exports = dict(_exports(index))
    l7 = {}
    for item in index.services:
        said = item.keys.get("l7")
        if isinstance(said, Mapping) and not any(_l7_shape.faults(_l7_schema.SERVICE, said)):
            l7[item.name] = said
            yield from _files((*item.path, "l7"), said, has_file, _l7_schema.SERVICE)
    for position, listener in listeners:
        path: Path = ("qnet_l7_listeners", position)
        if listener["balancer"] not in services:
            hint = suggest(listener["balancer"], services, "Add it")
            yield Problem((*path, "balancer"), listener["balancer"], "is no service of qnet_tenants", hint)
        yield from _faults(path, listener, _l7_rules.listener_faults(listener))
        yield from _files(path, listener, has_file, _l7_schema.LISTENER)
    for position, route in routes:
        path = ("qnet_l7_routes", position)
        yield from _files(path, route, has_file, _l7_schema.ROUTE)
        listener = by_name.get(route["listener"], {})
        if not listener:
            hint = suggest(route["listener"], by_name, "Add it to qnet_l7_listeners")
            yield Problem((*path, "listener"), route["listener"], "is no listener of qnet_l7_listeners", hint)
            continue
        yield from _faults(path, route, _l7_rules.inheriting_faults(listener, route, l7))
        unknown = [service for service in _l7_rules.services_of(route) if service not in services]
        for service in unknown:
            yield Problem(path, service, "is no service of qnet_tenants", suggest(service, services, "Add it"))
        if not unknown:
            udp = listener["protocol"] == "udp"
            whole = {**_l7_rules.inherited(listener, route, l7), **route}
            yield from _faults(path, route, _l7_rules.export_faults(listener["balancer"], whole, exports, udp))
            yield from _without_ip(path, whole, services)
    yield from _between(listeners, routes)


def _exports(index: Index) -> Iterator[tuple[tuple[str, str], tuple[bool, list[str]]]]:
    for item in index.exports:
        service, group = item.keys.get("service"), item.keys.get("to")
        if isinstance(service, str) and isinstance(group, str):
            yield (service, group), (item.keys.get("direct") is True, [port for dummy, port in item.texts("ports")])


def _well_formed(value: Any, shape: _l7_shape.Shape) -> Listed:
    items = value if isinstance(value, list) else []
    return [(position, item) for position, item in enumerate(items) if not any(_l7_shape.faults(shape, item))]


def _names(variable: str, items: Listed, name_of: Callable[[Mapping[str, Any]], tuple[str, ...]]) -> Iterator[Problem]:
    seen: dict[tuple[str, ...], int] = {}
    for position, item in items:
        name = name_of(item)
        if (first := seen.setdefault(name, position)) != position:
            rule = f"is there twice: {'/'.join(name)} is already at {variable}[{first}]"
            yield Problem((variable, position, "name"), item["name"], rule, "Rename or remove one of them.")


def _faults(path: Path, item: Mapping[str, Any], faults: Iterator[_l7_rules.Fault]) -> Iterator[Problem]:
    for inner, rule, hint in faults:
        yield Problem((*path, *inner), _at(item, inner), rule, hint)


def _at(item: Any, path: Path) -> Any:
    for step in path:
        if isinstance(item, Mapping):
            item = item.get(step)
        elif isinstance(item, list) and isinstance(step, int) and step < len(item):
            item = item[step]
        else:
            return None
    return item


def _files(
    path: Path, item: Mapping[str, Any], has_file: Callable[[str], bool], shape: _l7_shape.Shape
) -> Iterator[Problem]:
    for inner, file in _of_format(shape, item, ()):
        if not file.startswith("/") and not has_file(file):
            rule = "is no file on the control node"
            yield Problem((*path, *inner), file, rule, "Give its path relative to the inventory, or an absolute one.")


def _without_ip(path: Path, route: Mapping[str, Any], services: Mapping[str, Any]) -> Iterator[Problem]:
    """Service IPs that a route uses and that are not there."""
    if _l7_rules.method_of(route) != "service_ip":
        return
    for position, backend in enumerate(route.get("backends", ())):
        wanted = backend.get("service_ip", "main")
        entries = services[backend["service"]].keys.get("service_ips") or []
        names = [entry.get("name", "main") for entry in entries if isinstance(entry, Mapping)]
        if wanted not in names:
            rule = f"has no Service IP {wanted}"
            hint = "Add it to service_ips, or choose among pods (balance.method)."
            yield Problem((*path, "backends", position, "service"), backend["service"], rule, hint)


def _between(listeners: Listed, routes: Listed) -> Iterator[Problem]:
    plain = [item for dummy, item in listeners], [item for dummy, item in routes]
    for position, (inner, rule, hint) in _l7_rules.between_faults(*plain):
        if position is None:
            place, item = listeners[int(inner[0])]
            yield Problem(("qnet_l7_listeners", place, *inner[1:]), _at(item, inner[1:]), rule, hint)
        else:
            place, item = routes[position]
            yield Problem(("qnet_l7_routes", place, *inner), _at(item, inner), rule, hint)


_FILE_FORMAT = "l7-file"


def _of_format(shape: _l7_shape.Shape, value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if shape.get("format") == _FILE_FORMAT and isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key in shape.get("properties", {}):
                yield from _of_format(shape["properties"][key], inner, (*path, key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _of_format(shape["items"], inner, (*path, position))
