"""What a model's next token loses when all visual tokens leave before a layer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistrim.calibration.text_alone import text_alone
from vistrim.core.selection import gather_rows
from vistrim.engine.inputs.query_rows import QueryRows
from vistrim.methods.base.method import Positions


@torch.no_grad()
def withdrawal_divergences(
    model: Any, inputs: Mapping[str, Any], first_layer: int, positions: Positions = "original"
) -> Tensor:
    r"""Divergence of the next-token distribution when all visual tokens are withdrawn before each layer.

    Parameters
    ----------
    model, inputs, first_layer, positions
        As `vistrim.calibration.text_alone.text_alone` takes them; it also says what is refused.

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
