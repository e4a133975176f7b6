"""GLM-4.1V, GLM-4.5V, GLM-4.6V: as Qwen-VL, but frames of a video are written as images between video tokens."""

from typing import Any

import torch
import transformers

from tests.families.zoo.family import END, IMAGE, START, TEXT, VIDEO, Family, Sample, draw_words, lay_out
from tests.families.zoo.qwen_vl import VISION, draw_media

FILM_START, FILM_END = 140, 141
TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "image_start_token_id": START,
    "image_end_token_id": END,
    "video_start_token_id": FILM_START,
    "video_end_token_id": FILM_END,
}
# Half of a head is rotated, 8 numbers in 4 pairs.
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
EXPERTS = {
    "head_dim": 16,
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}


def _config(config_class: type, model_type: str, **text: Any):
    vision = {
        **VISION,
        "model_type": f"{model_type}_vision",
        "hidden_size": 16,
        "out_hidden_size": TEXT["hidden_size"],
        "intermediate_size": 24,
        "image_size": 24,
    }
    text = {**TEXT, "model_type": f"{model_type}_text", "rope_parameters": ROPE, **text}
    return config_class(vision_config=vision, text_config=text, **TOKENS)


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    pictures, films, media = draw_media(images, videos, generator)
    blocks = [[START, *[IMAGE] * (h * w // 4), END] for _, h, w in pictures]
    for t, h, w in films:
        steps = [[START, *[IMAGE] * (h * w // 4), END, *draw_words(1, generator)] for _ in range(t)]
        blocks.append([FILM_START, *(token for step in steps for token in step), FILM_END])
    return Sample(lay_out(words, blocks), media)


def _modality_types(ids: torch.Tensor, later: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    in_film = (ids == FILM_START).cumsum(1) > (ids == FILM_END).cumsum(1)
    return {"mm_token_type_ids": (ids == IMAGE).long() * (1 + in_film.long())}


def _family(name: str, title: str, config_class: type, model_type: str, **text: Any) -> Family:
    return Family(
        name,
        title,
        lambda: _config(config_class, model_type, **text),
        _sample,
        derive=_modality_types,
        has_video=True,
        # transformers looks for images and videos by the same token, and finds too many of each.
        has_both=False,
    )


FAMILIES = (
    _family("glm4v", "GLM-4.1V", transformers.Glm4vConfig, "glm4v", **HEADS),
    _family("glm46v", "GLM-4.6V", transformers.Glm46VConfig, "glm4v", **HEADS),
    _family("glm4v_moe", "GLM-4.5V", transformers.Glm4vMoeConfig, "glm4v_moe", **EXPERTS),
)
