"""What ais_bench would refuse of files and folders, and what it takes (contract: ais_bench, path rules)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ResNeSt.common import ais_bench_paths
from ResNeSt.common.ais_bench_paths import check_input, check_output, check_path
from ResNeSt.common.errors import PipelineError


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a folder of two tensors that only their owner can write."""
    folder = tmp_path / "work"
    (folder / "prep").mkdir(parents=True)
    (folder / "prep").chmod(0o755)
    for name in ("a.bin", "b.bin"):
        (folder / "prep" / name).write_bytes(b"1234")
        (folder / "prep" / name).chmod(0o644)
    monkeypatch.chdir(folder)
    return folder


def refusal(path: str) -> str:
    with pytest.raises(PipelineError) as caught:
        check_input(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def run_remedy(message: str) -> None:
    """Runs the command that a message ends in, as a user would."""
    command = shlex.split(message.rpartition("run: ")[2])
    assert command, message
    subprocess.run(command, check=True)


def test_files_that_only_their_owner_can_write_are_taken() -> None:
    check_input("prep")
    check_input("prep/a.bin")
    check_input("prep/")


@pytest.mark.parametrize("name", ["my photos", "\u4e2d\u6587", "a,b", "c++", "x=1", "~", "tab\t"])
def test_the_absolute_path_counts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path / name)
    for path in ("prep", "prep/a.bin", "."):
        assert refusal(path).startswith(
            f"{path}: ais_bench takes only letters, digits and _ - . / in a path, and this "
        )
        assert f" one is {os.path.abspath(path)!r}; rename it" in refusal(path)
    with pytest.raises(PipelineError, match="letters, digits and _"):
        check_path("model_bs1.om")
    run_remedy(refusal("prep"))
    check_input(next(path for path in tmp_path.iterdir() if path.is_dir()) / "prep")


def test_a_path_out_of_a_folder_with_a_blank_is_taken(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "a b").mkdir()
    monkeypatch.chdir(work / "a b")
    check_path("../prep")
    check_input("../prep")
    check_input(work / "a b/../prep/a.bin")


def test_a_name_that_is_taken_is_not_offered_again(work: Path) -> None:
    (work / "a b").mkdir()
    (work / "a_b").mkdir()
    assert refusal("a b").endswith(
        shlex.join(["run:", "mv", str(work / "a b"), str(work / "a_b_")]).replace("'run:'", "run:")
    )


def test_a_link_on_the_way_is_no_matter_and_one_at_the_end_is(work: Path) -> None:
    Path("linked").symlink_to("prep")
    check_input("linked/a.bin")
    check_path("linked/model.om")
    check_output("linked/out")
    for path in ("linked", "linked/", "linked/.", "prep/../linked"):
        message = refusal(path)
        assert message.startswith(f"{path}: is a symbolic link, which ais_bench refuses; ")
        assert message.endswith(f" {work / 'prep'}")


@pytest.mark.parametrize("name", ["img (1).bin", "\u732b.bin", "a b.npy", "c,d.BIN", "notes (1).txt", "sub folder"])
def test_every_name_in_the_folder_counts(name: str) -> None:
    path = Path("prep", name)
    path.touch() if path.suffix else path.mkdir()
    path.chmod(0o700)
    message = refusal("prep")
    assert message.startswith(f"prep/{name}: ais_bench takes only letters, digits")
    assert ("labels" in message) == (path.suffix.lower() in (".bin", ".npy"))
    run_remedy(message)
    check_input("prep")


@pytest.mark.parametrize("target", ["../elsewhere.bin", "nowhere.bin", "a.bin"])
def test_a_link_in_the_folder_is_named_with_the_copy_that_has_none(target: str) -> None:
    Path("elsewhere.bin").write_bytes(b"1234")
    Path("prep/link.bin").symlink_to(target)
    message = refusal("prep")
    assert message.startswith("prep/link.bin: is a symbolic link, which ais_bench refuses")
    if target != "nowhere.bin":
        run_remedy(message)
        check_input("prep_files")


def test_a_tensor_is_a_file(work: Path) -> None:
    (work / "prep/x.bin").mkdir(mode=0o755)
    message = refusal("prep")
    assert message.startswith("prep/x.bin: has the name of a tensor and is a folder")
    run_remedy(message)
    check_input("prep")
    os.mkfifo("prep/y.NPY", 0o600)
    message = refusal("prep")
    assert message.startswith("prep/y.NPY: has the name of a tensor and is no file")
    run_remedy(message)
    check_input("prep")
    (work / "prep/folder").mkdir(mode=0o755)
    check_input("prep")


@pytest.mark.parametrize("mode", [0o664, 0o646])
@pytest.mark.parametrize("name", ["prep", "prep/b.bin"])
def test_what_others_can_write_is_refused_with_the_chmod(name: str, mode: int) -> None:
    Path(name).chmod(mode | 0o111)
    message = refusal("prep")
    assert message == f"{name}: writable by group or others, which ais_bench refuses; run: chmod -R go-w prep"
    run_remedy(message)
    check_input("prep")


@pytest.mark.parametrize("name", ["prep", "prep/b.bin"])
def test_what_its_owner_may_not_read_is_refused_with_the_chmod(name: str) -> None:
    Path(name).chmod(0o044)
    if os.geteuid() != 0 and name == "prep":
        pytest.skip("the folder could not be listed")
    message = refusal("prep")
    assert message.startswith(f"{name}: may not be read")
    run_remedy(message)
    check_input("prep")


@pytest.mark.parametrize("root", [False, True])
def test_owner_or_group_is_the_caller_s_and_root_is_no_exception(root: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.stat("prep")
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root and status.st_uid else status.st_uid + 1)
    monkeypatch.setattr(os, "getgroups", lambda: [status.st_gid + 1])
    assert re.match(
        r"prep: owned by another user and by none of your groups, .*: chown -R \$USER prep$", refusal("prep")
    )
    monkeypatch.setattr(os, "getgroups", lambda: [status.st_gid + 1, status.st_gid])
    check_input("prep")
    monkeypatch.setattr(os, "geteuid", lambda: status.st_uid)
    monkeypatch.setattr(os, "getgroups", list)
    check_input("prep")


def test_more_tensors_than_it_takes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ais_bench_paths, "MOST_FILES", 2)
    Path("prep/tensors.json").touch(0o644)
    check_input("prep")
    Path("prep/c.NPY").touch(0o644)
    assert refusal("prep").startswith("prep: holds 3 tensors, ais_bench takes 2")


@pytest.mark.parametrize(
    ("mode", "passes"), [(0o750, True), (0o700, True), (0o2750, True), (0o755, False), (0o770, False), (0o751, False)]
)
def test_an_output_folder_open_to_others_is_refused_with_the_chmod(mode: int, passes: bool) -> None:
    Path("out").mkdir()
    Path("out").chmod(mode)
    if passes:
        check_output("out")
    else:
        with pytest.raises(PipelineError, match=rf"out: is of mode {mode:04o}, .*chmod 750 out"):
            check_output("out")


def test_an_output_folder_need_not_be_there() -> None:
    check_output("new/out")
    with pytest.raises(PipelineError, match="letters, digits"):
        check_output("new/o ut")
    Path("file").touch(0o600)
    with pytest.raises(PipelineError, match="file: is no folder"):
        check_output("file")
    Path("out").symlink_to("new")
    with pytest.raises(PipelineError, match="out: is a symbolic link"):
        check_output("out")


def test_folders_of_results_that_are_there_are_held_to_the_rules_as_well() -> None:
    Path("out/result").mkdir(parents=True)
    Path("out").chmod(0o750)
    Path("out/result").chmod(0o755)
    check_output("out", ["result"])
    Path("out/result").chmod(0o775)
    with pytest.raises(PipelineError, match=r"out/result: writable by group"):
        check_output("out", ["result"])
    Path("out/result").chmod(0o750)
    Path("result").mkdir()
    Path("result").chmod(0o755)
    with pytest.raises(PipelineError, match=r"result: is of mode 0755"):
        check_output("out", ["result"])


def test_a_name_that_is_only_asked_for_is_not_renamed_by_a_command() -> None:
    with pytest.raises(PipelineError, match=r"and this one is '.*/o ut/in'; name another, like o_ut$"):
        check_output("o ut/in")
