"""Mistral 3: a Pixtral tower for images of any size, with a token in words behind each row."""

import torch
import transformers

from tests.families.zoo.family import END, IMAGE, TEXT, Family, Sample, choose, concatenated, draw_words, lay_out

BREAK = 140
SIZES = ((16, 24), (8, 32), (24, 16), (24, 24))
"""Height and width; 8 x 8 pixels make a token."""
SCALED = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 32.0,
    # Beyond them, queries are scaled by their position.
    "original_max_position_embeddings": 16,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.5,
}


def _config(**text):
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 4,
    }
    return transformers.Mistral3Config(
        vision_config=vision,
        text_config={**TEXT, "head_dim": 8, **text},
        image_token_index=IMAGE,
        tie_word_embeddings=False,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    sizes = [choose(SIZES, generator) for _ in range(images)]
    rows = [[*[IMAGE] * (width // 8), BREAK] for _, width in sizes]
    blocks = [[*(row * (height // 8))[:-1], END] for row, (height, _) in zip(rows, sizes, strict=True)]
    pictures = [{"pixel_values": torch.randn(1, 3, *size, generator=generator)} for size in sizes]
    media = {**concatenated(pictures), "image_sizes": torch.tensor(sizes)} if images else {}
    return Sample(lay_out(words, blocks), media)


FAMILIES = (
    Family("mistral3", "Mistral Small 3", lambda: _config(model_type="mistral", sliding_window=None), _sample),
    Family(
        "mistral3-ministral3",
        "Ministral 3",
        lambda: _config(model_type="ministral3", rope_parameters=SCALED),
        _sample,
    ),
)
