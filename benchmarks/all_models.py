"""Every published model at its own input size: images/s in fp32, bf16 and int8, and the peak memory of every stage.

Weights are random, since neither depends on them. Each stage is a process of its own; the compiled models of one
network then run in turns. The files are written anew after every model, so that an interrupted run keeps what it found.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.end_to_end import repeat_images
from benchmarks.inference import PRECISIONS, rate
from benchmarks.processes import spend
from benchmarks.rounds import interleave, report, save
from ResNeSt.engines.opening import open_engine
from ResNeSt.images.listing import find_images
from ResNeSt.models.cards import Card, card, names

BATCH = 8
IMAGES = 200
STAGES = ("preprocess", "export", "fp32", "bf16", "int8", "infer", "score")
SPEEDS = ("models", [f"images/s at batch {BATCH}", "input", *PRECISIONS])
PEAKS = ("models-memory", ["peak MB", "input", *STAGES])


def measure(images: Path, rounds: int, output: Path) -> None:
    """Prints and writes both tables."""
    speeds, peaks = [], []
    for model_card in (card(name) for name in names()):
        if model_card.url:
            with tempfile.TemporaryDirectory() as scratch:
                memory, speed = _measure(model_card, images, Path(scratch), rounds)
            speeds.append(
                [model_card.name, str(model_card.size), *(f"{speed[precision]:.3g}" for precision in PRECISIONS)]
            )
            peaks.append([model_card.name, str(model_card.size), *(f"{memory[stage]:.0f}" for stage in STAGES)])
            save(output, *SPEEDS, speeds)
            save(output, *PEAKS, peaks)
            print(f"{model_card.name}: measured", flush=True)
    report(output, *SPEEDS, speeds)
    report(output, *PEAKS, peaks)


def _measure(model_card: Card, images: Path, scratch: Path, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Peak megabytes by stage and images/s by precision."""
    few, labels = repeat_images(find_images(images), scratch / "few", IMAGES)
    tensors, onnx = scratch / "tensors", scratch / "m.onnx"
    compile_ = ("-m", "ResNeSt.convert", str(BATCH), "cpu", f"--onnx={onnx}")
    int8 = ("--precision=int8", f"--calibration={tensors}", "--min-agreement=0")
    models = {precision: scratch / precision / f"m_bs{BATCH}.xml" for precision in PRECISIONS}
    run_on = (f"--input={tensors}", f"--output={scratch}", "--output_dirname=result", "--outfmt=TXT")
    score = (f"--result_path={scratch / 'result_summary.json'}", f"--gt_path={labels}")
    spent = {
        "preprocess": spend("resnest_preprocess.py", few, tensors, f"--arch={model_card.name}"),
        "export": spend("resnest_pth2onnx.py", "--untrained", f"--arch={model_card.name}", f"--target={onnx}"),
        "fp32": spend(*compile_, f"--output={models['fp32'].parent}"),
        "bf16": spend(*compile_, f"--output={models['bf16'].parent}", "--precision=bf16"),
        "int8": spend(*compile_, f"--output={models['int8'].parent}", *int8),
        "infer": spend("-m", "ResNeSt.infer", f"--model={models['fp32']}", *run_on),
        "score": spend("ResNeSt_postprocess.py", *score),
    }
    speed = interleave({precision: rate(open_engine(model)) for precision, model in models.items()}, rounds)
    return {stage: each.megabytes for stage, each in spent.items()}, speed
