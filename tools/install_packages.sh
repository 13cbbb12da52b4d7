#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that make and the tests need on this machine; does nothing when they are there.
# The lab installs what it needs by itself (lab/host.py).
set -euo pipefail

packages=(
  python3 python3-venv openssh-client openssl # Ansible and its connections
  openvswitch-switch openvswitch-common       # private switches and databases of the tests
  python3-openvswitch python3-netaddr         # what modules use on a host
  iproute2 iputils-ping ethtool procps        # pods of the tests
  nftables libfaketime                        # faults of the tests: firewalls, cards that spoil packets, clocks that jump
  nginx-light libnginx-mod-http-lua libnginx-mod-http-headers-more-filter # the L7 balancer of the tests
  libnginx-mod-http-brotli-filter libnginx-mod-stream lua-cjson
  curl wrk nghttp2-client                     # its clients
)

missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
  echo "qnet: this is not Debian: use a Debian 12 machine, or install by hand what stands for: ${missing[*]}" >&2
  exit 1
elif ((EUID != 0)); then
  echo "qnet: not root: run as root, or install first: apt-get install ${missing[*]}" >&2
  exit 1
fi
# nginx is for the tests to start; the distribution would start one of its own at once.
if [[ ! -e /usr/sbin/nginx && ! -e /etc/systemd/system/nginx.service && -d /etc/systemd/system ]]; then
  ln -s /dev/null /etc/systemd/system/nginx.service
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
apt-get install --quiet --quiet --yes --no-install-recommends "${missing[@]}"
