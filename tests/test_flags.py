"""One table of flags for all commands: one meaning a name, one name a meaning, the same sentence in every --help."""

from __future__ import annotations

import argparse
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from ResNeSt.__main__ import COMMANDS
from ResNeSt.common.arguments import Parser
from ResNeSt.common.flags import FLAGS, take
from ResNeSt.engines.opening import CHECKPOINTS
from tests.conftest import PROJECT

BESIDE = {
    "serve export": "ResNeSt.serve.export",
    "benchmarks": "benchmarks.__main__",
    "demo": "demo.train",
    "on_ascend": "tests.on_ascend",
}
MODULES = {**{name: f"ResNeSt.{module}" for name, (module, _) in COMMANDS.items()}, **BESIDE}
# What a command has for itself alone; a flag of two commands is of the table.
OWN = {
    "preprocess": "recipe pack tensor-format list distinct-names",
    "export": "opset form untrained",
    "convert": "dry-run check log force",
    "bench": "prefix processes profile no-report",
    "infer": "output_dirname outfmt batchsize divide_input pure_data_type display_all_summary",  # ais_bench's
    "loadgen": "scenario mode config min-queries target-qps target-latency",
    "evaluate": "predictions",
    "predict": "top format",
    "serve": "host http-port grpc-port max-body queue token-file no-auth log-requests",
    "serve export": "max-batch storage-uri",
    "compare": "reference judged count max-difference layers",
    "labels": "command from-zero kit csv",
    "report": "folder",
    "train": "train val train-labels val-labels tensorboard preset epochs warmup-epochs rate momentum nesterov decay "
    "smoothing dropout dropblock mixup clip augment augment-whole jitter lighting min-area flip sync-bn seed",
    "benchmarks": "parts rounds",
    "completion": "shell",
}
# Second spellings that --help shows, since people know them: the sample's, and ais_bench's.
KNOWN = {
    "weights": "--source",
    "results": "--result_path",
    "labels": "--gt_path",
    "model": "-m",
    "tensors": "--input -i",
    "output": "-o",
    "warmup": "--warmup_count --warmup-count",
    "batch": "--dymBatch --dym-batch",
    "ema": "--no-ema",
}


def parsers() -> Iterator[tuple[str, Parser]]:
    """Every command's, and those of its sub-commands."""
    for command, module in MODULES.items():
        parser = importlib.import_module(module).make_parser()
        yield command, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from ((command, each) for each in action.choices.values())


def flags() -> Iterator[tuple[str, str, Parser, argparse.Action]]:
    """A command, the name of one of its flags, its parser, and the flag."""
    for command, parser in parsers():
        for action in parser._actions:
            long = [spelling for spelling in action.option_strings if spelling.startswith("--")]
            if "--help" not in long:
                yield command, (long[0][2:] if long else action.dest), parser, action


def test_every_flag_is_of_the_table_or_its_command_s_own_and_every_name_is_used() -> None:
    used = defaultdict(set)
    for command, name, _, _ in flags():
        used[name].add(command)
    own = {name: command for command, names in OWN.items() for name in names.split()}
    assert {name: commands for name, commands in used.items() if commands != {own.get(name)}}.keys() == FLAGS.keys()
    assert used.keys() == FLAGS.keys() | own.keys()


def test_a_flag_of_the_table_means_the_same_in_every_command() -> None:
    for command, name, parser, action in flags():
        if name not in FLAGS:
            continue
        said, where = FLAGS[name], (command, name)
        assert (action.help or "").split(" [")[0] == said.help, where
        takes_value = not isinstance(action, argparse.BooleanOptionalAction) and action.nargs != 0
        assert takes_value == bool(said.metavar), where
        if said.role:
            # `labels` writes them, too; convert.sh knows the names of the few files that it adds to its folder.
            assert parser.roles[action.dest] == said.role or name == "labels" or where == ("convert", "output"), where
        elif takes_value and not str(action.metavar).endswith("[,…]"):
            assert action.type is said.kind, where


def test_a_flag_of_the_table_takes_the_same_values_in_every_command() -> None:
    choices = defaultdict(set)
    for command, name, _, action in flags():
        if action.choices is not None and name in FLAGS and command != "train":  # which takes few chips and precisions
            choices[name].add(tuple(action.choices))
    assert choices.keys() == {"dtype", "engine", "tune"}
    assert [name for name, different in choices.items() if len(different) > 1] == []


def test_two_flags_do_not_say_the_same() -> None:
    sentences = defaultdict(set)
    for _, name, _, action in flags():
        sentences[(action.help or "").split(" [")[0].lower()].add(name)
    assert [names for names in sentences.values() if len(names) > 1] == []


def test_every_flag_says_what_it_is_and_what_it_takes() -> None:
    for command, name, _, action in flags():
        assert action.help, (command, name)
        if action.option_strings and action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction):
            assert action.metavar or action.choices, (command, name)


def test_help_shows_one_spelling_but_for_those_that_people_know() -> None:
    for command, name, _, action in flags():
        if name in FLAGS:
            assert set(action.option_strings[1:]) <= set(KNOWN.get(name, "").split()), (command, name)
        elif not isinstance(action, argparse.BooleanOptionalAction):
            both = {f"--{name}", f"--{name.replace('_', '-')}"}  # the two command lines of ais_bench
            assert set(action.option_strings) <= both, (command, name)


def test_no_page_names_a_spelling_that_no_help_shows() -> None:
    shown = {spelling for _, parser in parsers() for action in parser._actions for spelling in action.option_strings}
    hidden = {spelling for _, parser in parsers() for spelling in parser._option_string_actions} - shown
    assert {"--output-dir", "--work", "--card", "--seconds"} <= hidden
    pages = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), *(PROJECT / "demo").glob("*.md")]
    named = {(page.name, word) for page in pages for word in re.findall(r"(?<!\S)`?(--[\w-]+)", page.read_text())}
    assert [(page, word) for page, word in named if word in hidden and page != "CHANGELOG.md"] == []


def test_the_native_program_calls_its_flags_the_same() -> None:
    source = (PROJECT / "native/infer/main.cpp").read_text()
    spellings = [
        re.findall(r'"(-[^"]+)"', names) for names in re.findall(r'^    \{\{("-[^}]*)\}, [A-Z]+, ', source, re.M)
    ]
    assert len(spellings) > 20
    own = f"{OWN['infer']} {OWN['evaluate']}".split()
    for first, *others in spellings:
        assert first[2:] in (*FLAGS, *own)
        assert set(others) <= set(KNOWN.get(first[2:], "").split())


def test_the_table_names_every_kind_of_checkpoint() -> None:
    assert f"({', '.join(CHECKPOINTS)})" in FLAGS["model"].help


# A command line of earlier versions, and the same in today's words.
RENAMED = {
    "preprocess": ("in out --model=resnest101 --format=npz", "in out --arch=resnest101 --tensor-format=npz"),
    "export": ("--source=auto --target=o --model=c.json", "--weights=auto --target=o --arch=c.json"),
    "convert": ("1 cpu --output-dir=o", "1 cpu --output=o"),
    "bench": ("1 cpu --model=m --input=t --output-dir=o", "1 cpu --prefix=m --tensors=t --output=o"),
    "infer": (
        "-m m.xml -i t -o o --warmup_count=3 --dymBatch=2 --device=0,0",
        "--model=m.xml --tensors=t --output=o --warmup=3 --batch=2 --device=0,0",
    ),
    "postprocess": ("--result_path=a --result_path b --gt_path=l", "--results a --results=b --labels=l"),
    "run": ("--model=resnest50 --work=w --batch=1,4", "--arch=resnest50 --output=w --batch=1,4"),
    "compare": ("a b --input=t", "a b --tensors=t"),
    "labels": ("tree in l.txt --card=resnest50", "tree in l.txt --arch=resnest50"),
    "train": (
        "--train=a --val=b --output=o --model=n --device=cuda --warmup=2 --recipe=paper --precision=bfloat16",
        "--train=a --val=b --output=o --arch=n --chip=cuda --warmup-epochs=2 --preset=paper --precision=bf16",
    ),
    "serve export": ("--model=m --target=r", "--model=m --output=r"),
    "benchmarks": ("serving --seconds=9", "serving --duration=9"),
}


@pytest.mark.parametrize("command", RENAMED)
def test_an_old_spelling_is_still_taken_and_no_longer_shown(command: str) -> None:
    parser = importlib.import_module(MODULES[command]).make_parser()
    old, new = (vars(parser.parse_args(line.split())) for line in RENAMED[command])
    assert old == new
    before, after = (set(re.findall(r"(?<!\S)--?[\w-]+", line)) for line in RENAMED[command])
    shown = set(re.findall(r"--?[\w-]+", parser.format_help()))
    assert (before - after) & shown <= {spelling for known in KNOWN.values() for spelling in known.split()}


def test_the_first_letters_of_a_flag_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    for _, parser in parsers():
        assert not parser.allow_abbrev
    parser = Parser()
    take(parser, "output")
    with pytest.raises(SystemExit):
        parser.parse_args(["--out=x"])
    assert "unrecognized arguments: --out=x" in capsys.readouterr().err
