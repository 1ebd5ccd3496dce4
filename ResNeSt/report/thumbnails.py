"""Small pictures as data URIs, so that they travel inside the page."""

from __future__ import annotations

import base64
import io
import os
from typing import Dict, Iterable, Optional

from PIL import Image, ImageOps

from ResNeSt.files import PathLike, stem
from ResNeSt.preprocess import find_images

SIDE = 160


def thumbnails(folder: Optional[PathLike], names: Iterable[str]) -> Dict[str, str]:
    """A data URI for every image of `names` that `folder` holds and Pillow can read; the others are left out."""
    wanted = set(names)
    if folder is None or not wanted or not os.path.isdir(folder):
        return {}
    made = {}
    for path in find_images(folder):
        if stem(path) in wanted:
            uri = _data_uri(path)
            if uri:
                made[stem(path)] = uri
    return made


def _data_uri(path: str) -> Optional[str]:
    buffer = io.BytesIO()
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            small = ImageOps.contain(image.convert("RGB"), (SIDE, SIDE))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises on damaged files
        return None
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
