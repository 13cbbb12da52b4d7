# SPDX-License-Identifier: Apache-2.0
"""`qnet status|trace|flows|drops|verify|explain`: asks the controller of this host.

For people; `--json` for programs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/qnet/controller.toml")
DEFAULT_API = "127.0.0.1:9680"
TIMEOUT_SECONDS = 10
EXIT_OK, EXIT_NO, EXIT_FAILED = 0, 1, 2


class Failed(Exception):
    """The question could not be answered; the text is for the user."""


def parser() -> argparse.ArgumentParser:
    """The command line; the manual page and the shell completion are made from it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--api", metavar="HOST:PORT", help="API of the controller (default: as in the configuration)")
    common.add_argument("--json", action="store_true", help="print the answer as JSON")
    top = argparse.ArgumentParser(
        prog="qnet",
        description="Ask the qnet controller of this host what it knows. Exit status: 0, 1 when a trace ends without "
        "delivery or a switch differs from what is intended, 2 when there is no answer.",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, parents=[common])

    verb("status", "Show the controller, its switches and what is wrong, on one screen")
    trace = verb("trace", "Follow the first packet of a connection: which table, which object, which verdict")
    trace.add_argument("source", metavar="FROM", help="the sending pod, GROUP/POD")
    trace.add_argument("target", metavar="TO", help="an address, GROUP/POD, GROUP/SERVICE or GROUP/SERVICE:NAME")
    trace.add_argument("protocol", nargs="?", default="icmp", help="icmp (default), tcp/PORT, udp/PORT, sctp/PORT")
    flows = verb("flows", "List the flows of a switch, with their objects and counters")
    which = flows.add_mutually_exclusive_group(required=True)
    which.add_argument("--pod", metavar="GROUP/POD", help="only the flows of this pod, on its host")
    which.add_argument("--host", metavar="HOST", help="all flows of this host")
    drops = verb("drops", "Show what was dropped for spoofing and other reasons, by sender and reason")
    drops.add_argument("--events", action="store_true", help="also show what has happened lately")
    verify = verb("verify", "Compare what the switches hold with what this controller, as their master, intends")
    verify.add_argument("--repair", action="store_true", help="put right what differs")
    explain = verb("explain", "Name the object that a flow's cookie leads back to")
    explain.add_argument("cookie", help="as shown by ovs-ofctl, such as 0x7104a1b2c3d4e5f6")
    return top


# -- the API -----------------------------------------------------------------------------------------------------


def api_address(config: Path = CONFIG) -> str:
    """Where the controller of this host serves its API."""
    try:
        table = tomllib.loads(config.read_text())
    except FileNotFoundError:
        return DEFAULT_API
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Failed(f"{config}: cannot be read: {error}; say --api HOST:PORT") from None
    return str(table.get("api", {}).get("listen", DEFAULT_API))


def ask(api: str, path: str, post: bool = False, **query: str) -> dict[str, Any]:
    """A JSON answer of the API; with `post` it may change something.

    Raises:
        Failed: there is no controller, or it cannot answer this; the text says why.
    """
    url = f"http://{api}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
    try:
        with urllib.request.urlopen(url, data=b"" if post else None, timeout=TIMEOUT_SECONDS) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer
    except urllib.error.HTTPError as error:
        body = error.read().decode(errors="replace")
        try:
            raise Failed(json.loads(body)["error"]) from None
        except (ValueError, KeyError):
            raise Failed(f"{url}: status {error.code}: {body.strip()}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Failed(f"no answer from the controller at {api}: {reason}; is qnet-controller running?") from None


# -- for people ---------------------------------------------------------------------------------------------------


def columns(rows: Sequence[Sequence[object]]) -> str:
    """Rows as aligned columns; the last one is not padded."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts)
    return "\n".join(lines)


def show_status(answer: dict[str, Any]) -> tuple[str, int]:
    """The controller on one screen; what is wrong comes last, where the eye is."""
    model = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in answer["model"].items())
    state = "ready" if answer["ready"] else "not ready"
    lines = [f"controller {answer['name']}: {state}, intent generation {answer['generation']}", model, ""]
    rows: list[Sequence[object]] = [("HOST", "STATE", "SWITCH", "ROLE", "FLOWS", "GROUPS", "DEMANDS", "PODS")]
    pods = answer["pods"]
    for switch in answer["switches"]:
        here = sum(pod["host"] == switch["host"] for pod in pods)
        link = "connected" if switch["connected"] else "absent"
        counts = (switch.get(name, "-") for name in ("flows", "groups", "demands"))
        rows.append((switch["host"], switch["state"], link, switch["role"] or "-", *counts, here))
    lines.append(columns(rows))
    wrong = list(troubles(answer))
    lines += ["", *(wrong or ["nothing is wrong"])]
    return "\n".join(lines), EXIT_OK


def troubles(answer: dict[str, Any]) -> Sequence[str]:
    """What an operator should look at."""
    found = []
    if not answer["loaded"]:
        found.append("the intent database has not been read yet")
    found += [f"switch of {s['host']}: absent" for s in answer["switches"] if not s["connected"]]
    found += [
        f"switch of {s['host']}: no role yet"
        for s in answer["switches"]
        if s["connected"] and s["role"] not in ("master", "slave")
    ]
    found += [
        f"switch of {s['host']}: {s['quarantined']} pods in quarantine for asking in vain; see qnet drops"
        for s in answer["switches"]
        if s.get("quarantined")
    ]
    found += [f"waits: {text}" for text in answer["waiting"]]
    found += [f"pod {p['pod']}: attached nowhere" for p in answer["pods"] if not p["host"]]
    found += [f"pod {p['pod']}: no link on {p['host']}" for p in answer["pods"] if p["host"] and not p["live"]]
    return found


def show_trace(answer: dict[str, Any]) -> tuple[str, int]:
    """Every step on a line of its own; the ways to the backends under those that all packets take."""
    port = f"/{answer['port']}" if answer["port"] else ""
    target = f"{answer['owner']} ({answer['to']})" if answer["owner"] else f"{answer['to']}, which nobody has"
    lines = [f"{answer['from']} -> {target}, {answer['protocol']}{port}, network {answer['network']}"]
    lines += _steps(answer["steps"], "  ")
    for way in answer["ways"]:
        lines += [f"  to {way['target']}:", *_steps(way["steps"], "    ")]
    lines.append("delivered" if answer["passes"] else "NOT delivered")
    return "\n".join(lines), EXIT_OK if answer["passes"] else EXIT_NO


def _steps(steps: Sequence[dict[str, Any]], indent: str) -> list[str]:
    rows = [
        (s["host"], s["table"], s["text"], f"({s['because']})", "" if s["passes"] else "<- ends here") for s in steps
    ]
    return [indent + line for line in columns(rows).splitlines()] if rows else []


def show_flows(answer: dict[str, Any]) -> tuple[str, int]:
    """A flow on a line; those that the controller does not intend are marked."""
    rows: list[Sequence[object]] = [("TABLE", "PRIORITY", "PACKETS", "BYTES", "PURPOSE", "OBJECT", "MATCH")]
    foreign = 0
    for flow in answer["flows"]:
        mark = "" if flow.get("intended", True) else "NOT INTENDED: "
        foreign += bool(mark)
        counts = (flow["packets"], flow["bytes"])
        owner = flow["object"] or "-"
        rows.append((flow["table"], flow["priority"], *counts, flow["purpose"], owner, mark + flow["match"]))
    return columns(rows), EXIT_NO if foreign else EXIT_OK


def show_drops(answer: dict[str, Any]) -> tuple[str, int]:
    """A sender and reason on a line, then what has happened, if that was asked for."""
    rows: list[Sequence[object]] = [("HOST", "SENDER", "REASON", "PACKETS")]
    rows += [(row["host"], row["sender"], row["reason"], row["packets"]) for row in answer["drops"]]
    lines = [columns(rows) if answer["drops"] else "nothing was dropped for spoofing"]
    for event in answer.get("events", ()):
        at = datetime.fromtimestamp(event["time"], UTC).isoformat(timespec="seconds")
        lines.append(f"{at} {event['host']} {event['sender']}: {event['text']}")
    return "\n".join(lines), EXIT_OK


def show_verify(answer: dict[str, Any]) -> tuple[str, int]:
    """A difference on a line, with a packet that meets it."""
    checked = f"checked as master: {', '.join(answer['hosts']) or 'no switch'}"
    if not answer["differences"]:
        return f"{checked}; no difference", EXIT_OK
    rows: list[Sequence[object]] = [("HOST", "WHAT", "PROBLEM", "TABLE", "OBJECT", "EXAMPLE PACKET")]
    for row in answer["differences"]:
        place = row["table"] if row["what"] == "flow" else row["number"]
        rows.append((row["host"], row["what"], row["problem"], place, row.get("object"), row.get("packet")))
    end = "; being put right" if answer["repairing"] else "; --repair puts them right"
    return f"{columns(rows)}\n{checked}; {len(rows) - 1} differences{end}", EXIT_NO


def show_explain(answer: dict[str, Any]) -> tuple[str, int]:
    """The object, then what is intended of it."""
    owner = answer["object"] or "an object that is not intended any more"
    lines = [f"{answer['cookie']}: {answer['purpose']} flow of {owner}"]
    rows = [(f"  {name}", json.dumps(value)) for name, value in answer.get("intent", {}).items()]
    return "\n".join(lines) + ("\n" + columns(rows) if rows else ""), EXIT_OK


_SHOW: dict[str, Callable[[dict[str, Any]], tuple[str, int]]] = {
    "status": show_status, "trace": show_trace, "flows": show_flows, "verify": show_verify,
    "drops": show_drops,
    "explain": show_explain,
}  # fmt: skip


def query(arguments: argparse.Namespace) -> dict[str, str]:
    """The question as parameters of the API."""
    match arguments.verb:
        case "trace":
            protocol, _, port = arguments.protocol.partition("/")
            return {"from": arguments.source, "to": arguments.target, "protocol": protocol, "port": port}
        case "flows":
            return {"pod": arguments.pod} if arguments.pod else {"host": arguments.host}
        case "explain":
            return {"cookie": arguments.cookie}
    return {}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    arguments = parser().parse_args(argv)
    try:
        repair = getattr(arguments, "repair", False)
        answer = ask(arguments.api or api_address(), f"/v1/{arguments.verb}", post=repair, **query(arguments))
    except Failed as error:
        print(f"qnet {arguments.verb}: {error}", file=sys.stderr)
        return EXIT_FAILED
    if arguments.verb == "drops" and not arguments.events and not arguments.json:
        answer.pop("events", None)
    text, status = _SHOW[arguments.verb](answer)
    print(json.dumps(answer, indent=2) if arguments.json else text)
    return status


if __name__ == "__main__":
    sys.exit(main())
