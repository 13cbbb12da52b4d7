# SPDX-License-Identifier: Apache-2.0
"""HTTP on the loopback: /healthz, /readyz, /metrics, and for people and tools /v1/….

A question with a name that means nothing is answered 404 with the reason and, where there is one, the nearest name; one
that is none, 400.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ..config import Endpoint
from ..controller import explain, names, trace, verify
from ..controller.controller import Controller
from ..controller.switch import Switch
from ..controller.trace import Unknown
from ..model.model import Model
from ..openflow import reading
from ..openflow.events import Refused, SessionClosed
from ..openflow.reading import RawDump
from ..ovsdb.rows import MalformedRow
from . import drops, receipt, what_if
from .apart import Apart, Failed
from .others import Others, controllers_only

CONTROLLER = web.AppKey("controller", Controller)
OTHERS = web.AppKey("others", Others)
APART = web.AppKey("apart", Apart)

_LARGEST_BODY = 8 << 20
"""Bytes of a question: a what-if of some ten thousand changes."""
_SWITCHES_AT_ONCE = 16


class NoQuestion(ValueError):
    """What was sent has not the form of a question; the text says why."""


def _json(value: Any, status: int = 200) -> web.Response:
    return _answer(_text(value), status)


def _text(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _answer(text: bytes, status: int = 200) -> web.Response:
    return web.Response(body=text, content_type="application/json", status=status)


@web.middleware
async def _say_what_is_wrong(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except Unknown as error:
        return _json({"error": str(error)}, 404)
    except (MalformedRow, NoQuestion) as error:
        return _json({"error": str(error)}, 400)
    except (Refused, SessionClosed) as error:
        return _json({"error": f"the switch did not answer: {error}"}, 502)
    except Failed as error:
        return _json({"error": str(error)}, 503)
    return response


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    controller = request.app[CONTROLLER]
    if controller.ready:
        return web.Response(text="ready\n")
    waiting = "for the switches to say where pods are" if controller.loaded else "for the intent database"
    return web.Response(status=503, text=f"waiting {waiting}\n")


async def _metrics(request: web.Request) -> web.Response:
    body = generate_latest(request.app[CONTROLLER].metrics.registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _status(request: web.Request) -> web.Response:
    return _answer(await request.app[APART].run(_status_text, request.app[CONTROLLER]))


def _status_text(controller: Controller) -> bytes:
    return _text(controller.status())


async def _trace(request: web.Request) -> web.Response:
    """/v1/trace?from=GROUP/POD&to=ADDRESS|GROUP/POD|GROUP/SERVICE&protocol=tcp&port=80."""
    asked = request.query
    model = request.app[CONTROLLER].model
    found = trace.asked(
        model, asked.get("from", ""), asked.get("to", ""), asked.get("protocol", "tcp"), asked.get("port", "")
    )
    return _json(found)


async def _explain(request: web.Request) -> web.Response:
    """/v1/explain?cookie=0x…."""
    return _json(explain.cookie(request.app[CONTROLLER].model, request.query.get("cookie", "")))


async def _flows(request: web.Request) -> web.Response:
    """/v1/flows?host=NAME or ?pod=GROUP/POD: the flows of a switch, or those of a pod on its host."""
    controller, model = request.app[CONTROLLER], request.app[CONTROLLER].model
    owner, name = None, request.query.get("host", "")
    if "pod" in request.query:
        pod = trace.pod_named(model, request.query["pod"])
        location = model.location(pod)
        host = model.host_by_datapath.get(location.datapath_id) if location else None
        if host is None:
            raise Unknown(f"pod: no switch has a port of {pod.key}")
        owner, name = f"pod {pod.key}", host.name
    if name not in model.hosts:
        raise Unknown(f"host: {name!r} is not a host{names.nearest(name, model.hosts)}")
    switch = controller.switches.get(model.hosts[name].datapath_id)
    if switch is None:
        raise Unknown(f"host: the switch of {name} is not connected to this controller")
    found = await switch.session.raw_traffic()
    return _answer(await request.app[APART].run(_flows_text, model, switch, found, owner))


def _flows_text(model: Model, switch: Switch, found: list[bytes], owner: str | None) -> bytes:
    program = switch.ready()
    read = (flow for part in found for flow in reading.counted_flows(part))
    rows = explain.flows(model, read, program.flows if program else None, owner)
    return _text({"host": switch.host, "role": switch.role_name, "flows": rows})


async def _verify(request: web.Request) -> web.Response:
    """/v1/verify: what the switches hold beside what this controller, as their master, intends.

    A POST also puts right what differs.
    """
    controller, apart = request.app[CONTROLLER], request.app[APART]
    repair = request.method == "POST"
    checked = [switch for switch in controller.switches.values() if switch.ready() is not None]
    rows: list[dict[str, Any]] = []
    for first in range(0, len(checked), _SWITCHES_AT_ONCE):
        rows += await _differences(apart, controller.model, checked[first : first + _SWITCHES_AT_ONCE])
    if repair:
        for name in {row["host"] for row in rows}:
            controller.compare(controller.model.hosts[name].datapath_id)
    hosts = sorted(switch.host for switch in checked)
    rows.sort(key=lambda row: str(row["host"]))
    return _json({"hosts": hosts, "differences": rows, "repairing": repair and bool(rows)})


async def _differences(apart: Apart, model: Model, switches: list[Switch]) -> list[dict[str, Any]]:
    """What differs in two looks one after the other: a flow that comes or goes meanwhile is none."""
    seen = await _look(apart, model, switches)
    if seen:
        suspects = [switch for switch in switches if any(row["host"] == switch.host for row in seen)]
        again = await _look(apart, model, suspects)
        seen = [row for row in again if row in seen]
    return seen


async def _look(apart: Apart, model: Model, switches: list[Switch]) -> list[dict[str, Any]]:
    programs = [(switch, switch.ready()) for switch in switches]
    dumps = await asyncio.gather(
        *(s.session.raw_dump(verify.describable(program.groups) if program else ()) for s, program in programs)
    )
    return await apart.run(_compared, model, list(zip(switches, dumps, strict=True)))


def _compared(model: Model, dumps: list[tuple[Switch, RawDump]]) -> list[dict[str, Any]]:
    programs = ((switch.host, dump, switch.ready()) for switch, dump in dumps)
    return [
        row
        for host, dump, program in programs
        if program is not None
        for row in verify.differences(model, host, dump.read(), program)
    ]


async def _receipt(request: web.Request) -> web.Response:
    """/v1/receipt?generation=N&wait=SECONDS: what the change of that number has done, when all switches confirm it."""
    asked = _waiting(request.query.get("generation"), request.query.get("wait", "0"))
    return _json(await receipt.whole(request.app[CONTROLLER], request.app[OTHERS], *asked))


async def _own_receipt(request: web.Request) -> web.Response:
    """Asked by other controllers: our part of a receipt."""
    asked = await _body(request)
    waiting = _waiting(asked.get("generation"), asked.get("seconds"))
    return _json(await receipt.own(request.app[CONTROLLER], *waiting))


def _waiting(generation: Any, seconds: Any) -> tuple[int, float]:
    """The number of a change and how long to wait for it."""
    try:
        number, wait = int(generation), float(seconds)
    except (OverflowError, TypeError, ValueError):
        number, wait = -1, 0.0
    if not (number >= 0 and wait >= 0):
        raise NoQuestion("generation: a number is needed; wait: seconds, 0 when left out")
    return number, min(wait, receipt.LONGEST_WAIT_SECONDS)


async def _body(request: web.Request) -> dict[str, Any]:
    """The JSON object that was posted."""
    try:
        found = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise NoQuestion(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise NoQuestion("the body is no JSON object")
    return found


async def _drops(request: web.Request) -> web.Response:
    """/v1/drops: what was dropped for a reason, by sender and reason, and what has happened lately."""
    return _json(await drops.whole(request.app[CONTROLLER], request.app[OTHERS]))


async def _own_drops(request: web.Request) -> web.Response:
    """Asked by other controllers: what our switches have dropped."""
    return _json(await drops.own(request.app[CONTROLLER]))


async def _what_if(request: web.Request) -> web.Response:
    """/v1/what-if: what changes would do, `{"changes": [{"table": …, "key": …, "row": {…} or null}]}`."""
    app = request.app
    return _json(await what_if.whole(app[CONTROLLER], app[OTHERS], app[APART], await _body(request)))


async def _own_what_if(request: web.Request) -> web.Response:
    """Asked by other controllers: what changes would do at our switches."""
    return _json(await what_if.own(request.app[CONTROLLER], request.app[APART], await _body(request)))


def application(controller: Controller) -> web.Application:
    """The routes."""
    app = web.Application(
        client_max_size=_LARGEST_BODY, middlewares=[controllers_only(controller.config), _say_what_is_wrong]
    )
    app[CONTROLLER] = controller
    app[OTHERS] = Others(controller.config)
    app[APART] = Apart()
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/v1/status", _status)
    app.router.add_get("/v1/trace", _trace)
    app.router.add_get("/v1/explain", _explain)
    app.router.add_get("/v1/flows", _flows)
    app.router.add_get("/v1/verify", _verify)
    app.router.add_post("/v1/verify", _verify)
    app.router.add_get("/v1/receipt", _receipt)
    app.router.add_post("/v1/receipt/own", _own_receipt)
    app.router.add_get("/v1/drops", _drops)
    app.router.add_post("/v1/drops/own", _own_drops)
    app.router.add_post("/v1/what-if", _what_if)
    app.router.add_post("/v1/what-if/own", _own_what_if)
    return app


async def serve(controller: Controller, listen: Endpoint, context: ssl.SSLContext | None = None) -> web.AppRunner:
    """Start to serve; the runner's `cleanup` ends it. With a TLS context and other controllers, for those as well.

    Raises:
        OSError: an address cannot be listened on.
    """
    runner = web.AppRunner(application(controller), access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, listen.host, listen.port).start()
    config = controller.config
    if context is not None and len(config.controllers) > 1:
        own = next(peer for peer in config.controllers if peer.name == config.name)
        await web.TCPSite(runner, config.openflow_listen.host, own.api_port, ssl_context=context).start()
    return runner
