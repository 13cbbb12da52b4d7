# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that a listener and its routes have in common; see _l7_schema. A value of a route replaces the listener's."""

from __future__ import annotations

import typing as t

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


def port(description: str, **more: t.Any) -> Shape:
    """A port."""
    return whole(description, 1, 65535, **more)


def label(description: str) -> Shape:
    """A DNS label."""
    return {"description": description, "type": "string", "format": "dns-label"}


def _header_values(description: str, nginx: str) -> Shape:
    return mapping(description, "l7-header", text("Value of this header; nginx variables are allowed."), nginx)


def _header_names(description: str, nginx: str) -> Shape:
    return several(description, text("Name of a header.", "l7-header"), nginx)


def target(description: str) -> Shape:
    """A service that is asked beside the backends."""
    return group(
        description,
        "service port",
        service=text("The service, said as group/service.", "l7-service"),
        port=port("Port that it listens on."),
        service_ip=label("Which of its Service IPs is used. When omitted: main."),
        path=text("Path that is asked. When omitted: that of the request.", "l7-path"),
    )


# What nginx allows for http, server and location alike: a route's value replaces the listener's.
SHARED: dict[str, Shape] = {
    "headers": group(
        "Headers that are set or removed on the way to the backend (request) and to the client (response).",
        request_set=_header_values("Set in the request.", "proxy_set_header grpc_set_header"),
        request_remove=_header_names("Removed from the request.", "proxy_set_header"),
        response_set=_header_values("Set in every answer, also in errors.", "add_header more_set_headers"),
        response_remove=_header_names(
            "Removed from the backend's answers.", "proxy_hide_header grpc_hide_header more_clear_headers"
        ),
        host=text("What the backend gets as Host. When omitted: the client's.", nginx="proxy_set_header"),
        forwarded=one_of(
            "X-Forwarded-For, -Proto, -Host, -Port and X-Real-IP: append to what the client sent, replace it, or send "
            "none. When omitted: replace.",
            "append",
            "replace",
            "none",
            nginx="proxy_set_header",
        ),
    ),
    "timeouts": group(
        "How long is waited for whom.",
        connect_seconds=seconds("For a connection to a backend.", "proxy_connect_timeout grpc_connect_timeout", low=1),
        send_seconds=seconds("Between two writes to a backend.", "proxy_send_timeout grpc_send_timeout", low=1),
        read_seconds=seconds("Between two reads from a backend.", "proxy_read_timeout grpc_read_timeout", low=1),
        client_body_seconds=seconds("Between two reads of a request's body.", "client_body_timeout", low=1),
        client_send_seconds=seconds("Between two writes to the client.", "send_timeout", low=1),
    ),
    "retries": group(
        "When a request is tried again on another backend.",
        tries=whole("Number of tries, the first one counted.", 1, 20, "proxy_next_upstream_tries grpc_next_upstream"),
        conditions=several(
            "What counts as failed. When omitted: error and timeout.",
            one_of(
                "A condition.",
                "error",
                "timeout",
                "invalid_header",
                "http_403",
                "http_404",
                "http_429",
                "http_500",
                "http_502",
                "http_503",
                "http_504",
            ),
            "proxy_next_upstream grpc_next_upstream",
        ),
        non_idempotent=flag("Also POST, LOCK and PATCH that were sent already.", "proxy_next_upstream"),
        timeout_seconds=seconds(
            "No further try after this time; 0: no limit.", "proxy_next_upstream_timeout grpc_next_upstream_timeout"
        ),
    ),
    "request_body": group(
        "The body of requests.",
        max_size=size("Largest body; 0: no limit. When omitted: 1m.", "client_max_body_size"),
        buffer_size=size("Kept in memory; what is larger goes to a file.", "client_body_buffer_size"),
        buffering=flag("Whether the whole body is read before a backend is asked.", "proxy_request_buffering"),
    ),
    "buffering": group(
        "How answers of backends are buffered.",
        enabled=flag("Whether they are at all; switch it off for streams.", "proxy_buffering"),
        header_size=size("For the head of an answer.", "proxy_buffer_size grpc_buffer_size"),
        number=whole("Number of buffers of a connection.", 2, 1024, "proxy_buffers"),
        size=size("Size of each of them.", "proxy_buffers"),
        busy_size=size("How much may be on the way to the client.", "proxy_busy_buffers_size"),
        file_size=size("How much may be put into a file; 0: nothing.", "proxy_max_temp_file_size"),
    ),
    "compression": group(
        "Compression of answers.",
        gzip=flag("With gzip.", "gzip"),
        brotli=flag("With brotli, where the client takes it.", "brotli"),
        level=whole("1 (fast) to 9 (small).", 1, 9, "gzip_comp_level brotli_comp_level"),
        min_bytes=whole("Shorter answers are left alone.", 0, 1 << 30, "gzip_min_length brotli_min_length"),
        types=several("Media types besides text/html.", text("A media type.", "l7-plain"), "gzip_types brotli_types"),
        proxied=flag("Also for requests that came through another proxy.", "gzip_proxied gzip_vary"),
    ),
    "cache": group(
        "Answers of backends are kept on the balancer.",
        enabled=flag("Whether they are. When omitted: true.", "proxy_cache proxy_cache_path"),
        key=text("What tells answers apart. When omitted: scheme, host and URI.", nginx="proxy_cache_key"),
        valid=several(
            "How long which answers are kept when they do not say so themselves.",
            group(
                "One rule.",
                "seconds",
                statuses=several("For these. When omitted: 200, 301 and 302.", status("A status.")),
                seconds=seconds("For so long."),
            ),
            "proxy_cache_valid",
        ),
        min_uses=whole("Kept from this request on.", 1, 1000000, "proxy_cache_min_uses"),
        methods=several(
            "Methods whose answers are kept.", one_of("A method.", "GET", "HEAD", "POST"), "proxy_cache_methods"
        ),
        stale=several(
            "When an old answer is better than none.",
            one_of(
                "A case.", "error", "timeout", "updating", "http_500", "http_502", "http_503", "http_504", "http_404"
            ),
            "proxy_cache_use_stale",
        ),
        background=flag("Fetch a new one while the old one is given.", "proxy_cache_background_update"),
        lock=flag("Of equal requests only one goes to a backend.", "proxy_cache_lock"),
        revalidate=flag("Ask with If-Modified-Since.", "proxy_cache_revalidate"),
        bypass=several(
            "Not from the cache when one of these is neither empty nor 0.",
            text("A text of nginx variables."),
            "proxy_cache_bypass",
        ),
        no_store=several(
            "Not into the cache when one of these is neither empty nor 0.",
            text("A text of nginx variables."),
            "proxy_no_cache",
        ),
        ignore_headers=several(
            "Headers of backends about caching that are not obeyed.",
            one_of("A header.", "Cache-Control", "Expires", "Set-Cookie", "Vary", "X-Accel-Expires"),
            "proxy_ignore_headers",
        ),
        status_header=text("Header that tells clients HIT or MISS.", "l7-header", "add_header"),
    ),
    "rate_limit": group(
        "At most so many requests for each value of a key.",
        "requests",
        requests=whole("Number of requests.", 1, 1000000, "limit_req_zone limit_req"),
        per=one_of("In which time. When omitted: second.", "second", "minute"),
        key=text("When omitted: the client's address.", nginx="limit_req_zone"),
        burst=whole("How many more may wait.", 0, 1000000, "limit_req"),
        delay=flag("Whether those wait (true) or pass at once. When omitted: true.", "limit_req"),
        status=status("Answer to the others. When omitted: 429.", 400, nginx="limit_req_status"),
    ),
    "connection_limit": group(
        "At most so many connections (HTTP/2: requests) at a time for each value of a key.",
        "most",
        most=whole("Number of connections.", 1, 1000000, "limit_conn_zone limit_conn"),
        key=text("When omitted: the client's address.", nginx="limit_conn_zone"),
        status=status("Answer to the others. When omitted: 503.", 400, nginx="limit_conn_status"),
    ),
    "bandwidth": group(
        "How fast answers are sent.",
        bytes_per_second=size("On one connection.", "limit_rate proxy_download_rate"),
        after=size("Only after so much.", "limit_rate_after"),
        upload_bytes_per_second=size("From the client; TCP and UDP only.", "proxy_upload_rate"),
    ),
    "access": several(
        "Who may come, by address; the first rule that fits counts, and all may when none does.",
        group(
            "One rule.",
            allow=text("These may.", "l7-client", "allow"),
            deny=text("These may not.", "l7-client", "deny"),
        ),
    ),
    "basic_auth": group(
        "Name and password.",
        "users_file",
        users_file=text(
            "Lines of name:hash (crypt, or {SSHA}), beside the inventory (may be encrypted with Ansible Vault) or "
            "absolute on the balancer's host.",
            "l7-file",
            "auth_basic_user_file",
        ),
        realm=text("What browsers show. When omitted: restricted.", "l7-plain", "auth_basic"),
    ),
    "auth_request": group(
        "Ask a service whether a request may pass: 2xx yes, 401 and 403 no.",
        "service port",
        service=text("The service, said as group/service.", "l7-service", "auth_request"),
        port=port("Port that it listens on."),
        service_ip=label("Which of its Service IPs is used. When omitted: main."),
        path=text("Path that is asked. When omitted: that of the request.", "l7-path", "auth_request"),
        request_headers=_header_values(
            "Headers for the backend; $upstream_http_name is a header of the answer.", "auth_request_set"
        ),
    ),
    "satisfy": one_of(
        "Whether all of access, basic_auth and auth_request have to agree.", "all", "any", nginx="satisfy"
    ),
    "methods": several(
        "The only methods that are allowed.",
        one_of("A method.", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
        "limit_except",
    ),
    "error_pages": several(
        "What is answered instead of an error.",
        group(
            "One page.",
            "statuses",
            statuses=several("For these.", status("A status.", 300), "error_page"),
            body=text("Text of the page.", "l7-body", "error_page return"),
            media_type=text("Of the text. When omitted: text/html.", "l7-plain", "default_type"),
            redirect=text("Or send the client there.", nginx="error_page"),
            status=status("Answer with this status instead.", 200, nginx="error_page"),
        ),
        "error_page",
    ),
    "intercept_errors": flag("Also for errors that backends answer with.", "proxy_intercept_errors"),
    "maintenance": group(
        "Answer all requests with one page.",
        enabled=flag("Whether it is so. When omitted: true.", "return"),
        status=status("When omitted: 503.", 400, nginx="return"),
        body=text("Text of the page.", "l7-body", "return"),
        media_type=text("Of the text. When omitted: text/html.", "l7-plain", "default_type"),
        retry_seconds=seconds("Sent as Retry-After.", "add_header"),
        except_clients=several("These are served as usual.", text("Address or subnet.", "l7-client"), "geo"),
    ),
    "access_log": group(
        "The access log; without format one JSON object for each request, with service, pod and tenant.",
        enabled=flag("Whether there is one. When omitted: true.", "access_log"),
        format=text("One line of nginx variables.", nginx="log_format"),
        only_errors=flag("Only answers from 400 on.", "access_log"),
    ),
    "snippet": text(
        "Directives of nginx, taken over as they are. Those that load code, read files or go elsewhere are refused.",
        "l7-snippet",
    ),
}
