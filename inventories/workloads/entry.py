# SPDX-License-Identifier: Apache-2.0
"""Entry: takes requests from outside and has them carried out by the agents, which it reaches by their Service IP.

GET /sample.png or /sample.gif: the original. With a query, the file processed: /sample.png?resize=160x100&rotate=90 or
/sample.gif?frames=6. fresh=1 passes over what the agents remember. POST /image?… or /video?…: the same for your file.
"""

from __future__ import annotations

import os
import urllib.parse

import sample
from http_worker import Refused, Request, Response, ask, serve

AGENTS = os.environ["AGENTS_URL"]
SAMPLES = {
    "/sample.png": ("image/png", "/image", sample.picture()),
    "/sample.gif": ("image/gif", "/video", sample.animation()),
}


def handle(request: Request) -> Response:
    """The original, or what the agents make of it."""
    if request.path in SAMPLES:
        media_type, job, body = SAMPLES[request.path]
        if not request.query:
            return Response(body, media_type)
    elif request.path in ("/image", "/video"):
        job, body = request.path, request.body
    elif request.path == "/":
        return Response(__doc__.encode() if __doc__ else b"")
    else:
        raise Refused(404, f"{request.path}: there are /, {', '.join(SAMPLES)}, /image and /video\n")
    return ask(f"{AGENTS}{job}?{urllib.parse.urlencode(request.query)}", body)


if __name__ == "__main__":
    serve(handle)
