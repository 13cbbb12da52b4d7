# SPDX-License-Identifier: Apache-2.0
"""Hostile questions to the controller's API: values, bodies and whole requests that mean nothing."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

_ROW = {
    "Network": {"name": "prod", "vni": 7, "pod_subnets": ["10.9.0.0/24"], "service_subnets": [], "mtu": 1400},
    "Security_Group": {"name": "fop", "tenant": "t", "number": 3, "egress": ["0.0.0.0/0 tcp/443"]},
    "Service": {"name": "image", "group": "fop", "network": "prod", "health_check": {"type": "tcp", "port": "80"}},
    "Service_IP": {"name": "main", "service": "fop/image", "network": "prod", "address": "10.96.0.9"},
    "Pod": {"name": "image-1", "service": "fop/image", "addresses": ["10.9.0.2"], "weight": 1, "state": "active"},
    "Export": {"service": "fop/image", "to_group": "entry", "ports": ["tcp/80"], "direct": True, "expires": []},
    "Guest": {"network": "prod", "home": "h1", "vni": 9, "addresses": ["10.8.0.0/24"]},
}
CHANGES: dict[str, Any] = {
    "changes": [
        *({"table": table, "key": "fop/image", "row": row} for table, row in _ROW.items()),
        *({"table": table, "key": "fop/image->entry", "row": None} for table in _ROW),
    ]
}
QUERIES: tuple[tuple[str, dict[str, str]], ...] = (
    ("/v1/status", {}), ("/healthz", {}), ("/metrics", {}), ("/v1/drops", {}),
    ("/v1/trace", {"from": "entry/web-3", "to": "fop/image", "protocol": "tcp", "port": "80"}),
    ("/v1/explain", {"cookie": "0x7104a1b2c3d4e5f6"}),
    ("/v1/flows", {"host": "h1"}), ("/v1/flows", {"pod": "entry/web-3"}),
    ("/v1/receipt", {"generation": "1", "wait": "0"}),
)  # fmt: skip
POSTED = ("/v1/what-if", "/v1/what-if/own", "/v1/receipt/own")
NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 70, 1e308, float("nan"), float("inf"), "", "x" * 300, "\x00", "-1", "nan", "inf", "1e999",
    "٣", "9" * 400, "::", "fe80::1%eth0", "10.0.0.0/99", "a/b/c", "tcp/0", "tcp/99999", "../..", [], {}, [[]],
    {"a": []}, ["x"],
)  # fmt: skip
_NO_WAIT = ("nan", "-1", "x", "", "1e-3")  # a long one would be waited for, as it should


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; `body` None: a GET."""

    path: str
    body: bytes | None

    def wire(self) -> bytes:
        """Its bytes on the wire."""
        method, rest = ("GET", b"") if self.body is None else ("POST", self.body)
        head = f"{method} {self.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(rest)}\r\n\r\n"
        return head.encode() + rest


BODIES = tuple(
    Asked(path, body)
    for path in POSTED
    for body in (
        b"", b"{", b"[]", b"7", b"null", b'{"changes": 7}', b'{"changes": [7]}', b'{"changes": [{}]}', b"[" * 100_000,
        b'{"generation": 1, "seconds": NaN}', b'{"generation": "x", "seconds": 1}', b"\xff\xfe", b'"' + b"9" * 100_000,
        b"9" * 10_000, b'{"changes": [{"table": [], "key": {}}]}',
        b'{"changes": [{"table": "Pod", "key": [], "row": null}]}',
    )
)  # fmt: skip
"""Bodies that are no question."""


def mutated(chance: random.Random) -> Asked:
    """A sensible question in which some values are others."""
    if chance.random() < 0.5:
        path, query = chance.choice(QUERIES)
        wrong = {name: str(chance.choice(_NO_WAIT if name == "wait" else NASTY)) for name in query}
        values = {name: wrong[name] if chance.random() < 0.7 else value for name, value in query.items()}
        text = "&".join(f"{name}={quote(value)}" for name, value in values.items())
        return Asked(f"{path}?{text}" if text else path, None)
    body = copy.deepcopy(CHANGES)
    body["changes"] = chance.sample(body["changes"], chance.randrange(1, 4))
    for _ in range(chance.randrange(1, 4)):
        spoil(chance, body)
    return Asked(chance.choice(POSTED[:2]), json.dumps(body).encode())


def spoil(chance: random.Random, where: Any) -> None:
    """Put something else into one place of a tree, or take it away."""
    while True:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(where[key], dict | list) and where[key] and chance.random() < 0.9:
            where = where[key]
            continue
        if isinstance(where, dict) and chance.random() < 0.2:
            del where[key]
        else:
            where[key] = chance.choice(NASTY)
        return
