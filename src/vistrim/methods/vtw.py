"""VTW: all visual tokens are removed at one decoder layer."""

from dataclasses import dataclass, replace

import torch

from vistrim.core.model_facts import ModelFacts
from vistrim.core.selection import Selection
from vistrim.methods.base.method import Method, Positions
from vistrim.methods.base.one_cut import OneCut
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens


@register
@dataclass(frozen=True)
class VTW(OneCut):
    """Remove all visual tokens before one decoder layer. Deeper layers see only text.

    Layers below ``layer`` keep the keys and values of all visual tokens, deeper layers hold none.

    Parameters
    ----------
    layer : int
        The first layer (0-based, at least 1) without visual tokens. It depends on the model:
        `vistrim.calibration.vtw.search_layer` finds it.
        The authors' code uses 15 or 16 for LLaVA-1.5-7B and 20 for 13B.
    positions : {"original", "renumber"}
        RoPE positions of the text from there on: unchanged, as by default in the authors' code, or consecutive.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2405.05803 (AAAI 2025) and github.com/lzhxmu/VTW at a3d8cfc. The code does not shorten the attention
    mask at the cut, so it fails with padding and eager attention. Both work here.
    """

    name = "vtw"
    summary = "Removes all visual tokens before one decoder layer"
    needs = "nothing (search_layer finds the layer)"
    kv_cache = "full below the cut, no visual tokens from it on"
    source = "arXiv 2405.05803"
    ranks_by = "nothing"
    counts_images = False
    budget_parameter = "layer"

    layer: int = 16
    positions: Positions = "original"

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Return 0."""
        return 0

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Set the layer, from 1 to the last one."""
        return replace(self, layer=1 + round(share * (model.decoder.layers - 2)))

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep no visual token."""
        nothing = torch.zeros_like(tokens.visual)
        return Selection(nothing, (0,) * len(tokens.held), renumber=self.renumbers)
