"""Ovis 2, Aria, Perception LM: processors like no other's."""

import transformers

from tests.families.zoo import aria, ovis2
from tests.families.zoo.family import END, IMAGE, START, VIDEO
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chatml, plain

TURNS = {147: "<|im_start|>", 148: "<|im_end|>"}


def _ovis2():
    names = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    special = {IMAGE: "<IMG_ATOM>", 145: "<image>", **dict(zip(ovis2.INDICATORS, names, strict=True)), **TURNS}
    square = {"height": ovis2.SIDE, "width": ovis2.SIDE}
    return transformers.Ovis2Processor(
        image_processor("Ovis2ImageProcessor", size=square, crop_to_patches=True, max_patches=4),
        build_tokenizer(special),
        image_seq_length=ovis2.TILE,
        chat_template=chatml("<image>\n"),
    )


def _aria():
    special = {IMAGE: "<|img|>", START: "<fim_prefix>", END: "<fim_suffix>", **TURNS}
    return transformers.AriaProcessor(
        image_processor("AriaImageProcessor", max_image_size=980, min_image_size=140),
        build_tokenizer(special, image_token="<|img|>"),
        size_conversion={980: aria.TOKENS},
        chat_template=chatml("<fim_prefix><|img|><fim_suffix>"),
    )


def _of_large_patches(config):
    """Its processor always makes images of 980 pixels."""
    config.vision_config.image_size, config.vision_config.patch_size = 980, 140
    config.projector_patch_to_query_dict = {49: aria.TOKENS}


def _perception_lm():
    special = {IMAGE: "<|image|>", VIDEO: "<|video|>"}
    square = {"height": 16, "width": 16}
    return transformers.PerceptionLMProcessor(
        image_processor=transformers.PerceptionLMImageProcessor(size=square, tile_size=16, max_num_tiles=4),
        video_processor=transformers.PerceptionLMVideoProcessor(size=square),
        tokenizer=build_tokenizer(special, image_token=special[IMAGE], video_token=special[VIDEO]),
        patch_size=4,
        pooling_ratio=2,
        chat_template=plain("<|image|>", "<|video|>"),
    )


CHECKPOINTS = (
    Checkpoint("ovis2", _ovis2),
    Checkpoint("aria", _aria, _of_large_patches, needs_torchvision=False),
    Checkpoint("perception_lm", _perception_lm, has_video=True),
)
