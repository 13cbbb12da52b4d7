#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that the lab, the demo and the tests need. Does nothing when they are there.
set -euo pipefail

packages=(
  python3 python3-venv openssh-client openssl # Ansible and its connections
  podman runc mmdebstrap iptables             # hosts of the lab; netavark wants iptables
  openvswitch-switch openvswitch-common       # switches and databases of the tests
  iproute2 ethtool procps curl                # pods of the tests, and a look at them
)

missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
  echo "qnet: this is not Debian: the lab and the tests need Debian 12 (or install by hand: ${missing[*]})" >&2
  exit 1
elif ((EUID != 0)); then
  echo "qnet: not root: run as root, or install first: apt-get install ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
apt-get install --quiet --quiet --yes --no-install-recommends "${missing[@]}"
