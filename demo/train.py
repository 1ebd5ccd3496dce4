"""Trains the demo's ResNeSt on demo/train in a few minutes on two cores: `python -m demo.train`.

Writes resnest_demo-<first 8 digits of its SHA-256>.pth, a plain state dict as the official files are, and
expected.json: what the network answers on demo/val, image by image, which every later stage must repeat.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ResNeSt.cards import Card, card
from ResNeSt.errors import run
from ResNeSt.files import sha256, stem, whole, write_json
from ResNeSt.labels import read_labels
from ResNeSt.models.resnest import ResNeSt, create_model
from ResNeSt.preprocess import find_images, tensor_maker
from ResNeSt.scoring import top_k_predictions
from ResNeSt.tensors import TensorFormat

DEMO = Path(__file__).parent
SEED = 0
BATCH = 64
PEAK_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.1


def main() -> None:
    """Trains, evaluates, writes the checkpoint and the expected answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40, help="[%(default)s]")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    found = card("resnest_demo")
    model = create_model(found.name)
    _train(model, *_load("train", found)[1:], epochs=options.epochs)
    checkpoint = _save(model, found)
    _evaluate(model, checkpoint, found)


def _load(split: str, found: Card) -> tuple[list[str], Tensor, Tensor]:
    """File names, float32 tensors (N, 3, S, S) as stage 1 makes them, and classes of a split."""
    made = TensorFormat(found.recipe, found.size, "float32", found.mean, found.std)
    make = tensor_maker(made)
    labels = read_labels(DEMO / f"{split}_label.txt")
    paths = find_images(DEMO / split)
    tensors = np.empty((len(paths), *made.shape), np.float32)
    for tensor, path in zip(tensors, tqdm(paths, unit="img", desc=f"read {split}", disable=None), strict=True):
        make(path, tensor)
    classes = torch.tensor([labels[stem(path)] for path in paths])
    return [os.path.basename(path) for path in paths], torch.from_numpy(tensors), classes


def _train(model: ResNeSt, images: Tensor, classes: Tensor, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), PEAK_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    batches = math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=epochs * batches)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for indices in torch.randperm(len(images)).split(BATCH):
            logits = model(_jitter(images[indices]))
            loss = functional.cross_entropy(logits, classes[indices], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch}/{epochs}: loss {total / batches:.4f}", flush=True)


def _jitter(images: Tensor) -> Tensor:
    """Turns (by up to 10 degrees), scales and shifts every image a little, each by amounts of its own."""
    count = len(images)
    angle = (torch.rand(count) - 0.5) * (math.pi / 9)
    scale = 1 + (torch.rand(count) - 0.5) * 0.3
    shift = (torch.rand(count, 2) - 0.5) * 0.2
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1)
    grid = functional.affine_grid(rows.reshape(count, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _save(model: ResNeSt, found: Card) -> Path:
    """Writes the state dict under a name that carries its own hash, in place of the one that was there."""
    for old in DEMO.glob(f"{found.name}-*.pth"):
        old.unlink()
    with whole(DEMO / f"{found.name}.pth") as temporary:
        torch.save(model.state_dict(), temporary)
    unnamed = DEMO / f"{found.name}.pth"
    return unnamed.rename(DEMO / f"{found.name}-{sha256(unnamed)[:8]}.pth")


def _evaluate(model: ResNeSt, checkpoint: Path, found: Card) -> None:
    names, images, classes = _load("val", found)
    with torch.inference_mode():
        logits = torch.cat([model.eval()(batch) for batch in images.split(BATCH)]).numpy()
    ranked = top_k_predictions(logits)
    hits = ranked == classes.numpy()[:, None]
    top1, top5 = float(hits[:, 0].mean()), float(hits.any(axis=1).mean())
    predicted = dict(zip(names, ranked[:, 0].tolist()))
    about = {"checkpoint": checkpoint.name, "torch": torch.__version__, "images": len(names)}
    write_json(DEMO / "expected.json", {**about, "top1": top1, "top5": top5, "predicted": predicted})
    print(f"{checkpoint.name}: top-1 {100 * top1:.2f} %, top-5 {100 * top5:.2f} % of {len(names)} images")
    print(f'ResNeSt/cards.json: "sha256": "{checkpoint.stem[-8:]}", "top1": {100 * top1:.2f}')


if __name__ == "__main__":
    run(main)
