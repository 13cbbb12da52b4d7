# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What options of listeners and routes must be to each other. Pure; a fault is (path, rule, hint).

Listeners and routes are plain mappings here, in the shape that _l7_schema describes.
"""

from __future__ import annotations

import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_schema, _l7_shared
from ansible_collections.qiniu.qnet.plugins.module_utils._l7_shape import Path

Values = t.Mapping[str, t.Any]
Fault = tuple[Path, str, str]

ACTIONS = ("backends", "redirect", "respond", "static")
RESERVED_PATHS = "/.qnet/"
# What hosts of qnet need themselves; taken on the hosts' addresses they would be cut off.
RESERVED_PORTS = {
    "tcp": {22: "SSH", 6641: "the intent database", 6644: "its Raft", 6653: "OpenFlow", 6654: "controllers",
            9680: "the controller's API"},
    "udp": {4789: "VXLAN"},
}  # fmt: skip
_PREFIXES = ("prefix", "prefix_first")
# What of the shared groups there is over tcp and udp.
_STREAM_PARTS = {
    "timeouts": ("connect_seconds",),
    "retries": ("tries", "timeout_seconds"),
    "connection_limit": ("most", "key"),
    "bandwidth": ("bytes_per_second", "upload_bytes_per_second"),
}
_STREAM_OWN = ("hosts", "backends", "split_by")
"""What routes of one listener over tcp have each for themselves: they are told apart after the connection is there."""


def method_of(route: Values) -> str:
    """How a backend of a route is chosen; service_ip when the network does it."""
    chosen: str | None = (route.get("balance") or {}).get("method")
    needs_pods = any(route.get(option) for option in ("sticky", "naming", "health_check"))
    return chosen or ("round_robin" if needs_pods else "service_ip")


def services_of(route: Values) -> list[str]:
    """Every service that a route asks, as group/service, each once."""
    asked = [*(route.get("backends") or ()), *(route.get("mirror") or ())]
    if route.get("auth_request"):
        asked.append(route["auth_request"])
    return sorted({entry["service"] for entry in asked})


def transport_of(listener: Values) -> str:
    """The protocol below: tcp or udp."""
    return "udp" if listener["protocol"] == "udp" else "tcp"


def inherited(listener: Values, route: Values, services: t.Mapping[str, Values]) -> dict[str, t.Any]:
    """What a route takes over from its listener and from its services. ``services``: name to what it says for l7.

    Services that differ say nothing: that is a fault of the route (see inheriting_faults).
    """
    found = {name: listener[name] for name in _l7_shared.SHARED if name in listener}
    if listener.get("protocol") not in ("tcp", "udp"):
        for option, said in _of_services(route, services):
            if said[0] is not None and all(one == said[0] for one in said):
                found[option] = said[0]
    return {name: value for name, value in found.items() if name not in route}


def _of_services(route: Values, services: t.Mapping[str, Values]) -> t.Iterator[tuple[str, list[t.Any]]]:
    """Options that a route does not say, and what each of its services says about them."""
    names = sorted({entry["service"] for entry in route.get("backends") or ()})
    for option in _l7_schema.SERVICE_OPTIONS if names else ():
        if option not in route:
            yield option, [services.get(name, {}).get(option) for name in names]


def inheriting_faults(listener: Values, route: Values, services: t.Mapping[str, Values]) -> t.Iterator[Fault]:
    """What is wrong with a route of a listener, with all that it takes over; places are those of the route."""
    if listener["protocol"] in ("tcp", "udp"):
        yield from route_faults(listener, route)
        return
    for option, said in _of_services(route, services):
        if any(one != said[0] for one in said):
            rule = f"has services whose l7 differ in {option}"
            yield ("backends",), rule, f"Say {option} in the route, or the same in each of the services."
    own = {name: value for name, value in inherited(listener, route, services).items() if name not in listener}
    for path, rule, hint in route_faults(listener, {**own, **route}):
        taken = bool(path) and path[0] in own
        yield (("backends",), f"has a service whose l7.{_written(path)} {rule}", hint) if taken else (path, rule, hint)


def _written(path: Path) -> str:
    return ".".join(str(step) for step in path)


def listener_faults(listener: Values) -> t.Iterator[Fault]:
    """What is wrong with a listener by itself."""
    protocol, port = listener["protocol"], listener["port"]
    if port in RESERVED_PORTS[transport_of(listener)]:
        what = RESERVED_PORTS[transport_of(listener)][port]
        yield ("port",), f"is the port of {what} on the hosts", "Choose another one."
    if protocol == "https" and "certificates" not in listener:
        yield ("certificates",), "is missing for https", "Add a certificate and its key, or use http."
    if protocol in ("http", "udp") and "certificates" in listener:
        yield ("certificates",), f"has no use with {protocol}", "Use https (or tcp), or remove them."
    if protocol in ("http", "udp") and "tls" in listener:
        yield ("tls",), f"has no use with {protocol}", "Use https (or tcp), or remove it."
    if "redirect_to_https" in listener and protocol != "http":
        yield ("redirect_to_https",), f"has no use with {protocol}", "Use it with http, or remove it."
    if protocol in ("tcp", "udp"):
        yield from _only(listener, (*_l7_schema.LISTENER_COLUMNS, *_l7_schema.STREAM_LISTENER), protocol)
        yield from _stream_parts(listener, protocol)
    if protocol == "udp" and "proxy_protocol" in listener:
        yield ("proxy_protocol",), "has no use with udp", "Remove it."
    if "client_verify" in listener.get("tls", {}) and "client_ca" not in listener["tls"]:
        yield ("tls", "client_ca"), "is missing for client_verify", "Add it."
    yield from _shared_faults(listener)


def route_faults(listener: Values, route: Values) -> t.Iterator[Fault]:
    """What is wrong with a route of a listener."""
    if listener["protocol"] in ("tcp", "udp"):
        yield from _stream_faults(listener, route)
        return
    given = [action for action in ACTIONS if action in route]
    if len(given) != 1:
        what = f"has {' and '.join(given)}" if given else "does nothing"
        yield (), f"{what}; a route has one of {', '.join(ACTIONS)}", "Keep or add one of them."
    for option in ("send_proxy_protocol", "session"):
        if option in route:
            yield (option,), "is for listeners over tcp and udp", "Remove it."
    yield from _shared_faults(route)
    yield from _path_faults(route)
    yield from _choice_faults(route)
    if "backends" in route:
        yield from _backend_faults(listener, route)
    status = route.get("redirect", {}).get("status", 302)
    if status not in (301, 302, 303, 307, 308):
        yield ("redirect", "status"), "is no status of a redirect", "Use 301, 302, 303, 307 or 308."


def _only(values: Values, known: t.Collection[str], protocol: str) -> t.Iterator[Fault]:
    for option in values:
        if option not in known:
            yield (option,), f"has no use with {protocol}", "Remove it, or use http or https."


def _stream_faults(listener: Values, route: Values) -> t.Iterator[Fault]:
    protocol = listener["protocol"]
    yield from _only(route, (*_l7_schema.ROUTE_COLUMNS, *_l7_schema.STREAM_ROUTE), protocol)
    yield from _stream_parts(route, protocol)
    if "backends" not in route:
        yield ("backends",), f"is missing; a route over {protocol} needs it", "Add a service and its port."
    for option in ("udp_answers", "udp_requests"):
        if protocol == "tcp" and option in route.get("session", {}):
            yield ("session", option), "has no use with tcp", "Remove it."
    if protocol == "udp" and "hosts" in route:
        yield ("hosts",), "has no use with udp", "Remove it."
    for position, backend in enumerate(route.get("backends", ())):
        if "when" in backend:
            yield ("backends", position, "when"), f"has no use with {protocol}", "Remove it."


def _stream_parts(values: Values, protocol: str) -> t.Iterator[Fault]:
    for group, known in _STREAM_PARTS.items():
        for option in values.get(group, {}):
            if option not in known:
                yield (group, option), f"has no use with {protocol}", "Remove it, or use http or https."


def _shared_faults(values: Values) -> t.Iterator[Fault]:
    for position, rule in enumerate(values.get("access", ())):
        if len(rule) != 1:
            yield ("access", position), "must say either allow or deny", "Write two rules."
    for position, page in enumerate(values.get("error_pages", ())):
        if ("body" in page) == ("redirect" in page):
            yield ("error_pages", position), "must have either body or redirect", "Keep or add one of them."


def _path_faults(route: Values) -> t.Iterator[Fault]:
    path, match = route.get("path", "/"), route.get("match", "prefix")
    if path.startswith(RESERVED_PATHS):
        yield ("path",), "is the balancer's own", "Choose another one."
    if match in (*_PREFIXES, "exact") and not path.startswith("/"):
        yield ("path",), f"does not begin with / and match is {match}", "Begin it with /, or set match: regex."
    if match not in _PREFIXES:
        for option in ("replace_prefix", "static"):
            if option in route:
                yield (option,), f"needs a path that is a prefix, and match is {match}", "Set match: prefix."
    if "replace_prefix" in route and "rewrite" in route:
        yield ("replace_prefix",), "cannot be combined with rewrite", "Write it as one more rule of rewrite."


def _choice_faults(route: Values) -> t.Iterator[Fault]:
    method = method_of(route)
    for option in ("sticky", "naming", "health_check"):
        if option in route and method == "service_ip":
            yield (option,), "needs a method that chooses among pods", "Set balance.method: round_robin, or remove it."
        elif option in route and "backends" not in route:
            yield (option,), "is about backends, and the route has none", "Remove it."
    if method == "hash" and "key" not in route.get("balance", {}):
        yield ("balance", "key"), "is missing for method hash", "Add what it depends on, for example $request_uri."
    naming = route.get("naming")
    if naming is not None and not {"header", "cookie", "argument", "path_segment"} & set(naming):
        yield ("naming",), "says no way to name a pod", "Add header, cookie, argument or path_segment."
    if naming is not None and route.get("satisfy") == "any":
        yield ("naming",), "cannot be combined with satisfy: any, which would skip it", "Use satisfy: all."


def _backend_faults(listener: Values, route: Values) -> t.Iterator[Fault]:
    backends = route["backends"]
    for position, backend in enumerate(backends):
        if "when" in backend and len({"header", "cookie"} & set(backend["when"])) != 1:
            yield ("backends", position, "when"), "must name either a header or a cookie", "Keep or add one of them."
    if all("when" in backend for backend in backends):
        yield ("backends",), "has no backend without when, for all other requests", "Add one, or remove a when."
    elif not any(backend.get("weight", 1) for backend in backends if "when" not in backend):
        yield ("backends",), "has no backend with a weight above 0", "Raise one."
    protocol = route.get("backend_protocol", "http")
    if protocol.startswith("grpc"):
        if not listener.get("http2", listener["protocol"] == "https"):
            yield ("backend_protocol",), "needs http2 in the listener", "Set http2: true there."
        for option in ("cache", "mirror", "response_redirects", "response_cookies", "websocket"):
            if option in route:
                yield (option,), f"has no use with {protocol}", "Remove it."
    if "backend_tls" in route and protocol in ("http", "grpc"):
        yield ("backend_tls",), f"has no use with {protocol}", "Set backend_protocol to https or grpcs."
    tls = route.get("backend_tls", {})
    if tls.get("verify") and "ca" not in tls:
        yield ("backend_tls", "ca"), "is missing for verify", "Add it."
    if ("key" in tls) != ("certificate" in tls):
        yield ("backend_tls",), "has a certificate without key, or a key without certificate", "Give both."


def between_faults(listeners: t.Sequence[Values], routes: t.Sequence[Values]) -> t.Iterator[tuple[int | None, Fault]]:
    """What is wrong between listeners and between routes: (position of a route or None, fault).

    The path of a fault about listeners begins with the position of one.
    """
    ports: dict[tuple[str, str, int], str] = {}
    for position, listener in enumerate(listeners):
        place = (listener["balancer"], transport_of(listener), listener["port"])
        first = ports.setdefault(place, listener["name"])
        if first != listener["name"]:
            rule = f"is taken by listener {first} of the same balancer"
            yield None, ((position, "port"), rule, "Choose another one, or add routes to that listener.")
    protocols = {listener["name"]: listener["protocol"] for listener in listeners}
    taken: dict[tuple[str, str, str, str], str] = {}
    for position, route in enumerate(routes):
        stream = protocols.get(route["listener"]) in ("tcp", "udp")
        match, path = ("", "") if stream else (route.get("match", "prefix"), route.get("path", "/"))
        kind = "prefix" if match in _PREFIXES else match
        for host in route.get("hosts", ("",)):
            first = taken.setdefault((route["listener"], host, kind, path), route["name"])
            if first != route["name"]:
                where = f"host {host}" if host else "no host name"
                rule = f"is taken by route {first} of the same listener ({where})"
                field = "path" if path and "path" in route else "hosts" if host else "name"
                yield position, ((field,), rule, "Change one of them, or merge the routes.")
    yield from _stream_differences(listeners, routes)


def _stream_differences(
    listeners: t.Sequence[Values], routes: t.Sequence[Values]
) -> t.Iterator[tuple[int | None, Fault]]:
    """Options of a route that cannot be its own: who may connect, for example, is decided before its name is known."""
    streams = {listener["name"]: listener for listener in listeners if listener["protocol"] in ("tcp", "udp")}
    firsts: dict[str, Values] = {}
    for position, route in enumerate(routes):
        listener = streams.get(route["listener"])
        if listener is None:
            continue
        first = firsts.setdefault(route["listener"], route)
        for option in _l7_schema.STREAM_ROUTE:
            mine, its = (one.get(option, listener.get(option)) for one in (route, first))
            if option not in _STREAM_OWN and mine != its:
                rule = f"differs from that of route {first['name']}, and both take connections of one listener"
                hint = "Say the same in both, or give one of them a listener of its own."
                yield position, ((option if option in route else "name",), rule, hint)


def export_faults(
    balancer: str, route: Values, exports: t.Mapping[tuple[str, str], tuple[bool, t.Sequence[str]]], udp: bool
) -> t.Iterator[Fault]:
    """Services of a route that the balancer may not reach. `exports`: (service, to) to (direct, ports; none: all)."""
    group = balancer.split("/")[0]
    asked: list[tuple[Path, Values, bool]] = [
        (("backends", position), entry, method_of(route) != "service_ip")
        for position, entry in enumerate(route.get("backends") or ())
    ]
    asked += [(("mirror", position), entry, False) for position, entry in enumerate(route.get("mirror") or ())]
    if route.get("auth_request"):
        asked.append((("auth_request",), route["auth_request"], False))
    for path, entry, by_pods in asked:
        service = entry["service"]
        if service.split("/")[0] == group:
            continue
        direct, ports = exports.get((service, group), (False, None))
        wanted = f"{'udp' if udp else 'tcp'}/{entry['port']}"
        if ports is None:
            hint = f"Add an export of {service} to {group}."
            yield (*path, "service"), f"is not exported to {group}, the group of {balancer}", hint
        elif ports and wanted not in ports:
            hint = f"Add {wanted} to that export."
            yield (*path, "port"), f"is not in the export of {service} to {group} ({', '.join(ports)})", hint
        elif by_pods and not direct:
            rule = f"is asked pod by pod (method {method_of(route)}), which its export to {group} does not allow"
            yield (*path, "service"), rule, "Set direct: true in that export, or method: service_ip."
