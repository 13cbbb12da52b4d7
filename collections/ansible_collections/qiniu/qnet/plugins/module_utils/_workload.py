# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of pods as instances of one systemd template unit: what is wanted, what is there, and the steps between.

Pure; reading and doing are in _workload_host. A process says itself what it was started with, by the digest in
its environment and by its network namespace; so an interrupted run is repaired by the next one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shlex
import typing as t

DIGEST_VARIABLE = "QNET_WORKLOAD_DIGEST"
TEMPLATE = "qnet-pod@.service"
DROP_IN = "workload.conf"


def namespace_of(pod: str) -> str:
    """Name of the network namespace of a pod (group/pod) under /run/netns; also the instance of its unit."""
    return pod.replace("/", ".", 1)


def unit_of(pod: str) -> str:
    """The unit that runs the process of a pod."""
    return TEMPLATE.replace("@", f"@{namespace_of(pod)}")


def user_of(pod: str) -> str:
    """The dynamic user of a pod's process: one for each pod, so that pods of one host cannot touch each other."""
    return f"qn{hashlib.sha256(pod.encode()).hexdigest()[:12]}"


@dataclasses.dataclass(frozen=True)
class Found:
    """What is there of one unit. `drop_in` None: no file. `digest`: what the running process was started with.

    `same_namespace`: whether the process is in the namespace that has the pod's name now.
    """

    drop_in: str | None = None
    active: bool = False
    enabled: bool = False
    digest: str | None = None
    same_namespace: bool = False


@dataclasses.dataclass
class Steps:
    """Units by what is to be done with them. `write`: unit to the text of its drop-in; `files`: path to its text.

    `boot`: other units that are enabled, so that they start when the host does.
    """

    files: dict[str, str] = dataclasses.field(default_factory=dict)
    write: dict[str, str] = dataclasses.field(default_factory=dict)
    enable: list[str] = dataclasses.field(default_factory=list)
    boot: list[str] = dataclasses.field(default_factory=list)
    start: list[str] = dataclasses.field(default_factory=list)
    restart: list[str] = dataclasses.field(default_factory=list)
    remove: list[str] = dataclasses.field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return self == Steps()


def render(workload: t.Mapping[str, t.Any], seed: str) -> str:
    """The drop-in of one workload (pod, command, environment). `seed` stands for the template and the files used."""
    words = shlex.split(workload["command"])
    environment = {str(k): str(v) for k, v in (workload.get("environment") or {}).items()}
    lines = [
        "[Unit]",
        f"Description=Workload of pod {workload['pod']}",
        "[Service]",
        f"User={user_of(workload['pod'])}",
        "ExecStart=",
        "ExecStart=" + " ".join([words[0].replace("%", "%%"), *(_quoted(word, "$") for word in words[1:])]),
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in sorted(environment.items())),
    ]
    text = "\n".join(lines)
    return f'{text}\nEnvironment="{DIGEST_VARIABLE}={_digest(text, seed)}"\n'


def digest_of(drop_in: str) -> str:
    """The digest that a rendered drop-in carries."""
    return drop_in.rpartition(f"{DIGEST_VARIABLE}=")[2].rstrip('"\n')


def shown(drop_in: str) -> str:
    """A drop-in for people: with the names of its environment variables, without their values, which may be secrets."""
    return re.sub(rf'^(Environment="(?!{DIGEST_VARIABLE}=)[^=]*=).*"$', r'\1(not shown)"', drop_in, flags=re.MULTILINE)


def plan(want: t.Mapping[str, str], found: t.Mapping[str, Found], start: bool, purge: bool) -> Steps:
    """Steps from `found` to `want` (unit to drop-in). Without `start`, only `purge` has an effect."""
    steps = Steps()
    if purge:
        steps.remove = sorted(set(found) - set(want))
    for unit, text in sorted(want.items()) if start else ():
        here = found.get(unit, Found())
        if here.drop_in != text:
            steps.write[unit] = text
        if not here.enabled:
            steps.enable.append(unit)
        if not here.active:
            steps.start.append(unit)
        elif here.digest != digest_of(text) or not here.same_namespace:
            steps.restart.append(unit)
    return steps


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _quoted(text: str, doubled: str = "") -> str:
    """Text as one word of a unit file (systemd.syntax(7), systemd.service(5))."""
    for character, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t"), ("%", "%%")):
        text = text.replace(character, escape)
    for character in doubled:
        text = text.replace(character, character * 2)
    return f'"{text}"'
