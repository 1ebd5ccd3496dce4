"""Writes FOLDER/peer.ckpt, a ResNeSt with one block a stage of MindCV, and FOLDER/peer.npz: images and logits."""

from __future__ import annotations

import sys
from pathlib import Path

import mindspore
import numpy as np
from mindcv.models import create_model
from random_weights import CLASSES, images, values

KINDS = {"gamma": "scale", "moving_variance": "scale", "beta": "shift", "moving_mean": "shift", "bias": "shift"}


def main(folder: Path) -> None:
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    random = np.random.default_rng(0)
    model = create_model("resnest14", num_classes=CLASSES)
    for entry in model.get_parameters():
        made = values(KINDS.get(entry.name.rsplit(".", 1)[1], "weight"), entry.shape, random)
        entry.set_data(mindspore.Tensor(made))
    model.set_train(False)
    pictures = images(random)
    logits = model(mindspore.Tensor(pictures)).asnumpy()
    mindspore.save_checkpoint(model, str(folder / "peer.ckpt"))
    np.savez(folder / "peer.npz", images=pictures, logits=logits)


main(Path(sys.argv[1]))
