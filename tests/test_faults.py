"""Killed processes, full and read-only disks, files that do not fit, hostile files: one line, and nothing lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import scratch_folder, sha256, sole_writer, temporary_of, whole, whole_file
from ResNeSt.convert import chips
from ResNeSt.images.preprocess import preprocess
from ResNeSt.infer.inference import OUTPUT_FORMATS, _write
from ResNeSt.models.cards import card
from ResNeSt.models.model_info import format_of
from tests.conftest import PROJECT, assert_refused, call, picture

onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")
KILLS = 4
DEMO_FORMAT = format_of(card("resnest_demo"), "float32")


@pytest.fixture(scope="module")
def work(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m.onnx, its models for batch 1 and 4, and the demo's tensors in `prep`."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copy(demo_onnx, folder / "m.onnx")
    run(folder, "resnest_preprocess.py", PROJECT / "demo/val", "prep", "--arch=resnest_demo")
    run(folder, "convert.sh", "1,4", "cpu", "--onnx=m.onnx")
    return folder


def run(folder: Path, *command: object) -> str:
    result = call(*command, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file below `folder`, by its path there: a difference prints its name, not its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def killed_at_random(folder: Path, seed: int, seconds: float, *command: str) -> None:
    """Starts a command and kills it and its children without warning."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHON": sys.executable}
    program = ["bash", str(PROJECT / command[0])] if command[0].endswith(".sh") else [sys.executable, *command[:1]]
    process = subprocess.Popen(
        [*program, *command[1:]],
        cwd=folder,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(random.Random(seed).uniform(0, seconds))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


# Killed


def test_convert_killed_at_random_moments_ends_as_if_undisturbed(work: Path, tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    for folder in (undisturbed, disturbed):
        folder.mkdir()
        shutil.copy(work / "m.onnx", folder)
    command = ["convert.sh", "1,4", "cpu", "--onnx=m.onnx"]
    seconds = timed(lambda: run(undisturbed, *command))
    for seed in range(KILLS):
        killed_at_random(disturbed, seed, seconds, *command)
        for model in disturbed.glob("*.xml.json"):  # what says that it is whole is whole
            files = json.loads(model.read_text())["files"]
            assert {name: sha256(disturbed / name) for name in files} == files
    run(disturbed, *command)
    assert contents(disturbed) == contents(undisturbed)


def test_infer_killed_at_random_moments_ends_as_if_undisturbed(work: Path, tmp_path: Path) -> None:
    def command(output: str) -> list[str]:
        flags = [f"--model={work / 'm_bs1.xml'}", f"--input={work / 'prep'}", "--output_dirname=r", "--outfmt=TXT"]
        return ["-m", "ResNeSt.infer", *flags, f"--output={output}"]

    seconds = timed(lambda: run(tmp_path, *command("undisturbed")))
    for seed in range(KILLS):
        killed_at_random(tmp_path, seed, seconds, *command("disturbed"))
        summary = tmp_path / "disturbed/r_summary.json"
        assert not summary.exists() or len(json.loads(summary.read_text())["filesinfo"]) == 396
    run(tmp_path, *command("disturbed"))
    assert contents(tmp_path / "disturbed/r") == contents(tmp_path / "undisturbed/r")


def test_what_a_killed_compiler_left_behind_goes_with_the_next_run_and_what_a_living_one_uses_stays(
    tmp_path: Path,
) -> None:
    with scratch_folder(tmp_path, "atc") as left:
        name = left.name
    (tmp_path / name / "kernel_meta").mkdir(parents=True)
    with scratch_folder(tmp_path, "atc") as first, scratch_folder(tmp_path, "atc") as second:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.name, second.name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".atc.notes", ".openvino.cache", ".resnest-atc-mine", ".resnest-mine"])
def test_a_folder_of_the_users_is_no_leftover(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious").touch()
    for kind in ("atc", "openvino"):
        with scratch_folder(tmp_path, kind):
            pass
    assert (tmp_path / name / "precious").exists()


@pytest.mark.parametrize("name", [".val_1.bin.part", ".notes.part", ".resnest-mine.part", ".resnest-a-b.part", ".part"])
def test_a_part_file_of_the_users_is_no_leftover(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with sole_writer(tmp_path), whole(tmp_path / "val_1.bin") as temporary:
        temporary.write_text("tensor")
    assert (tmp_path / name).read_text() == "precious"


def test_what_killed_writers_left_goes_when_a_folder_is_written_anew(tmp_path: Path) -> None:
    temporary_of(tmp_path / "val_1.bin").write_text("half")
    with sole_writer(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_file_handed_out_open_is_whole_under_its_name_or_not_there(tmp_path: Path) -> None:
    with whole_file(tmp_path / "val_1.bin") as file:
        file.write(b"tensor")
        assert not (tmp_path / "val_1.bin").exists()
    assert (tmp_path / "val_1.bin").read_bytes() == b"tensor"
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "val_2.bin") as file:
        file.write(bytes([1 // 0]))
    assert [path.name for path in tmp_path.iterdir()] == ["val_1.bin"]


def test_a_file_handed_out_open_is_closed_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS writes, and tells of a full disk, as a file is closed."""
    closed: list[bytes] = []

    def replace(source: Path, target: Path) -> None:
        with contextlib.suppress(OSError):
            os.fstat(number)
            return
        closed.append(source.read_bytes())

    monkeypatch.setattr(os, "replace", replace)
    with whole_file(tmp_path / "val_1.bin") as file:
        number = file.fileno()
        file.write(b"tensor")
    assert closed == [b"tensor"]


def test_a_link_planted_in_the_place_of_a_temporary_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    for name in (temporary_of(tmp_path / "x").name, ".x.part"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    with pytest.raises(PipelineError, match="is a link"), whole(tmp_path / "x"):
        pytest.fail("written through a link")
    temporary_of(tmp_path / "x").unlink()
    with whole(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_only_a_plain_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "link":
        (tmp_path / "victim").write_text("precious")
        path.symlink_to("victim")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/null")
    before = os.lstat(path)
    with pytest.raises(PipelineError, match=f"{path}: is a {kind}; only a plain file is written here"), whole(path):
        pytest.fail("about to be replaced")
    assert os.path.samestat(os.lstat(path), before)


def test_a_name_as_long_as_a_disk_takes_can_be_written(tmp_path: Path) -> None:
    with whole(tmp_path / ("n" * 251 + ".bin")) as temporary:
        temporary.write_text("tensor")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_what_a_killed_writer_left_of_a_file_is_replaced_and_a_living_writer_is_not_disturbed(tmp_path: Path) -> None:
    with whole(tmp_path / "m.onnx") as temporary:
        temporary.write_text("new")
        left = temporary.name
        with pytest.raises(PipelineError, match="another process is writing here"), whole(tmp_path / "m.onnx"):
            pytest.fail("two wrote one file")
    (tmp_path / left).write_text("half of what a killed process wrote")
    with whole(tmp_path / "m.onnx") as temporary:
        temporary.write_text("newer")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"m.onnx": "newer"}


def test_two_processes_do_not_write_into_one_folder(work: Path, tmp_path: Path) -> None:
    flags = ["--model", work / "m_bs1.xml", "--input", work / "prep", "--output", tmp_path, "--output_dirname=r"]
    (tmp_path / "r").mkdir()
    with sole_writer(tmp_path / "r"):
        result = call("-m", "ResNeSt.infer", *flags)
        assert_refused(result, "r: another process is writing here")
        result = call("resnest_preprocess.py", PROJECT / "demo/val", tmp_path / "r", "--arch=resnest_demo")
        assert_refused(result, "r: another process is writing here")


# Disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system in memory with these options; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


def stage_commands(work: Path, target: Path) -> dict[str, list[object]]:
    """Every stage's command, writing below `target`."""
    weights = next((PROJECT / "demo").glob("*.pth"))
    images, labels = PROJECT / "demo/val", PROJECT / "demo/val_label.txt"
    model = f"--model={work / 'm_bs4.xml'}"
    return {
        "preprocess": ["resnest_preprocess.py", images, target / "prep", "--arch=resnest_demo"],
        "pack": ["resnest_preprocess.py", images, target / "packed", "--arch=resnest_demo", "--pack"],
        "export": ["resnest_pth2onnx.py", f"--source={weights}", f"--target={target / 'x.onnx'}"],
        "convert": ["convert.sh", "4", "cpu", f"--onnx={work / 'm.onnx'}", f"--output={target}"],
        "infer": ["-m", "ResNeSt.infer", model, f"--input={work / 'prep'}", f"--output={target}", "--output_dirname=r"],
        "evaluate": ["-m", "ResNeSt.evaluate", model, f"--images={images}", f"--labels={labels}",
                     f"--predictions={target / 'p.jsonl'}"],
    }  # fmt: skip


STAGES = ["preprocess", "pack", "export", "convert", "infer", "evaluate"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_one_line_and_leaves_nothing_that_looks_complete(
    stage: str, work: Path, disk: Callable[[str], Path]
) -> None:
    target = disk("size=16k")
    result = call(*stage_commands(work, target)[stage])
    assert_refused(result, "No space left on device", str(target))
    finished = {path.name for path in target.rglob("*") if not path.name.startswith(".") and path.is_file()}
    assert not finished & {"x.onnx", "m_bs4.xml", "r_summary.json", "p.jsonl", "shard_00000.npy"}
    index = target / "prep/tensors.json"
    assert not index.exists() or not index.read_text() or json.loads(index.read_text())["complete"] is False


@pytest.mark.parametrize("outfmt", OUTPUT_FORMATS)
def test_a_result_that_finds_the_disk_full_says_so(outfmt: str, disk: Callable[[str], Path]) -> None:
    target = disk("size=16k")
    with pytest.raises(OSError, match=rf"No space left on device: '{target}/a_0\."):
        _write(str(target), "a.bin", np.zeros((1, 100_000), np.float32), outfmt)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_read_only_disk_is_one_line(stage: str, work: Path, disk: Callable[[str], Path]) -> None:
    target = disk("ro")
    assert_refused(call(*stage_commands(work, target)[stage]), "Read-only file system", str(target))


# What does not fit together


def test_a_model_of_another_batch_size_than_its_name_says_is_refused(work: Path, tmp_path: Path) -> None:
    for suffix in (".xml", ".bin"):
        shutil.copy(work / f"m_bs4{suffix}", tmp_path / f"m_bs1{suffix}")
    flags = [f"--input={work / 'prep'}", f"--labels={PROJECT / 'demo/val_label.txt'}", "--model=m"]
    result = call("bench.sh", "1", "cpu", *flags, cwd=tmp_path)
    assert_refused(result, "m_bs1.xml: took 99 runs for 396 images, a batch of 1 takes 396")
    shutil.copy(work / "m_bs4.xml.json", tmp_path / "m_bs1.xml.json")
    assert_refused(call("bench.sh", "1", "cpu", "--prefix=m", cwd=tmp_path), "m_bs1.xml: is compiled for batch 4")


def test_a_record_that_is_no_record_is_taken_for_none(work: Path, tmp_path: Path) -> None:
    for suffix in (".xml", ".bin"):
        shutil.copy(work / f"m_bs1{suffix}", tmp_path)
    (tmp_path / "m_bs1.xml.json").write_text("[]")
    assert "images/s" in run(tmp_path, "bench.sh", "1", "cpu", "--prefix=m", "--loop=2")


# Hostile files


def test_weights_outside_the_onnx_file_are_refused_and_not_read(work: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    model = onnx.load(work / "m_sim.onnx")
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (tmp_path / "secret").write_bytes(weights.raw_data)
    onnx.external_data_helper.set_external_data(weights, location="../secret", length=len(weights.raw_data))
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    (tmp_path / "models/m.onnx").write_bytes(model.SerializeToString())
    result = call("convert.sh", "1", "cpu", "--onnx=models/m.onnx", cwd=tmp_path)
    assert_refused(result, "models/m.onnx: its weights lie in '../secret', and only a file in its own folder is read")


def test_a_link_in_the_output_folder_is_refused_and_what_it_points_to_stays(images: Path, tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    preprocess(images, out, DEMO_FORMAT)
    first = sorted(out.glob("*.bin"))[0]
    first.unlink()
    first.symlink_to(victim)
    with pytest.raises(PipelineError, match=f"{first}: is a link"):
        preprocess(images, out, DEMO_FORMAT)
    assert first.is_symlink()
    assert victim.read_text() == "precious"


def test_shell_characters_in_paths_are_characters(work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a b'\"$(touch pwned);`touch pwned`&|"
    folder.mkdir()
    shutil.copy(work / "m.onnx", folder / "m $x;y.onnx")
    shutil.copytree(work / "prep", folder / "p r*p")
    run(tmp_path, "convert.sh", "1", "cpu", f"--onnx={folder / 'm $x;y.onnx'}", f"--output={folder}")
    labels = f"--labels={PROJECT / 'demo/val_label.txt'}"
    flags = [f"--model={folder / 'm $x;y'}", f"--input={folder / 'p r*p'}", labels, f"--output={folder / 'o;o'}"]
    top1 = json.loads((PROJECT / "demo/expected.json").read_text())["top1"]
    assert f"{100 * top1:.2f}" in run(tmp_path, "bench.sh", "1", "cpu", *flags, "--loop=2")
    assert not list(tmp_path.rglob("pwned"))


# Whatever npu-smi prints


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="| 0123456789ABPOK-\n+", max_size=200) | st.text(max_size=100))
def test_any_table_of_npu_smi_gives_a_chip_or_one_line(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chips, "_npu_smi", lambda *arguments: (0, text))
        patch.setattr(shutil, "which", lambda name: name)
        with contextlib.suppress(PipelineError):
            detected = chips.detect()
            assert detected == chips.CPU or detected == chips.resolve(detected)


# Load


def test_memory_and_file_handles_of_evaluate_do_not_grow_with_the_data_set(work: Path, tmp_path: Path) -> None:
    """The null engine, so that nothing but the pipeline counts."""
    from benchmarks.end_to_end import repeat_images
    from benchmarks.processes import spend

    picture(60, 60).save(tmp_path / "one.JPEG")
    peaks = []
    for count in (300, 3000):
        images, labels = repeat_images([str(tmp_path / "one.JPEG")], tmp_path / str(count), count)
        flags = [f"--model={work / 'm_bs4.xml'}", "--engine=null", f"--images={images}", f"--labels={labels}"]
        limited = "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); runpy.run_module"
        code = f"import sys; sys.argv[0] = 'evaluate'; {limited}('ResNeSt.evaluate', run_name='__main__')"
        peaks.append(spend("-c", code, *flags).megabytes)
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.heavy
def test_fifty_thousand_results_are_scored_in_less_than_a_gigabyte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as what six thousand take besides two thousand tells."""
    from benchmarks import scoring
    from benchmarks.processes import spend

    peaks = []
    for results in (2000, 6000):
        monkeypatch.setattr(scoring, "RESULTS", results)
        (folder := tmp_path / str(results)).mkdir()
        summary, labels = scoring.write_results(folder)
        spent = spend("ResNeSt_postprocess.py", f"--result_path={summary}", f"--gt_path={labels}")
        assert np.isfinite(spent.seconds)
        peaks.append(spent.megabytes)
    assert peaks[0] + (peaks[1] - peaks[0]) / 4000 * 48_000 < 1000
