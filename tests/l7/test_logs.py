# SPDX-License-Identifier: Apache-2.0
"""The access log and the metrics."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.l7.balancer import LUA
from tests.l7.certificates import Authority
from tests.l7.conftest import Scene
from tests.l7.covers import covers
from tests.l7.intent import FEEDER
from tests.l7.place import IN_LAB
from tests.l7.test_protocols import line, stream
from tests.l7.test_tls import certificate


@covers("route.access_log.format", "route.access_log.only_errors", "route.access_log.enabled")
def test_the_format_of_the_access_log(scene: Scene) -> None:
    log = scene.balancer.directory / "logs/access.log"
    scene.configure(
        scene.route("own", access_log={"format": '$remote_addr "$request" $status', "only_errors": True}),
        scene.route("none", path="/none", access_log={"enabled": False}),
    )
    for path in ("/fine", "/none", "/status/500"):
        scene.get(path)
    scene.configure()  # the old worker has written its last line
    assert log.read_text().splitlines() == [f'{scene.client(1)} "GET /status/500 HTTP/1.1" 500']


@covers("route.access_log.enabled")
def test_a_request_without_a_route_is_logged_as_well(scene: Scene) -> None:
    scene.configure(scene.route(path="/only"))
    scene.get("/other")
    (line,) = scene.balancer.log()
    assert (line["listener"], line["route"], line["service"], line["status"]) == ("web", "", "", 404)


def test_metrics_count_requests_by_route_service_and_status(scene: Scene) -> None:
    scene.configure(scene.route(), scene.route("fixed", path="/fixed", respond={"status": 204}))
    for path in ("/", "/", "/status/500", "/fixed"):
        scene.get(path)
    lines = scene.balancer.metrics().splitlines()
    labels = 'listener="web",route="all",service="fop/image",tenant="files"'
    assert f'qnet_l7_requests_total{{{labels},status="200"}} 2' in lines
    assert f'qnet_l7_requests_total{{{labels},status="500"}} 1' in lines
    assert 'qnet_l7_requests_total{listener="web",route="fixed",service="",tenant="",status="204"} 1' in lines
    assert f"qnet_l7_request_duration_seconds_count{{{labels}}} 3" in lines
    names = {line.split("{")[0].split()[0] for line in lines if not line.startswith("#")}
    told = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in names} <= told


def test_bytes_are_counted_as_nginx_logs_them_in_any_protocol(scene: Scene) -> None:
    listener = {"protocol": "https", "certificates": [certificate(scene, Authority(), "www.example.org")]}
    scene.configure(scene.route(access_log={"format": "$server_protocol $bytes_sent"}), listener=listener)
    log = scene.balancer.directory / "logs/access.log"
    for options in (["--h1"], ["-m", "8"]):  # more than the first hundred, in which both ways are compared
        url = f"https://{scene.server}:{scene.listen}/"
        subprocess.run(["h2load", *options, "-n", "200", "-c", "2", url], capture_output=True, check=True)
    lines = scene.balancer.metrics().splitlines()
    scene.configure(scene.route(), listener=listener)  # the old worker has written its last line
    logged = [entry.split() for entry in log.read_text().splitlines()]
    assert Counter(protocol for protocol, _ in logged) == {"HTTP/1.1": 200, "HTTP/2.0": 200}
    total = sum(int(number) for _, number in logged)
    labels = 'listener="web",route="all",service="fop/image",tenant="files"'
    assert f"qnet_l7_sent_bytes_total{{{labels}}} {total}" in lines
    assert "keeps the bytes" not in scene.balancer.errors()


@pytest.mark.skipif(IN_LAB, reason="the lab has the programs of the role")
def test_an_nginx_that_keeps_its_bytes_elsewhere_is_noticed(scene: Scene) -> None:
    lua = shutil.copytree(LUA, scene.balancer.directory / "lua")
    source = lua / "qnet/sent.lua"
    source.write_text(source.read_text().replace("int fd;", "int fd; void *something_new;"))
    route = scene.route(access_log={"format": "$bytes_sent"})
    scene.configure(route, lua_directory=str(lua))
    for _ in range(3):
        scene.get()
    lines = scene.balancer.metrics().splitlines()
    scene.configure(route)
    total = sum(map(int, (scene.balancer.directory / "logs/access.log").read_text().split()))
    labels = 'listener="web",route="all",service="fop/image",tenant="files"'
    assert f"qnet_l7_sent_bytes_total{{{labels}}} {total}" in lines
    assert scene.balancer.errors().count("keeps the bytes") == 1


@covers("route.balance.method")
def test_metrics_count_what_each_pod_was_handed_until_it_is_gone(scene: Scene) -> None:
    scene.configure(scene.route(balance={"method": "round_robin"}))
    for _ in range(4):
        scene.get()
    title = 'qnet_l7_pod_tries_total{listener="web",route="all",service="fop/image",tenant="files",pod="image-%d"} 2'
    lines = scene.balancer.metrics().splitlines()
    assert {title % 1, title % 2} <= set(lines)
    scene.pods("fop/image", 1, start=False)
    assert "image-2" not in scene.balancer.metrics()


@covers("listener.protocol")
def test_sessions_over_tcp_are_counted_by_name_also_when_the_log_is_rotated(scene: Scene) -> None:
    address = scene.service_ip()
    scene.backends.stop(address, scene.port)
    scene.backends.start_tcp("image", address, scene.port)
    stream(scene, "tcp", {"backends": [scene.backend()]})
    log = scene.balancer.directory / "logs/sessions.log"
    sessions = load_feeder().Sessions(log)
    labels = '{listener="raw",route="r0",service="fop/image",tenant="files",status="200"}'

    def counted() -> int:
        found = re.search(rf"(?m)^qnet_l7_sessions_total{re.escape(labels)} (\d+)$", sessions.metrics())
        return int(found[1]) if found else 0

    assert counted() == 0
    for number in (2, 4):
        for _ in range(2):
            assert line(scene, "hello") == "image hello"
        wait_until(counted, number)
        log.rename(log.with_suffix(".old"))
        scene.balancer.reopen_logs()
    sent, received = 2 * 2 * len("image hello\n"), 2 * 2 * len("hello\n")
    assert f"qnet_l7_session_sent_bytes_total{labels} {sent}" in sessions.metrics()
    assert f"qnet_l7_session_received_bytes_total{labels} {received}" in sessions.metrics()


def load_feeder() -> Any:
    """The role's feeder as a module."""
    spec = importlib.util.spec_from_file_location("qnet_l7_feed", FEEDER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wait_until(count: Callable[[], int], wanted: int) -> None:
    """Until so many are counted, at most 20 s."""
    deadline = time.monotonic() + 20
    while (found := count()) != wanted:
        assert time.monotonic() < deadline, f"{found} are counted, not {wanted}"
        time.sleep(0.05)


@covers("route.error_pages")
def test_a_request_that_ends_with_a_page_is_logged_with_its_service_and_pod(scene: Scene) -> None:
    page = {"statuses": [500], "body": "sorry"}
    route = scene.route(balance={"method": "round_robin"}, error_pages=[page], intercept_errors=True)
    scene.configure(route)
    assert scene.get("/status/500").body == "sorry"
    (line,) = scene.balancer.log()
    assert (line["route"], line["service"], line["tenant"]) == ("web/all", "fop/image", "files")
    assert line["pod"].startswith("image-")
