# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to the database: TLS, several remotes, and what is said when it fails."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import typing as t

import pytest

from ansible_collections.qiniu.qnet.tests import conftest

ROLE = conftest.COLLECTIONS_ROOT.parent / "roles/intent_database"
NETWORK: dict[str, t.Any] = {"name": "prod", "vni": 1, "pod_subnets": ["10.0.0.0/24"]}


@dataclasses.dataclass(frozen=True)
class Authority:
    """A certificate authority with a directory of its own."""

    directory: pathlib.Path

    @classmethod
    def create(cls, directory: pathlib.Path) -> Authority:
        """Make the authority itself."""
        directory.mkdir()
        authority = cls(directory)
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key")
        authority._openssl("req", "-x509", *new_key, "-subj", "/CN=ca", "-days", "2", "-out", "ca.pem")
        return authority

    def files(self, name: str) -> dict[str, str]:
        """The options of a module that identifies itself as ``name``."""
        if not (self.directory / f"{name}.pem").exists():
            new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")
            self._openssl("req", "-new", *new_key, "-subj", f"/CN={name}", "-out", f"{name}.csr")
            signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
            self._openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-days", "2", "-out", f"{name}.pem")
        paths = {"private_key": f"{name}.key", "certificate": f"{name}.pem", "ca_certificate": "ca.pem"}
        return {option: str(self.directory / file) for option, file in paths.items()}

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, cwd=self.directory, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ours") / "ca")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("foreign") / "ca")


@pytest.fixture(scope="module")
def tls_remote(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    """A database over mutual TLS."""
    files = ours.files("server")
    port = free_port()
    options = [f"--remote=pssl:{port}:127.0.0.1", f"--private-key={files['private_key']}"]
    options += [f"--certificate={files['certificate']}", f"--ca-cert={files['ca_certificate']}"]
    with contextlib.contextmanager(conftest.start_database)(tmp_path_factory.mktemp("tls"), *options):
        yield f"ssl:127.0.0.1:{port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_over_mutual_tls(run: conftest.Runner, tls_remote: str, ours: Authority) -> None:
    way = {"database": [tls_remote], **ours.files("h1")}
    assert run("qnet_network", **NETWORK, **way)["changed"] is True
    assert run("qnet_network", **NETWORK, **way)["changed"] is False
    assert run("qnet_network_info", **way)["networks"][0]["name"] == "prod"


def test_a_client_of_another_authority_is_refused(
    run: conftest.Runner, tls_remote: str, ours: Authority, foreign: Authority
) -> None:
    mixed = foreign.files("h1") | {"ca_certificate": ours.files("h1")["ca_certificate"]}
    said = run.refused("qnet_network", **NETWORK, database=[tls_remote], **mixed)
    assert said.startswith(f"database QNet cannot be reached: {tls_remote}: ")
    assert "certificates are of the same CA" in said


def test_a_server_of_another_authority_is_refused(run: conftest.Runner, tls_remote: str, foreign: Authority) -> None:
    said = run.refused("qnet_network", **NETWORK, database=[tls_remote], **foreign.files("h1"))
    assert "certificate verify failed" in said


def test_tls_needs_readable_files(run: conftest.Runner, ours: Authority) -> None:
    said = run.refused("qnet_network", **NETWORK, database=["ssl:127.0.0.1:1"])
    assert said.startswith("private_key: not given, but a remote in 'database' is ssl:")
    files = ours.files("h1") | {"certificate": "/nonexistent/host.pem"}
    said = run.refused("qnet_network", **NETWORK, database=["ssl:127.0.0.1:1"], **files)
    assert said.startswith("certificate: cannot read '/nonexistent/host.pem'")


def test_over_the_network_one_may_only_read(run: conftest.Runner, ours: Authority, tmp_path: pathlib.Path) -> None:
    schema = ROLE / "files/qnet_remotes.ovsschema"
    remotes, port = tmp_path / "remotes.db", free_port()
    row = {"target": f"pssl:{port}:127.0.0.1", "read_only": True, "role": "reader"}
    insert = {"op": "insert", "table": "Connection", "uuid-name": "network", "row": row}
    refer = {"op": "insert", "table": "Remotes", "row": {"connections": ["named-uuid", "network"]}}
    subprocess.run(["ovsdb-tool", "create", remotes, schema], check=True, timeout=20)
    subprocess.run(
        ["ovsdb-tool", "transact", remotes, json.dumps(["QNet_Remotes", insert, refer])], check=True, timeout=20
    )
    files = ours.files("server")
    options = [str(remotes), "--remote=db:QNet_Remotes,Remotes,connections", f"--private-key={files['private_key']}"]
    options += [f"--certificate={files['certificate']}", f"--ca-cert={files['ca_certificate']}"]
    with contextlib.contextmanager(conftest.start_database)(tmp_path, *options) as served:
        way = {"database": [f"ssl:127.0.0.1:{port}"], **ours.files("h1")}
        said = run.refused("qnet_network", **NETWORK, **way)
        assert (
            "over the network may only read; nothing was changed; delegate the task to a host of the database" in said
        )
        assert run("qnet_network", **NETWORK, database=[served.remote])["changed"] is True
        assert run("qnet_network", **NETWORK, **way)["changed"] is False  # it is so already: nothing to write
        assert run("qnet_network_info", **way)["networks"][0]["name"] == "prod"


def test_the_first_remote_that_answers_is_used(run: conftest.Runner, tmp_path: pathlib.Path) -> None:
    remotes = [f"unix:{tmp_path}/nothing.sock", f"tcp:127.0.0.1:{free_port()}", run.remote]
    assert run("qnet_network", **NETWORK, database=remotes)["changed"] is True


@pytest.mark.parametrize(
    ("remote", "said"),
    [
        ("unix:/nonexistent/qnet.sock", "unix:/nonexistent/qnet.sock: [Errno 2] No such file or directory"),
        ("tcp:127.0.0.1:1", "tcp:127.0.0.1:1: [Errno 111] Connection refused"),
        ("/run/qnet.sock", "/run/qnet.sock: not a remote; write unix:PATH or ssl:ADDRESS:PORT"),
        ("tcp:nonsense", "tcp:nonsense: not a remote"),
        ("ssl:db1:6641", "ssl:db1:6641: 'db1' is not an IPv4 or IPv6 address"),
        ("tcp:[::1]:1", "tcp:[::1]:1: [Errno "),
    ],
)
def test_a_database_that_cannot_be_reached_is_named(
    run: conftest.Runner, ours: Authority, remote: str, said: str
) -> None:
    files = ours.files("h1") if remote.startswith("ssl:") else {}
    message = run.refused("qnet_network", **NETWORK, **files, database=[remote])
    assert message.startswith(f"database QNet cannot be reached: {said}")
    assert "check that qnet-database runs there" in message


def test_a_server_that_does_not_answer_is_given_up_in_time(run: conftest.Runner, tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        started = time.monotonic()
        said = run.refused("qnet_network", **NETWORK, database=[f"unix:{tmp_path}/silent.sock"], timeout_seconds=2)
        assert 1.5 < time.monotonic() - started < 6
    assert "connected, but it does not answer" in said


def serve(directory: pathlib.Path, schema: t.Mapping[str, t.Any]) -> t.ContextManager[conftest.IntentDatabase]:
    """A server with another schema."""
    file = directory / "other.ovsschema"
    file.write_text(json.dumps(schema))
    return contextlib.contextmanager(conftest.start_database)(directory, schema=file)


def test_a_server_without_our_database_is_named(run: conftest.Runner, tmp_path: pathlib.Path) -> None:
    other = {"name": "Other", "version": "1.0.0", "tables": {}}
    with serve(tmp_path, other) as server:
        said = run.refused("qnet_network", **NETWORK, database=[server.remote])
    assert "it does not serve QNet: " in said


def test_a_database_of_another_version_is_named(run: conftest.Runner, tmp_path: pathlib.Path) -> None:
    schema = json.loads(conftest.SCHEMA.read_text())
    schema["version"] = "0.9.0"
    del schema["tables"]["Export"]["columns"]["direct"]
    with serve(tmp_path, schema) as server:
        said = run.refused("qnet_network", **NETWORK, database=[server.remote])
    assert "its schema 0.9.0 has no Export.direct; update the database" in said


def test_the_database_itself_is_asked_in_check_mode(run: conftest.Runner, tmp_path: pathlib.Path) -> None:
    """A rule that only this database has, and no plan knows, is found before anything is written."""
    schema = json.loads(conftest.SCHEMA.read_text())
    schema["tables"]["Network"]["columns"]["vni"]["mutable"] = False
    with serve(tmp_path, schema) as server:
        run("qnet_network", **NETWORK, database=[server.remote])
        for check in (True, False):
            said = run.refused("qnet_network", check=check, name="prod", vni=2, database=[server.remote])
            assert said.startswith("database QNet refused the change: ")
            assert "vni" in said
        # What does not change is not written either, or this would be refused.
        assert run("qnet_network", name="prod", mtu=1400, database=[server.remote])["changed"] is True


def test_a_value_that_this_database_does_not_take_is_named(run: conftest.Runner, tmp_path: pathlib.Path) -> None:
    schema = json.loads(conftest.SCHEMA.read_text())
    schema["tables"]["Network"]["columns"]["vni"]["type"]["key"]["maxInteger"] = 4095
    with serve(tmp_path, schema) as server:
        said = run.refused("qnet_network", **NETWORK | {"vni": 5000}, database=[server.remote])
    assert said.startswith("database QNet: its schema does not allow 5000 in column vni; nothing was changed")


@pytest.mark.parametrize("option", [{"database": []}, {"timeout_seconds": 0}])
def test_options_out_of_range_are_refused(run: conftest.Runner, option: dict[str, t.Any]) -> None:
    assert run.refused("qnet_network", **NETWORK, **option).startswith(f"{next(iter(option))}: ")


@pytest.mark.parametrize("library", ["ovs", "netaddr"])
def test_a_missing_library_is_named_with_its_package(
    run: conftest.Runner, tmp_path: pathlib.Path, library: str
) -> None:
    (tmp_path / f"{library}.py").write_text(f"raise ImportError('No module named {library}')")
    without = dataclasses.replace(run, import_path=f"{tmp_path}{os.pathsep}{run.import_path}")
    said = without.refused("qnet_network", **NETWORK)
    assert f"required Python library ({library})" in said
    assert "install the package python3-" in said


def test_modules_run_with_the_python_of_the_control_node(run: conftest.Runner) -> None:
    control = dataclasses.replace(run, interpreter=sys.executable)
    assert control("qnet_network", **NETWORK)["changed"] is True
    assert run("qnet_network", **NETWORK)["changed"] is False


PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  module_defaults:
    group/qiniu.qnet.intent:
      database: ["{remote}"]
  tasks:
    - name: Create a network
      qiniu.qnet.qnet_network:
        name: prod
        vni: 1
        pod_subnets: [10.0.0.0/24]
        mtu: 1400
"""


def test_through_ansible_itself(run: conftest.Runner, target_python: str, tmp_path: pathlib.Path) -> None:
    """AnsiballZ carries all module_utils; the action group reaches the module; the diff is readable."""
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAYBOOK.format(remote=run.remote))
    configuration = tmp_path / "ansible.cfg"
    configuration.touch()
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", "--diff", str(playbook)]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(conftest.COLLECTIONS_ROOT),
        "ANSIBLE_PYTHON_INTERPRETER": target_python,
        "ANSIBLE_CONFIG": str(configuration),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
        "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
    }
    outputs = [
        subprocess.run(
            [*command, *more], capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path, check=False
        )
        for more in (["--check"], [], [])
    ]
    for output in outputs:
        assert output.returncode == 0, output.stdout + output.stderr
    for output in outputs[:2]:
        assert '+            "mtu": 1400' in output.stdout, output.stdout
        assert "changed=1" in output.stdout
    assert "changed=0" in outputs[2].stdout
