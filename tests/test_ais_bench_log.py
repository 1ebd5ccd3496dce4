"""The reason of a failed run is found in what ais_bench printed, whichever client it was and however many processes."""

from __future__ import annotations

import pytest

from ResNeSt.infer.ais_bench_log import LONGEST, reason

ARGPARSE = """usage: __main__.py [-h] --model MODEL [--input INPUT] [--output OUTPUT]
                   [--output_dirname OUTPUT_DIRNAME]
__main__.py: error: argument --model/-m: om path:a.om is illegal. Please check.
"""
# As typer 0.27 with rich 15 prints them to a file.
USAGE = """Usage: python -m ais_bench [OPTIONS]
Try 'python -m ais_bench --help' for help.
╭─ Error ──────────────────────────────────────────────────────────────────────╮
│ No such option: --output_dirname (Possible options: --output-dirname)        │
╰──────────────────────────────────────────────────────────────────────────────╯
"""
WRAPPED = """╭─ Error ──────────────────────────────────────────────────────────────────────╮
│ Invalid value for '--outfmt': 'a long value that fills the line' is not one  │
│ of 'NPY', 'BIN', 'TXT'.                                                      │
╰──────────────────────────────────────────────────────────────────────────────╯

"""
ASCII = """Usage: python -m ais_bench [OPTIONS]
+- Error ----------------------------------------------------------------------+
| Option '--divide-input' does not take a value.                               |
+------------------------------------------------------------------------------+
"""
CHAINED = """[ERROR] path :/w/a.om is a soft link, not supported, please import file(or directory) directly
╭───────────────────── Traceback (most recent call last) ──────────────────────╮
│ /site/ais_bench/infer/args_check.py:190 in check_om_path_legality            │
│                                                                              │
│ ❱ 190 │   raise argparse.ArgumentTypeError("om path string is illegal.")     │
╰──────────────────────────────────────────────────────────────────────────────╯
OSError: create FileStat failed

The above exception was the direct cause of the following exception:

╭───────────────────── Traceback (most recent call last) ──────────────────────╮
│ /site/ais_bench/__main__.py:17 in <module>                                   │
│ ╭──────────── locals ────────────╮                                           │
│ │ RuntimeError: not the reason   │                                           │
│ ╰────────────────────────────────╯                                           │
╰──────────────────────────────────────────────────────────────────────────────╯
ArgumentTypeError: om
path:/home/somebody/projects/resnest/deploy/models/resnest50_bs1.om is illegal.
Please check.
"""
TRACEBACK = """[INFO] acl init success
Inference array Processing:   0%|          | 0/3 [00:00<?, ?it/s]\rInference array Processing:  33%|███▎      | 1/3
Traceback (most recent call last):
  File "/usr/lib/python3.9/runpy.py", line 197, in _run_module_as_main
    return _run_code(code, main_globals, None,
RuntimeError: [1][ACL: invalid parameter]
[INFO] end to finalize acl
"""
BARE = """[INFO] load model a.om success
[ERROR] arg0 tensorsize: 602112 filesize: 150528 not match
Traceback (most recent call last):
  File "/site/ais_bench/infer/common/io_operations.py", line 96, in get_files_count_per_batch
    raise RuntimeError()
RuntimeError
"""
CUSTOM = """Traceback (most recent call last):
  File "/site/aclruntime.py", line 3
[INFO] in between
acl.Refused: the device is lost
"""
CRASH = """[INFO] load model a.om success
Fatal Python error: Segmentation fault

Current thread 0x00007f (most recent call first):
  File "/site/ais_bench/infer/interface.py", line 96 in run
"""
CASES = {
    "argparse": (ARGPARSE, "argument --model/-m: om path:a.om is illegal. Please check."),
    "a box": (USAGE, "No such option: --output_dirname (Possible options: --output-dirname)"),
    "a box of several lines": (
        WRAPPED,
        "Invalid value for '--outfmt': 'a long value that fills the line' is not one of 'NPY', 'BIN', 'TXT'.",
    ),
    "a box without drawing characters": (ASCII, "Option '--divide-input' does not take a value."),
    "typer without rich": (
        "Usage: ais_bench [OPTIONS]\nTry 'ais_bench --help' for help.\n\nError: No such option: --x\n",
        "Error: No such option: --x",
    ),
    "boxes around tracebacks": (
        CHAINED,
        "ArgumentTypeError: om path:/home/somebody/projects/resnest/deploy/models/resnest50_bs1.om is illegal. "
        "Please check.",
    ),
    "a traceback with words after it": (TRACEBACK, "RuntimeError: [1][ACL: invalid parameter]"),
    "an exception without a message": (BARE, "arg0 tensorsize: 602112 filesize: 150528 not match"),
    "an exception of another name": (CUSTOM, "acl.Refused: the device is lost"),
    "a crash": (CRASH, "Fatal Python error: Segmentation fault"),
    "colours": ("[INFO] x\n\x1b[31m[ERROR] load model failed\x1b[0m\n", "load model failed"),
    "nothing of a failure": ("[INFO] warm up 1 done\n\n", "[INFO] warm up 1 done"),
    "nothing at all": ("\n \n", "it printed nothing"),
}


@pytest.mark.parametrize(("log", "told"), CASES.values(), ids=CASES)
def test_the_reason_is_the_line_that_says_it(log: str, told: str) -> None:
    assert reason(log) == told
    assert reason(log.replace("\n", "\r\n")) == told


# Two processes, interleaved; as the real client's pool ends.
TWO = """[INFO] multidevice:[0, 1] run begin
[INFO] subprocess_0 main run
[INFO] subprocess_1 main run
[INFO] open device 0 success
[ERROR] open device 1 failed, errorCode is 507033
[ERROR] load model from file failed, model file is a.om
[ERROR] device 0: a queue is slow
[ERROR] subprocess run failed error_callback:[507033][ACL: rt device is lost]
[INFO] output path:out/r/device0_0
Inference array Processing: 100%|██████████| 3/3 [00:00<00:00, 16it/s]
[INFO] multidevice run end qsize:3 result:1
[INFO] i:0 device_0 throughput:600
[INFO] summary throughput:600
"""


def test_of_two_devices_the_reason_is_that_of_the_one_that_failed() -> None:
    assert reason(TWO, failed=[1]) == "open device 1 failed, errorCode is 507033"
    assert reason(TWO.replace("device 1", "it"), failed=[1]) == "[507033][ACL: rt device is lost]"
    swapped = TWO.replace("device 1", "device 7").replace("device 0", "device 1").replace("device 7", "device 0")
    assert reason(swapped, failed=[0]) == "open device 0 failed, errorCode is 507033"


def test_what_names_another_device_is_not_asked() -> None:
    log = "RuntimeError: device 0 is slow\nRuntimeError: no memory\n[ERROR] device 0: slow again\n"
    assert reason(log, failed=[1]) == "RuntimeError: no memory"
    assert reason("RuntimeError: device 10 is hot\nRuntimeError: device 1 is lost\n", failed=[1]).endswith("1 is lost")


def test_a_reason_stays_of_a_length_that_is_read() -> None:
    assert len(reason(f"RuntimeError: {'x' * 10_000}\n")) == LONGEST
