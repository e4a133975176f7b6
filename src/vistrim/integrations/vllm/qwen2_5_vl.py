"""Qwen2.5-VL in vLLM, with fewer visual tokens. Only vLLM imports this module."""

from __future__ import annotations

from torch import Tensor
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vistrim.integrations.vllm.qwen_vl import TrimmedQwen, TrimmedQwenInfo, TrimmedQwenProcessor


class Qwen25VLInfo(TrimmedQwenInfo, Qwen2_5_VLProcessingInfo):
    """Numbers of tokens of an image."""


class Qwen25VLProcessor(TrimmedQwenProcessor, Qwen2_5_VLMultiModalProcessor):
    """Prompts with a placeholder for each remaining token."""


@MULTIMODAL_REGISTRY.register_processor(Qwen25VLProcessor, info=Qwen25VLInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder)
class VistrimQwen2_5_VLForConditionalGeneration(TrimmedQwen, Qwen2_5_VLForConditionalGeneration):  # noqa: N801  # as in vLLM
    """Qwen2.5-VL whose images are trimmed by the method in the model's config: see `TrimmedQwen`."""

    norm = "ln_q"

    def order(self, rows: int, columns: int) -> Tensor:
        """Return the places, in the order of the tower, of the visual tokens: it encodes them window by window."""
        windows, _ = self.visual.get_window_index_thw(1, rows, columns)
        return windows.argsort()
