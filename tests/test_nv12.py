"""NV12 (YUV420SP) from end to end: the tensors, the change back to RGB in the compiled model, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.convert import atc
from ResNeSt.convert.compile import Compiled
from ResNeSt.convert.conversion import Conversion, convert, plan
from ResNeSt.engines.engine import TensorSpec
from ResNeSt.engines.opening import open_engine
from ResNeSt.engines.tensor_batches import Normalisation, adapter
from ResNeSt.images.preprocess import preprocess
from ResNeSt.images.recipes import normalisation_table, normalise
from ResNeSt.infer.client import check_om_tensors
from ResNeSt.infer.inference import Inference, infer
from ResNeSt.models import onnx_file, sidecar
from ResNeSt.models.cards import IMAGENET_MEAN, IMAGENET_STD, card, names
from ResNeSt.models.model_info import format_of
from ResNeSt.tensors import nv12
from ResNeSt.tensors.folder import find_tensors, read_tensor
from ResNeSt.tensors.format import LAYOUTS, TensorFormat, dtype_of
from tests.conftest import PROJECT, assert_refused, call, picture

torch = pytest.importorskip("torch")

SIDE = 16
DEMO = card("resnest_demo")
WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(pixels: Any) -> np.ndarray:
    pixels = np.asarray(pixels, np.uint8)
    out = np.empty((pixels.shape[0] * 3 // 2, pixels.shape[1]), np.uint8)
    nv12.from_rgb(pixels, out)
    return out


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def planes(tensors: np.ndarray) -> Any:
    """uint8 (N, 3 H / 2, W) -> Y, U and V of every pixel, (N, 3, H, W), in PyTorch's own operators."""
    values = torch.from_numpy(tensors.astype(np.int64))
    height, width = tensors.shape[1] * 2 // 3, tensors.shape[2]
    pairs = values[:, height:].reshape(-1, height // 2, width // 2, 2).permute(0, 3, 1, 2)
    chroma = torch.nn.functional.interpolate(pairs.double(), scale_factor=2, mode="nearest").long()
    return torch.cat([values[:, None, :height], chroma], dim=1)


def documented(tensors: np.ndarray) -> Any:
    """RGB levels (N, 3, H, W) by the integers of CANN's table for JPEG."""
    y, u, v = planes(tensors).unbind(1)
    u, v = u - 128, v - 128
    red, green, blue = 256 * y + 359 * v, 256 * y - 88 * u - 183 * v, 256 * y + 454 * u
    return (torch.stack([red, green, blue], dim=1) >> 8).clamp(0, 255)


# --- The arithmetic


@pytest.mark.parametrize(
    ("colour", "y", "u", "v"),
    [(WHITE, 255, 128, 128), ((0, 0, 0), 0, 128, 128), (RED, 76, 85, 255), (GREEN, 150, 44, 21), (BLUE, 29, 255, 107)],
)
def test_colours_have_the_values_that_jpeg_gives_them(colour: tuple[int, ...], y: int, u: int, v: int) -> None:
    assert encoded(np.full((2, 2, 3), colour)).tolist() == [[y, y], [y, y], [u, v]]


def test_the_plane_of_y_comes_first_then_pairs_of_u_and_v() -> None:
    pixels = np.full((4, 4, 3), WHITE, np.uint8)
    pixels[:2, 2:] = RED
    assert encoded(pixels).tolist() == [
        *([255, 255, 76, 76],) * 2,
        *([255, 255, 255, 255],) * 2,
        [128, 128, 85, 255],
        [128, 128, 128, 128],
    ]


def test_tensors_are_those_of_the_jfif_formulas_in_pytorch() -> None:
    pixels = noise(SIDE, SIDE, 3)
    red, green, blue = torch.from_numpy(pixels).double().unbind(-1)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([(blue - y) / 1.772, (red - y) / 1.402]) + 128
    expected = torch.nn.functional.avg_pool2d(chroma[None], 2)[0].permute(1, 2, 0).reshape(SIDE // 2, SIDE)
    off = encoded(pixels) - torch.cat([y, expected]).numpy()
    assert np.abs(off).max() <= 0.5001


def test_the_change_back_is_within_a_level_of_the_jfif_formulas_in_pytorch() -> None:
    tensors = noise(3, SIDE * 3 // 2, SIDE)
    y, u, v = planes(tensors).double().unbind(1)
    u, v = u - 128, v - 128
    rgb = torch.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], dim=-1).clamp(0, 255)
    off = nv12.to_rgb(tensors) - rgb.numpy()
    # It shifts, which rounds down, and has its coefficients in 1/256.
    assert off.min() > -1.2
    assert off.max() < 0.2


def test_the_change_back_is_what_cann_documents() -> None:
    tensors = noise(3, SIDE * 3 // 2, SIDE)
    np.testing.assert_array_equal(nv12.to_rgb(tensors), documented(tensors).permute(0, 2, 3, 1).numpy())


def test_grey_comes_back_as_it_was_and_colours_of_two_by_two_pixels_within_two_levels() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(nv12.to_rgb(encoded(grey)[None])[0], grey)
    blocks = noise(8, 8, 3).repeat(2, axis=0).repeat(2, axis=1)
    assert np.abs(nv12.to_rgb(encoded(blocks)[None])[0].astype(int) - blocks).max() <= 2


def test_the_strongest_blue_and_red_stay_within_a_byte() -> None:
    for channel, place in ((2, 0), (0, 1)):  # 128 + 255 / 2 is 255.5
        pixels = np.zeros((2, 2, 3), np.uint8)
        pixels[..., channel] = 255
        assert encoded(pixels)[2, place] == 255


# --- Tensors


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        picture(40 + 9 * number, 61 - 7 * number, seed=number).save(folder / f"p{number}.png")
    return folder


def made(pictures: Path, folder: Path, dtype: str, size: int = SIDE, packed: bool = False) -> Path:
    preprocess(pictures, folder, format_of(DEMO, dtype, size=size), packed=packed)
    return folder


@pytest.mark.parametrize("packed", [False, True], ids=["a file each", "packed"])
def test_tensors_hold_the_very_crop_in_one_and_a_half_bytes_a_pixel(
    pictures: Path, tmp_path: Path, packed: bool
) -> None:
    crops = find_tensors(made(pictures, tmp_path / "u", "uint8"))
    found = find_tensors(made(pictures, tmp_path / "y", "yuv420sp", packed=packed))
    assert len(found) == len(crops) == 4
    for tensor, crop in zip(found, crops):
        values = read_tensor(tensor, (SIDE * 3 // 2, SIDE), "uint8")
        np.testing.assert_array_equal(values, encoded(read_tensor(crop, (SIDE, SIDE, 3), "uint8")))
    if not packed:
        assert {Path(tensor.path).stat().st_size for tensor in found} == {SIDE * SIDE * 3 // 2}
    told = json.loads((tmp_path / "y/tensors.json").read_text())
    assert (told["dtype"], told["layout"]) == ("yuv420sp", "NV12")


def test_an_odd_size_is_refused_with_what_to_do(pictures: Path, tmp_path: Path) -> None:
    flags = ["--model=resnest_demo", "--dtype=yuv420sp", "--size=65"]
    result = call("resnest_preprocess.py", pictures, tmp_path / "out", *flags)
    assert_refused(result, "yuv420sp takes images of an even side, found 65 pixels; use --dtype uint8", code=2)
    assert not (tmp_path / "out").exists()


def test_every_model_has_an_even_size() -> None:
    for name in names():
        assert format_of(card(name), "yuv420sp").nbytes == card(name).size ** 2 * 3 // 2


@pytest.mark.parametrize("dtype", LAYOUTS)
@pytest.mark.parametrize("side", [2, 4, 6, 96])
def test_shape_and_values_tell_the_dtype_of_a_tensor(dtype: str, side: int) -> None:
    assert dtype_of(LAYOUTS[dtype].shape(side), LAYOUTS[dtype].element) == dtype


@pytest.mark.parametrize("shape", [(3, 4, 6), (4, 6), (9, 4), (4, 4), (24,), (0, 0), (), (15, 10, 1)])
def test_other_shapes_are_of_none(shape: tuple[int, ...]) -> None:
    assert dtype_of(shape, "uint8") is None


def spec(dtype: str, batch: int = 2, side: int = SIDE) -> TensorSpec:
    return TensorSpec("x", (batch, *LAYOUTS[dtype].shape(side)), LAYOUTS[dtype].element)


@pytest.mark.parametrize("given", LAYOUTS)
@pytest.mark.parametrize("wanted", LAYOUTS)
def test_tensors_of_any_dtype_become_those_of_any_other(given: str, wanted: str) -> None:
    levels = {"float32": noise(2, SIDE, SIDE, 3), "uint8": noise(2, SIDE, SIDE, 3)}
    tensors = {name: of_levels(name, pixels) for name, pixels in levels.items()}
    tensors["yuv420sp"] = noise(2, SIDE * 3 // 2, SIDE)
    levels["yuv420sp"] = documented(tensors["yuv420sp"]).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    adapt = adapter(spec(given).shape[1:], spec(given).dtype, spec(wanted), Normalisation(DEMO.mean, DEMO.std))
    assert adapt is not None
    found = adapt(tensors[given])
    expected = tensors[given] if given == wanted else of_levels(wanted, levels[given])
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def of_levels(dtype: str, pixels: np.ndarray) -> np.ndarray:
    if dtype == "float32":
        out = np.empty((len(pixels), 3, SIDE, SIDE), np.float32)
        for crop, tensor in zip(pixels, out):
            normalise(crop, normalisation_table(DEMO.mean, DEMO.std), tensor)
        return out
    return np.stack([encoded(crop) for crop in pixels]) if dtype == "yuv420sp" else pixels


def test_values_beyond_a_byte_become_its_ends_not_the_other_end() -> None:
    adapt = adapter((3, 2, 2), "float32", spec("uint8", 1, 2), Normalisation((0.0,) * 3, (1.0,) * 3))
    assert adapt is not None
    assert adapt(np.full((1, 3, 2, 2), 1.02, np.float32)).min() == 255
    assert adapt(np.full((1, 3, 2, 2), -0.02, np.float32)).max() == 0


def test_tensors_of_another_size_fit_no_model() -> None:
    takes = spec("yuv420sp", side=2 * SIDE)
    assert adapter((SIDE, SIDE, 3), "uint8", takes, Normalisation(DEMO.mean, DEMO.std)) is None


# --- The compiled model


@pytest.fixture(scope="module")
def compiled(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("compiled")
    (model,) = convert(Conversion(demo_onnx, [3], "cpu", folder, dtype="yuv420sp"))
    return model


def test_the_cpu_model_gives_pytorch_s_answers_to_the_same_pixels(compiled: Compiled, demo_checkpoint: Path) -> None:
    engine, reference = open_engine(compiled.path), open_engine(demo_checkpoint, batch=3)
    assert engine.input.shape == (3, DEMO.size * 3 // 2, DEMO.size)
    # A picture, noise, and colours that are outside of RGB.
    tensors = np.stack(
        [encoded(picture(DEMO.size, DEMO.size)), noise(*engine.input.shape[1:]), np.full(engine.input.shape[1:], 255)]
    ).astype(np.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (DEMO.mean, DEMO.std))
    expected = reference.run(((documented(tensors) / 255 - mean) / std).float().numpy())
    np.testing.assert_allclose(engine.run(tensors), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_model_of_several_batch_sizes_takes_nv12_too(compiled: Compiled, demo_onnx: Path, tmp_path: Path) -> None:
    (model,) = convert(Conversion(demo_onnx, [1, 2], "cpu", tmp_path, dtype="yuv420sp", dynamic_batch=True))
    engine, fixed = open_engine(model.path, batch=3), open_engine(compiled.path)
    assert engine.input.shape == fixed.input.shape
    tensors = noise(*engine.input.shape)
    np.testing.assert_allclose(engine.run(tensors), fixed.run(tensors), rtol=0, atol=1e-5)


def test_the_record_names_the_dtype_and_the_model_says_how_its_images_are_made(compiled: Compiled) -> None:
    assert sidecar.read(compiled.path)["dtype"] == compiled.dtype == "yuv420sp"
    assert open_engine(compiled.path).info["recipe"] == DEMO.recipe


def test_images_are_read_for_such_a_model_and_classified_as_training_measured(compiled: Compiled) -> None:
    expected = json.loads((PROJECT / "demo/expected.json").read_text())
    flags = [f"--images={PROJECT / 'demo/val'}", f"--labels={PROJECT / 'demo/val_label.txt'}"]
    result = call("-m", "ResNeSt.evaluate", f"--model={compiled.path}", *flags)
    assert result.returncode == 0, result.stderr
    assert f"top1_acc\t{expected['top1']:.4f}\n" in result.stdout


@pytest.mark.parametrize("indexed", [True, False], ids=["with tensors.json", "without"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_tensors_of_another_dtype_are_refused_by_such_a_model(
    compiled: Compiled, pictures: Path, tmp_path: Path, dtype: str, indexed: bool
) -> None:
    folder = made(pictures, tmp_path / "prep", dtype, DEMO.size)
    if not indexed:
        (folder / "tensors.json").unlink()
    found = f"{DEMO.size**2 * (3 if dtype == 'uint8' else 12)} (bytes, an image takes|not match)"
    with pytest.raises(PipelineError, match=r"the model takes yuv420sp \[144, 96\]" if indexed else found):
        infer(Inference(compiled.path, folder))


def test_such_tensors_are_inferred(compiled: Compiled, pictures: Path, tmp_path: Path) -> None:
    for packed in (False, True):
        prep = made(pictures, tmp_path / f"prep{packed}", "yuv420sp", DEMO.size, packed)
        assert infer(Inference(compiled.path, prep, output=tmp_path / f"out{packed}", dirname="r")).batch == 3
    first, second = (sorted((tmp_path / f"out{packed}/r").iterdir()) for packed in (False, True))
    assert [path.name for path in first] == [f"p{number}_0.bin" for number in range(4)]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("recorded", ["uint8", "float32", "yuv420sp"])
def test_tensors_for_a_recorded_om_are_checked_by_dtype(recorded: str, pictures: Path, tmp_path: Path) -> None:
    om = tmp_path / "m.om"
    sidecar.write(om, {"dtype": recorded, "info": {"size": str(SIDE)}})
    for dtype in LAYOUTS:
        prep = made(pictures, tmp_path / dtype, dtype)
        if dtype == recorded:
            check_om_tensors(om, prep)
        else:
            with pytest.raises(PipelineError, match=f"holds .* {dtype} .*, the model takes {recorded} "):
                check_om_tensors(om, prep)


# --- Ascend


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Classifiers of 4 and 5 pixels, by side: the means of the channels."""
    onnx = pytest.importorskip("onnx")
    helper, folder = onnx.helper, tmp_path_factory.mktemp("tiny")
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    paths = {side: folder / f"of{side}_sim.onnx" for side in (4, 5)}
    for side, path in paths.items():
        ends = [
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)]
            for name, shape in (("x", ["N", 3, side, side]), ("y", ["N", 3]))
        ]
        model = helper.make_model(
            helper.make_graph(nodes, "g", *ends), opset_imports=[helper.make_opsetid("", 11)], ir_version=6
        )
        said = {"size": side, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD), "recipe": DEMO.recipe}
        helper.set_model_props(model, {f"resnest.{key}": str(value) for key, value in said.items()})
        onnx.save(model, path)
    return paths


def test_the_aipp_file_takes_nv12_and_makes_rgb_of_it_by_the_matrix_of_jpeg(tiny: dict[int, Path]) -> None:
    lines = [line.strip() for line in atc.aipp_config(onnx_file.read(tiny[4]), "yuv420sp").splitlines()]
    assert lines == [
        "aipp_op {",
        "aipp_mode: static",
        "input_format: YUV420SP_U8",
        "csc_switch: true",
        "rbuv_swap_switch: false",
        *("matrix_r0c0: 256", "matrix_r0c1: 0", "matrix_r0c2: 359"),
        *("matrix_r1c0: 256", "matrix_r1c1: -88", "matrix_r1c2: -183"),
        *("matrix_r2c0: 256", "matrix_r2c1: 454", "matrix_r2c2: 0"),
        *("input_bias_0: 0", "input_bias_1: 128", "input_bias_2: 128"),
        "src_image_size_w: 4",
        "src_image_size_h: 4",
        *("min_chn_0: 123.675", "min_chn_1: 116.28", "min_chn_2: 103.53"),
        *("var_reci_chn_0: 0.0171247538316637", "var_reci_chn_1: 0.0175070028011204"),
        *("var_reci_chn_2: 0.0174291938997821", "}"),
    ]


@pytest.mark.parametrize("chip", ["310P3", "cpu"])
def test_a_network_of_an_odd_size_is_refused_with_what_to_do(chip: str, tiny: dict[int, Path], tmp_path: Path) -> None:
    asked = Conversion(tiny[5], [1], chip, tmp_path / "out", dtype="yuv420sp")
    for function in (convert, plan):
        with pytest.raises(ArgumentError, match=r"of5_sim\.onnx: .*even side, found 5 pixels; use --dtype uint8, or"):
            function(asked)
    assert plan(dataclasses.replace(asked, dtype="uint8"))


def test_a_model_of_one_kind_of_pixels_is_not_replaced_by_one_of_another(tiny: dict[int, Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    asked = Conversion(tiny[4], [1], "cpu", tmp_path, dtype="uint8")
    convert(asked)
    with pytest.raises(PipelineError, match="was compiled for dtype uint8, not dtype yuv420sp; --force replaces it"):
        convert(dataclasses.replace(asked, dtype="yuv420sp"))


@pytest.fixture
def ascend(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The engine's module, beside a client that is there and does nothing."""
    interface = ModuleType("ais_bench.infer.interface")
    interface.InferSession = None  # type: ignore[attr-defined]
    for name in ("ais_bench", "ais_bench.infer"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "ais_bench.infer.interface", interface)
    monkeypatch.delitem(sys.modules, "ResNeSt.engines.ascend", raising=False)
    yield importlib.import_module("ResNeSt.engines.ascend")
    sys.modules.pop("ResNeSt.engines.ascend", None)


def port(shape: list[int], size: int) -> SimpleNamespace:
    return SimpleNamespace(name="x", shape=shape, size=size)


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("shape", "bytes_a_pixel", "dtype"),
    [
        ([3, 224, 224], 12, "float32"),
        ([3, 224, 224], 3, "uint8"),  # a client that names the network's side of AIPP
        ([224, 224, 3], 3, "uint8"),
        ([3, 224, 224], 1.5, "yuv420sp"),
        ([224, 224, 3], 1.5, "yuv420sp"),  # ACL's aclmdlGetInputDims
        ([336, 224, 1], 1.5, "yuv420sp"),  # and its V2
    ],
)
def test_an_om_s_input_is_told_by_its_bytes_whichever_side_of_aipp_is_named(
    ascend: Any, tmp_path: Path, batch: int, shape: list[int], bytes_a_pixel: float, dtype: str
) -> None:
    ports = [port([batch, *shape], int(batch * 224 * 224 * bytes_a_pixel))]
    assert ascend._spec(tmp_path / "m.om", ports, batch, batch) == spec(dtype, batch, 224)
    sidecar.write(tmp_path / "m.om", {"dtype": dtype})
    assert ascend._spec(tmp_path / "m.om", ports, batch, batch) == spec(dtype, batch, 224)
    free = [port([-1, *shape], ports[0].size)]  # of a dynamic batch the bytes are those of the largest
    assert ascend._spec(tmp_path / "m.om", free, batch, 1) == spec(dtype, 1, 224)


def test_an_om_whose_record_says_another_dtype_is_refused(ascend: Any, tmp_path: Path) -> None:
    sidecar.write(tmp_path / "m.om", {"dtype": "yuv420sp"})
    for shape, size in (([1, 4, 4, 3], 48), ([1, 3, 4, 4], 192)):
        expected = rf"^{re.escape(str(tmp_path / 'm.om'))}: inputs are .* of {size} bytes, its record says yuv420sp; "
        with pytest.raises(PipelineError, match=expected):
            ascend._spec(tmp_path / "m.om", [port(shape, size)], 1, 1)


def test_inputs_that_are_no_images_are_refused(ascend: Any, tmp_path: Path) -> None:
    for ports in ([port([1, 3, 4, 4], 96)], [port([1, 6, 4, 2], 48)], [port([1, 6, 4, 1], 24)] * 2, [port([2], 24)]):
        with pytest.raises(PipelineError, match="expected square images: float32 NCHW, uint8 NHWC or NV12"):
            ascend._spec(tmp_path / "m.om", ports, 1, 1)


def test_a_tensor_format_of_an_odd_side_cannot_be() -> None:
    with pytest.raises(ArgumentError, match="even side, found 5 pixels"):
        TensorFormat("squash-bilinear", 5, "yuv420sp", (), ())
