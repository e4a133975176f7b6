"""Families of the zoo with settings under which something else becomes of their patches."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import transformers

from tests.families.zoo import FAMILIES, Family, Sample, shared
from tests.families.zoo.family import IMAGE, TEXT, draw_words, lay_out, siglip
from tests.families.zoo.llava_next import GRIDS, SIDE, tiled


def _with(name: str, **values: Any) -> Family:
    """Other values in the config; ``vision__side`` is one of ``vision_config``."""

    def config() -> Any:
        made = FAMILIES[name].config()
        for path, value in values.items():
            part = made.vision_config if path.startswith("vision__") else made
            setattr(part, path.removeprefix("vision__"), value)
        return made

    return replace(FAMILIES[name], config=config)


def _resized(family: Family, side: int) -> Family:
    """Images with other pixels, and as many tokens."""

    def sample(of: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
        made = family.make_sample(of, images, videos, text, generator)
        if not images:
            return made
        pictures = len(made.media["pixel_values"])
        return replace(made, media={"pixel_values": torch.randn(pictures, 3, side, side, generator=generator)})

    return replace(family, make_sample=sample)


def _class_token(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ids = lay_out(draw_words(text, generator), [[IMAGE] * 17] * images)
    return Sample(ids, {"pixel_values": torch.randn(images, 3, 16, 16, generator=generator)} if images else {})


def _granite() -> Any:
    """As Granite Vision has it."""
    return transformers.LlavaNextConfig(
        vision_config={**siglip(SIDE), "vision_use_head": False},
        text_config={"model_type": "llama", **TEXT},
        image_token_index=IMAGE,
        image_grid_pinpoints=GRIDS,
        vision_feature_select_strategy="full",
        vision_feature_layer=[-2, -1],
    )


def _narrow(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    """Images of one column of patches, in three tiles."""
    ids = lay_out(draw_words(text, generator), [[IMAGE] * (9 + 3 * 1 + 3)] * images)
    return Sample(ids, tiled([(3 * SIDE, SIDE)] * images, [4] * images, generator) if images else {})


VARIANTS: dict[str, Family] = {
    "llava-class": replace(_with("llava", vision_feature_select_strategy="full"), make_sample=_class_token),
    "llava_next-narrow": replace(_with("llava_next", image_grid_pinpoints=[[SIDE, 3 * SIDE]]), make_sample=_narrow),
    "llava_next-granite": replace(FAMILIES["llava_next"], config=_granite),
    "internvl-normed": _with("internvl", vision__use_mean_pooling=False),
    "internvl-inner": _with("internvl", vision_feature_layer=-2),
    "gemma3-cut": _resized(_with("gemma3", vision__image_size=28), 28),
}


def family(name: str) -> Family:
    """A family of the zoo, or a variant of one."""
    return VARIANTS.get(name) or FAMILIES[name]


@cache
def _variant(name: str, attention: str) -> Any:
    return VARIANTS[name].build(attention)


def model(name: str, attention: str = "sdpa") -> Any:
    """One model for many tests, which must leave it as it is."""
    build: Callable[[str, str], Any] = _variant if name in VARIANTS else shared
    return build(name, attention)
