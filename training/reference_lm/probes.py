"""Probes that check whether the facts of an object are in the patches that it covers, and in no others."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from training.reference_lm.facts import CLASSES, IDENTITY, PATCH_FACTS
from vistrim.reference.lm.scenes import GRID


def facts_beside(facts: torch.Tensor) -> torch.Tensor:
    """Facts of an object that touches a background patch, ``(B, 576, 6)``; 0 where none touches or objects lie.

    Of several neighbors with objects the first counts, in raster order of the eight.
    """
    rows = facts.shape[0]
    grid = facts.reshape(rows, GRID, GRID, -1)
    padded = F.pad(grid, (0, 0, 1, 1, 1, 1))
    found = torch.zeros_like(grid)
    for down in range(3):
        for across in range(3):
            neighbor = padded[:, down : down + GRID, across : across + GRID]
            found = torch.where(found[..., :1] == 0, neighbor, found)
    return torch.where(grid[..., :1] == 0, found, 0).reshape(rows, GRID * GRID, -1)


def probe(
    features: torch.Tensor, facts: torch.Tensor, steps: int = 400, generator: torch.Generator | None = None
) -> dict[str, float]:
    """Accuracy of a fresh linear probe on the second half of some features.

    Parameters
    ----------
    features : torch.Tensor
        ``(N, width)``.
    facts : torch.Tensor
        ``(N, 6)``, of ``PATCH_FACTS``, from 1.
    steps : int
        Of AdamW over batches of 4,096.
    generator : torch.Generator, optional
        Draws the batches, on the CPU.

    Returns
    -------
    dict of str to float
        Share of right answers per fact that says which object it is, and their "mean".
    """
    half = len(features) // 2
    spread, middle = torch.std_mean(features[:half], 0)
    inputs = (features - middle) / (spread + 1e-6)
    head = nn.Linear(features.shape[1], sum(CLASSES)).to(features.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=1e-4)
    for step in range(steps):
        rows = torch.randint(half, (min(4096, half),), generator=generator).to(features.device)
        split = head(inputs[rows]).split(CLASSES, -1)
        loss = torch.stack([F.cross_entropy(logits, facts[rows, i]) for i, logits in enumerate(split)]).sum()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        split = head(inputs[half:]).split(CLASSES, -1)
    right = {
        name: (logits.argmax(-1) == facts[half:, i]).float().mean().item()
        for i, (name, logits) in enumerate(zip(PATCH_FACTS, split, strict=True))
        if name in IDENTITY
    }
    return right | {"mean": sum(right.values()) / len(right)}
