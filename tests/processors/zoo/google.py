"""Gemma 3, and PaliGemma, which has no chat template."""

import transformers

from tests.families.zoo import gemma3, paligemma
from tests.families.zoo.family import END, IMAGE, START
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chat_template


def _square(side):
    return {"height": side, "width": side}


def _gemma3():
    special = {
        IMAGE: "<image_soft_token>",
        START: "<start_of_image>",
        END: "<end_of_image>",
        141: "<start_of_turn>",
        142: "<end_of_turn>",
    }
    return transformers.Gemma3Processor(
        image_processor("Gemma3ImageProcessor", size=_square(gemma3.SIDE)),
        build_tokenizer(special, image_token=special[IMAGE], boi_token=special[START], eoi_token=special[END]),
        image_seq_length=9,
        chat_template=chat_template(
            ("<start_of_turn>user\n", "<end_of_turn>\n"),
            ("<start_of_turn>model\n", "<end_of_turn>\n"),
            "<start_of_image>",
        ),
    )


def _paligemma():
    images = image_processor("SiglipImageProcessor", size=_square(paligemma.SIDE))
    images.image_seq_length = paligemma.TOKENS
    return transformers.PaliGemmaProcessor(images, build_tokenizer({IMAGE: "<image>"}))


CHECKPOINTS = (
    Checkpoint("gemma3", _gemma3, needs_torchvision=False),
    Checkpoint("paligemma", _paligemma, needs_torchvision=False),
    Checkpoint("paligemma-gemma2", _paligemma, needs_torchvision=False),
)
