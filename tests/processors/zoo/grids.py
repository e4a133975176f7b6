"""Families that cut images of any size into grids of patches, as Qwen-VL does."""

import transformers

from tests.families.zoo.family import END, IMAGE, START, VIDEO
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chat_template, chatml
from tests.processors.zoo.glm_v import TEMPLATE
from tests.processors.zoo.qwen_vl import LIMITS, PATCHES

SPECIAL = {
    IMAGE: "<|image_pad|>",
    VIDEO: "<|video_pad|>",
    START: "<|vision_start|>",
    END: "<|vision_end|>",
    147: "<|im_start|>",
    148: "<|im_end|>",
}
CHATML = chatml("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")


def _tokenizer():
    return build_tokenizer(SPECIAL, image_token=SPECIAL[IMAGE], video_token=SPECIAL[VIDEO])


def _exaone():
    return transformers.Exaone4_5_Processor(
        image_processor=image_processor("Qwen2VLImageProcessor", size=LIMITS, **PATCHES),
        video_processor=transformers.Qwen2VLVideoProcessor(size=LIMITS, **PATCHES),
        tokenizer=_tokenizer(),
        chat_template=CHATML,
    )


def _video_llama():
    return transformers.VideoLlama3Processor(
        image_processor=image_processor("VideoLlama3ImageProcessor", size=LIMITS, patch_size=4, merge_size=1),
        video_processor=transformers.VideoLlama3VideoProcessor(size=LIMITS, patch_size=4, merge_size=2),
        tokenizer=_tokenizer(),
        chat_template=chatml("<|image_pad|>\n", "<|video_pad|>\n"),
    )


def _paddle():
    return transformers.PaddleOCRVLProcessor(
        image_processor("PaddleOCRVLImageProcessor", size=LIMITS, patch_size=4, merge_size=2),
        _tokenizer(),
        chat_template=CHATML,
    )


def _kimi():
    special = {
        IMAGE: "<|media_pad|>",
        VIDEO: "<|kimi_k25_video_placeholder|>",
        START: "<|media_begin|>",
        END: "<|media_end|>",
        147: "<|im_user|>",
        148: "<|im_assistant|>",
        149: "<|im_end|>",
    }
    limits = {"size": {"max_height": 48, "max_width": 48}, "patch_size": 4}
    return transformers.Kimi_K25Processor(
        image_processor=image_processor("Kimi_K25ImageProcessor", max_patches=144, **limits),
        video_processor=transformers.Kimi_K25VideoProcessor(**limits),
        tokenizer=build_tokenizer(special, image_token=special[IMAGE], video_token=special[VIDEO]),
        chat_template=chat_template(
            ("<|im_user|>user", "<|im_end|>"),
            ("<|im_assistant|>assistant", "<|im_end|>"),
            "<|media_begin|>image<|media_pad|><|media_end|>",
            "<|kimi_k25_video_placeholder|>",
            start="",
        ),
    )


def _glm_ocr():
    special = {
        IMAGE: "<|image|>",
        VIDEO: "<|video|>",
        START: "<|begin_of_image|>",
        END: "<|end_of_image|>",
        154: "<|begin_of_video|>",
        155: "<|end_of_video|>",
        142: "<|user|>",
        143: "<|assistant|>",
        144: "[gMASK]",
        145: "<sop>",
    }
    return transformers.Glm46VProcessor(
        image_processor=image_processor("Glm46VImageProcessor", size=LIMITS, **PATCHES),
        video_processor=transformers.Glm46VVideoProcessor(size=LIMITS, **PATCHES),
        tokenizer=build_tokenizer(special, image_token=special[IMAGE], video_token=special[VIDEO]),
        chat_template=TEMPLATE,
    )


CHECKPOINTS = (
    Checkpoint("exaone4_5", _exaone, has_video=True),
    Checkpoint("glm_ocr", _glm_ocr, has_video=True),
    Checkpoint("kimi_k25", _kimi, has_video=True),
    Checkpoint("paddleocr_vl", _paddle),
    Checkpoint("video_llama_3", _video_llama, has_video=True),
)
