#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""P5: what the overlay costs, with offloads on and off, and what the datapaths in user space make of it. Needs root.

Hosts are network namespaces joined by veth. Pods stream TCP to each other through a VXLAN tunnel (MTU 1450 on an
underlay of 1500) and, as the yardstick, through the same bridges and a veth without a tunnel. There are wires of two
kinds: of 10 Gbit/s, as a network card has it (the headers of the tunnel alone take 3.4 % of that), and without a limit,
where the processors are the limit. CPU seconds are those of the two processes and of ovs-vswitchd; kernel threads are
not in it.

The same once more in a virtual machine of the lab, with Debian's own kernel on an emulated processor: only the ratios
between its lines say something.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.report import Goal, Series, arguments, interleave, table
from bench.stream import Cost, cost

ROOT = Path(__file__).resolve().parents[1]
MACHINE_TOOLS = "apt-get -q update >/dev/null && apt-get -qy install --no-install-recommends ethtool >/dev/null"
MACHINE_WIRE = 2.0  # Gbit/s; a stream without a tunnel does not get beyond three there, one without offloads to a half
PREFIX = f"qnb{os.getpid()}"
TUNNEL, PLAIN = "10.99.1", "10.99.2"  # the pods' addresses through the tunnel, and without one
ALL_OFF = ("tso", "off", "gso", "off", "gro", "off", "tx", "off", "rx", "off")
ALL_ON = ("tx", "on", "rx", "on", "tso", "on", "gso", "on", "gro", "off")
SEGMENTATION = ("tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation")
NATIVE, NATIVE_TSO, XDP = "OVS-native VXLAN", "OVS-native VXLAN, userspace-tso", "OVS-native VXLAN over AF_XDP"
DEVICE, DEVICE_TSO = "kernel VXLAN device as a port", "kernel VXLAN device as a port, userspace-tso"


def run(*argv: str, check: bool = True) -> str:
    """Run a command and return its output."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


class Site:
    """Two hosts, a pod on each; all names begin with a prefix of this process."""

    def __init__(self) -> None:
        self.devices: list[tuple[str, str]] = []  # (namespace, device): those whose offloads are switched

    def name(self, what: str) -> str:
        """The namespace called `what` here."""
        return f"{PREFIX}-{what}"

    def inside(self, what: str, *argv: str, check: bool = True) -> str:
        """Run a command in a namespace."""
        return run("ip", "netns", "exec", self.name(what), *argv, check=check)

    @contextmanager
    def up(self) -> Iterator[Site]:
        """Namespaces, the underlay and the pods, as long as the block runs."""
        try:
            for what in ("host1", "host2", "pod1", "pod2"):
                run("ip", "netns", "add", self.name(what))
                self.inside(what, "ip", "link", "set", "lo", "up")
            self.wire("host1", "underlay", "host2", "underlay")
            self.wire("host1", "plain", "host2", "plain")
            for number in ("1", "2"):
                host, pod = f"host{number}", f"pod{number}"
                self.inside(host, "ip", "address", "add", f"192.0.2.{number}/24", "dev", "underlay")
                for network, device, mtu in ((TUNNEL, "eth0", "1450"), (PLAIN, "eth1", "1500")):
                    self.wire(host, f"to-{device}", pod, device)
                    self.inside(pod, "ip", "link", "set", device, "mtu", mtu)
                    self.inside(pod, "ip", "address", "add", f"{network}.{number}/24", "dev", device)
            yield self
        finally:
            for what in ("host1", "host2", "pod1", "pod2"):
                run("ip", "netns", "delete", self.name(what), check=False)

    def wire(self, here: str, device: str, there: str, other: str) -> None:
        """A veth between two namespaces."""
        peer = ("peer", "name", other, "netns", self.name(there))
        run("ip", "link", "add", device, "netns", self.name(here), "type", "veth", *peer)
        for what, end in ((here, device), (there, other)):
            self.inside(what, "ip", "link", "set", end, "up")
            self.devices.append((what, end))

    def features(self, *words: str, only: Sequence[str] = ()) -> None:
        """Switch offloads of all devices, or of those of the given names."""
        for what, device in self.devices:
            if not only or device in only:
                self.inside(what, "ethtool", "-K", device, *words, check=False)

    def limit(self, gigabits: float) -> None:
        """Have the wires between the hosts carry no more than a network card of that speed would."""
        for host in ("host1", "host2"):
            for device in ("underlay", "plain"):
                words = ("tbf", "rate", f"{gigabits}gbit", "burst", "512kb", "latency", "5ms")
                self.inside(host, "tc", "qdisc", "replace", "dev", device, "root", *words)

    def join_in_kernel(self) -> None:
        """Bridges of the kernel: one with its VXLAN device, one with a plain wire."""
        for number, other in (("1", "2"), ("2", "1")):
            host = f"host{number}"
            tunnel = ("id", "100", "local", f"192.0.2.{number}", "remote", f"192.0.2.{other}", "dstport", "4789")
            self.inside(host, "ip", "link", "add", "vxlan", "type", "vxlan", *tunnel, "dev", "underlay")
            self.devices.append((host, "vxlan"))
            for bridge, ports in (("overlay", ("vxlan", "to-eth0")), ("direct", ("plain", "to-eth1"))):
                self.inside(host, "ip", "link", "add", bridge, "type", "bridge")
                for port in ports:
                    self.inside(host, "ip", "link", "set", port, "master", bridge, "up")
                self.inside(host, "ip", "link", "set", bridge, "up")
                self.devices.append((host, bridge))


class Switch:
    """A private Open vSwitch with the datapath in user space, on one host of the site."""

    def __init__(self, site: Site, number: str, directory: Path, *, tso: bool) -> None:
        self.site, self.number, self.directory = site, number, directory
        self.host = f"host{number}"
        directory.mkdir()
        self.environment = {**os.environ, "OVS_RUNDIR": str(directory), "OVS_LOGDIR": str(directory)}
        database = directory / "conf.db"
        self.command("ovsdb-tool", "create", str(database), "/usr/share/openvswitch/vswitch.ovsschema")
        socket = f"--remote=punix:{directory}/db.sock"
        self.command("ovsdb-server", str(database), socket, "--detach", "--no-chdir", "--pidfile", "--log-file")
        self.vsctl("--no-wait", "init")
        if tso:
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
        words = ("--detach", "--no-chdir", "--pidfile", "--log-file", "--disable-system")
        self.command("ovs-vswitchd", f"unix:{directory}/db.sock", *words)

    def command(self, *argv: str, check: bool = True) -> str:
        """Run a command of Open vSwitch in the host's namespace."""
        words = ["ip", "netns", "exec", self.site.name(self.host), *argv]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def vsctl(self, *words: str) -> str:
        """Run ovs-vsctl."""
        return self.command("ovs-vsctl", f"--db=unix:{self.directory}/db.sock", "--timeout=20", *words)

    def end(self) -> None:
        """Stop the daemons."""
        for daemon in ("ovs-vswitchd", "ovsdb-server"):
            self.command("ovs-appctl", "-t", daemon, "exit", check=False)

    def used(self) -> float:
        """CPU seconds of ovs-vswitchd so far."""
        pid = (self.directory / "ovs-vswitchd.pid").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def join(self, kind: str) -> None:
        """The pod's port and a tunnel of a kind to the other host."""
        other = "2" if self.number == "1" else "1"
        self.vsctl("add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev")
        self.vsctl("add-port", "br-int", "to-eth0")
        if kind in (DEVICE, DEVICE_TSO):
            tunnel = ("id", "100", "local", f"192.0.2.{self.number}", "remote", f"192.0.2.{other}", "dstport", "4789")
            self.site.inside(self.host, "ip", "link", "add", "vxlan", "type", "vxlan", *tunnel, "dev", "underlay")
            self.site.inside(self.host, "ip", "link", "set", "vxlan", "up")
            self.vsctl("add-port", "br-int", "vxlan")
            return
        self.vsctl("add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev")
        xdp = ("--", "set", "interface", "underlay", "type=afxdp") if kind == XDP else ()
        self.vsctl("add-port", "br-phy", "underlay", *xdp)
        self.site.inside(self.host, "ip", "address", "flush", "dev", "underlay")
        self.site.inside(self.host, "ip", "address", "add", f"192.0.2.{self.number}/24", "dev", "br-phy")
        self.site.inside(self.host, "ip", "link", "set", "br-phy", "up")
        self.site.inside(self.host, "ethtool", "-K", "br-phy", "tx", "off", check=False)
        words = ("type=vxlan", f"options:remote_ip=192.0.2.{other}", "options:key=100")
        self.vsctl("add-port", "br-int", "tunnel", "--", "set", "interface", "tunnel", *words)


def in_kernel(seconds: float, costs: dict[str, list[Cost]], rounds: int, wire: float = 0) -> dict[str, Series]:
    """The kernel's VXLAN with all offloads on, tunnel segmentation off, and all off, beside a wire without a tunnel.

    `wire`: what the wires carry in Gbit/s, 0 for as much as two processors can move.
    """
    with Site().up() as site:
        site.join_in_kernel()
        if wire:
            site.limit(wire)

        def stream(name: str, network: str, *switches: Callable[[], None]) -> Callable[[], float]:
            def once() -> float:
                for switch in switches:
                    switch()
                found = cost(site.name("pod2"), site.name("pod1"), f"{network}.2", seconds)
                costs.setdefault(name, []).append(found)
                return found.gigabits

            return once

        def switch(words: Sequence[str], only: Sequence[str] = ()) -> Callable[[], None]:
            return lambda: site.features(*words, only=only)

        segmentation_off = [word for feature in SEGMENTATION for word in (feature, "off")]
        segmentation_on = [word for feature in SEGMENTATION for word in (feature, "on")]
        everything = (switch(ALL_ON), switch(segmentation_on, ("underlay",)))
        contenders = {
            "direct, all on": stream("direct, all on", PLAIN, *everything),
            "overlay, all on": stream("overlay, all on", TUNNEL, *everything),
            "overlay, tunnel segmentation off": stream(
                "overlay, tunnel segmentation off", TUNNEL, *everything, switch(segmentation_off, ("underlay",))
            ),
            "overlay, all off": stream("overlay, all off", TUNNEL, switch(ALL_OFF)),
        }
        return interleave(contenders, rounds)


def in_user_space(kind: str, seconds: float) -> Cost:
    """One stream between pods whose hosts have the datapath in user space; 0 when nothing gets through."""
    with Site().up() as site, tempfile.TemporaryDirectory(prefix=PREFIX) as place, ExitStack() as stack:
        tso = kind in (NATIVE_TSO, DEVICE_TSO)
        switches = [Switch(site, number, Path(place) / number, tso=tso) for number in ("1", "2")]
        for switch in switches:
            stack.callback(switch.end)
            switch.join(kind)
        if not tso:
            for pod in ("pod1", "pod2"):
                site.inside(pod, "ethtool", "-K", "eth0", "tx", "off")
        if not site.inside("pod1", "ping", "-c", "3", "-i", "0.3", "-W", "1", f"{TUNNEL}.2", check=False).count("ttl="):
            return Cost(0.0, 0.0)
        try:
            others = lambda: sum(switch.used() for switch in switches)  # noqa: E731
            return cost(site.name("pod2"), site.name("pod1"), f"{TUNNEL}.2", seconds, others)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"  {kind}: no stream: {error}", file=sys.stderr)
            return Cost(0.0, 0.0)


def in_machine(seconds: float, rounds: int) -> None:
    """The part about the kernel in a virtual machine of a lab that is there for that alone; prints what it prints."""
    lab = str(ROOT / "lab" / "lab")
    sizes = {"QNET_LAB_CONTROLLERS": "1", "QNET_LAB_SWITCHES": "0", "QNET_LAB_VIRTUAL": "1"}
    environment = {**os.environ, "QNET_LAB": f"{os.environ.get('QNET_LAB', 'qnet')}-offload", **sizes}
    files = [f"bench/{name}.py" for name in ("offload", "report", "stream")]
    packed = subprocess.run(["tar", "-C", str(ROOT), "-c", *files], stdout=subprocess.PIPE, check=True)
    words = ("--only", "kernel", "--wire", str(MACHINE_WIRE), "--seconds", str(seconds), "--rounds", str(rounds))
    steps = (
        ([lab, "up"], b""),
        ([lab, "exec", "v1", "sh", "-c", MACHINE_TOOLS], b""),
        ([lab, "exec", "v1", "tar", "-C", "/root", "-x"], packed.stdout),
        ([lab, "exec", "v1", "env", "PYTHONPATH=/root", "python3", "/root/bench/offload.py", *words], b""),
    )
    print("P5 in a virtual machine:", flush=True)
    try:
        for argv, given in steps:
            subprocess.run(argv, env=environment, input=given, check=True)
    finally:
        subprocess.run([lab, "down"], env=environment, check=True, stdin=subprocess.DEVNULL)


def cpu_table(title: str, costs: dict[str, list[Cost]]) -> str:
    """The CPU seconds for a gigabyte, of the rounds in which anything arrived."""
    series = {
        name: Series(name, tuple(one.cpu_per_gigabyte for one in found) or (0.0,)) for name, found in costs.items()
    }
    return table(title, "CPU seconds per GB", series)


def main() -> None:
    """Entry point."""
    parser = arguments(str(__doc__).partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one stream (default 2)")
    parser.add_argument("--only", choices=["kernel", "userspace", "machine"], help="only one of the three parts")
    parser.add_argument("--wire", type=float, default=10.0, help="speed of the wires in Gbit/s (default 10)")
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("bench/offload.py: needs root for network namespaces")
    if options.only in (None, "kernel"):
        goals = (
            Goal("overlay, all on", "direct, all on", 0.95),
            Goal("overlay, all on", "overlay, all off", 2.3),
            Goal("overlay, all on", "overlay, tunnel segmentation off", 1.0),
        )
        for wire in sorted({options.wire, 0}, reverse=True):
            costs: dict[str, list[Cost]] = {}
            title = f"P5 overlay in the kernel, {f'wires of {wire:g} Gbit/s' if wire else 'wires without a limit'}"
            print(table(title, "Gbit/s", in_kernel(options.seconds, costs, options.rounds, wire), goals))
            print(cpu_table(title, costs))
    if options.only in (None, "userspace"):
        paid: dict[str, list[Cost]] = {}

        def contender(kind: str) -> Callable[[], float]:
            def once() -> float:
                paid.setdefault(kind, []).append(in_user_space(kind, options.seconds))
                return paid[kind][-1].gigabits

            return once

        kinds = (NATIVE, NATIVE_TSO, XDP, DEVICE, DEVICE_TSO)
        found = interleave({kind: contender(kind) for kind in kinds}, options.rounds)
        print(
            table("P5 datapath in user space", "Gbit/s, 0: nothing got through", found, (Goal(DEVICE_TSO, NATIVE, 5),))
        )
        print(cpu_table("P5 datapath in user space", paid))

    if options.only in (None, "machine"):
        in_machine(options.seconds, options.rounds)


if __name__ == "__main__":
    main()
