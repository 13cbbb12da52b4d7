# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database half of pods: declare them, give them addresses, tell a host what it needs to attach them.

For ``qnet_pod``::

    wishes = [{"group": "fop", "service": "image", "name": "image-1", "weight": 50}, ...]
    outcome, result = _module.converge(module, lambda have: _pods.plan_pods(have, wishes))
    result["pods"] = _pods.attachments(outcome.state, [_pods.key(wish) for wish in wishes])

- ``_module.converge(module, planner)`` takes the module's database options (``_module.DATABASE_OPTIONS`` belongs
  into its argument_spec), honours check mode, and returns the outcome and the results ``changed``, ``diff``
  (``before``/``after``), ``plan`` and ``generation``. A host half adds its own changes to them.
- ``_ovsdb.converge(_module.connection_of(module), planner, check_mode)`` is the same with a check mode of one's own.
- ``_module.read(module)`` returns ``(state, generation)`` with no change ever.
- :func:`plan_pods` and :func:`plan_removal` are pure; so is :func:`attachments`.

States of qnet_pod in these terms: ``declared`` and ``present`` use :func:`plan_pods`; ``detached`` uses it as well (or
only reads, with :func:`attachments`); ``absent`` uses :func:`plan_removal`.
"""

from __future__ import annotations

import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _parse, _plan


class Address(t.TypedDict):
    """One address of a pod: with the prefix length and the default gateway of its subnet."""

    address: str
    prefix_length: int
    gateway: str


class Attachment(t.TypedDict):
    """Everything the host of a pod needs. ``mtu`` None: the host's own overlay MTU counts."""

    pod: str
    network: str
    vni: int
    mtu: int | None
    mac: str
    addresses: list[Address]
    port_name: str
    namespace: str


def key(wish: t.Mapping[str, t.Any]) -> str:
    """``group/pod`` of a wish."""
    return f"{wish['group']}/{wish['name']}"


def plan_pods(
    have: _model.State,
    pods: t.Sequence[t.Mapping[str, t.Any]],
    purge_services: t.Collection[str] | None = None,
    path: str = "pods",
) -> _plan.Plan:
    """Declare pods.

    A wish has ``group``, ``service``, ``name`` and optionally ``addresses``, ``mac``, ``weight`` (0 to 65535),
    ``state`` (``active`` or ``draining``), ``containers``. What is missing or None keeps its value; of a new pod,
    addresses are allocated (the lowest free one of each IP version that the network's pod_subnets have), mac and
    port_name follow from its name, weight is 100, state ``active``.

    ``purge_services``: services (``group/service``) whose other pods are removed; empty or None: nothing is removed.
    A pod that is listed under another service than before is moved to it and keeps its address.

    Raises IntentRefused with every problem; each begins with ``path[index]``, the place of the wish.
    """
    draft = _plan.Draft(have)
    keep = {draft.put("pod", wish, f"{path}[{index}]") for index, wish in enumerate(pods)}
    if purge_services:
        wanted = set(purge_services)
        draft.keep_only("pod", keep, lambda pod: pod.service_key in wanted)
    return draft.plan()


def plan_removal(have: _model.State, pods: t.Sequence[t.Mapping[str, t.Any]], path: str = "pods") -> _plan.Plan:
    """Remove pods; of a wish only ``group`` and ``name`` count. A pod that is not there is no problem."""
    draft = _plan.Draft(have)
    for index, wish in enumerate(pods):
        draft.remove("pod", wish, f"{path}[{index}]")
    return draft.plan()


def attachments(state: _model.State, keys: t.Iterable[str]) -> list[Attachment]:
    """What a host needs for each pod (``group/pod``), in the order given. Raises as :func:`attachment`."""
    return [attachment(state, pod) for pod in keys]


def attachment(state: _model.State, pod: str) -> Attachment:
    """What a host needs for one pod (``group/pod``).

    Raises KeyError when it is not declared, IntentRefused when somebody took its subnet from the network.
    """
    record: _model.Pod = state["pod"][pod]
    network: _model.Network = state["network"][record.network]
    return Attachment(
        pod=pod,
        network=network.name,
        vni=network.vni,
        mtu=network.mtu,
        mac=record.mac,
        addresses=[_address(network, address) for address in record.addresses],
        port_name=record.port_name,
        namespace=_model.namespace_of(pod),
    )


def _address(network: _model.Network, address: str) -> Address:
    version, value = _parse.number(address)
    for text in network.pod_subnets:
        chosen = _parse.span(text, "pod")
        if chosen.holds(version, value):
            gateway = _parse.from_number(version, chosen.gateway)
            return Address(address=address, prefix_length=chosen.prefix_length, gateway=gateway)
    there = ", ".join(network.pod_subnets)
    raise _model.IntentRefused(
        [f"network '{network.name}': none of its pod_subnets ({there}) holds pod address {address}; add the subnet"]
    )
