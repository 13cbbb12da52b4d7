# SPDX-License-Identifier: Apache-2.0
"""Video worker, stateless: POST an animation (GIF, WebP or PNG), get a storyboard of its frames as one PNG.

Query: frames=8 (how many, spread evenly), columns=4, width=120 (of each frame, in pixels).
"""

from __future__ import annotations

import io

from http_worker import Refused, Request, Response, number, serve
from PIL import Image, UnidentifiedImageError

Image.MAX_IMAGE_PIXELS = 40_000_000
GAP = 4


def handle(request: Request) -> Response:
    """The storyboard of the animation in the body."""
    wanted = number(request, "frames", 8, 1, 64)
    columns = number(request, "columns", 4, 1, 16)
    width = number(request, "width", 120, 16, 640)
    try:
        animation = Image.open(io.BytesIO(request.body))
        frames = [
            frame(animation, position, width) for position in positions(getattr(animation, "n_frames", 1), wanted)
        ]
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise Refused(415, f"the body is no animation that can be read: {error}\n") from error
    written = io.BytesIO()
    board(frames, min(columns, len(frames))).save(written, "PNG")
    return Response(written.getvalue(), "image/png", headers={"X-Frames": str(len(frames))})


def positions(there: int, wanted: int) -> list[int]:
    """Numbers of at most `wanted` frames of `there`, evenly spread, the first and the last included."""
    if wanted >= there:
        return list(range(there))
    return [round(step * (there - 1) / max(wanted - 1, 1)) for step in range(wanted)]


def frame(animation: Image.Image, position: int, width: int) -> Image.Image:
    """One frame, scaled to `width`."""
    animation.seek(position)
    picture = animation.convert("RGB")
    return picture.resize((width, max(1, round(picture.height * width / picture.width))))


def board(frames: list[Image.Image], columns: int) -> Image.Image:
    """The frames in rows of `columns`."""
    width, height = frames[0].size
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), (12, 12, 12))
    for position, picture in enumerate(frames):
        row, column = divmod(position, columns)
        sheet.paste(picture, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return sheet


if __name__ == "__main__":
    serve(handle)
