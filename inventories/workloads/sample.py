# SPDX-License-Identifier: Apache-2.0
"""A picture and an animation to process, drawn here so that no file needs a licence."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageDraw


def picture(width: int = 640, height: int = 400) -> bytes:
    """A landscape at dusk as PNG: a gradient, a sun, and three ranges of hills."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for y in range(height):
        part = y / height
        draw.line([(0, y), (width, y)], fill=(int(30 + 210 * part), int(40 + 90 * part), int(110 - 20 * part)))
    draw.ellipse([width * 0.62, height * 0.36, width * 0.62 + 90, height * 0.36 + 90], fill=(255, 214, 120))
    for hill, colour in enumerate([(92, 64, 110), (60, 44, 84), (30, 24, 52)]):
        base, tall = height * (0.62 + 0.12 * hill), height * 0.09
        crest = [(x, base - tall * math.sin(x / (70 + 25 * hill) + hill)) for x in range(0, width + 4, 4)]
        draw.polygon([(0, height), *crest, (width, height)], fill=colour)
    return _encoded(image, "PNG")


def animation(frames: int = 24, width: int = 160, height: int = 100) -> bytes:
    """A ball that bounces across a floor, as an animated GIF."""
    drawn = []
    for frame in range(frames):
        part = frame / (frames - 1)
        image = Image.new("RGB", (width, height), (18, 24, 48))
        draw = ImageDraw.Draw(image)
        draw.rectangle([0, height - 14, width, height], fill=(70, 90, 130))
        x = 12 + part * (width - 24)
        y = height - 26 - abs(math.sin(part * 3 * math.pi)) * (height - 50) * (1 - part / 2)
        draw.ellipse([x - 11, y - 11, x + 11, y + 11], fill=(255, int(90 + 140 * part), 70))
        drawn.append(image)
    return _encoded(drawn[0], "GIF", save_all=True, append_images=drawn[1:], duration=80, loop=0)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()
