"""What decides how a network is trained.

The defaults are the published recipe, as the official PyTorch trainer has it (scripts/torch/train.py), without the
mixup and DropBlock that the paper adds.
"""

from __future__ import annotations

import dataclasses

from ResNeSt.common.errors import ArgumentError

AUGMENTATIONS = ("auto", "crop", "none")
PRECISIONS = ("float32", "bfloat16", "float16")
BASE_BATCH = 64  # images of a device that `rate` is for


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hyper-parameters (paper: arXiv 2004.08955, section 5.1; He et al., arXiv 1812.01187, for its tricks).

    `batch` is the images of one device, `rate` the peak learning rate for every 64 images of all devices' batches.
    `augment` is auto (random crop, flip and AutoAugment), crop (without AutoAugment) or none (the card's recipe);
    `min_area` the least share of the picture that a crop keeps. `clip` bounds the norm of the gradients, 0 does not.
    """

    epochs: int = 270
    warmup: int = 5
    batch: int = BASE_BATCH
    rate: float = 0.025
    momentum: float = 0.9
    decay: float = 1e-4
    smoothing: float = 0.1
    dropout: float = 0.2
    clip: float = 0.0
    augment: str = "auto"
    min_area: float = 0.08
    flip: bool = True
    precision: str = "float32"
    sync_bn: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.epochs > self.warmup >= 0):
            raise ArgumentError(f"--warmup {self.warmup}: expected 0 or more, and fewer than --epochs {self.epochs}")
        if self.batch < 2:
            raise ArgumentError(f"--batch {self.batch}: batch norm takes at least 2 images a device")
        if not (self.rate > 0 and 0 < self.min_area <= 1):
            raise ArgumentError(f"--rate {self.rate} and --min-area {self.min_area}: both above 0, the area at most 1")
        if min(self.decay, self.clip) < 0 or not all(
            0 <= share < 1 for share in (self.momentum, self.smoothing, self.dropout)
        ):
            raise ArgumentError(
                "--decay and --clip are at least 0; --momentum, --smoothing and --dropout are from 0 to below 1"
            )
