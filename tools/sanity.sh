#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs `ansible-test sanity` on the collection with nothing but PyPI.
#
# ansible-test makes virtual environments without pip and downloads a bootstrap script for it from a host of its own.
# It looks in its cache first, so we put a stand-in there: Python's own ensurepip, then pip with the arguments given.
# Everything stays under .cache/sanity; the collection is copied there because ansible-test insists on its path.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
source=collections/ansible_collections/qiniu/qnet
work=$PWD/.cache/sanity
copy=$work/ansible_collections/qiniu/qnet

settings=$(python -m pip config list | sed -nE "s/^(:env:|global|user)\.([a-z-]+)='(.*)'$/\2 = \3/p" | sort -u -t= -k1,1)
export HOME=$work/home # the one variable that ansible-test hands on to pip
cache=$HOME/.ansible/test/cache
rm -rf "$copy"
mkdir -p "$copy" "$cache" "$HOME/.config/pip"
printf '[global]\n%s\n' "$settings" >"$HOME/.config/pip/pip.conf"
git ls-files -z --cached --others --exclude-standard "$source" | tar -c --null -T - | tar -x --strip-components=4 -C "$copy"
git -C "$copy" init --quiet && echo tests/output >"$copy/.git/info/exclude" && git -C "$copy" add --all # or it would ask our repository, which ignores .cache/

version=$(python - <<'PY'
from ansible_test._internal.python_requirements import get_venv_packages
from ansible_test._internal.host_configs import NativePythonConfig
import sys
print(get_venv_packages(NativePythonConfig(version="%d.%d" % sys.version_info[:2], path=sys.executable))["pip"])
PY
)
cat >"$cache/get_pip_${version//./_}.py" <<'PY'
import subprocess
import sys

subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"])
arguments = [a for a in sys.argv[1:] if a not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *arguments]))
PY

cd "$copy"
exec ansible-test sanity --color no --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" "$@"
