"""Granite 4 Vision: features enter before several decoder layers and not at the input; tiles with newlines."""

import torch
import transformers

from tests.families.layout import around, drawn, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample

PINPOINTS = [[16, 32], [32, 16], [32, 32]]
SIDE = 2
"""Rows and columns of a tile's visual tokens: 4 by 4 patches in windows of 2 by 2, one token for each."""


def _config():
    return transformers.Granite4VisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 64,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        qformer_config={
            "model_type": "blip_2_qformer",
            "num_hidden_layers": 1,
            "intermediate_size": 24,
            "cross_attention_frequency": 1,
            "vocab_size": 8,
            "use_qformer_text_input": False,
        },
        text_config={
            **TEXT,
            "embedding_multiplier": 1.5,
            "logits_scaling": 2.0,
            "residual_multiplier": 0.8,
            "attention_multiplier": 0.4,
        },
        image_token_index=IMAGE,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=SIDE * SIDE,
        downsample_rate="1/2",
        deepstack_layer_map=[(-1, 0), (-2, 2)],
        spatial_vision_layer=-1,
        spatial_target_layers=[1, 3],
        projector_dropout=0.0,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    sizes = drawn(PINPOINTS, images, generator)
    # A small view of the whole, and rows of tiles with a newline behind each.
    counts = [SIDE * SIDE + (h // 16 * SIDE) * (w // 16 * SIDE + 1) for h, w in sizes]
    ids = around([[IMAGE] * n for n in counts], words(text, generator))
    if not images:
        return Sample(ids)
    # Padded to the largest number of tiles.
    pixels = noise(images, 5, 3, 16, 16, generator=generator)
    return Sample(ids, {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)})


FAMILIES = (Family("granite4_vision", "Granite 4 Vision", _config, _sample),)
