#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build the controller and everything it needs as one archive of wheels, unless there is one of the same content.

Usage: build_release.py SOURCE REQUIREMENTS CACHE CODEC: three paths, and os_ken or ryu. Runs on the control node with
the Python of Ansible. What a codec other than os_ken needs is in REQUIREMENTS with -CODEC before its suffix.
Prints one line of JSON: release (VERSION-HASH), archive (path), built (whether it was made just now).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import tarfile
import tempfile
import tomllib

KEPT = 3  # archives that stay in the cache


OLD_BUILD = "setuptools<68"  # what Ryu's setup needs


def content_hash(source: pathlib.Path, requirements: list[pathlib.Path]) -> str:
    """A hash over all that goes into the archive: sources, pins, and the Python that builds it."""
    digest = hashlib.sha256(f"{platform.machine()} {sys.version_info[:2]}\n".encode())
    files = [source / "pyproject.toml", *requirements, pathlib.Path(__file__)]
    files += sorted(path for path in sources(source) if path != source / "pyproject.toml")
    for path in files:
        digest.update(f"{path.name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def sources(source: pathlib.Path) -> list[pathlib.Path]:
    """The files that the controller is built from: its code, and what is installed beside it."""
    inner = [path for name in ("src", "share") for path in (source / name).rglob("*")]
    return [source / "pyproject.toml", *(path for path in inner if path.is_file() and not is_derived(path))]


def is_derived(path: pathlib.Path) -> bool:
    """Whether a file comes from running or building the sources."""
    return any(part == "__pycache__" or part.endswith(".egg-info") for part in path.parts)


def pip_wheel(directory: pathlib.Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
    """Run pip wheel; on failure exit with what it said."""
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--use-pep517"]
    done = subprocess.run(
        [*argv, "--wheel-dir", str(directory), *arguments],
        capture_output=True, text=True, check=False, env=os.environ | (environment or {}),
    )  # fmt: skip
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()][-8:]
        sys.exit(f"pip wheel {' '.join(arguments)} failed on the control node:\n" + "\n".join(lines))


def old_build(directory: pathlib.Path) -> dict[str, str]:
    """The environment in which pip builds with an old setuptools: pip before and since 25.3 look at different names."""
    limits = directory / "build-constraints.txt"
    limits.write_text(OLD_BUILD + "\n", encoding="utf-8")
    return {"PIP_CONSTRAINT": str(limits), "PIP_BUILD_CONSTRAINT": str(limits)}


def build(source: pathlib.Path, requirements: list[pathlib.Path], archive: pathlib.Path) -> None:
    """Make the archive; it appears under its name only when it is whole."""
    with tempfile.TemporaryDirectory(prefix="qnet-release-", dir=archive.parent) as scratch:
        wheels, copy = pathlib.Path(scratch) / "wheels", pathlib.Path(scratch) / "source"
        wheels.mkdir()
        # The pins are the whole set (see requirements/controller.in), so nothing is resolved.
        pip_wheel(wheels, "--requirement", str(requirements[0]))
        for more in requirements[1:]:
            pip_wheel(wheels, "--requirement", str(more), environment=old_build(pathlib.Path(scratch)))
        copy_sources(source, copy)
        pip_wheel(wheels, str(copy))
        partial = pathlib.Path(scratch) / "release.tar"
        with tarfile.open(partial, "w") as tar:
            for wheel in sorted(wheels.iterdir()):
                tar.add(wheel, arcname=wheel.name, filter=anonymous)
        partial.rename(archive)


def copy_sources(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the sources: a build would leave files among them."""
    for path in sources(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry without the names and times of this machine."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o644
    return entry


def main() -> None:
    """Entry point."""
    source, pins, cache = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    codec = sys.argv[4]
    requirements = [pins] if codec == "os_ken" else [pins, pins.with_stem(f"{pins.stem}-{codec}")]
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    release = f"{project['version']}-{content_hash(source, requirements)}"
    archive = cache / f"{release}.tar"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = not archive.exists()
        if built:
            build(source, requirements, archive)
            for old in sorted(cache.glob("*.tar"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
                old.unlink()
    print(json.dumps({"release": release, "archive": str(archive), "built": built}))


if __name__ == "__main__":
    main()
