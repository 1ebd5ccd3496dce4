"""The same as work for other machines: each process opens the model once and keeps it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Mapping, Sequence

from ResNeSt.answers.outcomes import Outcome, Watches, outcomes_of
from ResNeSt.answers.ranked import Ranked, ranked
from ResNeSt.common.cores import cores
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike, sha256
from ResNeSt.common.machines import CHUNK, Job, Machines, broken_by
from ResNeSt.common.parallel import Stopwatch
from ResNeSt.engines.engine import Engine
from ResNeSt.engines.image_batches import ModelChoice, open_for_images
from ResNeSt.engines.null import NullEngine
from ResNeSt.engines.opening import card_for
from ResNeSt.models.files import model_files
from ResNeSt.tensors.format import TensorFormat


@dataclasses.dataclass(frozen=True)
class Setting:
    """A model, the batch size that it takes where it leaves that free, and the SHA-256 of its files and the labels."""

    model: ModelChoice
    batch: int
    digests: Mapping[str, str]

    @property
    def accelerator(self) -> str:
        """Ray's name of the card that the model runs on, or nothing."""
        return card_for(self.model.file, self.model.engine)

    @property
    def by_name(self) -> dict[str, str]:
        """The model's alone, by the names of its files."""
        return {os.path.basename(path): self.digests[path] for path in map(str, model_files(self.model.file))}

    def opened(self) -> Engine:
        """One instance, which this process keeps."""
        return _kept(self.model, self.batch)


def setting_of(model: ModelChoice, batch: int, *others: PathLike) -> Setting:
    """The setting with the digests of what is there now; `others` are files that the work depends on, too.

    Raises PipelineError where there is no such model.
    """
    if not os.path.isfile(model.file):
        raise PipelineError(f"{model.file}: no such model file")
    cards = [model.arch] if model.arch and model.arch.endswith(".json") else []
    files = [os.fspath(file) for file in (*model_files(model.file), *cards, *others)]
    return Setting(model, batch, {file: sha256(file) for file in files})


@functools.lru_cache(maxsize=1)
def _kept(model: ModelChoice, batch: int) -> Engine:
    return open_for_images(dataclasses.replace(model, instances=1), batch, CHUNK)


@dataclasses.dataclass(frozen=True)
class _OnModel:
    setting: Setting

    @property
    def accelerator(self) -> str:
        return self.setting.accelerator

    @property
    def files(self) -> Mapping[str, str]:
        return self.setting.digests


class Describe(_OnModel):
    """Anything -> an engine without a network, which says of itself what the model's does."""

    def __call__(self, items: Sequence[str]) -> list[NullEngine]:
        """The same for each of `items`."""
        engine = self.setting.opened()
        described = NullEngine(engine)
        described.title = engine.title
        return [described for _ in items]

    def crashed(self, item: str, why: str) -> NullEngine:
        """Nothing can be done with such a model."""
        raise PipelineError(f"{item}: the process that opened it {why}, each time that it was tried; convert it again")

    def doubtful(self, items: Sequence[str], made: Sequence[NullEngine]) -> list[str]:
        """No pictures."""
        return []


@dataclasses.dataclass(frozen=True)
class Outcomes(_OnModel):
    """Paths of images -> an Outcome of `ranks` classes each."""

    tensor_format: TensorFormat
    ranks: int

    def __call__(self, items: Sequence[str]) -> list[Outcome]:
        """In the order of `items`."""
        watches = Watches(Stopwatch(), Stopwatch(), Stopwatch())
        outcomes = outcomes_of(self.setting.opened(), self.tensor_format, self.ranks, items, cores(), watches)
        return list(itertools.chain.from_iterable(outcomes))

    def crashed(self, item: str, why: str) -> Outcome:
        """The image is broken."""
        return Outcome(item, (), "broken", broken_by(item, why))

    def doubtful(self, items: Sequence[str], made: Sequence[Outcome]) -> list[str]:
        """The first and the broken ones."""
        return [items[0], *(outcome.image for outcome in made if outcome.problem == "broken")]


@dataclasses.dataclass(frozen=True)
class Rankings(_OnModel):
    """Paths of images -> a Ranked each."""

    tensor_format: TensorFormat
    top: int

    def __call__(self, items: Sequence[str]) -> list[Ranked]:
        """In the order of `items`."""
        return list(ranked(self.setting.opened(), self.tensor_format, items, cores(), self.top))

    def crashed(self, item: str, why: str) -> Ranked:
        """The image is broken."""
        return Ranked(item, 0, (), (), broken_by(item, why))

    def doubtful(self, items: Sequence[str], made: Sequence[Ranked]) -> list[str]:
        """The first and those without an answer."""
        return [items[0], *(each.image for each in made if each.reason)]


def described(machines: Machines, setting: Setting) -> Engine:
    """What `open_for_images` gives, of a machine that opened the model, but for `run`, which gives zeros.

    Raises ArgumentError for what the machines see to themselves, and what opening the model raises.
    """
    model = setting.model
    if model.device or (model.instances or 1) > 1:
        raise ArgumentError(
            f"{'--device' if model.device else '--instances'}: with --ray a task runs one instance on the card that "
            "Ray gives it; leave it out"
        )
    describe: Job[str, NullEngine] = Describe(setting)
    ((engine,),) = machines.each(describe, [os.fspath(model.file)], 1)
    return engine


def chunk_of(engine: Engine, machines: Machines) -> int:
    """Images of a chunk: whole batches, so that they are put together as in one process."""
    batch = engine.input.shape[0]
    return batch * max(1, machines.chunk // batch)
