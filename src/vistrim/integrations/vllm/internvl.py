"""InternVL in vLLM, with fewer visual tokens. Only vLLM imports this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm.config import VllmConfig
from vllm.model_executor.models.interns1 import (
    InternS1DummyInputsBuilder,
    InternS1ForConditionalGeneration,
    InternS1MultiModalProcessor,
    InternS1ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalKwargsItems
from vllm.multimodal.parse import ImageEmbeddingItems, ImageSize, MultiModalDataItems
from vllm.multimodal.processing import PromptReplacement, PromptUpdate, PromptUpdateDetails

from vistrim.core.layout import ImageShape, Picture
from vistrim.integrations.vllm.picking import count, pick, squared
from vistrim.integrations.vllm.processing import TrimmedInfo, TrimmedProcessor
from vistrim.integrations.vllm.settings import read_method
from vistrim.integrations.vllm.tower import TowerReader
from vistrim.methods import PerImage


def cell_of(config: Any) -> int:
    """Compute the number of patches along each side of the square that becomes a visual token."""
    return int(1 / config.downsample_ratio)


def shapes_of(config: Any, tiles: int) -> list[ImageShape]:
    """Describe the visual tokens of an image of some tiles, which the model is given like images, all of one grid."""
    rows, columns = (
        pixels // patch // cell_of(config)
        for pixels, patch in zip(config.vision_config.image_size, config.vision_config.patch_size, strict=True)
    )
    return [ImageShape((Picture.of((rows, columns)),))] * tiles


class TrimmedInternVLInfo(TrimmedInfo, InternS1ProcessingInfo):
    """Numbers of tokens of an image."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Permit images only: videos would not be trimmed."""
        return {"image": None}

    def get_num_image_tokens(
        self, *, image_width: int, image_height: int, processor: Any, mm_kwargs: Mapping[str, object]
    ) -> int:
        """Compute the number of placeholders of an image of this size."""
        tiles = self._tiles(image_width, image_height, processor, mm_kwargs)
        return count(self.method, shapes_of(self.get_hf_config(), tiles))

    def get_image_size_with_most_features(self) -> ImageSize:
        """Find the size with the most placeholders and, of several, with the most tiles."""
        config, processor = self.get_hf_config(), self.get_hf_processor()
        height, width = config.vision_config.image_size
        sizes = [ImageSize(width * columns, height * rows) for columns, rows in self.resolve_target_ratios()]

        def placeholders_and_tiles(size: ImageSize) -> tuple[int, int]:
            tiles = self._tiles(size.width, size.height, processor, {})
            return count(self.method, shapes_of(config, tiles)), tiles

        return max(sizes, key=placeholders_and_tiles)

    def _tiles(self, width: int, height: int, processor: Any, mm_kwargs: Mapping[str, object]) -> int:
        tokens = InternS1ProcessingInfo.get_num_image_tokens(
            self, image_width=width, image_height=height, processor=processor, mm_kwargs=mm_kwargs
        )
        return tokens // int(processor.image_seq_length)


class TrimmedInternVLProcessor(TrimmedProcessor, InternS1MultiModalProcessor):
    """Prompts with a placeholder for each remaining token."""

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        updates = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        (images,) = (update for update in updates if update.modality == "image")
        processor = self.info.get_hf_processor(**hf_processor_mm_kwargs)
        token, per_tile = processor.image_token_id, processor.image_seq_length

        def shortened(item: int) -> PromptUpdateDetails:
            whole = images.content(item)
            if isinstance(mm_items["image"], ImageEmbeddingItems):
                return whole
            first, tokens = whole.full.index(token), whole.full.count(token)
            kept = count(self.info.method, shapes_of(self.info.get_hf_config(), tokens // per_tile))
            shorter = [*whole.full[:first], *[token] * kept, *whole.full[first + tokens :]]
            return PromptUpdateDetails.select_token_id(shorter, token)

        return [PromptReplacement(modality="image", target=images.target, replacement=shortened)]


@MULTIMODAL_REGISTRY.register_processor(
    TrimmedInternVLProcessor, info=TrimmedInternVLInfo, dummy_inputs=InternS1DummyInputsBuilder
)
class VistrimInternVLForConditionalGeneration(InternS1ForConditionalGeneration):
    """InternVL whose images are trimmed by the method in the model's config.

    Parameters
    ----------
    vllm_config : VllmConfig
        Settings of the engine.
    prefix : str
        Prefix of the names of the weights.

    Raises
    ------
    VistrimError
        If the method is missing or cannot work in vLLM. The message names the fix.
    """

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        method = read_method(vllm_config.model_config.hf_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.trim_with(method)

    def trim_with(self, method: PerImage) -> None:
        """Trim images by a method from now on."""
        self.trimming, self.tower_reader = method, None
        if method.reads_vision and hasattr(self.vision_tower, "encoder"):
            self.tower_reader = TowerReader(
                method,
                kernels=[block.attention.attn for block in self.vision_tower.encoder.layer],
                output=self.vision_tower.layernorm,
                heads=self.config.vision_config.num_attention_heads,
                has_class=True,
                skip=1,
                project=None,
            )

    def _process_vision_input(self, image_input: Any) -> Any:
        embeddings = super()._process_vision_input(image_input)
        if image_input["type"] == "image_embeds":
            return embeddings
        values = [] if self.tower_reader is None else self.tower_reader.take()
        cell = cell_of(self.config)
        picked = []
        for image, tiles in zip(embeddings, image_input["num_patches"].tolist(), strict=True):
            own, values = values[:tiles], values[tiles:]
            vision = squared(own, cell) if own else None
            picked.append(pick(self.trimming, shapes_of(self.config, tiles), image, vision))
        return tuple(picked)
