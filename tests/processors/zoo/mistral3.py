"""Mistral Small 3 and LightOnOCR: images as Pixtral's, and 2 x 2 patches to a token."""

import transformers

from tests.families.zoo.family import END, IMAGE
from tests.families.zoo.mistral3 import BREAK
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chatml, inst


def _processor():
    return transformers.PixtralProcessor(
        image_processor("PixtralImageProcessor", size={"longest_edge": 48}, patch_size={"height": 4, "width": 4}),
        build_tokenizer({IMAGE: "[IMG]", BREAK: "[IMG_BREAK]", END: "[IMG_END]", 141: "[INST]", 142: "[/INST]"}),
        patch_size=4,
        spatial_merge_size=2,
        chat_template=inst("[IMG]"),
    )


def _lighton():
    special = {
        IMAGE: "<|image_pad|>",
        BREAK: "<|vision_pad|>",
        END: "<|vision_end|>",
        147: "<|im_start|>",
        148: "<|im_end|>",
    }
    named = {"image_token": special[IMAGE], "image_break_token": special[BREAK], "image_end_token": special[END]}
    return transformers.LightOnOcrProcessor(
        image_processor("PixtralImageProcessor", size={"longest_edge": 48}, patch_size={"height": 8, "width": 8}),
        build_tokenizer(special, **named),
        patch_size=4,
        spatial_merge_size=2,
        chat_template=chatml("<|image_pad|>"),
    )


def _room(config):
    config.vision_config.image_size = 48


CHECKPOINTS = (
    Checkpoint("lighton_ocr", _lighton, _room),
    Checkpoint("mistral3", _processor, _room),
    Checkpoint("mistral3-ministral3", _processor, _room),
)
