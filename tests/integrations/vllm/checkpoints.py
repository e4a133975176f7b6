"""Tiny checkpoints with random weights that vLLM's kernels on the CPU can run, with the words of `reference`."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import (
    CLIPImageProcessorPil,
    GotOcr2ImageProcessorPil,
    LlavaNextImageProcessorPil,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
)

from vistrim.reference.processing import CHAT_TEMPLATE, EOS, IMAGE, PAD, UNKNOWN, build_tokenizer

Inputs = Callable[[str, list[Image.Image]], dict[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in a folder.

    Attributes
    ----------
    model : PreTrainedModel
        The model.
    path : Path
        The folder.
    image_token : str
        What a prompt has in place of an image.
    inputs : callable
        What the model is given for a prompt and its images.
    engine : dict
        Further arguments of vLLM.
    renumbers : bool
        Whether the remaining tokens get consecutive positions.
    """

    model: Any
    path: Path
    image_token: str
    inputs: Inputs
    engine: dict[str, Any] = field(default_factory=dict)
    renumbers: bool = True

    def prompt(self, question: str) -> str:
        """A question about one image."""
        return f"<bos><user>{self.image_token}{question}<assistant>"


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


def _save(path: Path, model: Any) -> Any:
    """Save a model whose weights are spread, so that trimming changes its answers."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() >= 2:
                weights.copy_(torch.randn(weights.shape, generator=generator) * 1.5 / weights.shape[-1] ** 0.5)
            elif any(part in name for part in ("bias", "newline", "class_embedding")):
                weights.copy_(torch.randn(weights.shape, generator=generator) * 0.2)
    model.generation_config.eos_token_id = model.config.text_config.eos_token_id
    model.generation_config.pad_token_id = model.config.text_config.pad_token_id
    model.save_pretrained(path)
    return model.eval()


def _llava(path: Path, model: Any, processor: Any) -> Checkpoint:
    _save(path, model)
    processor.save_pretrained(path)
    # vLLM expects the names of the checkpoints on the Hub, and transformers reads both.
    weights = load_file(path / WEIGHTS)
    renamed = {name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in weights.items()}
    save_file(renamed, path / WEIGHTS, {"format": "pt"})

    def inputs(prompt: str, images: list[Image.Image]) -> Any:
        return processor(text=[prompt], images=images, return_tensors="pt")

    return Checkpoint(model, path, IMAGE, inputs)


def siglip_llava(path: Path) -> Checkpoint:
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
    return _llava(path, transformers.LlavaForConditionalGeneration(config), processor)


def llava_next(path: Path) -> Checkpoint:
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
    return _llava(path, transformers.LlavaNextForConditionalGeneration(config), processor)


TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""What InternVL's processor asks its tokenizer for."""


def internvl(path: Path) -> Checkpoint:
    """InternVL: tiles, of which squares of patches become a token.

    Its processor needs torchvision for videos. It is written by hand here, and done by hand by ``inputs``.
    """
    backend = build_tokenizer().backend_tokenizer
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in TOKENS.values()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, extra_special_tokens=TOKENS
    )
    context = TOKENS["context_image_token"]
    config = transformers.InternVLConfig(
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": [SIDE, SIDE],
            "patch_size": [PATCH // 2, PATCH // 2],
            "layer_scale_init_value": 1.0,
        },
        text_config=_decoder(tokenizer) | {"model_type": "qwen2", "tie_word_embeddings": True},
        tie_word_embeddings=True,
        image_token_id=tokenizer.convert_tokens_to_ids(context),
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    size = {"height": SIDE, "width": SIDE}
    settings = {"size": size, "crop_to_patches": True, "min_patches": 1, "max_patches": 4}
    process = GotOcr2ImageProcessorPil(**settings)
    model = _save(path, transformers.InternVLForConditionalGeneration(config))
    tokenizer.save_pretrained(path)
    written = {
        "processor_class": "InternVLProcessor",
        "image_seq_length": config.image_seq_length,
        "image_processor": {**process.to_dict(), "image_processor_type": "GotOcr2ImageProcessor"},
        "video_processor": {"video_processor_type": "InternVLVideoProcessor", "size": size},
    }
    (path / "processor_config.json").write_text(json.dumps(written))

    def inputs(prompt: str, images: list[Image.Image]) -> dict[str, Any]:
        pixels = process(images, return_tensors="pt")
        for count in torch.as_tensor(pixels["num_patches"]).tolist():
            shown = f"<img>{'<ONE>' * config.image_seq_length * count}</img>"
            prompt = prompt.replace(context, shown, 1)
        text = tokenizer([prompt.replace("<ONE>", context)], return_tensors="pt")
        return {
            **{name: text[name] for name in ("input_ids", "attention_mask")},
            "pixel_values": pixels["pixel_values"],
        }

    return Checkpoint(model, path, context, inputs)


VISION_TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")


def qwen2_5_vl(path: Path) -> Checkpoint:
    """Qwen2.5-VL: images of any size, window attention, and positions with a time, a row and a column."""
    vision = {
        # Windows of 3 x 3 tokens, which are cut off at the right and at the bottom.
        "window_size": 3 * PATCH,
        "fullatt_block_indexes": [1],
    }
    names = ("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor")
    return _qwen(path, transformers.Qwen2_5_VLForConditionalGeneration, vision, {}, names)


def qwen3_vl(path: Path) -> Checkpoint:
    """Qwen3-VL: the first layers of the decoder are given features of earlier blocks, too (DeepStack)."""
    vision = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    names = ("Qwen3VLProcessor", "Qwen3VLVideoProcessor")
    return _qwen(path, transformers.Qwen3VLForConditionalGeneration, vision, {"mrope_interleaved": True}, names)


def _qwen(path: Path, kind: Any, vision: dict[str, Any], rope: dict[str, Any], names: tuple[str, str]) -> Checkpoint:
    """Qwen-VL. Its processor needs torchvision for videos, as that of InternVL."""
    backend = build_tokenizer().backend_tokenizer
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in VISION_TOKENS])
    start, image, end, video = VISION_TOKENS
    named = {"image_token": image, "video_token": video, "vision_start_token": start, "vision_end_token": end}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, extra_special_tokens=named
    )
    ids = tokenizer.convert_tokens_to_ids
    patches = {"patch_size": PATCH // 2, "temporal_patch_size": 2}
    sizes = {"depth": 3, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "out_hidden_size": 64}
    config = kind.config_class(
        vision_config={**patches, **sizes, "spatial_merge_size": 2, **vision},
        text_config={
            **{name: value for name, value in _decoder(tokenizer).items() if name != "model_type"},
            "bos_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6], **rope},
        },
        tie_word_embeddings=False,
        **{f"{name}_id": ids(token) for name, token in named.items()},
    )
    size = {"shortest_edge": SIDE**2, "longest_edge": (2 * SIDE) ** 2}
    process = Qwen2VLImageProcessorPil(size=size, merge_size=2, **patches)
    model = _save(path, kind(config))
    tokenizer.save_pretrained(path)
    written = {
        "processor_class": names[0],
        "image_processor": {**process.to_dict(), "image_processor_type": "Qwen2VLImageProcessor"},
        "video_processor": {"video_processor_type": names[1], "size": size, "merge_size": 2, **patches},
    }
    (path / "processor_config.json").write_text(json.dumps(written))

    def inputs(prompt: str, images: list[Image.Image]) -> dict[str, Any]:
        pixels = process(images, return_tensors="pt")
        for grid in pixels["image_grid_thw"]:
            prompt = prompt.replace(image, "<ONE>" * (int(grid.prod()) // 4), 1)
        text = tokenizer([prompt.replace("<ONE>", image)], return_tensors="pt")
        found = {name: text[name] for name in ("input_ids", "attention_mask")}
        return {
            **found,
            "mm_token_type_ids": (found["input_ids"] == ids(image)).long(),
            "pixel_values": pixels["pixel_values"],
            "image_grid_thw": pixels["image_grid_thw"],
        }

    engine = {"worker_cls": "worker.PruningWorker"}
    return Checkpoint(model, path, f"{start}{image}{end}", inputs, engine, renumbers=False)


CHECKPOINTS: dict[str, Callable[[Path], Checkpoint]] = {
    "llava-siglip": siglip_llava,
    "llava-next": llava_next,
    "internvl": internvl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}
