"""FastV: one cut inside the decoder, ranked by the attention of the layer before it."""

from dataclasses import dataclass, replace

from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.method import Positions
from vistrim.methods.base.one_cut import OneCut
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens


@register
@dataclass(frozen=True)
class FastV(OneCut):
    r"""Drop a share of the visual tokens before one decoder layer.

    Before layer :math:`K`, the ``round(N * (1 - ratio))`` visual tokens stay that receive the most attention from the
    last prompt token at layer :math:`K - 1` (mean over heads). Layers below :math:`K` keep all keys and values.

    Parameters
    ----------
    layer : int
        :math:`K`, at least 1: the first layer (0-based) that runs with fewer tokens.
    ratio : float
        Share of the visual tokens to drop, in [0, 1].
    positions : {"original", "renumber"}
        RoPE positions of the remaining tokens: unchanged, as in the authors' code, or consecutive.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2403.06764 (ECCV 2024) and github.com/pkunlp-icler/FastV at d165972. Layer 2 and ratio 0.5 are the
    settings of its main result. Of the variants in the code, this is the one with a KV cache (``fastv_forward``), which
    cuts once in prefill. The paper ranks by the attention from all other tokens, its code by the attention from the
    last token. This follows the code. In the code, ``layer=0`` selects random tokens; use `Random` for that.
    """

    name = "fastv"
    summary = "Drops the least attended visual tokens before one decoder layer"
    needs = "attention of one query row at one layer"
    kv_cache = "full below the cut, small from it on"
    source = "arXiv 2403.06764"

    layer: int = 2
    ratio: float = 0.5
    positions: Positions = "original"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio={self.ratio}: must be between 0 and 1 (the share that is dropped)")

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep the most attended tokens."""
        # As in the authors' code, halves are rounded to the even number.
        counts = tuple(round(n * (1 - self.ratio)) for n in tokens.initial)
        return replace(keep_top(tokens.scores, tokens.visual, counts), renumber=self.renumbers)
