"""int8 for an Ascend chip: AMCT calibrates the simplified ONNX and writes another one, which ATC compiles.

The command and the name of what it writes are those of contract ATC; that data files hold a batch each and are taken in
lexicographic order is what `amct_onnx calibration --help` says, `batch_num` and `skip_layers` are fields of AMCT's
simplified configuration. What comes out can be judged on the chip only.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ResNeSt.common import cann, tool
from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import remove_plain, scratch_folder, sha256
from ResNeSt.convert.calibration import QUANTIZED, CalibrationTensors, check_described, is_float_branch
from ResNeSt.formats import onnx_header
from ResNeSt.formats.onnx_weights import write_one_file
from ResNeSt.models import sidecar
from ResNeSt.models.onnx_file import Network
from ResNeSt.tensors.folder import TensorFile, read_bytes

PROGRAM = "amct_onnx"
OPSETS = range(8, 15)  # that it takes
BATCH = 1  # of calibration; the network's batch axis is free
SHOWN_LINES = 10
DIGEST = "sha256"  # key of the record: of the calibrated network


def target_of(folder: Path, stem: str) -> Path:
    """Where the calibrated network goes: AMCT adds `_deploy_model.onnx` to the prefix that it is given."""
    return folder / f"{stem}_int8_deploy_model.onnx"


def configuration(onnx: Path, count: int) -> str:
    """AMCT's configuration file: `count` batches; the attention branches stay in floating point, as on cpu."""
    nodes = onnx_header.read(onnx).nodes
    skipped = [node.name for node in nodes if node.operator == "Conv" and is_float_branch(node.name)]
    return f"batch_num : {count}\n" + "".join(f'skip_layers : "{name}"\n' for name in skipped)


def command(network: Network) -> list[str]:
    """The command, for a folder that holds quant.cfg and data/; it writes m_deploy_model.onnx there."""
    shape = ",".join(str(side) for side in network.shape(BATCH))
    return [
        *(PROGRAM, "calibration", "--model", network.one_file, "--save_path", "./m"),
        *("--input_shape", f"{network.input_name}:{shape}", "--data_dir", "./data", "--data_types", "float32"),
        *("--calibration_config", "./quant.cfg"),
    ]


def check_opset(opset: int, path: Path) -> None:
    """Raises PipelineError where AMCT does not take the operator set of the network in `path`, as ATC may."""
    if opset not in OPSETS:
        raise PipelineError(
            f"{path}: operator set {opset}, AMCT takes {OPSETS[0]} to {OPSETS[-1]}; export with --opset 11"
        )


def is_ours(target: Path) -> bool:
    """Whether `quantize` left the file at `target` as it is, or a release that did not record its digest."""
    record = sidecar.read(target)
    return QUANTIZED in record and record.get(DIGEST) in (None, sha256(target))


def quantize(
    network: Network, target: Path, tensors: CalibrationTensors, made_of: dict[str, str], verbose: bool
) -> None:
    """Runs AMCT and moves what it wrote to `target`; the record beside it says what it is made of.

    Raises MissingRuntimeError where AMCT is not here, PipelineError where it fails,
    after printing its last lines; nothing is left at `target` then. `verbose` shows all that AMCT prints.
    """
    toolkit = cann.find_toolkit()
    environment = toolkit.environment if toolkit else dict(os.environ)
    program = shutil.which(PROGRAM, path=environment.get("PATH", ""))
    if program is None:
        raise MissingRuntimeError(
            f"{PROGRAM} is not on this machine; it is the part of CANN that int8 takes (Ascend-cann-amct): install it "
            f"and run the same command again, or copy {', '.join(map(str, network.files))} and the calibration "
            "tensors to a host that has it"
        )
    remove_plain(target)
    with scratch_folder(target.parent, "amct") as scratch:
        _write_inputs(Path(scratch), network, tensors.calibration)
        ended = tool.run([program, *command(network)[1:]], scratch, environment)
        deploy_model = Path(scratch, "m_deploy_model.onnx")
        if verbose:
            print(ended.output, end="", flush=True)
        if ended.code or not deploy_model.is_file():
            print("\n".join(ended.output.splitlines()[-SHOWN_LINES:]), file=sys.stderr)
            memory = ", most likely for want of memory" if ended.signal == "SIGKILL" else ""
            raise PipelineError(
                f"{target.name}: {PROGRAM} ended with {ended}{memory} and "
                f"{'a' if deploy_model.is_file() else 'no'} model; its last lines stand above, --log info shows all"
            )
        onnx_header.read(deploy_model)
        check_described(made_of, network.path, tensors)
        one_file = Path(scratch, target.name)
        write_one_file(deploy_model, one_file)
        sidecar.write(target, {**made_of, DIGEST: sha256(one_file)})
        os.replace(one_file, target)


def _write_inputs(folder: Path, network: Network, calibration: Sequence[TensorFile]) -> None:
    network.write_one_file(folder)
    (folder / "quant.cfg").write_text(configuration(network.path, len(calibration)), encoding="utf-8")
    data = folder / "data"
    data.mkdir()
    for number, tensor in enumerate(calibration):
        (data / f"{number:05}.bin").write_bytes(read_bytes(tensor, "float32"))
