"""Small pictures as data URIs, so that they travel inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

from PIL import ImageOps

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.images.decode import as_rgb, open_image
from ResNeSt.images.listing import image_names, list_images

SIDE = 160


def thumbnails(folder: PathLike | None, names: Iterable[str]) -> dict[str, str]:
    """A data URI for every image of `names` that `folder`, or an archive, holds and Pillow can read, but no others."""
    wanted = set(names)
    if folder is None or not wanted:
        return {}
    try:
        paths = list_images(folder)
    except PipelineError:  # gone, or nothing here reads it
        return {}
    uris = {}
    for path, name in zip(paths, map(stem, image_names(paths, folder))):
        if name in wanted:
            uri = _data_uri(path)
            if uri:
                uris[name] = uri
    return uris


def _data_uri(path: str) -> str | None:
    buffer = io.BytesIO()
    try:
        with open_image(path) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            small = ImageOps.contain(as_rgb(image, image), (SIDE, SIDE))
    except Exception:  # Pillow's plugins raise nearly anything on damaged files
        return None
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
