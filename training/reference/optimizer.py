"""Muon for the weight matrices, AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

#: Coefficients of the quintic Newton-Schulz iteration (Jordan et al., "Muon", 2024).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalized(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Compute nearly orthogonal matrices with the same singular vectors.

    Parameters
    ----------
    matrices : torch.Tensor
        ``(batch, rows, columns)``, float32. bfloat16, the usual choice on GPUs, is slow on CPUs without AMX.
    steps : int
        Newton-Schulz iterations.

    Returns
    -------
    torch.Tensor
        Matrices of the same shape with singular values of about 1.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalized updates, which learns look-ups in far fewer steps than AdamW.

    Matrices of the same shape are updated together, so that many small products become one batched call.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                updates = orthogonalized(torch.stack([self._momentum(p, group["momentum"]) for p in parameters]))
                # Match the scale of an Adam update, independent of the shape.
                scale = 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * scale)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> torch.Tensor:
        state: dict[str, Any] = self.state[parameter]
        assert parameter.grad is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)


def build_optimizers(module: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Optimizers for the trainable parameters of a module: matrices of hidden layers to Muon, the rest to AdamW."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and "embed" not in name and "head" not in name
            (matrices if hidden else others).append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(Muon(matrices, lr=lr))
    if others:
        optimizers.append(torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0))
    return optimizers
