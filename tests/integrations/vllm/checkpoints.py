"""Tiny checkpoints with random weights that vLLM's kernels on the CPU can run, with the tokenizer of `reference`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, LlavaNextImageProcessorPil

from vistrim.reference.processing import CHAT_TEMPLATE, EOS, IMAGE, PAD, build_tokenizer

WEIGHTS = "model.safetensors"
SIDE, PATCH = 32, 8
GRIDS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]


def _decoder(tokenizer: Any) -> dict[str, Any]:
    ids = tokenizer.convert_tokens_to_ids
    return {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        # The kernel has no heads of fewer than 32 entries.
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "eos_token_id": ids(EOS),
        "pad_token_id": ids(PAD),
    }


def _tower(kind: str) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
    }


def _save(path: Path, model: Any, processor: Any) -> Path:
    """Save a model whose weights are spread, so that trimming changes its answers."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() >= 2:
                weights.copy_(torch.randn(weights.shape, generator=generator) * 1.5 / weights.shape[-1] ** 0.5)
            elif "bias" in name or "newline" in name:
                weights.copy_(torch.randn(weights.shape, generator=generator) * 0.2)
    model.generation_config.eos_token_id = model.config.text_config.eos_token_id
    model.generation_config.pad_token_id = model.config.text_config.pad_token_id
    model.save_pretrained(path)
    processor.save_pretrained(path)
    # vLLM expects the names of the checkpoints on the Hub, and transformers reads both.
    weights = load_file(path / WEIGHTS)
    renamed = {name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in weights.items()}
    save_file(renamed, path / WEIGHTS, {"format": "pt"})
    return path


def siglip_llava(path: Path) -> Path:
    """LLaVA 1.5 with a tower without a class token."""
    tokenizer = build_tokenizer()
    config = transformers.LlavaConfig(
        vision_config=_tower("siglip_vision_model"),
        text_config=_decoder(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    square = {"height": SIDE, "width": SIDE}
    processor = transformers.LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=square, crop_size=square, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=CHAT_TEMPLATE,
    )
    return _save(path, transformers.LlavaForConditionalGeneration(config), processor)


def llava_next(path: Path) -> Path:
    """LLaVA-NeXT: an overview and tiles of each image."""
    tokenizer = build_tokenizer()
    config = transformers.LlavaNextConfig(
        vision_config=_tower("clip_vision_model"),
        text_config=_decoder(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_grid_pinpoints=GRIDS,
        vision_feature_layer=-2,
    )
    square = {"height": SIDE, "width": SIDE}
    processor = transformers.LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size=square, image_grid_pinpoints=GRIDS
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return _save(path, transformers.LlavaNextForConditionalGeneration(config), processor)


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {"llava-siglip": siglip_llava, "llava-next": llava_next}
