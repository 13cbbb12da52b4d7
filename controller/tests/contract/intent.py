# SPDX-License-Identifier: Apache-2.0
"""A QNet database with a small fleet in it: what modules would write, as RFC 7047 operations."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from contract.fixtures import DATAPATH_ID
from qnet_controller.ovsdb.rows import address

Operation = dict[str, Any]


def reference(name: str) -> list[str]:
    """A row made in the same transaction."""
    return ["named-uuid", name]


def insert(table: str, as_name: str = "", **row: object) -> Operation:
    """One insertion."""
    operation: Operation = {"op": "insert", "table": table, "row": row}
    return operation | ({"uuid-name": as_name} if as_name else {})


def update(table: str, where: list[Any], **row: object) -> Operation:
    """Change rows."""
    return {"op": "update", "table": table, "where": [where], "row": row}


def delete(table: str, *where: list[Any]) -> Operation:
    """Delete rows."""
    return {"op": "delete", "table": table, "where": list(where)}


def texts(values: Iterable[str]) -> list[object]:
    """A set of strings."""
    return ["set", list(values)]


def host(name: str = "h1", datapath_id: int = DATAPATH_ID) -> Operation:
    """A host whose VTEP is derived from its datapath id."""
    return insert(
        "Host", name=name, vteps=f"192.0.2.{datapath_id & 0xFF}", datapath_id=f"{datapath_id:016x}",
        datapath_kind="netdev", controller_set="", state="active",
    )  # fmt: skip


def pod(number: int, service: str, name: str = "") -> list[Operation]:
    """Pod `number` of a service made in the same transaction, on port dummy<number>."""
    made = f"p{number}"
    return [
        insert(
            "Pod", made, name=name or f"{service}-{number}", service=reference(service), network=reference("prod"),
            mac=f"02:00:00:00:00:{number:02x}", port_name=f"dummy{number}", weight=100, state="active",
        ),
        insert("Pod_Address", pod=reference(made), network=reference("prod"), address=f"10.10.0.{number}"),
    ]  # fmt: skip


def fleet() -> list[Operation]:
    """Groups fop (service image: pods 1 and 2, a Service IP) and entry (service web: pod 3); image is exported."""
    return [
        insert("QNet_Global", generation=7),
        insert("Network", "prod", name="prod", vni=100, pod_subnets="10.10.0.0/16", service_subnets="10.96.0.0/16"),
        host(),
        insert("Security_Group", "fop", name="fop", tenant="fop", number=1),
        insert("Security_Group", "entry", name="entry", tenant="fop", number=2),
        insert("Service", "image", name="image", group=reference("fop"), network=reference("prod")),
        insert("Service", "web", name="web", group=reference("entry"), network=reference("prod")),
        insert(
            "Service_IP", name="main", service=reference("image"), network=reference("prod"), address="10.96.0.10",
            affinity="none", algorithm="hash",
        ),
        *pod(1, "image"),
        *pod(2, "image"),
        *pod(3, "web"),
        insert(
            "Export", service=reference("image"), to_group=reference("entry"), ports=texts(["tcp/80", "icmp"]),
            direct=False,
        ),
    ]  # fmt: skip


def echo_request(number: int, target: str) -> str:
    """An ICMP echo request of pod `number`, in hex."""

    def checksum(data: bytes) -> int:
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return ~total & 0xFFFF

    def header(value: int) -> bytes:
        source = bytes([10, 10, 0, number])
        return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0x4000, 64, 1, value, source, address(target))

    frame = bytes.fromhex("0a0000000001") + bytes([2, 0, 0, 0, 0, number]) + b"\x08\0"
    icmp = struct.pack("!BBHHH", 8, 0, checksum(struct.pack("!BBHHH", 8, 0, 0, number, 1)), number, 1)
    return (frame + header(checksum(header(0))) + icmp).hex()
