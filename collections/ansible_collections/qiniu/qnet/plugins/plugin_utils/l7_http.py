# SPDX-License-Identifier: GPL-3.0-or-later
"""The http part of a balancer's configuration: shared zones, upstreams, maps and servers."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_location import (
    ACCESS_LOG,
    Context,
    keepalive_of,
    tries_of,
    write_location,
)
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_site import (
    Backend,
    Listener,
    Route,
    Server,
    Site,
    Values,
    address_of,
)
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_text import Conf

_LOG = (
    ("time", "$time_iso8601"),
    ("listener", "$qnet_listener"),
    ("route", "$qnet_route"),
    ("tenant", "$qnet_tenant"),
    ("service", "$qnet_service"),
    ("pod", "$qnet_pod"),
    ("client", "$remote_addr"),
    ("method", "$request_method"),
    ("host", "$host"),
    ("uri", "$request_uri"),
    ("protocol", "$server_protocol"),
    ("status", "$status"),
    ("bytes", "$body_bytes_sent"),
    ("seconds", "$request_time"),
    ("upstream", "$upstream_addr"),
    ("upstream_status", "$upstream_status"),
    ("upstream_seconds", "$upstream_response_time"),
    ("cache", "$upstream_cache_status"),
    ("user_agent", "$http_user_agent"),
)
VARIABLES = ("listener", "route", "pod", "backend", "key")
"""What is set for each request, with qnet_ before it."""

IDLE_SECONDS = 10
"""How long an idle connection to a pod is kept unless the route says otherwise."""

_NUMBERS = ("status", "bytes", "seconds")


def endpoint(address: str, port: int) -> str:
    """Address and port as nginx writes them."""
    return f"[{address}]:{port}" if ipaddress.ip_address(address).version == 6 else f"{address}:{port}"


def write_http(conf: Conf, site: Site, context: Context, addresses: Mapping[tuple[str, str], str]) -> None:
    """Everything inside of http {} that comes from listeners and routes."""
    routes = [route for listener in site.listeners if not listener.is_stream for route in listener.routes]
    write_hashes(conf, len(routes))
    conf.add("server_names_hash_bucket_size", 512)
    _write_log(conf, site)
    _write_names(conf, site, routes)
    for route in routes:
        _write_route_globals(conf, route, addresses)
    for listener in site.listeners:
        if not listener.is_stream:
            naming = any(route.get("naming") for route in listener.routes)
            for server in listener.servers:
                _write_server(conf, listener, server, Context(context.file, naming, site.names_itself))


def write_hashes(conf: Conf, routes: int) -> None:
    """Room for long names and many routes; nginx wants to know before the first map."""
    conf.add("variables_hash_max_size", 4096 + 16 * routes)
    conf.add("map_hash_bucket_size", 512)
    conf.add("map_hash_max_size", 4096 + 64 * routes)


def _log_line(known: Mapping[str, str]) -> str:
    """The format of a line; what is known of a route by its configuration is written into it, not looked up."""
    values = {**dict(_LOG), **known}
    fields = (f'"{name}":{value}' if name in _NUMBERS else f'"{name}":"{value}"' for name, value in values.items())
    return "{" + ",".join(fields) + "}"


def _write_log(conf: Conf, site: Site) -> None:
    nobody = dict.fromkeys(("route", "tenant", "service", "pod"), "")
    for listener in site.listeners:
        if not listener.is_stream:
            known = {"listener": listener.name, **nobody}
            conf.add("log_format", f"qnet_listener_{listener.number}", "escape=json", _log_line(known))
    with conf.block("map", "$status", "$qnet_is_error"):
        conf.flags("default", "0")
        conf.flags("~^[45]", "1")
    for kept, idle in (("0", "close"), ("1", "")):
        with conf.block("map", "$http_upgrade", f"$qnet_connection_{kept}"):
            conf.flags("default", "upgrade")
            conf.flags('""', f'"{idle}"')
    with conf.block("map", "$http_host", "$qnet_host"):
        conf.flags("default", "$http_host")
        conf.flags('""', "$host")


def _write_names(conf: Conf, site: Site, routes: Sequence[Route]) -> None:
    """From the upstream that was used to its service and tenant, for logs; looked up only where it is asked for."""
    backends = [backend for route in routes for backend in route.backends]
    for variable, value_of in (
        ("$qnet_service", lambda backend: backend.service),
        ("$qnet_tenant", lambda backend: site.tenants.get(backend.service.split("/")[0], "")),
    ):
        with conf.block("map", "$qnet_backend", variable):
            conf.flags("default", '""')
            for backend in backends:
                conf.add(backend.upstream, value_of(backend))
    for route in routes:
        if not route.get("access_log", "format"):
            known = {"listener": route.listener, "route": route.key}
            if len(route.backends) < 2:
                known["service"] = route.backends[0].service if route.backends else ""
                known["tenant"] = site.tenants.get(known["service"].split("/")[0], "")
            if not route.by_pods:
                known["pod"] = ""
            conf.add("log_format", f"qnet_{route.number}", "escape=json", _log_line(known))


def _write_route_globals(conf: Conf, route: Route, addresses: Mapping[tuple[str, str], str]) -> None:
    conf.mark(route.path)
    for backend in route.backends:
        _write_upstream(conf, route, backend)
    if len(route.backends) > 1:
        _write_split(conf, route)
    if limit := route.get("rate_limit"):
        conf.mark(f"{route.path}.rate_limit")
        rate = f"{limit['requests']}r/{'m' if limit.get('per') == 'minute' else 's'}"
        key = limit.get("key", "$binary_remote_addr")
        conf.add("limit_req_zone", key, f"zone=qnet_requests_{route.number}:4m", f"rate={rate}")
    if limit := route.get("connection_limit"):
        conf.mark(f"{route.path}.connection_limit")
        conf.add("limit_conn_zone", limit.get("key", "$binary_remote_addr"), f"zone=qnet_connections_{route.number}:4m")
    if log_format := route.get("access_log", "format"):
        conf.mark(f"{route.path}.access_log.format")
        conf.add("log_format", f"qnet_{route.number}", log_format)
    if (page := route.get("maintenance")) and page.get("enabled", True):
        conf.mark(f"{route.path}.maintenance")
        with conf.block("geo", f"$qnet_maintenance_{route.number}"):
            conf.flags("default", "1")
            for client in page.get("except_clients", ()):
                conf.add("default" if client == "all" else client, 0)
    asked = [(f"qnet_auth_{route.number}", route.get("auth_request"))] if route.get("auth_request") else []
    mirrors = route.get("mirror", default=())
    asked += [(f"qnet_mirror_{route.number}_{position}", entry) for position, entry in enumerate(mirrors)]
    for name, entry in asked:
        with conf.block("upstream", name):
            conf.add("server", endpoint(address_of(entry, addresses), entry["port"]), "max_fails=0")


def _write_upstream(conf: Conf, route: Route, backend: Backend) -> None:
    conf.mark(f"{route.path}.backends")
    with conf.block("upstream", backend.upstream):
        if route.by_pods:
            for dummy in range(tries_of(route)):  # as many as there may be tries
                conf.add("server", "0.0.0.1:1")
            conf.lua("balancer_by_lua_block", f'qnet.pick("{backend.upstream}")')
        else:
            # The same address several times: a further try is a further choice of the network.
            for dummy in range(tries_of(route)):
                conf.add("server", endpoint(backend.address, backend.port), "max_fails=0")
        if kept := keepalive_of(route):
            conf.mark(f"{route.path}.keepalive")
            conf.add("keepalive", kept)
            for option, name, unit in (
                ("requests", "keepalive_requests", ""),
                ("idle_seconds", "keepalive_timeout", "s"),
                ("lifetime_seconds", "keepalive_time", "s"),
            ):
                # Short for pods: an export that goes cuts connections off without a word to either end.
                by_default = IDLE_SECONDS if option == "idle_seconds" and route.by_pods else None
                if (value := route.get("keepalive", option, default=by_default)) is not None:
                    conf.add(name, f"{value}{unit}")


def _write_split(conf: Conf, route: Route) -> None:
    """Which backend a request goes to: by header or cookie first, then by weight."""
    conf.mark(f"{route.path}.backends")
    number = route.number
    chance = [backend for backend in route.backends if backend.when is None]
    with conf.block("split_clients", route.get("split_by", default="$request_id"), f"$qnet_choice_{number}_0"):
        write_shares(conf, chance or list(route.backends))
    last = 0
    for backend in route.backends:
        if backend.when is None:
            continue
        variable = canary_variable(backend.when)
        with conf.block("map", variable, f"$qnet_choice_{number}_{last + 1}"):
            conf.flags("default", f"$qnet_choice_{number}_{last}")
            if "value" in backend.when:
                conf.add("\\" + backend.when["value"], backend.upstream)
            else:
                conf.flags("~.", backend.upstream)
        last += 1
    with conf.block("map", '""', f"$qnet_choice_{number}"):
        conf.flags("default", f"$qnet_choice_{number}_{last}")


def canary_variable(when: Values) -> str:
    """The variable that tells whether a request asks for a backend."""
    if "header" in when:
        return "$http_" + str(when["header"]).lower().replace("-", "_")
    return "$cookie_" + str(when["cookie"])


def write_shares(conf: Conf, backends: Sequence[Backend]) -> None:
    """The lines of split_clients: hundredths of a percent, what is left to the last one that takes any."""
    taking = [backend for backend in backends if backend.weight] or list(backends[:1])
    total = sum(backend.weight for backend in taking) or 1
    for backend in taking[:-1]:
        conf.flags(f"{backend.weight * 100 / total:.2f}%", backend.upstream)
    conf.flags("*", taking[-1].upstream)


def _write_server(conf: Conf, listener: Listener, server: Server, context: Context) -> None:
    conf.mark(listener.path)
    with conf.block("server"):
        words = ["ssl"] if listener.tls else []
        words += ["http2"] if listener.values.get("http2", listener.protocol == "https") else []
        words += ["proxy_protocol"] if listener.values.get("proxy_protocol") else []
        words += [] if server.names else ["default_server"]
        for bind in listener.binds:
            conf.flags("listen", bind, *words)
        conf.add("server_name", *(server.names or ("_",)))
        if context.names_itself:
            conf.add("set", "$qnet_listener", listener.name)
        conf.flags("access_log", ACCESS_LOG[0], f"qnet_listener_{listener.number}", *ACCESS_LOG[1:])
        conf.lua("log_by_lua_block", f'qnet.count("{listener.name}/|")')
        if server.certificate is not None:
            write_tls(conf, listener, server.certificate, context)
        _write_client_connections(conf, listener)
        if listener.values.get("redirect_to_https"):
            conf.mark(f"{listener.path}.redirect_to_https")
            conf.add("return", 301, "https://$host$request_uri")
        for route in server.routes:
            write_location(conf, listener, route, context)
        conf.mark(listener.path)
        if not any(route.location in (("prefix", "/"), ("prefix_first", "/")) for route in server.routes):
            with conf.block("location", "/"):
                conf.add("return", 404)


def write_tls(conf: Conf, listener: Listener, certificate: Values, context: Context) -> None:
    """TLS with clients, with one certificate."""
    conf.mark(f"{listener.path}.certificates")
    conf.add("ssl_certificate", context.file(certificate["certificate"]))
    conf.add("ssl_certificate_key", context.file(certificate["key"]))
    write_tls_options(conf, listener, context)


def write_tls_options(conf: Conf, listener: Listener, context: Context) -> None:
    """How TLS is spoken with clients."""
    tls = listener.values.get("tls", {})
    conf.mark(f"{listener.path}.tls")
    conf.add("ssl_protocols", *tls.get("protocols", ("TLSv1.2", "TLSv1.3")))
    conf.flags("ssl_session_cache", f"shared:qnet_tls_{listener.number}:4m")
    for option, name, unit in (
        ("ciphers", "ssl_ciphers", ""),
        ("prefer_server_ciphers", "ssl_prefer_server_ciphers", ""),
        ("session_seconds", "ssl_session_timeout", "s"),
        ("session_tickets", "ssl_session_tickets", ""),
        ("client_verify_depth", "ssl_verify_depth", ""),
    ):
        _option(conf, name, tls.get(option), unit)
    if "client_ca" in tls:
        conf.add("ssl_client_certificate", context.file(tls["client_ca"]))
        required = tls.get("client_verify", "required") == "required"
        conf.flags("ssl_verify_client", "on" if required else "optional")


def _write_client_connections(conf: Conf, listener: Listener) -> None:
    values = listener.values
    conf.add("server_tokens", bool(values.get("server_tokens", False)))
    _option(conf, "merge_slashes", values.get("merge_slashes"))
    if real := values.get("real_client"):
        conf.mark(f"{listener.path}.real_client")
        for client in real["trusted"]:
            for network in ("0.0.0.0/0", "::/0") if client == "all" else (client,):
                conf.add("set_real_ip_from", network)
        by_protocol = "proxy_protocol" if values.get("proxy_protocol") else "X-Forwarded-For"
        conf.add("real_ip_header", real.get("header", by_protocol))
        _option(conf, "real_ip_recursive", real.get("recursive"))
    connections = values.get("client_connections", {})
    if connections:
        conf.mark(f"{listener.path}.client_connections")
    for option, name, unit in (
        ("keepalive_seconds", "keepalive_timeout", "s"),
        ("keepalive_requests", "keepalive_requests", ""),
        ("header_seconds", "client_header_timeout", "s"),
        ("streams", "http2_max_concurrent_streams", ""),
        ("underscores", "underscores_in_headers", ""),
    ):
        _option(conf, name, connections.get(option), unit)
    if "header_buffers" in connections or "header_size" in connections:
        number, size = connections.get("header_buffers", 4), connections.get("header_size", "8k")
        conf.add("large_client_header_buffers", number, size)


def _option(conf: Conf, name: str, value: Any, unit: str = "") -> None:
    if value is not None:
        conf.add(name, f"{value}{unit}" if unit else value)
