"""Video-LLaVA: its own processors of images and of videos, both by the same tower's size."""

import transformers

from tests.families.zoo.family import IMAGE, VIDEO
from tests.families.zoo.video_llava import SIDE
from tests.processors.checkpoint import Checkpoint
from tests.processors.tokens import build_tokenizer, plain

SIZE = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}


def _processor():
    return transformers.VideoLlavaProcessor(
        image_processor=transformers.VideoLlavaImageProcessor(**SIZE),
        video_processor=transformers.VideoLlavaVideoProcessor(**SIZE),
        tokenizer=build_tokenizer({IMAGE: "<image>", VIDEO: "<video>"}, image_token="<image>", video_token="<video>"),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=plain(),
    )


CHECKPOINTS = (Checkpoint("video_llava", _processor, has_video=True),)
