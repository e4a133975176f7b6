"""Step 3.7: crops with separators before the whole image, gated attention with other head counts in sliding layers."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, framed, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample

CROP_START, CROP_END, NEWLINE = 154, 155, 156
TOKENS, CROP_TOKENS = 4, 1


def _config():
    return transformers.Step3p7Config(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_ratio": 1.5,
            "image_size": 32,
            "patch_size": 4,
            "max_position_embeddings": 64,
        },
        text_config={
            **TEXT,
            "head_dim": 8,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "num_sliding_attention_heads": 6,
            "sliding_window": 40,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "share_expert_dim": 16,
        },
        image_token_id=IMAGE,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    crops = drawn([0, 2, 4], images, generator)
    pieces = []
    for n in crops:
        ids = []
        for i in range(n):
            ids += [CROP_START, *[IMAGE] * CROP_TOKENS, CROP_END]
            if i % 2 == 1 and i < n - 1:
                ids.append(NEWLINE)
        pieces.append(ids + framed(TOKENS))
    ids = around(pieces, words(text, generator))
    if not images:
        return Sample(ids)
    media = {
        "pixel_values": noise(images, 3, 32, 32, generator=generator),
        "num_local_patches": torch.tensor(crops),
    }
    if sum(crops):
        media["pixel_values_local"] = noise(sum(crops), 3, 16, 16, generator=generator)
    return Sample(ids, media)


FAMILIES = (Family("step3p7", "Step 3.7", _config, _sample),)
