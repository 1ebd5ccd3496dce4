"""The rooms of ResNeSt/ and what they import, read from the code; `python -m tests.walls` prints them by level."""

from __future__ import annotations

import ast
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "ResNeSt"

# A room, and the rooms it may import; whoever adds one keeps the table free of circles (tested below).
ALLOWED = {
    "common": "",
    "formats": "common",
    "tensors": "common",
    "images": "common tensors",
    "labels": "common images",
    "labels.__main__": "common labels models",
    "models": "common formats images tensors",
    "engines": "common formats images models tensors",
    "score": "common labels models tensors",
    "export.rewrites": "models",
    "export": "common export.rewrites models",
    "compare": "common engines export.rewrites models score tensors",
    "infer": "common engines models tensors",
    "report": "common images labels models score",
    "training": "common formats images labels models score tensors",
    "answers": "common engines models score tensors",
    "cluster": "common",
    "evaluate": "answers cluster common engines images labels models score tensors",
    "predict": "answers cluster common engines images labels models",
    "loadgen": "common engines images labels models score tensors",
    "mindir": "common engines export models",
    "serve": "common engines formats images labels models score tensors",
    "__main__": "common",
    "completion": "__main__ common",
    "convert": "common compare engines formats models score tensors",
    "commands": "cluster common export images labels models score tensors training",
    "bench": "common convert engines images infer labels models report score tensors",
    "pipeline": "common compare convert images infer labels models report score tensors",
}
WITHIN = ["export.rewrites", "labels.__main__"]  # rooms in another one, which imports less, or is imported by less
LEVELS = 8
# These need PyTorch, ONNX Runtime, a web server and the like; everything else an Ascend host may import.
HEAVY = [
    *("export/to_onnx.py", "export/rewrites/*", "training/*", "commands/export.py", "commands/train.py"),
    *(
        "mindir/cell.py",
        "models/resnest.py",
        "models/pooling.py",
        "report/plots.py",
        "report/page.py",
        "report/layer_section.py",
        "report/speed_section.py",
    ),
    *("engines/onnxruntime.py", "engines/openvino.py", "engines/torch.py"),
    *(
        "serve/answering.py",
        "serve/app.py",
        "serve/connection.py",
        "serve/metrics.py",
        "serve/rpc.py",
        "serve/server.py",
    ),
    *("engines/onnxruntime_gpu.py", "engines/torch_gpu.py"),
]
OWN_PACKAGE = ["ResNeSt.engines.ascend", "ResNeSt.engines.ncnn"]  # light, but for a package that is not everywhere
HEAVY_PACKAGES = "torch torchvision onnx onnxsim onnxruntime openvino nncf matplotlib sklearn"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def is_heavy(module: Path) -> bool:
    return any(module.relative_to(PACKAGE).match(pattern) for pattern in HEAVY) and module.name != "__init__.py"


def light_modules() -> list[str]:
    """Dotted names of what an Ascend host or a board imports; ais_bench and ncnn are there and nowhere else."""
    paths = [path.relative_to(PROJECT) for path in modules() if not is_heavy(path)]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return ["resnest_preprocess", "ResNeSt_postprocess", *(name for name in names if name not in OWN_PACKAGE)]


def room(name: str) -> str:
    """`export.rewrites.attention` -> `export.rewrites`, `bench` -> `bench`; the package itself is no room."""
    within = next((room for room in WITHIN if f"{name}.".startswith(f"{room}.")), None)
    return within or name.split(".")[0]


def imports() -> dict[str, set[str]]:
    """For every room the others that one of its modules imports, at the top or inside a function."""
    found: dict[str, set[str]] = {}
    for module in modules():
        name = ".".join(module.relative_to(PACKAGE).with_suffix("").parts)
        if name == "__init__":
            continue
        others = found.setdefault(room(name), set())
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ResNeSt":
                path = (node.module or "").split(".")[1:]
                others |= {room(".".join([*path, alias.name])) for alias in node.names} - {"__version__"}
            elif isinstance(node, ast.Import):
                assert not [alias for alias in node.names if alias.name.startswith("ResNeSt")], module
        others.discard(room(name))
    return found


def levels(graph: dict[str, set[str]]) -> dict[str, int]:
    """A room's level: one above the highest that it imports. A circle ends in a RecursionError."""

    def level(name: str) -> int:
        return 1 + max(map(level, graph[name]), default=0)

    return {name: level(name) for name in graph}


def main() -> None:
    """Prints a line a room, lowest level first, and the totals."""
    graph = imports()
    found = levels(graph)
    for name in sorted(graph, key=lambda name: (found[name], name)):
        print(f"{found[name]}  {name:15}  {' '.join(sorted(graph[name]))}")
    count = sum(map(len, graph.values()))
    print(f"{len(graph)} rooms on {max(found.values())} levels, {count} imports between them")


if __name__ == "__main__":
    main()
