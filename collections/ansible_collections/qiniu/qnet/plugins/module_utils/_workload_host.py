# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of pods on this host: reads what is there, and does the steps of _workload."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _workload
from ansible_collections.qiniu.qnet.plugins.module_utils._workload import Found, Steps

UNITS = pathlib.Path("/etc/systemd/system")
TEMPLATE = UNITS / _workload.TEMPLATE
NAMESPACES = pathlib.Path("/run/netns")
_SHORTEST_SECRET = 4
SHOWN = ("Id", "ActiveState", "MainPID", "UnitFileState")

_ONE = {
    "pod": {"type": "str", "required": True},
    "command": {"type": "str", "required": True},
    "environment": {"type": "dict", "default": {}, "no_log": True},
    "files": {"type": "list", "elements": "path", "default": []},
}
_FILE = {"path": {"type": "path", "required": True}, "content": {"type": "str", "required": True, "no_log": True}}
OPTIONS: dict[str, t.Any] = {
    "workloads": {"type": "list", "elements": "dict", "required": True, "options": _ONE},
    "files": {"type": "list", "elements": "dict", "default": [], "options": _FILE},
    "enable": {"type": "list", "elements": "str", "default": []},
}


class Host:
    """The units of this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module

    def found(self, wanted: t.Iterable[str]) -> dict[str, Found]:
        """What is there of the wanted units and of every other instance that has a drop-in or runs."""
        drop_ins = {path.name[:-2]: path / _workload.DROP_IN for path in UNITS.glob("qnet-pod@*.service.d")}
        listed = self._systemctl("list-units", "--all", "--plain", "--no-legend", "qnet-pod@*.service")
        running = [line.split()[0] for line in listed.splitlines() if line.strip()]
        return self._show(sorted({*wanted, *drop_ins, *running}), drop_ins)

    def enabled(self, unit: str) -> bool:
        """Whether a unit starts when the host does."""
        return bool(self._systemctl("is-enabled", unit, may_fail=True).strip() == "enabled")

    def apply(self, steps: Steps) -> None:
        """Do the steps; the module fails at the first that cannot be done."""
        if steps.remove:
            self._systemctl("stop", *steps.remove)
            self._systemctl("disable", "--quiet", *steps.remove)
            for unit in steps.remove:
                shutil.rmtree(UNITS / f"{unit}.d", ignore_errors=True)
        for path, text in steps.files.items():
            self._write(pathlib.Path(path), text)
        for unit, text in steps.write.items():
            self._write(UNITS / f"{unit}.d" / _workload.DROP_IN, text)
        if steps.write or steps.remove or any(pathlib.Path(path).parent == UNITS for path in steps.files):
            self._systemctl("daemon-reload")
        if steps.remove:
            self._systemctl("reset-failed", *steps.remove, may_fail=True)
        if steps.enable or steps.boot:
            self._systemctl("enable", "--quiet", *steps.enable, *steps.boot)
        if steps.start or steps.restart:
            self._systemctl("restart", *steps.start, *steps.restart)

    def _show(self, units: list[str], drop_ins: dict[str, pathlib.Path]) -> dict[str, Found]:
        if not units:
            return {}
        text = self._systemctl("show", f"--property={','.join(SHOWN)}", *units)
        found = {}
        for block in text.strip().split("\n\n"):
            shown = dict(line.split("=", 1) for line in block.splitlines())
            process = int(shown["MainPID"])
            unit = shown["Id"]
            found[unit] = Found(
                drop_in=_read(drop_ins[unit]) if unit in drop_ins else None,
                active=shown["ActiveState"] == "active",
                enabled=shown["UnitFileState"] == "enabled",
                digest=_environment(process).get(_workload.DIGEST_VARIABLE),
                same_namespace=_same_namespace(process, unit),
            )
        return found

    def _systemctl(self, *arguments: str, may_fail: bool = False) -> str:
        code, out, err = self._module.run_command(["systemctl", *arguments])
        if code and not may_fail:
            units = [argument for argument in arguments if argument.endswith(".service")]
            hint = f"; see: journalctl -u {units[0]}" if units else ""
            self._module.fail_json(msg=f"systemctl {arguments[0]} failed: {err.strip() or out.strip()}{hint}")
        return str(out)

    def _write(self, path: pathlib.Path, text: str) -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text)
        temporary.chmod(0o644)
        temporary.replace(path)


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _environment(process: int) -> dict[str, str]:
    if not process:
        return {}
    with contextlib.suppress(OSError):
        entries = pathlib.Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        return dict(entry.decode(errors="replace").partition("=")[::2] for entry in entries if b"=" in entry)
    return {}


def _same_namespace(process: int, unit: str) -> bool:
    namespace = NAMESPACES / unit.partition("@")[2].removesuffix(".service")
    try:
        return bool(process) and os.path.samestat(os.stat(f"/proc/{process}/ns/net"), namespace.stat())
    except OSError:
        return False


def _seed(files: t.Iterable[str], coming: dict[str, str]) -> str:
    """The content of the template unit and of the files of a workload, as one text; a missing file counts as such.

    `coming`: path to the text of the files that this call writes.
    """
    seed = []
    for path in (TEMPLATE, *map(pathlib.Path, files)):
        try:
            content = coming[str(path)].encode() if str(path) in coming else path.read_bytes()
            seed.append(f"{path} {hashlib.sha256(content).hexdigest()}")
        except OSError:
            seed.append(f"{path} missing")
    return "\n".join(seed)


def _sum(text: str | None) -> str:
    """Stands for the content of a file, which may be a secret."""
    return "missing" if text is None else f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def _keep_messages_legible(module: AnsibleModule) -> None:
    """Ansible blanks out every value of no_log wherever it occurs; a port or a single letter is no secret."""
    module.no_log_values = {value for value in module.no_log_values if len(str(value)) >= _SHORTEST_SECRET}


def _diff(want: dict[str, str], found: dict[str, Found], steps: Steps) -> dict[str, str]:
    before = [f"{path}: {_sum(_read(pathlib.Path(path)))}" for path in sorted(steps.files)]
    after = [f"{path}: {_sum(text)}" for path, text in sorted(steps.files.items())]
    before += [f"{unit}: not enabled" for unit in steps.boot]
    after += [f"{unit}: enabled" for unit in steps.boot]
    for unit in sorted({*steps.write, *steps.enable, *steps.start, *steps.restart, *steps.remove}):
        here = found.get(unit, Found())
        if here.drop_in is not None or here.active:
            before += [f"{unit}: {'running' if here.active else 'not running'}", _workload.shown(here.drop_in or "")]
        if unit not in steps.remove:
            after += [f"{unit}: running" + (", started again" if unit in steps.restart else ""), want[unit]]
    return {"before": "\n".join(before), "after": "\n".join(after)}


def converge(module: AnsibleModule, options: t.Mapping[str, t.Any], start: bool, purge: bool) -> dict[str, t.Any]:
    """Bring the processes of this host to what `options` (those of OPTIONS) say; what the module returns of it."""
    _keep_messages_legible(module)
    host = Host(module)
    coming = {file["path"]: file["content"] for file in options["files"]}
    want = {
        _workload.unit_of(item["pod"]): _workload.render(item, _seed(item["files"], coming))
        for item in options["workloads"]
    }
    found = host.found(want)
    present = {unit: here for unit, here in found.items() if unit in want or here.drop_in is not None or here.active}
    steps = _workload.plan(want, present, start, purge)
    if start:
        steps.files = {path: text for path, text in coming.items() if _read(pathlib.Path(path)) != text}
        steps.boot = [unit for unit in options["enable"] if not host.enabled(unit)]
    if not module.check_mode:
        host.apply(steps)
    return {
        "changed": not steps.empty,
        "diff": _diff(want, present, steps),
        "started": steps.start,
        "restarted": steps.restart,
        "stopped": steps.remove,
    }
