"""Plug-in of vLLM: models that trim visual tokens before the decoder. See docs/guides/vllm.md.

vLLM imports this module at every start, in every process. Therefore it imports nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vistrim._utils.lazy_names import find_lazily

if TYPE_CHECKING:
    from vistrim.integrations.vllm.precomputed import embeds

__all__ = ["ARCHITECTURES", "embeds", "register"]

ARCHITECTURES = {
    "VistrimLlavaForConditionalGeneration": "vistrim.integrations.vllm.llava",
    "VistrimInternVLForConditionalGeneration": "vistrim.integrations.vllm.internvl",
    "VistrimLlavaNextForConditionalGeneration": "vistrim.integrations.vllm.llava_next",
    "VistrimQwen2_5_VLForConditionalGeneration": "vistrim.integrations.vllm.qwen2_5_vl",
    "VistrimQwen3VLForConditionalGeneration": "vistrim.integrations.vllm.qwen3_vl",
}
"""Model classes by name, with their modules. Each is named after the class of vLLM that it derives from."""


def register() -> None:
    """Tell vLLM where the model classes are: the entry point of the group ``vllm.general_plugins``."""
    from vllm import ModelRegistry

    for name, module in ARCHITECTURES.items():
        if name not in ModelRegistry.get_supported_archs():
            # As text, so that the module is imported only if the model is used.
            ModelRegistry.register_model(name, f"{module}:{name}")


def __getattr__(name: str) -> Any:
    return find_lazily(__name__, name, __all__, {"vistrim.integrations.vllm.precomputed": ("embeds",)})
