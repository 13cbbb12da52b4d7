#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Usage: tools/install_ryu.sh PYTHON DIRECTORY
# Puts Ryu's codec (requirements/controller-ryu.txt) into DIRECTORY, for PYTHONPATH; does nothing when it is there.
set -euo pipefail
python=$1 directory=$2
pins=requirements/controller-ryu.txt
stamp=$directory/.installed-$(sha256sum "$pins" | cut -c1-16)
[[ -e $stamp ]] && exit 0

rm -rf "$directory"
mkdir -p "$directory"
limits=$(mktemp)
trap 'rm -f "$limits"' EXIT
echo 'setuptools<68' >"$limits" # pip before 25.3 looks at the first name, later ones at the second
export PIP_CONSTRAINT=$limits PIP_BUILD_CONSTRAINT=$limits
# --use-pep517: in an environment of its own. Without it, pip before 25.3 builds with the setuptools that is installed here.
"$python" -m pip --disable-pip-version-check --quiet install --use-pep517 --no-deps --target "$directory" --requirement "$pins"
touch "$stamp"
