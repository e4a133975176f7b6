"""What the Qwen-VL models of vLLM share. Only vLLM imports this module.

A position is a time, a row and a column (M-RoPE), and the remaining tokens keep theirs. vLLM computes positions before
an image is encoded, and lets a model correct them when its embeddings are used. The embeddings carry rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.multimodal.inputs import MultiModalKwargsItems
from vllm.multimodal.parse import DictEmbeddingItems, MultiModalDataItems
from vllm.multimodal.processing import PromptReplacement, PromptUpdate

from vistrim.integrations.vllm.picking import count, merged
from vistrim.integrations.vllm.places import MARKS, moved, pick_with_marks, places_of, shape_of
from vistrim.integrations.vllm.processing import TrimmedInfo, TrimmedProcessor
from vistrim.integrations.vllm.requirements import check_positions, check_whole_tower
from vistrim.integrations.vllm.settings import read_method
from vistrim.integrations.vllm.tower import PackedTowerReader
from vistrim.methods import PerImage


class TrimmedQwenInfo(TrimmedInfo):
    """Mixin: numbers of tokens of an image."""

    renumbers = False

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Permit images only: videos would not be trimmed."""
        return {"image": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """Compute the largest number of placeholders of an image."""
        return {"image": self.get_max_image_tokens()}  # type: ignore[attr-defined]

    def get_num_image_tokens(
        self, *, image_width: int, image_height: int, image_processor: Any, mm_kwargs: Mapping[str, object]
    ) -> int:
        """Compute the number of placeholders of an image of this size."""
        size, _ = self._get_vision_info(  # type: ignore[attr-defined]
            image_width=image_width, image_height=image_height, image_processor=image_processor, mm_kwargs=mm_kwargs
        )
        vision = self.get_hf_config().vision_config  # type: ignore[attr-defined]
        side = vision.patch_size * vision.spatial_merge_size
        return count(self.method, [shape_of(size.height // side, size.width // side)])


class TrimmedQwenProcessor(TrimmedProcessor):
    """Mixin: prompts with a placeholder for each remaining token."""

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, Any],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        updates = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)  # type: ignore[misc]
        (images,) = (update for update in updates if update.modality == "image")
        merge = self.info.get_hf_config().vision_config.spatial_merge_size

        def shortened(item: int) -> Any:
            whole = images.content(item)
            if isinstance(mm_items["image"], DictEmbeddingItems):
                return whole
            _, rows, columns = out_mm_kwargs["image"][item]["image_grid_thw"].data.tolist()
            return whole[: count(self.info.method, [shape_of(rows // merge, columns // merge)])]

        return [PromptReplacement(modality="image", target=images.target, replacement=shortened)]


class TrimmedQwen:
    """Mixin: a model whose images are trimmed by the method in its config.

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

    config: Any
    visual: Any

    norm: ClassVar[str]
    """Name of the norm at the beginning of the merger."""

    # Adapters of the tower would be given the number of tokens after trimming.
    supports_tower_connector_lora = False

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        method = read_method(vllm_config.model_config.hf_config, renumbers=False)
        check_positions(vllm_config)
        check_whole_tower(method, vllm_config)
        # vLLM asks a model for positions only if a rate is set. It concerns videos, which are not permitted here.
        multimodal: Any = vllm_config.model_config.multimodal_config
        multimodal.video_pruning_rate = multimodal.video_pruning_rate or 0.5
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self.trim_with(method)

    def trim_with(self, method: PerImage) -> None:
        """Trim images by a method from now on."""
        self.trimming, self.tower_reader = method, None
        if method.reads_vision and hasattr(self.visual, "blocks"):
            kernels = [block.attn.attn for block in self.visual.blocks]
            self.tower_reader = PackedTowerReader(method, kernels, getattr(self.visual.merger, self.norm))

    def order(self, rows: int, columns: int) -> Tensor:
        """Return the places, in the order of the tower, of the visual tokens of an image of so many patches."""
        return torch.arange(rows * columns // self.visual.spatial_merge_size**2)

    def _postprocess_image_embeds_evs(
        self, image_embeds_split: tuple[Tensor, ...], image_input: Any
    ) -> tuple[Tensor, ...]:
        """Trim images, and add the rows and columns of their tokens to the embeddings."""
        merge = self.visual.spatial_merge_size
        grids = [(rows, columns) for _, rows, columns in image_input["image_grid_thw"].tolist()]
        whole = image_input["type"] == "image_embeds"
        values: list[Any] = [None] * len(grids)
        if self.tower_reader is not None and not whole:
            values = self.tower_reader.take([rows * columns for rows, columns in grids])
        found = []
        for embeddings, (rows, columns), vision in zip(image_embeds_split, grids, values, strict=True):
            method = None if whole else self.trimming
            grid = rows // merge, columns // merge
            if vision is not None:
                vision = merged(vision, merge**2, self.order(rows, columns))
            hidden = self.config.vision_config.out_hidden_size
            found.append(pick_with_marks(method, grid, embeddings, hidden, vision))
        return tuple(found)

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Compute the positions of a prompt. All tokens of an image get its first one."""
        merge = self.config.vision_config.spatial_merge_size
        images = []
        for feature in sorted(mm_features, key=lambda feature: feature.mm_position.offset):
            _, rows, columns = feature.data["image_grid_thw"].data.tolist()
            images.append((feature.mm_position.offset, feature.mm_position.length, max(rows, columns) // merge))
        return places_of(len(input_tokens), images)

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[Tensor], Tensor, int]:
        """Set the rows and columns of the visual tokens that are about to enter the decoder."""
        positions = mrope_positions.clone()
        if multimodal_embeddings:
            marks = torch.cat([each[:, -MARKS:] for each in multimodal_embeddings])
            visual = torch.as_tensor(input_ids, device=positions.device) == self.config.image_token_id
            visual[:num_computed_tokens] = False
            where = visual.nonzero()[: len(marks), 0]
            positions[:, where] = moved(positions[:, where], marks)
        delta = int(positions.max()) + 1 - positions.shape[1]
        return [each[:, :-MARKS] for each in multimodal_embeddings], positions, delta
