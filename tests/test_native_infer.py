"""native/resnest_infer gives the files, lines and answers of the Python way; skipped where it cannot be built."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt import __version__
from ResNeSt.common.errors import PipelineError
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.evaluate import evaluate
from ResNeSt.images.listing import picture_suffixes
from ResNeSt.images.preprocess import preprocess
from ResNeSt.infer.inference import Inference, infer
from ResNeSt.score.predictions import reader_of
from ResNeSt.tensors.format import TensorFormat
from tests import on_ascend
from tests.conftest import PROJECT, STANDINS, Completed, assert_refused, call

NUMBER = re.compile(r"\d+\.\d+(e-?\d+)?")
DEMO = PROJECT / "demo/val"
PHOTOGRAPHS = [path for path in sorted(DEMO.iterdir())[:30] if path.suffix == ".JPEG"]
ACL = STANDINS / "acl"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once; who lacks a compiler skips the tests and reads why."""
    folder = tmp_path_factory.mktemp("native")
    environment = {**os.environ, "PYTHON": sys.executable}
    result = subprocess.run(
        ["bash", PROJECT / "native/build.sh", folder], env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode and "could" not in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    assert "runs OpenVINO (.xml) and AscendCL (.om)" in result.stdout
    return folder / "resnest_infer"


def run(program: Path, *flags: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Completed:
    command = [str(program), *map(str, flags)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="session")
def models(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo network on cpu, by what it takes and the precision it runs in."""
    asked: dict[str, dict[str, Any]] = {
        "float32": {"batches": [4]},
        "uint8": {"batches": [4], "dtype": "uint8"},
        "bf16": {"batches": [4], "precision": "bf16"},
        "free": {"batches": [1, 8], "dynamic_batch": True},
    }
    made = {}
    for name, options in asked.items():
        folder = tmp_path_factory.mktemp(name)
        batches = options.pop("batches")
        convert(Conversion(demo_onnx, batches, "cpu", folder, **options))
        (made[name],) = folder.glob("*.xml")
    return made


@pytest.fixture(scope="session")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ten photographs of the demo as tensors, by their dtype."""
    root = tmp_path_factory.mktemp("tensors")
    (root / "pictures").mkdir()
    for path in PHOTOGRAPHS[:10]:
        shutil.copy(path, root / "pictures")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    for dtype in ("float32", "uint8"):
        preprocess(root / "pictures", root / dtype, TensorFormat("ecentercrop-bicubic", 96, dtype, mean, std))
    return {dtype: root / dtype for dtype in ("float32", "uint8")}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


CASES = [
    ("float32", "TXT", []),
    ("float32", "NPY", []),
    ("uint8", "BIN", []),
    ("bf16", "BIN", []),
    ("free", "BIN", [3]),
]


@pytest.mark.parametrize(("kind", "outfmt", "batch"), CASES)
def test_tensors_give_the_files_and_lines_of_the_python_way(
    kind: str, outfmt: str, batch: list[int], program: Path, models: dict[str, Path], tensors: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = tensors["uint8" if kind == "uint8" else "float32"]
    said: list[str] = []
    asked = Inference(models[kind], folder, tmp_path / "out", "r", outfmt, batch=batch[0] if batch else None)
    infer(asked, said.append)
    expected, told = files(tmp_path / "out/r"), json.loads((tmp_path / "out/r_summary.json").read_text())
    flags = [f"--model={models[kind]}", f"--input={folder}", f"--output={tmp_path}/out", "--output_dirname=r"]
    (tmp_path / "out/r/.resnest_infer-1.part").write_text("what a killed process left")
    result = run(program, *flags, "--outfmt", outfmt, *(f"--dymBatch={size}" for size in batch))
    assert result.returncode == 0, result.stderr
    assert files(tmp_path / "out/r") == expected
    assert len(expected) == 10
    assert without_numbers(result.stdout) == without_numbers("".join(f"[INFO] {line}\n" for line in said))
    found = json.loads((tmp_path / "out/r_summary.json").read_text())
    assert list(found) == list(told)
    assert found["filesinfo"] == told["filesinfo"]
    assert list(found["NPU_compute_time"]) == list(told["NPU_compute_time"])


def test_a_npy_gives_the_values_that_numpy_reads(program: Path, models: dict[str, Path], tmp_path: Path) -> None:
    """With an axis of one image, without axes, and before bytes that are none of it; what has others is refused."""
    values = np.random.default_rng(0).random((3, 96, 96), np.float32)
    (tmp_path / "in").mkdir()
    for name, tensor in {"a": values, "b": values[None], "c": values.ravel(), "d": values * 2}.items():
        np.save(tmp_path / f"in/{name}.npy", tensor)
    with open(tmp_path / "in/d.npy", "ab") as file:
        file.write(b"more")
    infer(Inference(models["float32"], tmp_path / "in", tmp_path / "python", "r"))
    flags = [f"--model={models['float32']}", f"--output={tmp_path}/native", "--output_dirname=r"]
    assert run(program, *flags, f"--input={tmp_path}/in").returncode == 0
    assert files(tmp_path / "native/r") == files(tmp_path / "python/r")
    refused: dict[str, Any] = {
        "its axes are in Fortran's order": np.asfortranarray(values),
        "of shape (96, 96, 3), the model takes (3, 96, 96)": values.transpose(1, 2, 0).copy(),
        "holds <f8, the model takes float32": values.astype(np.float64),
        "holds >f4, the model takes float32": values.astype(">f4"),
    }
    for words, other in refused.items():
        np.save(tmp_path / "x.npy", other)
        assert_refused(run(program, *flags, f"--input={tmp_path}/x.npy"), f"x.npy: {words}")
    header = (
        b"{'descr': '<f4', 'fortran_order': False, 'fortran_order': True, 'shape': (3, 96, 96), }"  # the last counts
    )
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + bytes([len(header), 0]) + header + values.tobytes())
    assert_refused(
        run(program, *flags, f"--input={tmp_path}/x.npy"), "x.npy: its header has other fields than a .npy has"
    )
    np.savez(tmp_path / "in/e.npz", values)
    assert_refused(run(program, *flags, f"--input={tmp_path}/in"), "in: holds e.npz, this program reads .bin and .npy")


@pytest.mark.parametrize("kind", ["xml", "om"])
def test_ctrl_c_ends_a_run_at_once_and_gives_everything_back(
    kind: str, program: Path, models: dict[str, Path], acl: Path, oms: dict[str, Path], tmp_path: Path,
    tensors: dict[str, Path],
) -> None:  # fmt: skip
    model = models["float32"] if kind == "xml" else oms["static"]
    environment_ = {**os.environ, **environment(acl, tmp_path / "report"), "STANDIN_ACL_ZEROS": "1"}
    flags = [
        f"--model={model}",
        f"--input={tensors['float32']}",
        "--loop=99999999",
        "--output=out",
        "--output_dirname=r",
    ]
    with subprocess.Popen(
        [program, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment_
    ) as running:
        assert running.stdout
        assert running.stderr
        assert any("warm up 1 done" in line for line in iter(running.stdout.readline, ""))
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
        assert running.stderr.read() == "error: interrupted; run the same command again\n"
    assert not list(tmp_path.glob("out/*_summary.json"))
    if kind == "om":
        assert counts(tmp_path / "report")["left"] == 0


def without_numbers(text: str) -> list[str]:
    return [NUMBER.sub("#", line) for line in text.splitlines()]


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_a_pure_run_of_zeros_has_the_python_way_s_results(
    kind: str, program: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    """Its random data are other ones; they are not those of ais_bench either way."""
    infer(Inference(models[kind], None, tmp_path / "python", "r", loop=3))
    flags = [f"--model={models[kind]}", f"--output={tmp_path}/native", "--loop=3"]
    assert run(program, *flags, "--output_dirname=r").returncode == 0
    assert files(tmp_path / "native/r") == files(tmp_path / "python/r")
    told = json.loads((tmp_path / "native/r_summary.json").read_text())
    assert (told["NPU_compute_time"]["count"], told["H2D_latency"]["count"]) == (3, 1)
    times = np.array(told["npu_compute_time_list"])
    assert told["NPU_compute_time"]["percentile(99%)"] == pytest.approx(np.percentile(times, 99))
    assert run(program, *flags, "--output_dirname=x", "--pure_data_type=random").returncode == 0
    zeros, randoms = files(tmp_path / "native/r"), files(tmp_path / "native/x")
    assert zeros.keys() == randoms.keys()
    assert zeros != randoms


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Photographs that the library decodes, in folders of two classes, a link that leads back, and the labels."""
    folder = tmp_path / "some pictures\u00e9"
    labels = dict(line.rsplit(" ", 1) for line in (PROJECT / "demo/val_label.txt").read_text().splitlines())
    lines = []
    for number, path in enumerate(path for path in PHOTOGRAPHS if "cmyk" not in kind_of(path)):
        of_class = folder / ("n0", "n1\u00e9\x7f")[number % 2]
        of_class.mkdir(parents=True, exist_ok=True)
        name = path.name.replace("_000", "_") if number % 3 else path.name  # numbers count, not their zeros
        shutil.copy(path, of_class / name)
        lines.append(f"{name} {labels[path.name]}")
    (folder / "n0/above").symlink_to(folder)
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    return folder


def kind_of(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        return image.mode.lower() if image.format == "JPEG" else "cmyk"


def assert_same_predictions(found: Path, expected: Path) -> None:
    """Line by line, but for the first, which says what the run was of, and for what EXIF says."""
    lines = expected.read_bytes().replace(b',"unturned":true', b"").split(b"\n")
    assert found.read_bytes().split(b"\n")[1:] == lines[1:]
    reader, other = reader_of(found), reader_of(expected)
    assert reader
    assert other
    assert reader(found) == other(expected)


@pytest.mark.parametrize(("kind", "flags"), [("float32", []), ("uint8", ["--instances=1"]), ("free", ["--batch=5"])])
def test_photographs_give_the_answers_and_the_predictions_of_evaluate(
    kind: str, flags: list[str], program: Path, models: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    batch = 5 if kind == "free" else None
    told = evaluate(ModelChoice(models[kind], batch=batch), photographs, labels, tmp_path / "expected")
    data = [f"--images={photographs}", f"--labels={labels}", "--predictions=found"]
    result = run(program, f"--model={models[kind]}", *data, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert_same_predictions(tmp_path / "found", tmp_path / "expected")
    assert f"top1_correct={told.score.top1}, tot={told.score.total}," in result.stdout
    assert f"top5_acc\t{told.score.top5_acc:.4f}\n" in result.stdout
    assert re.search(r"\d+ images in \d+\.\d s, \d+\.\d img/s", result.stdout)


def test_of_equal_logits_the_lower_class_comes_first(
    program: Path, models: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    """Of a network whose last layer gives nothing."""
    told = models["float32"].read_text()
    weights = bytearray(models["float32"].with_suffix(".bin").read_bytes())
    last = re.findall(r'shape="10(?:, 256, 1, 1)?" offset="(\d+)" size="(\d+)"', told)
    assert len(last) == 2
    for offset, size in last:
        weights[int(offset) : int(offset) + int(size)] = bytes(int(size))
    (tmp_path / "m.xml").write_text(told)
    (tmp_path / "m.bin").write_bytes(weights)
    evaluate(ModelChoice(tmp_path / "m.xml"), photographs, tmp_path / "labels.txt", tmp_path / "expected")
    flags = ["--model=m.xml", f"--images={photographs}", "--labels=labels.txt", "--predictions=found"]
    assert run(program, *flags, cwd=tmp_path).returncode == 0
    assert_same_predictions(tmp_path / "found", tmp_path / "expected")
    assert '"classes":[0,1,2,3,4]' in (tmp_path / "found").read_text()


def test_what_is_not_decoded_here_is_named_and_fails_unless_allowed(
    program: Path, models: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    (photographs / "n0" / "odd.png").write_bytes(b"\x89PNG")
    with open(tmp_path / "labels.txt", "a") as file:
        file.write("\nodd.png 3\n")
    flags = [f"--model={models['float32']}", f"--images={photographs}", f"--labels={tmp_path}/labels.txt"]
    result = run(program, *flags)
    assert result.returncode == 1
    assert "broken: 1 images that cannot be decoded (exit code 1; --allow-broken accepts them)" in result.stdout
    assert "odd.png: not a JPEG that is decoded here" in result.stdout
    assert run(program, *flags, "--allow-broken").returncode == 0
    assert_refused(run(program, *flags, "--predictions=none/p"), "none/p: No such file or directory; name a file")
    (tmp_path / "labels.txt").write_text("\ufeffgone.png 3\rodd.png 3\r\n")
    result = run(program, *flags, "--allow-extra", "--allow-missing", "--allow-broken")
    assert "top1_correct=0, tot=0, acc=nan%" in result.stdout


def test_a_photograph_that_may_not_be_read_stops_no_others(
    program: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    user = None if os.geteuid() else 65534  # root may read all; of the folders above this one nothing
    (tmp_path / "pictures").mkdir()
    for source in (program, models["float32"], models["float32"].with_suffix(".bin")):
        shutil.copy(source, tmp_path)
    for number, path in enumerate(PHOTOGRAPHS[:3]):
        shutil.copy(path, tmp_path / f"pictures/{number}.jpg")
    (tmp_path / "pictures/1.jpg").chmod(0)
    (tmp_path / "labels").write_text("0.jpg 0\n1.jpg 0\n2.jpg 0\n")
    tmp_path.chmod(0o755)
    command = [f"./{program.name}", "--model", models["float32"].name, "--images=pictures", "--labels=labels"]
    result = subprocess.run([*command, "--allow-broken"], cwd=tmp_path, capture_output=True, text=True, user=user)
    if result.returncode == 127:
        pytest.skip("another user may not read this Python's OpenVINO")
    assert result.returncode == 0, result.stderr
    assert "tot=2," in result.stdout
    assert "broken: 1 images" in result.stdout
    assert (
        "pictures/1.jpg: not a JPEG that is decoded here (another format, damaged, or not to be read)" in result.stdout
    )


def test_evaluate_goes_on_with_no_predictions_of_this_program(
    program: Path, models: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    flags = [f"--model={models['float32']}", f"--images={photographs}", "--labels=labels.txt"]
    assert run(program, *flags, "--predictions=p.unfinished", cwd=tmp_path).returncode == 0
    with pytest.raises(PipelineError, match="is of a run with another"):
        evaluate(ModelChoice(models["float32"]), photographs, tmp_path / "labels.txt", tmp_path / "p")


def test_a_model_that_this_program_cannot_run_rightly_is_refused(
    program: Path, models: dict[str, Path], photographs: Path, demo_onnx: Path, tmp_path: Path
) -> None:
    """One that nobody has checked, and NV12, which no photograph is made into here."""
    source = models["float32"].read_text()
    (tmp_path / "m.xml").write_text(re.sub(r"<resnest>.*?</resnest>", "", source, flags=re.DOTALL))
    shutil.copy(models["float32"].with_suffix(".bin"), tmp_path / "m.bin")
    assert_refused(run(program, "--model=m.xml", cwd=tmp_path), "m.xml: is not from convert.sh", "ResNeSt.infer")
    convert(Conversion(demo_onnx, [4], "cpu", tmp_path / "nv12", dtype="yuv420sp"))
    (nv12,) = (tmp_path / "nv12").glob("*.xml")
    photos = [f"--images={photographs}", f"--labels={tmp_path}/labels.txt"]
    assert_refused(run(program, f"--model={nv12}", *photos), f"{nv12}: takes yuv420sp", "ResNeSt.evaluate")


def test_the_suffixes_that_count_as_pictures_are_pillow_s() -> None:
    source = (PROJECT / "native/infer/pictures.cpp").read_text()
    listed = set(re.findall(r'"(\.[a-z0-9]+)"', source[source.index("SUFFIXES{") : source.index("OF_A_SYSTEM{")]))
    assert listed == picture_suffixes()


# Flags, and what the tensors' folder is made into before.
REFUSED = {
    "no model": ["--model=none.xml"],
    "another size": ["--dymBatch=3"],
    "no folder": ["--input=nowhere"],
    "no tensors": ["--input=empty"],
    "absolute name": ["--input=prep", "--output=out", "--output_dirname=/x"],
    "output in input": ["--input=prep", "--output=prep", "--output_dirname=x"],
    "a size that does not divide": ["--input=odd"],
    "cut short": ["--input=short"],
    "not all there": ["--input=unfinished"],
    "of another dtype": ["--input=npy"],
    "a link as result": ["--input=prep", "--output=linked", "--output_dirname=r"],
    "nonsense": ["--input=nonsense"],
    "another device": ["--device=1"],
}


def about(line: str) -> str:
    """The file or the flag that an error names."""
    found = re.search(r"error: (argument )?(--\w+|[^:]*)", line)
    assert found
    return found[2]


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_as_by_the_python_way(
    case: str, program: Path, models: dict[str, Path], tensors: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("prep", "short", "unfinished", "odd", "npy", "nonsense"):
        shutil.copytree(tensors["float32"], tmp_path / name)
    first, *_, last = sorted((tmp_path / "short").glob("*.bin"))
    last.write_bytes(b"\0" * 8)
    next((tmp_path / "unfinished").glob("*.bin")).unlink()
    (tmp_path / "odd" / first.name).write_bytes(b"\0" * 1000)
    (tmp_path / "nonsense/tensors.json").write_text("[1")
    for path in ((tmp_path / "npy").glob("*"), (tmp_path / "npy").glob("*.npy")):
        for each in path:
            each.unlink()
    np.save(tmp_path / "npy/a.npy", np.zeros((3, 96, 96)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked/r").mkdir(parents=True)
    (tmp_path / "linked/r" / f"{first.stem}_0.bin").symlink_to("elsewhere")
    shutil.copy(models["float32"], tmp_path / "m.xml")
    shutil.copy(models["float32"].with_suffix(".bin"), tmp_path / "m.bin")
    flags = [*([] if case == "no model" else ["--model=m.xml"]), *REFUSED[case]]
    expected = call("-m", "ResNeSt.infer", *flags, cwd=tmp_path)
    found = run(program, *flags, cwd=tmp_path)
    assert found.returncode == expected.returncode != 0
    (ours,), theirs = found.stderr.splitlines(), expected.stderr.splitlines()[-1]
    assert about(ours) == about(theirs) or "[ERROR] arg0" in theirs
    assert not list(tmp_path.glob("**/*_summary.json"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "the following arguments are required: --model"),
        (["--model=m.xml", "--loop=0"], "argument --loop: 0 is not a whole number from 1 to 999999999"),
        (["--model=m.xml", "--outfmt=CSV"], "argument --outfmt: invalid choice: 'CSV'"),
        (["--model=m.xml", "--nothing"], "unrecognized arguments: --nothing"),
        (["--model=m.onnx"], "m.onnx: not a model that this program runs"),
        (["--model=m.xml", "--images=d"], "--images and --labels"),
        (["--model=m.xml", "--predictions=p"], "argument --predictions: is not for tensors"),
        (["--model=m.om", "--instances=2"], "argument --instances"),
    ],
)
def test_options_that_cannot_be_carried_out_are_refused(
    flags: list[str], words: str, program: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").touch()
    assert_refused(run(program, *flags, cwd=tmp_path), words, code=2)


@pytest.fixture(scope="session")
def acl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in libascendcl.so, compiled here."""
    folder = tmp_path_factory.mktemp("acl")
    infer = PROJECT / "native/infer"
    flags = ["-std=c++17", "-shared", "-fPIC", f"-I{infer}", "-o", str(folder / "libascendcl.so")]
    subprocess.run([os.environ.get("CXX", "c++"), *flags, ACL / "libascendcl.cpp", infer / "json.cpp"], check=True)
    return folder


@pytest.fixture(scope="session")
def oms(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stand-in models of one size and of several."""
    made = {}
    path = f"{STANDINS / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for name, flags in {"static": ["4"], "dynamic": ["1,4", "--dynamic-batch"]}.items():
        folder = tmp_path_factory.mktemp(name)
        command = ["convert.sh", *flags, "310P3", f"--onnx={demo_onnx}", f"--output={folder}"]
        result = call(*command, env={"PATH": path, "STANDIN_PYTHON": sys.executable})
        assert result.returncode == 0, result.stderr
        (made[name],) = folder.glob("*.om")
    return made


def environment(acl: Path, report: Path) -> dict[str, str]:
    return {
        "LD_LIBRARY_PATH": str(acl),
        "STANDIN_PYTHON": sys.executable,
        "STANDIN_ACL_SESSION": str(ACL / "session.py"),
        "STANDIN_ACL_REPORT": str(report),
        "PYTHONPATH": f"{STANDINS}{os.pathsep}{STANDINS / 'versions/0.0.2'}",
    }


def counts(report: Path) -> dict[str, int]:
    return {name: int(count) for name, count in map(str.split, report.read_text().splitlines())}


@pytest.mark.parametrize(("kind", "flags"), [("static", []), ("dynamic", ["--dymBatch=4"])])
def test_a_om_gives_the_files_of_ais_bench_and_everything_back(
    kind: str, flags: list[str], program: Path, oms: dict[str, Path], acl: Path, tensors: dict[str, Path],
    standins: dict[str, str], tmp_path: Path,
) -> None:  # fmt: skip
    shutil.copytree(tensors["float32"], tmp_path / "prep")
    common = [f"--model={oms[kind]}", "--input=./prep", "--outfmt=TXT", "--output_dirname=r", *flags]
    for name in ("real", "native"):
        (tmp_path / name).mkdir(mode=0o750)
    expected = call("-m", "ais_bench", *common, "--output=./real", cwd=tmp_path, env=standins)
    assert expected.returncode == 0, expected.stderr
    result = run(program, *common, "--output=./native", cwd=tmp_path, env=environment(acl, tmp_path / "report"))
    assert result.returncode == 0, result.stderr
    assert files(tmp_path / "native/r") == files(tmp_path / "real/r")
    printed = expected.stdout.replace("./real", "./native")
    assert without_numbers(result.stdout) == [line for line in without_numbers(printed) if line.startswith("[INFO]")]
    found = counts(tmp_path / "report")
    assert (found["left"], found["refused"]) == (0, 0)


def test_photographs_through_a_om_give_the_predictions_of_evaluate(
    program: Path, oms: dict[str, Path], acl: Path, photographs: Path, standins: dict[str, str], tmp_path: Path
) -> None:
    flags = [f"--model={oms['static']}", f"--images={photographs}", "--labels=labels.txt"]
    expected = call("-m", "ResNeSt.evaluate", *flags, "--predictions=expected", cwd=tmp_path, env=standins)
    assert expected.returncode == 0, expected.stderr
    result = run(program, *flags, "--predictions=found", cwd=tmp_path, env=environment(acl, tmp_path / "report"))
    assert result.returncode == 0, result.stderr
    assert_same_predictions(tmp_path / "found", tmp_path / "expected")


def test_the_facts_about_ascendcl_hold_for_the_stand_in(
    program: Path, oms: dict[str, Path], acl: Path, tensors: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(on_ascend, "PROGRAM", program)
    for name, value in environment(acl, tmp_path / "report").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "dyn").mkdir()
    shutil.copy(oms["static"], tmp_path / "demo_bs4.om")
    shutil.copy(oms["dynamic"], tmp_path / "dyn/demo_dyn.om")
    shutil.copytree(tensors["float32"], tmp_path / "prep")
    first, *_ = on_ascend._native(tmp_path)
    assert first.holds, first.found
    shutil.copytree(tmp_path / "native/r", tmp_path / "bench/result_bs4")
    assert all(fact.holds for fact in on_ascend._native(tmp_path))
    next((tmp_path / "bench/result_bs4").iterdir()).write_text("1.0 ")
    assert [fact.holds for fact in on_ascend._native(tmp_path)] == [True, True, False]


@pytest.mark.parametrize("kind", ["dynamic"])
def test_every_call_that_fails_is_one_line_and_everything_is_given_back(
    kind: str, program: Path, oms: dict[str, Path], acl: Path, tensors: dict[str, Path], tmp_path: Path
) -> None:
    flags = [f"--model={oms[kind]}", f"--input={tensors['float32']}", f"--output={tmp_path}", "--output_dirname=r"]
    flags += ["--dymBatch=4"] if kind == "dynamic" else []
    zeros = {**environment(acl, tmp_path / "report"), "STANDIN_ACL_ZEROS": "1"}
    assert run(program, *flags, env=zeros).returncode == 0
    called = {name: count for name, count in counts(tmp_path / "report").items() if name.startswith("acl")}
    assert len(called) >= 19
    for name, count in called.items():
        for number in {1, count}:
            result = run(program, *flags, env={**zeros, "STANDIN_ACL_FAIL": f"{name}:{number}"})
            assert_refused(result, f"{oms[kind]}: ", f"{name} failed with")
            found = counts(tmp_path / "report")
            assert (found["left"], found["refused"]) == (0, 0), (name, number)


def test_without_ascendcl_a_om_is_refused_with_what_to_source(program: Path, oms: dict[str, Path]) -> None:
    result = run(program, f"--model={oms['static']}", env={"LD_LIBRARY_PATH": ""})
    assert_refused(result, "libascendcl.so cannot be loaded", "source <folder of CANN>/set_env.sh", code=3)


def test_a_damaged_om_is_refused_in_ascendcl_s_words(program: Path, acl: Path, tmp_path: Path) -> None:
    (tmp_path / "m.om").write_bytes(b"IMOD")
    result = run(program, "--model=m.om", cwd=tmp_path, env=environment(acl, tmp_path / "report"))
    assert_refused(result, "m.om: aclmdlLoadFromFile failed with 100000")
    assert counts(tmp_path / "report")["left"] == 0


def test_it_tells_the_version_and_its_help_ends_with_an_example_that_works(
    program: Path, models: dict[str, Path]
) -> None:
    assert run(program, "--version").stdout == f"resnest {__version__}\n"
    *_, example = run(program, "--help").stdout.splitlines()
    name, *flags = shlex.split(example)
    assert name == "native/build/resnest_infer"
    assert flags[:2] == ["--model", "work/resnest_demo/resnest_demo_bs8.xml"]  # as run.sh calls it
    done = run(program, "--model", models["float32"], *flags[2:], cwd=PROJECT)
    assert (done.returncode, "top1_correct=392, tot=395" in done.stdout) == (0, True), done.stderr
