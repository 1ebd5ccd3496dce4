"""Peak memory and seconds of every stage on ResNeSt-50, each a process of its own, and the time to a first result.

Memory is the largest resident set that the kernel saw. The first result is one photograph's class, timed from the
start of the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.end_to_end import repeat_images
from benchmarks.models import MODEL
from benchmarks.processes import Spent, spend
from benchmarks.rounds import interleave, report
from ResNeSt.images.listing import find_images

FEW, MANY = 200, 20_000


def measure(images: Path, rounds: int, output: Path) -> None:
    """Prints and writes both tables."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        stages = _stages(images, scratch)
        rows = [[name, f"{spent.megabytes:.0f}", f"{spent.seconds:.1f}"] for name, spent in stages.items()]
        report(output, "stages-resnest50", ["stage", "peak MB", "seconds"], rows)
        one = repeat_images(find_images(images), scratch / "one", 1)
        models = {
            "PyTorch, .pth": scratch / f"{MODEL.name}.pth",
            "ONNX Runtime, .onnx": scratch / "fp32" / "m_sim.onnx",
            "compiled, fp32": scratch / "fp32" / "m_bs1.xml",
            "compiled, int8": scratch / "int8" / "m_bs1.xml",
        }
        _save_checkpoint(models["PyTorch, .pth"])
        firsts = interleave({who: _first(model, one) for who, model in models.items()}, rounds)
        report(
            output,
            "first-result-resnest50",
            ["first result", "seconds"],
            [[who, f"{s:.2f}"] for who, s in firsts.items()],
        )


def _stages(images: Path, scratch: Path) -> dict[str, Spent]:
    """What each stage spends, in the order in which they need one another."""
    few, labels = repeat_images(find_images(images), scratch / "few", FEW)
    many = repeat_images(find_images(images), scratch / "many", MANY)
    tensors, onnx, int8 = scratch / "tensors", scratch / "m.onnx", scratch / "int8"
    compile_ = ("-m", "ResNeSt.convert", "1,16", "cpu", f"--onnx={onnx}")
    return {
        f"preprocess, {FEW} images": spend("resnest_preprocess.py", few, tensors),
        "export": spend("resnest_pth2onnx.py", "--untrained", f"--target={onnx}"),
        "simplify and compile, fp32": spend(*compile_, f"--output={scratch / 'fp32'}"),
        "calibrate and compile, int8": spend(
            *compile_, "--precision=int8", f"--calibration={tensors}", "--min-agreement=0", f"--output={int8}"
        ),
        f"infer, {FEW} images, int8, batch 16": spend(
            "-m",
            "ResNeSt.infer",
            f"--model={int8 / 'm_bs16.xml'}",
            f"--input={tensors}",
            f"--output={scratch}",
            "--output_dirname=result",
            "--batchsize=16",
            "--outfmt=TXT",
        ),
        f"postprocess, {FEW} images": spend(
            "ResNeSt_postprocess.py", f"--result_path={scratch / 'result_summary.json'}", f"--gt_path={labels}"
        ),
        f"evaluate, {FEW:,} images, int8, batch 16": _evaluate(int8 / "m_bs16.xml", few, labels),
        f"evaluate, {MANY:,} images, int8, batch 16": _evaluate(int8 / "m_bs16.xml", *many),
    }


def _evaluate(model: Path, images: Path, labels: Path) -> Spent:
    return spend(
        "-m", "ResNeSt.evaluate", f"--model={model}", f"--images={images}", f"--labels={labels}", f"--arch={MODEL.name}"
    )


def _first(model: Path, one: tuple[Path, Path]) -> Callable[[], float]:
    return lambda: _evaluate(model, *one).seconds


def _save_checkpoint(path: Path) -> None:
    import torch

    from ResNeSt.models.resnest import create_model

    torch.save(create_model(MODEL.name).state_dict(), path)
