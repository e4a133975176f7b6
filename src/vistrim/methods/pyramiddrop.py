"""PyramidDrop: the decoder is divided into stages with fewer and fewer visual tokens."""

from dataclasses import dataclass, replace
from itertools import pairwise

from vistrim.core.model_facts import ModelFacts
from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.checks import check_layers, check_positions
from vistrim.methods.base.method import Method, Positions
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens


@register
@dataclass(frozen=True)
class PyramidDrop(Method):
    r"""Drop the least attended visual tokens before a few decoder layers, down to fixed shares of their initial number.

    Before layer ``layers[i]``, the ``int(N * keep[i])`` visual tokens stay that receive the most attention from the
    last prompt token *at that layer*, computed from the inputs of the layer (mean over heads).

    Parameters
    ----------
    layers : tuple of int, optional
        Layers of the cuts (0-based), ascending, each at least 1. None: a quarter, half and three quarters of the depth,
        which is (8, 16, 24) of 32.
    keep : tuple of float
        Share of the sample's initial visual tokens that stays from each of these layers on, in [0, 1], non-increasing.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive after each cut, as in the authors' code, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2410.17247 (CVPR 2025) and github.com/Cooperx521/PyramidDrop at 6444f30. The defaults are those of its
    evaluation scripts. Where paper and code differ, this follows the code: it uses the queries and keys of the first
    layer of the next stage, not of the last layer of a stage, and keeps ``int(N * share)`` tokens instead of removing
    ``ceil((1 - share) * n)`` of the tokens of a stage.

    Deviations. The code projects all tokens and builds a full mask. Here one query row and the keys suffice, and
    grouped-query attention, which the code lacks, is supported. In training, the code ranks by every token before an
    answer. Here it is always the token before the first answer.
    """

    name = "pyramiddrop"
    summary = "Drops the least attended visual tokens in stages, ranked by the first layer of the next stage"
    stages = ("prefill",)
    needs = "one query row and the keys of the layers of the cuts"
    kv_cache = "smaller after each cut"
    source = "arXiv 2410.17247"
    ranks_by = "layer ahead"
    counts_images = False
    budget_parameter = "keep"

    layers: tuple[int, ...] | None = None
    keep: tuple[float, ...] = (0.5, 0.25, 0.125)
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        if self.layers is not None:
            check_layers("layers", self.layers, first=1)
        n = 3 if self.layers is None else len(self.layers)
        if not isinstance(self.keep, tuple) or len(self.keep) != n:
            raise ValueError(f"keep={self.keep!r}: must be a tuple of {n} shares, one per layer")
        if not all(0 <= share <= 1 for share in self.keep) or any(a < b for a, b in pairwise(self.keep)):
            raise ValueError(f"keep={self.keep}: must be non-increasing shares between 0 and 1")
        check_positions(self.positions)

    def fitted(self, model: ModelFacts) -> Method:
        """Check that the decoder has these layers."""
        depth = model.decoder.layers
        layers = self.prefill_layers(depth)
        if layers[-1] >= depth:
            raise ValueError(
                f"layers={layers}, but the model has {depth} decoder layers (0 to {depth - 1}): choose smaller ones"
            )
        if layers[0] < 1:
            raise ValueError(f"a decoder of {depth} layers is too small for the default layers: set layers")
        return self

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Return the first layer of each stage after the first."""
        return self.layers if self.layers is not None else (depth // 4, depth // 2, 3 * depth // 4)

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Return the share of the stage."""
        return min(held, int(initial * self.keep[self.prefill_layers(depth).index(layer)]))

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Multiply all shares by one factor, with 1 as the limit of each."""
        factor = share / min((each for each in self.keep if each), default=1.0)
        return replace(self, keep=tuple(min(1.0, each * factor) for each in self.keep))

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep the most attended tokens."""
        counts = tuple(
            self.prefill_count(layer, n, held, 1, tokens.depth)
            for n, held in zip(tokens.initial, tokens.held, strict=True)
        )
        return replace(keep_top(tokens.scores, tokens.visual, counts), renumber=self.renumbers)
