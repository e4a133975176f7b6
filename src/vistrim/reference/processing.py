"""The tokenizer and the processor of the reference models: stock classes with a small word-level vocabulary."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

from vistrim.reference.scenes import COLORS, COLUMNS, KINDS, LETTERS, ROWS, SIZES

PAD, BOS, EOS, UNKNOWN, IMAGE, USER, ASSISTANT = SPECIAL_TOKENS = (
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    "<image>",
    "<user>",
    "<assistant>",
)
# The order determines token ids. Words may only be appended, or trained weights become invalid.
WORDS = (
    *("background", "what", "color", "is", "the", "kind", "of", "shape", "size", "which", "letter", "on", "where"),
    *("has", "at", "how", "many", "are", "there", "a", "with", "above", "below", "yes", "no"),
    *("describe", "image", "all", "and"),
    *COLORS,
    *KINDS,
    *SIZES,
    *ROWS,
    *COLUMNS,
    *map(str, range(10)),
    *LETTERS,
    # Additional words of easy-VQA.
    *("does", "contain", "present", "in", "not", "rectangle", "black", "gray", "teal", "brown"),
)

IMAGE_SIZE = 144
PATCH_SIZE = 12
GRID = IMAGE_SIZE // PATCH_SIZE

#: Images come first, as in training, regardless of their place in the message.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<assistant>{% else %}<user>{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer that ignores case, punctuation and plurals. Unknown words become ``<unk>``."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *WORDS))}
    backend = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    nouns = "|".join((*KINDS, "shape", "letter"))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[^\p{L}\p{N}\s]+"), " "),
            normalizers.Replace(Regex(r"\bcolour\b"), "color"),
            normalizers.Replace(Regex(rf"(?<={nouns})e?s\b"), ""),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    backend.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE, USER, ASSISTANT],
        # Batched generation needs padding on the left, so that every prompt ends where the answer begins.
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> LlavaProcessor:
    """Build the processor. Images are resized to 144 x 144 pixels, which become 144 visual tokens."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            # Resizing without a center crop keeps the whole scene.
            do_center_crop=False,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.25, 0.25, 0.25],
        ),
        tokenizer=build_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def chat(prompt: str) -> list[dict[str, object]]:
    """Build the messages of one question about one image."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
