"""Gemma 4: patches of several image sizes, padded; sliding windows, layers of two sizes."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, framed, padded, token_types, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, VIDEO, Family, Sample

MOST = 36
"""Patches that every image is padded to; 2 by 2 become one token."""


VARIANTS = {
    "gemma4-dense": ("Gemma 4 31B", {"attention_k_eq_v": True, "num_global_key_value_heads": 1}),
    "gemma4-bidirectional": ("Gemma 4 with images seen in both directions", {"use_bidirectional_attention": "vision"}),
}


def make_config(extra):
    return transformers.Gemma4Config(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "patch_size": 4,
            "pooling_kernel_size": 2,
            "position_embedding_size": 16,
        },
        text_config={
            **TEXT,
            "head_dim": 8,
            "global_head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 40,
            "vocab_size_per_layer_input": TEXT["vocab_size"],
            "hidden_size_per_layer_input": 0,
            **extra,
        },
        audio_config=None,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        boi_token_id=START,
        eoi_token_id=END,
        audio_token_id=157,
        boa_token_id=158,
        eoa_token_index=159,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    sizes = drawn([(6, 6), (4, 8), (8, 4), (4, 4)], images, generator)
    pieces = [framed(h * w // 4) for h, w in sizes]
    media = {}
    if images:
        media["pixel_values"], media["image_position_ids"] = padded(sizes, MOST, 48, generator)
    if videos:
        frames = drawn([2, 3], videos, generator)
        # A timestamp in front of every frame.
        pieces += [[5, *framed(4, VIDEO)] * n for n in frames]
        media["pixel_values_videos"], media["video_position_ids"] = padded([(4, 4)] * sum(frames), MOST, 48, generator)
        media["num_frames_per_video"] = torch.tensor(frames)
    return Sample(around(pieces, said), media)


FAMILIES = tuple(
    Family(name, title, lambda extra=extra: make_config(extra), _sample, derive=token_types, has_video=True)
    for name, (title, extra) in VARIANTS.items()
)
