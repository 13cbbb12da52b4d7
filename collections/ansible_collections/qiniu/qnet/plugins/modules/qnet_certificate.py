#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the key and certificate of a host, signed on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_certificate
short_description: Give a host a key and a certificate of the fleet's own CA
version_added: 0.1.0
description:
  - Makes a private key on the host, where it stays, and a certificate for it that a CA on the control node signs.
  - The CA is made in O(ca_directory) on the control node when it is not there yet. Its key never leaves that node.
  - The certificate serves both ends of a connection (C(clientAuth) and C(serverAuth)).
  - It is renewed when it is about to expire, when the names asked for differ, or when it does not belong to the key or
    the CA.
  - The CA takes nothing but the public key from the host's request; the names come from this task.
author:
  - qnet contributors (@qnet)
requirements:
  - C(openssl) on the host
  - The Python library C(cryptography) on the control node (ansible-core brings it)
attributes:
  check_mode:
    support: full
    description: Neither a key nor a CA is made in check mode.
  diff_mode:
    support: full
    description: Shows subject, names and expiry of the certificate, before and after.
  idempotent:
    support: full
    description: A second call changes nothing.
options:
  name:
    description: Common name of the certificate; also one of its DNS names.
    type: str
    required: true
  addresses:
    description: IP addresses and further DNS names the certificate is valid for.
    type: list
    elements: str
    default: []
  ca_directory:
    description:
      - Directory of the CA on the control node (files C(ca.pem) and C(ca.key)), made with mode 0700 if missing.
    type: path
    required: true
  directory:
    description: Directory on the host for C(ca.pem), C(host.pem) and C(host.key). It is made if missing.
    type: path
    default: /etc/qnet/pki
  group:
    description: Group that may read the key. It must exist.
    type: str
    default: qnet
  validity_days:
    description: How long a new certificate is valid.
    type: int
    default: 365
  renew_before_days:
    description: A certificate that is valid for less than this is renewed.
    type: int
    default: 60
  renew_issued_before:
    description:
      - A certificate that was issued before this moment is renewed, however long it is valid. ISO 8601, in UTC where it
        says nothing else.
      - A moment that has not come yet is refused.
    type: str
    version_added: 0.1.0
  ca_certificate:
    description: The CA's certificate as PEM. Filled in on the control node; not for use in a task.
    type: str
  certificate:
    description: The host's certificate as PEM. Filled in on the control node; not for use in a task.
    type: str
seealso:
  - module: qiniu.qnet.qnet_vswitch
"""

EXAMPLES = r"""
- name: Give the host its certificate
  qiniu.qnet.qnet_certificate:
    name: "{{ inventory_hostname }}"
    addresses: ["{{ ansible_host }}"]
    ca_directory: /srv/qnet-ca

- name: Replace the certificates that were made before a copy of them got into the wrong hands
  qiniu.qnet.qnet_certificate:
    name: "{{ inventory_hostname }}"
    addresses: ["{{ ansible_host }}"]
    ca_directory: /srv/qnet-ca
    renew_issued_before: "2026-02-01T12:00:00Z"
"""

RETURN = r"""
certificate:
  description: The host's certificate as PEM; empty in check mode when there is none yet.
  returned: success
  type: str
request:
  description: A certificate signing request for the host's key as PEM; empty in check mode when there is no key yet.
  returned: success
  type: str
expires:
  description: When the certificate expires, as ISO 8601 in UTC; empty when there is none yet.
  returned: success
  type: str
  sample: "2027-11-22T14:20:05+00:00"
"""

import contextlib
import grp
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule


def read(path: str) -> str:
    """The text of a file, empty when there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


class Keystore:
    """The three files of a host, and whether something about them has changed."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.directory = module.params["directory"]
        self.changed = False
        try:
            self.gid = grp.getgrnam(module.params["group"]).gr_gid
        except KeyError:
            if not module.check_mode:
                module.fail_json(msg=f"group: there is no group {module.params['group']} on this host; create it first")
            self.gid = -1

    def path(self, name: str) -> str:
        """The full path of one of the files."""
        return os.path.join(self.directory, name)

    def ensure_directory(self) -> None:
        """Make the directory."""
        if not os.path.isdir(self.directory):
            self.changed = True
            if not self.module.check_mode:
                os.makedirs(self.directory, mode=0o755)
        self.ensure_access("", 0o755)

    def ensure_access(self, name: str, mode: int) -> None:
        """Give a file its owner and mode."""
        path = self.path(name).rstrip("/")
        if not os.path.exists(path):
            return
        state = os.stat(path)
        if (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (0, self.gid, mode):
            return
        self.changed = True
        if not self.module.check_mode:
            os.chown(path, 0, self.gid)
            os.chmod(path, mode)

    def ensure_text(self, name: str, text: str) -> None:
        """Give a public file its content, all at once."""
        if read(self.path(name)) != text:
            self.changed = True
            if not self.module.check_mode:
                self.replace(name, text)
        self.ensure_access(name, 0o644)

    def replace(self, name: str, text: str) -> None:
        """Write a file beside its place and move it there."""
        handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=f".{name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chown(temporary, 0, self.gid)
        os.chmod(temporary, 0o644)
        os.replace(temporary, self.path(name))

    def ensure_key(self) -> None:
        """Make the private key if there is none."""
        if not os.path.exists(self.path("host.key")):
            self.changed = True
            if not self.module.check_mode:
                self.make_key()
        self.ensure_access("host.key", 0o640)

    def make_key(self) -> None:
        """Make an EC P-256 key; nobody but root and the group can read it at any moment."""
        handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=".host.key.")
        os.close(handle)
        try:
            self.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", temporary)
            os.chown(temporary, 0, self.gid)
            os.chmod(temporary, 0o640)
            os.replace(temporary, self.path("host.key"))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def request(self) -> str:
        """A signing request: it carries the public key and proves that the host has the private one."""
        if not os.path.exists(self.path("host.key")):
            return ""
        return self.openssl("req", "-new", "-key", self.path("host.key"), "-subj", f"/CN={self.module.params['name']}")

    def openssl(self, *arguments: str) -> str:
        """Run openssl and return its output; a failure ends the module with what openssl said."""
        program = self.module.get_bin_path("openssl")
        if program is None:
            self.module.fail_json(msg="openssl: the command is missing on this host; install the package openssl")
        status, output, error = self.module.run_command([program, *arguments])
        if status != 0:
            self.module.fail_json(msg=f"openssl {arguments[0]} failed on {self.path('host.key')}: {error.strip()}")
        return output


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "ca_directory": {"type": "path", "required": True},
            "directory": {"type": "path", "default": "/etc/qnet/pki"},
            "group": {"type": "str", "default": "qnet"},
            "validity_days": {"type": "int", "default": 365},
            "renew_before_days": {"type": "int", "default": 60},
            "renew_issued_before": {"type": "str"},
            "ca_certificate": {"type": "str"},
            "certificate": {"type": "str"},
        },
        supports_check_mode=True,
    )
    store = Keystore(module)
    try:
        store.ensure_directory()
        store.ensure_key()
        for name, text in (("ca.pem", module.params["ca_certificate"]), ("host.pem", module.params["certificate"])):
            if text is not None:
                store.ensure_text(name, text)
        store.ensure_access("host.pem", 0o644)
        module.exit_json(changed=store.changed, request=store.request(), certificate=read(store.path("host.pem")))
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename or store.directory}: {error.strerror}; check the directory and its rights"
        )


if __name__ == "__main__":
    main()
