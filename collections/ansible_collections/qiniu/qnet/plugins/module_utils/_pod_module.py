# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of qnet_pod: the intent, what is on this host, and the processes of its pods."""

from __future__ import annotations

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
from ansible_collections.qiniu.qnet.plugins.module_utils._host_pods import HostOutcome, Leaving

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
    **_workload_host.OPTIONS,
    "workloads": {**_workload_host.OPTIONS["workloads"], "required": False},
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
        outcome, result = self._look_up() or self._intend(self._plan_declaration, True)
        jobs = switch.prepare(_host_pods.joining(self.asked, outcome.state, switch, self.options["mtu"]))
        if outcome.plan.changed and not self.module.check_mode:
            outcome, result = self._intend(self._plan_declaration, False)
            jobs = switch.prepare(_host_pods.joining(self.asked, outcome.state, switch, self.options["mtu"]))
        leaving = self._strangers(switch) if self.options["purge"] else []
        host = switch.converge(jobs, leaving, self.module.check_mode)
        result |= {"pods": [self._describe(outcome.state, pod) for pod in self.asked], "held": self.held}
        result = self._merge(result, host, leaving)
        return result if self.options["workloads"] is None else self._run_processes(result)

    def _run_processes(self, result: Options) -> Options:
        """After the pods: what runs in them. `result` is what there is to say of the pods."""
        done = _workload_host.converge(self.module, self.options, start=True, purge=True)
        for side in ("before", "after"):
            result["diff"][side]["processes"] = done["diff"][side].splitlines()
        result["changed"] = result["changed"] or done["changed"]
        result["processes"] = {key: done[key] for key in ("started", "restarted", "stopped")}
        return result

    def _intend(self, planner: _ovsdb.Planner, check_mode: bool) -> tuple[_ovsdb.Outcome, Options]:
        """Like ``_module.converge``, with a check mode of its own."""
        outcome = _ovsdb.converge(_module.connection_of(self.module), planner, check_mode)
        return outcome, _result_of(outcome)

    def _look_up(self) -> tuple[_ovsdb.Outcome, Options] | None:
        """As `_intend` in check mode, where all pods are declared as they are asked for; None where they are not."""
        names = {pod["name"] for pod in self.asked}
        outcome = _ovsdb.nothing_to_do(_module.connection_of(self.module), self._plan_declaration, names)
        return None if outcome is None else (outcome, _result_of(outcome))

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
        if self.options["workloads"] is not None and not (self.options["state"] == "present" and self.options["purge"]):
            faults.append("workloads: works with state=present and purge, which say what stays on this host")
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


def _result_of(outcome: _ovsdb.Outcome) -> Options:
    return {
        "changed": outcome.plan.changed,
        "diff": outcome.plan.diff(),
        "plan": outcome.plan.steps(),
        "generation": outcome.generation,
    }


def _split(name: str) -> Options:
    group, pod = name.split("/")
    return {"group": group, "name": pod}


def _is_held(have: _model.State, pod: Options) -> bool:
    """Whether a pod is kept from taking connections until somebody says that it answers."""
    known = have["pod"].get(pod["name"])
    return bool(pod["hold"]) and not pod["draining"] and (known is None or known.state != "active")
