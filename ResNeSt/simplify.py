"""First step of stage 3: .onnx -> simplified .onnx, batch axis and metadata kept."""

from __future__ import annotations

import contextlib
import io
import shlex
from pathlib import Path
from typing import List

from ResNeSt import network
from ResNeSt.errors import MissingRuntimeError, PipelineError
from ResNeSt.files import whole

# onnxsim compares both graphs at this batch size: at 1, a batch axis that got baked in would pass.
CHECKED_BATCH = 2


def is_current(source: Path, target: Path) -> bool:
    """Whether `target` is there and not older than `source`, which an Ascend host may not have at all."""
    return target.exists() and (not source.exists() or target.stat().st_mtime_ns >= source.stat().st_mtime_ns)


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
    with whole(target) as temporary:
        onnx.save(simplified, str(temporary))
