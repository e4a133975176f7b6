"""PyramidDrop: the decoder in stages, each with fewer visual tokens."""

from dataclasses import dataclass, replace
from itertools import pairwise

from vistrim.core.model_facts import ModelFacts
from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.method import Method, Positions, check_layers, check_positions
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens


@register
@dataclass(frozen=True)
class PyramidDrop(Method):
    r"""Drop the least attended visual tokens before a few decoder layers, down to fixed shares of their first number.

    Before layer ``layers[i]`` the ``int(N * keep[i])`` visual tokens stay that receive most attention from the last
    prompt token *at that layer*, computed on what is about to enter it (mean over heads).

    Parameters
    ----------
    layers : tuple of int, optional
        Rising, each at least 1. None: a quarter, half and three quarters of the depth, so (8, 16, 24) of 32.
    keep : tuple of float
        Share of the sample's first visual tokens that stays from each of the layers on; in [0, 1], not rising.
    positions : {"renumber", "original"}
        RoPE positions of the tokens that are left: consecutive after each cut as the authors have them, or each its
        own.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2410.17247 (CVPR 2025) and github.com/Cooperx521/PyramidDrop at 6444f30. The defaults are those of all
    its evaluation scripts. The paper says that queries and keys are those of the last layer of a stage; the code
    computes those of the next layer, and is followed. The code projects all tokens and builds a full mask for it; here
    one query row and the keys are enough, also with grouped-query attention, which the code does not handle.

    The paper removes ``ceil((1 - share) * n)`` of what a stage has; the code's ``int(N * share)`` is followed. While
    training, the code ranks by every token in front of an answer; here it is always the one in front of the first.
    """

    name = "pyramiddrop"
    summary = "Drops the least attended visual tokens in stages, ranked by the layer about to run"
    stages = ("prefill",)
    needs = "one query row and the keys of the layers about to run"
    kv_cache = "smaller from stage to stage"
    source = "arXiv 2410.17247"
    ranks_by = "layer ahead"

    layers: tuple[int, ...] | None = None
    keep: tuple[float, ...] = (0.5, 0.25, 0.125)
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        if self.layers is not None:
            check_layers("layers", self.layers, first=1)
        n = 3 if self.layers is None else len(self.layers)
        if not isinstance(self.keep, tuple) or len(self.keep) != n:
            raise ValueError(f"keep={self.keep!r}: must be a tuple of {n} shares, one for each layer")
        if not all(0 <= share <= 1 for share in self.keep) or any(a < b for a, b in pairwise(self.keep)):
            raise ValueError(f"keep={self.keep}: must be shares between 0 and 1 that do not rise")
        check_positions(self.positions)

    def fitted(self, model: ModelFacts) -> Method:
        """Refuse layers that the decoder does not have."""
        depth = model.decoder.layers
        layers = self.prefill_layers(depth)
        if layers[-1] >= depth:
            raise ValueError(
                f"layers={layers}, but the model has {depth} decoder layers (0 to {depth - 1}): choose smaller ones"
            )
        if layers[0] < 1:
            raise ValueError(f"a decoder of {depth} layers has no three stages: give the layers yourself")
        return self

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """The first layers of the stages."""
        return self.layers if self.layers is not None else (depth // 4, depth // 2, 3 * depth // 4)

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep the most attended tokens."""
        share = self.keep[self.prefill_layers(tokens.depth).index(layer)]
        counts = tuple(min(held, int(n * share)) for n, held in zip(tokens.initial, tokens.held, strict=True))
        return replace(keep_top(tokens.scores, tokens.visual, counts), renumber=self.renumbers)
