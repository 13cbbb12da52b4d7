# SPDX-License-Identifier: GPL-3.0-or-later
"""A canary through the modules that see secrets: found in no output, log, fact or file, however the module ends."""

from __future__ import annotations

import json
import typing as t

import pytest
import yaml

from ansible_collections.qiniu.qnet.tests.conftest import COLLECTIONS_ROOT
from ansible_collections.qiniu.qnet.tests.integration import test_examples as shown
from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import reason_to_skip, wait_until
from ansible_collections.qiniu.qnet.tests.integration.whole_host import Tasks, WholeHost

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))

CANARY = "kanarienvogel-4711-gelb"
LIBRARY = COLLECTIONS_ROOT.parent / "roles/l7_balancer/library"
WORKLOAD = {"pod": "fop/image-1", "command": "/bin/true", "environment": {"TOKEN": "{{ canary }}"}}
FILE = {"path": "/srv/secret.txt", "content": "{{ canary }}"}
HOLDERS: dict[str, dict[str, t.Any]] = {
    "qiniu.qnet.qnet_workload": {"workloads": [WORKLOAD], "files": [FILE]},
    "qiniu.qnet.qnet_pod": {
        "pods": [{"name": "fop/image-1", "service": "fop/image"}],
        "purge": True,
        "workloads": [WORKLOAD],
        "files": [FILE],
    },
    "l7_balancer": {"instances": [], "secrets": {"/srv/key.pem": "{{ canary }}"}},
}


def manners(module: str, options: dict[str, t.Any]) -> Tasks:
    """One task for each way in which a module can end; what it returned is printed as well."""
    nested = {
        name: [{**element, "nonsense": 1} for element in value]
        for name, value in options.items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    }
    holding = {name for name, value in options.items() if "{{ canary }}" in json.dumps(value)}
    wrong_type = dict.fromkeys(holding, "{{ canary }}")
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
    """Where a secret is found, once Ansible has cleared away after asynchronous tasks: it looks every five seconds."""
    sent = ("find", "/run/home/remote", "-name", "AnsiballZ*")
    wait_until(lambda: not whole.host.run(*sent, check=False), 60)
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
    assert "could not find job" not in said
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


# -- the key that modules come to the database with -----------------------------------------------------------------

KEY = "/etc/qnet/pki/host.key"
TLS = {
    "database": ["ssl:192.0.2.11:6641"], "private_key": KEY, "certificate": "/etc/qnet/pki/host.pem",
    "ca_certificate": "/etc/qnet/pki/ca.pem",
}  # fmt: skip
# Of these the action plugins run on the control node; these need more than this host, see HOLDERS for one of them.
LOCAL, MORE = {"qnet_validate", "qnet_certificate"}, set(shown.ELSEWHERE)


def options_of(name: str) -> dict[str, t.Any]:
    """The options of a module's first example; where it has to do with the intent, over TLS with the host's key."""
    path = shown.PLUGINS / f"modules/{name}.py"
    tasks = [part for play in shown.examples(path) for part in play.get("tasks", [play])]
    options: dict[str, t.Any] = next(part[f"qiniu.qnet.{name}"] or {} for part in tasks if f"qiniu.qnet.{name}" in part)
    return {**options, **(TLS if "qiniu.qnet.intent" in path.read_text() else {})}


def every_way(name: str) -> Tasks:
    """A module in success, check mode, with a wrong parameter, with a wrong key, and asynchronously."""
    module, options = f"qiniu.qnet.{name}", options_of(name)
    must = {"ignore_errors": name in MORE}
    ways: Tasks = [
        {module: options, **must},
        {module: options, "check_mode": True, **must},
        {module: {**options, "nonsense": 1}, "ignore_errors": True},
        {module: options, "async": 60, "poll": 0, "ignore_errors": name in MORE | LOCAL},
    ]
    if "private_key" in options:  # a file that holds a key and is none
        ways.append({module: {**options, "private_key": "/srv/broken.key"}, "ignore_errors": True})
    return [{**way, "name": name, "diff": True} for way in ways]


@pytest.mark.timeout(900)
def test_the_key_of_a_host_is_found_nowhere_after_any_module(whole: WholeHost) -> None:
    whole.host.run("sh", "-c", f"(echo {CANARY}; sed s/BEGIN/{CANARY}/ {KEY}) >/srv/broken.key")
    plays: Tasks = []
    for before, names in shown.STAGES:
        plays += shown.as_plays("before", before)
        for name in names:
            plays += shown.as_plays(name, every_way(name))
    plays += [play for name in sorted(MORE) for play in shown.as_plays(name, every_way(name))]
    container = whole.host.popen("unshare", "--net", "sleep", "800")
    try:
        done = whole.play([], "-vvvv", "--diff", "-e", f"container={{State: {{Pid: {container.pid}}}}}", plays=plays)
    finally:
        container.kill()
        container.wait(10)
    jobs = whole.host.run("sh", "-c", "ls /run/home/async/* | wc -l")
    wait_until(lambda: whole.host.run("sh", "-c", "grep -l '\"changed\"' /run/home/async/* | wc -l") == jobs, 60)
    assert int(jobs) >= len(shown.MODULES - LOCAL - MORE)
    said, log = done.stdout + done.stderr, whole.syslog.read_text(errors="replace")
    assert done.returncode == 0, said[-6000:]
    assert said.count("Unsupported parameters") >= len(shown.MODULES)
    assert not {name for name in shown.MODULES - LOCAL - MORE if f"ansible-qiniu.qnet.{name}: Invoked with" not in log}
    secrets = [line for line in whole.host.run("cat", KEY).splitlines() if "-----" not in line and len(line) >= 32]
    assert secrets
    assert [place for secret in (CANARY, *secrets) for place in places(whole, said, secret)] == []
