#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One inventory with 1,000 services and 5,000 exports: seconds to validate it, to apply it, and to see nothing to do.

Goals: applied in one transaction within 5 s, nothing to do within 2 s, validated within 3 s. The database and the
module are real and run on this machine; validation is the whole play. The peer is a run of the module per service,
measured over a few services and said per service.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import report

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.qiniu.qnet.tests.conftest import Runner, start_database  # noqa: E402

GROUPS, SERVICES, EXPORTS = 50, 1000, 5000
SINGLE = 5
GOALS = {"validate": 3.0, "apply": 5.0, "no-op": 2.0}


def wish() -> dict[str, Any]:
    """Networks, tenants and exports in the shape of the inventory."""
    per_group = SERVICES // GROUPS
    groups = [
        {
            "name": f"g{g}",
            "services": [
                {"name": f"s{n}", "network": "prod", "service_ips": [{"address": f"10.96.{g}.{n + 1}"}]}
                for n in range(per_group)
            ],
        }
        for g in range(GROUPS)
    ]
    exports = [
        {"service": f"g{i % GROUPS}/s{i // GROUPS % per_group}", "to": f"g{(i + 1 + i // SERVICES) % GROUPS}"}
        for i in range(EXPORTS)
    ]
    network = {"name": "prod", "vni": 100, "pod_subnets": ["10.10.0.0/16"], "service_subnets": ["10.96.0.0/16"]}
    return {
        "networks": [network],
        "tenants": [{"name": "t", "security_groups": groups}],
        "exports": exports,
    }


def seconds(run: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def validation(directory: Path, wanted: dict[str, Any]) -> Callable[[], float]:
    """The play that validates the inventory."""
    inventory = directory / "inventory"
    (inventory / "group_vars").mkdir(parents=True)
    hosts = {"all": {"children": {"controllers": {"hosts": {"c1": None}}, "switches": {"hosts": {"h1": None}}}}}
    (inventory / "hosts.yml").write_text(json.dumps(hosts))
    (inventory / "group_vars" / "all.yml").write_text(json.dumps({f"qnet_{key}": wanted[key] for key in wanted}))
    command = ["ansible-playbook", "playbooks/validate.yml", "-i", str(inventory)]

    def run() -> float:
        return seconds(lambda: subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE))

    return run


def main() -> None:
    """Measure and print."""
    rounds = report.arguments(__doc__ or "", rounds=5).parse_args().rounds
    wanted = wish()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "database").mkdir()
        with contextlib.contextmanager(start_database)(directory / "database") as database:
            import ansible

            library = directory / "library"
            library.mkdir()
            (library / "ansible").symlink_to(Path(ansible.__file__).parent)
            paths = [str(library), str(ROOT / "collections")]
            run = Runner("/usr/bin/python3", os.pathsep.join(paths), database.remote)  # as a host runs modules

            def apply() -> float:
                database.clear()
                return seconds(lambda: run("qnet_tenant", **wanted, purge=True))

            def nothing_to_do() -> float:
                return seconds(lambda: run("qnet_tenant", **wanted, purge=True))

            def one_by_one() -> float:
                services = wanted["tenants"][0]["security_groups"][0]["services"][:SINGLE]
                return seconds(
                    lambda: [run("qnet_service", group="g0", name=s["name"], network="prod") for s in services]
                ) * (SERVICES / SINGLE)

            found = report.interleave(
                {
                    "apply": apply,
                    "no-op": nothing_to_do,
                    "validate": validation(directory, wanted),
                    "a module run per service": one_by_one,
                },
                rounds,
            )
    print(report.table("1,000 services and 5,000 exports", "seconds", found))
    for name, goal in GOALS.items():
        met = "met" if found[name].median <= goal else "MISSED"
        print(f"  {name}: {report.number(found[name].median)} s, goal ≤ {report.number(goal)} s: {met}")


if __name__ == "__main__":
    main()
