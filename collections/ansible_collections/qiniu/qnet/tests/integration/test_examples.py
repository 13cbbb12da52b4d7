# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example in the documentation of the modules and filters, run for real on a whole installation."""

from __future__ import annotations

import ast
import hashlib
import json
import pathlib
import typing as t

import jmespath  # type: ignore[import-untyped]
import pytest
import yaml

from ansible_collections.qiniu.qnet.tests.conftest import COLLECTION, COLLECTIONS_ROOT
from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import reason_to_skip
from ansible_collections.qiniu.qnet.tests.integration.whole_host import Tasks, WholeHost

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))

ROOT = COLLECTIONS_ROOT.parent
PLUGINS = COLLECTION / "plugins"
# Examples that need more than this host; how they are run instead.
ELSEWHERE = {
    "qnet_workload": "needs systemd: the role pods runs it on every host of the lab (tests/e2e)",
    "qnet_offload": "needs a tunnel to another host: tests/integration/test_offload.py runs both forms of its example",
}
# How many of a module's examples are run here when not all are: the second one of qnet_what_if counts connections,
# which the role connections lets the controller ask for, by a socket of systemd.
ONLY = {"qnet_what_if": 1}


def task(module: str, **options: t.Any) -> dict[str, t.Any]:
    return {f"qiniu.qnet.{module}": options}


NETWORK = {"name": "prod", "vni": 100, "pod_subnets": ["10.10.0.0/16"], "service_subnets": ["10.96.0.0/16"]}


def group(name: str, *services: str) -> dict[str, t.Any]:
    listed = [{"name": service, "network": "prod"} for service in services]
    for service in listed:
        if service["name"] in ("image", "agents", "resize", "convert"):
            service["service_ips"] = [{}]  # type: ignore[assignment]
    return {"name": name, "security_groups": [{"name": name, "services": listed}]}


TENANTS = [
    group("fop", "image", "video", "agent", "agents", "entry"), group("alice", "resize"), group("bob", "convert"),
    group("entry", "entry"), group("platform", "edge"),
]  # fmt: skip
EXPORTS = [{"service": "fop/agents", "to": "entry"}]
EMPTY: dict[str, t.Any] = {
    "networks": [],
    "guests": [],
    "tenants": [],
    "exports": [],
    "l7_listeners": [],
    "l7_routes": [],
}
BARE = task("qnet_tenant", **EMPTY, purge=True)
WORLD = task("qnet_tenant", **{**EMPTY, "networks": [NETWORK], "tenants": TENANTS, "exports": EXPORTS}, purge=True)
SWITCH = task(
    "qnet_vswitch",
    ssl={
        "private_key": "/etc/qnet/pki/host.key",
        "certificate": "/etc/qnet/pki/host.pem",
        "ca_certificate": "/etc/qnet/pki/ca.pem",
    },
    bridges=[
        {
            "name": "br-int",
            "datapath_type": "netdev",
            "datapath_id": hashlib.sha256(b"c1").hexdigest()[:16],
            "fail_mode": "secure",
            "protocols": ["OpenFlow15"],
            "controllers": [{"target": "ssl:192.0.2.11:6653", "max_backoff_milliseconds": 1000}],
            "ports": [{"name": "qnet-vxlan", "type": "vxlan", "options": {"remote_ip": "flow", "key": "flow"}}],
        }
    ],
)
KNOWN = task("qnet_host", hosts=[{"name": "c1", "vteps": ["192.0.2.11"], "datapath_kind": "netdev"}], purge=True)
PODS = task(
    "qnet_pod",
    mtu=1400,
    purge=True,
    pods=[
        {"name": name, "service": service, "draining": name == "fop/image-1"}
        for name, service in (
            ("fop/entry-1", "fop/entry"), ("fop/image-1", "fop/image"), ("fop/agents-1", "fop/agents"),
            ("entry/entry-1", "entry/entry"), ("alice/resize-1", "alice/resize"),
        )
    ],
)  # fmt: skip
L7 = {"name": "web", "balancer": "platform/edge", "protocol": "http", "port": 80}
LISTENER = task("qnet_l7_listener", **L7)
TO_PLATFORM = task("qnet_export", service="fop/image", to="platform")
COLOURS = task(
    "qnet_network",
    networks=[
        {**NETWORK, "name": name, "vni": vni, "service_subnets": ["10.96.0.0/16"]}
        for vni, name in enumerate(("blue", "red"), 1)
    ],
)
TRACED = {
    **task("qnet_trace", source="entry/entry-1", target="fop/agents", protocol="tcp/8080"),
    "register": "seen",
    "until": "seen.delivered | default(false)",
    "retries": 100,
    "delay": 0.1,
}
LIVE = [WORLD, SWITCH, KNOWN, PODS, TRACED]
# What is run in this order: what must be there before, and the modules whose examples follow.
STAGES: list[tuple[Tasks, list[str]]] = [
    ([], ["qnet_certificate"]),
    ([BARE], ["qnet_network"]),
    ([BARE], ["qnet_security_group"]),
    ([BARE], ["qnet_tenant"]),
    ([BARE, WORLD], ["qnet_service", "qnet_service_ip", "qnet_export", "qnet_host", "qnet_l7_listener"]),
    ([WORLD, LISTENER, TO_PLATFORM], ["qnet_l7_route"]),
    ([BARE, COLOURS, task("qnet_security_group", name="bob", tenant="bob")], ["qnet_guest"]),
    ([BARE, WORLD, SWITCH], ["qnet_pod"]),
    (
        [*LIVE, TO_PLATFORM, LISTENER],
        [
            "qnet_export_info", "qnet_guest_info", "qnet_host_info", "qnet_l7_listener_info", "qnet_l7_route_info",
            "qnet_mesh", "qnet_network_info", "qnet_pod_info", "qnet_probe", "qnet_security_group_info",
            "qnet_service_info", "qnet_service_ip_info", "qnet_trace", "qnet_validate", "qnet_verify",
            "qnet_vswitch_info", "qnet_what_if",
        ],
    ),
    ([{"ansible.builtin.setup": {"gather_subset": ["network"]}}], ["qnet_offload_info", "qnet_vswitch"]),
]  # fmt: skip


def examples(path: pathlib.Path) -> Tasks:
    """The examples of a plugin."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXAMPLES":
            assert isinstance(node.value, ast.Constant)
            return t.cast(Tasks, yaml.safe_load(str(node.value.value)))
    pytest.fail(f"{path.name} has no EXAMPLES")


def as_plays(name: str, shown: Tasks, **variables: t.Any) -> Tasks:
    """Examples that are tasks as a play; those that are plays as they are."""
    if any("hosts" in part for part in shown):
        return [{"gather_facts": False, **play, "name": f"{name}: {play['name']}"} for play in shown]
    return [{"name": name, "hosts": "c1", "gather_facts": False, "vars": variables, "tasks": shown}]


MODULES = {path.stem for path in (PLUGINS / "modules").glob("qnet_*.py")}
FILTERS = {path.stem for path in (PLUGINS / "filter").glob("qnet_*.py")}


def test_examples_of_the_modules(whole: WholeHost) -> None:
    container = whole.host.popen("unshare", "--net", "sleep", "600")
    plays: Tasks = []
    for before, names in STAGES:
        plays += as_plays(f"before {', '.join(names)}", before)
        for name in names:
            shown = examples(PLUGINS / f"modules/{name}.py")[: ONLY.get(name)]
            plays += as_plays(name, shown, container={"State": {"Pid": container.pid}})
    try:
        whole.good([], plays=plays)
    finally:
        container.kill()
        container.wait(10)


PLACED = [
    {"name": "fop/image-1", "service": "fop/image", "network": "prod", "host": "c1", "addresses": ["10.10.0.2"]},
    {"name": "entry/entry-1", "service": "entry/entry", "network": "prod", "host": "h2", "addresses": ["10.10.0.3"]},
]
IMAGE = {"name": "image", "network": "prod", "replicas": 2, "service_ips": [{}]}
INVENTORY = [{"name": "fop", "security_groups": [{"name": "fop", "services": [IMAGE]}]}]
READ: Tasks = [
    *LIVE,
    {**task("qnet_pod_info"), "register": "found"},
    {**task("qnet_service_ip_info"), "register": "ips"},
    {**task("qnet_export_info"), "register": "grants"},
    {"ansible.builtin.set_fact": {"pods": "{{ found.pods }}", "service_ips": "{{ ips.service_ips }}"}},
]
# What the examples of filters speak of, besides the pods and Service IPs that were read.
VARIABLES: dict[str, dict[str, t.Any]] = {
    "qnet_l7_instances": {"qnet_l7_listeners": [], "qnet_l7_routes": [], "qnet_tenants": []},
    "qnet_loss_pairs": {"placed": PLACED},
    "qnet_mesh_report": {"measured": []},
    "qnet_probe_targets": {"qnet_exports": EXPORTS},
    "qnet_reach": {"qnet_exports": EXPORTS},
    "qnet_reach_report": {"qnet_exports": EXPORTS, "results": []},
    "qnet_table": {},
    "qnet_pods": {"qnet_tenants": INVENTORY},
    "qnet_pods_by_host": {"qnet_tenants": INVENTORY},
    "qnet_kept_addresses": {"qnet_tenants": INVENTORY},
    "qnet_intent": {"qnet_tenants": INVENTORY},
    "qnet_declarations": {"qnet_tenants": INVENTORY},
    "qnet_l7_intent": {"qnet_l7_listeners": [L7]},
}


def queries() -> list[tuple[str, str, str]]:
    """(question, what Ansible has, JMESPath) of docs/operations/queries.md."""
    rows = []
    for line in (ROOT / "docs/operations/queries.md").read_text().splitlines():
        cells = [cell.replace("\0", "|").strip() for cell in line.replace("\\|", "\0").split("|")[1:-1]]
        if len(cells) == 3 and "`" in cells[1]:
            rows.append((cells[0], cells[1].strip("`"), cells[2].removeprefix("``").removesuffix("``").strip()))
    return [(question, native, other[1:-1] if other.startswith("`") else other) for question, native, other in rows]


def test_examples_of_the_filters_and_queries(whole: WholeHost) -> None:
    rows = queries()
    assert len(rows) >= 7
    target = whole.directory / "answers.json"
    answers = {
        "pods": "{{ found.pods }}", "service_ips": "{{ ips.service_ips }}", "exports": "{{ grants.exports }}",
        "native": ["{{ " + native + " }}" for dummy, native, other in rows],
    }  # fmt: skip
    write = {"dest": str(target), "content": "{{ answers | to_json }}", "mode": "0600"}
    asked = {"ansible.builtin.copy": write, "vars": {"answers": answers, "exports": "{{ grants.exports }}"}}
    plays = as_plays("read", [*READ, asked])
    for name, variables in VARIABLES.items():
        plays += as_plays(name, examples(PLUGINS / f"filter/{name}.py"), **variables)
    whole.good([], plays=plays)
    told = json.loads(target.read_text())
    for (question, native, query), answer in zip(rows, told["native"], strict=True):
        assert answer not in ([], {}, "", None), question
        if query:
            assert jmespath.search(query, told[native.split(" ")[0]]) == answer, question


def test_everything_with_examples_is_run_somewhere() -> None:
    run = [name for dummy, names in STAGES for name in names]
    assert len(run) == len(set(run))
    assert {*run, *ELSEWHERE} == MODULES
    assert {*VARIABLES, "qnet_workloads"} == FILTERS  # the last one is for qnet_workload, which needs systemd
