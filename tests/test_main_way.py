"""The original sample's commands, word for word and nothing in between, for networks of full size and photographs."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from ResNeSt.models.cards import card
from ResNeSt.models.resnest import create_model
from tests.conftest import call

pytest.importorskip("onnxsim")

CHECKPOINTS = {"resnest50": "resnest50-528c19ca.pth", "resnest101": "resnest101-22405ba7.pth"}
SPELLINGS = ["--input-shape={shape}", "--overwrite-input-shape={shape}"]
# Every batch size once; what it compiles to does not depend on the spelling.
CASES = [
    ("resnest50", SPELLINGS[0], (1, 4)),
    ("resnest50", SPELLINGS[1], (4,)),
    ("resnest101", SPELLINGS[0], (4,)),
]
COUNTS = {"resnest50": 13, "resnest101": 5}  # of photographs; int8 takes twelve


class Work(NamedTuple):
    """A folder with a checkpoint, its ONNX file, tensors of photographs, and labels that PyTorch gave them."""

    folder: Path
    name: str
    logits: dict[str, np.ndarray]

    def run(self, *command: object, env: dict[str, str] | None = None) -> str:
        script = str(command[0]).endswith(".sh")
        done: subprocess.CompletedProcess[str] = call(*command, cwd=self.folder, env=env, fresh=script)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_pytorch_s(self, outputs: str) -> bool:
        """Whether the TXT results in a folder are PyTorch's logits, image by image."""
        found = {path.stem[:-2]: np.loadtxt(path) for path in (self.folder / outputs).glob("*_0.txt")}
        return found.keys() == self.logits.keys() and all(
            np.abs(found[name] - expected).max() <= 1e-4 * np.abs(expected).max()
            for name, expected in self.logits.items()
        )


def photographs(folder: Path, count: int) -> None:
    """Parts of scikit-learn's two photographs, of several sizes."""
    datasets = pytest.importorskip("sklearn.datasets")
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = datasets.load_sample_image(("china.jpg", "flower.jpg")[number % 2])
        part = pixels[10 * number : 300 + 9 * number, 14 * number : 500 - 12 * number]
        Image.fromarray(part).save(folder / f"ILSVRC2012_val_{number + 1:08}.JPEG", quality=90)


def network(name: str, images: torch.Tensor) -> torch.nn.Module:
    """Seeded weights, and a classifier that tells these images apart by far more than rounding."""
    torch.manual_seed(1)
    model = create_model(card(name)).eval()
    with torch.no_grad():
        logits = model(images)
        model.fc.bias.sub_(logits.mean(0))
        for parameter in model.fc.parameters():
            parameter.div_((logits - logits.mean(0)).std())
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Work]:
    """Stages 1 and 2 up to the ONNX file, once for each network."""

    @functools.cache
    def make(name: str) -> Work:
        folder = tmp_path_factory.mktemp(name)
        photographs(folder / "imagenet/val", COUNTS[name])
        work = Work(folder, name, {})
        model_flag = [] if name == "resnest50" else [f"--model={name}"]
        work.run("resnest_preprocess.py", "./imagenet/val", "./prep_dataset", *model_flag)
        paths = sorted((folder / "prep_dataset").glob("*.bin"))
        values = np.stack([np.fromfile(path, np.float32) for path in paths])
        images = torch.from_numpy(values.reshape(len(paths), 3, card(name).size, card(name).size))
        model = network(name, images)
        torch.save(model.state_dict(), folder / CHECKPOINTS[name])
        with torch.inference_mode():
            work.logits.update(zip((path.stem for path in paths), model(images).numpy(), strict=True))
        assert len({int(row.argmax()) for row in work.logits.values()}) > 1
        labels = "".join(f"{image}.JPEG {row.argmax()}\n" for image, row in work.logits.items())
        (folder / "val_label.txt").write_text(labels)
        work.run("resnest_pth2onnx.py", f"--source={CHECKPOINTS[name]}", f"--target={name}.onnx")
        return work

    return make


@pytest.fixture(scope="module")
def simplified(exported: Callable[[str], Work], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Work]:
    """And simplified by onnxsim's own command, once for each network and spelling."""

    @functools.cache
    def make(name: str, spelling: str) -> Work:
        work: Work = exported(name)
        flag = spelling.format(shape=f"1,3,{card(name).size},{card(name).size}")
        for leftover in work.folder.glob("*_sim.onnx*"):
            leftover.unlink()
        work.run("-m", "onnxsim", flag, f"{name}.onnx", f"{name}_sim.onnx")
        return work

    return make


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "spelling", "batches"), CASES)
def test_on_cpu_they_end_in_pytorch_s_answers_at_every_batch_size(
    name: str, spelling: str, batches: tuple[int, ...], simplified: Callable[[str, str], Work]
) -> None:
    work = simplified(name, spelling)
    assert (work.folder / f"{name}_sim.onnx.data").is_file()  # what onnxsim does above 100 MB, and never for the demo
    onnx_flag = [] if name == "resnest50" else [f"--onnx={name}.onnx"]
    printed = work.run("convert.sh", ",".join(map(str, batches)), "cpu", *onnx_flag)
    assert not {"simplified from", "up to date"} & set(printed.split(": "))
    for batch in batches:
        flags = [f"--model={name}_bs{batch}.xml", "--input=./prep_dataset", "--output=./out", "--outfmt=TXT"]
        work.run("-m", "ResNeSt.infer", *flags, f"--output_dirname=result_bs{batch}", f"--batchsize={batch}")
        assert work.is_pytorch_s(f"out/result_bs{batch}")
        score = [f"--result_path=out/result_bs{batch}_summary.json", "--gt_path=val_label.txt"]
        assert "top1_acc\t1.0000" in work.run("ResNeSt_postprocess.py", *score)


@pytest.mark.heavy
@pytest.mark.parametrize("standins", ["0.1.0"], indirect=True)
def test_on_an_ascend_host_they_end_in_a_row_a_batch_size(
    simplified: Callable[[str, str], Work], standins: dict[str, str]
) -> None:
    """With stand-ins for ATC and ais_bench: ATC gets one file with the weights in it."""
    work = simplified("resnest50", SPELLINGS[0])
    said = work.run("-m", "ResNeSt.convert", "1,4", "310P3", "--dry-run", env=standins)
    assert "--model=resnest50_sim.onnx" in said
    work.run("convert.sh", "1,4", "310P3", env=standins)
    table = work.run("bench.sh", "1,4", "310P3", "--loop=2", env=standins)
    rows = [line.split()[:3] for line in table.splitlines()[2:4]]
    assert [(row[0].rstrip("*"), *row[1:]) for row in rows] == [("1", "100.00", "100.00"), ("4", "100.00", "100.00")]
    for batch in (1, 4):
        assert work.is_pytorch_s(f"bench/result_bs{batch}")


@pytest.mark.heavy
def test_every_other_command_takes_resnest50_and_photographs(simplified: Callable[[str, str], Work]) -> None:
    """1,000 classes, 224 pixels, weights in two files: none of it is so in the demo."""
    work = simplified("resnest50", SPELLINGS[0])
    pictures = ["--images=imagenet/val", "--labels=val_label.txt"]
    tensors = "--input=prep_dataset"
    assert "top1_acc\t1.0000" in work.run("-m", "ResNeSt.evaluate", "--model=resnest50_sim.onnx", *pictures)
    answers = work.run("-m", "ResNeSt.predict", "--model=resnest50_sim.onnx", "imagenet/val", "--format=csv", "--top=1")
    found = {Path(line.split(",")[0]).stem: int(line.split(",")[2]) for line in answers.splitlines()[1:]}
    assert found == {image: int(row.argmax()) for image, row in work.logits.items()}
    layers = work.run("-m", "ResNeSt.compare", "--layers", "resnest50.onnx", "resnest50_sim.onnx", tensors, "--count=1")
    assert "the graphs do not part" in layers
    made = work.folder / "work/resnest50"
    made.mkdir(parents=True)
    shutil.copy(work.folder / "resnest50.onnx", made)
    weights = f"--weights={CHECKPOINTS['resnest50']}"
    int8 = ["--precision=int8", "--calibration=prep_dataset", "--min-agreement=0"]
    printed = work.run("-m", "ResNeSt.pipeline", *pictures, weights, *int8, "--batch=4", "--loop=1")
    assert "float32 NCHW, int8" in printed
    rows = [line for line in printed.splitlines() if line.startswith(("PyTorch ", "ONNX ", "simplified ONNX "))]
    assert [row.count("13 of 13") for row in rows] == [1, 1, 1]


@pytest.mark.heavy
def test_the_simplified_resnest50_is_convolutions_and_element_wise_operators_in_four_dimensions(
    simplified: Callable[[str, str], Work],
) -> None:
    model = onnx.shape_inference.infer_shapes(
        onnx.load(simplified("resnest50", SPELLINGS[0]).folder / "resnest50_sim.onnx")
    )
    ranks = {len(value.type.tensor_type.shape.dim) for value in model.graph.value_info}
    assert max(ranks) == 4
    unwanted = {"Shape", "Gather", "Reshape", "Transpose", "Softmax", "Split", "Concat", "BatchNormalization"}
    assert not unwanted & {node.op_type for node in model.graph.node}
    groups = [attribute.i for node in model.graph.node for attribute in node.attribute if attribute.name == "group"]
    assert set(groups) == {1}
