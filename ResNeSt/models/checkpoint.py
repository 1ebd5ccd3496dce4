"""Checkpoint files: reading any of them, finding the network in it, loading it; which card a file goes with.

A checkpoint is untrusted: it is read with `weights_only=True`, so that it can carry tensors and nothing that runs.
MindSpore's and Paddle's are read by ResNeSt.formats, with the same care.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError, library_text
from ResNeSt.common.files import PathLike
from ResNeSt.common.progress import Say, silent
from ResNeSt.formats import checkpoints, content
from ResNeSt.models.cards import Architecture, Card, card, card_beside, card_text, find_card, names

if TYPE_CHECKING:
    import torch

    from ResNeSt.models.resnest import ResNeSt

State = dict[str, "torch.Tensor"]

# An entry of a ResNeSt behind whatever stands before it: `module.`, `state_dict.model.`, ...
_ENTRY = re.compile(
    r"((?:.*?\.)??)"
    r"((?:conv1\.[013467]|bn1|fc|layer[1-4]\.\d+\.(?:conv[13]|bn[13]|conv2\.(?:conv|fc[12]|bn[01])|downsample\.[12]))"
    r"\.(?:weight|bias|running_mean|running_var|num_batches_tracked))"
)
_FIRST = "conv1.0.weight"
_EMA = re.compile(r"(^|[._])ema[._]", re.IGNORECASE)
_SHOWN = 5


def _note(line: str) -> None:
    """To stderr: whoever runs the weights must not miss it, and what a command prints may be data."""
    print(f"note: {line}", file=sys.stderr)


class Weights(NamedTuple):
    """A network's entries under the official names, and how it pools (ResNeSt.models.pooling).

    `place` is what stands before their names in the file, with a dot at its end unless it is empty; `is_ema` whether
    they are the moving average of a trainer's weights.
    """

    state: State
    pooling: str
    place: str
    is_ema: bool

    def __str__(self) -> str:
        """Where they stand in the file, for a printed line; empty where that is its top."""
        return f"{'EMA, ' if self.is_ema else ''}{self.place[:-1]}"


class _Leaf(NamedTuple):
    """A tensor, and how many mappings it lies in."""

    tensor: torch.Tensor
    depth: int


def read(path: PathLike, ema: bool | None = None, say: Say = _note) -> Weights:
    """The one network in a checkpoint, whatever mappings and prefixes its names stand under.

    The file is PyTorch's, of safetensors, MindSpore's or PaddleClas's; its content tells, not its suffix. Where it
    holds a trainer's weights and their moving average (EMA), `ema` chooses; None takes the average, as timm does, and
    `say`, by default a line on stderr, hears which it was. Raises PipelineError where the file holds no network,
    several, or other things than tensors and plain values, and where it has not what `ema` asks for.
    """
    kind = content.kind(path)
    if kind in checkpoints.FRAMEWORKS:
        import torch

        foreign = checkpoints.read(path, kind)
        # A copy in memory of its own: some arrays lie in the mapped file, some are transposed.
        loaded: Any = {name: torch.from_numpy(value.copy()) for name, value in foreign.state.items()}
        pooling = foreign.pooling
    else:
        loaded, pooling = _load_torch(path, kind), "zeros"
    place, state = _find(path, loaded, ema, say)
    return Weights(_with_counters(state), pooling, place, _is_ema(place))


def read_state(path: PathLike, ema: bool | None = None) -> State:
    """The state dict of a checkpoint under the official names; raises as `read` does."""
    return read(path, ema).state


def _load_torch(path: PathLike, kind: str) -> Any:
    import torch

    try:
        if kind == content.SAFETENSORS:
            from safetensors.torch import load_file

            return load_file(path)
        # timm's trainer keeps its command line in the file, as a Namespace: an object that holds values and runs
        # nothing.
        # By its content: of a path, torch would read the suffix.
        with torch.serialization.safe_globals([argparse.Namespace]), open(path, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on damaged files
        raise PipelineError(f"{path}: not a readable checkpoint of weights alone: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Torch's own words advise to read the file as code."""
    found = re.search(r"GLOBAL (\S+)|(?:class|function|type) (\S+) ", str(error))
    if found is None:
        told = "" if "weights_only" in str(error) else f" ({library_text(error)})"
        return f"cut short, damaged or of another program{told}; copy it again"
    name = found[1] or found[2]
    what = "a NumPy value" if name.startswith("numpy.") else "an object of Python's"
    return (
        f"it holds {name}, {what}, and only tensors and plain values are read; where it was made, save its weights "
        "alone: torch.save(model.state_dict(), ...)"
    )


def _find(path: PathLike, loaded: Any, ema: bool | None, say: Say) -> tuple[str, State]:
    """What stands before the names of the one network, and its entries, with those that no network here has."""
    leaves = _leaves(path, loaded)
    groups: dict[str, set[str]] = {}
    for name in leaves:
        if entry := _ENTRY.fullmatch(name):
            groups.setdefault(entry[1], set()).add(entry[2])
    if not groups:
        raise PipelineError(
            f"{path}: none of its {len(leaves)} names is a ResNeSt's, like {_FIRST}, under whatever prefix; it has "
            f"{_some([name[:60] for name in leaves])}"
        )
    whole = [place for place, entries in groups.items() if _FIRST in entries]
    averaged = [place for place in groups if _is_ema(place)]
    # One that is not whole is not passed over: loading it says what is missing.
    if averaged and ema is not False and not set(averaged) & set(whole):
        whole.append(max(averaged, key=lambda place: len(groups[place])))
    if not whole:
        whole.append(max(groups, key=lambda place: len(groups[place])))
    place = _choose(path, whole, ema, say)
    same_kind = {other: entries for other, entries in groups.items() if _is_ema(other) == _is_ema(place)}
    for other, entries in same_kind.items():
        twice = sorted(entries & groups[place])
        if other != place and twice and (other.startswith(place) or place.startswith(other)):
            raise PipelineError(
                f"{path}: holds both {place}{twice[0]} and {other}{twice[0]}, and which is meant it does not say; save "
                "it again with one of them"
            )
    depth = max(leaves[place + entry].depth for entry in groups[place])
    rest = [name for name in leaves if name.startswith(place) and leaves[name].depth <= depth]
    belong = [name for name in rest if (entry := _ENTRY.fullmatch(name)) is None or entry[1] in same_kind]
    return place, {name[len(place) :]: leaves[name].tensor for name in belong}


def _leaves(path: PathLike, loaded: Any) -> dict[str, _Leaf]:
    """The tensors of nested mappings, by their keys with dots between them."""
    import torch

    found: dict[str, _Leaf] = {}

    def visit(mapping: Mapping[Any, Any], before: str, around: tuple[int, ...]) -> None:
        for key, value in mapping.items():
            name = f"{before}{key}"
            if isinstance(value, Mapping) and id(value) not in around:
                visit(value, f"{name}.", (*around, id(value)))
            elif isinstance(value, torch.Tensor):
                if name in found:
                    raise PipelineError(f"{path}: holds {name} twice; save it again with one of them")
                found[name] = _Leaf(value, len(around))

    if isinstance(loaded, Mapping):
        visit(loaded, "", (id(loaded),))
    if not found:
        raise PipelineError(
            f"{path}: holds no state dict (a mapping from names to tensors), but {type(loaded).__name__}"
            + (f" with {_some([str(key) for key in loaded])}" if isinstance(loaded, Mapping) and loaded else "")
        )
    return found


def _is_ema(place: str) -> bool:
    return _EMA.search(place) is not None


def _choose(path: PathLike, places: Sequence[str], ema: bool | None, say: Say) -> str:
    """One of the places where a network stands; says where it is an EMA or might have been one."""
    averaged, others = ([place for place in places if _is_ema(place) == kind] for kind in (True, False))
    wanted = averaged if ema or (ema is None and averaged) else others
    if not wanted:
        flag, what = ("--ema", "EMA weights") if ema else ("--no-ema", "weights but EMA's")
        raise PipelineError(f"{path}: has no {what}, {_listed(places)}; leave {flag} out")
    if len(wanted) > 1:
        raise PipelineError(
            f"{path}: holds {len(wanted)} networks, {_listed(wanted)}; save the one that is meant alone"
        )
    if averaged:
        other = [place for place in places if place not in wanted]
        choice = f"; {'--no-ema' if wanted is averaged else '--ema'} reads {_listed(other)}" if other else ""
        what = "the EMA weights" if wanted is averaged else "not the EMA weights but those"
        say(f"{path}: {what} are read, {_listed(wanted)}{choice}")
    return wanted[0]


def _listed(places: Collection[str]) -> str:
    return " and ".join(place[:-1] or "those at its top" for place in places)


def _with_counters(state: State) -> State:
    """With the batch norms' counters, which other frameworks and older files do without; nothing here reads them."""
    import torch

    ending = ".running_mean"
    norms = [name[: -len(ending)] for name in state if name.endswith(ending)]
    return {**{f"{norm}.num_batches_tracked": torch.tensor(0) for norm in norms}, **state}


def load(model: ResNeSt, path: PathLike, ema: bool | None = None, model_card: Card | None = None) -> Weights:
    """Loads a checkpoint into `model`, which from then on pools as the framework that the file comes from.

    `model_card` is the card that `model` was made of, for what an error says. Returns what was read. Raises
    PipelineError naming every missing, extra or wrongly shaped entry, and what `read` raises.
    """
    from ResNeSt.models.pooling import set_pooling

    weights = read(path, ema)
    if model_card and _fits_but_for_classes(model, weights.state):
        _check_classes(weights.state, model_card, path)
    load_state(model, weights.state, path)
    set_pooling(model, weights.pooling)
    return weights


def _fits_but_for_classes(model: ResNeSt, state: State) -> bool:
    body = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    return all(name in state and state[name].shape == value.shape for name, value in body.items())


def _check_classes(state: State, model_card: Card, path: PathLike) -> None:
    classes = len(state["fc.bias"]) if "fc.bias" in state and state["fc.bias"].ndim == 1 else model_card.classes
    if classes != model_card.classes:
        raise PipelineError(
            f"{path}: is of {classes} classes, {model_card.name} of {model_card.classes}; say so in a card beside it, "
            f"{card_beside(path).name}, with recipe and size if its own differ: {card_text(model_card, classes)}"
        )


def load_state(model: ResNeSt, state: State, path: PathLike) -> None:
    """Loads the state dict of the checkpoint at `path`; raises as `load` does."""
    expected = model.state_dict()
    known = {name: value for name, value in state.items() if name in expected}
    shapes = {name: (list(value.shape), list(expected[name].shape)) for name, value in known.items()}
    odd = {name: _oddity(value, expected[name]) for name, value in known.items()}
    problems = [
        *_named("missing", [name for name in expected if name not in state]),
        *_named("not of this model", [name for name in state if name not in expected]),
        *_named("wrongly shaped", [f"{name} {a} instead of {b}" for name, (a, b) in shapes.items() if a != b]),
    ]
    if problems:
        raise PipelineError(f"{path}: does not fit the model: {'; '.join(problems)}; is --arch the right one?")
    unfit = _named("that are no weights", [f"{name} {reason}" for name, reason in odd.items() if reason])
    if unfit:
        raise PipelineError(f"{path}: has {unfit[0]}; save it again with plain finite float32 tensors")
    model.load_state_dict(state)


def _oddity(value: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Why a tensor does not hold what belongs into `expected`, None where it does."""
    import torch

    if value.is_meta or value.is_quantized or value.layout != torch.strided:
        return "without values" if value.is_meta else "quantized" if value.is_quantized else "sparse"
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if expected.is_floating_point() and value.dtype not in floats:
        return f"of {value.dtype}"
    return None if torch.isfinite(value.to(expected.dtype)).all() else "with NaN or infinity"


def _named(what: str, entries: list[str]) -> list[str]:
    return [f"{len(entries)} entries {what} ({_some(entries, 3)})"] if entries else []


def _some(entries: Collection[str], count: int = _SHOWN) -> str:
    return ", ".join(list(entries)[:count]) + (", …" if len(entries) > count else "")


def card_for(path: PathLike, arch: str | None) -> Card:
    """The card of a checkpoint: `model`'s where it is given, the one beside the file, that of its name, of its shapes.

    Raises ArgumentError where the file's name speaks of another than `model`, a published name; some share all shapes.
    Raises PipelineError, which asks for `flag`, where the shapes are those of several networks, or of none.
    """
    named = find_card(path)
    if arch is not None and (named is None or arch.endswith(".json")):
        return card(arch)
    if named is None:
        return _card_by_shapes(path)
    if arch not in (None, named.name):
        raise ArgumentError(
            f"{path}: the file name says {named.name}, --arch says {arch}; rename the file or drop --arch"
        )
    return named


def _card_by_shapes(path: PathLike) -> Card:
    if importlib.util.find_spec("torch") is None:
        raise MissingRuntimeError(f"{path}: the file name does not tell which model this is; name it with --arch")
    shape = _architecture(read(path, say=silent).state)
    fitting = [name for name in names() if dataclasses.replace(card(name).architecture, avd_first=False) == shape]
    if len(fitting) == 1:
        _note(f"{path}: by its shapes it is {fitting[0]}; --arch says otherwise")
        return card(fitting[0])
    found = f"are those of {' and '.join(fitting)}" if fitting else "of no published network"
    raise PipelineError(
        f"{path}: the file name does not tell which model this is, its shapes {found}; name it with --arch, or put a "
        f"card beside it ({card_beside(path).name})"
    )


def _architecture(state: State) -> Architecture | None:
    """What the shapes tell of a network, None where some lack; `avd_first`, which they do not tell, is False."""
    from ResNeSt.models.resnest import EXPANSION

    stages = [f"layer{stage}." for stage in (1, 2, 3, 4)]
    try:
        planes = [state[f"{stage}0.conv3.weight"].shape[0] // EXPANSION for stage in stages]
        channels, inside = state["layer1.0.conv2.fc1.weight"].shape[1], state["layer1.0.conv1.weight"].shape[0]
        return Architecture(
            layers=tuple(len({name.split(".")[1] for name in state if name.startswith(stage)}) for stage in stages),
            radix=state["layer1.0.conv2.bn0.weight"].shape[0] // inside,
            cardinality=inside // channels,
            width=channels * 64 // planes[0],
            stem_width=state[_FIRST].shape[0],
            avd_first=False,
            planes=tuple(planes),
        )
    except (IndexError, KeyError, ZeroDivisionError):
        return None
