"""Read the prompt where it is still visible: token ids and padding at the base model, labels at the head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistrim.architectures import ModelSpec
from vistrim.engine.tokens import TokenMap

_PIXELS = ("pixel_values", "pixel_values_videos")


@dataclass(frozen=True)
class Call:
    """Arguments that only the model with its head is given.

    Attributes
    ----------
    labels : Tensor or None
        ``[batch, tokens]`` long, -100 where there is none.
    logits_to_keep : object
        A number n means that the n - 1 last tokens are drafted candidates behind the prompt.
    """

    labels: Tensor | None = None
    logits_to_keep: Any = None


@dataclass(frozen=True)
class PromptInputs:
    """What the decoder is not told.

    Attributes
    ----------
    visual : Tensor or None
        ``[batch, tokens]`` bool: visual tokens of this forward pass; None if it brings no image.
    image_sizes : list of int
        Visual tokens per image, in prompt order over the batch.
    valid : Tensor or None
        ``[batch, tokens]`` bool: False for padding; None if there is no padding mask.
    call : Call
        What the head was given.
    """

    visual: Tensor | None
    image_sizes: list[int]
    valid: Tensor | None
    call: Call

    def tokens(self, batch: int, past: int, length: int, device: torch.device) -> TokenMap:
        """Map of the tokens of this forward pass, before trimming (waits for the device once)."""
        text = TokenMap.text(batch, past, length, device)
        visual = text.visual if self.visual is None else self.visual.to(device)
        valid = text.valid if self.valid is None else self.valid.to(device)
        n_visual, n_invalid = torch.stack([visual.sum(1), (~valid).sum(1)]).tolist()
        return TokenMap(text.slots, valid, visual & valid, tuple(n_visual), tuple(n_invalid))

    def ranking(self, tokens: TokenMap) -> Tensor:
        """Slot of the last prompt token, ``[batch]``: its attention ranks the visual tokens.

        That is the token before the first label behind the image, where there are labels; otherwise the last token
        that is neither padding nor a drafted candidate.
        """
        place = torch.arange(tokens.width, device=tokens.slots.device)
        drafted = self.call.logits_to_keep
        behind = drafted - 1 if isinstance(drafted, int) and drafted > 1 else 0
        last = (place * tokens.valid).argmax(1) - behind
        if self.call.labels is not None:
            last_visual = (place * tokens.visual).argmax(1)
            answer = (self.call.labels.to(place.device) != -100) & (place > last_visual[:, None] + 1)
            first = answer.to(torch.uint8).argmax(1)
            last = torch.where(answer.any(1), first - 1, last)
        return tokens.slots.gather(1, last[:, None])[:, 0]


def read(spec: ModelSpec, call: Call, inputs: Mapping[str, Any]) -> PromptInputs:
    """Read a prompt off the keyword arguments of the base model's forward pass."""
    ids: Tensor | None = inputs.get("input_ids")
    mask = inputs.get("attention_mask")
    brings_images = bool(inputs.get("mm_encoder_outputs")) or any(inputs.get(name) is not None for name in _PIXELS)
    visual, sizes = None, []
    if brings_images:
        if ids is not None:
            visual = torch.isin(ids, torch.tensor(spec.visual_token_ids, device=ids.device))
        else:
            # The same test that the model itself makes: placeholders are recognised by their embedding.
            embeddings = inputs["inputs_embeds"]
            placeholders = spec.embed(torch.tensor(spec.visual_token_ids, device=embeddings.device))
            visual = (embeddings[:, :, None] == placeholders).all(-1).any(-1)
        sizes = spec.image_sizes(inputs, int(visual.sum()))
    length = (ids if ids is not None else inputs["inputs_embeds"]).shape[1]
    valid = mask[:, -length:].bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
    return PromptInputs(visual, sizes, valid, call)
