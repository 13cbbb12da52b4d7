#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what pods of this host reach, found out with packets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_probe
short_description: Find out with real packets what pods of this host reach
version_added: 0.1.0
description:
  - Sends packets from the network namespaces of pods on this host to addresses, and returns for each whether it was
    reached.
  - Nothing has to listen at the other end. A TCP connection that is refused and a UDP packet that is answered with
    I(port unreachable) have reached their destination as much as those that are accepted.
  - All pods are asked at the same time, each for all of its targets at the same time.
  - Changes nothing but what packets change anyway (connection tracking, and flows that controllers set up for them).
author:
  - qnet contributors (@qnet)
requirements:
  - Root on the host
attributes:
  check_mode:
    support: full
    description: Packets are sent in check mode as well.
  diff_mode:
    support: none
    description: Nothing is changed.
  idempotent:
    support: full
    description: Nothing is changed.
options:
  probes:
    description: The pods to send from.
    type: list
    elements: dict
    required: true
    suboptions:
      pod:
        description: The pod, as V(group/pod).
        type: str
        required: true
      namespace:
        description: Name of its network namespace, or its path. The namespace that M(qiniu.qnet.qnet_pod) makes when
          omitted.
        type: str
      targets:
        description: What to send to. O(targets) when omitted.
        type: list
        elements: dict
        suboptions:
          name:
            description: What the target is called in the results.
            type: str
            required: true
          address:
            description: Its IPv4 or IPv6 address.
            type: str
            required: true
          protocols:
            description: Protocols to try, each V(icmp), V(tcp/PORT) or V(udp/PORT).
            type: list
            elements: str
            default: [icmp]
  targets:
    description: Targets of all pods that have none of their own.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: As O(probes[].targets[].name).
        type: str
        required: true
      address:
        description: As O(probes[].targets[].address).
        type: str
        required: true
      protocols:
        description: As O(probes[].targets[].protocols).
        type: list
        elements: str
        default: [icmp]
  timeout_seconds:
    description: How long to wait for an answer before trying again.
    type: float
    default: 1.0
  attempts:
    description: How often to try before a target counts as not reached.
    type: int
    default: 3
  probes_per_second:
    description:
      - How many targets each pod begins to ask in a second.
      - Packets that no flow exists for yet share a bounded rate to the controllers, so much more than that costs
        attempts.
    type: int
    default: 200
  parallelism:
    description: How many pods are sending at a time.
    type: int
    default: 32
seealso:
  - module: qiniu.qnet.qnet_pod
"""

EXAMPLES = r"""
- name: Ask two pods what they reach
  qiniu.qnet.qnet_probe:
    probes:
      - pod: fop/entry-1
      - pod: fop/image-1
        targets:
          - name: alice/resize
            address: 10.96.0.20
            protocols: [tcp/80]
    targets:
      - name: fop/image
        address: 10.96.0.10
        protocols: [icmp, tcp/8080, udp/53]
  register: reach
"""

RETURN = r"""
results:
  description: One entry for each pod, target and protocol, in the order of the options.
  returned: success
  type: list
  elements: dict
  contains:
    pod:
      description: The pod that sent.
      type: str
      sample: fop/entry-1
    target:
      description: Name of the target.
      type: str
      sample: fop/image
    address:
      description: Its address.
      type: str
      sample: 10.96.0.10
    protocol:
      description: The protocol.
      type: str
      sample: tcp/8080
    reached:
      description: Whether the packets came there and back, which is so for V(reachable) and V(refused).
      type: bool
      sample: true
    result:
      description:
        - V(reachable) is an answer, V(refused) is the answer that nobody listens there, V(timeout) is no answer,
          V(unreachable) is an error of the network (see C(reason)).
      type: str
      sample: reachable
    rtt_milliseconds:
      description: Time from the packet to its answer, of the attempt that was answered.
      type: float
      sample: 0.412
    attempts:
      description: How many attempts were made.
      type: int
      sample: 1
    reason:
      description: The error, when the result is V(unreachable).
      type: str
      sample: No route to host
"""

import ipaddress
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _host_probe, _model, _netns

TARGET: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "protocols": {"type": "list", "elements": "str", "default": ["icmp"]},
}
ARGUMENTS: dict[str, t.Any] = {
    "probes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "pod": {"type": "str", "required": True},
            "namespace": {"type": "str"},
            "targets": {"type": "list", "elements": "dict", "options": TARGET},
        },
    },
    "targets": {"type": "list", "elements": "dict", "default": [], "options": TARGET},
    "timeout_seconds": {"type": "float", "default": 1.0},
    "attempts": {"type": "int", "default": 3},
    "probes_per_second": {"type": "int", "default": 200},
    "parallelism": {"type": "int", "default": 32},
}

Options = dict[str, t.Any]


def namespace_of(source: Options) -> str:
    """Path of the namespace to send from."""
    namespace = source["namespace"] or _model.namespace_of(source["pod"])
    return namespace if "/" in namespace else _netns.path_of(namespace)


def faults_of(options: Options) -> list[str]:
    """Everything that is wrong with the options on this host, one line each."""
    faults = [
        f"{name}: {options[name]} is not more than 0"
        for name in ("timeout_seconds", "attempts", "probes_per_second", "parallelism")
        if options[name] <= 0
    ]
    for index, source in enumerate(options["probes"]):
        path = namespace_of(source)
        if not _netns.is_namespace(path):
            faults.append(f"probes[{index}]: pod {source['pod']}: {path} is no namespace: is the pod on this host?")
        faults += _target_faults(source["targets"] or [], f"probes[{index}].targets")
    return faults + _target_faults(options["targets"], "targets")


def _target_faults(targets: list[Options], path: str) -> list[str]:
    faults = []
    for index, target in enumerate(targets):
        try:
            ipaddress.ip_address(target["address"])
        except ValueError:
            faults.append(f"{path}[{index}].address: {target['address']!r} is no IPv4 or IPv6 address")
        for number, protocol in enumerate(target["protocols"]):
            try:
                _host_probe.parse_protocol(protocol)
            except ValueError as error:
                faults.append(f"{path}[{index}].protocols[{number}]: {error}")
    return faults


def questions_of(source: Options, common: list[Options]) -> list[_host_probe.Probe]:
    """The probes of one pod."""
    return [
        _host_probe.Probe(target["name"], target["address"], protocol)
        for target in (common if source["targets"] is None else source["targets"])
        for protocol in target["protocols"]
    ]


def run(options: Options) -> list[Options]:
    """Send the packets and return the results."""
    sources = options["probes"]
    by_path: dict[str, list[_host_probe.Probe]] = {}
    parts = []
    for source in sources:
        probes = by_path.setdefault(namespace_of(source), [])
        first = len(probes)
        probes += questions_of(source, options["targets"])
        parts.append(slice(first, len(probes)))
    manner = _host_probe.Manner(
        options["timeout_seconds"], options["attempts"], options["probes_per_second"], options["parallelism"]
    )
    answers = _host_probe.probe_all(by_path, manner)
    return [
        _result(source["pod"], answer)
        for source, part in zip(sources, parts, strict=True)
        for answer in answers[namespace_of(source)][part]
    ]


def _result(pod: str, answer: _host_probe.Answer) -> Options:
    result: Options = {
        "pod": pod,
        "target": answer.probe.target,
        "address": answer.probe.address,
        "protocol": answer.probe.protocol,
        "reached": answer.reached,
        "result": answer.result,
        "attempts": answer.attempts,
    }
    if answer.rtt_milliseconds is not None:
        result["rtt_milliseconds"] = answer.rtt_milliseconds
    if answer.reason is not None:
        result["reason"] = answer.reason
    return result


def main() -> None:
    """Entry point of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    faults = faults_of(module.params)
    if faults:
        module.fail_json(msg="\n".join(faults), problems=faults)
    try:
        results = run(module.params)
    except (_netns.NamespaceError, OSError) as error:
        module.fail_json(msg=f"probing failed: {error}", problems=[str(error)])
    module.exit_json(changed=False, results=results)


if __name__ == "__main__":
    main()
