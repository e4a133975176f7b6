"""GLM-OCR: images and videos as grids of patches, M-RoPE; a video is a row of frames with timestamps."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, framed, merged, packed, patches, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, VIDEO, Family, Sample

VIDEO_START, VIDEO_END = 154, 155
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


def _config():
    return transformers.GlmOcrConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "image_size": 32,
            "out_hidden_size": 32,
        },
        text_config={**TEXT, "head_dim": 8, "rope_parameters": MROPE},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        image_start_token_id=START,
        image_end_token_id=END,
        video_start_token_id=VIDEO_START,
        video_end_token_id=VIDEO_END,
    )


def _images(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    grids, _, media = packed(images, 0, (96,), generator)
    ids = around([framed(n) for n in merged(grids, 2)], said)
    return Sample(ids, media)


def _films(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    """Videos in place of images: the model takes no batch that has both, as their placeholders have the same id."""
    said = words(text, generator)
    films = drawn([(2, 4, 4), (3, 4, 4), (2, 4, 8)], images, generator)
    ids = around([[VIDEO_START, *[*framed(h * w // 4), 7] * t, VIDEO_END] for t, h, w in films], said)
    if not images:
        return Sample(ids)
    pixels = patches(films, (96,), generator)
    return Sample(ids, {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor(films)})


def _types(ids, later=None):
    """The start and end of a video tell its tokens from those of an image."""
    film = ((ids == VIDEO_START).cumsum(1) > (ids == VIDEO_END).cumsum(1)).long()
    return {"mm_token_type_ids": (ids == IMAGE).long() * (1 + film)}


FAMILIES = (
    Family("glm_ocr", "GLM-OCR", _config, _images, derive=_types),
    Family("glm_ocr-video", "GLM-OCR on videos", _config, _films, derive=_types),
)
