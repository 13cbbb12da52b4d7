#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Usage: support_bundle.sh ARCHIVE SINCE
# Writes what this host can say of qnet into an archive. Whatever looks like a secret is taken out of every file.
set -uo pipefail
umask 077

archive=$1 since=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=$work/$(hostname)
mkdir "$out"

keep() { # keep NAME COMMAND...: what a command says, or why it says nothing
  local name=$1
  shift
  timeout 30 "$@" >"$out/$name" 2>&1 </dev/null || echo "[status $?]" >>"$out/$name"
}

keep journal.txt journalctl --no-pager --output=short-iso-precise --since="$since" \
  --unit='qnet-*' --unit=ovs-vswitchd --unit=ovsdb-server
keep units.txt systemctl --no-pager status 'qnet-*' ovs-vswitchd ovsdb-server
keep interfaces.txt ip -details address show
keep routes.txt ip route show table all
keep load.txt sh -c 'uptime; free -m; df -h / /var /run; ps -eo pid,user,%cpu,%mem,etime,comm --sort=-%cpu | head -30'
keep packages.txt dpkg-query --show 'openvswitch*' 'python3-openvswitch' 'linux-image-*' python3 ansible-core
keep versions.txt sh -c 'uname -a; cat /etc/os-release; readlink /opt/qnet/controller/current'
keep certificate.txt openssl x509 -noout -subject -issuer -dates -ext subjectAltName -in /etc/qnet/pki/host.pem
if [[ -r /etc/qnet/controller.toml ]]; then
  keep controller.toml cat /etc/qnet/controller.toml
  for path in v1/status metrics readyz; do
    keep "controller-${path//\//-}.txt" python3 -c \
      "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9680/$path', timeout=10).read().decode())"
  done
fi
if [[ -S /run/qnet-database/qnet.sock ]]; then
  keep cluster.txt ovs-appctl --target=/run/qnet-database/qnet.ctl cluster/status QNet
  keep intent.txt ovsdb-client --timeout=20 dump unix:/run/qnet-database/qnet.sock QNet
fi
if [[ -S /run/openvswitch/db.sock ]]; then
  keep vsctl.txt ovs-vsctl --timeout=10 show
  keep controllers.txt ovs-vsctl --timeout=10 list Controller
  keep flows.txt ovs-ofctl -O OpenFlow15 dump-flows br-int
  keep groups.txt ovs-ofctl -O OpenFlow15 dump-groups br-int
  keep meters.txt ovs-ofctl -O OpenFlow15 dump-meters br-int
  keep datapath.txt ovs-appctl dpctl/show
  keep coverage.txt ovs-appctl coverage/show
fi

# Keys between their BEGIN and END, words after password=, token: and the like, credentials in addresses.
find "$out" -type f -exec sed -E -i \
  -e '/-----BEGIN [A-Z ]*PRIVATE KEY-----/,/-----END [A-Z ]*PRIVATE KEY-----/c\[a private key was here]' \
  -e 's/((password|passwd|passphrase|secret|token|api[-_]?key|authorization)["'\'']?[[:space:]]*[=:][[:space:]]*["'\'']?)[^[:space:]"'\'',}]+/\1[removed]/Ig' \
  -e 's#(://[^/@:[:space:]]*:)[^/@[:space:]]+@#\1[removed]@#g' {} +

tar --create --gzip --file "$archive" --directory "$work" "$(hostname)"
