"""GLM-4.1V, GLM-4.5V and GLM-4.6V: as Qwen-VL; a video is written as images, each with its time."""

import transformers

from tests.families.zoo.family import END, IMAGE, START, VIDEO
from tests.families.zoo.glm_v import FILM_END, FILM_START
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chat_template
from tests.processors.zoo.qwen_vl import LIMITS, PATCHES

SPECIAL = {
    IMAGE: "<|image|>",
    VIDEO: "<|video|>",
    START: "<|begin_of_image|>",
    END: "<|end_of_image|>",
    FILM_START: "<|begin_of_video|>",
    FILM_END: "<|end_of_video|>",
    142: "<|user|>",
    143: "<|assistant|>",
    144: "[gMASK]",
    145: "<sop>",
}
TEMPLATE = chat_template(
    ("<|user|>\n", ""),
    ("<|assistant|>\n", ""),
    "<|begin_of_image|><|image|><|end_of_image|>",
    "<|begin_of_video|><|video|><|end_of_video|>",
    start="[gMASK]<sop>",
)


def _build(name):
    return getattr(transformers, f"{name}Processor")(
        image_processor=image_processor(f"{name}ImageProcessor", size=LIMITS, **PATCHES),
        video_processor=getattr(transformers, f"{name}VideoProcessor")(size=LIMITS, **PATCHES),
        tokenizer=build_tokenizer(SPECIAL, image_token=SPECIAL[IMAGE], video_token=SPECIAL[VIDEO]),
        chat_template=TEMPLATE,
    )


CHECKPOINTS = (
    Checkpoint("glm4v", lambda: _build("Glm4v"), has_video=True),
    Checkpoint("glm4v_moe", lambda: _build("Glm4v"), has_video=True),
    Checkpoint("glm46v", lambda: _build("Glm46V"), has_video=True),
)
