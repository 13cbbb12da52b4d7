# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that the modules of the intent share."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of the database, of objects that are changed, and of objects that are read."""

    DOCUMENTATION = r"""
options:
  database:
    description:
      - Where the intent database listens, as OVSDB remotes such as V(unix:/run/qnet-database/qnet.sock) or
        V(ssl:192.0.2.11:6641).
      - Name every server of a cluster; the first one that answers is used. Servers are said by address, not by name.
      - The default is the socket that a database host has. Over V(ssl:) the intent can only be read; delegate what
        changes it to a database host.
    type: list
    elements: str
    default: ["unix:/run/qnet-database/qnet.sock"]
  private_key:
    description: Path of this host's private key. Needed for an V(ssl:) remote.
    type: path
  certificate:
    description: Path of this host's certificate. Needed for an V(ssl:) remote.
    type: path
  ca_certificate:
    description: Path of the certificate of the authority that signed the database's certificate. Needed for an
      V(ssl:) remote.
    type: path
  timeout_seconds:
    description:
      - How long everything together may take, connecting, reading, writing and trying again after another writer.
    type: int
    default: 30
requirements:
  - Python 3.11 or newer
  - The Python library C(ovs) (C(python3-openvswitch) on Debian)
  - The Python library C(netaddr) (C(python3-netaddr) on Debian)
author:
  - qnet contributors (@qnet)
"""

    CHANGES = r"""
options:
  revision:
    description:
      - Number of the revision of the inventory that the change comes from. The database keeps the highest one, written
        in the transaction of the change; keeping it alone is no change.
      - A lower one is refused, so that an older checkout, or a play that a newer one has overtaken, changes nothing.
        V(0) stands for an inventory without revisions and is refused as soon as the intent has one.
      - Without it the change is made whatever the revision of the intent.
    type: int
  wait:
    description:
      - Wait until every switch has confirmed that it holds what the database says, and return the C(receipt) of the
        change.
      - The module fails when a host does not confirm in time. The change is in the database then, and takes effect on
        that host as soon as it is connected to a controller.
    type: bool
    default: false
  wait_seconds:
    description: How long to wait with O(wait=true).
    type: int
    default: 30
  controller_api:
    description:
      - Where a controller answers, as an URL. Any controller will do, it asks the others.
      - The default is the controller on the same host. Its API listens on the loopback only.
    type: str
    default: http://127.0.0.1:9680
attributes:
  check_mode:
    support: full
    description:
      - Can run in check mode and return changed status prediction without modifying target.
      - The plan is checked, tried in the database in a transaction that is thrown away, and returned.
  diff_mode:
    support: full
    description: Will return details on what has changed (or possibly needs changing in check mode), when in diff
      mode.
  idempotent:
    support: full
    description: When run twice in a row outside check mode, with the same arguments, the second invocation
      indicates no change.
"""

    REVISION = r"""
options:
  revision:
    description:
      - Number of the revision of the inventory that this comes from, as M(qiniu.qnet.qnet_tenant) has it. One that is
        lower than that of the intent is refused before anything is changed.
    type: int
"""

    OBJECTS = r"""
options:
  purge:
    description:
      - Remove every object of this kind that is not in the plural list.
      - An object that others still refer to is not removed; then nothing is changed and the message says what
        refers to it.
    type: bool
    default: false
  state:
    description: Whether the objects exist. With V(absent) only the options that name an object count.
    type: str
    choices: [present, absent]
    default: present
"""

    READS = r"""
options:
  names:
    description: Only the objects with these names. Without it, all. A name that does not exist is left out of the
      result.
    type: list
    elements: str
attributes:
  check_mode:
    support: full
    description: Can run in check mode and return changed status prediction without modifying target.
  diff_mode:
    support: N/A
    description: Will return details on what has changed (or possibly needs changing in check mode), when in diff
      mode.
  idempotent:
    support: full
    description: When run twice in a row outside check mode, with the same arguments, the second invocation
      indicates no change.
"""
