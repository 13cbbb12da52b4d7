# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as others get it: built into one file, installed from it into an empty path, and used from there."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import tarfile

import pytest
import yaml

COLLECTION = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.executable).parent
PLAY = """
- hosts: localhost
  gather_facts: false
  vars:
    qnet_tenants: [{name: t, security_groups: [{name: g, services: [{name: s, network: n, replicas: 2}]}]}]
  tasks:
    - qiniu.qnet.qnet_network:
        name: prod
        database: ["unix:/nowhere/qnet.sock"]
        timeout_seconds: 1
      register: result
      failed_when: "'/nowhere/qnet.sock' not in result.msg"
    - ansible.builtin.assert:
        that: (qnet_tenants | qiniu.qnet.qnet_pods(['h1', 'h2']) | map(attribute='host') | list) == ['h1', 'h2']
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An empty path with nothing but the collection, installed from its built file."""
    work = tmp_path_factory.mktemp("galaxy")
    run(work, "ansible-galaxy", "collection", "build", str(COLLECTION), "--output-path", str(work))
    (built,) = work.glob("qiniu-qnet-*.tar.gz")
    run(work, "ansible-galaxy", "collection", "install", "--offline", str(built), "-p", str(work / "collections"))
    return work


def run(work: pathlib.Path, program: str, *arguments: str) -> str:
    """The output of a program of Ansible that sees no collection of this repository."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(work), "ANSIBLE_COLLECTIONS_PATH": str(work / "collections")}
    environment |= {"LC_ALL": "C.UTF-8", "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3"}
    done = subprocess.run(
        [BIN / program, *arguments], cwd=work, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_plugin_is_in_the_built_collection_and_can_be_read(installed: pathlib.Path) -> None:
    for kind in ("module", "filter", "inventory", "become"):
        directory = "modules" if kind == "module" else kind
        listed = json.loads(run(installed, "ansible-doc", "--json", "--list", "-t", kind, "qiniu.qnet"))
        wanted = {f"qiniu.qnet.{path.stem}" for path in (COLLECTION / "plugins" / directory).glob("[a-z]*.py")}
        assert set(listed) == wanted
        described = json.loads(run(installed, "ansible-doc", "--json", "-t", kind, *sorted(wanted)))
        assert {name for name, about in described.items() if about["doc"]["short_description"]} == wanted


def test_a_play_runs_from_the_built_collection(installed: pathlib.Path) -> None:
    (installed / "play.yml").write_text(PLAY)
    assert "failed=0" in run(installed, "ansible-playbook", "play.yml")


def test_what_tests_leave_behind_is_not_in_the_built_file(installed: pathlib.Path) -> None:
    (built,) = installed.glob("qiniu-qnet-*.tar.gz")
    with tarfile.open(built) as archive:
        parts = {part for name in archive.getnames() for part in name.split("/")}
    assert "plugins" in parts
    assert not parts & {".hypothesis", ".pytest_cache", "output"}


def test_every_module_of_the_intent_is_in_the_action_group_and_every_object_has_its_twin() -> None:
    modules = {path.stem for path in (COLLECTION / "plugins/modules").glob("qnet_*.py")}
    text = {name: (COLLECTION / f"plugins/modules/{name}.py").read_text() for name in modules}
    speaking = {name for name in modules if re.search(r"qiniu\.qnet\.intent[,\]\n]", text[name])}
    group = yaml.safe_load((COLLECTION / "meta/runtime.yml").read_text())["action_groups"]["intent"]
    assert sorted(speaking) == group
    objects = {name for name in modules if "_module.run_object_module" in text[name]}
    assert objects
    assert {f"{name}_info" for name in objects | {"qnet_pod", "qnet_vswitch", "qnet_offload"}} <= modules


def test_every_module_says_what_it_does_in_check_mode_and_twice() -> None:
    names = [f"qiniu.qnet.{path.stem}" for path in (COLLECTION / "plugins/modules").glob("qnet_*.py")]
    done = subprocess.run(
        [BIN / "ansible-doc", "--json", *names],
        env={"PATH": "/usr/bin:/bin", "ANSIBLE_COLLECTIONS_PATH": str(COLLECTION.parents[2]), "HOME": "/nonexistent"},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    for name, about in json.loads(done.stdout).items():
        assert {"check_mode", "diff_mode", "idempotent"} <= set(about["doc"]["attributes"]), name
        assert about["examples"], name
        assert about["return"], name
