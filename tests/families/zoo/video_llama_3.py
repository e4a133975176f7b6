"""VideoLLaMA 3: grids of patches pooled after the tower, 1-D RoPE; similar patches of a video are left out."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, framed, merged, patches, words
from tests.families.zoo.family import IMAGE, TEXT, VIDEO, Family, Sample


def _config():
    return transformers.VideoLlama3Config(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 4,
        },
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    grids = drawn([(1, 4, 4), (1, 2, 4), (1, 4, 2)], images, generator)
    films = drawn([(2, 4, 4), (3, 4, 4)], videos, generator)
    pieces, media = [framed(n) for n in merged(grids, 1)], {}
    if images:
        media["pixel_values"] = patches(grids, (48,), generator)
        media["image_grid_thw"] = torch.tensor(grids)
        media["image_merge_sizes"] = torch.ones(images, dtype=torch.long)
    if videos:
        kept = [torch.rand(t, h * w // 4, generator=generator) < 0.7 for t, h, w in films]
        for film in kept:
            film[0] = True
            pieces.append([token for frame in film for token in [6, 7, *[VIDEO] * int(frame.sum())]])
        media["pixel_values_videos"] = patches(films, (48,), generator)
        media["video_grid_thw"] = torch.tensor(films)
        media["video_merge_sizes"] = torch.full((videos,), 2)
        media["video_compression_mask"] = torch.cat([film.flatten() for film in kept])
    return Sample(around(pieces, said), media)


FAMILIES = (Family("video_llama_3", "VideoLLaMA 3", _config, _sample, has_video=True),)
