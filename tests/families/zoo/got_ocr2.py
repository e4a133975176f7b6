"""GOT-OCR 2.0: SAM tower, two convolutions, Qwen2 decoder; pages and crops stand one behind the other."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, framed, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample

TOKENS = 4


def _config():
    return transformers.GotOcr2Config(
        vision_config={
            "hidden_size": 16,
            "output_channels": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 4,
            "window_size": 3,
            "global_attn_indexes": [1],
            "mlp_dim": 24,
        },
        text_config={"model_type": "qwen2", **TEXT},
        image_token_index=IMAGE,
        image_seq_length=TOKENS,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    crops = drawn([1, 2, 3], images, generator)
    ids = around([framed(TOKENS * n) for n in crops], words(text, generator))
    return Sample(ids, {"pixel_values": noise(sum(crops), 3, 32, 32, generator=generator)} if images else {})


FAMILIES = (Family("got_ocr2", "GOT-OCR 2.0", _config, _sample),)
