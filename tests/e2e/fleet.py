# SPDX-License-Identifier: Apache-2.0
"""A running fleet in the lab, as the tests see it: plays on it, commands on its hosts and in its pods, its metrics."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("probe.py", "movable.py")  # what runs inside pods
SCRIPTS_ON_HOST = "/run/qnet-e2e"
PLAY_SECONDS = 900
API = "http://127.0.0.1:9680"
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
CHANGED = re.compile(r"^changed: \[(\S+?)(?: -> ([^\s(\]]+)\S*)?\]", re.MULTILINE)


@dataclass(frozen=True)
class Pod:
    """A pod as it is attached: `group/pod`, its host and its IPv4 address."""

    name: str
    host: str
    address: str

    @property
    def namespace(self) -> str:
        """Its network namespace on the host."""
        return self.name.replace("/", ".")


@dataclass(frozen=True)
class Play:
    """The outcome of a playbook: exit status, output, and (ok, changed, unreachable, failed) by host."""

    status: int
    output: str

    @property
    def recap(self) -> dict[str, tuple[int, int, int, int]]:
        """The last lines of the output, by host."""
        return {row[0]: (int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in RECAP.findall(self.output)}

    @property
    def changed(self) -> dict[str, int]:
        """Changed tasks by host, where there are any."""
        return {host: row[1] for host, row in self.recap.items() if row[1]}

    @property
    def touched(self) -> set[str]:
        """Hosts on which something has changed; `changed` counts a delegated task for the host that delegates."""
        return {at or host for host, at in CHANGED.findall(self.output)}


@dataclass(frozen=True)
class Fleet:
    """The lab called `name`, which is up."""

    name: str
    play_seconds: int = PLAY_SECONDS  # longest

    # -- plays -------------------------------------------------------------------------------------------------

    @property
    def hosts_file(self) -> Path:
        """The inventory of the lab's hosts."""
        return ROOT / ".lab" / self.name / "hosts.yml"

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Host names by Ansible group."""
        children = yaml.safe_load(self.hosts_file.read_text())["all"]["children"]
        return {group: sorted(children[group]["hosts"]) for group in ("controllers", "switches")}

    def address(self, host: str) -> str:
        """The address of a host on the network that it is managed by."""
        for group in yaml.safe_load(self.hosts_file.read_text())["all"]["children"].values():
            if host in group["hosts"]:
                return str(group["hosts"][host]["ansible_host"])
        raise KeyError(host)

    def try_play(self, playbook: str, inventory: str | Path, *arguments: str, **variables: object) -> Play:
        """Run a playbook, or several named in one text, with `inventories/<inventory>` (or a path) on the lab."""
        command = [
            "ansible-playbook", *(f"playbooks/{name}.yml" for name in playbook.split()),
            "-i", str(ROOT / "inventories" / inventory), "-i", str(self.hosts_file),
            "-e", json.dumps(variables), *arguments,
        ]  # fmt: skip
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.play_seconds,
            check=False,
        )
        return Play(done.returncode, done.stdout + done.stderr)

    def play(self, playbook: str, inventory: str | Path, *arguments: str, **variables: object) -> Play:
        """As try_play, but the test fails when the play does."""
        done = self.try_play(playbook, inventory, *arguments, **variables)
        assert done.status == 0, f"{playbook}.yml failed:\n{done.output[-6000:]}"
        return done

    # -- hosts and pods ----------------------------------------------------------------------------------------

    def run(self, host: str, *command: str, check: bool = True) -> str:
        """Run a command on a host and return its output."""
        done = subprocess.run(self._argv(host, *command), capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, f"{host}: {' '.join(command)}: {done.stderr.strip()}"
        return done.stdout.strip()

    @cached_property
    def virtual(self) -> list[str]:
        """The hosts that are virtual machines, with a kernel and an OVS datapath of their own."""
        lab = json.loads(self.hosts_file.with_name("lab.json").read_text())
        return [f"v{number}" for number in range(1, lab["virtual"] + 1)]

    def _argv(self, host: str, *command: str) -> list[str]:
        if host in self.virtual:
            return [str(ROOT / "lab" / "lab"), "exec", host, *command]
        return ["podman", "--runtime", "runc", "exec", "--interactive", f"{self.name}-{host}", *command]

    def install_scripts(self) -> None:
        """Put the scripts on every host with pods."""
        for host in self.groups["switches"]:
            for name in SCRIPTS:
                self.put(host, Path(__file__).with_name(name))

    def put(self, host: str, script: Path) -> None:
        """Put a script on a host, for `script` and `running`."""
        argv = self._argv(host, "sh", "-c", f"mkdir -p {SCRIPTS_ON_HOST}; cat >{SCRIPTS_ON_HOST}/{script.name}")
        subprocess.run(argv, input=script.read_bytes(), check=True, capture_output=True, timeout=60)

    def pods(self) -> dict[str, Pod]:
        """All attached pods by name, read from the hosts themselves."""
        found = {}
        for host in self.groups["switches"]:
            for namespace in self.run(host, "sh", "-c", "ls /run/netns 2>/dev/null || true").split():
                shown = self.run(
                    host, "ip", "-n", namespace, "-json", "-4", "address", "show", "dev", "eth0", check=False
                )
                rows = [row for row in json.loads(shown or "[]") if row]
                if rows and "." in namespace:
                    pod = Pod(namespace.replace(".", "/", 1), host, rows[0]["addr_info"][0]["local"])
                    found[pod.name] = pod
        return found

    def ask(self, pod: Pod, *arguments: object) -> Any:
        """Run a question of probe.py in a pod to its end and return the answer."""
        with self.running(pod, "probe.py", *arguments) as script:
            return script.result()

    def running(self, pod: Pod, name: str, *arguments: object) -> AbstractContextManager[Script]:
        """Run a script in a pod (or in a namespace prepared for it) while the block runs."""
        return self.script(pod.host, name, *arguments, inside=("ip", "netns", "exec", pod.namespace))

    @contextmanager
    def script(self, host: str, name: str, *arguments: object, inside: tuple[str, ...] = ()) -> Iterator[Script]:
        """Run a script on a host while the block runs."""
        argv = self._argv(host, *inside, "python3", "-u", f"{SCRIPTS_ON_HOST}/{name}", *map(str, arguments))
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield Script(process, " ".join([host, *inside[3:], name, *map(str, arguments)]))
            finally:
                with suppress(OSError, subprocess.TimeoutExpired):
                    process.communicate(timeout=2)  # the end of its input ends it in the pod, too
                process.kill()

    @contextmanager
    def serving(self, pods: Iterable[Pod], *arguments: object) -> Iterator[None]:
        """Run a server of probe.py in each of the pods while the block runs; `{}` in an argument is the pod's name."""
        with ExitStack() as stack:
            scripts = []
            for pod in pods:
                words = [str(argument).replace("{}", pod.name) for argument in arguments]
                scripts.append(stack.enter_context(self.running(pod, "probe.py", *words)))
            for script in scripts:
                script.wait_until_ready()
            yield

    # -- controllers -------------------------------------------------------------------------------------------

    def api(self, controller: str, path: str) -> str:
        """What a controller's API answers."""
        script = f"import urllib.request as u; print(u.urlopen('{API}{path}', timeout=5).read().decode())"
        return self.run(controller, "python3", "-c", script)

    def switch(self, host: str, among: Iterable[str] = ()) -> tuple[str, dict[str, Any]] | None:
        """The master of a switch that has adopted it, and its status there; all controllers are asked, or some."""
        for controller in list(among) or self.groups["controllers"]:
            for status in json.loads(self.api(controller, "/v1/status"))["switches"]:
                if status["host"] == host and status["role"] == "master" and status["adopted"]:
                    return controller, status
        return None

    def metrics(self, controller: str) -> dict[str, float]:
        """The metrics of a controller: `name{labels}` -> value."""
        script = (
            "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9680/metrics', timeout=5).read().decode())"
        )
        lines = self.run(controller, "python3", "-c", script).splitlines()
        rows = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in rows}

    def total(self, metric: str, among: Iterable[str] = ()) -> float:
        """The sum of a metric over its labels and all controllers, or some."""
        controllers = list(among) or self.groups["controllers"]
        return sum(
            value
            for controller in controllers
            for name, value in self.metrics(controller).items()
            if name.partition("{")[0] == metric
        )


@dataclass
class Script:
    """A script that runs in a pod."""

    process: subprocess.Popen[str]
    what: str

    def wait_until_ready(self) -> None:
        """Return when the script has said `ready`."""
        line = self._line()
        assert line == "ready\n", f"{self.what}: {line}{self._errors()}"

    def stop(self) -> Any:
        """Tell the script to finish, and return the line of JSON it prints then."""
        assert self.process.stdin is not None
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()
        line = self._line()
        assert line, f"{self.what}: {self._errors()}"
        return json.loads(line)

    def result(self) -> Any:
        """Wait for the script's end and return what it printed last."""
        output, errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, f"{self.what}: {errors}"
        return json.loads(output.splitlines()[-1])

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def _errors(self) -> str:
        self.process.kill()
        return self.process.communicate()[1]


def eventually(check: Any, seconds: float, what: str) -> None:
    """Call `check` until it returns something true, for at most `seconds`."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)
