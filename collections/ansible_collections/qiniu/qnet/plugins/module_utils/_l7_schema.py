# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of a listener and of a route: the one home of their names, ranges and nginx directives.

From here come the part of schemas/inventory.schema.json about them, the check on the hosts (modules), the table in
docs/design/l7.md, and what the renderer (plugin_utils/l7_*.py) may count on.
"""

from __future__ import annotations

from ansible_collections.qiniu.qnet.plugins.module_utils._l7_shape import (
    Shape,
    flag,
    group,
    mapping,
    one_of,
    seconds,
    several,
    size,
    status,
    text,
    whole,
)
from ansible_collections.qiniu.qnet.plugins.module_utils._l7_shared import SHARED, label, port, target

LISTENER_COLUMNS = ("name", "balancer", "protocol", "port")
ROUTE_COLUMNS = ("name", "listener")
PODS_METHODS = ("round_robin", "weighted", "least_connections", "client_hash", "hash")


_TLS = group(
    "How TLS is spoken with clients.",
    protocols=several("When omitted: 1.2 and 1.3.", one_of("A version.", "TLSv1.2", "TLSv1.3"), "ssl_protocols"),
    ciphers=text("List of OpenSSL.", "l7-plain", "ssl_ciphers"),
    prefer_server_ciphers=flag("Whether our order counts.", "ssl_prefer_server_ciphers"),
    session_seconds=seconds("How long a session may be resumed.", "ssl_session_timeout ssl_session_cache"),
    session_tickets=flag("Whether tickets are given.", "ssl_session_tickets"),
    client_ca=text("Certificates of those who sign clients' certificates.", "l7-file", "ssl_client_certificate"),
    client_verify=one_of(
        "Whether clients show a certificate. When omitted: required, with client_ca.",
        "required",
        "optional",
        nginx="ssl_verify_client",
    ),
    client_verify_depth=whole("Length of their chain.", 1, 10, "ssl_verify_depth"),
)

LISTENER_ONLY: dict[str, Shape] = {
    "http2": flag(
        "HTTP/2 beside HTTP/1.1 over TLS; over plain TCP instead of it. When omitted: true for https.",
        "listen http2_max_concurrent_streams",
    ),
    "certificates": several(
        "Certificates; a client gets the first whose names fit what it asks for, else the first.",
        group(
            "A certificate with its key, PEM, beside the inventory (may be encrypted with Ansible Vault) or absolute "
            "on the balancer's host.",
            "certificate key",
            certificate=text("The certificate, then those that signed it.", "l7-file", "ssl_certificate"),
            key=text("Its private key.", "l7-file", "ssl_certificate_key"),
            names=several("Host names that it is for.", text("A host name.", "l7-host"), "server_name"),
        ),
    ),
    "tls": _TLS,
    "proxy_protocol": flag(
        "Whether clients begin with the PROXY protocol; those of trusted are believed.", "listen proxy_protocol"
    ),
    "real_client": group(
        "Whom to believe about the client's address.",
        "trusted",
        trusted=several("Proxies.", text("Address or subnet.", "l7-client"), "set_real_ip_from"),
        header=text(
            "Where they write it. When omitted: PROXY protocol if proxy_protocol, else X-Forwarded-For.",
            "l7-header",
            "real_ip_header",
        ),
        recursive=flag("Skip all trusted addresses in it.", "real_ip_recursive"),
    ),
    "client_connections": group(
        "Connections of clients.",
        keepalive_seconds=seconds("How long they stay open when idle; 0: not at all.", "keepalive_timeout"),
        keepalive_requests=whole("Requests on one connection.", 1, 1000000000, "keepalive_requests"),
        header_seconds=seconds("For the head of a request.", "client_header_timeout", low=1),
        header_buffers=whole("Number of buffers for long heads.", 1, 64, "large_client_header_buffers"),
        header_size=size("Size of each of them.", "large_client_header_buffers"),
        streams=whole("HTTP/2: requests at a time.", 1, 10000, "http2_max_concurrent_streams"),
        underscores=flag("Take headers with _ in their name.", "underscores_in_headers"),
    ),
    "merge_slashes": flag("Read // in a path as /.", "merge_slashes"),
    "server_tokens": flag("Tell the version of nginx. When omitted: false.", "server_tokens"),
    "redirect_to_https": flag("Answer everything with a redirect to https.", "return"),
}

BACKEND = group(
    "A service that answers requests.",
    "service port",
    service=text("The service, said as group/service.", "l7-service", "upstream server proxy_pass grpc_pass"),
    port=port("Port that its pods listen on."),
    service_ip=label("Which of its Service IPs is used. When omitted: main."),
    weight=whole("Share of requests among the backends of the route. When omitted: 1.", 0, 10000, "split_clients"),
    when=group(
        "Take requests with this header or cookie away from the others (canary).",
        header=text("Name of a header.", "l7-header", "map"),
        cookie=text("Name of a cookie.", "l7-identifier", "map"),
        value=text("Its value. When omitted: any that is not empty.", "l7-plain", "map"),
    ),
)

ROUTE_ONLY: dict[str, Shape] = {
    "hosts": several(
        "Host names. When omitted: all that no other route of the listener names. With tcp: names in the TLS hello.",
        text("A host name.", "l7-host"),
        "server_name ssl_preread map",
    ),
    "path": text("What paths are matched with. When omitted: /.", "l7-location", "location"),
    "match": one_of(
        "How, with nginx's order: exact; the longest prefix if it is prefix_first; the first regex; the longest "
        "prefix. When omitted: prefix.",
        "prefix",
        "prefix_first",
        "exact",
        "regex",
        "regex_any_case",
        nginx="location",
    ),
    "backends": several("Who answers.", BACKEND, "proxy_pass"),
    "split_by": text("What the split by weight depends on. When omitted: chance.", nginx="split_clients"),
    "backend_protocol": one_of(
        "What backends speak. When omitted: http.", "http", "https", "grpc", "grpcs", nginx="proxy_pass grpc_pass"
    ),
    "backend_tls": group(
        "How TLS is spoken with backends.",
        verify=flag("Check their certificates.", "proxy_ssl_verify grpc_ssl_verify"),
        ca=text("With these.", "l7-file", "proxy_ssl_trusted_certificate grpc_ssl_trusted_certificate"),
        name=text("Name in the certificate and in the hello.", nginx="proxy_ssl_name proxy_ssl_server_name"),
        certificate=text("Our own certificate.", "l7-file", "proxy_ssl_certificate"),
        key=text("Its key.", "l7-file", "proxy_ssl_certificate_key"),
    ),
    "balance": group(
        "How a backend is chosen.",
        method=one_of(
            "service_ip: the network chooses, on the balancer's host. The others choose among the pods themselves, "
            "which an export to the balancer's group has to allow (direct: true). When omitted: service_ip, or "
            "round_robin when the route needs pods.",
            "service_ip",
            *PODS_METHODS,
            nginx="upstream balancer_by_lua least_conn ip_hash hash",
        ),
        key=text("What hash depends on, for example $arg_file.", nginx="hash"),
    ),
    "sticky": group(
        "A client keeps its pod, by a cookie.",
        "cookie",
        cookie=text("Name of the cookie.", "l7-word", "balancer_by_lua"),
        lifetime_seconds=seconds("When omitted: until the browser is closed."),
        path=text("Path of the cookie. When omitted: /.", "l7-path"),
        secure=flag("Only over TLS."),
        same_site=one_of("SameSite.", "Strict", "Lax", "None"),
    ),
    "naming": group(
        "A request may name the pod that answers it, by its name or number, in one of these ways. Other pods are "
        "refused with 404 or 403.",
        header=text("In a header.", "l7-header", "access_by_lua"),
        cookie=text("In a cookie.", "l7-word", "access_by_lua"),
        argument=text("In an argument of the query.", "l7-word", "access_by_lua"),
        path_segment=whole("In a segment of the path, from 1.", 1, 20, "access_by_lua"),
        required=flag("Refuse requests that name none (400)."),
    ),
    "health_check": group(
        "Pods that fail are left out. Only for methods that choose among pods; Service IPs have checks of their own.",
        kind=one_of("Active checks. When omitted: none.", "tcp", "http", nginx="ngx.socket.tcp"),
        path=text("Path that is asked.", "l7-path"),
        statuses=several("What counts as well. When omitted: 200 to 399.", status("A status.")),
        interval_milliseconds=whole("Time between two checks. When omitted: 1000.", 50, 3600000),
        timeout_milliseconds=whole("When omitted: 1000.", 10, 60000),
        fall=whole("Failures until it is out. When omitted: 2.", 1, 100, "max_fails"),
        rise=whole("Successes until it is in again. When omitted: 1.", 1, 100),
        passive_failures=whole("Failed requests until it is out; 0: never. When omitted: 1.", 0, 1000, "max_fails"),
        passive_seconds=seconds("How long it is then out. When omitted: 10.", "fail_timeout", low=1),
    ),
    "keepalive": group(
        "Connections to backends that are kept. A kept connection stays with its pod, so it is for methods that choose "
        "among pods (there: 64 when omitted), or for Service IPs whose pods seldom change (there: 0 when omitted).",
        connections=whole("Idle ones for each worker of nginx; 0: none.", 0, 100000, "keepalive"),
        requests=whole("Requests on one connection.", 1, 1000000000, "keepalive_requests"),
        idle_seconds=seconds(
            "How long it stays open when idle. When omitted: 10 among pods, else 60.", "keepalive_timeout", low=1
        ),
        lifetime_seconds=seconds("How long it is used at all.", "keepalive_time", low=1),
    ),
    "websocket": flag("Let connections be upgraded. When omitted: true.", "proxy_http_version proxy_set_header"),
    "rewrite": several(
        "Change the path that backends see, by regular expressions, one after the other.",
        group(
            "One rule.",
            "pattern to",
            pattern=text("What is looked for.", "l7-pattern", "rewrite"),
            to=text("What it is replaced by; $1 is the first group."),
            then=one_of(
                "stop: no further rule (the default); search: look for a route again; redirect, permanent: answer "
                "302 or 301.",
                "stop",
                "search",
                "redirect",
                "permanent",
            ),
        ),
        "rewrite",
    ),
    "replace_prefix": text("What backends see instead of path, which has to be a prefix.", "l7-path", "proxy_pass"),
    "response_redirects": several(
        "Change Location in answers of backends.",
        group(
            "One rule.",
            "from to",
            **{"from": text("The beginning of Location.", nginx="proxy_redirect"), "to": text("What replaces it.")},
        ),
        "proxy_redirect",
    ),
    "response_cookies": group(
        "Change cookies in answers of backends.",
        domain=mapping("Domain to domain.", "l7-plain", text("The new one."), "proxy_cookie_domain"),
        path=mapping("Path to path.", "l7-plain", text("The new one."), "proxy_cookie_path"),
    ),
    "mirror": several(
        "Services that get a copy of each request; their answers are ignored.", target("One of them."), "mirror"
    ),
    "mirror_body": flag("Whether the copies have a body.", "mirror_request_body"),
    "redirect": group(
        "Send clients elsewhere.",
        "to",
        to=text("Where to, for example https://www.example.org$request_uri.", nginx="return"),
        status=status("301, 302, 303, 307 or 308. When omitted: 302.", 301, 308, "return"),
    ),
    "respond": group(
        "Answer with a fixed text.",
        "status",
        status=status("The status.", 200, nginx="return"),
        body=text("The text.", "l7-body", "return"),
        media_type=text("When omitted: text/plain.", "l7-plain", "default_type"),
    ),
    "static": group(
        "Answer with files of the balancer's host.",
        "directory",
        directory=text("Where path begins.", "l7-directory", "alias"),
        index=several("Files that stand for a directory.", text("A file name.", "l7-word"), "index"),
        fallback=text("File for paths that there is no file for, from the directory on.", "l7-path", "try_files"),
        listing=flag("Show directories.", "autoindex"),
        expires_seconds=seconds("How long clients may keep files.", "expires"),
    ),
    # tcp and udp
    "send_proxy_protocol": flag("Begin connections to backends with the PROXY protocol.", "proxy_protocol"),
    "session": group(
        "Connections over tcp and sessions over udp.",
        idle_seconds=seconds("How long they may be silent.", "proxy_timeout", low=1),
        udp_answers=whole("udp: a session ends after so many answers.", 0, 1000000, "proxy_responses"),
        udp_requests=whole("udp: a session ends after so many datagrams.", 1, 1000000, "proxy_requests"),
    ),
}

STREAM_SHARED = ("access", "connection_limit", "bandwidth", "timeouts", "retries")
STREAM_ROUTE = ("hosts", "backends", "split_by", "send_proxy_protocol", "session", *STREAM_SHARED)
STREAM_LISTENER = ("certificates", "tls", "proxy_protocol", "real_client", *STREAM_SHARED)
HTTP_ROUTE = tuple(name for name in (*ROUTE_ONLY, *SHARED) if name not in ("send_proxy_protocol", "session"))

# What is said about a service rather than about the requests: how its pods want to be asked.
SERVICE_OPTIONS = (
    "timeouts", "retries", "keepalive", "backend_protocol", "backend_tls", "balance", "health_check", "websocket",
    "request_body", "buffering", "intercept_errors",
)  # fmt: skip
SERVICE = group(
    "How L7 balancers ask the service over http and https. A route that says one of these replaces it as a whole; what "
    "a listener says counts less.",
    **{name: {**ROUTE_ONLY, **SHARED}[name] for name in SERVICE_OPTIONS},
)

LISTENER = group(
    "A port on which the pods of a balancer take requests, from outside on their hosts' addresses and from pods on the "
    "balancer's Service IP.",
    "name balancer protocol port",
    name=label("Name of the listener, unique in the fleet."),
    balancer=text("The service whose pods run nginx, said as group/service.", "l7-service", "listen"),
    protocol=one_of("What is spoken there.", "http", "https", "tcp", "udp", nginx="listen"),
    port=whole("The port.", 1, 65535, "listen"),
    **LISTENER_ONLY,
    **SHARED,
)

ROUTE = group(
    "What a listener does with some of its requests: backends, redirect, respond or static.",
    "name listener",
    name=label("Name of the route, unique in its listener."),
    listener=label("Name of the listener."),
    **ROUTE_ONLY,
    **SHARED,
)
