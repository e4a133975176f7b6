"""VTW: all visual tokens leave the decoder at one layer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vistrim.core.selection import Selection
from vistrim.methods.base.method import Positions, check_positions
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
        The first layer (0-based, at least 1) without visual tokens. It depends on the model: `search_layer` finds it.
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


@dataclass(frozen=True)
class LayerSearch:
    """Where visual tokens can be withdrawn, and what it costs at each layer.

    Attributes
    ----------
    layer : int
        The layer found.
    divergences : dict of int to float
        For each layer tried: mean divergence of the next-token distribution, in nats.
    """

    layer: int
    divergences: dict[int, float]


def search_layer(
    model: Any,
    prompts: Iterable[Mapping[str, Any]],
    threshold: float = 0.003,
    first_layer: int = 5,
    positions: Positions = "original",
) -> LayerSearch:
    r"""Find the first layer from which on a model no longer needs its visual tokens.

    For each layer :math:`k \ge` ``first_layer`` let :math:`P_k` be the next-token distribution behind a prompt when all
    visual tokens are withdrawn before layer :math:`k`, and :math:`P` that of the untouched model. The layer found is
    the first one at which :math:`KL(P_k \| P)`, the mean over prompts, is at most ``threshold``.

    Parameters
    ----------
    model : PreTrainedModel
        A supported multimodal model, not being trimmed.
    prompts : iterable of mapping
        Processor outputs (``input_ids``, ``pixel_values``, ...), each with one or more prompts; the authors use 20
        samples of the task. Wrap it in ``rich.progress.track(...)`` to see how far the search is.
    threshold : float
        Largest mean divergence, in nats. The authors use 0.003 for LLaVA-1.5-7B, 0.0005 for LLaVA-1.5-13B and 0.0001
        for LLaVA-1.6-7B.
    first_layer : int
        First layer to try.
    positions : {"original", "renumber"}
        As `VTW` is going to have them.

    Returns
    -------
    LayerSearch
        ``VTW(found.layer)`` is the method.

    Raises
    ------
    ValueError
        If no layer stays below the threshold (the divergences are in the message), there is no prompt, one has no
        image, or ``first_layer`` is out of range.
    TypeError
        If ``prompts`` is a single mapping.
    UnsupportedModelError
        If the model is not supported, or is being trimmed.

    Notes
    -----
    The rule is that of github.com/lzhxmu/VTW at a3d8cfc (``VTW.py``), whose code runs the whole model once for each
    layer and takes the softmax in half precision, close to whose rounding the smallest threshold lies. Here one full
    forward pass is followed by text-only continuations from every layer, which is exact, as layers before the
    withdrawal do not change; and the softmax is taken in float32. There a search that finds no layer ends in an
    IndexError.
    """
    # The measurement runs a model, so it lives above the methods.
    from vistrim.calibration.vtw import withdrawal_divergences

    check_positions(positions)
    if isinstance(prompts, Mapping):
        raise TypeError("prompts must be several processor outputs: write [inputs] for a single one")
    per_prompt = [withdrawal_divergences(model, inputs, first_layer, positions) for inputs in prompts]
    if not per_prompt:
        raise ValueError("no prompts: give at least one processor output")
    means = torch.cat(per_prompt).mean(0).tolist()
    divergences = dict(enumerate(means, start=first_layer))
    for layer, divergence in divergences.items():
        if divergence <= threshold:
            return LayerSearch(layer, divergences)
    found = ", ".join(f"{layer}: {divergence:.2g}" for layer, divergence in divergences.items())
    raise ValueError(
        f"no layer stays below threshold={threshold} (mean divergence by layer: {found}): raise the threshold"
    )
