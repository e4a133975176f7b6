"""Tokenizers and chat templates of the families, made in code."""

from collections.abc import Mapping
from string import printable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from tests.families.zoo.family import VOCABULARY, WORDS

UNKNOWN = WORDS.stop - 1


def build_tokenizer(special: Mapping[int, str], **named: Any) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges for ASCII text, in the vocabulary of the families' tiny models.

    Parameters
    ----------
    special : mapping of int to str
        The family's own tokens by their ids, all above those of words.
    **named
        Tokens that the family's processor asks its tokenizer for by name, such as ``image_token``.
    """
    byte_of = dict(ByteLevel(add_prefix_space=False).pre_tokenize_str(sign)[0] for sign in printable if sign.strip())
    letters = [*byte_of, "Ġ", "Ċ"]
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": UNKNOWN}
    vocabulary |= {letter: WORDS.start + i for i, letter in enumerate(letters)}
    vocabulary |= {name: number for number, name in special.items()}
    taken = set(vocabulary.values())
    vocabulary |= {f"<unused{i}>": i for i in range(VOCABULARY) if i not in taken}
    backend = Tokenizer(BPE(vocabulary, [], unk_token="<unk>"))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named,
    )


def chat_template(
    user: tuple[str, str],
    assistant: tuple[str, str],
    image: str,
    video: str = "",
    start: str = "{{ bos_token }}",
) -> str:
    """A template that writes turns one behind the other, and the placeholders where images and videos stand.

    Parameters
    ----------
    user, assistant : tuple of str
        What stands before and behind such a turn.
    image, video : str
        What the processor looks for.
    """
    return (
        start
        + "{% for message in messages %}"
        + f"{{% if message.role == 'user' %}}{user[0]}{{% else %}}{assistant[0]}{{% endif %}}"
        + f"{{% for part in message.content %}}{{% if part.type == 'image' %}}{image}"
        + f"{{% elif part.type == 'video' %}}{video}{{% else %}}{{{{ part.text }}}}{{% endif %}}{{% endfor %}}"
        + f"{{% if message.role == 'user' %}}{user[1]}{{% else %}}{assistant[1]}{{% endif %}}{{% endfor %}}"
        + f"{{% if add_generation_prompt %}}{assistant[0]}{{% endif %}}"
    )


def plain(image: str = "<image>\n", video: str = "<video>\n") -> str:
    """As LLaVA 1.5 was trained."""
    return chat_template(("USER: ", " "), ("ASSISTANT:", "</s>"), image, video)


def chatml(image: str, video: str = "") -> str:
    """As Qwen was trained, and many after it."""
    around = ("<|im_start|>user\n", "<|im_end|>\n"), ("<|im_start|>assistant\n", "<|im_end|>\n")
    return chat_template(*around, image, video, start="")


def inst(image: str) -> str:
    """As Mistral's models were trained."""
    return chat_template(("[INST]", "[/INST]"), ("", "</s>"), image)
