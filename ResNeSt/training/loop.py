"""The epochs: train, evaluate, log, save; and going on where an earlier run stopped.

All that is random follows from (seed, epoch, image) or (seed, step), so a checkpoint holds no random state: a run that
goes on sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, sole_writer, whole
from ResNeSt.models.cards import Card, write_card
from ResNeSt.score.ranking import top_k_predictions
from ResNeSt.training.build import SharedDropout, build, parameter_groups
from ResNeSt.training.data import Samples, steps_of, training_batches, validation_batches
from ResNeSt.training.distributed import Processes
from ResNeSt.training.schedule import peak_rate, rate_at
from ResNeSt.training.settings import Settings
from ResNeSt.training.sync_bn import synchronised
from ResNeSt.training.tensorboard import Board

LAST, BEST, CARD, LOG = "last.pth", "best.pth", "best.json", "log.jsonl"
LogRow = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training run is: a card, its settings, pictures to learn from and to be judged by, and the weights to
    start from (None: fresh ones). `workers` is the threads of each process that decode.
    """

    card: Card
    settings: Settings
    train: Samples
    val: Samples
    weights: PathLike | None
    workers: int

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on with another's checkpoint."""
        of_card = {key: str(value) for key, value in dataclasses.asdict(self.card).items() if key != "name"}
        pictures = {"train": self.train.digest(), "val": self.val.digest()}
        return {**dataclasses.asdict(self.settings), **of_card, **pictures, "weights": str(self.weights)}


def train(run: Run, folder: PathLike, processes: Processes, tensorboard: bool) -> None:
    """Trains, and writes to `folder`: last.pth to go on from, best.pth and its card best.json, log.jsonl.

    Prints a line per epoch. Raises PipelineError where the loss is no number any more, where the data do not make one
    step, or where `folder` holds another run's checkpoint.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if processes.rank == 0:
            stack.enter_context(sole_writer(folder))
        trainer = Trainer(run, folder, processes)
        board = stack.enter_context(Board(folder, trainer.history)) if tensorboard and processes.rank == 0 else None
        for epoch in range(len(trainer.history) + 1, run.settings.epochs + 1):
            row = trainer.epoch(epoch)
            if processes.rank == 0:
                trainer.save(row)
                if board:
                    board.add(row)


class Trainer:
    """A network on its way, with its optimizer and the rows of its log."""

    def __init__(self, run: Run, folder: Path, processes: Processes) -> None:
        self.history: list[LogRow] = []
        self._run = run
        self._folder = folder
        self._processes = processes
        self._steps = steps_of(run.train, run.settings.batch, processes.count)
        model, origin = build(run.card, run.weights, run.settings.seed)
        self._dropout = SharedDropout(run.settings.dropout, run.settings.seed, processes)
        model.fc.register_forward_pre_hook(self._dropout)
        self._model = synchronised(model, processes) if run.settings.sync_bn else model
        self._model.to(processes.device)
        self._optimizer = torch.optim.SGD(
            parameter_groups(self._model, run.settings.decay), run.settings.rate, run.settings.momentum
        )
        # float16 has too few small numbers for gradients; the scaler does nothing for the others.
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=run.settings.precision == "float16")
        self._identity = {**run.identity(), "processes": processes.count}
        self._go_on()
        epochs = int(processes.total(torch.tensor(len(self.history), device=processes.device)))
        if epochs != processes.count * len(self.history):
            raise PipelineError(
                f"{folder / LAST}: the processes do not find the same one; name an --output on a disk that all share"
            )
        self._parallel = processes.wrap(self._model)
        if processes.rank == 0:
            print(self._opening(origin), flush=True)

    def _opening(self, origin: str) -> str:
        run, images = self._run, len(self._run.train.images)
        if self.history:
            origin = f"{self._folder / LAST} after epoch {len(self.history)}"
        return (
            f"{run.card.name}: {run.card.classes} classes, input {run.card.size}, {origin}; {images} images to learn "
            f"from, {len(run.val.images)} to be judged by; {self._steps} steps of {run.settings.batch} x "
            f"{self._processes.count} images an epoch, {run.settings.precision} on {self._processes.device}"
        )

    def _go_on(self) -> None:
        path = self._folder / LAST
        if not path.exists():
            return
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            theirs, self.history = saved["identity"], saved["history"]
        except Exception as error:  # torch raises nearly anything on damaged files
            raise PipelineError(f"{path}: not a checkpoint of a training run ({type(error).__name__})") from None
        other = sorted(key for key in {*theirs, *self._identity} if theirs.get(key) != self._identity.get(key))
        if other:
            raise PipelineError(
                f"{path}: is of a run with another {other[0]} ({theirs.get(other[0])}, not "
                f"{self._identity.get(other[0])}); repeat its options to go on, or name another --output"
            )
        self._model.load_state_dict(saved["model"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._scaler.load_state_dict(saved["scaler"])

    def epoch(self, number: int) -> LogRow:
        """Trains for one epoch and evaluates; returns its row of the log."""
        started = time.perf_counter()
        loss = self._learn(number)
        seconds = time.perf_counter() - started
        self._processes.share_buffers(self._model)
        top1, top5 = self._evaluate()
        images = self._steps * self._run.settings.batch * self._processes.count
        last = number * self._steps - 1
        return {
            "epoch": number,
            "loss": loss,
            "rate": self._rate(last),
            "top1": top1,
            "top5": top5,
            "images_per_second": images / seconds,
            "seconds": time.perf_counter() - started,
        }

    def _rate(self, step: int) -> float:
        settings = self._run.settings
        return rate_at(step, self._steps, settings, peak_rate(settings, self._processes.count))

    def _learn(self, epoch: int) -> float:
        """Mean loss of the epoch's steps."""
        run, count, rank = self._run, self._processes.count, self._processes.rank
        batches = training_batches(run.train, run.card, run.settings, epoch, rank, count, run.workers)
        self._parallel.train()
        total = torch.zeros(1, device=self._processes.device)
        first = (epoch - 1) * self._steps
        for step, batch in enumerate(self._bar(batches, self._steps, f"epoch {epoch}"), start=first):
            total += self._step(step, *batch)
        mean = float(self._processes.total(total)) / (self._steps * count)
        if not mean < float("inf"):
            raise PipelineError(
                f"epoch {epoch}: the loss is {mean}, so training has diverged; {self._folder / LAST} is of the epoch "
                "before; lower --rate, or bound the gradients with --clip, in another --output"
            )
        return mean

    def _step(self, step: int, images: Tensor, labels: Tensor) -> Tensor:
        settings, device = self._run.settings, self._processes.device
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(step)
        self._dropout.begin(step)
        with self._autocast():
            logits = self._parallel(images.to(device))
        loss = functional.cross_entropy(logits.float(), labels.to(device), label_smoothing=settings.smoothing)
        self._optimizer.zero_grad()
        torch.autograd.backward(self._scaler.scale(loss))
        if settings.clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._model.parameters(), settings.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()

    def _autocast(self) -> torch.autocast:
        precision = self._run.settings.precision
        return torch.autocast(
            self._processes.device.type, getattr(torch, precision), enabled=precision != "float32", cache_enabled=True
        )

    @torch.inference_mode()
    def _evaluate(self) -> tuple[float, float]:
        """Top-1 and top-5 of the validation pictures, in percent, in float32."""
        run, count, rank = self._run, self._processes.count, self._processes.rank
        self._model.eval()
        hits = torch.zeros(3, dtype=torch.float64)
        batches = validation_batches(run.val, run.card, run.settings.batch, rank, count, run.workers)
        for images, labels in batches:
            logits = self._model(images.to(self._processes.device)).cpu().numpy()
            right = torch.from_numpy(top_k_predictions(logits)) == labels[:, None]
            hits += torch.stack([right[:, 0].sum(), right.any(dim=1).sum(), torch.tensor(len(labels))])
        top1, top5, images_seen = self._processes.total(hits.to(self._processes.device)).tolist()
        return 100 * top1 / images_seen, 100 * top5 / images_seen

    def _bar(self, batches: Iterator[Any], steps: int, title: str) -> Iterator[Any]:
        quiet = True if self._processes.rank else None  # None: on a terminal only
        return iter(tqdm(batches, total=steps, unit="step", desc=title, disable=quiet, leave=False))

    def save(self, row: LogRow) -> None:
        """Writes the checkpoints and the log, and prints the row; a reader sees the old files or the new ones."""
        best = all(row["top1"] > earlier["top1"] for earlier in self.history)
        self.history.append(row)
        if best:
            write_card(self._run.card, self._folder / CARD)
            with whole(self._folder / BEST) as temporary:
                torch.save(self._model.state_dict(), temporary)
        with whole(self._folder / LOG) as temporary:
            temporary.write_text("".join(json.dumps(each) + "\n" for each in self.history), encoding="utf-8")
        with whole(self._folder / LAST) as temporary:
            torch.save(self._state(), temporary)
        print(_line(row, self._run.settings.epochs, best), flush=True)

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._identity,
            "history": self.history,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }


def _line(row: LogRow, epochs: int, best: bool) -> str:
    remark = ", best" if best else ""
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}, top-1 {row['top1']:.2f} %, top-5 {row['top5']:.2f} %, "
        f"rate {row['rate']:.2e}, {row['images_per_second']:.0f} img/s, {row['seconds']:.1f} s{remark}"
    )
