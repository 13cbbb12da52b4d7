# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the collection's tests: a private intent database, and modules run as real processes against it.

Plain ``pytest`` works from anywhere: the collection's root is put on the import path here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest
from hypothesis import HealthCheck, settings

# As for the controller: how long an example takes says something of the machine, nothing of the code.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

COLLECTION = pathlib.Path(__file__).resolve().parents[1]
COLLECTIONS_ROOT = COLLECTION.parents[2]
SCHEMA = COLLECTIONS_ROOT.parent / "schemas" / "qnet.ovsschema"

if str(COLLECTIONS_ROOT) not in sys.path:
    sys.path.insert(0, str(COLLECTIONS_ROOT))


@dataclasses.dataclass(frozen=True)
class IntentDatabase:
    """A private ovsdb-server with an empty QNet database, in a directory of its own."""

    directory: pathlib.Path

    @property
    def remote(self) -> str:
        """Its Unix socket, as an OVSDB remote."""
        return f"unix:{self.directory / 'qnet.sock'}"

    def control(self, *command: str) -> str:
        """Run an ``ovs-appctl`` command against this server."""
        target = str(self.directory / "control.sock")
        return subprocess.run(
            ["ovs-appctl", "-t", target, *command], check=True, capture_output=True, text=True, timeout=20
        ).stdout

    def transact(self, *operations: dict[str, t.Any]) -> list[dict[str, t.Any]]:
        """Run one transaction behind the modules' back."""
        request = json.dumps(["QNet", *operations])
        answer = subprocess.run(
            ["ovsdb-client", "transact", self.remote, request], check=True, capture_output=True, text=True, timeout=20
        ).stdout
        result: list[dict[str, t.Any]] = json.loads(answer)
        return result

    def rows(self, table: str) -> list[dict[str, t.Any]]:
        """All rows of a table as the wire has them."""
        rows: list[dict[str, t.Any]] = self.transact({"op": "select", "table": table, "where": []})[0]["rows"]
        return rows

    def clear(self) -> None:
        """Empty every table."""
        tables = json.loads(SCHEMA.read_text())["tables"]
        self.transact(*({"op": "delete", "table": table, "where": []} for table in tables))


def start_database(directory: pathlib.Path, *options: str, schema: pathlib.Path = SCHEMA) -> t.Iterator[IntentDatabase]:
    """Start a private ovsdb-server in ``directory`` with more options; stop it when the generator is closed."""
    database = directory / "qnet.db"
    subprocess.run(["ovsdb-tool", "create", str(database), str(schema)], check=True, timeout=20)
    pidfile = directory / "server.pid"
    subprocess.run(
        [
            "ovsdb-server",
            str(database),
            f"--remote=punix:{directory / 'qnet.sock'}",
            f"--unixctl={directory / 'control.sock'}",
            f"--pidfile={pidfile}",
            f"--log-file={directory / 'server.log'}",
            "--no-chdir",
            "--detach",
            "-vconsole:off",
            *options,
        ],
        check=True,
        timeout=20,
        cwd=directory,
        env={**os.environ, "OVS_RUNDIR": str(directory)},
    )
    server = IntentDatabase(directory)
    try:
        yield server
    finally:
        server.control("exit")


@pytest.fixture(scope="session")
def shared_database(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[IntentDatabase]:
    """One server for the whole session. Use ``database``, which is empty for each test."""
    for tool in ("ovsdb-server", "ovsdb-tool", "ovsdb-client"):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} is not installed; install the package openvswitch-switch")
    yield from start_database(tmp_path_factory.mktemp("intent"))


@pytest.fixture
def database(shared_database: IntentDatabase) -> IntentDatabase:
    """An empty private intent database."""
    shared_database.clear()
    return shared_database


def _has_libraries(interpreter: str) -> bool:
    command = [interpreter, "-c", "import ovs, netaddr"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.fixture(scope="session")
def target_python() -> str:
    """The Python that a target runs modules with: the distribution's if it has the libraries, else this one."""
    return "/usr/bin/python3" if _has_libraries("/usr/bin/python3") else sys.executable


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs a module file in a process of its own, with its arguments on standard input, as a target does.

    ``check`` is a truth value; its type leaves room for arguments that are expanded from dictionaries.
    """

    interpreter: str
    import_path: str
    remote: str

    def start(self, name: str, /, *, check: t.Any = False, **arguments: t.Any) -> subprocess.Popen[str]:
        """Start a module and do not wait for it."""
        arguments.setdefault("database", [self.remote])
        internal = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_module_name": f"qiniu.qnet.{name}"}
        process = subprocess.Popen(
            [self.interpreter, "-W", "error::SyntaxWarning", str(COLLECTION / "plugins" / "modules" / f"{name}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": self.import_path, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, **internal}}))
        process.stdin.close()
        process.stdin = None
        return process

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> dict[str, t.Any]:
        """The result of a started module. Anything but one JSON object on standard output fails the test."""
        output, errors = process.communicate(timeout=120)
        assert "Traceback" not in output + errors, output + errors
        result: dict[str, t.Any] = json.loads(output)
        return result

    def __call__(self, name: str, /, *, check: t.Any = False, **arguments: t.Any) -> dict[str, t.Any]:
        """Run a module that must succeed."""
        result = self.finish(self.start(name, check=check, **arguments))
        assert not result.get("failed"), result["msg"]
        return result

    def refused(self, name: str, /, *, check: t.Any = False, **arguments: t.Any) -> str:
        """Run a module that must fail; returns its message."""
        result = self.finish(self.start(name, check=check, **arguments))
        assert result.get("failed"), result
        message: str = result["msg"]
        return message


@pytest.fixture(scope="session")
def import_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH of modules: Ansible's own code and the collection, and no library of this environment."""
    import ansible

    library = tmp_path_factory.mktemp("library")
    (library / "ansible").symlink_to(pathlib.Path(ansible.__file__).parent)
    return f"{library}{os.pathsep}{COLLECTIONS_ROOT}"


@pytest.fixture
def run(database: IntentDatabase, target_python: str, import_path: str) -> Runner:
    """Runs modules against the private database."""
    return Runner(target_python, import_path, database.remote)
