"""First step of stage 3: .onnx -> simplified .onnx, batch axis and metadata kept."""

from __future__ import annotations

import contextlib
import io
import shlex
from pathlib import Path
from typing import List

from ResNeSt import network, onnx_header
from ResNeSt.errors import MissingRuntimeError, PipelineError
from ResNeSt.files import sha256, whole

# onnxsim compares both graphs at this batch size: at 1, a batch axis that got baked in would pass.
CHECKED_BATCH = 2
MADE_OF = "simplified_from"  # key among the metadata_props: SHA-256 of the source


def is_current(source: Path, target: Path) -> bool:
    """Whether `target` is there and made of `source`, which an Ascend host may not have at all.

    What onnxsim's own command wrote does not say what it is made of; it must not be older than `source`.
    """
    if not (target.exists() and source.exists()):
        return target.exists()
    made_of = onnx_header.read(target).metadata.get(MADE_OF)
    if made_of is None:
        return target.stat().st_mtime_ns >= source.stat().st_mtime_ns
    return made_of == sha256(source)


def command(source: Path, target: Path) -> List[str]:
    """What does the same by hand."""
    return ["python3", "-m", "onnxsim", str(source), str(target)]


def simplify(source: Path, target: Path) -> None:
    """Writes `source`, simplified, to `target`.

    Raises MissingRuntimeError without onnxsim, PipelineError where the result does not give the source's answers.
    """
    shape = network.read(source).shape(CHECKED_BATCH)
    try:
        import onnx
        import onnxsim
    except ImportError:
        raise MissingRuntimeError(
            f"onnxsim is not installed here; on a machine that has it run "
            f"`{shlex.join(command(Path(source.name), Path(target.name)))}` and copy {target.name} to {target.parent}"
        ) from None
    try:
        model = onnx.load(str(source))
        with contextlib.redirect_stdout(io.StringIO()):  # it counts its checks aloud
            shapes = {model.graph.input[0].name: shape}
            simplified, same = onnxsim.simplify(model, check_n=1, test_input_shapes=shapes, certify=False)
    except Exception as error:  # whatever onnxsim raises, and it raises many things, it could not do it
        raise PipelineError(f"{source}: onnxsim failed: {error}") from error
    if not same:
        raise PipelineError(f"{source}: the simplified graph gives other answers; not written, report it to onnxsim")
    # onnxsim adds pages of its own remarks.
    del simplified.metadata_props[:]
    simplified.metadata_props.extend(model.metadata_props)
    simplified.metadata_props.add(key=MADE_OF, value=sha256(source))
    with whole(target) as temporary:
        onnx.save(simplified, str(temporary))
