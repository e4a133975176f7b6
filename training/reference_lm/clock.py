"""Budget of a training phase, in seconds or steps."""

from __future__ import annotations

import time


class Budget:
    """Ends a phase after a number of seconds or steps, whichever comes first.

    Parameters
    ----------
    seconds : float
        Seconds from now on.
    steps : int
        Number of steps. 0: no maximum.
    """

    def __init__(self, seconds: float, steps: int = 0) -> None:
        self.seconds, self.steps = seconds, steps
        self.start = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def spent(self, step: int) -> float:
        """Return the share of the budget used after ``step`` steps. 1 or more: the phase is over."""
        share = self.elapsed / self.seconds if self.seconds > 0 else 1.0
        return max(share, step / self.steps) if self.steps else share


def learning_rate(peak: float, step: int, spent: float, warm_up: int = 30, level: float = 0.4) -> float:
    """Linear warm-up, then constant, then linear decay to zero at the end of the budget."""
    decay = min(1.0, max(0.0, (1 - spent) / (1 - level)))
    return peak * min(1.0, (step + 1) / warm_up) * decay
