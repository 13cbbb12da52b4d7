# SPDX-License-Identifier: Apache-2.0
"""HTTP on the loopback: /healthz, /readyz, /metrics, and for people and tools /v1/….

A question with a name that means nothing is answered 404 with the reason and, where there is one, the nearest name.
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
from ..openflow.events import Refused, SessionClosed
from ..ovsdb.rows import MalformedRow
from . import drops, receipt, what_if
from .others import Others, controllers_only

CONTROLLER = web.AppKey("controller", Controller)
OTHERS = web.AppKey("others", Others)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(value, indent=2) + "\n", content_type="application/json", status=status)


@web.middleware
async def _say_what_is_wrong(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except Unknown as error:
        return _json({"error": str(error)}, 404)
    except MalformedRow as error:
        return _json({"error": str(error)}, 400)
    except (Refused, SessionClosed) as error:
        return _json({"error": f"the switch did not answer: {error}"}, 502)
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
    return _json(request.app[CONTROLLER].status())


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
    found = await switch.session.fetch_traffic()
    program = switch.ready()
    rows = explain.flows(model, found, program.flows if program else None, owner)
    return _json({"host": name, "role": switch.role_name, "flows": rows})


async def _verify(request: web.Request) -> web.Response:
    """/v1/verify: what the switches hold beside what this controller, as their master, intends.

    A POST also puts right what differs.
    """
    controller = request.app[CONTROLLER]
    repair = request.method == "POST"
    checked = [switch for switch in controller.switches.values() if switch.ready() is not None]
    found = await asyncio.gather(*(_differences(controller, switch) for switch in checked))
    rows = [row for _, row in sorted(((row["host"], row) for part in found for row in part), key=lambda item: item[0])]
    if repair:
        for name in {row["host"] for row in rows}:
            controller.compare(controller.model.hosts[name].datapath_id)
    hosts = sorted(switch.host for switch in checked)
    return _json({"hosts": hosts, "differences": rows, "repairing": repair and bool(rows)})


async def _differences(controller: Controller, switch: Switch) -> list[dict[str, Any]]:
    """What differs in two looks one after the other: a flow that comes or goes meanwhile is none."""
    seen: list[dict[str, Any]] = []
    for last in (False, True):
        dump = await switch.session.dump()
        program = switch.ready()
        if program is None:
            return []
        found = verify.differences(controller.model, switch.host, dump, program)
        seen = [row for row in found if row in seen] if last else found
        if not seen:
            break
    return seen


async def _receipt(request: web.Request) -> web.Response:
    """/v1/receipt?generation=N&wait=SECONDS: what the change of that number has done, when all switches confirm it."""
    try:
        generation, seconds = int(request.query["generation"]), float(request.query.get("wait", "0"))
    except (KeyError, ValueError):
        return _json({"error": "generation: a number is needed; wait: seconds, 0 when left out"}, 400)
    return _json(await receipt.whole(request.app[CONTROLLER], request.app[OTHERS], generation, seconds))


async def _own_receipt(request: web.Request) -> web.Response:
    """Asked by other controllers: our part of a receipt."""
    asked = await request.json()
    return _json(await receipt.own(request.app[CONTROLLER], asked["generation"], asked["seconds"]))


async def _drops(request: web.Request) -> web.Response:
    """/v1/drops: what was dropped for a reason, by sender and reason, and what has happened lately."""
    return _json(await drops.whole(request.app[CONTROLLER], request.app[OTHERS]))


async def _own_drops(request: web.Request) -> web.Response:
    """Asked by other controllers: what our switches have dropped."""
    return _json(await drops.own(request.app[CONTROLLER]))


async def _what_if(request: web.Request) -> web.Response:
    """/v1/what-if: what changes would do, `{"changes": [{"table": …, "key": …, "row": {…} or null}]}`."""
    return _json(await what_if.whole(request.app[CONTROLLER], request.app[OTHERS], await request.json()))


async def _own_what_if(request: web.Request) -> web.Response:
    """Asked by other controllers: what changes would do at our switches."""
    return _json(await what_if.own(request.app[CONTROLLER], await request.json()))


def application(controller: Controller) -> web.Application:
    """The routes."""
    app = web.Application(middlewares=[controllers_only(controller.config), _say_what_is_wrong])
    app[CONTROLLER] = controller
    app[OTHERS] = Others(controller.config)
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
