"""Idefics 2 and 3, SmolVLM: a grid of tiles, each behind its name."""

import transformers

from tests.families.zoo.family import IMAGE
from tests.families.zoo.idefics import AROUND, LATENTS, SIDE, TILE
from tests.processors.checkpoint import Checkpoint, image_processor
from tests.processors.tokens import build_tokenizer, chat_template

SPECIAL = {
    IMAGE: "<image>",
    AROUND: "<fake_token_around_image>",
    140: "<global-img>",
    141: "<end_of_utterance>",
    142: "<row_1_col_1>",
    143: "<row_1_col_2>",
    144: "<row_1_col_3>",
    145: "<row_2_col_1>",
    146: "<row_2_col_2>",
    147: "<row_2_col_3>",
}
LONGEST = {"longest_edge": 3 * SIDE}
ONE_TILE = {"longest_edge": SIDE}


def _tokenizer():
    return build_tokenizer(
        SPECIAL,
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        image_boundary_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )


def _template(user):
    turns = (f"{user}:", "<end_of_utterance>\n"), ("Assistant:", "<end_of_utterance>\n")
    return chat_template(*turns, "<image>", "<video>")


def _idefics2():
    return transformers.Idefics2Processor(
        image_processor("Idefics2ImageProcessor", size={"shortest_edge": 12, "longest_edge": SIDE}),
        _tokenizer(),
        image_seq_len=LATENTS,
        chat_template=_template("User"),
    )


def _idefics3():
    return transformers.Idefics3Processor(
        image_processor("Idefics3ImageProcessor", size=LONGEST, max_image_size=ONE_TILE),
        _tokenizer(),
        image_seq_len=TILE,
        chat_template=_template("User"),
    )


def _smolvlm():
    return transformers.SmolVLMProcessor(
        image_processor("SmolVLMImageProcessor", size=LONGEST, max_image_size=ONE_TILE),
        _tokenizer(),
        transformers.SmolVLMVideoProcessor(
            size=ONE_TILE, max_image_size=ONE_TILE, video_sampling={"fps": 1, "max_frames": 4}, fps=1, num_frames=4
        ),
        image_seq_len=TILE,
        chat_template=_template("User"),
    )


CHECKPOINTS = (
    Checkpoint("idefics2", _idefics2, needs_torchvision=False),
    Checkpoint("idefics3", _idefics3, needs_torchvision=False),
    Checkpoint("smolvlm", _smolvlm, has_video=True),
)
