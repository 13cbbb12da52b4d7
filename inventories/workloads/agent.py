# SPDX-License-Identifier: Apache-2.0
"""Agent, stateful: sends a job to the workers of its kind by their Service IP and remembers the results.

POST /image?… or /video?… with the file in the body; X-Qnet-Cache says whether this agent knew the result (hit or miss).
"""

from __future__ import annotations

import hashlib
import os
import threading
import urllib.parse
from collections import OrderedDict

from http_worker import Refused, Request, Response, ask, serve

WORKERS = {"/image": os.environ["IMAGE_URL"], "/video": os.environ["VIDEO_URL"]}
MOST_RESULTS = 128

_results: OrderedDict[str, Response] = OrderedDict()
_lock = threading.Lock()


def handle(request: Request) -> Response:
    """The result of a job, from memory or from a worker."""
    if request.path not in WORKERS:
        raise Refused(404, f"{request.path}: there are jobs {', '.join(WORKERS)}\n")
    query = urllib.parse.urlencode(sorted((k, v) for k, v in request.query.items() if k != "fresh"))
    key = hashlib.sha256(f"{request.path}?{query}\0".encode() + request.body).hexdigest()
    with _lock:
        known = None if "fresh" in request.query else _results.get(key)
    if known is not None:
        return Response(known.body, known.media_type, headers={"X-Qnet-Cache": "hit"})
    answer = ask(f"{WORKERS[request.path]}/?{query}", request.body)
    with _lock:
        _results[key] = answer
        _results.move_to_end(key)
        while len(_results) > MOST_RESULTS:
            _results.popitem(last=False)
    return Response(answer.body, answer.media_type, 200, answer.trail, {"X-Qnet-Cache": "miss"})


if __name__ == "__main__":
    serve(handle)
