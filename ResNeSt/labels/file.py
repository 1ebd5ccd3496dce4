"""Labels: which class each image shows, from a text file with one `NAME CLASS` a line."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ResNeSt.common.ais_bench_names import distinct_names, stem, whole_name
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, whole
from ResNeSt.images.listing import picture_suffixes, relative

# Labels for each class, of which none is of class 0 by chance in one of twenty cases.
MANY = 3
BLANKS = " \t"  # not all that Unicode has: macOS writes U+202F into the names of screenshots
_CLASS = re.compile("[0-9]{1,9}")
_OF_CSV = re.compile(r"""(["']).*\1[ \t,;]+[0-9]+|[^ \t,;]*[,;][ \t]*[0-9]+|.*[,;][ \t]+[0-9]+""")


def read_labels(path: PathLike) -> dict[str, int]:
    """Class of every image of a label file, by image name up to the first dot, in the order of the file.

    A line is a file name, blanks or tabs, and a class number from 0; names may hold blanks. Files that share a name up
    to the first dot, but not their folder or suffix (n01/a.jpg, n02/a.jpg), count by their `whole_name`. Blank lines,
    CRLF and a byte-order mark are fine. Raises PipelineError, with the line number, where a line is anything else or
    where a name comes twice.
    """
    return _labels_in(_text(path), path)


def _labels_in(text: str, path: PathLike) -> dict[str, int]:
    parsed = {
        number: _parse(line, f"{path}: line {number}")
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip(BLANKS)
    }
    if not parsed:
        raise PipelineError(f"{path}: holds no labels; expected a line 'NAME CLASS' for every image")
    labels: dict[str, int] = {}
    lines: dict[str, int] = {}
    for name, (number, (written, label)) in zip(_keys([name for name, _ in parsed.values()]), parsed.items()):
        first = lines.setdefault(name, number)
        if first != number:
            raise PipelineError(
                f"{path}: line {number}: image {written!r} was already labelled in line {first} as class "
                f"{labels[name]}, here {label} (names count up to the first dot); remove one of them"
            )
        labels[name] = label
    return labels


def _keys(names: Sequence[str]) -> list[str]:
    """Stems; whole names instead where several files share a stem and none is called by it alone."""
    counts = Counter(map(stem, names))
    bare = {name for name in names if name == stem(name)}
    return [whole_name(name) if counts[stem(name)] > 1 and stem(name) not in bare else stem(name) for name in names]


def label_names(images: Sequence[str], source: PathLike) -> list[str]:
    """What a labels file calls the images of the folder `source`: their names, or their paths in it where names clash.

    Raises PipelineError where two would stand for one name.
    """
    paths = [relative(image, source) for image in images]
    short = map(os.path.basename, paths)
    return [name if name == base else path for path, base, name in zip(paths, short, distinct_names(paths))]


def keys_of(images: Sequence[str], source: PathLike, truth: Mapping[str, int]) -> list[str]:
    """By which name each image of the folder `source` stands in `truth`, if it does: its whole name or its own.

    Raises PipelineError where two images stand for one name.
    """
    paths = [relative(image, source) for image in images]
    wholes = map(whole_name, paths)
    keys = [whole if whole in truth else stem(name) for whole, name in zip(wholes, distinct_names(paths))]
    if len(set(keys)) < len(keys):
        key, _ = Counter(keys).most_common(1)[0]
        first, second, *_ = (path for path, other in zip(paths, keys) if other == key)
        raise PipelineError(f"{source}: {first} and {second} both go by the label of {key}; rename one")
    return keys


def write_labels(labels: Mapping[str, int], path: PathLike, keep: bool = False) -> None:
    """Writes a line `NAME CLASS` for every image; `read_labels` reads the same of it.

    Raises PipelineError where the file is there already, unless it says the same and `keep` is given, or where a name
    cannot be written so that it is read again.
    """
    if os.path.lexists(path):
        if keep and read_labels(path) == dict(zip(_keys(list(labels)), labels.values())):
            return
        raise PipelineError(f"{path}: exists{' and says otherwise' if keep else ''}; name another file, or delete it")
    try:
        text = "".join(f"{name} {label}\n" for name, label in labels.items())
        content = text.encode()
    except UnicodeEncodeError as error:
        raise PipelineError(f"{path}: the file name {error.object[:80]!a} is not UTF-8; rename it") from None
    if _labels_in(text, path) != dict(zip(_keys(list(labels)), labels.values())):
        raise PipelineError(f"{path}: a file name holds a line break, or blanks at its end; rename it")
    with whole(path) as temporary:
        temporary.write_bytes(content)


def check_names(labels: PathLike, truth: Mapping[str, int], folder: PathLike, files: Sequence[str]) -> None:
    """Raises PipelineError unless the `files` of `folder` are those that the labels file names, all of them."""
    here = set(keys_of(files, folder, truth))
    missing, extra = sorted(truth.keys() - here), sorted(here - truth.keys())
    if missing:
        raise PipelineError(
            f"{labels}: {len(missing)} of {len(truth)} labelled images are not in {folder}, such as {missing[0]}; "
            "complete the folder, or name a labels file of these images alone"
        )
    if extra:
        raise PipelineError(
            f"{labels}: {len(extra)} of the {len(here)} images in {folder} have no label, such as {extra[0]}; "
            "complete the labels, or name a folder of the labelled images alone"
        )


def _text(path: PathLike) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except IsADirectoryError:
        raise PipelineError(
            f"{path}: is a folder, expected a labels file; `python -m ResNeSt.labels tree` makes one of class folders"
        ) from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 text ({error}); expected lines of 'NAME CLASS'") from None


def _parse(line: str, where: str) -> tuple[str, int]:
    name, label = _last_field(line.strip(BLANKS))
    found = f"{where}: found {line.strip()[:80]!r}"
    if _OF_CSV.fullmatch(line.strip(BLANKS)):
        raise PipelineError(
            f"{found}, a name in quotes or before a comma; make a labels file of a CSV by "
            "`python -m ResNeSt.labels csv`"
        )
    if not name or (number := class_number(label)) is None:
        raise PipelineError(f"{found}, expected a file name, a blank and a class number from 0")
    before, behind = _last_field(name)
    if _is_picture(before) and not _is_picture(name):
        raise PipelineError(f"{found}, with {behind!r} between the name and the class; expected the class alone")
    return name.removeprefix("./"), number


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in picture_suffixes()


def _last_field(line: str) -> tuple[str, str]:
    """What stands before the last blank or tab, and behind it."""
    cut = max(line.rfind(blank) for blank in BLANKS)
    return line[: max(cut, 0)].rstrip(BLANKS), line[cut + 1 :]


def class_number(text: str) -> int | None:
    """The class that a field says, from 0; None where it is no such number."""
    return int(text) if _CLASS.fullmatch(text) else None


def counts_from_one(labels: Collection[int], classes: int | None = None) -> bool:
    """Whether labels look as if they counted from 1: none is 0, though 0 would be among so many, or the lowest is 1.

    `classes` are those of the model, where it is known.
    """
    lowest, count = min(labels), classes or max(labels) + 1
    return lowest == 1 or (lowest > 1 and len(labels) >= MANY * count)


def remark_on_numbers(path: PathLike, labels: Collection[int], classes: int | None = None) -> list[str]:
    """A line where the labels of the file at `path` look as if they counted from 1."""
    if not counts_from_one(labels, classes):
        return []
    return [
        f"no image is of class 0 in {path}, the lowest {min(labels)}; classes count from 0, so if these count "
        "from 1, all of them are wrong"
    ]
