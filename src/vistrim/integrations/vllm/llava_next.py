"""LLaVA-NeXT in vLLM, with fewer visual tokens. Only vLLM imports this module."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape
from vllm.model_executor.models.llava import LlavaDummyInputsBuilder
from vllm.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    LlavaNextMultiModalProcessor,
    LlavaNextProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vistrim.core.layout import ImageShape
from vistrim.core.mosaics import read_mosaic
from vistrim.integrations.vllm.llava_like import TrimmedLlavaLike, TrimmedLlavaLikeInfo, side_of
from vistrim.integrations.vllm.picking import arranged, pick
from vistrim.integrations.vllm.processing import TrimmedProcessor
from vistrim.integrations.vllm.requirements import check_tower


@dataclass(frozen=True)
class Mosaic:
    """The visual tokens of an image: those of an overview, and those of its tiles with newlines behind their rows.

    Attributes
    ----------
    source : Tensor
        ``[tokens]`` long: number of the patch that the token is made of, among those of the overview and all tiles. -1:
        a newline.
    shape : ImageShape
        The layout.
    """

    source: Tensor
    shape: ImageShape


def mosaic(config: Any, height: int, width: int) -> Mosaic:
    """Find the layout of an image.

    The model's own function joins the tiles, crops the mosaic and inserts newlines. Here it is given numbers.

    Parameters
    ----------
    config : PreTrainedConfig
        Config of the model.
    height, width : int
        Size of the image in pixels.

    Returns
    -------
    Mosaic
        The layout.
    """
    side = side_of(config)
    rows, columns = get_anyres_image_grid_shape(
        (height, width), config.image_grid_pinpoints, config.vision_config.image_size
    )
    tiles = 1 + rows * columns
    numbers = torch.arange(tiles * side**2, dtype=torch.float64).view(tiles, -1, 1)
    model: Any = SimpleNamespace(config=config, image_newline=-numbers.new_ones(1))
    joined = LlavaNextForConditionalGeneration._merge_image_patch_embeddings(
        model, torch.tensor([height, width]), numbers, strategy="spatial_unpad"
    )
    source = joined[:, 0].round().long()
    tile = one_hot(source.clamp(min=0) // side**2, tiles).double()
    return Mosaic(source, read_mosaic(tile.masked_fill((source < 0)[:, None], torch.nan), tiles, side))


class TrimmedLlavaNextInfo(TrimmedLlavaLikeInfo, LlavaNextProcessingInfo):
    """Numbers of tokens of an image."""

    def check(self) -> None:
        """Refuse vision towers that are not supported."""
        check_tower(self.get_hf_config())

    def shape(self, width: int, height: int) -> ImageShape:
        """Describe the visual tokens of an image before trimming."""
        return mosaic(self.get_hf_config(), height, width).shape

    def get_image_size_with_most_features(self) -> ImageSize:
        """Find the size with the most placeholders and, of several, with the most tokens before trimming."""

        def size(pinpoint: Any) -> tuple[int, int]:
            height, width = pinpoint
            placeholders = self.get_num_image_tokens(image_width=width, image_height=height)
            return placeholders, self.shape(width, height).tokens

        height, width = max(self.get_hf_config().image_grid_pinpoints, key=size)
        return ImageSize(width=width, height=height)


class TrimmedLlavaNextProcessor(TrimmedProcessor, LlavaNextMultiModalProcessor):
    """Prompts with a placeholder for each remaining token."""


@MULTIMODAL_REGISTRY.register_processor(
    TrimmedLlavaNextProcessor, info=TrimmedLlavaNextInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class VistrimLlavaNextForConditionalGeneration(TrimmedLlavaLike, LlavaNextForConditionalGeneration):
    """LLaVA-NeXT whose images are trimmed by the method in the model's config: see `TrimmedLlavaLike`."""

    def _process_image_input(self, image_input: Any) -> Any:
        embeddings = super()._process_image_input(image_input)
        if image_input["type"] == "image_embeds":
            return embeddings
        values = [] if self.tower_reader is None else self.tower_reader.take()
        picked = []
        for image, size, pixels in zip(
            embeddings, image_input["image_sizes"].tolist(), image_input["pixel_values"], strict=True
        ):
            found = mosaic(self.config, *size)
            # Images that were processed together are padded to the same number of tiles.
            own, values = values[: len(pixels)], values[len(pixels) :]
            vision = arranged(own, found.source) if own else None
            picked.append(pick(self.trimming, [found.shape], image, vision))
        return picked
