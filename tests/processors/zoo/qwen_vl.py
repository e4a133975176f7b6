"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images of any size, within limits of pixels."""

import transformers

from tests.families.zoo.family import END, IMAGE, START, VIDEO
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chatml

PATCHES = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
LIMITS = {"shortest_edge": 16 * 16, "longest_edge": 48 * 48}
"""Pixels of an image, at most 36 tokens."""


def _build(processor_class, video_processor_class):
    special = {
        IMAGE: "<|image_pad|>",
        VIDEO: "<|video_pad|>",
        START: "<|vision_start|>",
        END: "<|vision_end|>",
        141: "<|im_start|>",
        142: "<|im_end|>",
    }
    return processor_class(
        image_processor=image_processor("Qwen2VLImageProcessor", size=LIMITS, **PATCHES),
        video_processor=video_processor_class(size=LIMITS, **PATCHES),
        tokenizer=build_tokenizer(special, image_token=special[IMAGE], video_token=special[VIDEO]),
        chat_template=chatml(
            "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
        ),
    )


def _qwen2():
    return _build(transformers.Qwen2VLProcessor, transformers.Qwen2VLVideoProcessor)


def _qwen2_5():
    return _build(transformers.Qwen2_5_VLProcessor, transformers.Qwen2VLVideoProcessor)


def _qwen3():
    return _build(transformers.Qwen3VLProcessor, transformers.Qwen3VLVideoProcessor)


CHECKPOINTS = (
    Checkpoint("qwen2_vl", _qwen2, has_video=True),
    Checkpoint("qwen2_5_vl", _qwen2_5, has_video=True),
    Checkpoint("qwen3_vl", _qwen3, has_video=True),
    Checkpoint("qwen3_vl_moe", _qwen3, has_video=True),
)
