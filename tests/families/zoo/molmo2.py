"""Molmo 2: pooled patches are added to the placeholders' embeddings; image tokens see each other in both directions."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample, concatenated

COLUMN, LOW_START, IMAGE_START, IMAGE_END, FRAME_START, FRAME_END = 152, 153, 154, 155, 156, 157
PATCHES = 16
"""Of one crop: 4 by 4, pooled 2 by 2."""


def _config(**extra):
    heads = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    return transformers.Molmo2Config(
        vision_config={
            **heads,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "image_size": [16, 16],
            "patch_size": 4,
        },
        adapter_config={**heads, "vision_feature_layer": [1, 0], "intermediate_size": 24, "text_hidden_size": 32},
        text_config={**TEXT, "head_dim": 8, "additional_vocab_size": 0, **extra},
        image_patch_id=IMAGE,
        image_start_token_id=IMAGE_START,
        low_res_image_start_token_id=LOW_START,
        image_end_token_id=IMAGE_END,
        frame_start_token_id=FRAME_START,
        frame_end_token_id=FRAME_END,
    )


def _pooled(crops: int, columns: int, first: int) -> torch.Tensor:
    """The 4 patches of each token ``[tokens, 4]`` of crops side by side, in rows over all crops."""
    grid = first + torch.arange(crops * PATCHES).view(crops // columns, columns, 4, 4)
    grid = grid.permute(0, 2, 1, 3).reshape(crops // columns * 4, columns * 4)
    return grid.unfold(0, 2, 2).unfold(1, 2, 2).reshape(-1, 4)


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    tiles = drawn([(1, 1), (1, 2), (2, 1)], images, generator)
    pieces, pools, crops = [], [], 0
    for rows, columns in tiles:
        low = ([IMAGE] * 2 + [COLUMN]) * 2
        high = ([IMAGE] * (2 * columns) + [COLUMN]) * (2 * rows)
        pieces.append([LOW_START, *low, IMAGE_END, IMAGE_START, *high, IMAGE_END])
        pools += [_pooled(1, 1, crops * PATCHES), _pooled(rows * columns, columns, (crops + 1) * PATCHES)]
        crops += 1 + rows * columns
    ids = around(pieces, said)
    if not images:
        return Sample(ids)
    return Sample(
        ids,
        {
            "pixel_values": noise(crops, PATCHES, 48, generator=generator),
            "image_token_pooling": torch.cat(pools),
            "image_grids": torch.tensor([[2, 2, 2 * rows, 2 * columns] for rows, columns in tiles]),
            "image_num_crops": torch.tensor([1 + rows * columns for rows, columns in tiles]),
        },
    )


def _films(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    """Videos in place of images: the model takes no batch that has both."""
    said = words(text, generator)
    frames = drawn([2, 3], images, generator)
    pieces = [[7, FRAME_START, *[IMAGE] * 4, FRAME_END] * n for n in frames]
    ids = around(pieces, said)
    if not images:
        return Sample(ids)
    return Sample(
        ids,
        {
            "pixel_values_videos": noise(sum(frames), PATCHES, 48, generator=generator),
            "video_token_pooling": torch.cat([_pooled(1, 1, i * PATCHES) for i in range(sum(frames))]),
            "video_grids": torch.tensor([[n, 2, 2] for n in frames]),
        },
    )


def _collate(media):
    """Patches of later samples are counted on from those of the earlier ones."""
    media = [m for m in media if m]
    joined = concatenated(media)
    for pixels, pooling in (("pixel_values", "image_token_pooling"), ("pixel_values_videos", "video_token_pooling")):
        if pooling in joined:
            views = torch.tensor([len(m[pixels]) for m in media])
            before = (views.cumsum(0) - views) * PATCHES
            joined[pooling] += before.repeat_interleave(torch.tensor([len(m[pooling]) for m in media]))[:, None]
    return joined


def _types(ids, later=None):
    """Separators of an image belong to it."""
    return {"mm_token_type_ids": (((ids >= COLUMN) & (ids <= FRAME_END)) | (ids == IMAGE)).long()}


FAMILIES = (
    Family("molmo2", "Molmo 2 8B", _config, _sample, _collate, _types, join=_collate),
    Family("molmo2-video", "Molmo 2 8B on videos", _config, _films, _collate, _types, join=_collate),
    Family(
        "molmo2-olmo",
        "Molmo 2 O 7B",
        lambda: _config(qk_norm_type="olmo", norm_after=True, rope_scaling_layers=[1, 3]),
        _sample,
        _collate,
        _types,
        join=_collate,
    ),
)
