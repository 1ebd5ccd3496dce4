"""Chip names, and what npu-smi calls them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ResNeSt.common import cann
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.convert import chips

HEAD = """
+----------------------------------------------------------------------------------------------+
| npu-smi 23.0.0                   Version: 23.0.0                                             |
+-------------------+-----------------+--------------------------------------------------------+
| NPU     Name      | Health          | Power(W)     Temp(C)           Hugepages-Usage(page)   |
| Chip    Device    | Bus-Id          | AICore(%)    Memory-Usage(MB)                          |
+===================+=================+========================================================+
"""
PROCESSES = """
+===================+=================+========================================================+
| NPU     Chip      | Process id      | Process name             | Process memory(MB)          |
+===================+=================+========================================================+
| 0       0         | 1774110         | python                   | 1204                        |
+===================+=================+========================================================+
"""
BOARD_A3 = """
        NPU ID                         : 0
        NPU Name                       : 9392
        Chip ID                        : 0
        Chip Name                      : Ascend910
"""


@pytest.fixture
def npu_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts an npu-smi on PATH that prints the given table, and the given board for `-t board`."""

    def install(table: str, board: str = "", code: int = 0, asked: str = "info -t board -i 0 -c 0") -> None:
        (tmp_path / "table").write_text(table)
        (tmp_path / "board").write_text(board)
        script = tmp_path / "npu-smi"
        script.write_text(
            "#!/bin/sh\n"
            f'case "$*" in info) cat "{tmp_path}/table";;\n'
            f'"{asked}") cat "{tmp_path}/board";; *) exit 9;; esac\nexit {code}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


@pytest.mark.parametrize("chip", chips.CHIPS)
def test_every_chip_is_taken_with_and_without_its_prefix(chip: str) -> None:
    assert chips.resolve(chip) == chips.resolve(f"Ascend{chip}") == chips.resolve(f"ascend{chip.lower()}") == chip


@pytest.mark.parametrize("name", ["950pr_9589", "Ascend950Pr_9589", "ascend950pr_9589"])
def test_a_new_chip_of_a_series_on_record_has_the_series_spelling(name: str) -> None:
    """--soc_version knows one spelling, and a model's record is compared by it."""
    assert chips.resolve(name) == "950PR_9589"


def test_cpu_is_a_chip() -> None:
    assert chips.resolve("cpu") == "cpu"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "950PR_9589",
            "950DT_95A1",
            "910_9363",
            "350_354f",
            "350_355e",
            "310P2",
            "310p",
            "610Pro",
            "035",
            "910C",
            "960",
        ),
        *("910B4-2", "910B4-1x", "310P3_2"),
    ],
)
def test_a_chip_that_is_not_on_record_is_taken_as_it_is_typed_and_doubted(name: str) -> None:
    assert chips.resolve(name) == chips.resolve(f"Ascend{name}") == chips.resolve(f"ascend{name}") == name
    assert f"chip {name} is not on record here" in (chips.doubt(name) or "")
    assert all(chips.doubt(known) is None for known in (*chips.CHIPS, "cpu"))


def test_the_doubt_names_the_chips_that_are_spelled_like_it() -> None:
    assert "near it: 310, 310P1, 310P3, 310P5, 310P7;" in (chips.doubt("310p") or "")
    assert "910_9362" in (chips.doubt("910_9363") or "")
    assert "near it" not in (chips.doubt("777XYZ_1") or "")


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "310P3 ", " 310P3", "310 P3", "310P3\n", "310/P3", "../310P3", "310P3;ls", "$310", "--x", "-310P3"),
        *("310P3-", "310P3_", "310P3__1", "310P3--1", "3100", "1080", "2080Ti", "31", "8", "31OP3", "P310", "Ascend"),
        *("AscendAscend310P3", "cpu2", "cpu,310P3", "310P3,310P1", "310.P3", "gpu", "cuda12", "t4", "V100", "npu"),
        *("\uff13\uff11\uff10P3", "310P\uff13", "310é", "310P" + "3" * 40, "3" * 100_000),
    ],
)
def test_what_is_formed_like_no_chip_s_name_is_refused(name: str) -> None:
    with pytest.raises(
        ArgumentError, match=r"^unknown chip '.*(near it|known): .*, or cpu, cuda, ncnn or auto"
    ) as refused:
        chips.resolve(name)
    assert len(str(refused.value)) < 600


def test_a_typo_is_refused_with_the_names_near_it() -> None:
    with pytest.raises(ArgumentError, match=r"unknown chip '31OP3'; near it: 310P3"):
        chips.resolve("31OP3")


def test_a_name_near_nothing_is_refused_with_all_names() -> None:
    with pytest.raises(ArgumentError, match=r"known: 310, .*910_9392, or cpu, cuda, ncnn or auto"):
        chips.resolve("tensor-core")


@pytest.mark.parametrize(
    ("rows", "chip"),
    [
        ("| 0       310P3     | OK              | 15.8         42                0    / 0              |", "310P3"),
        ("|0  310P3 |OK| 15.8 42 0/0|", "310P3"),
        ("| 0       310       | OK              | 12.8         45                0    / 970            |", "310"),
        ("| 0       310B4     | Alarm           | -            50                15   / 15             |", "310B4"),
        ("| 0     910B4-1             | Warning       | 94.2        41           0    / 0             |", "910B4-1"),
        (
            "| 0     910B3               | OK            | 94.2        41           0    / 0             |\n"
            "| 0                         | 0000:C1:00.0  | 0           0    / 0          3411 / 65536    |",
            "910B3",
        ),
        (
            "| 0       310P3     | OK              | 15.8         42                0    / 0              |\n"
            "| 0       0         | NA              | 0            1074 / 21534                            |\n"
            "| 1       910B3     | OK              | 15.8         42                0    / 0              |",
            "310P3",
        ),
    ],
    ids=["as in the manual", "narrow", "digits only", "alarm, no power", "dash in the name", "no device", "two cards"],
)
def test_auto_reads_the_first_card_of_a_table(npu_smi: Callable[..., None], rows: str, chip: str) -> None:
    npu_smi(HEAD + rows + PROCESSES)
    assert chips.resolve("auto") == chip


def test_auto_asks_the_board_where_the_table_says_ascend910_only(npu_smi: Callable[..., None]) -> None:
    npu_smi(HEAD + "| 0     Ascend910           | OK            | 178.7       37   0    / 0  |\n" + PROCESSES, BOARD_A3)
    assert chips.resolve("auto") == "910_9392"


def test_auto_takes_the_first_card_whatever_its_number(npu_smi: Callable[..., None]) -> None:
    npu_smi(HEAD + "| 12      310P3     | OK              | 15.8         42                0    / 0  |\n" + PROCESSES)
    assert chips.resolve("auto") == "310P3"


BOARD_950 = """
        NPU ID                         : 0
        Chip Name                      : Ascend950PR
        NPU Name                       : 9589
"""
SERIES_ROW = "| 0     Ascend950PR           | OK            | 178.7       37   0    / 0  |\n"


def test_auto_takes_a_card_that_is_not_on_record_by_its_board_s_name(npu_smi: Callable[..., None]) -> None:
    """A 950's board is asked without a chip's number, and tells what the table leaves out."""
    npu_smi(HEAD + SERIES_ROW, BOARD_950, asked="info -t board -i 0")
    assert chips.resolve("auto") == "950PR_9589"
    npu_smi(HEAD + SERIES_ROW.replace("950PR ", "999XL "), BOARD_950, asked="nothing")
    assert chips.resolve("auto") == "999XL"


@pytest.mark.parametrize("name", ["Ascend910", "Ascend950PR", "950DT", "Atlas"])
def test_auto_refuses_a_card_of_which_the_board_does_not_tell_the_rest(npu_smi: Callable[..., None], name: str) -> None:
    npu_smi(HEAD + f"| 0     {name}           | OK            | 178.7       37   0    / 0  |\n")
    with pytest.raises(PipelineError, match=f"card 0 '{name}', unknown here; name it yourself"):
        chips.resolve("auto")


USED = "dcmi model initialized failed, because the device is used. ret is -8020"


def test_auto_says_what_to_do_where_the_card_is_used_by_others(npu_smi: Callable[..., None]) -> None:
    npu_smi(USED, code=1)
    with pytest.raises(PipelineError, match=r"ret is -8020; end what holds the card, or name the chip yourself"):
        chips.resolve("auto")


def test_auto_waits_for_npu_smi_no_longer_than_a_while(
    npu_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    npu_smi("")
    (tmp_path / "npu-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(chips, "SECONDS", 0.2)
    with pytest.raises(PipelineError, match=r"does not answer within 0\.2 seconds; name the chip yourself"):
        chips.resolve("auto")


@pytest.mark.parametrize("has_atc", [False, True])
def test_auto_is_the_cpu_without_npu_smi_with_a_note_where_cann_is(
    has_atc: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cann, "set_env_scripts", lambda: iter(()))
    if has_atc:
        (tmp_path / "atc").touch(mode=0o755)
    assert chips.resolve("auto") == "cpu"
    note = "note: npu-smi is not here, but CANN is, so the chip is cpu; name the chip if this machine has a card\n"
    assert capsys.readouterr().err == (note if has_atc else "")


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (HEAD + PROCESSES, 0),
        ("", 0),
        ("| a table | of another | world |", 0),
        ("dcmi module initialize failed. ret is -8005", 1),
        ("npu-smi: error while loading shared libraries: libdrvdsmi_host.so: cannot open shared object file", 127),
    ],
)
def test_auto_is_the_cpu_with_a_note_where_npu_smi_lists_no_card(
    npu_smi: Callable[..., None], capsys: pytest.CaptureFixture[str], table: str, code: int
) -> None:
    npu_smi(table, code=code)
    assert chips.resolve("auto") == "cpu"
    said = capsys.readouterr().err
    assert "npu-smi lists no card" in said
    assert "name the chip if this machine has a card" in said
    assert table.strip().rpartition("\n")[2][:60] in said


@pytest.mark.parametrize(
    ("machine", "chip"),
    [
        ("310P3", "310P3"),
        ("910B3", "910B3"),
        ("alarm", "310P3"),
        ("dash", "310P3"),
        ("a3", "910_9392"),
        ("950", "950PR_9589"),
        ("none", "cpu"),
    ],
)
def test_auto_reads_every_machine_of_the_stand_in(
    standins: dict[str, str], monkeypatch: pytest.MonkeyPatch, machine: str, chip: str
) -> None:
    for name, value in {**standins, "STANDIN_NPU": machine}.items():
        monkeypatch.setenv(name, value)
    assert chips.resolve("auto") == chip


@pytest.mark.parametrize(("chip", "default"), [("cpu", "fp32"), ("310P3", "fp16"), ("910B3", "fp16")])
def test_a_chip_has_a_default_precision(chip: str, default: str) -> None:
    assert chips.precision(None, chip) == default


@pytest.mark.parametrize(("chip", "wanted"), [("cpu", "fp16"), ("cpu", "mixed"), ("310P3", "bf16"), ("310P3", "int4")])
def test_a_precision_that_a_chip_does_not_have_is_refused(chip: str, wanted: str) -> None:
    with pytest.raises(ArgumentError, match=f"--precision {wanted} is not for {chip}"):
        chips.precision(wanted, chip)
