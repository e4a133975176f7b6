"""Prompts of conversations: chat template, tokens and pixel values."""

import logging
import threading
from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from torch import Tensor

from vistrim._utils.memory import is_out_of_memory
from vistrim.engine import ModelSpec
from vistrim.errors import PromptError
from vistrim.prompting import PADDED, check_text, format_prompts, prompt_format
from vistrim.serving.collating import Sample, collate, names_per_sample
from vistrim.serving.errors import RequestError
from vistrim.serving.messages import Conversation

log = logging.getLogger("vistrim.serving")

_PROBES = ((2, 1, 0), (1, 1, 0), (1, 1))
"""Numbers of images of the prompts whose batch is tried."""


class Preparer:
    """Makes prompts, and puts them into batches.

    Parameters
    ----------
    processor : ProcessorMixin
        The processor of the model.
    spec : ModelSpec
        Description of the model.

    Attributes
    ----------
    can_batch : bool
        Whether prompts that were made one by one form the same batch as prompts that the processor makes together.
    """

    def __init__(self, processor: Any, spec: ModelSpec) -> None:
        self._processor = processor
        self._placeholders = frozenset(spec.visual_token_ids.values())
        # Fast tokenizers must not be used by two threads at once.
        self._lock = threading.Lock()
        self._has_template = prompt_format(processor).write is None
        self._reads_text_as_text = self._has_template and self._ignores_placeholders()
        self._per_sample: frozenset[str] = frozenset()
        self.can_batch = any(self._check_batch(images) for images in _PROBES)

    def prepare(self, conversation: Conversation) -> dict[str, Tensor]:
        """Make the prompt of a conversation.

        Parameters
        ----------
        conversation : Conversation
            The messages.

        Returns
        -------
        dict of str to Tensor
            Inputs of ``generate`` for one sample, on the CPU.

        Raises
        ------
        RequestError
            If the model has no format for this conversation.
        """
        try:
            if not self._reads_text_as_text:
                for text in conversation.texts:
                    check_text(self._processor, text)
            with self._lock:
                return self._format([conversation])
        except PromptError as error:
            raise _refused(str(error)) from None
        except TemplateError as error:
            # Templates use it to tell what they do not support, such as two questions in a row.
            raise _refused(f"the chat template of the model refuses these messages: {str(error)[:200]}") from None
        except RequestError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if "sanitize" in str(error):
                # Some tokenizers make a special token, such as that of unknown words, from plain text.
                raise _refused(
                    "the text contains a special token that this model cannot read as text: remove it"
                ) from None
            # Templates and processors are the checkpoint's own and raise any type of exception.
            log.warning("the processor fails on a request", exc_info=True)
            raise _refused(
                "the processor of the model fails on these messages: use other images, or fewer messages"
            ) from None

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Put prompts into a batch with padding on the left."""
        return collate(samples, self._placeholders, self._per_sample)

    def _format(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        if self._has_template:
            inputs = self._processor.apply_chat_template(
                [conversation.turns for conversation in conversations],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                # transformers modifies its arguments.
                processor_kwargs=dict(PADDED),
                **({"sanitize_control_tokens": True} if self._reads_text_as_text else {}),
            )
        else:
            texts, images = zip(*map(_single_turn, conversations), strict=True)
            inputs = format_prompts(self._processor, texts, images)
        inputs.pop("labels", None)
        return dict(inputs)

    def _ignores_placeholders(self) -> bool:
        """Whether the processor reads a placeholder in a user's text as text."""
        self._reads_text_as_text = True
        token = getattr(self._processor, "image_token", "<image>")
        try:
            ids = self._format([_conversation(f"a {token} b", 0)])["input_ids"]
        # A processor that does not know the setting raises any type of exception.
        except Exception:
            return False
        return not torch.isin(ids, torch.tensor(sorted(self._placeholders))).any()

    def _check_batch(self, images: Sequence[int]) -> bool:
        """Compare a batch of the processor with a batch of prompts made one by one."""
        conversations = [_conversation("a b c d"[: 2 * n + 1], n) for n in images]
        try:
            together = self._format(conversations)
            alone = [self._format([conversation]) for conversation in conversations]
            self._per_sample = names_per_sample(alone[0]) if images[0] > 1 else frozenset()
            batch = self.collate(alone)
        except Exception:
            return False
        mask = together["attention_mask"].bool()
        together["input_ids"] = together["input_ids"].masked_fill(~mask, 0)
        batch["input_ids"] = batch["input_ids"].masked_fill(~mask, 0)
        return together.keys() == batch.keys() and all(torch.equal(together[name], batch[name]) for name in batch)


def _single_turn(conversation: Conversation) -> tuple[str, list[Image.Image]]:
    if [turn["role"] for turn in conversation.turns] != ["user"]:
        raise _refused("this model has no chat template: send a single message of the user")
    return "\n".join(conversation.texts), conversation.images


def _conversation(text: str, images: int) -> Conversation:
    shown = [{"type": "image", "image": Image.new("RGB", (40 + 8 * i, 56), "gray")} for i in range(images)]
    return Conversation([{"role": "user", "content": [*shown, {"type": "text", "text": text}]}])


def _refused(message: str) -> RequestError:
    return RequestError(message, code="invalid_messages", param="messages")
