"""The masked reference of the family matrix, told which tokens to keep.

In half precision, rounding decides between tokens that are attended to nearly alike. What has to agree there is the
result of the same choice, not the choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.families import masked_reference
from tests.families.masked_reference import MaskedReference
from tests.families.matrix import held_rows, visual_rows
from tests.families.zoo import Sample
from vistrim.engine.report.trim_report import TrimReport

Kept = list[list[set[int]]]
"""Visual tokens by their places in the prompt, for each step and layer."""


@dataclass
class ToldReference(MaskedReference):
    """One sample whose visual tokens are removed as another run has removed them."""

    told: Kept | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.told is not None

    def new_pass(self, *arguments: Any) -> masked_reference.Pass:
        return _ToldPass(self, *arguments)


class _ToldPass(masked_reference.Pass):
    of: ToldReference

    def _remaining(self, at: int, hidden: Tensor, look_ahead: Callable[[], Tensor]) -> set[int]:
        return set(self._told(0)[at])

    def _anneal(self, at: int) -> None:
        self.of.cache[at] = set(self._told(self.of.step)[at])

    def _told(self, step: int) -> list[set[int]]:
        told = self.of.told
        assert told is not None
        return told[min(step, len(told) - 1)]


class CacheLog:
    """A stopping criterion that never stops, and notes what the cache holds after each token."""

    def __init__(self, cache: Any, samples: Sequence[Sample], width: int) -> None:
        self._cache, self._samples, self._width = cache, samples, width
        self.steps: list[list[list[set[int]]]] = []

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Note it for each sample and layer."""
        self.steps.append([self._held(b, sample) for b, sample in enumerate(self._samples)])
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    def _held(self, b: int, sample: Sample) -> list[set[int]]:
        visual, padding = set(visual_rows(sample)), self._width - len(sample.ids)
        return [visual & set(held_rows(layer, b, padding)) for layer in self._cache.layers]


def kept_in_prefill(report: TrimReport, b: int, sample: Sample, depth: int) -> list[set[int]]:
    """Visual tokens of a sample that each layer saw in prefill."""
    rows, stages = visual_rows(sample), {stage.layer: stage.kept[b] for stage in report.stages}
    kept, found = set(rows), []
    for layer in range(depth):
        kept = {rows[i] for i in stages[layer]} if layer in stages else kept
        found.append(kept)
    return found
