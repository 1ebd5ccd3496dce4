"""Labels that come with the images: those in a WebDataset's shards or a parquet file (ResNeSt.images.archives)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.progress import NOTE, Say, silent
from ResNeSt.images.archives import carried_labels
from ResNeSt.images.listing import list_images
from ResNeSt.labels.file import keys_of, label_names, read_labels


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


def truth_of(labels: PathLike | None, images: Sequence[str], source: PathLike) -> dict[str, int]:
    """Class of every labelled image, as `read_labels` has it: of a labels file, else what the source itself tells.

    Raises PipelineError where neither tells any, and where both tell another class of an image.
    """
    told = carried_labels(images)
    if labels is None:
        if not told:
            raise PipelineError(f"{source}: no labels come with these images; name a labels file with --labels")
        keys = dict(zip(images, keys_of(images, source, {})))
        return {keys[image]: label for image, label in told.items()}
    truth = read_labels(labels)
    _check(labels, truth, told, dict(zip(images, keys_of(images, source, truth))))
    return truth


def _check(labels: PathLike, truth: Mapping[str, int], told: Mapping[str, int], keys: Mapping[str, str]) -> None:
    unlike = [image for image, label in told.items() if truth.get(keys[image], label) != label]
    if unlike:
        image = unlike[0]
        raise PipelineError(
            f"{labels}: {len(unlike)} images have another class than their source tells, such as {image}, class "
            f"{truth[keys[image]]} here and {told[image]} there; correct one, or leave --labels out"
        )
