"""What work is to look like for other processes and machines to do it (ResNeSt.cluster), and what they do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
Taken = TypeVar("Taken", contravariant=True)
Given = TypeVar("Given")

CHUNK = 256  # images that a process takes at a time: seconds of work, and a few kilobytes of answers


class Job(Protocol[Taken, Given]):
    """Work on any number of items, each by itself; it travels pickled, so its class lies in a module of this package.

    `accelerator` is what Ray calls the card that a process needs ("NPU", "GPU"), or empty. `files` has the SHA-256 of
    files by their paths: a machine that has another file there is refused.
    """

    @property
    def accelerator(self) -> str:
        """NPU, GPU or nothing."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """Hex SHA-256 by path."""
        ...

    def __call__(self, items: Sequence[Taken]) -> list[Given]:
        """What is made of `items`, in their order."""
        ...

    def crashed(self, item: Taken, why: str) -> Given:
        """What stands for an item that ends the process which works on it, time and again."""
        ...

    def doubtful(self, items: Sequence[Taken], made: Sequence[Given]) -> list[str]:
        """Paths of pictures of which it is asked whether the machine sees them as this process does."""
        ...


class Machines(Protocol):
    """Processes here or elsewhere that do jobs."""

    @property
    def chunk(self) -> int:
        """Images that a process takes at a time."""
        ...

    @property
    def used(self) -> str:
        """How many of them, in words."""
        ...

    def each(self, job: Job[Item, Made], items: Sequence[Item], size: int) -> Iterator[list[Made]]:
        """What `job` makes of `items`, in their order, a list for every `size` of them.

        Raises PipelineError where a machine is not fit for it, and what the job raises.
        """
        ...


def broken_by(path: str, why: str) -> str:
    """The reason that is given for a picture that ends every process which reads it."""
    return f"{path}: the process that worked on it {why}, each time that it was tried; leave it out, or repair it"
