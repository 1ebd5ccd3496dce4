"""First step of stage 3: .onnx -> simplified .onnx, batch axis and metadata kept."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import whole
from ResNeSt.common.made_of import Unchanged
from ResNeSt.common.paths import as_argument
from ResNeSt.engines.engine import run_images
from ResNeSt.engines.opening import open_engine
from ResNeSt.formats import onnx_header
from ResNeSt.formats.onnx_weights import sha256_of_onnx
from ResNeSt.models import onnx_file
from ResNeSt.models.files import model_files
from ResNeSt.models.onnx_file import Network

# onnxsim compares both graphs at this batch size: at 1, a batch axis that got baked in would pass.
CHECKED_BATCH = 2
MADE_OF = "simplified_from"  # key among the metadata_props: SHA-256 of the source
_ONE_AT_A_TIME = threading.Lock()  # the stdout that is redirected is that of all threads
SAME_NETWORK = 1e-3  # of the largest logit, on pictures
OTHER_NETWORK = 0.1  # of the largest logit: rounding stays below it even in ill-conditioned networks


def is_current(source: Path, target: Path) -> bool:
    """Whether `target` is there and made of `source`, which an Ascend host may not have at all.

    What onnxsim's own command wrote does not say what it is made of; it must not be older than `source` (see `check`).
    Raises PipelineError where this project wrote it, and its graph is another now.
    """
    if not (target.exists() and source.exists()):
        return target.exists()
    if not _says_its_source(target):
        target_times, source_times = (
            [file.stat().st_mtime_ns for file in model_files(path)] for path in (target, source)
        )
        return min(target_times) >= max(source_times)
    if not onnx_file.is_sealed(target, MADE_OF):
        raise PipelineError(f"{target}: is not as convert.sh left it, damaged or edited; delete it, or move it away")
    return onnx_file.holds(target, {MADE_OF: sha256_of_onnx(source)})


def _says_its_source(target: Path) -> bool:
    """Whether this project wrote it, in one file; onnxsim's command copies what a file said before, too."""
    header = onnx_header.read(target)
    return MADE_OF in header.metadata and not header.data_files


def is_ours(target: Path) -> bool:
    """Whether `target` may be made anew: it is damaged, or this project wrote it."""
    try:
        return target.exists() and _says_its_source(target)
    except PipelineError:
        return True


def origin(path: Path) -> str:
    """SHA-256 of the network that the ONNX file at `path` was simplified from, as it says, else of the file itself."""
    return onnx_header.read(path).metadata.get(MADE_OF) or sha256_of_onnx(path)


def check(source: Path, target: Path) -> None:
    """Raises PipelineError where what onnxsim's own command wrote to `target` is of another network than `source`.

    Both answer one random image. What says itself what it was made of is not asked again, nor where ONNX Runtime or
    `source` is not here.
    """
    if target == source or _says_its_source(target) or not source.exists():
        return
    shape = onnx_file.read(source).shape(1)
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    try:
        same = onnx_file.read(target).shape(1) == shape and _answer_alike(target, source, image)
    except MissingRuntimeError:
        return
    if not same:
        files = " and ".join(map(str, model_files(target)))
        raise PipelineError(f"{target}: gives other answers than {source}; delete {files}, convert.sh makes it anew")


def _answer_alike(target: Path, source: Path, image: np.ndarray) -> bool:
    actual, expected = (run_images(open_engine(path, "onnxruntime"), image) for path in (target, source))
    within = OTHER_NETWORK * np.abs(expected).max()
    return actual.shape == expected.shape and bool(np.abs(actual - expected).max() <= within)


def _graphs_answer_alike(network: Network, actual: Any, expected: Any) -> bool:
    """onnxsim compares on noise, where some networks make much of a rounding: these answer pictures, too."""
    import onnxruntime

    size = network.batch or CHECKED_BATCH
    noise = np.random.default_rng(0).standard_normal(network.shape(size)).astype(np.float32)
    for images, tolerance in ((pictures(network.shape(size)), SAME_NETWORK), (noise, OTHER_NETWORK)):
        ours, theirs = (
            onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
                None, {network.input_name: images}
            )[0]
            for model in (actual, expected)
        )
        if ours.shape != theirs.shape or not np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max():
            return False
    return True


def command(source: Path, target: Path) -> list[str]:
    """What does the same by hand."""
    return ["python3", "-m", "onnxsim", as_argument(source), as_argument(target)]


def is_installed() -> bool:
    """Whether `simplify` can be done here."""
    return all(importlib.util.find_spec(package) for package in ("onnx", "onnxsim"))


def elsewhere(source: Path, target: Path) -> str:
    """What to do where it cannot."""
    return (
        f"onnxsim is not installed here; on a machine that has it run "
        f"`{shlex.join(command(Path(source.name), Path(target.name)))}` and copy {target.name}, with the "
        f"{target.name}.data that it may write beside it, to {target.parent}"
    )


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """What is imported inside finds no PyTorch, as on a machine that lacks it; one that is loaded stays.

    onnxsim looks for it, for parts that are not used here; that is most of what a small conversion takes (measured on
    the demo: 3.7 s with it, 1.6 s without).
    """
    if "torch" in sys.modules or threading.active_count() > 1:  # another thread may be importing it
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


def check_batches(network: Network, batches: Sequence[int]) -> None:
    """Raises PipelineError where the network's batch size is set to another one than these, and cannot be changed.

    Nothing is said where ONNX Runtime is not here: what does not fit, the compiler refuses.
    """
    others = [batch for batch in batches if network.batch not in (None, batch)]
    if others and has_free_batch(network) is False:
        raise PipelineError(
            f"{network.path}: its batch size is set to {network.batch}, also inside of it, so that it cannot be "
            f"compiled for {', '.join(map(str, others))}; compile it for {network.batch}, or {_export_again(network)}"
        )


def check_free(network: Network) -> None:
    """Raises PipelineError where the batch size of the simplified network is set, for one that is to take several."""
    if network.batch is not None:
        raise PipelineError(
            f"{network.path}: its batch size is set to {network.batch}, --dynamic-batch takes a free one; give the "
            f"file that it was simplified from, or {_export_again(network)}"
        )


def _export_again(network: Network) -> str:
    return (
        f"export it again with a free batch axis: torch.onnx.export(..., input_names=['{network.input_name}'], "
        f"output_names=['output'], dynamic_axes={{'{network.input_name}': {{0: 'N'}}, 'output': {{0: 'N'}}}})"
    )


def has_free_batch(network: Network) -> bool | None:
    """Whether a network whose batch size is set gives the same answers when it is not; None where nothing can tell."""
    size = network.batch or 1
    images = pictures(network.shape(2 * size))
    try:
        import onnxruntime

        expected = run_images(open_engine(network.path, "onnxruntime"), images)
        model = onnx_file.load(network.path)
    except (ImportError, MissingRuntimeError):
        return None
    free_batch(model)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        actual = session.run(None, {network.input_name: images})[0]
    except Exception:  # a Reshape that does not fit, for one; ONNX Runtime's errors share no base class
        return False
    within = SAME_NETWORK * np.abs(expected).max()
    return actual.shape == expected.shape and bool(np.abs(actual - expected).max() <= within)


def free_batch(model: Any) -> None:
    """Frees the batch axis of the only input and output of an onnx.ModelProto; shapes on the way are to be inferred."""
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.shape.dim and value.name not in {weight.name for weight in model.graph.initializer}:
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]


def pictures(shape: Sequence[int]) -> np.ndarray:
    """Smooth random images, float32: unlike noise they are near what networks are trained on."""
    count, channels, height, width = shape
    coarse = np.random.default_rng(0).standard_normal((count, channels, 4, 4))
    rows, columns = (np.linspace(0, 3, side).round().astype(int) for side in (height, width))
    return coarse[:, :, rows][:, :, :, columns].astype(np.float32)


def simplify(source: Path, target: Path) -> None:
    """Writes `source`, simplified, to `target`.

    Raises MissingRuntimeError without onnxsim, PipelineError where the result does not give the source's answers.
    """
    network = onnx_file.read(source)
    try:
        import onnx

        with _without_torch():
            import onnxsim
    except ImportError:
        raise MissingRuntimeError(elsewhere(source, target)) from None
    with Unchanged(*model_files(source)):
        model, digest = onnx_file.load(source), sha256_of_onnx(source)
    try:
        if network.batch is not None and has_free_batch(network):
            free_batch(model)
            network = dataclasses.replace(network, batch=None)
        shape = network.shape(network.batch or CHECKED_BATCH)
        with _ONE_AT_A_TIME, contextlib.redirect_stdout(io.StringIO()):  # it counts its checks aloud
            shapes = {network.input_name: shape}
            simplified, same = onnxsim.simplify(model, check_n=1, test_input_shapes=shapes, certify=False)
    except Exception as error:  # whatever onnxsim raises, and it raises many things, it could not do it
        raise PipelineError(f"{source}: onnxsim failed: {error}") from error
    if not same and not _graphs_answer_alike(network, simplified, model):
        raise PipelineError(f"{source}: the simplified graph gives other answers; not written, report it to onnxsim")
    # onnxsim adds pages of its own remarks.
    del simplified.metadata_props[:]
    simplified.metadata_props.extend(model.metadata_props)
    onnx_file.seal(simplified)
    simplified.metadata_props.add(key=MADE_OF, value=digest)
    with whole(target) as temporary:
        onnx.save(simplified, str(temporary))
