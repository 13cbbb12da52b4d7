# SPDX-License-Identifier: GPL-3.0-or-later
"""One route in one server, as locations of nginx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_site import Listener, Route, Values
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_text import Conf

INTERNAL = "/.qnet/"
"""Paths of the balancer's own locations begin with this."""

ACCESS_LOG = ("logs/access.log", "buffer=64k", "flush=1s")
"""The file of the access log, and how it is written: not with a system call for each request."""

_MODIFIERS = {"prefix": (), "prefix_first": ("^~",), "exact": ("=",), "regex": ("~",), "regex_any_case": ("~*",)}
_FORWARDED = ("X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port")


class Context:
    """What a location has to know besides its route: files by the name they got, and how Lua is called."""

    def __init__(self, file: Callable[[str], str], naming: bool = False, names_itself: bool = False) -> None:
        self.file = file
        self.naming = naming
        self.names_itself = names_itself


def write_location(conf: Conf, listener: Listener, route: Route, context: Context) -> None:
    """The location of a route, and those that it refers to."""
    conf.mark(route.path)
    kind, path = route.location
    with conf.block("location", *_MODIFIERS[kind], path):
        _write_identity(conf, route, context)
        if _has_maintenance(route):
            with conf.block("if", f"($qnet_maintenance_{route.number})"):
                conf.add("rewrite", "^", f"{INTERNAL}maintenance/{route.number}", "last")
        _write_limits(conf, route, context)
        _write_client(conf, route)
        _write_errors(conf, route)
        _write_response_headers(conf, route)
        if guarded := _is_guarded(route):
            conf.add("try_files", f"{INTERNAL}none", f"@qnet_{route.number}")
        else:
            _write_action(conf, listener, route, context)
            _write_snippet(conf, route)
    if guarded:
        with conf.block("location", f"@qnet_{route.number}"):
            _write_client(conf, route)
            _write_errors(conf, route)
            _write_response_headers(conf, route)
            _write_action(conf, listener, route, context)
            _write_snippet(conf, route)
    _write_helpers(conf, route)


def _is_guarded(route: Route) -> bool:
    """Whether `return` must wait: it comes before nginx looks at who may come, so it has a location of its own."""
    guards = ("access", "basic_auth", "auth_request", "rate_limit", "connection_limit")
    return bool(route.get("redirect") or route.get("respond")) and any(route.get(guard) for guard in guards)


def _write_snippet(conf: Conf, route: Route) -> None:
    if snippet := route.get("snippet"):
        conf.mark(f"{route.path}.snippet")
        conf.raw(snippet)


def _write_identity(conf: Conf, route: Route, context: Context) -> None:
    """Variables that say which route it is; only for texts that use them, since each costs every request a little."""
    if context.names_itself:
        conf.add("set", "$qnet_route", route.key)
        if len(route.backends) < 2:  # none: an earlier route may have sent the request here (rewrite, then: search)
            conf.add("set", "$qnet_backend", route.backends[0].upstream if route.backends else "")


def _write_log(conf: Conf, route: Route) -> None:
    """How a request is counted and logged. What is known of it by its route stands in the text already."""
    if route.method == "least_connections":
        conf.lua("log_by_lua_block", f'qnet.done("{route.key}") qnet.log("{route.key}")')
    elif len(route.backends) > 1:
        conf.lua("log_by_lua_block", f'qnet.log("{route.key}")')
    else:
        service = route.backends[0].service if route.backends else ""
        conf.lua("log_by_lua_block", f'qnet.count("{route.key}|{service}")')
    conf.mark(f"{route.path}.access_log")
    log = route.get("access_log", default={})
    only = ["if=$qnet_is_error"] if log.get("only_errors") else []
    where = [ACCESS_LOG[0], f"qnet_{route.number}", *ACCESS_LOG[1:], *only]
    conf.flags("access_log", *(where if log.get("enabled", True) else ["off"]))


def _has_maintenance(route: Route) -> bool:
    return bool(route.get("maintenance")) and bool(route.get("maintenance", "enabled", default=True))


def _write_limits(conf: Conf, route: Route, context: Context) -> None:
    """Who may come, and how often."""
    here = route.path
    if methods := route.get("methods"):
        conf.mark(f"{here}.methods")
        allowed = "|".join([*methods, "HEAD"] if "GET" in methods else methods)
        with conf.block("if", "($request_method", "!~", f"^({allowed})$)"):
            conf.add("return", 405)
    if rules := route.get("access"):
        conf.mark(f"{here}.access")
        for rule in rules:
            for word, client in rule.items():
                conf.add(word, client)
    if satisfy := route.get("satisfy"):
        conf.add("satisfy", satisfy)
    if users := route.get("basic_auth", "users_file"):
        conf.mark(f"{here}.basic_auth")
        conf.add("auth_basic", route.get("basic_auth", "realm", default="restricted"))
        conf.add("auth_basic_user_file", context.file(users))
    if route.get("auth_request"):
        conf.mark(f"{here}.auth_request")
        conf.add("auth_request", f"{INTERNAL}auth/{route.number}")
        for position, value in enumerate((route.get("auth_request", "request_headers") or {}).values()):
            conf.add("auth_request_set", f"$qnet_auth_{route.number}_{position}", value)
    if limit := route.get("rate_limit"):
        conf.mark(f"{here}.rate_limit")
        burst = [f"burst={limit['burst']}"] if limit.get("burst") else []
        at_once = ["nodelay"] if burst and not limit.get("delay", True) else []
        conf.add("limit_req", f"zone=qnet_requests_{route.number}", *burst, *at_once)
        conf.add("limit_req_status", limit.get("status", 429))
    if limit := route.get("connection_limit"):
        conf.mark(f"{here}.connection_limit")
        conf.add("limit_conn", f"qnet_connections_{route.number}", limit["most"])
        conf.add("limit_conn_status", limit.get("status", 503))
    if rate := route.get("bandwidth", "bytes_per_second"):
        conf.add("limit_rate", rate)
    if after := route.get("bandwidth", "after"):
        conf.add("limit_rate_after", after)


def _write_client(conf: Conf, route: Route) -> None:
    """What concerns the client's side: body, timeouts, compression, log."""
    for option, name in (("max_size", "client_max_body_size"), ("buffer_size", "client_body_buffer_size")):
        _add(conf, name, route.get("request_body", option))
    _add(conf, "client_body_timeout", route.get("timeouts", "client_body_seconds"), "s")
    _add(conf, "send_timeout", route.get("timeouts", "client_send_seconds"), "s")
    if compression := route.get("compression"):
        conf.mark(f"{route.path}.compression")
        for word in ("gzip", "brotli"):
            _add(conf, word, compression.get(word))
            _add(conf, f"{word}_comp_level", compression.get("level"))
            _add(conf, f"{word}_min_length", compression.get("min_bytes"))
            if types := compression.get("types"):
                conf.add(f"{word}_types", *types)
        if compression.get("gzip"):
            conf.flags("gzip_vary", "on")
        if "proxied" in compression:
            conf.flags("gzip_proxied", "any" if compression["proxied"] else "off")
    _write_log(conf, route)


def _write_errors(conf: Conf, route: Route) -> None:
    for position, page in enumerate(route.get("error_pages", default=())):
        conf.mark(f"{route.path}.error_pages[{position}]")
        # A redirect has a status of its own; a page keeps that of the error unless it says another.
        status = [f"={page['status']}"] if "status" in page and "redirect" not in page else []
        target = page.get("redirect") or f"{INTERNAL}error/{route.number}/{position}"
        conf.add("error_page", *page["statuses"], *status, target)
    if _says_none(route):
        conf.add("error_page", 500, "=", f"{INTERNAL}none/{route.number}")
    if "intercept_errors" in route.values:
        conf.add(f"{_family(route)}_intercept_errors", route.get("intercept_errors"))


def _write_response_headers(conf: Conf, route: Route) -> None:
    headers = route.get("headers", default={})
    if headers.get("response_set") or headers.get("response_remove"):
        conf.mark(f"{route.path}.headers")
    # add_header takes variables of every phase; what the backend sent under the same name is dropped first.
    for name, value in (headers.get("response_set") or {}).items():
        conf.add("more_clear_headers", name)
        conf.add("add_header", name, value, "always")
    for name in headers.get("response_remove") or ():
        conf.add("more_clear_headers", name)
    if name := route.get("cache", "status_header"):
        conf.add("add_header", name, "$upstream_cache_status", "always")


def _write_action(conf: Conf, listener: Listener, route: Route, context: Context) -> None:
    conf.mark(route.path)
    if route.backends:
        _write_backends(conf, listener, route, context)
    elif redirect := route.get("redirect"):
        conf.mark(f"{route.path}.redirect")
        conf.add("return", redirect.get("status", 302), redirect["to"])
    elif respond := route.get("respond"):
        conf.mark(f"{route.path}.respond")
        conf.add("default_type", respond.get("media_type", "text/plain"))
        conf.add("return", respond["status"], *([respond["body"]] if "body" in respond else []))
    elif static := route.get("static"):
        _write_static(conf, route, static)


def _write_static(conf: Conf, route: Route, static: Values) -> None:
    conf.mark(f"{route.path}.static")
    prefix = route.location[1]
    directory = static["directory"].rstrip("/")
    conf.add("alias", directory + "/" if prefix.endswith("/") else directory)
    if index := static.get("index"):
        conf.add("index", *index)
    if fallback := static.get("fallback"):
        conf.add("try_files", "$uri", "$uri/", prefix.rstrip("/") + fallback)
    _add(conf, "autoindex", static.get("listing"))
    _add(conf, "expires", static.get("expires_seconds"), "s")


# Backends


def _family(route: Route) -> str:
    return "grpc" if route.get("backend_protocol", default="http").startswith("grpc") else "proxy"


def _is_admitted(route: Route, context: Context) -> bool:
    """Whether Lua looks at requests before their backend is chosen, which each of them pays for."""
    return context.naming or (route.by_pods and not _says_none(route))


def _says_none(route: Route) -> bool:
    """Whether nginx's own 500, which is all that the choice of a backend can say, means that there is no pod."""
    options = ("sticky", "intercept_errors", "error_pages")
    return route.by_pods and not any(route.get(option) for option in options)


def _write_backends(conf: Conf, listener: Listener, route: Route, context: Context) -> None:
    family = _family(route)
    if route.get("balance", "key"):
        conf.mark(f"{route.path}.balance.key")
        conf.add("set", "$qnet_key", route.get("balance", "key"))
    if len(route.backends) > 1:
        conf.add("set", "$qnet_backend", f"$qnet_choice_{route.number}")
    _write_rewrites(conf, route)  # after every set: a rewrite that stops, stops those as well
    if _is_admitted(route, context):
        conf.lua("access_by_lua_block", f'qnet.admit("{route.key}")')
    if route.get("sticky"):
        conf.lua("header_filter_by_lua_block", f'qnet.stick("{route.key}")')
    _write_request_headers(conf, listener, route, family)
    _write_proxy_options(conf, route, family, context)
    if family == "proxy":
        _write_cache(conf, route)
        _write_response_changes(conf, route)
        for position, dummy in enumerate(route.get("mirror", default=())):
            conf.mark(f"{route.path}.mirror[{position}]")
            conf.add("mirror", f"{INTERNAL}mirror/{route.number}/{position}")
        _add(conf, "mirror_request_body", route.get("mirror_body"))
    conf.mark(f"{route.path}.backends")
    several = len(route.backends) > 1
    upstream = "$qnet_backend" if several else route.backends[0].upstream
    scheme = route.get("backend_protocol", default="http")
    conf.add(f"{family}_pass", f"{scheme}://{upstream}")


def _write_rewrites(conf: Conf, route: Route) -> None:
    words = {"stop": "break", "search": "last", "redirect": "redirect", "permanent": "permanent"}
    for position, rule in enumerate(route.get("rewrite", default=())):
        conf.mark(f"{route.path}.rewrite[{position}]")
        conf.add("rewrite", rule["pattern"], rule["to"], words[rule.get("then", "stop")])
    if new := route.get("replace_prefix"):
        conf.mark(f"{route.path}.replace_prefix")
        # With the slash, so that /a never becomes /newb for /ab; nginx keeps the query.
        old = route.location[1].rstrip("/")
        pattern = "".join(f"\\{c}" if c in r".^$*+?()[]{}|" else c for c in old)
        conf.add("rewrite", f"^{pattern}(?:/(.*))?$", new.rstrip("/") + "/$1", "break")


def _write_request_headers(conf: Conf, listener: Listener, route: Route, family: str) -> None:
    conf.mark(f"{route.path}.headers")
    headers = dict(route.get("headers", "request_set", default={}))
    removed = route.get("headers", "request_remove", default=())
    values = {"Host": route.get("headers", "host", default="$qnet_host"), **_forwarded(listener, route)}
    if family == "proxy":
        kept = "1" if keepalive_of(route) else "0"
        if route.get("websocket", default=True):
            values |= {"Upgrade": "$http_upgrade", "Connection": f"$qnet_connection_{kept}"}
        else:
            values |= {"Upgrade": "", "Connection": "" if keepalive_of(route) else "close"}
    names = list((route.get("auth_request", "request_headers") or {}).keys())
    values |= {name: f"$qnet_auth_{route.number}_{position}" for position, name in enumerate(names)}
    for name in removed:
        values = {known: value for known, value in values.items() if known.lower() != name.lower()}
        values[name] = ""
    for name, value in headers.items():
        values = {known: other for known, other in values.items() if known.lower() != name.lower()}
        values[name] = value
    for name, value in values.items():
        conf.add(f"{family}_set_header", name, value)


def _forwarded(listener: Listener, route: Route) -> dict[str, str]:
    how = route.get("headers", "forwarded", default="replace")
    if how == "none":
        return dict.fromkeys(_FORWARDED, "")
    client = "$proxy_add_x_forwarded_for" if how == "append" else "$remote_addr"
    scheme = "https" if listener.tls else "http"
    return dict(zip(_FORWARDED, ("$remote_addr", client, scheme, "$qnet_host", str(listener.port)), strict=True))


def tries_of(route: Route) -> int:
    """How often a request is tried in all."""
    tries: int = route.get("retries", "tries", default=2)
    return tries


def keepalive_of(route: Route) -> int:
    """How many idle connections to backends each worker keeps."""
    kept: int = route.get("keepalive", "connections", default=64 if route.by_pods else 0)
    return kept


def _write_proxy_options(conf: Conf, route: Route, family: str, context: Context) -> None:
    if family == "proxy":
        conf.flags("proxy_http_version", "1.1")
    for option in ("connect", "send", "read"):
        _add(conf, f"{family}_{option}_timeout", route.get("timeouts", f"{option}_seconds"), "s")
    conf.mark(f"{route.path}.retries")
    conditions = list(route.get("retries", "conditions", default=("error", "timeout")))
    if route.get("retries", "non_idempotent"):
        conditions.append("non_idempotent")
    conf.flags(f"{family}_next_upstream", *(conditions if tries_of(route) > 1 else ["off"]))
    conf.add(f"{family}_next_upstream_tries", tries_of(route))
    _add(conf, f"{family}_next_upstream_timeout", route.get("retries", "timeout_seconds"), "s")
    if (header_size := route.get("buffering", "header_size")) is not None:
        conf.add(f"{family}_buffer_size", header_size)
    if family == "proxy":
        _write_buffering(conf, route)
    if route.get("backend_protocol", default="http") in ("https", "grpcs"):
        _write_backend_tls(conf, route, family, context)


def _write_buffering(conf: Conf, route: Route) -> None:
    _add(conf, "proxy_request_buffering", route.get("request_body", "buffering"))
    buffering = route.get("buffering", default={})
    if buffering:
        conf.mark(f"{route.path}.buffering")
    _add(conf, "proxy_buffering", buffering.get("enabled"))
    if "number" in buffering or "size" in buffering:
        conf.add("proxy_buffers", buffering.get("number", 8), buffering.get("size", "8k"))
    _add(conf, "proxy_busy_buffers_size", buffering.get("busy_size"))
    _add(conf, "proxy_max_temp_file_size", buffering.get("file_size"))


def _write_backend_tls(conf: Conf, route: Route, family: str, context: Context) -> None:
    conf.mark(f"{route.path}.backend_tls")
    tls = route.get("backend_tls", default={})
    conf.flags(f"{family}_ssl_server_name", "on")
    conf.add(f"{family}_ssl_name", tls.get("name", "$host"))
    if tls.get("verify"):
        conf.flags(f"{family}_ssl_verify", "on")
        conf.flags(f"{family}_ssl_verify_depth", "4")
    for option, name in (("ca", "trusted_certificate"), ("certificate", "certificate"), ("key", "certificate_key")):
        if option in tls:
            conf.add(f"{family}_ssl_{name}", context.file(tls[option]))


def _write_cache(conf: Conf, route: Route) -> None:
    cache = route.get("cache")
    if not cache or not cache.get("enabled", True):
        return
    conf.mark(f"{route.path}.cache")
    conf.flags("proxy_cache", "qnet")
    conf.add("proxy_cache_key", cache.get("key", "$scheme$host$request_uri"))
    for rule in cache.get("valid", ()):
        conf.add("proxy_cache_valid", *rule.get("statuses", ()), f"{rule['seconds']}s")
    for option, name in (
        ("min_uses", "proxy_cache_min_uses"),
        ("background", "proxy_cache_background_update"),
        ("lock", "proxy_cache_lock"),
        ("revalidate", "proxy_cache_revalidate"),
    ):
        _add(conf, name, cache.get(option))
    for option, name in (
        ("methods", "proxy_cache_methods"),
        ("stale", "proxy_cache_use_stale"),
        ("bypass", "proxy_cache_bypass"),
        ("no_store", "proxy_no_cache"),
        ("ignore_headers", "proxy_ignore_headers"),
    ):
        if cache.get(option):
            conf.add(name, *cache[option])


def _write_response_changes(conf: Conf, route: Route) -> None:
    for position, rule in enumerate(route.get("response_redirects", default=())):
        conf.mark(f"{route.path}.response_redirects[{position}]")
        conf.add("proxy_redirect", rule["from"], rule["to"])
    for option, name in (("domain", "proxy_cookie_domain"), ("path", "proxy_cookie_path")):
        for old, new in route.get("response_cookies", option, default={}).items():
            conf.mark(f"{route.path}.response_cookies.{option}")
            conf.add(name, old, new)


# The locations that a location refers to


def _write_helpers(conf: Conf, route: Route) -> None:
    if _has_maintenance(route):
        page = route.get("maintenance")
        with _internal(conf, f"{route.path}.maintenance", f"maintenance/{route.number}"):
            _write_log(conf, route)
            if "retry_seconds" in page:
                conf.add("add_header", "Retry-After", page["retry_seconds"], "always")
            conf.add("default_type", page.get("media_type", "text/html"))
            conf.add("return", page.get("status", 503), page.get("body", "Down for maintenance.\n"))
    for position, page in enumerate(route.get("error_pages", default=())):
        if "redirect" not in page:
            with _internal(conf, f"{route.path}.error_pages[{position}]", f"error/{route.number}/{position}"):
                _write_log(conf, route)
                conf.add("default_type", page.get("media_type", "text/html"))
                conf.add("return", page.get("status", page["statuses"][0]), page.get("body", ""))
    if _says_none(route):
        with _internal(conf, route.path, f"none/{route.number}"):
            _write_log(conf, route)
            conf.add("default_type", "text/plain")
            conf.add("return", 503, "no pod of this route can be asked\n")
    if asked := route.get("auth_request"):
        with _internal(conf, f"{route.path}.auth_request", f"auth/{route.number}"):
            conf.flags("proxy_pass_request_body", "off")
            conf.add("proxy_set_header", "Content-Length", "")
            conf.add("proxy_set_header", "X-Original-URI", "$request_uri")
            conf.add("proxy_set_header", "X-Original-Method", "$request_method")
            _write_ask(conf, f"qnet_auth_{route.number}", asked)
    for position, asked in enumerate(route.get("mirror", default=())):
        with _internal(conf, f"{route.path}.mirror[{position}]", f"mirror/{route.number}/{position}"):
            _write_ask(conf, f"qnet_mirror_{route.number}_{position}", asked)


def _internal(conf: Conf, path: str, name: str) -> Any:
    conf.mark(path)
    block = conf.block("location", "=", INTERNAL + name)
    return _Internal(conf, block)


class _Internal:
    """A block that only nginx itself may enter."""

    def __init__(self, conf: Conf, block: Any) -> None:
        self.conf = conf
        self.inner = block

    def __enter__(self) -> None:
        self.inner.__enter__()
        self.conf.flags("internal")

    def __exit__(self, *details: Any) -> None:
        self.inner.__exit__(*details)


def _write_ask(conf: Conf, upstream: str, asked: Values) -> None:
    conf.flags("proxy_http_version", "1.1")
    conf.add("proxy_set_header", "Host", "$qnet_host")
    conf.add("proxy_set_header", "Connection", "close")
    conf.add("proxy_set_header", "X-Real-IP", "$remote_addr")
    conf.add("proxy_set_header", "X-Forwarded-For", "$remote_addr")
    conf.add("proxy_pass", f"http://{upstream}{asked.get('path', '$request_uri')}")


def _add(conf: Conf, name: str, value: Any, unit: str = "") -> None:
    if value is not None:
        conf.add(name, f"{value}{unit}" if unit else value)
