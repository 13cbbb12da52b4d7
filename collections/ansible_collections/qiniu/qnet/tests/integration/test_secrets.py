# SPDX-License-Identifier: GPL-3.0-or-later
"""A canary through the modules that see secrets: found in no output, log, fact or file, however the module ends."""

from __future__ import annotations

import typing as t

import pytest
import yaml

from ansible_collections.qiniu.qnet.tests.conftest import COLLECTIONS_ROOT
from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import reason_to_skip
from ansible_collections.qiniu.qnet.tests.integration.whole_host import Tasks, WholeHost

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))

CANARY = "kanarienvogel-4711-gelb"
LIBRARY = COLLECTIONS_ROOT.parent / "roles/l7_balancer/library"
WORKLOAD = {"pod": "fop/image-1", "command": "/bin/true", "environment": {"TOKEN": "{{ canary }}"}}
FILE = {"path": "/srv/secret.txt", "content": "{{ canary }}"}
HOLDERS: dict[str, dict[str, t.Any]] = {
    "qiniu.qnet.qnet_workload": {"workloads": [WORKLOAD], "files": [FILE]},
    "l7_balancer": {"instances": [], "secrets": {"/srv/key.pem": "{{ canary }}"}},
}


def manners(module: str, options: dict[str, t.Any]) -> Tasks:
    """One task for each way in which a module can end; what it returned is printed as well."""
    nested = {
        name: [{**element, "nonsense": 1} for element in value]
        for name, value in options.items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    }
    wrong_type = dict.fromkeys(options, "{{ canary }}")
    ways: Tasks = [
        {module: options},
        {module: options, "check_mode": True},
        {module: {**options, "nonsense": 1}},
        {module: {**options, **nested}},
        {module: {**options, **wrong_type}} if module.startswith("qiniu") else {module: {**options, "instances": 7}},
        {module: options, "async": 60, "poll": 1},
    ]
    tasks: Tasks = []
    for number, way in enumerate(ways):
        tasks += [
            {**way, "name": f"Way {number}", "register": "seen", "ignore_errors": True, "diff": True},
            {"ansible.builtin.debug": {"var": "seen"}},
            {"ansible.builtin.set_fact": {"kept": "{{ seen }}"}},
        ]
    return [*tasks, {"ansible.builtin.debug": {"var": "kept"}}]


def places(whole: WholeHost, said: str, secret: str) -> list[str]:
    """Where a secret is found."""
    texts = {
        "output": said,
        "syslog": whole.syslog.read_text(errors="replace"),
        "log of Ansible": (whole.directory / "ansible.log").read_text(),
    }
    found = [name for name, text in texts.items() if secret in text]
    # Temporary files, results of asynchronous tasks, and whatever else the user of the play has.
    return found + whole.host.run("grep", "-rlaF", "-e", secret, "/run/home", check=False).split()


@pytest.mark.parametrize("module", HOLDERS)
def test_a_secret_in_the_parameters_is_found_nowhere(
    whole: WholeHost, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_LIBRARY", str(LIBRARY))
    secrets = whole.directory / "secrets.yml"
    secrets.write_text(yaml.safe_dump({"canary": CANARY}))
    done = whole.play(manners(module, HOLDERS[module]), "-vvvv", "--diff", "-e", f"@{secrets}")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert said.count("Unsupported parameters") >= 1
    assert f"ansible-{module}: Invoked with" in whole.syslog.read_text(errors="replace")
    assert places(whole, said, CANARY) == []


def test_a_canary_that_is_shown_is_found(whole: WholeHost) -> None:
    told = whole.good([{"ansible.builtin.debug": {"msg": "kanarien{{ rest }}"}}], rest="vogel-4711-blau")
    assert places(whole, told, "kanarienvogel-4711-blau") == ["output", "log of Ansible"]


def test_keys_are_found_nowhere_but_in_their_files(whole: WholeHost) -> None:
    options = {"name": "c1", "addresses": ["192.0.2.11"], "ca_directory": "/srv/other-ca", "directory": "/srv/pki"}
    tasks = manners("qiniu.qnet.qnet_certificate", options)
    renewed = {**options, "addresses": ["192.0.2.11", "192.0.2.12"]}
    tasks.append({"qiniu.qnet.qnet_certificate": renewed, "diff": True, "register": "seen"})
    done = whole.play([*tasks, {"ansible.builtin.debug": {"var": "seen"}}], "-vvvv", "--diff", canary="x")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for path in ("/srv/pki/host.key", "/srv/other-ca/ca.key"):
        assert whole.host.run("stat", "-c", "%a", path) in ("600", "640")
        lines = [line for line in whole.host.run("cat", path).splitlines() if "-----" not in line]
        assert lines
        for line in lines:
            if len(line) >= 32:
                assert places(whole, said, line) == []
