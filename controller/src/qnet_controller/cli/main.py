# SPDX-License-Identifier: Apache-2.0
"""`qnet-controller --config FILE [--check]`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import ssl
import sys
from pathlib import Path

from ..api.http import serve
from ..config import Config, ConfigError, Endpoint, load
from ..controller.controller import Controller
from ..controller.peers import Peers
from ..openflow.events import Limits
from ..openflow.server import listen, tls_context
from ..ovsdb.feed import Feed, Tls

LOG = logging.getLogger("qnet_controller")

_PKI_HINT = "run the certificates role"
HAND_OVER_SECONDS = 5.0
GC_THRESHOLDS = (100_000, 50, 100)  # little of what decisions make is cyclic
EXIT_OK, EXIT_FAILED, EXIT_CONFIG = 0, 1, 2

ECHOES_IN_SILENCE = 5  # a switch that says nothing is asked so often before it counts as lost


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="qnet-controller", description="The reactive OpenFlow controller of qnet.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration file (TOML)")
    parser.add_argument("--check", action="store_true", help="check the configuration and the certificates, then end")
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", choices=levels, default="info", help="what is logged (default: info)")
    return parser.parse_args()


def _context(config: Config) -> ssl.SSLContext:
    pki = config.pki
    for name, path in (("ca", pki.ca), ("certificate", pki.certificate), ("private_key", pki.private_key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise SystemExit(f"pki.{name}: {str(path)!r}: cannot be read: {error.strerror}; {_PKI_HINT}") from None
    try:
        return tls_context(pki.ca, pki.certificate, pki.private_key)
    except OSError as error:
        raise SystemExit(f"pki: certificate, key or CA cannot be used: {error}; {_PKI_HINT}") from None


async def run(config: Config, context: ssl.SSLContext) -> int:
    """Run the controller until it is told to stop."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    controller = Controller(config)
    peers = Peers(config, controller.word, controller.mastership.standing_changed)
    controller.mastership.told = peers.review
    tls = Tls(config.pki.ca, config.pki.certificate, config.pki.private_key)
    feed = Feed(config.database_remotes, tls, controller.intent_changed)
    where, at = "", config.api_listen
    try:
        where, at = "api.listen", config.api_listen
        api = await serve(controller, at, context)
        where, at = "openflow.listen", config.openflow_listen
        limits = Limits(echo_interval=config.silence_seconds / ECHOES_IN_SILENCE, silence=config.silence_seconds)
        server = await listen(at.host, at.port, context, controller, limits)
        own = next(peer for peer in config.controllers if peer.name == config.name)
        where, at = "controllers.port", Endpoint(config.openflow_listen.host, own.port)
        await peers.start(context)
    except OSError as error:
        LOG.error("%s: %s: cannot listen there: %s; is another controller running?", where, at, error.strerror or error)
        return EXIT_FAILED
    feed.start()
    LOG.info("controller %s listens on %s, its API on %s", config.name, config.openflow_listen, config.api_listen)
    await stop.wait()
    await controller.mastership.hand_over(HAND_OVER_SECONDS)
    LOG.info("stopping; the switches keep their flows")
    await peers.stop()
    server.close()
    controller.close()
    await feed.stop()
    await api.cleanup()
    await asyncio.sleep(0)
    return EXIT_OK


def main() -> int:
    """Entry point; the exit status is 0, 1 (cannot run) or 2 (bad configuration)."""
    arguments = _arguments()
    logging.basicConfig(
        level=arguments.log_level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        config = load(arguments.config)
        context = _context(config)
    except (ConfigError, SystemExit) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    if arguments.check:
        print(f"{arguments.config}: ok")
        return EXIT_OK
    gc.set_threshold(*GC_THRESHOLDS)
    return asyncio.run(run(config, context))


if __name__ == "__main__":
    sys.exit(main())
