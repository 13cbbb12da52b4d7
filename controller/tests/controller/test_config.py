# SPDX-License-Identifier: Apache-2.0
"""The configuration file: what is taken over, and that every fault is found and told."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contract.fixtures import write_toml
from contract.real import Authority
from qnet_controller.config import ConfigError, Endpoint, load, parse

GOOD: dict[str, Any] = {
    "name": "c1",
    "openflow": {"listen": "0.0.0.0:6653"},
    "database": {"remotes": ["unix:/run/qnet-database/qnet.sock", "ssl:192.0.2.1:6641"]},
    "pki": {
        "ca": "/etc/qnet/pki/ca.pem",
        "certificate": "/etc/qnet/pki/host.pem",
        "private_key": "/etc/qnet/pki/host.key",
    },
    "controllers": [{"name": "c1", "address": "192.0.2.1"}, {"name": "c2", "address": "192.0.2.2"}],
    "api": {"listen": "127.0.0.1:9680"},
    "decisions": {"idle_timeout_seconds": 60},
}


def test_a_good_configuration_is_taken_over() -> None:
    config = parse(GOOD, "test")
    assert config.openflow_listen == Endpoint("0.0.0.0", 6653)
    assert [peer.name for peer in config.controllers] == ["c1", "c2"]
    assert config.decisions.idle_timeout_seconds == 60
    assert config.decisions.drop_timeout_seconds == 30
    assert (config.decisions.pod_rate, config.decisions.pod_demands) == (300, 4096)
    assert parse(_with("decisions.pod_demands", 100), "test").decisions.pod_demands == 100
    assert config.silence_seconds == 5.0
    assert parse(GOOD | {"openflow": {"listen": "[::]:6653"}}, "test").openflow_listen == Endpoint("::", 6653)


def _with(path: str, value: object) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    table = data
    for name in parents:
        table = table.setdefault(name, {})
    if value is None:
        del table[last]
    else:
        table[last] = value
    return data


FAULTS = {
    "unknown option": (_with("openflow.port", 1), "openflow.port", "listen"),
    "unknown section": (_with("surprise", 1), "surprise", "openflow"),
    "missing section": (_with("pki", None), "pki", "certificate"),
    "missing value": (_with("pki.ca", None), "pki.ca", "PEM"),
    "relative path": (_with("pki.ca", "ca.pem"), "pki.ca", "absolute"),
    "a word for a switch": (_with("decisions.warm_start", "yes"), "decisions.warm_start", "true or false"),
    "too little silence": (_with("liveness.silence_milliseconds", 99), "liveness.silence_milliseconds", "from 100"),
    "no port": (_with("openflow.listen", "0.0.0.0"), "openflow.listen", "ADDRESS:PORT"),
    "port too large": (_with("openflow.listen", "0.0.0.0:65536"), "openflow.listen", "65535"),
    "a name to listen on": (_with("openflow.listen", "localhost:6653"), "openflow.listen", "IP address"),
    "an open API": (_with("api.listen", "0.0.0.0:9680"), "api.listen", "loopback"),
    "not a controller": (_with("name", "c9"), "name", "c1, c2"),
    "no controllers": (_with("controllers", []), "controllers", "at least one"),
    "a controller twice": (_with("controllers", GOOD["controllers"] * 2), "controllers[2].name", "twice"),
    "a bad name": (_with("controllers", [{"name": "C 1", "address": "x"}]), "controllers[0].name", "DNS label"),
    "plain tcp": (_with("database.remotes", ["tcp:192.0.2.1:6641"]), "database.remotes[0]", "ssl:"),
    "no remote": (_with("database.remotes", []), "database.remotes", "list"),
    "no time": (_with("decisions.idle_timeout_seconds", 0), "decisions.idle_timeout_seconds", "from 1 to 65535"),
    "no packets": (_with("decisions.pod_rate", 0), "decisions.pod_rate", "packets per second from 1 to"),
    "too few demands": (_with("decisions.pod_demands", 63), "decisions.pod_demands", "demands from 64 to"),
    "a text for a time": (_with("decisions.drop_timeout_seconds", "30"), "decisions.drop_timeout_seconds", "number"),
}


@pytest.mark.parametrize(("data", "path", "rule"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_says_where_what_and_why(data: dict[str, Any], path: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data, "controller.toml")
    texts = [str(fault) for fault in caught.value.faults if fault.path == path]
    assert texts, f"no fault at {path}: {caught.value}"
    assert rule in " ".join(texts)
    assert str(caught.value).startswith("controller.toml: ")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"name": "", "surprise": 1}, "test")
    assert {fault.path for fault in caught.value.faults} >= {
        "name", "surprise", "openflow", "database", "pki", "controllers", "api",
    }  # fmt: skip


def test_files_that_are_none_are_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="not TOML"):
        load(tmp_path / "bad.toml")


def _check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qnet_controller.cli.main", "--config", str(path), "--check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_check_reads_the_certificates_too(tmp_path: Path, authority: Authority) -> None:
    remote = "unix:/run/qnet-database/qnet.sock"
    good = write_toml(tmp_path / "good.toml", authority, remote=remote)
    done = _check(good)
    assert (done.returncode, done.stdout) == (0, f"{good}: ok\n")
    bad = write_toml(tmp_path / "bad.toml", authority, remote=remote, private_key=tmp_path / "missing.key")
    done = _check(bad)
    assert done.returncode == 2
    assert "pki.private_key" in done.stderr
    other = Authority(tmp_path).issue("other")[1]
    done = _check(write_toml(tmp_path / "mixed.toml", authority, remote=remote, private_key=other))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
