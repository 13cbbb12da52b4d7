# SPDX-License-Identifier: Apache-2.0
"""HTTP on the loopback: /healthz, /readyz, /metrics, /v1/status."""

from __future__ import annotations

import json

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ..config import Endpoint
from ..controller.controller import Controller

CONTROLLER = web.AppKey("controller", Controller)


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
    text = json.dumps(request.app[CONTROLLER].status(), indent=2)
    return web.Response(text=text + "\n", content_type="application/json")


def application(controller: Controller) -> web.Application:
    """The routes."""
    app = web.Application()
    app[CONTROLLER] = controller
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/v1/status", _status)
    return app


async def serve(controller: Controller, listen: Endpoint) -> web.AppRunner:
    """Start to serve; the runner's `cleanup` ends it.

    Raises:
        OSError: the address cannot be listened on.
    """
    runner = web.AppRunner(application(controller), access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, listen.host, listen.port).start()
    return runner
