"""The layer from which on a model no longer needs its visual tokens, for VTW."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistrim.calibration.per_prompt import measure_each
from vistrim.calibration.text_alone import text_alone
from vistrim.core.selection import gather_rows
from vistrim.engine.inputs.query_rows import QueryRows
from vistrim.methods.base.checks import check_positions
from vistrim.methods.base.method import Positions


@dataclass(frozen=True)
class LayerSearch:
    """The layer of the withdrawal, and the divergence at each layer.

    Attributes
    ----------
    layer : int
        The layer found.
    divergences : dict of int to float
        Mean divergence of the next-token distribution at each layer tried, in nats.
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

    For each layer :math:`k \ge` ``first_layer`` let :math:`P_k` be the next-token distribution after a prompt when all
    visual tokens are withdrawn before layer :math:`k`, and :math:`P` that of the untouched model. The layer found is
    the first one at which :math:`KL(P_k \| P)`, the mean over prompts, is at most ``threshold``.

    Parameters
    ----------
    model : PreTrainedModel
        A supported multimodal model, not being trimmed.
    prompts : iterable of mapping
        Processor outputs (``input_ids``, ``pixel_values``, ...), each with one or more prompts; the authors use 20
        samples of the task. Wrap it in ``rich.progress.track(...)`` to see progress.
    threshold : float
        Largest mean divergence, in nats. The authors use 0.003 for LLaVA-1.5-7B, 0.0005 for LLaVA-1.5-13B and 0.0001
        for LLaVA-1.6-7B.
    first_layer : int
        First layer to try.
    positions : {"original", "renumber"}
        RoPE positions, as in the `vistrim.VTW` that will use the layer.

    Returns
    -------
    LayerSearch
        ``vistrim.VTW(found.layer)`` is the method.

    Raises
    ------
    ValueError
        If no layer stays below the threshold (the message has the divergences), there is no prompt, a prompt has no
        image, or ``first_layer`` is out of range.
    TypeError
        If ``prompts`` is a single mapping.
    UnsupportedModelError
        If the model is not supported, or is being trimmed.

    Notes
    -----
    The rule is that of github.com/lzhxmu/VTW at a3d8cfc (``VTW.py``). That code runs the whole model once for each
    layer and computes the softmax in half precision, whose rounding error is close to the smallest threshold. Here, one
    full forward pass is followed by text-only continuations from every layer, which is exact, as layers before the
    withdrawal do not change, and the softmax is computed in float32. In the authors' code, a search that finds no layer
    ends in an IndexError.
    """
    check_positions(positions)
    per_prompt = measure_each(prompts, lambda inputs: withdrawal_divergences(model, inputs, first_layer, positions))
    means = per_prompt.mean(0).tolist()
    divergences = dict(enumerate(means, start=first_layer))
    for layer, divergence in divergences.items():
        if divergence <= threshold:
            return LayerSearch(layer, divergences)
    found = ", ".join(f"{layer}: {divergence:.2g}" for layer, divergence in divergences.items())
    raise ValueError(
        f"no layer stays below threshold={threshold} (mean divergence by layer: {found}): raise the threshold"
    )


@torch.no_grad()
def withdrawal_divergences(
    model: Any, inputs: Mapping[str, Any], first_layer: int, positions: Positions = "original"
) -> Tensor:
    r"""Divergence of the next-token distribution when all visual tokens are withdrawn before each layer.

    Parameters
    ----------
    model, inputs, first_layer, positions
        See `vistrim.calibration.text_alone.text_alone`, which also raises the errors.

    Returns
    -------
    Tensor
        ``[batch, layers - first_layer]`` float32: :math:`KL(P_k \| P)` in nats for :math:`k` from ``first_layer`` on.
    """
    found = text_alone(model, inputs, first_layer, positions)
    last = QueryRows.last_of(found.prompt).among(found.text)
    head = model.get_output_embeddings()

    def next_token(hidden: Tensor) -> Tensor:
        return head(gather_rows(hidden, last, 0, 1)[:, 0]).float().log_softmax(-1)

    full = next_token(found.last)
    divergences = []
    for layer in range(first_layer, len(found.spec.layers)):
        withdrawn = next_token(found.without_image_from(layer))
        divergences.append((withdrawn.exp() * (withdrawn - full)).sum(-1))
    return torch.stack(divergences, 1)
