"""report.json -> report.html, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import PathLike, whole
from ResNeSt.common.progress import aloud
from ResNeSt.images.listing import list_images
from ResNeSt.report import data

NAME = "report.html"
REPORTS = (data.NAME, NAME)


def draw(folder: PathLike, images: PathLike | None = None) -> Path:
    """Writes report.html of the report.json in `folder`, with thumbnails from `images` [the folder it names].

    Raises MissingRuntimeError without matplotlib, PipelineError where report.json is not there, damaged or of values
    that cannot be, or
    where the folder `images` holds no pictures.
    """
    report = data.read(folder)
    if not _can_draw():
        raise MissingRuntimeError(
            f"{folder}: the plots need matplotlib, which is not installed here; pip install -r requirements.txt, or "
            f"copy {data.NAME} to where it is"
        )
    if images is not None:
        list_images(images)  # whoever names a folder wants its pictures; one that a run recorded may be elsewhere now
    from ResNeSt.report.page import page
    from ResNeSt.report.thumbnails import thumbnails

    pictures = thumbnails(images or report.images, [flip.image for flip in report.flips])
    path = Path(folder) / NAME
    try:
        drawn = page(report, pictures)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # values of the right kind that cannot be
        raise PipelineError(
            f"{Path(folder) / data.NAME}: cannot be drawn ({error}); let bench.sh or run.sh make it again"
        ) from None
    with whole(path) as temporary:
        # A file name of other bytes than UTF-8 is shown with these as `\udce9`.
        temporary.write_text(drawn, encoding="utf-8", errors="backslashreplace")
    return path


def draw_where_possible(folder: PathLike) -> None:
    """The same, for a run that does without: says where the page is, or how it can be drawn elsewhere."""
    if _can_draw():
        aloud(f"to look at: {draw(folder)}")
    else:
        command = shlex.join(["python", "-m", "ResNeSt.report", str(folder)])
        aloud(f"no {NAME}: matplotlib is not installed here; where it is, with this folder, run: {command}")


def _can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None
