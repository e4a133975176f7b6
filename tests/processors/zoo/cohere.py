"""Aya Vision and Command A Vision: tiles; the placeholder of a prompt is not the token of a patch."""

import transformers

from tests.families.zoo.cohere_vision import FIRST_TILE, LINE_BREAK, SIDE, WHOLE
from tests.families.zoo.family import END, IMAGE, START
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chat_template

SQUARE = {"height": SIDE, "width": SIDE}
TURNS = {147: "<|START_OF_TURN_TOKEN|>", 148: "<|END_OF_TURN_TOKEN|>"}


def _template(image):
    start, end = TURNS.values()
    return chat_template((f"{start}user", end), (f"{start}chatbot", end), image)


def _aya():
    special = {
        IMAGE: "<|IMG_PATCH|>",
        START: "<|START_OF_IMG|>",
        END: "<|END_OF_IMG|>",
        WHOLE: "TILE_GLOBAL",
        **{FIRST_TILE + i: f"TILE_{i + 1}" for i in range(4)},
        146: "<image>",
        **TURNS,
    }
    return transformers.AyaVisionProcessor(
        image_processor("GotOcr2ImageProcessor", size=SQUARE, crop_to_patches=True, max_patches=4),
        build_tokenizer(special),
        patch_size=4,
        img_size=SIDE,
        downsample_factor=2,
        chat_template=_template("<image>"),
    )


def _command_a():
    special = {
        IMAGE: "<|IMG_PATCH|>",
        START: "<|START_OF_IMG|>",
        END: "<|END_OF_IMG|>",
        LINE_BREAK: "<|IMG_LINE_BREAK|>",
        **TURNS,
    }
    named = {
        "image_token": special[IMAGE],
        "boi_token": special[START],
        "eoi_token": special[END],
        "img_line_break_token": special[LINE_BREAK],
    }
    return transformers.Cohere2VisionProcessor(
        # This is what the processor takes for the side of a tile in tokens.
        transformers.Cohere2VisionImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4, patch_size=3),
        build_tokenizer(special, **named),
        chat_template=_template("<|IMG_PATCH|>"),
    )


CHECKPOINTS = (Checkpoint("aya_vision", _aya), Checkpoint("cohere2_vision", _command_a))
