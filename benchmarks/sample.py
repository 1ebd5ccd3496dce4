"""The original sample's three scripts, written anew after their description, as whole processes to be timed.

    python -m benchmarks.sample preprocess IMAGES TENSORS
    python -m benchmarks.sample infer MODEL TENSORS RESULTS     (ONNX Runtime in place of the NPU's client)
    python -m benchmarks.sample score RESULTS/summary.json LABELS

One process and one image at a time where the sample has it so; results are TXT files and joined to labels by position.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

SIZE, RESIZED = 224, 256
BATCH = 8


def preprocess(images: str, tensors: str) -> None:
    """Bilinear resize to 256x256, centre crop, float32, normalised; a .bin per image."""
    from PIL import Image

    mean, std = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)
    border = (RESIZED - SIZE) // 2
    Path(tensors).mkdir(exist_ok=True)
    for path in sorted(Path(images).glob("*.JPEG")):
        image = Image.open(path).convert("RGB").resize((RESIZED, RESIZED), Image.Resampling.BILINEAR)
        crop = np.asarray(image.crop((border, border, border + SIZE, border + SIZE)), dtype=np.float32)
        tensor = ((crop / 255 - mean) / std).transpose(2, 0, 1)
        np.ascontiguousarray(tensor).tofile(Path(tensors, f"{path.name.split('.')[0]}.bin"))


def infer(model: str, tensors: str, results: str) -> None:
    """Every tensor through ONNX Runtime at batch 8; a TXT file per image and a summary that lists them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    files = sorted(Path(tensors).glob("*.bin"))
    Path(results).mkdir(exist_ok=True)
    listed: dict[str, object] = {}
    for start in range(0, len(files), BATCH):
        paths = files[start : start + BATCH]
        batch = np.stack([np.fromfile(path, np.float32).reshape(3, SIZE, SIZE) for path in paths])
        for path, logits in zip(paths, session.run(None, {name: batch})[0]):
            target = Path(results, f"{path.stem}_0.txt")
            target.write_text(" ".join(f"{value:f}" for value in logits) + "\n")
            listed[str(len(listed))] = {"infiles": [str(path)], "outfiles": [str(target)]}
    Path(results, "summary.json").write_text(json.dumps({"filesinfo": listed}))


def score(summary: str, labels: str) -> None:
    """Top-1 and top-5, results and labels paired by position."""
    truth = [int(line.split()[1]) for line in Path(labels).read_text().splitlines()]
    entries = json.loads(Path(summary).read_text())["filesinfo"]
    hits = np.zeros(5)
    for entry, expected in zip(entries.values(), truth):
        with open(entry["outfiles"][0], encoding="utf-8") as file:
            logits = np.array(file.read().split(), dtype=np.float64)
        ranked = np.argsort(-logits)[:5]
        hits += np.cumsum(ranked == expected)
    print(f"top1_acc\t{hits[0] / len(truth):.4f}\ntop5_acc\t{hits[4] / len(truth):.4f}")


if __name__ == "__main__":
    script, *arguments = sys.argv[1:]
    globals()[script](*arguments)
