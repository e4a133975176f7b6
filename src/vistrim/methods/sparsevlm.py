"""SparseVLM: the question's own words rank the visual tokens, and some of those that go are recycled."""

from dataclasses import dataclass
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
from vistrim.methods.base.method import Method, Positions, check_layers, check_positions
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens

LAYERS = {"1.5": (2, 6, 15), "1.0": (2, 6, 15, 19), "plus": (2, 6, 15)}
COUNTS = {
    "1.5": {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    "plus": {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
"""Tokens kept at each layer (of 576), before the recycled ones are added."""
RANK_SCALES = {192: (13.5, 0), 128: (9, 6), 64: (0.8, 0)}
"""Version 1.0 keeps ``scale * rank + bias`` tokens."""
RECYCLED = 0.3
"""Share of the deleted tokens that is recycled."""
PER_CLUSTER = 10
"""Recycled tokens for each merged one."""
PRIORITY_HEADS = 14
LEAST_PRIOR = 0.1
"""Share of RoPE's prior at distance 0 below which it is not divided by."""


@register
@dataclass(frozen=True)
class SparseVLM(Method):
    r"""Drop visual tokens after a few decoder layers, ranked by the attention of the question's relevant words.

    *Raters*: with :math:`V` the embeddings of a sample's visual tokens and :math:`Q` those of the text behind its last
    one, a word's relevance is the mean over visual tokens of the softmax, over the text, of :math:`V Q^T`; the words
    above average rate. *Score*: attention that a visual token receives from the raters at layer ``l`` (mean over
    heads and raters). The tokens kept run on from layer ``l + 1``. *Recycling*: of the deleted tokens the best 30 % are
    clustered (`vistrim.core.merging.dpc_knn`, one cluster per ten) on what is about to enter layer ``l + 1``; the mean
    of each cluster goes on, behind the sample's last visual token, as a visual token like any other.

    Parameters
    ----------
    budget : int
        Preset of the authors for 576 tokens, named by the tokens per layer that they count: 192, 128, 96 (not in
        "1.0") or 64. Their counter takes the layer of a cut for already cut; the mean of the tokens processed is
        206.5, 145.4, 114.1 and 82.3 in "1.5", and 206.8, 144.1, 113.9 and 81.8 in "plus".
    variant : {"1.5", "1.0", "plus"}
        "1.5": lists of counts, behind the ICML paper's numbers. "1.0": ``int(scale * rank + bias)`` tokens are kept,
        with the rank of the raters' attention to the visual tokens. "plus" (version 2.0): no recycling; attention is
        divided by RoPE's prior for the distance, and only the 14 heads that look at the image most take part.
    layers : tuple of int, optional
        Layers (0-based) after which tokens go. None: (2, 6, 15), in "1.0" (2, 6, 15, 19).
    counts : tuple of int or float, optional
        Tokens kept after each of the layers, recycled ones not counted: numbers per image, or shares in (0, 1] of the
        sample's visual tokens, at least one. None: the preset's numbers. Not in "1.0".
    positions : {"renumber", "original"}, optional
        RoPE positions of the tokens that are left: consecutive, or each its own (a merged token has that of its
        cluster's centre). None: as the authors have them, "renumber" in "1.5" and "1.0", "original" in "plus".

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2410.04417 (ICML 2025) and github.com/Gumpest/SparseVLMs, branches v1.5 (b9619e6), v1.0 (b72c5d6) and
    main (26a5f48) with version 2.0. The code is followed where the paper differs: merged tokens are means, not sums;
    clusters are assigned by distance, not by cosine; the raters' average is exceeded, not reached.

    Deviations. The code is for one image in a batch of one; here ``counts`` are per image, all images of a sample are
    ranked together, and the question is the text behind the last one. Where all words are equally relevant all rate:
    the code would have no rater. Where a cut would remove nothing, it is left out (the code always deletes at least
    one token, and may put the same token back at the end). Softmax, rank and clustering are in float32, and without
    the code's random tie-breaking. RoPE's prior falls to zero and below at long distances, where the code divides by
    it; here it is never taken as less than a tenth of its value at distance 0, which changes nothing up to 640 tokens
    at LLaVA-1.5's head size.
    """

    name = "sparsevlm"
    summary = "Drops visual tokens that the question's relevant words attend to least, and merges some of them"
    stages = ("prefill",)
    needs = "attention of text rows at three layers (1.0: four)"
    kv_cache = "full up to the first cut, smaller after each"
    source = "arXiv 2410.04417"

    budget: int = 192
    variant: Literal["1.5", "1.0", "plus"] = "1.5"
    layers: tuple[int, ...] | None = None
    counts: tuple[int | float, ...] | None = None
    positions: Positions | None = None

    def __post_init__(self) -> None:
        if self.variant not in LAYERS:
            raise ValueError(f"variant={self.variant!r}: must be one of {', '.join(LAYERS)}")
        presets = RANK_SCALES if self.variant == "1.0" else COUNTS[self.variant]
        if self.budget not in presets and self.counts is None:
            raise ValueError(
                f"budget={self.budget}: the presets of variant {self.variant} are {', '.join(map(str, presets))} "
                "(for other numbers, variants 1.5 and plus take counts)"
            )
        after = self.cut_after
        check_layers("layers", after, first=0)
        if self.variant == "1.0":
            if self.counts is not None:
                raise ValueError(
                    "variant 1.0 counts by the rank of the attention: leave counts out, or use variant 1.5"
                )
        elif len(self._counts) != len(after):
            raise ValueError(f"{len(self._counts)} counts for {len(after)} layers: give one for each layer")
        elif not all(0 < n <= 1 if isinstance(n, float) else n >= 1 for n in self._counts):
            raise ValueError(f"counts={self.counts}: must be whole numbers from 1 on, or shares above 0 and up to 1.0")
        elif any(type(a) is type(b) and a < b for a, b in pairwise(self._counts)):
            raise ValueError(f"counts={self.counts}: must not rise, or the later cuts would remove nothing")
        if self.positions is not None:
            check_positions(self.positions)

    @property
    def cut_after(self) -> tuple[int, ...]:
        """The layers whose attention ranks."""
        return LAYERS[self.variant] if self.layers is None else self.layers

    @property
    def _counts(self) -> tuple[int | float, ...]:
        return COUNTS[self.variant][self.budget] if self.counts is None else self.counts

    @property
    def _recycles(self) -> bool:
        return self.variant != "plus"

    @property
    def renumbers(self) -> bool:
        """Whether the tokens that are left get consecutive RoPE positions."""
        return self._recycles if self.positions is None else self.positions == "renumber"

    def fitted(self, model: ModelFacts) -> Method:
        """Refuse a cut behind the last layer."""
        depth = model.decoder.layers
        if self.cut_after[-1] >= depth - 1:
            raise ValueError(
                f"layers={self.cut_after}, but behind layer {depth - 1} the model has none to spare work in: "
                f"choose layers between 0 and {depth - 2}"
            )
        return self

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """The layers behind those that rank."""
        return tuple(layer + 1 for layer in self.cut_after)

    def query_rows(self, embeddings: Tensor, visual: Tensor, prompt: Tensor) -> Tensor:
        """The raters."""
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
        """Attention received from the raters."""
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
            # A single deleted token would be recycled as itself.
            worthwhile = held - 1 if self._recycles else held
            if kept >= worthwhile:
                counts.append(held)
                continue
            where = tokens.visual[sample].nonzero()[:, 0]
            order = where[tokens.scores[sample, where].argsort(descending=True, stable=True)]
            deleted = order[kept:]
            keep[sample, deleted] = False
            counts.append(kept)
            if self._recycles:
                recycled = deleted[: int(RECYCLED * len(deleted)) + 1]
                clusters = len(recycled) // PER_CLUSTER + 1
                hidden = tokens.hidden[sample, recycled.to(tokens.hidden.device)]
                centre_of = recycled[dpc_knn(hidden, clusters).to(recycled.device)]
                centres = centre_of.unique()
                keep[sample, centres] = True
                behind[sample, centres] = where[-1]
                merge_into[sample, recycled] = torch.where(centre_of == recycled, -1, centre_of)
                counts[-1] += clusters
        if tuple(counts) == tokens.held:
            return None
        if not self._recycles:
            return Selection(keep, tuple(counts), renumber=self.renumbers)
        return Selection(keep, tuple(counts), merge_into, behind, self.renumbers)

    def _kept(self, layer: int, tokens: LayerTokens) -> list[int]:
        """Tokens to keep per sample, recycled ones not counted."""
        if self.variant == "1.0":
            assert tokens.attention is not None
            scale, bias = RANK_SCALES[self.budget]
            rows = tokens.attention.head_mean().to(tokens.visual.device)
            # Rows of zeros would change the tolerance of the rank.
            blocks = [weights[weights.any(1)][:, visual] for weights, visual in zip(rows, tokens.visual, strict=True)]
            return [
                int(scale * int(torch.linalg.matrix_rank(block)) + bias) if block.numel() else 0 for block in blocks
            ]
        count = self._counts[self.cut_after.index(layer - 1)]
        if isinstance(count, float):
            return [budget(count, n) for n in tokens.initial]
        return [count * images for images in tokens.images]
