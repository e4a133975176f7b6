"""PaliGemma: images first, and a prompt whose tokens all see each other."""

import torch
import transformers

from tests.families.zoo.family import BOS, IMAGE, TEXT, Family, Sample, draw_words, siglip

NEWLINE = 140
SIDE = 12
TOKENS = 9


def _config(**text):
    hidden = TEXT["hidden_size"]
    return transformers.PaliGemmaConfig(
        vision_config={**siglip(SIDE), "vision_use_head": False},
        text_config={**TEXT, "head_dim": 8, **text},
        image_token_index=IMAGE,
        projection_dim=hidden,
        hidden_size=hidden,
        vocab_size=TEXT["vocab_size"],
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ids = [*[IMAGE] * (TOKENS * images), BOS, *draw_words(text, generator), NEWLINE]
    return Sample(ids, {"pixel_values": torch.randn(images, 3, SIDE, SIDE, generator=generator)} if images else {})


def _token_types(ids: torch.Tensor, later: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """The prompt is the prefix; what comes behind it sees only what is before. The processor always gives labels."""
    types = torch.zeros_like(ids) if later is None else later.long()
    return {"token_type_ids": types, "labels": torch.full_like(ids, -100)}


FAMILIES = (
    Family("paligemma", "PaliGemma", lambda: _config(model_type="gemma"), _sample, derive=_token_types),
    Family(
        "paligemma-gemma2",
        "PaliGemma 2",
        lambda: _config(
            model_type="gemma2",
            query_pre_attn_scalar=8,
            sliding_window=16,
            attn_logit_softcapping=3.0,
            final_logit_softcapping=10.0,
        ),
        _sample,
        derive=_token_types,
    ),
)
