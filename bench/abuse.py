#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""P3, P4 and S2: one pod misbehaves through a real Open vSwitch; what arrives, what it costs, what others notice.

Two hosts (userspace datapath), the real database and controller, trafgen in the rogue pod. Spoofed traffic of each
kind: how many packets reach the victim, and how many are counted for the rogue pod and the reason. A scan of 1,000
destinations: packet-ins and refusing flows. Bogus flows of each kind at a rate: connections of another pod of the same
host that succeed, and their p99, beside those without the rogue; then the same beside a generator whose packets come to
no switch, which is what sharing two cores with it costs. Forged VXLAN comes from a machine on the underlay that
is no host: in its own name, in made-up names, and in that of a host (with other networks, or other pods, than are
there). Other controllers are not measured here yet. Packets that do not fit into the socket of the port are never seen
by the switch.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "controller" / "tests"))

from bench import report

from contract.real import run, wait_for
from policy.live import VTEP_BLOCK, Fleet, dotted, mac_text
from policy.tenants import IPV6, POD_BLOCK, SERVICE_BLOCK, TCP, ExportPlan, PodPlan, World
from simulator.packets import packed

TOOLS = {"trafgen": "netsniff-ng", "tcpdump": "tcpdump"}  # and their packages
VIRTUAL, STRANGER_MAC = "0a:00:00:00:00:01", "02:00:00:00:00:77"
STRANGER_NUMBER = 77  # the end of the stranger's address on the underlay
BROADCAST = "ff:ff:ff:ff:ff:ff"
SETTLE_SECONDS = 6.0  # statistics of interfaces are written every five
SHOWN = 3  # frames that came to the victim
QUIET_SECONDS, DRAIN_SECONDS, SCANNED, SCAN_RATE, SCAN_GAP = 5.0, 1.0, 1000, 200, "5ms"


def world() -> World:
    """The victim and a server on h2; the rogue pod and a bystander on h1, who may call the server."""
    made = World({"red": 100}, {"a": 1, "b": 2, "c": 3})
    made.services = {"a/s": "red", "b/u": "red", "c/w": "red"}
    made.service_ips = {"a/s:main": SERVICE_BLOCK + 10}
    for service, host in (("a/s", "h2"), ("a/s", "h2"), ("b/u", "h1"), ("c/w", "h1")):
        made.new_pod(service, host, families=(0, IPV6))
    made.exports["a/s", "b"] = ExportPlan("a/s", "b", direct=True)
    return made


def _bytes(data: bytes) -> str:
    return ", ".join(f"{byte:#04x}" for byte in data)


def _packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


class Frames:
    """Packets of the rogue pod, as trafgen is told to make them; `drnd(n)` are n bytes that change."""

    def __init__(self, rogue: PodPlan, victim: PodPlan) -> None:
        self.mac, self.own, self.six = _mac(mac_text(rogue.key)), packed(rogue.address), packed(rogue.addresses[1])
        self.victim, self.victim_mac = packed(victim.address), _mac(mac_text(victim.key))
        self.victim_six = packed(victim.addresses[1])

    def ip(self, source: str, target: str, mac: bytes | None = None, fragment: int = 0, protocol: int = 17) -> str:
        """IPv4 with 8 bytes of UDP, or 20 of TCP (a SYN)."""
        size = 28 if protocol == 17 else 40
        head = _bytes(_mac(VIRTUAL) + (mac or self.mac) + b"\x08\x00\x45\0\0" + bytes((size, 0, 1)))
        rest = (
            "drnd(4), 0, 8, 0, 0"
            if protocol == 17
            else f"drnd(4), {_bytes(bytes(8) + b'P' + bytes((2, 4, 0, 0, 0, 0, 0)))}"
        )
        middle = f"{_bytes(fragment.to_bytes(2, 'big'))}, 64, {protocol}, csumip(14, 33)"
        return f"{{ {head}, {middle}, {source}, {target}, {rest} }}"

    def arp(self, sender: bytes, kind: int = 1) -> str:
        """ARP in somebody's name, about an address that changes."""
        head = _bytes(
            _mac(BROADCAST) + self.mac + bytes.fromhex("08060001080006040000")[:-1] + bytes((kind,)) + self.mac
        )
        asked = f"{_bytes(packed(POD_BLOCK)[:3])}, drnd(1)"
        return f"{{ {head}, {_bytes(sender)}, {_bytes(bytes(6))}, {asked}, {_bytes(bytes(18))} }}"

    def ipv6(self, source: bytes, target: str, protocol: int, payload: str) -> str:
        """IPv6 with 24 bytes of payload."""
        head = _bytes(_mac(VIRTUAL) + self.mac + b"\x86\xdd\x60" + bytes(3) + b"\0\x18" + bytes((protocol, 255)))
        return f"{{ {head}, {_bytes(source)}, {target}, {payload} }}"

    def nd(self) -> str:
        """A neighbour advertisement in the victim's name."""
        payload = f"136, 0, drnd(2), 0xe0, 0, 0, 0, {_bytes(self.victim_six)}"
        return self.ipv6(self.six, _bytes(self.victim_six), 58, payload)

    def spoofed(self) -> dict[str, str]:
        """Reason → packets that are dropped for it."""
        own, victim = _bytes(self.own), _bytes(self.victim)
        return {
            "spoofed_mac": self.ip(own, victim, self.victim_mac),
            "spoofed_ip": self.ip("drnd(4)", victim),
            "spoofed_arp": self.arp(self.victim),
            "spoofed_nd": self.nd(),
        }

    def vxlan(self, ends: tuple[bytes, str, bytes], vni: str, source: str) -> str:
        """A datagram for the victim, in VXLAN; `ends`: MAC address, sending and receiving VTEP of the outer packet."""
        mac, sender, receiver = ends
        ethernet = _bytes(mac + _mac(STRANGER_MAC) + b"\x08\x00")
        outer = (
            f"{_bytes(bytes((0x45, 0, 0, 78)))}, drnd(2), 0, 0, 64, 17, csumip(14, 33), {sender}, {_bytes(receiver)}"
        )
        udp = f"drnd(2), {_bytes((4789).to_bytes(2, 'big'))}, 0, 58, 0, 0, 0x08, 0, 0, 0, {vni}, 0"
        inner = _bytes(self.victim_mac + _mac(VIRTUAL) + bytes.fromhex("08004500001c000100004011"))
        datagram = f"csumip(64, 83), {source}, {_bytes(self.victim)}, drnd(4), 0, 8, 0, 0"
        return f"{{ {ethernet}, {outer}, {udp}, {inner}, {datagram} }}"

    def bogus(self) -> dict[str, str]:
        """Kinds of first packets that lead nowhere."""
        anybody = f"{_bytes(packed(POD_BLOCK)[:2])}, drnd(2)"
        six = f"{_bytes(self.victim_six[:14])}, drnd(2)"
        return {
            "UDP": self.ip(_bytes(self.own), anybody),
            "SYN": self.ip(_bytes(self.own), anybody, protocol=6),
            "fragments": self.ip(_bytes(self.own), anybody, fragment=0x2001),
            "IPv6": self.ipv6(self.six, six, 17, f"drnd(4), 0, 24, 0, 0, {_bytes(bytes(16))}"),
            "ARP": self.arp(self.own),
            "ND": self.nd(),
        }


class Bench:
    """The fleet with its rogue."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, pods = fleet, fleet.world.pods
        self.rogue, self.victim, self.server = pods["c/w-1"], pods["a/s-1"], pods["a/s-2"]
        self.frames = Frames(self.rogue, self.victim)

    def generate(self, frame: str, count: int, rate: int, gap: str = "", where: str = "") -> subprocess.Popen[bytes]:
        """Send `count` packets out of the rogue pod, or out of another namespace."""
        path = self.fleet.directory / "trafgen.cfg"
        path.write_text(frame + "\n")
        command = ["trafgen", "--dev", "eth0", "--conf", path, "--num", str(count), "--cpus", "1"]
        command += ["--gap", gap] if gap else ["--rate", f"{rate}pps"]
        return subprocess.Popen(
            ["ip", "netns", "exec", where or self.fleet.pod_namespace(self.rogue), *map(str, command)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finished(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until all has been sent."""
        _, error = process.communicate(timeout=120)
        if process.returncode:
            raise RuntimeError(f"trafgen: {error.decode()[-300:]}")
        time.sleep(DRAIN_SECONDS)

    def settled(self, reason: str) -> int:
        """The packets counted for a reason, when they grow no more: a switch adds them up every few seconds."""
        last = -1
        while last != (last := self.counted().get(reason, 0)):
            time.sleep(SETTLE_SECONDS)
        return last

    def received(self, host: str = "h1") -> int:
        """Packets that the datapath has dropped; what has not fitted into the socket of the port it has never seen."""
        shown = self.fleet.hosts[host].appctl("coverage/read-counter", "drop_action_of_pipeline")
        return int(shown)

    @contextmanager
    def arrivals(self) -> Iterator[list[str]]:
        """Every frame that reaches the victim meanwhile, in words; the list is filled at the end."""
        found: list[str] = []
        inside = ["ip", "netns", "exec", self.fleet.pod_namespace(self.victim)]
        capture = subprocess.Popen(
            [*inside, "tcpdump", "-n", "-e", "-t", "-l", "-Q", "in", "-i", "eth0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert capture.stderr is not None
        while "listening on" not in (line := capture.stderr.readline()):
            if not line:
                raise RuntimeError("tcpdump does not listen at the victim")
        try:
            yield found
        finally:
            capture.terminate()
            found += filter(None, capture.communicate(timeout=10)[0].splitlines())

    def counted(self) -> Counter[str]:
        """Reason → packets counted for the rogue pod, or for VTEPs."""
        rows = json.loads(self.fleet.api("/v1/drops"))["drops"]
        found = Counter[str]()
        for row in rows:
            if row["sender"] == f"pod {self.rogue.key}" or row["sender"].startswith("VTEP"):
                found[row["reason"]] += row["packets"]
        return found

    def senders(self) -> list[str]:
        """The VTEPs that something is counted for."""
        rows = json.loads(self.fleet.api("/v1/drops"))["drops"]
        return sorted({row["sender"] for row in rows if row["sender"].startswith("VTEP")})

    def stranger(self) -> str:
        """A namespace on the underlay that is no host, but a router, as who sends in a host's name comes through one.

        Open vSwitch learns from tunneled packets which MAC address a VTEP has, so it sends answers by the same way.
        """
        name = f"{self.fleet.prefix}stranger"
        self.fleet.add_namespace(name)
        self.fleet.link(f"{STRANGER_NUMBER}u", name, "eth0")
        run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0")  # fmt: skip
        self.fleet.ip(name, "link", "set", "eth0", "address", STRANGER_MAC)
        self.fleet.ip(name, "addr", "add", f"{VTEP_BLOCK}.{STRANGER_NUMBER}/24", "dev", "eth0")
        return name

    def nowhere(self) -> str:
        """A namespace whose interface leads to no switch."""
        name = f"{self.fleet.prefix}nowhere"
        self.fleet.add_namespace(name)
        self.fleet.ip(name, "link", "add", "eth0", "type", "veth", "peer", "name", "sink")
        for device in ("eth0", "sink"):
            run("ip", "netns", "exec", name, "sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")
            self.fleet.ip(name, "link", "set", device, "up")
        return name

    def forgeries(self) -> dict[str, str]:
        """What the stranger sends, by whose name it uses."""
        hosts = self.fleet.hosts
        (mac,) = json.loads(run("ip", "-n", hosts["h2"].namespace, "-j", "link", "show", "br-phy"))
        receiver, member = (_packed(f"{VTEP_BLOCK}.{hosts[name].number}") for name in ("h2", "h1"))
        own, bystander = _packed(f"{VTEP_BLOCK}.{STRANGER_NUMBER}"), self.fleet.world.pods["b/u-1"].address
        vni = _bytes(self.fleet.world.networks["red"].to_bytes(3, "big"))
        from_pod, nobody = _bytes(packed(bystander)), f"{_bytes(packed(POD_BLOCK)[:3])}, dinc(100, 250)"

        def frame(sender: str, vni: str, source: str) -> str:
            return self.frames.vxlan((_mac(mac["address"]), sender, receiver), vni, source)

        return {
            "its own VTEP": frame(_bytes(own), vni, from_pod),
            "any VTEP": frame(f"{_bytes(own[:1])}, 100, drnd(2)", vni, from_pod),
            "a host's VTEP, any network": frame(_bytes(member), "0x77, drnd(2)", from_pod),
            "a host's VTEP, pods that are not there": frame(_bytes(member), vni, nobody),
        }

    def connects(
        self, seconds: float | None = None, during: subprocess.Popen[bytes] | None = None
    ) -> tuple[int, list[float]]:
        """Connections of the bystander, one after the other: how many failed, and how long the others took (ms)."""
        agent, failed, took = self.fleet.agents["b/u-1"], 0, list[float]()
        end = time.monotonic() + (seconds or 60.0)
        while time.monotonic() < end and (during is None or during.poll() is None):
            began = time.perf_counter()
            (answer,) = agent.say(json.dumps([[dotted(self.server.address), TCP, 80]]))
            if answer is None:
                failed += 1
            else:
                took.append((time.perf_counter() - began) * 1000)
        return failed, sorted(took)


def spoofing(bench: Bench, count: int, rate: int) -> None:
    """S2: each class that the rogue pod can forge."""
    for reason, frame in bench.frames.spoofed().items():
        fate(bench, reason, reason, frame, (count, rate), ("h1", ""))


def forging(bench: Bench, count: int, rate: int) -> None:
    """S2: VXLAN from somebody who is no host."""
    where = bench.stranger()
    for name, frame in bench.forgeries().items():
        fate(bench, f"VXLAN, {name}", "forged_tunnel", frame, (count, rate), ("h2", where))
    print(f"  counted for: {', '.join(bench.senders())}")


def fate(bench: Bench, name: str, reason: str, frame: str, load: tuple[int, int], way: tuple[str, str]) -> None:
    """Send frames, with connections of a bystander beside them, and say what has become of both.

    `load`: how many, and how many a second; `way`: the host that has to drop them, and the namespace that they are
    sent from, the rogue pod's if empty.
    """
    (count, rate), (host, where) = load, way
    before, received, asked = bench.settled(reason), bench.received(host), bench.fleet.asked()
    with bench.arrivals() as arrived:
        process = bench.generate(frame, count, rate, where=where)
        failed, took = bench.connects(during=process)
        bench.finished(process)
    counted, taken = bench.settled(reason) - before, bench.received(host) - received
    share = len(took) / max(1, len(took) + failed)
    print(
        f"  {name}: {count} sent, {taken} seen and dropped by the datapath, {counted} counted for sender and reason, "
        f"{len(arrived)} frames came to the victim; {bench.fleet.asked() - asked} packet-ins; "
        f"bystander {len(took)} of {len(took) + failed} connections ({share:.3f})",
        flush=True,
    )
    for line in arrived[:SHOWN]:
        print(f"    {line}")


def scan(bench: Bench) -> None:
    """P4: destinations that nobody has or that are refused, ports at random."""
    host = bench.fleet.hosts["h1"]
    asked = bench.fleet.asked()
    target = f"{_bytes(packed(POD_BLOCK)[:3])}, drnd(1)"
    bench.finished(
        bench.generate(bench.frames.ip(_bytes(bench.frames.own), target, protocol=6), SCANNED, SCAN_RATE, SCAN_GAP)
    )
    shown = host.ofctl("dump-flows").splitlines()
    flows = [line for line in shown if "table=3" in line and "hard_timeout=30" in line]
    cost = f"{bench.fleet.asked() - asked} packet-ins at both hosts, {len(flows)} refusing flows; goal 3 and 3"
    print(f"P4: {SCANNED} probes at {SCAN_RATE}/s: {cost}", flush=True)


def starvation(bench: Bench, rates: list[int], seconds: float) -> None:
    """P3: bogus flows of every kind beside the bystander, and as many packets that no switch ever sees."""
    nowhere = bench.nowhere()
    for rate in rates:
        for kind, frame in bench.frames.bogus().items():
            beside(bench, f"{kind} at {rate}/s", frame, (int(rate * seconds), rate), "")
        frame = bench.frames.bogus()["UDP"]
        beside(bench, f"UDP at {rate}/s to nowhere", frame, (int(rate * seconds), rate), nowhere)


def beside(bench: Bench, what: str, frame: str, load: tuple[int, int], where: str) -> None:
    """Connections of the bystander without and with frames sent: `load` is how many, and how many a second."""
    failed, quiet = bench.connects(QUIET_SECONDS)
    process = bench.generate(frame, *load, where=where)
    lost, noisy = bench.connects(during=process)
    bench.finished(process)
    p99 = [one[int(len(one) * 0.99)] if one else 0.0 for one in (quiet, noisy)]
    ratio = p99[1] / p99[0] if p99[0] else 0.0
    with_it = f"{len(noisy)} of {len(noisy) + lost} connections, p99 {p99[1]:.1f} ms"
    alone = f"{len(quiet)} of {len(quiet) + failed}, p99 {p99[0]:.1f} ms"
    goal = "what two cores make of a generator alone" if where else "goal ≤ 1.2"
    print(f"  {what}: {with_it}; quiet {alone}; ratio {ratio:.2f}, {goal}", flush=True)


def main() -> int:
    """Start the fleet, play everything, print what was found."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--packets", type=int, default=100_000, help="spoofed packets of each kind (default 100,000)")
    parser.add_argument("--rates", type=int, nargs="+", default=[10_000, 25_000], help="bogus flows per second")
    parser.add_argument("--only", choices=["P3", "P4", "S2"], help="a part of it")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each kind of them lasts")
    options = parser.parse_args()
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        install = ["apt-get", "install", "--quiet", "--quiet", "--yes", "--no-install-recommends", *missing]
        subprocess.run(install, check=True, capture_output=True)
    with tempfile.TemporaryDirectory(prefix="qnet-abuse-") as name, Fleet(Path(name), world(), ["h1", "h2"]) as fleet:
        bench = Bench(fleet)
        wait_for(lambda: bench.connects(0.1)[1], seconds=60)
        if options.only in (None, "P4"):
            scan(bench)
        if options.only in (None, "S2"):
            print(f"S2: {options.packets} packets of each kind; goal 0 delivered, bystander ≥ 0.99")
            spoofing(bench, options.packets, options.rates[0])
            forging(bench, options.packets, options.rates[0])
        if options.only in (None, "P3"):
            print("P3: another pod's connections beside a rogue; goal all of them")
            starvation(bench, options.rates, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
