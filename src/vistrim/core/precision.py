"""Selections are computed in full precision, also under autocast."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def full_precision(function: Callable[Concatenate[Tensor, P], T]) -> Callable[Concatenate[Tensor, P], T]:
    """Decorate a function of a tensor to run without autocast on the device of that tensor.

    Autocast computes matrix products in a lower precision whatever the dtype of their inputs, which makes tokens with
    close scores change places.

    Parameters
    ----------
    function : callable
        Its first argument is a tensor.

    Returns
    -------
    callable
        The same function, computed in the dtype of its inputs.
    """

    @wraps(function)
    def run(tensor: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with torch.autocast(tensor.device.type, enabled=False):
            return function(tensor, *args, **kwargs)

    return run
