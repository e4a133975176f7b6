"""Tiny models with 8-bit and 4-bit weights, of widths that the kernels of every processor take."""

from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers import BitsAndBytesConfig

from tests.families.zoo import FAMILIES

NAMES = ("llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "internvl")
BITS = {
    "int8": BitsAndBytesConfig(load_in_8bit=True),
    "int8-all": BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0),
    "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
}
OUTPUTS, INPUTS = 32, 64
"""What the outputs and inputs of a 4-bit layer have to be multiples of where the processor has AVX-512 BF16: there
bitsandbytes packs outputs by 32, and takes a block of 64 weights to lie in one row."""


def widened(config: Any) -> Any:
    """A family's config with more and wider heads, in place."""
    text = config.get_text_config()
    text.num_attention_heads, text.num_key_value_heads = 8, 4
    for part in (text, config.vision_config):
        for size in ("hidden_size", "intermediate_size", "out_hidden_size"):
            if hasattr(part, size):
                setattr(part, size, INPUTS)
    return config


def load(name: str, bits: str, packed: bool = True) -> Any:
    """A fresh model, as transformers quantizes it while loading.

    Parameters
    ----------
    name, bits : str
        See `NAMES` and `BITS`.
    packed : bool
        Whether 4-bit layers may use the packed kernels of a processor with AVX-512 BF16. These round to bf16: where two
        ways to compute something differ in the last bit of fp32, they make it a hundredth. Without them all processors
        compute in fp32.
    """
    model = _wide(name)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        quantized = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, quantization_config=BITS[bits], dtype=torch.float32, attn_implementation="eager"
        )
    quantized.generation_config = model.generation_config
    for module in quantized.modules():
        if not packed and hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return quantized.eval()


@cache
def shared(name: str, bits: str, packed: bool = True) -> Any:
    """One model for many tests, which must leave it as it is."""
    return load(name, bits, packed)


@cache
def _wide(name: str) -> Any:
    return replace(FAMILIES[name], config=lambda: widened(FAMILIES[name].config())).build("eager")
