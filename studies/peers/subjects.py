"""Models and prompts that peers share: checkpoints with random weights, and tensors of inputs beside them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
)

IMAGE = 3
"""Id of the image placeholder."""
TEXT = 64
"""Text tokens of the prompt."""


@dataclass(frozen=True)
class Size:
    """Size of the language model, and of the image.

    Attributes
    ----------
    layers, hidden : int
        Of the language model. Heads are 64 wide.
    side : int
        Patches along one side of the image.
    """

    layers: int
    hidden: int
    side: int

    @property
    def text(self) -> dict[str, int]:
        """Settings of a Llama or Qwen language model."""
        heads = self.hidden // 64
        return {
            "hidden_size": self.hidden,
            "intermediate_size": 11 * self.hidden // 4,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "vocab_size": 32000,
            "max_position_embeddings": 8192,
        }


def save_llava(folder: Path, size: Size) -> int:
    """Save a LLaVA whose tower is tiny, and its language model alone, with an equally long prompt of text.

    Returns
    -------
    int
        Number of visual tokens.
    """
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=1,
        image_size=14 * size.side,
        patch_size=14,
    )
    config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(**size.text), image_token_id=IMAGE)
    model = _random(config)
    visual = size.side**2
    pixels = torch.randn(1, 3, vision.image_size, vision.image_size)
    _save(folder / "llava", model, {**_prompt(visual), "pixel_values": pixels})

    alone = LlamaForCausalLM(config.text_config)
    alone.model, alone.lm_head = model.model.language_model, model.lm_head
    ids = torch.randint(IMAGE + 1, 32000, (1, visual + TEXT))
    _save(folder / "language-model", alone, {"input_ids": ids})
    return visual


def save_qwen(folder: Path, size: Size) -> int:
    """Save a Qwen2.5-VL whose tower is tiny. Returns the number of visual tokens, a quarter of the patches."""
    rope = {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6}
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 1,
        "out_hidden_size": size.hidden,
        "fullatt_block_indexes": [1],
    }
    text = {**size.text, "rope_parameters": rope}
    ids = {"vision_start_token_id": 1, "vision_end_token_id": 2, "image_token_id": IMAGE, "video_token_id": 4}
    model = _random(Qwen2_5_VLConfig(vision_config=vision, text_config=text, **ids))
    visual = size.side**2 // 4
    inputs = {
        **_prompt(visual),
        "pixel_values": torch.randn(size.side**2, 3 * 2 * 14 * 14),
        "image_grid_thw": torch.tensor([[1, size.side, size.side]]),
    }
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).long()
    _save(folder / "qwen", model, inputs)
    return visual


def _random(config: LlavaConfig | Qwen2_5_VLConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config).eval()


def _prompt(visual: int) -> dict[str, torch.Tensor]:
    """Make a prompt of one image and text. The image is at the start, as the package sparsevlm expects."""
    ids = torch.randint(IMAGE + 2, 32000, (1, visual + TEXT))
    ids[:, :visual] = IMAGE
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _save(folder: Path, model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> None:
    model.generation_config = GenerationConfig(pad_token_id=0)
    model.save_pretrained(folder)
    torch.save(inputs, folder / "inputs.pt")
