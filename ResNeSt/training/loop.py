"""The epochs: train, save, evaluate, log; and going on where an earlier run stopped.

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
from tqdm import tqdm

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, sha256, sole_writer, whole
from ResNeSt.common.paths import refuse_clashes
from ResNeSt.common.progress import Say, silent
from ResNeSt.models.cards import Card, write_card
from ResNeSt.score.ranking import top_k_predictions
from ResNeSt.training.build import DropBlock, SharedDropout, build, parameter_groups
from ResNeSt.training.data import Samples, steps_of, training_batches, validation_batches
from ResNeSt.training.distributed import Processes
from ResNeSt.training.meter import Meter
from ResNeSt.training.mixup import loss_of, mixed, share_of_first
from ResNeSt.training.pictures import examine
from ResNeSt.training.saved import Saved, read_saved, refuse_another, write_tensors
from ResNeSt.training.schedule import peak_rate, rate_at
from ResNeSt.training.settings import Settings
from ResNeSt.training.sync_bn import synchronised
from ResNeSt.training.tensorboard import Board

LAST, BEST, CARD, LOG = "last.pth", "best.pth", "best.json", "log.jsonl"
LogRow = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training run is: a card, its settings, pictures to learn from and to be judged by, and the weights to
    start from (None: fresh ones), chosen by `ema`, whose classes are called `weights_names`, where that is known.
    `workers` is the threads of each process that decode.
    """

    card: Card
    settings: Settings
    train: Samples
    val: Samples
    weights: PathLike | None
    workers: int
    ema: bool | None = None
    weights_names: tuple[str, ...] | None = None

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on with another's checkpoint, but for the pictures' bytes."""
        of_card = {key: str(value) for key, value in dataclasses.asdict(self.card).items() if key != "name"}
        settings = {**dataclasses.asdict(self.settings), "warmup": self.settings.warmup_epochs}
        weights = None if self.weights is None else sha256(self.weights)
        return {**settings, **of_card, "weights": weights, "ema": self.ema}


def train(run: Run, folder: PathLike, processes: Processes, tensorboard: bool, say: Say = silent) -> None:
    """Trains, and writes to `folder`: last.pth to go on from, best.pth and its card best.json, log.jsonl.

    `say` hears a line per epoch, and how far it is where there is no terminal. Raises PipelineError where a picture is
    broken, where the loss is no number any more, where the data do not make one step, or where `folder` holds another
    run's checkpoint.
    """
    folder = Path(folder)
    refuse_clashes([run.weights] if run.weights else [], [folder / name for name in (LAST, BEST, CARD, LOG)])
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if processes.rank == 0:
            stack.enter_context(sole_writer(folder))
        _refuse_others(folder)
        trainer = Trainer(run, folder, processes, say if processes.rank == 0 else silent)
        board = None
        if tensorboard and processes.rank == 0:
            board = stack.enter_context(Board(folder, [row for row in trainer.history if "top1" in row]))
        for row in trainer.rows():
            if board:
                board.add(row)


def _refuse_others(folder: Path) -> None:
    """Raises PipelineError where files would be overwritten that no last.pth says are of this run."""
    found = [folder / name for name in (BEST, CARD, LOG) if (folder / name).exists()]
    if found and not (folder / LAST).exists():
        raise PipelineError(
            f"{found[0]}: would be overwritten, and no {LAST} says that it is of this run; name another --output"
        )


class Trainer:
    """A network on its way, with its optimizer and the rows of its log."""

    def __init__(self, run: Run, folder: Path, processes: Processes, say: Say) -> None:
        self.history: list[LogRow] = []
        self._run = run
        self._folder = folder
        self._processes = processes
        self._say = say
        self._steps = steps_of(run.train, run.settings.batch, processes.count)
        model, origin = build(run.card, run.weights, run.settings.seed, run.ema, run.weights_names)
        self._dropout = SharedDropout(run.settings.dropout, run.settings.seed, processes)
        model.fc.register_forward_pre_hook(self._dropout)
        self._model = synchronised(model, processes) if run.settings.sync_bn else model
        self._dropblock = DropBlock(run.settings.dropblock, run.settings.seed, processes)
        if run.settings.dropblock:
            self._dropblock.hook(self._model)
        self._model.to(processes.device)
        self._optimizer = torch.optim.SGD(
            parameter_groups(self._model, run.settings.decay),
            run.settings.rate,
            run.settings.momentum,
            nesterov=run.settings.nesterov,
        )
        # float16 has too few small numbers for gradients; the scaler does nothing for the others.
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=run.settings.precision == "float16")
        self._identity = {**run.identity(), "processes": processes.count}
        self._go_on(read_saved(folder / LAST))
        self._parallel = processes.wrap(self._model)
        say(self._opening(origin))

    def _opening(self, origin: str) -> str:
        run, images, warmup = self._run, len(self._run.train.images), self._run.settings.warmup_epochs
        if self.history:
            origin = f"{self._folder / LAST} after epoch {len(self.history)}"
        end = "; nothing is left to do" if self._is_finished() else ""
        return (
            f"{run.card.name}: {run.card.classes} classes, input {run.card.size}, {origin}; {images} images to learn "
            f"from, {len(run.val.images)} to be judged by; {run.settings.epochs} epochs, {warmup} of them warm-up, "
            f"of {self._steps} steps of {run.settings.batch} x {self._processes.count} images; "
            f"{run.settings.precision} on {self._processes.device}{end}"
        )

    def _is_finished(self) -> bool:
        return len(self.history) == self._run.settings.epochs and "top1" in self.history[-1]

    def _go_on(self, saved: Saved | None) -> None:
        """Takes up what an earlier run left; what can be refused without reading the pictures is refused first."""
        processes, path = self._processes, self._folder / LAST
        if saved:
            refuse_another(path, saved.identity, self._identity)
        epochs = processes.all_of(len(saved.history) if saved else 0)
        if len(set(epochs)) > 1:
            raise PipelineError(
                f"{path}: the processes do not find the same one; name an --output on a disk that all share"
            )
        before = saved.pictures if saved else {"train": [], "val": []}
        self._pictures = {
            split: examine(samples, before[split], processes, self._run.workers, self._say)
            for split, samples in (("train", self._run.train), ("val", self._run.val))
        }
        if saved:
            contents = [
                {split: [share.contents for share in shares] for split, shares in pictures.items()}
                for pictures in (saved.pictures, self._pictures)
            ]
            refuse_another(path, *contents)
            self.history = saved.history
            self._model.load_state_dict(saved.model)
            self._optimizer.load_state_dict(saved.optimizer)
            self._scaler.load_state_dict(saved.scaler)

    def rows(self) -> Iterator[LogRow]:
        """Goes on to the last epoch; yields the row of each when it is judged and saved.

        What an epoch has learnt is saved before it is judged, so that nothing that goes wrong there can lose it.
        """
        if self.history and "top1" not in self.history[-1]:
            yield self._judge()
        for epoch in range(len(self.history) + 1, self._run.settings.epochs + 1):
            self.history.append(self._learn(epoch))
            self._processes.share_buffers(self._model)
            if self._processes.rank == 0:
                self._save_last()
            yield self._judge()

    def _rate(self, step: int) -> float:
        settings = self._run.settings
        return rate_at(step, self._steps, settings, peak_rate(settings, self._processes.count))

    def _learn(self, epoch: int) -> LogRow:
        """Trains for one epoch; returns its row of the log, in which the mean loss of its steps stands."""
        run, count, rank = self._run, self._processes.count, self._processes.rank
        batches = training_batches(run.train, run.card, run.settings, epoch, rank, count, run.workers)
        self._parallel.train()
        total = torch.zeros(1, device=self._processes.device)
        first, images = (epoch - 1) * self._steps, run.settings.batch * count
        started = time.perf_counter()
        with Meter(epoch, self._steps, images, self._say, self._processes.bars_off) as meter:
            for step, batch in enumerate(batches, start=first):
                loss = self._step(step, *batch)
                total += loss
                meter.step(loss, self._rate(step))
        mean = float(self._processes.total(total)) / (self._steps * count)
        if not mean < float("inf"):
            raise PipelineError(f"epoch {epoch}: the loss is {mean}, so training has diverged; {self._what_to_do()}")
        seconds = time.perf_counter() - started
        speed = self._steps * images / seconds
        last = self._rate(first + self._steps - 1)
        return {"epoch": epoch, "loss": mean, "rate": last, "images_per_second": speed, "seconds": seconds}

    def _what_to_do(self) -> str:
        kept = f"{self._folder / LAST} is of the epoch before" if self.history else "nothing has been saved"
        return f"{kept}; lower --rate, or bound the gradients with --clip, in another --output"

    def _step(self, step: int, images: Tensor, labels: Tensor) -> Tensor:
        settings, device = self._run.settings, self._processes.device
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(step)
        self._dropout.begin(step)
        self._dropblock.begin(step, (step // self._steps + 1) / settings.epochs)
        share = share_of_first(settings, step)
        with self._autocast():
            logits = self._parallel(mixed(images.to(device), share))
        loss = loss_of(logits.float(), labels.to(device), share, settings.smoothing)
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

    def _judge(self) -> LogRow:
        """Evaluates what the last epoch has learnt, writes the log and, where it is the best, best.pth."""
        started = time.perf_counter()
        row = self.history[-1]
        row["top1"], row["top5"] = self._evaluate()
        row["seconds"] += time.perf_counter() - started
        best = all(row["top1"] > earlier["top1"] for earlier in self.history[:-1])
        if self._processes.rank == 0:
            if best:
                write_card(self._run.card, self._folder / CARD)
                write_tensors(self._model.state_dict(), self._folder / BEST)
            with whole(self._folder / LOG) as temporary:
                temporary.write_text("".join(json.dumps(each) + "\n" for each in self.history), encoding="utf-8")
            self._save_last()
        self._say(_line(row, self._run.settings.epochs, best))
        return row

    @torch.inference_mode()
    def _evaluate(self) -> tuple[float, float]:
        """Top-1 and top-5 of the validation pictures, in percent, in float32."""
        run, count, rank = self._run, self._processes.count, self._processes.rank
        self._model.eval()
        hits = torch.zeros(3, dtype=torch.float64)
        batches = validation_batches(run.val, run.card, run.settings.batch, rank, count, run.workers)
        steps = -(-len(run.val.images) // (run.settings.batch * count))
        off = self._processes.bars_off
        for images, labels in tqdm(batches, total=steps, unit="batch", desc="evaluate", disable=off, leave=False):
            logits = self._model(images.to(self._processes.device)).cpu().numpy()
            right = torch.from_numpy(top_k_predictions(logits)) == labels[:, None]
            hits += torch.stack([right[:, 0].sum(), right.any(dim=1).sum(), torch.tensor(len(labels))])
        top1, top5, images_seen = self._processes.total(hits.to(self._processes.device)).tolist()
        return 100 * top1 / images_seen, 100 * top5 / images_seen

    def _save_last(self) -> None:
        states = (part.state_dict() for part in (self._model, self._optimizer, self._scaler))
        Saved(self._identity, self._pictures, self.history, *states).write(self._folder / LAST)


def _line(row: LogRow, epochs: int, best: bool) -> str:
    remark = ", best" if best else ""
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}, top-1 {row['top1']:.2f} %, top-5 {row['top5']:.2f} %, "
        f"rate {row['rate']:.2e}, {row['images_per_second']:.0f} img/s, {row['seconds']:.1f} s{remark}"
    )
