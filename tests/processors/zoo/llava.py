"""LLaVA 1.5, ViP-LLaVA and Pixtral."""

import transformers

from tests.families.zoo.family import END, IMAGE
from tests.families.zoo.llava import BREAK
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, inst, plain


def _llava():
    return transformers.LlavaProcessor(
        image_processor("CLIPImageProcessor", size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        build_tokenizer({IMAGE: "<image>"}, image_token="<image>"),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=plain(),
    )


def _pixtral():
    return transformers.PixtralProcessor(
        image_processor("PixtralImageProcessor", size={"longest_edge": 32}, patch_size={"height": 4, "width": 4}),
        build_tokenizer({IMAGE: "[IMG]", BREAK: "[IMG_BREAK]", END: "[IMG_END]", 141: "[INST]", 142: "[/INST]"}),
        patch_size=4,
        chat_template=inst("[IMG]"),
    )


def _room_for_pixtral(config):
    config.vision_config.image_size = 32


CHECKPOINTS = (
    Checkpoint("llava", _llava, needs_torchvision=False),
    Checkpoint("vipllava", _llava, needs_torchvision=False),
    Checkpoint("llava-pixtral", _pixtral, _room_for_pixtral),
)
