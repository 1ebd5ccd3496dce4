"""What decides how a network is trained; docs/training.md says from which published recipe each value is."""

from __future__ import annotations

import dataclasses
from typing import Any

from ResNeSt.common.errors import ArgumentError

AUGMENTATIONS = ("auto", "rand", "crop", "none")
PRECISIONS = ("float32", "bfloat16", "float16")
BASE_BATCH = 64  # images of a device that `rate` is for
WARMUP = 5  # epochs; a quarter of all where that is less

# What a preset changes of the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The paper's (arXiv 2004.08955, section 5.1), with the strengths of the official command (scripts/gluon).
    "paper": {
        "nesterov": True,
        "augment_whole": True,
        "jitter": 0.4,
        "lighting": 0.1,
        "mixup": 0.2,
        "dropblock": 0.1,
    },
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hyper-parameters (paper: arXiv 2004.08955, section 5.1; He et al., arXiv 1812.01187, for its tricks).

    `warmup` is None for the usual 5 epochs, or a quarter of fewer than 20. `batch` is the images of one device, `rate`
    the peak learning rate for every 64 images of all devices' batches. `augment` is auto (random crop, flip and
    AutoAugment), rand (RandAugment instead), crop (neither) or none (the card's recipe); `augment_whole` does it before
    the crop; `min_area` is the least share of the picture that a crop keeps. `jitter` is the greatest change of
    brightness, contrast and saturation, `lighting` the deviation of PCA noise, `mixup` the Beta distribution's alpha,
    `dropblock` the share of the last two stages' activations. `clip` bounds the norm of the gradients. 0 is none.
    """

    epochs: int = 270
    warmup: int | None = None
    batch: int = BASE_BATCH
    rate: float = 0.025
    momentum: float = 0.9
    nesterov: bool = False
    decay: float = 1e-4
    smoothing: float = 0.1
    dropout: float = 0.2
    dropblock: float = 0.0
    mixup: float = 0.0
    clip: float = 0.0
    augment: str = "auto"
    augment_whole: bool = False
    jitter: float = 0.0
    lighting: float = 0.0
    min_area: float = 0.08
    flip: bool = True
    precision: str = "float32"
    sync_bn: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ArgumentError(f"--epochs {self.epochs}: expected 1 or more")
        if not self.epochs > self.warmup_epochs >= 0:
            raise ArgumentError(
                f"--warmup-epochs {self.warmup}: expected 0 or more, and fewer than --epochs {self.epochs}"
            )
        if self.batch < 2:
            raise ArgumentError(f"--batch {self.batch}: batch norm takes at least 2 images a device")
        if self.augment not in AUGMENTATIONS or self.precision not in PRECISIONS:
            raise ArgumentError(
                f"--augment {self.augment} and --precision {self.precision}: expected one of "
                f"{', '.join(AUGMENTATIONS)}, and one of {', '.join(PRECISIONS)}"
            )
        if self.augment == "none" and (self.jitter or self.lighting or self.augment_whole):
            raise ArgumentError("--jitter, --lighting and --augment-whole take another --augment than none")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if not (0 < self.rate < float("inf") and 0 < self.min_area <= 1):
            raise ArgumentError(f"--rate {self.rate} and --min-area {self.min_area}: both above 0, the area at most 1")
        for names, most in (
            (("decay", "clip", "mixup", "lighting"), float("inf")),
            (("momentum", "smoothing", "dropout", "dropblock", "jitter"), 1),
        ):
            for name in names:
                value = getattr(self, name)
                if not 0 <= value < most:
                    below = "" if most > 1 else f" and below {most}"
                    raise ArgumentError(f"--{name} {value}: expected a number of at least 0{below}")
        if self.nesterov and self.momentum == 0:
            raise ArgumentError("--nesterov takes a --momentum above 0")

    @property
    def warmup_epochs(self) -> int:
        """Epochs in which the rate rises."""
        return min(WARMUP, self.epochs // 4) if self.warmup is None else self.warmup
