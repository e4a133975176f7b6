"""VTW: all visual tokens leave the decoder at one layer."""

from dataclasses import dataclass

import torch

from vistrim.core.selection import Selection
from vistrim.methods.base.method import Positions
from vistrim.methods.base.one_cut import OneCut
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens


@register
@dataclass(frozen=True)
class VTW(OneCut):
    """Withdraw all visual tokens before one decoder layer; deeper layers see text only.

    Layers below ``layer`` keep the keys and values of all visual tokens, deeper ones hold none.

    Parameters
    ----------
    layer : int
        The first layer (0-based, at least 1) without visual tokens. It depends on the model:
        `vistrim.calibration.vtw.search_layer` finds it.
        The authors' code uses 15 or 16 for LLaVA-1.5-7B and 20 for 13B.
    positions : {"original", "renumber"}
        RoPE positions of the text from there on: each its own as the authors have them by default, or consecutive.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2405.05803 (AAAI 2025) and github.com/lzhxmu/VTW at a3d8cfc. The code does not shorten the attention
    mask at the cut, so that padding and eager attention fail there; here they work.
    """

    name = "vtw"
    summary = "Withdraws all visual tokens before one decoder layer"
    needs = "nothing (the layer is found by search_layer)"
    kv_cache = "full below the cut, none from it on"
    source = "arXiv 2405.05803"
    ranks_by = "nothing"

    layer: int = 16
    positions: Positions = "original"

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep no visual token."""
        nothing = torch.zeros_like(tokens.visual)
        return Selection(nothing, (0,) * len(tokens.held), renumber=self.renumbers)
