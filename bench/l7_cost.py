#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Requests per second and p99 through the L7 balancer, beside plain nginx with a static upstream.

Both are the same nginx on this machine with one worker, in front of the same three backends (nginx, an answer of a few
bytes), asked by wrk. Over Service IPs the peer opens a connection for each request, as ours does; among pods both keep
connections. The peer does what somebody would configure by hand for the same: the same JSON in a buffered access log,
the same X-Forwarded headers, upgrades for WebSockets, as many tries. It does not follow pods, and counts nothing.
The worker that is measured has the first processor, wrk and the backends have the last, so that rounds are alike. When
those are the slower part, requests/s say little; the requests for each second of the worker's own time do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

from bench.report import Goal, Series, arguments, number, table  # noqa: E402
from tests.l7.balancer import BALANCER, Balancer  # noqa: E402
from tests.l7.conftest import free_port  # noqa: E402

CPUS = sorted(os.sched_getaffinity(0))
FIRST, ON_LAST = {CPUS[0]}, ("taskset", "--cpu-list", str(CPUS[-1]))
NET = "127.77"
PODS = {f"agents-{number}": f"{NET}.1.{number}" for number in (1, 2, 3)}
SERVICE, SERVICE_IP = "fop/agents", f"{NET}.9.1"
BACKENDS = """
worker_processes 1; daemon off; pid {directory}/backend.pid; error_log {directory}/backend.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2;
  fastcgi_temp_path {directory}/t3; uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
  server {{ {listen} location / {{ return 200 "ok\\n"; }} }}
}}
"""
FIELDS = (
    '"time":"$time_iso8601","listener":"web","route":"web/{path}","tenant":"files","service":"fop/agents","pod":"",'
    '"client":"$remote_addr","method":"$request_method","host":"$host","uri":"$request_uri",'
    '"protocol":"$server_protocol","status":$status,"bytes":$body_bytes_sent,"seconds":$request_time,'
    '"upstream":"$upstream_addr","upstream_status":"$upstream_status","upstream_seconds":"$upstream_response_time",'
    '"cache":"$upstream_cache_status","user_agent":"$http_user_agent"'
)
LOCATION = """
    location /{path} {{
      access_log {directory}/plain-access.log {path} buffer=64k flush=1s;
      proxy_http_version 1.1; proxy_next_upstream error timeout; proxy_next_upstream_tries 2;
      proxy_set_header Host $http_host;
      proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto http; proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Port {listen};
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_{path};
      proxy_pass http://{path};
    }}
"""
PLAIN = """
worker_processes 1; daemon off; pid {directory}/plain.pid; error_log {directory}/plain-error.log;
events {{ worker_connections 4096; }}
http {{
  {formats}
  client_body_temp_path {directory}/p1; proxy_temp_path {directory}/p2;
  fastcgi_temp_path {directory}/p3; uwsgi_temp_path {directory}/p4; scgi_temp_path {directory}/p5;
  sendfile on; tcp_nopush on;
  map $http_upgrade $connection_once {{ default upgrade; "" close; }}
  map $http_upgrade $connection_kept {{ default upgrade; "" ""; }}
  upstream once {{ server {service_ip}:{port}; server {service_ip}:{port}; }}
  upstream kept {{ {servers} keepalive 64; }}
  server {{
    listen {listen}; server_tokens off;
    {locations}
  }}
}}
"""


def plain(told: dict[str, Any]) -> str:
    """The configuration of the peer."""
    paths = ("once", "kept")
    formats = "".join(f"log_format {path} escape=json '{{{FIELDS.replace('{path}', path)}}}';" for path in paths)
    locations = "".join(LOCATION.format(path=path, **told) for path in paths)
    return PLAIN.format(formats=formats, locations=locations, **told)


@dataclass(frozen=True)
class Contender:
    """Something that wrk asks."""

    name: str
    url: str
    worker: int

    def cpu(self) -> float:
        """Seconds of processor time that its worker has used."""
        fields = Path(f"/proc/{self.worker}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def nginx(directory: Path, name: str, text: str) -> Iterator[subprocess.Popen[bytes]]:
    """An nginx with a configuration of its own, for the time of a block."""
    (directory / f"{name}.conf").write_text(text)
    command = [*ON_LAST, "nginx", "-p", f"{directory}/", "-e", f"{name}.log", "-c", str(directory / f"{name}.conf")]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def contenders(directory: Path) -> Iterator[list[Contender]]:
    """Plain nginx and the balancer in front of the same backends."""
    port, theirs, ours = free_port(), free_port(), free_port()
    addresses = [*PODS.values(), SERVICE_IP]
    listen = " ".join(f"listen {address}:{port};" for address in addresses)
    servers = " ".join(f"server {address}:{port};" for address in PODS.values())
    told = {"directory": directory, "service_ip": SERVICE_IP, "port": port, "servers": servers, "listen": theirs}
    balancer = Balancer(directory, {(SERVICE, "main"): SERVICE_IP}, {"fop": "files"})
    balancer.set_pods(SERVICE, PODS)
    backend = [{"service": SERVICE, "port": port}]
    routes: list[dict[str, Any]] = [
        {"name": "once", "listener": "web", "path": "/once", "backends": backend},
        {"name": "kept", "listener": "web", "path": "/kept", "backends": backend, "balance": {"method": "round_robin"}},
    ]
    listener = {"name": "web", "balancer": BALANCER, "protocol": "http", "port": ours}
    with (
        nginx(directory, "backend", BACKENDS.format(directory=directory, listen=listen)),
        nginx(directory, "plain", plain(told)) as peer,
    ):
        try:
            balancer.configure([listener], routes)
            both = (("qnet", ours, worker_of(balancer.process.pid)), ("plain nginx", theirs, worker_of(peer.pid)))
            for _, _, worker in both:
                os.sched_setaffinity(worker, FIRST)
            yield [
                Contender(f"{who}, {how}", f"http://127.0.0.1:{listen_port}/{path}", worker)
                for path, how in (("once", "Service IP"), ("kept", "pods"))
                for who, listen_port, worker in both
            ]
        finally:
            balancer.stop()


def worker_of(master: int) -> int:
    """The one worker of an nginx."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if children := Path(f"/proc/{master}/task/{master}/children").read_text().split():
            return int(children[0])
        time.sleep(0.02)
    raise SystemExit("nginx did not start")


def ask(contender: Contender, seconds: int, connections: int) -> tuple[float, float, float]:
    """Requests per second and the 99th percentile in ms, as wrk says; requests per second of processor time."""
    command = [
        *ON_LAST,
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        contender.url,
    ]
    before = contender.cpu()
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"{contender.name}: some requests failed:\n{said}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    latency = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    total = re.search(r"(\d+) requests in", said)
    if rate is None or latency is None or total is None:
        raise SystemExit(f"wrk said something else:\n{said}")
    return (
        float(rate[1]),
        float(latency[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[latency[2]],
        (int(total[1]) / max(contender.cpu() - before, 0.01)),
    )


def main() -> int:
    """Run the rounds and print the tables."""
    parser: argparse.ArgumentParser = arguments(__doc__ or "")
    parser.add_argument("--seconds", type=int, default=5, help="time of each contender in each round (default 5)")
    parser.add_argument("--connections", type=int, default=32, help="open connections of wrk (default 32)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qnet-bench-l7-") as name, contenders(Path(name)) as running:
        rates: dict[str, list[float]] = {one.name: [] for one in running}
        latencies: dict[str, list[float]] = {one.name: [] for one in running}
        paid: dict[str, list[float]] = {one.name: [] for one in running}
        for turn in range(options.rounds + 1):
            for one in running if turn % 2 == 0 else reversed(running):
                rate, latency, per_cpu = ask(one, options.seconds, options.connections)
                if turn == 0:  # caches and branch predictors are cold
                    continue
                rates[one.name].append(rate)
                latencies[one.name].append(latency)
                paid[one.name].append(per_cpu)
                said = f"{number(rate)} requests/s, p99 {number(latency)} ms"
                print(f"  round {turn}: {one.name}: {said}", file=sys.stderr, flush=True)
    pairs = [(f"qnet, {how}", f"plain nginx, {how}") for how in ("Service IP", "pods")]
    for unit, values, goals in (
        ("requests/s", rates, [Goal(*pair, 0.95) for pair in pairs]),
        ("requests for each second of the worker's processor time", paid, [Goal(*pair, 0.95) for pair in pairs]),
        ("ms at the 99th percentile", latencies, [Goal(*pair, 1 / 0.95, at_least=False) for pair in pairs]),
    ):
        print(table("L7 cost", unit, {one: Series(one, tuple(these)) for one, these in values.items()}, goals))
    return 0


if __name__ == "__main__":
    sys.exit(main())
