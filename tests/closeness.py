"""Equality of two tensors up to rounding: the tolerance of all tests."""

from typing import Any

import torch

ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest rounding error of a model, as a share of the largest value; some hundred roundings in fp32."""


def error(found: Any, expected: Any) -> float:
    """Largest difference between two tensors or numbers, as a share of the largest expected magnitude.

    What a sum is rounded by depends on its largest terms, and in which order a processor adds them is its own. So an
    absolute tolerance holds for values of one size and on one processor.

    Infinities, NaN and the lowest number of a data type, by which models mask logits, have to stand at the same places
    and are no magnitudes. Where all other expected values are zero, the error is 0 or infinite.
    """
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    lowest = torch.finfo(expected.dtype).min if expected.is_floating_point() else float("-inf")
    assert found.shape == expected.shape, f"{tuple(found.shape)} is not {tuple(expected.shape)}"
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    same = (found == expected) | (found.isnan() & expected.isnan())
    if same.all():
        return 0.0
    counted = expected[expected.isfinite() & (expected > lowest)]
    scale = counted.abs().amax() if counted.numel() else expected.new_zeros(())
    worst = ((found - expected)[~same].abs().amax() / scale).item()
    return worst if worst == worst else float("inf")


def close(found: Any, expected: Any, tolerance: float | None = None) -> bool:
    """Whether two tensors or numbers are equal but for rounding.

    Parameters
    ----------
    found, expected : Tensor or float
        Of one shape.
    tolerance : float, optional
        Largest `error`. By default what the less precise of the two data types rounds, see `ROUNDING`.
    """
    if tolerance is None:
        # A number was read off a tensor; of which type, nobody knows any more.
        types = [getattr(value, "dtype", torch.float32) for value in (found, expected)]
        tolerance = max(ROUNDING[dtype] for dtype in types)
    worst = error(found, expected)
    if worst > tolerance:
        print(f"error {worst:.2g} of the largest value, tolerance {tolerance:.2g}")
    return worst <= tolerance
