#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module of the role controller: releases of the controller side by side, one of them current."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: controller_release
short_description: Install a release of the controller beside the others, or make it the one that runs
description:
  - With O(state=installed) an archive of wheels becomes a virtual environment. No package index is used.
  - With O(state=active) the release checks itself with the configuration, the link C(current) points to it, the unit is
    restarted and has to become ready. When it does not, the release that ran before is put back.
  - The unit is restarted exactly when what it runs differs from what it should run, also when an earlier run was
    interrupted.
options:
  directory:
    description: Directory of the releases.
    type: path
    default: /opt/qnet/controller
  release:
    description: Name of the release.
    type: str
    required: true
  state:
    description: Whether the release is only there, or runs.
    type: str
    choices: [installed, active]
    required: true
  unit:
    description: Name of the systemd unit.
    type: str
    default: qnet-controller.service
  configuration:
    description: Path of the configuration.
    type: path
    default: /etc/qnet/controller.toml
  ready_url:
    description: Address that answers 200 when the controller is ready.
    type: str
  ready_seconds:
    description: How long the controller may take to become ready.
    type: int
    default: 60
author:
  - qnet contributors (@qnet)
"""

EXAMPLES = r"""
- name: Install a release
  controller_release:
    release: 0.1.0-0123456789ab
    state: installed
"""

RETURN = r"""
current:
  description: The release that is (or in check mode would be) current.
  returned: O(state=active)
  type: str
"""

COMPLETE = ".complete"  # written last: a directory without it is what an interrupted run has left
STAMP = ".running"  # what the unit was last seen ready with


class Releases:
    """The releases on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.directory = module.params["directory"]
        self.release = module.params["release"]
        self.unit = module.params["unit"]
        self.link = os.path.join(self.directory, "current")

    def path(self, *parts: str) -> str:
        """A path below the directory of releases."""
        return os.path.join(self.directory, *parts)

    def run(self, *argv: str, what: str) -> str:
        """Run a command; a failure ends the module and says what could not be done."""
        status, output, error = self.module.run_command(list(argv))
        if status != 0:
            lines = [line for line in (error or output).splitlines() if line.strip()][-6:]
            self.module.fail_json(msg=f"{what}: " + " / ".join(lines))
        return output

    # installed

    def install(self) -> bool:
        """Make the virtual environment; return whether anything had to be done."""
        if os.path.exists(self.path(self.release, COMPLETE)):
            return False
        if not self.module.check_mode:
            target, wheels = self.path(self.release), self.path(f"{self.release}.wheels")
            for leftover in (target, wheels):
                shutil.rmtree(leftover, ignore_errors=True)
            self.unpack(wheels)
            self.run("/usr/bin/python3", "-m", "venv", target, what=f"{target} cannot be made")
            files = sorted(os.path.join(wheels, name) for name in os.listdir(wheels))
            pip = [os.path.join(target, "bin", "pip"), "--disable-pip-version-check", "install", "--quiet"]
            self.run(*pip, "--no-index", "--no-deps", "--compile", *files, what=f"{self.release} cannot be installed")
            shutil.rmtree(wheels)
            with open(os.path.join(target, COMPLETE), "w", encoding="utf-8"):
                pass
        return True

    def unpack(self, wheels: str) -> None:
        """Unpack the archive, which holds plain files only."""
        os.makedirs(wheels)
        with tarfile.open(self.path(f"{self.release}.tar")) as archive:
            for entry in archive:
                if not entry.isfile() or entry.name != os.path.basename(entry.name):
                    self.module.fail_json(msg=f"{archive.name}: {entry.name} is no plain file; build the archive again")
                archive.extract(entry, wheels)

    # active

    def identity(self, release: str) -> str:
        """All that makes the unit run the way it does, as one line."""
        digest = hashlib.sha256()
        pki = ("/etc/qnet/pki/ca.pem", "/etc/qnet/pki/host.pem", "/etc/qnet/pki/host.key")
        for file in (f"/etc/systemd/system/{self.unit}", self.module.params["configuration"], *pki):
            with contextlib.suppress(FileNotFoundError), open(file, "rb") as content:
                digest.update(hashlib.sha256(content.read()).digest())
        return f"{release} {digest.hexdigest()}"

    def current(self) -> str | None:
        """The release the link points to."""
        try:
            return os.path.basename(os.readlink(self.link))
        except FileNotFoundError:
            return None

    def stamp(self) -> str:
        """What the unit was last seen ready with."""
        try:
            with open(self.path(STAMP), encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def active(self) -> bool:
        """Whether the unit runs and starts at boot."""
        questions = (["systemctl", word, "--quiet", self.unit] for word in ("is-active", "is-enabled"))
        return all(self.module.run_command(question)[0] == 0 for question in questions)

    def activate(self) -> bool:
        """Make the release the one that runs; return whether anything had to be done."""
        identity = self.identity(self.release)
        if self.stamp() == identity and self.current() == self.release and self.active():
            return False
        if self.module.check_mode:
            return True
        self.check_itself()
        before = self.current()
        fault = self.switch(self.release)
        if fault:
            self.go_back(before, fault)
        with open(self.path(STAMP), "w", encoding="utf-8") as file:
            file.write(identity)
        self.remove_others({self.release, before})
        return True

    def check_itself(self) -> None:
        """Have the release check itself and the configuration, before anything is touched."""
        program = self.path(self.release, "bin", "qnet-controller")
        as_user = ("setpriv", "--reuid=qnet", "--regid=qnet", "--clear-groups")
        arguments = ("--config", self.module.params["configuration"], "--check")
        self.run(*as_user, program, *arguments, what=f"{self.release} refuses to run")

    def switch(self, release: str) -> str:
        """Point the link to a release and restart the unit. Returns why it is not ready, or an empty string."""
        partial = self.path(".current.new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        os.symlink(release, partial)
        os.replace(partial, self.link)
        for words in (("daemon-reload",), ("enable", "--quiet", self.unit), ("restart", self.unit)):
            status, _, error = self.module.run_command(["systemctl", *words])
            if status != 0:
                return f"systemctl {' '.join(words)}: {error.strip()}"
        return self.wait()

    def wait(self) -> str:
        """Wait until the controller says it is ready. Returns its last answer if it does not, else an empty string."""
        url, seconds = self.module.params["ready_url"], self.module.params["ready_seconds"]
        deadline, answer = time.monotonic() + seconds, ""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline:
            try:
                with opener.open(url, timeout=5) as response:
                    response.read()
                    return ""
            except urllib.error.HTTPError as error:
                answer = f"{error.code} {error.read(500).decode(errors='replace').strip()}"
            except OSError as error:
                answer = str(error)
            time.sleep(0.25)
        return f"not ready after {seconds} s, {url} says: {answer}"

    def go_back(self, before: str | None, fault: str) -> None:
        """Run again what ran before, and fail."""
        message = f"{self.release} does not run: {fault}. See `journalctl -u {self.unit}` on this host"
        if before and before != self.release and os.path.exists(self.path(before, COMPLETE)):
            again = self.switch(before)
            message += f". {before} does not run either: {again}" if again else f". {before} runs again"
        self.module.fail_json(msg=message)

    def remove_others(self, keep: set[str | None]) -> None:
        """Remove releases that are neither current nor the one before."""
        for name in os.listdir(self.directory):
            release = name.removesuffix(".tar").removesuffix(".wheels")
            if name.startswith(".") or name == "current" or release in keep:
                continue
            path = self.path(name)
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/opt/qnet/controller"},
            "release": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["installed", "active"], "required": True},
            "unit": {"type": "str", "default": "qnet-controller.service"},
            "configuration": {"type": "path", "default": "/etc/qnet/controller.toml"},
            "ready_url": {"type": "str"},
            "ready_seconds": {"type": "int", "default": 60},
        },
        required_if=[("state", "active", ["ready_url"])],
        supports_check_mode=True,
    )
    releases = Releases(module)
    result: dict[str, Any] = {}
    try:
        if module.params["state"] == "installed":
            result["changed"] = releases.install()
        else:
            result["diff"] = {"before": f"{releases.current() or ''}\n", "after": f"{releases.release}\n"}
            result["changed"] = releases.activate()
            result["current"] = releases.release
    except (OSError, tarfile.TarError) as error:
        module.fail_json(msg=f"{releases.directory}: {error}; check the disk and the archive {releases.release}.tar")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
