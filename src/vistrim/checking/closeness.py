"""The difference of two tensors, and the difference that rounding explains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Smallest tolerance for rounding between two ways to compute the same, as a share of the largest logit, even if the
untouched model's own noise is lower."""
MARGIN = 5
"""Factor by which the difference of a trimmed run may exceed the untouched model's difference from itself."""
BLIND = 0.25
"""Largest useful tolerance, as a share of the largest logit; a larger one would hide real errors."""


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference between two tensors as a share of the largest expected magnitude.

    Entries whose expected value is infinite or the lowest number of its dtype, by which models mask logits, must be
    equal in both, and do not count as magnitudes. The difference from NaN is infinite.
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
    """Tolerance for equality on a model.

    Attributes
    ----------
    dtype : torch.dtype
        Dtype of the model.
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
        """Whether the model's own noise is too large for a conclusion."""
        return not self.allowed <= BLIND
