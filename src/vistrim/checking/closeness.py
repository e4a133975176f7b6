"""How far two tensors are apart, and how far rounding alone may bring them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Share of the largest logit that rounding may add up to between two ways to compute the same, however little of it the
untouched model shows."""
MARGIN = 5
"""A trimmed run may differ by so many times what the untouched model differs from itself."""
BLIND = 0.25
"""A tolerance beyond this share of the largest logit would let real faults through."""


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference between two tensors as a share of the largest expected magnitude.

    Places where the expected value is infinite or the lowest number of its type, by which models mask logits, have to
    be the same in both and are no magnitudes. NaN is infinitely far from everything.
    """
    lowest = torch.finfo(expected.dtype).min
    found, expected = found.double(), expected.double()
    differs = found != expected
    if not differs.any():
        return 0.0
    counted = expected[expected.isfinite() & (expected > lowest)].abs()
    worst = (found - expected)[differs].abs().max()
    share = (worst / counted.max()).item() if len(counted) else float("inf")
    return share if share == share else float("inf")


@dataclass(frozen=True)
class Tolerance:
    """What counts as equal on a model.

    Attributes
    ----------
    dtype : torch.dtype
        Number type of the model.
    noise : float
        `difference` of the untouched model from itself, computed in the two ways that are compared.
    """

    dtype: torch.dtype
    noise: float

    @property
    def allowed(self) -> float:
        """Largest `difference` that rounding explains."""
        return max(ROUNDING[self.dtype], MARGIN * self.noise)

    @property
    def is_blind(self) -> bool:
        """Whether the model's own noise is so large that nothing can be told."""
        return not self.allowed <= BLIND
