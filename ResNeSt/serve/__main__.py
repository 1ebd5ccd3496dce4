"""Serves a model by the Open Inference Protocol (KServe V2): REST and gRPC.

`python -m ResNeSt.serve export` writes a model repository for Triton, OVMS and KServe instead.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import sys
from collections.abc import Sequence

from ResNeSt.common.arguments import Parser, positive
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud
from ResNeSt.engines.image_batches import add_model_flags, model_choice
from ResNeSt.serve.settings import MAX_BODY, QUEUE, Service, port, size
from ResNeSt.serve.start import serve


def main() -> int | None:
    """Runs the command line; a service that was told to end exits with 0."""
    if sys.argv[1:2] == ["export"]:
        sys.argv[:2] = [f"{sys.argv[0]} export"]
        code: int | None = importlib.import_module("ResNeSt.serve.export").main()
        return code
    options = make_parser().parse_args()
    choice = model_choice(options)
    service = Service(
        models=[dataclasses.replace(choice, file=file) for file in _files(options.model)],
        name=options.name,
        host=options.host,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        max_body=options.max_body,
        queue=options.queue,
        token_file=options.token_file,
        no_auth=options.no_auth,
        names=options.names,
        log_requests=options.log_requests,
    )
    serve(service, functools.partial(print, flush=True) if options.log_requests else aloud)
    return 0


def _files(text: str) -> Sequence[str]:
    return [text] if os.path.exists(text) else [file.strip() for file in text.split(",") if file.strip()]


def make_parser() -> Parser:
    """The command line."""
    example = "python -m ResNeSt.serve --model work/resnest_demo/resnest_demo_bs4.xml"
    parser = Parser(prog="python -m ResNeSt.serve", description=__doc__, example=example, tells=("quiet",))
    add_model_flags(parser, side_by_side=1, note="several with commas between them")
    take(parser, "name", default="", note="as its file says")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on [%(default)s]")
    parser.add_argument("--http-port", type=port, default=8080, metavar="N", help="REST; 0: any free one [%(default)s]")
    parser.add_argument("--grpc-port", type=port, default=8081, metavar="N", help="gRPC; 0: any free one [%(default)s]")
    parser.add_argument(
        "--max-body",
        type=size,
        default=MAX_BODY,
        metavar="SIZE",
        help=f"largest body of a request [{MAX_BODY >> 20}MB]",
    )
    parser.add_argument(
        "--queue", type=positive, default=QUEUE, metavar="N", help="images at once; more are refused [%(default)s]"
    )
    parser.reads("--token-file", metavar="FILE", help="its text is asked for: Authorization: Bearer TEXT")
    parser.add_argument("--no-auth", action="store_true", help="listen beyond loopback without a token")
    take(parser, "names", note="the model's, or ImageNet's for 1,000")
    parser.add_argument("--log-requests", action="store_true", help="print a line a request")
    return parser


if __name__ == "__main__":
    run(main)
