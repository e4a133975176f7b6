"""InternVL: tiles without a grid of their own in the prompt."""

import transformers

from tests.families.zoo.family import END, IMAGE, START, VIDEO
from tests.families.zoo.internvl import SIDE, TILE
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chatml


def _processor():
    square = {"height": SIDE, "width": SIDE}
    tokens = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    special = {
        IMAGE: "<IMG_CONTEXT>",
        VIDEO: "<video>",
        START: "<img>",
        END: "</img>",
        141: "<|im_start|>",
        142: "<|im_end|>",
    }
    return transformers.InternVLProcessor(
        image_processor=image_processor("GotOcr2ImageProcessor", size=square, crop_to_patches=True, max_patches=4),
        video_processor=transformers.InternVLVideoProcessor(size=square),
        tokenizer=build_tokenizer(special, **tokens),
        image_seq_length=TILE,
        chat_template=chatml("<IMG_CONTEXT>\n", "<video>\n"),
    )


CHECKPOINTS = (Checkpoint("internvl", _processor, has_video=True),)
