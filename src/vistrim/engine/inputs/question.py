"""The question of a prompt, read by the decoder alone: without the image, the cache and the hooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vistrim.core.selection import gather_rows, kept_rows
from vistrim.engine.inputs.prompt import Prompt


@torch.no_grad()
def read_question(decoder: Any, prompt: Prompt, embeddings: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Embed the question of each sample (waits for the device once).

    Parameters
    ----------
    decoder : nn.Module
        The text model.
    prompt : Prompt
        The prompt, with images.
    embeddings : Tensor
        ``[batch, tokens, hidden]``: what enters the decoder.

    Returns
    -------
    embedded : Tensor
        ``[batch, hidden]``: last hidden state, behind the final normalisation, at the question's last token.
    lengths : tuple of int
        Tokens of each question.
    """
    rows = question_rows(prompt)
    lengths = rows.sum(1).tolist()
    index, valid = kept_rows(rows, lengths)
    device = embeddings.device
    # Its `forward` rather than itself: the hooks of this very forward pass sit on the call.
    output = decoder.forward(
        inputs_embeds=gather_rows(embeddings.detach(), index, 0, 1),
        attention_mask=valid.long().to(device) if min(lengths) < max(lengths) else None,
        position_ids=(valid.cumsum(1) - 1).clamp(min=0).to(device),
        use_cache=False,
    )
    return output.last_hidden_state[:, -1], tuple(lengths)


def question_rows(prompt: Prompt) -> Tensor:
    """``[batch, tokens]`` bool: the text behind the sample's last image, up to where the answer begins.

    Where there is no text behind it all text of the prompt, and where there is none at all its last token.
    """
    tokens = prompt.tokens
    assert prompt.inputs.visual is not None
    image = prompt.inputs.visual.to(tokens.valid.device)
    last = tokens.slots == prompt.ranking[:, None]
    text = tokens.valid & ~image & (tokens.slots <= prompt.ranking[:, None])
    # Nothing of the last image is at or behind such a place.
    behind = text & (image.flip(1).cumsum(1).flip(1) == 0)
    found = torch.where(behind.any(1, keepdim=True), behind, text)
    return torch.where(found.any(1, keepdim=True), found, last)
