"""Labels that come with the images: those in a WebDataset's shards or a parquet file (ResNeSt.images.archives)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.made_of import file_above
from ResNeSt.common.progress import NOTE, Say, silent
from ResNeSt.images.archives import carried_labels
from ResNeSt.images.listing import list_images, relative
from ResNeSt.labels.class_names import ClassList
from ResNeSt.labels.file import keys_of, label_names, read_labels
from ResNeSt.labels.numbering import BY_ORDER
from ResNeSt.labels.sources import tree_of, tree_of_model


def carried(source: PathLike, say: Say = silent) -> dict[str, int]:
    """Class of each image of `source` that it tells, by what a labels file calls the image.

    `say` hears what is skipped, and how many it tells none of. Raises PipelineError where it tells none at all, or
    something that is no class.
    """
    images = list_images(source, say)
    told = carried_labels(images)
    labels = {name: told[image] for name, image in zip(label_names(images, source), images) if image in told}
    if not labels:
        raise PipelineError(f"{source}: no labels come with its {len(images)} images; make them of another source")
    if len(labels) < len(images):
        say(f"{NOTE}{source}: {len(images) - len(labels)} of {len(images)} images have no label in it")
    return labels


def own_labels(source: PathLike, known: ClassList, say: Say = silent) -> dict[str, int]:
    """Class of each image of `source`, by what a labels file calls it, of no labels file: carried, or by class folders.

    `known` are the model's classes, `say` hears by what rule and what a user must know. Raises PipelineError where
    nothing tells the classes.
    """
    images = list_images(source)
    if carried_labels(images):
        return carried(source, say)
    _refuse_flat(images, source)
    tree = tree_of_model(images, source, known)
    say(f"{source}: {len(images)} images of {len(set(tree.labels))} classes, by {tree.rule}")
    for remark in tree.remarks:
        say(f"{NOTE}{remark}")
    return dict(zip(label_names(images, source), tree.labels))


def read_truth(labels: PathLike, known: ClassList | None = None) -> tuple[dict[str, int], list[str]]:
    """As `read_labels` of a labels file; of a folder the class of each image by the class folder that it lies in.

    And lines with what a user must know of it. `known` are the model's classes. Raises PipelineError where neither they
    nor the folders' names tell which is which.
    """
    if not os.path.isdir(labels):
        return read_labels(labels), []
    images = list_images(labels)
    tree = tree_of(images, labels) if known is None else tree_of_model(images, labels, known)
    if tree.rule == BY_ORDER and known is None:
        raise PipelineError(
            f"{labels}: nothing says which class each of its folders is; make a labels file by "
            "`python -m ResNeSt.labels tree` with the model's class names, and name that"
        )
    by_names_alone = [f"{labels}: classes by {tree.rule}, since nothing tells here what the model calls its own"]
    notes = [*tree.remarks, *(by_names_alone if known is None else [])]
    return dict(zip(keys_of(images, labels, {}), tree.labels)), notes


def truth_of(labels: PathLike | None, images: Sequence[str], source: PathLike) -> dict[str, int]:
    """Class of every labelled image, as `read_labels` has it: of a labels file, else what the source itself tells.

    Empty where all lie in class folders, which tell it together with the model's classes (ResNeSt.labels.sources).
    Raises PipelineError where nothing tells any, and where both tell another class of an image.
    """
    told = carried_labels(images)
    if labels is None:
        if not told:
            _refuse_flat(images, source)
        keys = dict(zip(images, keys_of(images, source, {})))
        return {keys[image]: label for image, label in told.items()}
    truth = read_labels(labels)
    _check(labels, truth, told, dict(zip(images, keys_of(images, source, truth))))
    return truth


def _refuse_flat(images: Sequence[str], source: PathLike) -> None:
    """Raises PipelineError where an image lies in an archive, or in no folder within `source`."""
    flat = [image for image in images if file_above(image) or "/" not in relative(image, source)]
    if len(flat) == len(images):
        raise PipelineError(
            f"{source}: no labels come with these images; name a labels file with --labels, or a folder that holds a "
            "folder per class"
        )
    if flat:
        raise PipelineError(
            f"{source}: {len(flat)} of {len(images)} images lie in no folder of a class, such as {flat[0]}; move each "
            "into one, or name a labels file with --labels"
        )


def _check(labels: PathLike, truth: Mapping[str, int], told: Mapping[str, int], keys: Mapping[str, str]) -> None:
    unlike = [image for image, label in told.items() if truth.get(keys[image], label) != label]
    if unlike:
        image = unlike[0]
        raise PipelineError(
            f"{labels}: {len(unlike)} images have another class than their source tells, such as {image}, class "
            f"{truth[keys[image]]} here and {told[image]} there; correct one, or leave --labels out"
        )
