"""LLaVA 1.5 in vLLM, with fewer visual tokens. Only vLLM imports this module."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vistrim.core.layout import ImageShape, Picture
from vistrim.integrations.vllm.llava_like import TrimmedLlavaLike, TrimmedLlavaLikeInfo, side_of
from vistrim.integrations.vllm.picking import pick
from vistrim.integrations.vllm.processing import TrimmedProcessor
from vistrim.integrations.vllm.requirements import check_grid, check_tower


def shape_of(config: Any, tokens: int) -> ImageShape:
    """Describe the visual tokens of an image: one grid, unless the class token is one of them."""
    side = side_of(config)
    return ImageShape((Picture.of((side, side)) if tokens == side**2 else Picture(tokens),))


class TrimmedLlavaInfo(TrimmedLlavaLikeInfo, LlavaProcessingInfo):
    """Numbers of tokens of an image."""

    def check(self) -> None:
        """Refuse vision towers without a common grid of patches, and methods that need a grid where there is none."""
        config = self.get_hf_config()
        check_tower(config)
        check_grid(self.method, self.shape(config.vision_config.image_size, config.vision_config.image_size))

    def shape(self, width: int, height: int) -> ImageShape:
        """Describe the visual tokens of an image before trimming."""
        tokens = LlavaProcessingInfo.get_num_image_tokens(self, image_width=width, image_height=height)
        return shape_of(self.get_hf_config(), tokens)


class TrimmedLlavaProcessor(TrimmedProcessor, LlavaMultiModalProcessor):
    """Prompts with a placeholder for each remaining token."""


@MULTIMODAL_REGISTRY.register_processor(
    TrimmedLlavaProcessor, info=TrimmedLlavaInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class VistrimLlavaForConditionalGeneration(TrimmedLlavaLike, LlavaForConditionalGeneration):
    """LLaVA 1.5 whose images are trimmed by the method in the model's config: see `TrimmedLlavaLike`."""

    def _process_image_input(self, image_input: Any) -> Any:
        embeddings = super()._process_image_input(image_input)
        if image_input["type"] == "image_embeds":
            return embeddings
        values = [None] * len(embeddings) if self.tower_reader is None else self.tower_reader.take()
        return [
            pick(self.trimming, [shape_of(self.config, len(image))], image, vision)
            for image, vision in zip(embeddings, values, strict=True)
        ]
