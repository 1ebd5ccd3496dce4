"""How far an epoch is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from torch import Tensor
from tqdm import tqdm

from ResNeSt.common.progress import Say

BAR_SECONDS, LINE_SECONDS = 0.5, 30.0  # between two looks at the loss, which a GPU has to be waited for


class Meter:
    """Shows the steps of an epoch with loss, rate and time left; `images` is those of a step in all processes."""

    def __init__(self, epoch: int, steps: int, images: int, say: Say, bars_off: bool | None) -> None:
        self._title = f"epoch {epoch}"
        self._images = images
        self._say = say
        self._bar = tqdm(total=steps, unit="step", desc=self._title, disable=bars_off, leave=False)
        self._steps, self._done = steps, 0
        self._began = self._told = time.monotonic()

    def step(self, loss: Tensor, rate: float) -> None:
        """A step is done; its loss is of this process's images."""
        self._done += 1
        self._bar.update()
        now = time.monotonic()
        if now - self._told >= (LINE_SECONDS if self._bar.disable else BAR_SECONDS):
            self._told = now
            self._show(float(loss), rate, now - self._began)

    def _show(self, loss: float, rate: float, seconds: float) -> None:
        if not self._bar.disable:
            self._bar.set_postfix(loss=f"{loss:.4f}", rate=f"{rate:.2e}")
        else:
            left = seconds / self._done * (self._steps - self._done)
            self._say(
                f"{self._title}, step {self._done} of {self._steps}: loss {loss:.4f}, rate {rate:.2e}, "
                f"{self._images * self._done / seconds:.0f} img/s, {tqdm.format_interval(left)} left"
            )

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
