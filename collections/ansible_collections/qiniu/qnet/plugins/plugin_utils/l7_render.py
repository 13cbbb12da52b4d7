# SPDX-License-Identifier: GPL-3.0-or-later
"""From listeners and routes to the files of one balancer. Pure: the same data gives the same text."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.qiniu.qnet.plugins.module_utils._l7_marks import RELEASE, RUN
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_http import VARIABLES, write_http
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_location import Context, tries_of
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_site import Route, Site, Values, site
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_stream import write_stream
from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_text import Conf

_MODULES = {
    "ndk_http_module": "",
    "ngx_http_lua_module": "",
    "ngx_http_headers_more_filter_module": "more_",
    "ngx_http_brotli_filter_module": "brotli",
    "ngx_stream_module": "stream {",
}
"""Modules, and how their directives begin: each has a part in every answer, so one that nothing uses is left out."""


@dataclass(frozen=True)
class Worker:
    """What the host decides: see roles/l7_balancer/defaults."""

    processes: int | str = 1
    connections: int = 4096
    shutdown_seconds: int = 3600
    cache_size: str = "256m"
    lua_directory: str = "/opt/qnet/l7/lua"
    modules_directory: str = "/usr/lib/nginx/modules"
    error_level: str = "warn"
    ipv6: bool = True


@dataclass(frozen=True)
class Rendered:
    """The files of a balancer: path to text. `beside`: file beside the inventory to where it has to be put."""

    files: Mapping[str, str]
    beside: Mapping[str, str]
    ports: Sequence[str] = field(default=())
    services: Sequence[str] = field(default=())


def render(
    balancer: str,
    listeners: Sequence[Values],
    routes: Sequence[Values],
    addresses: Mapping[tuple[str, str], str],
    tenants: Mapping[str, str],
    worker: Worker,
    services: Mapping[str, Values] | None = None,
) -> Rendered:
    """Render one balancer. `addresses`: (service, name of its Service IP) to address; `tenants`: group to tenant.

    `services`: group/service to what it says for l7.
    """
    made = site(balancer, listeners, routes, addresses, tenants, services, worker.ipv6)
    beside: dict[str, str] = {}

    def file(path: str) -> str:
        if path.startswith("/"):
            return path
        beside[path] = posixpath.join("secrets", path.replace("/", "_").replace("..", "_"))
        return beside[path]

    conf = Conf()
    context = Context(file, False)
    with conf.block("http"):
        _write_http_base(conf, made, worker)
        write_http(conf, made, context, addresses)
        _write_control(conf)
    if any(listener.is_stream and listener.routes for listener in made.listeners):
        with conf.block("stream"):
            write_stream(conf, made, context)
    ports = sorted({f"{'udp' if one.protocol == 'udp' else 'tcp'}/{one.port}" for one in made.listeners})
    followed = sorted({backend.service for route in made.routes if route.by_pods for backend in route.backends})
    return Rendered({"nginx.conf": _main(conf, worker).text() + conf.text()}, beside, ports, followed)


def _main(rest: Conf, worker: Worker) -> Conf:
    """What stands before everything else."""
    conf = Conf()
    for module, begin in _MODULES.items():
        if any(line.lstrip().startswith(begin) for line in rest.lines):
            conf.add("load_module", f"{worker.modules_directory}/{module}.so")
    conf.flags("daemon", "off")
    conf.add("pid", f"{RUN}/nginx.pid")
    conf.add("error_log", "logs/error.log", worker.error_level)
    conf.add("worker_processes", worker.processes)
    conf.add("worker_shutdown_timeout", f"{worker.shutdown_seconds}s")
    conf.add("worker_rlimit_nofile", worker.connections * 2 + 64)
    with conf.block("events"):
        conf.add("worker_connections", worker.connections)
    return conf


def _write_http_base(conf: Conf, made: Site, worker: Worker) -> None:
    conf.add("lua_package_path", f"{worker.lua_directory}/?.lua;;")
    for name, size in (("pods", "16m"), ("metrics", "4m"), ("health", "2m")):
        conf.flags("lua_shared_dict", f"qnet_{name}", size)
    conf.flags("lua_socket_log_errors", "off")
    conf.flags("lua_malloc_trim", "100000")  # requests between two walks over the whole heap; 1,000 are too few
    # One block of memory for a proxied request, with the first part of its answer in it, and one for the connection of
    # a client, with the headers of its next request. By nginx's own sizes there are four and two, and 4096 do not fit.
    conf.flags("request_pool_size", "16k")
    conf.flags("connection_pool_size", "2k")
    conf.flags("proxy_buffer_size", "4080")
    conf.flags("uninitialized_variable_warn", "off")  # a request that ends early has no pod to log
    # Through a global of ours: `require` in every request costs more than what is called.
    load = f'require("qnet.config").load([==[{_lua_config(made)}]==], "{RELEASE}")'
    conf.lua("init_by_lua_block", f'{load} qnet = require("qnet.hooks")')
    conf.lua("init_worker_by_lua_block", 'require("qnet.worker").start()')
    conf.add("include", "/etc/nginx/mime.types")
    conf.flags("default_type", "application/octet-stream")
    conf.flags("sendfile", "on")
    conf.flags("tcp_nopush", "on")
    for name in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi"):
        conf.add(f"{name}_temp_path", f"temp/{name}")
    if any(route.get("cache") for route in made.routes):
        conf.flags(
            "proxy_cache_path", "cache", "levels=1:2", "keys_zone=qnet:16m", f"max_size={worker.cache_size}",
            "inactive=24h", "use_temp_path=off",
        )  # fmt: skip


def _write_control(conf: Conf) -> None:
    """Sockets of the balancer's own: pods come in by one, metrics go out by the other."""
    conf.mark("the balancer itself")
    with conf.block("server"):
        conf.add("listen", f"unix:{RUN}/control.sock")
        for variable in VARIABLES:  # known to the log's format also where no listener speaks HTTP
            conf.add("set", f"$qnet_{variable}", "")
        conf.flags("access_log", "off")
        conf.flags("client_max_body_size", "64m")
        conf.flags("client_body_buffer_size", "64m")
        with conf.block("location", "/"):
            conf.lua("content_by_lua_block", 'require("qnet.control").serve()')
    with conf.block("server"):
        conf.add("listen", f"unix:{RUN}/metrics.sock")
        conf.flags("access_log", "off")
        with conf.block("location", "=", "/metrics"):
            conf.lua("content_by_lua_block", 'require("qnet.metrics").serve()')


def _lua_config(made: Site) -> str:
    """What Lua has to know of routes, as JSON."""
    routes = {route.key: _lua_route(route) for route in made.routes if route.backends}
    listeners = {
        listener.name: [route.get("naming") for route in listener.routes if route.get("naming")]
        for listener in made.listeners
    }
    services = {backend.service for route in made.routes for backend in route.backends}
    tenants = {service: made.tenants.get(service.split("/")[0], "") for service in services}
    text = json.dumps({"routes": routes, "listeners": listeners, "tenants": tenants}, sort_keys=True)
    return text.replace("]==]", "]=\\u003d]")


def _lua_route(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {
        "listener": route.listener,
        "method": route.method,
        "tries": tries_of(route),
        "backends": [
            {"upstream": backend.upstream, "service": backend.service, "port": backend.port}
            for backend in route.backends
        ],
    }
    if "key" in (route.get("balance") or {}):
        found["keyed"] = True
    for option in ("naming", "sticky", "health_check"):
        if route.get(option):
            found[option] = route.get(option)
    return found
