"""Questions about one image packed into one row of fixed length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

IGNORED = -100

#: Text tokens whose attention is computed at a time.
BLOCK = 128

#: Blocks of text tokens: their places in the text, the places of the text tokens that they may see besides the context,
#: and the mask of both, ``(B, 1, tokens, context + seen)`` bool.
TextMask = list[tuple[slice, slice, torch.Tensor]]

#: What :func:`pack` returns.
PACKED = ("tokens", "labels", "segments", "offsets")


class Wording:
    """Token ids of questions and answers in the chat template.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        SmolLM2's own, with its own chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": "\0"}], tokenize=False, add_generation_prompt=True
        )
        before, self._after = chat.split("\0")
        self.end = tokenizer.eos_token_id
        #: What stands before the image.
        self.prefix = self._ids([before])[0]

    def questions(self, asked: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Ids of what follows the image, and of the answer with its end, for (prompt, answer) pairs."""
        prompts = self._ids([f"\n{prompt}{self._after}" for prompt, _ in asked])
        answers = self._ids([answer for _, answer in asked])
        return [(prompt, [*answer, self.end]) for prompt, answer in zip(prompts, answers, strict=True)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]


def pack(rows: Sequence[Sequence[tuple[list[int], list[int]]]], length: int) -> dict[str, np.ndarray]:
    """Pack the questions of each image into one row; those that do not fit are left out.

    Parameters
    ----------
    rows : sequence of sequences of (prompt ids, answer ids)
        One inner sequence per image.
    length : int
        Tokens per row.

    Returns
    -------
    dict of str to numpy.ndarray
        ``(rows, length)`` int64 each: ``tokens``; ``labels``, what comes after each token, ``IGNORED`` outside
        answers; ``segments``, the 1-based number of a token's question, 0 for padding; ``offsets``, the place in it.
    """
    fills = dict(zip(PACKED, (0, IGNORED, 0, 0), strict=True))
    packed = {name: np.full((len(rows), length), fill, dtype=np.int64) for name, fill in fills.items()}
    for i, row in enumerate(rows):
        at = 0
        for segment, (prompt, answer) in enumerate(row, start=1):
            # The last answer token is only a target, never an input.
            read = prompt + answer[:-1]
            end = at + len(read)
            if end > length:
                continue
            packed["tokens"][i, at:end] = read
            packed["labels"][i, end - len(answer) : end] = answer
            packed["segments"][i, at:end] = segment
            packed["offsets"][i, at:end] = np.arange(len(read))
            at = end
    return packed


def text_mask(segments: torch.Tensor, context: int) -> TextMask:
    """Build the mask of packed text: each token sees the context and the earlier tokens of its question.

    Parameters
    ----------
    segments : torch.Tensor
        ``(B, T)``, from :func:`pack`.
    context : int
        Tokens before the text, which all of it sees. Padding sees them too: a row without any key is NaN.

    Returns
    -------
    TextMask
        Questions are short, so that a block sees little of the text.
    """
    length = segments.shape[1]
    line = torch.arange(length, device=segments.device)
    causal = line[:, None] >= line
    own = causal & (segments[:, :, None] == segments[:, None, :])
    first = own.int().argmax(-1).amin(0).tolist()
    blocks = []
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        seen = slice(min(first[start:end]), end)
        blocks.append((slice(start, end), seen, F.pad(own[:, start:end, seen], (context, 0), value=True)[:, None]))
    return blocks
