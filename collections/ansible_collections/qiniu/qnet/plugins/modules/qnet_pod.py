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
extends_documentation_fragment: [qiniu.qnet.intent, qiniu.qnet.intent.revision]
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
  processes:
    description:
      - With O(state=present) and O(purge), also run these processes in the pods of this host once they are attached,
        and no others, as M(qiniu.qnet.qnet_workload) does with O(qiniu.qnet.qnet_workload#module:purge). One call for
        both is half the work for Ansible.
    type: dict
    version_added: 1.0.0
    suboptions:
      workloads:
        description: As O(qiniu.qnet.qnet_workload#module:workloads).
        type: list
        elements: dict
        required: true
        suboptions:
          pod:
            description: The pod, said as group/pod.
            type: str
            required: true
          command:
            description: Command line of the process, beginning with an absolute path.
            type: str
            required: true
          environment:
            description: Environment variables. Their values are in no log, diff or return value.
            type: dict
            default: {}
          files:
            description: Paths of files on the host that the process is started again for when one of them changes.
            type: list
            elements: path
            default: []
      files:
        description: As O(qiniu.qnet.qnet_workload#module:files).
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: Where the file is on the host. Missing directories are made.
            type: path
            required: true
          content:
            description: What is in the file. It is in no log, diff or return value.
            type: str
            required: true
      enable:
        description: Other units that are enabled, so that they start whenever the host does.
        type: list
        elements: str
        default: []
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
  returned: success, with O(processes)
  type: dict
  sample: {started: [qnet-pod@fop.image-1.service], restarted: [], stopped: []}
"""

import re
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import (
    _host_pods,
    _model,
    _module,
    _netns,
    _ovsdb,
    _plan,
    _pods,
    _vswitch,
    _workload_host,
)
from ansible_collections.qiniu.qnet.plugins.module_utils._host_pods import HostOutcome, HostRefused, Leaving
from ansible_collections.qiniu.qnet.plugins.module_utils._vswitch_db import DatabaseError
from ansible_collections.qiniu.qnet.plugins.module_utils._vswitch_plan import Refused

POD_OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str"},
    "service": {"type": "str"},
    "addresses": {"type": "list", "elements": "str"},
    "mac": {"type": "str"},
    "weight": {"type": "int"},
    "draining": {"type": "bool"},
    "hold": {"type": "bool"},
    "containers": {"type": "list", "elements": "str"},
    "namespace_path": {"type": "path"},
    "pid": {"type": "int"},
}
ARGUMENTS: dict[str, t.Any] = {
    **POD_OPTIONS,
    "pods": {
        "type": "list",
        "elements": "dict",
        "options": {**POD_OPTIONS, "name": {"type": "str", "required": True}},
        "mutually_exclusive": [("namespace_path", "pid")],
    },
    "state": {"type": "str", "choices": ["declared", "present", "detached", "absent"], "default": "present"},
    "purge": {"type": "bool", "default": False},
    "retire": {"type": "bool", "default": False},
    "processes": {"type": "dict", "options": _workload_host.OPTIONS},
    "mtu": {"type": "int"},
    "bridge": {"type": "str", "default": "br-int"},
    "switch_database": {"type": "str", "default": _vswitch.DEFAULT_DATABASE},
    "wait_seconds": {"type": "int", "default": 30},
    "revision": {"type": "int"},
    "controller_api": _module.CHANGE_OPTIONS["controller_api"],
    **_module.DATABASE_OPTIONS,
}
KEY = re.compile(r"([^/\s]+)/([^/\s]+)")

Options = dict[str, t.Any]


class PodModule:
    """One call of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.options = module, t.cast(Options, module.params)
        self.asked: list[Options] = self.options["pods"] if self.options["pods"] is not None else [self.options]
        self.path = "pods" if self.options["pods"] is not None else ""
        self.held: list[str] = []
        self.retiring: list[str] = []

    def run(self) -> Options:
        """Do what the options ask for and return what the module returns."""
        state = self.options["state"]
        self._check_options()
        if state == "declared":
            outcome, result = self._intend(self._plan_declaration, self.module.check_mode)
            result |= {"pods": [self._describe(outcome.state, pod) for pod in self.asked], "held": self.held}
            if self.options["retire"]:
                result["retiring"] = self.retiring
            if self.module.check_mode:
                _module.predict(self.module, outcome.plan, result)
            return result
        switch = _host_pods.Switchboard(
            _vswitch.connect(self.options["switch_database"]), self.options["bridge"], self.options["wait_seconds"]
        )
        if state == "present":
            return self._attach(switch)
        leaving = [_host_pods.leaving(pod) for pod in self.asked]
        if state == "detached":
            return self._merge({}, switch.converge([], leaving, self.module.check_mode), leaving)
        # The database is asked first whether it would agree, and changed last: the port goes before the declaration.
        self._intend(self._plan_removal, True)
        host = switch.converge([], leaving, self.module.check_mode)
        result = {} if host.faults else self._intend(self._plan_removal, self.module.check_mode)[1]
        return self._merge(result, host, leaving)

    def _attach(self, switch: _host_pods.Switchboard) -> Options:
        # Refusals of the database and of the host both come before the first change of either.
        outcome, result = self._intend(self._plan_declaration, True)
        jobs = switch.prepare(_host_pods.joining(self.asked, outcome.state, switch, self.options["mtu"]))
        if outcome.plan.changed and not self.module.check_mode:
            outcome, result = self._intend(self._plan_declaration, False)
            jobs = switch.prepare(_host_pods.joining(self.asked, outcome.state, switch, self.options["mtu"]))
        leaving = self._strangers(switch) if self.options["purge"] else []
        host = switch.converge(jobs, leaving, self.module.check_mode)
        result |= {"pods": [self._describe(outcome.state, pod) for pod in self.asked], "held": self.held}
        result = self._merge(result, host, leaving)
        return self._run_processes(result) if self.options["processes"] else result

    def _run_processes(self, result: Options) -> Options:
        """After the pods: what runs in them. `result` is what there is to say of the pods."""
        done = _workload_host.converge(self.module, self.options["processes"], start=True, purge=True)
        for side in ("before", "after"):
            result["diff"][side]["processes"] = done["diff"][side].splitlines()
        result["changed"] = result["changed"] or done["changed"]
        result["processes"] = {key: done[key] for key in ("started", "restarted", "stopped")}
        return result

    def _intend(self, planner: _ovsdb.Planner, check_mode: bool) -> tuple[_ovsdb.Outcome, Options]:
        """Like ``_module.converge``, with a check mode of its own."""
        outcome = _ovsdb.converge(_module.connection_of(self.module), planner, check_mode)
        return outcome, {
            "changed": outcome.plan.changed,
            "diff": outcome.plan.diff(),
            "plan": outcome.plan.steps(),
            "generation": outcome.generation,
        }

    def _plan_declaration(self, have: _model.State) -> _plan.Plan:
        missing = [
            f"{self._at(index, 'service')}: pod '{pod['name']}' is not declared yet: give its service as group/service"
            for index, pod in enumerate(self.asked)
            if pod["service"] is None and pod["name"] not in have["pod"]
        ]
        if missing:
            raise _model.IntentRefused(missing)
        self.held = [pod["name"] for pod in self.asked if _is_held(have, pod)]
        wishes = [self._wish(have, pod) for pod in self.asked]
        if self.options["retire"]:
            self.retiring = sorted(set(have["pod"]) - {pod["name"] for pod in self.asked})
            wishes += [
                {**_split(name), "service": have["pod"][name].service, "state": "draining"} for name in self.retiring
            ]
        purge = self.options["purge"] and self.options["state"] == "declared"
        services = {pod.service_key for pod in have["pod"].values()} if purge else None
        return self._with_paths(_pods.plan_pods, have, wishes, purge_services=services)

    def _plan_removal(self, have: _model.State) -> _plan.Plan:
        return self._with_paths(_pods.plan_removal, have, [_split(pod["name"]) for pod in self.asked])

    def _with_paths(
        self, plan: t.Callable[..., _plan.Plan], have: _model.State, wishes: list[Options], **options: t.Any
    ) -> _plan.Plan:
        """Plan, with problems that begin with the options of this module."""
        try:
            return plan(have, wishes, path="pods", **options)
        except _model.IntentRefused as refused:
            if self.path:
                raise
            raise _model.IntentRefused(
                [text.removeprefix("pods[0]").lstrip(".: ") for text in refused.problems]
            ) from None

    def _check_options(self) -> None:
        faults = []
        for index, pod in enumerate(self.asked):
            if not KEY.fullmatch(pod["name"]):
                faults.append(f"{self._at(index, 'name')}: {pod['name']!r} is no pod: write group/pod")
                continue
            service = pod["service"]
            if service is not None and not KEY.fullmatch(service):
                faults.append(f"{self._at(index, 'service')}: {service!r} is no service: write group/service")
            elif service is not None and service.split("/")[0] != pod["name"].split("/")[0]:
                faults.append(
                    f"{self._at(index, 'service')}: service {service!r} is not of the group of pod {pod['name']!r}: "
                    "a pod belongs to a service of its own group"
                )
        if self.options["purge"] and (self.options["state"] not in ("present", "declared") or not self.path):
            faults.append("purge: works with state=present or declared and the list pods, which says what stays")
        if self.options["retire"] and (self.options["state"] != "declared" or not self.path or self.options["purge"]):
            faults.append("retire: works with state=declared and the list pods, without purge, which would remove them")
        if self.options["processes"] and not (self.options["state"] == "present" and self.options["purge"]):
            faults.append("processes: works with state=present and purge, which say what stays on this host")
        if faults:
            raise _model.IntentRefused(faults)

    def _at(self, index: int, option: str) -> str:
        return f"{self.path}[{index}].{option}" if self.path else option

    def _wish(self, have: _model.State, pod: Options) -> Options:
        wish = {**_split(pod["name"]), **{key: pod[key] for key in ("addresses", "mac", "weight", "containers")}}
        if pod["service"] is not None:
            wish["service"] = pod["service"].split("/")[1]
        else:
            wish["service"] = have["pod"][pod["name"]].service
        if _is_held(have, pod):
            wish["state"] = "draining"
        elif pod["draining"] is not None:
            wish["state"] = "draining" if pod["draining"] else "active"
        return wish

    def _strangers(self, switch: _host_pods.Switchboard) -> list[Leaving]:
        listed = {pod["name"] for pod in self.asked}
        return [
            Leaving(pod, port_name, _netns.path_of(_model.namespace_of(pod)))
            for port_name, pod in sorted(switch.attached().items())
            if pod not in listed
        ]

    def _describe(self, state: _model.State, pod: Options) -> Options:
        need: Options = dict(_pods.attachment(state, pod["name"]))
        mtus = [value for value in (self.options["mtu"], need["mtu"]) if value is not None]
        return {
            "name": need.pop("pod"),
            **need,
            "mtu": min(mtus) if mtus else None,
            "namespace_path": _host_pods.namespace_path(pod),
        }

    def _merge(self, intent: Options, host: HostOutcome, leaving: t.Sequence[Leaving]) -> Options:
        """The result of both halves; fails the module when a pod could not be attached or detached."""
        result = dict(intent)
        diff = intent.get("diff", {"before": {}, "after": {}})
        result["diff"] = {
            "before": {"declared": diff["before"], "on this host": host.before},
            "after": {"declared": diff["after"], "on this host": host.after},
        }
        result["changed"] = intent.get("changed", False) or host.changed
        result["detached"] = [item.pod for item in leaving if item.pod in host.after]
        if host.faults:
            self.module.fail_json(msg="\n".join(host.faults), problems=host.faults, **result)
        return result


def _split(name: str) -> Options:
    group, pod = name.split("/")
    return {"group": group, "name": pod}


def _is_held(have: _model.State, pod: Options) -> bool:
    """Whether a pod is kept from taking connections until somebody says that it answers."""
    known = have["pod"].get(pod["name"])
    return bool(pod["hold"]) and not pod["draining"] and (known is None or known.state != "active")


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
