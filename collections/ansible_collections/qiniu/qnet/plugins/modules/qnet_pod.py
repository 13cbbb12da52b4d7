#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: pods in the intent and on their host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_pod
short_description: Declare pods and attach them to the network on their host
version_added: 0.1.0
description:
  - Declares pods in the intent database, with addresses allocated where none are given, and attaches them on the host
    that the module runs on. Attaching makes the network namespace (or takes the one of a container), the pair of
    virtual interfaces, the MAC address, addresses, default routes, MTU and offload settings, and the port on the
    integration bridge.
  - Takes one pod by its options, or many as a list; the ports of all pods of a call appear in one transaction.
  - A pod that is attached only in part (an interrupted run, a namespace somebody changed, a removed interface) is
    repaired.
  - Network namespaces do not survive a reboot of the host. The unit C(qnet-pods) of the role C(pods) makes those of
    C(/run/netns) again, from what the ports say; running the play again does so as well.
  - The namespace of a pod is complete before its port appears on the bridge, and the port is gone before the
    namespace is taken apart.
extends_documentation_fragment: [qiniu.qnet.intent, qiniu.qnet.intent.revision, qiniu.qnet.workloads]
requirements:
  - iproute2 and a running Open vSwitch with the integration bridge, except for O(state=declared)
attributes:
  check_mode:
    support: full
    description:
      - Both databases carry out their transaction and throw it away. An address that would be allocated is shown; it
        is not kept for the pod.
  diff_mode:
    support: full
    description: Shows what is declared and what is on this host, before and after.
  idempotent:
    support: full
    description: When run twice in a row outside check mode, with the same arguments, the second invocation
      indicates no change.
options:
  name:
    description: The pod, as V(group/pod).
    type: str
  service:
    description:
      - The service that the pod belongs to, as V(group/service). Its group is the group of the pod.
      - Needed when the pod is not declared yet.
    type: str
  addresses:
    description: Addresses of the pod, inside the pod subnets of its network. One of each IP version is allocated
      when omitted.
    type: list
    elements: str
  mac:
    description: MAC address of the pod. It follows from the name of the pod when omitted.
    type: str
  weight:
    description: Share of the new connections of its service, 0 to 65535, relative to the other pods; at first 100.
    type: int
  draining:
    description: Whether the pod takes no new connections of its service. A new pod does.
    type: bool
  hold:
    description: Declare the pod draining unless it takes connections already, for one in which nothing answers yet.
    type: bool
    version_added: 1.0.0
  containers:
    description: Identifiers of the containers that share the pod's network, for people.
    type: list
    elements: str
  namespace_path:
    description:
      - Path of an existing network namespace to attach, such as that of a container. It is neither made nor removed.
      - Without this and O(pid), a namespace C(group.pod) is made under C(/run/netns), and removed when the pod is
        detached.
    type: path
  pid:
    description: A process whose network namespace is attached, in place of O(namespace_path).
    type: int
  pods:
    description: Many pods, each with the options above. Cannot be combined with O(name).
    type: list
    elements: dict
    suboptions:
      name:
        description: As O(name).
        type: str
        required: true
      service:
        description: As O(service).
        type: str
      addresses:
        description: As O(addresses).
        type: list
        elements: str
      mac:
        description: As O(mac).
        type: str
      weight:
        description: As O(weight).
        type: int
      draining:
        description: As O(draining).
        type: bool
      hold:
        description: As O(hold).
        type: bool
      containers:
        description: As O(containers).
        type: list
        elements: str
      namespace_path:
        description: As O(namespace_path).
        type: path
      pid:
        description: As O(pid).
        type: int
  state:
    description:
      - V(declared) is about the intent database only and can run anywhere; the pod need not be attached anywhere.
      - V(present) declares the pod and attaches it on this host.
      - V(detached) takes the pod off this host and leaves it declared. The intent database is not needed.
      - V(absent) takes the pod off this host and removes it from the intent database.
    type: str
    choices: [declared, present, detached, absent]
    default: present
  purge:
    description:
      - With O(state=present), also detach every pod of this host that is not listed in O(pods). They stay declared.
        Ports of the bridge that are no pod's are left alone.
      - With O(state=declared), also remove every pod that is not listed in O(pods) from the intent database, whatever
        its group.
    type: bool
    default: false
  retire:
    description:
      - With O(state=declared), also declare every pod draining that is not listed in O(pods), so that it takes no more
        connections before a later call removes it with O(purge).
    type: bool
    default: false
    version_added: 1.0.0
  workloads:
    description:
      - With O(state=present) and O(purge), also run these processes in the pods of this host once they are attached,
        and no others, as M(qiniu.qnet.qnet_workload) does. One call for both is half the work for Ansible.
    version_added: 1.0.0
  files:
    version_added: 1.0.0
  enable:
    version_added: 1.0.0
  mtu:
    description:
      - MTU of the overlay on this host (that of the underlay less what the tunnel adds).
      - The MTU of a pod is the smaller of this and that of its network. Needed for O(state=present) when the network
        has none.
    type: int
  bridge:
    description: The integration bridge.
    type: str
    default: br-int
  switch_database:
    description: Where the C(Open_vSwitch) database of this host listens.
    type: str
    default: unix:/run/openvswitch/db.sock
  controller_api:
    description: Where a controller answers, as an URL. It is asked in check mode with diff and O(state=declared).
    type: str
    default: http://127.0.0.1:9680
  wait_seconds:
    description: How long to wait until C(ovs-vswitchd) has taken over the ports; V(0) does not wait.
    type: int
    default: 30
seealso:
  - module: qiniu.qnet.qnet_pod_info
  - module: qiniu.qnet.qnet_vswitch
  - module: qiniu.qnet.qnet_workload
  - module: qiniu.qnet.qnet_probe
"""

EXAMPLES = r"""
- name: Attach the pods of this host, and no others
  qiniu.qnet.qnet_pod:
    mtu: 1450
    purge: true
    pods:
      - name: fop/image-1
        service: fop/image
      - name: fop/image-4
        service: fop/image
        weight: 50
        draining: true

- name: Attach a container that was started without a network
  qiniu.qnet.qnet_pod:
    name: fop/entry-1
    service: fop/entry
    pid: "{{ container.State.Pid }}"
    mtu: 1450

- name: Declare a pod with an address of its own
  qiniu.qnet.qnet_pod:
    name: fop/image-9
    service: fop/image
    addresses: [10.10.0.9]
    state: declared

- name: Take a pod off this host before it is attached on another
  qiniu.qnet.qnet_pod:
    name: fop/image-1
    state: detached
"""

RETURN = r"""
pods:
  description: The pods of the call, in its order, as they are or in check mode would be. With O(state=absent) none.
  returned: success, O(state=declared) or O(state=present)
  type: list
  elements: dict
  sample:
    - name: fop/image-1
      network: prod
      vni: 100
      mac: 02:3f:ab:91:00:5c
      addresses: [{address: 10.10.0.7, prefix_length: 16, gateway: 10.10.0.1}]
      port_name: qnbf34dead9001
      namespace: fop.image-1
      namespace_path: /run/netns/fop.image-1
      mtu: 1450
plan:
  description: Changes of the intent database.
  returned: success, except O(state=detached)
  type: list
  elements: dict
  sample: [{action: create, kind: pod, name: fop/image-1}]
generation:
  description: Generation of the intent after the call.
  returned: success, except O(state=detached)
  type: int
  sample: 12
what_if:
  description: What the change would do, as M(qiniu.qnet.qnet_tenant) says it.
  returned: in check mode with diff and O(state=declared), when there is something to change
  type: dict
held:
  description: The pods that O(hold) has kept from taking connections.
  returned: success, O(state=declared) or O(state=present)
  type: list
  elements: str
retiring:
  description: The pods that are declared and not listed.
  returned: success, with O(retire)
  type: list
  elements: str
detached:
  description: The pods that were taken off this host.
  returned: success, except O(state=declared)
  type: list
  elements: str
processes:
  description: Units that were started, started again (C(restarted)), and stopped.
  returned: success, with O(workloads)
  type: dict
  sample: {started: [qnet-pod@fop.image-1.service], restarted: [], stopped: []}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _netns, _ovsdb, _vswitch
from ansible_collections.qiniu.qnet.plugins.module_utils._host_pods import HostRefused
from ansible_collections.qiniu.qnet.plugins.module_utils._pod_module import ARGUMENTS, POD_OPTIONS, PodModule
from ansible_collections.qiniu.qnet.plugins.module_utils._vswitch_db import DatabaseError
from ansible_collections.qiniu.qnet.plugins.module_utils._vswitch_plan import Refused


def main() -> None:
    """Entry point of Ansible."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("name", "pods")],
        mutually_exclusive=[("namespace_path", "pid")] + [(option, "pods") for option in POD_OPTIONS],
        supports_check_mode=True,
    )
    try:
        result = PodModule(module).run()
    except (_model.IntentRefused, HostRefused, Refused) as refused:
        problems = getattr(refused, "problems", None) or getattr(refused, "faults", [])
        module.fail_json(msg="\n".join(problems), problems=problems)
    except (_ovsdb.DatabaseError, DatabaseError, _vswitch.NotApplied, _netns.NamespaceError) as error:
        module.fail_json(msg=str(error), problems=[str(error)])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
