"""A tiny LLaVA checkpoint with its processor, as ``save_pretrained`` writes it."""

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

from tests import tiny

EOS = 2
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}USER: "
    "{% for part in message.content %}{% if part.type == 'image' %}<image> {% else %}{{ part.text }} {% endif %}"
    "{% endfor %}{% endfor %}ASSISTANT:"
)


def build_processor(chat_template: str | None = TEMPLATE) -> LlavaProcessor:
    words = {f"w{i}": i for i in range(tiny.VOCABULARY)}
    for i, word in enumerate(("<pad>", "<s>", "</s>", "<unk>", "USER:", "ASSISTANT:", "what", "is", "this")):
        del words[f"w{i}"]
        words[word] = i
    del words[f"w{tiny.IMAGE}"]
    words["<image>"] = tiny.IMAGE
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )


def save(path: Path, chat_template: str | None = TEMPLATE) -> Path:
    tiny.build().save_pretrained(path)
    build_processor(chat_template).save_pretrained(path)
    return path
