# SPDX-License-Identifier: Apache-2.0
"""Fixtures with real parts, shared by the contract and the controller tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .real import Authority, Vswitch, own_network, run, vswitch

BRIDGE = "qcbr"
DATAPATH_ID = 0x0000_51AA_0000_0001


@pytest.fixture(scope="package", name="network")
def private_network() -> Iterator[None]:
    """A network namespace for this process, so that ports and interface names cannot clash."""
    back = own_network()
    yield
    back()


@pytest.fixture(scope="session", name="authority")
def fleet_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of the fleet."""
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="package", name="ovs")
def private_vswitch(network: None, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vswitch]:
    """One Open vSwitch for all tests of a package, with the certificate of host h1."""
    directory: Path = tmp_path_factory.mktemp("ovs")
    certificate, key = authority.issue("h1")
    with vswitch(directory, BRIDGE, DATAPATH_ID) as switch:
        switch.vsctl("set-ssl", str(key), str(certificate), str(authority.ca))
        for number in (1, 2, 3):
            attach(switch, number)
        yield switch


def attach(switch: Vswitch, number: int) -> None:
    """Add port dummy<number> with that number, up as a pod's port would be."""
    name = f"dummy{number}"
    port = ("set", "interface", name, "type=internal", f"ofport_request={number}")
    switch.vsctl("add-port", BRIDGE, name, "--", *port)
    run("ip", "link", "set", name, "up")


@pytest.fixture(name="switch")
def clean_switch(ovs: Vswitch) -> Iterator[Vswitch]:
    """The Open vSwitch, without flows, groups, meters and controllers before and after."""
    clean(ovs)
    yield ovs
    clean(ovs)


def clean(ovs: Vswitch) -> None:
    """Take everything from the bridge but its ports."""
    ovs.vsctl("del-controller", BRIDGE)
    ovs.ofctl("del-flows")
    ovs.ofctl("del-groups")
    ovs.ofctl("del-meters")


def write_toml(
    path: Path, authority: Authority, *, port: int = 6653, api: int = 9680, remote: str, **pki: Path
) -> Path:
    """Write a configuration file of controller c1; returns its path."""
    certificate, key = authority.issue("c1")
    files = {"ca": authority.ca, "certificate": certificate, "private_key": key} | pki
    lines = [
        'name = "c1"',
        f'[openflow]\nlisten = "127.0.0.1:{port}"',
        f'[database]\nremotes = ["{remote}"]',
        "[pki]",
        *(f'{name} = "{file}"' for name, file in files.items()),
        '[[controllers]]\nname = "c1"\naddress = "127.0.0.1"',
        f'[api]\nlisten = "127.0.0.1:{api}"',
        "[decisions]\nidle_timeout_seconds = 300",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
