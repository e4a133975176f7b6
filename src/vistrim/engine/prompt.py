"""Read the prompt where it is still visible: token ids and padding at the base model, labels at the head."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from vistrim.architectures import ModelSpec
from vistrim.core.layout import ImageShape, left_of
from vistrim.engine.encodings import given_shapes
from vistrim.engine.pictures import PromptPictures, find_pictures
from vistrim.engine.tokens import TokenMap
from vistrim.errors import UnsupportedGenerationError

_PIXELS = ("pixel_values", "pixel_values_images", "pixel_values_videos")


@dataclass(frozen=True)
class PromptInputs:
    """What the decoder is not told.

    Attributes
    ----------
    placeholders : mapping of str to Tensor
        For each modality ``[batch, tokens]`` bool: places of its features; empty if this forward pass brings none.
    shapes : mapping of str to list of ImageShape
        For each modality, how its features lie, in prompt order over the batch; known once they are encoded.
    padding_mask : Tensor or None
        ``[batch, past + tokens]`` bool: False for padding; None if there is none.
    labels : Tensor or None
        ``[batch, tokens]`` long, -100 where there is none.
    drafted : int
        Tokens at the end that are no prompt, but drafted candidates for the answer.
    stays : mapping of str to Tensor
        For each modality of which the model itself leaves features out, ``[features]`` bool: False for those.
    """

    placeholders: Mapping[str, Tensor]
    shapes: Mapping[str, Sequence[ImageShape]]
    padding_mask: Tensor | None
    labels: Tensor | None
    drafted: int
    stays: Mapping[str, Tensor] = field(default_factory=dict)

    def with_shapes(self, encoded: Mapping[str, Sequence[ImageShape]]) -> PromptInputs:
        """The same, once it is known how features that were encoded lie: only what has features has places for them.

        Raises
        ------
        UnsupportedGenerationError
            If images were given, and it is not known what became of them.
        """
        shapes = {**self.shapes, **encoded}
        shapes |= {m: left_of(shapes[m], stays) for m, stays in self.stays.items() if m in shapes}
        places = {modality: found for modality, found in self.placeholders.items() if modality in shapes}
        if self.placeholders and not places:
            raise UnsupportedGenerationError(
                "this model encodes its images in a way of its own (not by get_image_features), so that it is not "
                "known which tokens are visual: encode them first and pass them as `mm_encoder_outputs`"
            )
        return replace(self, shapes=shapes, placeholders=places)

    @cached_property
    def visual(self) -> Tensor | None:
        """``[batch, tokens]`` bool: places of all features; None if there are none."""
        return functools.reduce(torch.logical_or, self.placeholders.values()) if self.placeholders else None


@dataclass(frozen=True)
class ImageLayout:
    """Where the images of a prompt are.

    Attributes
    ----------
    cell : Tensor
        ``[batch, tokens]`` long: for a placeholder its number among those of its sample, and so, as images are equally
        large, the cell of the image's grid.
    images : tuple of int
        Images per sample.
    last : Tensor
        ``[batch, 1]`` long: slot of the last visual token; where there is none, the slot before the prompt.
    text_before : tuple of int
        Text tokens per sample of this prompt before that one.
    """

    cell: Tensor
    images: tuple[int, ...]
    last: Tensor
    text_before: tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """The tokens of one prefill, before trimming.

    Attributes
    ----------
    tokens : TokenMap
        All of them. Visual are those that may be removed.
    ranking : Tensor
        ``[batch]`` long: slot of the last prompt token, whose attention ranks the visual tokens.
    ranking_from_end : int or None
        How many rows from the end (1: the last) it is in every sample; None if that differs.
    crop_limit : int
        Slot below which a cache cannot be cropped once tokens of this prompt were removed.
    inputs : PromptInputs
        Where this was read off.
    """

    tokens: TokenMap
    ranking: Tensor
    ranking_from_end: int | None
    crop_limit: int
    inputs: PromptInputs

    @cached_property
    def pictures(self) -> PromptPictures:
        """Which picture each visual token belongs to (waits for the device once)."""
        return find_pictures(self.inputs.placeholders, self.inputs.shapes, self.tokens.slots.device)

    @cached_property
    def layout(self) -> ImageLayout:
        """Where the pictures, which have to have one grid, are (waits for the device once)."""
        tokens, found = self.tokens, self.inputs.visual
        assert found is not None
        found = found.to(tokens.slots.device)
        last = torch.where(tokens.visual, tokens.slots, tokens.slots[:, :1] - 1).amax(1, keepdim=True)
        before = tokens.valid & ~tokens.visual & (tokens.slots < last)
        images = tuple(map(len, self.pictures.of_sample))
        return ImageLayout(found.cumsum(1) - 1, images, last, tuple(before.sum(1).tolist()))


def read_inputs(spec: ModelSpec, inputs: Mapping[str, Any], labels: Tensor | None, drafted: int) -> PromptInputs:
    """Read a prompt off the keyword arguments of the base model's forward pass.

    Raises
    ------
    UnsupportedGenerationError
        If the attention mask is no padding mask.
    """
    mask = inputs.get("attention_mask")
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
        raise UnsupportedGenerationError(
            "vistrim supports padding masks [batch, tokens] only: pass such an `attention_mask`, or none"
        )
    return PromptInputs(
        placeholders=_placeholders(spec, inputs) if has_images(inputs) else {},
        shapes=given_shapes(spec, inputs.get("mm_encoder_outputs") or {}, inputs),
        padding_mask=mask.bool() if mask is not None else None,
        labels=labels,
        drafted=drafted,
        stays={
            modality: inputs[name].bool()
            for modality, name in spec.images.stays.items()
            if inputs.get(name) is not None
        },
    )


def has_images(inputs: Mapping[str, Any]) -> bool:
    """Whether images or videos, or features of them, are among the arguments of a call."""
    return bool(inputs.get("mm_encoder_outputs")) or any(inputs.get(name) is not None for name in _PIXELS)


def _placeholders(spec: ModelSpec, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    ids: Tensor | None = inputs.get("input_ids")
    if ids is not None:
        return {modality: ids == token for modality, token in spec.visual_token_ids.items()}
    # The same test that the model itself makes: placeholders are recognised by their embedding.
    embeddings = inputs["inputs_embeds"]
    found = {}
    for modality, token in spec.visual_token_ids.items():
        found[modality] = (embeddings == spec.embed(torch.tensor(token, device=embeddings.device))).all(-1)
    return found


def read_prompt(
    inputs: PromptInputs, batch: int, past: int, length: int, device: torch.device, ranking: Tensor | None = None
) -> Prompt:
    """Sort the tokens of a prefill (waits for the device once).

    Parameters
    ----------
    inputs : PromptInputs
        What was read at the base model.
    batch, past, length : int
        Samples, slots before this forward pass, and tokens in it.
    device : torch.device
        Where the decoder's inputs are.
    ranking : Tensor, optional
        ``[batch]`` long: slot of the last prompt token, where an earlier pass has found it.

    Notes
    -----
    Text is never removed. Neither is a visual token that something depends on: the last token of the prompt, whose
    attention ranks and whose logits are the answer, and one in front of a label.
    """
    text = TokenMap.text(batch, past, length, device)
    place = torch.arange(length, device=device)
    visual = text.visual if inputs.visual is None else inputs.visual.to(device)
    valid = text.valid if inputs.padding_mask is None else inputs.padding_mask[:, past : past + length].to(device)
    visual = visual & valid
    last = (place * valid).argmax(1)
    found = last - inputs.drafted
    needed = place == last[:, None]
    if inputs.labels is not None:
        answer = inputs.labels.to(device) != -100
        needed[:, :-1] |= answer[:, 1:]
        # The token before the first label behind the image.
        behind = answer & (place > (place * visual).argmax(1)[:, None])
        found = torch.where(behind.any(1), behind.to(torch.uint8).argmax(1) - 1, found)
    if ranking is not None:
        found = ranking.to(device) - past
    needed |= place == found[:, None]
    visual = visual & ~needed
    figures = visual.sum(1), (~valid).sum(1), length - found, (place * visual).amax(1) + 1
    n_visual, n_invalid, from_end, visual_end = torch.stack(figures).tolist()
    tokens = replace(text, valid=valid, visual=visual, n_visual=tuple(n_visual), n_invalid=tuple(n_invalid))
    # The rows behind it are drafted text, which stays, so that this holds after every cut.
    common = from_end[0] if set(from_end) == {inputs.drafted + 1} else None
    # Padding may be gone from some layers and not from others, so that columns cannot be counted back through it.
    crop_limit = past + (length if any(n_invalid) else max(visual_end))
    return Prompt(tokens, found + past, common, crop_limit, inputs)
