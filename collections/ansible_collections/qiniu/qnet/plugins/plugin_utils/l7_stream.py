# SPDX-License-Identifier: GPL-3.0-or-later
"""The stream part of a balancer's configuration: listeners over tcp and udp."""

from __future__ import annotations

from ansible_collections.qiniu.qnet.plugins.module_utils._l7_marks import RUN
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_http import (
    endpoint,
    write_hashes,
    write_shares,
    write_tls,
    write_tls_options,
)
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_location import ACCESS_LOG, Context, tries_of
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_site import Listener, Route, Site, Values
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_text import Conf, quoted

SESSIONS_LOG = "logs/sessions.log"

_LOG = (
    '{"time":"$time_iso8601","listener":"$qnet_listener","route":"$qnet_route","tenant":"$qnet_tenant",'
    '"service":"$qnet_service","client":"$remote_addr","protocol":"$protocol","status":$status,'
    '"bytes":$bytes_sent,"bytes_received":$bytes_received,"seconds":$session_time,"upstream":"$upstream_addr"}'
)


def write_stream(conf: Conf, site: Site, context: Context) -> None:
    """Everything inside of stream {}."""
    listeners = [listener for listener in site.listeners if listener.is_stream]
    write_hashes(conf, sum(len(listener.routes) for listener in listeners))
    conf.add("log_format", "qnet", "escape=json", _LOG)
    # A file of its own: the feeder reads it, and counts.
    conf.flags("access_log", SESSIONS_LOG, "qnet", *ACCESS_LOG[1:])
    _write_names(conf, site, listeners)
    for listener in listeners:
        for route in listener.routes:
            _write_route_globals(conf, route)
        _write_server(conf, listener, context)


def _write_names(conf: Conf, site: Site, listeners: list[Listener]) -> None:
    # Looked up as late as a backend is needed: the name in a TLS hello is not known before.
    with conf.block("map", "$qnet_listener", "$qnet_backend"):
        conf.flags("default", '""')
        for listener in listeners:
            if listener.routes:
                named = any(route.get("hosts") for route in listener.routes)
                conf.add(listener.name, f"$qnet_to_{listener.number}" if named else _choice(listener.routes[0]))
    for variable, pick in (
        ("$qnet_service", lambda route, backend: backend.service),
        ("$qnet_route", lambda route, backend: route.key),
        ("$qnet_tenant", lambda route, backend: site.tenants.get(backend.service.split("/")[0], "")),
    ):
        with conf.block("map", "$qnet_backend", variable):
            conf.flags("default", '""')
            for listener in listeners:
                for route in listener.routes:
                    for backend in route.backends:
                        conf.add(backend.upstream, pick(route, backend))


def _write_route_globals(conf: Conf, route: Route) -> None:
    conf.mark(f"{route.path}.backends")
    for backend in route.backends:
        with conf.block("upstream", backend.upstream):
            for dummy in range(tries_of(route)):
                conf.add("server", endpoint(backend.address, backend.port), "max_fails=0")
    if len(route.backends) > 1:
        by_default = "$remote_addr$remote_port$msec"
        with conf.block("split_clients", route.get("split_by", default=by_default), f"$qnet_choice_{route.number}"):
            write_shares(conf, list(route.backends))


def _write_server(conf: Conf, listener: Listener, context: Context) -> None:
    if not listener.routes:
        return
    conf.mark(listener.path)
    number, first = listener.number, listener.routes[0]
    if limit := first.get("connection_limit"):
        key = limit.get("key", "$binary_remote_addr")
        conf.add("limit_conn_zone", key, f"zone=qnet_stream_{number}:4m")
    certificates = listener.values.get("certificates", ())
    if len(certificates) > 1:
        _write_certificates(conf, listener, context)
    named = [route for route in listener.routes if route.get("hosts")]
    if named:
        with conf.block(
            "map", "$ssl_server_name" if listener.tls else "$ssl_preread_server_name", f"$qnet_to_{number}"
        ):
            conf.flags("hostnames")
            rest = next((route for route in listener.routes if not route.get("hosts")), None)
            conf.flags("default", _choice(rest) if rest else '""')
            for route in named:
                for host in route.get("hosts"):
                    conf.flags(f'"{host}"', _choice(route))
    with conf.block("server"):
        words = ["udp"] if listener.protocol == "udp" else ["ssl"] if listener.tls else []
        words += ["proxy_protocol"] if _proxy_in(listener) else []
        for bind in listener.binds:
            conf.flags("listen", bind, *words)
        conf.add("set", "$qnet_listener", listener.name)
        if len(certificates) == 1:
            write_tls(conf, listener, certificates[0], context)
        elif certificates:
            conf.mark(f"{listener.path}.certificates")
            conf.add("ssl_certificate", f"$qnet_certificate_{number}")
            conf.add("ssl_certificate_key", f"$qnet_key_{number}")
            write_tls_options(conf, listener, context)
        elif named:
            conf.flags("ssl_preread", "on")
        for client in listener.values.get("real_client", {}).get("trusted", ()):
            for network in ("0.0.0.0/0", "::/0") if client == "all" else (client,):
                conf.add("set_real_ip_from", network)
        _write_options(conf, listener, first.values)
        conf.flags("proxy_next_upstream", "on" if tries_of(first) > 1 else "off")
        conf.mark(f"{first.path}.backends")
        conf.add("proxy_pass", "$qnet_backend")


def _write_certificates(conf: Conf, listener: Listener, context: Context) -> None:
    """Which certificate is shown for which name. Over http each has a server of its own; here there is one for all.

    nginx looks at files with variables in their names when they are used. So that a wrong one is refused before it is
    live, each pair is the certificate of a server that nobody connects to, too.
    """
    certificates = listener.values["certificates"]
    conf.mark(f"{listener.path}.certificates")
    for option in ("certificate", "key"):
        with conf.block("map", "$ssl_server_name", f"$qnet_{option}_{listener.number}"):
            conf.flags("hostnames")
            conf.add("default", context.file(certificates[0][option]))
            taken: set[str] = set()
            for certificate in certificates:
                for name in certificate.get("names", ()):
                    if name not in taken:
                        taken.add(name)
                        conf.flags(f'"{name}"', quoted(context.file(certificate[option])))
    for position, certificate in enumerate(certificates):
        conf.mark(f"{listener.path}.certificates[{position}]")
        with conf.block("server"):
            conf.flags("listen", f"unix:{RUN}/certificate-{listener.number}-{position}.sock", "ssl")
            conf.add("ssl_certificate", context.file(certificate["certificate"]))
            conf.add("ssl_certificate_key", context.file(certificate["key"]))
            conf.flags("access_log", "off")
            conf.add("return", "")


def _proxy_in(listener: Listener) -> bool:
    return bool(listener.values.get("proxy_protocol"))


def _choice(route: Route) -> str:
    return f"$qnet_choice_{route.number}" if len(route.backends) > 1 else route.backends[0].upstream


def _write_options(conf: Conf, listener: Listener, values: Values) -> None:
    """What is the same for all routes of the listener (_l7_rules sees to it): those of any one of them."""
    for rule in values.get("access", ()):
        for word, client in rule.items():
            conf.add(word, client)
    if limit := values.get("connection_limit"):
        conf.add("limit_conn", f"qnet_stream_{listener.number}", limit["most"])
    bandwidth = values.get("bandwidth", {})
    for option, name in (
        ("bytes_per_second", "proxy_download_rate"),
        ("upload_bytes_per_second", "proxy_upload_rate"),
    ):
        if option in bandwidth:
            conf.add(name, bandwidth[option])
    if "connect_seconds" in values.get("timeouts", {}):
        conf.add("proxy_connect_timeout", f"{values['timeouts']['connect_seconds']}s")
    if "timeout_seconds" in values.get("retries", {}):
        conf.add("proxy_next_upstream_timeout", f"{values['retries']['timeout_seconds']}s")
    session = values.get("session", {})
    if "idle_seconds" in session:
        conf.add("proxy_timeout", f"{session['idle_seconds']}s")
    for option, name in (("udp_answers", "proxy_responses"), ("udp_requests", "proxy_requests")):
        if option in session:
            conf.add(name, session[option])
    if values.get("send_proxy_protocol"):
        conf.flags("proxy_protocol", "on")
