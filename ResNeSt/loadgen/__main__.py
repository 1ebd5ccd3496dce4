"""A model driven by MLPerf's LoadGen: four scenarios, LoadGen's verdict, its logs kept.

What a run is VALID by are the settings that it ran with; where they ask for less than MLPerf's own, a note says so.
"""

from __future__ import annotations

import dataclasses

from ResNeSt.common.arguments import Parser, positive, write_result
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud, remark
from ResNeSt.engines.image_batches import add_model_flags, model_choice
from ResNeSt.loadgen.load_test import LoadTested, load_test
from ResNeSt.loadgen.settings import MODES, SCENARIOS, SECONDS, LoadTest
from ResNeSt.score.printed import score_lines
from ResNeSt.score.score import score_summaries


def main() -> int:
    """Runs the command line; 1 where LoadGen calls the run INVALID."""
    options = make_parser().parse_args()
    asked = LoadTest(
        model=model_choice(options),
        scenario=options.scenario,
        mode=options.mode,
        tensors=options.tensors,
        images=options.images,
        labels=options.labels,
        output=options.output,
        config=options.config,
        duration=options.duration,
        min_queries=options.min_queries,
        target_qps=options.target_qps,
        target_latency=options.target_latency,
    )
    tested = load_test(asked, aloud)
    lines = _verdict(asked.scenario, tested)
    figures = dataclasses.asdict(tested)
    if asked.mode == "accuracy" and asked.labels is not None:
        result = score_summaries([tested.accuracy_log], asked.labels)
        lines = score_lines(result.score, result.labelled, result.ranks)
        figures.update(top1_correct=result.score.top1, tot=result.score.total)
    print("\n".join(lines))
    for note in tested.notes:
        remark(note)
    aloud(f"logs: {tested.folder}")
    write_result(options, figures)
    return 1 if tested.valid is False else 0


def _verdict(scenario: str, tested: LoadTested) -> list[str]:
    latencies = {f"p{float(name):g}": value for name, value in tested.latency_ms.items() if name != "estimate"}
    told = [f"{name} {value:.2f} ms" for name, value in latencies.items()] if scenario != "Offline" else []
    if "estimate" in tested.latency_ms:
        told.append(
            f"p{99 if scenario == 'MultiStream' else 90} as MLPerf reports it {tested.latency_ms['estimate']:.2f} ms"
        )
    if tested.rate is not None:
        told.insert(0, f"{tested.rate:.1f} images/s")
    return [
        f"{scenario}: {', '.join(told)}; {'VALID' if tested.valid else 'INVALID'}",
        *(f"  {reason}" for reason in tested.reasons),
    ]


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m ResNeSt.loadgen",
        description=__doc__,
        example="python -m ResNeSt.loadgen --model work/resnest_demo/resnest_demo_bs4.xml --scenario Offline "
        "--tensors work/resnest_demo/prep_dataset --duration 1 --output work/loadgen",
    )
    add_model_flags(parser)
    parser.add_argument("--scenario", required=True, choices=SCENARIOS, help="how the queries come")
    parser.add_argument("--mode", choices=tuple(MODES), default="performance", help="what a run is for [%(default)s]")
    take(parser, "tensors", note="--images, decoded before they are asked for")
    take(parser, "images", note="--tensors")
    take(parser, "labels", note="none; sample number n is line n of it; mode accuracy needs it")
    take(parser, "output", default="loadgen", note="%(default)s; logs go to DIR/SCENARIO/MODE")
    parser.reads("--config", metavar="FILE", help="settings as in MLPerf's user.conf; flags go before them")
    take(parser, "duration", note=f"{SECONDS:g}; MLPerf asks for 600")
    parser.add_argument("--min-queries", type=positive, metavar="N", help="least queries, of Offline images [1]")
    parser.add_argument(
        "--target-qps",
        type=float,
        metavar="N",
        help="images/s that Offline expects, Server sends [measured, half of it]",
    )
    parser.add_argument(
        "--target-latency", type=float, metavar="MS", help="that Server allows, others expect [15, measured]"
    )
    return parser


if __name__ == "__main__":
    run(main)
