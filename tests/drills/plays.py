#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the plays of an operator's life on the lab under traffic, and fail when the traffic notices.

Usage: tests/drills/plays.py [--only NAME …] [--connections N] [--keep]
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.drills import drill as drills  # noqa: E402
from tests.drills import faults  # noqa: E402
from tests.e2e.fleet import Fleet, Play, eventually  # noqa: E402

PERIOD = 0.1  # seconds between two new pairs: each has been forgotten when its turn comes again
LONGEST_SECONDS = 1500
SHOWN = 3000
NOTHING_SECONDS = 30
FIGURE = re.compile(r"\d+ of \d+ probes between \d+ hosts were lost; the longest time without an answer was \d+ ms")


def plays(fleet: Fleet, playbook: str, **variables: object) -> Play:
    """A play with the drills' inventory, which must succeed."""
    return fleet.play(playbook, drills.INVENTORY, **variables)


def source(directory: Path, name: str, change: Callable[[str], str] | None = None) -> Path:
    """A copy of the controller's sources that is another release, and perhaps a bad one."""
    target = directory / name
    shutil.copytree(ROOT / "controller", target, ignore=shutil.ignore_patterns("tests", "__pycache__", "*.egg-info"))
    main = target / "src/qnet_controller/cli/main.py"
    text = main.read_text()
    main.write_text((change(text) if change else text) + f"\n# {name}\n")
    return target


def previous(directory: Path) -> Path:
    """The controller's sources as they were before the last commit that changed them."""
    last = git("log", "-1", "--format=%H", "--", "controller/src").decode().strip()
    with tarfile.open(fileobj=io.BytesIO(git("archive", f"{last}^", "controller"))) as archive:
        archive.extractall(directory / "previous", filter="data")
    return directory / "previous" / "controller"


def git(*words: str) -> bytes:
    """What git says about this checkout."""
    return subprocess.run(["git", "-C", ROOT, *words], check=True, capture_output=True).stdout


def running(fleet: Fleet) -> dict[str, str]:
    """Controller -> the release that runs."""
    return {host: fleet.run(host, "readlink", "/opt/qnet/controller/current") for host in fleet.groups["controllers"]}


def nothing(_: Fleet, __: Path) -> str:
    """What the traffic loses when nothing is done to the fleet: the machine's own share in the losses of the others."""
    time.sleep(NOTHING_SECONDS)
    return f"nothing done for {NOTHING_SECONDS} s"


def restart(fleet: Fleet, _: Path) -> str:
    """Rolling restart: each controller stops, which hands over its switches, and starts."""
    for host in fleet.groups["controllers"]:
        faults.systemctl(fleet, host, "restart", faults.CONTROLLER)
        drills.wait_until_stable(fleet)
    return "each controller restarted"


def upgrade(fleet: Fleet, directory: Path) -> str:
    """To the release of the commit before and back."""
    before = running(fleet)
    there = plays(fleet, "upgrade", controller_source=str(previous(directory)))
    between = running(fleet)
    back = plays(fleet, "upgrade")
    assert set(before.values()).isdisjoint(between.values()), (before, between)
    assert running(fleet) == before, (before, running(fleet))
    figures = [FIGURE.search(" ".join(play.output.split())) for play in (there, back)]
    assert all(figures), back.output[-SHOWN:]
    return "; ".join(figure.group() for figure in figures if figure)


def bad_start(text: str) -> str:
    """A release that ends as soon as it runs."""
    return text.replace("    controller = Controller(config)\n", '    raise RuntimeError("a bad release")\n')


def bad_decisions(text: str) -> str:
    """A release that is ready, adopts its switches, and then takes their flows away."""
    return text.replace(
        "    controller = Controller(config)\n",
        "    controller = Controller(config)\n"
        "    from ..pipeline.program import SwitchProgram\n"
        "    from ..pipeline.messages import Installed\n"
        "    whole = SwitchProgram.adopt\n"
        "    SwitchProgram.adopt = lambda p, i, n: (controller.model.pods.clear(), whole(p, i, n))[1]\n",
    )


def stopped(fleet: Fleet, directory: Path, name: str, change: Callable[[str], str]) -> str:
    """An upgrade to a bad release is stopped, and what ran before runs again."""
    before = running(fleet)
    play = fleet.try_play("upgrade", drills.INVENTORY, controller_source=str(source(directory, name, change)))
    assert play.status != 0, "the bad release was not noticed"
    assert running(fleet) == before, (before, running(fleet))
    assert "runs everywhere again" in play.output, play.output[-SHOWN:]
    drills.wait_until_stable(fleet)
    return "stopped, and the release before runs"


def backup(fleet: Fleet, directory: Path) -> str:
    """Back up, change the intent, restore."""
    file = directory / "intent.db"
    first = dump(fleet)
    plays(fleet, "backup", backup_file=str(file))
    with fleet.script(faults.leader(fleet), "writer.py", "write", 1, drills.PREFIX) as script:
        script.wait_until_ready()
        made = script.result()["acknowledged"]
    assert made
    assert dump(fleet) != first
    plays(fleet, "restore", restore_file=str(file), restore_confirm=True)
    assert dump(fleet) == first, (dump(fleet), first)
    return f"{len(made)} groups undone"


def rebuild(fleet: Fleet, _: Path) -> str:
    """From an empty database to the full intent."""
    first = dump(fleet)
    plays(fleet, "rebuild", rebuild_confirm=True)
    assert dump(fleet) == first, (dump(fleet), first)
    return "the same intent as before"


def member(fleet: Fleet, _: Path) -> str:
    """A member of the database loses its disk and is replaced."""
    host = fleet.groups["controllers"][1]
    first = dump(fleet)
    fleet.run(host, "systemctl", "kill", "--signal=KILL", faults.DATABASE)
    fleet.run(host, "systemctl", "stop", faults.DATABASE)
    fleet.run(host, "find", "/var/lib/qnet/database", "-mindepth", "1", "-delete")
    plays(fleet, "replace_database_member", replace_host=host)
    for name in fleet.groups["controllers"]:
        shown = fleet.run(name, "ovs-appctl", "--target=/run/qnet-database/qnet.ctl", "cluster/status", "QNet")
        assert shown.count(" at ssl:") == 3, shown
    assert dump(fleet, host) == first
    return f"{host} is a member again"


def certificates(fleet: Fleet, _: Path) -> str:
    """All certificates are made anew, and used."""
    before, moment = serials(fleet), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    plays(fleet, "rotate_certificates", rotate_issued_before=moment)
    after = serials(fleet)
    assert all(before[host] != after[host] for host in before), (before, after)
    again = plays(fleet, "rotate_certificates", rotate_issued_before=moment)
    assert not again.changed, again.changed
    assert serials(fleet) == after
    drills.wait_until_stable(fleet)
    return f"{len(after)} hosts"


def drain_controller(fleet: Fleet, _: Path) -> str:
    """A controller hands its switches over and stops; site.yml brings it back."""
    host = drills.wait_until_stable(fleet)[drills.CALLERS[0].host]
    plays(fleet, "drain", drain_host=host)
    assert fleet.run(host, "systemctl", "is-active", faults.CONTROLLER, check=False) == "inactive"
    others = [name for name in fleet.groups["controllers"] if name != host]
    for switch in fleet.groups["switches"]:
        eventually(lambda switch=switch: fleet.switch(switch, others), 30, f"{switch} has another master")
    plays(fleet, "site")
    drills.wait_until_stable(fleet)
    return f"{host} was out and is back"


def drain_host(fleet: Fleet, _: Path) -> str:
    """Pods of a host take no new connections, and take them again after site.yml."""
    first, host = dump(fleet), drills.TARGET.host
    plays(fleet, "drain", drain_host=host)
    left = [row for row in dump(fleet) if row.startswith("Pod ") and "draining" in row]
    assert left == [row.replace("active", "draining") for row in first if drills.TARGET.name.split("/")[1] in row], left
    plays(fleet, "site")
    assert dump(fleet) == first
    return f"{len(left)} pods of {host} drained and active again"


def replace_host(fleet: Fleet, _: Path) -> str:
    """A host is taken out, another machine takes its name; then that one is lost with all that is on it."""
    host = fleet.groups["switches"][-1]
    assert host not in {pod.host for pod in (*drills.CALLERS, drills.TARGET)}, "the lab needs a switch without pods"
    first = dump(fleet)
    for old in ("there", "lost"):
        replace_machine(fleet, host, old)
        assert dump(fleet) == first, (dump(fleet), first)
    return f"{host} is another machine, twice; nothing changed elsewhere"


def replace_machine(fleet: Fleet, host: str, old: str) -> None:
    """The play that takes a host out, then a new machine; one that is lost is off already."""
    known = [row for row in dump(fleet) if row.startswith("Host ") and f",{host}," in row]
    assert known, dump(fleet)
    if old == "lost":
        subprocess.run(["podman", "--runtime", "runc", "stop", f"{fleet.name}-{host}"], check=True)
    plays(fleet, "replace_host", replace_host=host, replace_old=old)
    assert not set(known) & set(dump(fleet)), f"{host} is still known"
    subprocess.run(["podman", "--runtime", "runc", "rm", "--force", f"{fleet.name}-{host}"], check=True)
    subprocess.run([ROOT / "lab" / "lab", "up"], check=True, stdin=subprocess.DEVNULL)
    done = plays(fleet, "site")
    others = done.touched - {host, *fleet.groups["controllers"]}  # these get the intent
    assert host in done.touched, done.output[-SHOWN:]
    assert not others, f"replacing {host} has changed {others}"
    eventually(lambda: fleet.switch(host), 60, f"{host} has a master")
    again = plays(fleet, "site")
    assert not again.changed, again.changed


CANARY = "hunter2hunter2"
LEAK = (
    f"echo password={CANARY}; echo 'token: \"{CANARY}\"'; echo https://me:{CANARY}@example.org/; "
    "cat /etc/qnet/pki/host.key"
)


def support_bundle(fleet: Fleet, directory: Path) -> str:
    """One archive a host, and no secret in it, although a service has written some into the journal."""
    hosts = [*fleet.groups["controllers"], *fleet.groups["switches"]]
    for host in hosts:
        fleet.run(host, "systemd-run", "--quiet", "--wait", "--unit=qnet-leak", "sh", "-c", LEAK)
    plays(fleet, "support_bundle", support_bundle_directory=str(directory))
    for host in hosts:
        secret = fleet.run(host, "cat", "/etc/qnet/pki/host.key").splitlines()[1:-1]
        with tarfile.open(directory / f"{host}.tar.gz") as archive:
            files = {item.name.split("/")[-1]: archive.extractfile(item) for item in archive if item.isfile()}
            texts = {name: file.read().decode(errors="replace") for name, file in files.items() if file}
        assert "qnet-leak" in texts["journal.txt"], "the journal is not in it"
        found = [name for name, text in texts.items() if CANARY in text or any(line in text for line in secret)]
        assert not found, f"{host}: a secret is in {found}"
        assert host in fleet.groups["controllers"] or "table=" in texts["flows.txt"]
        assert host in fleet.groups["switches"] or "qnet_" in texts["controller-metrics.txt"]
    return f"{len(hosts)} archives without a secret"


def serials(fleet: Fleet) -> dict[str, str]:
    """Host -> the serial number of its certificate."""
    hosts = [*fleet.groups["controllers"], *fleet.groups["switches"]]
    return {
        host: fleet.run(host, "openssl", "x509", "-noout", "-serial", "-in", "/etc/qnet/pki/host.pem") for host in hosts
    }


def dump(fleet: Fleet, host: str = "") -> list[str]:
    """The intent, without what differs each time: row ids and the generation."""
    tables = ("Network", "Guest", "Host", "Security_Group", "Service", "Service_IP", "Pod", "Pod_Address", "Export")
    columns = {
        "Network": "name,vni", "Guest": "vni,addresses", "Host": "name,datapath_id,vteps",
        "Security_Group": "name,number", "Service": "name",
        "Service_IP": "name,address", "Pod": "name,mac,port_name,state", "Pod_Address": "address",
        "Export": "direct",
    }  # fmt: skip
    socket = "unix:/run/qnet-database/qnet.sock"
    rows: list[str] = []
    for table in tables:
        shown = fleet.run(
            host or fleet.groups["controllers"][0], "ovsdb-client", "--format=csv", "--no-headings", "dump", socket,
            "QNet", table, *columns[table].split(","),
        )  # fmt: skip
        rows += sorted(f"{table} {line}" for line in shown.splitlines())
    return rows


PLAYS: dict[str, Callable[[Fleet, Path], str]] = {
    "nothing": nothing,
    "restart": restart,
    "upgrade": upgrade,
    "bad-start": lambda fleet, directory: stopped(fleet, directory, "bad-start", bad_start),
    "bad-decisions": lambda fleet, directory: stopped(fleet, directory, "bad-decisions", bad_decisions),
    "backup": backup,
    "rebuild": rebuild,
    "member": member,
    "certificates": certificates,
    "drain-controller": drain_controller,
    "drain-host": drain_host,
    "replace-host": replace_host,
    "support-bundle": support_bundle,
}
# What the traffic may notice: that is how a bad release is found out.
NOTICED = {"bad-decisions"}


def run(fleet: Fleet, name: str, connections: int) -> bool:
    """One play under traffic; whether all is well."""
    drills.wait_until_stable(fleet)
    with (
        tempfile.TemporaryDirectory(prefix="qnet-plays-") as directory,
        drills.target(fleet),
        drills.caller(fleet, LONGEST_SECONDS, connections, PERIOD) as script,
    ):
        try:
            said = PLAYS[name](fleet, Path(directory))
        except AssertionError as error:
            said = f"FAILED: {str(error)[-SHOWN:]}"
        rows: dict[str, Any] = script.result()
    lost = sum(seconds is None for _, seconds in rows["flow"])
    pairs = sum(seconds is None for _, seconds in rows["new"])
    failed = sum(seconds is None for _, seconds in rows["connects"])
    slowest = max((seconds or 0.0 for _, seconds in rows["connects"]), default=0.0)
    print(
        f"{name}: {said}. Flow: {lost} of {len(rows['flow'])} lost. {rows['connections']} connections open, "
        f"{len(rows['resets'])} broken. New connections: {failed} of {len(rows['connects'])} failed, slowest "
        f"{slowest * 1000:.0f} ms. New pairs: {pairs} of {len(rows['new'])} single datagrams lost, longest wait "
        f"{drills.longest_wait(rows['new']):.0f} ms",
        flush=True,
    )
    return not said.startswith("FAILED") and (name in NOTICED or not (lost or rows["resets"] or failed))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(PLAYS), default=list(PLAYS))
    parser.add_argument("--connections", type=int, default=1000, help="open connections (default: 1000)")
    parser.add_argument("--keep", action="store_true", help="the lab is up and has the drills' inventory already")
    options = parser.parse_args()
    fleet = Fleet(os.environ.get("QNET_LAB", "qnet"))
    if not options.keep:
        subprocess.run([ROOT / "lab" / "lab", "up"], check=True, stdin=subprocess.DEVNULL)
        fleet.play("site", drills.INVENTORY)
    drills.install(fleet)
    well = [run(fleet, name, options.connections) for name in options.only]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
