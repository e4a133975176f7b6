"""SparseVLM: relevant words of the question rank the visual tokens, and some of the deleted tokens are recycled."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from vistrim.core.merging import dpc_knn
from vistrim.core.model_facts import ModelFacts
from vistrim.core.query_text import received_without_prior, text_behind_images, words_above_average
from vistrim.core.schedules import budget
from vistrim.core.scores import AttentionRows
from vistrim.core.selection import Selection
from vistrim.errors import MethodError
from vistrim.methods.base.checks import check_layers, check_positions
from vistrim.methods.base.method import Method, Positions
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens

LAYERS = {"1.5": (2, 6, 15), "1.0": (2, 6, 15, 19), "plus": (2, 6, 15)}
COUNTS = {
    "1.5": {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    "plus": {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
"""Tokens (of 576) kept at each layer, not counting recycled tokens."""
RANK_SCALES = {192: (13.5, 0), 128: (9, 6), 64: (0.8, 0)}
"""Version 1.0 keeps ``scale * rank + bias`` tokens."""
PRESET_TOKENS = 576
RECYCLED = 0.3
"""Share of the deleted tokens that is recycled (merged)."""
PER_CLUSTER = 10
"""Recycled tokens per merged token."""
PRIORITY_HEADS = 14
LEAST_PRIOR = 0.1
"""Lower bound of the divisor, as a share of RoPE's distance prior at distance 0."""


@register
@dataclass(frozen=True)
class SparseVLM(Method):
    r"""Drop visual tokens after a few decoder layers, ranked by the attention from relevant words of the question.

    *Raters*: let :math:`V` be the embeddings of a sample's visual tokens and :math:`Q` those of the text after the last
    visual token. The relevance of a word is the softmax over the text of :math:`V Q^T`, averaged over the visual
    tokens. Words with above-average relevance are raters. *Score*: the attention that a visual token receives from the
    raters at layer ``l`` (mean over heads and raters). Layers from ``l + 1`` on run with the kept tokens. *Recycling*:
    the best 30 % of the deleted tokens are clustered by their hidden states before layer ``l + 1``
    (`vistrim.core.merging.dpc_knn`, one cluster per ten tokens). The mean of each cluster becomes a visual token behind
    the sample's last visual token.

    Parameters
    ----------
    mean_keep : int
        Preset of the authors for 576 tokens, named by their count of average tokens: 192, 128, 96 (not in "1.0") or 64.
        Their count treats the layer of a cut as already cut. The actual average tokens are 206.5, 145.4, 114.1 and 82.3
        in "1.5", and 206.8, 144.1, 113.9 and 81.8 in "plus".
    variant : {"1.5", "1.0", "plus"}
        "1.5": fixed counts, as in the ICML paper. "1.0": ``int(scale * rank + bias)`` tokens are kept, where ``rank``
        is the matrix rank of the raters' attention to the visual tokens. "plus" (version 2.0): no recycling; attention
        is divided by RoPE's distance prior, and only the 14 heads that attend to the image most are used.
    layers : tuple of int, optional
        Layers (0-based) after which tokens are dropped. None: (2, 6, 15), in "1.0" (2, 6, 15, 19).
    counts : tuple of int or float, optional
        Tokens kept after each of the layers, not counting recycled tokens: numbers per image, or shares in (0, 1] of
        the sample's visual tokens, at least one token. None: the numbers of the preset. Not in "1.0".
    positions : {"renumber", "original"}, optional
        RoPE positions of the remaining tokens: consecutive, or unchanged (a merged token gets the position of its
        cluster's center). None: as in the authors' code, "renumber" in "1.5" and "1.0", "original" in "plus".

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2410.04417 (ICML 2025) and github.com/Gumpest/SparseVLMs, branches v1.5 (b9619e6), v1.0 (b72c5d6) and
    main (26a5f48) with version 2.0. Where paper and code differ, this follows the code: merged tokens are means, not
    sums; clusters are assigned by distance, not by cosine; raters must exceed the average, not reach it.

    Deviations. The code supports one image in a batch of one. Here ``counts`` are per image, all images of a sample are
    ranked together, and the question is the text after the last image. If all words are equally relevant, all are
    raters; the code would have none. A cut that would remove nothing is skipped; the code always deletes at least one
    token and may append the same token again. Softmax, rank and clustering are computed in float32, without the random
    tie-breaking of the code. The code divides by RoPE's prior even at long distances, where it falls to zero and below.
    Here the divisor is at least a tenth of its value at distance 0, which makes no difference up to 640 tokens at the
    head size of LLaVA-1.5.
    """

    name = "sparsevlm"
    summary = "Drops the visual tokens that relevant words of the question attend to least, and merges some of them"
    stages = ("prefill",)
    needs = "attention of text rows at three layers (1.0: four)"
    kv_cache = "full up to the first cut, smaller after each"
    source = "arXiv 2410.04417"

    budget_parameter = "counts"

    mean_keep: int = 192
    variant: Literal["1.5", "1.0", "plus"] = "1.5"
    layers: tuple[int, ...] | None = None
    counts: tuple[int | float, ...] | None = None
    positions: Positions | None = None

    def __post_init__(self) -> None:
        if self.variant not in LAYERS:
            raise ValueError(f"variant={self.variant!r}: must be one of {', '.join(LAYERS)}")
        presets = RANK_SCALES if self.variant == "1.0" else COUNTS[self.variant]
        if self.mean_keep not in presets and self.counts is None:
            raise ValueError(
                f"mean_keep={self.mean_keep}: the presets of variant {self.variant} are {', '.join(map(str, presets))} "
                "(for other numbers, variants 1.5 and plus take counts)"
            )
        after = self.cut_after
        check_layers("layers", after, first=0)
        if self.variant == "1.0":
            if self.counts is not None:
                raise ValueError(
                    "variant 1.0 sets the counts by the rank of the attention: remove counts, or use variant 1.5"
                )
        elif len(self._counts) != len(after):
            raise ValueError(f"{len(self._counts)} counts for {len(after)} layers: give one count per layer")
        elif not all(0 < n <= 1 if isinstance(n, float) else n >= 1 for n in self._counts):
            raise ValueError(f"counts={self.counts}: must be whole numbers from 1 on, or shares above 0 and up to 1.0")
        elif any(type(a) is type(b) and a < b for a, b in pairwise(self._counts)):
            raise ValueError(f"counts={self.counts}: must be non-increasing, or later cuts would remove nothing")
        if self.positions is not None:
            check_positions(self.positions)

    @property
    def cut_after(self) -> tuple[int, ...]:
        """The layers whose attention ranks the tokens."""
        return LAYERS[self.variant] if self.layers is None else self.layers

    @property
    def _counts(self) -> tuple[int | float, ...]:
        return COUNTS[self.variant][self.mean_keep] if self.counts is None else self.counts

    @property
    def _recycles(self) -> bool:
        return self.variant != "plus"

    @property
    def renumbers(self) -> bool:
        """Whether the remaining tokens get consecutive RoPE positions."""
        return self._recycles if self.positions is None else self.positions == "renumber"

    def fitted(self, model: ModelFacts) -> Method:
        """Check that the decoder has a layer after each cut."""
        depth = model.decoder.layers
        if self.cut_after[-1] >= depth - 1:
            raise ValueError(
                f"layers={self.cut_after}, but layer {depth - 1} is the model's last one, and a cut after it saves "
                f"nothing: choose layers between 0 and {depth - 2}"
            )
        return self

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Return the layers after those whose attention ranks the tokens."""
        return tuple(layer + 1 for layer in self.cut_after)

    def query_rows(self, embeddings: Tensor, visual: Tensor, prompt: Tensor) -> Tensor:
        """Mark the raters."""
        question = text_behind_images(visual, prompt)
        chosen = torch.zeros_like(visual)
        for sample, words in enumerate(question):
            where = words.nonzero()[:, 0]
            if not visual[sample].any():
                continue
            above = words_above_average(embeddings[sample, visual[sample]], embeddings[sample, where])
            chosen[sample, where[above]] = True
        return chosen

    def score(self, attention: AttentionRows, visual: Tensor) -> Tensor:
        """Compute the attention received from the raters."""
        if self.variant == "plus":
            return received_without_prior(attention, visual, PRIORITY_HEADS, LEAST_PRIOR)
        return attention.received()

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection | None:
        """Keep the best tokens, and merge the best of the rest."""
        assert tokens.hidden is not None
        keep = tokens.visual.clone()
        merge_into = torch.full(tokens.visual.shape, -1, dtype=torch.long, device=tokens.visual.device)
        behind = merge_into.clone()
        counts = []
        for sample, (held, kept) in enumerate(zip(tokens.held, self._kept(layer, tokens), strict=True)):
            # A single deleted token would be recycled unchanged.
            worthwhile = held - 1 if self._recycles else held
            if kept >= worthwhile:
                counts.append(held)
                continue
            # The number of rows is known, so that no device synchronization is needed.
            where = (~tokens.visual[sample]).to(torch.uint8).argsort(stable=True)[:held]
            order = where[tokens.scores[sample, where].argsort(descending=True, stable=True)]
            deleted = order[kept:]
            keep[sample].index_fill_(0, deleted, False)
            counts.append(kept)
            if self._recycles:
                recycled = deleted[: _recycled(len(deleted))]
                clusters = _clusters(len(deleted))
                hidden = tokens.hidden[sample, recycled.to(tokens.hidden.device)]
                center_of = recycled[dpc_knn(hidden, clusters).to(recycled.device)]
                keep[sample].index_fill_(0, center_of, True)
                behind[sample].index_copy_(0, center_of, where[-1].expand_as(center_of))
                merge_into[sample, recycled] = torch.where(center_of == recycled, -1, center_of)
                counts[-1] += clusters
        if tuple(counts) == tokens.held:
            return None
        if not self._recycles:
            return Selection(keep, tuple(counts), renumber=self.renumbers)
        return Selection(keep, tuple(counts), merge_into, behind, self.renumbers)

    @property
    def counts_images(self) -> bool:  # type: ignore[override]
        """Whether a count is a number of tokens per image."""
        return self.variant != "1.0" and any(isinstance(count, int) for count in self._counts)

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Return the number of kept and merged tokens.

        Raises
        ------
        MethodError
            For variant 1.0, whose counts depend on the rank of the attention.
        """
        if self.variant == "1.0":
            raise MethodError("sparsevlm: the counts of variant 1.0 depend on the attention: use variant 1.5 or plus")
        kept = self._number(layer, initial, images)
        if kept >= (held - 1 if self._recycles else held):
            return held
        return kept + (_clusters(held - kept) if self._recycles else 0)

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Multiply all counts by one factor, as shares of 576 tokens with 1 as the limit of each."""
        if self.variant == "1.0":
            raise MethodError("sparsevlm: the counts of variant 1.0 depend on the attention: use variant 1.5 or plus")
        shares = [n if isinstance(n, float) else n / PRESET_TOKENS for n in self._counts]
        factor = share / min(shares)
        return replace(self, counts=tuple(min(1.0, n * factor) for n in shares))

    def _number(self, layer: int, initial: int, images: int) -> int:
        count = self._counts[self.cut_after.index(layer - 1)]
        return budget(count, initial) if isinstance(count, float) else count * images

    def _kept(self, layer: int, tokens: LayerTokens) -> list[int]:
        """Return the number of tokens to keep per sample, not counting recycled tokens."""
        if self.variant == "1.0":
            assert tokens.attention is not None
            scale, bias = RANK_SCALES[self.mean_keep]
            rows = tokens.attention.head_mean().to(tokens.visual.device)
            # Rows of zeros would change the tolerance of the matrix rank.
            blocks = [weights[weights.any(1)][:, visual] for weights, visual in zip(rows, tokens.visual, strict=True)]
            return [
                int(scale * int(torch.linalg.matrix_rank(block)) + bias) if block.numel() else 0 for block in blocks
            ]
        return [self._number(layer, n, images) for n, images in zip(tokens.initial, tokens.images, strict=True)]


def _recycled(deleted: int) -> int:
    """Compute how many of the deleted tokens are merged."""
    return int(RECYCLED * deleted) + 1


def _clusters(deleted: int) -> int:
    """Compute how many merged tokens there are."""
    return min(deleted, _recycled(deleted)) // PER_CLUSTER + 1
