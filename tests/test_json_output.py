"""`--json -`: stdout holds the JSON and nothing else."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ResNeSt.common.files import read_json, write_json
from tests.conftest import PROJECT, call

Command = Callable[[Path], list[object]]
COMMANDS: dict[str, tuple[Command, str]] = {
    "preprocess": (lambda onnx: ["resnest_preprocess.py", "three", "prep", "--arch=resnest_demo"], "written"),
    "evaluate": (
        lambda onnx: ["-m", "ResNeSt.evaluate", "--model", onnx, "--images=three", "--labels=labels.txt"],
        "top1_acc",
    ),
    "compare": (lambda onnx: ["-m", "ResNeSt.compare", "out", "out"], "same_top1"),
    "postprocess": (
        lambda onnx: ["ResNeSt_postprocess.py", "--result_path=out_summary.json", "--gt_path=labels.txt"],
        "top1_acc",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_json_file_called_minus_is_stdout_and_what_is_said_besides_goes_to_stderr(
    command: str, demo_onnx: Path, tmp_path: Path
) -> None:
    (tmp_path / "three").mkdir()
    (tmp_path / "out").mkdir()
    results = {}
    for number in (1, 2, 3):
        shutil.copy(PROJECT / f"demo/val/digits_val_0000000{number}.JPEG", tmp_path / "three")
        output = tmp_path / f"out/digits_val_0000000{number}_0.txt"
        output.write_text("0.5 1.5 " + "0.1 " * 8 + "\n")
        results[str(number)] = {"infiles": [f"digits_val_0000000{number}.bin"], "outfiles": [str(output)]}
    (tmp_path / "out_summary.json").write_text(json.dumps({"filesinfo": results}))
    (tmp_path / "labels.txt").write_text("".join(f"digits_val_0000000{number}.JPEG 1\n" for number in (1, 2, 3)))
    arguments, key = COMMANDS[command]
    result = call(*arguments(demo_onnx), "--json=-", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert key in json.loads(result.stdout)
    assert result.stderr
    assert not (tmp_path / "-").exists()


def test_what_is_no_number_is_null_in_json_and_can_be_read_again(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"top1_acc": math.nan, "rows": [(1.5, math.inf), {"a": -math.inf}], "n": 3})
    assert read_json(tmp_path / "x.json") == {"top1_acc": None, "rows": [[1.5, None], {"a": None}], "n": 3}
