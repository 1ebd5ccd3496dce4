"""Renders scikit-learn's 1,797 scanned digits as photographs of ink on paper: `python -m demo.render`.

The same versions of NumPy and Pillow give the same pixels everywhere. Odd cases that real collections hold come at
fixed places of both splits: greyscale, CMYK, progressive, an EXIF orientation that must be ignored, a PNG under a
JPEG's name.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from tqdm import tqdm

from ResNeSt.common.errors import MissingRuntimeError, run
from ResNeSt.common.files import whole

DEMO = Path(__file__).parent

# Of every nine scans of a class, these two are for validation: 399 of 1,797.
VALIDATION_RANKS = (3, 7)

# Quality 40 keeps 1,797 pictures under 5 MB; a digit stays as clear as in the scan.
QUALITY = 40


def main() -> None:
    """Renders both splits into demo/train and demo/val, each with its label file."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    scans, labels = load_scans()
    for split, indices in split_by_class(labels).items():
        (DEMO / split).mkdir(exist_ok=True)
        lines = []
        for number, index in enumerate(tqdm(indices, unit="img", desc=split, disable=None), 1):
            name = f"digits_{split}_{number:08}.JPEG"
            with whole(DEMO / split / name) as temporary:
                save(photograph(scans[index], np.random.default_rng(index)), temporary, number)
            lines.append(f"{name} {labels[index]}\n")
        with whole(DEMO / f"{split}_label.txt") as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """The scans, float32 (1797, 8, 8) with 1 for full ink, and their classes, int (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingRuntimeError("scikit-learn, which ships the scans, is missing; pip install scikit-learn") from None
    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


def split_by_class(labels: np.ndarray) -> dict[str, list[int]]:
    """Indices for `train` and `val`, the same share of every class in both."""
    split: dict[str, list[int]] = {"train": [], "val": []}
    seen: Counter[int] = Counter()
    for index, label in enumerate(labels):
        split["val" if seen[label] % 9 in VALIDATION_RANKS else "train"].append(index)
        seen[label] += 1
    return split


def photograph(scan: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """An RGB picture, sides 160 to 360, of the scan in ink on unevenly lit paper, inside the 3/4 centre square."""
    width, height = _frame(rng)
    ink = rng.uniform(0.75, 1) * _strokes(scan, width, height, rng)[:, :, None]
    colour = rng.uniform(10, 60) + np.array([0, 0, rng.uniform(0, 70)])
    pixels = _paper(width, height, rng) * (1 - ink) + colour * ink
    return Image.fromarray((pixels + 0.5).astype(np.uint8))


def _frame(rng: np.random.Generator) -> tuple[int, int]:
    short = int(rng.integers(160, 241))
    long = round(short * rng.choice([1, 5 / 4, 4 / 3, 3 / 2]))
    return (short, long) if rng.random() < 0.5 else (long, short)


def _strokes(scan: np.ndarray, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (height, width), 0 for paper and 1 for ink: the scan enlarged smoothly, with the edge of a pen stroke."""
    short = min(width, height)
    side = int(short * rng.uniform(0.6, 0.72))
    left, top = ((np.array([width, height]) - side) / 2 + rng.uniform(-0.04, 0.04, 2) * short).astype(int)
    # One empty cell around the scan lets strokes that touch its border end round.
    large = Image.fromarray(np.pad(scan, 1)).resize((side, side), Image.Resampling.BICUBIC)
    edge = np.clip((np.asarray(large) - 0.2) / 0.5, 0, 1)
    strokes = np.zeros((height, width), np.float32)
    strokes[top : top + side, left : left + side] = edge * edge * (3 - 2 * edge)
    return strokes


def _paper(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width, 3) levels of off-white paper that is darker towards one side."""
    tone = rng.uniform(175, 250) * np.array([1, rng.uniform(0.94, 1), rng.uniform(0.8, 1)])
    across, down = rng.uniform(-0.15, 0.15, 2)
    x, y = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    light = (1 - abs(across) - abs(down)) + across * x + down * y
    return np.asarray(light[:, :, None] * tone)


def save(photo: Image.Image, path: Path, number: int) -> None:
    """Writes picture `number` of its split; two in ten are odd cases."""
    options: dict[str, Any] = {"format": "JPEG", "quality": QUALITY, "optimize": True}
    if number % 200 == 0:
        options = {"format": "PNG", "optimize": True}
    elif number % 20 == 3:
        photo = photo.convert("L")
    elif number % 20 == 7:
        photo = photo.convert("CMYK")
    elif number % 20 == 11:
        options["progressive"] = True
    elif number % 20 == 15:
        options["exif"] = _turned(6 if number % 40 == 15 else 3)
    photo.save(path, **options)


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


if __name__ == "__main__":
    run(main)
