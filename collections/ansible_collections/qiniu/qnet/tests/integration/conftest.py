# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole installation that the tests of examples and of secrets share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.qiniu.qnet.tests.integration.whole_host import WholeHost


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, target_python: str, import_path: str) -> Iterator[WholeHost]:
    """Certificates, intent database, switch and controller, on one host."""
    with WholeHost(tmp_path_factory.mktemp("whole"), target_python, import_path) as host:
        certificate = {"name": "c1", "addresses": ["{{ ansible_host }}"], "ca_directory": "/srv/qnet-ca"}
        host.good([{"qiniu.qnet.qnet_certificate": certificate}])
        host.start_database()
        host.start_controller()
        yield host
