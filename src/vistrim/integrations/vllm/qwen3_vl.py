"""Qwen3-VL in vLLM, with fewer visual tokens. Only vLLM imports this module."""

from __future__ import annotations

from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vistrim.integrations.vllm.qwen_vl import TrimmedQwen, TrimmedQwenInfo, TrimmedQwenProcessor


class Qwen3VLInfo(TrimmedQwenInfo, Qwen3VLProcessingInfo):
    """Numbers of tokens of an image."""

    def get_supported_mm_processor_kwargs(self) -> dict[str, set[str]]:
        """List options of images: vLLM's class adds those of videos, which are not permitted here."""
        return super(Qwen3VLProcessingInfo, self).get_supported_mm_processor_kwargs()


class Qwen3VLProcessor(TrimmedQwenProcessor, Qwen3VLMultiModalProcessor):
    """Prompts with a placeholder for each remaining token."""


@MULTIMODAL_REGISTRY.register_processor(Qwen3VLProcessor, info=Qwen3VLInfo, dummy_inputs=Qwen3VLDummyInputsBuilder)
class VistrimQwen3VLForConditionalGeneration(TrimmedQwen, Qwen3VLForConditionalGeneration):
    """Qwen3-VL whose images are trimmed by the method in the model's config: see `TrimmedQwen`."""

    norm = "norm"
