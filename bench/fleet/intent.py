# SPDX-License-Identifier: Apache-2.0
"""Generated intent: groups, services with Service IPs, pods, exports; where each pod is, and what policy says of it."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import random
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .wire import Port

VNI = 100
NETWORK = "prod"
_POD_BLOCK = int(ipaddress.ip_address("10.16.0.0"))
_SERVICE_BLOCK = int(ipaddress.ip_address("10.96.0.0"))
_FIRST_PORT = 10
TUNNEL = Port(1, "qnet-vxlan")


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    switches: int = 8
    groups: int = 200
    services: int = 1000
    pods: int = 10_000
    exports: int = 1000


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, with the switch (index) and the port that it is on."""

    index: int
    group: int
    service: int
    address: bytes
    mac: bytes
    switch: int
    port: Port

    @property
    def key(self) -> str:
        """`group/pod`."""
        return f"g{self.group}/p{self.index}"


@dataclass(frozen=True, slots=True)
class Host:
    """A host and its switch."""

    index: int
    name: str
    datapath_id: int
    vtep: bytes


@dataclass(slots=True)
class Plan:
    """The whole intent, and where pods are. Group g has the number g + 1; services lie in groups in turn."""

    size: Size
    hosts: list[Host] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    exports: set[tuple[int, int]] = field(default_factory=set)
    by_address: dict[bytes, Pod] = field(default_factory=dict)
    on_switch: dict[int, list[Pod]] = field(default_factory=dict)

    def group_of(self, service: int) -> int:
        """The group of a service."""
        return service % self.size.groups

    def service_address(self, service: int) -> bytes:
        """The Service IP of a service."""
        return (_SERVICE_BLOCK + 1 + service).to_bytes(4, "big")

    def ports(self, switch: int) -> tuple[Port, ...]:
        """The ports of a switch."""
        return (TUNNEL, *(pod.port for pod in self.on_switch[switch]))

    def allowed(self, group: int, address: bytes) -> bool:
        """Whether pods of a group may open connections to an address: the policy of the architecture, once more."""
        pod = self.by_address.get(address)
        if pod is not None:  # no export is `direct` here; pods may answer where the other side may open
            return pod.group == group or any(
                (service, pod.group) in self.exports for service in range(group, self.size.services, self.size.groups)
            )
        service = int.from_bytes(address, "big") - _SERVICE_BLOCK - 1
        if not 0 <= service < self.size.services:
            return False
        return self.group_of(service) == group or (service, group) in self.exports


def plan(size: Size, seed: int = 1) -> Plan:
    """Make a plan; the same for the same arguments."""
    chance = random.Random(seed)
    made = Plan(size)
    for index in range(size.switches):
        name = f"h{index}"
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        made.hosts.append(Host(index, name, number, (0xC0000000 + 0x200 + index).to_bytes(4, "big")))
        made.on_switch[index] = []
    for index in range(size.pods):
        service = index % size.services
        switch = chance.randrange(size.switches)
        digest = hashlib.sha256(f"pod {index}".encode()).hexdigest()
        port = Port(_FIRST_PORT + len(made.on_switch[switch]), f"qn{digest[:12]}")
        address = (_POD_BLOCK + 10 + index).to_bytes(4, "big")
        pod = Pod(index, made.group_of(service), service, address, bytes.fromhex("02" + digest[12:22]), switch, port)
        made.pods.append(pod)
        made.by_address[address] = pod
        made.on_switch[switch].append(pod)
    while len(made.exports) < size.exports:
        service, group = chance.randrange(size.services), chance.randrange(size.groups)
        if made.group_of(service) != group:
            made.exports.add((service, group))
    return made


def _reference(name: str) -> list[str]:
    return ["named-uuid", name]


def operations(of: Plan) -> list[dict[str, Any]]:
    """The plan as one transaction of the database QNet."""

    def insert(table: str, made: str = "", /, **row: Any) -> dict[str, Any]:
        operation: dict[str, Any] = {"op": "insert", "table": table, "row": row}
        return operation | ({"uuid-name": made} if made else {})

    def text(address: bytes) -> str:
        return str(ipaddress.ip_address(address))

    network = _reference("net")
    found = [
        insert("QNet_Global", generation=1),
        insert("Network", "net", name=NETWORK, vni=VNI, pod_subnets="10.16.0.0/12", service_subnets="10.96.0.0/16"),
    ]
    for host in of.hosts:
        found.append(
            insert(
                "Host", name=host.name, vteps=text(host.vtep), datapath_id=f"{host.datapath_id:016x}",
                datapath_kind="netdev", controller_set="", state="active",
            )
        )  # fmt: skip
    found += [
        insert("Security_Group", f"g{group}", name=f"g{group}", tenant="bench", number=group + 1)
        for group in range(of.size.groups)
    ]
    for service in range(of.size.services):
        group = _reference(f"g{of.group_of(service)}")
        found.append(insert("Service", f"s{service}", name=f"s{service}", group=group, network=network))
        found.append(
            insert(
                "Service_IP", name="main", service=_reference(f"s{service}"), network=network,
                address=text(of.service_address(service)), affinity="none", algorithm="hash",
            )
        )  # fmt: skip
    for pod in of.pods:
        found.append(
            insert(
                "Pod", f"p{pod.index}", name=f"p{pod.index}", service=_reference(f"s{pod.service}"), network=network,
                mac=pod.mac.hex(":"), port_name=pod.port.name, weight=100, state="active",
            )
        )  # fmt: skip
        found.append(insert("Pod_Address", pod=_reference(f"p{pod.index}"), network=network, address=text(pod.address)))
    found += [
        insert("Export", service=_reference(f"s{service}"), to_group=_reference(f"g{group}"), direct=False)
        for service, group in sorted(of.exports)
    ]
    return found


def load(unix_socket: Path, transaction: list[dict[str, Any]]) -> None:
    """Carry out one transaction over the database's socket: it may be longer than a command line."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(120)
        connection.connect(str(unix_socket))
        request = {"id": 1, "method": "transact", "params": ["QNet", *transaction]}
        connection.sendall(json.dumps(request).encode())
        reader, text = json.JSONDecoder(), ""
        while True:
            piece = connection.recv(1 << 20)
            if not piece:
                raise ConnectionError("the database closed the connection")
            text += piece.decode()
            try:
                reply = reader.raw_decode(text)[0]
                break
            except ValueError:
                continue
    broken = [one for one in reply["result"] if one and "error" in one]
    if reply.get("error") or broken:
        raise RuntimeError(f"the database refuses the intent: {reply.get('error') or broken[:3]}")
