"""How many of a model run side by side: as instances of one process, or as processes, and where a search ends.

Instances are threads of one process on cpu, which share the weights (ResNeSt.infer --instances). Processes are whole
ones, on either chip; on an NPU an instance is a process (ais_bench's --device 0,0). A run takes one of both.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import NamedTuple

from ResNeSt.common.arguments import MOST_INSTANCES
from ResNeSt.common.cores import cores, shares
from ResNeSt.common.errors import ArgumentError
from ResNeSt.convert import chips
from ResNeSt.report import data

GAIN = 1.02  # images/s beside the best of fewer copies; a search ends at a batch size where more gain less
ON_A_DEVICE = (1, 2, 4)  # processes that a search tries


class Copies(NamedTuple):
    """Processes on each device, or instances in the one process; None are as many as the runtime finds best."""

    processes: int = 1
    instances: int | None = 1

    @property
    def words(self) -> str:
        """What goes behind a name, where there are several."""
        return data.several(self.processes, self.instances or 1)


def asked(
    chip: str, processes: Sequence[int] | None, instances: Sequence[int | None] | None, search: bool
) -> list[Copies]:
    """The copies to measure, each once; those of a search where none are named. `chip` is a name of `chips.resolve`.

    Raises ArgumentError where both are named, instances on an NPU, or numbers that cannot be.
    """
    if processes is not None and instances is not None:
        raise ArgumentError("--instances share one process, --processes are whole ones; name one of both")
    if instances is not None:
        return list(dict.fromkeys(Copies(instances=count) for count in _checked(chip, instances)))
    if processes is not None:
        return list(dict.fromkeys(Copies(processes=count) for count in _whole(chip, processes)))
    if not search:
        return [Copies()]
    if not chips.has_cards(chip):
        return [Copies(instances=count) for count in doubled(min(cores(), MOST_INSTANCES))]
    return [Copies(processes=count) for count in ON_A_DEVICE]


def _checked(chip: str, instances: Sequence[int | None]) -> list[int | None]:
    if chips.has_cards(chip):
        card = "an NPU" if chips.is_ascend(chip) else "a GPU"
        raise ArgumentError(
            f"--instances is for cpu and ncnn; on {card} it is a process of its own: --processes N[,N…]"
        )
    found = [None if count is None else operator.index(count) for count in instances]
    if not found or not all(count is None or 1 <= count <= MOST_INSTANCES for count in found):
        raise ArgumentError(f"instances {list(instances)}, expected whole numbers from 1 to {MOST_INSTANCES}, or auto")
    return found


def _whole(chip: str, processes: Sequence[int]) -> list[int]:
    found = list(map(operator.index, processes))
    if not found or min(found) < 1:
        raise ArgumentError(f"processes {found}, expected whole numbers above 0")
    if not chips.is_ascend(chip):
        shares(max(found))
    return found


def doubled(most: int) -> list[int]:
    """1, 2, 4 and so on, and `most` itself."""
    return sorted({*(1 << power for power in range(most.bit_length())), most})


def helps(rates: Sequence[float]) -> bool:
    """Whether the last of the images/s, of ever more copies, is enough above the best before it to try more."""
    return len(rates) == 1 or rates[-1] >= GAIN * max(rates[:-1])
