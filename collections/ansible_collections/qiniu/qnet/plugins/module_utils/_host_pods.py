# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""Attach pods to the bridge of this host and detach them: the whole set of one call together.

The order makes every interruption harmless: a pod's namespace is complete before its port appears on the bridge, and
the port is gone before its namespace is taken apart. What was interrupted is found and repaired by the next call.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _host_plan, _model, _netns, _pods, _vswitch, _workload
from ansible_collections.qiniu.qnet.plugins.module_utils._host_plan import Attachment, Facts, Steps, Tree
from ansible_collections.qiniu.qnet.plugins.module_utils._vswitch_db import Database

POD_KEY = "qnet-pod"
UNITS = "/etc/systemd/system"
ATTACHMENT_KEY = "qnet-attachment"
KEPT = ("mac", "addresses", "gateways", "neighbours", "virtual_mac", "mtu", "transmit_checksum")


class HostRefused(Exception):
    """What was asked cannot be done on this host; nothing was changed. ``faults`` has one line for each reason."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclasses.dataclass(frozen=True)
class Joining:
    """A pod to attach: what its namespace needs, and what its port says about it."""

    attachment: Attachment
    external_ids: dict[str, str]


def with_length(item: t.Mapping[str, t.Any], kernel: bool) -> str:
    """An address with its length; one of IPv6 on the kernel's datapath has no neighbours but its gateway."""
    alone = kernel and ":" in item["address"]
    return f"{item['address']}/{128 if alone else item['prefix_length']}"


def notes(pod: _model.Pod, attachment: Attachment) -> dict[str, str]:
    """What the port says of its pod, to declare it again if the intent is lost and to attach it after a boot."""
    content: Tree = {"namespace": os.path.basename(attachment.namespace)}
    content |= {key: getattr(attachment, key) for key in KEPT}
    return {
        POD_KEY: pod.key,
        "qnet-service": pod.service_key,
        "qnet-mac": pod.mac,
        "qnet-addresses": ",".join(pod.addresses),
        # Nothing where the namespace is not ours to make.
        ATTACHMENT_KEY: json.dumps(content, sort_keys=True) if attachment.owned else "",
    }


@dataclasses.dataclass(frozen=True)
class Leaving:
    """A pod to detach. ``namespace`` is the path of the namespace to remove, None when it is not ours."""

    pod: str
    port_name: str
    namespace: str | None


def leaving(pod: t.Mapping[str, t.Any]) -> Leaving:
    """A pod to detach, as the options of the module say it."""
    namespace = namespace_path(pod) if is_owned(pod) else None
    return Leaving(pod["name"], _model.port_name_of(pod["name"]), namespace)


@dataclasses.dataclass
class HostOutcome:
    """What a call did, or would do. ``faults`` has a line for every pod that could not be attached or detached."""

    changed: bool
    before: Tree
    after: Tree
    faults: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Job:
    """One pod to attach, with what was found and what to do."""

    joining: Joining
    steps: Steps
    before: Tree
    after: Tree
    replug: bool

    @property
    def port_name(self) -> str:
        return self.joining.attachment.port_name


class Switchboard:
    """The bridge of this host that pods are attached to."""

    def __init__(self, database: Database, bridge: str, wait_seconds: float) -> None:
        self._database = database
        self._bridge = bridge
        self._wait_seconds = wait_seconds
        tree = _vswitch.read(database)
        if bridge not in tree["bridges"]:
            raise HostRefused(
                [f"bridge: this host has no bridge {bridge!r}: run the play that sets up switches (site.yml) first"]
            )
        self._ports: dict[str, Tree] = {
            name: {**port, "bridge": owner}
            for owner, content in tree["bridges"].items()
            for name, port in content["ports"].items()
        }
        self._sick = _vswitch.errors_by_interface(database)
        self.transmit_checksum = tree["bridges"][bridge]["datapath_type"] != "netdev"

    def attached(self) -> dict[str, str]:
        """Port name to ``group/pod`` of every port on this host that says it is a pod's."""
        notes = {name: port["external_ids"] for name, port in self._ports.items()}
        return {name: note[POD_KEY] for name, note in notes.items() if POD_KEY in note}

    def prepare(self, joining: t.Sequence[Joining]) -> list[_Job]:
        """Look at every pod and plan its steps; changes nothing.

        Raises:
            HostRefused: some of them cannot be attached.
        """
        if not joining:
            return []
        links = {link["ifname"]: link for link in _netns.show("-d", "link", "show")}
        jobs = []
        faults = []
        for item in joining:
            facts = _look(item.attachment, links)
            faults += _host_plan.refusals(item.attachment, facts)
            jobs.append(self._job(item, facts))
        if faults:
            raise HostRefused(faults)
        return jobs

    def converge(self, jobs: t.Sequence[_Job], leaving: t.Sequence[Leaving], check_mode: bool) -> HostOutcome:
        """Attach and detach pods, with all ports in one transaction; in check mode only say what would be done."""
        links = {link["ifname"] for link in _netns.show("link", "show")} if leaving else set()
        leaving = [item for item in leaving if self._is_here(item, links)]
        before = {job.joining.attachment.pod: job.before for job in jobs}
        after = {job.joining.attachment.pod: job.after for job in jobs}
        for item in leaving:
            before[item.pod] = {
                "namespace": item.namespace if item.namespace and os.path.lexists(item.namespace) else None,
                "port": item.port_name if item.port_name in links else None,
                "switch_port": self._switch_port(item.port_name),
            }
            after[item.pod] = {"namespace": None, "port": None, "switch_port": None}
        differing = [pod for pod in before if before[pod] != after[pod]]
        outcome = HostOutcome(
            bool(differing), {pod: before[pod] for pod in differing}, {pod: after[pod] for pod in differing}
        )
        if check_mode:
            self._connect(jobs, leaving, check_mode)
        else:
            outcome.faults = self._carry_out(jobs, leaving, links)
        return outcome

    def _carry_out(self, jobs: t.Sequence[_Job], leaving: t.Sequence[Leaving], links: set[str]) -> list[str]:
        _stop_processes(leaving)
        self._unplug([job.port_name for job in jobs if job.replug])
        faults = []
        ready = []
        for job in jobs:
            try:
                _attach(job.joining.attachment, job.steps)
                ready.append(job)
            except _netns.NamespaceError as error:
                faults.append(f"pod {job.joining.attachment.pod}: {error}; run again when the cause is removed")
        self._connect(ready, leaving, check_mode=False)
        for item in leaving:
            try:
                _detach(item, links)
            except _netns.NamespaceError as error:
                faults.append(f"pod {item.pod}: {error}; run again when the cause is removed")
        errors = _vswitch.errors_by_interface(self._database)
        return faults + [
            f"pod {job.joining.attachment.pod}: ovs-vswitchd refuses its port {job.port_name}: {errors[job.port_name]}"
            for job in ready
            if job.port_name in errors
        ]

    def _job(self, item: Joining, facts: Facts) -> _Job:
        want = item.attachment
        steps = _host_plan.plan(want, facts)
        switch_port = self._switch_port(want.port_name)
        known = self._ports.get(want.port_name, {}).get("external_ids", {})
        external_ids = {**known, **item.external_ids}
        wanted_port = {"bridge": self._bridge, "external_ids": external_ids, "error": None}
        return _Job(
            Joining(want, external_ids),
            steps,
            {**_host_plan.present(want, facts), "switch_port": switch_port},
            {**_host_plan.wanted(want), "switch_port": wanted_port},
            replug=switch_port is not None and (steps.rebuild or switch_port["error"] is not None),
        )

    def _switch_port(self, name: str) -> Tree | None:
        port = self._ports.get(name)
        if port is None:
            return None
        return {"bridge": port["bridge"], "external_ids": port["external_ids"], "error": self._sick.get(name)}

    def _is_here(self, item: Leaving, links: set[str]) -> bool:
        namespace = item.namespace is not None and os.path.lexists(item.namespace)
        return item.port_name in self._ports or item.port_name in links or namespace

    def _unplug(self, names: t.Sequence[str]) -> None:
        """Take ports off their bridges and wait, so that ovs-vswitchd opens the new device behind the same name."""
        self._apply([(self._ports[name]["bridge"], {"name": name, "state": "absent"}) for name in names])

    def _connect(self, jobs: t.Sequence[_Job], leaving: t.Sequence[Leaving], check_mode: bool) -> None:
        ports: list[tuple[str, Tree]] = [
            (self._bridge, {"name": job.port_name, "type": "system", "external_ids": job.joining.external_ids})
            for job in jobs
        ]
        ports += [
            (self._ports[item.port_name]["bridge"], {"name": item.port_name, "state": "absent"})
            for item in leaving
            if item.port_name in self._ports
        ]
        self._apply(ports, check_mode)

    def _apply(self, ports: t.Sequence[tuple[str, Tree]], check_mode: bool = False) -> None:
        if not ports:
            return
        bridges: dict[str, list[Tree]] = {}
        for bridge, port in ports:
            bridges.setdefault(bridge, []).append(port)
        ask = {"bridges": [{"name": name, "ports": content} for name, content in bridges.items()]}
        outcome = _vswitch.apply(self._database, ask, check_mode)
        if not check_mode and self._wait_seconds > 0:
            _vswitch.wait_until_applied(self._database, outcome.awaited, self._wait_seconds)


def _look(want: Attachment, links: dict[str, Tree]) -> Facts:
    host_link = links.get(want.port_name)
    facts = Facts(
        namespace=_netns.is_namespace(want.namespace),
        host_link=host_link,
        host_settings=_settings(_host_plan.host_settings(want.port_name)) if host_link else {},
    )
    if not facts.namespace:
        return facts
    try:
        return _netns.inside(want.namespace, lambda: _look_inside(facts))
    except _netns.NamespaceError as error:
        raise _netns.NamespaceError(
            f"pod {want.pod}: cannot look into {want.namespace}: {error}; nothing was changed; "
            "run again when the cause is removed"
        ) from error


def _look_inside(facts: Facts) -> Facts:
    # In as few runs as can be: on a host with many pods, starting `ip` is most of the work where nothing is to do.
    links, routes, neighbours = _netns.show_each("addr show", "route show", "neighbour show nud permanent")
    link = next((link for link in links if link["ifname"] == _host_plan.INTERFACE), None)
    if link is None:
        return facts
    routes_of = {4: routes, 6: _netns.show("-6", "route", "show")}
    return dataclasses.replace(
        facts,
        link=link,
        settings=_settings(_host_plan.pod_settings()),
        routes=tuple((version, route) for version, found in routes_of.items() for route in found),
        neighbours={item["dst"]: item.get("lladdr", "") for item in neighbours if item["dev"] == _host_plan.INTERFACE},
        transmit_checksum=_netns.transmit_checksum(_host_plan.INTERFACE),
    )


def _settings(wanted: dict[str, str]) -> dict[str, str | None]:
    return {path: _netns.read_setting(path) for path in wanted}


def _attach(want: Attachment, steps: Steps) -> None:
    if steps.make_namespace:
        _netns.make(os.path.basename(want.namespace))
    if steps.inside_first:
        _netns.inside(want.namespace, lambda: _netns.batch(steps.inside_first))
    _netns.batch(steps.host)
    for path, value in steps.host_settings:
        if _netns.read_setting(path) is not None:
            _netns.write_setting(path, value)
    if steps.settings or steps.inside or steps.transmit_checksum is not None:
        _netns.inside(want.namespace, lambda: _attach_inside(steps))
    if steps.rebuild:
        # Last, so that nothing passes before the host's own stack is kept away from the port.
        _netns.batch([f"link set dev {want.port_name} up"])


def _attach_inside(steps: Steps) -> None:
    for path, value in steps.settings:
        if _netns.read_setting(path) is not None:
            _netns.write_setting(path, value)
    if steps.transmit_checksum is not None:
        _netns.set_transmit_checksum(_host_plan.INTERFACE, steps.transmit_checksum)
    _netns.batch(steps.inside)


def _stop_processes(leaving: t.Sequence[Leaving]) -> None:
    """Stop what qnet_workload runs in pods that leave, which ends in good order while it still has its network."""
    units = [_workload.unit_of(item.pod) for item in leaving]
    there = [unit for unit in units if os.path.isdir(f"{UNITS}/{unit}.d")]
    if there:
        done = subprocess.run(["systemctl", "stop", *there], capture_output=True, text=True, check=False)
        if done.returncode:
            raise _netns.NamespaceError(
                f"systemctl stop {' '.join(there)}: {done.stderr.strip()}; nothing was detached"
            )


def _detach(item: Leaving, links: set[str]) -> None:
    if item.port_name in links:
        _netns.batch([f"link delete dev {item.port_name}"])
    if item.namespace is not None and os.path.lexists(item.namespace):
        _netns.remove(os.path.basename(item.namespace))


def namespace_path(pod: t.Mapping[str, t.Any]) -> str:
    """The network namespace of a pod as the options of the module say it: given, of a process, or qnet's own."""
    if pod["namespace_path"] is not None:
        return str(pod["namespace_path"])
    if pod["pid"] is not None:
        return f"/proc/{pod['pid']}/ns/net"
    return _netns.path_of(_model.namespace_of(pod["name"]))


def is_owned(pod: t.Mapping[str, t.Any]) -> bool:
    """Whether the network namespace of a pod is qnet's to make and remove."""
    return pod["namespace_path"] is None and pod["pid"] is None


def joining(
    asked: t.Sequence[t.Mapping[str, t.Any]], state: _model.State, switch: Switchboard, mtu: int | None
) -> list[Joining]:
    """The pods to attach, from the options of the module (`asked`, and the `mtu` of the overlay) and the intent.

    Raises:
        HostRefused: neither the options nor the network of a pod say an MTU.
    """
    found = []
    faults = []
    for pod in asked:
        need = _pods.attachment(state, pod["name"])
        smallest = min((value for value in (mtu, need["mtu"]) if value is not None), default=None)
        if smallest is None:
            faults.append(
                f"mtu: pod {pod['name']}: network {need['network']} has none either: give that of the overlay"
            )
            continue
        kernel = switch.transmit_checksum
        gateways = tuple(dict.fromkeys(item["gateway"] for item in need["addresses"]))
        attachment = Attachment(
            pod=pod["name"],
            port_name=need["port_name"],
            namespace=namespace_path(pod),
            owned=is_owned(pod),
            mac=need["mac"],
            addresses=tuple(with_length(item, kernel) for item in need["addresses"]),
            gateways=gateways,
            mtu=smallest,
            transmit_checksum=switch.transmit_checksum,
            neighbours=tuple(gateway for gateway in gateways if ":" in gateway) if kernel else (),
            virtual_mac=_model.VIRTUAL_MAC,
        )
        found.append(Joining(attachment, notes(state["pod"][pod["name"]], attachment)))
    if faults:
        raise HostRefused(faults)
    return found
