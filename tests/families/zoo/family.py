"""A family of models in the tests: a tiny model from a config, and prompts for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import transformers
from torch import Tensor

PAD, BOS, IMAGE, VIDEO, START, END, VOCABULARY = 0, 1, 150, 151, 152, 153, 160
WORDS = range(3, 140)
"""Ordinary words; ids from 140 on are left to the separators of the families."""
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
"""Sizes of the decoder in every family (GLM has fewer heads)."""

Media = Mapping[str, Tensor]
Option = TypeVar("Option")


@dataclass(frozen=True)
class Sample:
    """One prompt.

    Attributes
    ----------
    ids : list of int
        With placeholders.
    media : mapping of str to Tensor
        What a processor would give for this prompt alone, besides ids and mask; empty without images.
    later : int
        Ids at the end that are no longer the first prompt: answers and further turns.
    visual : int
        Placeholders that stand for visual tokens.
    """

    ids: list[int]
    media: Media = field(default_factory=dict)
    later: int = 0

    @property
    def visual(self) -> int:
        return sum(token in (IMAGE, VIDEO) for token in self.ids)

    @property
    def text(self) -> int:
        return len(self.ids) - self.visual


def concatenated(media: Sequence[Media], dim: int = 0) -> dict[str, Tensor]:
    """All tensors of a name one behind the other; what is smaller gets zeros behind it, as processors pad."""
    names = sorted({name for m in media for name in m})
    return {name: _joined([m[name] for m in media if name in m], dim) for name in names}


def _joined(tensors: list[Tensor], dim: int) -> Tensor:
    largest = [max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True)]
    padded = []
    for t in tensors:
        shape = [own if d == dim else size for d, (own, size) in enumerate(zip(t.shape, largest, strict=True))]
        grown = t.new_zeros(shape)
        grown[tuple(slice(own) for own in t.shape)] = t
        padded.append(grown)
    return torch.cat(padded, dim)


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
        Puts the media of several samples together as the family's processor would; it is given an empty mapping for a
        sample without media (by default, `concatenated`).
    derive : callable
        Further inputs that a processor derives from the padded ids, such as ``mm_token_type_ids``; it may also be told
        which of them come behind the first prompt (a mask).
    image_dim : int
        Dimension along which the images of one sample lie: 1 if the processor gives ``[samples, images, ...]``.
    join : callable, optional
        Puts the media of several turns together as those of one prompt (by default, along ``image_dim``).
    has_video : bool
        Whether videos may be asked for.
    has_both : bool
        Whether images and videos may be in one call.
    """

    name: str
    title: str
    config: Callable[[], Any]
    make_sample: Callable[[Family, int, int, int, torch.Generator], Sample]
    collate: Callable[[Sequence[Media]], dict[str, Tensor]] = concatenated
    derive: Callable[..., dict[str, Tensor]] | None = None
    image_dim: int = 0
    join: Callable[[Sequence[Media]], dict[str, Tensor]] | None = None
    has_video: bool = False
    has_both: bool = True

    def build(self, attention: str = "sdpa", seed: int = 0) -> Any:
        """A fresh model; weights are spread so that attention is peaky and trimming changes the logits a lot."""
        torch.manual_seed(seed)
        config = self.config()
        model = transformers.AutoModelForImageTextToText.from_config(config)
        if attention == "sdpa" and not model.get_decoder()._supports_sdpa:
            # What transformers does by itself when it loads such a model.
            model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
        else:
            model.set_attn_implementation(attention)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2:
                    gain = 1.5 if "q_proj" in name or "k_proj" in name else 1.0
                    parameter.copy_(torch.randn_like(parameter) * gain / parameter.shape[-1] ** 0.5)
                if "embed" in name and parameter.dim() == 2:
                    parameter.copy_(torch.randn_like(parameter))
            words, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
            if head is words:
                # Smaller, or every token would answer with itself.
                words.mul_(words.shape[-1] ** -0.5)
            # A placeholder in an answer would be taken for an image by whoever reads the answer again, and so may be
            # what stands around one.
            head[[IMAGE, VIDEO] if head is words else slice(WORDS.stop, None)] = 0
        # Generation always runs to the asked length.
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = PAD
        return model.eval()

    def sample(self, images: int = 1, text: int = 9, seed: int = 0, videos: int = 0) -> Sample:
        """A prompt; different seeds give different sizes of images where the family takes several."""
        generator = torch.Generator().manual_seed(1000 * seed + 100 * videos + 10 * images + text)
        return self.make_sample(self, images, videos, text, generator)

    def batch(self, samples: Sequence[Sample], side: str = "left") -> dict[str, Tensor]:
        """Pad samples and put them together as a processor would."""
        width = max(len(s.ids) for s in samples)
        ids, mask = torch.full((len(samples), width), PAD), torch.zeros(len(samples), width, dtype=torch.long)
        later = torch.zeros(len(samples), width, dtype=torch.bool)
        for b, s in enumerate(samples):
            first = width - len(s.ids) if side == "left" else 0
            last = first + len(s.ids)
            ids[b, first:last], mask[b, first:last] = torch.tensor(s.ids), 1
            later[b, last - s.later : last] = True
        inputs = {"input_ids": ids, "attention_mask": mask}
        if any(s.media for s in samples):
            inputs |= self.collate([s.media for s in samples])
        return inputs | (self.derive(ids, later) if self.derive is not None else {})

    def joined(self, turns: Sequence[Sample]) -> Sample:
        """A conversation as one prompt: the turns one behind the other, with the media of all of them."""
        media = [turn.media for turn in turns if turn.media]
        ids = [token for turn in turns for token in turn.ids]
        everything = self.join(media) if self.join is not None else concatenated(media, self.image_dim)
        return Sample(ids, everything, later=len(ids) - len(turns[0].ids))


def draw_words(text: int, generator: torch.Generator) -> list[int]:
    """So many random words."""
    return torch.randint(WORDS.start, WORDS.stop, (text,), generator=generator).tolist()


def choose(options: Sequence[Option], generator: torch.Generator) -> Option:
    """One of them at random."""
    return options[int(torch.randint(len(options), (1,), generator=generator))]


def lay_out(words: list[int], blocks: list[list[int]]) -> list[int]:
    """Three words, the blocks with a word behind every second, and the other words; so two neighbors touch."""
    ids = [BOS, *words[:3]]
    for i, block in enumerate(blocks):
        ids += block
        if i % 2 == 1:
            ids += words[3:4]
    return ids + words[3:]


def clip(image_size: int = 16, patch_size: int = 4) -> dict[str, Any]:
    """A CLIP tower, which has a class token."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": patch_size,
        "projection_dim": 16,
    }


def siglip(image_size: int = 16, patch_size: int = 4) -> dict[str, Any]:
    """A SigLIP tower, which has none."""
    return {**clip(image_size, patch_size), "model_type": "siglip_vision_model"}


def modality_types(ids: Tensor, later: Tensor | None = None) -> dict[str, Tensor]:
    """0 for text, 1 for images, 2 for videos."""
    return {"mm_token_type_ids": (ids == IMAGE).long() + 2 * (ids == VIDEO).long()}
