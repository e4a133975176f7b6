"""Tiny LLaVA models with random weights, and prompts for them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor

from vistrim.engine.releases import CACHE

IMAGE, PAD, BOS, VOCABULARY = 150, 0, 1, 160
TOKENS_PER_IMAGE = 16
DEPTH = 5
TEXTS = ("llama", "mistral", "qwen2")

_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": 2,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


def config(text: str = "llama", vision: str = "clip_vision_model", **extra: Any) -> transformers.LlavaConfig:
    strategy = "default" if vision == "clip_vision_model" else "full"
    return transformers.LlavaConfig(
        vision_config={"model_type": vision, **_VISION},
        text_config={"model_type": text, **_TEXT, **extra},
        image_token_index=IMAGE,
        image_seq_length=TOKENS_PER_IMAGE,
        vision_feature_select_strategy=strategy,
    )


def build(
    text: str = "llama",
    attention: str = "sdpa",
    vision: str = "clip_vision_model",
    seed: int = 0,
    **extra: Any,
):
    """A fresh model; weights are spread so that attention is peaky and trimming changes the logits a lot."""
    torch.manual_seed(seed)
    model = transformers.LlavaForConditionalGeneration(config(text, vision, **extra))
    model.set_attn_implementation(attention)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                gain = 1.5 if "q_proj" in name or "k_proj" in name else 1.0
                parameter.copy_(torch.randn_like(parameter) * gain / parameter.shape[-1] ** 0.5)
            if "embed" in name and parameter.dim() == 2:
                parameter.copy_(torch.randn_like(parameter))
    # Generation always runs to the asked length.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    return model.eval()


@cache
def shared(text: str = "llama", attention: str = "sdpa", vision: str = "clip_vision_model"):
    """One model for many tests, which must leave it as it is."""
    return build(text, attention, vision)


@dataclass(frozen=True)
class Sample:
    """One prompt: token ids with placeholders, and its images ``[images, 3, 16, 16]``."""

    ids: list[int]
    pixels: Tensor

    @property
    def visual(self) -> int:
        return self.ids.count(IMAGE)

    @property
    def text(self) -> int:
        return len(self.ids) - self.visual


def sample(images: int = 1, text: int = 9, seed: int = 0) -> Sample:
    """A prompt with text before, between and behind its images (two neighbors touch)."""
    generator = torch.Generator().manual_seed(1000 * seed + 10 * images + text)
    words = torch.randint(3, 140, (text,), generator=generator).tolist()
    ids = [BOS, *words[:3]]
    for i in range(images):
        ids += [IMAGE] * TOKENS_PER_IMAGE
        if i % 2 == 1:
            ids += words[3:4]
    ids += words[3:]
    return Sample(ids, torch.randn(images, 3, 16, 16, generator=generator))


def batch(samples: list[Sample], side: str = "left") -> dict[str, Tensor]:
    """Pad samples and put them together as a processor would."""
    width = max(len(s.ids) for s in samples)
    ids, mask = [], []
    for s in samples:
        pad = width - len(s.ids)
        row, ones = ([PAD] * pad, [0] * pad), (s.ids, [1] * len(s.ids))
        first, second = (row, ones) if side == "left" else (ones, row)
        ids.append(first[0] + second[0])
        mask.append(first[1] + second[1])
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    pixels = torch.cat([s.pixels for s in samples])
    return inputs | ({"pixel_values": pixels} if len(pixels) else {})


RAGGED = [sample(1, 9), sample(2, 14, seed=1), sample(1, 5, seed=2)]
"""Different texts, different numbers of images."""

SAME_LENGTH = [sample(2, 6, seed=3), sample(1, 6 + TOKENS_PER_IMAGE + 1, seed=4)]
"""Equal lengths without any padding, but different numbers of visual tokens."""


@torch.no_grad()
def generate(model: Any, inputs: dict[str, Tensor], new_tokens: int = 8, **kwargs: Any) -> Any:
    """Greedy by default, with logits and cache."""
    options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    return model.generate(**inputs, max_new_tokens=new_tokens, **(options | kwargs))


def in_threads(work: Callable[[Sample], Any], samples: list[Sample]) -> list[Any]:
    """Do something with every sample at the same time."""
    with ThreadPoolExecutor(len(samples)) as pool:
        return list(pool.map(work, samples))


def logits(output: Any) -> Tensor:
    """``[batch, steps, vocabulary]``."""
    return torch.stack(output.logits, 1)


def follow_up(output: Any, inputs: dict[str, Tensor], more: Tensor, pixels: Tensor | None = None) -> dict[str, Any]:
    """Inputs of a next turn on the returned cache: everything so far, and ``more`` ids behind it."""
    ids = torch.cat([output.sequences, more], 1)
    grown = ids.shape[1] - inputs["attention_mask"].shape[1]
    ones = torch.ones(ids.shape[0], grown, dtype=torch.long)
    turn = {
        "input_ids": ids,
        "attention_mask": torch.cat([inputs["attention_mask"], ones], 1),
        CACHE: output[CACHE],
    }
    return turn | ({"pixel_values": pixels} if pixels is not None else {})
