# SPDX-License-Identifier: Apache-2.0
"""Image worker, stateless: POST an image, get it back resized, rotated and converted.

Query: resize=320x200 (fits into it), rotate=90 (degrees, counter-clockwise), gray=1, format=png|jpeg|webp.
"""

from __future__ import annotations

import io

from http_worker import Refused, Request, Response, number, serve
from PIL import Image, UnidentifiedImageError

Image.MAX_IMAGE_PIXELS = 40_000_000
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}


def handle(request: Request) -> Response:
    """The image in the body with the operations of the query, in that order: resize, rotate, gray, format."""
    kind = request.query.get("format", "png")
    if kind not in FORMATS:
        raise Refused(400, f"format={kind}: must be one of {', '.join(FORMATS)}\n")
    try:
        image = Image.open(io.BytesIO(request.body)).convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise Refused(415, f"the body is no image that can be read: {error}\n") from error
    if "resize" in request.query:
        image.thumbnail(size(request.query["resize"]))
    if "rotate" in request.query:
        image = image.rotate(number(request, "rotate", 0, 0, 359), expand=True)
    if request.query.get("gray") == "1":
        image = image.convert("L")
    written = io.BytesIO()
    image.save(written, FORMATS[kind])
    return Response(written.getvalue(), f"image/{kind}")


def size(text: str) -> tuple[int, int]:
    """320x200 as a pair. Refused with 400 when it is none."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 8000 and 0 < int(height) <= 8000):
        raise Refused(400, f"resize={text}: must be like 320x200, each from 1 to 8000\n")
    return int(width), int(height)


if __name__ == "__main__":
    serve(handle)
