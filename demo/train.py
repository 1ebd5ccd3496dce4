"""Trains the demo's ResNeSt on demo/train in a few minutes on two cores: `python -m demo.train`.

Writes resnest_demo-<first 8 digits of its SHA-256>.pth, a plain state dict as the official files are, and
expected.json: what the network answers on demo/val, image by image, which every later stage must repeat.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.arguments import Parser
from ResNeSt.common.cores import cores
from ResNeSt.common.errors import run
from ResNeSt.common.files import sha256, whole, write_json
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud
from ResNeSt.images.decode import tensor_maker
from ResNeSt.images.listing import find_images
from ResNeSt.labels.file import read_labels
from ResNeSt.models.cards import Card, card
from ResNeSt.models.resnest import ResNeSt, create_model
from ResNeSt.score.ranking import top_k_predictions
from ResNeSt.tensors.format import TensorFormat
from ResNeSt.training.data import read_samples
from ResNeSt.training.distributed import joined
from ResNeSt.training.loop import LAST, Run, train
from ResNeSt.training.settings import Settings

DEMO = Path(__file__).parent
BATCH = 64
# No flips, since a digit in a mirror is another one, and no dropout in a network this small. AutoAugment's changes of
# colour and contrast leave activations that int8 holds well; with crops alone int8 lost 0.5 % of top-1.
SETTINGS = Settings(
    epochs=40,
    warmup=2,
    rate=0.1,
    decay=5e-4,
    dropout=0.0,
    clip=5.0,
    augment="auto",
    min_area=0.6,
    flip=False,
)


def main() -> None:
    """Trains, evaluates, writes the checkpoint and the expected answers."""
    options = make_parser().parse_args()
    model_card = card("resnest_demo")
    learned, judged_by = (read_samples(DEMO / split, DEMO / f"{split}_label.txt") for split in ("train", "val"))
    with joined("cpu") as alone:
        training_run = Run(model_card, SETTINGS, learned, judged_by, weights=None, workers=cores())
        train(training_run, options.output, alone, tensorboard=False, say=aloud)
    model = create_model(model_card.name)
    # The last epoch's, since the best one's accuracy on demo/val would be a matter of having been chosen by it.
    model.load_state_dict(torch.load(options.output / LAST, weights_only=True)["model"])
    _evaluate(model, _save(model, model_card), model_card)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m demo.train", description=__doc__)
    take(parser, "output", type=Path, default=Path("demo_training"))
    return parser


def _save(model: ResNeSt, model_card: Card) -> Path:
    """Writes the state dict under a name that carries its own hash, in place of the one that was there."""
    unnamed = DEMO / f"{model_card.name}.pth"
    with whole(unnamed) as temporary:
        torch.save(model.state_dict(), temporary)
    checkpoint = unnamed.rename(DEMO / f"{model_card.name}-{sha256(unnamed)[:8]}.pth")
    for old in set(DEMO.glob(f"{model_card.name}-*.pth")) - {checkpoint}:
        old.unlink()
    return checkpoint


def _evaluate(model: ResNeSt, checkpoint: Path, model_card: Card) -> None:
    """What the network answers on tensors as stage 1 makes them."""
    tensor_format = TensorFormat(model_card.recipe, model_card.size, "float32", model_card.mean, model_card.std)
    make, labels, paths = tensor_maker(tensor_format), read_labels(DEMO / "val_label.txt"), find_images(DEMO / "val")
    images = np.empty((len(paths), *tensor_format.shape), np.float32)
    for tensor, path in zip(images, paths, strict=True):
        make(path, tensor)
    with torch.inference_mode():
        logits = torch.cat([model.eval()(batch) for batch in torch.split(torch.from_numpy(images), BATCH)]).numpy()
    ranked = top_k_predictions(logits)
    hits = ranked == np.array([labels[stem(path)] for path in paths])[:, None]
    top1, top5 = float(hits[:, 0].mean()), float(hits.any(axis=1).mean())
    predicted = {os.path.basename(path): int(best) for path, best in zip(paths, ranked[:, 0], strict=True)}
    about = {"checkpoint": checkpoint.name, "torch": torch.__version__, "images": len(paths)}
    write_json(DEMO / "expected.json", {**about, "top1": top1, "top5": top5, "predicted": predicted})
    print(f"{checkpoint.name}: top-1 {100 * top1:.2f} %, top-5 {100 * top5:.2f} % of {len(paths)} images")
    print(f'ResNeSt/models/cards.json: "sha256": "{checkpoint.stem[-8:]}", "top1": {100 * top1:.2f}')


if __name__ == "__main__":
    run(main)
