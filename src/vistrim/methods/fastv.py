"""FastV: one cut inside the decoder, ranked by the attention of the layer before it."""

from dataclasses import dataclass, replace

from vistrim.core.schedules import check_keep
from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.method import Positions
from vistrim.methods.base.one_cut import OneCut
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens


@register
@dataclass(frozen=True)
class FastV(OneCut):
    r"""Drop the least attended visual tokens before one decoder layer.

    Before layer :math:`K`, the ``round(N * keep)`` visual tokens stay that receive the most attention from the last
    prompt token at layer :math:`K - 1` (mean over heads). Layers below :math:`K` keep all keys and values.

    Parameters
    ----------
    layer : int
        :math:`K`, at least 1: the first layer (0-based) that runs with fewer tokens.
    keep : int or float
        Tokens to keep: a share of the sample's visual tokens in (0, 1], or a whole number per image, from 2 on.
    positions : {"original", "renumber"}
        RoPE positions of the remaining tokens: unchanged, as in the authors' code, or consecutive.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2403.06764 (ECCV 2024) and github.com/pkunlp-icler/FastV at d165972. Layer 2 and a share of 0.5 are
    the settings of its main result; the authors state the share 1 - ``keep`` that is dropped. Of the variants in the
    code, this is the one with a KV cache (``fastv_forward``), which cuts once in prefill. The paper ranks by the
    attention from all other tokens, its code by the attention from the last token. This follows the code. In the
    code, ``layer=0`` selects random tokens; use `Random` for that.
    """

    name = "fastv"
    summary = "Drops the least attended visual tokens before one decoder layer"
    needs = "attention of one query row at one layer"
    kv_cache = "full below the cut, small from it on"
    source = "arXiv 2403.06764"

    budget_parameter = "keep"

    layer: int = 2
    keep: int | float = 0.5
    positions: Positions = "original"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_keep("keep", self.keep)

    @property
    def counts_images(self) -> bool:  # type: ignore[override]
        """Whether ``keep`` is a number of tokens per image."""
        return isinstance(self.keep, int)

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Return the share or number of tokens that stays."""
        if isinstance(self.keep, float):
            # As in the authors' code, halves are rounded to the even number.
            return round(initial * self.keep)
        return min(held, self.keep * images)

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep the most attended tokens."""
        counts = tuple(
            self.prefill_count(layer, n, held, images, tokens.depth)
            for n, held, images in zip(tokens.initial, tokens.held, tokens.images, strict=True)
        )
        return replace(keep_top(tokens.scores, tokens.visual, counts), renumber=self.renumbers)
