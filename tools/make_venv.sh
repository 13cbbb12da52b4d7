#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Usage: tools/make_venv.sh PYTHON DIRECTORY STAMP
# Installs the pinned requirements into the virtual environment DIRECTORY and, when it worked, leaves STAMP there.
set -euo pipefail
python=$1 venv=$2 stamp=$3

mkdir -p "$venv"
exec 9>"$venv/.lock"
flock 9 # two makes at once must not install into the same directory
[[ -e $stamp ]] && exit 0

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "make venv: $python is $("$python" --version), but qnet needs Python 3.11 or newer: say make PYTHON=python3.11 …" >&2; exit 1; }
"$python" -c 'import ensurepip' 2>/dev/null ||
  { echo "make venv: $python cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }

echo "make venv: installing requirements/ into $venv"
[[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install --requirement requirements/dev.txt
# controller.txt is the whole set: see requirements/controller.in
"${pip[@]}" install --no-deps --requirement requirements/controller.txt
if [[ -e controller/pyproject.toml ]]; then
  "${pip[@]}" install --no-deps --editable controller
fi
rm -f "$venv"/.installed-*
touch "$stamp"
