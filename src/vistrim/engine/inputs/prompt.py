"""The prompt, read from the arguments of the base model and of the head, because the decoder does not get it."""

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
    """Properties of a prompt that are not passed to the decoder.

    Attributes
    ----------
    placeholders : mapping of str to Tensor
        Places of the features of each modality, ``[batch, tokens]`` bool. Empty if the forward pass has none.
    shapes : mapping of str to list of ImageShape
        Layout of the features of each modality, in prompt order over the batch. Known once they are encoded.
    padding_mask : Tensor or None
        ``[batch, past + tokens]`` bool, False for padding. None if there is none.
    border : Border
        Information on the ends of the prompts.
    stays : mapping of str to Tensor
        ``[features]`` bool for each modality of which the model itself drops features, False for those.
    ids : Tensor or None
        ``[batch, tokens]`` long: the token ids, if they are given.
    restarts : Tensor or None
        ``[]`` bool: whether positions restart within a row. None: they are not given.
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
        """Whether visual tokens cannot be identified, because only embeddings are given."""
        return self.ids is None and not self.placeholders

    def with_shapes(self, encoded: Mapping[str, Sequence[ImageShape]]) -> PromptInputs:
        """Add the layout of encoded features. Modalities without features lose their placeholders.

        Raises
        ------
        UnsupportedGenerationError
            If images were given, but their encoding was not recorded.
        """
        shapes = {**self.shapes, **encoded}
        shapes |= {m: left_of(shapes[m], stays) for m, stays in self.stays.items() if m in shapes}
        places = {modality: found for modality, found in self.placeholders.items() if modality in shapes}
        if self.placeholders and not places:
            raise UnsupportedGenerationError(
                "this model does not encode its images with get_image_features, so vistrim cannot tell which tokens "
                "are visual: encode them first and pass them as `mm_encoder_outputs`"
            )
        return replace(self, shapes=shapes, placeholders=places)

    @cached_property
    def visual(self) -> Tensor | None:
        """Places of all features, ``[batch, tokens]`` bool. None if there are none."""
        return functools.reduce(torch.logical_or, self.placeholders.values()) if self.placeholders else None


@dataclass(frozen=True)
class ImageLayout:
    """Locations of the images of a prompt.

    Attributes
    ----------
    cell : Tensor
        ``[batch, tokens]`` long: index of a placeholder among those of its sample. As images have equal sizes, this is
        also its cell in the grids of the images, one after the other.
    images : tuple of int
        Number of images, tiles and frames per sample.
    last : Tensor
        ``[batch, 1]`` long: slot of the last visual token. If there is none, the slot before the prompt.
    text_before : tuple of int
        Number of text tokens of this prompt before that token, per sample.
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
        All tokens. Those that may be removed are marked as visual.
    ranking : Tensor
        ``[batch]`` long: slot of the last prompt token, whose attention ranks the visual tokens.
    ranking_from_end : int or None
        Row of this token, counted from the end (1: the last), if it is the same in every sample.
    crop_limit : int
        Slot below which a cache cannot be cropped after tokens of this prompt were removed.
    inputs : PromptInputs
        Source of this data.
    told : bool
        Whether the call specifies the ends of all prompts. Otherwise the last token was used as the end.
    in_doubt : bool
        Whether the call specifies one end for prompts that may have different lengths.
    packed : bool
        Whether positions restart within a row, so that it contains several samples.
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
        """Assignment of visual tokens to images, tiles and frames (synchronizes once)."""
        return find_images(self.inputs.placeholders, self.inputs.shapes, self.tokens.slots.device)

    @cached_property
    def layout(self) -> ImageLayout:
        """Locations of the images, which must have a common grid (synchronizes once)."""
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
    """Read a prompt from the keyword arguments of the base model's forward pass.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    inputs : mapping
        The arguments.
    border : Border
        Information on the ends of the prompts.
    ids_of_embeddings : Tensor, optional
        ``[samples, tokens]`` long: token ids of the embeddings in the arguments. Beams repeat each sample.

    Raises
    ------
    UnsupportedGenerationError
        If the attention mask is not a padding mask.
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
    """Whether the arguments of a call contain images or videos, or their features."""
    return bool(inputs.get("mm_encoder_outputs")) or any(inputs.get(name) is not None for name in _PIXELS)


def _placeholders(spec: ModelSpec, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    ids: Tensor | None = inputs.get("input_ids")
    if ids is not None:
        return {modality: ids == token for modality, token in spec.visual_token_ids.items()}
    # As in the model itself, placeholders are recognized by their embedding.
    embeddings = inputs["inputs_embeds"]
    found = {}
    for modality, token in spec.visual_token_ids.items():
        found[modality] = (embeddings == spec.embed(torch.tensor(token, device=embeddings.device))).all(-1)
    return found


def read_prompt(
    inputs: PromptInputs, batch: int, past: int, length: int, device: torch.device, ranking: Tensor | None = None
) -> Prompt:
    """Classify the tokens of a prefill (synchronizes once).

    Parameters
    ----------
    inputs : PromptInputs
        Inputs read at the base model.
    batch, past, length : int
        Number of samples, of slots before this forward pass, and of tokens in it.
    device : torch.device
        Device of the decoder's inputs.
    ranking : Tensor, optional
        ``[batch]`` long: slot of the last prompt token, if an earlier pass has found it.

    Notes
    -----
    Text is never removed, and neither are visual tokens whose output is needed: the last token of the prompt, which
    ranks and whose logits start the answer, and tokens before a label.
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
    # The following rows are drafts, which are never removed, so this holds after every cut.
    common = from_end[0] if set(from_end) == {border.drafted + 1} else None
    # Some layers may have lost padding and others not, so columns cannot be counted back through it.
    crop_limit = past + (length if any(n_invalid) else max(visual_end))
    return Prompt(
        tokens, found + past, common, crop_limit, inputs, told=not untold, in_doubt=in_doubt, packed=is_packed
    )
