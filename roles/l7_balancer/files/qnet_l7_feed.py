#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tell a balancer which pods there are: qnet_l7_feed.py FEED.JSON.

Follows pods and exports in the intent database and hands what the balancer's routes need to nginx over its control
socket, as one whole at every change; nginx is never reloaded for it. What was last said is kept in a file, so that a
balancer starts while no database can be reached. Serves the metrics of nginx and its own on the loopback; sessions over
tcp and udp, where nginx has no Lua, are counted from their log.

FEED.JSON: {"group": …, "services": ["group/service", …], "database": [remotes], "private_key": …, "certificate": …,
"ca_certificate": …, "control": socket, "metrics": socket, "state": file, "sessions": log, "metrics_port": 9681}.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ovs.db.idl
import ovs.poller
import ovs.stream

TABLES: dict[str, dict[str, Any]] = {
    "QNet_Global": {"generation": {"type": "integer"}},
    "Security_Group": {"name": {"type": "string"}},
    "Service": {"name": {"type": "string"}, "group": {"type": {"key": {"type": "uuid", "refTable": "Security_Group"}}}},
    "Pod": {
        "name": {"type": "string"},
        "service": {"type": {"key": {"type": "uuid", "refTable": "Service"}}},
        "port_name": {"type": "string"},
        "weight": {"type": "integer"},
        "state": {"type": "string"},
    },
    "Pod_Address": {"pod": {"type": {"key": {"type": "uuid", "refTable": "Pod"}}}, "address": {"type": "string"}},
    "Export": {
        "service": {"type": {"key": {"type": "uuid", "refTable": "Service"}}},
        "to_group": {"type": {"key": {"type": "uuid", "refTable": "Security_Group"}}},
        "ports": {"type": {"key": "string", "min": 0, "max": "unlimited"}},
        "expires": {"type": {"key": "integer", "min": 0, "max": 1}},
        "direct": {"type": "boolean"},
    },
}
SCHEMA = {
    "name": "QNet",
    "version": "1.0.0",
    "tables": {name: {"columns": columns} for name, columns in TABLES.items()},
}
LOOK_SECONDS = 1.0  # how often nginx is asked whether it still knows the pods: a restart forgets them


def picture(
    group: str, services: Iterable[str], tables: Mapping[str, Iterable[Any]], now: float
) -> tuple[dict[str, Any], float | None]:
    """What nginx is told, and when it changes by itself (an export expires), in seconds since the epoch."""
    wanted: dict[str, dict[str, Any]] = {
        name: {"direct": name.split("/")[0] == group, "ports": [], "pods": []} for name in services
    }
    ends: list[int] = []
    for export in tables["Export"]:
        name = _service(export.service)
        if name not in wanted or not export.direct or export.to_group.name != group:
            continue
        if export.expires and export.expires[0] <= now:
            continue
        ends += export.expires
        wanted[name]["direct"], wanted[name]["ports"] = True, sorted(export.ports)
    addresses: dict[Any, list[str]] = {}
    for row in tables["Pod_Address"]:
        addresses.setdefault(row.pod.uuid, []).append(row.address)
    for pod in tables["Pod"]:
        name = _service(pod.service)
        mine = addresses.get(pod.uuid)
        if name in wanted and mine:
            wanted[name]["pods"].append(_pod(pod, sorted(mine, key=lambda text: (":" in text, text))[0]))
    for service in wanted.values():
        service["pods"].sort(key=lambda pod: pod["name"])
    return {"services": wanted}, min(ends, default=None)


def _service(row: Any) -> str:
    return f"{row.group.name}/{row.name}"


def _pod(row: Any, address: str) -> dict[str, Any]:
    """One pod; its number is that at the end of its name."""
    number = re.search(r"-(\d+)$", row.name)
    told = {"name": row.name, "id": row.port_name, "address": address, "weight": row.weight, "state": row.state}
    return {**told, "index": int(number[1])} if number else told


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, method: str, uri: str, body: str | None = None) -> bytes:
    """A request over a Unix socket; OSError or HTTPException when it is not answered with 200."""
    connection = _UnixConnection(path)
    try:
        connection.request(method, uri, body)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise OSError(f"{method} {uri}: {answer.status} {text[:200].decode(errors='replace')}")
        return text
    finally:
        connection.close()


class Sessions:
    """Counters of sessions over tcp and udp, by listener, route, service, tenant and status, from nginx's log of them.

    What was logged before the first look is not counted: counters begin at 0 with the process, as nginx's own do.
    """

    TOTALS = (
        ("sessions_total", "", "Sessions over tcp and udp that have ended."),
        ("session_sent_bytes_total", "bytes", "Bytes sent to clients over tcp and udp."),
        ("session_received_bytes_total", "bytes_received", "Bytes that came from clients over tcp and udp."),
        ("session_duration_seconds_total", "seconds", "How long those sessions lasted, added up."),
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: dict[str, dict[str, float]] = {}
        self._file: io.TextIOWrapper | None = None
        self._partial = ""
        self._lock = threading.Lock()  # two may ask for metrics at a time
        self._open(at_end=True)

    def _open(self, at_end: bool) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._file = self.path.open(encoding="utf-8", errors="replace")
            self._partial = ""
            if at_end:
                self._file.seek(0, os.SEEK_END)

    def metrics(self) -> str:
        """The metrics as text, after a look at what is new in the log."""
        with self._lock:
            self._read()
            if self._rotated():  # the last lines of the old file were read just now
                self._open(at_end=False)
                self._read()
            lines = []
            for name, _, about in self.TOTALS if self.counts else ():
                lines += [f"# HELP qnet_l7_{name} {about}", f"# TYPE qnet_l7_{name} counter"]
                for labels, values in sorted(self.counts.items()):
                    lines.append(f"qnet_l7_{name}{{{labels}}} {values[name]:.15g}")
            return "".join(f"{line}\n" for line in lines)

    def _rotated(self) -> bool:
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        mine = os.fstat(self._file.fileno())
        return (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino) or there.st_size < self._file.tell()

    def _read(self) -> None:
        if self._file is None:
            return
        while text := self._file.read(1 << 20):
            *whole, self._partial = (self._partial + text).split("\n")
            for line in whole:
                self._count(line)

    def _count(self, line: str) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            names = ("listener", "route", "service", "tenant", "status")
            told = {**said, "route": said["route"].partition("/")[2]}
            labels = ",".join(f'{name}="{told[name]}"' for name in names)
            values = self.counts.setdefault(labels, dict.fromkeys((name for name, *_ in self.TOTALS), 0))
            for name, field, _ in self.TOTALS:
                values[name] += float(said[field]) if field else 1


class Feeder:
    """Follows the database and keeps one nginx informed."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.told = told
        self.state = Path(told["state"])
        self.text = self.state.read_text(encoding="utf-8") if self.state.exists() else ""
        self.pushed = ""
        self.generation = 0
        self.connected = False
        self.failures = 0
        self.sessions = Sessions(Path(told["sessions"])) if told.get("sessions") else None
        self._ends: float | None = None
        self._looked = 0.0

    def run(self) -> None:
        """Follow for ever."""
        for name, put in (
            ("private_key", ovs.stream.Stream.ssl_set_private_key_file),
            ("certificate", ovs.stream.Stream.ssl_set_certificate_file),
            ("ca_certificate", ovs.stream.Stream.ssl_set_ca_cert_file),
        ):
            if self.told.get(name):
                put(self.told[name])
        helper = ovs.db.idl.SchemaHelper(schema_json=SCHEMA)
        helper.register_all()
        idl = ovs.db.idl.Idl(",".join(self.told["database"]), helper, probe_interval=5000, leader_only=False)
        # Debian 12's library tells the server that it understands changes of the schema, and then ignores that its
        # monitor was cancelled by one. A client that does not say so is disconnected, and reads everything again.
        idl._Idl__send_db_change_aware = lambda: None
        seqno = 0
        while True:
            idl.run()
            self.connected = idl.state == ovs.db.idl.Idl.IDL_S_MONITORING
            if self.connected and (idl.change_seqno != seqno or self._expired()):
                seqno = idl.change_seqno
                self.look({name: idl.tables[name].rows.values() for name in TABLES})
            self.push()
            poller = ovs.poller.Poller()
            idl.wait(poller)
            poller.timer_wait(self._pause())
            poller.block()

    def _expired(self) -> bool:
        return self._ends is not None and time.time() >= self._ends

    def _pause(self) -> int:
        """Milliseconds until something is due by itself."""
        due = 0.1 if self.text != self.pushed else LOOK_SECONDS
        if self._ends is not None:
            due = min(due, max(0.0, self._ends - time.time()))
        return int(due * 1000) + 1

    def look(self, tables: Mapping[str, Iterable[Any]]) -> None:
        """Take over what the database says."""
        told, self._ends = picture(self.told["group"], self.told["services"], tables, time.time())
        self.generation = next((row.generation for row in tables["QNet_Global"]), 0)
        text = json.dumps(told, sort_keys=True)
        if text != self.text:
            self.text = text
            self.push()
            partial = self.state.with_suffix(".new")
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, self.state)

    def push(self) -> None:
        """Tell nginx, when it does not know yet."""
        try:
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._looked = time.monotonic()
                if not json.loads(ask(self.told["control"], "GET", "/state"))["known"]:
                    self.pushed = ""
            if self.text and self.text != self.pushed:
                ask(self.told["control"], "PUT", "/pods", self.text)
                self.pushed = self.text
        except (OSError, http.client.HTTPException, ValueError):
            self.failures += 1
            self.pushed = ""

    def metrics(self) -> str:
        """Our own metrics as text."""
        lines = []
        for name, kind, text, value in (
            ("feed_connected", "gauge", "Whether the intent database is followed.", int(self.connected)),
            ("feed_generation", "gauge", "Generation of the intent that was last seen.", self.generation),
            ("feed_failures_total", "counter", "How often nginx could not be told.", self.failures),
        ):
            title = f"qnet_l7_{name}"
            lines += [f"# HELP {title} {text}", f"# TYPE {title} {kind}", f"{title} {value}"]
        return "\n".join([*lines, ""]) + (self.sessions.metrics() if self.sessions else "")


def serve_metrics(feeder: Feeder, port: int) -> None:
    """Serve /metrics on the loopback, in a thread of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = feeder.metrics().encode()
            with contextlib.suppress(OSError, http.client.HTTPException):
                body += ask(feeder.told["metrics"], "GET", "/metrics")
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body if self.path == "/metrics" else b"")

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing for each request."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


def main(arguments: list[str]) -> None:
    """Read the configuration and run."""
    feeder = Feeder(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    if feeder.told.get("metrics_port"):
        serve_metrics(feeder, feeder.told["metrics_port"])
    feeder.run()


if __name__ == "__main__":
    main(sys.argv[1:])
