"""LLaVA-NeXT, LLaVA-NeXT-Video and LLaVA-OneVision: tiles."""

import transformers

from tests.families.zoo import llava_next, llava_next_video
from tests.families.zoo.family import IMAGE, VIDEO
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chatml, plain


def _tokenizer():
    return build_tokenizer(
        {IMAGE: "<image>", VIDEO: "<video>", 141: "<|im_start|>", 142: "<|im_end|>"},
        image_token="<image>",
        video_token="<video>",
    )


def _tiles(name, side, grids):
    square = {"height": side, "width": side}
    return image_processor(name, size={"shortest_edge": side}, crop_size=square, image_grid_pinpoints=grids)


def _next():
    return transformers.LlavaNextProcessor(
        _tiles("LlavaNextImageProcessor", llava_next.SIDE, llava_next.GRIDS),
        _tokenizer(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=plain(),
    )


def _next_video():
    side = llava_next_video.SIDE
    return transformers.LlavaNextVideoProcessor(
        image_processor=_tiles("LlavaNextImageProcessor", side, llava_next_video.GRIDS),
        video_processor=transformers.LlavaNextVideoVideoProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        tokenizer=_tokenizer(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=plain(),
    )


def _onevision():
    square = {"height": llava_next.SIDE, "width": llava_next.SIDE}
    return transformers.LlavaOnevisionProcessor(
        image_processor=image_processor(
            "LlavaOnevisionImageProcessor", size=square, image_grid_pinpoints=llava_next.GRIDS
        ),
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=square),
        tokenizer=_tokenizer(),
        num_image_tokens=9,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
        chat_template=chatml("<image>\n", "<video>\n"),
    )


CHECKPOINTS = (
    Checkpoint("llava_next", _next, needs_torchvision=False),
    Checkpoint("llava_next_video", _next_video, has_video=True),
    Checkpoint("llava_onevision", _onevision, has_video=True),
)
