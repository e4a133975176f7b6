"""Chameleon and Emu3, whose images become words of a codebook."""

import transformers

from tests.families.zoo import chameleon, emu3
from tests.families.zoo.family import END, IMAGE, START
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chat_template


def _chameleon():
    special = {IMAGE: "<image>", START: "<racm3:break>", END: "<eoss>", 140: "<reserved08706>"}
    tokenizer = build_tokenizer(special, image_token=special[IMAGE], boi_token=special[START], eoi_token=special[END])
    tokenizer.sep_token = special[140]
    return transformers.ChameleonProcessor(
        image_processor("ChameleonImageProcessor", size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
        tokenizer,
        image_seq_length=chameleon.TOKENS,
    )


def _emu3():
    special = {
        IMAGE: "<image>",
        START: "<|image start|>",
        END: "<|image end|>",
        140: "<|image token|>",
        emu3.NEWLINE: "<|extra_200|>",
        148: "<|extra_201|>",
    }
    named = {
        "image_token": special[IMAGE],
        "boi_token": special[START],
        "eoi_token": special[END],
        "image_wrapper_token": special[140],
        "eof_token": special[148],
    }
    return transformers.Emu3Processor(
        transformers.Emu3ImageProcessor(min_pixels=16 * 16, max_pixels=48 * 48, spatial_factor=8),
        build_tokenizer(special, **named),
        chat_template=chat_template(("USER: ", " "), ("ASSISTANT:", "</s>"), "<image>", start=""),
    )


def _of_eight_pixels(config):
    config.vq_config.channel_multiplier = [1, 1, 1, 1]


CHECKPOINTS = (
    Checkpoint("chameleon", _chameleon, needs_torchvision=False),
    Checkpoint("emu3", _emu3, _of_eight_pixels),
)
