"""The thinkers of Qwen2.5-Omni and Qwen3-Omni: images and videos with M-RoPE (sounds are not in the prompts)."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, merged, packed, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, VIDEO, Family, Sample

AUDIO, AUDIO_START, AUDIO_END = 154, 155, 156
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
EARS = {
    "num_mel_bins": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "d_model": 16,
    "output_dim": 32,
}
EYES = {"hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24, "num_heads": 2, "patch_size": 4}
TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "audio_token_id": AUDIO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
    "audio_start_token_id": AUDIO_START,
    "audio_end_token_id": AUDIO_END,
}


def _qwen2_5():
    return transformers.Qwen2_5OmniThinkerConfig(
        audio_config=EARS,
        vision_config={**EYES, "depth": 2, "window_size": 16, "fullatt_block_indexes": [1]},
        text_config={**TEXT, "rope_parameters": MROPE},
        **TOKENS,
    )


def _qwen3():
    return transformers.Qwen3OmniMoeThinkerConfig(
        audio_config={**EARS, "downsample_hidden_size": 8},
        vision_config={**EYES, "depth": 3, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]},
        text_config={
            **TEXT,
            "head_dim": 8,
            "rope_parameters": {**MROPE, "mrope_interleaved": True},
            "moe_intermediate_size": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
        },
        **TOKENS,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    grids, films, media = packed(images, videos, (96,), generator)
    pieces = [framed(n) for n in merged(grids, 2)] + [framed(n, VIDEO) for n in merged(films, 2)]
    if videos:
        media["video_second_per_grid"] = torch.full((videos,), 0.04)
    return Sample(around(pieces, said), media)


FAMILIES = (
    Family("qwen2_5_omni_thinker", "Qwen2.5-Omni", _qwen2_5, _sample, has_video=True),
    Family("qwen3_omni_moe_thinker", "Qwen3-Omni", _qwen3, _sample, has_video=True),
)
