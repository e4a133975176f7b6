"""DeepSeek-VL and Janus: one square image each."""

import transformers

from tests.families.zoo.family import END, IMAGE, START
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chat_template

SQUARE = {"height": 16, "width": 16}
TOKENS = 16
TURNS = ("User: ", "\n\n"), ("Assistant:", "</s>")


def _tokenizer():
    special = {IMAGE: "<image_placeholder>", START: "<begin_of_image>", END: "<end_of_image>"}
    return build_tokenizer(special, image_token=special[IMAGE], boi_token=special[START], eoi_token=special[END])


def _deepseek(name, **further):
    return getattr(transformers, f"{name}Processor")(
        image_processor(f"{name}ImageProcessor", size=SQUARE, min_size=4, **further),
        _tokenizer(),
        num_image_tokens=TOKENS,
        chat_template=chat_template(*TURNS, "<image_placeholder>"),
    )


def _janus():
    return transformers.JanusProcessor(
        image_processor("JanusImageProcessor", size=SQUARE, min_size=4),
        _tokenizer(),
        num_image_tokens=TOKENS,
        chat_template=chat_template(*TURNS, "<image_placeholder>\n"),
    )


CHECKPOINTS = (
    Checkpoint("deepseek_vl", lambda: _deepseek("DeepseekVL")),
    Checkpoint("deepseek_vl_hybrid", lambda: _deepseek("DeepseekVLHybrid", high_res_size={"height": 64, "width": 64})),
    Checkpoint("janus", _janus),
)
