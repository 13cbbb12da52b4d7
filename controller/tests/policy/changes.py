# SPDX-License-Identifier: Apache-2.0
"""Random changes of a running world, done to the plan and to the simulated fabric alike."""

from __future__ import annotations

import random
from collections.abc import Callable

from qnet_controller.model import objects as o

from .probe import Open, Prober
from .tenants import (
    FAMILY_CHOICES,
    IPV6,
    SERVICE_BLOCK,
    ExportPlan,
    PodPlan,
    export_object,
    group_object,
    pod_object,
    random_egress,
    random_export,
    random_ports,
    service_ip_object,
)


class Changer:
    """Each public method makes one change and returns what it was, or None when there is nothing to change."""

    def __init__(self, prober: Prober, chooser: random.Random) -> None:
        self.prober, self.chooser = prober, chooser
        self.world, self.fabric = prober.world, prober.fabric
        self.freed: list[tuple[str, tuple[int, ...]]] = []
        self.open: list[Open] = []
        """Connections that a change has not given a good reason to break."""

    def step(self) -> str:
        """Make one random change; returns it in words."""
        while True:
            change: Callable[[], str | None] = self.chooser.choice(
                [
                    self.add_pod, self.reuse_address, self.remove_pod, self.move_pod, self.unplug_pod, self.plug_pod,
                    self.drain_pod, self.weigh_pod, self.add_export, self.remove_export, self.edit_export,
                    self.edit_egress, self.edit_broadcast,
                    self.add_service_ip, self.remove_service_ip, self.pass_time, self.pass_time,
                    self.restart_controller, self.restart_switch,
                ]
            )  # fmt: skip
            done = change()
            if done is not None:
                return done

    def _pods(self, plugged: bool = True) -> list[PodPlan]:
        return [pod for pod in self.world.pods.values() if bool(pod.host) == plugged]

    def _host(self, but: str | None = None) -> str:
        return self.chooser.choice([name for name in self.fabric.nodes if name != but])

    def _forget(self, unwanted: Callable[[Open], bool]) -> None:
        self.open = [item for item in self.open if not unwanted(item)]

    # -- pods --------------------------------------------------------------------------------------------------

    def add_pod(self) -> str | None:
        """A new replica; its port may appear before the database says so."""
        if len(self.world.pods) > 9:
            return None
        return self._add(())

    def reuse_address(self) -> str | None:
        """A new pod, perhaps of another tenant, gets the address of a pod that has gone."""
        for network, addresses in self.freed:
            services = [key for key, where in self.world.services.items() if where == network]
            used = {a for pod in self.world.pods.values() if pod.network == network for a in pod.addresses}
            if services and not used & set(addresses):
                return self._add(addresses, self.chooser.choice(services))
        return None

    def _add(self, addresses: tuple[int, ...], service: str | None = None) -> str:
        service = service or self.chooser.choice(list(self.world.services))
        pod = self.world.new_pod(service, self._host(), addresses, self.chooser.choice(FAMILY_CHOICES))
        assert pod.host
        if self.chooser.random() < 0.5:
            self.fabric.plug(pod_object(pod), pod.host)
            self.fabric.apply([pod_object(pod)])
        else:
            self.fabric.apply([pod_object(pod)])
            self.fabric.plug(pod_object(pod), pod.host)
        return f"add {pod.key} at {pod.host} with {list(map(hex, pod.addresses))}"

    def remove_pod(self) -> str | None:
        """A pod goes; its port may stay a little longer."""
        if len(self.world.pods) < 4:
            return None
        pod = self.chooser.choice(list(self.world.pods.values()))
        del self.world.pods[pod.key]
        self._forget(lambda item: pod.key in (item.client, item.server))
        removed = o.Removed(o.Pod, pod.key)
        if pod.host and self.chooser.random() < 0.5:
            self.fabric.unplug(pod_object(pod), pod.host)
            self.fabric.apply([removed])
        else:
            self.fabric.apply([removed])
            if pod.host:
                self.fabric.unplug(pod_object(pod), pod.host)
        self.freed.append((pod.network, pod.addresses))
        return f"remove {pod.key}"

    def move_pod(self) -> str | None:
        """A pod moves to another host."""
        pods = self._pods()
        if not pods or len(self.fabric.nodes) < 2:
            return None
        pod = self.chooser.choice(pods)
        source, target = pod.host, self._host(but=pod.host)
        assert source
        if self.chooser.random() < 0.5:
            self.fabric.move(pod_object(pod), source, target)
        else:
            self.fabric.unplug(pod_object(pod), source)
            self.fabric.plug(pod_object(pod), target)
        pod.host = target
        # The translation of a Service IP lives in the caller's zone, which does not travel.
        self._forget(lambda item: item.client == pod.key and item.balanced)
        return f"move {pod.key} from {source} to {target}"

    def unplug_pod(self) -> str | None:
        """A pod's port goes, the pod stays intended."""
        pods = self._pods()
        if len(pods) < 3:
            return None
        pod = self.chooser.choice(pods)
        assert pod.host
        self.fabric.unplug(pod_object(pod), pod.host)
        pod.host = None
        self._forget(lambda item: pod.key == item.client and item.balanced)
        return f"unplug {pod.key}"

    def plug_pod(self) -> str | None:
        """A pod that was nowhere appears."""
        pods = self._pods(plugged=False)
        if not pods:
            return None
        pod = self.chooser.choice(pods)
        pod.host = self._host()
        self.fabric.plug(pod_object(pod), pod.host)
        return f"plug {pod.key} at {pod.host}"

    def scale_service(self) -> str | None:
        """A service gets other replicas in one change: some more, some less."""
        service = self.chooser.choice(list(self.world.services))
        there = [pod for pod in self.world.pods.values() if pod.service == service]
        wanted = self.chooser.choice([number for number in range(4) if number != len(there)])
        gone = self.chooser.sample(there, max(0, len(there) - wanted))
        come = [
            self.world.new_pod(service, self._host(), families=self.chooser.choice(FAMILY_CHOICES))
            for _ in range(wanted - len(there))
        ]
        for pod in come:
            assert pod.host
            self.fabric.plug(pod_object(pod), pod.host)
        self.fabric.apply([*map(pod_object, come), *self._leave(gone)])
        self._unplug(gone)
        return f"scale {service} from {len(there)} to {wanted}"

    def _leave(self, pods: list[PodPlan]) -> list[o.Change]:
        """Take pods out of the plan; returns what that is in the database."""
        for pod in pods:
            del self.world.pods[pod.key]
            self._forget(lambda item, key=pod.key: key in (item.client, item.server))  # type: ignore[misc]
        return [o.Removed(o.Pod, pod.key) for pod in pods]

    def _unplug(self, pods: list[PodPlan]) -> None:
        for pod in pods:
            if pod.host:
                self.fabric.unplug(pod_object(pod), pod.host)

    def remove_service(self) -> str | None:
        """A service goes with its pods, Service IPs and exports, in one change."""
        if len(self.world.services) < 3:
            return None
        service = self.chooser.choice(list(self.world.services))
        pods = [pod for pod in self.world.pods.values() if pod.service == service]
        self.fabric.apply([*self._without(service), *self._leave(pods)])
        self._unplug(pods)
        return f"remove {service}"

    def remove_group(self) -> str | None:
        """A security group goes with all that it has and with the exports to it, in one change."""
        if len(self.world.groups) < 3:
            return None
        group = self.chooser.choice(list(self.world.groups))
        pods = [pod for pod in self.world.pods.values() if pod.group == group]
        removed: list[o.Change] = [o.Removed(o.SecurityGroup, group), *self._leave(pods)]
        for service in [key for key in self.world.services if key.split("/")[0] == group]:
            removed += self._without(service)
        removed += self._end(lambda export: export.to == group)
        del self.world.groups[group], self.world.egress[group]
        self.world.broadcast.discard(group)
        self.fabric.apply(removed)
        self._unplug(pods)
        return f"remove group {group}"

    def _without(self, service: str) -> list[o.Change]:
        """Take a service out of the plan, its pods excepted."""
        removed: list[o.Change] = [o.Removed(o.Service, service)]
        for key in [key for key in self.world.service_ips if key.split(":")[0] == service]:
            removed.append(o.Removed(o.ServiceIP, service_ip_object(self.world, key).key))
            del self.world.service_ips[key]
            self.world.elsewhere.pop(key, None)
        del self.world.services[service]
        return removed + self._end(lambda export: export.service == service)

    def _end(self, over: Callable[[ExportPlan], bool]) -> list[o.Change]:
        gone = [export for export in self.world.exports.values() if over(export)]
        for export in gone:
            del self.world.exports[export.service, export.to]
        return [o.Removed(o.Export, export_object(export).key) for export in gone]

    def give_pod_to_service(self) -> str | None:
        """A pod becomes one of another service of its group, and keeps its address."""
        choices = [
            (pod, service)
            for pod in self.world.pods.values()
            for service, network in self.world.services.items()
            if service != pod.service and service.split("/")[0] == pod.group and network == pod.network
        ]
        if not choices:
            return None
        pod, service = self.chooser.choice(choices)
        pod.service = service
        self.fabric.apply([pod_object(pod)])
        return f"{pod.key} is of {pod.service}"

    def set_link(self) -> str | None:
        """A pod's interface goes down, or up again."""
        pods = self._pods()
        pod = self.chooser.choice(pods)
        live = self.chooser.random() < 0.5
        self.fabric.set_link(pod_object(pod), live)
        return f"the link of {pod.key} is {'up' if live else 'down'}"

    def drain_pod(self) -> str | None:
        """A pod takes no new connections from Service IPs, or takes them again."""
        pod = self.chooser.choice(list(self.world.pods.values()))
        pod.state = "active" if pod.state == "draining" else "draining"
        self.fabric.apply([pod_object(pod)])
        return f"{pod.key} is {pod.state}"

    def weigh_pod(self) -> str | None:
        """A pod's weight changes."""
        pod = self.chooser.choice(list(self.world.pods.values()))
        pod.weight = self.chooser.choice((0, 1, 100, 500))
        self.fabric.apply([pod_object(pod)])
        return f"{pod.key} weighs {pod.weight}"

    # -- intent ------------------------------------------------------------------------------------------------

    def add_export(self) -> str | None:
        """A new export."""
        export = random_export(self.world, self.chooser, self.fabric.clock.now)
        if export is None:
            return None
        self.world.exports[export.service, export.to] = export
        self.fabric.apply([export_object(export)])
        return f"add {export}"

    def remove_export(self) -> str | None:
        """An export is revoked."""
        if not self.world.exports:
            return None
        export = self.world.exports.pop(self.chooser.choice(list(self.world.exports)))
        self.fabric.apply([o.Removed(o.Export, export_object(export).key)])
        return f"remove {export}"

    def edit_export(self) -> str | None:
        """An export gets other ports, becomes direct or not, or gets another end."""
        if not self.world.exports:
            return None
        export = self.chooser.choice(list(self.world.exports.values()))
        what = self.chooser.randrange(3)
        if what == 0:
            export.ports = random_ports(self.chooser)
        elif what == 1:
            export.direct = not export.direct
        else:
            export.expires = int(self.fabric.clock.now) + self.chooser.choice((-1, 30, 300))
        self.fabric.apply([export_object(export)])
        return f"edit {export}"

    def edit_egress(self) -> str | None:
        """A group reaches something else outside."""
        group = self.chooser.choice(list(self.world.groups))
        self.world.egress[group] = random_egress(self.chooser)
        self.fabric.apply([group_object(self.world, group)])
        return f"egress of {group}: {', '.join(map(str, self.world.egress[group])) or 'none'}"

    def edit_broadcast(self) -> str | None:
        """A group may speak to all of its own, or may not any more."""
        group = self.chooser.choice(list(self.world.groups))
        self.world.broadcast ^= {group}
        self.fabric.apply([group_object(self.world, group)])
        return f"broadcast in {group}: {group in self.world.broadcast}"

    def add_service_ip(self) -> str | None:
        """A service gets another Service IP."""
        service = self.chooser.choice(list(self.world.services))
        key = next(
            (f"{service}:{n}" for n in ("main", "more", "third") if f"{service}:{n}" not in self.world.service_ips),
            None,
        )
        if key is None:
            return None
        taken = set(self.world.service_ips.values())
        home = self.world.services[service]
        where = self.chooser.choice(list(self.world.networks)) if self.world.guests else home
        if where != home:
            self.world.elsewhere[key] = where
        block = SERVICE_BLOCK + self.chooser.choice((0, IPV6))
        self.world.service_ips[key] = next(a for a in range(block + 30, block + 200) if a not in taken)
        self.fabric.apply([service_ip_object(self.world, key)])
        return f"add {key}"

    def remove_service_ip(self) -> str | None:
        """A Service IP goes."""
        if not self.world.service_ips:
            return None
        key = self.chooser.choice(list(self.world.service_ips))
        removed = o.Removed(o.ServiceIP, service_ip_object(self.world, key).key)
        del self.world.service_ips[key]
        self.world.kept.pop(key, None)
        self.world.elsewhere.pop(key, None)
        self.fabric.apply([removed])
        return f"remove {key}"

    # -- time and faults ---------------------------------------------------------------------------------------

    def pass_time(self) -> str | None:
        """Flows age, exports end."""
        seconds = self.chooser.choice((1, 29, 31, 100, 301, 700))
        self.fabric.wait(seconds)
        if seconds > 25:
            # Connections that were not answered or not TCP may have been forgotten.
            self._forget(lambda item: item.protocol != 6)
        return f"{seconds} s pass"

    def restart_controller(self) -> str | None:
        """The controller starts again and adopts; what is right stays as it is."""
        before = len(self.fabric.commands)
        self.fabric.restart_controller(self.chooser)
        said = [item for item in self.fabric.commands[before:] if type(item[1]).__name__ != "PutGroup"]
        if said:
            raise AssertionError(f"adoption changed a switch that was right: {said[:5]} ({len(said)} commands)")
        return "restart the controller"

    def restart_switch(self) -> str | None:
        """A switch loses its tables and connections."""
        host = self._host()
        self.fabric.restart_switch(host)
        here = {pod.key for pod in self.world.pods.values() if pod.host == host}
        self._forget(lambda item: item.client in here and item.balanced)
        return f"restart the switch of {host}"
