"""Which files of a folder are images, and which of its folders are classes: the one place that decides.

Archives (ResNeSt.images.archives) are listed by the same rules, as is a folder that holds archives and no images.

An image is a file whose suffix, in any case, is of a format that Pillow decodes here, at any depth; what lies in a
folder of `source`, however deep, is of that folder's class. Links count as what they lead to. Files and folders whose
name begins with a dot do not count (.ipynb_checkpoints, .DS_Store, macOS's ._a.jpg), nor do those that a system makes.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import PIL
from PIL import Image

from ResNeSt.common.ais_bench_names import distinct_names, natural_key, stem
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.made_of import file_above
from ResNeSt.common.progress import NOTE, Say, silent
from ResNeSt.images.archives import archives_of, listed, root

# Formats that Pillow opens and that are no pictures, or that it only hands to another program.
NO_PICTURES = {"BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
SHOWN = 3  # names of a kind, in a message
BESIDE = {".cls", ".json", ".txt"}  # what a WebDataset keeps beside a picture
# Made by macOS's zip, by file systems of Linux, by Synology's disks and by Windows.
OF_A_SYSTEM = {"__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}


class Listing(NamedTuple):
    """The images of a folder in natural order, its class folders by name, and why each other entry does not count."""

    images: list[str]
    folders: list[str]
    skipped: dict[str, str]


@functools.lru_cache(maxsize=1)
def picture_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that count, those first that it tries first."""
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.ID if name in set(Image.EXTENSION.values()) - NO_PICTURES)


@functools.lru_cache(maxsize=1)
def picture_suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the files that count."""
    formats = {*picture_formats(), "MPO"}  # a JPEG of several pictures, which Pillow opens as one
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in formats)


def find_images(source: PathLike, say: Say = silent) -> list[str]:
    """Paths of the images of a folder, flat or with a folder per class, in natural order; `say` hears what is skipped.

    Raises PipelineError where there is none, or where two would get the same name up to the first dot, since ais_bench
    would let one overwrite the other's result.
    """
    images = list_images(source, say)
    _refuse_same_names(images, source)
    return images


def list_images(source: PathLike, say: Say = silent) -> list[str]:
    """The same, whatever their names are up to the first dot."""
    found = scan(source)
    if found.skipped:
        say(f"{NOTE}{_skipped_line(source, found.skipped)}")
    if not found.images:
        raise PipelineError(
            f"{source}: no image files in it; Pillow {PIL.__version__} reads {' '.join(sorted(picture_suffixes()))}"
        )
    return found.images


def scan(source: PathLike) -> Listing:
    """Everything in a folder or in archives; raises PipelineError where there is no such folder."""
    if not os.path.isdir(source):
        if archives := archives_of(source):
            return _scan_archives(archives)
        found = "neither a folder nor such a file" if os.path.exists(source) else "no such folder"
        raise PipelineError(
            f"{source}: {found}; expected the folder that holds the images, or a .tar or .parquet file of them"
        )
    skipped: dict[str, str] = {}
    images = sorted(_walk(os.fspath(source), (), skipped), key=natural_key)
    if not images and (archives := archives_of(source)):
        inside = _scan_archives(archives)
        others = {path: reason for path, reason in skipped.items() if path not in archives}
        return inside._replace(skipped={**others, **inside.skipped})
    return Listing(images, class_folders(source), skipped)


def _scan_archives(archives: Sequence[str]) -> Listing:
    """The images of a tar file in natural order; of a parquet file in the order of its rows, which it is read in."""
    images, skipped = [], {}
    for archive in archives:
        held = listed(archive)
        skipped.update({f"{archive}/{name}": reason for name, reason in held.skipped.items()})
        if held.only_pictures:
            images += [f"{archive}/{name}" for name in held.names]
            continue
        found = []
        for name in held.names:
            if reason := _why_no_image(name):
                skipped[f"{archive}/{name}"] = reason
            elif os.path.splitext(name)[1].lower() not in BESIDE:
                found.append(f"{archive}/{name}")
        images += sorted(found, key=natural_key)
    return Listing(images, [], skipped)


def _why_no_image(name: str) -> str:
    """Of a path in an archive; empty for an image, and for what is told of one."""
    hidden = next(filter(None, map(_why_hidden, name.split("/"))), "")
    is_image = os.path.splitext(name)[1].lower() in picture_suffixes() | BESIDE
    return hidden or ("" if is_image else f"with no suffix of a picture that Pillow {PIL.__version__} reads")


def refuse_archives(images: Sequence[str], source: PathLike) -> None:
    """Raises PipelineError where images of `source` lie in archives, for whoever moves them or needs its folders."""
    if images and (archive := file_above(images[0])):
        raise PipelineError(f"{source}: its images lie in {archive}, expected a folder of image files; unpack it first")


def class_folders(source: PathLike) -> list[str]:
    """Names of the folders in `source` that count, sorted, those without images too."""
    return sorted(entry.name for entry in os.scandir(source) if _is_folder(entry) and not _why_hidden(entry.name))


def relative(image: PathLike, source: PathLike) -> str:
    """The path of an image within the folder `source` that it was found in."""
    path, folder = os.fspath(image), os.path.join(root(source), "")
    return path[len(folder) :] if path.startswith(folder) else os.path.relpath(path, folder)


def image_names(images: Sequence[str], source: PathLike) -> list[str]:
    """A name for each image of `source` whose stem no other has (ResNeSt.common.ais_bench_names.distinct_names)."""
    return distinct_names([relative(image, source) for image in images])


def _walk(folder: str, above: tuple[tuple[int, int], ...], skipped: dict[str, str]) -> Iterator[str]:
    """The images in `folder` and below; `above` are the folders that it lies in, by device and inode."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        skipped[folder] = "linked to a folder that they lie in"
        return
    for entry in os.scandir(folder):
        if hidden := _why_hidden(entry.name):
            skipped[entry.path] = hidden
        elif _is_folder(entry):
            yield from _walk(entry.path, (*above, here), skipped)
        elif os.path.splitext(entry.name)[1].lower() in picture_suffixes():
            yield entry.path
        else:
            skipped[entry.path] = f"with no suffix of a picture that Pillow {PIL.__version__} reads"


def _why_hidden(name: str) -> str:
    return "hidden" if name.startswith(".") else "made by a system" if name in OF_A_SYSTEM else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # entry.is_dir() raises for a link that leads to itself.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _skipped_line(source: PathLike, skipped: dict[str, str]) -> str:
    kinds = []
    for reason, count in Counter(skipped.values()).most_common():
        names = sorted((relative(path, source) for path in skipped if skipped[path] == reason), key=natural_key)
        kinds.append(f"{count} {reason} ({_some(names)})")
    return f"{source}: skipped {', '.join(kinds)}"


def _some(names: Sequence[str]) -> str:
    """The first few, on one line whatever characters they hold."""
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:SHOWN])
    return shown + (", ..." if len(names) > SHOWN else "")


def _refuse_same_names(images: Sequence[str], source: PathLike) -> None:
    counts = Counter(map(stem, images))
    if len(counts) == len(images):
        return
    same = [relative(image, source) for image in images if counts[stem(image)] > 1]
    same.sort(key=stem)
    raise PipelineError(
        f"{source}: {len(same)} images share their name up to the first dot, where ais_bench cuts it: {_some(same)}; "
        "give resnest_preprocess.py --distinct-names, or rename them"
    )
