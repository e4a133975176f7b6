"""Rankings of visual tokens by one layer of the untouched model, and a method that cuts by any of them."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.analysis.attention.reading import Reading
from vistrim.core.schedules import budget
from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.method import Method
from vistrim.methods.base.stage_inputs import LayerTokens
from vistrim.methods.uniform import evenly_spaced

_OF_LAYER: Mapping[str, Callable[[Reading, int], Tensor]] = {
    "last": lambda read, layer: read.received["last"][layer],
    "question": lambda read, layer: read.received["question"][layer],
    "last-sum": lambda read, layer: torch.stack(read.received["last"][: layer + 1]).sum(0),
    "question-sum": lambda read, layer: torch.stack(read.received["question"][: layer + 1]).sum(0),
    "last-values": lambda read, layer: read.contributed["last"][layer],
    "question-values": lambda read, layer: read.contributed["question"][layer],
}


@dataclass(frozen=True)
class GivenRanking(Method):
    """Keep the visual tokens with the best of given scores, from one layer on.

    Parameters
    ----------
    layer : int
        First layer that runs on fewer tokens, at least 1.
    share : float
        Share of each sample's visual tokens that stays, at least one token; 0: none.
    scores : Tensor
        ``[batch, tokens]`` float32, for the prompts as they are given to the model, including padding.
    """

    name = "given-ranking"
    summary = "Keeps the visual tokens with the best of given scores from one layer on"
    stages = ("prefill",)
    kv_cache = "full below the cut, small from it on"
    source = "analysis"
    ranks_by = "nothing"

    layer: int
    share: float
    scores: Tensor

    def __str__(self) -> str:
        return f"{self.name}:layer={self.layer},share={self.share:g}"

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """The one cut."""
        return (self.layer,)

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep the best tokens."""
        counts = [budget(self.share, n) if self.share else 0 for n in tokens.held]
        return keep_top(self.scores.to(tokens.visual.device), tokens.visual, counts)


def scores_of(ranking: str, layer: int, read: Reading, names: Sequence[str], seed: int, share: float) -> Tensor:
    """Scores ``[batch, tokens]`` of a ranking.

    Parameters
    ----------
    ranking : str
        One of `RANKINGS`.
    layer : int
        Layer whose attention ranks.
    read : Reading
        Attention of the batch.
    names : sequence of str
        Names of the samples. Random scores depend only on a sample's name and the seed, so that they are the same at
        every layer.
    seed : int
        Seed of random scores.
    share : float
        Share of the visual tokens that stays; even spacing depends on it.
    """
    if ranking in _OF_LAYER:
        return _OF_LAYER[ranking](read, layer)
    scores = torch.zeros(read.visual.shape)
    for sample, name in enumerate(names):
        n = int(read.visual[sample].sum())
        own = torch.zeros(n)
        if ranking == "uniform":
            own[evenly_spaced(n, budget(share, n))] = 1
        elif ranking == "random":
            own = torch.rand(n, generator=torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode())))
        scores[sample, read.visual[sample]] = own
    return scores
