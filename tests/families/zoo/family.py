"""What a family of models brings to the tests: a tiny model from a config, and prompts for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor

PAD, BOS, IMAGE, VIDEO, START, END, VOCABULARY = 0, 1, 150, 151, 152, 153, 160
DEPTH = 4
TEXT = {
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
"""Sizes of the decoder in every family."""


@dataclass(frozen=True)
class View:
    """One picture that the vision tower sees by itself (an image, a tile of it, or a frame), as it is in the prompt.

    Attributes
    ----------
    rows, columns : int
        Its visual tokens.
    """

    rows: int
    columns: int


@dataclass(frozen=True)
class Sample:
    """One prompt.

    Attributes
    ----------
    ids : list of int
        With placeholders.
    media : mapping of str to Tensor
        What a processor would give for this prompt alone, besides ids and mask; empty without images.
    visual : int
        Placeholders that stand for visual tokens.
    """

    ids: list[int]
    media: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def visual(self) -> int:
        return sum(token in (IMAGE, VIDEO) for token in self.ids)

    @property
    def text(self) -> int:
        return len(self.ids) - self.visual


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes
    ----------
    name : str
        The model type, with a suffix where one type has several rows ("paligemma-gemma2").
    title : str
        What people call it.
    config : callable
        Makes the config of a tiny model with the sizes of `TEXT`.
    make_sample : callable
        Makes a prompt of so many images, videos and words from a random generator: text before, between and behind the
        images, of several sizes wherever the family takes several.
    collate : callable
        Puts the media of several samples together as the family's processor would (by default, concatenates them).
    derive : callable
        Further inputs that a processor derives from the padded ids, such as ``mm_token_type_ids``.
    has_video : bool
        Whether videos may be asked for.
    """

    name: str
    title: str
    config: Callable[[], Any]
    make_sample: Callable[[Family, int, int, int, torch.Generator], Sample]
    collate: Callable[[list[Mapping[str, Tensor]]], dict[str, Tensor]] | None = None
    derive: Callable[[Tensor], dict[str, Tensor]] | None = None
    has_video: bool = False

    def build(self, attention: str = "sdpa", seed: int = 0) -> Any:
        """A fresh model; weights are spread so that attention is peaky and trimming changes the logits a lot."""
        torch.manual_seed(seed)
        config = self.config()
        model = transformers.AutoModelForImageTextToText.from_config(config)
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

    def sample(self, images: int = 1, text: int = 9, seed: int = 0, videos: int = 0) -> Sample:
        """A prompt; different seeds give different sizes of images where the family takes several."""
        generator = torch.Generator().manual_seed(1000 * seed + 100 * videos + 10 * images + text)
        return self.make_sample(self, images, videos, text, generator)

    def batch(self, samples: list[Sample], side: str = "left") -> dict[str, Tensor]:
        """Pad samples and put them together as a processor would."""
        width = max(len(s.ids) for s in samples)
        ids, mask = torch.full((len(samples), width), PAD), torch.zeros(len(samples), width, dtype=torch.long)
        for b, s in enumerate(samples):
            place = slice(width - len(s.ids), None) if side == "left" else slice(0, len(s.ids))
            ids[b, place], mask[b, place] = torch.tensor(s.ids), 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        collate = self.collate or concatenated
        inputs |= collate([s.media for s in samples if s.media])
        return inputs | (self.derive(ids) if self.derive is not None else {})


def concatenated(media: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """All tensors of a name one behind the other."""
    names = {name for m in media for name in m}
    return {name: torch.cat([m[name] for m in media if name in m]) for name in sorted(names)}
