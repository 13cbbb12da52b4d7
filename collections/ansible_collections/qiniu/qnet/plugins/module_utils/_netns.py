# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""Network namespaces and their links, through iproute2.

``ip -j`` rather than pyroute2: it is on every host already, one batch per namespace does all writing, and
pyroute2 0.7 would fork a helper process for every namespace it looks into.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import pathlib
import socket
import struct
import subprocess
import threading
import typing as t

DIRECTORY = pathlib.Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_SIOCETHTOOL = 0x8946
_ETHTOOL_GTXCSUM = 0x16
_ETHTOOL_STXCSUM = 0x17
_IFNAMSIZ = 16
_TIMEOUT_SECONDS = 60

Result = t.TypeVar("Result")


class NamespaceError(Exception):
    """Something in a namespace could not be read or changed; the text says where and what."""


def path_of(name: str) -> str:
    """Path of the namespace with that name."""
    return str(DIRECTORY / name)


def is_namespace(path: str) -> bool:
    """Whether a network namespace is at that path; a plain file left by an interrupted run is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False
    finally:
        os.close(descriptor)


def inside(path: str, function: t.Callable[[], Result]) -> Result:
    """Call a function in the network namespace at ``path``, and return what it returns.

    It runs in a thread of its own, since a namespace belongs to a thread; processes it starts are in the namespace too.

    Raises:
        NamespaceError: there is no namespace at that path.
    """
    results: list[Result] = []
    failures: list[BaseException] = []

    def call() -> None:
        try:
            enter(path)
            results.append(function())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def enter(path: str) -> None:
    """Move the calling thread into the network namespace at ``path``.

    Raises:
        NamespaceError: there is no namespace at that path.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"{path}: {error.strerror}") from error
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise NamespaceError(f"{path}: cannot enter it as a network namespace: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def make(name: str) -> None:
    """Make a namespace under ``/run/netns``, in place of a plain file that an interrupted run left there."""
    path = pathlib.Path(path_of(name))
    if path.exists() and not is_namespace(str(path)):
        path.unlink()
    _ip(["netns", "add", name])


def remove(name: str) -> None:
    """Remove a namespace under ``/run/netns``; processes in it keep it until they end, without its name."""
    _ip(["netns", "delete", name])


def show(*arguments: str) -> list[dict[str, t.Any]]:
    """What ``ip -j ARGUMENTS`` says in the namespace of the calling thread."""
    written = _ip(["-j", *arguments])
    return [item for item in json.loads(written or "[]") if item]


def show_each(*commands: str) -> list[list[dict[str, t.Any]]]:
    """What ``ip -j -d`` says to each of these commands in the namespace of the calling thread, in one run.

    Raises:
        NamespaceError: a command failed; the text has all of them.
    """
    done = _run(["ip", "-j", "-d", "-batch", "-"], "".join(f"{command}\n" for command in commands))
    answers = done.stdout.splitlines()
    if done.returncode != 0 or len(answers) != len(commands):
        reason = done.stderr.strip() or f"{len(answers)} answers to {len(commands)} commands"
        raise NamespaceError(f"'ip {'; '.join(commands)}' failed: {reason}")
    return [[item for item in json.loads(answer) if item] for answer in answers]


def batch(lines: t.Sequence[str]) -> None:
    """Carry out lines of ``ip`` in the namespace of the calling thread, in order, until one fails.

    Raises:
        NamespaceError: a line failed; the text has the line.
    """
    if not lines:
        return
    done = _run(["ip", "-batch", "-"], "\n".join(lines) + "\n")
    if done.returncode != 0:
        reason = done.stderr.strip()
        number = reason.rpartition("Command failed -:")[2]
        line = lines[int(number) - 1] if number.isdigit() and 0 < int(number) <= len(lines) else "; ".join(lines)
        raise NamespaceError(f"'ip {line}' failed: {reason.splitlines()[0] if reason else 'no reason given'}")


def read_setting(path: str) -> str | None:
    """A setting under ``/proc/sys`` in the namespace of the calling thread, None when there is no such setting."""
    try:
        return pathlib.Path("/proc/sys", path).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def write_setting(path: str, value: str) -> None:
    """Change a setting under ``/proc/sys`` in the namespace of the calling thread.

    Raises:
        NamespaceError: it cannot be written.
    """
    try:
        pathlib.Path("/proc/sys", path).write_text(value, encoding="ascii")
    except OSError as error:
        raise NamespaceError(f"/proc/sys/{path}: cannot write {value}: {error.strerror}") from error


def transmit_checksum(interface: str) -> bool:
    """Whether checksums of sent packets are left to the interface, in the namespace of the calling thread."""
    return bool(_ethtool(interface, _ETHTOOL_GTXCSUM, 0))


def set_transmit_checksum(interface: str, on: bool) -> None:
    """Leave checksums of sent packets to the interface or not, in the namespace of the calling thread."""
    _ethtool(interface, _ETHTOOL_STXCSUM, int(on))


def _ethtool(interface: str, command: int, value: int) -> int:
    # struct ifreq with a pointer to struct ethtool_value {u32 cmd; u32 data}
    data = ctypes.create_string_buffer(struct.pack("=II", command, value), 8)
    request = struct.pack(f"{_IFNAMSIZ}sP16x", interface.encode(), ctypes.addressof(data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            fcntl.ioctl(handle, _SIOCETHTOOL, request)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return value
            raise NamespaceError(f"{interface}: checksum offload: {error.strerror}") from error
    return t.cast(int, struct.unpack("=II", data.raw)[1])


def _ip(arguments: t.Sequence[str]) -> str:
    done = _run(["ip", *arguments], None)
    if done.returncode != 0:
        raise NamespaceError(f"'ip {' '.join(arguments)}' failed: {done.stderr.strip()}")
    return done.stdout


def _run(command: list[str], written: str | None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            input=written,
            stdin=subprocess.DEVNULL if written is None else None,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise NamespaceError("the command 'ip' is not on this host: install iproute2") from error
    except subprocess.TimeoutExpired as error:
        raise NamespaceError(f"'{' '.join(command)}' did not end within {_TIMEOUT_SECONDS} s") from error
