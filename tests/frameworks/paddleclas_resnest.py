"""Writes FOLDER/peer.pdparams, a ResNeSt with one block a stage of PaddleClas, and FOLDER/peer.npz: images and logits.

The second argument is the radix; with 1 the pooling comes first, as in PaddleClas's ResNeSt50_fast_1s1x64d.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from random_weights import CLASSES, images, values

KINDS = {"_variance": "scale", "_batch_norm.weight": "scale", "_mean": "shift", "bias": "shift"}


def network(radix: int) -> Any:
    """PaddleClas's class, from its file alone: the package around it wants many others that are of no use here."""
    (source,) = (Path(folder) / "paddleclas" for folder in sys.path if (Path(folder) / "paddleclas").is_dir())
    for name in ("", ".ppcls", ".ppcls.arch", ".ppcls.arch.backbone", ".ppcls.arch.backbone.model_zoo", ".ppcls.utils"):
        package = types.ModuleType(f"paddleclas{name}")
        package.__path__ = [str(source / name.replace(".", "/").lstrip("/"))]
        sys.modules[package.__name__] = package
    loader: Any = types.ModuleType("paddleclas.ppcls.utils.save_load")
    loader.load_dygraph_pretrain = loader.load_dygraph_pretrain_from_url = None
    sys.modules[loader.__name__] = loader
    module = importlib.import_module("paddleclas.ppcls.arch.backbone.model_zoo.resnest")
    shape = {"layers": [1, 1, 1, 1], "deep_stem": True, "stem_width": 32, "avg_down": True, "avd": True}
    return module.ResNeSt(**shape, radix=radix, avd_first=radix == 1, class_num=CLASSES)


def main(folder: Path, radix: int) -> None:
    random = np.random.default_rng(0)
    model = network(radix)
    for name, entry in model.state_dict().items():
        kind = next((kind for ending, kind in KINDS.items() if name.endswith(ending)), "weight")
        shape = tuple(entry.shape)
        entry.set_value(values(kind, shape[::-1], random).T if len(shape) == 2 else values(kind, shape, random))
    model.eval()
    pictures = images(random)
    logits = model(paddle.to_tensor(pictures)).numpy()
    paddle.save(model.state_dict(), str(folder / "peer.pdparams"))
    np.savez(folder / "peer.npz", images=pictures, logits=logits)


main(Path(sys.argv[1]), int(sys.argv[2]))
