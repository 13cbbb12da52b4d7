#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module of the role l7_balancer: releases of nginx configuration side by side, one of them live."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import http.client
import json
import os
import shutil
import socket
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils._l7_marks import RELEASE, RUN, explain

DOCUMENTATION = r"""
module: l7_balancer
short_description: Put rendered configurations of L7 balancers into effect
description:
  - A configuration is first tried by C(nginx -t) in a scratch place, inside of the pod's network namespace. When it is
    refused, nothing has changed, and the message names the item of the inventory.
  - Then it becomes current and nginx is reloaded (started where it does not run). When it does not become live in time,
    the one before is put back.
  - nginx is reloaded exactly when its configuration, its certificates or its Lua code differ from what is live.
options:
  instances:
    description: The balancers of this host, as the filter C(qnet_l7_instances) gives them.
    type: list
    elements: dict
    required: true
  secrets:
    description: Files of certificates, keys and users, path below the configuration to text.
    type: dict
    default: {}
  keep:
    description: Names of the balancers that belong to this host; all others are removed. Without it, none is removed.
    type: list
    elements: str
  database:
    description: Remotes of the intent database.
    type: list
    elements: str
    default: []
  metrics_port:
    description: Loopback port of the first balancer's metrics.
    type: int
    default: 9681
  ready_seconds:
    description: How long a configuration may take to become live.
    type: int
    default: 30
author:
  - qnet contributors (@qnet)
"""

EXAMPLES = r"""
- name: Put listeners and routes into effect
  l7_balancer:
    instances: "{{ instances }}"
    database: ["ssl:192.0.2.11:6641"]
"""

RETURN = r"""
reloaded:
  description: Balancers whose nginx was (or in check mode would be) reloaded, started or restarted.
  returned: success
  type: list
  elements: str
"""

ETC, RUNTIME, STATE, CODE = "/etc/qnet/l7", "/run/qnet-l7", "/var/lib/qnet/l7", "/opt/qnet/l7"
UNITS = "/etc/systemd/system"
PKI = "/etc/qnet/pki"


class Failed(Exception):
    """A balancer that could not be brought to what it should be; the text says why and what to do."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def read(path: str) -> str:
    """The text of a file, empty when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def tree_digest(*paths: str) -> str:
    """A digest of all files below some paths."""
    digest = hashlib.sha256()
    for top in paths:
        files = [os.path.join(root, name) for root, dummy, names in os.walk(top) for name in names]
        for file in sorted(files or [top]):
            with contextlib.suppress(FileNotFoundError), open(file, "rb") as content:
                digest.update(file.encode() + b"\0" + hashlib.sha256(content.read()).digest())
    return digest.hexdigest()


class Balancer:
    """One balancer of this host."""

    def __init__(self, module: AnsibleModule, told: dict[str, Any], position: int) -> None:
        self.module = module
        self.told = told
        self.name: str = told["instance"]
        self.position = position
        self.directory = os.path.join(ETC, self.name)
        self.link = os.path.join(self.directory, "current")
        secrets: dict[str, str] = module.params["secrets"] or {}
        self.secrets = {path: secrets[path] for path in told["beside"].values()}
        code = tree_digest(os.path.join(CODE, "lua"))
        content = json.dumps([told["files"], self.secrets, code], sort_keys=True)
        self.release = hashlib.sha256(content.encode()).hexdigest()[:16]

    def unit(self, kind: str = "") -> str:
        """The name of one of its units: "", "edge" or "feed"."""
        return f"qnet-l7{'-' + kind if kind else ''}@{self.name}.service"

    # What is there

    def current(self) -> str | None:
        """The release that the link points to."""
        try:
            return os.path.basename(os.readlink(self.link))
        except FileNotFoundError:
            return None

    def configuration(self) -> str:
        """The configuration that is current, as it was rendered."""
        return read(os.path.join(self.link, "rendered.conf"))

    def active(self, unit: str) -> bool:
        """Whether a unit runs and starts at boot."""
        questions = (["systemctl", word, "--quiet", unit] for word in ("is-active", "is-enabled"))
        return all(self.module.run_command(question)[0] == 0 for question in questions)

    def live(self) -> str:
        """The release that nginx says it runs, empty when it does not answer."""
        connection = _UnixConnection(os.path.join(RUNTIME, self.name, "control.sock"))
        try:
            connection.request("GET", "/state")
            return str(json.loads(connection.getresponse().read())["release"])
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return ""
        finally:
            connection.close()

    def pid(self) -> str:
        """The main process of nginx, "0" when there is none."""
        shown: str = self.module.run_command(["systemctl", "show", "--value", "--property=MainPID", self.unit()])[1]
        return shown.strip() or "0"

    def in_its_namespace(self) -> bool:
        """Whether nginx runs in the pod that is there now: one that was attached again has a namespace of its own."""
        try:
            ours, pods = os.stat(f"/proc/{self.pid()}/ns/net"), os.stat(f"/run/netns/{self.name}")
        except OSError:
            return False
        return (ours.st_dev, ours.st_ino) == (pods.st_dev, pods.st_ino)

    # nginx

    def converge(self) -> bool:
        """Bring nginx to the wanted release; return whether anything had to be done."""
        stamp = tree_digest(os.path.join(UNITS, "qnet-l7@.service"))
        same_unit = read(os.path.join(self.directory, ".unit")) == stamp
        runs = same_unit and self.active(self.unit()) and self.in_its_namespace()
        if runs and self.current() == self.release and self.live() == self.release:
            return False
        self.trial()
        if self.module.check_mode:
            return True
        before = self.current()
        self.write()
        fault = self.switch(self.release, restart=not runs)
        if fault:
            self.go_back(before, fault)
        with open(os.path.join(self.directory, ".unit"), "w", encoding="utf-8") as file:
            file.write(stamp)
        for name in os.listdir(os.path.join(self.directory, "releases")):
            if name not in (self.release, before):
                shutil.rmtree(os.path.join(self.directory, "releases", name))
        return True

    def trial(self) -> None:
        """Have nginx check the configuration where it can do no harm; Failed when it is refused."""
        if not os.path.exists("/usr/sbin/nginx"):  # check mode before the first run
            return
        with tempfile.TemporaryDirectory(prefix="qnet-l7-trial-") as scratch:
            for name in ("logs", "temp", "cache"):
                os.mkdir(os.path.join(scratch, name))
            self.write_files(scratch, scratch)
            inside = ["ip", "netns", "exec", self.name] if os.path.exists(f"/run/netns/{self.name}") else []
            argv = [*inside, "/usr/sbin/nginx", "-t", "-q", "-p", f"{scratch}/", "-e", "stderr"]
            status, dummy, complaint = self.module.run_command([*argv, "-c", os.path.join(scratch, "nginx.conf")])
            if status != 0:
                text = read(os.path.join(scratch, "nginx.conf"))
                raise Failed(f"{explain(text, complaint)}\n{self.name}: nothing was changed; what ran before runs on")

    def write_files(self, directory: str, run: str) -> None:
        """Write the files of the release; keys and users are for nginx only."""
        group = grp.getgrnam("qnet").gr_gid if os.geteuid() == 0 else -1
        texts = {
            path: text.replace(RUN, run).replace(RELEASE, self.release) for path, text in self.told["files"].items()
        }
        for path, text in {**texts, **self.secrets}.items():
            target = os.path.join(directory, path)
            os.makedirs(os.path.dirname(target), mode=0o750, exist_ok=True)
            os.chown(os.path.dirname(target), -1, group)
            with open(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o640), "w", encoding="utf-8") as file:
                file.write(text)
            os.chown(target, -1, group)

    def write(self) -> None:
        """Write the release beside the others."""
        target = os.path.join(self.directory, "releases", self.release)
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(target, mode=0o750)
        for directory in (self.directory, os.path.dirname(target), target):
            os.chown(directory, -1, grp.getgrnam("qnet").gr_gid)
        self.write_files(target, os.path.join(RUNTIME, self.name))
        with open(os.path.join(target, "rendered.conf"), "w", encoding="utf-8") as file:
            file.write(self.told["files"]["nginx.conf"])

    def switch(self, release: str, restart: bool) -> str:
        """Make a release current and live. Returns why it is not live, or an empty string."""
        partial = os.path.join(self.directory, ".current.new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        os.symlink(os.path.join("releases", release), partial)
        os.replace(partial, self.link)
        words = [["daemon-reload"], ["enable", "--quiet", self.unit(), self.unit("edge")], ["restart", self.unit()]]
        for word in words if restart else [["reload", self.unit()]]:
            status, dummy, error = self.module.run_command(["systemctl", *word])
            if status != 0:
                return f"systemctl {' '.join(word)}: {error.strip()}"
        deadline = time.monotonic() + self.module.params["ready_seconds"]
        while time.monotonic() < deadline:
            if self.live() == release:
                return ""
            time.sleep(0.05)
        log = read(os.path.join(STATE, self.name, "logs", "error.log")).splitlines()[-3:]
        return f"not live after {self.module.params['ready_seconds']} s: {' / '.join(log)}"

    def go_back(self, before: str | None, fault: str) -> None:
        """Make live what was live before, and fail."""
        message = f"{self.name}: {fault}. See `journalctl -u {self.unit()}` on this host"
        if before and before != self.release and os.path.isdir(os.path.join(self.directory, "releases", before)):
            again = self.switch(before, restart=not self.live())
            message += f". The release before does not run either: {again}" if again else ". The release before runs on"
        raise Failed(message)

    # The units beside it

    def converge_beside(self) -> bool:
        """Write what the edge and the feeder are told; restart what differs. Returns whether anything did."""
        edge = {"instance": self.name, "ports": self.told["ports"]}
        feed = {
            "group": self.told["group"],
            "services": self.told["services"],
            "database": self.module.params["database"],
            "private_key": f"{PKI}/host.key",
            "certificate": f"{PKI}/host.pem",
            "ca_certificate": f"{PKI}/ca.pem",
            "control": f"{RUNTIME}/{self.name}/control.sock",
            "metrics": f"{RUNTIME}/{self.name}/metrics.sock",
            "state": f"/var/lib/qnet/l7-feed/{self.name}/pods.json",
            "sessions": f"{STATE}/{self.name}/logs/sessions.log",
            "metrics_port": self.module.params["metrics_port"] + self.position,
        }
        changed = False
        for kind, told in (("edge", edge), ("feed", feed)):
            changed |= self.converge_unit(kind, told)
        return changed

    def converge_unit(self, kind: str, told: dict[str, Any]) -> bool:
        """One of the units beside nginx: its file, and that it runs with it."""
        path = os.path.join(self.directory, f"{kind}.json")
        text = json.dumps(told, sort_keys=True, indent=2) + "\n"
        program = os.path.join(CODE, f"qnet_l7_{kind}.py")
        stamp = tree_digest(program, os.path.join(UNITS, f"qnet-l7-{kind}@.service")) + text
        stamp_path = os.path.join(self.directory, f".{kind}")
        if read(path) == text and read(stamp_path) == stamp and self.active(self.unit(kind)):
            return False
        if self.module.check_mode:
            return True
        os.makedirs(self.directory, mode=0o750, exist_ok=True)
        os.chown(self.directory, -1, grp.getgrnam("qnet").gr_gid)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        for words in (["daemon-reload"], ["enable", "--quiet", self.unit(kind)], _begin(kind, self.unit(kind))):
            status, dummy, error = self.module.run_command(["systemctl", *words])
            if status != 0:
                raise Failed(f"{self.name}: systemctl {' '.join(words)}: {error.strip()}")
        with open(stamp_path, "w", encoding="utf-8") as file:
            file.write(stamp)
        return True


def _begin(kind: str, unit: str) -> list[str]:
    """The edge is brought up to date in place: taking it down would cut connections."""
    return ["reload-or-restart" if kind == "edge" else "restart", unit]


def remove(module: AnsibleModule, name: str) -> None:
    """Remove a balancer that does not belong to this host any more."""
    units = [f"qnet-l7{kind}@{name}.service" for kind in ("", "-feed", "-edge")]
    module.run_command(["systemctl", "disable", "--quiet", "--now", *units])
    for directory in (ETC, STATE, "/var/lib/qnet/l7-feed"):
        shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "dict", "required": True},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "keep": {"type": "list", "elements": "str"},
            "database": {"type": "list", "elements": "str", "default": []},
            "metrics_port": {"type": "int", "default": 9681},
            "ready_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    reloaded, beside, before, after = [], False, {}, {}
    balancers = [Balancer(module, told, position) for position, told in enumerate(module.params["instances"])]
    try:
        for balancer in balancers:
            old = balancer.configuration()
            beside |= balancer.converge_beside()
            if balancer.converge():
                reloaded.append(balancer.name)
                before[balancer.name], after[balancer.name] = old, balancer.told["files"]["nginx.conf"]
    except Failed as failure:
        module.fail_json(msg=str(failure))
    except OSError as error:
        module.fail_json(msg=f"{error}; check the disk and the directories of role l7_balancer on this host")
    gone = []
    if module.params["keep"] is not None and os.path.isdir(ETC):
        gone = sorted(set(os.listdir(ETC)) - set(module.params["keep"]))
        for name in gone:
            if not module.check_mode:
                remove(module, name)
            before[name], after[name] = "a balancer\n", ""
    diff = [
        {
            "before_header": f"{name} nginx.conf",
            "after_header": f"{name} nginx.conf",
            "before": text,
            "after": after[name],
        }
        for name, text in before.items()
    ]
    module.exit_json(changed=bool(reloaded or beside or gone), reloaded=reloaded, removed=gone, diff=diff)


if __name__ == "__main__":
    main()
