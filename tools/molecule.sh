#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs every molecule scenario and sums them up in one line.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0 failed=0
for scenario in molecule/*/molecule.yml; do
  name=$(basename "$(dirname "$scenario")")
  if molecule test --scenario-name "$name"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "molecule: scenario $name failed"
  fi
done
echo "$passed passed, $failed failed"
((passed > 0 && failed == 0))
