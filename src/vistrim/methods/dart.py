"""DART: one cut inside the decoder that keeps the tokens least similar to a few pivots, without attention."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.pivots import least_like, strongest
from vistrim.core.query_text import text_behind_images
from vistrim.core.schedules import budget, check_keep
from vistrim.core.scores import AttentionRows
from vistrim.core.selection import Selection
from vistrim.methods.base.method import Positions
from vistrim.methods.base.one_cut import OneCut
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens


@register
@dataclass(frozen=True)
class DART(OneCut):
    r"""Keep a few pivots and the visual tokens least similar to them, before one decoder layer.

    *Pivots* are the ``image_pivots`` visual tokens and the ``text_pivots`` tokens of the text after the image that have
    the largest L1 norm of their keys at layer :math:`K - 1` (over all heads).

    *Selection*: with T tokens to keep and p pivots in total, each pivot in turn selects the
    :math:`\lfloor T / p \rfloor` remaining visual tokens with the lowest cosine to it. The cosines are those of the
    output of layer :math:`K - 1` after the final normalization. The image pivots stay as well, so that
    :math:`\text{image\_pivots} + p \lfloor T / p \rfloor` tokens are kept: 132 for T = 128.

    Parameters
    ----------
    keep : int or float
        :math:`T` per image: a whole number of at least 2, or a share in (0, 1] of the visual tokens. The authors use
        192, 128 and 64 of 576. It is not the mean over the layers, because the first layers process all tokens.
    layer : int
        :math:`K`, at least 1: the first layer (0-based) that runs without the removed tokens.
    image_pivots, text_pivots : int
        Number of pivots per sample of each kind, in total at least one.
    positions : {"original", "renumber"}
        RoPE positions of the remaining tokens: unchanged, as in the authors' code, or consecutive.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2502.11494 (EMNLP 2025) and its code as copied in github.com/xqy1111111/DART at d6a5af6. The paper
    describes the removal of duplicates. This implementation follows the code, which compares tokens only with pivots
    and has no threshold.

    Deviations: pivots select in the order of the sequence, whereas the code uses the order of a Python set of numbers.
    All images of a sample form one set of tokens, with T for each image. A sample with fewer tokens than the number to
    keep keeps all of them. If the text has fewer tokens than ``text_pivots``, the strongest one also selects for the
    missing ones. If no text follows the image, the last prompt token is used as the text.
    """

    name = "dart"
    summary = "Keeps the visual tokens that are least like a few pivots, before one decoder layer"
    needs = "keys and hidden states of one layer, and the final normalization"
    kv_cache = "full below the cut, small from it on"
    source = "arXiv 2502.11494"
    reads_features = True
    reads_prompt = True
    budget_parameter = "keep"

    keep: int | float = 128
    layer: int = 2
    image_pivots: int = 4
    text_pivots: int = 4
    positions: Positions = "original"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_keep("keep", self.keep)
        for name in ("image_pivots", "text_pivots"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be a whole number from 0 on")
        if not self.image_pivots + self.text_pivots:
            raise ValueError("image_pivots=0 and text_pivots=0: there must be at least one pivot")

    def score(self, attention: AttentionRows, visual: Tensor) -> Tensor:
        """Return zeros, because tokens are not ranked by attention."""
        return torch.zeros_like(visual, dtype=torch.float32)

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection | None:
        """Keep the image pivots and the tokens least similar to the pivots."""
        assert tokens.hidden is not None
        assert tokens.attention is not None
        assert tokens.norm is not None
        assert tokens.prompt is not None
        device = tokens.visual.device
        text = text_behind_images(tokens.visual, tokens.prompt)
        last = tokens.attention.places[:, -1].to(device)
        states = tokens.norm(tokens.hidden).to(device)
        key = tokens.attention.key[:, :, -tokens.attention.tokens :].to(device)
        kept, counts = [], []
        for sample, (held, images) in enumerate(zip(tokens.held, tokens.images, strict=True)):
            each = self._each(held, images)
            count = self.prefill_count(layer, held, held, images, tokens.depth)
            if count == held:
                kept.append(tokens.visual[sample])
                counts.append(held)
                continue
            visual = tokens.visual[sample]
            image = strongest(key[sample], visual, self.image_pivots)
            words = text[sample].index_fill(0, last[sample], True) & ~visual
            pivots = torch.cat([image, strongest(key[sample], words, self.text_pivots)])
            stays = torch.zeros_like(visual).index_fill(0, image, True)
            kept.append(stays | least_like(states[sample], pivots, visual & ~stays, each))
            counts.append(count)
        return Selection(torch.stack(kept), tuple(counts), renumber=self.renumbers)

    @property
    def counts_images(self) -> bool:  # type: ignore[override]
        """Whether ``keep`` is a number of tokens per image."""
        return isinstance(self.keep, int)

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Return the number of image pivots plus the number of tokens that the pivots select."""
        each = self._each(held, images)
        return min(held, self.image_pivots + each * (self.image_pivots + self.text_pivots))

    def _each(self, held: int, images: int) -> int:
        """Return the number of tokens that each pivot selects."""
        wanted = budget(self.keep, held) if isinstance(self.keep, float) else self.keep * images
        return wanted // (self.image_pivots + self.text_pivots)
