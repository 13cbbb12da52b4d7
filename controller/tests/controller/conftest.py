# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the controller tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from contract.fixtures import clean_switch, fleet_authority, private_network, private_vswitch
from contract.real import Authority

__all__ = ["clean_switch", "fleet_authority", "private_network", "private_vswitch"]


@pytest.fixture(name="toml")
def configuration(authority: Authority) -> Callable[..., Path]:
    """Writes a configuration file of controller c1 and returns its path."""

    def write(path: Path, *, port: int = 6653, api: int = 9680, remote: str = "", **pki: Path) -> Path:
        certificate, key = authority.issue("c1")
        files = {"ca": authority.ca, "certificate": certificate, "private_key": key} | pki
        lines = [
            'name = "c1"',
            f'[openflow]\nlisten = "127.0.0.1:{port}"',
            f'[database]\nremotes = ["{remote or "unix:/run/qnet-database/qnet.sock"}"]',
            "[pki]",
            *(f'{name} = "{file}"' for name, file in files.items()),
            '[[controllers]]\nname = "c1"\naddress = "127.0.0.1"',
            f'[api]\nlisten = "127.0.0.1:{api}"',
            "[decisions]\nidle_timeout_seconds = 300",
        ]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
