# SPDX-License-Identifier: Apache-2.0
"""Fixtures with real parts, shared by the contract and the controller tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .real import Authority, Vswitch, own_network, vswitch

BRIDGE = "qcbr"
DATAPATH_ID = 0x0000_51AA_0000_0001


@pytest.fixture(scope="session", name="network")
def private_network() -> Iterator[None]:
    """A network namespace for this process, so that ports and interface names cannot clash."""
    back = own_network()
    yield
    back()


@pytest.fixture(scope="session", name="authority")
def fleet_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of the fleet."""
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session", name="ovs")
def private_vswitch(network: None, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vswitch]:
    """One Open vSwitch for the whole run, with the certificate of host h1."""
    directory: Path = tmp_path_factory.mktemp("ovs")
    certificate, key = authority.issue("h1")
    with vswitch(directory, BRIDGE, DATAPATH_ID) as switch:
        switch.vsctl("set-ssl", str(key), str(certificate), str(authority.ca))
        for number in (1, 2, 3):
            switch.vsctl(
                "add-port", BRIDGE, f"dummy{number}", "--", "set", "interface", f"dummy{number}", "type=internal",
                f"ofport_request={number}",
            )  # fmt: skip
        yield switch


@pytest.fixture(name="switch")
def clean_switch(ovs: Vswitch) -> Iterator[Vswitch]:
    """The Open vSwitch, without flows, groups, meters and controllers before and after."""
    _clean(ovs)
    yield ovs
    _clean(ovs)


def _clean(ovs: Vswitch) -> None:
    ovs.vsctl("del-controller", BRIDGE)
    ovs.ofctl("del-flows")
    ovs.ofctl("del-groups")
    ovs.ofctl("del-meters")
