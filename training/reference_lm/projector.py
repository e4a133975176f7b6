"""The stock LLaVA projector, initialized in closed form.

Its target, the ideal visual token of a patch, is the sum of the word embeddings of the facts under the patch, divided
by three. The decoder then already understands the tokens and only has to learn where to attend.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from training.reference_lm.facts import PATCH_FACTS, UNKNOWN


class Projector(nn.Module):
    """Linear, GELU, linear: by name and shape `LlavaMultiModalProjector`."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.gelu(self.linear_1(features)))

    @torch.no_grad()
    def set_linear(self, weight: torch.Tensor, bias: torch.Tensor, generator: torch.Generator) -> None:
        """Compute exactly ``weight @ features + bias``: GELU(z) - GELU(-z) = z.

        Parameters
        ----------
        weight : torch.Tensor
            ``(width, inputs)``; the width must be at least twice the inputs.
        bias : torch.Tensor
            ``(width,)``.
        generator : torch.Generator
            Of the rotation before the GELU, and of the units that are left over and start unheard.
        """
        width, inputs = weight.shape
        turn = torch.linalg.qr(torch.randn(inputs, inputs, generator=generator))[0].to(weight)
        spare = torch.randn(width - 2 * inputs, inputs, generator=generator).to(weight) * inputs**-0.5
        self.linear_1.weight.copy_(torch.cat([turn, -turn, spare]))
        self.linear_1.bias.zero_()
        self.linear_2.weight.zero_()
        self.linear_2.weight[:, :inputs] = weight @ turn.T
        self.linear_2.weight[:, inputs : 2 * inputs] = -weight @ turn.T
        self.linear_2.bias.copy_(bias)


def ideal_table(embeddings: torch.Tensor, tokenizer: Any) -> list[torch.Tensor]:
    """Per fact, the word embedding of background and of each value: ``(values + 1, width)`` each."""

    def word(text: str) -> torch.Tensor:
        ids = tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
        return embeddings[torch.tensor(ids, device=embeddings.device)].mean(0)

    return [torch.stack([word("background"), *map(word, values)]) for values in PATCH_FACTS.values()]


def ideal_tokens(table: list[torch.Tensor], facts: torch.Tensor) -> torch.Tensor:
    """Ideal visual tokens ``(..., width)`` for facts ``(..., 6)``; what is unknown adds nothing."""
    known = (facts != UNKNOWN)[..., None]
    parts = [values[facts[..., i].clamp(min=0)] * known[..., i, :] for i, values in enumerate(table)]
    return torch.stack(parts).sum(0) / 3


@torch.no_grad()
def regression(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], penalty: float = 1e-2
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Ridge regression of targets on features.

    Parameters
    ----------
    pairs : iterable of (features ``(N, inputs)``, targets ``(N, width)``)
    penalty : float
        Added to the diagonal, per example.

    Returns
    -------
    weight ``(width, inputs)``, bias ``(width,)``, share of the targets' variance that is explained
    """
    # X'X, X'Y, the sum of squares of Y, and its sum.
    sums: list[torch.Tensor] = []
    number = 0
    for features, targets in pairs:
        x = torch.cat([features, torch.ones_like(features[:, :1])], 1).double()
        y = targets.double()
        part = [x.T @ x, x.T @ y, (y**2).sum(), y.sum(0)]
        sums = [total + new for total, new in zip(sums, part, strict=True)] if sums else part
        number += len(x)
    gram, cross, squares, total = sums
    ridge = penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    ridge[-1, -1] = 0
    solved = torch.linalg.solve(gram + ridge, cross)
    left = squares - 2 * (solved * cross).sum() + (solved * (gram @ solved)).sum()
    explained = 1 - left / (squares - (total**2).sum() / number)
    return solved[:-1].T.float(), solved[-1].float(), explained.item()
