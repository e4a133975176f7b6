"""Read the prompt where it is still visible: token ids and padding at the base model, and what the head was told."""

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
from vistrim.engine.inputs.encodings import given_shapes, merged_shapes
from vistrim.engine.inputs.images import PromptImages, find_images
from vistrim.engine.inputs.packed_rows import positions_restart
from vistrim.engine.inputs.prompt_ends import Border, check_ends, find_ends
from vistrim.engine.tokens.token_map import TokenMap
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
    border : Border
        What tells where prompts end.
    stays : mapping of str to Tensor
        For each modality of which the model itself leaves features out, ``[features]`` bool: False for those.
    ids : Tensor or None
        ``[batch, tokens]`` long, if there are any.
    restarts : Tensor or None
        ``[]`` bool: whether positions begin again inside a row; None: they were not given.
    """

    placeholders: Mapping[str, Tensor]
    shapes: Mapping[str, Sequence[ImageShape]]
    padding_mask: Tensor | None
    border: Border
    stays: Mapping[str, Tensor] = field(default_factory=dict)
    ids: Tensor | None = None
    restarts: Tensor | None = None

    @property
    def unseen(self) -> bool:
        """Whether it cannot be told which tokens are visual, because there are only embeddings."""
        return self.ids is None and not self.placeholders

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
    told : bool
        Whether the call tells where all prompts end, rather than that their last token was taken for the end.
    in_doubt : bool
        Whether what it tells is one place for prompts that may be of several lengths.
    packed : bool
        Whether positions begin again inside a row, so that there are several samples in it.
    """

    tokens: TokenMap
    ranking: Tensor
    ranking_from_end: int | None
    crop_limit: int
    inputs: PromptInputs
    told: bool
    in_doubt: bool
    packed: bool

    @cached_property
    def images(self) -> PromptImages:
        """Which picture each visual token belongs to (waits for the device once)."""
        return find_images(self.inputs.placeholders, self.inputs.shapes, self.tokens.slots.device)

    @cached_property
    def layout(self) -> ImageLayout:
        """Where the pictures, which have to have one grid, are (waits for the device once)."""
        tokens, found = self.tokens, self.inputs.visual
        assert found is not None
        found = found.to(tokens.slots.device)
        last = torch.where(tokens.visual, tokens.slots, tokens.slots[:, :1] - 1).amax(1, keepdim=True)
        before = tokens.valid & ~tokens.visual & (tokens.slots < last)
        images = tuple(map(len, self.images.of_sample))
        return ImageLayout(found.cumsum(1) - 1, images, last, tuple(before.sum(1).tolist()))


def read_inputs(
    spec: ModelSpec, inputs: Mapping[str, Any], border: Border, ids_of_embeddings: Tensor | None = None
) -> PromptInputs:
    """Read a prompt off the keyword arguments of the base model's forward pass.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    inputs : mapping
        The arguments.
    border : Border
        What tells where prompts end.
    ids_of_embeddings : Tensor, optional
        ``[samples, tokens]`` long: what embeddings among the arguments stand for. Beams repeat each sample.

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
    padding = mask.bool() if mask is not None else None
    ids: Tensor | None = inputs.get("input_ids")
    placeholders: Mapping[str, Tensor] = _placeholders(spec, inputs) if has_images(inputs) else {}
    shapes = given_shapes(spec, inputs.get("mm_encoder_outputs") or {}, inputs)
    if ids is None and not placeholders and ids_of_embeddings is not None:
        batch, length = inputs["inputs_embeds"].shape[:2]
        of_call = ids_of_embeddings[:, -length:]
        if of_call.shape[1] == length:
            ids = of_call.repeat_interleave(batch // len(of_call), 0)
            shapes = merged_shapes(spec, of_call, inputs)
            placeholders = {modality: ids == spec.visual_token_ids[modality] for modality in shapes}
    return PromptInputs(
        placeholders=placeholders,
        shapes=shapes,
        padding_mask=padding,
        border=border,
        stays={
            modality: inputs[name].bool()
            for modality, name in spec.images.stays.items()
            if inputs.get(name) is not None
        },
        ids=ids,
        restarts=positions_restart(inputs.get("position_ids"), padding),
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
    border, place = inputs.border, torch.arange(length, device=device)
    visual = text.visual if inputs.visual is None else inputs.visual.to(device)
    valid = text.valid if inputs.padding_mask is None else inputs.padding_mask[:, past : past + length].to(device)
    visual = visual & valid
    ends = find_ends(border, valid, visual, inputs.ids)
    found = ends.places if ranking is None else ranking.to(device) - past
    needed = place == (place * valid).argmax(1)[:, None]
    if border.labels is not None:
        needed[:, :-1] |= border.labels.to(device)[:, 1:] != -100
    needed |= place == found[:, None]
    visual = visual & ~needed
    packed = valid.new_zeros(()) if inputs.restarts is None else inputs.restarts.to(device)
    flags = torch.stack([~ends.told.all(), ends.in_doubt, packed])[:, None].expand(3, batch)
    figures = visual.sum(1), (~valid).sum(1), length - found, (place * visual).amax(1) + 1, *flags
    n_visual, n_invalid, from_end, visual_end, *noted = torch.stack(figures).tolist()
    untold, in_doubt, is_packed = (bool(flag[0]) for flag in noted)
    check_ends(border.first, [length - n for n in from_end], visual_end, length)
    tokens = replace(text, valid=valid, visual=visual, n_visual=tuple(n_visual), n_invalid=tuple(n_invalid))
    # The rows behind it are drafted text, which stays, so that this holds after every cut.
    common = from_end[0] if set(from_end) == {border.drafted + 1} else None
    # Padding may be gone from some layers and not from others, so that columns cannot be counted back through it.
    crop_limit = past + (length if any(n_invalid) else max(visual_end))
    return Prompt(
        tokens, found + past, common, crop_limit, inputs, told=not untold, in_doubt=in_doubt, packed=is_packed
    )
