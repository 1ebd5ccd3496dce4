"""The image files of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ResNeSt.common.ais_bench_names import natural_key, stem
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def find_images(source: PathLike) -> list[str]:
    """Paths of the image files of a flat folder, or of one with a sub-folder per class, in natural order.

    Raises PipelineError where there is none, or where two would get the same name up to the first dot, since ais_bench
    would let one overwrite the other's result.
    """
    images = list_images(source)
    _refuse_same_names(images)
    return images


def list_images(source: PathLike) -> list[str]:
    """The same, whatever their names are up to the first dot."""
    if not os.path.isdir(source):
        raise PipelineError(f"{source}: no such folder; expected the folder that holds the images")
    images = [entry.path for entry in _entries(source) if _is_image(entry.name)]
    if not images:
        raise PipelineError(f"{source}: no image files ({' '.join(IMAGE_SUFFIXES)}) here or one folder below")
    return sorted(images, key=natural_key)


def _is_image(name: str) -> bool:
    """By its suffix; hidden files, such as the ._ files of macOS archives, are not."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _entries(source: PathLike) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(source):
        if entry.is_dir():
            yield from os.scandir(entry.path)
        else:
            yield entry


def _refuse_same_names(images: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for image in images:
        other = seen.setdefault(stem(image), image)
        if other is not image:
            raise PipelineError(
                f"{image} and {other} would both become {stem(image)}.bin (ais_bench cuts names at the first dot); "
                "rename one"
            )
