"""Embedding of the question of a prompt by the decoder, without images, cache and hooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vistrim.core.selection import gather_rows, kept_rows
from vistrim.engine.inputs.prompt import Prompt


@torch.no_grad()
def read_question(decoder: Any, prompt: Prompt, embeddings: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Embed the question of each sample (synchronizes once).

    Parameters
    ----------
    decoder : nn.Module
        The decoder.
    prompt : Prompt
        The prompt, with images.
    embeddings : Tensor
        ``[batch, tokens, hidden]``: inputs of the decoder.

    Returns
    -------
    embedded : Tensor
        ``[batch, hidden]``: last hidden state, after the final normalization, of the last token of the question.
    lengths : tuple of int
        Number of tokens of each question.
    """
    rows = question_rows(prompt)
    lengths = rows.sum(1).tolist()
    index, valid = kept_rows(rows, lengths)
    device = embeddings.device
    # Call `forward` directly, because the hooks of the current forward pass are on the module call.
    output = decoder.forward(
        inputs_embeds=gather_rows(embeddings.detach(), index, 0, 1),
        attention_mask=valid.long().to(device) if min(lengths) < max(lengths) else None,
        position_ids=(valid.cumsum(1) - 1).clamp(min=0).to(device),
        use_cache=False,
    )
    return output.last_hidden_state[:, -1], tuple(lengths)


def question_rows(prompt: Prompt) -> Tensor:
    """Select the text between the last image of each sample and the answer, ``[batch, tokens]`` bool.

    If there is no text after the image, all text of the prompt. If the prompt has no text, its last token.
    """
    tokens = prompt.tokens
    assert prompt.inputs.visual is not None
    image = prompt.inputs.visual.to(tokens.valid.device)
    last = tokens.slots == prompt.ranking[:, None]
    text = tokens.valid & ~image & (tokens.slots <= prompt.ranking[:, None])
    # These places are after the last image.
    behind = text & (image.flip(1).cumsum(1).flip(1) == 0)
    found = torch.where(behind.any(1, keepdim=True), behind, text)
    return torch.where(found.any(1, keepdim=True), found, last)
